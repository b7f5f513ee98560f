//! The display for a terminal: a live tree of steps and machines. Rendering is pure (state, size, time → lines); indicatif draws.
//!
//! A finished step is one line, which scrolls away as soon as all steps that began before it are finished too; so lines stay in order
//! of start. Below a running step its machines are listed, those that have taken longest first when not all of them fit.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use console::{Style, measure_text_width, pad_str, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::display::Painter;
use super::event::Event;
use super::tree::{Node, Progress, State, Tree, amount, duration, one_line};

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
        frame.live = live(&self.tree, &self.standing(), look, now);
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
    let mut lines = vec![line(tree, step, 0, look, now)];
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
    lines.extend(shown.iter().take(most).map(|i| line(tree, *i, 1, look, now)));
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
    for (nth, step) in steps.iter().enumerate() {
        lines.push(line(tree, *step, 0, look, now));
        let share = (spare / (steps.len() - nth)).min(MOST_BELOW);
        let below = below(tree, *step, share, look, now);
        spare -= below.len();
        lines.extend(below);
    }
    if hidden > 0 {
        lines.push(fit(&format!("… {hidden} more steps"), look));
    }
    lines
}

/// At most `share` lines for the machines below a step: failed ones, then those that have run longest, drawn in order of start.
fn below(tree: &Tree, step: usize, share: usize, look: Look, now: f64) -> Vec<String> {
    let all = &tree.nodes[step].children;
    let by_state = |want: fn(&State) -> bool| all.iter().copied().filter(move |i| want(&tree.nodes[*i].state));
    let mut wanted: Vec<usize> = by_state(|s| matches!(s, State::Failed(_))).collect();
    // A single machine is named on the step's own line.
    if tree.nodes[step].running() && all.len() > 1 {
        wanted.extend(by_state(|s| *s == State::Running));
    }
    if share == 0 || wanted.is_empty() {
        return Vec::new();
    }
    let mut shown = wanted.clone();
    if wanted.len() > share {
        shown.truncate(share - 1);
    }
    shown.sort_unstable();
    let mut lines: Vec<String> = shown.iter().map(|i| line(tree, *i, 1, look, now)).collect();
    if shown.len() < wanted.len() {
        lines.push(more(wanted.len() - shown.len(), "under way", look));
    }
    lines
}

fn more(count: usize, how: &str, look: Look) -> String {
    fit(&format!("  … {count} more {how}"), look)
}

/// One line: mark, title, elapsed time, detail. The columns are the same on every line, so that a reader's eye can follow them.
fn line(tree: &Tree, at: usize, depth: usize, look: Look, now: f64) -> String {
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
    let column = (look.width * 3 / 8).clamp(12, 44) - 2 * depth;
    let title = if depth == 0 { truncate_str(&node.title, column, "…").into_owned() } else { keep_end(&node.title, column) };
    let title = pad_str(&title, column, console::Alignment::Left, None);
    let mut text = format!("{:indent$}{mark} {title} {:>6}  ", "", duration(node.elapsed(now)), indent = 2 * depth);
    match &node.state {
        State::Running => running_detail(&mut text, tree, at, look, now),
        State::Done(_) => text.push_str(&tree.result(at).unwrap_or_default()),
        State::Failed(error) => text.push_str(&paint(Style::new().red(), error)),
        State::Cancelled => text.push_str("stopped"),
    }
    fit(text.trim_end(), look)
}

/// What a running span does now: a bar, the number of machines done, the wait. Whatever comes first survives a narrow terminal.
fn running_detail(text: &mut String, tree: &Tree, at: usize, look: Look, now: f64) {
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
        running_detail(&mut doing, tree, only, look, now);
        parts.push(if doing.is_empty() { tree.nodes[only].title.clone() } else { doing });
    } else if node.parent.is_some() {
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

/// Draws frames on standard error.
pub struct Terminal {
    screen: Screen,
    term: console::Term,
    area: ProgressBar,
    drawn: String,
    held: bool,
    colour: bool,
    verbose: bool,
}

impl Terminal {
    /// A display on standard error, which has to be a terminal.
    pub fn new(colour: bool, verbose: bool) -> Terminal {
        let term = console::Term::buffered_stderr();
        let area = ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(Box::new(AtLineStart(term.clone()))));
        // A template with one known key cannot be malformed; the default style would draw a bar of its own.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            area.set_style(style);
        }
        Terminal { screen: Screen::default(), term, area, drawn: String::new(), held: false, colour, verbose }
    }

    fn draw(&mut self, now: f64, last: bool) {
        if self.held && !last {
            return;
        }
        let (height, width) = self.term.size();
        let look = Look { width: width.into(), height: height.into(), colour: self.colour, verbose: self.verbose };
        let Frame { finished, live } = self.screen.frame(look, now, last);
        self.set_live(live.join("\n"));
        if !finished.is_empty() {
            let term = &self.term;
            // A terminal that went away is no reason for the work to stop.
            let _ = self.area.suspend(|| finished.iter().try_for_each(|l| term.write_line(l)).and_then(|()| term.flush()));
        }
    }

    fn set_live(&mut self, text: String) {
        if text != self.drawn {
            self.area.set_message(text.clone());
            self.drawn = text;
        }
    }
}

impl Painter for Terminal {
    fn event(&mut self, event: &Event, now: f64) {
        self.screen.apply(event, now);
    }

    fn tick(&mut self, now: f64) {
        self.draw(now, false);
    }

    fn hold(&mut self, held: bool, now: f64) {
        self.draw(now, false);
        self.held = held;
        if held {
            self.set_live(String::new());
        }
    }

    fn write(&mut self, out: &mut dyn Write, bytes: &[u8], now: f64) -> io::Result<()> {
        self.draw(now, false);
        let mut write = || out.write_all(bytes).and_then(|()| out.flush());
        // With nothing drawn there is nothing to redraw, which would move the cursor away from the end of a question.
        if self.drawn.is_empty() { write() } else { self.area.suspend(write) }
    }

    fn finish(&mut self, now: f64) {
        self.draw(now, true);
        self.area.finish_and_clear();
    }
}

/// A terminal whose cursor rests at the start of a line after each drawing: the `^C` that terminals echo would otherwise wrap at the
/// right margin and shift everything by a row.
#[derive(Debug)]
struct AtLineStart(console::Term);

impl indicatif::TermLike for AtLineStart {
    fn width(&self) -> u16 {
        self.0.size().1
    }
    fn height(&self) -> u16 {
        self.0.size().0
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }
    fn write_line(&self, s: &str) -> io::Result<()> {
        self.0.write_line(s)
    }
    fn write_str(&self, s: &str) -> io::Result<()> {
        self.0.write_str(s)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }
    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}
