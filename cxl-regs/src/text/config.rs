//! The text form of a function's configuration space.
//!
//! **Invariant**: any bytes have a text; what cannot be read is a line that says why, and nothing
//! is read behind the end of a structure.

use core::fmt;

use crate::addr::Size;
use crate::block::{self, LABEL_WIDTH, Row};
use crate::commit::microseconds;
use crate::config::{
    Bar, BarKind, BridgeHeader, CONVENTIONAL_SIZE, Capabilities, CapabilityId, ClassCode,
    EndpointHeader, ExtendedCapabilities, ExtendedCapability, ExtendedCapabilityId, HeaderType,
    PcieCapability,
};
use crate::dvsec::device::{DeviceDvsec, Range, active_timeout_seconds};
use crate::dvsec::gpf::{GpfDeviceDvsec, GpfPortDvsec};
use crate::dvsec::locator::Locations;
use crate::dvsec::{self, Dvsec, DvsecId};

/// The first bytes of configuration space: the header.
const HEADER_SIZE: usize = 0x40;

/// A function's configuration space for people. The bytes are as many as there are: 64, 256, or
/// all 4096.
#[derive(Clone, Copy, Debug)]
pub struct ConfigText<'a>(pub &'a [u8]);

impl fmt::Display for ConfigText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reader = block::image(self.0);
        if self.0.len() < HEADER_SIZE {
            return writeln!(f, "configuration space: {} bytes hold no header", self.0.len());
        }
        header(f, reader)?;
        if self.0.len() <= HEADER_SIZE {
            return Ok(());
        }
        for found in Capabilities::new(reader) {
            match found {
                Ok(found) => {
                    writeln!(f, "capability {:#04x}: {}", found.offset, found.id)?;
                    if found.id == CapabilityId::PciExpress {
                        pcie(f, &PcieCapability::read(reader, found.offset))?;
                    }
                }
                Err(error) => writeln!(f, "capabilities: {error}")?,
            }
        }
        if self.0.len() <= usize::from(CONVENTIONAL_SIZE) {
            return Ok(());
        }
        for found in ExtendedCapabilities::new(reader) {
            match found {
                Ok(found) => extended(f, reader, found)?,
                Err(error) => writeln!(f, "extended capabilities: {error}")?,
            }
        }
        Ok(())
    }
}

fn rows(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    rows.iter().try_for_each(|row| writeln!(f, "{row}"))
}

/// One decoded fact that has no register of its own.
fn fact(f: &mut fmt::Formatter<'_>, label: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "  {label:<LABEL_WIDTH$}{value}")
}

fn header(f: &mut fmt::Formatter<'_>, reader: impl Fn(u16) -> u32 + Copy) -> fmt::Result {
    let kind: HeaderType = block::read(reader, 0);
    let EndpointHeader { id, class, .. } = EndpointHeader::read(reader, 0);
    if id.vendor() == u16::MAX {
        return writeln!(f, "configuration space: vendor ID 0xffff, no function answers");
    }
    let title = |f: &mut fmt::Formatter<'_>, kind: &str| {
        write!(f, "{kind} {:04x}:{:04x}, class {:#08x}", id.vendor(), id.device(), class.code())?;
        let class = ClassCode::from_code(class.code());
        if class.is_named() { writeln!(f, ", {class}") } else { writeln!(f) }
    };
    match kind.layout() {
        0 => {
            title(f, "endpoint")?;
            let header = EndpointHeader::read(reader, 0);
            rows(f, &header.rows())?;
            let bars =
                [header.bar0, header.bar1, header.bar2, header.bar3, header.bar4, header.bar5];
            bar_facts(f, &bars.map(Bar::into_bits))
        }
        1 => {
            title(f, "bridge")?;
            let header = BridgeHeader::read(reader, 0);
            rows(f, &header.rows())?;
            bar_facts(f, &[header.bar0, header.bar1].map(Bar::into_bits))?;
            let windows = header.windows();
            for (label, window) in
                [("memory window", windows.memory), ("prefetch. window", windows.prefetchable)]
            {
                match window {
                    Some(span) => fact(f, label, format_args!("{span}  {}", Size(span.size())))?,
                    None => fact(f, label, format_args!("closed"))?,
                }
            }
            Ok(())
        }
        other => {
            title(f, "function")?;
            fact(f, "header type", format_args!("{other:#04x}  neither endpoint nor bridge"))
        }
    }
}

fn bar_facts(f: &mut fmt::Formatter<'_>, bars: &[u32]) -> fmt::Result {
    let mut index = 0;
    while let Some(&low) = bars.get(index) {
        let high = bars.get(index + 1).copied().unwrap_or(0);
        let kind = match BarKind::decode(low) {
            Ok(kind) => kind,
            Err(error) => {
                fact(f, "bad bar", format_args!("{index}: {error}"))?;
                index += 1;
                continue;
            }
        };
        if low != 0 {
            let what = match kind {
                BarKind::Io => "I/O",
                BarKind::Memory32 { prefetchable: false } => "32-bit memory",
                BarKind::Memory32 { prefetchable: true } => "32-bit prefetchable memory",
                BarKind::Memory64 { prefetchable: false } => "64-bit memory",
                BarKind::Memory64 { prefetchable: true } => "64-bit prefetchable memory",
            };
            let address = kind.address(low, high);
            fact(f, "bar address", format_args!("{address:#018x}  bar {index}, {what}"))?;
        }
        index += usize::from(kind.registers());
    }
    Ok(())
}

/// Tenths of GT/s behind Link Status speed codes from 1 on.
const SPEEDS: [u16; 6] = [25, 50, 80, 160, 320, 640];

fn pcie(f: &mut fmt::Formatter<'_>, capability: &PcieCapability) -> fmt::Result {
    rows(f, &capability.rows())?;
    fact(
        f,
        "type",
        format_args!("{:#03x}  {}", capability.capabilities.port_type(), capability.port_type()),
    )?;
    let (link, port) = (capability.link_status, capability.port_number());
    if let Some(speed) = SPEEDS.get(usize::from(link.speed()).wrapping_sub(1)) {
        let (whole, tenth) = (speed / 10, speed % 10);
        fact(f, "link", format_args!("x{}, {whole}.{tenth} GT/s", link.width()))?;
    }
    fact(f, "port number", format_args!("{port:#04x}  port {port}"))
}

fn extended(
    f: &mut fmt::Formatter<'_>,
    reader: impl Fn(u16) -> u32 + Copy,
    found: ExtendedCapability,
) -> fmt::Result {
    let ExtendedCapability { offset, id, version } = found;
    let dvsec =
        if id == ExtendedCapabilityId::Dvsec { dvsec::identify(reader, offset) } else { None };
    match dvsec {
        None => writeln!(f, "extended capability {offset:#05x}: {id}, version {version}"),
        Some(Err(error)) => writeln!(f, "DVSEC {offset:#05x}: {error}"),
        Some(Ok(dvsec)) => {
            let Dvsec { id, revision, length, .. } = dvsec;
            writeln!(f, "DVSEC {offset:#05x}: {id}, revision {revision}, {length} bytes")?;
            body(f, reader, &dvsec)
        }
    }
}

/// A duration out of base and scale, in words.
struct Duration(u8, u8);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match microseconds(self.0, self.1) {
            Some(us) if us % 1000 == 0 => write!(f, "{} ms", us / 1000),
            Some(us) => write!(f, "{us} us"),
            None => f.write_str("reserved scale"),
        }
    }
}

fn body(
    f: &mut fmt::Formatter<'_>,
    reader: impl Fn(u16) -> u32 + Copy,
    dvsec: &Dvsec,
) -> fmt::Result {
    let at = dvsec.offset;
    dvsec.rows(reader).try_for_each(|row| writeln!(f, "{row}"))?;
    match dvsec.id {
        DvsecId::Device if dvsec.has(DeviceDvsec::EXTENT) => {
            let device = DeviceDvsec::read(reader, at);
            if device.capability.cxl_reset() {
                match device.capability.reset_timeout_ms() {
                    Some(ms) => fact(f, "reset timeout", format_args!("{ms} ms"))?,
                    None => fact(f, "reset timeout", format_args!("reserved"))?,
                }
            }
            for (number, registers) in (1..).zip(device.ranges()) {
                range(f, number, Range::decode(registers))?;
            }
            Ok(())
        }
        DvsecId::GpfPort if dvsec.has(GpfPortDvsec::EXTENT) => {
            let gpf = GpfPortDvsec::read(reader, at);
            let (one, two) = (gpf.phase1_control, gpf.phase2_control);
            let one = Duration(one.timeout_base(), one.timeout_scale());
            let two = Duration(two.timeout_base(), two.timeout_scale());
            fact(f, "phase 1 timeout", format_args!("{one}"))?;
            fact(f, "phase 2 timeout", format_args!("{two}"))
        }
        DvsecId::GpfDevice if dvsec.has(GpfDeviceDvsec::EXTENT) => {
            let gpf = GpfDeviceDvsec::read(reader, at);
            let time = gpf.phase2_duration;
            let time = Duration(time.time_base(), time.time_scale());
            fact(f, "phase 2 duration", format_args!("{time}"))?;
            fact(f, "phase 2 power", format_args!("{} mW", gpf.phase2_power.milliwatts()))
        }
        DvsecId::RegisterLocator => match Locations::new(dvsec, reader) {
            Ok(locations) => {
                locations.enumerate().try_for_each(|(entry, location)| match location {
                    Ok(found) => writeln!(
                        f,
                        "  entry {entry:<12}{:#018x}  bar {}, {}",
                        found.offset, found.bar, found.id
                    ),
                    Err(error) => writeln!(f, "  entry {entry:<12}{error}"),
                })
            }
            Err(error) => writeln!(f, "  {error}"),
        },
        _ => Ok(()),
    }
}

fn range<E: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    number: u8,
    range: Result<Range, E>,
) -> fmt::Result {
    let range = match range {
        Ok(range) => range,
        Err(error) => return writeln!(f, "  range {number:<12}{error}"),
    };
    writeln!(f, "  range {number} base      {:#018x}", range.base.0)?;
    writeln!(f, "  range {number} size      {:#018x}  {}", range.size, Size(range.size))?;
    write!(
        f,
        "  range {number} memory    {}, media {}, class {}",
        range.readiness, range.media, range.class
    )?;
    if let Some(seconds) = active_timeout_seconds(range.active_timeout) {
        write!(f, ", active within {seconds} s")?;
    }
    match range.desired_interleave {
        Some(granularity) => writeln!(f, ", wants interleave at {granularity}"),
        None => writeln!(f),
    }
}
