//! Starting systemd units on a machine, and finding out why one doesn't.

use std::time::Duration;

use super::context::{Context, Host};
use super::diagnose::Look;
use crate::error::{Error, Result};
use crate::machine::ssh::last_lines;
use crate::templates;

/// How long units may take to start: longer than any unit's own `TimeoutStartSec`.
const START: Duration = Duration::from_secs(150);

/// Starts `units` in order, restarting those whose files changed. Says what it did.
///
/// # Errors
/// A unit that does not start is named with its machine, the cause as far as the machine knows it, and its own last words.
pub async fn start(context: &Context, host: &Host, units: &[&str]) -> Result<String> {
    let ssh = host.ssh()?;
    let what = || format!("{} did not start on {}", units.join(", "), host.machine.name);
    // The script goes in by standard input; unit names are constants of ours and need no quoting.
    let command = format!("sh -s -- {}", units.join(" "));
    let deadline = context.deadline(START);
    let told = async {
        let output = ssh.exec(&command, templates::text("node/units.sh")?, deadline).await.map_err(|e| e.within(what()))?;
        let text = output.text();
        match text.lines().rev().find_map(|l| l.strip_prefix("changed:")) {
            Some(changed) if output.status == 0 => Ok(changed.trim().to_owned()),
            _ => Err(Error::new(what()).why(last_lines(&output.stderr, 5))),
        }
    };
    let changed = Look::at(host, units).work(what, told).await?;
    if changed.is_empty() {
        return Ok("already running".into());
    }
    host.mark_changed();
    Ok("started".into())
}
