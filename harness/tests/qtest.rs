//! The qtest client against answers typed by hand: what it sends, what it makes of answers, and
//! that it always ends. QEMU itself is not needed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cxl_harness::qemu::qtest::{PortWidth, Qtest, QtestError, Width};
use cxl_regs::mmio::Mmio;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

/// A client, and somebody who gives one answer to each line; what was asked comes out of the join.
fn with_answers(answers: &[&str], limit: Duration) -> (Qtest, JoinHandle<Vec<String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let answers: Vec<String> = answers.iter().map(|answer| answer.to_string()).collect();
    let server = thread::spawn(move || {
        let mut writer = theirs.try_clone().unwrap();
        let mut lines = BufReader::new(theirs).lines();
        let mut asked = Vec::new();
        for answer in answers {
            asked.push(lines.next().unwrap().unwrap());
            writer.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (Qtest::over(ours, limit), server)
}

#[test]
fn each_access_is_one_command_of_its_width() {
    let ok = "OK 0x00000000000000ff\n";
    let (mut qtest, server) =
        with_answers(&[ok, ok, ok, ok, "OK\n", "OK\n", "OK 0x0012\n", "OK\n"], LONG);
    for width in Width::ALL {
        assert_eq!(qtest.load(0x1000, width), Ok(0xFF));
    }
    qtest.store(0x1008, 0xABCD, Width::Eight).unwrap();
    qtest.write(0x1010, 0x1234);
    assert_eq!(qtest.port_in(0xCFC, PortWidth::Two), Ok(0x12));
    qtest.port_out(0xCF8, 0x8000_0060, PortWidth::Four).unwrap();
    assert_eq!(
        server.join().unwrap(),
        [
            "readb 0x1000",
            "readw 0x1000",
            "readl 0x1000",
            "readq 0x1000",
            "writeq 0x1008 0xabcd",
            "writel 0x1010 0x1234",
            "inw 0xcfc",
            "outl 0xcf8 0x80000060",
        ]
    );
}

#[test]
fn memory_goes_as_hex_in_order_of_address() {
    let (mut qtest, server) = with_answers(&["OK 0x0102fe\n", "OK\n"], LONG);
    let mut bytes = [0xA5; 3];
    qtest.read_memory(0x2000, &mut bytes).unwrap();
    assert_eq!(bytes, [0x01, 0x02, 0xFE]);
    qtest.write_memory(0x3000, &[0x00, 0x7F]).unwrap();
    assert_eq!(server.join().unwrap(), ["read 0x2000 0x3", "write 0x3000 0x2 0x007f"]);
}

#[test]
fn a_limit_that_no_clock_reaches_is_a_limit() {
    let (mut qtest, _server) = with_answers(&["OK 0x7\n"], Duration::MAX);
    assert_eq!(qtest.load(0, Width::Four), Ok(7));
}

#[test]
fn interrupts_between_answers_are_passed_over() {
    let (mut qtest, _server) = with_answers(&["IRQ raise 3\nIRQ lower 3\nOK 0x7\n"], LONG);
    assert_eq!(qtest.load(0, Width::Four), Ok(7));
}

#[test]
fn what_is_no_answer_is_an_error_that_says_what_was_asked() {
    let cases = [
        ("FAIL Unknown command\n", "a line that starts with OK", "FAIL Unknown command"),
        ("OK 0xnothing\n", "a number in hex", "0xnothing"),
        ("OK\n", "a number in hex", ""),
    ];
    for (answer, expected, found) in cases {
        let (mut qtest, _server) = with_answers(&[answer], LONG);
        let command = "readl 0x4".to_owned();
        let error = QtestError::Answer { command, expected, found: found.to_owned() };
        assert_eq!(qtest.load(4, Width::Four), Err(error), "{answer:?}");
    }
    let (mut qtest, _server) = with_answers(&["OK 0x01\n"], LONG);
    let error = qtest.read_memory(0, &mut [0; 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "qtest: `read 0x0 0x2`: expected as many bytes in hex, found \"0x01\""
    );
    // However long the line is, an error is for people.
    for start in ["OK 0x", "FAIL "] {
        let line = format!("{start}{}\n", "z".repeat(4000));
        let (mut qtest, _server) = with_answers(&[&line], LONG);
        let error = qtest.load(4, Width::Four).unwrap_err().to_string();
        assert!(error.len() < 250, "{error}");
    }
}

#[test]
fn the_first_failure_is_the_last_wait() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut qtest = Qtest::over(ours, SHORT);
    // Nobody answers: one limit, and then all-ones at once.
    assert_eq!(qtest.read(0x10), u32::MAX);
    let timed_out = QtestError::TimedOut { command: "readl 0x10".to_owned(), limit: SHORT };
    assert_eq!(qtest.check(), Err(timed_out.clone()));
    drop(theirs);
    assert_eq!(qtest.read(0x14), u32::MAX);
    qtest.write(0x18, 1);
    assert_eq!(qtest.load(0x1C, Width::One), Err(timed_out));
}

#[test]
fn a_qemu_that_ends_closes_the_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut qtest = Qtest::over(ours, LONG);
    drop(theirs);
    let error = qtest.load(0x10, Width::Two).unwrap_err();
    assert_eq!(error, QtestError::Closed { command: "readw 0x10".to_owned() });
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut qtest = Qtest::over(ours, LONG);
    let flood = thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
    let error = qtest.load(0, Width::Four).unwrap_err();
    assert!(matches!(error, QtestError::Answer { expected: "a line of text", .. }), "{error}");
    drop(qtest);
    flood.join().unwrap();
}

#[test]
fn nobody_at_the_socket_is_an_error_with_the_remedy() {
    let path = Path::new("/nonexistent/qtest.sock");
    let error = Qtest::connect(path, SHORT).unwrap_err();
    assert!(matches!(&error, QtestError::Connect { error: ErrorKind::NotFound, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.ends_with("-qtest unix:/nonexistent/qtest.sock,server=on,wait=off"), "{text}");
}
