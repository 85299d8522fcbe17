//! The platform as C says it: values, or the tables of ACPI.
//!
//! **Invariant**: what C says is copied into the workspace, checked field by field; whether it makes
//! sense together is the library's to judge.

use cxl_firmware::acpi::TablesMut;
use cxl_firmware::error::Error;
use cxl_firmware::list::{List, Slots};
use cxl_firmware::platform::{
    Bridge, BridgeKind, Ecam, Platform, Resources, Restrictions, RootBus, Window,
};
use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Span, Ways};

use crate::border::{self, Sized32};
use crate::status::{Failure, cxl_argument, cxl_status};

/// The base of a window that the platform found no place for.
pub const CXL_NO_BASE: u64 = u64::MAX;

/// Bit of `cxl_window.restrictions`, as in a CFMWS: memory that its device keeps coherent (HDM-D,
/// HDM-DB) may lie there.
pub const CXL_WINDOW_DEVICE_COHERENT: u16 = 1 << 0;
/// Host-only coherent memory (HDM-H) may.
pub const CXL_WINDOW_HOST_ONLY: u16 = 1 << 1;
/// Volatile memory may.
pub const CXL_WINDOW_VOLATILE: u16 = 1 << 2;
/// Persistent memory may.
pub const CXL_WINDOW_PERSISTENT: u16 = 1 << 3;
/// What lies there must not be moved.
pub const CXL_WINDOW_FIXED: u16 = 1 << 4;
/// Memory with back-invalidate (HDM-DB) may.
pub const CXL_WINDOW_BACK_INVALIDATE: u16 = 1 << 5;

const _: () = {
    let none = Restrictions::new();
    assert!(none.with_device_coherent(true).into_bits() == CXL_WINDOW_DEVICE_COHERENT);
    assert!(none.with_host_only(true).into_bits() == CXL_WINDOW_HOST_ONLY);
    assert!(none.with_volatile(true).into_bits() == CXL_WINDOW_VOLATILE);
    assert!(none.with_persistent(true).into_bits() == CXL_WINDOW_PERSISTENT);
    assert!(none.with_fixed(true).into_bits() == CXL_WINDOW_FIXED);
    assert!(none.with_back_invalidate(true).into_bits() == CXL_WINDOW_BACK_INVALIDATE);
};

/// Configuration space of a PCI segment, in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_ecam {
    /// Address of bus 0, whether or not that bus is decoded.
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// First bus that is decoded.
    pub first_bus: u8,
    /// Last bus that is decoded.
    pub last_bus: u8,
    /// 0.
    pub reserved: u32,
}

/// What a bridge's registers are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_bridge_kind {
    /// CXL 2.0 and later: a component register block of 64 KiB.
    ComponentRegisters = 0,
    /// CXL 1.1: a root complex register block. In the table, and not programmed.
    Rcrb = 1,
}

/// A CXL host bridge.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_bridge {
    /// Address of its register block.
    pub registers: u64,
    /// ACPI `_UID`: what CHBS records and window targets call it.
    pub uid: u32,
    /// A `cxl_bridge_kind`.
    pub kind: u8,
    /// 1: `segment` and `bus` are its root bus; 0: the library looks for it at the bus with the
    /// number of the UID.
    pub has_root: u8,
    /// PCI segment group of the root bus.
    pub segment: u16,
    /// Number of the root bus.
    pub bus: u8,
    /// 0.
    pub reserved: [u8; 7],
}

/// How addresses choose a target of a window.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_arithmetic {
    /// Modulo.
    Modulo = 0,
    /// XOR, with the window's maps.
    Xor = 1,
}

/// A window: host addresses that the platform routes to CXL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_window {
    /// First address, by which the window is known; `CXL_NO_BASE` when the platform found no place.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Ways of its interleave across the targets: 1, 2, 3, 4, 6, 8, 12 or 16.
    pub ways: u32,
    /// Granularity of the interleave in bytes: 256 to 16384, a power of two; also of one way.
    pub granularity: u32,
    /// What may be mapped here: `CXL_WINDOW_HOST_ONLY | ...`.
    pub restrictions: u16,
    /// QoS throttling group.
    pub qtg: u16,
    /// A `cxl_arithmetic`.
    pub arithmetic: u8,
    /// How many targets there are, 16 at most.
    pub target_count: u8,
    /// How many XOR maps there are, 4 at most; none for modulo.
    pub xor_map_count: u8,
    /// 0.
    pub reserved: u8,
    /// UIDs of the bridges, way 0 first.
    pub targets: [u32; 16],
    /// XOR maps.
    pub xor_maps: [u64; 4],
}

/// A range of addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_range {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// Address space that discovery may hand out below one bridge to what the board left unassigned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_resource {
    /// Memory for BARs and forwarding windows.
    pub range: cxl_range,
    /// UID of the bridge.
    pub uid: u32,
    /// 0.
    pub reserved: u32,
}

/// Where a bridge's PCI hierarchy starts, for bridges out of a CEDT (`_BBN` and `_SEG` are in AML).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_root {
    /// UID of the bridge; one that no table has means nothing.
    pub uid: u32,
    /// PCI segment group.
    pub segment: u16,
    /// Bus number of the root ports.
    pub bus: u8,
    /// 0.
    pub reserved: u8,
}

/// The platform, as far as CXL is concerned. All of it is copied.
///
/// Set `size` to `sizeof(struct cxl_platform)` and what is not said to 0. Either `ecam`, `bridges` and
/// `windows` say what there is, or `mcfg` and `cedt` do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_platform {
    /// Bytes of this struct.
    pub size: u32,
    /// Width of a physical address in bits (CPUID leaf 0x80000008 on x86, ID_AA64MMFR0_EL1 on Arm).
    pub address_bits: u32,
    /// Configuration regions.
    pub ecam: *const cxl_ecam,
    /// Host bridges, in any order.
    pub bridges: *const cxl_bridge,
    /// Windows, in any order. None: discovery needs none, and `cxl_size_windows` makes them.
    pub windows: *const cxl_window,
    /// The MCFG, or NULL.
    pub mcfg: *const u8,
    /// The CEDT, or NULL.
    pub cedt: *const u8,
    /// Root buses of the CEDT's bridges, as far as they are known.
    pub roots: *const cxl_root,
    /// What may be assigned, a range for a bridge. Below a bridge without one everything is used as
    /// found, or refused.
    pub resources: *const cxl_resource,
    /// Where something else answers: RAM, registers of the chip set. No window may reach there.
    pub occupied: *const cxl_range,
    /// How many configuration regions.
    pub ecam_count: u32,
    /// How many host bridges.
    pub bridge_count: u32,
    /// How many windows.
    pub window_count: u32,
    /// Bytes of the MCFG.
    pub mcfg_size: u32,
    /// Bytes of the CEDT.
    pub cedt_size: u32,
    /// How many root buses.
    pub root_count: u32,
    /// How many resources.
    pub resource_count: u32,
    /// How many occupied ranges.
    pub occupied_count: u32,
}

// SAFETY: repr(C), of integers and raw pointers.
unsafe impl Sized32 for cxl_platform {
    const FIRST: usize = size_of::<Self>();
}

/// The platform in the workspace.
pub(crate) struct Held {
    pub(crate) ecam: Slots<'static, Ecam>,
    pub(crate) bridges: Slots<'static, Bridge>,
    pub(crate) windows: Slots<'static, Window>,
    pub(crate) resources: Slots<'static, Resources>,
    pub(crate) occupied: Slots<'static, Span>,
    pub(crate) unreadable: Slots<'static, Error>,
    pub(crate) roots: Slots<'static, (u32, RootBus)>,
    pub(crate) address_bits: u8,
}

// What fills slots before anything lies there: it means nothing.
pub(crate) const NO_ECAM: Ecam = Ecam { base: Hpa(0), segment: 0, first_bus: 0, last_bus: 0 };
pub(crate) const NO_BRIDGE: Bridge =
    Bridge { uid: 0, kind: BridgeKind::ComponentRegisters, registers: Hpa(0), root: None };
pub(crate) const NO_ROOT: (u32, RootBus) = (0, RootBus { segment: 0, bus: 0 });
pub(crate) const NO_RESOURCES: Resources = Resources { uid: 0, span: Span::<Hpa>::ORIGIN };
pub(crate) const fn no_window() -> Window {
    Window {
        base: None,
        size: 0,
        interleave: Interleave::NONE,
        arithmetic: Arithmetic::Modulo,
        xor_maps: cxl_firmware::heapless::Vec::new(),
        restrictions: Restrictions::new(),
        qtg: 0,
        unreadable: None,
        targets: cxl_firmware::heapless::Vec::new(),
    }
}

/// A range of C; `entry` is its place in its list.
pub(crate) fn span(range: cxl_range, entry: usize) -> Result<Span, Failure> {
    let refused = |_| Failure::argument(cxl_argument::Range, entry, range.base);
    Span::new(Hpa(range.base), range.size).map_err(refused)
}

/// A flag of C.
pub(crate) fn flag(value: u8, entry: usize) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::argument(cxl_argument::Flag, entry, value.into())),
    }
}

/// What has to be 0, as this version gives it no meaning.
pub(crate) fn reserved(value: impl Into<u64>, entry: usize) -> Result<(), Failure> {
    match value.into() {
        0 => Ok(()),
        found => Err(Failure::argument(cxl_argument::Reserved, entry, found)),
    }
}

/// An interleave of C.
pub(crate) fn interleave(ways: u32, granularity: u32, entry: usize) -> Result<Interleave, Failure> {
    let wrong = |what, found: u32| Failure::argument(what, entry, found.into());
    Ok(Interleave::new(
        Ways::from_count(ways).ok_or(wrong(cxl_argument::Ways, ways))?,
        Granularity::from_bytes(granularity.into())
            .ok_or(wrong(cxl_argument::Granularity, granularity))?,
    ))
}

/// Replaces a list of the workspace by one of C.
pub(crate) fn fill<C: Copy, T>(
    mut list: List<'_, T>,
    given: &[C],
    what: cxl_argument,
    mut convert: impl FnMut(C, usize) -> Result<T, Failure>,
) -> Result<(), Failure> {
    list.clear();
    let room = list.room();
    for (entry, item) in given.iter().enumerate() {
        let item = convert(*item, entry)?;
        list.push(item).map_err(|_| Failure::room(what, room, given.len()))?;
    }
    Ok(())
}

fn ecam(given: cxl_ecam, entry: usize) -> Result<Ecam, Failure> {
    let cxl_ecam { base, segment, first_bus, last_bus, reserved: rest } = given;
    reserved(rest, entry)?;
    if first_bus > last_bus {
        return Err(Failure::argument(cxl_argument::EcamBuses, entry, first_bus.into()));
    }
    Ok(Ecam { base: Hpa(base), segment, first_bus, last_bus })
}

fn bridge(given: cxl_bridge, entry: usize) -> Result<Bridge, Failure> {
    let cxl_bridge { registers, uid, kind, has_root, segment, bus, reserved: rest } = given;
    rest.iter().try_for_each(|byte| reserved(*byte, entry))?;
    let kinds = [BridgeKind::ComponentRegisters, BridgeKind::Rcrb];
    Ok(Bridge {
        uid,
        kind: *kinds.get(usize::from(kind)).ok_or(Failure::argument(
            cxl_argument::BridgeKind,
            entry,
            kind.into(),
        ))?,
        registers: Hpa(registers),
        root: flag(has_root, entry)?.then_some(RootBus { segment, bus }),
    })
}

fn window(given: cxl_window, entry: usize) -> Result<Window, Failure> {
    let wrong = |what, found: u8| Failure::argument(what, entry, found.into());
    reserved(given.reserved, entry)?;
    let targets = given.targets.get(..given.target_count.into());
    let maps = given.xor_maps.get(..given.xor_map_count.into());
    let arithmetics = [Arithmetic::Modulo, Arithmetic::Xor];
    Ok(Window {
        base: (given.base != CXL_NO_BASE).then_some(Hpa(given.base)),
        size: given.size,
        interleave: interleave(given.ways, given.granularity, entry)?,
        arithmetic: *arithmetics
            .get(usize::from(given.arithmetic))
            .ok_or(wrong(cxl_argument::Arithmetic, given.arithmetic))?,
        xor_maps: maps
            .and_then(|maps| maps.try_into().ok())
            .ok_or(wrong(cxl_argument::XorMaps, given.xor_map_count))?,
        restrictions: Restrictions::from_bits(given.restrictions),
        qtg: given.qtg,
        unreadable: None,
        targets: targets
            .and_then(|targets| targets.try_into().ok())
            .ok_or(wrong(cxl_argument::Targets, given.target_count))?,
    })
}

/// A window of the library for C.
pub(crate) fn window_for_c(window: &Window) -> cxl_window {
    let mut given = cxl_window {
        base: window.base.map_or(CXL_NO_BASE, |base| base.0),
        size: window.size,
        ways: window.interleave.ways.count(),
        granularity: window.interleave.granularity.bytes() as u32,
        restrictions: window.restrictions.into_bits(),
        qtg: window.qtg,
        arithmetic: match window.arithmetic {
            Arithmetic::Modulo => cxl_arithmetic::Modulo as u8,
            Arithmetic::Xor => cxl_arithmetic::Xor as u8,
        },
        target_count: window.targets.len() as u8,
        xor_map_count: window.xor_maps.len() as u8,
        reserved: 0,
        targets: [0; 16],
        xor_maps: [0; 4],
    };
    for (slot, target) in given.targets.iter_mut().zip(&window.targets) {
        *slot = *target;
    }
    for (slot, map) in given.xor_maps.iter_mut().zip(&window.xor_maps) {
        *slot = *map;
    }
    given
}

fn resource(given: cxl_resource, entry: usize) -> Result<Resources, Failure> {
    reserved(given.reserved, entry)?;
    Ok(Resources { uid: given.uid, span: span(given.range, entry)? })
}

fn root(given: cxl_root, entry: usize) -> Result<(u32, RootBus), Failure> {
    reserved(given.reserved, entry)?;
    Ok((given.uid, RootBus { segment: given.segment, bus: given.bus }))
}

/// A count of C.
pub(crate) fn count(given: u32) -> usize {
    usize::try_from(given).unwrap_or(usize::MAX)
}

impl Held {
    /// Nothing.
    pub(crate) fn clear(&mut self) {
        self.ecam.list().clear();
        self.bridges.list().clear();
        self.windows.list().clear();
        self.resources.list().clear();
        self.occupied.list().clear();
        self.unreadable.list().clear();
        self.roots.list().clear();
    }

    /// The platform that C says.
    ///
    /// # Safety
    ///
    /// The contract of C.
    pub(crate) unsafe fn set(&mut self, given: *const cxl_platform) -> Result<(), Failure> {
        self.clear();
        // SAFETY: the contract of C.
        let given = unsafe { border::sized(given) }?;
        self.address_bits = u8::try_from(given.address_bits).unwrap_or(u8::MAX);
        // SAFETY: the contract of C.
        let regions = unsafe { border::list(given.ecam, count(given.ecam_count)) }?;
        // SAFETY: the contract of C.
        let bridges = unsafe { border::list(given.bridges, count(given.bridge_count)) }?;
        // SAFETY: the contract of C.
        let windows = unsafe { border::list(given.windows, count(given.window_count)) }?;
        // SAFETY: the contract of C.
        let mcfg = unsafe { border::list(given.mcfg, count(given.mcfg_size)) }?;
        // SAFETY: the contract of C.
        let cedt = unsafe { border::list(given.cedt, count(given.cedt_size)) }?;
        // SAFETY: the contract of C.
        let roots = unsafe { border::list(given.roots, count(given.root_count)) }?;
        // SAFETY: the contract of C.
        let resources = unsafe { border::list(given.resources, count(given.resource_count)) }?;
        // SAFETY: the contract of C.
        let occupied = unsafe { border::list(given.occupied, count(given.occupied_count)) }?;

        use cxl_argument::{BridgeCount, EcamCount, RangeCount, RootCount, WindowCount};
        fill(self.resources.list(), resources, RangeCount, resource)?;
        fill(self.occupied.list(), occupied, RangeCount, span)?;
        fill(self.roots.list(), roots, RootCount, root)?;
        if mcfg.is_empty() && cedt.is_empty() {
            fill(self.ecam.list(), regions, EcamCount, ecam)?;
            fill(self.bridges.list(), bridges, BridgeCount, bridge)?;
            return fill(self.windows.list(), windows, WindowCount, window);
        }
        if mcfg.is_empty() || cedt.is_empty() {
            return Err(cxl_status::Null.into());
        }
        let values = regions.len() + bridges.len() + windows.len();
        if values != 0 {
            return Err(Failure::argument(cxl_argument::TablesAndValues, 0, values as u64));
        }
        let Self { ecam, bridges, windows, unreadable, roots, .. } = self;
        let (ecam, bridges) = (ecam.list(), bridges.list());
        let (windows, unreadable) = (windows.list(), unreadable.list());
        // The policy, which is given later, says what a record that cannot be read costs.
        let mut tables = TablesMut { ecam, bridges, windows, unreadable };
        tables.read_in_part(mcfg, cedt, roots.items())?;
        Ok(())
    }

    /// The platform for the phases.
    pub(crate) fn platform(&self) -> Platform<'_> {
        Platform {
            ecam: self.ecam.items(),
            bridges: self.bridges.items(),
            windows: self.windows.items(),
            address_bits: self.address_bits,
            resources: self.resources.items(),
            occupied: self.occupied.items(),
            unreadable: self.unreadable.items(),
        }
    }
}
