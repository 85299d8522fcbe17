//! What is there, read from outside by the shortest way: no discovery, no codec of the library.
//!
//! Offsets are those of PCI (header, capability lists), CXL r3.1 sections 8.1.3, 8.1.9, 8.2.3 and
//! 8.2.4, and ACPI 6.5 sections 5.2.5 to 5.2.8, typed here.
//!
//! **Invariant**: only reads.

#![allow(dead_code, reason = "each test binary uses a part")]

use cxl_harness::qemu::qtest::{Qtest, Width};

/// Where SeaBIOS puts configuration space on this machine.
const ECAM: u64 = 0xB000_0000;
/// Bytes of the blob that all tables lie in (QEMU `include/hw/acpi/aml-build.h`).
const TABLES: u64 = 0x2_0000;
const NOBODY: u32 = 0xFFFF_FFFF;

/// A decoder in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoder {
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) control: u32,
    pub(crate) route: [u32; 2],
}

/// What else of a device matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// HDM Decoder Global Control.
    pub(crate) global: u32,
    /// DVSEC CXL Control and Lock.
    pub(crate) control: u32,
    pub(crate) lock: u32,
    /// DVSEC CXL Range 1 Base.
    pub(crate) range_base: u64,
}

/// A component with an HDM structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    /// Bus number of the bridge, then device numbers on the way down.
    pub(crate) path: Vec<u8>,
    /// Decoders whose Control says Commit or Committed.
    pub(crate) used: Vec<Decoder>,
    /// The seven dwords of the others.
    pub(crate) spare: Vec<[u32; 7]>,
    pub(crate) device: Option<Device>,
}

/// The CEDT that an operating system finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cedt {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
    /// Root table and CEDT add up to 0.
    pub(crate) sums: bool,
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The records of a CEDT with this type.
fn records(cedt: &[u8], kind: u8) -> Vec<Vec<u8>> {
    let (mut rest, mut found) = (&cedt[36..], Vec::new());
    while let [type_, _, low, high, ..] = rest {
        let (record, behind) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        if *type_ == kind {
            found.push(record.to_vec());
        }
        rest = behind;
    }
    found
}

impl Cedt {
    /// Bases of its windows, in order of address.
    pub(crate) fn windows(&self) -> Vec<u64> {
        bases(&records(&self.bytes, 1))
    }
}

fn bases(windows: &[Vec<u8>]) -> Vec<u64> {
    let base = |window: &Vec<u8>| u64::from_le_bytes(window[8..16].try_into().unwrap());
    let mut bases: Vec<u64> = windows.iter().map(base).collect();
    bases.sort_unstable();
    bases
}

/// A machine from outside.
pub(crate) struct Outside<'a> {
    qtest: &'a mut Qtest,
    /// Where configuration space is.
    ecam: u64,
    /// The CEDT that says where bridges and windows are; else it is QEMU's, as SeaBIOS keeps it.
    cedt: Option<Vec<u8>>,
}

impl<'a> Outside<'a> {
    pub(crate) fn new(qtest: &'a mut Qtest) -> Self {
        Self { qtest, ecam: ECAM, cedt: None }
    }

    /// One that has no SeaBIOS.
    pub(crate) fn bare(qtest: &'a mut Qtest, ecam: u64, cedt: Vec<u8>) -> Self {
        Self { qtest, ecam, cedt: Some(cedt) }
    }

    fn read(&mut self, address: u64) -> u32 {
        self.qtest.load(address, Width::Four).unwrap() as u32
    }

    fn bytes(&mut self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.qtest.read_memory(address, &mut bytes).unwrap();
        bytes
    }

    /// Address of the RSDT that the RSDP names.
    fn root(&mut self) -> u64 {
        let low = self.bytes(0xE_0000, 0x2_0000);
        let at = low.chunks(16).position(|chunk| chunk.starts_with(b"RSD PTR ")).unwrap();
        let rsdp = &low[16 * at..16 * at + 20];
        assert_eq!((rsdp[15], sum(rsdp)), (0, 0), "SeaBIOS leaves revision 0");
        u32::from_le_bytes(rsdp[16..20].try_into().unwrap()).into()
    }

    /// RSDP → RSDT → CEDT.
    pub(crate) fn installed_cedt(&mut self) -> Cedt {
        let root = self.root();
        let length = self.read(root + 4) as usize;
        let table = self.bytes(root, length);
        let mut sums = sum(&table) == 0;
        let entries = table[36..].chunks_exact(4);
        let entries: Vec<u64> =
            entries.map(|e| u32::from_le_bytes(e.try_into().unwrap()).into()).collect();
        let cedts: Vec<u64> =
            entries.into_iter().filter(|at| self.bytes(*at, 4) == *b"CEDT").collect();
        let [address] = cedts[..] else { panic!("CEDTs at {cedts:x?}") };
        let length = self.read(address + 4) as usize;
        let bytes = self.bytes(address, length);
        sums &= sum(&bytes) == 0;
        Cedt { address, bytes, sums }
    }

    /// The CEDT that QEMU made: SeaBIOS keeps it with all other tables, in front of the root table.
    fn platform_cedt(&mut self) -> Vec<u8> {
        if let Some(cedt) = &self.cedt {
            return cedt.clone();
        }
        let root = self.root();
        let blob = self.bytes(root - TABLES, TABLES as usize);
        let whole = |at: usize| {
            let length = u32::from_le_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
            let table = blob.get(at..at + length)?;
            (sum(table) == 0).then(|| table.to_vec())
        };
        let places = (0..blob.len() - 36).filter(|at| blob[*at..].starts_with(b"CEDT"));
        places.filter_map(whole).next().expect("QEMU's CEDT")
    }

    /// Records of QEMU's CEDT with this type.
    fn records(&mut self, kind: u8) -> Vec<Vec<u8>> {
        records(&self.platform_cedt(), kind)
    }
    /// Bases of the windows that QEMU says there are, in order of address.
    pub(crate) fn windows(&mut self) -> Vec<u64> {
        bases(&self.records(1))
    }

    /// Every component, with its decoders.
    pub(crate) fn components(&mut self) -> Vec<Component> {
        let mut found = Vec::new();
        for record in self.records(0) {
            let uid = record[4];
            let block = u64::from_le_bytes(record[16..24].try_into().unwrap());
            found.extend(self.component(block, vec![uid], None));
            // QEMU's UID is the root bus's number.
            self.bus(uid, &[uid], &mut found);
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }

    fn bus(&mut self, bus: u8, path: &[u8], found: &mut Vec<Component>) {
        for device in 0..32u8 {
            let function = self.ecam + (u64::from(bus) << 20) + (u64::from(device) << 15);
            if self.read(function) == NOBODY {
                continue;
            }
            // A port is on the way by its number, a device by its own.
            let port = self.port_number(function);
            let mut path = path.to_vec();
            path.push(port.unwrap_or(device));
            let bar = self.read(function + 0x10);
            let high = if bar & 0x4 != 0 { self.read(function + 0x14) } else { 0 };
            let block = u64::from(high) << 32 | u64::from(bar & !0xF);
            let dvsec = self.device_dvsec(function);
            let upstream = self.pcie(function).is_some_and(|(_, kind)| kind == 5);
            if dvsec.is_some() || upstream {
                found.extend(self.component(block, path.clone(), dvsec));
            }
            if self.read(function + 0xC) >> 16 & 0x7F == 1 {
                let below = self.read(function + 0x18) >> 8 & 0xFF;
                self.bus(below as u8, &path, found);
            }
        }
    }

    /// Offset of the PCI Express capability, and the type of the function.
    fn pcie(&mut self, function: u64) -> Option<(u64, u32)> {
        let mut at = self.read(function + 0x34) & 0xFC;
        for _ in 0..48 {
            if at == 0 {
                break;
            }
            let header = self.read(function + u64::from(at));
            if header & 0xFF == 0x10 {
                return Some((at.into(), header >> 20 & 0xF));
            }
            at = header >> 8 & 0xFC;
        }
        None
    }

    /// Link Capabilities 31:24 of a root or downstream port.
    fn port_number(&mut self, function: u64) -> Option<u8> {
        let (at, kind) = self.pcie(function)?;
        matches!(kind, 4 | 6).then(|| (self.read(function + at + 0xC) >> 24) as u8)
    }

    /// The DVSEC of vendor 0x1E98 with ID 0.
    fn device_dvsec(&mut self, function: u64) -> Option<u64> {
        let mut at = 0x100;
        for _ in 0..128 {
            let header = self.read(function + at);
            let (vendor, id) = (self.read(function + at + 4), self.read(function + at + 8));
            if header & 0xFFFF == 0x23 && vendor & 0xFFFF == 0x1E98 && id & 0xFFFF == 0 {
                return Some(function + at);
            }
            at = u64::from(header >> 20 & 0xFFC);
            if at == 0 {
                break;
            }
        }
        None
    }

    /// `None` without an HDM decoder capability.
    fn component(&mut self, block: u64, path: Vec<u8>, dvsec: Option<u64>) -> Option<Component> {
        let array = block + 0x1000;
        let count = self.read(array) >> 24;
        let entries = (1..=u64::from(count)).map(|index| array + 4 * index);
        let entries: Vec<u32> = entries.map(|entry| self.read(entry)).collect();
        let entry = entries.into_iter().find(|entry| entry & 0xFFFF == 5)?;
        let hdm = array + u64::from(entry >> 20);
        // Decoder Count, of the codes that QEMU has.
        let decoders = match self.read(hdm) & 0xF {
            0 => 1,
            code => 2 * u64::from(code),
        };
        let (mut used, mut spare) = (Vec::new(), Vec::new());
        for index in 0..decoders {
            let at = hdm + 0x10 + 0x20 * index;
            let dwords: Vec<u32> = (0..7).map(|dword| self.read(at + 4 * dword)).collect();
            let [base, base_high, size, size_high, control, low, high] = dwords[..] else {
                panic!()
            };
            if control & 0x600 == 0 {
                spare.push(dwords.try_into().unwrap());
                continue;
            }
            used.push(Decoder {
                base: u64::from(base_high) << 32 | u64::from(base),
                size: u64::from(size_high) << 32 | u64::from(size),
                control,
                route: [low, high],
            });
        }
        let device = dvsec.map(|dvsec| Device {
            global: self.read(hdm + 4),
            control: self.read(dvsec + 0x0C) & 0xFFFF,
            lock: self.read(dvsec + 0x14) & 0xFFFF,
            range_base: u64::from(self.read(dvsec + 0x20)) << 32
                | u64::from(self.read(dvsec + 0x24)),
        });
        Some(Component { path, used, spare, device })
    }
}
