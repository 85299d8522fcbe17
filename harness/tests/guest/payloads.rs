//! Each payload, with what only the host can see: slots, exits, media by device address.

use cxl_harness::guest::Counts;
use cxl_harness::guest::boot::{Options, Verdict};
use cxl_harness::kvm::{self, Call as Slot, End, Reason};
use cxl_harness::mirror::Unmirrored;
use cxl_harness::report::{self, Report};
use cxl_image::doorbell::Call;
use cxl_model::scenario::{Place, Scenario};
use libtest_mimic::Trial;

use crate::{GuestTrial, builtin, claim, options, payload, pvh, run, unless, unlocked, working};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> = working()
        .map(|name| {
            claim(format!("memory_of_{name}_keeps_what_is_stored"), move || {
                payload(&builtin(name), "touch").good();
            })
        })
        .collect();
    trials.extend([
        claim("four_bridges_have_their_memory_at_fixed_addresses", four_bridges),
        claim("payload_refuses_memory_beyond_its_reach_by_name", beyond_reach),
        claim("what_the_guest_cannot_address_gets_no_slot_and_that_reason", narrow),
        claim("covered_half_of_a_window_causes_no_exit", half),
        claim("range_over_budget_is_decoded_access_by_access", half_by_budget),
        claim("without_mirror_every_access_exits", half_unmirrored),
        claim("console_ends_with_what_is_unused_and_why", unused),
        claim("console_tells_each_loss_once", lost_once),
        claim("without_a_table_the_run_is_refused_with_what_became_of_decoders", no_table),
        claim("code_runs_from_every_region", exec),
        claim("cycles_elsewhere_keep_bytes_and_slot_count", || recreate("one-device")),
        claim("cycles_of_the_last_region_leave_others_alone", || recreate("default")),
        claim("guest_programs_its_own_decoder", program),
        claim("bars_and_memory_space_move_no_memory", bars),
        claim("registers_take_aligned_dwords_only", widths),
        claim("judge_inside_and_judge_outside_agree_on_locks_that_hold", || judges(false)),
        claim("judge_inside_and_judge_outside_agree_on_locks_that_leak", || judges(true)),
        claim("the_same_memory_is_back_after_a_reset_of_every_bus", restored),
        claim("what_is_stranded_is_not_counted_as_back", restored_beside_what_is_stranded),
        claim("what_is_plugged_in_is_brought_up_beside_what_is_in_use", added),
        claim("counter_counts_to_its_end", count),
        claim("pvh_entry_at_cpl_3_does_the_same", pvh_ring3),
        claim("pvh_entry_at_cpl_0_ends_or_names_the_cure", pvh_ring0),
    ]);
    for (name, instruction) in [
        ("sse", Some([0x66, 0x0F, 0xEB, 0x07])),
        ("xsavec", Some([0x48, 0x0F, 0xC7, 0x27])),
        ("jump", None),
    ] {
        let absent = name == "xsavec" && !kvm::offers_xsavec();
        let tests = [
            claim(format!("{name}_fails_then_works_then_fails"), move || trial(name)),
            claim(format!("{name}_unannounced_ends_the_run"), move || {
                unmirrored(name, instruction)
            }),
            claim(format!("{name}_announced_in_vain_is_a_failed_check"), move || in_vain(name)),
        ];
        let lack = absent.then_some("needs a KVM that offers XSAVEC");
        trials.extend(tests.map(|test| unless(lack, test)));
    }
    let emulated = kvm::available().is_ok() && kvm::emulates_ring_0();
    let lack = || emulated.then_some(CPL_0);
    trials.extend(at_cpl_0().map(|trial| unless(lack(), trial)));
    trials
}

/// What the trials at CPL 0 lack on many a cloud's host; `.ci/run` knows the words.
const CPL_0: &str = "needs a KVM that runs CPL 0 natively";

/// The image at CPL 0, as it is on hardware: the memory of each built-in machine, and payloads that
/// an emulator of CPL 0 would die of or take minutes for.
fn at_cpl_0() -> impl Iterator<Item = Trial> {
    let memory = working().map(|name| (builtin(name), name, "touch"));
    let more = [
        (builtin("one-device"), "one-device", "exec"),
        (builtin("one-device"), "one-device", "dma"),
        (builtin("hot-plug"), "hot-plug", "count"),
        (builtin("path2"), "path2", "program"),
        (unlocked("one-device"), "unlocked_one-device", "sse,jump,recreate"),
        (Scenario::parse(PATH, "path").unwrap_or_else(|e| panic!("{e}")), "a_path", "attack"),
    ];
    memory.chain(more).map(|(scenario, name, what)| {
        claim(format!("{what}_at_cpl_0_on_{name}"), move || {
            let ran = pvh(&scenario, what, false).good();
            assert!(ran.console().starts_with("cxl firmware at ring 0\n"), "{}", ran.console());
            // Each access of an image that is entered by PVH exits, and those of memory do not.
            assert!(ran.run.mirror.unmirrored.is_empty(), "{:?}", ran.run.mirror.unmirrored);
            if what == "attack" {
                let report = ran.run.attack.as_ref().unwrap();
                assert!(report.integrity.holds && report.tried > 1000, "{report}");
            }
        })
    })
}

/// A path without decoders to spare, so that the attack is short; every compared dword is an exit.
const PATH: &str = r#"
bridge = [{ name = "hb0", uid = 16, decoders = 1 }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "mem0", below = "rp0", volatile = "256MiB", decoders = 1 }]
window = [{ targets = ["hb0"], size = "1GiB" }]
"#;

/// The image's own judge and the host's look at one attack. Of a leak, the one names the bits.
fn judges(leak: bool) {
    let fault = "[[fault]]\nat = \"mem0\"\nkind = \"leaks-field\"\nregister = \"size_high\"\n\
                 bits = \"0xffff0000\"\n";
    let text = if leak { PATH.to_owned() + fault } else { PATH.to_owned() };
    let ran = payload(&Scenario::parse(&text, "test").unwrap(), "attack-judged");
    let (console, report) = (ran.console(), ran.run.attack.as_ref().unwrap());
    assert_eq!(report.integrity.holds, !leak, "{report}");
    assert!(console.contains("\nverifier: ok, 1 region, 2 of 2 committed decoders locked\n"));
    let holds = console.contains("\nattack: integrity: holds, ");
    let broken = console.contains("\nattack: integrity: BROKEN, ");
    assert_eq!((holds, broken), (!leak, leak), "{console}");
    let line = "attack:     HDM Decoder Size High: 16 of 32 bits (0xffff0000)\n";
    assert_eq!(console.contains(line), leak, "{console}");
    let verdict = if leak { Verdict::Refused } else { Verdict::Good };
    assert_eq!(ran.run.last().verdict(), verdict, "{console}");
}

/// What no region has is told before the end, with the reason; so is that there is nothing.
fn unused() {
    let ends = |ran: &GuestTrial, lines: &str| {
        let console = ran.console();
        assert!(console.contains(&format!("\n{lines}end: ")), "{console}");
    };
    let good = |name| run(&builtin(name), &options());
    ends(&good("one-device"), "unused: nothing of what was found\n");
    ends(
        &good("dpa-skip"),
        "note: bridge 16 port 0: 256 MiB of volatile memory unused: the policy does not ask for it\n\
         note: bridge 16 port 0: 512 MiB of persistent memory unused: the policy does not ask for it\n",
    );
    // What others left is looked at without a plan.
    let line = Some("as-found".to_owned());
    let ran = run(&builtin("one-device"), &Options { command_line: line, ..options() });
    assert!(ran.console().contains("unused: no decoder in use leads there\n"), "{}", ran.console());
    // A refusal tells what spoke against every window.
    let ran = good("window-too-small");
    let told = "note: window 0x100000000 has 256 MiB, 512 MiB are needed\n";
    assert!(ran.console().contains(told), "{}", ran.console());
}

/// A decoder of a bridge that loses its lock costs the bridge that one, and a device all its memory.
fn lost_once() {
    let text = r#"
        policy = { on_failure = "best-effort" }
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0" }, { below = "hb0" }]
        device = [{ below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" }]
        window = [{ targets = ["hb0"], size = "1GiB" }]
        fault = [{ at = "hb0", kind = "lock-lost", decoder = 1 }]
    "#;
    let ran = run(&Scenario::parse(text, "test").unwrap(), &options());
    let console = ran.console();
    let lost: Vec<_> = console.lines().filter(|line| line.starts_with("lost: ")).collect();
    assert_eq!(lost.len(), 1, "{console}");
    assert!(lost[0].starts_with("lost: bridge 16, decoder 1: "), "{console}");
}

/// What was brought up and cannot be described, as a lock went since, is not up.
fn no_table() {
    let text = r#"
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0" }]
        device = [{ below = "port0", volatile = "256MiB" }]
        window = [{ targets = ["hb0"], size = "1GiB" }]
        fault = [{ at = "mem0", kind = "lock-lost", after = 2 }]
    "#;
    let ran = run(&Scenario::parse(text, "test").unwrap(), &options());
    let console = ran.console();
    let refused = "refused: tables: bridge 16 port 0 device, decoder 0: HDM Decoder Control was \
                   0x00001700 when the table was made, is 0x00001600\nend: refused\n";
    assert!(console.ends_with(refused), "{console}");
    let fates = ["bridge 16 port 0, decoder 0: ", "bridge 16, decoder 0: "];
    assert!(fates.iter().all(|fate| console.contains(fate)), "{console}");
}

/// The calls that put slots there, from the mirror's start on.
fn adds(ran: &GuestTrial) -> Vec<Slot> {
    let slots = ran.run.mirror.slots.iter();
    slots.map(|slot| Slot::Add { base: slot.base, size: slot.size }).collect()
}

fn four_bridges() {
    let ran = payload(&builtin("four-bridges"), "touch").good();
    let want = [
        (0x800_0000_0000, 256 * MIB),
        (0x840_0000_0000, 512 * MIB),
        (0x880_0000_0000, 768 * MIB),
        (0x8C0_0000_0000, GIB),
    ];
    assert_eq!(ran.memory_log(), want.map(|(base, size)| Slot::Add { base, size }));
    for (device, (base, size)) in want.into_iter().enumerate() {
        for dpa in [0, size - 4096] {
            assert_eq!(ran.media(device, dpa), !(base + dpa));
            assert_eq!(ran.media(device, dpa + 4088), (base + dpa) ^ 0x5A5A);
        }
    }
    // A store and a load behind each of the four, and nothing else.
    assert_eq!(ran.run.counts.window, 8);
}

/// A host whose guests have 39 bits of address, as many desktops.
fn narrow() {
    let options = Options { address_bits: 39, ..options() };
    let ran = run(&builtin("four-bridges"), &options).good();
    assert_eq!(ran.memory_log(), []);
    let reasons: Vec<_> = ran.run.mirror.unmirrored.iter().map(|(_, why)| *why).collect();
    assert_eq!(reasons, [Unmirrored::AddressWidth; 4]);
    // All of it is programmed and locked, and the report says why it is of no use to this guest.
    let report = Report::of_guest(&ran.machine, &ran.run);
    assert_eq!(report.facts.result, report::Verdict::Ok, "{:?}", report.facts.failures());
    let text = report.to_string();
    let line = "0x0000080000000000  256 MiB, trapped: the guest cannot address it";
    assert!(text.contains(line), "{text}");
    // What lies within is as anywhere.
    let ran = run(&builtin("default"), &Options { payload: "touch", ..options }).good();
    assert_eq!(ran.run.mirror.slots.len(), 5);
}

/// The lower half of four levels of page tables ends at 2^47, and some processors before.
fn beyond_reach() {
    let text = "[platform]\nphysical_bits = 52\n[[bridge]]\nname = \"hb0\"\nuid = 16\n[[port]]\n\
                name = \"rp0\"\nbelow = \"hb0\"\n[[device]]\nbelow = \"rp0\"\nvolatile = \"256MiB\"\n\
                [[window]]\ntargets = [\"hb0\"]\nsize = \"1GiB\"\nbase = \"0x800000000000\"\n";
    let scenario = Scenario::parse(text, "far").unwrap();
    let ran = payload(&scenario, "count,touch");
    assert_eq!(
        ran.run.last().verdict(),
        Verdict::Refused,
        "{:?}\n{}",
        ran.run.first.end,
        ran.console()
    );
    let why = "payload: touch: 0x800000000000-0x80000fffffff lies beyond the ";
    assert!(ran.console().contains(why), "{}", ran.console());
    payload(&scenario, "count").good();
}

/// Stores and loads of a sweep of the payload `half`.
const SWEEP: u64 = 64 + 64;

fn half() {
    let ran = payload(&builtin("one-device"), "half").good();
    assert_eq!(ran.window_exits(), [0, SWEEP]);
    assert_eq!(ran.memory_log(), [Slot::Add { base: 4 * GIB, size: 512 * MIB }]);
    // It says itself what it lacks: of a window that is full that, and of nothing mapped that.
    let mut full = builtin("one-device");
    full.windows[0].size = 512 * MIB;
    let full_window = "region 0x100000000-0x11fffffff reaches to the end of its window, ";
    for (scenario, words) in [(full, full_window), (builtin("path2"), "no memory is mapped, ")] {
        let ran = payload(&scenario, "half");
        assert_eq!(ran.run.last().verdict(), Verdict::Refused);
        let said = format!("payload: half: {words}");
        assert!(ran.console().contains(&said), "{}", ran.console());
    }
}

fn half_by_budget() {
    let scenario = builtin("two-devices-one-bridge");
    let sizes = [scenario.devices[0].volatile, scenario.devices[1].volatile];
    let options = Options { payload: "half", budget: Some(sizes[0]), ..options() };
    let ran = run(&scenario, &options).good();
    assert_eq!(ran.window_exits(), [0, SWEEP, SWEEP]);
    assert_eq!(ran.run.mirror.slots.len(), 1);
    let [(_, why)] = ran.run.mirror.unmirrored[..] else { panic!("{:?}", ran.run.mirror) };
    assert_eq!(why, Unmirrored::Budget);
    for (device, base) in [(0, 4 * GIB), (1, 4 * GIB + sizes[0])] {
        assert_eq!(ran.media(device, 0), !base);
    }
}

fn half_unmirrored() {
    let options = Options { payload: "half", mirror: false, ..options() };
    let ran = run(&builtin("one-device"), &options).good();
    assert_eq!(ran.window_exits(), [SWEEP, SWEEP]);
    assert_eq!(ran.memory_log(), []);
}

fn exec() {
    let ran = payload(&builtin("default"), "exec").good();
    assert_eq!(ran.run.counts.window, 0);
    let checks =
        ran.run.last().said.calls.iter().filter(|call| matches!(call, Call::Check { .. })).count();
    assert_eq!(checks, 2 * 5, "two for each region");
}

/// The same instruction on the same address, three times.
fn trial(name: &str) {
    for scenario in ["one-device", "default"] {
        let ran = payload(&unlocked(scenario), name).good();
        let happened: Vec<_> =
            ran.run.last().said.announced.iter().map(|one| one.happened).collect();
        assert_eq!(happened, [true, true]);
        let last = adds(&ran)[adds(&ran).len() - 1];
        let Slot::Add { base, .. } = last else { panic!("{last:?}") };
        let mut want = adds(&ran);
        want.extend([Slot::Remove { base }, last, Slot::Remove { base }, last]);
        assert_eq!(ran.memory_log(), want);
    }
}

/// With no mirror the instruction fails although the decoders are committed, and nobody said so.
fn unmirrored(name: &str, instruction: Option<[u8; 4]>) {
    let options = Options { payload: name, mirror: false, ..options() };
    let ran = run(&unlocked("one-device"), &options);
    let End::Failed(failure) = &ran.run.first.end else { panic!("{:?}", ran.run.first.end) };
    assert_eq!(failure.reason, Reason::InternalError { suberror: 1 });
    assert_eq!(failure.ring, 3);
    assert_eq!(ran.run.last().verdict(), Verdict::NoStatus);
    assert_eq!(ran.run.last().said.announced.len(), 1, "the first one was announced");
    match instruction {
        Some(bytes) => assert!(failure.instruction.starts_with(&bytes), "{failure}"),
        None => assert_eq!(failure.rip, 4 * GIB + 4096),
    }
}

/// Decoders that are locked stay, so what was to fail works.
fn in_vain(name: &str) {
    let ran = payload(&builtin("one-device"), name);
    assert_eq!(ran.run.last().verdict(), Verdict::Refused);
    assert!(
        ran.run.last().said.announced.iter().all(|one| !one.happened),
        "{:?}",
        ran.run.last().said.announced
    );
    assert_eq!(ran.memory_log(), adds(&ran));
}

fn recreate(name: &str) {
    const CYCLES: usize = 1000;
    let before = payload(&unlocked(name), "none").good();
    let ran = payload(&unlocked(name), "recreate").good();
    let start = adds(&before);
    let Some(&Slot::Add { base: first, size }) = start.last() else { panic!("{start:?}") };
    let mut want = start.clone();
    for cycle in 0..CYCLES {
        let (from, to) = if cycle % 2 == 0 { (first, first + size) } else { (first + size, first) };
        want.extend([Slot::Remove { base: from }, Slot::Add { base: to, size }]);
    }
    let log = ran.memory_log();
    assert!(log == want, "{} calls, {} wanted", log.len(), want.len());
    assert_eq!(ran.run.last().said.marks.len(), 10);
    assert!(
        ran.run.last().said.marks.iter().all(|mark| mark.slots == start.len()),
        "{:?}",
        ran.run.last().said.marks
    );
    let device = ran.machine.scenario().devices.len() - 1;
    for place in 0..4 {
        let dpa = place * (size / 4) + 8 * place;
        assert_eq!(ran.media(device, dpa), !dpa);
    }
}

fn program() {
    let before = payload(&builtin("path2"), "none").good();
    assert_eq!(before.memory_log(), []);
    let ran = payload(&builtin("path2"), "program").good();
    assert_eq!(ran.memory_log(), [Slot::Add { base: 4 * GIB, size: 512 * MIB }]);
    let hdm = ran.machine.component(Place::Device(0)).unwrap().hdm().unwrap();
    let decoder = hdm.images().next().unwrap();
    assert_eq!((decoder.base(), decoder.size()), (4 * GIB, 512 * MIB));
    assert!(decoder.control().committed() && !decoder.control().lock_on_commit());
    assert_eq!(ran.media(0, 0), !(4 * GIB));
}

/// What the guest says of itself, held against the models: decoders, locks and memory as they were at
/// the hand-off.
fn restored() {
    for name in ["default", "two-way", "switch", "type2-db"] {
        let guest = payload(&builtin(name), "restore").good();
        let mut direct = cxl_model::machine::Machine::new(&builtin(name));
        cxl_harness::run::direct(&mut direct);
        assert_eq!(guest.machine.fabric(), direct.fabric(), "{name}");
        assert!(guest.console().contains("back after a reset"), "{}", guest.console());
    }
}

/// What a lost lock strands is not put back, and nobody counts it: mem0's persistent memory is what is left.
fn restored_beside_what_is_stranded() {
    let text = r#"
policy = { on_failure = "best-effort" }
bridge = [{ uid = 16 }, { uid = 32 }]
port = [{ below = "hb0" }, { below = "hb1" }]
device = [
    { below = "port0", volatile = "512MiB", persistent = "512MiB" },
    { below = "port1", volatile = "512MiB", persistent = "512MiB" },
]
window = [
    { targets = ["hb0", "hb1"], size = "2GiB", restrictions = ["host-only", "volatile"] },
    { targets = ["hb0"], size = "2GiB", restrictions = ["host-only", "persistent"] },
    { targets = ["hb1"], size = "2GiB", restrictions = ["host-only", "persistent"] },
]
fault = [{ at = "hb1", kind = "lock-lost", decoder = 0, after = 1 }]
"#;
    let guest = payload(&Scenario::parse(text, "test").unwrap(), "restore");
    let console = guest.console();
    let said: Vec<_> = console.lines().filter(|line| line.contains("restore")).collect();
    let [back] = said[..] else { panic!("{console}") };
    assert!(back.ends_with("restore: 1 device back after a reset of their buses"), "{back}");
}

/// A device that comes while the guest counts, and room that was kept for it.
const LATE: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }]
device = [
    { name = "mem0", below = "rp0", volatile = "512MiB" },
    { name = "late", below = "rp1", volatile = "256MiB", persistent = "256MiB", present = false },
]
window = [{ targets = ["hb0"], base = "0x100000000", size = "2GiB" }]
"#;

const KEPT: &str = r#"
[[reserve]]
at = "rp1"
partition = "volatile"
size = "256MiB"
[[reserve]]
at = "rp1"
partition = "persistent"
size = "256MiB"
"#;

const COMES: &str = "[[event]]\nat = 7\naction = \"hot-add\"\ndevice = \"late\"\n";

/// What was there is where it was, and the newcomer's memory, which is the guest's as the rest is, keeps
/// what is stored; where nobody came, and where no decoder was kept, that is said.
fn added() {
    let late = |parts: &[&str]| Scenario::parse(&parts.concat(), "late").unwrap();
    let ran = payload(&late(&[LATE, KEPT, COMES]), "add").good();
    let slots: Vec<_> = ran.run.mirror.slots.iter().map(|slot| (slot.base, slot.size)).collect();
    assert_eq!(slots.len(), 3, "{slots:x?}");
    assert_eq!(slots[0], (4 * GIB, 512 * MIB));
    assert_eq!(ran.media(0, 0), !(4 * GIB));
    for ((base, size), dpa) in slots.into_iter().skip(1).zip([0, 256 * MIB]) {
        assert_eq!((size, ran.media(1, dpa)), (256 * MIB, !base), "{base:#x}");
    }
    let hdm = ran.machine.component(Place::Device(1)).unwrap().hdm().unwrap();
    let locked = hdm.images().filter(|image| image.control().locked());
    assert_eq!(locked.count(), 2);

    let alone = payload(&late(&[LATE, KEPT]), "add");
    assert_eq!(alone.run.last().verdict(), Verdict::Refused);
    assert!(alone.console().contains("nothing was plugged in"), "{}", alone.console());

    let burned = "policy.burn_spares = true\n";
    let full = payload(&late(&[burned, LATE, COMES]), "add");
    assert_eq!(full.run.last().verdict(), Verdict::Refused);
    assert!(full.console().contains("decoder"), "{}", full.console());

    // Where the rest goes on, the newcomer's own error is what the run failed by.
    let best_effort = "policy.on_failure = \"best-effort\"\n";
    let dropped = "kind = \"dropped-write\"\nregister = \"control\"";
    for (kind, error) in [("kind = \"commit-error\"", "commit"), (dropped, "Control")] {
        let fault = format!("[[fault]]\nat = \"late\"\n{kind}\n");
        let lost = payload(&late(&[best_effort, LATE, KEPT, COMES, &fault]), "add");
        assert_eq!(lost.run.last().verdict(), Verdict::Refused, "{kind}");
        let console = lost.console();
        let said = console.lines().rfind(|line| line.starts_with("payload: ")).unwrap();
        assert!(said.contains("bridge 16 port 1") && said.contains(error), "{kind}: {console}");
        assert!(!console.contains("nothing was plugged in"), "{kind}: {console}");
    }
}

fn bars() {
    for name in ["one-device", "default", "switch"] {
        let before = payload(&builtin(name), "none").good();
        let ran = payload(&builtin(name), "bars").good();
        assert_eq!(ran.memory_log(), before.memory_log());
        assert_eq!(ran.run.counts.window, 0);
        assert_eq!(ran.machine.fabric(), before.machine.fabric());
    }
}

fn widths() {
    let ran = payload(&builtin("default"), "widths").good();
    // Two bridges and four devices; nine loads, and nine stores to each of seven registers.
    let components = 6;
    let marks: Vec<_> = ran.run.last().said.marks.chunks_exact(2).collect();
    assert_eq!(marks.len(), components);
    for pair in marks {
        assert_eq!(pair[1].counts.reads - pair[0].counts.reads, 9);
        assert_eq!(pair[1].counts.writes - pair[0].counts.writes, 9 * 7);
    }
    assert_eq!(ran.machine.traffic().ragged, components as u64 * (9 + 9 * 7));
}

fn count() {
    let ran = payload(&builtin("one-device"), "count").good();
    let counts = ran.run.last().said.calls.iter().filter_map(|call| match call {
        Call::Count { value } => Some(*value),
        _ => None,
    });
    assert!(counts.eq(0..=5000));
}

fn pvh_ring3() {
    let direct = payload(&builtin("one-device"), "touch").good();
    let ran = pvh(&builtin("one-device"), "touch", true).good();
    assert_eq!(ran.machine.fabric(), direct.machine.fabric());
    // An image that was given is not taken for ours: each of its accesses is seen.
    let (exits, counted) = (
        direct.run.first.handed.as_ref().unwrap().counts,
        direct.run.first.handed.as_ref().unwrap().library,
    );
    let (unseen, listed) = (counted.config - exits.config, exits.listed);
    assert!(unseen != 0 && listed != 0);
    let (reads, config) = (exits.reads + unseen + listed, exits.config + unseen);
    let handed = ran.run.first.handed.as_ref().unwrap();
    assert_eq!(handed.counts, Counts { reads, config, listed: 0, ..exits });
    assert_eq!(handed.traffic, direct.run.first.handed.as_ref().unwrap().traffic);
    assert_eq!(handed.library, counted);
    assert_eq!(ran.run.last().cedt(), direct.run.last().cedt());
    let ran = pvh(&unlocked("one-device"), "sse", true).good();
    assert_eq!(ran.run.last().said.announced.len(), 2);
    if kvm::offers_xsavec() {
        pvh(&unlocked("one-device"), "xsavec", true).good();
    }
}

fn pvh_ring0() {
    let ran = pvh(&builtin("one-device"), "touch", false);
    match &ran.run.first.end {
        End::Failed(failure) => {
            assert_eq!(failure.reason, Reason::InternalError { suberror: 1 });
            assert_eq!(failure.ring, 0);
            assert!(failure.to_string().contains("ring3"), "{failure}");
        }
        _ => assert_eq!(ran.run.last().verdict(), Verdict::Good, "{}", ran.console()),
    }
}
