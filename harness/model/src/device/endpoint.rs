//! Endpoints: Type 3 memory expanders and Type 2 accelerators with memory.
//!
//! **Invariant**: CXL.mem depends on Mem_Enable and the decoders (or ranges) alone; PCI Memory
//! Space and the BARs have no part in it.

use cxl_regs::access::{Feature, Features};
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::config::ClassCode;
use cxl_regs::dvsec::device::{
    self, Capability, Capability2, Capability3, Control, Control2, DeviceDvsec, DeviceDvsecTail,
    MediaType, RangeRegisters, Status2,
};
use cxl_regs::dvsec::gpf::GpfDeviceDvsec;
use cxl_regs::dvsec::locator::{BlockId, BlockLocation};
use cxl_regs::hdm;
use cxl_regs::{Coherency, Component, DECODER_UNIT, Dpa};

use super::Reset;
use super::component::ComponentBlock;
use super::config::{Bar, Function};
use super::hdm::HdmBlock;
use super::mailbox::Mailbox;
use super::media::Media;
use super::port::{COMPONENT_BAR, add_flex_bus};

/// What a device is made to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Make {
    /// Has a cache and vendor memory, and no standard mailbox.
    pub accelerator: bool,
    /// Bytes of the volatile partition, a multiple of 256 MiB.
    pub volatile: u64,
    /// Bytes of the persistent partition, a multiple of 256 MiB.
    pub persistent: u64,
    /// The coherency of its memory.
    pub coherency: Coherency,
    /// HDM decoders.
    pub decoders: u8,
    /// Can select on HPA bits 11:8.
    pub selects_11_8: bool,
    /// Can select on HPA bits 14:12.
    pub selects_14_12: bool,
    /// Can do 3, 6 and 12 ways.
    pub ways_3_6_12: bool,
    /// Can do 16 ways.
    pub ways_16: bool,
    /// Serial number.
    pub serial: u64,
}

/// The device registers of a Type 3 device.
pub(crate) const DEVICE_BAR: Bar = Bar { index: 2, size: BLOCK_SIZE as u64 };

/// Supported Coherency Models (CXL r3.1 section 8.2.4.20.1).
fn coherency_models(make: &Make) -> u8 {
    match (make.coherency, make.accelerator) {
        (Coherency::HostOnly, _) => 2,
        (Coherency::Device, _) | (Coherency::BackInvalidate, true) => 1,
        // A Type 3 device with back-invalidate works without it too.
        (Coherency::BackInvalidate, false) => 3,
    }
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its configuration space.
    pub function: Function,
    /// Its component registers.
    pub component: ComponentBlock,
    /// Its mailbox; Type 3 only.
    pub mailbox: Option<Mailbox>,
    /// Its memory.
    pub media: Media,
}

impl Endpoint {
    /// A device fresh out of a cold reset.
    pub fn new(make: &Make) -> Self {
        let media = Media::new(make.volatile, make.persistent);
        let back_invalidate = make.coherency == Coherency::BackInvalidate;
        let mut features = Features::NONE.with(Feature::CxlReset).with(Feature::HotResetState);
        if make.accelerator {
            features = features.with(Feature::CacheWriteBack);
        }
        if back_invalidate {
            features = features.with(Feature::BackInvalidate);
        }
        let capability = hdm::Capability::new()
            .with_decoder_count(hdm::Capability::encode_decoders(make.decoders).unwrap_or(0))
            .with_interleave_11_8(make.selects_11_8)
            .with_interleave_14_12(make.selects_14_12)
            .with_ways_3_6_12(make.ways_3_6_12)
            .with_ways_16(make.ways_16)
            .with_mem_data_nxm(back_invalidate)
            .with_coherency_models(coherency_models(make));
        let hdm = HdmBlock::new(Component::Device, features, capability);
        let mut component =
            ComponentBlock::new(Component::Device).with_ras().with_link().with_hdm(hdm);
        if back_invalidate {
            component = component.with_bi_decoder(false);
        }
        if make.accelerator {
            component = component.with_vendor_memory();
        }
        let mailbox = (!make.accelerator).then(|| Mailbox::new(&media));
        Self { function: function(make, features), component, mailbox, media }
    }

    /// The same device as to its registers, with capacities and no memory behind them.
    pub(crate) fn frozen(&self) -> Self {
        Self {
            function: self.function.clone(),
            component: self.component.clone(),
            mailbox: self.mailbox.clone(),
            media: self.media.without_memory(),
        }
    }

    /// The device address behind a host address: by the decoders, or by the ranges while HDM
    /// Decoder Enable is 0 (CXL r3.1 section 8.1.3.8). `None` if the device claims no such access.
    pub fn translate(&self, hpa: u64) -> Option<Dpa> {
        let at = self.function.device_dvsec()?;
        if !self.function.get::<Control>(at).mem_enable() {
            return None;
        }
        match self.component.hdm() {
            Some(hdm) if hdm.global().decoder_enable() => hdm.translate(hpa).map(Dpa),
            _ => self.translate_by_range(at, hpa),
        }
    }

    fn translate_by_range(&self, at: u16, hpa: u64) -> Option<Dpa> {
        let dvsec = DeviceDvsec::read(|offset| self.function.read(offset), at);
        let mut first = 0u64;
        for range in dvsec.ranges() {
            let offset = hpa.checked_sub(range.base().0);
            if let Some(offset) = offset.filter(|offset| *offset < range.size())
                && range.size_low.active()
            {
                return first.checked_add(offset).map(Dpa);
            }
            first = first.checked_add(range.size())?;
        }
        None
    }

    /// Puts back to defaults what this reset reaches.
    pub fn reset(&mut self, reset: Reset) {
        let control2: Control2 = match self.function.device_dvsec() {
            Some(at) => self.function.get(at),
            None => Control2::default(),
        };
        let forgets = match reset {
            Reset::Cold | Reset::Warm => true,
            Reset::Hot => !control2.preserve_volatile(),
            Reset::Cxl => control2.reset_mem_clear(),
            Reset::Flr => false,
        };
        if forgets {
            self.media.forget_volatile();
        }
        self.function.reset(reset);
        self.component.reset(reset);
        if let Some(mailbox) = self.mailbox.as_mut().filter(|_| reset != Reset::Cxl) {
            mailbox.reset();
        }
    }
}

fn function(make: &Make, features: Features) -> Function {
    // An accelerator is of no class that a memory driver would take for its own.
    let class = if make.accelerator { 0x12_00_00 } else { ClassCode::CxlMemory.code() };
    let bars: &[Bar] =
        if make.accelerator { &[COMPONENT_BAR] } else { &[COMPONENT_BAR, DEVICE_BAR] };
    let mut function = Function::endpoint(class, features, bars);
    function.add_serial_number(make.serial);

    // The kind of memory is CDAT's to tell since CXL 2.0, and the mailbox's. The models have no CDAT
    // and an accelerator has no mailbox: with persistent memory it uses the field's older codes, or
    // nobody could know.
    let (volatile, persistent) = match make.accelerator && make.persistent != 0 {
        true => (MediaType::Volatile, MediaType::NonVolatile),
        false => (MediaType::Cdat, MediaType::Cdat),
    };
    let partitions = [(make.volatile, volatile), (make.persistent, persistent)];
    let mut ranges = partitions.into_iter().filter(|&(size, _)| size != 0).map(range);
    let count = ranges.clone().count().max(1) as u8;
    let ranges = [ranges.next().unwrap_or(range((0, volatile))), ranges.next().unwrap_or_default()];
    let length = device::LENGTH_REVISION_3;
    let specs = [DeviceDvsec::REGISTERS, DeviceDvsecTail::REGISTERS].concat();
    let at = function.add(&specs, length, |bytes, at, next| {
        let dvsec = DeviceDvsec {
            capability: Capability::new()
                .with_cache_capable(make.accelerator)
                .with_io_capable(true)
                .with_mem_capable(true)
                .with_mem_hw_init(true)
                .with_hdm_count(count)
                .with_cache_write_back(make.accelerator)
                .with_cxl_reset(true)
                .with_reset_mem_clear(true)
                .with_viral_capable(true)
                .with_pm_init_reporting(true),
            control: Control::new().with_io_enable(true),
            status2: Status2::new().with_pm_init_complete(true),
            // 64 KiB units: 1 MiB of cache.
            capability2: if make.accelerator {
                Capability2::new().with_cache_size_unit(1).with_cache_size(16)
            } else {
                Capability2::new()
            },
            ..DeviceDvsec::new(3, length, next)
        };
        dvsec.with_ranges(ranges).put(bytes, at)?;
        let capability3 = Capability3::new().with_hot_configurable(true);
        DeviceDvsecTail { capability3 }.put(bytes, at)
    });
    function.set_device_dvsec(at);

    let length = GpfDeviceDvsec::EXTENT.end;
    function.add(GpfDeviceDvsec::REGISTERS, length, |bytes, at, next| {
        GpfDeviceDvsec::new(0, length, next).put(bytes, at)
    });
    let wide_flits = make.coherency == Coherency::BackInvalidate;
    add_flex_bus(&mut function, make.accelerator, wide_flits);
    let locations = [
        BlockLocation { id: BlockId::Component, bar: COMPONENT_BAR.index, offset: 0 },
        BlockLocation { id: BlockId::Device, bar: DEVICE_BAR.index, offset: 0 },
    ];
    function.add_locator(locations.get(..bars.len()).unwrap_or(&[]));
    function
}

/// A range of memory that is ready, not placed.
fn range((size, media): (u64, MediaType)) -> RangeRegisters {
    let low = device::RangeSizeLow::new()
        .with_info_valid(true)
        .with_active(true)
        .with_media_type(media as u8)
        .with_memory_class(device::MemoryClass::Cdat as u8)
        .with_size((size / DECODER_UNIT % 16) as u8);
    RangeRegisters {
        size_high: device::RangeSizeHigh::new().with_size((size >> 32) as u32),
        size_low: low,
        ..RangeRegisters::default()
    }
}
