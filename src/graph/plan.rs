//! Wanted × found, as a list of what to do: pure, printable, and the very thing that is done.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::resource::{Address, Change, Cx, Effect, Entry, Graph, Kind, Known, Node};
use crate::error::{Error, Result};

/// What is done with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It is there and as wanted.
    Keep,
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is removed and made again.
    Replace,
    /// It is removed.
    Delete,
}

/// One thing, and what is done with it.
pub struct Item<C> {
    /// What is done.
    pub verb: Verb,
    /// Which thing.
    pub address: Address,
    /// What it is or will be like.
    pub detail: String,
    /// How it differs from what is wanted.
    pub changes: Vec<Change>,
    /// As it was found.
    pub found: Option<Entry>,
    pub(super) wanted: Option<Box<dyn Node<C>>>,
}

impl<C> Item<C> {
    /// Why, in a few words: what changes, or nothing where that is obvious.
    pub fn reason(&self) -> String {
        let change = |c: &Change| format!("{}: {} → {}", c.field, c.from, c.to);
        match self.verb {
            Verb::Update | Verb::Replace => self.changes.iter().map(change).collect::<Vec<_>>().join(", "),
            Verb::Delete => "no longer wanted".to_owned(),
            Verb::Create => "not there yet".to_owned(),
            Verb::Keep => String::new(),
        }
    }
}

/// What to do: wanted things in an order in which each comes after what it needs, then what is to go.
pub struct Plan<C> {
    /// One item a thing.
    pub items: Vec<Item<C>>,
}

impl<C: Send + Sync + 'static> Plan<C> {
    /// Compares what is wanted with what was found.
    ///
    /// Things whose changes ask for it are replaced where `replace` says so; what depends on one that is replaced is compared as if it
    /// were still there.
    ///
    /// # Errors
    /// Changes that can't be made, or that need `replace`, all named at once (of kind usage). A graph with a loop, a missing need, or two
    /// things of one address is a mistake in kup.
    pub fn new(wanted: Graph<C>, found: Vec<Entry>, cloud: &C, replace: impl Fn(&Address) -> bool) -> Result<Plan<C>> {
        let nodes = ordered(wanted)?;
        let known = Known::default();
        for entry in &found {
            known.insert(entry.address.clone(), entry.any());
        }
        let mut by_address: BTreeMap<Address, Entry> = BTreeMap::new();
        let mut doubles = Vec::new();
        for entry in found {
            // A second one of the same name (two creations, one of which was thought lost) belongs to nobody: it goes.
            match by_address.entry(entry.address.clone()) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(entry);
                }
                std::collections::btree_map::Entry::Occupied(_) => doubles.push(entry),
            }
        }
        let (mut items, mut refused) = (Vec::new(), Vec::new());
        for node in nodes {
            let address = node.address();
            let found = by_address.remove(&address);
            let changes = match &found {
                Some(entry) => node.diff(entry, &Cx::new(cloud, node.as_ref(), &known))?,
                None => Vec::new(),
            };
            let verb = match (&found, changes.iter().map(|c| c.effect).max()) {
                (None, _) => Verb::Create,
                (Some(_), None) => Verb::Keep,
                (Some(_), Some(Effect::InPlace)) => Verb::Update,
                (Some(_), Some(Effect::Replace)) if replace(&address) => Verb::Replace,
                (Some(_), Some(_)) => {
                    refused.push((address.clone(), changes.clone()));
                    Verb::Keep
                }
            };
            items.push(Item { verb, address, detail: node.detail(), changes, found, wanted: Some(node) });
        }
        if !refused.is_empty() {
            return Err(refuse(&refused));
        }
        items.extend(by_address.into_values().chain(doubles).map(|entry| Item {
            verb: Verb::Delete,
            address: entry.address.clone(),
            detail: entry.id.clone(),
            changes: Vec::new(),
            found: Some(entry),
            wanted: None,
        }));
        Ok(Plan { items })
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.items.iter().all(|item| item.verb == Verb::Keep)
    }

    /// What is known before anything is done.
    pub(super) fn known(&self) -> Known {
        let known = Known::default();
        for entry in self.items.iter().filter_map(|item| item.found.as_ref()) {
            known.insert(entry.address.clone(), entry.any());
        }
        known
    }
}

fn refuse(refused: &[(Address, Vec<Change>)]) -> Error {
    let line = |address: &Address, c: &Change| format!("{address}, {}: {} → {}", c.field, c.from, c.to);
    let with = |effect: Effect| -> Vec<String> {
        let lines = refused.iter().flat_map(|(a, changes)| changes.iter().filter(move |c| c.effect == effect).map(move |c| line(a, c)));
        lines.collect()
    };
    let (never, anew) = (with(Effect::Refuse), with(Effect::Replace));
    if never.is_empty() {
        return Error::usage("some of this can only be made anew")
            .why(anew.join("\n"))
            .hint("add --replace to remove these and make them again, or give the values they were made with");
    }
    Error::usage("this can't be changed while the cluster stands")
        .why(never.join("\n"))
        .hint("give the values it was made with, or `kup down` first, or another --name")
}

/// Each node after what it needs; among those that could be next, in the order in which they were added.
fn ordered<C: Send + Sync + 'static>(graph: Graph<C>) -> Result<Vec<Box<dyn Node<C>>>> {
    let mistake = |what: String| Error::new(what).why("this is a mistake in kup");
    let mut waiting = graph.into_nodes();
    let mut addresses = BTreeSet::new();
    for node in &waiting {
        if !addresses.insert(node.address()) {
            return Err(mistake(format!("{} is wanted twice", node.address())));
        }
    }
    let (mut done, mut placed) = (Vec::with_capacity(waiting.len()), BTreeSet::new());
    while !waiting.is_empty() {
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|node| node.needs().iter().all(|need| placed.contains(need)));
        if ready.is_empty() {
            let stuck: Vec<String> = rest.iter().map(|n| n.address().to_string()).collect();
            return Err(mistake(format!("these need each other, or what nobody wants: {}", stuck.join(", "))));
        }
        placed.extend(ready.iter().map(|node| node.address()));
        done.extend(ready);
        waiting = rest;
    }
    Ok(done)
}

/// Checks that no wanted thing needs a kind that its own kind's row does not name: then removal would go in a wrong order.
pub fn check_kinds<C: Send + Sync + 'static>(graph: &Graph<C>, kinds: &[Kind<C>]) -> Result<()> {
    for node in graph.nodes() {
        let address = node.address();
        let Some(row) = kinds.iter().find(|kind| kind.name == address.kind) else {
            return Err(Error::new(format!("{address} is of a kind that is not in the table of kinds")).why("this is a mistake in kup"));
        };
        if let Some(need) = node.needs().into_iter().find(|need| !row.needs.contains(&need.kind)) {
            let what = format!("{address} needs {need}, but its kind's row does not name the kind {}", need.kind);
            return Err(Error::new(what).why("this is a mistake in kup"));
        }
    }
    Ok(())
}
