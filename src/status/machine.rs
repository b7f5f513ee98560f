//! One machine: its units, what they say when asked, its disks and the dates of its certificates.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::certificates::{self, Certificate};
use super::etcd::{self, EtcdSaid};
use crate::bootstrap::On;
use crate::bootstrap::etcd::members::Members;
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::machine::ssh::{LoginKey, Ssh};
use crate::provider::FoundMachine;
use crate::templates;

/// How long a machine may take to let kup in. It runs already, so this is about a dead one.
const LOGIN: Duration = Duration::from_secs(6);
/// How long the script may take; its own slowest part ends after 4 s.
const SCRIPT: Duration = Duration::from_secs(12);
/// A unit that came up less than this many seconds ago, and not for the first time, is one that keeps failing.
const SETTLED: i64 = 15;

/// The units of a cluster in the order in which they need each other, where they belong, and whether only in a cloud.
pub const UNITS: &[(&str, On, bool)] = &[
    ("kup-hosts", On::Nodes, false),
    ("kup-host", On::Nodes, false),
    ("containerd", On::Nodes, false),
    ("etcd", On::Masters, false),
    ("kube-apiserver", On::Masters, false),
    ("kup-balancer", On::Balancers, false),
    ("kube-controller-manager", On::Masters, false),
    ("kube-scheduler", On::Masters, false),
    ("aws-cloud-controller-manager", On::Masters, true),
    ("node-approver", On::Masters, true),
    ("kubelet", On::Nodes, false),
    ("flanneld", On::Nodes, false),
    ("kube-proxy", On::Nodes, false),
];

/// The units that a machine should have, in a cloud or on this host.
pub fn units(role: Role, in_cloud: bool) -> impl Iterator<Item = &'static str> {
    UNITS.iter().filter(move |(_, on, cloud)| on.includes(role) && (in_cloud || !cloud)).map(|(unit, ..)| *unit)
}

/// How a machine is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Its name, which is its Node's.
    pub name: String,
    /// What it is called among the cluster's resources in a cloud, if that is another name: `master-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called: Option<String>,
    /// What it is for.
    pub role: Role,
    /// Where it is.
    pub address: Ipv4Addr,
    /// Whether the provider says that it runs.
    pub running: bool,
    /// Whether it stands in a cloud.
    #[serde(skip)]
    pub in_cloud: bool,
    /// Why it could not be asked, if it runs and could not.
    pub unreachable: Option<String>,
    /// The units that it should have; empty if it could not be asked.
    pub units: Vec<Unit>,
    /// Its file systems.
    pub disks: Vec<Disk>,
    /// Its certificates.
    pub certificates: Vec<Certificate>,
    /// What its etcd says, if it is a master whose etcd answers.
    #[serde(skip)]
    pub etcd: Option<EtcdSaid>,
    /// The last words of the snapshot of etcd that it took last, if that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_backup: Vec<String>,
    /// The snapshot whose restore into etcd was begun and has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restoring: Option<String>,
}

/// A systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// Its name, without `.service`.
    pub name: String,
    /// `loaded`, `not-found`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// `running`, `exited`, `dead`, `auto-restart`, …
    pub sub: String,
    /// How its last run ended: `success`, `exit-code`, …
    pub result: String,
    /// How often systemd started it again by itself.
    pub restarts: u64,
    /// Seconds since it came up.
    pub up_seconds: Option<i64>,
    /// What its own health check said, as an HTTP status; 0 is no answer. None if it has none or could not be asked.
    pub health: Option<u16>,
    /// The last lines of its journal, if it isn't active.
    pub journal: Vec<String>,
}

impl Unit {
    /// Whether it is as it should be.
    pub fn well(&self) -> bool {
        self.active == "active" && !self.keeps_failing() && self.health.is_none_or(|code| code == 200)
    }

    /// Whether it runs only because it has just been started again.
    pub fn keeps_failing(&self) -> bool {
        self.restarts > 0 && self.up_seconds.is_some_and(|s| s < SETTLED)
    }
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// What is used, in KiB.
    pub used_kib: u64,
    /// What is free, in KiB.
    pub free_kib: u64,
}

impl Disk {
    /// How much of what can be used is used, as df counts: what is reserved for root is not there for others.
    pub fn used_percent(&self) -> u64 {
        (self.used_kib * 100).div_ceil((self.used_kib + self.free_kib).max(1))
    }
}

impl MachineStatus {
    /// One that could not be asked.
    pub fn silent(found: &FoundMachine, unreachable: Option<String>) -> MachineStatus {
        MachineStatus {
            name: found.machine.name.clone(),
            called: found.machine.called().map(str::to_owned),
            role: found.machine.role,
            address: found.machine.address,
            running: found.running,
            in_cloud: found.machine.cloud.is_some(),
            unreachable,
            units: Vec::new(),
            disks: Vec::new(),
            certificates: Vec::new(),
            etcd: None,
            failed_backup: Vec::new(),
            restoring: None,
        }
    }

    /// Whether it has said how it is.
    pub fn answered(&self) -> bool {
        self.running && self.unreachable.is_none()
    }

    /// Its certificate that ends first.
    pub fn first_to_end(&self) -> Option<&Certificate> {
        self.certificates.iter().min_by_key(|c| c.days_left)
    }
}

/// Asks a machine how it is.
pub(super) async fn ask(found: &FoundMachine, login: &LoginKey) -> Result<MachineStatus> {
    let ssh = Ssh::connect(&found.machine, login, LOGIN).await?;
    let names: Vec<String> = units(found.machine.role, found.machine.cloud.is_some()).map(|u| format!("{u}.service")).collect();
    // Unit names are constants of ours and need no quoting.
    let command = format!("sh -s -- {}", names.join(" "));
    let output = ssh.run(&command, templates::text("node/status.sh")?, SCRIPT).await?;
    let mut status = MachineStatus::silent(found, None);
    parse(&output.text(), &mut status, OffsetDateTime::now_utc())?;
    Ok(status)
}

/// Reads what `node/status.sh` wrote.
fn parse(text: &str, status: &mut MachineStatus, now: OffsetDateTime) -> Result<()> {
    if !text.ends_with("\nend\n") {
        return Err(Error::new(format!("what {} says of itself was cut off", status.name)));
    }
    let mut clock = None;
    let mut said = EtcdSaid::default();
    let mut found: BTreeMap<String, Unit> = BTreeMap::new();
    let mut block = Vec::new();
    let mut pems: BTreeMap<&str, String> = BTreeMap::new();
    let mut journals: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut health: BTreeMap<&str, u16> = BTreeMap::new();
    // The properties of a unit end with an empty line, and those of the last with the next kind of line.
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        if (kind != "unit" || rest.is_empty())
            && let Some(unit) = unit(&std::mem::take(&mut block), clock)
        {
            found.insert(unit.name.clone(), unit);
        }
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            "now" => clock = rest.parse().ok(),
            "unit" if !rest.is_empty() => block.extend(rest.split_once('=')),
            "journal" => journals.entry(bare(first)).or_default().push(second.to_owned()),
            "health" => drop(health.insert(bare(first), second.parse().unwrap_or(0))),
            // One file system in two places is told once.
            "disk" => status.disks.extend(
                disk(rest).filter(|d| !status.disks.iter().any(|o| (o.used_kib, o.free_kib) == (d.used_kib, d.free_kib))),
            ),
            "members" => said.members = Members::parse(rest).ok(),
            "member" => said.own = etcd::own(rest),
            "backup" => status.failed_backup.push(rest.to_owned()),
            "restoring" => status.restoring = Some(rest.to_owned()),
            "cert" => {
                let pem = pems.entry(first).or_default();
                pem.push_str(second);
                pem.push('\n');
            }
            _ => {}
        }
    }
    status.etcd = (said != EtcdSaid::default()).then_some(said);
    for name in units(status.role, status.in_cloud) {
        let mut unit =
            found.remove(name).unwrap_or_else(|| Unit { name: name.into(), load: "unknown".into(), ..Unit::default() });
        unit.journal = journals.remove(name).unwrap_or_default();
        unit.health = health.get(name).copied();
        status.units.push(unit);
    }
    for (path, pem) in pems {
        status.certificates.extend(certificates::read(path, &pem, now)?);
    }
    Ok(())
}

fn bare(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

fn unit(properties: &[(&str, &str)], clock: Option<i64>) -> Option<Unit> {
    let get = |key: &str| properties.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()).unwrap_or_default();
    let name = bare(&get("Id")).to_owned();
    let since = get("ActiveEnterTimestamp").strip_prefix('@').and_then(|s| s.parse::<i64>().ok());
    (!name.is_empty()).then(|| Unit {
        name,
        load: get("LoadState"),
        active: get("ActiveState"),
        sub: get("SubState"),
        result: get("Result"),
        restarts: get("NRestarts").parse().unwrap_or(0),
        up_seconds: clock.zip(since).map(|(now, since)| now.saturating_sub(since)),
        ..Unit::default()
    })
}

fn disk(line: &str) -> Option<Disk> {
    let mut words = line.splitn(3, ' ');
    let (used_kib, free_kib) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Disk { mount: words.next()?.to_owned(), used_kib, free_kib })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{BundleAccess, Machine};

    fn parsed(text: &str) -> Result<MachineStatus> {
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
        let mut status = MachineStatus::silent(&FoundMachine { machine, running: true }, None);
        parse(text, &mut status, OffsetDateTime::now_utc()).map(|()| status)
    }

    const TEXT: &str = "now 1000
unit Result=success
unit NRestarts=0
unit Id=kubelet.service
unit LoadState=loaded
unit ActiveState=inactive
unit SubState=dead
unit ActiveEnterTimestamp=@400
unit 
unit Result=success
unit NRestarts=7
unit Id=containerd.service
unit LoadState=loaded
unit ActiveState=active
unit SubState=running
unit ActiveEnterTimestamp=@990
unit 
unit Result=success
unit NRestarts=1
unit Id=kube-proxy.service
unit LoadState=loaded
unit ActiveState=active
unit SubState=running
unit ActiveEnterTimestamp=@10
journal kubelet.service Stopping kubelet.service
journal kubelet.service a line with journal kube-proxy.service in it
disk 900 100 /
disk 900 100 /var
disk 1 2097152 /a mount
health kube-proxy.service 000
end
";

    #[test]
    fn what_a_machine_says_is_understood() {
        let status = parsed(TEXT).unwrap();
        let unit = |name: &str| status.units.iter().find(|u| u.name == name).unwrap();
        assert_eq!(status.units.len(), 6, "every unit that it should have");
        assert_eq!(unit("kubelet").journal, ["Stopping kubelet.service", "a line with journal kube-proxy.service in it"]);
        assert!(!unit("kubelet").well());
        assert!(unit("containerd").keeps_failing() && !unit("containerd").well(), "up for 10 s after 7 restarts");
        assert_eq!(
            (unit("kube-proxy").keeps_failing(), unit("kube-proxy").health, unit("kube-proxy").well()),
            (false, Some(0), false)
        );
        assert!(unit("kube-proxy").journal.is_empty());
        assert_eq!(unit("flanneld").load, "unknown");
        let disks: Vec<_> = status.disks.iter().map(|d| (d.mount.as_str(), d.used_percent(), d.free_kib)).collect();
        assert_eq!(disks, [("/", 90, 100), ("/a mount", 1, 2_097_152)]);
    }

    #[test]
    fn masters_in_a_cloud_have_two_units_more() {
        let here: Vec<_> = units(Role::Master, false).collect();
        let cloud: Vec<_> = units(Role::Master, true).filter(|unit| !here.contains(unit)).collect();
        assert_eq!(cloud, ["aws-cloud-controller-manager", "node-approver"]);
        assert_eq!(units(Role::Minion, true).count(), units(Role::Minion, false).count());
    }

    #[test]
    fn half_an_answer_is_none() {
        assert!(parsed(TEXT.strip_suffix("end\n").unwrap()).is_err());
        assert!(parsed("").is_err());
    }
}
