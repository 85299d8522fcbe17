//! A machine to prove CXL firmware on: a KVM guest, the attack on its locks, judges and reports.
//!
//! Models of machines are a crate of their own, `cxl-model`: tests of firmware and VMMs need nothing
//! of this one, which runs real code on them. To run this repository's firmware library on a machine,
//! and get everything that the command line prints, use [`run::direct`] and
//! [`Report::of_direct`](report::Report::of_direct); to boot an image, [`guest::boot`].
//!
//! **Invariant**: who judges a run shares no logic with who made it: registers are judged by the
//! models' decode, addresses by memory, and Linux's view by Linux.

pub mod attack;
pub mod bench;
pub mod collect;
pub mod conformance;
pub mod console;
pub mod dma;
pub mod dumped;
pub mod guest;
pub mod html;
pub mod inspect;
pub mod kvm;
pub mod linux;
pub mod locks;
pub mod mirror;
pub mod nested;
pub mod prove;
pub mod qemu;
pub mod remedies;
pub mod report;
pub mod run;
pub mod suite;
pub mod svg;
pub mod terminal;
mod timing;
pub mod vigil;
pub mod virtio;
mod xml;
