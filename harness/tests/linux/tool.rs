//! The program `cxl` of a distribution, for a Linux that has nothing but busybox.
//!
//! **Invariant**: it is taken with the libraries that it was unpacked with, or not at all.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program `cxl` with all that it needs, by name in the guest and by file here.
pub(crate) fn tool() -> Result<Vec<(String, PathBuf)>, String> {
    let named = std::env::var_os("CXL").filter(|name| !name.is_empty()).map(PathBuf::from);
    let program = named.unwrap_or_else(|| "/usr/bin/cxl".into());
    if !program.is_file() {
        return Err(format!(
            "no {}: name the program of the package cxl with CXL=FILE (.ci/peers unpacks one)",
            program.display()
        ));
    }
    // Unpacked, it runs on the C library that is unpacked beside it.
    let root = program.ancestors().nth(3).unwrap_or(Path::new("/"));
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let loader = libraries.join("ld-linux-x86-64.so.2");
    let output = Command::new(&loader)
        .arg("--library-path")
        .arg(&libraries)
        .arg("--list")
        .arg(&program)
        .output()
        .map_err(|error| format!("{}: {error}", loader.display()))?;
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || list.contains("not found") {
        return Err(format!("{} needs what is not there:\n{list}", program.display()));
    }
    let needed = list.lines().filter_map(|line| {
        let (_, place) = line.split_once(" => ")?;
        let path = PathBuf::from(place.rsplit_once(" (")?.0);
        Some((path.file_name()?.to_str()?.to_owned(), path))
    });
    let mut files: Vec<_> = needed.collect();
    files.push(("loader".to_owned(), loader));
    files.push(("cxl".to_owned(), program));
    Ok(files)
}
