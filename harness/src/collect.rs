//! A machine with CXL as somebody finds it, and a bundle of files that says it all elsewhere.
//!
//! [`live`] looks at the Linux that this program runs on, [`outside`] at a QEMU through its qtest socket.
//! Both find the same things: tables, PCI functions, registers, what Linux shows. [`Found::files`] makes an
//! image set of them, which every reader here takes on any machine.
//!
//! **Invariant**: nothing is written and no driver is unbound; registers are read by aligned dwords, those
//! alone whose reads have no effect, and a bounded number of them. What could not be read is in
//! [`Found::withheld`], with what to do about it, and never a register that reads 0.

mod anonymous;
mod files;
pub mod live;
mod log;
pub mod outside;
mod pages;
mod root;
mod sysfs;

use std::collections::BTreeMap;

use cxl_lint::{Input, Withheld};
use cxl_model::dump::Options;
use cxl_regs::acpi::cedt::{Cedt, ChbsVersion, Record};
use cxl_regs::acpi::header::mend_checksum;
use cxl_regs::block;
use cxl_regs::component::{BLOCK_SIZE, RANGE_SIZE};
use cxl_regs::config::{Capabilities, CapabilityId, Command, PcieCapability, PortType, Sbdf};
use cxl_regs::dvsec::locator::{BlockId, Locations};
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::mailbox::{DeviceCapabilities, DeviceCapabilityId};
use cxl_regs::{Component, Hpa};

/// The most functions that are looked at, and the most host bridges.
const MAX_FUNCTIONS: usize = 1 << 16;
const MAX_ROOTS: usize = 1 << 10;
/// The class code of a memory device with the standard mailbox, with its interface.
const MEMORY_DEVICE: u32 = 0x05_02_10;
/// The dwords of an RCRB that tell what it is, as Linux reads them.
const RCRB_DWORDS: [u64; 4] = [0x00, 0x04, 0x10, 0x14];

/// A machine as it was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What it is: whose files these are.
    pub subject: String,
    /// The version of the Linux that ran there.
    pub kernel: Option<String>,
    /// ACPI tables by signature.
    pub tables: BTreeMap<String, Vec<u8>>,
    /// Host bridges.
    pub roots: Vec<Root>,
    /// PCI functions that have to do with CXL, whatever is above in front of what is below.
    pub functions: Vec<Function>,
    /// What Linux shows, by the name of a file.
    pub texts: BTreeMap<&'static str, String>,
    /// What could not be read.
    pub withheld: Vec<Withheld>,
    /// Serial numbers have been left out.
    pub anonymous: bool,
}

/// A host bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// As Linux calls its root bus (`pci0000:0c`); `None` if no bus is known to be its own.
    pub address: Option<String>,
    /// ACPI `_UID`.
    pub uid: Option<u32>,
    /// Its registers.
    pub registers: Registers,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub at: Sbdf,
    /// Its host bridge.
    pub root: usize,
    /// The function above it; `None` on a root bus.
    pub above: Option<usize>,
    /// Configuration space, as much as can be read.
    pub config: Vec<u8>,
    /// BARs by their register: first address and bytes.
    pub bars: BTreeMap<u8, (u64, Option<u64>)>,
    /// What Linux calls it: `mem0`.
    pub name: Option<String>,
    /// Why its registers are not to be read now.
    pub asleep: Option<String>,
    /// Its component registers.
    pub registers: Registers,
    /// Device registers: offsets and values.
    pub device: Vec<(u16, u32)>,
    /// The Memory Device Status dword.
    pub status: Option<u32>,
    /// Bytes of volatile and of persistent memory, as Linux says.
    pub capacity: Option<(u64, u64)>,
}

/// What was read of a component's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registers {
    /// Nothing.
    #[default]
    Unknown,
    /// It has none.
    None,
    /// Dwords of the RCRB of a CXL 1.1 host.
    Rcrb([u32; 4]),
    /// The CXL.cache/mem range.
    CacheMem(Vec<u8>),
}

/// What a function is on the way to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A root port, or a switch's downstream port, with its Port Number.
    Port(u8),
    /// A switch's upstream port.
    Switch,
    /// A device with a CXL Device DVSEC.
    Device,
    /// Something else.
    Other,
}

/// A block of registers.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Physical address.
    pub address: u64,
    /// The function and BAR that it lies in, and where.
    pub bar: Option<(Sbdf, u8, u64)>,
}

/// Whoever reads registers.
pub trait Access {
    /// A dword of a block; or why it cannot be read, and what to do.
    fn dword(&mut self, place: &Place, offset: u64) -> Result<u32, String>;
}

impl Function {
    /// One with this configuration space, of which nothing else is known.
    fn new(at: Sbdf, root: usize, above: Option<usize>, config: Vec<u8>) -> Self {
        Self {
            at,
            root,
            above,
            config,
            bars: BTreeMap::new(),
            name: None,
            asleep: None,
            registers: Registers::Unknown,
            device: vec![],
            status: None,
            capacity: None,
        }
    }

    fn role(&self) -> Role {
        let reader = block::image(&self.config);
        let express = Capabilities::new(reader).find(CapabilityId::PciExpress).ok().flatten();
        let express = express.map(|at| PcieCapability::read(reader, at));
        match express.map(|express| (express.port_type(), express.port_number())) {
            Some((PortType::RootPort | PortType::DownstreamPort, number)) => Role::Port(number),
            Some((PortType::UpstreamPort, _)) => Role::Switch,
            _ if has(&self.config, DvsecId::Device) => Role::Device,
            _ => Role::Other,
        }
    }

    /// The blocks of registers of one kind.
    fn block(&self, id: BlockId) -> Result<Option<Place>, String> {
        let reader = block::image(&self.config);
        let found = Dvsecs::new(reader).find(DvsecId::RegisterLocator);
        let Some(dvsec) = found.map_err(|error| error.to_string())? else { return Ok(None) };
        for location in Locations::new(&dvsec, reader).map_err(|error| error.to_string())? {
            let location = location.map_err(|error| error.to_string())?;
            if location.id != id {
                continue;
            }
            let bar = self.bars.get(&location.bar).copied();
            // Device registers say themselves how far they reach.
            let least = if id == BlockId::Component { BLOCK_SIZE.into() } else { 0x10 };
            let end = location.offset.checked_add(least);
            return match bar {
                Some((base, size)) if base != 0 => {
                    let fits = size.is_none_or(|size| end.is_some_and(|end| end <= size));
                    let address = base.checked_add(location.offset).filter(|_| fits);
                    let address = address.ok_or_else(|| {
                        format!(
                            "BAR {} has {:#x} bytes, and its registers are said to lie at {:#x}",
                            location.bar,
                            size.unwrap_or_default(),
                            location.offset
                        )
                    })?;
                    let bar = Some((self.at, location.bar, location.offset));
                    Ok(Some(Place { address, bar }))
                }
                _ => Err(format!("BAR {} has no address: nobody assigned it", location.bar)),
            };
        }
        Ok(None)
    }

    /// Why an access to a BAR would not be answered.
    fn deaf(&self) -> Option<String> {
        let command: Command = block::read(block::image(&self.config), 0);
        let off = (!command.memory_space()).then(|| {
            "Memory Space is off in its Command register, so that it answers no access; it is on once a \
             driver has been bound"
                .to_owned()
        });
        off.or_else(|| self.asleep.clone())
    }
}

/// Whether configuration space has one of CXL's DVSECs.
fn has(config: &[u8], id: DvsecId) -> bool {
    Dvsecs::new(block::image(config)).find(id).is_ok_and(|found| found.is_some())
}

/// Whether configuration space has any of CXL's DVSECs.
fn is_cxl(config: &[u8]) -> bool {
    Dvsecs::new(block::image(config)).next().is_some_and(|found| found.is_ok())
}

fn class(config: &[u8]) -> u32 {
    let read = block::image(config);
    read(0x08) >> 8
}

/// The host bridges of a CEDT: UID, version and base, legal records alone; and whether all of it could be
/// read.
fn host_bridges(table: &[u8]) -> (Vec<(u32, ChbsVersion, Hpa)>, Option<String>) {
    let mut copy = table.to_vec();
    // Linux looks at a table with a wrong checksum too.
    let _ = mend_checksum(&mut copy);
    let cedt = match Cedt::read(&copy) {
        Ok(cedt) => cedt,
        Err(error) => return (vec![], Some(error.to_string())),
    };
    let (mut bridges, mut wrong) = (Vec::new(), None);
    for raw in cedt.raw_records().take(MAX_ROOTS) {
        match raw.map_err(|error| error.to_string()) {
            Ok(raw) => {
                if let Ok(Record::Chbs(chbs)) = raw.judge() {
                    bridges.push((chbs.uid, chbs.version(), chbs.registers().base()));
                }
            }
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    (bridges, wrong)
}

impl Found {
    /// Whether there is anything of CXL.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.functions.is_empty() && !self.tables.contains_key("CEDT")
    }

    /// Adds the bridges that only the table knows, and reads all registers.
    fn registers(&mut self, access: &mut dyn Access) {
        let table = self.tables.get("CEDT").map(Vec::as_slice).unwrap_or_default();
        let (known, wrong) = if table.is_empty() { (vec![], None) } else { host_bridges(table) };
        for (uid, ..) in &known {
            if !self.roots.iter().any(|root| root.uid == Some(*uid)) {
                self.roots.push(Root { uid: Some(*uid), ..Root::default() });
            }
        }
        if let Some(why) = wrong {
            self.withhold("records of the CEDT".to_owned(), why);
        }
        for index in 0..self.roots.len() {
            self.bridge(index, &known, access);
        }
        let labels = self.labels();
        for (index, label) in labels.functions.iter().enumerate() {
            let Some(function) = self.functions.get(index) else { continue };
            match function.role() {
                Role::Switch => self.component(index, label, Component::UpstreamPort, access),
                Role::Device => {
                    self.component(index, label, Component::Device, access);
                    self.device(index, label, access);
                }
                Role::Port(_) | Role::Other => {}
            }
        }
    }

    fn withhold(&mut self, what: String, why: String) {
        let known = Withheld { what, why };
        if !self.withheld.contains(&known) {
            self.withheld.push(known);
        }
    }

    fn bridge(&mut self, index: usize, known: &[(u32, ChbsVersion, Hpa)], access: &mut dyn Access) {
        let name = self.labels().roots.get(index).cloned().unwrap_or_default();
        let Some(root) = self.roots.get(index) else { return };
        // Of two with one UID Linux takes the first.
        let record = root.uid.and_then(|uid| known.iter().find(|(other, ..)| *other == uid));
        let what = format!("registers of {name}");
        let Some(&(_, version, base)) = record else {
            let why = match root.uid {
                Some(uid) => {
                    format!("the CEDT has no CHBS of UID {uid}, which would say where they are")
                }
                None => {
                    "nothing says its UID, by which the CEDT would say where they are".to_owned()
                }
            };
            return self.withhold(what, why);
        };
        let place = Place { address: base.0, bar: None };
        let read = match version {
            ChbsVersion::Rch => {
                let dwords = RCRB_DWORDS.map(|offset| access.dword(&place, offset));
                let dwords: Result<Vec<u32>, String> = dwords.into_iter().collect();
                dwords.map(|dwords| {
                    Registers::Rcrb(std::array::from_fn(|at| dwords.get(at).copied().unwrap_or(0)))
                })
            }
            ChbsVersion::Chbcr => cache_mem(&place, Component::HostBridge, access),
        };
        match read {
            Ok(registers) => {
                if let Some(root) = self.roots.get_mut(index) {
                    root.registers = registers;
                }
            }
            Err(why) => self.withhold(format!("{what}, at {:#x}", place.address), why),
        }
    }

    fn component(
        &mut self,
        index: usize,
        name: &str,
        component: Component,
        access: &mut dyn Access,
    ) {
        let Some(function) = self.functions.get(index) else { return };
        let what = format!("registers of {name} ({})", function.at);
        let read = match function.block(BlockId::Component) {
            Ok(None) => Ok(Registers::None),
            Err(why) => Err(why),
            Ok(Some(place)) => match function.deaf() {
                Some(why) => Err(why),
                None => cache_mem(&place, component, access),
            },
        };
        match read {
            Ok(registers) => {
                if let Some(function) = self.functions.get_mut(index) {
                    function.registers = registers;
                }
            }
            Err(why) => self.withhold(what, why),
        }
    }

    /// Device registers without side effects: the capability array, Device Status, what the mailbox can do,
    /// Memory Device Status. Not the mailbox's control, command, status and payload: those are its driver's.
    fn device(&mut self, index: usize, name: &str, access: &mut dyn Access) {
        let Some(function) = self.functions.get(index) else { return };
        let what = format!("device registers of {name} ({})", function.at);
        let place = match function.block(BlockId::Device) {
            Ok(None) => return,
            Ok(Some(place)) => place,
            Err(why) => return self.withhold(what, why),
        };
        if let Some(why) = function.deaf() {
            return self.withhold(what, why);
        }
        let (mut dwords, mut failed) = (BTreeMap::new(), None);
        let status = {
            let mut read = |offset: u16| match access.dword(&place, offset.into()) {
                Ok(value) => {
                    dwords.insert(offset, value);
                    value
                }
                Err(why) => {
                    failed = Some(why);
                    u32::MAX
                }
            };
            device_registers(&mut read)
        };
        let wrong = failed.or_else(|| status.as_ref().err().cloned());
        if let Some(function) = self.functions.get_mut(index).filter(|_| wrong.is_none()) {
            function.device = dwords.into_iter().collect();
            function.status = status.ok().flatten();
        }
        if let Some(why) = wrong {
            self.withhold(what, why);
        }
    }
}

/// Reads what can be read of device registers; Memory Device Status, if there is one.
fn device_registers(read: &mut dyn FnMut(u16) -> u32) -> Result<Option<u32>, String> {
    // So many capabilities has no device.
    const MOST: usize = 64;
    let array = DeviceCapabilities::new(&mut *read).map_err(|error| error.to_string())?;
    let entries: Result<Vec<_>, _> = array.take(MOST).collect();
    let mut status = None;
    for entry in entries.map_err(|error| error.to_string())? {
        let dwords: u16 = match entry.id {
            DeviceCapabilityId::DeviceStatus | DeviceCapabilityId::MemoryDeviceStatus => 2,
            DeviceCapabilityId::PrimaryMailbox | DeviceCapabilityId::SecondaryMailbox => 1,
            _ => 0,
        };
        for dword in 0..dwords {
            let at = u16::try_from(entry.offset).ok().and_then(|at| at.checked_add(4 * dword));
            let Some(at) = at else { continue };
            let value = read(at);
            if entry.id == DeviceCapabilityId::MemoryDeviceStatus && dword == 0 {
                status = Some(value);
            }
        }
    }
    Ok(status)
}

/// The CXL.cache/mem range of a block; what no reader here would take is not taken for registers.
fn cache_mem(
    place: &Place,
    component: Component,
    access: &mut dyn Access,
) -> Result<Registers, String> {
    let dwords = (0..u64::from(RANGE_SIZE)).step_by(4);
    let dwords = dwords.map(|offset| access.dword(place, u64::from(RANGE_SIZE) + offset));
    let dwords: Vec<u32> = dwords.collect::<Result<_, _>>()?;
    let bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
    let options = Options { kind: None, component: Some(component), force: false };
    match Input::dump(&bytes, options) {
        Ok(_) => Ok(Registers::CacheMem(bytes)),
        Err(_) => {
            let first = dwords.first().copied().unwrap_or_default();
            Err(format!(
                "at {:#x} there are no component registers: expected a CXL Capability Header, found \
                 {first:#010x}",
                place.address + u64::from(RANGE_SIZE)
            ))
        }
    }
}

/// What everything is called in a bundle.
#[derive(Debug, Default)]
struct Labels {
    roots: Vec<String>,
    functions: Vec<String>,
}

impl Found {
    /// Names: Linux's for memory devices that it knows, and numbers for all else.
    fn labels(&self) -> Labels {
        let roots = (0..self.roots.len()).map(|index| format!("hb{index}")).collect();
        let taken: Vec<&str> =
            self.functions.iter().filter_map(|function| function.name.as_deref()).collect();
        let (mut ports, mut switches, mut devices, mut others) =
            (0usize.., 0usize.., 0.., 0usize..);
        let functions = self.functions.iter().map(|function| {
            let next = |kind: &str, numbers: &mut std::ops::RangeFrom<usize>| {
                let number = numbers.next().unwrap_or_default();
                format!("{kind}{number}")
            };
            match (function.role(), &function.name) {
                (Role::Device, Some(name)) => name.clone(),
                (Role::Device, None) => {
                    let mut name = next("mem", &mut devices);
                    while taken.contains(&name.as_str()) {
                        name = next("mem", &mut devices);
                    }
                    name
                }
                (Role::Port(_), _) => next("port", &mut ports),
                (Role::Switch, _) => next("switch", &mut switches),
                (Role::Other, _) => next("function", &mut others),
            }
        });
        Labels { roots, functions: functions.collect() }
    }
}
