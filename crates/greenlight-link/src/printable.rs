//! Text of others, as it may be shown on a terminal.
//!
//! A version, an instance's name or the words of an application can contain anything, also what
//! moves the cursor or begins a line that looks like one of ours. So control characters are shown
//! as escapes. Tabs stay: they fake nothing.

use std::fmt::Write as _;

/// The text on one line: line breaks are shown as escapes, too.
pub fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t' => shown.push(letter),
            letter if letter.is_control() || reorders(letter) => {
                write!(shown, "{}", letter.escape_default()).expect("a string takes all");
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// The text with its lines.
pub fn lines(text: &str) -> String {
    let lines = text.split('\n').map(one_line);
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether it breaks a line, or changes the direction of the text around it.
fn reorders(letter: char) -> bool {
    matches!(
        letter,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_breaks_the_line_is_shown_as_an_escape() {
        assert_eq!(one_line("a\tb \u{fc}"), "a\tb \u{fc}");
        assert_eq!(
            one_line("a\n\r\u{1b}[2K\u{9b}1A\u{202e}"),
            r"a\n\r\u{1b}[2K\u{9b}1A\u{202e}"
        );
        assert_eq!(lines("a\nb\u{7}"), "a\nb\\u{7}");
    }
}
