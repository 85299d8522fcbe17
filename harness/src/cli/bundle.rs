//! Files, directories and tar archives on the command line, as what is in them.
//!
//! **Invariant**: nothing is written, nothing is followed out of a directory but a link of sysfs's to an
//! object of the CXL bus, and every loop has a bound. What a file holds is taken whole, or is one error
//! that names the file. A file that nobody named is no error if it may be anything; where it looks like a
//! dump all the same, it is said to be passed over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cxl_harness::dumped;
use cxl_lint::{Images, Input};
use cxl_model::capture::{self, Ask, Capture, CaptureError, Content, Form, Found, Reading, Tree};
use cxl_model::dump::{Dump, DumpError, InputError, Kind, MAX_INPUT, Options};

/// The most files of a directory or archive, and the most bytes of all of them.
const MAX_FILES: usize = 50_000;
const MAX_BYTES: usize = 256 << 20;
/// The most folders in each other.
const MAX_DEPTH: usize = 24;
/// The most files that are said to be passed over, each with its reason.
const MAX_REASONS: usize = 8;

/// What is in some files, each with its name, and what is to be said beside it.
#[derive(Default)]
pub(super) struct Bundle {
    pub(super) captures: Vec<(PathBuf, Capture)>,
    tree: Tree,
    files: usize,
    bytes: usize,
    /// Files of a directory in which there is nothing that is known.
    strange: Vec<String>,
    /// Those that look like a dump that is broken, and may be something else, with what is wrong.
    doubtful: Vec<String>,
}

/// A file's name in words.
pub(super) fn said(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}

/// The bytes of a file, or of standard input for `-`. Where there are more than `most`, one more, so
/// that too much is seen to be too much.
pub(super) fn bytes(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let limit = most as u64 + 1;
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The bytes of a file that nobody named. Some of the kernel's wait for what comes next (`/proc/kmsg`): they
/// have none now.
fn at_once(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    file.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Bundle {
    /// Reads one more file, directory or archive.
    pub(super) fn add(&mut self, path: &Path, ask: Ask) -> Result<(), String> {
        let fail = |error: &io::Error| format!("{}: {error}", said(path));
        if path.as_os_str() == "-" && io::stdin().is_terminal() {
            return Err(
                "standard input: expected a dump, found a terminal (see cxl-harness decode \
                        --help)"
                    .to_owned(),
            );
        }
        if path.is_dir() {
            return self.folder(path, path, ask, 0);
        }
        let bytes = bytes(path, MAX_INPUT).map_err(|error| fail(&error))?;
        self.given(path, &bytes, ask)
    }

    /// A file that was named, by bytes that have been read.
    pub(super) fn given(&mut self, path: &Path, bytes: &[u8], ask: Ask) -> Result<(), String> {
        let named = path.extension().is_some_and(|extension| extension == "tar");
        if is_tar(bytes) && (named || ask.options.kind.is_none()) {
            return self.archive(path, bytes, ask);
        }
        let capture = capture::read(bytes, ask).map_err(|error| {
            let options = Options { force: true, ..ask.options };
            // Of an input that is one thing nothing is left.
            let is_part = matches!(error, CaptureError::Line { .. } | CaptureError::At { .. });
            let rest = || capture::read(bytes, Ask { options, ..ask }).is_ok();
            let advised = error.to_string().ends_with(')');
            let rest = !ask.options.force && is_part && !advised && rest();
            let advice = if rest { " (cxl-harness decode --force reads what is left)" } else { "" };
            format!("{}: {error}{advice}", said(path))
        });
        self.captures.push((path.to_owned(), capture?));
        Ok(())
    }

    fn count(&mut self, path: &Path, bytes: usize) -> Result<(), String> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.files > MAX_FILES || self.bytes > MAX_BYTES {
            return Err(format!(
                "{}: expected at most {MAX_FILES} files and {} MiB, found more",
                said(path),
                MAX_BYTES >> 20
            ));
        }
        Ok(())
    }

    /// A file that was not named itself: one without anything known is no error.
    fn found(&mut self, path: &Path, bytes: &[u8], ask: Ask) -> Result<(), String> {
        self.count(path, bytes.len())?;
        let name = path.to_string_lossy();
        if for_people(path) {
            return Ok(());
        }
        // Attributes of sysfs say that they have a page; archivers fill what they do not have with zeros.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let value = bytes.get(..end).and_then(|value| str::from_utf8(value).ok());
        let value = value.filter(|value| value.len() < 4096);
        if value.is_some_and(|value| self.tree.attribute(&name, value)) {
            return Ok(());
        }
        let configs = ask.options.kind.is_none_or(|kind| kind == Kind::Config);
        if let Some(capture) = function(path, bytes, ask).filter(|_| configs) {
            self.captures.push((path.to_owned(), capture));
            return Ok(());
        }
        // Of many files most are of another kind than the one that is asked for.
        let wanted = ask.options.kind;
        let ask = Ask { options: Options { kind: None, ..ask.options }, ..ask };
        match capture::read(bytes, ask) {
            Ok(mut capture) => {
                capture.found.retain(|found| match (wanted, &found.content) {
                    (Some(kind), Content::Dump(dump)) => dump.kind() == kind,
                    (wanted, _) => wanted.is_none(),
                });
                if wanted.is_none() || !capture.found.is_empty() {
                    self.captures.push((path.to_owned(), capture));
                }
            }
            Err(error) if !error.is_recognised() || ask.reading == Some(Reading::Base64) => {
                // Nobody said of this one that it is base64. Of an object of the bus Linux has more
                // attributes than anything here reads.
                if !Tree::has(&name) {
                    self.pass_over(&name, &error);
                }
            }
            Err(error) => return Err(format!("{name}: {error}")),
        }
        Ok(())
    }

    /// A file that was not named, and is not taken for anything.
    fn pass_over(&mut self, name: &str, error: &CaptureError) {
        match error {
            CaptureError::Dump(
                DumpError::Unrecognised { .. }
                | DumpError::Input(InputError::Empty | InputError::OtherLine { .. }),
            ) => self.strange.push(name.to_owned()),
            error => self.doubtful.push(format!("{name}: {error}")),
        }
    }

    fn folder(&mut self, top: &Path, path: &Path, ask: Ask, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let fail = |path: &Path, error: &io::Error| format!("{}: {error}", said(path));
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            // Whoever may not look into a folder of many is told so.
            Err(error) if depth > 0 => {
                self.doubtful.push(fail(path, &error));
                return Ok(());
            }
            Err(error) => return Err(fail(path, &error)),
        };
        let mut entries: Vec<_> =
            entries.take(MAX_FILES).filter_map(|entry| Some(entry.ok()?.path())).collect();
        entries.sort();
        for entry in entries {
            let Ok(kind) = entry.symlink_metadata() else { continue };
            if kind.is_symlink() {
                self.count(&entry, 0)?;
                let Ok(target) = fs::read_link(&entry) else { continue };
                let known = self.tree.link(&entry.to_string_lossy(), &target.to_string_lossy());
                // /sys/bus/cxl/devices is a folder of links to where the objects are.
                if known && path == top && entry.is_dir() && depth == 0 {
                    let Ok(real) = entry.canonicalize() else { continue };
                    self.folder(top, &real, ask, depth + 1)?;
                }
            } else if kind.is_dir() {
                self.folder(top, &entry, ask, depth + 1)?;
            } else if kind.is_file() {
                // Some attributes cannot be read, or have to be written.
                let Ok(bytes) = at_once(&entry) else { continue };
                self.found(&entry, &bytes, ask)?;
            }
        }
        Ok(())
    }

    fn archive(&mut self, path: &Path, bytes: &[u8], ask: Ask) -> Result<(), String> {
        let fail = |error: io::Error| format!("{}: {error}", said(path));
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(fail)? {
            let mut entry = entry.map_err(fail)?;
            let name = entry.path().map_err(fail)?.into_owned();
            let kind = entry.header().entry_type();
            if kind.is_symlink() {
                self.count(&name, 0)?;
                if let Ok(Some(target)) = entry.link_name() {
                    let _ = self.tree.link(&name.to_string_lossy(), &target.to_string_lossy());
                }
            } else if kind.is_file() {
                let mut bytes = Vec::new();
                let mut limited = (&mut entry).take(MAX_INPUT as u64 + 1);
                limited.read_to_end(&mut bytes).map_err(fail)?;
                self.found(&name, &bytes, ask)?;
            }
        }
        Ok(())
    }

    /// Everything, with what is to be said of it.
    pub(super) fn finish(mut self, name: &Path) -> Result<Vec<(PathBuf, Capture)>, String> {
        let witness = self.tree.witness().map_err(|error| format!("{}: {error}", said(name)))?;
        if let Some(witness) = witness {
            let content = Content::Witness(witness);
            let found = Found { lines: None, form: Form::Sysfs, content, seat: None };
            let capture = Capture { found: vec![found], remarks: vec![] };
            self.captures.push((name.join("sysfs"), capture));
        }
        if self.captures.iter().all(|(_, capture)| capture.found.is_empty()) {
            let known = format!("{}: expected dumps, found nothing that is known", said(name));
            return Err(match self.doubtful.first() {
                Some(reason) => format!("{known} ({reason})"),
                None => known,
            });
        }
        let strange = self.strange.len();
        let Some((_, capture)) = self.captures.first_mut() else { return Ok(self.captures) };
        if let Some(first) = self.strange.first() {
            let more =
                if strange == 1 { String::new() } else { format!(" and {} more", strange - 1) };
            capture.remarks.push(format!("nothing that is known in {first}{more}"));
        }
        let doubtful = self.doubtful.len();
        let reasons = self.doubtful.iter().take(MAX_REASONS);
        capture.remarks.extend(reasons.map(|reason| format!("passed over: {reason}")));
        if doubtful > MAX_REASONS {
            capture.remarks.push(format!("passed over: {} more files", doubtful - MAX_REASONS));
        }
        Ok(self.captures)
    }
}

/// Configuration space in a file of a PCI function's folder: `.../0000:0d:00.0/config`.
fn function(path: &Path, bytes: &[u8], ask: Ask) -> Option<Capture> {
    let address = path.parent()?.file_name()?.to_str()?;
    if path.file_name()? != "config" || !Dump::is_address(address) {
        return None;
    }
    let function = vec![(Some(address.to_owned()), bytes.to_vec())];
    let dump = Dump::of_functions(function, ask.options).ok()?;
    let content = Content::Dump(dump);
    let found = Found { lines: None, form: Form::Raw, content, seat: None };
    Some(Capture { found: vec![found], remarks: vec![] })
}

/// The image set that a directory is.
fn set_in(path: &Path) -> Option<PathBuf> {
    Some(path.join(dumped::SET)).filter(|set| set.is_file())
}

/// The image set that a directory, an archive or a file is; `None` where it is something else. Of a file
/// that has been read the bytes are `known`.
pub(super) fn images(path: &Path, known: Option<&[u8]>) -> Result<Option<Images>, String> {
    let fail = |error: io::Error| format!("{}: {error}", said(path));
    let mut beside = |path: &Path| bytes(path, MAX_INPUT);
    if path.is_dir() {
        let Some(set) = set_in(path) else { return Ok(None) };
        let bytes = bytes(&set, MAX_INPUT).map_err(|error| format!("{}: {error}", said(&set)))?;
        let text = String::from_utf8(bytes).map_err(|error| format!("{}: {error}", said(&set)))?;
        return Images::read(&text, &set, &mut beside).map(Some).map_err(|error| error.to_string());
    }
    let read;
    let bytes = match known {
        Some(known) => known,
        None => {
            read = bytes(path, MAX_INPUT).map_err(fail)?;
            &read
        }
    };
    if is_tar(bytes) {
        return archived(path, bytes);
    }
    let Some(text) = str::from_utf8(bytes).ok().filter(|text| Input::is_set(text)) else {
        return Ok(None);
    };
    Images::read(text, path, &mut beside).map(Some).map_err(|error| error.to_string())
}

/// The image set that is in an archive; of several, nobody said which is meant.
fn archived(path: &Path, bytes: &[u8]) -> Result<Option<Images>, String> {
    let fail = |error: io::Error| format!("{}: {error}", said(path));
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut all = 0;
    for entry in tar::Archive::new(bytes).entries().map_err(fail)?.take(MAX_FILES) {
        let mut entry = entry.map_err(fail)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(fail)?.into_owned();
        let mut content = Vec::new();
        (&mut entry).take(MAX_INPUT as u64 + 1).read_to_end(&mut content).map_err(fail)?;
        all += content.len();
        if all > MAX_BYTES {
            let most = MAX_BYTES >> 20;
            return Err(format!("{}: expected at most {most} MiB, found more", said(path)));
        }
        files.insert(name, content);
    }
    let is_set = |name: &&PathBuf| name.file_name().is_some_and(|name| name == dumped::SET);
    let mut sets = files.keys().filter(is_set);
    let Some(set) = sets.next().cloned() else { return Ok(None) };
    if let Some(other) = sets.next() {
        let more = match sets.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return Err(format!(
            "{}: expected one bundle, found {} and {}{more} (unpack it, and name the folder of one)",
            said(path),
            set.display(),
            other.display()
        ));
    }
    let text = String::from_utf8_lossy(files.get(&set).map(Vec::as_slice).unwrap_or_default());
    let mut inside = |name: &Path| {
        files.get(name).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let images = Images::read(&text, &set, &mut inside);
    images.map(Some).map_err(|error| format!("{}: {error}", said(path)))
}

/// What of a bundle is for people: it is said to be there, and taken for nothing.
fn for_people(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == dumped::SET || name == dumped::LOG)
        || path.extension().is_some_and(|extension| extension == dumped::DEVICE_REGISTERS)
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}
