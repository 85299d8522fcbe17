//! The machines, what Linux is to do on each, and what is to come of it.
//!
//! **Invariant**: what is expected beside the models' registers is typed by hand; nothing is expected
//! because Linux was seen to show it, but with the reason beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxl_harness::kvm::{Call, End};
use cxl_harness::linux::ours::{self, Options, Ours};
use cxl_harness::linux::root::Way;
use cxl_harness::linux::{Installed, Task, state};
use cxl_lint::{Input, Message, lint_for};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario, builtin};

/// Emulation of an emulated machine, on a busy host.
const LIMIT: Duration = Duration::from_secs(1200);

/// A machine, and what comes of Linux on it.
pub(crate) struct Case {
    /// The test's name.
    pub(crate) name: &'static str,
    /// A built-in, or a text with a line break.
    scenario: &'static str,
    /// What is added to it.
    more: &'static str,
    run: Run,
}

/// What Linux does there, and what is to come of it.
enum Run {
    /// It shows what the registers hold, and has what is planned; its tool says the same.
    Shows,
    /// It shows what the registers hold, but for these fields, for these reasons.
    ShowsBut(&'static [(&'static str, &'static str)]),
    /// Root attacks the locks, and they hold.
    Holds(Way),
    /// Root attacks the locks, and one gives way with these words.
    GivesWay(Way, &'static str),
    /// It does something in the end, and this judges what came of it. A Linux from which it is hidden that
    /// it is in a guest makes regions.
    Then { hidden: bool, append: &'static str, after: &'static str, judge: fn(&Ours) },
    /// Two machines, one after the other, keep their persistent memory in one folder.
    Keeps,
    /// It makes regions and takes them back.
    Cycles,
}

const fn shows(name: &'static str, scenario: &'static str) -> Case {
    Case { name, scenario, more: "", run: Run::Shows }
}

/// All of them; neighbours go to different machines, so the long ones stand apart.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "root_s_attack_through_mem_does_not_move_a_lock",
        scenario: "one-device",
        more: "",
        run: Run::Holds(Way::Memory),
    },
    Case {
        name: "root_s_attack_through_sysfs_does_not_move_a_lock",
        scenario: "one-device",
        more: "",
        run: Run::Holds(Way::Sysfs),
    },
    Case {
        name: "root_s_attack_finds_a_lock_that_opens_to_bytes",
        scenario: "one-device",
        more: "[[leak]]\nat = 'mem0'\nregister = 'base_low'\nwidth = 1\n",
        run: Run::GivesWay(Way::Memory, "opens to stores of 1 byte"),
    },
    Case {
        name: "resets_clear_what_they_clear_and_nothing_else",
        scenario: "two-devices-one-bridge",
        more: "",
        run: Run::Then { hidden: false, append: OFFLINE, after: RESETS, judge: resets },
    },
    Case {
        name: "what_a_reset_takes_from_an_unlocked_device_root_gives_back",
        scenario: "unlocked",
        more: "",
        run: Run::Then { hidden: true, append: RELAXED, after: TAKEN, judge: given_back },
    },
    Case {
        name: "devices_come_and_go_and_a_bad_one_is_refused",
        scenario: PLUG,
        more: "",
        run: Run::Then { hidden: false, append: OFFLINE, after: PLUGGED, judge: plugged },
    },
    Case {
        name: "labels_and_bytes_outlive_a_machine_that_is_killed",
        scenario: PERSISTENT,
        more: "",
        run: Run::Keeps,
    },
    Case {
        name: "regions_come_and_go_over_bridges_and_switches_and_bytes_stay",
        scenario: SWITCHES,
        more: "",
        run: Run::Cycles,
    },
    shows("linux_shows_two_way", "two-way"),
    shows("linux_shows_four_way", "four-way"),
    shows("linux_shows_switch", "switch"),
    shows("linux_shows_dpa_skip", "dpa-skip"),
    shows("linux_shows_two_partitions", "two-partitions"),
    shows("linux_shows_three_way", "three-way"),
    Case {
        name: "linux_leaves_an_accelerator_s_memory_alone",
        scenario: "default",
        more: "",
        run: Run::Then { hidden: false, append: "", after: "", judge: accelerator },
    },
    shows("linux_shows_cxl_1_1", "cxl-1-1"),
    Case { name: "linux_shows_describe", scenario: "describe", more: "", run: Run::ShowsBut(&[]) },
    Case {
        name: "linux_shows_pass_through",
        scenario: "pass-through",
        more: "",
        run: Run::ShowsBut(PASS_THROUGH),
    },
];

/// Memory that no driver of Linux's works in.
const OFFLINE: &str = "memhp_default_state=offline";

/// The same, and registers and memory are root's.
const RELAXED: &str = "memhp_default_state=offline iomem=relaxed";

/// What Linux has otherwise behind a bridge without decoders.
const PASS_THROUGH: &[(&str, &str)] = &[(
    "region at ",
    "Linux finds no decoder of the bridge for a range that firmware committed, and makes no region",
)];

impl Case {
    fn text(&self) -> String {
        let text = builtin(self.scenario).map_or(self.scenario, |builtin| builtin.text);
        format!("{text}\n{}", self.more)
    }

    /// Boots it and judges what comes; an error says what is not as it is to be.
    pub(crate) fn judge(
        &self,
        installed: &Installed,
        tool: &[(String, PathBuf)],
    ) -> Result<(), String> {
        let scenario = Scenario::parse(&self.text(), self.name).map_err(|e| e.to_string())?;
        let boot = |change: &dyn Fn(&mut Options<'static>), task: Task<'_>| {
            let mut options = Options {
                before: "",
                append: "",
                hidden: false,
                image_first: false,
                mirror: true,
                timeout: LIMIT,
                interrupted: Arc::new(AtomicBool::new(false)),
                on_console: |_| {},
                task: Task::default(),
                after: "",
                attack: None,
                media: None,
            };
            change(&mut options);
            let options = Options { task, ..options };
            let ours = ours::boot(installed, &scenario, &options).map_err(|e| e.to_string())?;
            ended(&ours)?;
            Ok::<_, String>(ours)
        };
        match self.run {
            Run::Shows => {
                let script = if tool.is_empty() { "" } else { LIST };
                let ours = boot(&|_| {}, Task { script, files: tool })?;
                if !tool.is_empty() {
                    lists(&ours)?;
                }
                let verdict = ours.verdict();
                let good = verdict.gaps.is_empty() && verdict.fields.is_some_and(|f| f > 100);
                if good { Ok(()) } else { Err(verdict.to_string()) }
            }
            Run::ShowsBut(known) => {
                let ours = boot(&|_| {}, Task::default())?;
                let differences = ours.modelled().against(&ours.shown());
                let is_known = |field: &str| known.iter().any(|(name, _)| field.starts_with(name));
                let (known_ones, others): (Vec<_>, Vec<_>) =
                    differences.iter().partition(|difference| is_known(&difference.field));
                if !others.is_empty() || known_ones.is_empty() != known.is_empty() {
                    let words = others.iter().map(ToString::to_string).collect::<Vec<_>>();
                    return Err(format!("{}; met {}", words.join("\n"), known_ones.len()));
                }
                Ok(())
            }
            Run::Holds(way) => {
                let ours = boot(&|options| options.attack = Some(way), Task::default())?;
                let (report, log) = (ours.attack(), ours.facts.log());
                let said = ours.facts.text("/attack").unwrap_or_default();
                let report = report.ok_or_else(|| format!("no attack: {said}\n{log}"))?;
                let verdict = ours.verdict();
                let good = report.tried > 5000 && report.integrity.ranges == 1;
                let good = good && verdict.gaps.is_empty() && verdict.fields.is_some();
                if good { Ok(()) } else { Err(verdict.to_string()) }
            }
            Run::GivesWay(way, words) => {
                let ours = boot(&|options| options.attack = Some(way), Task::default())?;
                let report = ours.attack().ok_or("no attack")?;
                let breaches = &report.integrity.breaches;
                let found = breaches.iter().any(|breach| breach.contains(words));
                let failed = ours.verdict().gaps.iter().any(|gap| gap.message.contains("attack"));
                if found && failed { Ok(()) } else { Err(format!("{breaches:#?}")) }
            }
            Run::Then { hidden, append, after, judge } => {
                let ours = boot(
                    &|options| {
                        (options.hidden, options.append, options.after) = (hidden, append, after);
                    },
                    Task::default(),
                )?;
                let differences = ours.modelled().against(&ours.shown());
                let differences = differences.iter().filter(|d| !d.field.contains(", online"));
                let words: Vec<_> = differences.map(ToString::to_string).collect();
                if !words.is_empty() {
                    return Err(words.join("\n"));
                }
                judge(&ours);
                Ok(())
            }
            Run::Keeps => keeps(&boot),
            Run::Cycles => cycles(&boot),
        }
    }
}

/// Linux came to its end by itself, and its log has no warning that nobody explains.
fn ended(ours: &Ours) -> Result<(), String> {
    let end = &ours.run.first.end;
    if *end != End::PoweredOff {
        return Err(format!("after Linux's last word: {end}"));
    }
    let warnings = ours.facts.text("/warnings").unwrap_or_default();
    let predicted = predicted(ours);
    let explained = |line: &&str| {
        WARNINGS.iter().any(|(words, _)| line.contains(words))
            || predicted.iter().any(|message| message.is_said_by(line))
    };
    let others: Vec<_> = warnings.lines().filter(|line| !explained(line)).collect();
    if others.is_empty() { Ok(()) } else { Err(format!("Linux warns:\n{}", others.join("\n"))) }
}

/// What the linter says that this kernel's log has of the machine, although Linux goes on.
fn predicted(ours: &Ours) -> Vec<Message> {
    let Some(kernel) = state::kernel_of(&ours.facts) else { return Vec::new() };
    let cedt = ours.said.cedt.as_ref().map_or(&[][..], |section| &section.bytes);
    let findings = lint_for(&Input::of(&ours.run.first.left.machine, cedt), kernel);
    let goes_on = findings.into_iter().filter(|finding| !finding.refused());
    goes_on.flat_map(|finding| finding.messages).collect()
}

/// What Linux warns of on these machines beside what the linter predicts, and why that is right.
const WARNINGS: &[(&str, &str)] = &[
    ("Invalid ELF header magic", "busybox tries a compressed module as it is first"),
    ("Speculative Return Stack Overflow", "the processor that QEMU emulates has no new microcode"),
    ("rtc_cmos", "there is no clock but KVM's"),
    ("Unable to read current time from RTC", "there is no clock but KVM's"),
    ("Failed to access perfctr msr", "QEMU emulates no performance counters"),
    ("Unstable clock detected", "emulation on a busy host; three more lines of it follow"),
    ("If you want to keep using the local clock", "the second of them"),
    ("\"trace_clock=local\"", "the third"),
    ("on the kernel command line", "the fourth"),
    ("hrtimer: interrupt took", "emulation on a busy host"),
    ("clocksource", "emulation on a busy host"),
    ("TSC", "emulation on a busy host"),
    ("no symbol version", "modules of a kernel that is not signed"),
    (
        "Couldn't locate the CXL.cache and CXL.mem capability array header",
        "of a CXL 1.1 bridge there is what tells that it is one; behind its RCRB nothing answers",
    ),
    ("failed to find decoder mapping", "a bridge without decoders: see `PASS_THROUGH`"),
    ("failed to attach decoder", "a bridge without decoders: see `PASS_THROUGH`; from 7.x"),
    (
        "Unsupported reset method 'bus'",
        "a reset that is asked for, and that newer kernels do not offer there",
    ),
    (": resetting", "a reset that was asked for; newer kernels tell each of them"),
    (
        "SBR happened without memory regions removal",
        "a bus reset that was asked for, regions in use",
    ),
    ("System may be unstable if regions hosted", "its second line"),
];

/// `cxl list` in the end, as the tool prints it.
const LIST: &str = r#"
/task/loader --library-path /task /task/cxl list -vvv >/listed 2>/complained
text /listed
text /complained
"#;

/// Linux's tool says what the registers hold.
fn lists(ours: &Ours) -> Result<(), String> {
    let text = ours.facts.text("/listed").unwrap_or_default();
    let listed = state::listed(text, &ours.facts, &ours.scenario);
    let model = ours.modelled();
    let wrong = listed.iter().filter(|(field, value)| model.get(field) != Some(value));
    let wrong: Vec<_> = wrong
        .map(|(field, value)| format!("{field}: {:?}, not {value}", model.get(field)))
        .collect();
    let complaints = ours.facts.text("/complained").unwrap_or_default();
    if !wrong.is_empty() || listed.len() < 20 {
        let count = listed.len();
        return Err(format!(
            "cxl list, {count} fields: {}\n{complaints}\n{text}",
            wrong.join("\n")
        ));
    }
    Ok(())
}

/// Each reset of the first device, by Linux's own hand, with a mark behind it.
const RESETS: &str = r#"
for dax in /sys/bus/dax/devices/dax*; do
    [ -e "$dax/driver" ] && echo ${dax##*/} >$dax/driver/unbind
done
device=$(echo /sys/bus/pci/devices/*/mem* | $B sed 's/ .*//')
device=${device%/mem*}
say reset/device "${device##*/}"
say reset/methods "$($B cat $device/reset_method)"
/bin/cxl-root mark 0
mark=1
for method in flr bus cxl_bus; do
    echo $method >$device/reset_method 2>/dev/null && echo 1 >$device/reset 2>/dev/null
    say reset/$method $?
    /bin/cxl-root mark $mark
    mark=$((mark + 1))
done
"#;

/// The decoders of a component of a machine that was kept at a mark.
fn decoders(ours: &Ours, mark: u64, place: Place) -> Vec<[u32; 8]> {
    let (_, kept) = ours.run.kept.iter().find(|(id, _)| *id == mark).unwrap();
    let hdm = kept.machine.component(place).unwrap().hdm().unwrap();
    hdm.images().map(cxl_regs::hdm::DecoderImage::to_dwords).collect()
}

fn resets(ours: &Ours) {
    let fact = |name: &str| ours.facts.text(&format!("reset/{name}")).unwrap_or("nothing");
    let log = ours.facts.log();
    // By address: what Linux calls its first memory device, it was the first to probe.
    let map = Machine::new(&ours.scenario).map().clone();
    let bus = map.ports[ours.scenario.devices[0].port].secondary;
    let first = fact("device") == format!("0000:{bus:02x}:00.0");
    let (own, other) = if first { (0, 1) } else { (1, 0) };
    let all = |mark| {
        [Place::Device(own), Place::Device(other), Place::Bridge(0)]
            .map(|place| decoders(ours, mark, place))
    };
    let before = all(0);
    assert!(before.iter().all(|decoders| decoders[0][4] & 0x500 == 0x500), "{before:x?}");
    assert_eq!(fact("flr"), "0", "{}\n{log}", fact("methods"));
    assert_eq!(all(1), before, "FLR leaves CXL.mem alone");
    // Behind a CXL port a bus reset is masked, and Linux knows that.
    assert_ne!(fact("bus"), "0", "{log}");
    assert_eq!(all(2), before, "a masked bus reset does nothing");
    assert_eq!(fact("cxl_bus"), "0", "{log}");
    let after = all(3);
    assert!(after[0].iter().flatten().all(|dword| *dword == 0), "its locks too: {:x?}", after[0]);
    assert_eq!((&after[1], &after[2]), (&before[1], &before[2]), "and no other's");
}

/// A bus reset takes what firmware committed and did not lock, as it takes what is locked, and with it both
/// enables of CXL.mem, which Linux sets where its driver starts and nowhere else: root takes the region back,
/// has the driver start again, makes the region anew, and a word goes through it.
const TAKEN: &str = r#"
for dax in /sys/bus/dax/devices/dax*; do
    [ -e "$dax/driver" ] && echo ${dax##*/} >$dax/driver/unbind
done
device=$(echo /sys/bus/pci/devices/*/mem*)
device=${device%/mem*}
cd /sys/bus/cxl/devices
try() { "$@" || { say taken/failed "$*"; $B dmesg | $B tail -5 >/why; text /why; }; }
set_to() { echo "$2" >"$1"; }
member=$(echo endpoint*/decoder*.0)
region=$(echo region*)
base=$($B cat $region/resource) size=$($B cat $region/size)
/bin/cxl-root mark 0
mark=1
for method in flr cxl_bus; do
    echo $method >$device/reset_method 2>/dev/null && echo 1 >$device/reset 2>/dev/null
    say taken/$method $?
    /bin/cxl-root mark $mark
    mark=$((mark + 1))
done
try set_to $region/commit 0
try set_to $region/target0 ''
try set_to $member/dpa_size 0
try set_to decoder0.0/delete_region $region
/bin/cxl-root mark 3
try set_to /sys/bus/pci/drivers/cxl_pci/unbind ${device##*/}
try set_to /sys/bus/pci/drivers/cxl_pci/bind ${device##*/}
turns=0
while member=$(echo endpoint*/decoder*.0); [ ! -e "$member" ] && [ $turns -lt 25 ]; do
    turns=$((turns + 1))
    $B usleep 200000
done
read -r region <decoder0.0/create_ram_region
try set_to decoder0.0/create_ram_region $region
try set_to $region/interleave_granularity 256
try set_to $region/interleave_ways 1
try set_to $region/size $size
try set_to $member/mode ram
try set_to $member/dpa_size $size
try set_to $region/target0 ${member#*/}
try set_to $region/commit 1
say taken/same "$base $size $($B cat $region/resource) $($B cat $region/size)"
try $B devmem $base 32 0x5eed
say taken/word $($B devmem $base 32)
/bin/cxl-root mark 4
"#;

fn given_back(ours: &Ours) {
    let fact = |name: &str| ours.facts.text(&format!("taken/{name}")).unwrap_or("nothing");
    let log = ours.facts.log();
    let why = ours.facts.text("/why").unwrap_or_default();
    assert_eq!(fact("failed"), "nothing", "{why}\n{log}");
    assert_eq!((fact("flr"), fact("cxl_bus")), ("0", "0"), "{log}");
    let slots = |mark: u64| {
        let (_, then) = ours.run.kept.iter().find(|(id, _)| *id == mark).unwrap();
        then.slots.memory.clone()
    };
    let at = |mark| [Place::Device(0), Place::Bridge(0)].map(|place| decoders(ours, mark, place));
    let before = at(0);
    assert!(before.iter().all(|all| all[0][4] & 0x500 == 0x400), "no lock: {before:x?}");
    assert_eq!((at(1), slots(1)), (before.clone(), slots(0)), "FLR leaves CXL.mem alone");
    let [device, bridge] = at(2);
    assert!(device.iter().flatten().all(|dword| *dword == 0), "{device:x?}");
    assert_eq!(bridge, before[1], "a reset below a port is none of the bridge's");
    assert_eq!(slots(2), [], "what no device decodes is no memory");
    assert!(at(3).iter().all(|all| all[0][4] & 0x400 == 0), "{:x?}", at(3));
    let after = at(4);
    for (after, before) in after.iter().zip(&before) {
        assert_eq!(after[0][..4], before[0][..4], "base and size");
        assert_eq!(after[0][4] & 0x500, 0x400, "{after:x?}");
    }
    assert_eq!(slots(4), slots(0));
    let words: Vec<_> = fact("same").split(' ').collect();
    assert!(words.len() == 4 && words[..2] == words[2..], "{words:?}");
    assert_eq!(fact("word"), "0x00005EED");
}

/// Nobody asked for a driver of the accelerator, and the driver of memory devices is none for it: its memory
/// is where firmware put it, committed and locked, and Linux has neither a region nor RAM there.
fn accelerator(ours: &Ours) {
    let index = ours.scenario.devices.iter().position(|device| device.name == "acc0").unwrap();
    let left = &ours.run.first.left.machine;
    let hdm = left.component(Place::Device(index)).unwrap().hdm().unwrap();
    let decoder = hdm.images().next().unwrap();
    // Committed, Lock On Commit; 256 MiB from the start of the second window's other half on.
    assert_eq!(decoder.control().into_bits() & 0x500, 0x500);
    assert_eq!((decoder.base(), decoder.size()), (0x2_2000_0000, 0x1000_0000));
    let shown = ours.shown();
    let range = shown.iter().find(|(field, _)| field.starts_with("region at window1+0x20000000"));
    assert_eq!(range, None);
    for line in ours.facts.text("/proc/iomem").unwrap().lines() {
        let (range, name) = line.trim().split_once(" : ").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let [first, last] = [first, last].map(|text| u64::from_str_radix(text, 16).unwrap());
        let inside = first < 0x2_3000_0000 && last >= 0x2_2000_0000;
        assert!(!inside || name.starts_with("CXL Window"), "{line}");
    }
}

/// A device that is not there yet, one for a port that is taken, and one that comes back.
const PLUG: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }]
device = [
    { name = "mem0", below = "rp0", volatile = "512MiB" },
    { name = "late", below = "rp1", volatile = "256MiB", serial = 0x1a7e, present = false },
    { name = "third", below = "rp0", volatile = "256MiB", present = false },
]
window = [{ targets = ["hb0"], size = "2GiB" }]
event = [
    { at = 1, action = "hot-add", device = "third", refused = true },
    { at = 2, action = "hot-add", device = "late" },
    { at = 3, action = "hot-remove", device = "late" },
    { at = 4, action = "hot-add", device = "late" },
]
"#;

const PLUGGED: &str = r#"
serials() {
    turns=0
    while [ $turns -lt 25 ]; do
        turns=$((turns + 1))
        [ "$($B cat /sys/bus/cxl/devices/mem*/serial | $B wc -l)" = "$2" ] && break
        $B usleep 200000
    done
    say plug/$1 "$($B cat /sys/bus/cxl/devices/mem*/serial | $B sort | $B tr '\n' ' ')"
}
serials before 1
/bin/cxl-root count 1
echo 1 >/sys/bus/pci/rescan
serials refused 1
/bin/cxl-root count 2
echo 1 >/sys/bus/pci/rescan
serials added 2
for device in /sys/bus/pci/devices/*; do
    [ -e $device/mem* ] && [ "$($B cat $device/mem*/serial)" = 0x1a7e ] && late=$device
done
echo 1 >$late/remove
/bin/cxl-root count 3
serials removed 1
/bin/cxl-root count 4
echo 1 >/sys/bus/pci/rescan
serials again 2
say plug/alive yes
"#;

fn plugged(ours: &Ours) {
    let fact = |name: &str| ours.facts.text(&format!("plug/{name}")).unwrap_or("nothing").trim();
    let log = ours.facts.log();
    let first = fact("before").to_owned();
    assert!(first.starts_with("0x"), "{first}");
    assert_eq!(fact("refused"), first, "a device that the platform refused");
    let both = |name| {
        fact(name).split(' ').filter(|word| [first.as_str(), "0x1a7e"].contains(word)).count()
    };
    assert_eq!(both("added"), 2, "{}\n{log}", fact("added"));
    assert_eq!(fact("removed"), first);
    assert_eq!(both("again"), 2, "{}\n{log}", fact("again"));
    assert_eq!(fact("alive"), "yes");
    let results: Vec<_> =
        ours.run.happened.iter().map(|happened| happened.result.is_ok()).collect();
    assert_eq!(results, [false, true, true, true]);
}

const PERSISTENT: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "pmem0", below = "rp0", persistent = "256MiB" }]
window = [{ targets = ["hb0"], size = "1GiB" }]
"#;

/// A namespace with labels, and bytes in it; then the machine is gone, without a word to anybody.
const WRITES: &str = r#"
cd /sys/bus/nd/devices
read -r seed <region0/namespace_seed
echo 5eed1abe-0000-4000-8000-00000000c0de >$seed/uuid &&
    echo $((0x8000000)) >$seed/size && echo $seed >/sys/bus/nd/drivers/nd_pmem/bind
$B usleep 500000
echo outlives >/word
$B dd if=/word of=/dev/pmem0 bs=512 seek=9 conv=fsync 2>/dev/null || echo "no pmem0: $(echo *)" >/dev/console
echo b >/proc/sysrq-trigger
$B sleep 100
"#;

const READS: &str = r#"
for one in /sys/bus/nd/devices/namespace*; do
    say kept/${one##*/} "$($B cat $one/uuid) $($B cat $one/size)"
done
say kept/bytes "$($B dd if=/dev/pmem0 bs=512 skip=9 count=1 2>/dev/null | $B head -n 1)"
"#;

/// Boots with changed options.
type Boot<'b> = dyn Fn(&dyn Fn(&mut Options<'static>), Task<'_>) -> Result<Ours, String> + 'b;

fn keeps(boot: &Boot<'_>) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let media = || Some(folder.path().join("media"));
    let end = match boot(
        &|options| (options.media, options.after) = (media(), WRITES),
        Task::default(),
    ) {
        Ok(_) => return Err("the machine that was to be gone went on".to_owned()),
        Err(end) => end,
    };
    if !end.contains("it reset the machine") {
        return Err(end);
    }
    // A label storage area starts with an index, in the words of the UEFI specification.
    let file = std::fs::read(folder.path().join("media/pmem0.media")).map_err(|e| e.to_string())?;
    let at = |offset: usize, bytes: &[u8]| file[offset..].starts_with(bytes);
    if !at(0x10_0000, b"NAMESPACE_INDEX\0") {
        return Err(format!("no labels in the file: {end}"));
    }
    if !at(0x20_0000 + 9 * 512, b"outlives\n") {
        return Err(format!("the bytes are not in the file: {end}"));
    }
    let ours = boot(&|options| (options.media, options.after) = (media(), READS), Task::default())?;
    let fact = |name: &str| ours.facts.text(&format!("kept/{name}")).unwrap_or_default();
    let namespaces = ours.facts.texts_below("kept/namespace").map(|(_, text)| text);
    let found = { namespaces }
        .any(|text| text.starts_with("5eed1abe-0000-4000-8000-00000000c0de 134217728"));
    if !found || fact("bytes") != "outlives" {
        let all: Vec<_> = ours.facts.texts_below("kept/").collect();
        return Err(format!("{all:?}\n{}", ours.facts.log()));
    }
    Ok(())
}

/// Eight devices below two bridges, each with a port and a switch: an address goes to a bridge by its bit
/// 8, and to one of four ports of the switch by bits 9 and 10.
const SWITCHES: &str = r#"
bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
switch = [{ name = "sw0", below = "rp0" }, { name = "sw1", below = "rp1" }]
port = [
    { name = "rp0", below = "hb0" }, { name = "rp1", below = "hb1" },
    { name = "a0", below = "sw0" }, { name = "a1", below = "sw0" },
    { name = "a2", below = "sw0" }, { name = "a3", below = "sw0" },
    { name = "b0", below = "sw1" }, { name = "b1", below = "sw1" },
    { name = "b2", below = "sw1" }, { name = "b3", below = "sw1" },
]
device = [
    { name = "mem0", below = "a0", volatile = "512MiB" }, { name = "mem1", below = "b0", volatile = "512MiB" },
    { name = "mem2", below = "a1", volatile = "512MiB" }, { name = "mem3", below = "b1", volatile = "512MiB" },
    { name = "mem4", below = "a2", volatile = "512MiB" }, { name = "mem5", below = "b2", volatile = "512MiB" },
    { name = "mem6", below = "a3", volatile = "512MiB" }, { name = "mem7", below = "b3", volatile = "512MiB" },
]
window = [{ targets = ["hb0", "hb1"], granularity = "256", size = "4GiB" }]
policy = { path = "describe", config_lock = false }
"#;

/// So many times a region is made and taken back, each of these in turn: ways, and bytes of each device.
const CYCLES: usize = 100;
const SETS: [(u64, u64); 4] = [(2, 256 << 20), (8, 256 << 20), (4, 256 << 20), (2, 512 << 20)];

/// In the first set two chunks of each member get a word; in every other one they are looked for where its
/// own interleave has them. The last set stays.
const CYCLE: &str = r#"
$B rmmod kmem
cd /sys/bus/cxl/devices
try() { "$@" || { say cycle/failed "$*"; $B dmesg | $B tail -5 >/why; text /why; }; }
set_to() { echo "$2" >"$1"; }
# By the PCI addresses of their devices, those of the two bridges in turn.
sorted=$(for one in endpoint*; do
    echo "$($B readlink -f $one/uport) $one/decoder${one#endpoint}.0"
done | $B sort | $B sed 's/.* //')
set -- $sorted
members="$1 $5 $2 $6 $3 $7 $4 $8"
make() {
    read -r region <decoder0.0/create_ram_region
    try set_to decoder0.0/create_ram_region $region
    try set_to $region/interleave_granularity 256
    try set_to $region/interleave_ways $1
    try set_to $region/size $(($1 * $2))
    position=0
    for decoder in $members; do
        [ $position -lt $1 ] || break
        try set_to $decoder/mode ram
        try set_to $decoder/dpa_size $2
        try set_to $region/target$position ${decoder#*/}
        position=$((position + 1))
    done
    try set_to $region/commit 1
    base=$(($($B cat $region/resource)))
}
unmake() {
    try set_to $region/commit 0
    position=0
    for decoder in $members; do
        [ $position -lt $1 ] || break
        try set_to $region/target$position ''
        try set_to $decoder/dpa_size 0
        position=$((position + 1))
    done
    try set_to decoder0.0/delete_region $region
}
# Member $1's chunk $2 in a set of $3 ways.
chunk() { $B printf '0x%x' $((base + ($2 * $3 + $1) * 256)); }
cycle=0
while [ $cycle -lt CYCLES ]; do
    for set in SETS; do
        [ $cycle -lt CYCLES ] || break
        cycle=$((cycle + 1))
        ways=${set%:*}
        make $ways ${set#*:}
        for member in 0 1; do for part in 0 1; do
            word=$((0xC0DE00 + member * 16 + part))
            at=$(chunk $member $part $ways)
            if [ $cycle = 1 ]; then
                $B devmem $at 32 $word
            else
                [ $(($($B devmem $at 32))) = $word ] || say cycle/wrong "$cycle $member $part $at"
            fi
        done; done
        [ $cycle = CYCLES ] || unmake $ways
    done
done
say cycle/done $cycle
/bin/cxl-root mark 1
"#;

fn cycles(boot: &Boot<'_>) -> Result<(), String> {
    let sets: Vec<_> = SETS.iter().map(|(ways, share)| format!("{ways}:{share}")).collect();
    let script = CYCLE.replace("CYCLES", &CYCLES.to_string()).replace("SETS", &sets.join(" "));
    let script: &'static str = Box::leak(script.into_boxed_str());
    let ours = boot(
        &|options| {
            options.hidden = true;
            (options.append, options.after) = ("iomem=relaxed", script);
        },
        Task::default(),
    )?;
    let differences = ours.modelled().against(&ours.shown());
    if !differences.is_empty() {
        return Err(differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    let fact = |name: &str| ours.facts.text(&format!("cycle/{name}"));
    let why = ours.facts.text("/why").unwrap_or_default();
    if (fact("done"), fact("failed"), fact("wrong")) != (Some("100"), None, None) {
        let (done, failed, wrong) = (fact("done"), fact("failed"), fact("wrong"));
        return Err(format!("{done:?} {failed:?} {wrong:?}\n{why}\n{}", ours.facts.log()));
    }
    // Each came with one slot, and went with it; the last one stays.
    let (_, then) = ours.run.kept.iter().find(|(id, _)| *id == 1).ok_or("no mark")?;
    let (ways, share) = SETS[(CYCLES - 1) % SETS.len()];
    let base = ours.scenario.windows[0].base.map_or(0, |base| base.0);
    let base = Machine::new(&ours.scenario).map().windows[0].map_or(base, |base| base.0);
    // Pages of plain memory behind BARs have slots too, which go and come as Linux sizes the BARs.
    let calls = ours.run.slot_log.iter().filter(|call| match call {
        Call::Add { base: at, .. } | Call::Remove { base: at } => *at >= base,
    });
    let calls = calls.count();
    let whole = ours.run.slot_log.more() == 0;
    if then.slots.memory != [(base, ways * share)] || calls != 2 * CYCLES - 1 || !whole {
        return Err(format!("{:x?}, {calls} calls", then.slots.memory));
    }
    Ok(())
}
