//! What people paste: text of any form, several things in one, and what is asked of it.
#![no_main]

use std::path::PathBuf;

use cxl_fuzz::Script;
use cxl_lint::{Input, lint};
use cxl_model::capture::{Ask, JsonText, Reading, read};
use cxl_model::dump::{Kind, Options};
use cxl_model::mapping::resolve;
use cxl_regs::Hpa;
use libfuzzer_sys::fuzz_target;

const READINGS: [Option<Reading>; 6] = [
    None,
    None,
    Some(Reading::Raw),
    Some(Reading::Bytes),
    Some(Reading::Words),
    Some(Reading::Base64),
];

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let choice = script.byte();
    let reading = READINGS[usize::from(choice % 6)];
    let kind = (choice & 0x40 != 0).then_some(Kind::Cedt);
    let options = Options { kind, component: None, force: choice & 0x80 != 0 };
    let capture = match read(script.0, Ask { options, reading }) {
        Ok(capture) => capture,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
    };
    let _ = (capture.to_string(), JsonText(&capture).pretty());
    if let Ok((input, _)) = Input::of_captures(&[(PathBuf::from("fuzz"), capture)]) {
        lint(&input);
        let reached = input.reached();
        let bases: Vec<_> = reached.fabric.windows.iter().filter_map(|it| it.base).collect();
        for base in bases.into_iter().take(8) {
            let _ = resolve(&reached.fabric, Hpa(base.0 + 0x40));
        }
    }
});
