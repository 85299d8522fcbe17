//! The flat plan: every device's memory, a region for each kind, into the one window that fits.
//!
//! **Invariant**: windows are judged in the order and by the rules of [`mod@crate::plan`], and whatever is
//! refused there is refused here by the same number; what only that can plan has a number of its own.

use core::cmp::Reverse;

use cxl_regs::{Arithmetic, Coherency, DECODER_UNIT, Hpa, Span, Ways};

use super::{Below, NotPlanned, Port, Region, View, WorkspaceMut};
use crate::admits;
use crate::error::{Code, Error, Place};
use crate::list::Empty;
use crate::platform::{Platform, Window};
use crate::topology::{DeviceKind, Partition, Path};

/// What is not a multiple of 256 MiB, by the detail of the error.
const OF_WINDOW_BASE: u8 = 3;
const OF_MEMORY: u8 = 4;

/// Decides where everything goes; touches no hardware.
pub(super) fn plan(platform: &Platform<'_>, work: &mut WorkspaceMut<'_>) -> Result<(), Error> {
    // Of several faults the one of the lowest window, in whatever order they are listed.
    let mut fault = None;
    for window in platform.windows {
        if let Err(error) = check_window(platform, window) {
            let key = (window.base, window.size, window.targets.first().copied());
            if fault.is_none_or(|(before, _)| key < before) {
                fault = Some((key, error));
            }
        }
    }
    if let Some((_, fault)) = fault {
        return Err(fault);
    }
    let view = work.view();
    for (port, next) in view.ports.iter().zip(view.ports.iter().skip(1)) {
        if (port.bridge, port.number) == (next.bridge, next.number) {
            let above = Path::new(view.uid(port), &[]).unwrap_or_default();
            return Err(Code::PLAN_DUPLICATE_PORT.at(above).found(port.number));
        }
    }
    for (port, below) in view.ports.iter().filter_map(|port| Some((port, port.device.as_ref()?))) {
        let (volatile, persistent) = (below.device.volatile, below.device.persistent);
        if volatile.checked_add(persistent).is_none() {
            let error = Code::PLAN_DEVICE_TOO_LARGE.at(view.path(port));
            return Err(error.expected(volatile).found(persistent));
        }
    }
    for number in 0..work.ports.len() as u16 {
        for partition in Partition::ALL {
            let view = work.view();
            let Some(port) = view.port(number) else { continue };
            let Some(below) = &port.device else { continue };
            if below.device.capacity(partition) == 0 {
                continue;
            }
            let region = place(platform, view, number, port, below, partition)?;
            let full = NotPlanned::Regions.at(view.path(port));
            let base = region.span.base();
            let at = work.regions.iter().filter(|other| other.span.base() < base).count();
            work.regions.insert(at, region).map_err(|_| full)?;
        }
    }
    decoders(work.view())
}

/// The rules on windows that hold whichever of them is used.
fn check_window(platform: &Platform<'_>, window: &Window) -> Result<(), Error> {
    let base = window.base;
    let at = Place::window(base);
    if window.interleave.ways != Ways::One {
        return Err(NotPlanned::Interleaved.at(at));
    }
    if window.arithmetic == Arithmetic::Xor {
        return Err(NotPlanned::Xor.at(at));
    }
    if base == Some(Hpa(0)) && platform.base_of(window).is_some() {
        return Err(NotPlanned::AtZero.at(at));
    }
    if !window.has_share() {
        return Err(NotPlanned::NoShare.at(at));
    }
    let &[target] = &*window.targets else {
        let targets = window.targets.len() as u8;
        return Err(Code::PLAN_TARGET_COUNT.at(at).expected(Ways::One).found(targets));
    };
    if !platform.bridges.iter().any(|bridge| bridge.uid == target) {
        return Err(Code::PLAN_TARGET_MISSING.at(at).found(target));
    }
    // Of one that wraps, those up to the top.
    let claimed = |window: &Window| {
        let base = platform.base_of(window)?;
        Span::new(base, window.size.min(u64::MAX - base.0)).ok()
    };
    let own = claimed(window);
    let overlaps = |other: &Window| {
        let same = platform.base_of(other) == platform.base_of(window) && own.is_some();
        same || matches!((claimed(other), own), (Some(a), Some(b)) if a.overlaps(b))
    };
    let others = platform.windows.iter().filter(|other| !core::ptr::eq(*other, window));
    if let Some(other) = others.filter(|other| overlaps(other)).map(|other| other.base).min() {
        let error = Code::PLAN_WINDOWS_OVERLAP.at(Place::window(base.min(other)));
        return Err(error.found(base.max(other).unwrap_or_default()));
    }
    let over = platform.taken().filter(|taken| own.is_some_and(|own| own.overlaps(*taken)));
    match over.min_by_key(|taken| (taken.base(), taken.size())) {
        Some(by) => Err(Code::PLAN_WINDOW_OCCUPIED.at(at).expected(by.base()).found(by.size())),
        None => Ok(()),
    }
}

/// The coherency models that a device can be programmed for, preferred first.
fn coherencies(path: Path, port: &Port, below: &Below) -> Result<[Option<Coherency>; 3], Error> {
    let expander = below.device.kind == DeviceKind::Type3;
    let (host, coherent) = match below.hdm.map_or(0, |hdm| hdm.capability.coherency_models()) {
        1 => (false, true),
        2 => (true, false),
        3 => (true, true),
        _ => (expander, !expander),
    };
    let back_invalidate = below.back_invalidate.is_some() && port.back_invalidate.is_some();
    if !expander && coherent && below.back_invalidate.is_some() {
        return Err(NotPlanned::BackInvalidate.at(path));
    }
    if expander && coherent && !host && !back_invalidate {
        return Err(Code::PLAN_NO_BACK_INVALIDATE.at(path).above(path));
    }
    let through = if expander { Coherency::BackInvalidate } else { Coherency::Device };
    let through = Some(through).filter(|_| coherent && (!expander || back_invalidate));
    let host = Some(Coherency::HostOnly).filter(|_| host);
    Ok(if expander { [host, through, None] } else { [through, host, None] })
}

/// How far a window came, as in [`mod@crate::plan`]; where none fits, the one that came furthest says why.
type Unfit = (u8, Option<Error>);

/// Finds the one window that fits, and the place in it.
fn place(
    platform: &Platform<'_>,
    view: View<'_>,
    number: u16,
    port: &Port,
    below: &Below,
    partition: Partition,
) -> Result<Region, Error> {
    let path = view.path(port);
    let size = below.device.capacity(partition);
    if !size.is_multiple_of(DECODER_UNIT) {
        let error = Code::PLAN_UNALIGNED.at(path).detail(OF_MEMORY);
        return Err(error.expected(DECODER_UNIT).found(size));
    }
    let coherencies = coherencies(path, port, below)?;
    let mut best: Option<Region> = None;
    let mut second: Option<Hpa> = None;
    let mut fits = 0u16;
    let mut closest = None;
    for window in platform.windows {
        match judge(platform, view, number, path, &coherencies, partition, size, window) {
            Ok(region) => {
                fits = fits.saturating_add(1);
                let other = match best {
                    Some(before) if before.window <= region.window => Some(region.window),
                    before => {
                        best = Some(region);
                        before.map(|before| before.window)
                    }
                };
                second = second.into_iter().chain(other).min();
            }
            Err((stage, error)) => {
                let how_far = (stage, Reverse((window.base, window.size)));
                if closest.is_none_or(|(before, _)| how_far > before) {
                    closest = Some((how_far, error));
                }
            }
        }
    }
    let Some(region) = best else {
        return Err(closest
            .and_then(|(_, error)| error)
            .unwrap_or_else(|| Code::PLAN_NO_WINDOW.at(path).detail(partition).expected(size)));
    };
    if let Some(second) = second {
        let error = Code::PLAN_AMBIGUOUS.at(path).halves(partition, fits);
        return Err(error.expected(region.window).found(second));
    }
    if region.coherency == Coherency::BackInvalidate {
        return Err(NotPlanned::BackInvalidate.at(path));
    }
    Ok(region)
}

/// Whether a window holds a region, and where.
#[allow(clippy::too_many_arguments, reason = "each is one fact that a window is judged by")]
fn judge(
    platform: &Platform<'_>,
    view: View<'_>,
    number: u16,
    path: Path,
    coherencies: &[Option<Coherency>],
    partition: Partition,
    need: u64,
    window: &Window,
) -> Result<Region, Unfit> {
    let refuse = |stage, error: Error| Err((stage, Some(error)));
    if !window.targets.contains(&path.uid()) {
        return Err((0, None));
    }
    let size = window.size;
    let Some(base) = platform.base_of(window) else {
        return refuse(1, Code::PLAN_UNPLACED.at(path).found(size));
    };
    let inside = Place::in_window(path, base);
    if !base.0.is_multiple_of(DECODER_UNIT) {
        let error = Code::PLAN_UNALIGNED.at(path).detail(OF_WINDOW_BASE);
        return refuse(1, error.expected(DECODER_UNIT).found(base));
    }
    let bits = platform.address_bits;
    let span = Span::new(base, size).ok();
    let most = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    let Some(span) = span.filter(|span| span.end().0 <= most) else {
        let at = Place::window(base);
        return refuse(2, Code::PLAN_BEYOND_ADDRESS_WIDTH.at(at).expected(bits).found(size));
    };
    if !admits::partition(window.restrictions, partition) {
        return refuse(4, Code::PLAN_MEDIA_NOT_ALLOWED.at(path).detail(partition).found(base));
    }
    let mut models = coherencies.iter().copied().flatten();
    let first = models.clone().next().unwrap_or(Coherency::HostOnly);
    let Some(coherency) = models.find(|model| admits::coherency(window.restrictions, *model))
    else {
        return refuse(5, Code::PLAN_COHERENCY_NOT_ALLOWED.at(path).detail(first).found(base));
    };
    if size < need {
        return refuse(6, Code::PLAN_WINDOW_TOO_SMALL.at(inside).expected(need).found(size));
    }
    let in_window = || view.regions.iter().filter(move |other| other.span.overlaps(span));
    // Decoders go up in HPA and DPA together: persistent memory lies above the volatile.
    let mut related = in_window().filter(|other| other.port == number);
    let volatile = related.find(|other| other.partition < partition).map(|other| other.span);
    let from = volatile.map_or(base, |volatile| volatile.end());
    match first_gap(in_window(), from, span.end(), need) {
        Ok(at) => {
            let span = Span::new(at, need).map_err(|_| (7, None))?;
            let granularity = window.interleave.granularity;
            let (port, window) = (number, base);
            let region = Region { port, window, span, partition, coherency, ..Region::EMPTY };
            Ok(Region { granularity, ..region })
        }
        Err(free) => match (volatile, first_gap(in_window(), base, span.end(), need)) {
            (Some(volatile), Ok(lower)) => {
                refuse(7, Code::PLAN_DPA_ORDER.at(path).expected(volatile.base()).found(lower))
            }
            _ => refuse(7, Code::PLAN_WINDOW_FULL.at(inside).expected(need).found(free)),
        },
    }
}

/// The first gap of `need` bytes between regions of ascending address, or else the largest.
fn first_gap<'a>(
    taken: impl Iterator<Item = &'a Region>,
    from: Hpa,
    to: Hpa,
    need: u64,
) -> Result<Hpa, u64> {
    let (mut at, mut largest) = (from, 0);
    let ends = taken.map(|region| (region.span.base(), region.span.end()));
    for (base, end) in ends.chain(core::iter::once((to, to))) {
        let gap = base.0.saturating_sub(at.0);
        if gap >= need {
            return Ok(at);
        }
        largest = largest.max(gap);
        at = at.max(end);
    }
    Err(largest)
}

/// Whether every region has its decoders, and these agree to what they are to hold.
fn decoders(view: View<'_>) -> Result<(), Error> {
    for (at, region) in view.regions.iter().enumerate() {
        let Some(port) = view.port(region.port) else { continue };
        let path = view.path(port);
        let above = Path::new(path.uid(), &[]).unwrap_or_default();
        let before = || view.regions.iter().take(at);
        let own = before().filter(|other| other.port == region.port);
        let same_bridge = |other: &&Region| {
            view.port(other.port).is_some_and(|other| other.bridge == port.bridge)
        };
        let behind = before().filter(same_bridge).count();
        if let (Partition::Volatile, Some(lower)) = (region.partition, own.clone().next()) {
            let error = Code::PLAN_DPA_ORDER.at(path).expected(region.span.base());
            return Err(error.found(lower.span.base()));
        }
        let bridge = view.bridges.get(usize::from(port.bridge)).map(|bridge| bridge.hdm);
        let device = port.device.as_ref().and_then(|below| below.hdm);
        for (component, number, at, hdm, index) in [
            (cxl_regs::access::Component::Device, region.port, path, device, own.count()),
            (cxl_regs::access::Component::HostBridge, port.bridge, above, bridge, behind),
        ] {
            let none = Code::PLAN_NO_DECODERS.at(path).above(at);
            let decoders = hdm.ok_or(none)?.decoders;
            let planned = view.planned(component, number, index as u8).ok_or(none)?;
            planned.image().map_err(|error| Code::PLAN_DECODER.at(at).rule(error))?;
            if index >= usize::from(decoders) {
                return Err(Code::PLAN_DECODERS_EXHAUSTED.at(path).above(at).found(decoders));
            }
        }
    }
    Ok(())
}
