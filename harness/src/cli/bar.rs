//! What long work shows of itself on a terminal: how far it is, how fast it goes, how long the rest takes.
//! Nothing in a pipe.
//!
//! **Invariant**: it is one line on standard error, and gone whenever something else is written there and
//! when the work ends, by a signal too.

use cxl_model::words::counted;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use cxl_harness::terminal::harmless;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

/// How often it is drawn again, and how often at most.
const TICK: Duration = Duration::from_millis(200);
const MOST_A_SECOND: u8 = 10;
/// Columns below which there is no room for a bar.
const ROOMY: u16 = 50;

/// There is one terminal, and what guests print comes by functions that know of nothing.
static LINE: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn line() -> MutexGuard<'static, Option<ProgressBar>> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What clears a line, and goes back to where it begins.
pub(super) const CLEAR: &str = "\r\x1b[2K";

/// Whether standard error is a terminal that can clear a line: a dumb one cannot.
pub(super) fn is_terminal() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !dumb && io::stderr().is_terminal()
}

/// Work under way; its line is gone when this is.
#[must_use]
pub(super) struct Bar(());

impl Bar {
    /// So many steps, at most.
    pub(super) fn of_steps(steps: usize) -> Self {
        let bar = match columns() >= ROOMY {
            true => "[{bar:16}] {pos}/{len}{rate}{left}  {wide_msg}",
            false => "{pos}/{len}{left} {wide_msg}",
        };
        Self::shown(Some(steps), bar, Duration::ZERO, "")
    }

    /// Nobody knows how much it is, but when it is given up. `what` is shown until it is heard of.
    pub(super) fn until(limit: Duration, what: &str) -> Self {
        let words = match columns() >= ROOMY {
            true => "{spinner} {passed}{lines}{most}  {wide_msg}",
            false => "{spinner} {passed} {wide_msg}",
        };
        Self::shown(None, words, limit, what)
    }

    fn shown(steps: Option<usize>, template: &str, limit: Duration, what: &str) -> Self {
        if !is_terminal() {
            return Self(());
        }
        let terminal = Box::new(Narrower::default());
        let target = ProgressDrawTarget::term_like_with_hz(terminal, MOST_A_SECOND);
        let bar = ProgressBar::with_draw_target(steps.map(|steps| steps as u64), target);
        let style = ProgressStyle::with_template(template).unwrap_or_else(|error| {
            // The templates are those above.
            unreachable!("{error}")
        });
        let style = style
            .progress_chars("#.")
            .tick_chars("-\\|/ ")
            .with_key("rate", rate)
            .with_key("left", left)
            .with_key("lines", lines)
            .with_key("passed", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&time(state.elapsed()));
            })
            .with_key("most", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ =
                    write!(out, ", {} more at most", time(limit.saturating_sub(state.elapsed())));
            });
        // Whatever is drawn from now on is there to be cleared, by a signal too.
        ends_with_signals();
        *line() = Some(bar.clone());
        bar.set_style(style);
        bar.set_message(plain(what));
        bar.enable_steady_tick(TICK);
        Self(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        clear();
    }
}

/// One more step: what is done now.
pub(super) fn step(what: &str) {
    if let Some(bar) = line().as_ref() {
        // The first is under way, and not done.
        if !bar.message().is_empty() {
            bar.inc(1);
        }
        bar.set_message(plain(what));
    }
}

/// One more step of an attack.
pub(super) fn attacked(state: &str, component: &str) {
    step(&format!("{state}: {component}"));
}

/// Bytes that a console printed: its lines are counted, and the last one is shown.
pub(super) fn heard(bytes: &[u8]) {
    if let Some(bar) = line().as_ref() {
        bar.inc(bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
        let text = String::from_utf8_lossy(bytes);
        if let Some(last) = text.lines().map(plain).rfind(|line| line.len() > 1) {
            bar.set_message(last);
        }
    }
}

/// Nothing more is to be seen of it.
pub(super) fn clear() {
    let bar = line().take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Writes something else to the terminal, with the line out of its way.
pub(super) fn beside(write: impl FnOnce()) {
    // The lock is held no longer than it takes: what is written may be slow.
    let bar = line().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A stream that somebody else writes to: with the first byte the line is gone for good.
pub(super) struct Instead<W>(pub(super) W);

impl<W: Write> Write for Instead<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        clear();
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The terminal of standard error as if it ended a little earlier: what it echoes of Ctrl-C has room on the
/// same line. What is drawn goes there in one piece.
#[derive(Debug, Default)]
struct Narrower(Mutex<Vec<u8>>);

/// `^C`, and the column that is never reached.
const ECHO: u16 = 3;

impl Narrower {
    fn put(&self, text: impl std::fmt::Display) -> io::Result<()> {
        let mut drawn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(drawn, "{text}")
    }

    fn moved(&self, columns_or_rows: usize, way: char) -> io::Result<()> {
        match columns_or_rows {
            0 => Ok(()),
            n => self.put(format_args!("\x1b[{n}{way}")),
        }
    }
}

impl TermLike for Narrower {
    fn width(&self) -> u16 {
        columns().saturating_sub(ECHO).max(1)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.put(format_args!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put(CLEAR)
    }

    fn flush(&self) -> io::Result<()> {
        let mut drawn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        io::stderr().write_all(&std::mem::take(&mut *drawn))
    }
}

/// Work that nobody interrupts ends with a signal as it would without a line, which is cleared first.
fn ends_with_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // Whoever looks at them cleans up, this line too.
                if !super::takes_signals() {
                    clear();
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        });
    });
}

fn columns() -> u16 {
    terminal_size::terminal_size_of(io::stderr())
        .map_or(80, |(terminal_size::Width(columns), _)| columns)
}

/// Words on one line that a terminal does not obey.
fn plain(words: &str) -> String {
    harmless(words).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..100 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let rate = state.per_sec();
    // Writing to a line cannot fail.
    let _ = match (state.pos(), rate) {
        (0, _) => Ok(()),
        (_, rate) if !rate.is_normal() => Ok(()),
        (_, 1.0..) => write!(out, ", {rate:.0}/s"),
        (_, rate) => write!(out, ", {:.0} s each", 1.0 / rate.max(1e-4)),
    };
}

fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = match state.pos() {
        0 => Ok(()),
        _ => write!(out, ", {} left", time(state.eta())),
    };
}

fn lines(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = match state.pos() {
        0 => Ok(()),
        lines => write!(out, ", {}, {:.0}/s", counted(lines, "line"), state.per_sec()),
    };
}
