//! "Did you mean": the known word that is most similar to an unknown one.

/// How similar two words must be, from 0 to 1, before one is suggested for the other.
const ALIKE: f64 = 0.75;

/// The word that was probably meant.
pub(super) fn suggest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&plain(written), word), word))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word)
}

/// `a`, `b` and `c`, each in backticks.
pub(super) fn list(words: &[&str], joint: &str) -> String {
    let mut quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.pop() {
        None => "none".to_owned(),
        Some(only) if quoted.is_empty() => only,
        Some(last) => format!("{} {joint} {last}", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["healthcheck", "host", "hosts", "path_prefix"];

        assert_eq!(suggest("helthcheck", known), Some("healthcheck"));
        assert_eq!(suggest("path-prefix", known), Some("path_prefix"));
        assert_eq!(suggest("Hosts", known), Some("hosts"));
        assert_eq!(suggest("zzz", known), None);
    }

    #[test]
    fn a_list_of_words_reads_as_a_sentence() {
        assert_eq!(list(&["a"], "or"), "`a`");
        assert_eq!(list(&["a", "b", "c"], "or"), "`a`, `b` or `c`");
    }
}
