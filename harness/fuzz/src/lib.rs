//! What fuzz targets share: a reader of the fuzzer's bytes, and machines.
//!
//! **Invariant**: the same bytes are the same run, and no bytes are too few: what is missing is 0.

#![forbid(unsafe_code)]

use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario, builtins};

/// Bytes that say what is done.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// Whether there is no more.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes(N);
        std::array::from_fn(|index| bytes.get(index).copied().unwrap_or(0))
    }

    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn dword(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn qword(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// One of a list that is not empty.
    pub fn one_of<'l, T>(&mut self, list: &'l [T]) -> &'l T {
        &list[usize::from(self.byte()) % list.len()]
    }
}

/// The scenario that a number chooses: each built-in, unlocked as well. Without media in files, and
/// without waits of a commit that never ends.
pub fn scenario(number: u8) -> Scenario {
    let all = builtins();
    let number = usize::from(number);
    let mut scenario = Scenario::parse(all[number / 2 % all.len()].text, "built-in").unwrap();
    if number % 2 == 1 {
        scenario.policy.path = PathPolicy::Unlocked;
    }
    scenario
}

/// Its machine.
pub fn machine(number: u8) -> Machine {
    Machine::new(&scenario(number))
}
