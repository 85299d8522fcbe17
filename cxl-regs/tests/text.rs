//! The text form of HDM register images, against images typed by hand.
//!
//! **Invariant**: no image here comes out of an encoder of the crate.

use cxl_regs::Component;
use cxl_regs::text::{Evidence, HdmProblem, HdmText, OrderProblem};
use proptest::prelude::*;

/// Little-endian bytes of dwords, in order of offset.
fn bytes(dwords: &[u32]) -> Vec<u8> {
    dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect()
}

const NONE: [u32; 8] = [0; 8];

/// A structure: capability, global control, reserved, decoders.
fn structure(capability: u32, global: u32, decoders: &[[u32; 8]]) -> Vec<u8> {
    let mut image = bytes(&[capability, global, 0, 0]);
    image.extend(decoders.iter().flat_map(|decoder| bytes(decoder)));
    image
}

fn text(image: &[u8], component: Option<Component>) -> String {
    HdmText::new(image, component).to_string()
}

/// The lines of one decoder.
fn decoder_lines(text: &str, index: usize) -> Vec<&str> {
    let heading = format!("decoder {index}");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    lines.take_while(|line| line.starts_with(' ')).collect()
}

#[test]
fn device_prints_ranges_and_dpa_that_count_skips_and_shares() {
    let image = structure(
        0x0000_1B12,
        2,
        &[
            // 512 MiB at 0x3d0000000 over two ways, locked; then 1 GiB with a skip of 256 MiB.
            [0xD000_0000, 0x3, 0x2000_0000, 0, 0x1710, 0, 0, 0],
            [0, 0x4, 0x4000_0000, 0, 0x1600, 0x1000_0000, 0, 0],
            NONE,
            NONE,
        ],
    );
    let expected = "\
hdm decoders of a device, 2 of 4 committed
  capability        0x00001b12  4 decoders, selects on HPA 14:8, 3/6/12 ways, 16 ways
  global control    0x00000002  decoders enabled
decoder 0
  base              0x00000003d0000000
  last              0x00000003efffffff
  size              0x0000000020000000  512 MiB
  control           0x00001710  committed, locked
  ways              0x1  2-way
  granularity       0x0  256 B
  type              0x1  host-only coherent (HDM-H)
  dpa skip          0x0000000000000000  0 B
  dpa base          0x0000000000000000
  dpa last          0x000000000fffffff
  dpa size          0x0000000010000000  256 MiB
decoder 1
  base              0x0000000400000000
  last              0x000000043fffffff
  size              0x0000000040000000  1 GiB
  control           0x00001600  committed
  ways              0x0  1-way
  granularity       0x0  256 B
  type              0x1  host-only coherent (HDM-H)
  dpa skip          0x0000000010000000  256 MiB
  dpa base          0x0000000020000000
  dpa last          0x000000005fffffff
  dpa size          0x0000000040000000  1 GiB
decoder 2
  unused            all registers 0
decoder 3
  unused            all registers 0
";
    assert_eq!(text(&image, Some(Component::Device)), expected);
}

#[test]
fn host_bridge_prints_targets_and_always_decodes() {
    let image =
        structure(0x0000_0320, 0, &[[0xD000_0000, 0x3, 0x2000_0000, 0, 0x1711, 0x0500_0302, 0, 0]]);
    let expected = "\
hdm decoders of a host bridge, 1 of 1 committed
  capability        0x00000320  1 decoder, 2 targets, selects on HPA 14:8
  global control    0x00000000  decoders always in use
decoder 0
  base              0x00000003d0000000
  last              0x00000003efffffff
  size              0x0000000020000000  512 MiB
  control           0x00001711  committed, locked
  ways              0x1  2-way
  granularity       0x1  512 B
  type              0x1  host-only coherent (HDM-H)
  target 0          0x02  port 2
  target 1          0x03  port 3
  target 3          0x05  not used
";
    assert_eq!(text(&image, Some(Component::HostBridge)), expected);
}

#[test]
fn optional_fields_show_only_where_set() {
    // BI, UIO, UIG 1, UIW 2, ISP 3 on an upstream port; type 0.
    let image = structure(0x0001_2380, 0, &[[0, 1, 0, 1, 0x0321_6600, 0x0403_0201, 0, 0]]);
    let printed = text(&image, Some(Component::UpstreamPort));
    assert!(printed.contains("HPA 14:8, UIO, 1 UIO decoder\n"), "{printed}");
    let expected = [
        "  type              0x0  device-coherent with back-invalidate (HDM-DB)",
        "  bi                0x1  back-invalidate",
        "  uio               0x1  unordered I/O allowed",
        "  uio ways          0x2  4-way",
        "  uio granularity   0x1  512 B",
        "  set position      0x3  3",
    ];
    assert_eq!(decoder_lines(&printed, 0)[6..12], expected, "{printed}");
}

#[test]
fn control_says_in_words_where_the_decoder_stands() {
    let cases = [
        (0x1000, "not committed"),
        (0x1100, "not committed, locks on commit"),
        (0x1300, "not committed, locks on commit, commit pending"),
        (0x1B00, "not committed, commit refused, locks on commit"),
        (0x1600, "committed"),
        (0x1700, "committed, locked"),
        (0x1500, "committed, locked, commit bit clear"),
        (0x9000_9600, "committed, reserved bits 0x90008000"),
    ];
    for (control, words) in cases {
        let image = structure(0x0300, 2, &[[0, 1, 0, 1, control, 0, 0, 0]]);
        let printed = text(&image, Some(Component::Device));
        let line = format!("  control           {control:#010x}  {words}");
        assert!(decoder_lines(&printed, 0).contains(&line.as_str()), "{printed}");
    }
}

#[test]
fn broken_rules_stand_behind_the_decoder_that_breaks_them() {
    let first = [0, 1, 0, 1, 0x1600, 0, 0, 0];
    let cases = [
        ([1, 2, 0, 1, 0x1600, 0, 0, 0], "problem", "base 0x200000001 is not 256 MiB aligned"),
        (
            [0, 0xFFFF_FFFF, 0, 1, 0x1600, 0, 0, 0],
            "problem",
            "base 0xffffffff00000000 + size 0x100000000 passes the end of the 64-bit space",
        ),
        (
            [0, 2, 0, 1, 0x1650, 0, 0, 0],
            "problem",
            "interleave ways code 0x5 is reserved (defined: 0-4, 8-a)",
        ),
        (
            [0, 2, 0, 1, 0x1607, 0, 0, 0],
            "problem",
            "interleave granularity code 0x7 is reserved (defined: 0-6)",
        ),
        (
            [0, 2, 0, 1, 0x1680, 0, 0, 0],
            "problem",
            "size 0x100000000 is not a multiple of 256 MiB x 3 ways",
        ),
        (
            [0, 2, 0, 1, 0x3600, 0, 0, 0],
            "problem",
            "BI is set on a host-only coherent range (type 1)",
        ),
        ([0, 2, 0, 1, 0x1600, 5, 0, 0], "problem", "DPA skip 0x5 is not a multiple of 256 MiB"),
        (
            [0xF000_0000, 1, 0, 1, 0x1600, 0, 0, 0],
            "problem",
            "base 0x1f0000000 lies below 0x200000000, where an earlier decoder ends",
        ),
        ([0, 2, 0, 0, 0x1700, 0, 0, 0], "note", "size is 0 (base 0x200000000): decodes nothing"),
        ([u32::MAX; 8], "problem", "all registers all-ones: nothing answers"),
    ];
    for (second, label, words) in cases {
        let image = structure(0x1B01, 2, &[first, second]);
        let printed = text(&image, None);
        let last = decoder_lines(&printed, 1).last().map(|line| line.trim_start().to_owned());
        let line = format!("{label:<18}{words}");
        assert_eq!(last, Some(line), "{printed}");
        let sane = decoder_lines(&printed, 0);
        assert!(!sane.iter().any(|line| line.contains("problem")), "{printed}");
    }
}

#[test]
fn committed_decoder_behind_an_uncommitted_one_is_a_problem() {
    let second = [0, 2, 0, 1, 0x1600, 0, 0, 0];
    let image = structure(0x1B01, 2, &[[0, 1, 0, 1, 0x1000, 0, 0, 0], second]);
    let orders: Vec<_> = HdmText::new(&image, None).decoders().map(|d| d.order).collect();
    assert_eq!(orders, [None, Some(OrderProblem::Gap { before: 0 })]);
}

#[test]
fn dpa_is_unknown_behind_a_decoder_that_breaks_a_rule() {
    let broken = [0, 1, 0, 1, 0x1650, 0, 0, 0];
    let image = structure(0x1B01, 2, &[broken, [0, 2, 0, 1, 0x1600, 0, 0, 0]]);
    let printed = text(&image, None);
    assert!(decoder_lines(&printed, 1).contains(&"  dpa base          unknown, as of decoder 0"));
}

#[test]
fn kind_of_component_is_recognised_by_fields_that_only_one_kind_has() {
    let device = Component::Device;
    let port = Component::HostBridge;
    let cases = [
        ("3, 6, 12 ways", 0x0000_0800, 0, device, Evidence::Field("3,6,12 Way")),
        ("16 ways", 0x0000_1010, 0, device, Evidence::Field("16 Way")),
        ("coherency models", 0x0060_0010, 0, device, Evidence::Field("Coherency Models")),
        ("8 targets", 0x0000_0382, 2, port, Evidence::Field("Target Count")),
        ("1 target", 0x0000_0312, 0, port, Evidence::Field("Target Count")),
        ("1 target, enabled", 0x0000_0312, 2, device, Evidence::Field("HDM Decoder Enable")),
        ("UIO decoders", 0x0002_2302, 0, port, Evidence::Field("UIO Decoder Count")),
        ("nothing", 0x0000_0302, 0, device, Evidence::Assumed),
    ];
    for (name, capability, global, component, evidence) in cases {
        let image = structure(capability, global, &[]);
        assert_eq!(HdmText::new(&image, None).component(), (component, evidence), "{name}");
        let forced = HdmText::new(&image, Some(Component::UpstreamPort));
        assert_eq!(forced.component(), (Component::UpstreamPort, Evidence::Given), "{name}");
    }
}

#[test]
fn recognised_kind_is_part_of_the_text() {
    let heading = |capability| {
        let printed = text(&structure(capability, 0, &[NONE]), None);
        printed.lines().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        heading(0x0380),
        [
            "hdm decoders of a host bridge or upstream port, 0 of 1 committed",
            "  component         recognised by its Target Count",
        ]
    );
    assert_eq!(
        heading(0x0300),
        [
            "hdm decoders of a device, 0 of 1 committed",
            "  component         assumed: no field tells",
        ]
    );
}

#[test]
fn structures_that_do_not_hold_together_say_why() {
    let whole = structure(0x1B12, 2, &[NONE, NONE, NONE, NONE]);
    let cases = [
        ("empty", vec![], HdmProblem::Truncated { need: 0x10, have: 0 }, 0),
        ("3 bytes", whole[..3].to_vec(), HdmProblem::Truncated { need: 0x10, have: 3 }, 0),
        ("cut", whole[..0x6F].to_vec(), HdmProblem::Truncated { need: 0x90, have: 0x6F }, 2),
        ("all-ones", vec![0xFF; 0x400], HdmProblem::NoAnswer, 0),
        ("count", structure(0x030D, 0, &[NONE; 32]), HdmProblem::ReservedCount { code: 0xD }, 0),
    ];
    for (name, image, problem, decoders) in cases {
        let read = HdmText::new(&image, None);
        assert_eq!(read.problem(), Some(problem), "{name}");
        assert_eq!(read.decoders().count(), decoders, "{name}");
        let line = format!("  problem           {problem}\n");
        assert!(text(&image, None).contains(&line), "{name}: {read}");
    }
    assert_eq!(HdmText::new(&whole, None).problem(), None);
}

#[test]
fn bytes_behind_the_structure_change_nothing() {
    let image = structure(0x1B00, 2, &[[0, 1, 0, 1, 0x1600, 0, 0, 0]]);
    let mut longer = image.clone();
    longer.extend([0xA5; 77]);
    assert_eq!(text(&image, None), text(&longer, None));
}

proptest! {
    #[test]
    fn any_bytes_have_a_text(
        image in prop::collection::vec(any::<u8>(), 0..0x420),
        count in any::<u8>(),
        component in prop::sample::select(vec![
            None,
            Some(Component::Device),
            Some(Component::HostBridge),
            Some(Component::UpstreamPort),
        ]),
    ) {
        let mut image = image;
        if let Some(first) = image.first_mut() {
            *first = count;
        }
        let printed = text(&image, component);
        prop_assert!(printed.starts_with("hdm decoders of a"));
        prop_assert!(printed.lines().all(|line| line == line.trim_end()));
    }
}
