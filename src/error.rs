//! The one error type: what failed, why, what is left behind, and what to type next.
//!
//! Library code builds an [`Error`] where the knowledge is; `main` only renders it and takes its exit code.

use std::fmt;

/// Shorthand used all over the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure this is; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something could not be done (exit code 1).
    Failed,
    /// The command line or the config is wrong; nothing was started (exit code 2).
    Usage,
    /// The cluster answers, but not everything is well, or changes are pending (exit code 3).
    Unhealthy,
    /// Credentials are missing, expired or not allowed to do this (exit code 4).
    Credentials,
    /// The user stopped it; `kup up` resumes (exit code 130).
    Interrupted,
}

impl Kind {
    /// The process exit code that stands for this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unhealthy => 3,
            Kind::Credentials => 4,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure as the user reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed, as one sentence without a full stop.
    pub what: String,
    /// Causes, outermost first. A cause may have several lines (a unit's journal).
    pub why: Vec<String>,
    /// What exists now because of the failed work, and what it costs; empty if nothing was made.
    pub left: Option<String>,
    /// What to type or change next.
    pub hints: Vec<String>,
}

impl Error {
    /// A failure of kind [`Kind::Failed`].
    pub fn new(what: impl Into<String>) -> Self {
        Error { kind: Kind::Failed, what: what.into(), why: Vec::new(), left: None, hints: Vec::new() }
    }

    /// A failure of kind [`Kind::Usage`]: bad flags or bad config.
    pub fn usage(what: impl Into<String>) -> Self {
        Error { kind: Kind::Usage, ..Error::new(what) }
    }

    /// The same error with another kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds a cause below those already named.
    #[must_use]
    pub fn why(mut self, cause: impl fmt::Display) -> Self {
        self.why.push(cause.to_string());
        self
    }

    /// Says what is left behind.
    #[must_use]
    pub fn left(mut self, left: impl Into<String>) -> Self {
        self.left = Some(left.into());
        self
    }

    /// Adds something the user can type or change.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Wraps this error in a larger one: its own words become causes, its hints and leftovers are kept.
    #[must_use]
    pub fn within(self, what: impl Into<String>) -> Self {
        let mut why = vec![self.what];
        why.extend(self.why);
        Error { what: what.into(), why, ..self }
    }
}

/// `error: what`, then indented causes, what is left, and hints; understandable without colour, and without anything that a terminal would obey.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(&self.what))?;
        for cause in &self.why {
            let mut lines = cause.lines();
            write!(f, "\n  because: {}", Plain(lines.next().unwrap_or_default()))?;
            for line in lines {
                write!(f, "\n           {}", Plain(line))?;
            }
        }
        if let Some(left) = &self.left {
            write!(f, "\n  left: {}", Plain(left))?;
        }
        for hint in &self.hints {
            write!(f, "\n  next: {}", Plain(hint))?;
        }
        Ok(())
    }
}

/// Words of an error, some of which machines and servers said: what moves a cursor, or hides or reorders text, is shown as an escape.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        let hides =
            |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        for part in self.0.split_inclusive(|c| obeyed(c) || hides(c)) {
            match part.chars().next_back().filter(|c| obeyed(*c) || hides(*c)) {
                Some(c) => write!(f, "{}{}", &part[..part.len() - c.len_utf8()], c.escape_default())?,
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns any error into an [`Error`] by saying what was being done.
pub trait Context<T> {
    /// `what` names the failed action ("cannot read /etc/x"); the original error becomes the cause, with all its sources.
    fn context(self, what: impl Into<String>) -> Result<T>;
    /// As [`Context::context`], for words that cost something to build.
    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: std::error::Error> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.with_context(|| what)
    }

    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| {
            let mut error = Error::new(what()).why(&e);
            let mut last = e.to_string();
            let mut source = e.source();
            while let Some(s) = source {
                let words = s.to_string();
                // Many libraries repeat their source in their own message.
                if !last.contains(&words) {
                    error = error.why(&words);
                }
                last = words;
                source = s.source();
            }
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_what_why_left_next() {
        let e = Error::new("etcd did not start on kubernetes-master-1")
            .why("unit etcd.service failed\nlast line of its journal")
            .left("5 containers of cluster kubernetes")
            .hint("kup up resumes, kup down removes");
        insta::assert_snapshot!(e.to_string(), @r"
        etcd did not start on kubernetes-master-1
          because: unit etcd.service failed
                   last line of its journal
          left: 5 containers of cluster kubernetes
          next: kup up resumes, kup down removes
        ");
    }

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        let e = Error::new("a\u{1b}[2Jb").why("one\u{9b}1m\n\u{202e}two\tthree\u{7}").hint("é 🦀");
        assert_eq!(e.to_string(), "a\\u{1b}[2Jb\n  because: one\\u{9b}1m\n           \\u{202e}two\tthree\\u{7}\n  next: é 🦀");
    }

    #[test]
    fn wrapping_keeps_causes_and_hints() {
        let e = Error::usage("inner").why("cause").hint("type this").within("outer");
        assert_eq!(e.what, "outer");
        assert_eq!(e.why, ["inner", "cause"]);
        assert_eq!(e.hints, ["type this"]);
        assert_eq!(e.kind.exit_code(), 2);
    }
}
