//! Windows that make no sense: what is wrong with each.
//!
//! A strict bring-up is refused for one of them, whichever of them it would use. One that is content with
//! the rest leaves them alone: nothing is planned into such a window, no table has it, and what is committed
//! there already is lost. Of a bridge, what is wrong with the place of its registers.
//!
//! **Invariant**: a window that nothing is wrong with shares no address with another one, sound or not, nor
//! with anything else that the platform names; has one bridge a way; and has a record in the table. What is
//! told of a window does not depend on the order of listing.

use cxl_regs::acpi::cedt::{Cfmws, Chbs, ChbsVersion, Problem, Restrictions};
use cxl_regs::{Arithmetic, Hpa, Selector, Span};

use crate::error::{Code, Error, Place};
use crate::platform::{Bridge, BridgeKind, Platform, Window};
use crate::policy::OnFailure;

/// The rules on windows that hold whichever of them is used.
pub(crate) fn windows(platform: &Platform<'_>, on_failure: OnFailure) -> Result<(), Error> {
    if costs_itself(on_failure) {
        return Ok(());
    }
    // What is not there for it seems to be wrong as well.
    platform.unread().map_or(Ok(()), Err)?;
    let wrong = platform.windows.iter().filter(|window| check(platform, window).is_err());
    let lowest = wrong.min_by_key(|window| (window.base, window.size, window.targets.as_slice()));
    lowest.map_or(Ok(()), |window| check(platform, window))
}

/// Whether a window or bridge that makes no sense costs what it would have held, and nothing else.
pub(crate) fn costs_itself(on_failure: OnFailure) -> bool {
    cfg!(feature = "degrade") && on_failure == OnFailure::BestEffort
}

/// What is wrong with a window that is to be left alone, where the rest may go on without it.
#[inline(never)]
pub(crate) fn broken(
    platform: &Platform<'_>,
    on_failure: OnFailure,
    window: &Window,
) -> Option<Error> {
    if !costs_itself(on_failure) {
        return None;
    }
    let result = check(platform, window).and_then(|()| {
        // Of a window that no table has anyway, it does not matter how a table would have it.
        match is_described(platform, window) {
            true => record(window, false).map(|_| ()).and_then(|()| maps(platform, window)),
            false => Ok(()),
        }
    });
    result.err()
}

/// Windows by ascending base, as their order means nothing.
pub(crate) fn ascending(windows: &[Window]) -> impl Iterator<Item = &Window> {
    let mut last = None;
    core::iter::from_fn(move || {
        let keys = windows.iter().enumerate().map(|(at, window)| ((window.base, at), window));
        let (key, window) =
            keys.filter(|(key, _)| Some(*key) > last).min_by_key(|(key, _)| *key)?;
        last = Some(key);
        Some(window)
    })
}

/// Whether a table has a window: one without a place decodes nothing, nor can anything lie in one without a
/// share.
pub(crate) fn is_described(platform: &Platform<'_>, window: &Window) -> bool {
    (window.size == 0 || window.has_share()) && platform.base_of(window).is_some()
}

#[inline(never)]
fn check(platform: &Platform<'_>, window: &Window) -> Result<(), Error> {
    if let Some(error) = window.unreadable {
        return Err(error);
    }
    let (base, ways) = (window.base, window.interleave.ways);
    if window.targets.len() != ways.count() as usize {
        let targets = window.targets.len() as u8;
        return Err(Code::PLAN_TARGET_COUNT.at(Place::window(base)).expected(ways).found(targets));
    }
    for (way, &uid) in window.targets.iter().enumerate() {
        if !platform.bridges.iter().any(|bridge| bridge.uid == uid) {
            return Err(Code::PLAN_TARGET_MISSING.at(Place::window(base)).found(uid));
        }
        if window.targets.iter().take(way).any(|&before| before == uid) {
            return Err(Code::PLAN_TARGET_TWICE.at(Place::window(base)).found(uid));
        }
    }
    if cfg!(feature = "xor") && window.arithmetic == Arithmetic::Xor {
        Selector::xor(window.interleave, &window.xor_maps)
            .map_err(|error| Code::PLAN_XOR.at(Place::window(base)).rule(error))?;
    }
    let overlaps = |other: &&Window| {
        // Windows are known by their bases, so even two that cannot be used must differ in them.
        let at = |window| platform.base_of(window);
        let same = at(other) == at(window) && at(window).is_some();
        let claims = (platform.claimed(other), platform.claimed(window));
        same || matches!(claims, (Some(a), Some(b)) if a.overlaps(b))
    };
    // Which of two has the address wrong nobody knows, so neither is right, whatever else is wrong with
    // the other: where an access goes that both claim is anybody's guess.
    let others = platform.windows.iter().filter(|other| !core::ptr::eq(*other, window));
    if let Some(other) = others.filter(overlaps).map(|other| other.base).min() {
        return Err(Code::PLAN_WINDOWS_OVERLAP
            .at(Place::window(base))
            .found(other.unwrap_or_default()));
    }
    // RAM and registers were found where they are: of these two it is the window that is wrong.
    match platform.claimed(window).and_then(|own| platform.taken_in(own)) {
        Some(by) => Err(Code::PLAN_WINDOW_OCCUPIED
            .at(Place::window(base))
            .expected(by.base())
            .found(by.size())),
        None => Ok(()),
    }
}

/// The XOR maps of a granularity are those of its widest window, which all others have to share: a table has
/// one set of them. Of two that differ neither is known to be right.
fn maps(platform: &Platform<'_>, window: &Window) -> Result<(), Error> {
    let is_xor = |window: &Window| cfg!(feature = "xor") && window.arithmetic == Arithmetic::Xor;
    let granularity = window.interleave.granularity;
    let differs = |other: &&Window| {
        is_xor(other)
            && other.interleave.granularity == granularity
            && is_described(platform, other)
            && other.xor_maps.iter().zip(&window.xor_maps).any(|(one, other)| one != other)
    };
    let others = platform.windows.iter().filter(differs).map(|other| other.base);
    match others.min().filter(|_| is_xor(window)) {
        Some(other) => Err(Code::TABLES_XOR_MAPS_DIFFER
            .at(Place::window(window.base))
            .expected(granularity)
            .found(other.unwrap_or_default())),
        None => Ok(()),
    }
}

/// A bridge as the table has it, if its registers can be where they are said to be.
pub(crate) fn chbs(bridge: &Bridge) -> Result<Chbs, Error> {
    let version = match bridge.kind {
        BridgeKind::ComponentRegisters => ChbsVersion::Chbcr,
        BridgeKind::Rcrb => ChbsVersion::Rch,
    };
    let refuse = |problem| Code::TABLES_BRIDGE.at(Place::bridge(bridge.uid)).rule(problem);
    Chbs::new(bridge.uid, version, bridge.registers).map_err(refuse)
}

/// A platform's window as the table has it.
pub(crate) fn record(window: &Window, fixed: bool) -> Result<Cfmws, Error> {
    let base = window.base.unwrap_or_default();
    let refuse = |problem| Code::TABLES_WINDOW.at(Place::window(base)).rule(problem);
    let span = range(base, window.size).map_err(refuse)?;
    let mut record = Cfmws::new(span, window.interleave, &window.targets).map_err(refuse)?;
    record.arithmetic = window.arithmetic;
    record.qtg = window.qtg;
    record.restrictions = restrictions(window, fixed);
    Ok(record)
}

/// The addresses of a window.
pub(crate) fn range(base: Hpa, size: u64) -> Result<Span, Problem> {
    Span::new(base, size).map_err(|_| match size {
        0 => Problem::ZeroSize { base: base.0 },
        _ => Problem::WindowWraps { base: base.0, size },
    })
}

/// What a window admits, as the table has it.
pub(crate) fn restrictions(window: &Window, fixed: bool) -> Restrictions {
    let allowed = window.restrictions;
    Restrictions::new()
        .with_device_coherent(allowed.device_coherent())
        .with_host_only(allowed.host_only())
        .with_volatile(allowed.volatile())
        .with_persistent(allowed.persistent())
        // Means nothing without device-coherent.
        .with_back_invalidate(allowed.back_invalidate() && allowed.device_coherent())
        .with_fixed(fixed)
}
