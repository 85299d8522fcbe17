//! Says where tests find their snapshots; nothing for the library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Tests run in their package's folder: they read the snapshots of the tree that they run in.
    println!("cargo:rustc-env=INSTA_WORKSPACE_ROOT=..");
}
