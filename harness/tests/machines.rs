//! The table of `MACHINES.md`: each row's command is run on the file that it names, and its exit code and
//! the words that stand in quotes are held against what it prints.
//!
//! **Invariant**: every file of machines is in a row, and every row was run.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use program::{command, ran};

#[test]
fn each_row_says_what_is_printed() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("tests/machines");
    let page = fs::read_to_string(here.join("../MACHINES.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 8, "{rows:?}");
    let mut named = BTreeSet::new();
    for row in rows {
        let [_, _, words, code, says, _] = row.as_slice() else { panic!("six columns: {row:?}") };
        let words: Vec<&str> = words.trim_matches('`').split(' ').collect();
        named.insert(words[1].to_owned());
        let (text, notes, found) = ran(command(&words).current_dir(&folder));
        assert_eq!(found.to_string(), *code, "{words:?}: {text}{notes}");
        let quoted: Vec<&str> = says.split('"').skip(1).step_by(2).collect();
        assert!(!quoted.is_empty(), "{words:?}: nothing in quotes");
        let printed = format!("{text}{notes}");
        for words_of_it in quoted {
            assert!(printed.contains(words_of_it), "{words:?}: {words_of_it:?}:\n{printed}");
        }
    }
    let files = fs::read_dir(folder).unwrap();
    let files: BTreeSet<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, named);
}
