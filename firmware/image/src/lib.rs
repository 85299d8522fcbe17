//! What programs that are firmware share: the bare-metal image, and the UEFI driver. The policy in
//! [words], the [report] and the [dump] for people and programs at a console. And what a VMM has to know
//! of the image, the [doorbell] that it rings.
//!
//! The image itself is the program `image` of this package: `--bin image --features image --profile
//! image`. Any machine that starts PVH images runs it; nothing of it depends on the doorbell.
//!
//! **Invariant**: `no_std`, no allocation, no unsafe code in this library; what the image does with
//! memory and instructions is in its own files.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use core::fmt::{Arguments, Write};

use cxl_firmware::bring_up::Workspace;

pub mod doorbell;
pub mod dump;
pub mod report;
pub mod words;

/// Room for the machine: nodes, regions, decoders.
pub type Room = Workspace<640, 320, 1280>;

/// A line on a console, or wherever else.
fn say(out: &mut dyn Write, text: Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}
