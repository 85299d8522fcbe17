//! Names of a kernel's functions, out of the running kernel itself: it writes its `/proc/kallsyms` to a disk
//! of ours before the drivers of CXL are loaded, as nobody can ask it once it is dead.
//!
//! The kernel's own table is right whatever address it has chosen for itself, and Debian's `System.map` is
//! an empty file. Modules that come later are not in it.
//!
//! **Invariant**: a place is named by a symbol of the kernel's text at or below it, or not at all.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Bytes of the disk: some three times what the text symbols of a kernel with everything take.
const DISK: u64 = 32 << 20;
/// The first address of the kernel's half of the address space.
const KERNEL: u64 = 1 << 63;

/// The disk that takes them.
pub(super) fn disk() -> io::Result<File> {
    let file = tempfile::tempfile()?;
    file.set_len(DISK)?;
    Ok(file)
}

/// Shell text that writes them; the disk's driver is in `/task`, in these files.
pub(super) fn script(drivers: &[(String, PathBuf)]) -> String {
    let load = drivers.iter().map(|(name, _)| format!("$B insmod /task/{name}\n"));
    let load: String = load.collect();
    format!(
        "{load}echo 0 >/proc/sys/kernel/kptr_restrict\n\
         $B grep -i ' [tw] ' /proc/kallsyms >/dev/vda\n\
         $B sync\n"
    )
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads them off the disk.
    pub(super) fn read(mut disk: &File) -> io::Result<Self> {
        disk.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        disk.take(DISK).read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    /// Lines of address, kind and name, up to a byte of 0.
    fn parse(bytes: &[u8]) -> Self {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let mut symbols: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                let name = words.nth(1)?;
                (address >= KERNEL).then(|| (address, name.to_owned()))
            })
            .collect();
        symbols.sort();
        Self(symbols)
    }

    /// The name of a place: function and offset.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        let behind = self.0.partition_point(|(at, _)| *at <= address);
        let (at, name) = self.0.get(behind.checked_sub(1)?)?;
        Some(format!("{name}+{:#x}", address - at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_name_of_the_last_function_before_it() {
        let text = b"ffffffff81000000 T _stext\nffffffff81000040 t clear_page_rep\n\
            0000000000000000 T hidden\nbroken\nffffffff81000200 T copy_page\n\0\0ffffffff81000210 T no\n";
        let symbols = Symbols::parse(text);
        for (address, expected) in [
            (0xFFFF_FFFF_8100_0000, Some("_stext+0x0")),
            (0xFFFF_FFFF_8100_0045, Some("clear_page_rep+0x5")),
            (0xFFFF_FFFF_8100_0300, Some("copy_page+0x100")),
            (0xFFFF_FFFF_80FF_FFFF, None),
            (0x40_1000, None),
        ] {
            assert_eq!(symbols.name(address).as_deref(), expected);
        }
        assert_eq!(Symbols::parse(b"").name(u64::MAX), None);
    }
}
