//! Bounds what an agent answers of its applications' logs, and says what it left out.
//!
//! The newest lines are what is asked for, so the oldest go. Each application has the same share:
//! one that writes much leaves room for the others.

use greenlight_link::api::SlotLog;

/// What all logs of an instance may take in an answer, in bytes as they travel.
pub(super) const MOST_LOGS: usize = 1024 * 1024;

/// Leaves the oldest lines of each log out until all of them fit, and marks such a log.
pub(super) fn bound(logs: &mut [SlotLog], most: usize) {
    let share = most / logs.len().max(1);
    for log in logs {
        let mut room = share;
        let mut fitting = 0;
        for line in log.lines.iter().rev() {
            let takes = travelling(line);
            if takes > room {
                break;
            }
            room -= takes;
            fitting += 1;
        }
        let surplus = log.lines.len() - fitting;
        log.lines.drain(..surplus);
        log.left_out |= surplus > 0;
    }
}

/// The bytes that a line takes in JSON, with its quotes and its comma.
fn travelling(line: &str) -> usize {
    let escaped = |letter: char| match letter {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        letter if letter.is_ascii_control() => 6,
        letter => letter.len_utf8(),
    };
    line.chars().map(escaped).sum::<usize>() + 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::Color;

    #[test]
    fn logs_that_fit_are_whole() {
        let mut logs = [log(&["one", "two"])];
        bound(&mut logs, 12);
        assert_eq!((logs[0].lines.len(), logs[0].left_out), (2, false));
    }

    #[test]
    fn the_oldest_lines_go_and_each_log_has_its_share() {
        let mut logs = [
            log(&["a long line of much text", "two", "three"]),
            log(&["one"]),
        ];
        bound(&mut logs, 40);
        assert_eq!(logs[0].lines, ["two", "three"]);
        assert!(logs[0].left_out);
        assert_eq!((logs[1].lines.len(), logs[1].left_out), (1, false));
    }

    #[test]
    fn what_travels_escaped_counts_as_it_travels() {
        for line in ["plain", "\"quoted\"\\", "\u{1b}[31mred\u{1b}[0m", "grün"] {
            let text = serde_json::to_string(&[line]).expect("text serialises");
            // The brackets are there and the comma is not.
            assert_eq!(travelling(line), text.len() - 1, "{line}");
        }
    }

    fn log(lines: &[&str]) -> SlotLog {
        SlotLog {
            service: "shop".into(),
            color: Color::Blue,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            left_out: false,
        }
    }
}
