//! The report as text, for people who may never have seen CXL.
//!
//! **Invariant**: headings at column 0 say in plain words what follows; facts are indented, a label
//! first. Nothing in it varies from run to run but the section `measured`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use cxl_firmware::committed::Fate;
use cxl_regs::{DecodeError, Size, Targets, Ways};

use super::lines::{fact, heading, seen_by};
use super::{
    Component, Decoder, Facts, Finding, Kind, LastState, Locks, Measured, Member, Report, Required,
    Runner, Stages, Verdict, Witness, passed, picture,
};
use crate::attack::{Found, hold};
use cxl_model::trace::Count;
use cxl_model::words::counted;
use cxl_model::words::on_one_line;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.facts.fmt(f)?;
        match &self.measured {
            Some(measured) => measured.fmt(f),
            None => Ok(()),
        }
    }
}

impl Display for Measured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        heading(f, "measured in this run")?;
        if self.guest.is_some() {
            seen_by(f, "the host; what the guest printed or says of itself is its own words")?;
        }
        let Some(guest) = &self.guest else { return fact(f, "firmware", ms(self.run)) };
        fact(f, "guest", format_args!("{} to set up, {} to run", ms(guest.setup), ms(self.run)))?;
        guest.fmt(f)
    }
}

impl Display for Facts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let result = match self.result {
            Verdict::Ok => "ok",
            Verdict::Refused => "refused",
            Verdict::Failed => "FAILED",
        };
        writeln!(f, "scenario {}: {result}", self.scenario)?;
        if !self.description.is_empty() {
            fact(f, "about", on_one_line(&self.description))?;
        }
        if let Some(Runner::Models { why, .. }) = &self.ran {
            fact(f, "ran", format_args!("on the device models, {why}"))?;
        }
        if !self.not_done().is_empty() {
            let not_done = self.not_done().join(", ");
            fact(f, "NOT DONE", format_args!("{not_done}: it takes a guest"))?;
        }
        if self.foreign {
            fact(f, "firmware", "somebody else's image; below is what it left in the registers")?;
        }
        // The scenario's policy is what our firmware was asked for.
        let words = if self.foreign { &[][..] } else { &self.policy.words[..] };
        for (index, words) in words.iter().enumerate() {
            fact(f, if index == 0 { "policy" } else { "" }, words)?;
        }
        self.verdict(f)?;
        let notes = self.findings.iter().filter(|finding| !finding.failure);
        for finding in notes.filter(|finding| !tells_of_unused(finding)) {
            fact(f, "note", finding.sentence())?;
        }
        heading(f, "machine: what hangs below what [and what the firmware calls it]")?;
        seen_by(f, "nobody: it is what the scenario says")?;
        self.topology.iter().try_for_each(|component| component.fmt(f))?;
        picture::draw(f, self)?;
        self.decoders(f)?;
        passed::section(f, &self.passed)?;
        self.cedt(f)?;
        self.traffic(f)?;
        self.last.as_ref().map_or(Ok(()), |last| self.last(f, last))?;
        self.attack.as_ref().map_or(Ok(()), |attack| self.attacked(f, attack))?;
        self.peer.as_ref().map_or(Ok(()), |peer| peer.fmt(f))?;
        self.unused(f)
    }
}

/// Whether a finding is about something that was found and is not used, or not as it could be.
fn tells_of_unused(finding: &Finding) -> bool {
    finding.witness == Witness::Plan
        || finding.code == Some(cxl_firmware::Code::VERIFY_UNUSED.number())
}

impl Display for Locks {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { in_use, in_force, not_locked, not_sealed, .. } = self;
        let decoders = counted(*in_use, "decoder");
        let word = self.word();
        fact(f, "locks", format_args!("{in_force} of {decoders} in use locked: {word}"))?;
        // Where nothing is locked, each decoder says so in its line.
        for why in not_locked.iter().filter(|_| *in_force > 0) {
            fact(f, "not locked", why)?;
        }
        for why in not_sealed {
            fact(f, "not sealed", why)?;
        }
        Ok(())
    }
}

impl Facts {
    /// The two verdicts; every write is told by `cxl-harness attack`.
    fn attacked(&self, f: &mut Formatter<'_>, attack: &crate::attack::Report) -> fmt::Result {
        heading(
            f,
            "attack: each bit in each state, then each width and whole values where locks hold",
        )?;
        seen_by(f, "the host, which compares every register after every write of our own image")?;
        let (tried, held, allowed) = (attack.tried, attack.held, attack.allowed);
        let (changed, short) = (attack.through(), attack.and_short());
        fact(
            f,
            "writes",
            format_args!(
                "{tried} tried: {held} held, {allowed} allowed by the rules, {changed} changed \
                 what they must not{short}"
            ),
        )?;
        let integrity = match attack.integrity.found() {
            Found::Nothing => "nothing to hold: no range is sealed".to_owned(),
            Found::NotKnown => format!("not known: {}", attack.cut_off()),
            Found::Holds(ranges) => format!("holds: {}", hold(ranges)),
            Found::Broken => "BROKEN".to_owned(),
        };
        fact(f, "integrity", integrity)?;
        for open in &attack.integrity.open {
            fact(f, "not sealed", open)?;
        }
        for breach in &attack.integrity.breaches {
            fact(f, "", breach)?;
        }
        fact(f, "availability", "what no lock covers, so that an attacker can still do it:")?;
        // What differs between components, such as a number of spare decoders, is in the details.
        let mut open: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
        for way in &attack.availability {
            let (components, consequences) = open.entry(&way.register).or_default();
            components.insert(&way.component);
            consequences.insert(&way.consequence);
        }
        for (what, (components, consequences)) in open {
            let components = Vec::from_iter(components).join(", ");
            match Vec::from_iter(consequences).as_slice() {
                [consequence] => fact(f, "", format_args!("{what}: {consequence} ({components})"))?,
                _ => fact(f, "", format_args!("{what} ({components})"))?,
            }
        }
        match &self.repeat {
            Some(command) => fact(f, "every write", command),
            None => Ok(()),
        }
    }

    /// What is other than it was handed over.
    fn last(&self, f: &mut Formatter<'_>, last: &LastState) -> fmt::Result {
        heading(f, format_args!("not as it was handed over: the machine {}", last.moment))?;
        seen_by(f, "the host, in the models' registers and in what KVM was told")?;
        last.locks.fmt(f)?;
        if last.changed.decoders {
            if last.decoders.is_empty() {
                fact(f, "decoders", "none is in use")?;
            }
            last.decoders.iter().try_for_each(|decoder| decoder.line(f, &self.topology))?;
        }
        for mapping in last.mappings.iter().filter(|_| last.changed.mappings) {
            let what = match (&mapping.message, mapping.members.as_slice()) {
                (Some(message), _) => message.clone(),
                (None, members) => {
                    let to = |member: &Member| format!("{} DPA {:#x}", member.device, member.dpa);
                    format!("to {}", members.iter().map(to).collect::<Vec<_>>().join(", "))
                }
            };
            let (at, size) = (mapping.hpa, Size(mapping.size));
            fact(f, &mapping.window, format_args!("{at:#018x}  {size}, {}: {what}", mapping.how))?;
        }
        if last.changed.slots && last.slots.is_empty() {
            fact(f, "slot", "none")?;
        }
        for slot in last.slots.iter().filter(|_| last.changed.slots) {
            fact(f, "slot", format_args!("{:#018x}  {}", slot.hpa, Size(slot.size)))?;
        }
        Ok(())
    }

    fn verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(refusal) = &self.refusal {
            let (phase, code) = (&refusal.phase, refusal.code);
            fact(f, "refusal", format_args!("{} ({phase}, {code:#06x})", refusal.message))?;
        }
        for failure in self.failures() {
            fact(f, "failure", failure)?;
        }
        if let Some(Required { what, met, not_known }) = &self.required {
            let met = match (met, not_known) {
                (true, _) => "met, at every moment that counts",
                (false, None) => "NOT MET",
                (false, Some(_)) => "NOT KNOWN",
            };
            fact(f, "required", format_args!("{what}: {met}"))?;
        }
        if self.result != Verdict::Ok {
            return self.locks(f);
        }
        // Somebody else's firmware leaves no record of regions: the registers speak for it.
        let direct = self.mappings.iter().filter(|mapping| mapping.how == "direct");
        let sizes: Vec<u64> = match self.foreign {
            true => direct.map(|mapping| mapping.size).collect(),
            false => self.regions.iter().map(|region| region.size).collect(),
        };
        if sizes.is_empty() {
            match &self.last {
                None => fact(f, "memory", "none was mapped")?,
                Some(last) => {
                    let moment = &last.moment;
                    let then =
                        format!("none was mapped at the hand-off; what is {moment} is below");
                    fact(f, "memory", then)?;
                }
            }
        } else {
            let bytes = Size(sizes.iter().sum());
            let regions = counted(sizes.len(), "region");
            let how = "every byte leads to one byte of one device";
            fact(f, "memory", format_args!("{bytes} in {regions}; {how}"))?;
        }
        self.locks(f)?;
        self.probed(f)?;
        let checks = match self.foreign {
            true => "the verifier finds no path that is broken",
            false => "registers, hand-off record, table and verifier agree",
        };
        fact(f, "checks", checks)
    }

    /// What the locks are worth, and why they are not worth more.
    fn locks(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let control = |decoder: &&Decoder| decoder.text.image.control();
        let committed = self.decoders.iter().filter(|d| control(d).committed());
        let locked = committed.clone().filter(|d| control(d).locked()).count();
        let Some(locks) = &self.locks else {
            let committed = counted(committed.count(), "committed decoder");
            return fact(f, "locks", format_args!("{locked} of {committed} locked"));
        };
        if locks.in_use == 0 {
            return Ok(());
        }
        locks.fmt(f)
    }

    /// What the firmware asked of the memory itself, and why not more.
    fn probed(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count_of = |probed| self.regions.iter().filter(|r| r.probed == probed).count();
        let why = match self.policy.probe {
            _ if self.foreign => "what is found is not written to",
            true => "the processor does not reach them",
            false => "by policy",
        };
        let words = [
            ("held", "answers at both ends of every way".to_owned()),
            ("read", "only read, as what is persistent is not written to".to_owned()),
            ("no", format!("not asked ({why}): that memory is there is what registers say")),
        ];
        for (number, words) in words.map(|(probed, words)| (count_of(probed), words)) {
            if number > 0 {
                let regions = counted(number, "region");
                fact(f, "probe", format_args!("memory of {regions}: {words}"))?;
            }
        }
        Ok(())
    }

    /// The end of every report: what is unused, and why.
    fn unused(&self, f: &mut Formatter<'_>) -> fmt::Result {
        heading(f, "unused: what was found and no region has, or not as it could be")?;
        let found = self.findings.iter().filter(|finding| !finding.failure);
        let mut found = found.filter(|finding| tells_of_unused(finding)).peekable();
        if found.peek().is_none() {
            let words = match &self.refusal {
                Some(refusal) if self.mappings.iter().all(|mapping| mapping.how != "direct") => {
                    format!("all memory: the firmware refused ({})", refusal.phase)
                }
                _ if self.findings.iter().any(Finding::is_loss) => {
                    "what was lost, see above; of the rest nothing".to_owned()
                }
                _ => "nothing".to_owned(),
            };
            return fact(f, "memory", words);
        }
        found.try_for_each(|finding| fact(f, "note", finding.sentence()))
    }

    fn decoders(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.decoders.is_empty() {
            return Ok(());
        }
        let what = "registers that claim a range of addresses and pass it on";
        heading(f, format_args!("decoders: {what} (DPA: a device's own address)"))?;
        let recorded = self.decoders.iter().any(|decoder| decoder.fate.is_some());
        seen_by(
            f,
            match recorded {
                true => "the firmware, in its record; the host holds it against the registers",
                false => "the host, in the registers",
            },
        )?;
        self.decoders.iter().try_for_each(|decoder| decoder.line(f, &self.topology))
    }

    fn cedt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(cedt) = &self.cedt else { return Ok(()) };
        heading(f, "CEDT: the table that tells the operating system about bridges and windows")?;
        seen_by(
            f,
            match self.foreign {
                true => "the host, in the bytes that the image left; they are the image's words",
                false => {
                    "the host, in the bytes that the firmware left; held against the registers"
                }
            },
        )?;
        for (label, line) in &cedt.lines {
            fact(f, label, line)?;
        }
        Ok(())
    }

    fn traffic(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let traffic = &self.traffic;
        if self.peer.is_some() && traffic.reads + traffic.writes == 0 {
            // Nobody counts between an image and devices that are not ours.
            return Ok(());
        }
        heading(f, "register traffic of the firmware")?;
        seen_by(
            f,
            "the host, which counts each access, and the image where a read leaves no exit",
        )?;
        let all = both(traffic.reads, traffic.writes);
        fact(f, "all", all)?;
        if traffic.dropped != 0 {
            fact(f, "dropped", format_args!("{} of a wrong width", traffic.dropped))?;
        }
        // Most decoders see the same traffic; say it once.
        let mut alike = BTreeMap::<_, Vec<(&str, u8)>>::new();
        for decoder in &traffic.decoders {
            let key = Reverse((decoder.reads, decoder.writes, decoder.stages));
            alike.entry(key).or_default().push((&decoder.component, decoder.index));
        }
        for (Reverse((reads, writes, stages)), names) in alike {
            let decoders = counted(names.len(), "decoder");
            let each = if names.len() == 1 { "" } else { " each" };
            let names = runs(&names);
            let traffic = both(reads, writes);
            fact(f, decoders, format_args!("{traffic}{each}: {names}"))?;
            if writes != 0 {
                let Stages { found, program, commit, lock, after } = stages;
                let undone = commit.writes == 0;
                let parts = [
                    (found, "to see what is there"),
                    (program, if undone { "to program and undo" } else { "to program and check" }),
                    (commit, "to commit"),
                    (lock, "to lock after the trial"),
                    (after, if after.writes == 0 { "to verify" } else { "to undo" }),
                ];
                let parts = parts.iter().filter(|(part, _)| *part != Count::default());
                let parts = parts.map(|(part, what)| format!("{} {what}", traffic_of(*part)));
                fact(f, "", parts.collect::<Vec<_>>().join("; "))?;
            }
        }
        Ok(())
    }
}

/// Reads and writes, those that there are.
fn traffic_of(Count { reads, writes }: Count) -> String {
    match (reads, writes) {
        (reads, 0) => counted(reads as usize, "read"),
        (0, writes) => counted(writes as usize, "write"),
        (reads, writes) => {
            format!("{}, {}", counted(writes as usize, "write"), counted(reads as usize, "read"))
        }
    }
}

/// The most components that one line of traffic lists.
const MAX_RUNS: usize = 24;

/// `hb0 0-2, mem0 0`: decoders in order, by component.
fn runs(decoders: &[(&str, u8)]) -> String {
    let mut runs: Vec<(&str, u8, u8)> = Vec::new();
    for &(component, index) in decoders {
        match runs.last_mut() {
            Some((last, _, end)) if *last == component && end.checked_add(1) == Some(index) => {
                *end = index;
            }
            _ => runs.push((component, index, index)),
        }
    }
    let runs = runs.into_iter().map(|(component, first, last)| match first == last {
        true => format!("{component} {first}"),
        false => format!("{component} {first}-{last}"),
    });
    let mut runs: Vec<String> = runs.collect();
    if runs.len() > MAX_RUNS {
        let more = runs.split_off(MAX_RUNS).len();
        runs.push(format!("and of {more} more components (all in --json)"));
    }
    runs.join(", ")
}

/// So many of both.
fn both(reads: u64, writes: u64) -> String {
    format!("{}, {}", counted(reads, "read"), counted(writes, "write"))
}

impl Display for Component {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let indent = "  ".repeat(self.depth);
        let label = format!("{indent}{}", self.component);
        let decoders = match self.decoders {
            Some(decoders) => format!(", {}", counted(decoders, "decoder")),
            None if self.kind == Kind::HostBridge => ", no decoders".to_owned(),
            None => String::new(),
        };
        let number = self.port.unwrap_or(0);
        let what = match self.kind {
            Kind::HostBridge => format!("host bridge, UID {}", self.uid.unwrap_or(0)),
            Kind::RestrictedHostBridge => {
                format!("host bridge of CXL 1.1, UID {}", self.uid.unwrap_or(0))
            }
            Kind::RootPort => format!("root port, number {number}"),
            Kind::Switch => "switch".to_owned(),
            Kind::DownstreamPort => format!("switch port, number {number}"),
            Kind::Type3 => format!("memory expander (Type 3), {}", self.memory()),
            Kind::Type2 => format!("accelerator (Type 2), {}", self.memory()),
        };
        let absent = if self.present == Some(false) { ", not plugged in" } else { "" };
        let place = match self.kind {
            Kind::RootPort | Kind::DownstreamPort => String::new(),
            _ => format!("  [{}]", self.place),
        };
        fact(f, label, format_args!("{what}{decoders}{absent}{place}"))
    }
}

impl Component {
    fn memory(&self) -> String {
        let parts = [(self.volatile, "volatile"), (self.persistent, "persistent")];
        let parts = parts.into_iter().filter_map(|(bytes, kind)| {
            let bytes = bytes.filter(|&bytes| bytes != 0)?;
            Some(format!("{} {kind}", Size(bytes)))
        });
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() { "no memory".to_owned() } else { parts.join(" and ") }
    }
}

impl Decoder {
    /// `mem0 decoder 0` and what it does.
    fn line(&self, f: &mut Formatter<'_>, topology: &[Component]) -> fmt::Result {
        let Self { component, text, .. } = self;
        let (image, control) = (text.image, text.image.control());
        let label = format!("{component} decoder {}", text.index);
        let mut state = match (control.committed(), control.locked()) {
            (true, true) => "committed, locked",
            (true, false) => "committed, NOT LOCKED",
            (false, _) if control.error_not_committed() => "commit refused",
            (false, _) => "not committed",
        }
        .to_owned();
        if let Some(fate) = self.fate.filter(|fate| *fate != Fate::Done) {
            state = format!("{state}, {fate}");
        }
        if text.unused() {
            return fact(f, label, format_args!("all registers 0: {state}"));
        }
        let ways = match Ways::decode(control.ways()) {
            Ok(Ways::One) => String::new(),
            Ok(ways) => format!("{ways}-way, "),
            Err(_) => "reserved ways, ".to_owned(),
        };
        let leads = match (text.component.routes(), text.dpa) {
            (true, _) => {
                let targets = Targets(image.targets());
                let used = Ways::decode(control.ways()).map(|ways| targets.used(ways).to_vec());
                let names = used.unwrap_or_default().into_iter().map(|number| {
                    let port = topology.iter().find(|port| {
                        port.below.as_deref() == Some(component) && port.port == Some(number)
                    });
                    port.map_or_else(|| format!("port {number}"), |port| port.component.clone())
                });
                format!("to {}, ", names.collect::<Vec<_>>().join(", "))
            }
            (false, Some(Ok(span))) => format!("to DPA {span}, "),
            (false, _) => String::new(),
        };
        let size = Size(image.size());
        fact(f, label, format_args!("{:#018x}  {size}, {ways}{leads}{state}", image.base()))?;
        if let Err(error) = text.decoded
            && control.committed()
            && !matches!(error, DecodeError::ZeroSize { .. })
        {
            fact(f, "problem", error)?;
        }
        Ok(())
    }
}
