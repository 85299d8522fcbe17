//! A component as the record has it: what it is, and what its registers outside decoders held.
//!
//! **Invariant**: what is written was read from the component when the record was made; write-1-to-clear
//! bits are recorded as 0.

use core::mem::{offset_of, size_of};

use cxl_regs::access::Register;
use cxl_regs::config::{BridgeControl, Command, Id, Sbdf};
use cxl_regs::dvsec::device::{self, RANGE_STRIDE};
use cxl_regs::hdm;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Meaningless, decode, encode, known};
use crate::config::{self, Config, bus_base};
use crate::discover::leaf::Role;
use crate::discover::{FunctionFacts, facts, role};
use crate::error::{Code, Error, Place};
use crate::mmio::{Block, Mmio};
use crate::outcome::{ComponentKind, ComponentOutcome, Outcome};
use crate::platform::{Ecam, RootBus};
use crate::topology::{
    BackInvalidate, Device, Hdm, MAX_DEPTH, Node, NodeId, Partition, Path, Tree,
};

/// The dwords of a header that are recorded, from its first BAR on.
pub(crate) const HEADER: usize = 8;
/// Where they start.
pub(crate) const HEADER_START: u16 = 0x10;

/// All-ones: there is no component above.
const NONE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ComponentRecord {
    uid: U32,
    kind: u8,
    depth: u8,
    parent: U16,
    ports: [u8; MAX_DEPTH],
    segment: U16,
    bdf: U16,
    pub(crate) vendor: U16,
    pub(crate) device: U16,
    pub(crate) serial: U64,
    pub(crate) volatile: U64,
    pub(crate) persistent: U64,
    pub(crate) hdm: U64,
    pub(crate) back_invalidate: U64,
    pub(crate) registers: U64,
    pub(crate) device_dvsec: U16,
    pub(crate) flex_bus: U16,
    pub(crate) serial_at: U16,
    pub(crate) command: U16,
    pub(crate) bridge_control: U16,
    pub(crate) control: U16,
    pub(crate) header: [U32; HEADER],
    pub(crate) hdm_capability: U32,
    pub(crate) global: U32,
    pub(crate) bi_control: U32,
    pub(crate) range_bases: [[U32; 2]; 2],
    pub(crate) lock: U16,
    reserved: [u8; 6],
}

/// An outcome: what, of what, and the error or the place.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct OutcomeRecord {
    outcome: u8,
    kind: u8,
    reserved: [u8; 6],
    code: U16,
    detail: U16,
    place: [U32; 3],
    expected: U64,
    found: U64,
}

const _: () = {
    assert!(size_of::<ComponentRecord>() == 160);
    assert!(size_of::<OutcomeRecord>() == 40);
};

const KIND: [ComponentKind; 5] = [
    ComponentKind::Device,
    ComponentKind::HostBridge,
    ComponentKind::UpstreamPort,
    ComponentKind::RootPort,
    ComponentKind::DownstreamPort,
];

/// What a component's record is made of beside its registers.
pub(crate) struct Subject<'a> {
    pub(crate) at: Path,
    pub(crate) kind: ComponentKind,
    /// The number of the component above.
    pub(crate) parent: Option<u16>,
    pub(crate) function: Option<Sbdf>,
    /// Of its function, and of that above, if these are functions.
    pub(crate) role: Option<Role>,
    pub(crate) above: Option<Role>,
    pub(crate) device: Option<&'a Device>,
    pub(crate) hdm: Option<Hdm>,
    pub(crate) back_invalidate: Option<BackInvalidate>,
    /// Neither it nor what is above has a fault.
    pub(crate) sound: bool,
}

impl<'a> Subject<'a> {
    /// A node.
    pub(crate) fn of(tree: Tree<'a>, id: NodeId, node: &'a Node) -> Self {
        let above = node.parent.and_then(|parent| tree.get(parent));
        Self {
            at: tree.path(id),
            kind: node.kind.into(),
            parent: node.parent.map(|parent| parent.0),
            function: node.function,
            role: role(&node.kind).filter(|_| above.is_some()),
            above: above.and_then(|above| role(&above.kind)),
            device: node.device(),
            hdm: node.hdm,
            back_invalidate: node.back_invalidate,
            sound: tree.fault(id).is_none(),
        }
    }
}

impl ComponentRecord {
    /// A component, as it is now. Of one with a fault no register is read.
    #[inline(never)]
    pub(crate) fn of(
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
        ecam: &[Ecam],
        subject: &Subject<'_>,
    ) -> Self {
        let at = &subject.at;
        let mut record = Self::new_zeroed();
        record.uid = at.uid().into();
        record.kind = encode(&KIND, subject.kind);
        record.depth = at.ports().len() as u8;
        record.parent = subject.parent.unwrap_or(NONE).into();
        for (slot, port) in record.ports.iter_mut().zip(at.ports()) {
            *slot = *port;
        }
        if let Some(device) = subject.device {
            record.volatile = device.capacity(Partition::Volatile).into();
            record.persistent = device.capacity(Partition::Persistent).into();
        }
        if subject.sound {
            record.read_function(hw, config, ecam, subject);
            record.read_structures(hw, subject);
        }
        record
    }

    #[inline(never)]
    fn read_function(
        &mut self,
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
        ecam: &[Ecam],
        subject: &Subject<'_>,
    ) {
        let (Some(function), Some(role)) = (subject.function, subject.role) else { return };
        let bus = RootBus { segment: function.segment, bus: function.bdf.bus() };
        let Some(base) = bus_base(ecam, bus) else { return };
        config.open(subject.at.uid(), base, function);
        let Some(found) = facts(hw, config, role, subject.above) else { return };
        let FunctionFacts { device, flex_bus, serial: (serial_at, serial), registers } = found;
        self.segment = function.segment.into();
        self.bdf = function.bdf.bits().into();
        let identity: Id = config.read(hw, 0);
        self.vendor = identity.vendor().into();
        self.device = identity.device().into();
        (self.serial_at, self.serial) = (serial_at.into(), serial.into());
        (self.device_dvsec, self.flex_bus) = (device.into(), flex_bus.into());
        self.registers = registers.into();
        let command: Command = config.read(hw, 0);
        self.command = command.into_bits().into();
        let acts = match role {
            Role::Device => &config::ENDPOINT,
            _ => {
                let control: BridgeControl = config.read(hw, 0);
                self.bridge_control = control.into_bits().into();
                &config::BRIDGE
            }
        };
        let dwords = header_dwords(subject.kind);
        for (offset, slot) in (HEADER_START..).step_by(4).zip(self.header.iter_mut().take(dwords)) {
            *slot = (config.dword(hw, offset) & !acts.at(offset)).into();
        }
        if device != 0 {
            let dvsec = config.block(device);
            self.control = dvsec.read::<device::Control>(hw).into_bits().into();
            self.lock = dvsec.read::<device::Lock>(hw).into_bits().into();
            let capability: device::Capability = dvsec.read(hw);
            for (range, slots) in (0..capability.hdm_count()).zip(&mut self.range_bases) {
                let [high, low] = range_base(dvsec, range);
                *slots = [hw.read(high).into(), hw.read(low).into()];
            }
        }
    }

    fn read_structures(&mut self, hw: &mut impl Mmio, subject: &Subject<'_>) {
        if let Some(hdm) = subject.hdm {
            self.hdm = hdm.block.0.into();
            self.hdm_capability = hdm.capability.raw().into();
            self.global = hdm.block.read::<hdm::GlobalControl>(hw).into_bits().into();
        }
        if let Some(structure) = subject.back_invalidate {
            self.back_invalidate = structure.block.0.into();
            let control: cxl_regs::bi::DecoderControl = structure.block.read(hw);
            self.bi_control = control.into_bits().into();
        }
    }

    /// Whether it is sound, given its number.
    pub(super) fn check(&self, number: usize) -> Result<(), Meaningless> {
        let (depth, parent) = (usize::from(self.depth), self.parent().unwrap_or(0));
        let is_behind = parent < number || self.parent().is_none();
        known(decode(&KIND, self.kind).is_some(), offset_of!(Self, kind), self.kind.into())?;
        known(depth <= MAX_DEPTH, offset_of!(Self, depth), depth)?;
        known(is_behind, offset_of!(Self, parent), parent)
    }

    /// Where it is.
    pub(crate) fn at(&self) -> Path {
        let ports = self.ports.get(..usize::from(self.depth)).unwrap_or(&[]);
        Path::new(self.uid.get(), ports).unwrap_or_default()
    }

    /// The same, as an error names it.
    #[inline(never)]
    pub(crate) fn place(&self) -> Place {
        self.at().into()
    }

    /// The UID of the bridge that it is, or lies below.
    pub(crate) fn uid(&self) -> u32 {
        self.uid.get()
    }

    /// What it is.
    pub(crate) fn kind(&self) -> ComponentKind {
        decode(&KIND, self.kind).unwrap_or(ComponentKind::Device)
    }

    /// The number of the component above.
    pub(crate) fn parent(&self) -> Option<usize> {
        Some(self.parent.get()).filter(|parent| *parent != NONE).map(usize::from)
    }

    /// Its function, if it was one and answered.
    pub(crate) fn function(&self) -> Option<Sbdf> {
        let bdf = cxl_regs::config::Bdf::from_bits(self.bdf.get());
        (self.vendor.get() != 0).then_some(Sbdf { segment: self.segment.get(), bdf })
    }
}

/// How many dwords of a component's header are recorded: a device has BARs alone there.
pub(crate) fn header_dwords(kind: ComponentKind) -> usize {
    if kind == ComponentKind::Device { 6 } else { HEADER }
}

/// The addresses of a range's base, upper half first.
pub(crate) fn range_base(dvsec: Block, range: u8) -> [u64; 2] {
    let block = Block(dvsec.0.wrapping_add(u64::from(RANGE_STRIDE) * u64::from(range)));
    [block.address::<device::RangeBaseHigh>(), block.address::<device::RangeBaseLow>()]
}

/// A component as a record has it.
#[derive(Clone, Copy, Debug)]
pub struct HandoffComponent<'a>(pub(crate) &'a ComponentRecord);

#[allow(missing_docs, reason = "each is the field of its name in the record")]
impl HandoffComponent<'_> {
    /// Where it is. A port has the place of what is behind it.
    pub fn at(&self) -> Path {
        self.0.at()
    }

    pub fn kind(&self) -> ComponentKind {
        self.0.kind()
    }

    /// The number of the component above.
    pub fn parent(&self) -> Option<usize> {
        self.0.parent()
    }

    /// Its function, and its vendor and device ID; `None` for a host bridge, and for what did not
    /// answer.
    pub fn function(&self) -> Option<(Sbdf, u16, u16)> {
        Some((self.0.function()?, self.0.vendor.get(), self.0.device.get()))
    }

    pub fn serial(&self) -> Option<u64> {
        (self.0.serial_at.get() != 0).then_some(self.0.serial.get())
    }

    /// Volatile and persistent bytes.
    pub fn capacity(&self) -> [u64; 2] {
        [self.0.volatile.get(), self.0.persistent.get()]
    }

    pub fn command(&self) -> Command {
        Command::from_bits(self.0.command.get())
    }

    /// The header's dwords from offset 0x10 to 0x2f: BARs, and of a port bus numbers and windows.
    pub fn header(&self) -> [u32; HEADER] {
        self.0.header.map(U32::get)
    }

    /// DVSEC CXL Control.
    pub fn control(&self) -> device::Control {
        device::Control::from_bits(self.0.control.get())
    }

    pub fn config_lock(&self) -> bool {
        device::Lock::from_bits(self.0.lock.get()).config_lock()
    }
}

/// Codes of outcomes.
const IN_USE: u8 = 0;
const LEFT_OUT: u8 = 1;
const BROKEN: u8 = 2;
const NOT_MEM: u8 = 3;
const UNUSED: u8 = 4;

impl From<ComponentOutcome> for OutcomeRecord {
    fn from(outcome: ComponentOutcome) -> Self {
        let number = match outcome.outcome {
            Outcome::InUse => IN_USE,
            Outcome::LeftOut(_) => LEFT_OUT,
            Outcome::Broken(_) => BROKEN,
            Outcome::NotMem(_) => NOT_MEM,
            Outcome::Unused => UNUSED,
        };
        let mut record = Self::new_zeroed();
        record.outcome = number;
        record.kind = outcome.kind.map_or(u8::MAX, |kind| encode(&KIND, kind));
        match outcome.outcome.error() {
            None => record.place = outcome.at.numbers().map(Into::into),
            Some(error) => {
                record.code = error.code().into();
                record.detail = error.detail.into();
                record.place = error.at.numbers().map(Into::into);
                record.expected = error.expected.into();
                record.found = error.found.into();
            }
        }
        record
    }
}

impl OutcomeRecord {
    /// Whether it is sound.
    pub(super) fn check(&self) -> Result<(), Meaningless> {
        let has_code = self.code.get() != 0;
        let is_outcome = match self.outcome {
            IN_USE | UNUSED => !has_code,
            LEFT_OUT | BROKEN | NOT_MEM => has_code,
            _ => false,
        };
        let is_kind = self.kind == u8::MAX || decode(&KIND, self.kind).is_some();
        known(is_outcome, offset_of!(Self, outcome), self.outcome.into())?;
        known(is_kind, offset_of!(Self, kind), self.kind.into())
    }

    /// The outcome of a component, or of what has the place of its error.
    pub(super) fn outcome(&self, of: Option<&ComponentRecord>) -> ComponentOutcome {
        let place = Place::of_numbers(self.place.map(U32::get));
        let error = Code::new(self.code.get()).map(|code| Error {
            code,
            detail: self.detail.get(),
            at: place,
            expected: self.expected.get(),
            found: self.found.get(),
        });
        let outcome = match (self.outcome, error) {
            (IN_USE, _) => Outcome::InUse,
            (LEFT_OUT, Some(error)) => Outcome::LeftOut(error),
            (BROKEN, Some(error)) => Outcome::Broken(error),
            (NOT_MEM, Some(error)) => Outcome::NotMem(error),
            _ => Outcome::Unused,
        };
        let at = of.map_or(place, |component| component.place());
        ComponentOutcome { at, kind: decode(&KIND, self.kind), outcome }
    }
}
