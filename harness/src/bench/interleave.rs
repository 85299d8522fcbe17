//! Figures of interleaved sets: access at the speed of RAM whatever the ways and granularity, moves
//! at the speed of memcpy, commits that do not look at memory nobody touched, and planning.
//!
//! **Invariant**: as in the rest of the bench; what is compared is touched and mapped alike on both
//! sides before the first pair.

use std::cell::RefCell;
use std::fmt::Write;
use std::time::{Duration, Instant};

use cxl_firmware::discover::discover;
use cxl_firmware::plan::plan;
use cxl_image::doorbell::{Call, Figure};
use cxl_regs::{DECODER_UNIT, Granularity, Hpa, Interleave, Selector, Ways};

use super::{BenchError, Line, PAIRS, Stage, alternate, line, ticks_per_nanosecond};
use crate::guest::Guest;
use crate::guest::boot::{Options, boot};
use crate::kvm::{Bus, End, Slot, Vm, patience};
use crate::mirror::Limits;
use crate::run::{self, Room, RunRequest};
use cxl_model::backing::Backing;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use cxl_model::set::{self, Layout, Share};

/// All of them.
pub(super) const STAGES: &[Stage] = &[
    ("access to sets of every ways and granularity, inside guests", access),
    ("moves into the order of host addresses and back", moves),
    ("commit of sets that nobody touched", untouched),
    ("planning 16 bridges with 16 devices each", || Ok(vec![planning()?])),
];

fn broken(what: impl std::fmt::Display) -> BenchError {
    BenchError::Kvm(what.to_string())
}

/// A set of devices of `share` bytes: what two, four and eight ways need hangs below one bridge.
fn scenario(interleave: Interleave, share: u64) -> Result<Scenario, BenchError> {
    let ways = interleave.ways.count();
    let (bridges, ports) = match ways {
        16 => (2, 8),
        3 | 6 | 12 => (ways, 1),
        ways => (1, ways),
    };
    let names: Vec<String> = (0..bridges).map(|bridge| format!("\"hb{bridge}\"")).collect();
    // Twice what the set needs: behind it the window traps.
    let size = 2 * u64::from(ways) * share;
    let mut text = format!(
        "[policy]\npath = \"unlocked\"\ninterleave = \"widest\"\ntarget = \"specification\"\n\
         [[window]]\ntargets = [{}]\nsize = {size}\ngranularity = {}\n",
        names.join(", "),
        interleave.granularity.bytes(),
    );
    for bridge in 0..bridges {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[[bridge]]\nname = \"hb{bridge}\"\nuid = {}", 16 * bridge);
        for port in 0..ports {
            let name = format!("rp{bridge}-{port}");
            let _ = writeln!(
                text,
                "[[port]]\nname = \"{name}\"\nbelow = \"hb{bridge}\"\n[[device]]\nbelow = \
                 \"{name}\"\nvolatile = {share}"
            );
        }
    }
    Scenario::parse(&text, "bench").map_err(broken)
}

/// Cache lines in the payload's sweep.
const SWEPT: f64 = ((16 << 20) / 64) as f64;

/// For each way count, the granularity at which a sweep compares worst.
fn access() -> Result<Vec<Line>, BenchError> {
    const NAMES: [&str; 8] = [
        "sweep of a 1-way window / of guest RAM, worst granularity",
        "sweep of a 2-way window / of guest RAM, worst granularity",
        "sweep of a 4-way window / of guest RAM, worst granularity",
        "sweep of an 8-way window / of guest RAM, worst granularity",
        "sweep of a 16-way window / of guest RAM, worst granularity",
        "sweep of a 3-way window / of guest RAM, worst granularity",
        "sweep of a 6-way window / of guest RAM, worst granularity",
        "sweep of a 12-way window / of guest RAM, worst granularity",
    ];
    let scale = 1.0 / (ticks_per_nanosecond() * SWEPT);
    let mut lines = Vec::new();
    for (ways, name) in Ways::ALL.into_iter().zip(NAMES) {
        let sets = Granularity::ALL.map(|granularity| Interleave::new(ways, granularity));
        let mut worst: Option<Line> = None;
        for interleave in sets.into_iter().filter(|set| set.decodable().is_ok()) {
            let mut found = vec![swept(interleave, name, scale)?];
            // Whether the host has huge pages left for one side and not for the other is settled
            // when a guest starts. Of a set that comes out badly, the middle of three guests counts.
            if found.iter().all(|line| line.ratio > line.aim) {
                found.extend([swept(interleave, name, scale)?, swept(interleave, name, scale)?]);
            }
            found.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
            let middle = found.swap_remove(found.len() / 2);
            if worst.as_ref().is_none_or(|worst| worst.ratio < middle.ratio) {
                worst = Some(middle);
            }
        }
        lines.extend(worst);
    }
    Ok(lines)
}

/// A sweep of one set against one of RAM, in a guest of its own.
fn swept(interleave: Interleave, name: &'static str, scale: f64) -> Result<Line, BenchError> {
    let mut machine = Machine::new(&scenario(interleave, DECODER_UNIT)?);
    let timeout = patience(Duration::from_secs(120));
    let run = boot(&mut machine, &Options { payload: "sweep", timeout, ..Options::default() })?;
    if run.last().end != End::Exit(0x10) {
        return Err(BenchError::Ended(run.last().end.clone()));
    }
    let mapped = run.mirror.slots.iter().map(|slot| slot.size).sum::<u64>();
    let size = u64::from(interleave.ways.count()) * DECODER_UNIT;
    if mapped != size || run.counts.window != 0 {
        return Err(broken(format_args!("{interleave} is not mirrored")));
    }
    let pairs = run.last().said.calls.iter().filter_map(|call| match *call {
        Call::Pair { figure: Figure::Sweep, a, b } => Some((a as f64, b as f64)),
        _ => None,
    });
    Ok(line(name, "ns", 1.05, &pairs.collect::<Vec<_>>(), scale))
}

/// Bytes that a member of a set to be moved holds.
const HELD: u64 = 16 << 20;

/// Gather and scatter of four members against memcpy of the same bytes, all pages warm.
fn moves() -> Result<Vec<Line>, BenchError> {
    let mut lines = Vec::new();
    for (granularity, aim, names) in [
        (Granularity::B256, 2.0, ["gather at 256 B / memcpy", "scatter at 256 B / memcpy"]),
        (Granularity::K4, 1.3, ["gather at 4 KiB / memcpy", "scatter at 4 KiB / memcpy"]),
        (Granularity::K8, 1.3, ["gather at 8 KiB / memcpy", "scatter at 8 KiB / memcpy"]),
    ] {
        let selector = Selector::modulo(Interleave::new(Ways::Four, granularity));
        let layout = Layout::new(Hpa(1 << 32), 4 * DECODER_UNIT, selector);
        let layout = layout.ok_or_else(|| broken("no layout"))?;
        let members: Vec<Share> =
            (0..4).map(|_| Share { memory: Backing::new(DECODER_UNIT), start: 0 }).collect();
        let (set, plain) = (Backing::new(layout.size()), Backing::new(4 * HELD));
        let page: Vec<u8> = (0..4096u32).map(|byte| (byte % 251) as u8 + 1).collect();
        let touch = |memory: &Backing, bytes: u64| {
            (0..bytes).step_by(page.len()).all(|at| memory.write(at, &page))
        };
        if !members.iter().all(|share| touch(&share.memory, HELD)) || !touch(&plain, 4 * HELD) {
            return Err(broken("no memory for the moves"));
        }
        let check = |done: bool| done.then_some(()).ok_or_else(|| broken("a move went wrong"));
        let gathered = || set::gather(&layout, &members, &set, &mut || Ok(())).map_err(broken);
        let scattered = || set::scatter(&layout, &members, &set, &mut || Ok(())).map_err(broken);
        let copied_in = || {
            let mut members = (0..).zip(&members);
            check(members.all(|(n, member)| memcpy(&plain, n * HELD, &member.memory, 0)))
        };
        let copied_out = || {
            let mut members = (0..).zip(&members);
            check(members.all(|(n, member)| memcpy(&member.memory, 0, &plain, n * HELD)))
        };
        let [gather, scatter] = names;
        let pairs = alternate(|| timed(gathered), || timed(copied_in))?;
        lines.push(line(gather, "ms", aim, &pairs, 1e-6));
        let pairs = alternate(|| timed(scattered), || timed(copied_out))?;
        lines.push(line(scatter, "ms", aim, &pairs, 1e-6));
    }
    Ok(lines)
}

/// What the C library makes of a member's bytes in one piece.
fn memcpy(to: &Backing, at: u64, from: &Backing, start: u64) -> bool {
    let place = |memory: &Backing, at: u64| {
        let fits = at.checked_add(HELD)? <= memory.size();
        fits.then(|| memory.region().map(|region| region.as_ptr().wrapping_add(at as usize)))?
    };
    let (Some(to), Some(from)) = (place(to, at), place(from, start)) else { return false };
    // SAFETY: both ranges lie inside mappings that the caller holds, and those are two.
    unsafe { std::ptr::copy_nonoverlapping(from, to, HELD as usize) };
    true
}

fn timed(mut what: impl FnMut() -> Result<(), BenchError>) -> Result<Duration, BenchError> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed())
}

/// A machine with one set, whose last commit is taken back and made again.
struct Toggled {
    machine: Machine,
    vm: Vm,
    /// The control register of the decoder that completes the path, and its committed value.
    control: (u64, u32),
}

impl Toggled {
    fn new(size: u64) -> Result<Self, BenchError> {
        let four = Interleave::new(Ways::Four, Granularity::B256);
        let mut scenario = scenario(four, size / 4)?;
        // Marks would touch the memory.
        scenario.policy.probe = false;
        let mut machine = Machine::new(&scenario);
        let done = run::direct(&mut machine);
        if let Some(refusal) = &done.refusal {
            return Err(broken(refusal));
        }
        let control = super::last_control(&done).ok_or_else(|| broken("no decoder"))?;
        let vm = Vm::new(&[(0, 1 << 20)], 48).map_err(broken)?;
        Ok(Self { machine, vm, control })
    }

    /// The time from the store that commits to the slots that it asks for, and of the ioctl alone.
    fn commit(&mut self) -> Result<(Duration, Duration), BenchError> {
        let Self { machine, vm, control: (at, value) } = self;
        let limits = Limits {
            enabled: true,
            bytes: u64::MAX,
            slots: usize::MAX,
            address_bits: vm.address_bits(),
        };
        let ram = vm.ram().clone();
        let mut guest = Guest::new(machine, ram, limits, |_| {});
        guest.write(*at, &(*value & !(1 << 9)).to_le_bytes());
        let none = guest.slots().unwrap_or_default();
        vm.remap(&none).map_err(broken)?;
        // Once without KVM and the clock: the ioctl that took a slot of 1 TiB away has left the
        // caches cold, and its time is not to be counted.
        guest.write(*at, &value.to_le_bytes());
        guest.slots();
        guest.write(*at, &(*value & !(1 << 9)).to_le_bytes());
        guest.slots();
        let start = Instant::now();
        guest.write(*at, &value.to_le_bytes());
        let slots: Vec<Slot> = guest.slots().unwrap_or_default();
        let host = start.elapsed();
        let memory = |slots: &[Slot]| slots.iter().filter(|slot| !slot.read_only).count();
        if (memory(&none), memory(&slots)) != (0, 1) {
            return Err(broken("the set is not one slot"));
        }
        let start = Instant::now();
        vm.remap(&slots).map_err(broken)?;
        Ok((host, start.elapsed()))
    }
}

/// Commit of 1 TiB that nobody touched against 1 GiB, and beside it what KVM takes for the slots.
fn untouched() -> Result<Vec<Line>, BenchError> {
    let (large, small) = (Toggled::new(1 << 40)?, Toggled::new(1 << 30)?);
    let (large, small) = (RefCell::new(large), RefCell::new(small));
    let (mut slow, mut fast) = (Vec::new(), Vec::new());
    let pairs = alternate(
        || {
            let (host, ioctl) = large.borrow_mut().commit()?;
            slow.push(ioctl.as_nanos() as f64);
            Ok(host)
        },
        || {
            let (host, ioctl) = small.borrow_mut().commit()?;
            fast.push(ioctl.as_nanos() as f64);
            Ok(host)
        },
    )?;
    // The first one warms up, as everywhere.
    let ioctls: Vec<_> = slow.into_iter().zip(fast).skip(1).collect();
    let kvm = "its ioctl alone: KVM's time for 1 TiB / for 1 GiB";
    Ok(vec![
        line("commit of an untouched 1 TiB set / 1 GiB, no ioctl", "us", 1.5, &pairs, 1e-3),
        // KVM's own affair: linear in size where it keeps a table entry for each page.
        line(kvm, "us", 1024.0, &ioctls, 1e-3),
    ])
}

/// What a plan of 256 devices in sets of 16 may take.
const PLANNING: f64 = 5e6;

fn planning() -> Result<Line, BenchError> {
    let mut text = String::from("[policy]\ninterleave = \"widest\"\n");
    for bridge in 0..16 {
        let _ = writeln!(
            text,
            "[[bridge]]\nname = \"hb{bridge}\"\nuid = {bridge}\nsegment = {}\nbus = {}\ndecoders = 16",
            bridge / 8,
            bridge % 8 * 32,
        );
        for port in 0..16 {
            let _ = writeln!(
                text,
                "[[port]]\nname = \"rp{bridge}-{port}\"\nbelow = \"hb{bridge}\"\nnumber = {port}\n\
                 [[device]]\nbelow = \"rp{bridge}-{port}\"\nvolatile = \"1GiB\""
            );
        }
        if bridge % 2 == 1 {
            let _ = writeln!(
                text,
                "[[window]]\ntargets = [\"hb{}\", \"hb{bridge}\"]\nsize = \"64GiB\"",
                bridge - 1
            );
        }
    }
    let mut machine = Machine::new(&Scenario::parse(&text, "bench").map_err(broken)?);
    let wanted = RunRequest::of(&machine).map_err(broken)?;
    let tables = run::platform(&machine).map_err(broken)?;
    let mut room = run::room();
    let Room { topology, plan: made, .. } = &mut *room;
    let mut clock = machine.clock();
    discover(&mut machine, &mut clock, &tables.platform(), &mut *topology).map_err(broken)?;
    let mut times = Vec::new();
    for _ in 0..=PAIRS {
        let start = Instant::now();
        plan(&tables.platform(), &*topology, &wanted.policy(), &mut *made).map_err(broken)?;
        times.push((start.elapsed().as_nanos() as f64, PLANNING));
    }
    let members: usize = made.regions.iter().map(|region| made.members(region).len()).sum();
    let sets = made.regions.iter().filter(|region| made.members(region).len() == 16).count();
    if (members, sets) != (256, 16) {
        return Err(broken(format_args!("{members} devices in {sets} sets of 16")));
    }
    let pairs = times.split_off(1);
    Ok(line("planning 16 x 16 devices in sets of 16 / 5 ms", "ms", 1.0, &pairs, 1e-6))
}
