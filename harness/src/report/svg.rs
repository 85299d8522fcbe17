//! The memory map as an SVG picture: addresses on the left, devices on the right, and between them
//! which address leads to which byte of which device.
//!
//! **Invariant**: it shows what the text's picture shows, in the same order; a device has one colour
//! everywhere. Heights grow with sizes, but by the logarithm: a window of 256 GiB with 256 MiB in it
//! would be nothing but window.

use std::fmt::{self, Display, Formatter};

use cxl_regs::Size;

use super::picture::{Part, parts};
use super::{Component, Facts, Kind, Mapping, Member, Verdict, Window};
use crate::xml::Xml;

/// The memory map of a run as an SVG document.
#[derive(Clone, Copy, Debug)]
pub struct Svg<'a>(pub &'a Facts);

const WIDTH: f64 = 1080.0;
/// The column of addresses, and its boxes.
const MAP: (f64, f64) = (190.0, 560.0);
/// The column of devices.
const DEVICES: (f64, f64) = (760.0, 1050.0);
const TOP: f64 = 118.0;
const GAP: f64 = 30.0;
const TITLE: f64 = 26.0;
/// Fills that tell devices apart, for readers with colour-blindness too (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2"];

const STYLE: &str = "\
text{font-family:'DejaVu Sans',Verdana,sans-serif;font-size:13px;fill:#222}\
.h{font-size:19px;font-weight:bold}.s{font-size:12px;fill:#555}.b{font-weight:bold}\
.a{font-family:'DejaVu Sans Mono',monospace;font-size:11px;fill:#555;text-anchor:end}\
.r{text-anchor:end}.box{stroke:#444;stroke-width:1}.w{fill:#fff;stroke:#222;stroke-width:2}";

/// A rectangle's vertical extent.
#[derive(Clone, Copy)]
struct Extent {
    top: f64,
    height: f64,
}

/// A part of an address range, and the devices behind it.
struct Placed<'a> {
    mapping: &'a Mapping,
    at: Extent,
}

/// A device, and where it is drawn.
struct Device<'a> {
    component: &'a Component,
    at: Extent,
    colour: &'static str,
}

impl Device<'_> {
    fn capacity(&self) -> u64 {
        capacity(self.component)
    }

    /// Where a device address is drawn.
    fn y(&self, dpa: u64) -> f64 {
        let part = dpa.min(self.capacity()) as f64 / self.capacity().max(1) as f64;
        self.at.top + TITLE + part * (self.at.height - TITLE)
    }
}

fn capacity(component: &Component) -> u64 {
    component.volatile.unwrap_or(0).saturating_add(component.persistent.unwrap_or(0))
}

/// The height of a box for so many bytes: a line of text for 256 MiB and less, a bit more for each
/// doubling.
fn height(bytes: u64) -> f64 {
    let doublings = (bytes >> 28).max(1).ilog2();
    f64::from(doublings.min(12)).mul_add(9.0, 34.0)
}

/// One line of text.
fn text(f: &mut Formatter<'_>, class: &str, x: f64, y: f64, words: &str) -> fmt::Result {
    writeln!(f, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, Xml(words))
}

/// A box.
fn rectangle(
    f: &mut Formatter<'_>,
    class: &str,
    fill: &str,
    (left, right): (f64, f64),
    Extent { top, height }: Extent,
) -> fmt::Result {
    let width = right - left;
    writeln!(
        f,
        r#"<rect class="{class}" fill="{fill}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
    )
}

/// What fits into so many columns.
fn clip(words: &str, columns: usize) -> String {
    if words.chars().count() <= columns {
        return words.to_owned();
    }
    let kept: String = words.chars().take(columns.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

/// Words on the left of a box and a size at its right.
fn caption(
    f: &mut Formatter<'_>,
    class: &str,
    (left, right): (f64, f64),
    y: f64,
    words: &str,
    size: u64,
) -> fmt::Result {
    // Half an em a column, more where it is bold; the size takes a fifth of the box.
    let columns = ((right - left) * 0.8 - 20.0) / if class == "b" { 8.0 } else { 6.8 };
    text(f, class, left + 10.0, y, &clip(words, columns as usize))?;
    text(f, "r", right - 10.0, y, &Size(size).to_string())
}

/// The map at one moment.
struct Panel<'a> {
    facts: &'a Facts,
    mappings: &'a [Mapping],
    /// Which moment, where there is more than one.
    moment: Option<&'a str>,
    parts: Vec<Part<'a>>,
    devices: Vec<Device<'a>>,
}

impl<'a> Panel<'a> {
    fn new(facts: &'a Facts, mappings: &'a [Mapping], moment: Option<&'a str>) -> Self {
        let (parts, devices) = (parts(facts, mappings), devices(facts, mappings));
        Self { facts, mappings, moment, parts, devices }
    }

    /// Where its columns end.
    fn bottom(&self) -> f64 {
        let devices = self.devices.last().map_or(TOP, |device| device.at.top + device.at.height);
        (map_height(&self.parts) + TOP).max(devices) + 24.0
    }

    fn draw(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words = |what: &str| match self.moment {
            Some(moment) => format!("{what}, {moment}"),
            None => what.to_owned(),
        };
        text(f, "b", MAP.0, TOP - 16.0, &words("addresses, as the processor sees them"))?;
        text(f, "b", DEVICES.0, TOP - 16.0, "devices, and their own addresses")?;
        let placed = map(f, self, &self.parts, &self.devices)?;
        for device in &self.devices {
            // The scenario says who is there at the start, and nothing of later.
            let first = std::ptr::eq(self.mappings, self.facts.mappings.as_slice());
            draw_device(f, device, first)?;
        }
        for placed in &placed {
            links(f, placed, &self.devices)?;
        }
        Ok(())
    }
}

impl Display for Svg<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let facts = self.0;
        // Where the machine is another in the end, that is a map of its own below.
        let last = facts.last.as_ref().filter(|last| last.mappings != facts.mappings);
        let first = last.map(|_| "at the hand-off");
        let mut panels = vec![Panel::new(facts, &facts.mappings, first)];
        panels.extend(last.map(|last| Panel::new(facts, &last.mappings, Some(&last.moment))));
        let heights: Vec<f64> = panels.iter().map(|panel| panel.bottom() - TOP + 40.0).collect();
        let bottom = TOP - 16.0 + heights.iter().sum::<f64>();
        let total = LEGEND.mul_add(20.0, bottom + 28.0);
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:.0}" width="{WIDTH}" height="{total:.0}" role="img">"#
        )?;
        writeln!(f, "<title>Memory map of {}</title>", Xml(&facts.scenario))?;
        writeln!(f, "<style>{STYLE}</style>")?;
        writeln!(
            f,
            r##"<defs><pattern id="trap" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="8" height="8" fill="#f4f4f4"/><line x1="0" y1="0" x2="0" y2="8" stroke="#d0d0d0" stroke-width="3"/></pattern></defs>"##
        )?;
        writeln!(f, r##"<rect width="100%" height="100%" fill="#fff"/>"##)?;
        heading(f, facts)?;
        let mut top = 0.0;
        for (panel, height) in panels.iter().zip(heights) {
            writeln!(f, r#"<g transform="translate(0 {top:.1})">"#)?;
            panel.draw(f)?;
            writeln!(f, "</g>")?;
            top += height;
        }
        legend(f, facts, bottom)?;
        writeln!(f, "</svg>")
    }
}

fn heading(f: &mut Formatter<'_>, facts: &Facts) -> fmt::Result {
    let result = match facts.result {
        Verdict::Ok => "ok",
        Verdict::Refused => "refused",
        Verdict::Failed => "FAILED",
    };
    text(f, "h", 24.0, 36.0, &format!("Memory map of {}: {result}", facts.scenario))?;
    let why = facts.refusal.as_ref().map(|refusal| refusal.message.as_str());
    text(f, "s", 24.0, 58.0, &clip(&facts.description, 150))?;
    why.map_or(Ok(()), |why| text(f, "s", 24.0, 76.0, &clip(&format!("refused: {why}"), 150)))
}

/// The height of the column of addresses.
fn map_height(parts: &[Part<'_>]) -> f64 {
    let (mut height_of_all, mut end) = (0.0, 0);
    for part in parts {
        if part.base() > end {
            height_of_all += GAP;
        }
        end = end.max(part.end());
        height_of_all += match part {
            Part::Ram(_, size) => height(*size),
            Part::Window(_, mappings) => {
                TITLE + mappings.iter().map(|mapping| height(mapping.size)).sum::<f64>()
            }
        };
    }
    height_of_all
}

/// The devices that have memory, from the top, each as high as its capacity asks for.
fn devices<'a>(facts: &'a Facts, mappings: &[Mapping]) -> Vec<Device<'a>> {
    let reached = |component: &Component| {
        let mut members = mappings.iter().flat_map(|mapping| &mapping.members);
        members.any(|member| member.device == component.component)
    };
    let memory = facts.topology.iter().filter(|component| {
        matches!(component.kind, Kind::Type3 | Kind::Type2) && capacity(component) > 0
    });
    let mut top = TOP;
    let mut devices = Vec::new();
    for (component, colour) in memory.zip(COLOURS.into_iter().cycle()) {
        let at = Extent { top, height: TITLE + 1.4 * height(capacity(component)) };
        top += at.height + 18.0;
        // What no way leads to has no colour: it is hatched as addresses are that lead nowhere.
        let colour = if reached(component) { colour } else { "url(#trap)" };
        devices.push(Device { component, at, colour });
    }
    devices
}

fn draw_device(f: &mut Formatter<'_>, device: &Device<'_>, first: bool) -> fmt::Result {
    let Device { component, at, colour } = device;
    let kind = if component.kind == Kind::Type2 { "accelerator" } else { "memory expander" };
    let absent = if first && component.present == Some(false) { ", absent" } else { "" };
    rectangle(f, "box", "#fff", DEVICES, *at)?;
    let words = format!("{}: {kind}{absent}", clip(&component.component, 16));
    text(f, "b", DEVICES.0 + 10.0, at.top + 18.0, &clip(&words, 36))?;
    let volatile = component.volatile.unwrap_or(0);
    let persistent = component.persistent.unwrap_or(0);
    for (from, size, what) in [(0, volatile, "volatile"), (volatile, persistent, "persistent")] {
        if size == 0 {
            continue;
        }
        let (top, bottom) = (device.y(from), device.y(from.saturating_add(size)));
        let at = Extent { top, height: bottom - top };
        rectangle(f, "box", colour, DEVICES, at)?;
        let words = format!("{what}, from {from:#x}");
        caption(f, "", DEVICES, top + (bottom - top) / 2.0 + 5.0, &words, size)?;
    }
    Ok(())
}

/// The column of addresses; what leads to devices is returned for the links.
fn map<'a>(
    f: &mut Formatter<'_>,
    panel: &Panel<'_>,
    parts: &[Part<'a>],
    devices: &[Device<'_>],
) -> Result<Vec<Placed<'a>>, fmt::Error> {
    let (mut y, mut end) = (TOP, 0);
    let mut placed = Vec::new();
    let address = |f: &mut Formatter<'_>, y: f64, address: u64| {
        text(f, "a", MAP.0 - 8.0, y + 4.0, &format!("{address:#014x}"))
    };
    for part in parts {
        if part.base() > end {
            let words = format!("{} of registers, or of nothing", Size(part.base() - end));
            text(f, "s", MAP.0 + 10.0, y + GAP / 2.0 + 4.0, &words)?;
            y += GAP;
        }
        // Where one ends and the next begins the address stands once.
        if part.base() > end || y == TOP {
            address(f, y, part.base())?;
        }
        end = end.max(part.end());
        match part {
            Part::Ram(_, size) => {
                let at = Extent { top: y, height: height(*size) };
                rectangle(f, "box", "#d9dee4", MAP, at)?;
                caption(f, "b", MAP, y + at.height / 2.0 + 5.0, "RAM", *size)?;
                y += at.height;
            }
            Part::Window(window, mappings) => {
                let top = y;
                caption(f, "b", MAP, y + 18.0, &title(window), window.size)?;
                y += TITLE;
                for mapping in mappings {
                    let at = Extent { top: y, height: height(mapping.size) };
                    if Some(mapping.hpa) != window.base {
                        address(f, y, mapping.hpa)?;
                    }
                    range(f, panel, mapping, at, devices)?;
                    placed.push(Placed { mapping, at });
                    y += at.height;
                }
                let at = Extent { top, height: y - top };
                writeln!(
                    f,
                    r##"<rect fill="none" stroke="#222" stroke-width="2" x="{:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"##,
                    MAP.0,
                    MAP.1 - MAP.0,
                    at.height
                )?;
            }
        }
        address(f, y, part.end())?;
    }
    Ok(placed)
}

fn title(window: &Window) -> String {
    let targets = window.targets.join(", ");
    match window.ways {
        1 => format!("{}: window to {targets}", window.window),
        ways => format!("{}: {ways}-way to {targets}", window.window),
    }
}

/// One range of a window.
fn range(
    f: &mut Formatter<'_>,
    panel: &Panel<'_>,
    mapping: &Mapping,
    at: Extent,
    devices: &[Device<'_>],
) -> fmt::Result {
    let y = at.top + at.height / 2.0 + 5.0;
    let [first, ..] = mapping.members.as_slice() else {
        rectangle(f, "box", "url(#trap)", MAP, at)?;
        let words = mapping.message.as_deref().unwrap_or("leads nowhere");
        return caption(f, "s", MAP, y, words, mapping.size);
    };
    // Members share an interleaved range: stripes of their colours.
    let stripes = mapping.members.len();
    let width = (MAP.1 - MAP.0) / stripes as f64;
    for (index, member) in mapping.members.iter().enumerate() {
        let left = width.mul_add(index as f64, MAP.0);
        rectangle(f, "", colour(devices, member), (left, left + width), at)?;
    }
    rectangle(f, "box", "none", MAP, at)?;
    // What the firmware recorded is of the hand-off.
    let regions = match std::ptr::eq(panel.mappings, panel.facts.mappings.as_slice()) {
        true => panel.facts.regions.as_slice(),
        false => &[],
    };
    let region = regions.iter().find(|region| region.hpa == mapping.hpa);
    let locked = match region.map(|region| region.locked) {
        Some(true) => ", locked",
        Some(false) => ", NOT locked",
        None => "",
    };
    let words = match (stripes, mapping.granularity) {
        (1, _) => format!("{} {}{locked}", first.device, first.memory.unwrap_or("memory")),
        (ways, granularity) => {
            format!("{ways} devices, {} in turn{locked}", Size(granularity.unwrap_or(0)))
        }
    };
    caption(f, "b", MAP, y, &words, mapping.size)
}

fn colour(devices: &[Device<'_>], member: &Member) -> &'static str {
    let device = devices.iter().find(|device| device.component.component == member.device);
    device.map_or("#bbb", |device| device.colour)
}

/// From a range to the part of each device that it leads to.
fn links(
    f: &mut Formatter<'_>,
    Placed { mapping, at }: &Placed<'_>,
    devices: &[Device<'_>],
) -> fmt::Result {
    let share = mapping.size / mapping.members.len().max(1) as u64;
    for member in &mapping.members {
        let device = devices.iter().find(|device| device.component.component == member.device);
        let Some(device) = device else { continue };
        let (from, to) = (device.y(member.dpa), device.y(member.dpa.saturating_add(share)));
        let (top, bottom) = (at.top, at.top + at.height);
        let (left, right) = (MAP.1, DEVICES.0);
        let middle = f64::midpoint(left, right);
        writeln!(
            f,
            r#"<path fill="{}" fill-opacity="0.3" d="M{left} {top:.1} C{middle} {top:.1} {middle} {from:.1} {right} {from:.1} L{right} {to:.1} C{middle} {to:.1} {middle} {bottom:.1} {left} {bottom:.1} Z"/>"#,
            device.colour
        )?;
    }
    Ok(())
}

/// The words that a reader needs who has never seen CXL, and what this run's locks are worth.
fn legend(f: &mut Formatter<'_>, facts: &Facts, top: f64) -> fmt::Result {
    let lines = [
        "A window is a range of addresses that the platform sends to a host bridge; decoders on the \
         way (bridge, switch, device) decide which device answers.",
        "Coloured: every byte leads to one byte of one device, so a guest can reach it as it reaches \
         RAM. Hatched: no way leads to memory; each access is looked at, one by one.",
        "Locked: each decoder on the way keeps its registers until a reset opens its lock. Not to \
         scale.",
    ];
    let mut lines = lines.map(str::to_owned).to_vec();
    lines.extend(worth(facts));
    for (index, line) in lines.iter().enumerate() {
        text(f, "s", 24.0, 20.0f64.mul_add(index as f64, top + 16.0), line)?;
    }
    Ok(())
}

/// Lines that the legend has at most.
const LEGEND: f64 = 5.0;

/// What the locks were found to be worth, and what is no longer so in the end.
fn worth(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    let attack = facts.attack.as_ref().map(|attack| match attack.integrity.holds {
        true if attack.integrity.ranges > 0 => "; under attack they held",
        true => "; the attack found nothing to hold",
        false => "; UNDER ATTACK THEY GAVE WAY",
    });
    if let Some(locks) = &facts.locks {
        let attack = attack.unwrap_or_default();
        lines.push(format!("Locks of this run: {}{attack}.", locks.word()));
    }
    if let Some(last) = &facts.last {
        let word = last.locks.word();
        lines.push(format!("At the hand-off. {} it is otherwise: {word}.", capital(&last.moment)));
    }
    lines
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
