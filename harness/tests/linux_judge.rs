//! Linux as judge of our models: an installed kernel boots on them in a KVM guest, and what it shows in
//! sysfs, /proc/iomem and configuration space is what the models' registers hold, field by field; root
//! attacks the locks from inside, resets devices, and has them come and go, judged from outside.
//!
//! Where this host's KVM does not run CPL 0 natively, the machines boot inside `cxl-harness nested`: two of
//! those side by side, each with a half of the machines, and this program in them, which is told so by its
//! first word.
//!
//! **Invariant**: without a kernel, busybox or, where it is needed, QEMU every test here is shown as
//! ignored, with the remedy; none is silently green. Where KVM has to be emulated so are all but one, unless
//! `CXL_JUDGE` is set: they take half an hour then.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[path = "linux_judge/machines.rs"]
mod machines;
mod program;
#[path = "linux/tool.rs"]
mod tool;
mod trial;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use cxl_harness::kvm;
use cxl_harness::linux::Installed;
use cxl_harness::nested::Kernel;
use libtest_mimic::{Arguments, Trial};
use machines::{CASES, Case};
use serde_json::{Value, json};
use trial::unless;

/// The first word of this program where it runs inside.
const INSIDE: &str = "inside";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((first, rest)) if first == INSIDE => inside(rest),
        _ => outside(),
    }
}

/// What comes of a case: an error, or nothing.
fn outcome(case: &Case, installed: &Installed, tool: &[(String, PathBuf)]) -> Option<String> {
    let judged = std::panic::catch_unwind(|| case.judge(installed, tool));
    match judged {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("it panicked: {}", text.unwrap_or("of no text")))
        }
    }
}

/// The kernel with its modules, busybox, the tool with what it needs by name, and then cases by name: a
/// line of JSON for each, as it comes.
fn inside(words: &[String]) -> ExitCode {
    let [kernel, version, modules, busybox, rest @ ..] = words else { return ExitCode::from(2) };
    let installed = Installed {
        kernel: kernel.into(),
        version: version.clone(),
        modules: modules.into(),
        busybox: busybox.into(),
        initrd: None,
    };
    let (files, names): (Vec<_>, Vec<_>) = rest.iter().partition(|word| word.contains('='));
    let file = |word: &String| {
        let (name, path) = word.split_once('=').unwrap();
        (name.to_owned(), PathBuf::from(path))
    };
    let tool: Vec<_> = files.into_iter().map(file).collect();
    for case in CASES.iter().filter(|case| names.iter().any(|name| *name == case.name)) {
        let start = std::time::Instant::now();
        let error = outcome(case, &installed, &tool);
        let seconds = start.elapsed().as_secs();
        println!("{}", json!({ "case": case.name, "error": error, "seconds": seconds }));
        let _ = io::stdout().flush();
    }
    ExitCode::SUCCESS
}

/// What came of the cases of one machine inside, by name.
type Came = BTreeMap<String, Value>;

/// Some of the cases, in a nested machine of their own, which the first trial starts.
#[derive(Clone)]
struct Group {
    names: Vec<&'static str>,
    came: Arc<OnceLock<Result<Came, String>>>,
}

impl Group {
    fn came(&self) -> Result<&Came, String> {
        self.came.get_or_init(|| self.run()).as_ref().map_err(Clone::clone)
    }

    fn run(&self) -> Result<Came, String> {
        let installed = Installed::find().map_err(|error| error.to_string())?;
        // KVM's guests there may map a half of what is free.
        let mut command = program::command(&["nested", "--timeout", "7200", "--memory", "8192"]);
        for path in installed.files().map_err(|error| error.to_string())? {
            command.arg("--file").arg(path);
        }
        let tool = tool::tool().unwrap_or_default();
        for (_, path) in &tool {
            command.arg("--file").arg(path);
        }
        command.arg("--harness").arg(std::env::current_exe().unwrap()).args(["--", INSIDE]);
        command.arg(&installed.kernel).arg(&installed.version);
        command.arg(&installed.modules).arg(&installed.busybox);
        command.args(tool.iter().map(|(name, path)| format!("{name}={}", path.display())));
        let (output, complaints, code) = program::ran(command.args(&self.names));
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let came: Came =
            lines.filter_map(|line| Some((line["case"].as_str()?.to_owned(), line))).collect();
        if came.is_empty() {
            return Err(format!("exit code {code}: {complaints}\n{output}"));
        }
        Ok(came)
    }

    fn judge(&self, name: &str) -> Result<(), String> {
        let line = self.came()?.get(name);
        let line = line.ok_or_else(|| format!("{name} did not come to its end inside"))?;
        match &line["error"] {
            Value::Null => Ok(()),
            error => Err(error.as_str().unwrap_or("an error of no text").to_owned()),
        }
    }
}

/// What is missing here, with the remedy.
fn missing(nested: bool) -> Option<String> {
    let lacks = Kernel::find(None, None).err().unwrap_or_default();
    if nested && !lacks.is_empty() {
        return Some(lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    Installed::find().err().map(|error| error.to_string())
}

/// What is booted wherever it can be.
const SAMPLE: &str = "linux_shows_two_way";

fn outside() -> ExitCode {
    let nested = kvm::emulates_ring_0() || kvm::available().is_err();
    let missing = missing(nested);
    // Those that the command line chooses, and no other, boot.
    let arguments = Arguments::from_args();
    let chosen = |case: &&Case| {
        let wanted = arguments.filter.as_ref().is_none_or(|words| case.name.contains(words));
        wanted && !arguments.skip.iter().any(|words| case.name.contains(words))
    };
    let cases: Vec<_> = CASES.iter().filter(chosen).collect();
    // Dozens of boots of Linux, each inside a machine that is emulated itself, are for whoever asks.
    let all = !nested || std::env::var_os("CXL_JUDGE").is_some();
    let runs = |case: &Case| all || case.name == SAMPLE;
    let names: Vec<_> = cases.iter().filter(|case| runs(case)).map(|case| case.name).collect();
    let groups: Vec<_> = (0..2)
        .map(|half| Group {
            names: names.iter().skip(half).step_by(2).copied().collect(),
            came: Arc::default(),
        })
        .collect();
    let trials = cases.into_iter().map(|case| {
        let index = names.iter().position(|name| *name == case.name).unwrap_or(0);
        let group = groups[index % 2].clone();
        let left = (!runs(case)).then(|| "half an hour by emulation: CXL_JUDGE=1".to_owned());
        let trial = Trial::test(case.name, move || {
            let error = if nested {
                group.judge(case.name).err()
            } else {
                let installed = Installed::find().map_err(|error| error.to_string())?;
                outcome(case, &installed, &tool::tool().unwrap_or_default())
            };
            error.map_or(Ok(()), |error| Err(error.into()))
        });
        unless(missing.clone().or(left), trial)
    });
    trial::run(trials.collect())
}
