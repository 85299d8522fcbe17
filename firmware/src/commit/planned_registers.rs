//! A planned or recorded decoder as the registers it is to become: programmed with them, and compared
//! with them.
//!
//! **Invariant**: nothing here sets Commit. What is written is read back at once, so hardware that
//! drops a write or hardwires a bit is found while everything can still be undone.

use cxl_regs::hdm::{Control, DecoderImage};

use crate::committed;
use crate::decoder_registers::{DecoderRegisters, Mismatch, difference};
use crate::error::{Code, Failed, Fault, Place};
use crate::mmio::Mmio;
use crate::plan::{PlannedDecoder, Purpose};
use crate::policy::{PathPolicy, Policy};
use crate::topology::Tree;

/// A planned decoder: where it is, and what its registers shall hold.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    pub(crate) registers: DecoderRegisters,
    /// Lock On Commit as the policy wants it; Commit and the status bits are 0.
    pub(crate) image: DecoderImage,
    /// The bits of Control that have to be so. A burned decoder's type means nothing.
    control_mask: u32,
}

impl Slot {
    /// Fails if the topology has no such decoder, or none that can be as planned.
    pub(crate) fn new(
        tree: Tree<'_>,
        planned: &PlannedDecoder,
        policy: &Policy<'_>,
        fault: &mut Fault,
    ) -> Result<Self, Failed> {
        let place = committed::Place::of(tree, planned.node, planned.index).into();
        let Some((component, hdm)) = tree
            .get(planned.node)
            .and_then(|node| Some((node.component()?, node.hdm?)))
            .filter(|(_, hdm)| planned.index < hdm.decoders)
        else {
            return fault.at(Code::COMMIT_NO_SUCH_DECODER, place).into();
        };
        let (image, free) = match planned.purpose {
            Purpose::Region { decoder, .. } => match decoder.encode(component, hdm.capability) {
                Ok(image) => (image, Control::new()),
                Err(error) => return fault.at(Code::COMMIT_ILLEGAL, place).rule(error).into(),
            },
            Purpose::Burn { base } => (
                DecoderImage::default()
                    .with_base(base.0)
                    .with_control(Control::new().with_host_only(hdm.capability.allows_host_only())),
                Control::new().with_host_only(true).with_back_invalidate(true),
            ),
        };
        let lock = policy.path == PathPolicy::LockAll;
        Ok(Self {
            place,
            registers: DecoderRegisters::new(hdm.block, planned.index),
            image: image.with_control(image.control().with_lock_on_commit(lock)),
            // Commit reads 0 on QEMU 7.1 to 8.0 once the decoder is committed: Committed tells.
            control_mask: !(free.into_bits() | Control::new().with_commit(true).into_bits()),
        })
    }

    /// A decoder that was committed once, to be made again as it was then.
    pub(crate) fn recorded(place: Place, registers: DecoderRegisters, image: DecoderImage) -> Self {
        let control = image.control().with_commit(false).with_committed(false);
        let control_mask = !Control::new().with_commit(true).into_bits();
        Self { place, registers, image: image.with_control(control), control_mask }
    }

    /// The same with Lock On Commit, which does nothing before Commit is written.
    pub(crate) fn with_lock(self) -> Self {
        let control = self.image.control().with_lock_on_commit(true);
        Self { image: self.image.with_control(control), ..self }
    }

    /// The first register that is not as it should be, committed or not.
    #[inline(never)]
    pub(crate) fn difference(&self, found: DecoderImage, committed: bool) -> Option<Mismatch> {
        let wanted = self.image.control().with_committed(committed).into_bits();
        let control = wanted & self.control_mask | found.control & !self.control_mask;
        difference(self.image.with_control(Control::from_bits(control)), found)
    }

    /// Writes all seven registers and reads them back.
    #[inline(never)]
    pub(crate) fn program(
        &self,
        hw: &mut impl Mmio,
        fault: &mut Fault,
    ) -> Result<DecoderImage, Failed> {
        self.registers.write(hw, self.image);
        let found = self.registers.read(hw);
        match self.difference(found, false) {
            None => Ok(found),
            Some((register, expected, found)) => {
                let fault = fault.at(Code::COMMIT_NOT_KEPT, self.place).detail(register);
                fault.expected(expected).found(found).into()
            }
        }
    }
}
