//! Why a phase failed, written once into a place of whoever called it.
//!
//! A result with a whole [`Error`] in it is moved through memory by each function that it passes; one that
//! says only that there is an error fits a register. So what small builds are made of hands [`Failed`] up,
//! and what was wrong stands in the [`Fault`] that it was lent.
//!
//! **Invariant**: whoever gives back [`Failed`] has written why.

use super::{Code, Error, Fact, Place, Rule};

/// Something failed; the [`Fault`] that was lent says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// Room for the error of a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault(Error);

impl Fault {
    /// Nothing has failed yet; never told.
    pub(crate) const NONE: Self = Self(Code::of(u16::MAX).error());

    /// The same, copied at one place for all who need it alone.
    #[inline(never)]
    pub(crate) fn none() -> Self {
        Self::NONE
    }

    /// The beginning of an error: its number and place.
    pub(crate) fn at(&mut self, code: Code, place: impl Into<Place>) -> Telling<'_> {
        self.set(code, place.into())
    }

    #[cold]
    #[inline(never)]
    fn set(&mut self, code: Code, at: Place) -> Telling<'_> {
        self.0 = Error { at, ..code.error() };
        Telling(&mut self.0)
    }

    /// What was written.
    pub(crate) fn error(&self) -> Error {
        self.0
    }

    /// Keeps an error that somebody else made.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(&mut self, error: Error) -> Failed {
        self.0 = error;
        Failed
    }

    /// The result for who hands errors up whole.
    pub(crate) fn told<T>(&self, result: Result<T, Failed>) -> Result<T, Error> {
        result.map_err(|Failed| self.0)
    }
}

/// An error that is being written, field by field, as [`Error`] has them.
pub(crate) struct Telling<'a>(&'a mut Error);

impl Telling<'_> {
    pub(crate) fn expected(self, expected: impl Fact) -> Self {
        self.0.expected = expected.pack();
        self
    }

    pub(crate) fn found(self, found: impl Fact) -> Self {
        self.0.found = found.pack();
        self
    }

    pub(crate) fn detail(self, detail: impl Fact) -> Self {
        self.0.detail = u16::try_from(detail.pack()).unwrap_or(u16::MAX);
        self
    }

    pub(crate) fn halves(self, low: impl Fact, high: impl Fact) -> Self {
        self.0.detail = Error::half(low) | Error::half(high) << 8;
        self
    }

    pub(crate) fn rule(self, rule: impl Rule) -> Self {
        self.0.set_rule(rule);
        self
    }

    pub(crate) fn above(self, place: impl Into<Place>) -> Self {
        self.0.detail = place.into().as_detail();
        self
    }
}

impl From<Telling<'_>> for Failed {
    fn from(_: Telling<'_>) -> Self {
        Self
    }
}

/// As the value of a function.
impl<T> From<Telling<'_>> for Result<T, Failed> {
    fn from(_: Telling<'_>) -> Self {
        Err(Failed)
    }
}
