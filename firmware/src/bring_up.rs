//! The whole job in one call: discover, plan, commit, verify, probe. Or the two ends of it, for a machine
//! that somebody else programmed.
//!
//! **Invariant**: each phase's result is plain data in the caller's [`Workspace`], and a phase runs
//! only on what the one before has proved.

use core::fmt;

use crate::commit::{CommitError, commit_checked};
use crate::committed::Committed;
use crate::discover::{DiscoverError, discover};
use crate::mmio::{Clock, Mmio};
use crate::plan::{Plan, PlanError, plan};
use crate::platform::Platform;
use crate::policy::Policy;
use crate::probe::{ProbeError, ProbeErrors, probe};
use crate::topology::Topology;
use crate::verify::{Finding, Findings, verify, verify_plan};

/// Room for a machine: `N` nodes, `R` regions, `D` decoders.
///
/// Keep it in a static: it is far too large for a boot stack. See each part for its size.
#[derive(Debug)]
pub struct Workspace<const N: usize, const R: usize, const D: usize> {
    /// What exists.
    pub topology: Topology<N>,
    /// What is wanted.
    pub plan: Plan<R, D>,
    /// What the hardware accepted.
    pub committed: Committed<D>,
    /// What the verifier found wrong; empty after success.
    pub findings: Findings<64>,
    /// What memory did that it must not; empty after success, or where none was probed.
    pub probe: ProbeErrors,
}

impl<const N: usize, const R: usize, const D: usize> Default for Workspace<N, R, D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize, const R: usize, const D: usize> Workspace<N, R, D> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            topology: Topology::new(),
            plan: Plan::new(),
            committed: Committed::new(),
            findings: Findings::new(),
            probe: ProbeErrors::new(),
        }
    }

    /// Forgets an earlier run.
    fn clear(&mut self) {
        self.topology.clear();
        self.plan.clear();
        self.committed.clear();
        // Until somebody has looked.
        self.committed.unread = true;
        self.findings.clear();
        self.probe.clear();
    }
}

/// Which phase refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BringUpError {
    /// The hardware is not what it has to be.
    Discover(DiscoverError),
    /// There is no plan.
    Plan(PlanError),
    /// The hardware did not accept the plan.
    Commit(CommitError),
    /// The hardware accepted something else: the first finding.
    Verify(Finding),
    /// The memory does not answer as the registers say: the first error.
    Probe(ProbeError),
}

impl BringUpError {
    /// The error's number; see the phases' own.
    pub const fn code(&self) -> u16 {
        match self {
            Self::Discover(error) => error.code(),
            Self::Plan(error) => error.code(),
            Self::Commit(error) => error.code(),
            Self::Verify(finding) => finding.code(),
            Self::Probe(error) => error.code(),
        }
    }
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discover(error) => write!(f, "discover: {error}"),
            Self::Plan(error) => write!(f, "plan: {error}"),
            Self::Commit(error) => write!(f, "commit: {error}"),
            Self::Verify(finding) => write!(f, "verify: {finding}"),
            Self::Probe(error) => write!(f, "probe: {error}"),
        }
    }
}

impl core::error::Error for BringUpError {}

/// Brings up all CXL memory of a platform as the policy says.
///
/// Nothing is written to a decoder unless there is a plan for the whole machine. On an error the
/// workspace says how far it came and what became of each decoder; what can still be put back is,
/// also where the verifier is not content, or where memory does not answer.
pub fn bring_up<M: Mmio, const N: usize, const R: usize, const D: usize>(
    hw: &mut M,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &mut Workspace<N, R, D>,
) -> Result<(), BringUpError> {
    work.clear();
    let Workspace { topology, plan: wanted, committed, findings, probe: errors } = work;
    discover(hw, clock, platform, topology).map_err(BringUpError::Discover)?;
    plan(platform, topology, policy, wanted).map_err(BringUpError::Plan)?;
    let (topology, wanted) = (&*topology, &*wanted);
    let mut answers = |hw: &mut M, committed: &mut Committed<D>| {
        probe(hw, platform, topology, policy.probe, committed, errors).is_ok()
    };
    let result = commit_checked(hw, clock, topology, wanted, policy, committed, |hw, committed| {
        verify_plan(hw, platform, topology, wanted, policy, committed, findings);
        // Also where the verifier is not content: what is whole and locked stays in use.
        answers(hw, committed) && findings.passed()
    });
    if let Err(error) = result {
        // So does it here.
        answers(hw, committed);
        return Err(BringUpError::Commit(error));
    }
    judge(findings)?;
    errors.list().first().map_or(Ok(()), |error| Err(BringUpError::Probe(*error)))
}

/// Finds what is there and verifies it, whoever programmed it; writes to no decoder.
///
/// Of the policy, `path` says whether every decoder on a path has to be locked. The plan stays
/// empty.
pub fn inspect<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &mut Workspace<N, R, D>,
) -> Result<(), BringUpError> {
    work.clear();
    let Workspace { topology, committed, findings, .. } = work;
    discover(hw, clock, platform, topology).map_err(BringUpError::Discover)?;
    verify(hw, platform, topology, policy, committed, findings);
    judge(findings)
}

fn judge<const F: usize>(findings: &Findings<F>) -> Result<(), BringUpError> {
    let failure = findings.list().iter().find(|finding| finding.is_failure());
    failure.map_or(Ok(()), |finding| Err(BringUpError::Verify(*finding)))
}
