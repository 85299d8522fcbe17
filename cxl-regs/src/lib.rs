#![doc = include_str!("../README.md")]
//!
//! **Invariant**: nothing here reads or writes hardware but through a caller's [`mmio::Mmio`],
//! allocates, or panics on any input.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![allow(clippy::result_unit_err, reason = "the checked setters of bitfield-struct")]

pub mod access;
pub mod acpi;
pub mod addr;
pub mod bi;
pub mod block;
pub mod cache_id;
mod codes;
pub mod commit;
pub mod component;
pub mod config;
pub mod decoder;
pub mod dvsec;
pub mod hdm;
pub mod interleave;
pub mod layout;
pub mod mailbox;
pub mod mmio;
pub mod text;

pub use access::Component;
pub use addr::{DECODER_UNIT, Dpa, Hpa, Size, Span, SpanError};
pub use decoder::{Coherency, DecodeError, Decoder, Route, Targets};
pub use interleave::{
    Arithmetic, ComposeError, Granularity, Interleave, Levels, NotDecodable, Selector, Ways,
    XorMapError,
};
pub use text::{DecoderText, HdmText};
