//! Committed sets whose memory lies in the order of host addresses, so that each is one run of host
//! memory.
//!
//! Which sets there are to be is said by whoever maps them; here their memory is brought into order
//! and back. Volatile memory moves between anonymous mappings, persistent memory between files if
//! the machine has any: see [`store`](crate::store).
//!
//! **Invariant**: no byte is lost, whatever the order of calls and whatever fails. A set that cannot
//! be brought back stays in order, and its members' bytes are found there.

use std::sync::Arc;

use cxl_regs::{Dpa, Hpa, Selector};

use super::Machine;
use crate::mapping::Direct;
use crate::set::{self, Layout, MoveError, SetMemory, Share};
use crate::store::{Found, SetFile, SetRecord, Store, StoreError};

/// A set as the registers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetShape {
    /// Where its decoders start.
    pub base: Hpa,
    /// Bytes of all members together.
    pub size: u64,
    /// How an address picks a position.
    pub selector: Selector,
    /// By position: the device, and where its share starts.
    pub members: Vec<(usize, Dpa)>,
}

impl SetShape {
    /// The set that a direct range is a part of; `None` for a range of one device.
    pub fn of(direct: &Direct) -> Option<Self> {
        let &Direct { base, size, selector, ref members } = direct;
        let members: Vec<_> = members.iter().map(|m| (m.device, m.dpa)).collect();
        (members.len() > 1).then_some(Self { base, size, selector, members })
    }
}

/// Why a set's memory is not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetRefusal {
    /// Another set has some of its memory.
    Taken,
    /// The host has no memory for it.
    NoMemory,
    /// Some of its memory is to outlive the machine, and some is not.
    Mixed,
    /// The host refused a file, with this error number.
    Storage(i32),
}

impl std::fmt::Display for SetRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken => f.write_str("another set has some of its memory"),
            Self::NoMemory => f.write_str("the host has no memory behind it"),
            Self::Mixed => f.write_str("some of its memory is kept in files and some is not"),
            Self::Storage(error) => {
                write!(f, "its file: {}", std::io::Error::from_raw_os_error(*error))
            }
        }
    }
}

impl From<std::io::Error> for SetRefusal {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<MoveError> for SetRefusal {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Host(error) => error.into(),
            MoveError::Outside => Self::NoMemory,
        }
    }
}

/// What the last machine that used a directory left to be brought back.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// The sets that were in order when it ended.
    pub sets: Vec<SetRecord>,
}

/// What is in order, and where persistent memory is kept.
#[derive(Debug, Default)]
pub(super) struct Sets {
    laid: Vec<OrderedSet>,
    unlaid: Vec<(SetShape, SetRefusal)>,
    store: Option<Store>,
}

#[derive(Debug)]
struct OrderedSet {
    shape: SetShape,
    set: Arc<SetMemory>,
    file: Option<SetFile>,
}

impl Machine {
    /// The memory of a set, if it is in order.
    pub fn set_memory(&self, shape: &SetShape) -> Option<&Arc<SetMemory>> {
        self.sets.laid.iter().find(|laid| laid.shape == *shape).map(|laid| &laid.set)
    }

    /// Why a set's memory is not in order although it was to be.
    pub fn unlaid(&self, shape: &SetShape) -> Option<SetRefusal> {
        self.sets.unlaid.iter().find(|(other, _)| other == shape).map(|(_, why)| *why)
    }

    /// Keeps persistent memory in a directory of files from now on, and brings back what a machine
    /// before this one left in the order of a set. To be called before anything is stored.
    pub fn keep_media(&mut self, store: Store) -> Result<Recovered, StoreError> {
        let devices = self.scenario.devices.iter().zip(&mut self.devices);
        for (given, slot) in devices.filter(|(given, _)| given.persistent != 0) {
            let memory = store.device(&given.name, given.serial, given.persistent)?;
            slot.endpoint.media.keep_persistent(memory);
        }
        let found = store.recover()?;
        for found in &found {
            self.bring_back(&store, found)?;
        }
        self.sets.store = Some(store);
        Ok(Recovered { sets: found.into_iter().map(|found| found.record).collect() })
    }

    /// Where persistent memory is kept.
    pub fn media_store(&self) -> Option<&Store> {
        self.sets.store.as_ref()
    }

    /// Completes what a machine before this one began, or would have done.
    fn bring_back(&self, store: &Store, found: &Found) -> Result<(), StoreError> {
        let layout = &found.record.layout;
        let share = |(member, at): &(String, u64)| {
            let devices = self.scenario.devices.iter().position(|device| device.name == *member);
            let media = devices.and_then(|device| self.endpoint(device)).map(|e| &e.media);
            let end = at.saturating_add(layout.share());
            let fits = media.filter(|media| end <= media.persistent());
            fits.and_then(|m| m.share(m.volatile() + at..m.volatile() + end)).ok_or_else(|| {
                let have = media.map(crate::device::media::Media::persistent);
                StoreError::NoSuchMember {
                    path: found.file.path.clone(),
                    member: member.clone(),
                    end,
                    have,
                }
            })
        };
        let shares = found.record.members.iter().map(share).collect::<Result<Vec<_>, _>>()?;
        let io = |error| StoreError::Io { path: found.file.path.clone(), error };
        let memory = found.memory().map_err(io)?;
        let set = SetMemory { layout: *layout, memory };
        hand_back(&shares, &set, Some((store, &found.file))).map_err(|error| match error {
            MoveError::Host(error) => io(error),
            MoveError::Outside => io(std::io::Error::other(error)),
        })
    }

    /// Brings the memory of these sets into order, and that of all others back. Nothing happens to
    /// one that is in order already. The guest must not run meanwhile, and must not reach what was
    /// its memory afterwards.
    pub fn lay_out(&mut self, wanted: &[SetShape]) {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sets.laid)
            .into_iter()
            .partition(|laid| wanted.contains(&laid.shape));
        self.sets.laid = kept;
        for laid in gone {
            if let Err(laid) = self.take_apart(laid) {
                self.sets.laid.push(laid);
            }
        }
        self.sets.unlaid.clear();
        for shape in wanted {
            if self.set_memory(shape).is_none() {
                match self.put_in_order(shape) {
                    Ok(laid) => self.sets.laid.push(laid),
                    Err(why) => self.sets.unlaid.push((shape.clone(), why)),
                }
            }
        }
    }

    /// The members' own memory, whether or not it is lent.
    fn shares(&self, shape: &SetShape, layout: &Layout) -> Option<Vec<Share>> {
        let share = |&(device, dpa): &(usize, Dpa)| {
            let part = dpa.0..dpa.0.checked_add(layout.share())?;
            self.endpoint(device)?.media.share(part)
        };
        shape.members.iter().map(share).collect()
    }

    fn put_in_order(&mut self, shape: &SetShape) -> Result<OrderedSet, SetRefusal> {
        let layout =
            Layout::new(shape.base, shape.size, shape.selector).ok_or(SetRefusal::NoMemory)?;
        let part = |dpa: Dpa| dpa.0..dpa.0 + layout.share();
        let shares = self.shares(shape, &layout).ok_or(SetRefusal::NoMemory)?;
        let lent = |&(device, dpa): &(usize, Dpa)| {
            self.endpoint(device).is_some_and(|endpoint| endpoint.media.is_lent(&part(dpa)))
        };
        if shape.members.iter().any(lent) {
            return Err(SetRefusal::Taken);
        }
        let files = shares.iter().filter(|share| share.memory.is_file()).count();
        let (memory, file) = match &self.sets.store {
            Some(store) if files == shares.len() => {
                let (file, memory) = store.create_set(&self.record(shape, layout))?;
                let filled = set::gather(&layout, &shares, &memory, &mut || store.step())
                    .map_err(SetRefusal::from)
                    .and_then(|()| Ok(store.put_in_order(&file, &memory)?));
                if let Err(why) = filled {
                    // If it stays, the next start deletes it.
                    let _ = store.remove(&file);
                    return Err(why);
                }
                (memory, Some(file))
            }
            _ if files != 0 => return Err(SetRefusal::Mixed),
            _ => {
                let memory = crate::backing::Backing::new(layout.size());
                if memory.size() == 0 {
                    return Err(SetRefusal::NoMemory);
                }
                set::gather(&layout, &shares, &memory, &mut || Ok(()))?;
                (memory, None)
            }
        };
        for Share { memory, start } in &shares {
            let given_back = match &self.sets.store {
                Some(store) if memory.is_file() => store.step(),
                _ => Ok(()),
            };
            // What stays there takes room and is worth nothing.
            let _ = given_back.and_then(|()| memory.forget(*start..start + layout.share()));
        }
        let set = Arc::new(SetMemory { layout, memory });
        for (position, &(device, dpa)) in (0..).zip(&shape.members) {
            if let Some(slot) = self.devices.get_mut(device) {
                slot.endpoint.media.lend(part(dpa), position, &set);
            }
        }
        Ok(OrderedSet { shape: shape.clone(), set, file })
    }

    /// What a set's file says of it.
    fn record(&self, shape: &SetShape, layout: Layout) -> SetRecord {
        let member = |&(device, dpa): &(usize, Dpa)| {
            let name = self.scenario.devices.get(device).map(|device| device.name.clone());
            let volatile = self.endpoint(device).map_or(0, |endpoint| endpoint.media.volatile());
            (name.unwrap_or_default(), dpa.0.saturating_sub(volatile))
        };
        SetRecord { layout, members: shape.members.iter().map(member).collect() }
    }

    fn take_apart(&mut self, laid: OrderedSet) -> Result<(), OrderedSet> {
        let shares = self.shares(&laid.shape, &laid.set.layout);
        let file = self.sets.store.as_ref().zip(laid.file.as_ref());
        let back = shares.map(|shares| hand_back(&shares, &laid.set, file));
        if !matches!(back, Some(Ok(()))) {
            return Err(laid);
        }
        for slot in &mut self.devices {
            slot.endpoint.media.take_back(&laid.set);
        }
        Ok(())
    }
}

/// Brings a set's memory back to its members, whose own memory may hold anything meanwhile.
fn hand_back(
    shares: &[Share],
    set: &SetMemory,
    file: Option<(&Store, &SetFile)>,
) -> Result<(), MoveError> {
    let step = || file.map_or(Ok(()), |(store, _)| store.step());
    let SetMemory { layout, memory } = set;
    for share in shares {
        step()?;
        share.memory.forget(share.start..share.start + layout.share())?;
    }
    set::scatter(layout, shares, memory, &mut || step())?;
    if let Some((store, file)) = file {
        for share in shares {
            share.memory.sync()?;
        }
        store.remove(file)?;
    }
    Ok(())
}
