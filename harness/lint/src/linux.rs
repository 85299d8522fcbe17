//! Linux's objects, and how they come up: a port for each host bridge and switch, an endpoint for
//! each device, with the decoders that their registers hold (`core/port.c`, `core/hdm.c`,
//! `core/pci.c`, `mem.c`).
//!
//! **Invariant**: the order of the checks is Linux's, as a component is refused for the first one
//! that fails.

use cxl_regs::hdm::{Control, DecoderImage};
use libc::{EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENOMEM, ENXIO, ETIMEDOUT, c_int};

use super::input::{Config, DeviceDvsec, Input, MEMORY_DEVICE, Registers};
use super::kernel::{Change, Linux};
use super::refusal::{Attempt, Refusal, Said};
use super::system::{
    AddressRange, Decoder, Host, Kind, Mode, PortState, Root, System, granularity, ways,
};
use super::{Finding, Level, Message, Rule, Severity};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_model::words::counted;

/// The most levels of switches that are followed.
const MAX_DEPTH: usize = 64;

/// Follows one kernel through a machine.
pub(super) fn run(input: &Input, linux: Linux) -> Vec<Finding> {
    bring_up(input, linux).findings
}

/// The machine as one kernel has it in the end.
pub(super) fn bring_up(input: &Input, linux: Linux) -> System<'_> {
    let mut system = System {
        input,
        linux,
        findings: Vec::new(),
        hosts: vec![Host::default(); input.bridges.len()],
        roots: Vec::new(),
        ports: Vec::new(),
        regions: Vec::new(),
        next_region: 0,
        switches: vec![None; input.switches.len()],
        memory_devices: 0,
    };
    let table = system.read_table();
    if !table {
        for host in &mut system.hosts {
            host.known = true;
        }
    }
    system.next_region = system.roots.len();
    for bridge in 0..input.bridges.len() {
        system.bridge(bridge);
    }
    for device in 0..input.devices.len() {
        system.device(device);
    }
    // Switches without a device are never looked at by Linux; given alone, they are.
    for switch in 0..input.switches.len() {
        if input.devices.is_empty() {
            system.switch(switch, MAX_DEPTH);
        }
    }
    system.conclude();
    system
}

/// The range registers of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Ranges {
    mem_enabled: bool,
    ranges: [Option<AddressRange>; 2],
    count: usize,
}

impl<'i> System<'i> {
    /// The number of the next port that comes up; 0 is the root.
    fn next_id(&self) -> usize {
        self.ports.len() + 1
    }

    pub(super) fn name(&self, port: &PortState) -> String {
        match port.kind {
            Kind::Endpoint(..) => format!("endpoint{}", port.id),
            _ => format!("port{}", port.id),
        }
    }

    /// The component behind a port, by its name in the input.
    pub(super) fn component(&self, port: &PortState) -> &'i str {
        let input = self.input;
        match port.kind {
            Kind::Bridge(index) => input.bridges.get(index).map(|bridge| &bridge.name),
            Kind::Switch(index) => input.switches.get(index).map(|switch| &switch.name),
            Kind::Endpoint(index, _) => input.devices.get(index).map(|device| &device.name),
        }
        .map_or("", String::as_str)
    }

    /// The component behind a port that is up.
    pub(super) fn component_of(&self, port: usize) -> &'i str {
        self.ports.get(port).map_or("", |port| self.component(port))
    }

    /// Driver and name of the device that a port belongs to.
    pub(super) fn uport(&self, port: &PortState) -> (&'static str, String) {
        let or_name = |address: Option<&String>, name: Option<&String>| {
            address.or(name).cloned().unwrap_or_default()
        };
        match port.kind {
            Kind::Bridge(index) => {
                let bridge = self.input.bridges.get(index);
                let address = bridge.and_then(|bridge| bridge.address.as_ref());
                ("", or_name(address, bridge.map(|bridge| &bridge.name)))
            }
            Kind::Switch(index) => {
                let switch = self.input.switches.get(index);
                let address = switch.and_then(|switch| switch.address.as_ref());
                ("pcieport", or_name(address, switch.map(|switch| &switch.name)))
            }
            Kind::Endpoint(_, memory) => ("cxl_mem", format!("mem{memory}")),
        }
    }

    /// Linux's name of a downstream port.
    pub(super) fn dport_name(&self, port: Option<usize>) -> String {
        let port = port.and_then(|port| self.input.ports.get(port));
        port.map_or_else(String::new, |port| {
            port.address.clone().unwrap_or_else(|| port.name.clone())
        })
    }

    fn dports(&self, parent: Parent) -> Vec<usize> {
        let ports = self.input.ports.iter().enumerate();
        ports.filter(|(_, port)| port.parent == parent).map(|(index, _)| index).collect()
    }

    fn bridge(&mut self, index: usize) {
        let input = self.input;
        let (Some(bridge), Some(host)) = (input.bridges.get(index), self.hosts.get(index)) else {
            return;
        };
        if !host.known || host.restricted {
            return;
        }
        let kind = Kind::Bridge(index);
        let port = self.port(kind, Parent::Bridge(index), None, None, index, &bridge.registers);
        if let Some(host) = self.hosts.get_mut(index) {
            host.port = port;
        }
    }

    /// The port of a switch, once it and everything above it is up.
    fn switch(&mut self, index: usize, depth: usize) -> Option<usize> {
        let input = self.input;
        if let Some(known) = self.switches.get(index).copied().flatten() {
            return known;
        }
        if let Some(state) = self.switches.get_mut(index) {
            // A switch below itself has no way up.
            *state = Some(None);
        }
        let switch = input.switches.get(index)?;
        let (parent, bridge) = match input.ports.get(switch.port).map(|port| port.parent) {
            Some(above) => {
                let parent = self.parent(above, depth.checked_sub(1)?)?;
                (Some(parent), self.ports.get(parent)?.bridge)
            }
            None => (None, 0),
        };
        let dport = Some(switch.port);
        let below = Parent::Switch(index);
        let registers = &switch.registers;
        let port = self.port(Kind::Switch(index), below, parent, dport, bridge, registers);
        if let Some(state) = self.switches.get_mut(index) {
            *state = Some(port);
        }
        port
    }

    fn parent(&mut self, parent: Parent, depth: usize) -> Option<usize> {
        match parent {
            Parent::Bridge(bridge) => self.hosts.get(bridge)?.port,
            Parent::Switch(switch) => self.switch(switch, depth),
        }
    }

    /// Brings up the port of a bridge or switch.
    fn port(
        &mut self,
        kind: Kind,
        below: Parent,
        parent: Option<usize>,
        dport: Option<usize>,
        bridge: usize,
        registers: &Registers,
    ) -> Option<usize> {
        let mut port = PortState {
            kind,
            id: self.next_id(),
            parent,
            dport,
            bridge,
            unknown: *registers == Registers::Unknown,
            pass_through: false,
            decoders: vec![],
            target_count: 0,
            selectors: 0,
            ways: 0,
            regions: vec![],
        };
        let dports = self.dports(below);
        match self.port_decoders(&mut port, &dports, registers) {
            Ok(()) => {
                self.hidden(self.component(&port), registers);
                self.targets_once(&port);
                self.ports.push(port);
                Some(self.ports.len() - 1)
            }
            Err(mut refusal) => {
                let device = self.name(&port);
                if self.linux.has(Change::LateTargets) {
                    refusal = self.late_attempts(refusal, &port, below, registers);
                } else {
                    if ![ENXIO, ENODEV].contains(&refusal.errno) {
                        refusal = refusal.driver_failed("cxl_port", &device);
                    }
                    if matches!(kind, Kind::Bridge(_)) {
                        refusal = self.second_attempt(refusal, &port, registers);
                    }
                }
                let name = self.component(&port);
                let lost = format!("the whole port is given up: no device below {name} is used");
                self.findings.push(refusal.finding(name, lost));
                None
            }
        }
    }

    /// What a bridge's port says when it is tried again, as it is once all of the table has been
    /// read: it still remembers the decoders that it had found committed. A switch's port is made
    /// anew.
    fn second_attempt(&self, refusal: Refusal, port: &PortState, registers: &Registers) -> Refusal {
        let before = refusal.decoder.map_or(0, usize::from);
        let Some(hdm) = registers.hdm() else { return refusal };
        // Ways, granularity and targets are looked up after the decoder has been taken for committed.
        let counted = [Rule::Ways, Rule::Granularity, Rule::Targets].contains(&refusal.rule);
        let before = before + usize::from(counted);
        let committed = hdm.decoders.iter().take(before);
        let Some(first) = { committed }.position(|image| image.control().committed()) else {
            return refusal;
        };
        let name = self.name(port);
        let device = ("cxl_port", name.as_str());
        let id = port.id;
        refusal
            .warning(device, format!("decoder{id}.{first}: Committed out of order"))
            .warning(device, format!("Failed to initialize decoder{id}.{first}"))
    }

    /// From 6.18 on a port's decoders are looked at as the first device below it comes up, and again
    /// with each further one. The error is the memory device's.
    fn late_attempts(
        &self,
        mut refusal: Refusal,
        port: &PortState,
        below: Parent,
        registers: &Registers,
    ) -> Refusal {
        let mut devices = (0..self.input.devices.len()).filter(|device| self.hangs(*device, below));
        let Some(first) = devices.next() else { return refusal };
        if ![ENXIO, ENODEV].contains(&refusal.errno) {
            let memory = format!("mem{first}");
            let errno = refusal.errno;
            refusal = refusal.debug(("cxl_mem", &memory), format!("probe: -{errno}"));
            refusal = refusal.driver_failed("cxl_mem", &memory);
        }
        match devices.next() {
            Some(_) => self.second_attempt(refusal, port, registers),
            None => refusal,
        }
    }

    /// Whether a device hangs somewhere below a bridge or switch.
    fn hangs(&self, device: usize, below: Parent) -> bool {
        let input = self.input;
        let mut port = input.devices.get(device).and_then(|device| device.port);
        for _ in 0..MAX_DEPTH {
            let Some(parent) = port.and_then(|port| input.ports.get(port)).map(|port| port.parent)
            else {
                return false;
            };
            if parent == below {
                return true;
            }
            port = match parent {
                Parent::Switch(switch) => input.switches.get(switch).map(|switch| switch.port),
                Parent::Bridge(_) => None,
            };
        }
        false
    }

    fn port_decoders(
        &self,
        port: &mut PortState,
        dports: &[usize],
        registers: &Registers,
    ) -> Attempt<()> {
        let name = self.name(port);
        let device = ("cxl_port", name.as_str());
        let hdm = match registers {
            Registers::Unknown => return Ok(()),
            Registers::NoBlock | Registers::Rcrb(_) => {
                let found = "no component registers";
                return Err(Refusal::new(Rule::NoDecoderRegisters, ENXIO, found)
                    .error(device, "No component registers mapped")
                    .error(device, "Failed to map HDM decoder capability"));
            }
            Registers::NoHdm if dports.len() <= 1 => {
                port.pass_through = true;
                port.target_count = 1;
                port.selectors = u64::MAX;
                port.ways = u64::MAX;
                port.decoders.push(Decoder {
                    // Nothing, until a region is put there.
                    range: AddressRange { start: 0, end: u64::MAX },
                    ways: 1,
                    granularity: 4096,
                    enabled: false,
                    locked: false,
                    host_only: true,
                    targets: vec![dports.first().copied()],
                    dpa: None,
                    mode: None,
                });
                return Ok(());
            }
            Registers::NoHdm => {
                let found =
                    format!("no HDM capability, and {}", counted(dports.len(), "downstream port"));
                return Err(Refusal::new(Rule::NoDecoderRegisters, ENXIO, found)
                    .error(device, "HDM decoder capability not found"));
            }
            Registers::Hdm(hdm) => hdm,
        };
        let count = self.capability(port, hdm).map_err(|refusal| {
            if refusal.errno == ENOMEM {
                return self
                    .unmapped(refusal, device)
                    .error(device, "Failed to map HDM decoder capability");
            }
            refusal
                .error(device, "Spec violation. Caps invalid")
                .error(device, "Failed to map HDM decoder capability")
        })?;
        for (index, image) in (0..).zip(hdm.decoders.iter().take(count)) {
            let decoder = self.decoder(port, index, image).map_err(|refusal| {
                let text = format!("Failed to initialize decoder{}.{index}", port.id);
                refusal.of_decoder(index).warning(device, text)
            })?;
            // A list holds eight targets, whatever the ways say.
            let listed = image.raw_route().to_le_bytes();
            let target = |way: usize| {
                let number = listed.get(way)?;
                dports.iter().copied().find(|&dport| {
                    self.input.ports.get(dport).is_some_and(|dport| dport.number == *number)
                })
            };
            let targets: Vec<_> = (0..decoder.ways as usize).map(target).collect();
            let late = self.linux.has(Change::LateTargets);
            // Without any port given, nobody knows which there are.
            let known = !dports.is_empty();
            // Behind the list Linux reads what happens to be there.
            let missing = targets.iter().take(listed.len()).any(Option::is_none);
            if !late && known && decoder.enabled && missing {
                let way = targets.iter().position(Option::is_none).unwrap_or(0);
                let number = listed.get(way).copied().unwrap_or_default();
                let number = format!("port number {number}");
                let text = format!("Failed to add decoder{}.{index}", port.id);
                return Err(Refusal::new(Rule::Targets, ENXIO, format!("target {way}: {number}"))
                    .of_decoder(index)
                    .error(device, "Failed to populate active decoder targets")
                    .error(device, "Failed to add decoder")
                    .warning(device, text));
            }
            port.decoders.push(Decoder { targets, ..decoder });
        }
        Ok(())
    }

    /// The capability register, and how many decoders Linux takes there to be.
    fn capability(&self, port: &mut PortState, hdm: &HdmImage) -> Attempt<usize> {
        let capability = hdm.capability();
        let code = capability.decoder_count();
        let count = self.decoder_count(hdm);
        if count == 0 {
            let found = format!("decoder count code {code}");
            // A negative number of decoders is a length that no range of addresses has.
            let errno =
                if self.linux.has(Change::ManyDecoders) && code > 12 { ENOMEM } else { ENXIO };
            return Err(Refusal::new(Rule::DecoderCount, errno, found));
        }
        port.target_count = capability.target_count().into();
        port.selectors = capability.selector_mask();
        port.ways = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 8;
        if capability.ways_3_6_12() {
            port.ways |= 1 << 3 | 1 << 6 | 1 << 12;
        }
        if capability.ways_16() {
            port.ways |= 1 << 16;
        }
        Ok(count)
    }

    /// What 7.3.4 says of registers whose length is nonsense.
    fn unmapped(&self, refusal: Refusal, device: Said<'_>) -> Refusal {
        refusal
            .error(device, "Failed to request region ")
            .error(device, "Failed to map HDM capability.")
    }

    /// How many decoders Linux takes there to be: before 7.1, twice the code.
    fn decoder_count(&self, hdm: &HdmImage) -> usize {
        let capability = hdm.capability();
        match capability.decoder_count() {
            _ if self.linux.has(Change::ManyDecoders) => {
                capability.decoders().map_or(0, usize::from)
            }
            0 => 1,
            code => 2 * usize::from(code),
        }
    }

    /// Decoders in use that Linux does not count.
    fn hidden(&mut self, component: &str, registers: &Registers) {
        let Some(hdm) = registers.hdm() else { return };
        let count = self.decoder_count(hdm);
        let images = || hdm.decoders.iter().enumerate().skip(count);
        let Some((first, _)) = images().find(|(_, image)| image.control().committed()) else {
            return;
        };
        let found = format!("Linux counts {count} of {}", counted(hdm.decoders.len(), "decoder"));
        let lost = format!("decoder {first} is committed, and Linux does not see it");
        let finding = Finding::new(Severity::Degraded, Rule::DecoderCount, component, found, lost);
        self.findings.push(finding.of_decoder(first));
    }

    /// What all decoders are asked.
    fn decoder(&self, port: &PortState, index: u8, image: &DecoderImage) -> Attempt<Decoder> {
        let name = self.name(port);
        let device = ("cxl_port", name.as_str());
        let refuse = |rule, errno, found, text: String| {
            let text = format!("decoder{}.{index}: {text}", port.id);
            Err(Refusal::new(rule, errno, found).warning(device, text))
        };
        let control = image.control();
        let committed = control.committed();
        let base = image.raw_base();
        let size = if committed { image.raw_size() } else { 0 };
        if base == u64::MAX || size == u64::MAX {
            let found = format!("base {base:#x}, size {size:#x}");
            return refuse(Rule::AllOnes, ENXIO, found, "Invalid resource range".to_owned());
        }
        if committed && port.decoders.iter().any(|decoder| !decoder.enabled) {
            let before = port.decoders.iter().filter(|decoder| decoder.enabled).count();
            let found = format!("committed, and decoder {before} is not");
            return refuse(Rule::CommitOrder, ENXIO, found, "Committed out of order".to_owned());
        }
        let spare = size == 0 && control.lock_on_commit();
        if committed && size == 0 && !(spare && self.linux.has(Change::EmptyDecoders)) {
            let found = format!("committed at {base:#x} with size 0");
            return refuse(Rule::ZeroSize, ENXIO, found, "Committed with zero size".to_owned());
        }
        // Linux makes unused decoders of memory expanders and ports host-only before it looks.
        let expander = match port.kind {
            Kind::Endpoint(index, _) => self.is_expander(index),
            _ => true,
        };
        let shown = if !committed && expander { control.with_host_only(true) } else { control };
        let shown = shown.into_bits();
        let Some(ways) = ways(control.ways().into()) else {
            let found = format!("ways code {:#x}, control {:#010x}", control.ways(), image.control);
            let text = format!("Invalid interleave ways (ctrl: {shown:#x})");
            return refuse(Rule::Ways, EINVAL, found, text);
        };
        let Some(granularity) = granularity(control.granularity().into()) else {
            let (code, control) = (control.granularity(), image.control);
            let found = format!("granularity code {code:#x}, control {control:#010x}");
            let text = format!("Invalid interleave granularity (ctrl: {shown:#x})");
            return refuse(Rule::Granularity, EINVAL, found, text);
        };
        Ok(Decoder {
            range: AddressRange::of(base, size),
            ways,
            granularity,
            enabled: committed,
            locked: committed && control.lock_on_commit(),
            host_only: Control::from_bits(shown).host_only(),
            targets: vec![],
            dpa: None,
            mode: None,
        })
    }

    fn is_expander(&self, device: usize) -> bool {
        let config = self.input.devices.get(device).and_then(|device| device.config.as_ref());
        config.is_none_or(|config| config.class == MEMORY_DEVICE)
    }

    /// Kernels that fill in a downstream port once only.
    fn targets_once(&mut self, port: &PortState) {
        if !self.linux.has(Change::LateTargets) || self.linux.has(Change::AllTargets) {
            return;
        }
        let enabled = || port.decoders.iter().enumerate().filter(|(_, decoder)| decoder.enabled);
        let shared = enabled().find_map(|(index, decoder)| {
            let earlier = enabled().take_while(|(earlier, _)| *earlier < index);
            let mut targets = earlier.flat_map(|(_, earlier)| &earlier.targets).flatten();
            let target = targets.find(|target| decoder.targets.contains(&Some(**target)))?;
            Some((index, *target))
        });
        let Some((index, target)) = shared else { return };
        let found = format!("decoder {index} lists {} again", self.dport_name(Some(target)));
        let lost = "the second region behind that port may be missing";
        let name = self.component(port);
        let finding = Finding::new(Severity::Note, Rule::TargetsOnce, name, found, lost);
        self.findings.push(finding.of_decoder(index));
    }

    /// Brings up a device, and adds its decoders to regions.
    fn device(&mut self, index: usize) {
        let input = self.input;
        let Some(device) = input.devices.get(index) else { return };
        // No driver takes an accelerator for a memory device.
        if !self.is_expander(index) {
            return;
        }
        if let Some((volatile, persistent)) = device.capacity {
            const UNIT: u64 = 256 << 20;
            if volatile % UNIT != 0 || persistent % UNIT != 0 {
                let found = format!("{volatile:#x} bytes volatile, {persistent:#x} persistent");
                let lost = format!("{} cannot say what it has; it is not used", device.name);
                let (rule, name) = (Rule::Capacity, &device.name);
                self.findings.push(Finding::new(Severity::Refused, rule, name, found, lost));
                return;
            }
        }
        let memory = self.memory_devices;
        self.memory_devices += 1;
        let mut said = Vec::new();
        if let Err(refusal) = self.ready(index, memory, &mut said) {
            let lost = format!("{} has no endpoint: none of its memory is used", device.name);
            self.findings.push(refusal.finding(&device.name, lost));
            return;
        }
        let above = device.port.and_then(|port| input.ports.get(port)).map(|port| port.parent);
        let parent = above.and_then(|above| self.parent(above, MAX_DEPTH));
        if above.is_some() && parent.is_none() {
            // Said of the port already.
            return;
        }
        let bridge = parent.and_then(|parent| self.ports.get(parent)).map_or(0, |port| port.bridge);
        let mut port = PortState {
            kind: Kind::Endpoint(index, memory),
            id: self.next_id(),
            parent,
            dport: device.port,
            bridge,
            unknown: device.registers == Registers::Unknown,
            pass_through: false,
            decoders: vec![],
            target_count: 0,
            selectors: 0,
            ways: 0,
            regions: vec![],
        };
        match self.endpoint(index, &mut port) {
            Ok(()) => {
                self.hidden(&device.name, &device.registers);
                self.ports.push(port);
                let at = self.ports.len() - 1;
                self.discover(at);
            }
            Err(mut refusal) => {
                let endpoint = self.name(&port);
                if ![ENXIO, ENODEV].contains(&refusal.errno) {
                    refusal = refusal.driver_failed("cxl_port", &endpoint);
                }
                let memory = format!("mem{memory}");
                let text = format!("{endpoint} failed probe");
                refusal.messages.splice(0..0, said);
                let refusal = refusal.error(("cxl_mem", &memory), text);
                let lost = format!("{} has no endpoint: none of its memory is used", device.name);
                self.findings.push(refusal.finding(&device.name, lost));
            }
        }
    }

    /// Whether the device's memory is ready (`cxl_await_media_ready`).
    fn ready(&self, index: usize, memory: usize, said: &mut Vec<Message>) -> Attempt<()> {
        let Some(device) = self.input.devices.get(index) else { return Ok(()) };
        let address = self.function(index);
        let pci = ("cxl_pci", address.as_str());
        let memory = format!("mem{memory}");
        let not_ready = |refusal: Refusal, errno: c_int| {
            refusal
                .warning(pci, format!("Media not active (-{errno})"))
                .driver_failed_with("cxl_mem", &memory, EBUSY)
        };
        match &device.config {
            Some(Config { dvsec: Some(dvsec), .. }) => {
                let count = dvsec.hdm_count();
                let sizes = || dvsec.ranges.iter().map(|[_, low, ..]| *low).enumerate().take(count);
                if let Some((range, low)) = sizes().find(|(_, low)| low & 1 == 0) {
                    let found = format!("range {}: size low {low:#010x}", range + 1);
                    let text = format!("Timeout awaiting memory range {range} valid after 1s.");
                    let refusal = Refusal::new(Rule::InfoValid, ETIMEDOUT, found);
                    return Err(not_ready(refusal.error(pci, text), ETIMEDOUT));
                }
                if let Some((range, low)) = sizes().find(|(_, low)| low & 2 == 0) {
                    let found = format!("range {}: size low {low:#010x}", range + 1);
                    let text = "timeout awaiting memory active after 60 seconds";
                    let refusal = Refusal::new(Rule::MemoryActive, ETIMEDOUT, found);
                    return Err(not_ready(refusal.error(pci, text), ETIMEDOUT));
                }
            }
            Some(config) if config.is_whole() => {
                let text = "Device DVSEC not present, skip CXL.mem init";
                said.push(Message::new(Level::Warning, pci, text));
            }
            _ => {}
        }
        match device.status {
            Some(status) if status >> 2 & 3 != 1 => {
                let found = format!("memory device status {status:#010x}");
                Err(not_ready(Refusal::new(Rule::MediaStatus, EIO, found), EIO))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn function(&self, device: usize) -> String {
        let device = self.input.devices.get(device);
        device.map_or_else(String::new, |device| {
            device.address.clone().unwrap_or_else(|| device.name.clone())
        })
    }

    fn endpoint(&mut self, index: usize, port: &mut PortState) -> Attempt<()> {
        let input = self.input;
        let Some(device) = input.devices.get(index) else { return Ok(()) };
        let address = self.function(index);
        let pci = ("cxl_pci", address.as_str());
        let ranges = match &device.config {
            Some(config) if config.is_whole() => Some(self.ranges(config, pci)?),
            _ => None,
        };
        let enabled = ranges.is_some_and(|ranges| ranges.mem_enabled);
        let name = self.name(port);
        let at = ("cxl_port", name.as_str());
        let hdm = match &device.registers {
            Registers::Unknown => return Ok(()),
            Registers::NoBlock | Registers::Rcrb(_) if enabled => None,
            Registers::NoBlock | Registers::Rcrb(_) => {
                let found = "no component registers";
                return Err(Refusal::new(Rule::NoDecoderRegisters, ENXIO, found)
                    .error(at, "No component registers mapped"));
            }
            Registers::NoHdm => {
                let found = "component registers without an HDM capability";
                return Err(Refusal::new(Rule::NoDecoderRegisters, ENODEV, found)
                    .error(at, "HDM decoder registers not found"));
            }
            Registers::Hdm(hdm) => Some(hdm),
        };
        let mut count = 0;
        let mut emulate = enabled;
        if let Some(hdm) = hdm {
            count = self.capability(port, hdm).map_err(|refusal| match refusal.errno {
                ENOMEM => self.unmapped(refusal, at),
                _ => refusal.error(at, "Spec violation. Caps invalid"),
            })?;
            let committed = hdm.decoders.iter().any(|image| image.control().committed());
            let in_use = if self.linux.has(Change::EnableDecides) {
                hdm.decoder_enable()
            } else {
                committed
            };
            emulate = enabled && !in_use;
            self.range_registers(hdm, ranges, pci)?;
            if emulate && committed && !hdm.decoder_enable() {
                let used = hdm.decoders.iter().filter(|image| image.control().committed()).count();
                let found = "Mem_Enable set, HDM Decoder Enable clear";
                let lost = format!(
                    "{} ignored; the range registers count, 1-way",
                    match used {
                        1 => "the committed decoder is".to_owned(),
                        _ => format!("{used} committed decoders are"),
                    }
                );
                let ranges = ranges.map_or(0, |ranges| ranges.count);
                let plural = if ranges > 1 { "s" } else { "" };
                let text = format!("Fallback map {ranges} range register{plural}");
                let (rule, name) = (Rule::Emulated, &device.name);
                let finding = Finding::new(Severity::Degraded, rule, name, found, lost);
                self.findings.push(finding.say(Level::Debug, at, text));
            }
        }
        match ranges {
            Some(ranges) if emulate => self.emulated(index, port, ranges),
            _ => match hdm {
                Some(hdm) => self.real(index, port, hdm, count),
                None => Ok(()),
            },
        }
    }

    /// The DVSEC, as far as it decides (`cxl_dvsec_rr_decode`).
    fn ranges(&self, config: &Config, pci: Said<'_>) -> Attempt<Ranges> {
        let Some(dvsec) = &config.dvsec else {
            let found = "no CXL Device DVSEC";
            return Err(Refusal::new(Rule::NoDvsec, ENXIO, found).debug(pci, "No DVSEC Capability"));
        };
        if dvsec.capability & 1 << 2 == 0 {
            let found = format!("DVSEC capability {:#06x}", dvsec.capability);
            return Err(
                Refusal::new(Rule::NotMemCapable, ENXIO, found).debug(pci, "Not MEM Capable")
            );
        }
        let count = dvsec.hdm_count();
        if count == 0 || count > 2 {
            let found = format!("HDM_Count {count}");
            return Err(Refusal::new(Rule::HdmCount, EINVAL, found));
        }
        let mut ranges = Ranges { mem_enabled: dvsec.mem_enable(), ..Ranges::default() };
        if ranges.mem_enabled {
            let places = ranges.ranges.iter_mut().zip(dvsec.ranges).take(count);
            for (place, [size_high, size_low, base_high, base_low]) in places {
                let join =
                    |high: u32, low: u32| u64::from(high) << 32 | u64::from(low & !0xFFF_FFFF);
                let size = join(size_high, size_low);
                if size != 0 {
                    *place = Some(AddressRange::of(join(base_high, base_low), size));
                    ranges.count += 1;
                }
            }
        }
        Ok(ranges)
    }

    /// With Mem_Enable set and HDM Decoder Enable clear, memory has to be in a window
    /// (`cxl_hdm_decode_init`).
    fn range_registers(
        &self,
        hdm: &HdmImage,
        ranges: Option<Ranges>,
        pci: Said<'_>,
    ) -> Attempt<()> {
        let Some(ranges) = ranges.filter(|ranges| ranges.mem_enabled) else { return Ok(()) };
        if hdm.decoder_enable() || self.input.cedt.is_none() {
            return Ok(());
        }
        // An empty range reads as one that no window holds.
        let looked_at = ranges.ranges.iter().take(ranges.count);
        let allowed = looked_at.flatten().any(|range| {
            let inside = |root: &Root| root.restrictions.volatile() && root.range.contains(*range);
            self.roots.iter().any(inside)
        });
        if allowed {
            return Ok(());
        }
        let listed: Vec<_> = ranges.ranges.iter().flatten().map(AddressRange::to_string).collect();
        let found = format!(
            "Mem_Enable set, HDM Decoder Enable clear, {}",
            if listed.is_empty() {
                "no range".to_owned()
            } else {
                format!("ranges {}", listed.join(", "))
            }
        );
        let text = "Range register decodes outside platform defined CXL ranges.";
        Err(Refusal::new(Rule::RangeOutside, ENXIO, found).error(pci, text))
    }

    /// Decoders made of range registers.
    fn emulated(&self, index: usize, port: &mut PortState, ranges: Ranges) -> Attempt<()> {
        let mut next = 0;
        let name = self.name(port);
        for (decoder, range) in (0u8..).zip(ranges.ranges).take(ranges.count) {
            let failed = format!("Failed to initialize decoder{}.{decoder}", port.id);
            let failed =
                |refusal: Refusal| refusal.of_decoder(decoder).warning(("cxl_port", &name), failed);
            let Some(range) = range else {
                let found = "range 1 has no size, range 2 has";
                return Err(failed(Refusal::new(Rule::RangeOutside, ENOENT, found)));
            };
            let (dpa, mode) =
                self.reserve(index, port, decoder, next, range.length(), 0).map_err(failed)?;
            next = next.wrapping_add(range.length());
            port.decoders.push(Decoder {
                range,
                ways: 1,
                granularity: 4096,
                enabled: true,
                locked: true,
                host_only: true,
                targets: vec![],
                dpa,
                mode,
            });
        }
        Ok(())
    }

    /// Decoders as the registers have them.
    fn real(
        &mut self,
        index: usize,
        port: &mut PortState,
        hdm: &HdmImage,
        count: usize,
    ) -> Attempt<()> {
        let mut next = 0u64;
        let name = self.name(port);
        let at = ("cxl_port", name.as_str());
        for (number, image) in (0u8..).zip(hdm.decoders.iter().take(count)) {
            let failed = |refusal: Refusal| {
                let text = format!("Failed to initialize decoder{}.{number}", port.id);
                refusal.of_decoder(number).warning(at, text)
            };
            let decoder = self.decoder(port, number, image).map_err(failed)?;
            // One without size, where this kernel takes it, has no device memory either.
            if !decoder.enabled || decoder.range.is_empty() {
                port.decoders.push(decoder);
                continue;
            }
            let (size, ways) = (image.raw_size(), decoder.ways);
            if size % ways != 0 {
                let found = format!("size {size:#x} for {}", counted(ways, "way"));
                let text = format!(
                    "decoder{}.{number}: invalid committed configuration size: {size:#x} ways: \
                     {ways}",
                    port.id
                );
                let refusal = Refusal::new(Rule::SizeDivisible, ENXIO, found);
                return Err(failed(refusal.error(at, text)));
            }
            let (share, skip) = (size / ways, image.raw_route());
            let forgotten = self.forgotten(index, next, skip);
            let (dpa, mode) = self
                .reserve(index, port, number, next, share, skip)
                .map_err(|refusal| refusal.after(forgotten.clone()))
                .map_err(failed)?;
            if !forgotten.is_empty() {
                let component = self.input.devices.get(index).map_or("", |device| &device.name);
                let found = format!("it skips device memory {}", AddressRange::of(next, skip));
                // Linux gives out what lies behind the last decoder of a partition.
                let tail = self.is_tail(index, next, dpa);
                let lost = if tail {
                    "the end of a partition counts as free, and no later decoder can reach it: a \
                     region made of it has other bytes behind it"
                } else {
                    "nothing but the warning, as the decoder's own memory lies behind it"
                };
                let rule = Rule::SkippedMemory;
                let finding = Finding::new(Severity::Note, rule, component, found, lost);
                let finding = Finding { messages: forgotten, ..finding };
                self.findings.push(finding.of_decoder(usize::from(number)));
            }
            next = next.wrapping_add(share).wrapping_add(skip);
            port.decoders.push(Decoder { dpa, mode, ..decoder });
        }
        Ok(())
    }

    /// What Linux says of device memory that a decoder skips (`__adjust_skip`): of each part that lies in a
    /// partition, that nobody had it. Whether it is to be taken or given back is told there by the name of
    /// who asks, and a decoder that is looked at for the first time has none.
    fn forgotten(&self, index: usize, base: u64, skip: u64) -> Vec<Message> {
        let capacity = self.input.devices.get(index).and_then(|device| device.capacity);
        let Some((volatile, persistent)) = capacity.filter(|_| self.linux.has(Change::Partitions))
        else {
            return Vec::new();
        };
        if skip == 0 {
            return Vec::new();
        }
        let skipped = AddressRange::of(base, skip);
        let partitions = [(0, volatile), (volatile, persistent)].into_iter();
        partitions
            .filter(|(_, size)| *size != 0)
            .map(|(start, size)| AddressRange::of(start, size))
            .map(|partition| AddressRange {
                start: partition.start.max(skipped.start),
                end: partition.end.min(skipped.end),
            })
            .filter(|part| !part.is_empty())
            .map(|AddressRange { start, end }| {
                let words = "resource: Trying to free nonexistent resource";
                let text = format!("{words} <{start:#018x}-{end:#018x}>");
                Message::new(Level::Warning, ("", ""), text)
            })
            .collect()
    }

    /// Whether what a decoder skips from an address on is the end of a partition that its own memory is not in.
    fn is_tail(&self, index: usize, skipped: u64, dpa: Option<AddressRange>) -> bool {
        let capacity = self.input.devices.get(index).and_then(|device| device.capacity);
        let of = |address: u64| capacity.map(|(volatile, _)| address < volatile);
        dpa.is_some_and(|dpa| of(skipped) != of(dpa.start))
    }

    /// Takes device memory for a decoder (`__cxl_dpa_reserve`).
    fn reserve(
        &self,
        index: usize,
        port: &PortState,
        decoder: u8,
        base: u64,
        length: u64,
        skip: u64,
    ) -> Attempt<(Option<AddressRange>, Option<Mode>)> {
        let capacity = self.input.devices.get(index).and_then(|device| device.capacity);
        let dpa = AddressRange::of(base.wrapping_add(skip), length);
        let Some((volatile, persistent)) = capacity else {
            return Ok((Some(dpa), None));
        };
        let ram = AddressRange::of(0, volatile);
        let pmem = AddressRange::of(volatile, persistent);
        let inside = |range: AddressRange| {
            if volatile != 0 && ram.contains(range) {
                Some(Mode::Ram)
            } else if persistent != 0 && pmem.contains(range) {
                Some(Mode::Pmem)
            } else {
                None
            }
        };
        let skipped = AddressRange::of(base, skip);
        let skip_fits = skip == 0
            || inside(skipped).is_some()
            // None of it is taken: see `forgotten`.
            || self.linux.has(Change::Partitions);
        let name = self.name(port);
        let at = ("cxl_port", name.as_str());
        let mode = inside(dpa).filter(|_| !dpa.is_empty() && dpa.start >= base);
        if skip_fits && mode.is_some() {
            return Ok((Some(dpa), mode));
        }
        let last = base.wrapping_add(length).wrapping_add(skip).wrapping_sub(1);
        let what = if mode.is_some() { format!("skip {skipped}") } else { format!("DPA {dpa}") };
        let found = format!("{what} of {volatile:#x} bytes volatile, {persistent:#x} persistent");
        let debug = if skip_fits {
            format!("decoder{}.{decoder}: failed to reserve allocation", port.id)
        } else {
            format!("decoder{}.{decoder}: failed to reserve skipped space", port.id)
        };
        let text = format!(
            "decoder{}.{decoder}: Failed to reserve DPA range {base:#x} - {last:#x}\n (-{EBUSY})",
            port.id
        );
        Err(Refusal::new(Rule::DpaRange, EBUSY, found).debug(at, debug).error(at, text))
    }
}

impl DeviceDvsec {
    /// HDM_Count.
    fn hdm_count(&self) -> usize {
        usize::from(self.capability >> 4 & 3)
    }

    /// Mem_Enable.
    fn mem_enable(&self) -> bool {
        self.control & 1 << 2 != 0
    }
}
