//! A Linux on QEMU collects the machine that it runs on: before any CXL driver is loaded, with drivers
//! bound, and with drivers bound on a kernel that was told `iomem=relaxed`.
//!
//! Our image programs and locks the decoders first, so that there is something in them. The guest collects
//! and switches itself off; QEMU stays, and its registers are read from outside, by a walk that shares
//! no file with the one inside.
//!
//! **Invariant**: what is compared was read at one state of the machine: nothing runs between.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use cxl_harness::collect::outside;
use cxl_harness::guest::boot::{IMAGE, command_line};
use cxl_harness::inspect::{Answer, Locks};
use cxl_harness::linux::{COMMAND_LINE, Facts, Installed, Task};
use cxl_harness::qemu::command::Command;
use cxl_harness::qemu::offers::Offers;
use cxl_harness::qemu::process::{self, Process};
use cxl_lint::{Images, Input, Registers, lint};
use cxl_model::layout::AddressMap;
use cxl_model::scenario::{Scenario, builtin};

use crate::program::{self, Folder, command, ran};

/// Software emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn cases() -> Vec<(&'static str, fn())> {
    vec![
        ("without_drivers_what_linux_collects_is_what_is_seen_from_outside", unbound),
        ("with_drivers_registers_are_withheld_and_sysfs_stands_in", bound),
        ("with_drivers_and_iomem_relaxed_what_is_collected_is_all_there", relaxed),
        ("qemu_s_machine_is_dumped_from_outside", dumped),
    ]
}

/// What is missing here, with the remedy.
pub(crate) fn missing() -> Option<String> {
    let qemu = process::available().err().map(|error| error.to_string());
    qemu.or_else(|| Installed::find().err().map(|error| error.to_string()))
}

/// The program with the loader and libraries that it names, for the guest.
fn tool() -> Vec<(String, PathBuf)> {
    let program = program::path();
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    let output = Program::new(loader).arg("--list").arg(&program).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<(String, PathBuf)> = list
        .lines()
        .filter_map(|line| line.split_once(" => ")?.1.rsplit_once(" ("))
        .map(|(path, _)| PathBuf::from(path))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.push(("loader".to_owned(), loader.to_owned()));
    files.push(("harness".to_owned(), program));
    files
}

/// Runs in front of everything else that `init.sh` does, so that nothing has been loaded, and is the end.
const SCRIPT: &str = r#"
harness() { /task/loader --library-path /task /task/harness "$@"; }
if [ BOUND = yes ]; then
    while read -r module; do $B insmod "$module" || say "insmod$module" failed; done </lib/modules
    turns=0
    # Two devices come up, each with an endpoint, and their region.
    until [ -e /sys/bus/cxl/devices/region0/commit ] || [ $turns -gt 100 ]; do
        turns=$((turns + 1))
        $B usleep 200000
    done
    $B usleep 500000
fi
harness collect /machine.tar >/said 2>&1
say code "$?"
text /said
harness inspect >/inspected 2>&1
say inspect "$?"
text /inspected
[ -f /machine.tar ] && hex /machine.tar
say end reached
exec 3>&-
$B usleep 300000
$B poweroff -f
"#;

/// A machine that was collected from inside, and from outside.
struct Both {
    code: i64,
    said: String,
    inspect: (i64, String),
    inside: Images,
    outside: Images,
    /// The bundle from inside.
    bundle: String,
    folder: Folder,
}

fn collected(bound: bool, append: &str) -> Both {
    let text = builtin("two-way").unwrap().text;
    let mut scenario = Scenario::parse(text, "two-way").unwrap();
    scenario.platform.memory = scenario.platform.memory.max(2 << 30);
    let offers = Offers::ask(LIMIT).unwrap();
    let installed = Installed::find().unwrap();
    let files = tool();
    let script = SCRIPT.replace("BOUND", if bound { "yes" } else { "no" });
    // The task itself never comes: the script in front of it is the end.
    let task = Task { script: ":", files: &files };
    let folder = Folder::new();
    fs::write(folder.path("initramfs"), installed.initramfs(&script, &task).unwrap()).unwrap();
    fs::write(folder.path("image"), IMAGE).unwrap();

    let machine = Command::on(&offers, &scenario, None).unwrap();
    let line = command_line(&scenario, &AddressMap::new(&scenario), "linux").unwrap();
    let words: Vec<_> = line.split(' ').filter(|word| !word.starts_with("address-bits=")).collect();
    let line = format!("{} -- {COMMAND_LINE} {append}", words.join(" "));
    let mut arguments = machine.arguments();
    let plain = "-accel tcg -display none -nodefaults -no-reboot -no-shutdown -qtest-log /dev/null";
    arguments.extend(plain.split_whitespace().map(OsString::from));
    let file = |name: &str| format!("file:{}", folder.name(name));
    let socket = folder.name("qtest");
    let fixed = [
        ("-serial", file("console")),
        ("-kernel", folder.name("image")),
        ("-append", line),
        ("-qtest", format!("unix:{socket},server=on,wait=off")),
    ];
    arguments.extend(fixed.into_iter().flat_map(|(key, value)| [key.into(), value.into()]));
    arguments.extend(installed.arguments(&folder.path("initramfs"), &folder.path("facts")));
    let mut qemu = Process::start(&arguments).unwrap();
    let start = Instant::now();
    let facts = loop {
        let told = fs::read(folder.path("facts")).unwrap_or_default();
        if let Ok(facts) = Facts::parse(&told) {
            break facts;
        }
        let console = || {
            let text =
                String::from_utf8_lossy(&fs::read(folder.path("console")).unwrap_or_default())
                    .into_owned();
            text.lines().rev().take(30).collect::<Vec<_>>().join("\n")
        };
        assert!(qemu.ended().is_none(), "QEMU ended: {}\n{}", qemu.words(), console());
        assert!(start.elapsed() < LIMIT, "no end:\n{}", console());
        std::thread::sleep(Duration::from_millis(200));
    };
    // The guest has said its last; a moment later it is off, and nothing runs any more.
    std::thread::sleep(Duration::from_secs(1));
    let seen = outside::running(Path::new(&socket), LIMIT).unwrap();
    let number = |name: &str| facts.number(name).unwrap() as i64;
    let text = |name: &str| facts.text(name).unwrap_or_default().to_owned();
    let bundle = folder.name("machine.tar");
    let bytes = facts.bytes("/machine.tar");
    let bytes = bytes.unwrap_or_else(|| panic!("no bundle: {}", text("/said")));
    fs::write(&bundle, bytes).unwrap();
    let inside = read(&bundle);
    assert_eq!(seen.withheld, [], "from outside everything is seen");
    let both = Both {
        code: number("code"),
        said: text("/said"),
        inspect: (number("inspect"), text("/inspected")),
        inside,
        outside: seen.images().unwrap(),
        bundle,
        folder,
    };
    assert!(
        both.inside.kernel.as_deref() == Some(installed.version.as_str()),
        "{:?}",
        both.inside.kernel
    );
    both
}

/// A bundle in an archive, unpacked here and not by the program.
fn read(bundle: &str) -> Images {
    let mut archive = tar::Archive::new(fs::File::open(bundle).unwrap());
    let folder = tempfile::tempdir().unwrap();
    archive.unpack(folder.path()).unwrap();
    let set = folder.path().join("machine/machine.toml");
    let text = fs::read_to_string(&set).unwrap();
    Images::read(&text, &set, &mut |path| fs::read(path)).unwrap()
}

/// The machine without what only one of the two can know: names, and capacities by sysfs.
fn bare(images: &Images) -> Input {
    let mut input = images.input.clone();
    let names = |index: usize, kind: &str| format!("{kind}{index}");
    let bridges = input.bridges.iter_mut().enumerate();
    bridges.for_each(|(index, it)| it.name = names(index, "hb"));
    input.ports.iter_mut().enumerate().for_each(|(index, it)| it.name = names(index, "port"));
    for (index, device) in input.devices.iter_mut().enumerate() {
        device.name = names(index, "mem");
        device.capacity = None;
    }
    // The image hands its own table to Linux; QEMU's firmware's is the one that lies in memory.
    input.cedt = None;
    input
}

/// Locked by our image, on both sides of every path.
fn locked(both: &Both) {
    let locks = Locks::of(&both.inside.input);
    assert_eq!((locks.locked, locks.sealed), (Answer::Yes, Answer::Yes), "{locks:#?}");
    assert_eq!((locks.in_use, locks.in_force), (4, 4), "{locks:#?}");
    let findings = lint(&both.inside.input);
    assert!(findings.iter().all(|finding| !finding.refused()), "{findings:#?}");
    let table = both.inside.input.cedt.as_deref().unwrap_or_default();
    assert_eq!(table.get(10..16), Some(&b"CXLFW "[..]), "the table that Linux has is the image's");
}

fn unbound() {
    let both = collected(false, "");
    assert_eq!(both.code, 0, "{}", both.said);
    assert_eq!(bare(&both.inside), bare(&both.outside));
    assert_eq!(both.inside.input.devices.len(), 2);
    assert!(both.inside.input.devices.iter().all(|it| it.status.is_some()), "device registers");
    locked(&both);
    let (code, text) = &both.inspect;
    assert_eq!(*code, 0, "{text}");
    assert!(text.contains("sealed            yes"), "{text}");
}

fn bound() {
    let both = collected(true, "");
    assert_eq!(both.code, 1, "{}", both.said);
    // Configuration space is never withheld.
    for (inside, outside) in both.inside.input.devices.iter().zip(&both.outside.input.devices) {
        assert_eq!(inside.config, outside.config);
        assert_eq!(inside.address, outside.address);
    }
    // What the kernel gives is what is there, and what it does not give is named, with the remedy. Of a
    // resource file it looks at the first page alone, and no driver claims that of a component's.
    let bridges = both.inside.input.bridges.iter().map(|it| (&it.name, &it.registers));
    let devices = both.inside.input.devices.iter().map(|it| (&it.name, &it.registers));
    let seen = both.outside.input.bridges.iter().map(|it| &it.registers);
    let seen = seen.chain(both.outside.input.devices.iter().map(|it| &it.registers));
    let mut gaps = 0;
    for ((name, registers), outside) in bridges.chain(devices).zip(seen) {
        if *registers != Registers::Unknown {
            assert_eq!(registers, outside, "{name}");
            continue;
        }
        gaps += 1;
        let what = format!("registers of {name}");
        let told = both.inside.withheld.iter().find(|it| it.what.starts_with(&what)).unwrap();
        assert!(told.why.contains("iomem=relaxed"), "{told:?}");
        assert!(both.said.contains(&what), "{}", both.said);
    }
    assert!(gaps >= 2, "the bridges at least: {}", both.said);
    for device in &both.inside.input.devices {
        assert!(device.name.starts_with("mem") && device.capacity.is_some(), "{device:?}");
        let what = format!("device registers of {}", device.name);
        let told = both.inside.withheld.iter().find(|it| it.what.starts_with(&what));
        assert!(told.is_some_and(|it| it.why.contains("iomem=relaxed")), "{}", both.said);
    }
    // By registers nobody can say; what Linux shows leads where registers lead.
    let locks = Locks::of(&both.inside.input);
    assert_eq!((locks.locked, locks.sealed), (Answer::Unknown, Answer::Unknown), "{locks:#?}");
    let (shown, remarks) = both.inside.with_witness();
    assert!(remarks.iter().any(|it| it.contains("taken from what Linux shows")), "{remarks:?}");
    let (by_linux, by_registers) = (shown.reached().fabric, both.outside.input.reached().fabric);
    for window in &by_registers.windows {
        for at in [0, 0x100, 0x1234, window.size / 2 + 0x300, window.size - 1] {
            let hpa = cxl_regs::Hpa(window.base.unwrap().0 + at);
            let lead = |fabric| {
                let path = cxl_model::mapping::resolve(fabric, hpa).ok()?;
                Some((fabric.devices[path.endpoint.device].port, path.dpa))
            };
            let (one, other) = (lead(&by_linux), lead(&by_registers));
            assert!(one.is_some() || other.is_none(), "{hpa}");
            assert_eq!(one, other, "{hpa}");
        }
    }
    let (text, _, code) = ran(&mut command(&["inspect", &both.bundle]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("4 decoders with a range locked, 0 not"), "{text}");
    drop(both.folder);
}

fn relaxed() {
    let both = collected(true, "iomem=relaxed");
    assert_eq!(both.code, 0, "{}", both.said);
    assert_eq!(bare(&both.inside), bare(&both.outside));
    let shown = both.inside.witness.as_ref().unwrap();
    assert!(shown.regions.contains_key("region0"), "drivers were bound");
    locked(&both);
    assert_eq!(both.inspect.0, 0, "{}", both.inspect.1);
}

/// `dump --qemu SCENARIO`: what the library programmed on QEMU's devices, as a bundle.
fn dumped() {
    let folder = Folder::new();
    let to = folder.name("board");
    let (text, notes, code) = ran(&mut command(&["dump", "--qemu", "two-way", &to]));
    assert_eq!(code, 0, "{notes}");
    assert!(text.contains("board/hb1.bin") && text.contains("board/mem1.bin"), "{text}");
    let (text, _, code) = ran(&mut command(&["inspect", &to, "--require", "sealed"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("4, 4 of them locked"), "{text}");
    let (_, notes, code) = ran(&mut command(&["dump", "--qemu", "default", &folder.name("no")]));
    assert_eq!(code, 1, "QEMU has no Type 2: {notes}");
    assert!(!folder.path("no").exists());
}
