//! The hand-over itself: where the kernel may come from, and what the image says of one that it
//! cannot enter.
//!
//! **Invariant**: a case that is refused ends by itself, with the exit code of a refusal.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use cxl_harness::guest::boot::IMAGE;
use cxl_harness::linux::Installed;
use cxl_harness::qemu::command::Command;
use cxl_harness::qemu::process::Process;
use cxl_model::scenario::Scenario;

/// What QEMU exits with when the image says "refused" (twice the value written, and one), and when
/// the machine switches itself off or restarts.
const REFUSED: i32 = 35;
const OFF: i32 = 0;

/// A case: RAM in MiB, more words for the image, how the kernel is given, the exit code, and what
/// the console has to hold.
type Case = (u32, &'static str, Kernel, i32, &'static str);

#[derive(Clone, Copy)]
enum Kernel {
    Nothing,
    /// As the file of fw_cfg, cut to so many bytes.
    File(usize),
    /// As the only PVH module.
    Module,
    /// Some text that is no kernel.
    Text,
}

const WHOLE: usize = usize::MAX;

const CASES: [Case; 7] = [
    (1024, "", Kernel::Nothing, REFUSED, "linux: no kernel: give one as fw_cfg file opt/org.cxl"),
    (1024, "", Kernel::Text, REFUSED, "signature at 0x1fe is 0x6565, a bzImage has 0xaa55"),
    (1024, "", Kernel::File(300), REFUSED, "has 300 bytes, too few for a setup header"),
    (1024, "", Kernel::File(5_000_000), REFUSED, "the file has 5000000: it is cut off"),
    (64, "", Kernel::File(WHOLE), REFUSED, "bytes of free RAM for the kernel: give the machine"),
    (1024, "ring3", Kernel::File(WHOLE), REFUSED, "Linux needs privilege level 0"),
    // No initrd: the kernel starts, finds no root and restarts.
    (1024, "", Kernel::Module, OFF, "Command line: console=ttyS0 panic=-1 no_timer_check"),
];

/// Each of them on a machine of its own.
pub(crate) fn cases() {
    let installed = Installed::find().unwrap();
    let scenario = Scenario::built_in("one-device").unwrap();
    for (memory, words, given, code, says) in CASES {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("image"), IMAGE).unwrap();
        let mut kernel = fs::read(&installed.kernel).unwrap();
        match given {
            Kernel::File(size) => kernel.truncate(size),
            Kernel::Text => kernel = vec![b'e'; 4096],
            Kernel::Nothing | Kernel::Module => {}
        }
        fs::write(at("kernel"), kernel).unwrap();

        let mut arguments = Command::of(&scenario, None).unwrap().arguments();
        let mut add = |option: &str, start: &str, end: &Path| {
            let mut value = OsString::from(start);
            value.push(end);
            arguments.extend([option.into(), value]);
        };
        // The last of two sizes counts.
        add("-m", &format!("{memory}M"), Path::new(""));
        add("-serial", "file:", &at("console"));
        add("-kernel", "", &at("image"));
        let line = format!("payload=linux {words} -- console=ttyS0 panic=-1 no_timer_check");
        add("-append", &line, Path::new(""));
        match given {
            Kernel::Nothing => {}
            Kernel::Module => add("-initrd", "", &at("kernel")),
            Kernel::File(_) | Kernel::Text => {
                add("-fw_cfg", "name=opt/org.cxl-firmware/kernel,file=", &at("kernel"));
            }
        }
        let plain = "-accel tcg -display none -nodefaults -no-reboot \
                     -device isa-debug-exit,iobase=0xf4,iosize=4";
        arguments.extend(plain.split_whitespace().map(OsString::from));
        let mut qemu = Process::start(&arguments).unwrap();
        let status = qemu.wait(Duration::from_secs(120)).and_then(|status| status.code());
        let console = String::from_utf8_lossy(&fs::read(at("console")).unwrap()).into_owned();
        assert!(console.contains(says), "\"{says}\" is not in\n{}{console}", qemu.words());
        assert_eq!(status, Some(code), "{says}\n{}{console}", qemu.words());
    }
}
