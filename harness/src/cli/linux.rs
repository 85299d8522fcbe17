//! `cxl-harness linux`: what an unmodified Linux makes of a machine that our image has set up.
//!
//! **Invariant**: what is printed of Linux is what its sysfs shows.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cxl_harness::linux::boot::{BootError, Options, boot};
use cxl_harness::linux::{Installed, Seen};

use super::source::Source;

const EXAMPLES: &str = "\
QEMU builds the scenario's machine (software emulation: ten to thirty seconds). Our image boots
there, finds, programs and locks, and hands over to the kernel that this host has installed, with
its drivers in a small initramfs. Nothing in that configures CXL. Linux's sysfs is printed.

Needs qemu-system-x86 10.0 or newer, a kernel 6.12 or newer with its modules, and busybox-static.

Exit code:
  0    Linux uses a region
  1    Linux uses none, there is no QEMU or kernel, or QEMU cannot be this machine
  2    bad usage or scenario file
  130  Ctrl-C

Environment:
  QEMU          the program [default: qemu-system-x86_64]
  LINUX_KERNEL  a vmlinuz-VERSION, modules in ../lib/modules or /lib/modules [default: the newest
                in /boot that has any]

Examples:
  cxl-harness linux one-device
  cxl-harness linux four-way --console
  cxl-harness linux pass-through; echo $?";

/// Boot the image on QEMU, hand over to an installed Linux, and print what that sees.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Linux {
    #[command(flatten)]
    source: Source,

    /// Print what the image and Linux wrote to the console, too.
    #[arg(long)]
    console: bool,

    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Linux {
    pub(super) fn run(self) -> ExitCode {
        let scenario = match self.source.scenario() {
            Ok(scenario) => scenario,
            Err(error) => return super::fail(&error.to_string()),
        };
        let installed = match Installed::find() {
            Ok(installed) => installed,
            Err(error) => return super::refuse(&error.to_string()),
        };
        super::progress(&format!("QEMU boots Linux {}, some ten seconds", installed.version));
        let options = Options {
            before: "",
            timeout: Duration::from_secs(self.timeout),
            interrupted: &super::interrupted(),
        };
        let boot = match boot(&installed, &scenario, &options) {
            Ok(boot) => boot,
            Err(BootError::Interrupted) => {
                return super::complain("interrupted", super::EXIT_INTERRUPTED);
            }
            Err(error) => return super::refuse(&error.to_string()),
        };
        let seen = Seen(&boot.facts);
        let mut text = String::new();
        if self.console {
            text += &boot.console.replace('\r', "");
            text.push('\n');
        }
        text += &super::styled(&seen.to_string());
        super::print(&text, super::exit(seen.regions() > 0))
    }
}
