//! Configuration space through ECAM: dwords read once, and narrow registers written without
//! touching the one beside them.
//!
//! **Invariant**: a write to a narrow register writes 0 to every write-1-to-clear bit of the
//! registers that share its dword and the value just read to all their other bits, so a status that
//! was set before is set after (PCIe Base 6.x section 7.4; CXL r3.1 section 8.1.3).

use cxl_regs::access::{Class, Features, Register, Rule, Spec};
use cxl_regs::config::{Bdf, BridgeHeader, CONFIG_SIZE, EndpointHeader, Sbdf};
use cxl_regs::dvsec::device::DeviceDvsec;

use crate::error::{Code, Fault, Place, Telling};
use crate::mmio::{Block, Clock, Mmio};
use crate::platform::{Ecam, RootBus};
use crate::wait::poll_each_millisecond;

/// A function's configuration space; `None` where no region decodes its bus.
pub fn function_base(ecam: &[Ecam], function: Sbdf) -> Option<Block> {
    let bus = RootBus { segment: function.segment, bus: function.bdf.bus() };
    Some(Block(bus_base(ecam, bus)?.wrapping_add(within_bus(function))))
}

/// Where a function's configuration space is in that of its bus.
fn within_bus(function: Sbdf) -> u64 {
    Bdf::from_bits(function.bdf.bits() & 0xff).ecam_offset(0).unwrap_or(0)
}

/// The registers that a bus's functions have in configuration space; `None` where no region
/// decodes the bus.
#[inline(never)]
pub(crate) fn bus_base(ecam: &[Ecam], bus: RootBus) -> Option<u64> {
    ecam.iter().find_map(|region| region.bus(bus.segment, bus.bus)).map(|base| base.0)
}

/// The dword to write so that `value` takes the place of the register that `R` is, given the dword
/// that is there and the registers that lie in it.
///
/// ```
/// use cxl_firmware::config::beside;
/// use cxl_regs::config::{Command, EndpointHeader};
///
/// // Status, in the upper half, has an error bit set: it is written 0, which keeps it.
/// let command = Command::new().with_memory_space(true);
/// assert_eq!(beside(EndpointHeader::REGISTERS, 0x8010_0000, command), 0x0010_0002);
/// ```
pub fn beside<R: Register>(siblings: &[Spec], dword: u32, value: R) -> u32 {
    put_beside(acted_on_at(siblings, R::SPEC.offset & !3), dword, value)
}

/// Writes one register that does not fill its dword. `siblings` are the registers of its structure,
/// for example [`DeviceDvsec::REGISTERS`](cxl_regs::dvsec::device::DeviceDvsec::REGISTERS).
pub fn write<R: Register>(hw: &mut impl Mmio, structure: Block, siblings: &[Spec], value: R) {
    let address = structure.address::<R>();
    let dword = hw.read(address);
    hw.write(address, beside(siblings, dword, value));
}

/// A register out of the dword that it lies in.
pub(crate) fn register<R: Register>(dword: u32) -> R {
    R::from_raw(dword >> shift(R::SPEC.offset))
}

const fn shift(offset: u16) -> u32 {
    8 * (offset & 3) as u32
}

/// The bits of its dword that a register takes.
const fn lane(spec: &Spec) -> u32 {
    let bits = 8 * spec.bytes as u32;
    let mask = if bits < 32 { (1 << bits) - 1 } else { u32::MAX };
    mask << shift(spec.offset)
}

/// The bits of the dword at `offset` for which writing back what was read is an act.
pub const fn acted_on_at(siblings: &[Spec], offset: u16) -> u32 {
    let (mut mask, mut rest) = (0, siblings);
    while let [spec, behind @ ..] = rest {
        if spec.offset & !3 == offset {
            mask |= acted_on(spec) << shift(spec.offset);
        }
        rest = behind;
    }
    mask
}

/// Bits for which writing back what was read is an act: it clears or starts something. All kinds
/// of component and all features together, as 0 does nothing to such a bit in any of them.
const fn acted_on(spec: &Spec) -> u32 {
    let (mut mask, mut rest) = (0, spec.fields);
    while let [field, behind @ ..] = rest {
        if acts(field.device) || acts(field.host_bridge) || acts(field.upstream_port) {
            mask |= field.mask();
        }
        rest = behind;
    }
    mask
}

const fn acts(rule: Rule) -> bool {
    matches!(rule.class(Features::ALL), Class::Rw1c | Class::Rw1cs | Class::Trigger)
}

/// The dwords of a structure that have such bits, found when this is compiled: a structure's whole
/// description would otherwise be linked for it.
pub(crate) struct Acts([(u16, u32); 4]);

/// A device's header.
pub(crate) const ENDPOINT: Acts = Acts::of(EndpointHeader::REGISTERS);
/// A port's header.
pub(crate) const BRIDGE: Acts = Acts::of(BridgeHeader::REGISTERS);
/// The CXL Device DVSEC.
pub(crate) const DEVICE: Acts = Acts::of(DeviceDvsec::REGISTERS);

impl Acts {
    const fn of(siblings: &[Spec]) -> Self {
        let (mut list, mut count, mut offset) = ([(u16::MAX, 0); 4], 0, 0);
        while offset < 0x100 {
            let mask = acted_on_at(siblings, offset);
            if mask != 0 {
                // A fifth one fails to compile.
                list[count] = (offset, mask);
                count += 1;
            }
            offset += 4;
        }
        Self(list)
    }

    /// As [`acted_on_at`].
    pub(crate) fn at(&self, offset: u16) -> u32 {
        let found = self.0.iter().find(|(other, _)| *other == offset);
        found.map_or(0, |(_, mask)| *mask)
    }

    /// As [`beside`].
    fn beside<R: Register>(&self, dword: u32, value: R) -> u32 {
        put_beside(self.at(R::SPEC.offset & !3), dword, value)
    }

    /// As [`write`].
    pub(crate) fn write<R: Register>(&self, hw: &mut impl Mmio, structure: Block, value: R) {
        let own = const { lane(&R::SPEC) };
        self.put(hw, structure.address::<R>(), R::SPEC.offset, own, value.raw());
    }

    #[inline(never)]
    fn put(&self, hw: &mut impl Mmio, address: u64, offset: u16, own: u32, value: u32) {
        let dword = hw.read(address);
        hw.write(address, merged(self.at(offset & !3), dword, own, value << shift(offset)));
    }
}

fn put_beside<R: Register>(cleared: u32, dword: u32, value: R) -> u32 {
    let own = const { lane(&R::SPEC) };
    merged(cleared, dword, own, value.raw() << shift(R::SPEC.offset))
}

/// A dword with the bits of one register replaced.
const fn merged(cleared: u32, dword: u32, own: u32, value: u32) -> u32 {
    dword & !own & !cleared | value & own
}

const DWORDS: usize = CONFIG_SIZE as usize / 4;

/// The dwords of a function's configuration space that were fetched. 4.2 KiB.
#[derive(Debug)]
pub(crate) struct Cache {
    known: [u64; DWORDS / 64],
    dwords: [u32; DWORDS],
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self { known: [0; DWORDS / 64], dwords: [0; DWORDS] }
    }
}

/// The configuration space of one function at a time; each dword is fetched at most once, unless
/// somebody wants it afresh, or there is no memory for what was fetched.
#[derive(Debug)]
pub(crate) struct Config<'c> {
    /// Of the bridge that the function is below.
    uid: u32,
    function: Sbdf,
    /// Where its bus's functions are. Its own place is not kept beside: of three fields the compiler passes
    /// a pointer to whoever reads, of two it would load both at each call.
    bus_base: u64,
    /// Why something could not be made of what is there.
    pub(crate) fault: Fault,
    cache: Option<&'c mut Cache>,
}

impl<'c> Config<'c> {
    pub(crate) fn new(cache: &'c mut Cache) -> Self {
        Self {
            uid: 0,
            function: Sbdf::default(),
            bus_base: 0,
            fault: Fault::NONE,
            cache: Some(cache),
        }
    }

    /// The open function's registers, each read again whenever it is asked for.
    pub(crate) fn uncached() -> Self {
        Self { uid: 0, function: Sbdf::default(), bus_base: 0, fault: Fault::NONE, cache: None }
    }

    /// Turns to another function below a bridge, of which nothing is known yet. `bus_base` is its bus's.
    #[inline(never)]
    pub(crate) fn open(&mut self, uid: u32, bus_base: u64, function: Sbdf) {
        (self.uid, self.bus_base, self.function) = (uid, bus_base, function);
        if let Some(cache) = &mut self.cache {
            cache.known = [0; DWORDS / 64];
        }
    }

    /// Which function this is.
    pub(crate) fn function(&self) -> Sbdf {
        self.function
    }

    /// Where this is, as an error names it.
    #[inline(never)]
    pub(crate) fn place(&self) -> Place {
        Place::function(self.uid, self.function)
    }

    /// The beginning of an error at the open function.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&mut self, code: Code) -> Telling<'_> {
        let at = self.place();
        self.fault.at(code, at)
    }

    /// The structure at an offset.
    pub(crate) fn block(&self, offset: u16) -> Block {
        let within = within_bus(self.function).wrapping_add(u64::from(offset));
        Block(self.bus_base.wrapping_add(within))
    }

    /// The dword at an offset, fetched if it is not known yet.
    // Not inlined: it is asked everywhere.
    #[inline(never)]
    pub(crate) fn dword(&mut self, hw: &mut impl Mmio, offset: u16) -> u32 {
        let index = usize::from(offset / 4);
        let Block(address) = self.block(offset & !3);
        let Some(cache) = &mut self.cache else {
            return if index < DWORDS { hw.read(address) } else { u32::MAX };
        };
        let (word, bit) = (index / 64, 1 << (index % 64));
        let (Some(known), Some(slot)) = (cache.known.get_mut(word), cache.dwords.get_mut(index))
        else {
            return u32::MAX;
        };
        if *known & bit == 0 {
            *known |= bit;
            *slot = hw.read(address);
        }
        *slot
    }

    fn forget(&mut self, offset: u16) {
        let index = usize::from(offset / 4);
        if let Some(cache) = &mut self.cache
            && let Some(known) = cache.known.get_mut(index / 64)
        {
            *known &= !(1 << (index % 64));
        }
    }

    /// Fetches a dword each millisecond until it is `done`; gives what it was last, as an error where it
    /// never was.
    #[inline(never)]
    pub(crate) fn poll(
        &mut self,
        hw: &mut impl Mmio,
        clock: &mut impl Clock,
        offset: u16,
        milliseconds: u32,
        done: fn(u32) -> bool,
    ) -> Result<u32, u32> {
        let index = usize::from(offset / 4);
        // What is not there reads all-ones.
        if index >= DWORDS {
            return Ok(u32::MAX);
        }
        let Block(address) = self.block(offset);
        let found = poll_each_millisecond(hw, clock, milliseconds, address, done);
        if let Some(cache) = &mut self.cache
            && let (Some(known), Some(slot)) =
                (cache.known.get_mut(index / 64), cache.dwords.get_mut(index))
        {
            *known |= 1 << (index % 64);
            let (Ok(dword) | Err(dword)) = found;
            *slot = dword;
        }
        found
    }

    /// Fetches a dword again.
    pub(crate) fn fresh(&mut self, hw: &mut impl Mmio, offset: u16) -> u32 {
        self.forget(offset);
        self.dword(hw, offset)
    }

    /// A reader for the walkers of cxl-regs.
    pub(crate) fn reader<'a>(&'a mut self, hw: &'a mut impl Mmio) -> impl FnMut(u16) -> u32 + 'a {
        move |offset| self.dword(hw, offset)
    }

    /// One register of the structure at `base`.
    pub(crate) fn read<R: Register>(&mut self, hw: &mut impl Mmio, base: u16) -> R {
        R::from_raw(self.narrow(hw, base.wrapping_add(R::SPEC.offset)))
    }

    /// The dword that a register lies in, from its first bit on.
    #[inline(never)]
    fn narrow(&mut self, hw: &mut impl Mmio, offset: u16) -> u32 {
        self.dword(hw, offset & !3) >> shift(offset)
    }

    /// Writes a dword. What the function made of it is not known afterwards.
    pub(crate) fn write_dword(&mut self, hw: &mut impl Mmio, offset: u16, value: u32) {
        self.forget(offset);
        let Block(address) = self.block(offset & !3);
        hw.write(address, value);
    }

    /// Writes a register of the header that does not fill its dword.
    pub(crate) fn write<R: Register>(&mut self, hw: &mut impl Mmio, acts: &Acts, value: R) {
        let offset = const { R::SPEC.offset & !3 };
        let dword = self.dword(hw, offset);
        self.write_dword(hw, offset, acts.beside(dword, value));
    }
}
