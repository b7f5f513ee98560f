//! What a restore is made of, and whether it fits: which snapshot a word means, by which keys it is read, what would make its objects of no
//! use on this cluster.

use std::collections::BTreeMap;

use super::super::Row;
use crate::backup::{Backup, Ranges, Reason};
use crate::cluster::Cluster;
use crate::cluster::problem::did_you_mean;
use crate::error::{Error, Result};
use crate::pki::files::Memory;
use crate::pki::store as keys;
use crate::provider::ClusterId;

/// A key of Secrets, if it is one.
pub(super) fn key(text: &str) -> Option<String> {
    use base64::Engine as _;
    let text = text.trim();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (bytes.len() == 32).then(|| text.to_owned())
}

/// The keys of Secrets in a file: one alone, or those among all that is kept of a cluster on AWS (`pki/keys.json` of its bucket).
pub(super) fn keys_in(text: &str) -> Option<Vec<String>> {
    let Ok(all) = serde_json::from_str::<BTreeMap<String, String>>(text) else { return Some(vec![key(text)?]) };
    let keys = keys::secret_keys_of(&Memory::of(all)).ok()?;
    (!keys.is_empty() && keys.iter().all(|one| key(one).is_some())).then_some(keys)
}

/// The backup that a word means. The newest is not one that was made before a restore: that is what is to be left behind.
pub(super) fn pick<'a>(all: &'a [Row], word: &str, id: &ClusterId) -> Result<&'a Row> {
    let found = match word {
        "latest" => all.iter().rev().find(|row| row.backup.reason != Reason::Restore),
        name => all.iter().find(|row| row.backup.name == name),
    };
    found.ok_or_else(|| {
        let error = Error::usage(format!("cluster {} has no snapshot `{word}`", id.name));
        let error = match did_you_mean(word, all.iter().map(|row| row.backup.name.as_str())) {
            Some(meant) => error.hint(format!("did you mean {meant}?")),
            None => error,
        };
        match all.is_empty() {
            true => error.hint(format!("there is none at all; `kup etcd backup {}` takes one", id.flags())),
            false => error.hint(format!("`kup etcd list {}` lists those there are", id.flags())),
        }
    })
}

/// What would make objects of no use here.
pub(super) fn refuse_what_does_not_fit(backup: &Backup, cluster: &Cluster) -> Result<()> {
    let (theirs, ours) = (&backup.network, Ranges::of(cluster));
    let mut differ = Vec::new();
    for (field, theirs, ours) in [
        ("network.pods", theirs.pods.to_string(), ours.pods.to_string()),
        ("network.services", theirs.services.to_string(), ours.services.to_string()),
        ("network.dns", theirs.dns.to_string(), ours.dns.to_string()),
        ("network.domain", theirs.domain.clone(), ours.domain),
    ] {
        if theirs != ours {
            differ.push(format!("{field}: {theirs} in the snapshot, {ours} here"));
        }
    }
    if minor(&backup.kubernetes) > minor(&cluster.kubernetes.version) {
        differ.push(format!("kubernetes.version: {} in the snapshot, {} here", backup.kubernetes, cluster.kubernetes.version));
    }
    if differ.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("the snapshot {} does not fit cluster {}; nothing was changed", backup.name, cluster.name))
        .why(differ.join("\n"))
        .hint("make a cluster with these values, and restore it there"))
}

/// `(1, 37)` of `1.37.1`: an API server reads what an older one wrote, and not what a newer one did.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backup::tests::backup;
    use crate::cluster::defaults;
    use crate::cluster::spec::ProviderKind;
    use crate::error::Kind;

    fn row(name: &str, reason: Reason) -> Row {
        Row::of(Backup { reason, ..backup(name, 1, &"a".repeat(64)) }, "here".into(), None)
    }

    #[test]
    fn the_latest_is_never_what_a_restore_is_to_leave_behind() {
        let all = [
            row("etcd-20261126T130000Z-1-timer", Reason::Timer),
            row("etcd-20261126T131500Z-2-timer", Reason::Timer),
            row("etcd-20261126T131600Z-3-restore", Reason::Restore),
        ];
        let id = ClusterId { provider: ProviderKind::Local, name: "c".into() };
        assert_eq!(pick(&all, "latest", &id).unwrap().backup.name, "etcd-20261126T131500Z-2-timer");
        assert_eq!(pick(&all, "etcd-20261126T131600Z-3-restore", &id).unwrap().backup.reason, Reason::Restore);
        let error = pick(&all, "etcd-20261126T131600Z-3-restor", &id).err().unwrap();
        assert!(error.hints[0].contains("etcd-20261126T131600Z-3-restore"), "{error}");
        assert!(pick(&[], "latest", &id).err().unwrap().to_string().contains("there is none at all"));
    }

    #[test]
    fn other_ranges_and_newer_versions_are_refused() {
        let cluster = defaults::cluster().unwrap();
        let good = Backup { kubernetes: cluster.kubernetes.version.clone(), ..backup("etcd-20261126T130000Z-1-timer", 1, "") };
        refuse_what_does_not_fit(&good, &cluster).unwrap();
        refuse_what_does_not_fit(&Backup { kubernetes: "1.30.0".into(), ..good.clone() }, &cluster).unwrap();
        let mut other = Backup { kubernetes: "1.99.0".into(), ..good };
        other.network.services = "10.7.0.0/16".parse().unwrap();
        let error = refuse_what_does_not_fit(&other, &cluster).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.why[0].contains("network.services: 10.7.0.0/16") && error.why[0].contains("1.99.0"), "{error}");
    }

    #[test]
    fn a_key_comes_from_its_file_or_from_all_keys_of_a_cluster_on_aws() {
        let one = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        let other = "MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        assert_eq!(keys_in(&format!("{one}\n")).unwrap(), [one]);
        let all = serde_json::json!({ "encryption.key": one, "decryption.keys": format!("{other}\n"), "cluster-ca.key": "x" });
        assert_eq!(keys_in(&all.to_string()).unwrap(), [one, other]);
        assert!(keys_in("{}").is_none() && keys_in("[]").is_none() && keys_in("MDEyMzQ1").is_none());
    }

    #[test]
    fn only_32_bytes_are_a_key() {
        assert!(key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").is_some());
        assert!(key("MDEyMzQ1\n").is_none() && key("not base64").is_none());
    }
}
