//! `cxl-harness explain`: where an address leads, step by step.
//!
//! **Invariant**: the steps are those of the registers as the firmware left them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cxl_harness::run;
use cxl_model::fabric::Fabric;
use cxl_model::mapping::{At, Path, PathText, Reason, ReasonText, addresses, resolve};
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
  1  it does not: one line says at which step and why
  2  bad usage or scenario file

JSON:
  result      direct (it leads to memory) or trapped (it does not, with reason and message)
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
    #[arg(value_name = "HPA", value_parser = Address::parse, required_unless_present = "device")]
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

/// What is asked about: where everything leads, and whose registers nobody gave.
struct Subject {
    fabric: Fabric,
    unknown: Vec<At>,
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
    pub(super) fn run(self) -> ExitCode {
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
            Some(device) => self.backwards(&subject.fabric, device, Dpa(address(&self.dpa))),
            None => self.forwards(&subject, Hpa(address(&self.hpa))),
        }
    }

    fn subject(&self) -> Result<Subject, String> {
        if let Some((input, remarks)) = self.source.input(&self.further)? {
            let reached = input.reached();
            for remark in remarks.iter().chain(&reached.assumed) {
                super::note(remark);
            }
            return Ok(Subject { fabric: reached.fabric, unknown: reached.unknown });
        }
        if !self.further.is_empty() {
            let name = self.source.name();
            return Err(format!("--with: {name} is a scenario, which has all of its machine"));
        }
        let mut machine = self.source.machine().map_err(|error| error.to_string())?;
        if let Some(refusal) = run::direct(&mut machine).refusal {
            super::note(&format!("the firmware refused: {refusal}"));
        }
        Ok(Subject { fabric: machine.fabric(), unknown: vec![] })
    }

    fn forwards(&self, subject: &Subject, hpa: Hpa) -> ExitCode {
        let Subject { fabric, unknown } = subject;
        match resolve(fabric, hpa) {
            Ok(path) => self.answer(fabric, &[path], None, String::new()),
            Err(reason) => {
                let (name, message) = match reason {
                    Reason::NoDecoders { at, .. } if unknown.contains(&at) => {
                        let component = component(fabric, at);
                        ("not-given", format!("nobody gave the registers of {component}"))
                    }
                    reason => (reason.name(), ReasonText(fabric, reason).to_string()),
                };
                let text = format!("HPA {hpa} leads to no memory: {message}\n");
                self.answer(fabric, &[], Some((name, message)), text)
            }
        }
    }

    fn backwards(&self, fabric: &Fabric, device: usize, dpa: Dpa) -> ExitCode {
        let name = fabric.devices.get(device).map_or("?", |device| &device.name);
        let found = addresses(fabric, device, dpa);
        let paths: Vec<Path> = found.iter().filter_map(|&hpa| resolve(fabric, hpa).ok()).collect();
        let list: Vec<String> = found.iter().map(Hpa::to_string).collect();
        if list.is_empty() {
            let message = "no committed path leads there".to_owned();
            let text = format!("DPA {dpa} of {name} has no host address: {message}\n");
            return self.answer(fabric, &[], Some(("no-path", message)), text);
        }
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
