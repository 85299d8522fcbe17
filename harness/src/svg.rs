//! The memory map as an SVG picture, from registers alone: addresses on the left, devices on the
//! right, and between them which address leads to which byte of which device.
//!
//! A device has one mark everywhere: a colour and a pattern together, so that forty-eight of them can
//! be told apart, and eight without any colour. Text stands on plain ground and never on a mark.
//!
//! **Invariant**: addresses go up as the picture goes down, and every part of every window that has a
//! place is in it. Heights grow with sizes, but by the logarithm: a window of 256 GiB with 256 MiB in
//! it would be nothing but window.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use cxl_model::fabric::{self, Fabric};
use cxl_model::mapping::{Direct, Mapping, Reach, ReasonText, resolve};
use cxl_regs::hdm::Control;
use cxl_regs::{Dpa, Size};

use crate::xml::Xml;

/// A map of one machine, at one moment or several.
#[derive(Clone, Debug)]
pub struct Map<'a> {
    /// What it is a map of, in a line.
    pub title: String,
    /// What is to be known first, a paragraph each: why the firmware refused stands here.
    pub lead: Vec<String>,
    /// The moments, one below the other.
    pub panels: Vec<Panel<'a>>,
    /// What is to be known last, beside what every reader needs.
    pub foot: Vec<String>,
}

/// The machine at one moment.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// Its registers.
    pub fabric: &'a Fabric,
    /// Where they lead each range of each window.
    pub mappings: &'a [Mapping],
    /// RAM: base and size.
    pub ram: &'a [(u64, u64)],
    /// Which moment, where there is more than one.
    pub moment: Option<String>,
}

/// Columns of text in front of the picture's right edge.
const WIDTH: f64 = 1080.0;
/// The column of addresses, and its boxes.
const MAP: (f64, f64) = (168.0, 588.0);
/// The column of devices.
const DEVICES: (f64, f64) = (760.0, 1056.0);
/// Between the picture's top and its first box: what stands above the columns.
const HEAD: f64 = 30.0;
const GAP: f64 = 30.0;
const TITLE: f64 = 28.0;
/// A line of text.
const LINE: f64 = 19.0;
/// The width of a mark beside a text, and the height of one above it.
const MARK: f64 = 14.0;
/// Marks in a row of an interleaved range.
const IN_A_ROW: usize = 8;
/// What one row of them takes: the mark, and a name below it.
const ROW: f64 = 32.0;
/// Between the partitions of a device.
const APART: f64 = 7.0;
/// Characters of a line across the whole picture.
const COLUMNS: usize = 140;

/// The colours of marks: each at least 3:1 against the ground of both schemes.
pub const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#00845f", "#b5488a", "#8a6d00", "#6a5acd", "#5b7083", "#c23b3b"];
/// How many patterns there are.
const PATTERNS: usize = 6;

/// Ink and grounds: text, quieter text, page, box, RAM, lines.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    /// Text.
    pub ink: &'static str,
    /// Text that is beside something.
    pub quiet: &'static str,
    /// The ground of the picture.
    pub ground: &'static str,
    /// The ground of a box.
    pub panel: &'static str,
    /// The ground of RAM.
    pub ram: &'static str,
    /// The edges of boxes.
    pub line: &'static str,
}

/// On white.
pub const LIGHT: Scheme = Scheme {
    ink: "#1b1f24",
    quiet: "#4a5159",
    ground: "#ffffff",
    panel: "#f7f9fb",
    ram: "#e3e8ee",
    line: "#5f6872",
};
/// On black.
pub const DARK: Scheme = Scheme {
    ink: "#e9eef4",
    quiet: "#b4bec9",
    ground: "#0d1117",
    panel: "#151b23",
    ram: "#27303b",
    line: "#8d98a5",
};

impl Scheme {
    /// Its rules; all of them below the picture's own class, as a page has rules of its own.
    fn style(&self) -> String {
        let Self { ink, quiet, ground, panel, ram, line } = self;
        format!(
            ".cxlmap text{{fill:{ink}}}.cxlmap .q{{fill:{quiet}}}.cxlmap .g{{fill:{ground}}}\
             .cxlmap .p{{fill:{panel};stroke:{line}}}.cxlmap .m{{fill:{ram};stroke:{line}}}\
             .cxlmap .e{{fill:none;stroke:{line}}}.cxlmap .w{{fill:none;stroke:{ink};stroke-width:2}}\
             .cxlmap .n{{fill:{panel}}}.cxlmap .k{{fill:{ink}}}.cxlmap .d{{stroke:{quiet}}}"
        )
    }
}

const STYLE: &str = "\
.cxlmap text{font-family:system-ui,'DejaVu Sans',Verdana,sans-serif;font-size:13px}\
.cxlmap .h{font-size:19px;font-weight:bold}.cxlmap .q{font-size:12px}.cxlmap .b{font-weight:bold}\
.cxlmap .a{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:12px;text-anchor:end}\
.cxlmap .t{font-size:11.5px;text-anchor:middle}.cxlmap .r{text-anchor:end}";

/// The number of a device's mark among all that there are.
pub fn mark(device: usize) -> usize {
    device % (COLOURS.len() * PATTERNS)
}

/// The colour of a mark.
fn colour(device: usize) -> &'static str {
    COLOURS.get(device % COLOURS.len()).copied().unwrap_or("#000")
}

/// The definitions of so many devices' marks, by the names `d0`, `d1`, ..., and of `none`: what leads
/// nowhere.
pub fn marks(f: &mut impl fmt::Write, devices: usize) -> fmt::Result {
    write!(f, "<defs>")?;
    pattern(
        f,
        "none",
        8,
        r#"<path class="d" d="M-2 2L2 -2M-2 10L10 -2M6 10L10 6" stroke-width="1.5"/>"#,
    )?;
    for device in 0..devices.min(COLOURS.len() * PATTERNS) {
        let c = colour(device);
        let shape = match (device / COLOURS.len() + device % COLOURS.len()) % PATTERNS {
            0 => format!(r#"<rect width="10" height="10" fill="{c}"/>"#),
            1 => format!(
                r#"<path d="M-3 3L3 -3M-3 13L13 -3M7 13L13 7" stroke="{c}" stroke-width="4"/>"#
            ),
            2 => format!(r#"<circle cx="5" cy="5" r="3.4" fill="{c}"/>"#),
            3 => format!(r#"<path d="M0 3H10M0 8H10" stroke="{c}" stroke-width="2.6"/>"#),
            4 => format!(r#"<path d="M3 0V10M8 0V10" stroke="{c}" stroke-width="2.6"/>"#),
            _ => format!(r#"<path d="M0 0L10 10M10 0L0 10" stroke="{c}" stroke-width="2.4"/>"#),
        };
        pattern(f, &format!("d{device}"), 10, &shape)?;
    }
    writeln!(f, "</defs>")
}

fn pattern(f: &mut impl fmt::Write, id: &str, size: u8, shape: &str) -> fmt::Result {
    write!(
        f,
        r#"<pattern id="{id}" width="{size}" height="{size}" patternUnits="userSpaceOnUse"><rect class="n" width="{size}" height="{size}"/>{shape}</pattern>"#
    )
}

/// A part of a machine's addresses that is drawn by itself.
#[derive(Clone, Debug)]
enum Part<'a> {
    Ram(u64, u64),
    Window(&'a fabric::Window, Vec<Mapping>),
}

impl Part<'_> {
    fn base(&self) -> u64 {
        match self {
            Self::Ram(base, _) => *base,
            Self::Window(window, _) => window.base.unwrap_or_default().0,
        }
    }

    fn end(&self) -> u64 {
        match self {
            Self::Ram(base, size) => base.saturating_add(*size),
            Self::Window(window, _) => self.base().saturating_add(window.size),
        }
    }

    fn height(&self) -> f64 {
        match self {
            Self::Ram(_, size) => height(*size),
            Self::Window(_, mappings) => TITLE + mappings.iter().map(range_height).sum::<f64>(),
        }
    }
}

/// The height of a box for so many bytes: a line of text for 256 MiB and less, a bit more for each
/// doubling.
fn height(bytes: u64) -> f64 {
    let doublings = (bytes >> 28).max(1).ilog2();
    f64::from(doublings.min(12)).mul_add(7.0, 34.0)
}

fn range_height(mapping: &Mapping) -> f64 {
    let least = height(mapping.size);
    match &mapping.how {
        Reach::Direct(direct) if direct.members.len() > 1 => {
            least.max(ROW.mul_add(direct.members.len().div_ceil(IN_A_ROW) as f64, 36.0))
        }
        _ => least,
    }
}

/// Whether every decoder on every way of a range is locked.
pub fn locked(fabric: &Fabric, mapping: &Mapping, direct: &Direct) -> bool {
    (0..direct.members.len()).all(|position| {
        let first =
            mapping.hpa.0.checked_sub(direct.base.0).map(|o| direct.interleave().dpa_offset(o));
        let member = direct.members.get(position);
        let dpa = member.zip(first).and_then(|(member, offset)| member.dpa.0.checked_add(offset));
        let path = dpa.and_then(|dpa| direct.hpa(position as u32, Dpa(dpa)));
        let path = path.and_then(|hpa| resolve(fabric, hpa).ok());
        path.is_some_and(|path| {
            let hop = |hop: &cxl_model::mapping::Hop| {
                hop.decoder.is_none_or(|(index, _)| {
                    control(hdm_of(fabric, hop.at), index).is_some_and(Control::locked)
                })
            };
            let device = fabric.devices.get(path.endpoint.device).and_then(|d| d.hdm.as_ref());
            path.hops.iter().all(hop)
                && control(device, path.endpoint.index).is_some_and(Control::locked)
        })
    })
}

fn control(hdm: Option<&fabric::HdmImage>, index: u8) -> Option<Control> {
    Some(hdm?.decoders.get(usize::from(index))?.control())
}

fn hdm_of(fabric: &Fabric, at: cxl_model::mapping::At) -> Option<&fabric::HdmImage> {
    use cxl_model::mapping::At;
    match at {
        At::Bridge(index) => fabric.bridges.get(index)?.hdm.as_ref(),
        At::Switch(index) => fabric.switches.get(index)?.hdm.as_ref(),
        At::Device(index) => fabric.devices.get(index)?.hdm.as_ref(),
    }
}

/// What a window is called in the platform's words.
pub fn title(fabric: &Fabric, window: &fabric::Window) -> String {
    let target = |uid: &u32| {
        let bridge = fabric.bridges.iter().find(|bridge| bridge.uid == *uid);
        bridge.map_or_else(|| format!("UID {uid}"), |bridge| bridge.name.clone())
    };
    let targets: Vec<String> = window.targets.iter().map(target).collect();
    let targets = targets.join(", ");
    match window.interleave.ways.count() {
        1 => format!("{}: window to {targets}", window.name),
        ways => format!("{}: {ways}-way to {targets}", window.name),
    }
}

/// What fits into so many columns.
fn clip(words: &str, columns: usize) -> String {
    if words.chars().count() <= columns {
        return words.to_owned();
    }
    let kept: String = words.chars().take(columns.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

/// A vertical extent.
#[derive(Clone, Copy, Debug)]
struct Extent {
    top: f64,
    height: f64,
}

impl Extent {
    fn bottom(self) -> f64 {
        self.top + self.height
    }
}

/// One line of text.
fn text(f: &mut Formatter<'_>, class: &str, x: f64, y: f64, words: &str) -> fmt::Result {
    writeln!(f, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, Xml(words))
}

/// A rectangle with a class, or with a mark.
fn rectangle(
    f: &mut Formatter<'_>,
    what: &str,
    (left, right): (f64, f64),
    at: Extent,
) -> fmt::Result {
    let (Extent { top, height }, width) = (at, right - left);
    let fill = match what.strip_prefix('#') {
        Some(mark) => format!(r#"class="e" style="fill:url(#{mark})""#),
        None => format!(r#"class="{what}""#),
    };
    writeln!(
        f,
        r#"<rect {fill} x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
    )
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
    let columns = ((right - left) * 0.82 - 16.0) / if class == "b" { 8.0 } else { 7.0 };
    text(f, class, left + 10.0, y, &clip(words, columns as usize))?;
    text(f, "r", right - 10.0, y, &Size(size).to_string())
}

/// A closed padlock, or an open one.
fn padlock(f: &mut Formatter<'_>, x: f64, y: f64, closed: bool) -> fmt::Result {
    let bow = if closed { "M2 6V4a3 3 0 0 1 6 0V6" } else { "M2 6V3a3 3 0 0 1 6 -1" };
    writeln!(
        f,
        r#"<g transform="translate({x:.1} {y:.1})"><rect class="k" x="0" y="6" width="10" height="7" rx="1.5"/><path class="w" d="{bow}"/></g>"#
    )
}

/// A device, and where it is drawn.
struct Device<'a> {
    index: usize,
    device: &'a fabric::Device,
    at: Extent,
    /// Where its partitions are: first device address, bytes, extent, name.
    partitions: Vec<(u64, u64, Extent, &'static str)>,
}

impl Device<'_> {
    /// Where a device address is drawn; as the end of something, where it is one.
    fn y(&self, dpa: u64, end: bool) -> f64 {
        let inside = |(first, size, ..): &&(u64, u64, Extent, &str)| {
            let at = if end { dpa.saturating_sub(1) } else { dpa };
            at >= *first && at < first.saturating_add(*size)
        };
        let found = self.partitions.iter().find(inside).or(self.partitions.last());
        found.map_or(self.at.top, |(first, size, at, _)| {
            let part = dpa.saturating_sub(*first).min(*size) as f64 / (*size).max(1) as f64;
            at.height.mul_add(part, at.top)
        })
    }
}

impl Panel<'_> {
    fn parts(&self) -> Vec<Part<'_>> {
        let ram = self.ram.iter().map(|&(base, size)| Part::Ram(base, size));
        let windows = self.fabric.windows.iter().enumerate();
        let windows = windows.filter(|(_, window)| window.base.is_some()).map(|(index, window)| {
            let inside = self.mappings.iter().filter(|mapping| mapping.window == index);
            Part::Window(window, inside.cloned().collect())
        });
        let mut parts: Vec<Part<'_>> = ram.chain(windows).collect();
        parts.sort_by_key(Part::base);
        parts
    }

    /// The devices that have memory, from the top, each as high as its capacity asks for.
    fn devices(&self) -> Vec<Device<'_>> {
        let mut top = HEAD;
        let mut devices = Vec::new();
        for (index, device) in self.fabric.devices.iter().enumerate() {
            let (volatile, persistent) = (device.volatile, device.persistent);
            let mut partitions = Vec::new();
            let mut below = top + TITLE;
            let both = [(0, volatile, "volatile"), (volatile, persistent, "persistent")];
            for (first, size, name) in both.into_iter().filter(|(_, size, _)| *size > 0) {
                let at = Extent { top: below, height: height(size) * 1.15 };
                below = at.bottom() + APART;
                partitions.push((first, size, at, name));
            }
            if partitions.is_empty() {
                continue;
            }
            let at = Extent { top, height: below - APART - top };
            top = at.bottom() + 16.0;
            devices.push(Device { index, device, at, partitions });
        }
        devices
    }

    /// Where its columns end.
    fn bottom(&self, parts: &[Part<'_>], devices: &[Device<'_>]) -> f64 {
        let (mut y, mut end) = (HEAD, 0);
        for part in parts {
            if part.base() > end {
                y += GAP;
            }
            end = end.max(part.end());
            y += part.height();
        }
        let unplaced = self.fabric.windows.iter().filter(|window| window.base.is_none()).count();
        y += unplaced as f64 * LINE;
        devices.last().map_or(y, |device| y.max(device.at.bottom())) + 24.0
    }

    fn draw(
        &self,
        f: &mut Formatter<'_>,
        parts: &[Part<'_>],
        devices: &[Device<'_>],
    ) -> fmt::Result {
        let words = |what: &str| match &self.moment {
            Some(moment) => format!("{what}, {moment}"),
            None => what.to_owned(),
        };
        text(f, "b", MAP.0, HEAD - 14.0, &words("addresses, as the processor sees them"))?;
        text(f, "b", DEVICES.0, HEAD - 14.0, "devices, and their own addresses")?;
        let mut leads = Vec::new();
        self.map(f, parts, &mut leads)?;
        for device in devices {
            draw_device(f, device, &leads)?;
        }
        leads.iter().try_for_each(|(mapping, direct, at)| links(f, mapping, direct, *at, devices))
    }

    /// The column of addresses; what leads to devices is left for the links.
    fn map<'p>(
        &self,
        f: &mut Formatter<'_>,
        parts: &'p [Part<'_>],
        leads: &mut Vec<(&'p Mapping, &'p Direct, Extent)>,
    ) -> fmt::Result {
        let (mut y, mut end) = (HEAD, 0);
        let address = |f: &mut Formatter<'_>, y: f64, address: u64| {
            text(f, "a", MAP.0 - 8.0, y + 4.0, &format!("{address:#014x}"))
        };
        for part in parts {
            if part.base() > end {
                // Of a machine that somebody wrote down nobody gave more than windows.
                let what = match self.ram.is_empty() {
                    true => "in no window; RAM was not given",
                    false => "of registers, or of nothing",
                };
                let words = format!("{} {what}", Size(part.base() - end));
                text(f, "q", MAP.0 + 10.0, y + GAP / 2.0 + 4.0, &words)?;
                y += GAP;
            }
            // Where one ends and the next begins the address stands once.
            if part.base() > end || y == HEAD {
                address(f, y, part.base())?;
            }
            end = end.max(part.end());
            let whole = Extent { top: y, height: part.height() };
            match part {
                Part::Ram(_, size) => {
                    rectangle(f, "m", MAP, whole)?;
                    caption(f, "b", MAP, y + whole.height / 2.0 + 5.0, "RAM", *size)?;
                }
                Part::Window(window, mappings) => {
                    rectangle(f, "p", MAP, Extent { top: y, height: TITLE })?;
                    caption(f, "b", MAP, y + 19.0, &title(self.fabric, window), window.size)?;
                    let mut top = y + TITLE;
                    for mapping in mappings {
                        let at = Extent { top, height: range_height(mapping) };
                        if Some(mapping.hpa) != window.base {
                            address(f, top, mapping.hpa.0)?;
                        }
                        self.range(f, mapping, at)?;
                        if let Reach::Direct(direct) = &mapping.how {
                            leads.push((mapping, direct, at));
                        }
                        top = at.bottom();
                    }
                    rectangle(f, "w", MAP, whole)?;
                }
            }
            y = whole.bottom();
            address(f, y, part.end())?;
        }
        for window in self.fabric.windows.iter().filter(|window| window.base.is_none()) {
            y += LINE;
            let words = format!("{} of {} has no place", window.name, Size(window.size));
            text(f, "q", MAP.0 + 10.0, y + 4.0, &clip(&words, 58))?;
        }
        Ok(())
    }

    /// One range of a window.
    fn range(&self, f: &mut Formatter<'_>, mapping: &Mapping, at: Extent) -> fmt::Result {
        let side = (MAP.0, MAP.0 + MARK);
        let inside = (MAP.0 + MARK, MAP.1);
        let middle = at.top + at.height / 2.0 + 5.0;
        rectangle(f, "p", MAP, at)?;
        let direct = match &mapping.how {
            Reach::Direct(direct) => direct,
            Reach::Trapped { reason } => {
                rectangle(f, "#none", side, at)?;
                let words = ReasonText(self.fabric, *reason).to_string();
                return caption(f, "q", inside, middle, &words, mapping.size);
            }
        };
        let is_locked = locked(self.fabric, mapping, direct);
        let lock = if is_locked { "locked" } else { "NOT locked" };
        let name = |index: usize| {
            self.fabric.devices.get(index).map_or("?", |device| device.name.as_str())
        };
        let caption_at = |f: &mut Formatter<'_>, y: f64, words: &str| {
            padlock(f, inside.0 + 9.0, y - 11.5, is_locked)?;
            caption(f, "b", (inside.0 + 16.0, inside.1), y, words, mapping.size)
        };
        if let [only] = direct.members.as_slice() {
            rectangle(f, &format!("#d{}", mark(only.device)), side, at)?;
            let device = self.fabric.devices.get(only.device);
            let partition = match device.is_some_and(|device| only.dpa.0 < device.volatile) {
                true => "volatile",
                false => "persistent",
            };
            let words = format!("{} {partition}, {lock}", clip(name(only.device), 20));
            return caption_at(f, middle, &words);
        }
        let (ways, granularity) = (direct.members.len(), direct.interleave().granularity.bytes());
        let words = format!("{ways} devices, {} in turn, {lock}", Size(granularity));
        caption_at(f, at.top + 21.0, &words)?;
        let in_a_row = ways.min(IN_A_ROW);
        let width = (MAP.1 - MAP.0 - 20.0) / in_a_row as f64;
        for (position, member) in direct.members.iter().enumerate() {
            let left = width.mul_add((position % IN_A_ROW) as f64, MAP.0 + 10.0);
            let top = ROW.mul_add((position / IN_A_ROW) as f64, at.top + 32.0);
            let cell = (left + 2.0, left + width - 2.0);
            rectangle(
                f,
                &format!("#d{}", mark(member.device)),
                cell,
                Extent { top, height: MARK },
            )?;
            let words = clip(name(member.device), (width / 7.4) as usize);
            text(f, "t", left + width / 2.0, top + MARK + 12.0, &words)?;
        }
        Ok(())
    }
}

fn draw_device(
    f: &mut Formatter<'_>,
    device: &Device<'_>,
    leads: &[(&Mapping, &Direct, Extent)],
) -> fmt::Result {
    let Device { index, device: what, at, partitions } = device;
    let absent = if what.present { "" } else { ", not plugged in" };
    let key = Extent { top: at.top + 6.0, height: MARK };
    rectangle(f, &format!("#d{}", mark(*index)), (DEVICES.0, DEVICES.0 + 26.0), key)?;
    let words = format!("{}{absent}", clip(&what.name, 24));
    text(f, "b", DEVICES.0 + 34.0, at.top + 18.0, &words)?;
    for (first, size, at, name) in partitions {
        rectangle(f, "p", DEVICES, *at)?;
        rectangle(f, "#none", (DEVICES.0, DEVICES.0 + MARK), *at)?;
        let (from, to) = (*first, first.saturating_add(*size));
        for (mapping, direct, _) in leads {
            for (dpa, end) in shares(mapping, direct, *index) {
                let (dpa, end) = (dpa.max(from), end.min(to));
                if dpa < end {
                    let top = device.y(dpa, false);
                    let part = Extent { top, height: device.y(end, true) - top };
                    let side = (DEVICES.0, DEVICES.0 + MARK);
                    rectangle(f, &format!("#d{}", mark(*index)), side, part)?;
                }
            }
        }
        let words = format!("{name}, from {first:#x}");
        let inside = (DEVICES.0 + MARK, DEVICES.1);
        caption(f, "", inside, at.top + at.height / 2.0 + 5.0, &words, *size)?;
    }
    Ok(())
}

/// The device addresses of one device in a range: first, and behind the last.
fn shares(mapping: &Mapping, direct: &Direct, device: usize) -> Vec<(u64, u64)> {
    let share = mapping.size / direct.members.len().max(1) as u64;
    let offset = direct.interleave().dpa_offset(mapping.hpa.0.saturating_sub(direct.base.0));
    let members = direct.members.iter().filter(|member| member.device == device);
    let part = |member: &cxl_model::mapping::Member| {
        let dpa = member.dpa.0.saturating_add(offset);
        (dpa, dpa.saturating_add(share))
    };
    members.map(part).collect()
}

/// From a range to the part of each device that it leads to.
fn links(
    f: &mut Formatter<'_>,
    mapping: &Mapping,
    direct: &Direct,
    at: Extent,
    devices: &[Device<'_>],
) -> fmt::Result {
    let reached: BTreeSet<usize> = direct.members.iter().map(|member| member.device).collect();
    for device in devices.iter().filter(|device| reached.contains(&device.index)) {
        for (dpa, end) in shares(mapping, direct, device.index) {
            let (from, to) = (device.y(dpa, false), device.y(end, true));
            let (top, bottom) = (at.top, at.bottom());
            let (left, right) = (MAP.1, DEVICES.0);
            let middle = f64::midpoint(left, right);
            let c = colour(device.index);
            writeln!(
                f,
                r#"<path fill="{c}" fill-opacity="0.16" stroke="{c}" stroke-opacity="0.7" d="M{left} {top:.1} C{middle} {top:.1} {middle} {from:.1} {right} {from:.1} L{right} {to:.1} C{middle} {to:.1} {middle} {bottom:.1} {left} {bottom:.1} Z"/>"#
            )?;
        }
    }
    Ok(())
}

/// The words that a reader needs who has never seen CXL.
const LEGEND: [&str; 3] = [
    "A window is a range of addresses that the platform sends to a host bridge; decoders on the way \
     (bridge, switch, device) decide which device answers.",
    "With a device's mark: every byte leads to one byte of one device, so a guest can reach it as it \
     reaches RAM. Thin slanted lines: no way leads to memory; each access is looked at by itself.",
    "Locked: each decoder on the way keeps its registers until a reset opens its lock. Not to scale.",
];

/// Paragraphs in lines of the picture's width.
fn lines(paragraphs: &[String]) -> Vec<String> {
    paragraphs
        .iter()
        .flat_map(|words| textwrap::wrap(words, COLUMNS))
        .map(|line| line.into_owned())
        .collect()
}

impl Display for Map<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lead = lines(&self.lead);
        let foot: Vec<String> =
            LEGEND.map(str::to_owned).into_iter().chain(self.foot.clone()).collect();
        let foot = lines(&foot);
        let panels: Vec<_> = self
            .panels
            .iter()
            .map(|panel| {
                let (parts, devices) = (panel.parts(), panel.devices());
                let bottom = panel.bottom(&parts, &devices);
                (panel, parts, devices, bottom)
            })
            .collect();
        let top = LINE.mul_add(lead.len() as f64, 56.0);
        let bottom = top + panels.iter().map(|(.., height)| height).sum::<f64>();
        let total = LINE.mul_add(foot.len() as f64, bottom + 20.0);
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="cxlmap" viewBox="0 0 {WIDTH} {total:.0}" width="{WIDTH}" height="{total:.0}" role="img">"#
        )?;
        writeln!(f, "<title>{}</title>", Xml(&self.title))?;
        writeln!(
            f,
            "<style>{STYLE}{}@media screen and (prefers-color-scheme:dark){{{}}}</style>",
            LIGHT.style(),
            DARK.style()
        )?;
        let devices = self.panels.iter().map(|panel| panel.fabric.devices.len()).max();
        marks(f, devices.unwrap_or(0))?;
        writeln!(f, r#"<rect class="g" width="100%" height="100%"/>"#)?;
        text(f, "h", 24.0, 34.0, &clip(&self.title, 96))?;
        for (line, y) in lead.iter().zip(0..) {
            text(f, "q", 24.0, LINE.mul_add(f64::from(y), 56.0), line)?;
        }
        let mut y = top;
        for (panel, parts, devices, height) in &panels {
            writeln!(f, r#"<g transform="translate(0 {y:.1})">"#)?;
            panel.draw(f, parts, devices)?;
            writeln!(f, "</g>")?;
            y += height;
        }
        for (line, at) in foot.iter().zip(0..) {
            text(f, "q", 24.0, LINE.mul_add(f64::from(at), bottom + 10.0), line)?;
        }
        writeln!(f, "</svg>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relative luminance of a colour (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("two digits");
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(one: &str, other: &str) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn text_and_marks_stand_out_from_every_ground_in_both_schemes() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        assert!((contrast("#777777", "#ffffff") - 4.478).abs() < 1e-3);
        for Scheme { ink, quiet, ground, panel, ram, line } in [LIGHT, DARK] {
            for under in [ground, panel, ram] {
                for text in [ink, quiet] {
                    assert!(contrast(text, under) >= 4.5, "{text} on {under}");
                }
                assert!(contrast(line, under) >= 3.0, "{line} on {under}");
            }
            for mark in COLOURS {
                assert!(contrast(mark, panel) >= 3.0, "{mark} on {panel}");
                assert!(contrast(mark, ground) >= 3.0, "{mark} on {ground}");
            }
        }
    }

    #[test]
    fn forty_eight_devices_have_marks_of_their_own() {
        let all = COLOURS.len() * PATTERNS;
        let look = |device: usize| {
            (colour(device), (device / COLOURS.len() + device % COLOURS.len()) % PATTERNS)
        };
        let looks: BTreeSet<_> = (0..all).map(look).collect();
        assert_eq!(looks.len(), 48);
    }
}
