//! Does what a plan says, in parallel along its edges.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::plan::{Item, Plan, Verb};
use super::resource::{Address, Cx, Entry, Kind, Known};
use super::sweep::{Cloud, Left, sweep_as};
use crate::error::{Error, Result};
use crate::report::event::SpanId;
use crate::report::{Report, Span};

/// What stands after a plan was carried out, by address.
pub type Made = BTreeMap<Address, Entry>;

/// Carries out a plan: the old ones of what is replaced go; then wanted things are made or changed, each as soon as what it needs is
/// there; then goes what is no longer wanted. Both removals are in the order of [`sweep`](super::sweep()).
///
/// When one fails, nothing new is begun, what is under way is awaited, and all failures are returned in one error: what was made stands,
/// and another call goes on from there.
pub async fn apply<C: Cloud + 'static>(plan: &Plan<C>, kinds: &[Kind<C>], cloud: &C, report: &Report) -> Result<Made> {
    apply_telling(plan, kinds, cloud, report, &|_| {}).await
}

/// As [`apply`]; `tell` hears of every wanted thing as soon as it is there: at once of those that stood already, after what it needs.
pub async fn apply_telling<C: Cloud + 'static>(
    plan: &Plan<C>,
    kinds: &[Kind<C>],
    cloud: &C,
    report: &Report,
    tell: &(dyn Fn(&Entry) + Send + Sync),
) -> Result<Made> {
    remove(plan, Verb::Replace, kinds, cloud, report).await?;
    let made = wanted(plan, cloud, report, tell).await?;
    remove(plan, Verb::Delete, kinds, cloud, report).await?;
    Ok(made)
}

/// Removes what was found of the items with this verb.
async fn remove<C: Cloud + 'static>(plan: &Plan<C>, verb: Verb, kinds: &[Kind<C>], cloud: &C, report: &Report) -> Result<()> {
    let entries: Vec<Entry> = plan.items.iter().filter(|item| item.verb == verb).filter_map(|item| item.found.clone()).collect();
    let (prefix, what) = match verb {
        Verb::Replace => ("old ", "what is to be made anew could not be removed"),
        _ => ("surplus ", "what is no longer wanted could not be removed"),
    };
    let left = sweep_as(prefix, entries, kinds, cloud, report).await;
    if left.is_empty() { Ok(()) } else { Err(Left::error(&left, what)) }
}

async fn wanted<C: Send + Sync + 'static>(
    plan: &Plan<C>,
    cloud: &C,
    report: &Report,
    tell: &(dyn Fn(&Entry) + Send + Sync),
) -> Result<Made> {
    let known = plan.known();
    let items: Vec<&Item<C>> = plan.items.iter().filter(|item| item.wanted.is_some()).collect();
    let mut steps = Steps::new(&items, report);
    let (mut done, mut made) = (BTreeSet::new(), Made::new());
    let mut waiting: Vec<&Item<C>> = Vec::new();
    for item in items {
        match (item.verb, &item.found) {
            (Verb::Keep, Some(entry)) => {
                tell(entry);
                done.insert(item.address.clone());
                made.insert(item.address.clone(), entry.clone());
            }
            _ => waiting.push(item),
        }
    }
    let (mut running, mut failures, mut released_by) = (FuturesUnordered::new(), Vec::new(), None);
    loop {
        if failures.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|item| needs(item).all(|need| done.contains(&need)));
            waiting = rest;
            for item in ready {
                let span = steps.begin(item, released_by);
                let known = &known;
                running.push(async move { (item, one(item, cloud, known).await, span) });
            }
        }
        let Some((item, outcome, span)) = running.next().await else { break };
        match outcome {
            Ok(entry) => {
                released_by = Some(span.id());
                span.done();
                known.insert(item.address.clone(), entry.any());
                tell(&entry);
                done.insert(item.address.clone());
                made.insert(item.address.clone(), entry);
                steps.end(item, None);
            }
            Err(e) => {
                span.fail(&e);
                steps.end(item, Some(&e));
                failures.push(e);
            }
        }
    }
    match together(failures) {
        Some(error) => Err(error),
        None => Ok(made),
    }
}

/// The first failure, with the others as further causes, and all that can be done about them.
fn together(failures: Vec<Error>) -> Option<Error> {
    let mut failures = failures.into_iter();
    let mut error = failures.next()?;
    for other in failures {
        for hint in &other.hints {
            if !error.hints.contains(hint) {
                error.hints.push(hint.clone());
            }
        }
        let why = std::iter::once(other.what).chain(other.why).collect::<Vec<_>>().join(": ");
        error = error.why(format!("also: {why}"));
    }
    Some(error)
}

fn needs<C>(item: &Item<C>) -> impl Iterator<Item = Address> {
    item.wanted.iter().flat_map(|node| node.needs()).collect::<Vec<_>>().into_iter()
}

async fn one<C: Send + Sync + 'static>(item: &Item<C>, cloud: &C, known: &Known) -> Result<Entry> {
    let Some(node) = &item.wanted else { return Err(Error::new(format!("{} is not wanted", item.address))) };
    let cx = Cx::new(cloud, node.as_ref(), known);
    let (outcome, verb) = match (item.verb, &item.found) {
        (Verb::Update, Some(found)) => (node.update(found, &item.changes, &cx).await, "changed"),
        _ => (node.create(&cx).await, "made"),
    };
    let entry = outcome.map_err(|e| e.within(format!("{} could not be {verb}", item.address)))?;
    if entry.address != item.address {
        let what = format!("{} was made under another name: {}", item.address, entry.address);
        return Err(Error::new(what).why("this is a mistake in kup"));
    }
    Ok(entry)
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

    fn begin<C>(&mut self, item: &Item<C>, released_by: Option<SpanId>) -> Span {
        let (_, step) = self.open.entry(item.address.kind).or_default();
        let step = step.get_or_insert_with(|| self.report.step_of(item.address.kind, "resource"));
        step.child_after(&item.address.name, released_by)
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
