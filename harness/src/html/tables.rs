//! What is a list of sentences in text is a table here: findings, gaps, changes.
//!
//! **Invariant**: every entry of the facts is a row; of lists that somebody else makes longer the facts
//! have bounds already.

use maud::{Markup, html};

use crate::inspect::{Component, Locks, Missing, Shown};
use crate::linux::{self, verdict::Member};
use crate::remedies;
use crate::report::Finding;
use cxl_firmware::error::Code;
use cxl_lint::Severity;
use cxl_model::dump::Change;
use cxl_model::words::counted;
use cxl_regs::Size;

/// A table in a frame that scrolls by itself where the page is too narrow.
pub(super) fn framed(label: &str, table: Markup) -> Markup {
    html! { div.frame role="region" aria-label=(label) tabindex="0" { (table) } }
}

/// Our own words, with what is to be typed between backticks set off as such.
pub(super) fn in_code(words: &str) -> Markup {
    html! {
        @for (index, part) in words.split('`').enumerate() {
            @if index % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

/// What was seen in a run.
pub(super) fn findings(list: &[Finding], refused: bool) -> Markup {
    match (list, refused) {
        ([], true) => return html! { p { "Nothing beside the refusal." } },
        ([], false) => return html! { p { "Nothing is to be said: every check agrees." } },
        _ => {}
    }
    framed(
        "Findings",
        html! {
            table {
                caption { "What was seen, by whom and when" }
                thead { tr {
                    th scope="col" { "Kind" } th scope="col" { "What" }
                    th scope="col" { "Seen by" } th scope="col" { "When" }
                } }
                tbody {
                    @for finding in list {
                        @let witness = serde_json::to_value(finding.witness).unwrap_or_default();
                        tr {
                            td {
                                @match (finding.failure, finding.moot) {
                                    (true, false) => span.tag.bad { "✕ failure" },
                                    (true, true) => span.tag {
                                        "follows from " (if refused { "the refusal" } else { "a loss" })
                                    },
                                    _ => span.tag { "note" },
                                }
                            }
                            th scope="row" {
                                (finding.message)
                                @if let Some(code) = finding.code { " (" code { (format!("{code:#06x}")) } ")" }
                                @if let Some(remedy) = finding.code.and_then(Code::new).and_then(remedies::of) {
                                    p.why { strong { "What to do: " } (in_code(remedy)) }
                                }
                            }
                            td { (witness.as_str().unwrap_or_default()) }
                            td { (finding.moment.to_string()) }
                        }
                    }
                }
            }
        },
    )
}

/// What Linux would say.
pub(super) fn lint(report: &cxl_lint::Report) -> Markup {
    html! {
        @if report.findings.is_empty() { p { "Linux has nothing to say." } }
        @for finding in &report.findings {
            @let (class, shape, word) = match finding.severity {
                Severity::Refused => ("bad", "✕", "refused"),
                Severity::Degraded => ("warn", "△", "degraded"),
                Severity::Note => ("", "·", "note"),
            };
            article class={ "finding " (class) } {
                h3 {
                    span class={ "tag " (class) } { span aria-hidden="true" { (shape) " " } (word) }
                    " " (finding.component)
                    @if let Some(decoder) = finding.decoder { " decoder " (decoder) }
                }
                @if !finding.messages.is_empty() {
                    pre tabindex="0" role="region" aria-label="Lines of Linux's log" {
                        @for message in &finding.messages { (message) "\n" }
                    }
                }
                dl {
                    dt { "Found" } dd { (finding.found) }
                    dt { "Rule" } dd { (in_code(finding.rule.text())) " " code { (finding.rule.name()) } }
                    @if !finding.lost.is_empty() { dt { "So" } dd { (finding.lost) } }
                    dt { "Remedy" } dd { (in_code(finding.rule.remedy())) }
                    @if let Some(kernels) = kernels(finding.kernels) { dt { "Kernels" } dd { (kernels) } }
                }
            }
        }
        @if !report.unchecked.is_empty() {
            h3 { "What nobody could look at" }
            ul { @for unchecked in &report.unchecked {
                li { "without " (unchecked.missing) ": " (unchecked.rules) }
            } }
        }
    }
}

/// The kernels that are meant, where not all are.
fn kernels(kernels: cxl_lint::Kernels) -> Option<String> {
    let cxl_lint::Kernels { since, until, only } = kernels;
    let series = only.map(|series| format!("the newest {series} releases only"));
    let since = since.map(|since| format!("since {since}"));
    let until = until.map(|until| format!("before {until}"));
    let words: Vec<String> = match series {
        Some(series) => vec![series],
        None => since.into_iter().chain(until).collect(),
    };
    (!words.is_empty()).then(|| words.join(", "))
}

/// The plan beside what Linux has.
pub(super) fn regions(verdict: &linux::Verdict) -> Markup {
    let members = |members: &[Member]| {
        let name = |member: &Member| match member.dpa {
            Some(dpa) => format!("{} from {dpa:#x}", member.device),
            None => member.device.clone(),
        };
        members.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    framed(
        "Regions",
        html! {
            table {
                caption { "What is planned, and what Linux has there" }
                thead { tr {
                    th scope="col" { "Region" } th scope="col" { "Planned" } th scope="col" { "Linux" }
                    th scope="col" { "Memory" } th scope="col" { "Result" }
                } }
                tbody {
                    @for region in &verdict.regions {
                        tr {
                            th scope="row" { code { (format!("{:#x}", region.hpa)) } " " (Size(region.size)) }
                            td {
                                (region.ways) "-way at " (Size(region.granularity)) ", "
                                (members(&region.members)) @if region.locked { ", locked" }
                            }
                            td {
                                @match &region.linux {
                                    None => "no region there",
                                    Some(found) => {
                                        (found.name) ": " (Size(found.size)) ", " (found.ways) "-way at "
                                        (Size(found.granularity)) ", " (members(&found.members))
                                        @if found.locked { ", locked" }
                                    }
                                }
                            }
                            td {
                                (region.memory)
                                @if let Some(found) = &region.linux { ", " (Size(found.online)) " online" }
                            }
                            td {
                                @if region.as_planned { span.tag.good { "✓ as planned" } }
                                @else { span.tag.bad { "✕ not as planned" } }
                            }
                        }
                    }
                }
            }
        },
    )
}

/// What is not as planned, and what is to be known.
pub(super) fn gaps(verdict: &linux::Verdict) -> Markup {
    html! {
        @if verdict.gaps.is_empty() && verdict.refusal.is_none() {
            p { "No gap: Linux has all that is planned, and nothing else." }
        }
        @if !verdict.gaps.is_empty() {
            ul.gaps { @for gap in &verdict.gaps {
                li {
                    span.tag.bad { "✕ gap" } " " (gap.message)
                    @if let Some(log) = &gap.log {
                        pre tabindex="0" role="region" aria-label="A line of Linux's log" { (log) }
                    }
                }
            } }
        }
        @if !verdict.notes.is_empty() {
            h3 { "Notes" }
            ul { @for note in &verdict.notes { li { (note) } } }
        }
    }
}

/// What moved, in words.
pub(super) fn changes(changes: &[Change]) -> Markup {
    html! {
        @if changes.is_empty() { p { "Nothing changed." } }
        @else { ul.changes { @for change in changes { li { (change.text) } } } }
    }
}

/// What is there.
pub(super) fn components(list: &[Component]) -> Markup {
    if list.is_empty() {
        return html! { p { "No component is known." } };
    }
    framed(
        "Components",
        html! {
            table {
                caption { "What is there, and what is known of it" }
                thead { tr {
                    th scope="col" { "Name" } th scope="col" { "Kind" } th scope="col" { "Address" }
                    th scope="col" { "Known of it" }
                } }
                tbody { @for Component { name, kind, address, facts } in list {
                    tr {
                        th scope="row" { (name) }
                        td { (kind) }
                        td { @match address { Some(address) => code { (address) }, None => "–", } }
                        td { (facts) }
                    }
                } }
            }
        },
    )
}

/// What locks protect, and why not more.
pub(super) fn locks(locks: &Locks) -> Markup {
    let lists = [
        ("Locked ranges", &locks.ranges),
        ("Not locked", &locks.not_locked),
        ("Not sealed", &locks.not_sealed),
        ("Not given", &locks.missing),
    ];
    html! {
        dl {
            dt { "Locked" } dd { (locks.locked) }
            dt { "Sealed" } dd { (locks.sealed) }
            dt { "Decoders in use" } dd { (locks.in_use) ", " (locks.in_force) " of them locked" }
            @for (name, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
                dt { (name) }
                @for words in *list { dd { (words) } }
            }
            @if let Some(Shown { locked, open, not_shown }) = locks.shown {
                dt { "Linux shows" }
                dd {
                    (counted(locked, "decoder")) " with a range locked, " (open) " not, " (not_shown)
                    " not shown (no verdict)"
                }
            }
        }
    }
}

/// What could not be read, and what to do.
pub(super) fn withheld(list: &[Missing]) -> Option<Markup> {
    let rows = html! {
        table {
            caption { "What the machine would not show, and what to do" }
            thead { tr { th scope="col" { "What" } th scope="col" { "Why, and what to do" } } }
            tbody { @for Missing { what, why } in list {
                tr { th scope="row" { (what) } td { (why) } }
            } }
        }
    };
    (!list.is_empty()).then(|| framed("Withheld", rows))
}
