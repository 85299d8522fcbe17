//! The command line: policy, requests and payload. A word that cannot be taken is refused with its number
//! and what may stand there.
//!
//! Those of the policy are in `words.rs`. The image's own:
//!
//! ```text
//! mode=ADDRESS:BITS:VALUE:ACTED           attack with this register otherwise too, hexadecimal; VALUE
//!                                         may be `turned`; ACTED: bits that are written 0
//! payload=NAME                            what runs afterwards            (none)
//! as-found                                program nothing: find and verify what is there
//! exits=N                                 no firmware: N bare exits and the end, for benches
//! ring3                                   PVH entry: run at CPL 3
//! dump                                    print record, table and registers in hexadecimal; the
//!                                         lines are described in dump.rs
//! quiet                                   print errors only
//! -- LINE                                 the rest is the command line of what is booted
//! ```
//!
//! `payload=linux` enters a Linux bzImage (boot protocol 2.12 or later, 64-bit). Its parts come
//! from fw_cfg, `-fw_cfg name=opt/org.cxl-firmware/kernel,file=vmlinuz` and the same for `initrd`
//! and `cmdline`; what is not there, from the modules of the PVH start-info in the order kernel,
//! initrd (QEMU's `-initrd` gives one module), and the command line from LINE above, then from
//! what the kernel's module has.
//!
//! **Invariant**: nothing here says what the machine is; that comes from ACPI and the devices.

use core::fmt;

use cxl_attack::NamedMode;
use cxl_image::words::{Misread, Words, keys, number, parts};
use heapless::Vec;

/// What the command line asks for.
pub(crate) struct Options<'a> {
    pub(crate) words: Words,
    pub(crate) modes: Vec<NamedMode, 16>,
    pub(crate) payload: &'a str,
    pub(crate) as_found: bool,
    pub(crate) exits: Option<u64>,
    pub(crate) dump: bool,
    pub(crate) quiet: bool,
    pub(crate) next_line: Option<&'a str>,
}

/// Its own words, and what may stand behind the `=` of each; nothing where it stands alone.
const OWN: [(&str, &str); 7] = [
    ("mode", "ADDRESS:BITS:VALUE:ACTED in hexadecimal"),
    ("payload", "the name of a payload"),
    ("as-found", ""),
    ("exits", "a number"),
    ("ring3", ""),
    ("dump", ""),
    ("quiet", ""),
];

/// A word that cannot be taken.
pub(crate) struct BadWord<'a> {
    /// Which one, from 1.
    number: usize,
    word: &'a str,
    why: Misread,
}

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, word, why } = self;
        write!(f, "word {number}, \"{word}\": ")?;
        match why {
            Misread::Unknown => keys(f, &OWN.map(|(key, _)| key)),
            why => why.fmt(f),
        }
    }
}

impl<'a> Options<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self, BadWord<'a>> {
        let mut options = Self {
            words: Words::default(),
            modes: Vec::new(),
            payload: "none",
            as_found: false,
            exits: None,
            dump: false,
            quiet: false,
            next_line: None,
        };
        let (own, next) = parts(line);
        options.next_line = next;
        for (number, word) in (1..).zip(own.split_ascii_whitespace()) {
            options.word(word).map_err(|why| BadWord { number, word, why })?;
        }
        Ok(options)
    }

    fn word(&mut self, word: &'a str) -> Result<(), Misread> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let Some(&(key, expected)) = OWN.iter().find(|(own, _)| *own == key) else {
            return self.words.word(word);
        };
        if key == "mode" && self.modes.is_full() {
            return Err(Misread::TooMany { key, most: self.modes.capacity() });
        }
        self.own(key, value).ok_or(Misread::Value { key, expected })
    }

    /// Takes the value of a word of its own; `None` if it makes no sense.
    fn own(&mut self, key: &str, value: &'a str) -> Option<()> {
        match (key, value) {
            ("mode", value) => self.modes.push(mode(value)?).ok()?,
            ("payload", name) => self.payload = name,
            ("as-found", "") => self.as_found = true,
            ("exits", count) => self.exits = Some(number(count)?),
            ("dump", "") => self.dump = true,
            ("quiet", "") => self.quiet = true,
            // The entry has looked at it already.
            ("ring3", "") => {}
            _ => return None,
        }
        Some(())
    }
}

/// `ADDRESS:BITS:VALUE:ACTED`.
fn mode(text: &str) -> Option<NamedMode> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let dword = |text: &str| hex(text)?.try_into().ok();
    let mut parts = text.split(':');
    let address = hex(parts.next()?)?;
    let bits = dword(parts.next()?)?;
    let value = match parts.next()? {
        "turned" => None,
        value => Some(dword(value)?),
    };
    let mode = NamedMode { address, bits, value, acted_on: dword(parts.next()?)? };
    parts.next().is_none().then_some(mode)
}
