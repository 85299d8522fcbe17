//! Programs that are linked to be measured, by `tests/sizes.rs`; the library has nothing in it.
#![no_std]
