//! Configuration space of one function: header, BARs, PCI Express capability, CXL DVSECs.
//!
//! **Invariant**: where the function is found (BARs, windows, bus numbers) follows from its
//! registers alone, and CONFIG_LOCK freezes the Device DVSEC and nothing else.

use cxl_regs::access::{Class, Feature, Features, Register, Spec};
use cxl_regs::block::TooShort;
use cxl_regs::config::{
    Bar as BarRegister, BarKind, BridgeControl, BridgeHeader, BusNumbers, CONFIG_SIZE,
    CONVENTIONAL_SIZE, CapabilitiesPointer, CapabilityHeader, CapabilityId, Class as ClassRegister,
    ClassCode, Command, DeviceCapabilities, DeviceControl, EndpointHeader, ExtendedCapabilityId,
    ExtendedHeader, HeaderType, Id, LinkCapabilities, LinkStatus, PcieCapabilities, PcieCapability,
    PortType, PrefetchableBase, PrefetchableLimit, Status,
};
use cxl_regs::dvsec::locator::{self, BlockLocation, EntryHigh, EntryLow};
use cxl_regs::dvsec::{DvsecHeader1, DvsecHeader2, device, port};
use cxl_regs::{Component, Hpa, Span};

use super::registers::{Registers, sticky};
use super::{Effect, Name, Reset};

/// What every function here says it was made by; the ID means nothing to anybody.
const VENDOR: u16 = cxl_regs::dvsec::CXL_VENDOR;
/// Vendor and device of every endpoint here: only serial numbers tell them apart.
pub const ENDPOINT: (u16, u16) = (VENDOR, 1);
/// Where the PCI Express capability is.
const PCIE: u16 = 0x40;

/// The serial number's halves (PCIe r6.0 section 7.9.3.2).
const SERIAL_LOW: Spec =
    Spec { name: "Serial Number (Lower DW)", offset: 4, bytes: 4, fields: &[] };
const SERIAL_HIGH: Spec = Spec { name: "Serial Number (Upper DW)", offset: 8, ..SERIAL_LOW };

/// Bytes of one entry of the register locator.
const fn entry_size() -> u16 {
    2 * (EntryHigh::SPEC.offset - EntryLow::SPEC.offset)
}

/// A base address register (two of them: all are 64 bits wide) and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which, from 0.
    pub index: u8,
    /// Bytes, a power of two.
    pub size: u64,
}

const BAR_KIND: BarKind = BarKind::Memory64 { prefetchable: false };

impl Bar {
    /// Offset of the low register.
    const fn offset(self) -> u16 {
        BarRegister::SPEC.offset + BarRegister::SPEC.bytes as u16 * self.index as u16
    }
}

/// Configuration space of one function.
#[derive(Clone, Debug)]
pub struct Function {
    registers: Registers,
    features: Features,
    bridge: bool,
    bars: Vec<Bar>,
    /// Offset of the Device DVSEC.
    device: Option<u16>,
    /// Offset of the Extensions DVSEC for Ports.
    port: Option<u16>,
    /// Offset of the last extended capability, and of the room behind it.
    extended: (Option<u16>, u16),
}

impl Function {
    /// An endpoint of this class.
    pub fn endpoint(class: u32, features: Features, bars: &[Bar]) -> Self {
        let header = EndpointHeader {
            id: Id::new().with_vendor(ENDPOINT.0).with_device(ENDPOINT.1),
            status: Status::new().with_capability_list(true),
            class: ClassRegister::new().with_code(class),
            capabilities: CapabilitiesPointer::new().with_pointer(PCIE as u8),
            ..EndpointHeader::default()
        };
        let mut function = Self::new(Component::Device, features, bars);
        function.registers.add(EndpointHeader::REGISTERS, 0, |bytes| header.put(bytes, 0));
        function.add_pcie(PortType::Endpoint, 0);
        function
    }

    /// A root port, upstream port or downstream port with this port number.
    pub fn port(kind: PortType, number: u8, features: Features, bars: &[Bar]) -> Self {
        let header = BridgeHeader {
            id: Id::new().with_vendor(VENDOR).with_device(2),
            status: Status::new().with_capability_list(true),
            class: ClassRegister::new().with_code(ClassCode::PciBridge.code()),
            header_type: HeaderType::new().with_layout(1),
            pref_base: PrefetchableBase::new().with_width(1),
            pref_limit: PrefetchableLimit::new().with_width(1),
            capabilities: CapabilitiesPointer::new().with_pointer(PCIE as u8),
            ..BridgeHeader::default()
        };
        let mut function = Self::new(Component::UpstreamPort, features, bars);
        function.bridge = true;
        function.registers.add(BridgeHeader::REGISTERS, 0, |bytes| header.put(bytes, 0));
        function.add_pcie(kind, number);
        function
    }

    fn new(component: Component, features: Features, bars: &[Bar]) -> Self {
        Self {
            registers: Registers::new(component, features, CONFIG_SIZE),
            features,
            bridge: false,
            bars: bars.to_vec(),
            device: None,
            port: None,
            extended: (None, CONVENTIONAL_SIZE),
        }
    }

    fn add_pcie(&mut self, kind: PortType, number: u8) {
        let slot = matches!(kind, PortType::RootPort | PortType::DownstreamPort);
        let capability = PcieCapability {
            header: CapabilityHeader::new().with_id(CapabilityId::PciExpress.code()),
            capabilities: PcieCapabilities::new()
                .with_version(2)
                .with_port_type(kind.code())
                .with_slot(slot),
            device_caps: DeviceCapabilities::new()
                .with_role_based_errors(true)
                .with_function_level_reset(kind == PortType::Endpoint),
            // 32 GT/s, 16 lanes.
            link_caps: LinkCapabilities::new()
                .with_max_speed(5)
                .with_max_width(16)
                .with_surprise_down(slot)
                .with_link_active_reporting(slot)
                .with_port_number(number),
            link_status: LinkStatus::new().with_speed(5).with_width(16),
            ..PcieCapability::default()
        };
        let fill = |bytes: &mut [u8]| capability.put(bytes, PCIE);
        self.registers.add(PcieCapability::REGISTERS, PCIE, fill);
        for bar in &self.bars {
            self.registers.preset(bar.offset(), BAR_KIND.encode());
        }
    }

    /// Adds an extended capability of `length` bytes behind the last one. `fill` is given the
    /// bytes, its offset, and the pointer to the next: 0.
    pub fn add(
        &mut self,
        specs: &[Spec],
        length: u16,
        fill: impl FnOnce(&mut [u8], u16, u16) -> Result<(), TooShort>,
    ) -> u16 {
        let (last, at) = self.extended;
        if let Some(last) = last {
            let header: ExtendedHeader = self.registers.get(last);
            self.registers.preset(last, header.with_next(at).raw());
        }
        self.registers.add(specs, at, |bytes| fill(bytes, at, 0));
        self.extended = (Some(at), at + length.next_multiple_of(0x10));
        at
    }

    /// Adds the device serial number.
    pub fn add_serial_number(&mut self, serial: u64) {
        self.add(&[ExtendedHeader::SPEC, SERIAL_LOW, SERIAL_HIGH], 0x0C, |bytes, at, next| {
            let header = ExtendedHeader::new()
                .with_id(ExtendedCapabilityId::SerialNumber.code())
                .with_version(1)
                .with_next(next);
            cxl_regs::block::put(bytes, at, header)?;
            let (start, need) = (usize::from(at) + 4, usize::from(at) + 12);
            let have = bytes.len();
            let place = bytes.get_mut(start..need).ok_or(TooShort { need, have })?;
            place.copy_from_slice(&serial.to_le_bytes());
            Ok(())
        });
    }

    /// Adds the register locator.
    pub fn add_locator(&mut self, locations: &[BlockLocation]) {
        let headers = [ExtendedHeader::SPEC, DvsecHeader1::SPEC, DvsecHeader2::SPEC];
        let entry = [EntryLow::SPEC, EntryHigh::SPEC];
        let length = |entries: usize| EntryLow::SPEC.offset + entry_size() * entries as u16;
        let entries = (0..locations.len())
            .flat_map(|index| entry.map(|spec| spec.moved(length(index) - EntryLow::SPEC.offset)));
        let specs: Vec<Spec> = headers.into_iter().chain(entries).collect();
        self.add(&specs, length(locations.len()), |bytes, at, next| {
            // A handful of entries, in BARs that there are.
            let _ = locator::put(bytes, at, next, locations);
            Ok(())
        });
    }

    /// Names the DVSEC at an offset as the Device DVSEC.
    pub fn set_device_dvsec(&mut self, offset: u16) {
        self.device = Some(offset);
    }

    /// Names the DVSEC at an offset as the Extensions DVSEC for Ports.
    pub fn set_port_dvsec(&mut self, offset: u16) {
        self.port = Some(offset);
    }

    /// Offset of the Device DVSEC, if there is one.
    pub fn device_dvsec(&self) -> Option<u16> {
        self.device
    }

    /// The end of the last extended capability.
    pub fn end_of_extended(&self) -> u16 {
        self.extended.1
    }

    /// The registers themselves, for faults.
    pub fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    /// The whole space, as stored.
    pub fn bytes(&self) -> &[u8] {
        self.registers.bytes()
    }

    /// A number that is another one after every change of the space.
    pub fn version(&self) -> u64 {
        self.registers.version()
    }

    /// One register of the structure at `base`.
    pub fn get<R: Register>(&self, base: u16) -> R {
        self.registers.get(base)
    }

    /// What the dword at an offset is called: the first register in it.
    pub fn name(&self, offset: u16) -> Option<Name> {
        let mut bytes = (offset & !3)..(offset & !3) + 4;
        bytes.find_map(|at| self.register_at(at))
    }

    /// The register in which the byte at an offset lies.
    pub fn register_at(&self, offset: u16) -> Option<Name> {
        self.registers.spec_at(offset).map(|spec| Name::plain(spec.name))
    }

    /// The registers of the dword at an offset.
    pub fn specs(&self, offset: u16) -> Vec<Spec> {
        self.registers.specs(offset)
    }

    /// What the field of this name holds, in the first register that has one.
    pub fn field(&self, name: &str) -> Option<u32> {
        self.registers.field(name)
    }

    /// Reads the dword at an offset, a multiple of 4.
    pub fn read(&self, offset: u16) -> u32 {
        self.registers.read(offset)
    }

    /// Writes the bytes that `enabled` masks of the dword at an offset, a multiple of 4.
    pub fn write(&mut self, offset: u16, value: u32, enabled: u32) -> Effect {
        let caching: Option<(device::Control2, device::Status2)> =
            self.device.map(|at| (self.registers.get(at), self.registers.get(at)));
        let (old, _) = self.registers.write(offset, value, enabled, self.locked());
        self.size_bars(offset);
        let new = self.registers.read(offset);
        let written = Written { offset, bits: value & enabled };

        if let Some(at) = self.device {
            if let (Some(control2), Some((_, before))) =
                (written.to::<device::Control2>(at), caching)
            {
                self.write_control2(at, control2, before);
                if control2.initiate_reset() && self.features.has(Feature::CxlReset) {
                    return Effect::ResetSelf(Reset::Cxl);
                }
            }
            let dvsec = at..at + device::DeviceDvsec::EXTENT.end;
            if dvsec.contains(&offset) && old != new {
                return Effect::Remap;
            }
        }
        if let Some(control) = written.to::<DeviceControl>(PCIE)
            && control.initiate_flr()
            && !self.bridge
        {
            return Effect::ResetSelf(Reset::Flr);
        }
        if self.bridge && offset == BridgeControl::SPEC.offset & !3 {
            let bit = BridgeControl::new().with_secondary_bus_reset(true).raw() << 16;
            let unmasked = self.port.is_none_or(|at| self.get::<port::Control>(at).unmask_sbr());
            return if !old & new & bit != 0 && unmasked {
                Effect::ResetBelow
            } else {
                Effect::None
            };
        }
        if offset < PCIE && old != new { Effect::Relocate } else { Effect::None }
    }

    /// The part of Control2 that its table cannot say: emptying the cache.
    fn write_control2(&mut self, at: u16, written: device::Control2, before: device::Status2) {
        let now: device::Control2 = self.registers.get(at);
        let emptied = written.initiate_write_back() || before.cache_invalid();
        let has_cache = self.features.has(Feature::CacheWriteBack);
        let invalid = has_cache && now.disable_caching() && emptied;
        let status: device::Status2 = self.registers.get(at);
        self.registers.set(at, status.with_cache_invalid(invalid));
    }

    /// CONFIG_LOCK.
    pub fn locked(&self) -> bool {
        self.device.is_some_and(|at| self.registers.get::<device::Lock>(at).config_lock())
    }

    fn size_bars(&mut self, offset: u16) {
        let registers = if self.bridge { 2 } else { 6 };
        let first = BarRegister::SPEC.offset;
        if !(first..first + 4 * registers).contains(&offset) {
            return;
        }
        let owner = self.bars.iter().find(|bar| (bar.offset()..bar.offset() + 8).contains(&offset));
        let Some(bar) = owner else {
            self.registers.put(offset, 0);
            return;
        };
        let at = bar.offset();
        let (low, high) = (self.registers.read(at), self.registers.read(at + 4));
        let (low, high) = BAR_KIND.written(bar.size, low, high);
        self.registers.put(at, low);
        self.registers.put(at + 4, high);
    }

    /// Changes the link's status, as the link itself does.
    pub fn set_link(&mut self, change: impl FnOnce(LinkStatus) -> LinkStatus) {
        let status = change(self.registers.get(PCIE));
        self.registers.set(PCIE, status);
    }

    /// Whether the function answers and forwards memory accesses.
    fn memory_space(&self) -> bool {
        self.get::<Command>(0).memory_space()
    }

    /// Where a BAR lies, whether or not it is switched on.
    pub fn bar(&self, index: u8) -> Option<Span> {
        let bar = self.bars.iter().find(|bar| bar.index == index)?;
        let (low, high) =
            (self.registers.read(bar.offset()), self.registers.read(bar.offset() + 4));
        Span::new(Hpa(BAR_KIND.address(low, high)), bar.size).ok()
    }

    /// The BAR that claims an address, and the offset in it.
    pub fn bar_at(&self, address: u64) -> Option<(u8, u64)> {
        if !self.memory_space() {
            return None;
        }
        let hit = |bar: &Bar| Some((bar.index, self.bar(bar.index)?.offset_of(Hpa(address))?));
        self.bars.iter().find_map(hit)
    }

    fn header(&self) -> BridgeHeader {
        BridgeHeader::read(|offset| self.registers.read(offset), 0)
    }

    /// Of a port: whether it forwards an access to an address downwards.
    pub fn forwards(&self, address: u64) -> bool {
        let windows = self.header().windows();
        let inside = |window: Option<Span>| window.is_some_and(|w| w.contains(Hpa(address)));
        self.memory_space() && (inside(windows.memory) || inside(windows.prefetchable))
    }

    /// Of a port: the bus right below, and the last one below; `None` if there is none.
    pub fn buses_below(&self) -> Option<(u8, u8)> {
        let buses: BusNumbers = self.get(0);
        let (first, last) = (buses.secondary(), buses.subordinate());
        (self.bridge && first != 0 && first <= last).then_some((first, last))
    }

    /// Puts back to defaults what this reset reaches.
    pub fn reset(&mut self, reset: Reset) {
        let dvsec = self.device.map(|at| at..at + device::DeviceDvsec::EXTENT.end);
        match reset {
            Reset::Cold | Reset::Warm => self.registers.reset(0..CONFIG_SIZE, |_| false),
            Reset::Hot => self.registers.reset(0..CONFIG_SIZE, sticky),
            // CXL's own registers stay: FLR is CXL.io's.
            Reset::Flr => self.registers.reset(0..CONVENTIONAL_SIZE, sticky),
            Reset::Cxl => {
                let Some(dvsec) = dvsec else { return };
                let (at, locked) = (dvsec.start, self.locked());
                self.registers.reset(dvsec, |class| {
                    sticky(class) || class == Class::Rwo || class == Class::Rwl && locked
                });
                let status: device::Status2 = self.registers.get(at);
                self.registers.set(at, status.with_reset_complete(true));
            }
        }
    }
}

/// What software wrote to a dword, bytes that it did not write being 0.
struct Written {
    offset: u16,
    bits: u32,
}

impl Written {
    /// What that means to a register of the structure at `base`; `None` if it lies elsewhere.
    fn to<R: Register>(&self, base: u16) -> Option<R> {
        let at = base.wrapping_add(R::SPEC.offset);
        (at & !3 == self.offset).then(|| R::from_raw(self.bits >> (8 * (at & 3))))
    }
}
