//! Changing a kubeconfig's tree: pure, and only where kup's own three entries and the current context stand.

use super::Access;
use crate::yaml::{self, Kind, Node};

pub(super) const CLUSTERS: &str = "clusters";
pub(super) const CONTEXTS: &str = "contexts";
pub(super) const USERS: &str = "users";

/// The lists that hold an entry each.
pub(super) const LISTS: [&str; 3] = [CLUSTERS, CONTEXTS, USERS];

const CURRENT: &str = "current-context";

/// A kubeconfig without entries.
pub(super) fn empty() -> Node {
    Node::map([("apiVersion", Node::plain("v1")), ("kind", Node::plain("Config"))])
}

/// Reads a text; the error says why it is no kubeconfig.
pub(super) fn read(text: &str) -> Result<Node, String> {
    // Windows editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = yaml::parse(text).map_err(|faults| match faults.first() {
        Some(fault) => format!("line {}: {}", fault.mark.line, fault.what),
        None => "it is no YAML".into(),
    })?;
    // What only one kind of reader understands may be something else to kubectl: it is left as it is.
    match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Err(e) => return Err(format!("other readers of YAML don't understand it: {e}")),
        Ok(value) if !root.agrees(&value) => return Err("readers of YAML differ in what it says".into()),
        Ok(_) => {}
    }
    if root.is_null() {
        return Ok(empty());
    }
    if !matches!(root.kind, Kind::Map(_)) {
        return Err(format!("it is {}, not a kubeconfig", root.kind.noun()));
    }
    if let Some(kind) = root.get("kind")
        && kind.as_text() != Some("Config")
    {
        return Err(format!("line {}: its `kind` is not Config", kind.mark.line));
    }
    for list in LISTS {
        let Some(node) = root.get(list).filter(|node| !node.is_null()) else { continue };
        let Kind::List(items) = &node.kind else {
            return Err(format!("line {}: `{list}` is {}, not a list", node.mark.line, node.kind.noun()));
        };
        if let Some(item) = items.iter().find(|item| name(item).is_none()) {
            return Err(format!("line {}: an entry of `{list}` has no name", item.mark.line));
        }
    }
    match root.get(CURRENT).filter(|node| node.as_text().is_none()) {
        Some(node) => Err(format!("line {}: `{CURRENT}` is {}, not a name", node.mark.line, node.kind.noun())),
        None => Ok(root),
    }
}

fn name(item: &Node) -> Option<&str> {
    item.get("name").and_then(Node::as_text)
}

fn items<'a>(root: &'a Node, list: &str) -> &'a [Node] {
    match root.get(list).map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}

/// The entry of this name, if the list has one.
pub(super) fn find<'a>(root: &'a Node, list: &str, wanted: &str) -> Option<&'a Node> {
    items(root, list).iter().find(|item| name(item) == Some(wanted))
}

/// The names of a list's entries.
pub(super) fn names<'a>(root: &'a Node, list: &str) -> impl Iterator<Item = &'a str> {
    items(root, list).iter().filter_map(name)
}

/// The current context, if one is set.
pub(super) fn current(root: &Node) -> Option<&str> {
    root.get(CURRENT).filter(|node| !node.is_null()).and_then(Node::as_text).filter(|name| !name.is_empty())
}

pub(super) fn set_current(root: &mut Node, context: &str) {
    if current(root) != Some(context) {
        root.set(CURRENT, Node::text(context));
    }
}

/// All three entries, and the current context.
pub(super) fn put(root: &mut Node, access: &Access) {
    LISTS.iter().for_each(|list| put_one(root, list, access));
    set_current(root, &access.context);
}

/// The entry of one list, in its place or at the end.
pub(super) fn put_one(root: &mut Node, list: &str, access: &Access) {
    let named = |key, value| Node::map([(key, value), ("name", Node::text(&access.context))]);
    let found = find(root, list, &access.context).cloned();
    let entry = match list {
        CLUSTERS => named("cluster", access.cluster()),
        USERS => named("user", access.user()),
        _ => {
            // A namespace that the user set stays.
            let inner = found.as_ref().and_then(|entry| entry.get("context")).filter(|c| matches!(c.kind, Kind::Map(_)));
            let mut context = inner.cloned().unwrap_or_else(|| Node::map([]));
            context.set("cluster", Node::text(&access.context));
            context.set("user", Node::text(&access.context));
            named("context", context)
        }
    };
    let mut entries = items(root, list).to_vec();
    let place = entries.iter().position(|item| name(item) == Some(&access.context));
    // Of two of one name, which kubectl reads nothing of, one is left.
    entries.retain(|item| name(item) != Some(&access.context));
    entries.insert(place.unwrap_or(entries.len()), entry);
    root.set(list, Node::list(entries));
}

/// Removes the three entries of this name; it is also no longer current. What isn't there is no error.
pub(super) fn remove(root: &mut Node, context: &str) {
    for list in LISTS {
        if find(root, list, context).is_some() {
            let rest = items(root, list).iter().filter(|item| name(item) != Some(context)).cloned().collect();
            root.set(list, Node::list(rest));
        }
    }
    if current(root) == Some(context) {
        root.set(CURRENT, Node::text(""));
    }
}
