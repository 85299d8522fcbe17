//! Registers behind a file that can be mapped: a BAR's resource file, or `/dev/mem`.
//!
//! **Invariant**: pages are mapped to be read alone, one at a time, and never behind the end of the file; an
//! access is one aligned dword.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;

/// A file of registers.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    /// Its bytes; `None` where a file has no end.
    length: Option<u64>,
    page: u64,
    mapped: Option<Page>,
}

/// A page that is mapped.
#[derive(Debug)]
struct Page {
    at: u64,
    start: NonNull<u32>,
    length: usize,
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, of this length, and nobody has a reference into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl Pages {
    /// Opens a file; its pages are not cached where the kernel can do without.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_SYNC).open(path)?;
        let facts = file.metadata()?;
        // SAFETY: asks for a number, and looks at no memory of ours.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = u64::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(4096);
        Ok(Self { file, length: facts.is_file().then_some(facts.len()), page, mapped: None })
    }

    /// The dword at an offset.
    pub(super) fn dword(&mut self, at: u64) -> io::Result<u32> {
        let wrong = |words: &str| io::Error::new(io::ErrorKind::InvalidInput, words.to_owned());
        if !at.is_multiple_of(4) {
            return Err(wrong("not on a dword"));
        }
        if self.length.is_some_and(|length| at.checked_add(4).is_none_or(|end| end > length)) {
            return Err(wrong("behind the end of the file"));
        }
        let start = at & !(self.page - 1);
        if self.mapped.as_ref().is_none_or(|page| page.at != start) {
            self.mapped = None;
            self.mapped = Some(self.map(start)?);
        }
        let page = self.mapped.as_ref().ok_or_else(|| wrong("not mapped"))?;
        let index = usize::try_from((at - start) / 4).map_err(|_| wrong("too far"))?;
        // SAFETY: `index` lies in the page, which is mapped to be read and as long as a page.
        let address = unsafe { page.start.as_ptr().add(index) };
        // SAFETY: `address` is aligned and in the page; what changes there is hardware's, as volatile reads
        // allow.
        Ok(unsafe { address.read_volatile() })
    }

    fn map(&self, at: u64) -> io::Result<Page> {
        let length = usize::try_from(self.page).unwrap_or(4096);
        let offset = libc::off_t::try_from(at)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "beyond any file"))?;
        let none = std::ptr::null_mut();
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping at a place of the kernel's choice; it replaces none, and cannot be written.
        let start =
            unsafe { libc::mmap(none, length, read, shared, self.file.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Page { at, start, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dwords_come_out_as_they_lie_and_none_behind_the_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let bytes: Vec<u8> = (0..0x3004u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).expect("written");
        let mut pages = Pages::open(file.path()).expect("opened");
        for at in [0x0u64, 0xFFC, 0x1000, 0x3000, 0x4] {
            let start = at as usize;
            let want = bytes.get(start..start + 4).and_then(|it| it.try_into().ok());
            let want = want.map(u32::from_le_bytes);
            assert_eq!(pages.dword(at).ok(), want, "{at:#x}");
        }
        assert!(pages.dword(0x3004).is_err() && pages.dword(0x2).is_err());
        assert!(pages.dword(u64::MAX - 3).is_err());
    }
}
