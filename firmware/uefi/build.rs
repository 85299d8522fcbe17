//! The driver is the same file wherever and whenever it is built: without this the linker writes the time
//! into its header, and a name for a file of symbols that depends on the folder.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Of a target, not of what this runs on.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "uefi") {
        println!("cargo:rustc-link-arg-bins=/Brepro");
        println!("cargo:rustc-link-arg-bins=/DEBUG:NONE");
    }
}
