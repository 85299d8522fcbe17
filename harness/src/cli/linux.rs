//! `cxl-harness linux`: what an unmodified Linux makes of a machine that the library has set up.
//!
//! **Invariant**: exit code 0 is for a Linux that came to its end and has every planned region.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cxl_harness::html;
use cxl_harness::kvm;
use cxl_harness::linux::boot::{BootError, By, Options, boot};
use cxl_harness::linux::ours::{self, OursError};
use cxl_harness::linux::uefi::Uefi;
use cxl_harness::linux::{Facts, FactsText, Installed, Named, NamedError, Task, Verdict, root};
use cxl_harness::qemu::line::{self, Given};
use cxl_harness::qemu::process::{self, Arch};
use cxl_harness::report;
use cxl_model::scenario::Scenario;

use schemars::JsonSchema;
use serde::Serialize;

use super::PageFile;
use super::bar::{self, Bar};
use super::earlier::Earlier;
use super::output::{self, Output};
use super::source::Source;

/// The scenario without a name on the command line: the default one has a Type-2 device, which no
/// QEMU has.
const DEFAULT: &str = "two-way";

const EXAMPLES: &str = "\
QEMU builds the scenario's machine (software emulation: ten to thirty seconds). Our image boots
there, finds, programs and locks, and hands over to the kernel that this host has installed, with
its drivers in a small initramfs. Nothing in that configures CXL. With --on ours the machine is our
own device models in a KVM guest, with our own ACPI tables, and committed memory is RAM to the guest:
there the image boots first, too, or with --by host this program runs the library before Linux starts
at once. Then the library's plan for the machine's map is held against what the image committed, and against Linux's sysfs, region by region: address,
size, ways, granularity, devices and their own addresses, locks, and all of the memory online, in a
node of its own, where a program that is copied there reads back. Each gap is a line, with the line
of the kernel's log that belongs to it.

With --by uefi the machine starts an unmodified UEFI firmware (OVMF; AAVMF with --arch aarch64), which
starts our driver cxl.efi from a disk; that sets the machine up and starts the kernel beside it. The
driver is built when it is needed: that takes the target x86_64-unknown-uefi or aarch64-unknown-uefi.

Without SCENARIO: two-way, a machine that QEMU can be.

Words behind -- are QEMU's own: they come behind those of the scenario (-- -smp 2), or without SCENARIO the
machine is what they build, with -M q35,cxl=on,... and -m 512M or more. What is planned then is what the
library makes of the machine that it finds: components are called hb0, port0, sw0, mem0, ... in the
order of PCI, which device is which is a note; where a window is of several bridges, sets go over them.
This program itself adds
  -accel tcg -display none -nodefaults -no-reboot
  -kernel and -append            our image and its words, with those for Linux behind them
  -fw_cfg name=opt/org.cxl-firmware/kernel and .../initrd, -device isa-debug-exit
  -serial, twice                 the console, and what Linux says of the machine
  -M, -cpu and -m                only with SCENARIO
and, to ask where QEMU has what, starts the same machine first with -S -monitor none -qtest stdio. With
--by uefi a firmware and a disk take the places of -kernel, -append, -fw_cfg and isa-debug-exit. What
contradicts one of these is refused by name.

--kernel, --modules and --initrd take another Linux than the installed one. The drivers come from the
modules; a kernel that has all of them built in needs the folder, too (make modules_install).

Needs a kernel 6.12 or newer with its modules, and a static busybox in PATH; qemu-system-x86 10.0 or newer, or
for --on ours a KVM that runs CPL 0 natively (VT-x, AMD-V): on other hosts run that inside
`cxl-harness nested`, which takes the kernel and its drivers along.

JSON:
  result        ok, failed (there are gaps) or refused (Linux did not come to its end)
  linux, qemu   their versions (qemu: null with --on ours)
  refusal       why there is nothing to compare
  planned       how many regions are planned
  as_planned    how many of them Linux has just so
  online        bytes of planned regions that are online
  persistent    bytes of planned regions that are persistent memory
  regions       hpa, size, ways, granularity, memory, locked, members (device, dpa, size),
                as_planned, and linux: name, in_use, size, ways, granularity, mode, locked, members,
                online, nodes
  gaps          region (its address, or null), message, log (the kernel's own line, or null)
  measured      init_ms (from the machine's start to Linux's /init), beside_kib (memory that this
                program had beside the guest's; null on QEMU)
  notes         what this QEMU has otherwise than the scenario, and whom Linux calls what
  fields        with --on ours: how many fields of our models' registers were held against sysfs,
                /proc/iomem and configuration space; each that differs is a gap
  attack        what came of root's attack on the locks, as `cxl-harness attack` has it, or null
  list          what Linux has, in the shape of `cxl list -vv`: buses with their ports, endpoints, memory
                devices, decoders and regions, by the same keys (what that tool asks of a device's mailbox
                or of DAX, with -vvv, is not there); empty without Linux

Exit code:
  0    Linux has every planned region as planned, and nothing else
  1    it has not, or did not come to its end, there is no QEMU or kernel, or QEMU cannot be this
       machine
  2    bad usage or scenario file; a kernel, modules or initrd that is none, modules of another
       version, words behind -- that QEMU does not take or that contradict what is added here
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP); QEMU has gone

Environment:
  QEMU          the program [default: qemu-system-x86_64]
  OVMF, AAVMF   the UEFI firmware's code, its variables beside it [default: what Debian installs]
  CXL_EFI       a driver [default: built from the sources]
  QEMU_AARCH64, LINUX_KERNEL_AARCH64, BUSYBOX_AARCH64  the same for --arch aarch64; `.ci/peers
                uefi` fetches and prints all of these
  LINUX_KERNEL  a vmlinuz-VERSION, modules in ../lib/modules or /lib/modules [default: the newest
                in /boot that has any]

Examples:
  cxl-harness linux
  cxl-harness linux one-device --json | jq -r '.gaps[].message'
  cxl-harness linux two-way --json | jq '.list | .. | .region? // empty'
  cxl-harness linux four-way --console
  cxl-harness linux pass-through; echo $?
  cxl-harness linux two-way --kernel bzImage --modules lib/modules/7.3.4
  cxl-harness linux two-way -- -smp 2
  cxl-harness linux -- -M q35,cxl=on,cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4G -m 1G \
    -device pxb-cxl,bus_nr=12,bus=pcie.0,id=hb0,hdm_for_passthrough=true \
    -device cxl-rp,port=0,bus=hb0,id=rp0,chassis=0,slot=2 \
    -object memory-backend-ram,id=m0,share=on,size=256M \
    -device cxl-type3,bus=rp0,volatile-memdev=m0,id=mem0
  cxl-harness linux two-way --by uefi
  cxl-harness linux two-way --by uefi --arch aarch64
  cxl-harness nested -- linux two-way --on ours
  cxl-harness nested -- linux two-way --on ours --by host
  cxl-harness nested -- linux one-device --on ours --attack
  cxl-harness nested -- linux one-device --on ours --mirror off --append \
    memhp_default_state=online_movable";

/// Whose machine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    /// QEMU's, by software emulation.
    Qemu,
    /// Our device models, in a KVM guest.
    Ours,
}

/// How root reaches registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// /dev/mem, with iomem=relaxed.
    Mem,
    /// config and resourceN of each function; /dev/mem for host bridges, which have none.
    Sysfs,
}

/// What sets the machine up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Firmware {
    /// The bare-metal image, in the guest, which hands over to Linux.
    Image,
    /// The UEFI driver, under an unmodified UEFI firmware: on QEMU.
    Uefi,
    /// This program, before the guest's first instruction: on our own machine.
    Host,
}

/// Whose processor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Processor {
    /// x86-64.
    #[value(name = "x86-64")]
    X86,
    /// AArch64.
    Aarch64,
}

/// Set a machine up, boot an installed Linux on it, and hold what that has against the plan.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Linux {
    /// A built-in scenario's name (see `cxl-harness scenarios`), a TOML file, or `-` (standard input).
    /// Without one: two-way, or the machine that ARGS build.
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,

    /// QEMU's own words, behind `--`: besides those of the scenario, or alone.
    #[arg(value_name = "ARGS", last = true, allow_hyphen_values = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    earlier: Earlier,

    #[command(flatten)]
    named: NamedLinux,

    /// Print JSON instead of text; the end of this help lists the keys.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    page: PageFile,

    /// Print what the image and Linux wrote to the console, too, but for the image's dump.
    #[arg(long, conflicts_with = "json")]
    console: bool,

    /// Whose machine it is.
    #[arg(long, value_enum, default_value_t = On::Qemu)]
    on: On,

    /// What sets the machine up.
    #[arg(long, value_enum, default_value_t = Firmware::Image)]
    by: Firmware,

    /// Whose processor QEMU emulates; the image is for x86-64 alone.
    #[arg(long, value_enum, default_value_t = Processor::X86)]
    arch: Processor,

    /// With --on ours: whether memory of committed decoders is mapped into the guest, or each access
    /// is decoded by itself. Without it Linux runs until KVM cannot go on.
    #[arg(long, value_enum, default_value_t = super::boot::Switch::On)]
    mirror: super::boot::Switch,

    /// Words that are added to Linux's command line.
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,

    /// With --on ours: root attacks the locks from inside Linux, and is judged from outside; through
    /// /dev/mem, or through the files that Linux has for configuration space and BARs.
    #[arg(long, value_enum, value_name = "WAY", num_args = 0..=1, default_missing_value = "mem")]
    attack: Option<Way>,

    /// With --on ours: keep persistent memory and labels in this folder.
    #[arg(long, value_name = "DIR", value_parser = output::folder_to_write())]
    media: Option<PathBuf>,

    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// A Linux that is not the installed one.
#[derive(Clone, Debug, Default, Args)]
struct NamedLinux {
    /// The kernel, a bzImage of any name; its modules in ../lib/modules or /lib/modules, by the version
    /// that the file says.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The kernel's modules, the folder with its modules.dep: of the kernel's own version.
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,

    /// An initrd for Linux to unpack beneath this program's, which brings /init and what it needs in a
    /// folder of its own: programs and files of yours are there, your own /init does not run.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
}

/// What varies from run to run.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize)]
struct Took {
    /// From the start of the machine to Linux's /init, in milliseconds.
    init_ms: Option<u64>,
    /// KiB of memory that this program had beside the guest's.
    beside_kib: Option<u64>,
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(init) = self.init_ms else { return Ok(()) };
        write!(f, "  to /init          {}.{:01} s", init / 1000, init % 1000 / 100)?;
        if let Some(kib) = self.beside_kib {
            write!(f, "; this program took {} MiB beside the guest's memory", kib >> 10)?;
        }
        writeln!(f)
    }
}

/// The comparison with that beside it.
#[derive(JsonSchema, Serialize)]
pub(super) struct Answer<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    measured: Took,
}

/// What a boot left, whoever's machine it was.
struct Came {
    took: Took,
    verdict: Verdict,
    facts: Facts,
    console: String,
    seen: report::Seen,
}

impl Linux {
    pub(super) fn run(self) -> ExitCode {
        // Before the first process is started: what it leaves is to be cleaned up.
        super::signals();
        if self.on == On::Qemu {
            let off = self.mirror == super::boot::Switch::Off;
            for (name, given) in [
                ("--mirror", off),
                ("--attack", self.attack.is_some()),
                ("--media", self.media.is_some()),
            ] {
                if given {
                    return super::fail(&format!("{name} is for --on ours"));
                }
            }
        }
        if self.by == Firmware::Host && self.on == On::Qemu {
            return super::fail("--by host is for --on ours");
        }
        let arch = match self.arch {
            Processor::X86 => Arch::X86,
            Processor::Aarch64 => Arch::Arm,
        };
        if self.by != Firmware::Uefi && arch != Arch::X86 {
            return super::fail("--arch aarch64 is for --by uefi");
        }
        if self.by == Firmware::Uefi && self.on == On::Ours {
            return super::fail("--by uefi is for --on qemu");
        }
        let words = self.words.clone();
        let given = Given { whole: self.scenario.is_none() && !words.is_empty(), words };
        if let Err(error) = self.takes(&given) {
            return super::fail(&error);
        }
        let named = self.scenario.as_deref().unwrap_or(DEFAULT);
        let known = (!given.whole).then(|| self.earlier.scenario(&Source::built_in(named)));
        let known = match known.transpose() {
            Ok(known) => known,
            Err(error) => return super::fail(&error),
        };
        let page = match self.page.ready() {
            Ok(page) => page,
            Err(error) => return super::fail(&error),
        };
        let page = page.as_ref();
        if let Err(error) = output::apart(page.into_iter(), self.media.as_deref()) {
            return super::fail(&error);
        }
        let name = known.as_ref().map_or(line::NAME, |scenario| &scenario.name).to_owned();
        let installed = match self.needed(arch) {
            Ok(installed) => installed,
            Err((lacks, code)) if self.json => {
                return self.refuse(&name, None, &lacks.join("; "), code, page);
            }
            Err((lacks, code)) => {
                let verdict = Verdict::refused(&name, None, lacks.join("; "));
                let told = page.map(|_| html::of_linux(&verdict, None, &super::command_line()));
                let code = super::lacking(&lacks, code);
                return super::print_with("", page.zip(told.as_ref()), code);
            }
        };
        let limit = Duration::from_secs(self.timeout);
        let scenario = match known.map_or_else(|| line::machine(&given.words, limit), Ok) {
            Ok(scenario) => scenario,
            Err(error) => {
                let code =
                    if error.is_input() { super::EXIT_BAD_INPUT } else { super::EXIT_REFUSED };
                let linux = Some(installed.version.as_str());
                return self.refuse(&name, linux, &error.to_string(), code, page);
            }
        };
        let came = match self.on {
            On::Qemu => self.on_qemu(&installed, &scenario, arch, &given),
            On::Ours => self.on_ours(&installed, &scenario),
        };
        let Came { verdict, facts, console, took, seen } = match came {
            Ok(came) => came,
            Err((why, code)) => {
                return self.refuse(&scenario.name, Some(&installed.version), &why, code, page);
            }
        };
        let code = super::exit(verdict.result == report::Verdict::Ok);
        let told = page.map(|_| html::of_linux(&verdict, Some(&seen), &super::command_line()));
        let told = page.zip(told.as_ref());
        if self.json {
            let answer = Answer { verdict: &verdict, measured: took };
            return super::print_with(&super::json(&answer), told, code);
        }
        let mut text = super::styled(&format!("{verdict}{took}\n{}", FactsText(&facts)));
        if self.console {
            text += &super::styled("\nconsole\n");
            let lines = console.lines().filter(|line| !line.starts_with("dump "));
            lines.for_each(|line| {
                text += line.trim_end_matches('\r');
                text.push('\n');
            });
        }
        super::print_with(&text, told, code)
    }

    /// Whether QEMU's own words go together with the rest.
    fn takes(&self, given: &Given) -> Result<(), String> {
        if given.words.is_empty() {
            return Ok(());
        }
        if self.on == On::Ours {
            return Err("words of QEMU's behind -- are for --on qemu".to_owned());
        }
        if given.whole && self.arch != Processor::X86 {
            return Err("words of QEMU's without a scenario are for --arch x86-64".to_owned());
        }
        if given.whole && self.earlier.is_given() {
            return Err("--earlier is for a scenario: name one in front of --".to_owned());
        }
        line::check(given).map_err(|error| error.to_string())
    }

    /// What it takes; everything that is missing, so that nobody has to come again for each, and the
    /// exit code of that.
    fn needed(&self, arch: Arch) -> Result<Installed, (Vec<String>, u8)> {
        let (mut lacks, mut code) = (Vec::new(), super::EXIT_REFUSED);
        if self.on == On::Qemu {
            lacks.extend(process::available_for(arch).err().map(|error| error.to_string()));
        }
        if self.by == Firmware::Uefi {
            lacks.extend(Uefi::is_installed(arch).err().map(|error| error.to_string()));
        }
        let NamedLinux { kernel, modules, initrd } = self.named.clone();
        let installed = Named { kernel, modules, initrd }.installed(arch).map_err(|wrong| {
            if wrong.iter().any(NamedError::is_input) {
                code = super::EXIT_BAD_INPUT;
            }
            lacks.extend(wrong.iter().map(ToString::to_string));
        });
        match installed {
            Ok(installed) if lacks.is_empty() => Ok(installed),
            _ => Err((lacks, code)),
        }
    }

    fn on_qemu(
        &self,
        installed: &Installed,
        scenario: &Scenario,
        arch: Arch,
        given: &Given,
    ) -> Result<Came, (String, u8)> {
        let limit = Duration::from_secs(self.timeout);
        let _bar = Bar::until(limit, &format!("QEMU boots Linux {}", installed.version));
        let options = Options {
            before: "",
            task: Task::default(),
            timeout: Duration::from_secs(self.timeout),
            interrupted: &super::interrupted(),
            by: match self.by {
                Firmware::Image | Firmware::Host => By::Image,
                Firmware::Uefi => By::Uefi(arch),
            },
            given,
            append: &self.append,
        };
        let boot = boot(installed, scenario, &options).map_err(|error| {
            let code = match error {
                BootError::Interrupted { .. } => super::signals().code(),
                _ => super::EXIT_REFUSED,
            };
            (error.to_string(), code)
        })?;
        let took = Took { init_ms: boot.to_init.map(milliseconds), beside_kib: None };
        let (verdict, seen) = (boot.verdict(), boot.seen());
        Ok(Came { verdict, facts: boot.facts, console: boot.console, took, seen })
    }

    fn on_ours(&self, installed: &Installed, scenario: &Scenario) -> Result<Came, (String, u8)> {
        if kvm::emulates_ring_0() {
            return Err((super::boot::NO_LINUX_HERE.to_owned(), super::EXIT_REFUSED));
        }
        let limit = Duration::from_secs(self.timeout);
        let _bar = Bar::until(limit, &format!("Linux {} boots", installed.version));
        let options = ours::Options {
            before: "",
            append: &self.append,
            hidden: false,
            image_first: self.by == Firmware::Image,
            mirror: self.mirror == super::boot::Switch::On,
            timeout: Duration::from_secs(self.timeout),
            interrupted: super::interrupted(),
            on_console: bar::heard,
            task: Task::default(),
            after: "",
            attack: self.attack.map(|way| match way {
                Way::Mem => root::Way::Memory,
                Way::Sysfs => root::Way::Sysfs,
            }),
            media: self.media.clone(),
        };
        let boot = ours::boot(installed, scenario, &options).map_err(|error| {
            let code = match error {
                OursError::Interrupted => super::signals().code(),
                _ => super::EXIT_REFUSED,
            };
            (error.to_string(), code)
        })?;
        let console = String::from_utf8_lossy(&boot.run.console).into_owned();
        let took = Took {
            init_ms: boot.run.first_fact.map(milliseconds),
            beside_kib: boot.run.beside.map(|bytes| bytes >> 10),
        };
        let (verdict, seen) = (boot.verdict(), boot.seen());
        Ok(Came { verdict, facts: boot.facts, console, took, seen })
    }

    /// There is nothing to compare.
    fn refuse(
        &self,
        scenario: &str,
        linux: Option<&str>,
        why: &str,
        code: u8,
        page: Option<&Output>,
    ) -> ExitCode {
        let verdict = Verdict::refused(scenario, linux, why.to_owned());
        let told = page.map(|_| html::of_linux(&verdict, None, &super::command_line()));
        let told = page.zip(told.as_ref());
        let code = if self.json { ExitCode::from(code) } else { super::complain(why, code) };
        let output = if self.json { super::json(&verdict) } else { String::new() };
        super::print_with(&output, told, code)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
