//! Does what a plan says, in parallel along its edges.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::plan::{Item, Plan, Verb};
use super::resource::{Address, Cx, Entry, Kind, Known};
use super::sweep::{Left, sweep};
use crate::error::{Error, Result};
use crate::report::{Report, Span};

/// What stands after a plan was carried out, by address.
pub type Made = BTreeMap<Address, Entry>;

/// Carries out a plan: wanted things each as soon as what they need is there, then what is to go, in the order of [`sweep`].
///
/// When one fails, nothing new is begun, what is under way is awaited, and the first failure is returned: what was made stands, and
/// another call goes on from there.
pub async fn apply<C: Send + Sync + 'static>(plan: &Plan<C>, kinds: &[Kind<C>], cloud: &C, report: &Report) -> Result<Made> {
    let known = plan.known();
    let mut made = wanted(plan, kinds, cloud, &known, report).await?;
    let gone: Vec<Entry> = plan.items.iter().filter(|i| i.verb == Verb::Delete).filter_map(|i| i.found.clone()).collect();
    for entry in &gone {
        // A double has the address of one that stays.
        if made.get(&entry.address).is_some_and(|kept| kept.id == entry.id) {
            made.remove(&entry.address);
        }
    }
    let left = sweep(gone, kinds, cloud, report).await;
    if left.is_empty() { Ok(made) } else { Err(Left::error(&left, "what is no longer wanted could not be removed")) }
}

async fn wanted<C: Send + Sync + 'static>(
    plan: &Plan<C>,
    kinds: &[Kind<C>],
    cloud: &C,
    known: &Known,
    report: &Report,
) -> Result<Made> {
    let items: Vec<&Item<C>> = plan.items.iter().filter(|item| item.wanted.is_some()).collect();
    let mut steps = Steps::new(&items, report);
    let (mut done, mut made) = (BTreeSet::new(), Made::new());
    let mut waiting: Vec<&Item<C>> = Vec::new();
    for item in items {
        match (item.verb, &item.found) {
            (Verb::Keep, Some(entry)) => {
                done.insert(item.address.clone());
                made.insert(item.address.clone(), entry.clone());
            }
            _ => waiting.push(item),
        }
    }
    let (mut running, mut failure) = (FuturesUnordered::new(), None::<Error>);
    loop {
        if failure.is_none() {
            let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|item| needs(item).all(|need| done.contains(&need)));
            waiting = rest;
            for item in ready {
                let span = steps.begin(item);
                running.push(async move { (item, one(item, kinds, cloud, known, &span).await, span) });
            }
        }
        let Some((item, outcome, span)) = running.next().await else { break };
        match outcome {
            Ok(entry) => {
                span.done();
                known.insert(entry.address.clone(), entry.any());
                done.insert(item.address.clone());
                made.insert(item.address.clone(), entry);
                steps.end(item, None);
            }
            Err(e) => {
                span.fail(&e);
                steps.end(item, Some(&e));
                failure.get_or_insert(e);
            }
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(made),
    }
}

fn needs<C>(item: &Item<C>) -> impl Iterator<Item = Address> {
    item.wanted.iter().flat_map(|node| node.needs()).collect::<Vec<_>>().into_iter()
}

async fn one<C: Send + Sync + 'static>(item: &Item<C>, kinds: &[Kind<C>], cloud: &C, known: &Known, span: &Span) -> Result<Entry> {
    let Some(node) = &item.wanted else { return Err(Error::new(format!("{} is not wanted", item.address))) };
    let cx = Cx::new(cloud, node.as_ref(), known);
    let outcome = match (item.verb, &item.found) {
        (Verb::Update, Some(found)) => node.update(found, &item.changes, &cx).await,
        (Verb::Replace, Some(found)) => {
            span.waiting("the old one to be gone");
            match kinds.iter().find(|kind| kind.name == item.address.kind) {
                Some(kind) => kind.delete(cloud, found).await.map_err(|e| e.within(format!("the old {} can't be removed", item.address)))?,
                None => return Err(Error::new(format!("{} is of no known kind", item.address)).why("this is a mistake in kup")),
            }
            node.create(&cx).await
        }
        _ => node.create(&cx).await,
    };
    outcome.map_err(|e| e.within(format!("{} could not be {}", item.address, if item.verb == Verb::Update { "changed" } else { "made" })))
}

/// One step on the display for each kind, from its first thing's begin to its last one's end.
struct Steps<'a> {
    report: &'a Report,
    open: BTreeMap<&'static str, (usize, Option<Span>)>,
}

impl<'a> Steps<'a> {
    fn new<C>(items: &[&Item<C>], report: &'a Report) -> Steps<'a> {
        let mut open: BTreeMap<&'static str, (usize, Option<Span>)> = BTreeMap::new();
        for item in items.iter().filter(|item| item.verb != Verb::Keep) {
            open.entry(item.address.kind).or_default().0 += 1;
        }
        Steps { report, open }
    }

    fn begin<C>(&mut self, item: &Item<C>) -> Span {
        let (_, step) = self.open.entry(item.address.kind).or_default();
        step.get_or_insert_with(|| self.report.step_of(item.address.kind, "resource")).child(&item.address.name)
    }

    fn end<C>(&mut self, item: &Item<C>, failure: Option<&Error>) {
        let Some((left, step)) = self.open.get_mut(item.address.kind) else { return };
        *left = left.saturating_sub(1);
        match failure {
            Some(error) => {
                if let Some(step) = step.take() {
                    step.fail(error);
                }
            }
            None if *left == 0 => {
                if let Some(step) = step.take() {
                    step.done();
                }
            }
            None => {}
        }
    }
}
