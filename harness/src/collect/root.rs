//! Files of a Linux: where they are, and what stands in them.
//!
//! **Invariant**: files are opened to be read alone, and a bounded part of each is read.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cxl_regs::config::{Bdf, Sbdf};

use super::MAX_FUNCTIONS;

/// The most bytes of a table and of a text.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// A running Linux: its root directory, which is another one in tests alone.
#[derive(Clone, Debug)]
pub struct Linux(PathBuf);

impl Default for Linux {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl Linux {
    /// One whose files lie below a directory.
    pub fn below(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// A path of the machine; a link in it leads where it leads on that machine.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A text; `None` where there is none or it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = read(&self.path(path), MAX_FILE).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A word or number.
    pub(super) fn word(&self, path: &str) -> Option<String> {
        self.text(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let names = entries
            .take(MAX_FUNCTIONS)
            .filter_map(|entry| entry.ok().and_then(|entry| entry.file_name().into_string().ok()));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// At most so many bytes of a file; more are left.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A function's address as Linux writes it.
pub(super) fn address(text: &str) -> Option<Sbdf> {
    let (segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |digits: &str, count: usize| {
        u16::from_str_radix(digits, 16).ok().filter(|_| digits.len() == count)
    };
    let bus = u8::try_from(hex(bus, 2)?).ok()?;
    let device = u8::try_from(hex(device, 2)?).ok()?;
    let bdf = Bdf::new(bus, device, u8::try_from(hex(function, 1)?).ok()?)?;
    Some(Sbdf { segment: hex(segment, 4)?, bdf })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_linux_s() {
        let at = address("0001:0d:1f.7").expect("one");
        assert_eq!((at.segment, at.bdf.bus(), at.bdf.device(), at.bdf.function()), (1, 13, 31, 7));
        assert_eq!(at.to_string(), "0001:0d:1f.7");
        for wrong in
            ["0d:00.0", "0000:0d:20.0", "0000:0d:00.8", "10000:00:00.0", "pci0000:0c", "a:b:c.d"]
        {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}
