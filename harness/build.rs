//! Builds the bare-metal image, `cxl-image`, and what root runs inside a Linux, for the harness to
//! embed, and says where tests find their snapshots.
//!
//! A nested cargo builds it with a profile of its own: the image is freestanding and aborts on a
//! panic, which no profile of the harness does.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    for input in [
        "firmware/src",
        "firmware/Cargo.toml",
        "firmware/attack",
        "firmware/image",
        "firmware/mmio",
        "firmware/build.rs",
        "cxl-regs/src",
        "cxl-regs/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    // A directory of its own: the outer cargo holds the lock of the usual one.
    let target = PathBuf::from(variable("OUT_DIR")).join("image");
    let status = Command::new(variable("CARGO"))
        .current_dir(&workspace)
        .args(["build", "--locked", "--quiet", "--package", "cxl-image"])
        .args(["--bin", "image", "--bin", "root", "--features", "image"])
        .args(["--profile", "image", "--target-dir"])
        .arg(&target)
        // What the outer build asks of its compiler is not meant for the image.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building the bare-metal image ended with {status}"),
        Err(error) => panic!("cargo did not start: {error}"),
    }
    // Tests run in their package's folder: they read the snapshots of the tree that they run in.
    println!("cargo:rustc-env=INSTA_WORKSPACE_ROOT=..");
    println!("cargo:rustc-env=CXL_IMAGE={}", target.join("image/image").display());
    println!("cargo:rustc-env=CXL_ROOT={}", target.join("image/root").display());
}
