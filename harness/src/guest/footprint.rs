//! How much memory a program takes beside its guest's.
//!
//! **Invariant**: what the kernel cannot tell is not known, and never 0.

use std::ops::Range;

/// Bytes that are resident and in none of these ranges of our own addresses.
pub(super) fn beside(guests: &[Range<u64>]) -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/smaps").ok()?, any_of(guests))
}

fn any_of(guests: &[Range<u64>]) -> impl Fn(&Range<u64>) -> bool {
    move |range| guests.iter().any(|guest| guest.start < range.end && range.start < guest.end)
}

/// The same of another program, whose guest has so much memory in one piece: what is as large is that.
pub(crate) fn beside_memory_of(process: u32, memory: u64) -> Option<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{process}/smaps")).ok()?;
    resident(&smaps, |range| range.end - range.start >= memory)
}

fn resident(smaps: &str, is_guest: impl Fn(&Range<u64>) -> bool) -> Option<u64> {
    let (mut bytes, mut theirs) = (None::<u64>, false);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        let range = first.split_once('-').and_then(|(start, end)| {
            let address = |text| u64::from_str_radix(text, 16).ok();
            Some(address(start)?..address(end)?)
        });
        if let Some(range) = range {
            theirs = is_guest(&range);
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
        assert_eq!(resident(smaps, any_of(&[])), Some(13 << 10));
        let guests = [0x2000..0x2800, 0xAFFF..0xC000];
        assert_eq!(resident(smaps, any_of(&guests)), Some(4 << 10));
        let between = 0x3000..0x7F00;
        assert_eq!(resident(smaps, any_of(std::slice::from_ref(&between))), Some(13 << 10));
        assert_eq!(resident(smaps, |range| range.end - range.start >= 0x2000), Some(5 << 10));
        assert_eq!(resident("", |_| false), None);
        assert!(beside(&[]).is_some_and(|bytes| bytes > 1 << 20));
    }
}
