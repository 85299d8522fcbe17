//! A model's machine as the files that Linux has of one: sysfs, `/proc`, `/dev/mem`.
//!
//! **Invariant**: every byte of a register is one that the model answers with.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use cxl_harness::run;
use cxl_lint::Input;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Parent, Place, Scenario};
use cxl_regs::acpi::cedt::Cedt;
use cxl_regs::mmio::Mmio;

/// The serial number of the first device; each further one has one more.
pub(crate) const SERIAL: u64 = 0x00C0_FFEE_1234_5678;

/// A machine, the table that it was handed over with, and a Linux's files of it.
pub(crate) struct StandIn {
    pub(crate) machine: Machine,
    pub(crate) cedt: Vec<u8>,
    root: tempfile::TempDir,
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

impl StandIn {
    /// A scenario's machine, set up by the library.
    pub(crate) fn of(text: &str) -> Self {
        let scenario = Scenario::parse(text, "machine").unwrap();
        let mut machine = Machine::new(&scenario);
        let done = run::direct(&mut machine);
        let cedt = Input::of(&machine, &done.cedt).cedt.unwrap();
        let mut made = Self { machine, cedt, root: tempfile::tempdir().unwrap() };
        made.tables();
        made.bridges();
        made.functions();
        made
    }

    /// The directory that stands for `/`.
    pub(crate) fn root(&self) -> String {
        self.root.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn tables(&self) {
        write(&self.path("sys/firmware/acpi/tables/CEDT"), &self.cedt);
        write(&self.path("proc/sys/kernel/osrelease"), "7.3.4-test\n");
        write(&self.path("proc/iomem"), "00001000-0009ffff : System RAM\n000a0000-000bffff : x\n");
        let log = "6,1,900000,-;Linux version 7.3.4\n6,2,1200000,-;ACPI: CEDT 0x7FFF0000 0000A4\n";
        write(&self.path("dev/kmsg"), log);
        fs::create_dir_all(self.path("sys/bus/pci/devices")).unwrap();
        fs::create_dir_all(self.path("sys/bus/acpi/devices")).unwrap();
    }

    /// ACPI's devices, and registers of host bridges at their addresses.
    fn bridges(&mut self) {
        let memory = File::create(self.path("dev/mem")).unwrap();
        let scenario = self.machine.scenario().clone();
        let map = self.machine.map().clone();
        for (index, (bridge, place)) in scenario.bridges.iter().zip(&map.bridges).enumerate() {
            let device = self.path(&format!("sys/bus/acpi/devices/ACPI0016:{index:02x}"));
            write(&device.join("uid"), format!("{}\n", bridge.uid));
            let node = format!("pci{:04x}:{:02x}", bridge.segment, place.first_bus);
            fs::create_dir_all(self.path(&format!("sys/devices/{node}"))).unwrap();
            symlink(format!("../../../../devices/{node}"), device.join("physical_node")).unwrap();
        }
        let cedt = self.cedt.clone();
        for chbs in Cedt::read(&cedt).unwrap().host_bridges() {
            let registers = chbs.registers();
            for offset in (0..registers.size().min(0x2000)).step_by(4) {
                let at = registers.base().0 + offset;
                memory.write_all_at(&self.machine.read(at).to_le_bytes(), at).unwrap();
            }
            // The last of a page can be mapped where the file goes on.
            let end = registers.base().0 + registers.size();
            memory.set_len(memory.metadata().unwrap().len().max(end)).unwrap();
        }
    }

    /// PCI functions, each in the folder of the one above.
    fn functions(&mut self) {
        let places = self.machine.places();
        let mut serial = SERIAL;
        for place in places {
            if let Place::Device(device) = place {
                if !self.machine.present(device) {
                    continue;
                }
                self.machine.function_mut(place).unwrap().add_serial_number(serial);
                serial += 1;
            }
            let Some(folder) = self.folder(place) else { continue };
            let path = self.path(&format!("sys/devices/{folder}"));
            let function = self.machine.function(place).unwrap();
            let config = function.bytes().to_vec();
            let class = u32::from_le_bytes(config[8..12].try_into().unwrap()) >> 8;
            write(&path.join("config"), &config);
            write(&path.join("class"), format!("{class:#08x}\n"));
            let bars: Vec<_> = (0..6u8).map(|bar| function.bar(bar)).collect();
            let mut resource = String::new();
            for (bar, span) in bars.into_iter().enumerate() {
                let Some(span) = span else {
                    resource += "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
                    continue;
                };
                let (first, last) = (span.base().0, span.last().0);
                resource += &format!("{first:#018x} {last:#018x} 0x0000000000140204\n");
                let file = File::create(path.join(format!("resource{bar}"))).unwrap();
                file.set_len(span.size()).unwrap();
                for offset in (0..span.size().min(0x2000)).step_by(4) {
                    let value = self.machine.read(first + offset).to_le_bytes();
                    file.write_all_at(&value, offset).unwrap();
                }
            }
            write(&path.join("resource"), resource);
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let link = self.path(&format!("sys/bus/pci/devices/{name}"));
            symlink(format!("../../../devices/{folder}"), link).unwrap();
        }
    }

    /// `pci0000:0c/0000:0c:00.0/0000:0d:00.0`; `None` where configuration space has no such function.
    fn folder(&self, place: Place) -> Option<String> {
        let scenario = self.machine.scenario();
        let map = self.machine.map();
        let above = |parent: Parent| match parent {
            Parent::Bridge(index) => {
                let segment = scenario.bridges[index].segment;
                Some(format!("pci{segment:04x}:{:02x}", map.bridges[index].first_bus))
            }
            Parent::Switch(index) => self.folder(Place::Switch(index)),
        };
        self.machine.function(place)?;
        let (folder, segment, bus, slot) = match place {
            Place::Bridge(_) => return None,
            Place::Port(index) => {
                let at = &map.ports[index];
                (above(scenario.ports[index].parent)?, at.segment, at.bus, at.slot)
            }
            Place::Switch(index) => {
                let at = &map.switches[index];
                (self.folder(Place::Port(scenario.switches[index].port))?, at.segment, at.bus, 0)
            }
            Place::Device(index) => {
                let port = scenario.devices[index].port;
                let at = &map.ports[port];
                (self.folder(Place::Port(port))?, at.segment, at.secondary, 0)
            }
        };
        Some(format!("{folder}/{segment:04x}:{bus:02x}:{slot:02x}.0"))
    }
}
