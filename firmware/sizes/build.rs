//! Link arguments of the freestanding programs.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for program in ["minimal", "typical", "full"] {
        if env::var_os(format!("CARGO_FEATURE_{}", program.to_uppercase())).is_some() {
            for argument in
                ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"]
            {
                println!("cargo:rustc-link-arg-bin={program}={argument}");
            }
        }
    }
}
