//! `cxl-harness explain`: where an address leads, step by step.
//!
//! **Invariant**: the steps are those of the registers as the firmware left them. A device address is given
//! only where they prove it, by the test that maps ranges, and what nobody gave is never said to be missing.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cxl_harness::run;
use cxl_lint::Reached;
use cxl_model::fabric::Fabric;
use cxl_model::mapping::normalized::{self, Offset};
use cxl_model::mapping::{At, Path, PathText, Reason, ReasonText, addresses};
use cxl_regs::{Dpa, Hpa};
use schemars::JsonSchema;
use serde::Serialize;

use super::Address;
use super::source::Source;

const EXAMPLES: &str = "\
Of a scenario the firmware runs first, as in `cxl-harness boot --direct`; its refusal shows on standard
error, and the address is explained all the same. Of everything else the registers are taken as they
are: an image set (see `cxl-harness lint --help`), dumps as `cxl-harness decode` reads them (our
image's own dump is a whole machine), or what Linux shows (sysfs, cxl list). What they leave open, and
what is assumed for it, shows on standard error.

Exit code:
  0  the address leads to memory
  1  it does not, or nothing that was given proves it: one line says at which step and why
  2  bad usage or scenario file

JSON:
  result      direct (it leads to memory) or trapped (it does not, or nobody can say: reason, message)
  paths       hpa, window, way, hops (component, decoder, way, port), device, decoder, dpa, memory

Examples:
  cxl-harness explain default 0x100000000
  cxl-harness explain four-bridges 0x84000001000
  cxl-harness explain console.log 0x310000000
  cxl list -vvv | cxl-harness explain - 0x310000000
  cxl-harness explain sysfs.tar 0x310000000 --with /sys/firmware/acpi/tables/CEDT
  cxl-harness explain default --device mem1 --dpa 0x10000000";

/// Say where a host address leads, or which host addresses lead to a byte of a device.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Explain {
    #[command(flatten)]
    source: Source,

    /// A host address: what the CPU uses.
    #[arg(value_name = "HPA", value_parser = Address::parse)]
    hpa: Option<Address>,

    /// The other way round: a device, by its name in the scenario.
    #[arg(long, value_name = "NAME", requires = "dpa", conflicts_with = "hpa")]
    device: Option<String>,

    /// The device's own address.
    #[arg(long, value_name = "DPA", value_parser = Address::parse, requires = "device")]
    dpa: Option<Address>,

    /// A further file of the same machine, where it is dumps or what Linux shows.
    #[arg(long = "with", value_name = "FILE")]
    further: Vec<PathBuf>,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(JsonSchema, Serialize)]
pub(super) struct Explained {
    result: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
    paths: Vec<Walk>,
}

#[derive(JsonSchema, Serialize)]
pub(super) struct Walk {
    hpa: String,
    window: String,
    way: u32,
    hops: Vec<Step>,
    device: String,
    decoder: u8,
    dpa: String,
    memory: String,
}

#[derive(JsonSchema, Serialize)]
struct Step {
    component: String,
    decoder: Option<u8>,
    way: u32,
    port: String,
}

impl Explain {
    pub(super) fn run(mut self) -> ExitCode {
        if self.hpa.is_none() && self.device.is_none() {
            // An address alone is one of the default scenario, unless something has that name.
            let name = self.source.name();
            let address = Address::parse(name).ok().filter(|_| !PathBuf::from(name).exists());
            let Some(address) = address else {
                return super::fail(&format!(
                    "{name}: expected an address to explain behind it, such as 0x100000000, or --device NAME \
                     --dpa DPA"
                ));
            };
            self.hpa = Some(address);
            self.source = Source::built_in("default");
        }
        let subject = match self.subject() {
            Ok(subject) => subject,
            Err(reason) => return super::fail(&reason),
        };
        let device = match &self.device {
            None => None,
            Some(name) => {
                let devices = &subject.fabric.devices;
                let Some(index) = devices.iter().position(|device| device.name == *name) else {
                    let known: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
                    let known = known.join(", ");
                    return super::fail(&format!("{name}: no such device, there are: {known}"));
                };
                Some(index)
            }
        };
        let address = |given: &Option<Address>| given.as_ref().map_or(0, Address::told);
        match device {
            Some(device) => self.backwards(&subject, device, Dpa(address(&self.dpa))),
            None => self.forwards(&subject, Hpa(address(&self.hpa))),
        }
    }

    fn subject(&self) -> Result<Reached, String> {
        if let Some((input, remarks)) = self.source.input(&self.further)? {
            let reached = input.reached();
            for remark in remarks.iter().chain(&reached.assumed) {
                super::note(remark);
            }
            return Ok(reached);
        }
        if !self.further.is_empty() {
            let name = self.source.name();
            return Err(format!("--with: {name} is a scenario, which has all of its machine"));
        }
        let mut machine = self.source.machine().map_err(|error| error.to_string())?;
        if let Some(refusal) = run::direct(&mut machine).refusal {
            super::note(&format!("the firmware refused: {refusal}"));
        }
        Ok(Reached::from(machine.fabric()))
    }

    fn forwards(&self, subject: &Reached, hpa: Hpa) -> ExitCode {
        let fabric = &subject.fabric;
        match subject.resolve(hpa) {
            Ok(path) => self.answer(fabric, &[path], None, String::new()),
            Err(reason) => {
                let message = words(subject, reason, Some(hpa));
                let text = if reason.is_unknown() {
                    format!("HPA {hpa}: nobody can say where it leads: {message}\n")
                } else {
                    format!("HPA {hpa} leads to no memory: {message}\n")
                };
                self.answer(fabric, &[], Some((reason.name(), message)), text)
            }
        }
    }

    fn backwards(&self, subject: &Reached, device: usize, dpa: Dpa) -> ExitCode {
        let fabric = &subject.fabric;
        let name = fabric.devices.get(device).map_or("?", |device| &device.name);
        let (mut paths, mut why): (Vec<Path>, Option<Reason>) = (Vec::new(), None);
        for hpa in addresses(fabric, device, dpa) {
            match subject.resolve(hpa) {
                Ok(path) => paths.push(path),
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        if paths.is_empty() {
            let at = At::Device(device);
            let own = normalized::normalized(fabric, device);
            let own = own.map(|(decoder, _)| Reason::Normalized { device, decoder });
            let unknown = subject.unknown.contains(&at).then_some(Reason::NotGiven { at });
            let (reason, message) = match unknown.or(own).or(why) {
                Some(reason) => (reason.name(), words(subject, reason, None)),
                None => ("no-path", "no committed path leads there".to_owned()),
            };
            let text = if unknown.is_some() || why.is_some_and(Reason::is_unknown) {
                format!("DPA {dpa} of {name}: nobody can say its host address: {message}\n")
            } else {
                format!("DPA {dpa} of {name} has no host address: {message}\n")
            };
            return self.answer(fabric, &[], Some((reason, message)), text);
        }
        let list: Vec<String> = paths.iter().map(|path| path.hpa.to_string()).collect();
        let text = format!("DPA {dpa} of {name} is HPA {}\n\n", list.join(", "));
        self.answer(fabric, &paths, None, text)
    }

    fn answer(
        &self,
        fabric: &Fabric,
        paths: &[Path],
        reason: Option<(&'static str, String)>,
        mut text: String,
    ) -> ExitCode {
        let code = super::exit(reason.is_none());
        if self.json {
            let (reason, message) = reason.unzip();
            let result = if reason.is_none() { "direct" } else { "trapped" };
            let paths = paths.iter().map(|path| walk(fabric, path)).collect();
            return super::print(&super::json(&Explained { result, reason, message, paths }), code);
        }
        for (index, path) in paths.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{gap}{}", PathText(fabric, path));
        }
        super::print(&super::styled(&text), code)
    }
}

/// A reason, and where a platform translates addresses what is said of that, with the device's own offset
/// behind the address.
fn words(subject: &Reached, reason: Reason, hpa: Option<Hpa>) -> String {
    let Reached { fabric, prm, .. } = subject;
    let mut text = ReasonText(fabric, reason).to_string();
    if !matches!(reason, Reason::Normalized { .. }) {
        return text;
    }
    text += match prm {
        Some(true) => "; the set says that its PRM translates them",
        Some(false) => "; the set says that no PRM translates them",
        None => "; nobody said whether its PRM translates them",
    };
    let found = hpa.filter(|_| *prm == Some(true)).and_then(|hpa| normalized::offset(fabric, hpa));
    if let Some(Offset { device, set, offset }) = found {
        let name = component(fabric, At::Device(device));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "; by the levels above, {set}, it is offset {offset:#x} of {name}, if the PRM agrees"
        );
    }
    text
}

/// A component's name.
fn component(fabric: &Fabric, at: At) -> String {
    let name = match at {
        At::Bridge(index) => fabric.bridges.get(index).map(|bridge| bridge.name.clone()),
        At::Switch(index) => fabric.switches.get(index).map(|switch| switch.name.clone()),
        At::Device(index) => fabric.devices.get(index).map(|device| device.name.clone()),
    };
    name.unwrap_or_default()
}

pub(super) fn walk(fabric: &Fabric, path: &Path) -> Walk {
    let hops = path.hops.iter().map(|hop| Step {
        component: component(fabric, hop.at),
        decoder: hop.decoder.map(|(index, _)| index),
        way: hop.way,
        port: fabric.ports.get(hop.port).map(|port| port.name.clone()).unwrap_or_default(),
    });
    let window = fabric.windows.get(path.window);
    Walk {
        hpa: path.hpa.to_string(),
        window: window.map(|window| window.name.clone()).unwrap_or_default(),
        way: path.root_way,
        hops: hops.collect(),
        device: component(fabric, At::Device(path.endpoint.device)),
        decoder: path.endpoint.index,
        dpa: path.dpa.to_string(),
        memory: path.partition.to_string(),
    }
}
