//! Starting systemd units on a machine, and finding out why one doesn't.

use std::time::Duration;

use super::context::{Context, Host, Turn};
use crate::error::{Error, Result};
use crate::machine::ssh::{Ssh, last_lines};
use crate::templates;

/// How long units may take to start: longer than any unit's own `TimeoutStartSec`.
const START: Duration = Duration::from_secs(150);
/// Lines of a unit's journal that an error shows.
const LINES: usize = 15;

/// Starts `units` in order, restarting those whose files changed. Says what it did.
///
/// # Errors
/// A unit that does not start is named with the last lines of its own journal.
pub async fn start(context: &Context, host: &Host, units: &[&str]) -> Result<String> {
    start_after(context, host, "", units).await
}

/// As [`start`], after the shell commands `before`, in the same round trip.
pub async fn start_after(context: &Context, host: &Host, before: &str, units: &[&str]) -> Result<String> {
    begin(context, host, before, units).await.map(|(word, _)| word)
}

/// As [`start`]; of several masters only one at a time restarts units, and keeps its turn until the caller has seen them work.
pub async fn start_holding(context: &Context, host: &Host, units: &[&str]) -> Result<(String, Option<Turn>)> {
    begin(context, host, "", units).await
}

async fn begin(context: &Context, host: &Host, before: &str, units: &[&str]) -> Result<(String, Option<Turn>)> {
    if !context.takes_turns(host) {
        let (_, word) = tell(host, "all", before, units).await?;
        return Ok((word, None));
    }
    // What does not run is nobody's support: it starts at once, and may be what another's restart needs.
    let (due, word) = tell(host, "start", before, units).await?;
    if !due {
        return Ok((word, None));
    }
    let turn = context.turn().await;
    let (_, word) = tell(host, "restart", "", units).await?;
    Ok((word, Some(turn)))
}

/// Runs the script on the machine. Says whether restarts are due, and what was done.
async fn tell(host: &Host, what: &str, before: &str, units: &[&str]) -> Result<(bool, String)> {
    let ssh = host.ssh()?;
    // The script goes in by standard input; unit names are constants of ours and need no quoting.
    let command = format!("sh -s -- {what} {}", units.join(" "));
    let script = format!("{before}{}", templates::text("node/units.sh")?);
    let output = ssh.exec(&command, script, START).await?;
    let text = output.text();
    let said = |key: &str| text.lines().rev().find_map(|l| l.strip_prefix(key).map(|rest| !rest.trim().is_empty()));
    if output.status == 0
        && let (Some(due), Some(changed)) = (said("due:"), said("changed:"))
    {
        if !changed {
            return Ok((due, "already running".into()));
        }
        host.mark_changed();
        return Ok((due, "started".into()));
    }
    let mut error =
        Error::new(format!("{} did not start on {}", units.join(", "), host.machine.name)).why(last_lines(&output.stderr, 5));
    for unit in units {
        if !is_active(ssh, unit).await {
            error = with_journal(error, ssh, unit).await;
        }
    }
    Err(error.hint(format!(
        "kup ssh {} -- journalctl -u {} shows more; kup up tries again",
        host.machine.name,
        units.join(" -u ")
    )))
}

async fn is_active(ssh: &Ssh, unit: &str) -> bool {
    ssh.exec(&format!("systemctl -q is-active {unit}"), "", Duration::from_secs(10)).await.is_ok_and(|o| o.status == 0)
}

/// Adds a unit's state and the last lines of its journal to an error. A machine that can't be asked adds that instead.
pub async fn with_journal(error: Error, ssh: &Ssh, unit: &str) -> Error {
    let command = format!(
        "systemctl show -p ActiveState -p SubState -p Result -p NRestarts --value {unit} | paste -sd ' '; journalctl -q -u {unit} -n {LINES} --no-pager -o cat"
    );
    match ssh.exec(&command, "", Duration::from_secs(15)).await {
        Ok(output) => {
            let text = output.text();
            let (state, journal) = text.split_once('\n').unwrap_or((&text, ""));
            let error = error.why(format!("{unit} on {} is {}", ssh.machine().name, state.trim()));
            if journal.trim().is_empty() { error } else { error.why(format!("its journal ends with:\n{}", journal.trim_end())) }
        }
        Err(e) => error.why(format!("{} can't be asked for the journal of {unit}: {}", ssh.machine().name, e.what)),
    }
}
