//! A run as checks with names, for systems that collect tests (JUnit) or findings (SARIF).
//!
//! **Invariant**: a suite has a failed check exactly if the run that it is made of was no good one:
//! whatever else is listed, the first check says how the run ended.

use std::fmt::Write as _;

use cxl_firmware::error::Code;
use cxl_lint::Severity;
use serde::Serialize;

use crate::attack;
use crate::remedies;
use crate::report::{Facts, Finding, Refusal, Verdict};
use crate::terminal::{harmless, harmless_json};
use crate::xml::Xml;

/// Checks of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// What was run, as on the command line.
    pub name: String,
    /// The checks; the first says how it ended.
    pub checks: Vec<Check>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is a check of: `run`, `locks`, `attack`, a witness or a component.
    pub group: String,
    /// What is checked, or what was found.
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
        let rule = finding.code.and_then(Rule::of_code);
        let rule =
            rule.unwrap_or_else(|| Rule::plain(group, "What this witness saw is as it should be."));
        Self::new(group, finding.sentence(), outcome, rule)
    }
}

impl Suite {
    /// Of a boot.
    pub fn of_run(facts: &Facts) -> Self {
        let ended = Check::result(facts.result, facts.refusal.as_ref(), &facts.failures());
        let mut checks = vec![ended];
        if let Some(required) = &facts.required {
            let outcome = match required.met {
                true => Outcome::Good,
                false => Outcome::Failed(format!("{} was asked for, and is not so", required.what)),
            };
            let rule = Rule::plain("required", "What is demanded of the locks is so.");
            checks.push(Check::new("locks", format!("required: {}", required.what), outcome, rule));
        }
        checks.extend(facts.findings.iter().map(Check::finding));
        checks.extend(facts.attack.iter().flat_map(tried));
        Self { name: format!("boot {}", facts.scenario), checks }
    }

    /// Of a run that never started, or an attack that had nothing to attack.
    pub fn of_refusal(name: String, refusal: Option<&Refusal>) -> Self {
        Self { name, checks: vec![Check::result(Verdict::Refused, refusal, &[])] }
    }

    /// Of an attack.
    pub fn of_attack(name: String, report: &attack::Report) -> Self {
        let result = if report.held() { Verdict::Ok } else { Verdict::Failed };
        let why = match (report.changed, report.integrity.ranges) {
            (0, 0) => "nothing is locked, so nothing was shown".to_owned(),
            (0, _) => "something was not tried".to_owned(),
            (changed, _) => format!("{changed} of {} writes got through", report.tried),
        };
        let mut checks = vec![Check::result(result, None, &[why])];
        checks.extend(tried(report));
        Self { name, checks }
    }

    /// Of what Linux would say.
    pub fn of_lint(report: &cxl_lint::Report) -> Self {
        let result = if report.refused() { Verdict::Failed } else { Verdict::Ok };
        let mut checks = vec![Check::result(result, None, &["Linux refuses something".to_owned()])];
        // What the verdict rests on: a good one of half a machine must not look like that of a whole.
        checks.extend(report.remarks.iter().map(|remark| {
            let rule = Rule::plain("remark", "Whatever the verdict rests on is known.");
            Check::new("remark", remark, Outcome::Noted(remark.clone()), rule)
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
                Severity::Degraded | Severity::Note => Outcome::Noted(words),
            };
            let decoder = finding.decoder.map(|decoder| format!(" decoder {decoder}"));
            let group = format!("{}{}", finding.component, decoder.unwrap_or_default());
            checks.push(Check::new(&group, rule.id.clone(), outcome, rule));
        }
        for unchecked in &report.unchecked {
            let outcome = Outcome::Skipped(format!("{} is missing", unchecked.missing));
            checks.push(Check::new("unchecked", &unchecked.rules, outcome, Rule::default()));
        }
        Self { name: report.subject.clone(), checks }
    }

    /// Whether nothing failed.
    pub fn good(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.outcome, Outcome::Failed(_)))
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
        for Check { group, name, outcome, rule } in &self.checks {
            let (kind, level, words) = match outcome {
                Outcome::Good => continue,
                Outcome::Failed(why) => ("fail", "error", why.clone()),
                Outcome::Noted(what) => ("fail", "note", what.clone()),
                // SARIF's word for what nobody could look at; it has no level.
                Outcome::Skipped(why) => ("open", "none", format!("{name}: {why}")),
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
                    logical_locations: [Logical {
                        fully_qualified_name: harmless(&format!("{}/{group}", self.name))
                            .into_owned(),
                    }],
                }],
            });
        }
        let driver = Driver { name: "cxl-harness", version: env!("CARGO_PKG_VERSION"), rules };
        let log = Log { version: "2.1.0", runs: [Run { tool: Tool { driver }, results }] };
        // Plain structs with names for keys always serialise.
        let text = serde_json::to_string_pretty(&log).unwrap_or_default() + "\n";
        harmless_json(&text).into_owned()
    }
}

/// The states of an attack, and what of it was not tried.
fn tried(report: &attack::Report) -> Vec<Check> {
    let rule = || Rule::plain("attack", "No write gets through that a lock has to hold.");
    let states = report.states.iter().map(|state| {
        let outcome = match (state.changed, state.skipped) {
            (0, None) => Outcome::Good,
            (0, Some(why)) => Outcome::Skipped(why.to_owned()),
            (changed, _) => Outcome::Failed(format!(
                "{changed} of {} writes got through, {} held, {} allowed",
                state.tried, state.held, state.allowed
            )),
        };
        Check::new(&format!("attack.{}", state.component), state.name, outcome, rule())
    });
    let breaches = report.integrity.breaches.iter().map(|breach| {
        Check::new("attack.integrity", breach, Outcome::Failed(breach.clone()), rule())
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
    locations: [Location; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    logical_locations: [Logical; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logical {
    fully_qualified_name: String,
}
