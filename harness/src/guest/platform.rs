//! The platform as Linux wants it told: the tables that every scenario's machine has, and FADT, MADT,
//! SRAT and a DSDT with the PCI root buses, beside them.
//!
//! The machine has reduced hardware (ACPI 6.5 section 4.1): no fixed registers but those for
//! sleep. Each CXL host bridge is a root bus, ACPI0016, with the buses and the BARs that the address
//! map gives it; ACPI0017 tells that there is a CEDT (CXL r3.1 section 9.18).
//!
//! **Invariant**: the CEDT is byte for byte the one that other images find, or what firmware made of it;
//! nothing else here is made of what firmware programmed.

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::srat::MemoryAffinity;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use cxl_firmware::acpi::MAX_ECAM;
use cxl_regs::config::CONFIG_SIZE;
use cxl_regs::{Hpa, Span};

use crate::kvm::{SLEEP_PORT, SLEEP_STATUS_PORT, SOFT_OFF};
use crate::virtio::INTERRUPT;
use cxl_model::acpi::Tables;
use cxl_model::layout::{AddressMap, bars_of_buses};
use cxl_model::scenario::Scenario;

const OEM: [u8; 6] = *b"CXLFW ";
const OEM_TABLE: [u8; 8] = *b"HARNESS ";
const ALIGNMENT: usize = 64;
/// The interrupt controllers, where KVM has them.
const LOCAL_APIC: u32 = 0xFEE0_0000;
const IO_APIC: u32 = 0xFEC0_0000;
/// The serial ports: first port, and interrupt.
const SERIAL: [(u16, u32); 2] = [(0x3F8, 4), (0x2F8, 3)];
/// Functions on a bus, and in a device's address any function of device 0.
const FUNCTIONS: u64 = 256;
const ANY_FUNCTION: u32 = 0xFFFF;
/// What of PCI Express an operating system may have: errors and the capability structure. There is
/// nothing that hot-plugs or wakes (PCI Firmware 3.3, table 4-6).
const CONTROL: u32 = 1 << 3 | 1 << 4;

/// A root bus of its own, for devices that are not CXL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootBus {
    /// Its segment.
    pub segment: u16,
    /// Its number.
    pub bus: u8,
    /// Configuration space of its first function.
    pub config: Span,
    /// Where its BARs are.
    pub bars: Span,
}

impl RootBus {
    /// The first number that no host bridge's hierarchy has; `None` if there is none.
    pub fn free(scenario: &Scenario, map: &AddressMap) -> Option<Self> {
        let taken = |segment: u16, bus: u8| {
            let mut bridges = scenario.bridges.iter().zip(&map.bridges);
            bridges.any(|(bridge, place)| {
                bridge.segment == segment && (place.first_bus..=place.last_bus).contains(&bus)
            })
        };
        map.ecam.iter().find_map(|&(segment, ecam)| {
            let bus = (0..=u8::MAX).find(|bus| !taken(segment, *bus))?;
            let size = u64::from(CONFIG_SIZE);
            let at = ecam.base().0 + u64::from(bus) * FUNCTIONS * size;
            let config = Span::new(Hpa(at), size).ok()?;
            Some(Self { segment, bus, config, bars: bars_of_buses(segment, bus, bus) })
        })
    }
}

/// What the machine has beside what every scenario's has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The CEDT that firmware made, if it made any.
    pub cedt: Option<&'a [u8]>,
    /// The root bus of a disk.
    pub disk: Option<RootBus>,
    /// The SRAT tells of RAM alone: firmware that runs first adds what it makes.
    pub firmware_first: bool,
}

/// The tables, to be put at `base`; the RSDP is the first.
pub fn tables(scenario: &Scenario, map: &AddressMap, base: u64, extras: &Extras<'_>) -> Vec<u8> {
    let plain = Tables::new(scenario, map, base);
    let mut bytes = vec![0; Rsdp::len()];
    let mut put = |table: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        let at = base + bytes.len() as u64;
        bytes.extend_from_slice(table);
        at
    };
    let dsdt = put(dsdt(scenario, map, extras.disk).as_slice());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
    let (fadt, madt, srat) = (
        encoded(&fadt(dsdt)),
        encoded(&madt()),
        encoded(&srat(map, scenario, !extras.firmware_first)),
    );
    let mcfg = encoded(&mcfg(scenario, map, extras.disk));
    for table in [&fadt, &madt, &srat, &mcfg] {
        xsdt.add_entry(put(table));
    }
    xsdt.add_entry(put(extras.cedt.unwrap_or(plain.table(&plain.cedt))));
    let xsdt = put(&encoded(&xsdt));
    let rsdp = encoded(&Rsdp::new(OEM, xsdt));
    bytes.iter_mut().zip(rsdp).for_each(|(to, from)| *to = from);
    bytes
}

fn encoded(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// ACPI 6.5 table 5.11, IA-PC Boot Architecture Flags: there is no VGA.
const NO_VGA: u16 = 1 << 2;
/// There is no CMOS clock: Linux waits for seconds for one that does not answer.
const NO_CMOS_RTC: u16 = 1 << 5;

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port = |port: u16| GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.sleep_control_reg = port(SLEEP_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn madt() -> MADT {
    let address = LocalInterruptController::Address(LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, 1, address);
    madt.add_structure(ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled));
    madt.add_structure(IoApic::new(1, IO_APIC, 0));
    madt
}

/// Configuration space of the buses that some root bus has, and of no others: Linux asks each bus up to
/// the last one that is told here for 32 devices, and every one of those reads would leave the guest.
fn mcfg(scenario: &Scenario, map: &AddressMap, disk: Option<RootBus>) -> MCFG {
    let mut runs: Vec<_> = scenario
        .bridges
        .iter()
        .zip(&map.bridges)
        .map(|(bridge, place)| (bridge.segment, place.first_bus, place.last_bus))
        .chain(disk.map(|root| (root.segment, root.bus, root.bus)))
        .collect();
    runs.sort_unstable();
    // Runs that meet are one, and all of a segment where there are more than firmware takes.
    let joined = |near: u16| {
        let mut joined: Vec<(u16, u8, u8)> = Vec::new();
        for &(segment, first, last) in &runs {
            match joined.last_mut() {
                Some((of, _, end))
                    if *of == segment && u16::from(first) <= u16::from(*end) + near =>
                {
                    *end = last.max(*end);
                }
                _ => joined.push((segment, first, last)),
            }
        }
        joined
    };
    let meeting = joined(1);
    let spans = if meeting.len() > MAX_ECAM { joined(u8::MAX.into()) } else { meeting };
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, 1);
    for (segment, first, last) in spans {
        // What a base tells is where bus 0 is, or would be.
        if let Some((_, ecam)) = map.ecam.iter().find(|(of, _)| *of == segment) {
            mcfg.add_ecam(ecam.base().0, segment, first, last);
        }
    }
    mcfg
}

/// RAM and the processor in one proximity domain, each window in one of its own: without that Linux
/// has one node for everything (ACPI 6.5 section 5.2.16).
fn srat(map: &AddressMap, scenario: &Scenario, windows: bool) -> Sdt {
    // What the specification wants there: 1, and eight bytes of 0.
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Processor Local APIC affinity: type, length, domain, APIC ID, enabled.
    body.extend([0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for span in &map.ram {
        let ram = MemoryAffinity::new(0, span.base().0, span.size()).enabled();
        ram.to_aml_bytes(&mut body);
    }
    let windows = map.windows.iter().zip(&scenario.windows).filter(|_| windows);
    for (domain, (base, window)) in (1..).zip(windows) {
        let Some(base) = base else { continue };
        let window = MemoryAffinity::new(domain, base.0, window.size);
        window.enabled().hotpluggable().to_aml_bytes(&mut body);
    }
    let mut srat = Sdt::new(*b"SRAT", 36, 3, OEM, OEM_TABLE, 1);
    srat.append_slice(&body);
    srat
}

/// The root buses, the serial ports, and what says that there is CXL.
fn dsdt(scenario: &Scenario, map: &AddressMap, disk: Option<RootBus>) -> Sdt {
    let mut body = Vec::new();
    for (number, (first, interrupt)) in (1u8..).zip(SERIAL) {
        aml::Scope::new(
            "_SB_".into(),
            vec![&aml::Device::new(
                format!("COM{number}").as_str().into(),
                vec![
                    &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501")),
                    &aml::Name::new("_UID".into(), &(number - 1)),
                    &aml::Name::new(
                        "_CRS".into(),
                        &aml::ResourceTemplate::new(vec![
                            &aml::Interrupt::new(true, true, false, false, interrupt),
                            &aml::IO::new(first, first, 1, 8),
                        ]),
                    ),
                ],
            )],
        )
        .to_aml_bytes(&mut body);
    }
    let ends = |bars: Span| {
        let end = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        (end(bars.base().0), end(bars.end().0 - 1))
    };
    if let Some(root) = disk {
        let (bars, last) = ends(root.bars);
        // The pin of its only device, and the line that it is wired to.
        let pin = aml::Package::new(vec![&ANY_FUNCTION, &aml::ZERO, &aml::ZERO, &INTERRUPT]);
        aml::Scope::new(
            "_SB_".into(),
            vec![&aml::Device::new(
                "DISK".into(),
                vec![
                    &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0A08")),
                    &aml::Name::new("_CID".into(), &aml::EISAName::new("PNP0A03")),
                    &aml::Name::new("_UID".into(), &aml::ZERO),
                    &aml::Name::new("_SEG".into(), &root.segment),
                    &aml::Name::new("_BBN".into(), &root.bus),
                    &aml::Name::new("_PXM".into(), &aml::ZERO),
                    &aml::Name::new(
                        "_CRS".into(),
                        &aml::ResourceTemplate::new(vec![
                            &aml::AddressSpace::new_bus_number(
                                u16::from(root.bus),
                                u16::from(root.bus),
                            ),
                            &aml::AddressSpace::new_memory(
                                aml::AddressSpaceCacheable::NotCacheable,
                                true,
                                bars,
                                last,
                                None,
                            ),
                        ]),
                    ),
                    &aml::Name::new("_PRT".into(), &aml::Package::new(vec![&pin])),
                    &osc(),
                    &Dsm { uuid: PCI, function: KEEP_WHAT_IS_ASSIGNED, answer: &aml::ZERO },
                ],
            )],
        )
        .to_aml_bytes(&mut body);
    }
    for (index, (bridge, place)) in scenario.bridges.iter().zip(&map.bridges).enumerate() {
        let (bars, last) = ends(place.bars);
        let (pnp0a08, pnp0a03) = (aml::EISAName::new("PNP0A08"), aml::EISAName::new("PNP0A03"));
        aml::Scope::new(
            "_SB_".into(),
            vec![&aml::Device::new(
                format!("HB{index:02X}").as_str().into(),
                vec![
                    &aml::Name::new("_HID".into(), &"ACPI0016"),
                    &aml::Name::new("_CID".into(), &aml::Package::new(vec![&pnp0a08, &pnp0a03])),
                    &aml::Name::new("_UID".into(), &bridge.uid),
                    &aml::Name::new("_SEG".into(), &bridge.segment),
                    &aml::Name::new("_BBN".into(), &place.first_bus),
                    &aml::Name::new("_PXM".into(), &aml::ZERO),
                    &aml::Name::new(
                        "_CRS".into(),
                        &aml::ResourceTemplate::new(vec![
                            &aml::AddressSpace::new_bus_number(
                                u16::from(place.first_bus),
                                u16::from(place.last_bus),
                            ),
                            &aml::AddressSpace::new_memory(
                                aml::AddressSpaceCacheable::NotCacheable,
                                true,
                                bars,
                                last,
                                None,
                            ),
                        ]),
                    ),
                    &osc(),
                    &Dsm { uuid: PCI, function: KEEP_WHAT_IS_ASSIGNED, answer: &aml::ZERO },
                ],
            )],
        )
        .to_aml_bytes(&mut body);
    }
    // There is one QoS throttling group, 0, for whatever latency and bandwidth.
    let groups = aml::Package::new(vec![&aml::ZERO]);
    let groups = aml::Package::new(vec![&aml::ZERO, &groups]);
    aml::Scope::new(
        "_SB_".into(),
        vec![&aml::Device::new(
            "CXLM".into(),
            vec![
                &aml::Name::new("_HID".into(), &"ACPI0017"),
                &Dsm { uuid: CXL_ROOT, function: THROTTLING_GROUP, answer: &groups },
            ],
        )],
    )
    .to_aml_bytes(&mut body);
    aml::Name::new("_S5_".into(), &aml::Package::new(vec![&SOFT_OFF])).to_aml_bytes(&mut body);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, OEM_TABLE, 1);
    dsdt.append_slice(&body);
    dsdt
}

/// The functions of a PCI bus, and that which says whether the operating system is to keep buses and BARs
/// as it finds them: 0, it is (PCI Firmware 3.3 section 4.6.5).
const PCI: &str = "E5C937D0-3553-4D7A-9117-EA4D19C3434D";
const KEEP_WHAT_IS_ASSIGNED: u8 = 5;
/// The functions of ACPI0017, and that which says which QoS throttling group goes with a latency and a
/// bandwidth (CXL r3.1 section 9.18.3).
const CXL_ROOT: &str = "F365F9A6-A7DE-4071-A66A-B40C0B4F8E52";
const THROTTLING_GROUP: u8 = 1;

/// A `_DSM` with one function.
struct Dsm<'a> {
    uuid: &'static str,
    function: u8,
    answer: &'a dyn Aml,
}

impl Aml for Dsm<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let uuid = aml::Uuid::new(self.uuid);
        // Function 0 tells which there are, itself among them.
        let known = aml::BufferData::new(vec![1 | 1 << self.function]);
        let (none, is_ours) = (aml::BufferData::new(vec![0]), aml::Equal::new(&aml::Arg(0), &uuid));
        let asks = aml::Equal::new(&aml::Arg(2), &aml::ZERO);
        let is_it = aml::Equal::new(&aml::Arg(2), &self.function);
        let (known, answer) = (aml::Return::new(&known), aml::Return::new(self.answer));
        let (asked, it) = (aml::If::new(&asks, vec![&known]), aml::If::new(&is_it, vec![&answer]));
        let ours = aml::If::new(&is_ours, vec![&asked, &it]);
        let otherwise = aml::Return::new(&none);
        aml::Method::new("_DSM".into(), 4, true, vec![&ours, &otherwise]).to_aml_bytes(sink);
    }
}

/// `_OSC` for PCI Express and for CXL alike: of the third dword what is granted, of CXL's own all
/// that is asked for (CXL r3.1 section 9.18.2).
fn osc() -> impl Aml {
    struct Osc;
    impl Aml for Osc {
        fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
            let control = aml::Path::new("CTRL");
            aml::Method::new(
                "_OSC".into(),
                4,
                true,
                vec![
                    &aml::CreateDWordField::new(&control, &aml::Arg(3), &8u8),
                    &aml::And::new(&control, &control, &CONTROL),
                    &aml::Return::new(&aml::Arg(3)),
                ],
            )
            .to_aml_bytes(sink);
        }
    }
    Osc
}

#[cfg(test)]
mod tests {
    use super::*;
    use cxl_model::machine::Machine;

    fn dword(bytes: &[u8], at: usize) -> usize {
        let bytes: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    #[test]
    fn tables_are_linked_sum_to_zero_and_keep_the_cedt() {
        let scenario = Scenario::built_in("two-way").expect("built in");
        let machine = Machine::new(&scenario);
        let base = 0xE_0000;
        let bytes = tables(&scenario, machine.map(), base, &Extras::default());
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        // ACPI 6.5 table 5.3: the sum of the first 20 bytes, revision 2, XSDT at offset 24.
        assert!(bytes.starts_with(b"RSD PTR "));
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36]), bytes[15]), (0, 0, 2));
        let table = |address: usize| {
            let at = address - base as usize;
            let table = &bytes[at..at + dword(&bytes, at + 4)];
            assert_eq!(sum(table), 0, "{address:#x}");
            table
        };
        let xsdt = table(dword(&bytes, 24));
        let all: Vec<_> = xsdt[36..].chunks(8).map(|entry| table(dword(entry, 0))).collect();
        let names: Vec<_> = all.iter().map(|table| &table[..4]).collect();
        assert_eq!(names, [b"FACP", b"APIC", b"SRAT", b"MCFG", b"CEDT"]);
        let plain = Tables::new(&scenario, machine.map(), base);
        // Each a base of bus 0, a segment, the first and the last bus (PCI Firmware 3.3, table 4-3).
        let buses = |first, last| [0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, first, last, 0, 0, 0, 0];
        assert_eq!(all[3][44..], [buses(16, 17), buses(32, 33)].concat());
        assert_eq!(all[4], plain.table(&plain.cedt));
        // Memory affinity of the only window, behind the processor's and RAM's (ACPI 6.5 table 5.59):
        // domain 1, 1 GiB from 0x100000000 on, enabled and hot-pluggable.
        let mut window = [0; 40];
        (window[0], window[1], window[2], window[28]) = (1, 40, 1, 3);
        (window[12], window[19]) = (1, 0x40);
        assert_eq!(all[2][48 + 16 + 40..], window);
        // X_DSDT, at offset 140; flags at 112: reduced hardware.
        assert_eq!(&table(dword(all[0], 140))[..4], b"DSDT");
        assert_eq!(dword(all[0], 112) & (1 << 20 | 1 << 10), 1 << 20);
        // Sleep control: I/O space, 8 bits, byte access, port 0x600 (offset 244).
        assert_eq!(all[0][244..256], [1, 8, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn each_bridge_is_a_root_bus_with_the_uid_of_the_cedt() {
        let scenario = Scenario::built_in("two-way").expect("built in");
        let machine = Machine::new(&scenario);
        let dsdt = dsdt(&scenario, machine.map(), None);
        let has =
            |bytes: &[u8]| dsdt.as_slice().windows(bytes.len()).filter(|w| *w == bytes).count();
        assert_eq!((has(b"ACPI0016\0"), has(b"ACPI0017\0")), (2, 1));
        // Name (_UID, 16) and 32 as bytes; _S5_ with a package whose first element is 5.
        assert_eq!((has(b"_UID\x0A\x10"), has(b"_UID\x0A\x20")), (1, 1));
        assert_eq!(has(b"_S5_\x12\x04\x01\x0A\x05"), 1);
    }
}
