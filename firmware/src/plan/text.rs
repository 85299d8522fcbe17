//! The plan in words: what people read in a dry run and compare in a review.
//!
//! **Invariant**: one fact a line, components by place, nothing that varies from run to run.

use core::fmt;

use cxl_regs::access::Component;
use cxl_regs::{Interleave, Route, Size, Ways};

use super::{Note, PlanRef, Purpose, Reason, Why, plural};
use crate::error::Code;
use crate::topology::{NodeKind, Tree};

/// Prints a plan; made by [`PlanRef::text`].
#[derive(Clone, Copy, Debug)]
pub struct PlanText<'a> {
    plan: PlanRef<'a>,
    tree: Tree<'a>,
}

impl<'a> PlanRef<'a> {
    /// The plan in words; the topology names the components.
    pub fn text(self, tree: Tree<'a>) -> PlanText<'a> {
        PlanText { plan: self, tree }
    }
}

/// One line: two spaces, a label, a value.
fn fact(
    f: &mut fmt::Formatter<'_>,
    label: impl fmt::Display,
    value: impl fmt::Display,
) -> fmt::Result {
    // Padding works on strings only: the label goes through a fixed buffer.
    let mut text = heapless::String::<24>::new();
    let _ = fmt::Write::write_fmt(&mut text, format_args!("{label}"));
    writeln!(f, "  {text:<18}{value}")
}

/// First and last address of a range.
struct Range(u64, u64);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}-{:#018x}", self.0, self.1)
    }
}

/// A byte count as hardware has it and as people say it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}  {}", self.0, Size(self.0))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat => f.write_str("flat, as nothing else was asked for"),
            Self::Requested => f.write_str("flat, by request"),
            Self::Members => f.write_str("a request names its members"),
            Self::Named => f.write_str("ways and granularity by policy"),
            Self::Widest { refused: None } => f.write_str("as wide as a set can be"),
            Self::Widest { refused: Some((ways, error)) } => {
                write!(f, "as wide as possible; not {ways} way{}: {error}", plural(ways.count()))
            }
        }
    }
}

impl fmt::Display for PlanText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, tree } = *self;
        writeln!(f, "plan")?;
        fact(f, "regions", plan.regions.len())?;
        fact(f, "decoders", plan.decoders.len())?;
        for (index, region) in plan.regions.iter().enumerate() {
            let (span, levels) = (region.span, region.levels);
            writeln!(f, "region {index}")?;
            fact(f, "window", format_args!("{:#018x}", region.window.0))?;
            fact(f, "range", Range(span.base().0, span.last().0))?;
            fact(f, "size", Bytes(span.size()))?;
            fact(f, "memory", region.partition)?;
            fact(f, "coherency", region.coherency)?;
            fact(f, "members", plan.members(region).len())?;
            fact(f, "chosen", region.reason)?;
            for (label, level) in [
                ("window ways", levels.root),
                ("bridge ways", levels.bridge),
                ("switch ways", levels.switch),
            ] {
                if level.ways != Ways::One {
                    fact(f, label, level)?;
                }
            }
            for (position, member) in plan.members(region).iter().enumerate() {
                let dpa = Range(member.dpa.base().0, member.dpa.last().0);
                let place = tree.path(member.device);
                fact(f, format_args!("position {position}"), format_args!("{place}, DPA {dpa}"))?;
            }
        }
        for decoder in plan.decoders {
            let component = tree
                .get(decoder.node)
                .and_then(|node| node.component())
                .unwrap_or(Component::Device);
            let path = tree.path(decoder.node);
            match component {
                Component::HostBridge => writeln!(f, "{path} decoder {}", decoder.index)?,
                _ => writeln!(f, "{path} {component} decoder {}", decoder.index)?,
            }
            match decoder.purpose {
                Purpose::Burn { base } => {
                    fact(
                        f,
                        "burned",
                        format_args!("{:#018x}  size 0, locked, never used", base.0),
                    )?;
                }
                Purpose::Region { region, decoder } => {
                    fact(f, "region", region)?;
                    let span = decoder.span;
                    fact(f, "range", Range(span.base().0, span.last().0))?;
                    fact(f, "size", Bytes(span.size()))?;
                    let Interleave { ways, granularity } = decoder.interleave;
                    fact(f, "ways", ways)?;
                    fact(f, "granularity", granularity)?;
                    match decoder.route {
                        Route::Targets(targets) => {
                            for (way, port) in targets.used(ways).iter().enumerate() {
                                fact(f, format_args!("target {way}"), format_args!("port {port}"))?;
                            }
                        }
                        Route::Skip(skip) => fact(f, "DPA skip", Bytes(skip))?,
                    }
                }
            }
        }
        for note in plan.notes {
            writeln!(f, "note: {}", note.text(tree))?;
        }
        Ok(())
    }
}

/// Prints a note; made by [`Note::text`].
#[derive(Clone, Copy, Debug)]
pub struct NoteText<'a> {
    note: &'a Note,
    tree: Tree<'a>,
}

impl Note {
    /// The note in words; the topology names the components.
    pub fn text<'a>(&'a self, tree: Tree<'a>) -> NoteText<'a> {
        NoteText { note: self, tree }
    }
}

impl fmt::Display for NoteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |node| self.tree.path(node);
        match *self.note {
            Note::PassThrough { uid } => write!(
                f,
                "bridge {uid} has no decoders and one port: a pass-through with nothing to lock; \
                 Linux refuses regions behind it (failed to find decoder mapping)"
            ),
            Note::Unused { device, partition, size, why } => {
                write!(f, "{}: {} of {partition} memory unused: {why}", at(device), Size(size))
            }
            Note::GuestPrograms { device } => {
                write!(f, "{}: the guest programs the decoders (path 2)", at(device))
            }
            Note::SystemPrograms { device } => write!(
                f,
                "{}: the operating system programs the decoders, in a window that admits its memory",
                at(device)
            ),
            Note::Empty { device } => {
                write!(f, "{}: says that it has no memory, volatile or persistent", at(device))
            }
            Note::BackInvalidateGap { device, at: gap, coherency } => write!(
                f,
                "{}: could do back-invalidate (HDM-DB), its memory is {coherency}: the {} at {} has \
                 no BI structure",
                at(device),
                match self.tree.get(gap).map(|node| node.kind) {
                    Some(NodeKind::RootPort) => "root port",
                    Some(NodeKind::UpstreamPort) => "upstream port",
                    Some(NodeKind::DownstreamPort) => "downstream port",
                    Some(NodeKind::HostBridge { .. } | NodeKind::Device(_)) | None => "component",
                },
                at(gap)
            ),
            Note::NotKept { device, span, partition } => {
                write!(
                    f,
                    "{device}: {partition} memory was at {span} before, and could not stay there"
                )
            }
            Note::NoSuchDevice { at } => {
                write!(f, "{at}: the policy asks for memory of a device here; there is none")
            }
            Note::SetWithoutPlace { at, members, code } => {
                let name = Code::new(code).and_then(Code::name).unwrap_or("unknown");
                write!(
                    f,
                    "{at}: the policy's set of {members} member{} with this device has no place \
                     ({name}, {code:#06x})",
                    plural(members.into())
                )
            }
            Note::NoSuchPort { at } => {
                write!(f, "{at}: the policy keeps room for devices to come here; there is no port")
            }
            Note::NoEmptyPort { at } => {
                write!(f, "{at}: the policy keeps room for devices to come here; no port is empty")
            }
            Note::Reserved { at, partition, span } => write!(
                f,
                "{at}: empty; room is kept for {} of {partition} memory, in {span}",
                Size(span.size())
            ),
            Note::WindowTooSmall { window, size, ways } => write!(
                f,
                "window {window}: has {}, and no 256 MiB for each of {ways} way{}: nothing can lie \
                 in it, and no table has it",
                Size(size),
                plural(ways.count())
            ),
            Note::BackInvalidateWindow { device, window, coherency } => write!(
                f,
                "{}: could do back-invalidate (HDM-DB), its memory is {coherency}: window \
                 {window} does not admit it",
                at(device)
            ),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAsked => f.write_str("the policy does not ask for it"),
            Self::Failed => {
                f.write_str("a decoder that it needs failed, or no set can be made with it")
            }
            Self::SetEnds => f.write_str(
                "its set ends where the smallest member does, and the policy does not map \
                 leftovers",
            ),
            Self::TooFewMembers { uid, need, have } => write!(
                f,
                "a further set needs {need} port{} with such memory below bridge {uid}, {have} {} \
                 some left",
                plural(need.into()),
                if have == 1 { "has" } else { "have" }
            ),
            Self::NoSet { code } => {
                let name = Code::new(code).and_then(Code::name).unwrap_or("unknown");
                write!(f, "no further set can be made of it ({name}, {code:#06x})")
            }
            Self::Refused { code } => {
                let name = Code::new(code).and_then(Code::name).unwrap_or("unknown");
                write!(f, "it has no place ({name}, {code:#06x})")
            }
        }
    }
}
