//! Where dwords sit in the structures that are reached as memory, and how each may be accessed: layouts
//! of `tock-registers`, which a crate that maps registers casts its pointer to.
//!
//! What the bits mean is said by the register types of [`hdm`](crate::hdm) and
//! [`component`](crate::component), which take their offsets from here.
//!
//! **Invariant**: no cell is read or written in this crate.

#![allow(missing_docs, reason = "fields are named as the registers are")]

use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

register_structs! {
    /// The capability array at the start of a CXL.cache/mem range (CXL r3.1 section 8.2.4.1), with
    /// as many entries as its size field can name.
    pub CapabilityArray {
        (0x000 => pub header: ReadOnly<u32>),
        (0x004 => pub entries: [ReadOnly<u32>; 255]),
        (0x400 => @END),
    },
    /// One HDM decoder: eight dwords (CXL r3.1 section 8.2.4.20).
    pub DecoderBlock {
        (0x00 => pub base_low: ReadWrite<u32>),
        (0x04 => pub base_high: ReadWrite<u32>),
        (0x08 => pub size_low: ReadWrite<u32>),
        (0x0C => pub size_high: ReadWrite<u32>),
        (0x10 => pub control: ReadWrite<u32>),
        (0x14 => pub route_low: ReadWrite<u32>),
        (0x18 => pub route_high: ReadWrite<u32>),
        (0x1C => _reserved),
        (0x20 => @END),
    },
    /// The HDM decoder structure, with as many decoders as its count field can name.
    pub HdmBlock {
        (0x00 => pub capability: ReadOnly<u32>),
        (0x04 => pub global_control: ReadWrite<u32>),
        (0x08 => _reserved),
        (0x10 => pub decoders: [DecoderBlock; 32]),
        (0x410 => @END),
    }
}
