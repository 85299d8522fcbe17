//! Hardware for discovery tests: functions with registers typed by hand as QEMU 11.1 shows them,
//! routed by the bus numbers, windows and BARs that they hold.
//!
//! **Invariant**: nothing here comes from the library: offsets, masks and values are numbers. An
//! access that is not an aligned dword panics, and every read is counted.

use std::collections::BTreeMap;

use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::platform::{Bridge, BridgeKind, Ecam, Platform, Resources, RootBus};
use cxl_regs::{Hpa, Span};

/// A register: its value, the bits that can be written, the bits that writing 1 clears.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reg {
    pub(crate) value: u32,
    pub(crate) rw: u32,
    pub(crate) rw1c: u32,
}

pub(crate) fn ro(value: u32) -> Reg {
    Reg { value, ..Reg::default() }
}

impl Reg {
    fn write(&mut self, new: u32) {
        self.value = (self.value & !self.rw | new & self.rw) & !(new & self.rw1c);
    }
}

pub(crate) type Registers = BTreeMap<u64, Reg>;

/// A function: below which port, at which device and function number, with what registers.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Index of the port above; `Err` holds the root bus.
    pub(crate) above: Result<usize, u8>,
    pub(crate) devfn: u8,
    pub(crate) config: Registers,
    /// Register blocks: which BAR, offset into it, registers.
    pub(crate) blocks: Vec<(u8, u64, Registers)>,
}

/// Address and value of a write, and the values that registers take then.
pub(crate) type Reaction = (u64, u32, Vec<(u64, u32)>);

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) functions: Vec<Function>,
    /// Registers that are not behind a BAR.
    pub(crate) fixed: Registers,
    pub(crate) reads: BTreeMap<u64, u32>,
    pub(crate) writes: Vec<(u64, u32)>,
    /// Somebody sized a BAR while Memory Space was on.
    pub(crate) sized_live: bool,
    /// Registers that change by themselves: after so many reads of the address, it reads so.
    pub(crate) later: BTreeMap<u64, (u32, u32)>,
    /// Registers that answer a write of one register with other values.
    pub(crate) reactions: Vec<Reaction>,
    /// Memory: where in it an address leads, and what is there; 0 where nothing was written.
    pub(crate) route: Option<fn(u64) -> Option<u64>>,
    pub(crate) cells: BTreeMap<u64, u32>,
}

pub(crate) const ECAM: u64 = 0xb000_0000;
pub(crate) const BRIDGE: u64 = 0x3_c000_0000;

enum At {
    Config(usize, u64),
    Block(usize, usize, u64),
    Fixed(u64),
}

impl Fake {
    fn get(&self, index: usize, offset: u64) -> u32 {
        self.functions[index].config.get(&offset).map_or(0, |reg| reg.value)
    }

    fn bus_of(&self, index: usize) -> u8 {
        match self.functions[index].above {
            Err(root) => root,
            Ok(port) => (self.get(port, 0x18) >> 8) as u8,
        }
    }

    /// Whether memory accesses to the address get to the function.
    fn forwarded(&self, index: usize, address: u64) -> bool {
        if self.get(index, 0x04) & 2 == 0 {
            return false;
        }
        let Ok(port) = self.functions[index].above else { return true };
        let (memory, low) = (self.get(port, 0x20), self.get(port, 0x24));
        let base = u64::from(memory & 0xfff0) << 16;
        let limit = u64::from(memory & 0xfff0_0000) | 0xf_ffff;
        let wide_base = u64::from(self.get(port, 0x28)) << 32 | u64::from(low & 0xfff0) << 16;
        let wide_limit =
            u64::from(self.get(port, 0x2c)) << 32 | u64::from(low & 0xfff0_0000) | 0xf_ffff;
        let passes =
            (base..=limit).contains(&address) || (wide_base..=wide_limit).contains(&address);
        passes && self.get(port, 0x04) & 2 != 0 && self.forwarded(port, address)
    }

    fn find(&self, address: u64) -> Option<At> {
        assert_eq!(address % 4, 0, "unaligned access at {address:#x}");
        if (ECAM..ECAM + 0x1000_0000).contains(&address) {
            let (bus, devfn) = ((address - ECAM) >> 20, (address >> 12) as u8);
            let index = (0..self.functions.len()).find(|&index| {
                self.functions[index].devfn == devfn && u64::from(self.bus_of(index)) == bus
            })?;
            return Some(At::Config(index, address & 0xfff));
        }
        for (index, function) in self.functions.iter().enumerate() {
            for (place, (bar, offset, registers)) in function.blocks.iter().enumerate() {
                let bar = 0x10 + 4 * u64::from(*bar);
                let base = u64::from(self.get(index, bar + 4)) << 32
                    | u64::from(self.get(index, bar) & 0xffff_fff0);
                let here = address.wrapping_sub(base + offset);
                if base != 0 && registers.contains_key(&here) && self.forwarded(index, address) {
                    return Some(At::Block(index, place, here));
                }
            }
        }
        self.fixed.contains_key(&address).then_some(At::Fixed(address))
    }

    fn reg(&mut self, address: u64) -> Option<&mut Reg> {
        match self.find(address)? {
            // A function answers 0 where it has no register.
            At::Config(index, offset) => {
                Some(self.functions[index].config.entry(offset).or_default())
            }
            At::Block(index, block, offset) => {
                self.functions[index].blocks[block].2.get_mut(&offset)
            }
            At::Fixed(address) => self.fixed.get_mut(&address),
        }
    }

    pub(crate) fn most_reads(&self) -> (u64, u32) {
        self.reads.iter().map(|(a, n)| (*a, *n)).max_by_key(|(_, n)| *n).unwrap_or_default()
    }
}

impl Mmio for Fake {
    fn read(&mut self, address: u64) -> u32 {
        let count = self.reads.entry(address).or_default();
        *count += 1;
        if let Some(&(after, value)) = self.later.get(&address)
            && *count > after
        {
            return value;
        }
        if let Some(cell) = self.route.and_then(|route| route(address)) {
            return self.cells.get(&cell).copied().unwrap_or(0);
        }
        self.reg(address).map_or(u32::MAX, |reg| reg.value)
    }

    fn write(&mut self, address: u64, value: u32) {
        if let Some(cell) = self.route.and_then(|route| route(address)) {
            self.cells.insert(cell, value);
            return;
        }
        self.writes.push((address, value));
        if let Some(At::Config(index, 0x10..=0x24)) = self.find(address)
            && value == u32::MAX
        {
            self.sized_live |= self.get(index, 0x04) & 2 != 0;
        }
        if let Some(reg) = self.reg(address) {
            reg.write(value);
        }
        for (trigger, wanted, answers) in self.reactions.clone() {
            if trigger == address && wanted == value {
                for (at, value) in answers {
                    self.reg(at).expect("a register that reacts exists").value = value;
                }
            }
        }
    }
}

/// A clock that goes on by a fixed step whenever somebody looks.
pub(crate) struct Ticks(pub(crate) u64, pub(crate) u64);

impl Clock for Ticks {
    fn microseconds(&mut self) -> u64 {
        self.0 += self.1;
        self.0
    }
}

pub(crate) fn clock() -> Ticks {
    Ticks(0, 500)
}

/// Writes dwords from an offset on.
pub(crate) fn put(registers: &mut Registers, offset: u64, values: &[u32]) {
    for (index, value) in values.iter().enumerate() {
        registers.insert(offset + 4 * index as u64, ro(*value));
    }
}

/// A 64-bit BAR of 64 KiB at an address; 0 is one that nobody assigned.
fn bar(registers: &mut Registers, offset: u64, address: u64) {
    let low = Reg { value: address as u32 | 0x4, rw: 0xffff_0000, rw1c: 0 };
    registers.insert(offset, low);
    let high = Reg { value: (address >> 32) as u32, rw: 0xffff_ffff, rw1c: 0 };
    registers.insert(offset + 4, high);
}

/// Command and status: Memory Space and Bus Master as given; all error bits of the status set, so
/// that a careless write can be seen.
fn command(value: u32) -> Reg {
    Reg { value: 0xf910_0000 | value, rw: 0x0547, rw1c: 0xf900_0000 }
}

/// The component block of an endpoint or upstream port: RAS, Link, HDM at 0x128.
pub(crate) fn component(hdm: u32) -> Registers {
    let mut block = Registers::new();
    put(&mut block, 0x1000, &[0x0311_0001, 0x0802_0002, 0x0d82_0004, 0x1281_0005]);
    put(&mut block, 0x1128, &[hdm]);
    block
}

/// A CXL endpoint as QEMU's cxl-type3 with 256 MiB: component registers in BAR 0, and, where given,
/// device registers in BAR 2.
pub(crate) fn endpoint(above: usize, address: u64, device: Option<Registers>) -> Function {
    let mut config = Registers::new();
    put(&mut config, 0x00, &[0x0d93_8086]);
    config.insert(0x04, command(0x6));
    put(&mut config, 0x08, &[0x0502_1001, 0]);
    bar(&mut config, 0x10, address);
    put(&mut config, 0x34, &[0x80]);
    put(&mut config, 0x80, &[0x0002_0010]);
    // CXL device DVSEC: control is writable, Viral in its status clears on 1.
    put(&mut config, 0x100, &[0x13c1_0023, 0x03c3_1e98, 0x001e_0000]);
    config.insert(0x10c, Reg { value: 0x4000_0002, rw: 0x0000_4ffd, rw1c: 0x4000_0000 });
    put(&mut config, 0x110, &[0x0002_0000, 0, 0, 0x1000_004b]);
    // Register locator: component registers in BAR 0, device registers in BAR 2, an empty entry.
    put(&mut config, 0x13c, &[0x1601_0023, 0x0240_1e98, 0x0000_0008, 0x0000_0100]);
    // Flex Bus.
    put(&mut config, 0x160, &[0x0001_0023, 0x0202_1e98, 0x0026_0007, 0x0026_0002]);
    let mut blocks = vec![(0, 0, component(0x0000_1b12))];
    if let Some(device) = device {
        bar(&mut config, 0x18, if address == 0 { 0 } else { address + 0x1_0000 });
        put(&mut config, 0x150, &[0x0000_0302]);
        blocks.push((2, 0, device));
    }
    Function { above: Ok(above), devfn: 0, config, blocks }
}

/// What a port gets from the board; all 0 is nothing.
#[derive(Clone, Copy, Default)]
pub(crate) struct Assigned {
    pub(crate) primary: u8,
    pub(crate) secondary: u8,
    pub(crate) subordinate: u8,
    /// BAR 0.
    pub(crate) bar: u64,
    /// First and last MiB of the memory window, as address bits 31:20.
    pub(crate) window: (u16, u16),
}

/// A type 1 function with a PCIe capability of this type and port number.
fn port(
    above: Result<usize, u8>,
    devfn: u8,
    id: u32,
    kind: u32,
    number: u8,
    a: Assigned,
) -> Function {
    let mut config = Registers::new();
    put(&mut config, 0x00, &[id]);
    config.insert(0x04, command(if a.secondary == 0 { 0 } else { 0x6 }));
    put(&mut config, 0x08, &[0x0604_0000, 0x0001_0000]);
    bar(&mut config, 0x10, a.bar);
    let buses = u32::from_le_bytes([a.primary, a.secondary, a.subordinate, 0]);
    config.insert(0x18, Reg { value: buses, rw: 0x00ff_ffff, rw1c: 0 });
    config.insert(0x1c, Reg { value: 0xf900_0000, rw: 0xf0f0, rw1c: 0xf900_0000 });
    let window = u32::from(a.window.1) << 20 | u32::from(a.window.0) << 4;
    config.insert(0x20, Reg { value: window, rw: 0xfff0_fff0, rw1c: 0 });
    let closed = if a.secondary == 0 { 0x0001_0001 } else { 0x0001_fff1 };
    config.insert(0x24, Reg { value: closed, rw: 0xfff0_fff0, rw1c: 0 });
    config.insert(0x28, Reg { value: 0, rw: !0, rw1c: 0 });
    config.insert(0x2c, Reg { value: 0, rw: !0, rw1c: 0 });
    put(&mut config, 0x34, &[0x90]);
    put(&mut config, 0x90, &[0x0002_0010 | kind << 20, 0, 0, u32::from(number) << 24 | 0x411]);
    Function { above, devfn, config, blocks: Vec::new() }
}

/// A root port. Its component block shows an HDM capability that must be ignored, in an array with
/// a hole.
pub(crate) fn root_port(bus: u8, devfn: u8, number: u8, assigned: Assigned) -> Function {
    let mut f = port(Err(bus), devfn, 0x7075_8086, 4, number, assigned);
    downstream_dvsecs(&mut f.config);
    f.blocks.push((0, 0, root_port_block()));
    f
}

fn root_port_block() -> Registers {
    let mut block = component(0x0000_0312);
    put(&mut block, 0x1000, &[0x0711_0001, 0x0802_0002, 0x0d82_0004, 0x1281_0005]);
    put(&mut block, 0x1010, &[0x1f01_0000, 0x1401_0008, 0x0000_0000, 0x2401_000c]);
    put(&mut block, 0x1240, &[0, 0, 0]);
    block
}

/// AER, extensions for ports, Flex Bus, register locator.
fn downstream_dvsecs(config: &mut Registers) {
    put(config, 0x100, &[0x1481_0001]);
    put(config, 0x148, &[0x1801_0023, 0x0280_1e98, 0x0000_0003]);
    put(config, 0x180, &[0x1a81_0023, 0x0202_1e98, 0x0026_0007, 0x0026_0002]);
    put(config, 0x1a8, &[0x0001_0023, 0x0140_1e98, 0x0000_0008, 0x0000_0100]);
}

/// A switch's upstream port, with decoders and a BI route table.
pub(crate) fn upstream_port(above: usize, assigned: Assigned) -> Function {
    let mut f = port(Ok(above), 0, 0xa128_19e5, 5, 0, assigned);
    put(&mut f.config, 0x100, &[0x1901_0001]);
    put(&mut f.config, 0x190, &[0x0001_0023, 0x0140_1e98, 0x0000_0008, 0x0000_0100]);
    // The locator is the last; Flex Bus in front of it.
    put(&mut f.config, 0x100, &[0x1701_0001]);
    put(&mut f.config, 0x170, &[0x1901_0023, 0x0202_1e98, 0x0026_0007, 0x0026_0002]);
    let mut block = component(0x0000_0382);
    put(&mut block, 0x1000, &[0x0411_0001]);
    put(&mut block, 0x1010, &[0x2401_000b]);
    put(&mut block, 0x1240, &[0, 0, 0]);
    f.blocks.push((0, 0, block));
    f
}

/// A switch's downstream port.
pub(crate) fn downstream_port(above: usize, devfn: u8, number: u8, assigned: Assigned) -> Function {
    let mut f = port(Ok(above), devfn, 0xa129_19e5, 6, number, assigned);
    downstream_dvsecs(&mut f.config);
    f.blocks.push((0, 0, root_port_block()));
    f
}

/// A host bridge's component registers with four decoders and eight targets; the array starts with
/// a hole whose other bits are set.
pub(crate) fn bridge_registers(at: u64) -> Registers {
    let mut block = Registers::new();
    put(&mut block, at + 0x1000, &[0x0511_0001, 0x0803_0000, 0x0d82_0004, 0x1281_0005]);
    put(&mut block, at + 0x1010, &[0, 0]);
    put(&mut block, at + 0x1128, &[0x0000_0382]);
    block
}

pub(crate) fn bridge(uid: u32, root: Option<u8>, index: u64) -> Bridge {
    Bridge {
        uid,
        kind: BridgeKind::ComponentRegisters,
        registers: Hpa(BRIDGE + index * 0x1_0000),
        root: root.map(|bus| RootBus { segment: 0, bus }),
    }
}

pub(crate) const ALL_BUSES: [Ecam; 1] =
    [Ecam { base: Hpa(ECAM), segment: 0, first_bus: 0, last_bus: 255 }];

pub(crate) fn platform<'a>(bridges: &'a [Bridge], resources: &'a [Resources]) -> Platform<'a> {
    Platform {
        ecam: &ALL_BUSES,
        bridges,
        windows: &[],
        address_bits: 46,
        resources,
        occupied: &[],
        unreadable: &[],
    }
}

/// One bridge (UID 12, bus 12), a root port with number 3 at 0c:00.0, an endpoint at 0d:00.0.
pub(crate) fn small() -> (Fake, [Bridge; 1]) {
    let assigned = Assigned {
        primary: 12,
        secondary: 13,
        subordinate: 13,
        bar: 0xfe90_0000,
        window: (0xfe8, 0xfe8),
    };
    let functions = vec![root_port(12, 0, 3, assigned), endpoint(0, 0xfe80_0000, None)];
    let fixed = bridge_registers(BRIDGE);
    (Fake { functions, fixed, ..Fake::default() }, [bridge(12, Some(12), 0)])
}

/// One bridge, a root port, a switch with two downstream ports (numbers 7 and 5, in this order), an
/// endpoint behind each.
pub(crate) fn switched(blank: bool) -> (Fake, [Bridge; 1]) {
    let a = |primary, secondary, subordinate, bar, window| {
        if blank {
            Assigned::default()
        } else {
            Assigned { primary, secondary, subordinate, bar, window }
        }
    };
    let e = |address| if blank { 0 } else { address };
    let mut functions = vec![
        root_port(12, 0, 0, a(12, 13, 16, 0xfe90_0000, (0xfe0, 0xfe8))),
        upstream_port(0, a(13, 14, 16, 0xfe80_0000, (0xfe0, 0xfe7))),
        downstream_port(1, 0x00, 7, a(14, 15, 15, 0xfe70_0000, (0xfe1, 0xfe1))),
        downstream_port(1, 0x08, 5, a(14, 16, 16, 0xfe71_0000, (0xfe2, 0xfe2))),
        endpoint(2, e(0xfe10_0000), None),
        endpoint(3, e(0xfe20_0000), None),
    ];
    if blank {
        for function in &mut functions {
            function.config.insert(0x04, command(0));
        }
    }
    let fixed = bridge_registers(BRIDGE);
    (Fake { functions, fixed, ..Fake::default() }, [bridge(12, Some(12), 0)])
}

/// The address of a dword of configuration space.
pub(crate) fn ecam(bus: u8, devfn: u8, offset: u64) -> u64 {
    ECAM + (u64::from(bus) << 20) + (u64::from(devfn) << 12) + offset
}

/// What may be assigned below a bridge.
pub(crate) fn resources(uid: u32, base: u64, size: u64) -> Resources {
    Resources { uid, span: Span::new(Hpa(base), size).expect("a range") }
}
