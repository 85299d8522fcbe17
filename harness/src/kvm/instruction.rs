//! Just enough of the x86 instruction format to call an instruction by its family.
//!
//! **Invariant**: any bytes give an answer; nothing is executed and nothing is decoded further than
//! the opcode.

use std::fmt;

/// Instructions that an emulator of system software seldom knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// MMX and SSE, up to SSE4.
    Sse,
    /// AVX, BMI and FMA: VEX-encoded.
    Vex,
    /// AVX-512: EVEX-encoded.
    Evex,
    /// XSAVE and its relatives.
    Xsave,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sse => "an SSE instruction",
            Self::Vex => "a VEX-encoded instruction (AVX, BMI or FMA)",
            Self::Evex => "an EVEX-encoded instruction (AVX-512)",
            Self::Xsave => "an instruction of the XSAVE family",
        })
    }
}

/// The family of the instruction that the bytes start with, in 64-bit mode or not; `None` for all
/// others.
pub fn family(bytes: &[u8], long: bool) -> Option<Family> {
    let prefix = |byte: &u8| {
        let legacy = matches!(byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3);
        legacy || long && matches!(byte, 0x40..=0x4F)
    };
    let rest = bytes.get(bytes.iter().take_while(|byte| prefix(byte)).count()..)?;
    // Outside 64-bit mode a memory operand makes these LES, LDS and BOUND.
    let vector = long || rest.get(1).is_some_and(|next| next >> 6 == 3);
    match *rest {
        [0xC4 | 0xC5, ..] if vector => Some(Family::Vex),
        [0x62, ..] if vector => Some(Family::Evex),
        // Group 15 and group 9 are told apart by the middle of ModRM.
        [0x0F, 0xAE, operand, ..] if operand >> 6 != 3 => match operand >> 3 & 7 {
            0..=3 => Some(Family::Sse),
            4..=6 => Some(Family::Xsave),
            _ => None,
        },
        [0x0F, 0xC7, operand, ..] if matches!(operand >> 3 & 7, 3..=5) && operand >> 6 != 3 => {
            Some(Family::Xsave)
        }
        [0x0F, 0x38, third, ..] if third < 0xF0 => Some(Family::Sse),
        [0x0F, 0x3A, ..] => Some(Family::Sse),
        [0x0F, 0x10..=0x17 | 0x28..=0x2F | 0x50..=0x7F | 0xC2 | 0xC4..=0xC6 | 0xD0..=0xFE, ..] => {
            Some(Family::Sse)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Family::{Evex, Sse, Vex, Xsave};
    use super::*;

    #[test]
    fn instructions_are_called_by_their_family() {
        // Assembled by hand from the opcode maps of the processor's manual.
        type Case = (&'static str, &'static [u8], Option<Family>, Option<Family>);
        let cases: &[Case] = &[
            ("movaps xmm0, [rax]", &[0x0F, 0x28, 0x00], Some(Sse), Some(Sse)),
            ("movdqu xmm8, [rcx]", &[0xF3, 0x44, 0x0F, 0x6F, 0x01], Some(Sse), None),
            ("pshufb xmm0, xmm1", &[0x66, 0x0F, 0x38, 0x00, 0xC1], Some(Sse), Some(Sse)),
            ("movbe eax, [rcx]", &[0x0F, 0x38, 0xF0, 0x01], None, None),
            ("ldmxcsr [rax]", &[0x0F, 0xAE, 0x10], Some(Sse), Some(Sse)),
            ("xsave [rax]", &[0x0F, 0xAE, 0x20], Some(Xsave), Some(Xsave)),
            ("lfence", &[0x0F, 0xAE, 0xE8], None, None),
            ("clflush [rax]", &[0x0F, 0xAE, 0x38], None, None),
            ("xsavec64 [rdi]", &[0x48, 0x0F, 0xC7, 0x27], Some(Xsave), None),
            ("cmpxchg8b [rax]", &[0x0F, 0xC7, 0x08], None, None),
            ("rdrand eax", &[0x0F, 0xC7, 0xF0], None, None),
            ("vzeroupper", &[0xC5, 0xF8, 0x77], Some(Vex), Some(Vex)),
            ("shlx / les", &[0xC4, 0x02, 0x71, 0xF7, 0xC0], Some(Vex), None),
            ("vmovaps zmm0, [rax]", &[0x62, 0x71, 0x7C, 0x48, 0x28, 0x00], Some(Evex), None),
            ("mov eax, [rcx]", &[0x8B, 0x01], None, None),
            ("cpuid", &[0x0F, 0xA2], None, None),
            ("only prefixes", &[0x66, 0xF3], None, None),
            ("nothing", &[], None, None),
        ];
        for (what, bytes, long, protected) in cases {
            assert_eq!(family(bytes, true), *long, "{what}, 64-bit");
            assert_eq!(family(bytes, false), *protected, "{what}, 32-bit");
        }
    }
}
