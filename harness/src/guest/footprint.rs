//! How much memory this program takes beside the guest's.
//!
//! **Invariant**: what the kernel cannot tell is not known, and never 0.

use std::ops::Range;

/// Bytes that are resident and in none of these ranges of our own addresses.
pub(super) fn beside(guests: &[Range<u64>]) -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/smaps").ok()?, guests)
}

fn resident(smaps: &str, guests: &[Range<u64>]) -> Option<u64> {
    let (mut bytes, mut theirs) = (None::<u64>, false);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        let range = first.split_once('-').and_then(|(start, end)| {
            let address = |text| u64::from_str_radix(text, 16).ok();
            Some(address(start)?..address(end)?)
        });
        if let Some(range) = range {
            let meets = |guest: &Range<u64>| guest.start < range.end && range.start < guest.end;
            theirs = guests.iter().any(meets);
        } else if first == "Rss:" && !theirs {
            let kib: u64 = words.next()?.parse().ok()?;
            bytes = Some(bytes.unwrap_or(0) + (kib << 10));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_guest_is_not_counted() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0\nSize: 8 kB\nRss: 8 kB\n\
            7f00-8f00 r-xp 0 00:00 0 /bin/a-b\nRss:   4 kB\nPss: 2 kB\n\
            a000-b000 rw-p 0 00:00 0\nRss: 1 kB\n";
        assert_eq!(resident(smaps, &[]), Some(13 << 10));
        assert_eq!(resident(smaps, &[0x2000..0x2800, 0xAFFF..0xC000]), Some(4 << 10));
        let between = 0x3000..0x7F00;
        assert_eq!(resident(smaps, std::slice::from_ref(&between)), Some(13 << 10));
        assert_eq!(resident("", &[]), None);
        assert!(beside(&[]).is_some_and(|bytes| bytes > 1 << 20));
    }
}
