//! What a verification found: what is wrong with a machine's decoders, or worth knowing.
//!
//! **Invariant**: a finding is there once, and a failure is never left out for a note.

use heapless::Vec;

use crate::error::{Code, Error};
use crate::list::{Empty, List};

/// What a verification found: `F` findings, each once, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct Findings<const F: usize> {
    list: Vec<Error, F>,
    tally: Tally,
}

/// How many findings there are, beside those that are listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    more: u32,
    failures: u32,
}

impl<const F: usize> Findings<F> {
    /// None yet.
    pub const fn new() -> Self {
        Self { list: Vec::new(), tally: Tally { more: 0, failures: 0 } }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        FindingsMut::from(self).clear();
    }

    /// The findings in the order they were made.
    pub fn list(&self) -> &[Error] {
        &self.list
    }

    /// How many did not fit; one that did not may be counted more than once.
    pub const fn more(&self) -> u32 {
        self.tally.more
    }

    /// Whether nothing is wrong; there may still be something worth knowing.
    pub const fn passed(&self) -> bool {
        self.tally.failures == 0
    }
}

/// What a verification finds, in memory of any size.
#[derive(Debug)]
pub struct FindingsMut<'a> {
    /// See [`Findings::list`].
    pub list: List<'a, Error>,
    /// How many there are beside.
    pub tally: &'a mut Tally,
}

impl FindingsMut<'_> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.list.clear();
        *self.tally = Tally::default();
    }

    /// See [`Findings::passed`].
    pub fn passed(&self) -> bool {
        self.tally.failures == 0
    }

    /// The same findings for a shorter time.
    pub fn reborrow(&mut self) -> FindingsMut<'_> {
        FindingsMut { list: self.list.reborrow(), tally: self.tally }
    }

    /// Adds a finding that is not there yet. Where there is no room a failure takes the place of
    /// what is merely worth knowing, so that a list of what failed is never empty.
    pub(crate) fn add(&mut self, finding: Error) {
        let Self { list, tally } = self;
        if list.contains(&finding) {
            return;
        }
        tally.failures = tally.failures.saturating_add(u32::from(finding.is_failure()));
        let Err(finding) = list.push(finding) else { return };
        tally.more = tally.more.saturating_add(1);
        let note = list.iter_mut().rev().find(|other| !other.is_failure());
        if let Some(note) = note.filter(|_| finding.is_failure()) {
            *note = finding;
        }
    }
}

impl<'a> From<&'a mut FindingsMut<'_>> for FindingsMut<'a> {
    fn from(findings: &'a mut FindingsMut<'_>) -> Self {
        findings.reborrow()
    }
}

impl<'a, const F: usize> From<&'a mut Findings<F>> for FindingsMut<'a> {
    fn from(findings: &'a mut Findings<F>) -> Self {
        Self { list: (&mut findings.list).into(), tally: &mut findings.tally }
    }
}

impl Empty for Error {
    const EMPTY: Self = Code::VERIFY_PASS_THROUGH.error();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;
    use crate::topology::Path;

    #[test]
    fn a_failure_takes_the_place_of_what_is_merely_worth_knowing() {
        let note = |uid| Code::VERIFY_PASS_THROUGH.at(Place::bridge(uid));
        let failure = Code::VERIFY_DECODERS_DISABLED.at(Path::default());
        let mut findings = Findings::<2>::new();
        for finding in [note(1), note(2), note(3), failure, failure, note(4)] {
            FindingsMut::from(&mut findings).add(finding);
        }
        assert_eq!(findings.list(), [note(1), failure]);
        assert_eq!((findings.more(), findings.passed()), (3, false));
        FindingsMut::from(&mut findings).add(Code::VERIFY_MEMORY_DISABLED.at(Path::default()));
        FindingsMut::from(&mut findings).add(Code::VERIFY_CONFIG_UNLOCKED.at(Path::default()));
        assert!(findings.list().iter().all(Error::is_failure), "{:?}", findings.list());
        assert_eq!(findings.list()[1], failure, "the first one stays");
    }
}
