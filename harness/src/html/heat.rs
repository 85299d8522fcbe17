//! The attack as a heat map: a row for the registers that had the same tries, a column for each state
//! and mode.
//!
//! **Invariant**: a leak is a red block with a cross, with its number of tries, and its group stands
//! first; every cell says in words and by a shape what its colour says.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::tables::framed;
use crate::attack::{Availability, Cell, Class, Detail, Found, Report, Row, hold, ways};
use cxl_model::words::counted;

/// Consequences that are listed.
const MOST: usize = 200;

/// What was let through, and what should not have been.
struct Told<'a> {
    class: Class,
    consequence: &'a str,
    states: Vec<&'a str>,
}

pub(super) fn section(report: &Report) -> Markup {
    let Report { tried, held, allowed, integrity, availability, .. } = report;
    let told = told(report);
    let groups = groups(report);
    let columns = report.grid.columns();
    html! {
        p class={ "verdict " (if matches!(integrity.found(), Found::Holds(_)) { "good" } else { "bad" }) } {
            @match integrity.found() {
                Found::NotKnown => {
                    span.shape aria-hidden="true" { "✕" } " Integrity is not known: " (report.cut_off())
                },
                Found::Nothing => { span.shape aria-hidden="true" { "✕" } " Nothing to hold: no range is sealed" },
                Found::Holds(ranges) => {
                    span.shape aria-hidden="true" { "✓" }
                    " Integrity holds: " (hold(ranges))
                },
                Found::Broken => {
                    span.shape aria-hidden="true" { "✕" } " Integrity BROKEN: "
                    (ways(integrity.breaches.len() + report.left_out.breaches)) ", the red blocks below"
                },
            }
        }
        p {
            (counted(tried, "write")) " tried: " (held) " held, " (allowed) " allowed by the rules, "
            (report.through()) " changed what they must not" (report.and_short()) "."
        }
        @for open in integrity.open.iter().take(MOST) { p { span.tag.warn { "△ not sealed" } " " (open) } }
        @for mode in &report.not_tried { p { span.tag.bad { "✕ not tried" } " " (mode) } }
        h3 { "Registers by states and modes" }
        ul.legend {
            li { span.cell.c { "✕ 3" } " changed: a lock gave way, or what had to happen did not" }
            li { span.cell.a { "△ 3" } " allowed by the rules" }
            li { span.cell.h { "● 3" } " held: nothing changed" }
            li { span.cell.n { "·" } " nothing to try there" }
        }
        p.hint { "The number is that of tries. With the keyboard: arrows go from cell to cell; what came of \
                  a register's tries stands below the table." }
        (framed("Heat map of the attack", html! {
            table.heat role="grid" aria-label="Registers by states and modes" {
                thead { tr {
                    th scope="col" { "Register" }
                    @for column in columns { th scope="col" { span { (column) } } }
                } }
                @for (components, rows) in &groups {
                    tbody {
                        tr.group { th scope="rowgroup" colspan=(columns.len() + 1) {
                            @if rows.iter().any(|row| row.leaks()) { span aria-hidden="true" { "✕ " } }
                            (names(components))
                        } }
                        @for row in rows { (line(row, &told)) }
                    }
                }
            }
        }))
        div #heat-detail .detail role="status" aria-live="polite" hidden {}
        @if !integrity.breaches.is_empty() {
            h3 { "What gave way" }
            ul.gaps { @for breach in integrity.breaches.iter().take(12) { li { (breach) } } }
            @if integrity.breaches.len() > 12 {
                p { "and " (integrity.breaches.len() + report.left_out.breaches - 12) " more; each is a red \
                    block above" }
            }
        }
        (consequences(&told))
        @if !availability.is_empty() {
            h3 { "What no lock covers: availability" }
            (framed("Availability", html! {
                table {
                    caption { "What an attacker can still switch off, or add" }
                    thead { tr {
                        th scope="col" { "Component" } th scope="col" { "Register" }
                        th scope="col" { "What comes of it" }
                    } }
                    tbody {
                        @for Availability { component, register, consequence, effects } in availability {
                            tr {
                                th scope="row" { (component) } td { (register) }
                                td { (consequence) @for effect in effects { "; " (effect) } }
                            }
                        }
                    }
                }
            }))
            @if report.left_out.availability > 0 { p { "and " (report.left_out.availability) " more" } }
        }
    }
}

/// Names, the first and the last of many.
fn names(components: &[String]) -> String {
    match components {
        [first, .., last] if components.len() > 6 => {
            format!("{first} to {last}, {} alike", components.len())
        }
        all => all.join(", "),
    }
}

/// Rows of the same components together; groups that leak first.
fn groups(report: &Report) -> Vec<(Vec<String>, Vec<Row>)> {
    // A register that is alike in eight devices and leaks in one of them is a row of seven and a row of
    // one: each device is a group, and devices whose rows are all alike are one.
    let mut by_component: BTreeMap<usize, (String, Vec<Row>)> = BTreeMap::new();
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    for row in report.grid.rows() {
        for component in &row.components {
            let next = order.len();
            let at = *order.entry(component.clone()).or_insert(next);
            let (_, rows) = by_component.entry(at).or_insert_with(|| (component.clone(), vec![]));
            rows.push(Row { components: Vec::new(), ..row.clone() });
        }
    }
    let mut groups: Vec<(Vec<String>, Vec<Row>)> = Vec::new();
    for (component, mut rows) in by_component.into_values() {
        rows.sort_by_key(|row| !row.leaks());
        match groups.iter_mut().find(|(_, known)| *known == rows) {
            Some((components, _)) => components.push(component),
            None => groups.push((vec![component], rows)),
        }
    }
    groups.sort_by_key(|(_, rows)| !rows.iter().any(Row::leaks));
    groups
}

/// `decoders 0-3, 7`.
fn decoders(row: &Row) -> String {
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for &decoder in &row.decoders {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(decoder) => *last = decoder,
            _ => runs.push((decoder, decoder)),
        }
    }
    let words = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    });
    let words = words.collect::<Vec<_>>().join(", ");
    match row.decoders.len() {
        0 => String::new(),
        1 => format!(", decoder {words}"),
        _ => format!(", decoders {words}"),
    }
}

fn line(row: &Row, told: &[(String, Vec<Told<'_>>)]) -> Markup {
    let detail = told.iter().position(|(register, _)| *register == row.register);
    html! {
        tr data-told=[detail] {
            th scope="row" { (row.register) span.at { (decoders(row)) } }
            @for Cell { held, allowed, changed } in &row.cells {
                @let all = held + allowed + changed;
                @if *changed > 0 { td.c role="gridcell" { "✕ " (changed) } }
                @else if *allowed > 0 { td.a role="gridcell" { "△ " (allowed) } }
                @else if all > 0 { td.h role="gridcell" { "● " (held) } }
                @else { td.n role="gridcell" { "·" } }
            }
        }
    }
}

/// What came of the tries that were not held, by register.
fn told(report: &Report) -> Vec<(String, Vec<Told<'_>>)> {
    let mut list: Vec<(String, Vec<Told<'_>>)> = Vec::new();
    for Detail { state, register, class, consequence, .. } in &report.details {
        let at = match list.iter().position(|(known, _)| known == register) {
            Some(at) => at,
            None => {
                list.push((register.clone(), Vec::new()));
                list.len() - 1
            }
        };
        let Some((_, told)) = list.get_mut(at) else { continue };
        let same = told.iter_mut().find(|t| t.class == *class && t.consequence == consequence);
        match same {
            Some(known) if known.states.contains(state) => {}
            Some(known) => known.states.push(state),
            None => told.push(Told { class: *class, consequence, states: vec![state] }),
        }
    }
    list.sort_by_key(|(_, told)| !told.iter().any(|t| t.class == Class::Changed));
    list
}

fn consequences(told: &[(String, Vec<Told<'_>>)]) -> Markup {
    html! {
        h3 { "What came of what was not held" }
        dl.told {
            @for (register, list) in told.iter().take(MOST) {
                div {
                    dt { (register) }
                    @for Told { class, consequence, states } in list.iter().take(24) {
                        dd {
                            @if *class == Class::Changed { span.tag.bad { "✕ changed" } }
                            @else { span.tag.warn { "△ allowed" } }
                            " " (consequence) " " span.at { "(" (states.join("; ")) ")" }
                        }
                    }
                    @if list.len() > 24 { dd { "and " (list.len() - 24) " more" } }
                }
            }
        }
        @if told.len() > MOST { p { "and " (told.len() - MOST) " more registers" } }
    }
}
