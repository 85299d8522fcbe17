//! One call for a test of somebody's firmware: its image boots in a guest, an attack tries to undo what
//! it locked, and what was demanded has to be true from the hand-off to the end.
//!
//! ```no_run
//! use cxl_harness::prove::assert_sealed;
//! use cxl_model::scenario::Scenario;
//!
//! // In a `#[test]`: an image with a PVH note, and a machine with what it will meet.
//! let image = std::fs::read("firmware.elf").unwrap();
//! assert_sealed(&image, &Scenario::built_in("two-way").unwrap());
//! ```
//!
//! **Invariant**: no answer is no proof: without KVM, with an image that does not boot, and without a
//! locked range, nothing is proved.

use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;

use crate::guest::boot::{GuestError, Options, boot};
use crate::report::{Report, Requirement, Runner, Verdict};
use crate::vigil::Level;

/// Boots the image in a guest of the scenario's machine, runs the attack on what it left, and holds
/// the locks to a requirement. [`Facts::result`](crate::report::Facts::result) says how it went; the
/// report's `Display` says why.
///
/// The same as `cxl-harness boot SCENARIO --image IMAGE --then attack --require REQUIREMENT`; what can
/// be asked besides is [`Options`].
pub fn prove(
    image: &[u8],
    scenario: &Scenario,
    requirement: Requirement,
) -> Result<Report, GuestError> {
    let mut machine = Machine::new(scenario);
    let options = Options { image: Some(image), then: Some("attack"), ..Options::default() };
    let run = boot(&mut machine, &options)?;
    let mut report = Report::of_guest(&machine, &run);
    report.facts.ran = Some(Runner::Guest);
    report.facts.require(requirement, &run.watched);
    Ok(report)
}

/// Panics with the report unless the image leaves everything sealed, and everything stays so under the
/// attack; for tests.
#[track_caller]
pub fn assert_sealed(image: &[u8], scenario: &Scenario) {
    let sealed = Requirement { level: Level::Sealed, at_handoff_only: false };
    match prove(image, scenario, sealed) {
        Ok(report) if report.facts.result == Verdict::Ok => {}
        Ok(report) => panic!("{}: not sealed\n{report}", scenario.name),
        Err(error) => panic!("{}: not proved: {error}", scenario.name),
    }
}
