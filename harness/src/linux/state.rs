//! One list of fields for two witnesses: what the registers of our models hold ([`modelled`]), and what
//! Linux shows of the same machine ([`shown`], and [`listed`] of what its tool prints).
//!
//! Addresses in windows are told as `window0+0x0`: where a window lies is a field of its own, and the
//! same machine elsewhere has the same fields. Components have their names of the scenario.
//!
//! **Invariant**: the two sides share names and spelling, and nothing else: one reads dwords of the
//! models, the other files of Linux. What stands on one side alone is a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cxl_lint::{Change, Kernel};
use cxl_model::machine::Machine;
use cxl_model::mapping::{self, Reach};
use cxl_model::scenario::{BridgeVersion, DeviceKind, Parent, Place, Scenario};
use cxl_regs::Ways;
use serde_json::Value;

use super::sysfs::Sysfs;
use super::{Facts, sysfs};

const CXL: &str = "/sys/bus/cxl/devices";

/// Fields of a machine by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, String>);

/// A field that the two sides have otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What the models say; `None` for a field that they do not have.
    pub model: Option<String>,
    /// What Linux shows; `None` for nothing.
    pub linux: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_nothing = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        let (model, linux) = (or_nothing(&self.model), or_nothing(&self.linux));
        write!(f, "{}: the model has {model}, Linux shows {linux}", self.field)
    }
}

impl Fields {
    fn put(&mut self, of: impl fmt::Display, name: impl fmt::Display, value: impl fmt::Display) {
        self.0.insert(format!("{of}, {name}"), value.to_string());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A field's value.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Those whose names are kept.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(name, _)| keep(name))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
        )
    }

    /// What these, of the models, and those, of Linux, have otherwise.
    pub fn against(&self, linux: &Self) -> Vec<Difference> {
        let names: BTreeSet<_> = self.0.keys().chain(linux.0.keys()).collect();
        let differ = names.into_iter().filter_map(|name| {
            let (model, linux) = (self.0.get(name).cloned(), linux.0.get(name).cloned());
            let field = name.clone();
            (model != linux).then_some(Difference { field, model, linux })
        });
        differ.collect()
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name} = {value}"))
    }
}

/// An address by the window that it lies in.
fn address(scenario: &Scenario, at: u64) -> String {
    let within = |base: u64, size: u64| at.checked_sub(base).filter(|offset| *offset < size);
    let found = scenario.windows.iter().find_map(|window| {
        let offset = within(window.base?.0, window.size)?;
        Some(format!("{}+{offset:#x}", window.name))
    });
    found.unwrap_or_else(|| format!("{at:#x}"))
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// A decoder as both sides tell it.
struct Decoder<'a> {
    base: u64,
    size: u64,
    ways: u64,
    granularity: u64,
    locked: bool,
    /// Words for the kind of memory.
    kind: &'a str,
    /// Numbers of ports, in order of position.
    targets: Option<String>,
    /// Mode, device address and share.
    memory: Option<(&'a str, u64, u64)>,
}

impl Decoder<'_> {
    fn put(&self, fields: &mut Fields, scenario: &Scenario, name: &str) {
        let of = format_args!("{name}");
        fields.put(of, "base", address(scenario, self.base));
        fields.put(of, "size", format_args!("{:#x}", self.size));
        fields.put(of, "ways", self.ways);
        fields.put(of, "granularity", self.granularity);
        fields.put(of, "locked", yes(self.locked));
        fields.put(of, "memory of", self.kind);
        if let Some(targets) = &self.targets {
            fields.put(of, "targets", targets);
        }
        if let Some((mode, dpa, share)) = self.memory {
            fields.put(of, "mode", mode);
            fields.put(of, "device address", format_args!("{dpa:#x}"));
            fields.put(of, "share", format_args!("{share:#x}"));
        }
    }
}

const EXPANDER: &str = "expander";
const ACCELERATOR: &str = "accelerator";
const NO_MODE: &str = "none";

// The models.

/// What the registers of a machine say, in Linux's words: what it has to show if it reads them right.
/// `kernel` is the version that is asked; `None` for the newest.
pub fn modelled(machine: &Machine, kernel: Option<Kernel>) -> Fields {
    let mut fields = Fields::default();
    let mut scenario = machine.scenario().clone();
    for (window, base) in scenario.windows.iter_mut().zip(&machine.map().windows) {
        window.base = *base;
    }
    let model = Model { machine, scenario: &scenario, kernel };
    model.windows(&mut fields);
    for place in machine.places() {
        model.functions(&mut fields, place);
        if model.has_port(place) {
            model.decoders(&mut fields, place);
        }
        if let Place::Device(index) = place {
            model.memory_device(&mut fields, index);
        }
    }
    model.regions(&mut fields);
    fields
}

struct Model<'a> {
    machine: &'a Machine,
    scenario: &'a Scenario,
    kernel: Option<Kernel>,
}

impl Model<'_> {
    fn since(&self, change: Change) -> bool {
        self.kernel.is_none_or(|kernel| change.is_in(kernel))
    }

    fn windows(&self, fields: &mut Fields) {
        for window in &self.scenario.windows {
            let Some(base) = window.base else { continue };
            let of = &window.name;
            let may = window.restrictions;
            fields.put(of, "base", format_args!("{:#x}", base.0));
            fields.put(of, "size", format_args!("{:#x}", window.size));
            fields.put(of, "ways", window.interleave.ways.count());
            fields.put(of, "granularity", window.interleave.granularity.bytes());
            fields.put(of, "for volatile memory", yes(may.volatile()));
            fields.put(of, "for persistent memory", yes(may.persistent()));
            fields.put(of, "for accelerators", yes(may.device_coherent()));
            fields.put(of, "for expanders", yes(may.host_only()));
            let last = base.0 + window.size - 1;
            fields.put(of, "in /proc/iomem", format_args!("{:x}-{last:x}", base.0));
            let known = |uid: &u32| self.scenario.bridges.iter().any(|bridge| bridge.uid == *uid);
            let targets: Vec<_> = window.targets.iter().filter(|uid| known(uid)).collect();
            let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
            fields.put(of, "bridges", targets.join(","));
        }
    }

    /// Whether Linux makes a port of it.
    fn has_port(&self, place: Place) -> bool {
        match place {
            Place::Bridge(index) => {
                let bridge = self.scenario.bridges.get(index);
                let is_2 = bridge.is_some_and(|bridge| bridge.version == BridgeVersion::Cxl2);
                is_2 && (!self.since(Change::LateTargets) || self.leads_to_memory(place))
            }
            Place::Switch(_) => self.leads_to_memory(place),
            Place::Device(index) => self.is_memory(index),
            Place::Port(_) => false,
        }
    }

    /// A device that Linux's driver for memory takes, plugged in.
    fn is_memory(&self, device: usize) -> bool {
        let given = self.scenario.devices.get(device);
        self.machine.present(device) && given.is_some_and(|given| given.kind == DeviceKind::Type3)
    }

    /// Whether a memory device hangs somewhere below.
    fn leads_to_memory(&self, place: Place) -> bool {
        let mut devices = self.scenario.devices.iter().enumerate();
        devices.any(|(index, device)| {
            self.is_memory(index) && self.above(device.port).contains(&place)
        })
    }

    /// What is above a port, and the port itself.
    fn above(&self, mut port: usize) -> Vec<Place> {
        let mut above = vec![Place::Port(port)];
        for _ in 0..=self.scenario.switches.len() {
            match self.scenario.ports.get(port).map(|port| port.parent) {
                Some(Parent::Bridge(bridge)) => {
                    above.push(Place::Bridge(bridge));
                    break;
                }
                Some(Parent::Switch(switch)) => {
                    above.push(Place::Switch(switch));
                    let Some(switch) = self.scenario.switches.get(switch) else { break };
                    port = switch.port;
                    above.push(Place::Port(port));
                }
                None => break,
            }
        }
        above
    }

    /// Numbers of the ports below, that Linux knows.
    fn ports_of(&self, place: Place) -> Vec<u8> {
        let ports = self.scenario.ports.iter().enumerate().filter(|(index, port)| {
            let parent = match port.parent {
                Parent::Bridge(bridge) => Place::Bridge(bridge),
                Parent::Switch(switch) => Place::Switch(switch),
            };
            let late = self.since(Change::LateTargets);
            parent == place && (!late || self.leads_to_memory(Place::Port(*index)))
        });
        ports.map(|(_, port)| port.number).collect()
    }

    fn decoders(&self, fields: &mut Fields, place: Place) {
        let name = self.machine.name(place);
        let Some(component) = self.machine.component(place) else { return };
        let Some(hdm) = component.hdm() else {
            // Linux makes one for a component that forwards everything to its one port.
            let known = self.ports_of(place);
            let decoder = Decoder {
                base: 0,
                size: 0,
                ways: 1,
                granularity: 4096,
                locked: false,
                kind: EXPANDER,
                targets: Some(known.first().map(ToString::to_string).unwrap_or_default()),
                memory: None,
            };
            decoder.put(fields, self.scenario, &format!("{name} decoder 0"));
            return;
        };
        let is_device = matches!(place, Place::Device(_));
        let known = self.ports_of(place);
        let mut next = 0;
        for (index, image) in hdm.images().enumerate() {
            let control = image.control();
            let (committed, code) = (control.committed(), control.ways());
            let ways = Ways::decode(code).map_or(0, |ways| u64::from(ways.count()));
            let size = if committed { image.size() } else { 0 };
            let targets = image.targets();
            let targets =
                targets.iter().take(ways as usize).take_while(|port| known.contains(port));
            let targets: Vec<_> = targets.map(ToString::to_string).collect();
            let memory = is_device.then(|| {
                if size == 0 {
                    return (NO_MODE, 0, 0);
                }
                let (dpa, share) = (next + image.skip(), size / ways.max(1));
                next = dpa + share;
                (self.mode(place, dpa), dpa, share)
            });
            let decoder = Decoder {
                base: image.base(),
                size,
                ways,
                granularity: 256 << control.granularity(),
                locked: control.locked(),
                // One that is not in use waits for whatever the component is made for.
                kind: if committed && !control.host_only() { ACCELERATOR } else { EXPANDER },
                targets: (!is_device).then(|| targets.join(",")),
                memory,
            };
            decoder.put(fields, self.scenario, &format!("{name} decoder {index}"));
        }
        let committed = hdm.images().filter(|image| image.control().committed()).count();
        fields.put(name, "decoders committed", committed);
    }

    /// Which kind of memory lies at a device's address.
    fn mode(&self, place: Place, dpa: u64) -> &'static str {
        let Place::Device(index) = place else { return NO_MODE };
        let volatile = self.machine.endpoint(index).map_or(0, |endpoint| endpoint.media.volatile());
        if dpa < volatile { "ram" } else { "pmem" }
    }

    fn memory_device(&self, fields: &mut Fields, index: usize) {
        let place = Place::Device(index);
        let Some(endpoint) = self.machine.endpoint(index).filter(|_| self.is_memory(index)) else {
            return;
        };
        let of = self.machine.name(place);
        let serial = self.scenario.devices.get(index).map_or(0, |device| device.serial);
        fields.put(of, "serial", format_args!("{serial:#x}"));
        fields.put(of, "volatile", format_args!("{:#x}", endpoint.media.volatile()));
        fields.put(of, "persistent", format_args!("{:#x}", endpoint.media.persistent()));
        fields.put(of, "node", 0);
        fields.put(of, "firmware", "model");
        let labels = if endpoint.media.persistent() == 0 { 0 } else { 64 << 10 };
        fields.put(of, "labels", labels);
    }

    /// Configuration space and BARs.
    fn functions(&self, fields: &mut Fields, place: Place) {
        let Some(function) = self.machine.function(place) else { return };
        if matches!(place, Place::Device(index) if !self.machine.present(index)) {
            return;
        }
        let of = self.machine.name(place);
        for offset in (0..4096u16).step_by(4) {
            let value = function.read(offset);
            if value != 0 {
                fields.put(of, format_args!("config {offset:#05x}"), format_args!("{value:#010x}"));
            }
        }
        let mut bars: Vec<_> = (0..6).filter_map(|bar| function.bar(bar)).collect();
        bars.sort_by_key(|bar| bar.base());
        let bars: Vec<_> =
            bars.iter().map(|bar| format!("{:x}-{:x}", bar.base().0, bar.last().0)).collect();
        if !bars.is_empty() {
            fields.put(of, "in /proc/iomem", bars.join(" "));
        }
    }

    /// What the registers prove to be one range of memory, Linux has to have as a region.
    fn regions(&self, fields: &mut Fields) {
        let mut seen = BTreeSet::new();
        for mapping in mapping::mappings(&self.machine.fabric()) {
            let Reach::Direct(direct) = mapping.how else { continue };
            if !seen.insert((direct.base, direct.size)) {
                continue;
            }
            let devices = direct.members.iter().map(|member| member.device);
            if !devices.clone().all(|device| self.is_memory(device)) {
                continue;
            }
            let of = format!("region at {}", address(self.scenario, direct.base.0));
            let interleave = direct.interleave();
            fields.put(&of, "size", format_args!("{:#x}", direct.size));
            fields.put(&of, "ways", interleave.ways.count());
            if interleave.ways.count() > 1 {
                fields.put(&of, "granularity", interleave.granularity.bytes());
            }
            let (base, last) = (direct.base.0, direct.base.0 + direct.size - 1);
            fields.put(&of, "in /proc/iomem", format_args!("{base:x}-{last:x}"));
            fields.put(&of, "in use", "yes");
            let first = direct.members.first();
            let mode = first
                .map_or(NO_MODE, |member| self.mode(Place::Device(member.device), member.dpa.0));
            fields.put(&of, "mode", mode);
            for (position, member) in direct.members.iter().enumerate() {
                let name = self.machine.name(Place::Device(member.device));
                let decoder = format_args!("{name} decoder {}", member.decoder).to_string();
                fields.put(&of, format_args!("position {position}"), decoder);
            }
            if mode == "ram" {
                fields.put(&of, "driver", "kmem");
                fields.put(&of, "online", format_args!("{:#x}", direct.size));
                // Each window has a proximity domain, RAM the first one.
                let placed = self.machine.map().windows.iter().take(mapping.window + 1);
                fields.put(&of, "node", placed.flatten().count());
            }
        }
    }
}

// Linux.

/// What Linux shows of it. `scenario` is the machine, its windows where they are.
pub fn shown(facts: &Facts, scenario: &Scenario) -> Fields {
    let linux = Shown { facts, scenario, sysfs: Sysfs(facts) };
    let mut fields = Fields::default();
    linux.windows(&mut fields);
    for name in facts.devices("cxl") {
        linux.decoder(&mut fields, name);
        linux.memory_device(&mut fields, name);
    }
    for name in facts.devices("pci") {
        linux.function(&mut fields, name);
    }
    for region in linux.sysfs.regions() {
        linux.region(&mut fields, &region);
    }
    fields
}

struct Shown<'a> {
    facts: &'a Facts,
    scenario: &'a Scenario,
    sysfs: Sysfs<'a>,
}

impl Shown<'_> {
    fn text(&self, name: &str, attribute: &str) -> Option<String> {
        let text = self.facts.text(&format!("{CXL}/{name}/{attribute}"))?;
        Some(text.trim().to_owned())
    }

    fn number(&self, name: &str, attribute: &str) -> u64 {
        // What is not shown is no number that anything has.
        self.facts.number(&format!("{CXL}/{name}/{attribute}")).unwrap_or(u64::MAX)
    }

    /// What is in /proc/iomem under a name.
    fn iomem(&self, called: &str) -> Vec<(u64, u64)> {
        let lines = self.facts.text("/proc/iomem").unwrap_or_default().lines();
        let mut ranges: Vec<_> = lines
            .filter_map(|line| {
                let (range, name) = line.trim().split_once(" : ")?;
                let (first, last) = range.split_once('-')?;
                let number = |text| u64::from_str_radix(text, 16).ok();
                (name == called).then_some((number(first)?, number(last)?))
            })
            .collect();
        ranges.sort_unstable();
        ranges.dedup();
        // What a driver claims inside of a BAR is called as the BAR is.
        let inside = |&(first, last): &(u64, u64)| {
            let whole = |&(from, to): &(u64, u64)| from <= first && last <= to;
            ranges.iter().any(|other| *other != (first, last) && whole(other))
        };
        ranges.iter().filter(|range| !inside(range)).copied().collect()
    }

    fn windows(&self, fields: &mut Fields) {
        for name in self.facts.devices("cxl") {
            if self.text(name, "devtype").as_deref() != Some("cxl_decoder_root") {
                continue;
            }
            let base = self.number(name, "start");
            let given = { self.scenario.windows.iter() }
                .find(|window| window.base.is_some_and(|at| at.0 == base));
            let of =
                given.map_or_else(|| format!("{name} of no window"), |given| given.name.clone());
            fields.put(&of, "base", format_args!("{base:#x}"));
            fields.put(&of, "size", format_args!("{:#x}", self.number(name, "size")));
            fields.put(&of, "ways", self.number(name, "interleave_ways"));
            fields.put(&of, "granularity", self.number(name, "interleave_granularity"));
            for (what, attribute) in [
                ("for volatile memory", "cap_ram"),
                ("for persistent memory", "cap_pmem"),
                ("for accelerators", "cap_type2"),
                ("for expanders", "cap_type3"),
            ] {
                fields.put(&of, what, yes(self.number(name, attribute) == 1));
            }
            fields.put(&of, "bridges", self.text(name, "target_list").unwrap_or_default());
            let index = name.rsplit('.').next().unwrap_or_default();
            let ranges = self.iomem(&format!("CXL Window {index}"));
            fields.put(&of, "in /proc/iomem", joined(&ranges));
        }
    }

    /// A component by its place in Linux's tree.
    fn called(&self, name: &str) -> String {
        let place =
            self.sysfs.port_of(name).and_then(|port| self.sysfs.component(self.scenario, port));
        place.map_or_else(
            || format!("{name} of nothing known"),
            |place| self.scenario.name_of(place).to_owned(),
        )
    }

    /// A decoder by its place.
    fn decoder_name(&self, name: &str) -> String {
        let index = name.rsplit('.').next().unwrap_or_default();
        format!("{} decoder {index}", self.called(name))
    }

    fn decoder(&self, fields: &mut Fields, name: &str) {
        let devtype = self.text(name, "devtype").unwrap_or_default();
        let is_device = match devtype.as_str() {
            "cxl_decoder_switch" => false,
            "cxl_decoder_endpoint" => true,
            "cxl_port" | "cxl_endpoint" | "" => {
                if let Some(count) = self.text(name, "decoders_committed")
                    && name != "root0"
                    && self.has_registers(name)
                {
                    fields.put(self.called(name), "decoders committed", count);
                }
                return;
            }
            _ => return,
        };
        let size = self.number(name, "size");
        let kind = self.text(name, "target_type").unwrap_or_default();
        let mode = self.text(name, "mode").unwrap_or_default();
        let decoder = Decoder {
            base: self.number(name, "start"),
            size,
            ways: self.number(name, "interleave_ways"),
            granularity: self.number(name, "interleave_granularity"),
            locked: self.number(name, "locked") == 1,
            kind: &kind,
            targets: (!is_device).then(|| self.text(name, "target_list").unwrap_or_default()),
            memory: is_device.then(|| {
                let dpa = if size == 0 { 0 } else { self.number(name, "dpa_resource") };
                (mode.as_str(), dpa, self.number(name, "dpa_size"))
            }),
        };
        decoder.put(fields, self.scenario, &self.decoder_name(name));
    }

    /// Whether a port's decoders are those of registers, as far as the machine says.
    fn has_registers(&self, port: &str) -> bool {
        match self.sysfs.component(self.scenario, port) {
            Some(Place::Bridge(index)) => {
                self.scenario.bridges.get(index).is_some_and(|bridge| bridge.decoders > 0)
            }
            Some(Place::Switch(index)) => {
                self.scenario.switches.get(index).is_some_and(|switch| switch.decoders > 0)
            }
            _ => true,
        }
    }

    fn memory_device(&self, fields: &mut Fields, name: &str) {
        let Some(link) =
            self.facts.link(&format!("{CXL}/{name}")).filter(|_| name.starts_with("mem"))
        else {
            return;
        };
        let place = self.sysfs.function(self.scenario, link);
        let of = place.map_or_else(
            || format!("{name} of nothing known"),
            |place| self.scenario.name_of(place).to_owned(),
        );
        let hex = |attribute: &str| format!("{:#x}", self.number(name, attribute));
        fields.put(&of, "serial", hex("serial"));
        fields.put(&of, "volatile", hex("ram/size"));
        fields.put(&of, "persistent", hex("pmem/size"));
        fields.put(&of, "node", self.number(name, "numa_node"));
        fields.put(&of, "firmware", self.text(name, "firmware_version").unwrap_or_default());
        fields.put(&of, "labels", self.number(name, "label_storage_size"));
    }

    fn function(&self, fields: &mut Fields, name: &str) {
        let Some(link) = self.facts.link(&format!("/sys/bus/pci/devices/{name}")) else { return };
        let Some(place) = self.sysfs.function(self.scenario, link) else { return };
        let of = self.scenario.name_of(place);
        let config = format!("/sys/bus/pci/devices/{name}/config");
        let bytes = self.facts.bytes(&config).unwrap_or_default();
        for (index, dword) in bytes.chunks_exact(4).enumerate() {
            let Ok(dword) = dword.try_into() else { continue };
            let (offset, value) = (4 * index, u32::from_le_bytes(dword));
            if value != 0 {
                fields.put(of, format_args!("config {offset:#05x}"), format_args!("{value:#010x}"));
            }
        }
        let ranges = self.iomem(name);
        if !ranges.is_empty() {
            fields.put(of, "in /proc/iomem", joined(&ranges));
        }
    }

    fn region(&self, fields: &mut Fields, region: &sysfs::Region<'_>) {
        let base = region.base.unwrap_or(u64::MAX);
        let size = region.size.unwrap_or(u64::MAX);
        let of = format!("region at {}", address(self.scenario, base));
        fields.put(&of, "size", format_args!("{size:#x}"));
        fields.put(&of, "ways", region.ways.unwrap_or(u64::MAX));
        if region.ways != Some(1) {
            fields.put(&of, "granularity", region.granularity.unwrap_or(u64::MAX));
        }
        fields.put(&of, "in /proc/iomem", joined(&self.iomem(region.name)));
        fields.put(&of, "in use", yes(region.in_use));
        fields.put(&of, "mode", region.mode.unwrap_or_default());
        for (position, target) in region.targets.iter().enumerate() {
            fields.put(&of, format_args!("position {position}"), self.decoder_name(target));
        }
        if region.mode == Some("ram") {
            let dax = self.sysfs.dax(base);
            let driver = dax.as_ref().and_then(|dax| dax.driver);
            fields.put(&of, "driver", driver.unwrap_or("none"));
            let (online, _) = self.sysfs.online(base, size);
            fields.put(&of, "online", format_args!("{online:#x}"));
            let node = dax.and_then(|dax| dax.node);
            fields.put(
                &of,
                "node",
                node.map_or_else(|| "none".to_owned(), |node| node.to_string()),
            );
        }
    }
}

fn joined(ranges: &[(u64, u64)]) -> String {
    let ranges: Vec<_> = ranges.iter().map(|(first, last)| format!("{first:x}-{last:x}")).collect();
    ranges.join(" ")
}

// Linux's tool.

/// What `cxl list` says, of the fields that [`shown`] has: names of decoders and devices are looked up in
/// the facts of the same boot. What is no JSON has no field.
pub fn listed(text: &str, facts: &Facts, scenario: &Scenario) -> Fields {
    let linux = Shown { facts, scenario, sysfs: Sysfs(facts) };
    let mut fields = Fields::default();
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    // Objects of any depth; the tool's own nesting is a handful.
    let mut rest = vec![&value];
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(list) => rest.extend(list),
            Value::Object(object) => {
                let word = |key: &str| object.get(key).and_then(Value::as_str);
                let number = |key: &str| object.get(key).and_then(Value::as_u64);
                let hex = |key: &str| number(key).map(|number| format!("{number:#x}"));
                let mut put = |of: &str, name: &str, value: Option<String>| {
                    if let Some(value) = value {
                        fields.put(of, name, value);
                    }
                };
                if let Some(name) = word("decoder").filter(|name| !name.starts_with("decoder0.")) {
                    let of = linux.decoder_name(name);
                    let used = number("size").is_some_and(|size| size > 0);
                    let base = number("resource").filter(|_| used);
                    put(&of, "base", base.map(|base| address(scenario, base)));
                    put(&of, "size", hex("size"));
                    put(&of, "ways", number("interleave_ways").map(|ways| ways.to_string()));
                    let granularity = number("interleave_granularity");
                    put(&of, "granularity", granularity.map(|bytes| bytes.to_string()));
                    let share = hex("dpa_size").filter(|_| used);
                    put(&of, "share", share);
                    put(&of, "device address", hex("dpa_resource").filter(|_| used));
                    put(&of, "mode", word("mode").map(str::to_owned));
                }
                if let Some(name) = word("memdev").filter(|_| object.contains_key("serial")) {
                    let link = facts.link(&format!("{CXL}/{name}")).unwrap_or_default();
                    if let Some(place) = linux.sysfs.function(scenario, link) {
                        let of = scenario.name_of(place);
                        put(of, "serial", hex("serial"));
                        put(of, "volatile", hex("ram_size"));
                        put(of, "persistent", hex("pmem_size"));
                        put(of, "firmware", word("firmware_version").map(str::to_owned));
                    }
                }
                if let (Some(_), Some(base)) = (word("region"), number("resource")) {
                    let of = format!("region at {}", address(scenario, base));
                    put(&of, "size", hex("size"));
                    let ways = number("interleave_ways");
                    put(&of, "ways", ways.map(|ways| ways.to_string()));
                    let granularity = number("interleave_granularity").filter(|_| ways != Some(1));
                    put(&of, "granularity", granularity.map(|bytes| bytes.to_string()));
                    let committed =
                        word("decode_state").map(|state| yes(state == "commit").to_owned());
                    put(&of, "in use", committed);
                    let mappings = object.get("mappings").and_then(Value::as_array);
                    for mapping in mappings.into_iter().flatten() {
                        let position = mapping.get("position").and_then(Value::as_u64);
                        let decoder = mapping.get("decoder").and_then(Value::as_str);
                        let decoder = decoder.map(|decoder| linux.decoder_name(decoder));
                        let position = position.map_or_else(String::new, |at| at.to_string());
                        put(&of, &format!("position {position}"), decoder);
                    }
                }
                rest.extend(object.values());
            }
            _ => {}
        }
    }
    fields
}

/// The kernel that these facts are of, if it is one whose ways are known here.
pub fn kernel_of(facts: &Facts) -> Option<Kernel> {
    Sysfs(facts).version()?.parse().ok()
}
