//! What is to be said of a run, by whom, and of which moment.
//!
//! **Invariant**: a finding is made where it is seen and never turned into another one. A run is good
//! if no finding of it is a failure that counts, whether it is kept or not. A guest can cause findings
//! without end (a record with ten thousand decoders): of the failures of each witness, and of its notes,
//! the first ones are kept, [`MOST_BYTES`] of sentences, and one more says how many there were besides.

use std::iter::successors;

use cxl_firmware::Error;
use cxl_firmware::committed::Fate;
use cxl_firmware::error::{Code, Place};
use cxl_firmware::handoff::{Handoff, HandoffDecoder};
use cxl_firmware::outcome::{ComponentOutcome, Outcome};
use cxl_firmware::topology::Path;
use cxl_regs::{Hpa, Span};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::code;
use crate::vigil::{Moment, Violation};

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// The host, in the registers of the models.
    Registers,
    /// The models' own decode, and memory itself.
    Memory,
    /// The host, in what KVM was told and counted.
    Kvm,
    /// The host, in the bytes that the firmware left: record and table.
    Record,
    /// The library's verifier, run once more by the host.
    Verifier,
    /// The plan of the library.
    Plan,
    /// Our image, in the guest.
    Image,
    /// The VMM: how the guest ended, and events.
    Vmm,
    /// The attack.
    Attack,
    /// The devices of somebody else's machine.
    Peer,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Finding {
    /// The stable number, for what the library says.
    #[serde(serialize_with = "maybe_code")]
    #[schemars(with = "Option<String>")]
    pub code: Option<u16>,
    /// Whether it is a failure, or just worth knowing.
    pub failure: bool,
    /// When it was seen.
    #[serde(serialize_with = "in_words")]
    #[schemars(with = "String")]
    pub moment: Moment,
    /// Who saw it.
    pub witness: Witness,
    /// One sentence.
    pub message: String,
    /// A failure that follows from what the report says already, such as a refusal or a loss.
    #[serde(skip)]
    pub moot: bool,
    /// What it is called where names have to be the same whatever a guest did or said.
    #[serde(skip)]
    pub(crate) name: Option<&'static str>,
    /// The place, of what the library has a number for.
    #[serde(skip)]
    pub(super) at: Option<Place>,
    /// It stands for so many that were not kept.
    #[serde(skip)]
    pub(super) more: u64,
}

/// Bytes of sentences that one witness's failures have, and its notes.
const MOST_BYTES: usize = 8 << 10;
/// Characters of one sentence.
pub(super) const MOST_CHARACTERS: usize = 1 << 10;

/// What a finding about something that was given up begins with, and so does our image's line about it.
pub(super) const LOST: &str = "lost: ";

impl Finding {
    /// A failure.
    pub fn failure(witness: Witness, moment: Moment, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MOST_CHARACTERS) {
            message.truncate(end);
            message.push_str(" ...");
        }
        let (code, at, name) = (None, None, None);
        Self { code, failure: true, moment, witness, message, moot: false, name, at, more: 0 }
    }

    /// The same by this name.
    pub(super) fn named(self, name: Option<&'static str>) -> Self {
        Self { name, ..self }
    }

    /// Something that is worth knowing.
    pub fn note(witness: Witness, moment: Moment, message: impl Into<String>) -> Self {
        Self { failure: false, ..Self::failure(witness, moment, message) }
    }

    /// Whether it is about something that the firmware had to give up.
    pub(super) fn is_loss(&self) -> bool {
        self.failure && (self.message.starts_with(LOST) || self.message.contains(" is lost: "))
    }

    /// Whether it makes the run a bad one.
    pub fn counts(&self) -> bool {
        self.failure && !self.moot
    }

    /// The sentence with its moment, where that is another than the hand-off.
    pub fn sentence(&self) -> String {
        let Self { moment, message, witness, failure, .. } = self;
        let who = if *failure && *witness == Witness::Verifier { "verifier: " } else { "" };
        match moment {
            Moment::HandOff => format!("{who}{message}"),
            moment => format!("{who}{message}, {moment}"),
        }
    }
}

/// Adds a finding, or counts it where its witness has said enough: whether the run is a good one does
/// not hang on that.
pub(super) fn add(list: &mut Vec<Finding>, found: Finding) {
    let alike = |known: &Finding| (known.witness, known.failure) == (found.witness, found.failure);
    if let Some(rest) = list.iter_mut().find(|known| known.more > 0 && alike(known)) {
        rest.more = rest.more.saturating_add(1);
        rest.moot &= found.moot;
        rest.message = rest_of(rest.more, rest.failure);
        return;
    }
    let said: usize = list.iter().filter(|known| alike(known)).map(|f| f.message.len()).sum();
    if said + found.message.len() <= MOST_BYTES {
        list.push(found);
        return;
    }
    let Finding { failure, witness, moot, .. } = found;
    let rest = Finding::failure(witness, Moment::HandOff, rest_of(1, failure));
    list.push(Finding { failure, moot, more: 1, ..rest });
}

fn rest_of(more: u64, failure: bool) -> String {
    let what = if failure { "failure" } else { "note" };
    format!("and {more} more {what}{} like these", if more == 1 { "" } else { "s" })
}

impl From<&Violation> for Finding {
    fn from(violation: &Violation) -> Self {
        let Violation { moment, message, .. } = violation;
        Self::failure(Witness::Registers, moment.clone(), message.clone())
    }
}

/// Findings of one look at a machine.
#[derive(Debug)]
pub(super) struct Findings {
    moment: Moment,
    pub(super) list: Vec<Finding>,
}

impl Findings {
    pub(super) fn at(moment: Moment) -> Self {
        Self { moment, list: Vec::new() }
    }

    pub(super) fn fail(&mut self, witness: Witness, message: impl Into<String>) {
        add(&mut self.list, Finding::failure(witness, self.moment.clone(), message));
    }

    /// A failure, and whether it follows from another one.
    pub(super) fn add(&mut self, witness: Witness, message: impl Into<String>, moot: bool) {
        let found = Finding::failure(witness, self.moment.clone(), message);
        add(&mut self.list, Finding { moot, ..found });
    }

    pub(super) fn note(&mut self, witness: Witness, message: impl Into<String>) {
        add(&mut self.list, Finding::note(witness, self.moment.clone(), message));
    }

    /// What the firmware had to give up, by its own record: what of it is in no region is a failure, however
    /// the rest fares. An error that is about several components is told once.
    pub(super) fn lost(&mut self, record: &Handoff<'_>) {
        for ComponentOutcome { outcome, .. } in record.outcomes() {
            let Outcome::Broken(error) = outcome else { continue };
            // What is remarked and no failure is no loss: a CXL 1.1 host.
            if !error.is_failure() {
                continue;
            }
            let message = format!("{LOST}{error}");
            let found = Finding::failure(Witness::Record, self.moment.clone(), message);
            self.numbered(&error, Finding { moot: follows(&error, record), ..found });
        }
    }

    /// Whether an error was told as a loss.
    pub(super) fn has_lost(&self, error: &Error) -> bool {
        let place = (Some(error.code()), Some(error.at));
        self.list.iter().any(|known| known.counts() && (known.code, known.at) == place)
    }

    /// What the verifier of the library found.
    pub(super) fn verified(&mut self, error: &Error, moot: bool) {
        let found = Finding::failure(Witness::Verifier, self.moment.clone(), error.to_string());
        self.numbered(error, Finding { failure: error.is_failure(), moot, ..found });
    }

    /// What the library has a number for. A failure that another witness has told of its place is no other one.
    fn numbered(&mut self, error: &Error, found: Finding) {
        let found = Finding { code: Some(error.code()), at: Some(error.at), ..found };
        let same = |known: &Finding| {
            let is_others = known.witness != found.witness;
            (known.code, known.at) == (found.code, found.at)
                && (is_others || known.message == found.message)
        };
        let is_told = |known: &Finding| known.counts() || known.failure && found.moot;
        if !found.failure || !self.list.iter().any(|known| is_told(known) && same(known)) {
            add(&mut self.list, found);
        }
    }
}

/// The addresses that an error is about which says of a decoder, or of a set, that another decoder is not as
/// it would have to be: it never comes alone where that one was lost.
fn missed(error: &Error) -> Option<Span> {
    match error.code {
        Code::VERIFY_NOT_CLAIMED | Code::VERIFY_LEADS_NOWHERE => {
            Span::new(Hpa(error.expected), error.found).ok()
        }
        Code::VERIFY_MEMBERS => error.at.span(),
        _ => None,
    }
}

/// Whether a loss follows from another one of the record: the decoder that it misses is stranded, and what
/// became of that is told by an error of its own.
fn follows(error: &Error, record: &Handoff<'_>) -> bool {
    let Some(range) = missed(error) else { return false };
    let is_missed = |decoder: &HandoffDecoder| {
        let claims = Span::new(Hpa(decoder.image.base()), decoder.image.size());
        decoder.fate == Fate::Stranded && claims.is_ok_and(|span| span.overlaps(range))
    };
    let is_about = |cause: &Error, decoder: &HandoffDecoder| {
        let above = |path: &Path| path.split_last().map(|(_, above)| above);
        match cause.at.decoder() {
            Some(_) => cause.at == decoder.place.into(),
            None => successors(Some(decoder.place.at), above).any(|path| cause.at.names(&path)),
        }
    };
    record.outcomes().any(|it| match it.outcome {
        Outcome::Broken(cause) if cause.is_failure() && missed(&cause).is_none() => {
            record.decoders().any(|decoder| is_missed(&decoder) && is_about(&cause, &decoder))
        }
        _ => false,
    })
}

fn in_words<S: Serializer>(moment: &Moment, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(moment)
}

fn maybe_code<S: Serializer>(value: &Option<u16>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => code(value, to),
        None => to.serialize_none(),
    }
}
