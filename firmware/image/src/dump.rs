//! The word `dump`: record, table and registers as text, so that a serial console is all that
//! somebody needs to judge a run by himself.
//!
//! ```text
//! dump begin KIND ADDRESS LENGTH [COMPONENT UID [PORT.PORT...]]
//! dump OFFSET: BYTES
//! dump end KIND
//! ```
//!
//! KIND is `handoff`, `cedt`, `hdm` (a component's whole HDM decoder structure) or `dvsec` (a
//! device's CXL Device DVSEC); the last two name their component: `host-bridge`, `upstream-port` or
//! `device`, the UID of its host bridge and the port numbers on the way. Numbers are hexadecimal
//! with `0x`, but for UID and ports, which are decimal. A line holds up to 32 bytes as pairs of
//! digits without gaps, in order of address.
//!
//! **Invariant**: a section has as many bytes as it says, without a gap; registers are read when
//! they are printed.

use core::fmt::{self, Display, Write};

use cxl_firmware::mmio::{Block, Mmio};
use cxl_firmware::topology::{NodeId, Tree};
use cxl_regs::access::Component;
use cxl_regs::dvsec::DvsecHeader1;
use cxl_regs::hdm;

use crate::say;

const LINE: usize = 32;

/// Prints everything there is.
pub fn all(
    out: &mut dyn Write,
    hw: &mut impl Mmio,
    tree: Tree<'_>,
    record: &[u8],
    table: Option<&[u8]>,
) {
    memory(out, "handoff", record);
    if let Some(table) = table {
        memory(out, "cedt", table);
    }
    for (id, node) in tree.iter() {
        if let Some(hdm) = node.hdm {
            let length = hdm::structure_length(hdm.decoders);
            registers(out, hw, "hdm", hdm.block, length, component(tree, id));
        }
        if let Some(device) = node.device() {
            let header: DvsecHeader1 = device.dvsec.read(hw);
            registers(out, hw, "dvsec", device.dvsec, header.length(), component(tree, id));
        }
    }
}

fn memory(out: &mut dyn Write, kind: &str, bytes: &[u8]) {
    begin(out, kind, bytes.as_ptr() as u64, bytes.len(), "");
    for (index, chunk) in bytes.chunks(LINE).enumerate() {
        line(out, index, chunk);
    }
    end(out, kind);
}

fn registers(
    out: &mut dyn Write,
    hw: &mut impl Mmio,
    kind: &str,
    block: Block,
    length: u16,
    place: impl Display,
) {
    begin(out, kind, block.0, length.into(), place);
    for (index, first) in (0..length).step_by(LINE).enumerate() {
        let mut bytes = [0; LINE];
        let count = usize::from(length - first).min(LINE);
        let dwords = bytes.chunks_exact_mut(4).take(count.div_ceil(4));
        for (offset, dword) in (first..).step_by(4).zip(dwords) {
            dword.copy_from_slice(&hw.read(block.0 + u64::from(offset)).to_le_bytes());
        }
        line(out, index, bytes.get(..count).unwrap_or(&bytes));
    }
    end(out, kind);
}

fn begin(out: &mut dyn Write, kind: &str, address: u64, length: usize, place: impl Display) {
    say(out, format_args!("dump begin {kind} {address:#x} {length:#x}{place}"));
}

fn line(out: &mut dyn Write, index: usize, bytes: &[u8]) {
    let hex = fmt::from_fn(|f| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")));
    say(out, format_args!("dump {:#06x}: {hex}", LINE * index));
}

fn end(out: &mut dyn Write, kind: &str) {
    say(out, format_args!("dump end {kind}"));
}

fn component(tree: Tree<'_>, id: NodeId) -> impl Display {
    let path = tree.path(id);
    let name = match tree.get(id).and_then(|node| node.component()) {
        Some(Component::HostBridge) => "host-bridge",
        Some(Component::UpstreamPort) => "upstream-port",
        Some(Component::Device) | None => "device",
    };
    fmt::from_fn(move |f| {
        write!(f, " {name} {}", path.uid())?;
        for (index, port) in path.ports().iter().enumerate() {
            write!(f, "{}{port}", if index == 0 { " " } else { "." })?;
        }
        Ok(())
    })
}
