//! The report on the console: one fact a line, its topic in front.
//!
//! **Invariant**: decoders and regions are told as they were read back, never as they were planned;
//! what the verifier found is told by itself, whatever else is said; and what is unused is told
//! last.

use core::fmt::{self, Formatter, Write};

use cxl_firmware::committed::{CommittedDecoder, CommittedRegion, Place, Probed};
use cxl_firmware::handoff::TableLocation;
use cxl_firmware::plan::{Note, Why};
use cxl_firmware::platform::{BridgeKind, Platform};
use cxl_firmware::policy::Probe;
use cxl_firmware::topology::{NodeId, NodeKind, Partition, Tree};
use cxl_firmware::{Code, Error};
use cxl_regs::Size;
use cxl_regs::access::Component;
use cxl_regs::decoder::Route;

use crate::{Room, say};

/// What ACPI says there is.
pub fn platform(out: &mut dyn Write, platform: &Platform<'_>) {
    let bits = platform.address_bits;
    for bridge in platform.bridges {
        let what = match bridge.kind {
            BridgeKind::ComponentRegisters => "component registers",
            BridgeKind::Rcrb => "CXL 1.1 host, RCRB",
        };
        say(out, format_args!("bridge {}: {what} at {}", bridge.uid, bridge.registers));
    }
    for window in platform.windows {
        let targets = fmt::from_fn(|f| list(f, window.targets.iter()));
        match platform.span_of(window) {
            Some(span) => {
                say(out, format_args!("window {span}: {}, bridges {targets}", window.interleave));
            }
            None => say(
                out,
                format_args!(
                    "window of {} without a place in {bits} address bits: bridges {targets}",
                    Size(window.size)
                ),
            ),
        }
    }
}

/// How far each decoder came, and what was said before that.
pub fn fates(out: &mut dyn Write, room: &Room) {
    let tree = room.topology.tree();
    for entry in &room.committed.decoders {
        say(
            out,
            format_args!("{}, decoder {}: {}", tree.path(entry.node), entry.index, entry.fate),
        );
    }
    told(out, room);
}

/// What a best effort had to give up: each error once, however many components it cost.
pub fn lost(out: &mut dyn Write, room: &Room) {
    let all = || {
        let faults = room.topology.nodes.iter().filter_map(|node| node.fault.as_ref());
        let faults = faults.filter(|fault| fault.is_failure());
        room.topology.remarks.losses().chain(faults)
    };
    for (index, error) in all().enumerate() {
        if !all().take(index).any(|told| told == error) {
            say(out, format_args!("lost: {error}"));
        }
    }
    let tree = room.topology.tree();
    for note in room.plan.notes.iter().filter(|note| is_loss(note)) {
        say(out, format_args!("lost: {}", note.text(tree)));
    }
}

/// Whether a note of the plan is about memory, or a set, that was wanted and has no place.
fn is_loss(note: &Note) -> bool {
    matches!(
        note,
        Note::Unused { why: Why::Refused { .. } | Why::Failed, .. } | Note::SetWithoutPlace { .. }
    )
}

/// So many of something: `1 region`, `2 regions`.
pub fn counted(number: u64, what: &str) -> impl fmt::Display {
    let ending = if number == 1 { "" } else { "s" };
    fmt::from_fn(move |f| write!(f, "{number} {what}{ending}"))
}

/// Devices, regions and decoders, and the verifier's result.
pub fn result(out: &mut dyn Write, room: &Room) {
    let tree = room.topology.tree();
    for (id, device) in tree.devices() {
        let at = at(tree, id);
        let sizes = [Partition::Volatile, Partition::Persistent]
            .map(|partition| Size(device.capacity(partition)));
        let [volatile, persistent] = sizes;
        say(out, format_args!("{at}: {volatile} volatile, {persistent} persistent"));
    }
    for found in &room.committed.regions {
        region(out, found);
    }
    for entry in &room.committed.decoders {
        decoder(out, tree, entry);
    }
}

/// A region.
pub fn region(out: &mut dyn Write, region: &CommittedRegion) {
    let &CommittedRegion { span, partition, interleave, locked, .. } = region;
    let (size, locked) = (Size(span.size()), if locked { "locked" } else { "not locked" });
    say(out, format_args!("region {span}: {size} of {partition} memory, {interleave}, {locked}"));
}

/// The verifier's result.
pub fn verifier(out: &mut dyn Write, room: &Room) {
    let findings = &room.findings;
    let failures = findings.list().iter().filter(|finding| finding.is_failure()).count();
    let committed = room.committed.decoders.iter().filter(|entry| entry.committed());
    let locked = committed.clone().filter(|entry| entry.locked()).count();
    let (all, regions) = (committed.count(), room.committed.regions.len());
    let verdict = if failures == 0 { "ok" } else { "FAILED" };
    say(
        out,
        format_args!(
            "verifier: {verdict}, {}, {locked} of {} locked",
            counted(regions as u64, "region"),
            counted(all as u64, "committed decoder")
        ),
    );
    for finding in findings.list() {
        let kind = if finding.is_failure() { "found" } else { "note" };
        say(out, format_args!("{kind}: {finding}"));
    }
}

/// What the memory itself was asked.
pub fn probed(out: &mut dyn Write, room: &Room, wanted: Probe, as_found: bool) {
    let count = |probed| room.committed.regions.iter().filter(|r| r.probed == probed).count();
    let (all, held, read) =
        (room.committed.regions.len(), count(Probed::Held), count(Probed::Read));
    if held > 0 {
        say(
            out,
            format_args!(
                "probe: memory answers at both ends of every way in {held} of {}",
                counted(all as u64, "region")
            ),
        );
    }
    if read > 0 {
        say(
            out,
            format_args!(
                "probe: {read} of {}: persistent, and read and not written to",
                counted(all as u64, "region")
            ),
        );
    }
    if count(Probed::No) > 0 {
        let why = match wanted {
            _ if as_found => "what is found is not written to",
            Probe::Skip => "no-probe",
            Probe::All | Probe::Below(_) => "the processor does not reach them",
        };
        say(
            out,
            format_args!(
                "probe: {} of {} not probed ({why}): that there is memory is what registers say",
                count(Probed::No),
                counted(all as u64, "region")
            ),
        );
    }
}

/// The regions whose memory does not answer, but the one that ends the run with its error.
pub fn unanswered(out: &mut dyn Write, room: &Room, ends: Error) {
    for error in room.probe.list().iter().filter(|error| ends != **error) {
        say(out, format_args!("probe: {error}"));
    }
    if room.probe.more() > 0 {
        say(out, format_args!("probe: and {} more", room.probe.more()));
    }
}

/// What is unused and why: the end of every report.
pub fn unused(out: &mut dyn Write, room: &Room) {
    let findings = room.findings.list().iter();
    let unused = findings.filter(|finding| finding.code == Code::VERIFY_UNUSED).count();
    if told(out, room) + unused == 0 {
        say(out, format_args!("unused: nothing of what was found"));
    }
}

/// Tells what discovery passed over, what spoke against each window where a region has no place,
/// and what the plan leaves; how much that was. The verifier tells of pass-through bridges.
fn told(out: &mut dyn Write, room: &Room) -> usize {
    let (tree, remarks, refusals) =
        (room.topology.tree(), &room.topology.remarks, &room.plan.refusals);
    let lost = |remark: &&Error| remarks.losses().any(|loss| loss == *remark);
    for remark in remarks.list().iter().filter(|remark| !lost(remark)) {
        say(out, format_args!("note: {remark}"));
    }
    for refused in refusals.list() {
        say(out, format_args!("note: {refused}"));
    }
    let missing = |at| Code::PLAN_UNKNOWN_DEVICE.at(at);
    let notes = room.plan.notes.iter().filter(|note| match note {
        Note::PassThrough { .. } => false,
        // That is said as a loss.
        Note::NoSuchDevice { at } => !lost(&&missing(at)),
        note => !is_loss(note),
    });
    for note in notes.clone() {
        say(out, format_args!("note: {}", note.text(tree)));
    }
    let more = u32::from(refusals.more()) + u32::from(remarks.more()) + room.findings.more();
    if more > 0 {
        say(out, format_args!("note: and {more} more"));
    }
    remarks.list().len() + notes.count()
}

/// Where the next stage finds what was made for it.
pub fn handed(out: &mut dyn Write, record: &[u8], table: Option<TableLocation>) {
    if let Some(TableLocation { address, size }) = table {
        say(out, format_args!("table: CEDT of {size} bytes at {address:#x}, in the root table"));
    }
    let address = record.as_ptr() as u64;
    say(out, format_args!("handoff: record of {} bytes at {address:#x}", record.len()));
}

/// A component by kind and place.
pub fn at(tree: Tree<'_>, id: NodeId) -> impl fmt::Display {
    let path = tree.path(id);
    let kind = match tree.get(id).map(|node| node.kind) {
        Some(NodeKind::RootPort) => " root port",
        Some(NodeKind::UpstreamPort) => " upstream port",
        Some(NodeKind::DownstreamPort) => " downstream port",
        Some(NodeKind::Device(_)) => " device",
        Some(NodeKind::HostBridge { .. }) | None => "",
    };
    fmt::from_fn(move |f| write!(f, "{path}{kind}"))
}

fn decoder(out: &mut dyn Write, tree: Tree<'_>, entry: &CommittedDecoder) {
    let component = tree.get(entry.node).and_then(|node| node.component());
    let component = component.unwrap_or(Component::Device);
    let place = Place { at: tree.path(entry.node), component, index: entry.index };
    let state = match (entry.committed(), entry.locked()) {
        (true, true) => "committed, locked",
        (true, false) => "committed, NOT locked",
        (false, _) => "not committed",
    };
    let Some(decoder) = &entry.decoder else {
        let (base, size) = (entry.image.base(), entry.image.size());
        return say(out, format_args!("{place}: base {base:#x} size {size:#x}, {state}"));
    };
    let (span, interleave) = (decoder.span, decoder.interleave);
    let ways = interleave.ways;
    let route = fmt::from_fn(|f| match &decoder.route {
        Route::Skip(skip) => write!(f, "DPA skip {skip:#x}"),
        Route::Targets(targets) => {
            f.write_str("to ports ")?;
            list(f, targets.used(ways).iter())
        }
    });
    say(out, format_args!("{place}: {span} {interleave}, {route}, {state}"));
}

fn list<T: fmt::Display>(f: &mut Formatter<'_>, items: impl Iterator<Item = T>) -> fmt::Result {
    for (index, item) in items.enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { "," })?;
    }
    Ok(())
}
