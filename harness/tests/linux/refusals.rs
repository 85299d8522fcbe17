//! What Linux refuses to take from a firmware, in its own words, and that our linter has predicted
//! them. Where kernels differ, each has its own expectation.
//!
//! **Invariant**: each case is a machine on which our image reached its end and handed over, so the
//! refusal is Linux's.

use cxl_harness::linux::boot::Boot;
use cxl_harness::report::Verdict;
use cxl_lint::Kernel;

use crate::judge::CXL;
use crate::lint;

/// From this release on the granularity of a port's decoder with one way is not compared.
const ONE_WAY: Kernel = Kernel { major: 6, minor: 16, patch: 0 };
/// From this release on memory that firmware calls soft reserved comes online although CXL does not
/// claim it (drivers/dax/hmem/hmem.c: "CXL did not claim resource, registering"). So did 7.2.12 and
/// 7.3.4, and not yet 6.12.
const UNCLAIMED: Kernel = Kernel { major: 7, minor: 2, patch: 0 };

/// A machine that Linux refuses something on.
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    /// The built-in scenario.
    pub(crate) scenario: &'static str,
    /// Replaced in its text.
    pub(crate) change: Option<(&'static str, &'static str)>,
    /// Shell text that runs in the guest before the drivers load.
    pub(crate) before: &'static str,
    /// What has to be seen; what the command has to make of it.
    pub(crate) judge: fn(&Boot) -> Verdict,
}

pub(crate) const REFUSALS: [Refusal; 3] = [
    Refusal {
        name: "linux_finds_no_mapping_behind_a_pass_through_bridge",
        scenario: "pass-through",
        change: None,
        before: "",
        judge: |boot| {
            says(boot, "failed to find decoder mapping");
            lint::said(boot, &[]);
            not_through_cxl(boot);
            Verdict::Failed
        },
    },
    Refusal {
        name: "linux_gives_up_on_a_port_with_a_burned_decoder",
        scenario: "one-device",
        change: Some((
            "[[window]]",
            "[policy]\nburn_spares = true\ntarget = \"specification\"\n[[window]]",
        )),
        before: "",
        judge: |boot| {
            says(boot, "Committed with zero size");
            says(boot, "port1: Failed to initialize decoder1.1");
            lint::said(boot, &[]);
            not_through_cxl(boot);
            Verdict::Failed
        },
    },
    Refusal {
        // Mem_Enable is on: Linux takes the range registers for the device's only decoder then, at
        // a granularity of 4 KiB that the bridge's locked decoder does not have. So does 6.12.117, as
        // stable kernels from 6.18.21 on; before, decoders counted whatever the bit said.
        name: "linux_ignores_decoders_with_hdm_decoder_enable_left_off",
        scenario: "one-device",
        change: None,
        before: ENABLE_OFF,
        judge: |boot| {
            let enable = |when: &str| boot.facts.text(&format!("before/{when}"));
            assert_eq!(enable("was"), Some("0x00000002"), "the image leaves it on");
            assert_eq!(enable("enable"), Some("0x00000000"), "it is off");
            if lint::kernel(boot) < ONE_WAY {
                says(boot, "cxl_port_setup_targets expected iw: 1 ig: 4096");
                says(boot, "got iw: 1 ig: 256 state: enabled");
                lint::said(boot, &[0]);
                not_through_cxl(boot);
                Verdict::Failed
            } else {
                assert_eq!(lint::predicted(boot, &[0]).1, [""; 0]);
                through_a_range_register(boot);
                // Range 1 mirrors the planned decoder, so Linux has the planned region all the same.
                Verdict::Ok
            }
        },
    },
];

/// Clears HDM Decoder Enable in every memory device: the HDM structure is found in the component
/// block that starts BAR 0 on QEMU (CXL r3.1 sections 8.2.4 and 8.2.4.20.2).
const ENABLE_OFF: &str = r#"
for device in /sys/bus/pci/devices/*; do
    read -r class <"$device/class"
    [ "$class" = 0x050210 ] || continue
    read -r block rest <"$device/resource"
    block=$((block + 0x1000)) index=0
    count=$(($($B devmem $block 32) >> 24))
    while [ $index -lt $count ]; do
        index=$((index + 1))
        entry=$(($($B devmem $((block + 4 * index)) 32)))
        [ $((entry & 0xFFFF)) = 5 ] || continue
        enable=$((block + (entry >> 20) + 4))
        say before/was "$($B devmem $enable 32)"
        $B devmem $enable 32 0
        say before/enable "$($B devmem $enable 32)"
    done
done
"#;

fn says(boot: &Boot, words: &str) {
    let log = boot.facts.log();
    assert!(log.contains(words), "Linux does not say \"{words}\":\n{log}\n{}", boot.console);
}

/// The range of the only "soft reserved" line of the map that firmware gave, as `/proc/iomem` has it.
fn soft_reserved(boot: &Boot) -> String {
    let mut ranges = boot.facts.log().lines().filter_map(|line| {
        let (_, range) = line.strip_suffix("]  soft reserved")?.split_once("[mem ")?;
        let mut ends =
            range.split('-').map(|end| end.trim_start_matches("0x").trim_start_matches('0'));
        Some(format!("{}-{}", ends.next()?, ends.next()?))
    });
    let range = ranges.next().expect("the image calls its region soft reserved");
    assert_eq!(ranges.next(), None);
    range
}

/// The lines of `/proc/iomem` over the memory that came online, outermost first, without a window.
fn online(boot: &Boot) -> Vec<&str> {
    let map = boot.facts.text("/proc/iomem").expect("Linux has a memory map");
    let depth = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<_> = map.lines().collect();
    let mut last = lines.iter().enumerate().filter(|(_, line)| line.contains("System RAM (kmem)"));
    let Some((at, inmost)) = last.next() else { return Vec::new() };
    assert_eq!(last.next(), None, "{map}");
    let mut found = vec![*inmost];
    for line in lines[..at].iter().rev() {
        if depth(line) < depth(found.last().expect("it has the inmost")) {
            found.push(line);
        }
    }
    assert!(found.pop().is_some_and(|line| line.contains(" : CXL Window ")), "{map}");
    found.iter().rev().map(|line| line.trim()).collect()
}

/// No region is in use, and so no memory comes online but what Linux takes from the memory map.
fn not_through_cxl(boot: &Boot) {
    let facts = &boot.facts;
    for name in facts.devices("cxl") {
        assert!(!name.starts_with("dax_region"), "{name}: a region in use");
        assert_ne!(facts.number(&format!("{CXL}/{name}/commit")), Some(1), "{name} is in use");
    }
    let online = online(boot);
    if lint::kernel(boot) < UNCLAIMED {
        assert_eq!(facts.devices("dax").count(), 0);
        assert_eq!(online, [""; 0]);
        return;
    }
    let (Some(name), None) = (facts.devices("dax").next(), facts.devices("dax").nth(1)) else {
        panic!("DAX devices: {:?}", facts.devices("dax").collect::<Vec<_>>());
    };
    let range = soft_reserved(boot);
    let memory = [format!("{range} : {name}"), format!("{range} : System RAM (kmem)")];
    assert!(online.ends_with(&memory.each_ref().map(String::as_str)), "{online:?}, {memory:?}");
}

/// One range register became the device's only decoder, at the 4 KiB that Linux gives those, and its
/// memory came online.
fn through_a_range_register(boot: &Boot) {
    let number = |attribute: &str| boot.facts.number(&format!("{CXL}/{attribute}"));
    assert_eq!(number("decoder2.0/interleave_granularity"), Some(4096));
    assert!(!boot.facts.devices("cxl").any(|name| name == "decoder2.1"), "range 2 has no size");
    assert_eq!(number("region0/commit"), Some(1));
    assert!(boot.facts.devices("cxl").any(|name| name == "dax_region0"));
    let range = soft_reserved(boot);
    let memory = ["region0", "dax0.0", "System RAM (kmem)"].map(|name| format!("{range} : {name}"));
    assert_eq!(online(boot), memory);
}
