//! The numbers of the plan's notes; those of errors are rows of [`crate::error`].
//!
//! **Invariant**: a number has one meaning and every variant a number; the compiler refuses a list
//! that leaves a variant out, and one that does not ascend.

/// Gives each variant of an enum its number: `code`, and all of them in `CODES`.
macro_rules! codes {
    ($name:ident { $($variant:ident = $code:literal,)* }) => {
        impl $name {
            /// Every number with the name of its variant, by ascending number.
            pub const CODES: &'static [(u16, &'static str)] =
                &[$(($code, stringify!($variant)),)*];

            /// A number for logs and hand-off records; it never changes its meaning.
            pub const fn code(&self) -> u16 {
                match self {
                    $(Self::$variant { .. } => $code,)*
                }
            }
        }

        const _: () = {
            let codes = [$($code,)*];
            let mut at = 1;
            while at < codes.len() {
                assert!(codes[at - 1] < codes[at], "numbers ascend, so that none is there twice");
                at += 1;
            }
        };
    };
}

pub(crate) use codes;
