//! The display for everything that is no terminal (files, CI, pipes): one line per thing that matters, and no control characters.
//!
//! `[ 12.3s] done    etcd (3 machines, 0.8s)`: elapsed time, one of a fixed set of words, the step or `step/machine`, what came of it.

use std::io::{self, Write};

use super::display::Painter;
use super::event::Event;
use super::tree::{State, Tree, amount, duration, one_line, roughly};

/// A step whose wait changes says so at most this often, in seconds.
const CHANGED_AFTER: f64 = 5.0;
/// A step that has nothing new to say still shows that it lives this often, in seconds.
const STILL_AFTER: f64 = 30.0;

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Warnings only.
    Quiet,
    /// Steps.
    Steps,
    /// Steps, and each machine's part of them.
    Machines,
}

/// Turns events into lines.
#[derive(Debug)]
pub struct Lines {
    tree: Tree,
    detail: Detail,
    /// Per span, like the tree's nodes: when it was last mentioned, and with what.
    said: Vec<(f64, String)>,
}

impl Lines {
    /// Lines with this much detail.
    pub fn new(detail: Detail) -> Lines {
        Lines { tree: Tree::default(), detail, said: Vec::new() }
    }

    /// The line that this event is worth, if any. `now` is in seconds from the start of the run.
    pub fn event(&mut self, event: &Event, now: f64) -> Option<String> {
        match event {
            Event::Warning { text } => return Some(line(now, "warning", &one_line(text))),
            Event::Note { text } => return (self.detail != Detail::Quiet).then(|| line(now, "note", &one_line(text))),
            _ => {}
        }
        let applied = self.tree.apply(event, now);
        if let Event::Run { expected: Some(expected), .. } = event {
            let runs =
                if expected.runs == 1 { "the last run took".into() } else { format!("the last {} runs took", expected.runs) };
            let text = format!("{runs} {}", roughly(expected.total.0));
            return (self.detail != Detail::Quiet).then(|| line(now, "note", &text));
        }
        let at = applied?;
        self.said.resize_with(self.tree.nodes.len(), || (now, String::new()));
        let node = &self.tree.nodes[at];
        let mut took = duration(node.elapsed(now));
        if let Some(expected) = self.tree.expected(at) {
            took = format!("{took} of {}", roughly(expected));
        }
        let name = self.tree.path(at);
        // A machine that failed matters at any level of detail but the lowest.
        let shown = match self.detail {
            Detail::Quiet => false,
            Detail::Steps => node.parent.is_none() || matches!(node.state, State::Failed(_)),
            Detail::Machines => true,
        };
        let (word, text) = match (event, &node.state) {
            (Event::Started { .. }, _) => ("start", name),
            (Event::Done { .. }, _) => match self.tree.result(at) {
                Some(result) => ("done", format!("{name} ({result}, {took})")),
                None => ("done", format!("{name} ({took})")),
            },
            (Event::Failed { .. }, State::Failed(error)) => ("failed", format!("{name}: {error} ({took})")),
            (Event::Cancelled { .. }, _) => ("stopped", format!("{name} ({took})")),
            _ => return None,
        };
        shown.then(|| line(now, word, &text))
    }

    /// The lines that are due: what running steps wait for or how far they are, where that has changed or has not for long.
    pub fn due(&mut self, now: f64) -> Vec<String> {
        if self.detail == Detail::Quiet {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for step in self.tree.steps().filter(|i| self.tree.nodes[*i].running()) {
            let text = self.status(step);
            let (when, what) = &mut self.said[step];
            let after = if *what == text || text.is_empty() { STILL_AFTER } else { CHANGED_AFTER };
            if now - *when < after {
                continue;
            }
            (*when, *what) = (now, text);
            let name = self.tree.path(step);
            lines.push(line(now, "wait", &if what.is_empty() { name } else { format!("{name}: {what}") }));
        }
        lines
    }

    /// What a step does now, in one line.
    fn status(&self, step: usize) -> String {
        let node = &self.tree.nodes[step];
        let mut parts = Vec::new();
        parts.extend(node.progress.map(amount));
        let (done, all) = self.tree.count(step);
        if all > 1 {
            parts.push(format!("{done} of {}", node.parts()));
        }
        let part = self.tree.children(step).find(|n| n.running() && n.progress.is_some());
        match (self.tree.wait(step), part) {
            (Some(wait), _) => parts.push(wait),
            (None, Some(part)) => parts.extend(part.progress.map(|p| format!("{}: {}", part.title, amount(p)))),
            (None, None) => {}
        }
        parts.join(", ")
    }
}

fn line(now: f64, word: &str, text: &str) -> String {
    format!("[{:>5.1}s] {word:<7} {text}", now.max(0.0)).trim_end().to_owned()
}

/// Writes lines to standard error.
pub struct Plain {
    lines: Lines,
    held: Option<Vec<String>>,
}

impl Plain {
    /// A display with this much detail.
    pub fn new(detail: Detail) -> Plain {
        Plain { lines: Lines::new(detail), held: None }
    }

    fn put(&mut self, lines: impl IntoIterator<Item = String>) {
        if let Some(held) = &mut self.held {
            held.extend(lines);
            return;
        }
        let mut err = io::stderr().lock();
        for line in lines {
            // A reader that went away is no reason for the work to stop.
            let _ = writeln!(err, "{line}");
        }
    }
}

impl Painter for Plain {
    fn event(&mut self, event: &Event, now: f64) {
        let line = self.lines.event(event, now);
        self.put(line);
    }

    fn tick(&mut self, now: f64) {
        let lines = self.lines.due(now);
        self.put(lines);
    }

    fn hold(&mut self, held: bool, _now: f64) {
        if held {
            self.held.get_or_insert_default();
        } else if let Some(lines) = self.held.take() {
            self.put(lines);
        }
    }

    fn write(&mut self, out: &mut dyn Write, bytes: &[u8], _now: f64) -> io::Result<()> {
        out.write_all(bytes)?;
        out.flush()
    }

    fn finish(&mut self, _now: f64) {
        if let Some(lines) = self.held.take() {
            self.put(lines);
        }
    }
}
