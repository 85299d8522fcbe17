//! The UEFI driver as what boots: a firmware that is installed here, and a file system with the driver,
//! its text, the kernel and the initramfs.
//!
//! **Invariant**: the driver is built from the sources beside this program, or is the file that
//! `CXL_EFI` names; the firmware is unmodified, and its variables are a copy.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Installed, joined};
use crate::qemu::process::Arch;

/// What is not here.
#[derive(Debug)]
pub enum Missing {
    /// No firmware in the usual places.
    Firmware(Arch),
    /// The firmware that a variable names is not there.
    Named {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The driver cannot be built.
    Driver {
        /// Cargo's words.
        words: String,
        /// The target.
        target: &'static str,
    },
    /// The sources that this program was built of are gone, and with them those of the driver.
    Sources(PathBuf),
    /// A file cannot be read or written.
    File(io::Error),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firmware(arch) => {
                let Names { package, variable, .. } = names(*arch);
                write!(
                    f,
                    "no UEFI firmware; install {package}, or name its file with {variable}=FILE"
                )
            }
            Self::Named { variable, path } => {
                write!(f, "{variable}={}: no such file", path.display())
            }
            Self::Driver { words, target } => write!(
                f,
                "cxl.efi cannot be built: {words}; `rustup target add {target}` adds the target, or \
                 `env $(.ci/targets {target})` in front of the command does without"
            ),
            Self::Sources(path) => write!(
                f,
                "cxl.efi cannot be built: {} is not there any more, where this program was built; \
                 name a driver that was built elsewhere with CXL_EFI=FILE",
                path.display()
            ),
            Self::File(error) => write!(f, "files for UEFI: {error}"),
        }
    }
}

impl std::error::Error for Missing {}

/// What an architecture's parts are called.
struct Names {
    package: &'static str,
    variable: &'static str,
    /// Code, and the variables that belong to it.
    files: &'static [(&'static str, &'static str)],
    target: &'static str,
    /// The program that a firmware starts from a disk.
    default: &'static str,
}

fn names(arch: Arch) -> Names {
    match arch {
        Arch::X86 => Names {
            package: "ovmf",
            variable: "OVMF",
            files: &[
                ("/usr/share/OVMF/OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
                ("/usr/share/OVMF/OVMF_CODE.fd", "OVMF_VARS.fd"),
            ],
            target: "x86_64-unknown-uefi",
            default: "BOOTX64.EFI",
        },
        Arch::Arm => Names {
            package: "qemu-efi-aarch64",
            variable: "AAVMF",
            files: &[
                ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "AAVMF_VARS.fd"),
                ("/usr/share/AAVMF/AAVMF_CODE.fd", "AAVMF_VARS.fd"),
            ],
            target: "aarch64-unknown-uefi",
            default: "BOOTAA64.EFI",
        },
    }
}

/// A firmware, and the driver for it.
#[derive(Clone, Debug)]
pub struct Uefi {
    arch: Arch,
    code: PathBuf,
    variables: PathBuf,
    driver: PathBuf,
}

impl Uefi {
    /// What is installed here, and the driver, which is built if it is not.
    pub fn find(arch: Arch) -> Result<Self, Missing> {
        let (code, variables) = firmware(arch)?;
        Ok(Self { arch, code, variables, driver: driver(arch)? })
    }

    /// Whether there is a firmware.
    pub fn is_installed(arch: Arch) -> Result<(), Missing> {
        firmware(arch).map(|_| ())
    }

    /// Makes the file system in a folder, and says what QEMU needs for it. `words` are the policy.
    pub(super) fn arguments(
        &self,
        folder: &Path,
        installed: &Installed,
        initramfs: &[u8],
        words: &str,
        line: &str,
    ) -> Result<Vec<OsString>, Missing> {
        let disk = folder.join("esp");
        let boot = disk.join("EFI/BOOT");
        let variables = folder.join("variables");
        let Names { default, .. } = names(self.arch);
        let text = format!("{words}\nnext=\\vmlinuz initrd=\\initrd\n-- {line}\n");
        fs::create_dir_all(&boot)
            .and_then(|()| fs::copy(&self.driver, boot.join(default)))
            .and_then(|_| fs::write(boot.join("cxl.txt"), text))
            .and_then(|()| fs::copy(&installed.kernel, disk.join("vmlinuz")))
            .and_then(|_| fs::write(disk.join("initrd"), initramfs))
            .and_then(|()| fs::copy(&self.variables, &variables))
            .map_err(Missing::File)?;
        Ok(vec![
            "-drive".into(),
            joined("if=pflash,format=raw,readonly=on,file=", &self.code),
            "-drive".into(),
            joined("if=pflash,format=raw,file=", &variables),
            "-drive".into(),
            joined("id=esp,if=none,format=raw,readonly=on,file=fat:", &disk),
            // On the root bus: QEMU would plug it into a bridge of CXL devices.
            "-device".into(),
            "virtio-blk-pci,drive=esp,bus=pcie.0".into(),
        ])
    }
}

fn firmware(arch: Arch) -> Result<(PathBuf, PathBuf), Missing> {
    let Names { variable, files, .. } = names(arch);
    let named = std::env::var_os(variable).filter(|name| !name.is_empty()).map(PathBuf::from);
    let both = |code: &Path, variables| (code.to_owned(), code.with_file_name(variables));
    let found = match &named {
        // Code of one size goes with variables of that size.
        Some(code) => files.iter().find_map(|(usual, variables)| {
            let alike = Path::new(usual).file_name() == code.file_name();
            alike.then(|| both(code, variables))
        }),
        None => files
            .iter()
            .map(|(code, variables)| both(Path::new(code), variables))
            .find(|(code, _)| code.is_file()),
    };
    match (found.filter(|(code, variables)| code.is_file() && variables.is_file()), named) {
        (Some(found), _) => Ok(found),
        (None, Some(path)) => Err(Missing::Named { variable, path }),
        (None, None) => Err(Missing::Firmware(arch)),
    }
}

/// The driver: what `CXL_EFI` names, or built of the sources that this program is built of.
fn driver(arch: Arch) -> Result<PathBuf, Missing> {
    if let Some(path) = std::env::var_os("CXL_EFI").filter(|name| !name.is_empty()) {
        let path = PathBuf::from(path);
        let missing = Missing::Named { variable: "CXL_EFI", path: path.clone() };
        return if path.is_file() { Ok(path) } else { Err(missing) };
    }
    let Names { target, .. } = names(arch);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().unwrap_or(package).to_owned();
    // A folder of its own: a cargo that runs this program may hold the lock of the usual one.
    let folder = workspace.join("target/uefi");
    if !workspace.join("Cargo.lock").is_file() {
        return Err(Missing::Sources(workspace));
    }
    let failed = |words: String| Missing::Driver { words, target };
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(&workspace)
        .args(["build", "--locked", "--quiet", "--package", "cxl-uefi", "--bin", "cxl"])
        .args(["--features", "driver", "--profile", "image", "--target", target, "--target-dir"])
        .arg(&folder)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let errors = words.lines().filter(|line| line.starts_with("error"));
        return Err(failed(errors.take(3).collect::<Vec<_>>().join("; ")));
    }
    Ok(folder.join(target).join("image/cxl.efi"))
}
