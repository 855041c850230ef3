//! A copy of the configuration in which one file has another text, for `nginx -t`.
//!
//! The new text must not be in the real file before its time: anyone who reloads or
//! restarts Nginx in that moment would bring it into effect. So the copy is of the main file, in
//! the same folder, because relative paths count from there; includes that lead to the file in
//! question are followed, and written out in their place. All others stay as they are.

use super::error::NginxError;
use std::path::{Path, PathBuf};

/// Includes of includes that are followed.
const DEEPEST: usize = 8;

/// Whether the configuration includes the file in question at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    Included,
    /// It does not: Nginx has been tested without it.
    NotIncluded,
}

/// A copy; removed with this.
pub(super) struct Copy {
    conf: tempfile::TempPath,
    /// The text in question, where there is one.
    _text: tempfile::TempPath,
    copied: Copied,
}

impl Copy {
    pub(super) fn conf(&self) -> &Path {
        &self.conf
    }

    pub(super) fn copied(&self) -> Copied {
        self.copied
    }
}

/// Copies the configuration `conf`, with `text` in the place of the file `include`.
pub(super) fn copy_with(conf: &Path, include: &Path, text: &str) -> Result<Copy, NginxError> {
    let folder = conf.parent().unwrap_or(Path::new("/"));
    let substitute = kept(folder, text)?;
    let copier = Copier {
        folder,
        include,
        substitute: &substitute,
    };
    let (text, copied) = match copier.rewrite(&read(conf)?, DEEPEST)? {
        Some(text) => (text, Copied::Included),
        None => (read(conf)?, Copied::NotIncluded),
    };
    Ok(Copy {
        conf: kept(folder, &text)?,
        _text: substitute,
        copied,
    })
}

struct Copier<'a> {
    folder: &'a Path,
    include: &'a Path,
    substitute: &'a Path,
}

impl Copier<'_> {
    /// The text with its includes written out that lead to the file in question; nothing, if none
    /// does.
    fn rewrite(&self, text: &str, deeper: usize) -> Result<Option<String>, NginxError> {
        let mut out = String::new();
        let mut done = 0;
        for statement in includes(text) {
            if let Some(instead) = self.resolve(&statement.pattern, deeper)? {
                out.push_str(&text[done..statement.from]);
                out.push_str(&instead);
                done = statement.until;
            }
        }
        if done == 0 {
            return Ok(None);
        }
        out.push_str(&text[done..]);
        Ok(Some(out))
    }

    fn resolve(&self, pattern: &str, deeper: usize) -> Result<Option<String>, NginxError> {
        let Some(deeper) = deeper.checked_sub(1) else {
            return Ok(None);
        };
        let pattern = self.folder.join(pattern);
        let files = matches(&pattern, self.include);
        let mut out = String::new();
        let mut found = false;
        for file in files {
            if same(&file, self.include) {
                found = true;
                out.push_str(&include_of(self.substitute));
                continue;
            }
            let inner = match read(&file) {
                Ok(text) => self.rewrite(&text, deeper)?,
                // Nginx's own message about it is better.
                Err(_) => None,
            };
            match inner {
                Some(text) => {
                    found = true;
                    out.push_str(&text);
                    out.push('\n');
                }
                None => out.push_str(&include_of(&file)),
            }
        }
        Ok(found.then_some(out))
    }
}

/// The files that an `include` takes in, in Nginx's order. The file in question counts also
/// while it is not there yet.
fn matches(pattern: &Path, include: &Path) -> Vec<PathBuf> {
    let text = pattern.to_string_lossy();
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let mut files: Vec<PathBuf> = match glob::glob_with(&text, options) {
        Ok(found) => found.filter_map(Result::ok).collect(),
        Err(_) => Vec::new(),
    };
    let meant =
        glob::Pattern::new(&text).is_ok_and(|pattern| pattern.matches_path_with(include, options));
    if meant && !files.iter().any(|file| same(file, include)) {
        files.push(include.to_owned());
        files.sort();
    }
    files
}

fn include_of(file: &Path) -> String {
    format!("include \"{}\";\n", file.display())
}

fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

struct Statement {
    from: usize,
    until: usize,
    pattern: String,
}

/// The `include` statements of a configuration. Nginx's own grammar: statements end in `;` or
/// begin a block; quotes and comments hide what is in them.
fn includes(text: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut from = 0;
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if words.is_empty() && word.is_none() {
            from = at;
        }
        if let Some(closing) = quote {
            match letter {
                '\\' => word
                    .get_or_insert_default()
                    .extend(letters.next().map(|(_, letter)| letter)),
                _ if letter == closing => quote = None,
                _ => word.get_or_insert_default().push(letter),
            }
            continue;
        }
        match letter {
            '#' if word.is_none() => while letters.next_if(|(_, l)| *l != '\n').is_some() {},
            '"' | '\'' if word.is_none() => {
                quote = Some(letter);
                word = Some(String::new());
            }
            '\\' => word
                .get_or_insert_default()
                .extend(letters.next().map(|(_, letter)| letter)),
            ';' | '{' | '}' => {
                words.extend(word.take());
                if let (';', [name, pattern]) = (letter, &words[..])
                    && name == "include"
                {
                    found.push(Statement {
                        from,
                        until: at + 1,
                        pattern: pattern.clone(),
                    });
                }
                words.clear();
            }
            _ if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    found
}

fn read(path: &Path) -> Result<String, NginxError> {
    std::fs::read_to_string(path).map_err(|source| NginxError::Files {
        path: path.to_owned(),
        source,
    })
}

fn kept(folder: &Path, text: &str) -> Result<tempfile::TempPath, NginxError> {
    let failed = |source| NginxError::Files {
        path: folder.to_owned(),
        source,
    };
    let file = tempfile::Builder::new()
        .prefix(".greenlight-test-")
        .tempfile_in(folder)
        .map_err(failed)?;
    std::fs::write(file.path(), text).map_err(failed)?;
    Ok(file.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found_where_nginx_would_find_them() {
        let text = "# include a;\ninclude mime.types;\nhttp { log_format x 'include b;';\n\
                    include \"c d.conf\" ; server{include e/*.conf;} }";
        let found = includes(text);
        let patterns: Vec<_> = found.iter().map(|s| s.pattern.as_str()).collect();
        assert_eq!(patterns, ["mime.types", "c d.conf", "e/*.conf"]);
        assert_eq!(&text[found[0].from..found[0].until], "include mime.types;");
    }

    #[test]
    fn only_what_leads_to_the_file_is_written_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("sites")).expect("a folder");
        std::fs::create_dir_all(at("conf.d")).expect("a folder");
        std::fs::write(at("sites/a.conf"), "server {}").expect("a folder");
        std::fs::write(at("all.conf"), "include conf.d/*.conf;").expect("a folder");
        std::fs::write(at("conf.d/z.conf"), "# z").expect("a folder");
        let main = "http {\n  include sites/*.conf;\n  include all.conf;\n}\n";
        std::fs::write(at("nginx.conf"), main).expect("a folder");

        let copy = copy_with(&at("nginx.conf"), &at("conf.d/ours.conf"), "# new").expect("a copy");

        assert_eq!(copy.copied(), Copied::Included);
        let text = read(copy.conf()).expect("a file");
        assert!(text.contains("include sites/*.conf;"), "{text}");
        assert!(!text.contains("all.conf"), "{text}");
        let substitute = text.find(".greenlight-test-").expect("it is there");
        assert!(substitute < text.find("z.conf").expect("it is there"));
        let conf = copy.conf().to_owned();
        drop(copy);
        assert!(!conf.exists());
        assert!(!at("conf.d/ours.conf").exists());
    }

    #[test]
    fn a_configuration_that_does_not_include_the_file_is_told_from_one_that_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let main = dir.path().join("nginx.conf");
        std::fs::write(&main, "events {}\ninclude nothing/*.conf;\n").expect("a folder");

        let copy = copy_with(&main, &dir.path().join("ours.conf"), "").expect("a copy");

        assert_eq!(copy.copied(), Copied::NotIncluded);
    }
}
