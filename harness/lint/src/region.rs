//! Regions, as Linux assembles them of decoders that firmware committed (`core/region.c`).
//!
//! The first decoder of a range makes the region. When as many decoders have come as the first one
//! has ways, the path of each is walked to the root, which gives the members their positions; then
//! every port on the way has to be programmed as Linux would have done it.
//!
//! **Invariant**: every walk goes from a port to the one above it, and ends at the root.

use libc::{EBUSY, EINVAL, ENXIO, c_int};

use super::kernel::Linux;
use super::refusal::{Attempt, Refusal};
use super::system::{
    AddressRange, Decoder, Kind, Member, Mode, PortState, Region, RegionRef, Root, System,
    granularity, granularity_code, ways_code,
};
use super::{Finding, Level, Rule, Severity};
use crate::Change;
use cxl_model::words::counted;

impl System<'_> {
    /// Adds each committed decoder of an endpoint to a region.
    pub(super) fn discover(&mut self, at: usize) {
        if self.input.cedt.is_none() {
            return;
        }
        let Some(port) = self.ports.get(at) else { return };
        for decoder in 0..port.decoders.len() {
            let used = |decoder: &Decoder| decoder.enabled && !decoder.range.is_empty();
            let enabled = self.decoder_of(at, decoder).is_some_and(used);
            if enabled {
                self.add(at, decoder);
            }
        }
    }

    fn decoder_of(&self, port: usize, decoder: usize) -> Option<&Decoder> {
        self.ports.get(port)?.decoders.get(decoder)
    }

    fn decoder_name(&self, port: usize, decoder: usize) -> String {
        let id = self.ports.get(port).map_or(0, |port| port.id);
        format!("decoder{id}.{decoder}")
    }

    /// `mem0:decoder2.0`.
    fn member_name(&self, member: Member) -> String {
        let memory = match self.ports.get(member.port).map(|port| port.kind) {
            Some(Kind::Endpoint(_, memory)) => memory,
            _ => 0,
        };
        format!("mem{memory}:{}", self.decoder_name(member.port, member.decoder))
    }

    /// `0000:0e:00.0:port3`.
    fn port_name(&self, port: &PortState) -> String {
        format!("{}:{}", self.uport(port).1, self.name(port))
    }

    /// The ports from an endpoint up to its bridge.
    fn path(&self, from: usize) -> Vec<usize> {
        let mut path = vec![from];
        let mut at = from;
        while let Some(above) = self.ports.get(at).and_then(|port| port.parent) {
            // A port comes up after the one above it.
            if above >= at {
                break;
            }
            path.push(above);
            at = above;
        }
        path
    }

    fn function_of(&self, port: usize) -> String {
        match self.ports.get(port).map(|port| port.kind) {
            Some(Kind::Endpoint(device, _)) => self.function(device),
            _ => String::new(),
        }
    }

    /// Adds one decoder to the region of its range (`cxl_add_to_region`).
    fn add(&mut self, port: usize, number: usize) {
        let Some(decoder) = self.decoder_of(port, number).cloned() else { return };
        let member = Member { port, decoder: number, position: 0 };
        let range = decoder.range;
        // Nobody knows where it hangs: only its window can be told.
        let placed = self.ports.get(port).is_some_and(|port| port.parent.is_some());
        let Some(root) = self.roots.iter().position(|root| root.range.contains(range)) else {
            let address = self.function_of(port);
            let name = self.member_name(member);
            let text =
                format!("{name} no CXL window for range {:#x}:{:#x}", range.start, range.end);
            let decoder_name = self.decoder_name(port, number);
            let failed = format!("failed to add to region: {:#x}-{:#x}", range.start, range.end);
            let refusal = |rule, found: String| {
                Refusal::new(rule, ENXIO, found)
                    .error(("cxl_pci", &address), text)
                    .debug(("cxl", &decoder_name), failed)
            };
            if let Some(found) = self.low_memory_hole(&decoder) {
                let refusal = refusal(Rule::LowMemoryHole, found.clone());
                // Each member of a set says it, of one range.
                let same = |known: &&mut Finding| {
                    known.rule == Rule::LowMemoryHole && known.found == found
                };
                match self.findings.iter_mut().find(same) {
                    Some(known) => known.messages.extend(refusal.messages),
                    None => self.refuse_member(member, refusal, None),
                }
            } else if let Some(found) = self.normalized(port, &decoder) {
                self.translated(member, found);
            } else {
                let refusal = refusal(Rule::NoWindow, format!("range {range}"));
                self.refuse_member(member, refusal, None);
            }
            return;
        };
        if !placed {
            return;
        }
        let same = |region: &Region| region.root == root && region.range == range;
        let region = match self.regions.iter().position(same) {
            Some(region) => region,
            None => self.construct(root, member, &decoder),
        };
        if let Err(refusal) = self.attach(region, member, &decoder) {
            self.refuse_member(member, refusal, Some(region));
        }
    }

    /// A window at 0 that ends before the decoder does, as firmware describes the hole below 4 GiB.
    fn low_memory_hole(&self, decoder: &Decoder) -> Option<String> {
        let range = decoder.range;
        let hole = self.roots.iter().find(|root| {
            let window = root.range;
            window.start == 0
                && range.start == 0
                && window.end < range.end
                && window.end < 4 << 30
                && range.length().is_multiple_of(decoder.ways * (256 << 20))
        })?;
        Some(format!(
            "range {range}, and window {} at 0 ends at {:#x}",
            hole.window, hole.range.end
        ))
    }

    /// A decoder that holds device addresses, below a bridge that has host addresses: how AMD's
    /// normalized addressing looks in registers.
    fn normalized(&self, port: usize, decoder: &Decoder) -> Option<String> {
        if !self.linux.has(Change::Translation) || self.input.prm == Some(false) {
            return None;
        }
        let (range, dpa) = (decoder.range, decoder.dpa?);
        if decoder.ways != 1 || dpa.start != range.start {
            return None;
        }
        let bridge = *self.path(port).last()?;
        let above = self.ports.get(bridge).filter(|_| bridge != port)?;
        let mapped = above.decoders.iter().find(|above| {
            let inside = self.roots.iter().any(|root| root.range.contains(above.range));
            above.enabled && inside && above.range.length().is_multiple_of(range.length())
        })?;
        Some(format!("device addresses {range} below {}", mapped.range))
    }

    /// What comes of such a decoder hangs on the platform.
    fn translated(&mut self, member: Member, found: String) {
        let lost = if self.input.prm == Some(true) {
            "Linux has the addresses translated, and takes the decoder for locked"
        } else {
            "if the platform's PRM has the handler, Linux takes it (\"address mapping found\"); \
             if not, it says \"no CXL window for range\", and the memory is missing"
        };
        let device = self.component_of(member.port);
        let finding = Finding::new(Severity::Note, Rule::Normalized, device, found, lost);
        self.findings.push(finding.of_decoder(member.decoder));
    }

    fn construct(&mut self, root: usize, member: Member, decoder: &Decoder) -> usize {
        let overlap = self
            .regions
            .iter()
            .find(|region| region.root == root && region.range.overlaps_in_part(decoder.range));
        let overlap = overlap.map(|region| region.range);
        let nested = self.regions.iter().find(|region| {
            let (theirs, ours) = (region.range, decoder.range);
            region.root == root && (theirs.contains(ours) || ours.contains(theirs))
        });
        if let Some(other) = nested.map(|region| region.range) {
            // One resource lies in the other, which is all that Linux asks: 7.3.4 brings both online.
            let found = format!("{} and {other}, one in the other", decoder.range);
            let lost =
                "Linux takes both regions, and says nothing; two devices answer at one address";
            let (rule, device) = (Rule::RegionOverlap, self.component_of(member.port));
            let finding = Finding::new(Severity::Degraded, rule, device, found, lost);
            self.findings.push(finding.of_decoder(member.decoder));
        }
        let next = self.next_region;
        let Some(window) = self.roots.get_mut(root) else { return 0 };
        let id = std::mem::replace(&mut window.next_region, next);
        self.next_region += 1;
        if let Some(other) = overlap {
            let function = if self.linux.has(Change::OneWayGranularity) {
                "__construct_region"
            } else {
                "construct_region"
            };
            let name = self.member_name(member);
            let text = format!("{name}: {function} region{id} cannot insert resource");
            let address = self.function_of(member.port);
            let device = self.component_of(member.port);
            let found = format!("{} overlaps {other}", decoder.range);
            let lost = "two regions claim the same addresses";
            let rule = Rule::RegionOverlap;
            let finding = Finding::new(Severity::Degraded, rule, device, found, lost)
                .of_decoder(member.decoder)
                .say(Level::Warning, ("cxl_pci", &address), text);
            self.findings.push(finding);
        }
        self.regions.push(Region {
            id,
            root,
            range: decoder.range,
            ways: decoder.ways,
            granularity: decoder.granularity,
            mode: decoder.mode,
            host_only: !self.linux.has(Change::RegionType) || decoder.host_only,
            members: vec![],
            done: None,
            unknown: false,
            locked: self.roots.get(root).is_some_and(|root| root.restrictions.fixed()),
        });
        self.regions.len() - 1
    }

    fn refuse_member(&mut self, member: Member, mut refusal: Refusal, region: Option<usize>) {
        let errno = refusal.errno;
        let region = region.and_then(|region| self.regions.get_mut(region));
        let mut lost = "the range becomes no region".to_owned();
        if let Some(region) = region {
            let name = format!("region{}", region.id);
            lost = missing(self.linux, region.range);
            if region.done == Some(true) {
                lost = "the region goes without it".to_owned();
            } else {
                region.done = Some(false);
            }
            if self.linux.has(Change::AttachWarning) {
                let endpoint = self.ports.get(member.port).map(|port| self.name(port));
                let decoder = self.decoder_name(member.port, member.decoder);
                let text = format!("failed to attach {decoder} to {name}: -{errno}");
                refusal = refusal.warning(("cxl_port", &endpoint.unwrap_or_default()), text);
            }
        }
        let component = self.component_of(member.port);
        if !refusal.is_blamed() {
            refusal = refusal.blame(component, Some(member.decoder));
        }
        self.findings.push(refusal.finding(component, lost));
    }

    /// Adds a decoder, and assembles the region once it is complete (`cxl_region_attach`).
    fn attach(&mut self, index: usize, member: Member, decoder: &Decoder) -> Attempt<()> {
        let Some(region) = self.regions.get(index).cloned() else { return Ok(()) };
        let Some(port) = self.ports.get(member.port) else { return Ok(()) };
        let name = format!("region{}", region.id);
        let device = ("cxl", name.as_str());
        let decoder_name = self.decoder_name(member.port, member.decoder);
        let member_name = self.member_name(member);
        let debug = |refusal: Refusal, text: &str| refusal.debug(device, text);
        let (ways, granularity) = (region.ways, region.granularity);
        if !interleaves(port, ways, granularity) {
            let found = format!("{ways}-way at {granularity} B");
            let text = format!("{decoder_name} iw: {ways} ig: {granularity} is not supported");
            return Err(debug(Refusal::new(Rule::InterleaveCapability, ENXIO, found), &text));
        }
        if decoder.mode != region.mode && decoder.mode.is_some() && region.mode.is_some() {
            let found = "volatile and persistent memory in one set";
            let text = if self.linux.has(Change::Partitions) {
                format!("{decoder_name} region mode: {} mismatch", mode(region.mode))
            } else {
                let [has, wants] = [decoder.mode, region.mode].map(|kind| mode(kind) + 1);
                format!("{decoder_name} region mode: {wants} mismatch: {has}")
            };
            return Err(debug(Refusal::new(Rule::MemoryMode, EINVAL, found), &text));
        }
        let full = region.members.len() as u64 >= ways;
        if full || region.done == Some(true) {
            let members: Vec<_> =
                region.members.iter().filter_map(|member| self.ports.get(member.port)).collect();
            let members: Vec<_> = members.iter().map(|port| self.component(port)).collect();
            let found = format!("{ways}-way, and there are {} already", members.join(", "));
            // A region that works has its driver; one that does not is the bus's.
            if region.done == Some(true) {
                let refusal = Refusal::new(Rule::TooManyMembers, EBUSY, found);
                let device = ("cxl_region", name.as_str());
                return Err(refusal.debug(device, "region already active"));
            }
            let text = format!("region already has {} endpoints", region.members.len());
            return Err(debug(Refusal::new(Rule::TooManyMembers, EINVAL, found), &text));
        }
        if decoder.host_only != region.host_only {
            let kind = |host_only| if host_only { "host-only" } else { "device-coherent" };
            let found = format!(
                "a {} decoder in a {} region",
                kind(decoder.host_only),
                kind(region.host_only)
            );
            // Device memory is 2 to Linux, host-only memory 3.
            let number = |host_only| if host_only { 3 } else { 2 };
            let text = format!(
                "{member_name} type mismatch: {} vs {}",
                number(decoder.host_only),
                number(region.host_only)
            );
            return Err(debug(Refusal::new(Rule::DecoderType, ENXIO, found), &text));
        }
        if let Some(dpa) = decoder.dpa {
            let (share, whole) = (dpa.length(), region.range.length());
            if share.checked_mul(ways) != Some(whole) {
                let found =
                    format!("{share:#x} bytes of {}, region {whole:#x}", counted(ways, "member"));
                let text = if self.linux.has(Change::LinearCache) {
                    format!(
                        "{member_name}-size-{share:#x} * ways-{ways} + cache-0x0 != \
                         region-size-{whole:#x}"
                    )
                } else {
                    format!(
                        "{member_name}: decoder-size-{share:#x} * ways-{ways} != \
                         region-size-{whole:#x}"
                    )
                };
                return Err(debug(Refusal::new(Rule::Share, EINVAL, found), &text));
            }
        }
        let unknown = self
            .path(member.port)
            .iter()
            .any(|port| self.ports.get(*port).is_some_and(|port| port.unknown));
        let Some(state) = self.regions.get_mut(index) else { return Ok(()) };
        state.unknown |= unknown;
        state.members.push(member);
        if (state.members.len() as u64) < ways || state.unknown {
            return Ok(());
        }
        self.assemble(index)
    }

    fn assemble(&mut self, index: usize) -> Attempt<()> {
        let name = self.regions.get(index).map_or(0, |region| region.id);
        let name = format!("region{name}");
        self.sort(index).map_err(|refusal| refusal.debug(("cxl", &name), "region sort failed"))?;
        let members = match self.regions.get(index) {
            Some(region) => region.members.clone(),
            None => return Ok(()),
        };
        for (place, member) in members.iter().enumerate() {
            if let Err(refusal) = self.attach_position(index, *member, place as u64) {
                self.detach(index, *member);
                return Err(refusal);
            }
        }
        for member in &members {
            // From the bridge down to the port above the endpoint.
            let mut path = self.path(member.port);
            path.remove(0);
            path.reverse();
            for port in path {
                self.set_up_targets(index, *member, port, &members)?;
            }
        }
        if let Some(region) = self.regions.get_mut(index) {
            region.done = Some(true);
        }
        Ok(())
    }

    /// Takes a member out of every port on its path (`cxl_port_detach_region`).
    fn detach(&mut self, index: usize, member: Member) {
        for (depth, at) in self.path(member.port).into_iter().enumerate() {
            let Some(port) = self.ports.get_mut(at) else { continue };
            let known = port.regions.iter().position(|known| known.region == index);
            let Some(known) = known else { continue };
            let Some(reference) = port.regions.get_mut(known) else { continue };
            reference.endpoints.retain(|(other, _)| *other != member);
            if depth == 0 || reference.endpoints.is_empty() {
                port.regions.remove(known);
            }
        }
    }

    /// Gives each member its position, by the target lists above it
    /// (`cxl_calc_interleave_pos`).
    fn sort(&mut self, index: usize) -> Attempt<()> {
        let Some(region) = self.regions.get(index) else { return Ok(()) };
        let mut failed: Option<Refusal> = None;
        let mut members = region.members.clone();
        for member in &mut members {
            let mut position = 0u64;
            for port in self.path(member.port) {
                match self.position_below(port, region) {
                    Ok((place, ways)) => {
                        position = position.saturating_mul(ways).saturating_add(place);
                    }
                    Err(refusal) => {
                        match &mut failed {
                            Some(failed) => failed.messages.extend(refusal.messages),
                            None => failed = Some(refusal),
                        }
                        break;
                    }
                }
            }
            member.position = position;
        }
        members.sort_by_key(|member| member.position);
        if let Some(region) = self.regions.get_mut(index) {
            region.members = members;
        }
        failed.map_or(Ok(()), Err)
    }

    /// A port's place among the targets of the decoder above it (`find_pos_and_ways`).
    fn position_below(&self, at: usize, region: &Region) -> Attempt<(u64, u64)> {
        let Some(port) = self.ports.get(at) else { return Ok((0, 1)) };
        let (driver, device) = self.uport(port);
        let device = (driver, device.as_str());
        let range = region.range;
        let Some(parent) = port.parent else {
            let Some(root) = self.roots.get(region.root) else { return Ok((0, 1)) };
            let place = root.targets.iter().position(|target| *target == Some(port.bridge));
            return place.map(|place| (place as u64, root.ways)).ok_or_else(|| {
                let component = self.component(port);
                let found = format!("window {} does not target {component}", root.window);
                let text = format!(
                    "failed to find {}:{} in target list of decoder0.{}",
                    self.name(port),
                    device.1,
                    root.id
                );
                Refusal::new(Rule::NotATarget, ENXIO, found).error(device, text)
            });
        };
        let Some(above) = self.ports.get(parent) else { return Ok((0, 1)) };
        let matching = above.decoders.iter().position(|decoder| decoder.range == range);
        let Some((number, decoder)) =
            matching.and_then(|number| Some((number, above.decoders.get(number)?)))
        else {
            let text = format!("failed to find decoder mapping {range}");
            let component = self.component(above);
            let (rule, found) = if above.pass_through {
                (Rule::PassThrough, format!("{component} has no decoders, and range {range}"))
            } else {
                let committed: Vec<_> = above
                    .decoders
                    .iter()
                    .filter(|decoder| decoder.enabled)
                    .map(|decoder| decoder.range.to_string())
                    .collect();
                let committed =
                    if committed.is_empty() { "nothing".to_owned() } else { committed.join(", ") };
                (Rule::Mapping, format!("{component} decodes {committed}, and not {range}"))
            };
            let refusal = Refusal::new(rule, ENXIO, found).blame(self.component_of(parent), None);
            return Err(refusal.error(device, text));
        };
        let place =
            decoder.targets.iter().position(|target| target.is_some() && *target == port.dport);
        let Some(place) = place else {
            let dport = self.dport_name(port.dport);
            let text = format!(
                "failed to find {}:{dport} in target list of {}",
                self.name(port),
                self.decoder_name(parent, number)
            );
            let found = format!("{} is no target of {}", dport, self.component(above));
            let refusal = Refusal::new(Rule::TargetList, ENXIO, found)
                .blame(self.component_of(parent), Some(number));
            return Err(refusal.error(device, text));
        };
        Ok((place as u64, decoder.ways))
    }

    /// Puts a member into every port on its path (`cxl_region_attach_position`).
    fn attach_position(&mut self, index: usize, member: Member, place: u64) -> Attempt<()> {
        let (Some(region), Some(port)) = (self.regions.get(index), self.ports.get(member.port))
        else {
            return Ok(());
        };
        let Some(root) = self.roots.get(region.root) else { return Ok(()) };
        let name = format!("region{}", region.id);
        let target = (place % root.ways) as usize;
        if root.targets.get(target) != Some(&Some(port.bridge)) {
            let found = format!("position {place} below target {target} of window {}", root.window);
            let text = format!(
                "{} invalid target position for decoder0.{}",
                self.member_name(member),
                root.id
            );
            return Err(Refusal::new(Rule::TargetPosition, ENXIO, found)
                .blame(self.component_of(member.port), Some(member.decoder))
                .debug(("cxl", &name), text));
        }
        let path = self.path(member.port);
        let mut between = None;
        for (depth, at) in path.into_iter().enumerate() {
            // Endpoints carry no reference to a port below.
            let below = (depth > 1).then_some(between).flatten();
            self.attach_port(index, member, at, below, depth == 0, place, &name)?;
            between = Some(at);
        }
        Ok(())
    }

    /// Puts a member into one port (`cxl_port_attach_region`).
    #[expect(clippy::too_many_arguments, reason = "where the member is, seen from a port")]
    fn attach_port(
        &mut self,
        index: usize,
        member: Member,
        at: usize,
        below: Option<usize>,
        own: bool,
        place: u64,
        region_name: &str,
    ) -> Attempt<()> {
        let (Some(region), Some(port)) = (self.regions.get(index), self.ports.get(at)) else {
            return Ok(());
        };
        let range = region.range;
        let device = ("cxl", region_name);
        let name = self.name(port);
        let mut new = None;
        let known = port.regions.iter().position(|known| known.region == index);
        let targets = match known.and_then(|known| port.regions.get(known)) {
            Some(known) => {
                let mut others =
                    known.endpoints.iter().filter(|(other, _)| other.port != member.port);
                let shared = below.is_some() && others.any(|(_, other)| *other == below);
                known.targets + u64::from(!shared)
            }
            None => {
                let decoder = if own {
                    Some(member.decoder)
                } else {
                    port.decoders.iter().position(|decoder| decoder.range == range)
                };
                let Some(decoder) = decoder else {
                    // The walk to the root has found one.
                    return Ok(());
                };
                for other in &port.regions {
                    let Some(of) = self.regions.get(other.region) else { continue };
                    if of.range.start < range.start || other.decoder > decoder {
                        continue;
                    }
                    let found = format!(
                        "decoder {} has {}, decoder {decoder} has {range}",
                        other.decoder, of.range
                    );
                    let text = format!(
                        "{name}: HPA order violation region{}:{} vs {}",
                        of.id,
                        resource(of.range),
                        resource(range)
                    );
                    let failed = format!("{name}: failed to allocate region reference");
                    return Err(Refusal::new(Rule::HpaOrder, EBUSY, found)
                        .blame(self.component_of(at), Some(decoder))
                        .debug(device, text)
                        .debug(device, failed));
                }
                new = Some(decoder);
                // A new reference starts with one target.
                1
            }
        };
        if !own && targets > port.target_count {
            let decoder = new.or_else(|| {
                port.regions.iter().find(|known| known.region == index).map(|known| known.decoder)
            });
            let found = format!("{} of {}", counted(targets, "target"), port.target_count);
            let text = format!(
                "{} {} add: {} @ {place} overflows targets: {}",
                self.port_name(port),
                self.decoder_name(at, decoder.unwrap_or(0)),
                self.member_name(member),
                port.target_count
            );
            return Err(Refusal::new(Rule::TargetOverflow, ENXIO, found)
                .blame(self.component_of(at), decoder)
                .debug(device, text));
        }
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        if let Some(decoder) = new {
            let reference =
                RegionRef { region: index, decoder, targets, targets_set: 0, endpoints: vec![] };
            port.regions.push(reference);
        }
        let mut locked = false;
        if let Some(known) = port.regions.iter_mut().find(|known| known.region == index) {
            known.targets = targets;
            locked = port.decoders.get(known.decoder).is_some_and(|decoder| decoder.locked);
            if !own {
                known.endpoints.push((member, below));
            }
        }
        if let Some(region) = self.regions.get_mut(index) {
            region.locked |= locked;
        }
        Ok(())
    }

    /// Compares a port with what Linux would have programmed (`cxl_port_setup_targets`).
    fn set_up_targets(
        &mut self,
        index: usize,
        member: Member,
        at: usize,
        members: &[Member],
    ) -> Attempt<()> {
        let (Some(region), Some(port)) = (self.regions.get(index), self.ports.get(at)) else {
            return Ok(());
        };
        let Some(root) = self.roots.get(region.root) else { return Ok(()) };
        let Some(reference) = port.regions.iter().find(|known| known.region == index) else {
            return Ok(());
        };
        let Some(decoder) = port.decoders.get(reference.decoder) else { return Ok(()) };
        let name = format!("region{}", region.id);
        let device = ("cxl", name.as_str());
        let port_name = self.port_name(port);
        let decoder_name = self.decoder_name(at, reference.decoder);
        let ours = Some(reference.decoder);
        let count = reference.targets;
        let debug = |rule: Rule, errno: c_int, found: String, text: String| {
            Err(Refusal::new(rule, errno, found)
                .blame(self.component_of(at), ours)
                .debug(device, text))
        };
        if !count.is_power_of_two() {
            let found = format!("{count} ports of {} take part", self.component(port));
            let text = format!("{port_name}: invalid target count {count}");
            return debug(Rule::TargetCount, EINVAL, found, text);
        }
        let dport = self.dport_below(member, at);
        let listed = |place: u64| decoder.targets.get(place as usize).copied().flatten();
        if reference.targets_set > 0 {
            let set = (0..reference.targets_set).map(listed);
            if dport.is_some() && set.clone().any(|target| target == dport) {
                // A port that has a target already may get further members behind it.
                let distance = self.distance(index, at).saturating_mul(root.ways);
                return self.check_peer(member, at, members, distance, dport, &name);
            }
        } else {
            let (parent_granularity, parent_ways) = match port.parent {
                None if root.ways.is_power_of_two() => (region.granularity, root.ways),
                None => (region.granularity, root.ways / 3),
                Some(above) => {
                    let above = self.ports.get(above);
                    let known = above.and_then(|above| {
                        let known = above.regions.iter().find(|known| known.region == index)?;
                        above.decoders.get(known.decoder)
                    });
                    known.map_or((256, 1), |known| (known.granularity, known.ways))
                }
            };
            if ways_code(parent_ways).is_none() {
                let text = format!("invalid parent interleave: {parent_ways}");
                return debug(Rule::ExpectedInterleave, EINVAL, text.clone(), text);
            }
            let wanted = parent_granularity.saturating_mul(parent_ways);
            let Some(code) = granularity_code(wanted) else {
                let found = format!("{parent_granularity} B times {}", counted(parent_ways, "way"));
                let above = port.parent.and_then(|above| self.ports.get(above));
                let above = above.map_or_else(|| "root0".to_owned(), |above| self.name(above));
                let text = format!(
                    "{above}: invalid granularity calculation ({parent_granularity} * {parent_ways})"
                );
                return debug(Rule::GranularityProduct, EINVAL, found, text);
            };
            let wanted = granularity(code).unwrap_or(wanted);
            if count > 8 || count > port.target_count {
                let found =
                    format!("{}, {}", counted(count, "way"), counted(port.target_count, "target"));
                let text = format!(
                    "{port_name}:{decoder_name}: ways: {count} overflows targets: {}",
                    port.target_count
                );
                return debug(Rule::TargetOverflow, ENXIO, found, text);
            }
            let compare = count > 1 || !self.linux.has(Change::OneWayGranularity);
            let (has_ways, has) = (decoder.ways, decoder.granularity);
            let differs = compare && has != wanted;
            if has_ways != count || differs || decoder.range != region.range || !decoder.enabled {
                let found = format!(
                    "{has_ways}-way at {has} B, expected {count}-way{}",
                    if compare { format!(" at {wanted} B") } else { String::new() }
                );
                let expected = format!(
                    "{port_name} cxl_port_setup_targets expected iw: {count} ig: {wanted} {}",
                    resource(region.range)
                );
                let state = if decoder.enabled { "enabled" } else { "disabled" };
                let got = format!(
                    "{port_name} cxl_port_setup_targets got iw: {has_ways} ig: {has} state: \
                     {state} {:#x}:{:#x}",
                    decoder.range.start, decoder.range.end
                );
                return Err(Refusal::new(Rule::ExpectedInterleave, ENXIO, found)
                    .blame(self.component_of(at), ours)
                    .error(device, expected)
                    .error(device, got));
            }
        }
        let next = reference.targets_set;
        if next == count {
            let found = format!("no target left for {}", self.member_name(member));
            let text = format!(
                "{port_name}: targets full trying to add {} at {}",
                self.member_name(member),
                member.position
            );
            return debug(Rule::TargetOrder, ENXIO, found, text);
        }
        if listed(next) != dport || dport.is_none() {
            let wanted = self.dport_name(dport);
            let has = self.dport_name(listed(next));
            let found = format!("target {next} is {has}, expected {wanted}");
            let text = format!("{port_name}: {decoder_name} expected {wanted} at {next}");
            return debug(Rule::TargetOrder, ENXIO, found, text);
        }
        let known = self
            .ports
            .get_mut(at)
            .and_then(|port| port.regions.iter_mut().find(|known| known.region == index));
        if let Some(known) = known {
            known.targets_set += 1;
        }
        Ok(())
    }

    /// The downstream port of a port that leads to a member.
    fn dport_below(&self, member: Member, at: usize) -> Option<usize> {
        let path = self.path(member.port);
        let below = path.iter().position(|port| *port == at)?.checked_sub(1)?;
        self.ports.get(*path.get(below)?)?.dport
    }

    /// The ways of a port and of all ports above it.
    fn distance(&self, index: usize, at: usize) -> u64 {
        let references = self.path(at).into_iter().filter_map(|port| {
            self.ports.get(port)?.regions.iter().find(|known| known.region == index)
        });
        references.map(|known| known.targets).fold(1, u64::saturating_mul)
    }

    /// Members that share a port are a fixed distance apart (`check_last_peer`).
    fn check_peer(
        &self,
        member: Member,
        at: usize,
        members: &[Member],
        distance: u64,
        dport: Option<usize>,
        region: &str,
    ) -> Attempt<()> {
        let Some(port) = self.ports.get(at) else { return Ok(()) };
        let position = member.position;
        let refuse = |text: String| {
            let found = format!("{} at position {position}", self.component_of(member.port));
            Err(Refusal::new(Rule::TargetOrder, ENXIO, found)
                .blame(self.component_of(at), None)
                .debug(("cxl", region), text))
        };
        let port_name = self.port_name(port);
        let name = self.member_name(member);
        let Some(peer) = position.checked_sub(distance) else {
            return refuse(format!("{port_name}: cannot host {name} at {position}"));
        };
        let Some(peer) = members.get(peer as usize) else { return Ok(()) };
        if self.dport_below(*peer, at) == dport {
            return Ok(());
        }
        let other = self.member_name(*peer);
        refuse(format!("{port_name}: {name} pos {position} mismatched peer {other}"))
    }

    /// What is left to say when everything has come up.
    pub(super) fn conclude(&mut self) {
        let mut locked: Vec<(usize, Vec<String>)> = Vec::new();
        for region in self.regions.clone() {
            let Some(root) = self.roots.get(region.root).cloned() else { continue };
            if region.unknown {
                continue;
            }
            match region.done {
                None => self.missing(&region),
                Some(true) => {
                    self.assembled(&region, &root);
                    if region.locked {
                        let named = format!("region{} at {}", region.id, region.range);
                        match locked.iter_mut().find(|(window, _)| *window == root.window) {
                            Some((_, regions)) => regions.push(named),
                            None => locked.push((root.window, vec![named])),
                        }
                    }
                }
                Some(false) => {}
            }
        }
        if self.linux.has(Change::LockedRegions) {
            for (window, regions) in locked {
                let found = regions.join(", ");
                let lost = "what is there stays until the machine is reset";
                let (rule, window) = (Rule::Locked, format!("window {window}"));
                self.findings.push(Finding::new(Severity::Note, rule, window, found, lost));
            }
        }
    }

    fn missing(&mut self, region: &Region) {
        let Some(first) = region.members.first().copied() else { return };
        let members: Vec<_> = region.members.iter().map(|m| self.component_of(m.port)).collect();
        let found =
            format!("{}-way at {}, and only {}", region.ways, region.range, members.join(", "));
        let lost = format!("{}; region{} waits", missing(self.linux, region.range), region.id);
        let (rule, component) = (Rule::MissingMember, self.component_of(first.port));
        let finding = Finding::new(Severity::Refused, rule, component, found, lost);
        self.findings.push(finding.of_decoder(first.decoder));
    }

    fn assembled(&mut self, region: &Region, root: &Root) {
        let name = format!("region{}", region.id);
        let window = format!("window {}", root.window);
        // What this driver makes of a window's restrictions, which is little: no rule of the
        // specification's, and so neither the library's (`admits`) nor the models' (`mapping`).
        let needs = [
            (region.mode == Some(Mode::Ram) && !root.restrictions.volatile(), "volatile"),
            (region.mode == Some(Mode::Pmem) && !root.restrictions.persistent(), "persistent"),
            (region.host_only && !root.restrictions.host_only(), "host-only coherent"),
        ];
        for (wrong, kind) in needs {
            if wrong {
                let found = format!("{kind} memory at {}", region.range);
                let lost = format!("{name} is assembled all the same");
                let rule = Rule::WindowKind;
                self.findings.push(Finding::new(Severity::Note, rule, &window, found, lost));
            }
        }
        if region.mode == Some(Mode::Pmem) {
            self.serial_numbers(region);
        }
        for member in &region.members {
            let Some(decoder) = self.decoder_of(member.port, member.decoder) else { continue };
            let has = decoder.granularity;
            // The region has that of the member that came first, which may be the one that is wrong.
            let wanted = match root.ways {
                1 => self.fans_out(member.port, region.range).unwrap_or(region.granularity),
                _ => root.granularity,
            };
            if (root.ways > 1 || region.ways > 1) && has != wanted {
                let found = format!("granularity {has} B, the set has {wanted} B");
                let lost = format!("{name} is assembled, and its contents are not where they seem");
                let (rule, component) = (Rule::GranularityDiffers, self.component_of(member.port));
                let finding = Finding::new(Severity::Degraded, rule, component, found, lost);
                self.findings.push(finding.of_decoder(member.decoder));
            }
        }
    }
}

impl System<'_> {
    /// The granularity with which a range is spread first on its way to an endpoint, below its window.
    fn fans_out(&self, endpoint: usize, range: AddressRange) -> Option<u64> {
        let mut first = None;
        let mut above = self.ports.get(endpoint).and_then(|port| port.parent);
        // Parents come up before what hangs on them.
        while let Some(port) = above.and_then(|above| self.ports.get(above)) {
            let decoder = port
                .decoders
                .iter()
                .find(|decoder| decoder.enabled && decoder.range == range && decoder.ways > 1);
            first = decoder.map(|decoder| decoder.granularity).or(first);
            above = port.parent;
        }
        first
    }

    /// A persistent region is known again by its devices' serial numbers (`cxl_pmem_region_probe`).
    fn serial_numbers(&mut self, region: &Region) {
        if !self.linux.has(Change::SerialNumbers) {
            return;
        }
        for member in &region.members {
            let Some(Kind::Endpoint(index, memory)) =
                self.ports.get(member.port).map(|port| port.kind)
            else {
                continue;
            };
            let Some(device) = self.input.devices.get(index) else { continue };
            if device.config.as_ref().and_then(|config| config.serial) != Some(0) {
                continue;
            }
            let lost = format!(
                "region{} is there, and none of its persistent memory: the region's driver gives up",
                region.id
            );
            let found = "no serial number, and persistent memory in a region";
            let rule = Rule::SerialNumber;
            let finding = Finding::new(Severity::Refused, rule, &device.name, found, lost);
            let name = format!("pmem_region{}", region.id);
            let at = ("cxl_pmem_region", name.as_str());
            let text = format!("mem{memory}: invalid or missing serial number");
            self.findings.push(finding.of_decoder(member.decoder).say(Level::Error, at, text));
            // The first one ends it.
            return;
        }
    }
}

/// Whether a device can do it (`check_interleave_cap`).
fn interleaves(port: &PortState, ways: u64, granularity: u64) -> bool {
    if port.ways >> ways & 1 == 0 {
        return port.ways == 0;
    }
    let (Some(ways), Some(granularity)) = (ways_code(ways), granularity_code(granularity)) else {
        return false;
    };
    let low = granularity + 8;
    let high = match ways {
        0 | 8 => return true,
        1..=7 => ways + granularity + 7,
        _ => ways + granularity - 1,
    };
    (low..=high).all(|bit| port.selectors >> bit & 1 == 1)
}

fn mode(mode: Option<Mode>) -> u32 {
    match mode {
        Some(Mode::Pmem) => 1,
        _ => 0,
    }
}

/// A range as Linux prints a resource.
fn resource(range: AddressRange) -> String {
    format!("[mem {:#010x}-{:#010x} flags 0x200]", range.start, range.end)
}

/// What it means that CXL does not take a range.
fn missing(linux: Linux, range: AddressRange) -> String {
    let missing = format!("{} at {range} is missing", size(range.length()));
    // "CXL did not claim resource, registering", says dax_hmem then.
    let all_the_same = linux.has(Change::UnclaimedMemory);
    let unless = ", unless firmware calls it soft reserved: then it comes online all the same, \
                  whatever the decoders say (from 7.2)";
    if all_the_same { missing + unless } else { missing }
}

fn size(bytes: u64) -> String {
    cxl_regs::Size(bytes).to_string()
}
