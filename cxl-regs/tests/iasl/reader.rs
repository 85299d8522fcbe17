//! ACPICA's disassembler as a reader of tables: whether it is there, and what it prints. The tests of
//! this crate and of the harness use it.
//!
//! **Invariant**: of what is printed only offset, length, name and value are taken; what they should
//! be, the tests say.
//!
//! Only disassembly is used: iasl's data table compiler takes a window to have one target for any
//! ways but 1, 2, 4 and 8. `IASL` names another binary than the one in the path.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Offset and length in bytes, name and value of a field, as iasl prints them.
pub(crate) type Field = (usize, usize, String, String);

fn iasl() -> OsString {
    env::var_os("IASL").unwrap_or_else(|| "iasl".into())
}

/// Why nothing can be tried here, with the remedy: there is no iasl, or, where the table is a CEDT,
/// one that does not know it (releases of 2021 and later do).
pub(crate) fn lack(cedt: bool) -> Option<String> {
    let Ok(output) = Command::new(iasl()).arg("-v").output() else {
        return Some("iasl is not installed: install acpica-tools, or name one with IASL".into());
    };
    let banner = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = banner.split_once("version ").map_or("", |(_, version)| version);
    let version: String = version.chars().take_while(char::is_ascii_digit).collect();
    let knows = !cedt || version.parse().is_ok_and(|date: u32| date > 20_210_000);
    (!knows).then(|| format!("iasl {version} does not know the CEDT: name another with IASL"))
}

/// The disassembly of a table that iasl finds nothing wrong with.
pub(crate) fn disassembled(name: &str, table: &[u8]) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("iasl -d {name}: {error}");
    let directory = tempfile::tempdir().map_err(failed)?;
    let path = directory.path().join(format!("{name}.dat"));
    fs::write(&path, table).map_err(failed)?;
    let mut command = Command::new(iasl());
    let output = command.arg("-d").arg(&path).current_dir(&directory).output().map_err(failed)?;
    if !output.status.success() {
        return Err(format!("iasl -d {name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = fs::read_to_string(Path::with_extension(&path, "dsl")).map_err(failed)?;
    match text.contains("Incorrect") || text.contains("Invalid") {
        true => Err(text),
        false => Ok(text),
    }
}

/// The fields of a disassembly: `[024h 0036 001h]  Name : Value`, in older releases
/// `[024h 0036   1]  Name : Value`.
pub(crate) fn fields(text: &str) -> Vec<Field> {
    let field = |line: &str| {
        let (place, rest) = line.strip_prefix('[')?.split_once(']')?;
        let mut place = place.split_whitespace();
        let offset = usize::from_str_radix(place.next()?.strip_suffix('h')?, 16).ok()?;
        let length = place.nth(1)?;
        let length = match length.strip_suffix('h') {
            Some(hex) => usize::from_str_radix(hex, 16).ok()?,
            None => length.parse().ok()?,
        };
        let (name, value) = rest.split_once(" : ")?;
        // A code is followed by its name in brackets.
        let value = value.split('[').next()?.trim();
        Some((offset, length, name.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(field).collect()
}
