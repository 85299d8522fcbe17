//! x
pub mod kvm;
