//! A machine without its serial numbers: each is replaced by a number that counts devices.
//!
//! Numbers stay where there were some, so that what Linux makes of a device with or without one is the same;
//! alike ones stay alike.
//!
//! **Invariant**: no file of an anonymous bundle has a serial number in any of the ways in which they are
//! written, or it is not made ([`Found::leaks`]).

use cxl_regs::block;
use cxl_regs::config::{Capabilities, CapabilityId, ExtendedCapabilities, ExtendedCapabilityId};

use super::Found;

/// Vital product data: an address and a window on text that may hold serial numbers (PCI Local Bus 3.0,
/// appendix I).
const VITAL_PRODUCT_DATA: u8 = 0x03;
/// Attributes of sysfs that name one device among all.
const NAMES: [&str; 2] = ["serial", "uuid"];
/// Shorter numbers are found only where something says that they are one.
const LEAST_DIGITS: usize = 6;

/// Where the Device Serial Numbers of a function are (PCIe Base 6.x section 7.9.3).
fn serials_at(config: &[u8]) -> Vec<usize> {
    let all = ExtendedCapabilities::new(block::image(config)).map_while(Result::ok);
    let found = all.filter(|found| found.id == ExtendedCapabilityId::SerialNumber);
    found.map(|found| usize::from(found.offset) + 4).collect()
}

fn serial_of(config: &[u8], at: usize) -> Option<u64> {
    config.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}

/// A serial number in every way that texts have it, the long ones first.
fn spellings(serial: u64) -> Vec<String> {
    let pairs = |dash: &str| {
        let pairs: Vec<_> = serial.to_be_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        pairs.join(dash)
    };
    let mut all = vec![pairs("-"), pairs(":"), format!("{serial:016x}"), format!("{serial:x}")];
    all.push(serial.to_string());
    all.retain(|text| text.len() >= LEAST_DIGITS);
    all.dedup();
    all
}

impl Found {
    /// Replaces every serial number.
    pub fn anonymise(&mut self) {
        let mut serials = self.serials();
        serials.retain(|serial| *serial != 0);
        let number = |serial: u64| {
            serials.iter().position(|known| *known == serial).map_or(0, |at| at as u64 + 1)
        };
        for function in &mut self.functions {
            let config = &mut function.config;
            for at in serials_at(config) {
                let Some(serial) = serial_of(config, at) else { continue };
                if let Some(place) = config.get_mut(at..at + 8) {
                    place.copy_from_slice(&number(serial).to_le_bytes());
                }
            }
            let capabilities = Capabilities::new(block::image(config)).map_while(Result::ok);
            let vital: Vec<_> = capabilities
                .filter(|found| found.id == CapabilityId::from_code(VITAL_PRODUCT_DATA))
                .map(|found| usize::from(found.offset))
                .collect();
            for at in vital {
                if let Some(window) = config.get_mut(at + 2..at + 8) {
                    window.fill(0);
                }
            }
        }
        for text in self.texts.values_mut() {
            let lines = text.lines().map(|line| {
                let mut line = named(line, &number);
                for (serial, index) in serials.iter().zip(1u64..) {
                    for spelling in spellings(*serial) {
                        line = replaced(&line, &spelling, &format!("{index:#x}"));
                    }
                }
                line + "\n"
            });
            *text = lines.collect();
        }
        self.anonymous = true;
    }

    /// All serial numbers that are known, each once.
    pub fn serials(&self) -> Vec<u64> {
        let configs = self.functions.iter().map(|function| &function.config);
        let of = |config: &'_ Vec<u8>| {
            let all = serials_at(config).into_iter();
            all.filter_map(|at| serial_of(config, at)).collect::<Vec<_>>()
        };
        let mut serials: Vec<u64> = configs.flat_map(of).collect();
        let lines = self.texts.values().flat_map(|text| text.lines());
        serials.extend(lines.filter_map(|line| {
            let (path, value) = line.rsplit_once(':')?;
            let number = |value: &str| u64::from_str_radix(value.strip_prefix("0x")?, 16).ok();
            path.ends_with("/serial").then(|| number(value)).flatten()
        }));
        serials.sort_unstable();
        serials.dedup();
        serials
    }

    /// The first file that has one of these serial numbers in it.
    pub fn leaks(files: &[(String, Vec<u8>)], serials: &[u64]) -> Option<String> {
        let rare = |serial: &&u64| format!("{serial:x}").len() >= LEAST_DIGITS;
        for (name, bytes) in files {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            // Rows of bytes break where they like.
            let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
            for serial in serials.iter().filter(rare) {
                let raw = [serial.to_le_bytes(), serial.to_be_bytes()];
                let raw = raw.iter().any(|raw| bytes.windows(8).any(|window| window == raw));
                let rows = format!("{:016x}", serial.swap_bytes());
                let long = *serial > u64::from(u32::MAX);
                let spelt = spellings(*serial).iter().any(|spelling| text.contains(spelling));
                if raw || spelt || long && digits.contains(&rows) {
                    return Some(name.clone());
                }
            }
        }
        None
    }
}

/// A line of sysfs or of the log whose value is said to be a serial number, without it.
fn named(line: &str, number: &impl Fn(u64) -> u64) -> String {
    if let Some((path, value)) = line.rsplit_once(':')
        && path.starts_with("/sys/")
    {
        let name = path.rsplit('/').next().unwrap_or_default();
        return match name {
            "serial" => {
                let known =
                    value.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
                format!("{path}:{:#x}", known.map_or(0, number))
            }
            // uuids name namespaces and regions that somebody made; they have no meaning here.
            name if NAMES.iter().any(|it| name.contains(it)) => format!("{path}:0"),
            _ => line.to_owned(),
        };
    }
    let small = line.to_lowercase();
    let Some(at) = small.find("serial").filter(|_| small.len() == line.len()) else {
        return line.to_owned();
    };
    // What follows the word, up to the first thing that is no digit.
    let behind = |text: &str| text.find(|c: char| c.is_ascii_digit()).map(|gap| at + gap);
    let tail = line.get(at..).unwrap_or_default();
    let Some(start) = behind(tail) else { return line.to_owned() };
    let between = line.get(at..start).unwrap_or_default();
    let says = between.len() <= "serial number is: 0x".len();
    let length = line.get(start..).unwrap_or_default();
    let end = length.find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, 'x' | '-' | ':')));
    let end = end.map_or(line.len(), |end| start + end);
    match (says, line.get(..start), line.get(end..)) {
        (true, Some(head), Some(rest)) => format!("{head}(left out){rest}"),
        _ => line.to_owned(),
    }
}

/// A line with another text for each time that one stands there by itself, in small letters or capitals.
fn replaced(line: &str, text: &str, by: &str) -> String {
    let small = line.to_ascii_lowercase();
    let (mut out, mut done) = (String::new(), 0);
    for (at, _) in small.match_indices(text) {
        let behind = small.get(at + text.len()..).unwrap_or_default();
        let mut before = small.get(..at).unwrap_or_default();
        let prefix = before.ends_with("0x");
        before = before.strip_suffix("0x").unwrap_or(before);
        let alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric())
            && !behind.starts_with(|c: char| c.is_ascii_alphanumeric());
        if alone && at >= done {
            let start = if prefix { at - 2 } else { at };
            out += line.get(done..start).unwrap_or_default();
            out += by;
            done = at + text.len();
        }
    }
    out + line.get(done..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_goes_in_every_spelling() {
        let serial = 0x0011_22AA_BBCC_DD01;
        for (line, want) in [
            (
                "/sys/bus/cxl/devices/mem0/serial:0x1122aabbccdd01",
                "/sys/bus/cxl/devices/mem0/serial:0x1",
            ),
            (
                "[    1.000000] cxl mem0: DSN 00-11-22-AA-bb-cc-dd-01 seen",
                "[    1.000000] cxl mem0: DSN 0x1 seen",
            ),
            ("x 001122aabbccdd01.", "x 0x1."),
            ("x 0x1122aabbccdd01", "x 0x1"),
            ("x 4822878108180737", "x 4822878108180737"),
            ("cxl: serial number: 77", "cxl: serial number: (left out)"),
            (
                "nd_region: invalid or missing serial number",
                "nd_region: invalid or missing serial number",
            ),
            ("cxl: a51122aabbccdd01", "cxl: a51122aabbccdd01"),
        ] {
            let mut found = Found::default();
            let mut text = format!("{line}\n");
            // Known by another line.
            text += "/sys/bus/cxl/devices/mem9/serial:0x1122aabbccdd01\n";
            found.texts.insert("sysfs.txt", text);
            assert_eq!(found.serials(), [serial]);
            found.anonymise();
            let lines: Vec<_> = found.texts["sysfs.txt"].lines().collect();
            assert_eq!(lines[0], want);
        }
        assert!(spellings(serial).contains(&serial.to_string()));
    }

    #[test]
    fn a_file_with_one_is_named() {
        let serial = 0x0011_22AA_BBCC_DD01u64;
        let clean = ("clean".to_owned(), b"0011 2233".to_vec());
        for bytes in [
            serial.to_le_bytes().to_vec(),
            b"serial 0x1122AABBCCDD01".to_vec(),
            b"140: 01 dd cc bb aa 22 11 00\n".to_vec(),
            serial.to_string().into_bytes(),
        ] {
            let files = [clean.clone(), ("here".to_owned(), bytes)];
            assert_eq!(Found::leaks(&files, &[serial]).as_deref(), Some("here"));
        }
        assert_eq!(Found::leaks(&[clean], &[serial, 1]), None);
    }
}
