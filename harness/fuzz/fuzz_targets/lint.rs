//! The linter: an image set with its files, dumps by themselves, and a machine that firmware has set
//! up and something spoilt.
#![no_main]

use std::path::{Path, PathBuf};

use cxl_fuzz::{Script, machine};
use cxl_harness::run;
use cxl_lint::{Input, Kernel, Registers, Report, lint, lint_for, unchecked};
use cxl_model::dump::Options;
use libfuzzer_sys::fuzz_target;

const KERNELS: [&str; 4] = ["6.12", "6.12.80", "6.16", "7.3"];

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let kernel = KERNELS[usize::from(script.byte()) % KERNELS.len()].parse().unwrap();
    let input = match script.byte() % 4 {
        0 => of_set(script),
        1 => of_dumps(script),
        _ => spoilt(script),
    };
    let Some(input) = input else { return };
    report(&input, None);
    report(&input, Some(kernel));
});

fn report(input: &Input, kernel: Option<Kernel>) {
    let findings = match kernel {
        Some(kernel) => lint_for(input, kernel),
        None => lint(input),
    };
    let subject = "fuzz".to_owned();
    let report =
        Report { subject, kernel, findings, unchecked: unchecked(input), remarks: Vec::new() };
    assert!(report.to_string().starts_with("fuzz: "));
    serde_json::to_string(&report).unwrap();
}

/// The set's text, then a zero, then what every file holds.
fn of_set(script: Script<'_>) -> Option<Input> {
    let end = script.0.iter().position(|byte| *byte == 0).unwrap_or(script.0.len());
    let text = str::from_utf8(&script.0[..end]).ok()?;
    let file = script.0.get(end + 1..).unwrap_or_default();
    Input::of_set(text, Path::new("fuzz.toml"), &mut |_: &Path| Ok(file.to_vec())).ok()
}

fn of_dumps(mut script: Script<'_>) -> Option<Input> {
    let mut dumps = Vec::new();
    while !script.is_over() {
        let length = script.word().into();
        let dump = Input::dump(script.bytes(length), Options::default()).ok()?;
        dumps.push((PathBuf::from(format!("{}.bin", dumps.len())), dump));
    }
    Input::of_dumps(&dumps).ok()
}

fn spoilt(mut script: Script<'_>) -> Option<Input> {
    let mut machine = machine(script.byte());
    let done = run::direct(&mut machine);
    let mut input = Input::of(&machine, &done.cedt);
    while !script.is_over() {
        let (which, at, value) = (script.byte(), script.byte(), script.dword());
        let number = usize::from(which >> 2);
        let registers = match which & 3 {
            0 => input.bridges.get_mut(number).map(|bridge| &mut bridge.registers),
            1 => input.switches.get_mut(number).map(|switch| &mut switch.registers),
            2 => input.devices.get_mut(number).map(|device| &mut device.registers),
            _ => {
                let table = input.cedt.as_mut()?;
                let place = 36 + usize::from(at) * 4;
                if let Some(bytes) = table.get_mut(place..place + 4) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                table[9] = 0;
                table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
                continue;
            }
        };
        if let Some(Registers::Hdm(image)) = registers {
            let mut bytes = image.bytes();
            let place = usize::from(at) % (bytes.len() / 4) * 4;
            bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
            *image = cxl_model::fabric::HdmImage::read(&bytes);
        }
    }
    Some(input)
}
