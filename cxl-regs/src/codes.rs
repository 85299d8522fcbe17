//! Types of the codes a specification names.
//!
//! **Invariant**: every raw code is a value, named or not, and is kept as it is: nothing is looked up where
//! codes are read, written and compared.

/// A code, with a constant for each that has a name. They are called as variants of an enum are, and can be
/// matched as these.
macro_rules! codes {
    (
        $(#[$doc:meta])*
        $name:ident: $repr:ty {
            $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($repr);

        #[allow(non_upper_case_globals, reason = "each is one of the values that a field can have")]
        impl $name {
            $($(#[$variant_doc])* pub const $variant: Self = Self($code);)*
        }

        impl $name {
            /// The value of a raw code.
            pub const fn from_code(code: $repr) -> Self {
                Self(code)
            }

            /// The raw code.
            pub const fn code(self) -> $repr {
                self.0
            }

            /// Whether the code has a name here.
            pub const fn is_named(self) -> bool {
                matches!(self, $(Self::$variant)|*)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$variant => f.write_str(stringify!($variant)),)*
                    Self(code) => f.debug_tuple("Other").field(&code).finish(),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$variant => f.write_str($text),)*
                    Self(code) => write!(f, "unknown {code:#x}"),
                }
            }
        }
    };
}

pub(crate) use codes;
