//! The machine as C reaches it: callbacks for registers, configuration space, time and the log.
//!
//! **Invariant**: each access of the library is one call of one callback; a callback that may be NULL
//! and is, is never called.

use core::ffi::{c_char, c_void};

use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::platform::Ecam;

use crate::border::{self, Sized32};
use crate::line::{LINE, Line};
use crate::status::{Failure, cxl_argument, cxl_status};

/// How the library reaches the machine. Callbacks may be called from `cxl_*` functions that get this
/// struct, and at no other time; they must not call the library with the same workspace.
///
/// Set `size` to `sizeof(struct cxl_hardware)` and what is not there to 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cxl_hardware {
    /// Bytes of this struct.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// What every callback gets.
    pub context: *mut c_void,
    /// Reads the dword at a physical address, a multiple of 4: registers, and memory in windows, past
    /// the caches. One access of 32 bits. What is not there reads 0xffffffff. The library reads
    /// nothing wider.
    pub read32: Option<unsafe extern "C" fn(context: *mut c_void, address: u64) -> u32>,
    /// Writes the dword at a physical address, a multiple of 4. One access of 32 bits.
    pub write32: Option<unsafe extern "C" fn(context: *mut c_void, address: u64, value: u32)>,
    /// Writes the 64-bit register at a physical address, a multiple of 8; NULL: two writes of 32
    /// bits, the lower half first. QEMU's mailbox needs the one access.
    pub write64: Option<unsafe extern "C" fn(context: *mut c_void, address: u64, value: u64)>,
    /// Microseconds since some moment, for waits that have to end.
    pub microseconds: Option<unsafe extern "C" fn(context: *mut c_void) -> u64>,
    /// Reads a dword of configuration space; NULL: `read32` reaches it in the ECAM regions of the
    /// platform. With it these regions are never touched, and need not be there: they say only which
    /// segments and buses there are. Bits 7:3 of `device_function` are the device. `offset` is a
    /// multiple of 4 below 4096.
    pub config_read32: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            segment: u16,
            bus: u8,
            device_function: u8,
            offset: u16,
        ) -> u32,
    >,
    /// Writes a dword of configuration space; NULL exactly if `config_read32` is.
    pub config_write32: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            segment: u16,
            bus: u8,
            device_function: u8,
            offset: u16,
            value: u32,
        ),
    >,
    /// Takes a line for people, without a line end, with a 0 behind; NULL: no log.
    pub log: Option<unsafe extern "C" fn(context: *mut c_void, line: *const c_char)>,
}

// SAFETY: repr(C), of integers, a pointer and optional function pointers.
unsafe impl Sized32 for cxl_hardware {
    const FIRST: usize = size_of::<Self>();
}

/// A callback that has to be there.
fn needed<T>(callback: Option<T>) -> Result<T, Failure> {
    callback.ok_or(cxl_status::Null.into())
}

/// A function's place: segment, bus, device and function, offset.
type Where = (u16, u8, u8, u16);

type ReadConfig = unsafe extern "C" fn(*mut c_void, u16, u8, u8, u16) -> u32;
type WriteConfig = unsafe extern "C" fn(*mut c_void, u16, u8, u8, u16, u32);

/// The machine while a function runs.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    context: *mut c_void,
    read: unsafe extern "C" fn(*mut c_void, u64) -> u32,
    write: unsafe extern "C" fn(*mut c_void, u64, u32),
    write_qword: Option<unsafe extern "C" fn(*mut c_void, u64, u64)>,
    microseconds: unsafe extern "C" fn(*mut c_void) -> u64,
    config: Option<(ReadConfig, WriteConfig)>,
    log: Option<unsafe extern "C" fn(*mut c_void, *const c_char)>,
    ecam: &'a [Ecam],
}

impl<'a> Machine<'a> {
    /// The machine behind a struct of C.
    ///
    /// # Safety
    ///
    /// The contract of C.
    pub(crate) unsafe fn of(hardware: *const cxl_hardware) -> Result<Self, Failure> {
        // SAFETY: the contract of C.
        let hardware = unsafe { border::sized(hardware) }?;
        if hardware.reserved != 0 {
            let reserved = u64::from(hardware.reserved);
            return Err(Failure::argument(cxl_argument::Reserved, 0, reserved));
        }
        let config = match (hardware.config_read32, hardware.config_write32) {
            (Some(read), Some(write)) => Some((read as ReadConfig, write as WriteConfig)),
            (None, None) => None,
            _ => return Err(Failure::argument(cxl_argument::ConfigCallbacks, 0, 0)),
        };
        Ok(Self {
            context: hardware.context,
            read: needed(hardware.read32)?,
            write: needed(hardware.write32)?,
            write_qword: hardware.write64,
            microseconds: needed(hardware.microseconds)?,
            config,
            log: hardware.log,
            ecam: &[],
        })
    }

    /// The same, where configuration space lies here.
    pub(crate) fn with_ecam(self, ecam: &'a [Ecam]) -> Self {
        Self { ecam, ..self }
    }

    /// Writes a line to the log.
    pub(crate) fn log(&self, write: impl FnOnce(&mut Line<'_>)) {
        let Some(log) = self.log else { return };
        let mut buffer = [0; LINE];
        let mut line = Line::new(&mut buffer);
        write(&mut line);
        // SAFETY: a callback of C with its context, by the contract of C; the line has a 0 behind.
        unsafe { log(self.context, line.as_ptr()) };
    }

    /// The callbacks for configuration space, if it is reached by them, and which dword of it lies at
    /// an address.
    fn config(&self, address: u64) -> Option<((ReadConfig, WriteConfig), Where)> {
        let calls = self.config?;
        let place = self.ecam.iter().find_map(|region| {
            let offset = address.checked_sub(region.base.0)?;
            let bus = u8::try_from(offset >> 20).ok()?;
            let device_function = (offset >> 12) as u8;
            let decoded = (region.first_bus..=region.last_bus).contains(&bus);
            decoded.then_some((region.segment, bus, device_function, (offset & 0xFFF) as u16))
        })?;
        Some((calls, place))
    }
}

impl Mmio for Machine<'_> {
    fn read(&mut self, address: u64) -> u32 {
        match self.config(address) {
            Some(((read, _), (segment, bus, function, offset))) => {
                // SAFETY: a callback of C with its context, by the contract of C.
                unsafe { read(self.context, segment, bus, function, offset) }
            }
            // SAFETY: as above.
            None => unsafe { (self.read)(self.context, address) },
        }
    }

    fn write(&mut self, address: u64, value: u32) {
        match self.config(address) {
            Some(((_, write), (segment, bus, function, offset))) => {
                // SAFETY: a callback of C with its context, by the contract of C.
                unsafe { write(self.context, segment, bus, function, offset, value) }
            }
            // SAFETY: as above.
            None => unsafe { (self.write)(self.context, address, value) },
        }
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        match self.write_qword {
            // SAFETY: a callback of C with its context, by the contract of C.
            Some(write) => unsafe { write(self.context, address, value) },
            None => {
                self.write(address, value as u32);
                self.write(address.wrapping_add(4), (value >> 32) as u32);
            }
        }
    }
}

impl Clock for Machine<'_> {
    fn microseconds(&mut self) -> u64 {
        // SAFETY: a callback of C with its context, by the contract of C.
        unsafe { (self.microseconds)(self.context) }
    }
}
