//! The vocabulary of progress, and the handles by which work reports it.
//!
//! A [`Report`] is cheap to clone and never blocks. Work opens a [`Span`] for each step, and below it one for each machine;
//! a span that is dropped without [`Span::done`] or [`Span::fail`] counts as cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Identifies a span within one run.
pub type SpanId = u64;

/// One thing that happened. Times are offsets from the start of the run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Work began. `parent` is the step of a machine's part.
    Started {
        /// This span.
        id: SpanId,
        /// The span it belongs to, if any.
        parent: Option<SpanId>,
        /// What is being done ("etcd"), or the machine's name below a step.
        title: String,
        /// What the spans below it are, in the singular ("machine", "component").
        of: &'static str,
        /// The span whose end let this one begin: the last of all that it needed. None if nobody said.
        #[serde(rename = "releasedBy")]
        released_by: Option<SpanId>,
        /// Offset from the start of the run.
        at: Seconds,
    },
    /// What a span is waiting for now, with the last thing seen.
    Waiting {
        /// This span.
        id: SpanId,
        /// The named condition, and in parentheses what was seen last.
        on: String,
        /// Offset from the start of the run.
        at: Seconds,
    },
    /// How far a measurable span is.
    Progress {
        /// This span.
        id: SpanId,
        /// Units done.
        done: u64,
        /// Units in total, if known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// Work ended well.
    Done {
        /// This span.
        id: SpanId,
        /// What came of it ("already running", "12 files"), if worth a word.
        result: Option<String>,
        /// How long it took.
        took: Seconds,
        /// Offset from the start of the run.
        at: Seconds,
    },
    /// Work failed; the error itself is returned to the caller, this is for the display.
    Failed {
        /// This span.
        id: SpanId,
        /// The error's first sentence.
        error: String,
        /// How long it took.
        took: Seconds,
        /// Offset from the start of the run.
        at: Seconds,
    },
    /// Work was given up because something else failed or the user stopped it.
    Cancelled {
        /// This span.
        id: SpanId,
        /// Offset from the start of the run.
        at: Seconds,
    },
    /// What all of this is for, and how long it takes if it goes as it did before. It counts from then on.
    Run {
        /// The cluster's name.
        title: String,
        /// None if there is nothing to compare with.
        expected: Option<Expected>,
    },
    /// Something worth knowing.
    Note {
        /// A sentence.
        text: String,
    },
    /// Something that went another way than hoped, without being a failure.
    Warning {
        /// A sentence.
        text: String,
    },
}

/// How long runs like this one took before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Expected {
    /// How many runs this is known from.
    pub runs: usize,
    /// The whole, without steps that are not named below (a bundle that had to be built).
    pub total: Seconds,
    /// Each step, by its title.
    pub steps: BTreeMap<String, Seconds>,
}

/// What [`Event::Progress`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes, drawn as MiB.
    Bytes,
    /// Things, drawn as they are.
    Items,
}

/// A duration in seconds with millisecond precision, as JSON shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Seconds(pub f64);

impl From<Duration> for Seconds {
    fn from(d: Duration) -> Self {
        Seconds((d.as_secs_f64() * 1000.0).round() / 1000.0)
    }
}

/// The sending end, held by work.
#[derive(Clone)]
pub struct Report {
    inner: Arc<Inner>,
}

struct Inner {
    sender: mpsc::UnboundedSender<Event>,
    next: AtomicU64,
    start: Instant,
    /// What [`Report::note_once`] said.
    said: Mutex<BTreeSet<String>>,
}

impl Report {
    /// A report and the end that a display reads. The display ends when the last clone of the report is dropped.
    pub fn channel() -> (Report, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Report { inner: Arc::new(Inner { sender, next: AtomicU64::new(1), start: Instant::now(), said: Mutex::default() }) },
            receiver,
        )
    }

    /// A report nobody reads, for tests and for quiet commands.
    pub fn silent() -> Report {
        Report::channel().0
    }

    fn send(&self, event: Event) {
        // A display that has ended is no reason for work to stop.
        let _ = self.inner.sender.send(event);
    }

    /// Opens a top-level span.
    pub fn step(&self, title: impl Into<String>) -> Span {
        self.step_of(title, "machine")
    }

    /// Opens a top-level span whose parts are not machines: `of` says what they are, in the singular ("component").
    pub fn step_of(&self, title: impl Into<String>, of: &'static str) -> Span {
        self.open(None, title.into(), of, None)
    }

    /// Says something worth knowing.
    pub fn note(&self, text: impl Into<String>) {
        self.send(Event::Note { text: text.into() });
    }

    /// As [`Report::note`], but not again what was said by this before.
    pub fn note_once(&self, text: &str) {
        let new = self.inner.said.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned());
        if new {
            self.note(text);
        }
    }

    /// Says that something went another way than hoped.
    pub fn warn(&self, text: impl Into<String>) {
        self.send(Event::Warning { text: text.into() });
    }

    /// Says what all of this is for, and how long it took before, if that is known.
    pub fn run(&self, title: impl Into<String>, expected: Option<Expected>) {
        self.send(Event::Run { title: title.into(), expected });
    }

    /// When the run began: what all offsets count from.
    pub(crate) fn start(&self) -> Instant {
        self.inner.start
    }

    fn at(&self, now: Instant) -> Seconds {
        now.duration_since(self.inner.start).into()
    }

    fn open(&self, parent: Option<SpanId>, title: String, of: &'static str, released_by: Option<SpanId>) -> Span {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        self.send(Event::Started { id, parent, title, of, released_by, at: self.at(begun) });
        Span { report: self.clone(), id, begun, ended: false, wait: Mutex::default() }
    }
}

/// Work under way: a step, or one machine's part of it.
pub struct Span {
    report: Report,
    id: SpanId,
    begun: Instant,
    ended: bool,
    /// What was last said to be waited for: those who poll say it again and again.
    wait: Mutex<String>,
}

impl Span {
    /// Opens a span below this one.
    pub fn child(&self, title: impl Into<String>) -> Span {
        self.child_after(title, None)
    }

    /// As [`Span::child`], saying whose end let it begin.
    pub fn child_after(&self, title: impl Into<String>, released_by: Option<SpanId>) -> Span {
        self.report.open(Some(self.id), title.into(), "part", released_by)
    }

    /// Identifies this span, also after its end: for [`Span::child_after`].
    pub fn id(&self) -> SpanId {
        self.id
    }

    /// Names the condition that is being waited for: `the Node to be registered`. What was seen last follows in parentheses, `(last: …)`.
    pub fn waiting(&self, on: impl Into<String>) {
        let on = on.into();
        let mut said = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != on {
            said.clone_from(&on);
            self.report.send(Event::Waiting { id: self.id, on, at: self.report.at(Instant::now()) });
        }
    }

    /// Says how far this is.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.report.send(Event::Progress { id: self.id, done, total, unit });
    }

    /// The report this span belongs to.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Ends well.
    pub fn done(self) {
        self.end(None);
    }

    /// Ends well, with a word about what came of it.
    pub fn done_with(self, result: impl Into<String>) {
        self.end(Some(result.into()));
    }

    fn end(mut self, result: Option<String>) {
        self.ended = true;
        let now = Instant::now();
        self.report.send(Event::Done {
            id: self.id,
            result,
            took: now.duration_since(self.begun).into(),
            at: self.report.at(now),
        });
    }

    /// Ends badly.
    pub fn fail(mut self, error: &crate::error::Error) {
        self.ended = true;
        let now = Instant::now();
        let took = now.duration_since(self.begun).into();
        self.report.send(Event::Failed { id: self.id, error: error.what.clone(), took, at: self.report.at(now) });
    }

    /// Ends by the outcome of the work: done, or failed with the error's first sentence. Returns the outcome unchanged.
    pub fn close<T>(self, outcome: crate::error::Result<T>) -> crate::error::Result<T> {
        match &outcome {
            Ok(_) => self.done(),
            Err(e) => self.fail(e),
        }
        outcome
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.ended {
            self.report.send(Event::Cancelled { id: self.id, at: self.report.at(Instant::now()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_was_said_is_not_said_again() {
        let (report, mut events) = Report::channel();
        let again = report.clone();
        report.note_once("using a file");
        again.note_once("using a file");
        again.note_once("something else");
        let mut said = Vec::new();
        while let Ok(Event::Note { text }) = events.try_recv() {
            said.push(text);
        }
        assert_eq!(said, ["using a file", "something else"]);
    }
}
