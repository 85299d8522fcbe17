//! How a component is named, and a part of its memory: by what does not depend on bus numbers, nor on
//! the order in which things were found. And the one bus number that has to be known, where a bridge's begin.
//!
//! **Invariant**: paths sort as the tree of components is walked.

use core::fmt;

/// The most ports between a host bridge and a device: a root port and seven switch levels.
pub const MAX_DEPTH: usize = 16;

/// A device's or port's place, named by what does not depend on bus numbers or order: the bridge's
/// UID and the port numbers on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    // In this order, and unused ports 0, so that places sort as the tree is walked.
    uid: u32,
    ports: [u8; MAX_DEPTH],
    depth: u8,
}

impl Path {
    /// Bridge 0.
    pub(crate) const FIRST: Self = Self { uid: 0, depth: 0, ports: [0; MAX_DEPTH] };

    /// The place below bridge `uid` through these port numbers; `None` for more than
    /// [`MAX_DEPTH`].
    pub fn new(uid: u32, ports: &[u8]) -> Option<Self> {
        let mut path = Self { uid, depth: ports.len() as u8, ports: [0; MAX_DEPTH] };
        path.ports.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(path)
    }

    /// The bridge's UID.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The last port number and the place of the component that has this port; `None` for a
    /// bridge.
    pub fn split_last(&self) -> Option<(u8, Self)> {
        let depth = self.depth.checked_sub(1)?;
        let mut above = Self { depth, ..*self };
        let port = core::mem::take(above.ports.get_mut(usize::from(depth))?);
        Some((port, above))
    }

    /// The place behind a port of what is here; `None` for more than [`MAX_DEPTH`] ports.
    pub(crate) fn behind(&self, port: u8) -> Option<Self> {
        let mut path = *self;
        *path.ports.get_mut(usize::from(self.depth))? = port;
        path.depth += 1;
        Some(path)
    }

    /// Port numbers, root port first.
    pub fn ports(&self) -> &[u8] {
        self.ports.get(..usize::from(self.depth)).unwrap_or(&self.ports)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bridge {}", self.uid)?;
        for (level, port) in self.ports().iter().enumerate() {
            write!(f, "{}{port}", if level == 0 { " port " } else { "." })?;
        }
        Ok(())
    }
}

/// Where a host bridge's PCI hierarchy starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootBus {
    /// PCI segment group.
    pub segment: u16,
    /// Bus number of the root ports.
    pub bus: u8,
}

impl fmt::Display for RootBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bus {:04x}:{:02x}", self.segment, self.bus)
    }
}

/// A part of a device's memory. Volatile memory comes first in DPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    /// Lost with power.
    Volatile,
    /// Kept.
    Persistent,
}

impl Partition {
    /// Both, in order of DPA.
    pub const ALL: [Self; 2] = [Self::Volatile, Self::Persistent];
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volatile => "volatile",
            Self::Persistent => "persistent",
        })
    }
}
