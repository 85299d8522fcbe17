//! A machine to prove CXL firmware on: device models, a direct run and a KVM guest.
//!
//! **Invariant**: models share register names and bit places with the firmware, never its logic.
#![deny(missing_docs)]

pub mod device;
