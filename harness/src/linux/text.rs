//! What Linux sees, in a page: windows, decoders, regions, and what became of their memory.
//!
//! **Invariant**: every word comes from sysfs.

use std::fmt::{self, Display, Formatter};

use cxl_regs::Size;

use super::Facts;

const CXL: &str = "/sys/bus/cxl/devices";

/// The facts of a boot as text.
#[derive(Clone, Copy)]
pub struct FactsText<'f>(pub &'f Facts);

impl<'f> FactsText<'f> {
    fn text(self, name: &str, attribute: &str) -> &'f str {
        self.0.text(&format!("{CXL}/{name}/{attribute}")).unwrap_or("?")
    }

    fn number(self, name: &str, attribute: &str) -> u64 {
        self.0.number(&format!("{CXL}/{name}/{attribute}")).unwrap_or(0)
    }

    /// Devices of the CXL bus of this type.
    fn of_type(self, devtype: &'static str) -> impl Iterator<Item = &'f str> {
        self.0.devices("cxl").filter(move |name| self.text(name, "devtype") == devtype)
    }

    fn range(self, f: &mut Formatter<'_>, name: &str, start: &str) -> fmt::Result {
        let (start, size) = (self.number(name, start), self.number(name, "size"));
        write!(f, "  {name:<16}  {start:#018x}  {}", Size(size))?;
        let ways = self.number(name, "interleave_ways");
        if ways > 1 {
            write!(f, ", {ways}-way at {}", Size(self.number(name, "interleave_granularity")))?;
        }
        Ok(())
    }

    fn locked(self, name: &str) -> &'static str {
        if self.number(name, "locked") == 1 { "locked" } else { "not locked" }
    }

    /// What a decoder's port or endpoint belongs to: a bus, a PCI function or a memory device.
    fn owner(self, decoder: &str) -> &'f str {
        let path = self.0.link(&format!("{CXL}/{decoder}")).unwrap_or_default();
        let port = path.rsplit('/').nth(1).unwrap_or_default();
        let device = self.0.link(&format!("{CXL}/{port}/uport")).unwrap_or_default();
        device.rsplit('/').next().unwrap_or_default()
    }
}

impl Display for FactsText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let version = self.0.text("/proc/version").unwrap_or_default();
        let version = version.split(' ').nth(2).unwrap_or("of no version");
        writeln!(f, "what Linux {version} sees")?;
        writeln!(f, "windows")?;
        for name in self.of_type("cxl_decoder_root") {
            self.range(f, name, "start")?;
            writeln!(f, ", to bridges {}, {}", self.text(name, "target_list"), self.locked(name))?;
        }
        writeln!(f, "decoders")?;
        for (devtype, to) in [("cxl_decoder_switch", "ports"), ("cxl_decoder_endpoint", "DPA")] {
            for name in self.of_type(devtype).filter(|name| self.number(name, "size") > 0) {
                self.range(f, name, "start")?;
                let target = match to {
                    "DPA" => self.text(name, "dpa_resource"),
                    _ => self.text(name, "target_list"),
                };
                let (owner, locked) = (self.owner(name), self.locked(name));
                writeln!(f, ", of {owner}, to {to} {target}, {locked}")?;
            }
        }
        writeln!(f, "regions")?;
        for name in self.of_type("cxl_region") {
            self.range(f, name, "resource")?;
            let used = if self.number(name, "commit") == 1 { "in use" } else { "not in use" };
            writeln!(f, ", {}, {used}", self.text(name, "mode"))?;
        }
        writeln!(f, "memory")?;
        for name in self.0.devices("dax") {
            let at = |attribute: &str| format!("/sys/bus/dax/devices/{name}/{attribute}");
            let (start, size) = (self.0.number(&at("resource")), self.0.number(&at("size")));
            let (start, size) = (start.unwrap_or(0), size.unwrap_or(0));
            write!(f, "  {name:<16}  {start:#018x}  {}", Size(size))?;
            let node = self.0.text(&at("target_node")).unwrap_or("?");
            let memory = self.0.text(&format!("/sys/devices/system/node/node{node}/meminfo"));
            let total = memory.and_then(|text| text.lines().find(|line| line.contains("MemTotal")));
            let total = total.and_then(|line| line.split_whitespace().rev().nth(1)?.parse().ok());
            match total {
                Some(kib) if self.0.link(&at("driver")).is_some() => {
                    let kib: u64 = kib;
                    writeln!(f, ", System RAM: node {node} has {}", Size(kib << 10))?;
                }
                _ => writeln!(f, ", not online")?,
            }
        }
        for name in self.0.devices("nd") {
            let at = |attribute: &str| format!("/sys/bus/nd/devices/{name}/{attribute}");
            if self.0.text(&at("devtype")) == Some("nd_pmem") {
                let (start, size) = (self.0.number(&at("resource")), self.0.number(&at("size")));
                let (start, size) = (start.unwrap_or(0), size.unwrap_or(0));
                writeln!(f, "  {name:<16}  {start:#018x}  {}, persistent", Size(size))?;
            }
        }
        let said: Vec<_> = self.0.log().lines().filter(|line| complains(line)).collect();
        if !said.is_empty() {
            writeln!(f, "what it says of it")?;
            for line in said {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// Whether a line of the log is of the CXL drivers.
pub(super) fn complains(line: &str) -> bool {
    let text = line.split_once("] ").map_or(line, |(_, text)| text);
    text.starts_with("cxl") || text.starts_with("kmem ") || text.starts_with("nd_")
}
