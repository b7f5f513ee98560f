//! Starting systemd units on a machine, and finding out why one doesn't.

use std::time::Duration;

use super::context::{Context, Host, Turn};
use super::diagnose::Look;
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::machine::ssh::last_lines;
use crate::templates;

/// How long units may take to start: longer than any unit's own `TimeoutStartSec`.
const START: Duration = Duration::from_secs(150);

/// What holds the cluster's data and who writes it: backed up before these are restarted.
const DATA: &[&str] = &["etcd.service", "kube-apiserver.service"];

/// Starts `units` in order, restarting those whose files changed. Says what it did.
///
/// # Errors
/// A unit that does not start is named with its machine, the cause as far as the machine knows it, and its own last words.
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
    if host.machine.role != Role::Master {
        let (_, word) = tell(context, host, "all", before, units).await?;
        return Ok((word, None));
    }
    // What does not run is nobody's support: it starts at once, and may be what another's restart needs.
    let (due, word) = tell(context, host, "start", before, units).await?;
    if !due {
        return Ok((word, None));
    }
    if units.iter().any(|unit| DATA.contains(unit)) {
        context.back_up().await;
    }
    let turn = if context.takes_turns(host) { Some(context.turn().await) } else { None };
    let (_, word) = tell(context, host, "restart", "", units).await?;
    Ok((word, turn))
}

/// Runs the script on the machine. Says whether restarts are due, and what was done.
async fn tell(context: &Context, host: &Host, mode: &str, before: &str, units: &[&str]) -> Result<(bool, String)> {
    let ssh = host.ssh()?;
    let what = || format!("{} did not start on {}", units.join(", "), host.machine.name);
    // The script goes in by standard input; unit names are constants of ours and need no quoting.
    let command = format!("sh -s -- {mode} {}", units.join(" "));
    let script = format!("{before}{}", templates::text("node/units.sh")?);
    let deadline = context.deadline(START);
    let told = async {
        let output = ssh.exec(&command, script, deadline).await.map_err(|e| e.within(what()))?;
        let text = output.text();
        let said = |key: &str| text.lines().rev().find_map(|l| l.strip_prefix(key).map(|rest| !rest.trim().is_empty()));
        match (said("due:"), said("changed:")) {
            (Some(due), Some(changed)) if output.status == 0 => Ok((due, changed)),
            _ => Err(Error::new(what()).why(last_lines(&output.stderr, 5))),
        }
    };
    let (due, changed) = Look::at(host, units).work(what, told).await?;
    if !changed {
        return Ok((due, "already running".into()));
    }
    host.mark_changed();
    Ok((due, "started".into()))
}
