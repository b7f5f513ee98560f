use proptest::prelude::*;

use super::*;
use crate::report::event::{Event, SpanId};

/// Writes down spans as work would have reported them. Times are milliseconds.
#[derive(Default)]
struct Book {
    tree: Tree,
    ids: SpanId,
}

impl Book {
    fn start(&mut self, parent: Option<SpanId>, title: &str, released_by: Option<SpanId>, at: u32) -> SpanId {
        self.ids += 1;
        let title = title.to_owned();
        self.tree.apply(&Event::Started { id: self.ids, parent, title, of: "machine", released_by, at: ms(at) }, 0.0);
        self.ids
    }

    fn done(&mut self, id: SpanId, at: u32) {
        self.tree.apply(&Event::Done { id, result: None, took: ms(0), at: ms(at) }, 0.0);
    }

    fn step(&mut self, title: &str, parts: &[(&str, Option<SpanId>, u32, u32)]) -> Vec<SpanId> {
        self.step_from(title, parts.iter().map(|p| p.2).min().unwrap(), parts)
    }

    fn step_from(&mut self, title: &str, from: u32, parts: &[(&str, Option<SpanId>, u32, u32)]) -> Vec<SpanId> {
        let step = self.start(None, title, None, from);
        let mut ids = Vec::new();
        for (part, released_by, from, to) in parts {
            let id = self.start(Some(step), part, *released_by, *from);
            self.done(id, *to);
            ids.push(id);
        }
        self.done(step, parts.iter().map(|p| p.3).max().unwrap());
        ids
    }

    fn alone(&mut self, title: &str, from: u32, to: u32) -> SpanId {
        let id = self.start(None, title, None, from);
        self.done(id, to);
        id
    }

    fn chain(self, now: u32, well: bool) -> Vec<Link> {
        chain(&Record { tree: self.tree, now: ms(now).0 }, well)
    }
}

fn ms(ms: u32) -> Seconds {
    std::time::Duration::from_millis(ms.into()).into()
}

fn told(links: &[Link]) -> String {
    let tell = |l: &Link| format!("{} {} {:.3}", l.step, l.part.as_deref().unwrap_or("-"), l.took());
    links.iter().map(tell).collect::<Vec<_>>().join("\n")
}

/// A run as the local provider and the engine report one.
fn story() -> Book {
    let mut book = Book::default();
    book.alone("plan", 10, 300);
    book.alone("certificates", 350, 700);
    book.step_from("machines", 400, &[("c-master-1", None, 900, 1200), ("c-minion-1", None, 900, 1700)]);
    let connect = book.step("connections", &[("c-master-1", None, 1200, 1500), ("c-minion-1", None, 1700, 2600)]);
    let files = book.step("files", &[("c-master-1", Some(connect[0]), 1501, 1900), ("c-minion-1", Some(connect[1]), 2600, 2900)]);
    let api = book.step("API server", &[("c-master-1", Some(files[0]), 1900, 4800)]);
    let kubelet =
        book.step("nodes joining", &[("c-master-1", Some(api[0]), 4800, 5000), ("c-minion-1", Some(api[0]), 4801, 6000)]);
    book.step("all ready", &[("cluster", Some(kubelet[1]), 6000, 9000)]);
    book
}

#[test]
fn the_chain_leads_from_the_start_to_what_ended_last() {
    insta::assert_snapshot!(told(&story().chain(9100, true)), @"
    starting - 0.010
    plan - 0.290
    machines - 0.600
    machines c-master-1 0.300
    connections c-master-1 0.300
    files c-master-1 0.400
    API server c-master-1 2.900
    nodes joining c-minion-1 1.200
    all ready cluster 3.000
    finishing - 0.100
    ");
}

#[test]
fn what_is_on_no_machine_may_hold_up_the_first() {
    let mut book = Book::default();
    book.alone("plan", 0, 300);
    book.step_from("machines", 400, &[("m", None, 900, 1000)]);
    book.alone("certificates", 350, 1500);
    book.step("connections", &[("m", None, 1500, 2000)]);
    insta::assert_snapshot!(told(&book.chain(2000, true)), @"
    plan - 0.300
    certificates - 1.200
    connections m 0.500
    ");
}

#[test]
fn a_failed_run_leads_to_what_failed() {
    let mut book = story();
    let step = book.start(None, "kubeconfig", None, 9000);
    let part = book.start(Some(step), "c-minion-9", None, 9000);
    book.tree.apply(&Event::Failed { id: part, error: "no".into(), took: ms(0), at: ms(9500) }, 0.0);
    book.alone("other", 9600, 9700);
    let links = book.chain(10_000, false);
    let last: Vec<_> = links.iter().rev().take(2).map(|l| l.step.as_str()).collect();
    assert_eq!(last, ["stopping", "kubeconfig"]);
}

#[test]
fn an_interrupted_run_leads_to_what_it_hung_on() {
    let mut book = story();
    let (hung, late) = (book.start(None, "hung", None, 9000), book.start(None, "late", None, 9900));
    for id in [hung, late] {
        book.tree.apply(&Event::Waiting { id, on: "Godot (last: nobody)".into(), at: ms(9100) }, 0.0);
        book.tree.apply(&Event::Cancelled { id, at: ms(10_000) }, 0.0);
    }
    let links = book.chain(10_000, false);
    let last = links.last().unwrap();
    assert_eq!((last.step.as_str(), last.waited_for.as_deref()), ("hung", Some("Godot")));
}

#[test]
fn lines_are_aligned_and_sum_to_the_total() {
    let mut book = story();
    for (at, on) in [(2000, "kube-apiserver.service to start"), (2200, "/readyz to say ok (last: refused)")] {
        let api = book.tree.nodes.iter().position(|n| n.title == "API server").unwrap() as SpanId + 2;
        book.tree.apply(&Event::Waiting { id: api, on: on.into(), at: ms(at) }, 0.0);
    }
    insta::assert_snapshot!(lines(&book.chain(9100, true), "c-", 100).join("\n"), @"
    plan                       0.3s  ━━
    machines                   0.6s  ━━━━
    machines       master-1    0.3s  ━━
    connections    master-1    0.3s  ━━
    files          master-1    0.4s  ━━━
    API server     master-1    2.9s  ━━━━━━━━━━━━━━━━━━━   /readyz to say ok
    nodes joining  minion-1    1.2s  ━━━━━━━━
    all ready      cluster     3.0s  ━━━━━━━━━━━━━━━━━━━━
    finishing                  0.1s  ━
    ");
}

#[test]
fn a_run_in_which_nothing_was_reported_is_one_link() {
    assert_eq!(told(&Book::default().chain(70, true)), "starting - 0.070");
    assert!(Book::default().chain(0, true).is_empty());
}

/// A made-up cluster: for each step, where it runs, what it needs, and how long each part takes.
#[derive(Debug, Clone)]
struct Step {
    everywhere: bool,
    needs: Vec<prop::sample::Index>,
    lengths: Vec<u32>,
    declared: bool,
}

fn steps() -> impl Strategy<Value = (usize, Vec<Step>, u32)> {
    let step = (
        any::<bool>(),
        prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        prop::collection::vec(0..400u32, 4),
        any::<bool>(),
    )
        .prop_map(|(everywhere, needs, lengths, declared)| Step { everywhere, needs, lengths, declared });
    (1..4usize, prop::collection::vec(step, 1..8), 0..50u32)
}

proptest! {
    #[test]
    fn chains_have_no_gap_and_follow_what_was_declared((machines, steps, tail) in steps()) {
        let mut book = Book::default();
        // For each step its ends: part, time, span.
        let mut ends: Vec<Vec<(String, u32, SpanId)>> = Vec::new();
        let mut declared = std::collections::HashMap::new();
        for (nth, step) in steps.iter().enumerate() {
            let parts = if step.everywhere { machines } else { 1 };
            let plan: Vec<_> = (0..parts)
                .map(|part| {
                    let title = if step.everywhere { format!("m{part}") } else { "cluster".into() };
                    let needed = step.needs.iter().filter(|_| nth > 0).map(|need| &ends[need.index(nth)]);
                    let last = needed.flatten().max_by_key(|(_, end, _)| *end);
                    let from = last.map_or(7, |(_, end, _)| *end) + (step.lengths[0] % 3);
                    (title, last.map(|l| l.2).filter(|_| step.declared), from, from + step.lengths[part])
                })
                .collect();
            let as_parts: Vec<_> = plan.iter().map(|(t, r, a, b)| (t.as_str(), *r, *a, *b)).collect();
            let ids = book.step(&format!("step{nth}"), &as_parts);
            for (id, part) in ids.iter().zip(&plan) {
                declared.extend(part.1.map(|r| (*id, r)));
            }
            ends.push(plan.into_iter().zip(ids).map(|((title, _, _, to), id)| (title, to, id)).collect());
        }
        let now = ends.iter().flatten().map(|e| e.1).max().unwrap() + tail;
        let links = book.chain(now, true);
        prop_assert_eq!(links.first().unwrap().from.0, 0.0);
        prop_assert_eq!(links.last().unwrap().to.0, ms(now).0);
        for pair in links.windows(2) {
            prop_assert_eq!(pair[0].to, pair[1].from);
        }
        for link in &links {
            prop_assert!(link.took() > 0.0);
        }
        let sum: f64 = links.iter().map(Link::took).sum();
        prop_assert!((sum - ms(now).0).abs() < 1e-6);
        // Ids are indices from 1 on. Links of no length are left out: then whatever is before them released what comes after.
        let released_by = |span: usize| declared.get(&(span as SpanId + 1)).map(|r| *r as usize - 1);
        let end = |span: usize| ends.iter().flatten().find(|e| e.2 as usize == span + 1).map(|e| ms(e.1));
        for pair in links.windows(2) {
            let mut released = pair[1].span.and_then(released_by);
            while let Some(span) = released.filter(|s| Some(*s) != pair[0].span) {
                prop_assert_eq!(end(span), Some(pair[1].from), "{} does not begin with the end of what released it", pair[1].step);
                released = released_by(span);
            }
        }
        let shown: f64 = lines(&links, "", usize::MAX).iter().map(|l| l.split_whitespace().find_map(|w| w.strip_suffix('s')?.parse::<f64>().ok()).unwrap()).sum();
        prop_assert!((shown - (ms(now).0 * 10.0).round() / 10.0).abs() < 1e-6);
    }
}
