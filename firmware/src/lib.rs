//! CXL firmware: discover, plan, program, commit, lock, verify and describe.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod mmio;
