//! What is compared: runs of dwords that both machines have, found on each by walking its own
//! capability lists.

use std::fmt;
use std::ops::Range;

use cxl_firmware::topology::Tree;
use cxl_harness::qemu::qtest::Qtest;
use cxl_harness::run;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::Component;
use cxl_regs::mmio::Mmio;

use crate::peer::Random;

/// Which registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bridge,
    Switch,
    Device,
    DeviceConfig,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Bridge, Self::Switch, Self::Device, Self::DeviceConfig];

    /// What the list of known differences calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Switch => "switch",
            Self::Device => "device",
            Self::DeviceConfig => "device config",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One structure, on both machines.
pub(crate) struct Structure {
    pub(crate) name: &'static str,
    /// Address of its first byte in each.
    pub(crate) ours: u64,
    pub(crate) theirs: u64,
    length: u16,
    /// The first offset that is compared: what stands before it points to other structures.
    pub(crate) first: u16,
}

const DECODERS: &str = "HDM";
pub(crate) const DEVICE_DVSEC: &str = "Device DVSEC";

impl Structure {
    pub(crate) fn dwords(&self) -> usize {
        usize::from(self.length / 4)
    }

    /// Dwords in the order in which they are put back: a decoder is uncommitted first.
    pub(crate) fn restore_order(&self) -> Vec<usize> {
        let all = usize::from(self.first / 4)..self.dwords();
        let control = |dword: &usize| self.decoder(4 * *dword as u16).is_some_and(|(_, w)| w == 4);
        let mut order: Vec<usize> = all.clone().filter(control).rev().collect();
        order.extend(all.filter(|dword| !control(dword)));
        order
    }

    /// The decoder at an offset, and which of its dwords.
    pub(crate) fn decoder(&self, offset: u16) -> Option<(u16, u16)> {
        let within = offset.checked_sub(0x10).filter(|_| self.name == DECODERS)?;
        Some((within / 0x20, within % 0x20 / 4))
    }

    /// What is looked at after a write: the dwords that it touches, all others of the same decoder,
    /// and those in front of the decoders.
    pub(crate) fn neighbours(&self, offset: u16) -> Vec<u16> {
        let mut offsets = match self.decoder(offset) {
            Some((decoder, _)) => {
                let start = 0x10 + 0x20 * decoder;
                (0..4).chain(start / 4..start / 4 + 8).map(|dword| 4 * dword).collect()
            }
            None => vec![offset & !3, (offset & !3) + 4],
        };
        offsets.retain(|&at| at >= self.first && at < self.length);
        offsets
    }

    /// A name for the dword at an offset, with the number of the decoder.
    pub(crate) fn register(&self, offset: u16) -> String {
        let dword = offset & !3;
        if self.name != DECODERS {
            return format!("{} +{dword:#x}", self.name);
        }
        match (dword, self.decoder(dword)) {
            (0x00, _) => "Capability".to_owned(),
            (0x04, _) => "Global Control".to_owned(),
            (_, Some((decoder, within))) => {
                let names = [
                    "Base Low",
                    "Base High",
                    "Size Low",
                    "Size High",
                    "Control",
                    "Route Low",
                    "Route High",
                    "Reserved",
                ];
                let name = names.get(usize::from(within)).unwrap_or(&"?");
                format!("Decoder {decoder} {name}")
            }
            (_, None) => format!("Reserved +{dword:#x}"),
        }
    }

    /// A value that leads somewhere, sometimes, instead of one at random: a control register with
    /// encodings that exist, committed and locked.
    pub(crate) fn likely(&self, offset: u16, value: u64, random: &mut Random) -> u64 {
        match self.decoder(offset) {
            Some((_, 4)) if random.below(4) != 0 => {
                let flags = [0x300, 0x300, 0x200, 0x100][random.below(4) as usize];
                flags | random.below(2) << 12 | random.below(4) << 4 | random.below(7)
            }
            _ => value,
        }
    }

    /// Where CONFIG_LOCK is.
    pub(crate) fn lock(&self) -> Option<u16> {
        (self.name == DEVICE_DVSEC).then_some(0x14)
    }

    /// What a write locks, if it locks something: the decoder, or the Device DVSEC.
    pub(crate) fn locked_by(&self, offset: u16, value: u64) -> Option<Range<u16>> {
        match self.decoder(offset) {
            Some((decoder, 4)) if value & 0x300 == 0x300 => {
                let start = 0x10 + 0x20 * decoder;
                Some(start..start + 0x20)
            }
            None if self.name == DEVICE_DVSEC && offset == 0x14 && value & 1 == 1 => {
                Some(0x0C..self.length)
            }
            _ => None,
        }
    }
}

/// The structures of one kind that both machines have, and a complaint about any other.
pub(crate) fn find(
    kind: Kind,
    scenario: &Scenario,
    ours: &mut Machine,
    theirs: &mut Qtest,
    tree: Tree<'_>,
) -> Vec<Structure> {
    let mut room = run::room();
    let tables = run::platform(ours).unwrap();
    let mut clock = ours.clock();
    let platform = tables.platform();
    cxl_firmware::discover::discover(ours, &mut clock, &platform, &mut room.topology).unwrap();
    let own = room.topology.tree();
    let (place, component) = match kind {
        Kind::Bridge => (Place::Bridge(0), Component::HostBridge),
        Kind::Switch => (Place::Switch(0), Component::UpstreamPort),
        Kind::Device | Kind::DeviceConfig => (Place::Device(0), Component::Device),
    };
    let path = run::path(scenario, place).unwrap();
    let node = |tree: Tree<'_>| {
        let mut nodes = tree.iter();
        let found =
            nodes.find(|(id, n)| n.component() == Some(component) && tree.path(*id) == path);
        *found.unwrap().1
    };
    let (own, other) = (node(own), node(tree));
    if kind == Kind::DeviceConfig {
        let [own, other] = [own, other].map(|node| node.device().unwrap().dvsec.0);
        // Within one function's configuration space of 4 KiB.
        let own = dvsecs(ours, own & !0xFFF);
        let other = dvsecs(theirs, other & !0xFFF);
        return [(0, DEVICE_DVSEC), (5, "GPF DVSEC"), (7, "Flex Bus DVSEC"), (8, "Locator DVSEC")]
            .into_iter()
            .map(|(id, name)| {
                let of = |list: &[(u16, u64, u16)]| *list.iter().find(|d| d.0 == id).unwrap();
                let ((_, ours, own_length), (_, theirs, length)) = (of(&own), of(&other));
                let length = own_length.min(length) & !3;
                Structure { name, ours, theirs, length, first: 4 }
            })
            .collect();
    }
    let [own, other] = [own, other].map(|node| node.hdm.unwrap().block.0);
    let decoders = Structure { name: DECODERS, ours: own, theirs: other, length: 0x90, first: 0 };
    // The array starts at +0x1000 of a 64 KiB block, and these structures lie in the same 4 KiB.
    let own = capabilities(ours, own & !0xFFF);
    let other = capabilities(theirs, other & !0xFFF);
    let mut list = vec![decoders];
    for (id, name, length) in [(2, "RAS", 0x58), (4, "Link", 0x38)] {
        let of = |list: &[(u16, u64)]| list.iter().find(|c| c.0 == id).map(|c| c.1);
        if let (Some(ours), Some(theirs)) = (of(&own), of(&other)) {
            list.push(Structure { name, ours, theirs, length, first: 0 });
        }
    }
    list
}

/// Capability IDs with the addresses of their structures (CXL r3.1 section 8.2.4).
fn capabilities(hw: &mut impl Mmio, array: u64) -> Vec<(u16, u64)> {
    let count = hw.read(array) >> 24;
    let entries = (1..=u64::from(count)).map(|index| {
        let entry = hw.read(array + 4 * index);
        (entry as u16, array + u64::from(entry >> 20))
    });
    entries.filter(|(id, _)| *id != 0).collect()
}

/// IDs of CXL's DVSECs in a function, with address and length (PCIe r6.0 section 7.9.6).
fn dvsecs(hw: &mut impl Mmio, function: u64) -> Vec<(u16, u64, u16)> {
    let (mut list, mut at) = (Vec::new(), 0x100);
    for _ in 0..64 {
        let header = hw.read(function + at);
        if header as u16 == 0x23 {
            let (first, second) = (hw.read(function + at + 4), hw.read(function + at + 8));
            if first as u16 == 0x1E98 {
                list.push((second as u16, function + at, (first >> 20) as u16));
            }
        }
        at = u64::from(header >> 20);
        if at == 0 {
            return list;
        }
    }
    panic!("a list of capabilities without an end");
}
