//! CXL firmware: discover, plan, program, commit, lock, verify and describe.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod attack;
mod back_invalidate;
pub mod bring_up;
pub mod commit;
pub mod committed;
pub mod config;
pub mod discover;
pub mod doorbell;
pub mod handoff;
mod list;
pub mod mmio;
mod paths;
pub mod plan;
pub mod platform;
pub mod policy;
mod program;
pub mod tables;
pub mod topology;
pub mod verify;
mod wait;

pub use program::DecoderRegisters;
