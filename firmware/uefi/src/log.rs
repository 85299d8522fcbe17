//! The log: lines on the firmware's console.
//!
//! **Invariant**: a console that fails loses lines and nothing else.

use core::fmt::{self, Write};

use uefi::system;

/// The console.
pub(crate) struct Log;

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The console wants a carriage return in front of each line feed; the crate puts it there.
        system::with_stdout(|out| out.write_str(text))
    }
}
