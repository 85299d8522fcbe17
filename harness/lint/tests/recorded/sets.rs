//! Broken sets, made of a machine with nothing wrong: each field of each record and of each register is
//! given other values, one at a time, and a few things are wrong together.
//!
//! **Invariant**: a set follows from the machine alone; nobody's prediction decides whether it is made.

use crate::file::{self, CONFIG, HDM, Machine};
use cxl_regs::acpi::header;
use cxl_regs::dvsec::{DvsecId, Dvsecs};

/// What a set is called, and what it changes.
pub struct Set {
    pub name: String,
    pub change: Vec<String>,
}

/// A field of a register: its name, the dword behind the decoder's first, its lowest bit, its width, and the
/// values that it is given.
struct Field(&'static str, usize, u32, u32, &'static [u32]);

/// Of a decoder (CXL r3.1 section 8.2.4.20.3 and further).
const DECODER: &[Field] = &[
    Field("Base Low", 0x00, 28, 4, &[1]),
    Field("reserved bits of Base Low", 0x00, 0, 28, &[0x800_0000]),
    Field("Base High", 0x04, 0, 32, &[0, u32::MAX]),
    Field("Size Low", 0x08, 28, 4, &[0, 2, 3]),
    Field("Size High", 0x0C, 0, 32, &[1]),
    Field("IG", 0x10, 0, 4, &[1, 6, 7]),
    Field("IW", 0x10, 4, 4, &[0, 1, 2, 4, 5, 8, 9, 11]),
    Field("Lock On Commit", 0x10, 8, 1, &[1]),
    Field("Commit", 0x10, 9, 1, &[0]),
    Field("Committed", 0x10, 10, 1, &[0]),
    Field("Error Not Committed", 0x10, 11, 1, &[1]),
    Field("Target Range Type", 0x10, 12, 1, &[0]),
    Field("BI", 0x10, 13, 1, &[1]),
    Field("reserved bits of Control", 0x10, 16, 16, &[0xFFFF]),
    Field("Target List or Skip Low", 0x14, 0, 32, &[1, 5, 0x0100, 0x1000_0000]),
    Field("Target List or Skip High", 0x18, 0, 32, &[1]),
];

/// Of further decoders of a component.
const FURTHER: &[Field] = &[
    Field("Base Low", 0x00, 28, 4, &[1]),
    Field("Size Low", 0x08, 28, 4, &[0, 2]),
    Field("IG", 0x10, 0, 4, &[2, 15]),
    Field("IW", 0x10, 4, 4, &[1, 15]),
    Field("Committed", 0x10, 10, 1, &[0]),
    Field("Target Range Type", 0x10, 12, 1, &[0]),
    Field("Target List or Skip Low", 0x14, 0, 32, &[1, 5]),
];

/// Of a decoder that is not used.
const SPARE: &[Field] = &[
    Field("Base Low", 0x00, 28, 4, &[5]),
    Field("Size Low", 0x08, 28, 4, &[1]),
    Field("IG", 0x10, 0, 4, &[7]),
    Field("IW", 0x10, 4, 4, &[11]),
    Field("Lock On Commit", 0x10, 8, 1, &[1]),
    Field("Committed", 0x10, 10, 1, &[1]),
    Field("Target Range Type", 0x10, 12, 1, &[1, 0]),
];

/// Of the structure (sections 8.2.4.20.1 and 8.2.4.20.2).
const STRUCTURE: &[Field] = &[
    Field("Decoder Count", 0x00, 0, 4, &[0, 1, 5, 8, 9, 12, 13]),
    Field("Target Count", 0x00, 4, 4, &[0, 1, 2]),
    Field("A11to8", 0x00, 8, 1, &[0]),
    Field("A14to12", 0x00, 9, 1, &[0]),
    Field("3,6,12 Way", 0x00, 11, 1, &[0]),
    Field("16 Way", 0x00, 12, 1, &[0]),
    Field("HDM Decoder Enable", 0x04, 1, 1, &[0]),
    Field("Poison On Decode Error", 0x04, 0, 1, &[1]),
];

/// Of the Device DVSEC (section 8.1.3), from its header on.
const DEVICE: &[Field] = &[
    Field("DVSEC Vendor ID", 0x04, 0, 16, &[0x8086]),
    Field("DVSEC ID", 0x08, 0, 16, &[1]),
    Field("Cache_Capable", 0x08, 16, 1, &[1]),
    Field("Mem_Capable", 0x08, 18, 1, &[0]),
    Field("HDM_Count", 0x08, 20, 2, &[0, 2, 3]),
    Field("Mem_Enable", 0x0C, 2, 1, &[0]),
    Field("Range 1 Size High", 0x18, 0, 32, &[1]),
    Field("Range 1 Memory_Info_Valid", 0x1C, 0, 1, &[0]),
    Field("Range 1 Size Low", 0x1C, 28, 4, &[0, 1]),
    Field("Range 1 Base High", 0x20, 0, 32, &[3]),
    Field("Range 1 Base Low", 0x24, 28, 4, &[5]),
];

/// Of a CHBS and of a CFMWS: name, offset, bytes, values.
struct Bytes(&'static str, usize, usize, &'static [u64]);

const CHBS: &[Bytes] = &[
    Bytes("type", 0, 1, &[5, 0xFF]),
    Bytes("reserved byte", 1, 1, &[0xFF]),
    Bytes("length", 2, 2, &[0, 4, 16, 28]),
    Bytes("UID", 4, 4, &[99]),
    Bytes("version", 8, 4, &[2, 7, 0xFFFF_FFFF]),
    Bytes("reserved dword", 12, 4, &[0xFFFF_FFFF]),
    Bytes("base", 16, 8, &[0]),
    Bytes("length of the registers", 24, 8, &[0, 0x2000, 0x2_0000]),
];

const CFMWS: &[Bytes] = &[
    Bytes("type", 0, 1, &[5]),
    // Nothing that leads out of the table: what lies there is in no set.
    Bytes("length", 2, 2, &[0, 16, 36]),
    Bytes("reserved dword", 4, 4, &[0xFFFF_FFFF]),
    Bytes("ways", 24, 1, &[1, 2, 3, 4, 5, 8, 9, 10, 11, 255]),
    Bytes("arithmetic", 25, 1, &[1, 2, 255]),
    Bytes("reserved word", 26, 2, &[0xFFFF]),
    Bytes("granularity", 28, 4, &[1, 2, 5, 6, 7, 0xFFFF_FFFF]),
    Bytes("restrictions", 32, 2, &[0, 1, 2, 4, 8, 6, 10, 0x1F, 0x3F, 0xFFFF]),
    Bytes("QTG ID", 34, 2, &[1, 0xFFFF]),
    Bytes("target 0", 36, 4, &[32, 99, 0xFFFF_FFFF]),
    Bytes("target 1", 40, 4, &[16, 99]),
];

/// All sets of a machine.
pub fn sets(machine: &Machine) -> Vec<Set> {
    let mut all = Sets { machine, sets: Vec::new() };
    all.add("nothing wrong", vec![]);
    match machine.name.as_str() {
        "two" => {
            all.decoders(&["mem0", "mem1", "hb0"], DECODER);
            all.structures(&["mem1", "hb0"], STRUCTURE);
            all.device("mem0");
            all.device_with_ranges("mem0");
            all.table();
            all.together();
        }
        "switch" => {
            all.decoders(&["sw0"], DECODER);
            all.decoders(&["hb0"], FURTHER);
            all.structures(&["sw0"], STRUCTURE);
        }
        "persistent" => {
            all.decoders(&["mem0", "mem1"], FURTHER);
            all.serial();
        }
        "four" => {
            all.decoders(&["hb1"], FURTHER);
            all.crossed();
        }
        _ => {
            all.decoders(&["hb1"], &FURTHER[2..4]);
            all.decoders(&["mem3"], &DECODER[5..7]);
        }
    }
    all.sets
}

struct Sets<'m> {
    machine: &'m Machine,
    sets: Vec<Set>,
}

fn put(dword: u32, low: u32, width: u32, value: u32) -> u32 {
    let mask = (u64::from(1u32) << width) - 1;
    let mask = (mask as u32) << low;
    dword & !mask | value << low & mask
}

impl Sets<'_> {
    fn add(&mut self, name: &str, change: Vec<String>) {
        let name = format!("{}: {name}", self.machine.name);
        assert!(self.sets.iter().all(|set| set.name != name), "{name}: twice");
        self.sets.push(Set { name, change });
    }

    fn hdm(&self, component: &str) -> Vec<u32> {
        file::dense(&self.machine.component(component).hdm, HDM)
    }

    fn config(&self, component: &str) -> Vec<u32> {
        file::dense(&self.machine.component(component).config, CONFIG)
    }

    /// Each value of each field that differs from what is there.
    fn fields(&mut self, component: &str, structure: &str, at: usize, of: &str, fields: &[Field]) {
        let dwords = if structure == "hdm" { self.hdm(component) } else { self.config(component) };
        for Field(name, offset, low, width, values) in fields {
            let place = at + offset;
            let old = dwords[place / 4];
            for value in *values {
                let new = put(old, *low, *width, *value);
                if new != old {
                    let name = format!("{component} {of}{name} {value:#x}");
                    self.add(&name, vec![format!("{component} {structure} {place:x}={new:x}")]);
                }
            }
        }
    }

    fn used(&self, component: &str) -> usize {
        let dwords = self.hdm(component);
        (0..4).filter(|decoder| dwords[4 + decoder * 8 + 4] & 1 << 10 != 0).count()
    }

    fn decoders(&mut self, components: &[&str], fields: &[Field]) {
        for component in components {
            let used = self.used(component);
            self.fields(component, "hdm", 0x10, "decoder 0, ", fields);
            if used > 1 {
                let of = format!("decoder {}, ", used - 1);
                self.fields(component, "hdm", 0x10 + 0x20 * (used - 1), &of, FURTHER);
            }
            if fields.len() > 4 {
                self.fields(component, "hdm", 0x10 + 0x20 * used, "spare decoder, ", SPARE);
            }
        }
    }

    fn structures(&mut self, components: &[&str], fields: &[Field]) {
        for component in components {
            self.fields(component, "hdm", 0, "", fields);
        }
    }

    fn dvsec(&self, component: &str) -> usize {
        let config = self.config(component);
        let found = Dvsecs::new(|at| config[usize::from(at) / 4]).find(DvsecId::Device);
        found.unwrap().expect("a DVSEC").offset.into()
    }

    fn device(&mut self, component: &str) {
        let at = self.dvsec(component);
        self.fields(component, "config", at, "", DEVICE);
    }

    /// The same while range registers count: HDM Decoder Enable is clear.
    fn device_with_ranges(&mut self, component: &str) {
        let at = self.dvsec(component);
        let config = self.config(component);
        let off = format!("{component} hdm 4=0");
        let base = self.machine.windows[0];
        let dword =
            |offset: usize, value: u32| format!("{component} config {:x}={value:x}", at + offset);
        let size = config[(at + 0x1C) / 4];
        let inside = [dword(0x20, (base >> 32) as u32), dword(0x24, base as u32)];
        let outside = [dword(0x20, 0), dword(0x24, 0x1000_0000)];
        let control = config[(at + 0xC) / 4];
        let with = |more: &[String]| [vec![off.clone()], more.to_vec()].concat();
        self.add("mem0 no HDM Decoder Enable, range in the window", with(&inside));
        self.add("mem0 no HDM Decoder Enable, range in none", with(&outside));
        self.add("mem0 neither enabled", with(&[dword(0xC, control & !4)]));
        let part = [&inside[..], &[dword(0x1C, put(size, 28, 4, 0))]].concat();
        self.add("mem0 no HDM Decoder Enable, range of no size", with(&part));
        let two = [&inside[..], &[dword(0x08, put(config[(at + 8) / 4], 20, 2, 2))]].concat();
        self.add("mem0 no HDM Decoder Enable, two ranges", with(&two));
        let none = (0..4).map(|n| format!("{component} hdm {:x}=0", 0x20 + n * 0x20));
        let none: Vec<String> = none.chain(inside.clone()).collect();
        self.add("mem0 no decoder committed, range in the window", with(&none));
    }

    /// Without a serial number: the capability has another ID.
    fn serial(&mut self) {
        for component in ["mem0", "mem1"] {
            let config = self.config(component);
            let mut at = 0x100;
            while at != 0 && config[at / 4] & 0xFFFF != 3 {
                at = config[at / 4] as usize >> 20;
            }
            assert_ne!(at, 0, "{component} has no serial number");
            let head = put(config[at / 4], 0, 16, 0xB);
            self.add(
                &format!("{component} no serial number"),
                vec![format!("{component} config {at:x}={head:x}")],
            );
            let zero = [4, 8].map(|more| format!("{component} config {:x}=0", at + more));
            self.add(&format!("{component} serial number 0"), zero.to_vec());
        }
    }

    fn records(&self) -> Vec<(usize, usize, u8)> {
        let table = file::unhex(&self.machine.cedt);
        let mut at = 36;
        let mut records = Vec::new();
        while at < table.len() {
            let length = usize::from(u16::from_le_bytes([table[at + 2], table[at + 3]]));
            records.push((at, length, table[at]));
            at += length;
        }
        records
    }

    fn cedt(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut table = file::unhex(&self.machine.cedt);
        change(&mut table);
        let length = table.len() as u32;
        table[4..8].copy_from_slice(&length.to_le_bytes());
        header::mend_checksum(&mut table).unwrap();
        if file::hex(&table) != self.machine.cedt {
            self.add(&format!("CEDT {name}"), vec![format!("cedt {}", file::hex(&table))]);
        }
    }

    fn table(&mut self) {
        let records = self.records();
        for (at, length, kind) in records.clone() {
            let table = file::unhex(&self.machine.cedt);
            let uid = u32::from_le_bytes(table[at + 4..at + 8].try_into().unwrap());
            let window = u64::from_le_bytes(table[at + 8..at + 16].try_into().unwrap());
            let (name, fields) = match kind {
                0 if uid == 32 => (format!("CHBS {uid}"), &CHBS[3..]),
                0 => (format!("CHBS {uid}"), CHBS),
                _ if window == self.machine.windows[0] => ("CFMWS 0".to_owned(), &CFMWS[9..]),
                _ => ("CFMWS 1".to_owned(), CFMWS),
            };
            for Bytes(field, offset, count, values) in fields {
                for value in *values {
                    if offset + count <= length {
                        self.cedt(&format!("{name}, {field} {value:#x}"), |table| {
                            let bytes = &value.to_le_bytes()[..*count];
                            table[at + offset..at + offset + count].copy_from_slice(bytes);
                        });
                    }
                }
            }
            if kind == 1 {
                let moved = [0x800_0000, 0x1000_0000];
                for by in moved {
                    let base = window + by;
                    self.cedt(&format!("{name}, base + {by:#x}"), |table| {
                        table[at + 8..at + 16].copy_from_slice(&base.to_le_bytes());
                    });
                }
                for size in [0, 0x800_0000, 0x1000_0000, 0x5000_0000u64] {
                    self.cedt(&format!("{name}, size {size:#x}"), |table| {
                        table[at + 16..at + 24].copy_from_slice(&size.to_le_bytes());
                    });
                }
            }
            self.cedt(&format!("{name}, taken out"), |table| {
                table.drain(at..at + length);
            });
            self.cedt(&format!("{name}, twice"), |table| {
                let record = table[at..at + length].to_vec();
                table.extend(record);
            });
        }
        self.cedt("header alone", |table| table.truncate(36));
        self.cedt("a record of an unknown type in front", |table| {
            table.splice(36..36, [9, 0, 8, 0, 1, 2, 3, 4]);
        });
        self.cedt("four bytes behind the last record", |table| table.extend([0; 4]));
        self.cedt("sixteen bytes of 0 behind the last record", |table| table.extend([0; 16]));
        let window = |base: u64, size: u64, ways: u8, arithmetic: u8, targets: &[u32]| {
            let mut record = vec![1, 0, 0x24 + 4 * targets.len() as u8, 0, 0, 0, 0, 0];
            record.extend(base.to_le_bytes());
            record.extend(size.to_le_bytes());
            record.extend([ways, arithmetic, 0, 0, 0, 0, 0, 0, 0x0F, 0, 0, 0]);
            record.extend(targets.iter().flat_map(|target| target.to_le_bytes()));
            record
        };
        let far = 0x40_0000_0000;
        let (first, second) = (self.machine.windows[0], self.machine.windows[1]);
        let more: [(&str, Vec<u8>); 7] = [
            ("a third window", window(far, 1 << 30, 0, 0, &[16])),
            ("a window in the first one", window(first, 1 << 29, 0, 0, &[16])),
            ("a window over the border of two", window(second - (1 << 28), 1 << 29, 0, 0, &[16])),
            ("a window of 3 ways that are 2", window(far, 3 << 28, 8, 0, &[16, 32])),
            ("a window with one bridge twice", window(far, 1 << 30, 1, 0, &[16, 16])),
            ("a window at the very end", window(0xFFFF_FFFF_F000_0000, 1 << 28, 0, 0, &[16])),
            ("a window that wraps", window(0xFFFF_FFFF_F000_0000, 1 << 29, 0, 0, &[16])),
        ];
        for (name, record) in more {
            self.cedt(&format!("{name}, behind"), |table| table.extend(&record));
        }
        let maps = |granularity: u8, maps: &[u64]| {
            let mut record =
                vec![2, 0, 8 + 8 * maps.len() as u8, 0, 0, 0, granularity, maps.len() as u8];
            record.extend(maps.iter().flat_map(|map| map.to_le_bytes()));
            record
        };
        let (at, ..) = *self.records().iter().filter(|record| record.2 == 1).nth(1).unwrap();
        let xor: [(&str, Vec<u8>); 6] = [
            ("one map", maps(0, &[0x404100])),
            ("two maps", maps(0, &[0x404100, 0x808200])),
            ("no map", maps(0, &[])),
            ("a map for another granularity", maps(1, &[0x404200])),
            ("a map of granularity 7", maps(7, &[0x404100])),
            ("a map that is cut off", maps(0, &[0x404100])[..12].to_vec()),
        ];
        for (name, record) in xor {
            self.cedt(&format!("XOR with {name}"), |table| {
                table[at + 25] = 1;
                table.extend(record);
            });
        }
        let chbs: Vec<_> = self.records().into_iter().filter(|record| record.2 == 0).collect();
        for (at, length, _) in chbs {
            let table = file::unhex(&self.machine.cedt);
            let uid = table[at + 4];
            // A first one with another base, of the same bridge.
            self.cedt(&format!("CHBS {uid}, one without base in front"), |table| {
                let mut record = table[at..at + length].to_vec();
                record[16..24].fill(0);
                table.splice(at..at, record);
            });
            self.cedt(
                &format!("CHBS {uid}, one of version 0 and wrong length in front"),
                |table| {
                    let mut record = table[at..at + length].to_vec();
                    record[8..12].fill(0);
                    table.splice(at..at, record);
                },
            );
        }
    }

    /// Decoder registers of one component, one for each byte offset.
    fn image(&self, component: &str, decoder: usize, dwords: &[(usize, u32)]) -> Vec<String> {
        let at = 0x10 + 0x20 * decoder;
        let all = dwords.iter();
        all.map(|(offset, value)| format!("{component} hdm {:x}={value:x}", at + offset)).collect()
    }

    fn whole(
        &self,
        component: &str,
        decoder: usize,
        base: u64,
        size: u64,
        control: u32,
        route: u32,
    ) -> Vec<String> {
        let dwords = [
            (0, base as u32),
            (4, (base >> 32) as u32),
            (8, size as u32),
            (0xC, (size >> 32) as u32),
            (0x10, control),
            (0x14, route),
        ];
        self.image(component, decoder, &dwords)
    }

    /// More than one dword.
    fn together(&mut self) {
        const ON: u32 = 0x1600;
        let w0 = self.machine.windows[0];
        let mib = |mib: u64| mib << 20;
        let parts = |parts: &[Vec<String>]| parts.concat();
        // All-ones, as of a device that has gone.
        let gone: Vec<_> =
            (0..HDM).map(|dword| format!("mem0 hdm {:x}=ffffffff", dword * 4)).collect();
        self.add("mem0 all ones", gone);
        let spare = self.whole("mem0", 2, w0 + mib(512), 0, ON | 0x100, 0);
        self.add("mem0 a spare decoder locked with no size", spare.clone());
        let both = [spare, self.whole("hb0", 3, w0 + mib(512), 0, ON | 0x100, 0)];
        self.add("mem0 and hb0 spare decoders locked with no size", parts(&both));
        let first = parts(&[
            self.whole("mem0", 0, w0, 0, ON | 0x100, 0),
            self.whole("mem0", 1, w0, mib(256), ON, 0),
            self.whole("hb0", 1, w0 + mib(256), 0, ON, 0),
        ]);
        self.add("mem0 and hb0 first decoders locked with no size", first);
        // One at the same addresses as another.
        let nested = parts(&[
            self.whole("mem0", 1, w0 + mib(256), mib(256), ON, 0),
            self.whole("mem1", 0, w0, mib(512), ON, 0),
            self.whole("hb0", 2, w0, mib(512), ON, 1),
        ]);
        self.add("mem1 around the regions of mem0", nested);
        let half = parts(&[
            self.whole("mem1", 0, w0 + mib(128), mib(256), ON, 0),
            self.whole("hb0", 2, w0 + mib(128), mib(256), ON, 1),
        ]);
        self.add("mem1 over half of the first region", half);
        let same = parts(&[
            self.whole("mem1", 0, w0, mib(256), ON, 0),
            self.whole("hb0", 2, w0, mib(256), ON, 1),
        ]);
        self.add("mem1 at the addresses of mem0", same);
        self.add(
            "mem1 at the addresses of mem0, of two ways",
            self.whole("mem1", 0, w0, mib(256), ON | 0x10, 0),
        );
        // Out of order on the bridge.
        let swapped = parts(&[
            self.whole("hb0", 0, w0 + mib(256), mib(256), ON, 0),
            self.whole("hb0", 1, w0, mib(256), ON, 0),
        ]);
        self.add("hb0 decoders of the first window swapped", swapped);
        let swapped = parts(&[
            self.whole("mem0", 0, w0 + mib(256), mib(256), ON, 0),
            self.whole("mem0", 1, w0, mib(256), ON, 0),
        ]);
        self.add("mem0 decoders swapped", swapped.clone());
        let both = parts(&[
            swapped,
            self.whole("hb0", 0, w0 + mib(256), mib(256), ON, 0),
            self.whole("hb0", 1, w0, mib(256), ON, 0),
        ]);
        self.add("mem0 and hb0 decoders swapped", both);
        // One decoder of the bridge for both regions of the device.
        let joined = parts(&[
            self.whole("hb0", 0, w0, mib(512), ON, 0),
            self.whole("hb0", 1, w0 + mib(512), mib(256), ON, 0),
        ]);
        self.add("hb0 one decoder around both regions", joined);
        // The set in the other order, and at other granularities.
        for (name, bytes) in [("512 B", 1u32), ("4 KiB", 4), ("16 KiB", 6)] {
            let all = parts(&[
                self.image("mem1", 0, &[(0x10, ON | 0x10 | bytes)]),
                self.image("mem2", 0, &[(0x10, ON | 0x10 | bytes)]),
                self.image("hb0", 2, &[(0x10, ON | (bytes + 1))]),
                self.image("hb1", 0, &[(0x10, ON | (bytes + 1))]),
            ]);
            self.add(&format!("the set at {name}"), all.clone());
            let table = parts(&[all]);
            let mut changed = file::unhex(&self.machine.cedt);
            let (at, ..) = *self.records().iter().filter(|record| record.2 == 1).nth(1).unwrap();
            changed[at + 28] = bytes as u8;
            header::mend_checksum(&mut changed).unwrap();
            let table = [table, vec![format!("cedt {}", file::hex(&changed))]].concat();
            self.add(&format!("the set and its window at {name}"), table);
        }
        // The low memory hole: a window at 0 that is smaller than its decoders.
        let mut hole = file::unhex(&self.machine.cedt);
        let (at, ..) = *self.records().iter().filter(|record| record.2 == 1).nth(1).unwrap();
        hole[at + 8..at + 16].fill(0);
        hole[at + 16..at + 24].copy_from_slice(&mib(768).to_le_bytes());
        header::mend_checksum(&mut hole).unwrap();
        let zero = [("mem1", 0), ("mem2", 0), ("hb0", 2), ("hb1", 0)];
        let low = zero.map(|(component, n)| self.image(component, n, &[(0, 0), (4, 0)])).concat();
        let low = [low, vec![format!("cedt {}", file::hex(&hole))]].concat();
        self.add("a window at 0 that is smaller than its decoders", low);
        // Decoders at 0 behind a bridge with the whole range: normalized addresses.
        let normalized = parts(&[
            self.whole("mem0", 0, 0, mib(256), ON, 0),
            self.whole("mem0", 1, mib(256), mib(256), ON, 0),
        ]);
        self.add("mem0 decoders at device addresses", normalized);
        // Members of a set that are not alike.
        self.add("mem2 larger than its set", self.image("mem2", 0, &[(8, 0x8000_0000)]));
        self.add(
            "mem1 with a skip that leaves the memory",
            self.image("mem1", 0, &[(0x14, 0x2000_0000)]),
        );
        self.add("mem0 second decoder with a skip", self.image("mem0", 1, &[(0x14, 0x1000_0000)]));
        self.add("mem2 nothing committed", self.image("mem2", 0, &[(0x10, 0)]));
        self.add("hb1 nothing committed", self.image("hb1", 0, &[(0x10, 0)]));
        self.add(
            "hb0 nothing committed",
            parts(&[0, 1, 2].map(|n| self.image("hb0", n, &[(0x10, 0)]))),
        );
    }

    /// Members whose bridges list them in another order.
    fn crossed(&mut self) {
        let one = self.image("hb0", 0, &[(0x14, 0x0001)]);
        let other = self.image("hb1", 0, &[(0x14, 0x0001)]);
        self.add("hb0 targets crossed", one.clone());
        self.add("both bridges' targets crossed", [one, other].concat());
        for (name, list) in [("0, 0", 0x0000), ("1, 1", 0x0101), ("0, 5", 0x0500), ("5, 6", 0x0605)]
        {
            self.add(&format!("hb0 targets {name}"), self.image("hb0", 0, &[(0x14, list)]));
        }
        let members = ["mem0", "mem1", "mem2", "mem3"];
        for (name, control) in [("2 ways", 0x1610), ("8 ways", 0x1630), ("512 B", 0x1621)] {
            let all = members.map(|member| self.image(member, 0, &[(0x10, control)])).concat();
            self.add(&format!("all members {name}"), all);
        }
        for member in members {
            self.add(&format!("{member} not committed"), self.image(member, 0, &[(0x10, 0)]));
            self.add(&format!("{member} 2 ways"), self.image(member, 0, &[(0x10, 0x1610)]));
            self.add(&format!("{member} 512 B"), self.image(member, 0, &[(0x10, 0x1621)]));
        }
    }
}
