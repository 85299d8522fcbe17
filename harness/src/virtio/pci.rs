//! The device on PCI: configuration space with the capabilities of virtio 1 and MSI-X, and the registers
//! behind its one BAR (virtio 1.2 section 4.1, PCI 3.0 section 6.8.2).
//!
//! ```text
//! offset  in the BAR
//!  0x0000  common configuration
//!  0x1000  interrupt status
//!  0x2000  the device's own configuration
//!  0x3000  notifications
//!  0x4000  MSI-X table: a vector for changes of the configuration, one for the queue
//!  0x5000  MSI-X pending bits
//! ```
//!
//! **Invariant**: an access of a width or at an offset that no register has reads 0 and changes nothing.

use cxl_regs::access::{Class, Features, Field, Register, Rule, Spec};
use cxl_regs::config::{
    Bar as BarRegister, BarKind, CONFIG_SIZE, CapabilityHeader, Class as ClassRegister, Command,
    Id, InterruptPin, Subsystem,
};
use cxl_regs::{Hpa, Span};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::queue::{Part, QueueError, Rings};
use crate::kvm::Signal;
use cxl_model::device::Effect;
use cxl_model::device::config::{Bar, Function};

/// Who makes such devices, and the first number of those of virtio 1.
const VENDOR: u16 = 0x1AF4;
const FIRST_DEVICE: u16 = 0x1040;
/// A mass storage controller of another kind.
const CLASS: u32 = 0x01_80_00;

/// Bytes of the BAR.
pub const BARS_SIZE: u64 = 0x8000;
const BAR: Bar = Bar { index: 0, size: BARS_SIZE };
const COMMON: u64 = 0x0000;
const STATUS: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;

/// Where the capabilities are; the first one is the PCI Express capability.
const PCIE: u16 = 0x40;
const MSIX: u16 = 0x80;
const CAP_COMMON: u16 = 0x90;
const CAP_STATUS: u16 = 0xA0;
const CAP_DEVICE: u16 = 0xB0;
const CAP_NOTIFY: u16 = 0xC0;
const CAP_ACCESS: u16 = 0xD4;
/// Of the last one: which BAR, where in it, how many bytes, and the bytes.
const ACCESS_BAR: u16 = CAP_ACCESS + 4;
const ACCESS_OFFSET: u16 = CAP_ACCESS + 8;
const ACCESS_LENGTH: u16 = CAP_ACCESS + 12;
const ACCESS_DATA: u16 = CAP_ACCESS + 16;

const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX_ID: u8 = 0x11;
/// In MSI-X's control: enabled, and all of it masked.
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK: u32 = 1 << 30;

/// Vectors.
const VECTORS: usize = 2;
/// What stands for none.
const NO_VECTOR: u16 = 0xFFFF;
/// The bit of a vector's control that masks it.
const MASKED: u32 = 1;

/// The line that the interrupt pin is wired to, of those that no device of the platform has.
pub const INTERRUPT: u32 = 16;

/// Bits of the interrupt status: a queue's, and the configuration's.
const QUEUE: u8 = 1;
const CONFIGURATION: u8 = 2;

/// What a write means beyond the registers here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// There is something in the queue.
    Notified,
    /// The device is as after power-on.
    Reset,
    /// The driver wants these features, which is not granted.
    Features(u64),
    /// It wants a queue that there cannot be.
    Queue(QueueError),
}

#[derive(Clone, Copy, Debug)]
struct Vector {
    address: u64,
    data: u32,
    control: u32,
    pending: bool,
}

/// As after reset: masked.
const UNSET: Vector = Vector { address: 0, data: 0, control: MASKED, pending: false };

/// What the driver says in the common configuration.
#[derive(Debug)]
struct Driver {
    status: u8,
    features: u64,
    /// Which half of either list of features is shown.
    offered_half: u32,
    wanted_half: u32,
    queue: u16,
    configuration_vector: u16,
    queue_vector: u16,
}

const FRESH: Driver = Driver {
    status: 0,
    features: 0,
    offered_half: 0,
    wanted_half: 0,
    queue: 0,
    configuration_vector: NO_VECTOR,
    queue_vector: NO_VECTOR,
};

/// The device on PCI.
#[derive(Debug)]
pub(super) struct Pci {
    /// Its configuration space.
    config: Span,
    function: Function,
    offered: u64,
    device: Vec<u8>,
    driver: Driver,
    vectors: [Vector; VECTORS],
    status: u8,
    /// The pin, as the processor knows it.
    pin: bool,
    signals: Vec<Signal>,
}

/// What an access reaches.
enum Reached {
    Config(u16),
    Register(u64),
}

/// A register of a capability: all of it is as `rule` says.
const fn spec(offset: u16, fields: &'static [Field]) -> Spec {
    Spec { name: "virtio capability", offset, bytes: 4, fields }
}

const fn field(offset: usize, bits: usize, class: Class) -> Field {
    Field::new("virtio", offset, bits, Rule::always(class))
}

const FIXED: &[Field] = &[field(0, 32, Class::Ro)];
const OPEN: &[Field] = &[field(0, 32, Class::Rw)];
const BAR_CHOICE: &[Field] = &[field(0, 8, Class::Rw)];
/// Enable and mask; the rest says what it is.
const MSIX_CONTROL: &[Field] = &[field(0, 30, Class::Ro), field(30, 2, Class::Rw)];

impl Pci {
    /// A device that offers these features, with this configuration of its own, placed as firmware
    /// would.
    pub(super) fn new(config: Span, bars: Span, offered: u64, device: Vec<u8>) -> Self {
        Self {
            config,
            function: function(bars, device.len() as u32),
            offered,
            device,
            driver: FRESH,
            vectors: [UNSET; VECTORS],
            status: 0,
            pin: false,
            signals: Vec::new(),
        }
    }

    /// Whether an address is the device's.
    pub(super) fn claims(&self, address: u64) -> bool {
        self.reached(address).is_some()
    }

    fn reached(&self, address: u64) -> Option<Reached> {
        match self.config.offset_of(Hpa(address)) {
            Some(offset) => u16::try_from(offset).ok().map(Reached::Config),
            None => self.function.bar_at(address).map(|(_, offset)| Reached::Register(offset)),
        }
    }

    /// Whether the driver has started it, and it may reach memory.
    pub(super) fn works(&self) -> bool {
        let status = u32::from(self.driver.status);
        status & VIRTIO_CONFIG_S_DRIVER_OK != 0
            && status & VIRTIO_CONFIG_S_NEEDS_RESET == 0
            && self.function.get::<Command>(0).bus_master()
    }

    /// As its driver resets it: configuration space stays.
    pub(super) fn reset(&mut self) {
        self.driver = FRESH;
        self.status = 0;
        self.vectors.iter_mut().for_each(|vector| vector.pending = false);
        self.set_pin();
    }

    /// It goes no further until it is reset.
    pub(super) fn needs_reset(&mut self) {
        self.driver.status |= VIRTIO_CONFIG_S_NEEDS_RESET as u8;
        if u32::from(self.driver.status) & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.interrupt(CONFIGURATION, self.driver.configuration_vector);
        }
    }

    /// Requests have ended.
    pub(super) fn interrupt_queue(&mut self) {
        self.interrupt(QUEUE, self.driver.queue_vector);
    }

    /// What is to be signalled, in order.
    pub(super) fn signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    fn interrupt(&mut self, bit: u8, vector: u16) {
        if self.function.read(MSIX) & MSIX_ENABLE == 0 {
            self.status |= bit;
            self.set_pin();
        } else if let Some(vector) = self.vectors.get_mut(usize::from(vector)) {
            vector.pending = true;
            self.send();
        }
    }

    /// Sends what is pending and no longer masked.
    fn send(&mut self) {
        let control = self.function.read(MSIX);
        if control & MSIX_ENABLE == 0 || control & MSIX_MASK != 0 {
            return;
        }
        for vector in &mut self.vectors {
            if vector.pending && vector.control & MASKED == 0 {
                vector.pending = false;
                let (address, data) = (vector.address, vector.data);
                self.signals.push(Signal::Message { address, data });
            }
        }
    }

    /// The pin follows the interrupt status, unless something else is used or wanted.
    fn set_pin(&mut self) {
        let messages = self.function.read(MSIX) & MSIX_ENABLE != 0;
        let disabled = self.function.get::<Command>(0).interrupt_disable();
        let pin = self.status != 0 && !messages && !disabled;
        if pin != self.pin {
            self.pin = pin;
            self.signals.push(Signal::Line { number: INTERRUPT, high: pin });
        }
    }

    /// Answers a read.
    pub(super) fn read(&mut self, address: u64, data: &mut [u8], rings: &Rings) {
        match self.reached(address) {
            Some(Reached::Config(offset)) => {
                let at = offset & !3;
                let dword = match at {
                    ACCESS_DATA => self.accessed(rings),
                    at => self.function.read(at),
                };
                data.fill(0xFF);
                let lane = usize::from(offset & 3);
                if let Some(bytes) = dword.to_le_bytes().get(lane..lane + data.len()) {
                    data.copy_from_slice(bytes);
                }
            }
            Some(Reached::Register(offset)) => self.read_bar(offset, data, rings),
            None => data.fill(0xFF),
        }
    }

    /// What the capability for access by configuration space reads.
    fn accessed(&mut self, rings: &Rings) -> u32 {
        let mut bytes = [0; 4];
        if let Some((offset, length)) = self.window()
            && let Some(part) = bytes.get_mut(..length)
        {
            self.read_bar(offset, part, rings);
        }
        u32::from_le_bytes(bytes)
    }

    /// Where that capability leads.
    fn window(&self) -> Option<(u64, usize)> {
        let bar = self.function.read(ACCESS_BAR) & 0xFF;
        let (offset, length) =
            (self.function.read(ACCESS_OFFSET), self.function.read(ACCESS_LENGTH));
        let fits = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        (bar == 0 && fits && u64::from(offset) < BARS_SIZE)
            .then_some((offset.into(), length as usize))
    }

    fn read_bar(&mut self, offset: u64, data: &mut [u8], rings: &Rings) {
        data.fill(0);
        let value: u64 = match offset / PAGE * PAGE {
            COMMON => match self.read_common(offset, data.len(), rings) {
                Some(value) => value,
                None => return,
            },
            STATUS if offset == STATUS => {
                let status = std::mem::take(&mut self.status);
                self.set_pin();
                status.into()
            }
            DEVICE => {
                let at = (offset - DEVICE) as usize;
                for (to, from) in data.iter_mut().zip(self.device.iter().skip(at)) {
                    *to = *from;
                }
                return;
            }
            TABLE => match self.read_table(offset - TABLE, data.len()) {
                Some(value) => value,
                None => return,
            },
            PENDING if offset == PENDING => {
                let pending = self.vectors.iter().rev();
                pending.fold(0, |bits, vector| bits << 1 | u64::from(vector.pending))
            }
            _ => return,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    /// Registers of the common configuration, each by offset and width (section 4.1.4.3).
    fn read_common(&self, offset: u64, length: usize, rings: &Rings) -> Option<u64> {
        let half = |features: u64, half: u32| match half {
            0 => features & 0xFFFF_FFFF,
            1 => features >> 32,
            _ => 0,
        };
        let driver = &self.driver;
        // There is one queue.
        let here = driver.queue == 0;
        let place = |part| if here { rings.place(part) } else { 0 };
        let value = match (offset, length) {
            (0x00, 4) => driver.offered_half.into(),
            (0x04, 4) => half(self.offered, driver.offered_half),
            (0x08, 4) => driver.wanted_half.into(),
            (0x0C, 4) => half(driver.features, driver.wanted_half),
            (0x10, 2) => driver.configuration_vector.into(),
            (0x12, 2) => 1,
            (0x14, 1) => driver.status.into(),
            (0x15, 1) => 0,
            (0x16, 2) => driver.queue.into(),
            (0x18, 2) if here => rings.size().into(),
            (0x1A, 2) if here => driver.queue_vector.into(),
            (0x1C, 2) if here => u64::from(rings.enabled()),
            (0x20 | 0x24, 4) => place(Part::Descriptors) >> (8 * (offset - 0x20)) & 0xFFFF_FFFF,
            (0x28 | 0x2C, 4) => place(Part::Available) >> (8 * (offset - 0x28)) & 0xFFFF_FFFF,
            (0x30 | 0x34, 4) => place(Part::Used) >> (8 * (offset - 0x30)) & 0xFFFF_FFFF,
            (0x20, 8) => place(Part::Descriptors),
            (0x28, 8) => place(Part::Available),
            (0x30, 8) => place(Part::Used),
            _ => return None,
        };
        Some(value)
    }

    fn read_table(&self, offset: u64, length: usize) -> Option<u64> {
        let vector = self.vectors.get((offset / 16) as usize)?;
        let Vector { address, data, control, .. } = *vector;
        Some(match (offset % 16, length) {
            (0, 4) => address & 0xFFFF_FFFF,
            (0, 8) => address,
            (4, 4) => address >> 32,
            (8, 4) => data.into(),
            (8, 8) => u64::from(control) << 32 | u64::from(data),
            (12, 4) => control.into(),
            _ => return None,
        })
    }

    /// Takes a write.
    pub(super) fn write(&mut self, address: u64, data: &[u8], rings: &mut Rings) -> Option<Event> {
        match self.reached(address)? {
            Reached::Config(offset) => self.write_config(offset, data, rings),
            Reached::Register(offset) => self.write_bar(offset, data, rings),
        }
    }

    fn write_config(&mut self, offset: u16, data: &[u8], rings: &mut Rings) -> Option<Event> {
        let (at, lane) = (offset & !3, usize::from(offset & 3));
        let (mut value, mut enabled) = ([0; 4], [0; 4]);
        let bytes = value.get_mut(lane..lane + data.len())?;
        bytes.copy_from_slice(data);
        enabled.iter_mut().skip(lane).take(data.len()).for_each(|byte| *byte = 0xFF);
        if at == ACCESS_DATA {
            let (to, length) = self.window()?;
            return self.write_bar(to, value.get(..length)?, rings);
        }
        let (value, enabled) = (u32::from_le_bytes(value), u32::from_le_bytes(enabled));
        let effect = self.function.write(at, value, enabled);
        if let Effect::ResetSelf(reset) = effect {
            self.function.reset(reset);
            self.vectors = [UNSET; VECTORS];
            return Some(Event::Reset);
        }
        self.send();
        self.set_pin();
        None
    }

    fn write_bar(&mut self, offset: u64, data: &[u8], rings: &mut Rings) -> Option<Event> {
        let mut bytes = [0; 8];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        match offset / PAGE * PAGE {
            COMMON => self.write_common(offset, data.len(), value, rings),
            NOTIFY if offset == NOTIFY => Some(Event::Notified),
            TABLE => {
                self.write_table(offset - TABLE, data.len(), value);
                None
            }
            _ => None,
        }
    }

    fn write_common(
        &mut self,
        offset: u64,
        length: usize,
        value: u64,
        rings: &mut Rings,
    ) -> Option<Event> {
        let vector = |value: u64| match value as u16 {
            vector if usize::from(vector) < VECTORS => vector,
            _ => NO_VECTOR,
        };
        let driver = &mut self.driver;
        let here = driver.queue == 0;
        let part = match offset {
            0x20..0x28 => Part::Descriptors,
            0x28..0x30 => Part::Available,
            _ => Part::Used,
        };
        match (offset, length) {
            (0x00, 4) => driver.offered_half = value as u32,
            (0x08, 4) => driver.wanted_half = value as u32,
            (0x0C, 4) if u32::from(driver.status) & VIRTIO_CONFIG_S_FEATURES_OK == 0 => {
                let kept = driver.features;
                driver.features = match driver.wanted_half {
                    0 => kept >> 32 << 32 | value,
                    1 => kept & 0xFFFF_FFFF | value << 32,
                    _ => kept,
                };
            }
            (0x10, 2) => driver.configuration_vector = vector(value),
            (0x14, 1) => return self.write_status(value as u8),
            (0x16, 2) => driver.queue = value as u16,
            (0x18, 2) if here => return rings.set_size(value as u16).err().map(Event::Queue),
            (0x1A, 2) if here => driver.queue_vector = vector(value),
            (0x1C, 2) if here && value == 1 => return rings.enable().err().map(Event::Queue),
            (0x20 | 0x28 | 0x30, 4) if here => {
                rings.set_place(part, rings.place(part) >> 32 << 32 | value);
            }
            (0x24 | 0x2C | 0x34, 4) if here => {
                rings.set_place(part, rings.place(part) & 0xFFFF_FFFF | value << 32);
            }
            (0x20 | 0x28 | 0x30, 8) if here => rings.set_place(part, value),
            _ => {}
        }
        None
    }

    /// 0 resets; features are granted as a whole or not at all.
    fn write_status(&mut self, value: u8) -> Option<Event> {
        if value == 0 {
            return Some(Event::Reset);
        }
        let features_ok = VIRTIO_CONFIG_S_FEATURES_OK as u8;
        let asks = value & features_ok != 0 && self.driver.status & features_ok == 0;
        let wanted = self.driver.features;
        let good = wanted & !self.offered == 0 && wanted >> VIRTIO_F_VERSION_1 & 1 == 1;
        let broken = self.driver.status & VIRTIO_CONFIG_S_NEEDS_RESET as u8;
        self.driver.status = value | broken;
        if asks && !good {
            self.driver.status &= !features_ok;
            return Some(Event::Features(wanted));
        }
        None
    }

    fn write_table(&mut self, offset: u64, length: usize, value: u64) {
        let Some(vector) = self.vectors.get_mut((offset / 16) as usize) else { return };
        match (offset % 16, length) {
            (0, 4) => vector.address = vector.address >> 32 << 32 | value,
            (0, 8) => vector.address = value,
            (4, 4) => vector.address = vector.address & 0xFFFF_FFFF | value << 32,
            (8, 4) => vector.data = value as u32,
            (8, 8) => (vector.data, vector.control) = (value as u32, (value >> 32) as u32),
            (12, 4) => vector.control = value as u32,
            _ => return,
        }
        self.send();
    }
}

/// Configuration space with all capabilities, memory and Bus Master on, and the BAR at the start of
/// `bars`.
fn function(bars: Span, device_size: u32) -> Function {
    let mut function = Function::endpoint(CLASS, Features::NONE, &[BAR]);
    let device = FIRST_DEVICE + VIRTIO_ID_BLOCK as u16;
    let id = Id::new().with_vendor(VENDOR).with_device(device);
    // Devices of virtio 1 have a revision of 1 or more.
    let class = ClassRegister::new().with_code(CLASS).with_revision(1);
    let subsystem = u32::from(FIRST_DEVICE) << 16 | u32::from(VENDOR);
    let pin = InterruptPin::new().with_pin(1);
    let pin = pin.raw() << (8 * (InterruptPin::SPEC.offset & 3));
    let registers = function.registers_mut();
    registers.preset(Id::SPEC.offset, id.raw());
    registers.preset(ClassRegister::SPEC.offset, class.raw());
    registers.preset(Subsystem::SPEC.offset, subsystem);
    registers.preset(InterruptPin::SPEC.offset & !3, pin);
    let first: u32 = registers.read(PCIE);
    let next = CapabilityHeader::from_raw(first & 0xFFFF).with_next(MSIX as u8);
    registers.preset(PCIE, first >> 16 << 16 | next.raw());

    let mut add = |at: u16, dwords: &[(u32, &'static [Field])]| {
        let places = (at..).step_by(4).zip(dwords);
        let specs: Vec<_> = places.clone().map(|(at, (_, fields))| spec(at, fields)).collect();
        registers.add(&specs, 0, |_| Ok(()));
        for (at, (value, _)) in places {
            registers.preset(at, *value);
        }
    };
    let header = |id: u8, next: u16| u32::from(id) | u32::from(next) << 8;
    let control = (VECTORS as u32 - 1) << 16;
    add(
        MSIX,
        &[
            (header(MSIX_ID, CAP_COMMON) | control, MSIX_CONTROL),
            (TABLE as u32, FIXED),
            (PENDING as u32, FIXED),
        ],
    );
    // Its length, and which structure it tells of; the BAR is 0.
    let virtio = |next: u16, length: u32, kind: u32| {
        (header(VENDOR_SPECIFIC, next) | length << 16 | kind << 24, FIXED)
    };
    let part = |at: u64, size: u32| [(0, FIXED), (at as u32, FIXED), (size, FIXED)];
    for (at, next, kind, place, size) in [
        (CAP_COMMON, CAP_STATUS, 1, COMMON, 0x38),
        (CAP_STATUS, CAP_DEVICE, 3, STATUS, 1),
        (CAP_DEVICE, CAP_NOTIFY, 4, DEVICE, device_size),
    ] {
        add(at, &[&[virtio(next, 16, kind)][..], &part(place, size)].concat());
    }
    // All queues are notified at one place.
    add(CAP_NOTIFY, &[&[virtio(CAP_ACCESS, 20, 2)][..], &part(NOTIFY, 4), &[(0, FIXED)]].concat());
    add(CAP_ACCESS, &[virtio(0, 20, 5), (0, BAR_CHOICE), (0, OPEN), (0, OPEN), (0, OPEN)]);

    let at = BarRegister::SPEC.offset;
    let (low, high) = BarKind::Memory64 { prefetchable: false }.at(bars.base().0);
    let command = Command::new().with_memory_space(true).with_bus_master(true);
    for (offset, value) in [(at, low), (at + 4, high), (Command::SPEC.offset, command.raw())] {
        let _ = function.write(offset, value, u32::MAX);
    }
    function
}

const _: () = assert!(CONFIG_SIZE as u64 == PAGE);
