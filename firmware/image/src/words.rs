//! The command line: policy, requests and payload. Words that nobody knows are refused by name.
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
//! no-probe                                do not ask the memory itself whether it answers
//! probe-bits=N                            ask only what this many bits of address reach, where
//!                                         the processor reaches less than CPUID says (CPL 3
//!                                         without hardware support)
//! bus=UID:SEGMENT:BUS                     a bridge's root bus, hexadecimal; else bus = UID
//! region=UID/PORT[.PORT][+UID/PORT...],KIND[,window=A][,offset=A][,size=A][,skip=A][,granularity=A]
//!                                         one region, of all members; KIND is volatile or persistent
//! address-bits=N                          width of a physical address, where CPUID is not the
//!                                         VMM's to answer (CPL 3 without hardware support)
//! mode=ADDRESS:BITS:VALUE:ACTED           attack with this register otherwise too, hexadecimal; VALUE
//!                                         may be `turned`; ACTED: bits that are written 0
//! payload=NAME                            what runs afterwards            (none)
//! as-found                                program nothing: find and verify what is there
//! exits=N                                 no firmware: N bare exits and the end, for benches
//! ring3                                   PVH entry: run at CPL 3
//! dump                                    print record, table and registers in hexadecimal; the
//!                                         lines are described in dump.rs
//! quiet                                   print errors only
//! -- LINE                                 the rest is the command line of what is booted
//! ```
//!
//! `payload=linux` enters a Linux bzImage (boot protocol 2.12 or later, 64-bit). Its parts come
//! from fw_cfg, `-fw_cfg name=opt/org.cxl-firmware/kernel,file=vmlinuz` and the same for `initrd`
//! and `cmdline`; what is not there, from the modules of the PVH start-info in the order kernel,
//! initrd (QEMU's `-initrd` gives one module), and the command line from LINE above, then from
//! what the kernel's module has.
//!
//! **Invariant**: nothing here says what the machine is; that comes from ACPI and the devices. The
//! exceptions are `bus=`, which stands for `_BBN` (a method in AML that nobody here interprets), and
//! `address-bits=`, which stands for CPUID.

use cxl_attack::NamedMode;
use cxl_firmware::platform::RootBus;
use cxl_firmware::policy::{
    BrokenSets, LeaveOut, OnFailure, PathPolicy, Policy, Prefer, Probe, Request, SetRequest,
    TargetSystem, Width, WindowWidth,
};
use cxl_firmware::topology::{Partition, Path};
use cxl_regs::{Granularity, Hpa, Interleave, Ways};
use heapless::Vec;

/// What the command line asks for.
pub(crate) struct Options<'a> {
    pub(crate) policy: Policy<'static>,
    pub(crate) requests: Vec<Request, 32>,
    pub(crate) sets: Vec<SetRequest, 8>,
    pub(crate) required: Vec<Path, 16>,
    pub(crate) leave_out: Vec<LeaveOut, 16>,
    pub(crate) windows: Vec<WindowWidth, 64>,
    pub(crate) roots: Vec<(u32, RootBus), 32>,
    pub(crate) address_bits: Option<u8>,
    pub(crate) probe_bits: u8,
    pub(crate) modes: Vec<NamedMode, 16>,
    pub(crate) payload: &'a str,
    pub(crate) as_found: bool,
    pub(crate) exits: Option<u64>,
    pub(crate) dump: bool,
    pub(crate) quiet: bool,
    pub(crate) next_line: Option<&'a str>,
}

/// A word that cannot be understood.
pub(crate) struct BadWord<'a>(pub(crate) &'a str);

impl<'a> Options<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self, BadWord<'a>> {
        let mut options = Self {
            policy: Policy { on_failure: OnFailure::BestEffort, ..Policy::default() },
            requests: Vec::new(),
            sets: Vec::new(),
            required: Vec::new(),
            leave_out: Vec::new(),
            windows: Vec::new(),
            roots: Vec::new(),
            address_bits: None,
            probe_bits: 63,
            modes: Vec::new(),
            payload: "none",
            as_found: false,
            exits: None,
            dump: false,
            quiet: false,
            next_line: None,
        };
        let (own, next) = match line.split_once("-- ") {
            Some((own, next)) if own.is_empty() || own.ends_with(' ') => (own, Some(next)),
            _ => (line, None),
        };
        options.next_line = next;
        for word in own.split_ascii_whitespace() {
            options.word(word).ok_or(BadWord(word))?;
        }
        Ok(options)
    }

    fn word(&mut self, word: &'a str) -> Option<()> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
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
                self.windows.push(named).ok()?;
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
            ("required", value) => self.required.push(place(value)?).ok()?,
            ("leave-out", value) => self.leave_out.push(left_out(value)?).ok()?,
            ("no-probe", "") => self.policy.probe = Probe::Skip,
            ("probe-bits", bits) => {
                self.probe_bits = u8::try_from(number(bits)?).ok().filter(|bits| *bits < 64)?;
            }
            ("bus", value) => self.roots.push(root(value)?).ok()?,
            ("region", value) => self.region(value)?,
            ("address-bits", value) => {
                self.address_bits = Some(number(value)?.try_into().ok()?);
            }
            ("mode", value) => self.modes.push(mode(value)?).ok()?,
            ("payload", name) => self.payload = name,
            ("as-found", "") => self.as_found = true,
            ("exits", count) => self.exits = Some(number(count)?),
            ("dump", "") => self.dump = true,
            ("quiet", "") => self.quiet = true,
            // The entry has looked at it already.
            ("ring3", "") => {}
            _ => return None,
        }
        Some(())
    }
}

/// `ADDRESS:BITS:VALUE:ACTED`.
fn mode(text: &str) -> Option<NamedMode> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let dword = |text: &str| hex(text)?.try_into().ok();
    let mut parts = text.split(':');
    let address = hex(parts.next()?)?;
    let bits = dword(parts.next()?)?;
    let value = match parts.next()? {
        "turned" => None,
        value => Some(dword(value)?),
    };
    let mode = NamedMode { address, bits, value, acted_on: dword(parts.next()?)? };
    parts.next().is_none().then_some(mode)
}

impl Options<'_> {
    /// A region of one device, or of all members of a set.
    fn region(&mut self, text: &str) -> Option<()> {
        let mut parts = text.split(',');
        let mut members = Vec::new();
        for member in parts.next()?.split('+') {
            members.push(place(member).filter(|place| !place.ports().is_empty())?).ok()?;
        }
        let partition = match parts.next()? {
            "volatile" => Partition::Volatile,
            "persistent" => Partition::Persistent,
            _ => return None,
        };
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
        match *set.members.as_slice() {
            [device] if set.granularity.is_none() => {
                let request = Request { device, partition, window, offset, size, skip };
                self.requests.push(request).ok()
            }
            _ => self.sets.push(set).ok(),
        }
    }
}

/// A number, decimal or with `0x`.
pub(crate) fn number(text: &str) -> Option<u64> {
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
