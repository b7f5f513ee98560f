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

use crate::cluster::problem::{did_you_mean, quoted};
use crate::error::{Error, Result};
use crate::provider::{Finder, FoundMachine};
use crate::standing::Standing;
use crate::status::{UNITS, units};

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

/// How much is told of each machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Nothing older than this.
    pub since: Option<Since>,
    /// The last lines, as many at most.
    pub tail: Option<u32>,
}

/// How many lines of each machine are told if nothing is said: `kubectl logs` tells 10 of each pod that a selector names.
const TAIL: u32 = 50;

impl Extent {
    /// As it was asked for: whoever says since when wants all since then, and whoever says nothing wants a screen or two.
    pub fn of(since: Option<Since>, tail: Option<Tail>) -> Extent {
        let tail = match tail {
            Some(Tail(lines)) => lines,
            None if since.is_some() => None,
            None => Some(TAIL),
        };
        Extent { since, tail }
    }

    /// As journalctl takes it.
    fn flags(&self) -> String {
        let since = self.since.as_ref().map(|since| format!(" --since=-{since}")).unwrap_or_default();
        self.tail.map_or(since.clone(), |lines| format!("{since} --lines={lines}"))
    }
}

/// How many lines are told of each machine: a number, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail(Option<u32>);

impl FromStr for Tail {
    type Err = String;

    fn from_str(text: &str) -> Result<Tail, String> {
        match text.parse() {
            _ if text == "all" => Ok(Tail(None)),
            Ok(lines @ 1..=1_000_000) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Tail(Some(lines))),
            _ => Err("write a number of lines, like 200, or all".into()),
        }
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

/// Shown as a user writes it.
impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The journals of some machines, merged by time, and why some could not be read.
pub struct Journals {
    /// All lines, oldest first.
    pub lines: Vec<Line>,
    /// Machines that could not be asked, with the reason and what their consoles say.
    pub silent: Vec<(String, String)>,
    /// Units that were named, and that no machine has or ever had.
    pub unknown: Vec<UnitName>,
    /// Whether a machine had more to say than was asked for.
    pub cut: bool,
}

impl Journals {
    /// That units were named which there are not, if so: with those there are, of machines of these roles.
    ///
    /// # Errors
    /// That, of kind usage.
    pub fn known(&self, machines: &[&FoundMachine]) -> Result<()> {
        let Some(unit) = self.unknown.first() else { return Ok(()) };
        let has =
            |name: &&str| machines.iter().any(|m| units(m.machine.role, m.machine.cloud.is_some()).any(|unit| unit == *name));
        let there: Vec<&str> = UNITS.iter().map(|(name, ..)| *name).filter(has).collect();
        let error = Error::usage(format!("no machine has a unit {}", quoted(&unit.0)))
            .why(format!("kup's own are {}; any other of systemd's services can be named too", there.join(", ")));
        Err(match did_you_mean(&unit.0, there) {
            Some(meant) => error.hint(format!("did you mean {meant}?")),
            None => error,
        })
    }
}

/// Reads the journals of these machines, all at once: of the named units, or of all that kup starts there.
pub async fn journals(
    standing: &Standing,
    provider: &impl Finder,
    machines: &[&FoundMachine],
    named: &[UnitName],
    extent: &Extent,
) -> Journals {
    let asked = machines.iter().map(|found| async {
        let name = found.machine.name.clone();
        match journal(standing, found, named, extent).await {
            Ok(said) => Ok(said),
            Err(e) => Err((name, silence(standing, provider, found, &e).await)),
        }
    });
    let mut all = Journals { lines: Vec::new(), silent: Vec::new(), unknown: named.to_vec(), cut: false };
    for outcome in futures::future::join_all(asked).await {
        match outcome {
            Ok((lines, known)) => {
                all.cut |= extent.tail.is_some_and(|tail| lines.len() >= tail as usize);
                all.unknown.retain(|unit| !known.contains(&unit.0) && lines.iter().all(|line| line.unit != unit.0));
                all.lines.extend(lines);
            }
            Err(silent) => all.silent.push(silent),
        }
    }
    // Who could not be asked may have it.
    if !all.silent.is_empty() {
        all.unknown.clear();
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

/// What a machine has to say, and which of the named units it has.
async fn journal(
    standing: &Standing,
    found: &FoundMachine,
    named: &[UnitName],
    extent: &Extent,
) -> Result<(Vec<Line>, Vec<String>)> {
    let ssh = standing.connect(found).await?;
    let own = || units(found.machine.role, found.machine.cloud.is_some()).collect();
    let wanted: Vec<&str> = if named.is_empty() { own() } else { named.iter().map(|unit| unit.0.as_str()).collect() };
    let output = ssh.run(&command(&wanted, extent, !named.is_empty()), "", READ).await?;
    let text = output.text();
    Ok((text.lines().filter_map(|line| entry(&found.machine.name, line)).collect(), loaded(&text)))
}

/// Asks for the journals of these units; if they were `named`, first which of them there are.
fn command(units: &[&str], extent: &Extent, named: bool) -> String {
    // Names were checked or are ours: nothing in them needs quoting.
    let all = |before: &str| units.iter().map(|unit| format!(" {before}{unit}.service")).collect::<String>();
    let known = if named { format!("systemctl show -p Id -p LoadState{}; ", all("")) } else { String::new() };
    let fields = "--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT";
    format!("{known}journalctl -q --no-pager -o json {fields}{}{}", extent.flags(), all("-u "))
}

/// The units of what `systemctl show` tells that there are, by all their names. A block of properties ends with an empty line.
fn loaded(text: &str) -> Vec<String> {
    let blocks = text.split("\n\n").filter(|block| !block.lines().any(|line| line == "LoadState=not-found"));
    let ids = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("Id="));
    ids.map(|id| id.strip_suffix(".service").unwrap_or(id).to_owned()).collect()
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
    use crate::machine::{BundleAccess, Machine, Role};

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
    fn the_last_lines_are_told_unless_more_is_asked_for() {
        let flags = |since: Option<&str>, tail: Option<&str>| {
            let (since, tail) = (since.map(|s| s.parse().unwrap()), tail.map(|t| t.parse().unwrap()));
            command(&["etcd", "x@1"], &Extent::of(since, tail), false)
        };
        let begin = "journalctl -q --no-pager -o json --output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT";
        for (said, asked) in [
            (flags(None, None), " --lines=50"),
            (flags(Some("2h"), None), " --since=-2h"),
            (flags(None, Some("7")), " --lines=7"),
            (flags(Some("2h"), Some("7")), " --since=-2h --lines=7"),
            (flags(None, Some("all")), ""),
        ] {
            assert_eq!(said, format!("{begin}{asked} -u etcd.service -u x@1.service"));
        }
        for bad in ["", "0", "-1", "+1", "1000001", "ten", "1;x", "ALL"] {
            assert!(bad.parse::<Tail>().is_err(), "{bad}");
        }
    }

    #[test]
    fn units_that_there_are_not_are_named_with_those_there_are() {
        // As systemd 252 tells of two units; what comes next are journals.
        let text = "Id=kubelet.service\nLoadState=loaded\n\nId=kublet.service\nLoadState=not-found\n{\"MESSAGE\":\"x\"}\n";
        assert_eq!(loaded(text), ["kubelet"]);
        let (lines, silent, unknown) = (Vec::new(), Vec::new(), vec!["kublet".parse().unwrap()]);
        let machine = Machine {
            name: "c-minion-1".into(),
            role: Role::Minion,
            address: [172, 29, 0, 101].into(),
            ssh_port: 22,
            user: "root".into(),
            host_key: String::new(),
            bundle: BundleAccess::Mounted,
            cloud: None,
        };
        let machine = FoundMachine { machine, running: true };
        let journals = Journals { lines, silent, unknown, cut: false };
        insta::assert_snapshot!(journals.known(&[&machine]).unwrap_err().to_string(), @"
        no machine has a unit `kublet`
          because: kup's own are kup-hosts, kup-host, containerd, kubelet, flanneld, kube-proxy; any other of systemd's services can be named too
          next: did you mean kubelet?
        ");
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
