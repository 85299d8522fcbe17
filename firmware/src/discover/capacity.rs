//! How much memory a device has, and that it is ready: range registers, and the mailbox if there is
//! one.
//!
//! **Invariant**: nothing is taken as a size before the device says that it is one, and every wait
//! ends by the time that the device itself advertises.

use cxl_regs::access::Register;
use cxl_regs::dvsec::device::{
    Capability, DeviceDvsec, MediaType, RANGE_STRIDE, Range, RangeError, RangeField,
    RangeRegisters, RangeSizeLow, active_timeout_seconds,
};
use cxl_regs::dvsec::{Dvsec, DvsecId};
use cxl_regs::mailbox::{
    Command, CommandHigh, CommandLow, Control, DeviceArrayError, DeviceCapabilities,
    DeviceCapability, DeviceCapabilityId, IdentifyMemoryDevice, MemoryDeviceStatus, Opcode,
    PartitionInfo, ReturnCode, ShortPayload, StatusHigh, capacity_bytes,
};

use super::error::Waited;
use super::function::RegisterBlock;
use crate::built::Feature;
use crate::config::Config;
use crate::error::{Code, Error, Failed};
use crate::mmio::{Block, Clock, Mmio};
use crate::topology::CapacitySource;
use crate::wait::poll_each_millisecond;

/// Memory_Info_Valid comes within this time after a reset (CXL r3.1 section 8.1.3.8.2).
const INFO_VALID_MS: u32 = 1000;
/// The mailbox answers within this time (CXL r3.1 section 8.2.8.4).
const COMMAND_MS: u32 = 2000;

/// A device's partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) volatile: u64,
    pub(crate) persistent: u64,
    pub(crate) source: CapacitySource,
    /// What the device has beside.
    pub(crate) remark: Option<Error>,
}

impl Capacity {
    /// None was found yet.
    pub(crate) const NONE: Self =
        Self { volatile: 0, persistent: 0, source: CapacitySource::RangeRegisters, remark: None };
}

/// What the Device DVSEC says of the device, which need not have CXL.mem.
#[inline(never)]
pub(crate) fn mem_capability(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
) -> Result<Capability, Failed> {
    let need = DeviceDvsec::EXTENT.end;
    if !dvsec.has(DeviceDvsec::EXTENT) {
        let (offset, length) = (dvsec.offset, dvsec.length);
        let fault = config.refuse(Code::DISCOVER_SHORT_DVSEC).detail(DvsecId::Device);
        return fault.expected(need).found((length, offset)).into();
    }
    let capability: Capability = config.read(hw, dvsec.offset);
    let found = capability.hdm_count();
    if capability.mem_capable() && !matches!(found, 1 | 2) {
        return config.refuse(Code::DISCOVER_HDM_COUNT).found(found).into();
    }
    Ok(capability)
}

/// Waits until the memory is ready and asks how much there is; `found` is none before.
///
/// A mailbox is asked first: it knows partitions. Where it refuses the command (QEMU's does not
/// take a command register that is written by dwords), the range registers are believed, and that is
/// remarked.
#[inline(never)]
pub(crate) fn capacity(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
    capability: Capability,
    registers: Option<RegisterBlock>,
    found: &mut Capacity,
) -> Result<(), Failed> {
    let mut wait_ms = INFO_VALID_MS;
    for index in 0..capability.hdm_count() {
        wait_ms = wait_ms.max(await_range(hw, clock, config, dvsec, index)?);
    }
    if cfg!(feature = "mailbox")
        && let Some(registers) = registers
        && from_mailbox(hw, clock, registers, wait_ms, config, found)?
    {
        if (found.volatile, found.persistent) == (0, 0) {
            let mut ranges = Capacity::NONE;
            from_ranges(hw, config, dvsec, capability, &mut ranges)?;
            let ranges = ranges.volatile.saturating_add(ranges.persistent);
            if ranges != 0 {
                return config.refuse(Code::DISCOVER_NO_CAPACITY).expected(ranges).into();
            }
        }
        return Ok(());
    }
    from_ranges(hw, config, dvsec, capability, found)?;
    let assumed = found.source == CapacitySource::AssumedVolatile;
    if cfg!(not(feature = "mailbox")) && assumed && registers.is_some() {
        return Err(config.fault.keep(Feature::Mailbox.not_built(config.place())));
    }
    Ok(())
}

/// Where the registers of a range, counted from 0, are found as if they were range 1's.
fn range_base(dvsec: &Dvsec, index: u8) -> u16 {
    dvsec.offset.wrapping_add(RANGE_STRIDE * u16::from(index))
}

/// Whether a range's memory can be used, if slower or smaller than it should be.
fn ready(low: u32) -> bool {
    let low = RangeSizeLow::from_raw(low);
    low.active() || low.active_degraded()
}

/// Waits for one range; gives the milliseconds that it may take to become active.
#[inline(never)]
fn await_range(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
    index: u8,
) -> Result<u32, Failed> {
    let range = index + 1;
    let offset = range_base(dvsec, index).wrapping_add(RangeSizeLow::SPEC.offset);
    let valid = |dword| RangeSizeLow::from_raw(dword).info_valid();
    let low = config
        .poll(hw, clock, offset, INFO_VALID_MS, valid)
        .map_err(|low| Waited::InfoValid(range).timeout(config, low, INFO_VALID_MS))?;
    let code = RangeSizeLow::from_raw(low).active_timeout();
    let Some(seconds) = active_timeout_seconds(code) else {
        let fault = config.refuse(Code::DISCOVER_RANGE).halves(0u8, range);
        return fault.rule(RangeError::Reserved { field: RangeField::ActiveTimeout, code }).into();
    };
    let milliseconds = u32::from(seconds) * 1000;
    if !ready(low) {
        config
            .poll(hw, clock, offset, milliseconds, ready)
            .map_err(|low| Waited::Active(range).timeout(config, low, milliseconds))?;
    }
    Ok(milliseconds)
}

#[inline(never)]
fn from_ranges(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
    capability: Capability,
    sizes: &mut Capacity,
) -> Result<(), Failed> {
    for index in 0..2 {
        let base = range_base(dvsec, index);
        let size_low: RangeSizeLow = config.read(hw, base);
        // QEMU counts one range and fills in two where a device has both kinds of memory.
        let uncounted = index >= capability.hdm_count();
        let usable = size_low.info_valid() && ready(size_low.raw());
        let size_high = config.read(hw, base);
        let registers = RangeRegisters { size_high, size_low, ..RangeRegisters::default() };
        let decoded = Range::decode(registers);
        if uncounted && !usable {
            // What is not counted need not make sense, but a size is a size.
            if let Some(size) = decoded.ok().map(|range| range.size).filter(|size| *size != 0) {
                sizes.remark = Some(
                    Code::DISCOVER_RANGE_NOT_COUNTED
                        .at(config.place())
                        .detail(index + 1)
                        .found(size),
                );
            }
            continue;
        }
        let range = match decoded {
            Ok(range) => range,
            Err(error) => {
                let fault = config.refuse(Code::DISCOVER_RANGE).halves(0u8, index + 1);
                return fault.rule(error).into();
            }
        };
        let persistent = range.media == MediaType::NonVolatile;
        if range.media == MediaType::Cdat {
            sizes.source = CapacitySource::AssumedVolatile;
        }
        if range.size != 0 && !persistent && sizes.persistent != 0 {
            return config.refuse(Code::DISCOVER_PERSISTENT_FIRST).into();
        }
        let Capacity { volatile, persistent: kept, .. } = *sizes;
        let sum = if persistent { &mut sizes.persistent } else { &mut sizes.volatile };
        let total = volatile.checked_add(kept).and_then(|sum| sum.checked_add(range.size));
        if total.is_none() {
            let fault = config.refuse(Code::DISCOVER_CAPACITY_TOO_LARGE);
            return fault.expected(volatile).found(range.size).into();
        }
        *sum += range.size;
    }
    Ok(())
}

/// Asks a device's mailbox; whether there is one and it knew. One that refuses is remarked.
#[inline(never)]
fn from_mailbox(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    registers: RegisterBlock,
    wait_ms: u32,
    config: &mut Config<'_>,
    capacity: &mut Capacity,
) -> Result<bool, Failed> {
    let Some(Structures { mailbox, status }) = structures(hw, registers, config)? else {
        return Ok(false);
    };
    let mut mailbox = Mailbox { hw, clock, block: mailbox, config };
    if let Some(status) = status {
        mailbox.await_device(status, wait_ms)?;
    }
    let Some(length) = mailbox.run(Opcode::IdentifyMemoryDevice, capacity)? else {
        return Ok(false);
    };
    let identity = IdentifyMemoryDevice::read(mailbox.reader(), 0, length)
        .map_err(|short| mailbox.too_short(short))?;
    let (volatile, persistent) = if identity.partition_alignment.get() == 0 {
        (identity.volatile_only, identity.persistent_only)
    } else {
        let Some(length) = mailbox.run(Opcode::GetPartitionInfo, capacity)? else {
            return Ok(false);
        };
        let info = PartitionInfo::read(mailbox.reader(), 0, length)
            .map_err(|short| mailbox.too_short(short))?;
        (info.active_volatile, info.active_persistent)
    };
    let both = capacity_bytes(volatile).zip(capacity_bytes(persistent));
    let sum = both.and_then(|(volatile, persistent)| volatile.checked_add(persistent));
    let (Some((volatile, persistent)), Some(active)) = (both, sum) else {
        let fault = mailbox.config.refuse(Code::DISCOVER_CAPACITY_TOO_LARGE);
        return fault.expected(volatile.get()).found(persistent.get()).into();
    };
    let total = capacity_bytes(identity.total).unwrap_or(u64::MAX);
    let unused =
        Code::DISCOVER_NOT_PARTITIONED.at(mailbox.config.place()).expected(total).found(active);
    let remark = (active < total).then_some(unused);
    *capacity = Capacity { volatile, persistent, source: CapacitySource::Mailbox, remark };
    Ok(true)
}

/// Those of a device's register structures that are used here.
struct Structures {
    mailbox: Block,
    status: Option<Block>,
}

/// The structures that a device's capability array names; `None` without a mailbox.
#[inline(never)]
fn structures(
    hw: &mut impl Mmio,
    registers: RegisterBlock,
    config: &mut Config<'_>,
) -> Result<Option<Structures>, Failed> {
    let (mut mailbox, mut status) = (None, None);
    let place = |offset: u32| Block(registers.address.wrapping_add(offset.into()));
    let mut refuse = |error| config.refuse(Code::DISCOVER_DEVICE_REGISTERS).rule(error).into();
    let reader = |offset: u16| hw.read(place(offset.into()).0);
    let entries = match DeviceCapabilities::new(reader) {
        Ok(entries) => entries,
        Err(error) => return refuse(error),
    };
    for (entry, found) in (0..).zip(entries) {
        let DeviceCapability { id, offset, length, .. } = match found {
            Ok(found) => found,
            Err(error) => return refuse(error),
        };
        if u64::from(offset) + u64::from(length) > registers.room {
            return refuse(DeviceArrayError::Place { entry, offset, length });
        }
        let structure = match id {
            DeviceCapabilityId::PrimaryMailbox => &mut mailbox,
            DeviceCapabilityId::MemoryDeviceStatus => &mut status,
            _ => continue,
        };
        structure.get_or_insert(place(offset));
    }
    Ok(mailbox.map(|mailbox| Structures { mailbox, status }))
}

struct Mailbox<'a, 'c, M, C> {
    hw: &'a mut M,
    clock: &'a mut C,
    block: Block,
    config: &'a mut Config<'c>,
}

impl<M: Mmio, C: Clock> Mailbox<'_, '_, M, C> {
    fn reader(&mut self) -> impl FnMut(u16) -> u32 {
        let (hw, address) = (&mut *self.hw, self.block.0);
        move |offset| hw.read(address.wrapping_add(offset.into()))
    }

    #[cold]
    fn too_short(&mut self, ShortPayload { opcode, need, have }: ShortPayload) -> Failed {
        let fault = self.config.refuse(Code::DISCOVER_SHORT_PAYLOAD).detail(opcode);
        fault.expected(need).found(have).into()
    }

    /// Polls the register at an address until `done`.
    #[inline(never)]
    fn settle(
        &mut self,
        address: u64,
        waited: Waited,
        milliseconds: u32,
        done: fn(u32) -> bool,
    ) -> Result<u32, Failed> {
        poll_each_millisecond(self.hw, self.clock, milliseconds, address, done)
            .map_err(|found| waited.timeout(self.config, found, milliseconds))
    }

    /// Waits until the device takes commands and its media works.
    fn await_device(&mut self, status: Block, milliseconds: u32) -> Result<(), Failed> {
        let address = status.address::<MemoryDeviceStatus>();
        let done = |dword| MemoryDeviceStatus::from_bits(dword).ready();
        self.settle(address, Waited::DeviceReady, milliseconds.max(COMMAND_MS), done).map(|_| ())
    }

    /// Waits until no command runs.
    fn await_idle(&mut self, waited: Waited) -> Result<Control, Failed> {
        let idle = |dword| !Control::from_bits(dword).doorbell();
        let address = self.block.address::<Control>();
        self.settle(address, waited, COMMAND_MS, idle).map(Control::from_bits)
    }

    /// Runs a command without input; gives the length of its output, unless the device refused the
    /// command and that is remarked.
    #[inline(never)]
    fn run(&mut self, opcode: Opcode, capacity: &mut Capacity) -> Result<Option<u32>, Failed> {
        let control = self.await_idle(Waited::MailboxFree)?;
        self.hw.write_qword(self.block.address::<CommandLow>(), opcode.code().into());
        self.block.write(self.hw, control.with_doorbell(true));
        self.await_idle(Waited::Command(opcode))?;
        let status: StatusHigh = self.block.read(self.hw);
        let code = status.return_code();
        if ReturnCode::from_code(code) != ReturnCode::Success {
            let remark = Code::DISCOVER_MAILBOX_REFUSES.at(self.config.place()).detail(opcode);
            capacity.remark = Some(remark.found(code));
            return Ok(None);
        }
        let low: CommandLow = self.block.read(self.hw);
        let high: CommandHigh = self.block.read(self.hw);
        Ok(Some(Command::decode(low, high).length))
    }
}
