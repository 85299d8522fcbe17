//! `cxl-harness collect`: the machine that this runs on, as one bundle.
//!
//! **Invariant**: exit code 0 or 1 comes with a bundle, 2 with one line of error and none; what is there
//! already is not written over.

use cxl_model::words::counted;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use cxl_harness::collect::Found;
use cxl_harness::collect::live::Linux;
use cxl_harness::html::{self, Page};
use cxl_harness::inspect::{Inspection, Subject};

use super::output::{self, Output};

const EXAMPLES: &str = "\
Run as root on any Linux with CXL. It reads, and writes nothing: no register, no setting; no driver is
bound or unbound. Taken are
  tables         of ACPI: CEDT, HMAT, MCFG and SRAT
  configuration  space of CXL's functions and of the ports above them
  registers      of components (the CXL.cache/mem range): host bridges, switches and devices, through
                 resource files and /dev/mem; device registers, but not the mailbox
  Linux's view   the CXL bus in sysfs, /proc/iomem, and of the kernel's log what names CXL, ACPI and DAX

Registers that a driver has claimed are withheld by most kernels (CONFIG_IO_STRICT_DEVMEM). They are named,
with the remedy (iomem=relaxed on the kernel's command line); what sysfs shows stands in for them then.

The bundle is one image set: decode, lint, explain and inspect take it on any other machine, as a folder or
as the archive that it is.

Files:
  machine.toml       which file is what, and what was withheld, and why
  cedt.dat, ...      ACPI tables
  NAME.bin           the CXL.cache/mem range of a bridge, switch or device
  NAME.device        device registers, a dword a line
  lspci.txt          configuration space, as lspci -xxxx prints it
  sysfs.txt, iomem.txt, log.txt  what Linux shows

Static, so that it runs on any x86-64 Linux, this program is built by
  RUSTFLAGS='-C target-feature=+crt-static' \\
    cargo build --release --target x86_64-unknown-linux-gnu

Exit code:
  0  collected, and nothing was withheld
  1  collected, and some of it was withheld: standard error has each, and so has machine.toml
  2  nothing was collected: this machine has no CXL, this is not root, or bad usage or file

Examples:
  cxl-harness collect
  cxl-harness collect machine --anonymous
  cxl-harness collect machine.tar --html machine.html
  ssh root@board cxl-harness collect - >board.tar
  cxl-harness inspect board.tar";

/// Collect what this machine has of CXL into one bundle, which everything here reads elsewhere.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Collect {
    /// A new or empty directory, a new file that ends in .tar, or `-` (an archive on standard output).
    #[arg(value_name = "DIR|FILE.tar", default_value = "cxl-machine.tar")]
    to: PathBuf,

    /// Replace serial numbers, wherever they are, by numbers that count devices.
    #[arg(long)]
    anonymous: bool,

    /// Write what was collected into this file as well, as a page for a browser: what `cxl-harness inspect`
    /// says of it, all in one file, which asks for nothing from any network.
    #[arg(long, value_name = "FILE", value_parser = output::beside_the_report())]
    html: Option<PathBuf>,

    /// The root directory of the Linux, if it is another one (files of a machine, for tests).
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
}

impl Collect {
    pub(super) fn run(self) -> ExitCode {
        // Nothing is collected for a place that cannot take it.
        if let Err(reason) = is_new(&self.to) {
            return super::fail(&reason);
        }
        let page = match self.html.as_deref().map(Output::ready).transpose() {
            Ok(page) => page,
            Err(reason) => return super::fail(&reason),
        };
        if let Some(page) =
            page.as_ref().filter(|page| self.to != Path::new("-") && page.is_in(&self.to))
        {
            return super::fail(&format!(
                "{}: expected a file of its own for the page, found one of {}, which takes the machine",
                page.named(),
                self.to.display()
            ));
        }
        let mut found = match Linux::below(&self.root).collect() {
            Ok(found) => found,
            Err(error) => return super::fail(&error.to_string()),
        };
        let files = match bundled(&mut found, self.anonymous) {
            Ok(files) => files,
            Err(reason) => return super::fail(&reason),
        };
        // Of what is in the bundle: anonymous, where that is.
        let told = match page.as_ref().map(|_| told(&found, &self.to)).transpose() {
            Ok(told) => told,
            Err(reason) => return super::fail(&reason),
        };
        if let Err(reason) = save(&self.to, &files) {
            return super::fail(&reason);
        }
        for withheld in &found.withheld {
            super::note(&format!("{}: withheld: {}", withheld.what, withheld.why));
        }
        let code = super::exit(found.withheld.is_empty());
        let told = page.as_ref().zip(told.as_ref());
        let words = match self.to.as_os_str() == "-" {
            true => String::new(),
            false => format!("{}: {}\n", self.to.display(), counted(files.len(), "file")),
        };
        super::print_with(&words, told, code)
    }
}

/// The page of what was collected.
fn told(found: &Found, to: &Path) -> Result<Page, String> {
    let subject = found.images().map(Subject::from).map_err(|error| error.to_string())?;
    let reached = subject.whole.reached();
    let inspection = Inspection::of(subject);
    let title = match to.as_os_str() == "-" {
        true => "A collected machine".to_owned(),
        false => format!("Collected into {}", to.display()),
    };
    let ended = (inspection.is_good(), None);
    Ok(html::of_inspection(&title, &inspection, reached, ended, &super::command_line()))
}

/// The files of a bundle; anonymous ones have no serial number in them, or there are none.
pub(super) fn bundled(
    found: &mut Found,
    anonymous: bool,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let serials = found.serials();
    if anonymous {
        found.anonymise();
    }
    let files = found.files();
    match Found::leaks(&files, &serials).filter(|_| anonymous) {
        Some(file) => Err(format!(
            "{file} would have a serial number in it all the same; nothing was written"
        )),
        None => Ok(files),
    }
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// Whether a bundle can be written to a place without writing over anything.
pub(super) fn is_new(path: &Path) -> Result<(), String> {
    let named = path.display();
    if path.as_os_str() == "-" {
        return Ok(());
    }
    if is_archive(path) {
        return match path.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!("{named}: expected a new file, found one that is there")),
            Err(error) => Err(format!("{named}: {error}")),
        };
    }
    match fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(format!("{named}: expected a new or empty directory, found files")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{named}: {error}")),
    }
}

/// Whether a name is that of a file right there, and not a way to another place.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next().filter(|part| part.as_os_str() == name);
    matches!(first, Some(Component::Normal(_))) && parts.next().is_none()
}

/// Writes a bundle, and nothing beside it.
pub(super) fn save(path: &Path, files: &[(String, Vec<u8>)]) -> Result<(), String> {
    if let Some((name, _)) = files.iter().find(|(name, _)| !is_name(name)) {
        return Err(format!(
            "{name:?}: expected the name of a file in the bundle, found a way out"
        ));
    }
    let named = if path.as_os_str() == "-" { Path::new("standard output") } else { path };
    let fail = |error: io::Error| format!("{}: {error}", named.display());
    if path.as_os_str() == "-" {
        let archive = archive(files).map_err(fail)?;
        let mut out = io::stdout().lock();
        return out.write_all(&archive).and_then(|()| out.flush()).map_err(fail);
    }
    if is_archive(path) {
        let archive = archive(files).map_err(fail)?;
        let mut file = File::create_new(path).map_err(fail)?;
        return file.write_all(&archive).and_then(|()| file.sync_all()).map_err(fail);
    }
    let is_there = path.is_dir();
    fs::create_dir_all(path).map_err(fail)?;
    for (index, (name, bytes)) in files.iter().enumerate() {
        let file = path.join(name);
        let Err(error) = fs::write(&file, bytes) else { continue };
        // A part of a bundle is none, and would be in the way of the next one.
        for (name, _) in files.iter().take(index + 1) {
            let _ = fs::remove_file(path.join(name));
        }
        if !is_there {
            let _ = fs::remove_dir(path);
        }
        return Err(format!("{}: {error}", file.display()));
    }
    Ok(())
}

/// The files in a folder of an archive, with no owner and no time of their own.
fn archive(files: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, Path::new("machine").join(name), bytes.as_slice())?;
    }
    archive.into_inner()
}
