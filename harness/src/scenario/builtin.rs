//! The scenarios that come with the harness.
//!
//! **Invariant**: a built-in is found by its file's name, and every one of them parses.

/// A scenario in the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// What to call it on the command line.
    pub name: &'static str,
    /// The TOML text.
    pub text: &'static str,
}

/// One list: the name is the file's name.
macro_rules! builtins {
    ($($name:literal),* $(,)?) => {
        &[$(Builtin { name: $name, text: include_str!(concat!("builtin/", $name, ".toml")) }),*]
    };
}

/// All of them, the main one first.
pub fn builtins() -> &'static [Builtin] {
    builtins!["default"]
}

/// The one of this name.
pub fn builtin(name: &str) -> Option<Builtin> {
    builtins().iter().copied().find(|builtin| builtin.name == name)
}
