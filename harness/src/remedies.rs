//! What to do about each refusal of the library, by its number, and its sentence for people.
//!
//! A sentence of the library says where, what was expected and what was found; what its reader does
//! about it is said here, where it costs a bootloader nothing.
//!
//! **Invariant**: every code has exactly one remedy (a test below).

use std::fmt::Write as _;

use cxl_firmware::error::Code;

/// What to do about a refusal; `None` for a number that is no refusal's.
pub fn of(code: Code) -> Option<&'static str> {
    REMEDIES.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, remedy)| *remedy)
}

/// A code's sentence with what an error fills in as words: `{expected:size}` is `<expected: size>`,
/// `{detail|volatile|persistent}` is `<volatile|persistent>`.
pub fn sentence(code: Code) -> Option<String> {
    code.sentence().map(readable)
}

fn readable(sentence: &str) -> String {
    let mut text = String::new();
    let mut rest = sentence;
    while let Some((before, behind)) = rest.split_once('{') {
        text.push_str(before);
        // A choice may have holes of its own.
        let mut depth = 1;
        let end = behind.find(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let (hole, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let words = match hole.split_once('|') {
            Some((_, choices)) => {
                let choices =
                    choices.split('|').map(readable).map(|text| text.replace(['<', '>'], ""));
                choices.filter(|choice| !choice.is_empty()).collect::<Vec<_>>().join("|")
            }
            None => match hole.split_once(':') {
                // How digits are shown is nothing to read.
                Some((value, "x" | "x2" | "x3" | "x4" | "x8" | "x16")) => named(value),
                Some(("rule", of)) => format!("which rule of {of}"),
                Some((value, how)) => format!("{}: {how}", named(value)),
                None => named(hole),
            },
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "<{words}>");
        rest = behind.get(1..).unwrap_or_default();
    }
    text + rest
}

fn named(value: &str) -> String {
    let (value, half) = value.split_once('.').unwrap_or((value, ""));
    let value = if value == "at" { "where" } else { value };
    format!("{value} {half}").trim_end().to_owned()
}

/// Codes that one remedy serves.
type Remedy = (&'static [Code], &'static str);

const REMEDIES: &[Remedy] = &[
    // The platform's tables.
    (
        &[Code::PLATFORM_RSDP],
        "Give the address of the RSDP that the loader or firmware names; its signature and both \
         checksums have to be right.",
    ),
    (
        &[Code::PLATFORM_TABLE, Code::PLATFORM_MCFG, Code::PLATFORM_CEDT],
        "Take the table as the platform published it; length and checksum of its header have to \
         match its bytes.",
    ),
    (
        &[Code::PLATFORM_NO_TABLE],
        "The platform has to publish this table, or the caller fills in the platform by hand.",
    ),
    (&[Code::PLATFORM_TABLE_TOO_LARGE], "Give a buffer of the size that the sentence names."),
    (
        &[Code::PLATFORM_ALLOCATION],
        "Correct the allocation where the MCFG is made: a base on a multiple of 1 MiB for each bus, \
         and buses that ascend.",
    ),
    (
        &[Code::PLATFORM_RECORD, Code::DISCOVER_RECORD_PASSED_OVER],
        "Correct the record where the CEDT is made; `cxl-harness decode` shows the table byte by \
         byte, and `cxl-harness lint` says what Linux does with it.",
    ),
    (
        &[
            Code::PLATFORM_CAPACITY,
            Code::DISCOVER_CAPACITY,
            Code::PLAN_CAPACITY,
            Code::COMMIT_CAPACITY,
            Code::VERIFY_CAPACITY,
            Code::PROBE_CAPACITY,
            Code::RESTORE_CAPACITY,
        ],
        "Nothing is wrong with the machine: give the library a larger workspace.",
    ),
    // Discovery.
    (
        &[Code::DISCOVER_DUPLICATE_UID, Code::PLAN_DUPLICATE_BRIDGE],
        "Each bridge needs a UID of its own: correct the CHBS records or the list of bridges.",
    ),
    (
        &[Code::DISCOVER_SHARED_ROOT_BUS, Code::DISCOVER_ROOT_BUS_UNKNOWN],
        "Say which root bus each bridge has (its ACPI _BBN) where the platform is described.",
    ),
    (
        &[Code::DISCOVER_NOT_DECODED, Code::RESTORE_NOT_DECODED],
        "Give an ECAM range that covers the bus, or number the buses within the range that there is.",
    ),
    (
        &[Code::DISCOVER_BUS_LOOP, Code::DISCOVER_BUS_NUMBERS],
        "Number the buses anew: each bridge's secondary and subordinate bus lie within those of the \
         bridge above, and no two overlap.",
    ),
    (
        &[Code::DISCOVER_TOO_DEEP],
        "The library follows that many ports and no more; attach the device nearer to the bridge.",
    ),
    (
        &[Code::DISCOVER_UNASSIGNED],
        "Assign buses and BARs first, or give the library bus numbers and a range of addresses to \
         assign from.",
    ),
    (
        &[
            Code::DISCOVER_CAPABILITIES,
            Code::DISCOVER_DVSECS,
            Code::DISCOVER_SHORT_DVSEC,
            Code::DISCOVER_LOCATOR,
            Code::DISCOVER_ARRAY,
            Code::DISCOVER_DEVICE_REGISTERS,
            Code::DISCOVER_DECODER_COUNT,
            Code::DISCOVER_TARGET_COUNT,
            Code::DISCOVER_DECODERS_PAST_END,
            Code::DISCOVER_HDM_COUNT,
        ],
        "The function's registers break the specification at that offset: look at them with \
         `lspci -xxxx` and `cxl-harness decode`, and leave the component out (`leave_out`) until its \
         firmware is mended.",
    ),
    (
        &[Code::DISCOVER_BAR, Code::DISCOVER_OUTSIDE_BAR],
        "The BAR has to be a memory BAR, assigned, and large enough for the block that the Register \
         Locator names; check what assigned it, and the locator.",
    ),
    (
        &[Code::DISCOVER_NOT_FORWARDED, Code::DISCOVER_WINDOW],
        "Open the memory windows of the ports above so that they take in the device's BARs.",
    ),
    (
        &[Code::DISCOVER_SHARED_REGISTERS],
        "Two components may not have one register block: check CHBS bases and BARs for an overlap.",
    ),
    (
        &[Code::DISCOVER_NO_MEM_LINK, Code::RESTORE_LINK],
        "The link runs as plain PCIe: look at the slot, the retimer and the Flex Bus settings of both \
         ends. Under best effort the rest of the machine is used.",
    ),
    (
        &[Code::DISCOVER_TIMEOUT],
        "The device was not ready in the time that it may take. Reset it; where it is slow by design, \
         allow more time in the policy.",
    ),
    (
        &[
            Code::DISCOVER_RANGE,
            Code::DISCOVER_PERSISTENT_FIRST,
            Code::DISCOVER_SHORT_PAYLOAD,
            Code::DISCOVER_CAPACITY_TOO_LARGE,
            Code::DISCOVER_NO_CAPACITY,
        ],
        "What the device says of its memory makes no sense: update its firmware, or partition it \
         anew; leave it out (`leave_out`) until then.",
    ),
    (
        &[Code::DISCOVER_NO_BUS_NUMBERS, Code::DISCOVER_NO_ROOM],
        "Give the library more bus numbers or a larger range of addresses to assign from.",
    ),
    (
        &[
            Code::DISCOVER_SILENT,
            Code::COMMIT_SILENT,
            Code::VERIFY_SILENT,
            Code::TABLES_SILENT,
            Code::HANDOFF_SILENT,
        ],
        "The component stopped answering (all-ones): look for a link that went down, a BAR that is \
         not forwarded, or a reset in the middle.",
    ),
    (
        &[Code::DISCOVER_REQUIRED],
        "The policy requires this component: put it in, or take it off the list of `required`.",
    ),
    (
        &[
            Code::DISCOVER_NO_MEM,
            Code::DISCOVER_PLAIN_PORT,
            Code::DISCOVER_NO_PORTS,
            Code::DISCOVER_LEFT_OUT,
            Code::DISCOVER_RCH,
            Code::VERIFY_PASS_THROUGH,
        ],
        "Nothing, where the machine is meant to be so; this is no failure.",
    ),
    (
        &[Code::DISCOVER_INCOMPLETE, Code::DISCOVER_MISPLACED, Code::DISCOVER_LINK_WITHOUT_CXL],
        "Nothing, unless the function should be a CXL one: then its DVSECs are incomplete, which its \
         firmware has to mend.",
    ),
    (
        &[Code::DISCOVER_RANGE_NOT_COUNTED, Code::DISCOVER_NOT_PARTITIONED, Code::VERIFY_UNUSED],
        "Nothing, unless that memory is missed: then activate its range, partition the device, or \
         ask for it in the policy.",
    ),
    (
        &[Code::DISCOVER_MAILBOX_REFUSES],
        "Nothing, where all of it is volatile. Else mend the device's firmware: persistent memory that \
         no command and no range register tells of is given away as volatile.",
    ),
    (
        &[Code::DISCOVER_WINDOW_BROKEN, Code::PLAN_WINDOW_BROKEN, Code::COMMIT_WINDOW_BROKEN],
        "Mend the window in the platform's table, as the sentence says. What is committed in it is given \
         back only by a reset.",
    ),
    (&[Code::DISCOVER_RCRB], "Publish the RCRB where it answers, or no CHBS for this host at all."),
    (
        &[Code::DISCOVER_NOT_FLAT, Code::PLAN_NOT_FLAT],
        "Take the general path (`bring_up`) for this machine, or give the flat one larger structures.",
    ),
    (
        &[Code::DISCOVER_NOT_BUILT, Code::PLAN_NOT_BUILT],
        "Build cxl-firmware with the feature that the sentence names, or do not ask for it.",
    ),
    // The plan.
    (
        &[Code::PLAN_NO_WINDOW, Code::PLAN_NO_WINDOW_FOR_SET],
        "The platform has to provide a window with these bridges as targets, or let the library make \
         windows of its own.",
    ),
    (
        &[Code::PLAN_TARGET_MISSING, Code::PLAN_TARGET_COUNT, Code::PLAN_TARGET_TWICE],
        "Correct the targets of the window: as many as its ways, each the UID of a bridge, none twice.",
    ),
    (
        &[Code::PLAN_AMBIGUOUS],
        "Name a window in a [[region]], give one window a width of its own, or let the policy prefer \
         the widest, the narrowest or the lowest.",
    ),
    (
        &[Code::PLAN_INTERLEAVED],
        "Ask for a set over all bridges of the window (interleave), name its members in a \
         [[region]], or provide a window with one target.",
    ),
    (
        &[
            Code::PLAN_UNPLACED,
            Code::PLAN_BEYOND_ADDRESS_WIDTH,
            Code::PLAN_WINDOWS_OVERLAP,
            Code::PLAN_WINDOW_OCCUPIED,
            Code::PLAN_NO_ROOM_FOR_WINDOW,
        ],
        "Place the windows anew: below the physical address width, beside each other, RAM and \
         registers; or give the library more room for them.",
    ),
    (
        &[
            Code::PLAN_WINDOW_TOO_SMALL,
            Code::PLAN_WINDOW_FULL,
            Code::PLAN_REQUEST_TOO_LARGE,
            Code::PLAN_PLACE_TAKEN,
        ],
        "Ask for less, for another place or for another window, or make the window larger.",
    ),
    (
        &[
            Code::PLAN_MEDIA_NOT_ALLOWED,
            Code::PLAN_COHERENCY_NOT_ALLOWED,
            Code::VERIFY_COHERENCY_NOT_ALLOWED,
            Code::VERIFY_MEDIA_NOT_ALLOWED,
        ],
        "The window's restrictions have to allow this kind of memory; take another window, or \
         correct the restrictions.",
    ),
    (
        &[Code::PLAN_DECODERS_EXHAUSTED],
        "Map less behind this component: fewer ranges of a device, or sets instead of single regions.",
    ),
    (
        &[Code::PLAN_NO_DECODERS, Code::VERIFY_NO_DECODERS],
        "A bridge or switch with more than one way needs HDM decoders; without them only a bridge \
         with a single port can pass memory through.",
    ),
    (
        &[Code::PLAN_DPA_ORDER],
        "Ask for the device's ranges so that addresses ascend with device addresses: volatile memory \
         first, below its persistent memory.",
    ),
    (
        &[Code::PLAN_DUPLICATE_PORT, Code::PLAN_SHARED_PORT, Code::PLAN_BROKEN_TREE],
        "The topology that was handed to the planner is no tree of ports with numbers of their own: \
         take it from discovery, or correct the caller.",
    ),
    (
        &[Code::PLAN_NO_BACK_INVALIDATE, Code::COMMIT_NO_BACK_INVALIDATE],
        "Put the device below ports with a BI Route Table and a BI Decoder, or use its memory without \
         back-invalidate if it offers that.",
    ),
    (
        &[
            Code::PLAN_UNKNOWN_DEVICE,
            Code::PLAN_UNKNOWN_WINDOW,
            Code::PLAN_WIDTH_OF_NOTHING,
            Code::PLAN_WIDTH_TWICE,
        ],
        "Correct the policy: it has to name what is there, once.",
    ),
    (
        &[Code::PLAN_UNALIGNED],
        "Use multiples of 256 MiB times the number of ways, for sizes, offsets and window bases alike.",
    ),
    (
        &[Code::PLAN_MULTIPLE_PORTS, Code::PLAN_SWITCH_IN_PATH, Code::PLAN_BRIDGE_NOT_PASS_THROUGH],
        "Let the firmware lock the path (path 1), or give the guest a bridge with one port, without \
         decoders and without a switch.",
    ),
    (
        &[Code::PLAN_LINUX_REFUSES_BURNED_DECODERS, Code::PLAN_BURN_WITHOUT_LOCK],
        "Do not burn spare decoders, or do it with everything locked and the specification as target.",
    ),
    (
        &[
            Code::PLAN_COMPOSE,
            Code::PLAN_XOR,
            Code::PLAN_DECODER,
            Code::PLAN_WAYS_OF_WINDOW,
            Code::PLAN_GRANULARITY_OF_WINDOW,
            Code::PLAN_MEMBERS_OF_WINDOW,
        ],
        "No decoders can do this interleave: choose ways and granularity that divide over window, \
         bridge and switch.",
    ),
    (
        &[Code::PLAN_REQUEST_TO_GUEST, Code::PLAN_WIDTH_TO_GUEST],
        "Either the firmware plans (ask for regions and sets), or the guest programs (ask for none).",
    ),
    (
        &[Code::PLAN_TOO_FEW_MEMBERS],
        "Ask for a narrower set, or put more devices below this bridge.",
    ),
    (
        &[Code::PLAN_LINUX_GRANULARITY, Code::PLAN_LINUX_THREE_WITH_PORTS, Code::PLAN_LINUX_HOLE],
        "Hardware would do it, and Linux would not take it: choose another shape, or say that the \
         specification is the target of the policy.",
    ),
    (
        &[
            Code::PLAN_HPA_ORDER,
            Code::PLAN_RESERVE_NOWHERE,
            Code::PLAN_RESERVE_BURNED,
            Code::PLAN_RESERVE_WINDOWS,
        ],
        "A bridge's decoders are committed in order and by ascending address: keep room for devices to \
         come in one window, above all that is mapped below the bridge, at ports that there are, and \
         leave its spare decoders alone.",
    ),
    (
        &[Code::PLAN_DEVICE_TOO_LARGE],
        "The capacities that the topology has for this device cannot be right; look at what filled it.",
    ),
    // Programming, commit and locks.
    (
        &[Code::COMMIT_NO_SUCH_DECODER],
        "Plan and topology are of different machines: discover and plan again.",
    ),
    (
        &[Code::COMMIT_ILLEGAL],
        "Take the plan as the planner made it; a decoder like this one does not decode.",
    ),
    (
        &[
            Code::COMMIT_UNSETTLED,
            Code::COMMIT_FOREIGN_DECODER,
            Code::COMMIT_FOREIGN_CONTENTS,
            Code::COMMIT_FOREIGN_PART,
            Code::COMMIT_FOREIGN_ENABLES,
            Code::COMMIT_CONFIG_LOCKED,
        ],
        "Something was programmed before: reset the component (or the platform, where it is locked), \
         or find out who did it and let only one of the two do it.",
    ),
    (
        &[
            Code::COMMIT_NOT_KEPT,
            Code::COMMIT_DEVICE_NOT_KEPT,
            Code::COMMIT_COMMITTED_OTHERWISE,
            Code::RESTORE_NOT_KEPT,
        ],
        "The component does not hold what is written: bits that it does not implement, a lock, or a \
         defect. Leave it out (`leave_out`) to use the rest.",
    ),
    (
        &[
            Code::COMMIT_BACK_INVALIDATE_REFUSED,
            Code::COMMIT_BACK_INVALIDATE_TIMEOUT,
            Code::COMMIT_REFUSED,
            Code::COMMIT_TIMEOUT,
        ],
        "The component refuses the values or is defective. Look at its decoders with `cxl-harness \
         decode`; best effort uses the rest of the machine, `leave_out` leaves this one alone.",
    ),
    // Verification.
    (
        &[
            Code::VERIFY_ILLEGAL,
            Code::VERIFY_OUT_OF_ORDER,
            Code::VERIFY_OVERLAP,
            Code::VERIFY_ZERO_SIZE,
            Code::VERIFY_BEYOND_CAPACITY,
            Code::VERIFY_CROSSES_PARTITION,
        ],
        "The decoder holds what the specification or Linux forbids: reset the component and program \
         it anew.",
    ),
    (
        &[Code::VERIFY_OUTSIDE_WINDOWS, Code::VERIFY_NOT_A_TARGET, Code::TABLES_OUTSIDE_WINDOWS],
        "Decoders and windows disagree: publish the window that leads there, or program the decoders \
         within those that there are.",
    ),
    (
        &[
            Code::VERIFY_NOT_CLAIMED,
            Code::VERIFY_RANGE_DIFFERS,
            Code::VERIFY_WRONG_TARGET,
            Code::VERIFY_COHERENCY_DIFFERS,
            Code::VERIFY_INTERLEAVE_DIFFERS,
            Code::VERIFY_COMPOSE,
            Code::VERIFY_SWITCHES_INTERLEAVE,
            Code::VERIFY_MEMBERS,
            Code::VERIFY_LEADS_NOWHERE,
            Code::TABLES_NOT_WHOLE,
            Code::TABLES_NOT_MADE,
        ],
        "The decoders of the path do not fit together: `cxl-harness explain` shows where an address \
         is lost. Reset and program all of the path.",
    ),
    (
        &[Code::VERIFY_UNLOCKED_ON_PATH, Code::VERIFY_CONFIG_UNLOCKED, Code::TABLES_FIXED_UNLOCKED],
        "Lock it before hand-off (path 1), or do not describe it as fixed.",
    ),
    (
        &[
            Code::VERIFY_DECODERS_DISABLED,
            Code::VERIFY_MEMORY_DISABLED,
            Code::VERIFY_BACK_INVALIDATE_BLOCKED,
        ],
        "Set the enable: HDM Decoder Enable, Mem_Enable and BI Enable belong to the path as its \
         decoders do.",
    ),
    (
        &[
            Code::VERIFY_NOT_COMMITTED,
            Code::VERIFY_DIFFERS_FROM_PLAN,
            Code::VERIFY_NOT_IN_PLAN,
            Code::TABLES_CHANGED,
            Code::TABLES_DEVICE_CHANGED,
        ],
        "Registers changed behind the firmware's back, or were never as planned: find out who writes \
         them, and lock earlier.",
    ),
    // Tables.
    (
        &[Code::TABLES_NO_ROOM, Code::HANDOFF_NO_ROOM],
        "Give a buffer of the size that the sentence names.",
    ),
    (
        &[
            Code::TABLES_RECORD,
            Code::TABLES_BRIDGE,
            Code::TABLES_WINDOW,
            Code::TABLES_TABLE,
            Code::TABLES_BRIDGE_MISSING,
            Code::TABLES_BRIDGE_ELSEWHERE,
        ],
        "Correct the description of the platform that the table is made of, or the table that is \
         checked.",
    ),
    (
        &[Code::TABLES_XOR_MAPS_DIFFER],
        "A CEDT has one set of XOR maps for a granularity: give both windows the same, or one of them \
         another granularity.",
    ),
    (
        &[Code::TABLES_DISAGREES],
        "Make the table from the decoders that are committed, after the last change to them; the \
         finding inside says which of the two is wrong.",
    ),
    (&[Code::TABLES_UNREAD], "Make every component answer, or leave it out before the run."),
    // The hand-off record.
    (
        &[
            Code::HANDOFF_NO_HEADER,
            Code::HANDOFF_MAGIC,
            Code::HANDOFF_TRUNCATED,
            Code::HANDOFF_SIZE,
            Code::HANDOFF_DIGEST,
            Code::HANDOFF_CODE,
            Code::HANDOFF_RANGE,
        ],
        "These bytes are no record as it was written: take all of it, from its first byte, and let \
         nothing write over it.",
    ),
    (&[Code::HANDOFF_VERSION], "Read it with a library that is as new as the one that wrote it."),
    (
        &[Code::HANDOFF_REGISTERS],
        "The locked registers changed since the record was made: a reset, or a lock that does not \
         hold. Restore from the record, or bring the machine up again.",
    ),
    // Memory that does not answer.
    (
        &[
            Code::PROBE_NOT_HELD,
            Code::PROBE_ALIASED,
            Code::PROBE_DISTURBED,
            Code::PROBE_NOT_RESTORED,
        ],
        "The registers look right, and memory does not do what they say: do not use it. Look for \
         capacity that is not there, media errors, or a level that decodes otherwise than it says.",
    ),
    (&[Code::PROBE_UNEVEN], "Probe regions as the plan has them."),
    // Putting back.
    (
        &[Code::RESTORE_NO_COMPONENTS],
        "Write a record with this version of the library; until then bring the machine up anew.",
    ),
    (
        &[Code::RESTORE_GONE, Code::RESTORE_OTHER, Code::RESTORE_RESIZED, Code::RESTORE_IN_USE],
        "The machine is not the one that was recorded: bring it up anew.",
    ),
    (
        &[Code::RESTORE_MOVED],
        "Let the library put PCI back too, or put back the addresses that were recorded.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_words() {
        assert_eq!(
            readable(
                "{at}: {expected:size} of {detail|a|b of {found}|}, {found.1:x8}, {rule:cedt}."
            ),
            "<where>: <expected: size> of <a|b of found>, <found 1>, <which rule of cedt>."
        );
        for &code in Code::ALL {
            let sentence = sentence(code).expect("sentences are linked");
            assert!(!sentence.contains(['{', '}']), "{sentence}");
            assert_eq!(sentence.matches('<').count(), sentence.matches('>').count(), "{sentence}");
        }
    }

    #[test]
    fn every_code_has_one_remedy() {
        for code in Code::ALL {
            let count = REMEDIES.iter().filter(|(codes, _)| codes.contains(code)).count();
            assert_eq!(count, 1, "{code:?} ({:#06x})", code.number());
        }
        let all: usize = REMEDIES.iter().map(|(codes, _)| codes.len()).sum();
        assert_eq!(all, Code::ALL.len());
    }
}
