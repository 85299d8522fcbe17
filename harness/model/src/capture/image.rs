//! What our image prints where its command line has the word `dump`: sections between `dump begin` and
//! `dump end`, each with its length, those of components with their place in the machine.
//!
//! **Invariant**: a section has as many bytes as its first line says.

use super::lines::{Line, Lines};
use super::{Ask, CaptureError, Content, Form, Found, Result, Seat, Taken};
use crate::dump::{Dump, Kind, Options};
use cxl_regs::Component;

/// The most bytes of one section.
const MAX_SECTION: usize = 1 << 20;

fn wrong(line: Line<'_>, word: &str, expected: impl Into<String>) -> CaptureError {
    let column = line.text.find(word).map_or(1, |at| line.column(at));
    let found = if word.is_empty() { "the end of the line".into() } else { format!("\"{word}\"") };
    CaptureError::Line { line: line.number, column, expected: expected.into(), found }
}

fn number(line: Line<'_>, word: &str) -> Result<u64> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    u64::from_str_radix(digits, 16).map_err(|_| wrong(line, word, "a hexadecimal number"))
}

/// One section.
pub(super) fn take(text: &Lines<'_>, start: usize, ask: Ask) -> Taken {
    let line = text.get(start);
    let rest = line.text.strip_prefix("dump begin ")?;
    Some(section(text, start, rest, ask))
}

fn section(text: &Lines<'_>, start: usize, rest: &str, ask: Ask) -> Result<(Vec<Found>, usize)> {
    let line = text.get(start);
    let mut words = rest.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (kind, _address, length) = (word(), number(line, word())?, word());
    let length = number(line, length)?;
    let length = usize::try_from(length).ok().filter(|&length| length <= MAX_SECTION);
    let length = length.ok_or_else(|| wrong(line, rest, "a section of at most 1 MiB"))?;
    let seat = match word() {
        "" => None,
        name => {
            let component = match name {
                "host-bridge" => Component::HostBridge,
                "upstream-port" => Component::UpstreamPort,
                "device" => Component::Device,
                _ => return Err(wrong(line, name, "host-bridge, upstream-port or device")),
            };
            let uid = word();
            let uid = uid.parse().map_err(|_| wrong(line, uid, "the UID of a host bridge"))?;
            let ports = word();
            let ports = ports.split('.').filter(|port| !port.is_empty());
            let ports = ports
                .map(|port| port.parse().map_err(|_| wrong(line, port, "a port number")))
                .collect::<Result<Vec<u8>>>()?;
            Some(Seat { component, uid, ports })
        }
    };
    let mut bytes: Vec<u8> = Vec::new();
    let mut at = start + 1;
    loop {
        let line = text.get(at);
        at += 1;
        if at > text.len() {
            let expected = format!("\"dump end {kind}\"");
            return Err(wrong(Line { number: text.len(), ..line }, "", expected));
        }
        let Some(row) = line.text.strip_prefix("dump ") else { continue };
        if row == format!("end {kind}") {
            break;
        }
        let (offset, digits) = row
            .split_once(": ")
            .ok_or_else(|| wrong(line, row, format!("bytes of the section, or \"end {kind}\"")))?;
        let offset = number(line, offset)?;
        if offset != bytes.len() as u64 || bytes.len() > length {
            let expected = format!("the row of offset {:#x}", bytes.len());
            return Err(wrong(line, row, expected));
        }
        for pair in digits.as_bytes().chunks(2) {
            let pair = str::from_utf8(pair).unwrap_or_default();
            let byte = u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2);
            bytes.push(byte.ok_or_else(|| wrong(line, pair, "pairs of hex digits"))?);
        }
    }
    if bytes.len() != length {
        let expected = format!("{length:#x} bytes, as the section's first line says");
        let found = format!("{:#x}", bytes.len());
        let line = text.get(at - 1);
        return Err(CaptureError::Line { line: line.number, column: 1, expected, found });
    }
    let form = Form::ImageDump;
    let dump = |kind, component| {
        let options = Options { kind: Some(kind), component, ..ask.options };
        Dump::of_bytes(&bytes, options).map(Content::Dump).map_err(|error| CaptureError::At {
            line: line.number,
            form,
            error,
        })
    };
    let content = match kind {
        "cedt" => dump(Kind::Cedt, None)?,
        "hdm" => dump(Kind::Hdm, seat.as_ref().map(|seat| seat.component))?,
        "dvsec" => Content::Dvsec(bytes),
        "handoff" => Content::HandOff(bytes),
        _ => return Err(wrong(line, kind, "handoff, cedt, hdm or dvsec")),
    };
    let lines = Some((line.number, text.get(at - 1).number));
    Ok((vec![Found { lines, form, content, seat }], at))
}
