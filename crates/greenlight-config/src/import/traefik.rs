//! Traefik's routing rules, which Compose files and Kamal 1 have in labels.

/// What a rule says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) hosts: Vec<String>,
    pub(super) path_prefix: Option<String>,
    /// Why the rest of it is left out, if there is any.
    pub(super) others: Option<String>,
}

impl Rule {
    /// Reads such as ``Host(`shop.example.com`) && PathPrefix(`/api`)``.
    pub(super) fn read(rule: &str) -> Self {
        let mut read = Self::default();
        let mut others = Vec::new();
        let mut rest = rule;
        while let Some((before, after)) = rest.split_once('(') {
            let matcher = before.rsplit(|c: char| !c.is_alphanumeric()).next();
            // Brackets may also hold rules together.
            let matcher = matcher.filter(|name| !name.is_empty());
            let Some(matcher) = matcher else {
                rest = after;
                continue;
            };
            let (inside, after) = after.split_once(')').unwrap_or((after, ""));
            let arguments = inside.split(',');
            let arguments = arguments.map(|name| name.trim().trim_matches(['`', '"', '\'']));
            let mut arguments = arguments.map(ToOwned::to_owned);
            match (matcher, &read.path_prefix) {
                ("Host", _) => read.hosts.extend(arguments),
                ("PathPrefix", None) => read.path_prefix = arguments.next(),
                _ => others.push(format!("`{matcher}({inside})`")),
            }
            rest = after;
        }
        if !others.is_empty() {
            let others = others.join(", ");
            read.others = Some(format!(
                "greenlight routes by host and path prefix, not by {others}"
            ));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::Rule;

    #[test]
    fn hosts_and_prefix_are_read_and_the_rest_is_named() {
        let rule = Rule::read(
            "(Host(`a.example.com`) || Host(`b.example.com`, `c.example.com`)) && PathPrefix(`/api`) && Method(`GET`)",
        );
        assert_eq!(
            rule.hosts,
            ["a.example.com", "b.example.com", "c.example.com"]
        );
        assert_eq!(rule.path_prefix.as_deref(), Some("/api"));
        assert!(
            rule.others
                .is_some_and(|others| others.contains("Method(`GET`)"))
        );
        assert_eq!(Rule::read("").hosts, [""; 0]);
    }
}
