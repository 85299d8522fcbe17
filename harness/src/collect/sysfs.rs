//! The CXL bus in sysfs as lines `PATH:VALUE` and `PATH -> TARGET`, as `grep` and `ls` print them.
//!
//! **Invariant**: attributes alone are read, which have no effect; what has more than a line, or is not
//! text, is left out.

use std::fs;

use super::Function;
use super::root::{self, Linux, address};

const BUS: &str = "sys/bus/cxl/devices";
/// The most objects, and the most attributes of one.
const MAX_OBJECTS: usize = 1 << 14;
const MAX_ATTRIBUTES: usize = 512;
/// Attributes have a page at most.
const MAX_VALUE: u64 = 4096;
/// Attributes that say nothing of a machine, or stand for an act.
const LEFT_OUT: [&str; 4] = ["uevent", "modalias", "loading", "data"];
/// Folders of attributes that are the object's own.
const GROUPS: [&str; 2] = ["ram", "pmem"];

/// Everything on the bus; empty where there is none.
pub(super) fn read(linux: &Linux) -> String {
    let mut text = String::new();
    for name in linux.names(BUS).into_iter().take(MAX_OBJECTS) {
        let path = format!("{BUS}/{name}");
        if let Ok(target) = fs::read_link(linux.path(&path)) {
            text += &format!("/{path} -> {}\n", target.display());
        }
        attributes(linux, &path, &mut text, true);
    }
    text
}

fn attributes(linux: &Linux, path: &str, text: &mut String, groups: bool) {
    for name in linux.names(path).into_iter().take(MAX_ATTRIBUTES) {
        let below = format!("{path}/{name}");
        let Ok(facts) = fs::symlink_metadata(linux.path(&below)) else { continue };
        if facts.is_symlink() {
            let Ok(target) = fs::read_link(linux.path(&below)) else { continue };
            *text += &format!("/{below} -> {}\n", target.display());
        } else if facts.is_dir() && groups && GROUPS.contains(&name.as_str()) {
            attributes(linux, &below, text, false);
        } else if facts.is_file() && !LEFT_OUT.contains(&name.as_str()) {
            // Some cannot be read, or not in the state that the object is in.
            let Ok(bytes) = root::read(&linux.path(&below), MAX_VALUE) else { continue };
            let Ok(value) = str::from_utf8(&bytes) else { continue };
            let value = value.trim_end();
            if !value.is_empty() && !value.contains(|c: char| c.is_control()) {
                *text += &format!("/{below}:{value}\n");
            }
        }
    }
}

/// What Linux calls memory devices, and how much memory it says that they have.
pub(super) fn memory_devices(linux: &Linux, functions: &mut [Function]) {
    for name in linux.names(BUS) {
        let digits = name.strip_prefix("mem").unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            continue;
        }
        let path = format!("{BUS}/{name}");
        let Ok(target) = fs::read_link(linux.path(&path)) else { continue };
        let host = target.parent().and_then(|host| host.file_name()?.to_str().and_then(address));
        let Some(function) = functions.iter_mut().find(|function| Some(function.at) == host) else {
            continue;
        };
        let bytes = |partition: &str| {
            let text = linux.word(&format!("{path}/{partition}/size"))?;
            u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        };
        function.capacity = bytes("ram").zip(bytes("pmem"));
        function.name = Some(name);
    }
}
