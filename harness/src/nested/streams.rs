//! The ways out of the machine inside: what the command prints, its result, and Linux's console.
//!
//! **Invariant**: what is printed is passed on as it comes and kept nowhere; a stream is complete
//! when its end mark has come, and what is behind the mark is nobody's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::back::{BackError, Head, MOST_BYTES};

/// The stream with Linux's own words.
pub(super) const CONSOLE: &str = "console";
const OUT: &str = "out";
const ERR: &str = "err";
const RESULT: &str = "result";
const ALL: [&str; 4] = [CONSOLE, OUT, ERR, RESULT];

/// The most that is kept of the console.
const MOST_CONSOLE: usize = 4 << 10;
/// The longest line in front of the archive.
const MOST_LINE: u64 = 64;

/// What came.
pub(super) enum Event {
    /// One of the two streams of what is printed is complete.
    Printed,
    /// There is no KVM inside.
    NoKvm,
    /// The command's exit code.
    Exit(u8),
    /// A file.
    File(Head, Vec<u8>),
    /// There are no more files.
    Complete,
    /// The result makes no sense, or is cut off.
    Broken(BackError),
}

/// What stands at the end of a stream, behind a byte of zero: 128 bits that nobody can know.
pub(super) fn mark() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

type Sink = Box<dyn Write + Send>;

/// Whoever reads a stream once it is open.
struct Waiting {
    name: &'static str,
    listener: UnixListener,
    reader: Option<Box<dyn FnOnce(UnixStream) + Send>>,
}

/// The sockets, which QEMU connects to.
pub(super) struct Streams {
    sockets: Vec<(&'static str, PathBuf)>,
    waiting: Vec<Waiting>,
    threads: Vec<std::thread::JoinHandle<()>>,
    console: Arc<Mutex<Vec<u8>>>,
    /// The other direction of the result, once it is open.
    door: Option<UnixStream>,
}

impl Streams {
    /// Makes the sockets in a folder.
    pub(super) fn listen(folder: &Path) -> io::Result<Self> {
        let (mut sockets, mut waiting) = (Vec::new(), Vec::new());
        for name in ALL {
            let path = folder.join(name);
            let listener = UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            sockets.push((name, path));
            waiting.push(Waiting { name, listener, reader: None });
        }
        Ok(Self { sockets, waiting, threads: Vec::new(), console: Arc::default(), door: None })
    }

    /// The sockets by name.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.sockets.iter().map(|(name, path)| (*name, path.as_path()))
    }

    /// Says where things go; what comes is told through the channel.
    pub(super) fn open(&mut self, out: Sink, err: Sink, end: String) -> Receiver<Event> {
        let (sender, events) = channel();
        let mut sinks = BTreeMap::from([(OUT, out), (ERR, err)]);
        for waiting in &mut self.waiting {
            let sender = sender.clone();
            let mark = [b"\0", end.as_bytes()].concat();
            let console = Arc::clone(&self.console);
            waiting.reader = Some(match (waiting.name, sinks.remove(waiting.name)) {
                (_, Some(sink)) => Box::new(move |stream| {
                    if pass_on(stream, sink, &mark) {
                        let _ = sender.send(Event::Printed);
                    }
                }),
                (RESULT, None) => Box::new(move |stream| result(stream, &sender)),
                (_, None) => Box::new(move |stream| keep(stream, &console)),
            });
        }
        events
    }

    /// Gives each stream that QEMU has opened to its reader.
    pub(super) fn accept(&mut self) -> io::Result<()> {
        for mut waiting in std::mem::take(&mut self.waiting) {
            match waiting.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    if waiting.name == RESULT {
                        let door = stream.try_clone()?;
                        door.set_write_timeout(Some(Duration::from_millis(1)))?;
                        self.door = Some(door);
                    }
                    if let Some(reader) = waiting.reader.take() {
                        let thread = std::thread::Builder::new().name(waiting.name.to_owned());
                        self.threads.push(thread.spawn(move || reader(stream))?);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.waiting.push(waiting),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a byte in, which somebody there reads and drops, so that the machine takes an interrupt.
    ///
    /// QEMU 10.0 can lose one while it emulates SVM: the interrupt controller holds the vector, and
    /// the processor sleeps on. Where that was the timer's, nothing is left to wake it but another
    /// interrupt, with which QEMU looks at its controller again.
    pub(super) fn knock(&mut self) {
        if let Some(door) = &mut self.door {
            // A door that is full of knocks, or closed, needs no more of them.
            let _ = door.write(b".");
        }
    }

    /// The end of what Linux said; every stream has ended by then, as QEMU has.
    pub(super) fn console(&mut self) -> String {
        for thread in self.threads.drain(..) {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
        let bytes = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

/// Passes a stream on up to its end mark; whether that came. A reader that has gone away has seen
/// what it wanted, and the command goes on.
fn pass_on(mut stream: impl Read, mut sink: impl Write, mark: &[u8]) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let mut held = Vec::new();
    let mut gone = false;
    let mut give = |bytes: &[u8]| {
        if !gone && !bytes.is_empty() {
            gone = sink.write_all(bytes).and_then(|()| sink.flush()).is_err();
        }
    };
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        held.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if let Some(at) = held.windows(mark.len()).position(|window| window == mark) {
            give(held.get(..at).unwrap_or_default());
            return true;
        }
        // What may be the beginning of the mark waits for the rest.
        let most = held.len().min(mark.len() - 1);
        let begins = |length: &usize| held.ends_with(mark.get(..*length).unwrap_or_default());
        let waits = (0..=most).rev().find(begins).unwrap_or(0);
        let rest = held.split_off(held.len() - waits);
        give(&held);
        held = rest;
    }
    give(&held);
    false
}

/// Keeps the end of a stream.
fn keep(mut stream: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let more = kept.len().saturating_sub(MOST_CONSOLE);
        kept.drain(..more);
    }
}

/// Reads the result: the exit code in a line, then the files as an archive.
fn result(stream: impl Read, sender: &Sender<Event>) {
    let mut stream = BufReader::new(stream);
    let sent = read_result(&mut stream, sender);
    let _ = sender.send(match sent {
        Ok(event) => event,
        Err(error) => Event::Broken(error),
    });
    // What the machine's end would be is not ours to say: read on until it ends.
    let _ = io::copy(&mut stream, &mut io::sink());
}

fn read_result(stream: &mut impl BufRead, sender: &Sender<Event>) -> Result<Event, BackError> {
    let words = |error: io::Error| BackError::Archive(error.to_string());
    let mut line = Vec::new();
    stream.by_ref().take(MOST_LINE).read_until(b'\n', &mut line).map_err(words)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    if line == "no-kvm\n" {
        return Ok(Event::NoKvm);
    }
    let code = line.strip_prefix("exit ").and_then(|rest| rest.strip_suffix('\n'));
    let code = code.and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| BackError::Archive(format!("it begins with {line:?}")))?;
    let _ = sender.send(Event::Exit(code));
    // What comes is bounded before it is kept, heads and names too.
    let mut archive = stream.take(MOST_BYTES);
    loop {
        let sent = next_file(&mut archive);
        match sent {
            Ok(Some((head, bytes))) => {
                let _ = sender.send(Event::File(head, bytes));
            }
            Ok(None) => return Ok(Event::Complete),
            Err(_) if archive.limit() == 0 => return Err(BackError::TooMuch),
            Err(error) => return Err(words(error)),
        }
    }
}

/// The next file of an archive; none at its end.
fn next_file(archive: &mut impl Read) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut reader = cpio::NewcReader::new(archive)?;
    let entry = reader.entry();
    if entry.is_trailer() {
        return Ok(None);
    }
    let head = Head { name: entry.name().to_owned(), mode: entry.mode() };
    let size = u64::from(entry.file_size());
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "a file is cut off"));
    }
    reader.finish()?;
    Ok(Some((head, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that comes in pieces of so many bytes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(self.0.len()).min(buffer.len());
            let (now, rest) = self.0.split_at(size);
            buffer[..size].copy_from_slice(now);
            self.0 = rest;
            Ok(size)
        }
    }

    #[test]
    fn a_stream_is_passed_on_up_to_its_mark_in_whatever_pieces() {
        // In it: beginnings of the mark, and zeroes.
        let stream = b"a\0ab\0\0abc\0abcx\0abcdEND";
        for size in 1..=stream.len() {
            let mut out = Vec::new();
            assert!(pass_on(Pieces(stream, size), &mut out, b"\0abcd"), "{size}");
            assert_eq!(out, b"a\0ab\0\0abc\0abcx", "{size}");
        }
        let mut out = Vec::new();
        assert!(!pass_on(Pieces(&stream[..18], 3), &mut out, b"\0abcd"));
        assert_eq!(out, &stream[..18], "what is cut off is passed on, and said to be");
    }

    #[test]
    fn a_knock_comes_in_through_the_result_and_never_waits_for_anybody() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut streams = Streams::listen(folder.path()).expect("sockets");
        let _events = streams.open(Box::new(io::sink()), Box::new(io::sink()), String::new());
        streams.knock();
        let mut inside = UnixStream::connect(folder.path().join(RESULT)).expect("QEMU's side");
        streams.accept().expect("it is open");
        inside.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
        // More than a socket holds: nobody reads them.
        for _ in 0..400 {
            streams.knock();
        }
        let mut byte = [0];
        inside.read_exact(&mut byte).expect("a knock");
        assert_eq!(&byte, b".");
        drop(inside);
        streams.knock();
    }

    fn events(bytes: &[u8]) -> Vec<String> {
        let (sender, events) = channel();
        result(bytes, &sender);
        drop(sender);
        let words = |event| match event {
            Event::Printed => "printed".to_owned(),
            Event::NoKvm => "no kvm".to_owned(),
            Event::Exit(code) => format!("exit {code}"),
            Event::File(head, bytes) => format!("{} {}", head.name, bytes.len()),
            Event::Complete => "complete".to_owned(),
            Event::Broken(_) => "broken".to_owned(),
        };
        events.iter().map(words).collect()
    }

    #[test]
    fn a_result_is_a_code_and_an_archive_or_broken() {
        let files = [(cpio::NewcBuilder::new("a/b").mode(0o100_644), io::Cursor::new(b"12345"))];
        let archive = cpio::write_cpio(files.into_iter(), Vec::new()).expect("an archive");
        let whole = [b"exit 3\n", archive.as_slice()].concat();
        assert_eq!(events(&whole), ["exit 3", "a/b 5", "complete"]);
        assert_eq!(events(b"no-kvm\nexit 0\n"), ["no kvm"]);
        for wrong in [&b""[..], b"exit\n", b"exit 256\n", b"exit 0", b"exit -1\n", b"0\n"] {
            assert_eq!(events(wrong), ["broken"], "{wrong:?}");
        }
        for cut in b"exit 3\n".len()..whole.len() - 130 {
            let found = events(&whole[..cut]);
            assert_eq!(found.last().map(String::as_str), Some("broken"), "{cut}: {found:?}");
        }
    }
}
