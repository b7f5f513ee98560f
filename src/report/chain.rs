//! What decided how long a run took: the chain of spans in which each was released by the end of the one before it. Pure.
//!
//! It is found backwards: from what ended last to what let that begin, and so on to the start of the run. Spans that declare what
//! released them ([`Span::child_after`](super::Span::child_after)) are believed; others were released by what ended last before they
//! began: on the same machine, if their step had begun by then, else anywhere before their step. The links follow each other without a gap, so that they sum to the
//! total, and each is what could be made faster to make the run faster.

use std::collections::HashSet;
use std::fmt::Write as _;

use console::{Alignment, pad_str, truncate_str};
use serde::Serialize;

use super::display::Record;
use super::event::Seconds;
use super::tree::{State, Tree, duration};

/// A step's own time that is no longer than this belongs to its first part: seconds.
const TINY: f64 = 0.01;
/// Columns of the longest bar, where there is room.
const BAR: usize = 20;
/// In fewer columns bars are half as long.
const NARROW: usize = 100;

/// A stretch of the run that one thing decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The step's title; for what is no step, `starting`, `finishing` or `stopping`.
    pub step: String,
    /// The machine, or whatever the step's parts are; none if it was the step's own work.
    pub part: Option<String>,
    /// When it began to count, in seconds from the start of the run.
    pub from: Seconds,
    /// When it ended.
    pub to: Seconds,
    /// What it waited for during most of that time.
    pub waited_for: Option<String>,
    /// The span: an index into [`Tree::nodes`].
    #[serde(skip)]
    pub span: Option<usize>,
}

impl Link {
    /// Its length, in seconds.
    pub fn took(&self) -> f64 {
        self.to.0 - self.from.0
    }
}

/// The chain of a run, from its start to `record.now`. Of a run that did not end `well`, it leads to what failed, or else to what was
/// under way for longest when it was stopped.
pub fn chain(record: &Record, well: bool) -> Vec<Link> {
    let Record { tree, now } = record;
    let mut links = Vec::new();
    let mut until = *now;
    let mut link = |span: Option<usize>, name: &str, from: f64, to: f64| {
        if to > from {
            links.push(make(tree, span, name, from, to));
        }
    };
    let mut seen = HashSet::new();
    let mut next = if well { last(tree) } else { culprit(tree).or_else(|| last(tree)) };
    if let Some(end) = next {
        let end = tree.nodes[end].end(*now).min(*now);
        link(None, if well { "finishing" } else { "stopping" }, end, until);
        until = end;
    }
    while let Some(at) = next {
        seen.insert(at);
        let before = before(tree, at, until, &seen);
        let from = match before {
            // What led to its step, or to a part of it.
            Some(b) if tree.nodes[at].parent == Some(b) => tree.nodes[at].begun,
            Some(b) => tree.nodes[b].end(*now),
            None => tree.nodes[at].begun,
        };
        let from = from.clamp(0.0, until);
        link(Some(at), "", from, until);
        (until, next) = (from, before);
    }
    link(None, "starting", 0.0, until);
    links.reverse();
    merged(links)
}

fn make(tree: &Tree, span: Option<usize>, name: &str, from: f64, to: f64) -> Link {
    let node = span.map(|s| &tree.nodes[s]);
    let ancestors = || std::iter::successors(span, |s| tree.nodes[*s].parent).collect::<Vec<_>>();
    // Parts of parts count as the part.
    let (step, part) = match ancestors()[..] {
        [.., part, step] => (tree.nodes[step].title.clone(), Some(tree.nodes[part].title.clone())),
        [step] => (tree.nodes[step].title.clone(), None),
        [] => (name.to_owned(), None),
    };
    let waited_for = node.and_then(|n| {
        let within = n.waited(to).into_iter().map(|(a, b, on)| (b.min(to) - a.max(from), on));
        let (most, on) = within.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (most * 2.0 >= to - from).then(|| on.to_owned())
    });
    Link { step, part, from: Seconds(from), to: Seconds(to), waited_for, span }
}

/// What ended last; of several, the innermost.
fn last(tree: &Tree) -> Option<usize> {
    latest(tree, 0..tree.nodes.len())
}

fn latest(tree: &Tree, of: impl Iterator<Item = usize>) -> Option<usize> {
    let key = |i: &usize| (tree.nodes[*i].ended.unwrap_or(f64::NEG_INFINITY), tree.nodes[*i].parent.is_some());
    of.filter(|i| tree.nodes[*i].ended.is_some()).max_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// What failed first, else what was stopped and had been under way for longest; of several, the innermost.
fn culprit(tree: &Tree) -> Option<usize> {
    let leaves = || (0..tree.nodes.len()).filter(|i| tree.nodes[*i].children.is_empty());
    let of = |want: fn(&State) -> bool| leaves().filter(move |i| want(&tree.nodes[*i].state));
    let failed = of(|s| matches!(s, State::Failed(_)));
    let stopped = of(|s| matches!(s, State::Cancelled));
    let by =
        |time: fn(&super::tree::Node) -> f64| move |a: &usize, b: &usize| time(&tree.nodes[*a]).total_cmp(&time(&tree.nodes[*b]));
    failed.min_by(by(|n| n.ended.unwrap_or(n.begun))).or_else(|| stopped.min_by(by(|n| n.begun)))
}

/// What let `at` go on at the moment `until`, or begin: see the top of this file.
fn before(tree: &Tree, at: usize, until: f64, seen: &HashSet<usize>) -> Option<usize> {
    let node = &tree.nodes[at];
    let ended_by = |i: usize, limit: f64| !seen.contains(&i) && tree.nodes[i].ended.is_some_and(|e| e <= limit);
    if let Some(part) = latest(tree, node.children.iter().copied().filter(|i| ended_by(*i, until))) {
        return Some(part);
    }
    if let Some(declared) = node.released_by.filter(|r| ended_by(*r, node.begun)) {
        return Some(declared);
    }
    let Some(parent) = node.parent else {
        return latest(tree, (0..tree.nodes.len()).filter(|i| ended_by(*i, node.begun)));
    };
    // The same machine's part of another step, if it ended while this step was under way; else whatever led to this step.
    let since = tree.nodes[parent].begun;
    let alike = (0..tree.nodes.len()).filter(|i| {
        let other = &tree.nodes[*i];
        other.parent.is_some() && other.title == node.title && other.ended.is_some_and(|e| e >= since) && ended_by(*i, node.begun)
    });
    latest(tree, alike).or(Some(parent)).filter(|i| !seen.contains(i))
}

/// Gives the moments that a step takes to open its first part, or to close after its last, to that part.
fn merged(links: Vec<Link>) -> Vec<Link> {
    let mut all: Vec<Link> = Vec::new();
    for link in links {
        match all.last_mut() {
            Some(before) if before.step == link.step && before.part == link.part && link.part.is_some() => before.to = link.to,
            Some(before) if before.step == link.step && before.part.is_none() && before.took() <= TINY && link.part.is_some() => {
                *before = Link { from: before.from, ..link };
            }
            Some(before) if before.step == link.step && link.part.is_none() && link.took() <= TINY && before.part.is_some() => {
                before.to = link.to;
            }
            _ => all.push(link),
        }
    }
    all
}

/// A chain in aligned lines of at most `columns`: step, machine without `prefix`, seconds, a bar, what it waited for. What would be
/// `0.0s` is left out; the seconds sum to the rounded total.
pub fn lines(links: &[Link], prefix: &str, columns: usize) -> Vec<String> {
    let bars = if columns < NARROW { BAR / 2 } else { BAR };
    let tenths = |s: Seconds| (s.0 * 10.0).round() as i64;
    let rows: Vec<(&Link, i64)> = links.iter().map(|l| (l, tenths(l.to) - tenths(l.from))).filter(|(_, t)| *t > 0).collect();
    let part = |l: &Link| l.part.as_deref().map(|p| p.strip_prefix(prefix).unwrap_or(p).to_owned()).unwrap_or_default();
    let width = |texts: Vec<usize>| texts.into_iter().max().unwrap_or(0);
    let steps = width(rows.iter().map(|(l, _)| console::measure_text_width(&l.step)).collect());
    let parts = width(rows.iter().map(|(l, _)| console::measure_text_width(&part(l))).collect());
    let longest = rows.iter().map(|(_, t)| *t).max().unwrap_or(1) as f64;
    rows.iter()
        .map(|(link, tenths)| {
            let mut text = pad_str(&link.step, steps, Alignment::Left, None).into_owned();
            if parts > 0 {
                let _ = write!(text, "  {}", pad_str(&part(link), parts, Alignment::Left, None));
            }
            let seconds = *tenths as f64 / 10.0;
            let bar = "━".repeat((*tenths as f64 / longest * bars as f64).round().max(1.0) as usize);
            let _ = write!(text, "  {:>6}  {bar:<bars$}", duration(seconds));
            if let Some(on) = &link.waited_for {
                let _ = write!(text, "  {on}");
            }
            truncate_str(text.trim_end(), columns, "…").into_owned()
        })
        .collect()
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
