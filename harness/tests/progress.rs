//! What long work shows of itself, as a terminal has it on its screen: one line, that fits, and nothing
//! in the end; by whatever it ends. And what is printed there: no line is longer than a terminal is wide.
//!
//! **Invariant**: the program runs with a terminal of its own, whose every byte goes through an emulator
//! that is not ours.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use program::{Folder, command, ran};

const ROWS: u16 = 24;

/// A device with a long name, so that lines are too long.
const NAME: &str = "a-device-with-quite-a-long-name";

fn scenario(folder: &Folder, of: &str) -> String {
    let text = cxl_model::scenario::builtin(of).unwrap().text;
    assert!(text.contains("name = \"mem0\""));
    folder.file("long.toml", text.replace("\"mem0\"", &format!("\"{NAME}\"")))
}

/// A terminal, and what was ever to be seen on it.
struct Terminal {
    ours: File,
    screen: vt100::Parser,
    /// The screen after each piece that came, without what is blank.
    seen: Vec<String>,
}

impl Terminal {
    fn new(columns: u16) -> (Self, OwnedFd) {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call writes two descriptors, and reads the size.
        let opened = unsafe {
            libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size)
        };
        assert_eq!(opened, 0);
        // SAFETY: nobody else has this descriptor.
        let ours = unsafe { File::from_raw_fd(ours) };
        // SAFETY: as above.
        let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
        let [rows, columns] = [ROWS, columns].map(|count| NonZeroU16::new(count).unwrap());
        (Self { ours, screen: vt100::Parser::new(rows, columns, 0), seen: Vec::new() }, theirs)
    }

    /// Runs a command with its standard error here; at the first line that `at` likes, a key is pressed.
    fn run(&mut self, mut command: Command, theirs: OwnedFd, at: &str, key: &[u8]) -> Output {
        command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(theirs);
        let controlling = || {
            // SAFETY: both are system calls on numbers.
            let made = unsafe { libc::setsid() };
            // SAFETY: as above.
            let ours = unsafe { libc::ioctl(2, libc::TIOCSCTTY, 0) };
            if made < 0 || ours < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: what runs between fork and exec are two system calls.
        unsafe { command.pre_exec(controlling) };
        let mut child = command.spawn().unwrap();
        drop(command);
        // What is printed is to have a reader, however much it is.
        let mut stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).map(|_| all)
        });
        let (mut piece, mut pressed) = ([0; 4096], key.is_empty());
        // A terminal whose other side is closed has an error of its own.
        while let Ok(count @ 1..) = self.ours.read(&mut piece) {
            self.screen.process(&piece[..count]);
            let shown = self.shown();
            if !pressed && shown.contains(at) {
                self.ours.write_all(key).unwrap();
                pressed = true;
            }
            if self.seen.last() != Some(&shown) && !shown.is_empty() {
                self.seen.push(shown);
            }
        }
        assert!(pressed, "{:?}", self.seen);
        let status = child.wait().unwrap();
        Output { status, stdout: reader.join().unwrap().unwrap(), stderr: Vec::new() }
    }

    fn shown(&self) -> String {
        self.screen.screen().contents().trim_end().to_owned()
    }

    /// The program left nothing, and the next prompt stands where a prompt stands.
    fn is_clean(&self) {
        assert_eq!(self.shown(), "", "{:?}", self.seen);
        assert_eq!(self.screen.screen().cursor_position(), (0, 0), "{:?}", self.seen);
    }
}

/// Whatever the width: one line, which says how far it is, and is gone in the end.
#[test]
fn progress_is_one_line_that_fits_and_leaves_nothing() {
    let folder = Folder::new();
    let file = scenario(&folder, "two-way");
    let (text, _, code) = ran(&mut command(&["attack", &file, "--direct"]));
    assert_eq!(code, 0);
    for columns in [20, 40, 60, 200] {
        let (mut terminal, theirs) = Terminal::new(columns);
        let output = terminal.run(command(&["attack", &file, "--direct"]), theirs, "", b"");
        assert!(output.status.success());
        terminal.is_clean();
        // What is printed is what a pipe has.
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        let seen = &terminal.seen;
        assert!(seen.len() > 5, "{columns}: {seen:?}");
        for line in seen {
            let wide = line.chars().count() < usize::from(columns) - 2;
            assert!(wide && !line.contains('\n'), "{columns}: {line:?}");
        }
        let says = |words: &str| seen.iter().any(|line| line.contains(words));
        assert!(says("/"), "how far: {seen:?}");
        if columns >= 40 {
            assert!(says(" left"), "how long: {seen:?}");
        }
        if columns >= 60 {
            assert!(says("/s") || says(" s each"), "how fast: {seen:?}");
            assert!(says("[#"), "{seen:?}");
        }
        if columns >= 200 {
            assert!(says(NAME), "what: {seen:?}");
        }
    }
}

/// Ctrl-C: nothing stays of the line, only how far the work came. What the terminal echoes of the key is gone
/// with the line; a busy kernel may get to it later, and then it stands behind what is said, as in any shell.
#[test]
fn nothing_is_left_of_progress_that_ctrl_c_ends() {
    let folder = Folder::new();
    // Of some length: it may not be at its end before the key is there.
    let file = scenario(&folder, "sixteen-way");
    for columns in [30, 60, 200] {
        let (mut terminal, theirs) = Terminal::new(columns);
        let output = terminal.run(command(&["attack", &file, "--direct"]), theirs, "/", b"\x03");
        assert_eq!(output.status.code(), Some(130), "{:?}", terminal.seen);
        assert_eq!(output.stdout, b"");
        let shown = terminal.shown();
        assert!(shown.starts_with("error: interrupted"), "{shown:?}");
        assert!(!shown.contains('[') && shown.matches("^C").count() <= 1, "{shown:?}");
    }
}

/// In a pipe, and on a terminal that cannot clear a line, there is nothing.
#[test]
fn a_pipe_has_no_progress_and_nor_has_a_dumb_terminal() {
    let folder = Folder::new();
    let file = scenario(&folder, "two-way");
    let (_, complaint, code) = ran(&mut command(&["attack", &file, "--direct"]));
    assert_eq!((complaint.as_str(), code), ("", 0));
    let (mut terminal, theirs) = Terminal::new(80);
    let mut dumb = Command::new("env");
    dumb.args(["TERM=dumb", program::path().to_str().unwrap(), "attack", &file, "--direct"]);
    let output = terminal.run(dumb, theirs, "", b"");
    assert!(output.status.success() && terminal.seen.is_empty(), "{:?}", terminal.seen);
}

/// What a command prints on a terminal of so many columns, output and complaints.
fn printed(words: &[&str], columns: u16) -> String {
    let (mut terminal, theirs) = Terminal::new(columns);
    let mut command = command(words);
    command.env("TERM", "xterm").stdin(Stdio::null());
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    drop(command);
    let (mut piece, mut all) = ([0; 4096], Vec::new());
    while let Ok(count @ 1..) = terminal.ours.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
    }
    child.wait().unwrap();
    let all = String::from_utf8(all).unwrap().replace('\r', "");
    anstream::adapter::strip_str(&all).to_string()
}

#[test]
fn lists_tables_and_complaints_are_as_wide_as_the_terminal() {
    let here = tempfile::tempdir().unwrap();
    let missing = here.path().join("a").join("b.toml").display().to_string();
    let lists: [&[&str]; 6] = [
        &["scenarios"],
        &["error"],
        &["cedt", "two-partitions", "--text"],
        &["cedt", "window-too-small"],
        &["boot", "--direct", &missing],
        &["explain", "no-window", "0x100000000"],
    ];
    for words in lists {
        let plain = |text: &str| text.split_whitespace().collect::<String>();
        let wide = printed(words, 2000);
        for columns in [40, 60, 80] {
            let text = printed(words, columns);
            assert_eq!(plain(&text), plain(&wide), "no word is lost");
            for line in text.lines() {
                // A path is one word.
                let one = line.split_whitespace().count() < 2;
                let fits = line.chars().count() <= usize::from(columns);
                assert!(fits || one, "{words:?}: {columns}: {line}");
            }
        }
    }
}

/// Every command, and none for the program itself.
fn commands() -> Vec<String> {
    let (help, ..) = ran(&mut command(&["--help"]));
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split_once(' '));
    let names = names.map(|(name, _)| name.to_owned());
    let mut names: Vec<_> = names.filter(|name| !name.is_empty() && name != "help").collect();
    assert!(names.len() > 20, "{names:?}");
    names.push(String::new());
    names
}

#[test]
fn every_help_fits_and_its_examples_can_be_pasted() {
    for name in commands() {
        let words: Vec<&str> =
            [name.as_str(), "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        for columns in [80, 100] {
            let help = printed(&words, columns);
            for line in help.lines() {
                let fits = line.chars().count() <= usize::from(columns);
                assert!(fits, "{name}: {columns}: {line}");
            }
            let Some((_, examples)) = help.split_once("\nExamples:\n") else { continue };
            let mut goes_on = false;
            for line in examples.lines() {
                let starts = [
                    "acpidump",
                    "cargo",
                    "cxl",
                    "cxl-harness",
                    "lspci",
                    "qemu-system-x86_64",
                    "ssh",
                ];
                let first = line.strip_prefix("  ").unwrap_or_default();
                let first = first.split(' ').next().unwrap_or_default();
                let starts = starts.contains(&first) || first.starts_with("QEMU=");
                assert!(starts || goes_on, "{name}: {columns}: {line}");
                goes_on = line.ends_with('\\');
            }
        }
    }
    let collect = printed(&["collect", "--help"], 80);
    assert!(collect.contains("\n  tables  ") && collect.contains("\n  registers  "), "{collect}");
    let linux = printed(&["linux", "--help"], 80);
    assert!(!linux.contains("\nguest:\n"), "{linux}");
}

#[test]
fn every_manual_page_fits_80_columns() {
    let folder = Folder::new();
    let has_man = Command::new("man").arg("--version").output().is_ok();
    for name in commands() {
        let words: Vec<&str> = ["man", &name].into_iter().filter(|word| !word.is_empty()).collect();
        let (page, _, code) = ran(&mut command(&words));
        assert_eq!(code, 0, "{name}");
        let mut kept = false;
        for line in page.lines() {
            match line {
                ".nf" => kept = true,
                ".fi" => kept = false,
                _ => {}
            }
            // As it is shown, between margins of seven and two columns.
            let line = line.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\e", "/");
            assert!(!kept || line.chars().count() <= 73, "{name}: {line}");
        }
        assert!(!kept, "{name}: what follows is filled");
        if has_man {
            let file = folder.file("page.1", page);
            let mut man = Command::new("man");
            man.env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").args(["-P", "cat", "-l", &file]);
            let shown = String::from_utf8(man.output().unwrap().stdout).unwrap();
            for line in anstream::adapter::strip_str(&shown).to_string().lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        }
    }
}
