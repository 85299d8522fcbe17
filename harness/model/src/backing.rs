//! Host memory that stands in for a device's media: sparse, zero until written, and of a kind that
//! a virtual machine can map. Anonymous memory, or a file.
//!
//! **Invariant**: the host address of a backing never changes while anybody holds it, and pages
//! that nobody touched cost nothing, so a device may be 1 TiB: neither to have, nor to find out that
//! nobody touched them.

mod guard;
mod touched;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// The unit in which the host knows what was touched.
pub const HOST_PAGE: u64 = 4096;

pub use guard::lost_pages;

/// Memory, shared by whoever holds it.
///
/// Fields go in the order in which they stand: a mapping is guarded for no longer than it is there.
#[derive(Clone, Debug)]
pub struct Backing {
    /// Of memory that a file lies behind.
    guard: Option<Arc<guard::Guard>>,
    region: Option<Arc<MmapRegion>>,
    /// Somebody has written to it, or was given it to write to; a file may hold something anyway.
    touched: Arc<AtomicBool>,
}

impl Backing {
    /// Anonymous memory of `size` bytes, all zero. Where the host refuses even to reserve the
    /// addresses, the backing has no bytes and every access to it misses.
    ///
    /// Huge pages are asked for. Since Linux 6.7 a mapping of whole huge pages starts at one, as do
    /// windows and decoders, so a guest gets them too; before, it may have to do with small ones.
    pub fn new(size: u64) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let region = usize::try_from(size)
            .ok()
            .filter(|&size| size != 0)
            .and_then(|size| MmapRegion::build(None, size, protection, flags).ok());
        if let Some(region) = &region {
            advise_huge(region);
        }
        Self { guard: None, region: region.map(Arc::new), touched: Arc::default() }
    }

    /// Memory that a slot has.
    pub fn of_region(region: &Arc<MmapRegion>) -> Self {
        let touched = Arc::new(AtomicBool::new(true));
        Self { guard: None, region: Some(Arc::clone(region)), touched }
    }

    /// `size` bytes of a file from `start` on, shared with it: what is stored is in the file as soon
    /// as the store has finished, whatever becomes of this process.
    pub fn of_file(file: File, start: u64, size: u64) -> io::Result<Self> {
        if size == 0 {
            return Ok(Self { guard: None, region: None, touched: Arc::default() });
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let offset = FileOffset::new(file, start);
        let region = MmapRegion::build(Some(offset), length, protection, flags);
        let region = Arc::new(region.map_err(io::Error::other)?);
        let guard = Some(Arc::new(guard::Guard::of(&region)));
        Ok(Self { guard, region: Some(region), touched: Arc::new(AtomicBool::new(true)) })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.size() as u64)
    }

    /// The memory itself, for a virtual machine to map.
    pub fn region(&self) -> Option<&Arc<MmapRegion>> {
        self.touched.store(true, Ordering::Relaxed);
        self.region.as_ref()
    }

    /// The file behind it, and where in the file it starts.
    fn file(&self) -> Option<(&File, u64)> {
        let offset = self.region.as_ref()?.file_offset()?;
        Some((offset.file(), offset.start()))
    }

    /// Whether a file lies behind it.
    pub fn is_file(&self) -> bool {
        self.file().is_some()
    }

    /// Reads; `false` and nothing read if not all of it lies inside.
    #[must_use]
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let slice = self.slice(offset, bytes.len() as u64);
        slice.map(|slice| slice.copy_to(bytes)).is_some()
    }

    /// Writes; `false` and nothing written if not all of it lies inside.
    #[must_use]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        self.touched.store(true, Ordering::Relaxed);
        let slice = self.slice(offset, bytes.len() as u64);
        slice.map(|slice| slice.copy_from(bytes)).is_some()
    }

    /// Copies from another backing; `false` and nothing copied if not all of it lies inside both.
    #[must_use]
    pub(crate) fn copy_from(&self, to: u64, other: &Self, from: u64, length: u64) -> bool {
        self.touched.store(true, Ordering::Relaxed);
        let (target, source) = (self.slice(to, length), other.slice(from, length));
        let Some((to, from)) = target.zip(source) else { return false };
        let places = (to.ptr_guard_mut(), from.ptr_guard());
        let (to_host, from_host) = (places.0.as_ptr(), places.1.as_ptr());
        let regions = self.region.as_ref().zip(other.region.as_ref());
        let apart = regions.is_some_and(|(own, other)| !Arc::ptr_eq(own, other));
        if apart && (to_host as usize | to.len()).is_multiple_of(LINE) {
            // SAFETY: both slices have this length and are mapped for as long as they are borrowed;
            // the target is aligned.
            unsafe { stream(to_host, from_host, to.len()) };
        } else {
            from.copy_to_volatile_slice(to);
        }
        true
    }

    fn slice(&self, offset: u64, length: u64) -> Option<VolatileSlice<'_>> {
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        self.region.as_ref()?.get_slice(offset, length).ok()
    }

    /// The pages of a range that hold anything but zeroes, in order and joined; found without
    /// walking over the rest.
    pub(crate) fn touched(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let touched = self.touched.load(Ordering::Relaxed);
        let Some(region) = self.region.as_ref().filter(|_| touched) else {
            return Ok(Vec::new());
        };
        let range = range.start.min(self.size())..range.end.min(self.size());
        let found = match self.file() {
            Some((file, start)) => touched::of_file(file, start, range)?,
            None => touched::of_memory(region, range)?,
        };
        Ok(self.without_zeroes(found))
    }

    /// Leaves out pages of zeroes: a huge page that was touched for one byte of it is mostly those.
    fn without_zeroes(&self, ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
        let mut kept: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let end = (at / HOST_PAGE + 1).saturating_mul(HOST_PAGE).min(range.end);
                if !self.is_zero(at, end - at) {
                    match kept.last_mut().filter(|last| last.end == at) {
                        Some(last) => last.end = end,
                        None => kept.push(at..end),
                    }
                }
                at = end;
            }
        }
        kept
    }

    fn is_zero(&self, offset: u64, length: u64) -> bool {
        let Some(slice) = self.slice(offset, length) else { return true };
        // Most pages that hold something do so from the start.
        let mut first = [0; 8];
        slice.copy_to(&mut first);
        let mut page = [0; HOST_PAGE as usize];
        first == [0; 8] && {
            slice.copy_to(&mut page);
            page == [0; HOST_PAGE as usize]
        }
    }

    /// Zeroes a range and gives its pages, or the file's blocks, back to the host.
    pub fn forget(&self, range: Range<u64>) -> io::Result<()> {
        let touched = self.touched.load(Ordering::Relaxed);
        let Some(region) = self.region.as_ref().filter(|_| touched) else { return Ok(()) };
        let range = range.start.min(self.size())..range.end.min(self.size());
        let length = range.end.saturating_sub(range.start);
        match self.file() {
            _ if length == 0 => {}
            Some((file, start)) => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                match allocate(file, mode, start + range.start, length) {
                    // Not every file system has holes.
                    Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                        let zeroes = [0; HOST_PAGE as usize];
                        for touched in self.touched(range)? {
                            for at in touched.clone().step_by(zeroes.len()) {
                                let length = (touched.end - at).min(HOST_PAGE) as usize;
                                let _ = self.write(at, zeroes.get(..length).unwrap_or_default());
                            }
                        }
                    }
                    result => result?,
                }
            }
            None => forget(region, range.start, length),
        }
        Ok(())
    }

    /// Pages whose stores the file did not take: see [`lost_pages`].
    pub(crate) fn lost(&self) -> u64 {
        self.guard.as_ref().map_or(0, |guard| guard.lost())
    }

    /// Whether the file has taken every store so far.
    pub(crate) fn whole(&self) -> io::Result<()> {
        if self.lost() == 0 { Ok(()) } else { Err(os_error(libc::EIO)) }
    }

    /// Has the disk keep room for a range, so that no store to it finds the disk full. Where a file
    /// system cannot, or lies in memory, which would be taken at once, there has to be room now, at least.
    pub(crate) fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        let Some((file, start)) = self.file() else { return Ok(()) };
        let range = range.start.min(self.size())..range.end.min(self.size());
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return Ok(());
        }
        if in_memory(file)? {
            return self.has_room(length);
        }
        match allocate(file, libc::FALLOC_FL_KEEP_SIZE, start + range.start, length) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.has_room(length),
            Err(error) => {
                // Some of it may have been kept by then.
                let _ = self.release(range);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives back what was reserved of a range and holds nothing but zeroes.
    pub(crate) fn release(&self, range: Range<u64>) -> io::Result<()> {
        if !self.is_file() {
            return Ok(());
        }
        let range = range.start.min(self.size())..range.end.min(self.size());
        let mut at = range.start;
        for part in parts(range.clone()) {
            for touched in self.touched(part)? {
                if at < touched.start {
                    self.forget(at..touched.start)?;
                }
                at = touched.end;
            }
        }
        if at < range.end { self.forget(at..range.end) } else { Ok(()) }
    }

    /// Bytes that are free on the disk.
    pub(crate) fn room(&self) -> io::Result<u64> {
        let Some((file, _)) = self.file() else { return Ok(u64::MAX) };
        let mut facts = std::mem::MaybeUninit::<libc::statvfs64>::zeroed();
        // SAFETY: the descriptor is open, and `facts` has room for what the call writes.
        if unsafe { libc::fstatvfs64(file.as_raw_fd(), facts.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is plain integers, all of which were zero before the call.
        let facts = unsafe { facts.assume_init() };
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    /// Refuses if stores to so many bytes would find no room on the disk. Nothing keeps the room free
    /// until then.
    pub(crate) fn has_room(&self, bytes: u64) -> io::Result<()> {
        if self.room()? < bytes { Err(os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    /// Brings what was stored to the disk; nothing to do for anonymous memory.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file().map_or(Ok(()), |(file, _)| file.sync_data())
    }
}

/// A range in parts of which the touched pages are looked at in one go: a guest decides how many runs of
/// those there are, and of one part there are 8192 at most.
pub(crate) fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    const PART: u64 = 64 << 20;
    let mut at = range.start;
    std::iter::from_fn(move || {
        let part = at..((at / PART + 1).saturating_mul(PART)).min(range.end);
        at = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// A cache line.
const LINE: usize = 64;

/// Copies past the caches, so that the target is not read first: what is moved between layouts is
/// far more than any cache holds, and nobody looks at it soon.
///
/// # Safety
/// `length` bytes can be read from `from` and written to `to`, which is a multiple of 16.
#[cfg(target_arch = "x86_64")]
unsafe fn stream(to: *mut u8, from: *const u8, length: usize) {
    use core::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};
    for at in (0..length).step_by(16) {
        // SAFETY: inside what the caller promises.
        let value = unsafe { _mm_loadu_si128(from.wrapping_add(at).cast()) };
        // SAFETY: as above.
        unsafe { _mm_stream_si128(to.wrapping_add(at).cast(), value) };
    }
}

/// # Safety
/// `length` bytes can be read from `from` and written to `to`.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy(from, to, length) };
}

/// Makes what was streamed visible to whoever looks next: streams are not in the order of other
/// stores before an SFENCE.
pub(crate) fn settle() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}

/// Whether a file lies in memory.
fn in_memory(file: &File) -> io::Result<bool> {
    let mut facts = std::mem::MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: the descriptor is open, and `facts` has room for what the call writes.
    if unsafe { libc::fstatfs64(file.as_raw_fd(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is plain integers, all of which were zero before the call.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_type == libc::TMPFS_MAGIC)
}

fn allocate(file: &File, mode: libc::c_int, start: u64, length: u64) -> io::Result<()> {
    let (start, length) = (start.try_into(), length.try_into());
    let (start, length) = start.ok().zip(length.ok()).ok_or(libc::EFBIG).map_err(os_error)?;
    // SAFETY: the descriptor is open; the call looks at no memory.
    let result = unsafe { libc::fallocate64(file.as_raw_fd(), mode, start, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn os_error(code: libc::c_int) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Zeroes a range of memory that a guest may be using and gives its pages back to the host.
pub fn forget(memory: &MmapRegion, offset: u64, length: u64) {
    let whole = memory.size() as u64;
    let offset = offset.min(whole);
    let length = length.min(whole - offset);
    // SAFETY: the range lies inside a private anonymous mapping that `memory` owns. Its bytes are
    // only ever reached through volatile accesses or by a guest, to whom it is memory that lost its
    // contents.
    unsafe {
        libc::madvise(
            memory.as_ptr().wrapping_add(offset as usize).cast(),
            length as usize,
            libc::MADV_DONTNEED,
        )
    };
}

/// Asks for huge pages behind a mapping; the host may decline.
pub fn advise_huge(memory: &MmapRegion) {
    // SAFETY: advice about a mapping that `memory` owns; it changes no contents.
    unsafe { libc::madvise(memory.as_ptr().cast(), memory.size(), libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever holds the same memory under another handle copies within it, overlaps and all.
    #[test]
    fn a_copy_within_one_memory_moves_what_was_there() {
        let memory = Backing::new(1 << 16);
        let numbers: [u8; 4 * LINE] = std::array::from_fn(|at| at as u8);
        assert!(memory.write(0, &numbers));
        assert!(memory.copy_from(LINE as u64, &memory.clone(), 0, numbers.len() as u64));
        let mut moved = [0; 4 * LINE];
        assert!(memory.read(LINE as u64, &mut moved) && moved == numbers);
    }
}
