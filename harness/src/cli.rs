//! The command line: what can be asked for, and the exit code it ends with.
//!
//! **Invariant**: output is complete before the first byte of it is written, and nothing but output
//! goes to standard output. `nested` alone passes on what another program prints, as it comes.

mod attack;
mod bar;
mod bench;
mod boot;
mod bundle;
mod cedt;
mod collect;
mod completions;
mod conformance;
mod decode;
mod dump;
mod earlier;
mod error;
mod explain;
mod image;
mod inspect;
mod lint;
mod linux;
mod man;
mod nested;
mod output;
mod plan;
mod qemu;
mod scenarios;
mod schema;
mod source;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anstyle::{AnsiColor, Style};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use cxl_harness::html::Page;
use cxl_harness::suite::Suite;
use cxl_harness::terminal::{filled, folded, harmless};
use output::Output;

/// The firmware refused, or a check failed.
const EXIT_REFUSED: u8 = 1;
/// Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;
/// Bad input, or a command line that makes no sense.
const EXIT_BAD_INPUT: u8 = 2;

const EXAMPLES: &str = "\
Without a command: boots the scenario default in a guest, measures what an access costs, and attacks
the locks (`boot default --payload cost,attack`).

Exit code:
  0  good
  1  refused, or a check failed
  2  bad usage or file
  128 + n  ended by signal n: 130 is Ctrl-C, 143 SIGTERM, 129 SIGHUP

Where to start:
  cxl-harness                                boot the main scenario, and read the report
  cxl-harness scenarios                      what else there is
  cxl-harness plan two-partitions            what would be written where, and why
  cxl-harness explain default 0x100000000    where an address leads
  cxl-harness cedt --text                    the table for the operating system
  cxl-harness dump default board             its registers and table as files, to try the readers on
  cxl-harness decode board/acpidump.txt      what a dump says, in any form that people have
  cxl-harness lint default                   what Linux would say of the machine
  cxl-harness collect machine.tar            the machine that this runs on, as root, as one file
  cxl-harness inspect board                  what is there, what is locked, what Linux makes of it
  cxl-harness linux one-device               what a real one does, on QEMU
  cxl-harness nested -- boot default         on ordinary KVM, by emulation, where there is none";

/// A machine to prove CXL firmware on.
///
/// It runs firmware that finds CXL memory, programs and locks the HDM decoders of every path, and
/// describes the result to the operating system; and it says what came of it.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, args_conflicts_with_subcommands = true, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Draw the memory map of the main scenario into this file as well.
    #[arg(long, value_name = "FILE", value_parser = output::beside_the_report())]
    svg: Option<PathBuf>,

    #[command(flatten)]
    page: PageFile,

    /// Print the report of the main scenario as JSON; `cxl-harness boot --help` lists the keys.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, as long as the program runs")]
enum Command {
    Boot(boot::Boot),
    Plan(plan::Plan),
    Cedt(cedt::Cedt),
    Conformance(conformance::Conformance),
    Error(error::Error),
    Explain(explain::Explain),
    Attack(attack::Attack),
    Bench(bench::Bench),
    Qemu(qemu::Qemu),
    Scenarios(scenarios::Scenarios),
    Decode(decode::Decode),
    Dump(dump::Dump),
    Image(image::Image),
    Collect(collect::Collect),
    Inspect(inspect::Inspect),
    Lint(lint::Lint),
    Linux(linux::Linux),
    Nested(nested::Nested),
    Man(man::Man),
    Schema(schema::Schema),
    Completions(completions::Completions),
}

impl Cli {
    /// The words of the command line. The help is as wide as the terminal that it goes to.
    pub(crate) fn parsed() -> Result<Self, clap::Error> {
        let columns = columns().min(100);
        let fill = |text: Option<&clap::builder::StyledStr>| {
            text.map(|text| filled(&text.to_string(), columns)).unwrap_or_default()
        };
        let mut command = Self::command();
        let end = fill(command.get_after_help());
        let names: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        command = command.after_help(end);
        for name in names {
            command = command.mut_subcommand(name, |command| {
                let end = fill(command.get_after_long_help());
                if end.is_empty() { command } else { command.after_long_help(end) }
            });
        }
        Self::from_arg_matches(&command.try_get_matches()?)
    }

    /// Does what was asked for.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            None => boot::Boot::of_default(self.svg, self.page, self.json).run(),
            Some(Command::Boot(boot)) => boot.run(),
            Some(Command::Plan(plan)) => plan.run(),
            Some(Command::Cedt(cedt)) => cedt.run(),
            Some(Command::Conformance(conformance)) => conformance.run(),
            Some(Command::Error(error)) => error.run(),
            Some(Command::Explain(explain)) => explain.run(),
            Some(Command::Attack(attack)) => attack.run(),
            Some(Command::Bench(bench)) => bench.run(),
            Some(Command::Qemu(qemu)) => qemu.run(),
            Some(Command::Scenarios(scenarios)) => scenarios.run(),
            Some(Command::Decode(decode)) => decode.run(),
            Some(Command::Dump(dump)) => dump.run(),
            Some(Command::Image(image)) => image.run(),
            Some(Command::Collect(collect)) => collect.run(),
            Some(Command::Inspect(inspect)) => inspect.run(),
            Some(Command::Lint(lint)) => lint.run(),
            Some(Command::Linux(linux)) => linux.run(),
            Some(Command::Nested(nested)) => nested.run(),
            Some(Command::Man(man)) => man.run(),
            Some(Command::Schema(schema)) => schema.run(),
            Some(Command::Completions(completions)) => completions.run(),
        }
    }
}

/// What there is to say instead of running: help, a version, or what is wrong with the words.
pub(crate) fn told(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // There is nobody left to tell if standard error is gone.
        let _ = error.print();
        return ExitCode::from(EXIT_BAD_INPUT);
    }
    print(&error.render().ansi().to_string(), ExitCode::SUCCESS)
}

/// 0, or 1 for a refusal.
fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) }
}

/// A number, in hexadecimal with `0x`.
fn number(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits.as_str(), 10),
    };
    // `from_str_radix` would take a sign.
    let plain = digits.starts_with(|c: char| c.is_digit(radix));
    let value = plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten();
    value.ok_or_else(|| {
        let hexadecimal = radix == 10
            && digits.starts_with(|c: char| c.is_ascii_hexdigit())
            && u64::from_str_radix(digits, 16).is_ok();
        let hint = if hexadecimal {
            format!("; hexadecimal ones begin with 0x: 0x{digits}")
        } else {
            String::new()
        };
        format!("expected a number of 64 bits such as 0x100000000{hint}")
    })
}

/// An address as somebody typed it.
#[derive(Clone, Debug)]
struct Address {
    value: u64,
    /// What it would have been with `0x` in front, where there is none and that is another one.
    hexadecimal: Option<String>,
}

impl Address {
    /// For a command line. Digits alone are decimal, as everywhere here, though nobody writes addresses so.
    fn parse(text: &str) -> Result<Self, String> {
        let value = number(text)?;
        let digits = text.replace('_', "");
        let hexadecimal = u64::from_str_radix(&digits, 16).ok().filter(|&other| other != value);
        Ok(Self { value, hexadecimal: hexadecimal.map(|_| format!("0x{digits}")) })
    }

    /// Says how it was taken where another way is likelier.
    fn told(&self) -> u64 {
        if let Some(hexadecimal) = &self.hexadecimal {
            let Self { value, .. } = self;
            note(&format!("{value} is decimal, {value:#x}; the hexadecimal one is {hexadecimal}"));
        }
        self.value
    }
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; `--json` is the same.
    Json,
    /// JUnit's XML, for systems that collect tests.
    Junit,
    /// SARIF 2.1.0, for systems that collect findings.
    Sarif,
}

/// The options that say how.
#[derive(Debug, Default, clap::Args)]
struct Shape {
    /// Print JSON instead of text; the end of this help lists the keys.
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// How to print the result.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

impl Shape {
    fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }

    /// What is printed for systems that collect; `None` where it is for people or programs.
    fn collected(&self, suite: impl FnOnce() -> Suite) -> Option<String> {
        match self.format {
            Format::Text | Format::Json => None,
            Format::Junit => Some(suite().junit()),
            Format::Sarif => Some(suite().sarif()),
        }
    }
}

/// JSON with a newline at its end, and with its schema's name.
fn json(document: &impl schema::Document) -> String {
    schema::text(document)
}

/// Columns of the terminal that output goes to; what a report has by itself where it goes elsewhere.
fn columns() -> usize {
    terminal_size::terminal_size_of(io::stdout())
        .map_or(100, |(terminal_size::Width(columns), _)| columns.into())
}

/// The text with no line longer than the terminal is wide; as it is where output goes elsewhere.
fn fitted(text: &str) -> Cow<'_, str> {
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((terminal_size::Width(columns), _)) => {
            text.lines().map(|line| folded(line, columns.into()) + "\n").collect::<String>().into()
        }
        None => text.into(),
    }
}

/// The text with headings and problems set off, for terminals. There no line is longer than the
/// terminal is wide.
fn styled(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let red = AnsiColor::Red.on_default();
    let mut style = Style::new();
    let text = harmless(text);
    let text = fitted(&text);
    for line in text.lines() {
        let label = line.split_whitespace().next().unwrap_or_default();
        // A fact goes on below its value.
        let goes_on = line.starts_with("                    ");
        style = if matches!(label, "problem" | "refusal" | "failure") || goes_on && style == red {
            red
        } else if line.contains('█') {
            AnsiColor::Green.on_default()
        } else if line.starts_with(' ') || line.is_empty() {
            Style::new()
        } else {
            Style::new().bold()
        };
        // Writing to a String cannot fail.
        let _ = writeln!(output, "{style}{line}{style:#}");
    }
    output
}

/// Writes finished output. A reader that has gone away (`| head`) has seen what it wanted.
fn print(output: &str, code: ExitCode) -> ExitCode {
    to_stdout(&mut anstream::stdout().lock(), output.as_bytes(), code)
}

/// Writes finished bytes to a file, or to standard output without one.
fn save(bytes: &[u8], file: Option<&Output>) -> ExitCode {
    let Some(file) = file else {
        return to_stdout(&mut io::stdout().lock(), bytes, ExitCode::SUCCESS);
    };
    match file.write(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Why a file was not written, in words that say which part of its path is meant.
fn unwritten(file: &Path, error: &io::Error) -> String {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    match (error.kind(), folder) {
        (ErrorKind::NotFound, Some(folder)) if !folder.exists() => {
            format!("{}: there is no folder {}", file.display(), folder.display())
        }
        (ErrorKind::AlreadyExists | ErrorKind::NotADirectory, _) if file.is_file() => {
            format!("{}: expected a folder, found a file", file.display())
        }
        // A temporary file's name, which an error may have, means nothing to anybody.
        _ => match error.raw_os_error().map(io::Error::from_raw_os_error) {
            Some(plain) => format!("{}: {plain}", file.display()),
            None => format!("{}: {error}", file.display()),
        },
    }
}

/// The option for a page.
#[derive(Debug, Default, clap::Args)]
struct PageFile {
    /// Write the result into this file as well, as a page for a browser: all in one file, which asks for
    /// nothing from any network.
    #[arg(long, value_name = "FILE", value_parser = output::beside_the_report())]
    html: Option<PathBuf>,
}

impl PageFile {
    /// The file, once it is known that it can be written.
    fn ready(&self) -> Result<Option<Output>, String> {
        self.html.as_deref().map(Output::ready).transpose()
    }
}

/// Prints a result, and writes its page where there is to be one. The result is not lost where the page
/// cannot be written after all.
fn print_with(output: &str, page: Option<(&Output, &Page)>, code: ExitCode) -> ExitCode {
    let written = page.map_or(Ok(()), |(file, page)| file.write(page.to_string().as_bytes()));
    let code = print(output, code);
    written.map_or_else(|error| fail(&error), |()| code)
}

/// The command line, as a shell takes it.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| {
        let word = word.to_string_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=@:+%".contains(c);
        match word.chars().all(plain) && !word.is_empty() {
            true => word,
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    });
    std::iter::once("cxl-harness".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn to_stdout(stdout: &mut dyn Write, bytes: &[u8], code: ExitCode) -> ExitCode {
    // What is left in the buffer until the end of the program fails without a word.
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(&format!("standard output: {error}"))
        }
        _ => code,
    }
}

/// Says in one line why nothing was printed.
fn fail(reason: &str) -> ExitCode {
    complain(reason, EXIT_BAD_INPUT)
}

/// Says in one line why there is nothing to print, though the question was good.
fn refuse(reason: &str) -> ExitCode {
    complain(reason, EXIT_REFUSED)
}

/// Says what is not installed here, all of it.
fn lacking(lacks: &[String], code: u8) -> ExitCode {
    for lack in lacks {
        complain(lack, code);
    }
    ExitCode::from(code)
}

fn complain(reason: &str, code: u8) -> ExitCode {
    say("error", AnsiColor::Red.on_default().bold(), reason);
    ExitCode::from(code)
}

/// Says something on standard error behind a word: in one line, and on a terminal in as many as it asks
/// for.
fn say(label: &str, style: Style, what: &str) {
    let what = harmless(what);
    let width = label.len() + 2;
    let what = match terminal_size::terminal_size_of(io::stderr()) {
        Some((terminal_size::Width(columns), _)) => {
            let hang = " ".repeat(width);
            let options = textwrap::Options::new(usize::from(columns).max(40))
                .initial_indent(&hang)
                .subsequent_indent(&hang)
                .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
                .word_splitter(textwrap::WordSplitter::NoHyphenation);
            textwrap::fill(&what, options).trim_start().to_owned().into()
        }
        None => what,
    };
    // The terminal echoes Ctrl-C when it gets to it, which may be after the line was cleared.
    let echo = if bar::is_terminal() && interrupted_by_now() { bar::CLEAR } else { "" };
    let told = format!("{echo}{style}{label}{style:#}: {what}\n");
    bar::beside(|| {
        // There is nobody left to tell if standard error is gone too.
        let _ = anstream::stderr().write_all(told.as_bytes());
    });
}

/// The signals that ask a program to end: Ctrl-C, a terminal that goes away, and the one that is meant
/// for it.
#[derive(Default)]
struct Signals {
    any: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

static SIGNALS: OnceLock<Signals> = OnceLock::new();

/// Whether one of those signals came, and somebody looks at them.
fn interrupted_by_now() -> bool {
    SIGNALS.get().is_some_and(|signals| signals.any.load(Ordering::Relaxed))
}

/// Whether somebody looks at those signals.
fn takes_signals() -> bool {
    SIGNALS.get().is_some()
}

/// Takes those signals from now on: whoever runs long looks at the flag, ends its children, cleans up
/// and says how far it came.
fn signals() -> &'static Signals {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    SIGNALS.get_or_init(|| {
        let signals = Signals::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Without a handler the signal ends the program at once.
            let number = usize::try_from(signal).unwrap_or_default();
            let _ = signal_hook::flag::register_usize(signal, Arc::clone(&signals.number), number);
            let _ = signal_hook::flag::register(signal, Arc::clone(&signals.any));
        }
        signals
    })
}

impl Signals {
    /// The exit code after one, as shells have it.
    fn code(&self) -> u8 {
        let number = self.number.load(Ordering::Relaxed);
        u8::try_from(128 + number).unwrap_or(EXIT_INTERRUPTED)
    }
}

/// The flag that such a signal sets.
fn interrupted() -> Arc<AtomicBool> {
    Arc::clone(&signals().any)
}

/// Says something beside the output.
fn note(what: &str) {
    say("note", Style::new().bold(), what);
}
