//! What all displays share: a thread of its own that drains events and draws, so that neither waits for the other.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::mpsc as sync;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::event::{Event, Report, Seconds, SpanId};
use super::json::Json;
use super::plain::{Detail, Plain};
use super::terminal::Terminal;
use super::tree::Tree;
use crate::error::{Context, Result};

/// Spinners turn and plain waits fall due at this pace.
const TICK: Duration = Duration::from_millis(100);

/// Which display to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A live tree on standard error, which has to be a terminal.
    Terminal {
        /// Whether to colour.
        colour: bool,
        /// Whether finished steps keep their machines' lines.
        verbose: bool,
    },
    /// Lines on standard error.
    Plain(Detail),
    /// JSON lines on standard output.
    Json,
}

/// What a display has to do. All times are seconds from the start of the run.
pub(crate) trait Painter: Send {
    /// Takes an event in.
    fn event(&mut self, event: &Event, now: f64);
    /// Draws what is due.
    fn tick(&mut self, now: f64);
    /// Leaves the terminal to somebody else, or takes it back. Nothing that happens meanwhile is lost.
    fn hold(&mut self, held: bool, now: f64);
    /// Writes data where it does not mix with what is drawn.
    fn write(&mut self, out: &mut dyn Write, bytes: &[u8], now: f64) -> io::Result<()>;
    /// Draws for the last time.
    fn finish(&mut self, now: f64);
}

/// Where data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// All that was reported up to a moment.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Every span.
    pub tree: Tree,
    /// That moment, in seconds from the start of the run.
    pub now: f64,
}

enum Control {
    Write(Stream, Vec<u8>, sync::Sender<io::Result<()>>),
    Hold(bool, sync::Sender<io::Result<()>>),
    Record(sync::Sender<Record>),
    Stop,
}

/// A display at work. Dropping it draws what is left and waits for that.
pub struct Display {
    controls: UnboundedSender<Control>,
    ended: oneshot::Receiver<Record>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts a display, and the report that feeds it.
    pub fn start(kind: Kind) -> Result<(Display, Report)> {
        let (report, events) = Report::channel();
        let start = report.start();
        let (controls, orders) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        // Its own small runtime: it goes on drawing when the work's runtime is busy or shutting down.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("cannot start the display")?;
        let draw = move || {
            let mut painter: Box<dyn Painter> = match kind {
                Kind::Terminal { colour, verbose } => Box::new(Terminal::new(colour, verbose)),
                Kind::Plain(detail) => Box::new(Plain::new(detail)),
                Kind::Json => Box::new(Json::default()),
            };
            let record = runtime.block_on(drain(events, orders, painter.as_mut(), start));
            // Nobody waits if the display is dropped instead of finished.
            let _ = end.send(record);
        };
        let thread = thread::Builder::new().name("display".into()).spawn(draw).context("cannot start the display")?;
        Ok((Display { controls, ended, thread: Some(thread) }, report))
    }

    /// A handle for writing between what is drawn.
    pub fn output(&self) -> Output {
        Output { controls: self.controls.clone() }
    }

    /// Draws everything that was reported so far and ends the display. Spans that are still open count as stopped.
    ///
    /// It does not wait for reports to be dropped: a task that goes on in the background can't hold the program. Returns all that was
    /// reported; nothing if the display has panicked.
    pub async fn finish(mut self) -> Record {
        let _ = self.controls.send(Control::Stop);
        (&mut self.ended).await.unwrap_or_default()
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.controls.send(Control::Stop);
        if let Some(thread) = self.thread.take() {
            // A display that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// Writes between what a display draws; cheap to clone.
#[derive(Clone)]
pub struct Output {
    controls: UnboundedSender<Control>,
}

impl Output {
    /// Writes after everything that was reported before, and returns when it is written.
    pub fn write(&self, stream: Stream, bytes: Vec<u8>) -> io::Result<()> {
        self.order(|done| Control::Write(stream, bytes, done))
    }

    /// With `true`, returns when nothing is drawn any more, until the call with `false`.
    pub fn hold(&self, held: bool) -> io::Result<()> {
        self.order(|done| Control::Hold(held, done))
    }

    /// All that was reported so far.
    pub fn record(&self) -> io::Result<Record> {
        self.ask(Control::Record)
    }

    fn order(&self, make: impl FnOnce(sync::Sender<io::Result<()>>) -> Control) -> io::Result<()> {
        self.ask(make)?
    }

    fn ask<T>(&self, make: impl FnOnce(sync::Sender<T>) -> Control) -> io::Result<T> {
        let (done, answer) = sync::channel();
        let ended = || io::Error::other("the display has ended");
        self.controls.send(make(done)).map_err(|_| ended())?;
        // Ends when the display has done it, or when the display has ended and dropped the other end.
        answer.recv().map_err(|_| ended())
    }
}

async fn drain(
    mut events: UnboundedReceiver<Event>,
    mut orders: UnboundedReceiver<Control>,
    painter: &mut dyn Painter,
    start: Instant,
) -> Record {
    let now = || start.elapsed().as_secs_f64();
    let mut open: BTreeSet<SpanId> = BTreeSet::new();
    let mut tree = Tree::default();
    let mut show = |event: &Event, tree: &mut Tree, painter: &mut dyn Painter| {
        tree.apply(event, now());
        match event {
            Event::Started { id, .. } => {
                open.insert(*id);
            }
            Event::Done { id, .. } | Event::Failed { id, .. } | Event::Cancelled { id, .. } => {
                open.remove(id);
            }
            Event::Waiting { .. } | Event::Progress { .. } | Event::Run { .. } | Event::Note { .. } | Event::Warning { .. } => {}
        }
        painter.event(event, now());
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut reporting = true;
    loop {
        // In this order, so that a flood of events stops neither the drawing nor the end.
        tokio::select! { biased;
            _ = ticks.tick() => painter.tick(now()),
            order = orders.recv() => {
                // What was reported before the order comes before it.
                for _ in 0..events.len() {
                    if let Ok(event) = events.try_recv() {
                        show(&event, &mut tree, painter);
                    }
                }
                match order {
                    None | Some(Control::Stop) => break,
                    Some(Control::Write(stream, bytes, done)) => {
                        let written = match stream {
                            Stream::Out => painter.write(&mut io::stdout().lock(), &bytes, now()),
                            Stream::Err => painter.write(&mut io::stderr().lock(), &bytes, now()),
                        };
                        let _ = done.send(written);
                    }
                    Some(Control::Record(done)) => {
                        let _ = done.send(Record { tree: tree.clone(), now: Seconds::from(start.elapsed()).0 });
                    }
                    Some(Control::Hold(held, done)) => {
                        painter.hold(held, now());
                        let _ = done.send(Ok(()));
                    }
                }
            }
            event = events.recv(), if reporting => match event {
                Some(event) => show(&event, &mut tree, painter),
                None => reporting = false,
            },
        }
    }
    // Machines before their steps, as it would be if each had been dropped.
    let at = Seconds::from(start.elapsed());
    for id in open.into_iter().rev() {
        let event = Event::Cancelled { id, at };
        tree.apply(&event, at.0);
        painter.event(&event, at.0);
    }
    painter.finish(at.0);
    Record { tree, now: at.0 }
}
