//! A machine to prove CXL firmware on: scenarios, device models, and where an address leads.
//!
//! # Testing firmware of your own
//!
//! A [`Machine`](machine::Machine) answers register accesses as the specification says hardware
//! does: locks hold, and a commit that breaks a rule is refused. It is an
//! [`Mmio`](cxl_regs::mmio::Mmio): aligned dwords by physical address. Run code of your own on
//! it, then snapshot the [register image](image) it leaves, or ask the [mapping] what your
//! registers lead to:
//!
//! ```
//! use cxl_regs::mmio::Mmio;
//! use cxl_harness::machine::Machine;
//! use cxl_harness::scenario::Scenario;
//! use cxl_harness::{image, mapping};
//!
//! /// The code under test: it programs one decoder of a host bridge.
//! fn program(hw: &mut impl Mmio, decoder: u64, base: u64, size: u64, port: u8) {
//!     for (register, value) in [(0x00, base), (0x08, size), (0x14, port.into())] {
//!         hw.write(decoder + register, value as u32);
//!         hw.write(decoder + register + 4, (value >> 32) as u32);
//!     }
//!     // Host-only memory, lock, commit.
//!     hw.write(decoder + 0x10, 1 << 12 | 1 << 8 | 1 << 9);
//! }
//!
//! let scenario = Scenario::built_in("one-device").expect("it is built in");
//! let mut machine = Machine::new(&scenario);
//! // The CHBS says where the bridge's registers are; the HDM structure is found in them.
//! let registers = machine.map().bridges[0].registers.base().0;
//! program(&mut machine, registers + 0x1138, 0x1_0000_0000, 0x1000_0000, 0);
//!
//! let text = image::of(&machine, "hb0").expect("the bridge has decoders");
//! assert!(text.starts_with(
//!     "\
//! hdm decoders of a host bridge, 1 of 4 committed
//!   capability        0x00000382  4 decoders, 8 targets, selects on HPA 14:8
//!   global control    0x00000000  decoders always in use
//! decoder 0
//!   base              0x0000000100000000
//!   last              0x000000010fffffff
//!   size              0x0000000010000000  256 MiB
//!   control           0x00001700  committed, locked
//! "
//! ));
//!
//! // The bridge decodes, and the device behind it does not yet.
//! let fabric = machine.fabric();
//! let mappings = mapping::mappings(&fabric);
//! assert_eq!(
//!     mapping::MappingsText(&fabric, &mappings).to_string().lines().nth(1),
//!     Some("  trapped           0x0000000100000000  256 MiB: no decoder of mem0 has the range")
//! );
//! ```
//!
//! A scenario of your own is a text: [`Scenario::parse`](scenario::Scenario::parse) reads it. To
//! run this repository's firmware library on it, and get everything that the command line prints,
//! use [`run::direct`] and [`Report::of_direct`](report::Report::of_direct).
//!
//! **Invariant**: models share register names and bit places with the firmware, never its logic.

pub mod acpi;
pub mod attack;
pub mod backing;
pub mod bench;
pub mod console;
pub mod device;
pub mod dma;
pub mod dump;
pub mod fabric;
pub mod fault;
pub mod guest;
pub mod image;
pub mod kvm;
pub mod layout;
pub mod lint;
pub mod linux;
pub mod locks;
pub mod machine;
pub mod mapping;
pub mod mirror;
pub mod qemu;
pub mod report;
pub mod run;
pub mod scenario;
pub mod set;
pub mod store;
mod timing;
pub mod trace;
pub mod vigil;
