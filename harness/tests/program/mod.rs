//! The program that the tests run.
//!
//! **Invariant**: it is looked for when a test runs, so tests of a copied tree run the copy.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "shared by test binaries")]

use std::path::PathBuf;

/// Where it is: as cargo says, or beside this test program's folder.
pub fn path() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_cxl-harness").map_or_else(
        || {
            let this = std::env::current_exe().unwrap();
            this.ancestors().nth(2).unwrap().join("cxl-harness")
        },
        PathBuf::from,
    )
}
