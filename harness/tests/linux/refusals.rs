//! What Linux refuses to take from a firmware, in its own words, and that our linter has predicted
//! them.
//!
//! **Invariant**: each case is a machine on which our image reached its end and handed over, so the
//! refusal is Linux's.

use cxl_harness::linux::Facts;

use crate::lint;
use cxl_harness::linux::boot::Boot;

/// A machine that Linux refuses something on.
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    /// The built-in scenario.
    pub(crate) scenario: &'static str,
    /// Replaced in its text.
    pub(crate) change: Option<(&'static str, &'static str)>,
    /// Shell text that runs in the guest before the drivers load.
    pub(crate) before: &'static str,
    /// What has to be seen.
    pub(crate) judge: fn(&Boot),
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
            nothing_online(&boot.facts);
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
            nothing_online(&boot.facts);
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
            says(boot, "cxl_port_setup_targets expected iw: 1 ig: 4096");
            says(boot, "got iw: 1 ig: 256 state: enabled");
            lint::said(boot, &[0]);
            nothing_online(&boot.facts);
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

/// No region is in use and no memory came online.
fn nothing_online(facts: &Facts) {
    assert_eq!(facts.devices("dax").count(), 0);
    let map = facts.text("/proc/iomem").unwrap_or_default();
    assert!(!map.contains("System RAM (kmem)"), "{map}");
}
