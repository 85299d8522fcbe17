//! Linux's sysfs as a list of what it has: decoders with their places, regions, memory.
//!
//! **Invariant**: what Linux does not show is `None` or missing here, never a default that could be
//! right by luck.

use std::collections::BTreeMap;

use cxl_firmware::committed::Place;
use cxl_firmware::topology::Path;
use cxl_regs::Component;

use super::Facts;
use crate::run;
use cxl_model::scenario::{self, Scenario};

const CXL: &str = "/sys/bus/cxl/devices";
const MEMORY: &str = "/sys/devices/system/memory";
const NODES: &str = "/sys/devices/system/node";

/// What there is of one attribute of one device.
#[derive(Clone, Copy)]
pub(crate) struct Sysfs<'f>(pub(crate) &'f Facts);

/// A decoder of a bridge, switch or device that has a range.
#[derive(Clone, Debug)]
pub(crate) struct Decoder<'f> {
    pub(crate) name: &'f str,
    /// Where it is; `None` if that is nowhere in the scenario.
    pub(crate) place: Option<Place>,
    pub(crate) base: Option<u64>,
    pub(crate) size: u64,
    pub(crate) ways: Option<u64>,
    pub(crate) granularity: Option<u64>,
    pub(crate) locked: bool,
    pub(crate) targets: Option<&'f str>,
    pub(crate) dpa: Option<u64>,
    pub(crate) share: Option<u64>,
}

/// A region.
#[derive(Clone, Debug)]
pub(crate) struct Region<'f> {
    pub(crate) name: &'f str,
    pub(crate) base: Option<u64>,
    pub(crate) size: Option<u64>,
    pub(crate) ways: Option<u64>,
    pub(crate) granularity: Option<u64>,
    pub(crate) mode: Option<&'f str>,
    /// The decoders are committed and the region is used.
    pub(crate) in_use: bool,
    /// Names of its devices' decoders, in order of position.
    pub(crate) targets: Vec<&'f str>,
}

/// A DAX or nd device over a range.
#[derive(Clone, Debug)]
pub(crate) struct Over<'f> {
    pub(crate) name: &'f str,
    pub(crate) size: Option<u64>,
    /// The last part of its driver's path.
    pub(crate) driver: Option<&'f str>,
    pub(crate) node: Option<u64>,
    /// Where it hangs.
    pub(crate) path: &'f str,
}

impl<'f> Sysfs<'f> {
    fn text(self, name: &str, attribute: &str) -> Option<&'f str> {
        self.0.text(&format!("{CXL}/{name}/{attribute}"))
    }

    fn number(self, name: &str, attribute: &str) -> Option<u64> {
        self.0.number(&format!("{CXL}/{name}/{attribute}"))
    }

    fn of_type(self, devtype: &'static str) -> impl Iterator<Item = &'f str> {
        self.0.devices("cxl").filter(move |name| self.text(name, "devtype") == Some(devtype))
    }

    /// The version of this Linux.
    pub(crate) fn version(self) -> Option<&'f str> {
        self.0.text("/proc/version")?.split(' ').nth(2)
    }

    /// Regions by address.
    pub(crate) fn regions(self) -> Vec<Region<'f>> {
        let region = |name: &'f str| {
            let number = |attribute: &str| self.number(name, attribute);
            let ways = number("interleave_ways");
            // The most ways that there are.
            let positions = 0..ways.unwrap_or(0).min(16);
            Region {
                name,
                base: number("resource"),
                size: number("size"),
                ways,
                granularity: number("interleave_granularity"),
                mode: self.text(name, "mode"),
                in_use: number("commit") == Some(1),
                targets: positions
                    .map(|at| self.text(name, &format!("target{at}")).unwrap_or_default())
                    .collect(),
            }
        };
        let mut regions: Vec<_> = self.of_type("cxl_region").map(region).collect();
        regions.sort_by_key(|region| region.base);
        regions
    }

    /// Decoders with a range, but for the windows.
    pub(crate) fn decoders(self, scenario: &Scenario) -> Vec<Decoder<'f>> {
        let ports = self.ports(scenario);
        let names = ["cxl_decoder_switch", "cxl_decoder_endpoint"].map(|kind| self.of_type(kind));
        let names = names.into_iter().flatten();
        let decoder = |name: &'f str| {
            let number = |attribute: &str| self.number(name, attribute);
            let size = number("size").filter(|size| *size > 0)?;
            let place = || {
                let (port, index) = name.strip_prefix("decoder")?.split_once('.')?;
                let (at, component) = *ports.get(port)?;
                Some(Place { at, component, index: index.parse().ok()? })
            };
            Some(Decoder {
                name,
                place: place(),
                base: number("start"),
                size,
                ways: number("interleave_ways"),
                granularity: number("interleave_granularity"),
                locked: number("locked") == Some(1),
                targets: self.text(name, "target_list"),
                dpa: number("dpa_resource"),
                share: number("dpa_size"),
            })
        };
        names.filter_map(decoder).collect()
    }

    /// Places of ports and endpoints, by the number in their names.
    fn ports(self, scenario: &Scenario) -> BTreeMap<&'f str, (Path, Component)> {
        let ports = self.0.devices("cxl").filter_map(|name| {
            let number = name.strip_prefix("port").or_else(|| name.strip_prefix("endpoint"))?;
            Some((number, self.place(scenario, name)?))
        });
        ports.collect()
    }

    /// Where a port is, by the port numbers of the PCI functions on the way to it.
    fn place(self, scenario: &Scenario, port: &str) -> Option<(Path, Component)> {
        let device = self.0.link(&format!("{CXL}/{port}/uport"))?;
        let mut parts = device.split('/').skip_while(|part| !part.starts_with("pci"));
        let bus = u8::from_str_radix(parts.next()?.rsplit(':').next()?, 16).ok()?;
        let bridge = scenario.bridges.iter().find(|bridge| bridge.bus == bus)?;
        let (mut component, mut numbers) = (Component::HostBridge, Vec::new());
        for part in parts {
            if part.starts_with("mem") {
                component = Component::Device;
                break;
            }
            match express(self.0.bytes(&format!("/sys/bus/pci/devices/{part}/config"))?)? {
                // A root port or a switch's downstream port, and an upstream port.
                (4 | 6, number) => numbers.push(number),
                (5, _) => component = Component::UpstreamPort,
                _ => {}
            }
        }
        Some((Path::new(bridge.uid, &numbers)?, component))
    }

    /// The port or endpoint that a decoder belongs to; a port by itself.
    pub(crate) fn port_of(self, name: &str) -> Option<&'f str> {
        let number = name.strip_prefix("decoder").and_then(|name| name.split('.').next());
        self.0.devices("cxl").find(|port| match number {
            Some(number) => ["port", "endpoint"]
                .iter()
                .any(|kind| port.strip_prefix(kind).is_some_and(|rest| rest == number)),
            None => *port == name,
        })
    }

    /// The scenario's component that a port or endpoint is of.
    pub(crate) fn component(self, scenario: &Scenario, port: &str) -> Option<scenario::Place> {
        let (path, component) = self.place(scenario, port)?;
        let places: Vec<_> = match component {
            Component::HostBridge => {
                (0..scenario.bridges.len()).map(scenario::Place::Bridge).collect()
            }
            Component::UpstreamPort => {
                (0..scenario.switches.len()).map(scenario::Place::Switch).collect()
            }
            Component::Device => (0..scenario.devices.len()).map(scenario::Place::Device).collect(),
        };
        places.into_iter().find(|&place| run::path(scenario, place) == Some(path))
    }

    /// The scenario's component that a PCI function is, by the ports on the way that its link tells.
    pub(crate) fn function(self, scenario: &Scenario, link: &str) -> Option<scenario::Place> {
        let mut parts = link.split('/').skip_while(|part| !part.starts_with("pci"));
        let bus = u8::from_str_radix(parts.next()?.rsplit(':').next()?, 16).ok()?;
        let bridge = scenario.bridges.iter().find(|bridge| bridge.bus == bus)?;
        let (mut numbers, mut last) = (Vec::new(), 0);
        for part in parts.take_while(|part| !part.starts_with("mem")) {
            let config = self.0.bytes(&format!("/sys/bus/pci/devices/{part}/config"))?;
            let (kind, number) = express(config)?;
            if let 4 | 6 = kind {
                numbers.push(number);
            }
            last = kind;
        }
        let path = Path::new(bridge.uid, &numbers)?;
        let places: Vec<_> = match last {
            4 | 6 => (0..scenario.ports.len()).map(scenario::Place::Port).collect(),
            5 => (0..scenario.switches.len()).map(scenario::Place::Switch).collect(),
            _ => (0..scenario.devices.len()).map(scenario::Place::Device).collect(),
        };
        places.into_iter().find(|&place| run::path(scenario, place) == Some(path))
    }

    /// Names that lines of the log may have for what is on the way to a device: its memory device,
    /// its port and those above.
    pub(crate) fn called(self, scenario: &Scenario, path: &Path) -> Vec<(&'f str, bool)> {
        let names = self.0.devices("cxl").filter_map(|name| {
            if name.starts_with("mem") {
                let link = self.0.link(&format!("{CXL}/{name}"))?;
                let place = self.place_of_link(scenario, link)?;
                return (place.0 == *path).then_some((name, true));
            }
            let (at, component) = self.place(scenario, name)?;
            let above = at.uid() == path.uid() && path.ports().starts_with(at.ports());
            above.then_some((name, component == Component::Device))
        });
        names.collect()
    }

    fn place_of_link(self, scenario: &Scenario, link: &str) -> Option<(Path, Component)> {
        let mut parts = link.split('/').skip_while(|part| !part.starts_with("pci"));
        let bus = u8::from_str_radix(parts.next()?.rsplit(':').next()?, 16).ok()?;
        let bridge = scenario.bridges.iter().find(|bridge| bridge.bus == bus)?;
        let mut numbers = Vec::new();
        for part in parts.take_while(|part| !part.starts_with("mem")) {
            let config = self.0.bytes(&format!("/sys/bus/pci/devices/{part}/config"))?;
            if let (4 | 6, number) = express(config)? {
                numbers.push(number);
            }
        }
        Some((Path::new(bridge.uid, &numbers)?, Component::Device))
    }

    /// DAX devices that start at an address.
    pub(crate) fn dax(self, base: u64) -> Option<Over<'f>> {
        self.over("dax", base)
    }

    /// A persistent region of the nd bus that starts at an address.
    pub(crate) fn nd(self, base: u64) -> Option<Over<'f>> {
        self.over("nd", base)
    }

    fn over(self, bus: &'static str, base: u64) -> Option<Over<'f>> {
        let at = |name: &str, attribute: &str| format!("/sys/bus/{bus}/devices/{name}/{attribute}");
        let mut names = self.0.devices(bus).filter(|name| {
            self.0.number(&at(name, "resource")) == Some(base)
                && (bus == "dax" || self.0.text(&at(name, "devtype")) == Some("nd_pmem"))
        });
        let name = names.next()?;
        Some(Over {
            name,
            size: self.0.number(&at(name, "size")),
            driver: self.0.link(&at(name, "driver")).and_then(|path| path.rsplit('/').next()),
            node: self.0.number(&at(name, "target_node")),
            path: self.0.link(&format!("/sys/bus/{bus}/devices/{name}")).unwrap_or_default(),
        })
    }

    /// Bytes of a memory block; `None` if Linux shows none.
    fn block(self) -> Option<u64> {
        let text = self.0.text(&format!("{MEMORY}/block_size_bytes"))?;
        u64::from_str_radix(text.trim(), 16).ok().filter(|size| *size > 0)
    }

    /// Bytes of a range whose memory blocks are online, and the nodes that have these blocks.
    pub(crate) fn online(self, base: u64, size: u64) -> (u64, Vec<u64>) {
        let Some(block) = self.block() else { return (0, Vec::new()) };
        let end = base.saturating_add(size);
        let (mut bytes, mut nodes) = (0, Vec::new());
        for (index, state) in self.blocks() {
            let first = index.saturating_mul(block);
            let (from, to) = (first.max(base), first.saturating_add(block).min(end));
            if from >= to || state != "online" {
                continue;
            }
            bytes += to - from;
            for node in self.nodes_of(index) {
                if !nodes.contains(&node) {
                    nodes.push(node);
                }
            }
        }
        (bytes, nodes)
    }

    /// Numbers and states of all memory blocks.
    fn blocks(self) -> impl Iterator<Item = (u64, &'f str)> {
        self.0.texts_below("/sys/devices/system/memory/memory").filter_map(|(rest, text)| {
            let index = rest.strip_suffix("/state")?.parse().ok()?;
            Some((index, text.trim()))
        })
    }

    fn nodes_of(self, block: u64) -> impl Iterator<Item = u64> {
        let end = format!("/memory{block}");
        self.0
            .links_below("/sys/devices/system/node/node")
            .filter_map(move |(rest, _)| rest.strip_suffix(end.as_str())?.parse().ok())
    }

    /// Bytes that a node has in all.
    pub(crate) fn node_total(self, node: u64) -> Option<u64> {
        let text = self.0.text(&format!("{NODES}/node{node}/meminfo"))?;
        let line = text.lines().find(|line| line.contains("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().rev().nth(1)?.parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Drivers that did not load.
    pub(crate) fn not_loaded(self) -> impl Iterator<Item = &'f str> {
        self.0.texts_below("insmod/").map(|(rest, _)| rest.rsplit('/').next().unwrap_or(rest))
    }

    /// Lines of the log that are warnings or worse.
    pub(crate) fn warnings(self) -> impl Iterator<Item = &'f str> {
        let lines = self.0.text("/warnings").unwrap_or_default().lines();
        // In front of each: its level, in angle brackets.
        lines.map(|line| line.split_once('>').map_or(line, |(_, line)| line))
    }
}

/// PCI Express type and port number of a function (PCIe r6.0 sections 7.5.3.2 and 7.5.3.6).
fn express(config: &[u8]) -> Option<(u8, u8)> {
    const POINTER: usize = 0x34;
    const CAPABILITY: u8 = 0x10;
    let mut at = usize::from(*config.get(POINTER)?);
    // So many capabilities have room in 256 bytes.
    for _ in 0..48 {
        if *config.get(at)? == CAPABILITY {
            return Some((config.get(at + 2)? >> 4, *config.get(at + 0xF)?));
        }
        at = usize::from(*config.get(at + 1)?);
    }
    None
}
