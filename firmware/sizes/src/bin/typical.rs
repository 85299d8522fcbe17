//! The typical profile: everything brought up, described, handed on, and restored after a reset.
//!
//! **Invariant**: every value comes from outside, so the optimiser knows nothing of it.

#![no_std]
#![no_main]

#[path = "../common.rs"]
mod common;
#[path = "../resume.rs"]
mod resume;
#[path = "../support.rs"]
mod support;

use common::{Caller, start};
use resume::{Resume, wake};

/// A boot, or a resume; the bytes of the record, or the number of the error above 32 bits.
#[unsafe(no_mangle)]
pub fn _start(caller: &mut Caller<'_>, resume: &mut Resume<'_>, resumes: bool) -> u64 {
    if resumes {
        return wake(resume);
    }
    match start(caller) {
        Ok(length) => length as u64,
        Err(error) => u64::from(error.code()) << 32,
    }
}
