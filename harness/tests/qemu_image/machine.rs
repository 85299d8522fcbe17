//! A QEMU that boots our image, or another, and its ways to end.
//!
//! **Invariant**: every wait ends, and a test that gives up says what was on the console.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cxl_harness::guest::boot::IMAGE;
use cxl_harness::qemu::process::Process;
use cxl_harness::qemu::qtest::Qtest;
use cxl_image::doorbell::Status;
use tempfile::TempDir;

use crate::peer::LIMIT;

/// A boot takes a second or two of a processor; hosts are busy.
const BOOT: Duration = Duration::from_secs(180);
const RETRY: Duration = Duration::from_millis(20);

/// QEMU's exit code for a value that its exit device was given.
pub(crate) fn exit_code(value: u8) -> i32 {
    2 * i32::from(value) + 1
}

/// A machine to be.
pub(crate) struct Machine {
    arguments: Vec<OsString>,
    directory: TempDir,
}

impl Machine {
    /// From QEMU's arguments with blanks between.
    pub(crate) fn new(arguments: &str) -> Self {
        Self::of(IMAGE, arguments)
    }

    /// The same with another image.
    pub(crate) fn of(image: &[u8], arguments: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("image.elf"), image).unwrap();
        let fixed = "-accel tcg -cpu max -display none -nodefaults -monitor none";
        let words = fixed.split(' ').chain(arguments.split_ascii_whitespace());
        let mut arguments: Vec<OsString> = words.map(OsString::from).collect();
        for (word, file) in [("-serial", "serial"), ("-kernel", "image.elf")] {
            let path = directory.path().join(file).into_os_string();
            let prefix = if word == "-serial" { "file:" } else { "" };
            let mut value = OsString::from(prefix);
            value.push(path);
            arguments.extend([word.into(), value]);
        }
        Self { arguments, directory }
    }

    fn start(&mut self, line: &str, more: &[&str]) -> Process {
        let mut arguments = self.arguments.clone();
        arguments.extend(["-append", line].iter().chain(more).map(OsString::from));
        Process::start(&arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    fn console(&self) -> PathBuf {
        self.directory.path().join("serial")
    }

    /// Boots with this command line; the machine stays there when it is switched off.
    pub(crate) fn boot(mut self, line: &str) -> Booted {
        let socket = |name: &str| {
            let path = self.directory.path().join(name);
            (format!("unix:{},server=on,wait=off", path.display()), path)
        };
        let ((qtest, at), (qmp, control)) = (socket("qtest"), socket("qmp"));
        let more = ["-no-shutdown", "-qtest", &qtest, "-qtest-log", "/dev/null", "-qmp", &qmp];
        let mut process = self.start(line, &more);
        let qtest = Qtest::connect(&at, LIMIT);
        let qtest = qtest.unwrap_or_else(|error| panic!("{}", process.explain(error)));
        Booted { machine: self, process, qtest, control, seen: 0 }
    }

    /// Boots with an exit device; its exit code and its console.
    pub(crate) fn until_exit(mut self, line: &str) -> (Option<i32>, String) {
        let device = "isa-debug-exit,iobase=0xf4,iosize=4";
        let process = self.start(line, &["-no-reboot", "-device", device]);
        self.gone(process)
    }

    /// Boots without one.
    pub(crate) fn until_off(mut self, line: &str) -> (Option<i32>, String) {
        let process = self.start(line, &["-no-reboot"]);
        self.gone(process)
    }

    fn gone(self, mut process: Process) -> (Option<i32>, String) {
        let status = process.wait(BOOT);
        let console = fs::read_to_string(self.console()).unwrap_or_default();
        match status {
            Some(status) => (status.code(), console),
            None => panic!("QEMU does not end: {}\n{console}", process.words()),
        }
    }
}

/// A machine that runs, or has run.
pub(crate) struct Booted {
    machine: Machine,
    process: Process,
    pub(crate) qtest: Qtest,
    /// QEMU's control socket (QMP).
    control: PathBuf,
    /// Bytes of the console that belong to earlier runs.
    seen: usize,
}

impl Booted {
    /// Waits until the image says how it ended; what it said in this run.
    pub(crate) fn until_end(&mut self, status: Status) -> String {
        let last = format!("end: {}\n", status.name());
        let limit = Instant::now() + BOOT;
        loop {
            let ended = self.process.ended();
            let text = fs::read(self.machine.console()).unwrap_or_default();
            let text = text.get(self.seen..).unwrap_or_default();
            let console = String::from_utf8_lossy(text).into_owned();
            let end = console.lines().any(|line| line.starts_with("end: "));
            if end && console.ends_with('\n') {
                assert!(console.ends_with(&last), "{console}");
                self.seen += text.len();
                return console;
            }
            if ended.is_some() || Instant::now() >= limit {
                panic!("no end of the run: {ended:?} {}\n{console}", self.process.words());
            }
            sleep(RETRY);
        }
    }

    /// Resets the machine once it is off, as its reset button does.
    pub(crate) fn reset(&mut self) {
        let stream = UnixStream::connect(&self.control).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut stream = stream;
        // The greeting; then each command is answered, with events in between.
        lines.next().unwrap().unwrap();
        let mut ask = |command: &str| {
            writeln!(stream, "{{\"execute\": \"{command}\"}}").unwrap();
            lines
                .by_ref()
                .map(Result::unwrap)
                .find(|line| line.contains("\"return\"") || line.contains("\"error\""))
                .unwrap()
        };
        assert!(ask("qmp_capabilities").contains("\"return\""));
        let limit = Instant::now() + LIMIT;
        while !ask("query-status").contains("\"shutdown\"") {
            assert!(Instant::now() < limit, "the machine is not switched off");
            sleep(RETRY);
        }
        for command in ["system_reset", "cont"] {
            let answer = ask(command);
            assert!(answer.contains("\"return\""), "{command}: {answer}");
        }
    }
}
