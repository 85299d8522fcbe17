//! An input as a [`Fabric`], to ask where addresses lead.
//!
//! **Invariant**: what the input does not know is taken for what lets the decoders work, and each such
//! assumption is said; where it would decide whether an address leads anywhere, the answer is that nobody
//! gave it.

use cxl_model::fabric::{self, Fabric, HdmImage, Parent};
use cxl_model::mapping::{At, Mapping, Path, Reach, Reason, mappings, proven, resolve};
use cxl_regs::acpi::cedt::{Cfmws, Cxims};
use cxl_regs::{Arithmetic, Hpa, Size, Ways};

use super::input::{Input, Registers};
use super::records::Records;

/// Where addresses lead, as far as an input says.
#[derive(Debug)]
pub struct Reached {
    /// The whole picture.
    pub fabric: Fabric,
    /// What was assumed.
    pub assumed: Vec<String>,
    /// Components whose registers nobody gave.
    pub unknown: Vec<At>,
    /// Whether the platform's PRM translates device addresses; `None` if nobody said.
    pub prm: Option<bool>,
    /// What else nobody gave.
    gaps: Gaps,
}

/// What nobody gave beside registers.
#[derive(Debug, Default)]
struct Gaps {
    /// A table.
    windows: bool,
    /// Bridges: all of them, or whose one or other is.
    bridges: bool,
    /// UIDs of bridges that the table knows, and nobody else.
    uids: Vec<u32>,
    /// Components of which nobody said what ports they have.
    ports: Vec<At>,
    /// Where one device or switch or other is.
    places: bool,
    /// The UIDs of these bridges.
    unidentified: Vec<usize>,
    /// The capacities of these devices.
    capacities: Vec<usize>,
}

impl From<Fabric> for Reached {
    /// A picture without gaps, unless there is nothing in it.
    fn from(fabric: Fabric) -> Self {
        let windows = fabric.windows.is_empty() && fabric.bridges.is_empty();
        let (assumed, unknown, gaps) = (vec![], vec![], Gaps { windows, ..Gaps::default() });
        Self { fabric, assumed, unknown, prm: None, gaps }
    }
}

impl Reached {
    /// Where an address leads, if what was given proves it.
    pub fn resolve(&self, hpa: Hpa) -> Result<Path, Reason> {
        let path = proven(&self.fabric, hpa).map_err(|reason| self.judged(reason))?;
        match self.guessed(&path) {
            Some(at) => Err(Reason::NotGiven { at }),
            None => Ok(path),
        }
    }

    /// Every window's ranges ([`mappings`]), with what nobody gave in the place of reasons that would be
    /// facts.
    pub fn mappings(&self) -> Vec<Mapping> {
        let mut list = mappings(&self.fabric);
        for mapping in &mut list {
            let reason = match &mapping.how {
                Reach::Trapped { reason } => Some(self.judged(*reason)),
                Reach::Direct(_) if self.unknown.is_empty() => None,
                Reach::Direct(direct) => (0..).zip(&direct.members).find_map(|(place, member)| {
                    let path = resolve(&self.fabric, direct.hpa(place, member.dpa)?).ok()?;
                    self.guessed(&path).map(|at| Reason::NotGiven { at })
                }),
            };
            if let Some(reason) = reason {
                mapping.how = Reach::Trapped { reason };
            }
        }
        list
    }

    /// Whether somebody gave the UID of a bridge, an index into [`Fabric::bridges`].
    pub fn has_uid(&self, bridge: usize) -> bool {
        !self.gaps.unidentified.contains(&bridge)
    }

    /// Whether somebody gave the capacity of a device, an index into [`Fabric::devices`].
    pub fn has_capacity(&self, device: usize) -> bool {
        !self.gaps.capacities.contains(&device)
    }

    /// Whether a bridge of this UID may be there though the picture has none.
    pub fn may_have(&self, uid: u32) -> bool {
        self.gaps.bridges || self.gaps.uids.contains(&uid)
    }

    /// What a path takes for a bridge that passes everything through, and nobody gave its registers.
    fn guessed(&self, path: &Path) -> Option<At> {
        let mut hops = path.hops.iter().filter(|hop| hop.decoder.is_none());
        hops.find(|hop| self.unknown.contains(&hop.at)).map(|hop| hop.at)
    }

    /// The reason, unless it only says what nobody gave.
    fn judged(&self, reason: Reason) -> Reason {
        let Gaps { windows, bridges, uids, ports, places, .. } = &self.gaps;
        match reason {
            Reason::NoWindow if *windows => Reason::WindowsNotGiven,
            Reason::NoSuchBridge { way, uid } if *bridges || uids.contains(&uid) => {
                Reason::BridgeNotGiven { way, uid }
            }
            Reason::NoDecoders { at, .. } if self.unknown.contains(&at) => Reason::NotGiven { at },
            Reason::NoDecoders { at, .. } | Reason::NoSuchPort { at, .. }
                if ports.contains(&at) =>
            {
                Reason::PortsNotGiven { at }
            }
            Reason::NothingBehind { port } if *places => Reason::PlaceNotGiven { port },
            reason => reason,
        }
    }
}

/// Capability and Control of a device that serves CXL.mem.
const SERVES: fabric::DeviceDvsec =
    fabric::DeviceDvsec { capability: 0x001E_0000, control: 0x0000_0006 };

impl Input {
    /// Where addresses lead.
    pub fn reached(&self) -> Reached {
        let mut assumed = Vec::new();
        let mut unknown = Vec::new();
        let mut hdm = |at: At, registers: &Registers| {
            if *registers == Registers::Unknown {
                unknown.push(at);
            }
            registers.hdm().cloned()
        };
        let bridges = self.bridges.iter().enumerate().map(|(index, bridge)| fabric::Bridge {
            name: bridge.name.clone(),
            // No window can name a bridge whose UID nobody said.
            uid: bridge.uid.unwrap_or(u32::MAX),
            hdm: hdm(At::Bridge(index), &bridge.registers),
        });
        let bridges = bridges.collect();
        let switches = self.switches.iter().enumerate().map(|(index, switch)| fabric::Switch {
            name: switch.name.clone(),
            port: switch.port,
            hdm: hdm(At::Switch(index), &switch.registers),
            back_invalidate: true,
        });
        let switches = switches.collect();
        let devices = self.devices.iter().enumerate().map(|(index, device)| {
            let name = &device.name;
            let image = hdm(At::Device(index), &device.registers);
            let (volatile, persistent) = device.capacity.unwrap_or_else(|| {
                let bytes = image.as_ref().map_or(0, mapped);
                if bytes > 0 {
                    let size = Size(bytes);
                    assumed.push(format!(
                        "{name} is taken to have the {size} that its decoders map, volatile"
                    ));
                }
                (bytes, 0)
            });
            // What shows no DVSEC because it ends in front of them says nothing of Mem_Enable.
            let dvsec = match device.config.as_ref().filter(|config| config.is_whole()) {
                Some(config) => config.dvsec.map(|dvsec| fabric::DeviceDvsec {
                    capability: u32::from(dvsec.capability) << 16,
                    control: dvsec.control.into(),
                }),
                None => {
                    assumed.push(format!("{name} is taken to have Mem_Enable set"));
                    Some(SERVES)
                }
            };
            fabric::Device {
                name: name.clone(),
                port: device.port.unwrap_or(usize::MAX),
                present: true,
                hdm: image,
                dvsec,
                back_invalidate: true,
                volatile,
                persistent,
            }
        });
        let devices = devices.collect();
        let ports = self.ports.iter().map(|port| fabric::Port {
            name: port.name.clone(),
            parent: port.parent,
            number: port.number,
            back_invalidate: true,
        });
        let ports = ports.collect();
        let windows = self.windows(&mut assumed);
        let fabric = Fabric { physical_bits: 52, windows, bridges, ports, switches, devices };
        Reached { fabric, assumed, unknown, prm: self.prm, gaps: self.unseen() }
    }

    /// What nobody gave, as far as it decides where addresses lead.
    fn unseen(&self) -> Gaps {
        let table = self.cedt.as_deref().unwrap_or_default();
        let given = |uid: &u32| self.bridges.iter().any(|bridge| bridge.uid == Some(*uid));
        let uids = Records::of(table).chbs.iter().map(|chbs| chbs.uid.get()).collect::<Vec<_>>();
        let parents = (0..self.bridges.len()).map(Parent::Bridge);
        let parents = parents.chain((0..self.switches.len()).map(Parent::Switch));
        let without = |parent: &Parent| !self.ports.iter().any(|port| port.parent == *parent);
        let bridges = self.bridges.iter().enumerate().filter(|(_, bridge)| bridge.uid.is_none());
        let devices = self.devices.iter().enumerate();
        let devices = devices.filter(|(_, device)| device.capacity.is_none());
        Gaps {
            windows: self.cedt.is_none(),
            bridges: self.bridges.is_empty() || self.bridges.iter().any(|it| it.uid.is_none()),
            uids: uids.into_iter().filter(|uid| !given(uid)).collect(),
            ports: parents.filter(without).map(At::from).collect(),
            places: self.devices.iter().any(|device| device.port.is_none())
                || self.switches.iter().any(|switch| switch.port >= self.ports.len()),
            unidentified: bridges.map(|(index, _)| index).collect(),
            capacities: devices.map(|(index, _)| index).collect(),
        }
    }

    fn windows(&self, assumed: &mut Vec<String>) -> Vec<fabric::Window> {
        let Some(table) = self.cedt.as_deref() else { return vec![] };
        let records = Records::of(table);
        let maps: Vec<Cxims> = records
            .cxims
            .iter()
            .filter_map(|(record, maps)| Cxims::decode(record, maps).ok())
            .collect();
        let mut windows = Vec::new();
        for (index, (record, targets)) in records.cfmws.iter().enumerate() {
            let window = match Cfmws::decode(record, targets) {
                Ok(window) => window,
                Err(problem) => {
                    assumed.push(format!("window {index} is left out: {problem}"));
                    continue;
                }
            };
            let granularity = window.interleave().granularity;
            let fits = |maps: &&Cxims| maps.granularity == granularity;
            // Each CXIMS that fits takes the place of the one before (`cxl_parse_cxims`).
            let own = maps.iter().rfind(fits);
            let need = window.interleave().ways.selector_bits() as usize;
            let used = |maps: &Cxims| maps.maps.iter().take(need).copied().collect::<Vec<u64>>();
            let differ = maps.iter().filter(fits).any(|it| own.map(used) != Some(used(it)));
            if differ && need > 0 && window.arithmetic == Arithmetic::Xor {
                assumed.push(format!(
                    "window {index} is taken to pick its targets by the last CXIMS of {granularity}, as \
                     Linux does: the table has several, which differ"
                ));
            }
            let base: Hpa = window.span().base();
            windows.push(fabric::Window {
                name: format!("window{index}"),
                base: Some(base),
                size: window.span().size(),
                targets: window.targets().to_vec(),
                interleave: window.interleave(),
                arithmetic: window.arithmetic,
                xor_maps: own.map(|own| own.maps.to_vec()).unwrap_or_default(),
                restrictions: window.restrictions,
            });
        }
        windows
    }
}

/// Bytes of a device up to the end of what its committed decoders map.
fn mapped(image: &HdmImage) -> u64 {
    image.decoders.iter().fold(0, |end: u64, decoder| {
        let control = decoder.control();
        if !control.committed() {
            return end;
        }
        let ways = Ways::decode(control.ways()).map_or(1, Ways::count);
        let share = decoder.size() / u64::from(ways);
        end.saturating_add(decoder.skip()).saturating_add(share)
    })
}
