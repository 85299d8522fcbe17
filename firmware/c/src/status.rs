//! What a function gives back, and where an argument is wrong.
//!
//! **Invariant**: 0 is success and nothing below 0 is; a number never changes its meaning. What the
//! library refuses has its own numbers, which are in [`cxl_error`].

use cxl_firmware::error::{Code, Error, Place};

/// What a function gives back: 0 is success, 1 a success with losses, below 0 nothing was done, or
/// what `cxl_last_error` says.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_status {
    /// Done.
    Ok = 0,
    /// Done, with losses that the policy allows: see the components' outcomes.
    Less = 1,
    /// The library refuses, or something failed: `cxl_last_error` has its number.
    Refused = -1,
    /// A pointer or a callback that is needed is NULL.
    Null = -2,
    /// A pointer is not aligned as its type needs, or the workspace's memory is not to
    /// `CXL_WORKSPACE_ALIGN`.
    Unaligned = -3,
    /// A buffer, or the workspace's memory, is too short; where a function tells lengths, it tells
    /// what is enough.
    Short = -4,
    /// The field `size` of a struct is smaller than the first version of the struct was, or larger
    /// than this library knows with something behind that is not 0.
    Size = -5,
    /// A value means nothing: `cxl_last_error` has the argument, the entry and the value.
    Argument = -6,
    /// Too early: what the function works on was not made yet.
    Order = -7,
    /// More entries than the workspace was made for: `cxl_last_error` has the argument, and how
    /// many it has room for.
    Room = -8,
    /// The list has no such entry.
    End = -9,
    /// This is no workspace that `cxl_workspace_init` made, or it lies elsewhere now.
    Workspace = -10,
    /// A callback called a function with the workspace that called it.
    Busy = -11,
}

/// What an argument is, where one is refused: the field `detail` of a `cxl_error` whose `code` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_argument {
    /// None.
    None = 0,
    /// `cxl_limits`: a number is above 65535, or the memory would have more bytes than there are.
    Limits = 1,
    /// `cxl_ecam`: `first_bus` lies behind `last_bus`.
    EcamBuses = 2,
    /// `cxl_bridge.kind`: see `cxl_bridge_kind`.
    BridgeKind = 3,
    /// `cxl_window.ways`: 1, 2, 3, 4, 6, 8, 12 or 16.
    Ways = 4,
    /// `cxl_window.granularity`: 256 to 16384, a power of two.
    Granularity = 5,
    /// `cxl_window.arithmetic`: see `cxl_arithmetic`.
    Arithmetic = 6,
    /// `cxl_window.target_count`: 16 at most.
    Targets = 7,
    /// `cxl_window.xor_map_count`: 4 at most.
    XorMaps = 8,
    /// `cxl_range`: no bytes, or it would pass the end of the address space.
    Range = 9,
    /// `cxl_platform`: ECAM regions, bridges or windows beside tables that have them.
    TablesAndValues = 10,
    /// `cxl_path.port_count`: 16 at most.
    Path = 11,
    /// `cxl_policy.path`: see `cxl_path_policy`.
    PathPolicy = 12,
    /// `cxl_policy.target`: see `cxl_target`.
    Target = 13,
    /// `cxl_width.kind`: see `cxl_width_kind`.
    WidthKind = 14,
    /// `cxl_policy.prefer`: see `cxl_prefer`.
    Prefer = 15,
    /// `cxl_policy.probe`: see `cxl_probe_policy`.
    Probe = 16,
    /// `cxl_policy.on_failure`: see `cxl_on_failure`.
    OnFailure = 17,
    /// `cxl_policy.broken_sets`: see `cxl_broken_sets`.
    BrokenSets = 18,
    /// `partition`: see `cxl_partition`.
    Partition = 19,
    /// `cxl_leave_out.kind`: see `cxl_leave_out_kind`.
    LeaveOut = 20,
    /// `cxl_set_request.member_count`: 16 at most.
    Members = 21,
    /// A flag that is neither 0 nor 1.
    Flag = 22,
    /// A field for later that is not 0.
    Reserved = 23,
    /// ECAM regions.
    EcamCount = 24,
    /// Bridges.
    BridgeCount = 25,
    /// Windows.
    WindowCount = 26,
    /// Ranges of address space, of one list.
    RangeCount = 27,
    /// Root buses.
    RootCount = 28,
    /// Entries of a list of the policy.
    PolicyCount = 29,
    /// `which` of `cxl_error_count` and `cxl_error_at`: see `cxl_error_list`.
    ErrorList = 30,
    /// `pci` of `cxl_restore`: see `cxl_pci`.
    Pci = 31,
    /// `cxl_hardware`: one callback for configuration space without the other.
    ConfigCallbacks = 32,
    /// The workspace's memory: it has `found` bytes, and needs `expected`.
    Memory = 33,
    /// A length that no object of this machine has.
    Length = 34,
}

/// Why something was refused, what was found wrong, or what is worth knowing: a number, a place, what
/// was expected and what was found.
///
/// `code` is the library's number, whose upper byte is the phase (`cxl_phase_name`); the documentation
/// of `cxl_firmware::Code` has each in words. 0 is either no error, or an argument that was refused:
/// then `detail` is a `cxl_argument` and `place[2]` the entry of its list, counted from 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct cxl_error {
    /// The number; 0 for an argument, or none.
    pub code: u16,
    /// A small number, if the kind has one.
    pub detail: u16,
    /// Where. The lowest four bits of the first number say what it names: 0 nothing, 1 a component,
    /// 2 a decoder, 3 a function, 4 a window, 5 a device in a window, 6 a range, 7 an entry of a list,
    /// 8 a byte of a table, 9 a table. Of 1, 2, 3 and 5 the third number is the bridge's UID; of 4 and
    /// 6 the other two are 64 bits, the upper half first.
    pub place: [u32; 3],
    /// What it should be.
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

const _: () = assert!(size_of::<cxl_error>() == size_of::<Error>());

impl From<Error> for cxl_error {
    fn from(error: Error) -> Self {
        let Error { code, detail, at, expected, found } = error;
        Self { code: code.number(), detail, place: at.numbers(), expected, found }
    }
}

impl cxl_error {
    /// The library's error; `None` for an argument.
    pub(crate) fn library(self) -> Option<Error> {
        let Self { code, detail, place, expected, found } = self;
        let code = Code::new(code)?;
        Some(Error { code, detail, at: Place::of_numbers(place), expected, found })
    }
}

/// Why a function did not do what it was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// A status says it all.
    Status(cxl_status),
    /// An argument's value.
    Argument { status: cxl_status, error: cxl_error },
    /// The library refuses.
    Library(Error),
}

impl Failure {
    /// A value that means nothing, in this entry of its list.
    pub(crate) fn argument(what: cxl_argument, entry: usize, found: u64) -> Self {
        Self::at(cxl_status::Argument, what, entry, 0, found)
    }

    /// More entries than there is room for.
    pub(crate) fn room(what: cxl_argument, room: usize, found: usize) -> Self {
        Self::at(cxl_status::Room, what, 0, room as u64, found as u64)
    }

    pub(crate) fn at(
        status: cxl_status,
        what: cxl_argument,
        entry: usize,
        expected: u64,
        found: u64,
    ) -> Self {
        let entry = u32::try_from(entry).unwrap_or(u32::MAX);
        let error =
            cxl_error { code: 0, detail: what as u16, place: [0, 0, entry], expected, found };
        Self::Argument { status, error }
    }

    /// The status, and what `cxl_last_error` is to say.
    pub(crate) fn parts(self) -> (cxl_status, cxl_error) {
        match self {
            Self::Status(status) => (status, cxl_error::default()),
            Self::Argument { status, error } => (status, error),
            Self::Library(error) => (cxl_status::Refused, error.into()),
        }
    }
}

impl From<cxl_status> for Failure {
    fn from(status: cxl_status) -> Self {
        Self::Status(status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}
