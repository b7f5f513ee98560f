//! What a command may do towards the person or program that called it: report progress, print data, ask.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::same::{Same, typed};
use crate::error::{Context, Error, Result};
use crate::interrupt::Interrupt;
use crate::report::display::{Output, Record, Stream};
use crate::report::{Report, json};

/// A command's way to the outside.
pub struct Ui {
    /// Progress goes here.
    pub report: Report,
    /// Whether results are to be JSON: see [`Ui::result`].
    pub json: bool,
    /// Whether text on standard output may be coloured.
    pub colour: bool,
    pub(super) output: Output,
    pub(super) stream: bool,
    pub(super) start: std::time::Instant,
    pub(super) reader_gone: AtomicBool,
    pub(super) unwritten: Mutex<Option<io::Error>>,
    pub(super) at_end: Mutex<Option<AtEnd>>,
    pub(super) same: Mutex<Same>,
    /// What is to be done if the user stops the work.
    pub interrupt: Interrupt,
}

/// What is to be done with all that was reported, and whether the command ended well.
pub(super) type AtEnd = Box<dyn FnOnce(&Record, bool) -> Result<()> + Send>;

impl Ui {
    /// Writes text and a line end to standard output, after all progress that was reported before.
    ///
    /// Printing does not interrupt the work, which matters more than its description: a reader that closed the pipe is no error (a
    /// command whose work is to print without end asks [`Ui::reader_gone`]), and a full disk makes the command fail at its end.
    pub fn print(&self, text: impl Display) {
        self.write(Stream::Out, format!("{text}\n").into_bytes());
    }

    /// Prints a command's result as JSON: indented, or as the last line of the stream for commands that write their events there.
    pub fn result(&self, value: &impl Serialize) -> Result<()> {
        let text = if self.stream {
            json::outcome(Ok(value), SystemTime::now(), self.start.elapsed().as_secs_f64())?
        } else {
            serde_json::to_string_pretty(value).context("cannot write the result as JSON")?
        };
        self.print(text);
        Ok(())
    }

    /// Writes bytes as they are to standard output: a kubeconfig, an archive, another program's output.
    pub fn write_raw(&self, bytes: impl Into<Vec<u8>>) {
        self.write(Stream::Out, bytes.into());
    }

    /// Says which cluster this command is about: commands that it tells to type are about the same.
    pub fn means(&self, same: Same) {
        *self.same.lock().unwrap_or_else(PoisonError::into_inner) = same;
    }

    /// By which flags other commands mean the same cluster.
    pub fn same(&self) -> Same {
        self.same.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How wide standard output is, if it is a terminal.
    pub fn columns(&self) -> Option<usize> {
        console::Term::stdout().size_checked().map(|(_, columns)| columns.into())
    }

    /// All that was reported so far.
    pub fn record(&self) -> Result<Record> {
        self.output.record().context("the display has ended")
    }

    /// Hands all that was reported to `work` when the command has ended, however it did; also by a signal. If `work` fails, a command
    /// that ended well ends with that error.
    pub fn at_end(&self, work: impl FnOnce(&Record, bool) -> Result<()> + Send + 'static) {
        *self.at_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(work));
    }

    /// Whether standard output was found closed.
    pub fn reader_gone(&self) -> bool {
        self.reader_gone.load(Ordering::Relaxed)
    }

    /// Asks a yes-or-no question on the terminal; anything but yes is no. `yes` is the command's `-y`, which answers it.
    ///
    /// # Errors
    /// A usage error that names `-y` if there is no terminal to ask on.
    pub async fn confirm(&self, question: impl Display, yes: bool) -> Result<bool> {
        if yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Error::usage(format!("this needs a yes, and there is no terminal to ask on: {question}"))
                .hint(format!("add -y to say yes: `{} -y`", typed())));
        }
        let _held = self.hold()?;
        self.write(Stream::Err, format!("{question} [y/N] ").into_bytes());
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let answer = answer.await.context("the question was given up")?.context("cannot read the answer")?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Keeps the display off the terminal until the guard is dropped: for a child process that uses the terminal itself.
    pub fn hold(&self) -> Result<Held> {
        self.output.hold(true).context("cannot take the terminal")?;
        Ok(Held { output: self.output.clone() })
    }

    fn write(&self, stream: Stream, bytes: Vec<u8>) {
        let Err(e) = self.output.write(stream, bytes) else { return };
        if e.kind() == io::ErrorKind::BrokenPipe {
            self.reader_gone.store(true, Ordering::Relaxed);
        } else if let Ok(mut first) = self.unwritten.lock() {
            first.get_or_insert(e);
        }
    }

    /// The first error that [`Ui::print`] met, if any.
    pub(super) fn written(&self) -> Result<()> {
        let first = self.unwritten.lock().ok().and_then(|mut e| e.take());
        first.map_or(Ok(()), Err).context("not all of the output could be written")
    }
}

/// The terminal is ours, not the display's, until this is dropped.
pub struct Held {
    output: Output,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fails only if the display has ended, and then there is nothing to give back.
        let _ = self.output.hold(false);
    }
}
