//! Bundles of files that stand for a machine's: complete, honest about gaps, read by every command.

use std::collections::BTreeMap;
use std::fs;

use cxl_harness::collect::live::Linux;
use cxl_harness::inspect::{Answer, Inspection, Locks, Subject};
use cxl_harness::locks::Protection;
use cxl_harness::run;
use cxl_lint::{Config, Images, Input, Registers, Withheld};
use cxl_model::fabric::Parent;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::Hpa;
use cxl_regs::mmio::Mmio;

use crate::program::{self, Folder, command, ran};
use crate::stand_in::{SERIAL, StandIn};

pub(crate) fn cases() -> Vec<(&'static str, fn())> {
    vec![
        ("every_built_in_machine_reads_back_as_it_is", every_machine),
        ("a_bundle_is_read_by_every_command_as_folder_archive_and_pipe", every_command),
        ("what_cannot_be_read_is_withheld_by_name_with_the_remedy", withheld),
        ("what_is_withheld_decides_no_lock_and_sysfs_stands_in", witness),
        ("an_anonymous_bundle_has_no_serial_number_anywhere", anonymous),
        ("a_machine_without_cxl_and_a_user_who_is_not_root_are_told_so", nothing),
        ("nothing_is_written_over_and_nothing_of_the_machine_is_written", untouched),
        ("what_is_demanded_of_locks_is_the_exit_code", demanded),
        ("an_ordinary_function_is_left_alone", left_alone),
        ("a_short_configuration_space_says_nothing_of_a_link", short),
        ("no_name_of_a_component_leads_out_of_a_dump", names),
        ("a_dump_of_every_built_in_machine_is_read_back_by_every_command", dumps),
    ]
}

fn builtin(name: &str) -> String {
    builtins().iter().find(|it| it.name == name).unwrap().text.to_owned()
}

fn images(found: &cxl_harness::collect::Found) -> Images {
    found.images().unwrap_or_else(|error| panic!("{error}"))
}

/// What of a machine counts, by place: a bridge's UID and port numbers down from it.
type Parts = BTreeMap<(u32, Vec<u8>, &'static str), (Registers, Option<Config>, Option<u32>)>;

fn parts(input: &Input) -> Parts {
    let way = |mut port: usize| {
        let mut numbers = vec![];
        for _ in 0..=input.switches.len() {
            numbers.insert(0, input.ports[port].number);
            match input.ports[port].parent {
                Parent::Bridge(bridge) => return (input.bridges[bridge].uid.unwrap(), numbers),
                Parent::Switch(switch) => port = input.switches[switch].port,
            }
        }
        panic!("a ring of ports");
    };
    let mut parts = Parts::new();
    for bridge in &input.bridges {
        let place = (bridge.uid.unwrap(), vec![], "bridge");
        parts.insert(place, (bridge.registers.clone(), None, None));
    }
    for index in 0..input.ports.len() {
        let (uid, numbers) = way(index);
        parts.insert((uid, numbers, "port"), (Registers::Unknown, None, None));
    }
    for switch in &input.switches {
        let (uid, numbers) = way(switch.port);
        parts.insert((uid, numbers, "switch"), (switch.registers.clone(), None, None));
    }
    for device in &input.devices {
        let (uid, numbers) = way(device.port.unwrap());
        let rest = (device.registers.clone(), device.config.clone(), device.status);
        parts.insert((uid, numbers, "device"), rest);
    }
    parts
}

/// Whether a model answers with all-ones, so that nothing can be collected there.
fn silent(registers: &Registers) -> bool {
    matches!(registers, Registers::Hdm(image) if image.capability == u32::MAX)
}

fn every_machine() {
    let (mut locked, mut whole) = (0, 0);
    for builtin in builtins() {
        let stand_in = StandIn::of(builtin.text);
        let StandIn { machine, cedt, .. } = &stand_in;
        let want = Input::of(machine, cedt);
        let found = Linux::below(stand_in.path("").as_path()).collect();
        let found = found.unwrap_or_else(|error| panic!("{}: {error}", builtin.name));
        let images = images(&found);
        assert_eq!(images.input.cedt, want.cedt, "{}", builtin.name);
        let (want, have) = (parts(&want), parts(&images.input));
        let places: Vec<_> = want.keys().collect();
        assert_eq!(places, have.keys().collect::<Vec<_>>(), "{}", builtin.name);
        let mut gaps = 0;
        for (place, (registers, config, status)) in &have {
            let (all, theirs, ready) = &want[place];
            assert_eq!(config, theirs, "{} {place:?}", builtin.name);
            if *registers == Registers::Unknown && place.2 != "port" {
                assert!(!images.withheld.is_empty(), "{} {place:?}", builtin.name);
                gaps += 1;
                continue;
            }
            assert!(!silent(registers), "{} {place:?}", builtin.name);
            assert_eq!(registers, all, "{} {place:?}", builtin.name);
            // A device of Type 2 has no mailbox.
            assert_eq!(status.is_some(), ready.is_some(), "{} {place:?}", builtin.name);
        }
        let locks = Locks::of(&images.input);
        let models = Protection::of(machine);
        if gaps > 0 {
            assert_ne!(locks.locked, Answer::Yes, "{}", builtin.name);
            continue;
        }
        whole += 1;
        let answer = |yes| if yes { Answer::Yes } else { Answer::No };
        let name = builtin.name;
        assert_eq!(locks.locked, answer(models.is_locked()), "{name}: {locks:#?} {models:#?}");
        assert_eq!(locks.sealed, answer(models.is_sealed()), "{name}: {locks:#?} {models:#?}");
        assert_eq!(locks.in_use, models.in_use.len(), "{name}");
        assert_eq!(locks.in_force, models.locked.len(), "{name}");
        locked += usize::from(models.is_sealed());
    }
    assert!(whole > builtins().len() / 2 && locked > 8, "{whole} whole, {locked} sealed");
}

/// The addresses that are asked about: ends and middle of each window.
fn addresses(machine: &Machine) -> Vec<u64> {
    let windows = machine.scenario().windows.iter().zip(&machine.map().windows);
    windows
        .filter_map(|(window, base)| Some(((*base)?, window.size)))
        .flat_map(|(Hpa(base), size)| [base, base + 256, base + size / 2, base + size - 1])
        .collect()
}

fn every_command() {
    let stand_in = StandIn::of(&builtin("default"));
    let folder = Folder::new();
    let (dir, tar) = (folder.name("machine"), folder.name("machine.tar"));
    for to in [&dir, &tar] {
        let (said, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), to]));
        assert_eq!((code, notes.as_str()), (0, ""), "{said}");
        assert!(said.starts_with(to) && said.ends_with("files\n"), "{said}");
    }
    let root = stand_in.root();
    let mut piped = command(&["collect", "--root", &root, "-"]);
    let archive = piped.output().unwrap();
    assert_eq!(archive.status.code(), Some(0));
    assert_eq!(archive.stdout, fs::read(&tar).unwrap(), "an archive is the same anywhere");

    let StandIn { machine, cedt, .. } = &stand_in;
    let fabric = Input::of(machine, cedt).reached().fabric;
    let (first, _, code) = ran(&mut command(&["lint", &dir]));
    assert_eq!(code, 0, "{first}");
    for bundle in [&dir, &tar] {
        let (text, _, code) = ran(&mut command(&["lint", bundle]));
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.replace(bundle.as_str(), &dir), first);
        let (text, _, code) = ran(&mut command(&["decode", "--list", bundle]));
        assert_eq!(code, 0, "{text}");
        for words in ["cedt.dat", "configuration space of", "hb0.bin", "mem0.bin", "/proc/iomem"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("remark"), "every file is known: {text}");
        for hpa in addresses(machine) {
            let want = cxl_model::mapping::resolve(&fabric, Hpa(hpa));
            let asked = ["explain", bundle, &format!("{hpa:#x}"), "--json"];
            let (text, _, code) = ran(&mut command(&asked));
            assert_eq!(code, i32::from(want.is_err()), "{hpa:#x}: {text}");
            if let Ok(path) = want {
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(json["paths"][0]["dpa"], path.dpa.to_string(), "{hpa:#x}");
            }
        }
        let (text, _, code) = ran(&mut command(&["inspect", bundle, "--json"]));
        assert_eq!(code, 0, "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&json["locks"]["locked"], &json["locks"]["sealed"]),
            (&"yes".into(), &"yes".into())
        );
        assert_eq!(json["kernel"], "7.3.4-test");
    }
    let (piped, _, code) = program::fed(&mut command(&["inspect", "-"]), &archive.stdout);
    let (live, _, _) = ran(&mut command(&["inspect", "--root", &root]));
    assert_eq!((code, &piped), (0, &live), "what is inspected is what was collected");
}

/// A case: what is done to the files, what is withheld then, and why.
type Spoilt = (&'static str, fn(&StandIn), &'static str, &'static str);

fn withheld() {
    let text = builtin("switch");
    let cases: [Spoilt; 5] = [
        (
            "no /dev/mem",
            |it| fs::remove_file(it.path("dev/mem")).unwrap(),
            "registers of hb0",
            "there is no /dev/mem",
        ),
        (
            "a resource file that ends",
            |it| {
                let device = resource(it, "resource0");
                fs::File::options().write(true).open(device).unwrap().set_len(0x1100).unwrap();
                // Memory would say the same of the same address, and has only what bridges have here.
                fs::remove_file(it.path("dev/mem")).unwrap();
            },
            "registers of mem",
            "behind the end of the file",
        ),
        (
            "Memory Space off",
            |it| {
                let path = resource(it, "config");
                let mut bytes = fs::read(&path).unwrap();
                bytes[4] &= !2;
                fs::write(path, bytes).unwrap();
            },
            "registers of mem",
            "Memory Space is off",
        ),
        (
            "asleep",
            |it| fs::write(resource(it, "power_state"), "D3hot\n").unwrap(),
            "registers of mem",
            "power state D3hot",
        ),
        (
            "a block that answers nothing",
            |it| {
                let path = resource(it, "resource0");
                fs::write(path, vec![0xFF; 0x1_0000]).unwrap();
            },
            "registers of mem",
            "found 0xffffffff",
        ),
    ];
    for (case, spoil, what, why) in cases {
        let stand_in = StandIn::of(&text);
        spoil(&stand_in);
        let folder = Folder::new();
        let to = folder.name("machine");
        let (_, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), &to]));
        assert_eq!(code, 1, "{case}: {notes}");
        let told = notes.lines().any(|line| line.contains(what) && line.contains(why));
        assert!(told, "{case}: {notes}");
        // The bundle says so itself, and no register that was not read is in it.
        let (text, _, code) = ran(&mut command(&["inspect", &to, "--json"]));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(code, 1, "{case}: {text}");
        assert!(json["withheld"].to_string().contains(why), "{case}: {text}");
        assert_eq!(json["locks"]["locked"], "unknown", "{case}: {text}");
        let (text, _, _) = ran(&mut command(&["lint", &to]));
        assert!(
            text.contains("withheld") && text.contains("without registers of"),
            "{case}: {text}"
        );
    }
}

/// A file of the first device's folder.
fn resource(it: &StandIn, name: &str) -> std::path::PathBuf {
    let devices = it.path("sys/bus/pci/devices");
    let mut all: Vec<_> = fs::read_dir(devices).unwrap().map(|it| it.unwrap().path()).collect();
    all.sort();
    let is_memory = |path: &std::path::PathBuf| {
        fs::read_to_string(path.join("class")).unwrap().trim() == "0x050210"
    };
    all.into_iter().find(is_memory).unwrap().join(name)
}

/// What sysfs of Linux 7.3 shows of the built-in `one-device`, typed as it prints it.
fn shown(it: &StandIn) {
    let bus = it.path("sys/bus/cxl/devices");
    let write = |name: &str, value: &str| {
        let path = bus.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    };
    let map = it.machine.map();
    let Hpa(base) = map.windows[0].unwrap();
    let uid = it.machine.scenario().bridges[0].uid;
    let size = it.machine.scenario().devices[0].volatile;
    let window = it.machine.scenario().windows[0].size;
    let bridge = format!("pci0000:{:02x}", map.bridges[0].first_bus);
    let port = &map.ports[0];
    let root_port = format!("0000:{:02x}:{:02x}.0", port.bus, port.slot);
    let device = format!("0000:{:02x}:00.0", port.secondary);
    for name in ["root0", "port1", "endpoint2", "mem0", "decoder0.0", "decoder1.0", "decoder2.0"] {
        let folder = match name {
            "root0" => "root0".to_owned(),
            "port1" => "root0/port1".to_owned(),
            "endpoint2" => "root0/port1/endpoint2".to_owned(),
            "mem0" => format!("../{bridge}/{root_port}/{device}/mem0"),
            "decoder0.0" => "root0/decoder0.0".to_owned(),
            "decoder1.0" => "root0/port1/decoder1.0".to_owned(),
            _ => "root0/port1/endpoint2/decoder2.0".to_owned(),
        };
        let folder = format!("sys/devices/platform/{folder}");
        fs::create_dir_all(it.path(&folder)).unwrap();
        fs::create_dir_all(&bus).unwrap();
        let link = format!("../../../../{folder}").replace("platform/../", "");
        std::os::unix::fs::symlink(link, bus.join(name)).unwrap();
    }
    let link = |name: &str, target: String| {
        std::os::unix::fs::symlink(target, bus.join(name)).unwrap();
    };
    link(&format!("root0/dport{uid}"), format!("../../{bridge}"));
    link("port1/uport", format!("../../../{bridge}"));
    link(&format!("port1/dport{}", it.machine.scenario().ports[0].number), root_port.clone());
    link("endpoint2/uport", format!("../{device}/mem0"));
    link("endpoint2/parent_dport", root_port);
    let number = it.machine.scenario().ports[0].number;
    for (decoder, size, targets) in
        [("decoder0.0", window, uid.to_string()), ("decoder1.0", size, number.to_string())]
    {
        write(&format!("{decoder}/target_list"), &targets);
        write(&format!("{decoder}/size"), &format!("{size:#x}"));
    }
    write("decoder2.0/size", &format!("{size:#x}"));
    write("decoder2.0/dpa_resource", "0x0");
    write("decoder2.0/dpa_size", &format!("{size:#x}"));
    for decoder in ["decoder0.0", "decoder1.0", "decoder2.0"] {
        write(&format!("{decoder}/start"), &format!("{base:#x}"));
        write(&format!("{decoder}/interleave_ways"), "1");
        write(&format!("{decoder}/interleave_granularity"), "256");
        write(&format!("{decoder}/locked"), "1");
        write(&format!("{decoder}/target_type"), "expander");
    }
    for cap in ["cap_ram", "cap_pmem", "cap_type3"] {
        write(&format!("decoder0.0/{cap}"), "1");
    }
    write("mem0/ram/size", &format!("{size:#x}"));
    write("mem0/pmem/size", "0x0");
    write("mem0/serial", &format!("{SERIAL:#x}"));
}

fn witness() {
    let stand_in = StandIn::of(&builtin("one-device"));
    shown(&stand_in);
    // As IO_STRICT_DEVMEM has it: nothing of what a driver has claimed.
    fs::remove_file(stand_in.path("dev/mem")).unwrap();
    fs::remove_file(resource(&stand_in, "resource0")).unwrap();
    let folder = Folder::new();
    let to = folder.name("machine.tar");
    let (_, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), &to]));
    assert_eq!(code, 1, "{notes}");
    let Hpa(base) = stand_in.machine.map().windows[0].unwrap();
    let asked = ["explain", &to, &format!("{:#x}", base + 0x1234), "--json"];
    let (text, notes, code) = ran(&mut command(&asked));
    assert_eq!(code, 0, "{text} {notes}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["paths"][0]["dpa"], "0x1234");
    assert!(notes.contains("taken from what Linux shows"), "{notes}");
    let (text, _, code) = ran(&mut command(&["lint", &to]));
    assert_eq!(code, 0, "{text}");
    let (text, _, code) = ran(&mut command(&["inspect", &to, "--json"]));
    assert_eq!(code, 1, "what is withheld is no good end: {text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let locks = &json["locks"];
    assert_eq!((&locks["locked"], &locks["sealed"]), (&"unknown".into(), &"unknown".into()));
    let shown = serde_json::json!({ "locked": 2, "open": 0, "not_shown": 0 });
    assert_eq!(locks["shown"], shown, "{text}");
    assert_eq!(locks["in_force"], 0, "a witness is no register");
    let (_, _, code) = ran(&mut command(&["inspect", &to, "--require", "locked"]));
    assert_eq!(code, 1);
}

fn anonymous() {
    let stand_in = StandIn::of(&builtin("one-device"));
    shown(&stand_in);
    let log = format!(
        "6,1,1,-;cxl_pci 0000:0d:00.0: serial {SERIAL:#x}\n6,2,2,-;cxl mem0: {}\n6,3,3,-;cxl {SERIAL:X}\n",
        "00-C0-FF-EE-12-34-56-78"
    );
    fs::write(stand_in.path("dev/kmsg"), log).unwrap();
    let folder = Folder::new();
    let spellings = [
        SERIAL.to_le_bytes().to_vec(),
        SERIAL.to_be_bytes().to_vec(),
        b"c0ffee12345678".to_vec(),
        SERIAL.to_string().into_bytes(),
        b"00-c0-ff-ee-12-34-56-78".to_vec(),
        // Rows of configuration space.
        b"78 56 34 12".to_vec(),
    ];
    let has = |name: &str| {
        let bytes = fs::read(folder.path(name)).unwrap().to_ascii_lowercase();
        spellings.iter().filter(|text| bytes.windows(text.len()).any(|part| part == *text)).count()
    };
    let root = stand_in.root();
    let (_, notes, code) =
        ran(&mut command(&["collect", "--root", &root, &folder.name("named.tar")]));
    assert_eq!(code, 0, "{notes}");
    assert!(has("named.tar") >= 3, "it is there where nobody leaves it out");
    let to = folder.name("nameless.tar");
    let (_, notes, code) = ran(&mut command(&["collect", "--root", &root, &to, "--anonymous"]));
    assert_eq!((code, notes.as_str()), (0, ""));
    assert_eq!(has("nameless.tar"), 0);
    // Nothing else has changed: the device still has one, and its registers are all there.
    let (named, _, _) = ran(&mut command(&["inspect", &folder.name("named.tar")]));
    let (nameless, _, code) = ran(&mut command(&["inspect", &to]));
    assert_eq!(code, 0);
    assert_eq!(nameless.replace(", serial numbers left out", ""), named);
    let (text, _, _) = ran(&mut command(&["decode", "--kind", "config", &to]));
    assert!(text.contains("device serial number"), "{text}");
}

fn nothing() {
    let folder = Folder::new();
    let root = folder.path("root");
    fs::create_dir_all(root.join("sys/bus/pci/devices/0000:00:01.0")).unwrap();
    fs::write(root.join("sys/bus/pci/devices/0000:00:01.0/class"), "0x020000\n").unwrap();
    let root = folder.name("root");
    let to = folder.name("machine.tar");
    for arguments in [&["collect", "--root", &root, &to][..], &["inspect", "--root", &root]] {
        let (text, notes, code) = ran(&mut command(arguments));
        assert_eq!((text.as_str(), code), ("", 2), "{notes}");
        assert!(notes.contains("this machine has no CXL"), "{notes}");
    }
    assert!(!folder.path("machine.tar").exists());
    let (_, notes, code) = ran(&mut command(&["collect", "--root", &folder.name("no"), &to]));
    assert_eq!(code, 2);
    assert!(notes.contains("expected sysfs of a running Linux"), "{notes}");
    // Linux gives 64 bytes of configuration space to everybody.
    let stand_in = StandIn::of(&builtin("one-device"));
    let config = resource(&stand_in, "config");
    let bytes = fs::read(&config).unwrap();
    fs::write(&config, &bytes[..64]).unwrap();
    let (_, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), &to]));
    assert_eq!(code, 2);
    assert!(notes.contains("run as root"), "{notes}");
    assert!(!folder.path("machine.tar").exists());
}

/// Every file below a directory, with its bytes.
fn files(path: &std::path::Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && path.file_name().unwrap() != "mem" {
                all.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

fn untouched() {
    let stand_in = StandIn::of(&builtin("one-device"));
    let before = files(&stand_in.path(""));
    let memory = fs::metadata(stand_in.path("dev/mem")).unwrap().modified().unwrap();
    let folder = Folder::new();
    let (tar, dir) = (folder.file("there.tar", "mine"), folder.name("dir"));
    fs::create_dir(&dir).unwrap();
    fs::write(folder.path("dir/mine"), "mine").unwrap();
    for to in [&tar, &dir] {
        let (_, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), to]));
        assert_eq!(code, 2);
        assert!(notes.contains("expected a new"), "{notes}");
    }
    assert_eq!(fs::read_to_string(&tar).unwrap(), "mine");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let to = folder.name("new");
    assert_eq!(ran(&mut command(&["collect", "--root", &stand_in.root(), &to])).2, 0);
    assert_eq!(files(&stand_in.path("")), before);
    assert_eq!(fs::metadata(stand_in.path("dev/mem")).unwrap().modified().unwrap(), memory);
}

fn demanded() {
    for (name, locked, sealed) in [("default", 0, 0), ("unlocked", 1, 1), ("describe", 1, 1)] {
        let stand_in = StandIn::of(&builtin(name));
        let root = stand_in.root();
        for (word, code) in [("locked", locked), ("sealed", sealed)] {
            let asked = ["inspect", "--root", &root, "--require", word];
            let (text, notes, found) = ran(&mut command(&asked));
            assert_eq!(found, code, "{name} {word}: {text} {notes}");
            let outcome = if code == 0 { "met" } else { "NOT met" };
            assert!(text.contains(&format!("{word}: {outcome}")), "{text}");
        }
    }
    // CONFIG_LOCK alone is what is missing.
    let text = builtin("one-device");
    let stand_in = StandIn::of(&format!("{text}\n[policy]\nconfig_lock = false\n"));
    let found = Linux::below(&stand_in.path("")).collect().unwrap();
    let inspection = Inspection::of(Subject::from(images(&found)));
    assert_eq!((inspection.locks.locked, inspection.locks.sealed), (Answer::Yes, Answer::No));
    assert!(inspection.to_string().contains("CONFIG_LOCK is 0"), "{inspection}");
}

fn left_alone() {
    let stand_in = StandIn::of(&builtin("one-device"));
    // A network card below an ordinary bridge: whoever opens its registers fails.
    let folder = stand_in.path("sys/devices/pci0000:00/0000:00:02.0");
    fs::create_dir_all(folder.join("config")).unwrap();
    fs::write(folder.join("class"), "0x020000\n").unwrap();
    let link = stand_in.path("sys/bus/pci/devices/0000:00:02.0");
    std::os::unix::fs::symlink("../../../devices/pci0000:00/0000:00:02.0", link).unwrap();
    let found = Linux::below(&stand_in.path("")).collect().unwrap();
    assert_eq!(found.functions.len(), 2, "a root port and a device");
    assert!(found.withheld.is_empty(), "{:?}", found.withheld);
}

fn short() {
    let stand_in = StandIn::of(&builtin("one-device"));
    let path = resource(&stand_in, "config");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..256]).unwrap();
    let folder = Folder::new();
    let to = folder.name("machine");
    let (_, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), &to]));
    assert_eq!(code, 1, "{notes}");
    assert!(notes.contains("Linux gives 256 bytes of it"), "{notes}");
    assert!(!notes.contains("its link is not CXL's"), "{notes}");
    // Of a whole one without the DVSEC that is what is to be said.
    let mut bytes = bytes;
    bytes[256..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let to = folder.name("other");
    let (_, notes, code) = ran(&mut command(&["collect", "--root", &stand_in.root(), &to]));
    assert_eq!(code, 1, "{notes}");
    assert!(notes.contains("its link is not CXL's"), "{notes}");
}

/// Names as a scenario may have them, in TOML, and the files that they make.
const NAMES: [(&str, &str); 4] = [
    ("../evil", "%2e%2e%2fevil"),
    ("a/b", "a%2fb"),
    ("\\u001b\\u007f", "%1b%7f"),
    ("ein Ger\u{e4}t", "ein%20Ger%c3%a4t"),
];

/// Whatever the firmware leaves, and whatever does not answer.
fn dumps() {
    let folder = Folder::new();
    let (mut silences, mut hosts) = (0, 0);
    for builtin in builtins() {
        let name = builtin.name;
        let to = folder.name(name);
        let (text, notes, code) = ran(&mut command(&["dump", name, &to]));
        assert!(code < 2, "{name}: {text}{notes}");
        let asked = [
            &["decode", &to][..],
            &["lint", &to],
            &["inspect", &to],
            &["explain", &to, "0x100000000"],
        ];
        for words in asked {
            let (text, notes, code) = ran(&mut command(words));
            assert!(code < 2 && !text.is_empty(), "{name}: {words:?}: {text}{notes}");
        }
        // As it is: registers that answer, the rest withheld by name.
        let mut machine = Machine::new(&Scenario::parse(builtin.text, name).unwrap());
        let done = run::direct(&mut machine);
        let want = Input::of(&machine, &done.cedt);
        let path = folder.path(name).join("machine.toml");
        let set = fs::read_to_string(&path).unwrap();
        let images = Images::read(&set, &path, &mut |file| fs::read(file)).unwrap();
        assert_eq!(images.input.cedt, want.cedt, "{name}");
        let (want, have) = (parts(&want), parts(&images.input));
        assert_eq!(want.keys().collect::<Vec<_>>(), have.keys().collect::<Vec<_>>(), "{name}");
        let mut gaps = 0;
        for (place, (registers, ..)) in &have {
            let (all, ..) = &want[place];
            if *registers == Registers::Unknown && place.2 != "port" {
                gaps += 1;
                continue;
            }
            hosts += usize::from(matches!(registers, Registers::Rcrb(_)));
            assert_eq!(registers, all, "{name} {place:?}");
        }
        assert_eq!(images.withheld.len(), gaps, "{name}");
        for Withheld { what, .. } in &images.withheld {
            let component = machine.find(what.strip_prefix("registers of ").unwrap()).unwrap();
            let block = machine.registers_of(component).unwrap();
            assert_eq!(machine.read(block + 0x1000), u32::MAX, "{name}: {what}");
        }
        silences += gaps;
    }
    assert!(silences > 0 && hosts > 0, "{silences} silent, {hosts} hosts of CXL 1.1");
}

fn names() {
    let folder = Folder::new();
    let absolute = folder.name("absolute");
    let spelt: String = absolute
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect();
    let mut names: Vec<(&str, &str)> = NAMES.to_vec();
    names.push((&absolute, &spelt));
    for (name, spelt) in names {
        let scenario = format!(
            "[[bridge]]\nname = \"{name}\"\nuid = 16\ndecoders = 4\n[[port]]\nbelow = \"{name}\"\n\
             [[device]]\nname = \"{name}d\"\nbelow = \"port0\"\nvolatile = \"512MiB\"\n[[window]]\n\
             targets = [\"{name}\"]\nsize = \"1GiB\"\n"
        );
        let scenario = folder.file("scenario.toml", scenario);
        let into = folder.path("into");
        fs::create_dir_all(&into).unwrap();
        for to in [folder.name("into/board"), folder.name("into/board.tar")] {
            let (text, notes, code) = ran(&mut command(&["dump", &scenario, &to]));
            assert_eq!(code, 0, "{name}: {text}{notes}");
            let (text, notes, code) = ran(&mut command(&["inspect", &to]));
            assert_eq!(code, 0, "{name}: {text}{notes}");
        }
        let board = into.join("board");
        for file in [format!("{spelt}.bin"), format!("{spelt}d.bin"), format!("{spelt}d.lspci")] {
            assert!(board.join(&file).is_file(), "{name}: {file}");
        }
        let set = fs::read_to_string(board.join("machine.toml")).unwrap();
        assert!(set.contains(&format!("registers = \"{spelt}.bin\"")), "{set}");
        let beside: Vec<_> =
            fs::read_dir(&into).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "{name}: {beside:?}");
        fs::remove_dir_all(&into).unwrap();
        let beside: Vec<_> =
            fs::read_dir(folder.path("")).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 1, "{name}: {beside:?}");
    }
}
