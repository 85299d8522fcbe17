//! Interleaved sets as a guest has them: at the speed of RAM or access by access, always the same
//! bytes; cut anew; and kept in files while the whole machine is killed.
//!
//! **Invariant**: what the guest stores by host addresses is looked for by the devices' own, in their
//! media or in their files.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cxl_firmware::committed::{CommittedRegion, Probed};
use cxl_firmware::handoff;
use cxl_harness::kvm::Call as Slot;
use cxl_harness::run;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use cxl_model::trace::Target;
use libtest_mimic::Trial;

use crate::{GuestTrial, builtin, claim, options, payload, run as boot, working};

const UNIT: u64 = 256 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let sets = working().filter(|name| interleaved(name)).map(|name| {
        claim(format!("memory_of_{name}_is_the_same_with_and_without_mirror"), move || both(name))
    });
    sets.chain([
        claim("a_set_that_is_cut_anew_keeps_its_bytes_without_an_exit", regrain),
        claim("widths_by_window_and_leftovers_mean_the_same_in_a_guest", widths),
        claim("a_killed_machine_has_lost_nothing_of_its_persistent_set", killed),
    ])
    .collect()
}

/// Whether the firmware makes a set of more than one device of any of its memory.
fn interleaved(name: &str) -> bool {
    let mut machine = Machine::new(&builtin(name));
    let done = run::direct(&mut machine);
    let plan = &done.room.plan;
    plan.regions.iter().any(|region| plan.members(region).len() > 1)
}

/// Bytes by the devices' own addresses, behind every place that the payload `touch` stores to.
fn touched(ran: &GuestTrial) -> Vec<(usize, u64, u64)> {
    let fabric = ran.machine.fabric();
    let mut found = Vec::new();
    let record = handoff::read(ran.run.first.record()).unwrap();
    for span in record.regions().map(|region| region.span) {
        for page in [span.base().0, span.base().0 + span.size() - 4096] {
            for (at, want) in [(page, !page), (page + 4088, page ^ 0x5A5A)] {
                let path = cxl_model::mapping::resolve(&fabric, cxl_regs::Hpa(at)).unwrap();
                let (device, dpa) = (path.endpoint.device, path.dpa.0);
                assert_eq!(ran.media(device, dpa), want, "{at:#x}");
                found.push((device, dpa, want));
            }
        }
    }
    found
}

fn both(name: &str) {
    let on = payload(&builtin(name), "touch").good();
    let off = boot(
        &builtin(name),
        &cxl_harness::guest::boot::Options { payload: "touch", mirror: false, ..options() },
    )
    .good();
    assert!(on.run.mirror.unmirrored.is_empty(), "{:?}", on.run.mirror);
    let slots = &on.run.mirror.slots;
    // What lies behind a region, if a window has it: a store and a load that find nobody.
    let behind = slots.iter().map(|slot| slot.base + slot.size).filter(|end| {
        on.machine.target(*end) == Some(Target::Window)
            && !slots.iter().any(|slot| slot.base == *end)
    });
    let exits = 2 * behind.count() as u64;
    let regions = slots.len() as u64;
    assert_eq!(on.run.counts.window, exits, "no exit in a set");
    // The probe: 3 places in each way, 3 reads each and 2 writes of what is volatile, and what the
    // library says of it.
    let record = handoff::read(off.run.first.record()).unwrap();
    let each = |region: &CommittedRegion| if region.probed == Probed::Held { 15 } else { 9 };
    let probed: u64 =
        record.regions().map(|r| each(&r) * u64::from(r.interleave.ways.count())).sum();
    let library = off.run.first.handed.as_ref().unwrap().library;
    assert_eq!(library.memory_reads + library.memory_writes, probed);
    assert_eq!(off.run.counts.window, exits + 8 * regions + probed);
    assert_eq!(touched(&on), touched(&off));
    assert_eq!(touched(&on).len() as u64, 4 * regions);
}

/// The payload's values: members in order, sixteen each.
fn values() -> impl Iterator<Item = (usize, u64, u64)> {
    let places = (0..2).flat_map(|member| (0..16u64).map(move |n| (member, n * 0x1_7128)));
    places.map(|(member, at)| (member, at, !((member as u64) << 32 | at)))
}

fn regrain() {
    let ran = payload(&builtin("persistent-interleave"), "regrain").good();
    assert_eq!(ran.run.counts.window, 0);
    let log = ran.memory_log();
    let (add, remove) =
        (Slot::Add { base: 4 << 30, size: 2 * UNIT }, Slot::Remove { base: 4 << 30 });
    // The first commit, then seven granularities forty times.
    assert_eq!(log.len(), 1 + 2 * 7 * 40);
    assert!(log.chunks(2).all(|calls| calls == [add, remove] || calls == [add]));
    for (device, dpa, want) in values() {
        assert_eq!(ran.media(device, dpa), want, "{device} {dpa:#x}");
    }
}

/// Eight bytes of a device's file.
fn in_file(directory: &Path, device: usize, dpa: u64) -> u64 {
    let file = std::fs::File::open(directory.join(format!("pmem{device}.media"))).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, (2 << 20) + dpa).unwrap();
    u64::from_le_bytes(bytes)
}

fn cli(directory: &Path, payload: &str) -> Command {
    let words = ["boot", "persistent-interleave", "--quiet", "--timeout", "300"];
    let mut command = crate::program::command(&words);
    command.args(["--payload", payload, "--media"]).arg(directory);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn killed() {
    const KILLS: u64 = 12;
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let start = Instant::now();
    assert!(cli(directory.path(), "regrain").status().unwrap().success());
    let whole = start.elapsed();
    for kill in 0..=KILLS {
        // An orderly end leaves all in the devices' files; so does a start after another end.
        for (device, dpa, want) in values() {
            assert_eq!(in_file(directory.path(), device, dpa), want, "kill {kill}");
        }
        let mut child = cli(directory.path(), "regrain").spawn().unwrap();
        // Spread over a whole run, so that some moments fall into each part of it.
        std::thread::sleep(whole.mul_f64((kill as f64 + 0.5) / (KILLS + 1) as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        // The next start brings back what is left in the order of a set.
        assert!(cli(directory.path(), "none").status().unwrap().success());
    }
}

/// One bridge with four devices of different sizes, below a window that makes sets of them.
const UNEQUAL: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [
    { name = "rp0", below = "hb0" },
    { name = "rp1", below = "hb0" },
    { name = "rp2", below = "hb0" },
    { name = "rp3", below = "hb0" },
]
device = [
    { name = "mem0", below = "rp0", volatile = "1GiB" },
    { name = "mem1", below = "rp1", volatile = "512MiB" },
    { name = "mem2", below = "rp2", volatile = "256MiB" },
    { name = "mem3", below = "rp3", volatile = "768MiB" },
]
[policy]
leftovers = true
[[window]]
targets = ["hb0"]
size = "4GiB"
interleave = "4-way at 512"
"#;

fn widths() {
    let scenario = Scenario::parse(UNEQUAL, "unequal").unwrap();
    let mut direct = Machine::new(&scenario);
    let done = run::direct(&mut direct);
    assert!(done.refusal.is_none(), "{:?}", done.refusal);
    // 4, 2, 1 and 3 units: a set of four, then what is left in pairs.
    let sizes = done.room.plan.regions.iter().map(|region| region.span.size() / UNIT);
    assert_eq!(sizes.collect::<Vec<_>>(), [4, 2, 4]);
    let ran = payload(&scenario, "touch").good();
    assert_eq!(ran.machine.fabric(), direct.fabric());
    assert_eq!(ran.run.mirror.slots.len(), 3);
    assert_eq!(touched(&ran).len(), 12);
    // Without leftovers the rest is left alone, and the plan says how much.
    let text = UNEQUAL.replace("leftovers = true", "leftovers = false");
    let done = run::direct(&mut Machine::new(&Scenario::parse(&text, "unequal").unwrap()));
    assert_eq!((done.room.plan.regions.len(), done.room.plan.notes.len()), (1, 3));
}
