//! etcd's snapshots: what is known of each, where they are kept, how one is taken, and how long it stays.
//!
//! A backup is two files of one name: `<name>.db.gz`, the snapshot as etcd gave it, compressed, and `<name>.json`, what is to be known of
//! it. The second is written last and removed first, so that a snapshot without it is none. Names sort by time.

pub mod retain;
pub mod snapshot;
pub mod store;
pub mod take;

use std::fmt;
use std::time::SystemTime;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};

pub use snapshot::Snapshot;
pub use store::{AnyStore, Store};

/// Where a master keeps the snapshots that it takes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Place {
    /// In a directory of its own: `/var/lib/kup/backups`.
    #[default]
    Directory,
    /// In the cluster's bucket, below `backups/`, with the credentials of the machine's role.
    Bucket {
        /// The address below which the bucket's objects are, without a slash at its end.
        url: String,
        /// Its region.
        region: String,
        /// The account that owns it: another one's bucket is never written to.
        account: String,
    },
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Time had come.
    Timer,
    /// `kup up` was about to change etcd's members, or to restart etcd or an API server.
    Change,
    /// `kup etcd restore` was about to put another one in its place.
    Restore,
    /// Somebody asked for it.
    Hand,
}

impl Reason {
    /// The word in names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Timer => "timer",
            Reason::Change => "change",
            Reason::Restore => "restore",
            Reason::Hand => "hand",
        }
    }
}

/// As people read it.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Timer => "timer",
            Reason::Change => "before a change",
            Reason::Restore => "before a restore",
            Reason::Hand => "by hand",
        })
    }
}

/// What objects in etcd are built on: the same where they are restored, or Services and pods have addresses that lead nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// Of pods.
    pub pods: Ipv4Net,
    /// Of Services.
    pub services: Ipv4Net,
    /// DNS's own address.
    pub dns: std::net::Ipv4Addr,
    /// The domain of Services' names.
    pub domain: String,
}

impl Ranges {
    /// A cluster's.
    pub fn of(cluster: &Cluster) -> Ranges {
        let network = &cluster.network;
        Ranges { pods: network.pods, services: network.services, dns: network.dns, domain: network.domain.clone() }
    }
}

/// One backup, as its JSON tells of it. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// `etcd-<time, UTC>-<revision>-<reason>`.
    pub name: String,
    /// The cluster it was taken of.
    pub cluster: String,
    /// etcd's revision.
    pub revision: u64,
    /// Why it was taken.
    pub reason: Reason,
    /// The version of Kubernetes.
    pub kubernetes: String,
    /// Bytes, compressed.
    pub size: u64,
    /// Of the compressed snapshot, hexadecimal.
    pub sha256: String,
    /// The marks ([`crate::pki::mark`]) of the keys by which its Secrets can be read, the one that encrypted them last first.
    pub keys: Vec<String>,
    /// What its objects are built on.
    pub network: Ranges,
}

impl Backup {
    /// From its JSON, which may be anybody's.
    ///
    /// # Errors
    /// It is no such thing, or its name is none.
    pub fn parse(text: &str) -> Result<Backup> {
        let backup: Backup = serde_json::from_str(text).context("what tells of a snapshot can't be read")?;
        let hash = backup.sha256.len() == 64 && backup.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        match taken(&backup.name) {
            Some(_) if hash => Ok(backup),
            _ => Err(Error::new("what tells of a snapshot can't be read").why("it has no proper name, or no checksum")),
        }
    }

    /// When it was taken.
    pub fn taken(&self) -> OffsetDateTime {
        taken(&self.name).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The file with the snapshot.
    pub fn data(&self) -> String {
        data(&self.name)
    }
}

/// The file with a backup's snapshot.
pub fn data(name: &str) -> String {
    format!("{name}.db.gz")
}

/// The file that tells of a backup.
pub fn about(name: &str) -> String {
    format!("{name}.json")
}

/// The backup that a file tells of, by its name.
pub fn told(file: &str) -> Option<&str> {
    file.strip_suffix(".json").filter(|name| taken(name).is_some())
}

/// The time in a backup's name; none if it is no such name. Nothing but letters, digits and dashes is in one, so that it may be part of a path.
pub fn taken(name: &str) -> Option<OffsetDateTime> {
    let rest = name.strip_prefix("etcd-")?;
    let clean = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut words = rest.split('-');
    let (time, revision, reason) = (words.next()?, words.next()?, words.next()?);
    let whole = clean && words.next().is_none() && !reason.is_empty() && revision.parse::<u64>().is_ok();
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = time::PrimitiveDateTime::parse(time, format).ok()?;
    whole.then_some(time.assume_utc())
}

/// The time now, as everything about backups counts it.
pub fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A backup of the cluster `c`.
    pub(crate) fn backup(name: &str, size: u64, sha256: &str) -> Backup {
        let ranges = Ranges::of(&crate::cluster::defaults::cluster().unwrap());
        Backup {
            name: name.into(),
            cluster: "c".into(),
            revision: 7,
            reason: Reason::Hand,
            kubernetes: "1.37.1".into(),
            size,
            sha256: sha256.into(),
            keys: vec!["0123456789abcdef".into()],
            network: ranges,
        }
    }

    #[test]
    fn names_hold_their_time_and_nothing_that_leads_elsewhere() {
        let time = taken("etcd-20261126T131500Z-1234-timer").unwrap();
        assert_eq!(time.unix_timestamp(), 1_795_698_900);
        for wrong in [
            "",
            "etcd-",
            "etcd-20261126T131500Z-1234",
            "etcd-20261126T131500Z-1234-",
            "etcd-20261126T131500Z-x-timer",
            "etcd-20261326T131500Z-1234-timer",
            "etcd-20261126T131500Z-1234-timer-x",
            "etcd-20261126T131500Z-1234-../x",
            "20261126T131500Z-1234-timer",
        ] {
            assert_eq!(taken(wrong), None, "{wrong}");
        }
        assert_eq!(told("etcd-20261126T131500Z-1-hand.json"), Some("etcd-20261126T131500Z-1-hand"));
        assert_eq!(told("etcd-20261126T131500Z-1-hand.db.gz"), None);
    }

    #[test]
    fn only_a_whole_description_is_one() {
        let good = backup("etcd-20261126T131500Z-7-hand", 3, &"a".repeat(64));
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(Backup::parse(&text).unwrap(), good);
        assert!(Backup::parse(&text.replace("etcd-2026", "../etcd-2026")).is_err());
        assert!(Backup::parse(&text.replace(&"a".repeat(64), "abc")).is_err());
        assert!(Backup::parse(text.get(..40).unwrap()).is_err());
    }
}
