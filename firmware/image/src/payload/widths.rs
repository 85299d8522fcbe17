//! Component registers take aligned dwords and nothing else (CXL r3.1 section 8.2.3): any other
//! access reads as one that nobody answers and writes nothing.
//!
//! **Invariant**: each access is one instruction, and what is written belongs to a spare decoder
//! that is put back.

use core::arch::asm;

use cxl_firmware::DecoderRegisters;
use cxl_image::doorbell::Call;
use cxl_regs::access::Register;
use cxl_regs::hdm::{Capability, DECODER_SPECS, decoder_offset};

use super::Checks;
use crate::hw::Hardware;
use crate::{Room, port};

/// Accesses that are no aligned dword: bytes, and how far from one.
const WRONG: [(u8, u64); 9] =
    [(1, 0), (1, 3), (2, 0), (2, 2), (2, 1), (4, 1), (4, 2), (8, 0), (8, 4)];
/// What a spare decoder is given meanwhile, as base and size.
const MARK: u64 = 0x5A5A_5A5A_5000_0000;

/// Tries each in every component with a decoder to spare, two marks round the accesses that have to
/// be dropped.
pub(super) fn widths(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let mut marks = (0..).map(|id| port::call(Call::Mark { id }));
    for hdm in room.topology.nodes.iter().filter_map(|node| node.hdm) {
        let index = hdm.decoders.saturating_sub(1);
        let registers = DecoderRegisters::new(hdm.block, index);
        let before = registers.read(hw);
        if before.control().committed() {
            continue;
        }
        let marked = before.with_base(MARK).with_size(MARK);
        registers.write(hw, marked);
        checks.equal(
            format_args!("aligned dwords written"),
            1,
            (registers.read(hw) == marked).into(),
        );
        let first = hdm.block.0 + u64::from(decoder_offset(index));
        marks.next();
        for (bytes, offset) in WRONG {
            let capability = hdm.block.address::<Capability>() + offset;
            let found = load(capability, bytes);
            let name = Capability::SPEC.name;
            if let Some(miss) = hw.vmm.miss() {
                let miss = miss & u64::MAX >> (64 - 8 * u32::from(bytes));
                checks.equal(format_args!("{bytes} bytes at {name} + {offset}"), miss, found);
            }
            for spec in DECODER_SPECS {
                store(first + u64::from(spec.offset) + offset, bytes);
            }
        }
        marks.next();
        let kept = registers.read(hw) == marked;
        checks.equal(format_args!("decoder {index} at {first:#x} as it was"), 1, kept.into());
        registers.write(hw, before);
    }
}

/// One instruction with operands.
macro_rules! instruction {
    ($text:literal, $($operand:tt)*) => {
        // SAFETY: a load or store in a component register block, on a page that was mapped when
        // its registers were read; no Rust object lives there.
        unsafe { asm!($text, $($operand)*) }
    };
}

/// One load of 1, 2, 4 or 8 bytes.
fn load(address: u64, bytes: u8) -> u64 {
    let value: u64;
    match bytes {
        1 => instruction!("movzx {0:e}, byte ptr [{1}]", out(reg) value, in(reg) address),
        2 => instruction!("movzx {0:e}, word ptr [{1}]", out(reg) value, in(reg) address),
        4 => instruction!("mov {0:e}, [{1}]", out(reg) value, in(reg) address),
        _ => instruction!("mov {0}, [{1}]", out(reg) value, in(reg) address),
    }
    value
}

/// One store of zeroes.
fn store(address: u64, bytes: u8) {
    match bytes {
        1 => instruction!("mov byte ptr [{0}], 0", in(reg) address),
        2 => instruction!("mov word ptr [{0}], 0", in(reg) address),
        4 => instruction!("mov dword ptr [{0}], 0", in(reg) address),
        _ => instruction!("mov qword ptr [{0}], 0", in(reg) address),
    }
}
