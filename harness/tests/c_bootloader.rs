//! The bootloader in C (`firmware/c/example`), compiled by gcc and by clang, linked with the archive,
//! boots on QEMU and does there what our image does: the same registers, read from outside, the same
//! table, the same record.
//!
//! On aarch64 it runs bare, on QEMU's machine `virt`: nobody has assigned a bus or a BAR there. Its
//! registers are held against values typed by hand.
//!
//! **Invariant**: what the bootloader says is compared, never believed. A compiler, or a QEMU, that is
//! not there shows as ignored, by name.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bare;
mod peer;

#[path = "qemu_image/machine.rs"]
#[allow(dead_code, reason = "this program uses a part")]
mod machine;
#[path = "qemu_image/outside.rs"]
mod outside;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cxl_harness::qemu::process;
use cxl_harness::qemu::qtest::Qtest;
use cxl_image::doorbell::Status;
use object::{Object, ObjectSymbol};

use bare::AARCH64;
use machine::Machine;
use outside::{Component, Outside};
use peer::{LIMIT, claim, trial};

/// The most lines of C that the bootloader may have.
const MOST_LINES: usize = 250;

const RAM: &str = "-m 1G,maxmem=8G,slots=4 -M q35,cxl=on";

fn main() -> ExitCode {
    let no_qemu = process::available().err().map(|_| "needs QEMU".to_owned());
    let mut trials = vec![claim("the_bootloader_is_short", short)];
    for compiler in ["gcc", "clang"] {
        let lack = (!answers(compiler)).then(|| format!("needs {compiler}"));
        let example = claim(format!("what_the_readme_shows_compiles_with_{compiler}"), move || {
            shown(compiler);
        });
        trials.push(trial::unless(lack.clone(), example));
        let linked = claim(format!("an_archive_linked_by_{compiler}_cannot_panic"), move || {
            cannot_panic(compiler);
        });
        trials.push(trial::unless(lack.clone(), linked));
        for (name, machine) in machines() {
            // One is enough to see that the other compiler's code runs.
            if compiler == "gcc" || name == "a_switch" {
                let trial = claim(
                    format!("bootloader_by_{compiler}_does_what_the_image_does_on_{name}"),
                    move || same(compiler, &machine),
                );
                trials.push(trial::unless(no_qemu.clone().or(lack.clone()), trial));
            }
        }
        let refused =
            claim(format!("a_refusal_is_told_by_the_bootloader_of_{compiler}"), move || {
                refused(compiler);
            });
        trials.push(trial::unless(no_qemu.clone().or(lack), refused));
    }
    let lack = no_aarch64().or((!answers("clang")).then(|| "needs clang".to_owned()));
    for (name, arguments, expected) in bare_machines() {
        let trial = claim(format!("bootloader_on_bare_aarch64_brings_up_{name}"), move || {
            bare(&arguments, &expected);
        });
        trials.push(trial::unless(lack.clone(), trial));
    }
    trial::run(trials)
}

fn answers(compiler: &str) -> bool {
    let version = Command::new(compiler).arg("--version").output();
    // What clang links for other machines with is lld.
    version.is_ok_and(|output| output.status.success())
}

fn bridge(number: u8, id: &str) -> String {
    format!(" -device pxb-cxl,bus_nr={number},bus=pcie.0,id={id},hdm_for_passthrough=true")
}

fn port(number: u8, bus: &str, id: &str, slot: u8) -> String {
    format!(" -device cxl-rp,port={number},bus={bus},id={id},chassis=0,slot={slot}")
}

fn memory(bus: &str, id: &str, kind: &str) -> String {
    format!(
        " -object memory-backend-ram,id={id}-mem,share=on,size=256M \
         -object memory-backend-ram,id={id}-lsa,share=on,size=1M \
         -device cxl-type3,bus={bus},{kind}-memdev={id}-mem,lsa={id}-lsa,id={id}"
    )
}

fn machines() -> Vec<(&'static str, String)> {
    let one = |kind: &str| {
        RAM.to_owned()
            + ",cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4G"
            + &bridge(12, "hb0")
            + &port(0, "hb0", "rp0", 2)
            + &memory("rp0", "mem0", kind)
    };
    let two = RAM.to_owned()
        + ",cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4G,cxl-fmw.1.targets.0=hb1,cxl-fmw.1.size=4G"
        + &bridge(12, "hb0")
        + &bridge(20, "hb1")
        + &port(0, "hb0", "rp0", 2)
        + &port(0, "hb1", "rp1", 3)
        + &memory("rp0", "mem0", "volatile")
        + &memory("rp1", "mem1", "volatile");
    let switch = RAM.to_owned()
        + ",cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4G"
        + &bridge(12, "hb0")
        + &port(0, "hb0", "rp0", 2)
        + " -device cxl-upstream,bus=rp0,id=us0"
        + " -device cxl-downstream,port=0,bus=us0,id=dsp0,chassis=0,slot=4"
        + " -device cxl-downstream,port=1,bus=us0,id=dsp1,chassis=0,slot=5"
        + &memory("dsp0", "mem0", "volatile")
        + &memory("dsp1", "mem1", "volatile");
    vec![
        ("one_device", one("volatile")),
        ("persistent_memory", one("persistent")),
        ("two_bridges", two),
        ("a_switch", switch),
    ]
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/c/example")
}

fn readme() -> String {
    fs::read_to_string(example().join("../README.md")).unwrap()
}

/// What the README shows compiles, with no more than the header.
fn shown(compiler: &str) {
    let readme = readme();
    let blocks: Vec<&str> = readme.split("```c\n").skip(1).collect();
    assert!(!blocks.is_empty());
    let directory = tempfile::tempdir().unwrap();
    for block in blocks {
        let source = directory.path().join("shown.c");
        fs::write(&source, block.split("```").next().unwrap()).unwrap();
        // A gcc without its C++ is a usual one.
        let standards = ["-std=c11", "-xc++"].into_iter().take(1 + usize::from(compiler != "gcc"));
        for standard in standards {
            // Designated initialisers are C's.
            let text = ["#include \"cxl_firmware.h\"\n", block.split("```").next().unwrap()];
            fs::write(&source, text[usize::from(standard == "-std=c11")]).unwrap();
            let output = Command::new(compiler)
                .args([
                    standard,
                    "-Wall",
                    "-Wextra",
                    "-Wpedantic",
                    "-Werror",
                    "-fsyntax-only",
                    "-I",
                ])
                .arg(example().join(".."))
                .arg(&source)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{compiler} {standard}:\n{errors}");
        }
    }
}

fn short() {
    let text = |name: &str| fs::read_to_string(example().join(name)).unwrap();
    let all = ["boot.c", "machine.h", "x86_64.c"].map(text).concat();
    let lines = all.lines().count();
    assert!(lines <= MOST_LINES, "the bootloader has {lines} lines of C");
    let longest = all.lines().map(|line| line.chars().count()).max();
    assert!(longest <= Some(100), "a line of {longest:?} columns");
}

const X86: &str = "x86_64-unknown-linux-gnu";

/// The archive for this machine, or for bare aarch64.
fn archive(target: &str) -> &'static Path {
    static MADE: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    MADE[usize::from(target == AARCH64)].get_or_init(|| make_archive(target))
}

/// Makes it as the README of the crate says, in a folder that no outer cargo has locked.
fn make_archive(target: &str) -> PathBuf {
    let folder = bare::folder("c");
    let readme = readme();
    let command = readme.lines().find_map(|line| line.strip_prefix("$ cargo rustc "));
    let words: Vec<_> = command.expect("the README says how").split(' ').collect();
    let output = bare::cargo("rustc", target, &folder).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no archive:\n{errors}");
    folder.join(target).join("archive/libcxl_firmware_c.a")
}

/// The bootloader as a compiler makes it.
fn bootloader(compiler: &str) -> Vec<u8> {
    bootloader_for(X86, compiler)
}

fn bootloader_for(target: &str, compiler: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let elf = directory.path().join("boot.elf");
    let output = Command::new(example().join("build.sh"))
        .arg(compiler)
        .arg(archive(target))
        .arg(&elf)
        .arg(target.split('-').next().unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler}:\n{errors}");
    assert_eq!(errors.trim(), "", "{compiler} has warnings");
    fs::read(elf).unwrap()
}

/// What is linked of the library has no function that a panic would end in.
fn cannot_panic(compiler: &str) {
    let elf = bootloader(compiler);
    let file = object::File::parse(&*elf).unwrap();
    let names: Vec<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    assert!(names.contains(&"cxl_bring_up"), "{names:?}");
    let panics: Vec<_> = names.iter().filter(|name| name.contains("panick")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// The bytes behind a name on the console, of as many as it says.
fn bytes(console: &str, name: &str) -> Vec<u8> {
    let prefix = format!("{name} 0x");
    let line = console.lines().find_map(|line| line.strip_prefix(&prefix));
    let (length, hex) =
        line.unwrap_or_else(|| panic!("no {name}:\n{console}")).split_once(": ").unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let found: Vec<u8> = (0..hex.trim_end().len()).step_by(2).map(byte).collect();
    assert_eq!(found.len(), usize::from_str_radix(length, 16).unwrap());
    found
}

/// The bytes of a section of the image's dump.
fn dumped(console: &str, kind: &str) -> Vec<u8> {
    let begin = format!("dump begin {kind} ");
    let end = format!("dump end {kind}");
    let lines = console.lines().skip_while(|line| !line.starts_with(&begin)).skip(1);
    let lines = lines.take_while(|line| *line != end);
    let hex: String = lines.map(|line| line.split_once(": ").unwrap().1.trim_end()).collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A record without what depends on where it was made: where the table lies, and the digest.
fn fixed(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    record[24..32].fill(0);
    record[56..64].fill(0);
    record
}

/// KiB of stack that the bootloader may take, from its first instruction to its end: what
/// firmware/c/README.md says.
const MOST_STACK: u64 = 12;

/// How much stack was taken: what of it is not as QEMU makes memory, all zeroes.
fn stack_is_bounded(elf: &[u8], qtest: &mut Qtest, what: &str) {
    let file = object::File::parse(elf).unwrap();
    let at = |name: &str| {
        let mut symbols = file.symbols();
        symbols.find(|symbol| symbol.name() == Ok(name)).expect(name).address()
    };
    let (base, end) = (at("stack"), at("stack_end"));
    let mut bytes = vec![0; (end - base) as usize];
    qtest.read_memory(base, &mut bytes).unwrap();
    let untouched = bytes.iter().take_while(|byte| **byte == 0).count() as u64;
    let used = end - base - untouched;
    println!("stack of the bootloader in C, {what}: {used} bytes");
    assert!(used > 1 << 10, "{what}: {used} bytes are too few to be true");
    assert!(used <= MOST_STACK << 10, "{what}: {used} bytes");
}

fn same(compiler: &str, arguments: &str) {
    let elf = bootloader(compiler);
    let mut ours = Machine::of(&elf, arguments).boot("");
    let console = ours.until_end(Status::Success);
    stack_is_bounded(&elf, &mut ours.qtest, &format!("x86-64, {compiler}"));
    let found = Outside::new(&mut ours.qtest).components();
    let mut image = Machine::new(arguments).boot("dump");
    let expected_console = image.until_end(Status::Success);
    let expected = Outside::new(&mut image.qtest).components();
    assert_eq!(found, expected, "{console}\n{expected_console}");

    let (cedt, image_cedt) = (bytes(&console, "cedt"), dumped(&expected_console, "cedt"));
    // Behind the header, which says who made it.
    assert_eq!(cedt[36..], image_cedt[36..]);
    assert_eq!(&cedt[10..28], b"EXAMPLC BOOTER\x01\0\0\0");
    assert_eq!(cedt.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "its checksum");
    let (record, image_record) = (bytes(&console, "record"), dumped(&expected_console, "handoff"));
    assert_eq!(fixed(&record), fixed(&image_record));

    // What it says for people, against the registers: each region is a decoder of a device.
    let devices = |component: &&Component| component.device.is_some();
    let used = found.iter().filter(devices).flat_map(|component| &component.used);
    let mut expected: Vec<String> = used
        .map(|decoder| {
            assert_eq!(decoder.control & 0x500, 0x500, "committed and locked");
            let (base, size) = (decoder.base, decoder.size);
            format!("region: 0x{base:016x} size 0x{size:016x} ways 01 granularity 0100 locked")
        })
        .collect();
    expected.sort();
    let lines = console.lines().map(str::trim_end).filter(|line| line.starts_with("region: "));
    let mut said: Vec<String> = lines.map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, expected, "{console}");
    assert!(!said.is_empty());
}

/// A machine without CXL has no CEDT.
fn refused(compiler: &str) {
    let mut booted = Machine::of(&bootloader(compiler), "-m 1G -M q35").boot("");
    let console = booted.until_end(Status::Refused);
    let words = "CEDT: status -0x01, platform: the root table lists no CEDT (0x103)\n";
    assert!(console.contains(words), "{console}");
}

/// What is missing to run bare on aarch64.
fn no_aarch64() -> Option<String> {
    // `virt` has CXL from 11.0 on; its help does not list it.
    if bare::qemu_version().is_none_or(|major| major < 11) {
        return Some("needs a QEMU for aarch64 with CXL (11.0), by QEMU_AARCH64".into());
    }
    bare::no_target()
}

/// A decoder in use: offset in the window and size in MiB, Control, and the route.
type Expected = (u64, u64, u32, [u32; 2]);

/// A machine's name, QEMU's words for it, and its decoders in use: of each component by the bridge's
/// number and the numbers on the way.
type BareMachine = (&'static str, String, Vec<(&'static [u8], Vec<Expected>)>);

/// Machines of `virt`.
fn bare_machines() -> Vec<BareMachine> {
    // Committed, Commit and Lock On Commit, host-only.
    const LOCKED: u32 = 0x1700;
    let board = "-m 1G,maxmem=8G,slots=4 -M virt,cxl=on,cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4G";
    let one = board.to_owned()
        + &bridge(12, "hb0")
        + &port(0, "hb0", "rp0", 2)
        + &memory("rp0", "mem0", "volatile");
    let switch = board.to_owned()
        + &bridge(12, "hb0")
        + &port(0, "hb0", "rp0", 2)
        + " -device cxl-upstream,bus=rp0,id=us0"
        + " -device cxl-downstream,port=0,bus=us0,id=dsp0,chassis=0,slot=4"
        + " -device cxl-downstream,port=1,bus=us0,id=dsp1,chassis=0,slot=5"
        + &memory("dsp0", "mem0", "volatile")
        + &memory("dsp1", "mem1", "volatile");
    let first = || vec![(0, 256, LOCKED, [0, 0])];
    let both = |route| vec![(0, 256, LOCKED, [0, 0]), (256, 256, LOCKED, [route, 0])];
    vec![
        ("one_device", one, vec![(&[12][..], first()), (&[12, 0, 0], first())]),
        (
            "a_switch",
            switch,
            vec![
                (&[12][..], both(0)),
                (&[12, 0, 0], both(1)),
                (&[12, 0, 0, 0, 0], first()),
                (&[12, 0, 0, 1, 0], vec![(256, 256, LOCKED, [0, 0])]),
            ],
        ),
    ]
}

/// A QEMU that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bare(arguments: &str, expected: &[(&[u8], Vec<Expected>)]) {
    // Where QEMU's `virt` has configuration space (hw/arm/virt.c).
    const ECAM: u64 = 0x40_1000_0000;
    const MIB: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let elf = bootloader_for(AARCH64, "clang");
    fs::write(at("boot.elf"), &elf).unwrap();
    let mut qemu = Command::new(bare::qemu());
    qemu.args("-accel tcg -cpu max -display none -nodefaults -monitor none".split(' '));
    qemu.args(arguments.split_ascii_whitespace());
    qemu.arg("-serial").arg(format!("file:{}", at("serial").display()));
    qemu.arg("-kernel").arg(at("boot.elf"));
    qemu.arg("-qtest").arg(format!("unix:{},server=on,wait=off", at("qtest").display()));
    qemu.args(["-qtest-log", "/dev/null"]);
    let mut running = Running(qemu.spawn().unwrap());
    let mut qtest = Qtest::connect(&at("qtest"), LIMIT).unwrap();
    let limit = Instant::now() + Duration::from_secs(120);
    let console = loop {
        let console = fs::read_to_string(at("serial")).unwrap_or_default();
        if console.lines().any(|line| line.starts_with("end: ")) && console.ends_with('\n') {
            break console;
        }
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < limit, "{ended:?}\n{console}");
        sleep(Duration::from_millis(20));
    };
    assert!(console.ends_with("end: success\n"), "{console}");
    stack_is_bounded(&elf, &mut qtest, "aarch64, clang");
    let cedt = bytes(&console, "cedt");
    let mut outside = Outside::bare(&mut qtest, ECAM, cedt);
    let [window] = outside.windows()[..] else { panic!("one window") };
    let mut found = outside.components();
    for (path, expected) in expected {
        let at = found.iter().position(|component| component.path == *path);
        let component =
            found.remove(at.unwrap_or_else(|| panic!("nothing at {path:?}: {found:x?}")));
        let expected: Vec<outside::Decoder> = expected
            .iter()
            .map(|&(offset, mib, control, route)| outside::Decoder {
                base: window + offset * MIB,
                size: mib * MIB,
                control,
                route,
            })
            .collect();
        assert_eq!(component.used, expected, "{path:?}\n{console}");
        if let Some(device) = component.device {
            // Mem_Enable, and HDM Decoder Enable.
            assert_eq!((device.control & 0x4, device.global & 0x2), (0x4, 0x2), "{path:?}");
        }
    }
    assert!(found.iter().all(|component| component.used.is_empty()), "{found:x?}");
    let record = bytes(&console, "record");
    let record = cxl_firmware::handoff::read(&record).unwrap();
    let spans: Vec<u64> = record.regions().map(|region| region.span.base().0).collect();
    let of_bridge = expected.iter().find(|(path, _)| path.len() == 1).map(|(_, all)| all.iter());
    let wanted: Vec<u64> = of_bridge.unwrap().map(|(offset, ..)| window + offset * MIB).collect();
    assert_eq!(spans, wanted, "the record's regions");
}
