//! The recording as a file: machines as Linux found them, what each set changed, and what came of it.
//!
//! **Invariant**: what is written here was read back from the machine or said by its Linux; what anybody
//! expected of it is not in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cxl_lint::{Bridge, Config, Device, Input, Port, Registers, Switch};
use cxl_model::fabric::{HdmImage, Parent};
use serde::Deserialize;

/// All that was recorded.
#[derive(Debug, Default, Deserialize)]
pub struct Recording {
    /// Kernels, as they came to it.
    pub kernel: Vec<Kernel>,
}

/// What one kernel did.
#[derive(Debug, Deserialize)]
pub struct Kernel {
    /// What `uname -r` says.
    pub version: String,
    /// The QEMU that it ran on.
    pub qemu: String,
    pub machine: Vec<Machine>,
    pub set: Vec<Set>,
}

/// A machine with nothing wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Machine {
    pub name: String,
    /// The table, as hex digits.
    pub cedt: String,
    /// Bases of the windows.
    pub windows: Vec<u64>,
    #[serde(default)]
    pub bridge: Vec<Component>,
    #[serde(default)]
    pub port: Vec<Component>,
    #[serde(default)]
    pub switch: Vec<Component>,
    #[serde(default)]
    pub device: Vec<Component>,
}

/// A component, with what it has of this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Component {
    pub name: String,
    /// As Linux prints it.
    pub address: String,
    /// What it hangs below.
    #[serde(default)]
    pub below: String,
    /// UID or Port Number.
    #[serde(default)]
    pub number: u32,
    /// Bytes of volatile and persistent memory.
    #[serde(default)]
    pub capacity: Vec<u64>,
    /// The HDM structure: OFFSET=DWORD, hexadecimal, those that are not 0.
    #[serde(default)]
    pub hdm: String,
    /// Configuration space, the same.
    #[serde(default)]
    pub config: String,
}

/// What was changed, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Set {
    pub name: String,
    pub machine: String,
    /// COMPONENT STRUCTURE OFFSET=DWORD, or `cedt` and the table.
    #[serde(default)]
    pub change: Vec<String>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What Linux made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Outcome {
    /// Components that have a port or an endpoint, and how many decoders.
    pub port: Vec<String>,
    /// BASE SIZE WAYSxGRANULARITY MODE COMMIT LOCKED TARGETS
    pub region: Vec<String>,
    /// Ranges with a user, and who that is.
    pub memory: Vec<String>,
    /// The level, and the line of the log.
    pub log: Vec<String>,
}

/// Where it lies, as seen from the package that is built.
pub fn path() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // The folder of an unpacked package has another name than here.
    let lint = if env!("CARGO_PKG_NAME") == "cxl-lint" { package } else { package.join("lint") };
    lint.join("recorded/linux.toml")
}

pub fn load() -> Recording {
    match std::fs::read_to_string(path()) {
        Ok(text) => toml::from_str(&text).unwrap_or_else(|error| panic!("{error}")),
        Err(_) => Recording::default(),
    }
}

/// OFFSET=DWORD of those that are not 0.
pub fn sparse(dwords: &[u32]) -> String {
    let all = dwords.iter().enumerate().filter(|(_, dword)| **dword != 0);
    let all: Vec<_> = all.map(|(at, dword)| format!("{:x}={dword:x}", at * 4)).collect();
    all.join(" ")
}

/// How many dwords of a structure are kept: 32 decoders; all of configuration space.
pub const HDM: usize = 4 + 8 * 32;
pub const CONFIG: usize = 1024;

pub fn dense(text: &str, count: usize) -> Vec<u32> {
    let mut dwords = vec![0; count];
    for word in text.split_whitespace() {
        let (at, value) = word.split_once('=').expect("OFFSET=DWORD");
        let [at, value] = [at, value].map(|text| u32::from_str_radix(text, 16).expect("hex"));
        dwords[at as usize / 4] = value;
    }
    dwords
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn bytes(dwords: &[u32]) -> Vec<u8> {
    dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect()
}

impl Machine {
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        self.bridge.iter().chain(&self.port).chain(&self.switch).chain(&self.device)
    }

    pub fn component(&self, name: &str) -> &Component {
        self.components().find(|found| found.name == name).unwrap_or_else(|| panic!("{name}"))
    }

    fn component_mut(&mut self, name: &str) -> &mut Component {
        let all = self.bridge.iter_mut().chain(&mut self.port).chain(&mut self.switch);
        let mut all = all.chain(&mut self.device);
        all.find(|found| found.name == name).unwrap_or_else(|| panic!("{name}"))
    }

    /// The machine with these changes.
    pub fn with(&self, changes: &[String]) -> Self {
        let mut changed = self.clone();
        let mut structures: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
        for change in changes {
            let words: Vec<_> = change.split(' ').collect();
            match words.as_slice() {
                ["cedt", table] => changed.cedt = (*table).to_owned(),
                [name, "number", number] => {
                    changed.component_mut(name).number = number.parse().expect("a number");
                }
                [name, structure, dword] => {
                    let (at, value) = dword.split_once('=').expect("OFFSET=DWORD");
                    let [at, value] =
                        [at, value].map(|text| u32::from_str_radix(text, 16).expect("hex"));
                    let of = self.component(name);
                    let dwords =
                        structures.entry((name, structure)).or_insert_with(|| match *structure {
                            "hdm" => dense(&of.hdm, HDM),
                            _ => dense(&of.config, CONFIG),
                        });
                    dwords[at as usize / 4] = value;
                }
                _ => panic!("{change}: what is that?"),
            }
        }
        for ((name, structure), dwords) in structures {
            let of = changed.component_mut(name);
            let text = sparse(&dwords);
            if structure == "hdm" { of.hdm = text } else { of.config = text }
        }
        changed
    }

    /// As the linter takes it.
    pub fn input(&self) -> Input {
        let registers = |of: &Component| match of.hdm.as_str() {
            "" => Registers::NoHdm,
            hdm => Registers::Hdm(HdmImage::read(&bytes(&dense(hdm, HDM)))),
        };
        let address = |of: &Component| Some(of.address.clone());
        let bridges = self.bridge.iter().map(|of| Bridge {
            name: of.name.clone(),
            uid: Some(of.number),
            address: address(of),
            registers: registers(of),
        });
        let place = |all: &[Component], name: &str| all.iter().position(|of| of.name == name);
        let ports = self.port.iter().map(|of| Port {
            name: of.name.clone(),
            parent: place(&self.bridge, &of.below)
                .map(Parent::Bridge)
                .or(place(&self.switch, &of.below).map(Parent::Switch))
                .expect("a port hangs below something"),
            number: of.number as u8,
            address: address(of),
        });
        let switches = self.switch.iter().map(|of| Switch {
            name: of.name.clone(),
            port: place(&self.port, &of.below).expect("a switch hangs below a port"),
            address: address(of),
            registers: registers(of),
        });
        let devices = self.device.iter().map(|of| Device {
            name: of.name.clone(),
            port: place(&self.port, &of.below),
            address: address(of),
            registers: registers(of),
            config: Some(Config::read(&bytes(&dense(&of.config, CONFIG)))),
            capacity: Some((of.capacity[0], of.capacity[1])),
            status: Some(0x14),
        });
        Input {
            cedt: Some(unhex(&self.cedt)),
            bridges: bridges.collect(),
            ports: ports.collect(),
            switches: switches.collect(),
            devices: devices.collect(),
            prm: None,
        }
    }
}

/// Writes all of it: as TOML, a line for each fact.
pub fn store(recording: &Recording) {
    let mut out =
        "# What Linux did with broken sets of registers and tables, by its own word: written by\n\
                   # harness/tests/record.rs, and by nobody by hand.\n"
            .to_owned();
    for Kernel { version, qemu, machine, set } in &recording.kernel {
        out += &format!("\n[[kernel]]\nversion = {version:?}\nqemu = {qemu:?}\n");
        for of in machine {
            out += "\n[[kernel.machine]]\n";
            out += &format!("name = {:?}\ncedt = {:?}\n", of.name, of.cedt);
            out += &format!("windows = {:?}\n", of.windows);
            let kinds = [("bridge", &of.bridge), ("port", &of.port), ("switch", &of.switch)];
            for (kind, all) in kinds.into_iter().chain([("device", &of.device)]) {
                for of in all {
                    out += &format!("[[kernel.machine.{kind}]]\n");
                    out += &format!("name = {:?}\naddress = {:?}\n", of.name, of.address);
                    out += &format!("below = {:?}\nnumber = {}\n", of.below, of.number);
                    out += &format!("capacity = {:?}\n", of.capacity);
                    out += &format!("hdm = {:?}\nconfig = {:?}\n", of.hdm, of.config);
                }
            }
        }
        for of in set {
            out += "\n[[kernel.set]]\n";
            out += &format!("name = {:?}\nmachine = {:?}\n", of.name, of.machine);
            let outcome = &of.outcome;
            let lists = [("port", &outcome.port), ("region", &outcome.region)];
            let more = [("memory", &outcome.memory), ("log", &outcome.log)];
            for (name, list) in [("change", &of.change)].into_iter().chain(lists).chain(more) {
                match list.as_slice() {
                    [] if name == "change" => {}
                    [] => out += &format!("{name} = []\n"),
                    [one] => out += &format!("{name} = [{one:?}]\n"),
                    many => {
                        out += &format!("{name} = [\n");
                        many.iter().for_each(|one| out += &format!("  {one:?},\n"));
                        out += "]\n";
                    }
                }
            }
        }
    }
    std::fs::create_dir_all(path().parent().expect("a folder")).expect("a folder");
    std::fs::write(path(), out).expect("it is written");
}
