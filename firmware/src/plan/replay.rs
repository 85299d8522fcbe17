//! Why a region lies in no other window: the decision made again, on the same facts.

use cxl_regs::{Coherency, Hpa, Span};
use heapless::Vec;

use super::fit::{self, Ask, By, Choice, Earlier, Refused, Unfit, ascending};
use super::input::PlanInput;
use super::{PlanRef, sets};
use crate::coherency;
use crate::platform::{Platform, Window};
use crate::policy::Policy;
use crate::topology::{NodeId, Tree};

impl<'a> PlanRef<'a> {
    /// Why a region lies in its window and in no other: every other window, by ascending base, with
    /// what spoke against it when the region was placed.
    ///
    /// Platform, topology and policy have to be those that the plan was made from, and it one of all the
    /// machine.
    pub fn refused(
        self,
        platform: &'a Platform<'a>,
        topology: impl Into<Tree<'a>>,
        policy: &'a Policy<'a>,
        region: usize,
    ) -> impl Iterator<Item = Refused> + 'a {
        let judge = self.replay(platform, topology.into(), policy, region);
        let own = self.regions.get(region).map(|region| region.window);
        let others = ascending(platform.windows)
            .filter(move |window| window.base.is_none() || window.base != own);
        others.filter_map(move |window| {
            let why = judge.as_ref()?.judge(self, window).err().or_else(|| {
                // It fits, so either it comes behind the one that was taken, or has no set for this.
                let own = platform.windows.iter().find(|other| other.base == own)?;
                let before = sets::rank(policy, window) < sets::rank(policy, own);
                let ways = window.interleave.ways;
                let (none, other) = (Unfit::NoSet { ways }, own.base.unwrap_or_default());
                Some(if before { none } else { Unfit::NotPreferred { preferred: other } })
            })?;
            Some(Refused { window: platform.base_of(window), why })
        })
    }

    fn replay(
        self,
        platform: &'a Platform<'a>,
        tree: Tree<'a>,
        policy: &'a Policy<'a>,
        region: usize,
    ) -> Option<Replay<'a>> {
        let region = self.regions.get(region)?;
        let device = self.members(region).first()?.device;
        let given = PlanInput { platform, tree, policy, devices: &[], nowhere: &[] };
        let partition = region.partition;
        let decision = if region.by == By::Width {
            Decision::Width(Choice::of(&given, device, partition).ok()?)
        } else {
            let offset = region.span.base().0.saturating_sub(region.window.0);
            let ask = Ask {
                uid: tree.path(device).uid(),
                partition,
                window: matches!(region.by, By::Request | By::Earlier).then_some(region.window),
                offset: region.fixed.then_some(offset),
                size: region.span.size(),
                set: region.by == By::Members,
                members: region.member_count.into(),
                above: Hpa(0),
            };
            Decision::Fit { ask, coherencies: coherency::models(tree, device).ok()?.coherencies }
        };
        Some(Replay { given, device, order: region.order, decision })
    }
}

/// A decision made again.
struct Replay<'a> {
    given: PlanInput<'a>,
    device: NodeId,
    /// What was placed before has a lower one.
    order: u16,
    decision: Decision,
}

enum Decision {
    Fit { ask: Ask, coherencies: Vec<Coherency, 3> },
    Width(Choice),
}

impl Replay<'_> {
    fn judge(&self, plan: PlanRef<'_>, window: &Window) -> Result<(), Unfit> {
        let PlanInput { platform, policy, .. } = self.given;
        match &self.decision {
            Decision::Width(choice) => choice.judge(&self.given, window).map(|_| ()),
            Decision::Fit { ask, coherencies } => {
                let earlier = |span: Span| {
                    let before = plan.regions.iter().filter(|region| region.order < self.order);
                    let inside = before.filter(move |region| region.span.overlaps(span));
                    inside.map(|region| Earlier {
                        span: region.span,
                        partition: region.partition,
                        related: plan.members(region).iter().any(|m| m.device == self.device),
                    })
                };
                fit::judge(platform, policy, ask, window, coherencies, earlier).map(|_| ())
            }
        }
    }
}
