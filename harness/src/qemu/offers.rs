//! What a QEMU has, asked of the program itself: versions differ, and distributions build what they
//! like.
//!
//! **Invariant**: nothing here follows from a version number; every question is bounded in time.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use cxl_regs::acpi::cedt::Restrictions;

use super::bare::{self, BareError};
use super::process::{self, Arch, OLDEST, Process, ProcessError};

/// What a QEMU has that another may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Whose processor it emulates.
    pub arch: Arch,
    /// What it says it is.
    pub version: (u32, u32),
    /// Memory devices that can be HDM-DB, and ports with a path for back-invalidate.
    pub back_invalidate: bool,
    /// What each of its windows admits; no property changes it.
    pub restrictions: Restrictions,
}

/// The properties that back-invalidate takes, each with its device (QEMU `hw/mem/cxl_type3.c`,
/// `hw/pci-bridge/cxl_upstream.c`).
const BACK_INVALIDATE: [(&str, &str); 3] =
    [("cxl-type3", "hdm-db"), ("cxl-type3", "x-256b-flit"), ("cxl-upstream", "x-256b-flit")];

/// The least machine with a window.
const LEAST: [&str; 4] = ["-S", "-nodefaults", "-device", "pxb-cxl,id=hb,bus=pcie.0,bus_nr=16"];
const LEAST_WINDOW: &str = "cxl-fmw.0.targets.0=hb,cxl-fmw.0.size=1G";

/// Why a QEMU does not say what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// It does not run, or gave no answer.
    Process(ProcessError),
    /// Its tables make no sense.
    Bare(BareError),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(error) => error.fmt(f),
            Self::Bare(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AskError {}

impl From<ProcessError> for AskError {
    fn from(error: ProcessError) -> Self {
        Self::Process(error)
    }
}

impl Offers {
    /// What the oldest version has that this is for: seen on QEMU 10.0.
    pub fn of_the_oldest() -> Self {
        let restrictions = Restrictions::new()
            .with_device_coherent(true)
            .with_host_only(true)
            .with_volatile(true)
            .with_persistent(true);
        Self { arch: Arch::X86, version: OLDEST, back_invalidate: false, restrictions }
    }

    /// Its version in a word.
    pub fn name(&self) -> String {
        let (major, minor) = self.version;
        format!("{major}.{minor}")
    }

    /// Asks the program; each question may take so long.
    pub fn ask(limit: Duration) -> Result<Self, AskError> {
        Self::ask_for(Arch::X86, limit)
    }

    /// The same for another architecture.
    pub fn ask_for(arch: Arch, limit: Duration) -> Result<Self, AskError> {
        let version = process::available_for(arch)?;
        let mut back_invalidate = true;
        for (device, property) in BACK_INVALIDATE {
            back_invalidate &= process::has_property(arch, device, property)?;
        }
        let mut arguments: Vec<OsString> = process::fixed();
        arguments.extend(LEAST.map(OsString::from));
        let (machine, _, bits) = arch.machine();
        arguments.extend(["-M".into(), format!("{machine},{LEAST_WINDOW}").into()]);
        let (mut process, mut qtest) = Process::start_with_qtest_for(arch, &arguments, limit)?;
        let tables = bare::platform_for(arch, &mut qtest, bits).map_err(|error| match error {
            BareError::Qtest(error) => AskError::Process(process.explain(error)),
            error => AskError::Bare(error),
        })?;
        let window = tables.windows.first().ok_or(ProcessError::NoWindow { arch })?;
        Ok(Self { arch, version, back_invalidate, restrictions: window.restrictions })
    }
}
