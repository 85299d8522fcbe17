//! Device models: registers that behave as the specification says hardware does.
//!
//! Which bits a write can change comes from the access-class tables of `cxl-regs`; what a change
//! means (commit checks, locks, resets, decode) is decided here, without any code of the firmware.
//!
//! **Invariant**: a model knows nothing of the machine it sits in. What a register write means
//! outside of it is returned as an [`Effect`], and applied by the machine after the borrow has
//! ended.

pub mod bridge;
pub mod commands;
pub mod component;
pub mod config;
pub mod endpoint;
pub mod hdm;
pub mod mailbox;
pub mod media;
pub mod port;
pub mod registers;

/// The resets of CXL r3.1 section 9.7 and PCIe r6.0 section 6.6, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reset {
    /// Power was gone: nothing survives but persistent memory.
    Cold,
    /// Fundamental reset with power on.
    Warm,
    /// In-band reset of a link (secondary bus reset): sticky registers survive.
    Hot,
    /// CXL Reset of a device (Device DVSEC, Control2): locked registers survive.
    Cxl,
    /// Function Level Reset: CXL.io alone.
    Flr,
}

impl Reset {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cold, Self::Warm, Self::Hot, Self::Cxl, Self::Flr];

    /// Cold, warm and hot: the resets that open locks.
    pub const fn conventional(self) -> bool {
        matches!(self, Self::Cold | Self::Warm | Self::Hot)
    }

    /// Whether sticky registers keep their value.
    pub const fn keeps_sticky(self) -> bool {
        !matches!(self, Self::Cold | Self::Warm)
    }
}

/// What a register access means outside the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Where CXL memory addresses lead may have changed: decoders, ranges or enables.
    Remap,
    /// Where registers are found may have changed: BARs, windows, bus numbers, Memory Space.
    Relocate,
    /// The device asks for its own reset.
    ResetSelf(Reset),
    /// A bridge resets everything below it.
    ResetBelow,
}

/// What a register is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The specification's name.
    pub register: &'static str,
    /// Which decoder it belongs to.
    pub decoder: Option<u8>,
}

impl Name {
    /// A register of no decoder.
    pub const fn plain(register: &'static str) -> Self {
        Self { register, decoder: None }
    }
}
