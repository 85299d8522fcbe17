//! A QEMU with Linux in it, whose drivers let go of the machine and take it again, as often as is wanted.
//! Between the two its registers are written from outside: into QEMU's own memory, as its devices let no
//! read-only field be changed, and no bridge be wrong.
//!
//! **Invariant**: what a set changes is read back through the machine before Linux looks at it, and put
//! back before the next set. Every wait is bounded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cxl_harness::linux::Installed;
use cxl_harness::qemu::process::{self, Process};
use cxl_harness::qemu::qtest::{Qtest, Width};
use cxl_regs::acpi::header;
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use tempfile::TempDir;

use crate::file::{self, CONFIG, Component, HDM, Outcome};
use crate::machines::Machine;

/// An answer of the guest's, and of QEMU's; a busy host takes long.
const LIMIT: Duration = Duration::from_secs(120);
/// Configuration space, where SeaBIOS puts it.
const ECAM: u64 = 0xB000_0000;
const INIT: &str = include_str!("guest.sh");
/// `memhp_default_state`: memory that nobody uses does no harm where a set leads it astray, and can go.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=4 no_timer_check log_buf_len=4M \
                            memhp_default_state=offline cxl_core.dyndbg=+p cxl_port.dyndbg=+p";

/// Where a component's registers are: in the machine, and in QEMU's memory.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    hdm: Option<(u64, u64)>,
    config: Option<(u64, u64)>,
}

pub struct Guest {
    process: Process,
    qtest: Qtest,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
    /// QEMU's memory.
    memory: File,
    places: BTreeMap<String, Place>,
    /// The table's address, and the machine with nothing wrong.
    cedt: u64,
    pub machine: file::Machine,
    /// What stood where the last set was put.
    changed: Vec<(String, &'static str, usize, u32)>,
    directory: TempDir,
}

fn dwords(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|dword| u32::from_le_bytes(dword.try_into().unwrap()))
}

impl Machine {
    fn arguments(&self) -> Vec<String> {
        let mut windows = String::new();
        for (index, (targets, mib)) in self.windows.iter().enumerate() {
            for (way, target) in targets.iter().enumerate() {
                windows += &format!(",cxl-fmw.{index}.targets.{way}={target}");
            }
            windows += &format!(",cxl-fmw.{index}.size={mib}M");
            windows += &format!(",cxl-fmw.{index}.interleave-granularity=256");
        }
        let mut words = vec!["-M".to_owned(), format!("q35,cxl=on{windows}")];
        let mut device = |text: String| words.extend(["-device".to_owned(), text]);
        for (name, uid) in self.bridges {
            device(format!("pxb-cxl,bus_nr={uid},bus=pcie.0,id={name},hdm_for_passthrough=true"));
        }
        let below = |bus: &str| self.bridges.iter().any(|(name, _)| *name == bus);
        let port = |kind: &str, (at, (name, bus, number)): (usize, &(&str, &str, u8))| {
            format!("{kind},port={number},bus={bus},id={name},chassis=0,slot={}", at + 2)
        };
        for found in self.ports.iter().enumerate().filter(|(_, port)| below(port.1)) {
            device(port("cxl-rp", found));
        }
        for (name, port) in self.switches {
            device(format!("cxl-upstream,bus={port},id={name}"));
        }
        for found in self.ports.iter().enumerate().filter(|(_, port)| !below(port.1)) {
            device(port("cxl-downstream", found));
        }
        for (index, (name, port, volatile, persistent)) in self.devices.iter().enumerate() {
            let mut text = format!("cxl-type3,bus={port},id={name},sn={:#x}", 0x100 + index);
            let mut memory = |kind: &str, size: String| {
                let id = format!("{name}-{kind}");
                words.extend(["-object".to_owned()]);
                words.push(format!("memory-backend-ram,id={id},share=on,size={size}"));
                text += &format!(",{kind}={id}");
            };
            if *volatile > 0 {
                memory("volatile-memdev", format!("{volatile}M"));
            }
            if *persistent > 0 {
                memory("persistent-memdev", format!("{persistent}M"));
                memory("lsa", "1M".to_owned());
            }
            words.extend(["-device".to_owned(), text]);
        }
        words
    }
}

impl Guest {
    /// Boots, and programs the machine as it is in [`MACHINES`](crate::machines::MACHINES).
    pub fn start(kind: &Machine, installed: &Installed) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("initramfs"), installed.initramfs_for(INIT).unwrap()).unwrap();
        let listener = UnixListener::bind(at("orders")).unwrap();
        let mut arguments: Vec<OsString> = kind.arguments().into_iter().map(Into::into).collect();
        arguments.extend(process::fixed());
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        add(&["-cpu", "max", "-m", "1G", "-no-reboot", "-append", COMMAND_LINE]);
        add(&["-serial", &format!("file:{}", at("console").display())]);
        add(&["-serial", &format!("unix:{}", at("orders").display())]);
        add(&["-initrd", &at("initramfs").display().to_string()]);
        add(&["-kernel", &installed.kernel.display().to_string()]);
        let (mut process, qtest) = Process::start_with_qtest(&arguments, LIMIT).unwrap();
        let orders = accept(&listener, &mut process);
        orders.set_read_timeout(Some(LIMIT)).unwrap();
        let answers = BufReader::new(orders.try_clone().unwrap());
        let memory = format!("/proc/{}/mem", process.id());
        let memory = File::options().read(true).write(true).open(memory).unwrap();
        let mut guest = Self {
            process,
            qtest,
            orders,
            answers,
            memory,
            places: BTreeMap::new(),
            cedt: 0,
            machine: file::Machine { name: kind.name.to_owned(), ..file::Machine::default() },
            changed: Vec::new(),
            directory,
        };
        assert_eq!(guest.line(), "ready");
        guest.ask("off");
        guest.find(kind);
        guest.program(kind);
        guest.image();
        guest
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => panic!("QEMU has gone: {}", self.process.words()),
            Ok(_) => line.trim_end().to_owned(),
            Err(error) => panic!("the guest says nothing: {error}"),
        }
    }

    /// What the guest answers to an order.
    fn ask(&mut self, order: &str) -> Vec<String> {
        writeln!(self.orders, "{order}").unwrap();
        let mut answer = Vec::new();
        loop {
            let line = self.line();
            assert!(!line.starts_with('?'), "{order}: {line}");
            if line == "." {
                return answer;
            }
            answer.push(line);
        }
    }

    fn read(&mut self, address: u64) -> u32 {
        self.qtest.load(address, Width::Four).unwrap() as u32
    }

    fn write(&mut self, address: u64, value: u32) {
        self.qtest.store(address, value.into(), Width::Four).unwrap();
    }

    /// Finds everything in the machine, and in QEMU's memory.
    fn find(&mut self, kind: &Machine) {
        let said = self.ask("table");
        let words: Vec<_> = said.first().unwrap().split_whitespace().collect();
        let at = words.iter().position(|word| *word == "CEDT").unwrap();
        self.cedt = u64::from_str_radix(words[at + 1].trim_start_matches("0x"), 16).unwrap();
        let mut table = vec![0; usize::from_str_radix(words[at + 2], 16).unwrap()];
        self.qtest.read_memory(self.cedt, &mut table).unwrap();
        assert_eq!(&table[..4], b"CEDT");
        self.machine.cedt = file::hex(&table);
        let mut blocks = BTreeMap::new();
        let mut record = 36;
        while record < table.len() {
            let dword = |at: usize| dwords(&table[record + at..]).next().unwrap();
            let long = |at: usize| u64::from(dword(at + 4)) << 32 | u64::from(dword(at));
            match table[record] {
                0 => drop(blocks.insert(dword(4), long(16))),
                _ => self.machine.windows.push(long(8)),
            }
            record += usize::from(u16::from_le_bytes([table[record + 2], table[record + 3]]));
        }
        let new = |name: &str, address: String, below: &str, number: u32| {
            let (name, below) = (name.to_owned(), below.to_owned());
            Component { name, address, below, number, ..Component::default() }
        };
        // The bus below a bridge or port.
        let mut buses: BTreeMap<&str, u64> = BTreeMap::new();
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        let mut places = Vec::new();
        for (name, uid) in kind.bridges {
            buses.insert(name, (*uid).into());
            self.machine.bridge.push(new(name, format!("pci0000:{uid:02x}"), "", *uid));
            places.push((*name, Some(blocks[uid]), None));
        }
        let function = |bus: u64, slot: u64| ECAM + (bus << 20) + (slot << 15);
        let mut port =
            |guest: &mut Self, (name, below, number): &(&'static str, &'static str, u8)| {
                let slot = seen.entry(below).or_default();
                let config = function(buses[below], *slot);
                let address = format!("0000:{:02x}:{slot:02x}.0", buses[below]);
                *slot += 1;
                guest.machine.port.push(new(name, address, below, (*number).into()));
                let secondary = guest.read(config + 0x18) >> 8 & 0xFF;
                buses.insert(name, secondary.into());
                buses.clone()
            };
        let mut all = BTreeMap::new();
        for found in kind.ports {
            if kind.bridges.iter().any(|(name, _)| *name == found.1) {
                all = port(self, found);
            }
        }
        for (name, above) in kind.switches {
            let config = function(all[above], 0);
            let address = format!("0000:{:02x}:00.0", all[above]);
            self.machine.switch.push(new(name, address, above, 0));
            let secondary = self.read(config + 0x18) >> 8 & 0xFF;
            all.insert(name, secondary.into());
            let block = self.bar(config);
            places.push((*name, Some(block), None));
            for (slot, (name, below, number)) in
                (0..).zip(kind.ports.iter().filter(|port| port.1 == *name))
            {
                let config = function(all[below], slot);
                let address = format!("0000:{:02x}:{slot:02x}.0", all[below]);
                self.machine.port.push(new(name, address, below, (*number).into()));
                let secondary = self.read(config + 0x18) >> 8 & 0xFF;
                all.insert(name, secondary.into());
            }
        }
        for (name, above, volatile, persistent) in kind.devices {
            let config = function(all[above], 0);
            let address = format!("0000:{:02x}:00.0", all[above]);
            let mut device = new(name, address, above, 0);
            device.capacity = vec![volatile << 20, persistent << 20];
            self.machine.device.push(device);
            let block = self.bar(config);
            places.push((*name, Some(block), Some(config)));
        }
        // Ports that no bridge has come behind those that one has: as they are named.
        let order = |name: &str| kind.ports.iter().position(|port| port.0 == name);
        self.machine.port.sort_by_key(|port| order(&port.name));
        let maps = self.regions();
        for (index, (name, block, config)) in (0..).zip(places) {
            let hdm = block.map(|block| {
                let structure = self.structure(block);
                (structure, self.host_structure(&maps, structure, index))
            });
            let config = config.map(|config| (config, self.host_config(&maps, config)));
            self.places.insert(name.to_owned(), Place { hdm, config });
        }
    }

    fn bar(&mut self, config: u64) -> u64 {
        let [low, high] = [0x10, 0x14].map(|at| self.read(config + at));
        assert_eq!(low & 7, 4, "a BAR of 64 bits, {low:#x}");
        u64::from(high) << 32 | u64::from(low & !0xF)
    }

    /// The HDM structure of a block.
    fn structure(&mut self, block: u64) -> u64 {
        let entries = self.read(block + 0x1000) >> 24;
        let mut entries =
            (1..=u64::from(entries)).map(|entry| self.read(block + 0x1000 + 4 * entry));
        let entry = entries.find(|entry| entry & 0xFFFF == 5).expect("HDM decoders");
        block + 0x1000 + u64::from(entry >> 20)
    }

    /// QEMU's memory that devices may lie in, with its bytes.
    fn regions(&self) -> Vec<(u64, Vec<u8>)> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.process.id())).unwrap();
        let mut regions = Vec::new();
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
            if rest.starts_with("rw-p") && to - from < 512 << 20 {
                regions.push((from, to - from));
            }
        }
        let read = |(at, length): (u64, u64)| {
            let mut bytes = vec![0; length as usize];
            self.memory.read_exact_at(&mut bytes, at).ok()?;
            Some((at, bytes))
        };
        regions.into_iter().filter_map(read).collect()
    }

    /// Where QEMU keeps the structure: four dwords are written that stand nowhere else.
    fn host_structure(&mut self, maps: &[(u64, Vec<u8>)], at: u64, index: u32) -> u64 {
        let decoder = at + 0x10 + 3 * 0x20;
        for (offset, mark) in [(4, 0x00C0_DE10), (12, 0x005E_ED20), (24, 0x00A1_1A30)] {
            self.write(decoder + offset, mark | index << 24);
        }
        let wanted: Vec<u8> =
            (0..7).flat_map(|dword| self.read(decoder + 4 * dword).to_le_bytes()).collect();
        let found: Vec<u64> = maps
            .iter()
            .flat_map(|(from, old)| {
                let mut bytes = vec![0; old.len()];
                // A region may have gone since.
                let there = self.memory.read_exact_at(&mut bytes, *from).is_ok();
                let places = if there { places_of(&bytes, &wanted) } else { vec![] };
                places.into_iter().map(move |place| from + place)
            })
            .collect();
        for offset in [4, 12, 24] {
            self.write(decoder + offset, 0);
        }
        let [found] = found.as_slice() else { panic!("{} places look like it", found.len()) };
        found - (decoder - at)
    }

    /// Where QEMU keeps a function's configuration space.
    fn host_config(&mut self, maps: &[(u64, Vec<u8>)], at: u64) -> u64 {
        let head: Vec<u8> =
            (0..64).step_by(4).flat_map(|o| self.read(at + o).to_le_bytes()).collect();
        let mut found = Vec::new();
        for (from, bytes) in maps {
            found.extend(places_of(bytes, &head).into_iter().map(|place| from + place));
        }
        // A copy of it shows nothing through the machine.
        let last = 0xFFC;
        let is_it = |guest: &mut Self, place: u64| {
            let mut old = [0; 4];
            guest.memory.read_exact_at(&mut old, place + last).unwrap();
            guest.memory.write_all_at(&0x5A5A_A5A5u32.to_le_bytes(), place + last).unwrap();
            let shown = guest.read(at + last) == 0x5A5A_A5A5;
            guest.memory.write_all_at(&old, place + last).unwrap();
            shown
        };
        found.retain(|place| is_it(self, *place));
        let [found] = found.as_slice() else { panic!("{} places look like it", found.len()) };
        *found
    }

    /// Decoders and enables as a firmware would have left them.
    fn program(&mut self, kind: &Machine) {
        let places = self.places.clone();
        for place in places.values() {
            let (at, _) = place.hdm.unwrap();
            for decoder in 0..4 {
                // Control first: what is committed takes no other value.
                for offset in [0x10, 0, 4, 8, 0xC, 0x14, 0x18] {
                    self.write(at + 0x10 + decoder * 0x20 + offset, 0);
                }
            }
            self.write(at + 4, 2);
        }
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, window, into, mib, control, route) in kind.decoders {
            let decoder = next.entry(name).or_default();
            let (at, _) = places[*name].hdm.unwrap();
            let at = at + 0x10 + *decoder * 0x20;
            *decoder += 1;
            let base = self.machine.windows[*window] + (into << 20);
            let size = mib << 20;
            let halves = [(0, base), (8, size), (0x14, *route)];
            for (offset, value) in halves {
                self.write(at + offset, value as u32);
                self.write(at + offset + 4, (value >> 32) as u32);
            }
            self.write(at + 0x10, *control);
        }
        for place in places.values() {
            if let Some((config, host)) = place.config {
                let dvsec = self.dvsec(config);
                let control = self.read(config + dvsec + 0xC);
                // Mem_Enable.
                self.memory.write_all_at(&(control | 4).to_le_bytes(), host + dvsec + 0xC).unwrap();
            }
        }
    }

    fn dvsec(&mut self, config: u64) -> u64 {
        let space: Vec<u32> = (0..CONFIG as u64).map(|at| self.read(config + 4 * at)).collect();
        let found = Dvsecs::new(|at| space[usize::from(at) / 4]).find(DvsecId::Device);
        found.unwrap().expect("a DVSEC").offset.into()
    }

    /// What there is now, as the machine with nothing wrong.
    fn image(&mut self) {
        for (name, place) in self.places.clone() {
            let mut all = |at: u64, count: usize| -> String {
                let dwords: Vec<_> =
                    (0..count as u64).map(|dword| self.read(at + 4 * dword)).collect();
                file::sparse(&dwords)
            };
            let hdm = place.hdm.map(|(at, _)| all(at, HDM)).unwrap_or_default();
            let config = place.config.map(|(at, _)| all(at, CONFIG)).unwrap_or_default();
            let machine = &mut self.machine;
            let all =
                machine.bridge.iter_mut().chain(&mut machine.switch).chain(&mut machine.device);
            for component in all.filter(|component| component.name == name) {
                (component.hdm, component.config) = (hdm.clone(), config.clone());
            }
        }
    }

    /// A dword of a component's structure, in QEMU's memory.
    fn poke(&mut self, name: &str, structure: &str, offset: usize, value: u32) -> u32 {
        let place = self.places[name];
        let at = if structure == "hdm" { place.hdm } else { place.config };
        let (shown, host) = at.unwrap_or_else(|| panic!("{name} has no {structure}"));
        let mut old = [0; 4];
        self.memory.read_exact_at(&mut old, host + offset as u64).unwrap();
        self.memory.write_all_at(&value.to_le_bytes(), host + offset as u64).unwrap();
        let found = self.read(shown + offset as u64);
        assert_eq!(found, value, "{name} {structure} {offset:#x} does not show it");
        u32::from_le_bytes(old)
    }

    /// Lets Linux take the machine with these changes.
    pub fn record(&mut self, kind: &Machine, changes: &[String]) -> Outcome {
        self.ask("off");
        for (name, structure, offset, value) in std::mem::take(&mut self.changed).into_iter().rev()
        {
            self.poke(&name, structure, offset, value);
        }
        self.program(kind);
        let mut table = file::unhex(&self.machine.cedt);
        for change in changes {
            let words: Vec<_> = change.split(' ').collect();
            match words.as_slice() {
                ["cedt", new] => table = file::unhex(new),
                [name, structure, dword] => {
                    let (at, value) = dword.split_once('=').unwrap();
                    let [at, value] =
                        [at, value].map(|text| u32::from_str_radix(text, 16).unwrap());
                    let structure = if *structure == "hdm" { "hdm" } else { "config" };
                    let old = self.poke(name, structure, at as usize, value);
                    self.changed.push(((*name).to_owned(), structure, at as usize, old));
                }
                _ => panic!("{change}: what is that?"),
            }
        }
        // The kernel has the pages of the table mapped, and looks at its checksum once, when it boots.
        let page = self.cedt & !0xFFF;
        assert!(self.cedt + table.len() as u64 <= page + 0x1000, "the table leaves its page");
        assert_eq!(header::sum(&table), 0, "nobody would see a wrong checksum");
        self.qtest.write_memory(self.cedt, &table).unwrap();
        let order: Vec<_> =
            self.machine.device.iter().map(|device| device.address.clone()).collect();
        let said = self.ask(&format!("on {}", order.join(" ")));
        self.outcome(&said)
    }

    fn outcome(&self, said: &[String]) -> Outcome {
        let machine = &self.machine;
        let mut outcome = Outcome::default();
        let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
        let at = |address: &str| {
            let mut all = machine.bridge.iter().chain(&machine.switch).chain(&machine.device);
            all.find(|of| of.address == address).map(|of| of.name.as_str())
        };
        for line in said {
            if let ["P", port, uport] = *line.split(' ').collect::<Vec<_>>() {
                let name = uport.rsplit('/').find_map(at).unwrap_or_else(|| panic!("{line}"));
                ports.insert(port.trim_start_matches(|c: char| c.is_ascii_lowercase()), name);
            }
        }
        let decoder = |text: &str| {
            let (port, number) = text.strip_prefix("decoder")?.split_once('.')?;
            Some(format!("{}.{number}", ports.get(port)?))
        };
        for (port, name) in &ports {
            let prefix = format!("D decoder{port}.");
            let decoders = said.iter().filter(|line| line.starts_with(&prefix)).count();
            outcome.port.push(format!("{name} {decoders}"));
        }
        outcome.port.sort();
        for line in said {
            let (kind, text) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let words: Vec<_> = text.split_whitespace().collect();
            match kind {
                "R" => {
                    let mut known = vec![words[1].to_owned(), words[2].to_owned()];
                    known.push(format!("{}x{}", words[3], words[4]));
                    known.extend(words[5..8].iter().map(|word| (*word).to_owned()));
                    let targets = words[8..].iter().filter_map(|target| decoder(target));
                    known.push(targets.collect::<Vec<_>>().join(","));
                    outcome.region.push(known.join(" ").trim_end().to_owned());
                }
                "M" => outcome.memory.push(text.trim().to_owned()),
                "N" => outcome.memory.push(format!("{} {} {}", words[1], words[2], words[3])),
                "L" => outcome.log.extend(kept(text)),
                _ => {}
            }
        }
        outcome.region.sort();
        outcome
    }

    /// The end of its console: why it is gone, if it said so.
    pub fn last_words(&self) -> String {
        let said = fs::read(self.directory.path().join("console")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    pub fn end(mut self) {
        self.process.end();
    }
}

fn accept(listener: &UnixListener, process: &mut Process) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < LIMIT => {
                assert!(process.ended().is_none(), "QEMU has gone: {}", process.words());
                sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Where bytes stand in others, at addresses of dwords.
fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<u64> {
    let places = (0..bytes.len().saturating_sub(wanted.len())).step_by(4);
    places.filter(|at| bytes[*at..].starts_with(wanted)).map(|at| at as u64).collect()
}

/// What Linux says of a machine in which nothing is wrong, in words that stand in such lines alone.
const USUAL: &[&str] = &[
    "root0 added",
    "UID found",
    "dport added to",
    "RAS registers not found",
    "perf coord",
    "decode range: node",
    "CHBCR found",
    "host-bridge:",
    "Mapped CXL Memory Device resource",
    "Unknown CM cap ID",
    "found HDM decoder capability",
    "found RAS capability",
    "Set up component registers",
    "Component Registers found",
    "range: 0x",
    "Added to port",
    " added to ",
    "probe: 0",
    "nd_bus",
    "nd_region region",
    "found Status capability",
    "found Mailbox capability",
    "found Memory Device capability",
    "Probing device registers",
    "Mailbox payload",
    "Mailbox interrupts",
    "Found LOG type",
    "Opcode 0x",
    "DPA(ram)",
    "DPA(pmem)",
    "No CXL Features",
    "scan: iter",
    "found already registered",
    "CDAT length",
    "config state: 0",
    "probe: -6",
    "created region",
    " res: [mem",
    "decoder:decoder",
    "region sort successful",
    " next: ",
    "target[",
    "register dax_region",
    "Reading event logs",
    "Errors Mask",
    "No CXL FWCTL",
    "Fallback order",
    "Built ",
    "Policy zone",
    "found in target list, index",
    "host supports CXL",
    "Sending command",
    "Doorbell wait",
    "add: nvdimm-bridge",
    " added\n",
    "add to new port",
    "nsindex",
    "config data size",
    ": register pmem",
    "changing target node",
    "nvdimm nmem",
    "too small must be at least",
    "clocksource",
    "created port port",
];

/// What Linux says of a host that is busy, at whatever level.
const BUSY: &[&str] = &["hrtimer: interrupt took"];

/// How lines of a trace start, of which the first one says enough.
const TRACE: &[&str] = &[
    "Call Trace",
    "Modules linked",
    "Hardware name",
    "CPU: ",
    "Tainted",
    "<TASK>",
    "</TASK>",
    "---",
    "RIP",
    "RSP",
    "RAX",
    "RDX",
    "RBP",
    "R10",
    "R13",
    "FS:",
    "CS:",
    "CR2",
    "Code:",
    "PKRU",
    "? ",
];

/// A line of the log as it is kept: level, driver and device and what is said, without the time.
fn kept(line: &str) -> Option<String> {
    let (level, rest) = line.strip_prefix('<')?.split_once('>')?;
    let level: u32 = level.parse().ok()?;
    let (_, text) = rest.split_once("] ").unwrap_or(("", rest));
    let text = text.trim();
    let busy = BUSY.iter().any(|busy| text.contains(busy));
    let usual = level > 4 && USUAL.iter().any(|usual| format!("{text}\n").contains(usual));
    let assembled = level > 4
        && text.contains(" iw: ")
        && text.contains(" ig: ")
        && !text.contains("not supported");
    let trace = TRACE.iter().any(|start| text.starts_with(start)) || text.contains("+0x");
    (!busy && !usual && !assembled && !trace).then(|| format!("{level} {text}"))
}
