//! What a machine says of itself when something on it does not come up: units, journals, disks, certificates, listeners, the API. Pure.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::error::{Error, Result};

/// One look at a machine.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its own clock.
    pub now: Option<OffsetDateTime>,
    /// Its units as systemd has them, by name.
    pub units: BTreeMap<String, Unit>,
    /// The last lines of each unit's journal since the work began.
    pub journals: BTreeMap<String, Vec<String>>,
    /// Lines that name causes, by unit, also from before the last ones.
    pub telling: Vec<(String, String)>,
    /// Its file systems that can be written.
    pub disks: Vec<Disk>,
    /// Its certificates, PEM, by path.
    pub certificates: BTreeMap<String, String>,
    /// Who listens where: local address and port, and the process if it is known.
    pub listeners: Vec<(String, String)>,
    /// What came of asking the cluster's API, if that was asked.
    pub api: Option<Probe>,
}

/// A systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `active`, `activating`, `failed`, …
    pub active: String,
    /// `running`, `auto-restart`, …
    pub sub: String,
    /// How its last run ended: `exit-code`, `start-limit-hit`, …
    pub result: String,
    /// How often systemd started it again by itself.
    pub restarts: u64,
    /// The exit status of its last run.
    pub status: String,
    /// Seconds since it came up.
    pub up_seconds: Option<i64>,
}

/// A file system, in KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Its size.
    pub size: u64,
    /// What is free.
    pub free: u64,
}

/// An answer of the cluster's API to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// curl's exit code: 0 if there was an answer, 60 if the server's certificate is not trusted.
    pub exit: i32,
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    /// curl's own words, if it has any.
    pub words: String,
}

impl Seen {
    /// Reads what `node/diagnose.sh` wrote.
    pub fn parse(text: &str) -> Result<Seen> {
        let Some(text) = text.strip_suffix("end\n") else {
            return Err(Error::new("what the machine says of itself was cut off"));
        };
        let mut seen = Seen::default();
        let mut clock = None;
        let mut block: Vec<(&str, &str)> = Vec::new();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
            // The properties of a unit end with an empty line, and those of the last with the next kind of line.
            if kind != "unit" || rest.is_empty() {
                seen.units.extend(unit(&std::mem::take(&mut block), clock));
            }
            match kind {
                "now" => {
                    clock = rest.parse::<i64>().ok();
                    seen.now = clock.and_then(|c| OffsetDateTime::from_unix_timestamp(c).ok());
                }
                "unit" => block.extend(rest.split_once('=')),
                "journal" if !second.is_empty() => seen.journals.entry(first.to_owned()).or_default().push(second.to_owned()),
                "telling" if !second.is_empty() => seen.telling.push((first.to_owned(), second.to_owned())),
                "disk" => seen.disks.extend(disk(rest)),
                "cert" => {
                    let pem = seen.certificates.entry(first.to_owned()).or_default();
                    pem.push_str(second);
                    pem.push('\n');
                }
                "listen" => seen.listeners.push((first.to_owned(), second.to_owned())),
                "api" => seen.api = probe(first, second),
                _ => {}
            }
        }
        seen.units.extend(unit(&block, clock));
        Ok(seen)
    }
}

fn unit(properties: &[(&str, &str)], clock: Option<i64>) -> Option<(String, Unit)> {
    let get = |key: &str| properties.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()).unwrap_or_default();
    let since = get("ActiveEnterTimestamp").strip_prefix('@').and_then(|s| s.parse::<i64>().ok());
    let name = get("Id");
    (!name.is_empty()).then(|| {
        let unit = Unit {
            active: get("ActiveState"),
            sub: get("SubState"),
            result: get("Result"),
            restarts: get("NRestarts").parse().unwrap_or(0),
            status: get("ExecMainStatus"),
            up_seconds: clock.zip(since).map(|(now, since)| now.saturating_sub(since)),
        };
        (name, unit)
    })
}

fn disk(line: &str) -> Option<Disk> {
    let mut words = line.splitn(3, ' ');
    let (size, free) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Disk { mount: words.next()?.to_owned(), size, free })
}

/// curl writes the status last, right after whatever it had to say.
fn probe(exit: &str, said: &str) -> Option<Probe> {
    let said = said.trim();
    let at = said.len().saturating_sub(3);
    let (words, status) = if said.is_char_boundary(at) { said.split_at(at) } else { (said, "") };
    Some(Probe { exit: exit.parse().ok()?, status: status.parse().unwrap_or(0), words: words.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_understood_and_half_of_one_is_not() {
        let text = "now 1000\nunit Id=kubelet.service\nunit ActiveState=activating\nunit SubState=auto-restart\nunit NRestarts=4\n\
                    unit Result=exit-code\nunit ExecMainStatus=1\nunit ActiveEnterTimestamp=@990\nunit \nunit Id=flanneld.service\nunit ActiveState=inactive\n\
                    journal kubelet.service out of paper\njournal kubelet.service \ntelling kubelet.service x509: no\n\
                    disk 1000 0 /a mount\ncert /etc/kup/pki/a.crt -----BEGIN\ncert /etc/kup/pki/a.crt AAAA\n\
                    listen *:6443 users:((\"socat\",pid=12,fd=5))\napi 28 curl: (28) Connection timed out 000\nend\n";
        let seen = Seen::parse(text).unwrap();
        let kubelet = &seen.units["kubelet.service"];
        assert_eq!((kubelet.sub.as_str(), kubelet.restarts, kubelet.up_seconds), ("auto-restart", 4, Some(10)));
        assert_eq!(seen.units["flanneld.service"].active, "inactive");
        assert_eq!(seen.journals["kubelet.service"], ["out of paper"]);
        assert_eq!(seen.telling, [("kubelet.service".to_owned(), "x509: no".to_owned())]);
        assert_eq!(seen.disks, [Disk { mount: "/a mount".into(), size: 1000, free: 0 }]);
        assert_eq!(seen.certificates["/etc/kup/pki/a.crt"], "-----BEGIN\nAAAA\n");
        assert_eq!(seen.listeners, [("*:6443".to_owned(), "users:((\"socat\",pid=12,fd=5))".to_owned())]);
        assert_eq!(seen.api, Some(Probe { exit: 28, status: 0, words: "curl: (28) Connection timed out".into() }));
        assert!(Seen::parse(&text[..text.len() - 4]).is_err());
        assert_eq!(Seen::parse("api 0 401\nend\n").unwrap().api.map(|p| (p.exit, p.status)), Some((0, 401)));
    }
}
