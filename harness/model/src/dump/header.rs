//! Whether bytes of unknown origin are the configuration space of a function.
//!
//! Configuration space has no signature: any 256 or 4096 bytes would be some function. What no function
//! has tells the others apart.
//!
//! **Invariant**: only fields that every revision of PCI holds to a few values are looked at; a function
//! that Linux would take for one is taken for one here.

use cxl_regs::block;
use cxl_regs::config::{
    BarKind, CONFIG_SIZE, CONVENTIONAL_SIZE, Capabilities, CapabilityId, HeaderType, Status,
};

/// Reserved in the Command register (PCIe Base 6.x section 7.5.1.1.3).
const COMMAND_RESERVED: u32 = 0xF800;
/// Reserved in the Status register (section 7.5.1.1.4); the two bits of DEVSEL timing are never both set.
const STATUS_RESERVED: u32 = 0x0006;
const DEVSEL: u32 = 0x0600;
/// Base classes: the last that is assigned in order, coprocessors, and what fits no other.
const LAST_CLASS: u8 = 0x13;
const COPROCESSOR: u8 = 0x40;
const UNASSIGNED: u8 = 0xFF;
const BRIDGE: u8 = 0x06;
/// The most capabilities that the space behind the header has room for.
const MOST_CAPABILITIES: usize = (CONVENTIONAL_SIZE as usize - 0x40) / 4;

/// Whether all bytes are what is read where nothing answers.
pub(super) fn is_silent(space: &[u8]) -> bool {
    [0, 0xFF].iter().any(|silence| space.iter().all(|byte| byte == silence))
}

/// Whether they are a function's.
pub(super) fn is_plausible(space: &[u8]) -> bool {
    let dword = block::image(space);
    let kind: HeaderType = block::read(dword, 0);
    let registers = match kind.layout() {
        0 => 6,
        1 => 2,
        _ => return false,
    };
    let (command, status) = (dword(4) & 0xFFFF, dword(4) >> 16);
    let [_revision, _interface, subclass, class] = dword(8).to_le_bytes();
    let [.., test] = dword(12).to_le_bytes();
    let named = !matches!(dword(0) & 0xFFFF, 0 | 0xFFFF);
    let reserved = command & COMMAND_RESERVED != 0
        || status & STATUS_RESERVED != 0
        || status & DEVSEL == DEVSEL
        // Without the bit that says there is a self-test, the byte is 0.
        || test & 0x80 == 0 && test != 0;
    let classed = match class {
        // Made before classes were: it fits no other, is a VGA card, or one of Virtio's.
        0 => matches!(subclass, 0 | 1 | 0xFF),
        _ => class <= LAST_CLASS || matches!(class, COPROCESSOR | UNASSIGNED),
    };
    let bridges = kind.layout() == 0 || class == BRIDGE;
    named && !reserved && classed && bridges && bars(space, registers) && listed(space, class)
}

/// Whether the base address registers are of types that there are.
fn bars(space: &[u8], count: u16) -> bool {
    let dword = block::image(space);
    let mut at = 0;
    while at < count {
        let register = dword(0x10 + 4 * at);
        match BarKind::decode(register) {
            // Bit 1 of one for ports is reserved.
            Ok(BarKind::Io) if register & 2 != 0 => return false,
            Ok(kind) => at += u16::from(kind.registers()),
            Err(_) => return false,
        }
    }
    true
}

/// Whether the capabilities lie where capabilities do. Only PCI Express has more than 256 bytes; a host
/// bridge, which is on no bus, has them without saying so.
fn listed(space: &[u8], class: u8) -> bool {
    let dword = block::image(space);
    let status: Status = block::read(dword, 0);
    let mut express = false;
    if status.capability_list() && space.len() >= CONVENTIONAL_SIZE.into() {
        for found in Capabilities::new(dword).take(MOST_CAPABILITIES) {
            let Ok(found) = found else { return false };
            express |= found.id == CapabilityId::PciExpress;
        }
    }
    express || space.len() < CONFIG_SIZE.into() || class == BRIDGE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function of 256 bytes with one capability, of PCI Express.
    fn function() -> [u8; 256] {
        let mut space = [0; 256];
        let start = [0x86, 0x80, 0x93, 0x0D, 0x06, 0x04, 0x10, 0x00, 0x01, 0x10, 0x02, 0x05];
        space[..12].copy_from_slice(&start);
        space[0x10] = 0x0C;
        space[0x34] = 0x40;
        space[0x40] = 0x10;
        space
    }

    /// A name, bytes that differ, and whether it is a function.
    type Case = (&'static str, &'static [(usize, u8)], bool);

    #[test]
    fn functions_are_told_from_what_is_none_by_what_no_function_has() {
        let cases: [Case; 22] = [
            ("a memory device", &[], true),
            ("one whose self-test runs", &[(0x0F, 0xC0)], true),
            ("one of several", &[(0x0E, 0x80)], true),
            ("a bridge", &[(0x0E, 0x01), (0x0B, 0x06), (0x0A, 0x04)], true),
            ("one without capabilities", &[(0x06, 0), (0x34, 0xFF)], true),
            ("one of Virtio's", &[(0x0B, 0x00), (0x0A, 0xFF)], true),
            ("ports", &[(0x10, 0x01), (0x11, 0xC0)], true),
            ("high half of an address", &[(0x14, 0x03)], true),
            ("no vendor", &[(0, 0), (1, 0)], false),
            ("nobody answers", &[(0, 0xFF), (1, 0xFF)], false),
            ("header type", &[(0x0E, 2)], false),
            ("command", &[(0x05, 0x08)], false),
            ("status", &[(0x06, 0x12)], false),
            ("timing", &[(0x07, 0x06)], false),
            ("class", &[(0x0B, 0x14)], false),
            ("class of old", &[(0x0B, 0), (0x0A, 2)], false),
            ("a bridge that is none", &[(0x0E, 1)], false),
            ("self-test", &[(0x0F, 0x05)], false),
            ("type of memory", &[(0x10, 0x06)], false),
            ("ports of memory", &[(0x10, 0x03)], false),
            ("pointer into the header", &[(0x34, 0x10)], false),
            ("a ring of capabilities", &[(0x41, 0x40)], false),
        ];
        for (name, changes, expected) in cases {
            let mut space = function();
            for &(at, byte) in changes {
                space[at] = byte;
            }
            assert_eq!(is_plausible(&space), expected, "{name}");
        }
    }

    #[test]
    fn more_than_256_bytes_are_of_pci_express_or_of_a_host_bridge() {
        let mut space = [0; 4096];
        space[..256].copy_from_slice(&function());
        assert!(is_plausible(&space));
        space[0x40] = 0x05;
        assert!(!is_plausible(&space));
        space[0x0A..0x0C].copy_from_slice(&[0x00, 0x06]);
        assert!(is_plausible(&space));
    }
}
