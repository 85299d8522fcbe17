//! The Linux that this program runs on, through what it offers to root: sysfs, `/proc`, `/dev`.
//!
//! **Invariant**: files are opened to be read alone. Which functions are looked at is decided by ACPI's
//! CXL host bridges and by class codes; configuration space of anything else is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use cxl_regs::config::{CONFIG_SIZE, CONVENTIONAL_SIZE};

use super::pages::Pages;
pub use super::root::Linux;
use super::root::{MAX_FILE, address, read};
use super::{
    Access, Found, Function, MAX_ROOTS, MEMORY_DEVICE, Place, Root, class, has, is_cxl, log, sysfs,
};
use crate::dumped::LOG;
use cxl_regs::dvsec::DvsecId;

/// The tables that are taken: those of fixed form that say where memory is and what it is like. Others may
/// hold what is nobody's business, as licence keys.
const TABLES: [&str; 4] = ["CEDT", "HMAT", "MCFG", "SRAT"];
/// What Linux gives of configuration space to those who are not root.
const WITHOUT_ROOT: usize = 64;
/// The remedy where a driver has claimed registers.
const RELAXED: &str = "boot with iomem=relaxed on the kernel's command line, or collect before the driver \
                       is loaded";

/// Why nothing was collected.
#[derive(Debug)]
pub enum LiveError {
    /// There is no sysfs: this is no Linux, or it is not mounted.
    NoSysfs(PathBuf),
    /// Only root is given what has to be read.
    NotRoot {
        /// What was not given.
        what: String,
    },
    /// There is nothing of CXL.
    NoCxl,
    /// A file that is there cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl fmt::Display for LiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSysfs(path) => {
                write!(f, "{}: expected sysfs of a running Linux, found nothing", path.display())
            }
            Self::NotRoot { what } => {
                write!(f, "{what}: not given to this user; run as root (with CAP_SYS_ADMIN)")
            }
            Self::NoCxl => f.write_str(
                "this machine has no CXL: no CEDT among the ACPI tables, no host bridge ACPI0016, no PCI \
                 function of class 0x050210, nothing on the bus cxl; nothing was collected",
            ),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for LiveError {}

impl Linux {
    /// Looks at everything, and reads what can be read.
    pub fn collect(&self) -> Result<Found, LiveError> {
        if !self.path("sys").join("bus").is_dir() {
            return Err(LiveError::NoSysfs(self.path("sys")));
        }
        let mut found =
            Found { kernel: self.word("proc/sys/kernel/osrelease"), ..Found::default() };
        self.tables(&mut found)?;
        self.bridges(&mut found);
        self.functions(&mut found)?;
        let bus = sysfs::read(self);
        if found.is_empty() && bus.is_empty() {
            return Err(LiveError::NoCxl);
        }
        sysfs::memory_devices(self, &mut found.functions);
        if !bus.is_empty() {
            found.texts.insert("sysfs.txt", bus);
        }
        let iomem = self.text("proc/iomem").unwrap_or_default();
        let iomem = if hidden(&iomem) { String::new() } else { iomem };
        match iomem.is_empty() {
            true => {
                found.withhold("/proc/iomem".to_owned(), "without root it has no addresses".into())
            }
            false => {
                found.texts.insert("iomem.txt", iomem.clone());
            }
        }
        match log::read(&self.path("dev/kmsg")) {
            Ok(lines) => {
                found.texts.insert(LOG, lines);
            }
            Err(error) => {
                let why = format!("/dev/kmsg: {error}; `dmesg` as root has it");
                found.withhold("the kernel's log".to_owned(), why);
            }
        }
        if !found.tables.contains_key("CEDT") {
            let why = "this machine has no such ACPI table: its firmware describes no CXL windows";
            found.withhold("CEDT".to_owned(), why.to_owned());
        }
        let mut access = Direct { linux: self, iomem, files: BTreeMap::new() };
        found.registers(&mut access);
        let kernel = found.kernel.as_deref().unwrap_or("of unknown version");
        found.subject = format!("a machine with Linux {kernel}");
        Ok(found)
    }

    fn tables(&self, found: &mut Found) -> Result<(), LiveError> {
        for name in TABLES {
            let path = self.path("sys/firmware/acpi/tables").join(name);
            match read(&path, MAX_FILE) {
                Ok(bytes) => {
                    found.tables.insert(name.to_owned(), bytes);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(LiveError::NotRoot { what: path.display().to_string() });
                }
                Err(error) => return Err(LiveError::File { path, error }),
            }
        }
        Ok(())
    }

    /// The host bridges that ACPI calls CXL's.
    fn bridges(&self, found: &mut Found) {
        const DEVICES: &str = "sys/bus/acpi/devices";
        let names = self.names(DEVICES);
        for name in names.iter().filter(|name| name.starts_with("ACPI0016:")).take(MAX_ROOTS) {
            let uid = self.word(&format!("{DEVICES}/{name}/uid"));
            let node = fs::read_link(self.path(&format!("{DEVICES}/{name}/physical_node"))).ok();
            let address = node.and_then(|node| Some(node.file_name()?.to_str()?.to_owned()));
            found.roots.push(Root {
                address: address.filter(|address| address.starts_with("pci")),
                uid: uid.and_then(|uid| uid.parse().ok()),
                ..Root::default()
            });
        }
        found.roots.sort_by(|one, other| (&one.address, one.uid).cmp(&(&other.address, other.uid)));
    }

    /// The functions that have to do with CXL, with everything above them.
    fn functions(&self, found: &mut Found) -> Result<(), LiveError> {
        const DEVICES: &str = "sys/bus/pci/devices";
        // Where each is: the root bus, and the functions on the way.
        let mut ways: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        let mut configs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for name in self.names(DEVICES) {
            if address(&name).is_none() {
                continue;
            }
            let path = format!("{DEVICES}/{name}");
            let Some((root, way)) = self.way(&path) else { continue };
            let cxl_root = found.roots.iter().any(|it| it.address.as_deref() == Some(&root));
            let kind = self.word(&format!("{path}/class"));
            let kind = kind.and_then(|kind| u32::from_str_radix(kind.strip_prefix("0x")?, 16).ok());
            let memory = kind == Some(MEMORY_DEVICE);
            ways.insert(name.clone(), (root, way));
            if !cxl_root && !memory {
                continue;
            }
            let config = self.config(&name)?;
            if config.iter().all(|byte| *byte == 0xFF) {
                let why = "reads as all-ones: the function does not answer".to_owned();
                found.withhold(format!("configuration space of {name}"), why);
                continue;
            }
            let short = config.len() <= usize::from(CONVENTIONAL_SIZE);
            if memory && short {
                let why =
                    "Linux gives 256 bytes of it, as it has no ECAM (MCFG) for that bus; CXL's \
                           capabilities lie behind them"
                        .to_owned();
                found.withhold(format!("configuration space of {name}"), why);
            }
            if is_cxl(&config) || has(&config, DvsecId::Device) || memory {
                wanted.insert(name.clone());
            }
            configs.insert(name, config);
        }
        let above: Vec<String> = wanted
            .iter()
            .filter_map(|name| ways.get(name))
            .flat_map(|(_, way)| way.clone())
            .collect();
        wanted.extend(above);
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        // Those above come first: their way is shorter.
        let depth = |name: &String| ways.get(name).map_or(0, |(_, way)| way.len());
        wanted.sort_by_key(|name| (depth(name), address(name)));
        for name in wanted {
            let (Some((root, way)), Some(at)) = (ways.get(&name), address(&name)) else { continue };
            let config = match configs.remove(&name) {
                Some(config) => config,
                None => self.config(&name)?,
            };
            let known = found.roots.iter().position(|it| it.address.as_deref() == Some(root));
            let root = known.unwrap_or_else(|| {
                let root = Root { address: Some(root.clone()), ..Root::default() };
                found.roots.push(root);
                found.roots.len() - 1
            });
            let above = way.last().and_then(|above| address(above));
            let above = above.and_then(|at| found.functions.iter().position(|it| it.at == at));
            let mut function = Function::new(at, root, above, config);
            function.bars = self.bars(&name);
            let state = self.word(&format!("{DEVICES}/{name}/power_state"));
            function.asleep = state.filter(|state| state.starts_with("D3")).map(|state| {
                format!("it is in the power state {state}, where its registers do not answer")
            });
            found.functions.push(function);
        }
        // Of a space that ends before CXL's capabilities nobody can say whether it has them.
        let lost = found.functions.iter().filter(|it| {
            class(&it.config) == MEMORY_DEVICE && it.config.len() > usize::from(CONVENTIONAL_SIZE)
        });
        let lost: Vec<_> =
            lost.filter(|it| !has(&it.config, DvsecId::Device)).map(|it| it.at).collect();
        for at in lost {
            let why = "it has no CXL Device DVSEC: its link is not CXL's".to_owned();
            found.withhold(format!("registers of {at}"), why);
        }
        Ok(())
    }

    /// The root bus above a function, and the functions on the way.
    fn way(&self, path: &str) -> Option<(String, Vec<String>)> {
        let path = fs::canonicalize(self.path(path)).ok()?;
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let (_, above) = parts.split_last()?;
        let root = above.iter().rposition(|part| part.starts_with("pci") && part.contains(':'))?;
        let way = above.get(root + 1..)?.iter().filter(|part| address(part).is_some());
        Some(((*above.get(root)?).to_owned(), way.map(|part| (*part).to_owned()).collect()))
    }

    fn config(&self, name: &str) -> Result<Vec<u8>, LiveError> {
        let path = self.path(&format!("sys/bus/pci/devices/{name}/config"));
        let bytes = read(&path, CONFIG_SIZE.into());
        let bytes = bytes.map_err(|error| LiveError::File { path, error })?;
        if bytes.len() == WITHOUT_ROOT {
            return Err(LiveError::NotRoot { what: format!("configuration space of {name}") });
        }
        Ok(bytes)
    }

    /// First address and bytes of each BAR that has an address.
    fn bars(&self, name: &str) -> BTreeMap<u8, (u64, Option<u64>)> {
        let text = self.text(&format!("sys/bus/pci/devices/{name}/resource")).unwrap_or_default();
        let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let bars = (0..6u8).zip(text.lines()).filter_map(|(bar, line)| {
            let mut words = line.split_ascii_whitespace();
            let (start, end) = (hex(words.next()?)?, hex(words.next()?)?);
            let size = end.checked_sub(start)?.checked_add(1)?;
            (start != 0).then_some((bar, (start, Some(size))))
        });
        bars.collect()
    }
}

/// Whether all addresses of `/proc/iomem` are hidden.
fn hidden(iomem: &str) -> bool {
    let hidden = |line: &str| {
        let range = line.split(" : ").next().unwrap_or_default();
        range.trim().bytes().all(|byte| matches!(byte, b'0' | b'-'))
    };
    iomem.lines().all(hidden)
}

/// Registers of this machine.
struct Direct<'l> {
    linux: &'l Linux,
    iomem: String,
    /// Files by name: open, or why not.
    files: BTreeMap<String, Result<Pages, String>>,
}

impl Direct<'_> {
    fn file(&mut self, name: &str, at: u64, physical: u64) -> Result<u32, String> {
        let linux = self.linux;
        let pages = self.files.entry(name.to_owned()).or_insert_with(|| {
            Pages::open(&linux.path(name)).map_err(|error| match error.kind() {
                ErrorKind::NotFound => format!("there is no /{name}"),
                _ => format!("/{name} does not open: {error}"),
            })
        });
        let pages = pages.as_mut().map_err(|why| why.clone())?;
        pages.dword(at).map_err(|error| {
            let refused = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL | libc::EACCES));
            let claimed = claimed(&self.iomem, physical);
            match claimed.filter(|_| refused) {
                Some(driver) => format!(
                    "the kernel does not give it, as \"{driver}\" has claimed it (IO_STRICT_DEVMEM): \
                     {RELAXED}"
                ),
                None if refused => format!("the kernel does not give it ({error})"),
                None => format!("/{name} at {at:#x}: {error}"),
            }
        })
    }

    /// Why nothing at all is given, if that is so.
    fn locked_down(&self) -> Option<String> {
        let modes = self.linux.word("sys/kernel/security/lockdown")?;
        let mode = modes.split('[').nth(1)?.split(']').next()?;
        (mode != "none").then(|| {
            format!(
                "the kernel is locked down ({mode}), as it is with Secure Boot: boot without that, or \
                 collect from a kernel that is not"
            )
        })
    }
}

impl Access for Direct<'_> {
    fn dword(&mut self, place: &Place, offset: u64) -> Result<u32, String> {
        let physical =
            place.address.checked_add(offset).ok_or("it passes the end of all addresses")?;
        let mut first = None;
        if let Some((at, bar, start)) = place.bar {
            let name = format!("sys/bus/pci/devices/{at}/resource{bar}");
            match self.file(&name, start.saturating_add(offset), physical) {
                Ok(value) => return Ok(value),
                Err(why) => first = Some(why),
            }
        }
        self.file("dev/mem", physical, physical)
            .map_err(|why| self.locked_down().or(first).unwrap_or(why))
    }
}

/// Who has claimed the page of an address, by `/proc/iomem`: the innermost range that is not a bus's or a
/// whole BAR's alone.
fn claimed(iomem: &str, address: u64) -> Option<String> {
    let page = address & !0xFFF;
    let mut innermost = None;
    for line in iomem.lines() {
        let body = line.trim_start();
        let depth = line.len() - body.len();
        let Some((range, name)) = body.split_once(" : ") else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let (Some(start), Some(end)) = (hex(start), hex(end)) else { continue };
        if start <= page + 0xFFF
            && page <= end
            && innermost.as_ref().is_none_or(|(d, _)| depth >= *d)
        {
            innermost = Some((depth, name.to_owned()));
        }
    }
    innermost.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_innermost_has_claimed_a_page() {
        let iomem = "fe800000-fe9fffff : PCI Bus 0000:0d\n  fe800000-fe83ffff : 0000:0d:00.0\n    \
                     fe801128-fe8011b7 : endpoint2\n  fe840000-fe840fff : 0000:0d:00.0\n";
        assert_eq!(claimed(iomem, 0xFE80_1000).as_deref(), Some("endpoint2"));
        assert_eq!(claimed(iomem, 0xFE80_2000).as_deref(), Some("0000:0d:00.0"));
        assert_eq!(claimed(iomem, 0x1000), None);
        assert!(
            hidden("00000000-00000000 : Reserved\n  00000000-00000000 : x\n") && !hidden(iomem)
        );
    }
}
