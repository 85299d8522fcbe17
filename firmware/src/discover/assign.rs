//! Assignment: bus numbers, BARs and bridge windows for what the board left without, depth first.
//!
//! **Invariant**: what has a number or an address keeps it, unless a port above it had none: then
//! nothing below can have worked, and all of it is assigned anew. Each bus is visited once.
//!
//! BARs are sized by writing all-ones with Memory Space off; it is restored. Room comes from the
//! caller's range for the bridge, or from the window of the port above where that is open. A port's
//! new window is the memory window where it ends below 4 GiB; above, the prefetchable one, which PCI
//! Express lets forward 64-bit BARs that are not prefetchable too (PCIe Base 6.x section 7.5.1.3.9).
//! Needs 600 bytes of stack for each port in a row.

use cxl_regs::config::{
    BarKind, BridgeHeader, BusNumbers, Command, HeaderType, WINDOW_UNIT, Windows,
};
use cxl_regs::{Hpa, Span};

use super::function::{CxlFunction, Functions, Role, Sighting, bar_offset, read_bar};
use super::{bus_range_end, guesses, is_left_out, open};
use crate::config::{self, Config, bus_base};
use crate::error::{BarProblem, Code, Error, Place};
use crate::mmio::Mmio;
use crate::platform::{Bridge, Platform, Resources, RootBus};
use crate::policy::LeaveOut;
use crate::topology::{MAX_DEPTH, Path};

/// Numbers or addresses that are left: from `next` up to, and without, `end`.
#[derive(Clone, Copy, Debug)]
struct Pool {
    next: u64,
    end: u64,
}

impl Pool {
    fn of(span: Span) -> Self {
        Self { next: span.base().0, end: span.end().0 }
    }

    /// Leaves out everything up to the end of what is in use here.
    fn skip(&mut self, used: Span) {
        if used.base().0 < self.end && used.end().0 > self.next {
            self.next = used.end().0;
        }
    }

    /// Moves up to a multiple of `unit`, a power of two.
    fn align(&mut self, unit: u64) -> Option<u64> {
        self.next = self.next.checked_next_multiple_of(unit)?;
        (self.next <= self.end).then_some(self.next)
    }

    /// Takes `size` bytes, a power of two, at a multiple of their size.
    fn take(&mut self, size: u64) -> Option<u64> {
        let (address, end) = (self.next.checked_next_multiple_of(size)?, self.end);
        self.next = address.checked_add(size).filter(|next| *next <= end)?;
        Some(address)
    }
}

/// Bus numbers that are left below a port.
#[derive(Clone, Copy, Debug)]
struct Buses {
    next: u16,
    last: u8,
}

impl Buses {
    fn take(&mut self) -> Option<u8> {
        let bus = u8::try_from(self.next).ok().filter(|bus| *bus <= self.last)?;
        self.next += 1;
        Some(bus)
    }
}

/// Assigns what is missing below one bridge.
pub(super) fn hierarchy(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    platform: &Platform<'_>,
    bridge: &Bridge,
    given: &Resources,
    leave_out: &[LeaveOut],
) -> Result<(), Error> {
    let (uid, visited) = (bridge.uid, [0; 4]);
    let mut pass = Pass { hw, config, platform, leave_out, uid, visited };
    let place = Path::new(uid, &[]).unwrap_or_default();
    // A register block at 0 would be none.
    let mut pool = Pool::of(given.span);
    pool.next = pool.next.max(1);
    for root in guesses(platform, bridge) {
        let others = platform.bridges.iter().flat_map(|other| guesses(platform, other));
        let behind = others.filter(|other| other.segment == root.segment && *other > root);
        let end = bus_range_end(platform, root);
        let last = behind.map(|other| other.bus - 1).min().map_or(end, |last| last.min(end));
        let mut buses = Buses { next: u16::from(root.bus) + 1, last };
        pass.visited = [0; 4];
        pass.bus(root, None, place, false, &mut buses, &mut pool)?;
    }
    Ok(())
}

/// One way through a hierarchy.
struct Pass<'a, 'c, M> {
    hw: &'a mut M,
    config: &'a mut Config<'c>,
    platform: &'a Platform<'a>,
    /// What is not to be touched.
    leave_out: &'a [LeaveOut],
    uid: u32,
    /// One bit a bus of the segment.
    visited: [u64; 4],
}

impl<M: Mmio> Pass<'_, '_, M> {
    fn place(&self) -> Place {
        Place::function(self.uid, self.config.function())
    }

    fn functions(&self, bus: RootBus, above: Option<Role>) -> Result<Functions, Error> {
        let at = Place::bridge(self.uid);
        let base = bus_base(self.platform.ecam, bus);
        let base = base.ok_or_else(|| Code::DISCOVER_NOT_DECODED.at(at).found(bus))?;
        Ok(Functions::new(self.uid, base, bus, above))
    }

    fn identify(
        &mut self,
        header: HeaderType,
        above: Option<Role>,
    ) -> Result<Option<CxlFunction>, Error> {
        let found = CxlFunction::identify(self.hw, self.config, header, above);
        self.config.fault.told(found).map(Sighting::cxl)
    }

    /// Leaves out of both pools what functions of this bus have already.
    #[inline(never)]
    fn survey(
        &mut self,
        bus: RootBus,
        above: Option<Role>,
        buses: &mut Buses,
        pool: &mut Pool,
    ) -> Result<(), Error> {
        let mut functions = self.functions(bus, above)?;
        while let Some(header) = functions.next(self.hw, self.config) {
            if header.layout() == 1 {
                let numbers: BusNumbers = self.config.read(self.hw, 0);
                if numbers.secondary() != 0 {
                    buses.next = buses.next.max(u16::from(numbers.subordinate()) + 1);
                }
                let Windows { memory, prefetchable } = self.windows().1;
                [memory, prefetchable].into_iter().flatten().for_each(|used| pool.skip(used));
            }
            if is_left_out(self.hw, self.config, self.leave_out, header) {
                continue;
            }
            // On a root bus there are functions that it is no good to disturb.
            let cxl = self.identify(header, above)?;
            if above.is_some() || cxl.is_some() {
                self.bars(header, |_, _, _, assigned| {
                    assigned.into_iter().for_each(|used| pool.skip(used));
                    Ok(None)
                })?;
            }
        }
        Ok(())
    }

    /// Assigns what is missing on a bus and below, behind the ports on the way to a place. With `anew`
    /// nothing counts as assigned.
    #[inline(never)]
    fn bus(
        &mut self,
        bus: RootBus,
        above: Option<Role>,
        place: Path,
        anew: bool,
        buses: &mut Buses,
        pool: &mut Pool,
    ) -> Result<(), Error> {
        let (word, bit) = (usize::from(bus.bus / 64), 1 << (bus.bus % 64));
        match self.visited.get_mut(word) {
            Some(word) if *word & bit == 0 => *word |= bit,
            _ => return Err(Code::DISCOVER_BUS_LOOP.at(self.place()).found(bus)),
        }
        if !anew {
            self.survey(bus, above, buses, pool)?;
        }
        let mut functions = self.functions(bus, above)?;
        while let Some(header) = functions.next(self.hw, self.config) {
            if is_left_out(self.hw, self.config, self.leave_out, header) {
                continue;
            }
            let Some(found) = self.identify(header, above)? else { continue };
            let at = self.place();
            let port = found.port_number(self.hw, self.config);
            let port = self.config.fault.told(port)?;
            let inside = found.place_in(place, port);
            if inside.is_some_and(|inside| self.leave_out.contains(&LeaveOut::At(inside))) {
                continue;
            }
            self.bars(header, |kind, size, bar, assigned| {
                if assigned.is_some() && !anew {
                    return Ok(None);
                }
                let Pool { next, end } = *pool;
                let fits = |address: &u64| match kind {
                    BarKind::Memory32 { .. } => address + (size - 1) <= u64::from(u32::MAX),
                    _ => true,
                };
                let no_room = no_room(at, bar, size, next, end);
                pool.take(size).filter(fits).map(Some).ok_or(no_room)
            })?;
            if found.role != Role::Device {
                let too_deep = Code::DISCOVER_TOO_DEEP.at(at).expected(MAX_DEPTH);
                let inside = inside.filter(|inside| inside.ports().len() <= MAX_DEPTH / 2);
                self.port(bus, found.role, inside.ok_or(too_deep)?, anew, buses, pool)?;
            }
        }
        Ok(())
    }

    /// Gives the open port bus numbers and windows, and everything below it what it needs.
    #[inline(never)]
    fn port(
        &mut self,
        bus: RootBus,
        role: Role,
        place: Path,
        anew: bool,
        buses: &mut Buses,
        pool: &mut Pool,
    ) -> Result<(), Error> {
        let (at, here) = (self.place(), self.config.function());
        let found: BusNumbers = self.config.read(self.hw, 0);
        let numbered = !anew && found.secondary() != 0;
        let mut numbers = found;
        let mut below = if numbered {
            let (secondary, subordinate) = (found.secondary(), found.subordinate());
            let end = bus_range_end(self.platform, bus);
            if secondary <= bus.bus || subordinate < secondary || subordinate > end {
                let (above, last) = (bus.bus, end);
                return Err(Code::DISCOVER_BUS_NUMBERS
                    .at(at)
                    .expected((above, last))
                    .found((secondary, subordinate)));
            }
            Buses { next: u16::from(secondary) + 1, last: subordinate }
        } else {
            let no_numbers = Code::DISCOVER_NO_BUS_NUMBERS.at(at).expected(buses.last);
            let secondary = buses.take().ok_or(no_numbers)?;
            numbers = numbers
                .with_primary(bus.bus)
                .with_secondary(secondary)
                .with_subordinate(buses.last);
            self.config.write(self.hw, &config::BRIDGE, numbers);
            *buses
        };
        let (header, windows) = self.windows();
        let inner = RootBus { segment: bus.segment, bus: numbers.secondary() };
        let opened = windows.memory.or(windows.prefetchable).filter(|_| numbered);
        if let Some(window) = opened {
            let mut pool = Pool::of(window);
            self.bus(inner, Some(role), place, false, &mut below, &mut pool)?;
        } else {
            let before = *pool;
            let full = no_room(at, 0, WINDOW_UNIT, before.next, before.end);
            let start = pool.align(WINDOW_UNIT).ok_or(full)?;
            self.bus(inner, Some(role), place, true, &mut below, pool)?;
            self.reopen(bus, here);
            let window = if pool.next == start {
                *pool = before;
                None
            } else {
                let end = pool.align(WINDOW_UNIT).ok_or(full)?;
                Span::new(Hpa(start), end - start).ok()
            };
            let low = window.is_some_and(|window| window.last().0 <= u64::from(u32::MAX));
            let windows = if low {
                Windows { memory: window, prefetchable: None }
            } else {
                Windows { memory: None, prefetchable: window }
            };
            let header = header.with_windows(windows);
            let header = header.map_err(|error| Code::DISCOVER_WINDOW.at(at).rule(error))?;
            let (hw, all) = (&mut *self.hw, &config::BRIDGE);
            self.config.write(hw, all, header.memory_base);
            self.config.write(hw, all, header.memory_limit);
            self.config.write(hw, all, header.pref_base);
            self.config.write(hw, all, header.pref_limit);
            self.config.write(hw, all, header.pref_base_upper);
            self.config.write(hw, all, header.pref_limit_upper);
        }
        if !numbered {
            self.reopen(bus, here);
            let highest = u8::try_from(below.next.saturating_sub(1)).unwrap_or(buses.last);
            let numbers = numbers.with_subordinate(highest);
            self.config.write(self.hw, &config::BRIDGE, numbers);
            buses.next = below.next;
        }
        Ok(())
    }

    /// Opens a function again after the ones below it.
    fn reopen(&mut self, bus: RootBus, function: cxl_regs::config::Sbdf) {
        if let Some(base) = bus_base(self.platform.ecam, bus) {
            self.config.open(self.uid, base, function);
        }
    }

    /// The open port's header, and its windows that are open.
    fn windows(&mut self) -> (BridgeHeader, Windows) {
        let header = BridgeHeader::read(self.config.reader(self.hw), 0);
        (header, open(header.windows()))
    }

    /// Sizes the memory BARs of the open function, and gives each that exists (type, size, number,
    /// where it is) to `place`, which may answer with another address.
    #[inline(never)]
    fn bars(
        &mut self,
        header: HeaderType,
        mut place: impl FnMut(BarKind, u64, u8, Option<Span>) -> Result<Option<u64>, Error>,
    ) -> Result<(), Error> {
        let at = self.place();
        let bars = if header.layout() == 0 { 6 } else { 2 };
        let (hw, config) = (&mut *self.hw, &mut *self.config);
        let command: Command = config.read(hw, 0);
        if command.memory_space() {
            config.write(hw, &config::ENDPOINT, command.with_memory_space(false));
        }
        let mut index = 0;
        while index < bars {
            let refuse = |problem| Code::DISCOVER_BAR.at(at).halves(0u8, index).rule(problem);
            let (kind, low, high) = read_bar(hw, config, bars, index).map_err(refuse)?;
            if kind != BarKind::Io {
                let size = size(hw, config, index, kind, (low, high)).map_err(refuse)?;
                if let Some(size) = size {
                    let address = kind.address(low, high);
                    let used = (address != 0).then(|| Span::new(Hpa(address), size).ok());
                    if let Some(address) = place(kind, size, index, used.flatten())? {
                        put(hw, config, index, kind, kind.at(address));
                    }
                }
            }
            index += kind.registers();
        }
        if command.memory_space() {
            config.write(hw, &config::ENDPOINT, command);
        }
        Ok(())
    }
}

/// There is no room for a BAR's size, or a port's window's unit, which are powers of two.
fn no_room(at: Place, bar: u8, need: u64, next: u64, end: u64) -> Error {
    let power = need.trailing_zeros() as u8;
    Code::DISCOVER_NO_ROOM.at(at).halves(bar, power).expected(next).found(end)
}

fn put(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    index: u8,
    kind: BarKind,
    (low, high): (u32, u32),
) {
    config.write_dword(hw, bar_offset(index), low);
    if kind.registers() > 1 {
        config.write_dword(hw, bar_offset(index + 1), high);
    }
}

/// The size of a BAR, `None` if it does not exist. Its value is restored.
fn size(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    index: u8,
    kind: BarKind,
    value: (u32, u32),
) -> Result<Option<u64>, BarProblem> {
    put(hw, config, index, kind, (u32::MAX, u32::MAX));
    let low = config.dword(hw, bar_offset(index));
    let high = if kind.registers() > 1 { config.dword(hw, bar_offset(index + 1)) } else { 0 };
    put(hw, config, index, kind, value);
    kind.size(low, high).map_err(BarProblem::Register)
}
