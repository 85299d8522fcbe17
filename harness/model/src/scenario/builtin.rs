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
    builtins![
        "default",
        "one-device",
        "four-bridges",
        "two-devices-one-bridge",
        "switch",
        "two-partitions",
        "dpa-skip",
        "type2",
        "type2-db",
        "pass-through",
        "path2",
        "describe",
        "sized-windows",
        "passed-through",
        "unlocked",
        "hot-plug",
        "uids-not-buses",
        "two-way",
        "two-way-ports",
        "four-way",
        "three-way",
        "twelve-way",
        "sixteen-way",
        "switch-interleave",
        "xor-four-way",
        "persistent-interleave",
        "ambiguous",
        "no-window",
        "no-such-target",
        "window-too-small",
        "unplaced-window",
        "window-beyond-width",
        "interleaved-window",
        "too-few-decoders",
        "window-order",
        "coherency",
        "cxl-1-1",
        "lock-not-enforced",
        "lock-lost",
        "commit-polls",
        "commit-never",
        "commit-error",
        "dropped-write",
        "stuck-bit",
        "dead-device",
    ]
}

/// The one of this name.
pub fn builtin(name: &str) -> Option<Builtin> {
    builtins().iter().copied().find(|builtin| builtin.name == name)
}
