//! An unmodified Linux behind our firmware: the kernel that a distribution has installed, with the
//! drivers that come with it in a small initramfs, and what that Linux says of the machine.
//!
//! The image hands over to it with `payload=linux`; the files reach the image through QEMU's
//! fw_cfg. The initramfs holds busybox, the drivers, and one script that configures nothing: it
//! loads the drivers, prints what sysfs shows to the second serial port, and powers off.
//!
//! **Invariant**: nothing of the kernel or its modules is changed or built here.

pub mod boot;
pub mod facts;
pub(crate) mod initramfs;
pub mod list;
pub mod named;
pub mod ours;
pub mod planned;
pub mod root;
pub mod state;
mod symbols;
mod sysfs;
mod text;
pub mod uefi;
pub mod verdict;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

pub use facts::{Facts, FactsError};
pub use initramfs::{InitramfsError, Task};
pub use named::{Named, NamedError};
pub use text::FactsText;
pub use verdict::Verdict;

use crate::qemu::command::escaped;
use crate::qemu::process::Arch;

/// The variable that names a kernel.
pub(crate) const KERNEL: &str = "LINUX_KERNEL";

/// The same for Arm.
const KERNEL_FOR_ARM: &str = "LINUX_KERNEL_AARCH64";

/// Linux's command line: behind `payload=linux -- ` of the image's. Without `no_timer_check` the kernel
/// panics where a busy host lets the emulated timer miss its test.
pub const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=4 no_timer_check";

/// The same on QEMU's machine for Arm. Without `nosoftlockup` a busy host that stops QEMU for some seconds
/// looks like a fault of Linux.
pub(crate) const COMMAND_LINE_ARM: &str = "console=ttyAMA0 panic=-1 loglevel=4 nosoftlockup";

/// A kernel, its modules, and a busybox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The bzImage.
    pub kernel: PathBuf,
    /// What `uname -r` says in it: the name of its modules' directory.
    pub version: String,
    /// The modules.
    pub modules: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
    /// An initrd that Linux is to have beneath the one that is made here.
    pub initrd: Option<PathBuf>,
}

/// What is not installed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No kernel with modules in the usual places.
    Kernel,
    /// The kernel that a variable names is not called `vmlinuz-VERSION`, or is not there.
    Named {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The kernel's modules.
    Modules(PathBuf),
    /// No kernel for Arm is named.
    KernelForArm,
    /// No busybox for Arm is named.
    BusyboxForArm,
    /// busybox.
    Busybox,
    /// The busybox that is there needs libraries.
    DynamicBusybox(PathBuf),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str(
                "no /boot/vmlinuz-VERSION with /lib/modules/VERSION; install linux-image-cloud-amd64 \
                 6.12 or newer, or name one with LINUX_KERNEL=FILE",
            ),
            Self::Named { variable, path } => write!(
                f,
                "{variable}={}: expected a file called vmlinuz-VERSION, whose modules are in \
                 ../lib/modules/VERSION or /lib/modules/VERSION, found none",
                path.display()
            ),
            Self::Modules(path) => {
                write!(f, "{}: no modules.dep there; install the kernel's modules (on Debian they are in the kernel's package; `depmod` makes the file)", path.display())
            }
            Self::KernelForArm => f.write_str(
                "no Linux for Arm; name a vmlinuz-VERSION with LINUX_KERNEL_AARCH64=FILE \
                 (`.ci/peers uefi` fetches one on Debian)",
            ),
            Self::BusyboxForArm => f.write_str(
                "no busybox for Arm; name a static one with BUSYBOX_AARCH64=FILE (`.ci/peers uefi` \
                 fetches one on Debian)",
            ),
            Self::Busybox => f.write_str("no busybox in PATH; install busybox-static"),
            Self::DynamicBusybox(path) => {
                write!(f, "{} needs libraries; install busybox-static", path.display())
            }
        }
    }
}

impl std::error::Error for Missing {}

/// A static busybox, of the machine: the first in `PATH`, or where distributions have it.
pub(crate) fn busybox() -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin", "/bin"].map(PathBuf::from));
    let found: Vec<_> =
        folders.map(|folder| folder.join("busybox")).filter(|path| path.is_file()).collect();
    let is_static =
        |path: &&PathBuf| std::fs::read(path).is_ok_and(|bytes| interpreter(&bytes) == Ok(None));
    match (found.iter().find(is_static), found.first()) {
        (Some(busybox), _) => Ok(busybox.clone()),
        (None, Some(dynamic)) => Err(Missing::DynamicBusybox(dynamic.clone())),
        (None, None) => Err(Missing::Busybox),
    }
}

/// A kernel, its version and its modules.
type Found = (PathBuf, String, PathBuf);

/// The newest kernel in `/boot` that has modules, or the one that `LINUX_KERNEL` names; with its
/// version and its modules.
pub(crate) fn kernel() -> Result<Found, Missing> {
    match kernel_of(KERNEL)? {
        Some(found) => Ok(found),
        None => newest(None).ok_or(Missing::Kernel),
    }
}

/// The kernel that a variable names; nothing if it names none.
pub(crate) fn kernel_of(variable: &'static str) -> Result<Option<Found>, Missing> {
    let Some(path) = named(variable) else { return Ok(None) };
    let version = version_of(&path).filter(|_| path.is_file());
    let version = version.ok_or_else(|| Missing::Named { variable, path: path.clone() })?;
    let modules = modules_of(&path, &version);
    if !modules.join("modules.dep").is_file() {
        return Err(Missing::Modules(modules));
    }
    Ok(Some((path, version, modules)))
}

/// The kernel that [`kernel`] finds, if it is older than a release; else the newest in `/boot` that is,
/// if there is one.
pub(crate) fn kernel_before(release: [u64; 2]) -> Result<Found, Missing> {
    let found = kernel()?;
    if is_before(&found.1, release) {
        return Ok(found);
    }
    Ok(newest(Some(release)).unwrap_or(found))
}

/// The kernel that `LINUX_KERNEL` names, or the newest in `/boot` that has modules.
pub fn kernel_image() -> Result<PathBuf, Missing> {
    kernel().map(|(kernel, _, _)| kernel)
}

impl Installed {
    /// Every file that it takes to boot this Linux: for whoever boots it elsewhere.
    pub fn files(&self) -> Result<Vec<PathBuf>, InitramfsError> {
        let mut files = vec![self.kernel.clone(), self.busybox.clone()];
        files.extend(initramfs::files(&self.modules, &self.version)?);
        Ok(files)
    }

    /// The newest kernel in `/boot` that has modules, or the one that `LINUX_KERNEL` names.
    pub fn find() -> Result<Self, Missing> {
        Self::find_for(Arch::X86)
    }

    /// What `-kernel IMAGE` of QEMU needs beside it to go on to this Linux. `facts` is the file
    /// that takes what it says; the command line of the image has to end with
    /// `payload=linux -- `[`COMMAND_LINE`], and the image's own console is the first serial port.
    pub fn arguments(&self, initramfs: &Path, facts: &Path) -> Vec<OsString> {
        let file =
            |name: &str, path| joined(&format!("name=opt/org.cxl-firmware/{name},file="), path);
        vec![
            "-fw_cfg".into(),
            file("kernel", &self.kernel),
            "-fw_cfg".into(),
            file("initrd", initramfs),
            "-serial".into(),
            joined("file:", facts),
        ]
    }

    /// The kernel for another architecture that `LINUX_KERNEL_AARCH64` names, with a busybox that
    /// `BUSYBOX_AARCH64` does; for this one what [`Installed::find`] finds.
    pub fn find_for(arch: Arch) -> Result<Self, Missing> {
        // There is one at least where there is an error.
        Self::all_for(arch).map_err(|lacks| lacks.into_iter().next().unwrap_or(Missing::Kernel))
    }

    /// The same, with everything that is missing, so that nobody has to come again for each.
    pub fn all_for(arch: Arch) -> Result<Self, Vec<Missing>> {
        match (found_for(arch), busybox_for(arch)) {
            (Ok((kernel, version, modules)), Ok(busybox)) => {
                Ok(Self { kernel, version, modules, busybox, initrd: None })
            }
            (kernel, busybox) => Err(kernel.err().into_iter().chain(busybox.err()).collect()),
        }
    }
}

/// The kernel that is installed for an architecture, its version and its modules.
fn found_for(arch: Arch) -> Result<Found, Missing> {
    match arch {
        Arch::X86 => kernel(),
        Arch::Arm => kernel_for_arm(),
    }
}

/// A static busybox for an architecture.
fn busybox_for(arch: Arch) -> Result<PathBuf, Missing> {
    match arch {
        Arch::X86 => busybox(),
        Arch::Arm => busybox_for_arm(),
    }
}

/// What a variable names; nothing if it is empty.
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// The kernel for Arm, its version and its modules.
fn kernel_for_arm() -> Result<Found, Missing> {
    kernel_of(KERNEL_FOR_ARM)?.ok_or(Missing::KernelForArm)
}

/// A static busybox for Arm.
fn busybox_for_arm() -> Result<PathBuf, Missing> {
    let busybox = named("BUSYBOX_AARCH64").ok_or(Missing::BusyboxForArm)?;
    let is_static = std::fs::read(&busybox).is_ok_and(|bytes| interpreter(&bytes) == Ok(None));
    if is_static { Ok(busybox) } else { Err(Missing::DynamicBusybox(busybox)) }
}

/// An option of QEMU that ends with a path.
pub(crate) fn joined(start: &str, path: &Path) -> OsString {
    let mut text = OsString::from(start);
    text.push(escaped(path));
    text
}

/// The interpreter that an ELF64 program names; none if it is static.
pub(crate) fn interpreter(elf: &[u8]) -> Result<Option<&[u8]>, NotElf> {
    use zerocopy::FromBytes;
    use zerocopy::little_endian::{U16, U32, U64};

    const INTERPRETER: u32 = 3;
    let word = |at: usize| U64::read_from_prefix(elf.get(at..)?).ok().map(|(word, _)| word.get());
    let place = |at: usize| word(at).and_then(|word| usize::try_from(word).ok());
    // 64-bit, little-endian.
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err(NotElf);
    }
    let count = U16::read_from_prefix(elf.get(0x38..).unwrap_or_default());
    let (Some(headers), Ok((count, _))) = (place(0x20), count) else { return Err(NotElf) };
    for index in 0..usize::from(count.get()) {
        let at = headers.saturating_add(index * 56);
        let kind = U32::read_from_prefix(elf.get(at..).unwrap_or_default());
        let (kind, _) = kind.map_err(|_| NotElf)?;
        if kind.get() == INTERPRETER {
            let (Some(from), Some(size)) = (place(at + 8), place(at + 32)) else {
                return Err(NotElf);
            };
            let name = elf.get(from..from.saturating_add(size)).ok_or(NotElf)?;
            return Ok(Some(name.strip_suffix(b"\0").unwrap_or(name)));
        }
    }
    Ok(None)
}

/// A file that is no ELF64 program, or is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotElf;

/// Where the modules of a kernel are that is called `vmlinuz-VERSION`.
pub(crate) fn modules_for(kernel: &Path) -> Option<PathBuf> {
    version_of(kernel).map(|version| modules_of(kernel, &version))
}

/// Where a kernel's modules are: beside its folder, as `/lib` is beside `/boot`, or the machine's.
fn modules_of(kernel: &Path, version: &str) -> PathBuf {
    let root = kernel.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let beside = root.join("lib/modules").join(version);
    let there = beside.join("modules.dep").is_file();
    if there { beside } else { Path::new("/lib/modules").join(version) }
}

fn version_of(kernel: &Path) -> Option<String> {
    let name = kernel.file_name()?.to_str()?;
    Some(name.strip_prefix("vmlinuz-")?.to_owned())
}

/// The newest kernel in `/boot` that has modules; of those that are older than a release, if one is given.
fn newest(before: Option<[u64; 2]>) -> Option<Found> {
    let files = std::fs::read_dir("/boot").ok()?;
    let kernels = files.filter_map(|file| {
        let path = file.ok()?.path();
        let version = version_of(&path)?;
        let modules = modules_of(&path, &version);
        modules.join("modules.dep").is_file().then_some((path, version, modules))
    });
    kernels
        .filter(|(_, version, _)| before.is_none_or(|release| is_before(version, release)))
        .max_by_key(|(_, version, _)| numbers(version))
}

/// A version's numbers: 6.12 is newer than 6.9.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Whether a version is older than a release of the main line.
fn is_before(version: &str, release: [u64; 2]) -> bool {
    numbers(version).as_slice() < release.as_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let mut elf = vec![0; 0x40 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x38] = 2;
        (elf[0x40], elf[0x40 + 56]) = (1, 6);
        assert_eq!(interpreter(&elf), Ok(None));
        // At 0xB0 with eight bytes.
        (elf[0x40 + 56], elf[0x40 + 56 + 8], elf[0x40 + 56 + 32]) = (3, 0xB0, 8);
        assert_eq!(interpreter(&elf), Err(NotElf), "the name is cut off");
        elf.extend(b"/lib/ld\0");
        assert_eq!(interpreter(&elf), Ok(Some(&b"/lib/ld"[..])));
        assert_eq!(interpreter(&elf[..0x40 + 56]), Err(NotElf), "cut off");
        assert_eq!(interpreter(b"#!/bin/sh"), Err(NotElf));
    }

    #[test]
    fn modules_are_looked_for_beside_the_kernel_s_folder_first() {
        let root = tempfile::tempdir().expect("a folder");
        let kernel = root.path().join("boot/vmlinuz-7.3.4");
        assert_eq!(modules_of(&kernel, "7.3.4"), Path::new("/lib/modules/7.3.4"));
        let modules = root.path().join("lib/modules/7.3.4");
        std::fs::create_dir_all(&modules).expect("a folder");
        std::fs::write(modules.join("modules.dep"), "").expect("a file");
        assert_eq!(modules_of(&kernel, "7.3.4"), modules);
        assert_eq!(modules_of(Path::new("vmlinuz-6.12"), "6.12"), Path::new("/lib/modules/6.12"));
    }

    #[test]
    fn a_release_s_own_candidates_are_not_before_it() {
        for (version, before) in [
            ("6.12.95+deb12-cloud-amd64", true),
            ("6.9.1", true),
            ("6.14.11", true),
            ("6.15.0-rc1", false),
            ("6.15", false),
            ("7.3.4+deb13-cloud-amd64", false),
        ] {
            assert_eq!(is_before(version, [6, 15]), before, "{version}");
        }
    }

    #[test]
    fn commas_in_paths_stand_twice_and_no_byte_is_lost() {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a,\xFF"));
        assert_eq!(joined("file:", path).into_vec(), b"file:/a,,\xFF");
    }
}
