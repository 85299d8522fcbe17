//! The initramfs: busybox, the drivers in the order of their dependencies, and the script.
//!
//! **Invariant**: a module stands behind everything that `modules.dep` says it needs, and once.

use std::fmt;
use std::fs;
use std::io::{self, Cursor};
use std::path::PathBuf;

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

impl Installed {
    /// The initramfs. `before` is shell text that runs before the drivers load: how a test puts a
    /// fault in; usually empty.
    pub fn initramfs(&self, before: &str) -> Result<Vec<u8>, InitramfsError> {
        let read =
            |path: PathBuf| fs::read(&path).map_err(|error| InitramfsError::File { path, error });
        let text = |name: &str| {
            read(self.modules.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let (dependencies, builtin) = (text("modules.dep")?, text("modules.builtin")?);
        let order = order(&dependencies, &builtin, &WANTED)
            .map_err(|name| InitramfsError::NoDriver { name, version: self.version.clone() })?;

        let mut files = vec![
            ("bin".to_owned(), 0o040_755, Vec::new()),
            ("lib".to_owned(), 0o040_755, Vec::new()),
            ("bin/busybox".to_owned(), 0o100_755, read(self.busybox.clone())?),
            ("init".to_owned(), 0o100_755, INIT.as_bytes().to_vec()),
        ];
        if !before.is_empty() {
            files.push(("before".to_owned(), 0o100_644, before.as_bytes().to_vec()));
        }
        let mut list = String::new();
        for path in order {
            let name = format!("lib/{}", path.rsplit('/').next().unwrap_or_default());
            list += &format!("/{name}\n");
            files.push((name, 0o100_644, read(self.modules.join(path))?));
        }
        files.push(("modules".to_owned(), 0o100_644, list.into_bytes()));

        let inputs = (1..).zip(&files).map(|(inode, (name, mode, bytes))| {
            // The kernel makes hard links of files with one inode number.
            let entry = Builder::new(name).ino(inode).mode(*mode).nlink(1);
            (entry, Cursor::new(bytes.as_slice()))
        });
        cpio::write_cpio(inputs, Vec::new()).map_err(InitramfsError::Archive)
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
