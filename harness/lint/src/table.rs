//! The CEDT as Linux reads it (`drivers/cxl/acpi.c`): which host bridges have registers, and which
//! windows become root decoders.
//!
//! **Invariant**: a record is read as it lies in the table, legal or not; a broken one costs itself,
//! and those that its length hides.

use std::collections::{BTreeMap, BTreeSet};

use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::acpi::cedt::wire::{CfmwsRecord, ChbsRecord};
use cxl_regs::acpi::header;
use libc::{EBUSY, EINVAL, ENXIO};
use zerocopy::little_endian::{U32, U64};

use super::records::{Broken, Records, own};
use super::refusal::{Attempt, Refusal, Said};
use super::system::{AddressRange, Root, System, granularity, ways};
use super::{Bridge, Finding, Level, Registers, Rule, Severity};
use crate::Change;
use cxl_model::words::counted;

/// 256 MiB.
const UNIT: u64 = 256 << 20;
/// The version of a CXL 1.1 host in a CHBS.
const RESTRICTED: u32 = 0;

const ACPI: Said<'static> = ("cxl_acpi", "ACPI0017:00");

impl System<'_> {
    /// Reads the table; whether there is one.
    pub(super) fn read_table(&mut self) -> bool {
        let Some(table) = self.input.cedt.as_deref() else { return false };
        self.checksum(own(table));
        let records = Records::of(table);
        for Broken { severity, found, lost } in &records.broken {
            let rule = Rule::CedtRecord;
            self.findings.push(Finding::new(*severity, rule, "CEDT", found, lost));
        }
        let nothing = records.chbs.is_empty() && records.cfmws.is_empty();
        if nothing && records.broken.is_empty() && records.endless.is_none() {
            let (found, lost) = ("no CHBS and no CFMWS", "there is no CXL memory");
            let rule = Rule::NoCedt;
            self.findings.push(Finding::new(Severity::Refused, rule, "CEDT", found, lost));
        }
        self.alike(&records);
        self.bridges(&records);
        if self.input.bridges.is_empty() && !super::records::is_stand_in(table) {
            self.bridges_of_the_table(&records);
        }
        if self.rcrbs() {
            // Windows in front of a record without length have their say before it ends all.
            self.windows(&records);
        }
        if let Some(at) = records.endless {
            self.endless(at);
        }
        true
    }

    /// A record of length 0 is an error of the whole table (`acpi_parse_entries_array` in fw_table.c), for
    /// which the driver gives up without a word of its own. So did 6.12.95 and 7.3.4.
    fn endless(&mut self, at: usize) {
        let found = format!("record at {at:#x}: length 0");
        let lost = "the driver gives up: no bridge, no window and no memory";
        let finding = Finding::new(Severity::Refused, Rule::CedtRecord, "CEDT", found, lost);
        let finding = ["[CEDT:0x00] Invalid zero length", "[CEDT:0x01] Invalid zero length"]
            .into_iter()
            .fold(finding, |finding, text| finding.say(Level::Error, ("", ""), text));
        self.findings.push(finding);
        for host in &mut self.hosts {
            host.known = false;
        }
        self.roots.clear();
    }

    /// Of several CHBS of one UID the first is taken, and nothing is said. So did 6.12.95 and 7.3.4.
    fn twins(&mut self, good: &[&ChbsRecord]) {
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        for chbs in good {
            let (uid, base) = (chbs.uid.get(), chbs.base.get());
            let first = *seen.entry(uid).or_insert(base);
            if first != base {
                let found = format!("UID {uid} has a CHBS at {first:#x} and one at {base:#x}");
                let lost = "Linux takes the first, and says nothing";
                let rule = Rule::ChbsTwice;
                self.findings.push(Finding::new(Severity::Degraded, rule, "CEDT", found, lost));
            }
        }
    }

    /// Each CXIMS of a window's granularity takes the place of the one before (`cxl_parse_cxims` stores its
    /// maps over those that are there), and nothing is said.
    fn other_maps(&mut self, index: usize, bytes: u64, last: &[U64], records: &Records<'_>) {
        let of_window = |hbig: u8| granularity(hbig.into()) == Some(bytes);
        let mut others = records.cxims.iter().filter(|(cxims, _)| of_window(cxims.hbig));
        let Some((_, other)) = others.find(|(_, maps)| first_maps(maps, last.len()) != last) else {
            return;
        };
        let words = |maps: &[U64]| {
            maps.iter().map(|map| format!("{map:#x}")).collect::<Vec<_>>().join(", ")
        };
        let (other, last) = (words(first_maps(other, last.len())), words(last));
        let found = format!("a CXIMS of {bytes} B with maps {other}, and a later one with {last}");
        let lost = "Linux picks targets by the last, and says nothing: if the hardware has the other maps, \
                    addresses and faults are told of other devices";
        let (rule, name) = (Rule::CximsTwice, format!("window {index}"));
        self.findings.push(Finding::new(Severity::Degraded, rule, name, found, lost));
    }

    /// Several CXIMS of one granularity whose maps are the same are one too many, and harmless.
    fn alike(&mut self, records: &Records<'_>) {
        let mut of: BTreeMap<u8, Vec<&[U64]>> = BTreeMap::new();
        for (cxims, maps) in &records.cxims {
            of.entry(cxims.hbig).or_default().push(first_maps(maps, cxims.map_count.into()));
        }
        for (hbig, all) in of {
            let Some(bytes) = granularity(hbig.into()) else { continue };
            let first = all.first().copied().unwrap_or_default();
            if all.len() > 1 && all.iter().all(|maps| *maps == first) {
                let found = format!("{} CXIMS of {bytes} B with the same maps", all.len());
                let lost = "nothing: Linux takes the last";
                let rule = Rule::CximsTwice;
                self.findings.push(Finding::new(Severity::Note, rule, "CEDT", found, lost));
            }
        }
    }

    /// ACPICA complains of a wrong checksum over the table's own length, and goes on.
    fn checksum(&mut self, table: &[u8]) {
        let (sum, Some(has)) = (header::sum(table), table.get(9)) else { return };
        if sum == 0 {
            return;
        }
        let wants = has.wrapping_sub(sum);
        let text =
            format!("Incorrect checksum in table [CEDT] - 0x{has:02X}, should be 0x{wants:02X}");
        let found = format!("checksum {has:#04x}, and {wants:#04x} makes the sum 0");
        let lost = "Linux reads the table all the same";
        let finding = Finding::new(Severity::Note, Rule::Checksum, "CEDT", found, lost);
        let of = ("", "ACPI BIOS Warning (bug)");
        self.findings.push(finding.say(Level::Warning, of, text));
    }

    /// Whether Linux does not pass over a CHBS (`cxl_get_chbs_iter`).
    fn counts(&self, chbs: &ChbsRecord) -> bool {
        let long = self.linux.has(Change::ChbsLength);
        match (chbs.version.get(), chbs.length.get()) {
            (RESTRICTED, length) if length != 0x2000 => false,
            (1, length) if long && length != 0x1_0000 => false,
            _ => chbs.base.get() != 0,
        }
    }

    /// Whether a bridge of this UID, if there is one, has registers by the table alone.
    fn describes(&self, records: &Records<'_>, uid: u32) -> bool {
        let found = records.chbs.iter().find(|chbs| chbs.uid.get() == uid && self.counts(chbs));
        // Linux's own marks of a bridge without a CHBS, and of one without registers.
        found.is_some_and(|chbs| chbs.version.get() != u32::MAX && chbs.base.get() != u64::MAX)
    }

    /// What a table says of bridges that nobody named: one whose only CHBS Linux passes over has none, and
    /// memory is lost for certain where a window names it, or where no bridge has one.
    fn bridges_of_the_table(&mut self, records: &Records<'_>) {
        let known = || records.chbs.iter().take(records.sound.unwrap_or(usize::MAX));
        let uids: BTreeSet<u32> = known().map(|chbs| chbs.uid.get()).collect();
        let good: BTreeSet<u32> =
            uids.iter().copied().filter(|uid| self.describes(records, *uid)).collect();
        if uids.is_empty() && !records.cfmws.is_empty() {
            let found = format!("no CHBS, and windows: {}", records.cfmws.len());
            let lost = "no bridge and nothing below one is used";
            let (rule, component) = (Rule::NoChbs, "CEDT");
            self.findings.push(Finding::new(Severity::Refused, rule, component, found, lost));
        }
        let targets: BTreeSet<u32> = records
            .cfmws
            .iter()
            .flat_map(|(record, targets)| {
                let count = ways(record.eniw.into()).and_then(|count| usize::try_from(count).ok());
                targets.iter().take(count.unwrap_or(0)).map(|uid| uid.get())
            })
            .collect();
        let mut told = BTreeSet::new();
        for chbs in known() {
            let uid = chbs.uid.get();
            if good.contains(&uid) || !told.insert(uid) {
                continue;
            }
            let found = passed_over(chbs);
            let lost = format!("a bridge of UID {uid} and everything below it stays out of use");
            let sure = good.is_empty() || targets.contains(&uid);
            let severity = if sure { Severity::Refused } else { Severity::Degraded };
            let finding = Finding::new(severity, Rule::NoChbs, "CEDT", found, lost);
            // A base of all ones is Linux's own mark, and it says so.
            let said = if self.counts(chbs) && chbs.version.get() != u32::MAX {
                "CHBS invalid"
            } else {
                "No CHBS found"
            };
            let text = format!("{said} for Host Bridge (UID {uid})");
            self.findings.push(finding.say(Level::Warning, ("acpi", "ACPI0016:00"), text));
        }
    }

    /// Gives each bridge its CHBS: the first of its UID that is not passed over.
    fn bridges(&mut self, records: &Records<'_>) {
        let input = self.input;
        let good: Vec<&ChbsRecord> = records.chbs.iter().filter(|chbs| self.counts(chbs)).collect();
        let versions: BTreeSet<u32> = good.iter().map(|chbs| chbs.version.get()).collect();
        // Linux counts how often the version changes, from its own mark of none on.
        let (mut last, mut changes) = (u32::MAX, 0);
        for chbs in &good {
            changes += u32::from(std::mem::replace(&mut last, chbs.version.get()) != last);
        }
        let mixed = changes > 1;
        self.twins(&good);
        if mixed && input.bridges.is_empty() {
            // A table alone says it too, of bridges that nobody named.
            self.mixed("CEDT", "ACPI0016:00", &versions);
        }
        self.rcrbs_unseen(&good);
        for (index, bridge) in input.bridges.iter().enumerate() {
            let acpi = format!("ACPI0016:{index:02x}");
            if mixed {
                self.mixed(&bridge.name, &acpi, &versions);
            }
            let Some(uid) = bridge.uid else {
                // Its registers are known from somewhere else.
                if let Some(state) = self.hosts.get_mut(index) {
                    state.known = true;
                }
                continue;
            };
            let found = good.iter().find(|chbs| chbs.uid.get() == uid);
            let lost = format!("{} and everything below it stays out of use", bridge.name);
            let chbs = match found {
                // That version is Linux's own mark of a bridge without one: so said 6.12.95 and 7.3.4.
                Some(chbs) if chbs.version.get() == u32::MAX => Err((
                    "No CHBS found",
                    format!("the CHBS of UID {uid} has version {}", chbs.version),
                )),
                Some(chbs) if chbs.base.get() != u64::MAX => Ok(chbs),
                Some(chbs) => Err(("CHBS invalid", format!("base {:#x}", chbs.base))),
                None => {
                    let near = records.chbs.iter().find(|chbs| chbs.uid.get() == uid);
                    let found = near.map_or_else(|| format!("no CHBS of UID {uid}"), passed_over);
                    Err(("No CHBS found", found))
                }
            };
            let chbs = match chbs {
                Ok(chbs) => chbs,
                Err((said, found)) => {
                    let text = format!("{said} for Host Bridge (UID {uid})");
                    let (rule, name) = (Rule::NoChbs, &bridge.name);
                    let finding = Finding::new(Severity::Refused, rule, name, found, lost);
                    let finding = finding.say(Level::Warning, ("acpi", &acpi), text);
                    let text = "host bridge expected and not found";
                    self.findings.push(finding.say(Level::Debug, ACPI, text));
                    continue;
                }
            };
            if let Some(state) = self.hosts.get_mut(index) {
                state.known = true;
                state.restricted = chbs.version.get() == RESTRICTED;
            }
            if chbs.version.get() == RESTRICTED {
                let device = bridge.address.clone().unwrap_or_else(|| bridge.name.clone());
                let found = "CHBS version 0: a CXL 1.1 host";
                let lost = "devices below it are taken by their range registers; that is not looked \
                            at here";
                let (rule, name) = (Rule::RestrictedHost, &bridge.name);
                let finding = Finding::new(Severity::Note, rule, name, found, lost);
                let text = "host supports CXL (restricted)";
                self.findings.push(finding.say(Level::Info, ("", &device), text));
            }
        }
    }

    /// CXL 1.1 hosts whose RCRB nobody gave: what hangs on it is no small thing.
    fn rcrbs_unseen(&mut self, good: &[&ChbsRecord]) {
        let seen = |uid: u32| {
            self.input.bridges.iter().any(|bridge| {
                bridge.uid == Some(uid) && matches!(bridge.registers, Registers::Rcrb(_))
            })
        };
        let unseen: Vec<_> = good
            .iter()
            .filter(|chbs| chbs.version.get() == RESTRICTED && !seen(chbs.uid.get()))
            .map(|chbs| format!("UID {} at {:#x}", chbs.uid, chbs.base))
            .take(8)
            .collect();
        if unseen.is_empty() {
            return;
        }
        let found =
            format!("CHBS version 0 of {}, and nobody gave the registers", unseen.join(", "));
        let lost = "if one of them is no RCRB, Linux says \"Invalid Component Registers in RCRB\" and \
                    gives up: no bridge, no window and no memory of the whole system";
        let finding = Finding::new(Severity::Degraded, Rule::Rcrb, "CEDT", found, lost);
        self.findings.push(finding);
    }

    fn mixed(&mut self, component: &str, acpi: &str, versions: &BTreeSet<u32>) {
        let versions: Vec<_> = versions.iter().take(8).map(u32::to_string).collect();
        let found = format!("CHBS of version {} in one table", versions.join(" and of version "));
        let lost = "devices of CXL 1.1 hosts may not come up";
        let text = "Unsupported platform config, mixed Virtual Host and Restricted CXL Host \
                    hierarchy.";
        let finding = Finding::new(Severity::Degraded, Rule::MixedHosts, component, found, lost);
        self.findings.push(finding.say(Level::Info, ("acpi", acpi), text));
    }

    /// Whether every CXL 1.1 host has an RCRB; one that has none ends the whole driver
    /// (`__rcrb_to_component` in core/regs.c, `add_host_bridge_dport` in acpi.c).
    fn rcrbs(&mut self) -> bool {
        let input = self.input;
        let wrong = input.bridges.iter().zip(&self.hosts).enumerate().find_map(|(at, found)| {
            let (Bridge { registers: Registers::Rcrb(dwords), .. }, host) = found else {
                return None;
            };
            let [id, command, low, high] = *dwords;
            let high = if low & 4 == 0 { 0 } else { u64::from(high) << 32 };
            let block = high | u64::from(low & !0xF);
            let good = id != u32::MAX
                && command & 2 != 0
                && low & 3 == 0
                && block != 0
                && block % 0x1_0000 == 0;
            (host.known && host.restricted && !good).then_some((at, *dwords))
        });
        let Some((index, [id, command, low, high])) = wrong else { return true };
        let Some(bridge) = input.bridges.get(index) else { return true };
        let found = format!(
            "RCRB with ID {id:#010x}, Command {command:#010x}, BAR 0 {low:#010x} {high:#010x}"
        );
        let lost = "no bridge, no window and no memory: the driver gives up";
        let finding = Finding::new(Severity::Refused, Rule::Rcrb, &bridge.name, found, lost);
        let device = bridge.address.clone().unwrap_or_else(|| bridge.name.clone());
        let at = ("", device.as_str());
        let finding = match id {
            u32::MAX => finding.say(Level::Error, at, "Failed to access Downstream Port RCRB"),
            _ => finding,
        };
        let said = "Invalid Component Registers in RCRB";
        self.findings.push(finding.say(Level::Warning, at, said));
        for host in &mut self.hosts {
            host.known = false;
        }
        false
    }

    /// Makes a root decoder of each window.
    fn windows(&mut self, records: &Records<'_>) {
        let mut kept: Vec<AddressRange> = Vec::new();
        for (index, (record, targets)) in records.cfmws.iter().enumerate() {
            let name = format!("window {index}");
            if let Err(refusal) = self.window(index, record, targets, records, &mut kept) {
                let (base, size) = (record.base.get(), record.size.get());
                let last = base.wrapping_add(size).wrapping_sub(1);
                let errno = refusal.errno;
                let text =
                    format!("Failed to add decode range: [{base:#x} - {last:#x}] (-{errno})");
                let lost = "the window is left out: no decoder in it becomes a region";
                self.findings.push(refusal.error(ACPI, text).finding(&name, lost));
            }
        }
    }

    fn window(
        &mut self,
        index: usize,
        record: &CfmwsRecord,
        targets: &[U32],
        records: &Records<'_>,
        kept: &mut Vec<AddressRange>,
    ) -> Attempt<()> {
        let (base, size) = (record.base.get(), record.size.get());
        let refusal =
            |rule, found, text: &str| Err(Refusal::new(rule, EINVAL, found).error(ACPI, text));
        if record.arithmetic > 1 {
            let code = record.arithmetic;
            let text = format!("CFMWS Unknown Interleave Arithmetic: {code}");
            return refusal(Rule::WindowArithmetic, format!("arithmetic {code}"), &text);
        }
        if base % UNIT != 0 {
            let text = "CFMWS Base HPA not 256MB aligned";
            return refusal(Rule::WindowBase, format!("base {base:#x}"), text);
        }
        if size % UNIT != 0 {
            let text = "CFMWS Window Size not 256MB aligned";
            return refusal(Rule::WindowSize, format!("size {size:#x}"), text);
        }
        let Some(way_count) = ways(record.eniw.into()) else {
            let code = record.eniw;
            let text = format!("CFMWS Interleave Ways ({code}) invalid");
            return refusal(Rule::WindowWays, format!("ways code {code}"), &text);
        };
        let (length, need) = (u64::from(record.header.length.get()), 0x24 + 4 * way_count);
        if length < need {
            let text = format!("CFMWS length {length} less than expected {need}");
            let found = format!("length {length:#x} for {}", counted(way_count, "target"));
            return refusal(Rule::WindowLength, found, &text);
        }
        let Some(mut bytes) = granularity(record.hbig.get()) else {
            let found = format!("granularity code {}", record.hbig);
            return Err(Refusal::new(Rule::WindowGranularity, EINVAL, found));
        };
        let range = AddressRange { start: base, end: base.wrapping_add(size).wrapping_sub(1) };
        let conflict = kept.iter().find(|other| range.overlaps_in_part(**other));
        if range.is_empty() {
            let found = format!("size {size:#x}");
            return Err(Refusal::new(Rule::WindowSize, EBUSY, found));
        }
        if let Some(other) = conflict {
            let found = format!("{range} overlaps {other}");
            return Err(Refusal::new(Rule::WindowOverlap, EBUSY, found));
        }
        kept.push(range);
        if way_count == 1 {
            bytes = 256;
        }
        if record.arithmetic == 1 && way_count != 1 && way_count != 3 {
            let last = self.maps(record.hbig.get(), bytes, way_count, records)?;
            self.other_maps(index, bytes, last, records);
        }
        let given = &self.input.bridges;
        // Without bridges, the table itself says which there can be.
        let by_table = given.is_empty()
            && !self.input.cedt.as_deref().is_some_and(super::records::is_stand_in);
        let all_named =
            by_table || !given.is_empty() && given.iter().all(|bridge| bridge.uid.is_some());
        let mut bridges = Vec::new();
        for uid in targets.iter().take(way_count as usize).map(|uid| uid.get()) {
            let hosts = self.input.bridges.iter().zip(&self.hosts);
            let found =
                hosts.clone().position(|(bridge, host)| bridge.uid == Some(uid) && host.known);
            let missing =
                all_named && found.is_none() && !(by_table && self.describes(records, uid));
            if missing && self.linux.has(Change::LateTargets) {
                // Targets are looked up as bridges come up, so nobody misses one.
                let found = format!("target UID {uid}");
                let lost = "Linux takes the window without this target: no region in it attaches \
                            below it";
                let (rule, name) = (Rule::WindowTarget, format!("window {index}"));
                self.findings.push(Finding::new(Severity::Degraded, rule, name, found, lost));
            } else if missing {
                let text = "Failed to populate active decoder targets";
                let refusal = Refusal::new(Rule::WindowTarget, ENXIO, format!("target UID {uid}"));
                return Err(refusal.error(("cxl", "root0"), text));
            }
            bridges.push(found);
        }
        if size % (UNIT * way_count) != 0 {
            let found = format!("size {size:#x} for {}", counted(way_count, "way"));
            let lost = "Linux takes the window; its end cannot be used";
            let (rule, name) = (Rule::WindowShare, format!("window {index}"));
            self.findings.push(Finding::new(Severity::Note, rule, name, found, lost));
        }
        let id = self.roots.len();
        self.roots.push(Root {
            id,
            window: index,
            range,
            ways: way_count,
            granularity: bytes,
            targets: bridges,
            restrictions: Restrictions::from_bits(record.restrictions.get()),
            next_region: id,
        });
        Ok(())
    }

    /// Looks for the maps of an XOR window, and gives what the last CXIMS of its granularity has of them.
    fn maps<'a>(
        &self,
        code: u32,
        bytes: u64,
        way_count: u64,
        records: &'a Records<'_>,
    ) -> Attempt<&'a [U64]> {
        let part = if way_count.is_power_of_two() { way_count } else { way_count / 3 };
        let need = part.trailing_zeros();
        let mut found = None;
        for (cxims, maps) in &records.cxims {
            let Some(of) = granularity(cxims.hbig.into()) else {
                let found = format!("a CXIMS with granularity code {}", cxims.hbig);
                return Err(Refusal::new(Rule::NoCxims, EINVAL, found));
            };
            if of != bytes {
                continue;
            }
            if u32::from(cxims.map_count) < need {
                let have = cxims.map_count;
                let text = format!("CXIMS nr_xormaps[{have}] expected[{need}]");
                let found = format!("{} for {}", counted(have, "map"), counted(way_count, "way"));
                // -ENXIO inside, and what comes of it is -EINVAL: so said 6.12.95 and 7.3.4.
                return Err(Refusal::new(Rule::NoCxims, EINVAL, found).debug(ACPI, text));
            }
            found = Some(first_maps(maps, need as usize));
        }
        if let Some(found) = found {
            return Ok(found);
        }
        let text = format!("No CXIMS for HBIG {bytes}");
        let found = format!("XOR arithmetic, granularity code {code}");
        Err(Refusal::new(Rule::NoCxims, EINVAL, found).error(ACPI, text))
    }
}

/// So many maps, or as many as there are.
fn first_maps(maps: &[U64], count: usize) -> &[U64] {
    maps.get(..count).unwrap_or(maps)
}

/// A CHBS that gives its bridge no registers.
fn passed_over(chbs: &ChbsRecord) -> String {
    let ChbsRecord { uid, version, base, length, .. } = chbs;
    format!("the CHBS of UID {uid} has version {version}, base {base:#x}, length {length:#x}")
}
