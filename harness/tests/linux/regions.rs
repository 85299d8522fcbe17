//! Machines that our image describes and does not program, on which an unmodified Linux makes the regions
//! itself, with the program that its distribution has for it.
//!
//! **Invariant**: what is expected of sysfs is typed by hand from the shape; decoders are held against
//! the image's own dump of registers, in which none has been touched.

use cxl_harness::linux::Task;
use cxl_harness::linux::boot::Boot;

use crate::judge::CXL;
use crate::tool::tool;

const MIB: u64 = 1 << 20;

/// A machine, and the regions that are asked for.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Bridges, ports and devices.
    machine: &'static str,
    /// Targets of the only window.
    targets: &'static str,
    /// Which memory devices make a region, and what else `cxl create-region` is told.
    create: &'static str,
    /// Size and ways of each region.
    regions: &'static [(u64, u64)],
    /// `ram` or `pmem`.
    mode: &'static str,
}

const ONE: &str = r#"
bridge = [{ uid = 16 }]
port = [{ below = "hb0" }]
device = [{ below = "port0", volatile = "512MiB" }]
"#;
const PASS_THROUGH: &str = r#"
bridge = [{ uid = 16, decoders = 0 }]
port = [{ below = "hb0" }]
device = [{ below = "port0", volatile = "256MiB" }]
"#;
const PERSISTENT: &str = r#"
bridge = [{ uid = 16 }]
port = [{ below = "hb0" }]
device = [{ below = "port0", persistent = "512MiB" }]
"#;
const TWO_PORTS: &str = r#"
bridge = [{ uid = 16 }]
port = [{ below = "hb0" }, { below = "hb0" }]
device = [{ below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" }]
"#;
const TWO_BRIDGES: &str = r#"
bridge = [{ uid = 16 }, { uid = 32 }]
port = [{ below = "hb0" }, { below = "hb1" }]
device = [{ below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" }]
"#;
const TWO_BY_TWO: &str = r#"
bridge = [{ uid = 16 }, { uid = 32 }]
port = [{ below = "hb0" }, { below = "hb0" }, { below = "hb1" }, { below = "hb1" }]
device = [
    { below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" },
    { below = "port2", volatile = "256MiB" }, { below = "port3", volatile = "256MiB" },
]
"#;
const SWITCH: &str = r#"
bridge = [{ uid = 16 }]
port = [{ name = "rp0", below = "hb0" }, { name = "dp0", below = "sw0" }, { name = "dp1", below = "sw0" }]
switch = [{ name = "sw0", below = "rp0" }]
device = [{ below = "dp0", volatile = "256MiB" }, { below = "dp1", volatile = "256MiB" }]
"#;

/// All of them; path 2 would refuse each but one, and for all that have more than one device.
pub(crate) fn shapes() -> Vec<Shape> {
    let shape = |name, machine, targets, create, regions| Shape {
        name,
        machine,
        targets,
        create,
        regions,
        mode: "ram",
    };
    vec![
        shape("linux_makes_a_region_itself", ONE, "\"hb0\"", "all -w 1", &[(512 * MIB, 1)]),
        shape(
            "linux_makes_a_region_behind_a_pass_through_bridge",
            PASS_THROUGH,
            "\"hb0\"",
            "all -w 1",
            &[(256 * MIB, 1)],
        ),
        shape(
            "linux_makes_a_set_over_ports",
            TWO_PORTS,
            "\"hb0\"",
            "all -w 2 -g 1024",
            &[(512 * MIB, 2)],
        ),
        shape(
            "linux_makes_a_region_of_each_device_of_a_bridge",
            TWO_PORTS,
            "\"hb0\"",
            "each -w 1",
            &[(256 * MIB, 1), (256 * MIB, 1)],
        ),
        shape(
            "linux_makes_a_set_over_bridges",
            TWO_BRIDGES,
            "\"hb0\", \"hb1\"",
            "all -w 2 -g 256",
            &[(512 * MIB, 2)],
        ),
        shape(
            "linux_makes_a_set_over_bridges_and_ports",
            TWO_BY_TWO,
            "\"hb0\", \"hb1\"",
            "all -w 4 -g 256",
            &[(1024 * MIB, 4)],
        ),
        shape(
            "linux_makes_a_set_below_a_switch",
            SWITCH,
            "\"hb0\"",
            "all -w 2 -g 512",
            &[(512 * MIB, 2)],
        ),
        Shape {
            mode: "pmem",
            ..shape(
                "linux_makes_a_persistent_region",
                PERSISTENT,
                "\"hb0\"",
                "all -w 1",
                &[(512 * MIB, 1)],
            )
        },
    ]
}

/// Makes the regions, and tells how that went: exit codes and words.
const SCRIPT: &str = r#"
cxl() { /task/loader --library-path /task /task/cxl "$@"; }
make() {
    cxl create-region -t MODE -d decoder0.0 "$@" >/made 2>&1
    say "made/$*" "$?"
    text /made
}
# Memory devices in the order of a set: bridges in turn, and on the next round their next ports.
order() {
    for mem in /sys/bus/cxl/devices/mem*; do
        path=$($B readlink -f "$mem")
        bus=${path#*/pci0000:} && bus=${bus%%/*}
        port=${path#*/0000:"$bus":} && port=${port%%/*}
        echo "$port $bus $path ${mem##*/}"
    done | $B sort | $B sed 's/.* //'
}
each() { for mem in $(order); do make "$@" -m "$mem"; done; }
all() { make "$@" -m $(order); }
"#;

impl Shape {
    fn text(&self) -> String {
        let Self { machine, targets, .. } = self;
        format!(
            "{machine}\n[[window]]\ntargets = [{targets}]\nsize = \"2GiB\"\n\
             [policy]\npath = \"describe\"\nconfig_lock = false\n"
        )
    }

    /// Boots it, and holds what Linux made against the shape.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let files = tool()?;
        let script = SCRIPT.replace("MODE", self.mode);
        let script = format!("{script}{}\n", self.create);
        let task = Task { script: &script, files: &files };
        let boot = crate::boot_to(self.name, &self.text(), "", task)?;
        self.untouched(&boot);
        self.made(&boot);
        Ok(())
    }

    /// When the image handed over no decoder had been written to, and the table was its own.
    fn untouched(&self, boot: &Boot) {
        assert!(boot.console.contains("cxl firmware at ring 0"), "{}", boot.console);
        let printed = &boot.said.hdm;
        assert!(!printed.is_empty());
        for registers in printed {
            let bytes = &registers.section.bytes;
            assert!(bytes.len() > 0x30, "{registers:?}");
            // Decoders follow Capability, Global Control and two reserved dwords.
            assert!(bytes[0x10..].iter().all(|byte| *byte == 0), "{registers:?}");
        }
        let own = boot.said.cedt.as_ref().map(|section| section.bytes.as_slice());
        assert_eq!(boot.facts.bytes(crate::judge::CEDT), own, "the table is the image's");
    }

    fn made(&self, boot: &Boot) {
        let facts = &boot.facts;
        let said = facts.text("/made").unwrap_or_default();
        let log = facts.log();
        let number = |name: &str, attribute: &str| {
            let path = format!("{CXL}/{name}/{attribute}");
            facts.number(&path).unwrap_or_else(|| panic!("no {path}: {said}\n{log}"))
        };
        let mut regions: Vec<_> =
            facts.devices("cxl").filter(|name| name.starts_with("region")).collect();
        regions.sort_unstable();
        assert_eq!(regions.len(), self.regions.len(), "{said}\n{log}");
        let window = number("decoder0.0", "start")..;
        for (region, (size, ways)) in regions.iter().zip(self.regions) {
            assert_eq!(number(region, "size"), *size, "{said}");
            assert_eq!(number(region, "interleave_ways"), *ways, "{said}");
            assert_eq!(number(region, "commit"), 1, "{said}\n{log}");
            assert!(window.contains(&number(region, "resource")));
            let driver = facts.link(&format!("{CXL}/{region}/driver"));
            assert!(driver.is_some_and(|driver| driver.ends_with("/cxl_region")), "{log}");
        }
        // A way of each region is one decoder of a device, and none of them is locked.
        let decoders = facts.devices("cxl").filter(|name| {
            let devtype = facts.text(&format!("{CXL}/{name}/devtype"));
            devtype == Some("cxl_decoder_endpoint") && number(name, "size") > 0
        });
        let decoders: Vec<_> = decoders.collect();
        assert_eq!(decoders.len() as u64, self.regions.iter().map(|(_, ways)| ways).sum::<u64>());
        assert!(decoders.iter().all(|name| number(name, "locked") == 0));
        if self.mode == "pmem" {
            return;
        }
        // All of it is online, and a program that was copied there is what it was.
        let online: Vec<_> = facts.devices("dax").collect();
        assert_eq!(online.len(), self.regions.len(), "{log}");
        for dax in online {
            assert!(facts.link(&format!("/sys/bus/dax/devices/{dax}/driver")).is_some(), "{log}");
            assert_eq!(facts.text(&format!("run/{dax}/copy")), Some("same"), "{dax}");
        }
    }
}
