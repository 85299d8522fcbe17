//! The words of a policy: each is taken, and what cannot be is refused with what may stand there.
//!
//! **Invariant**: a word that is refused changes nothing, and none is passed over.

use cxl_firmware::policy::{BrokenSets, LeaveOut, OnFailure, PathPolicy};
use cxl_firmware::topology::Path;
use cxl_image::words::{Misread, Words, parts};

/// Each key with a value that it takes, and one that it does not.
const CASES: [(&str, &str, &str); 22] = [
    ("path", "=unlocked", "=lock"),
    ("config-lock", "", "=yes"),
    ("burn-spares", "", "=1"),
    ("enable-cache", "", "=on"),
    ("target", "=specification", "=windows"),
    ("width", "=2x256", "=2"),
    ("window", "=0x100000000:flat", "=0x100000000"),
    ("leftovers", "", "=0"),
    ("strict", "", "=no"),
    ("best-effort", "", "=no"),
    ("no-trial", "", "=1"),
    ("broken-sets", "=flat", "=wide"),
    ("prefer", "=lowest", "="),
    ("required", "=0/1", "=hb0"),
    ("leave-out", "=8086:d93:1f", "=8086:d93:1f:0"),
    ("reserve", "=0,volatile,4096", "=0,volatile"),
    ("earlier", "=0/0,volatile,0x100000000,0x10000000,1x256", "=0/0,volatile"),
    ("no-probe", "", "=all"),
    ("probe-bits", "=39", "=64"),
    ("bus", "=7:0:20", "=7:0:100"),
    ("region", "=0/0,volatile,size=0x10000000", "=0/0,volatile,size=256MiB"),
    ("address-bits", "=46", "=256"),
];

#[test]
fn each_word_is_taken_or_refused_with_what_may_stand_there() {
    for (key, good, bad) in CASES {
        assert_eq!(Words::default().word(&format!("{key}{good}")), Ok(()), "{key}{good}");
        let refused = Words::default().word(&format!("{key}{bad}"));
        match refused {
            Err(Misread::Value { key: of, expected }) => {
                assert_eq!((of, expected.is_empty()), (key, good.is_empty()));
            }
            other => panic!("{key}{bad}: {other:?}"),
        }
        // A letter more is another word.
        assert_eq!(Words::default().word(&format!("{key}s{good}")), Err(Misread::Unknown));
    }
    let words = Words::default().word("broken-sets=wide").map_err(|why| why.to_string());
    assert_eq!(words, Err("expected behind broken-sets=: narrower, flat or unused".to_owned()));
    let words = Words::default().word("strict=no").map_err(|why| why.to_string());
    assert_eq!(words, Err("expected strict with nothing behind it".to_owned()));
    let words = Words::default().word("lenient").map_err(|why| why.to_string());
    let all = CASES.map(|(key, ..)| key).join(", ");
    assert_eq!(words, Err(format!("expected one of the words {all}")));
}

#[test]
fn what_there_is_no_room_for_is_refused_with_how_many_there_may_be() {
    let mut words = Words::default();
    for number in 0..16 {
        assert_eq!(words.word(&format!("required={number}")), Ok(()));
    }
    let refused = words.word("required=16");
    assert_eq!(refused, Err(Misread::TooMany { key: "required", most: 16 }));
    let said = refused.map_err(|why| why.to_string());
    assert_eq!(said, Err("expected required= at most 16 times".to_owned()));
}

#[test]
fn a_line_is_what_its_words_of_the_policy_say() {
    let line = "path=unlocked strict payload=none leave-out=3/1 broken-sets=flat -- leave-out=4";
    let words = Words::of_line(line);
    let policy = words.policy(46);
    assert_eq!((policy.path, policy.on_failure), (PathPolicy::Unlocked, OnFailure::Strict));
    assert_eq!(policy.broken_sets, BrokenSets::Flat);
    let left_out = Path::new(3, &[1]).map(LeaveOut::At);
    assert_eq!(policy.leave_out.iter().copied().map(Some).collect::<Vec<_>>(), [left_out]);
    assert_eq!(parts("quiet -- a -- b"), ("quiet ", Some("a -- b")));
    assert_eq!(parts("quiet x-- b"), ("quiet x-- b", None));
}
