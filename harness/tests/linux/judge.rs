//! What Linux shows, held against what the library plans.
//!
//! The plan is made here, by the library, on the model of the same scenario with its windows where
//! QEMU has them; nothing that the image printed or wrote is used. What Linux says comes from
//! sysfs. Where bytes have to lie is told by dealing out granules one by one, in the order in which
//! Linux lists the members of the set.
//!
//! **Invariant**: every decoder that Linux shows in use is in the plan, and the other way round.

use std::collections::BTreeMap;

use cxl_firmware::plan::Purpose;
use cxl_firmware::topology::{NodeId, NodeKind, Partition, Path};
use cxl_harness::linux::{Facts, state};
use cxl_harness::run::{self, DirectRun};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::acpi::Cedt;
use cxl_regs::{Decoder, Hpa, Route};

use cxl_harness::linux::boot::Boot;

pub(crate) const CXL: &str = "/sys/bus/cxl/devices";
pub(crate) const CEDT: &str = "/sys/firmware/acpi/tables/CEDT";
const PAGE: u64 = 4096;

/// A boot and the plan for the same machine.
pub(crate) struct Judged {
    pub(crate) boot: Boot,
    pub(crate) done: DirectRun,
    /// Linux's CXL ports by place, and whether they are a device's.
    ports: BTreeMap<(Path, Kind), String>,
}

/// What has decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Bridge,
    Switch,
    Device,
}

impl Judged {
    pub(crate) fn new(boot: Boot) -> Self {
        let (_, done) = modelled(&boot);
        assert_eq!(done.refusal, None, "the model takes what QEMU takes");
        let ports = ports(&boot.scenario, &boot.facts);
        Self { boot, done, ports }
    }

    fn facts(&self) -> &Facts {
        &self.boot.facts
    }

    /// Where a node of the plan is.
    fn place(&self, node: NodeId) -> (Path, Kind) {
        let tree = self.done.room.topology.tree();
        let kind = match tree.get(node).expect("the plan's nodes exist").kind {
            NodeKind::HostBridge { .. } => Kind::Bridge,
            NodeKind::UpstreamPort => Kind::Switch,
            NodeKind::Device(_) => Kind::Device,
            kind => panic!("a {kind:?} has no decoders"),
        };
        (tree.path(node), kind)
    }

    /// The planned decoders, by Linux's name for them.
    fn planned(&self) -> BTreeMap<String, (NodeId, Decoder)> {
        let decoders = self.done.room.plan.decoders.iter();
        let named = decoders.filter_map(|planned| {
            let Purpose::Region { decoder, .. } = planned.purpose else { return None };
            let place = self.place(planned.node);
            let port = self.ports.get(&place).unwrap_or_else(|| panic!("Linux has no {place:?}"));
            let number = port.trim_start_matches(|c: char| !c.is_ascii_digit());
            Some((format!("decoder{number}.{}", planned.index), (planned.node, decoder)))
        });
        named.collect()
    }

    /// Linux's decoders of bridges, switches and devices that have a range.
    fn in_use(&self) -> Vec<&str> {
        let facts = self.facts();
        let decoders = facts.devices("cxl").filter(|name| name.starts_with("decoder"));
        let used = decoders.filter(|name| {
            let kind = facts.text(&format!("{CXL}/{name}/devtype")).expect("decoders have one");
            let size = facts.number(&format!("{CXL}/{name}/size")).expect("decoders have one");
            kind != "cxl_decoder_root" && size > 0
        });
        used.collect()
    }

    /// Every decoder on every path: enabled, with the planned range, interleave and targets, and
    /// locked; and none beside them.
    pub(crate) fn decoders(&self) {
        let (facts, planned) = (self.facts(), self.planned());
        assert!(!planned.is_empty());
        assert!(planned.keys().eq(self.in_use()), "{:?}, {:?}", planned.keys(), self.in_use());
        for (name, (node, decoder)) in &planned {
            let at = |attribute: &str| format!("{CXL}/{name}/{attribute}");
            let number = |attribute: &str| facts.number(&at(attribute));
            assert_eq!(number("start"), Some(decoder.span.base().0), "{name}");
            assert_eq!(number("size"), Some(decoder.span.size()), "{name}");
            let (ways, bytes) = (decoder.interleave.ways, decoder.interleave.granularity);
            assert_eq!(number("interleave_ways"), Some(ways.count().into()), "{name}");
            assert_eq!(number("interleave_granularity"), Some(bytes.bytes()), "{name}");
            assert_eq!(number("locked"), Some(1), "{name}");
            assert_eq!(facts.text(&at("target_type")), Some("expander"), "{name}");
            // A decoder without a region is one that the driver has not enabled for anything.
            let region = facts.text(&at("region")).unwrap_or_default();
            assert!(region.starts_with("region"), "{name}: region \"{region}\"");
            match decoder.route {
                Route::Targets(targets) => {
                    let list = facts.text(&at("target_list")).expect("switches' decoders have one");
                    let want: Vec<_> = targets.used(ways).iter().map(u8::to_string).collect();
                    assert_eq!(list, want.join(","), "{name}");
                }
                Route::Skip(_) => {
                    let share = decoder.span.size() / u64::from(ways.count());
                    assert_eq!(number("dpa_size"), Some(share), "{name}");
                    let members = &self.done.room.plan;
                    let member = members.regions.iter().find_map(|region| {
                        let member = members.members(region).iter().find(|m| m.device == *node)?;
                        (region.span == decoder.span).then_some(member)
                    });
                    let member = member.expect("a device's decoder is of a region");
                    assert_eq!(number("dpa_resource"), Some(member.dpa.base().0), "{name}");
                }
            }
        }
        let committed = |port: &str| facts.number(&format!("{CXL}/{port}/decoders_committed"));
        for ((_, kind), port) in &self.ports {
            let count = planned.keys().filter(|name| {
                let number = port.trim_start_matches(|c: char| !c.is_ascii_digit());
                name.starts_with(&format!("decoder{number}."))
            });
            assert_eq!(committed(port), Some(count.count() as u64), "{kind:?} {port}");
        }
    }

    /// Windows as the platform has them, and fixed, as everything in them is locked.
    pub(crate) fn windows(&self) {
        let (facts, scenario) = (self.facts(), &self.boot.scenario);
        let roots = facts.devices("cxl").filter(|name| name.starts_with("decoder0."));
        let mut roots: Vec<_> = roots.collect();
        let start = |name: &&str| facts.number(&format!("{CXL}/{name}/start"));
        roots.sort_by_key(start);
        assert_eq!(roots.len(), scenario.windows.len());
        for (name, window) in roots.iter().zip(&scenario.windows) {
            let number = |attribute: &str| facts.number(&format!("{CXL}/{name}/{attribute}"));
            assert_eq!(number("size"), Some(window.size), "{name}");
            let ways = window.interleave.ways.count();
            assert_eq!(number("interleave_ways"), Some(ways.into()), "{name}");
            let bytes = window.interleave.granularity.bytes();
            assert_eq!(number("interleave_granularity"), Some(bytes), "{name}");
            let list: Vec<_> = window.targets.iter().map(u32::to_string).collect();
            let list = list.join(",");
            assert_eq!(facts.text(&format!("{CXL}/{name}/target_list")), Some(list.as_str()));
            assert_eq!(number("locked"), Some(1), "{name}");
        }
    }

    /// Bases of the windows, in the scenario's order.
    pub(crate) fn window_bases(&self) -> Vec<u64> {
        let table = self.facts().bytes(CEDT).expect("Linux has a CEDT");
        bases(&Cedt::read(table).expect("a CEDT"))
    }

    /// Each device's place, and the PCI functions on the way from the root bus, the device last.
    pub(crate) fn chains(&self) -> Vec<(Path, Vec<String>)> {
        let devices = self.ports.iter().filter(|((_, kind), _)| *kind == Kind::Device);
        let chain = |port: &String| {
            let device = self.facts().link(&format!("{CXL}/{port}/uport")).expect("a device");
            let parts = device.split('/').skip_while(|part| !part.starts_with("pci")).skip(1);
            parts.take_while(|part| !part.starts_with("mem")).map(str::to_owned).collect()
        };
        devices.map(|((path, _), port)| (*path, chain(port))).collect()
    }

    /// The base of a device's first range register: that of its decoder 0, unless other devices have
    /// a part of the range, which a range register cannot say.
    pub(crate) fn mirrored_base(&self, path: &Path) -> u64 {
        let decoders = self.planned().into_iter().filter(|(name, _)| name.ends_with(".0"));
        let mut of_device =
            decoders.filter(|(_, (node, _))| self.place(*node) == (*path, Kind::Device));
        let (_, (_, decoder)) = of_device.next().expect("a device has a decoder 0");
        if decoder.interleave.ways.count() == 1 { decoder.span.base().0 } else { 0 }
    }

    /// Linux's region for each planned one, by name, in the plan's order.
    fn regions(&self) -> Vec<&str> {
        let facts = self.facts();
        let names = facts
            .devices("cxl")
            .filter(|name| facts.text(&format!("{CXL}/{name}/devtype")) == Some("cxl_region"));
        let mut names: Vec<_> = names.collect();
        names.sort_by_key(|name| facts.number(&format!("{CXL}/{name}/resource")));
        assert_eq!(names.len(), self.done.room.plan.regions.len(), "{names:?}");
        names
    }

    /// The device behind an endpoint decoder that Linux names.
    fn device_of(&self, decoder: &str) -> Path {
        let port = decoder.trim_start_matches("decoder").split('.').next().unwrap_or_default();
        let found = self.ports.iter().find(|(_, name)| **name == format!("endpoint{port}"));
        let ((path, _), _) = found.unwrap_or_else(|| panic!("{decoder} is no endpoint's"));
        *path
    }

    /// The members of a region in the order of Linux's positions.
    fn targets(&self, region: &str) -> Vec<Path> {
        let facts = self.facts();
        let ways = facts.number(&format!("{CXL}/{region}/interleave_ways")).unwrap_or(0);
        let target = |position| facts.text(&format!("{CXL}/{region}/target{position}"));
        let members = (0..ways).map(|position| self.device_of(target(position).unwrap_or("none")));
        members.collect()
    }

    /// Each region assembled, committed, with the planned range, interleave and members in order.
    pub(crate) fn assembled(&self) {
        let (facts, plan) = (self.facts(), &self.done.room.plan);
        let tree = self.done.room.topology.tree();
        for (name, region) in self.regions().into_iter().zip(&plan.regions) {
            let number = |attribute: &str| facts.number(&format!("{CXL}/{name}/{attribute}"));
            assert_eq!(number("resource"), Some(region.span.base().0), "{name}");
            assert_eq!(number("size"), Some(region.span.size()), "{name}");
            assert_eq!(number("commit"), Some(1), "{name}");
            let members = plan.members(region);
            assert_eq!(number("interleave_ways"), Some(members.len() as u64), "{name}");
            let mode = match region.partition {
                Partition::Volatile => "ram",
                Partition::Persistent => "pmem",
            };
            assert_eq!(facts.text(&format!("{CXL}/{name}/mode")), Some(mode), "{name}");
            let want: Vec<_> = members.iter().map(|member| tree.path(member.device)).collect();
            assert_eq!(self.targets(name), want, "{name}");
            let granularity = number("interleave_granularity");
            let first = members.first().expect("a region has members").device;
            let decoder = self
                .planned()
                .into_values()
                .find(|(node, decoder)| *node == first && decoder.span == region.span);
            let (_, decoder) = decoder.expect("a member has a decoder");
            assert_eq!(granularity, Some(decoder.interleave.granularity.bytes()), "{name}");
        }
    }

    /// Linux's DAX device over each planned region.
    fn dax(&self) -> Vec<&str> {
        let facts = self.facts();
        let regions = self.done.room.plan.regions.iter();
        let found = regions.map(|region| {
            let resource = Some(region.span.base().0);
            let mut names = facts.devices("dax").filter(|name| {
                facts.number(&format!("/sys/bus/dax/devices/{name}/resource")) == resource
            });
            names.next().unwrap_or_else(|| panic!("no DAX device at {}", region.span))
        });
        found.collect()
    }

    /// A DAX device with the kmem driver for each region, and all of its memory online, in a node
    /// of its own that has grown by exactly the region.
    pub(crate) fn online(&self) {
        let facts = self.facts();
        let block = facts.text("/sys/devices/system/memory/block_size_bytes").unwrap_or_default();
        let block = u64::from_str_radix(block, 16).expect("the size of a memory block");
        let mut nodes = Vec::new();
        for (name, region) in self.dax().into_iter().zip(&self.done.room.plan.regions) {
            let at = |attribute: &str| format!("/sys/bus/dax/devices/{name}/{attribute}");
            assert_eq!(facts.number(&at("size")), Some(region.span.size()), "{name}");
            assert_eq!(facts.link(&at("driver")), Some("/sys/bus/dax/drivers/kmem"), "{name}");
            let node = facts.number(&at("target_node")).expect("a node");
            assert!(node != 0 && !nodes.contains(&node), "{name}: node {node}");
            nodes.push(node);
            let base = region.span.base().0;
            for index in base / block..(base + region.span.size()) / block {
                let state = facts.text(&format!("/sys/devices/system/memory/memory{index}/state"));
                assert_eq!(state, Some("online"), "{name}, block {index}");
            }
            let memory = facts.text(&format!("/sys/devices/system/node/node{node}/meminfo"));
            let memory = memory.unwrap_or_else(|| panic!("node {node} is not there"));
            let total = memory.lines().find_map(|line| line.split_once("MemTotal:"));
            let (_, total) = total.expect("the total of a node");
            let total = total.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok());
            assert_eq!(total.map(|kib| kib << 10), Some(region.span.size()), "node {node}");
            let (base, last) = (base, region.span.last().0);
            let want = format!("{base:x}-{last:x} : {name}");
            let map = facts.text("/proc/iomem").unwrap_or_default();
            let line = map.lines().position(|line| line.trim() == want);
            let line = line.unwrap_or_else(|| panic!("no \"{want}\" in\n{map}"));
            let below = map.lines().nth(line + 1).unwrap_or_default();
            let want = format!("{base:x}-{last:x} : System RAM (kmem)");
            assert_eq!(below.trim(), want, "{name}");
        }
    }

    /// Linux's persistent-memory side: an nd region over each planned one, with a mapping for each
    /// member at its own addresses.
    pub(crate) fn nd_region(&self) {
        let (facts, plan) = (self.facts(), &self.done.room.plan);
        for (name, region) in self.regions().into_iter().zip(&plan.regions) {
            let number = name.trim_start_matches("region");
            let driver = facts.link(&format!("{CXL}/pmem_region{number}/driver"));
            assert_eq!(driver, Some("/sys/bus/cxl/drivers/cxl_pmem_region"), "{name}");
            let base = Some(region.span.base().0);
            let at = |nd: &str, attribute: &str| format!("/sys/bus/nd/devices/{nd}/{attribute}");
            let found = facts.devices("nd").find(|nd| {
                facts.text(&at(nd, "devtype")) == Some("nd_pmem")
                    && facts.number(&at(nd, "resource")) == base
            });
            let nd = found.unwrap_or_else(|| panic!("no nd region at {}", region.span));
            assert_eq!(facts.number(&at(nd, "size")), Some(region.span.size()), "{nd}");
            assert_eq!(facts.link(&at(nd, "driver")), Some("/sys/bus/nd/drivers/nd_region"));
            let members = plan.members(region);
            assert_eq!(facts.number(&at(nd, "mappings")), Some(members.len() as u64), "{nd}");
            for (position, member) in members.iter().enumerate() {
                let mapping = facts.text(&at(nd, &format!("mapping{position}"))).unwrap_or("");
                let (dpa, size) = (member.dpa.base().0, member.dpa.size());
                let end = format!(",{dpa},{size},{position}");
                assert!(mapping.starts_with("nmem") && mapping.ends_with(&end), "{nd}: {mapping}");
            }
        }
        assert_eq!(facts.devices("dax").count(), 0, "persistent memory is not for System RAM");
    }

    /// A program was copied to each region's memory, reads back the same, runs from there, and its
    /// bytes lie in the devices' media where dealing out granules puts them.
    pub(crate) fn bytes(&self, program: &[u8]) {
        let facts = self.facts();
        let count = self.boot.scenario.devices.len();
        let media: Vec<_> = (0..count).map(|device| self.boot.media(device).unwrap()).collect();
        let devices = (0..count)
            .map(|device| run::path(&self.boot.scenario, Place::Device(device)).expect("a place"));
        let devices: Vec<_> = devices.collect();
        // A region's range, granule, and each member's own addresses, where Linux has its decoder.
        let shape = |region: &str| {
            let number = |attribute: &str| {
                facts.number(&format!("{CXL}/{region}/{attribute}")).expect("a number")
            };
            let (base, size) = (number("resource"), number("size"));
            let granule = number("interleave_granularity");
            let members: Vec<_> = (0..number("interleave_ways"))
                .map(|position| {
                    let decoder = facts.text(&format!("{CXL}/{region}/target{position}"));
                    let decoder = decoder.expect("a target");
                    let dpa = facts.number(&format!("{CXL}/{decoder}/dpa_resource"));
                    let path = self.device_of(decoder);
                    let device = devices.iter().position(|other| *other == path);
                    (device.expect("a device"), dpa.expect("an address"))
                })
                .collect();
            (base, size, granule, members)
        };
        let node = |name: &str| facts.number(&format!("/sys/bus/dax/devices/{name}/target_node"));
        let all: Vec<_> = self.regions().into_iter().zip(self.dax()).collect();
        for (region, name) in &all {
            assert_eq!(facts.text(&format!("run/{name}/copy")), Some("same"));
            // Memory of one node may be any region's that is in it.
            let same = all.iter().filter(|(_, other)| node(other) == node(name));
            let same: Vec<_> = same.map(|(region, _)| shape(region)).collect();
            let mut pages = 0;
            for (place, found) in self.pages(name) {
                let shape =
                    same.iter().find(|(base, size, ..)| (*base..base + size).contains(&found));
                let (base, _, granule, members) =
                    shape.unwrap_or_else(|| panic!("{found:#x} is not in {region}"));
                let bytes = program.get(place as usize..).unwrap_or_default();
                let bytes = bytes.get(..PAGE as usize).unwrap_or(bytes);
                assert!(!bytes.is_empty(), "{region}: the program has no byte {place:#x}");
                let mut dealt = Vec::new();
                let mut at = found;
                while dealt.len() < bytes.len() {
                    let (card, inside) = ((at - base) / granule, (at - base) % granule);
                    let (device, dpa) = members[(card % members.len() as u64) as usize];
                    let here = dpa + card / members.len() as u64 * granule + inside;
                    let step = (granule - inside).min(PAGE - (at - found));
                    dealt.extend(&media[device][here as usize..(here + step) as usize]);
                    at += step;
                }
                assert!(
                    dealt.starts_with(bytes),
                    "{region}: byte {place:#x} of the program, at {found:#x}, is not in the media"
                );
                pages += 1;
            }
            assert!(pages >= 16, "{region}: the program ran from {pages} pages");
        }
    }

    /// Pages of the program that are mapped from the region's memory: offset in the file, physical
    /// address.
    fn pages(&self, name: &str) -> Vec<(u64, u64)> {
        let prefix = format!("run/{name}/pages/");
        let mut pages = Vec::new();
        for (offset, map) in self.facts().bytes_below(&prefix) {
            let offset = u64::from_str_radix(offset, 16).expect("an offset");
            for (index, entry) in (0..).zip(map.chunks_exact(8)) {
                // Bit 63: present; bit 61: a file's page; 54:0: its number.
                let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
                if entry >> 63 & 1 == 1 && entry >> 61 & 1 == 1 {
                    pages.push((offset + index * PAGE, (entry & ((1 << 55) - 1)) * PAGE));
                }
            }
        }
        pages
    }
}

/// What Linux shows otherwise on QEMU than our models' registers would have it: the end of a field's
/// name, ours and QEMU's (`*` for anything), and why both are right.
const ON_QEMU: &[(&str, &str, &str, &str)] = &[
    (", node", "*", "*", "QEMU has no proximity domains: Linux counts nodes as it pleases"),
    (", firmware", "model", "BWFW VERSION 00", "each says what it is"),
    (", labels", "*", "*", "each has as many bytes of labels as it is made with"),
    (", for accelerators", "*", "*", "QEMU gives its windows restrictions of its own"),
    (", for expanders", "*", "*", "QEMU gives its windows restrictions of its own"),
    (", for persistent memory", "*", "*", "QEMU gives its windows restrictions of its own"),
    (", for volatile memory", "*", "*", "QEMU gives its windows restrictions of its own"),
];

impl Judged {
    /// Linux shows of QEMU's devices what the registers of our models hold on the same machine, so that
    /// it has the same answers on both, but for what is listed. Configuration space and BARs are held
    /// against each other elsewhere, register by register.
    pub(crate) fn state(&self) {
        let (machine, _) = modelled(&self.boot);
        let functions = |field: &str| {
            let of_board = field.contains(", config ") || field.ends_with(", in /proc/iomem");
            let place = field.split(',').next().and_then(|name| machine.find(name));
            of_board && place.is_some()
        };
        let ours = state::modelled(&machine, state::kernel_of(self.facts()));
        let ours = ours.only(|field| !functions(field));
        let theirs = state::shown(self.facts(), machine.scenario()).only(|field| !functions(field));
        let is_known = |difference: &state::Difference| {
            let same =
                |want: &str, has: &Option<String>| want == "*" || has.as_deref() == Some(want);
            ON_QEMU.iter().any(|(field, model, linux, _)| {
                difference.field.ends_with(field)
                    && same(model, &difference.model)
                    && same(linux, &difference.linux)
            })
        };
        let differences = ours.against(&theirs);
        let others: Vec<_> = differences.iter().filter(|one| !is_known(one)).collect();
        let words: Vec<_> = others.iter().map(ToString::to_string).collect();
        assert!(words.is_empty(), "{}", words.join("\n"));
        assert!(ours.len() > 50, "{ours}");
    }
}

/// The model of the machine that booted, with its windows where QEMU has them, brought up by the
/// library as the scenario's policy says.
pub(crate) fn modelled(boot: &Boot) -> (Machine, DirectRun) {
    let mut scenario = boot.scenario.clone();
    let table = boot.facts.bytes(CEDT).expect("Linux has a CEDT");
    let bases = bases(&Cedt::read(table).expect("the CEDT that Linux has is one"));
    assert_eq!(bases.len(), scenario.windows.len());
    for (window, base) in scenario.windows.iter_mut().zip(bases) {
        window.base = Some(Hpa(base));
    }
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    (machine, done)
}

/// Bases of the windows. QEMU places them in the order of their numbers.
fn bases(table: &Cedt<'_>) -> Vec<u64> {
    let mut bases: Vec<u64> = table.windows().map(|window| window.span().base().0).collect();
    bases.sort_unstable();
    bases
}

/// Linux's ports and endpoints, by place.
fn ports(scenario: &Scenario, facts: &Facts) -> BTreeMap<(Path, Kind), String> {
    let names = facts.devices("cxl").filter(|name| {
        (name.starts_with("port") || name.starts_with("endpoint"))
            && facts.link(&format!("{CXL}/{name}/uport")).is_some()
    });
    let place = |name: &str| {
        let device = facts.link(&format!("{CXL}/{name}/uport")).expect("ports have one");
        let mut parts = device.split('/').skip_while(|part| !part.starts_with("pci"));
        let bus = parts.next().and_then(|root| root.rsplit(':').next());
        let bus = u8::from_str_radix(bus.expect("a root bus"), 16).expect("a bus number");
        let bridge = scenario.bridges.iter().find(|bridge| bridge.bus == bus);
        let mut kind = Kind::Bridge;
        let mut numbers = Vec::new();
        for part in parts {
            if part.starts_with("mem") {
                kind = Kind::Device;
                break;
            }
            let config = facts.bytes(&format!("/sys/bus/pci/devices/{part}/config"));
            match express(config.unwrap_or_else(|| panic!("{part} has no configuration space"))) {
                (4 | 6, port) => numbers.push(port),
                (5, _) => kind = Kind::Switch,
                _ => {}
            }
        }
        (Path::new(bridge.expect("a bridge").uid, &numbers).expect("not that deep"), kind)
    };
    names.map(|name| (place(name), name.to_owned())).collect()
}

/// PCI Express type and port number of a function, read by hand: PCIe r6.0 sections 7.5.3.2 and
/// 7.5.3.6.
fn express(config: &[u8]) -> (u8, u8) {
    let mut at = usize::from(config[0x34]);
    for _ in 0..48 {
        if config[at] == 0x10 {
            return (config[at + 2] >> 4, config[at + 0xF]);
        }
        at = usize::from(config[at + 1]);
    }
    panic!("no PCI Express capability");
}
