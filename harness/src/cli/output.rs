//! Files that results are written to.
//!
//! **Invariant**: before any work it is known whether the file can be written, and nothing of it has
//! changed by then; it is replaced as a whole once there is a result, so whatever ends the work earlier
//! leaves an old file as it was, and no new one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use cxl_model::scenario::builtin;

/// A file that is going to be written.
#[derive(Debug)]
pub(super) struct Output {
    /// As it was given.
    named: PathBuf,
    /// Behind symbolic links.
    path: PathBuf,
    /// The same by whatever way it was named: its folder without links, and its name.
    real: PathBuf,
    kind: Kind,
}

/// The word of an option for a result beside the one on standard output.
pub(super) fn beside_the_report() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err(
            "expected a file, found standard output, which has the report; a file of that name \
                     is ./-",
        ),
        false => Ok(path),
    })
}

/// The word of an option for a folder.
pub(super) fn folder_to_write() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("expected a folder, found standard output; a folder of that name is ./-"),
        false => Ok(path),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing is there.
    New,
    /// A file is there, which the result takes the place of.
    Replaced,
    /// A device, a pipe, or a file with several names: bytes go into it.
    Into,
}

impl Output {
    /// A file that can be written; why it cannot is one line.
    pub(super) fn ready(named: &Path) -> Result<Self, String> {
        let of = |error: io::Error| super::unwritten(named, &error);
        let path = followed(named).map_err(of)?;
        let kind = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A file without a name: it is gone whatever happens.
                tempfile::tempfile_in(folder(&path)).map_err(of)?;
                Kind::New
            }
            Err(error) => return Err(of(error)),
            Ok(there) if there.is_dir() => {
                return Err(format!("{}: expected a file, found a directory", named.display()));
            }
            Ok(there) => {
                // Whoever opens a pipe waits for its reader.
                if !there.file_type().is_fifo() {
                    OpenOptions::new().write(true).open(&path).map_err(of)?;
                }
                if there.is_file() && times_named(&there) > 1 {
                    return Err(format!(
                        "{}: expected a file of its own for the result, found one that the command \
                         names for something else, too",
                        named.display()
                    ));
                }
                if there.is_file() && is_standard(&there) {
                    return Err(format!(
                        "{}: expected a file of its own for the result, found the one that standard \
                         input, output or error is",
                        named.display()
                    ));
                }
                if there.is_file()
                    && let Some(folder) = folder_named(named, &path)
                {
                    return Err(format!(
                        "{}: expected a file that the command does not read, found one in {}, which it \
                         names for something else",
                        named.display(),
                        folder.display()
                    ));
                }
                match there.is_file() && there.nlink() == 1 {
                    true => Kind::Replaced,
                    false => Kind::Into,
                }
            }
        };
        let real = real(&path).map_err(of)?;
        Ok(Self { named: named.to_owned(), path, real, kind })
    }

    /// The files that can be written, each named once.
    pub(super) fn all<const N: usize>(
        named: [Option<&Path>; N],
    ) -> Result<[Option<Self>; N], String> {
        let mut ready = [const { None }; N];
        for (slot, path) in ready.iter_mut().zip(named) {
            *slot = path.map(Self::ready).transpose()?;
        }
        let mut files: Vec<&Self> =
            ready.iter().flatten().filter(|file| !file.real.starts_with("/dev")).collect();
        files.sort_by_key(|file| &file.real);
        match files.windows(2).find(|pair| matches!(pair, [one, other] if one.real == other.real)) {
            Some([one, other]) => Err(format!(
                "{} and {}: expected a file for each output, found one for two",
                one.named(),
                other.named()
            )),
            _ => Ok(ready),
        }
    }

    /// Whether it is a place that something else is written to, or a file in it.
    pub(super) fn is_in(&self, place: &Path) -> bool {
        let place =
            followed(place).and_then(|path| fs::canonicalize(&path).or_else(|_| real(&path)));
        place.is_ok_and(|place| self.real.starts_with(place))
    }

    /// As it was given.
    pub(super) fn named(&self) -> impl std::fmt::Display + '_ {
        self.named.display()
    }

    /// Writes the result.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), String> {
        self.put(bytes).map_err(|error| super::unwritten(&self.named, &error))
    }

    fn put(&self, bytes: &[u8]) -> io::Result<()> {
        // What a new file may be is what the user's mask says.
        let mode = match self.kind {
            Kind::New => Permissions::from_mode(0o666),
            Kind::Replaced => fs::metadata(&self.path)?.permissions(),
            Kind::Into => return self.pour(bytes),
        };
        let beside = tempfile::Builder::new()
            .prefix(".cxl-harness-")
            .permissions(mode.clone())
            .tempfile_in(folder(&self.path));
        let mut beside = match beside {
            Ok(beside) => beside,
            // The file can be written, and its folder cannot.
            Err(_) if self.kind == Kind::Replaced => return self.pour(bytes),
            Err(error) => return Err(error),
        };
        beside.write_all(bytes)?;
        if self.kind == Kind::Replaced {
            beside.as_file().set_permissions(mode)?;
        }
        beside.persist(&self.path).map(drop).map_err(|error| error.error)
    }

    fn pour(&self, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).truncate(true).open(&self.path)?.write_all(bytes)
    }
}

/// That no output lies in a folder that memory is kept in: it would take the place of some.
pub(super) fn apart<'o>(
    mut outputs: impl Iterator<Item = &'o Output>,
    media: Option<&Path>,
) -> Result<(), String> {
    let Some(media) = media else { return Ok(()) };
    match outputs.find(|output| output.is_in(media)) {
        Some(output) => Err(format!(
            "{}: expected a file outside of {}, in which memory is kept",
            output.named(),
            media.display()
        )),
        None => Ok(()),
    }
}

/// The words of the command's line, each with the paths that it may be.
fn words() -> impl Iterator<Item = Vec<PathBuf>> {
    // The command comes first, and what a built-in scenario is called is that scenario.
    let words = std::env::args_os().skip(2).map(OsString::into_vec);
    let words = words.filter(|word| str::from_utf8(word).ok().and_then(builtin).is_none());
    words.map(|word| {
        // `--html=FILE` names one, too.
        let value = word.splitn(2, |&byte| byte == b'=').nth(1).filter(|_| word.starts_with(b"-"));
        // And so does `-oFILE`.
        let glued = word.get(2..).filter(|_| word.starts_with(b"-") && !word.starts_with(b"--"));
        let paths = [Some(word.as_slice()), value, glued].into_iter().flatten();
        paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
    })
}

/// Whether a file is what a shell has redirected one of the standard streams to, or from.
fn is_standard(file: &Metadata) -> bool {
    (0..3).any(|stream| {
        let open = fs::metadata(format!("/proc/self/fd/{stream}"));
        open.is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    })
}

/// How often the command's line names this file, by whatever path.
fn times_named(file: &Metadata) -> usize {
    let is_it = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
    };
    words().filter(|paths| paths.iter().any(is_it)).count()
}

/// The folder on the command's line that a file lies in, by its own name or behind links: a folder that is
/// named is read, all of it. The root of a system is no such folder: a few of its files are looked for.
fn folder_named(named: &Path, path: &Path) -> Option<PathBuf> {
    let files: Vec<PathBuf> =
        [named, path].into_iter().filter_map(|path| real(path).ok()).collect();
    let mut root = false;
    words().flatten().find(|word| {
        let given = word.as_os_str().as_bytes();
        let of_root =
            std::mem::replace(&mut root, given == b"--root" || given.starts_with(b"--root="));
        let Ok(is) = fs::canonicalize(word) else { return false };
        let inside = || files.iter().any(|file| file.starts_with(&is));
        !of_root && is.is_dir() && is != Path::new("/") && inside()
    })
}

/// A file, whether it is there or not: its folder without links, and its name.
fn real(file: &Path) -> io::Result<PathBuf> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    Ok(fs::canonicalize(folder(file))?.join(name))
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Symbolic links that may lead from one to the next, as Linux has it.
const MOST_LINKS: usize = 40;

/// The path behind symbolic links, whether anything is there or not.
fn followed(named: &Path) -> io::Result<PathBuf> {
    let mut path = named.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = folder(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}
