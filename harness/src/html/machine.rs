//! A machine as its registers show it: the path from window to device, with its decoders as rooms on
//! the way, and the memory map.
//!
//! **Invariant**: each component of the machine and each of its decoders is there, and its state is
//! said in a word, by a shape and by a colour.

use maud::{Markup, PreEscaped, html};

use super::tables::framed;
use crate::report::{Loss, Seen, Stop, StopAt};
use crate::svg::{self, Map};
use cxl_model::fabric::{self, Fabric, HdmImage, Parent};
use cxl_model::mapping::{Direct, Mapping, Reach, ReasonText};
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::{Granularity, Interleave, Size, Ways};

/// The state of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sealed,
    Locked,
    Open,
    UnderWay,
    Refused,
    Set,
    Spare,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Sealed,
        Self::Locked,
        Self::Open,
        Self::UnderWay,
        Self::Refused,
        Self::Set,
        Self::Spare,
    ];

    fn of(image: &DecoderImage) -> Self {
        let control = image.control();
        match () {
            () if control.locked() => Self::Locked,
            () if control.committed() => Self::Open,
            () if control.error_not_committed() => Self::Refused,
            () if control.commit() => Self::UnderWay,
            () if image.to_dwords().iter().any(|dword| *dword != 0) => Self::Set,
            () => Self::Spare,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Locked => "locked",
            Self::Open => "open",
            Self::UnderWay => "underway",
            Self::Refused => "broken",
            Self::Set => "set",
            Self::Spare => "spare",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Locked => "locked",
            Self::Open => "NOT locked",
            Self::UnderWay => "commit under way",
            Self::Refused => "commit refused",
            Self::Set => "not committed",
            Self::Spare => "spare",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Sealed => "locked, and no write short of a reset leads its range elsewhere",
            Self::Locked => "committed, and keeps its registers until a reset opens its lock",
            Self::Open => "committed, and takes writes",
            Self::UnderWay => "told to commit, and not committed yet",
            Self::Refused => "the hardware did not accept it",
            Self::Set => "written to, and not in use",
            Self::Spare => "all registers 0",
        }
    }

    /// Its shape: drawn once, and used by name.
    fn icon(self) -> Markup {
        icon(self.class())
    }
}

fn icon(name: &str) -> Markup {
    html! { svg.icon aria-hidden="true" viewBox="0 0 16 16" { use href={ "#i-" (name) } {} } }
}

/// The shapes: a shield, closed and open padlocks, an hourglass, a triangle, circles.
const ICONS: &str = r#"<svg width="0" height="0" aria-hidden="true" class="defs"><defs>
<symbol id="i-sealed" viewBox="0 0 16 16"><path fill="currentColor" d="M8 0 14 2.5V8c0 4-2.6 6.6-6 8C4.6 14.6 2 12 2 8V2.500z"/><path class="hole" d="M5 7h6v4H5zM6.2 7V5.800a1.8 1.8 0 0 1 3.6 0V7" fill="none" stroke-width="1.3"/></symbol>
<symbol id="i-locked" viewBox="0 0 16 16"><rect x="2.5" y="7" width="11" height="8" rx="1.5" fill="currentColor"/><path d="M5 7V4.500a3 3 0 0 1 6 0V7" fill="none" stroke="currentColor" stroke-width="1.8"/></symbol>
<symbol id="i-open" viewBox="0 0 16 16"><rect x="2.5" y="7" width="11" height="8" rx="1.5" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M5 7V3.500a3 3 0 0 1 5.8-1" fill="none" stroke="currentColor" stroke-width="1.8"/></symbol>
<symbol id="i-underway" viewBox="0 0 16 16"><path d="M3 1h10v2L9 8l4 5v2H3v-2l4-5-4-5z" fill="none" stroke="currentColor" stroke-width="1.5"/></symbol>
<symbol id="i-broken" viewBox="0 0 16 16"><path d="M8 1 15.5 15H.5z" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M8 6v4.500M8 12v1.5" stroke="currentColor" stroke-width="1.8"/></symbol>
<symbol id="i-set" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6"/><circle cx="8" cy="8" r="2.5" fill="currentColor"/></symbol>
<symbol id="i-spare" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="2.5 2.2"/></symbol>
<symbol id="i-stopped" viewBox="0 0 16 16"><path fill="currentColor" d="M5 .5h6L15.500 5v6L11 15.500H5L.5 11V5z"/><path class="sign" d="M4 8h8" stroke-width="2.600"/></symbol>
<symbol id="i-out" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M3.5 12.5 12.5 3.5" stroke="currentColor" stroke-width="1.8"/></symbol>
</defs></svg>"#;

/// A direct range, with its number on the page.
struct Range<'a> {
    mapping: &'a Mapping,
    direct: &'a Direct,
    sealed: bool,
}

/// What of a machine is known on the way through it.
struct Walk<'a> {
    seen: &'a Seen,
    fabric: &'a Fabric,
    ranges: Vec<Range<'a>>,
}

/// The topology, bridge by bridge.
pub(super) fn paths(seen: &Seen) -> Markup {
    let fabric = &seen.fabric;
    let ranges = seen.mappings.iter().filter_map(|mapping| match &mapping.how {
        Reach::Direct(direct) => {
            let name = |index: usize| fabric.devices.get(index).map(|device| &device.name);
            let sealed = svg::locked(fabric, mapping, direct)
                && direct.members.iter().all(|member| {
                    name(member.device).is_some_and(|name| seen.sealed.contains(name))
                });
            Some(Range { mapping, direct, sealed })
        }
        Reach::Trapped { .. } => None,
    });
    let walk = Walk { seen, fabric, ranges: ranges.collect() };
    let astray = walk.astray();
    html! {
        (PreEscaped(ICONS))
        p { "From the platform's windows through bridges, ports and switches to the devices. The decoders of \
             each are rooms on the way: an address goes through the room that has its range." }
        ul.legend {
            @for state in State::ALL {
                li.room .{ (state.class()) } { (state.icon()) b { (state.word()) } " " (state.meaning()) }
            }
            li.room.out { (icon("out")) b { "left out" } " or without CXL.mem: not touched" }
            li.room.broken { (icon("broken")) b { "broken" } " failed, with all below it" }
            @if seen.stop.is_some() {
                li.room.stopped { (icon("stopped")) b { "refused here" } " what the firmware stopped at" }
            }
        }
        (walk.windows())
        @if !walk.ranges.is_empty() {
            div.follow role="group" aria-label="Show the way of a range" {
                span { "Show the way of: " }
                @for (index, range) in walk.ranges.iter().enumerate() {
                    button type="button" aria-pressed="false" data-range=(index) {
                        code { (format!("{:#x}", range.mapping.hpa.0)) } " " (Size(range.mapping.size))
                    }
                }
            }
        }
        div.frame.tree role="region" aria-label="Topology" tabindex="0" {
            ul {
                @for (index, bridge) in fabric.bridges.iter().enumerate() { (walk.bridge(index, bridge)) }
            }
            @if !astray.is_empty() {
                p { "Below which port these are, nobody gave:" }
                ul { @for node in &astray { (node) } }
            }
        }
    }
}

/// What the place of a refusal is called on the page.
pub(super) const STOPPED: &str = "stopped";

fn refused(stop: &Stop) -> Markup {
    html! { p.loss { (icon("stopped")) b { "refused here: " } (stop.why) } }
}

impl Walk<'_> {
    fn stop(&self) -> Option<&Stop> {
        self.seen.stop.as_ref()
    }

    fn windows(&self) -> Markup {
        if self.fabric.windows.is_empty() {
            return html! { p { "The platform has no window for CXL memory, or nobody gave its table." } };
        }
        framed(
            "Windows",
            html! {
                table {
                    caption { "Windows: ranges that the platform sends to host bridges" }
                    thead { tr {
                        th scope="col" { "Window" } th scope="col" { "Addresses" } th scope="col" { "Size" }
                        th scope="col" { "In turn to" }
                    } }
                    tbody { @for window in &self.fabric.windows {
                        @let stop = self.stop().filter(|stop| stop.at == StopAt::Window(window.name.clone()));
                        tr class=[stop.map(|_| "stopped")] id=[stop.map(|_| STOPPED)] {
                            th scope="row" {
                                (window.name)
                                @if let Some(stop) = stop { (refused(stop)) }
                            }
                            td { code { @match window.base {
                                Some(base) => (format!("{:#x}", base.0)),
                                None => "no place",
                            } } }
                            td { (Size(window.size)) }
                            td { (self.turns(window)) }
                        }
                    } }
                }
            },
        )
    }

    fn turns(&self, window: &fabric::Window) -> String {
        let targets: Vec<String> = window
            .targets
            .iter()
            .map(|uid| {
                let bridge = self.fabric.bridges.iter().find(|bridge| bridge.uid == *uid);
                let why = match self.seen.unsaid.targets.contains(uid) {
                    true => "of which nobody gave a bridge",
                    false => "which is not there",
                };
                bridge.map_or_else(|| format!("UID {uid}, {why}"), |b| b.name.clone())
            })
            .collect();
        let arithmetic = match window.arithmetic {
            cxl_regs::Arithmetic::Modulo => "",
            cxl_regs::Arithmetic::Xor => ", picked by XOR",
        };
        match window.interleave.ways.count() {
            1 => targets.join(", "),
            _ => format!(
                "{}, {} each{arithmetic}",
                targets.join(", "),
                Size(window.interleave.granularity.bytes())
            ),
        }
    }

    fn bridge(&self, index: usize, bridge: &fabric::Bridge) -> Markup {
        let ports = self.ports(Parent::Bridge(index));
        let what = match self.seen.unsaid.uids.contains(&bridge.name) {
            true => "host bridge, UID not given".to_owned(),
            false => format!("host bridge, UID {}", bridge.uid),
        };
        let through = self.numbers(&self.below(Parent::Bridge(index)));
        self.node(&bridge.name, &what, bridge.hdm.as_ref(), &through, true, &ports)
    }

    fn ports(&self, parent: Parent) -> Vec<Markup> {
        let ports = self.fabric.ports.iter().enumerate().filter(|(_, port)| port.parent == parent);
        let port = |(index, port): (usize, &fabric::Port)| {
            let what = match parent {
                Parent::Bridge(_) => format!("root port {}", port.number),
                Parent::Switch(_) => format!("switch port {}", port.number),
            };
            let mut below = Vec::new();
            let mut reached = Vec::new();
            for (at, switch) in self.fabric.switches.iter().enumerate() {
                if switch.port == index {
                    reached.extend(self.below(Parent::Switch(at)));
                    below.push(self.switch(at, switch));
                }
            }
            for (at, device) in self.fabric.devices.iter().enumerate() {
                if device.port == index {
                    reached.push(at);
                    below.push(self.device(at, device));
                }
            }
            let through = self.numbers(&reached);
            self.node(&port.name, &what, None, &through, false, &below)
        };
        ports.map(port).collect()
    }

    fn switch(&self, at: usize, switch: &fabric::Switch) -> Markup {
        let through = self.numbers(&self.below(Parent::Switch(at)));
        let ports = self.ports(Parent::Switch(at));
        self.node(&switch.name, "switch", switch.hdm.as_ref(), &through, true, &ports)
    }

    /// What nobody gave the place of.
    fn astray(&self) -> Vec<Markup> {
        let astray = |port: usize| port >= self.fabric.ports.len();
        let switches = self.fabric.switches.iter().enumerate();
        let switches = switches.filter(|(_, switch)| astray(switch.port));
        let switches = switches.map(|(at, switch)| self.switch(at, switch));
        let devices = self.fabric.devices.iter().enumerate();
        let devices = devices.filter(|(_, device)| astray(device.port));
        switches.chain(devices.map(|(at, device)| self.device(at, device))).collect()
    }

    fn device(&self, index: usize, device: &fabric::Device) -> Markup {
        let parts = [(device.volatile, "volatile"), (device.persistent, "persistent")];
        let parts = parts.iter().filter(|(size, _)| *size > 0);
        let parts: Vec<String> =
            parts.map(|(size, name)| format!("{} {name}", Size(*size))).collect();
        let unsaid = self.seen.unsaid.capacities.contains(&device.name);
        let mut what = match parts.is_empty() {
            _ if unsaid => "device, capacity not given".to_owned(),
            true => "device without memory".to_owned(),
            false => format!("device, {}", parts.join(" and ")),
        };
        if !device.present {
            what += ", not plugged in";
        }
        let through = self.numbers(&[index]);
        self.node(&device.name, &what, device.hdm.as_ref(), &through, true, &[])
    }

    /// The devices below a bridge or switch.
    fn below(&self, parent: Parent) -> Vec<usize> {
        let belongs = |mut port: usize| {
            for _ in 0..=self.fabric.switches.len() {
                match self.fabric.ports.get(port).map(|port| port.parent) {
                    Some(found) if found == parent => return true,
                    Some(Parent::Switch(switch)) => match self.fabric.switches.get(switch) {
                        Some(switch) => port = switch.port,
                        None => return false,
                    },
                    _ => return false,
                }
            }
            false
        };
        let devices = self.fabric.devices.iter().enumerate();
        devices.filter(|(_, device)| belongs(device.port)).map(|(index, _)| index).collect()
    }

    /// The ranges that lead to any of these devices.
    fn numbers(&self, devices: &[usize]) -> Vec<usize> {
        let leads = |(_, range): &(usize, &Range<'_>)| {
            range.direct.members.iter().any(|member| devices.contains(&member.device))
        };
        self.ranges.iter().enumerate().filter(leads).map(|(index, _)| index).collect()
    }

    /// A component, its decoders, and what is below it.
    fn node(
        &self,
        name: &str,
        what: &str,
        hdm: Option<&HdmImage>,
        through: &[usize],
        decodes: bool,
        below: &[Markup],
    ) -> Markup {
        let list =
            |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let stop =
            self.stop().filter(|stop| matches!(&stop.at, StopAt::Component(at, _) if at == name));
        // Of the component that was refused the record says the same once more.
        let lost = self.seen.lost.get(name).filter(|_| stop.is_none());
        let class = match lost {
            _ if stop.is_some() => "stopped",
            Some(Loss::Broken(_)) => "broken",
            Some(Loss::LeftOut(_) | Loss::NotMem(_)) => "out",
            Some(Loss::Unused) | None => "",
        };
        html! {
            li {
                div class={ "node " (class) } id=[stop.map(|_| STOPPED)] data-ranges=(list(through)) {
                    p.name { b { (name) } " " span { (what) } }
                    @if let Some(stop) = stop { (refused(stop)) }
                    @match lost {
                        Some(Loss::Broken(why)) => p.loss { (icon("broken")) b { "broken: " } (why) },
                        Some(Loss::LeftOut(why)) => p.loss { (icon("out")) b { "left out: " } (why) },
                        Some(Loss::NotMem(why)) => p.loss { (icon("out")) b { "no CXL.mem: " } (why) },
                        Some(Loss::Unused) => p.loss { (icon("spare")) "no region needs it" },
                        None => {},
                    }
                    @if let Some(hdm) = hdm { (self.rooms(name, hdm, through)) }
                    @else if self.seen.unsaid.registers.contains(name) { p.pass { "registers not given" } }
                    @else if decodes { p.pass { "no decoders: passes everything through" } }
                }
                @if !below.is_empty() { ul { @for child in below { (child) } } }
            }
        }
    }

    fn rooms(&self, name: &str, hdm: &HdmImage, through: &[usize]) -> Markup {
        let spare = |(index, image): &(usize, &DecoderImage)| {
            State::of(image) == State::Spare && !self.stopped_at(name, *index)
        };
        let all = || hdm.decoders.iter().enumerate();
        let spares = all().filter(spare).count();
        html! {
            ul.rooms {
                @for (index, image) in all().filter(|room| !spare(room)) {
                    (self.room(name, index, image, through))
                }
                @if spares > 0 {
                    li.room.spare { (icon("spare")) b { (spares) " spare" } }
                }
            }
        }
    }

    /// Whether the firmware stopped at this decoder.
    fn stopped_at(&self, name: &str, index: usize) -> bool {
        self.stop().is_some_and(|stop| {
            matches!(&stop.at, StopAt::Component(at, Some(found)) if at == name && usize::from(*found) == index)
        })
    }

    fn room(&self, name: &str, index: usize, image: &DecoderImage, through: &[usize]) -> Markup {
        let mine = |number: &&usize| {
            let inside = |range: &Range<'_>| {
                let first = range.mapping.hpa.0;
                first >= image.base() && first - image.base() < image.size()
            };
            self.ranges.get(**number).is_some_and(inside)
        };
        let mine: Vec<usize> = through.iter().filter(mine).copied().collect();
        let mut state = State::of(image);
        let sealed = |number: &usize| self.ranges.get(*number).is_some_and(|range| range.sealed);
        if state == State::Locked && !mine.is_empty() && mine.iter().all(sealed) {
            state = State::Sealed;
        }
        let index = index as u8;
        let fate = self.seen.fates.get(&(name.to_owned(), index));
        let numbers = mine.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let stopped = self.stopped_at(name, index.into());
        html! {
            li class={ "room " (state.class()) @if stopped { " stopped" } } data-ranges=(numbers) {
                (state.icon())
                b {
                    "decoder " (index) ": " (state.word()) @if let Some(fate) = fate { ", " (fate) }
                    @if stopped { ", " (icon("stopped")) "refused here" }
                }
                " " code { (format!("{:#x}", image.base())) } " " (Size(image.size()))
                (turns(image.control()))
            }
        }
    }
}

/// How a decoder shares its range.
fn turns(control: Control) -> String {
    match (Ways::decode(control.ways()), Granularity::decode(control.granularity())) {
        (Ok(Ways::One), _) => String::new(),
        (Ok(ways), Ok(granularity)) => format!(", {}", Interleave::new(ways, granularity)),
        _ => ", reserved ways or granularity".to_owned(),
    }
}

/// The picture, and the same as a table.
pub(super) fn map(map: &Map<'_>, seen: &Seen) -> Markup {
    let picture = map.to_string();
    let Seen { fabric, mappings, .. } = seen;
    let name = |index: usize| fabric.devices.get(index).map_or("?", |device| device.name.as_str());
    html! {
        figure.map {
            div.frame role="region" aria-label="Memory map as a picture" tabindex="0" {
                (PreEscaped(picture))
            }
        }
        (framed("Memory map as a table", html! {
            table {
                caption { "The same as a table: each range of each window, and what is behind it" }
                thead { tr {
                    th scope="col" { "Window" } th scope="col" { "First address" } th scope="col" { "Size" }
                    th scope="col" { "Leads to" } th scope="col" { "Locks" }
                } }
                tbody { @for mapping in mappings {
                    tr {
                        th scope="row" {
                            @if let Some(window) = fabric.windows.get(mapping.window) { (window.name) }
                        }
                        td { @if mapping.span().is_some() { code { (format!("{:#x}", mapping.hpa.0)) } } @else { "no place" } }
                        td { (Size(mapping.size)) }
                        @match &mapping.how {
                            Reach::Direct(direct) => {
                                td {
                                    @for (index, member) in direct.members.iter().enumerate() {
                                        @if index > 0 { ", " }
                                        (name(member.device)) " from DPA " (first_dpa(mapping, direct, member.dpa.0))
                                    }
                                    @if direct.members.len() > 1 {
                                        "; " (Size(direct.interleave().granularity.bytes())) " in turn"
                                    }
                                }
                                td { @if svg::locked(fabric, mapping, direct) { "locked" } @else { "NOT locked" } }
                            },
                            Reach::Trapped { reason } => { td { "no memory: " (ReasonText(fabric, *reason).to_string()) } td { "–" } },
                        }
                    }
                } }
            }
        }))
    }
}

fn first_dpa(mapping: &Mapping, direct: &Direct, dpa: u64) -> String {
    let offset = direct.interleave().dpa_offset(mapping.hpa.0.saturating_sub(direct.base.0));
    format!("{:#x}", dpa.saturating_add(offset))
}
