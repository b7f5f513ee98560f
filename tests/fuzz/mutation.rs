//! Changes to a text: to the tree that it is, if it is YAML or JSON, and to its bytes.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

/// The word by which something hostile is found again where it should not be; a shell that runs it leaves a file of that name.
pub const MARK: &str = "KUPMARK";

/// What programs stumble over.
static HOSTILE: [&str; 72] = [
    "$(touch KUPMARK)",
    "`touch KUPMARK`",
    "a$(touch KUPMARK)b",
    ";touch KUPMARK;",
    "'; touch KUPMARK; '",
    "\"; touch KUPMARK; \"",
    "'\"; touch KUPMARK #",
    "a'$(touch KUPMARK)'b",
    "|touch KUPMARK",
    "&& touch KUPMARK",
    "\ntouch KUPMARK\n",
    "a\nEND\ntouch KUPMARK\n",
    "a\nExecStartPre=/bin/touch KUPMARK",
    "a\n[Service]\nExecStart=/bin/touch KUPMARK",
    "\\\ntouch KUPMARK",
    "END",
    "JSON",
    "$HOME",
    "${IFS}",
    "%n%H",
    "%",
    "@KUP_NAME@",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "../../../../KUPMARK",
    "/KUPMARK",
    "..",
    ".",
    "/",
    "~/x",
    "-oProxyCommand=touch KUPMARK",
    "--KUPMARK",
    "-",
    "'",
    "\"",
    "\\",
    "\\n",
    "\0",
    "a\0b",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{9b}",
    "\r\n",
    "\t",
    " ",
    "",
    "\u{feff}",
    "\u{2028}",
    "\u{202e}txt",
    "\u{200d}",
    "é",
    "e\u{301}",
    "ÿ",
    "🦀",
    "日本",
    "&a",
    "*a",
    "!!binary x",
    "<<",
    "~",
    "null",
    "true",
    "on",
    "no",
    "0x10",
    "1e400",
    "1_000",
    ".inf",
    "99999999999999999999999999",
    "-1",
    "<![CDATA[x]]>&lt;&#0;",
];

/// Bytes that may stand anywhere in a text of YAML, JSON or XML, and mean something there.
static TOKENS: [&str; 40] = [
    "\t",
    "\n",
    "\r",
    "\0",
    "\u{1b}",
    ": ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "#",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "%YAML 1.1\n",
    "---\n",
    "...\n",
    "<<: ",
    "\u{feff}",
    "<",
    ">",
    "</",
    "/>",
    "<!--",
    "&lt;",
    "&x;",
    "<?xml?>",
    "null",
    "0",
    "-",
    ".",
    "\\u0000",
];

/// A text that is hostile somewhere.
pub fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => select(&HOSTILE[..]).prop_map(str::to_owned),
        2 => (select(&HOSTILE[..]), select(&HOSTILE[..])).prop_map(|(a, b)| format!("{a}{b}")),
        1 => (select(&HOSTILE[..]), 60..5000_usize).prop_map(|(a, times)| a.repeat(times.min(100_000 / a.len().max(1)))),
        2 => "[ -~]{1,12}",
        1 => "\\PC{1,8}",
        1 => any::<String>(),
    ]
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// A scalar of the tree becomes this text.
    Text(Index, String),
    /// This text is put into the middle of a scalar.
    Inside(Index, Index, String),
    /// A node becomes something else.
    Other(Index, Value),
    /// A node stands that deep in lists or blocks.
    Deep(Index, usize, bool),
    /// A node is gone.
    Gone(Index),
    /// A node stands in the place of another.
    Copied(Index, Index),
    /// A list has its items so many times.
    Many(Index, usize),
    /// A line stands twice.
    Line(Index),
    /// A byte is another one.
    Byte(Index, u8),
    /// It ends early.
    Cut(Index),
    /// This stands somewhere in it.
    Token(Index, &'static str),
    /// A part is gone.
    Without(Index, usize),
    /// A part stands in another place too.
    Pasted(Index, usize, Index),
}

fn other() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(vec![
            Value::Null,
            true.into(),
            0.into(),
            (-1).into(),
            65536.into(),
            u64::MAX.into(),
            i64::MIN.into(),
            1.5.into(),
            1e300.into(),
            Value::Array(vec![]),
            Value::Object(serde_json::Map::new()),
            serde_json::json!([null]),
            serde_json::json!([["a"]]),
            serde_json::json!({ "a": { "b": [1] } }),
        ]),
        hostile().prop_map(|text| serde_json::json!([text])),
        hostile().prop_map(|text| serde_json::json!({ "name": text })),
        hostile().prop_map(|key| Value::Object([(key, 1.into())].into_iter().collect())),
    ]
}

/// One change to a tree's texts: most of what such changes make is still a tree of the same shape.
pub fn texts() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), hostile()).prop_map(|(at, text)| Change::Text(at, text)),
        (any::<Index>(), any::<Index>(), hostile()).prop_map(|(at, point, text)| Change::Inside(at, point, text)),
    ]
}

/// One change of any kind.
pub fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => texts(),
        3 => (any::<Index>(), other()).prop_map(|(at, value)| Change::Other(at, value)),
        1 => (any::<Index>(), prop_oneof![1..10_usize, 60..140_usize, 1000..30_000_usize], any::<bool>())
            .prop_map(|(at, depth, list)| Change::Deep(at, depth, list)),
        2 => any::<Index>().prop_map(Change::Gone),
        2 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Copied(from, to)),
        1 => (any::<Index>(), 2..3000_usize).prop_map(|(at, times)| Change::Many(at, times)),
        2 => any::<Index>().prop_map(Change::Line),
        2 => any::<(Index, u8)>().prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        4 => (any::<Index>(), select(&TOKENS[..])).prop_map(|(at, token)| Change::Token(at, token)),
        1 => (any::<Index>(), 1..200_usize).prop_map(|(at, size)| Change::Without(at, size)),
        1 => (any::<Index>(), 1..200_usize, any::<Index>()).prop_map(|(at, size, to)| Change::Pasted(at, size, to)),
    ]
}

/// How a tree is written down again.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    Yaml,
    Json,
}

pub fn style() -> impl Strategy<Value = Style> {
    prop_oneof![3 => Just(Style::Yaml), 1 => Just(Style::Json)]
}

/// The text with these changes.
pub fn changed(text: &str, changes: &[Change], style: Style) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let (tree, others): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.is_of_tree());
    if !tree.is_empty()
        && let Some(mut root) = serde_yaml::from_str::<serde_yaml::Value>(text).ok().and_then(|v| serde_json::to_value(v).ok())
    {
        let mut nested = None;
        for change in tree {
            change.apply(&mut root, &mut nested);
        }
        bytes = written(&root, style).into_bytes();
        if let Some((depth, list)) = nested {
            bytes = deep(&bytes, depth, list);
        }
    }
    for change in others {
        change.apply_to_bytes(&mut bytes);
    }
    bytes
}

/// Stands for a node that is nested deeper than a library may write it.
const NEST: &str = "kup-nested-here";

fn written(root: &Value, style: Style) -> String {
    match style {
        Style::Yaml => serde_yaml::to_string(root).unwrap_or_default(),
        Style::Json => serde_json::to_string_pretty(root).unwrap_or_default(),
    }
}

/// Puts brackets where [`NEST`] stands.
fn deep(bytes: &[u8], depth: usize, list: bool) -> Vec<u8> {
    let (open, close) = if list { ("[", "]") } else { ("{\"a\": ", "}") };
    let nest = format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let text = String::from_utf8_lossy(bytes);
    text.replacen(&format!("\"{NEST}\""), &nest, 1).replacen(NEST, &nest, 1).into_bytes()
}

impl Change {
    fn is_of_tree(&self) -> bool {
        use Change::{Copied, Deep, Gone, Inside, Many, Other, Text};
        matches!(self, Text(..) | Inside(..) | Other(..) | Deep(..) | Gone(..) | Copied(..) | Many(..))
    }

    fn apply(&self, root: &mut Value, nested: &mut Option<(usize, bool)>) {
        match self {
            Change::Text(at, text) => {
                if let Some(node) = pick(root, *at, &|node| !node.is_object() && !node.is_array()) {
                    *node = Value::String(text.clone());
                }
            }
            Change::Inside(at, point, text) => {
                if let Some(Value::String(scalar)) = pick(root, *at, &Value::is_string) {
                    let point = scalar.floor_char_boundary(point.index(scalar.len() + 1));
                    scalar.insert_str(point, text);
                }
            }
            Change::Other(at, value) => {
                if let Some(node) = pick(root, *at, &|_| true) {
                    *node = value.clone();
                }
            }
            Change::Deep(at, depth, list) => {
                if let Some(node) = pick(root, *at, &|_| true) {
                    *node = NEST.into();
                    *nested = Some((*depth, *list));
                }
            }
            Change::Gone(at) => match pick(root, *at, &|node| node.as_object().is_some_and(|fields| !fields.is_empty())) {
                Some(Value::Object(fields)) => {
                    if let Some(key) = fields.keys().nth(at.index(fields.len())).cloned() {
                        fields.remove(&key);
                    }
                }
                _ => *root = Value::Null,
            },
            Change::Copied(from, to) => {
                let copy = pick(root, *from, &|_| true).cloned();
                if let (Some(copy), Some(node)) = (copy, pick(root, *to, &|_| true)) {
                    *node = copy;
                }
            }
            Change::Many(at, times) => {
                if let Some(Value::Array(items)) = pick(root, *at, &Value::is_array) {
                    let times = (*times).min(20_000 / items.len().max(1));
                    *items = items.iter().cycle().take(items.len() * times).cloned().collect();
                }
            }
            _ => {}
        }
    }

    /// Changes bytes.
    pub fn apply_to_bytes(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        match self {
            Change::Line(at) => {
                let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
                let Some(line) = lines.get(at.index(lines.len().max(1))).map(|line| line.to_vec()) else { return };
                let end: usize = lines.iter().take(at.index(lines.len()) + 1).map(|line| line.len()).sum();
                bytes.splice(end..end, line);
            }
            Change::Byte(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
            Change::Cut(at) => bytes.truncate(at.index(length + 1)),
            Change::Token(at, token) => {
                let point = at.index(length + 1);
                bytes.splice(point..point, token.bytes());
            }
            Change::Without(at, size) => {
                let start = at.index(length + 1);
                bytes.drain(start..(start + size).min(length));
            }
            Change::Pasted(at, size, to) => {
                let (start, to) = (at.index(length + 1), to.index(length + 1));
                let part: Vec<u8> = bytes[start..(start + size).min(length)].to_vec();
                bytes.splice(to..to, part);
            }
            _ => {}
        }
    }
}

/// One of the nodes that are such, in the order of the text.
fn pick<'a>(root: &'a mut Value, at: Index, wanted: &dyn Fn(&Value) -> bool) -> Option<&'a mut Value> {
    let count = count(root, wanted);
    if count == 0 {
        return None;
    }
    nth(root, &mut at.index(count), wanted)
}

fn count(node: &Value, wanted: &dyn Fn(&Value) -> bool) -> usize {
    let below: usize = match node {
        Value::Array(items) => items.iter().map(|item| count(item, wanted)).sum(),
        Value::Object(fields) => fields.values().map(|item| count(item, wanted)).sum(),
        _ => 0,
    };
    below + usize::from(wanted(node))
}

fn nth<'a>(node: &'a mut Value, left: &mut usize, wanted: &dyn Fn(&Value) -> bool) -> Option<&'a mut Value> {
    if wanted(node) {
        if *left == 0 {
            return Some(node);
        }
        *left -= 1;
    }
    match node {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left, wanted)),
        Value::Object(fields) => fields.values_mut().find_map(|item| nth(item, left, wanted)),
        _ => None,
    }
}
