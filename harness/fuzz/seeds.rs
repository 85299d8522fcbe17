//! Writes the fuzz targets' seeds: what the machines of the reviewed snapshots hold.
//!
//! Usage: cargo run -p cxl-harness --example seeds SNAPSHOTS FOLDER. It is an example of the harness and
//! not one of the fuzz package, so that it is built without the targets' instruments.
//!
//! **Invariant**: each machine is brought up anew, and is held against its snapshot first; a seed is
//! of registers and a table that somebody has read.

#![allow(clippy::unwrap_used, reason = "seeds that cannot be made are an error, and nothing else")]

#[path = "../tests/guest/elf.rs"]
mod elf;

use std::fs;
use std::path::{Path, PathBuf};

use cxl_harness::run;
use cxl_model::image::{Images, components};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::acpi::cedt::Text;
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::mmio::Mmio;

fn main() {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(snapshots), Some(folder)) = (words.next(), words.next()) else {
        eprintln!("usage: seeds SNAPSHOTS FOLDER");
        std::process::exit(2);
    };
    for (number, builtin) in builtins().iter().enumerate() {
        let seeds = Seeds { folder: &folder, name: builtin.name, number: 2 * number as u8 };
        seeds.of(&snapshots.join(builtin.name), builtin.text);
    }
}

struct Seeds<'a> {
    folder: &'a Path,
    name: &'a str,
    /// By which the targets' machine is chosen.
    number: u8,
}

impl Seeds<'_> {
    fn put(&self, target: &str, what: &str, bytes: &[u8]) {
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}{what}", self.name)), bytes).unwrap();
    }

    fn of(&self, snapshots: &Path, text: &str) {
        self.put("scenario", "", text.as_bytes());
        self.put("models", "", &[self.number, 0]);
        self.put("guest", "", &[[0; 65].as_slice(), &[self.number]].concat());
        self.put("lint", "-spoilt", &[0, 2, self.number]);
        for choice in [0, 2, 0x20] {
            self.put("bring_up", &format!("-{choice}"), &[choice, self.number]);
        }
        if let Some(trace) = snapshot(&snapshots.join("trace.snap")) {
            let read = |line: &str| {
                let (_, value) = line.split_once(" read  -> 0x")?;
                u32::from_str_radix(value.get(..8)?, 16).ok()
            };
            let values = trace.lines().filter_map(read).flat_map(u32::to_le_bytes);
            let stream: Vec<u8> = [0x80, self.number].into_iter().chain(values).collect();
            self.put("bring_up", "-trace", &stream);
        }

        let mut machine = Machine::new(&Scenario::parse(text, self.name).unwrap());
        let tables = cxl_model::acpi::Tables::new(machine.scenario(), machine.map(), 0);
        let (mcfg, cedt) = (tables.table(&tables.mcfg), tables.table(&tables.cedt));
        self.put("tables", "", &[&[1, mcfg.len() as u8], mcfg, cedt].concat());
        self.put("tables", "-other", &[&[0, 0], tables.bytes.as_slice()].concat());
        let done = run::direct(&mut machine);
        if let Some(reviewed) = snapshot(&snapshots.join("registers.snap")) {
            assert_eq!(Images(&machine).to_string().trim(), reviewed.trim(), "{}", self.name);
        }
        if let Some(reviewed) = snapshot(&snapshots.join("cedt.snap")) {
            assert_eq!(Text(&done.cedt).to_string().trim(), reviewed.trim(), "{}", self.name);
            self.put("dumps", "-cedt", &[&[0], done.cedt.as_slice()].concat());
        }
        self.put("handoff", "", &done.handoff);
        let dump = |kind: &str, bytes: &[u8]| {
            let mut text = format!("dump begin {kind} 0x101000 {:#x}\n", bytes.len());
            for (line, bytes) in bytes.chunks(16).enumerate() {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                text += &format!("dump {:#06x}: {digits}\n", 16 * line);
            }
            text + &format!("dump end {kind}\n")
        };
        let console = dump("handoff", &done.handoff) + &dump("cedt", &done.cedt);
        self.put("console", "", console.as_bytes());
        self.put("captures", "-console", &[&[0], console.as_bytes()].concat());

        let fabric = machine.fabric();
        for (name, _, hdm) in components(&fabric) {
            self.put("dumps", &format!("-{name}-hdm"), &[&[0], hdm.bytes().as_slice()].concat());
            let set = "images = \"fuzz\"\n[[device]]\nregisters = \"a\"\n\0";
            let set = [&[0, 0], set.as_bytes(), &hdm.bytes()].concat();
            self.put("lint", &format!("-{name}-set"), &set);
            let table = (done.cedt.len() as u16).to_le_bytes();
            let block = (hdm.bytes().len() as u16).to_le_bytes();
            let dumps = [&[0, 1], &table, done.cedt.as_slice(), &block, &hdm.bytes()].concat();
            self.put("lint", &format!("-{name}-dumps"), &dumps);
        }
        for place in machine.places() {
            let name = machine.name(place).to_owned();
            if let Some(function) = machine.function(place) {
                self.put("config", &format!("-{name}"), function.bytes());
            }
            if let Some(registers) = machine.registers_of(place) {
                let dwords =
                    (0..BLOCK_SIZE.into()).step_by(4).map(|at| machine.read(registers + at));
                let block: Vec<u8> = dwords.flat_map(u32::to_le_bytes).collect();
                self.put("dumps", &format!("-{name}-block"), &[&[0], &block[..0x2000]].concat());
                self.put("config", &format!("-{name}-range"), &block[0x1000..0x2000]);
            }
        }
        let rows = |bytes: &[u8], row: fn(usize, &str) -> String| -> String {
            let rows = bytes.chunks(16).enumerate().map(|(index, bytes)| {
                let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                row(16 * index, &bytes.join(" "))
            });
            rows.collect()
        };
        let table = rows(&done.cedt, |at, bytes| format!("> {at:04X}: {bytes}  text\n"));
        let shown = "[{\"bus\":\"root0\",\"dports\":[{\"dport\":\"pci0000:0c\",\"id\":7}],\"decoders:root0\":[\
                     {\"decoder\":\"decoder0.0\",\"resource\":4294967296,\"size\":4294967296,\
                     \"interleave_ways\":1,\"targets\":[{\"id\":7}]}]}]\n\
                     /root0/port1/decoder1.0/start:0x100000000\n/root0/port1/decoder1.0/size:0x10000000\n\
                     100000000-1ffffffff : CXL Window 0\n  100000000-10fffffff : region0\n\
                     [000h 0000 004h]  Signature : \"CEDT\"\n[004h 0004 004h]  Length : 0000006C\n";
        self.put("captures", "-report", &[&[0], table.as_bytes(), shown.as_bytes()].concat());
        self.put("elf", "", &elf::image(b"\xF4"));
        self.put("qtest", "", b"OK 0x0000000000000012\nOK\nOK 0x01\nOK 0x000102030405060708090a0b0c0d0e0f1011121314151617\nOK\nIRQ raise 1\nFAIL\n");
    }
}

/// The reviewed text, without insta's head.
fn snapshot(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (_, body) = text.strip_prefix("---\n")?.split_once("---\n")?;
    Some(body.to_owned())
}
