//! The Ruby in Kamal's file, which is a template before it is YAML.
//!
//! Ruby is not executed. Look-ups of environment variables are converted, and any other value
//! with Ruby in it is left out.

use crate::import::scalar::Scalar;
use crate::import::unsupported::UnsupportedKeys;

/// Why a value with Ruby in it is left out.
pub(super) const UNWRITABLE: &str = "it is computed by Ruby, which is not executed; set it by hand";

/// The placeholder for a look-up until the YAML is read: text that YAML passes on unchanged.
const BEGIN: &str = "<%={";
const END: &str = "}%>";

/// The text with look-ups of variables marked, and without lines that are nothing but Ruby.
pub(in crate::import) fn without_ruby(text: &str, unsupported: &mut UnsupportedKeys) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let code = line.trim();
        if code.starts_with("<%") && !code.starts_with("<%=") && code.ends_with("%>") {
            unsupported.add(format!("`{code}`"), "Ruby is not run");
            continue;
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("<%=") {
            let Some((expression, after)) = after.split_once("%>") else {
                break;
            };
            out.push_str(before);
            match look_up(expression.trim()) {
                Some(variable) => out.extend([BEGIN, &variable, END]),
                None => out.extend(["<%=", &expression.replace(['"', '\''], ""), "%>"]),
            }
            rest = after;
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

/// `ENV["NAME"]` and `ENV.fetch("NAME", "default")` as `NAME` and `NAME:-default`.
fn look_up(expression: &str) -> Option<String> {
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if let Some(name) = expression.strip_prefix("ENV[") {
        let name = unquoted(name.strip_suffix(']')?);
        return is_name(&name).then_some(name);
    }
    let arguments = expression.strip_prefix("ENV.fetch(")?.strip_suffix(')')?;
    let (name, default) = match arguments.split_once(',') {
        Some((name, default)) => (unquoted(name), Some(unquoted(default))),
        None => (unquoted(arguments), None),
    };
    let default = default.map_or_else(String::new, |default| format!(":-{default}"));
    is_name(&name).then(|| format!("{name}{default}"))
}

/// A value of Kamal as `greenlight.yml` has it; nothing if it cannot.
pub(super) fn scalar(text: &str) -> Option<Scalar> {
    if !text.contains("<%") {
        return Scalar::literal(text);
    }
    // Marked look-ups become variables; text that looks like a variable stays text.
    let out = text
        .replace("${", "$${")
        .replace(BEGIN, "${")
        .replace(END, "}");
    if out.contains("<%") {
        return None;
    }
    Scalar::replaced(&out)
}

/// The name of the only variable that a value consists of.
pub(super) fn only(text: &str) -> Option<String> {
    let inside = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let plain = !inside.contains(['<', ':']);
    plain.then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_become_variables_and_other_ruby_is_left_out() {
        let read = |line: &str| {
            let text = without_ruby(line, &mut UnsupportedKeys::default());
            scalar(text.trim_end()).map(|scalar| scalar.to_string())
        };
        for (line, written) in [
            ("<%= ENV[\"HOST\"] %>", Some("${HOST}")),
            (
                "<%= ENV.fetch('HOST') %>.example.com",
                Some("${HOST}.example.com"),
            ),
            ("<%= ENV.fetch(\"HOST\", \"a\") %>", Some("${HOST:-a}")),
            ("<%= `git rev-parse HEAD` %>", None),
            ("${HOME}", Some("$${HOME}")),
        ] {
            assert_eq!(read(line).as_deref(), written, "{line}");
        }
        let mut unsupported = UnsupportedKeys::default();
        assert_eq!(
            without_ruby("<% require \"dotenv\" %>\na: 1\n", &mut unsupported),
            "a: 1\n"
        );
        assert_eq!(unsupported.all().len(), 1);
    }
}
