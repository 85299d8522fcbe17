//! The plan held against what a Linux has, where what it has is typed here: a boot that is as planned,
//! then one thing otherwise at a time, and the gap that this has to be. No QEMU or kernel is needed.
//!
//! **Invariant**: each case changes facts of a boot that is `ok`, and gets the gaps it names and no
//! others.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write;

use cxl_harness::console::{Collected, Section};
use cxl_harness::linux::Facts;
use cxl_harness::linux::planned::Planned;
use cxl_harness::linux::verdict::{Evidence, Verdict};
use cxl_harness::report;
use cxl_harness::run;
use cxl_image::doorbell::Status;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;

/// Two flat regions that their requests place, and a 2-way one whose window has a width of its own.
const MACHINE: &str = r#"
bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
port = [
    { name = "rp0", below = "hb0" }, { name = "rp1", below = "hb1", number = 3 },
    { name = "rp2", below = "hb0", number = 1 }, { name = "rp3", below = "hb1", number = 4 },
]
device = [
    { name = "mem0", below = "rp0", volatile = "512MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB" },
    { name = "mem2", below = "rp2", volatile = "256MiB" },
    { name = "mem3", below = "rp3", volatile = "256MiB" },
]
window = [
    { name = "w0", targets = ["hb0"], base = "0x1a0000000", size = "1GiB" },
    { name = "w1", targets = ["hb1"], base = "0x1e0000000", size = "1GiB" },
    { name = "both", targets = ["hb0", "hb1"], base = "0x220000000", granularity = "4KiB",
      size = "512MiB", interleave = "widest" },
]
region = [
    { device = "mem0", window = "w0", offset = "256MiB" },
    { device = "mem1", window = "w1" },
]
"#;

/// One region of persistent memory.
const PERSISTENT: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "mem0", below = "rp0", persistent = "512MiB" }]
window = [{ name = "w0", targets = ["hb0"], base = "0x170000000", size = "1GiB" }]
"#;

/// What a test changes.
struct Boot {
    scenario: Scenario,
    said: Collected,
    facts: String,
    end: Option<String>,
}

impl Boot {
    /// The image did what the library does, and Linux has the facts and its CEDT.
    fn new(machine: &str, facts: &str) -> Self {
        let scenario = Scenario::parse(machine, "machine").unwrap_or_else(|e| panic!("{e}"));
        let done = run::direct(&mut Machine::new(&scenario));
        assert_eq!(done.refusal, None);
        let mut facts = facts.to_owned();
        let hex: String = done.cedt.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(facts, "/sys/firmware/acpi/tables/CEDT:{hex}").unwrap();
        let section = |bytes| Some(Section { address: 0x20_0000, bytes });
        let (handoff, cedt) = (section(done.handoff), section(done.cedt));
        let said = Collected { handoff, cedt, ..Collected::default() };
        Self { scenario, said, facts, end: None }
    }

    fn verdict(&self) -> Verdict {
        let facts = format!("{}end=reached\n", self.facts);
        Verdict::of(&Evidence {
            scenario: &self.scenario,
            planned: &Planned::of(&self.scenario).unwrap(),
            said: &self.said,
            facts: &Facts::parse(facts.as_bytes()).unwrap(),
            end: self.end.clone(),
            qemu: Some("10.0"),
            notes: &[],
        })
    }

    /// Replaces what has to be there, everywhere.
    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.facts.contains(from), "no {from:?}");
        self.facts = self.facts.replace(from, to);
    }

    /// Drops every line that holds this.
    fn drop(&mut self, part: &str) {
        assert!(self.facts.contains(part), "no {part:?}");
        let kept = self.facts.lines().filter(|line| !line.contains(part));
        self.facts = kept.map(|line| format!("{line}\n")).collect();
    }
}

const CXL: &str = "/sys/bus/cxl/devices";

/// A configuration space with a PCI Express capability of this type and port number.
fn config(facts: &mut String, function: &str, kind: u8, port: u8) {
    let mut bytes = [0; 0x50];
    bytes[0x34] = 0x40;
    (bytes[0x40], bytes[0x42], bytes[0x4F]) = (0x10, kind << 4 | 2, port);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(facts, "/sys/bus/pci/devices/{function}/config:{hex}").unwrap();
}

/// A device below a root port: its memory device and its endpoint, number and bus.
fn device(facts: &mut String, root: &str, slot: u8, port: u8, bus: &str, memory: &str, end: &str) {
    let (upper, lower) = (format!("0000:{root}:0{slot}.0"), format!("0000:{bus}:00.0"));
    config(facts, &upper, 4, port);
    config(facts, &lower, 0, 0);
    let path = format!("/sys/devices/pci0000:{root}/{upper}/{lower}/{memory}");
    writeln!(facts, "{CXL}/{memory}>{path}\n{CXL}/{end}>/sys/devices/root0/{end}").unwrap();
    writeln!(facts, "{CXL}/{end}/uport>{path}").unwrap();
}

fn bridge(facts: &mut String, name: &str, root: &str) {
    writeln!(facts, "{CXL}/{name}>/sys/devices/root0/{name}").unwrap();
    writeln!(facts, "{CXL}/{name}/uport>/sys/devices/pci0000:{root}").unwrap();
}

/// A decoder: `rest` are its other attributes.
fn decoder(facts: &mut String, name: &str, kind: &str, base: u64, mib: u64, rest: &[&str]) {
    writeln!(facts, "{CXL}/{name}>/sys/devices/{name}").unwrap();
    writeln!(facts, "{CXL}/{name}/devtype=cxl_decoder_{kind}").unwrap();
    writeln!(facts, "{CXL}/{name}/start={base:#x}\n{CXL}/{name}/size={:#x}", mib << 20).unwrap();
    writeln!(facts, "{CXL}/{name}/locked=1").unwrap();
    for rest in rest {
        writeln!(facts, "{CXL}/{name}/{rest}").unwrap();
    }
}

/// A region and its targets.
fn region(facts: &mut String, name: &str, mode: &str, base: u64, mib: u64, rest: &[&str]) {
    writeln!(facts, "{CXL}/{name}>/sys/devices/root0/{name}").unwrap();
    writeln!(facts, "{CXL}/{name}/devtype=cxl_region\n{CXL}/{name}/commit=1").unwrap();
    writeln!(facts, "{CXL}/{name}/resource={base:#x}\n{CXL}/{name}/size={:#x}", mib << 20).unwrap();
    writeln!(facts, "{CXL}/{name}/mode={mode}").unwrap();
    for rest in rest {
        writeln!(facts, "{CXL}/{name}/{rest}").unwrap();
    }
}

/// A region's memory, online in a node.
fn memory(facts: &mut String, index: u8, base: u64, mib: u64) {
    const BLOCK: u64 = 128 << 20;
    let (size, node) = (mib << 20, index + 1);
    let dax = format!("/sys/bus/dax/devices/dax{index}.0");
    let path = format!("/sys/devices/root0/region{index}/dax_region{index}/dax{index}.0");
    writeln!(facts, "{dax}>{path}\n{dax}/driver>/sys/bus/dax/drivers/kmem").unwrap();
    writeln!(facts, "{dax}/resource={base:#x}\n{dax}/size={size}\n{dax}/target_node={node}")
        .unwrap();
    writeln!(facts, "run/dax{index}.0/copy=same").unwrap();
    for block in base / BLOCK..(base + size) / BLOCK {
        let of = format!("/sys/devices/system/memory/memory{block}");
        let at = format!("/sys/devices/system/node/node{node}/memory{block}");
        writeln!(facts, "{of}/state=online\n{at}>{of}").unwrap();
    }
    let total = size >> 10;
    writeln!(
        facts,
        "/sys/devices/system/node/node{node}/meminfo=\
         Node {node} MemTotal:  {total} kB|Node {node} MemFree: 1 kB"
    )
    .unwrap();
}

fn common(facts: &mut String) {
    facts.push_str("/proc/version=Linux version 6.12.95+deb12-cloud-amd64 (who) #1\n");
    facts.push_str("/sys/devices/system/memory/block_size_bytes=8000000\n");
    facts.push_str("/log=[    0.1] Linux version 6.12|[    2.0] cxl_mem mem1: hello\n");
    facts.push_str("/warnings=<4>[    1.0] ACPI: a warning\n");
}

const ONE: [&str; 2] = ["interleave_ways=1", "interleave_granularity=256"];
const TWO: [&str; 2] = ["interleave_ways=2", "interleave_granularity=4096"];

fn as_planned() -> Boot {
    let mut text = String::new();
    let facts = &mut text;
    common(facts);
    // QEMU's root buses are the UIDs in hexadecimal.
    bridge(facts, "port1", "10");
    bridge(facts, "port2", "20");
    device(facts, "10", 0, 0, "11", "mem0", "endpoint3");
    device(facts, "20", 0, 3, "21", "mem1", "endpoint4");
    device(facts, "10", 1, 1, "12", "mem2", "endpoint5");
    device(facts, "20", 1, 4, "22", "mem3", "endpoint6");
    let [way, at] = ONE;
    let mut switch = |name, base, mib, ports| {
        decoder(facts, name, "switch", base, mib, &[way, at, ports]);
    };
    switch("decoder1.0", 0x1_b000_0000, 512, "target_list=0");
    switch("decoder1.1", 0x2_2000_0000, 512, "target_list=1");
    switch("decoder2.0", 0x1_e000_0000, 256, "target_list=3");
    switch("decoder2.1", 0x2_2000_0000, 512, "target_list=4");
    let mut endpoint = |name, base, mib, [ways, at]: [&str; 2], share| {
        let rest = [ways, at, "dpa_resource=0x0", share];
        decoder(facts, name, "endpoint", base, mib, &rest);
    };
    endpoint("decoder3.0", 0x1_b000_0000, 512, ONE, "dpa_size=0x20000000");
    endpoint("decoder4.0", 0x1_e000_0000, 256, ONE, "dpa_size=0x10000000");
    endpoint("decoder5.0", 0x2_2000_0000, 512, TWO, "dpa_size=0x10000000");
    endpoint("decoder6.0", 0x2_2000_0000, 512, TWO, "dpa_size=0x10000000");
    region(facts, "region0", "ram", 0x1_b000_0000, 512, &[way, at, "target0=decoder3.0"]);
    region(facts, "region1", "ram", 0x1_e000_0000, 256, &[way, at, "target0=decoder4.0"]);
    let [way, at] = TWO;
    let rest = [way, at, "target0=decoder5.0", "target1=decoder6.0"];
    region(facts, "region2", "ram", 0x2_2000_0000, 512, &rest);
    memory(facts, 0, 0x1_b000_0000, 512);
    memory(facts, 1, 0x1_e000_0000, 256);
    memory(facts, 2, 0x2_2000_0000, 512);
    Boot::new(MACHINE, &text)
}

fn persistent() -> Boot {
    persistent_on(PERSISTENT)
}

/// The same facts of another machine.
fn persistent_on(machine: &str) -> Boot {
    let mut text = String::new();
    let facts = &mut text;
    common(facts);
    bridge(facts, "port1", "10");
    device(facts, "10", 0, 0, "11", "mem0", "endpoint2");
    let [way, at] = ONE;
    decoder(facts, "decoder1.0", "switch", 0x1_7000_0000, 512, &[way, at, "target_list=0"]);
    let rest = [way, at, "dpa_resource=0x0", "dpa_size=0x20000000"];
    decoder(facts, "decoder2.0", "endpoint", 0x1_7000_0000, 512, &rest);
    region(facts, "region0", "pmem", 0x1_7000_0000, 512, &[way, at, "target0=decoder2.0"]);
    let nd = "/sys/bus/nd/devices/region0";
    writeln!(facts, "{nd}>/sys/devices/ndbus0/region0\n{nd}/devtype=nd_pmem").unwrap();
    writeln!(facts, "{nd}/resource=0x170000000\n{nd}/size=536870912").unwrap();
    writeln!(facts, "{nd}/driver>/sys/bus/nd/drivers/nd_region").unwrap();
    Boot::new(machine, &text)
}

#[test]
fn a_linux_that_has_the_plan_is_ok() {
    let verdict = as_planned().verdict();
    assert_eq!(verdict.gaps, []);
    assert_eq!(verdict.result, report::Verdict::Ok);
    assert_eq!(
        verdict.to_string(),
        "\
Linux 6.12.95+deb12-cloud-amd64 on QEMU 10.0: 3 of 3 regions as planned, 1280 MiB online
  region0           0x00000001b0000000  512 MiB, of mem0, locked, online in node 1
  region1           0x00000001e0000000  256 MiB, of mem1, locked, online in node 2
  region2           0x0000000220000000  512 MiB, 2-way at 4 KiB, of mem2, mem3, locked, online in node 3
"
    );
    let verdict = persistent().verdict();
    assert_eq!(verdict.gaps, []);
    let text = verdict.to_string();
    assert!(text.contains(": 1 of 1 region as planned, 512 MiB persistent\n"), "{text}");
}

/// What is changed, and the gaps that have to come of it, each by its beginning.
type Case = (&'static str, fn(&mut Boot), &'static [&'static str]);

const R0: &str = "region of 512 MiB at 0x1b0000000: ";

/// One thing at a time. In an expected gap `R0` stands for the first region.
const CASES: &[Case] = &[
    (
        "a region that is not used",
        |boot| boot.replace("region0/commit=1", "region0/commit=0"),
        &[
            "R0Linux has region0 there and does not use it",
            "R0512 MiB of it are online, but not as a CXL region",
        ],
    ),
    (
        "a region with a state of its own",
        |boot| boot.replace("region0/commit=1", "region0/commit=2"),
        &[
            "R0Linux has region0 there and does not use it",
            "R0512 MiB of it are online, but not as a CXL region",
        ],
    ),
    (
        "no region, but its memory",
        |boot| boot.drop("/region0"),
        &["R0Linux has no region there", "R0512 MiB of it are online, but not as a CXL region"],
    ),
    (
        "a region elsewhere",
        |boot| boot.replace("region0/resource=0x1b0000000", "region0/resource=0x1a0000000"),
        &[
            "R0Linux has no region there",
            "R0512 MiB of it are online, but not as a CXL region",
            "Linux has region0, 512 MiB at 0x1a0000000, which nobody planned",
        ],
    ),
    (
        "a smaller region",
        |boot| boot.replace("region0/size=0x20000000", "region0/size=0x10000000"),
        &["R0region0 has 256 MiB, not 512 MiB"],
    ),
    (
        "other ways",
        |boot| boot.replace("region0/interleave_ways=1", "region0/interleave_ways=2"),
        &["R0region0 is 2-way at 256 B, not 1-way"],
    ),
    (
        "another granularity",
        |boot| {
            boot.replace(
                "region2/interleave_granularity=4096",
                "region2/interleave_granularity=256",
            )
        },
        &["region of 512 MiB at 0x220000000: region2 is 2-way at 256 B, not 2-way at 4 KiB"],
    ),
    (
        "another kind of memory",
        |boot| boot.replace("region0/mode=ram", "region0/mode=pmem"),
        &["R0region0 is pmem, not ram"],
    ),
    (
        "members the other way round",
        |boot| {
            boot.replace("target0=decoder5.0", "target0=decoderX");
            boot.replace("target1=decoder6.0", "target1=decoder5.0");
            boot.replace("target0=decoderX", "target0=decoder6.0");
        },
        &[
            "region of 512 MiB at 0x220000000: position 0 of region2 is mem3, not mem2",
            "region of 512 MiB at 0x220000000: position 1 of region2 is mem2, not mem3",
        ],
    ),
    (
        "a member that is no device",
        |boot| boot.replace("target0=decoder3.0", "target0="),
        &["R0position 0 of region0 is nothing, not mem0"],
    ),
    (
        "another DPA",
        |boot| boot.replace("decoder3.0/dpa_resource=0x0", "decoder3.0/dpa_resource=0x10000000"),
        &["R0mem0 decoder 0 has 512 MiB from DPA 0x10000000 on in Linux"],
    ),
    (
        "another share",
        |boot| boot.replace("decoder5.0/dpa_size=0x10000000", "decoder5.0/dpa_size=0x20000000"),
        &["region of 512 MiB at 0x220000000: mem2 decoder 0 has 512 MiB from DPA 0x0 on in Linux"],
    ),
    (
        "a bridge that is not locked",
        |boot| boot.replace("decoder1.0/locked=1", "decoder1.0/locked=0"),
        &["R0hb0 decoder 0 is not locked in Linux"],
    ),
    (
        "a device that is not locked",
        |boot| boot.replace("decoder3.0/locked=1", "decoder3.0/locked=0"),
        &["R0mem0 decoder 0 is not locked in Linux"],
    ),
    (
        "another port",
        |boot| boot.replace("decoder2.0/target_list=3", "decoder2.0/target_list=4"),
        &["region of 256 MiB at 0x1e0000000: hb1 decoder 0 leads to ports 4 in Linux, not 3"],
    ),
    (
        "a decoder with another range",
        |boot| boot.replace("decoder1.0/start=0x1b0000000", "decoder1.0/start=0x1a0000000"),
        &["R0hb0 decoder 0 has 512 MiB at 0x1a0000000 in Linux"],
    ),
    (
        "a decoder that Linux lacks",
        |boot| boot.drop("decoder1.0"),
        &["R0Linux does not have hb0 decoder 0"],
    ),
    (
        "a decoder that nobody planned",
        |boot| {
            let facts = &mut boot.facts;
            decoder(facts, "decoder3.1", "endpoint", 0x1_d000_0000, 256, &[]);
        },
        &["Linux has decoder3.1, 256 MiB at 0x1d0000000, which nobody planned"],
    ),
    (
        "a region that nobody planned",
        |boot| {
            region(&mut boot.facts, "region7", "ram", 0x1_d000_0000, 256, &[]);
        },
        &["Linux has region7, 256 MiB at 0x1d0000000, which nobody planned"],
    ),
    (
        "memory that nobody planned",
        |boot| {
            boot.facts += "/sys/devices/system/memory/memory52/state=online\n";
        },
        &["128 MiB of w0 are online where no region is planned"],
    ),
    (
        "memory offline",
        |boot| boot.replace("memory/memory54/state=online", "memory/memory54/state=offline"),
        &["R0384 MiB of its memory is online"],
    ),
    (
        "no memory online",
        |boot| boot.replace("/state=online", "/state=offline"),
        &[
            "R0none of its memory is online",
            "region of 256 MiB at 0x1e0000000: none of its memory is online",
            "region of 512 MiB at 0x220000000: none of its memory is online",
        ],
    ),
    (
        "no DAX device",
        |boot| {
            boot.drop("/sys/bus/dax/devices/dax0.0");
            boot.replace("memory/memory54/state=online", "memory/memory54/state=offline");
            boot.replace("memory/memory55/state=online", "memory/memory55/state=offline");
            boot.replace("memory/memory56/state=online", "memory/memory56/state=offline");
            boot.replace("memory/memory57/state=online", "memory/memory57/state=offline");
        },
        &["R0Linux has no DAX device over it"],
    ),
    (
        "memory of another driver",
        |boot| {
            boot.replace(
                "/sys/devices/root0/region0/dax_region0/dax0.0",
                "/sys/devices/platform/hmem.0/dax0.0",
            );
        },
        &["R0512 MiB of it are online, but not as a CXL region"],
    ),
    (
        "a DAX device without kmem",
        |boot| {
            boot.replace(
                "dax0.0/driver>/sys/bus/dax/drivers/kmem",
                "dax0.0/driver>/sys/bus/dax/drivers/device_dax",
            )
        },
        &["R0dax0.0 has the driver device_dax, not kmem"],
    ),
    (
        "a smaller DAX device",
        |boot| boot.replace("dax0.0/size=536870912", "dax0.0/size=268435456"),
        &["R0dax0.0 has 256 MiB of it"],
    ),
    (
        "memory that holds nothing",
        |boot| boot.drop("run/dax0.0/copy"),
        &["R0a program that was copied into its memory did not come back the same"],
    ),
    (
        "a node with less",
        |boot| boot.replace("Node 1 MemTotal:  524288 kB", "Node 1 MemTotal:  262144 kB"),
        &["R0node 1 has 256 MiB, 512 MiB of it online"],
    ),
    (
        "the machine's own node",
        |boot| {
            boot.replace("/node/node1/", "/node/node0/");
            boot.replace("dax0.0/target_node=1", "dax0.0/target_node=0");
        },
        &["R0its memory is in node 0, which is the machine's"],
    ),
    (
        "two nodes",
        |boot| boot.replace("/node/node1/memory57", "/node/node2/memory57"),
        &[
            "R0its memory is in nodes [1, 2]",
            "region of 256 MiB at 0x1e0000000: node 2 has 256 MiB, 768 MiB of it online",
        ],
    ),
    (
        "no sysfs of memory",
        |boot| boot.drop("/sys/devices/system/memory"),
        &[
            "R0none of its memory is online",
            "region of 256 MiB at 0x1e0000000: none of its memory is online",
            "region of 512 MiB at 0x220000000: none of its memory is online",
        ],
    ),
    (
        "no sysfs of CXL",
        |boot| {
            boot.drop("/sys/bus/cxl/");
            boot.drop("/sys/bus/dax/");
            boot.drop("/sys/devices/system/");
        },
        &[
            "R0Linux has no region there",
            "region of 256 MiB at 0x1e0000000: Linux has no region there",
            "region of 512 MiB at 0x220000000: Linux has no region there",
        ],
    ),
    ("no version", |boot| boot.drop("/proc/version"), &["Linux does not say which it is"]),
    ("no log", |boot| boot.drop("/log="), &["Linux's log is empty"]),
    (
        "a driver that is not there",
        |boot| boot.facts += "insmod/lib/cxl_port.ko=failed\n",
        &["Linux did not load the driver cxl_port.ko"],
    ),
    (
        "a fault of Linux's own",
        |boot| {
            boot.replace(
                "/log=",
                "/log=[    3.0] BUG: kernel NULL pointer dereference, address: 0|",
            );
        },
        &["Linux met with a fault of its own"],
    ),
    ("the machine ended otherwise", |boot| boot.end = Some("it died".into()), &["it died"]),
    ("no CEDT", |boot| boot.drop("tables/CEDT"), &["Linux has no CEDT"]),
    (
        "another CEDT",
        |boot| boot.replace("/CEDT:43454454", "/CEDT:43454455"),
        &["Linux's CEDT is not the one that the image made"],
    ),
    (
        "an image that said nothing",
        |boot| boot.said = Collected::default(),
        &["the image handed no record over", "the image made no CEDT"],
    ),
    (
        "a record that is cut off",
        |boot| {
            boot.said.handoff.as_mut().unwrap().bytes.truncate(80);
        },
        &["the image's record: byte 0xc:"],
    ),
    (
        "an image that ended by itself",
        |boot| boot.said.end = Some(Status::Panic),
        &["the image ended by itself: panic"],
    ),
    (
        "an image that committed less",
        |boot| {
            let less = MACHINE.replace("region = [", "region_of_nobody = [");
            let less = less.replace("interleave = \"widest\"", "interleave = \"flat\"");
            let less = less.split("region_of_nobody").next().unwrap().to_owned();
            boot.said.handoff = Boot::new(&less, "").said.handoff;
        },
        &[
            "R0the image did not commit it",
            "region of 512 MiB at 0x220000000: the image did not commit it",
            "the image committed",
        ],
    ),
    (
        "an image that locked nothing",
        |boot| {
            let open =
                format!("policy = {{ path = \"unlocked\", config_lock = false }}\n{MACHINE}");
            boot.said.handoff = Boot::new(&open, "").said.handoff;
        },
        &[
            "R0the image left its paths not locked, locked is asked for",
            "region of 256 MiB at 0x1e0000000: the image left its paths not locked, locked is asked for",
            "region of 512 MiB at 0x220000000: the image left its paths not locked, locked is asked for",
        ],
    ),
];

#[test]
fn each_gap_is_named_and_the_only_one() {
    let mut wrong = Vec::new();
    for (what, change, expected) in CASES {
        let mut boot = as_planned();
        change(&mut boot);
        let verdict = boot.verdict();
        let gaps: Vec<_> = verdict.gaps.iter().map(|gap| gap.message.as_str()).collect();
        if verdict.result != report::Verdict::Failed {
            wrong.push(format!("{what}: {:?}", verdict.result));
        }
        let begins = |(gap, start): (&&str, &&str)| gap.starts_with(&start.replace("R0", R0));
        // The last expected one may stand for several.
        let all = gaps.len() >= expected.len() && gaps.iter().zip(*expected).all(begins);
        let last = expected.last().unwrap();
        let rest = gaps.iter().skip(expected.len()).all(|gap| begins((gap, last)));
        if !(all && rest) {
            wrong.push(format!("{what}: {gaps:#?}, expected {expected:#?}"));
        }
        let text = verdict.to_string();
        let first = text.lines().next().unwrap();
        if first.contains("3 of 3") && !first.contains("beside them") {
            wrong.push(format!("{what}: the first line does not say it: {first}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn persistent_memory_is_judged_by_the_nd_bus() {
    let cases: [(&str, &str, &str); 4] = [
        (
            "nd/devices/region0/resource=0x170000000",
            "nd/devices/region0/resource=0x0",
            "Linux has no persistent memory",
        ),
        ("region0/size=536870912", "region0/size=268435456", "the nd region0 has 256 MiB of it"),
        ("nd/devices/region0/driver>", "nd/devices/region0/none>", "the nd region0 has no driver"),
        (
            "/log=",
            "/sys/devices/system/memory/memory46/state=online\n/log=",
            "128 MiB of this persistent memory are online",
        ),
    ];
    for (from, to, expected) in cases {
        let mut boot = persistent();
        boot.replace(from, to);
        let verdict = boot.verdict();
        let [gap] = verdict.gaps.as_slice() else { panic!("{expected}: {:#?}", verdict.gaps) };
        let start = "region of 512 MiB at 0x170000000: ";
        assert!(gap.message.strip_prefix(start).is_some_and(|rest| rest.starts_with(expected)));
        assert_eq!(verdict.as_planned, 0);
    }
}

/// The log's line is the one that is most about the region, and not of another region.
#[test]
fn a_gap_comes_with_the_line_of_the_log_that_belongs_to_it() {
    let mut boot = as_planned();
    boot.replace("region0/commit=1", "region0/commit=0");
    boot.drop("/warnings=");
    boot.facts += "/warnings=<3>[ 2.1] cxl_mem mem1: failed to find decoder mapping 0x1e0000000-0x1efffffff|\
                   <4>[ 2.2] cxl_port port1: a word of the bridge|\
                   <3>[ 2.3] cxl_mem mem0: failed to find decoder mapping 0x1b0000000-0x1cfffffff|\
                   <3>[ 2.4] cxl_port endpoint3: failed to attach decoder3.0 to region0: -6\n";
    let verdict = boot.verdict();
    let log = verdict.gaps[0].log.as_deref();
    assert_eq!(
        log,
        Some("[ 2.3] cxl_mem mem0: failed to find decoder mapping 0x1b0000000-0x1cfffffff")
    );
    // Where the log is silent, that is said.
    boot.drop("/warnings=");
    let text = boot.verdict().to_string();
    assert!(text.contains("does not use it: its log says nothing of it\n"), "{text}");
}

/// Linux's numbers of memory devices are its own.
#[test]
fn devices_that_linux_calls_otherwise_are_named() {
    let mut boot = as_planned();
    boot.replace("mem0", "memX");
    boot.replace("mem1", "mem0");
    boot.replace("memX", "mem1");
    let verdict = boot.verdict();
    assert_eq!(verdict.gaps, []);
    assert_eq!(verdict.notes, ["in Linux's words mem0 is mem1, mem1 is mem0"]);
}

#[test]
fn memory_of_hmem_has_its_line_of_the_log() {
    let mut boot = as_planned();
    boot.drop("/region0");
    boot.replace(
        "/log=",
        "/log=[ 3.0] hmem_platform hmem_platform.0: CXL did not claim resource, \
                           registering: [mem 0x1b0000000-0x1cfffffff]|",
    );
    let verdict = boot.verdict();
    let gap = verdict.gaps.iter().find(|gap| gap.message.contains("not as a CXL region")).unwrap();
    assert!(gap.log.as_ref().unwrap().contains("did not claim resource"), "{gap}");
}

/// What has no place costs a best-effort machine itself: Linux is held against the rest, and the loss is no
/// success. Without best effort nothing is expected of such a machine.
#[test]
fn what_best_effort_loses_is_a_gap() {
    let machine = PERSISTENT
        .replace(
            "below = \"hb0\" }]",
            "below = \"hb0\" }, { name = \"rp1\", below = \"hb0\", number = 1 }]",
        )
        .replace(
            "\"512MiB\" }]",
            "\"512MiB\" }, { name = \"mem1\", below = \"rp1\", persistent = \"4GiB\" }]",
        );
    let parse = |machine: &str| Scenario::parse(machine, "machine").unwrap();
    assert!(Planned::of(&parse(&machine)).is_err());
    let machine = format!("policy = {{ on_failure = \"best-effort\" }}\n{machine}");
    let boot = persistent_on(&machine);
    let verdict = boot.verdict();
    assert_eq!((verdict.planned, verdict.as_planned), (1, 1));
    let gaps: Vec<_> = verdict.gaps.iter().map(|gap| gap.message.as_str()).collect();
    let words = "lost: bridge 16 port 1: window 0x170000000 has 1 GiB, 4 GiB are needed";
    assert_eq!(gaps, [words]);
    assert_eq!(verdict.result, report::Verdict::Failed);
}

/// A policy that plans nothing leaves nothing to find, which is no success.
#[test]
fn a_plan_of_nothing_is_not_ok() {
    let machine = PERSISTENT.replace("uid = 16", "uid = 16, decoders = 0");
    let machine =
        format!("policy = {{ path = \"guest-programs\", config_lock = false }}\n{machine}");
    let mut text = String::new();
    common(&mut text);
    let verdict = Boot::new(&machine, &text).verdict();
    assert_eq!(verdict.result, report::Verdict::Failed);
    assert_eq!(verdict.gaps[0].message, "no region is planned, so there is none for Linux to have");
}

/// The keys that programs read.
#[test]
fn json_has_its_keys() {
    let verdict = serde_json::to_value(as_planned().verdict()).unwrap();
    let keys: Vec<_> = verdict.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "as_planned",
        "attack",
        "fields",
        "gaps",
        "linux",
        "list",
        "notes",
        "online",
        "persistent",
        "planned",
        "qemu",
        "refusal",
        "regions",
        "result",
        "scenario",
    ];
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(verdict["online"], "0x50000000");
    let region = &verdict["regions"][2];
    assert_eq!(region["hpa"], "0x220000000");
    assert_eq!(region["linux"]["members"][1]["device"], "mem3");
    assert_eq!(region["linux"]["members"][1]["size"], "0x10000000");
    assert_eq!(region["linux"]["nodes"], serde_json::json!([3]));
    let refused = Verdict::refused("two-way", None, "no QEMU".to_owned());
    let refused = serde_json::to_value(refused).unwrap();
    assert_eq!(refused["result"], "refused");
    assert_eq!(refused["refusal"], "no QEMU");
}
