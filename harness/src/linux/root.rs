//! What root does inside a Linux on our own machine: the program for it, and the script around it.
//!
//! **Invariant**: nothing here decides what came of it; that is judged from outside, by registers.

use super::initramfs::{Entry, InitramfsError, PLAIN, PROGRAM};
use super::{Installed, Task};

/// The program, which needs no library.
static PROGRAM_BYTES: &[u8] = include_bytes!(env!("CXL_ROOT"));

/// Where it is inside.
pub const NAME: &str = "/bin/cxl-root";

/// The mark at which Linux has said what it sees.
pub const LOOKED: u64 = u64::MAX;

/// By which way root reaches registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `/dev/mem`.
    Memory,
    /// Files of sysfs: `config` and `resourceN`; `/dev/mem` for what has none.
    Sysfs,
}

impl Way {
    /// The program's word for it.
    const fn word(self) -> &'static str {
        match self {
            Self::Memory => "mem",
            Self::Sysfs => "sysfs",
        }
    }
}

/// What runs once Linux has said what it sees. Memory that is online is a node of Linux's: root takes it
/// offline before the locks are attacked, or Linux would go down with what an attack switches off.
fn script(after: &str, attack: Option<Way>) -> String {
    let mut script = format!("{after}\n");
    if let Some(way) = attack {
        script += ATTACK;
        script +=
            &format!("{NAME} attack {} 2>/attack && say attack done\ntext /attack\n", way.word());
    }
    script
}

const ATTACK: &str = "\
for block in /sys/devices/system/memory/memory*; do
    [ \"$($B cat $block/valid_zones)\" = Movable ] && echo offline >$block/state
done
for dax in /sys/bus/dax/devices/dax*; do
    [ -e \"$dax/driver\" ] && echo ${dax##*/} >$dax/driver/unbind
done
";

/// The initramfs with the program, what is to be done once Linux has said what it sees, and the attack.
pub(super) fn initramfs(
    installed: &Installed,
    before: &str,
    task: &Task<'_>,
    (after, attack): (&str, Option<Way>),
) -> Result<Vec<u8>, InitramfsError> {
    let more = vec![
        Entry::file(NAME.trim_start_matches('/'), PROGRAM, PROGRAM_BYTES),
        Entry::file("looked", PLAIN, format!("{NAME} mark {LOOKED}\n")),
        Entry::file("after", PLAIN, script(after, attack)),
    ];
    installed.initramfs_with(before, task, more)
}
