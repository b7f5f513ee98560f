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

impl Verb {
    /// In a word: `create`.
    pub const fn word(self) -> &'static str {
        match self {
            Verb::Keep => "keep",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Replace => "replace",
            Verb::Delete => "delete",
        }
    }
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
    /// Whether it is to go because there is another one of its name.
    pub double: bool,
    pub(super) wanted: Option<Box<dyn Node<C>>>,
}

impl<C> Item<C> {
    /// Why, in a few words: what changes, or nothing where that is obvious.
    pub fn reason(&self) -> String {
        let change = |c: &Change| format!("{}: {} → {}", c.field, c.from, c.to);
        match self.verb {
            Verb::Update | Verb::Replace => self.changes.iter().map(change).collect::<Vec<_>>().join(", "),
            Verb::Delete if self.double => "a second one of this name".to_owned(),
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
    /// Things whose changes ask for it are replaced where `replace` says so, and with them what was found to depend on them: a cloud
    /// removes nothing that is in use.
    ///
    /// # Errors
    /// Changes that can't be made, or that need `replace`, all named at once (of kind usage). A graph with a loop, a missing need, or two
    /// things of one address is a mistake in kup.
    pub fn new(wanted: Graph<C>, found: Vec<Entry>, cloud: &C, replace: impl Fn(&Address) -> bool) -> Result<Plan<C>> {
        let known = Known::default();
        let mut by_address: BTreeMap<Address, Vec<Entry>> = BTreeMap::new();
        for entry in found {
            by_address.entry(entry.address.clone()).or_default().push(entry);
        }
        let (mut items, mut surplus, mut refused, mut anew) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        for node in ordered(wanted)? {
            let address = node.address();
            let candidates = by_address.remove(&address).unwrap_or_default();
            let (found, mut changes, doubles) = best(node.as_ref(), candidates, cloud, &known)?;
            surplus.extend(doubles.into_iter().map(|entry| (entry, true)));
            if let Some(entry) = &found {
                known.insert(address.clone(), entry.any());
                // The old one of what it needs can't go while this one uses it.
                let needs = node.needs();
                let gone = needs.iter().filter(|need| anew.contains(*need));
                changes.extend(gone.map(|need| Change::replace(need.to_string(), "as it is", "made anew")));
            }
            let effect = changes.iter().map(|c| c.effect).max();
            if found.is_some() && effect == Some(Effect::Replace) {
                anew.insert(address.clone());
            }
            let verb = match (&found, effect) {
                (None, _) => Verb::Create,
                (Some(_), None) => Verb::Keep,
                (Some(_), Some(Effect::InPlace)) => Verb::Update,
                (Some(_), Some(Effect::Replace)) if replace(&address) => Verb::Replace,
                (Some(_), Some(_)) => {
                    refused.push((address.clone(), changes.clone()));
                    Verb::Keep
                }
            };
            items.push(Item { verb, address, detail: node.detail(), changes, found, double: false, wanted: Some(node) });
        }
        if !refused.is_empty() {
            return Err(refuse(&refused));
        }
        surplus.extend(by_address.into_values().flatten().map(|entry| (entry, false)));
        items.extend(surplus.into_iter().map(|(entry, double)| Item {
            verb: Verb::Delete,
            address: entry.address.clone(),
            detail: String::new(),
            changes: Vec::new(),
            found: Some(entry),
            double,
            wanted: None,
        }));
        Ok(Plan { items })
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.items.iter().all(|item| item.verb == Verb::Keep)
    }

    /// What is known before anything is done: what stays of what was found.
    pub(super) fn known(&self) -> Known {
        let known = Known::default();
        for item in self.items.iter().filter(|item| item.wanted.is_some() && item.verb != Verb::Replace) {
            if let Some(entry) = &item.found {
                known.insert(entry.address.clone(), entry.any());
            }
        }
        known
    }
}

/// Of several things of one name (two creations, one of which was thought lost) the one that is most like what is wanted, how it differs,
/// and the others: those belong to nobody, and go.
fn best<C>(
    node: &dyn Node<C>,
    candidates: Vec<Entry>,
    cloud: &C,
    known: &Known,
) -> Result<(Option<Entry>, Vec<Change>, Vec<Entry>)> {
    let mut compared = Vec::with_capacity(candidates.len());
    for entry in candidates {
        let cx = Cx::new(cloud, node, known);
        let changes = node.diff(&entry, &cx)?;
        if let Some(mistake) = cx.mistake() {
            return Err(mistake);
        }
        compared.push((changes, entry));
    }
    let rank =
        |(changes, entry): &(Vec<Change>, Entry)| (changes.iter().map(|c| c.effect).max(), changes.len(), entry.id.clone());
    compared.sort_by_key(rank);
    let mut compared = compared.into_iter();
    Ok(match compared.next() {
        Some((changes, entry)) => (Some(entry), changes, compared.map(|(_, entry)| entry).collect()),
        None => (None, Vec::new(), Vec::new()),
    })
}

fn refuse(refused: &[(Address, Vec<Change>)]) -> Error {
    let line = |address: &Address, c: &Change| format!("{address}, {}: {} → {}", c.field, c.from, c.to);
    let with = |effect: Effect| -> Vec<String> {
        let lines =
            refused.iter().flat_map(|(a, changes)| changes.iter().filter(move |c| c.effect == effect).map(move |c| line(a, c)));
        lines.collect()
    };
    let (never, anew) = (with(Effect::Refuse), with(Effect::Replace));
    if never.is_empty() {
        let words: Vec<String> =
            refused.iter().map(|(a, _)| format!("--replace {}/{}", a.kind.replace(' ', "-"), a.name)).collect();
        return Error::usage("some of this can only be made anew")
            .why(anew.join("\n"))
            .hint(format!("add `{}` to remove these and make them again", words.join(" ")))
            .hint("or give the values they were made with");
    }
    Error::usage("this can't be changed while the cluster stands")
        .why(never.join("\n"))
        .hint("give the values it was made with, or `kup down` with the same --provider and --name first, or another --name")
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
            return Err(
                Error::new(format!("{address} is of a kind that is not in the table of kinds")).why("this is a mistake in kup")
            );
        };
        if let Some(need) = node.needs().into_iter().find(|need| !row.needs.contains(&need.kind)) {
            let what = format!("{address} needs {need}, but its kind's row does not name the kind {}", need.kind);
            return Err(Error::new(what).why("this is a mistake in kup"));
        }
    }
    Ok(())
}
