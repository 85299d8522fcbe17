//! ACPI tables and memory map out of what the hardware accepted, and the check of a CEDT against
//! it.
//!
//! **Invariant**: ranges come from [`CommittedRef`] and windows from the platform; neither is resized
//! to fit the other. Whoever filled it, and however far he came: no CEDT is made while a
//! decoder that is in use, about to be, or stranded belongs to no region that is whole on every path,
//! nor while nobody has read all decoders.

use cxl_regs::acpi::cedt::{CedtError, CedtWriteError, Cxims};
use cxl_regs::acpi::srat::{self, MemoryAffinity};
use cxl_regs::acpi::{Cedt, CedtWriter, Identity, NoRoom};
use cxl_regs::hdm::Control;
use cxl_regs::{Arithmetic, Granularity, Hpa, Span, Ways};

use crate::committed::{
    Committed, CommittedDecoder, CommittedDevice, CommittedRef, CommittedRegion, Fate, Place,
};
use crate::decoder_registers::{DecoderRegisters, difference};
use crate::device_registers::DeviceRegisters;
use crate::error::{self, Code, Error, Numbered};
use crate::mmio::Mmio;
use crate::platform::{self, Platform, Window, holds};
use crate::policy::{OnFailure, PathPolicy, Policy, TargetSystem};
use crate::topology::{Node, NodeId, NodeKind, Partition, Tree};
use crate::verify::paths::{Decoders, WindowView};
use crate::verify::view;
use crate::window_check::{broken, chbs, costs_itself, is_described, record};
pub(crate) use crate::window_check::{range, restrictions};

pub(crate) fn no_room(NoRoom { need, have }: NoRoom) -> Error {
    Code::TABLES_NO_ROOM.error().expected(need).found(have)
}

/// A record that breaks a rule, at the byte that it breaks it with.
fn wrong(error: CedtError) -> Error {
    Code::TABLES_RECORD.at(error::Place::byte(error.offset())).rule(error.problem)
}

pub(crate) fn refused(error: CedtWriteError) -> Error {
    match error {
        CedtWriteError::NoRoom(error) => no_room(error),
        CedtWriteError::Refused(error) => wrong(error),
    }
}

/// The committed decoders, of which nothing is demanded beyond the specification: tables say what is
/// there.
fn as_found<'a>(tree: Tree<'a>, committed: CommittedRef<'a>) -> Decoders<'a> {
    Decoders {
        tree,
        list: committed.decoders,
        locks: PathPolicy::Unlocked,
        target: TargetSystem::Specification,
    }
}

/// Writes the CEDT into `buffer` and returns exactly it.
///
/// A CHBS for every bridge, by UID, but for a CXL 1.1 host that would cost Linux all of them; a CFMWS for every window that has a place, used or not, by
/// base; a CXIMS for each granularity of XOR windows. A window is fixed exactly when it holds a
/// committed range and every decoder that is committed for anything in it is locked.
pub fn cedt<'a, 'b>(
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    committed: impl Into<CommittedRef<'a>>,
    identity: Identity,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    write(platform, topology.into(), committed.into(), OnFailure::Strict, identity, buffer)
}

/// As [`cedt`], as a policy wants it: with [`OnFailure::BestEffort`] a window or a bridge that makes no sense is
/// left out, and refused otherwise.
pub fn cedt_as<'a, 'b>(
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    committed: impl Into<CommittedRef<'a>>,
    policy: &Policy<'_>,
    identity: Identity,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    write(platform, topology.into(), committed.into(), policy.on_failure, identity, buffer)
}

// Compiled once, whatever the lists lie in.
#[inline(never)]
fn write<'b>(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    committed: CommittedRef<'_>,
    on_failure: OnFailure,
    identity: Identity,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    check_whole(platform, tree, committed)?;
    let mut writer = CedtWriter::new(buffer, identity).map_err(no_room)?;
    for bridge in ascending(platform.bridges, |bridge| bridge.uid) {
        let uid = bridge.uid;
        let is_here = |node: &&Node| node.kind == NodeKind::HostBridge { uid };
        let fault = tree.0.iter().find(is_here).and_then(|node| node.fault);
        if fault.is_some_and(|fault| fault.code == Code::DISCOVER_RCRB) {
            continue;
        }
        // Discovery lost it, as it says: of two with one UID neither is known to be right.
        let same = platform.bridges.iter().filter(|other| other.uid == uid).count();
        match chbs(bridge) {
            Ok(record) if same == 1 || !costs_itself(on_failure) => {
                writer.chbs(&record).map_err(refused)?;
            }
            Err(error) if !costs_itself(on_failure) => return Err(error),
            _ => {}
        }
    }
    // What is in use at 0 shows that there is a window.
    let in_use = |window: &Window| {
        { committed.regions.iter() }.any(|region| Some(region.window) == window.base)
    };
    let decodes = |window: &&Window| {
        (is_described(platform, window) || window.has_share() && in_use(window))
            && broken(platform, on_failure, window).is_none()
    };
    for window in ascending(platform.windows, |window| window.base).filter(decodes) {
        writer.cfmws(&record(window, is_fixed(window, committed))?).map_err(refused)?;
    }
    for granularity in Granularity::ALL.into_iter().filter(|_| cfg!(feature = "xor")) {
        if let Some(cxims) = cxims(platform, on_failure, granularity)? {
            writer.cxims(&cxims).map_err(refused)?;
        }
    }
    writer.finish().map_err(refused)
}

/// The items in order of a key, those with the same one in order of place.
fn ascending<T, K: Ord + Copy>(list: &[T], key: impl Fn(&T) -> K) -> impl Iterator<Item = &T> {
    let mut last = None;
    core::iter::from_fn(move || {
        let keys = list.iter().enumerate().map(|(at, item)| (key(item), at));
        let next = keys.filter(|next| Some(*next) > last).min()?;
        last = Some(next);
        list.get(next.1)
    })
}

/// Refuses decoders that are not part of a whole path in a window, and regions that no decoders make.
fn check_whole(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    committed: CommittedRef<'_>,
) -> Result<(), Error> {
    if committed.unread {
        return Err(Code::TABLES_UNREAD.error());
    }
    let decoders = as_found(tree, committed);
    for entry in committed.decoders {
        let place = Place::of(tree, entry.node, entry.index);
        let control = entry.image.control();
        // A commit under way may come to its end at any time. Size 0 claims nothing.
        let claims = (control.committed() || control.commit()) && entry.image.size() != 0;
        // What is lost and said to be costs nothing else.
        let decodes = tree.get(entry.node).is_some_and(|node| node.hdm.is_some());
        if decodes && tree.is_lost(entry.node, entry.index) {
            continue;
        }
        if entry.fate == Fate::Stranded && !decoders.leads_to_lost(entry) {
            return Err(Code::TABLES_NOT_WHOLE.at(place));
        }
        if !claims {
            continue;
        }
        // Whatever is said of its fate.
        let Some(decoder) = entry.active() else { return Err(Code::TABLES_NOT_WHOLE.at(place)) };
        // Wherever it lies: what it leads to is lost, and said to be.
        if decoders.leads_to_lost(entry) {
            continue;
        }
        let span = decoder.span;
        // How many share a range the devices' decoders say; sixteen at most.
        let is_device = decoders.is_device(entry.node);
        let ways = if is_device { decoder.interleave.ways } else { Ways::Sixteen };
        if !platform.windows.iter().any(|window| view(window, span, ways).is_some()) {
            return Err(Code::TABLES_OUTSIDE_WINDOWS
                .at(place)
                .expected(span.base())
                .found(span.size()));
        }
        let whole = committed.regions.iter().any(|region| span.contains_span(region.span));
        if !whole {
            return Err(Code::TABLES_NOT_WHOLE.at(place));
        }
    }
    // The regions are judged anew: nothing is taken from the list but what it may leave out.
    for (entry, decoder) in decoders.device_claims() {
        let place = Place::of(tree, entry.node, entry.index);
        let mut devices = committed.devices.iter().filter(|device| device.node == entry.node);
        let off = devices.any(|device| !device.decoder_enable || !device.mem_enable);
        if off || !committed.regions.iter().any(|region| platform::claims(decoder, region.span)) {
            return Err(Code::TABLES_NOT_WHOLE.at(place));
        }
    }
    for region in committed.regions {
        let ways = region.interleave.ways;
        let window = platform.windows.iter().find_map(|window| view(window, region.span, ways));
        let made = decoders.region(region.span, window, &mut |_| {});
        // Only registers can say that it is locked, only the probe that it answers.
        let locked = region.locked && made.is_some_and(|made| made.locked);
        let made = made.map(|made| CommittedRegion { locked, probed: region.probed, ..made });
        if made != Some(*region) {
            return Err(Code::TABLES_NOT_MADE
                .error()
                .expected(region.span.base())
                .found(region.span.size()));
        }
    }
    Ok(())
}

/// Whether a window holds a committed range, and all that claims anything in it is locked, what is lost
/// included.
fn is_fixed(window: &Window, committed: CommittedRef<'_>) -> bool {
    let Some(span) = window.span() else { return false };
    let CommittedRef { decoders, regions, .. } = committed;
    let open = |entry: &CommittedDecoder| {
        let claims = entry.decoder.is_some_and(|decoder| decoder.span.overlaps(span));
        claims && entry.committed() && !entry.locked()
    };
    let mut inside = regions.iter().filter(|region| span.contains_span(region.span));
    inside.clone().next().is_some()
        && inside.all(|region| region.locked)
        && !decoders.iter().any(open)
}

/// The XOR maps of a granularity: those of its widest window, which all others have to share.
fn cxims(
    platform: &Platform<'_>,
    on_failure: OnFailure,
    granularity: Granularity,
) -> Result<Option<Cxims>, Error> {
    let mut windows = ascending(platform.windows, |window| window.base).filter(|window| {
        window.arithmetic == Arithmetic::Xor
            && window.interleave.granularity == granularity
            && broken(platform, on_failure, window).is_none()
    });
    let Some(mut widest) = windows.next() else { return Ok(None) };
    for window in windows {
        if window.xor_maps.iter().zip(&widest.xor_maps).any(|(one, other)| one != other) {
            let (first, second) = (widest.base, window.base.unwrap_or_default());
            return Err(Code::TABLES_XOR_MAPS_DIFFER
                .at(error::Place::window(first))
                .expected(granularity)
                .found(second));
        }
        if window.xor_maps.len() > widest.xor_maps.len() {
            widest = window;
        }
    }
    Ok(Some(Cxims::new(granularity, &widest.xor_maps)))
}

/// The refusal of a component with a register that reads all-ones.
#[cold]
#[inline(never)]
fn silent(tree: Tree<'_>, node: NodeId, register: u16) -> Error {
    Code::TABLES_SILENT.at(tree.path(node)).detail(register)
}

/// [`cross_check`], and the registers are read once more: whatever changed since they were read last,
/// or is in use and not in `committed`, is an error. Reads only; 7 dwords for each decoder of
/// `committed`, one for each other.
pub fn cross_check_hardware<'a>(
    hw: &mut impl Mmio,
    cedt: &[u8],
    topology: impl Into<Tree<'a>>,
    committed: impl Into<CommittedRef<'a>>,
) -> Result<(), Error> {
    let (tree, committed) = (topology.into(), committed.into());
    for (node, hdm) in tree.sound().filter_map(|(id, node)| Some((id, node.hdm?))) {
        for index in 0..hdm.decoders {
            let registers = DecoderRegisters::new(hdm.block, index);
            let place = Place::of(tree, node, index);
            let control = registers.read_control(hw);
            let mut entries = committed.decoders.iter();
            let entry = entries.find(|entry| (entry.node, entry.index) == (node, index));
            let change = match entry {
                Some(entry) => difference(entry.image, registers.read_beside(hw, control)),
                None if control.into_bits() == u32::MAX => Some((Control::NUMBER, 0, u32::MAX)),
                // Not in use when it was read, whatever else it held.
                None if control.committed() || control.commit() => {
                    let free = control.with_committed(false).with_commit(false);
                    Some((Control::NUMBER, free.into_bits(), control.into_bits()))
                }
                None => None,
            };
            match change {
                None => {}
                Some((register, _, u32::MAX)) => return Err(silent(tree, node, register)),
                Some((register, expected, found)) => {
                    return Err(Code::TABLES_CHANGED
                        .at(place)
                        .detail(register)
                        .expected(expected)
                        .found(found));
                }
            }
        }
    }
    for device in committed.devices {
        let Some(registers) = DeviceRegisters::of(tree, device.node) else { continue };
        let now = CommittedDevice::read(hw, registers)
            .map_err(|register| silent(tree, device.node, register))?;
        let at = tree.path(device.node);
        let fields = [
            (0u8, device.decoder_enable, now.decoder_enable),
            (1, device.mem_enable, now.mem_enable),
            (2, device.cache_enable, now.cache_enable),
            (3, device.config_lock, now.config_lock),
        ];
        if let Some((register, expected, found)) = fields.into_iter().find(|(_, a, b)| a != b) {
            return Err(Code::TABLES_DEVICE_CHANGED
                .at(at)
                .detail(register)
                .expected(expected)
                .found(found));
        }
    }
    check_table(cedt, tree, committed)
}

/// Holds a CEDT, whoever wrote it, against the committed decoders as they were read: every range lies
/// in one of its windows, whose targets, interleave and restrictions fit the decoders on every path;
/// every bridge on a path is there, at its registers; what is fixed is locked. Both are copies in
/// memory: [`cross_check_hardware`] reads the registers again.
pub fn cross_check<'a>(
    cedt: &[u8],
    topology: impl Into<Tree<'a>>,
    committed: impl Into<CommittedRef<'a>>,
) -> Result<(), Error> {
    check_table(cedt, topology.into(), committed.into())
}

// Compiled once, whatever the lists lie in.
#[inline(never)]
fn check_table(cedt: &[u8], tree: Tree<'_>, committed: CommittedRef<'_>) -> Result<(), Error> {
    let table = Cedt::read(cedt).map_err(|error| Code::TABLES_TABLE.error().rule(error))?;
    table.check().map_err(wrong)?;
    let decoders = as_found(tree, committed);
    for (entry, decoder) in decoders.device_claims() {
        check_bridge(&table, tree, entry.node)?;
        let span = decoder.span;
        let ways = decoder.interleave.ways;
        let window = table.windows().find(|window| holds(window.span(), span, ways));
        let view = window.as_ref().map(|window| WindowView {
            span: window.span(),
            interleave: window.interleave(),
            restrictions: window.restrictions,
            targets: window.targets(),
        });
        let mut failure = None;
        let region = decoders.region(span, view, &mut |finding| {
            if finding.is_failure() {
                failure = failure.or(Some(finding));
            }
        });
        if let Some(failure) = failure {
            return Err(failure.disagrees());
        }
        if let (Some(region), Some(window)) = (region, window)
            && window.restrictions.fixed()
            && !region.locked
        {
            return Err(Code::TABLES_FIXED_UNLOCKED.at(error::Place::window(region.window)));
        }
    }
    Ok(())
}

/// Whether the CEDT has a device's bridge where its decoders were found.
fn check_bridge(table: &Cedt<'_>, tree: Tree<'_>, device: NodeId) -> Result<(), Error> {
    for (_, node) in tree.upwards(device) {
        let NodeKind::HostBridge { uid } = node.kind else { continue };
        let found = table
            .host_bridges()
            .find(|bridge| bridge.uid == uid)
            .ok_or_else(|| Code::TABLES_BRIDGE_MISSING.at(error::Place::bridge(uid)))?
            .registers();
        if let Some(hdm) = node.hdm
            && !found.contains(Hpa(hdm.block.0))
        {
            return Err(Code::TABLES_BRIDGE_ELSEWHERE
                .at(error::Place::bridge(uid))
                .detail(found.size() >> 12)
                .expected(hdm.block.0)
                .found(found.base()));
        }
    }
    Ok(())
}

/// What the memory map of the next stage shall call a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Memory that the system's CXL driver hands out (EFI_MEMORY_SP).
    SoftReserved,
    /// Persistent memory: the CXL driver's as well. Not E820 type 7, which other drivers take.
    Reserved,
}

impl MemoryKind {
    /// The type in an E820 map; soft-reserved is the value that Linux uses.
    pub const fn e820(self) -> u32 {
        match self {
            Self::SoftReserved => 0xEFFF_FFFF,
            Self::Reserved => 2,
        }
    }
}

/// A range for the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// The host addresses.
    pub span: Span,
    /// What they are.
    pub kind: MemoryKind,
}

impl<const D: usize> Committed<D> {
    /// [`CommittedRef::memory_map`].
    pub fn memory_map(&self) -> impl Iterator<Item = MemoryRange> + '_ {
        self.view().memory_map()
    }

    /// [`CommittedRef::affinities`].
    pub fn affinities(&self, first_domain: u32) -> impl Iterator<Item = MemoryAffinity> + '_ {
        self.view().affinities(first_domain)
    }
}

impl<'a> CommittedRef<'a> {
    /// The committed ranges for the memory map, by ascending address.
    pub fn memory_map(self) -> impl Iterator<Item = MemoryRange> + 'a {
        self.regions.iter().map(|region| MemoryRange {
            span: region.span,
            kind: match region.partition {
                Partition::Volatile => MemoryKind::SoftReserved,
                Partition::Persistent => MemoryKind::Reserved,
            },
        })
    }

    /// The committed ranges for the SRAT, each in a proximity domain of its own from
    /// `first_domain` on, modulo 2^32.
    pub fn affinities(self, first_domain: u32) -> impl Iterator<Item = MemoryAffinity> + 'a {
        self.regions.iter().enumerate().map(move |(number, region)| MemoryAffinity {
            domain: first_domain.wrapping_add(number as u32),
            span: region.span,
            hot_pluggable: false,
            non_volatile: region.partition == Partition::Persistent,
        })
    }
}

/// Writes an SRAT with the committed ranges alone. A platform that has one already appends
/// [`CommittedRef::affinities`] to it.
pub fn srat<'a, 'b>(
    committed: impl Into<CommittedRef<'a>>,
    identity: Identity,
    first_domain: u32,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    srat::write(identity, committed.into().affinities(first_domain), buffer).map_err(no_room)
}
