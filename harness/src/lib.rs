//! A machine to prove CXL firmware on: scenarios, device models, and where an address leads.
//!
//! **Invariant**: models share register names and bit places with the firmware, never its logic.

pub mod acpi;
pub mod backing;
pub mod bench;
pub mod device;
pub mod dma;
pub mod dump;
pub mod fabric;
pub mod fault;
pub mod guest;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod mapping;
pub mod run;
pub mod scenario;
pub mod trace;
