//! What is to be said of a machine that was collected, or written down otherwise: what is there, what its
//! locks protect, what Linux makes of it.
//!
//! **Invariant**: the words *locked* and *sealed* follow from registers alone. Where some were withheld, and
//! what is known does not decide, nobody says either.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use cxl_lint::{
    Config, Images, ImagesError, Input, Kernel, Registers, Report, Withheld, lint, lint_for,
    unchecked,
};
use cxl_model::capture::witness::Witness;
use cxl_model::capture::{Capture, Content, Found};
use cxl_model::mapping::MappingsText;
use cxl_model::words::counted;
use cxl_regs::Size;
use schemars::JsonSchema;
use serde::Serialize;

use crate::locks::{Given, LockedRange, Protection, Unlocked, Unsealed, View, Words};
use crate::report::fact;

/// A yes or a no, if registers decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// What would decide was not given.
    Unknown,
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "nobody can say",
        })
    }
}

/// What the locks of a machine protect, by its registers alone.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Locks {
    /// Every decoder in use is locked, and each path is whole.
    pub locked: Answer,
    /// Locked, and no range register or enable can lead a locked range elsewhere.
    pub sealed: Answer,
    /// Decoders in use.
    pub in_use: usize,
    /// Those of them with a lock in force.
    pub in_force: usize,
    /// Ranges that are locked on a whole path.
    pub ranges: Vec<String>,
    /// Why it is not locked.
    pub not_locked: Vec<String>,
    /// Why it is not sealed, beside that.
    pub not_sealed: Vec<String>,
    /// What nobody gave, so that there may be more to say.
    pub missing: Vec<String>,
    /// Decoders that Linux shows as locked, and as not, where registers were not given; no verdict.
    pub shown: Option<Shown>,
}

/// What Linux says of locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Shown {
    /// Decoders with a range that are shown as locked.
    pub locked: usize,
    /// Those that are shown as not.
    pub open: usize,
    /// Those of which it is not shown, as `cxl list` has no word of locks.
    pub not_shown: usize,
}

/// An input without what was shown of configuration space in part: which DVSECs are behind it, and what
/// they lock, nobody knows.
fn known(input: &Input) -> Input {
    let mut known = input.clone();
    for device in &mut known.devices {
        device.config = device.config.take().filter(Config::is_whole);
    }
    known
}

impl Locks {
    /// By the registers of an input.
    pub fn of(input: &Input) -> Self {
        let given = Given::of(&known(input));
        let found = Protection::of(&given);
        let whole = given.missing().is_empty();
        // What was not given may be what is said to be missing here.
        let sure = |why: &&Unlocked| {
            whole
                || match why {
                    Unlocked::Committed(_) | Unlocked::UnderWay(_) => true,
                    Unlocked::Mixed { index, .. } => index.is_some(),
                    Unlocked::ByRanges { .. }
                    | Unlocked::LeadsNowhere { .. }
                    | Unlocked::Nothing => false,
                }
        };
        let not_locked: Vec<&Unlocked> = found.unlocked.iter().filter(sure).collect();
        let open = |why: &&Unsealed| whole || matches!(why, Unsealed::ConfigLock { .. });
        let not_sealed: Vec<&Unsealed> = found.unsealed.iter().filter(open).collect();
        let answer = |reasons: bool| match (reasons, whole) {
            (true, _) => Answer::No,
            (false, true) => Answer::Yes,
            (false, false) => Answer::Unknown,
        };
        let locked = answer(!not_locked.is_empty());
        let sealed = match locked {
            Answer::No => Answer::No,
            _ => answer(!not_sealed.is_empty()),
        };
        let view: &dyn View = &given;
        let words = |ranges: &[LockedRange]| {
            let mut ranges: Vec<_> = ranges.iter().collect();
            ranges.sort_by_key(|range| range.span.base());
            let mut words: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            words.dedup();
            words
        };
        Self {
            locked,
            sealed,
            in_use: found.in_use.len(),
            in_force: found.locked.len(),
            ranges: words(&found.ranges),
            not_locked: not_locked.into_iter().map(|why| Words(view, why).to_string()).collect(),
            not_sealed: not_sealed.into_iter().map(|why| Words(view, why).to_string()).collect(),
            missing: given.missing().to_vec(),
            shown: None,
        }
    }
}

/// Everything that is to be said.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Inspection {
    /// Whose machine it is.
    pub subject: String,
    /// The version of the Linux that ran there.
    pub kernel: Option<String>,
    /// What is there.
    pub components: Vec<Component>,
    /// Where memory leads, a range a line.
    pub memory: Vec<String>,
    /// What its locks protect.
    pub locks: Locks,
    /// What could not be read.
    pub withheld: Vec<Missing>,
    /// What Linux makes of it.
    pub lint: Report,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Missing {
    /// What it is.
    pub what: String,
    /// Why not, and what to do.
    pub why: String,
}

/// A component of a machine.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// What it is: `bridge`, `port`, `switch`, `device`.
    pub kind: &'static str,
    /// Its place, as Linux writes it.
    pub address: Option<String>,
    /// What is known of it, in words.
    pub facts: String,
}

/// A machine that somebody wrote down.
#[derive(Debug, Default)]
pub struct Subject {
    /// Whose it is.
    pub name: String,
    /// The version of the Linux that ran there.
    pub kernel: Option<String>,
    /// Registers and tables alone.
    pub registers: Input,
    /// The same, with what a Linux showed in the place of what was not given.
    pub whole: Input,
    /// What is to be known of that.
    pub remarks: Vec<String>,
    /// What a Linux showed.
    pub witness: Option<Witness>,
    /// What could not be read.
    pub withheld: Vec<Withheld>,
}

impl From<Images> for Subject {
    fn from(images: Images) -> Self {
        let (whole, remarks) = images.with_witness();
        // What was withheld is told by itself.
        let remarks = remarks.into_iter().filter(|it| !it.contains(": withheld: ")).collect();
        let Images { subject: name, kernel, input: registers, witness, withheld } = images;
        Self { name, kernel, registers, whole, remarks, witness, withheld }
    }
}

impl Subject {
    /// Whether there is nothing to be said of it, and nothing was withheld either.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.withheld.is_empty()
    }

    /// Out of captures that nobody put in an image set.
    pub fn of_captures(
        name: String,
        mut captures: Vec<(PathBuf, Capture)>,
    ) -> Result<Self, ImagesError> {
        let (whole, remarks) = Input::of_captures(&captures)?;
        let mut seen = Witness::default();
        for (_, capture) in &mut captures {
            for found in std::mem::take(&mut capture.found) {
                match found.content {
                    Content::Witness(witness) => seen.merge(witness),
                    content => capture.found.push(Found { content, ..found }),
                }
            }
        }
        let (registers, _) = Input::of_captures(&captures)?;
        let witness = Some(seen).filter(|seen| !seen.is_empty());
        Ok(Self { name, registers, whole, remarks, witness, ..Self::default() })
    }
}

impl Inspection {
    /// What is to be said of a machine.
    pub fn of(subject: Subject) -> Self {
        let Subject { name, kernel, registers, whole, mut remarks, witness, withheld } = subject;
        let version = match kernel.as_deref().map(str::parse::<Kernel>) {
            Some(Ok(version)) => Some(version),
            Some(Err(error)) => {
                remarks.push(format!("the kernel: {error}; what is said of Linux is of others"));
                None
            }
            None => None,
        };
        let findings = match version {
            Some(kernel) => lint_for(&whole, kernel),
            None => lint(&whole),
        };
        let report = Report {
            subject: format!("lint {name}"),
            kernel: version,
            findings,
            unchecked: unchecked(&whole),
            remarks,
        };
        let mut locks = Locks::of(&registers);
        locks.shown = witness.filter(|_| !locks.missing.is_empty()).map(|seen| {
            let ranges = seen.decoders.iter().filter(|(name, decoder)| {
                !name.starts_with("decoder0.") && decoder.size.is_some_and(|size| size > 0)
            });
            ranges.fold(Shown::default(), |mut shown, (_, decoder)| {
                match decoder.locked {
                    Some(true) => shown.locked += 1,
                    Some(false) => shown.open += 1,
                    None => shown.not_shown += 1,
                }
                shown
            })
        });
        let reached = known(&whole).reached();
        let text = MappingsText(&reached.fabric, &reached.mappings()).to_string();
        let withheld = withheld.into_iter().map(|Withheld { what, why }| Missing { what, why });
        Self {
            subject: name,
            kernel,
            components: components(&whole),
            memory: text.lines().map(str::to_owned).collect(),
            locks,
            withheld: withheld.collect(),
            lint: report,
        }
    }

    /// Whether everything was there to be looked at, and Linux refuses nothing.
    pub fn is_good(&self) -> bool {
        self.withheld.is_empty() && self.locks.missing.is_empty() && !self.lint.refused()
    }
}

fn decoders(registers: &Registers) -> String {
    match registers {
        Registers::Unknown => "registers not given".to_owned(),
        Registers::NoBlock => "no component registers".to_owned(),
        Registers::Rcrb(_) => "a CXL 1.1 host".to_owned(),
        Registers::NoHdm => "no decoders".to_owned(),
        Registers::Hdm(image) => {
            let of = |wanted: fn(&cxl_regs::hdm::Control) -> bool| {
                image.decoders.iter().filter(|it| wanted(&it.control())).count()
            };
            let committed = of(|control| control.committed());
            let locked = of(|control| control.locked());
            let all = image.decoders.len();
            format!("{}, {committed} committed, {locked} locked", counted(all, "decoder"))
        }
    }
}

fn components(input: &Input) -> Vec<Component> {
    let mut all = Vec::new();
    for bridge in &input.bridges {
        let uid = bridge.uid.map_or("of no known UID".to_owned(), |uid| format!("UID {uid}"));
        all.push(Component {
            name: bridge.name.clone(),
            kind: "bridge",
            address: bridge.address.clone(),
            facts: format!("{uid}, {}", decoders(&bridge.registers)),
        });
    }
    for port in &input.ports {
        all.push(Component {
            name: port.name.clone(),
            kind: "port",
            address: port.address.clone(),
            facts: format!("port number {}", port.number),
        });
    }
    for switch in &input.switches {
        all.push(Component {
            name: switch.name.clone(),
            kind: "switch",
            address: switch.address.clone(),
            facts: decoders(&switch.registers),
        });
    }
    for device in &input.devices {
        let mut facts = Vec::new();
        if let Some((volatile, persistent)) = device.capacity {
            let parts = [(volatile, "volatile"), (persistent, "persistent")].into_iter();
            let parts = parts.filter(|(bytes, _)| *bytes > 0);
            facts.extend(parts.map(|(bytes, kind)| format!("{} {kind}", Size(bytes))));
        }
        facts.push(decoders(&device.registers));
        let space = device.config.as_ref();
        facts.push(match space.map(|config| config.dvsec) {
            None => "configuration space not given".to_owned(),
            Some(None) if !space.is_some_and(Config::is_whole) => {
                "configuration space given in part".to_owned()
            }
            Some(None) => "no CXL Device DVSEC".to_owned(),
            Some(Some(dvsec)) => {
                let on = if dvsec.control & 1 << 2 != 0 { "on" } else { "off" };
                let lock = if dvsec.lock & 1 != 0 { "set" } else { "clear" };
                format!("CXL.mem {on}, CONFIG_LOCK {lock}")
            }
        });
        all.push(Component {
            name: device.name.clone(),
            kind: "device",
            address: device.address.clone(),
            facts: facts.join(", "),
        });
    }
    all
}

impl Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "inspect {}", self.subject)?;
        if let Some(kernel) = &self.kernel {
            fact(f, "kernel", kernel)?;
        }
        fact(f, "locked", self.locks.locked)?;
        fact(f, "sealed", self.locks.sealed)?;
        writeln!(f, "\ncomponents")?;
        for Component { name, address, facts, .. } in &self.components {
            let address = address.as_deref().unwrap_or("-");
            fact(f, name, format!("{address:<13} {facts}"))?;
        }
        writeln!(f, "\nmemory: where registers lead each range of each window")?;
        for line in &self.memory {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "\nlocks: by registers alone")?;
        self.locks.fmt(f)?;
        if !self.withheld.is_empty() {
            writeln!(f, "\nwithheld: what could not be read, and what to do")?;
            for Missing { what, why } in &self.withheld {
                fact(f, what, why)?;
            }
        }
        writeln!(f, "\n{}", self.lint)
    }
}

impl Display for Locks {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fact(f, "decoders in use", format!("{}, {} of them locked", self.in_use, self.in_force))?;
        if !self.ranges.is_empty() {
            fact(f, "locked ranges", self.ranges.join(", "))?;
        }
        for why in &self.not_locked {
            fact(f, "not locked", why)?;
        }
        for why in &self.not_sealed {
            fact(f, "not sealed", why)?;
        }
        if !self.missing.is_empty() {
            fact(f, "not given", self.missing.join(", "))?;
        }
        if let Some(Shown { locked, open, not_shown }) = self.shown {
            let words = format!(
                "{} with a range locked, {open} not, {not_shown} not shown (no verdict)",
                counted(locked, "decoder")
            );
            fact(f, "Linux shows", words)?;
        }
        Ok(())
    }
}
