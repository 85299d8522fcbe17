//! The text file beside the driver: the policy in the image's words, and what is started afterwards.
//!
//! ```text
//! # A number sign starts a comment.
//! config-lock strict          words of the policy, as many in a line as one likes
//! dump                        print record, table and registers in hexadecimal
//! quiet                       print errors only
//! next=\EFI\debian\grubx64.efi    what is started afterwards, from the same file system
//! initrd=\initrd.img          its initial RAM disk, where it is a kernel
//! -- console=ttyS0 ro         its command line: the rest of the line
//! ```
//!
//! **Invariant**: a word that cannot be taken is refused by line and name, and then nothing of the file
//! counts; without a file the policy is the default one.

use cxl_image::words::{Misread, Words, keys};

/// The most characters of a path or a command line.
pub const MAX_LINE: usize = 1024;

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct Settings<'t> {
    /// The policy.
    pub words: Words,
    /// Record, table and registers go to the log.
    pub dump: bool,
    /// Only errors do.
    pub quiet: bool,
    /// What is started afterwards.
    pub next: Option<&'t str>,
    /// Its initial RAM disk.
    pub initrd: Option<&'t str>,
    /// Its command line.
    pub line: &'t str,
}

/// What cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'t> {
    /// Line number, from 1.
    pub line: usize,
    /// The word.
    pub word: &'t str,
    /// What is wrong with it.
    pub why: Why,
}

/// Why a word is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It cannot be taken, and this may stand there.
    Misread(Misread),
    /// It stands there for the second time, with another value perhaps.
    Again,
    /// A path is from the root of the file system, with `\` between its parts.
    Path,
    /// It has more than [`MAX_LINE`] characters, or others than ASCII.
    Text,
    /// It says something of `next=`, which is not there.
    NoNext,
}

impl core::fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: \"{}\"", self.line, self.word)?;
        match self.why {
            Why::Misread(Misread::Unknown) => {
                f.write_str(": ")?;
                keys(f, &["dump", "quiet", "next", "initrd"])
            }
            Why::Misread(why) => write!(f, ": {why}"),
            Why::Again => f.write_str(" stands there twice"),
            Why::Path => f.write_str(" is no path: expected one that begins with \\"),
            Why::Text => {
                write!(f, " is no text: expected at most {MAX_LINE} characters of ASCII")
            }
            Why::NoNext => f.write_str(" belongs to next=PATH, which is not there"),
        }
    }
}

impl core::error::Error for BadWord<'_> {}

impl<'t> Settings<'t> {
    /// Reads the file's text.
    pub fn parse(text: &'t str) -> Result<Self, BadWord<'t>> {
        let mut settings = Self::default();
        let mut of_next = None;
        // What an editor of another system puts in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, all) in (1..).zip(text.lines()) {
            let all = all.trim();
            let bad = |word, why| BadWord { line, word, why };
            if let Some(rest) = all.strip_prefix("--").filter(|rest| {
                rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace())
            }) {
                let rest = rest.trim();
                if !settings.line.is_empty() {
                    return Err(bad(all, Why::Again));
                }
                settings.line = text_of(rest).ok_or(bad(all, Why::Text))?;
                of_next.get_or_insert(bad(all, Why::NoNext));
                continue;
            }
            let words = all.split('#').next().unwrap_or_default();
            for word in words.split_ascii_whitespace() {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                match (key, value) {
                    ("dump", "") => settings.dump = true,
                    ("quiet", "") => settings.quiet = true,
                    ("next", path) => {
                        set(&mut settings.next, path).map_err(|why| bad(word, why))?
                    }
                    ("initrd", path) => {
                        set(&mut settings.initrd, path).map_err(|why| bad(word, why))?;
                        of_next.get_or_insert(bad(word, Why::NoNext));
                    }
                    _ => settings.words.word(word).map_err(|why| bad(word, Why::Misread(why)))?,
                }
            }
        }
        match of_next.filter(|_| settings.next.is_none()) {
            Some(bad) => Err(bad),
            None => Ok(settings),
        }
    }
}

fn text_of(text: &str) -> Option<&str> {
    let fits = text.len() <= MAX_LINE && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    fits.then_some(text)
}

fn set<'t>(place: &mut Option<&'t str>, path: &'t str) -> Result<(), Why> {
    let path = text_of(path).ok_or(Why::Text)?;
    if !path.starts_with('\\') || path.ends_with('\\') {
        return Err(Why::Path);
    }
    match place.replace(path) {
        None => Ok(()),
        Some(_) => Err(Why::Again),
    }
}
