//! What was found as files: an image set, its dumps, and what Linux shows.
//!
//! **Invariant**: every reader here takes the bundle as a whole, in a directory or an archive; what was
//! withheld is in the set by name.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use cxl_lint::{Images, ImagesError};

use super::{Found, Function, Registers, Role};
use crate::dumped::{DEVICE_REGISTERS, SET, file_name, lspci_text, quoted};

/// A line `key = "text"`.
fn line(set: &mut String, key: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(set, "{key} = {}", quoted(text));
}

impl Found {
    /// The files, each with its name: the image set first.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let labels = self.labels();
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut set = String::from(
            "# A machine as it was found. `cxl-harness inspect`, `lint`, `explain` and `decode` take this\n\
             # folder, or an archive of it, anywhere.\n",
        );
        let anonymous = if self.anonymous { ", serial numbers left out" } else { "" };
        line(&mut set, "images", &format!("{}{anonymous}", self.subject));
        if let Some(kernel) = &self.kernel {
            line(&mut set, "kernel", kernel);
        }
        for (signature, table) in &self.tables {
            let name = format!("{}.dat", signature.to_lowercase());
            if signature == "CEDT" {
                line(&mut set, "cedt", &name);
            }
            files.push((name, table.clone()));
        }
        let witnesses = ["sysfs.txt", "iomem.txt"].into_iter();
        let witnesses: Vec<_> =
            witnesses.filter(|name| self.texts.contains_key(name)).map(quoted).collect();
        if !witnesses.is_empty() {
            let _ = writeln!(set, "witness = [{}]", witnesses.join(", "));
        }
        for (root, name) in self.roots.iter().zip(&labels.roots) {
            set += "\n[[bridge]]\n";
            line(&mut set, "name", name);
            if let Some(uid) = root.uid {
                let _ = writeln!(set, "uid = {uid}");
            }
            if let Some(address) = &root.address {
                line(&mut set, "address", address);
            }
            registers(&mut set, &mut files, name, &root.registers);
        }
        let mut functions = String::new();
        for (function, name) in self.functions.iter().zip(&labels.functions) {
            functions += &lspci_text(&function.at.to_string(), name, &function.config);
            self.function(&mut set, &mut files, function, name, &labels);
        }
        for withheld in &self.withheld {
            set += "\n[[withheld]]\n";
            line(&mut set, "what", &withheld.what);
            line(&mut set, "why", &withheld.why);
        }
        if !functions.is_empty() {
            files.push(("lspci.txt".to_owned(), functions.into_bytes()));
        }
        let texts = self.texts.iter().filter(|(_, text)| !text.is_empty());
        files.extend(texts.map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
        files.insert(0, (SET.to_owned(), set.into_bytes()));
        files
    }

    /// What every reader makes of those files.
    pub fn images(&self) -> Result<Images, ImagesError> {
        let files = self.files();
        let set = files.first().map(|(_, set)| String::from_utf8_lossy(set)).unwrap_or_default();
        Images::read(&set, Path::new(SET), &mut |wanted: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == wanted);
            let found = found.map(|(_, bytes)| bytes.clone());
            found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        })
    }

    fn function(
        &self,
        set: &mut String,
        files: &mut Vec<(String, Vec<u8>)>,
        function: &Function,
        name: &str,
        labels: &super::Labels,
    ) {
        let above = function.above.and_then(|above| {
            Some((self.functions.get(above)?.role(), labels.functions.get(above)?))
        });
        let root = labels.roots.get(function.root);
        let address = function.at.to_string();
        match function.role() {
            Role::Port(number) => {
                // A downstream port hangs below its switch's upstream port, a root port below the bridge.
                let below = above.filter(|(role, _)| *role == Role::Switch).map(|(_, name)| name);
                let Some(below) = below.or(root) else { return };
                *set += "\n[[port]]\n";
                line(set, "name", name);
                line(set, "below", below);
                let _ = writeln!(set, "number = {number}");
                line(set, "address", &address);
            }
            Role::Switch => {
                let below = above.filter(|(role, _)| matches!(role, Role::Port(_)));
                let Some((_, below)) = below else { return };
                *set += "\n[[switch]]\n";
                line(set, "name", name);
                line(set, "below", below);
                line(set, "address", &address);
                registers(set, files, name, &function.registers);
            }
            Role::Device => {
                *set += "\n[[device]]\n";
                line(set, "name", name);
                if let Some((Role::Port(_), below)) = above {
                    line(set, "below", below);
                }
                line(set, "address", &address);
                registers(set, files, name, &function.registers);
                line(set, "config", "lspci.txt");
                if let Some((volatile, persistent)) = function.capacity {
                    let _ = writeln!(set, "volatile = {volatile}\npersistent = {persistent}");
                }
                if let Some(status) = function.status {
                    let _ = writeln!(set, "status = {status:#x}");
                }
                if !function.device.is_empty() {
                    let mut text = format!(
                        "# CXL device registers of {name} ({address}): offset and dword. Not the mailbox's\n\
                         # control, command, status and payload.\n"
                    );
                    for (offset, dword) in &function.device {
                        let _ = writeln!(text, "{offset:#06x} {dword:#010x}");
                    }
                    let file = format!("{}.{DEVICE_REGISTERS}", file_name(name));
                    files.push((file, text.into_bytes()));
                }
            }
            Role::Other => {}
        }
    }
}

fn registers(
    set: &mut String,
    files: &mut Vec<(String, Vec<u8>)>,
    name: &str,
    registers: &Registers,
) {
    match registers {
        Registers::Unknown => {}
        Registers::None => line(set, "registers", "none"),
        Registers::Rcrb(dwords) => {
            let dwords = dwords.map(|dword| format!("{dword:#010x}")).join(", ");
            let _ = writeln!(set, "rcrb = [{dwords}]");
        }
        Registers::CacheMem(bytes) => {
            let file = format!("{}.bin", file_name(name));
            line(set, "registers", &file);
            files.push((file, bytes.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn any_text_is_one_of_toml() {
        let text = "a \"b\" \\ \u{1b}[0m\n\u{7f} \u{e9}";
        let parsed: toml::Table = toml::from_str(&format!("a = {}", quoted(text))).expect("TOML");
        assert_eq!(parsed.get("a").and_then(|value| value.as_str()), Some(text));
    }
}
