//! The machines that sets are made of, on QEMU: what is in them, and what a firmware would have programmed.
//!
//! **Invariant**: a machine as it stands here is one of which Linux takes everything.

/// A machine.
pub struct Machine {
    pub name: &'static str,
    /// Name and UID.
    pub bridges: &'static [(&'static str, u32)],
    /// Name, what it hangs below, and Port Number.
    pub ports: &'static [(&'static str, &'static str, u8)],
    /// Name and the port above.
    pub switches: &'static [(&'static str, &'static str)],
    /// Name, the port above, MiB of volatile and of persistent memory.
    pub devices: &'static [(&'static str, &'static str, u64, u64)],
    /// Targets, and MiB.
    pub windows: &'static [(&'static [&'static str], u64)],
    /// Component, window, MiB into it, MiB, control, and the target list or skip.
    pub decoders: &'static [(&'static str, usize, u64, u64, u32, u64)],
}

/// Committed and host-only, not locked: what Linux may take down again.
const ON: u32 = 0x1200;

pub const MACHINES: [Machine; 5] = [
    Machine {
        name: "two",
        bridges: &[("hb0", 16), ("hb1", 32)],
        ports: &[("rp0", "hb0", 0), ("rp1", "hb0", 1), ("rp2", "hb1", 0)],
        switches: &[],
        devices: &[("mem0", "rp0", 512, 0), ("mem1", "rp1", 512, 0), ("mem2", "rp2", 512, 0)],
        windows: &[(&["hb0"], 4096), (&["hb0", "hb1"], 4096)],
        decoders: &[
            ("mem0", 0, 0, 256, ON, 0),
            ("mem0", 0, 256, 256, ON, 0),
            ("mem1", 1, 0, 1024, ON | 0x10, 0),
            ("mem2", 1, 0, 1024, ON | 0x10, 0),
            ("hb0", 0, 0, 256, ON, 0),
            ("hb0", 0, 256, 256, ON, 0),
            ("hb0", 1, 0, 1024, ON | 1, 1),
            ("hb1", 1, 0, 1024, ON | 1, 0),
        ],
    },
    Machine {
        name: "switch",
        bridges: &[("hb0", 16)],
        ports: &[("rp0", "hb0", 0), ("dsp0", "sw0", 0), ("dsp1", "sw0", 1)],
        switches: &[("sw0", "rp0")],
        devices: &[("mem0", "dsp0", 256, 0), ("mem1", "dsp1", 256, 0)],
        windows: &[(&["hb0"], 4096)],
        decoders: &[
            ("mem0", 0, 0, 512, ON | 0x10, 0),
            ("mem1", 0, 0, 512, ON | 0x10, 0),
            ("sw0", 0, 0, 512, ON | 0x10, 0x100),
            ("hb0", 0, 0, 512, ON, 0),
        ],
    },
    Machine {
        name: "persistent",
        bridges: &[("hb0", 16)],
        ports: &[("rp0", "hb0", 0), ("rp1", "hb0", 1)],
        switches: &[],
        devices: &[("mem0", "rp0", 512, 512), ("mem1", "rp1", 0, 512)],
        windows: &[(&["hb0"], 4096)],
        decoders: &[
            ("mem0", 0, 0, 512, ON, 0),
            ("mem0", 0, 512, 512, ON, 0),
            ("mem1", 0, 1024, 512, ON, 0),
            ("hb0", 0, 0, 512, ON, 0),
            ("hb0", 0, 512, 512, ON, 0),
            ("hb0", 0, 1024, 512, ON, 1),
        ],
    },
    Machine {
        name: "four",
        bridges: &[("hb0", 16), ("hb1", 32)],
        ports: &[("rp0", "hb0", 0), ("rp1", "hb0", 1), ("rp2", "hb1", 0), ("rp3", "hb1", 1)],
        switches: &[],
        devices: &[
            ("mem0", "rp0", 256, 0),
            ("mem1", "rp1", 256, 0),
            ("mem2", "rp2", 256, 0),
            ("mem3", "rp3", 256, 0),
        ],
        windows: &[(&["hb0", "hb1"], 4096)],
        decoders: &[
            ("mem0", 0, 0, 1024, ON | 0x20, 0),
            ("mem1", 0, 0, 1024, ON | 0x20, 0),
            ("mem2", 0, 0, 1024, ON | 0x20, 0),
            ("mem3", 0, 0, 1024, ON | 0x20, 0),
            ("hb0", 0, 0, 1024, ON | 0x11, 0x100),
            ("hb1", 0, 0, 1024, ON | 0x11, 0x100),
        ],
    },
    Machine {
        name: "six",
        bridges: &[("hb0", 16), ("hb1", 32), ("hb2", 48)],
        ports: &[
            ("rp0", "hb0", 0),
            ("rp1", "hb0", 1),
            ("rp2", "hb1", 0),
            ("rp3", "hb1", 1),
            ("rp4", "hb2", 0),
            ("rp5", "hb2", 1),
        ],
        switches: &[],
        devices: &[
            ("mem0", "rp0", 256, 0),
            ("mem1", "rp1", 256, 0),
            ("mem2", "rp2", 256, 0),
            ("mem3", "rp3", 256, 0),
            ("mem4", "rp4", 256, 0),
            ("mem5", "rp5", 256, 0),
        ],
        windows: &[(&["hb0", "hb1", "hb2"], 3072)],
        decoders: &[
            ("mem0", 0, 0, 1536, ON | 0x90, 0),
            ("mem1", 0, 0, 1536, ON | 0x90, 0),
            ("mem2", 0, 0, 1536, ON | 0x90, 0),
            ("mem3", 0, 0, 1536, ON | 0x90, 0),
            ("mem4", 0, 0, 1536, ON | 0x90, 0),
            ("mem5", 0, 0, 1536, ON | 0x90, 0),
            ("hb0", 0, 0, 1536, ON | 0x10, 0x100),
            ("hb1", 0, 0, 1536, ON | 0x10, 0x100),
            ("hb2", 0, 0, 1536, ON | 0x10, 0x100),
        ],
    },
];
