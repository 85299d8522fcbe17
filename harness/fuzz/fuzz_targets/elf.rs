//! An image's file: what is to be loaded lies in the file and in free memory, and no two segments
//! meet.
#![no_main]

use cxl_harness::kvm::elf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let free = [0x1000..0x9_F000, 0x10_0000..0x1000_0000];
    let image = match elf::read(data, &free) {
        Ok(image) => image,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let file = data.as_ptr_range();
    let mut taken = Vec::new();
    for (base, bytes) in image.segments {
        let end = base + bytes.len() as u64;
        let room = free.iter().any(|free| free.start <= base && end <= free.end);
        assert!(room, "{base:#x}");
        let range = bytes.as_ptr_range();
        assert!(bytes.is_empty() || file.start <= range.start && range.end <= file.end);
        assert!(taken.iter().all(|&(start, stop)| end <= start || stop <= base), "{base:#x}");
        taken.push((base, end));
    }
    assert!(image.pvh.is_none_or(|at| free.iter().any(|free| free.contains(&at))));
});
