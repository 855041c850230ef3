//! How people write times: `250ms`, `5s`, `15m`, `1h`, `1m30s`, or a bare number of seconds.
//!
//! Bare seconds are Kamal's habit, units and their sums are Compose's. The command line reads its
//! times with the same function, so that a time may be copied from one to the other.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// No timer of a deployment is longer than this; a longer one is a slip of the keyboard.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It has a number where none can be read, or none at all.
    #[error("a number was expected at `{0}`")]
    NotANumber(String),
    /// The letters after a number are no unit.
    #[error("`{0}` is not a unit of time")]
    UnknownUnit(String),
    /// A number among others has no unit.
    #[error("`{0}` lacks a unit")]
    MissingUnit(String),
    /// More than a year.
    #[error("it is longer than a year")]
    TooLong,
}

/// Reads a time. Surrounding blanks are ignored; zero is a time.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    let mut rest = text;
    let mut sum = Duration::ZERO;
    let mut first = true;
    while first || !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let (unit, after) = split_where(after, |c| c.is_ascii_digit() || c == '.');
        let amount: f64 = number
            .parse()
            .map_err(|_| DurationError::NotANumber(rest.to_owned()))?;
        let seconds = match unit.trim() {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            // Only a number alone is seconds: `1m30` would otherwise be read in silence.
            "" if first && after.is_empty() => 1.0,
            "" => return Err(DurationError::MissingUnit(number.to_owned())),
            other => return Err(DurationError::UnknownUnit(other.to_owned())),
        };
        let part = Duration::try_from_secs_f64(amount * seconds)
            .ok()
            .and_then(|part| sum.checked_add(part))
            .filter(|sum| *sum <= LONGEST)
            .ok_or(DurationError::TooLong)?;
        sum = part;
        rest = after;
        first = false;
    }
    // Fractions of a second pass through floating point, which is exact enough for microseconds.
    Ok(Duration::from_micros(
        u64::try_from((sum + Duration::from_nanos(500)).as_micros())
            .expect("a year of microseconds fits"),
    ))
}

/// A time as people write it: `250ms`, `5m`, `1h30m`.
pub fn written(time: Duration) -> String {
    if time.subsec_nanos() != 0 || time.is_zero() {
        return format!("{time:?}");
    }
    let seconds = time.as_secs();
    let mut text = String::new();
    for (number, unit) in [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ] {
        if number > 0 {
            write!(text, "{number}{unit}").expect("a string takes all");
        }
    }
    text
}

fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

/// A time as the file has it, not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationText(pub String);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // If the type is text, the parser passes a number on as it is written.
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Duration")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h)\s*)+$|^\s*[0-9]+(\.[0-9]+)?\s*$|\$\{",
            "exclusiveMinimum": 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_sums_fractions_and_bare_seconds_are_read() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("3", 3_000),
            ("0.5", 500),
            ("1.5s", 1_500),
            ("1m30s", 90_000),
            (" 2 s ", 2_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_is_written_as_it_would_be_read() {
        for (milliseconds, text) in [
            (250, "250ms"),
            (1_500, "1.5s"),
            (60_000, "1m"),
            (300_000, "5m"),
            (5_400_000, "1h30m"),
            (86_400_000, "24h"),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(written(time), text);
            assert_eq!(parse_duration(text), Ok(time));
        }
    }

    #[test]
    fn what_is_not_a_time_says_why() {
        for (text, error) in [
            ("", DurationError::NotANumber(String::new())),
            ("soon", DurationError::NotANumber("soon".to_owned())),
            ("-5s", DurationError::NotANumber("-5s".to_owned())),
            ("1.2.3s", DurationError::NotANumber("1.2.3s".to_owned())),
            ("5 sec", DurationError::UnknownUnit("sec".to_owned())),
            ("1m30", DurationError::MissingUnit("30".to_owned())),
            ("1d", DurationError::UnknownUnit("d".to_owned())),
            ("99999999h", DurationError::TooLong),
            ("1e400", DurationError::UnknownUnit("e".to_owned())),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }
}
