//! The plan held against what Linux has, region by region.
//!
//! **Invariant**: a verdict is `ok` only if Linux showed everything that is planned, and nothing that
//! is not: what could not be seen is a gap, and so is a plan of nothing.

use std::fmt::{self, Display, Formatter};

use cxl_firmware::committed::Place;
use cxl_firmware::topology::Partition;
use cxl_regs::{Component, Route, Size};
use schemars::JsonSchema;
use serde::Serialize;

use super::planned::{self, Planned, decoder_name, device_name, set};
use super::state::Difference;
use super::sysfs::{self, Sysfs};
use super::{Facts, list, text};
use crate::attack;
use crate::console::Collected;
use crate::report::{self, address, maybe_address};
use cxl_model::dump::facts::hex;
use cxl_model::scenario::Scenario;
use cxl_model::words::counted;

/// What one boot left to judge by.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The machine, its windows where QEMU has them.
    pub scenario: &'a Scenario,
    /// What the library plans for it.
    pub planned: &'a Planned,
    /// What the image said that it committed.
    pub said: &'a Collected,
    /// What Linux says.
    pub facts: &'a Facts,
    /// How the machine ended, if not by switching itself off.
    pub end: Option<String>,
    /// QEMU's version; `None` on our own machine.
    pub qemu: Option<&'a str>,
    /// What this QEMU has otherwise than the scenario.
    pub notes: &'a [String],
}

/// What is planned, what Linux has, and each gap between them.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Verdict {
    /// `ok`, `failed` with gaps, or `refused`: Linux did not come to its end.
    pub result: report::Verdict,
    /// The scenario.
    pub scenario: String,
    /// The version of Linux, if it said so.
    pub linux: Option<String>,
    /// The version of QEMU, if it was run.
    pub qemu: Option<String>,
    /// Why there is nothing to compare.
    pub refusal: Option<String>,
    /// Regions that are planned.
    pub planned: usize,
    /// Those of them that Linux has just so.
    pub as_planned: usize,
    /// Bytes of planned volatile regions that are online, as memory of their region.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub online: u64,
    /// Bytes of planned persistent regions that Linux has as persistent memory.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub persistent: u64,
    /// The planned regions.
    pub regions: Vec<Compared>,
    /// Everything that is not as planned.
    pub gaps: Vec<Gap>,
    /// What this QEMU has otherwise than the scenario, and whom Linux calls what.
    pub notes: Vec<String>,
    /// On our own machine: fields that its registers have, each held against Linux's.
    pub fields: Option<usize>,
    /// What came of root's attack on the locks, if it was asked for.
    pub attack: Option<attack::Report>,
    /// What Linux has, in the shape of `cxl list -vv`.
    pub list: Vec<serde_json::Value>,
}

/// A planned region, and what Linux has there.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Compared {
    /// First address.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// Devices that share it.
    pub ways: u64,
    /// Bytes that go to one of them before it is the next one's turn.
    pub granularity: u64,
    /// `volatile` or `persistent`.
    pub memory: String,
    /// Every decoder on every path is to be locked.
    pub locked: bool,
    /// The devices in order of position.
    pub members: Vec<Member>,
    /// There is no gap here.
    pub as_planned: bool,
    /// Linux's region at this address.
    pub linux: Option<Found>,
}

/// What Linux has at a planned address.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Found {
    /// Its name for the region.
    pub name: String,
    /// The region is committed.
    pub in_use: bool,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// Ways.
    pub ways: u64,
    /// Granularity.
    pub granularity: u64,
    /// Its word for the kind of memory.
    pub mode: String,
    /// Every decoder on every path is locked.
    pub locked: bool,
    /// The devices in order of position.
    pub members: Vec<Member>,
    /// Bytes whose memory blocks are online.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub online: u64,
    /// The nodes that these blocks are in.
    pub nodes: Vec<u64>,
}

/// A device's share of a region.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Member {
    /// The device's name.
    pub device: String,
    /// Its own address of the first byte; `None` if Linux does not show it.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub dpa: Option<u64>,
    /// Its bytes.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub size: Option<u64>,
}

/// One thing that is not as planned.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Gap {
    /// First address of the planned region that it is about.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub region: Option<u64>,
    /// What, in a sentence.
    pub message: String,
    /// The line of the kernel's log that belongs to it.
    pub log: Option<String>,
}

impl Display for Gap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.log.as_ref().map_or(Ok(()), |line| write!(f, ": {line}"))
    }
}

impl Verdict {
    /// Nothing came to be compared, and why.
    pub fn refused(scenario: &str, linux: Option<&str>, why: String) -> Self {
        Self {
            result: report::Verdict::Refused,
            scenario: scenario.to_owned(),
            linux: linux.map(str::to_owned),
            qemu: None,
            refusal: Some(why),
            planned: 0,
            as_planned: 0,
            online: 0,
            persistent: 0,
            regions: Vec::new(),
            gaps: Vec::new(),
            notes: Vec::new(),
            fields: None,
            attack: None,
            list: Vec::new(),
        }
    }

    /// Holds what our models have against what Linux shows of them.
    pub(super) fn hold(&mut self, fields: usize, differences: &[Difference]) {
        self.fields = Some(fields);
        for difference in differences {
            self.gaps.push(Gap { region: None, message: difference.to_string(), log: None });
        }
        if !differences.is_empty() {
            self.result = report::Verdict::Failed;
        }
    }

    /// Takes what came of an attack: what did not hold is a failure.
    pub(super) fn attacked(&mut self, report: Option<attack::Report>) {
        let held = report.as_ref().is_some_and(attack::Report::held);
        if !held {
            let message = match &report {
                None => "root's attack on the locks did not begin",
                Some(_) => "root's attack on the locks did not leave them as they are to be",
            };
            self.gaps.push(Gap { region: None, message: message.to_owned(), log: None });
            self.result = report::Verdict::Failed;
        }
        self.attack = report;
    }

    /// The comparison.
    pub fn of(evidence: &Evidence<'_>) -> Self {
        let sysfs = Sysfs(evidence.facts);
        let mut judge = Judge {
            evidence,
            sysfs,
            regions: sysfs.regions(),
            decoders: sysfs.decoders(evidence.scenario),
            gaps: Vec::new(),
        };
        judge.the_run();
        judge.the_image();
        let regions = &evidence.planned.regions;
        let mut compared: Vec<_> = regions.iter().map(|region| judge.region(region)).collect();
        judge.nothing_beside_the_plan();
        let mut notes = evidence.notes.to_vec();
        notes.extend(judge.other_names());
        let Judge { gaps, .. } = judge;
        for region in &mut compared {
            region.as_planned = !gaps.iter().any(|gap| gap.region == Some(region.hpa));
        }
        let bytes = |memory: &str, of: fn(&Compared, &Found) -> u64| {
            let there = compared.iter().filter(|region| region.memory == memory);
            there.filter_map(|region| Some(of(region, region.linux.as_ref()?))).sum()
        };
        Self {
            result: match gaps.is_empty() {
                true => report::Verdict::Ok,
                false => report::Verdict::Failed,
            },
            scenario: evidence.scenario.name.clone(),
            linux: sysfs.version().map(str::to_owned),
            qemu: evidence.qemu.map(str::to_owned),
            refusal: None,
            planned: regions.len(),
            as_planned: compared.iter().filter(|region| region.as_planned).count(),
            online: bytes("volatile", |_, found| if found.in_use { found.online } else { 0 }),
            persistent: bytes(
                "persistent",
                |region, _| {
                    if region.as_planned { region.size } else { 0 }
                },
            ),
            regions: compared,
            gaps,
            notes,
            fields: None,
            attack: None,
            list: list::list(evidence.facts),
        }
    }
}

struct Judge<'a> {
    evidence: &'a Evidence<'a>,
    sysfs: Sysfs<'a>,
    regions: Vec<sysfs::Region<'a>>,
    decoders: Vec<sysfs::Decoder<'a>>,
    gaps: Vec<Gap>,
}

/// How a region is called in gaps.
fn called(region: &planned::Region) -> String {
    format!("region of {} at {:#x}", Size(region.span.size()), region.span.base().0)
}

impl<'a> Judge<'a> {
    fn gap(&mut self, message: impl Into<String>, log: Option<&str>) {
        let (message, log) = (message.into(), log.map(str::to_owned));
        self.gaps.push(Gap { region: None, message, log });
    }

    fn gap_in(&mut self, region: &planned::Region, what: impl Display, log: Option<&str>) {
        let message = format!("{}: {what}", called(region));
        let (region, log) = (Some(region.span.base().0), log.map(str::to_owned));
        self.gaps.push(Gap { region, message, log });
    }

    /// Linux ran with its drivers, and to its end.
    fn the_run(&mut self) {
        let (sysfs, facts) = (self.sysfs, self.evidence.facts);
        if sysfs.version().is_none() {
            self.gap("Linux does not say which it is", None);
        }
        for driver in sysfs.not_loaded() {
            self.gap(format!("Linux did not load the driver {driver}"), None);
        }
        const TROUBLE: [&str; 4] = ["BUG:", "kernel BUG at", "Oops:", "general protection fault"];
        let trouble = |line: &&str| TROUBLE.iter().any(|word| line.contains(word));
        if let Some(line) = facts.log().lines().find(trouble) {
            self.gap("Linux met with a fault of its own", Some(line));
        }
        if facts.log().is_empty() {
            self.gap("Linux's log is empty", None);
        }
        if let Some(end) = &self.evidence.end {
            self.gap(end.clone(), None);
        }
    }

    /// The image committed what is planned, and Linux has the table that it made.
    fn the_image(&mut self) {
        let &Evidence { scenario, planned, said, facts, .. } = self.evidence;
        for lost in &planned.lost {
            self.gap(lost.clone(), None);
        }
        for (region, message) in planned.against(said, scenario) {
            match region.and_then(|index| planned.regions.get(index)) {
                Some(region) => self.gap_in(region, message, None),
                None => self.gap(message, None),
            }
        }
        if let Some(end) = said.end {
            self.gap(format!("the image ended by itself: {}", end.name()), None);
        }
        match (&said.cedt, facts.bytes("/sys/firmware/acpi/tables/CEDT")) {
            (None, _) => self.gap("the image made no CEDT", None),
            (_, None) => self.gap("Linux has no CEDT", None),
            (Some(made), Some(has)) if made.bytes != has => {
                self.gap("Linux's CEDT is not the one that the image made", None);
            }
            _ => {}
        }
    }

    /// One planned region.
    fn region(&mut self, planned: &planned::Region) -> Compared {
        let scenario = self.evidence.scenario;
        let (base, size) = (planned.span.base().0, planned.span.size());
        let found = self.regions.iter().find(|region| region.base == Some(base)).cloned();
        let log = self.log_of(planned, found.as_ref());
        let locked = self.decoders_of(planned, found.is_some());
        let (online, nodes) = self.sysfs.online(base, size);
        match &found {
            None => {
                let log = log.unwrap_or("its log says nothing of it");
                self.gap_in(planned, "Linux has no region there", Some(log));
            }
            Some(found) => self.shape(planned, found, log),
        }
        match planned.partition {
            Partition::Volatile => self.volatile(planned, found.as_ref(), online, &nodes),
            Partition::Persistent => self.persistent(planned, log),
        }
        Compared {
            hpa: base,
            size,
            ways: planned.interleave.ways.count().into(),
            granularity: planned.interleave.granularity.bytes(),
            memory: planned.partition.to_string(),
            locked: planned.locked,
            members: planned
                .members
                .iter()
                .map(|member| Member {
                    device: device_name(scenario, &member.device),
                    dpa: Some(member.dpa.base().0),
                    size: Some(member.dpa.size()),
                })
                .collect(),
            as_planned: false,
            linux: found.map(|found| Found {
                name: found.name.to_owned(),
                in_use: found.in_use,
                size: found.size.unwrap_or(0),
                ways: found.ways.unwrap_or(0),
                granularity: found.granularity.unwrap_or(0),
                mode: found.mode.unwrap_or("none").to_owned(),
                locked,
                members: self.members(&found),
                online,
                nodes,
            }),
        }
    }

    /// The region's own attributes.
    fn shape(&mut self, planned: &planned::Region, found: &sysfs::Region<'_>, log: Option<&str>) {
        let name = found.name;
        if !found.in_use {
            let what = format!("Linux has {name} there and does not use it");
            self.gap_in(planned, what, log.or(Some("its log says nothing of it")));
        }
        let size = planned.span.size();
        if found.size != Some(size) {
            let has = or_nothing(found.size.map(Size));
            self.gap_in(planned, format!("{name} has {has}, not {}", Size(size)), log);
        }
        let ways = u64::from(planned.interleave.ways.count());
        let granularity = planned.interleave.granularity.bytes();
        if found.ways != Some(ways) || ways > 1 && found.granularity != Some(granularity) {
            let (ways, at) = (or_nothing(found.ways), or_nothing(found.granularity.map(Size)));
            let what = format!("{name} is {ways}-way at {at}, not {}", set(planned.interleave));
            self.gap_in(planned, what, log);
        }
        let mode = match planned.partition {
            Partition::Volatile => "ram",
            Partition::Persistent => "pmem",
        };
        if found.mode != Some(mode) {
            let what = format!("{name} is {}, not {mode}", or_nothing(found.mode));
            self.gap_in(planned, what, log);
        }
        let scenario = self.evidence.scenario;
        let members = self.members(found);
        for (position, member) in planned.members.iter().enumerate() {
            let want = device_name(scenario, &member.device);
            let has = members.get(position);
            if has.map(|has| &has.device) != Some(&want) {
                let has = or_nothing(has.map(|has| has.device.as_str()));
                let what = format!("position {position} of {name} is {has}, not {want}");
                self.gap_in(planned, what, log);
            }
        }
    }

    /// The devices of a region in order of position.
    fn members(&self, region: &sysfs::Region<'_>) -> Vec<Member> {
        let member = |name: &&str| {
            let decoder = self.decoders.iter().find(|decoder| decoder.name == *name);
            let place = decoder.and_then(|decoder| decoder.place);
            let scenario = self.evidence.scenario;
            Member {
                device: match place {
                    Some(Place { at, component: Component::Device, .. }) => {
                        device_name(scenario, &at)
                    }
                    _ => "nothing".to_owned(),
                },
                dpa: decoder.and_then(|decoder| decoder.dpa),
                size: decoder.and_then(|decoder| decoder.share),
            }
        };
        region.targets.iter().map(member).collect()
    }

    /// Every decoder on the paths of a region; whether all of them are there and locked.
    fn decoders_of(&mut self, planned: &planned::Region, told: bool) -> bool {
        let scenario = self.evidence.scenario;
        let (mut missing, mut wrong, mut all_locked) = (Vec::new(), Vec::new(), true);
        for (place, decoder) in &planned.decoders {
            let name = decoder_name(scenario, place);
            let found = self.decoders.iter().find(|found| found.place == Some(*place));
            let Some(found) = found else {
                missing.push(name);
                all_locked = false;
                continue;
            };
            all_locked &= found.locked;
            if found.locked != planned.locked {
                let is = if found.locked { "locked" } else { "not locked" };
                wrong.push(format!("{name} is {is} in Linux"));
            }
            let (base, size) = (decoder.span.base().0, decoder.span.size());
            if found.base != Some(base) || found.size != size {
                let (at, size) = (found.base.map(hex), Size(found.size));
                wrong.push(format!("{name} has {size} at {} in Linux", or_nothing(at)));
            }
            let ways = u64::from(decoder.interleave.ways.count());
            let granularity = decoder.interleave.granularity.bytes();
            if found.ways != Some(ways) || ways > 1 && found.granularity != Some(granularity) {
                let (ways, at) = (or_nothing(found.ways), or_nothing(found.granularity.map(Size)));
                let planned = set(decoder.interleave);
                wrong.push(format!("{name} is {ways}-way at {at} in Linux, not {planned}"));
            }
            match decoder.route {
                Route::Targets(targets) => {
                    let want = targets.used(decoder.interleave.ways);
                    let want: Vec<_> = want.iter().map(u8::to_string).collect();
                    let (want, has) = (want.join(","), or_nothing(found.targets));
                    if has != want {
                        wrong.push(format!("{name} leads to ports {has} in Linux, not {want}"));
                    }
                }
                Route::Skip(_) => {
                    let member = planned.members.iter().find(|member| member.device == place.at);
                    let want = member.map(|member| (member.dpa.base().0, member.dpa.size()));
                    if found.dpa.zip(found.share) != want {
                        let (dpa, share) = (found.dpa.map(hex), found.share.map(Size));
                        let (dpa, share) = (or_nothing(dpa), or_nothing(share));
                        wrong.push(format!("{name} has {share} from DPA {dpa} on in Linux"));
                    }
                }
            }
        }
        // Without a region the reason is said there, and which decoders Linux lacks goes with it.
        if !missing.is_empty() {
            let what = format!("Linux does not have {}", missing.join(", "));
            if told || missing.len() < planned.decoders.len() {
                self.gap_in(planned, what, None);
            }
        }
        for what in wrong {
            self.gap_in(planned, what, None);
        }
        all_locked
    }

    /// Volatile memory: online, all of it, as memory of this region, in a node that has just that;
    /// and it holds what is put there.
    fn volatile(
        &mut self,
        planned: &planned::Region,
        found: Option<&sysfs::Region<'_>>,
        online: u64,
        nodes: &[u64],
    ) {
        let (base, size) = (planned.span.base().0, planned.span.size());
        let dax = self.sysfs.dax(base);
        let region = found.filter(|found| found.in_use).map(|found| format!("/{}/", found.name));
        let of_region = |path: &str| region.as_ref().is_some_and(|region| path.contains(region));
        match &dax {
            Some(dax) if of_region(dax.path) => {
                let name = dax.name;
                if dax.size != Some(size) {
                    let has = or_nothing(dax.size.map(Size));
                    self.gap_in(planned, format!("{name} has {has} of it"), None);
                }
                if dax.driver != Some("kmem") {
                    let has = or_nothing(dax.driver);
                    self.gap_in(planned, format!("{name} has the driver {has}, not kmem"), None);
                }
                if online == size && dax.node.is_none_or(|node| !nodes.contains(&node)) {
                    let what = format!(
                        "{name} is of node {}, its memory of {nodes:?}",
                        or_nothing(dax.node)
                    );
                    self.gap_in(planned, what, None);
                }
            }
            _ if online > 0 => {
                let log = self.claimed_by_others(base);
                let mut what =
                    format!("{} of it are online, but not as a CXL region", Size(online));
                if let Some(dax) = &dax {
                    let of = dax.path.rsplit('/').nth(1).unwrap_or("nothing");
                    what += &format!(" ({} of {of})", dax.name);
                }
                self.gap_in(planned, what, log);
                return;
            }
            _ if region.is_some() => {
                self.gap_in(planned, "Linux has no DAX device over it", None);
                return;
            }
            // That there is no region says it.
            _ => return,
        }
        if online != size {
            let has = if online == 0 { "none".to_owned() } else { Size(online).to_string() };
            self.gap_in(planned, format!("{has} of its memory is online"), None);
            return;
        }
        // The guest has copied a program into the memory of each, and compared it.
        let copied = dax.map(|dax| format!("run/{}/copy", dax.name));
        let copied = copied.and_then(|copied| self.evidence.facts.text(&copied));
        if copied != Some("same") {
            let what = "a program that was copied into its memory did not come back the same";
            self.gap_in(planned, what, None);
        }
        let regions = &self.evidence.planned.regions;
        match nodes {
            [] => self.gap_in(planned, "its memory is in no node", None),
            [0] => self.gap_in(planned, "its memory is in node 0, which is the machine's", None),
            [node] => {
                // What the node has besides is what other regions have there.
                let bytes = regions.iter().map(|region| {
                    let (bytes, of) = self.sysfs.online(region.span.base().0, region.span.size());
                    if of.contains(node) { bytes } else { 0 }
                });
                let (want, has) = (bytes.sum(), self.sysfs.node_total(*node));
                if has != Some(want) {
                    let has = or_nothing(has.map(Size));
                    let what = format!("node {node} has {has}, {} of it online", Size(want));
                    self.gap_in(planned, what, None);
                }
            }
            several => self.gap_in(planned, format!("its memory is in nodes {several:?}"), None),
        }
    }

    /// Persistent memory: a region of the nd bus with a driver.
    fn persistent(&mut self, planned: &planned::Region, log: Option<&str>) {
        let (base, size) = (planned.span.base().0, planned.span.size());
        match self.sysfs.nd(base) {
            None => self.gap_in(planned, "Linux has no persistent memory (nd region) there", log),
            Some(nd) => {
                if nd.size != Some(size) {
                    let has = or_nothing(nd.size.map(Size));
                    self.gap_in(planned, format!("the nd {} has {has} of it", nd.name), log);
                }
                if nd.driver.is_none() {
                    self.gap_in(planned, format!("the nd {} has no driver", nd.name), log);
                }
            }
        }
        let (online, _) = self.sysfs.online(base, size);
        if online > 0 {
            let what = format!("{} of this persistent memory are online as RAM", Size(online));
            self.gap_in(planned, what, None);
        }
    }

    /// Linux has no region, decoder or memory that nobody planned, and something is planned.
    fn nothing_beside_the_plan(&mut self) {
        let &Evidence { scenario, planned, .. } = self.evidence;
        if planned.regions.is_empty() {
            self.gap("no region is planned, so there is none for Linux to have", None);
        }
        let is_planned = |base: Option<u64>| {
            planned.regions.iter().any(|region| Some(region.span.base().0) == base)
        };
        let mut more = Vec::new();
        for region in self.regions.iter().filter(|region| !is_planned(region.base)) {
            let (size, at) = (region.size.map(Size), region.base.map(hex));
            let (name, size, at) = (region.name, or_nothing(size), or_nothing(at));
            more.push(format!("Linux has {name}, {size} at {at}, which nobody planned"));
        }
        for decoder in &self.decoders {
            let known = planned
                .regions
                .iter()
                .any(|region| region.decoders.iter().any(|(at, _)| Some(*at) == decoder.place));
            if !known {
                let (name, size) = (decoder.name, Size(decoder.size));
                let at = or_nothing(decoder.base.map(hex));
                more.push(format!("Linux has {name}, {size} at {at}, which nobody planned"));
            }
        }
        for window in &scenario.windows {
            let Some(base) = window.base else { continue };
            let (online, _) = self.sysfs.online(base.0, window.size);
            let inside = planned.regions.iter().filter(|region| region.window == base.0);
            let of_regions: u64 = inside
                .map(|region| self.sysfs.online(region.span.base().0, region.span.size()).0)
                .sum();
            let rest = online.saturating_sub(of_regions);
            if rest > 0 {
                more.push(format!(
                    "{} of {} are online where no region is planned",
                    Size(rest),
                    window.name
                ));
            }
        }
        for what in more {
            self.gap(what, None);
        }
    }

    /// Linux counts memory devices in the order in which it comes to them: whom its log means.
    fn other_names(&self) -> Option<String> {
        let scenario = self.evidence.scenario;
        let members = self.evidence.planned.regions.iter().flat_map(|region| &region.members);
        let mut others = Vec::new();
        for member in members {
            let ours = device_name(scenario, &member.device);
            let theirs = self.sysfs.called(scenario, &member.device);
            let theirs = theirs.iter().find(|(name, _)| name.starts_with("mem"));
            let Some((theirs, _)) = theirs.filter(|(theirs, _)| *theirs != ours) else { continue };
            let other = format!("{theirs} is {ours}");
            if !others.contains(&other) {
                others.push(other);
            }
        }
        others.sort_unstable();
        (!others.is_empty()).then(|| format!("in Linux's words {}", others.join(", ")))
    }

    /// The line of the log that is most about a region: that names its address before one that names
    /// its parts, and a device before a bridge.
    fn log_of(
        &self,
        planned: &planned::Region,
        found: Option<&sysfs::Region<'_>>,
    ) -> Option<&'a str> {
        let (base, last) = (planned.span.base().0, planned.span.last().0);
        let mut names = vec![(format!("{base:#x}"), 8), (format!("{last:#x}"), 8)];
        names.extend(found.map(|found| (found.name.to_owned(), 4)));
        for decoder in &self.decoders {
            if planned.decoders.iter().any(|(place, _)| Some(*place) == decoder.place) {
                names.push((decoder.name.to_owned(), 4));
            }
        }
        for member in &planned.members {
            for (name, device) in self.sysfs.called(self.evidence.scenario, &member.device) {
                let name = (name.to_owned(), if device { 2 } else { 1 });
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let weight = |line: &str| -> u32 {
            let named = names.iter().filter(|(name, _)| holds_word(line, name));
            named.map(|(_, weight)| weight).sum()
        };
        let lines = self.sysfs.warnings().filter(|line| text::complains(line));
        let mut best: Option<(u32, &str)> = None;
        for line in lines {
            let weight = weight(line);
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, line));
            }
        }
        best.map(|(_, line)| line)
    }

    /// What Linux says of memory that another driver than CXL's took.
    fn claimed_by_others(&self, base: u64) -> Option<&'a str> {
        let address = format!("{base:#x}");
        let lines = self.evidence.facts.log().lines();
        { lines }.find(|line| line.contains("hmem") && holds_word(line, &address))
    }
}

/// Whether a line has this word, and not as a part of a longer one.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        let part = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        !part(before) && !part(after)
    })
}

/// What there is, or that there is nothing.
fn or_nothing(value: Option<impl Display>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let linux = self.linux.as_deref().unwrap_or("of no version");
        write!(f, "Linux {linux}")?;
        if let Some(qemu) = &self.qemu {
            write!(f, " on QEMU {qemu}")?;
        }
        if let Some(refusal) = &self.refusal {
            writeln!(f, ": refused")?;
            return writeln!(f, "  refusal           {refusal}");
        }
        let Self { planned, as_planned, .. } = self;
        write!(f, ": {as_planned} of {} as planned", counted(planned, "region"))?;
        let some =
            |bytes: u64| if bytes == 0 { "none".to_owned() } else { Size(bytes).to_string() };
        match (self.online, self.persistent) {
            (online, 0) => write!(f, ", {} online", some(online))?,
            (0, persistent) => write!(f, ", {} persistent", Size(persistent))?,
            (online, persistent) => {
                write!(f, ", {} online, {} persistent", Size(online), Size(persistent))?;
            }
        }
        let beside = self.gaps.iter().filter(|gap| gap.region.is_none()).count();
        if beside > 0 && as_planned == planned {
            write!(f, ", and {} beside them", counted(beside, "gap"))?;
        }
        writeln!(f)?;
        for gap in &self.gaps {
            writeln!(f, "  failure           {gap}")?;
        }
        for region in self.regions.iter().filter(|region| region.as_planned) {
            let Some(found) = &region.linux else { continue };
            write!(f, "  {:<16}  {:#018x}  {}", found.name, region.hpa, Size(region.size))?;
            if region.ways > 1 {
                write!(f, ", {}-way at {}", region.ways, Size(region.granularity))?;
            }
            let devices: Vec<_> = region.members.iter().map(|m| m.device.as_str()).collect();
            write!(f, ", of {}", devices.join(", "))?;
            write!(f, ", {}", if found.locked { "locked" } else { "not locked" })?;
            match found.nodes.as_slice() {
                [node] => writeln!(f, ", online in node {node}")?,
                _ => writeln!(f, ", persistent")?,
            }
        }
        if let Some(fields) = self.fields {
            let fields = counted(fields, "field");
            writeln!(f, "  registers         {fields} of our models, held against Linux's")?;
        }
        for note in &self.notes {
            writeln!(f, "  note              {note}")?;
        }
        self.attack.as_ref().map_or(Ok(()), |report| write!(f, "{report}"))
    }
}

#[cfg(test)]
mod tests {
    use super::holds_word;

    #[test]
    fn a_word_is_no_part_of_a_longer_one() {
        assert!(holds_word("cxl_mem mem1: no", "mem1"));
        assert!(!holds_word("cxl_mem mem10: no", "mem1"));
        assert!(!holds_word("cxl endpoint1: no", "port1"));
        assert!(holds_word("[mem 0x10000000-0x1fffffff]", "0x10000000"));
        assert!(!holds_word("0x100000000", "0x10000000"));
    }
}
