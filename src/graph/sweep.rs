//! Removes what was found, in the opposite order of making, in parallel, with no config at hand.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Serialize;

use super::resource::{Entry, Kind};
use crate::error::{Error, Result};
use crate::report::Report;

/// What things are made of and removed from, as far as a sweep is concerned.
pub trait Cloud: Send + Sync {
    /// Something could not be removed: what waits until nothing uses it any more may wait in vain.
    fn something_stays(&self) {}
}

/// Something that could not be removed, and why.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// By which the cloud knows it.
    pub id: String,
    /// Why it is still there.
    #[serde(serialize_with = "words")]
    pub why: Error,
}

fn words<S: serde::Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&error.to_string())
}

impl Left {
    /// All of them in one error.
    pub fn error(left: &[Left], what: &str) -> Error {
        let mut error = Error::new(what);
        for one in left {
            let why: Vec<&str> = std::iter::once(one.why.what.as_str()).chain(one.why.why.iter().map(String::as_str)).collect();
            error = error.why(format!("{} {} ({}): {}", one.kind, one.name, one.id, why.join(": ")));
        }
        for hint in left.iter().flat_map(|one| &one.why.hints) {
            if !error.hints.contains(hint) {
                error = error.hint(hint);
            }
        }
        if let Some(kind) = left.iter().map(|one| one.why.kind).find(|kind| *kind != crate::error::Kind::Failed) {
            error = error.kind(kind);
        }
        error
    }
}

/// Removes these. The things of a kind go once everything of the kinds that may need them is gone; a kind whose users could not all be
/// removed is tried all the same, since most of its things may have nothing to do with those. Returns what is left.
pub async fn sweep<C: Cloud>(entries: Vec<Entry>, kinds: &[Kind<C>], cloud: &C, report: &Report) -> Vec<Left> {
    sweep_as("", entries, kinds, cloud, report).await
}

/// As [`sweep`], with something before the kind's name in what is reported.
pub(super) async fn sweep_as<C: Cloud>(
    prefix: &str,
    entries: Vec<Entry>,
    kinds: &[Kind<C>],
    cloud: &C,
    report: &Report,
) -> Vec<Left> {
    let mut by_kind: BTreeMap<&'static str, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        by_kind.entry(entry.address.kind).or_default().push(entry);
    }
    let mut waiting: Vec<(&Kind<C>, Vec<Entry>)> =
        kinds.iter().filter_map(|kind| Some((kind, by_kind.remove(kind.name)?))).collect();
    let unknown = |entry: Entry| Left {
        why: Error::new(format!("{} is of a kind that is not in the table of kinds", entry.address))
            .why("this is a mistake in kup"),
        kind: entry.address.kind,
        name: entry.address.name,
        id: entry.id,
    };
    let mut left: Vec<Left> = by_kind.into_values().flatten().map(unknown).collect();
    let mut running = FuturesUnordered::new();
    let mut busy: Vec<&'static str> = waiting.iter().map(|(kind, _)| kind.name).collect();
    loop {
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(kind, _)| !busy.iter().any(|other| uses(kinds, other, kind.name)));
        waiting = rest;
        for (kind, entries) in ready {
            running.push(async move { (kind.name, all_of(prefix, kind, entries, cloud, report).await) });
        }
        let Some((name, outcome)) = running.next().await else { break };
        busy.retain(|other| *other != name);
        if !outcome.is_empty() {
            cloud.something_stays();
        }
        left.extend(outcome);
    }
    left
}

/// Whether things of the kind `user` may need things of the kind `used`, directly or not.
fn uses<C>(kinds: &[Kind<C>], user: &str, used: &str) -> bool {
    let needs = kinds.iter().find(|kind| kind.name == user).map_or(&[][..], |kind| kind.needs);
    needs.iter().any(|need| *need == used || uses(kinds, need, used))
}

async fn all_of<C: Send + Sync>(prefix: &str, kind: &Kind<C>, entries: Vec<Entry>, cloud: &C, report: &Report) -> Vec<Left> {
    let step = report.step_of(format!("{prefix}{}", kind.name), "resource");
    let count = entries.len();
    let each = entries.iter().map(|entry| {
        let span = step.child(&entry.address.name);
        async move {
            let outcome = span.close(kind.delete(cloud, entry).await);
            outcome.err().map(|why| Left { kind: kind.name, name: entry.address.name.clone(), id: entry.id.clone(), why })
        }
    });
    let left: Vec<Left> = futures::future::join_all(each).await.into_iter().flatten().collect();
    match left.first() {
        Some(one) => step.fail(&one.why),
        None => step.done_with(format!("{count} removed")),
    }
    left
}
