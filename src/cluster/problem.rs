//! Where a value came from, and what is wrong with it: every message names the place, the field, and the fix.

use std::fmt;

use crate::error::Error;
use crate::yaml::Mark;

/// Problems that one message shows; the rest is counted.
const SHOWN: usize = 20;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults compiled into kup.
    Default,
    /// A config file.
    File {
        /// As the user named it.
        file: String,
        /// Where in it.
        mark: Mark,
    },
    /// An environment variable.
    Env(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl Origin {
    /// The order in which people look: through the file first, then at what they typed.
    pub fn place(&self) -> (u8, Option<Mark>) {
        match self {
            Origin::File { mark, .. } => (0, Some(*mark)),
            Origin::Env(_) => (1, None),
            Origin::Flag(_) => (2, None),
            Origin::Default => (3, None),
        }
    }
}

/// `default`, `file x.yaml:12`, `env KUP_NAME`, `flag --name`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, mark } => write!(f, "file {file}:{}", mark.line),
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the offending value came from.
    pub origin: Origin,
    /// The field, as `network.pods`; empty if it is the file as a whole.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

/// Place, field, and what is wrong, on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str("built-in defaults: ")?,
            Origin::File { file, mark } => write!(f, "{file}:{}:{}: ", mark.line, mark.column)?,
            Origin::Env(name) => write!(f, "environment variable {name}: ")?,
            Origin::Flag(flag) => write!(f, "flag {flag}: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// All problems in one error of kind Usage. There must be at least one.
pub fn error(problems: &[Problem]) -> Error {
    if let [only] = problems {
        return Error::usage(only.to_string()).hint(&only.fix);
    }
    let mut error = Error::usage(format!("the config has {} problems", problems.len()));
    for problem in problems.iter().take(SHOWN) {
        error = error.why(format!("{problem}\nfix: {}", problem.fix));
    }
    if problems.len() > SHOWN {
        error = error.why(format!("and {} more", problems.len() - SHOWN));
    }
    error
}

/// A text from outside, as it may safely be shown: in backticks, control characters escaped, cut after 60 characters.
pub fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    // Quotes need no escape between backticks.
    let shown = shown.replace("\\'", "'").replace("\\\"", "\"");
    let length = text.chars().count();
    if length > LONGEST { format!("`{shown}…` ({length} characters)") } else { format!("`{shown}`") }
}

/// The one of `known` that `word` was probably meant to be: the same but for case, hyphens and underscores, or with few typing errors.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |s: &str| s.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).take(64).collect::<String>().to_lowercase();
    let wanted = normal(word);
    let allowed = (wanted.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&wanted, &normal(candidate));
    known.into_iter().map(|k| (distance(k), k)).filter(|(d, _)| *d <= allowed).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["name", "provider", "masters", "minions", "network"];
        for (word, meant) in
            [("nmae", "name"), ("Masters", "masters"), ("master", "masters"), ("net-work", "network"), ("provder", "provider")]
        {
            assert_eq!(did_you_mean(word, known), Some(meant));
        }
        for word in ["", "x", "nodes", "zzzzzzzz", "🦀🦀"] {
            assert_eq!(did_you_mean(word, known), None, "{word}");
        }
    }

    #[test]
    fn hostile_texts_are_shown_harmlessly() {
        assert_eq!(quoted("a'b\"\n\0\u{1b}[31m"), "`a'b\"\\n\\0\\u{1b}[31m`");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), 61 + 2 + " (200 characters)".len());
    }
}
