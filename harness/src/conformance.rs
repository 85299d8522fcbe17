//! What a lock does, system by system: the specification's behaviours as rows, and who has them.
//!
//! Our models are measured when the table is made, each row on a machine of its own that the library
//! has brought up and locked; so is the QEMU that is installed, if that is asked for, and a test holds
//! what is recorded of its version against it. The other columns are data: those of systems that cannot
//! be run here as their authors describe or publish them.
//!
//! **Invariant**: a row is a sentence that is true of a system that does what the section says; what
//! nobody has seen is told as unknown, never as a yes.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use cxl_firmware::config::function_base;
use cxl_firmware::platform::Ecam;
use cxl_model::device::Reset;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::mmio::Mmio;
use schemars::JsonSchema;
use serde::Serialize;

use crate::qemu::offers::Offers;
use crate::qemu::qtest::Width;
use crate::qemu::run::{BroughtUp, RunError, brought_up};
use crate::run::{self, DirectRun};
use crate::terminal::folded;

/// Whether a system behaves as a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Nobody has seen it, or the system has no such thing.
    Unknown,
}

/// A behaviour.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Row {
    /// In words.
    pub behaviour: &'static str,
    /// The section of CXL r3.1 that asks for it.
    pub section: &'static str,
    /// By system, in the order of [`SYSTEMS`].
    pub answers: Vec<Answer>,
}

/// The columns: ours first, which is measured; the others are recorded.
pub const SYSTEMS: [&str; 6] = ["models", "QEMU 10.0", "11.1", "OpenVMM", "vfio v3", "v4"];

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Table {
    /// The columns.
    pub systems: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What is measured.
trait System {
    fn read(&mut self, address: u64) -> u32;
    fn store(&mut self, address: u64, bytes: &[u8]);
    /// Resets the device, and leaves its BARs where they were unless it is FLR; false where nobody
    /// can from here.
    fn reset(&mut self, reset: Reset) -> bool;
    /// Decoders of the device that are committed, wherever its BARs are; `None` where nobody sees.
    fn committed(&self) -> Option<usize>;
}

impl System for Machine {
    fn read(&mut self, address: u64) -> u32 {
        Mmio::read(self, address)
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        self.write_bytes(address, bytes);
    }

    fn reset(&mut self, reset: Reset) -> bool {
        match reset.conventional() {
            true => self.reset(reset),
            false => self.reset_device(0, reset),
        }
        true
    }

    fn committed(&self) -> Option<usize> {
        let images = self.component(Place::Device(0))?.hdm()?.images();
        Some(images.filter(|image| image.control().committed()).count())
    }
}

/// QEMU's devices.
struct Peer {
    started: BroughtUp,
    /// Configuration space of the device, and of the port above it.
    config: u64,
    port: u64,
}

impl System for Peer {
    fn read(&mut self, address: u64) -> u32 {
        self.started.qtest.read(address)
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        let mut value = [0; 8];
        let width = match bytes.len() {
            1 => Width::One,
            2 => Width::Two,
            4 => Width::Four,
            _ => Width::Eight,
        };
        value.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        // A failure is kept, and asked for in the end.
        let _ = self.started.qtest.store(address, u64::from_le_bytes(value), width);
    }

    /// A secondary bus reset; its devices have neither CXL Reset nor FLR.
    fn reset(&mut self, reset: Reset) -> bool {
        if !reset.conventional() {
            return false;
        }
        let kept = [0x10, 0x14, 0x04].map(|offset| (offset, self.read(self.config + offset)));
        let control = self.port + 0x3C;
        let own = self.read(control);
        for value in [own | SECONDARY_BUS_RESET, own & !SECONDARY_BUS_RESET] {
            self.started.qtest.write(control, value);
        }
        for (offset, value) in kept {
            // The upper half of Command is Status, whose bits a 1 clears.
            let value = if offset == 0x04 { value & 0xFFFF } else { value };
            self.started.qtest.write(self.config + offset, value);
        }
        true
    }

    fn committed(&self) -> Option<usize> {
        None
    }
}

/// Bridge Control, 0x3E, bit 6, in its dword.
const SECONDARY_BUS_RESET: u32 = 1 << 22;

/// A machine whose path is locked, and where its registers are.
struct Rig<'s> {
    system: &'s mut dyn System,
    /// Decoders of the device and of the bridge, from the HDM structure on.
    device: u64,
    bridge: u64,
    dvsec: u64,
    config: u64,
    /// Something could not be done, or not be seen.
    unknown: bool,
}

/// Where the registers of a machine are that the library has brought up: decoders of device and bridge,
/// the Device DVSEC, configuration space of the device and of the port above it.
fn places(done: &DirectRun, ecam: &[Ecam]) -> Option<[u64; 5]> {
    let tree = done.room.topology.tree();
    let (id, node) = tree.iter().find(|(_, node)| node.device().is_some())?;
    let bridge = tree.iter().find_map(|(_, node)| node.hdm.filter(|_| node.parent.is_none()))?;
    let port = tree.get(tree.get(id)?.parent?)?;
    let config = function_base(ecam, node.function?)?.0;
    let port = function_base(ecam, port.function?)?.0;
    Some([node.hdm?.block.0, bridge.block.0, node.device()?.dvsec.0, config, port])
}

/// The machine that everything is measured on.
const MACHINE: &str = "one-device";

const BASE_LOW: u64 = 0x10;
const BASE_HIGH: u64 = 0x14;
const SIZE_LOW: u64 = 0x18;
const SIZE_HIGH: u64 = 0x1C;
const CONTROL: u64 = 0x20;
const ROUTE_LOW: u64 = 0x24;
const ROUTE_HIGH: u64 = 0x28;
/// From a decoder to the next.
const NEXT: u64 = 0x20;
const GLOBAL: u64 = 0x04;
const LOCK: u32 = 1 << 8;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
const HOST_ONLY: u32 = 1 << 12;

impl Rig<'_> {
    fn of(system: &mut dyn System, [device, bridge, dvsec, config, _]: [u64; 5]) -> Rig<'_> {
        Rig { system, device, bridge, dvsec, config, unknown: false }
    }

    /// What a row says of it.
    fn answer(&mut self, measure: fn(&mut Rig<'_>) -> bool) -> Answer {
        match (measure(self), self.unknown) {
            (_, true) => Answer::Unknown,
            (true, _) => Answer::Yes,
            (false, _) => Answer::No,
        }
    }

    fn read(&mut self, address: u64) -> u32 {
        self.system.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.system.store(address, &value.to_le_bytes());
    }

    fn reset(&mut self, reset: Reset) {
        self.unknown |= !self.system.reset(reset);
    }

    /// Whether a dword keeps its value when these bits are turned round.
    fn holds(&mut self, address: u64, bits: u32) -> bool {
        let own = self.read(address);
        self.write(address, own ^ bits);
        self.read(address) == own
    }

    /// Whether a dword keeps its value when bytes of it, from some byte on, are turned round.
    fn holds_bytes(&mut self, address: u64, bytes: usize, from: u64) -> bool {
        let own = [0, 4].map(|next| self.read((address & !7) + next));
        let before = self.read(address);
        self.system.store(address + from, &vec![!(before as u8); bytes]);
        own == [0, 4].map(|next| self.read((address & !7) + next)) && before == self.read(address)
    }

    /// Decoders of the device that are committed. After FLR no BAR leads to them.
    fn committed(&mut self) -> usize {
        let committed = self.system.committed();
        self.unknown |= committed.is_none();
        committed.unwrap_or(0)
    }

    /// Programs the spare decoder behind the locked one; its Control afterwards.
    fn spare(&mut self, nth: u64, (base, size): (u64, u64), control: u32) -> u32 {
        let at = self.device + NEXT * nth;
        for (offset, value) in [(BASE_LOW, base), (SIZE_LOW, size)] {
            self.write(at + offset, value as u32);
            self.write(at + offset + 4, (value >> 32) as u32);
        }
        self.write(at + CONTROL, control);
        self.read(at + CONTROL)
    }
}

/// Behind whatever is locked in the built-in machine.
const FREE: (u64, u64) = (1 << 40, 1 << 28);
const MEM_ENABLE: u32 = 1 << 2;

/// A behaviour, its section, whether our models have it, and the other systems' answers: `y`, `n`,
/// `-`, in the order of [`SYSTEMS`].
type Behaviour = (&'static str, &'static str, fn(&mut Rig<'_>) -> bool, &'static str);

const BEHAVIOURS: [Behaviour; 42] = [
    (
        "a locked device decoder keeps Base Low",
        "8.2.4.20.3",
        |r| r.holds(r.device + BASE_LOW, 1 << 28),
        "nnyyy",
    ),
    ("and Base High", "8.2.4.20.4", |r| r.holds(r.device + BASE_HIGH, 1), "nnyyy"),
    ("and Size Low", "8.2.4.20.5", |r| r.holds(r.device + SIZE_LOW, 1 << 28), "nnyyy"),
    ("and Size High", "8.2.4.20.6", |r| r.holds(r.device + SIZE_HIGH, 1), "nnyyy"),
    ("and IG", "8.2.4.20.7", |r| r.holds(r.device + CONTROL, 1), "nny--"),
    ("and IW", "8.2.4.20.7", |r| r.holds(r.device + CONTROL, 0x10), "nny--"),
    ("and Lock On Commit", "8.2.4.20.7", |r| r.holds(r.device + CONTROL, LOCK), "nnyyy"),
    ("and Commit", "8.2.4.20.7", |r| r.holds(r.device + CONTROL, COMMIT), "nnyyy"),
    ("and Target Range Type", "8.2.4.20.7", |r| r.holds(r.device + CONTROL, HOST_ONLY), "nny--"),
    (
        "and DPA Skip",
        "8.2.4.20.10",
        |r| r.holds(r.device + ROUTE_LOW, 1 << 28) && r.holds(r.device + ROUTE_HIGH, 1),
        "nny--",
    ),
    (
        "a locked bridge decoder keeps base and size",
        "8.2.4.20.3",
        |r| r.holds(r.bridge + BASE_HIGH, 1) && r.holds(r.bridge + SIZE_HIGH, 1),
        "nn---",
    ),
    ("and Control", "8.2.4.20.7", |r| r.holds(r.bridge + CONTROL, 0x3FF), "nn---"),
    ("and the target list", "8.2.4.20.8", |r| r.holds(r.bridge + ROUTE_LOW, 0xFF), "nn---"),
    (
        "a byte reaches no decoder register",
        "8.2.3",
        |r| r.holds_bytes(r.device + BASE_HIGH, 1, 0),
        "yyyyy",
    ),
    ("nor does a word", "8.2.3", |r| r.holds_bytes(r.device + BASE_HIGH, 2, 0), "yyyyy"),
    ("nor do eight bytes", "8.2.3", |r| r.holds_bytes(r.device + BASE_LOW, 8, 0), "yyyyy"),
    (
        "nor does a store across two dwords",
        "8.2.3",
        |r| r.holds_bytes(r.device + BASE_LOW, 4, 2),
        "yy-yy",
    ),
    (
        "all-ones in one store change nothing locked",
        "8.2.4.20.3",
        |r| {
            r.write(r.device + BASE_HIGH, u32::MAX);
            r.read(r.device + BASE_HIGH) != u32::MAX
        },
        "nnyyy",
    ),
    (
        "the lock holds while HDM Decoder Enable is off",
        "8.2.4.20.12",
        |r| {
            r.write(r.device + GLOBAL, 0);
            r.holds(r.device + BASE_HIGH, 1)
        },
        "nn---",
    ),
    (
        "and while Bus Master is off",
        "8.2.4.20.12",
        |r| {
            let own = r.read(r.config + 4);
            r.write(r.config + 4, own & 0xFFFB);
            r.holds(r.device + BASE_HIGH, 1)
        },
        "nn---",
    ),
    (
        "no lock covers HDM Decoder Enable",
        "8.2.4.20.2",
        |r| !r.holds(r.device + GLOBAL, 2),
        "yy---",
    ),
    (
        "HDM Decoder Enable of a bridge reads 0",
        "8.2.4.20.2",
        |r| {
            r.write(r.bridge + GLOBAL, 2);
            r.read(r.bridge + GLOBAL) & 2 == 0
        },
        "nn---",
    ),
    (
        "a lock is its decoder's alone",
        "8.2.4.20.12",
        |r| !r.holds(r.device + NEXT + BASE_HIGH, 1),
        "yy---",
    ),
    (
        "Lock On Commit freezes nothing before the commit",
        "8.2.4.20.12",
        |r| {
            r.spare(1, FREE, LOCK);
            !r.holds(r.device + NEXT + BASE_HIGH, 1)
        },
        "yy-n-",
    ),
    (
        "and can be taken back before it",
        "8.2.4.20.12",
        |r| {
            r.spare(1, FREE, LOCK);
            !r.holds(r.device + NEXT + CONTROL, LOCK)
        },
        "yynn-",
    ),
    (
        "a commit without it can be taken back",
        "8.2.4.20.12",
        |r| {
            let done = r.spare(1, FREE, HOST_ONLY | COMMIT);
            done & COMMITTED != 0 && r.spare(1, FREE, HOST_ONLY) & COMMITTED == 0
        },
        "yyn--",
    ),
    (
        "a locked commit that wraps is refused",
        "8.2.4.20.12",
        |r| r.spare(1, (0xFFFF_FFFF_F000_0000, 1 << 29), HOST_ONLY | LOCK | COMMIT) & ERROR != 0,
        "nnnn-",
    ),
    (
        "a locked commit out of order is refused",
        "8.2.4.20.12",
        |r| r.spare(2, FREE, HOST_ONLY | LOCK | COMMIT) & ERROR != 0,
        "nnnn-",
    ),
    (
        "a refused commit leaves the decoder open",
        "8.2.4.20.12",
        |r| {
            r.unknown |= r.spare(2, FREE, HOST_ONLY | LOCK | COMMIT) & ERROR == 0;
            r.spare(2, FREE, HOST_ONLY);
            !r.holds(r.device + 2 * NEXT + BASE_HIGH, 1)
        },
        "-----",
    ),
    ("CONFIG_LOCK freezes Control", "8.1.3.2", |r| r.holds(r.dvsec + 0x0C, MEM_ENABLE), "nnyy-"),
    (
        "and the ranges' bases",
        "8.1.3.8",
        |r| r.holds(r.dvsec + 0x20, 1) && r.holds(r.dvsec + 0x24, 1 << 28),
        "nnyyy",
    ),
    ("and itself", "8.1.3.6", |r| r.holds(r.dvsec + 0x14, 1), "nnyyy"),
    (
        "by bytes and words too",
        "8.1.3",
        |r| r.holds_bytes(r.dvsec + 0x0C, 1, 0) && r.holds_bytes(r.dvsec + 0x20, 2, 0),
        "nn---",
    ),
    ("and not Control2", "8.1.3.4", |r| !r.holds(r.dvsec + 0x10, 1 << 3), "yyynn"),
    ("nor any decoder", "8.1.3.6", |r| !r.holds(r.device + NEXT + BASE_LOW, 1 << 28), "yy---"),
    (
        "CXL Reset keeps a locked decoder",
        "9.7",
        |r| {
            let own = r.read(r.device + CONTROL);
            r.reset(Reset::Cxl);
            r.read(r.device + CONTROL) == own
        },
        "----y",
    ),
    (
        "and CONFIG_LOCK with what it freezes",
        "9.7",
        |r| {
            r.reset(Reset::Cxl);
            r.read(r.dvsec + 0x14) & 1 != 0 && r.read(r.dvsec + 0x0C) & MEM_ENABLE != 0
        },
        "-----",
    ),
    (
        "and clears an unlocked one",
        "9.7",
        |r| {
            r.spare(1, FREE, HOST_ONLY | COMMIT);
            r.reset(Reset::Cxl);
            r.read(r.device + NEXT + CONTROL) == 0
        },
        "-----",
    ),
    (
        "FLR keeps decoders, locked or not",
        "9.7",
        |r| {
            r.spare(1, FREE, HOST_ONLY | COMMIT);
            r.reset(Reset::Flr);
            r.committed() == 2
        },
        "-----",
    ),
    (
        "FLR keeps CONFIG_LOCK and Mem_Enable",
        "9.7",
        |r| {
            r.reset(Reset::Flr);
            r.read(r.dvsec + 0x14) & 1 != 0 && r.read(r.dvsec + 0x0C) & MEM_ENABLE != 0
        },
        "-----",
    ),
    (
        "a conventional reset clears decoder and lock",
        "9.7",
        |r| {
            r.reset(Reset::Warm);
            r.read(r.device + CONTROL) == 0
        },
        "yynn-",
    ),
    (
        "and CONFIG_LOCK",
        "9.7",
        |r| {
            r.reset(Reset::Warm);
            r.read(r.dvsec + 0x14) & 1 == 0
        },
        "nn---",
    ),
];

/// What a built-in machine answers, on one of its own.
fn of_models(name: &str, measure: fn(&mut Rig<'_>) -> bool) -> Option<Answer> {
    let mut machine = Machine::new(&Scenario::built_in(name)?);
    let done = run::direct(&mut machine);
    let tables = run::platform(&machine).ok()?;
    let places = places(&done, tables.platform().ecam)?;
    Some(Rig::of(&mut machine, places).answer(measure))
}

/// What the installed QEMU answers, on a process of its own; unknown where it ended of it.
fn of_qemu(
    offers: &Offers,
    limit: Duration,
    measure: fn(&mut Rig<'_>) -> bool,
) -> Result<Answer, RunError> {
    let Some(scenario) = Scenario::built_in(MACHINE) else { return Ok(Answer::Unknown) };
    let started = brought_up(offers, &scenario, limit)?;
    let ecam = started.tables.platform().ecam.to_vec();
    let Some(places @ [.., config, port]) = places(&started.done, &ecam) else {
        return Ok(Answer::Unknown);
    };
    let mut peer = Peer { started, config, port };
    let answer = Rig::of(&mut peer, places).answer(measure);
    Ok(peer.started.qtest.check().map_or(Answer::Unknown, |()| answer))
}

impl Table {
    /// Measures our models and puts what is known of others beside them.
    pub fn measured() -> Self {
        let rows = BEHAVIOURS.iter().map(|&(behaviour, section, measure, others)| {
            let ours = of_models(MACHINE, measure).unwrap_or(Answer::No);
            let others = others.chars().map(|answer| match answer {
                'y' => Answer::Yes,
                'n' => Answer::No,
                _ => Answer::Unknown,
            });
            Row { behaviour, section, answers: [ours].into_iter().chain(others).collect() }
        });
        Self { systems: SYSTEMS.map(str::to_owned).to_vec(), rows: rows.collect() }
    }

    /// The column in which a version of QEMU is recorded.
    pub fn recorded((major, minor): (u32, u32)) -> Option<usize> {
        let name = format!("{major}.{minor}");
        SYSTEMS.iter().position(|system| system.trim_start_matches("QEMU ") == name)
    }

    /// Measures the QEMU that is installed too, in a last column, and tells of each row before.
    pub fn with_qemu(
        mut self,
        limit: Duration,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, RunError> {
        let offers = Offers::ask(limit)?;
        self.systems.push(format!("{} here", offers.name()));
        for (row, (.., measure, _)) in self.rows.iter_mut().zip(BEHAVIOURS) {
            tell(row.behaviour);
            row.answers.push(of_qemu(&offers, limit, measure)?);
        }
        Ok(self)
    }

    /// Whether our models do all that is asked for.
    pub fn conforms(&self) -> bool {
        self.rows.iter().all(|row| row.answers.first() == Some(&Answer::Yes))
    }
}

impl Answer {
    /// All there are, in the order in which they are listed.
    const ALL: [Self; 3] = [Self::Yes, Self::No, Self::Unknown];

    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "NO",
            Self::Unknown => "-",
        }
    }
}

impl Display for Table {
    /// A column for each system, or a list where a width is asked for that has no room for them
    /// (`{table:80}`).
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let widths = || self.systems.iter().map(|system| system.len().max(3) + 1);
        let mut line = format!("{:<50}{:<12}", "behaviour", "CXL r3.1");
        for (system, width) in self.systems.iter().zip(widths()) {
            line += &format!("{system:<width$}");
        }
        // The last column ends with a space, which is not printed.
        let widest = line.len().saturating_sub(1);
        if let Some(columns) = f.width().filter(|columns| *columns < widest) {
            return self.fmt_list(f, columns);
        }
        writeln!(f, "{}", line.trim_end())?;
        for Row { behaviour, section, answers } in &self.rows {
            let mut line = format!("{behaviour:<50}{section:<12}");
            for (answer, width) in answers.iter().zip(widths()) {
                line += &format!("{:<width$}", answer.word());
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Table {
    /// Each behaviour by itself, and below it the systems by their answers.
    fn fmt_list(&self, f: &mut Formatter<'_>, columns: usize) -> fmt::Result {
        for Row { behaviour, section, answers } in &self.rows {
            writeln!(f, "{}", folded(behaviour, columns))?;
            let mut groups = Vec::new();
            for answer in Answer::ALL {
                let systems = self.systems.iter().zip(answers).filter(|(_, own)| **own == answer);
                let systems: Vec<&str> = systems.map(|(system, _)| system.as_str()).collect();
                if !systems.is_empty() {
                    groups.push(format!("{}: {}", answer.word(), systems.join(", ")));
                }
            }
            let line = format!("  {section:<11}  {}", groups.join("; "));
            writeln!(f, "{}", folded(&line, columns))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_an_answer_for_every_system() {
        for (behaviour, _, _, others) in BEHAVIOURS {
            assert_eq!(others.len(), SYSTEMS.len() - 1, "{behaviour}");
            assert!(others.chars().all(|answer| "yn-".contains(answer)), "{behaviour}");
        }
    }

    /// A narrow terminal has a list that fits, with every behaviour, system and answer; a table that
    /// fits, and one for no terminal, are the same.
    #[test]
    fn a_narrow_table_is_a_list_that_fits() {
        use Answer::{No, Unknown, Yes};

        let answers = vec![Yes, No, No, Yes, Unknown, Yes];
        let rows = BEHAVIOURS.iter().map(|&(behaviour, section, ..)| Row {
            behaviour,
            section,
            answers: answers.clone(),
        });
        let table = Table { systems: SYSTEMS.map(str::to_owned).to_vec(), rows: rows.collect() };
        let whole = table.to_string();
        assert_eq!(format!("{table:200}"), whole);
        assert_eq!(whole.lines().count(), 1 + BEHAVIOURS.len());
        for columns in [40, 60, 80] {
            let text = format!("{table:columns$}");
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}: {text}");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for (behaviour, section, ..) in BEHAVIOURS {
                let row = format!(
                    "{behaviour} {section} yes: models, OpenVMM, v4; NO: QEMU 10.0, 11.1; -: vfio v3"
                );
                assert!(text.contains(&row), "{columns}: {row}: {text}");
            }
        }
    }

    /// A lock that is stored and means nothing has every row of a locked device decoder say no.
    #[test]
    fn a_machine_that_enforces_no_lock_does_not_conform() {
        for (behaviour, _, measure, _) in BEHAVIOURS.iter().take(10) {
            let answer = of_models("lock-not-enforced", *measure);
            assert_eq!(answer, Some(Answer::No), "{behaviour}");
        }
    }
}
