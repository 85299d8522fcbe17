//! Whether committed decoders make whole paths: from a device's decoder through switches and the
//! host bridge to a window.
//!
//! **Invariant**: pure. The decoders are judged against each other and against the window, never
//! against what somebody wanted.

use core::cmp::Ordering;

use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::{Decoder, Interleave, Levels, Route, Span, Ways};

use super::Finding;
use crate::admits;
use crate::committed::{CommittedDecoder, CommittedRegion, Place, Probed};
use crate::policy::{PathPolicy, Policy, TargetSystem};
use crate::topology::{NodeId, NodeKind, Partition, Tree};

/// A window as a path sees it.
#[derive(Clone, Copy)]
pub(crate) struct WindowView<'a> {
    pub(crate) span: Span,
    pub(crate) interleave: Interleave,
    pub(crate) restrictions: Restrictions,
    pub(crate) targets: &'a [u32],
}

/// All decoders of a machine that are in use.
#[derive(Clone, Copy)]
pub(crate) struct Decoders<'a> {
    pub(crate) tree: Tree<'a>,
    pub(crate) list: &'a [CommittedDecoder],
    pub(crate) policy: &'a Policy<'a>,
}

impl<'a> Decoders<'a> {
    pub(crate) fn place(self, entry: &CommittedDecoder) -> Place {
        Place::of(self.tree, entry.node, entry.index)
    }

    pub(crate) fn is_device(self, node: NodeId) -> bool {
        self.tree.get(node).is_some_and(|node| node.device().is_some())
    }

    /// The decoders of one component that claim something, by number.
    fn of(self, node: NodeId) -> impl Iterator<Item = (&'a CommittedDecoder, &'a Decoder)> {
        self.claims().filter(move |(entry, _)| entry.node == node)
    }

    /// All decoders that claim something.
    fn claims(self) -> impl Iterator<Item = (&'a CommittedDecoder, &'a Decoder)> + Clone {
        self.list.iter().filter_map(|entry| Some((entry, entry.active()?)))
    }

    /// The devices' decoders that claim something.
    pub(crate) fn device_claims(
        self,
    ) -> impl Iterator<Item = (&'a CommittedDecoder, &'a Decoder)> + Clone {
        self.claims().filter(move |(entry, _)| self.is_device(entry.node))
    }

    /// Judges the set of devices that claim a range; the region if it is whole, locked or not.
    /// Every failure goes to `report`, and so does what is worth knowing.
    pub(crate) fn region(
        self,
        span: Span,
        window: Option<WindowView<'_>>,
        report: &mut dyn FnMut(Finding),
    ) -> Option<CommittedRegion> {
        let mut failed = false;
        let mut locked = true;
        let mut report = |finding: Finding| {
            match finding {
                Finding::UnlockedOnPath { .. } => {
                    locked = false;
                    if self.policy.path != PathPolicy::LockAll {
                        return;
                    }
                }
                _ => failed |= finding.is_failure(),
            }
            report(finding);
        };
        let members = self.device_claims().filter(|(_, decoder)| decoder.span == span);
        let (first, &decoder) = members.clone().next()?;
        for (entry, decoder) in members.clone() {
            self.memory(entry, window, &mut report);
            self.path(entry, decoder, window, &mut report);
        }
        let (need, have) = (decoder.interleave.ways.count(), members.count() as u32);
        if need != have {
            report(Finding::Members { span, need, have });
        }
        let partition = self.partition(first).unwrap_or(Partition::Volatile);
        let window = window?.span.base().0;
        let Decoder { interleave, coherency, .. } = decoder;
        (!failed).then_some(CommittedRegion {
            window,
            span,
            interleave,
            coherency,
            partition,
            locked,
            probed: Probed::No,
        })
    }

    /// The device memory behind a decoder: its skip, behind the skips and shares of those before
    /// it. `None` if the sum passes 64 bits.
    fn dpa(self, entry: &CommittedDecoder) -> Option<(u64, u64)> {
        let mut end = 0u64;
        let mut base = 0u64;
        for (_, decoder) in self.of(entry.node).filter(|(other, _)| other.index <= entry.index) {
            let Route::Skip(skip) = decoder.route else { return None };
            base = end.checked_add(skip)?;
            end = base.checked_add(decoder.share())?;
        }
        Some((base, end))
    }

    /// Bytes of a device's partition that decoders in use lead to.
    pub(crate) fn used(self, node: NodeId, partition: Partition) -> u64 {
        let Some(device) = self.tree.get(node).and_then(|node| node.device()) else { return 0 };
        let start = device.start(partition);
        let end = start.saturating_add(device.capacity(partition));
        let ranges = self.of(node).filter_map(|(entry, _)| self.dpa(entry));
        let inside = ranges.map(|(from, to)| to.min(end).saturating_sub(from.max(start)));
        inside.fold(0, u64::saturating_add)
    }

    fn partition(self, entry: &CommittedDecoder) -> Option<Partition> {
        let device = self.tree.get(entry.node)?.device()?;
        let (base, _) = self.dpa(entry)?;
        Some(match base < device.volatile {
            true => Partition::Volatile,
            false => Partition::Persistent,
        })
    }

    /// What a device's decoder leads to, against the device and the window.
    fn memory(
        self,
        entry: &CommittedDecoder,
        window: Option<WindowView<'_>>,
        report: &mut dyn FnMut(Finding),
    ) {
        let place = self.place(entry);
        let Some(device) = self.tree.get(entry.node).and_then(|node| node.device()) else { return };
        let capacity = device.volatile.saturating_add(device.persistent);
        let (base, end) = self.dpa(entry).unwrap_or((u64::MAX, u64::MAX));
        if end > capacity {
            report(Finding::BeyondCapacity { place, end, capacity });
            return;
        }
        let border = device.volatile;
        if base < border && border < end {
            report(Finding::CrossesPartition { place, base, end, border });
            return;
        }
        if let (Some(window), Some(partition)) = (window, self.partition(entry))
            && !admits::partition(window.restrictions, partition)
        {
            let window = window.span.base().0;
            report(Finding::MediaNotAllowed { place, window, partition });
        }
    }

    /// The way from the window to one device, against the device's own decoder.
    fn path(
        self,
        entry: &CommittedDecoder,
        decoder: &Decoder,
        window: Option<WindowView<'_>>,
        report: &mut dyn FnMut(Finding),
    ) {
        let device = self.place(entry);
        if !entry.locked() {
            report(Self::unlocked(device, entry));
        }
        self.alone(entry, decoder.span, report);
        let mut levels = Levels {
            root: window.map_or(Interleave::NONE, |window| window.interleave),
            bridge: Interleave::NONE,
            switch: Interleave::NONE,
        };
        let mut port = 0;
        let mut whole = true;
        for (id, node) in self.tree.upwards(entry.node) {
            let level = match node.kind {
                NodeKind::Device(_) => continue,
                NodeKind::RootPort | NodeKind::DownstreamPort => {
                    port = node.port;
                    continue;
                }
                NodeKind::HostBridge { uid } if node.hdm.is_none() => {
                    if self.tree.children(id).count() == 1 {
                        report(Finding::PassThrough { uid });
                    } else {
                        report(Finding::NoDecoders { device, at: self.tree.path(id) });
                        whole = false;
                    }
                    continue;
                }
                NodeKind::UpstreamPort if node.hdm.is_none() => {
                    report(Finding::NoDecoders { device, at: self.tree.path(id) });
                    whole = false;
                    continue;
                }
                NodeKind::HostBridge { .. } => &mut levels.bridge,
                NodeKind::UpstreamPort => &mut levels.switch,
            };
            let Some(found) = self.step(id, device, decoder, port, report) else {
                whole = false;
                continue;
            };
            if level.ways != Ways::One && found.ways != Ways::One {
                report(Finding::SwitchesInterleave { place: Place::of(self.tree, id, 0) });
                whole = false;
            }
            if found.ways != Ways::One {
                *level = found;
            }
        }
        let Some(window) = window else {
            report(Finding::OutsideWindows { place: device, span: decoder.span });
            return;
        };
        let base = window.span.base().0;
        if let Some((_, uid)) = self.tree.bridge(entry.node)
            && !window.targets.contains(&uid)
        {
            report(Finding::NotATarget { place: device, window: base, uid });
            whole = false;
        }
        if !admits::coherency(window.restrictions, decoder.coherency) {
            let coherency = decoder.coherency;
            report(Finding::CoherencyNotAllowed { place: device, window: base, coherency });
        }
        if !whole {
            return;
        }
        match levels.device() {
            Err(error) => report(Finding::Compose { place: device, error }),
            Ok(expected) if !same(expected, decoder.interleave) => {
                let found = decoder.interleave;
                report(Finding::InterleaveDiffers { place: device, expected, found });
            }
            Ok(_) => {}
        }
    }

    fn unlocked(place: Place, entry: &CommittedDecoder) -> Finding {
        Finding::UnlockedOnPath { place, control: entry.image.control().into_bits() }
    }

    /// Whether no other decoder of the component claims any address of the range.
    fn alone(self, entry: &CommittedDecoder, span: Span, report: &mut dyn FnMut(Finding)) {
        for (other, decoder) in self.of(entry.node).filter(|(_, other)| other.span.overlaps(span)) {
            let (earlier, later) = match other.index.cmp(&entry.index) {
                Ordering::Less => (decoder.span, span),
                Ordering::Equal => continue,
                Ordering::Greater => (span, decoder.span),
            };
            let place = Place { index: other.index.max(entry.index), ..self.place(entry) };
            let (base, previous_end) = (later.base().0, earlier.end().0);
            report(Finding::Overlap { place, base, previous_end });
        }
    }

    /// One bridge or switch on the way: the interleave of its decoder for the range, if it has one
    /// that leads to the port.
    fn step(
        self,
        node: NodeId,
        device: Place,
        wanted: &Decoder,
        port: u8,
        report: &mut dyn FnMut(Finding),
    ) -> Option<Interleave> {
        let span = wanted.span;
        let mut candidates = self.of(node).filter(|(_, decoder)| decoder.span.overlaps(span));
        let Some((entry, decoder)) = candidates.next() else {
            report(Finding::NotClaimed { device, at: self.tree.path(node), span });
            return None;
        };
        let place = self.place(entry);
        if !entry.locked() {
            report(Self::unlocked(place, entry));
        }
        self.alone(entry, decoder.span, report);
        let equal = decoder.span == span;
        if !equal
            && (self.policy.target == TargetSystem::Linux || !decoder.span.contains_span(span))
        {
            let (expected, found) = (span, decoder.span);
            report(Finding::RangeDiffers { device, place, expected, found });
        }
        if decoder.coherency != wanted.coherency {
            let (expected, found) = (wanted.coherency, decoder.coherency);
            report(Finding::CoherencyDiffers { place, expected, found });
        }
        let Route::Targets(targets) = decoder.route else { return None };
        if !targets.used(decoder.interleave.ways).contains(&port) {
            report(Finding::WrongTarget { device, place, port });
            return None;
        }
        Some(decoder.interleave)
    }

    /// The rules between decoders of one component, and those on single ones that only a whole
    /// machine can be judged by.
    pub(crate) fn components(self, report: &mut dyn FnMut(Finding)) {
        for (at, entry) in self.list.iter().enumerate().filter(|(_, entry)| entry.committed()) {
            let place = self.place(entry);
            let before = self.list.iter().take(at).filter(|other| other.node == entry.node);
            if before.clone().count() != usize::from(entry.index) {
                report(Finding::OutOfOrder { place });
            }
            let base = entry.image.base();
            let ends = before.map(|other| other.image.base().saturating_add(other.image.size()));
            if let Some(previous_end) = ends.max().filter(|&end| base < end) {
                report(Finding::Overlap { place, base, previous_end });
            }
            if entry.image.size() == 0 {
                if self.policy.target == TargetSystem::Linux {
                    report(Finding::ZeroSize { place });
                }
                if !entry.locked() && self.policy.path == PathPolicy::LockAll {
                    report(Self::unlocked(place, entry));
                }
            }
            if let (Some(decoder), false) = (entry.active(), self.is_device(entry.node)) {
                let span = decoder.span;
                let behind = self.device_claims().any(|(device, claim)| {
                    claim.span.overlaps(span)
                        && self.tree.upwards(device.node).any(|(above, _)| above == entry.node)
                });
                if !behind {
                    report(Finding::LeadsNowhere { place, span });
                }
            }
        }
    }
}

/// Equal but for a granularity that means nothing.
fn same(one: Interleave, other: Interleave) -> bool {
    one.ways == other.ways && (one.ways == Ways::One || one.granularity == other.granularity)
}
