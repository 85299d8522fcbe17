//! `cxl-harness nested`, run as people run it: what goes in, what comes out, how it ends, and what
//! is left of it here.
//!
//! Most commands inside are busybox's, whose ends can be chosen.
//!
//! **Invariant**: without QEMU, a kernel or busybox every test that needs one is shown as ignored,
//! with the remedy; none is silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;
mod trial;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cxl_harness::linux::{Installed, Task};
use cxl_harness::nested::Kernel;
use program::Folder;
use serde_json::Value;
use trial::{claim, unless};

fn main() -> ExitCode {
    let lacks = Kernel::find(None, None).err().unwrap_or_default();
    let words: Vec<_> = lacks.iter().map(ToString::to_string).collect();
    if !words.is_empty() {
        eprintln!("tests of nested are ignored: {}", words.join("; "));
    }
    let lack = || (!words.is_empty()).then_some("needs QEMU, a kernel and busybox");
    let inside = [
        claim("output_code_and_files_come_back", everything_comes_back),
        claim("a_machine_is_locked_and_attacked_inside", a_machine),
        claim("the_machine_s_kernel_is_chosen_apart_from_the_one_that_boots_inside", two_kernels),
        claim("an_end_without_a_code_is_125", no_code),
        claim("time_limit_and_signals_leave_nothing", ends),
        claim("qemu_goes_when_the_program_is_killed", killed),
        claim("linux_boots_on_the_scenario_s_machine_and_finds_what_is_there", linux),
        claim("linux_that_panics_is_a_failure", panicked),
        claim("linux_has_on_our_machine_what_the_library_planned", on_ours),
        claim("linux_dies_in_cxl_memory_that_is_not_mirrored", not_mirrored),
        claim("linux_makes_regions_itself_and_slots_follow", own_regions),
        claim("linux_reads_what_is_typed_at_its_console", typed),
        claim("a_qemu_that_a_script_starts_goes_in_or_what_it_lacks_is_said", script),
    ];
    let mut trials: Vec<_> = inside.into_iter().map(|trial| unless(lack(), trial)).collect();
    trials.push(claim("all_that_is_missing_is_named_at_once", missing));
    trial::run(trials)
}

/// The busybox of this machine, as a program to run inside.
fn busybox() -> PathBuf {
    Kernel::find(None, None).unwrap().busybox
}

/// A shell inside, started in a folder.
fn shell(folder: &Folder, options: &[&str], script: &str) -> Command {
    let mut command = program::command(&["nested"]);
    command.current_dir(folder.path(""));
    command.args(options).arg("--harness").arg(busybox()).args(["--", "sh", "-c", script]);
    command
}

fn everything_comes_back() {
    let folder = Folder::new();
    folder.file("read me", "in the folder, and not named\n");
    folder.file("old", "as it was\n");
    folder.file("changed", "before\n");
    let elsewhere = Folder::new();
    let given = elsewhere.file("given", "given\n");
    let made = elsewhere.name("made");
    // Beside what is asked for: a byte of zero and one that is no text, a file in a new folder, one
    // that nobody is to have, and a place that no folder here has.
    let script = r#"
        set -e
        pwd
        id -u
        printf 'a\000b\377c'
        echo complaint >&2
        cat "$1" old
        [ ! -e "read me" ]
        echo new >"$2"
        mkdir -p deep/er
        echo deep >deep/er/file
        chmod 750 deep/er/file
        echo after >>changed
        echo x >/etc-like
        cat - | wc -c >count
        [ -c /dev/kvm ]
        exit 7
    "#;
    let mut command = shell(&folder, &["--file", "old", "--file", "changed"], script);
    command.args(["name", &given, &made, "-"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        use std::io::Write;
        input.write_all(&[b'x'; 100_000]).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{complaints}");
    assert_eq!(complaints, "complaint\n");
    let here = fs::canonicalize(folder.path("")).unwrap();
    let printed = format!("{}\n0\n", here.display()).into_bytes();
    let rest = b"a\0b\xFFcgiven\nas it was\n";
    assert_eq!(output.stdout, [printed.as_slice(), rest].concat());

    let text = |name: &str| fs::read_to_string(folder.path(name)).unwrap();
    assert_eq!(fs::read_to_string(&made).unwrap(), "new\n");
    assert_eq!(
        (text("deep/er/file"), text("changed")),
        ("deep\n".into(), "before\nafter\n".into())
    );
    assert_eq!(text("count").trim(), "100000");
    assert_eq!(
        (text("old"), fs::read_to_string(given).unwrap()),
        ("as it was\n".into(), "given\n".into())
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(folder.path("deep/er/file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
    let mut names: Vec<_> =
        fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["changed", "count", "deep", "old", "read me"]);
    assert!(!Path::new("/etc-like").exists());
}

/// The firmware, at CPL 3 and, as an image in a file, at CPL 0.
fn a_machine() {
    let folder = Folder::new();
    let scenario =
        folder.file("machine.toml", cxl_model::scenario::builtin("one-device").unwrap().text);
    let image = folder.name("image.elf");
    assert_eq!(program::ran(&mut program::command(&["image", &image])).2, 0);
    let run = |arguments: &[&str], code: i32| {
        let mut command = program::command(&["nested", "--"]);
        command.current_dir(folder.path("")).args(arguments);
        let (output, complaints, found) = program::ran(&mut command);
        assert_eq!(found, code, "{arguments:?}: {complaints}\n{output}");
        output
    };
    let at_0 =
        ["boot", &scenario, "--image", "image.elf", "--then", "attack", "--require", "sealed"];
    let json = [&at_0[..], &["--json", "--svg=map.svg"]].concat();
    let report: Value = serde_json::from_str(&run(&json, 0)).unwrap();
    assert_eq!((&report["result"], &report["ran"]), (&"ok".into(), &"guest".into()));
    let console = report["measured"]["guest"]["console"].to_string();
    assert!(console.contains("cxl firmware at ring 0"), "{console}");
    assert_eq!(report["attack"]["changed"], 0);
    assert!(report["attack"]["tried"].as_u64().unwrap() > 10_000);
    assert!(fs::read_to_string(folder.path("map.svg")).unwrap().starts_with("<svg"));
    // An instruction in the window fails, works once memory is mapped, and fails again.
    let text = run(&["boot", "unlocked", "--payload", "sse"], 0);
    assert!(text.contains("scenario unlocked: ok"), "{text}");
    assert_eq!(run(&["boot", "ambiguous", "--quiet"], 1), "");
}

/// The kernels whose release the machine inside says, and whether it has a KVM: the one that is named; and
/// by itself one before 6.15 where this machine has one, whatever is to boot inside.
fn two_kernels() {
    let folder = Folder::new();
    let inside = Installed::find().unwrap();
    let runs = |named: Option<&Path>| {
        let mut command = shell(&folder, &[], "uname -r; [ -c /dev/kvm ]");
        command.env_remove("NESTED_KERNEL").env("LINUX_KERNEL", &inside.kernel);
        command.envs(named.map(|kernel| ("NESTED_KERNEL", kernel)));
        let (output, complaints, code) = program::ran(&mut command);
        assert_eq!(code, 0, "{complaints}");
        output.trim().to_owned()
    };
    assert_eq!(runs(Some(&inside.kernel)), inside.version);
    // Typed by hand: the versions of /boot, by their numbers.
    let numbers = |version: &str| {
        let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    let installed = fs::read_dir("/boot").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let version = name.strip_prefix("vmlinuz-")?.to_owned();
        Path::new("/lib/modules").join(&version).join("modules.dep").is_file().then_some(version)
    });
    let older = installed.chain([inside.version.clone()]).any(|it| numbers(&it) < (6, 15));
    let found = runs(None);
    if older {
        assert!(numbers(&found) < (6, 15), "{found}");
    } else {
        assert_eq!(found, inside.version);
    }
}

/// An initrd: busybox, the driver cxl_acpi with what it needs, and a script that says what Linux has
/// and ends the machine.
fn initrd(folder: &Folder, end: &str) -> String {
    let kernel = Installed::find().unwrap();
    let list = fs::read_to_string(kernel.modules.join("modules.dep")).unwrap();
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    let driver = |path: &str| path.rsplit('/').next().unwrap().starts_with("cxl_acpi.ko");
    let (path, needs) = { lines }.find(|(path, _)| driver(path)).unwrap();
    let modules: Vec<_> = needs.split_whitespace().rev().chain([path]).collect();
    let names = modules.iter().map(|path| format!("/{} ", path.rsplit('/').next().unwrap()));
    let script = format!(
        r#"#!/busybox sh
        B=/busybox
        $B mkdir /proc /sys /dev
        $B mount -t proc proc /proc
        $B mount -t sysfs sysfs /sys
        $B mount -t devtmpfs devtmpfs /dev
        for module in {}; do $B insmod $module; done
        for turn in 1 2 3 4 5 6 7 8 9; do
            [ -e /sys/bus/cxl/devices/decoder1.3 ] && break
            $B sleep 1
        done
        for one in /sys/bus/pci/devices/*; do echo "pci ${{one##*/}} $($B cat $one/class)"; done
        for one in /sys/bus/acpi/devices/ACPI001*; do echo "acpi ${{one##*/}}"; done
        for one in /sys/bus/cxl/devices/decoder*; do
            cd $one
            echo "cxl ${{one##*/}} $($B cat start size locked target_list | $B tr '
' ' ')"
        done
        $B grep -E 'CXL|ECAM|MMCONFIG' /proc/iomem
        $B dmesg -r | $B grep '^<[0-4]>' | $B sed 's/^/warned /'
        echo "serial $($B awk '/ttyS0/ {{ print ($2 > 10) }}' /proc/interrupts)"
        {end}
        "#,
        names.collect::<String>(),
    );
    let read = |path: PathBuf| fs::read(path).unwrap();
    let mut files = vec![
        ("busybox".to_owned(), read(kernel.busybox.clone())),
        ("init".to_owned(), script.into_bytes()),
    ];
    for path in modules {
        let name = path.rsplit('/').next().unwrap().to_owned();
        files.push((name, read(kernel.modules.join(path))));
    }
    let entries = (1..).zip(&files).map(|(inode, (name, bytes))| {
        let head = cpio::NewcBuilder::new(name).ino(inode).mode(0o100_755).nlink(1);
        (head, std::io::Cursor::new(bytes.as_slice()))
    });
    folder.file("initrd", cpio::write_cpio(entries, Vec::new()).unwrap())
}

/// The report of a Linux on the scenario one-device, and what it printed.
fn booted(end: &str, more: &[&str], code: i32) -> (Value, Vec<String>) {
    let folder = Folder::new();
    let (kernel, initrd) = (Installed::find().unwrap().kernel, initrd(&folder, end));
    let mut command = program::command(&["nested", "--", "boot", "one-device", "--json"]);
    command.current_dir(folder.path("")).arg("--linux").arg(kernel);
    command.args(["--initrd", &initrd, "--append", "quiet", "--timeout", "200"]).args(more);
    let (output, complaints, found) = program::ran(&mut command);
    assert_eq!(found, code, "{complaints}\n{output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    let console = report["measured"]["guest"]["console"].as_array().unwrap();
    let lines = console.iter().map(|line| line.as_str().unwrap().trim_end().to_owned());
    (report.clone(), lines.collect())
}

/// What a kernel warns of that has nothing to do with the machine, and why.
const WARNINGS: [(&str, &str); 6] = [
    ("Invalid ELF header magic", "busybox tries a compressed module as it is first"),
    ("Speculative Return Stack Overflow", "the processor that QEMU emulates has no new microcode"),
    ("rtc_cmos", "there is no clock but KVM's"),
    ("clocksource", "emulation on a busy host"),
    ("TSC", "emulation on a busy host"),
    ("no symbol version", "modules of a kernel that is not signed"),
];

/// Whether Linux shows a port's decoders by themselves, as 6.12 does; 7.3 waits for the first memory
/// device below the port, whose driver is not loaded here.
fn shows_ports() -> bool {
    let version = Installed::find().unwrap().version;
    version.split('.').next().unwrap().parse::<u32>().unwrap() < 7
}

/// The host has locked the decoders before Linux starts, and Linux has just that.
fn linux() {
    let (report, lines) = booted("$B poweroff -f", &["--lock-by", "vmm"], 0);
    assert_eq!(report["measured"]["guest"]["end"], "it switched the machine off");
    assert_eq!((&report["result"], &report["foreign"]), (&"ok".into(), &true.into()));
    assert_eq!(report["locks"]["sealed"], true);
    let with =
        |start: &str| lines.iter().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert_eq!(with("pci "), ["pci 0000:10:00.0 0x060400", "pci 0000:11:00.0 0x050210"]);
    assert_eq!(with("acpi "), ["acpi ACPI0016:00", "acpi ACPI0017:00"]);
    let decoders = [
        // The table that the library made of what is locked says that the window is fixed.
        "cxl decoder0.0 0x100000000 0x40000000 1 16",
        "cxl decoder1.0 0x100000000 0x20000000 1 0",
        "cxl decoder1.1 0x0 0x0 0 0",
        "cxl decoder1.2 0x0 0x0 0 0",
        "cxl decoder1.3 0x0 0x0 0 0",
    ];
    assert_eq!(with("cxl "), decoders[..if shows_ports() { 5 } else { 1 }]);
    assert_eq!(with("100000000-13fffffff : CXL Window 0").len(), 1, "{lines:#?}");
    assert_eq!(with("serial "), ["serial 1"], "its interrupt came");
    for line in with("warned ") {
        assert!(WARNINGS.iter().any(|(words, _)| line.contains(words)), "{line}");
    }
}

/// `linux SCENARIO --on ours` inside: its JSON.
fn judged(scenario: &str, more: &[&str], code: i32) -> Value {
    let mut command = program::command(&["nested", "--", "linux", scenario, "--on", "ours"]);
    // Where each access traps, a page that is cleared takes a busy host half a second.
    command.args(["--json", "--timeout", "540"]).args(more);
    let (output, complaints, found) = program::ran(&mut command);
    assert_eq!(found, code, "{complaints}\n{output}");
    serde_json::from_str(&output).unwrap()
}

/// Its drivers take our memory devices, make the region of the decoders that the library locked, and
/// bring its memory online, in a node of its own; a program that is copied there runs there.
fn on_ours() {
    let verdict = judged("two-way", &[], 0);
    assert_eq!((&verdict["result"], &verdict["qemu"]), (&"ok".into(), &Value::Null));
    assert_eq!(verdict["gaps"], Value::Array(Vec::new()));
    assert_eq!((&verdict["as_planned"], &verdict["online"]), (&1.into(), &"0x40000000".into()));
    let linux = &verdict["regions"][0]["linux"];
    assert_eq!((&linux["locked"], &linux["ways"]), (&true.into(), &2.into()));
    assert_eq!(linux["nodes"], serde_json::json!([1]));
}

/// The same on a machine whose memory is there access by access: where KVM has to emulate what a
/// program does with it, it cannot.
fn not_mirrored() {
    let folder = Folder::new();
    // As little as a decoder can lead to: Linux touches all of it, a trap each time.
    let machine = r#"
        bridge = [{ name = "hb0", uid = 16 }]
        port = [{ name = "rp0", below = "hb0" }]
        device = [{ name = "mem0", below = "rp0", volatile = "256MiB" }]
        window = [{ targets = ["hb0"], size = "256MiB" }]
    "#;
    let machine = folder.file("small.toml", machine);
    let movable = ["--append", "memhp_default_state=online_movable"];
    let verdict = judged(&machine, &[&["--mirror", "off"][..], &movable].concat(), 1);
    let why = verdict["refusal"].as_str().unwrap();
    // Of an instruction that it had to emulate and could not; or in the middle of an interrupt, whose
    // handler it is that gets there first.
    let words = ["suberror 1: an instruction that KVM had", "suberror 3: an access that traps"];
    assert!(
        words.iter().any(|words| why.contains(&format!("KVM internal error, {words}"))),
        "{why}"
    );
    assert!(why.contains(", rip 0x"), "{why}");
    // The kernel's own name for the place; or it was a program that was there.
    let place = why.split("; that is ").nth(1).unwrap_or_default();
    let place = place.split(';').next().unwrap();
    assert!(place == "in a program" || place.contains("+0x"), "{why}");
    let verdict = judged(&machine, &movable, 0);
    assert_eq!((&verdict["result"], &verdict["as_planned"]), (&"ok".into(), &1.into()));
}

/// Nothing is programmed; Linux makes regions of both devices, smaller and larger, and takes them back.
fn own_regions() {
    const CYCLES: usize = 20;
    let script = r#"
        while read -r module; do $B insmod "$module"; done </lib/modules
        cd /sys/bus/cxl/devices
        turns=0
        while [ ! -e endpoint3/decoder3.0 ] || [ ! -e endpoint4/decoder4.0 ]; do
            turns=$((turns + 1))
            [ $turns -lt 50 ] || { echo "no endpoints: $(echo *)"; $B poweroff -f; }
            $B usleep 200000
        done
        # By the PCI addresses of their devices: Linux numbers them as they come.
        endpoints=$(for one in endpoint*; do echo "$($B readlink -f $one/uport) $one"; done |
            $B sort | $B sed 's/.* //')
        decoders=$(for one in $endpoints; do echo $one/decoder${one#endpoint}.0; done)
        echo offline >/sys/devices/system/memory/auto_online_blocks
        try() { "$@" || { echo "failed: $*"; $B dmesg | $B tail -5; $B poweroff -f; }; }
        set_to() { echo "$2" >"$1"; }
        for turn in $($B seq CYCLES); do
            for half in 0x10000000 0x20000000; do
                read -r region <decoder0.0/create_ram_region
                try set_to decoder0.0/create_ram_region $region
                try set_to $region/interleave_granularity 256
                try set_to $region/interleave_ways 2
                try set_to $region/size $((half * 2))
                position=0
                for decoder in $decoders; do
                    try set_to $decoder/mode ram
                    try set_to $decoder/dpa_size $((half))
                    try set_to $region/target$position ${decoder#*/}
                    position=$((position + 1))
                done
                try set_to $region/commit 1
                try set_to /sys/bus/cxl/drivers/cxl_region/bind $region
                echo "made $($B cat $region/resource $region/size | $B tr '\n' ' ')"
                [ $turn$half = CYCLES0x20000000 ] && break
                try set_to /sys/bus/cxl/drivers/cxl_region/unbind $region
                try set_to $region/commit 0
                for position in 0 1; do try set_to $region/target$position ''; done
                for decoder in $decoders; do try set_to $decoder/dpa_size 0; done
                try set_to decoder0.0/delete_region $region
            done
        done
        $B poweroff -f
    "#
    .replace("CYCLES", &CYCLES.to_string());
    let folder = Folder::new();
    let installed = Installed::find().unwrap();
    let initrd = folder.file("initrd", installed.initramfs(&script, &Task::default()).unwrap());
    let mut command = program::command(&["nested", "--", "boot", "two-way", "--json", "--linux"]);
    command.arg(&installed.kernel).args(["--initrd", &initrd, "--timeout", "250"]);
    command.args(["--hide-hypervisor", "--append", "loglevel=4"]);
    let (output, complaints, code) = program::ran(&mut command);
    assert_eq!(code, 0, "{complaints}\n{output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    let lines = report["measured"]["guest"]["console"].as_array().unwrap();
    let lines = lines.iter().map(|line| line.as_str().unwrap().trim_end());
    let made: Vec<_> = lines.clone().filter(|line| line.starts_with("made ")).collect();
    let both = ["made 0x100000000 0x20000000", "made 0x100000000 0x40000000"];
    assert_eq!(made, both.repeat(CYCLES), "{:#?}", lines.collect::<Vec<_>>());
    // The last one is there, at RAM speed; each other came, and went.
    let guest = &report["measured"]["guest"];
    assert_eq!(guest["slots"].as_array().unwrap().len(), 1, "{guest:#}");
    assert_eq!(guest["slot_calls"].as_array().unwrap().len(), 4 * CYCLES - 1, "{guest:#}");
}

/// Far more than the serial port's own buffer takes at once, all of it before Linux listens.
fn typed() {
    let script = r#"
        $B stty -echo
        while read -r line; do
            [ -z "$line" ] && continue
            [ "$line" = "that is all" ] && break
            echo "heard $line" >>/heard
        done
        echo
        $B cat /heard
        $B poweroff -f
    "#;
    let words: Vec<_> = (0..40).map(|index| format!("{index} {}", "word ".repeat(9))).collect();
    let folder = Folder::new();
    let installed = Installed::find().unwrap();
    let initrd = folder.file("initrd", installed.initramfs(script, &Task::default()).unwrap());
    let mut command =
        program::command(&["nested", "--", "boot", "one-device", "--json", "--linux"]);
    command.arg(&installed.kernel).args(["--initrd", &initrd, "--timeout", "250", "--input", "-"]);
    command.args(["--append", "loglevel=4"]);
    // What the port holds when Linux opens it Linux throws away, on any machine: 16 bytes at most.
    let typed = format!("{}{}\nthat is all\n", "\n".repeat(32), words.join("\n"));
    let (output, complaints, code) = program::fed(&mut command, typed.as_bytes());
    assert_eq!(code, 0, "{complaints}\n{output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    let lines = report["measured"]["guest"]["console"].as_array().unwrap();
    let lines = lines.iter().map(|line| line.as_str().unwrap().trim_end());
    let heard: Vec<_> = lines.filter_map(|line| line.strip_prefix("heard ")).collect();
    let words: Vec<_> = words.iter().map(|line| line.trim_end()).collect();
    assert_eq!(heard, words);
}

/// An init that ends is a panic, and a panic resets the machine.
fn panicked() {
    let (report, lines) = booted("exit 1", &[], 1);
    assert_eq!(report["measured"]["guest"]["end"], "it reset the machine (after a panic, for one)");
    assert_eq!(report["result"], "failed");
    // Nothing has programmed a decoder.
    let decoders = ["cxl decoder0.0 0x100000000 0x40000000 0 16", "cxl decoder1.0 0x0 0x0 0 0"];
    for decoder in &decoders[..if shows_ports() { 2 } else { 1 }] {
        assert!(lines.iter().any(|line| line == decoder), "{lines:#?}");
    }
}

fn no_code() {
    let folder = Folder::new();
    for (script, words) in [
        // The machine ends under the command's feet.
        ("echo begun >file; poweroff -f", "QEMU ended with exit code 0 before the command's"),
        ("echo begun; echo c >/proc/sysrq-trigger; sleep 60", "Kernel panic"),
    ] {
        let (_, complaints, code) = program::ran(&mut shell(&folder, &[], script));
        assert_eq!(code, 125, "{complaints}");
        assert!(complaints.contains(words), "{complaints}");
    }
    assert!(!folder.path("file").exists());
    // A signal that ends the command is its code.
    assert_eq!(program::ran(&mut shell(&folder, &[], "kill -9 $$")).2, 137);
}

/// A command inside that goes on, once it has begun, and its QEMU.
fn begun(folder: &Folder, options: &[&str]) -> (Child, PathBuf) {
    let mut command = shell(folder, options, "echo begun; echo half >half; sleep 1000");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    let parent = format!("PPid:\t{}\n", child.id());
    let mut processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_child =
        |path: &PathBuf| fs::read_to_string(path.join("status")).is_ok_and(|s| s.contains(&parent));
    let qemu = processes.find(is_child).unwrap();
    (child, qemu)
}

fn ends() {
    let folder = Folder::new();
    let left = || fs::read_dir(folder.path("")).unwrap().count();
    let (child, qemu) = begun(&folder, &["--timeout", "30"]);
    let start = Instant::now();
    for (signal, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
        let (child, qemu) = begun(&folder, &[]);
        let kill = format!("kill {signal} {}", child.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{complaints}");
        assert!(complaints.contains("interrupted"), "{complaints}");
        assert!(!qemu.exists());
    }
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{complaints}");
    assert!(complaints.contains("not ended after 30 s; give it more: --timeout"), "{complaints}");
    assert!(!qemu.exists());
    assert!(start.elapsed() < Duration::from_secs(120));
    assert_eq!(left(), 0, "nothing of it is left");
}

fn killed() {
    let folder = Folder::new();
    let (mut child, qemu) = begun(&folder, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while qemu.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "QEMU goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A script that has QEMU take its place goes in with all that it runs; one that does not is told to.
fn script() {
    let folder = Folder::new();
    let qemu = "qemu-system-x86_64 -L /usr/share/seabios \"$@\"";
    for (text, want, words) in [
        // What runs inside is busybox, which knows no such command.
        (format!("#!/bin/sh\nexec {qemu}\n"), 127, "applet not found"),
        (format!("#!/bin/sh\n{qemu}\n"), 125, "start that with `exec`"),
        (format!("#!/usr/bin/env sh\nexec {qemu}\n"), 125, "such as #!/bin/sh"),
    ] {
        let path = folder.file("qemu", text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = program::command(&["nested", "--harness"]);
        command.arg(busybox()).args(["--", "bench", "--linux"]).env("QEMU", &path);
        let (_, complaints, code) = program::ran(&mut command);
        assert_eq!(code, want, "{complaints}");
        assert!(complaints.contains(words), "{complaints}");
    }
}

fn missing() {
    let folder = Folder::new();
    let kernel = folder.name("kernel");
    let mut command = program::command(&["nested", "--kernel", &kernel, "--", "boot"]);
    let (output, complaints, code) = program::ran(command.env("QEMU", "/nonexistent/qemu"));
    assert_eq!((output.as_str(), code), ("", 125), "{complaints}");
    for words in [
        "/nonexistent/qemu: no such program",
        "kernel: no such file",
        "expected a name such as vmlinuz-6.12.1",
    ] {
        assert!(complaints.contains(words), "{complaints}");
    }
    // A script is no program, and a command has to be one.
    let script = folder.file("script", "#!/bin/sh\n");
    for arguments in
        [&["nested"][..], &["nested", "boot"], &["nested", "--memory", "1", "--", "boot"]]
    {
        assert_eq!(program::ran(&mut program::command(arguments)).2, 2, "{arguments:?}");
    }
    if Kernel::find(None, None).is_ok() {
        let arguments = ["nested", "--harness", &script, "--", "boot"];
        let (_, complaints, code) = program::ran(&mut program::command(&arguments));
        assert_eq!(code, 125);
        assert!(complaints.contains("expected a program for x86-64 Linux"), "{complaints}");
    }
    // A kernel that a variable names and that is not there is no other one.
    for variable in ["NESTED_KERNEL", "LINUX_KERNEL"] {
        let mut command = program::command(&["nested", "--", "boot", "default"]);
        command.env_remove("NESTED_KERNEL").env(variable, folder.name("vmlinuz-6.12"));
        let (output, complaints, code) = program::ran(&mut command);
        assert_eq!((output.as_str(), code), ("", 125), "{complaints}");
        assert!(complaints.contains(&format!("{variable}=/")), "{complaints}");
    }
}
