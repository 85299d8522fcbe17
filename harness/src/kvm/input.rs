//! What a guest reads at its first serial port: bytes that come while it runs.
//!
//! **Invariant**: at most [`MOST`] bytes wait, and who has more is held up; nobody who has nothing to say
//! holds up the guest or its end.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Bytes that may wait for a guest.
const MOST: usize = 4096;
/// Between two looks whether there is room again.
const STEP: Duration = Duration::from_millis(10);

/// Bytes on their way to a guest.
#[derive(Debug, Default)]
pub struct Input(Mutex<VecDeque<u8>>);

impl Input {
    /// What comes out of a source, read by a thread of its own until it ends.
    pub fn of(source: impl Read + Send + 'static) -> io::Result<Arc<Self>> {
        let input = Arc::new(Self::default());
        let there = Arc::downgrade(&input);
        thread::Builder::new().name("input".to_owned()).spawn(move || pass(source, &there))?;
        Ok(input)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<u8>> {
        // Bytes are whole whoever panicked beside them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Takes the first bytes.
    pub(super) fn take(&self, most: usize) -> Vec<u8> {
        let mut waiting = self.waiting();
        let most = most.min(waiting.len());
        waiting.drain(..most).collect()
    }
}

/// Passes bytes on for as long as somebody wants them.
fn pass(mut source: impl Read, to: &Weak<Input>) {
    let mut bytes = [0; 256];
    loop {
        let count = match source.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What cannot be read was not said.
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        loop {
            let Some(input) = to.upgrade() else { return };
            let mut waiting = input.waiting();
            if waiting.len() + count <= MOST {
                waiting.extend(bytes.iter().take(count));
                break;
            }
            drop(waiting);
            drop(input);
            thread::sleep(STEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn bytes_come_in_order_and_no_more_wait_than_may() {
        let text: Vec<u8> = (0..3 * MOST).map(|index| index as u8).collect();
        let input = Input::of(io::Cursor::new(text.clone())).expect("a thread");
        let (mut taken, start) = (Vec::new(), Instant::now());
        while taken.len() < text.len() {
            assert!(input.waiting().len() <= MOST);
            taken.extend(input.take(64));
            assert!(start.elapsed() < Duration::from_secs(60), "{} bytes came", taken.len());
        }
        assert_eq!(taken, text);
        assert!(input.is_empty());
    }
}
