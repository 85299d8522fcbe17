//! Persistent media in files: a directory that one machine at a time keeps its persistent memory in.
//!
//! ```text
//! NAME.media             a device's persistent memory, in the order of DPA
//! NAME@DPA.set           a set that is laid out, in the order of host addresses; named after its
//!                        first member
//! *.media.new, *.set.new being created; worth nothing
//! lock                   held by the machine that uses the directory; "CXL-LOCK " and the name of the
//!                        file that is being created, or nothing
//! ```
//!
//! A file has a header in its first 4 KiB, and bytes from 2 MiB on; both kinds are as sparse as what
//! they hold. Numbers are little-endian. A device's file, format 1:
//!
//! ```text
//! 0x000000   8  "CXLMEDIA"
//! 0x000008   4  format, 1
//! 0x00000C   4  0
//! 0x000010   8  checksum: FNV-1a of these 0x68 bytes, itself taken as 0
//! 0x000018   8  bytes of the persistent partition
//! 0x000020   8  the device's serial number
//! 0x000028  64  the device's name, zeroes behind it
//! 0x100000  64 KiB of labels, all zeroes where nobody has written any
//! 0x110000   1  the shutdown state that was set: 0 clean, 1 dirty
//! 0x200000      the persistent partition
//! ```
//!
//! Volatile memory is in no file and comes first in the device's own addresses, so DPA `d` of a device
//! with `v` bytes of it is at `0x200000 + d - v`: DPA 0 at 0x200000 if all of the device is persistent.
//! A set's file, format 1; the byte at its base is at 0x200000, the rest follows in the order of host
//! addresses:
//!
//! ```text
//! 0x000000   8  "CXL-SET" and a zero
//! 0x000008   4  format, 1
//! 0x00000C   4  IW and IG as decoders have them, the number of members, 0
//! 0x000010   8  checksum: FNV-1a of the header, itself and the state taken as 0
//! 0x000018   8  state
//! 0x000020   8  base
//! 0x000028   8  bytes of the range, all members together
//! 0x000030  32  four maps that pick a member, the lowest bit's first
//! 0x000050      16 members of 72 bytes: name (64), and where in its persistent partition the share is
//! 0x200000      the bytes
//! ```
//!
//! A set's header says what state it is in, in eight bytes that are written at once:
//!
//! 1. `gather..`: the members' files hold the bytes, the set's file is a copy in the making. Whoever
//!    finds it deletes it.
//! 2. `in order`: the set's file holds the bytes, what the members' files have there is worth nothing.
//!    Whoever finds it copies all of it to the members' files, says `gather..`, and then deletes it.
//! 3. The set's file is gone: the members' files hold the bytes.
//!
//! Room on the disk is reserved before a guest may store without being asked: for all of a set when it is
//! put in order, for a device's own range when it is mapped; in a file system that lies in memory there
//! has to be room then, as reserved memory would be taken. What is reserved and was not used is given
//! back with it.
//!
//! Files of others stay as they are: of those that end in `.new` only one is deleted that the lock
//! names, or that starts with a header that is whole. A set is judged by itself, beside the others and
//! against the machine before a byte of any is moved.
//!
//! Each step can be repeated from its beginning, and a guest stores nothing during a move, so that
//! the death of the process at any moment, in a move or not, loses no store that had finished: pages
//! of a shared mapping belong to the kernel.
//!
//! The loss of power is another matter. Every move is written to the disk before the state says so,
//! so it does not make a mixture of what the disk had; but when stores of the guest reach the disk is
//! up to the host, and the latest may be lost.
//!
//! **Invariant**: of a byte that two files have, exactly one is the truth at any moment, and the
//! headers alone say which.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cxl_regs::{DECODER_UNIT, Granularity, Hpa, Interleave, Selector, Ways};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::backing::Backing;
use crate::kept::Kept;
use crate::set::Layout;

const MEDIA_MAGIC: [u8; 8] = *b"CXLMEDIA";
const SET_MAGIC: [u8; 8] = *b"CXL-SET\0";
/// What the lock starts with once it has named anything.
const LOCK_MAGIC: &[u8] = b"CXL-LOCK ";
/// The longest name of a file (NAME_MAX).
const MOST_FILE_NAME: usize = 255;
const VERSION: u32 = 1;
/// Where the bytes start: huge pages of a file system that has them line up.
const BYTES_AT: u64 = 2 << 20;
/// Where a device's labels are.
const LABELS_AT: u64 = 1 << 20;
/// Bytes of labels of a device with persistent memory.
pub(crate) const LABEL_STORAGE: usize = 64 * 1024;
/// Where a device's shutdown state is: files from before it was kept have 0 there, which is clean.
const SHUTDOWN_STATE_AT: u64 = LABELS_AT + LABEL_STORAGE as u64;
/// The longest name of a device.
const NAME: usize = 64;
const MOST_MEMBERS: usize = 16;

/// What a set's file is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A copy in the making: nothing.
    Gathering,
    /// It holds the set's bytes.
    InOrder,
}

impl State {
    const ALL: [Self; 2] = [Self::Gathering, Self::InOrder];

    const fn code(self) -> [u8; 8] {
        match self {
            Self::Gathering => *b"gather..",
            Self::InOrder => *b"in order",
        }
    }
}

/// The header of a device's file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct MediaHeader {
    magic: [u8; 8],
    version: U32,
    reserved: U32,
    check: U64,
    size: U64,
    serial: U64,
    name: [u8; NAME],
}

/// The header of a set's file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct SetHeader {
    magic: [u8; 8],
    version: U32,
    ways: u8,
    granularity: u8,
    members: u8,
    reserved: u8,
    /// Of everything but itself and the state.
    check: U64,
    state: [u8; 8],
    base: U64,
    size: U64,
    maps: [U64; Selector::MAX_MAPS],
    member: [MemberHeader; MOST_MEMBERS],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct MemberHeader {
    name: [u8; NAME],
    /// Counted from the start of the persistent partition.
    at: U64,
}

const STATE_AT: u64 = std::mem::offset_of!(SetHeader, state) as u64;

/// What a set's file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SetRecord {
    /// How it is laid out.
    pub layout: Layout,
    /// The members by position: a device, and where in its persistent memory the share starts.
    pub members: Vec<(String, u64)>,
}

/// Why a directory cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// The host refused something.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The directory cannot be created: what it is to lie in is not there.
    NoParent {
        /// The directory.
        path: PathBuf,
        /// The part that is missing.
        parent: PathBuf,
    },
    /// Another machine uses it now.
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The file is of another kind, or of nobody's.
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should start with.
        expected: &'static str,
        /// What it starts with.
        found: Vec<u8>,
    },
    /// The file has a format that this program does not know.
    Version {
        /// The file.
        path: PathBuf,
        /// The format.
        found: u32,
    },
    /// The file is shorter or longer than it says.
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes by its header, or needed for one.
        expected: u64,
        /// Bytes.
        found: u64,
    },
    /// The header is not what was written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What about it.
        what: &'static str,
    },
    /// The file was made for another device.
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// What of the device.
        what: &'static str,
        /// The device's.
        expected: String,
        /// The file's.
        found: String,
    },
    /// A member of a set is no device of this machine, or has not so much persistent memory.
    NoSuchMember {
        /// The set's file.
        path: PathBuf,
        /// The device.
        member: String,
        /// Where its share ends.
        end: u64,
        /// Bytes that it has; `None`: there is no such device.
        have: Option<u64>,
    },
    /// A file that is to be created, or locked, is something else than a file.
    NoFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// What is to be created has a name that somebody else's file has.
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The disk has no room.
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are free.
        have: u64,
    },
    /// Two sets have the same bytes of a device.
    Overlap {
        /// One set's file.
        path: PathBuf,
        /// The other's.
        other: PathBuf,
        /// The device.
        member: String,
    },
    /// The name does not fit a header.
    LongName {
        /// The device.
        device: String,
    },
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NoParent { path, parent } => write!(
                f,
                "{}: there is no {} to create it in; create that first, or correct the name",
                path.display(),
                parent.display()
            ),
            Self::Busy { path } => {
                write!(f, "{}: another machine uses this directory now", path.display())
            }
            Self::Foreign { path, expected, found } => write!(
                f,
                "{}: expected a file that starts with \"{expected}\", found \"{}\"; it is not of \
                 this program: move it away",
                path.display(),
                found.escape_ascii()
            ),
            Self::Version { path, found } => {
                write!(f, "{}: format {found}; this program knows format {VERSION}", path.display())
            }
            Self::Length { path, expected, found } => {
                write!(f, "{}: expected {expected} bytes, found {found}", path.display())
            }
            Self::Damaged { path, what } => {
                write!(f, "{}: the header is damaged: {what}", path.display())
            }
            Self::OtherDevice { path, what, expected, found } => write!(
                f,
                "{}: it belongs to another device: expected {what} {expected}, found {found}",
                path.display()
            ),
            Self::NoSuchMember { path, member, end, have: Some(have) } => write!(
                f,
                "{}: it has the bytes of {member} up to {end:#x}; the device has {have:#x} of \
                 persistent memory",
                path.display()
            ),
            Self::NoSuchMember { path, member, have: None, .. } => write!(
                f,
                "{}: it has bytes of {member}, a device that this machine does not have; start \
                 the machine that has it, to bring them back",
                path.display()
            ),
            Self::Overlap { path, other, member } => write!(
                f,
                "{}: it has bytes of {member} that {} has too",
                path.display(),
                other.display()
            ),
            Self::NoFile { path, found } => write!(
                f,
                "{}: expected a file, found {found}; move it away, or name another directory",
                path.display()
            ),
            Self::InTheWay { path } => write!(
                f,
                "{}: a file of this name is to be created, and this one is not of this program: \
                 move it away",
                path.display()
            ),
            Self::NoRoom { path, need, have } => write!(
                f,
                "{}: its bytes have to be brought back to the devices' files, which takes {need} \
                 bytes of disk, and {have} are free; it stays as it is until there are",
                path.display()
            ),
            Self::LongName { device } => {
                write!(f, "{device}: a device's name has to fit {NAME} bytes to have a file")
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Troubles that are kept.
pub const MOST_TROUBLES: usize = 16;

/// A directory of media.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Keeps others out for as long as it is open.
    lock: File,
    /// What went wrong with files and lost nothing, in words.
    troubles: Mutex<Kept<String, MOST_TROUBLES>>,
    /// Changes that may still be made; for tests that stop the machine between any two of them.
    left: AtomicU64,
}

/// A set's file that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) file: SetFile,
    pub(crate) record: SetRecord,
}

/// Where a device's file has its labels and its shutdown state.
#[derive(Debug)]
pub(crate) struct LabelFile(File);

impl LabelFile {
    /// All of them.
    pub(crate) fn read(&self, labels: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(labels, LABELS_AT)
    }

    /// Puts some of them at an offset; what a machine that dies has written is there.
    pub(crate) fn write(&self, offset: usize, labels: &[u8]) -> io::Result<()> {
        self.0.write_all_at(labels, LABELS_AT + offset as u64)
    }

    /// The shutdown state.
    pub(crate) fn shutdown_state(&self) -> io::Result<u8> {
        let mut state = [0];
        self.0.read_exact_at(&mut state, SHUTDOWN_STATE_AT)?;
        Ok(state[0])
    }

    /// Puts another one there.
    pub(crate) fn set_shutdown_state(&self, state: u8) -> io::Result<()> {
        self.0.write_all_at(&[state], SHUTDOWN_STATE_AT)
    }
}

impl Found {
    /// The set's bytes.
    pub(crate) fn memory(&self) -> io::Result<Backing> {
        Backing::of_file(self.file.file.try_clone()?, BYTES_AT, self.record.layout.size())
    }
}

/// A set's file that is open.
#[derive(Clone, Debug)]
pub(crate) struct SetFile {
    pub(crate) path: PathBuf,
    file: Arc<File>,
}

impl Store {
    /// The directory for this machine alone. It is created if need be, but nothing above it: a name
    /// that is mistyped further up would otherwise be an empty memory, and no word about it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Io { path, error }
        };
        match fs::create_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(match directory.parent().filter(|parent| !parent.exists()) {
                    Some(parent) => StoreError::NoParent {
                        path: directory.to_owned(),
                        parent: parent.to_owned(),
                    },
                    None => at(directory)(error),
                });
            }
            Err(error) => return Err(at(directory)(error)),
        }
        let path = directory.join("lock");
        // Neither a pipe nor a device nor what a link leads to, and none of them is waited for.
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let lock = match options.open(&path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(StoreError::NoFile { path, found: "a link" });
            }
            lock => lock.map_err(at(&path))?,
        };
        regular(&path, &lock)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StoreError::Busy { path: directory.to_owned() });
            }
            Err(fs::TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        let left = AtomicU64::new(u64::MAX);
        let troubles = Mutex::default();
        let store = Self { directory: directory.to_owned(), lock, troubles, left };
        store.sweep().map(|()| store)
    }

    /// Deletes what this program had begun to create when it ended.
    fn sweep(&self) -> Result<(), StoreError> {
        let begun = self.begun()?;
        for path in self.files()? {
            let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
            let named = begun.as_deref() == Some(name);
            if name.ends_with(b".media.new") | name.ends_with(b".set.new") && is_ours(&path, named)
            {
                fs::remove_file(&path).map_err(|error| StoreError::Io { path, error })?;
            }
        }
        Ok(())
    }

    /// Everything in the directory, in order of name.
    fn files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let io = |error| StoreError::Io { path: self.directory.clone(), error };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(io)? {
            paths.push(entry.map_err(io)?.path());
        }
        paths.sort_unstable();
        Ok(paths)
    }

    /// What went wrong with files and lost nothing.
    pub fn troubles(&self) -> Kept<String, MOST_TROUBLES> {
        // A list is whole whoever panicked over it.
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn trouble(&self, words: String) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }

    /// The name of a file that this program had begun to create when it ended, as the lock has it.
    fn begun(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.directory.join("lock");
        let mut bytes = vec![0; LOCK_MAGIC.len() + MOST_FILE_NAME + 1];
        let have = read_at_most(&self.lock, &mut bytes);
        let have = have.map_err(|error| StoreError::Io { path: path.clone(), error })?;
        bytes.truncate(have);
        match bytes.strip_prefix(LOCK_MAGIC) {
            Some(name) => Ok((!name.is_empty()).then(|| name.to_vec())),
            None if bytes.is_empty() => Ok(None),
            None => {
                bytes.truncate(LOCK_MAGIC.len());
                Err(StoreError::Foreign { path, expected: "CXL-LOCK ", found: bytes })
            }
        }
    }

    /// Notes in the lock that a file is begun, or that none is.
    fn begin(&self, path: Option<&Path>) -> io::Result<()> {
        let name = path.and_then(Path::file_name).map(OsStrExt::as_bytes).unwrap_or_default();
        let text = [LOCK_MAGIC, name].concat();
        self.step()?;
        // Cut first: a name that is cut short is no file's.
        self.lock.set_len(0)?;
        self.lock.write_all_at(&text, 0)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes every change after so many fail, as if the process had died there. For tests.
    pub fn stop_after(&self, changes: u64) {
        self.left.store(changes, Ordering::Relaxed);
    }

    /// Changes that may still be made; [`u64::MAX`] less those that were.
    pub fn changes_left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// To be called before each change of a file.
    pub(crate) fn step(&self) -> io::Result<()> {
        let take = |left: u64| left.checked_sub(1);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(|_| ()).map_err(|_| io::Error::other("stopped"))
    }

    /// A device's persistent memory, and its labels; a new file is all zeroes.
    pub(crate) fn device(
        &self,
        name: &str,
        serial: u64,
        size: u64,
    ) -> Result<(Backing, LabelFile), StoreError> {
        let long = || StoreError::LongName { device: name.to_owned() };
        let mut header = MediaHeader {
            magic: MEDIA_MAGIC,
            version: U32::new(VERSION),
            reserved: U32::ZERO,
            check: U64::ZERO,
            size: U64::new(size),
            serial: U64::new(serial),
            name: padded(name).ok_or_else(long)?,
        };
        header.check = U64::new(check(header.as_bytes()));
        let path = self.directory.join(format!("{}.media", file_name(name)));
        let io = |error| StoreError::Io { path: path.clone(), error };
        match fs::symlink_metadata(&path) {
            Ok(_) if !path.try_exists().map_err(io)? => {
                return Err(StoreError::NoFile { path, found: "a link that leads nowhere" });
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.create(&path, header.as_bytes(), size).map_err(|error| {
                    match error.kind() {
                        ErrorKind::AlreadyExists => StoreError::InTheWay { path: new(&path) },
                        _ => io(error),
                    }
                })?;
                self.sync_directory().map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        let file = open(&path)?;
        let found: MediaHeader = read_header(&path, &file, MEDIA_MAGIC, "CXLMEDIA")?;
        version(&path, found.version)?;
        if found.check.get() != check(MediaHeader { check: U64::ZERO, ..found }.as_bytes()) {
            return Err(StoreError::Damaged { path, what: "its checksum does not fit" });
        }
        length(&path, &file, found.size.get())?;
        let other = |what, expected: String, found| {
            Err(StoreError::OtherDevice { path: path.clone(), what, expected, found })
        };
        if found.name != header.name {
            return other("name", name.to_owned(), text(&found.name));
        }
        if found.serial != header.serial {
            return other("serial number", format!("{serial:#x}"), format!("{:#x}", found.serial));
        }
        if found.size != header.size {
            return other("size", format!("{size:#x}"), format!("{:#x}", found.size));
        }
        let labels = LabelFile(file.try_clone().map_err(io)?);
        Ok((Backing::of_file(file, BYTES_AT, size).map_err(io)?, labels))
    }

    /// A file with a header and `size` bytes of zeroes, whole or not there at all, power or not.
    fn create(&self, path: &Path, header: &[u8], size: u64) -> io::Result<File> {
        let new = new(path);
        // What somebody else has there is neither overwritten nor taken for ours afterwards.
        if fs::symlink_metadata(&new).is_ok() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.begin(Some(&new))?;
        self.step()?;
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&new)?;
        let made = self.fill(&file, &new, path, header, size);
        if made.is_err() && self.step().is_ok() {
            // If it stays, the next start deletes it.
            let _ = fs::remove_file(&new);
        }
        made?;
        // A name that stays in the lock names nothing any more.
        let _ = self.begin(None);
        Ok(file)
    }

    fn fill(
        &self,
        file: &File,
        new: &Path,
        path: &Path,
        header: &[u8],
        size: u64,
    ) -> io::Result<()> {
        self.step()?;
        file.write_all_at(header, 0)?;
        self.step()?;
        file.set_len(BYTES_AT.checked_add(size).ok_or(ErrorKind::FileTooLarge)?)?;
        // Else the name may reach the disk before the header does.
        file.sync_all()?;
        self.step()?;
        fs::rename(new, path)
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Deletes copies that were never finished and returns every set that holds bytes, in order of
    /// name.
    pub(crate) fn recover(&self) -> Result<Vec<Found>, StoreError> {
        let io = |path: &Path, error| StoreError::Io { path: path.to_owned(), error };
        let is_set = |path: &PathBuf| path.as_os_str().as_bytes().ends_with(b".set");
        let (mut found, mut worthless) = (Vec::new(), Vec::new());
        for path in self.files()?.into_iter().filter(is_set) {
            let file = open(&path)?;
            match read_set(&path, &file)? {
                (State::Gathering, _) => worthless.push(path),
                (State::InOrder, record) => {
                    let file = SetFile { path, file: Arc::new(file) };
                    found.push(Found { file, record });
                }
            }
        }
        for (index, one) in found.iter().enumerate() {
            for other in found.iter().skip(index + 1) {
                if let Some(member) = one.record.overlap(&other.record) {
                    let (path, other) = (other.file.path.clone(), one.file.path.clone());
                    return Err(StoreError::Overlap { path, other, member });
                }
            }
        }
        for path in worthless {
            self.step().map_err(|error| io(&path, error))?;
            fs::remove_file(&path).map_err(|error| io(&path, error))?;
        }
        Ok(found)
    }

    /// A file for a set, in state [`State::Gathering`].
    pub(crate) fn create_set(&self, record: &SetRecord) -> io::Result<(SetFile, Backing)> {
        let header = record.header(State::Gathering).ok_or(ErrorKind::InvalidFilename)?;
        let path = self.directory.join(record.file_name().ok_or(ErrorKind::InvalidInput)?);
        let file = self.create(&path, header.as_bytes(), record.layout.size())?;
        let copy = file.try_clone();
        let set = SetFile { path, file: Arc::new(file) };
        let memory = copy.and_then(|file| Backing::of_file(file, BYTES_AT, record.layout.size()));
        match memory {
            Ok(memory) => Ok((set, memory)),
            Err(error) => {
                // It is a copy in the making: if it stays, the next start deletes it.
                let _ = self.remove(&set);
                Err(error)
            }
        }
    }

    /// From now on the set's file holds the set's bytes.
    pub(crate) fn put_in_order(&self, set: &SetFile, memory: &Backing) -> io::Result<()> {
        memory.sync()?;
        self.sync_directory()?;
        self.step()?;
        self.say(set, State::InOrder)
    }

    /// Writes a state; after an error the file says what it said before, or nothing is known of it.
    fn say(&self, set: &SetFile, state: State) -> io::Result<()> {
        set.file.write_all_at(&state.code(), STATE_AT)?;
        set.file.sync_data()
    }

    /// What a set's file says now, as the next machine would read it.
    pub(crate) fn state(&self, set: &SetFile) -> Option<State> {
        let mut code = [0; 8];
        set.file.read_exact_at(&mut code, STATE_AT).ok()?;
        State::ALL.into_iter().find(|state| state.code() == code)
    }

    /// From now on the members' files, which have been written to the disk, hold the set's bytes. If
    /// that is an error the set's file still does. That a file which is worth nothing cannot be deleted
    /// is none, and said.
    pub(crate) fn remove(&self, set: &SetFile) -> io::Result<()> {
        self.step()?;
        if let Err(error) = self.say(set, State::Gathering) {
            // It may say so for whoever reads it now, and not on the disk.
            if self.state(set) == Some(State::InOrder) || self.say(set, State::InOrder).is_ok() {
                return Err(error);
            }
            // Whatever it says, the members have the same bytes; that is all the truth there is.
            self.left(set, &error);
            return Ok(());
        }
        let deleted = self.step().and_then(|()| fs::remove_file(&set.path));
        if let Err(error) = deleted.and_then(|()| self.sync_directory()) {
            self.left(set, &error);
        }
        Ok(())
    }

    /// A set's file that should be gone.
    fn left(&self, set: &SetFile, error: &io::Error) {
        self.trouble(format!(
            "{}: it could not be deleted: {error}. What it holds is worth nothing any more: the \
             devices' files have all of it, and the next start deletes it",
            set.path.display()
        ));
    }
}

impl SetRecord {
    fn header(&self, state: State) -> Option<SetHeader> {
        let Self { layout, members } = self;
        let Interleave { ways, granularity } = layout.interleave();
        let mut member = [MemberHeader { name: [0; NAME], at: U64::ZERO }; MOST_MEMBERS];
        for (to, (name, at)) in member.iter_mut().zip(members) {
            *to = MemberHeader { name: padded(name)?, at: U64::new(*at) };
        }
        let mut header = SetHeader {
            magic: SET_MAGIC,
            version: U32::new(VERSION),
            ways: ways.encode(),
            granularity: granularity.encode(),
            members: members.len().try_into().ok().filter(|&n: &u8| n <= MOST_MEMBERS as u8)?,
            reserved: 0,
            check: U64::ZERO,
            state: state.code(),
            base: U64::new(layout.base().0),
            size: U64::new(layout.size()),
            maps: layout.maps().map(U64::new),
            member,
        };
        header.check = U64::new(header.sum());
        Some(header)
    }

    /// The name of its file.
    fn file_name(&self) -> Option<String> {
        let (name, at) = self.members.first()?;
        Some(format!("{}@{at:#x}.set", file_name(name)))
    }

    /// Why it cannot be a set that this program made.
    fn judge(&self) -> Result<(), &'static str> {
        for (index, (name, at)) in self.members.iter().enumerate() {
            if self.members.iter().skip(index + 1).any(|(other, _)| other == name) {
                return Err("it has one device twice");
            }
            if name.is_empty() {
                return Err("a member of it has no name");
            }
            if !at.is_multiple_of(DECODER_UNIT) || at.checked_add(self.layout.share()).is_none() {
                return Err("a share of it is at no place that a decoder can lead to");
            }
        }
        Ok(())
    }

    /// A device of which both have the same bytes.
    fn overlap(&self, other: &Self) -> Option<String> {
        let (mine, theirs) = (self.layout.share(), other.layout.share());
        let overlaps = |(name, at): &&(String, u64)| {
            other.members.iter().any(|(other, from)| {
                other == name
                    && *at < from.saturating_add(theirs)
                    && *from < at.saturating_add(mine)
            })
        };
        self.members.iter().find(overlaps).map(|(name, _)| name.clone())
    }
}

impl SetHeader {
    fn sum(&self) -> u64 {
        check(Self { check: U64::ZERO, state: [0; 8], ..*self }.as_bytes())
    }
}

/// The name of a file while it is being created.
fn new(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Opens what is to be a file, and waits for nobody.
fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| StoreError::Io { path: path.to_owned(), error })?;
    regular(path, &file).map(|()| file)
}

/// Refuses what is no plain file.
fn regular(path: &Path, file: &File) -> Result<(), StoreError> {
    let facts = file.metadata();
    let facts = facts.map_err(|error| StoreError::Io { path: path.to_owned(), error })?;
    if facts.is_file() {
        return Ok(());
    }
    let kind = facts.file_type();
    let found = match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    };
    Err(StoreError::NoFile { path: path.to_owned(), found })
}

/// Whether a file that was never finished starts with a header of ours that is whole; or, if the lock
/// names it, with a part of one.
fn is_ours(path: &Path, named: bool) -> bool {
    // A link leads to what others have.
    let plain = fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file());
    let Some(file) = File::open(path).ok().filter(|_| plain) else { return false };
    let mut start = [0; 8];
    let have = read_at_most(&file, &mut start).ok();
    let start = have.and_then(|have| start.get(..have));
    let begins = |magic: [u8; 8]| start.is_some_and(|start| magic.starts_with(start));
    if named && (begins(MEDIA_MAGIC) || begins(SET_MAGIC)) {
        return true;
    }
    let media = read_header::<MediaHeader>(path, &file, MEDIA_MAGIC, "").is_ok_and(|found| {
        found.check.get() == check(MediaHeader { check: U64::ZERO, ..found }.as_bytes())
    });
    media
        || read_header::<SetHeader>(path, &file, SET_MAGIC, "")
            .is_ok_and(|found| found.check.get() == found.sum())
}

/// Reads from the start of a file until it ends or the room does; how much there was.
fn read_at_most(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

fn read_header<T: FromBytes>(
    path: &Path,
    file: &File,
    magic: [u8; 8],
    expected: &'static str,
) -> Result<T, StoreError> {
    let mut bytes = vec![0; size_of::<T>()];
    let have = read_at_most(file, &mut bytes);
    let have = have.map_err(|error| StoreError::Io { path: path.to_owned(), error })?;
    let start = bytes.get(..have.min(magic.len())).unwrap_or_default();
    if start != magic {
        return Err(StoreError::Foreign { path: path.to_owned(), expected, found: start.to_vec() });
    }
    match T::read_from_bytes(&bytes) {
        Ok(header) if have == bytes.len() => Ok(header),
        _ => Err(StoreError::Length {
            path: path.to_owned(),
            expected: BYTES_AT,
            found: have as u64,
        }),
    }
}

fn version(path: &Path, found: U32) -> Result<(), StoreError> {
    match found.get() {
        VERSION => Ok(()),
        found => Err(StoreError::Version { path: path.to_owned(), found }),
    }
}

fn length(path: &Path, file: &File, size: u64) -> Result<(), StoreError> {
    let path = path.to_owned();
    let found = match file.metadata() {
        Ok(facts) => facts.len(),
        Err(error) => return Err(StoreError::Io { path, error }),
    };
    let expected = BYTES_AT.saturating_add(size);
    if found == expected { Ok(()) } else { Err(StoreError::Length { path, expected, found }) }
}

fn read_set(path: &Path, file: &File) -> Result<(State, SetRecord), StoreError> {
    let header: SetHeader = read_header(path, file, SET_MAGIC, "CXL-SET\\x00")?;
    version(path, header.version)?;
    let damaged = |what| StoreError::Damaged { path: path.to_owned(), what };
    if header.check.get() != header.sum() {
        return Err(damaged("its checksum does not fit"));
    }
    let mut states = State::ALL.into_iter();
    let state = states.find(|state| state.code() == header.state);
    let state = state.ok_or_else(|| damaged("it is in no state that there is"))?;
    let ways = Ways::decode(header.ways).map_err(|_| damaged("its ways are reserved"))?;
    let granularity = Granularity::decode(header.granularity);
    let granularity = granularity.map_err(|_| damaged("its granularity is reserved"))?;
    let interleave = Interleave::new(ways, granularity);
    let maps = header.maps.map(U64::get);
    let selector =
        Selector::xor(interleave, &maps).map_err(|_| damaged("its maps pick no member"))?;
    let layout = Layout::new(Hpa(header.base.get()), header.size.get(), selector)
        .ok_or_else(|| damaged("its members cannot share it"))?;
    let members: Vec<_> = header.member.iter().take(header.members.into()).collect();
    if members.len() != ways.count() as usize {
        return Err(damaged("it has more or fewer members than ways"));
    }
    length(path, file, layout.size())?;
    let members = members.into_iter().map(|member| (text(&member.name), member.at.get())).collect();
    let record = SetRecord { layout, members };
    record.judge().map_err(damaged)?;
    let name = record.file_name();
    if path.file_name() != name.as_ref().map(|name| name.as_ref()) {
        return Err(damaged("it is of a set whose file has another name"));
    }
    Ok((state, record))
}

/// A name with zeroes behind it.
fn padded(name: &str) -> Option<[u8; NAME]> {
    let mut bytes = [0; NAME];
    bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(bytes)
}

fn text(name: &[u8; NAME]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
}

/// A component's name as part of a file's: what could lead elsewhere or hide it is spelt out.
pub fn file_name(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let spelt = |byte: u8| {
        if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }
    };
    name.bytes().map(spelt).collect()
}

/// FNV-1a, 64 bits: enough to notice a header that was cut or overwritten.
fn check(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3)
    })
}
