//! Where something is, in twelve bytes.
//!
//! **Invariant**: two places that are equal name the same component, window or byte, unless one has
//! more ports in a row than fit: of those the first are kept, and how many there are.

use core::fmt;
use core::mem::{align_of, size_of};

use cxl_regs::access::Component;
use cxl_regs::config::Sbdf;
use cxl_regs::{DECODER_UNIT, Hpa, Span};

use super::Fact;
use crate::path::Path;

/// Where something is: at a component, a function, in a window, in a table.
///
/// Three numbers of 32 bits, whose meaning follows from the lowest four bits, [`Place::kind`]:
///
/// | kind | first, bits 7:4 | 15:8 | 31:16 | second | third |
/// |---|---|---|---|---|---|
/// | 0 nowhere | | | | | |
/// | 1 component | number of ports | | the first two | the next four | UID of the bridge |
/// | 2 decoder | number of ports | component (2 bits) and decoder (5) | the first two | the next four | UID of the bridge |
/// | 3 function | | | | segment and, lower, bus, device and function | UID of the bridge |
/// | 4 window | | | | upper half of the base, all-ones without one | lower half |
/// | 5 device in a window | number of ports | the first | the next two | base in units of 256 MiB | UID of the bridge |
/// | 6 range | | | | upper half of a packed [`Span`] | lower half |
/// | 7 entry | | | | | its number |
/// | 8 byte | | | | | its offset |
/// | 9 table | | bits 39:32 of its address | bits 55:40 | bits 31:0 | its signature |
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    first: u32,
    second: u32,
    number: u32,
}

/// The number of a window without a base: no base is odd.
const UNPLACED: u64 = u64::MAX;

const _: () = assert!(size_of::<Place>() == 12 && align_of::<Place>() == 4);

const NOWHERE: u32 = 0;
const COMPONENT: u32 = 1;
const DECODER: u32 = 2;
const FUNCTION: u32 = 3;
const WINDOW: u32 = 4;
const IN_WINDOW: u32 = 5;
const RANGE: u32 = 6;
const ENTRY: u32 = 7;
const BYTE: u32 = 8;
const TABLE: u32 = 9;

/// A place as a detail: the number of ports, the kind of component (0: no decoder is named), and
/// the decoder.
pub(super) const DETAIL_BITS: u32 = 11;
pub(super) const DETAIL_MASK: u16 = (1 << DETAIL_BITS) - 1;
const DEPTH_BITS: u32 = 4;
const COMPONENT_BITS: u32 = 2;

/// Components with decoders, by number.
const COMPONENTS: [Component; 3] = Component::ALL;
/// A decoder's number lies below its component's.
const INDEX_BITS: u32 = 5;
const INDEX_MASK: u8 = (1 << INDEX_BITS) - 1;

/// The most ports whose numbers are kept.
const PORTS: usize = 6;
/// The same of a device in a window.
const PORTS_IN_WINDOW: usize = 3;

impl Place {
    /// No place: what is wrong is so everywhere.
    pub const NOWHERE: Self = Self { first: NOWHERE, second: 0, number: 0 };

    /// A host bridge.
    pub const fn bridge(uid: u32) -> Self {
        Self { first: COMPONENT, second: 0, number: uid }
    }

    /// A component, by its path. Errors are rare: one copy of this is enough.
    #[cold]
    #[inline(never)]
    fn component(path: &Path) -> Self {
        let mut ports = path.ports().iter().copied();
        let [a, b, c, d, e, f] = [(); PORTS].map(|()| ports.next().unwrap_or(0));
        let depth = path.ports().len().min(0xF) as u8;
        let first = u32::from_le_bytes([0, 0, a, b]) | u32::from(depth) << 4 | COMPONENT;
        Self { first, second: u32::from_le_bytes([c, d, e, f]), number: path.uid() }
    }

    /// A decoder of a component.
    #[cold]
    #[inline(never)]
    pub fn of_decoder(path: &Path, component: Component, index: u8) -> Self {
        let extra = (component.pack() as u8) << INDEX_BITS | index & INDEX_MASK;
        let place = Self::component(path);
        let first = place.first & !0xF | u32::from(extra) << 8 | DECODER;
        Self { first, ..place }
    }

    /// A PCI function below a bridge.
    pub fn function(uid: u32, function: Sbdf) -> Self {
        Self { first: FUNCTION, second: function.pack() as u32, number: uid }
    }

    /// A window, by its base; `None` for one that has no place.
    pub fn window(base: impl Into<Option<Hpa>>) -> Self {
        Self::wide(WINDOW, base.into().map_or(UNPLACED, |base| base.0))
    }

    /// A device where a window is concerned too: its first ports, and the window's base in units of
    /// 256 MiB.
    #[cold]
    #[inline(never)]
    pub fn in_window(device: Path, base: Hpa) -> Self {
        let units = u32::try_from(base.0 / DECODER_UNIT).unwrap_or(u32::MAX);
        let Self { first, second, number } = Self::component(&device);
        let ([low, _, a, b], [c, ..]) = (first.to_le_bytes(), second.to_le_bytes());
        let first = u32::from_le_bytes([low & 0xF0, a, b, c]) | IN_WINDOW;
        Self { first, second: units, number }
    }

    /// A range of host addresses, in units of 256 MiB.
    pub fn range(span: Span) -> Self {
        Self::wide(RANGE, span.pack())
    }

    /// An entry of a list, counted from 0.
    pub fn entry(number: usize) -> Self {
        Self { first: ENTRY, second: 0, number: saturated(number) }
    }

    /// A byte of a table or record.
    pub fn byte(offset: usize) -> Self {
        Self { first: BYTE, second: 0, number: saturated(offset) }
    }

    /// A table by its signature, and where it lies, if that is known; else 0.
    pub const fn table(signature: [u8; 4], address: u64) -> Self {
        let first = (address >> 32) as u32;
        let number = u32::from_le_bytes(signature);
        Self { first: first << 8 | TABLE, second: address as u32, number }
    }

    /// A number of 64 bits.
    const fn wide(kind: u32, number: u64) -> Self {
        Self { first: kind, second: (number >> 32) as u32, number: number as u32 }
    }

    const fn number(&self) -> u64 {
        (self.second as u64) << 32 | self.number as u64
    }

    /// Its three numbers; see [`Place`].
    pub const fn numbers(&self) -> [u32; 3] {
        [self.first, self.second, self.number]
    }

    /// The place of these numbers. Nonsense is a place that nothing has.
    pub const fn of_numbers([first, second, number]: [u32; 3]) -> Self {
        Self { first, second, number }
    }

    /// What it names; see [`Place`].
    pub const fn kind(&self) -> u32 {
        self.first & 0xF
    }

    /// UID of the bridge, of whatever lies below one.
    pub const fn uid(&self) -> Option<u32> {
        match self.kind() {
            COMPONENT | DECODER | FUNCTION | IN_WINDOW => Some(self.number),
            _ => None,
        }
    }

    /// Whether it is a window itself.
    pub const fn is_window(&self) -> bool {
        self.kind() == WINDOW
    }

    /// Whether it is a PCI function.
    pub(crate) const fn is_function(&self) -> bool {
        self.kind() == FUNCTION
    }

    /// Whether it names the component at a path, or something of it. Of a long path the first ports
    /// are compared, as many as are kept.
    pub fn names(&self, path: &Path) -> bool {
        matches!(self.kind(), COMPONENT | DECODER | IN_WINDOW)
            && self.number == path.uid()
            && usize::from(self.depth()) == path.ports().len()
            && self.ports().zip(path.ports()).all(|(kept, port)| kept == *port)
    }

    /// The component whose decoder it is.
    pub fn component_of_decoder(&self) -> Option<Component> {
        let kind = self.extra() >> INDEX_BITS;
        COMPONENTS.get(usize::from(kind)).copied().filter(|_| self.kind() == DECODER)
    }

    /// The range of host addresses that it is.
    pub fn span(&self) -> Option<Span> {
        Span::<Hpa>::unpack(self.number()).filter(|_| self.kind() == RANGE)
    }

    /// Base of the window, where one is concerned that has a place.
    pub const fn window_base(&self) -> Option<Hpa> {
        match self.kind() {
            WINDOW if self.number() != UNPLACED => Some(Hpa(self.number())),
            IN_WINDOW => Some(Hpa(self.second as u64 * DECODER_UNIT)),
            _ => None,
        }
    }

    /// Number of the decoder, if it is one's place.
    pub const fn decoder(&self) -> Option<u8> {
        match self.kind() {
            DECODER => Some(self.extra() & INDEX_MASK),
            _ => None,
        }
    }

    /// The component whose decoder it is.
    pub(crate) const fn of_component(self) -> Self {
        Self { first: self.first & !0xFF0F | COMPONENT, ..self }
    }

    /// Another decoder of the component whose decoder it is.
    #[cold]
    pub(crate) fn with_decoder(self, index: u8) -> Self {
        let mask = u32::from(INDEX_MASK) << 8;
        Self { first: self.first & !mask | u32::from(index) << 8 & mask, ..self }
    }

    const fn depth(&self) -> u8 {
        self.first as u8 >> 4
    }

    const fn extra(&self) -> u8 {
        (self.first >> 8) as u8
    }

    /// The numbers of the ports on the way, as far as they fit, root port first.
    fn ports(&self) -> impl Iterator<Item = u8> {
        let ([_, extra, a, b], [c, d, e, f]) =
            (self.first.to_le_bytes(), self.second.to_le_bytes());
        let (ports, most) = match self.kind() {
            COMPONENT | DECODER => ([a, b, c, d, e, f], PORTS),
            IN_WINDOW => ([extra, a, b, 0, 0, 0], PORTS_IN_WINDOW),
            _ => ([0; PORTS], 0),
        };
        ports.into_iter().take(most.min(self.depth().into()))
    }

    /// As a detail of an error whose own place is this component's, or lies behind it.
    #[cold]
    #[inline(never)]
    pub(super) fn as_detail(self) -> u16 {
        let (component, index) = match self.decoder() {
            Some(index) => (u16::from(self.extra() >> INDEX_BITS) + 1, index),
            None => (0, 0),
        };
        let index = u16::from(index) << (DEPTH_BITS + COMPONENT_BITS);
        u16::from(self.depth()) | component << DEPTH_BITS | index
    }

    /// The place whose detail this is, on the way from here to the bridge.
    #[cfg(feature = "sentences")]
    pub(super) fn above(self, detail: u16) -> Self {
        let depth = detail & ((1 << DEPTH_BITS) - 1);
        let component = detail >> DEPTH_BITS & ((1 << COMPONENT_BITS) - 1);
        let index = (detail & DETAIL_MASK) >> (DEPTH_BITS + COMPONENT_BITS);
        let mut ports = self.ports().take(depth.into());
        let [a, b, c, d, e, f] = [(); PORTS].map(|()| ports.next().unwrap_or(0));
        let kind = if component == 0 { COMPONENT } else { DECODER };
        let extra = (component.saturating_sub(1) << INDEX_BITS | index) as u8;
        let first = u32::from_le_bytes([0, extra, a, b]) | u32::from(depth) << 4 | kind;
        Self { first, second: u32::from_le_bytes([c, d, e, f]), number: self.number }
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl From<Path> for Place {
    fn from(path: Path) -> Self {
        Self::component(&path)
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::component(path)
    }
}

/// A device if there is one, else nowhere.
impl From<Option<Path>> for Place {
    fn from(path: Option<Path>) -> Self {
        path.map_or(Self::NOWHERE, Self::from)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            COMPONENT | DECODER | IN_WINDOW => {
                write!(f, "bridge {}", self.number)?;
                let mut kept = 0;
                for (level, port) in self.ports().enumerate() {
                    write!(f, "{}{port}", if level == 0 { " port " } else { "." })?;
                    kept += 1;
                }
                if kept < self.depth() {
                    write!(f, ".. ({} ports)", self.depth())?;
                }
                let component = COMPONENTS.get(usize::from(self.extra() >> INDEX_BITS));
                match (self.decoder(), component) {
                    (None, _) => Ok(()),
                    (Some(index), Some(Component::HostBridge) | None) => {
                        write!(f, ", decoder {index}")
                    }
                    (Some(index), Some(component)) => write!(f, " {component}, decoder {index}"),
                }
            }
            FUNCTION => {
                let function = Sbdf::unpack(self.second.into()).unwrap_or_default();
                write!(f, "bridge {} function {function}", self.number)
            }
            WINDOW => match self.window_base() {
                Some(base) => write!(f, "window {base}"),
                None => f.write_str("a window without a base"),
            },
            RANGE => Span::<Hpa>::unpack(self.number()).map_or(Ok(()), |span| span.fmt(f)),
            ENTRY => self.number.fmt(f),
            BYTE => write!(f, "byte {:#x}", self.number),
            TABLE => {
                let address = u64::from(self.first >> 8) << 32 | u64::from(self.second);
                self.number.to_le_bytes().escape_ascii().fmt(f)?;
                if address == 0 { Ok(()) } else { write!(f, " at {address:#x}") }
            }
            _ => f.write_str("the machine"),
        }
    }
}

/// The three numbers.
impl fmt::LowerHex for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{:08x}.{:08x}", self.first, self.second, self.number)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}
