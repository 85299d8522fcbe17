//! The linter's input out of captures: dumps that say where they sit, dumps that do not, and what Linux
//! shows, of one machine.
//!
//! **Invariant**: what hangs below what is taken from what says so. A dump that says nothing of its place
//! has none, and what nobody gave is unknown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cxl_model::capture::witness::Witness;
use cxl_model::capture::{Capture, Content, Found, Seat};
use cxl_model::dump::{Dump, Kind};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_regs::{Component, block};

use super::images::{ImagesError, SILENT, in_full};
use super::input::{
    Bridge, Config, Device, DeviceDvsec, Input, MEMORY_DEVICE, Port, Registers, Switch,
    shown_in_part,
};
use super::records::{Records, own};
use super::witness;

/// A function of a machine: its name, its address in full, its configuration space, and where that stands.
struct Function {
    name: String,
    address: Option<String>,
    space: Vec<u8>,
    place: String,
}

/// What has been gathered of a machine.
#[derive(Default)]
struct Machine {
    input: Input,
    remarks: Vec<String>,
    functions: Vec<Function>,
    /// Port Numbers below a bridge's UID, to an index into [`Input::ports`].
    ports: BTreeMap<(u32, Vec<u8>), usize>,
}

impl Input {
    /// Out of captures, each with its file's name; and what is to be known of it.
    pub fn of_captures(
        captures: &[(PathBuf, Capture)],
    ) -> Result<(Self, Vec<String>), ImagesError> {
        let mut machine = Machine::default();
        let mut seen = Witness::default();
        for (file, capture) in captures {
            machine.remarks.extend(capture.remarks.iter().cloned());
            for found in &capture.found {
                match &found.content {
                    Content::Witness(witness) => seen.merge(witness.clone()),
                    _ => machine.take(file, found)?,
                }
            }
        }
        if !seen.is_empty() {
            let remarks = witness::take(&mut machine.input, &seen);
            machine.remarks.extend(remarks);
        }
        machine.bridges_of_the_table();
        machine.join();
        Ok((machine.input, machine.remarks))
    }

    /// Out of dumps by themselves, each with its file's name: a table, decoders, configuration
    /// space. Nobody says how they hang together, except that one device's registers and one
    /// function's configuration space are of one device.
    pub fn of_dumps(dumps: &[(PathBuf, Dump)]) -> Result<Self, ImagesError> {
        let mut machine = Machine::default();
        for (file, dump) in dumps {
            machine.dump(file, None, dump)?;
        }
        machine.join();
        Ok(machine.input)
    }
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

/// A dump's name: its file's, with its line where a file holds several things.
fn name(file: &Path, line: Option<usize>) -> String {
    let stem = stem(file);
    match line {
        Some(line) => format!("{stem}:{line}"),
        None => stem,
    }
}

/// Where a dump stands.
fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", file.display()),
        None => file.display().to_string(),
    }
}

/// Whether what was shown of one address is of two functions. Status bits come and go from one look to the
/// next; what a function is, and what is set up of CXL, does not.
fn is_another(one: &[u8], other: &[u8]) -> bool {
    let fixed =
        |space: &[u8]| (space.get(..4).map(<[u8]>::to_vec), space.get(8..12).map(<[u8]>::to_vec));
    let (parts, others) = (Config::read(one), Config::read(other));
    fixed(one) != fixed(other) || parts.is_whole() && others.is_whole() && parts != others
}

impl Machine {
    fn take(&mut self, file: &Path, found: &Found) -> Result<(), ImagesError> {
        match (&found.content, &found.seat) {
            (Content::Dump(dump), None) => {
                self.dump(file, found.lines.map(|(line, _)| line), dump)?;
            }
            (Content::Dump(dump), Some(seat)) => {
                let line = found.lines.map(|(line, _)| line);
                let registers = self.registers(file, line, dump.hdm().map(|(image, _)| image));
                match seat.component {
                    Component::HostBridge => {
                        let bridge = self.bridge(seat.uid);
                        if let Some(bridge) = self.input.bridges.get_mut(bridge) {
                            bridge.registers = registers;
                        }
                    }
                    Component::UpstreamPort => {
                        let switch = self.switch(seat.uid, &seat.ports);
                        if let Some(switch) = self.input.switches.get_mut(switch) {
                            switch.registers = registers;
                        }
                    }
                    Component::Device => self.device(seat).registers = registers,
                }
            }
            (Content::Dvsec(bytes), Some(seat)) => {
                let dvsec = DeviceDvsec::read(block::image(bytes));
                // The class code is not in the dump. What can cache is an accelerator, which the driver
                // of memory devices does not take.
                let caches = dvsec.capability & 1 != 0;
                let class = if caches { 0 } else { MEMORY_DEVICE };
                let config = Config { class, dvsec: Some(dvsec), serial: None };
                self.device(seat).config = Some(config);
            }
            _ => {}
        }
        Ok(())
    }

    fn dump(&mut self, file: &Path, line: Option<usize>, dump: &Dump) -> Result<(), ImagesError> {
        let name = name(file, line);
        match dump.kind() {
            // The same table in two forms is one table.
            Kind::Cedt
                if self.input.cedt.as_deref().is_some_and(|known| {
                    dump.sections().next().is_none_or(|(_, bytes)| own(bytes) != known)
                }) =>
            {
                return Err(ImagesError::SecondTable { file: file.to_owned() });
            }
            Kind::Cedt => {
                let Some((_, bytes)) = dump.sections().next() else { return Ok(()) };
                let table = own(bytes);
                if table.len() < bytes.len() {
                    self.remarks.push(format!(
                        "{}: {:#x} bytes behind the CEDT, which ends at {:#x}: nobody reads them",
                        place(file, line),
                        bytes.len() - table.len(),
                        table.len()
                    ));
                }
                self.input.cedt = Some(table.to_vec());
            }
            Kind::Config => {
                for (address, space) in dump.sections() {
                    let config = Config::read(space);
                    let alone = address.is_none();
                    if alone || config.class == MEMORY_DEVICE || config.dvsec.is_some() {
                        let name = address.map_or(name.clone(), str::to_owned);
                        let (address, space) = (address.map(in_full), space.to_vec());
                        let place = place(file, line);
                        self.function(Function { name, address, space, place })?;
                    }
                }
            }
            Kind::Component | Kind::Cachemem | Kind::Hdm => {
                let hdm = dump.hdm();
                let component = hdm.as_ref().map_or(Component::Device, |(_, component)| *component);
                let registers = self.registers(file, line, hdm.map(|(image, _)| image));
                match component {
                    Component::HostBridge => {
                        let bridge = Bridge { name, registers, ..Bridge::default() };
                        self.input.bridges.push(bridge);
                    }
                    Component::UpstreamPort => {
                        let port = usize::MAX;
                        self.input.switches.push(Switch { name, port, address: None, registers });
                    }
                    Component::Device => {
                        self.input.devices.push(Device { name, registers, ..Device::default() });
                    }
                }
            }
        }
        Ok(())
    }

    /// What a dump has of decoders. What does not answer is not known, and that is said.
    fn registers(&mut self, file: &Path, line: Option<usize>, hdm: Option<HdmImage>) -> Registers {
        match hdm {
            Some(image) if image.is_silent() => {
                self.remarks.push(format!("{}: registers: {SILENT}", place(file, line)));
                Registers::Unknown
            }
            Some(image) => Registers::Hdm(image),
            None => Registers::NoHdm,
        }
    }

    /// One more function. What has the address of an earlier one is that one, in the same words or with
    /// more or fewer of its bytes.
    fn function(&mut self, function: Function) -> Result<(), ImagesError> {
        let known = self
            .functions
            .iter_mut()
            .find(|known| known.address.is_some() && known.address == function.address);
        let Some(known) = known else {
            self.functions.push(function);
            return Ok(());
        };
        if is_another(&known.space, &function.space) {
            let (address, first) = (function.address.unwrap_or_default(), known.place.clone());
            return Err(ImagesError::SecondFunction { place: function.place, address, first });
        }
        if function.space.len() > known.space.len() {
            *known = function;
        }
        Ok(())
    }

    /// The image dumps what has decoders or leads to memory. What else the table names is there, and nothing
    /// is known of it.
    fn bridges_of_the_table(&mut self) {
        if self.ports.is_empty() {
            return;
        }
        let table = self.input.cedt.clone().unwrap_or_default();
        for uid in Records::of(&table).chbs.iter().map(|chbs| chbs.uid.get()) {
            let before = self.input.bridges.len();
            let index = self.bridge(uid);
            if self.input.bridges.len() > before
                && let Some(bridge) = self.input.bridges.get_mut(index)
            {
                bridge.registers = Registers::Unknown;
            }
        }
    }

    /// The bridge of a UID. The image dumps every component with decoders, so that one without a dump
    /// has none.
    fn bridge(&mut self, uid: u32) -> usize {
        let bridges = &mut self.input.bridges;
        if let Some(known) = bridges.iter().position(|bridge| bridge.uid == Some(uid)) {
            return known;
        }
        let name = format!("hb{}", bridges.len());
        let registers = Registers::NoHdm;
        bridges.push(Bridge { name, uid: Some(uid), address: None, registers });
        bridges.len() - 1
    }

    /// The port at the end of a way of Port Numbers, with everything above it.
    fn port(&mut self, uid: u32, way: &[u8]) -> usize {
        if let Some(&known) = self.ports.get(&(uid, way.to_vec())) {
            return known;
        }
        let Some((&number, above)) = way.split_last() else { return usize::MAX };
        let parent = match above {
            [] => Parent::Bridge(self.bridge(uid)),
            above => Parent::Switch(self.switch(uid, above)),
        };
        let index = self.input.ports.len();
        let name = format!("port{index}");
        self.input.ports.push(Port { name, parent, number, address: None });
        self.ports.insert((uid, way.to_vec()), index);
        index
    }

    /// The switch below a port.
    fn switch(&mut self, uid: u32, way: &[u8]) -> usize {
        let port = self.port(uid, way);
        let switches = &mut self.input.switches;
        if let Some(known) = switches.iter().position(|switch| switch.port == port) {
            return known;
        }
        let name = format!("switch{}", switches.len());
        switches.push(Switch { name, port, address: None, registers: Registers::NoHdm });
        switches.len() - 1
    }

    /// The device below a port.
    fn device(&mut self, seat: &Seat) -> &mut Device {
        let port = Some(self.port(seat.uid, &seat.ports));
        let devices = &mut self.input.devices;
        let known = devices.iter().position(|device| device.port == port);
        let index = known.unwrap_or(devices.len());
        if known.is_none() {
            let name = format!("mem{index}");
            let registers = Registers::NoHdm;
            devices.push(Device { name, port, registers, ..Device::default() });
        }
        // The index was just looked up or made.
        match devices.get_mut(index) {
            Some(device) => device,
            None => unreachable!("a device that was just put there"),
        }
    }

    /// Puts functions' configuration space to their devices: by address; where there is one of each,
    /// to that one.
    fn join(&mut self) {
        let functions = std::mem::take(&mut self.functions);
        let alone = functions.len() == 1;
        for Function { name, address, space, .. } in functions {
            let config = Config::read(&space);
            let whole = config.is_whole();
            let config = config.known();
            if !whole {
                let of = address.as_ref().unwrap_or(&name);
                self.remarks.push(format!("{of}: {}", shown_in_part(space.len())));
            }
            let devices = &mut self.input.devices;
            let known = devices.iter().position(|device| {
                address.is_some() && device.address == address
                    || alone && device.address.is_none() && device.config.is_none()
            });
            let known = known.filter(|_| !alone || devices.len() == 1 || address.is_some());
            match known.and_then(|at| devices.get_mut(at)) {
                Some(device) => {
                    device.address = device.address.take().or(address);
                    device.config = config.or(device.config.take());
                }
                None => {
                    devices.push(Device { name, address, config, ..Device::default() });
                }
            }
        }
    }
}
