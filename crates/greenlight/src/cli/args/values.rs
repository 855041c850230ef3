//! Values that several commands take, and what is wrong with one.

use clap::builder::RangedU64ValueParser;
use std::time::Duration;

/// A count of which 0 makes no sense.
pub(super) fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// How late messages may be made; no barrier waits for as long as the most.
pub(super) fn lateness(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_mins(1);
    let injected_delay = duration(text)?;
    (injected_delay <= MOST)
        .then_some(injected_delay)
        .ok_or_else(|| "it is too long; the range is 0ms to 1m".to_owned())
}

/// A duration with its unit; seconds without one.
pub(in crate::cli) fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "it does not begin with a number".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("`{unit}` is not a unit; use ms, s, m or h")),
    }
}
