//! Text for a terminal: no wider than it is, and nothing in it that a terminal obeys.
//!
//! **Invariant**: no word is lost, and words alone are moved.

use std::borrow::Cow;

/// A line in as many as the columns ask for, the later ones below where its value begins.
pub fn folded(line: &str, columns: usize) -> String {
    // Nothing is legible in less.
    let columns = columns.max(40);
    if textwrap::core::display_width(line) <= columns {
        return line.to_owned();
    }
    let margin = line.len() - line.trim_start().len();
    // A label ends with two spaces or more; what has none is a paragraph.
    let value = line.get(margin..).and_then(|words| {
        let gap = words.find("  ")?;
        let rest = words.get(gap..)?;
        Some(margin + gap + rest.len() - rest.trim_start().len())
    });
    let hang = value.unwrap_or(margin + 2).min(columns / 2);
    let (margin, hang) = (" ".repeat(margin.min(columns / 2)), " ".repeat(hang));
    let options = textwrap::Options::new(columns)
        .initial_indent(&margin)
        .subsequent_indent(&hang)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(line.trim_start(), options)
}

/// The end of a help as wide as the terminal: its paragraphs are filled anew, and what stands behind a
/// label goes on below where it began. Commands to copy go on behind a backslash, files stay as they are.
pub fn filled(text: &str, columns: usize) -> String {
    struct Block {
        text: String,
        /// Of a list to copy from.
        copied: bool,
        /// The next line may go on with it.
        open: bool,
    }
    let margin = |line: &str| line.len() - line.trim_start().len();
    let labelled = |line: &str| line.trim_start().contains("  ");
    let mut blocks: Vec<Block> = Vec::new();
    let mut list_to_copy = false;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // A colon at the end of a line that the paragraph goes on behind is one in its middle.
        let ends = lines.peek().is_none_or(|next| margin(next) > 0 || next.is_empty());
        let heading = margin(line) == 0 && line.ends_with(':') && ends;
        if margin(line) == 0 && !line.is_empty() {
            list_to_copy = line == "Examples:" || heading && line.starts_with("An image set");
        }
        let last = blocks.last_mut().filter(|last| last.open && !line.is_empty());
        // A label is followed by another one, or goes on further in; a paragraph has one margin.
        let last = last.filter(|last| {
            let before = margin(&last.text);
            margin(line) > before && before > 0
                || margin(line) == before && !labelled(&last.text) && !labelled(line)
        });
        match last {
            Some(last) => {
                last.text.push(' ');
                last.text.push_str(line.trim_start());
                last.open = !heading;
            }
            None => blocks.push(Block {
                text: line.to_owned(),
                copied: list_to_copy,
                open: !heading && !list_to_copy && !line.is_empty() && !line.ends_with('\\'),
            }),
        }
    }
    let lines = blocks.iter().map(|Block { text, copied, .. }| {
        if *copied {
            return continued(text, columns);
        }
        if labelled(text) {
            return folded(text, columns);
        }
        let indent = " ".repeat(margin(text));
        let options = textwrap::Options::new(columns.max(40))
            .initial_indent(&indent)
            .subsequent_indent(&indent)
            .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        textwrap::fill(text.trim_start(), options)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a terminal, a browser or an editor obeys a character and does not show it: what controls, and
/// what turns the direction of the text around it or breaks its line.
fn obeyed(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        c => c.is_control(),
    }
}

/// JSON that holds the same, and nothing that anybody obeys who looks at it.
pub fn harmless_json(text: &str) -> Cow<'_, str> {
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        // Such a character stands in strings alone, and none needs two units.
        if obeyed(c) { output += &format!("\\u{:04x}", u32::from(c)) } else { output.push(c) }
    }
    output.into()
}

/// A command that is too long for a line, in lines that a shell takes for one.
fn continued(line: &str, columns: usize) -> String {
    let columns = columns.max(40);
    if !line.trim_start().starts_with("cxl-harness ") {
        return line.to_owned();
    }
    let indent = " ".repeat(line.len() - line.trim_start().len() + 4);
    let (mut done, mut rest) = (String::new(), line.to_owned());
    while textwrap::core::display_width(&rest) > columns {
        let mut quote = None;
        let gaps = rest.char_indices().filter(|&(_, c)| {
            if matches!(c, '\'' | '"') && quote.is_none_or(|open| open == c) {
                quote = if quote.is_none() { Some(c) } else { None };
            }
            c == ' ' && quote.is_none()
        });
        // Behind what the line begins with, and with room for the backslash.
        let begin = rest.len() - rest.trim_start().len();
        let fits = gaps.map(|(at, _)| at).filter(|&at| at > begin && at + 2 <= columns);
        let Some((head, tail)) = fits.last().and_then(|at| rest.split_at_checked(at)) else {
            break;
        };
        done.push_str(head);
        done.push_str(" \\\n");
        rest = format!("{indent}{}", tail.trim_start());
    }
    done + &rest
}

/// The text without what a terminal would obey: names and descriptions are whoever's who wrote the
/// file.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) { output.extend(c.escape_default()) } else { output.push(c) }
    }
    output.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_word_is_lost() {
        for line in [
            "  chosen            as wide as possible; not 8 ways: bridge 7 has no window of that width",
            "a paragraph that has no label and goes on for more than sixty columns, as they do",
            "  region 0          \u{6f22}\u{5b57} \u{6f22}\u{5b57}\u{6f22}\u{5b57} \u{6f22}\u{5b57}\u{6f22}\u{5b57}\u{6f22}\u{5b57} \u{6f22}\u{5b57}\u{6f22}\u{5b57}\u{6f22}\u{5b57}",
            "                                                       far to the right, and longer than that",
        ] {
            for columns in [40, 60, 79] {
                let folded = folded(line, columns);
                for part in folded.lines() {
                    assert!(textwrap::core::display_width(part) <= columns, "{columns}: {part}");
                }
                let words =
                    |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                assert_eq!(words(&folded), words(line));
            }
        }
        assert_eq!(
            folded("  label   one two three four five six seven eight", 40),
            "  label   one two three four five six\n          seven eight"
        );
    }

    #[test]
    fn a_help_is_filled_anew_but_for_what_is_copied() {
        let help = "It was broken at\nsome other width, and this one has forty.\n\nExit code:\n  0  good\n  \
                    1  a check failed, and here it goes on\n     behind its label\n\nExamples:\n  a command that \
                    is longer than forty columns, to copy\n  cxl-harness linux -- -M q35,cxl=on --append \
                    'one two three' --json";
        let filled = filled(help, 40);
        assert_eq!(
            filled,
            "It was broken at some other width, and\nthis one has forty.\n\nExit code:\n  0  good\n  1  a \
             check failed, and here it goes on\n     behind its label\n\nExamples:\n  a command that is \
             longer than forty columns, to copy\n  cxl-harness linux -- -M q35,cxl=on \\\n      --append \
             'one two three' --json"
        );
    }

    #[test]
    fn a_colon_in_the_middle_of_a_paragraph_ends_none() {
        let help = "Memory is RAM to the guest:\nthere it boots first.\n\nBuilt by\n  A=1 \\\n    cargo build";
        assert_eq!(
            filled(help, 60),
            "Memory is RAM to the guest: there it boots first.\n\nBuilt by\n  A=1 \\\n    cargo build"
        );
    }

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(harmless("a\u{1b}[31mb\r\u{9b}c\n\td"), "a\\u{1b}[31mb\\r\\u{9b}c\n\td");
        assert_eq!(harmless("a\u{202e}b\u{2066}c"), "a\\u{202e}b\\u{2066}c");
        assert_eq!(harmless_json("\"a\u{9b}\u{202e}\u{7f}\""), r#""a\u009b\u202e\u007f""#);
        let turned = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}";
        assert!(harmless(turned).is_ascii(), "{}", harmless(turned));
        assert!(matches!(harmless("plain \u{6f22}"), Cow::Borrowed(_)));
    }
}
