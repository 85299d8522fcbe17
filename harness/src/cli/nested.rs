//! `cxl-harness nested`: any command of this program on ordinary KVM, by emulation.
//!
//! **Invariant**: the exit code is the command's own; where that was never seen it is 125, or 130
//! where somebody wanted the end, and never 0.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cxl_harness::linux::Installed;
use cxl_harness::nested::{self, Kernel, NestedError, Options};
use cxl_harness::qemu::process::Arch;

use super::bar::{self, Bar};

/// The command did not come to its end; `env`, `timeout` and others that run commands have it so.
const EXIT_NOT_RUN: u8 = 125;

/// The most that is read from standard input.
const MOST_INPUT: u64 = 64 << 20;

const EXAMPLES: &str = "\
For machines without VT-x or AMD-V, and for code at CPL 0 where the host's own KVM emulates that.
QEMU emulates an AMD processor with SVM and nested paging, and boots a Linux with the driver
kvm_amd; the command runs there, as root, on a /dev/kvm with two-stage paging. Nothing of the host
but QEMU is used: not its KVM, no network, no disk. Ten seconds for the start; inside everything
takes five to thirty times as long as on hardware. XSAVEC is not there, and figures of bench mean
nothing, but for those of `bench --linux`, whose two sides are emulated alike.

What goes in: this program (or --harness FILE) with the libraries that it names, and every file or
folder that COMMAND names, by itself or behind `=`; and those of --file; for the commands `linux`
and `bench --linux` the kernel that they boot, with its drivers and busybox, and for the latter QEMU
with its firmware. Each lies inside where it lies here, and the command starts in the folder that
you are in. Standard input goes in where the command has the word `-`.

What comes back: what the command prints, as it comes; then its exit code; then every file that it
made or changed in that folder, or at a place that it names: 1 GiB at most. Each takes its place as
a whole once all are there.

Any program for x86-64 Linux runs inside, test programs too. One whose libraries are not on this
machine has to be static; this one is built so, from its sources, by
  RUSTFLAGS='-C target-feature=+crt-static' \\
    cargo build --release --target x86_64-unknown-linux-gnu

Needs qemu-system-x86_64, a bzImage with its modules (kvm_amd; virtio_console, virtio_pci and the
serial console built in, as Debian's kernels have them) and busybox-static. What is missing is said
before anything starts.

Exit code:
  0    the command ended with 0
  N    the command ended with N: 1 refused or a check failed, 2 bad usage or file; 128 and more is a
       signal that ended it inside
  125  there is no exit code of the command: something is missing here, its time was up, Linux or
       QEMU ended, or its files did not come back
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP); QEMU has gone, and nothing came back
  2    bad usage of nested itself

Environment:
  QEMU           the program [default: qemu-system-x86_64]; or a script that does `exec` of it
  NESTED_KERNEL  what --kernel names [default: what LINUX_KERNEL names, or the newest
                 vmlinuz-VERSION in /boot with modules; if that is 6.15 or later, the newest
                 there that is older, if there is one: see below]
  LINUX_KERNEL   the kernel that `linux` and `bench --linux` boot inside

Two kernels: that of the machine, whose KVM runs the command's guests, and that of a Linux in such a
guest. They need not be the same. The KVM of Linux 6.15 and later can end a guest by mistake where QEMU
emulates AMD-V (KVM internal error, suberror 3, at an access that traps soon after a page fault): it does
not look whether what QEMU has left in EXITINTINFO is valid. So an older kernel is taken for the
machine, whichever boots inside.

Examples:
  cxl-harness nested -- boot default
  cxl-harness nested -- boot machine.toml --image firmware.elf --json
  cxl-harness nested -- boot - <machine.toml
  cxl-harness nested -- image image.elf; ls -l image.elf
  cxl-harness nested --harness target/debug/deps/mirror-0123456789abcdef -- --test-threads 1
  cxl-harness nested --kernel vmlinuz-7.3.4 --modules lib/modules/7.3.4 -- boot one-device";

/// Run any command on ordinary KVM, by emulation: in a Linux inside QEMU, with AMD's SVM.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Nested {
    /// The command, as this program has it: its words behind `--`.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,

    /// The program that runs inside, instead of this one.
    #[arg(long, value_name = "FILE")]
    harness: Option<PathBuf>,

    /// The kernel, a bzImage; its modules in ../lib/modules or /lib/modules, by its name
    /// vmlinuz-VERSION.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The kernel's modules, the folder with its modules.dep.
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,

    /// A file or folder that goes in besides; may be given again.
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,

    /// Memory inside, in MiB. A quarter of it at most goes in as files.
    #[arg(long, value_name = "MIB", default_value_t = 6144,
          value_parser = clap::value_parser!(u64).range(512..=1 << 20))]
    memory: u64,

    /// Processors inside. With more than one, guests that run at the same time have been seen to
    /// spoil each other's memory, and Linux's: QEMU's emulation, not KVM. Rather run this twice.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    processors: u32,

    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Nested {
    pub(super) fn run(self) -> ExitCode {
        let is = |name: &str| self.command.first().is_some_and(|word| word == name);
        let qemu = is("bench") && self.command.iter().any(|word| word == "--linux");
        let linux = is("linux") || qemu;
        let kernel = Kernel::find(self.kernel, self.modules);
        let inside = linux.then(|| Installed::all_for(Arch::X86)).transpose();
        let (kernel, inside) = match (kernel, inside) {
            (Ok(kernel), Ok(inside)) => (kernel, inside),
            // All of them, so that nobody has to come again for each.
            (kernel, inside) => {
                let outside = kernel.err().into_iter().flatten().map(|lack| lack.to_string());
                let inside = inside.err().into_iter().flatten().map(|lack| lack.to_string());
                let mut lacks: Vec<String> = Vec::new();
                for lack in outside.chain(inside) {
                    if !lacks.contains(&lack) {
                        lacks.push(lack);
                    }
                }
                return super::lacking(&lacks, EXIT_NOT_RUN);
            }
        };
        let program = match self.harness.map_or_else(std::env::current_exe, Ok) {
            Ok(program) => program,
            Err(error) => {
                let words = format!(
                    "this program's own file is not to be found ({error}); name it \
                                     with --harness FILE"
                );
                return super::complain(&words, EXIT_NOT_RUN);
            }
        };
        let mut input = Vec::new();
        if self.command.iter().any(|word| word == "-") {
            let read = io::stdin().lock().take(MOST_INPUT + 1).read_to_end(&mut input);
            if let Err(error) = read {
                return super::fail(&format!("standard input: {error}"));
            }
            if input.len() as u64 > MOST_INPUT {
                let most = MOST_INPUT >> 20;
                return super::fail(&format!("standard input: expected {most} MiB at most"));
            }
        }
        let mut files = self.files;
        match inside.map(|installed| installed.files()) {
            None => {}
            Some(Ok(found)) => files.extend(found),
            Some(Err(error)) => return super::complain(&error.to_string(), EXIT_NOT_RUN),
        }
        let signals = super::signals();
        let (limit, what) =
            (Duration::from_secs(self.timeout), format!("QEMU boots Linux {}", kernel.name()));
        let bar = Bar::until(limit, &what);
        let ran = nested::run(
            &Options {
                program,
                arguments: self.command,
                input,
                files,
                linux,
                qemu,
                kernel,
                memory: self.memory,
                processors: self.processors,
                timeout: limit,
                interrupted: &signals.any,
            },
            Box::new(bar::Instead(io::stdout())),
            Box::new(bar::Instead(io::stderr())),
        );
        drop(bar);
        match ran {
            Ok(ended) => {
                if io::stderr().is_terminal() && !ended.files.is_empty() {
                    let names = ended.files.iter().map(|file| file.display().to_string());
                    super::note(&format!("came back: {}", names.collect::<Vec<_>>().join(", ")));
                }
                ExitCode::from(ended.code)
            }
            Err(NestedError::Interrupted) => super::complain("interrupted", signals.code()),
            Err(error) => super::complain(&error.to_string(), EXIT_NOT_RUN),
        }
    }
}
