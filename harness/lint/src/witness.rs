//! What Linux shows of a machine, as the registers and the table that it stands for, so that everything
//! that looks at registers looks at it too.
//!
//! Linux shows what decoders mean: addresses, ways, targets, locks. Not the rest of their registers, nor
//! the arithmetic of a window, nor where a bridge's registers lie. What is put in their place is said.
//!
//! **Invariant**: a decoder is committed here only where Linux shows addresses and a size for it. A component
//! of which it shows less has registers that nobody gave; so has a device its configuration space, which Linux
//! never shows.

use std::collections::BTreeMap;

use cxl_model::capture::witness::{Decoder, Witness, index_of, number, port_of};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_regs::acpi::CedtWriter;
use cxl_regs::acpi::cedt::{Cfmws, Chbs, ChbsVersion, Restrictions};
use cxl_regs::hdm::{Capability, Control, DecoderImage, GlobalControl};
use cxl_regs::{Granularity, Hpa, Interleave, Span, Ways};

use super::input::{Bridge, Device, Input, Port, Registers, Switch};
use super::records::{STAND_IN, is_stand_in};

/// The deepest tree of ports that is followed.
const MAX_DEPTH: usize = 64;

/// Adds what was shown to an input; what is to be known of it.
pub(super) fn take(input: &mut Input, seen: &Witness) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut places = Places::default();
    if !seen.ports.is_empty() || !seen.decoders.is_empty() {
        remarks.push(
            "registers are taken from what Linux shows: what sysfs leaves out is not looked at"
                .to_owned(),
        );
    }
    // Parents come before what hangs on them.
    let mut names: Vec<(usize, usize, &String)> = seen
        .ports
        .keys()
        .filter_map(|name| {
            let number = number(name, "port").or_else(|| number(name, "endpoint"))?;
            Some((depth(seen, name)?, number, name))
        })
        .collect();
    names.sort_unstable();
    for (_, _, name) in names {
        if number(name, "endpoint").is_some() {
            device(input, seen, &mut places, name, &mut remarks);
        } else {
            port(input, seen, &mut places, name);
        }
    }
    uids(input, seen, &mut remarks);
    // Devices that Linux has no endpoint for.
    for (name, memdev) in &seen.memdevs {
        if !input.devices.iter().any(|device| device.name == *name) {
            input.devices.push(Device {
                name: name.clone(),
                address: memdev.host.clone(),
                capacity: memdev.ram.zip(memdev.pmem),
                ..Device::default()
            });
        }
    }
    if input.cedt.is_none() {
        input.cedt = table(input, seen, &mut remarks);
        let stands_in = input.cedt.as_deref().is_some_and(is_stand_in);
        if stands_in {
            let words = "the CEDT was not given: windows are taken from what Linux shows, and neither \
                         the table nor where host bridges' registers lie is looked at";
            remarks.push(words.to_owned());
        } else {
            remarks.extend(unnamed(seen));
        }
    }
    remarks
}

/// Windows that only `/proc/iomem` shows: it says where they are, and not whose they are.
fn unnamed(seen: &Witness) -> Vec<String> {
    const MOST: usize = 64;
    let is_window = |name: &str| name.starts_with("CXL Window ");
    let windows = seen.resources.iter().filter(|range| is_window(&range.name)).take(MOST);
    let said = windows.map(|range| {
        let (name, start, end) = (&range.name, range.start, range.end);
        format!("{name} at {start:#x}-{end:#x}: /proc/iomem does not say which bridges it leads to")
    });
    said.collect()
}

/// Fills in what an input leaves open and Linux shows: registers and capacities of components that are in
/// both, by UID and address; what is to be known of it.
pub(super) fn fill(input: &mut Input, seen: &Witness) -> Vec<String> {
    let mut shown = Input { cedt: input.cedt.clone(), ..Input::default() };
    // What is said of the rest of that picture is not used.
    take(&mut shown, seen);
    let mut taken = Vec::new();
    let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
    for bridge in &mut input.bridges {
        let mut others = shown.bridges.iter();
        let other = others.find(|other| {
            same(&bridge.address, &other.address) || bridge.uid.is_some() && bridge.uid == other.uid
        });
        fill_in(&mut bridge.registers, other.map(|it| &it.registers), &bridge.name, &mut taken);
    }
    for switch in &mut input.switches {
        let mut others = shown.switches.iter();
        let other = others.find(|other| same(&switch.address, &other.address));
        fill_in(&mut switch.registers, other.map(|it| &it.registers), &switch.name, &mut taken);
    }
    for device in &mut input.devices {
        let mut others = shown.devices.iter();
        let other = others.find(|other| same(&device.address, &other.address));
        fill_in(&mut device.registers, other.map(|it| &it.registers), &device.name, &mut taken);
        device.capacity = device.capacity.or(other.and_then(|other| other.capacity));
    }
    if taken.is_empty() {
        return vec![];
    }
    let names = taken.join(", ");
    vec![format!("registers of {names}: not given, taken from what Linux shows of them")]
}

fn fill_in(
    registers: &mut Registers,
    shown: Option<&Registers>,
    name: &str,
    taken: &mut Vec<String>,
) {
    if let (Registers::Unknown, Some(shown @ Registers::Hdm(_))) = (&*registers, shown) {
        *registers = shown.clone();
        taken.push(name.to_owned());
    }
}

/// What has become of the ports.
#[derive(Default)]
struct Places {
    parents: BTreeMap<String, Parent>,
    /// Downstream ports by port and number.
    dports: BTreeMap<(String, u32), usize>,
}

fn depth(seen: &Witness, name: &str) -> Option<usize> {
    let mut depth = 0;
    let mut at = name;
    while let Some(parent) = seen.ports.get(at)?.parent.as_deref() {
        depth += 1;
        at = parent;
        if depth > MAX_DEPTH {
            return None;
        }
    }
    Some(depth)
}

/// The downstream ports of a port: those that are shown, or those that its decoders name.
fn dports(seen: &Witness, name: &str) -> BTreeMap<u32, Option<String>> {
    let mut dports = seen.ports.get(name).map(|port| port.dports.clone()).unwrap_or_default();
    if dports.is_empty() {
        for (_, decoder) in decoders(seen, name) {
            dports.extend(decoder.targets.iter().map(|&id| (id, None)));
        }
    }
    dports
}

/// A port's decoders, by number.
fn decoders<'w>(seen: &'w Witness, port: &str) -> BTreeMap<usize, &'w Decoder> {
    let kinds = ["root", "port", "endpoint"];
    let wanted = kinds.iter().find_map(|kind| number(port, kind));
    let decoders = seen.decoders.iter().filter(|(name, _)| port_of(name) == wanted);
    decoders.filter_map(|(name, decoder)| Some((index_of(name)?, decoder))).collect()
}

fn port(input: &mut Input, seen: &Witness, places: &mut Places, name: &str) {
    let Some(shown) = seen.ports.get(name) else { return };
    let registers = registers(&decoders(seen, name), false);
    let above = shown.parent.as_deref().unwrap_or("root0");
    let parent = if number(above, "root").is_some() {
        let name = format!("hb{}", input.bridges.len());
        input.bridges.push(Bridge { name, uid: None, address: shown.host.clone(), registers });
        Parent::Bridge(input.bridges.len() - 1)
    } else {
        let port = place(places, seen, name, above).unwrap_or(usize::MAX);
        let name = format!("switch{}", input.switches.len());
        input.switches.push(Switch { name, port, address: shown.host.clone(), registers });
        Parent::Switch(input.switches.len() - 1)
    };
    places.parents.insert(name.to_owned(), parent);
    for (id, device) in dports(seen, name) {
        let index = input.ports.len();
        places.dports.insert((name.to_owned(), id), index);
        let number = u8::try_from(id).unwrap_or(u8::MAX);
        let port = Port { name: format!("port{index}"), parent, number, address: device };
        input.ports.push(port);
    }
}

/// The downstream port of `above` that leads to `name`.
fn place(places: &Places, seen: &Witness, name: &str, above: &str) -> Option<usize> {
    let dports = dports(seen, above);
    let wanted = seen.ports.get(name)?.parent_dport.as_deref();
    let id = match wanted {
        Some(wanted) => {
            dports.iter().find(|(_, device)| device.as_deref() == Some(wanted)).map(|(id, _)| *id)
        }
        None if dports.len() == 1 => dports.keys().next().copied(),
        None => None,
    };
    places.dports.get(&(above.to_owned(), id?)).copied()
}

fn device(
    input: &mut Input,
    seen: &Witness,
    places: &mut Places,
    endpoint: &str,
    remarks: &mut Vec<String>,
) {
    let Some(shown) = seen.ports.get(endpoint) else { return };
    let above = shown.parent.as_deref().unwrap_or_default();
    let port = place(places, seen, endpoint, above);
    let host = shown.host.clone().filter(|host| number(host, "mem").is_some());
    // cxl list puts the device below the endpoint, and may leave its name out there.
    let name = host.unwrap_or_else(|| {
        let index = input.devices.len();
        format!("mem{index}")
    });
    if port.is_none() {
        remarks.push(format!(
            "{endpoint}: nothing says below which port it is (links of the tree, or cxl list, do)"
        ));
    }
    let memdev = seen.memdevs.get(&name).cloned().unwrap_or_default();
    let shown = decoders(seen, endpoint);
    let elsewhere = shown.values().find_map(|decoder| translated(seen, above, decoder));
    if let Some(region) = elsewhere {
        remarks.push(format!(
            "{endpoint}: its decoders hold addresses of the device alone, and Linux has them in {region}: the \
             platform translates addresses (as by PRM), so they are neither judged nor followed"
        ));
    }
    let capacity = memdev.ram.zip(memdev.pmem);
    input.devices.push(Device {
        name,
        port,
        address: memdev.host,
        registers: match elsewhere {
            Some(_) => Registers::Unknown,
            None => registers(&shown, true),
        },
        // Linux shows neither. That an endpoint is there says that its memory was ready once.
        config: None,
        capacity,
        status: None,
    });
}

/// The region that Linux has a device's decoder in, if that lies elsewhere than the decoder: normalized
/// addressing, which Linux takes from 7.0 on where the platform says how addresses translate.
fn translated<'w>(seen: &'w Witness, above: &str, decoder: &'w Decoder) -> Option<&'w str> {
    let name = decoder.region.as_deref()?;
    let own = decoder.start.filter(|_| decoder.size.is_some_and(|size| size > 0))?;
    let region = seen.regions.get(name).and_then(|region| region.start);
    let port = || {
        let decoders = decoders(seen, above).into_values();
        let mut same = decoders.filter(|other| other.region.as_deref() == Some(name));
        same.find_map(|other| other.start)
    };
    let start = region.or_else(port)?;
    (start != own).then_some(name)
}

/// Whether Linux shows where a decoder is and what it does, or that it is not in use. Without root it hides
/// addresses, and cxl list leaves out what it was not asked for.
fn is_whole(shown: &Decoder, device: bool) -> bool {
    match (shown.start, shown.size) {
        (_, Some(0)) | (Some(u64::MAX), _) => true,
        (Some(_), Some(_)) => device || !shown.targets.is_empty(),
        _ => false,
    }
}

/// Decoders as registers. Linux has decoders of every port, also of one that passes everything through: where
/// it shows none, or not all of one, nobody gave them.
fn registers(shown: &BTreeMap<usize, &Decoder>, device: bool) -> Registers {
    let Some(&last) = shown.keys().next_back() else { return Registers::Unknown };
    if !shown.values().all(|decoder| is_whole(decoder, device)) {
        return Registers::Unknown;
    }
    let count = (last + 1).min(cxl_regs::hdm::MAX_DECODERS);
    let code = (count..=cxl_regs::hdm::MAX_DECODERS)
        .find_map(|count| Some((count, Capability::encode_decoders(u8::try_from(count).ok()?)?)));
    let Some((count, code)) = code else { return Registers::NoHdm };
    let capability = Capability::new()
        .with_decoder_count(code)
        .with_target_count(if device { 0 } else { 8 })
        .with_interleave_11_8(true)
        .with_interleave_14_12(true)
        .with_ways_3_6_12(device)
        .with_ways_16(device);
    let mut end = 0;
    let decoders = (0..count).map(|index| {
        shown.get(&index).map_or_else(DecoderImage::default, |shown| image(shown, device, &mut end))
    });
    Registers::Hdm(HdmImage {
        capability: capability.into_bits(),
        global_control: GlobalControl::new().with_decoder_enable(true).into_bits(),
        decoders: decoders.collect(),
    })
}

/// One decoder's dwords; `end` is where the lower ones end in the device.
fn image(shown: &Decoder, device: bool, end: &mut u64) -> DecoderImage {
    let (start, size) = (shown.start.unwrap_or(u64::MAX), shown.size.unwrap_or(0));
    if size == 0 || start == u64::MAX {
        return DecoderImage::default();
    }
    let ways = shown.ways.unwrap_or(1);
    let granularity = shown.granularity.unwrap_or(256);
    let codes = (0..=10u32).find(|&code| Ways::decode(code).is_ok_and(|it| it.count() == ways));
    let bytes = |&code: &u32| Granularity::decode(code).is_ok_and(|it| it.bytes() == granularity);
    // A code that there is not stays visible as one that there is not.
    let (iw, ig) = (codes.unwrap_or(0xF), (0..=6u32).find(bytes).unwrap_or(0xF));
    let locked = shown.locked == Some(true);
    let host_only = shown.target_type.as_deref() != Some("accelerator");
    let control = Control::new()
        .with_granularity(ig as u8)
        .with_ways(iw as u8)
        .with_lock_on_commit(locked)
        .with_commit(true)
        .with_committed(true)
        .with_host_only(host_only);
    let image = DecoderImage::default().with_base(start).with_size(size).with_control(control);
    if device {
        let share = size / u64::from(ways.max(1));
        let dpa = shown.dpa.unwrap_or(*end);
        let skip = dpa.saturating_sub(*end);
        *end = dpa.saturating_add(shown.dpa_size.filter(|size| *size > 0).unwrap_or(share));
        return image.with_skip(skip);
    }
    let targets = shown.targets.iter().take(8).map(|&id| u8::try_from(id).unwrap_or(u8::MAX));
    let mut list = [0; 8];
    list.iter_mut().zip(targets).for_each(|(place, id)| *place = id);
    image.with_targets(list)
}

/// Gives bridges their UIDs: numbers of the root's downstream ports.
fn uids(input: &mut Input, seen: &Witness, remarks: &mut Vec<String>) {
    let root = dports(seen, "root0");
    for bridge in input.bridges.iter_mut().filter(|bridge| bridge.uid.is_none()) {
        let address = bridge.address.as_deref();
        let known =
            root.iter().find(|(_, device)| device.is_some() && device.as_deref() == address);
        bridge.uid = known.map(|(id, _)| *id);
    }
    if let [bridge] = input.bridges.as_mut_slice()
        && bridge.uid.is_none()
        && root.len() == 1
    {
        bridge.uid = root.keys().next().copied();
    }
    for bridge in input.bridges.iter().filter(|bridge| bridge.uid.is_none()) {
        let name = bridge.address.as_deref().unwrap_or(&bridge.name);
        remarks.push(format!(
            "{name}: nothing says its UID (links of root0 in the tree, or cxl list -vvv, do)"
        ));
    }
}

/// A table with the windows that are shown.
fn table(input: &Input, seen: &Witness, remarks: &mut Vec<String>) -> Option<Vec<u8>> {
    let windows = decoders(seen, "root0");
    if windows.is_empty() {
        return None;
    }
    let mut buffer = vec![0; 36 + 0x20 * 1024 + 0x64 * windows.len()];
    let mut writer = CedtWriter::new(&mut buffer, STAND_IN).ok()?;
    for (place, bridge) in (1..).zip(&input.bridges) {
        // Where a bridge's registers lie is not shown; that it has some is.
        let base = Hpa(place << 16);
        let chbs = bridge.uid.and_then(|uid| Chbs::new(uid, ChbsVersion::Chbcr, base).ok());
        let _ = chbs.map(|chbs| writer.chbs(&chbs));
    }
    let mut written = 0;
    for (index, shown) in windows {
        if shown.targets.is_empty() {
            let how = "links of the tree, or cxl list -vvv, say";
            remarks.push(format!("decoder0.{index} is left out: nobody shows its targets ({how})"));
            continue;
        }
        if shown.start.is_none() || shown.size.is_none() {
            remarks.push(format!(
                "decoder0.{index} is left out: its addresses are not shown (root sees them)"
            ));
            continue;
        }
        let window = window(shown);
        match window.and_then(|window| writer.cfmws(&window).map_err(|e| e.to_string())) {
            Ok(()) => written += 1,
            Err(reason) => remarks.push(format!("decoder0.{index} is left out: {reason}")),
        }
        if shown.ways.is_some_and(|ways| ways > 1) {
            remarks.push(format!(
                "decoder0.{index}: Linux does not show its arithmetic; taken as modulo (a CEDT \
                 beside it says)"
            ));
        }
    }
    // A table in which no window is stands for none.
    writer.finish().ok().filter(|_| written > 0).map(|table| table.to_vec())
}

fn window(shown: &Decoder) -> Result<Cfmws, String> {
    let (start, size) = (shown.start.unwrap_or(0), shown.size.unwrap_or(0));
    let span = Span::new(Hpa(start), size).map_err(|error| error.to_string())?;
    let ways = shown.ways.unwrap_or(1);
    let ways = (0..=10u32).filter_map(|code| Ways::decode(code).ok()).find(|w| w.count() == ways);
    let ways = ways.ok_or_else(|| format!("{:?} ways", shown.ways.unwrap_or(1)))?;
    let bytes = shown.granularity.unwrap_or(256);
    let granularity = (0..=6u32).filter_map(|code| Granularity::decode(code).ok());
    let granularity = granularity.into_iter().find(|it| it.bytes() == bytes);
    let granularity = granularity.ok_or_else(|| format!("granularity {bytes}"))?;
    let interleave = Interleave { ways, granularity };
    let mut window =
        Cfmws::new(span, interleave, &shown.targets).map_err(|error| error.to_string())?;
    let accelerator = shown.accelerator.unwrap_or(false);
    window.restrictions = Restrictions::new()
        .with_device_coherent(accelerator)
        .with_host_only(shown.expander.unwrap_or(true))
        .with_volatile(shown.volatile.unwrap_or(true))
        .with_persistent(shown.persistent.unwrap_or(true))
        .with_fixed(shown.locked == Some(true));
    Ok(window)
}
