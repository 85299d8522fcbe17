//! How a finding comes to be: at once, or as the refusal of a component that some caller ends.
//!
//! **Invariant**: lines of the log stand in the order in which they are added.

use libc::c_int;

use super::{Finding, Kernels, Level, Message, Rule, Severity};

/// Driver and name of the device that a line of the log is said of.
pub(super) type Said<'a> = (&'static str, &'a str);

impl Message {
    pub(super) fn new(level: Level, of: Said<'_>, text: impl Into<String>) -> Self {
        let (driver, device) = (of.0, of.1.to_owned());
        Self { level, driver, device, text: text.into(), kernels: Kernels::default() }
    }
}

impl Finding {
    /// A finding of a whole component, of which the log says nothing.
    pub(super) fn new(
        severity: Severity,
        rule: Rule,
        component: impl Into<String>,
        found: impl Into<String>,
        lost: impl Into<String>,
    ) -> Self {
        Self {
            rule,
            severity,
            component: component.into(),
            decoder: None,
            found: found.into(),
            lost: lost.into(),
            messages: Vec::new(),
            kernels: Kernels::default(),
        }
    }

    /// The finding, of one decoder.
    pub(super) fn of_decoder(self, decoder: usize) -> Self {
        Self { decoder: u8::try_from(decoder).ok(), ..self }
    }

    /// The finding with a line of the log more.
    pub(super) fn say(mut self, level: Level, of: Said<'_>, text: impl Into<String>) -> Self {
        self.messages.push(Message::new(level, of, text));
        self
    }
}

/// Why a window, port, endpoint or member of a region is given up.
pub(super) struct Refusal {
    pub(super) rule: Rule,
    pub(super) errno: c_int,
    found: String,
    /// Who is to blame, if not whoever is given up.
    component: Option<String>,
    pub(super) decoder: Option<u8>,
    pub(super) messages: Vec<Message>,
}

/// What Linux tries, and may refuse.
pub(super) type Attempt<T> = Result<T, Refusal>;

impl Refusal {
    pub(super) fn new(rule: Rule, errno: c_int, found: impl Into<String>) -> Self {
        let found = found.into();
        Self { rule, errno, found, component: None, decoder: None, messages: Vec::new() }
    }

    fn say(mut self, level: Level, of: Said<'_>, text: impl Into<String>) -> Self {
        self.messages.push(Message::new(level, of, text));
        self
    }

    pub(super) fn error(self, of: Said<'_>, text: impl Into<String>) -> Self {
        self.say(Level::Error, of, text)
    }

    pub(super) fn warning(self, of: Said<'_>, text: impl Into<String>) -> Self {
        self.say(Level::Warning, of, text)
    }

    pub(super) fn debug(self, of: Said<'_>, text: impl Into<String>) -> Self {
        self.say(Level::Debug, of, text)
    }

    /// What the driver core says of an error that no driver may have.
    pub(super) fn driver_failed(self, driver: &'static str, device: &str) -> Self {
        let errno = self.errno;
        self.driver_failed_with(driver, device, errno)
    }

    pub(super) fn driver_failed_with(
        self,
        driver: &'static str,
        device: &str,
        errno: c_int,
    ) -> Self {
        let text = format!("probe with driver {driver} failed with error -{errno}");
        self.error((driver, device), text)
    }

    /// The refusal, behind lines that came before it.
    pub(super) fn after(mut self, messages: Vec<Message>) -> Self {
        self.messages.splice(0..0, messages);
        self
    }

    /// The refusal, for one decoder's sake.
    pub(super) fn of_decoder(self, decoder: u8) -> Self {
        Self { decoder: Some(decoder), ..self }
    }

    /// The refusal, for another component's sake, or for its decoder's.
    pub(super) fn blame(self, component: &str, decoder: Option<usize>) -> Self {
        let decoder = decoder.and_then(|decoder| u8::try_from(decoder).ok());
        Self { component: Some(component.to_owned()), decoder, ..self }
    }

    /// Whether it has been said who is to blame.
    pub(super) fn is_blamed(&self) -> bool {
        self.component.is_some()
    }

    /// The finding, of a component unless another one is to blame.
    pub(super) fn finding(self, component: &str, lost: impl Into<String>) -> Finding {
        let Self { rule, found, decoder, messages, .. } = self;
        let component = self.component.unwrap_or_else(|| component.to_owned());
        let finding = Finding::new(Severity::Refused, rule, component, found, lost);
        Finding { decoder, messages, ..finding }
    }
}
