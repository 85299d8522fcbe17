//! A line of text for C: text and numbers in a buffer, with a 0 behind.
//!
//! **Invariant**: what does not fit is left out at the end, and a 0 is always behind the rest. Without
//! the feature `sentences` nothing of `core::fmt` is in it, which has panic paths and is large.

use core::ffi::c_char;

/// The most bytes of a line in the log, the 0 included.
pub(crate) const LINE: usize = 320;

/// A line that grows in a buffer.
pub(crate) struct Line<'a> {
    buffer: &'a mut [u8],
    /// How many bytes all of it would have, without the 0.
    length: usize,
}

impl<'a> Line<'a> {
    /// An empty one.
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        let mut line = Self { buffer, length: 0 };
        line.end();
        line
    }

    fn end(&mut self) {
        let at = self.length.min(self.buffer.len().saturating_sub(1));
        if let Some(end) = self.buffer.get_mut(at) {
            *end = 0;
        }
    }

    /// Adds text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            if self.length.saturating_add(1) < self.buffer.len()
                && let Some(place) = self.buffer.get_mut(self.length)
            {
                *place = byte;
            }
            self.length = self.length.saturating_add(1);
        }
        self.end();
        self
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.digits(number, 10)
    }

    /// Adds a number in hexadecimal, with `0x`.
    pub(crate) fn hex(&mut self, number: u64) -> &mut Self {
        self.text("0x").digits(number, 16)
    }

    fn digits(&mut self, mut number: u64, base: u64) -> &mut Self {
        let mut digits = [0; 20];
        let mut used = 0;
        for place in digits.iter_mut().rev() {
            *place = b"0123456789abcdef".get((number % base) as usize).copied().unwrap_or(b'?');
            number /= base;
            used += 1;
            if number == 0 {
                break;
            }
        }
        let digits = digits.get(digits.len() - used..).unwrap_or(&[]);
        self.text(core::str::from_utf8(digits).unwrap_or("?"))
    }

    /// How many bytes all of it needs, with the 0.
    pub(crate) fn need(&self) -> usize {
        self.length.saturating_add(1)
    }

    /// The line for C.
    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.buffer.as_ptr().cast()
    }
}

#[cfg(feature = "sentences")]
impl core::fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.text(text);
        Ok(())
    }
}
