//! How much memory a device has, and that it is ready: range registers, and the mailbox if there is
//! one.
//!
//! **Invariant**: nothing is taken as a size before the device says that it is one, and every wait
//! ends by the time that the device itself advertises.

use cxl_regs::access::Register;
use cxl_regs::dvsec::device::{
    Capability, DeviceDvsec, MediaType, RANGE_STRIDE, Range, RangeError, RangeRegisters,
    RangeSizeLow, active_timeout_seconds,
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
use crate::error::{Code, Error, Failed, Place};
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

/// What the Device DVSEC says of the device, which need not have CXL.mem.
#[inline(never)]
pub(crate) fn mem_capability(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
    at: Place,
) -> Result<Capability, Failed> {
    let need = DeviceDvsec::EXTENT.end;
    if !dvsec.has(DeviceDvsec::EXTENT) {
        let (offset, length) = (dvsec.offset, dvsec.length);
        let fault = config.fault.at(Code::DISCOVER_SHORT_DVSEC, at).detail(DvsecId::Device);
        return fault.expected(need).found((length, offset)).into();
    }
    let capability: Capability = config.read(hw, dvsec.offset);
    let found = capability.hdm_count();
    if capability.mem_capable() && !matches!(found, 1 | 2) {
        return config.fault.at(Code::DISCOVER_HDM_COUNT, at).found(found).into();
    }
    Ok(capability)
}

/// Waits until the memory is ready and asks how much there is.
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
    at: Place,
) -> Result<Capacity, Failed> {
    let mut wait_ms = INFO_VALID_MS;
    for index in 0..capability.hdm_count() {
        wait_ms = wait_ms.max(await_range(hw, clock, config, dvsec, index, at)?);
    }
    let mut refused = None;
    if cfg!(feature = "mailbox")
        && let Some(registers) = registers
    {
        let asked = from_mailbox(hw, clock, registers, wait_ms, at);
        match asked.map_err(|error| config.fault.keep(error))? {
            Asked::Answered(capacity) => {
                if (capacity.volatile, capacity.persistent) == (0, 0) {
                    let found = from_ranges(hw, config, dvsec, capability, at)?;
                    let ranges = found.volatile.saturating_add(found.persistent);
                    if ranges != 0 {
                        let fault = config.fault.at(Code::DISCOVER_NO_CAPACITY, at);
                        return fault.expected(ranges).into();
                    }
                }
                return Ok(capacity);
            }
            Asked::Refused(remark) => refused = Some(remark),
            Asked::Nobody => {}
        }
    }
    let mut found = from_ranges(hw, config, dvsec, capability, at)?;
    found.remark = found.remark.or(refused);
    let assumed = found.source == CapacitySource::AssumedVolatile;
    if cfg!(not(feature = "mailbox")) && assumed && registers.is_some() {
        return Err(config.fault.keep(Feature::Mailbox.not_built(at)));
    }
    Ok(found)
}

/// Where the registers of a range, counted from 0, are found as if they were range 1's.
fn range_base(dvsec: &Dvsec, index: u8) -> u16 {
    dvsec.offset.wrapping_add(RANGE_STRIDE * u16::from(index))
}

/// Whether a range's memory can be used, if slower or smaller than it should be.
fn ready(low: RangeSizeLow) -> bool {
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
    at: Place,
) -> Result<u32, Failed> {
    let range = index + 1;
    let valid = |low: RangeSizeLow| low.info_valid();
    let low = settle(hw, clock, config, dvsec, index, INFO_VALID_MS, valid)
        .map_err(|low| Waited::InfoValid(range).timeout(at, low.raw(), INFO_VALID_MS))
        .map_err(|error| config.fault.keep(error))?;
    let code = low.active_timeout();
    let Some(seconds) = active_timeout_seconds(code) else {
        let fault = config.fault.at(Code::DISCOVER_RANGE, at).halves(0u8, range);
        return fault.rule(RangeError::Reserved { field: "Memory_Active_Timeout", code }).into();
    };
    let milliseconds = u32::from(seconds) * 1000;
    if !ready(low) {
        settle(hw, clock, config, dvsec, index, milliseconds, ready)
            .map_err(|low| Waited::Active(range).timeout(at, low.raw(), milliseconds))
            .map_err(|error| config.fault.keep(error))?;
    }
    Ok(milliseconds)
}

/// Asks a range until it is as it should be; else what it was last.
#[inline(never)]
fn settle(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
    index: u8,
    milliseconds: u32,
    done: fn(RangeSizeLow) -> bool,
) -> Result<RangeSizeLow, RangeSizeLow> {
    let offset = range_base(dvsec, index).wrapping_add(RangeSizeLow::SPEC.offset);
    let mut low = RangeSizeLow::new();
    poll_each_millisecond(clock, milliseconds, || {
        low = RangeSizeLow::from_raw(config.fresh(hw, offset));
        done(low).then_some(())
    })
    .map_or(Err(low), |()| Ok(low))
}

#[inline(never)]
fn from_ranges(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    dvsec: &Dvsec,
    capability: Capability,
    at: Place,
) -> Result<Capacity, Failed> {
    let mut sizes = Capacity {
        volatile: 0,
        persistent: 0,
        source: CapacitySource::RangeRegisters,
        remark: None,
    };
    for index in 0..2 {
        let base = range_base(dvsec, index);
        let size_low: RangeSizeLow = config.read(hw, base);
        // QEMU counts one range and fills in two where a device has both kinds of memory.
        let uncounted = index >= capability.hdm_count();
        let usable = size_low.info_valid() && ready(size_low);
        let size_high = config.read(hw, base);
        let registers = RangeRegisters { size_high, size_low, ..RangeRegisters::default() };
        let decoded = Range::decode(registers);
        if uncounted && !usable {
            // What is not counted need not make sense, but a size is a size.
            if let Some(size) = decoded.ok().map(|range| range.size).filter(|size| *size != 0) {
                sizes.remark =
                    Some(Code::DISCOVER_RANGE_NOT_COUNTED.at(at).detail(index + 1).found(size));
            }
            continue;
        }
        let range = match decoded {
            Ok(range) => range,
            Err(error) => {
                let fault = config.fault.at(Code::DISCOVER_RANGE, at).halves(0u8, index + 1);
                return fault.rule(error).into();
            }
        };
        let persistent = range.media == MediaType::NonVolatile;
        if range.media == MediaType::Cdat {
            sizes.source = CapacitySource::AssumedVolatile;
        }
        if range.size != 0 && !persistent && sizes.persistent != 0 {
            return config.fault.at(Code::DISCOVER_PERSISTENT_FIRST, at).into();
        }
        let Capacity { volatile, persistent: kept, .. } = sizes;
        let sum = if persistent { &mut sizes.persistent } else { &mut sizes.volatile };
        let total = volatile.checked_add(kept).and_then(|sum| sum.checked_add(range.size));
        if total.is_none() {
            let fault = config.fault.at(Code::DISCOVER_CAPACITY_TOO_LARGE, at);
            return fault.expected(volatile).found(range.size).into();
        }
        *sum += range.size;
    }
    Ok(sizes)
}

/// A reader of registers at a physical address that does not fetch the dword it gave last again.
fn reader(hw: &mut impl Mmio, address: u64) -> impl FnMut(u16) -> u32 {
    let mut last = None;
    move |offset| match last {
        Some((at, dword)) if at == offset => dword,
        _ => {
            let dword = hw.read(address.wrapping_add(u64::from(offset)));
            last = Some((offset, dword));
            dword
        }
    }
}

/// What came of asking a device.
enum Asked {
    Answered(Capacity),
    /// It takes no such command; the remark.
    Refused(Error),
    /// It has no mailbox.
    Nobody,
}

fn from_mailbox(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    registers: RegisterBlock,
    wait_ms: u32,
    at: Place,
) -> Result<Asked, Error> {
    let (mut mailbox, mut status) = (None, None);
    let refuse = |error| Code::DISCOVER_DEVICE_REGISTERS.at(at).rule(error);
    let entries = DeviceCapabilities::new(reader(hw, registers.address)).map_err(refuse)?;
    for (entry, found) in (0..).zip(entries) {
        let found = found.map_err(refuse)?;
        let DeviceCapability { offset, length, .. } = found;
        if u64::from(offset) + u64::from(length) > registers.room {
            return Err(refuse(DeviceArrayError::Place { entry, offset, length }));
        }
        let place = Block(registers.address.wrapping_add(u64::from(offset)));
        match found.id {
            DeviceCapabilityId::PrimaryMailbox => _ = mailbox.get_or_insert(place),
            DeviceCapabilityId::MemoryDeviceStatus => _ = status.get_or_insert(place),
            _ => {}
        }
    }
    let Some(mailbox) = mailbox else { return Ok(Asked::Nobody) };
    let mut mailbox = Mailbox { hw, clock, block: mailbox, at };
    if let Some(status) = status {
        mailbox.await_device(status, wait_ms)?;
    }
    let length = match mailbox.run(Opcode::IdentifyMemoryDevice)? {
        Ok(length) => length,
        Err(refused) => return Ok(Asked::Refused(refused)),
    };
    let short = |ShortPayload { opcode, need, have }| {
        Code::DISCOVER_SHORT_PAYLOAD.at(at).detail(opcode).expected(need).found(have)
    };
    let identity = IdentifyMemoryDevice::read(mailbox.reader(), 0, length).map_err(short)?;
    let (volatile, persistent) = if identity.partition_alignment.get() == 0 {
        (identity.volatile_only, identity.persistent_only)
    } else {
        let length = match mailbox.run(Opcode::GetPartitionInfo)? {
            Ok(length) => length,
            Err(refused) => return Ok(Asked::Refused(refused)),
        };
        let info = PartitionInfo::read(mailbox.reader(), 0, length).map_err(short)?;
        (info.active_volatile, info.active_persistent)
    };
    let total = capacity_bytes(identity.total).unwrap_or(u64::MAX);
    capacity_bytes(volatile)
        .zip(capacity_bytes(persistent))
        .filter(|(volatile, persistent)| volatile.checked_add(*persistent).is_some())
        .map(|(volatile, persistent)| {
            let active = volatile.saturating_add(persistent);
            let remark = (active < total)
                .then_some(Code::DISCOVER_NOT_PARTITIONED.at(at).expected(total).found(active));
            let source = CapacitySource::Mailbox;
            Asked::Answered(Capacity { volatile, persistent, source, remark })
        })
        .ok_or_else(|| {
            Code::DISCOVER_CAPACITY_TOO_LARGE
                .at(at)
                .expected(volatile.get())
                .found(persistent.get())
        })
}

struct Mailbox<'a, M, C> {
    hw: &'a mut M,
    clock: &'a mut C,
    block: Block,
    at: Place,
}

impl<M: Mmio, C: Clock> Mailbox<'_, M, C> {
    fn reader(&mut self) -> impl FnMut(u16) -> u32 {
        reader(self.hw, self.block.0)
    }

    /// Polls `R` until `done`.
    fn settle<R: Register>(
        &mut self,
        block: Block,
        waited: Waited,
        milliseconds: u32,
        done: impl Fn(R) -> bool,
    ) -> Result<R, Error> {
        let (hw, at) = (&mut *self.hw, self.at);
        let mut found = 0;
        poll_each_millisecond(self.clock, milliseconds, || {
            let register: R = block.read(hw);
            found = register.raw();
            done(register).then_some(register)
        })
        .ok_or(waited.timeout(at, found, milliseconds))
    }

    /// Waits until the device takes commands and its media works.
    fn await_device(&mut self, status: Block, milliseconds: u32) -> Result<(), Error> {
        let done = MemoryDeviceStatus::ready;
        self.settle(status, Waited::DeviceReady, milliseconds.max(COMMAND_MS), done).map(|_| ())
    }

    /// Runs a command without input; gives the length of its output, or the remark that the device
    /// refused the command.
    fn run(&mut self, opcode: Opcode) -> Result<Result<u32, Error>, Error> {
        let idle = |control: Control| !control.doorbell();
        let control = self.settle(self.block, Waited::MailboxFree, COMMAND_MS, idle)?;
        let command = Command { opcode, length: 0 };
        // No command without input is too long.
        let Some((low, high)) = command.encode() else { return Ok(Ok(0)) };
        let whole = u64::from(high.raw()) << 32 | u64::from(low.raw());
        self.hw.write_qword(self.block.address::<CommandLow>(), whole);
        self.block.write(self.hw, control.with_doorbell(true));
        self.settle(self.block, Waited::Command(opcode), COMMAND_MS, idle)?;
        let status: StatusHigh = self.block.read(self.hw);
        let code = status.return_code();
        if ReturnCode::from_code(code) != ReturnCode::Success {
            let remark = Code::DISCOVER_MAILBOX_REFUSES.at(self.at).detail(opcode);
            return Ok(Err(remark.found(code)));
        }
        let low: CommandLow = self.block.read(self.hw);
        let high: CommandHigh = self.block.read(self.hw);
        Ok(Ok(Command::decode(low, high).length))
    }
}
