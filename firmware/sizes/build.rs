//! Link arguments of the freestanding programs.

use std::env;

/// For a linker that is a C compiler, as of targets with an operating system.
const HOSTED: &[&str] =
    &["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"];

/// Where QEMU's machine `virt` has RAM, with room below for what QEMU puts there.
const BARE_AARCH64: &[&str] = &["--image-base=0x40200000"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let arguments = match (target("OS").as_str(), target("ARCH").as_str()) {
        ("none", "aarch64") => BARE_AARCH64,
        ("none", _) => &[],
        _ => HOSTED,
    };
    for program in ["minimal", "typical", "full", "stack"] {
        if env::var_os(format!("CARGO_FEATURE_{}", program.to_uppercase())).is_some() {
            for argument in arguments {
                println!("cargo:rustc-link-arg-bin={program}={argument}");
            }
        }
    }
}
