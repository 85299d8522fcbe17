//! A kernel, its modules and an initrd that somebody names, instead of what is installed here.
//!
//! **Invariant**: what is named is looked into before a machine starts: a file that is no kernel or no
//! initrd, and modules of another version than the kernel's, are refused with both names.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Installed, Missing, busybox_for, found_for, modules_of, version_of};
use crate::qemu::process::Arch;

/// What is named; what is not is taken from this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// A bzImage.
    pub kernel: Option<PathBuf>,
    /// The folder with its `modules.dep`.
    pub modules: Option<PathBuf>,
    /// An initrd, on top of which the harness' own is laid.
    pub initrd: Option<PathBuf>,
}

/// What is wrong with what is named.
#[derive(Debug)]
pub enum NamedError {
    /// A file cannot be read.
    File {
        /// It.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file is no kernel that can be booted here.
    NotKernel {
        /// It.
        path: PathBuf,
        /// How it starts.
        found: Vec<u8>,
    },
    /// A folder has no modules.
    NotModules(PathBuf),
    /// The kernel has no modules where they usually are.
    NoModules {
        /// The kernel.
        kernel: PathBuf,
        /// What it says it is; `None` if neither it nor its name says that.
        version: Option<String>,
    },
    /// Kernel and modules do not belong together.
    Apart {
        /// The kernel, and what it says it is.
        kernel: (PathBuf, String),
        /// The modules, and of which version they are.
        modules: (PathBuf, String),
    },
    /// A file is no initrd.
    NotInitrd {
        /// It.
        path: PathBuf,
        /// How it starts.
        found: Vec<u8>,
    },
    /// What is not named is not installed either.
    Missing(Missing),
}

/// The first bytes of a file, for people.
struct Start<'a>(&'a [u8]);

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("an empty file"),
            bytes => {
                f.write_str("a file that starts with")?;
                bytes.iter().take(8).try_for_each(|byte| write!(f, " {byte:02x}"))
            }
        }
    }
}

impl fmt::Display for NamedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NotKernel { path, found } => write!(
                f,
                "{}: expected a kernel as it is booted (bzImage, vmlinuz-VERSION), found {}",
                path.display(),
                Start(found)
            ),
            Self::NotModules(path) => write!(
                f,
                "{}: expected the folder of a kernel's modules, lib/modules/VERSION with its \
                 modules.dep (depmod makes it), found none",
                path.display()
            ),
            Self::NoModules { kernel, version: Some(version) } => write!(
                f,
                "{}: Linux {version}, and no modules of it in ../lib/modules/{version} nor \
                 /lib/modules/{version}; name their folder with --modules DIR",
                kernel.display()
            ),
            Self::NoModules { kernel, version: None } => write!(
                f,
                "{}: neither the file nor its name says which version it is; name the folder of its \
                 modules with --modules DIR",
                kernel.display()
            ),
            Self::Apart { kernel: (kernel, version), modules: (modules, other) } => write!(
                f,
                "{}: modules of Linux {other}, and {} is Linux {version}: they would not load",
                modules.display(),
                kernel.display()
            ),
            Self::NotInitrd { path, found } => write!(
                f,
                "{}: expected an initrd (a cpio archive as `cpio -H newc` makes it, plain or \
                 compressed as the kernel takes it), found {}",
                path.display(),
                Start(found)
            ),
            Self::Missing(missing) => missing.fmt(f),
        }
    }
}

impl std::error::Error for NamedError {}

impl NamedError {
    /// Whether it is what was named that is wrong, and not what this machine lacks.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Missing(_))
    }
}

/// So much of a kernel is looked at: its header ends there with room, and so does the text that it
/// points at (Linux, `Documentation/arch/x86/boot.rst`).
const HEAD: u64 = 128 << 10;

/// The magic of the setup header, and where it stands; behind it the field that points at the version.
const HEADER: (usize, &[u8]) = (0x202, b"HdrS");
const VERSION: usize = 0x20E;
/// What the version's address counts from.
const SETUP: usize = 0x200;

/// How archives start that Linux unpacks as an initramfs (Linux `lib/decompress.c`, `init/initramfs.c`).
const ARCHIVES: [&[u8]; 9] = [
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"BZh",
    b"\x5d\x00\x00",
    b"\xfd7zXZ\x00",
    b"\x89LZO",
    b"\x02\x21\x4c\x18",
    b"\x28\xb5\x2f\xfd",
];

impl Named {
    /// Whether anything is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is named, and of the rest what this machine has; everything that is wrong.
    pub fn installed(&self, arch: Arch) -> Result<Installed, Vec<NamedError>> {
        let mut wrong = Vec::new();
        let mut note = |error| wrong.push(error);
        let kernel = self.kernel_and_modules(arch).map_err(&mut note);
        let busybox = busybox_for(arch).map_err(|error| note(NamedError::Missing(error)));
        let initrd = self.initrd.as_deref().map(|path| is_initrd(path).map(|()| path.to_owned()));
        let initrd = initrd.transpose().map_err(&mut note);
        match (kernel, busybox, initrd) {
            (Ok((kernel, version, modules)), Ok(busybox), Ok(initrd)) => {
                Ok(Installed { kernel, version, modules, busybox, initrd })
            }
            _ => Err(wrong),
        }
    }

    fn kernel_and_modules(&self, arch: Arch) -> Result<(PathBuf, String, PathBuf), NamedError> {
        if let Some(path) = self.modules.as_ref().filter(|path| !has_modules(path)) {
            return Err(NamedError::NotModules(path.clone()));
        }
        let (kernel, version) = match &self.kernel {
            Some(path) => (path.clone(), kernel_version(path, arch)?),
            None => {
                let (kernel, version, modules) = found_for(arch).map_err(NamedError::Missing)?;
                let Some(named) = &self.modules else { return Ok((kernel, version, modules)) };
                return of_one_kind(kernel, Some(version), named);
            }
        };
        match (&self.modules, version) {
            (Some(modules), version) => of_one_kind(kernel, version, modules),
            (None, Some(version)) => {
                let modules = modules_of(&kernel, &version);
                match has_modules(&modules) {
                    true => of_one_kind(kernel, Some(version), &modules),
                    false => Err(NamedError::NoModules { kernel, version: Some(version) }),
                }
            }
            (None, None) => Err(NamedError::NoModules { kernel, version: None }),
        }
    }
}

fn has_modules(folder: &Path) -> bool {
    folder.join("modules.dep").is_file()
}

/// A kernel with these modules, if they are its own.
fn of_one_kind(
    kernel: PathBuf,
    version: Option<String>,
    modules: &Path,
) -> Result<(PathBuf, String, PathBuf), NamedError> {
    let of = modules_version(modules);
    match (version, of) {
        (Some(version), Some(of)) if version != of => {
            Err(NamedError::Apart { kernel: (kernel, version), modules: (modules.to_owned(), of) })
        }
        (Some(version), _) | (None, Some(version)) => Ok((kernel, version, modules.to_owned())),
        (None, None) => Err(NamedError::NoModules { kernel, version: None }),
    }
}

/// What a module says in `modinfo` that it was built for; where modules are compressed, what their folder
/// is called, as the kernel looks for them by that.
fn modules_version(folder: &Path) -> Option<String> {
    let list = fs::read_to_string(folder.join("modules.dep")).unwrap_or_default();
    let first = list.lines().find_map(|line| line.split_once(':')).map(|(path, _)| path);
    let bytes = first.and_then(|path| fs::read(folder.join(path)).ok()).unwrap_or_default();
    const MAGIC: &[u8] = b"vermagic=";
    let said = bytes.starts_with(b"\x7fELF").then(|| {
        let at = bytes.windows(MAGIC.len()).position(|part| part == MAGIC)? + MAGIC.len();
        let text = bytes.get(at..)?.split(|byte| matches!(byte, b' ' | 0)).next()?;
        String::from_utf8(text.to_vec()).ok()
    });
    said.flatten().or_else(|| {
        let whole = folder.canonicalize().ok()?;
        Some(whole.file_name()?.to_str()?.to_owned())
    })
}

/// What a kernel's file says it is, or its name.
fn kernel_version(path: &Path, arch: Arch) -> Result<Option<String>, NamedError> {
    let head = head(path, HEAD)?;
    if arch == Arch::Arm {
        return Ok(version_of(path));
    }
    let (at, magic) = HEADER;
    if head.get(at..at + magic.len()) != Some(magic) {
        return Err(NamedError::NotKernel { path: path.to_owned(), found: head });
    }
    let pointer = head.get(VERSION..).and_then(<[u8]>::first_chunk);
    let pointer = pointer.map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)));
    let text = head.get(SETUP + pointer..).filter(|_| pointer != 0).unwrap_or_default();
    let word = text.split(|byte| matches!(byte, b' ' | 0)).next().unwrap_or_default();
    let said = std::str::from_utf8(word).ok().filter(|word| !word.is_empty());
    Ok(said.map(str::to_owned).or_else(|| version_of(path)))
}

/// Refuses what is no bzImage.
pub fn is_kernel(path: &Path) -> Result<(), NamedError> {
    kernel_version(path, Arch::X86).map(drop)
}

/// Refuses what Linux would not unpack.
pub fn is_initrd(path: &Path) -> Result<(), NamedError> {
    let head = head(path, 16)?;
    match ARCHIVES.iter().any(|start| head.starts_with(start)) {
        true => Ok(()),
        false => Err(NamedError::NotInitrd { path: path.to_owned(), found: head }),
    }
}

/// The first bytes of a file.
fn head(path: &Path, most: u64) -> Result<Vec<u8>, NamedError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| NamedError::File { path: path.to_owned(), error })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a kernel's header, as far as it is looked at.
    fn kernel(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20E..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        bytes[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        bytes
    }

    /// Modules of a version in a folder of this name, plain or compressed.
    fn modules(root: &Path, name: &str, module: &[u8]) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("modules.dep"), "a.ko: \n").expect("a file");
        fs::write(folder.join("a.ko"), module).expect("a file");
        folder
    }

    #[test]
    fn kernel_and_modules_belong_together_or_are_named_both() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("bzImage");
        fs::write(&path, kernel("9.1.2-own (me@here) #1")).expect("a file");
        let named = |modules: &Path| Named {
            kernel: Some(path.clone()),
            modules: Some(modules.to_owned()),
            initrd: None,
        };
        let asked = |modules: &Path| named(modules).kernel_and_modules(Arch::X86);
        // By the module's own word, whatever its folder is called; else by the folder.
        let own = modules(root.path(), "mine", b"\x7fELF vermagic=9.1.2-own SMP\0");
        assert_eq!(asked(&own).expect("they belong together").1, "9.1.2-own");
        let packed = modules(root.path(), "9.1.2-own", b"\xfd7zXZ\0");
        assert_eq!(asked(&packed).expect("they belong together").2, packed);
        for other in [
            modules(root.path(), "9.1.2-own.", b"\x7fELF vermagic=9.1.3 SMP\0"),
            modules(root.path(), "9.1.3", b"\xfd7zXZ\0"),
        ] {
            let words = asked(&other).expect_err("they do not").to_string();
            for part in ["modules of Linux 9.1.3", "bzImage is Linux 9.1.2-own"] {
                assert!(words.contains(part), "{words}");
            }
        }
        let words = asked(root.path()).expect_err("no modules").to_string();
        assert!(words.contains("modules.dep"), "{words}");
        let alone = Named { modules: None, ..named(&own) };
        let words = alone.kernel_and_modules(Arch::X86).expect_err("none here").to_string();
        assert!(words.contains("--modules DIR") && words.contains("9.1.2-own"), "{words}");
    }

    #[test]
    fn what_is_no_kernel_or_initrd_says_how_it_starts() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("file");
        fs::write(&path, b"\x7fELF\x02\x01\x01\x00 and more").expect("a file");
        let words = kernel_version(&path, Arch::X86).expect_err("an ELF file").to_string();
        assert!(words.contains("bzImage") && words.contains("7f 45 4c 46"), "{words}");
        let words = is_initrd(&path).expect_err("an ELF file").to_string();
        assert!(words.contains("cpio") && words.contains("7f 45 4c 46"), "{words}");
        fs::write(&path, b"").expect("a file");
        let words = is_initrd(&path).expect_err("nothing").to_string();
        assert!(words.contains("an empty file"), "{words}");
        for archive in ARCHIVES {
            fs::write(&path, [archive, b"rest"].concat()).expect("a file");
            assert!(is_initrd(&path).is_ok(), "{archive:x?}");
        }
        let nowhere = root.path().join("nowhere");
        assert!(is_initrd(&nowhere).expect_err("no file").to_string().contains("nowhere"));
    }
}
