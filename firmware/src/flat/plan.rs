//! The flat plan: every device's memory, a region for each kind, into the one window that fits.
//!
//! **Invariant**: windows are judged in the order and by the rules of [`mod@crate::plan`], and whatever is
//! refused there is refused here by the same number; what only that can plan has a number of its own.

use cxl_regs::access::Component;
use cxl_regs::{Arithmetic, Coherency, DECODER_UNIT, Granularity, Hpa, Span, Ways};

use super::{Below, NotPlanned, Port, Region, View, WorkspaceMut};
use crate::admits;
use crate::committed::DecoderBefore;
use crate::error::{Code, Failed, Fault, Place};
use crate::list::Empty;
use crate::platform::{Platform, Window};
use crate::topology::{DeviceKind, Partition, Path};

/// What is not a multiple of 256 MiB, by the detail of the error.
const OF_WINDOW_BASE: u8 = 3;
const OF_MEMORY: u8 = 4;

/// Decides where everything goes; touches no hardware.
#[inline(never)]
pub(super) fn plan(
    platform: &Platform<'_>,
    work: &mut WorkspaceMut<'_>,
    fault: &mut Fault,
) -> Result<(), Failed> {
    check_devices(work.view(), fault)?;
    for number in 0..work.ports.len() as u16 {
        for partition in Partition::ALL {
            memory(platform, work, number, partition, fault)?;
        }
    }
    decoders(work.view(), fault)
}

/// Decides where one kind of memory of the device below a port goes, if it has any.
#[inline(never)]
fn memory(
    platform: &Platform<'_>,
    work: &mut WorkspaceMut<'_>,
    number: u16,
    partition: Partition,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let view = &work.view();
    let Some(port) = view.port(number) else { return Ok(()) };
    let Some(below) = &port.device else { return Ok(()) };
    let need = below.device.capacity(partition);
    if need == 0 {
        return Ok(());
    }
    let path = &view.path(number);
    if !need.is_multiple_of(DECODER_UNIT) {
        let fault = fault.at(Code::PLAN_UNALIGNED, path).detail(OF_MEMORY);
        return fault.expected(DECODER_UNIT).found(need).into();
    }
    let coherencies = coherencies(path, port, below, fault)?;
    let mut region = Region {
        port: number,
        partition,
        // Until it has a place.
        window: Hpa(0),
        span: Span::<Hpa>::ORIGIN,
        coherency: Coherency::HostOnly,
        granularity: Granularity::B256,
        before: [DecoderBefore::EMPTY, DecoderBefore::EMPTY],
    };
    place(platform, &Ask { view, path, coherencies, need }, &mut region, fault)?;
    let lower = |other: &&Region| other.span.base() < region.span.base();
    let at = work.regions.iter().filter(lower).count();
    match work.regions.insert(at, region) {
        Ok(()) => Ok(()),
        Err(_) => Err(not_planned(fault, NotPlanned::Regions, path.into())),
    }
}

/// The rules on windows that hold whichever of them is used, and whatever is found.
pub(super) fn windows(platform: &Platform<'_>, fault: &mut Fault) -> Result<(), Failed> {
    if let Some(error) = platform.unread() {
        return Err(fault.keep(error));
    }
    // Of several faults the one of the lowest window, in whatever order they are listed.
    let (mut lowest, mut found) = (None, Fault::none());
    for window in platform.windows {
        if check_window(platform, window, &mut found).is_err()
            && lowest.is_none_or(|lowest| is_lower(window, lowest))
        {
            (lowest, *fault) = (Some(window), found);
        }
    }
    if lowest.is_some() { Err(Failed) } else { Ok(()) }
}

/// Whether what is wrong with a window is told rather than what is wrong with another.
#[inline(never)]
fn is_lower(window: &Window, other: &Window) -> bool {
    // A window without a base before all others.
    let key = |window: &Window| {
        let base = window.base.map_or([0, 0], |base| [1, base.0]);
        let target = window.targets.first().map_or(0, |target| u64::from(*target) + 1);
        let [placed, base] = base;
        [placed, base, window.size, target]
    };
    key(window) < key(other)
}

#[cold]
#[inline(never)]
fn not_planned(fault: &mut Fault, what: NotPlanned, at: Place) -> Failed {
    fault.at(Code::PLAN_NOT_FLAT, at).detail(what as u8).into()
}

/// The rules on ports and devices that hold whatever there are of windows.
fn check_devices(view: View<'_>, fault: &mut Fault) -> Result<(), Failed> {
    let mut before = None;
    for port in view.ports {
        let key = Some((port.bridge, port.number));
        if before == key {
            let above = Place::bridge(view.uid(port));
            return fault.at(Code::PLAN_DUPLICATE_PORT, above).found(port.number).into();
        }
        before = key;
    }
    for (number, port) in (0..).zip(view.ports) {
        let Some(below) = &port.device else { continue };
        let (volatile, persistent) = (below.device.volatile, below.device.persistent);
        if volatile.checked_add(persistent).is_none() {
            let fault = fault.at(Code::PLAN_DEVICE_TOO_LARGE, &view.path(number));
            return fault.expected(volatile).found(persistent).into();
        }
    }
    Ok(())
}

#[inline(never)]
fn check_window(platform: &Platform<'_>, window: &Window, fault: &mut Fault) -> Result<(), Failed> {
    let base = window.base;
    let at = Place::window(base);
    if let Some(error) = window.unreadable {
        return Err(fault.keep(error));
    }
    let not_flat = if window.interleave.ways != Ways::One {
        Some(NotPlanned::Interleaved)
    } else if window.arithmetic == Arithmetic::Xor {
        Some(NotPlanned::Xor)
    } else if base == Some(Hpa(0)) && platform.base_of(window).is_some() {
        Some(NotPlanned::AtZero)
    } else if !window.has_share() {
        Some(NotPlanned::NoShare)
    } else {
        None
    };
    if let Some(what) = not_flat {
        return Err(not_planned(fault, what, at));
    }
    let &[target] = &*window.targets else {
        let targets = window.targets.len() as u8;
        return fault.at(Code::PLAN_TARGET_COUNT, at).expected(Ways::One).found(targets).into();
    };
    if !platform.bridges.iter().any(|bridge| bridge.uid == target) {
        return fault.at(Code::PLAN_TARGET_MISSING, at).found(target).into();
    }
    let Some(own) = platform.claimed(window) else { return Ok(()) };
    let mut lowest = None;
    for other in platform.windows {
        let Some(base) = platform.base_of(other) else { continue };
        let claimed = platform.claimed(other);
        let overlaps = base == own.base() || claimed.is_some_and(|other| other.overlaps(own));
        if overlaps && lowest.is_none_or(|lowest| base < lowest) && !core::ptr::eq(other, window) {
            lowest = Some(base);
        }
    }
    if let Some(other) = lowest {
        let at = Place::window(own.base().min(other));
        return fault.at(Code::PLAN_WINDOWS_OVERLAP, at).found(own.base().max(other)).into();
    }
    match platform.taken_in(own) {
        Some(by) => {
            let fault = fault.at(Code::PLAN_WINDOW_OCCUPIED, at).expected(by.base());
            fault.found(by.size()).into()
        }
        None => Ok(()),
    }
}

/// The coherency models that a device can be programmed for, preferred first.
fn coherencies(
    path: &Path,
    port: &Port,
    below: &Below,
    fault: &mut Fault,
) -> Result<[Option<Coherency>; 2], Failed> {
    let expander = below.device.kind == DeviceKind::Type3;
    let (host, coherent) = match below.hdm.map_or(0, |hdm| hdm.capability.coherency_models()) {
        1 => (false, true),
        2 => (true, false),
        3 => (true, true),
        _ => (expander, !expander),
    };
    let back_invalidate = below.back_invalidate.is_some() && port.back_invalidate.is_some();
    if !expander && coherent && below.back_invalidate.is_some() {
        return Err(not_planned(fault, NotPlanned::BackInvalidate, path.into()));
    }
    if expander && coherent && !host && !back_invalidate {
        return fault.at(Code::PLAN_NO_BACK_INVALIDATE, path).above(path).into();
    }
    let through = if expander { Coherency::BackInvalidate } else { Coherency::Device };
    let through = Some(through).filter(|_| coherent && (!expander || back_invalidate));
    let host = Some(Coherency::HostOnly).filter(|_| host);
    Ok(if expander { [host, through] } else { [through, host] })
}

/// What is to be placed: a region's memory.
struct Ask<'a> {
    view: &'a View<'a>,
    path: &'a Path,
    /// As they are preferred.
    coherencies: [Option<Coherency>; 2],
    need: u64,
}

/// Finds the one window that fits, and the place in it, and gives them to the region.
#[inline(never)]
fn place(
    platform: &Platform<'_>,
    ask: &Ask<'_>,
    region: &mut Region,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let (&Ask { path, need, .. }, partition) = (ask, region.partition);
    let (mut fits, mut second) = (0u16, Hpa(u64::MAX));
    // How far the window came that came furthest, and the lowest of these: it says why none fits.
    let (mut furthest, mut closest) = (0, None);
    let mut found = Fault::none();
    for window in platform.windows {
        match ask.judge(platform, window, region, &mut found) {
            Ok((base, at, coherency)) => {
                let lowest = fits == 0 || base < region.window;
                if !lowest {
                    second = second.min(base);
                } else {
                    if fits != 0 {
                        second = region.window;
                    }
                    region.window = base;
                    // Its window holds it, so it has an end.
                    region.span = Span::new(at, need).unwrap_or(Span::<Hpa>::ORIGIN);
                    region.coherency = coherency;
                    region.granularity = window.interleave.granularity;
                }
                fits = fits.saturating_add(1);
            }
            Err(stage) => {
                let lower = |other| is_lower(window, other);
                if stage > furthest || stage == furthest && closest.is_none_or(lower) {
                    (furthest, closest) = (stage, Some(window));
                    *fault = found;
                }
            }
        }
    }
    match fits {
        0 if furthest != 0 => Err(Failed),
        0 => fault.at(Code::PLAN_NO_WINDOW, path).detail(partition).expected(need).into(),
        1 if region.coherency == Coherency::BackInvalidate => {
            Err(not_planned(fault, NotPlanned::BackInvalidate, path.into()))
        }
        1 => Ok(()),
        _ => {
            let fault = fault.at(Code::PLAN_AMBIGUOUS, path).halves(partition, fits);
            fault.expected(region.window).found(second).into()
        }
    }
}

impl Ask<'_> {
    /// Whether a window holds it, and where, with the window's base; else how far it came, as in
    /// [`mod@crate::plan`], 0 where it leads to another bridge: then there is no fault.
    #[inline(never)]
    fn judge(
        &self,
        platform: &Platform<'_>,
        window: &Window,
        region: &Region,
        fault: &mut Fault,
    ) -> Result<(Hpa, Hpa, Coherency), u8> {
        let (&Self { view, path, need, .. }, partition) = (self, region.partition);
        // Each window has one, as was seen before.
        if *window.targets != [path.uid()] {
            return Err(0);
        }
        let size = window.size;
        let Some(base) = platform.base_of(window) else {
            fault.at(Code::PLAN_UNPLACED, path).found(size);
            return Err(1);
        };
        if !base.0.is_multiple_of(DECODER_UNIT) {
            let fault = fault.at(Code::PLAN_UNALIGNED, path).detail(OF_WINDOW_BASE);
            fault.expected(DECODER_UNIT).found(base);
            return Err(1);
        }
        let bits = platform.address_bits;
        let span = Span::new(base, size).ok();
        let most = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
        let Some(span) = span.filter(|span| span.end().0 <= most) else {
            let fault = fault.at(Code::PLAN_BEYOND_ADDRESS_WIDTH, Place::window(base));
            fault.expected(bits).found(size);
            return Err(2);
        };
        if !admits::partition(window.restrictions, partition) {
            let fault = fault.at(Code::PLAN_MEDIA_NOT_ALLOWED, path).detail(partition);
            fault.found(base);
            return Err(4);
        }
        let [preferred, other] = self.coherencies;
        let admitted = |model: &Coherency| admits::coherency(window.restrictions, *model);
        let Some(coherency) = preferred.filter(admitted).or(other.filter(admitted)) else {
            let first = preferred.or(other).unwrap_or(Coherency::HostOnly);
            let fault = fault.at(Code::PLAN_COHERENCY_NOT_ALLOWED, path).detail(first);
            fault.found(base);
            return Err(5);
        };
        let inside = |code, found, fault: &mut Fault| {
            fault.at(code, Place::in_window(*path, base)).expected(need).found(found);
        };
        if size < need {
            inside(Code::PLAN_WINDOW_TOO_SMALL, size, fault);
            return Err(6);
        }
        // Decoders go up in HPA and DPA together: persistent memory lies above the volatile.
        let volatile = view.regions.iter().find(|other| {
            other.port == region.port && other.partition < partition && other.span.overlaps(span)
        });
        let from = volatile.map_or(base, |volatile| volatile.span.end());
        match first_gap(view, span, from, need) {
            Ok(at) => Ok((base, at, coherency)),
            Err(free) => {
                match (volatile, first_gap(view, span, base, need)) {
                    (Some(volatile), Ok(lower)) => {
                        let fault = fault.at(Code::PLAN_DPA_ORDER, path);
                        fault.expected(volatile.span.base()).found(lower);
                    }
                    _ => inside(Code::PLAN_WINDOW_FULL, free, fault),
                }
                Err(7)
            }
        }
    }
}

/// The first gap of `need` bytes in a window between its regions, from an address on, or else the largest.
#[inline(always)]
fn first_gap(view: &View<'_>, window: Span, from: Hpa, need: u64) -> Result<Hpa, u64> {
    let (mut at, mut largest) = (from, 0);
    let mut regions = view.regions.iter();
    loop {
        let next = regions.next();
        let base = next.map_or(window.end(), |region| region.span.base());
        if next.is_none_or(|region| region.span.overlaps(window)) {
            let gap = base.0.saturating_sub(at.0);
            if gap >= need {
                return Ok(at);
            }
            largest = largest.max(gap);
        }
        let Some(region) = next else { return Err(largest) };
        if region.span.overlaps(window) {
            at = at.max(region.span.end());
        }
    }
}

/// Whether every region has its decoders, and these agree to what they are to hold.
fn decoders(view: View<'_>, fault: &mut Fault) -> Result<(), Failed> {
    for (at, region) in view.regions.iter().enumerate() {
        let path = view.path(region.port);
        let before = view.regions.get(..at).unwrap_or_default();
        if let (Partition::Volatile, Some(lower)) =
            (region.partition, before.iter().find(|other| other.port == region.port))
        {
            let fault = fault.at(Code::PLAN_DPA_ORDER, &path).expected(region.span.base());
            return fault.found(lower.span.base()).into();
        }
        decoder(view, region, Component::Device, &path, Place::from(&path), fault)?;
        let above = Place::bridge(path.uid());
        decoder(view, region, Component::HostBridge, &path, above, fault)?;
    }
    Ok(())
}

/// The same of one component; `above` is its place, and the path is the device's.
#[inline(never)]
fn decoder(
    view: View<'_>,
    region: &Region,
    component: Component,
    path: &Path,
    above: Place,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let mut nth = 0;
    while let Some(planned) = &view.nth(nth) {
        nth += 1;
        let place = &planned.place;
        if place.component != component || planned.region.span != region.span {
            continue;
        }
        if let Err(error) = planned.image() {
            return fault.at(Code::PLAN_DECODER, above).rule(error).into();
        }
        if place.index >= planned.hdm.decoders {
            let fault = fault.at(Code::PLAN_DECODERS_EXHAUSTED, path).above(above);
            return fault.found(planned.hdm.decoders).into();
        }
        return Ok(());
    }
    fault.at(Code::PLAN_NO_DECODERS, path).above(above).into()
}
