//! A machine as files, in the forms in which people have theirs: an image set with the dumps that it names,
//! and the same facts as `acpidump`, `lspci` and our image print them.
//!
//! **Invariant**: every byte is one that the machine answers with, or of the table that is handed over. No
//! component's name leads to a file elsewhere.

use std::fmt::Write as _;

use cxl_lint::{Input, Registers};
use cxl_model::fabric::Parent;
use cxl_model::machine::Machine;
use cxl_model::scenario::Place;
pub(crate) use cxl_model::store::file_name;
use cxl_regs::component::RANGE_SIZE;
use cxl_regs::mmio::Mmio;

/// The file that says which dump is what; its presence makes a directory an image set.
pub const SET: &str = "machine.toml";
/// The kernel's log of a machine that was collected.
pub const LOG: &str = "log.txt";
/// How the name of a file ends that has device registers, a dword a line.
pub const DEVICE_REGISTERS: &str = "device";

/// The files, each with its name: [`SET`] first.
pub fn files(machine: &mut Machine, cedt: &[u8]) -> Vec<(String, Vec<u8>)> {
    let input = Input::of(machine, cedt);
    let table = input.cedt.clone().unwrap_or_default();
    let subject = machine.scenario().name.clone();
    let mut files = Vec::new();
    let mut set = format!(
        "# Which dump is what. `cxl-harness lint` and `explain` take the directory or this file.\n\
         images = {}\ncedt = \"cedt.dat\"\n",
        quoted(&subject)
    );
    files.push(("cedt.dat".to_owned(), table.clone()));
    files.push(("acpidump.txt".to_owned(), acpidump(&table).into_bytes()));
    let mut console =
        format!("cxl firmware, as its image prints it\n{}", section("cedt", "", &table));
    let mut functions = String::new();
    // Components whose registers do not answer.
    let mut silent: Vec<&str> = Vec::new();
    // Writing to a String cannot fail.
    for (index, bridge) in input.bridges.iter().enumerate() {
        let uid = bridge.uid.unwrap_or_default();
        let name = quoted(&bridge.name);
        let _ = write!(set, "\n[[bridge]]\nname = {name}\nuid = {uid}\n");
        address(&mut set, bridge.address.as_deref());
        match &bridge.registers {
            // What a CXL 1.1 host has in the place of a register block.
            Registers::Rcrb(dwords) => {
                let dwords = dwords.map(|dword| format!("{dword:#010x}")).join(", ");
                let _ = writeln!(set, "rcrb = [{dwords}]");
            }
            _ => {
                let block = block(machine, Place::Bridge(index));
                named(&mut set, &mut files, &mut silent, &bridge.name, block);
            }
        }
        if let Registers::Hdm(hdm) = &bridge.registers {
            console += &section("hdm", &format!(" host-bridge {uid}"), &hdm.bytes());
        }
    }
    for (index, port) in input.ports.iter().enumerate() {
        let above = match port.parent {
            Parent::Bridge(bridge) => input.bridges.get(bridge).map(|it| it.name.as_str()),
            Parent::Switch(switch) => input.switches.get(switch).map(|it| it.name.as_str()),
        };
        let (name, number) = (quoted(&port.name), port.number);
        let below = quoted(above.unwrap_or_default());
        let _ = write!(set, "\n[[port]]\nname = {name}\nbelow = {below}\nnumber = {number}\n");
        address(&mut set, port.address.as_deref());
        functions += &lspci(machine, Place::Port(index), port.address.as_deref(), "PCI bridge");
    }
    for (index, switch) in input.switches.iter().enumerate() {
        let below = quoted(input.ports.get(switch.port).map_or("", |port| port.name.as_str()));
        let name = quoted(&switch.name);
        let _ = write!(set, "\n[[switch]]\nname = {name}\nbelow = {below}\n");
        address(&mut set, switch.address.as_deref());
        let block = block(machine, Place::Switch(index));
        named(&mut set, &mut files, &mut silent, &switch.name, block);
        functions += &lspci(machine, Place::Switch(index), switch.address.as_deref(), "PCI bridge");
        if let Registers::Hdm(hdm) = &switch.registers {
            console += &section("hdm", &seat("upstream-port", &input, switch.port), &hdm.bytes());
        }
    }
    for device in &input.devices {
        let port = device.port.unwrap_or(usize::MAX);
        let below = quoted(input.ports.get(port).map_or("", |port| port.name.as_str()));
        let name = &device.name;
        let _ = write!(set, "\n[[device]]\nname = {}\nbelow = {below}\n", quoted(name));
        address(&mut set, device.address.as_deref());
        let Some(place) = machine.find(name) else { continue };
        let block = block(machine, place);
        named(&mut set, &mut files, &mut silent, name, block);
        let function = lspci(machine, place, device.address.as_deref(), "CXL memory device");
        if !function.is_empty() {
            let file = format!("{}.lspci", file_name(name));
            let _ = writeln!(set, "config = {}", quoted(&file));
            files.push((file, function.clone().into_bytes()));
            functions += &function;
        }
        if let Some((volatile, persistent)) = device.capacity {
            let _ = writeln!(set, "volatile = {volatile}\npersistent = {persistent}");
        }
        if let Some(status) = device.status {
            let _ = writeln!(set, "status = {status}");
        }
        let seat = seat("device", &input, port);
        if let Registers::Hdm(hdm) = &device.registers {
            console += &section("hdm", &seat, &hdm.bytes());
        }
        if let Some(bytes) = dvsec(machine, place) {
            console += &section("dvsec", &seat, &bytes);
        }
    }
    for name in silent {
        let what = quoted(&format!("registers of {name}"));
        let _ = write!(
            set,
            "\n[[withheld]]\nwhat = {what}\nwhy = \"they read as all-ones: nothing answers\"\n"
        );
    }
    files.push(("console.log".to_owned(), console.into_bytes()));
    files.push(("lspci.txt".to_owned(), functions.into_bytes()));
    files.insert(0, (SET.to_owned(), set.into_bytes()));
    files
}

fn address(set: &mut String, address: Option<&str>) {
    if let Some(address) = address {
        let _ = writeln!(set, "address = {}", quoted(address));
    }
}

/// A text as TOML has it.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The CXL.cache/mem range of a component; nothing where it has no registers.
fn block(machine: &mut Machine, place: Place) -> Option<Vec<u8>> {
    let base = machine.registers_of(place)? + u64::from(RANGE_SIZE);
    let dwords = (0..u64::from(RANGE_SIZE)).step_by(4);
    Some(dwords.flat_map(|offset| machine.read(base + offset).to_le_bytes()).collect())
}

fn named<'a>(
    set: &mut String,
    files: &mut Vec<(String, Vec<u8>)>,
    silent: &mut Vec<&'a str>,
    name: &'a str,
    block: Option<Vec<u8>>,
) {
    match block {
        // That nothing answers is no register block: nobody knows what is in it.
        Some(block) if block.iter().all(|&byte| byte == 0xFF) => silent.push(name),
        Some(block) => {
            let file = format!("{}.bin", file_name(name));
            let _ = writeln!(set, "registers = {}", quoted(&file));
            files.push((file, block));
        }
        None => set.push_str("registers = \"none\"\n"),
    }
}

fn rows(bytes: &[u8], row: impl Fn(usize, &str, &str) -> String) -> String {
    let rows = bytes.chunks(16).enumerate().map(|(index, bytes)| {
        let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters = bytes.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        });
        row(16 * index, &pairs.join(" "), &letters.collect::<String>())
    });
    rows.collect()
}

fn acpidump(table: &[u8]) -> String {
    let rows = rows(table, |offset, bytes, letters| {
        format!("    {offset:04X}: {:<47}  {letters}\n", bytes.to_uppercase())
    });
    format!("CEDT @ 0x0000000000000000\n{rows}\n")
}

fn lspci(machine: &Machine, place: Place, address: Option<&str>, kind: &str) -> String {
    let (Some(function), Some(address)) = (machine.function(place), address) else {
        return String::new();
    };
    // A name is no second line.
    let name = machine.name(place).escape_debug();
    lspci_text(address, &format!("{kind}: {name}"), function.bytes())
}

/// A function as `lspci -xxxx` prints it.
pub(crate) fn lspci_text(address: &str, what: &str, config: &[u8]) -> String {
    let rows = rows(config, |offset, bytes, _| format!("{offset:02x}: {bytes}\n"));
    format!("{address} {what}\n{rows}\n")
}

/// The bytes of a function's CXL Device DVSEC.
fn dvsec(machine: &Machine, place: Place) -> Option<Vec<u8>> {
    use cxl_regs::dvsec::{DvsecHeader1, DvsecId, Dvsecs};
    let bytes = machine.function(place)?.bytes();
    let found = Dvsecs::new(cxl_regs::block::image(bytes)).find(DvsecId::Device).ok()??;
    let header: DvsecHeader1 = cxl_regs::block::read(cxl_regs::block::image(bytes), found.offset);
    let start = usize::from(found.offset);
    bytes.get(start..start + usize::from(header.length())).map(<[u8]>::to_vec)
}

/// A component's place: the UID of its bridge, and port numbers on the way down.
fn seat(kind: &str, input: &Input, port: usize) -> String {
    let mut ports = Vec::new();
    let mut at = port;
    // No port has more switches above it than there are.
    for _ in 0..=input.switches.len() {
        let Some(port) = input.ports.get(at) else { break };
        ports.push(port.number.to_string());
        match port.parent {
            Parent::Switch(switch) => {
                at = input.switches.get(switch).map_or(usize::MAX, |switch| switch.port);
            }
            Parent::Bridge(bridge) => {
                let uid = input.bridges.get(bridge).and_then(|bridge| bridge.uid);
                ports.reverse();
                return format!(" {kind} {} {}", uid.unwrap_or_default(), ports.join("."));
            }
        }
    }
    String::new()
}

fn section(kind: &str, place: &str, bytes: &[u8]) -> String {
    let mut text = format!("dump begin {kind} 0x0 {:#x}{place}\n", bytes.len());
    for (index, row) in bytes.chunks(32).enumerate() {
        let digits: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "dump {:#06x}: {digits}", 32 * index);
    }
    text + &format!("dump end {kind}\n")
}
