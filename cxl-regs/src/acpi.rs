//! ACPI tables that a CXL firmware reads, patches and writes: RSDP, RSDT/XSDT, MCFG, SRAT, CEDT.
//!
//! **Invariant**: nothing here follows a pointer. Tables are bytes that the caller has, or a buffer
//! that the caller gives; addresses found in them are numbers.
//!
//! Each table has two layers: wire records that are laid over bytes and can hold nonsense, and
//! legal values that cannot.

pub mod cedt;
pub mod header;
pub mod mcfg;
pub mod rsdp;
pub mod rsdt;
pub mod srat;

pub use cedt::{Cedt, CedtWriter};
pub use header::{Header, Identity, NoRoom, Table, TableError};
pub use rsdp::Rsdp;
pub use rsdt::RootTable;
