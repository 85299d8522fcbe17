#![doc = include_str!("../README.md")]
//!
//! **Invariant**: models share register names and bit places with firmware, through `cxl-regs`, and
//! never its logic: no firmware crate is below this one.
#![deny(missing_docs)]

// The machine as text, and where its parts lie.
pub mod layout;
pub mod scenario;

// Its parts, and the whole.
pub mod device;
pub mod fault;
pub mod machine;

// Registers as plain data, and where they lead.
pub mod fabric;
pub mod image;
pub mod mapping;

// What a guest sees of hardware that it is handed.
pub mod shadow;

// Memory behind devices.
pub mod backing;
pub mod set;
pub mod store;

// For readers and for guests.
pub mod acpi;
#[cfg(feature = "dump")]
pub mod capture;
#[cfg(feature = "dump")]
pub mod dump;
pub mod kept;
pub mod trace;
pub mod typed;
pub mod words;

pub use cxl_regs::mmio::{Clock, Mmio};
