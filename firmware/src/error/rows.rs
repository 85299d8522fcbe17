//! The table of errors: a row each, with its number, its name and its sentence.
//!
//! A sentence has holes, which [`super::sentence`] fills: `{at}`, `{expected:size}`; where a small
//! number stands for words, `{detail|volatile|persistent}`, the last of which serves what is beyond.
//!
//! **Invariant**: numbers ascend, and a number's meaning never changes.

use super::Code;

/// A row of the table.
#[cfg(feature = "sentences")]
pub(super) struct Row {
    pub(super) number: u16,
    pub(super) name: &'static str,
    pub(super) sentence: &'static str,
}

macro_rules! rows {
    ($($number:literal $name:ident $sentence:literal,)*) => {
        impl Code {
            $(
                #[doc = concat!("`", $sentence, "`")]
                pub const $name: Self = Self::of($number);
            )*

            /// Every code, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }

        #[cfg(feature = "sentences")]
        const ROWS: &[Row] =
            &[$(Row { number: $number, name: stringify!($name), sentence: $sentence },)*];

        const _: () = {
            let numbers = [0, $($number,)*];
            let mut at = 1;
            while at < numbers.len() {
                assert!(numbers[at - 1] < numbers[at], "numbers ascend, so that none is there twice");
                at += 1;
            }
        };
    };
}

impl Code {
    /// The name of its constant here; `None` for one that this version does not know, and for all of
    /// them without the feature `sentences`.
    pub fn name(self) -> Option<&'static str> {
        #[cfg(feature = "sentences")]
        return row(self).map(|row| row.name);
        #[cfg(not(feature = "sentences"))]
        return None;
    }

    /// The sentence of its row, with the holes that an error fills, as this type documents them;
    /// `None` where [`Code::name`] has none.
    pub fn sentence(self) -> Option<&'static str> {
        #[cfg(feature = "sentences")]
        return row(self).map(|row| row.sentence);
        #[cfg(not(feature = "sentences"))]
        return None;
    }
}

/// The row of a code.
#[cfg(feature = "sentences")]
pub(super) fn row(code: Code) -> Option<&'static Row> {
    let at = ROWS.binary_search_by_key(&code.number(), |row| row.number).ok()?;
    ROWS.get(at)
}

rows! {
    // The platform's tables.
    0x0101 PLATFORM_RSDP "{at}: {rule:rsdp}",
    0x0102 PLATFORM_TABLE "{at}: {rule:table}",
    0x0103 PLATFORM_NO_TABLE "the root table lists no {at}",
    0x0104 PLATFORM_TABLE_TOO_LARGE
        "the {at} has {expected} bytes, the buffer {found}; give a larger one",
    0x0105 PLATFORM_MCFG "MCFG: {rule:table}",
    0x0106 PLATFORM_ALLOCATION "MCFG allocation {at}: {rule:allocation}",
    0x0107 PLATFORM_CEDT "CEDT: {rule:table}",
    0x0108 PLATFORM_RECORD "CEDT: {at}: {rule:cedt}",
    0x0109 PLATFORM_CAPACITY
        "more than {expected} {detail|MCFG allocation|host bridge|window}{expected|s||s}: give the library larger structures",

    // Discovery.
    // 0x0201 was the refusal of a machine with a CXL 1.1 host.
    0x0202 DISCOVER_DUPLICATE_UID "two bridges have UID {at:uid}",
    0x0203 DISCOVER_SHARED_ROOT_BUS
        "bridges {at:uid} and {found} are both said to start at {expected:bus}",
    0x0204 DISCOVER_ROOT_BUS_UNKNOWN
        "{at}: its root bus was not given and {detail|its UID is no bus number|configuration space has no bus of that number|the bus of that number is bridge {found}'s|the bus of that number has no CXL root port|several segments have CXL root ports on that bus}",
    0x0205 DISCOVER_NOT_DECODED "{at}: configuration space does not decode {found:bus}",
    0x0206 DISCOVER_BUS_LOOP
        "{at} leads to {found:bus}, which was visited already: the buses form a loop",
    0x0207 DISCOVER_BUS_NUMBERS
        "{at} leads to buses {found.0:x2} to {found.1:x2}; they must lie behind {expected.0:x2} and end by {expected.1:x2}",
    0x0208 DISCOVER_TOO_DEEP "{at} is behind more than {expected} ports",
    0x0209 DISCOVER_UNASSIGNED
        "{at} has {detail|no bus numbers|no address in BAR {found}|no open memory window}, and there is nothing to assign from",
    0x020A DISCOVER_CAPABILITIES "{at}: {rule:walk}",
    0x020B DISCOVER_DVSECS "{at}: {rule:dvsec}",
    0x020C DISCOVER_SHORT_DVSEC
        "{at}: the {detail:dvsec} DVSEC at {found.1:x3} has length {found.0:x}, its registers need {expected:x}",
    0x020D DISCOVER_LOCATOR "{at}: {rule:locator}",
    0x020E DISCOVER_BAR "{at}: BAR {detail.1}: {rule:bar}",
    0x020F DISCOVER_OUTSIDE_BAR
        "{at}: the register block at offset {found:x} of BAR {detail} reaches beyond the {expected:size} that the BAR can have",
    0x0210 DISCOVER_NOT_FORWARDED
        "{at}: no window of port {expected:function} above forwards its registers at {found:x}",
    0x0211 DISCOVER_ARRAY "{at}: {rule:array}",
    0x0212 DISCOVER_DECODER_COUNT
        "{at}: the HDM Decoder Capability at {expected:x} is {found:x8}: decoder count code {detail} is not allowed here",
    0x0213 DISCOVER_TARGET_COUNT
        "{at}: the HDM Decoder Capability at {expected:x} is {found:x8}: target count {detail} is not 1, 2, 4 or 8",
    0x0214 DISCOVER_DECODERS_PAST_END
        "{at}: {found} HDM decoder{found|s||s} at {detail:x3} pass the end of the 4 KiB range",
    0x0215 DISCOVER_SHARED_REGISTERS
        "{at}: its HDM decoders at {found:x} are those of another component",
    0x0216 DISCOVER_HDM_COUNT "{at}: HDM_Count is {found}, a CXL.mem device has 1 or 2",
    0x0217 DISCOVER_NO_MEM_LINK
        "{at}: the link of {expected:function} did not train to CXL.mem (Flex Bus status {found:x4})",
    0x0218 DISCOVER_TIMEOUT
        "{at}: waited {expected} ms for {detail.0|range {detail.1} to have Memory_Info_Valid|range {detail.1} to have Memory_Active|mailbox and media to be ready|the mailbox doorbell to be clear|{found.1:opcode} to end}; the register reads {found.0:x8}",
    0x0219 DISCOVER_RANGE "{at}: range {detail.1}: {rule:range}",
    0x021A DISCOVER_PERSISTENT_FIRST
        "{at}: range 1 is persistent and range 2 volatile; volatile memory has to come first",
    0x021B DISCOVER_DEVICE_REGISTERS "{at}: {rule:device-array}",
    0x021C DISCOVER_SHORT_PAYLOAD
        "{at}: {detail:opcode} gave {found} bytes of payload, it has at least {expected}",
    0x021D DISCOVER_CAPACITY_TOO_LARGE
        "{at}: {expected:x} volatile and {found:x} persistent units or bytes pass the 64-bit space",
    0x021E DISCOVER_NO_BUS_NUMBERS "{at}: no bus number is left up to {expected:x2}",
    0x021F DISCOVER_NO_ROOM
        "{at}: BAR {detail.0} needs {detail.1:power} and there is no such room from {expected:x} to {found:x}",
    0x0220 DISCOVER_WINDOW "{at}: {rule:window}",
    0x0221 DISCOVER_CAPACITY "more than {expected} node{expected|s||s}: give the library a larger topology",
    0x0222 DISCOVER_SILENT
        "{at} answered its Vendor ID, and then all-ones: {detail:register} at {expected:x3} cannot be that",
    0x0223 DISCOVER_NO_CAPACITY
        "{at}: Identify Memory Device says that there is no memory, the range registers have {expected:size} of it",
    0x0224 DISCOVER_REQUIRED "{at}: required by the policy, and not found",
    // What discovery remarks.
    0x0280 DISCOVER_NO_MEM
        "{at}: a CXL device without CXL.mem (DVSEC CXL Capability {found:x4}): it has no memory to map",
    0x0281 DISCOVER_PLAIN_PORT
        "{at}: a bridge without CXL DVSECs: nothing behind it is looked for",
    0x0282 DISCOVER_INCOMPLETE
        "{at}: has the {detail:dvsec} DVSEC and no {expected|extensions for ports or Flex Bus port|CXL device} DVSEC: it is not taken for a CXL {expected|port|device}",
    0x0283 DISCOVER_MISPLACED
        "{at}: has the {detail:dvsec} DVSEC, and a function of PCI Express type {found:x} cannot be one of CXL here: it is passed over",
    0x0284 DISCOVER_LINK_WITHOUT_CXL
        "{at}: the link of {found:function} trained to CXL.mem, and this function has no CXL DVSEC: it is passed over",
    0x0285 DISCOVER_RANGE_NOT_COUNTED
        "{at}: range {detail} has {found:size}, is not active, and HDM_Count leaves it out: it is not used",
    0x0286 DISCOVER_NOT_PARTITIONED
        "{at}: has {expected:size}, of which {found:size} are in active partitions: the rest is not used",
    0x0287 DISCOVER_NO_PORTS "{at}: no CXL root port on its {found:bus}",
    0x0288 DISCOVER_LEFT_OUT "{at}: left out, as the policy asks; nothing there was touched",
    0x0289 DISCOVER_RCH
        "{at}: a CXL 1.1 host (RCH): it is in the table, and its memory is not programmed",
    0x028A DISCOVER_RCRB
        "{at}: a CXL 1.1 host, and its RCRB at {expected:x} {detail|is no page|does not answer|has Memory Space off|has no block of 64 KiB in BAR 0} (found {found:x8}): it is left out of the table, as Linux gives up every bridge for it",
    0x028B DISCOVER_MAILBOX_REFUSES
        "{at}: its mailbox refuses {detail:opcode} (return code {found:x4}): its memory is what its range registers say, volatile where they do not say of what kind",
    0x028C DISCOVER_WINDOW_BROKEN "{broken}; nothing is mapped there, and the table leaves it out",
    0x028D DISCOVER_RECORD_PASSED_OVER "CEDT: {at}: {rule:cedt}; the record is passed over",
    // What the flat path, or a build without a feature, does not do: refusals, no remarks.
    0x0290 DISCOVER_NOT_FLAT
        "{at}: {detail|a CXL 1.1 host bridge|its root bus is not given|resources to assign are given|has no decoders of its own|a switch|committed already|one bridge more than there is room for|one root port more than there is room for|one remark more than there is room for}: not for the flat path; the general path does it, or larger structures",
    0x0291 DISCOVER_NOT_BUILT
        "{at}: {detail|its mailbox has to say what kind of memory it has|resources to assign are given}, and the library was built without the feature {detail|mailbox|assign}",

    // The plan.
    0x0301 PLAN_NO_WINDOW
        "{at}: no window targets bridge {at:uid}, so its {expected:size} of {detail|volatile|persistent} memory have no place; the platform has to provide one",
    0x0302 PLAN_TARGET_MISSING "{at}: its target {found} is the UID of no bridge",
    0x0303 PLAN_AMBIGUOUS
        "{at}: {detail.1} windows fit its {detail.0|volatile|persistent} memory ({expected:x}, {found:x}{detail.1||||, ...}); ask for one by name, give one a width of its own, or say which to prefer",
    0x0304 PLAN_INTERLEAVED
        "{at}: window {found:x} interleaves {detail} bridges, a flat one is needed; give it a width for sets of all, or name the members of one",
    0x0305 PLAN_UNPLACED
        "{at}: its window of {found:size} has no base: the platform found no place for it (it did not fit)",
    0x0306 PLAN_BEYOND_ADDRESS_WIDTH
        "{at} of {found:size} ends beyond the physical address width of {expected} bits (it did not fit)",
    0x0307 PLAN_WINDOWS_OVERLAP "windows {at:window} and {found:x} overlap",
    0x0308 PLAN_WINDOW_TOO_SMALL
        "{at}: window {at:window} has {found:size}, {expected:size} are needed",
    0x0309 PLAN_WINDOW_FULL
        "{at}: window {at:window} has {found:size} left in one piece, {expected:size} are needed",
    0x030A PLAN_MEDIA_NOT_ALLOWED
        "{at}: window {found:x} does not allow {detail|volatile|persistent} memory",
    0x030B PLAN_COHERENCY_NOT_ALLOWED "{at}: window {found:x} does not allow {detail:coherency} memory",
    0x030C PLAN_DECODERS_EXHAUSTED "{at}: {found|none of the decoders|the only usable decoder|all {found} usable decoders} of {at:above} {found|can be used|is taken|are taken}",
    0x030D PLAN_NO_DECODERS
        "{at}: {at:above} has no HDM decoders, and is no host bridge with a single port",
    0x030E PLAN_DPA_ORDER
        "{at}: persistent memory would be mapped at {found:x}, below its volatile memory at {expected:x}; decoders go up in HPA and DPA together",
    0x030F PLAN_DUPLICATE_PORT "{at}: two ports have port number {found}",
    0x0310 PLAN_NO_BACK_INVALIDATE "{at}: needs back-invalidate, {at:above} has no BI structure",
    0x0311 PLAN_UNKNOWN_DEVICE "the policy names a device at {at}; there is none",
    0x0312 PLAN_UNKNOWN_WINDOW
        "{at}: the policy names window {found:x}, and no window there targets bridge {at:uid}",
    0x0313 PLAN_REQUEST_TOO_LARGE
        "{at}: {expected:size} of {detail|volatile|persistent} memory asked for, {found:size} left",
    0x0314 PLAN_UNALIGNED
        "{at}: {detail|skip|size|offset|window base|its memory of|its share of} {found:x} is not a multiple of {expected:size}",
    0x0315 PLAN_PLACE_TAKEN
        "{at}: {expected:size} at offset {found:x} of window {at:window} reach beyond it or overlap another region",
    0x0316 PLAN_MULTIPLE_PORTS
        "{at} has {found} port{found|s||s}; a guest may program the decoders only below a bridge with one (MultiplePorts)",
    0x0317 PLAN_SWITCH_IN_PATH
        "{at} is behind a switch; a guest may program the decoders only where there is none (SwitchInPath)",
    0x0318 PLAN_BRIDGE_NOT_PASS_THROUGH
        "{at} has {found} decoder{found|s||s} of its own; a guest may program the decoders only below a pass-through bridge (BridgeNotPassThrough)",
    0x0319 PLAN_LINUX_REFUSES_BURNED_DECODERS
        "Linux gives up on a port with a committed decoder of size 0; burn spare decoders only with the specification as target",
    0x031A PLAN_BURN_WITHOUT_LOCK
        "spare decoders can be burned only when the whole path is locked",
    0x031B PLAN_COMPOSE "{at}: {rule:compose}",
    0x031C PLAN_XOR "{at}: {rule:xor}",
    0x031D PLAN_DECODER "{at}: {rule:decode}",
    0x031E PLAN_CAPACITY
        "more than {expected} {detail|region|decoder|note|node}{expected|s||s}: give the library larger structures",
    0x031F PLAN_TARGET_COUNT "{at} interleaves {expected} way{expected|s||s} and has {found} target{found|s||s}",
    0x0320 PLAN_TARGET_TWICE "{at}: two of its targets are bridge {found}",
    0x0321 PLAN_DUPLICATE_BRIDGE "two host bridges have UID {at:uid}",
    0x0322 PLAN_SHARED_PORT "{at}: two components are linked to this port",
    0x0323 PLAN_BROKEN_TREE
        "node {at} of the topology has no place: its parent is missing, listed behind it, of the wrong kind, or too deep",
    0x0324 PLAN_DEVICE_TOO_LARGE
        "{at}: {expected:size} of volatile and {found:size} of persistent memory pass the end of its address space",
    0x0325 PLAN_REQUEST_TO_GUEST
        "{at}: a region is asked for, and the guest programs the decoders; choose one",
    0x0326 PLAN_WAYS_OF_WINDOW
        "{at} interleaves {expected} way{expected|s||s}; a set of {found} is not that times 1, 2, 4 or 8 a level",
    0x0327 PLAN_GRANULARITY_OF_WINDOW
        "{at} interleaves at {expected:size}; its sets cannot do so at {found:size}",
    0x0328 PLAN_TOO_FEW_MEMBERS
        "{at}: {expected} port{expected|s||s} with {detail|volatile|persistent} memory for the set {expected|are|is|are} needed below bridge {found.1}, {found.0} found",
    0x0329 PLAN_LINUX_GRANULARITY
        "{at}: Linux would want a granularity of {found:size} at the level below, 16 KiB is the coarsest",
    0x032A PLAN_LINUX_THREE_WITH_PORTS
        "{at}: below {found} ways Linux numbers the members of interleaving ports in another order than hardware",
    0x032B PLAN_WIDTH_OF_NOTHING "the policy gives a width to {at}; there is none",
    0x032C PLAN_WIDTH_TWICE "the policy gives two widths to {at}",
    0x032D PLAN_WIDTH_TO_GUEST
        "a set is asked for, and the guest programs the decoders; choose one",
    0x0330 PLAN_WINDOW_OCCUPIED "{at} reaches over {span}, where RAM or registers answer",
    0x0331 PLAN_NO_WINDOW_FOR_SET
        "{at}: no window leads to the bridges of all {found} members of its set",
    0x0332 PLAN_MEMBERS_OF_WINDOW
        "{at} interleaves {expected} way{expected|s||s}; a set of {found} member{found|s||s} is not that times 1, 2, 4, 8 or 16",
    0x0333 PLAN_LINUX_HOLE
        "{at}: window {at:window} has {found:size} up to a hole; decoders of {expected:size} reach into it, and Linux finds no window for them",
    0x0334 PLAN_HPA_ORDER
        "{at}: there is room at {found:x} only, and decoders on its way lead to addresses up to {expected:x} already; decoders go up in HPA",
    0x0335 PLAN_RESERVE_NOWHERE "the policy keeps room for devices to come at {at}; there is no port",
    0x0336 PLAN_RESERVE_BURNED
        "{at}: room is kept for devices to come, and spare decoders are to be burned; choose one",
    0x0337 PLAN_RESERVE_WINDOWS
        "{at}: room for it would lie in window {found:x}, and for other ports of the bridge in {expected:x}; as any of them may be filled first, it has to be one window",
    0x0340 PLAN_NO_ROOM_FOR_WINDOW
        "{at}: the free address space has no place for its window of {expected:size}; give more of it",
    0x0341 PLAN_WINDOW_BROKEN "{at}: its window cannot be used: {broken}",
    // What the flat path, or a build without a feature, does not do: refusals, no notes.
    0x0390 PLAN_NOT_FLAT
        "{at}: {detail|interleaves|has XOR arithmetic|starts at 0|has less than 256 MiB|back-invalidate comes into question|one region more than there is room for}: not for the flat path; the general path does it, or larger structures",
    0x0391 PLAN_NOT_BUILT
        "{at}: {detail|best effort|a set|XOR arithmetic|back-invalidate|a probe of memory|describing alone|earlier ranges|room for devices to come, or a device that came later,} asked for, and the library was built without the feature {detail|degrade|interleave|xor|back-invalidate|probe|describe|earlier|hot-plug}",

    // Programming, commit and locks.
    0x0401 COMMIT_NO_SUCH_DECODER "{at}: planned, but the topology has no such decoder",
    0x0402 COMMIT_ILLEGAL "{at}: {rule:decode}",
    0x0403 COMMIT_SILENT
        "{at}: {detail:register} reads all-ones: the component does not answer",
    0x0404 COMMIT_UNSETTLED
        "{at}: control is {found:x8}: a commit before this one was refused or has not ended",
    0x0405 COMMIT_FOREIGN_DECODER
        "{at}: somebody committed it for {found:size} at {expected:x}; the plan does not use it",
    0x0406 COMMIT_FOREIGN_CONTENTS
        "{at}: somebody committed it with {detail:register} {found:x8}; the plan has {expected:x8}",
    0x0407 COMMIT_FOREIGN_PART
        "{at}: not committed, while other decoders of the plan are; only a reset makes room for the whole",
    0x0408 COMMIT_FOREIGN_ENABLES
        "{at}: all decoders are as planned, but {detail:register} is {found:x4} instead of {expected:x4}",
    0x0409 COMMIT_CONFIG_LOCKED
        "{at}: CONFIG_LOCK keeps DVSEC CXL Control at {found:x4}, {expected:x4} is needed; only a reset clears it",
    0x040A COMMIT_NOT_KEPT
        "{at}: {detail:register} was written {expected:x8} and reads {found:x8}{found:ones}; nothing was committed",
    0x040B COMMIT_DEVICE_NOT_KEPT
        "{at}: {detail:register} was written {expected:x} and reads {found:x}{found:narrow-ones}",
    0x040C COMMIT_NO_BACK_INVALIDATE
        "{at}: memory with back-invalidate needs a BI structure here",
    0x040D COMMIT_BACK_INVALIDATE_REFUSED "{at}: the BI commit was refused, status {found:x8}",
    0x040E COMMIT_BACK_INVALIDATE_TIMEOUT
        "{at}: the BI commit has no result after {expected} us and {found} poll{found|s||s}",
    0x040F COMMIT_REFUSED
        "{at}: the hardware refused the commit (Error Not Committed), control {found:x8}",
    0x0410 COMMIT_TIMEOUT
        "{at}: the commit has no result after {expected} us and {found.1} poll{found.1|s||s}, control {found.0:x8}{found.0:lost}",
    0x0411 COMMIT_COMMITTED_OTHERWISE
        "{at}: committed, but control reads {found:x8} instead of {expected:x8}{found:ones}",
    0x0412 COMMIT_CAPACITY
        "the plan has {expected} decoder{expected|s||s}, and there is room for the fate of {found}: give the library larger structures",
    0x0413 COMMIT_WINDOW_BROKEN
        "{at}: committed in a window that cannot be used: {broken}",

    // Verification.
    0x0501 VERIFY_SILENT
        "{at}: {detail:register} reads all-ones: the component does not answer",
    0x0502 VERIFY_ILLEGAL "{at}: committed, but {rule:decode}",
    0x0503 VERIFY_OUT_OF_ORDER "{at}: committed, and the decoder before it is not",
    0x0504 VERIFY_OVERLAP
        "{at}: its range starts at {found:x}, the one before ends at {expected:x}",
    0x0505 VERIFY_ZERO_SIZE
        "{at}: committed with size 0; Linux gives up on the port (\"Committed with zero size\")",
    0x0506 VERIFY_OUTSIDE_WINDOWS "{at}: {span} lies in no window",
    0x0507 VERIFY_NOT_A_TARGET "{at}: window {found:x} does not lead to bridge {expected}",
    0x0508 VERIFY_COHERENCY_NOT_ALLOWED
        "{at}: window {found:x} does not allow {detail:coherency} memory",
    0x0509 VERIFY_MEDIA_NOT_ALLOWED
        "{at}: window {found:x} does not allow {detail|volatile|persistent} memory",
    0x050A VERIFY_BEYOND_CAPACITY
        "{at}: its memory ends at DPA {found:x}, the device has {expected:size}",
    0x050B VERIFY_CROSSES_PARTITION
        "{at}: DPA {found:ends} reaches over the end of volatile memory at {expected:x}",
    0x050C VERIFY_NO_DECODERS
        "{at}: {at:above} has no HDM decoders, and is no host bridge with a single port",
    0x050D VERIFY_NOT_CLAIMED "{at}: no committed decoder of {at:above} claims {span}",
    0x050E VERIFY_RANGE_DIFFERS "{at:above}: claims {found:range}, {at} has {expected:range}",
    0x050F VERIFY_WRONG_TARGET
        "{at:above}: does not lead to port {expected}, where {at} is",
    0x0510 VERIFY_COHERENCY_DIFFERS
        "{at}: {found:coherency}, the device's decoder is {expected:coherency}",
    0x0511 VERIFY_INTERLEAVE_DIFFERS
        "{at}: {found:interleave}, the levels above make {expected:interleave}",
    0x0512 VERIFY_COMPOSE "{at}: {rule:compose}",
    0x0513 VERIFY_SWITCHES_INTERLEAVE
        "{at}: a second switch level interleaves on this path",
    0x0514 VERIFY_MEMBERS "{at}: the set has {found} of {expected} member{expected|s||s}",
    0x0515 VERIFY_UNLOCKED_ON_PATH
        "{at}: not locked, HDM Decoder Control is {found:x8} (UnlockedOnPath)",
    0x0516 VERIFY_DECODERS_DISABLED
        "{at}: HDM Decoder Enable is 0, its decoders are not used",
    0x0517 VERIFY_MEMORY_DISABLED "{at}: Mem_Enable is 0, the device does not answer",
    0x0518 VERIFY_CONFIG_UNLOCKED "{at}: CONFIG_LOCK is 0",
    0x0519 VERIFY_BACK_INVALIDATE_BLOCKED
        "{at}: back-invalidate does not get through at {at:above}",
    0x051A VERIFY_LEADS_NOWHERE "{at}: claims {span}, and no device behind it does",
    0x051B VERIFY_NOT_COMMITTED "{at}: planned, and not committed",
    0x051C VERIFY_DIFFERS_FROM_PLAN
        "{at}: {detail:register} is {found:x8}, planned {expected:x8}",
    0x051D VERIFY_NOT_IN_PLAN "{at}: committed, and not in the plan",
    0x051E VERIFY_CAPACITY
        "more than {expected} decoder{expected|s are| is|s are} committed: give the library larger structures",
    0x051F VERIFY_PASS_THROUGH
        "{at} is a pass-through without decoders, nothing to lock there; Linux refuses regions behind it (\"failed to find decoder mapping\")",
    0x0520 VERIFY_UNUSED
        "{at}: {found:size} of {detail|volatile|persistent} memory unused: no decoder in use leads there",

    // Tables, and their check against the registers.
    0x0601 TABLES_NO_ROOM "the table needs {expected} bytes, the buffer has {found}",
    0x0602 TABLES_RECORD "CEDT: {at}: {rule:cedt}",
    0x0603 TABLES_BRIDGE "{at}: {rule:cedt}",
    0x0604 TABLES_WINDOW "{at}: {rule:cedt}",
    0x0605 TABLES_XOR_MAPS_DIFFER
        "windows {at:window} and {found:x} have different XOR maps for {expected:size}; a CEDT has one set for both",
    0x0606 TABLES_NOT_WHOLE "{at}: not part of a whole path, so no table is made",
    0x0607 TABLES_OUTSIDE_WINDOWS "{at}: {span} lies in no window",
    0x0608 TABLES_TABLE "CEDT: {rule:table}",
    0x0609 TABLES_BRIDGE_MISSING "the CEDT has no CHBS for {at}",
    0x060A TABLES_BRIDGE_ELSEWHERE
        "{at}: its decoders are at {expected:x}, the CEDT has its registers at {found:registers}",
    0x060B TABLES_DISAGREES "CEDT and decoders disagree: {finding}",
    0x060C TABLES_FIXED_UNLOCKED
        "{at}: fixed in the CEDT, and a decoder in it is not locked",
    0x060D TABLES_NOT_MADE "region {span}: the decoders do not make it, so no table is made",
    0x060E TABLES_UNREAD
        "not every decoder was read, so some may lead anywhere: no table is made",
    0x060F TABLES_CHANGED
        "{at}: {detail:register} was {expected:x8} when the table was made, is {found:x8}",
    0x0610 TABLES_DEVICE_CHANGED
        "{at}: {detail|HDM Decoder Enable|Mem_Enable|Cache_Enable|CONFIG_LOCK} was {expected} when the table was made, is {found}",
    0x0611 TABLES_SILENT
        "{at}: {detail:register} reads all-ones: the component does not answer",

    // The hand-off record.
    0x0701 HANDOFF_NO_ROOM
        "the hand-off record needs {expected} bytes, the buffer has {found}",
    0x0702 HANDOFF_NO_HEADER
        "a hand-off record starts with {expected} bytes, only {found} given",
    0x0703 HANDOFF_MAGIC "{at}: not a hand-off record, it starts with {found:bytes}",
    0x0704 HANDOFF_VERSION "{at}: hand-off record of version {found}; up to {expected} is known here",
    0x0705 HANDOFF_TRUNCATED "{at}: the hand-off record has {expected} bytes, only {found} given",
    0x0706 HANDOFF_SIZE
        "{at}: the hand-off record says {found} bytes, its parts make {expected}",
    0x0707 HANDOFF_DIGEST
        "{at}: the hand-off record has changed: digest {found:x16}, its bytes make {expected:x16}",
    0x0708 HANDOFF_CODE "{at}: {found:x2} has no meaning here",
    0x0709 HANDOFF_RANGE "{at}: base {expected:x} with size {found:x} is no range",
    0x070A HANDOFF_REGISTERS
        "the locked decoders' registers have digest {found:x16}, recorded was {expected:x16}",
    0x070B HANDOFF_SILENT
        "{at}: {detail:register} reads all-ones: the component does not answer",

    // Memory that does not answer as the registers say. The place is the device that is to answer.
    0x0901 PROBE_NOT_HELD
        "{expected:x}{at:answers}: no memory holds what is written there: wrote {found.0:x8}, read {found.1:x8}",
    0x0902 PROBE_ALIASED
        "{expected:x}{at:answers}: leads to the same memory as {found:x}",
    0x0903 PROBE_DISTURBED
        "{expected:x}{at:answers}: persistent memory changed while other memory was written: was {found.0:x8}, is {found.1:x8}",
    0x0904 PROBE_NOT_RESTORED
        "{expected:x}{at:answers}: held a mark, but does not take back what was there: wrote {found.0:x8}, read {found.1:x8}",
    0x0905 PROBE_UNEVEN
        "region {span} is not made of two or more stripes of {detail:granules} bytes",
    0x0906 PROBE_CAPACITY
        "the regions have more than {expected} way{expected|s||s}: give the library larger structures",

    // Putting back what a record has.
    0x0A01 RESTORE_CAPACITY
        "the record has {expected} component{expected|s||s}, and there is room for the outcome of {found}: give the library a larger list",
    0x0A02 RESTORE_NO_COMPONENTS
        "the hand-off record names no component, as one of version 1: there is nothing to restore from",
    0x0A03 RESTORE_NOT_DECODED "{at}: configuration space does not decode {found:bus}",
    0x0A04 RESTORE_GONE
        "{at}: nothing answers there within {expected} ms, Vendor and Device ID read {found:x8}",
    0x0A05 RESTORE_OTHER
        "{at}: not the component that was there: its {detail|device and vendor ID are|serial number is|HDM Decoder Capability is} {found:x}, recorded {expected:x}",
    0x0A06 RESTORE_RESIZED
        "{at}: has {found:size} of {detail|volatile|persistent} memory, recorded {expected:size}",
    0x0A07 RESTORE_LINK
        "{at}: the link has not trained to CXL.mem within {expected} ms (Flex Bus status {found:x4})",
    0x0A08 RESTORE_MOVED
        "{at}: configuration space at {detail:x3} is {found:x8}, recorded {expected:x8}; PCI was said to be restored",
    0x0A09 RESTORE_NOT_KEPT
        "{at}: configuration space at {detail:x3} was written {expected:x8} and reads {found:x8}",
    0x0A0A RESTORE_IN_USE
        "{at}: committed otherwise than recorded: {detail:register} is {found:x8}, recorded {expected:x8}",
}
