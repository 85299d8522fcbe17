//! From the document to the [`Scenario`]: defaults, names to indices, and the checks that need
//! more than one value.
//!
//! **Invariant**: every refusal points at the value that is wrong, never at the table around it,
//! as long as the value is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::hdm::{Capability, MAX_DEVICE_DECODERS};
use cxl_regs::{Arithmetic, Coherency, DECODER_UNIT, Granularity, Hpa, Interleave, Ways};
use toml::Spanned;

use super::document::{self, ActionName, ArithmeticName, Document, WindowsName};
use super::faults::faults;
use super::leaks::{Around, leaks};
use super::modes::modes;
use super::names::{Names, Result, Source};
use super::values::{Address, Bytes, Mask, Number, TargetName};
use super::{
    Action, Bridge, Device, DeviceKind, Event, Fault, FaultKind, Parent, Place, Platform, Port,
    Problem, Region, RegisterAt, Reserve, SEGMENTS, SLOTS, Scenario, Switch, Window, WindowChoice,
    WindowSource,
};
use crate::typed::{self, Mistyped};

/// Physical address width of a scenario that names none: 64 TiB, as current servers have.
const DEFAULT_PHYSICAL_BITS: u8 = 46;
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_DECODERS: u8 = 4;
const DEFAULT_TARGET_COUNT: u8 = 8;

pub(super) fn scenario(text: &str, file: &str) -> Result<Scenario> {
    let source = Source { text, file };
    let document: Document = typed::read(text)
        .map_err(|Mistyped { span, message }| source.error(span, Problem::Text(message)))?;
    let names = Names::collect(&source, &document)?;
    let platform = platform(&source, &document.platform)?;
    let bridges = bridges(&source, &names, &document.bridge)?;
    let ports = ports(&source, &names, &document.port)?;
    let switches = switches(&source, &names, &document.switch)?;
    let devices = devices(&source, &names, &document.device)?;
    one_thing_a_port(&source, &document, &switches, &devices, &names)?;
    no_cycles(&source, &document, &ports, &switches, &names)?;
    windows_once(&source, &platform, &document.window)?;
    let mut nobody = NobodyUids::new(&bridges, &document.window);
    let windows = windows(&source, &names, &document.window, &bridges, &mut nobody)?;
    let regions = regions(&source, &names, &document.region)?;
    let leave_out = document.leave_out.iter().map(|name| names.place(&source, name));
    let leave_out = leave_out.collect::<Result<_>>()?;
    let reserve = document.reserve.iter().map(|reserve| {
        let document::Reserve { at, partition, size: Bytes(size) } = reserve;
        Ok(Reserve { at: names.place(&source, at)?, partition: *partition, size: *size })
    });
    let reserve = reserve.collect::<Result<_>>()?;
    let faults = faults(&source, &names, &document.fault, &bridges, &switches, &devices)?;
    on_hardware(&source, &document.fault, &faults, &windows)?;
    let around = Around {
        decoders: &|place| match place {
            Place::Bridge(index) => bridges.get(index).map_or(0, |bridge| bridge.decoders),
            Place::Switch(index) => switches.get(index).map_or(0, |switch| switch.decoders),
            Place::Device(index) => devices.get(index).map_or(0, |device| device.decoders),
            Place::Port(_) => 0,
        },
        accelerator: &|place| match place {
            Place::Device(index) => {
                devices.get(index).is_some_and(|device| device.kind == DeviceKind::Type2)
            }
            _ => false,
        },
        faults: &faults,
    };
    let leaks = leaks(&source, &names, &document.leak, &around)?;
    let modes = modes(&source, &names, &document.mode, platform.assigned)?;
    let events = events(&source, &names, &document.event)?;
    let scenario = Scenario {
        name: file.to_owned(),
        description: document.description.clone(),
        platform,
        bridges,
        ports,
        switches,
        devices,
        windows,
        policy: document.policy,
        leave_out,
        reserve,
        earlier: Vec::new(),
        regions,
        faults,
        leaks,
        modes,
        events,
        remarks: nobody
            .remarks(&source, &names, &document.window)
            .chain(decimals(&source, &document))
            .collect(),
        nobodies: nobody.given.into_iter().map(|(name, uid)| (uid, name)).collect(),
    };
    buses_apart(&source, &document.bridge, &scenario)?;
    Ok(scenario)
}

fn platform(source: &Source<'_>, platform: &document::Platform) -> Result<Platform> {
    let physical_bits = match &platform.physical_bits {
        Some(bits) => match bits.get_ref().fits() {
            Some(fits @ 36..=52) => fits,
            _ => {
                let found = bits.get_ref();
                return source.out_of_range(bits.span(), "physical_bits", "36 to 52", found);
            }
        },
        None => DEFAULT_PHYSICAL_BITS,
    };
    let memory = match &platform.memory {
        Some(memory) => {
            let Bytes(bytes) = *memory.get_ref();
            let expected = "whole MiB, at least 16 MiB and at most half of the physical space";
            if bytes % (1 << 20) != 0 || bytes < 16 << 20 || bytes > 1 << (physical_bits - 1) {
                return source.out_of_range(memory.span(), "memory", expected, bytes);
            }
            bytes
        }
        None => DEFAULT_MEMORY,
    };
    let memory_base = match &platform.memory_base {
        Some(base) => {
            let Address(found) = *base.get_ref();
            let end = found.checked_add(memory);
            let fits = end.is_some_and(|end| end <= 1 << physical_bits) && found >= 1 << 32;
            if !fits || !found.is_multiple_of(DECODER_UNIT) {
                let expected = "a multiple of 256 MiB from 4 GiB on, with room for all memory";
                let meant = source.meant_in_hexadecimal(&base.span());
                let meant = meant.map_or_else(String::new, |meant| format!(" ({meant})"));
                let found = format!("{}{meant}", Hpa(found));
                return source.out_of_range(base.span(), "memory_base", expected, found);
            }
            Some(Hpa(found))
        }
        None => None,
    };
    let document::Platform { assigned, strict, .. } = *platform;
    let windows = window_source(source, platform)?;
    Ok(Platform { physical_bits, memory, memory_base, assigned, strict, windows })
}

fn window_source(source: &Source<'_>, platform: &document::Platform) -> Result<WindowSource> {
    let across = match (&platform.across, platform.windows) {
        (None, WindowsName::Given) => return Ok(WindowSource::Given),
        (Some(across), WindowsName::Given) => {
            let because =
                "only windows that are \"sized\" can be asked for over several bridges".into();
            return Err(source.error(across.span(), Problem::UselessKey { key: "across", because }));
        }
        (None, WindowsName::Sized) => None,
        (Some(across), WindowsName::Sized) => {
            let Bytes(bytes) = *across.get_ref();
            let granularity = Granularity::from_bytes(bytes);
            if granularity.is_none() {
                let expected = "256, 512, 1024, 2048, 4096, 8192 or 16384 bytes";
                return source.out_of_range(across.span(), "across", expected, bytes);
            }
            granularity
        }
    };
    Ok(WindowSource::Sized { across })
}

/// Windows are given, or sized, and not both.
fn windows_once(
    source: &Source<'_>,
    platform: &Platform,
    windows: &[document::Window],
) -> Result<()> {
    match (platform.windows, windows.first()) {
        (WindowSource::Sized { .. }, Some(window)) => {
            let because = "[platform] says that windows are \"sized\", by what is found".to_owned();
            let problem = Problem::UselessKey { key: "window", because };
            Err(source.error(window.targets.span(), problem))
        }
        _ => Ok(()),
    }
}

fn decoders(
    source: &Source<'_>,
    given: &Option<Spanned<Number>>,
    none_allowed: bool,
    most: usize,
) -> Result<u8> {
    let Some(given) = given else { return Ok(DEFAULT_DECODERS) };
    let encodable = |count: &u8| {
        let encodable =
            Capability::encode_decoders(*count).is_some() && usize::from(*count) <= most;
        encodable || (none_allowed && *count == 0)
    };
    if let Some(count) = given.get_ref().fits().filter(encodable) {
        return Ok(count);
    }
    let expected = match (none_allowed, most > MAX_DEVICE_DECODERS) {
        (true, _) => "0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28 or 32",
        (false, true) => "1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28 or 32",
        (false, false) => "1, 2, 4, 6, 8 or 10",
    };
    source.out_of_range(given.span(), "decoders", expected, given.get_ref())
}

fn target_count(source: &Source<'_>, given: &Option<Spanned<Number>>) -> Result<u8> {
    let Some(given) = given else { return Ok(DEFAULT_TARGET_COUNT) };
    match given.get_ref().fits() {
        Some(count @ (1 | 2 | 4 | 8)) => Ok(count),
        _ => {
            let found = given.get_ref();
            source.out_of_range(given.span(), "target_count", "1, 2, 4 or 8", found)
        }
    }
}

fn bridges(source: &Source<'_>, names: &Names, given: &[document::Bridge]) -> Result<Vec<Bridge>> {
    let mut bridges: Vec<Bridge> = Vec::new();
    for (name, given) in names.bridges.iter().zip(given) {
        let uid = *given.uid.get_ref();
        if let Some(other) = bridges.iter().find(|other| other.uid == uid) {
            return source.taken(given.uid.span(), "UID", uid, &other.name);
        }
        let segment = match &given.segment {
            None => 0,
            Some(segment) => match segment.get_ref().fits().filter(|&fits| fits < SEGMENTS) {
                Some(fits) => fits,
                None => {
                    let found = segment.get_ref();
                    return source.out_of_range(segment.span(), "segment", "0 or 1", found);
                }
            },
        };
        let bus = match (&given.bus, u8::try_from(uid)) {
            (Some(bus), _) => *bus.get_ref(),
            (None, Ok(bus)) => bus,
            (None, Err(_)) => {
                let because = format!("the UID {uid} is no bus number (0 to 255)");
                let problem = Problem::MissingKey { key: "bus", because };
                return Err(source.error(given.uid.span(), problem));
            }
        };
        bridges.push(Bridge {
            name: name.clone(),
            uid,
            segment,
            bus,
            decoders: decoders(source, &given.decoders, true, usize::from(u8::MAX))?,
            target_count: target_count(source, &given.target_count)?,
            version: given.version,
            back_invalidate: given.back_invalidate,
            cache_id: given.cache_id,
            bus_known: given.bus_known,
        });
    }
    Ok(bridges)
}

fn ports(source: &Source<'_>, names: &Names, given: &[document::Port]) -> Result<Vec<Port>> {
    let mut parents = Vec::new();
    let mut taken: Vec<(Parent, u8, &str)> = Vec::new();
    for (name, given) in names.ports.iter().zip(given) {
        let parent = names.parent(source, &given.below)?;
        parents.push(parent);
        let Some(number) = &given.number else { continue };
        let value = *number.get_ref();
        let same = |&&(p, n, _): &&(Parent, u8, &str)| (p, n) == (parent, value);
        if let Some((_, _, by)) = taken.iter().find(same) {
            return source.taken(number.span(), "port number", value, by);
        }
        taken.push((parent, value, name));
    }
    let mut ports = Vec::new();
    for ((name, given), parent) in names.ports.iter().zip(given).zip(parents) {
        let number = match &given.number {
            Some(number) => *number.get_ref(),
            None => {
                let used = |n: &u8| taken.iter().any(|&(p, t, _)| (p, t) == (parent, *n));
                let Some(free) = (0..=u8::MAX).find(|n| !used(n)) else {
                    let by = given.below.get_ref();
                    return source.out_of_range(given.below.span(), "below", "a free number", by);
                };
                taken.push((parent, free, name));
                free
            }
        };
        ports.push(Port { name: name.clone(), parent, number, hdm: given.hdm });
    }
    for (place, below) in ports.iter().map(|port| port.parent).zip(given.iter().map(|p| &p.below)) {
        if ports.iter().filter(|port| port.parent == place).count() > SLOTS {
            let expected = "at most 32 ports, the devices of one bus";
            return source.out_of_range(below.span(), "below", expected, "more");
        }
    }
    Ok(ports)
}

fn switches(source: &Source<'_>, names: &Names, given: &[document::Switch]) -> Result<Vec<Switch>> {
    let switch = |(name, given): (&String, &document::Switch)| {
        Ok(Switch {
            name: name.clone(),
            port: names.port(source, &given.below)?,
            decoders: decoders(source, &given.decoders, false, usize::from(u8::MAX))?,
            target_count: target_count(source, &given.target_count)?,
        })
    };
    names.switches.iter().zip(given).map(switch).collect()
}

fn devices(source: &Source<'_>, names: &Names, given: &[document::Device]) -> Result<Vec<Device>> {
    let capacity = |key, given: &Option<Spanned<Bytes>>| match given {
        Some(bytes) if bytes.get_ref().0 % DECODER_UNIT != 0 => source.out_of_range(
            bytes.span(),
            key,
            "a multiple of 256 MiB, the unit of the range registers",
            cxl_regs::Size(bytes.get_ref().0),
        ),
        Some(bytes) if bytes.get_ref().0 > 1 << 52 => {
            let found = cxl_regs::Size(bytes.get_ref().0);
            source.out_of_range(bytes.span(), key, "at most 4 PiB", found)
        }
        Some(bytes) => Ok(bytes.get_ref().0),
        None => Ok(0),
    };
    let device = |(name, given): (&String, &document::Device)| {
        let coherency = match (given.coherency, given.kind) {
            (Some(coherency), _) => coherency.into(),
            (None, DeviceKind::Type2) => Coherency::Device,
            (None, DeviceKind::Type3) => Coherency::HostOnly,
        };
        Ok(Device {
            name: name.clone(),
            port: names.port(source, &given.below)?,
            kind: given.kind,
            volatile: capacity("volatile", &given.volatile)?,
            persistent: capacity("persistent", &given.persistent)?,
            coherency,
            decoders: decoders(source, &given.decoders, false, MAX_DEVICE_DECODERS)?,
            selects: given.selects,
            ways_3_6_12: given.ways_3_6_12,
            ways_16: given.ways_16,
            serial: given.serial.unwrap_or_else(|| serial_of(name)),
            present: given.present,
        })
    };
    names.devices.iter().zip(given).map(device).collect()
}

/// A serial number that follows the name (FNV-1a), so that it survives reordering the file.
fn serial_of(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

fn one_thing_a_port(
    source: &Source<'_>,
    document: &Document,
    switches: &[Switch],
    devices: &[Device],
    names: &Names,
) -> Result<()> {
    let mut holders: BTreeMap<usize, (&str, Range<usize>)> = BTreeMap::new();
    // A device that is not plugged in may share its port: only one of them can be there at a time.
    let switches = switches.iter().map(|switch| (switch.port, &switch.name, true));
    let devices = devices.iter().map(|device| (device.port, &device.name, device.present));
    let below = document.switch.iter().map(|switch| switch.below.span());
    let below = below.chain(document.device.iter().map(|device| device.below.span()));
    let things = switches.chain(devices).zip(below).filter(|((_, _, present), _)| *present);
    for ((port, name, _), below) in things {
        if let Some((other, earlier)) = holders.insert(port, (name, below.clone())) {
            let port = names.ports.get(port).map_or("", String::as_str);
            // Of two, blame the later one in the text.
            let (span, by) =
                if earlier.start > below.start { (earlier, name.as_str()) } else { (below, other) };
            return source.taken(span, "port", format!("`{port}`"), by);
        }
    }
    Ok(())
}

fn no_cycles(
    source: &Source<'_>,
    document: &Document,
    ports: &[Port],
    switches: &[Switch],
    names: &Names,
) -> Result<()> {
    for (start, given) in document.switch.iter().enumerate() {
        let mut seen = BTreeSet::new();
        let mut at = Some(start);
        while let Some(switch) = at {
            if !seen.insert(switch) {
                let switch = names.switches.get(start).cloned().unwrap_or_default();
                return Err(source.error(given.below.span(), Problem::Cycle { switch }));
            }
            at = match switches.get(switch).and_then(|s| ports.get(s.port)).map(|p| p.parent) {
                Some(Parent::Switch(above)) => Some(above),
                _ => None,
            };
        }
    }
    Ok(())
}

fn windows(
    source: &Source<'_>,
    names: &Names,
    given: &[document::Window],
    bridges: &[Bridge],
    nobody: &mut NobodyUids,
) -> Result<Vec<Window>> {
    let mut windows: Vec<Window> = Vec::new();
    for (name, given) in names.windows.iter().zip(given) {
        let targets = given.targets.get_ref();
        let ways = u32::try_from(targets.len()).ok().and_then(Ways::from_count);
        let Some(ways) = ways else {
            let expected = "1, 2, 3, 4, 6, 8, 12 or 16 targets";
            let (span, found) = (given.targets.span(), targets.len());
            return source.out_of_range(span, "targets", expected, found);
        };
        let granularity = granularity(source, &given.granularity)?.unwrap_or(Granularity::B256);
        let window = Window {
            name: name.clone(),
            targets: targets
                .iter()
                .map(|target| match target.get_ref() {
                    TargetName::Uid(uid) => *uid,
                    TargetName::Name(name) => {
                        let bridge = bridges.iter().find(|bridge| bridge.name == *name);
                        bridge.map_or_else(|| nobody.uid(name), |bridge| bridge.uid)
                    }
                })
                .collect(),
            size: given.size.0,
            base: given.base.as_ref().map(|base| Hpa(base.get_ref().0)),
            host: given.host.as_ref().map(|host| Hpa(host.get_ref().0)),
            interleave: Interleave::new(ways, granularity),
            width: given.interleave,
            arithmetic: match given.arithmetic {
                ArithmeticName::Modulo => Arithmetic::Modulo,
                ArithmeticName::Xor => Arithmetic::Xor,
            },
            xor_maps: xor_maps(source, given)?,
            restrictions: restrictions(given.restrictions.as_deref()),
            qtg: given.qtg,
        };
        // CXIMS names maps by granularity, not by window: one list serves all of them.
        let shares = |other: &&Window| {
            other.arithmetic == Arithmetic::Xor
                && window.arithmetic == Arithmetic::Xor
                && other.interleave.granularity == granularity
                && !other.xor_maps.iter().zip(&window.xor_maps).all(|(a, b)| a == b)
        };
        if let Some(other) = windows.iter().find(shares) {
            let span = given.xor_maps.as_ref().map_or(0..0, Spanned::span);
            let what = "list of XOR maps for this granularity";
            return source.taken(span, what, "another", &other.name);
        }
        windows.push(window);
    }
    let without = given.iter().zip(&windows).find(|(_, window)| window.host.is_none());
    match (windows.iter().find(|window| window.host.is_some()), without) {
        (Some(with), Some((given, _))) => {
            let because =
                format!("{} has one, so devices are handed over from hardware", with.name);
            let problem = Problem::MissingKey { key: "host", because };
            Err(source.error(given.targets.span(), problem))
        }
        _ => Ok(windows),
    }
}

fn granularity(source: &Source<'_>, given: &Option<Spanned<Bytes>>) -> Result<Option<Granularity>> {
    let Some(bytes) = given else { return Ok(None) };
    let Bytes(found) = *bytes.get_ref();
    match Granularity::from_bytes(found) {
        Some(granularity) => Ok(Some(granularity)),
        None => {
            let expected = "256, 512, 1024, 2048, 4096, 8192 or 16384 bytes";
            source.out_of_range(bytes.span(), "granularity", expected, found)
        }
    }
}

fn xor_maps(source: &Source<'_>, window: &document::Window) -> Result<Vec<u64>> {
    match (&window.xor_maps, window.arithmetic) {
        (None, _) => Ok(Vec::new()),
        (Some(maps), ArithmeticName::Modulo) => {
            let because = "the window's arithmetic is not \"xor\"".to_owned();
            Err(source.error(maps.span(), Problem::UselessKey { key: "xor_maps", because }))
        }
        (Some(maps), ArithmeticName::Xor) => {
            Ok(maps.get_ref().iter().map(|&Mask(map)| map).collect())
        }
    }
}

/// UIDs for target names that no bridge has: from the top, clear of every UID in the file.
struct NobodyUids {
    used: BTreeSet<u32>,
    given: BTreeMap<String, u32>,
}

impl NobodyUids {
    fn new(bridges: &[Bridge], windows: &[document::Window]) -> Self {
        let mut used: BTreeSet<u32> = bridges.iter().map(|bridge| bridge.uid).collect();
        for target in windows.iter().flat_map(|window| window.targets.get_ref()) {
            if let TargetName::Uid(uid) = target.get_ref() {
                used.insert(*uid);
            }
        }
        Self { used, given: BTreeMap::new() }
    }

    /// What is to be known of them: few who write a name mean nobody.
    fn remarks<'a>(
        &'a self,
        source: &'a Source<'_>,
        names: &'a Names,
        windows: &'a [document::Window],
    ) -> impl Iterator<Item = String> + 'a {
        let targets = windows.iter().flat_map(|window| window.targets.get_ref());
        targets.filter_map(|target| {
            let TargetName::Name(name) = target.get_ref() else { return None };
            let uid = self.given.get(name)?;
            Some(format!(
                "{}: `targets`: {}; the table has the UID {uid} for it",
                source.place(&target.span()),
                no_such_bridge(name, &names.bridges)
            ))
        })
    }

    fn uid(&mut self, name: &str) -> u32 {
        let used = &mut self.used;
        *self.given.entry(name.to_owned()).or_insert_with(|| {
            // There are far fewer names in a file than UIDs.
            let free = (0..=u32::MAX).rev().find(|uid| !used.contains(uid)).unwrap_or(u32::MAX);
            used.insert(free);
            free
        })
    }
}

/// Who is not there, and who is.
pub(super) fn no_such_bridge(name: &str, bridges: &[String]) -> String {
    let name = crate::words::on_one_line(name);
    match bridges {
        [] => format!("no host bridge is called {name}; there is none"),
        [only] => format!("no host bridge is called {name}; there is {only}"),
        some => format!("no host bridge is called {name}; there are {}", some.join(", ")),
    }
}

/// Addresses that were meant in hexadecimal, to judge by where they are.
fn decimals(source: &Source<'_>, document: &Document) -> impl Iterator<Item = String> {
    let windows = document.window.iter();
    let windows = windows.flat_map(|it| [("base", &it.base), ("host", &it.host)]);
    let windows = windows.filter_map(|(key, address)| Some((key, address.as_ref()?.span())));
    let regions = document.region.iter().filter_map(|region| region.get_ref().window.as_ref());
    let named = |name: &&Spanned<String>| {
        !document.window.iter().any(|window| {
            window.name.as_ref().is_some_and(|other| other.get_ref() == name.get_ref())
        })
    };
    let regions = regions.filter(named).map(|name| ("window", name.span()));
    windows.chain(regions).filter_map(|(key, span)| {
        let meant = source.meant_in_hexadecimal(&span)?;
        Some(format!("{}: `{key}`: {meant}", source.place(&span)))
    })
}

fn restrictions(names: Option<&[document::RestrictionName]>) -> Restrictions {
    use document::RestrictionName as Name;
    let everything = [Name::DeviceCoherent, Name::HostOnly, Name::Volatile, Name::Persistent];
    let mut restrictions = Restrictions::default();
    for name in names.unwrap_or(&everything) {
        match name {
            Name::DeviceCoherent => restrictions.set_device_coherent(true),
            Name::HostOnly => restrictions.set_host_only(true),
            Name::Volatile => restrictions.set_volatile(true),
            Name::Persistent => restrictions.set_persistent(true),
            Name::Fixed => restrictions.set_fixed(true),
            Name::BackInvalidate => restrictions.set_back_invalidate(true),
        }
    }
    restrictions
}

fn regions(
    source: &Source<'_>,
    names: &Names,
    given: &[Spanned<document::Region>],
) -> Result<Vec<Region>> {
    let region = |whole: &Spanned<document::Region>| {
        let given = whole.get_ref();
        let devices = match (&given.device, &given.devices) {
            (Some(device), None) => vec![names.device(source, device)?],
            (None, Some(list)) if list.get_ref().is_empty() => {
                return source.out_of_range(list.span(), "devices", "at least one name", "none");
            }
            (None, Some(list)) => {
                let mut members = Vec::new();
                for device in list.get_ref() {
                    let member = names.device(source, device)?;
                    if members.contains(&member) {
                        let by = "the region";
                        return source.taken(device.span(), "member", device.get_ref(), by);
                    }
                    members.push(member);
                }
                members
            }
            (Some(_), Some(list)) => {
                let because = "the region has `device` already".to_owned();
                let problem = Problem::UselessKey { key: "devices", because };
                return Err(source.error(list.span(), problem));
            }
            (None, None) => {
                let because = "a region has members".to_owned();
                let problem = Problem::MissingKey { key: "device", because };
                return Err(source.error(whole.span(), problem));
            }
        };
        let window = match &given.window {
            None => None,
            Some(name) => {
                let named = names
                    .windows
                    .iter()
                    .position(|window| *window == *crate::words::on_one_line(name.get_ref()));
                let named = named.map(WindowChoice::Named);
                let address = || Bytes::parse(name.get_ref()).map(|b| WindowChoice::At(Hpa(b.0)));
                match named.or_else(address) {
                    Some(choice) => Some(choice),
                    None => {
                        let expected = "the name or base of a window";
                        return names.unknown(source, name, expected, names.windows.clone());
                    }
                }
            }
        };
        Ok(Region {
            devices,
            partition: given.partition,
            window,
            offset: given.offset.map(|Bytes(offset)| offset),
            size: given.size.map(|Bytes(size)| size),
            skip: given.skip.0,
            granularity: granularity(source, &given.granularity)?,
        })
    };
    given.iter().map(region).collect()
}

fn events(source: &Source<'_>, names: &Names, given: &[document::Event]) -> Result<Vec<Event>> {
    let missing = |event: &document::Event, key, because: &str| {
        let problem = Problem::MissingKey { key, because: because.to_owned() };
        source.error(event.action.span(), problem)
    };
    let event = |event: &document::Event| {
        let device = match &event.device {
            Some(name) => Some(names.device(source, name)?),
            None => None,
        };
        let plugged = || device.ok_or_else(|| missing(event, "device", "a device comes or goes"));
        let action = match (event.action.get_ref(), &event.kind) {
            (ActionName::Reset, Some(kind)) => Action::Reset { kind: *kind.get_ref(), device },
            (ActionName::Reset, None) => {
                return Err(missing(event, "kind", "there are several resets"));
            }
            (_, Some(kind)) => {
                let because = "only a reset has a kind".to_owned();
                let problem = Problem::UselessKey { key: "kind", because };
                return Err(source.error(kind.span(), problem));
            }
            (ActionName::HotAdd, None) => Action::HotAdd { device: plugged()? },
            (ActionName::HotRemove, None) => Action::HotRemove { device: plugged()? },
        };
        Ok(Event { at: event.at, action, refused: event.refused })
    };
    let mut events: Vec<Event> = given.iter().map(event).collect::<Result<_>>()?;
    events.sort_by_key(|event| event.at);
    Ok(events)
}

/// Devices that are handed over were programmed on hardware, and whoever has them writes to a shadow: what
/// goes wrong with a commit, or with a write to a decoder, never happens there.
fn on_hardware(
    source: &Source<'_>,
    given: &[document::Fault],
    faults: &[Fault],
    windows: &[Window],
) -> Result<()> {
    if windows.iter().all(|window| window.host.is_none()) {
        return Ok(());
    }
    for (given, fault) in given.iter().zip(faults) {
        let of_decoders =
            |register| matches!(register, RegisterAt::GlobalControl | RegisterAt::Decoder { .. });
        let never = match fault.kind {
            FaultKind::CommitPolls { .. }
            | FaultKind::CommitNever { .. }
            | FaultKind::CommitError { .. } => true,
            FaultKind::DroppedWrite { register, .. } | FaultKind::StuckBit { register, .. } => {
                of_decoders(register)
            }
            _ => false,
        };
        if never && matches!(fault.at, Place::Device(_)) {
            let name = given.at.get_ref();
            let because = format!(
                "{name} is handed over with its decoders committed on hardware (a window has \
                 `host`), so that this never happens"
            );
            return Err(
                source.error(given.kind.span(), Problem::UselessKey { key: "kind", because })
            );
        }
    }
    Ok(())
}

/// Bus ranges of bridges in one segment must not meet, and end at 255.
fn buses_apart(source: &Source<'_>, given: &[document::Bridge], scenario: &Scenario) -> Result<()> {
    let mut earlier: Vec<(u16, Range<usize>, &str)> = Vec::new();
    for (index, (bridge, given)) in scenario.bridges.iter().zip(given).enumerate() {
        let span = given.bus.as_ref().map_or(given.uid.span(), Spanned::span);
        let first = usize::from(bridge.bus);
        let buses = first..first + scenario.buses_of(index);
        if buses.end > 256 {
            let expected = "a bus with room for all ports below it, up to 255";
            return source.out_of_range(span, "bus", expected, bridge.bus);
        }
        let meets = |(segment, other, _): &&(u16, Range<usize>, &str)| {
            *segment == bridge.segment && other.start < buses.end && buses.start < other.end
        };
        if let Some((_, _, by)) = earlier.iter().find(meets) {
            let last = buses.end - 1;
            return source.taken(span, "range of buses", format!("{first} to {last}"), by);
        }
        earlier.push((bridge.segment, buses, &bridge.name));
    }
    Ok(())
}
