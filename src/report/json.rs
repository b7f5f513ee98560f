//! The display for programs: with `-o json`, commands that change things write one JSON object per line to *standard output*, each
//! event as it happens and the outcome last. Standard error then carries nothing but the final error in words.
//!
//! Every object has `time` (RFC 3339, UTC, milliseconds), `elapsed` (seconds from the start of the run) and `event`: `started`,
//! `waiting`, `progress`, `done`, `failed`, `cancelled`, `run`, `note`, `warning` (fields as in [`Event`]), and as the last one either
//! `result` with the command's `result`, or `error` with `what`, `why`, `left`, `hints` and `exitCode`.

use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::display::Painter;
use super::event::{Event, Seconds};
use crate::error::{Context, Error, Result};

#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    elapsed: Seconds,
    #[serde(flatten)]
    what: &'a T,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Outcome<'a, T> {
    Result {
        result: &'a T,
    },
    #[serde(rename_all = "camelCase")]
    Error {
        what: &'a str,
        why: &'a [String],
        left: Option<&'a str>,
        hints: &'a [String],
        exit_code: u8,
    },
}

/// One event as a line, without its line end.
pub fn event(event: &Event, at: SystemTime, elapsed: f64) -> Result<String> {
    line(event, at, elapsed)
}

/// A command's outcome as the last line, without its line end.
pub fn outcome<T: Serialize>(outcome: Result<&T, &Error>, at: SystemTime, elapsed: f64) -> Result<String> {
    let what = match outcome {
        Ok(result) => Outcome::Result { result },
        Err(e) => {
            Outcome::Error { what: &e.what, why: &e.why, left: e.left.as_deref(), hints: &e.hints, exit_code: e.kind.exit_code() }
        }
    };
    line(&what, at, elapsed)
}

fn line<T: Serialize>(what: &T, at: SystemTime, elapsed: f64) -> Result<String> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from(at).format(format).context("cannot write the time")?;
    serde_json::to_string(&Line { time, elapsed: Seconds((elapsed * 1000.0).round() / 1000.0), what })
        .context("cannot write JSON")
}

/// Writes events to standard output.
#[derive(Debug, Default)]
pub struct Json {
    /// Set when nobody reads any more; the work goes on.
    closed: bool,
}

impl Painter for Json {
    fn event(&mut self, e: &Event, now: f64) {
        if self.closed {
            return;
        }
        // An event holds only what JSON can say; should that ever fail, the reader still gets a line.
        let text = event(e, SystemTime::now(), now)
            .unwrap_or_else(|e| serde_json::json!({ "event": "warning", "text": e.what }).to_string());
        let mut out = io::stdout().lock();
        self.closed = writeln!(out, "{text}").and_then(|()| out.flush()).is_err();
    }

    fn tick(&mut self, _now: f64) {}

    fn hold(&mut self, _held: bool, _now: f64) {}

    fn write(&mut self, out: &mut dyn Write, bytes: &[u8], _now: f64) -> io::Result<()> {
        out.write_all(bytes)?;
        out.flush()
    }

    fn finish(&mut self, _now: f64) {}
}
