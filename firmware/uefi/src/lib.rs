#![doc = include_str!("../README.md")]
//!
//! This library is what of the driver needs no UEFI: its text file, and what goes to the memory map.
//! The program `cxl` beside it has the rest.
//!
//! **Invariant**: `no_std`, no allocation, no unsafe code here; nothing that asks the firmware.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod given;
pub mod roots;
pub mod settings;
