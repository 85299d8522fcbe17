//! What comes back: the files that a command made or changed below the places that it was to work in.
//!
//! **Invariant**: nothing is written outside those places, and nothing at all before everything has
//! come; each file takes its place as a whole.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

use super::baggage::Root;

/// The most that comes back.
pub(super) const MOST_BYTES: u64 = 1 << 30;
/// The most files.
const MOST_FILES: usize = 10_000;

/// Why files did not come back.
#[derive(Debug)]
pub enum BackError {
    /// One cannot be written.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// One is not where the command was to work.
    Elsewhere {
        /// What it calls itself.
        name: String,
    },
    /// There is more than comes back.
    TooMuch,
    /// What was sent is no archive.
    Archive(String),
}

impl fmt::Display for BackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its files did not come back: ")?;
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Elsewhere { name } => {
                write!(f, "{name:?} is in no folder that the command was to work in")
            }
            Self::TooMuch => write!(
                f,
                "expected {MOST_FILES} files and {} MiB at most, found more",
                MOST_BYTES >> 20
            ),
            Self::Archive(words) => write!(f, "what was sent is no archive: {words}"),
        }
    }
}

impl std::error::Error for BackError {}

/// A file as it was sent: its name, and permissions.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) mode: u32,
}

/// Files on their way to their places.
pub(super) struct Back<'r> {
    roots: &'r [Root],
    files: Vec<(PathBuf, NamedTempFile)>,
    bytes: u64,
}

impl<'r> Back<'r> {
    pub(super) fn new(roots: &'r [Root]) -> Self {
        Self { roots, files: Vec::new(), bytes: 0 }
    }

    /// Where a file belongs here.
    fn place(&self, name: &str) -> Option<PathBuf> {
        let inside = Path::new("/").join(name.trim_start_matches("./").trim_start_matches('/'));
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !inside.components().all(plain) {
            return None;
        }
        // Of the places that it is in, the nearest: that is as the command's words have it.
        let roots = self.roots.iter().filter(|root| inside.starts_with(&root.inside));
        let root = roots.max_by_key(|root| root.inside.components().count())?;
        let rest = inside.strip_prefix(&root.inside).ok()?;
        Some(if rest.as_os_str().is_empty() { root.here.clone() } else { root.here.join(rest) })
    }

    /// Takes a file; it waits beside its place.
    pub(super) fn take(&mut self, head: &Head, bytes: &[u8]) -> Result<(), BackError> {
        let path = self
            .place(&head.name)
            .ok_or_else(|| BackError::Elsewhere { name: head.name.clone() })?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > MOST_BYTES || self.files.len() >= MOST_FILES {
            return Err(BackError::TooMuch);
        }
        // The same file may be below two places.
        if self.files.iter().any(|(known, _)| *known == path) {
            return Ok(());
        }
        let failed = |error| BackError::File { path: path.clone(), error };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        let mode = Permissions::from_mode(head.mode & 0o777);
        file.as_file().set_permissions(mode).map_err(failed)?;
        self.files.push((path, file));
        Ok(())
    }

    /// Puts all files into their places.
    pub(super) fn keep(self) -> Result<Vec<PathBuf>, BackError> {
        let mut kept = Vec::new();
        for (path, file) in self.files {
            let failed = |error: tempfile::PersistError| BackError::File {
                path: path.clone(),
                error: error.error,
            };
            file.persist(&path).map_err(failed)?;
            kept.push(path);
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str) -> Head {
        Head { name: name.to_owned(), mode: 0o100_640 }
    }

    #[test]
    fn files_come_to_their_places_when_all_are_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().join("here");
        let roots = [
            Root { inside: "/inside".into(), here: here.clone() },
            Root { inside: "/inside/named".into(), here: folder.path().join("elsewhere") },
        ];
        let mut back = Back::new(&roots);
        for name in ["/inside/a/b", "./inside/named", "inside/a/b"] {
            back.take(&head(name), name.as_bytes()).expect("taken");
        }
        assert!(!here.join("a/b").exists());
        let kept = back.keep().expect("kept");
        assert_eq!(kept, [here.join("a/b"), folder.path().join("elsewhere")]);
        assert_eq!(fs::read(here.join("a/b")).expect("a file"), b"/inside/a/b");
        let mode = fs::metadata(here.join("a/b")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let roots = [Root { inside: "/inside".into(), here: folder.path().into() }];
        let mut back = Back::new(&roots);
        for name in ["/etc/passwd", "/inside/../etc/passwd", "../x", "/inside-out/x", "", "/"] {
            let result = back.take(&head(name), b"");
            assert!(matches!(result, Err(BackError::Elsewhere { .. })), "{name}: {result:?}");
        }
    }

    #[test]
    fn what_was_begun_and_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let roots = [Root { inside: "/inside".into(), here: folder.path().into() }];
        let mut back = Back::new(&roots);
        back.take(&head("/inside/a"), b"1").expect("taken");
        drop(back);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
