//! Persistent media in files: nothing that was stored is lost, wherever the machine stops; and files
//! that are not what they should be are errors that say so.
//!
//! **Invariant**: what a device holds is read by its own addresses from a machine that was started
//! afresh, and compared with what was stored by host addresses, dealt out here by plain division.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as the tests may")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;
mod trial;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use cxl_harness::mirror::{Limits, Mirror, Unmirrored};
use cxl_model::machine::{Machine, SetRefusal};
use cxl_model::store::{Store, StoreError};
use cxl_regs::Dpa;
use cxl_regs::mmio::Mmio;
use libtest_mimic::Arguments;
use rig::*;
use trial::claim;
use vm_memory::{Bytes, VolatileMemory};

/// A directory that costs no disk where the host has memory for it: the kernel keeps pages of either
/// when a process dies.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Tells this program to be the one that is killed, and where it keeps its media.
const CHILD: &str = "CXL_STORE_TEST_DIRECTORY";

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(CHILD) {
        child(Path::new(&directory));
    }
    let trials = [
        ("what_was_stored_is_there_next_time", next_time as fn()),
        ("a_machine_that_stops_before_any_change_of_a_file_loses_nothing", every_step),
        ("a_machine_that_is_killed_at_any_moment_loses_no_finished_store", killed),
        ("a_set_that_cannot_be_moved_traps_and_keeps_its_bytes", refused),
        ("files_that_are_not_what_they_should_be_are_named", bad_files),
        ("files_of_others_are_left_alone_and_waited_for_by_nobody", others),
        ("what_is_no_file_is_refused_and_left_as_it_is", no_files),
        ("a_forged_set_is_refused_and_nothing_is_moved", forged),
        ("of_several_sets_all_are_brought_back_or_none", all_or_none),
        ("a_directory_has_one_machine_at_a_time", busy),
        ("a_directory_is_created_and_nothing_above_it", parents),
        ("a_file_is_laid_out_as_documented", layout),
    ];
    let trials = trials.map(|(name, test)| claim(name, test));
    let mut arguments = Arguments::from_args();
    // A process that is being started has its parent's files open for a moment, locks included.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

const BASE: u64 = 0x1_0000_0000;
const ON: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };
const MEMBERS: u64 = 4;

/// One bridge and four devices, volatile memory first.
fn text() -> String {
    let mut text = format!(
        "[[bridge]]\nname = \"hb0\"\nuid = 16\n[[window]]\ntargets = [\"hb0\"]\nbase = {BASE}\n\
         size = \"2GiB\"\n"
    );
    for n in 0..MEMBERS {
        text += &format!(
            "[[port]]\nname = \"rp{n}\"\nbelow = \"hb0\"\nnumber = {n}\n[[device]]\nname = \"mem{n}\"\n\
             below = \"rp{n}\"\nvolatile = \"256MiB\"\npersistent = \"256MiB\"\n"
        );
    }
    text
}

/// A way to commit the devices' persistent memory as one set.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    ways: u64,
    granule: u64,
}

impl Cut {
    /// The device behind an offset into the set, and its address.
    fn owner(self, offset: u64) -> (usize, u64) {
        let index = offset / self.granule;
        let at = index / self.ways * self.granule + offset % self.granule;
        ((index % self.ways) as usize, UNIT + at)
    }

    /// The same the other way round.
    fn offset(self, device: u64, at: u64) -> u64 {
        (at / self.granule * self.ways + device) * self.granule + at % self.granule
    }

    fn write(self, machine: &mut Machine, commit: bool) {
        let control = (self.granule.trailing_zeros() - 8) | (self.ways.trailing_zeros() << 4);
        let control = HOST_ONLY | control | if commit { COMMIT } else { 0 };
        let size = self.ways * UNIT;
        let targets = (0..self.ways).fold(0, |list, port| list | port << (8 * port));
        if !commit {
            program(machine, "hb0", 0, (BASE, size, targets), control);
        }
        for n in 0..self.ways {
            let name = format!("mem{n}");
            // The volatile memory is skipped over.
            program(machine, &name, 0, (BASE, size, UNIT), control);
            enable(machine, &name);
        }
        if commit {
            program(machine, "hb0", 0, (BASE, size, targets), control);
        }
    }
}

fn start(directory: &Path, stop_after: u64) -> Result<Machine, StoreError> {
    let store = Store::open(directory)?;
    store.stop_after(stop_after);
    let mut machine = machine(&text());
    machine.keep_media(store)?;
    Ok(machine)
}

/// Commits; whether the set is one slot then.
fn commit(machine: &mut Machine, cut: Cut) -> Option<Mirror> {
    cut.write(machine, true);
    let mirror = Mirror::follow(machine, &ON);
    (mirror.slots.len() == 1).then_some(mirror)
}

fn uncommit(machine: &mut Machine, cut: Cut) {
    cut.write(machine, false);
    assert_eq!(Mirror::follow(machine, &ON).slots, []);
}

fn store(mirror: &Mirror, offset: u64, value: u64) {
    let slot = &mirror.slots[0];
    let memory = slot.memory.as_volatile_slice();
    memory
        .store(value, (slot.offset + offset) as usize, std::sync::atomic::Ordering::SeqCst)
        .unwrap();
}

type Held = BTreeMap<(usize, u64), u64>;

fn media(machine: &Machine, (device, dpa): (usize, u64)) -> u64 {
    let mut bytes = [0; 8];
    assert!(machine.endpoint(device).unwrap().media.read(Dpa(dpa), &mut bytes));
    u64::from_le_bytes(bytes)
}

fn check(machine: &Machine, held: &Held) {
    for (&place, want) in held {
        assert_eq!(media(machine, place), *want, "{place:x?}");
    }
}

const FIRST: Cut = Cut { ways: 4, granule: 256 };
const SECOND: Cut = Cut { ways: 2, granule: 4096 };

/// Places in a set, and a value for each.
fn fill(mirror: &Mirror, cut: Cut, held: &mut Held, seed: u64) {
    // Every other page that holds something is cleared: a move must not bring the old bytes back.
    let cleared = held.clone().into_iter().step_by(2);
    for (place, _) in cleared.filter(|((device, _), _)| (*device as u64) < cut.ways) {
        let (device, dpa) = place;
        store(mirror, cut.offset(device as u64, dpa - UNIT), 0);
        held.insert(place, 0);
    }
    for n in 0..48u64 {
        let offset = (n * 0x5_2340 % (cut.ways * UNIT)) & !7;
        let value = (seed << 32 | n).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        store(mirror, offset, value);
        held.insert(cut.owner(offset), value);
    }
}

fn next_time() {
    // On a disk, as far as there is one.
    let directory = tempfile::tempdir().unwrap();
    let mut held = Held::new();
    for (round, cut) in
        [FIRST, SECOND, Cut { ways: 1, granule: 256 }, FIRST].into_iter().enumerate()
    {
        let mut machine = start(directory.path(), u64::MAX).unwrap();
        check(&machine, &held);
        let mirror = commit(&mut machine, cut).unwrap();
        check(&machine, &held);
        fill(&mirror, cut, &mut held, round as u64);
        check(&machine, &held);
        // The set has a file of its own, in the order of host addresses.
        let file = directory.path().join("mem0@0x0.set");
        assert_eq!(file.exists(), cut.ways > 1);
        if cut.ways > 1 {
            let file = std::fs::File::open(file).unwrap();
            for (&(device, dpa), want) in held.iter().filter(|((device, _), _)| *device < 2) {
                let mut bytes = [0; 8];
                let at = (2 << 20) + cut.offset(device as u64, dpa - UNIT);
                file.read_exact_at(&mut bytes, at).unwrap();
                assert_eq!(u64::from_le_bytes(bytes), *want);
            }
        }
        if round == 1 {
            uncommit(&mut machine, cut);
            assert!(!directory.path().join("mem0@0x0.set").exists());
        }
    }
    // A device's file is its memory in the order of DPA.
    drop(start(directory.path(), u64::MAX).unwrap());
    for (&(device, dpa), want) in &held {
        let file =
            std::fs::File::open(directory.path().join(format!("mem{device}.media"))).unwrap();
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, (2 << 20) + dpa - UNIT).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), *want);
    }
    // Volatile memory is not in it.
    assert!(std::fs::metadata(directory.path().join("mem0.media")).unwrap().len() < 2 * UNIT);
}

/// Changes of files in all that follows, when nothing stops it.
fn run(directory: &Path, stop_after: u64, before: &Held) -> Result<u64, Held> {
    let mut held = before.clone();
    let Ok(mut machine) = start(directory, stop_after) else { return Err(held) };
    check(&machine, &held);
    let mut whole = true;
    for (seed, cut) in [(1, FIRST), (2, SECOND)] {
        if let Some(mirror) = commit(&mut machine, cut) {
            check(&machine, &held);
            fill(&mirror, cut, &mut held, seed);
        } else {
            whole = false;
        }
        check(&machine, &held);
        cut.write(&mut machine, false);
        Mirror::follow(&mut machine, &ON);
        check(&machine, &held);
    }
    let left = machine.media_store().unwrap().changes_left();
    if whole && left != 0 { Ok(stop_after - left) } else { Err(held) }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy_file(&entry.path(), &to.join(entry.file_name()));
    }
}

/// `cp` keeps holes.
fn copy_file(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

fn every_step() {
    let all = {
        let directory = scratch();
        run(directory.path(), 1 << 20, &Held::new()).expect("nothing stops it")
    };
    assert!(all > 60, "{all} changes");
    for stop in 0..=all {
        let directory = scratch();
        let Err(held) = run(directory.path(), stop, &Held::new()) else {
            assert_eq!(stop, all);
            continue;
        };
        // The next start may be stopped too, and the one after that.
        for again in [0, 1, 2, 5, 9] {
            drop(start(directory.path(), again));
        }
        let mut machine = start(directory.path(), u64::MAX).unwrap();
        check(&machine, &held);
        assert!(commit(&mut machine, FIRST).is_some());
        check(&machine, &held);
        drop(machine);
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, MEMBERS as usize + 2, "four devices, a set and the lock");
    }
}

/// One store, about to happen or finished.
const ABOUT: u8 = 1;
const DONE: u8 = 2;
const RECORD: usize = 1 + 3 * 8;

/// Commits, stores, takes back, and so on until somebody kills it. Every store is announced before
/// and reported after it.
fn child(directory: &Path) -> ! {
    let mut out = std::io::stdout().lock();
    let mut tell = |kind: u8, (device, dpa): (usize, u64), value: u64| {
        let mut record = vec![kind];
        record.extend([device as u64, dpa, value].into_iter().flat_map(u64::to_le_bytes));
        out.write_all(&record).unwrap();
        out.flush().unwrap();
    };
    let mut machine = start(directory, u64::MAX).unwrap();
    let mut seed = std::process::id().into();
    let mut random = move || {
        seed = u64::wrapping_mul(seed, 0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        seed >> 24
    };
    loop {
        let ways = [2, 4][(random() % 2) as usize];
        let cut = Cut { ways, granule: 256 << (random() % 6) };
        let mirror = commit(&mut machine, cut).unwrap();
        for _ in 0..random() % 60 {
            let offset = (random() % (ways * (4 << 20))) & !7;
            let (place, value) = (cut.owner(offset), random() | 1);
            tell(ABOUT, place, value);
            store(&mirror, offset, value);
            tell(DONE, place, value);
        }
        uncommit(&mut machine, cut);
    }
}

/// The kernel's random numbers; which moments they pick is of no account to the outcome.
fn random() -> u64 {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn killed() {
    const KILLS: usize = 40;
    let directory = scratch();
    let mut held = Held::new();
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            output.read_to_end(&mut all).map(|_| all).unwrap()
        });
        std::thread::sleep(Duration::from_micros(20_000 + random() % 250_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let records = reader.join().unwrap();
        let mut pending = None;
        for record in records.chunks_exact(RECORD) {
            let word =
                |n: usize| u64::from_le_bytes(record[1 + 8 * n..9 + 8 * n].try_into().unwrap());
            let (place, value) = ((word(0) as usize, word(1)), word(2));
            match record[0] {
                ABOUT => pending = Some((place, value)),
                DONE => {
                    held.insert(place, value);
                    pending = None;
                }
                other => panic!("{other}"),
            }
        }
        *states.entry(state(directory.path())).or_default() += 1;
        let machine = start(directory.path(), u64::MAX).unwrap();
        if let Some((place, value)) = pending {
            // The one store that was under way may have happened or not, and nothing between.
            let found = media(&machine, place);
            assert!(found == value || Some(&found) == held.get(&place) || found == 0, "{found:#x}");
            held.insert(place, found);
        }
        check(&machine, &held);
    }
    assert!(held.len() > 100, "{} stores in {KILLS} runs", held.len());
    // Not asserted: which moments it were is up to the host.
    eprintln!("{} places; killed in these states: {states:?}", held.len());
}

/// The state in the header of the set's file, if there is one.
fn state(directory: &Path) -> String {
    let mut state = [0; 8];
    match std::fs::File::open(directory.join("mem0@0x0.set")) {
        Ok(file) => file.read_exact_at(&mut state, 24).unwrap(),
        Err(_) => return "no set".to_owned(),
    }
    String::from_utf8_lossy(&state).into_owned()
}

fn refused() {
    let directory = scratch();
    let mut held = Held::new();
    let mut machine = start(directory.path(), u64::MAX).unwrap();
    let mirror = commit(&mut machine, FIRST).unwrap();
    fill(&mirror, FIRST, &mut held, 3);
    // It cannot be brought back: it stays in order, and bytes are found there.
    machine.media_store().unwrap().stop_after(0);
    FIRST.write(&mut machine, false);
    assert_eq!(Mirror::follow(&mut machine, &ON).slots, []);
    check(&machine, &held);
    SECOND.write(&mut machine, true);
    let mirror = Mirror::follow(&mut machine, &ON);
    assert_eq!(mirror.slots, []);
    assert_eq!(mirror.unmirrored, [(0, Unmirrored::NotInOrder(Some(SetRefusal::Taken)))]);
    check(&machine, &held);
    for (&(device, dpa), want) in held.iter().filter(|((device, _), _)| *device < 2) {
        let hpa = BASE + SECOND.offset(device as u64, dpa - UNIT);
        let found = u64::from(machine.read(hpa)) | u64::from(machine.read(hpa + 4)) << 32;
        assert_eq!(found, *want);
    }
    // Flat memory of a device that a set still has is no slot either.
    SECOND.write(&mut machine, false);
    let flat = Cut { ways: 1, granule: 256 };
    flat.write(&mut machine, true);
    let mirror = Mirror::follow(&mut machine, &ON);
    assert_eq!(mirror.unmirrored, [(0, Unmirrored::NotInOrder(Some(SetRefusal::Taken)))]);
    // Once files can be changed again, all is well.
    machine.media_store().unwrap().stop_after(u64::MAX);
    assert_eq!(Mirror::follow(&mut machine, &ON).slots.len(), 1);
    check(&machine, &held);
    // A set that cannot be made leaves everything as it was.
    flat.write(&mut machine, false);
    machine.media_store().unwrap().stop_after(5);
    FIRST.write(&mut machine, true);
    let mirror = Mirror::follow(&mut machine, &ON);
    let why = Unmirrored::NotInOrder(Some(SetRefusal::Storage(libc_eio())));
    assert_eq!(mirror.unmirrored, [(0, why)]);
    check(&machine, &held);
}

/// The number of EIO, which is the same on every Linux.
fn libc_eio() -> i32 {
    5
}

fn bad_files() {
    let good = scratch();
    let mut held = Held::new();
    {
        let mut machine = start(good.path(), u64::MAX).unwrap();
        let mirror = commit(&mut machine, FIRST).unwrap();
        fill(&mirror, FIRST, &mut held, 4);
    }
    let set = "mem0@0x0.set";
    let overwrite = |file: &'static str, at: u64, bytes: &'static [u8]| {
        move |directory: &Path| {
            let file = std::fs::OpenOptions::new().write(true).open(directory.join(file)).unwrap();
            file.write_all_at(bytes, at).unwrap();
        }
    };
    let cut = |file: &'static str, length: u64| {
        move |directory: &Path| {
            let file = std::fs::OpenOptions::new().write(true).open(directory.join(file)).unwrap();
            file.set_len(length).unwrap();
        }
    };
    type Harm = Box<dyn Fn(&Path)>;
    let cases: [(Harm, &str); 11] = [
        (
            Box::new(overwrite("mem1.media", 0, b"#!/bin/s")),
            "mem1.media: expected a file that starts with \"CXLMEDIA\", found \"#!/bin/s\"",
        ),
        (
            Box::new(cut("mem1.media", 0)),
            "mem1.media: expected a file that starts with \"CXLMEDIA\", found \"\"",
        ),
        (Box::new(cut("mem2.media", 100)), "mem2.media: expected 2097152 bytes, found 100"),
        (
            Box::new(cut("mem2.media", 1 << 24)),
            "mem2.media: expected 270532608 bytes, found 16777216",
        ),
        (
            Box::new(overwrite("mem3.media", 8, &[9])),
            "mem3.media: format 9; this program knows format 1",
        ),
        (
            Box::new(overwrite("mem3.media", 24, &[9])),
            "mem3.media: the header is damaged: its checksum does not fit",
        ),
        (
            Box::new(overwrite(set, 3, b"X")),
            "mem0@0x0.set: expected a file that starts with \"CXL-SET\\x00\"",
        ),
        (
            Box::new(overwrite(set, 24, b"x")),
            "mem0@0x0.set: the header is damaged: it is in no state that there is",
        ),
        (
            Box::new(overwrite(set, 12, &[1])),
            "mem0@0x0.set: the header is damaged: its checksum does not fit",
        ),
        (Box::new(cut(set, 1 << 28)), "mem0@0x0.set: expected 1075838976 bytes, found 268435456"),
        (
            Box::new(|directory: &Path| {
                std::fs::rename(directory.join("mem1.media"), directory.join("mem2.media"))
                    .unwrap();
            }),
            "mem2.media: it belongs to another device: expected name mem2, found mem1",
        ),
    ];
    for (harm, want) in cases {
        let directory = scratch();
        copy(good.path(), directory.path());
        harm(directory.path());
        let error = start(directory.path(), u64::MAX).expect_err(want).to_string();
        let told = error.strip_prefix(&format!("{}/", directory.path().display()));
        assert!(told.is_some_and(|told| told.starts_with(want)), "{error}\n{want}");
    }
    // A set of devices that this machine does not have: nothing of it is thrown away.
    let other = text().replace("\"mem3\"", "\"mem9\"");
    let mut without = machine(&other);
    let error = without.keep_media(Store::open(good.path()).unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("it has bytes of mem3, a device that this machine does not have"),
        "{error}"
    );
    let machine = start(good.path(), u64::MAX).unwrap();
    check(&machine, &held);
}

fn others() {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name);
    let kept = ["notes.new", "letter.txt.new", "new"];
    for name in kept {
        std::fs::write(path(name), "theirs").unwrap();
    }
    std::fs::create_dir(path("folder.new")).unwrap();
    drop(start(directory.path(), u64::MAX).unwrap());
    // Files of ours that were never finished: by their header, or by what the lock says.
    std::fs::copy(path("mem1.media"), path("mem1.media.new")).unwrap();
    std::fs::write(path("mem2@0x0.set.new"), "").unwrap();
    std::fs::write(path("lock"), "CXL-LOCK mem2@0x0.set.new").unwrap();
    // Names of ours, and files of others: whatever they are, and whether they are in the way or not.
    let theirs = ["mem9.media.new", "mem0@0x0.set.new", "mem3.media.new"];
    std::fs::write(path(theirs[0]), "").unwrap();
    std::fs::write(path(theirs[1]), "theirs").unwrap();
    std::os::unix::fs::symlink(path("mem1.media"), path(theirs[2])).unwrap();
    let mut machine = start(directory.path(), u64::MAX).unwrap();
    assert!(!path("mem1.media.new").exists() && !path("mem2@0x0.set.new").exists());
    // What is in the way keeps the set from being put in order, and stays.
    FIRST.write(&mut machine, true);
    let mirror = Mirror::follow(&mut machine, &ON);
    // EEXIST is 17 on every Linux.
    let exists = Unmirrored::NotInOrder(Some(SetRefusal::Storage(17)));
    assert_eq!(mirror.unmirrored, [(0, exists)]);
    drop(machine);
    for name in kept {
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), "theirs", "{name}");
    }
    assert!(path("folder.new").is_dir());
    assert_eq!(std::fs::read(path(theirs[0])).unwrap(), b"");
    assert_eq!(std::fs::read(path(theirs[1])).unwrap(), b"theirs");
    assert_eq!(std::fs::read_link(path(theirs[2])).unwrap(), path("mem1.media"));
    // A device whose file is not there, and whose name while it is being made is taken.
    std::fs::remove_file(path("mem0.media")).unwrap();
    std::fs::write(path("mem0.media.new"), "theirs").unwrap();
    let error = start(directory.path(), u64::MAX).unwrap_err().to_string();
    assert!(error.contains("mem0.media.new: a file of this name is to be created"), "{error}");
    assert_eq!(std::fs::read(path("mem0.media.new")).unwrap(), b"theirs");
    std::fs::remove_file(path("mem0.media.new")).unwrap();
    drop(start(directory.path(), u64::MAX).unwrap());
    // A pipe that nobody writes to.
    assert!(Command::new("mkfifo").arg(path("x.set")).status().unwrap().success());
    let error = start(directory.path(), u64::MAX).unwrap_err().to_string();
    assert!(error.contains("x.set: expected a file, found a pipe"), "{error}");
}

/// What is no file is not locked, not followed and not replaced.
fn no_files() {
    let refused = |what: &str, make: &dyn Fn(&Path)| {
        let directory = scratch();
        make(directory.path());
        let error = start(directory.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    };
    let fifo = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let link = |to: &str, path: &Path| std::os::unix::fs::symlink(to, path).unwrap();
    refused("lock: expected a file, found a pipe", &|at| fifo(&at.join("lock")));
    refused("lock: expected a file, found a link", &|at| link("/dev/full", &at.join("lock")));
    refused("lock: expected a file, found a link", &|at| link("elsewhere", &at.join("lock")));
    refused("lock: expected a file that starts with \"CXL-LOCK \"", &|at| {
        std::fs::write(at.join("lock"), "somebody's own").unwrap();
    });
    refused("mem1.media: expected a file, found a link that leads nowhere", &|at| {
        link("nowhere", &at.join("mem1.media"));
    });
    refused("mem1.media: expected a file, found a device", &|at| {
        link("/dev/full", &at.join("mem1.media"));
    });
    refused("mem1.media: expected a file, found a pipe", &|at| fifo(&at.join("mem1.media")));
    // What somebody else has in the lock's place is still there.
    let directory = scratch();
    std::fs::write(directory.path().join("lock"), "somebody's own").unwrap();
    assert!(Store::open(directory.path()).is_err());
    assert_eq!(std::fs::read(directory.path().join("lock")).unwrap(), b"somebody's own");
}

/// A set that nobody made: its checksum is right, and what it says is not. Nothing is moved.
fn forged() {
    type Forge = fn(&mut [u8]);
    const MEMBER: usize = 72;
    let cases: [(Forge, &str); 6] = [
        (
            |header| header.copy_within(0x50..0x50 + MEMBER, 0x50 + MEMBER),
            "the header is damaged: it has one device twice",
        ),
        (
            |header| header[0x50 + MEMBER..0x50 + MEMBER + 64].fill(0),
            "the header is damaged: a member of it has no name",
        ),
        (
            |header| header[0x50 + MEMBER + 64..0x50 + MEMBER + 72].fill(0xFF),
            "the header is damaged: a share of it is at no place that a decoder can lead to",
        ),
        (
            |header| {
                let unit = (256u64 << 20).to_le_bytes();
                header[0x50 + MEMBER + 64..0x50 + MEMBER + 72].copy_from_slice(&unit);
            },
            "it has the bytes of mem1 up to 0x20000000; the device has 0x10000000",
        ),
        (
            |header| header[0x50..0x54].copy_from_slice(b"memX"),
            "the header is damaged: it is of a set whose file has another name",
        ),
        (
            |header| header[0x50 + MEMBER..0x50 + MEMBER + 4].copy_from_slice(b"memX"),
            "it has bytes of memX, a device that this machine does not have",
        ),
    ];
    for (forge, want) in cases {
        let directory = scratch();
        let mut held = Held::new();
        let mut machine = start(directory.path(), u64::MAX).unwrap();
        let mirror = commit(&mut machine, SECOND).unwrap();
        fill(&mirror, SECOND, &mut held, 5);
        drop((machine, mirror));
        let path = directory.path().join("mem0@0x0.set");
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut header = vec![0; 0x50 + 16 * MEMBER];
        file.read_exact_at(&mut header, 0).unwrap();
        let good = header.clone();
        let sign = |header: &mut [u8]| {
            let state: [u8; 8] = header[0x18..0x20].try_into().unwrap();
            header[0x10..0x20].fill(0);
            let fnv = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            let sum = header.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
            header[0x10..0x18].copy_from_slice(&sum.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&state);
        };
        sign(&mut header);
        assert_eq!(header, good, "the checksum is that of the documentation");
        forge(&mut header);
        sign(&mut header);
        file.write_all_at(&header, 0).unwrap();
        let error = start(directory.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains(want), "{error}\n{want}");
        // With the true header all of it is there.
        file.write_all_at(&good, 0).unwrap();
        check(&start(directory.path(), u64::MAX).unwrap(), &held);
    }
}

/// Of two sets one is of a device that is not there: the other is not moved either.
fn all_or_none() {
    let directory = scratch();
    let mut held = Held::new();
    let mut machine = start(directory.path(), u64::MAX).unwrap();
    let mirror = commit(&mut machine, SECOND).unwrap();
    fill(&mirror, SECOND, &mut held, 6);
    drop((machine, mirror));
    let (good, bad) =
        (directory.path().join("mem0@0x0.set"), directory.path().join("memY@0x0.set"));
    copy_file(&good, &bad);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&bad).unwrap();
    let mut header = vec![0; 0x50 + 16 * 72];
    file.read_exact_at(&mut header, 0).unwrap();
    header[0x50..0x54].copy_from_slice(b"memY");
    header[0x50 + 72..0x50 + 76].copy_from_slice(b"memZ");
    header[0x10..0x20].fill(0);
    let fnv = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let sum = header.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    header[0x10..0x18].copy_from_slice(&sum.to_le_bytes());
    header[0x18..0x20].copy_from_slice(b"in order");
    file.write_all_at(&header, 0).unwrap();
    let error = start(directory.path(), u64::MAX).unwrap_err().to_string();
    assert!(error.contains("memY@0x0.set: it has bytes of memY"), "{error}");
    assert!(good.exists() && bad.exists());
    std::fs::remove_file(bad).unwrap();
    check(&start(directory.path(), u64::MAX).unwrap(), &held);
}

fn busy() {
    let directory = scratch();
    let first = Store::open(directory.path()).unwrap();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Busy { .. }), "{error}");
    drop(first);
    Store::open(directory.path()).unwrap();
}

fn parents() {
    let scratch = scratch();
    let parent = scratch.path().join("vra");
    let directory = parent.join("cxl");
    let error = Store::open(&directory).unwrap_err();
    let StoreError::NoParent { path, parent: missing } = &error else { panic!("{error}") };
    assert_eq!((path, missing), (&directory, &parent));
    let words = format!(
        "{}: there is no {} to create it in; create that first, or correct the name",
        directory.display(),
        parent.display()
    );
    assert_eq!(error.to_string(), words);
    assert!(!parent.exists());
    std::fs::create_dir(&parent).unwrap();
    drop(Store::open(&directory).unwrap());
    // It may be there already; a file in its place is not one.
    drop(Store::open(&directory).unwrap());
    std::fs::write(parent.join("file"), "").unwrap();
    let error = Store::open(&parent.join("file")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(Store::open(&parent.join("file").join("cxl")).is_err());
}

/// Offsets by hand, out of the documentation.
fn layout() {
    let directory = scratch();
    let text = "[[bridge]]\nname = \"hb0\"\nuid = 16\n[[port]]\nname = \"rp0\"\nbelow = \"hb0\"\n\
         [[port]]\nname = \"rp1\"\nbelow = \"hb0\"\n\
         [[device]]\nname = \"both\"\nbelow = \"rp0\"\nvolatile = \"512MiB\"\n\
         persistent = \"256MiB\"\nserial = 0x1234\n\
         [[device]]\nname = \"all\"\nbelow = \"rp1\"\npersistent = \"256MiB\"\n";
    let mut machine = machine(text);
    machine.keep_media(Store::open(directory.path()).unwrap()).unwrap();
    for (device, dpa, bytes) in
        [(0, 0x2000_0000, b"first"), (0, 0x2000_1000, b"later"), (1, 0, b"zero!")]
    {
        assert!(machine.endpoint_mut(device).unwrap().media.write(Dpa(dpa), bytes));
    }
    let read = |file: &str, at: u64, length: usize| {
        let mut bytes = vec![0; length];
        std::fs::File::open(directory.path().join(file))
            .unwrap()
            .read_exact_at(&mut bytes, at)
            .unwrap();
        bytes
    };
    assert_eq!(read("both.media", 0x00, 8), b"CXLMEDIA");
    assert_eq!(read("both.media", 0x08, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read("both.media", 0x18, 8), [0, 0, 0, 0x10, 0, 0, 0, 0]);
    assert_eq!(read("both.media", 0x20, 8), [0x34, 0x12, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read("both.media", 0x28, 6), b"both\0\0");
    assert_eq!(read("both.media", 0x20_0000, 5), b"first");
    assert_eq!(read("both.media", 0x20_1000, 5), b"later");
    assert_eq!(read("all.media", 0x20_0000, 5), b"zero!");
    let mut header = read("both.media", 0, 0x68);
    let sum = u64::from_le_bytes(header[0x10..0x18].try_into().unwrap());
    header[0x10..0x18].fill(0);
    let fnv = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    assert_eq!(header.iter().fold(0xcbf2_9ce4_8422_2325, fnv), sum);
    let length = std::fs::metadata(directory.path().join("both.media")).unwrap().len();
    assert_eq!(length, 0x20_0000 + 0x1000_0000);

    // A set.
    let other = scratch();
    let mut machine = start(other.path(), u64::MAX).unwrap();
    let mirror = commit(&mut machine, FIRST).unwrap();
    store(&mirror, 0x40, 0x1122_3344_5566_7788);
    let file = std::fs::File::open(other.path().join("mem0@0x0.set")).unwrap();
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    assert_eq!(read(0, 12), b"CXL-SET\0\x01\0\0\0");
    let ways = FIRST.ways.ilog2() as u8;
    assert_eq!(read(0x0C, 4), [ways, (FIRST.granule / 256).ilog2() as u8, FIRST.ways as u8, 0]);
    assert_eq!(read(0x18, 8), b"in order");
    assert_eq!(read(0x20, 8), BASE.to_le_bytes());
    assert_eq!(read(0x30, 8), FIRST.granule.to_le_bytes());
    assert_eq!(read(0x50, 5), b"mem0\0");
    assert_eq!(read(0x50 + 72, 5), b"mem1\0");
    assert_eq!(read(0x20_0040, 8), 0x1122_3344_5566_7788u64.to_le_bytes());
}
