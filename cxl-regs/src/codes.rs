//! Enums of the codes a specification names.
//!
//! **Invariant**: every raw code has a value and every value its raw code: `Other` holds exactly
//! the codes without a name of their own when it comes from `from_code`.

/// An enum with one variant a named code, and `Other` for the rest.
macro_rules! codes {
    (
        $(#[$doc:meta])*
        $name:ident: $repr:ty {
            $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A code without a name here.
            Other($repr),
        }

        impl $name {
            /// The value of a raw code.
            pub const fn from_code(code: $repr) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    other => Self::Other(other),
                }
            }

            /// The raw code.
            pub const fn code(self) -> $repr {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Other(code) => code,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(code) => write!(f, "unknown {code:#x}"),
                }
            }
        }
    };
}

pub(crate) use codes;
