//! QEMU's own words from whoever runs this program: behind those that a scenario becomes, or alone, and
//! then the machine is what they build.
//!
//! **Invariant**: a word that would undo what this program adds to every command line is refused by name,
//! before a machine starts; the scenario of a command line is what the library finds on the machine that
//! QEMU makes of it, and nothing is read out of the words themselves.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::time::Duration;

use cxl_firmware::Error;
use cxl_firmware::discover::discover;
use cxl_firmware::topology::{Node, NodeId, NodeKind, Tree};
use cxl_model::scenario::{Scenario, ScenarioError};
use cxl_regs::Size;

use super::Clock;
use super::bare::{self, BareError};
use super::command::{Command, Refusal};
use super::offers::Offers;
use super::process::{ADDRESS_BITS, Process, ProcessError, fixed};
use crate::run::{self, Tables};

/// What the machine of a command line is called.
pub const NAME: &str = "command line";

/// The least memory that our image, a Linux and its initramfs are given.
const LEAST: u64 = 512 << 20;

/// Words of QEMU's own, besides those that a scenario becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The words, in order.
    pub words: Vec<OsString>,
    /// They are the whole machine, and the scenario was read off it ([`machine`]).
    pub whole: bool,
}

impl Given {
    /// The command line of a scenario with these words.
    pub(crate) fn command(
        &self,
        offers: &Offers,
        scenario: &Scenario,
        files: Option<&std::path::Path>,
    ) -> Result<Command, Refusal> {
        let mut command = match self.whole {
            true => Command { groups: Vec::new(), media: Vec::new(), notes: found(scenario) },
            false => Command::on(offers, scenario, files)?,
        };
        if !self.words.is_empty() {
            command.groups.push(self.words.clone());
        }
        Ok(command)
    }
}

/// What was found on the machine of a command line, by the names that it has from then on.
fn found(scenario: &Scenario) -> Vec<String> {
    use cxl_model::scenario::Place;
    let devices = scenario.devices.iter().enumerate().map(|(index, device)| {
        let at = run::path(scenario, Place::Device(index));
        let at = at.map_or_else(|| "nowhere".to_owned(), |path| path.to_string());
        let both = [(device.volatile, "volatile"), (device.persistent, "persistent")];
        let sizes = both.iter().filter(|(size, _)| *size > 0);
        let sizes: Vec<_> = sizes.map(|(size, of)| format!("{} {of}", Size(*size))).collect();
        format!("{} is the device at {at}, {}", device.name, sizes.join(" and "))
    });
    devices.collect()
}

/// Why words of QEMU's are not taken, or make no machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// A word that this program needs for itself.
    Ours {
        /// The option, and its value where that is what is wrong.
        word: String,
        /// What this program does with it.
        why: &'static str,
    },
    /// QEMU does not take them, or ends by itself.
    Qemu(ProcessError),
    /// They make no machine with CXL.
    NoCxl(BareError),
    /// Too little memory.
    Memory {
        /// What there is.
        found: u64,
    },
    /// The library cannot make sense of the machine.
    Library(Error),
    /// The machine is none that a scenario could be of.
    Scenario(ScenarioError),
}

impl LineError {
    /// Whether it is the words that are wrong, and not this host or what the library makes of a machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Ours { .. } | Self::NoCxl(_) | Self::Memory { .. } | Self::Scenario(_) => true,
            Self::Qemu(error) => matches!(error, ProcessError::Ended { .. }),
            Self::Library(_) => false,
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("behind --: ")?;
        match self {
            Self::Ours { word, why } => write!(f, "{word}: {why}"),
            Self::Qemu(error) => error.fmt(f),
            Self::NoCxl(error) => error.fmt(f),
            Self::Memory { found } => write!(
                f,
                "expected -m 512M or more for our image and a Linux, found {}",
                Size(*found)
            ),
            Self::Library(error) => write!(f, "the library refuses this machine: {error}"),
            Self::Scenario(error) => write!(f, "this machine has no scenario: {error}"),
        }
    }
}

impl std::error::Error for LineError {}

/// Options that this program adds itself, or that keep it from what it does: with the one value that is
/// no contradiction, and why any other is.
const OURS: &[(&str, Option<&str>, &str)] = &[
    (
        "kernel",
        None,
        "our image boots there; a Linux of yours is named in front of -- (--kernel FILE)",
    ),
    (
        "append",
        None,
        "our image has words of its own there; Linux's are given in front of -- (--append WORDS)",
    ),
    ("initrd", None, "our image takes it another way; name it in front of -- (--initrd FILE)"),
    ("dtb", None, "our image boots without one"),
    ("serial", None, "the serial ports are read here: leave it out"),
    ("nographic", None, "it takes the serial port that is read here: leave it out"),
    (
        "display",
        Some("none"),
        "nobody looks at a screen here, -display none is added: leave it out",
    ),
    ("curses", None, "-display none is added: leave it out"),
    ("monitor", Some("none"), "this program's own channel to QEMU is there: leave it out"),
    ("accel", Some("tcg"), "-accel tcg is added, as not every KVM can run this: leave it out"),
    ("enable-kvm", None, "-accel tcg is added, as not every KVM can run this: leave it out"),
    ("qtest", None, "this program looks at the machine through it: leave it out"),
    ("qtest-log", None, "this program looks at the machine through qtest: leave it out"),
    ("S", None, "the machine would wait for ever: leave it out"),
    ("incoming", None, "the machine would wait for another: leave it out"),
    ("preconfig", None, "the machine would wait for ever: leave it out"),
    ("daemonize", None, "QEMU is ended from here: leave it out"),
    ("no-shutdown", None, "a machine that switches itself off has to end here: leave it out"),
    ("action", None, "what ends a machine is decided here: leave it out"),
    ("chroot", None, "files of this program's own are opened by QEMU: leave it out"),
    ("runas", None, "files of this program's own are opened by QEMU: leave it out"),
];

/// Options that a scenario becomes.
const MACHINE: [&str; 4] = ["M", "machine", "cpu", "m"];

/// Refuses what would undo what is added here. `whole`: there is no scenario beside these words.
pub fn check(given: &Given) -> Result<(), LineError> {
    let texts: Vec<_> = given.words.iter().map(|word| word.to_string_lossy()).collect();
    for (index, text) in texts.iter().enumerate() {
        // QEMU takes two dashes for one.
        let Some(option) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')) else {
            continue;
        };
        let value = texts.get(index + 1).map_or("", |value| value);
        let ours = |word: String, why| Err(LineError::Ours { word, why });
        if let Some((_, same, why)) = OURS.iter().find(|(name, ..)| *name == option)
            && same.is_none_or(|same| same != value)
        {
            return ours(text.to_string(), why);
        }
        if !given.whole && MACHINE.contains(&option) {
            return ours(
                text.to_string(),
                "the scenario's machine has it already: leave it out, or leave the scenario out",
            );
        }
        let parts = || value.split(',');
        match option {
            "fw_cfg" if parts().any(|part| of_ours(part.trim_start_matches("name="))) => {
                return ours(format!("{text} {value}"), "the image's own files have these names");
            }
            "device" if parts().next() == Some("isa-debug-exit") => {
                return ours(format!("{text} {value}"), "the image ends by one that is added here");
            }
            "M" | "machine"
                if parts().any(|part| part.starts_with("accel=") && part != "accel=tcg") =>
            {
                return ours(
                    format!("{text} {value}"),
                    "-accel tcg is added, as not every KVM can run this: leave accel= out",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file of fw_cfg has a name of ours.
fn of_ours(name: &str) -> bool {
    name.starts_with("opt/org.cxl-firmware/")
}

/// The machine that QEMU makes of these words alone, as the library finds it before any firmware has run.
pub fn machine(words: &[OsString], limit: Duration) -> Result<Scenario, LineError> {
    check(&Given { words: words.to_vec(), whole: true })?;
    let mut arguments = fixed();
    arguments.push("-S".into());
    arguments.extend(words.iter().cloned());
    let (mut process, mut qtest) =
        Process::start_with_qtest(&arguments, limit).map_err(LineError::Qemu)?;
    let mut bare = |error| match error {
        BareError::Qtest(error) => LineError::Qemu(process.explain(error)),
        error => LineError::NoCxl(error),
    };
    let tables = bare::platform(&mut qtest, ADDRESS_BITS).map_err(&mut bare)?;
    let memory = bare::memory(&mut qtest).map_err(&mut bare)?;
    if memory < LEAST {
        return Err(LineError::Memory { found: memory });
    }
    let mut room = run::room();
    let topology = &mut room.topology;
    let discovered = discover(&mut qtest, &mut Clock::new(), &tables.platform(), &mut *topology);
    qtest.check().map_err(|error| LineError::Qemu(process.explain(error)))?;
    discovered.map_err(LineError::Library)?;
    let text = text(&tables, room.topology.tree(), memory);
    Scenario::parse(&text, NAME).map_err(LineError::Scenario)
}

/// The scenario of a machine. Where a window is of several bridges, sets go over them: no device alone
/// could be in it.
fn text(tables: &Tables, tree: Tree<'_>, memory: u64) -> String {
    let mut text = format!("[platform]\nphysical_bits = {ADDRESS_BITS}\nmemory = {memory:#x}\n");
    let mut names: Vec<(NodeId, String)> = Vec::new();
    let mut counts = [0usize; 4];
    for (id, node) in tree.iter() {
        let (kind, word) = match node.kind {
            NodeKind::HostBridge { .. } => (0, "hb"),
            NodeKind::RootPort | NodeKind::DownstreamPort => (1, "port"),
            NodeKind::UpstreamPort => (2, "sw"),
            NodeKind::Device(_) => (3, "mem"),
        };
        let name = format!("{word}{}", counts.get(kind).copied().unwrap_or_default());
        if let Some(count) = counts.get_mut(kind) {
            *count += 1;
        }
        let above = names.iter().find(|(at, _)| Some(*at) == node.parent);
        let above = above.map_or("", |(_, above)| above);
        // Writing to a text does not fail.
        let _ = component(&mut text, tables, tree, (id, node), &name, above);
        names.push((id, name));
    }
    let bridge = |uid: u32| {
        let mut nodes = tree.iter();
        let found = nodes.find(|(_, node)| node.kind == NodeKind::HostBridge { uid });
        names.iter().find(|(id, _)| Some(*id) == found.map(|(id, _)| id))
    };
    for window in &tables.windows {
        let targets: Vec<_> = { window.targets.iter() }
            .map(|&uid| {
                bridge(uid).map_or_else(|| uid.to_string(), |(_, name)| format!("{name:?}"))
            })
            .collect();
        let _ = write!(text, "[[window]]\ntargets = [{}]\n", targets.join(", "));
        let _ = writeln!(text, "size = {:#x}", window.size);
        if targets.len() > 1 {
            let granularity = window.interleave.granularity.bytes();
            let _ = write!(text, "granularity = {granularity}\ninterleave = \"widest\"\n");
        }
    }
    text
}

/// What a component is in a scenario.
fn component(
    text: &mut String,
    tables: &Tables,
    tree: Tree<'_>,
    (id, node): (NodeId, &Node),
    name: &str,
    above: &str,
) -> fmt::Result {
    let decoders = node.hdm.map_or(0, |hdm| hdm.decoders);
    let targets = node.hdm.map(|hdm| hdm.capability.target_count());
    match node.kind {
        NodeKind::HostBridge { uid } => {
            let platform = tables.bridges.iter().find(|bridge| bridge.uid == uid);
            let bus = platform.and_then(|bridge| bridge.root).map_or(0, |root| root.bus);
            let through = tree.children(id).any(|(_, port)| port.back_invalidate.is_some());
            write!(text, "[[bridge]]\nname = {name:?}\nuid = {uid}\nbus = {bus}\n")?;
            write!(text, "decoders = {decoders}\nback_invalidate = {through}\n")?;
        }
        NodeKind::RootPort | NodeKind::DownstreamPort => {
            write!(text, "[[port]]\nname = {name:?}\nbelow = {above:?}\nnumber = {}\n", node.port)?;
        }
        NodeKind::UpstreamPort => {
            write!(
                text,
                "[[switch]]\nname = {name:?}\nbelow = {above:?}\ndecoders = {decoders}\n"
            )?;
        }
        NodeKind::Device(device) => {
            write!(
                text,
                "[[device]]\nname = {name:?}\nbelow = {above:?}\ndecoders = {decoders}\n"
            )?;
            for (size, partition) in
                [(device.volatile, "volatile"), (device.persistent, "persistent")]
            {
                if size > 0 {
                    writeln!(text, "{partition} = {size:#x}")?;
                }
            }
            let models = node.hdm.map_or(0, |hdm| hdm.capability.coherency_models());
            if matches!(models, 1 | 3) && node.back_invalidate.is_some() {
                writeln!(text, "coherency = \"back-invalidate\"")?;
            }
        }
    }
    match node.kind {
        NodeKind::HostBridge { .. } | NodeKind::UpstreamPort => match targets {
            Some(targets) => writeln!(text, "target_count = {targets}"),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}
