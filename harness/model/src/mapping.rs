//! What each host address leads to: direct memory, or a trap and why. A pure function of
//! [`Fabric`].
//!
//! A range is [`Reach::Direct`] only if the registers alone prove that every byte of it is one byte
//! of one device. All else is [`Reach::Trapped`] with the one [`Reason`] that stands first on the way
//! from the window to the device. Trapped does not mean dead: an access may still decode, one at a
//! time. [`resolve`] walks a single address and [`addresses`] walks back; [`proven`] walks one too, and
//! answers only where the range is direct.
//!
//! **Invariant**: the ranges of [`mappings`] are sorted, disjoint, and cover the windows without a
//! gap and nothing else. No dword, however wrong, makes these functions panic or loop.

pub mod admits;
pub mod normalized;
mod reason;
mod text;
mod walk;

use cxl_regs::{
    Arithmetic, Coherency, DECODER_UNIT, Decoder, Dpa, Hpa, Interleave, Levels, Selector, Span,
    Ways,
};

use crate::fabric::{self, Fabric, Parent};
use crate::scenario::Place;

pub use reason::{At, Reason};
pub use text::{MappingsText, PathText, ReasonText, StepsText};
use walk::Below;
pub(crate) use walk::routing;
pub use walk::{Endpoint, Hop, Path, addresses, proven, resolve, walks};

/// One range of one window, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The window, an index into [`Fabric::windows`]; of several that overlap here, the first.
    pub window: usize,
    /// First address; without meaning if the window has no range (see [`Mapping::span`]).
    pub hpa: Hpa,
    /// Bytes.
    pub size: u64,
    /// How it is reached.
    pub how: Reach,
}

impl Mapping {
    /// The addresses; `None` for a window that is not placed or whose base and size are no range.
    pub fn span(&self) -> Option<Span> {
        let placed = !matches!(
            self.how,
            Reach::Trapped { reason: Reason::WindowNotPlaced | Reason::WindowRange(_) }
        );
        Span::new(self.hpa, self.size).ok().filter(|_| placed)
    }
}

/// How a range is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every byte is one byte of one device's memory.
    Direct(Direct),
    /// Each access has to be looked at by itself.
    Trapped {
        /// The first condition that does not hold.
        reason: Reason,
    },
}

/// Where the bytes of a direct range are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Base of the devices' decoders; the mapping may be a part of their range.
    pub base: Hpa,
    /// Bytes of their range.
    pub size: u64,
    /// How all levels together pick a member.
    pub selector: Selector,
    /// One for each position of [`Direct::selector`].
    pub members: Vec<Member>,
}

/// One device's part in a direct range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device, an index into [`Fabric::devices`].
    pub device: usize,
    /// Its decoder.
    pub decoder: u8,
    /// The device address of the first byte that the decoder maps.
    pub dpa: Dpa,
}

impl Direct {
    /// Ways and granularity of the whole set.
    pub fn interleave(&self) -> Interleave {
        self.selector.interleave()
    }

    /// The member and its device address behind a host address of the range.
    pub fn locate(&self, hpa: Hpa) -> Option<(Member, Dpa)> {
        let member = *self.members.get(self.selector.position(hpa) as usize)?;
        let offset = self.interleave().dpa_offset(hpa.0.checked_sub(self.base.0)?);
        Some((member, Dpa(member.dpa.0.checked_add(offset)?)))
    }

    /// The host address behind which the member at `position` holds `dpa`.
    pub fn hpa(&self, position: u32, dpa: Dpa) -> Option<Hpa> {
        let member = self.members.get(position as usize)?;
        self.selector.hpa(self.base, position, dpa.0.checked_sub(member.dpa.0)?)
    }
}

/// Every window's ranges, in order of address; windows without a range come where their base says.
pub fn mappings(fabric: &Fabric) -> Vec<Mapping> {
    let cuts = cuts(fabric);
    let mut list = Vec::new();
    for (index, window) in fabric.windows.iter().enumerate() {
        let Some(span) = placed(window) else {
            let reason = match window.base.map(|base| Span::new(base, window.size)) {
                Some(Err(error)) => Reason::WindowRange(error),
                _ => Reason::WindowNotPlaced,
            };
            let how = Reach::Trapped { reason };
            let hpa = window.base.unwrap_or_default();
            list.push(Mapping { window: index, hpa, size: window.size, how });
            continue;
        };
        let usable = usable(fabric, window);
        for part in parts(span, &cuts) {
            let mut owners = fabric
                .windows
                .iter()
                .enumerate()
                .filter(|(_, other)| placed(other).is_some_and(|other| other.overlaps(part)));
            let first = owners.next().map(|(owner, _)| owner);
            if first != Some(index) {
                continue;
            }
            let how = match (owners.next(), usable) {
                (Some((other, _)), _) => Err(Reason::WindowsOverlap { other }),
                (None, Err(reason)) => Err(reason),
                (None, Ok(root)) => prove(fabric, window, root, part),
            };
            let how = how.map_or_else(|reason| Reach::Trapped { reason }, Reach::Direct);
            push(&mut list, Mapping { window: index, hpa: part.base(), size: part.size(), how });
        }
    }
    list.sort_by_key(|mapping| (mapping.hpa, mapping.window));
    list
}

/// Appends, or extends the last range if this one carries on from it.
fn push(list: &mut Vec<Mapping>, next: Mapping) {
    match list.last_mut() {
        Some(last)
            if last.window == next.window
                && last.how == next.how
                && last.span().is_some_and(|last| last.end() == next.hpa) =>
        {
            last.size += next.size;
        }
        _ => list.push(next),
    }
}

/// The range of a window that has one.
pub(crate) fn placed(window: &fabric::Window) -> Option<Span> {
    Span::new(window.base?, window.size).ok()
}

/// Every address at which the answer can change: the ends of decoders and windows.
pub(crate) fn cuts(fabric: &Fabric) -> Vec<Hpa> {
    let bridges = fabric.bridges.iter().map(|bridge| &bridge.hdm);
    let switches = fabric.switches.iter().map(|switch| &switch.hdm);
    let devices = fabric.devices.iter().map(|device| &device.hdm);
    let images = bridges.chain(switches).chain(devices).flatten().flat_map(|hdm| &hdm.decoders);
    let decoders = images.filter_map(walk::claimed).flat_map(|(first, last)| {
        [Some(first), last.0.checked_add(1).map(Hpa)].into_iter().flatten()
    });
    let windows =
        fabric.windows.iter().filter_map(placed).flat_map(|span| [span.base(), span.end()]);
    let mut cuts: Vec<Hpa> = decoders.chain(windows).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// The span, cut into pieces.
pub(crate) fn parts(span: Span, cuts: &[Hpa]) -> impl Iterator<Item = Span> {
    let inside = cuts.iter().copied().filter(move |&cut| span.contains(cut) && cut != span.base());
    let ends = inside.chain([span.end()]);
    ends.scan(span.base(), |from, end| {
        let part = Span::new(*from, end.0 - from.0);
        *from = end;
        part.ok()
    })
}

/// The window's way to pick a target, if the window itself is in order.
pub(crate) fn usable(fabric: &Fabric, window: &fabric::Window) -> Result<Selector, Reason> {
    let fabric::Window { base, size, interleave, .. } = *window;
    let base = base.ok_or(Reason::WindowNotPlaced)?;
    let bits = fabric.physical_bits;
    let last = base.0.saturating_add(size.saturating_sub(1));
    if last.checked_shr(bits.into()).is_some_and(|above| above != 0) {
        return Err(Reason::BeyondPhysicalWidth { bits });
    }
    if !(base.0 | size).is_multiple_of(DECODER_UNIT) {
        return Err(Reason::WindowUnaligned { base, size });
    }
    let (ways, targets) = (interleave.ways, window.targets.len());
    if targets != ways.count() as usize {
        return Err(Reason::TargetCount { ways, targets });
    }
    match window.arithmetic {
        Arithmetic::Modulo => Ok(Selector::modulo(interleave)),
        Arithmetic::Xor => Selector::xor(interleave, &window.xor_maps).map_err(Reason::XorMaps),
    }
}

/// One way from the window to a device: what each level contributes.
#[derive(Clone)]
struct Branch {
    levels: Levels,
    /// Index into the window's target list.
    root_way: u32,
    /// HPA bits that bridge and switch demand.
    bits: u64,
    /// The decoders of bridge and switches passed so far, by their coherency.
    types: Vec<(At, Coherency)>,
    /// The ports passed so far.
    ports: Vec<usize>,
}

impl Branch {
    /// The branch one level further down.
    fn below(mut self, at: At, level: Interleave, way: u32) -> Result<Self, Reason> {
        let slot = match at {
            At::Bridge(_) => &mut self.levels.bridge,
            _ => &mut self.levels.switch,
        };
        if level.ways == Ways::One {
            return Ok(self);
        }
        if slot.ways != Ways::One {
            return Err(Reason::SwitchLevels { at });
        }
        *slot = level;
        self.bits |= u64::from(way) << level.granularity.shift();
        Ok(self)
    }

    /// The position at which a device's own selector sees what these levels send here.
    fn position(&self, device: Interleave) -> u32 {
        let (Levels { root, .. }, shift) = (self.levels, device.granularity.shift());
        if device.ways == Ways::One {
            return 0;
        }
        let mut bits = self.bits >> shift;
        let divides_from = root.granularity.shift() + root.ways.selector_bits();
        if root.ways != Ways::One {
            let low = self.root_way & (root.ways.power_of_two() - 1);
            bits |= u64::from(low) << (root.granularity.shift() - shift);
        }
        let mut third = 0;
        if root.ways.has_three() {
            // The root divides the granule number k above its own bits, the device the number j
            // above all bits, and k = j * 2^between + the bits between. Modulo 3, 2 is its own
            // inverse.
            let between = shift + device.ways.selector_bits() - divides_from;
            let middle = (bits >> (divides_from - shift)) & ((1 << between) - 1);
            let k = u64::from(self.root_way >> root.ways.selector_bits());
            third = (k + 3 - middle % 3) * (1 << (between % 2)) % 3;
        }
        bits as u32 | (third as u32) << device.ways.selector_bits()
    }
}

/// One device reached, with the branch that reached it.
struct Leaf {
    branch: Branch,
    endpoint: Endpoint,
}

/// Proves that the part of the window is one-to-one, or says what stands in the way.
fn prove(
    fabric: &Fabric,
    window: &fabric::Window,
    root: Selector,
    part: Span,
) -> Result<Direct, Reason> {
    let leaves = leaves(fabric, window, part)?;
    let Some(first) = leaves.first() else {
        return Err(Reason::TargetCount { ways: window.interleave.ways, targets: 0 });
    };
    let span = first.endpoint.decoder.span;
    let set = first.branch.levels.device().map_err(Reason::Levels)?;
    let mut members: Vec<Option<Member>> = vec![None; set.ways.count() as usize];
    for leaf in &leaves {
        let Leaf { branch, endpoint } = leaf;
        let device = endpoint.device;
        let expected = branch.levels.device().map_err(Reason::Levels)?;
        interleave_fits(device, expected, endpoint.decoder.interleave)?;
        if endpoint.decoder.span != span {
            let found = endpoint.decoder.span;
            return Err(Reason::SpanDiffers { device, expected: span, found });
        }
        if expected != set {
            return Err(Reason::InterleaveDiffers { device, expected: set, found: expected });
        }
        let position = branch.position(set);
        let earlier = members.iter().flatten().any(|member| member.device == device);
        match members.get_mut(position as usize) {
            Some(slot @ None) if !earlier => *slot = Some(endpoint.member()),
            _ => return Err(Reason::PositionDoubled { device, position }),
        }
    }
    // Memory last: how much of it a decoder maps follows from its ways.
    for leaf in &leaves {
        admits_coherency(
            window,
            At::Device(leaf.endpoint.device),
            leaf.endpoint.decoder.coherency,
        )?;
        one_coherency(&first.endpoint, leaf)?;
        back_invalidate(fabric, leaf)?;
        admits_media(fabric, window, &leaf.endpoint)?;
        one_window(fabric, window, &leaf.endpoint)?;
    }
    let reached = leaves.len() as u32;
    let missing = Reason::MembersMissing { device: first.endpoint.device, ways: set.ways, reached };
    let members = members.into_iter().collect::<Option<Vec<_>>>().ok_or(missing)?;
    let selector = joined(root, window, set)?;
    Ok(Direct { base: span.base(), size: span.size(), selector, members })
}

/// Whether a device's own interleave is the one that the levels above it make.
fn interleave_fits(device: usize, expected: Interleave, found: Interleave) -> Result<(), Reason> {
    if found.ways.count() > expected.ways.count() {
        let (ways, reached) = (found.ways, expected.ways.count());
        return Err(Reason::MembersMissing { device, ways, reached });
    }
    // One way has no granularity.
    if found != expected && (found.ways, expected.ways) != (Ways::One, Ways::One) {
        return Err(Reason::InterleaveDiffers { device, expected, found });
    }
    Ok(())
}

/// A selector for the whole set: the root's maps at the root's bits, plain bits elsewhere.
fn joined(root: Selector, window: &fabric::Window, set: Interleave) -> Result<Selector, Reason> {
    if window.arithmetic == Arithmetic::Modulo {
        return Ok(Selector::modulo(set));
    }
    let Interleave { ways, granularity } = root.interleave();
    let map = |bit: u32| {
        let of_root = bit.checked_sub(granularity.shift()).filter(|&n| n < ways.selector_bits());
        let map = of_root.and_then(|n| window.xor_maps.get(n as usize));
        map.copied().unwrap_or(1 << bit)
    };
    let shift = set.granularity.shift();
    let maps: Vec<u64> = (shift..shift + set.ways.selector_bits()).map(map).collect();
    Selector::xor(set, &maps).map_err(Reason::XorMaps)
}

/// All devices that the part of the window leads to.
fn leaves(fabric: &Fabric, window: &fabric::Window, part: Span) -> Result<Vec<Leaf>, Reason> {
    let mut leaves = Vec::new();
    // Depth first, without recursion: what is left to visit, the next one last.
    let mut rest = Vec::new();
    for (root_way, &uid) in (0..).zip(&window.targets) {
        let levels =
            Levels { root: window.interleave, bridge: Interleave::NONE, switch: Interleave::NONE };
        let (types, ports) = (Vec::new(), Vec::new());
        let branch = Branch { levels, root_way, bits: 0, types, ports };
        rest.push((walk::bridge(fabric, root_way, uid), branch));
    }
    rest.reverse();
    while let Some((parent, mut branch)) = rest.pop() {
        let parent = parent?;
        let at = At::from(parent);
        let routing = routing(fabric, parent, part)?;
        if let Some((_, decoder)) = &routing.decoder {
            admits_coherency(window, at, decoder.coherency)?;
            branch.types.push((at, decoder.coherency));
        }
        let mut below = Vec::new();
        for (way, port) in (0..).zip(&routing.ports) {
            let mut branch = branch.clone().below(at, routing.interleave(), way)?;
            let blame = |reason| walk::blame(fabric, parent, &routing, part, reason);
            branch.ports.push((*port)?);
            match walk::behind(fabric, (*port)?).map_err(blame)? {
                Below::Switch(switch) => below.push((Ok(Parent::Switch(switch)), branch)),
                Below::Device(device) => {
                    let endpoint = walk::endpoint(fabric, device, part);
                    let endpoint =
                        endpoint.map_err(|reason| uncovered(fabric, device, blame(reason)))?;
                    host_addresses(fabric, window, &endpoint)?;
                    leaves.push(Leaf { branch, endpoint });
                }
            }
        }
        rest.extend(below.into_iter().rev());
    }
    Ok(leaves)
}

/// The better reason where a device has no decoder for host addresses: those that it has hold its own.
fn uncovered(fabric: &Fabric, device: usize, reason: Reason) -> Reason {
    let own = Reason::NotCovered { at: At::Device(device) };
    let better = (reason == own).then(|| normalized::reason(fabric, device)).flatten();
    better.unwrap_or(reason)
}

/// Whether the device's decoder holds host addresses of the window, and not those of the device alone, which
/// happen to be the same numbers.
fn host_addresses(
    fabric: &Fabric,
    window: &fabric::Window,
    endpoint: &Endpoint,
) -> Result<(), Reason> {
    let Endpoint { device, index: decoder, decoder: Decoder { span, .. }, .. } = *endpoint;
    let inside = placed(window)
        .is_some_and(|window| window.contains(span.base()) && window.contains(span.last()));
    let own = (!inside).then(|| normalized::normalized(fabric, device)).flatten();
    match own {
        Some((own, _)) if own == decoder => Err(Reason::Normalized { device, decoder }),
        _ => Ok(()),
    }
}

fn admits_coherency(window: &fabric::Window, at: At, coherency: Coherency) -> Result<(), Reason> {
    if admits::coherency(window.restrictions, coherency) {
        Ok(())
    } else {
        Err(Reason::CoherencyNotAllowed { at, coherency })
    }
}

/// Whether the memory is there, in one partition, of a kind that the window admits.
fn admits_media(
    fabric: &Fabric,
    window: &fabric::Window,
    endpoint: &Endpoint,
) -> Result<(), Reason> {
    let device = endpoint.device;
    let dpa = endpoint.dpa;
    let partition = walk::partition(fabric, device, dpa, endpoint.decoder.share())?;
    if admits::media(window.restrictions, partition) {
        Ok(())
    } else {
        Err(Reason::MediaNotAllowed { device, partition })
    }
}

/// Whether all decoders on the way to a device, and those of the set's first member, agree about
/// who keeps the range coherent: Target Range Type and BI say how each level treats a request, so a
/// range has one of each (CXL r3.1 section 8.2.4.20.7).
fn one_coherency(first: &Endpoint, leaf: &Leaf) -> Result<(), Reason> {
    let Leaf { branch, endpoint: Endpoint { device, decoder, .. } } = leaf;
    let above = branch.types.iter().find(|(_, coherency)| *coherency != decoder.coherency);
    if let Some(&(at, coherency)) = above {
        let (device, expected) = (*device, decoder.coherency);
        return Err(Reason::CoherencyDiffers { at, coherency, device, expected });
    }
    if decoder.coherency != first.decoder.coherency {
        let (at, coherency) = (At::Device(*device), decoder.coherency);
        let (device, expected) = (first.device, first.decoder.coherency);
        return Err(Reason::CoherencyDiffers { at, coherency, device, expected });
    }
    Ok(())
}

/// Whether everything from the root port to the device can do the back-invalidate that the decoders
/// ask for.
fn back_invalidate(fabric: &Fabric, leaf: &Leaf) -> Result<(), Reason> {
    let Leaf { branch, endpoint } = leaf;
    if endpoint.decoder.coherency != Coherency::BackInvalidate {
        return Ok(());
    }
    let ports = branch.ports.iter().map(|&port| {
        let able = fabric.ports.get(port).is_some_and(|port| port.back_invalidate);
        (Place::Port(port), able)
    });
    let switches = branch.types.iter().filter_map(|(at, _)| {
        let At::Switch(switch) = *at else { return None };
        let able = fabric.switches.get(switch).is_some_and(|switch| switch.back_invalidate);
        Some((Place::Switch(switch), able))
    });
    let device = endpoint.device;
    let able = fabric.devices.get(device).is_some_and(|device| device.back_invalidate);
    let mut path = ports.chain(switches).chain([(Place::Device(device), able)]);
    match path.find(|(_, able)| !able) {
        Some((place, _)) => Err(Reason::NoBackInvalidate { place }),
        None => Ok(()),
    }
}

/// Whether the device's decoder has addresses of no other window. Each window picks targets in its own
/// way, so where they meet, two addresses could be dealt to one byte.
fn one_window(fabric: &Fabric, window: &fabric::Window, endpoint: &Endpoint) -> Result<(), Reason> {
    let span = endpoint.decoder.span;
    let Some(own) = placed(window) else { return Ok(()) };
    let reaches = |other: Span| {
        // What both windows have is trapped anyway.
        let (from, to) = (other.base().max(span.base()), other.last().min(span.last()));
        from <= to && !(own.contains(from) && own.contains(to))
    };
    let other = fabric.windows.iter().position(|other| placed(other).is_some_and(reaches));
    match other {
        Some(other) => Err(Reason::SpansWindows { device: endpoint.device, other }),
        None => Ok(()),
    }
}

impl Endpoint {
    fn member(&self) -> Member {
        Member { device: self.device, decoder: self.index, dpa: self.dpa }
    }
}
