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
use crate::backing::Backing;
use crate::mapping::Direct;
use crate::set::{self, Layout, MoveError, SetMemory, Share};
use crate::store::{Found, SetFile, SetRecord, State, Store, StoreError};

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
    /// The disk has no room for what the guest might store.
    NoRoom {
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are free.
        have: u64,
    },
    /// The host refused a file, with this error number.
    Storage(i32),
}

impl std::fmt::Display for SetRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken => f.write_str("another set has some of its memory"),
            Self::NoMemory => f.write_str("the host has no memory behind it"),
            Self::Mixed => f.write_str("some of its memory is kept in files and some is not"),
            Self::NoRoom { need, have } => write!(
                f,
                "its file: the guest may store to {need} bytes of it, and the disk has {have} free"
            ),
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

impl SetRefusal {
    /// Why room for so many bytes of memory cannot be kept.
    fn to_reserve(need: u64, memory: &Backing, error: &std::io::Error) -> Self {
        match (error.raw_os_error(), memory.room()) {
            (Some(libc::ENOSPC | libc::EDQUOT), Ok(have)) => Self::NoRoom { need, have },
            (error, _) => Self::Storage(error.unwrap_or(libc::EIO)),
        }
    }
}

impl From<MoveError> for SetRefusal {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Host(error) => error.into(),
            MoveError::NoRoom { need, have } => Self::NoRoom { need, have },
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
    /// Ranges of single devices, by DPA, that have room on the disk, or have not and why.
    reserved: Vec<(FlatRange, Result<(), SetRefusal>)>,
    /// Why sets that were to be brought back were not.
    stuck: Vec<(SetShape, String)>,
    store: Option<Store>,
}

/// A range of one device's memory.
pub type FlatRange = (usize, std::ops::Range<u64>);

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
            let (memory, labels) = store.device(&given.name, given.serial, given.persistent)?;
            slot.endpoint.media.keep_persistent(memory);
            if let Some(mailbox) = &mut slot.endpoint.mailbox {
                let path = store.directory().to_owned();
                mailbox.keep_labels(labels).map_err(|error| StoreError::Io { path, error })?;
            }
        }
        let found = store.recover()?;
        // All of them are judged before a byte of any is moved.
        let shares =
            found.iter().map(|found| self.shares_of(found)).collect::<Result<Vec<_>, _>>()?;
        for (found, shares) in found.iter().zip(&shares) {
            bring_back(&store, found, shares)?;
        }
        self.sets.store = Some(store);
        Ok(Recovered { sets: found.into_iter().map(|found| found.record).collect() })
    }

    /// Where persistent memory is kept.
    pub fn media_store(&self) -> Option<&Store> {
        self.sets.store.as_ref()
    }

    /// The members' memory of a set that a machine before this one left.
    fn shares_of(&self, found: &Found) -> Result<Vec<Share>, StoreError> {
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
        found.record.members.iter().map(share).collect()
    }

    /// Has the disk keep room for these ranges of single devices, which a guest is to store to without
    /// being asked, and gives back what it kept for others.
    pub fn reserve(&mut self, wanted: &[FlatRange]) {
        let memory = |(device, range): &FlatRange| {
            let media = &self.devices.get(*device)?.endpoint.media;
            media.share(range.clone()).filter(|share| share.memory.is_file())
        };
        let mut kept = Vec::new();
        for (range, result) in std::mem::take(&mut self.sets.reserved) {
            if wanted.contains(&range) && result.is_ok() {
                kept.push((range, result));
            } else if let (Some(Share { memory, start }), Ok(())) = (memory(&range), result) {
                let length = range.1.end - range.1.start;
                // What stays reserved takes room and does no other harm.
                let _ = memory.release(start..start + length);
            }
        }
        for range in wanted {
            let known = kept.iter().any(|(known, _)| known == range);
            let Some(Share { memory, start }) = memory(range).filter(|_| !known) else { continue };
            let need = range.1.end - range.1.start;
            let step = self.sets.store.as_ref().map_or(Ok(()), Store::step);
            let result = step.and_then(|()| memory.reserve(start..start + need));
            let why = |error| SetRefusal::to_reserve(need, &memory, &error);
            kept.push((range.clone(), result.map_err(why)));
        }
        self.sets.reserved = kept;
    }

    /// Whether the disk keeps room for a range of one device, or need not.
    pub fn has_room(&self, wanted: &FlatRange) -> Result<(), SetRefusal> {
        let known = self.sets.reserved.iter().find(|(range, _)| range == wanted);
        known.map_or(Ok(()), |(_, result)| *result)
    }

    /// What is wrong with the files that persistent memory is kept in: which bytes lie where they
    /// should not, and which are lost. To be asked once everything was [brought back](Self::lay_out).
    pub fn troubles(&self) -> Vec<String> {
        let Some(store) = &self.sets.store else { return Vec::new() };
        let mut troubles: Vec<String> =
            self.sets.stuck.iter().map(|(_, why)| why.clone()).collect();
        let kept = store.troubles();
        let more = (kept.more() > 0).then(|| format!("and {} more of this kind", kept.more()));
        troubles.extend(kept);
        troubles.extend(more);
        for laid in &self.sets.laid {
            let path = laid.file.as_ref().map(|file| file.path.display().to_string());
            let pages = laid.set.memory.lost();
            troubles.extend(path.filter(|_| pages > 0).map(|path| lost(&path, pages)));
        }
        let devices = self.scenario.devices.iter().zip(&self.devices);
        for (given, slot) in devices.filter(|(given, _)| given.persistent != 0) {
            let media = &slot.endpoint.media;
            let Some(Share { memory, .. }) = media.share(media.volatile()..media.size()) else {
                continue;
            };
            if memory.lost() > 0 {
                let what = format!("the file of {}", given.name);
                troubles.push(lost(&what, memory.lost()));
            }
            if let Err(error) = store.step().and_then(|()| memory.sync()) {
                troubles.push(format!(
                    "the file of {}: it could not be brought to the disk: {error}. What was stored \
                     is in the host's memory, and on the disk perhaps not",
                    given.name
                ));
            }
        }
        troubles
    }

    /// Brings the memory of these sets into order, and that of all others back. Nothing happens to
    /// one that is in order already. The guest must not run meanwhile, and must not reach what was
    /// its memory afterwards.
    pub fn lay_out(&mut self, wanted: &[SetShape]) {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sets.laid)
            .into_iter()
            .partition(|laid| wanted.contains(&laid.shape));
        self.sets.laid = kept;
        self.sets.stuck.clear();
        for laid in gone {
            if let Some((laid, why)) = self.take_apart(laid) {
                let words = laid.file.as_ref().map_or_else(String::new, |file| {
                    format!(
                        "{}: its bytes could not be brought back to the devices' files: {why}. They \
                         stay in it, none is lost, and the next start brings them back",
                        file.path.display()
                    )
                });
                if laid.file.is_some() {
                    self.sets.stuck.push((laid.shape.clone(), words));
                }
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
                let need = layout.size();
                let filled = store
                    .step()
                    .and_then(|()| memory.reserve(0..need))
                    .map_err(|error| SetRefusal::to_reserve(need, &memory, &error))
                    .and_then(|()| {
                        let go_on = &mut || store.step();
                        set::gather(&layout, &shares, &memory, go_on).map_err(SetRefusal::from)
                    })
                    .and_then(|()| Ok(store.put_in_order(&file, &memory)?));
                if let Err(why) = filled {
                    // If it stays and says that it is worth nothing, the next start deletes it.
                    if store.remove(&file).is_ok() || store.state(&file) != Some(State::InOrder) {
                        return Err(why);
                    }
                    // It says that it holds the bytes, and does: so be it.
                    store.trouble(format!("{}: {why}", file.path.display()));
                }
                (memory, Some(file))
            }
            _ if files != 0 => return Err(SetRefusal::Mixed),
            _ => {
                let memory = Backing::new(layout.size());
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

    /// Brings a set back to its members; if that fails the set stays as it is.
    fn take_apart(&mut self, laid: OrderedSet) -> Option<(OrderedSet, MoveError)> {
        let shares = self.shares(&laid.shape, &laid.set.layout);
        let file = self.sets.store.as_ref().zip(laid.file.as_ref());
        let back = shares.ok_or(MoveError::Outside);
        let back = back.and_then(|shares| hand_back(&shares, &laid.set, file));
        if let Err(error) = back {
            return Some((laid, error));
        }
        if let (Some((store, file)), pages @ 1..) = (file, laid.set.memory.lost()) {
            store.trouble(lost(file.path.display(), pages));
        }
        for slot in &mut self.devices {
            slot.endpoint.media.take_back(&laid.set);
        }
        None
    }
}

/// What the disk did not take of a file.
fn lost(what: impl std::fmt::Display, pages: u64) -> String {
    format!(
        "{what}: the disk did not take what was stored to {pages} of its pages of 4 KiB, and that is lost"
    )
}

/// Completes what a machine before this one began, or would have done.
fn bring_back(store: &Store, found: &Found, shares: &[Share]) -> Result<(), StoreError> {
    let path = || found.file.path.clone();
    let io = |error| StoreError::Io { path: path(), error };
    let set = SetMemory { layout: found.record.layout, memory: found.memory().map_err(io)? };
    hand_back(shares, &set, Some((store, &found.file))).map_err(|error| match error {
        MoveError::NoRoom { need, have } => StoreError::NoRoom { path: path(), need, have },
        MoveError::Host(error) => io(error),
        MoveError::Outside => io(std::io::Error::other(error)),
    })
}

/// Brings a set's memory back to its members, whose own memory may hold anything meanwhile.
fn hand_back(
    shares: &[Share],
    set: &SetMemory,
    file: Option<(&Store, &SetFile)>,
) -> Result<(), MoveError> {
    let step = || file.map_or(Ok(()), |(store, _)| store.step());
    let SetMemory { layout, memory } = set;
    if file.is_some() {
        // What was kept for stores that never came makes room for those that did.
        memory.release(0..layout.size())?;
    }
    for share in shares {
        step()?;
        share.memory.forget(share.start..share.start + layout.share())?;
    }
    if let (Some(_), Some(share)) = (file, shares.first()) {
        let (need, have) = (set::held(layout, memory)?, share.memory.room()?);
        if have < need {
            return Err(MoveError::NoRoom { need, have });
        }
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
