#![doc = include_str!("../README.md")]
//!
//! **Invariant**: nothing here decides anything about CXL: values of C become values of
//! [`cxl_firmware`], and back. No allocation, no global state, no unwinding; all unsafe code is about
//! pointers and callbacks of C, and argued from the contract at the top of `border.rs`.
#![no_std]
#![deny(missing_docs)]
#![allow(non_camel_case_types, reason = "C's names")]

#[cfg(test)]
extern crate std;

mod border;
mod line;

mod status;

mod hardware;
mod platform;
mod policy;

mod workspace;

mod phases;
mod results;
mod tables;

pub use hardware::cxl_hardware;
pub use phases::{
    cxl_add, cxl_bring_up, cxl_commit, cxl_discover, cxl_inspect, cxl_plan, cxl_probe,
    cxl_set_platform, cxl_set_policy, cxl_size_windows, cxl_undo, cxl_verify,
};
pub use platform::*;
pub use policy::*;
pub use results::*;
pub use status::{cxl_argument, cxl_error, cxl_status};
pub use tables::*;
pub use workspace::{
    CXL_WORKSPACE_ALIGN, cxl_limits, cxl_workspace, cxl_workspace_init, cxl_workspace_size,
};

/// Changes where a function or a struct of this header changes its meaning.
pub const CXL_API: u32 = 1;

/// `CXL_API` of the library that is linked.
#[unsafe(no_mangle)]
pub extern "C" fn cxl_api() -> u32 {
    CXL_API
}

/// The archive's end of a panic: no path leads here (see the README), and nothing could be done.
#[cfg(feature = "archive")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
