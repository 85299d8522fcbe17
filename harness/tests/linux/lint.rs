//! The linter beside Linux: what it predicts of the modelled machine, and what Linux's log says of
//! QEMU's.
//!
//! **Invariant**: the linter sees the model's registers and never Linux's log.

use cxl_harness::run;
use cxl_lint::{Input, Kernel, Level, Message, lint_for};
use cxl_model::scenario::Place;
use cxl_regs::mmio::Mmio;

use crate::judge;
use cxl_harness::linux::boot::Boot;

/// The kernel that booted, as it says itself.
pub(crate) fn kernel(boot: &Boot) -> Kernel {
    let version = boot.facts.text("/proc/version").expect("Linux has a version");
    let version = version.split(' ').nth(2).expect("behind \"Linux version\"");
    version.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// What the linter says that this kernel refuses: the messages that are in its log whatever is
/// switched on, and all rules in words. `off` are devices whose HDM Decoder Enable somebody has
/// cleared.
pub(crate) fn predicted(boot: &Boot, off: &[usize]) -> (Vec<Message>, Vec<String>) {
    let kernel = kernel(boot);
    let (mut machine, done) = judge::modelled(boot);
    for device in off {
        let path = run::path(&boot.scenario, Place::Device(*device)).expect("a place");
        let tree = done.room.topology.tree();
        let node = tree.device_at(&path).and_then(|node| tree.get(node)).expect("a device");
        // Global Control is the structure's second dword (CXL r3.1 section 8.2.4.20.2).
        machine.write(node.hdm.expect("decoders").block.0 + 4, 0);
    }
    let findings = lint_for(&Input::of(&machine, &done.cedt), kernel);
    let refused = findings.into_iter().filter(|finding| finding.refused());
    let (mut messages, mut words) = (Vec::new(), Vec::new());
    for finding in refused {
        words.push(format!("{}: {}", finding.component, finding.found));
        messages.extend(finding.messages.into_iter().filter(|said| said.level != Level::Debug));
    }
    (messages, words)
}

/// Linux's log has every message that the linter predicts for its refusals, and there is one.
pub(crate) fn said(boot: &Boot, off: &[usize]) {
    let (messages, words) = predicted(boot, off);
    assert!(!messages.is_empty(), "the linter predicts no refusal: {words:?}");
    let log = boot.facts.log();
    for message in messages {
        let said = log.lines().any(|line| message.is_said_by(line));
        assert!(said, "the linter predicts \"{message}\", Linux says\n{log}");
    }
}
