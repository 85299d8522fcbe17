//! What goes in: files and folders, each at the place inside that it has here.
//!
//! **Invariant**: a file goes in once, its folders before it, and all of them together within a
//! bound; what is neither file, folder nor link is an error that names it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::linux::initramfs::Entry;

/// Why something cannot be taken along.
#[derive(Debug)]
pub enum BaggageError {
    /// It cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A device, a socket or a pipe.
    Special(PathBuf),
    /// The archive's format has no such name.
    Name(PathBuf),
    /// There is more of it than memory has room for.
    TooMuch {
        /// Where it was too much.
        path: PathBuf,
        /// What there is room for, in bytes.
        most: u64,
    },
}

impl fmt::Display for BaggageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Special(path) => write!(
                f,
                "{}: expected a file, a folder or a link to take along, found a device, a socket or \
                 a pipe",
                path.display()
            ),
            Self::Name(path) => write!(
                f,
                "{}: expected a name in UTF-8 without a line break, found another",
                path.display()
            ),
            Self::TooMuch { path, most } => write!(
                f,
                "{}: more than {} MiB would go in, which is a quarter of the memory inside; name \
                 less, or give it more with --memory MIB",
                path.display(),
                most >> 20
            ),
        }
    }
}

impl std::error::Error for BaggageError {}

/// A place whose files come back: inside, and here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Its path inside, without `.`, `..` and links.
    pub inside: PathBuf,
    /// Its path here.
    pub here: PathBuf,
}

/// Everything that goes in.
#[derive(Debug)]
pub(super) struct Baggage {
    directory: PathBuf,
    entries: Vec<Entry>,
    known: BTreeSet<PathBuf>,
    bytes: u64,
    most: u64,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:o}, {} bytes", self.name, self.mode, self.bytes.len())
    }
}

/// Folders of the machine inside, which nothing from here covers.
const ITS_OWN: [&str; 4] = ["/dev", "/proc", "/sys", "/nested"];

const LINK: u32 = 0o120_777;
/// What an entry costs beside its bytes.
const HEAD: u64 = 512;

impl Baggage {
    /// Nothing but the folder that we are in; at most so many bytes may come.
    pub(super) fn new(most: u64) -> Result<Self, BaggageError> {
        let here = Path::new(".").to_owned();
        let directory =
            std::env::current_dir().map_err(|error| BaggageError::File { path: here, error })?;
        let mut baggage = Self {
            directory: directory.clone(),
            entries: Vec::new(),
            known: BTreeSet::new(),
            bytes: 0,
            most,
        };
        baggage.folders(&directory)?;
        Ok(baggage)
    }

    /// The folder that we are in, and that the command is to be in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The entries, folders first.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Where a path leads inside, where there are no links.
    fn inside(&self, path: &Path) -> PathBuf {
        let mut inside = PathBuf::from("/");
        for part in self.directory.join(path).components() {
            match part {
                Component::ParentDir => {
                    inside.pop();
                }
                Component::Normal(name) => inside.push(name),
                _ => {}
            }
        }
        inside
    }

    /// Takes along what arguments name: a file or a folder, by itself or behind `=`. What does not
    /// exist yet and has a folder may be made there. The places of all these, and of the folder that
    /// we are in.
    pub(super) fn named(&mut self, arguments: &[OsString]) -> Result<Vec<Root>, BaggageError> {
        let directory = self.directory.clone();
        let mut roots = vec![Root { inside: directory.clone(), here: directory }];
        for argument in arguments {
            let bytes = argument.as_bytes();
            let behind = bytes.iter().position(|byte| *byte == b'=').map(|at| &bytes[at + 1..]);
            let option = bytes.starts_with(b"-");
            let names = [(!option).then_some(bytes), behind.filter(|_| option)];
            for name in names.into_iter().flatten().filter(|name| !name.is_empty()) {
                let path = PathBuf::from(OsString::from_vec(name.to_vec()));
                let inside = self.inside(&path);
                if ITS_OWN.iter().any(|own| inside.starts_with(own)) {
                    continue;
                }
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                if path.exists() {
                    roots.push(self.add(&path)?);
                } else if parent.is_some_and(Path::is_dir) {
                    self.folders(inside.parent().unwrap_or(Path::new("/")))?;
                    roots.push(Root { inside, here: path });
                }
            }
        }
        Ok(roots)
    }

    /// Takes a file along, or a folder with everything in it.
    pub(super) fn add(&mut self, path: &Path) -> Result<Root, BaggageError> {
        let inside = self.inside(path);
        if let Some(parent) = inside.parent() {
            self.folders(parent)?;
        }
        // What is named is what it leads to.
        let found = fs::metadata(path).map_err(|error| file(path, error))?;
        self.put(path, &inside, &found)?;
        Ok(Root { inside, here: path.to_owned() })
    }

    fn put(&mut self, here: &Path, inside: &Path, found: &Metadata) -> Result<(), BaggageError> {
        if found.is_dir() {
            self.folders(inside)?;
            let mut names = Vec::new();
            for entry in fs::read_dir(here).map_err(|error| file(here, error))? {
                names.push(entry.map_err(|error| file(here, error))?.file_name());
            }
            names.sort();
            for name in names {
                let next = here.join(&name);
                let found = fs::symlink_metadata(&next).map_err(|error| file(&next, error))?;
                self.put(&next, &inside.join(&name), &found)?;
            }
            return Ok(());
        }
        if !self.known.insert(inside.to_owned()) {
            return Ok(());
        }
        let (mode, bytes) = if found.is_symlink() {
            let target = fs::read_link(here).map_err(|error| file(here, error))?;
            (LINK, target.into_os_string().into_vec())
        } else if found.is_file() {
            self.reserve(here, found.len())?;
            let bytes = fs::read(here).map_err(|error| file(here, error))?;
            (0o100_000 | found.permissions().mode() & 0o777, bytes)
        } else {
            return Err(BaggageError::Special(here.to_owned()));
        };
        self.reserve(here, HEAD)?;
        self.entries.push(Entry { name: name(inside)?, mode, bytes });
        Ok(())
    }

    fn reserve(&mut self, path: &Path, bytes: u64) -> Result<(), BaggageError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.most {
            return Err(BaggageError::TooMuch { path: path.to_owned(), most: self.most });
        }
        Ok(())
    }

    /// A folder and those that it is in.
    fn folders(&mut self, inside: &Path) -> Result<(), BaggageError> {
        let mut missing: Vec<_> = inside.ancestors().collect();
        missing.reverse();
        for folder in missing.into_iter().skip(1) {
            if self.known.insert(folder.to_owned()) {
                self.reserve(folder, HEAD)?;
                self.entries.push(Entry::folder(&name(folder)?));
            }
        }
        Ok(())
    }
}

fn file(path: &Path, error: io::Error) -> BaggageError {
    BaggageError::File { path: path.to_owned(), error }
}

/// A path as archives have it.
fn name(inside: &Path) -> Result<String, BaggageError> {
    let text = inside.to_str().filter(|text| !text.contains('\n'));
    let text = text.ok_or_else(|| BaggageError::Name(inside.to_owned()))?;
    Ok(text.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(baggage: &Baggage) -> Vec<&str> {
        baggage.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn files_go_in_once_behind_their_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("a folder");
        fs::write(at("a/one"), "1").expect("a file");
        fs::write(at("two"), "22").expect("a file");
        std::os::unix::fs::symlink("one", at("a/link")).expect("a link");
        let mut baggage = Baggage::new(1 << 20).expect("where we are");
        let option = |name: &str| OsString::from(format!("--media={}", at(name).display()));
        let words = [option("a"), at("a/../two").into(), at("new").into(), "--direct".into()];
        let roots = baggage.named(&words).expect("they are there");
        let again = baggage.add(&at("a/one")).expect("it is there");
        let root = folder.path().to_str().expect("text").trim_start_matches('/');
        let found: Vec<_> =
            names(&baggage).into_iter().filter(|name| name.starts_with(root)).collect();
        let want = ["", "/a", "/a/link", "/a/one", "/two"].map(|name| format!("{root}{name}"));
        assert_eq!(found, want);
        let inside: Vec<_> = roots.iter().skip(1).map(|root| root.inside.clone()).collect();
        assert_eq!(inside, [at("a"), at("two"), at("new")]);
        assert_eq!(again.inside, at("a/one"));
        let link = baggage.entries.iter().find(|entry| entry.name.ends_with("link"));
        assert_eq!(
            link.map(|entry| (entry.mode, entry.bytes.as_slice())),
            Some((LINK, &b"one"[..]))
        );
    }

    #[test]
    fn what_is_too_much_or_no_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = folder.path().join("large");
        fs::File::create(&large).and_then(|file| file.set_len(2 << 20)).expect("a file");
        let mut baggage = Baggage::new(1 << 20).expect("where we are");
        assert!(matches!(
            baggage.add(folder.path()),
            Err(BaggageError::TooMuch { path, most: 0x10_0000 }) if path == large
        ));
        let mut baggage = Baggage::new(1 << 20).expect("where we are");
        assert!(matches!(baggage.add(Path::new("/dev/null")), Err(BaggageError::Special(_))));
        assert!(matches!(baggage.add(&folder.path().join("no")), Err(BaggageError::File { .. })));
        // Devices of the machine inside are not taken from here.
        assert_eq!(baggage.named(&["/dev/null".into()]).map(|roots| roots.len()).ok(), Some(1));
    }
}
