//! Link arguments of the freestanding binaries; nothing for the library.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/image.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_IMAGE").is_some() {
        let script = format!(
            "{}/src/image.ld",
            env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")
        );
        freestanding("image");
        freestanding("root");
        link_argument("root", "-s");
        for argument in [
            "-Wl,--build-id=none",
            "-Wl,-z,noexecstack",
            "-Wl,-z,max-page-size=4096",
            &format!("-Wl,-T,{script}"),
        ] {
            link_argument("image", argument);
        }
    }
    if env::var_os("CARGO_FEATURE_NOPANIC").is_some() {
        freestanding("nopanic");
        freestanding("restorer");
        // The proof with a hole in it, which `tests/no_panic.rs` asks for.
        println!("cargo:rustc-check-cfg=cfg(broken)");
    }
}

fn freestanding(binary: &str) {
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        link_argument(binary, argument);
    }
}

fn link_argument(binary: &str, argument: &str) {
    println!("cargo:rustc-link-arg-bin={binary}={argument}");
}
