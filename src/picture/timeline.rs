//! A run as a picture: a lane for each machine, a bar for each step, lighter where it waited; above them the chain that decided how
//! long the run took, and among them its bars, outlined and joined.

use svg::node::element::Group;

use super::{BAD, FAINT, INK, MARGIN, explained, fitted, line, mono_width, px, rectangle, sans_width, sheet, text};
use crate::report::chain::{Link, chain};
use crate::report::display::Record;
use crate::report::tree::{State, Tree, duration};

const WIDTH: f64 = 1280.0;
const BAR: f64 = 16.0;
/// From one row of bars in a lane to the next.
const ROW: f64 = 19.0;
/// Above and below the bars of a lane.
const PAD: f64 = 5.0;
/// The widest name of a lane.
const LABEL: f64 = 230.0;
/// A step's own time is drawn if it is longer than this, in seconds.
const OWN: f64 = 0.02;
/// The lane of what runs on no machine.
const KUP: &str = "kup";
/// Fills that are told apart, also by those who don't see red or green, and that black text is readable on; no red, which is for failures.
const PALETTE: [&str; 20] = [
    "#8fb8de", "#f2b56b", "#8ecb8a", "#c4a5d8", "#e6d35c", "#7fcdc4", "#d8a48f", "#b3bfcc", "#f3a6c4", "#a9c75a", "#9fa8f0",
    "#e0c39a", "#6fc3e8", "#c9b6b6", "#b8e0c2", "#dba2dd", "#c2a14d", "#62aca4", "#ffd2a1", "#8d9bc9",
];
/// What is no step.
const NEUTRAL: &str = "#e4e7eb";

struct Bar {
    span: usize,
    from: f64,
    to: f64,
    row: usize,
}

struct Lane {
    name: String,
    bars: Vec<Bar>,
    rows: usize,
    /// Where its first row begins.
    y: f64,
}

/// Draws a run of the cluster of this name.
pub fn draw(record: &Record, cluster: &str, well: bool) -> String {
    Drawing::new(record, cluster, well).draw()
}

struct Drawing<'a> {
    tree: &'a Tree,
    now: f64,
    cluster: &'a str,
    well: bool,
    links: Vec<Link>,
    lanes: Vec<Lane>,
    /// Where time begins on the paper.
    left: f64,
}

impl<'a> Drawing<'a> {
    fn new(record: &'a Record, cluster: &'a str, well: bool) -> Drawing<'a> {
        let tree = &record.tree;
        let lanes = lanes(tree, record.now);
        let mut drawing =
            Drawing { tree, now: record.now.max(0.001), cluster, well, links: chain(record, well), lanes: Vec::new(), left: 0.0 };
        let widest =
            lanes.iter().map(|l| mono_width(drawing.short(&l.name), 12.0)).fold(mono_width("critical path", 12.0), f64::max);
        drawing.left = MARGIN + widest.min(LABEL) + 14.0;
        drawing.lanes = lanes;
        drawing
    }

    fn short<'b>(&self, name: &'b str) -> &'b str {
        name.strip_prefix(self.cluster).and_then(|rest| rest.strip_prefix('-')).unwrap_or(name)
    }

    fn x(&self, seconds: f64) -> f64 {
        self.left + (seconds / self.now).clamp(0.0, 1.0) * (WIDTH - MARGIN - self.left)
    }

    /// The colour of the step that a span is or belongs to.
    fn colour(&self, span: usize) -> &'static str {
        let step = std::iter::successors(Some(span), |s| self.tree.nodes[*s].parent).last();
        let nth = self.tree.steps().position(|s| Some(s) == step).unwrap_or_default();
        PALETTE[nth % PALETTE.len()]
    }

    fn draw(mut self) -> String {
        let mut paper = Group::new();
        let mut y = MARGIN + 18.0;
        paper = paper.add(text(format!("kup up: cluster {}", self.cluster), MARGIN, y, 20.0, "bold"));
        y += 22.0;
        let parts = self.lanes.iter().filter(|l| ![KUP, "cluster"].contains(&l.name.as_str())).count();
        let machines = if parts == 1 { "1 machine".to_owned() } else { format!("{parts} machines") };
        let ended = if self.well { "ended well" } else { "did not end well" };
        paper = paper.add(text(format!("{}, {machines}, {ended}", duration(self.now)), MARGIN, y, 13.0, "dim"));
        for words in self.failures() {
            y += 18.0;
            paper = paper.add(text(fitted(&words, 12.0, WIDTH - 2.0 * MARGIN), MARGIN, y, 12.0, "mono bad"));
        }
        let (legend, below) = self.legend(y + 16.0);
        paper = paper.add(legend);

        let top = below + 26.0;
        let critical = top + PAD;
        y = critical + BAR + PAD + 4.0;
        for lane in &mut self.lanes {
            lane.y = y + PAD;
            y += lane.rows as f64 * ROW - (ROW - BAR) + 2.0 * PAD;
        }
        paper = paper.add(self.axis(top, y)).add(self.backgrounds()).add(self.critical(critical));
        for lane in &self.lanes {
            paper = paper.add(self.lane(lane));
        }
        paper = paper.add(self.joints(critical));
        let words = format!("How kup up made the cluster {}, in {}", self.cluster, duration(self.now));
        sheet(paper, WIDTH, y + MARGIN + 14.0, &words)
    }

    /// What failed, in words.
    fn failures(&self) -> Vec<String> {
        let nodes = self.tree.nodes.iter().enumerate().filter(|(_, n)| n.children.is_empty());
        let told = nodes.filter_map(|(i, n)| match &n.state {
            State::Failed(error) => {
                Some(format!("✗ {} at {}: {error}", self.tree.path(i).replace('/', " on "), duration(n.end(self.now))))
            }
            _ => None,
        });
        told.take(3).collect()
    }

    fn legend(&self, top: f64) -> (Group, f64) {
        let mut group = Group::new().set("class", "legend");
        let (mut x, mut y) = (MARGIN, top);
        let mut place = |group: Group, sample: Group, words: &str| {
            let width = 24.0 + sans_width(words, 12.0) + 16.0;
            if x + width > WIDTH - MARGIN {
                (x, y) = (MARGIN, y + 20.0);
            }
            let item = Group::new().set("transform", format!("translate({} {})", px(x), px(y))).add(sample);
            x += width;
            group.add(item.add(text(words, 24.0, 10.5, 12.0, "")))
        };
        let plain = |fill: &str| Group::new().add(rectangle(0.0, 0.0, 18.0, 12.0, fill).set("rx", 2));
        for step in self.tree.steps() {
            group = place(group, plain(self.colour(step)), &self.tree.nodes[step].title);
        }
        let lighter = plain(PALETTE[0]).add(rectangle(0.0, 0.0, 18.0, 12.0, "#ffffff").set("fill-opacity", 0.5));
        group = place(group, lighter, "lighter: waiting");
        let outlined =
            Group::new().add(rectangle(0.8, 0.8, 16.4, 10.4, "none").set("stroke", INK).set("stroke-width", 1.6).set("rx", 2));
        group = place(group, outlined, "outlined: decided the total");
        let drawn = || self.lanes.iter().flat_map(|l| &l.bars).map(|b| &self.tree.nodes[b.span].state);
        let any = |want: fn(&State) -> bool| drawn().any(want);
        if any(|s| matches!(s, State::Failed(_))) {
            let failed =
                Group::new().add(rectangle(1.0, 1.0, 16.0, 10.0, "none").set("stroke", BAD).set("stroke-width", 2).set("rx", 2));
            group = place(group, failed, "failed");
        }
        if any(|s| matches!(s, State::Cancelled)) {
            let stopped = rectangle(0.8, 0.8, 16.4, 10.4, "none").set("stroke", INK).set("stroke-dasharray", "3 2").set("rx", 2);
            group = place(group, Group::new().add(stopped), "stopped");
        }
        (group, y + 12.0)
    }

    /// Ticks with their times above and below the lanes.
    fn axis(&self, top: f64, bottom: f64) -> Group {
        let mut group = Group::new().set("class", "axis");
        let step = tick(self.now);
        let mut nth = 0.0;
        while nth * step <= self.now * 1.0001 {
            let (at, words) = (self.x(nth * step), seconds(nth * step, step));
            group = group.add(line(at, top - 4.0, at, bottom + 4.0, FAINT, 1.0));
            for y in [top - 8.0, bottom + 17.0] {
                group = group.add(text(words.as_str(), at, y, 11.0, "mono dim").set("text-anchor", "middle"));
            }
            nth += 1.0;
        }
        group
    }

    /// Every other lane on grey, and the names.
    fn backgrounds(&self) -> Group {
        let mut group = Group::new();
        for (nth, lane) in self.lanes.iter().enumerate() {
            let height = lane.rows as f64 * ROW - (ROW - BAR) + 2.0 * PAD;
            if nth % 2 == 0 {
                let wide = WIDTH - 2.0 * MARGIN;
                group = group.add(rectangle(MARGIN, lane.y - PAD, wide, height, "#7b8794").set("fill-opacity", 0.08));
            }
            let short = self.short(&lane.name);
            let words = fitted(short, 12.0, self.left - MARGIN - 10.0);
            group = group.add(explained(lane.name.as_str()).add(text(words, MARGIN + 4.0, lane.y + 12.0, 12.0, "mono")));
        }
        group
    }

    /// The chain by itself.
    fn critical(&self, y: f64) -> Group {
        let mut group = Group::new().set("class", "chain");
        group = group.add(text("critical path", MARGIN + 4.0, y + 12.0, 12.0, "mono bold"));
        for link in &self.links {
            let (from, to) = (self.x(link.from.0), self.x(link.to.0));
            let fill = link.span.map_or(NEUTRAL, |s| self.colour(s));
            let place = link.part.as_deref().map(|p| format!(" on {}", self.short(p))).unwrap_or_default();
            let mut words = format!("{}{place}: {}", link.step, exact(link.took()));
            if let Some(on) = &link.waited_for {
                words = format!("{words}, most of it waiting for {on}");
            }
            let bar = rectangle(from, y, to - from, BAR, fill).set("stroke", INK).set("stroke-width", 1);
            group = group.add(label(explained(words).add(bar), &link.step, from, to, y));
        }
        group
    }

    fn lane(&self, lane: &Lane) -> Group {
        let mut group = Group::new().set("class", "lane").set("data-lane", lane.name.as_str());
        for bar in &lane.bars {
            group = group.add(self.bar(bar, lane));
        }
        group
    }

    fn bar(&self, bar: &Bar, lane: &Lane) -> Group {
        let node = &self.tree.nodes[bar.span];
        let step = &self.tree.nodes[node.parent.unwrap_or(bar.span)].title;
        let (from, to, y) = (self.x(bar.from), self.x(bar.to), lane.y + bar.row as f64 * ROW);
        let width = (to - from).max(1.5);
        let mut words =
            format!("{step} on {}: {} to {}, {}", lane.name, exact(bar.from), exact(bar.to), exact(bar.to - bar.from));
        match &node.state {
            State::Done(Some(result)) => words = format!("{words}\n{result}"),
            State::Failed(error) => words = format!("{words}\nfailed: {error}"),
            State::Cancelled => words.push_str("\nstopped"),
            State::Done(None) | State::Running => {}
        }
        let waits: Vec<_> = node.waited(self.now).into_iter().filter(|w| w.0 < bar.to && w.1 > bar.from).collect();
        for (a, b, on) in &waits {
            words = format!("{words}\nwaited {} for {on}", exact(b - a));
        }
        let solid = rectangle(from, y, width, BAR, self.colour(bar.span))
            .set("rx", 2)
            .set("class", "bar")
            .set("data-step", step.as_str());
        let mut group = explained(words).add(solid);
        for (a, b, _) in waits {
            let (a, b) = (self.x(a.max(bar.from)), self.x(b.min(bar.to)).min(from + width));
            group = group.add(rectangle(a, y, (b - a).max(0.0), BAR, "#ffffff").set("fill-opacity", 0.5).set("class", "wait"));
        }
        let edge = |colour: &str, thick: f64| {
            rectangle(from, y, width, BAR, "none").set("rx", 2).set("stroke", colour).set("stroke-width", thick)
        };
        group = match node.state {
            State::Failed(_) => group.add(edge(BAD, 2.0)),
            State::Cancelled => group.add(edge(INK, 0.8).set("stroke-dasharray", "3 2")),
            State::Done(_) | State::Running => group.add(edge("#7b8794", 0.6)),
        };
        label(group, step, from, to, y)
    }

    /// The chain's bars outlined, and joined from one to the next.
    fn joints(&self, critical: f64) -> Group {
        let mut group = Group::new().set("class", "critical").set("stroke-width", 1.8);
        let mut before: Option<f64> = None;
        for link in &self.links {
            let at = link.span.and_then(|span| self.find(span, link));
            let (from, to) = (self.x(link.from.0), self.x(link.to.0));
            let y = at.unwrap_or(critical);
            if let (Some(before), Some(y)) = (before, at) {
                let (above, under) = if before < y { (before + BAR, y) } else { (y + BAR, before) };
                if under > above {
                    group = group.add(line(from, above, from, under, INK, 1.8));
                }
            }
            if at.is_some() {
                let failed = link.span.is_some_and(|s| matches!(self.tree.nodes[s].state, State::Failed(_)));
                let bar = rectangle(from, y, (to - from).max(1.5), BAR, "none").set("rx", 2);
                group = group.add(bar.set("stroke", if failed { BAD } else { INK }));
                before = at;
            }
        }
        group
    }

    /// Where a link's bar is.
    fn find(&self, span: usize, link: &Link) -> Option<f64> {
        let part = part_of(self.tree, span);
        let of = |lane: &'_ Lane| {
            let mut bars = lane.bars.iter().filter(|b| b.span == part && b.from <= link.to.0 && b.to >= link.from.0);
            bars.next().map(|b| lane.y + b.row as f64 * ROW)
        };
        self.lanes.iter().find_map(of)
    }
}

/// Adds a step's name to its bar if there is room for it.
fn label(group: Group, step: &str, from: f64, to: f64, y: f64) -> Group {
    if sans_width(step, 10.0) + 6.0 > to - from {
        return group;
    }
    group.add(text(step, from + 4.0, y + 11.6, 10.0, ""))
}

/// The machine's part of a step that a span is or belongs to.
fn part_of(tree: &Tree, span: usize) -> usize {
    let up: Vec<usize> = std::iter::successors(Some(span), |s| tree.nodes[*s].parent).collect();
    match up[..] {
        [.., part, _] => part,
        _ => span,
    }
}

/// All lanes with their bars: kup's own first, then the cluster's, then the machines' by name.
fn lanes(tree: &Tree, now: f64) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    let mut put = |name: &str, span: usize, from: f64, to: f64| {
        let at = lanes.iter().position(|l| l.name == name).unwrap_or_else(|| {
            lanes.push(Lane { name: name.to_owned(), bars: Vec::new(), rows: 1, y: 0.0 });
            lanes.len() - 1
        });
        lanes[at].bars.push(Bar { span, from, to: to.max(from), row: 0 });
    };
    for step in tree.steps() {
        let node = &tree.nodes[step];
        let (begun, end) = (node.begun, node.end(now));
        let parts: Vec<_> = node.children.iter().map(|i| (*i, &tree.nodes[*i])).collect();
        let first = parts.iter().map(|(_, n)| n.begun).fold(end, f64::min);
        if parts.is_empty() || first > begun + OWN {
            put(KUP, step, begun, first);
        }
        for (part, child) in &parts {
            put(if node.of == "machine" { &child.title } else { KUP }, *part, child.begun, child.end(now));
        }
        let last = parts.iter().map(|(_, n)| n.end(now)).fold(first, f64::max);
        // A step that was stopped after its last part did nothing then: parts of it had not come.
        if end > last + OWN && matches!(node.state, State::Done(_)) {
            put(KUP, step, last, end);
        }
    }
    for lane in &mut lanes {
        lane.bars.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.span.cmp(&b.span)));
        let mut free: Vec<f64> = Vec::new();
        for bar in &mut lane.bars {
            bar.row = free.iter().position(|f| *f <= bar.from).unwrap_or(free.len());
            if bar.row == free.len() {
                free.push(bar.to);
            } else {
                free[bar.row] = bar.to;
            }
        }
        lane.rows = free.len().max(1);
    }
    lanes.sort_by_cached_key(|l| (l.name != KUP, l.name != "cluster", natural(&l.name)));
    lanes
}

/// So that `minion-10` comes after `minion-9`.
fn natural(name: &str) -> (String, u64) {
    let digits = name.chars().rev().take_while(char::is_ascii_digit).count();
    let (stem, number) = name.split_at(name.len() - digits);
    (stem.to_owned(), number.parse().unwrap_or(0))
}

/// The distance of ticks: a round number, and a dozen at most.
fn tick(total: f64) -> f64 {
    let rough = total / 12.0;
    let steps = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    steps.into_iter().find(|s| *s >= rough).unwrap_or_else(|| (rough / 3600.0).ceil() * 3600.0)
}

/// A tick's time, as finely as ticks are apart.
fn seconds(at: f64, step: f64) -> String {
    match step {
        ..0.1 => format!("{at:.2}s"),
        ..1.0 => format!("{at:.1}s"),
        _ if at < 60.0 => format!("{at:.0}s"),
        _ => duration(at),
    }
}

/// Seconds as finely as they are known.
fn exact(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.2}s") } else { duration(seconds) }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
