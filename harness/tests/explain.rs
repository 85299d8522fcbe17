//! `explain` beside `inspect`: both follow an address by one test, give a device address only where registers
//! prove it, and say of what nobody gave that nobody gave it.
//!
//! **Invariant**: registers and tables are made here; no firmware has written any of them.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use cxl_harness::html;
use cxl_lint::{Bridge, Device, Input, Port, Registers, Report, lint, unchecked};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_model::mapping::{At, Reach, Reason, ReasonText};
use cxl_regs::acpi::cedt::{Cfmws, Chbs, ChbsVersion, Restrictions};
use cxl_regs::acpi::{CedtWriter, Identity};
use cxl_regs::hdm::{Capability, Control, DecoderImage};
use cxl_regs::{Granularity, Hpa, Interleave, Span, Ways};
use program::{Folder, command, ran};

const GIB: u64 = 1 << 30;
const BASE: u64 = 0x8_5000_0000;

/// A table with a CHBS for UID 7 and a window over these UIDs.
fn table(uids: &[u32]) -> Vec<u8> {
    let identity = Identity {
        oem_id: *b"TESTS ",
        oem_table_id: *b"EXPLAIN ",
        oem_revision: 1,
        creator_id: *b"TEST",
        creator_revision: 1,
    };
    let mut buffer = vec![0; 4096];
    let mut writer = CedtWriter::new(&mut buffer, identity).unwrap();
    writer.chbs(&Chbs::new(7, ChbsVersion::Chbcr, Hpa(0xE010_0000)).unwrap()).unwrap();
    let ways = if uids.len() == 2 { Ways::Two } else { Ways::One };
    let interleave = Interleave { ways, granularity: Granularity::B256 };
    let span = Span::new(Hpa(BASE), 512 * GIB).unwrap();
    let mut window = Cfmws::new(span, interleave, uids).unwrap();
    window.restrictions = Restrictions::new().with_host_only(true).with_volatile(true);
    writer.cfmws(&window).unwrap();
    writer.finish().unwrap().to_vec()
}

/// The same with XOR arithmetic, and a CXIMS of 256 B for each list of maps: the writer writes no two.
fn table_with(cxims: &[&[u64]]) -> Vec<u8> {
    /// The arithmetic of the window behind the table's header and a CHBS.
    const ARITHMETIC: usize = 36 + 0x20 + 0x19;
    let mut table = table(&[7, 9]);
    table[ARITHMETIC] = 1;
    for maps in cxims {
        let count = maps.len() as u8;
        table.extend([2, 0, 8 + 8 * count, 0, 0, 0, 0, count]);
        table.extend(maps.iter().flat_map(|map| map.to_le_bytes()));
    }
    let length = (table.len() as u32).to_le_bytes();
    table[4..8].copy_from_slice(&length);
    table
}

fn hdm(image: DecoderImage, ways: u8, device: bool) -> HdmImage {
    let capability = Capability::new()
        .with_decoder_count(1)
        .with_target_count(if device { 0 } else { 8 })
        .with_interleave_11_8(true)
        .with_interleave_14_12(true);
    let control =
        Control::new().with_ways(ways).with_commit(true).with_committed(true).with_host_only(true);
    let image = image.with_control(control);
    HdmImage {
        capability: capability.into_bits(),
        global_control: 2,
        decoders: vec![image, DecoderImage::default()],
    }
}

/// A bridge that deals 512 GiB to four ports, and four devices whose decoders hold their own addresses.
fn normalized(prm: Option<bool>) -> Input {
    let above = DecoderImage::default()
        .with_base(BASE)
        .with_size(512 * GIB)
        .with_targets([0, 1, 2, 3, 0, 0, 0, 0]);
    let own = DecoderImage::default().with_base(0).with_size(128 * GIB);
    let registers = Registers::Hdm(hdm(above, 2, false));
    let bridge = Bridge { name: "hb0".to_owned(), uid: Some(7), address: None, registers };
    let port = |number: u8| Port {
        name: format!("port{number}"),
        parent: Parent::Bridge(0),
        number,
        address: None,
    };
    let device = |port: usize| Device {
        name: format!("mem{port}"),
        port: Some(port),
        registers: Registers::Hdm(hdm(own, 0, true)),
        capacity: Some((128 * GIB, 0)),
        ..Device::default()
    };
    Input {
        cedt: Some(table(&[7])),
        bridges: vec![bridge],
        ports: (0..4).map(port).collect(),
        devices: (0..4).map(device).collect(),
        prm,
        ..Input::default()
    }
}

/// The same as an image set of files.
fn set(folder: &Folder, prm: &str) -> String {
    let input = normalized(None);
    folder.file("cedt.dat", input.cedt.as_deref().unwrap());
    let bytes = |registers: &Registers| match registers {
        Registers::Hdm(image) => image.bytes(),
        _ => vec![],
    };
    folder.file("hb0.bin", bytes(&input.bridges[0].registers));
    folder.file("mem.bin", bytes(&input.devices[0].registers));
    let mut text = format!(
        "images = \"normalized\"\ncedt = \"cedt.dat\"\n{prm}\n[[bridge]]\nname = \"hb0\"\nuid = 7\n\
         registers = \"hb0.bin\"\n"
    );
    for port in 0..4 {
        text += &format!(
            "[[port]]\nname = \"port{port}\"\nbelow = \"hb0\"\nnumber = {port}\n[[device]]\n\
             name = \"mem{port}\"\nbelow = \"port{port}\"\nregisters = \"mem.bin\"\n\
             volatile = \"128GiB\"\n"
        );
    }
    folder.file("set.toml", text)
}

#[test]
fn of_normalized_addresses_no_device_address_is_given() {
    let folder = Folder::new();
    for (prm, says) in [
        ("", "nobody said whether"),
        ("prm = true", "by the levels above, 4-way at 256 B, it is offset 0x0 of mem1"),
        ("prm = false", "no PRM translates"),
    ] {
        let set = set(&folder, prm);
        let (text, _, code) = ran(&mut command(&["explain", &set, "0x850000100"]));
        assert_eq!(code, 1, "{text}");
        let why = "mem1 decoder 0 holds addresses of the device alone";
        assert!(text.contains(why) && text.contains(says), "{prm}: {text}");
        assert!(!text.contains("DPA"), "{prm}: {text}");
        for dpa in ["0x0", "0x850000100"] {
            let asked = ["explain", &set, "--device", "mem1", "--dpa", dpa, "--json"];
            let (text, _, code) = ran(&mut command(&asked));
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((code, &json["reason"]), (1, &"normalized".into()), "{text}");
            assert_eq!(json["paths"], serde_json::json!([]), "{text}");
        }
        let (text, _, _) = ran(&mut command(&["inspect", &set]));
        assert!(text.contains("mem0 decoder 0 holds addresses of the device alone"), "{text}");
    }
}

#[test]
fn what_nobody_gave_is_not_said_to_be_missing() {
    let folder = Folder::new();
    let cedt = folder.file("cedt.dat", table(&[7]));
    let empty = folder.file("empty", "");
    let iomem =
        folder.file("iomem", "00000000-00000fff : Reserved\n850000000-884fffffff : CXL Window 0\n");
    for (file, says, note) in [
        (&cedt, "UID 7, and nobody gave the registers of that bridge", ""),
        (&empty, "nobody gave a CEDT", ""),
        (&iomem, "nobody gave a CEDT", "CXL Window 0 at 0x850000000-0x884fffffff"),
    ] {
        let (text, notes, code) = ran(&mut command(&["explain", file, "0x850000000"]));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("nobody can say") && text.contains(says), "{file}: {text}");
        assert!(notes.contains(note), "{file}: {notes}");
    }
}

/// What is taken away, and the reason that is left.
type Case = (fn(&mut Input), Reason);

fn cases() -> [Case; 8] {
    let at = At::Bridge(0);
    [
        (|it| it.bridges[0].registers = Registers::Unknown, Reason::NotGiven { at }),
        (|it| it.bridges[0].registers = Registers::NoHdm, Reason::NoDecoders { at, ports: 4 }),
        (|it| it.bridges.clear(), Reason::BridgeNotGiven { way: 0, uid: 7 }),
        (|it| it.bridges[0].uid = None, Reason::BridgeNotGiven { way: 0, uid: 7 }),
        (|it| it.ports.clear(), Reason::PortsNotGiven { at }),
        (|it| it.devices[0].port = None, Reason::PlaceNotGiven { port: 0 }),
        (|it| it.devices[0].registers = Registers::Unknown, Reason::NotGiven { at: At::Device(0) }),
        // A bridge without decoders passes everything through, one without registers perhaps does not.
        (
            |it| {
                it.bridges[0].registers = Registers::Unknown;
                it.ports.truncate(1);
                it.devices.truncate(1);
                let image = DecoderImage::default().with_base(BASE).with_size(128 * GIB);
                it.devices[0].registers = Registers::Hdm(hdm(image, 0, true));
            },
            Reason::NotGiven { at },
        ),
    ]
}

#[test]
fn gaps_are_reasons_and_facts_stay_facts() {
    let whole = normalized(None);
    let ask = |change: fn(&mut Input)| {
        let mut input = whole.clone();
        change(&mut input);
        let reached = input.reached();
        let found = reached.resolve(Hpa(BASE)).map(|path| path.dpa);
        // The first range says the same of the same address.
        let first = reached.mappings().into_iter().next().map(|mapping| mapping.how);
        (found.unwrap_err(), first)
    };
    for (change, reason) in cases() {
        assert_eq!(ask(change), (reason, Some(Reach::Trapped { reason })));
    }
    let (reason, _) = ask(|it| it.cedt = None);
    assert_eq!(reason, Reason::WindowsNotGiven);
}

/// What a page says, and the picture in it, is what `explain` says.
#[test]
fn a_page_leads_nobody_where_nobody_gave_what_decides() {
    let page = |input: &Input| {
        let report = Report {
            subject: "a part of a machine".to_owned(),
            kernel: None,
            findings: lint(input),
            unchecked: unchecked(input),
            remarks: Vec::new(),
        };
        html::of_lint(&report, input.reached(), "cxl-harness lint").to_string()
    };
    let followed = |page: &str| page.contains("data-known") || page.contains("data-range=\"0\"");
    for (change, reason) in cases() {
        let mut input = normalized(None);
        change(&mut input);
        let told = page(&input);
        let words = ReasonText(&input.reached().fabric, reason).to_string();
        // In the table as it is, in the picture as far as it has room.
        assert!(told.contains(&format!("no memory: {words}")), "{words}: {told}");
        let start: String = words.chars().take(40).collect();
        assert!(told.matches(&start).count() > 1, "{words}: {told}");
        assert!(!followed(&told), "{words}: {told}");
    }
    // The last of them is a way, as soon as somebody says that the bridge has no decoders.
    let mut input = normalized(None);
    let (change, _) = cases()[7];
    change(&mut input);
    input.bridges[0].registers = Registers::NoHdm;
    assert!(followed(&page(&input)));
    // What stands in the place of what nobody gave is not shown as a fact.
    type Gap = (fn(&mut Input), &'static str, &'static str);
    let gaps: [Gap; 6] = [
        (|it| it.bridges[0].uid = None, "host bridge, UID not given", "UID 4294967295"),
        (|it| it.bridges.clear(), "UID 7, of which nobody gave a bridge", "which is not there"),
        (|it| it.devices[0].capacity = None, "device, capacity not given", "device without memory"),
        (
            |it| it.bridges[0].registers = Registers::Unknown,
            "registers not given",
            "passes everything",
        ),
        (
            |it| it.devices[0].registers = Registers::Unknown,
            "registers not given",
            "passes everything",
        ),
        (|it| it.devices[0].port = None, "Below which port these are, nobody gave:", "of no port"),
    ];
    for (change, says, never) in gaps {
        let mut input = normalized(None);
        input.devices[0].registers = Registers::NoHdm;
        input.ports.truncate(1);
        input.devices.truncate(1);
        change(&mut input);
        if says == "registers not given" && input.devices[0].registers == Registers::NoHdm {
            input.devices[0].registers = normalized(None).devices[0].registers.clone();
        }
        let told = page(&input);
        assert!(told.contains(says) && !told.contains(never), "{says}: {told}");
        assert!(input.devices.iter().all(|device| told.contains(&device.name)), "{says}: {told}");
    }
}

#[test]
fn of_several_cxims_the_last_one_counts_and_is_said() {
    let of = |cxims: &[&[u64]]| {
        let cedt = Some(table_with(cxims));
        let reached = Input { cedt, ..Input::default() }.reached();
        (reached.fabric.windows[0].xor_maps.clone(), reached.assumed.join("\n"))
    };
    let (maps, said) = of(&[&[0x1_0100], &[0x2_0100]]);
    assert_eq!(maps, [0x2_0100]);
    assert!(said.contains("window 0 is taken to pick its targets by the last CXIMS"), "{said}");
    let alike: [&[&[u64]]; 2] = [&[&[0x1_0100]], &[&[0x1_0100], &[0x1_0100, 0x2_0200]]];
    for cxims in alike {
        assert_eq!(of(cxims).1, "", "what the window needs is the same in all");
    }
}
