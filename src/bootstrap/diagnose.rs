//! Finding out, from the machine itself, why something on it does not come up; and giving up a wait as soon as it is known to be vain.
//!
//! [`Look`] asks a machine once, over SSH, in bounded time; [`cause`] is what follows from its answer. A wait that goes well asks
//! nothing: the first look is taken when it has lasted longer than such waits do.

pub mod cause;
pub mod seen;

use std::time::{Duration, Instant};

use super::context::Host;
use crate::error::{Error, Result};
use crate::machine::ssh::Ssh;
use crate::machine::topology::{API_NAME, API_PORT};
use crate::templates;

pub use cause::Cause;
use seen::Seen;

/// When a wait is looked into for the first time: longer than any of them takes when all is well.
const FIRST: Duration = Duration::from_secs(5);
/// How often from then on.
const AGAIN: Duration = Duration::from_secs(4);
/// How long a cause that may pass by itself must have lasted to end a wait.
const LASTING: Duration = Duration::from_secs(20);
/// How long one look may take; the script's slowest part ends after 5 s.
const LOOK: Duration = Duration::from_secs(15);
/// Lines of a unit's journal that an error shows.
const LINES: usize = 12;

/// How to look at one machine.
pub struct Look<'a> {
    host: &'a Host,
    units: Vec<&'a str>,
    api: bool,
    begun: Instant,
}

/// What was seen, and what follows from it.
pub struct Diagnosis {
    /// The machine.
    pub machine: String,
    seen: Seen,
    /// The cause, if one was found.
    pub cause: Option<Cause>,
}

impl<'a> Look<'a> {
    /// At these units of a machine. What they say counts from now on.
    pub fn at(host: &'a Host, units: &[&'a str]) -> Look<'a> {
        Look { host, units: units.to_vec(), api: false, begun: Instant::now() }
    }

    /// Also asks whether the machine reaches the cluster's API, where it should.
    #[must_use]
    pub fn with_api(mut self) -> Look<'a> {
        self.api = true;
        self
    }

    /// Waits for `work`; meanwhile looks at the machine now and then, and ends early if `work` can't come to a good end.
    ///
    /// # Errors
    /// The diagnosis that ended the wait. `work` is dropped then.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, Diagnosis> {
        tokio::select! {
            biased;
            outcome = work => Ok(outcome),
            diagnosis = self.hopeless() => Err(diagnosis),
        }
    }

    /// Ends when there is no hope any more, if ever.
    pub async fn hopeless(&self) -> Diagnosis {
        tokio::time::sleep(FIRST).await;
        let mut first: Option<Seen> = None;
        // Since when the same doubtful cause has been seen.
        let mut doubt: Option<(std::mem::Discriminant<Cause>, Instant)> = None;
        loop {
            let (seen, cause) = match self.ask().await {
                Ok(seen) => {
                    let cause = cause::judge(&seen, first.as_ref(), false);
                    (seen, cause)
                }
                Err(e) => (Seen::default(), Some(Cause::Silent { said: last_word(&e) })),
            };
            if let Some(cause) = &cause {
                let kind = std::mem::discriminant(cause);
                let since = doubt.filter(|(before, _)| *before == kind).map_or_else(Instant::now, |(_, since)| since);
                doubt = Some((kind, since));
                if cause.is_certain() || since.elapsed() >= LASTING {
                    return self.diagnosis(seen, Some(cause.clone()));
                }
            } else {
                doubt = None;
            }
            if seen.now.is_some() {
                first.get_or_insert(seen);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn diagnosis(&self, seen: Seen, cause: Option<Cause>) -> Diagnosis {
        Diagnosis { machine: self.host.machine.name.clone(), seen, cause }
    }

    async fn ask(&self) -> Result<Seen> {
        let since = self.begun.elapsed().as_secs() + 2;
        let api = if self.api { "api" } else { "-" };
        // The script goes in by standard input; unit names are constants of ours and need no quoting.
        let command = format!("sh -s -- {since} {api} {}", self.units.join(" "));
        let script = templates::render("node/diagnose.sh", minijinja::context! { api_name => API_NAME, api_port => API_PORT })?;
        Seen::parse(&self.host.ssh()?.run(&command, script, LOOK).await?.text())
    }

    /// The error, with what the machine says about it: the cause first, if there is one, then the units' states and last words.
    /// A machine that can't be asked adds that instead.
    pub async fn explain(&self, error: Error) -> Error {
        match self.ask().await {
            Ok(seen) => {
                let cause = cause::judge(&seen, None, true);
                self.diagnosis(seen, cause).explain(error)
            }
            Err(e) => {
                let cause = Cause::Silent { said: last_word(&e) };
                self.diagnosis(Seen::default(), Some(cause)).explain(error)
            }
        }
    }

    /// As [`Look::during`] with work that can fail: ended early or failed, `what` says what did not come about and the machine says why.
    pub async fn work<T>(&self, what: impl FnOnce() -> String, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.during(work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(error).await),
            Err(diagnosis) => Err(diagnosis.explain(Error::new(what()))),
        }
    }
}

impl Diagnosis {
    /// The error with what was found out.
    pub fn explain(self, error: Error) -> Error {
        let Diagnosis { machine, seen, cause } = self;
        let mut error = match &cause {
            Some(cause) => error.why(cause.sentence(&machine)),
            None => error,
        };
        // The words of a unit that crashed are in its sentence.
        let told = match &cause {
            Some(Cause::Crashed { unit, .. }) => Some(unit),
            _ => None,
        };
        // With a cause only what is not well is of interest; without one everything is.
        for (name, unit) in seen.units.iter().filter(|(name, u)| Some(*name) != told && (cause.is_none() || u.active != "active"))
        {
            error = error
                .why(format!("{name} on {machine} is {} ({}), started again {} times", unit.active, unit.sub, unit.restarts));
            if let Some(lines) = seen.journals.get(name) {
                let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
                error = error.why(format!("its journal ends with:\n{}", last.join("\n")));
            }
        }
        match &cause {
            Some(cause) => error.hint(cause.hint(&machine)),
            None => {
                let units: Vec<&str> = seen.units.keys().map(String::as_str).collect();
                error.hint(format!(
                    "`kup ssh {machine} -- journalctl -e -u {}` shows more; `kup up` tries again",
                    units.join(" -u ")
                ))
            }
        }
    }
}

fn last_word(error: &Error) -> String {
    error.why.last().unwrap_or(&error.what).clone()
}

/// An error about a command that a machine could not carry out: if its words name a full disk, that is said with the machine's name.
pub async fn of_command(error: Error, ssh: &Ssh) -> Error {
    let said = |e: &Error| e.why.iter().any(|w| w.to_lowercase().contains("no space left on device"));
    if !said(&error) {
        return error;
    }
    let machine = ssh.machine().name.clone();
    let full = match ssh.run("df -Pk / /var /etc/kup /opt/kup /run 2>/dev/null | sed 1d", "", LOOK).await {
        Ok(output) => fullest(&output.text()),
        Err(_) => None,
    };
    let cause = full.unwrap_or(Cause::DiskFull { mount: None, said: "it could not write what it was sent".into() });
    // The cause comes first, the words that led to it follow.
    let mut why = vec![cause.sentence(&machine)];
    why.extend(error.why.clone());
    Error { why, ..error }.hint(cause.hint(&machine))
}

/// The file system with the least left, of `df -Pk`'s lines.
fn fullest(text: &str) -> Option<Cause> {
    let disks = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, size, _, free, _, mount, ..] = words[..] else { return None };
        Some(seen::Disk { mount: mount.to_owned(), size: size.parse().ok()?, free: free.parse().ok()? })
    });
    let disk = disks.min_by_key(|d| d.free)?;
    Some(Cause::DiskFull { mount: Some(disk.mount), said: format!("{} KiB left of {} KiB", disk.free, disk.size) })
}
