//! What a cluster's machines have to say: the journals of their units, merged by time, or everything in one archive.

pub mod archive;
mod objects;
mod scrub;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::{Error, Result};
use crate::provider::{Finder, FoundMachine};
use crate::standing::Standing;
use crate::status::units;

pub use scrub::Scrub;

/// How long it may take to read its journal.
const READ: Duration = Duration::from_secs(60);

/// How far back to look: a number and `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since(String);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        let number = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or_default();
        if (1..=6).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Since(text.to_owned()));
        }
        Err("write a number and s, m, h or d, like 90s, 30m, 2h or 7d".into())
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a systemd service, without `.service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitName(String);

impl FromStr for UnitName {
    type Err = String;

    fn from_str(text: &str) -> Result<UnitName, String> {
        let name = text.strip_suffix(".service").unwrap_or(text);
        // It becomes part of a command line: what systemd itself allows, without what a shell or journalctl's patterns understand.
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.@:".contains(&b);
        if !name.is_empty() && name.len() < 256 && !name.starts_with('-') && name.bytes().all(good) {
            return Ok(UnitName(name.to_owned()));
        }
        Err("that is no unit's name; write it like kubelet or kubelet.service".into())
    }
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Microseconds since 1970.
    pub at: i64,
    /// The machine's full name.
    pub machine: String,
    /// The unit, without `.service`.
    pub unit: String,
    /// What it said; may have several lines.
    pub message: String,
}

impl Line {
    /// When it was said, as RFC 3339 in UTC with milliseconds.
    pub fn time(&self) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at) * 1000);
        at.ok().and_then(|at| at.format(&format).ok()).unwrap_or_else(|| self.at.to_string())
    }
}

/// The journals of some machines, merged by time, and why some could not be read.
pub struct Journals {
    /// All lines, oldest first.
    pub lines: Vec<Line>,
    /// Machines that could not be asked, with the reason and what their consoles say.
    pub silent: Vec<(String, String)>,
}

/// Reads the journals of these machines, all at once: of the named units, or of all that kup starts there.
pub async fn journals(
    standing: &Standing,
    provider: &impl Finder,
    machines: &[&FoundMachine],
    named: &[UnitName],
    since: &Since,
) -> Journals {
    let asked = machines.iter().map(|found| async {
        let name = found.machine.name.clone();
        match journal(standing, found, named, since).await {
            Ok(lines) => Ok(lines),
            Err(e) => Err((name, silence(standing, provider, found, &e).await)),
        }
    });
    let mut all = Journals { lines: Vec::new(), silent: Vec::new() };
    for outcome in futures::future::join_all(asked).await {
        match outcome {
            Ok(lines) => all.lines.extend(lines),
            Err(silent) => all.silent.push(silent),
        }
    }
    // Stable: what one machine said at the same microsecond stays in its order.
    all.lines.sort_by_key(|l| l.at);
    all
}

/// Why a machine can't be asked, and what its console says.
async fn silence(standing: &Standing, provider: &impl Finder, found: &FoundMachine, error: &Error) -> String {
    let console = match provider.console(&standing.id.name, &found.machine.name).await {
        Ok(console) => console,
        Err(e) => format!("its console can't be read: {e}"),
    };
    format!("{error}\n{console}")
}

async fn journal(standing: &Standing, found: &FoundMachine, named: &[UnitName], since: &Since) -> Result<Vec<Line>> {
    let ssh = standing.connect(found).await?;
    let mut command = format!("journalctl -q --no-pager -o json --output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT --since=-{since}");
    let named = named.iter().map(|u| u.0.as_str());
    let wanted: Vec<&str> =
        if named.len() == 0 { units(found.machine.role, found.machine.cloud.is_some()).collect() } else { named.collect() };
    for unit in wanted {
        // Names were checked or are ours: nothing in them needs quoting.
        command.push_str(&format!(" -u {unit}.service"));
    }
    let output = ssh.run(&command, "", READ).await?;
    Ok(output.text().lines().filter_map(|line| entry(&found.machine.name, line)).collect())
}

/// One line of `journalctl -o json`.
fn entry(machine: &str, line: &str) -> Option<Line> {
    let entry: Value = serde_json::from_str(line).ok()?;
    // What systemd says of a unit carries its name in UNIT; what the unit says itself, in _SYSTEMD_UNIT.
    let unit = entry.get("UNIT").or_else(|| entry.get("_SYSTEMD_UNIT")).and_then(Value::as_str).unwrap_or("?");
    let message = match entry.get("MESSAGE")? {
        Value::String(text) => text.clone(),
        // What isn't UTF-8 comes as a list of bytes.
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return None,
    };
    Some(Line {
        at: entry.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok()?,
        machine: machine.to_owned(),
        unit: unit.strip_suffix(".service").unwrap_or(unit).to_owned(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_entries_are_read_whatever_they_are_made_of() {
        let of = |text: &str| entry("m", text).map(|l| (l.time(), l.unit, l.message));
        assert_eq!(
            of(
                r#"{"__REALTIME_TIMESTAMP":"1795226992123456","_SYSTEMD_UNIT":"init.scope","UNIT":"etcd.service","MESSAGE":"Started"}"#
            ),
            Some(("2026-11-21T02:09:52.123Z".into(), "etcd".into(), "Started".into()))
        );
        assert_eq!(
            of(r#"{"__REALTIME_TIMESTAMP":"0","_SYSTEMD_UNIT":"kubelet.service","MESSAGE":[104,105,255]}"#),
            Some(("1970-01-01T00:00:00.000Z".into(), "kubelet".into(), "hi\u{fffd}".into()))
        );
        assert_eq!(of(r#"{"__REALTIME_TIMESTAMP":"0","MESSAGE":null}"#), None);
        assert_eq!(of("not JSON"), None);
    }

    #[test]
    fn only_durations_and_names_reach_a_command_line() {
        for good in ["1s", "90m", "2h", "999999d"] {
            assert!(good.parse::<Since>().is_ok(), "{good}");
        }
        for bad in ["", "h", "1", "-1h", "1w", "1h;rm", "1 h", "9999999d", "١h", "today"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
        for good in ["kubelet", "kubelet.service", "user@0", "kup-host"] {
            assert!(good.parse::<UnitName>().is_ok(), "{good}");
        }
        for bad in ["", ".service", "-x", "a b", "a;b", "$(x)", "*", "é"] {
            assert!(bad.parse::<UnitName>().is_err(), "{bad}");
        }
    }
}
