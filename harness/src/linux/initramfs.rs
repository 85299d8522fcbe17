//! The initramfs: busybox, the drivers in the order of their dependencies, and the script.
//!
//! **Invariant**: a module stands behind everything that `modules.dep` says it needs, and once.

use std::fmt;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use cpio::newc::Builder;

use super::Installed;

const INIT: &str = include_str!("init.sh");

/// What has to be there for CXL memory to come online, in the order in which a device manager comes
/// to it: the root, what hangs from it at once, the devices, then what hangs from those. Linux 6.12
/// stops with a NULL pointer in `cxl_pmem_region_probe` if `cxl_pmem` comes behind `cxl_mem` and
/// finds a persistent region assembled.
const WANTED: [&str; 9] = [
    "cxl_acpi", "cxl_pmem", "nd_pmem", "cxl_pci", "cxl_port", "cxl_mem", "dax_cxl", "kmem",
    "dax_hmem",
];

/// The folder of what is ours in an initrd that is not.
const OWN: &str = "cxl-harness";

/// What takes a disk of our own machine.
pub(super) const DISK: &str = "virtio_blk";

/// Why there is no initramfs.
#[derive(Debug)]
pub enum InitramfsError {
    /// A file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The kernel has no such driver, neither as a module nor built in.
    NoDriver {
        /// Its name.
        name: &'static str,
        /// The kernel.
        version: String,
    },
    /// The archive cannot be made.
    Archive(io::Error),
}

impl fmt::Display for InitramfsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NoDriver { name, version } => write!(
                f,
                "Linux {version} has no driver {name}: it was built without; take another kernel"
            ),
            Self::Archive(error) => write!(f, "initramfs: {error}"),
        }
    }
}

impl std::error::Error for InitramfsError {}

/// An entry of an archive: its path without the first slash, its type and permissions, and its
/// bytes.
pub(crate) struct Entry {
    /// Its path.
    pub name: String,
    /// Type and permissions, as `stat` has them.
    pub mode: u32,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The mode of a folder, of a program and of another file.
pub(crate) const FOLDER: u32 = 0o040_755;
pub(crate) const PROGRAM: u32 = 0o100_755;
pub(crate) const PLAIN: u32 = 0o100_644;

impl Entry {
    /// A folder.
    pub(crate) fn folder(name: &str) -> Self {
        Self { name: name.to_owned(), mode: FOLDER, bytes: Vec::new() }
    }

    /// A file.
    pub(crate) fn file(name: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), mode, bytes: bytes.into() }
    }
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, InitramfsError> {
    fs::read(path).map_err(|error| InitramfsError::File { path: path.to_owned(), error })
}

/// Drivers in the folder `to`, and beside them the file `modules` that lists them in the order in
/// which they are loaded.
pub(crate) fn drivers(
    modules: &Path,
    version: &str,
    wanted: &[&'static str],
    to: &str,
) -> Result<Vec<Entry>, InitramfsError> {
    let mut entries = Vec::new();
    let mut list = String::new();
    for path in needed(modules, version, wanted)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{to}/{name}");
        list += &format!("/{name}\n");
        entries.push(Entry::file(&name, PLAIN, read(&path)?));
    }
    entries.push(Entry::file(&format!("{to}/modules"), PLAIN, list));
    Ok(entries)
}

/// Where the wanted drivers are, and all that they need, in the order in which they are loaded.
fn needed(
    modules: &Path,
    version: &str,
    wanted: &[&'static str],
) -> Result<Vec<PathBuf>, InitramfsError> {
    let text = |name: &str| {
        read(&modules.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let (dependencies, builtin) = (text("modules.dep")?, text("modules.builtin")?);
    let order = order(&dependencies, &builtin, wanted)
        .map_err(|name| InitramfsError::NoDriver { name, version: version.to_owned() })?;
    Ok(order.into_iter().map(|path| modules.join(path)).collect())
}

/// What of a kernel's modules an initramfs is made of.
pub(super) fn files(modules: &Path, version: &str) -> Result<Vec<PathBuf>, InitramfsError> {
    let mut files = needed(modules, version, &WANTED)?;
    // Not every boot has a disk, and not every kernel the driver.
    files.extend(needed(modules, version, &[DISK]).unwrap_or_default());
    files.extend(["modules.dep", "modules.builtin"].map(|name| modules.join(name)));
    Ok(files)
}

/// The archive of these entries; folders have to stand in front of what is in them.
pub(crate) fn archive(entries: &[Entry]) -> Result<Vec<u8>, InitramfsError> {
    let inputs = (1..).zip(entries).map(|(inode, entry)| {
        // The kernel makes hard links of files with one inode number.
        let head = Builder::new(&entry.name).ino(inode).mode(entry.mode).nlink(1);
        (head, Cursor::new(entry.bytes.as_slice()))
    });
    cpio::write_cpio(inputs, Vec::new()).map_err(InitramfsError::Archive)
}

/// What Linux is to do once its drivers have settled, before it says what it sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Task<'a> {
    /// Shell text; empty for nothing.
    pub script: &'a str,
    /// Programs for it, by name in the folder `/task` and by file here.
    pub files: &'a [(String, PathBuf)],
}

impl Installed {
    /// The files of a driver and of all that it needs, in the order in which they are loaded; none if
    /// it is built in.
    pub fn driver(&self, name: &'static str) -> Result<Vec<PathBuf>, InitramfsError> {
        needed(&self.modules, &self.version, &[name])
    }

    /// The initramfs. `before` is shell text that runs before the drivers load: how a test puts a
    /// fault in; usually empty. `task` is what is to be done once they have settled.
    pub fn initramfs(&self, before: &str, task: &Task<'_>) -> Result<Vec<u8>, InitramfsError> {
        self.initramfs_with(before, task, Vec::new())
    }

    /// The same, with more in it.
    pub(crate) fn initramfs_with(
        &self,
        before: &str,
        task: &Task<'_>,
        more: Vec<Entry>,
    ) -> Result<Vec<u8>, InitramfsError> {
        let mut entries = Vec::new();
        if !before.is_empty() {
            entries.push(Entry::file("before", PLAIN, before));
        }
        if !task.script.is_empty() || !task.files.is_empty() {
            entries.push(Entry::folder("task"));
        }
        if !task.script.is_empty() {
            entries.push(Entry::file("task/script", PLAIN, task.script));
        }
        for (name, path) in task.files {
            entries.push(Entry::file(&format!("task/{name}"), PROGRAM, read(path)?));
        }
        entries.extend(more);
        self.with_init(INIT, entries)
    }

    /// An initramfs with another script for the guest's only program: busybox is `/bin/busybox`, and
    /// `/lib/modules` lists the drivers in the order in which they are to be loaded.
    pub fn initramfs_for(&self, init: &str) -> Result<Vec<u8>, InitramfsError> {
        self.with_init(init, Vec::new())
    }

    fn with_init(&self, init: &str, more: Vec<Entry>) -> Result<Vec<u8>, InitramfsError> {
        let Some(path) = &self.initrd else {
            let mut entries = vec![
                Entry::folder("bin"),
                Entry::folder("lib"),
                Entry::file("bin/busybox", PROGRAM, read(&self.busybox)?),
                Entry::file("init", PROGRAM, init),
            ];
            entries.extend(more);
            entries.extend(drivers(&self.modules, &self.version, &WANTED, "lib")?);
            return archive(&entries);
        };
        // Linux unpacks one archive over the other. Ours has a folder of its own, as theirs may have /bin
        // as a link and /lib/modules as a folder; /init alone is taken from them.
        let own = |place: &str| format!("/{OWN}/{place}");
        let init = init.replace("/bin/busybox", &own("busybox"));
        let init = init.replace("/lib/modules", &own("modules"));
        let mut entries = vec![
            Entry::folder(OWN),
            Entry::file(&format!("{OWN}/busybox"), PROGRAM, read(&self.busybox)?),
            Entry::file("init", PROGRAM, init),
        ];
        entries.extend(more);
        entries.extend(drivers(&self.modules, &self.version, &WANTED, OWN)?);
        let mut bytes = read(path)?;
        // Archives begin at multiples of four; zeros between them are passed over.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(archive(&entries)?);
        Ok(bytes)
    }
}

/// Paths of the wanted modules and of all that they need, what is needed first; the name of the one
/// that is neither a module nor built in.
fn order<'t>(
    dependencies: &'t str,
    builtin: &str,
    wanted: &[&'static str],
) -> Result<Vec<&'t str>, &'static str> {
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.split(".ko").next().unwrap_or_default().replace('-', "_")
    };
    let mut order = Vec::new();
    for &name in wanted {
        let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let Some((path, needs)) = { lines }.find(|(path, _)| stem(path) == name) else {
            if builtin.lines().any(|path| stem(path) == name) {
                continue;
            }
            return Err(name);
        };
        // depmod lists all of them, also those of those, and the one to load first stands last.
        for path in needs.split_whitespace().rev().chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/nvdimm/nd_pmem.ko.xz: kernel/nvdimm/nd_btt.ko.xz kernel/nvdimm/libnvdimm.ko.xz
kernel/nvdimm/libnvdimm.ko.xz:
kernel/cxl/cxl-pmem.ko: kernel/nvdimm/libnvdimm.ko.xz
";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let order = order(DEPENDENCIES, "kernel/cxl/port.ko\n", &["cxl_pmem", "port", "nd_pmem"]);
        let want = ["libnvdimm.ko.xz", "cxl-pmem.ko", "nd_btt.ko.xz", "nd_pmem.ko.xz"];
        let order = order.expect("all of them are there");
        assert!(order.iter().map(|path| path.rsplit('/').next().unwrap_or("")).eq(want));
    }

    #[test]
    fn a_driver_that_is_not_there_is_named() {
        assert_eq!(order(DEPENDENCIES, "", &["nd_pmem", "kmem"]), Err("kmem"));
    }
}
