//! Mappings, walks and reasons in words, with the names that the fabric has for things.
//!
//! **Invariant**: the text depends on registers and names alone, so the same machine always prints
//! the same lines.

use std::fmt::{self, Display, Formatter};

use cxl_regs::{Arithmetic, Decoder, Interleave, Size, Ways};

use super::{At, Direct, Endpoint, Hop, Mapping, Path, Reach, Reason};
use crate::fabric::{self, Fabric};
use crate::scenario::Place;
use crate::words::counted;

/// A reason as one sentence.
#[derive(Clone, Copy)]
pub struct ReasonText<'f>(pub &'f Fabric, pub Reason);

/// A list of mappings, window by window.
#[derive(Clone, Copy)]
pub struct MappingsText<'f>(pub &'f Fabric, pub &'f [Mapping]);

/// A walk with the arithmetic of each step.
#[derive(Clone, Copy)]
pub struct PathText<'f>(pub &'f Fabric, pub &'f Path);

/// A walk in one line: what it passes and which way it takes there.
#[derive(Clone, Copy)]
pub struct StepsText<'f>(pub &'f Fabric, pub &'f Path);

/// A component's name; its index if the fabric has no such component.
struct Name<'f>(&'f Fabric, At);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(fabric, at) = self;
        let (name, kind, index) = match *at {
            At::Bridge(i) => (fabric.bridges.get(i).map(|bridge| &bridge.name), "bridge", i),
            At::Switch(i) => (fabric.switches.get(i).map(|switch| &switch.name), "switch", i),
            At::Device(i) => (fabric.devices.get(i).map(|device| &device.name), "device", i),
        };
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "{kind} {index}"),
        }
    }
}

fn port_name(fabric: &Fabric, port: usize) -> &str {
    fabric.ports.get(port).map_or("a port", |port| &port.name)
}

fn window_name(fabric: &Fabric, window: usize) -> &str {
    fabric.windows.get(window).map_or("a window", |window| &window.name)
}

impl Display for ReasonText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(fabric, reason) = *self;
        let at = |at| Name(fabric, at);
        let device = |index| Name(fabric, At::Device(index));
        match reason {
            Reason::NoWindow => f.write_str("no window has this address"),
            Reason::WindowNotPlaced => f.write_str("the window is not placed (base 0)"),
            Reason::WindowRange(error) => write!(f, "the window is no range: {error}"),
            Reason::BeyondPhysicalWidth { bits } => {
                write!(f, "the window passes the physical address width of {bits} bits")
            }
            Reason::WindowUnaligned { base, size } => {
                write!(f, "window base {base} or size {size:#x} is no multiple of 256 MiB")
            }
            Reason::WindowsOverlap { other } => {
                write!(f, "{} has the same addresses", window_name(fabric, other))
            }
            Reason::TargetCount { ways, targets } => {
                let (ways, targets) = (counted(ways, "way"), counted(targets, "target"));
                write!(f, "the window has {ways} and {targets}")
            }
            Reason::XorMaps(error) => write!(f, "the window cannot pick a target: {error}"),
            Reason::NoSuchBridge { way, uid } => {
                write!(f, "target {way} of the window is UID {uid}, which no bridge has")
            }
            Reason::NoDecoders { at: place @ At::Device(_), .. } => {
                write!(f, "{} has no HDM decoders", at(place))
            }
            Reason::NoDecoders { at: place, ports } => write!(
                f,
                "{} has no HDM decoders and {ports} ports: not a proven pass-through",
                at(place)
            ),
            Reason::NotCovered { at: place } => {
                write!(f, "no decoder of {} has the range", at(place))
            }
            Reason::NotCommitted { at: place, decoder } => {
                write!(f, "{} decoder {decoder} is not committed", at(place))
            }
            Reason::ClaimedTwice { at: place, first, second } => {
                write!(f, "{} decoders {first} and {second} both have the range", at(place))
            }
            Reason::IllegalDecoder { at: place, decoder, error } => {
                write!(f, "{} decoder {decoder}: {error}", at(place))
            }
            Reason::NoSuchPort { at: place, way, number } => write!(
                f,
                "target {way} of {} is port number {number:#04x}, which none of its ports has",
                at(place)
            ),
            Reason::NotInTargetList { at: place, port } => {
                write!(f, "{} is not in the target list of {}", port_name(fabric, port), at(place))
            }
            Reason::NothingBehind { port } => {
                write!(f, "nothing is plugged in below {}", port_name(fabric, port))
            }
            Reason::NotMemory { device: index } => {
                write!(f, "{} has no CXL memory", device(index))
            }
            Reason::DecodersDisabled { device: index } => {
                write!(f, "HDM Decoder Enable of {} is clear", device(index))
            }
            Reason::MemoryDisabled { device: index } => {
                write!(f, "Mem_Enable of {} is clear", device(index))
            }
            Reason::CoherencyNotAllowed { at: place, coherency } => {
                write!(f, "{} is {coherency}, which the window does not admit", at(place))
            }
            Reason::CoherencyDiffers { at: place, coherency, device: index, expected } => {
                write!(f, "{} is {coherency}, {} is {expected}", at(place), device(index))
            }
            Reason::NoBackInvalidate { place: Place::Port(port) } => {
                write!(f, "{} has no BI decoder", port_name(fabric, port))
            }
            Reason::NoBackInvalidate { place: Place::Switch(index) } => {
                write!(f, "{} has no BI route table", at(At::Switch(index)))
            }
            Reason::NoBackInvalidate { place: Place::Bridge(index) } => {
                write!(f, "{} has no back-invalidate", at(At::Bridge(index)))
            }
            Reason::NoBackInvalidate { place: Place::Device(index) } => {
                write!(f, "{} has no BI decoder", device(index))
            }
            Reason::MediaNotAllowed { device: index, partition } => write!(
                f,
                "{} maps {partition} memory, which the window does not admit",
                device(index)
            ),
            Reason::BeyondCapacity { device: index, end, capacity } => write!(
                f,
                "{} maps up to DPA {end:#x} and has {} ({capacity:#x})",
                device(index),
                Size(capacity)
            ),
            Reason::CrossesPartitions { device: index, border } => write!(
                f,
                "{} maps both sides of DPA {border:#x}, where persistent memory begins",
                device(index)
            ),
            Reason::SpansWindows { device: index, other } => write!(
                f,
                "the decoder of {} has addresses of {} too",
                device(index),
                window_name(fabric, other)
            ),
            Reason::Levels(error) => write!(f, "the levels make no set: {error}"),
            Reason::SwitchLevels { at: place } => {
                write!(f, "{} is the second switch on the way that interleaves", at(place))
            }
            Reason::MembersMissing { device: index, ways, reached } => write!(
                f,
                "{} is one of {ways} members, the levels above it reach {reached}",
                device(index)
            ),
            Reason::InterleaveDiffers { device: index, expected, found } => write!(
                f,
                "{} is set to {found}, the levels above it make {expected}",
                device(index)
            ),
            Reason::SpanDiffers { device: index, expected, found } => {
                write!(f, "{} has {found}, the first member has {expected}", device(index))
            }
            Reason::PositionDoubled { device: index, position } => {
                write!(f, "{} is reached a second time, at position {position}", device(index))
            }
            Reason::Normalized { device: index, decoder } => write!(
                f,
                "{} decoder {decoder} holds addresses of the device alone (normalized addressing): \
                 only the platform (its PRM) can say which host addresses those are",
                device(index)
            ),
            Reason::WindowsNotGiven => {
                f.write_str("nobody gave a CEDT, or another list of windows with their targets")
            }
            Reason::BridgeNotGiven { way, uid } => write!(
                f,
                "target {way} of the window is UID {uid}, and nobody gave the registers of that bridge"
            ),
            Reason::NotGiven { at: place } => {
                write!(f, "nobody gave the registers of {}", at(place))
            }
            Reason::PortsNotGiven { at: place } => {
                write!(f, "nobody gave the ports of {}", at(place))
            }
            Reason::PlaceNotGiven { port } => write!(
                f,
                "nobody said what is plugged in below {}: there are devices without a place",
                port_name(fabric, port)
            ),
        }
    }
}

/// One fact: label, raw value, meaning.
fn fact(
    f: &mut Formatter<'_>,
    label: impl Display,
    raw: impl Display,
    meaning: impl Display,
) -> fmt::Result {
    writeln!(f, "  {:<17} {raw}  {meaning}", label.to_string())
}

fn address(value: u64) -> String {
    format!("{value:#018x}")
}

impl Display for MappingsText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(fabric, mappings) = *self;
        let mut current = None;
        for mapping in mappings {
            if current.replace(mapping.window) != Some(mapping.window) {
                window_heading(f, fabric, mapping.window)?;
            }
            let size = Size(mapping.size);
            match &mapping.how {
                Reach::Direct(direct) => {
                    direct_facts(f, fabric, mapping, direct)?;
                }
                Reach::Trapped { reason } => {
                    let why = ReasonText(fabric, *reason);
                    let meaning = format!("{size}: {why}");
                    fact(f, "trapped", address(mapping.hpa.0), meaning)?;
                }
            }
        }
        Ok(())
    }
}

fn window_heading(f: &mut Formatter<'_>, fabric: &Fabric, index: usize) -> fmt::Result {
    let Some(window) = fabric.windows.get(index) else { return Ok(()) };
    let targets: Vec<String> = window.targets.iter().map(|uid| uid.to_string()).collect();
    writeln!(
        f,
        "{}: {} at {}, {} over UID {}",
        window.name,
        Size(window.size),
        window.base.unwrap_or_default(),
        window.interleave,
        targets.join(", ")
    )
}

fn direct_facts(
    f: &mut Formatter<'_>,
    fabric: &Fabric,
    mapping: &Mapping,
    direct: &Direct,
) -> fmt::Result {
    let size = Size(mapping.size);
    if let [member] = direct.members.as_slice() {
        let dpa = direct.locate(mapping.hpa).map_or(member.dpa, |(_, dpa)| dpa);
        let name = Name(fabric, At::Device(member.device));
        let meaning = format!("{size}: {name} decoder {}, from DPA {dpa}", member.decoder);
        return fact(f, "direct", address(mapping.hpa.0), meaning);
    }
    let base = direct.base;
    let meaning = format!("{size}: {}, set at {base}", direct.interleave());
    fact(f, "direct", address(mapping.hpa.0), meaning)?;
    for (position, member) in direct.members.iter().enumerate() {
        let name = Name(fabric, At::Device(member.device));
        let meaning = format!("{name} decoder {}, from DPA {}", member.decoder, member.dpa);
        fact(f, "position", format!("{position:#04x}"), meaning)?;
    }
    Ok(())
}

impl Display for PathText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(fabric, path) = *self;
        let Path { hpa, dpa, partition, endpoint, .. } = path;
        let device = Name(fabric, At::Device(endpoint.device));
        writeln!(f, "HPA {hpa} is {device}, DPA {dpa} ({partition})")?;
        if let Some(window) = fabric.windows.get(path.window) {
            let base = window.base.unwrap_or_default();
            let offset = hpa.0.wrapping_sub(base.0);
            let meaning = format!("{} at {base} + {offset:#x}", window.name);
            fact(f, "window", address(hpa.0), meaning)?;
            let uid = window.targets.get(path.root_way as usize).copied().unwrap_or_default();
            let meaning = format!("{}: target {} is UID {uid}", root(window), path.root_way);
            fact(f, "way", format!("{:#04x}", path.root_way), meaning)?;
        }
        for hop in &path.hops {
            hop_facts(f, fabric, hop)?;
        }
        let Endpoint { index, decoder: Decoder { span, interleave, .. }, dpa: base, .. } = endpoint;
        let (hpa_offset, dpa_offset) =
            (hpa.0.wrapping_sub(span.base().0), dpa.0.wrapping_sub(base.0));
        fact(f, &device, address(span.base().0), format!("decoder {index}: {span}"))?;
        let meaning = format!("HPA - base = {hpa_offset:#x}");
        fact(f, "offset", address(hpa_offset), meaning)?;
        let meaning = format!("{interleave}: {}", share(*interleave, hpa_offset));
        fact(f, "device offset", address(dpa_offset), meaning)?;
        let meaning = format!("skips and lower decoders {base} + {dpa_offset:#x}, {partition}");
        fact(f, "DPA", address(dpa.0), meaning)
    }
}

impl Display for StepsText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(fabric, path) = *self;
        write!(f, "{} way {}", window_name(fabric, path.window), path.root_way)?;
        for Hop { at, decoder, way, port } in &path.hops {
            write!(f, " > {}", Name(fabric, *at))?;
            match decoder {
                Some((index, _)) => write!(f, " decoder {index} way {way}")?,
                None => f.write_str(" passes through")?,
            }
            write!(f, " > {}", port_name(fabric, *port))?;
        }
        let Endpoint { device, index, .. } = path.endpoint;
        write!(f, " > {} decoder {index} > DPA {}", Name(fabric, At::Device(device)), path.dpa)
    }
}

fn hop_facts(f: &mut Formatter<'_>, fabric: &Fabric, hop: &Hop) -> fmt::Result {
    let name = Name(fabric, hop.at);
    let number = fabric.ports.get(hop.port).map_or(0, |port| port.number);
    let port = port_name(fabric, hop.port);
    let way = format!("{:#04x}", hop.way);
    let Some((index, Decoder { span, interleave, .. })) = hop.decoder else {
        return fact(f, name, way, format!("passes everything to its one port, {port}"));
    };
    fact(f, name, address(span.base().0), format!("decoder {index}: {span}"))?;
    let first = interleave.granularity.shift();
    let choice = match interleave.ways.selector_bits() {
        0 => "1-way".to_owned(),
        1 => format!("{interleave}, HPA[{first}]"),
        bits => format!("{interleave}, HPA[{}:{first}]", first + bits - 1),
    };
    fact(f, "way", way, format!("{choice}: target {} is port {number:#04x}, {port}", hop.way))
}

/// How a window turns an address into a target.
fn root(window: &fabric::Window) -> String {
    let Interleave { ways, granularity } = window.interleave;
    let maps = window.xor_maps.iter().take(ways.selector_bits() as usize);
    let maps: Vec<String> = maps.map(|map| format!("{map:#x}")).collect();
    match (ways, window.arithmetic) {
        (Ways::One, _) => "1-way".to_owned(),
        (_, Arithmetic::Xor) if !maps.is_empty() => {
            format!("{}, parities of HPA & {}", window.interleave, maps.join(", "))
        }
        _ => format!("(HPA / {granularity}) mod {ways}"),
    }
}

/// What a device makes of an offset, as a formula with the numbers put in.
fn share(interleave: Interleave, offset: u64) -> String {
    let Interleave { ways, granularity } = interleave;
    if ways == Ways::One {
        return format!("{offset:#x} as it is");
    }
    let (low, high) = (granularity.shift(), granularity.shift() + ways.selector_bits());
    let third = if ways.has_three() { " / 3" } else { "" };
    let rest = offset & (granularity.bytes() - 1);
    format!("({offset:#x} >> {high}){third} << {low} | {rest:#x}")
}
