//! What Linux asks of registers and tables: the rules by name, and what to do about each.
//!
//! **Invariant**: a rule's name never changes its meaning.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

macro_rules! rules {
    ($($rule:ident $name:literal $text:literal => $remedy:literal,)*) => {
        /// A rule of Linux's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $text] $rule,)*
        }

        impl Rule {
            /// All of them, in the order in which Linux comes to them.
            pub const ALL: &[Self] = &[$(Self::$rule,)*];

            /// Its name in output; stable.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$rule => $name,)* }
            }

            /// The rule, in a sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$rule => $text,)* }
            }

            /// What to do where it is broken.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$rule => $remedy,)* }
            }
        }
    };
}

impl Rule {
    /// Whether a kernel has shown it in what is kept here: the recordings (`recorded/linux.toml`), or a
    /// boot of the repository's tests. What none has is by Linux's source alone.
    pub const fn seen(self) -> bool {
        !matches!(
            self,
            Self::Checksum
                | Self::ChbsTwice
                | Self::CximsTwice
                | Self::RestrictedHost
                | Self::Rcrb
                | Self::NoDecoderRegisters
                | Self::MemoryActive
                | Self::MediaStatus
                | Self::Capacity
                | Self::Normalized
                | Self::InterleaveCapability
                | Self::TargetPosition
                | Self::TargetCount
                | Self::TargetOrder
                | Self::TargetsOnce
        )
    }
}

rules! {
    NoCedt "no-cedt"
        "CXL memory is found through the ACPI CEDT."
        => "publish a CEDT with a CHBS for each bridge and a CFMWS for each window",
    Checksum "checksum"
        "The bytes of a table sum to 0."
        => "correct the checksum byte at offset 9",
    CedtRecord "cedt-record"
        "CEDT records lie back to back, each with its own length."
        => "write each record's whole length, its header included",
    NoChbs "no-chbs"
        "Every CXL host bridge has a CHBS with its _UID, a base, and the length that its version has (0x2000 for 0, 0x10000 for 1)."
        => "add or correct the bridge's CHBS",
    ChbsTwice "chbs-twice"
        "A UID has one CHBS."
        => "take out the CHBS that is not this bridge's",
    MixedHosts "mixed-hosts"
        "All CHBS of a system have one version."
        => "describe all host bridges as CXL 2.0 bridges (version 1), or none",
    RestrictedHost "restricted-host"
        "Decoders are looked for in CXL 2.0 host bridges (CHBS version 1) only."
        => "describe the bridge's component registers in a CHBS of version 1",
    Rcrb "rcrb"
        "The RCRB of a CXL 1.1 host (CHBS version 0) answers, has Memory Space on, and a BAR of 64 KiB that has an address; one that has not costs all bridges."
        => "take the CHBS of that host out of the table, or set up its RCRB before Linux starts",
    WindowArithmetic "window-arithmetic"
        "A window's interleave arithmetic is 0 (modulo) or 1 (XOR)."
        => "write 0 or 1 into byte 0x19 of the CFMWS",
    WindowBase "window-base"
        "A window's base is a multiple of 256 MiB."
        => "move the window to a multiple of 256 MiB",
    WindowSize "window-size"
        "A window's size is a multiple of 256 MiB."
        => "round the window to a multiple of 256 MiB times its ways",
    WindowWays "window-ways"
        "A window's ways code is 0 to 4 or 8 to 10."
        => "encode the number of targets in byte 0x18 of the CFMWS: 0 1-way, 1 2, 2 4, 3 8, 4 16, 8 3, 9 6, 10 12",
    WindowLength "window-length"
        "A CFMWS holds as many targets as its ways say."
        => "write a target for each way, and the length 0x24 + 4 * ways",
    WindowGranularity "window-granularity"
        "A window's granularity code is 0 to 6 (256 B to 16 KiB)."
        => "write 0 to 6 into the HBIG field of the CFMWS",
    WindowOverlap "window-overlap"
        "Windows do not overlap in part."
        => "give each range of addresses to one window",
    NoCxims "no-cxims"
        "A window with XOR arithmetic has a CXIMS of its granularity with enough maps."
        => "add a CXIMS with the window's HBIG and a map for each bit of the position",
    CximsTwice "cxims-twice"
        "A granularity has one CXIMS."
        => "take out the CXIMS whose maps are not the hardware's",
    WindowTarget "window-target"
        "A window's targets are UIDs of host bridges that have a valid CHBS."
        => "write the _UID of each bridge into the CFMWS, or add the missing CHBS",
    WindowShare "window-share"
        "A window's size is a multiple of 256 MiB times its ways (CXL r3.1 section 9.18.1.3)."
        => "round the window's size to such a multiple",
    NoDecoderRegisters "no-decoder-registers"
        "A port with several downstream ports, and every device, has an HDM decoder capability."
        => "make the capability array lead to the HDM decoder structure (ID 5)",
    DecoderCount "decoder-count"
        "The decoder count code is 0 to 8; 9 to 12 from Linux 7.1 on."
        => "use a component with fewer decoders, or a newer kernel",
    AllOnes "all-ones"
        "Registers answer: a base or size of all ones is no range."
        => "see that the component is powered, its link is up and its BAR is decoded",
    CommitOrder "commit-order"
        "Decoder n is committed only after decoders 0 to n-1."
        => "use decoders from 0 on without a gap",
    ZeroSize "zero-size"
        "A committed decoder has a size."
        => "leave spare decoders uncommitted (the policy burn_spares off)",
    Ways "ways"
        "A decoder's ways code is 0 to 4 or 8 to 10, committed or not."
        => "write 0 into IW (control bits 7:4) of decoders that are not used, and a code that the component has into the others",
    Granularity "granularity"
        "A decoder's granularity code is 0 to 6, committed or not."
        => "write 0 to 6 into IG (control bits 3:0)",
    Targets "targets"
        "Each target of a committed decoder is the Port Number (Link Capabilities 31:24) of a downstream port."
        => "write Port Numbers, not device numbers, into the target list, one for each way",
    NoDvsec "no-dvsec"
        "A CXL memory device has a CXL Device DVSEC (ID 0)."
        => "show the DVSEC in configuration space",
    NotMemCapable "not-mem-capable"
        "The DVSEC says Mem_Capable."
        => "use a device with CXL.mem; Linux takes the class code 0x050210 for one",
    HdmCount "hdm-count"
        "HDM_Count in the DVSEC is 1 or 2."
        => "let the device report 1 or 2 ranges",
    InfoValid "info-valid"
        "Memory_Info_Valid is set in each range within a second."
        => "do not hand over before the device says it, or reset the device",
    MemoryActive "memory-active"
        "Memory_Active is set in each range within 60 seconds."
        => "do not hand over before the device says it, or reset the device",
    MediaStatus "media-status"
        "The memory device status says that media is ready and the mailbox usable."
        => "wait for the media, or replace the device",
    Capacity "capacity"
        "Capacities are whole multiples of 256 MiB: the mailbox reports them in that unit."
        => "give the device (or its backend) a multiple of 256 MiB",
    RangeOutside "range-outside"
        "With Mem_Enable set and HDM Decoder Enable clear, a range register lies inside a volatile window."
        => "set HDM Decoder Enable (Global Control bit 1) together with Mem_Enable, or clear both and leave them to Linux",
    Emulated "emulated"
        "Decoders count only if HDM Decoder Enable is set, or Mem_Enable is not."
        => "set HDM Decoder Enable (Global Control bit 1) together with the decoders",
    SizeDivisible "size-divisible"
        "A device decoder's size divides by its ways."
        => "write the size of the whole set, a multiple of 256 MiB times the ways",
    DpaRange "dpa-range"
        "A decoder's device memory lies behind that of the decoders below it, inside one partition of the device."
        => "correct size, ways and DPA skip: DPA base = skip + everything the lower decoders took",
    SkippedMemory "skipped-memory"
        "What a decoder skips of its device's memory is kept from other decoders. Kernels 6.15 to 7.3 give it back instead of taking it, as a decoder that firmware set up has no name yet, and warn that nobody had it."
        => "nothing for the warning, a mistake of the kernel's own; make no region of what counts as free by it",
    NoWindow "no-window"
        "A device decoder's range lies inside one window of the CEDT."
        => "move the decoder into a window, or publish the window",
    LowMemoryHole "low-memory-hole"
        "A window at address 0 that is smaller than its decoders, up to a hole below 4 GiB (the kernel's own convention cxl-lmh), is taken by no kernel up to 7.3."
        => "nothing for the firmware to change; to use the memory, end the decoders where the window ends",
    Normalized "normalized"
        "A device's decoder may hold device addresses (the kernel's own convention cxl-atl) where the platform's PRM has the handler that translates them, from Linux 7.0 on."
        => "publish the PRM handler EE41B397-25D4-452C-AD54-48C6E3480B94, or program host addresses",
    InterleaveCapability "interleave-capability"
        "The device can do the ways and the address bits that its decoder asks for."
        => "use ways and a granularity whose bits the HDM capability register offers",
    MemoryMode "memory-mode"
        "All members of a set are volatile, or all are persistent."
        => "interleave memory of one kind",
    DecoderType "decoder-type"
        "A memory expander's decoder is host-only (Target Range Type 1)."
        => "set control bit 12 before the commit, as the device is host-only coherent",
    NotATarget "not-a-target"
        "The window that holds a range names the bridge above the device."
        => "use a window that targets this bridge",
    Share "share"
        "A member's share of device memory times the ways is the size of the region."
        => "commit the same range with the same ways in all members",
    TooManyMembers "too-many-members"
        "A set has no more members than ways; two devices never claim one range."
        => "give each device a range of its own, or the ways that the set has",
    MissingMember "missing-member"
        "A set has as many members as ways."
        => "commit the decoders of all members, or wait for the device that is missing",
    Mapping "mapping"
        "Each bridge and switch on the path has a committed decoder with exactly the region's range."
        => "commit one decoder per region on each port, with the device decoder's base and size",
    PassThrough "pass-through"
        "A bridge without decoders forwards nothing that Linux assembles by itself."
        => "use a bridge with HDM decoders (QEMU: hdm_for_passthrough=on) and commit one, or let Linux create the region",
    TargetList "target-list"
        "The decoder of a port on the path lists the downstream port that leads to the device."
        => "put the Port Number of that port into the target list",
    TargetPosition "target-position"
        "Member n of a set sits below target n mod ways of the window."
        => "reorder the target lists: the root varies fastest",
    HpaOrder "hpa-order"
        "On each port, the decoder with the lower range has the lower number."
        => "commit decoders in order of address",
    TargetOverflow "target-overflow"
        "A port's decoder has room for all members below it."
        => "spread the set over more bridges, or use a bridge with more targets",
    TargetCount "target-count"
        "1, 2, 4 or 8 downstream ports of a port take part in a set."
        => "use a power of two of ports below each bridge; 3, 6 and 12 ways come from the window",
    GranularityProduct "granularity-product"
        "A port's granularity, that of its parent times the parent's ways (power-of-two part), is at most 16 KiB, even with one way."
        => "use a smaller granularity in the window and the devices",
    ExpectedInterleave "expected-interleave"
        "A port's decoder has a way for each member port, and its granularity is that of its parent times the parent's ways (power-of-two part)."
        => "program the expected ways and granularity; the root takes the lowest address bits",
    TargetOrder "target-order"
        "A port's target list has the ports in the order of their members."
        => "reorder the target list",
    RegionOverlap "region-overlap"
        "Regions do not overlap, in part or one in the other."
        => "give each range of addresses to one region",
    SerialNumber "serial-number"
        "A device with persistent memory in a region has a serial number (Device Serial Number capability), and not 0."
        => "give the device a serial number (QEMU: sn=)",
    WindowKind "window-kind"
        "A window allows the kind of memory in it (CXL r3.1 section 9.18.1.3). Linux does not look."
        => "set the restriction bits that the memory needs, or use another window",
    GranularityDiffers "granularity-differs"
        "Devices select with the granularity of their window (CXL r3.1 section 9.13.1). Linux does not look, and the hardware finds other bytes."
        => "program the same granularity into the window and all members",
    TargetsOnce "targets-once"
        "Kernels 6.18 to 6.18.6 look up a downstream port in the first decoder that lists it only."
        => "use 6.18.7 or newer, or one decoder per downstream port",
    Locked "locked"
        "A region with a locked decoder, or in a window with the fixed bit, cannot be destroyed."
        => "nothing, if that is what locking is for",
}

impl Serialize for Rule {
    /// Its name as `rule`, with what it wants, the remedy, and whether a kernel has shown it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Rule", 4)?;
        fields.serialize_field("rule", self.name())?;
        fields.serialize_field("wants", self.text())?;
        fields.serialize_field("remedy", self.remedy())?;
        fields.serialize_field("seen", &self.seen())?;
        fields.end()
    }
}
