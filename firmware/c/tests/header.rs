//! `cxl_firmware.h` is what cbindgen makes of the sources, and the register constants behind it are
//! those of cxl-regs. `CXL_HEADER=write cargo test -p cxl-firmware-c --test header` writes it anew.
//!
//! **Invariant**: no number of the header is typed here: types and functions come from this crate,
//! registers from cxl-regs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::Path;

use cbindgen::{Builder, Config, EnumConfig, ExportConfig, Language, RenameRule, Style};
use cxl_regs::access::{Register, Spec};
use cxl_regs::bi::{BiDecoder, BiRouteTable};
use cxl_regs::component::{ArrayEntry, ArrayHeader, BLOCK_SIZE, CapabilityId, Region};
use cxl_regs::dvsec::device::{DeviceDvsec, DeviceDvsecTail};
use cxl_regs::dvsec::flex_bus::{FlexBusDvsec, FlexBusTail};
use cxl_regs::dvsec::locator::{EntryHigh, EntryLow};
use cxl_regs::dvsec::port::PortDvsec;
use cxl_regs::dvsec::{CXL_VENDOR, DvsecHeader1, DvsecHeader2, DvsecId};
use cxl_regs::hdm::{self, decoder_offset};
use cxl_regs::layout::DecoderBlock;

const HEADER: &str = "cxl_firmware.h";

const TOP: &str = "\
/*
 * CXL memory for bootloaders in C: discover, plan, program, commit, lock, verify, probe, describe.
 *
 * Written by cbindgen from firmware/c/src; do not edit. Licensed under Apache-2.0 or MIT, at your
 * option.
 *
 * What every function needs, and no function can see:
 *
 * - A pointer is NULL, or leads to as many values of its type as the function is told. Nobody changes
 *   them while the function runs.
 * - The memory of a workspace is the library's alone from cxl_workspace_init on. Two workspaces may be
 *   used at the same time, one may not.
 * - Callbacks do what their comments say and return; they do not leave by longjmp.
 *
 * Nothing is allocated, and no state is kept but in workspaces. What can be seen to be wrong is a
 * cxl_status below 0.
 */
";

const FOLLOWS: &str = "
/*
 * Registers, for whoever reads or models them: offsets, and the bits of each field in place. Names are
 * those of the CXL specification (r3.1, section 8).
 */
";

/// The enums that no function names: their numbers are in fields of other types.
const ENUMS: [&str; 19] = [
    "cxl_argument",
    "cxl_arithmetic",
    "cxl_bridge_kind",
    "cxl_broken_sets",
    "cxl_coherency",
    "cxl_component_kind",
    "cxl_error_list",
    "cxl_fate",
    "cxl_leave_out_kind",
    "cxl_on_failure",
    "cxl_outcome",
    "cxl_partition",
    "cxl_path_policy",
    "cxl_pci",
    "cxl_prefer",
    "cxl_probe_policy",
    "cxl_probed",
    "cxl_target",
    "cxl_width_kind",
];

/// Every constant so far: a register that is in two structures stands once.
#[derive(Default)]
struct Constants {
    text: String,
    values: BTreeMap<String, u32>,
}

impl Constants {
    fn title(&mut self, title: &str) {
        writeln!(self.text, "\n/* {title} */").unwrap();
    }

    fn define(&mut self, name: &str, value: u32, digits: usize) {
        let name = macro_name(name);
        if let Some(earlier) = self.values.insert(name.clone(), value) {
            assert_eq!(earlier, value, "{name} has two values");
            return;
        }
        writeln!(self.text, "#define {name} 0x{value:0digits$x}").unwrap();
    }

    fn registers(&mut self, title: &str, registers: &[Spec]) {
        self.title(title);
        for register in registers {
            self.register(register);
        }
    }

    fn register(&mut self, register: &Spec) {
        let digits = 2 * usize::from(register.bytes);
        self.define(&format!("{} OFFSET", register.name), register.offset.into(), 2);
        for field in register.fields {
            self.define(&format!("{} {}", register.name, field.name), field.mask(), digits);
        }
    }
}

/// A name of the specification as a macro's.
fn macro_name(name: &str) -> String {
    let mut text = String::from("CXL");
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 || word != "CXL" {
            text += "_";
            text += &word.to_ascii_uppercase();
        }
    }
    text
}

/// `HdmDecoder` in words.
fn words(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, c| {
        if c.is_ascii_uppercase() {
            text.push(' ');
        }
        text.push(c);
        text
    })
}

fn constants() -> String {
    let mut all = Constants::default();
    all.title("A component register block, and the parts of it.");
    all.define("component block size", BLOCK_SIZE, 1);
    all.define("cache mem range OFFSET", Region::CacheMem.extent().start, 1);
    all.title("IDs in the capability array of a CXL.cache/mem range.");
    for id in (0..=0xFF).map(CapabilityId::from_code) {
        if id.is_named() {
            all.define(
                &format!("capability id {}", words(&format!("{id:?}"))),
                id.code().into(),
                4,
            );
        }
    }
    all.registers(
        "The capability array; each further entry is 4 bytes on.",
        &[ArrayHeader::SPEC, ArrayEntry::SPEC],
    );
    all.registers("The HDM decoder structure.", &[hdm::Capability::SPEC, hdm::GlobalControl::SPEC]);
    all.title("Its decoders, and the registers of one.");
    all.define("HDM decoder first OFFSET", decoder_offset(0).into(), 2);
    all.define("HDM decoder size", u32::from(hdm::DECODER_SIZE), 2);
    for (name, offset) in [
        ("base low", offset_of!(DecoderBlock, base_low)),
        ("base high", offset_of!(DecoderBlock, base_high)),
        ("size low", offset_of!(DecoderBlock, size_low)),
        ("size high", offset_of!(DecoderBlock, size_high)),
        ("target list low", offset_of!(DecoderBlock, route_low)),
        ("target list high", offset_of!(DecoderBlock, route_high)),
        ("DPA skip low", offset_of!(DecoderBlock, route_low)),
        ("DPA skip high", offset_of!(DecoderBlock, route_high)),
    ] {
        all.define(&format!("HDM decoder {name} OFFSET"), offset as u32, 2);
    }
    assert_eq!(size_of::<DecoderBlock>(), usize::from(hdm::DECODER_SIZE));
    all.register(&hdm::Control::SPEC);
    all.registers("The BI route table of an upstream port.", BiRouteTable::REGISTERS);
    all.registers("The BI decoder of a port or device.", BiDecoder::REGISTERS);
    all.title("DVSECs: the vendor, and IDs.");
    all.define("DVSEC vendor", CXL_VENDOR.into(), 4);
    for id in (0..=0xFF).map(DvsecId::from_code) {
        if id.is_named() {
            all.define(&format!("DVSEC id {}", words(&format!("{id:?}"))), id.code().into(), 4);
        }
    }
    all.registers("Every DVSEC's header.", &[DvsecHeader1::SPEC, DvsecHeader2::SPEC]);
    // Behind the three registers of the header.
    let own = |registers: &'static [Spec]| registers.get(3..).unwrap();
    all.registers("The DVSEC of CXL devices.", own(DeviceDvsec::REGISTERS));
    all.registers("What its revision 2 added.", DeviceDvsecTail::REGISTERS);
    all.registers("The DVSEC of CXL ports.", own(PortDvsec::REGISTERS));
    all.registers("The DVSEC of Flex Bus ports.", own(FlexBusDvsec::REGISTERS));
    all.registers("What its revision 2 added.", FlexBusTail::REGISTERS);
    all.registers(
        "The Register Locator; each further entry is 8 bytes on.",
        &[EntryLow::SPEC, EntryHigh::SPEC],
    );
    all.text
}

/// The header as it should be.
fn generated() -> String {
    let config = Config {
        language: Language::C,
        header: Some(TOP.trim_end().into()),
        include_guard: Some("CXL_FIRMWARE_H".into()),
        cpp_compat: true,
        usize_is_size_t: true,
        style: Style::Tag,
        line_length: 100,
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        trailer: Some(format!("{}{}", FOLLOWS.trim_start(), constants().trim_end())),
        enumeration: EnumConfig {
            rename_variants: RenameRule::QualifiedScreamingSnakeCase,
            ..EnumConfig::default()
        },
        export: ExportConfig { include: ENUMS.map(String::from).into(), ..ExportConfig::default() },
        ..Config::default()
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut builder = Builder::new().with_config(config);
    for file in [
        "lib",
        "status",
        "hardware",
        "platform",
        "policy",
        "workspace",
        "phases",
        "results",
        "tables",
    ] {
        builder = builder.with_src(source.join(file).with_extension("rs"));
    }
    let mut bytes = Vec::new();
    builder.generate().expect("cbindgen reads the sources").write(&mut bytes);
    let text = String::from_utf8(bytes).expect("text");
    // The contract of C stands at the top of the header, once.
    let safety = " *\n * # Safety\n *\n * The contract of C, at the top of `border.rs`.\n";
    assert!(text.contains(safety), "functions name their contract");
    text.replace(safety, "")
}

#[test]
fn the_header_is_what_the_sources_say() {
    let (expected, path) = (generated(), Path::new(env!("CARGO_MANIFEST_DIR")).join(HEADER));
    if std::env::var_os("CXL_HEADER").is_some_and(|word| word == "write") {
        fs::write(&path, &expected).expect("the header is written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{HEADER} is not what cbindgen makes, from line {} on; \
         `CXL_HEADER=write cargo test -p cxl-firmware-c --test header` writes it",
        line.unwrap_or(found.lines().count().min(expected.lines().count())) + 1
    );
}

#[test]
fn every_exported_function_is_in_the_header() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let header = generated();
    let mut functions = 0;
    for file in fs::read_dir(source).expect("sources") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("text");
        for (at, _) in text.match_indices("extern \"C\" fn cxl_") {
            let name = text[at + "extern \"C\" fn ".len()..].split('(').next().unwrap();
            assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
            functions += 1;
        }
    }
    assert!(functions > 20, "{functions}");
}
