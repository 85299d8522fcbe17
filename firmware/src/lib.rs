#![doc = include_str!("../README.md")]
//!
//! **Invariant**: the library reaches hardware through [`mmio`] alone, and every wait ends.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

// What every phase says when it refuses.
pub mod error;

// The seams: hardware and clock, memory for results, what the platform is, what is wanted.
/// Dwords by physical address, and a clock: the seam to hardware, as `cxl-regs` defines it.
pub use cxl_regs::mmio;
pub mod list;
mod path;
pub mod platform;
pub mod policy;

// The phases, in order, and what each makes.
pub mod acpi;
pub mod discover;
pub mod topology;
pub mod windows;

pub mod plan;

pub mod commit;
pub mod committed;

pub mod verify;

pub mod probe;

pub mod outcome;

pub mod handoff;
pub mod restore;
pub mod tables;

pub mod bring_up;
pub mod flat;

// What they share.
mod admits;
mod built;
mod codes;
mod coherency;
pub mod config;
mod decoder_registers;
mod device_registers;
pub mod wait;
mod window_check;

pub use decoder_registers::DecoderRegisters;
pub use error::{Code, Error};
/// The lists in [`platform`] and in what the phases make are `heapless` vectors.
pub use heapless;
