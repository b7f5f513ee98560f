//! The state behind every display: which spans there are, what each waits for, and how it ended. Pure: events in, state out.

use std::collections::HashMap;

use super::event::{Event, Expected, SpanId, Unit};

/// How a span stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Under way.
    Running,
    /// Ended well, with a word about what came of it.
    Done(Option<String>),
    /// Ended badly, with the error's first line.
    Failed(String),
    /// Given up because something else failed or the user stopped it.
    Cancelled,
}

/// How far a measurable span is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in total, if known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
}

/// One span.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is being done, or on which machine. One line without control characters.
    pub title: String,
    /// What the spans below it are, in the singular.
    pub of: &'static str,
    /// The span it belongs to: an index into [`Tree::nodes`].
    pub parent: Option<usize>,
    /// The spans below it, in order of start.
    pub children: Vec<usize>,
    /// The span whose end let it begin, if it was said: an index into [`Tree::nodes`].
    pub released_by: Option<usize>,
    /// When it began, in seconds from the start of the run.
    pub begun: f64,
    /// When it ended, in seconds from the start of the run.
    pub ended: Option<f64>,
    /// How long it took, in seconds, once it has ended.
    pub took: Option<f64>,
    /// What it waits for now.
    pub wait: Option<String>,
    /// All that it waited for, with the moments from which on it did; `None` where it went on.
    pub waits: Vec<(f64, Option<String>)>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// How it stands.
    pub state: State,
}

impl Node {
    /// Seconds that it has taken so far, or took in all.
    pub fn elapsed(&self, now: f64) -> f64 {
        self.took.unwrap_or_else(|| (now - self.begun).max(0.0))
    }

    /// `5 machines`, `14 components`: the spans below it, counted.
    pub fn parts(&self) -> String {
        let count = self.children.len();
        format!("{count} {}{}", self.of, if count == 1 { "" } else { "s" })
    }

    /// Whether it is still under way.
    pub fn running(&self) -> bool {
        self.state == State::Running
    }

    /// When it ended, or `now`.
    pub fn end(&self, now: f64) -> f64 {
        self.ended.unwrap_or(now).max(self.begun)
    }

    /// What it waited for, and from when to when; equal conditions that follow each other are one, whatever was seen last.
    pub fn waited(&self, now: f64) -> Vec<(f64, f64, &str)> {
        let mut all: Vec<(f64, f64, &str)> = Vec::new();
        for (i, (from, on)) in self.waits.iter().enumerate() {
            let to = self.waits.get(i + 1).map_or_else(|| self.end(now), |(next, _)| *next);
            let Some(on) = on.as_deref().map(condition) else { continue };
            match all.last_mut() {
                Some((_, end, same)) if *same == on && *end == *from => *end = to,
                _ => all.push((*from, to, on)),
            }
        }
        all
    }

    fn wait_for(&mut self, on: Option<String>, at: f64) {
        if self.wait != on {
            self.waits.push((at, on.clone()));
            self.wait = on;
        }
    }

    fn close(&mut self, state: State, took: f64, at: f64) {
        self.state = state;
        self.took = Some(took);
        self.ended = Some(at);
        self.wait = None;
    }
}

/// A condition without what was seen last of it.
pub fn condition(wait: &str) -> &str {
    wait.split_once(" (").map_or(wait, |(on, _)| on)
}

/// All spans of a run, in order of start.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Every span; the indices of parents and children point here.
    pub nodes: Vec<Node>,
    /// What the run is for, if it was said: the cluster's name.
    pub title: Option<String>,
    /// How long such runs took before.
    pub expected: Option<Expected>,
    index: HashMap<SpanId, usize>,
}

impl Tree {
    /// Takes an event in, `now` seconds after the start of the run. Returns the span that it changed; notes and warnings change none.
    pub fn apply(&mut self, event: &Event, now: f64) -> Option<usize> {
        if let Event::Run { title, expected } = event {
            self.title = Some(one_line(title));
            self.expected.clone_from(expected);
        }
        let (Event::Started { id, .. }
        | Event::Waiting { id, .. }
        | Event::Progress { id, .. }
        | Event::Done { id, .. }
        | Event::Failed { id, .. }
        | Event::Cancelled { id, .. }) = event
        else {
            return None;
        };
        if let Event::Started { parent, title, of, released_by, at, .. } = event {
            let at_index = self.nodes.len();
            let known = |id: &Option<SpanId>| id.and_then(|id| self.index.get(&id).copied());
            let (parent, released_by) = (known(parent), known(released_by));
            self.nodes.push(Node {
                title: one_line(title),
                of,
                parent,
                children: Vec::new(),
                released_by,
                begun: at.0,
                ended: None,
                took: None,
                wait: None,
                waits: Vec::new(),
                progress: None,
                state: State::Running,
            });
            self.index.insert(*id, at_index);
            if let Some(parent) = parent {
                // What has parts under way no longer waits itself.
                self.nodes[parent].wait_for(None, at.0);
                self.nodes[parent].children.push(at_index);
            }
            return Some(at_index);
        }
        let at_index = *self.index.get(id)?;
        let node = &mut self.nodes[at_index];
        match event {
            Event::Waiting { on, at, .. } => node.wait_for(Some(one_line(on)), at.0),
            Event::Progress { done, total, unit, .. } => {
                // What is measured is being done, not waited for.
                node.wait_for(None, now);
                node.progress = Some(Progress { done: *done, total: *total, unit: *unit });
            }
            Event::Done { result, took, at, .. } => node.close(State::Done(result.as_deref().map(one_line)), took.0, at.0),
            Event::Failed { error, took, at, .. } => node.close(State::Failed(one_line(error)), took.0, at.0),
            Event::Cancelled { at, .. } => node.close(State::Cancelled, (at.0 - node.begun).max(0.0), at.0),
            Event::Started { .. } | Event::Run { .. } | Event::Note { .. } | Event::Warning { .. } => {}
        }
        Some(at_index)
    }

    /// The steps: spans that belong to no other, in order of start.
    pub fn steps(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].parent.is_none())
    }

    /// The spans below another, in order of start.
    pub fn children(&self, of: usize) -> impl Iterator<Item = &Node> {
        self.nodes[of].children.iter().map(|i| &self.nodes[*i])
    }

    /// How many spans below this one have ended well, and how many there are.
    pub fn count(&self, of: usize) -> (usize, usize) {
        (self.children(of).filter(|n| matches!(n.state, State::Done(_))).count(), self.nodes[of].children.len())
    }

    /// What came of a span that ended well: its own word; else, for a single part, that one's word or name; else the number of parts,
    /// with their word if all say the same.
    pub fn result(&self, of: usize) -> Option<String> {
        let node = &self.nodes[of];
        let word = |n: &Node| if let State::Done(word) = &n.state { word.clone() } else { None };
        if let Some(own) = word(node) {
            return Some(own);
        }
        let parts: Vec<&Node> = self.children(of).collect();
        match parts[..] {
            [] => None,
            [only] => Some(word(only).unwrap_or_else(|| self.short(&only.title).to_owned())),
            [first, ref rest @ ..] => match word(first).filter(|w| rest.iter().all(|n| word(n).as_ref() == Some(w))) {
                Some(same) => Some(format!("{}: {same}", node.parts())),
                None => Some(node.parts()),
            },
        }
    }

    /// What a running span waits for: its own wait, else that of the longest running span below it, named.
    pub fn wait(&self, of: usize) -> Option<String> {
        let node = &self.nodes[of];
        if let Some(own) = &node.wait {
            return Some(own.clone());
        }
        let below = node.children.iter().filter(|i| self.nodes[**i].running());
        below.filter_map(|i| Some(format!("{}: {}", self.short(&self.nodes[*i].title), self.wait(*i)?))).next()
    }

    /// How long this step took in earlier runs, in seconds.
    pub fn expected(&self, of: usize) -> Option<f64> {
        let node = &self.nodes[of];
        self.expected.as_ref().filter(|_| node.parent.is_none())?.steps.get(&node.title).map(|s| s.0)
    }

    /// How long the whole run should take by what is known now, in seconds: as before, and what it did beyond that so far.
    pub fn expected_total(&self, now: f64) -> Option<f64> {
        let expected = self.expected.as_ref()?;
        Some(expected.total.0 + self.beside(|node| expected.steps.contains_key(&node.title), now))
    }

    /// The seconds in which steps were under way that `usual` doesn't know. Two at once count once.
    pub fn beside(&self, usual: impl Fn(&Node) -> bool, now: f64) -> f64 {
        // Steps are in order of start.
        let unusual = self.steps().map(|i| &self.nodes[i]).filter(|n| !usual(n));
        let (mut sum, mut until) = (0.0, 0.0);
        for node in unusual {
            sum += (node.end(now) - node.begun.max(until)).max(0.0);
            until = node.end(now).max(until);
        }
        sum
    }

    /// A machine's name without the cluster's, if that is known: `minion-1`.
    pub fn short<'a>(&self, name: &'a str) -> &'a str {
        self.title.as_deref().and_then(|t| name.strip_prefix(t)?.strip_prefix('-')).unwrap_or(name)
    }

    /// The titles from the step down to this span, joined by a slash.
    pub fn path(&self, of: usize) -> String {
        let node = &self.nodes[of];
        match node.parent {
            Some(parent) => format!("{}/{}", self.path(parent), node.title),
            None => node.title.clone(),
        }
    }
}

/// The first line of a text without anything that could move a cursor: what displays show may come from a machine.
pub fn one_line(text: &str) -> String {
    let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    let plain = console::strip_ansi_codes(first);
    plain.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// Characters that reorder or hide text without being control characters.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `0.8s`, `2m05s`, `1h02m`: at most six columns up to a hundred hours.
pub fn duration(seconds: f64) -> String {
    // Rounded first, so that 59.96 is a minute and not "60.0s".
    let tenths = (seconds.max(0.0) * 10.0).round() as u64;
    let whole = tenths / 10;
    match whole {
        0..60 => format!("{}.{}s", whole, tenths % 10),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

/// `~1.7s`, `~14s`, `~2m05s`: how long something is expected to take, no finer than that can be known.
pub fn roughly(seconds: f64) -> String {
    if (10.0..59.5).contains(&seconds) { format!("~{seconds:.0}s") } else { format!("~{}", duration(seconds)) }
}

/// `12.0/266.0 MiB`, `3/14`, or without a total only what is done.
pub fn amount(p: Progress) -> String {
    let mib = |n: u64| format!("{:.1}", n as f64 / f64::from(1 << 20));
    match (p.unit, p.total) {
        (Unit::Bytes, Some(total)) => format!("{}/{} MiB", mib(p.done), mib(total)),
        (Unit::Bytes, None) => format!("{} MiB", mib(p.done)),
        (Unit::Items, Some(total)) => format!("{}/{total}", p.done),
        (Unit::Items, None) => p.done.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::event::Seconds;

    #[test]
    fn expectations_are_no_finer_than_they_can_be() {
        let shown: Vec<_> = [0.04, 1.72, 9.94, 9.97, 14.4, 59.4, 59.7, 125.0].map(roughly).into();
        assert_eq!(shown, ["~0.0s", "~1.7s", "~9.9s", "~10.0s", "~14s", "~59s", "~59.7s", "~2m05s"]);
    }

    fn step(tree: &mut Tree, id: SpanId, title: &str, from: f64, to: f64) {
        let (title, at) = (title.to_owned(), Seconds(from));
        tree.apply(&Event::Started { id, parent: None, title, of: "machine", released_by: None, at }, from);
        tree.apply(&Event::Done { id, result: None, took: Seconds(to - from), at: Seconds(to) }, to);
    }

    #[test]
    fn what_is_not_usual_is_added_to_what_is_expected_once() {
        let mut tree = Tree::default();
        let expected = Expected { runs: 2, total: Seconds(10.0), steps: [("machines".to_owned(), Seconds(2.0))].into() };
        tree.apply(&Event::Run { title: "c".into(), expected: Some(expected) }, 0.0);
        step(&mut tree, 1, "Bundle", 0.0, 60.0);
        step(&mut tree, 2, "toolchain", 10.0, 50.0);
        step(&mut tree, 3, "node image", 55.0, 100.0);
        step(&mut tree, 4, "machines", 100.0, 103.0);
        assert_eq!(tree.expected_total(103.0), Some(110.0));
        assert_eq!((tree.expected(0), tree.expected(3)), (None, Some(2.0)));
    }

    #[test]
    fn waits_for_one_condition_are_one_wait() {
        let mut tree = Tree::default();
        let started =
            Event::Started { id: 1, parent: None, title: "a".into(), of: "machine", released_by: None, at: Seconds(1.0) };
        tree.apply(&started, 1.0);
        for (at, on) in [(1.5, "SSH (last: refused)"), (1.7, "SSH (last: refused)"), (2.0, "SSH (last: timeout)"), (3.0, "files")]
        {
            tree.apply(&Event::Waiting { id: 1, on: on.into(), at: Seconds(at) }, at);
        }
        tree.apply(&Event::Progress { id: 1, done: 1, total: None, unit: Unit::Items }, 4.0);
        tree.apply(&Event::Waiting { id: 1, on: "files".into(), at: Seconds(5.0) }, 5.0);
        assert_eq!(tree.nodes[0].waited(6.0), [(1.5, 3.0, "SSH"), (3.0, 4.0, "files"), (5.0, 6.0, "files")]);
    }

    #[test]
    fn durations_keep_their_width() {
        let shown: Vec<_> = [0.0, 0.84, 9.96, 59.94, 59.96, 125.0, 3599.0, 3600.0, 359_999.0, -1.0].map(duration).into();
        assert_eq!(shown, ["0.0s", "0.8s", "10.0s", "59.9s", "1m00s", "2m05s", "59m59s", "1h00m", "99h59m", "0.0s"]);
    }

    #[test]
    fn text_from_machines_cannot_move_the_cursor() {
        assert_eq!(one_line("\n  a\tb \u{1b}[31mred\u{1b}[0m\u{7}\r\nsecond"), "a b red");
        assert_eq!(one_line("evil\u{202e}txt"), "evil txt");
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn events_of_unknown_spans_are_ignored() {
        let mut tree = Tree::default();
        assert_eq!(tree.apply(&Event::Cancelled { id: 7, at: Seconds(1.0) }, 1.0), None);
        assert!(tree.nodes.is_empty());
    }
}
