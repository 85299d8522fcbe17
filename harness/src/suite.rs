//! A run as checks with names, for systems that collect tests (JUnit) or findings (SARIF).
//!
//! **Invariant**: a suite has a failed check exactly if the run that it is made of was no good one:
//! whatever else is listed, the first check says how the run ended, and is left out only where another
//! one fails and says why. No two checks have one name, and a name holds nothing that another run of
//! the same thing would have otherwise: addresses and counts stand in the message.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cxl_firmware::error::Code;
use cxl_lint::Severity;
use cxl_model::scenario::builtin;
use serde::Serialize;

use crate::attack;
use crate::remedies;
use crate::report::{Facts, Finding, Refusal, Verdict, Witness};
use crate::terminal::{harmless, harmless_json};
use crate::xml::Xml;

/// Checks of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// What was run, as on the command line.
    pub name: String,
    /// The files that it is about, the first one for what is in none of them.
    pub files: Vec<File>,
    /// The checks; the first says how it ended.
    pub checks: Vec<Check>,
}

/// A file that a suite is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is, percent-encoded: relative if it was named so.
    pub uri: String,
    /// What is in it, where that is a text that names components.
    pub text: String,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is a check of: `run`, `locks`, `attack`, a witness or a component.
    pub group: String,
    /// What is checked: the same whenever it is.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The rule that a finding breaks.
    pub rule: Rule,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it should be.
    Good,
    /// It is not, and why.
    Failed(String),
    /// Nothing fails for it, and something is wrong with it.
    Degraded(String),
    /// Nothing fails for it, and it is worth knowing.
    Noted(String),
    /// Nobody looked, and why.
    Skipped(String),
}

/// A rule, by the name that does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its name, or a number of the library's.
    pub id: String,
    /// What it asks.
    pub text: String,
    /// What to do where it is broken.
    pub remedy: String,
}

impl Rule {
    fn plain(id: &str, text: &str) -> Self {
        Self { id: id.to_owned(), text: text.to_owned(), remedy: String::new() }
    }

    fn of_code(code: u16) -> Option<Self> {
        let code = Code::new(code)?;
        Some(Self {
            id: format!("{:#06x}", code.number()),
            text: remedies::sentence(code)?,
            remedy: remedies::of(code).unwrap_or_default().to_owned(),
        })
    }
}

impl Check {
    fn new(group: &str, name: impl Into<String>, outcome: Outcome, rule: Rule) -> Self {
        Self { group: group.to_owned(), name: name.into(), outcome, rule }
    }

    fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// How the run ended, and of a refusal why.
    fn result(result: Verdict, refusal: Option<&Refusal>, failures: &[String]) -> Self {
        let ended = Rule::plain("run", "The firmware does what was asked, and every check agrees.");
        let (outcome, rule) = match (result, refusal) {
            (Verdict::Ok, _) => (Outcome::Good, ended),
            (_, Some(Refusal { phase, code, message })) => (
                Outcome::Failed(format!("{phase}: {message} ({code:#06x})")),
                Rule::of_code(*code).unwrap_or(ended),
            ),
            (_, None) => {
                (Outcome::Failed(failures.first().cloned().unwrap_or(result.to_string())), ended)
            }
        };
        Self::new("run", "the run is a good one", outcome, rule)
    }

    fn finding(finding: &Finding) -> Self {
        let witness = serde_json::to_value(finding.witness).unwrap_or_default();
        let group = witness.as_str().unwrap_or_default();
        let outcome = match finding.counts() {
            true => Outcome::Failed(finding.sentence()),
            false => Outcome::Noted(finding.sentence()),
        };
        let code = finding.code.and_then(Code::new);
        let rule = finding.code.and_then(Rule::of_code);
        let rule =
            rule.unwrap_or_else(|| Rule::plain(group, "What this witness saw is as it should be."));
        let name = match (finding.name, code.and_then(|code| code.name())) {
            (Some(name), _) => name.to_owned(),
            // Whose it is stands before the colon.
            (None, Some(code)) => match finding.message.split_once(": ") {
                Some((place, _)) => format!("{code} {}", stable(place)),
                None => code.to_owned(),
            },
            (None, None) => stable(&finding.message),
        };
        Self::new(group, name, outcome, rule)
    }
}

/// Words that number what is before them, so that the number is part of its name.
const NUMBERED: [&str; 9] =
    ["bridge", "bus", "decoder", "device", "endpoint", "port", "region", "switch", "window"];

/// A sentence as a name: without what follows a semicolon, and without numbers that measure something.
fn stable(sentence: &str) -> String {
    unmeasured(sentence.split("; ").next().unwrap_or_default())
}

/// A sentence without numbers that measure something.
fn unmeasured(sentence: &str) -> String {
    let mut name = String::with_capacity(sentence.len());
    let mut before = "";
    // The bytes of an instruction are as many as can be read.
    let mut in_bytes = false;
    for word in sentence.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_hex = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_byte = is_hex && bare.len() == 2 && (in_bytes || before == "instruction");
        if in_bytes && is_byte {
            // What is behind the last one, if anything, ends the list.
            name.push_str(word.strip_prefix(bare).unwrap_or_default());
            continue;
        }
        in_bytes = is_byte;
        if !name.is_empty() {
            name.push(' ');
        }
        let measures = is_byte
            || bare.starts_with("0x")
            // An address without its 0x may begin with a letter.
            || is_hex && bare.len() >= 8
            || bare.starts_with(|c: char| c.is_ascii_digit()) && !NUMBERED.contains(&before);
        match word.split_once(bare).filter(|_| measures && !bare.is_empty()) {
            Some((ahead, behind)) => {
                let _ = write!(name, "{ahead}N{behind}");
            }
            None => name.push_str(word),
        }
        before = bare;
    }
    name
}

impl Suite {
    /// Of a boot.
    pub fn of_run(facts: &Facts) -> Self {
        let ended = Check::result(facts.result, facts.refusal.as_ref(), &facts.failures());
        let mut checks = vec![ended];
        if let Some(required) = &facts.required {
            let what = &required.what;
            let outcome = match (required.met, &required.not_known) {
                (true, _) => Outcome::Good,
                (false, None) => Outcome::Failed(format!("{what} was asked for, and is not so")),
                (false, Some(why)) => {
                    Outcome::Failed(format!("{what} was asked for, and is not known: {why}"))
                }
            };
            let rule = Rule::plain("required", "What is demanded of the locks is so.");
            checks.push(Check::new("locks", format!("required: {}", required.what), outcome, rule));
        }
        checks.extend(facts.not_done().iter().map(|what| {
            let outcome = Outcome::Skipped(format!("{what} not done: it takes a guest"));
            Check::new("not-done", what, outcome, Rule::default())
        }));
        let tries: Vec<_> = facts.attack.iter().flat_map(tried).collect();
        // What the attack sums up is told by the state that it was seen in.
        let told = tries.iter().any(Check::has_failed)
            && facts.attack.as_ref().is_some_and(|report| report.integrity.ranges > 0);
        let told = |finding: &Finding| told && finding.witness == Witness::Attack;
        checks.extend(facts.findings.iter().filter(|finding| !told(finding)).map(Check::finding));
        checks.extend(tries);
        Self::of(format!("boot {}", facts.scenario), checks, facts.refusal.is_some())
    }

    /// The checks, each failure once, under names of their own.
    fn of(name: String, mut checks: Vec<Check>, refused: bool) -> Self {
        let failed = checks.iter().skip(1).any(Check::has_failed);
        if failed && !refused && checks.first().is_some_and(Check::has_failed) {
            checks.remove(0);
        }
        let mut known: BTreeMap<(String, String), usize> = BTreeMap::new();
        for check in &mut checks {
            let seen = known.entry((check.group.clone(), check.name.clone())).or_default();
            *seen += 1;
            if *seen > 1 {
                check.name = format!("{} ({seen})", check.name);
            }
        }
        Self { name, files: Vec::new(), checks }
    }

    /// The same, of files as they were named on the command line. A built-in scenario is a file of its
    /// name, which holds what `cxl-harness scenarios` prints of it.
    pub fn about<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.files = names.into_iter().map(File::named).collect();
        self
    }

    /// Of a run that never started, or an attack that had nothing to attack.
    pub fn of_refusal(name: String, refusal: Option<&Refusal>) -> Self {
        Self::of(name, vec![Check::result(Verdict::Refused, refusal, &[])], true)
    }

    /// Of an attack on what a boot left, of which there is to be said what its report found.
    pub fn of_attack(name: String, report: &attack::Report, booted: &Facts) -> Self {
        let good = report.held() && booted.result == Verdict::Ok;
        let result = if good { Verdict::Ok } else { Verdict::Failed };
        let why = match (report.changed, report.integrity.ranges) {
            (0, 0) => "nothing is locked, so nothing was shown".to_owned(),
            (0, _) if !report.integrity.complete => report.cut_off(),
            (0, _) => "something was not tried".to_owned(),
            _ => report.wrong().join("; "),
        };
        let mut checks = vec![Check::result(result, None, &[why])];
        checks.extend(booted.findings.iter().filter(|found| found.counts()).map(Check::finding));
        checks.extend(tried(report));
        Self::of(name, checks, false)
    }

    /// Of what Linux would say.
    pub fn of_lint(report: &cxl_lint::Report) -> Self {
        // Not that the run is a good one: firmware that stopped is remarked below, and Linux may be
        // content with what it left.
        let outcome = match report.refused() {
            true => Outcome::Failed("Linux refuses something".to_owned()),
            false => Outcome::Good,
        };
        let rule = Rule::plain("lint", "Linux refuses nothing of what it finds.");
        let mut checks = vec![Check::new("lint", "Linux refuses nothing", outcome, rule)];
        // What the verdict rests on: a good one of half a machine must not look like that of a whole.
        checks.extend(report.remarks.iter().map(|remark| {
            let rule = Rule::plain("remark", "Whatever the verdict rests on is known.");
            Check::new("remark", stable(remark), Outcome::Noted(remark.clone()), rule)
        }));
        for finding in &report.findings {
            let rule = Rule {
                id: finding.rule.name().to_owned(),
                text: finding.rule.text().to_owned(),
                remedy: finding.rule.remedy().to_owned(),
            };
            let lines =
                finding.messages.iter().map(|line| format!("\n| {line}")).collect::<String>();
            let words = format!("{}; so: {}{lines}", finding.found, finding.lost);
            let outcome = match finding.severity {
                Severity::Refused => Outcome::Failed(words),
                Severity::Degraded => Outcome::Degraded(words),
                Severity::Note => Outcome::Noted(words),
            };
            let decoder = finding.decoder.map(|decoder| format!(" decoder {decoder}"));
            let group = format!("{}{}", finding.component, decoder.unwrap_or_default());
            checks.push(Check::new(&group, rule.id.clone(), outcome, rule));
        }
        for unchecked in &report.unchecked {
            let cxl_lint::Unchecked { missing, rules } = unchecked;
            let outcome = Outcome::Skipped(format!("without {missing} nobody looks at {rules}"));
            let name = format!("{missing}: {rules}");
            checks.push(Check::new("unchecked", name, outcome, Rule::default()));
        }
        Self::of(report.subject.clone(), checks, false)
    }

    /// Whether nothing failed.
    pub fn good(&self) -> bool {
        !self.checks.iter().any(Check::has_failed)
    }

    /// As JUnit's XML: a test case for each check.
    pub fn junit(&self) -> String {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.checks.iter().filter(|check| wanted(&check.outcome)).count()
        };
        let tests = self.checks.len();
        let failures = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let name = Xml(&self.name);
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"cxl-harness\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\">\n  \
             <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" \
             skipped=\"{skipped}\">\n"
        );
        for Check { group, name, outcome, rule } in &self.checks {
            let (group, name) = (Xml(group), Xml(name));
            let _ = write!(text, "    <testcase classname=\"{group}\" name=\"{name}\"");
            // Writing to a String cannot fail.
            let _ = match outcome {
                Outcome::Good => writeln!(text, "/>"),
                Outcome::Failed(why) => writeln!(
                    text,
                    ">\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
                    Xml(&rule.id),
                    Xml(why.lines().next().unwrap_or_default()),
                    Xml(&format!("{why}\n{}", rule.remedy)),
                ),
                // JUnit has no word between good and failed.
                Outcome::Degraded(what) => writeln!(
                    text,
                    ">\n      <system-out>{}</system-out>\n    </testcase>",
                    Xml(&format!("degraded: {what}\n{}", rule.remedy))
                ),
                Outcome::Noted(what) => writeln!(
                    text,
                    ">\n      <system-out>{}</system-out>\n    </testcase>",
                    Xml(what)
                ),
                Outcome::Skipped(why) => {
                    writeln!(text, ">\n      <skipped message=\"{}\"/>\n    </testcase>", Xml(why))
                }
            };
        }
        text + "  </testsuite>\n</testsuites>\n"
    }

    /// As SARIF 2.1.0: a result for each check that is not good.
    pub fn sarif(&self) -> String {
        let mut rules: Vec<Described<'_>> = Vec::new();
        let mut results = Vec::new();
        for Check { group, outcome, rule, .. } in &self.checks {
            let (kind, level, words) = match outcome {
                Outcome::Good => continue,
                Outcome::Failed(why) => ("fail", "error", why.clone()),
                Outcome::Degraded(what) => ("fail", "warning", what.clone()),
                Outcome::Noted(what) => ("fail", "note", what.clone()),
                // SARIF's word for what nobody could look at; it has no level.
                Outcome::Skipped(why) => ("open", "none", why.clone()),
            };
            let id = if rule.id.is_empty() { "unchecked" } else { &rule.id };
            let rule_index = rules.iter().position(|known| known.id == id).unwrap_or_else(|| {
                let text =
                    if rule.text.is_empty() { "Everything is looked at." } else { &rule.text };
                rules.push(Described {
                    id,
                    short_description: Words { text: text.into() },
                    help: (!rule.remedy.is_empty())
                        .then(|| Words { text: rule.remedy.as_str().into() }),
                });
                rules.len() - 1
            });
            results.push(Found {
                rule_id: id,
                rule_index,
                kind,
                level,
                message: Words { text: harmless(&words).into_owned().into() },
                locations: [Location {
                    physical_location: self.place(group),
                    logical_locations: [Logical {
                        fully_qualified_name: harmless(&format!("{}/{group}", self.name))
                            .into_owned(),
                    }],
                }],
            });
        }
        let driver = Driver { name: "cxl-harness", version: env!("CARGO_PKG_VERSION"), rules };
        let runs = [Run { tool: Tool { driver }, results }];
        let log = Log { schema: SCHEMA, version: "2.1.0", runs };
        // Plain structs with names for keys always serialise.
        let text = serde_json::to_string_pretty(&log).unwrap_or_default() + "\n";
        harmless_json(&text).into_owned()
    }

    /// The file and the line that a check is about: of several files the one that is called like its
    /// component. Readers that show findings beside a text take none without.
    fn place(&self, group: &str) -> Option<Physical<'_>> {
        let component = group.strip_prefix("attack.").unwrap_or(group);
        let component = component.split(" decoder ").next().unwrap_or_default();
        let named =
            |file: &&File| Path::new(&file.uri).file_stem().is_some_and(|stem| stem == component);
        let file = self.files.iter().find(named).or(self.files.first())?;
        Some(Physical {
            artifact_location: Artifact { uri: &file.uri },
            region: Region { start_line: file.line_of(component) },
        })
    }
}

impl File {
    /// Of its name on the command line.
    fn named(name: &str) -> Self {
        if let Some(built_in) = builtin(name) {
            return Self { uri: format!("{}.toml", built_in.name), text: built_in.text.to_owned() };
        }
        if name == "-" {
            return Self { uri: "stdin".to_owned(), text: String::new() };
        }
        // A machine is a folder with a file that says what is in it.
        let set = Path::new(name).join("machine.toml");
        let path = if set.is_file() { set.to_string_lossy() } else { name.into() };
        let toml = Path::new(&*path).extension().is_some_and(|extension| extension == "toml");
        // What can be read but once, such as a pipe, is no regular file.
        let text = std::fs::metadata(&*path)
            .ok()
            .filter(|file| toml && file.is_file() && file.len() < MOST_TEXT)
            .and_then(|_| std::fs::read_to_string(&*path).ok());
        Self { uri: uri(&path), text: text.unwrap_or_default() }
    }

    /// Where a component gets its name; the first line where it has none of its own.
    fn line_of(&self, component: &str) -> usize {
        let named = |line: &str| {
            let value = line.trim().strip_prefix("name")?.trim_start().strip_prefix('=')?;
            let rest = value.trim_start().strip_prefix('"')?.strip_prefix(component)?;
            Some(rest.starts_with('"'))
        };
        let found = self.text.lines().position(|line| named(line) == Some(true));
        found.map_or(1, |line| line + 1)
    }
}

/// Bytes of a text that is searched for names.
const MOST_TEXT: u64 = 16 << 20;
/// Where what is written here is described.
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// A path as a reference by RFC 3986: relative where the path is.
fn uri(path: &str) -> String {
    let scheme = if path.starts_with('/') { "file://" } else { "" };
    let mut uri = scheme.to_owned();
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

/// The states of an attack, and what of it was not tried.
fn tried(report: &attack::Report) -> Vec<Check> {
    let rule = || Rule::plain("attack", "No write gets through that a lock has to hold.");
    let states = report.states.iter().map(|state| {
        let outcome = match (state.changed, state.skipped) {
            (0, None) => Outcome::Good,
            (0, Some(why)) => Outcome::Skipped(format!("{}: {why}", state.name)),
            _ => {
                let (held, allowed) = (state.held, state.allowed);
                let wrong = state.wrong().join("; ");
                Outcome::Failed(format!("{wrong}; {held} held, {allowed} allowed"))
            }
        };
        // That something does not happen is no hole in a lock.
        let broken = match state.changed > 0 && state.changed == state.fell_short {
            true => Rule::plain("attack.effect", "A write does what the rules have it do."),
            false => rule(),
        };
        Check::new(&format!("attack.{}", state.component), state.name, outcome, broken)
    });
    let breaches = report.integrity.breaches.iter().map(|breach| {
        // What it did stands behind a semicolon.
        let name = stable(breach);
        Check::new("attack.integrity", name, Outcome::Failed(breach.clone()), rule())
    });
    let not_tried = report.not_tried.iter().map(|mode| {
        let why = Outcome::Failed("the scenario names it, and nothing was tried in it".to_owned());
        Check::new("attack.modes", mode, why, rule())
    });
    states.chain(breaches).chain(not_tried).collect()
}

// What there is of SARIF here.

#[derive(Serialize)]
struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'a>; 1],
}

#[derive(Serialize)]
struct Run<'a> {
    tool: Tool<'a>,
    results: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    driver: Driver<'a>,
}

#[derive(Serialize)]
struct Driver<'a> {
    name: &'static str,
    version: &'static str,
    rules: Vec<Described<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    id: &'a str,
    short_description: Words<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<Words<'a>>,
}

#[derive(Serialize)]
struct Words<'a> {
    text: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    rule_id: &'a str,
    rule_index: usize,
    kind: &'static str,
    level: &'static str,
    message: Words<'a>,
    locations: [Location<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    physical_location: Option<Physical<'a>>,
    logical_locations: [Logical; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logical {
    fully_qualified_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical<'a> {
    artifact_location: Artifact<'a>,
    region: Region,
}

#[derive(Serialize)]
struct Artifact<'a> {
    uri: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_that_was_measured() {
        for (sentence, name) in [
            ("up at rip 0x100151, instruction eb fe 00 00", "up at rip N, instruction N"),
            ("up at rip 0xfe, instruction fe, at last", "up at rip N, instruction N, at last"),
            ("instruction 0f 0b; the last access", "instruction N"),
            ("where no instruction can be read", "where no instruction can be read"),
            ("KVM maps [(a0000000, 10000000)]", "KVM maps [(N, N)]"),
            ("hb0 decoder 1 of be is added", "hb0 decoder 1 of be is added"),
        ] {
            assert_eq!(stable(sentence), name);
        }
    }
}
