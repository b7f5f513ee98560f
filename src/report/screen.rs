//! What a terminal shows: a live tree of steps and machines. Pure: state, size and time in, lines out; `terminal.rs` draws them.
//!
//! A finished step is one line, which scrolls away as soon as all steps that began before it are finished too; so lines stay in order
//! of start. Below a running step its machines are listed, those that have taken longest first when not all of them fit. The last line
//! is the whole run. Where earlier runs are known, each step and the whole say how long they took then.

use std::collections::HashSet;
use std::fmt::Write as _;

use console::{Style, measure_text_width, pad_str, truncate_str};

use super::event::Event;
use super::tree::{Node, Progress, State, Tree, amount, duration, one_line, roughly};

/// Lines below one step when there is room: what a reader can follow.
const MOST_BELOW: usize = 6;
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// How lines are to look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Columns of the terminal; no line reaches the last one.
    pub width: usize,
    /// Rows of the terminal; the live lines stay below that.
    pub height: usize,
    /// Whether to colour.
    pub colour: bool,
    /// Whether finished steps keep the lines of their machines.
    pub verbose: bool,
}

impl Look {
    /// How many live lines fit: one row stays free for the cursor of whatever comes next.
    fn rows(self) -> usize {
        self.height.saturating_sub(1).max(1)
    }
}

/// What a frame consists of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Lines that are final: they scroll up and are never drawn again.
    pub finished: Vec<String>,
    /// Lines that the next frame replaces.
    pub live: Vec<String>,
}

/// What the display knows: the spans, and which steps have scrolled away already.
#[derive(Debug, Default)]
pub struct Screen {
    tree: Tree,
    gone: HashSet<usize>,
    /// What is final but not drawn yet, in the order in which it became so.
    settled: Vec<Settled>,
}

#[derive(Debug)]
enum Settled {
    Step(usize),
    Said(&'static str, String),
}

impl Screen {
    /// Takes in an event that arrived `now` seconds after the start of the run.
    pub fn apply(&mut self, event: &Event, now: f64) {
        let said = match event {
            Event::Note { text } => Settled::Said("i", one_line(text)),
            Event::Warning { text } => Settled::Said("!", one_line(text)),
            _ => {
                self.tree.apply(event, now);
                return;
            }
        };
        self.settle(usize::MAX, false);
        self.settled.push(said);
    }

    /// The next frame. With `last`, everything becomes final.
    pub fn frame(&mut self, look: Look, now: f64, last: bool) -> Frame {
        self.settle(look.rows(), last);
        let mut frame = Frame::default();
        for settled in self.settled.drain(..) {
            frame.finished.extend(match settled {
                Settled::Step(step) => finished(&self.tree, step, look, now),
                Settled::Said(mark, text) => wrapped(mark, &text, look),
            });
        }
        let total = if last { None } else { total(&self.tree, look, now) };
        // The last row of a small terminal is better used for a step.
        let total = total.filter(|_| look.rows() > 2);
        let room = Look { height: look.height - usize::from(total.is_some()), ..look };
        frame.live = live(&self.tree, &self.standing(), room, now);
        frame.live.extend(total);
        frame
    }

    /// The steps that have not scrolled away, in order of start.
    fn standing(&self) -> Vec<usize> {
        self.tree.steps().filter(|i| !self.gone.contains(i)).collect()
    }

    /// Lets those steps scroll away that have ended, and before which all have ended; while more than `rows` stand, any that has ended.
    fn settle(&mut self, rows: usize, last: bool) {
        let ended = |tree: &Tree, i: usize| last || !tree.nodes[i].running();
        let mut standing = self.standing();
        loop {
            let candidates = if standing.len() > rows { standing.len() } else { 1 };
            let Some(at) = standing.iter().take(candidates).position(|i| ended(&self.tree, *i)) else { break };
            let step = standing.remove(at);
            self.gone.insert(step);
            self.settled.push(Settled::Step(step));
        }
    }
}

/// The lines of a step that has ended: its own, and those of machines that failed (with `verbose`, of all machines).
fn finished(tree: &Tree, step: usize, look: Look, now: f64) -> Vec<String> {
    let mut lines = vec![line(tree, step, 0, true, look, now)];
    let below: Vec<usize> = tree.nodes[step].children.clone();
    let failed = |i: &usize| matches!(tree.nodes[*i].state, State::Failed(_));
    let shown: Vec<usize> = if look.verbose {
        below
    } else if failed(&step) {
        below.into_iter().filter(failed).collect()
    } else {
        Vec::new()
    };
    let most = if look.verbose { shown.len() } else { MOST_BELOW };
    lines.extend(shown.iter().take(most).map(|i| line(tree, *i, 1, true, look, now)));
    if shown.len() > most {
        lines.push(more(shown.len() - most, "failed", look));
    }
    lines
}

/// The lines of steps that have not scrolled away, at most one less than the terminal has rows.
fn live(tree: &Tree, steps: &[usize], look: Look, now: f64) -> Vec<String> {
    let rows = look.rows();
    let mut steps = steps;
    let mut hidden = 0;
    if steps.len() > rows {
        hidden = steps.len() - rows + 1;
        steps = &steps[..rows - 1];
    }
    let mut spare = rows - steps.len() - usize::from(hidden > 0);
    let mut lines = Vec::new();
    let mut rest = steps.iter().filter(|s| !wanted(tree, **s).is_empty()).count();
    for step in steps {
        let share = (spare / rest.max(1)).min(MOST_BELOW);
        let below = below(tree, *step, share, look, now);
        rest -= usize::from(!wanted(tree, *step).is_empty());
        spare -= below.len();
        lines.push(line(tree, *step, 0, below.is_empty(), look, now));
        lines.extend(below);
    }
    if hidden > 0 {
        lines.push(fit(&format!("… {hidden} more steps"), look));
    }
    lines
}

/// The machines below a step that deserve a line of their own: failed ones, then those that have run longest.
fn wanted(tree: &Tree, step: usize) -> Vec<usize> {
    let all = &tree.nodes[step].children;
    let by_state = |want: fn(&State) -> bool| all.iter().copied().filter(move |i| want(&tree.nodes[*i].state));
    let mut wanted: Vec<usize> = by_state(|s| matches!(s, State::Failed(_))).collect();
    // A single machine is named on the step's own line.
    if tree.nodes[step].running() && all.len() > 1 {
        wanted.extend(by_state(|s| *s == State::Running));
    }
    wanted
}

/// At most `share` lines for the machines below a step, drawn in order of start.
fn below(tree: &Tree, step: usize, share: usize, look: Look, now: f64) -> Vec<String> {
    let wanted = wanted(tree, step);
    // A line that only says how many there are would hide what they wait for: the step's own line can name one.
    if share == 0 || wanted.is_empty() || (share == 1 && wanted.len() > 1) {
        return Vec::new();
    }
    let mut shown = wanted.clone();
    if wanted.len() > share {
        shown.truncate(share - 1);
    }
    shown.sort_unstable();
    let mut lines: Vec<String> = shown.iter().map(|i| line(tree, *i, 1, true, look, now)).collect();
    if shown.len() < wanted.len() {
        lines.push(more(wanted.len() - shown.len(), "under way", look));
    }
    lines
}

/// The whole run: how long it has taken, how long it should, how many of its steps are done.
fn total(tree: &Tree, look: Look, now: f64) -> Option<String> {
    let title = tree.title.as_deref()?;
    let done = tree.steps().filter(|i| matches!(tree.nodes[*i].state, State::Done(_))).count();
    // Steps that earlier runs did not have come on top.
    let all = tree.expected.as_ref().map(|e| {
        let new = tree.steps().filter(|i| !e.steps.contains_key(&tree.nodes[*i].title)).count();
        format!("{done} of {} steps", e.steps.len() + new)
    });
    let column = column(tree, look);
    let title = pad_str(&keep_end(title, column), column, console::Alignment::Left, None).into_owned();
    let title = if look.colour { Style::new().bold().force_styling(true).apply_to(title).to_string() } else { title };
    let times = times(tree, now, tree.expected_total(now), look);
    Some(fit(format!("  {title} {times}  {}", all.unwrap_or_default()).trim_end(), look))
}

/// How wide titles are.
fn column(tree: &Tree, look: Look) -> usize {
    let column = (look.width * 3 / 8).clamp(12, 44);
    // On a narrow terminal, expected times take their room from here.
    if tree.expected.is_some() && look.width < 120 { column.saturating_sub(6).max(12) } else { column }
}

/// `  1.2s of ~1.7s`: how long something has taken, and how long it should; as wide on every line of a run.
fn times(tree: &Tree, elapsed: f64, expected: Option<f64>, look: Look) -> String {
    let elapsed = format!("{:>6}", duration(elapsed));
    if tree.expected.is_none() {
        return elapsed;
    }
    let expected = format!("{:<10}", expected.map(|e| format!(" of {}", roughly(e))).unwrap_or_default());
    let expected = if look.colour { Style::new().dim().force_styling(true).apply_to(expected).to_string() } else { expected };
    format!("{elapsed}{expected}")
}

fn more(count: usize, how: &str, look: Look) -> String {
    fit(&format!("  … {count} more {how}"), look)
}

/// One line: mark, title, elapsed time, detail. The columns are the same on every line, so that a reader's eye can follow them.
/// Below a line that is `alone`, no machines are listed: it names what one of them waits for.
fn line(tree: &Tree, at: usize, depth: usize, alone: bool, look: Look, now: f64) -> String {
    let node = &tree.nodes[at];
    let paint = |style: Style, text: &str| {
        if look.colour { style.force_styling(true).apply_to(text).to_string() } else { text.to_owned() }
    };
    let mark = match node.state {
        State::Running => paint(Style::new().cyan(), &SPINNER[(now * 10.0) as usize % SPINNER.len()].to_string()),
        State::Done(_) => paint(Style::new().green(), "✓"),
        State::Failed(_) => paint(Style::new().red().bold(), "✗"),
        State::Cancelled => paint(Style::new().yellow(), "–"),
    };
    let column = column(tree, look) - 2 * depth;
    let title = if depth == 0 {
        truncate_str(&node.title, column, "…").into_owned()
    } else {
        keep_end(tree.short(&node.title), column)
    };
    let title = pad_str(&title, column, console::Alignment::Left, None);
    let times = times(tree, node.elapsed(now), tree.expected(at), look);
    let mut text = format!("{:indent$}{mark} {title} {times}  ", "", indent = 2 * depth);
    match &node.state {
        State::Running => running_detail(&mut text, tree, at, alone, look, now),
        State::Done(_) => text.push_str(&tree.result(at).unwrap_or_default()),
        State::Failed(error) => text.push_str(&paint(Style::new().red(), error)),
        State::Cancelled => text.push_str("stopped"),
    }
    fit(text.trim_end(), look)
}

/// What a running span does now: a bar, the number of machines done, the wait. Whatever comes first survives a narrow terminal.
fn running_detail(text: &mut String, tree: &Tree, at: usize, alone: bool, look: Look, now: f64) {
    let node = &tree.nodes[at];
    let mut parts = Vec::new();
    if let Some(progress) = node.progress {
        parts.push(bar(progress, node, look, now));
    }
    let (done, all) = tree.count(at);
    if all > 1 {
        parts.push(format!("{done} of {}", node.parts()));
    }
    if node.wait.is_some() {
        parts.extend(node.wait.as_ref().map(|w| format!("waiting: {w}")));
    } else if let [only] = node.children[..]
        && tree.nodes[only].running()
    {
        // What it does says more than its name, which matters only where there are several.
        let mut doing = String::new();
        running_detail(&mut doing, tree, only, alone, look, now);
        parts.push(if doing.is_empty() { tree.short(&tree.nodes[only].title).to_owned() } else { doing });
    } else if alone {
        parts.extend(tree.wait(at).map(|w| format!("waiting: {w}")));
    }
    text.push_str(&parts.join("  "));
}

/// `━━━━────  12.0/266.0 MiB  40s left`; without a total, only the amount.
fn bar(progress: Progress, node: &Node, look: Look, now: f64) -> String {
    let Some(total) = progress.total.filter(|t| *t > 0) else { return amount(progress) };
    let share = (progress.done as f64 / total as f64).clamp(0.0, 1.0);
    let width: usize = if look.width >= 120 { 30 } else { 12 };
    let full = (share * width as f64).floor() as usize;
    let mut text = format!("{}{}  {}", "━".repeat(full), "─".repeat(width - full), amount(progress));
    let elapsed = node.elapsed(now);
    // Before that, the rate is mostly that of opening connections.
    if elapsed >= 2.0 && share > 0.0 && share < 1.0 {
        let left = (elapsed * (1.0 - share) / share).ceil() as u64;
        let _ = if left < 60 { write!(text, "  {left}s left") } else { write!(text, "  {}m left", left.div_ceil(60)) };
    }
    text
}

/// Cut so that it never reaches the last column, where terminals disagree about wrapping.
fn fit(text: &str, look: Look) -> String {
    truncate_str(text, look.width.saturating_sub(1), "…").into_owned()
}

/// Cut at its start: machines of one cluster differ at the end of their names.
fn keep_end(text: &str, width: usize) -> String {
    let mut room = width;
    if measure_text_width(text) <= room {
        return text.to_owned();
    }
    room = room.saturating_sub(1);
    let mut kept: Vec<char> = Vec::new();
    for c in text.chars().rev() {
        let Some(left) = room.checked_sub(measure_text_width(c.encode_utf8(&mut [0; 4]))) else { break };
        room = left;
        kept.push(c);
    }
    kept.push('…');
    kept.iter().rev().collect()
}

/// A sentence in as many lines as it needs, broken at spaces; a word longer than a line is cut.
fn wrapped(mark: &str, text: &str, look: Look) -> Vec<String> {
    let room = look.width.saturating_sub(3).max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if measure_text_width(last) + 1 + measure_text_width(word) <= room => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let first = if look.colour { Style::new().yellow().force_styling(true).apply_to(mark).to_string() } else { mark.to_owned() };
    lines.iter().enumerate().map(|(i, l)| fit(&format!("{} {l}", if i == 0 { &first } else { " " }), look)).collect()
}
