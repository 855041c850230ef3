//! A receipt whose text can be shown: nothing in it moves the cursor or fakes a line.
//!
//! Only what is shown is made of it. What is judged or sealed is the receipt as it is.

use super::Receipt;
use crate::printable::{lines, one_line};
use serde_json::Value;

/// What went wrong may be told in several lines, which are shown under what they belong to.
const OF_SEVERAL_LINES: [&str; 3] = ["problem", "reason", "aborted"];

impl Receipt {
    /// The same receipt with all control characters of its text escaped.
    pub(super) fn printable(&self) -> Self {
        let mut value = serde_json::to_value(self).expect("a receipt serialises");
        escape(&mut value, one_line);
        serde_json::from_value(value).expect("only its text was changed")
    }
}

fn escape(value: &mut Value, shown: fn(&str) -> String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => *text = shown(text),
        Value::Array(values) => values.iter_mut().for_each(|value| escape(value, shown)),
        Value::Object(fields) => {
            for (name, mut value) in std::mem::take(fields) {
                let shown = match OF_SEVERAL_LINES.contains(&name.as_str()) {
                    true => lines,
                    false => one_line,
                };
                escape(&mut value, shown);
                // Two names that differ must not become the same.
                fields.insert(one_line(&name.replace('\\', r"\\")), value);
            }
        }
    }
}
