//! A snapshot of everything that decides where a host address leads, as plain data.
//!
//! It comes from a machine of models ([`Machine::fabric`](crate::machine::Machine::fabric)), or from
//! register images that other firmware left: take the topology with [`Fabric::of`], then put in the
//! dwords.
//!
//! **Invariant**: nothing here is judged. Dwords are what a read returned, facts are what the
//! platform says of itself; [`mapping`](crate::mapping) decides what they mean together.

use cxl_regs::access::Register;
use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::dvsec::device;
use cxl_regs::hdm::{
    Capability, DecoderImage, GLOBAL_SPECS, GlobalControl, MAX_DECODERS, decoder_offset,
};
use cxl_regs::{Arithmetic, Hpa, Interleave};

/// The whole picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// Width of a physical address.
    pub physical_bits: u8,
    /// Windows as the platform decodes them.
    pub windows: Vec<Window>,
    /// Host bridges.
    pub bridges: Vec<Bridge>,
    /// Root ports and switches' downstream ports.
    pub ports: Vec<Port>,
    /// Switches' upstream ports.
    pub switches: Vec<Switch>,
    /// Devices, plugged in or not.
    pub devices: Vec<Device>,
}

/// A fixed memory window (CFMWS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its name.
    pub name: String,
    /// Base; `None` = not placed.
    pub base: Option<Hpa>,
    /// Bytes.
    pub size: u64,
    /// UIDs of host bridges, way 0 first.
    pub targets: Vec<u32>,
    /// Ways and granularity.
    pub interleave: Interleave,
    /// How an address picks a target.
    pub arithmetic: Arithmetic,
    /// Maps of the XOR arithmetic.
    pub xor_maps: Vec<u64>,
    /// What it admits.
    pub restrictions: Restrictions,
}

/// A host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// ACPI `_UID`.
    pub uid: u32,
    /// Its decoders; `None` = no HDM capability.
    pub hdm: Option<HdmImage>,
}

/// What a port belongs to: an index into the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A root port of this bridge.
    Bridge(usize),
    /// A downstream port of this switch.
    Switch(usize),
}

/// A root port or a switch's downstream port. Decoders in a root port route nothing and have no
/// place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Whose port it is.
    pub parent: Parent,
    /// PCIe Port Number.
    pub number: u8,
    /// Has a BI decoder: it can forward back-invalidate requests.
    pub back_invalidate: bool,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// The port it hangs below, an index into [`Fabric::ports`].
    pub port: usize,
    /// The upstream port's decoders; `None` = no HDM capability.
    pub hdm: Option<HdmImage>,
    /// Has a BI route table: it can forward back-invalidate requests.
    pub back_invalidate: bool,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The port it hangs below, an index into [`Fabric::ports`].
    pub port: usize,
    /// Plugged in now.
    pub present: bool,
    /// Its decoders; `None` = no HDM capability.
    pub hdm: Option<HdmImage>,
    /// Capability and Control of the Device DVSEC, `None` = no CXL device.
    pub dvsec: Option<DeviceDvsec>,
    /// Has a BI decoder: it can send back-invalidate requests.
    pub back_invalidate: bool,
    /// Volatile bytes, from DPA 0.
    pub volatile: u64,
    /// Persistent bytes, behind the volatile ones.
    pub persistent: u64,
}

/// The dwords of the Device DVSEC that decide whether CXL.mem is served (CXL r3.1 section 8.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceDvsec {
    /// Offset 0x08: Capability in bits 31:16.
    pub capability: u32,
    /// Offset 0x0C: Control in bits 15:0, Status above.
    pub control: u32,
}

impl DeviceDvsec {
    /// Mem_Capable: it has CXL memory.
    pub fn mem_capable(self) -> bool {
        device::Capability::from_bits((self.capability >> 16) as u16).mem_capable()
    }

    /// Mem_Enable: it serves CXL.mem.
    pub fn mem_enable(self) -> bool {
        device::Control::from_bits(self.control as u16).mem_enable()
    }
}

/// The HDM decoder structure of one component, as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HdmImage {
    /// Capability register.
    pub capability: u32,
    /// Global Control register.
    pub global_control: u32,
    /// The decoders.
    pub decoders: Vec<DecoderImage>,
}

impl HdmImage {
    /// The structure that starts with the bytes: as many decoders as it says and lie in them whole;
    /// all that do if the count is of no meaning.
    pub fn read(bytes: &[u8]) -> Self {
        let reader = cxl_regs::block::image(bytes);
        let capability = Capability::from_bits(reader(0));
        let count = capability.decoders().map_or(MAX_DECODERS, usize::from);
        let decoders = (0..).take(count).map_while(|index| {
            let start = usize::from(decoder_offset(index));
            bytes.get(start..usize::from(decoder_offset(index + 1)))?;
            let dwords = std::array::from_fn(|dword| reader((start + 4 * dword) as u16));
            Some(DecoderImage::from_dwords(dwords))
        });
        Self {
            capability: capability.into_bits(),
            global_control: reader(GlobalControl::SPEC.offset),
            decoders: decoders.collect(),
        }
    }

    /// Every dword reads as all-ones: nothing answers, and no bit of it means what it says.
    pub fn is_silent(&self) -> bool {
        let decoders = self.decoders.iter().flat_map(|image| image.to_dwords());
        [self.capability, self.global_control].into_iter().chain(decoders).all(|it| it == u32::MAX)
    }

    /// The structure as bytes (CXL r3.1 section 8.2.4.20), for [`HdmText`](cxl_regs::HdmText).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; decoder_offset(0).into()];
        for (spec, dword) in GLOBAL_SPECS.iter().zip([self.capability, self.global_control]) {
            let at = usize::from(spec.offset);
            if let Some(place) = bytes.get_mut(at..at + size_of::<u32>()) {
                place.copy_from_slice(&dword.to_le_bytes());
            }
        }
        let dwords = self.decoders.iter().flat_map(|image| image.to_dwords());
        bytes.extend(dwords.flat_map(u32::to_le_bytes));
        bytes
    }

    /// The capability register.
    pub fn capability(&self) -> Capability {
        Capability::from_bits(self.capability)
    }

    /// HDM Decoder Enable; means something in devices only.
    pub fn decoder_enable(&self) -> bool {
        GlobalControl::from_bits(self.global_control).decoder_enable()
    }
}
