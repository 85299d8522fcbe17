//! How many cases a law is tried on.
//!
//! **Invariant**: `PROPTEST_CASES` decides where it is set, as for any proptest.

use std::env;

use proptest::prelude::ProptestConfig;

/// This many cases unless the environment says a number.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if env::var_os("PROPTEST_CASES").is_some() { config.cases } else { usual };
    ProptestConfig { cases, ..config }
}
