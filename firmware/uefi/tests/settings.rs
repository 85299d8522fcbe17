//! The driver's text file, word by word, and what goes to the memory map.

use cxl_firmware::bring_up::Extent;
use cxl_firmware::committed::{CommittedRegion, Probed};
use cxl_firmware::platform::RootBus;
use cxl_firmware::policy::{OnFailure, PathPolicy, Probe, Width};
use cxl_firmware::topology::Partition;
use cxl_image::words::Misread;
use cxl_regs::{Coherency, Hpa, Interleave, Span};
use cxl_uefi::settings::{BadWord, Settings, Why};
use cxl_uefi::{given, roots};

fn parse(text: &str) -> Settings<'_> {
    Settings::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> (usize, &str, Why) {
    let BadWord { line, word, why } = Settings::parse(text).expect_err("a refusal");
    (line, word, why)
}

#[test]
fn an_empty_file_locks_all_there_is_and_starts_nothing() {
    for text in ["", "\u{feff}", "# nothing\r\n\r\n"] {
        let settings = parse(text);
        let policy = settings.words.policy(46);
        assert_eq!(policy.path, PathPolicy::LockAll);
        assert_eq!(policy.on_failure, OnFailure::BestEffort);
        assert_eq!((policy.width, policy.config_lock), (Width::Flat, false));
        assert_eq!(policy.probe, Probe::Below(Hpa(1 << 46)));
        assert_eq!((settings.next, settings.initrd, settings.line), (None, None, ""));
    }
}

#[test]
fn words_comments_and_a_command_line_are_told_apart() {
    let settings = parse(
        "strict config-lock # width=flat\r\n\
         \twidth=widest no-probe\n\
         next=\\EFI\\debian\\vmlinuz initrd=\\initrd.img\n\
         --  root=LABEL=a#b ro  \n\
         dump quiet bus=7:0:20",
    );
    let policy = settings.words.policy(46);
    assert_eq!((policy.on_failure, policy.config_lock), (OnFailure::Strict, true));
    assert_eq!((policy.width, policy.probe), (Width::Widest, Probe::Skip));
    assert_eq!(settings.next, Some("\\EFI\\debian\\vmlinuz"));
    assert_eq!(settings.initrd, Some("\\initrd.img"));
    assert_eq!(settings.line, "root=LABEL=a#b ro");
    assert!(settings.dump && settings.quiet);
    assert_eq!(settings.words.roots.as_slice(), [(7, RootBus { segment: 0, bus: 0x20 })]);
}

#[test]
fn what_makes_no_sense_is_refused_by_line_and_word() {
    let unknown = Why::Misread(Misread::Unknown);
    assert_eq!(refused("config-lock\nconfiglock"), (2, "configlock", unknown));
    let (line, word, why) = refused("width=3x100");
    assert_eq!((line, word), (1, "width=3x100"));
    assert!(matches!(why, Why::Misread(Misread::Value { key: "width", .. })), "{why:?}");
    let words = Settings::parse("\nnext").expect_err("a refusal").to_string();
    assert_eq!(words, "line 2: \"next\" is no path: expected one that begins with \\");
    let words = Settings::parse("broken-sets=wide").expect_err("a refusal").to_string();
    let expected = "expected behind broken-sets=: narrower, flat or unused";
    assert_eq!(words, format!("line 1: \"broken-sets=wide\": {expected}"));
    let words = Settings::parse("pathe=unlocked").expect_err("a refusal").to_string();
    let expected = "expected one of the words dump, quiet, next, initrd, path, config-lock, ";
    assert!(words.starts_with(&format!("line 1: \"pathe=unlocked\": {expected}")), "{words}");
    // Words of the bare-metal image that mean nothing here.
    assert_eq!(refused("payload=linux"), (1, "payload=linux", unknown));
    assert_eq!(refused("next=vmlinuz"), (1, "next=vmlinuz", Why::Path));
    assert_eq!(refused("next="), (1, "next=", Why::Path));
    assert_eq!(refused("next=\\a\nnext=\\b"), (2, "next=\\b", Why::Again));
    assert_eq!(refused("next=\\\u{e4}"), (1, "next=\\\u{e4}", Why::Text));
    assert_eq!(refused("initrd=\\i"), (1, "initrd=\\i", Why::NoNext));
    assert_eq!(refused("-- ro"), (1, "-- ro", Why::NoNext));
    assert_eq!(refused("next=\\k\n-- a\n-- b"), (3, "-- b", Why::Again));
    let long = format!("next=\\{}", "k".repeat(1024));
    assert_eq!(refused(&long), (1, long.as_str(), Why::Text));
}

#[test]
fn the_file_counts_where_it_and_the_firmware_say_a_root_bus() {
    let bus = |bus| RootBus { segment: 0, bus };
    let roots = roots::roots(&[(7, bus(0x20))], [(0, bus(0)), (7, bus(7)), (16, bus(16))]);
    let roots = roots.expect("room for all");
    assert_eq!(roots.as_slice(), [(7, bus(0x20)), (0, bus(0)), (16, bus(16))]);
    let many = (0..33).map(|uid| (uid, bus(0)));
    assert_eq!(roots::roots(&[], many), None);
}

#[test]
fn volatile_regions_that_were_brought_up_are_given_and_nothing_else() {
    let region = |base, partition| CommittedRegion {
        span: Span::new(Hpa(base), 0x1000_0000).expect("a span"),
        window: Hpa(0x1_0000_0000),
        interleave: Interleave::NONE,
        coherency: Coherency::HostOnly,
        partition,
        locked: true,
        probed: Probed::Held,
    };
    let regions = [
        region(0x1_0000_0000, Partition::Volatile),
        region(0x1_1000_0000, Partition::Persistent),
        region(0x1_2000_0000, Partition::Volatile),
    ];
    let given = |extent, path| -> Vec<u64> {
        let given = given::ranges(extent, path, &regions);
        given.iter().map(|span| span.base().0).collect()
    };
    let both = vec![0x1_0000_0000, 0x1_2000_0000];
    assert_eq!(given(Some(Extent::Whole), PathPolicy::LockAll), both);
    assert_eq!(given(Some(Extent::Whole), PathPolicy::Unlocked), both);
    assert_eq!(given(None, PathPolicy::LockAll), []);
    assert_eq!(given(Some(Extent::Whole), PathPolicy::Describe), []);
    assert_eq!(given(Some(Extent::Whole), PathPolicy::GuestPrograms), []);
    // Of ranges that touch, in any order, every second one.
    let touching: Vec<_> = [0x1_3000_0000, 0x1_0000_0000, 0x1_1000_0000, 0x1_2000_0000]
        .map(|base| region(base, Partition::Volatile))
        .into();
    let given = given::ranges(Some(Extent::Whole), PathPolicy::LockAll, &touching);
    assert_eq!(
        given.iter().map(|s| s.base().0).collect::<Vec<_>>(),
        [0x1_0000_0000, 0x1_2000_0000]
    );
    // Specific-purpose, and cacheable in each way that there is (UEFI 2.10 section 7.2.3).
    assert_eq!(given::ATTRIBUTES, 0x4_0000 | 0x8 | 0x4 | 0x2 | 0x1);
}
