//! What our image can do in a guest once its firmware is done.
//!
//! **Invariant**: a name is in this list if and only if the image knows it and it makes sense in a
//! guest of this harness (`linux` is for other machines).

/// A payload, and what it does in a few words.
pub type Payload = (&'static str, &'static str);

/// The payload that does nothing.
pub const NONE: &str = "none";
/// The payload that attacks the locks.
pub const ATTACK: &str = "attack";
/// The payload that attacks the locks and judges from inside as well.
const JUDGED: &str = "attack-judged";
/// The payload that counts, for the events of a scenario.
pub const COUNT: &str = "count";

/// All of them.
pub const PAYLOADS: [Payload; 21] = [
    (NONE, "nothing"),
    ("touch", "store and load at both ends of each region, and behind them"),
    (ATTACK, "try every lock, judged by the host"),
    (JUDGED, "the same, judged from inside as well"),
    ("exec", "jump into the window"),
    ("dma", "have a DMA engine read and write the window"),
    (COUNT, "count to 5,000, for a scenario's events"),
    ("add", "count, and bring up what events have plugged in, beside what is in use"),
    ("half", "access a window of which half is covered"),
    ("bars", "move BARs, and see that no memory moves"),
    ("widths", "access registers with every width"),
    ("restore", "reset every bus, and put the same memory back from the hand-off record"),
    ("cost", "measure what an access costs"),
    ("bench", "measure what `cxl-harness bench` prints"),
    ("sweep", "measure a sweep of a region"),
    ("sse", "unlocked: an SSE load fails, works, fails as the memory goes and comes"),
    ("xsavec", "unlocked: the same with XSAVEC"),
    ("jump", "unlocked: the same with a jump"),
    ("recreate", "unlocked: take a region back and make it elsewhere, 1,000 times"),
    ("regrain", "unlocked: give a set another granularity"),
    ("program", "guest-programs: program and commit what the firmware left"),
];

/// The first name in a list that is none.
pub fn unknown(list: &str) -> Option<&str> {
    list.split(',').find(|name| !PAYLOADS.iter().any(|(known, _)| known == name))
}

/// Whether a list attacks the locks.
pub fn attacks(list: &str) -> bool {
    list.split(',').any(|name| matches!(name, ATTACK | JUDGED))
}

/// The payload that a command line of our image asks for; of several words the last one counts.
pub fn of_line(line: &str) -> &str {
    let own = line.split(" -- ").next().unwrap_or(line);
    let words = own.split_ascii_whitespace().rev();
    words.filter_map(|word| word.strip_prefix("payload=")).next().unwrap_or(NONE)
}

/// Whether all that a list asks for is about memory that is mapped before it begins: none of it maps any.
pub fn finds_memory(list: &str) -> bool {
    const BRING: [&str; 3] = ["program", "add", "restore"];
    checks(list) && !list.split(',').any(|name| BRING.contains(&name))
}

/// Whether a list asks for a payload that checks memory, and so has to check some.
pub fn checks(list: &str) -> bool {
    const APART: [&str; 7] = [NONE, ATTACK, JUDGED, COUNT, "cost", "bench", "sweep"];
    list.split(',').any(|name| !APART.contains(&name))
}
