//! Whether committed decoders make whole paths: from a device's decoder through switches and the
//! host bridge to a window.
//!
//! **Invariant**: pure. The decoders are judged against each other and against the window, never
//! against what somebody wanted.

use core::cmp::Ordering;

use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::{Decoder, Hpa, Interleave, Levels, Route, Span, Ways};

use crate::admits;
use crate::committed::{CommittedDecoder, CommittedRegion, Fate, Place, Probed};
use crate::error::{self, Code, Error};
use crate::platform::{claims, reached};
use crate::policy::{PathPolicy, TargetSystem};
use crate::topology::{MAX_DEPTH, NodeId, NodeKind, Partition, Tree};

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
    /// Whether every decoder on a path has to be locked.
    pub(crate) locks: PathPolicy,
    /// Whose rules count.
    pub(crate) target: TargetSystem,
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

    /// Whether a decoder leads to devices that are not used any more, and to no other: what lay
    /// behind a lock when it was lost cannot be undone, and its fault says so.
    pub(crate) fn leads_to_lost(self, entry: &CommittedDecoder) -> bool {
        self.ends_at_lost(entry, MAX_DEPTH)
    }

    /// The same, through so many switches at most.
    fn ends_at_lost(self, entry: &CommittedDecoder, levels: usize) -> bool {
        let (Some(decoder), Some(levels)) = (entry.active(), levels.checked_sub(1)) else {
            return false;
        };
        let Route::Targets(targets) = decoder.route else { return false };
        targets.used(decoder.interleave.ways).iter().all(|port| {
            let Some(port) = self.tree.child_at(entry.node, *port) else { return false };
            let mut below = self.tree.children(port);
            let switch = below.find(|(_, node)| node.kind == NodeKind::UpstreamPort);
            let claims = |(_, claim): &(_, &Decoder)| claim.span.overlaps(decoder.span);
            let on = switch.and_then(|(switch, _)| self.of(switch).find(claims));
            if let Some((on, _)) = on {
                return self.ends_at_lost(on, levels);
            }
            let mut devices = self.tree.devices_below(port).peekable();
            let some = self.tree.fault(port).is_some() || devices.peek().is_some();
            some && devices.all(|id| self.tree.fault(id).is_some())
        })
    }

    /// Judges the set of devices that claim a range; the region if it is whole, locked or not.
    /// Every failure goes to `report`, and so does what is worth knowing.
    #[inline(never)]
    pub(crate) fn region(
        self,
        span: Span,
        window: Option<WindowView<'_>>,
        report: &mut dyn FnMut(Error),
    ) -> Option<CommittedRegion> {
        let mut failed = false;
        let mut locked = true;
        let mut report = |finding: Error| {
            if finding.code == Code::VERIFY_UNLOCKED_ON_PATH {
                locked = false;
                if self.locks != PathPolicy::LockAll {
                    return;
                }
            } else {
                failed |= finding.is_failure();
            }
            report(finding);
        };
        let members = self.device_claims().filter(|(_, decoder)| claims(decoder, span));
        let (first, &decoder) = members.clone().next()?;
        // All of them claim one range.
        let members = members.filter(|(_, other)| other.span == decoder.span);
        for (entry, decoder) in members.clone() {
            self.memory(entry, window, &mut report);
            self.path(entry, decoder, window, &mut report);
        }
        let (need, have) = (decoder.interleave.ways.count(), members.count() as u32);
        if need != have {
            report(Code::VERIFY_MEMBERS.at(error::Place::range(span)).expected(need).found(have));
        }
        let partition = self.partition(first).unwrap_or(Partition::Volatile);
        let window = window?.span;
        let Decoder { interleave, coherency, span, .. } = decoder;
        (!failed).then_some(CommittedRegion {
            window: window.base(),
            span: reached(span, window),
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
        // Also what is lost takes its share, as long as it is committed.
        let own = self.list.iter().filter(|other| other.node == entry.node && other.committed());
        for other in own.filter(|other| other.index <= entry.index) {
            let Some(decoder) = other.decoder else { continue };
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
        report: &mut dyn FnMut(Error),
    ) {
        let place = self.place(entry);
        let Some(device) = self.tree.get(entry.node).and_then(|node| node.device()) else { return };
        let capacity = device.volatile.saturating_add(device.persistent);
        let (base, end) = self.dpa(entry).unwrap_or((u64::MAX, u64::MAX));
        if end > capacity {
            report(Code::VERIFY_BEYOND_CAPACITY.at(place).expected(capacity).found(end));
            return;
        }
        let border = device.volatile;
        if base < border && border < end {
            let crosses = Code::VERIFY_CROSSES_PARTITION.at(place).expected(border);
            report(match Span::new(Hpa(base), end - base) {
                Ok(ends) => crosses.found(ends),
                Err(_) => crosses,
            });
            return;
        }
        if let (Some(window), Some(partition)) = (window, self.partition(entry))
            && !admits::partition(window.restrictions, partition)
        {
            let window = window.span.base();
            report(Code::VERIFY_MEDIA_NOT_ALLOWED.at(place).detail(partition).found(window));
        }
    }

    /// The way from the window to one device, against the device's own decoder.
    #[inline(never)]
    fn path(
        self,
        entry: &CommittedDecoder,
        decoder: &Decoder,
        window: Option<WindowView<'_>>,
        report: &mut dyn FnMut(Error),
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
                        report(Code::VERIFY_PASS_THROUGH.at(error::Place::bridge(uid)));
                    } else {
                        report(Code::VERIFY_NO_DECODERS.at(device).above(self.tree.path(id)));
                        whole = false;
                    }
                    continue;
                }
                NodeKind::UpstreamPort if node.hdm.is_none() => {
                    report(Code::VERIFY_NO_DECODERS.at(device).above(self.tree.path(id)));
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
                report(Code::VERIFY_SWITCHES_INTERLEAVE.at(Place::of(self.tree, id, 0)));
                whole = false;
            }
            if found.ways != Ways::One {
                *level = found;
            }
        }
        let Some(window) = window else {
            report(
                Code::VERIFY_OUTSIDE_WINDOWS
                    .at(device)
                    .expected(decoder.span.base())
                    .found(decoder.span.size()),
            );
            return;
        };
        let base = window.span.base();
        if let Some((_, uid)) = self.tree.bridge(entry.node)
            && !window.targets.contains(&uid)
        {
            report(Code::VERIFY_NOT_A_TARGET.at(device).expected(uid).found(base));
            whole = false;
        }
        if !admits::coherency(window.restrictions, decoder.coherency) {
            let coherency = decoder.coherency;
            report(Code::VERIFY_COHERENCY_NOT_ALLOWED.at(device).detail(coherency).found(base));
        }
        if !whole {
            return;
        }
        match levels.device() {
            Err(error) => report(Code::VERIFY_COMPOSE.at(device).rule(error)),
            Ok(expected) if !same(expected, decoder.interleave) => {
                let found = decoder.interleave;
                report(Code::VERIFY_INTERLEAVE_DIFFERS.at(device).expected(expected).found(found));
            }
            Ok(_) => {}
        }
    }

    fn unlocked(place: Place, entry: &CommittedDecoder) -> Error {
        Code::VERIFY_UNLOCKED_ON_PATH.at(place).found(entry.image.control().into_bits())
    }

    /// Whether no other decoder of the component claims any address of the range.
    fn alone(self, entry: &CommittedDecoder, span: Span, report: &mut dyn FnMut(Error)) {
        for (other, decoder) in self.of(entry.node).filter(|(_, other)| other.span.overlaps(span)) {
            let (earlier, later) = match other.index.cmp(&entry.index) {
                Ordering::Less => (decoder.span, span),
                Ordering::Equal => continue,
                Ordering::Greater => (span, decoder.span),
            };
            let place = Place { index: other.index.max(entry.index), ..self.place(entry) };
            let (base, previous_end) = (later.base().0, earlier.end().0);
            report(Code::VERIFY_OVERLAP.at(place).expected(previous_end).found(base));
        }
    }

    /// One bridge or switch on the way: the interleave of its decoder for the range, if it has one
    /// that leads to the port.
    #[inline(never)]
    fn step(
        self,
        node: NodeId,
        device: Place,
        wanted: &Decoder,
        port: u8,
        report: &mut dyn FnMut(Error),
    ) -> Option<Interleave> {
        let span = wanted.span;
        let mut candidates = self.of(node).filter(|(_, decoder)| decoder.span.overlaps(span));
        let Some((entry, decoder)) = candidates.next() else {
            report(
                Code::VERIFY_NOT_CLAIMED
                    .at(device)
                    .above(self.tree.path(node))
                    .expected(span.base())
                    .found(span.size()),
            );
            return None;
        };
        let place = self.place(entry);
        if !entry.locked() {
            report(Self::unlocked(place, entry));
        }
        self.alone(entry, decoder.span, report);
        let equal = decoder.span == span;
        if !equal && (self.target == TargetSystem::Linux || !decoder.span.contains_span(span)) {
            let (expected, found) = (span, decoder.span);
            report(
                Code::VERIFY_RANGE_DIFFERS.at(device).above(place).expected(expected).found(found),
            );
        }
        if decoder.coherency != wanted.coherency {
            let (expected, found) = (wanted.coherency, decoder.coherency);
            report(Code::VERIFY_COHERENCY_DIFFERS.at(place).expected(expected).found(found));
        }
        let Route::Targets(targets) = decoder.route else { return None };
        if !targets.used(decoder.interleave.ways).contains(&port) {
            report(Code::VERIFY_WRONG_TARGET.at(device).above(place).expected(port));
            return None;
        }
        Some(decoder.interleave)
    }

    /// The rules between decoders of one component, and those on single ones that only a whole
    /// machine can be judged by.
    #[inline(never)]
    pub(crate) fn components(self, report: &mut dyn FnMut(Error)) {
        // Of what is lost, that is said already.
        let judged = |entry: &CommittedDecoder| entry.committed() && entry.fate != Fate::Stranded;
        for (at, entry) in self.list.iter().enumerate().filter(|(_, entry)| judged(entry)) {
            let place = self.place(entry);
            let before = self.list.iter().take(at).filter(|other| other.node == entry.node);
            if before.clone().count() != usize::from(entry.index) {
                report(Code::VERIFY_OUT_OF_ORDER.at(place));
            }
            let base = entry.image.base();
            let ends = before.map(|other| other.image.base().saturating_add(other.image.size()));
            if let Some(previous_end) = ends.max().filter(|&end| base < end) {
                report(Code::VERIFY_OVERLAP.at(place).expected(previous_end).found(base));
            }
            if entry.image.size() == 0 {
                if self.target == TargetSystem::Linux {
                    report(Code::VERIFY_ZERO_SIZE.at(place));
                }
                if !entry.locked() && self.locks == PathPolicy::LockAll {
                    report(Self::unlocked(place, entry));
                }
            }
            if let (Some(decoder), false) = (entry.active(), self.is_device(entry.node)) {
                let span = decoder.span;
                let behind = self.device_claims().any(|(device, claim)| {
                    claim.span.overlaps(span)
                        && self.tree.upwards(device.node).any(|(above, _)| above == entry.node)
                });
                if !behind && !self.leads_to_lost(entry) {
                    report(
                        Code::VERIFY_LEADS_NOWHERE
                            .at(place)
                            .expected(span.base())
                            .found(span.size()),
                    );
                }
            }
        }
    }
}

/// Equal but for a granularity that means nothing.
fn same(one: Interleave, other: Interleave) -> bool {
    one.ways == other.ways && (one.ways == Ways::One || one.granularity == other.granularity)
}
