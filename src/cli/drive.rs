//! Running a command from start to exit code: display, signals, the final error.

use std::env;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{Color, Global, Output, Ui};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt::{Interrupt, LIMIT};
use crate::report::display::{self, Display};
use crate::report::json;
use crate::report::plain::Detail;

/// How long tasks that can't be cancelled (a call of a C library) may go on after the command has ended.
const GRACE: Duration = Duration::from_secs(1);

/// How a command behaves towards the outside while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conduct {
    /// With `-o json`, standard output is a stream of events that ends with the outcome. For commands whose output is one document,
    /// progress goes to standard error as ever.
    pub stream: bool,
    /// What to type after an interruption, as a clause: "`kup up` resumes, `kup down` removes".
    pub interrupted: Option<&'static str>,
}

/// Facts about the surroundings that decide how output looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether standard output is a terminal.
    pub out_terminal: bool,
    /// Whether standard error is a terminal.
    pub err_terminal: bool,
    /// Whether `TERM` names a terminal that can move its cursor.
    pub cursor: bool,
    /// Whether `NO_COLOR` is set and not empty.
    pub no_color: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn look() -> Surroundings {
        Surroundings {
            out_terminal: stdout().is_terminal(),
            err_terminal: stderr().is_terminal(),
            cursor: env::var_os("TERM").is_some_and(|t| !t.is_empty() && t != "dumb"),
            no_color: env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()),
        }
    }

    /// Whether to colour a stream that is a terminal or not.
    pub fn colour(self, color: Color, terminal: bool) -> bool {
        match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && self.cursor && !self.no_color,
        }
    }

    /// The display for these flags.
    pub fn display(self, global: &Global, conduct: Conduct) -> display::Kind {
        if global.quiet {
            display::Kind::Plain(Detail::Quiet)
        } else if conduct.stream && global.output == Output::Json {
            display::Kind::Json
        } else if self.err_terminal && self.cursor {
            display::Kind::Terminal { colour: self.colour(global.color, true), verbose: global.verbose }
        } else {
            display::Kind::Plain(if global.verbose { Detail::Machines } else { Detail::Steps })
        }
    }
}

/// Runs a command's work to its exit code. The first SIGINT or SIGTERM drops the work, the second ends the process at once.
pub fn drive(global: &Global, conduct: Conduct, work: impl AsyncFnOnce(&Ui) -> Result<()>) -> ExitCode {
    let around = Surroundings::look();
    let stream = conduct.stream && global.output == Output::Json;
    let start = Instant::now();
    let outcome = run(global, conduct, around, start, work);
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if stream && let Ok(line) = json::outcome::<()>(Err(&error), SystemTime::now(), start.elapsed().as_secs_f64()) {
        // The exit code says it too, should nobody read.
        let _ = writeln!(stdout(), "{line}");
    }
    let text = if error.kind == Kind::Interrupted {
        error.to_string()
    } else {
        let word = console::style("error:").red().bold().force_styling(around.colour(global.color, around.err_terminal));
        format!("{word} {error}")
    };
    let _ = writeln!(stderr(), "{text}");
    ExitCode::from(error.kind.exit_code())
}

fn run(
    global: &Global,
    conduct: Conduct,
    around: Surroundings,
    start: Instant,
    work: impl AsyncFnOnce(&Ui) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let outcome = runtime.block_on(async {
        let interrupt = signals()?;
        let (display, report) = Display::start(around.display(global, conduct))?;
        let ui = Ui {
            report,
            json: global.output == Output::Json,
            colour: around.colour(global.color, around.out_terminal),
            output: display.output(),
            stream: conduct.stream && global.output == Output::Json,
            start,
            reader_gone: AtomicBool::new(false),
            unwritten: Mutex::new(None),
            at_end: Mutex::new(None),
            same: Mutex::default(),
            interrupt: Interrupt::default(),
        };
        let outcome = {
            let mut work = std::pin::pin!(work(&ui));
            tokio::select! {
                outcome = &mut work => outcome.and_then(|()| ui.written()),
                _ = interrupt => {
                    // What it could not put in order by then is left to whoever comes next.
                    let said = if ui.interrupt.stop() { tokio::time::timeout(LIMIT, work).await.ok() } else { None };
                    match said {
                        // It knows what stands.
                        Some(Err(error)) if error.kind == Kind::Interrupted && !error.hints.is_empty() => Err(error),
                        _ => Err(interrupted(conduct)),
                    }
                }
            }
        };
        let record = display.finish().await;
        let outcome = outcome.map_err(|error| ui.same().complete_error(error));
        let at_end = ui.at_end.lock().unwrap_or_else(PoisonError::into_inner).take();
        match at_end.map(|work| work(&record, outcome.is_ok())) {
            Some(Err(error)) if outcome.is_ok() => Err(error),
            // Why the command failed matters more than that this did too.
            Some(Err(error)) => outcome.map_err(|e| e.why(error.to_string())),
            _ => outcome,
        }
    });
    runtime.shutdown_timeout(GRACE);
    outcome
}

fn interrupted(conduct: Conduct) -> Error {
    let next = conduct.interrupted.map(|n| format!("; {n}")).unwrap_or_default();
    Error::new(format!("interrupted{next}")).kind(Kind::Interrupted)
}

/// Completes at the first SIGINT or SIGTERM; from then on another one ends the process, whatever hangs.
///
/// Listening is a task of its own, so that a command that blocks its thread can still be ended.
fn signals() -> Result<oneshot::Receiver<()>> {
    let on = |kind| signal(kind).context("cannot listen for signals");
    let (mut int, mut term) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let (first, seen) = oneshot::channel();
    tokio::spawn(async move {
        either(&mut int, &mut term).await;
        // The command may have ended at this very moment; then there is nothing to stop.
        let _ = first.send(());
        either(&mut int, &mut term).await;
        std::process::exit(Kind::Interrupted.exit_code().into());
    });
    Ok(seen)
}

async fn either(int: &mut Signal, term: &mut Signal) {
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
