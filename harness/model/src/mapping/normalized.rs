//! Normalized addressing (the kernel's own convention cxl-atl): devices whose decoders hold addresses of the
//! device alone, below a bridge whose decoder holds host addresses.
//!
//! **Invariant**: nothing here makes a range direct. Which host address such a device's byte has, the
//! platform knows alone (its PRM); what follows from registers is a place in the set, and no proof.

use cxl_regs::{Component, Decoder, Hpa, Interleave, Levels, Selector, Span, Ways};

use super::walk::{self, Below};
use super::{Reason, placed, usable};
use crate::fabric::{Fabric, Parent};

/// Where a host address comes to below the bridge, by the levels above the device alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The device, an index into [`Fabric::devices`].
    pub device: usize,
    /// The interleave that the levels above it make.
    pub set: Interleave,
    /// The device's own offset in what its decoder maps.
    pub offset: u64,
}

/// The decoder of a device that holds device addresses: it starts where its own memory does, in no window,
/// below a bridge that has a multiple of its size in one.
pub fn normalized(fabric: &Fabric, device: usize) -> Option<(u8, Decoder)> {
    let given = fabric.devices.get(device)?;
    let bridge = fabric.bridges.get(bridge_above(fabric, given.port)?)?.hdm.as_ref()?;
    let in_window = |span: Span| {
        let mut windows = fabric.windows.iter().filter_map(placed);
        windows.any(|window| window.contains(span.base()) && window.contains(span.last()))
    };
    let above: Vec<Span> = bridge
        .decoders
        .iter()
        .filter(|image| image.control().committed())
        .filter_map(|image| Decoder::decode(image, Component::HostBridge, bridge.capability()).ok())
        .map(|decoder| decoder.span)
        .filter(|span| in_window(*span))
        .collect();
    let own = walk::device_decoders(given.hdm.as_ref()?).filter_map(Result::ok);
    let mut own = own.filter(|(_, decoder, dpa)| {
        let span = decoder.span;
        decoder.interleave.ways == Ways::One
            && span.base().0 == dpa.0
            && !in_window(span)
            && above.iter().any(|above| above.size().is_multiple_of(span.size()))
    });
    own.next().map(|(index, decoder, _)| (index, decoder))
}

/// The better reason for what a device's decoders make of a part of a window, if they hold device addresses.
pub(super) fn reason(fabric: &Fabric, device: usize) -> Option<Reason> {
    normalized(fabric, device).map(|(decoder, _)| Reason::Normalized { device, decoder })
}

/// The device's own offset behind a host address, if its decoder holds device addresses and the set is one
/// that the levels above it fill.
pub fn offset(fabric: &Fabric, hpa: Hpa) -> Option<Offset> {
    let has = |window: &&crate::fabric::Window| placed(window).is_some_and(|it| it.contains(hpa));
    let window = fabric.windows.iter().find(has)?;
    let byte = Span::new(hpa, 1).ok()?;
    let root_way = usable(fabric, window).ok()?.position(hpa);
    let uid = *window.targets.get(root_way as usize)?;
    let mut parent = walk::bridge(fabric, root_way, uid).ok()?;
    let mut levels =
        Levels { root: window.interleave, bridge: Interleave::NONE, switch: Interleave::NONE };
    let mut span = None;
    // A port has one parent and a switch one port, so no switch can come twice.
    for _ in 0..=fabric.switches.len() {
        let routing = walk::routing(fabric, parent, byte).ok()?;
        let level = routing.interleave();
        match parent {
            _ if level.ways == Ways::One => {}
            Parent::Bridge(_) => levels.bridge = level,
            Parent::Switch(_) if levels.switch.ways == Ways::One => levels.switch = level,
            Parent::Switch(_) => return None,
        }
        span = span.or(routing.decoder.map(|(_, decoder)| decoder.span));
        let way = Selector::modulo(level).position(hpa);
        let port = (*routing.ports.get(way as usize)?).ok()?;
        match walk::behind(fabric, port).ok()? {
            Below::Switch(switch) => parent = Parent::Switch(switch),
            Below::Device(device) => {
                let (_, own) = normalized(fabric, device)?;
                let (set, span) = (levels.device().ok()?, span?);
                let whole = own.span.size().checked_mul(set.ways.count().into())?;
                let inside = hpa.0.checked_sub(span.base().0).filter(|_| whole == span.size())?;
                return Some(Offset { device, set, offset: set.dpa_offset(inside) });
            }
        }
    }
    None
}

/// The host bridge above a port.
fn bridge_above(fabric: &Fabric, mut port: usize) -> Option<usize> {
    for _ in 0..=fabric.switches.len() {
        match fabric.ports.get(port)?.parent {
            Parent::Bridge(bridge) => return Some(bridge),
            Parent::Switch(switch) => port = fabric.switches.get(switch)?.port,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use cxl_regs::Dpa;
    use cxl_regs::acpi::cedt::Restrictions;
    use cxl_regs::hdm::{Capability, Control, DecoderImage};
    use cxl_regs::{Arithmetic, Granularity};

    use super::super::{Mapping, Reach, ReasonText, addresses, mappings, proven, resolve};
    use super::*;
    use crate::fabric::{Bridge, Device, DeviceDvsec, HdmImage, Port, Window};

    const GIB: u64 = 1 << 30;
    const WINDOW: u64 = 0x8_5000_0000;

    fn hdm(image: DecoderImage, ways: u8) -> HdmImage {
        let capability = Capability::new()
            .with_decoder_count(1)
            .with_target_count(8)
            .with_interleave_11_8(true)
            .with_interleave_14_12(true);
        let control = Control::new()
            .with_ways(ways)
            .with_commit(true)
            .with_committed(true)
            .with_host_only(true);
        HdmImage {
            capability: capability.into_bits(),
            global_control: 2,
            decoders: vec![image.with_control(control)],
        }
    }

    /// A window of 512 GiB, a bridge that deals it to four ports at 256 B, and four devices whose decoders
    /// hold `base` to 128 GiB further.
    fn fabric(window: u64, base: u64) -> Fabric {
        let above = DecoderImage::default()
            .with_base(window)
            .with_size(512 * GIB)
            .with_targets([0, 1, 2, 3, 0, 0, 0, 0]);
        let own = DecoderImage::default().with_base(base).with_size(128 * GIB);
        let port = |number: u8| Port {
            name: format!("port{number}"),
            parent: Parent::Bridge(0),
            number,
            back_invalidate: true,
        };
        let device = |port: usize| Device {
            name: format!("mem{port}"),
            port,
            present: true,
            hdm: Some(hdm(own, 0)),
            dvsec: Some(DeviceDvsec { capability: 0x001E_0000, control: 6 }),
            back_invalidate: true,
            volatile: 128 * GIB,
            persistent: 0,
        };
        Fabric {
            physical_bits: 52,
            windows: vec![Window {
                name: "window0".to_owned(),
                base: Some(Hpa(window)),
                size: 512 * GIB,
                targets: vec![7],
                interleave: Interleave { ways: Ways::One, granularity: Granularity::B256 },
                arithmetic: Arithmetic::Modulo,
                xor_maps: vec![],
                restrictions: Restrictions::new().with_host_only(true).with_volatile(true),
            }],
            bridges: vec![Bridge { name: "hb0".to_owned(), uid: 7, hdm: Some(hdm(above, 2)) }],
            ports: (0..4).map(port).collect(),
            switches: vec![],
            devices: (0..4).map(device).collect(),
        }
    }

    #[test]
    fn no_device_address_is_proven_where_decoders_hold_device_addresses() {
        let of = |device| Reason::Normalized { device, decoder: 0 };
        // The devices' own range has a part of the first window, and nothing of the second.
        for window in [WINDOW, 0x60_0000_0000] {
            let fabric = fabric(window, 0);
            for (hpa, device, own) in
                [(0, 0, 0), (0x100, 1, 0), (0x3C0, 3, 0xC0), (0x500, 1, 0x100)]
            {
                let hpa = Hpa(window + hpa);
                assert!(matches!(proven(&fabric, hpa), Err(Reason::Normalized { .. })), "{hpa}");
                let set = Interleave { ways: Ways::Four, granularity: Granularity::B256 };
                assert_eq!(offset(&fabric, hpa), Some(Offset { device, set, offset: own }));
            }
            let all = mappings(&fabric);
            let [Mapping { how: Reach::Trapped { reason }, size, .. }] = all.as_slice() else {
                panic!("{all:?}");
            };
            assert_eq!((*reason, *size), (of(0), 512 * GIB));
            // The way back gives none either that is proven.
            for dpa in [0, WINDOW + 0x100] {
                let found = addresses(&fabric, 1, Dpa(dpa));
                assert!(found.iter().all(|hpa| proven(&fabric, *hpa).is_err()), "{found:?}");
            }
            let text = ReasonText(&fabric, of(1)).to_string();
            assert!(
                text.starts_with("mem1 decoder 0 holds addresses of the device alone"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_no_platform_translates_is_not_taken_for_normalized() {
        // A decoder in the window, and one that is not where its memory begins.
        for base in [WINDOW, 0x70_0000_0000, GIB] {
            assert_eq!(normalized(&fabric(WINDOW, base), 0), None, "{base:#x}");
        }
        // A bridge without a range of that size.
        let mut odd = fabric(WINDOW, 0);
        let image = &mut odd.bridges[0].hdm.as_mut().expect("decoders").decoders[0];
        *image = image.with_size(512 * GIB - (256 << 20));
        assert_eq!(normalized(&odd, 0), None);
        assert_eq!(offset(&odd, Hpa(WINDOW)), None);
    }

    #[test]
    fn an_address_is_proven_where_its_range_is_direct() {
        let mut fabric = fabric(WINDOW, WINDOW);
        for device in &mut fabric.devices {
            let control = Control::new()
                .with_ways(2)
                .with_commit(true)
                .with_committed(true)
                .with_host_only(true);
            let image = &mut device.hdm.as_mut().expect("decoders").decoders[0];
            *image = image.with_size(512 * GIB).with_control(control);
        }
        let hpa = Hpa(WINDOW + 0x500);
        let path = proven(&fabric, hpa).expect("a set");
        assert_eq!((path.endpoint.device, path.dpa), (1, Dpa(0x100)));
        assert_eq!(resolve(&fabric, hpa), Ok(path));
        // Another member that does not fit leaves the walk, and takes the proof.
        let image = &mut fabric.devices[3].hdm.as_mut().expect("decoders").decoders[0];
        *image = image.with_size(256 * GIB);
        assert!(resolve(&fabric, hpa).is_ok() && proven(&fabric, hpa).is_err());
    }
}
