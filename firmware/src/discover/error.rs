//! What discovery waits for, and what it misses, as numbers of an error.
//!
//! **Invariant**: a number never changes its meaning; the sentence of its row has the words.

use cxl_regs::mailbox::Opcode;

use crate::config::Config;
use crate::error::{Code, Error, Failed, Fault, Place};

/// Why a bridge's root bus could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRootBus {
    /// The UID is no bus number.
    NotABusNumber = 0,
    /// No configuration region decodes a bus of that number.
    NotDecoded = 1,
    /// The caller gave that bus to another bridge.
    Claimed = 2,
    /// No root port on it carries a CXL DVSEC.
    NoCxlPorts = 3,
    /// Two segments have such a bus.
    SeveralSegments = 4,
}

/// What nobody assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unassigned {
    /// A port's secondary bus number is 0.
    BusNumbers,
    /// The BAR that register blocks lie in has address 0.
    Bar(u8),
    /// Both memory windows of a port are closed, and there are registers behind it.
    Windows,
}

impl Unassigned {
    /// The refusal where there is nothing to assign from.
    pub(crate) fn error(self, at: Place) -> Error {
        let mut fault = Fault::NONE;
        self.fail(&mut fault, at);
        fault.error()
    }

    /// The same, written where errors go.
    #[cold]
    #[inline(never)]
    pub(crate) fn fail(self, fault: &mut Fault, at: Place) -> Failed {
        let fault = fault.at(Code::DISCOVER_UNASSIGNED, at);
        match self {
            Self::BusNumbers => fault,
            Self::Bar(bar) => fault.detail(1u8).found(bar),
            Self::Windows => fault.detail(2u8),
        }
        .into()
    }
}

/// What a device was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Memory_Info_Valid of a range, counted from 1.
    InfoValid(u8),
    /// Memory_Active of a range, counted from 1.
    Active(u8),
    /// Mailbox ready and media ready in the Memory Device Status.
    DeviceReady,
    /// A mailbox that is free.
    MailboxFree,
    /// The end of a command.
    Command(Opcode),
}

impl Waited {
    /// The refusal where it did not come; `found` is the register that was asked.
    #[cold]
    #[inline(never)]
    pub(crate) fn timeout(self, config: &mut Config<'_>, found: u32, milliseconds: u32) -> Failed {
        let fault = config.refuse(Code::DISCOVER_TIMEOUT).expected(milliseconds).found(found);
        match self {
            Self::InfoValid(range) => fault.halves(0u8, range),
            Self::Active(range) => fault.halves(1u8, range),
            Self::DeviceReady => fault.detail(2u8),
            Self::MailboxFree => fault.detail(3u8),
            Self::Command(opcode) => fault.detail(4u8).found((found, opcode)),
        }
        .into()
    }
}
