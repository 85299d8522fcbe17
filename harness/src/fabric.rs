//! A snapshot of everything that decides where a host address leads, as plain data.
//!
//! **Invariant**: nothing here is judged. Dwords are what a read returned, facts are what the
//! platform says of itself; [`mapping`](crate::mapping) decides what they mean together.

/// What a window admits (CFMWS Window Restrictions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Device-coherent memory: HDM-D, and HDM-DB where `back_invalidate` is set too.
    pub device_coherent: bool,
    /// Host-only coherent memory: HDM-H.
    pub host_only: bool,
    /// Volatile memory.
    pub volatile: bool,
    /// Persistent memory.
    pub persistent: bool,
    /// The operating system must not move what lies in it.
    pub fixed: bool,
    /// Back-invalidate.
    pub back_invalidate: bool,
}
