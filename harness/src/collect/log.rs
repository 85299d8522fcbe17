//! The lines of the kernel's log that have to do with CXL, ACPI and the memory behind them.
//!
//! **Invariant**: the log is read to its present end and no further, and nobody waits for it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The most bytes of a log, and what the kernel gives at once at most.
const MAX_LOG: usize = 16 << 20;
const RECORD: usize = 8192;
/// What a line has to name, in small letters.
const WANTED: [&str; 7] = ["cxl", "acpi", "cedt", "dax", "hmem", "soft reserved", "nvdimm"];

/// The lines as `dmesg` prints them.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    let mut record = vec![0; RECORD];
    while bytes.len() < MAX_LOG {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => bytes.extend(record.iter().take(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // It was overwritten before it was read: the next one is there.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted(&String::from_utf8_lossy(&bytes)))
}

/// The wanted lines of records (`6,339,5140900,-;text`); what follows one with a blank in front is its
/// dictionary.
fn wanted(records: &str) -> String {
    let mut lines = String::new();
    for line in records.lines() {
        let Some((head, text)) = line.split_once(';') else { continue };
        let time = head.split(',').nth(2).and_then(|time| time.parse::<u64>().ok());
        let Some(time) = time.filter(|_| !line.starts_with(' ')) else { continue };
        let small = text.to_lowercase();
        if WANTED.iter().any(|word| small.contains(word)) {
            let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
            lines += &format!("[{seconds:>5}.{micros:06}] {text}\n");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cxl_come_out_as_dmesg_has_them() {
        let records = "6,1,0,-;Linux version 7.3\n6,2,12000345,-;ACPI: CEDT 0x7FFF1000 000064\n \
                       SUBSYSTEM=acpi\n4,3,13000001,-;cxl_port endpoint2: failed\n6,4,14,-;usb 1-1: new\n";
        let want = "[   12.000345] ACPI: CEDT 0x7FFF1000 000064\n[   13.000001] cxl_port endpoint2: failed\n";
        assert_eq!(wanted(records), want);
    }
}
