//! Discovery of a flat machine: bridges, the CXL root ports on their root buses, and one device below
//! each.
//!
//! **Invariant**: what it takes part in, it reads and judges by the same functions as
//! [`mod@crate::discover`], in the same order; what only that can do is refused by name. Every bus is
//! visited once.

use cxl_regs::access::Component;
use cxl_regs::config::{BridgeHeader, BusNumbers, HeaderType, Sbdf, Windows};
use cxl_regs::dvsec::flex_bus;
use cxl_regs::dvsec::locator::BLOCK_ALIGNMENT;
use cxl_regs::{Hpa, Span};

use super::{Below, Bridge, NotFlat, Policy, Port, WorkspaceMut};
use crate::config::{Config, bus_base};
use crate::decoder_registers::DecoderRegisters;
use crate::device_registers::DeviceImage;
use crate::discover::leaf::{
    Blocks, Capacity, CxlFunction, Functions, RegisterBlock, Role, Sighting, Structures,
    Unassigned, answers, bus_range_end, by_uid, capacity, check_bridge, link_status,
    mem_capability, open, sound, structures,
};
use crate::error::{Code, Failed, Fault, Place};
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
    fault: &mut Fault,
) -> Result<(), Failed> {
    let mut walk = Walk { hw, clock, platform, policy, work, config: Config::uncached() };
    let result = walk.all();
    *fault = walk.config.fault;
    result
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
    port: Sbdf,
    windows: Windows,
    status: Option<flex_bus::Status>,
}

impl<M: Mmio, C: Clock> Walk<'_, '_, M, C> {
    #[inline(never)]
    fn all(&mut self) -> Result<(), Failed> {
        if let Some(given) = self.platform.resources.first() {
            return Err(self.not_flat(NotFlat::Resources, Place::bridge(given.uid)));
        }
        let bridges = self.platform.bridges;
        by_uid(bridges)
            .try_for_each(|bridge| check_bridge(bridges, bridge, |_| false))
            .map_err(|error| self.config.fault.keep(error))?;
        for bridge in by_uid(bridges) {
            self.bridge(bridge)?;
        }
        self.uncommitted()
    }

    #[cold]
    #[inline(never)]
    fn not_flat(&mut self, what: NotFlat, at: Place) -> Failed {
        self.config.fault.at(Code::DISCOVER_NOT_FLAT, at).detail(what as u8).into()
    }

    /// Keeps what was written as an error, which is none.
    #[cold]
    #[inline(never)]
    fn remark(&mut self) -> Result<(), Failed> {
        let remark = self.config.fault.error();
        match self.work.rest.remarks.push(remark) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.not_flat(NotFlat::Remarks, remark.at)),
        }
    }

    #[inline(never)]
    fn bridge(&mut self, bridge: &crate::platform::Bridge) -> Result<(), Failed> {
        let uid = bridge.uid;
        let at = Place::bridge(uid);
        if bridge.kind == BridgeKind::Rcrb {
            return Err(self.not_flat(NotFlat::Rcrb, at));
        }
        let Some(root) = bridge.root else { return Err(self.not_flat(NotFlat::RootBus, at)) };
        let found = self.structures(Some(bridge.registers.0), Some(Component::HostBridge), at)?;
        let Some(hdm) = found.hdm else { return Err(self.not_flat(NotFlat::PassThrough, at)) };
        if self.is_visited(root) {
            return self.config.fault.at(Code::DISCOVER_BUS_LOOP, at).found(root).into();
        }
        let number = self.work.bridges.len() as u16;
        if self.work.bridges.push(Bridge { uid, hdm }).is_err() {
            return Err(self.not_flat(NotFlat::Bridges, at));
        }
        let first = self.work.ports.len();
        let base = self.bus_base(root, at)?;
        let mut functions = Functions::new(uid, base, root, None);
        while let Some(header) = functions.next(self.hw, &mut self.config) {
            self.port(number, first, root, header)?;
        }
        if self.work.ports.len() == first {
            self.config.fault.at(Code::DISCOVER_NO_PORTS, at).found(root);
            self.remark()?;
        }
        for index in first..self.work.ports.len() {
            self.below(uid, index)?;
        }
        Ok(())
    }

    /// What a block of component registers has, if there is one.
    #[inline(always)]
    fn structures(
        &mut self,
        block: Option<u64>,
        component: Option<Component>,
        at: Place,
    ) -> Result<Structures, Failed> {
        match block {
            Some(block) => structures(self.hw, block, component, at, &mut self.config.fault),
            None => Ok(Structures::default()),
        }
    }

    #[inline(never)]
    fn bus_base(&mut self, bus: RootBus, at: Place) -> Result<u64, Failed> {
        match bus_base(self.platform.ecam, bus) {
            Some(base) => Ok(base),
            None => self.config.fault.at(Code::DISCOVER_NOT_DECODED, at).found(bus).into(),
        }
    }

    #[inline(never)]
    fn is_visited(&self, bus: RootBus) -> bool {
        let same = |port: &Port| (port.function.segment, port.bus) == (bus.segment, bus.bus);
        self.work.ports.iter().any(same)
    }

    /// What the open function is, unless it is none of CXL's; `trained` is a port above whose link trained
    /// to CXL.mem.
    #[inline(never)]
    fn identify(
        &mut self,
        header: HeaderType,
        above: Option<Role>,
        trained: Option<Sbdf>,
    ) -> Result<Option<CxlFunction>, Failed> {
        let found = CxlFunction::identify(self.hw, &mut self.config, header, above)?;
        if let Sighting::Cxl(found) = found {
            return Ok(Some(found));
        }
        answers(self.hw, &mut self.config)?;
        match (found, trained) {
            (Sighting::Aside, _) => self.remark()?,
            (_, Some(port)) if self.config.function().bdf.function() == 0 => {
                self.config.refuse(Code::DISCOVER_LINK_WITHOUT_CXL).found(port);
                self.remark()?;
            }
            _ => {}
        }
        Ok(None)
    }

    /// Adds the open function, if it is a root port, to those of its bridge, which start at `first`.
    #[inline(never)]
    fn port(
        &mut self,
        bridge: u16,
        first: usize,
        root: RootBus,
        header: HeaderType,
    ) -> Result<(), Failed> {
        let Ok(found) = &self.identify(header, None, None) else { return Err(Failed) };
        let Some(found) = found else { return Ok(()) };
        let function = self.config.function();
        let at = self.config.place();
        let number = found.port_number(self.hw, &mut self.config)?;
        let status = link_status(self.hw, &mut self.config, found)?;
        let buses: BusNumbers = self.config.read(self.hw, 0);
        sound::<BusNumbers>(self.hw, &mut self.config, 0)?;
        let (secondary, subordinate) = (buses.secondary(), buses.subordinate());
        if secondary == 0 {
            return Err(Unassigned::BusNumbers.fail(&mut self.config.fault, at));
        }
        let bus = RootBus { segment: root.segment, bus: secondary };
        let is_root = self.platform.bridges.iter().any(|bridge| bridge.root == Some(bus));
        if is_root || self.is_visited(bus) {
            return self.config.refuse(Code::DISCOVER_BUS_LOOP).found(bus).into();
        }
        let last = bus_range_end(self.platform, root);
        if secondary <= root.bus || subordinate < secondary || subordinate > last {
            let fault = self.config.refuse(Code::DISCOVER_BUS_NUMBERS);
            return fault.expected((root.bus, last)).found((secondary, subordinate)).into();
        }
        let component = found.blocks(self.hw, &mut self.config)?.component;
        found.enable_memory(self.hw, &mut self.config);
        let Ok(found) = &self.structures(component.map(|block| block.address), None, at) else {
            return Err(Failed);
        };
        let back_invalidate = found.back_invalidate;
        let ports = &mut self.work.ports;
        let mut at = first;
        while ports.get(at).is_some_and(|other| other.number <= number) {
            at += 1;
        }
        let (bus, device) = (secondary, None);
        let port = Port { bridge, number, bus, status, function, back_invalidate, device };
        match ports.insert(at, port) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.not_flat(NotFlat::Ports, self.config.place())),
        }
    }

    /// Looks at what is below a port.
    #[inline(never)]
    fn below(&mut self, uid: u32, index: usize) -> Result<(), Failed> {
        let Some(&Port { function, bus, status, .. }) = self.work.ports.get(index) else {
            return Ok(());
        };
        let segment = function.segment;
        let at = Place::function(uid, function);
        let own = RootBus { segment, bus: function.bdf.bus() };
        let base = self.bus_base(own, at)?;
        self.config.open(uid, base, function);
        let (hw, config) = (&mut *self.hw, &mut self.config);
        let header = BridgeHeader {
            memory_base: config.read(hw, 0),
            memory_limit: config.read(hw, 0),
            pref_base: config.read(hw, 0),
            pref_limit: config.read(hw, 0),
            pref_base_upper: config.read(hw, 0),
            pref_limit_upper: config.read(hw, 0),
            ..BridgeHeader::default()
        };
        let windows = open(header.windows());
        let above = Above { port: function, windows, status };
        let bus = RootBus { segment, bus };
        let base = self.bus_base(bus, at)?;
        let mut functions = Functions::new(uid, base, bus, Some(Role::RootPort));
        while let Some(header) = functions.next(self.hw, &mut self.config) {
            self.device(uid, index, header, &above)?;
        }
        Ok(())
    }

    /// Adds the open function to its port, if it is a memory device.
    #[inline(always)]
    fn device(
        &mut self,
        uid: u32,
        index: usize,
        header: HeaderType,
        above: &Above,
    ) -> Result<(), Failed> {
        let port = above.port;
        let trained = above.status.is_some_and(|status| status.mem());
        let trained = Some(port).filter(|_| trained);
        let found = &self.identify(header, Some(Role::RootPort), trained);
        let Ok(found) = found else { return Err(Failed) };
        let Some(found) = found else { return Ok(()) };
        let function = self.config.function();
        let at = self.config.place();
        let (Role::Device, Some(dvsec)) = (found.role, &found.device) else {
            return Err(self.not_flat(NotFlat::Switch, at));
        };
        let status = link_status(self.hw, &mut self.config, found)?;
        let capability = mem_capability(self.hw, &mut self.config, dvsec)?;
        if !capability.mem_capable() {
            self.config.refuse(Code::DISCOVER_NO_MEM).found(capability.into_bits());
            return self.remark();
        }
        self.trained(function, status)?;
        self.trained(port, above.status)?;
        let Blocks { component, device: registers } = found.blocks(self.hw, &mut self.config)?;
        self.check_forwarded(above, uid, component)?;
        self.check_forwarded(above, uid, registers)?;
        found.enable_memory(self.hw, &mut self.config);
        let block = component.map(|block| block.address);
        let Ok(structures) = &self.structures(block, Some(Component::Device), at) else {
            return Err(Failed);
        };
        // Without the feature, what is here is not asked.
        let believed = cfg!(not(feature = "mailbox")) && self.policy.assume_volatile;
        let asked = registers.filter(|_| !believed);
        let mut found = Capacity::NONE;
        let Self { hw, clock, config, .. } = self;
        capacity(*hw, *clock, config, dvsec, capability, asked, &mut found)?;
        if let Some(remark) = &found.remark {
            _ = self.config.fault.keep(*remark);
            self.remark()?;
        }
        if let Some(hdm) = &structures.hdm
            && self.work.view().has_decoders_at(hdm.block)
        {
            return self.config.refuse(Code::DISCOVER_SHARED_REGISTERS).found(hdm.block.0).into();
        }
        let Some(port) = self.work.ports.get_mut(index) else { return Ok(()) };
        if port.device.is_some() {
            let port = port.number;
            let path = crate::topology::Path::new(uid, &[port]).unwrap_or_default();
            return self.config.fault.at(Code::PLAN_SHARED_PORT, &path).into();
        }
        let Capacity { volatile, persistent, source, .. } = found;
        let device = Device {
            kind: if capability.cache_capable() { DeviceKind::Type2 } else { DeviceKind::Type3 },
            dvsec: self.config.block(dvsec.offset),
            volatile,
            persistent,
            source,
        };
        let before = DeviceImage::EMPTY;
        let Structures { hdm, back_invalidate } = *structures;
        port.device = Some(Below { function, device, hdm, back_invalidate, before });
        Ok(())
    }

    /// Refuses a machine that somebody has programmed: what it did, only the general path can judge.
    fn uncommitted(&mut self) -> Result<(), Failed> {
        let view = self.work.view();
        for at in 0..view.components() {
            let Some((component, number, hdm)) = view.component_with_decoders(at) else {
                continue;
            };
            for index in 0..hdm.decoders {
                let control = DecoderRegisters::new(hdm.block, index).read_control(self.hw);
                let place = view.place(component, number, index).into();
                crate::commit::settled(place, control, &mut self.config.fault)?;
                if control.committed() {
                    let fault = self.config.fault.at(Code::DISCOVER_NOT_FLAT, place);
                    let fault = fault.detail(NotFlat::Committed as u8);
                    return fault.found(control.into_bits()).into();
                }
            }
        }
        Ok(())
    }

    /// A link has to carry CXL.mem, if its end says what it trained to.
    #[inline(never)]
    fn trained(&mut self, link: Sbdf, status: Option<flex_bus::Status>) -> Result<(), Failed> {
        let Some(status) = status.filter(|status| !status.mem()) else { return Ok(()) };
        let fault = self.config.refuse(Code::DISCOVER_NO_MEM_LINK);
        fault.expected(link).found(status.into_bits()).into()
    }

    /// The port above must forward a register block, if there is one.
    #[inline(never)]
    fn check_forwarded(
        &mut self,
        above: &Above,
        uid: u32,
        block: Option<RegisterBlock>,
    ) -> Result<(), Failed> {
        let Some(RegisterBlock { address, .. }) = block else { return Ok(()) };
        let Ok(block) = Span::new(Hpa(address), BLOCK_ALIGNMENT) else { return Ok(()) };
        let open = [above.windows.memory, above.windows.prefetchable];
        if open == [None; 2] {
            let at = Place::function(uid, above.port);
            return Err(Unassigned::Windows.fail(&mut self.config.fault, at));
        }
        if open.iter().flatten().any(|window| window.contains_span(block)) {
            return Ok(());
        }
        let fault = self.config.refuse(Code::DISCOVER_NOT_FORWARDED);
        fault.expected(above.port).found(address).into()
    }
}
