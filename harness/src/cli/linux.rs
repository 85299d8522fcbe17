//! `cxl-harness linux`: what an unmodified Linux makes of a machine that our image has set up.
//!
//! **Invariant**: exit code 0 is for a Linux that came to its end and has every planned region.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cxl_harness::linux::boot::{BootError, Options, boot};
use cxl_harness::linux::{FactsText, Installed, Verdict};
use cxl_harness::report;

use super::source::Source;

/// The scenario without a name on the command line: the default one has a Type-2 device, which no
/// QEMU has.
const DEFAULT: &str = "two-way";

const EXAMPLES: &str = "\
QEMU builds the scenario's machine (software emulation: ten to thirty seconds). Our image boots
there, finds, programs and locks, and hands over to the kernel that this host has installed, with
its drivers in a small initramfs. Nothing in that configures CXL. Then the library's plan for QEMU's
map is held against what the image committed, and against Linux's sysfs, region by region: address,
size, ways, granularity, devices and their own addresses, locks, and all of the memory online, in a
node of its own, where a program that is copied there reads back. Each gap is a line, with the line of the kernel's log that belongs to it.

Without SCENARIO: two-way, a machine that QEMU can be.

Needs qemu-system-x86 10.0 or newer, a kernel 6.12 or newer with its modules, and busybox-static.

JSON:
  result        ok, failed (there are gaps) or refused (Linux did not come to its end)
  linux, qemu   their versions
  refusal       why there is nothing to compare
  planned       how many regions are planned
  as_planned    how many of them Linux has just so
  online        bytes of planned regions that are online
  persistent    bytes of planned regions that are persistent memory
  regions       hpa, size, ways, granularity, memory, locked, members (device, dpa, size),
                as_planned, and linux: name, in_use, size, ways, granularity, mode, locked, members,
                online, nodes
  gaps          region (its address, or null), message, log (the kernel's own line, or null)
  notes         what this QEMU has otherwise than the scenario, and whom Linux calls what

Exit code:
  0    Linux has every planned region as planned, and nothing else
  1    it has not, or did not come to its end, there is no QEMU or kernel, or QEMU cannot be this
       machine
  2    bad usage or scenario file
  130  Ctrl-C (143: SIGTERM, 129: SIGHUP); QEMU has gone

Environment:
  QEMU          the program [default: qemu-system-x86_64]
  LINUX_KERNEL  a vmlinuz-VERSION, modules in ../lib/modules or /lib/modules [default: the newest
                in /boot that has any]

Examples:
  cxl-harness linux
  cxl-harness linux one-device --json | jq -r '.gaps[].message'
  cxl-harness linux four-way --console
  cxl-harness linux pass-through; echo $?";

/// Boot the image on QEMU, hand over to an installed Linux, and hold what that has against the plan.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Linux {
    /// A built-in scenario's name (see `cxl-harness scenarios`), a TOML file, or `-` (standard input).
    #[arg(value_name = "SCENARIO", default_value = DEFAULT)]
    scenario: String,

    /// Print JSON instead of text; the end of this help lists the keys.
    #[arg(long)]
    json: bool,

    /// Print what the image and Linux wrote to the console, too, but for the image's dump.
    #[arg(long, conflicts_with = "json")]
    console: bool,

    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Linux {
    pub(super) fn run(self) -> ExitCode {
        // Before the first process is started: what it leaves is to be cleaned up.
        super::signals();
        let scenario = match Source::built_in(&self.scenario).scenario() {
            Ok(scenario) => scenario,
            Err(error) => return super::fail(&error.to_string()),
        };
        let installed = match Installed::find() {
            Ok(installed) => installed,
            Err(error) => {
                return self.refuse(&scenario.name, None, &error.to_string(), super::EXIT_REFUSED);
            }
        };
        let version = installed.version.as_str();
        super::progress(&format!("QEMU boots Linux {version}, some ten seconds"));
        let options = Options {
            before: "",
            timeout: Duration::from_secs(self.timeout),
            interrupted: &super::interrupted(),
        };
        let boot = match boot(&installed, &scenario, &options) {
            Ok(boot) => boot,
            Err(error) => {
                let code = match error {
                    BootError::Interrupted { .. } => super::signals().code(),
                    _ => super::EXIT_REFUSED,
                };
                return self.refuse(&scenario.name, Some(version), &error.to_string(), code);
            }
        };
        let verdict = boot.verdict();
        let code = super::exit(verdict.result == report::Verdict::Ok);
        if self.json {
            return super::print(&super::json(&verdict), code);
        }
        let mut text = super::styled(&format!("{verdict}\n{}", FactsText(&boot.facts)));
        if self.console {
            text += &super::styled("\nconsole\n");
            let lines = boot.console.lines().filter(|line| !line.starts_with("dump "));
            lines.for_each(|line| {
                text += line.trim_end_matches('\r');
                text.push('\n');
            });
        }
        super::print(&text, code)
    }

    /// There is nothing to compare.
    fn refuse(&self, scenario: &str, linux: Option<&str>, why: &str, code: u8) -> ExitCode {
        if !self.json {
            return super::complain(why, code);
        }
        let verdict = Verdict::refused(scenario, linux, why.to_owned());
        super::print(&super::json(&verdict), ExitCode::from(code))
    }
}
