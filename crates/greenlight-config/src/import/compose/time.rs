//! A time as Compose writes it: a stop's, a health check's.

use super::variable::{UNWRITABLE, known_now};
use crate::import::scalar::Scalar;
use crate::import::section::Section;
use crate::import::unsupported::UnsupportedKeys;
use greenlight_release::duration::parse_duration;

/// A time, if it is one in Greenlight as well.
pub(super) fn time(
    section: &mut Section,
    key: &str,
    unsupported: &mut UnsupportedKeys,
) -> Option<Scalar> {
    let text = section.text(key, unsupported)?;
    let Some(known) = known_now(&text) else {
        unsupported.add(section.path(key), UNWRITABLE);
        return None;
    };
    match parse_duration(&known) {
        Ok(_) => Scalar::literal(&known),
        Err(error) => {
            unsupported.add(section.path(key), format!("`{text}`: {error}"));
            None
        }
    }
}
