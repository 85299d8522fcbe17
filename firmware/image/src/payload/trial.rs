//! The bug that mirroring cures: one instruction that KVM's emulator does not know, on memory that
//! is not mapped, then mapped, then not mapped again.
//!
//! Each instruction stands once in this image, so what fails and what works is the same one. An
//! address behind it is where to go on after an internal error.
//!
//! **Invariant**: between the announcement and the instruction nothing leaves the processor.

use core::arch::global_asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use cxl_image::doorbell::Call;

use super::Checks;
use super::execute::put_code;
use super::memory::{load, store};
use super::path::RegionPath;
use crate::hw::Hardware;
use crate::{Room, port};

global_asm!(
    r#"
    .text
    .code64
    /* All of them: rdi is the address in the window, rsi sixteen bytes; rax is 1 if it worked. */

    /* A load. (A move alone would not do: that much SSE the emulator knows.) */
trial_load:
    xor eax, eax
    pxor xmm0, xmm0
    por xmm0, [rdi]
    movups [rsi], xmm0
    mov eax, 1
trial_load_end:
    ret

    /* A store of the x87 and SSE state, with the sixteen bytes in xmm0. */
trial_save:
    xor r8d, r8d
    movups xmm0, [rsi]
    xor edx, edx
    mov eax, 3
    xsavec64 [rdi]
    inc r8d
trial_save_end:
    mov eax, r8d
    ret

    /* An instruction fetch: the code there puts its address into r8 and comes back through rcx. */
trial_jump:
    xor r8d, r8d
    lea rcx, [rip + trial_jump_end]
    jmp rdi
trial_jump_end:
    mov [rsi], r8
    xor eax, eax
    test r8, r8
    setne al
    ret
"#
);

type Trial = unsafe extern "sysv64" fn(address: u64, bytes: *mut [u64; 2]) -> u64;

unsafe extern "sysv64" {
    fn trial_load(address: u64, bytes: *mut [u64; 2]) -> u64;
    fn trial_save(address: u64, bytes: *mut [u64; 2]) -> u64;
    fn trial_jump(address: u64, bytes: *mut [u64; 2]) -> u64;
    fn trial_load_end();
    fn trial_save_end();
    fn trial_jump_end();
}

/// `lea r8, [rip - 7]; jmp rcx`.
const CODE: [u8; 16] = [
    0x4C, 0x8D, 0x05, 0xF9, 0xFF, 0xFF, 0xFF, 0xFF, 0xE1, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
];

/// What is loaded and saved.
const BYTES: [u64; 2] = [0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210];
/// Where XSAVE keeps xmm0, and XCOMP_BV (SDM volume 1, sections 10.5.1 and 13.4).
const XMM0: u64 = 160;
const XCOMP_BV: u64 = 520;
/// The compacted form, of x87 and SSE state.
const COMPACTED: u64 = 1 << 63 | 0b11;

/// What is tried.
#[derive(Clone, Copy)]
pub(super) enum Instruction {
    /// `por`, an SSE load.
    Load,
    /// `xsavec64`.
    Save,
    /// A jump into the window.
    Jump,
}

impl Instruction {
    /// Entry, and the address to go on at.
    fn code(self) -> (Trial, u64) {
        match self {
            Self::Load => (trial_load, trial_load_end as *const () as u64),
            Self::Save => (trial_save, trial_save_end as *const () as u64),
            Self::Jump => (trial_jump, trial_jump_end as *const () as u64),
        }
    }

    /// Puts into the memory what the instruction needs there.
    fn prepare(self, hw: &mut Hardware, address: u64) {
        match self {
            Self::Load => {
                store(hw, address, BYTES[0]);
                store(hw, address + 8, BYTES[1]);
            }
            Self::Save => {
                for at in [XMM0, XMM0 + 8, XCOMP_BV] {
                    store(hw, address + at, 0);
                }
            }
            Self::Jump => {
                put_code(hw, address, CODE);
            }
        }
    }

    /// Tries it; whether it worked, and the bytes that it moved.
    fn attempt(self, address: u64) -> (u64, [u64; 2]) {
        let mut bytes = if matches!(self, Self::Save) { BYTES } else { [0; 2] };
        let (entry, _) = self.code();
        // SAFETY: the address is aligned for XSAVE, lies in a mapped page of a window, and holds
        // the code where it is jumped to; `bytes` is sixteen bytes.
        let worked = unsafe { entry(address, &raw mut bytes) };
        (worked, bytes)
    }

    /// What the bytes have to be after it worked.
    fn check(self, hw: &mut Hardware, address: u64, bytes: [u64; 2], checks: &mut Checks) {
        match self {
            Self::Load => {
                for (expected, found) in BYTES.into_iter().zip(bytes) {
                    checks.equal(format_args!("bytes loaded"), expected, found);
                }
            }
            Self::Save => {
                for (at, expected) in
                    [(XMM0, BYTES[0]), (XMM0 + 8, BYTES[1]), (XCOMP_BV, COMPACTED)]
                {
                    let found = load(hw, address + at);
                    checks.equal(format_args!("saved at offset {at}"), expected, found);
                }
            }
            Self::Jump => checks.equal(format_args!("where it ran"), address, bytes[0]),
        }
    }
}

/// Whether XSAVEC can be executed.
fn has_xsavec() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const XSAVEC: u32 = 1 << 1;
    __cpuid(1).ecx & OSXSAVE != 0 && __cpuid_count(0xD, 1).eax & XSAVEC != 0
}

/// Fails, works, fails: before commit, committed, taken back.
pub(super) fn run(instruction: Instruction, hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    if matches!(instruction, Instruction::Save) && !has_xsavec() {
        return checks.refuse(format_args!("the processor has no XSAVEC, or it is switched off"));
    }
    let Some(mut path) = RegionPath::last(room) else {
        return checks.refuse(format_args!("there is no region"));
    };
    let base = path.span.base().0;
    let address = base + 4096;
    instruction.prepare(hw, address);
    let fails = |path: &RegionPath, hw: &mut Hardware, checks: &mut Checks| {
        checks.equal(format_args!("decoders still committed"), 0, path.close(hw));
        let (_, resume) = instruction.code();
        port::call(Call::ExpectInternalError { resume });
        let (worked, _) = instruction.attempt(address);
        checks.equal(format_args!("worked at {address:#x} without a decoder"), 0, worked);
    };
    fails(&path, hw, checks);
    checks.equal(format_args!("decoders not committed"), 0, path.open(hw, base));
    let (worked, bytes) = instruction.attempt(address);
    checks.equal(format_args!("worked at {address:#x} with its decoders"), 1, worked);
    instruction.check(hw, address, bytes, checks);
    fails(&path, hw, checks);
    checks.equal(format_args!("decoders not committed"), 0, path.open(hw, base));
}
