//! Reports as pages: one file each, with all that it shows, for a browser that has no network.
//!
//! A page is made of the facts that text and JSON have. It can be read without its script, which adds
//! what has to be clicked; it is printed as it is shown, and follows the reader's choice of light or
//! dark.
//!
//! **Invariant**: nothing that a scenario, a guest or a file says reaches a page unescaped: text goes
//! through the templates' escape, pictures through that of XML, and script and style are this
//! repository's own alone.

mod bits;
mod granules;
mod heat;
mod machine;
mod page;
mod tables;

use cxl_lint::{Reached, Severity};
use cxl_model::dump::{Change, RegisterDiff};
use cxl_model::fabric::Fabric;
use cxl_model::words::counted;

use crate::attack::Found;
use crate::inspect::{Answer, Inspection};
use crate::linux;
use crate::report::{Facts, Refusal, Seen, Verdict};
use crate::svg::{Map, Panel};

pub use page::{Page, Tone};

/// The page of a run, and of an attack on what it left. `before` are the registers as the firmware
/// found them.
pub fn of_run(facts: &Facts, before: Option<&Fabric>, command: &str) -> Page {
    let mut page = Page::new(format!("Scenario {}", facts.scenario), command);
    page.verdict(tone(facts.result), verdict(facts));
    page.lead(&facts.description);
    if let Some(refusal) = &facts.refusal {
        page.refused(refusal, facts.seen.stop.as_ref().map(|stop| stop.at.name()));
    }
    for failure in facts.failures().iter().take(MOST) {
        page.alarm(failure);
    }
    if let Some(attack) = &facts.attack {
        page.section("attack", "Attack on the locks", heat::section(attack));
    }
    page.section("path", "The whole path", machine::paths(&facts.seen));
    page.section("map", "Memory map", machine::map(&facts.map(), &facts.seen));
    page.maybe("granules", "Where an address leads", granules::section(&facts.seen));
    if let Some(before) = before {
        let moved = bits::between(before, &facts.seen.fabric);
        let what = "What the firmware wrote: each register that holds other bits at the hand-off than \
                    when the firmware found it.";
        page.maybe("registers", "Registers, before and after", bits::section(what, &moved));
    }
    if let Some(last) = &facts.last {
        let moved = bits::between(&facts.seen.fabric, &last.seen.fabric);
        let what =
            format!("Each register that holds other bits {} than at the hand-off.", last.moment);
        page.maybe("later", "Registers, at the hand-off and later", bits::section(&what, &moved));
    }
    page.section(
        "findings",
        "Findings",
        tables::findings(&facts.findings, facts.refusal.is_some()),
    );
    page
}

/// The most sentences at the top of a page; the findings have all.
const MOST: usize = 6;

fn tone(result: Verdict) -> Tone {
    match result {
        Verdict::Ok => Tone::Good,
        Verdict::Refused => Tone::Refused,
        Verdict::Failed => Tone::Bad,
    }
}

fn verdict(facts: &Facts) -> String {
    let mut words = facts.result.to_string();
    if let Some(locks) = &facts.locks {
        words += &format!("; locks: {}", locks.word());
    }
    if let Some(attack) = &facts.attack {
        words += match attack.integrity.found() {
            Found::Broken => "; under attack they GAVE WAY",
            Found::Nothing => "; the attack had nothing to hold",
            Found::NotKnown => "; the attack did not end, so that nobody knows what they are worth",
            Found::Holds(_) => "; under attack they held",
        };
    }
    words
}

/// The page of a refusal before there was anything to look at.
pub fn of_refusal(title: &str, refusal: &Refusal, command: &str) -> Page {
    let mut page = Page::new(title.to_owned(), command);
    page.verdict(Tone::Refused, Verdict::Refused.to_string());
    page.refused(refusal, None);
    page
}

/// The page of what Linux would say. What is assumed of registers that nobody gave is said.
pub fn of_lint(report: &cxl_lint::Report, reached: Reached, command: &str) -> Page {
    let mut page = Page::new(report.subject.clone(), command);
    let count = |severity| report.findings.iter().filter(|f| f.severity == severity).count();
    let words = format!(
        "{} refused, {} degraded, {}, {}",
        count(Severity::Refused),
        count(Severity::Degraded),
        counted(count(Severity::Note), "note"),
        report
            .kernel
            .map_or_else(|| "all kernels from 6.12 on".to_owned(), |k| format!("Linux {k}")),
    );
    page.verdict(if report.refused() { Tone::Bad } else { Tone::Good }, words);
    for remark in report.remarks.iter().chain(&reached.assumed).take(4 * MOST) {
        page.lead(remark);
    }
    page.section("findings", "Findings, in the order of Linux's log", tables::lint(report));
    registers(&mut page, &Seen::known(reached), None);
    page
}

/// The page of a plan held against what Linux has; with the registers, where they are known.
pub fn of_linux(verdict: &linux::Verdict, seen: Option<&Seen>, command: &str) -> Page {
    let mut page = Page::new(format!("Linux on {}", verdict.scenario), command);
    let words = format!(
        "{}; {} of {} as planned",
        verdict.result,
        verdict.as_planned,
        counted(verdict.planned, "region")
    );
    page.verdict(tone(verdict.result), words);
    let versions = [("Linux", &verdict.linux), ("QEMU", &verdict.qemu)];
    let versions =
        versions.into_iter().filter_map(|(name, v)| Some(format!("{name} {}", v.as_ref()?)));
    page.lead(&versions.collect::<Vec<_>>().join(", "));
    if let Some(why) = &verdict.refusal {
        page.alarm(why);
    }
    page.section("regions", "Regions", tables::regions(verdict));
    page.section("findings", "Gaps and notes", tables::gaps(verdict));
    if let Some(seen) = seen {
        registers(&mut page, seen, None);
    }
    page
}

/// The page of two dumps: what moved from one to the other.
pub fn of_diff(
    [old, new]: [&str; 2],
    changes: &[Change],
    moved: &[RegisterDiff],
    command: &str,
) -> Page {
    let mut page = Page::new(format!("From {old} to {new}"), command);
    let words = match changes.len() {
        0 => "nothing changed".to_owned(),
        1 => "1 fact changed".to_owned(),
        many => format!("{many} facts changed"),
    };
    page.verdict(if changes.is_empty() { Tone::Good } else { Tone::Changed }, words);
    page.section("changes", "What moved, in words", tables::changes(changes));
    let what = format!("Each register that holds other bits in {new} than in {old}.");
    page.maybe("registers", "Bit by bit", bits::section(&what, moved));
    page
}

/// The page of a machine that was written down: what is there, what its locks protect, what Linux makes of
/// it. `good` is how it ends; the words are what was asked for and not met.
pub fn of_inspection(
    title: &str,
    inspection: &Inspection,
    reached: Reached,
    (good, not_met): (bool, Option<&str>),
    command: &str,
) -> Page {
    let Inspection { kernel, components, locks, withheld, lint, .. } = inspection;
    let mut page = Page::new(title.to_owned(), command);
    let linux = if lint.refused() { "Linux refuses something" } else { "Linux refuses nothing" };
    let mut words = format!("locked: {}; sealed: {}; {linux}", locks.locked, locks.sealed);
    match withheld.len() {
        0 => {}
        1 => words += "; 1 thing was withheld",
        many => words += &format!("; {many} things were withheld"),
    }
    page.verdict(if good { Tone::Good } else { Tone::Bad }, words);
    if let Some(kernel) = kernel {
        page.lead(&format!("Linux {kernel}"));
    }
    for remark in lint.remarks.iter().chain(&reached.assumed).take(4 * MOST) {
        page.lead(remark);
    }
    if let Some(word) = not_met {
        page.alarm(&format!("Required, and not met: {word}"));
    }
    page.section("components", "Components", tables::components(components));
    page.section("locks", "What the locks protect, by registers alone", tables::locks(locks));
    page.maybe("withheld", "What could not be read", tables::withheld(withheld));
    let mut seen = Seen::known(reached);
    // What a Linux showed is in the picture; of locks it is no witness.
    let unread = locks.missing.iter().filter_map(|what| what.strip_prefix("registers of "));
    seen.unsaid.registers.extend(unread.map(str::to_owned));
    if locks.sealed == Answer::Yes {
        seen.sealed = seen.fabric.devices.iter().map(|device| device.name.clone()).collect();
    }
    registers(&mut page, &seen, None);
    page.section("findings", "What Linux makes of it, in the order of its log", tables::lint(lint));
    page
}

/// The sections of a machine that only its registers are known of.
fn registers(page: &mut Page, seen: &Seen, moment: Option<String>) {
    let fabric = &seen.fabric;
    let components = fabric.bridges.len() + fabric.switches.len() + fabric.devices.len();
    if components + fabric.windows.len() == 0 {
        return;
    }
    page.section("path", "The whole path", machine::paths(seen));
    let map = Map {
        title: "Memory map".to_owned(),
        lead: Vec::new(),
        panels: vec![Panel { fabric, mappings: &seen.mappings, ram: &seen.ram, moment }],
        foot: Vec::new(),
    };
    page.section("map", "Memory map", machine::map(&map, seen));
    page.maybe("granules", "Where an address leads", granules::section(seen));
}
