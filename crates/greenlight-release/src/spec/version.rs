//! What may be a release's version: whatever may be an image's tag, because a release without a tag
//! of its own uses its version as the tag. So a version is also one word in every line that shows it.

/// The most letters, as of a tag.
const LONGEST: usize = 128;

/// Why a text cannot be a release's version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a release's version")]
pub struct VersionError(String);

impl VersionError {
    /// What to write instead.
    pub const HELP: &'static str = "use letters, digits, `.`, `_` and `-`, at most 128 and neither \
                                    `.` nor `-` first, as for an image's tag";
}

/// Refuses a text that cannot be a release's version.
pub fn check_version(text: &str) -> Result<(), VersionError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_version = (1..=LONGEST).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(good);
    match is_version {
        true => Ok(()),
        false => Err(VersionError(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_an_image_s_tag_may_be_a_version_and_nothing_else() {
        let longest = "v".repeat(LONGEST);
        for good in [
            "v1",
            "0",
            "1.2.3-rc.1",
            "9fceb02d0ae5-changed",
            "_",
            &longest,
        ] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        let too_long = "v".repeat(LONGEST + 1);
        for bad in [
            "", "a b", "a/b", "ü", "v1\n", ".v1", "-v1", "v:1", &too_long,
        ] {
            assert_eq!(check_version(bad), Err(VersionError(bad.to_owned())));
        }
    }
}
