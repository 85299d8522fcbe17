//! Says where tests find their snapshots; nothing for the library.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Tests run in their package's folder: they read the snapshots of the tree that they run in. The
    // compiler names files from the workspace's folder, which is the package's own where it stands
    // alone.
    let root = if Path::new("../Cargo.toml").exists() { ".." } else { "." };
    println!("cargo:rustc-env=INSTA_WORKSPACE_ROOT={root}");
}
