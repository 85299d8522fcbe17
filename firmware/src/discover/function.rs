//! One PCI function: is it part of a CXL hierarchy, as what, and where are its registers.
//!
//! **Invariant**: a function is taken for what it says it is only where such a thing can be; all
//! others are passed over without a write, and not without a word where they say anything of CXL.

use cxl_regs::access::Register;
use cxl_regs::config::{
    Bar, BarKind, Bdf, Capabilities, CapabilityId, Command, ExtendedCapabilities,
    ExtendedCapabilityId, HeaderType, Id, LinkCapabilities, PcieCapabilities, PortType, Sbdf,
};
use cxl_regs::dvsec::locator::{BLOCK_ALIGNMENT, BlockId, BlockLocation, Locations, LocatorError};
use cxl_regs::dvsec::{Dvsec, DvsecId, Dvsecs};

use super::error::Unassigned;
use crate::config::{self, Config};
use crate::error::{BarProblem, Code, Failed, Numbered};
use crate::mmio::Mmio;
use crate::platform::RootBus;
use crate::topology::Path;

/// What a function is to CXL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    RootPort,
    UpstreamPort,
    DownstreamPort,
    Device,
}

impl Role {
    /// The role, if a function with this header and port type can have one below `above`: `None`
    /// is the host bridge.
    fn of(header: HeaderType, port_type: PortType, above: Option<Self>) -> Option<Self> {
        let below_link = matches!(above, Some(Self::RootPort | Self::DownstreamPort));
        match (header.layout(), port_type) {
            (1, PortType::RootPort) if above.is_none() => Some(Self::RootPort),
            (1, PortType::UpstreamPort) if below_link => Some(Self::UpstreamPort),
            (1, PortType::DownstreamPort) if above == Some(Self::UpstreamPort) => {
                Some(Self::DownstreamPort)
            }
            (0, PortType::Endpoint | PortType::LegacyEndpoint) if below_link => Some(Self::Device),
            _ => None,
        }
    }

    /// The number of BARs in its header.
    pub(crate) fn bars(self) -> u8 {
        if self == Self::Device { 6 } else { 2 }
    }

    /// Device numbers that can exist on the bus below: a link leads to device 0 only.
    pub(crate) fn devices_below(above: Option<Self>) -> u16 {
        match above {
            None | Some(Self::UpstreamPort) => 32,
            Some(Self::RootPort | Self::DownstreamPort | Self::Device) => 1,
        }
    }
}

/// A cursor over the functions that answer on a bus.
#[derive(Debug)]
pub(crate) struct Functions {
    uid: u32,
    base: u64,
    bus: RootBus,
    next: u16,
    end: u16,
}

impl Functions {
    /// All of a bus below a bridge; its configuration space is at `base`.
    pub(crate) fn new(uid: u32, base: u64, bus: RootBus, above: Option<Role>) -> Self {
        let end = Bdf::new(1, 0, 0).map_or(0, Bdf::bits) / 32 * Role::devices_below(above);
        Self { uid, base, bus, next: 0, end }
    }

    /// Opens the next function and gives its header type.
    pub(crate) fn next(
        &mut self,
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
    ) -> Option<HeaderType> {
        while self.next < self.end {
            let bdf = Bdf::from_bits(u16::from(self.bus.bus) << 8 | self.next);
            config.open(self.uid, self.base, Sbdf { segment: self.bus.segment, bdf });
            let id: Id = config.read(hw, 0);
            let header = (id.vendor() != u16::MAX).then(|| config.read::<HeaderType>(hw, 0));
            // Functions above 0 exist only where function 0 says so.
            let skip = bdf.function() == 0 && !header.is_some_and(|h| h.multi_function());
            self.next += if skip { 8 } else { 1 };
            if header.is_some() {
                return header;
            }
        }
        None
    }
}

/// A function of a CXL hierarchy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CxlFunction {
    pub(crate) role: Role,
    /// Offset of the PCI Express capability.
    pcie: u16,
    pub(crate) device: Option<Dvsec>,
    pub(crate) flex_bus: Option<Dvsec>,
    locator: Option<Dvsec>,
}

/// What a function turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sighting {
    /// A part of a CXL hierarchy.
    Cxl(CxlFunction),
    /// None, but it says something of CXL, or there may be something behind it: what is to be remarked
    /// stands in the configuration space's [`Fault`](crate::error::Fault).
    Aside,
    /// Nobody's business.
    Nothing,
}

impl Sighting {
    /// The part of a CXL hierarchy, if it is one.
    pub(crate) fn cxl(self) -> Option<CxlFunction> {
        match self {
            Self::Cxl(found) => Some(found),
            Self::Aside | Self::Nothing => None,
        }
    }
}

impl CxlFunction {
    /// What the open function is.
    #[inline(never)]
    pub(crate) fn identify(
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
        header: HeaderType,
        above: Option<Role>,
    ) -> Result<Sighting, Failed> {
        sound::<HeaderType>(hw, config, 0)?;
        let bridge = header.layout() == 1;
        if header.layout() > 1 {
            return Ok(Sighting::Nothing);
        }
        // Endpoints on a root bus are the chip set's: whatever is wrong with their lists is no
        // reason to refuse anything.
        let integrated = above.is_none() && !bridge;
        let pcie = match Capabilities::new(config.reader(hw)).find(CapabilityId::PciExpress) {
            Ok(Some(pcie)) => pcie,
            Ok(None) => return Ok(plain(config, bridge)),
            Err(_) if integrated => return Ok(Sighting::Nothing),
            Err(error) => {
                return config.refuse(Code::DISCOVER_CAPABILITIES).rule(error).into();
            }
        };
        let capabilities: PcieCapabilities = config.read(hw, pcie);
        let port_type = capabilities.port_type();
        let role = Role::of(header, PortType::from_code(port_type), above);
        let (mut device, mut flex_bus, mut locator) = (None, None, None);
        let (mut extensions, mut has, mut wrong) = (None, None, None);
        for dvsec in Dvsecs::new(config.reader(hw)) {
            let dvsec = match dvsec {
                Ok(dvsec) => dvsec,
                Err(error) => {
                    wrong = Some(error).filter(|_| role.is_some());
                    break;
                }
            };
            has.get_or_insert(dvsec.id);
            let first = match dvsec.id {
                DvsecId::Device => &mut device,
                DvsecId::FlexBusPort => &mut flex_bus,
                DvsecId::RegisterLocator => &mut locator,
                DvsecId::PortExtensions => &mut extensions,
                _ => continue,
            };
            first.get_or_insert(dvsec);
        }
        if let Some(error) = wrong {
            return config.refuse(Code::DISCOVER_DVSECS).rule(error).into();
        }
        let is_cxl = match role {
            None => false,
            Some(Role::Device) => device.is_some(),
            Some(Role::RootPort | Role::UpstreamPort | Role::DownstreamPort) => {
                extensions.is_some() || flex_bus.is_some()
            }
        };
        match (role, has) {
            (Some(role), _) if is_cxl => {
                return Ok(Sighting::Cxl(Self { role, pcie, device, flex_bus, locator }));
            }
            (_, None) => return Ok(plain(config, bridge)),
            (Some(role), Some(has)) => {
                let remark = config.refuse(Code::DISCOVER_INCOMPLETE).detail(has);
                remark.expected(role == Role::Device);
            }
            (None, Some(has)) => {
                config.refuse(Code::DISCOVER_MISPLACED).detail(has).found(port_type);
            }
        }
        Ok(Sighting::Aside)
    }

    /// The port's number, by which target lists name it; 0 for what is no target.
    #[inline(never)]
    pub(crate) fn port_number(
        &self,
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
    ) -> Result<u8, Failed> {
        match self.role {
            Role::RootPort | Role::DownstreamPort => {
                sound::<LinkCapabilities>(hw, config, self.pcie)?;
                Ok(config.read::<LinkCapabilities>(hw, self.pcie).port_number())
            }
            Role::UpstreamPort | Role::Device => Ok(0),
        }
    }

    /// Its place below `above`, or, of what is no target, that of the port above it. `None` where the way
    /// there is too long to name.
    pub(crate) fn place_in(&self, above: Path, port: u8) -> Option<Path> {
        match self.role {
            Role::RootPort | Role::DownstreamPort => above.behind(port),
            Role::UpstreamPort | Role::Device => Some(above),
        }
    }
}

/// A function that says nothing of CXL: behind a port there may be something all the same.
fn plain(config: &mut Config<'_>, bridge: bool) -> Sighting {
    if !bridge {
        return Sighting::Nothing;
    }
    config.refuse(Code::DISCOVER_PLAIN_PORT);
    Sighting::Aside
}

/// Refuses a function whose register `R`, in the structure at `base`, shares a dword of all-ones,
/// which no such register can: it answered its Vendor ID, and then no more.
pub(crate) fn sound<R: Numbered>(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    base: u16,
) -> Result<(), Failed> {
    sound_at(hw, config, base.saturating_add(R::SPEC.offset) & !3, R::NUMBER)
}

#[inline(never)]
fn sound_at(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    offset: u16,
    register: u16,
) -> Result<(), Failed> {
    let dword = config.dword(hw, offset);
    not_silent(config, dword, offset, register)
}

#[inline(never)]
fn not_silent(
    config: &mut Config<'_>,
    dword: u32,
    offset: u16,
    register: u16,
) -> Result<(), Failed> {
    if dword != u32::MAX {
        return Ok(());
    }
    config.refuse(Code::DISCOVER_SILENT).detail(register).expected(offset).into()
}

/// Refuses a function that no longer answers to its Vendor ID.
pub(crate) fn answers(hw: &mut impl Mmio, config: &mut Config<'_>) -> Result<(), Failed> {
    let offset = Id::SPEC.offset & !3;
    let dword = config.fresh(hw, offset);
    not_silent(config, dword, offset, Id::NUMBER)
}

/// Where a function's register blocks are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blocks {
    /// The component registers.
    pub(crate) component: Option<RegisterBlock>,
    /// The CXL device registers.
    pub(crate) device: Option<RegisterBlock>,
}

/// A block of registers behind a BAR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisterBlock {
    /// Its physical address.
    pub(crate) address: u64,
    /// The most bytes from there to the end of its BAR.
    pub(crate) room: u64,
}

impl CxlFunction {
    /// The register blocks that the locator names, the first of each kind.
    #[inline(never)]
    pub(crate) fn blocks(
        &self,
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
    ) -> Result<Blocks, Failed> {
        let Some(locator) = &self.locator else { return Ok(Blocks::default()) };
        let named = named(locator, config.reader(hw));
        let (component, device) = match named {
            Ok(named) => named,
            Err(error) => return config.refuse(Code::DISCOVER_LOCATOR).rule(error).into(),
        };
        Ok(Blocks {
            component: self.address(hw, config, component)?,
            device: self.address(hw, config, device)?,
        })
    }

    /// The address of a register block, if there is one, in a BAR that somebody has assigned.
    #[inline(never)]
    fn address(
        &self,
        hw: &mut impl Mmio,
        config: &mut Config<'_>,
        location: Option<BlockLocation>,
    ) -> Result<Option<RegisterBlock>, Failed> {
        let Some(BlockLocation { bar, offset, .. }) = location else { return Ok(None) };
        match self.bar(hw, config, bar) {
            Err(problem) => {
                let fault = config.refuse(Code::DISCOVER_BAR).halves(0u8, bar);
                fault.rule(problem).into()
            }
            Ok(0) => {
                let at = config.place();
                Err(Unassigned::Bar(bar).fail(&mut config.fault, at))
            }
            Ok(base) => {
                // A BAR's address is a multiple of its size, so the size is at most the lowest bit set.
                let bar_size = base & base.wrapping_neg();
                let room = bar_size.checked_sub(offset).filter(|room| *room >= BLOCK_ALIGNMENT);
                match room {
                    Some(room) => Ok(Some(RegisterBlock { address: base + offset, room })),
                    None => {
                        let fault = config.refuse(Code::DISCOVER_OUTSIDE_BAR).detail(bar);
                        fault.expected(bar_size).found(offset).into()
                    }
                }
            }
        }
    }

    /// The address in a BAR.
    #[inline(never)]
    fn bar(&self, hw: &mut impl Mmio, config: &mut Config<'_>, bar: u8) -> Result<u64, BarProblem> {
        let mut index = 0;
        loop {
            if index > bar {
                return Err(BarProblem::UpperHalf);
            }
            let (kind, low, high) = read_bar(hw, config, self.role.bars(), index)?;
            if index == bar {
                return match kind {
                    BarKind::Io => Err(BarProblem::Io),
                    _ => Ok(kind.address(low, high)),
                };
            }
            index += kind.registers();
        }
    }

    /// Lets the function answer at its BARs, and a port forward. The only write that discovery
    /// makes where everything is assigned, and only if the bit is 0.
    pub(crate) fn enable_memory(&self, hw: &mut impl Mmio, config: &mut Config<'_>) {
        let command: Command = config.read(hw, 0);
        if !command.memory_space() {
            // Command and Status are alike in both headers.
            config.write(hw, &config::ENDPOINT, command.with_memory_space(true));
        }
    }
}

/// The first block of each kind that a locator names: component registers, and device registers.
#[inline(never)]
fn named(
    locator: &Dvsec,
    reader: impl FnMut(u16) -> u32,
) -> Result<(Option<BlockLocation>, Option<BlockLocation>), LocatorError> {
    let (mut component, mut device) = (None, None);
    for found in Locations::new(locator, reader)? {
        let found = found?;
        let first = match found.id {
            BlockId::Component => &mut component,
            BlockId::Device => &mut device,
            _ => continue,
        };
        first.get_or_insert(found);
    }
    Ok((component, device))
}

/// The type and value of the open function's BAR that starts at register `index` of `bars`.
#[inline(never)]
pub(crate) fn read_bar(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    bars: u8,
    index: u8,
) -> Result<(BarKind, u32, u32), BarProblem> {
    let mut value = |index: u8| {
        (index < bars).then(|| config.dword(hw, bar_offset(index))).ok_or(BarProblem::NoSuchBar)
    };
    let low = value(index)?;
    let kind = BarKind::decode(low).map_err(BarProblem::Register)?;
    let high = if kind.registers() > 1 { value(index + 1)? } else { 0 };
    Ok((kind, low, high))
}

/// Offset of a BAR register in configuration space.
pub(crate) fn bar_offset(index: u8) -> u16 {
    Bar::SPEC.offset + u16::from(index) * u16::from(Bar::SPEC.bytes)
}

/// The device serial number of the open function, if it has one.
pub(crate) fn serial(hw: &mut impl Mmio, config: &mut Config<'_>) -> Option<u64> {
    let mut found = ExtendedCapabilities::new(config.reader(hw)).filter_map(Result::ok);
    let at = found.find(|found| found.id == ExtendedCapabilityId::SerialNumber)?.offset;
    drop(found);
    let [low, high] = [4, 8].map(|within| config.dword(hw, at + within));
    Some(u64::from(high) << 32 | u64::from(low))
}
