//! Machines that are not built in: each refusal by name, topologies of all shapes, and faults at
//! every step of a run.
//!
//! **Invariant**: after a refusal before the commit no register of a decoder differs; after a later
//! one each decoder is as it was found, or named as done or stranded, and no table is published for
//! a path that is not whole.

use std::fmt::Write as _;

use cxl_harness::attack;
use cxl_harness::report::{PlanReport, Report, Verdict};
use cxl_harness::run;
use cxl_model::fabric::Fabric;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use cxl_regs::hdm::DecoderImage;

fn machine(text: &str) -> Machine {
    let scenario = Scenario::parse(text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"));
    Machine::new(&scenario)
}

fn bridge(name: &str, uid: u32, more: &str) -> String {
    format!("[[bridge]]\nname = \"{name}\"\nuid = {uid}\n{more}\n")
}

fn below(what: &str, name: &str, above: &str, more: &str) -> String {
    format!("[[{what}]]\nname = \"{name}\"\nbelow = \"{above}\"\n{more}\n")
}

fn window(targets: &str, size: &str, more: &str) -> String {
    format!("[[window]]\ntargets = [{targets}]\nsize = \"{size}\"\n{more}\n")
}

/// One bridge, one port, one device of 256 MiB; no window.
fn small() -> String {
    bridge("hb0", 16, "")
        + &below("port", "rp0", "hb0", "")
        + &below("device", "mem0", "rp0", "volatile = \"256MiB\"")
}

/// `ports` devices of 256 MiB, each below a port of its own.
fn devices(above: &str, ports: usize) -> String {
    (0..ports).fold(String::new(), |text, port| {
        text + &below("port", &format!("p{port}"), above, "")
            + &below("device", &format!("m{port}"), &format!("p{port}"), "volatile = \"256MiB\"")
    })
}

const GUEST: &str = "[policy]\npath = \"guest-programs\"\n";

/// What is refused, the number, and what the message has to say.
fn refused() -> Vec<(&'static str, String, u16, &'static str)> {
    let gib = |more: &str| window("\"hb0\"", "1GiB", more);
    let bits = |bits: u32| format!("[platform]\nphysical_bits = {bits}\n");
    let pass_through = || bridge("hb0", 16, "decoders = 0");
    let in_window = |base: &str| small() + &gib(&format!("base = \"{base}\""));
    vec![
        ("no window", small(), 0x0301, "no window targets bridge 16, so its 256 MiB"),
        ("nobody", small() + &gib("") + &window("99", "1GiB", ""), 0x0302, "its target 99"),
        ("two fit", small() + &gib("") + &gib(""), 0x0303, "2 windows fit"),
        (
            "interleaved",
            small() + &bridge("hb1", 32, "") + &window("\"hb0\", \"hb1\"", "1GiB", ""),
            0x0304,
            "interleaves 2 bridges",
        ),
        (
            "unplaced",
            bits(36) + &small() + &window("16", "64GiB", ""),
            0x0305,
            "of 64 GiB has no base",
        ),
        ("base 0", in_window("0"), 0x0305, "has no base"),
        (
            "beyond",
            bits(39) + &in_window("0x8000000000"),
            0x0306,
            "ends beyond the physical address width of 39 bits",
        ),
        ("straddles", bits(39) + &in_window("0x7fe0000000"), 0x0306, "0x7fe0000000 of 1 GiB"),
        ("equal", in_window("0x1000000000") + &gib("base = \"0x1000000000\""), 0x0307, "overlap"),
        ("overlap", in_window("0x1000000000") + &gib("base = \"0x1010000000\""), 0x0307, "overlap"),
        ("on RAM", in_window("0x10000000"), 0x0330, "reaches over 0x100000-0x3fffffff"),
        ("on registers", in_window("0xe0000000"), 0x0330, "reaches over 0xe0100000-0xe010ffff"),
        (
            "too small",
            bridge("hb0", 16, "")
                + &below("port", "rp0", "hb0", "")
                + &below("device", "mem0", "rp0", "volatile = \"1280MiB\"")
                + &gib(""),
            0x0308,
            "has 1 GiB, 1280 MiB are needed",
        ),
        (
            "full",
            bridge("hb0", 16, "decoders = 8") + &devices("hb0", 5) + &gib(""),
            0x0309,
            "has 0 B left in one piece, 256 MiB are needed",
        ),
        (
            "media",
            small() + &gib("restrictions = [\"host-only\", \"persistent\"]"),
            0x030A,
            "does not allow volatile memory",
        ),
        (
            "coherency",
            small().replace("volatile =", "kind = \"type2\"\nvolatile =")
                + &gib("restrictions = [\"host-only\", \"volatile\"]"),
            0x030B,
            "does not allow device-coherent (HDM-D) memory",
        ),
        (
            "decoders",
            bridge("hb0", 16, "decoders = 20") + &devices("hb0", 21) + &window("16", "8GiB", ""),
            0x030C,
            "all 20 usable decoders of bridge 16 are taken",
        ),
        (
            "no decoders",
            pass_through() + &devices("hb0", 2) + &gib(""),
            0x030D,
            "no host bridge with a single port",
        ),
        (
            "order",
            bridge("hb0", 16, "")
                + &below("port", "rp0", "hb0", "")
                + &below("device", "mem0", "rp0", "volatile = \"256MiB\"\npersistent = \"256MiB\"")
                + &gib("restrictions = [\"host-only\", \"persistent\"]")
                + &gib("restrictions = [\"host-only\", \"volatile\"]"),
            0x030E,
            "below its volatile memory",
        ),
        (
            "place",
            small() + &gib("") + "[[region]]\ndevice = \"mem0\"\noffset = \"1GiB\"\n",
            0x0315,
            "at offset 0x40000000 of window",
        ),
        (
            "grid",
            small() + &gib("") + "[[region]]\ndevice = \"mem0\"\noffset = \"128MiB\"\n",
            0x0314,
            "offset 0x8000000 is not a multiple of 256 MiB",
        ),
        (
            "ports",
            pass_through() + &devices("hb0", 2) + &gib("") + GUEST,
            0x0316,
            "bridge 16 has 2 ports",
        ),
        (
            "switch",
            pass_through()
                + &below("port", "rp0", "hb0", "")
                + &below("switch", "sw0", "rp0", "")
                + &devices("sw0", 1)
                + &gib("")
                + GUEST,
            0x0317,
            "is behind a switch",
        ),
        ("not pass-through", small() + &gib("") + GUEST, 0x0318, "bridge 16 has 4 decoders"),
        (
            "no bus",
            small().replace("uid = 16", "uid = 300\nbus = 16\nbus_known = false") + &gib(""),
            0x0204,
            "bridge 300: its root bus was not given",
        ),
    ]
}

#[test]
fn each_refusal_comes_by_name_before_any_write_to_a_decoder() {
    for (label, text, code, says) in refused() {
        let mut machine = machine(&text);
        let before = machine.fabric();
        let done = run::direct(&mut machine);
        let refusal = done.refusal.as_ref().unwrap_or_else(|| panic!("{label}: not refused"));
        assert_eq!(refusal.code(), code, "{label}: {refusal}");
        assert!(refusal.to_string().contains(says), "{label}: {refusal}");
        assert!(done.cedt.is_empty(), "{label}: a table was published");
        assert_eq!(machine.fabric(), before, "{label}");
        let writes = machine.traffic().decoders.values().map(|count| count.all().writes);
        assert_eq!(writes.sum::<u64>(), 0, "{label}");
    }
}

/// Two levels of switches with two devices below each leaf.
fn two_deep() -> String {
    bridge("hb0", 16, "")
        + &below("port", "rp0", "hb0", "number = 200")
        + &below("switch", "top", "rp0", "")
        + &below("port", "d0", "top", "number = 9")
        + &below("port", "d1", "top", "number = 3")
        + &below("switch", "left", "d0", "")
        + &below("switch", "right", "d1", "")
        + &["left", "right"].iter().fold(String::new(), |text, above| {
            let port = |n: u32| {
                below("port", &format!("{above}{n}"), above, "")
                    + &below("device", &format!("m{above}{n}"), &format!("{above}{n}"), DEVICE)
            };
            text + &port(0) + &port(1)
        })
        + &window("\"hb0\"", "4GiB", "")
}

const DEVICE: &str = "volatile = \"256MiB\"";

fn shapes() -> Vec<(&'static str, String, usize)> {
    let back_invalidate = bridge("hb0", 16, "back_invalidate = true")
        + &below("port", "rp0", "hb0", "")
        + &below("switch", "sw0", "rp0", "")
        + &below("port", "d0", "sw0", "")
        + &below(
            "device",
            "acc0",
            "d0",
            "kind = \"type2\"\ncoherency = \"back-invalidate\"\nvolatile = \"256MiB\"",
        )
        + &window(
            "16",
            "1GiB",
            "restrictions = [\"device-coherent\", \"back-invalidate\", \"volatile\"]",
        );
    let segments = bridge("hb0", 16, "")
        + &bridge("hb1", 300, "bus = 16\nsegment = 1")
        + &["0", "1"].iter().fold(String::new(), |text, n| {
            text + &below("port", &format!("rp{n}"), &format!("hb{n}"), "")
                + &below("device", &format!("mem{n}"), &format!("rp{n}"), "volatile = \"768MiB\"")
                + &window(&format!("\"hb{n}\""), "1GiB", "")
        });
    let accelerator = small()
        .replace("volatile =", "kind = \"type2\"\npersistent = \"512MiB\"\nvolatile =")
        + &window("16", "1GiB", "");
    let mut shapes = vec![
        ("two switches deep", two_deep(), 16),
        ("an accelerator with persistent memory", accelerator, 4),
        ("back-invalidate through a switch", back_invalidate, 3),
        ("two segments", segments, 4),
        ("nothing assigned", format!("[platform]\nassigned = false\n{}", two_deep()), 16),
        (
            "at the end of the address space",
            "[platform]\nphysical_bits = 39\n".to_owned()
                + &small()
                + &window("16", "1GiB", "base = \"0x7fc0000000\""),
            2,
        ),
    ];
    for (label, count) in
        [("20 decoders", 20), ("24 decoders", 24), ("28 decoders", 28), ("32 decoders", 32)]
    {
        let text = bridge("hb0", 16, &format!("decoders = {count}"))
            + &devices("hb0", count)
            + &window("16", "8GiB", "");
        shapes.push((label, text, 2 * count));
    }
    shapes
}

#[test]
fn machines_of_all_shapes_come_up_locked_and_hold() {
    for (label, text, decoders) in shapes() {
        let mut machine = machine(&text);
        let done = run::direct(&mut machine);
        let facts = Report::of_direct(&machine, &done).facts;
        assert_eq!(facts.failures(), [""; 0], "{label}");
        assert_eq!(facts.result, Verdict::Ok, "{label}: {:?}", done.refusal);
        let locked = facts.decoders.iter().filter(|d| d.text.image.control().locked()).count();
        assert_eq!(locked, decoders, "{label}");
        // The large ones say nothing more about locks, and take their time.
        if decoders <= 16 {
            let report = attack::direct(&mut machine, &done);
            assert_eq!(report.changed, 0, "{label}: {report}");
            assert!(report.integrity.holds && report.integrity.ranges > 0, "{label}");
        }
    }
}

#[test]
fn a_plan_reads_the_same_in_whatever_order_its_machine_is_listed() {
    let in_window = |name: &str, base: &str, allows: &str| {
        let rest = format!("name = \"{name}\"\nbase = \"{base}\"\nrestrictions = [{allows}]");
        window("\"hb0\"", "1GiB", &rest)
    };
    // No address of the first leads to memory for sure: it has no whole share for each target.
    let mut parts = [
        window("\"hb0\", \"hb1\"", "256MiB", "name = \"scrap\"\nbase = \"0x100000000\""),
        in_window("fast", "0x140000000", "\"host-only\", \"volatile\""),
        in_window("kept", "0x180000000", "\"host-only\", \"persistent\""),
        bridge("hb0", 16, ""),
        bridge("hb1", 32, ""),
        below("port", "rp0", "hb0", "number = 4") + &below("port", "rp1", "hb0", "number = 2"),
        below("device", "mem0", "rp0", "volatile = \"256MiB\"\npersistent = \"256MiB\"")
            + &below("device", "mem1", "rp1", "volatile = \"256MiB\""),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..parts.len() {
        parts.rotate_left(1);
        for _ in 0..2 {
            parts.swap(0, 1);
            let mut machine = machine(&parts.concat());
            let done = run::dry(&mut machine);
            assert_eq!(done.refusal, None);
            seen.insert(PlanReport::of(&machine, &done).to_string());
        }
    }
    let text = seen.pop_first().expect("a plan");
    assert!(seen.is_empty(), "{text}\n{seen:#?}");
    for line in [
        "note              window 0x100000000: has 256 MiB, and no 256 MiB for each of 2 ways: nothing",
        "window          fast, because scrap interleaves 2 bridges, a flat one is needed; kept admits",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn long_names_do_not_run_into_what_is_said_of_them() {
    let name = "expander-behind-the-last-port";
    let text = small().replace("mem0", name) + &window("16", "1GiB", "");
    let mut machine = machine(&text);
    let done = run::direct(&mut machine);
    let report = Report::of_direct(&machine, &done).to_string();
    for said in ["memory expander (Type 3)", "decoder 0 0x0000000100000000  256 MiB, to DPA"] {
        assert!(report.contains(&format!("{name} {said}")), "{report}");
    }
    assert!(report.lines().all(|line| line.chars().count() <= 100), "{report}");
    let attack = attack::direct(&mut machine, &done).to_string();
    assert!(attack.contains(&format!("{name} HDM Decoder Global Control: ")), "{attack}");
}

#[test]
fn a_lock_that_is_lost_is_named_with_component_decoder_and_register() {
    let text = small() + &window("16", "1GiB", "");
    for (at, place) in [("mem0", "bridge 16 port 0 device"), ("hb0", "bridge 16")] {
        let run = |after: u32| {
            let fault =
                format!("[[fault]]\nat = \"{at}\"\nkind = \"lock-lost\"\nafter = {after}\n");
            let mut machine = machine(&(text.clone() + &fault));
            let done = run::direct(&mut machine);
            let facts = Report::of_direct(&machine, &done).facts;
            assert!(done.cedt.is_empty() || done.refusal.is_none(), "{at}");
            let fates = facts.decoders.iter().map(|decoder| {
                let fate = decoder.fate.map(|fate| fate.to_string()).unwrap_or_default();
                format!("{} {fate}", decoder.component)
            });
            let findings = done.room.findings.list().iter().map(ToString::to_string);
            let (fates, findings): (Vec<_>, Vec<_>) = (fates.collect(), findings.collect());
            (done.refusal.map_or(String::new(), |refusal| refusal.to_string()), fates, findings)
        };
        // The one look of the commit finds it gone: the decoder goes back, as it can.
        let (refusal, fates, _) = run(0);
        let control = "control reads 0x00001600 instead of 0x00001700";
        assert_eq!(refusal, format!("commit: {place}, decoder 0: committed, but {control}"));
        let other = if at == "mem0" { "hb0 rolled back" } else { "mem0 stranded" };
        assert!(fates.contains(&format!("{at} rolled back")), "{fates:?}");
        assert!(fates.contains(&other.to_owned()), "{fates:?}");
        // The verifier's look, when the commit was content: by then the other one is locked too.
        let (refusal, fates, findings) = run(1);
        let control = "HDM Decoder Control is 0x00001600";
        let expected = format!("{place}, decoder 0: not locked, {control} (UnlockedOnPath)");
        assert_eq!(refusal, format!("verify: {expected}"));
        let differs = format!("{place}, decoder 0: {control}, planned 0x00001700");
        assert_eq!(findings, [expected, differs]);
        let other = if at == "mem0" { "hb0 stranded" } else { "mem0 stranded" };
        assert!(fates.contains(&format!("{at} rolled back")), "{fates:?}");
        assert!(fates.contains(&other.to_owned()), "{fates:?}");
        // The look before the table is published.
        let was = "HDM Decoder Control was 0x00001700 when the table was made, is 0x00001600";
        assert_eq!(run(2).0, format!("tables: {place}, decoder 0: {was}"));
        // Later than anybody looks.
        assert_eq!(run(3).0, "", "{at}");
    }
}

/// Bridge, switch and device with two regions: six decoders.
fn path() -> String {
    bridge("hb0", 16, "")
        + &below("port", "rp0", "hb0", "")
        + &below("switch", "sw0", "rp0", "")
        + &below("port", "d0", "sw0", "")
        + &below("device", "mem0", "d0", "volatile = \"256MiB\"\npersistent = \"256MiB\"")
        + &window("\"hb0\"", "1GiB", "")
}

/// The decoders of a component by name.
fn decoders(fabric: &Fabric, component: &str) -> Vec<DecoderImage> {
    let hdm = match component {
        "hb0" => fabric.bridges[0].hdm.as_ref(),
        "sw0" => fabric.switches[0].hdm.as_ref(),
        _ => fabric.devices[0].hdm.as_ref(),
    };
    hdm.map_or_else(Vec::new, |hdm| hdm.decoders.clone())
}

/// Runs [`path`] with a fault, and checks all that has to hold whatever it is. `silent` is a
/// component that takes no writes any more. The refusal's number and words, 0 if there is none.
fn faulty(fault: &str, silent: Option<&str>) -> (u16, String) {
    let mut machine = machine(&(path() + fault));
    let before = machine.fabric();
    let done = run::direct(&mut machine);
    let all = machine.traffic().all;
    assert!(all.reads + all.writes < 20_000, "{fault}: {all:?}");
    let after = machine.fabric();
    let facts = Report::of_direct(&machine, &done).facts;
    let Some(refusal) = &done.refusal else {
        return (0, String::new());
    };
    assert!(done.cedt.is_empty(), "{fault}: a table of half a machine");
    for component in ["hb0", "sw0", "mem0"] {
        let both = decoders(&before, component).into_iter().zip(decoders(&after, component));
        for (index, (before, after)) in both.enumerate() {
            let mut entries = facts.decoders.iter();
            let entry = entries
                .find(|d| (d.component.as_str(), usize::from(d.text.index)) == (component, index));
            let fate = entry.and_then(|entry| entry.fate).map(|fate| fate.to_string());
            let named = matches!(fate.as_deref(), Some("done" | "stranded"));
            // What no report names is as it was found. What does not answer cannot be put back.
            // After the commit the verifier may refuse, and then lists what it could read.
            assert!(
                after == before
                    || named
                    || silent == Some(component)
                    || refusal.phase() == "verify",
                "{fault}: {component} decoder {index} is {after:?}, {fate:?}; {refusal}"
            );
            let committed = after.control().committed();
            assert!(!committed || after.control().locked(), "{fault}: {component} {index}");
        }
    }
    (refusal.code(), refusal.to_string())
}

#[test]
fn hardware_that_falls_silent_at_any_access_is_named_and_the_rest_put_back() {
    for at in ["mem0", "sw0", "hb0", "rp0", "d0"] {
        let mut refused = 0;
        for after in 0..200 {
            let fault =
                format!("[[fault]]\nat = \"{at}\"\nkind = \"all-ones-after\"\nafter = {after}\n");
            let (code, message) = faulty(&fault, Some(at));
            refused += u32::from(code != 0);
            // Place, and a value or what is wrong with it.
            assert!(code == 0 || message.contains("bridge 16"), "{fault}: {message}");
        }
        assert!(refused > 10, "{at}: {refused}");
    }
}

#[test]
fn lost_writes_stuck_bits_and_failing_commits_are_named_and_undone() {
    let registers =
        ["base_low", "base_high", "size_low", "size_high", "control", "route_low", "route_high"];
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for at in ["mem0", "sw0", "hb0"] {
        for decoder in 0..2 {
            let mut faults = Vec::new();
            for register in registers {
                let base = format!("decoder = {decoder}\nregister = \"{register}\"\n");
                for after in 0..3 {
                    faults.push(format!("kind = \"dropped-write\"\n{base}after = {after}\n"));
                }
                faults.push(format!("kind = \"stuck-bit\"\n{base}bits = \"0xffffffff\"\n"));
            }
            for bit in [8, 9, 10, 12] {
                faults.push(format!(
                    "kind = \"stuck-bit\"\ndecoder = {decoder}\nregister = \"control\"\n\
                     bits = {}\n",
                    1 << bit
                ));
            }
            for kind in ["commit-never", "commit-error"] {
                faults.push(format!("kind = \"{kind}\"\ndecoder = {decoder}\n"));
            }
            for polls in [50, 4_000_000] {
                faults.push(format!(
                    "kind = \"commit-polls\"\ndecoder = {decoder}\nafter = {polls}\n"
                ));
            }
            for rest in faults {
                let mut fault = String::new();
                let _ = write!(fault, "[[fault]]\nat = \"{at}\"\n{rest}");
                let (code, message) = faulty(&fault, None);
                *seen.entry(code).or_default() += 1;
                let place = format!("decoder {decoder}");
                assert!(code == 0 || message.contains(&place), "{fault}: {message}");
            }
        }
    }
    // Not kept before the commit, refused, timed out; and what did no harm, such as a lost write
    // of a 0.
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 0x040A, 0x040F, 0x0410], "{seen:?}");
}

#[test]
fn a_lost_write_of_commit_says_so() {
    let fault = "[[fault]]\nat = \"mem0\"\nkind = \"dropped-write\"\ndecoder = 0\n\
                 register = \"control\"\nafter = 1\n";
    let (code, message) = faulty(fault, None);
    assert_eq!(code, 0x0410);
    assert!(message.ends_with("Commit reads 0, the write was lost"), "{message}");
}
