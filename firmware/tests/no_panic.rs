//! The proof that the library cannot panic, as a test: the image that links only without a panic
//! path links, and the same image with a panic path put in does not.
//!
//! **Invariant**: the second half is what the first is worth: a proof that cannot fail proves
//! nothing.

use std::path::Path;
use std::process::{Command, Output};

/// Builds `src/bin/nopanic` with a nested cargo, as `harness/build.rs` builds the image: with a
/// directory of its own, and nothing of what the outer build asks of its compiler.
fn link(features: &str, opt_level: &str) -> Output {
    Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--locked", "--bin", "nopanic", "--features", features])
        .args(["--profile", "image", "--target-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nopanic"))
        .env("CARGO_PROFILE_IMAGE_OPT_LEVEL", opt_level)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo starts")
}

#[test]
fn an_image_of_every_verb_links_without_a_panic_path() {
    for opt_level in ["s", "2", "3"] {
        let output = link("nopanic", opt_level);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "at opt-level {opt_level} a panic path is left, or the image does not build:\n{errors}"
        );
    }
}

#[test]
fn one_index_that_may_be_out_of_bounds_keeps_it_from_linking() {
    let output = link("nopanic-broken", "3");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a panic path was put in, and the image links");
    assert!(errors.contains("cxl_firmware_can_panic"), "it failed for another reason:\n{errors}");
}
