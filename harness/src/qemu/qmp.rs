//! QEMU's control channel, for one question: whether the machine has come to its end.
//!
//! **Invariant**: nothing is asked of the machine; what QEMU says is read as it comes and bounded in size.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest line that is kept: an event has a few hundred bytes.
const MOST: usize = 64 << 10;
/// Time between two tries to connect.
const RETRY: Duration = Duration::from_millis(5);

/// The channel of a QEMU that was started with `-qmp unix:SOCKET,server=on,wait=off`.
pub(super) struct Qmp {
    stream: UnixStream,
    /// What has come of a line.
    line: Vec<u8>,
    ended: bool,
}

impl Qmp {
    /// Connects, and asks for events.
    pub(super) fn connect(path: &Path, limit: Duration) -> io::Result<Self> {
        let start = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() >= limit => return Err(error),
                Err(_) => sleep(RETRY),
            }
        };
        stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, line: Vec::new(), ended: false })
    }

    /// Whether the machine has switched itself off, or wants to start anew.
    pub(super) fn ended(&mut self) -> bool {
        let mut bytes = [0; 4096];
        while !self.ended {
            match self.stream.read(&mut bytes) {
                // That it has gone its owner sees.
                Ok(0) => break,
                Ok(count) => self.take(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.ended
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() < MOST {
                    self.line.push(*byte);
                }
                continue;
            }
            let said: Option<Value> = serde_json::from_slice(&self.line).ok();
            let event = said.as_ref().and_then(|said| said.get("event")?.as_str());
            self.ended |= event == Some("SHUTDOWN");
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_an_event_however_its_line_is_cut() {
        let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
        ours.set_nonblocking(true).expect("a socket takes it");
        let mut qmp = Qmp { stream: ours, line: Vec::new(), ended: false };
        let mut say = |text: &[u8]| theirs.write_all(text).expect("it is read");
        say(b"{\"QMP\": {\"version\": {}}}\r\n{\"return\": {}}\r\n{\"event\": \"RESUME\"}\r\n");
        assert!(!qmp.ended());
        say(b"{\"timestamp\": {\"seconds\": 1}, \"event\": \"SHUT");
        assert!(!qmp.ended());
        say(b"DOWN\", \"data\": {\"guest\": true}}\r\n");
        assert!(qmp.ended());
    }
}
