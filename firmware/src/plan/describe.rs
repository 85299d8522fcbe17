//! Nothing is planned, as the operating system programs: what has to hold is that it can.
//!
//! **Invariant**: no decoder is planned; whatever memory a device has, some window admits it, or
//! there is no plan, with what spoke against each window.

use cxl_regs::{DECODER_UNIT, Hpa};

use super::fit::{self, Ask, Refusals, Refused};
use super::input::PlanInput;
use super::node_use::{NodeUse, left};
use super::place::{come_closer, no_place};
use super::{Lists, Note, asks_for_nothing, note};
use crate::coherency;
use crate::error::Error;
use crate::topology::{NodeId, Partition};

/// Notes each device that has memory, once all of it has a window.
pub(super) fn windows(
    given: &PlanInput<'_>,
    used: &[NodeUse],
    refusals: &mut Refusals,
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    asks_for_nothing(given.policy)?;
    for device in given.sound() {
        for partition in Partition::ALL {
            let size = left(given.tree, device, partition, used);
            if size > 0 {
                has_window(given, device, partition, size, refusals)?;
                note(plan, Note::SystemPrograms { device })?;
            }
        }
    }
    Ok(())
}

/// Whether some window can hold memory of a device, alone or in a set: at least a decoder's unit of
/// it, as how much is mapped where is not decided here.
fn has_window(
    given: &PlanInput<'_>,
    device: NodeId,
    partition: Partition,
    size: u64,
    refusals: &mut Refusals,
) -> Result<(), Error> {
    let PlanInput { platform, tree, policy, .. } = *given;
    let path = tree.path(device);
    let coherencies = coherency::models(tree, device)?.coherencies;
    let (window, offset) = (None, None);
    let ask = Ask {
        uid: path.uid(),
        partition,
        window,
        offset,
        size: DECODER_UNIT,
        set: true,
        members: 1,
        above: Hpa(0),
    };
    let mut closest = None;
    for window in fit::ascending(platform.windows) {
        let Err(why) = fit::admit(platform, policy, &ask, window, &coherencies) else {
            refusals.clear();
            return Ok(());
        };
        refusals.add(Refused { window: window.base, why });
        come_closer(&mut closest, window, why);
    }
    Err(no_place(path, partition, size, None, closest))
}
