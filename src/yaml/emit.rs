//! Writing a [`Node`] as block-style YAML, indented as kubectl does it.

use std::fmt::{self, Write};

use super::{Kind, Node};

/// The document's text, with a newline at its end.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Map(entries) if !entries.is_empty() => map(f, self, 0, false),
            Kind::List(items) if !items.is_empty() => list(f, self, 0),
            _ => {
                flat(f, self)?;
                f.write_char('\n')
            }
        }
    }
}

fn indent(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    (0..depth).try_for_each(|_| f.write_str("  "))
}

/// `begun`: the line is already indented (behind a list's dash).
fn map(f: &mut fmt::Formatter<'_>, node: &Node, depth: usize, mut begun: bool) -> fmt::Result {
    let Kind::Map(entries) = &node.kind else { return Ok(()) };
    for entry in entries {
        if !std::mem::take(&mut begun) {
            indent(f, depth)?;
        }
        scalar(f, &entry.key, entry.plain)?;
        f.write_char(':')?;
        match &entry.value.kind {
            Kind::Map(inner) if !inner.is_empty() => {
                f.write_char('\n')?;
                map(f, &entry.value, depth + 1, false)?;
            }
            Kind::List(inner) if !inner.is_empty() => {
                f.write_char('\n')?;
                // Lists stand at their key's own column, as kubectl writes them.
                list(f, &entry.value, depth)?;
            }
            Kind::Scalar { text, plain: true } if text.is_empty() => f.write_char('\n')?,
            _ => {
                f.write_char(' ')?;
                flat(f, &entry.value)?;
                f.write_char('\n')?;
            }
        }
    }
    Ok(())
}

fn list(f: &mut fmt::Formatter<'_>, node: &Node, depth: usize) -> fmt::Result {
    let Kind::List(items) = &node.kind else { return Ok(()) };
    for item in items {
        indent(f, depth)?;
        f.write_char('-')?;
        match &item.kind {
            Kind::Map(inner) if !inner.is_empty() => {
                f.write_char(' ')?;
                map(f, item, depth + 1, true)?;
            }
            Kind::List(inner) if !inner.is_empty() => {
                f.write_char('\n')?;
                list(f, item, depth + 1)?;
            }
            Kind::Scalar { text, plain: true } if text.is_empty() => f.write_char('\n')?,
            _ => {
                f.write_char(' ')?;
                flat(f, item)?;
                f.write_char('\n')?;
            }
        }
    }
    Ok(())
}

/// What fits on one line.
fn flat(f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
    match &node.kind {
        Kind::Scalar { text, plain } => scalar(f, text, *plain),
        Kind::List(_) => f.write_str("[]"),
        Kind::Map(_) => f.write_str("{}"),
    }
}

fn scalar(f: &mut fmt::Formatter<'_>, text: &str, plain: bool) -> fmt::Result {
    // A plain text of several lines can't be anything but a string, so that quoting it changes nothing.
    if (plain && !text.contains('\n')) || needs_no_quotes(text) {
        return f.write_str(text);
    }
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            ' '..='~' | '\u{a0}'..='\u{d7ff}' if !matches!(c, '\u{2028}' | '\u{2029}') => f.write_char(c)?,
            c if (c as u32) < 0x100 => write!(f, "\\x{:02x}", c as u32)?,
            c if (c as u32) < 0x10000 => write!(f, "\\u{:04x}", c as u32)?,
            c => write!(f, "\\U{:08x}", c as u32)?,
        }
    }
    f.write_char('"')
}

/// Whether a text is a string to every reader of YAML, 1.1 or 1.2, without quotes: a letter, then what names, addresses and base64
/// are made of, and neither a number in some notation nor one of the words for true, false, null and infinity.
fn needs_no_quotes(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '='))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf"
        )
        || text.starts_with("https://")
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | ':'))
            && !text.ends_with(':')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Entry, Mark, parse};
    use super::*;

    #[test]
    fn writes_what_kubectl_writes() {
        let text = "apiVersion: v1\nclusters:\n- cluster:\n    server: https://10.0.0.1:6443\n  name: a\ncontexts: []\nempty: {}\nnothing:\nother:\n- - 1\n  - \"1\"\n-\nquoted: \"on\"\nunquoted: on\n";
        let out = parse(text).unwrap().to_string().replace(" ~\n", "\n");
        assert_eq!(out, text.replace("- - 1\n  - \"1\"", "-\n  - 1\n  - \"1\""));
    }

    fn same(a: &Node, b: &Node) -> bool {
        match (&a.kind, &b.kind) {
            _ if a.is_null() && b.is_null() => true,
            (Kind::Scalar { text: a, plain: p }, Kind::Scalar { text: b, plain: q }) => {
                // Quotes may only go where no reader needs them, and only come to what is a string anyway.
                a == b && (p == q || needs_no_quotes(a) || a.contains('\n'))
            }
            (Kind::List(a), Kind::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Kind::Map(a), Kind::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
            }
            _ => false,
        }
    }

    fn nodes() -> impl Strategy<Value = Node> {
        let mark = Mark { line: 1, column: 1 };
        let node = move |kind| Node { mark, kind };
        let leaf = prop_oneof![
            "\\PC{0,12}".prop_map(Node::text),
            proptest::collection::vec(any::<char>(), 0..8).prop_map(|c| Node::text(c.into_iter().collect::<String>())),
            "(on|no|1|0x1f|1_000|12:30|null|~|true|1e3|\\.inf|[a-z]{1,5}( [a-z]{1,3})?)".prop_map(|s| Node::plain(&s)),
            "(on|no|1|0x1f|1_000|12:30|null|~|true|1e3|-|---|[a-z]: [a-z]| x|x |#|%|@|!)".prop_map(Node::text),
            Just(Node::plain("")),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(move |items| node(Kind::List(items))),
                proptest::collection::btree_map("\\PC{1,6}", inner, 0..4).prop_map(move |m| node(Kind::Map(
                    m.into_iter().map(|(key, value)| Entry { mark, key, plain: false, value }).collect()
                ))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_is_read_again(node in nodes()) {
            let text = node.to_string();
            let again = parse(&text).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
            prop_assert!(same(&node, &again), "{node:#?}\n{text}\n{again:#?}");
            // Another parser sees the same scalars.
            let value: serde_yaml::Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            prop_assert!(node.agrees(&value), "{text}\n{value:?}");
        }
    }
}
