//! Kernel versions, and what changed in Linux's CXL drivers between them.
//!
//! **Invariant**: a behaviour that differs between kernels is one [`Change`] here, with the release
//! that brought it and the stable releases that took it over. No rule compares version numbers.

use std::fmt;
use std::str::FromStr;

/// A kernel version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    /// 6 of 6.12.80.
    pub major: u16,
    /// 12 of 6.12.80.
    pub minor: u16,
    /// 80 of 6.12.80.
    pub patch: u16,
}

/// Stands for the newest release of a series.
const NEWEST: u16 = u16::MAX;

impl Kernel {
    /// The oldest kernel whose behaviour is known here.
    pub const OLDEST: Self = Self::new(6, 12, 0);

    /// The newest series that the rules have been held against.
    pub const VERIFIED: Self = Self::new(7, 3, NEWEST);

    /// The newest releases of the series that take changes over.
    pub(super) const STABLE: [Self; 2] = [Self::new(6, 12, NEWEST), Self::new(6, 18, NEWEST)];

    const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    fn same_series(self, other: Self) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            0 | NEWEST => Ok(()),
            patch => write!(f, ".{patch}"),
        }
    }
}

/// Why a text names no kernel that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// It is no version.
    NoVersion {
        /// What was found.
        found: String,
    },
    /// It is older than what is known here.
    TooOld {
        /// What was found.
        found: Kernel,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVersion { found } => {
                write!(f, "expected a kernel version like 6.12 or 6.18.21, found \"{found}\"")
            }
            Self::TooOld { found } => {
                write!(f, "expected kernel {} or newer, found {found}", Kernel::OLDEST)
            }
        }
    }
}

impl std::error::Error for KernelError {}

impl FromStr for Kernel {
    type Err = KernelError;

    /// `6.18.21`, `6.18` for the newest release of that series, and what `uname -r` prints.
    fn from_str(text: &str) -> Result<Self, KernelError> {
        let no_version = || KernelError::NoVersion { found: text.to_owned() };
        let end = text.find(['-', '+', '~']).unwrap_or(text.len());
        let mut numbers = text.get(..end).unwrap_or_default().split('.').map(|number| {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse::<u16>().ok().filter(|_| digits).ok_or_else(no_version)
        });
        let major = numbers.next().unwrap_or_else(|| Err(no_version()))?;
        let minor = numbers.next().unwrap_or_else(|| Err(no_version()))?;
        let patch = numbers.next().unwrap_or(Ok(NEWEST))?;
        if numbers.next().is_some() {
            return Err(no_version());
        }
        let kernel = Self { major, minor, patch };
        if kernel < Self::OLDEST {
            return Err(KernelError::TooOld { found: kernel });
        }
        Ok(kernel)
    }
}

/// Something that Linux's CXL drivers do differently since some release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A device's partitions are a list: a DPA skip may reach over a border.
    Partitions,
    /// A region may have a cache in front of it.
    LinearCache,
    /// A persistent region takes no device without a serial number.
    SerialNumbers,
    /// The granularity of a port's decoder with one way is not compared.
    OneWayGranularity,
    /// A CHBS of version 1 has to declare 64 KiB.
    ChbsLength,
    /// A region that cannot take a decoder says so.
    AttachWarning,
    /// A port's targets are looked up as its devices come up, and one that names nothing is no
    /// error of the port.
    LateTargets,
    /// Targets are looked up in each decoder that names a port, not in the first one alone.
    AllTargets,
    /// A region with a locked decoder or in a fixed window cannot be taken down.
    LockedRegions,
    /// HDM Decoder Enable alone says whether decoders or range registers count.
    EnableDecides,
    /// A device's decoders may hold device addresses, where the platform's PRM translates them.
    Translation,
    /// Ports may have 20 to 32 decoders.
    ManyDecoders,
    /// A region is of the type that its decoders are of.
    RegionType,
    /// Soft-reserved memory that CXL does not claim comes online all the same (`dax_hmem`).
    UnclaimedMemory,
    /// A locked decoder may have no size. Queued, in no release that the rules were held against.
    EmptyDecoders,
}

impl Change {
    /// All of them, in the order in which the main line took them.
    pub const ALL: [Self; 15] = [
        Self::Partitions,
        Self::LinearCache,
        Self::SerialNumbers,
        Self::OneWayGranularity,
        Self::ChbsLength,
        Self::AttachWarning,
        Self::LateTargets,
        Self::AllTargets,
        Self::LockedRegions,
        Self::EnableDecides,
        Self::Translation,
        Self::ManyDecoders,
        Self::RegionType,
        Self::UnclaimedMemory,
        Self::EmptyDecoders,
    ];

    /// The first main-line release with it.
    pub const fn release(self) -> Kernel {
        match self {
            Self::Partitions | Self::LinearCache => Kernel::new(6, 15, 0),
            // Seen in 7.3.4, and not in 6.12.95.
            Self::SerialNumbers => Kernel::new(6, 15, 0),
            Self::OneWayGranularity | Self::ChbsLength | Self::AttachWarning => {
                Kernel::new(6, 16, 0)
            }
            Self::LateTargets => Kernel::new(6, 18, 0),
            Self::AllTargets | Self::LockedRegions => Kernel::new(6, 19, 0),
            Self::EnableDecides | Self::Translation => Kernel::new(7, 0, 0),
            Self::ManyDecoders | Self::RegionType => Kernel::new(7, 1, 0),
            // Seen in 7.2.12 and 7.3.4, and not in 6.12.95.
            Self::UnclaimedMemory => Kernel::new(7, 2, 0),
            // 7.3.4 refuses them.
            Self::EmptyDecoders => Kernel::new(7, 4, 0),
        }
    }

    /// Whether a kernel that has it shows it in what is kept here: in a recording, or in a boot of the
    /// repository's tests. What none has is by Linux's source alone; and so is for each the very release
    /// that brought it.
    pub const fn seen(self) -> bool {
        !matches!(self, Self::Translation | Self::EmptyDecoders)
    }

    /// The stable releases of older series that took it over.
    pub const fn stable(self) -> &'static [Kernel] {
        const ALL_TARGETS: &[Kernel] = &[Kernel::new(6, 18, 7)];
        const ENABLE_DECIDES: &[Kernel] =
            &[Kernel::new(6, 12, 80), Kernel::new(6, 18, 21), Kernel::new(6, 19, 11)];
        match self {
            Self::AllTargets => ALL_TARGETS,
            Self::EnableDecides => ENABLE_DECIDES,
            _ => &[],
        }
    }

    /// Whether a kernel has it.
    pub fn is_in(self, kernel: Kernel) -> bool {
        kernel >= self.release()
            || self.stable().iter().any(|&first| kernel.same_series(first) && kernel >= first)
    }
}

impl fmt::Display for Change {
    /// `7.0 (6.12.80, 6.18.21)`: the main-line release, and the stable ones; `7.4 (queued)` where nobody
    /// has seen it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.release().fmt(f)?;
        if self.release() > Kernel::VERIFIED {
            return f.write_str(" (queued)");
        }
        for (index, kernel) in self.stable().iter().enumerate() {
            write!(f, "{}{kernel}", if index == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.stable().is_empty() { "" } else { ")" })
    }
}

/// Which changes a kernel has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Linux {
    /// Those of one kernel.
    Kernel(Kernel),
    /// The first so many of the main line's.
    First(usize),
}

impl Linux {
    pub(super) fn has(self, change: Change) -> bool {
        match self {
            Self::Kernel(kernel) => change.is_in(kernel),
            Self::First(count) => Change::ALL.iter().take(count).any(|&first| first == change),
        }
    }
}
