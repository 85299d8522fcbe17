//! Dumps as `decode` and `lint` read them: bytes or text, of any kind.
#![no_main]

use cxl_fuzz::Script;
use cxl_model::dump::{Dump, Kind, Options};
use cxl_regs::Component;
use libfuzzer_sys::fuzz_target;

const KINDS: [Option<Kind>; 6] = [
    None,
    Some(Kind::Component),
    Some(Kind::Cachemem),
    Some(Kind::Hdm),
    Some(Kind::Config),
    Some(Kind::Cedt),
];

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let choice = script.byte();
    let options = Options {
        kind: KINDS[usize::from(choice % 6)],
        component: Component::ALL.get(usize::from(choice >> 3 & 3)).copied(),
        force: choice & 0x20 != 0,
    };
    let dump = match Dump::read(script.0, options) {
        Ok(dump) => dump,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
    };
    assert!(!dump.to_string().is_empty());
    let _ = dump.hdm();
    match dump.json() {
        Ok(json) => {
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
            assert_eq!(dump.diff(&dump).unwrap(), [""; 0]);
        }
        Err(_) => assert!(options.force),
    }
});
