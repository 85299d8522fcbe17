//! A machine to prove CXL firmware on: scenarios, device models, and where an address leads.

pub mod fabric;
pub mod layout;
pub mod mapping;
pub mod scenario;
