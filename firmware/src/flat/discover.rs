//! Discovery of a flat machine: bridges, the CXL root ports on their root buses, and one device below
//! each.
//!
//! **Invariant**: what it takes part in, it reads and judges by the same functions as
//! [`mod@crate::discover`], in the same order; what only that can do is refused by name. Every bus is
//! visited once.

use core::iter::once;

use cxl_regs::access::Component;
use cxl_regs::config::{BridgeHeader, BusNumbers, HeaderType, Windows};
use cxl_regs::dvsec::flex_bus;
use cxl_regs::dvsec::locator::BLOCK_ALIGNMENT;
use cxl_regs::{Hpa, Span};

use super::{Below, Bridge, NotFlat, Policy, Port, WorkspaceMut};
use crate::config::{Config, bus_base};
use crate::decoder_registers::DecoderRegisters;
use crate::device_registers::DeviceImage;
use crate::discover::leaf::{
    Blocks, CxlFunction, Functions, Role, Sighting, Structures, Unassigned, answers, bus_range_end,
    by_uid, capacity, check_bridge, link_status, mem_capability, open, sound, structures,
};
use crate::error::{Code, Error, Place};
use crate::list::Empty;
use crate::mmio::{Clock, Mmio};
use crate::platform::{BridgeKind, Platform, RootBus};
use crate::topology::{Device, DeviceKind};

/// Finds everything below the platform's bridges.
pub(super) fn discover(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy,
    work: &mut WorkspaceMut<'_>,
) -> Result<(), Error> {
    let mut walk = Walk { hw, clock, platform, policy, work, config: Config::uncached() };
    if let Some(given) = platform.resources.first() {
        return Err(NotFlat::Resources.at(Place::bridge(given.uid)));
    }
    by_uid(platform.bridges).try_for_each(|bridge| check_bridge(platform.bridges, bridge))?;
    for bridge in by_uid(platform.bridges) {
        walk.bridge(bridge)?;
    }
    walk.uncommitted()
}

struct Walk<'a, 'w, M, C> {
    hw: &'a mut M,
    clock: &'a mut C,
    platform: &'a Platform<'a>,
    policy: &'a Policy,
    work: &'a mut WorkspaceMut<'w>,
    config: Config<'static>,
}

/// What a device needs of the port above it.
struct Above {
    windows: Windows,
    status: Option<flex_bus::Status>,
}

impl<M: Mmio, C: Clock> Walk<'_, '_, M, C> {
    fn remark(&mut self, remark: Error) -> Result<(), Error> {
        let full = NotFlat::Remarks.at(remark.at);
        self.work.rest.remarks.push(remark).map_err(|_| full)
    }

    fn bridge(&mut self, bridge: &crate::platform::Bridge) -> Result<(), Error> {
        let at = Place::bridge(bridge.uid);
        if bridge.kind == BridgeKind::Rcrb {
            return Err(NotFlat::Rcrb.at(at));
        }
        let root = bridge.root.ok_or(NotFlat::RootBus.at(at))?;
        let found = structures(self.hw, bridge.registers.0, Some(Component::HostBridge), at)?;
        let hdm = found.hdm.ok_or(NotFlat::PassThrough.at(at))?;
        if self.is_visited(root) {
            return Err(Code::DISCOVER_BUS_LOOP.at(at).found(root));
        }
        let number = self.work.bridges.len() as u16;
        let entry = Bridge { uid: bridge.uid, hdm };
        self.work.bridges.push(entry).map_err(|_| NotFlat::Bridges.at(at))?;
        let first = self.work.ports.len();
        self.scan(bridge.uid, root, |walk, header| {
            walk.port(bridge.uid, number, first, root, header)
        })?;
        if self.work.ports.len() == first {
            self.remark(Code::DISCOVER_NO_PORTS.at(at).found(root))?;
        }
        for index in first..self.work.ports.len() {
            self.below(bridge.uid, index)?;
        }
        Ok(())
    }

    /// Looks at every function of a bus; each is open when `look` sees its header.
    fn scan(
        &mut self,
        uid: u32,
        bus: RootBus,
        look: impl Fn(&mut Self, HeaderType) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let base = bus_base(self.platform.ecam, bus);
        let base =
            base.ok_or_else(|| Code::DISCOVER_NOT_DECODED.at(Place::bridge(uid)).found(bus))?;
        let mut functions = Functions::new(base, bus, None);
        while let Some(header) = functions.next(self.hw, &mut self.config) {
            look(self, header)?;
        }
        Ok(())
    }

    fn is_visited(&self, bus: RootBus) -> bool {
        let same = |port: &Port| (port.function.segment, port.bus) == (bus.segment, bus.bus);
        self.work.ports.iter().any(same)
    }

    /// What the open function is, unless it is none of CXL's.
    fn identify(
        &mut self,
        uid: u32,
        header: HeaderType,
        above: Option<Role>,
    ) -> Result<(Option<CxlFunction>, bool), Error> {
        let at = Place::function(uid, self.config.function());
        let found = CxlFunction::identify(self.hw, &mut self.config, uid, header, above)?;
        if let Sighting::Cxl(found) = found {
            return Ok((Some(found), false));
        }
        answers(self.hw, &mut self.config, at)?;
        if let Sighting::Aside(remark) = found {
            self.remark(remark)?;
            return Ok((None, true));
        }
        Ok((None, false))
    }

    /// Adds the open function, if it is a root port, to those of its bridge, which start at `first`.
    fn port(
        &mut self,
        uid: u32,
        bridge: u16,
        first: usize,
        root: RootBus,
        header: HeaderType,
    ) -> Result<(), Error> {
        let (Some(found), _) = self.identify(uid, header, None)? else { return Ok(()) };
        let function = self.config.function();
        let at = Place::function(uid, function);
        let number = found.port_number(self.hw, &mut self.config, at)?;
        let status = link_status(self.hw, &mut self.config, &found, at)?;
        let buses: BusNumbers = self.config.read(self.hw, 0);
        sound::<BusNumbers>(self.hw, &mut self.config, 0, at)?;
        let (secondary, subordinate) = (buses.secondary(), buses.subordinate());
        if secondary == 0 {
            return Err(Unassigned::BusNumbers.error(at));
        }
        let bus = RootBus { segment: root.segment, bus: secondary };
        let is_root = self.platform.bridges.iter().any(|bridge| bridge.root == Some(bus));
        if is_root || self.is_visited(bus) {
            return Err(Code::DISCOVER_BUS_LOOP.at(at).found(bus));
        }
        let last = bus_range_end(self.platform, root);
        if secondary <= root.bus || subordinate < secondary || subordinate > last {
            return Err(Code::DISCOVER_BUS_NUMBERS
                .at(at)
                .expected((root.bus, last))
                .found((secondary, subordinate)));
        }
        let component = found.blocks(self.hw, &mut self.config, at)?.component;
        found.enable_memory(self.hw, &mut self.config);
        let back_invalidate = match component {
            Some(block) => structures(self.hw, block.address, None, at)?.back_invalidate,
            None => None,
        };
        let ports = &mut self.work.ports;
        let lower = ports.iter().skip(first).filter(|other| other.number <= number).count();
        let (bus, device) = (secondary, None);
        let port = Port { bridge, number, bus, status, function, back_invalidate, device };
        ports.insert(first + lower, port).map_err(|_| NotFlat::Ports.at(at))
    }

    /// Looks at what is below a port.
    fn below(&mut self, uid: u32, index: usize) -> Result<(), Error> {
        let Some(&Port { function, bus, status, .. }) = self.work.ports.get(index) else {
            return Ok(());
        };
        let segment = function.segment;
        let at = Place::function(uid, function);
        let own = RootBus { segment, bus: function.bdf.bus() };
        let not_decoded = |bus| Code::DISCOVER_NOT_DECODED.at(at).found(bus);
        let base = bus_base(self.platform.ecam, own).ok_or_else(|| not_decoded(own))?;
        self.config.open(base, function);
        let windows = open(BridgeHeader::read(self.config.reader(self.hw), 0).windows());
        let above = Above { windows, status };
        let bus = RootBus { segment, bus };
        let base = bus_base(self.platform.ecam, bus).ok_or_else(|| not_decoded(bus))?;
        let mut functions = Functions::new(base, bus, Some(Role::RootPort));
        while let Some(header) = functions.next(self.hw, &mut self.config) {
            self.device(uid, index, header, &above)?;
        }
        Ok(())
    }

    /// Adds the open function to its port, if it is a memory device.
    fn device(
        &mut self,
        uid: u32,
        index: usize,
        header: HeaderType,
        above: &Above,
    ) -> Result<(), Error> {
        let (found, aside) = self.identify(uid, header, Some(Role::RootPort))?;
        let function = self.config.function();
        let at = Place::function(uid, function);
        let port = self.work.ports.get(index).map_or(function, |port| port.function);
        let Some(found) = found else {
            let trained = above.status.is_some_and(|status| status.mem());
            if trained && !aside && function.bdf.function() == 0 {
                return self.remark(Code::DISCOVER_LINK_WITHOUT_CXL.at(at).found(port));
            }
            return Ok(());
        };
        let (Role::Device, Some(dvsec)) = (found.role, &found.device) else {
            return Err(NotFlat::Switch.at(at));
        };
        let status = link_status(self.hw, &mut self.config, &found, at)?;
        let capability = mem_capability(self.hw, &mut self.config, dvsec, at)?;
        if !capability.mem_capable() {
            let capability = capability.into_bits();
            return self.remark(Code::DISCOVER_NO_MEM.at(at).found(capability));
        }
        for (link, status) in [(function, status), (port, above.status)] {
            if let Some(status) = status.filter(|status| !status.mem()) {
                let error = Code::DISCOVER_NO_MEM_LINK.at(at);
                return Err(error.expected(link).found(status.into_bits()));
            }
        }
        let Blocks { component, device: registers } =
            found.blocks(self.hw, &mut self.config, at)?;
        for block in [component, registers].into_iter().flatten() {
            check_forwarded(above.windows, block.address, uid, port, at)?;
        }
        found.enable_memory(self.hw, &mut self.config);
        let Structures { hdm, back_invalidate } = match component {
            Some(block) => structures(self.hw, block.address, Some(Component::Device), at)?,
            None => Structures::default(),
        };
        // Without the feature, what is here is not asked.
        let believed = cfg!(not(feature = "mailbox")) && self.policy.assume_volatile;
        let asked = registers.filter(|_| !believed);
        let capacity =
            capacity(self.hw, self.clock, &mut self.config, dvsec, capability, asked, at)?;
        let remark = capacity.remark;
        let device = Device {
            kind: if capability.cache_capable() { DeviceKind::Type2 } else { DeviceKind::Type3 },
            dvsec: self.config.block(dvsec.offset),
            volatile: capacity.volatile,
            persistent: capacity.persistent,
            source: capacity.source,
        };
        if let Some(remark) = remark {
            self.remark(remark)?;
        }
        if let Some(hdm) = hdm
            && self.work.view().components().any(|(_, _, other)| other.block == hdm.block)
        {
            return Err(Code::DISCOVER_SHARED_REGISTERS.at(at).found(hdm.block.0));
        }
        let Some(port) = self.work.ports.get_mut(index) else { return Ok(()) };
        if port.device.is_some() {
            let port = port.number;
            let path = crate::topology::Path::new(uid, &[port]).unwrap_or_default();
            return Err(Code::PLAN_SHARED_PORT.at(path));
        }
        let before = DeviceImage::EMPTY;
        port.device = Some(Below { function, device, hdm, back_invalidate, before });
        Ok(())
    }

    /// Refuses a machine that somebody has programmed: what it did, only the general path can judge.
    fn uncommitted(&mut self) -> Result<(), Error> {
        let view = self.work.view();
        for (component, number, hdm) in view.components() {
            for index in 0..hdm.decoders {
                let control = DecoderRegisters::new(hdm.block, index).read_control(self.hw);
                let place = view.place(component, number, index);
                crate::commit::settled(place, control)?;
                if control.committed() {
                    return Err(NotFlat::Committed.at(place).found(control.into_bits()));
                }
            }
        }
        Ok(())
    }
}

/// The port above must forward a register block.
fn check_forwarded(
    windows: Windows,
    address: u64,
    uid: u32,
    port: cxl_regs::config::Sbdf,
    at: Place,
) -> Result<(), Error> {
    let Ok(block) = Span::new(Hpa(address), BLOCK_ALIGNMENT) else { return Ok(()) };
    let open = [windows.memory, windows.prefetchable];
    if open == [None; 2] {
        return Err(Unassigned::Windows.error(Place::function(uid, port)));
    }
    if once(open).flatten().flatten().any(|window| window.contains_span(block)) {
        return Ok(());
    }
    Err(Code::DISCOVER_NOT_FORWARDED.at(at).expected(port).found(address))
}
