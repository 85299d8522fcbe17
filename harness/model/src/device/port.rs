//! Ports: root ports, and the upstream and downstream ports of switches.
//!
//! **Invariant**: only an upstream port decodes addresses; what a root or downstream port is sent
//! goes on to whatever hangs below it.

use cxl_regs::Component;
use cxl_regs::access::Features;
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::config::PortType;
use cxl_regs::dvsec::flex_bus::{self, FlexBusDvsec, FlexBusTail};
use cxl_regs::dvsec::gpf::GpfPortDvsec;
use cxl_regs::dvsec::locator::{BlockId, BlockLocation};
use cxl_regs::dvsec::port::PortDvsec;

use super::Reset;
use super::component::ComponentBlock;
use super::config::{Bar, Function};
use super::hdm::HdmBlock;

/// What a hierarchy can do beyond CXL.io and CXL.mem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// BI messages.
    pub back_invalidate: bool,
    /// CXL.cache by Cache ID.
    pub cache_id: bool,
}

/// One port.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its configuration space.
    pub function: Function,
    /// Its component registers.
    pub component: ComponentBlock,
}

/// Every port has its component registers here.
pub(crate) const COMPONENT_BAR: Bar = Bar { index: 0, size: BLOCK_SIZE as u64 };

impl Port {
    /// A root port. Decoders in it route nothing.
    pub fn root(number: u8, path: Path, idle: Option<HdmBlock>) -> Self {
        Self::downward(PortType::RootPort, number, path, idle)
    }

    /// A switch's downstream port. Decoders in it route nothing.
    pub fn downstream(number: u8, path: Path, idle: Option<HdmBlock>) -> Self {
        Self::downward(PortType::DownstreamPort, number, path, idle)
    }

    fn downward(kind: PortType, number: u8, path: Path, idle: Option<HdmBlock>) -> Self {
        let mut component = Self::block(idle);
        if path.back_invalidate {
            component = component.with_bi_decoder(kind == PortType::DownstreamPort);
        }
        if path.cache_id {
            component = component.with_cache_id_decoder();
        }
        let mut function = Self::function(kind, number);
        let length = PortDvsec::EXTENT.end;
        let at = function.add(PortDvsec::REGISTERS, length, |bytes, at, next| {
            PortDvsec::new(0, length, next).put(bytes, at)
        });
        function.set_port_dvsec(at);
        let length = GpfPortDvsec::EXTENT.end;
        function.add(GpfPortDvsec::REGISTERS, length, |bytes, at, next| {
            GpfPortDvsec::new(0, length, next).put(bytes, at)
        });
        Self::finish(function, component, path)
    }

    /// A switch's upstream port.
    pub fn upstream(hdm: Option<HdmBlock>, path: Path) -> Self {
        let mut component = Self::block(hdm);
        if path.back_invalidate {
            component = component.with_bi_route_table();
        }
        if path.cache_id {
            component = component.with_cache_id_route_table();
        }
        Self::finish(Self::function(PortType::UpstreamPort, 0), component, path)
    }

    fn block(hdm: Option<HdmBlock>) -> ComponentBlock {
        let block = ComponentBlock::new(Component::UpstreamPort).with_ras().with_link();
        match hdm {
            Some(hdm) => block.with_hdm(hdm),
            None => block.without_hdm(),
        }
    }

    fn function(kind: PortType, number: u8) -> Function {
        Function::port(kind, number, Features::NONE, &[COMPONENT_BAR])
    }

    fn finish(mut function: Function, component: ComponentBlock, path: Path) -> Self {
        add_flex_bus(&mut function, path.cache_id, path.back_invalidate);
        function.add_locator(&[BlockLocation { id: BlockId::Component, bar: 0, offset: 0 }]);
        Self { function, component }
    }

    /// Puts back to defaults what this reset reaches.
    pub fn reset(&mut self, reset: Reset) {
        self.function.reset(reset);
        self.component.reset(reset);
    }
}

/// Adds the Flex Bus DVSEC of a link that trained to all that both of its ends can do.
pub(super) fn add_flex_bus(function: &mut Function, cache: bool, wide_flits: bool) {
    let length = flex_bus::LENGTH_REVISION_2;
    let specs = [FlexBusDvsec::REGISTERS, FlexBusTail::REGISTERS].concat();
    function.add(&specs, length, |bytes, at, next| {
        let dvsec = FlexBusDvsec {
            capability: flex_bus::Capability::new()
                .with_cache(cache)
                .with_io(true)
                .with_mem(true)
                .with_flit_68b_vh(true)
                .with_latency_optimized(wide_flits),
            control: flex_bus::Control::new()
                .with_cache(cache)
                .with_io(true)
                .with_mem(true)
                .with_flit_68b_vh(true)
                .with_latency_optimized(wide_flits),
            status: flex_bus::Status::new()
                .with_cache(cache)
                .with_io(true)
                .with_mem(true)
                .with_flit_68b_vh(true)
                .with_latency_optimized(wide_flits),
            ..FlexBusDvsec::new(2, length, next)
        };
        dvsec.put(bytes, at)?;
        FlexBusTail::default().put(bytes, at)
    });
}
