//! What Linux shows of a machine: windows, ports, decoders, devices, as it names them. No registers, but
//! what they mean.
//!
//! **Invariant**: nothing here is judged or guessed. What was not shown is `None`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// Everything that was shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Witness {
    /// Ports by name: `root0`, `port1`, `endpoint2`.
    pub ports: BTreeMap<String, Port>,
    /// Decoders by name: `decoder0.0`.
    pub decoders: BTreeMap<String, Decoder>,
    /// Memory devices by name: `mem0`.
    pub memdevs: BTreeMap<String, Memdev>,
    /// Regions by name.
    pub regions: BTreeMap<String, Region>,
    /// The physical address space, as `/proc/iomem` has it.
    pub resources: Vec<Resource>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Port {
    /// The port above.
    pub parent: Option<String>,
    /// The device that it belongs to: `pci0000:0c`, `0000:0d:00.0`, `mem0`.
    pub host: Option<String>,
    /// The downstream port above it.
    pub parent_dport: Option<String>,
    /// Its downstream ports: by number, with the device.
    pub dports: BTreeMap<u32, Option<String>>,
}

/// A decoder.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Decoder {
    /// First address.
    pub start: Option<u64>,
    /// Bytes.
    pub size: Option<u64>,
    /// Ways.
    pub ways: Option<u32>,
    /// Bytes.
    pub granularity: Option<u64>,
    /// Cannot be changed.
    pub locked: Option<bool>,
    /// Numbers of downstream ports, way 0 first; UIDs of host bridges in a window.
    pub targets: Vec<u32>,
    /// A window that takes volatile memory.
    pub volatile: Option<bool>,
    /// A window that takes persistent memory.
    pub persistent: Option<bool>,
    /// A window that takes device-coherent memory.
    pub accelerator: Option<bool>,
    /// A window that takes host-only coherent memory.
    pub expander: Option<bool>,
    /// First address of the device.
    pub dpa: Option<u64>,
    /// Bytes of the device.
    pub dpa_size: Option<u64>,
    /// `ram` or `pmem`.
    pub mode: Option<String>,
    /// `expander` or `accelerator`.
    pub target_type: Option<String>,
    /// Its region.
    pub region: Option<String>,
}

/// A memory device.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Memdev {
    /// PCI address.
    pub host: Option<String>,
    /// Bytes of volatile memory.
    pub ram: Option<u64>,
    /// Bytes of persistent memory.
    pub pmem: Option<u64>,
    /// Serial number.
    pub serial: Option<u64>,
}

/// A region.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Region {
    /// First address.
    pub start: Option<u64>,
    /// Bytes.
    pub size: Option<u64>,
    /// Ways.
    pub ways: Option<u32>,
    /// Bytes.
    pub granularity: Option<u64>,
    /// Whether its decoders are committed.
    pub committed: Option<bool>,
}

/// A range of `/proc/iomem`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Resource {
    /// First address.
    pub start: u64,
    /// Last address.
    pub end: u64,
    /// How many ranges it lies in.
    pub depth: usize,
    /// What it is.
    pub name: String,
}

impl Witness {
    /// What there is, in words.
    pub fn what(&self) -> String {
        let windows = self.decoders.keys().filter(|name| port_of(name) == Some(0)).count();
        let counts = [
            (windows, "window"),
            (self.decoders.len() - windows, "decoder"),
            (self.memdevs.len(), "memory device"),
            (self.regions.len(), "region"),
            (self.resources.len(), "range of addresses"),
        ];
        let words: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, noun)| match (count, *noun) {
                (1, noun) => format!("1 {noun}"),
                (count, "range of addresses") => format!("{count} ranges of addresses"),
                (count, noun) => format!("{count} {noun}s"),
            })
            .collect();
        format!("what Linux shows: {}", words.join(", "))
    }

    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what another one says, where this one says nothing.
    pub fn merge(&mut self, other: Self) {
        for (name, port) in other.ports {
            let known = self.ports.entry(name).or_default();
            known.parent = known.parent.take().or(port.parent);
            known.host = known.host.take().or(port.host);
            known.parent_dport = known.parent_dport.take().or(port.parent_dport);
            for (id, device) in port.dports {
                let known = known.dports.entry(id).or_default();
                *known = known.take().or(device);
            }
        }
        for (name, decoder) in other.decoders {
            let known = self.decoders.entry(name).or_default();
            let old = std::mem::take(known);
            let no_targets = old.targets.is_empty();
            *known = Decoder {
                start: old.start.or(decoder.start),
                size: old.size.or(decoder.size),
                ways: old.ways.or(decoder.ways),
                granularity: old.granularity.or(decoder.granularity),
                locked: old.locked.or(decoder.locked),
                targets: if no_targets { decoder.targets } else { old.targets },
                volatile: old.volatile.or(decoder.volatile),
                persistent: old.persistent.or(decoder.persistent),
                accelerator: old.accelerator.or(decoder.accelerator),
                expander: old.expander.or(decoder.expander),
                dpa: old.dpa.or(decoder.dpa),
                dpa_size: old.dpa_size.or(decoder.dpa_size),
                mode: old.mode.or(decoder.mode),
                target_type: old.target_type.or(decoder.target_type),
                region: old.region.or(decoder.region),
            };
        }
        for (name, memdev) in other.memdevs {
            let known = self.memdevs.entry(name).or_default();
            known.host = known.host.take().or(memdev.host);
            known.ram = known.ram.or(memdev.ram);
            known.pmem = known.pmem.or(memdev.pmem);
            known.serial = known.serial.or(memdev.serial);
        }
        for (name, region) in other.regions {
            self.regions.entry(name).or_insert(region);
        }
        self.resources.extend(other.resources);
    }
}

/// The number in a name like `port1`, `endpoint2`.
pub fn number(name: &str, kind: &str) -> Option<usize> {
    let digits = name.strip_prefix(kind)?;
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// The port's number in a decoder's name: 3 of `decoder3.1`.
pub fn port_of(decoder: &str) -> Option<usize> {
    let (port, _) = decoder.strip_prefix("decoder")?.split_once('.')?;
    number(port, "")
}

/// The decoder's own number: 1 of `decoder3.1`.
pub fn index_of(decoder: &str) -> Option<usize> {
    let (_, index) = decoder.strip_prefix("decoder")?.split_once('.')?;
    number(index, "")
}
