//! Which kind of KVM the host has, found out by looking: a guest of some twenty instructions, all at
//! CPL 0, says whether such code runs or is emulated, what an exit costs, and what KVM leaves of the
//! registers when the guest dies of a triple fault.
//!
//! Kinds differ in all three: most use VT-x or AMD-V and two-stage paging, some that of a processor
//! which shows neither (a cloud's guest), where CPL 3 runs by page tables alone and CPL 0 is emulated.
//!
//! **Invariant**: behaviour is seen, never concluded from a name; the two words that only the host's
//! own files tell, extension and paging, are in no decision.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cxl_image::doorbell::EXIT_PORT;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Board, Bus, End, Limits, Reason, Slot, Slots, Vm, VmError};

/// How code at CPL 0 is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ring0 {
    /// The processor runs it.
    Native,
    /// KVM emulates it, one instruction after the other, and some it does not know.
    Emulated,
}

/// What KVM leaves of a vCPU's registers after a triple fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterTripleFault {
    /// Where it was.
    Kept,
    /// The state after reset: where it was is lost.
    Reset,
}

/// The extension of the processor that its flags show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    /// Intel's VT-x.
    Vmx,
    /// AMD's AMD-V.
    Svm,
}

/// How guest addresses are translated, as KVM's module says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paging {
    /// By the processor, through a second stage of tables.
    TwoStage,
    /// By KVM, through tables that shadow the guest's.
    Shadow,
}

/// A kind of KVM, and how fast this host is with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Kind {
    /// How code at CPL 0 is executed.
    pub ring0: Ring0,
    /// The registers after a triple fault.
    pub after_triple_fault: AfterTripleFault,
    /// What the processor shows, if anything.
    pub extension: Option<Extension>,
    /// How addresses are translated, if the module says so.
    pub paging: Option<Paging>,
    /// One exit, there and back; the median of some, in nanoseconds.
    #[serde(rename = "exit_ns", serialize_with = "nanoseconds")]
    #[schemars(with = "u64")]
    pub exit: Duration,
    /// How many times slower than an ordinary host this one is, 1 or more.
    pub slowness: u32,
}

fn nanoseconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.extension {
            Some(Extension::Vmx) => "VT-x",
            Some(Extension::Svm) => "AMD-V",
            None => "a processor that shows neither VT-x nor AMD-V",
        })?;
        f.write_str(match self.paging {
            Some(Paging::TwoStage) => ", two-stage paging",
            Some(Paging::Shadow) => ", shadow paging",
            None => "",
        })?;
        f.write_str(match self.ring0 {
            Ring0::Native => "; CPL 0 runs natively",
            Ring0::Emulated => "; CPL 0 is emulated",
        })?;
        if self.after_triple_fault == AfterTripleFault::Reset {
            f.write_str("; a triple fault resets the registers")?;
        }
        write!(f, "; {:.1} us an exit", self.exit.as_nanos() as f64 / 1000.0)?;
        match self.slowness {
            1 => Ok(()),
            times => write!(f, ", {times} times an ordinary host's time"),
        }
    }
}

/// Where the guest's code is: the first address that nothing else lies at.
const CODE: u32 = 0x10_0000;
const RAM: u64 = 2 << 20;
/// Exits that are timed, one for each byte that is sent to the serial port.
const EXITS: u8 = 101;
/// A guest of that length that does not end is none.
const LIMIT: Duration = Duration::from_secs(20);
/// What the guest says if its SSE instruction ran.
const RAN: u8 = 0x21;

/// What an exit costs on the slowest hardware that was seen, a cloud's guest with a busy neighbour,
/// and what the whole guest takes there, from the first call to the last: system calls, pages that
/// are touched for the first time, code that runs for the first time.
const ORDINARY_EXIT: Duration = Duration::from_micros(60);
const ORDINARY_LIFE: Duration = Duration::from_millis(10);
/// Beyond that a limit means nothing.
const SLOWEST: u32 = 60;

/// Of this host. Looked for once, as long as there is no answer.
pub fn kind() -> Result<Kind, String> {
    static KIND: OnceLock<Kind> = OnceLock::new();
    if let Some(kind) = KIND.get() {
        return Ok(*kind);
    }
    let found = look()?;
    Ok(*KIND.get_or_init(|| found))
}

/// A time limit that is meant for an ordinary host, on this one; the same where nobody can say.
pub fn patience(ordinary: Duration) -> Duration {
    ordinary.saturating_mul(kind().map_or(1, |kind| kind.slowness))
}

/// Whether code at CPL 0 is emulated here; where nobody can say it is better left alone.
pub fn emulates_ring_0() -> bool {
    kind().map_or(true, |kind| kind.ring0 == Ring0::Emulated)
}

/// The guest: where the instruction is that only a processor knows, where the guest goes on after it,
/// and the code.
fn program() -> (u32, u32, Vec<u8>) {
    // mov ecx, EXITS; mov dx, 0x3F8
    let mut code = vec![0xB9, EXITS, 0, 0, 0, 0x66, 0xBA, 0xF8, 0x03];
    // out dx, al; loop to it
    code.extend([0xEE, 0xE2, 0xFD]);
    // mov eax, cr4; or eax, OSFXSR | OSXMMEXCPT; mov cr4, eax
    code.extend([0x0F, 0x20, 0xE0, 0x0D, 0x00, 0x06, 0x00, 0x00, 0x0F, 0x22, 0xE0]);
    // mov al, 0
    code.extend([0xB0, 0]);
    let sse = CODE + code.len() as u32;
    // divps xmm0, xmm0; mov al, RAN. Moves of SSE are the few that KVM's emulator knows.
    code.extend([0x0F, 0x5E, 0xC0, 0xB0, RAN]);
    let goes_on = CODE + code.len() as u32;
    // mov dx, 0x3F8; out dx, al
    code.extend([0x66, 0xBA, 0xF8, 0x03, 0xEE]);
    // lidt of six bytes of zero behind the code; ud2
    let empty = CODE + code.len() as u32 + 9;
    code.extend([0x0F, 0x01, 0x1D]);
    code.extend(empty.to_le_bytes());
    code.extend([0x0F, 0x0B, 0, 0, 0, 0, 0, 0]);
    (sse, goes_on, code)
}

/// The other side of the guest.
struct Watch {
    /// When each byte came.
    times: Vec<Instant>,
    last: Option<u8>,
    emulated: bool,
    goes_on: u32,
}

impl Bus for Watch {
    fn read(&mut self, _: u64, _: &mut [u8]) {}

    fn write(&mut self, _: u64, _: &[u8]) {}

    fn slots(&mut self) -> Option<Vec<Slot>> {
        None
    }

    fn console(&mut self, bytes: &[u8]) {
        self.times.push(Instant::now());
        self.last = bytes.last().copied();
    }

    fn doorbell(&mut self, _: u32, _: &Slots) {}

    fn internal_error(&mut self, _: u32) -> Option<u64> {
        // Once, and the guest has nothing else that could be one.
        (!std::mem::replace(&mut self.emulated, true)).then_some(self.goes_on.into())
    }
}

fn look() -> Result<Kind, String> {
    let start = Instant::now();
    let words = |error: VmError| error.to_string();
    let mut vm = Vm::plain(&[(0, RAM)], 36, Board::Bare).map_err(words)?;
    let (_, goes_on, code) = program();
    vm.enter_bare(CODE, &code).map_err(|error| error.to_string())?;
    let mut watch = Watch { times: Vec::new(), last: None, emulated: false, goes_on };
    let limits = Limits {
        timeout: LIMIT,
        until_port: Some(EXIT_PORT),
        interrupted: Arc::default(),
        input: None,
    };
    let end = vm.run(&mut watch, &limits);
    let life = start.elapsed();
    let End::Failed(failure) = &end else {
        return Err(format!("a guest that was to die of a triple fault ended so: {end}"));
    };
    let Reason::TripleFault { reset } = failure.reason else {
        return Err(format!("a guest that was to die of a triple fault died of this: {failure}"));
    };
    let ring0 = match (watch.last, watch.emulated) {
        (Some(RAN), false) => Ring0::Native,
        (Some(0), true) => Ring0::Emulated,
        other => {
            return Err(format!("a guest at CPL 0 came to nothing that makes sense: {other:?}"));
        }
    };
    let mut exits: Vec<_> = watch.times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    exits.sort_unstable();
    let exit = exits.get(exits.len() / 2).copied().unwrap_or_default();
    Ok(Kind {
        ring0,
        after_triple_fault: match reset {
            true => AfterTripleFault::Reset,
            false => AfterTripleFault::Kept,
        },
        extension: extension(&text("/proc/cpuinfo")),
        paging: paging(&text("/sys/module/kvm_intel/parameters/ept"))
            .or_else(|| paging(&text("/sys/module/kvm_amd/parameters/npt"))),
        exit,
        slowness: slowness(exit, life),
    })
}

/// By the slower of the two: what leaves the guest, and all that it takes to have one.
fn slowness(exit: Duration, life: Duration) -> u32 {
    let times = |time: Duration, ordinary: Duration| time.as_nanos().div_ceil(ordinary.as_nanos());
    let most = times(exit, ORDINARY_EXIT).max(times(life, ORDINARY_LIFE));
    u32::try_from(most).unwrap_or(SLOWEST).clamp(1, SLOWEST)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn extension(cpuinfo: &str) -> Option<Extension> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    flags.split_ascii_whitespace().find_map(|flag| match flag {
        "vmx" => Some(Extension::Vmx),
        "svm" => Some(Extension::Svm),
        _ => None,
    })
}

fn paging(parameter: &str) -> Option<Paging> {
    match parameter.trim() {
        "Y" | "1" => Some(Paging::TwoStage),
        "N" | "0" => Some(Paging::Shadow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_host_are_read_as_they_are() {
        let flags =
            |flags: &str| extension(&format!("processor\t: 0\nflags\t\t: fpu {flags} lm\n"));
        assert_eq!(flags("vmx"), Some(Extension::Vmx));
        assert_eq!(flags("svm"), Some(Extension::Svm));
        assert_eq!(flags("svm_lock vmx_x"), None);
        assert_eq!(extension("vmx flags: svm\n"), None);
        let two_stage = ["Y\n", "1\n"].map(paging);
        assert_eq!(two_stage, [Some(Paging::TwoStage); 2]);
        assert_eq!(
            ["N\n", "0", "", "y"].map(paging),
            [Some(Paging::Shadow), Some(Paging::Shadow), None, None]
        );
    }

    #[test]
    fn a_limit_grows_with_the_slower_of_two_and_has_an_end() {
        let us = Duration::from_micros;
        assert_eq!(slowness(us(1), us(1500)), 1);
        assert_eq!(slowness(us(60), us(10_000)), 1);
        assert_eq!(slowness(us(61), us(1)), 2);
        assert_eq!(slowness(us(300), us(100_000)), 10);
        assert_eq!(slowness(us(400), us(10_000)), 7);
        assert_eq!(slowness(Duration::MAX, us(1)), 60);
    }

    #[test]
    fn the_guest_goes_on_behind_its_one_instruction_of_sse() {
        let (sse, goes_on, code) = program();
        let at = |address: u32| &code[(address - CODE) as usize..];
        assert!(
            at(sse).starts_with(&[0x0F, 0x5E, 0xC0, 0xB0]),
            "divps, then what says that it ran"
        );
        assert_eq!(goes_on, sse + 5);
        assert!(code.ends_with(&[0x0F, 0x0B, 0, 0, 0, 0, 0, 0]));
    }
}
