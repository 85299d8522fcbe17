//! What the bare-metal image tells the harness that runs it: messages through a doorbell, and how
//! it ended.
//!
//! A message lies in guest memory; its address is written to [`PORT`]. Elsewhere nothing listens
//! there and nothing depends on it: no message decides what the firmware does.
//!
//! **Invariant**: [`Call::decode`] is the inverse of [`Call::encode`], and refuses everything else.

use cxl_attack::Event;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The I/O port of the doorbell.
pub const PORT: u16 = 0xF8;
/// The I/O port that ends a run with a [`Status`]: where QEMU's `isa-debug-exit` is put.
pub const EXIT_PORT: u16 = 0xF4;

/// How a run of the image ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Everything went well. QEMU exits with 33, twice the value and one.
    Success = 0x10,
    /// The library refused, or a check failed; the console says what. QEMU exits with 35.
    Refused = 0x11,
    /// A panic. QEMU exits with 37.
    Panic = 0x12,
}

impl Status {
    /// The byte that is written to [`EXIT_PORT`].
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Panic => "panic",
        }
    }

    /// What a byte says; `None` for one that the image never writes.
    pub fn decode(code: u8) -> Option<Self> {
        [Self::Success, Self::Refused, Self::Panic].into_iter().find(|s| s.code() == code)
    }
}

/// An address at which nothing is and the harness looks nothing up: what a bare exit costs.
pub const EMPTY_HANDLER: u64 = 0xF000_0000;

/// What the bench payload measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Figure {
    /// Every cache line in order: window, RAM.
    Sweep,
    /// Dependent accesses anywhere: window, RAM.
    Random,
    /// An access that the machine decodes, and one that nobody does.
    Trapped,
    /// The first access to each page: window, RAM.
    FirstTouch,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sweep, Self::Random, Self::Trapped, Self::FirstTouch];

    fn decode(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| u64::from(*figure as u8) == code)
    }
}

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
    pub words: [U64; 8],
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What comes next is meant to be an internal error; go on at this address then. Another call
    /// that comes first says that it did not happen.
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
        /// Accesses the library made to registers, in dwords: reads, of these those of configuration
        /// space, and writes.
        reads: u64,
        /// Reads of configuration space.
        config: u64,
        /// Writes.
        writes: u64,
        /// Reads of memory in a window, when it was probed.
        memory_reads: u64,
        /// Writes to it.
        memory_writes: u64,
        /// The library's error number; 0 for none.
        code: u64,
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
    /// A measured pair, in ticks of the time-stamp counter.
    Pair {
        /// What was measured.
        figure: Figure,
        /// The first of the pair.
        a: u64,
        /// The second.
        b: u64,
    },
    /// The host is to take the pages of two ranges away, so that their next touch is their first.
    Forget {
        /// One range.
        a: u64,
        /// The other.
        b: u64,
        /// Bytes of each.
        length: u64,
    },
    /// A place in a payload at which the host notes its counters.
    Mark {
        /// Which one; see the payload.
        id: u64,
    },
    /// What the attacker is about to do.
    Attack(Event),
    /// Registers that are read from now on are listed here: how many, then the address of each, in eight
    /// bytes each; [`MOST_LISTED`] at most. Whoever takes them puts 0 for their number.
    List {
        /// Where in guest memory.
        address: u64,
    },
}

/// Reads that are listed before somebody has to take them.
pub const MOST_LISTED: usize = 511;

impl Call {
    /// The message.
    pub fn encode(self) -> Message {
        let (kind, words) = match self {
            Self::ExpectInternalError { resume } => (1, [resume, 0, 0, 0, 0, 0, 0, 0]),
            Self::HandOff {
                address,
                length,
                reads,
                config,
                writes,
                memory_reads,
                memory_writes,
                code,
            } => (2, [address, length, reads, config, writes, code, memory_reads, memory_writes]),
            Self::Count { value } => (3, [value, 0, 0, 0, 0, 0, 0, 0]),
            Self::Check { id, passed, expected, found } => {
                (4, [id, u64::from(passed), expected, found, 0, 0, 0, 0])
            }
            Self::Pair { figure, a, b } => (7, [u64::from(figure as u8), a, b, 0, 0, 0, 0, 0]),
            Self::Forget { a, b, length } => (8, [a, b, length, 0, 0, 0, 0, 0]),
            Self::List { address } => (9, [address, 0, 0, 0, 0, 0, 0, 0]),
            Self::Mark { id } => (6, [id, 0, 0, 0, 0, 0, 0, 0]),
            Self::Attack(event) => {
                let [kind, a, b, c] = event.encode();
                (5, [kind, a, b, c, 0, 0, 0, 0])
            }
        };
        Message { kind: U64::new(kind), words: words.map(U64::new) }
    }

    /// What a message says; `None` for one that nobody sends.
    pub fn decode(message: &Message) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = message.words.map(U64::get);
        Some(match message.kind.get() {
            1 => Self::ExpectInternalError { resume: a },
            2 => Self::HandOff {
                address: a,
                length: b,
                reads: c,
                config: d,
                writes: e,
                memory_reads: g,
                memory_writes: h,
                code: f,
            },
            3 => Self::Count { value: a },
            4 => Self::Check { id: a, passed: b != 0, expected: c, found: d },
            7 => Self::Pair { figure: Figure::decode(a)?, a: b, b: c },
            8 => Self::Forget { a, b, length: c },
            9 => Self::List { address: a },
            6 => Self::Mark { id: a },
            5 => Self::Attack(Event::decode([a, b, c, d])?),
            _ => return None,
        })
    }
}
