//! Somebody else's machine and somebody else's system: our image boots on QEMU's CXL devices,
//! programs and locks them, and hands over to an unmodified Linux; what that shows in sysfs is held
//! against the library's plan, and its memory against the bytes behind QEMU's devices.
//!
//! **Invariant**: without QEMU, a kernel or busybox every test here is shown as ignored, with the
//! remedy; none is silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[path = "linux/handover.rs"]
mod handover;
#[path = "linux/judge.rs"]
mod judge;
#[path = "linux/lint.rs"]
mod lint;
#[path = "linux/outside.rs"]
mod outside;
mod program;
#[path = "linux/refusals.rs"]
mod refusals;
#[path = "linux/regions.rs"]
mod regions;
mod schema;
#[path = "linux/tool.rs"]
mod tool;
mod trial;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cxl_harness::linux::boot::{self, Boot, By, Options};
use cxl_harness::linux::{Installed, Task};
use cxl_harness::qemu::line::Given;
use cxl_harness::qemu::process;
use cxl_model::scenario::{Scenario, builtin};
use judge::Judged;
use libtest_mimic::{Failed, Trial};
use program::Folder;
use refusals::REFUSALS;
use trial::{claim, unless};

/// Software emulation on a busy host: ten seconds are usual.
const LIMIT: Duration = Duration::from_secs(300);

/// A set that Linux has to take.
struct Set {
    name: &'static str,
    text: String,
    volatile: bool,
}

fn sets() -> Vec<Set> {
    let set = |name, builtin: &str, change: fn(String) -> String, volatile| Set {
        name,
        text: change(text(builtin)),
        volatile,
    };
    vec![
        set("one_device", "one-device", |text| text, true),
        set("two_way", "two-way", |text| text, true),
        set("two_bridges", "two-way", flat, true),
        set("four_way", "four-way", |text| text, true),
        set("two_devices_one_bridge", "two-devices-one-bridge", |text| text, true),
        set("two_way_ports", "two-way-ports", |text| text, true),
        set("switch", "switch", |text| text, true),
        // A policy by region and by window, which is said in QEMU's addresses.
        Set { name: "placed", text: PLACED.to_owned(), volatile: true },
        set("persistent", "one-device", |text| text.replace("volatile", "persistent"), false),
    ]
}

/// Regions that requests place, and a window with a width of its own.
const PLACED: &str = r#"
bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
port = [
    { name = "rp0", below = "hb0" }, { name = "rp1", below = "hb1", number = 3 },
    { name = "rp2", below = "hb0", number = 1 }, { name = "rp3", below = "hb1", number = 4 },
]
device = [
    { name = "mem0", below = "rp0", volatile = "512MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB" },
    { name = "mem2", below = "rp2", volatile = "256MiB" },
    { name = "mem3", below = "rp3", volatile = "256MiB" },
]
window = [
    { targets = ["hb0"], size = "1GiB" },
    { targets = ["hb1"], size = "1GiB" },
    { targets = ["hb0", "hb1"], granularity = "4KiB", size = "512MiB", interleave = "widest" },
]
region = [
    { device = "mem0", window = "window0", offset = "256MiB" },
    { device = "mem1", window = "window1" },
]
"#;

/// Two regions, of which Linux takes one: the other is behind a pass-through bridge.
const HALF: &str = r#"
bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32, decoders = 0 }]
port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb1" }]
device = [
    { name = "mem0", below = "rp0", volatile = "512MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB" },
]
window = [{ targets = ["hb0"], size = "1GiB" }, { targets = ["hb1"], size = "512MiB" }]
"#;

/// The command on a machine of which Linux takes a half.
fn half() {
    let folder = Folder::new();
    let file = folder.file("half.toml", HALF);
    let (text, _, code) = program::ran(&mut program::command(&["linux", &file, "--json"]));
    assert_eq!(code, 1, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["result"], "failed", "{text}");
    schema::holds("linux", &text);
    assert_eq!((&json["planned"], &json["as_planned"]), (&2.into(), &1.into()), "{text}");
    let gaps = json["gaps"].as_array().unwrap();
    let region = &json["regions"][1]["hpa"];
    assert!(gaps.iter().all(|gap| gap["region"] == *region), "{text}");
    let log = gaps[0]["log"].as_str().unwrap();
    // Linux counts its memory devices in the order in which it comes to them.
    let address = region.as_str().unwrap();
    assert!(log.contains(&format!("failed to find decoder mapping {address}-")), "{text}");
}

/// A machine that no scenario here is: a set of two bridges, and beside it a device of a third one.
const OWN_WORDS: &str = "\
-M q35,cxl=on,cxl-fmw.0.targets.0=a,cxl-fmw.0.targets.1=b,cxl-fmw.0.size=2G,\
cxl-fmw.0.interleave-granularity=512,cxl-fmw.1.targets.0=c,cxl-fmw.1.size=1G \
-m 1G,maxmem=8G,slots=1 -smp 2 \
-device pxb-cxl,id=a,bus=pcie.0,bus_nr=12,hdm_for_passthrough=true \
-device pxb-cxl,id=b,bus=pcie.0,bus_nr=50,hdm_for_passthrough=true \
-device pxb-cxl,id=c,bus=pcie.0,bus_nr=80,hdm_for_passthrough=true \
-device cxl-rp,id=pa,bus=a,port=0,chassis=0,slot=1 \
-device cxl-rp,id=pb,bus=b,port=0,chassis=0,slot=2 \
-device cxl-rp,id=pc,bus=c,port=0,chassis=0,slot=3 \
-object memory-backend-ram,id=ma,size=256M,share=on \
-object memory-backend-ram,id=mb,size=256M,share=on \
-object memory-backend-ram,id=mc,size=512M,share=on \
-device cxl-type3,bus=pa,volatile-memdev=ma,id=ta \
-device cxl-type3,bus=pb,volatile-memdev=mb,id=tb \
-device cxl-type3,bus=pc,volatile-memdev=mc,id=tc";

/// An initrd of somebody's, as distributions make them: /bin is a link, /lib/modules a folder, and its
/// /init would hang. What it has for the harness' script to come upon says that it was unpacked.
fn somebody_s_initrd() -> Vec<u8> {
    let said = "echo '<2>hello from the initrd' >/dev/kmsg\n";
    let entries = [
        ("bin", 0o120_777, "lib"),
        ("lib", 0o040_755, ""),
        ("lib/modules", 0o040_755, ""),
        ("lib/modules/modules", 0o100_644, "none\n"),
        ("init", 0o100_755, "#!/bin/sh\nsleep 10000\n"),
        ("before", 0o100_644, said),
    ];
    let inputs = (1..).zip(entries).map(|(inode, (name, mode, text))| {
        let head = cpio::newc::Builder::new(name).ino(inode).mode(mode).nlink(1);
        (head, std::io::Cursor::new(text.as_bytes()))
    });
    cpio::write_cpio(inputs, Vec::new()).unwrap()
}

/// A command line, a kernel by a name that says nothing, its modules and an initrd, all of somebody's.
fn own_words() {
    let installed = Installed::find().unwrap();
    let folder = Folder::new();
    let kernel = folder.name("bzImage");
    std::os::unix::fs::symlink(&installed.kernel, &kernel).unwrap();
    let initrd = folder.file("initrd", somebody_s_initrd());
    let modules = installed.modules.to_str().unwrap();
    let ours =
        ["linux", "--console", "--kernel", &kernel, "--modules", modules, "--initrd", &initrd];
    let mut words = [&ours[..], &["--append", "cxl.word=1", "--"]].concat();
    words.extend(OWN_WORDS.split(' '));
    let (text, complaints, code) = program::ran(&mut program::command(&words));
    assert_eq!(code, 0, "{complaints}{text}");
    let first = format!("Linux {} on QEMU ", installed.version);
    for part in [
        first.as_str(),
        ": 2 of 2 regions as planned, 1 GiB online\n",
        "  512 MiB, 2-way at 512 B, of mem",
        "  512 MiB, of mem",
        " is the device at bridge 80 port 0, 512 MiB volatile\n",
        "hello from the initrd",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A kernel that never comes to its end is no success, and JSON says so too.
fn too_long() {
    let mut program = program::command(&["linux", "one-device", "--json", "--timeout", "3"]);
    let (text, _, code) = program::ran(&mut program);
    assert_eq!(code, 1, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["result"], "refused", "{text}");
    let why = json["refusal"].as_str().unwrap();
    assert!(why.contains("did not come to its end"), "{why}");
}

fn text(name: &str) -> String {
    builtin(name).unwrap_or_else(|| panic!("no {name}")).text.to_owned()
}

/// The same machine without interleave: a window for each bridge.
fn flat(text: String) -> String {
    let (machine, _) = text.split_once("[policy]").expect("a policy");
    let window = |bridge| format!("[[window]]\ntargets = [\"{bridge}\"]\nsize = \"1GiB\"\n");
    format!("{machine}{}{}", window("hb0"), window("hb1"))
}

/// A boot that several tests look at: made by the first.
#[derive(Clone)]
struct Shared {
    name: &'static str,
    text: String,
    result: Arc<OnceLock<Result<Judged, String>>>,
}

impl Shared {
    fn get(&self) -> Result<&Judged, Failed> {
        let first = || {
            let tool = if LISTED.contains(&self.name) { tool::tool().ok() } else { None };
            let task = match &tool {
                Some(files) => Task { script: LIST, files },
                None => Task::default(),
            };
            Ok(Judged::new(boot_to(self.name, &self.text, "", task)?))
        };
        let result = self.result.get_or_init(first);
        result.as_ref().map_err(|error| error.clone().into())
    }
}

/// Sets of which Linux's own tool tells, where there is one.
const LISTED: [&str; 3] = ["two_way", "switch", "persistent"];

/// How it is asked.
const LIST: &str = "/task/loader --library-path /task /task/cxl list -vv >/list 2>&1\ntext /list\n";

/// `linux --json` has, key by key, what the tool prints of the same Linux.
fn listed(judged: &Judged) {
    let said = judged.boot.facts.text("/list").expect("the tool was run");
    let theirs: serde_json::Value =
        serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let ours = serde_json::Value::from(judged.boot.verdict().list);
    let [theirs, ours] = [theirs, ours].map(|value| {
        let mut leaves = std::collections::BTreeMap::new();
        leaves_of(&value, String::new(), &mut leaves);
        leaves
    });
    assert!(theirs.len() > 80, "{said}");
    let names: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let differ = names.into_iter().filter(|name| theirs.get(*name) != ours.get(*name));
    let differ: Vec<_> = differ
        .map(|name| format!("{name}: cxl {:?}, ours {:?}", theirs.get(name), ours.get(name)))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// Every value by the way to it; members of a list go by what they are called, as their order is nobody's.
fn leaves_of(
    value: &serde_json::Value,
    at: String,
    leaves: &mut std::collections::BTreeMap<String, serde_json::Value>,
) {
    const NAMES: [&str; 8] =
        ["position", "bus", "port", "endpoint", "region", "dport", "target", "memdev"];
    match value {
        serde_json::Value::Array(list) => {
            for member in list {
                // A decoder names its region, too.
                let named = member.get("decoder").filter(|_| member.get("position").is_none());
                let named = named.or_else(|| NAMES.iter().find_map(|name| member.get(name)));
                let named = named.map(ToString::to_string).unwrap_or_default();
                leaves_of(member, format!("{at}/{named}"), leaves);
            }
        }
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                leaves_of(value, format!("{at}/{key}"), leaves);
            }
        }
        leaf => drop(leaves.insert(at, leaf.clone())),
    }
}

/// Boots a scenario. That takes its time: a word on a terminal.
fn boot(name: &str, text: &str, before: &str) -> Result<Boot, String> {
    boot_to(name, text, before, Task::default())
}

/// The same, with something for Linux to do.
fn boot_to(name: &str, text: &str, before: &str, task: Task<'_>) -> Result<Boot, String> {
    let progress = |word: &str| {
        if std::io::stderr().is_terminal() {
            eprintln!("{name}: {word}");
        }
    };
    let scenario = Scenario::parse(text, name).map_err(|error| error.to_string())?;
    let installed = Installed::find().map_err(|error| error.to_string())?;
    progress(&format!("booting Linux {}", installed.version));
    let interrupted = &AtomicBool::new(false);
    let by = By::Image;
    let (given, append) = (&Given::default(), "");
    let options = Options { before, task, timeout: LIMIT, interrupted, by, given, append };
    let boot = boot::boot(&installed, &scenario, &options);
    progress("Linux has ended");
    boot.map_err(|error| error.to_string())
}

/// What is missing here, with the remedy.
fn missing() -> Option<String> {
    let qemu = process::available().err().map(|error| error.to_string());
    qemu.or_else(|| Installed::find().err().map(|error| error.to_string()))
}

/// Who can be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Everyone,
    Volatile,
    Persistent,
}

/// What has to hold of a set: a claim, of whom, the test, and what it needs beside Linux.
type Claim = (&'static str, Of, fn(&Judged), fn() -> Option<String>);

fn claims() -> Vec<Claim> {
    let here = || None;
    vec![
        ("decoders_are_as_planned_and_locked", Of::Everyone, Judged::decoders, here),
        (
            "plan_has_no_gap",
            Of::Everyone,
            |judged| {
                let verdict = judged.boot.verdict();
                assert_eq!(verdict.gaps, [], "{verdict}");
                assert_eq!(verdict.planned, judged.done.room.plan.regions.len());
            },
            here,
        ),
        ("windows_are_fixed", Of::Everyone, Judged::windows, here),
        ("answers_are_those_of_our_models", Of::Everyone, Judged::state, here),
        ("regions_assemble_without_a_command", Of::Everyone, Judged::assembled, here),
        ("memory_is_online", Of::Volatile, Judged::online, here),
        (
            "memory_holds_a_running_program_at_its_dpa",
            Of::Volatile,
            |judged| {
                let busybox = Installed::find().unwrap().busybox;
                judged.bytes(&std::fs::read(busybox).unwrap());
            },
            here,
        ),
        ("memory_has_an_nd_region", Of::Persistent, Judged::nd_region, here),
        (
            "machine_has_nothing_that_the_linter_refuses",
            Of::Everyone,
            |judged| assert_eq!(lint::predicted(&judged.boot, &[]).1, [""; 0]),
            here,
        ),
        (
            "cedt_reads_as_planned_in_iasl",
            Of::Everyone,
            outside::iasl_reads_the_plan,
            outside::iasl_missing,
        ),
        (
            "functions_read_as_planned_in_lspci",
            Of::Everyone,
            outside::lspci_reads_the_plan,
            outside::lspci_missing,
        ),
    ]
}

fn main() -> ExitCode {
    let missing = missing();
    if let Some(reason) = &missing {
        eprintln!("tests with Linux on QEMU are ignored: {reason}");
    }
    let shared: Vec<_> = sets()
        .into_iter()
        .map(|set| {
            (set.volatile, Shared { name: set.name, text: set.text, result: Arc::default() })
        })
        .collect();
    let mut trials = Vec::new();
    let mut add =
        |trial, lack: Option<String>| trials.push(unless(missing.clone().or(lack), trial));
    // All sets by one claim before the next claim: boots run side by side.
    for (claim, of, test, lack) in claims() {
        for (volatile, shared) in &shared {
            if of != Of::Everyone && (of == Of::Volatile) != *volatile {
                continue;
            }
            let boot = shared.clone();
            let name = format!("{}_{claim}", shared.name);
            add(
                Trial::test(name, move || {
                    test(boot.get()?);
                    Ok(())
                }),
                lack(),
            );
        }
    }
    for (_, shared) in shared.iter().filter(|(_, shared)| LISTED.contains(&shared.name)) {
        let (boot, name) = (shared.clone(), format!("{}_is_listed_as_cxl_lists_it", shared.name));
        let test = move || {
            listed(boot.get()?);
            Ok(())
        };
        add(Trial::test(name, test), tool::tool().err());
    }
    for (name, test) in [
        ("image_enters_a_module_and_refuses_what_is_no_kernel", handover::cases as fn()),
        ("half_of_a_plan_is_a_failure_of_the_command", half),
        ("a_linux_that_takes_too_long_is_a_failure_of_the_command", too_long),
        ("a_command_line_a_kernel_and_an_initrd_of_somebody_s_are_taken", own_words),
    ] {
        add(claim(name, test), None);
    }
    for shape in regions::shapes() {
        let lack = tool::tool().err();
        add(Trial::test(shape.name, move || shape.judge().map_err(Failed::from)), lack);
    }
    for refusal in REFUSALS {
        add(
            Trial::test(refusal.name, move || {
                let (from, to) = refusal.change.unwrap_or_default();
                let text = text(refusal.scenario);
                let text = if from.is_empty() { text } else { text.replace(from, to) };
                let boot = boot(refusal.name, &text, refusal.before)?;
                let expected = (refusal.judge)(&boot);
                let verdict = boot.verdict();
                assert_eq!(verdict.result, expected, "{verdict}");
                Ok(())
            }),
            None,
        );
    }
    trial::run(trials)
}
