//! The attack's kill score: locks that leak, each under one circumstance, and whether the attack
//! finds it and says which.
//!
//! A mutant is a line: a name, a machine, a leak as its scenario says it, and words that the report
//! must have; or why no attack that ends can find it.
//!
//! **Invariant**: no mutant is found on a machine that does not leak: `honest_machines_hold` is the
//! same attack without the leak.

use std::collections::BTreeSet;
use std::sync::Mutex;

use Expected::{Found, Missed};
use cxl_harness::attack;
use cxl_harness::run;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtin};

/// One device with a decoder to spare everywhere.
const ONE: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
decoders = 4
[[port]]
name = "rp0"
below = "hb0"
[[device]]
name = "mem0"
below = "rp0"
volatile = "256MiB"
persistent = "256MiB"
decoders = 4
[[window]]
targets = ["hb0"]
size = "2GiB"
"#;

/// The same without persistent memory, and with its spare decoders locked at size 0.
const BURNT: &str = concat!(
    "[policy]\nburn_spares = true\ntarget = \"specification\"\n",
    r#"
[[bridge]]
name = "hb0"
uid = 16
decoders = 4
[[port]]
name = "rp0"
below = "hb0"
[[device]]
name = "mem0"
below = "rp0"
volatile = "256MiB"
decoders = 4
[[window]]
targets = ["hb0"]
size = "2GiB"
"#
);

/// A switch between bridge and device.
const SWITCH: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
decoders = 2
[[port]]
name = "rp0"
below = "hb0"
[[switch]]
name = "sw0"
below = "rp0"
decoders = 2
[[port]]
name = "dsp0"
below = "sw0"
[[device]]
name = "mem0"
below = "dsp0"
volatile = "256MiB"
decoders = 2
[[window]]
targets = ["hb0"]
size = "1GiB"
"#;

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum On {
    One,
    Burnt,
    Switch,
    Four,
    Sixteen,
    Type2,
    BackInvalidate,
}

impl On {
    const ALL: [Self; 7] = [
        Self::One,
        Self::Burnt,
        Self::Switch,
        Self::Four,
        Self::Sixteen,
        Self::Type2,
        Self::BackInvalidate,
    ];

    fn text(self) -> &'static str {
        let built_in = |name| builtin(name).map_or("", |builtin| builtin.text);
        match self {
            Self::One => ONE,
            Self::Burnt => BURNT,
            Self::Switch => SWITCH,
            Self::Four => built_in("four-way"),
            Self::Sixteen => built_in("sixteen-way"),
            Self::Type2 => built_in("type2"),
            Self::BackInvalidate => built_in("type2-db"),
        }
    }
}

/// What is to become of a mutant.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The attack finds it, with these words.
    Found(&'static str),
    /// No attack that ends finds it, for this reason.
    Missed(&'static str),
}

/// Name, machine, the keys of the leak (`;` for a new line), what is to become of it.
type Mutant = (&'static str, On, &'static str, Expected);

const FOLLOWS: &str = "is locked, and follows the write";
const DECODES: &str = "reads as locked, and decode follows writes all the same";

/// Stores that are no dwords.
const WIDTHS: &[Mutant] = &[
    (
        "bytes reach the base",
        On::One,
        "at='mem0';register='base_low';width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "bytes reach the size",
        On::One,
        "at='mem0';register='size_high';width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "bytes reach Control",
        On::One,
        "at='mem0';register='control';width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "bytes reach a target list",
        On::Switch,
        "at='sw0';register='route_low';width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "words reach the base",
        On::One,
        "at='mem0';register='base_high';width=2",
        Found("opens to stores of 2 bytes"),
    ),
    (
        "words reach a bridge's Control",
        On::One,
        "at='hb0';register='control';width=2",
        Found("opens to stores of 2 bytes"),
    ),
    (
        "pairs reach the base",
        On::One,
        "at='mem0';register='base_low';width=8",
        Found("opens to stores of 8 bytes"),
    ),
    (
        "pairs reach the upper half of a size",
        On::One,
        "at='mem0';register='size_high';width=8",
        Found("opens to stores of 8 bytes"),
    ),
    (
        "pairs reach a bridge's Control",
        On::One,
        "at='hb0';register='control';width=8",
        Found("opens to stores of 8 bytes"),
    ),
    (
        "pairs of ones reach the skip",
        On::One,
        "at='mem0';register='route_high';width=8;value='all-ones'",
        Found("opens to stores of 8 bytes"),
    ),
    (
        "bytes reach DVSEC Control",
        On::One,
        "at='mem0';register='dvsec';offset=0x0c;width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "words reach DVSEC Control",
        On::One,
        "at='mem0';register='dvsec';offset=0x0c;width=2",
        Found("opens to stores of 2 bytes"),
    ),
    (
        "words reach a range's base",
        On::One,
        "at='mem0';register='dvsec';offset=0x20;width=2",
        Found("opens to stores of 2 bytes"),
    ),
    (
        "bytes reach a range's base",
        On::One,
        "at='mem0';register='dvsec';offset=0x24;width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "bytes clear CONFIG_LOCK",
        On::One,
        "at='mem0';register='dvsec';offset=0x14;bits=1;width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "words move the second range",
        On::One,
        "at='mem0';register='dvsec';offset=0x30;width=2",
        Found("opens to stores of 2 bytes"),
    ),
    (
        "bytes reach an accelerator",
        On::Type2,
        "at='acc0';register='base_low';width=1",
        Found("opens to stores of 1 byte"),
    ),
    (
        "pairs reach the last member of a set",
        On::Four,
        "at='mem3';register='base_high';width=8",
        Found("opens to stores of 8 bytes"),
    ),
];

/// Values that are more than a bit.
const VALUES: &[Mutant] = &[
    (
        "all-ones reach the base",
        On::One,
        "at='mem0';register='base_high';value='all-ones'",
        Found("follows the write as all-ones"),
    ),
    (
        "all-ones reach a bridge's size",
        On::One,
        "at='hb0';register='size_low';value='all-ones'",
        Found("follows the write as all-ones"),
    ),
    (
        "all-ones reach a range's base",
        On::One,
        "at='mem0';register='dvsec';offset=0x24;value='all-ones'",
        Found("follows the write as all-ones"),
    ),
    (
        "0 reaches Control",
        On::One,
        "at='mem0';register='control';value='zero'",
        Found("follows the write as 0"),
    ),
    (
        "0 reaches a switch's Control",
        On::Switch,
        "at='sw0';register='control';value='zero'",
        Found("follows the write as 0"),
    ),
    ("0 reaches the base", On::Four, "at='mem1';register='base_high';value='zero'", Found(FOLLOWS)),
    (
        "several bits of IG and IW at once",
        On::One,
        "at='mem0';register='control';bits=0xff;value='several-bits'",
        Found(FOLLOWS),
    ),
    (
        "several bits of IW at once",
        On::One,
        "at='hb0';register='control';bits=0xf0;value='several-bits'",
        Found(FOLLOWS),
    ),
    (
        "several bits of the snoop filter at once",
        On::Type2,
        "at='acc0';register='dvsec';offset=0x0c;bits=0xf8;value='several-bits'",
        Found("follows the write with several bits at once"),
    ),
    (
        "Mem_Enable with another bit",
        On::One,
        "at='mem0';register='dvsec';offset=0x0c;bits=0x4004;value='several-bits'",
        Found(""),
    ),
    (
        "several bits of a base at once",
        On::Switch,
        "at='hb0';register='base_low';value='several-bits'",
        Found(""),
    ),
    (
        "a target list with several bits at once",
        On::Four,
        "at='hb1';register='route_low';value='several-bits'",
        Found(""),
    ),
];

/// Locks that open while something else is so.
const MODES: &[Mutant] = &[
    (
        "base while HDM Decoder Enable is off",
        On::One,
        "at='mem0';register='base_high';while='HDM Decoder Enable';is='off'",
        Found("opens while HDM Decoder Enable of mem0 is off"),
    ),
    (
        "Control while HDM Decoder Enable is off",
        On::One,
        "at='mem0';register='control';while='HDM Decoder Enable';is='off'",
        Found("opens while HDM Decoder Enable of mem0 is off"),
    ),
    (
        "skip while HDM Decoder Enable is off",
        On::Four,
        "at='mem2';register='route_high';while='HDM Decoder Enable';is='off'",
        Found("opens while HDM Decoder Enable of mem2 is off"),
    ),
    (
        "a range while HDM Decoder Enable is off",
        On::One,
        "at='mem0';register='dvsec';offset=0x20;while='HDM Decoder Enable';is='off'",
        Found(""),
    ),
    (
        "a range by bytes while HDM Decoder Enable is off",
        On::One,
        "at='mem0';register='dvsec';offset=0x20;width=1;while='HDM Decoder Enable';is='off'",
        Found("opens to stores of 1 byte while HDM Decoder Enable of mem0 is off"),
    ),
    (
        "a bridge while a device's HDM Decoder Enable is off",
        On::One,
        "at='hb0';register='base_high';while='HDM Decoder Enable';of='mem0';is='off'",
        Found("opens while HDM Decoder Enable of mem0 is off"),
    ),
    (
        "base while Bus Master is off",
        On::One,
        "at='mem0';register='base_low';while='Bus Master';is='off'",
        Found("opens while Bus Master of mem0 is off"),
    ),
    (
        "base while the port's Bus Master is off",
        On::One,
        "at='mem0';register='base_low';while='Bus Master';of='rp0';is='off'",
        Found("opens while Bus Master of rp0 is off"),
    ),
    (
        "CONFIG_LOCK while Memory Space is off",
        On::One,
        "at='mem0';register='dvsec';offset=0x0c;while='Memory Space';is='off'",
        Found("opens while Memory Space of mem0 is off"),
    ),
    (
        "a range while Memory Space is off",
        On::One,
        "at='mem0';register='dvsec';offset=0x24;while='Memory Space';is='off'",
        Found("opens while Memory Space of mem0 is off"),
    ),
    (
        "CONFIG_LOCK while Bus Master is off",
        On::Type2,
        "at='acc0';register='dvsec';offset=0x14;bits=1;while='Bus Master';is='off'",
        Found("opens while Bus Master of acc0 is off"),
    ),
    (
        "base while a reset would clear memory",
        On::One,
        "at='mem0';register='base_high';while='CXL Reset Mem Clr Enable';is='on'",
        Found("opens while CXL Reset Mem Clr Enable of mem0 is on"),
    ),
    (
        "base while caching is off",
        On::Type2,
        "at='acc0';register='base_high';while='Disable Caching';is='on'",
        Found("opens while Disable Caching of acc0 is on"),
    ),
    (
        "size while the port forwards no SERR#",
        On::One,
        "at='mem0';register='size_low';while='SERR# Enable';of='rp0';is='on'",
        Found("opens while SERR# Enable of rp0 is on"),
    ),
    (
        "base while SBR is unmasked",
        On::One,
        "at='mem0';register='base_high';while='Unmask SBR';of='rp0';is='on'",
        Found("opens while Unmask SBR of rp0 is on"),
    ),
    (
        "base while interrupts are off",
        On::One,
        "at='mem0';register='base_high';while='Interrupt Disable';is='on'",
        Found("opens while Interrupt Disable of mem0 is on"),
    ),
    (
        "base while a port has an Interrupt Line",
        On::One,
        "at='mem0';register='base_high';while='Interrupt Line';of='rp0';is='on'",
        Found("opens while Interrupt Line of rp0 is on"),
    ),
    (
        "a switch while its Bus Master is off",
        On::Switch,
        "at='sw0';register='route_low';while='Bus Master';is='off'",
        Found("opens while Bus Master of sw0 is off"),
    ),
    (
        "a switch while the device below is off",
        On::Switch,
        "at='sw0';register='base_high';while='HDM Decoder Enable';of='mem0';is='off'",
        Found("opens while HDM Decoder Enable of mem0 is off"),
    ),
    (
        "base where a BAR was moved to",
        On::One,
        "at='mem0';register='base_high';while='bar-moved'",
        Found("opens while its BAR is moved"),
    ),
    (
        "a switch where its BAR was moved to",
        On::Switch,
        "at='sw0';register='base_high';while='bar-moved'",
        Found("opens while its BAR is moved"),
    ),
    (
        "base while another decoder commits",
        On::One,
        "at='mem0';register='base_high';while='another-commits'",
        Found("opens while another decoder is being committed"),
    ),
    (
        "base while another decoder is committed",
        On::One,
        "at='mem0';register='base_high';while='another-committed'",
        Found("opens while another decoder is committed without a lock"),
    ),
    (
        "base under another decoder",
        On::One,
        "at='mem0';register='base_high';while='overlapped'",
        Found("opens while another decoder is committed over the range"),
    ),
    (
        "size of a bridge under another decoder",
        On::One,
        "at='hb0';register='size_low';while='overlapped'",
        Found("opens while another decoder is committed over the range"),
    ),
    (
        "base after CXL Reset",
        On::One,
        "at='mem0';register='base_high';after='cxl'",
        Found("opens after CXL Reset"),
    ),
    (
        "CONFIG_LOCK after CXL Reset",
        On::One,
        "at='mem0';register='dvsec';offset=0x0c;after='cxl'",
        Found("opens after CXL Reset"),
    ),
    (
        "base after FLR",
        On::One,
        "at='mem0';register='base_high';after='flr'",
        Found("opens after Function Level Reset"),
    ),
    (
        "Control by bytes after FLR",
        On::One,
        "at='mem0';register='control';width=1;after='flr'",
        Found("opens to stores of 1 byte after Function Level Reset"),
    ),
    (
        "a lock that comes back weaker",
        On::One,
        "at='mem0';register='base_high';after='hot'",
        Found("opens once locked again after a conventional reset"),
    ),
    (
        "a switch's lock that comes back weaker",
        On::Switch,
        "at='sw0';register='route_low';after='hot'",
        Found("opens once locked again after a conventional reset"),
    ),
    (
        "base while a masked bus reset lasts",
        On::One,
        "at='mem0';register='base_high';while='Secondary Bus Reset';of='rp0';is='on'",
        Found("is locked"),
    ),
    (
        "an accelerator while the expander beside it is off",
        On::Type2,
        "at='acc0';register='base_high';while='HDM Decoder Enable';of='mem0';is='off'",
        Found("opens while HDM Decoder Enable of mem0 is off"),
    ),
];

/// Registers that read as locked.
const HIDDEN: &[Mutant] = &[
    (
        "decode follows the base",
        On::One,
        "at='mem0';register='base_high';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows the lower base",
        On::One,
        "at='mem0';register='base_low';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows the size",
        On::One,
        "at='mem0';register='size_low';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows IG",
        On::Four,
        "at='mem0';register='control';bits=0xf;shows=false",
        Found(DECODES),
    ),
    (
        "decode follows IW",
        On::Sixteen,
        "at='mem9';register='control';bits=0xf0;shows=false",
        Found(DECODES),
    ),
    (
        "decode follows Commit",
        On::One,
        "at='hb0';register='control';bits=0x200;shows=false",
        Found(DECODES),
    ),
    (
        "decode follows the skip",
        On::One,
        "at='mem0';register='route_high';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows a target list",
        On::Four,
        "at='hb0';register='route_low';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows a switch's target list",
        On::Switch,
        "at='sw0';register='route_low';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows bytes",
        On::One,
        "at='mem0';register='base_high';width=1;shows=false",
        Found(DECODES),
    ),
    (
        "decode follows all-ones",
        On::One,
        "at='mem0';register='base_high';value='all-ones';shows=false",
        Found(DECODES),
    ),
    (
        "decode follows while HDM Decoder Enable is off",
        On::One,
        "at='mem0';register='base_high';shows=false;while='HDM Decoder Enable';is='off'",
        Found("decode follows writes all the same, while HDM Decoder Enable of mem0 is off"),
    ),
    (
        "decode follows after CXL Reset",
        On::One,
        "at='mem0';register='base_high';shows=false;after='cxl'",
        Found(DECODES),
    ),
    // What these take leads nowhere, as long as nothing else routes it there.
    (
        "a burnt decoder grows",
        On::Burnt,
        "at='mem0';decoder=2;register='size_low';shows=false",
        Found(DECODES),
    ),
    (
        "a burnt decoder of a bridge grows",
        On::Burnt,
        "at='hb0';decoder=3;register='size_high';shows=false",
        Found(DECODES),
    ),
    (
        "a bridge grows by 4 GiB and more",
        On::Switch,
        "at='hb0';register='size_high';shows=false",
        Found("hb0 HDM Decoder Size High of decoder 0 reads as locked, and decode follows"),
    ),
    (
        "a bridge grows by all-ones in a mode",
        On::Switch,
        "at='hb0';register='size_high';shows=false;value='all-ones';while='Bus Master';of='mem0';is='off'",
        Found("decode follows writes all the same, while Bus Master of mem0 is off"),
    ),
    (
        "a device grows by bytes",
        On::Burnt,
        "at='mem0';register='size_high';shows=false;width=1",
        Found(DECODES),
    ),
];

/// Single fields that no lock holds.
const FIELDS: &[Mutant] = &[
    ("a bridge's base", On::One, "at='hb0';register='base_low';bits=0x10000000", Found(FOLLOWS)),
    ("a bridge's size", On::One, "at='hb0';register='size_high'", Found(FOLLOWS)),
    ("a bridge's IG", On::One, "at='hb0';register='control';bits=0xf", Found(FOLLOWS)),
    ("a bridge's IW", On::One, "at='hb0';register='control';bits=0xf0", Found(FOLLOWS)),
    (
        "a bridge's first target",
        On::Sixteen,
        "at='hb3';register='route_low';bits=0xff",
        Found(FOLLOWS),
    ),
    (
        "a bridge's fourth target",
        On::Sixteen,
        "at='hb2';register='route_low';bits=0xff000000",
        Found(FOLLOWS),
    ),
    ("a switch's base", On::Switch, "at='sw0';register='base_high'", Found(FOLLOWS)),
    ("a switch's size", On::Switch, "at='sw0';register='size_low'", Found(FOLLOWS)),
    ("a switch's type", On::Switch, "at='sw0';register='control';bits=0x1000", Found(FOLLOWS)),
    ("a switch's upper targets", On::Switch, "at='sw0';register='route_high'", Found(FOLLOWS)),
    ("a device's Lock", On::One, "at='mem0';register='control';bits=0x100", Found(FOLLOWS)),
    ("a device's Commit", On::One, "at='mem0';register='control';bits=0x200", Found(FOLLOWS)),
    (
        "a device's Committed",
        On::One,
        "at='mem0';register='control';bits=0x400",
        Found("is locked"),
    ),
    (
        "a device's Error Not Committed",
        On::One,
        "at='mem0';register='control';bits=0x800",
        Found("is locked"),
    ),
    ("a device's type", On::Type2, "at='acc0';register='control';bits=0x1000", Found("is locked")),
    (
        "a device's BI",
        On::BackInvalidate,
        "at='acc0';register='control';bits=0x2000",
        Found(FOLLOWS),
    ),
    (
        "a device's set position",
        On::BackInvalidate,
        "at='acc0';register='control';bits=0xf000000",
        Found(FOLLOWS),
    ),
    ("a device's skip", On::One, "at='mem0';register='route_low'", Found(FOLLOWS)),
    (
        "the second decoder of a device",
        On::One,
        "at='mem0';decoder=1;register='base_high'",
        Found(FOLLOWS),
    ),
    (
        "Cache_Enable under CONFIG_LOCK",
        On::Type2,
        "at='acc0';register='dvsec';offset=0x0c;bits=1",
        Found(FOLLOWS),
    ),
    (
        "a reserved bit under CONFIG_LOCK",
        On::One,
        "at='mem0';register='dvsec';offset=0x0c;bits=0x8000",
        Found("is locked"),
    ),
];

/// Writes elsewhere.
const ELSEWHERE: &[Mutant] = &[
    (
        "a mailbox command moves the base",
        On::One,
        "at='mem0';register='base_high';by='mem0';by_register='Mailbox Control'",
        Found("is locked, and changes with a write elsewhere"),
    ),
    (
        "vendor memory moves the base",
        On::Type2,
        "at='acc0';register='base_high';by='acc0';by_register='vendor memory'",
        Found("is locked, and changes with a write elsewhere"),
    ),
    (
        "a port's Interrupt Line moves the base",
        On::One,
        "at='mem0';register='base_high';by='rp0';by_register='Interrupt Line'",
        Found("a write to it changes mem0 HDM Decoder Base High"),
    ),
    (
        "a port's Interrupt Line moves a target list",
        On::One,
        "at='hb0';register='route_low';by='rp0';by_register='Interrupt Line'",
        Found(""),
    ),
    (
        "Cache Line Size moves the skip",
        On::One,
        "at='mem0';register='route_high';by='mem0';by_register='Cache Line Size'",
        Found("is locked"),
    ),
    (
        "Command moves the base",
        On::One,
        "at='mem0';register='base_high';by='mem0';by_register='Command'",
        Found(""),
    ),
    (
        "a port's Bridge Control clears CONFIG_LOCK",
        On::Switch,
        "at='mem0';register='dvsec';offset=0x14;bits=1;by='dsp0';by_register='Bridge Control'",
        Found(""),
    ),
    (
        "Device Control moves a range",
        On::One,
        "at='mem0';register='dvsec';offset=0x20;by='mem0';by_register='Device Control'",
        Found("is locked"),
    ),
    (
        "a count that an attack reaches",
        On::One,
        "at='mem0';register='base_high';writes=10000",
        Found("is locked"),
    ),
];

/// What no attack that ends can find.
const CONTRIVED: &[Mutant] = &[
    (
        "the hundred millionth write",
        On::One,
        "at='mem0';register='base_high';writes=100000000",
        Missed("an attack is as many writes as it is; a count beyond them is not reached"),
    ),
    (
        "ten thousand seconds",
        On::One,
        "at='mem0';register='base_high';microseconds=10000000000",
        Missed("an attack ends before; it does not wait"),
    ),
    (
        "a base that only its maker knows",
        On::One,
        "at='mem0';register='base_high';value='0x5eed1234'",
        Missed("2^32 values of a dword cannot all be tried"),
    ),
    (
        "a size that only its maker knows, in decode alone",
        On::One,
        "at='mem0';register='size_high';value='0x00c0ffee';shows=false",
        Missed("2^32 values of a dword cannot all be tried"),
    ),
    (
        "two circumstances at once",
        On::One,
        "at='mem0';register='base_high';after='flr';while='Interrupt Disable';is='on'",
        Missed("each circumstance is tried by itself; all pairs are thousands of times as many"),
    ),
];

fn mutants() -> impl Iterator<Item = &'static Mutant> {
    [WIDTHS, VALUES, MODES, HIDDEN, FIELDS, ELSEWHERE, CONTRIVED].into_iter().flatten()
}

/// A machine with this added to it.
fn leaking(on: On, leak: &str) -> Machine {
    let mut text = on.text().to_owned();
    if !leak.is_empty() {
        text += &format!("\n[[leak]]\n{}\n", leak.replace(';', "\n"));
    }
    if leak.contains("another-commits") {
        text += "\n[[fault]]\nat = 'mem0'\nkind = 'commit-polls'\ndecoder = 2\nafter = 100\n";
    }
    Machine::new(&Scenario::parse(&text, "mutant").unwrap_or_else(|error| panic!("{error}")))
}

/// What gave way first on a machine with this added to it; nothing if all held.
fn attacked(on: On, leak: &str) -> Vec<String> {
    let mut machine = leaking(on, leak);
    let done = run::direct(&mut machine);
    if let Some(refusal) = done.refusal {
        return vec![format!("REFUSED before any attack: {refusal}")];
    }
    let report = attack::first_breach(&mut machine, &done);
    assert_eq!(report.integrity.holds, report.integrity.breaches.is_empty(), "{on:?} {leak}");
    report.integrity.breaches
}

/// On as many threads as there are processors: `None` for a mutant that came out as it is to.
fn in_parallel(judge: impl Fn(&Mutant) -> Option<String> + Sync) -> Vec<String> {
    let (queue, wrong) = (Mutex::new(mutants()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(mutant) = queue.lock().expect("no panic").next() else { break };
                    if let Some(words) = judge(mutant) {
                        wrong.lock().expect("no panic").push(words);
                    }
                }
            });
        }
    });
    wrong.into_inner().expect("no panic")
}

#[test]
fn every_leak_is_found_and_named_but_those_that_no_attack_can() {
    let wrong = in_parallel(|(name, on, leak, expected)| {
        let breaches = attacked(*on, leak);
        match expected {
            Found(words) if breaches.iter().any(|breach| breach.contains(words)) => None,
            Found(words) if breaches.is_empty() => Some(format!("{name}: NOT FOUND ({words})")),
            Found(words) => Some(format!("{name}: {words:?} is not in {breaches:#?}")),
            Missed(_) if breaches.is_empty() => None,
            Missed(reason) => Some(format!("{name}: found, although {reason}: {breaches:?}")),
        }
    });
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), mutants().count(), wrong.join("\n"));
}

#[test]
fn there_are_enough_of_them_and_no_two_are_called_the_same() {
    let names: BTreeSet<&str> = mutants().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), mutants().count());
    let found = mutants().filter(|(.., expected)| matches!(expected, Found(_))).count();
    assert!(found >= 60, "{found}");
    let machines: BTreeSet<On> = mutants().map(|(_, on, ..)| *on).collect();
    assert_eq!(machines.into_iter().collect::<Vec<_>>(), On::ALL);
}

#[test]
fn honest_machines_hold() {
    for on in On::ALL {
        assert_eq!(attacked(on, ""), Vec::<String>::new(), "{on:?}");
    }
}

/// However many stores come through one hole, in however many states, and whatever they do to ranges.
#[test]
fn one_leak_is_one_breach() {
    for (on, leak, register) in [
        (
            On::Switch,
            "at='mem0';register='base_low';width=1",
            "mem0 HDM Decoder Base Low of decoder 0",
        ),
        (
            On::One,
            "at='mem0';register='size_low';width=2",
            "mem0 HDM Decoder Size Low of decoder 0",
        ),
        (
            On::One,
            "at='mem0';register='base_high';width=1",
            "mem0 HDM Decoder Base High of decoder 0",
        ),
        (On::One, "at='mem0';register='control';width=1", "mem0 HDM Decoder Control of decoder 0"),
        (
            On::One,
            "at='mem0';register='size_high';shows=false",
            "mem0 HDM Decoder Size High of decoder 0",
        ),
        (
            On::One,
            "at='mem0';decoder=1;register='size_low';shows=false",
            "mem0 HDM Decoder Size Low of decoder 1",
        ),
        // Seen first with a store to it and to the register beside it, which is not to blame.
        (
            On::Burnt,
            "at='mem0';decoder=2;register='size_low';shows=false",
            "mem0 HDM Decoder Size Low of decoder 2",
        ),
        (
            On::Burnt,
            "at='hb0';decoder=3;register='size_high';shows=false",
            "hb0 HDM Decoder Size High of decoder 3",
        ),
    ] {
        let mut machine = leaking(on, leak);
        let done = run::direct(&mut machine);
        let breaches = attack::direct(&mut machine, &done).integrity.breaches;
        let [only] = breaches.as_slice() else { panic!("{leak}: {breaches:#?}") };
        assert!(only.starts_with(register), "{leak}: {only}");
    }
    // Two holes are two.
    let leak =
        "at='mem0';register='base_low';width=1\n[[leak]]\nat='mem0';register='base_low';width=2";
    let mut machine = leaking(On::Switch, leak);
    let done = run::direct(&mut machine);
    let breaches = attack::direct(&mut machine, &done).integrity.breaches;
    for width in ["opens to stores of 1 byte", "opens to stores of 2 bytes"] {
        assert!(breaches.iter().any(|breach| breach.contains(width)), "{width}: {breaches:#?}");
    }
}
