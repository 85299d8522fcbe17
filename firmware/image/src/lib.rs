//! What a VMM has to know of the bare-metal image: the [doorbell] that it rings.
//!
//! The image itself is the program `image` of this package: `--bin image --features image --profile
//! image`. Any machine that starts PVH images runs it; nothing of it depends on the doorbell.
//!
//! **Invariant**: `no_std`, no allocation, no unsafe code in this library; what the image does with
//! memory and instructions is in its own files.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod doorbell;
