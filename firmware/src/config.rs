//! Configuration space through ECAM: dwords read once, and narrow registers written without
//! touching the one beside them.
//!
//! **Invariant**: a write to a narrow register writes 0 to every write-1-to-clear bit of the
//! registers that share its dword and the value just read to all their other bits, so a status that
//! was set before is set after (PCIe Base 6.x section 7.4; CXL r3.1 section 8.1.3).

use cxl_regs::access::{Class, Component, Features, Register, Spec};
use cxl_regs::block;
use cxl_regs::config::{Bdf, CONFIG_SIZE, Sbdf};

use crate::mmio::{Block, Mmio};
use crate::platform::{Ecam, RootBus};

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
    let at = R::SPEC.offset;
    let own = lane(&R::SPEC);
    let cleared = acted_on_at(siblings, at & !3);
    dword & !own & !cleared | value.raw() << shift(at) & own
}

/// Writes one register that does not fill its dword. `siblings` are the registers of its structure,
/// for example [`DeviceDvsec::REGISTERS`](cxl_regs::dvsec::device::DeviceDvsec::REGISTERS).
pub fn write<R: Register>(hw: &mut impl Mmio, structure: Block, siblings: &[Spec], value: R) {
    let address = structure.address::<R>();
    let dword = hw.read(address);
    hw.write(address, beside(siblings, dword, value));
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
pub fn acted_on_at(siblings: &[Spec], offset: u16) -> u32 {
    siblings
        .iter()
        .filter(|spec| spec.offset & !3 == offset)
        .fold(0, |mask, spec| mask | acted_on(spec) << shift(spec.offset))
}

/// Bits for which writing back what was read is an act: it clears or starts something. All kinds
/// of component and all features together, as 0 does nothing to such a bit in any of them.
fn acted_on(spec: &Spec) -> u32 {
    Component::ALL.into_iter().fold(0, |mask, component| {
        mask | spec.mask_of(component, Features::ALL, |class| {
            matches!(class, Class::Rw1c | Class::Rw1cs | Class::Trigger)
        })
    })
}

const DWORDS: usize = CONFIG_SIZE as usize / 4;

/// The configuration space of one function at a time; each dword is fetched at most once, unless
/// somebody wants it afresh. 4.2 KiB.
#[derive(Debug)]
pub(crate) struct Config {
    function: Sbdf,
    base: u64,
    known: [u64; DWORDS / 64],
    dwords: [u32; DWORDS],
}

impl Config {
    pub(crate) fn new() -> Self {
        Self { function: Sbdf::default(), base: 0, known: [0; DWORDS / 64], dwords: [0; DWORDS] }
    }

    /// Turns to another function, of which nothing is known yet. `bus_base` is its bus's.
    pub(crate) fn open(&mut self, bus_base: u64, function: Sbdf) {
        self.function = function;
        self.base = bus_base.wrapping_add(within_bus(function));
        self.known = [0; DWORDS / 64];
    }

    /// Which function this is.
    pub(crate) fn function(&self) -> Sbdf {
        self.function
    }

    /// The structure at an offset.
    pub(crate) fn block(&self, offset: u16) -> Block {
        Block(self.base.wrapping_add(u64::from(offset)))
    }

    /// The dword at an offset, fetched if it is not known yet.
    pub(crate) fn dword(&mut self, hw: &mut impl Mmio, offset: u16) -> u32 {
        let index = usize::from(offset / 4);
        let (word, bit) = (index / 64, 1 << (index % 64));
        let (Some(known), Some(slot)) = (self.known.get_mut(word), self.dwords.get_mut(index))
        else {
            return u32::MAX;
        };
        if *known & bit == 0 {
            *known |= bit;
            *slot = hw.read(self.base.wrapping_add(u64::from(offset & !3)));
        }
        *slot
    }

    fn forget(&mut self, offset: u16) {
        let index = usize::from(offset / 4);
        if let Some(known) = self.known.get_mut(index / 64) {
            *known &= !(1 << (index % 64));
        }
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
        block::read(self.reader(hw), base)
    }

    /// Writes a dword. What the function made of it is not known afterwards.
    pub(crate) fn write_dword(&mut self, hw: &mut impl Mmio, offset: u16, value: u32) {
        self.forget(offset);
        hw.write(self.base.wrapping_add(u64::from(offset & !3)), value);
    }

    /// Writes a register of the header that does not fill its dword.
    pub(crate) fn write<R: Register>(&mut self, hw: &mut impl Mmio, siblings: &[Spec], value: R) {
        let offset = R::SPEC.offset & !3;
        let dword = self.dword(hw, offset);
        self.write_dword(hw, offset, beside(siblings, dword, value));
    }
}
