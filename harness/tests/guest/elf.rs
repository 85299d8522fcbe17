//! PVH images made by hand, byte by byte, and a machine for them.
#![allow(dead_code, reason = "shared by test binaries")]

/// A machine whose window lies below 4 GiB, where 32-bit code reaches it.
pub(crate) const LOW: &str = r#"
[platform]
memory = "64MiB"
[[bridge]]
name = "hb0"
uid = 16
[[port]]
name = "rp0"
below = "hb0"
number = 5
[[port]]
name = "rp1"
below = "hb0"
number = 6
[[device]]
name = "mem0"
below = "rp0"
volatile = "256MiB"
[[window]]
targets = ["hb0"]
base = "0x40000000"
size = "512MiB"
"#;

/// Where the code is loaded and entered.
pub(crate) const BASE: u32 = 0x10_0000;

/// Offsets in the file.
pub(crate) const LOAD: usize = 0x40;
pub(crate) const NOTE: usize = 0x78;
pub(crate) const NOTE_BYTES: usize = 0x100;
const CODE: usize = 0x200;

/// An ELF file for x86-64 with one segment of code at [`BASE`], and the PVH note.
pub(crate) fn image(code: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; CODE];
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put16(&mut bytes, 0x10, 2); // executable
    put16(&mut bytes, 0x12, 62); // x86-64
    put32(&mut bytes, 0x14, 1);
    put64(&mut bytes, 0x18, BASE.into()); // entry
    put64(&mut bytes, 0x20, LOAD as u64); // program headers
    put16(&mut bytes, 0x34, 0x40);
    put16(&mut bytes, 0x36, 0x38);
    put16(&mut bytes, 0x38, 2);
    let length = code.len() as u64;
    header(&mut bytes, LOAD, 1, CODE as u64, BASE.into(), length);
    header(&mut bytes, NOTE, 4, NOTE_BYTES as u64, 0, 20);
    put32(&mut bytes, NOTE_BYTES, 4);
    put32(&mut bytes, NOTE_BYTES + 4, 4);
    put32(&mut bytes, NOTE_BYTES + 8, 18);
    bytes[NOTE_BYTES + 12..][..4].copy_from_slice(b"Xen\0");
    put32(&mut bytes, NOTE_BYTES + 16, BASE);
    bytes.extend_from_slice(code);
    bytes
}

fn header(bytes: &mut [u8], at: usize, kind: u32, offset: u64, address: u64, length: u64) {
    put32(bytes, at, kind);
    put32(bytes, at + 4, 7);
    for (word, value) in [offset, address, address, length, length, 4].into_iter().enumerate() {
        put64(bytes, at + 8 + 8 * word, value);
    }
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
