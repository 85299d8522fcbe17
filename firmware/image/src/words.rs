//! The policy in words, for whoever starts with a line or a file of text: the image's command line, and
//! the file beside the UEFI driver. A word that cannot be taken is refused with what may stand there.
//!
//! ```text
//! path=lock-all|unlocked|guest-programs|describe
//!                                         who programs and locks          (lock-all)
//! config-lock                             set CONFIG_LOCK at the end
//! burn-spares                             commit and lock spare decoders at size 0
//! enable-cache                            enable CXL.cache on Type 2 devices
//! target=linux|specification              whose rules count               (linux)
//! width=flat|widest|WAYSxBYTES            how many devices share a region   (flat)
//! window=BASE:WIDTH                       the same in one window
//! leftovers                               sets of what larger devices have left
//! strict|best-effort                      a component that fails costs the machine, or itself (best-effort)
//! no-trial                                lock with the first commit, and not after a trial
//! broken-sets=narrower|flat|unused        what becomes of the rest of a set      (narrower)
//! prefer=widest|narrowest|lowest          which of several windows that fit; else they are refused
//! required=UID[/PORT[.PORT]]              a component without which nothing is brought up
//! leave-out=UID[/PORT[.PORT]]             a bridge, or what is behind a port: not touched
//! leave-out=VENDOR:DEVICE[:SERIAL]        devices with these numbers, hexadecimal: not touched
//! reserve=UID[/PORT[.PORT]],KIND,BYTES    room for devices to come, for each empty port there
//! earlier=UID/PORT[.PORT],KIND,BASE,BYTES,WAYSxBYTES
//!                                         a device's part in a region that was there before, of its
//!                                         base, bytes and interleave: what can stays
//! no-probe                                do not ask the memory itself whether it answers
//! probe-bits=N                            ask only what this many bits of address reach, where
//!                                         the processor reaches less than CPUID says (CPL 3
//!                                         without hardware support)
//! bus=UID:SEGMENT:BUS                     a bridge's root bus, hexadecimal; else bus = UID
//! region=UID/PORT[.PORT][+UID/PORT...],KIND[,window=A][,offset=A][,size=A][,skip=A][,granularity=A]
//!                                         one region, of all members; KIND is volatile or persistent
//! address-bits=N                          width of a physical address, where CPUID is not the
//!                                         VMM's to answer (CPL 3 without hardware support)
//! ```
//!
//! **Invariant**: nothing here says what the machine is; that comes from ACPI and the devices. The
//! exceptions are `bus=`, which stands for `_BBN` (a method in AML that nobody here interprets), and
//! `address-bits=`, which stands for what the processor says.

use core::fmt;

use cxl_firmware::platform::RootBus;
use cxl_firmware::policy::{
    BrokenSets, EarlierRange, LeaveOut, OnFailure, PathPolicy, Policy, Prefer, Probe, Request,
    Reserve, SetRequest, TargetSystem, Width, WindowWidth,
};
use cxl_firmware::topology::{Partition, Path};
use cxl_regs::{Granularity, Hpa, Interleave, Span, Ways};
use heapless::Vec;

/// Each key, and what may stand behind its `=`; nothing where it stands alone.
const KEYS: [(&str, &str); 22] = [
    ("path", "lock-all, unlocked, guest-programs or describe"),
    ("config-lock", ""),
    ("burn-spares", ""),
    ("enable-cache", ""),
    ("target", "linux or specification"),
    ("width", "flat, widest or WAYSxBYTES such as 2x256"),
    ("window", "BASE:WIDTH such as 0x100000000:2x256"),
    ("leftovers", ""),
    ("strict", ""),
    ("best-effort", ""),
    ("no-trial", ""),
    ("broken-sets", "narrower, flat or unused"),
    ("prefer", "widest, narrowest or lowest"),
    ("required", "UID[/PORT[.PORT]] such as 0/1"),
    ("leave-out", "UID[/PORT[.PORT]] such as 0/1, or VENDOR:DEVICE[:SERIAL] in hexadecimal"),
    ("reserve", "UID[/PORT[.PORT]],KIND,BYTES such as 0,volatile,0x10000000"),
    ("earlier", "UID/PORT[.PORT],KIND,BASE,BYTES,WAYSxBYTES"),
    ("no-probe", ""),
    ("probe-bits", "a number below 64"),
    ("bus", "UID:SEGMENT:BUS in hexadecimal"),
    (
        "region",
        "UID/PORT[.PORT][+UID/PORT...],KIND[,window=A][,offset=A][,size=A][,skip=A][,granularity=A], \
         each A such as 4096 or 0x1000",
    ),
    ("address-bits", "a number up to 255"),
];

/// Why a word is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misread {
    /// No word begins so. Programs may have words of their own beside these.
    Unknown,
    /// The key is known, and what stands behind it is not: what may.
    Value {
        /// The key.
        key: &'static str,
        /// What may stand behind its `=`; nothing where it stands alone.
        expected: &'static str,
    },
    /// There are more of this key than there is room for.
    TooMany {
        /// The key.
        key: &'static str,
        /// How many there may be.
        most: usize,
    },
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => keys(f, &[]),
            Self::Value { key, expected: "" } => write!(f, "expected {key} with nothing behind it"),
            Self::Value { key, expected } => write!(f, "expected behind {key}=: {expected}"),
            Self::TooMany { key, most } => write!(f, "expected {key}= at most {most} times"),
        }
    }
}

impl core::error::Error for Misread {}

/// The words that there are, `own` ones of a program before those of the policy.
pub fn keys(f: &mut fmt::Formatter<'_>, own: &[&str]) -> fmt::Result {
    f.write_str("expected one of the words ")?;
    for key in own {
        write!(f, "{key}, ")?;
    }
    for (index, (key, _)) in KEYS.iter().enumerate() {
        write!(f, "{}{key}", if index == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// A command line of the image: its own words, and the line of what is booted behind `--`.
pub fn parts(line: &str) -> (&str, Option<&str>) {
    match line.split_once("-- ") {
        Some((own, next)) if own.is_empty() || own.ends_with(' ') => (own, Some(next)),
        _ => (line, None),
    }
}

/// What words ask for.
#[derive(Clone, Debug)]
pub struct Words {
    policy: Policy<'static>,
    requests: Vec<Request, 32>,
    sets: Vec<SetRequest, 8>,
    required: Vec<Path, 16>,
    leave_out: Vec<LeaveOut, 16>,
    earlier: Vec<EarlierRange, 32>,
    reserve: Vec<Reserve, 16>,
    windows: Vec<WindowWidth, 64>,
    /// Root buses of bridges, by UID.
    pub roots: Vec<(u32, RootBus), 32>,
    /// Width of a physical address.
    pub address_bits: Option<u8>,
    probe_bits: u8,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            policy: Policy { on_failure: OnFailure::BestEffort, ..Policy::default() },
            requests: Vec::new(),
            sets: Vec::new(),
            required: Vec::new(),
            leave_out: Vec::new(),
            earlier: Vec::new(),
            reserve: Vec::new(),
            windows: Vec::new(),
            roots: Vec::new(),
            address_bits: None,
            probe_bits: 63,
        }
    }
}

impl Words {
    /// The policy, on a processor that reaches so many bits of address.
    pub fn policy(&self, reached: u8) -> Policy<'_> {
        let probe = match self.policy.probe {
            Probe::Skip => Probe::Skip,
            _ => Probe::Below(Hpa(1 << self.probe_bits.min(reached).min(63))),
        };
        Policy {
            requests: &self.requests,
            sets: &self.sets,
            windows: &self.windows,
            required: &self.required,
            leave_out: &self.leave_out,
            earlier: &self.earlier,
            reserve: &self.reserve,
            probe,
            ..self.policy
        }
    }

    /// What the policy's words of a command line ask for, whatever else stands there.
    pub fn of_line(line: &str) -> Self {
        let mut words = Self::default();
        for word in parts(line).0.split_ascii_whitespace() {
            let _ = words.word(word);
        }
        words
    }

    /// Takes one word, or says what may stand there.
    pub fn word(&mut self, word: &str) -> Result<(), Misread> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let known = KEYS.iter().find(|(known, _)| *known == key);
        let &(key, expected) = known.ok_or(Misread::Unknown)?;
        let taken = self.take(key, value).ok_or(Misread::Value { key, expected })?;
        taken.map_err(|Full(most)| Misread::TooMany { key, most })
    }

    /// Takes the value of a key; `None` if it makes no sense.
    fn take(&mut self, key: &str, value: &str) -> Option<Result<(), Full>> {
        match (key, value) {
            ("path", "lock-all") => self.policy.path = PathPolicy::LockAll,
            ("path", "unlocked") => self.policy.path = PathPolicy::Unlocked,
            ("path", "guest-programs") => self.policy.path = PathPolicy::GuestPrograms,
            ("path", "describe") => self.policy.path = PathPolicy::Describe,
            ("config-lock", "") => self.policy.config_lock = true,
            ("burn-spares", "") => self.policy.burn_spares = true,
            ("enable-cache", "") => self.policy.enable_cache = true,
            ("target", "linux") => self.policy.target = TargetSystem::Linux,
            ("target", "specification") => self.policy.target = TargetSystem::Specification,
            ("width", value) => self.policy.width = width(value)?,
            ("window", value) => {
                let (window, value) = value.split_once(':')?;
                let named = WindowWidth { window: Hpa(number(window)?), width: width(value)? };
                return Some(push(&mut self.windows, named));
            }
            ("leftovers", "") => self.policy.map_leftovers = true,
            ("strict", "") => self.policy.on_failure = OnFailure::Strict,
            ("best-effort", "") => self.policy.on_failure = OnFailure::BestEffort,
            ("no-trial", "") => self.policy.no_trial = true,
            ("broken-sets", "narrower") => self.policy.broken_sets = BrokenSets::Narrower,
            ("broken-sets", "flat") => self.policy.broken_sets = BrokenSets::Flat,
            ("broken-sets", "unused") => self.policy.broken_sets = BrokenSets::Unused,
            ("prefer", "widest") => self.policy.prefer = Some(Prefer::Widest),
            ("prefer", "narrowest") => self.policy.prefer = Some(Prefer::Narrowest),
            ("prefer", "lowest") => self.policy.prefer = Some(Prefer::Lowest),
            ("required", value) => return Some(push(&mut self.required, place(value)?)),
            ("leave-out", value) => return Some(push(&mut self.leave_out, left_out(value)?)),
            ("reserve", value) => return Some(push(&mut self.reserve, reserve(value)?)),
            ("earlier", value) => return Some(push(&mut self.earlier, earlier(value)?)),
            ("no-probe", "") => self.policy.probe = Probe::Skip,
            ("probe-bits", bits) => {
                self.probe_bits = u8::try_from(number(bits)?).ok().filter(|bits| *bits < 64)?;
            }
            ("bus", value) => return Some(push(&mut self.roots, root(value)?)),
            ("region", value) => return self.region(value),
            ("address-bits", value) => {
                self.address_bits = Some(number(value)?.try_into().ok()?);
            }
            _ => return None,
        }
        Some(Ok(()))
    }
}

impl Words {
    /// A region of one device, or of all members of a set.
    fn region(&mut self, text: &str) -> Option<Result<(), Full>> {
        let mut parts = text.split(',');
        let mut members = Vec::new();
        for member in parts.next()?.split('+') {
            members.push(place(member).filter(|place| !place.ports().is_empty())?).ok()?;
        }
        let partition = partition(parts.next()?)?;
        let (window, offset, size, skip, granularity) = (None, None, None, 0, None);
        let mut set = SetRequest { members, partition, window, offset, size, skip, granularity };
        for part in parts {
            let (key, value) = part.split_once('=')?;
            let value = number(value)?;
            match key {
                "window" => set.window = Some(Hpa(value)),
                "offset" => set.offset = Some(value),
                "size" => set.size = Some(value),
                "skip" => set.skip = value,
                "granularity" => set.granularity = Some(Granularity::from_bytes(value)?),
                _ => return None,
            }
        }
        let &SetRequest { window, offset, size, skip, .. } = &set;
        Some(match *set.members.as_slice() {
            [device] if set.granularity.is_none() => {
                let request = Request { device, partition, window, offset, size, skip };
                push(&mut self.requests, request)
            }
            _ => push(&mut self.sets, set),
        })
    }
}

/// A list that has as many as this already.
struct Full(usize);

fn push<T, const N: usize>(list: &mut Vec<T, N>, item: T) -> Result<(), Full> {
    list.push(item).map_err(|_| Full(N))
}

/// A number, decimal or with `0x`.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn width(text: &str) -> Option<Width> {
    let (ways, bytes) = match text {
        "flat" => return Some(Width::Flat),
        "widest" => return Some(Width::Widest),
        _ => text.split_once('x')?,
    };
    let ways = Ways::from_count(number(ways)?.try_into().ok()?)?;
    let granularity = Granularity::from_bytes(number(bytes)?)?;
    Some(Width::Exactly(Interleave::new(ways, granularity)))
}

fn root(text: &str) -> Option<(u32, RootBus)> {
    let mut parts = text.split(':').map(|part| u32::from_str_radix(part, 16).ok());
    let (uid, segment, bus) = (parts.next()??, parts.next()??, parts.next()??);
    let root = RootBus { segment: segment.try_into().ok()?, bus: bus.try_into().ok()? };
    parts.next().is_none().then_some((uid, root))
}

/// A bridge, or what is behind a port of it.
fn place(text: &str) -> Option<Path> {
    let (uid, ports) = text.split_once('/').map_or((text, None), |(uid, list)| (uid, Some(list)));
    let mut list = Vec::<u8, 16>::new();
    for port in ports.into_iter().flat_map(|ports| ports.split('.')) {
        list.push(number(port)?.try_into().ok()?).ok()?;
    }
    Path::new(number(uid)?.try_into().ok()?, &list)
}

fn partition(text: &str) -> Option<Partition> {
    match text {
        "volatile" => Some(Partition::Volatile),
        "persistent" => Some(Partition::Persistent),
        _ => None,
    }
}

fn earlier(text: &str) -> Option<EarlierRange> {
    let mut parts = text.split(',');
    let device = place(parts.next()?).filter(|place| !place.ports().is_empty())?;
    let partition = partition(parts.next()?)?;
    let (base, size) = (number(parts.next()?)?, number(parts.next()?)?);
    let span = Span::new(Hpa(base), size).ok()?;
    let Width::Exactly(interleave) = width(parts.next()?)? else { return None };
    parts.next().is_none().then_some(EarlierRange { device, partition, span, interleave })
}

fn reserve(text: &str) -> Option<Reserve> {
    let mut parts = text.split(',');
    let (at, kind, size) = (parts.next()?, parts.next()?, parts.next()?);
    let (at, partition, size) = (place(at)?, partition(kind)?, number(size)?);
    parts.next().is_none().then_some(Reserve { at, partition, size })
}

fn left_out(text: &str) -> Option<LeaveOut> {
    if !text.contains(':') {
        return place(text).map(LeaveOut::At);
    }
    let mut parts = text.split(':');
    let mut part = || parts.next().map(|part| u64::from_str_radix(part, 16).ok());
    let (vendor, device) = (part()??, part()??);
    let (serial, rest) = (part(), part());
    let serial = match serial {
        Some(serial) => Some(serial?),
        None => None,
    };
    let (vendor, device) = (vendor.try_into().ok()?, device.try_into().ok()?);
    rest.is_none().then_some(LeaveOut::Device { vendor, device, serial })
}
