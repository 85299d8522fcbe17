//! What the bare-metal image tells the harness that runs it: messages through a doorbell.
//!
//! A message lies in guest memory; its address is written to [`PORT`]. Elsewhere nothing listens
//! there and nothing depends on it: no message decides what the firmware does.
//!
//! **Invariant**: [`Call::decode`] is the inverse of [`Call::encode`], and refuses everything else.

use crate::attack::Event;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The I/O port of the doorbell.
pub const PORT: u16 = 0xF8;

/// A message as it lies in memory.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Message {
    /// Which call.
    pub kind: U64,
    /// Its arguments.
    pub words: [U64; 5],
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The next internal error is meant to happen; go on at this address then.
    ExpectInternalError {
        /// Where to go on.
        resume: u64,
    },
    /// The firmware is done and has written its hand-off record.
    HandOff {
        /// Where it lies in guest memory.
        address: u64,
        /// Bytes.
        length: u64,
        /// Accesses the library made: reads, then writes.
        reads: u64,
        /// Writes.
        writes: u64,
    },
    /// A counter that goes on while the guest lives.
    Count {
        /// Its value.
        value: u64,
    },
    /// A check of a payload.
    Check {
        /// Which one; see the payload.
        id: u64,
        /// Whether it passed.
        passed: bool,
        /// What was expected.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// What the attacker is about to do.
    Attack(Event),
}

impl Call {
    /// The message.
    pub fn encode(self) -> Message {
        let (kind, words) = match self {
            Self::ExpectInternalError { resume } => (1, [resume, 0, 0, 0, 0]),
            Self::HandOff { address, length, reads, writes } => {
                (2, [address, length, reads, writes, 0])
            }
            Self::Count { value } => (3, [value, 0, 0, 0, 0]),
            Self::Check { id, passed, expected, found } => {
                (4, [id, u64::from(passed), expected, found, 0])
            }
            Self::Attack(event) => {
                let [kind, a, b, c] = event.encode();
                (5, [kind, a, b, c, 0])
            }
        };
        Message { kind: U64::new(kind), words: words.map(U64::new) }
    }

    /// What a message says; `None` for one that nobody sends.
    pub fn decode(message: &Message) -> Option<Self> {
        let [a, b, c, d, _] = message.words.map(U64::get);
        Some(match message.kind.get() {
            1 => Self::ExpectInternalError { resume: a },
            2 => Self::HandOff { address: a, length: b, reads: c, writes: d },
            3 => Self::Count { value: a },
            4 => Self::Check { id: a, passed: b != 0, expected: c, found: d },
            5 => Self::Attack(Event::decode([a, b, c, d])?),
            _ => return None,
        })
    }
}
