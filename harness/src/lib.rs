//! x
pub mod dump;
