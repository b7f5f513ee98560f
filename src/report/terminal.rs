//! The display for a terminal: draws the frames of [`Screen`] with indicatif.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::display::Painter;
use super::event::Event;
use super::screen::{Frame, Look, Screen};

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
