//! Programs that are linked to be measured: by their bytes (`tests/sizes.rs`), and `stack` by the stack that
//! verbs of the library take (`harness/tests/stack.rs`). The library here is what those two agree on.
#![no_std]

pub mod recording;
