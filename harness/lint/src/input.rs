//! What the linter looks at: a machine's registers and its table, as plain data.
//!
//! **Invariant**: nothing here is judged. What nobody knows is `None` or [`Registers::Unknown`],
//! which is not the same as a register that reads 0.

use cxl_regs::block;
use cxl_regs::dvsec::{self, DvsecId, Dvsecs};

use super::Unchecked;
use super::records::{MOST_RECORDS, Records, is_stand_in};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_model::machine::Machine;
use cxl_model::scenario::{BridgeVersion, DeviceKind, Place};

/// A machine as Linux finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The CEDT, header and all; `None` if nobody gave one.
    pub cedt: Option<Vec<u8>>,
    /// Host bridges in the order of the ACPI namespace.
    pub bridges: Vec<Bridge>,
    /// Root ports and switches' downstream ports.
    pub ports: Vec<Port>,
    /// Switches.
    pub switches: Vec<Switch>,
    /// Devices in the order in which they come up.
    pub devices: Vec<Device>,
    /// Whether the platform's PRM translates device addresses (GUID
    /// EE41B397-25D4-452C-AD54-48C6E3480B94); `None` if nobody said.
    pub prm: Option<bool>,
}

/// What is known of a component's decoders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registers {
    /// Nothing.
    #[default]
    Unknown,
    /// It has no component registers.
    NoBlock,
    /// It is a CXL 1.1 host, with these dwords in its RCRB: at 0x00, 0x04, 0x10 and 0x14.
    Rcrb([u32; 4]),
    /// It has component registers, and no HDM capability among them.
    NoHdm,
    /// It has these.
    Hdm(HdmImage),
}

impl Registers {
    pub(super) fn hdm(&self) -> Option<&HdmImage> {
        match self {
            Self::Hdm(image) => Some(image),
            _ => None,
        }
    }
}

/// A host bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// ACPI `_UID`; `None` if nobody said.
    pub uid: Option<u32>,
    /// Linux's name of it (`pci0000:0c`), if it is known.
    pub address: Option<String>,
    /// Its decoders.
    pub registers: Registers,
}

/// A root port or a switch's downstream port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Whose port it is.
    pub parent: Parent,
    /// PCIe Port Number (Link Capabilities 31:24).
    pub number: u8,
    /// PCI address (`0000:0c:00.0`), if it is known.
    pub address: Option<String>,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// The port it hangs below, an index into [`Input::ports`].
    pub port: usize,
    /// PCI address of the upstream port, if it is known.
    pub address: Option<String>,
    /// The upstream port's decoders.
    pub registers: Registers,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The port it hangs below, an index into [`Input::ports`]; `None` if nobody said.
    pub port: Option<usize>,
    /// PCI address, if it is known.
    pub address: Option<String>,
    /// Its decoders.
    pub registers: Registers,
    /// Its configuration space; `None` if nobody gave it.
    pub config: Option<Config>,
    /// Bytes of volatile and of persistent memory; `None` if nobody said.
    pub capacity: Option<(u64, u64)>,
    /// Memory Device Status (CXL r3.1 section 8.2.8.5.1.1); `None` if nobody gave it.
    pub status: Option<u32>,
}

/// What matters of a device's configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Class code.
    pub class: u32,
    /// The CXL Device DVSEC; `None` = the device has none, if [`Config::is_whole`].
    pub dvsec: Option<DeviceDvsec>,
    /// Its serial number; 0 = it has none, `None` = the dump does not reach that far.
    pub serial: Option<u64>,
}

/// The CXL Device DVSEC, as read (CXL r3.1 section 8.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceDvsec {
    /// Capability, offset 0x0A.
    pub capability: u16,
    /// Control, offset 0x0C.
    pub control: u16,
    /// Lock, offset 0x14: bit 0 is CONFIG_LOCK.
    pub lock: u16,
    /// Size High, Size Low, Base High and Base Low of both ranges, offset 0x18. What follows, from
    /// 0x38 on, is what Linux takes for a third range's where HDM_Count is 3.
    pub ranges: [[u32; 4]; 3],
}

impl DeviceDvsec {
    /// Out of the dwords from its header on.
    pub fn read(dword: impl Fn(u16) -> u32) -> Self {
        Self {
            capability: (dword(0x08) >> 16) as u16,
            control: dword(0x0C) as u16,
            lock: dword(0x14) as u16,
            ranges: [0x18, 0x28, 0x38].map(|at| [0, 4, 8, 12].map(|next| dword(at + next))),
        }
    }
}

/// The class code of a memory device with the standard mailbox; the driver takes no other.
pub(super) const MEMORY_DEVICE: u32 = 0x05_02_10;

impl Config {
    /// Out of configuration space; 4 KiB of it, or as much as there is.
    pub fn read(space: &[u8]) -> Self {
        let reader = block::image(space);
        let class = reader(0x08) >> 8;
        let found = Dvsecs::new(reader).find(DvsecId::Device).ok().flatten();
        let dvsec = found.map(|dvsec::Dvsec { offset, .. }| {
            DeviceDvsec::read(|at: u16| reader(offset.saturating_add(at)))
        });
        Self { class, dvsec, serial: serial(space) }
    }

    /// Whether it is known which DVSECs there are. They lie behind the first 256 bytes, and Linux shows
    /// whoever is not root 64 bytes only.
    pub fn is_whole(&self) -> bool {
        self.dvsec.is_some() || self.serial.is_some()
    }

    /// What is to be said of a memory device's configuration space that was shown without its DVSECs:
    /// nothing, as for one that nobody gave. Of another device the class code says something.
    pub(super) fn known(self) -> Option<Self> {
        (self.is_whole() || self.class != MEMORY_DEVICE).then_some(self)
    }
}

/// What to say of configuration space that was shown without its DVSECs, and what to do.
pub(super) fn shown_in_part(bytes: usize) -> String {
    format!(
        "{bytes} bytes of configuration space, and DVSECs lie behind the first 256 (`lspci -xxxx` as root \
         shows them)"
    )
}

impl Input {
    /// A machine as its registers are now, with the table that is handed over. Without a table it
    /// is the platform's own.
    pub fn of(machine: &Machine, cedt: &[u8]) -> Self {
        let scenario = machine.scenario();
        let fabric = machine.fabric();
        let map = machine.map();
        let registers = |hdm: Option<HdmImage>| hdm.map_or(Registers::NoHdm, Registers::Hdm);
        let bridges = fabric.bridges.iter().zip(&scenario.bridges).zip(&map.bridges);
        let bridges = bridges.enumerate().map(|(index, ((bridge, given), place))| Bridge {
            name: bridge.name.clone(),
            uid: Some(bridge.uid),
            address: Some(format!("pci{:04x}:{:02x}", given.segment, place.first_bus)),
            registers: match given.version {
                BridgeVersion::Cxl2 => registers(bridge.hdm.clone()),
                BridgeVersion::Cxl1 => {
                    Registers::Rcrb([0x00, 0x04, 0x10, 0x14].map(|offset| {
                        machine.rcrb(Place::Bridge(index), offset).unwrap_or(u32::MAX)
                    }))
                }
            },
        });
        let pci =
            |segment: u16, bus: u8, slot: u8| Some(format!("{segment:04x}:{bus:02x}:{slot:02x}.0"));
        let ports = fabric.ports.iter().zip(&map.ports).map(|(port, place)| Port {
            name: port.name.clone(),
            parent: port.parent,
            number: port.number,
            address: pci(place.segment, place.bus, place.slot),
        });
        let switches = fabric.switches.iter().zip(&map.switches).map(|(switch, place)| Switch {
            name: switch.name.clone(),
            port: switch.port,
            address: pci(place.segment, place.bus, 0),
            registers: registers(switch.hdm.clone()),
        });
        let devices = fabric.devices.iter().enumerate().zip(&scenario.devices);
        let devices = devices.filter(|((_, device), _)| device.present);
        let devices = devices.map(|((index, device), given)| {
            let place = Place::Device(index);
            let below = map.ports.get(device.port);
            let config = machine.function(place).map(|function| Config::read(function.bytes()));
            Device {
                name: device.name.clone(),
                port: Some(device.port),
                address: below.and_then(|port| pci(port.segment, port.secondary, 0)),
                registers: registers(device.hdm.clone()),
                config,
                capacity: Some((device.volatile, device.persistent)),
                status: (given.kind == DeviceKind::Type3).then_some(READY),
            }
        });
        let platform = || {
            let tables = cxl_model::acpi::Tables::new(scenario, map, cxl_model::layout::TABLES);
            tables.table(&tables.cedt).to_vec()
        };
        Self {
            cedt: Some(if cedt.is_empty() { platform() } else { cedt.to_vec() }),
            bridges: bridges.collect(),
            ports: ports.collect(),
            switches: switches.collect(),
            devices: devices.collect(),
            prm: None,
        }
    }

    /// Whether there is nothing that any rule is about.
    pub fn is_empty(&self) -> bool {
        let strange = |device: &Device| {
            let Device { registers, config, capacity, status, .. } = device;
            // What is no memory device, and has no sign of CXL.
            let other = |config: &Config| config.class != MEMORY_DEVICE && config.dvsec.is_none();
            *registers == Registers::Unknown
                && (capacity, status) == (&None, &None)
                && config.as_ref().is_some_and(other)
        };
        self.cedt.is_none()
            && self.bridges.is_empty()
            && self.ports.is_empty()
            && self.switches.is_empty()
            && self.devices.iter().all(strange)
    }

    /// What is missing for some of the rules.
    pub(super) fn gaps(&self) -> Vec<Unchecked> {
        let mut gaps = Vec::new();
        let mut gap = |missing: String, rules: &str| {
            gaps.push(Unchecked { missing, rules: rules.to_owned() });
        };
        if self.cedt.as_deref().is_some_and(|table| Records::of(table).more) {
            let behind = format!("CEDT records behind the first {MOST_RECORDS}");
            gap(behind, "windows and host bridges in them");
        }
        if self.cedt.as_deref().is_some_and(is_stand_in) {
            gap(
                "CEDT".to_owned(),
                "the table itself, host bridges' registers, arithmetic of windows",
            );
        }
        if self.cedt.is_none() {
            gap("CEDT".to_owned(), "windows, host bridges' registers, assembly of regions");
        }
        if self.cedt.is_some() && self.bridges.is_empty() {
            gap("host bridges".to_owned(), "targets of windows, everything below them");
        }
        for bridge in self.bridges.iter().filter(|bridge| bridge.uid.is_none()) {
            if self.cedt.is_some() {
                gap(format!("UID of {}", bridge.name), "its CHBS, windows that target it");
            }
        }
        let parents = (0..self.bridges.len()).map(Parent::Bridge);
        let parents = parents.chain((0..self.switches.len()).map(Parent::Switch));
        let names = self.bridges.iter().map(|bridge| &bridge.name);
        let names = names.chain(self.switches.iter().map(|switch| &switch.name));
        for (parent, name) in parents.zip(names) {
            if !self.ports.iter().any(|port| port.parent == parent) {
                gap(format!("ports of {name}"), "targets of its decoders");
            }
        }
        let components = self.bridges.iter().map(|bridge| (&bridge.name, &bridge.registers));
        let switches = self.switches.iter().map(|switch| (&switch.name, &switch.registers));
        for (name, registers) in components.chain(switches) {
            if *registers == Registers::Unknown {
                gap(format!("registers of {name}"), "its decoders, regions of devices below it");
            }
        }
        for device in &self.devices {
            let name = &device.name;
            if device.registers == Registers::Unknown {
                gap(format!("registers of {name}"), "its decoders");
            }
            if !device.config.as_ref().is_some_and(Config::is_whole) {
                gap(
                    format!("configuration space of {name}"),
                    "its DVSEC, and whether range registers count instead of decoders",
                );
            }
            if device.capacity.is_none() {
                gap(format!("capacity of {name}"), "device memory behind its decoders");
            }
            if device.port.is_none() && self.cedt.is_some() {
                gap(format!("place of {name}"), "assembly of its regions");
            }
        }
        gaps
    }
}

/// The serial number in configuration space (PCIe 6.0 section 7.9.3); 0 where there is none.
fn serial(space: &[u8]) -> Option<u64> {
    const SERIAL_NUMBER: u32 = 3;
    let dword = |at: usize| {
        let bytes = space.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let mut at = 0x100;
    // More capabilities than there is space for are a ring.
    for _ in 0..space.len() / 4 {
        let head = dword(at)?;
        if head & 0xFFFF == SERIAL_NUMBER {
            return Some(u64::from(dword(at + 8)?) << 32 | u64::from(dword(at + 4)?));
        }
        at = head as usize >> 20;
        if at < 0x100 || head == u32::MAX {
            return Some(0);
        }
    }
    Some(0)
}

/// Media ready, mailbox interfaces ready.
pub(super) const READY: u32 = 1 << 2 | 1 << 4;
