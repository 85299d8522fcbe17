//! The memory map as a picture: RAM, windows, and what is behind each part of a window.
//!
//! **Invariant**: addresses go up as lines go down, every byte of every window that has a place is
//! in one box, and no line is longer than the report is wide. It is not to scale: a window of
//! 256 GiB with 256 MiB in it would be nothing but window.

use std::fmt::{self, Formatter};

use cxl_regs::Size;

use super::lines::{heading, paragraph, seen_by, width, wrap};
use super::{Facts, Mapping, Window};

/// Columns of an address and the space behind it.
const MARGIN: usize = 21;

/// Columns between the walls of a box, with a margin at the other side.
fn inside(f: &Formatter<'_>) -> usize {
    width(f) - MARGIN - 3
}

/// A part of the map, from its first address to the one behind its last.
pub(super) enum Part<'a> {
    Ram(u64, u64),
    Window(&'a Window, Vec<&'a Mapping>),
}

impl Part<'_> {
    pub(super) fn base(&self) -> u64 {
        match self {
            Self::Ram(base, _) => *base,
            Self::Window(window, _) => window.base.unwrap_or(0),
        }
    }

    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Ram(base, size) => base.saturating_add(*size),
            Self::Window(window, _) => self.base().saturating_add(window.size),
        }
    }
}

/// RAM and the windows that have a place, lowest address first.
pub(super) fn parts<'a>(facts: &'a Facts, mappings: &'a [Mapping]) -> Vec<Part<'a>> {
    let ram = facts.seen.ram.iter().map(|&(base, size)| Part::Ram(base, size));
    let placed = facts.windows.iter().filter(|window| window.base.is_some());
    let windows = placed.map(|window| {
        let inside = mappings.iter().filter(|mapping| mapping.window == window.window);
        Part::Window(window, inside.collect())
    });
    let mut parts: Vec<Part<'_>> = ram.chain(windows).collect();
    parts.sort_by_key(Part::base);
    parts
}

pub(super) fn draw(f: &mut Formatter<'_>, facts: &Facts) -> fmt::Result {
    heading(f, "memory map, lowest address first (not to scale)")?;
    seen_by(f, "the host, in the registers")?;
    let mut end = 0;
    for part in &parts(facts, &facts.mappings) {
        if part.base() > end {
            let gap = Size(part.base() - end);
            writeln!(f, "{:MARGIN$} {gap} of registers, or of nothing", "")?;
        }
        end = end.max(part.end());
        match part {
            Part::Ram(base, size) => {
                edge(f, *base, '┌', '┐')?;
                line(f, "RAM", &Size(*size).to_string())?;
            }
            Part::Window(window, mappings) => window_box(f, window, mappings)?,
        }
        edge(f, part.end(), '└', '┘')?;
    }
    for window in facts.windows.iter().filter(|window| window.base.is_none()) {
        let (name, size) = (&window.window, Size(window.size));
        let why = "has no place: the platform did not find one";
        paragraph(f, format_args!("  {name} of {size} {why}"))?;
    }
    Ok(())
}

fn window_box(f: &mut Formatter<'_>, window: &Window, mappings: &[&Mapping]) -> fmt::Result {
    edge(f, window.base.unwrap_or(0), '┌', '┐')?;
    let targets = window.targets.join(", ");
    let title = match window.ways {
        1 => format!("{}: the platform sends it to {targets}", window.window),
        ways => {
            format!(
                "{}: {ways}-way, {} in turn to {targets}",
                window.window,
                Size(window.granularity)
            )
        }
    };
    line(f, &title, &Size(window.size).to_string())?;
    for mapping in mappings {
        if Some(mapping.hpa) == window.base {
            let line = "─".repeat(inside(f));
            writeln!(f, "{:MARGIN$}├{line}┤", "")?;
        } else {
            edge(f, mapping.hpa, '├', '┤')?;
        }
        let size = Size(mapping.size).to_string();
        match (mapping.members.as_slice(), &mapping.message) {
            ([member], _) => {
                let memory = member.memory.unwrap_or("its");
                let what =
                    format!("█ {}: {memory} memory, from DPA {:#x}", member.device, member.dpa);
                line(f, &what, &size)?;
            }
            (members, None) => {
                let names: Vec<&str> = members.iter().map(|m| m.device.as_str()).collect();
                let (ways, granularity) =
                    (mapping.ways.unwrap_or(0), Size(mapping.granularity.unwrap_or(0)));
                let what = format!("█ {ways}-way, {granularity} in turn to {}", names.join(", "));
                line(f, &what, &size)?;
            }
            (_, Some(message)) => line(f, &format!("░ {message}"), &size)?,
        }
    }
    Ok(())
}

/// A horizontal line of a box at an address.
fn edge(f: &mut Formatter<'_>, address: u64, left: char, right: char) -> fmt::Result {
    let line = "─".repeat(inside(f));
    writeln!(f, "  {address:#018x} {left}{line}{right}")
}

/// A text in a box with a size at its right end; the text goes on in further lines.
fn line(f: &mut Formatter<'_>, text: &str, size: &str) -> fmt::Result {
    let mut size = size;
    let mut rest = text;
    let mut indent = "";
    loop {
        let room = inside(f) - 4 - size.chars().count() - indent.len();
        let (now, behind) = wrap(rest, room);
        let pad = room - now.chars().count();
        writeln!(f, "{:MARGIN$}│ {indent}{now}{:pad$}  {size} │", "", "")?;
        if behind.is_empty() {
            return Ok(());
        }
        (size, rest, indent) = ("", behind, "  ");
    }
}
