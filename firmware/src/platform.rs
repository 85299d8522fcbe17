//! What the platform is: ECAM, host bridges and memory windows, borrowed from whoever knows.
//!
//! A bootloader that owns the machine writes the values down; one that starts from ACPI reads them
//! with [`crate::acpi`]. Order means nothing: bridges are known by UID, windows by base.
//!
//! **Invariant**: nothing here was judged. Windows may be unplaced, overlap or name bridges that
//! do not exist; a strict run refuses them by name, and one that is content with the rest leaves them alone.

use cxl_regs::acpi::cedt::ChbsVersion;
use cxl_regs::{Arithmetic, DECODER_UNIT, Decoder, Hpa, Interleave, Selector, Span, Ways};
use heapless::Vec;

use crate::error::{Code, Error};

pub use crate::path::RootBus;
pub use cxl_regs::acpi::cedt::Restrictions;

/// A memory-mapped configuration region of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Address of bus 0, whether or not that bus is decoded.
    pub base: Hpa,
    /// PCI segment group.
    pub segment: u16,
    /// First bus that is decoded.
    pub first_bus: u8,
    /// Last bus that is decoded.
    pub last_bus: u8,
}

impl Ecam {
    /// Bytes of configuration space of one bus.
    pub(crate) const BUS: u64 = 1 << 20;

    /// The address of a bus's configuration space; `None` where this region does not decode it.
    pub fn bus(&self, segment: u16, bus: u8) -> Option<Hpa> {
        (segment == self.segment && (self.first_bus..=self.last_bus).contains(&bus))
            .then(|| self.base.0.checked_add(u64::from(bus) * Self::BUS).map(Hpa))
            .flatten()
    }

    /// The addresses of all it decodes; `None` if these would pass the end of the address space.
    pub fn span(&self) -> Option<Span> {
        let buses = u64::from(self.last_bus.checked_sub(self.first_bus)?) + 1;
        let first = self.base.0.checked_add(u64::from(self.first_bus) * Self::BUS)?;
        Span::new(Hpa(first), buses * Self::BUS).ok()
    }
}

/// What a bridge's registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeKind {
    /// CXL 2.0 and later: a component register block of 64 KiB.
    ComponentRegisters,
    /// CXL 1.1: a root complex register block. In the table, and not programmed.
    Rcrb,
}

/// A CXL host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// ACPI `_UID`: what CHBS records and window targets call it.
    pub uid: u32,
    /// What its registers are.
    pub kind: BridgeKind,
    /// Address of its register block.
    pub registers: Hpa,
    /// Its root bus, if the caller knows; it is not in the CEDT (`_BBN` is in AML).
    pub root: Option<RootBus>,
}

impl Bridge {
    /// The addresses of its registers, if there are any: 0 says that there are none.
    fn span(&self) -> Option<Span> {
        let size = match self.kind {
            BridgeKind::ComponentRegisters => ChbsVersion::Chbcr.length(),
            BridgeKind::Rcrb => ChbsVersion::Rch.length(),
        };
        Span::new(self.registers, size).ok().filter(|span| span.base() != Hpa(0))
    }
}

/// A fixed memory window: host addresses that the platform routes to CXL.
// The lists last: what is behind 128 bytes takes longer code to reach.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// First address, by which the window is known; `None` when the platform found no place for it.
    pub base: Option<Hpa>,
    /// Bytes.
    pub size: u64,
    /// Interleave across the targets.
    pub interleave: Interleave,
    /// How addresses choose a target.
    pub arithmetic: Arithmetic,
    /// What may be mapped here.
    pub restrictions: Restrictions,
    /// QoS throttling group.
    pub qtg: u16,
    /// Why its record in the platform's table cannot be read, if that is so
    /// ([`Tables::from_acpi_in_part`](crate::acpi::Tables::from_acpi_in_part)): what is said here of it beside
    /// is as much as could be. A strict run refuses it, any other one leaves it alone.
    pub unreadable: Option<Error>,
    /// XOR maps for [`Arithmetic::Xor`]; empty for modulo.
    pub xor_maps: Vec<u64, { Selector::MAX_MAPS }>,
    /// UIDs of the bridges, way 0 first.
    pub targets: Vec<u32, 16>,
}

impl Window {
    /// Its addresses as the platform gave them; `None` where it has no place, no bytes, or would pass the end of the address
    /// space.
    pub fn span(&self) -> Option<Span> {
        Span::new(self.base?, self.size).ok()
    }

    /// Whether a region can lie in it: it has a share of 256 MiB for each way, or may end within one.
    pub(crate) fn has_share(&self) -> bool {
        let shares = DECODER_UNIT * u64::from(self.interleave.ways.count());
        self.size >= shares || self.is_at_hole()
    }

    /// Whether it may end within a share, as only one at 0 may.
    pub(crate) fn is_at_hole(&self) -> bool {
        self.base == Some(Hpa(0))
    }
}

/// Address space that discovery may hand out below one bridge to what the board left unassigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// UID of the bridge: each decodes its own part of the address space (its `_CRS`).
    pub uid: u32,
    /// Memory for BARs and forwarding windows.
    pub span: Span,
}

/// The platform, as far as CXL is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// Configuration regions.
    pub ecam: &'a [Ecam],
    /// Host bridges.
    pub bridges: &'a [Bridge],
    /// Memory windows.
    pub windows: &'a [Window],
    /// Width of a physical address in bits (CPUID leaf 0x8000_0008 on x86).
    pub address_bits: u8,
    /// What may be assigned, a range for a bridge. Below a bridge without one everything is used as
    /// found, or refused.
    pub resources: &'a [Resources],
    /// Where something else answers, as far as the caller knows: RAM, registers of the chip set.
    /// No window may reach there, nor over the configuration regions and register blocks above.
    pub occupied: &'a [Span],
    /// What could not be read of the platform's tables, beside windows. A strict run refuses the first, one
    /// that is content with the rest remarks each.
    pub unreadable: &'a [Error],
}

impl Platform<'_> {
    /// Why a run that needs all of the platform is refused: the first record that could not be read.
    pub(crate) fn unread(&self) -> Option<Error> {
        let &error = self.unreadable.first()?;
        let code = match error.code {
            Code::DISCOVER_RECORD_PASSED_OVER => Code::PLATFORM_RECORD,
            code => code,
        };
        Some(Error { code, ..error })
    }

    /// What the platform itself says is no window: configuration regions, register blocks, and what
    /// is [`occupied`](Self::occupied).
    pub(crate) fn taken(&self) -> impl Iterator<Item = Span> {
        let ecam = self.ecam.iter().filter_map(Ecam::span);
        let bridges = self.bridges.iter().filter_map(Bridge::span);
        ecam.chain(bridges).chain(self.occupied.iter().copied())
    }

    /// The lowest of what is [`taken`](Self::taken) among these addresses.
    pub(crate) fn taken_in(&self, span: Span) -> Option<Span> {
        let mut lowest = None;
        for region in self.ecam {
            lower(&mut lowest, span, region.span());
        }
        for bridge in self.bridges {
            lower(&mut lowest, span, bridge.span());
        }
        for taken in self.occupied {
            lower(&mut lowest, span, Some(*taken));
        }
        lowest
    }

    /// The addresses of a window that has any; of one that wraps, those up to the top.
    #[inline(never)]
    pub(crate) fn claimed(&self, window: &Window) -> Option<Span> {
        let base = self.base_of(window)?;
        Span::new(base, window.size.min(u64::MAX - base.0)).ok()
    }

    /// Where something may be put in a window.
    ///
    /// A window may begin at 0. Platforms also write 0 where they found no place for one (QEMU), and
    /// have RAM there; so 0 is a place only if the caller knows what is occupied, and none of it is
    /// there.
    #[inline(never)]
    pub(crate) fn base_of(&self, window: &Window) -> Option<Hpa> {
        let known = |span: Span| {
            !self.occupied.is_empty() && !self.occupied.iter().any(|taken| taken.overlaps(span))
        };
        window.base.filter(|base| base.0 != 0 || window.span().is_some_and(known))
    }

    /// The addresses of a window that has a place; `None` for any other, also for one at 0 where that is
    /// none.
    pub fn span_of(&self, window: &Window) -> Option<Span> {
        self.base_of(window).and_then(|_| window.span())
    }

    /// Bytes that a region of so many members may claim from a window's base on.
    ///
    /// A window at 0 may end where a hole below 4 GiB begins, with less than a whole share of 256 MiB
    /// for each way at its end. Decoders obey that rule all the same, and so claim more; the platform
    /// routes nothing of the rest (Linux: Documentation/driver-api/cxl/conventions/cxl-lmh.rst).
    /// Another window must not lie there.
    pub(crate) fn room(&self, window: &Window, members: u32) -> u64 {
        let shares = DECODER_UNIT.saturating_mul(members.max(1).into());
        let whole = window.size.checked_next_multiple_of(shares).filter(|_| window.is_at_hole());
        let room = whole.unwrap_or(window.size);
        let free = |room| {
            let claimed = window.base.and_then(|base| Span::new(base, room).ok());
            let mut others = self.windows.iter().filter(|other| other.base != window.base);
            claimed.is_none_or(|span| !others.any(|o| o.span().is_some_and(|o| o.overlaps(span))))
        };
        if free(room) { room } else { window.size }
    }
}

/// Keeps the lowest of what is among some addresses.
fn lower(lowest: &mut Option<Span>, among: Span, taken: Option<Span>) {
    if let Some(taken) = taken
        && taken.overlaps(among)
        && lowest.is_none_or(|lowest| taken < lowest)
    {
        *lowest = Some(taken);
    }
}

/// Whether a window has a range that is interleaved so many ways. One at 0 may end before the range
/// does, by less than a share of 256 MiB for each way: see [`Platform::room`].
pub(crate) fn holds(window: Span, span: Span, ways: Ways) -> bool {
    let rest = span.end().0.saturating_sub(window.end().0);
    let at_hole = window.base() == Hpa(0) && rest < DECODER_UNIT * u64::from(ways.count());
    window.contains_span(span) || window.contains(span.base()) && at_hole
}

/// Whether a decoder is for a region: it claims its addresses, and no more than hides in a hole.
pub(crate) fn claims(decoder: &Decoder, region: Span) -> bool {
    decoder.span.base() == region.base() && holds(region, decoder.span, decoder.interleave.ways)
}

/// The part of a range that its window has.
pub(crate) fn reached(span: Span, window: Span) -> Span {
    let size = window.end().0.saturating_sub(span.base().0).min(span.size());
    Span::new(span.base(), size).unwrap_or(span)
}
