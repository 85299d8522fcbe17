//! Which pages of a mapping anybody has touched, found by asking the kernel for the next one, never
//! by looking at each.
//!
//! **Invariant**: a page that is left out reads zero.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vm_memory::MmapRegion;

use super::HOST_PAGE;

/// `struct pm_scan_arg` (Linux include/uapi/linux/fs.h, from 6.7 on).
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN`: `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 3 << 30
    | (size_of::<ScanArguments>() as libc::c_ulong) << 16
    | (b'f' as libc::c_ulong) << 8
    | 16;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// A page that was read and never written: the zero page that all share.
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// Ranges that one call returns.
const BATCH: usize = 512;

/// Touched pages of anonymous memory, by offset.
pub(super) fn of_memory(memory: &MmapRegion, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let host = memory.as_ptr() as u64;
    match scan(&pagemap, host + range.start..host + range.end) {
        // Older kernels have a table with eight bytes a page instead.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
            table(&pagemap, host + range.start..host + range.end)
        }
        found => found,
    }
    .map(|found| within(found, host, range))
}

/// Ranges of host addresses as offsets, cut to what was asked for.
fn within(found: Vec<Range<u64>>, host: u64, range: Range<u64>) -> Vec<Range<u64>> {
    let offsets = found.into_iter().map(|found| {
        let (start, end) = (found.start.saturating_sub(host), found.end.saturating_sub(host));
        start.max(range.start)..end.min(range.end)
    });
    offsets.filter(|range| !range.is_empty()).collect()
}

fn scan(pagemap: &File, host: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut batch = [PageRegion::default(); BATCH];
    let mut arguments = ScanArguments {
        size: size_of::<ScanArguments>() as u64,
        start: host.start / HOST_PAGE * HOST_PAGE,
        end: host.end.next_multiple_of(HOST_PAGE),
        vec: batch.as_mut_ptr() as u64,
        vec_len: BATCH as u64,
        category_inverted: PAGE_IS_PFNZERO,
        category_mask: PAGE_IS_PFNZERO,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT,
        ..ScanArguments::default()
    };
    while arguments.start < arguments.end {
        // SAFETY: the kernel reads the arguments and writes at most `vec_len` entries to `batch`,
        // both of which outlive the call; the addresses to scan are only looked up, not followed.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &mut arguments) };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        found.extend(batch.iter().take(count).map(|region| region.start..region.end));
        if arguments.walk_end <= arguments.start {
            return Err(io::Error::other("PAGEMAP_SCAN does not come forward"));
        }
        arguments.start = arguments.walk_end;
    }
    Ok(found)
}

/// The same from the table (Documentation/admin-guide/mm/pagemap.rst): bit 63 is present, bit 62
/// swapped.
fn table(pagemap: &File, host: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut entries = vec![0; 8 << 16];
    let mut page = host.start / HOST_PAGE;
    let end = host.end.div_ceil(HOST_PAGE);
    while page < end {
        let count = (end - page).min(entries.len() as u64 / 8) as usize;
        let bytes = entries.get_mut(..8 * count).unwrap_or_default();
        pagemap.read_exact_at(bytes, 8 * page)?;
        let (words, _) = bytes.as_chunks::<8>();
        for (page, word) in (page..).zip(words) {
            if u64::from_le_bytes(*word) >> 62 == 0 {
                continue;
            }
            let (start, end) = (page * HOST_PAGE, (page + 1) * HOST_PAGE);
            match found.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = end,
                None => found.push(start..end),
            }
        }
        page += count as u64;
    }
    Ok(found)
}

/// Parts of a file that are no holes, by offset from `start`.
pub(super) fn of_file(file: &File, start: u64, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let end = start + range.end;
    let mut at = start + range.start;
    while at < end {
        let Some(data) = seek(file, at, libc::SEEK_DATA)?.filter(|data| *data < end) else { break };
        // A file ends with a hole.
        let hole = seek(file, data, libc::SEEK_HOLE)?.unwrap_or(end).min(end);
        if hole <= data {
            return Err(io::Error::other("SEEK_HOLE does not come forward"));
        }
        found.push(data - start..hole - start);
        at = hole;
    }
    Ok(found)
}

/// `None`: there is no such place behind `at`.
fn seek(file: &File, at: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let offset = i64::try_from(at).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; the call looks at no memory.
    let place = unsafe { libc::lseek64(file.as_raw_fd(), offset, whence) };
    match u64::try_from(place) {
        Ok(place) => Ok(Some(place)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::backing::Backing;

    const TIB: u64 = 1 << 40;

    /// Pages touched, by all three ways to find them.
    #[test]
    fn the_pages_that_were_written_are_found_and_no_others() {
        let memory = Backing::new(TIB);
        let file = tempfile::tempfile().unwrap();
        file.set_len(TIB).unwrap();
        let shared = Backing::of_file(file.try_clone().unwrap(), 0, TIB).unwrap();
        let places = [0x5000, 0x6000, 1 << 30, TIB - 4096];
        for at in places {
            assert!(memory.write(at, &[1]) && shared.write(at, &[1]));
        }
        // Zeroes count as untouched, whoever wrote them.
        assert!(memory.write(1 << 21, &[0]) && shared.write(1 << 31, &[0]));
        let want = [0x5000..0x7000, 1 << 30..(1 << 30) + 4096, TIB - 4096..TIB];
        assert_eq!(memory.touched(0..TIB).unwrap(), want);
        assert_eq!(shared.touched(0..TIB).unwrap(), want);
        // Of the first page, the rest is asked for, and that is zeroes.
        for backing in [&memory, &shared] {
            let found = backing.touched(0x5800..0x6800).unwrap();
            assert_eq!(found.first(), Some(&(0x6000..0x6800)));
            assert_eq!(found.len(), 1);
        }
        assert_eq!(memory.touched(TIB / 4..TIB / 2).unwrap(), []);

        let small = Backing::new(1 << 22);
        assert!(small.write(0x5000, &[1]));
        let host = small.region().unwrap().as_ptr() as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let found = table(&pagemap, host..host + (1 << 22)).unwrap();
        assert!(found.iter().any(|range| range.contains(&(host + 0x5000))), "{found:x?}");
        assert!(found.iter().map(|range| range.end - range.start).sum::<u64>() <= 1 << 21);
    }

    #[test]
    fn what_is_forgotten_reads_zero_and_costs_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        let shared = Backing::of_file(file, 1 << 20, 1 << 29).unwrap();
        for backing in [Backing::new(1 << 29), shared] {
            for at in [0x1000, 0x2000, 0x3000] {
                assert!(backing.write(at, &[0x5A; 4096]));
            }
            backing.forget(0x2000..0x3000).unwrap();
            assert_eq!(backing.touched(0..1 << 29).unwrap(), [0x1000..0x2000, 0x3000..0x4000]);
            let mut bytes = [1; 4096];
            assert!(backing.read(0x2000, &mut bytes) && bytes == [0; 4096]);
        }
    }
}
