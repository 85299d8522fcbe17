//! Where an address leads, and the way back: by granules of each interleaved range, and by arithmetic
//! that the page does for any address.
//!
//! **Invariant**: what stands in the page without its script was worked out by the registers' own
//! decode; the script's arithmetic is held against that by a test in a browser.

use maud::{Markup, html};

use super::tables::framed;
use crate::report::Seen;
use crate::svg::mark;
use crate::terminal::{harmless, harmless_json};
use cxl_model::fabric::Fabric;
use cxl_model::mapping::{Direct, Mapping, Reach, ReasonText};
use cxl_regs::{Hpa, Size};

/// Ranges that a page has granules of, and that its arithmetic knows.
const MOST_GRIDS: usize = 12;
const MOST_RANGES: usize = 512;
/// Granules in a row.
const IN_A_ROW: u64 = 8;
/// Granules of a range: some rounds, so that the order is seen to come again, or not to.
const MOST_GRANULES: u64 = 64;

/// `None` where no address leads to memory.
pub(super) fn section(seen: &Seen) -> Option<Markup> {
    let Seen { fabric, mappings: all, .. } = seen;
    let direct: Vec<(&Mapping, &Direct)> = all
        .iter()
        .filter_map(|mapping| match &mapping.how {
            Reach::Direct(direct) => Some((mapping, direct)),
            Reach::Trapped { .. } => None,
        })
        .take(MOST_RANGES)
        .collect();
    let (first, _) = direct.first()?;
    let name = |index: usize| fabric.devices.get(index).map_or("?", |device| device.name.as_str());
    let known = serde_json::json!({
        "ranges": direct.iter().map(|(mapping, direct)| range(fabric, mapping, direct)).collect::<Vec<_>>(),
        "nowhere": all.iter().filter_map(|mapping| match &mapping.how {
            Reach::Trapped { reason } if mapping.span().is_some() => Some(serde_json::json!({
                "hpa": hex(mapping.hpa.0),
                "size": hex(mapping.size),
                "why": harmless(&ReasonText(fabric, *reason).to_string()),
            })),
            _ => None,
        }).take(MOST_RANGES).collect::<Vec<_>>(),
    });
    let mut devices: Vec<usize> =
        direct.iter().flat_map(|(_, direct)| &direct.members).map(|member| member.device).collect();
    devices.sort_unstable();
    devices.dedup();
    let start = hex(first.hpa.0);
    let interleaved: Vec<_> =
        direct.iter().filter(|(_, direct)| direct.members.len() > 1).collect();
    Some(html! {
        p { "HPA is the address that the processor uses; DPA is the device's own. Type either, or go over the \
             granules below: the arithmetic of the decoders is done in front of you." }
        div #decode data-known=(harmless_json(&known.to_string())) {
            form #forwards autocomplete="off" {
                label for="hpa" { "Address (HPA)" }
                input #hpa name="hpa" type="text" spellcheck="false" value=(start) aria-describedby="forwards-out";
                output #forwards-out for="hpa" aria-live="polite" {}
            }
            form #backwards autocomplete="off" {
                label for="device" { "Device" }
                select #device name="device" {
                    @for device in &devices { option { (name(*device)) } }
                }
                label for="dpa" { "its own address (DPA)" }
                input #dpa name="dpa" type="text" spellcheck="false" value="0x0" aria-describedby="backwards-out";
                output #backwards-out for="device dpa" aria-live="polite" {}
            }
        }
        noscript { p { "Without its script this page shows granules, and does no arithmetic." } }
        @for (mapping, direct) in interleaved.iter().take(MOST_GRIDS) { (grid(fabric, mapping, direct)) }
        @if interleaved.len() > MOST_GRIDS {
            p { "and " (interleaved.len() - MOST_GRIDS) " more interleaved ranges, which the fields above know" }
        }
    })
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// A range, as the page's arithmetic takes it.
fn range(fabric: &Fabric, mapping: &Mapping, direct: &Direct) -> serde_json::Value {
    let set = direct.interleave();
    let bits = set.ways.selector_bits();
    let members = direct.members.iter().map(|member| {
        let device = fabric.devices.get(member.device);
        serde_json::json!({
            // As it is shown: by this name the page finds it.
            "device": harmless(device.map_or("?", |device| &device.name)),
            "decoder": member.decoder,
            "dpa": hex(member.dpa.0),
            "volatile": hex(device.map_or(0, |device| device.volatile)),
        })
    });
    serde_json::json!({
        "hpa": hex(mapping.hpa.0),
        "size": hex(mapping.size),
        "base": hex(direct.base.0),
        "shift": set.granularity.shift(),
        "bits": bits,
        "three": set.ways.has_three(),
        "maps": direct.selector.maps().iter().take(bits as usize).map(|map| hex(*map)).collect::<Vec<_>>(),
        "members": members.collect::<Vec<_>>(),
    })
}

/// The first granules of a range.
fn grid(fabric: &Fabric, mapping: &Mapping, direct: &Direct) -> Markup {
    let set = direct.interleave();
    let (ways, granule) = (u64::from(set.ways.count()), set.granularity.bytes());
    // A row is a round, or half of one where that is too wide.
    let columns = match ways {
        ways if ways > IN_A_ROW => ways / 2,
        2 => 4,
        ways => ways,
    };
    let granules = (4 * ways).clamp(4 * columns, MOST_GRANULES).min(mapping.size / granule);
    let row = columns * granule;
    let mut rows: Vec<u64> = (0..granules.div_ceil(columns)).map(|number| number * row).collect();
    // Where a bit that an XOR map has beside its own is set for the first time, the order is another.
    let folded = direct.selector.maps().into_iter().take(set.ways.selector_bits() as usize);
    let folded: Vec<u64> =
        folded.map(|map| map & map.wrapping_sub(1)).filter(|bits| *bits != 0).collect();
    let jumps = folded.iter().map(|bits| 1u64 << bits.trailing_zeros());
    let both: u64 = jumps.clone().fold(0, |all, bit| all | bit);
    for offset in jumps.chain([both]) {
        let offset = offset - offset % row;
        if offset < mapping.size && !rows.contains(&offset) {
            rows.push(offset);
        }
    }
    let name = |index: usize| fabric.devices.get(index).map_or("?", |device| device.name.as_str());
    let label = format!("Granules from {:#x}: {}", mapping.hpa.0, set);
    html! {
        h3 { (label) }
        (framed(&label, html! {
            table.granules role="grid" aria-label=(label) data-hpa=(hex(mapping.hpa.0)) data-granule=(granule) {
                caption {
                    "The first " (granules) " granules of " (Size(mapping.size)) ", " (Size(granule)) " each"
                    @if folded.is_empty() { "; the order goes on like this" }
                    @else { ", and rows further on, where XOR changes the order" }
                    ". A cell is a granule: its device, and the device's own address of its first byte."
                }
                thead { tr {
                    th scope="col" { "From" }
                    @for column in 0..columns { th scope="col" { "+" (format!("{:#x}", column * granule)) } }
                } }
                tbody {
                    @for offset in &rows {
                        @let from = mapping.hpa.0 + offset;
                        tr {
                            th scope="row" { code { (hex(from)) } }
                            @for column in 0..columns {
                                @match direct.locate(Hpa(from + column * granule)).filter(|_| offset + column * granule < mapping.size) {
                                    Some((member, dpa)) => td role="gridcell" data-at=(offset / granule + column) {
                                        svg.mark aria-hidden="true" viewBox="0 0 40 12" preserveAspectRatio="none" {
                                            rect width="40" height="12" style={ "fill:url(#d" (mark(member.device)) ")" } {}
                                        }
                                        b { (name(member.device)) } " " code { (hex(dpa.0)) }
                                    },
                                    None => td role="gridcell" { "?" },
                                }
                            }
                        }
                    }
                }
            }
        }))
    }
}
