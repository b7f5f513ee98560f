//! YAML with what serde's view of a document doesn't keep: where each value stands, and how each scalar was written.
//!
//! Config errors name lines by it, and kubeconfigs are edited through it: a scalar that was written plain stays plain and a quoted
//! one stays quoted, so that readers of YAML 1.1 (kubectl's `on` is a boolean) see the same values as before.

mod emit;

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// Blocks inside blocks that are still read. Neither of the two formats needs more than ten.
const MAX_DEPTH: usize = 64;

/// The longest name of a field, in bytes. On a line with its value YAML has none above 1024 characters, escapes included.
const MAX_NAME: usize = 260;

/// Problems that are collected before giving up: a broken file shows the same one a thousand times.
const MAX_FAULTS: usize = 50;

/// A place in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl From<&Marker> for Mark {
    fn from(marker: &Marker) -> Self {
        // The parser counts columns from 0.
        Mark { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

/// Why a text can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub mark: Mark,
    /// The mapping keys above it.
    pub path: Vec<String>,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

/// One value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it starts; for a value in a mapping, `Entry::mark` is the key's place.
    pub mark: Mark,
    /// What it is.
    pub kind: Kind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A word, a number, nothing at all: its text, and whether it was written without quotes.
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Written without quotes, so that its text decides its type.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the key starts.
    pub mark: Mark,
    /// The key's text.
    pub key: String,
    /// Whether the key was written without quotes.
    pub plain: bool,
    /// The value.
    pub value: Node,
}

impl Node {
    const NOWHERE: Mark = Mark { line: 1, column: 1 };

    /// A quoted text that stands nowhere yet.
    pub fn text(text: impl Into<String>) -> Node {
        Node { mark: Node::NOWHERE, kind: Kind::Scalar { text: text.into(), plain: false } }
    }

    /// A text to be written without quotes; only for words that need none.
    pub fn plain(text: &str) -> Node {
        Node { mark: Node::NOWHERE, kind: Kind::Scalar { text: text.into(), plain: true } }
    }

    /// A mapping that stands nowhere yet.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Node)>) -> Node {
        let entry = |(key, value): (&str, Node)| Entry { mark: Node::NOWHERE, key: key.into(), plain: true, value };
        Node { mark: Node::NOWHERE, kind: Kind::Map(entries.into_iter().map(entry).collect()) }
    }

    /// A list that stands nowhere yet.
    pub fn list(items: Vec<Node>) -> Node {
        Node { mark: Node::NOWHERE, kind: Kind::List(items) }
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.value)
    }

    /// The entry of a key, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Sets a key of a mapping, in its place or at the end. Does nothing to other values.
    pub fn set(&mut self, key: &str, value: Node) {
        if let Kind::Map(entries) = &mut self.kind {
            match entries.iter_mut().find(|e| e.key == key) {
                Some(entry) => entry.value = value,
                None => entries.push(Entry { mark: Node::NOWHERE, key: key.into(), plain: true, value }),
            }
        }
    }

    /// The text of a scalar.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether another reader saw the same in the same text: the same lists and blocks, and the same texts where those are quoted. What was
    /// written plain may be a number or a truth value to one, and a text to the other.
    pub fn agrees(&self, other: &serde_yaml::Value) -> bool {
        use serde_yaml::Value;
        let scalar = |text: &str, plain: bool, other: &Value| match other {
            Value::String(theirs) => text == theirs,
            Value::Null | Value::Bool(_) | Value::Number(_) => plain,
            _ => false,
        };
        match (&self.kind, other) {
            (Kind::Scalar { text, plain }, other) => scalar(text, *plain, other),
            (Kind::List(own), Value::Sequence(theirs)) => {
                own.len() == theirs.len() && own.iter().zip(theirs).all(|(own, theirs)| own.agrees(theirs))
            }
            (Kind::Map(own), Value::Mapping(theirs)) => {
                let same =
                    |(own, (key, value)): (&Entry, (&Value, &Value))| scalar(&own.key, own.plain, key) && own.value.agrees(value);
                own.len() == theirs.len() && own.iter().zip(theirs).all(same)
            }
            _ => false,
        }
    }

    /// Whether this is YAML's null: nothing, `~` or `null`, unquoted.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

impl Kind {
    /// What it is, in a word.
    pub const fn noun(&self) -> &'static str {
        match self {
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a block of fields",
        }
    }
}

/// Reads a text of one document (an empty one is a null).
///
/// Anchors, aliases, tags, repeated keys and several documents are faults: neither of the formats that kup reads needs them, and
/// aliases make a short text a huge value. All faults that can be told apart are returned, in the order of the text.
pub fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    let mut reader = Reader { stack: Vec::new(), root: None, documents: 0, faults: Vec::new() };
    // Both parsers say strange things of tabs, so they are named beforehand.
    for (index, line) in text.lines().enumerate() {
        let indent: &str = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let rest = &line[indent.len()..];
        if let (Some(at), false) = (indent.find('\t'), rest.is_empty() || rest.starts_with('#')) {
            reader.fault(
                Mark { line: index + 1, column: at + 1 },
                "a tab in the indentation",
                "indent with spaces; YAML allows no tabs there",
            );
        }
    }
    // The parsers disagree on these, and no config or kubeconfig has any: YAML 1.1 begins a line at some of them, YAML 1.2 does not.
    let odd = |index: usize, at: usize, c: char| {
        let mark = c == '\u{feff}' && (index, at) != (0, 0);
        mark || (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}')
    };
    for (index, line) in text.lines().enumerate() {
        if let Some((at, c)) = line.chars().enumerate().find(|(at, c)| odd(index, *at, *c)) {
            let what = format!("the control character `{}`", c.escape_default());
            reader.fault(
                Mark { line: index + 1, column: at + 1 },
                &what,
                "remove it; in double quotes it can be written as an escape",
            );
        }
    }
    if reader.faults.is_empty() {
        for event in Parser::new_from_str(text) {
            let carry_on = match event {
                Ok((event, span)) => reader.event(event, Mark::from(&span.start)),
                Err(e) => {
                    let what = format!("this is no valid YAML: {}", e.info());
                    reader.fault(
                        Mark::from(e.marker()),
                        &what,
                        "check the colons, quotes, brackets and indentation here and on the line above",
                    );
                    false
                }
            };
            if !carry_on || reader.faults.len() >= MAX_FAULTS {
                break;
            }
        }
    }
    if reader.faults.is_empty() { Ok(reader.root.unwrap_or_else(|| Node::plain(""))) } else { Err(reader.faults) }
}

/// Where a node that starts at `key` or in the list above it goes.
enum Open {
    List { mark: Mark, items: Vec<Node> },
    Map { mark: Mark, entries: Vec<Entry>, seen: HashMap<String, Mark>, key: Option<(Mark, String, bool)> },
}

struct Reader {
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    faults: Vec<Fault>,
}

impl Reader {
    fn fault(&mut self, mark: Mark, what: &str, fix: &str) {
        let path = self.stack.iter().filter_map(|open| match open {
            Open::Map { key: Some((_, key, _)), .. } => Some(key.clone()),
            _ => None,
        });
        let path = path.collect();
        self.faults.push(Fault { mark, path, what: what.into(), fix: fix.into() });
    }

    /// Takes one event; false if there is no sense in going on.
    fn event(&mut self, event: Event<'_>, mark: Mark) -> bool {
        const NO_ANCHORS: &str = "write the value itself";
        match event {
            Event::Alias(_) => {
                self.fault(mark, "aliases (`*name`) are not read here", NO_ANCHORS);
                return false;
            }
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) if anchor != 0 => {
                self.fault(mark, "anchors (`&name`) are not read here", NO_ANCHORS);
                return false;
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                self.fault(mark, "tags (`!name`) are not read here", NO_ANCHORS);
                return false;
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.fault(mark, "a second document starts", "keep one document per file: remove the `---` and what follows");
                    return false;
                }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if self.stack.len() >= MAX_DEPTH => {
                self.fault(mark, &format!("more than {MAX_DEPTH} blocks inside each other"), "remove the nesting");
                return false;
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if self.key_wanted() => {
                self.fault(mark, "a list or a block of fields where a field's name belongs", "write `name: value`");
                return false;
            }
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                if self.key_wanted() {
                    self.key(mark, text.into_owned(), plain);
                } else {
                    self.value(Node { mark, kind: Kind::Scalar { text: text.into_owned(), plain } });
                }
            }
            Event::SequenceStart(..) => self.stack.push(Open::List { mark, items: Vec::new() }),
            Event::MappingStart(..) => self.stack.push(Open::Map { mark, entries: Vec::new(), seen: HashMap::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List { mark, items }) => self.value(Node { mark, kind: Kind::List(items) }),
                Some(Open::Map { mark, entries, .. }) => self.value(Node { mark, kind: Kind::Map(entries) }),
                None => {}
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        true
    }

    fn key_wanted(&self) -> bool {
        matches!(self.stack.last(), Some(Open::Map { key: None, .. }))
    }

    fn key(&mut self, mark: Mark, text: String, plain: bool) {
        let Some(Open::Map { seen, key, .. }) = self.stack.last_mut() else { return };
        let (first, length) = (*seen.entry(text.clone()).or_insert(mark), text.len());
        *key = Some((mark, text, plain));
        if length > MAX_NAME {
            self.fault(
                mark,
                &format!("a field's name of {length} characters"),
                "write a shorter one: readers of YAML take no such line",
            );
        }
        if first != mark {
            self.fault(mark, &format!("written twice, first on line {}", first.line), "keep one of the two");
        }
    }

    fn value(&mut self, node: Node) {
        match self.stack.last_mut() {
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => {
                if let Some((mark, key, plain)) = key.take() {
                    entries.push(Entry { mark, key, plain, value: node });
                }
            }
            None => self.root = Some(node),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(text)
            .expect_err(text)
            .into_iter()
            .map(|f| format!("{}:{} {} {}", f.mark.line, f.mark.column, f.path.join("."), f.what))
            .collect()
    }

    #[test]
    fn places_are_counted_from_one() {
        let root = parse("# c\na:\n  b: 1\n  c: [x, \"y\"]\n").unwrap();
        let a = root.entry("a").unwrap();
        assert_eq!(a.mark, Mark { line: 2, column: 1 });
        let b = a.value.entry("b").unwrap();
        assert_eq!((b.mark, b.value.mark), (Mark { line: 3, column: 3 }, Mark { line: 3, column: 6 }));
        let Kind::List(items) = &a.value.get("c").unwrap().kind else { panic!() };
        assert_eq!(items[1].mark, Mark { line: 4, column: 10 });
        assert_eq!(items[1].kind, Kind::Scalar { text: "y".into(), plain: false });
    }

    #[test]
    fn empty_texts_are_null() {
        for text in ["", "\n", "# only a comment\n", "---\n", "\r\n", "~"] {
            assert!(parse(text).unwrap().is_null(), "{text:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        const SYNTAX: &str = "this is no valid YAML:";
        let table: [(&str, &[&str]); 12] = [
            (
                "a: 1\nb:\n  c: 2\n  c: 3\n  c: 4\na: 5\n",
                &[
                    "4:3 b.c written twice, first on line 3",
                    "5:3 b.c written twice, first on line 3",
                    "6:1 a written twice, first on line 1",
                ],
            ),
            ("{a: 1, a: 2}", &["1:8 a written twice, first on line 1"]),
            ("a:\n\tb: 1\n# \tno\n \tc: 2\n", &["2:1  a tab in the indentation", "4:2  a tab in the indentation"]),
            ("a: &x 1\nb: *x\n", &["1:7 a anchors (`&name`) are not read here"]),
            ("a: !!str 1\n", &["1:10 a tags (`!name`) are not read here"]),
            ("a: 1\n---\nb: 2\n", &["2:1  a second document starts"]),
            ("? [a]\n: 1\n", &["1:3  a list or a block of fields where a field's name belongs"]),
            ("a: [1, 2\nb: 3\n", &["2:2 a this is no valid YAML: illegal placement of ':' indicator"]),
            ("a: 1\r\nb: \u{1b}[0m\n", &["2:4  the control character `\\u{1b}`"]),
            ("a: \u{2028} b\n", &["1:4  the control character `\\u{2028}`"]),
            ("a: \u{feff}b\n", &["1:4  the control character `\\u{feff}`"]),
            ("a: b: c\n", &["1:5  this is no valid YAML: mapping values are not allowed in this context"]),
        ];
        for (text, expected) in table {
            assert_eq!(faults(text), expected, "{text:?}");
        }
        assert!(faults("a: 'open\n")[0].starts_with(&format!("1:4 a {SYNTAX}")));
        assert_eq!(faults(&format!("{}{}", "[".repeat(70), "]".repeat(70))), ["1:65  more than 64 blocks inside each other"]);
    }

    #[test]
    fn a_large_hostile_text_ends() {
        for piece in ["[", "{", "- ", "a: ", "? ", "'", "\"", "&a ", "!", "|\n", "%", "a:\n", "\u{feff}", "\t"] {
            let _ = parse(&piece.repeat((256 << 10) / piece.len()));
        }
    }
}
