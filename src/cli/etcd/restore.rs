//! `kup etcd restore`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{Row, masters, rows, store, when};
use crate::backup::store::Masters;
use crate::backup::{Backup, Ranges, Reason, Snapshot, Store as _};
use crate::cli::Ui;
use crate::cli::target::{Target, TargetArgs};
use crate::cli::up::patience;
use crate::cluster::Cluster;
use crate::cluster::problem::did_you_mean;
use crate::error::{Context as _, Error, Kind, Result};
use crate::lock::Lock;
use crate::pki::{Pki, mark, store as keys};
use crate::provider::{ClusterId, Finder as _, LocalProvider};
use crate::restore::Restore;
use crate::restore::local::Local;
use crate::standing::Standing;
use crate::{saved, state};

/// Put a snapshot in the place of all that a cluster knows
///
/// What was written since is lost; what is there is backed up first. Also for a cluster whose masters lost their data, and for another one
/// than the snapshot was taken of: its Nodes and the pods on them are then removed, so that the pods are made anew here; Secrets are read
/// by the other cluster's key (taken from its state with --from-cluster); tokens of service accounts that it gave out are not accepted.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Its name in `kup etcd list`, or `latest`
    #[arg(value_name = "SNAPSHOT", required_unless_present = "from", conflicts_with = "from")]
    snapshot: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// A file instead: one of kup's (with its .json beside it), or what `etcdctl snapshot save` wrote
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    from: Option<PathBuf>,
    /// The cluster it was taken of, if that is another one: its snapshots are meant, and its keys of Secrets
    #[arg(long, value_name = "NAME")]
    from_cluster: Option<String>,
    /// The key of the Secrets in it: the file pki/encryption.key of the state of the cluster that it was taken of
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    encryption_key: Option<PathBuf>,
    /// Leave all Secrets out, since the key of those in the snapshot is lost
    #[arg(long)]
    drop_secrets: bool,
    /// Do not back up first what is there
    #[arg(long)]
    no_backup: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Raise limits of this host that are too small for machines that must be made again, if root may
    #[arg(long, env = "KUP_RAISE_LIMITS", value_parser = clap::builder::FalseyValueParser::new())]
    raise_limits: bool,
    /// How long to wait for any one thing: 45s, 5m
    #[arg(long, value_name = "DURATION", env = "KUP_TIMEOUT", value_parser = patience)]
    timeout: Option<Duration>,
}

/// A snapshot that was found, what is told of it, and what to type to mean it again.
struct Source {
    snapshot: Snapshot,
    backup: Option<Backup>,
    again: String,
}

/// Runs it.
pub(super) async fn run(args: Args, ui: &Ui) -> Result<()> {
    let Target { id, provider } = args.target.require(&ui.report).await?;
    let instead = "`kup etcd list` shows the snapshots in an AWS cluster's bucket; they can be restored only by hand yet";
    let target = Target { provider: provider.local("kup etcd restore", instead)?, id };
    let name = &target.id.name;
    let cluster = saved::require(&target.id)?;
    let pki = target.provider.pki(&target.id).await?;
    let span = ui.report.step("snapshot");
    span.waiting("it to be found and checked");
    let found = async {
        let source = args.find(&target, ui).await?;
        let snapshot = source.snapshot.clone();
        tokio::task::spawn_blocking(move || snapshot.check()).await.context("checking the snapshot broke off")??;
        if let Some(backup) = &source.backup {
            refuse_what_does_not_fit(backup, &cluster)?;
        }
        let keys = args.keys(&target.id, source.backup.as_ref(), &pki)?;
        Ok((source, keys))
    };
    let (source, keys) = match found.await {
        Ok(found) => found,
        Err(error) => return span.close(Err(error)),
    };
    let what = described(&source);
    span.done_with(what.as_str());
    let secrets = if args.drop_secrets { " All Secrets in it are left out." } else { "" };
    let question = format!("Put {what} in the place of all that cluster {name} knows?{secrets}");
    if !ui.confirm(question, args.yes).await? {
        return Err(Error::new("nothing was changed").kind(Kind::Interrupted));
    }
    let command: Vec<String> = std::env::args().collect();
    let _lock = Lock::take(&state::cluster_dir(&target.id)?, &command.join(" "))?;
    saved::pki(&target.id)?.adopt(&keys)?;
    let restore = Restore {
        snapshot: source.snapshot,
        again: source.again.clone(),
        drop_secrets: args.drop_secrets,
        back_up: !args.no_backup,
    };
    let id = target.id.clone();
    let bring = Local { id, provider: target.provider, patience: args.timeout, raise_limits: args.raise_limits };
    let restored = restore.run(&bring, &store(&target.id)?, &ui.report).await?;
    if ui.json {
        let from = source.backup.as_ref().map(|backup| &backup.name);
        return ui.result(&json!({ "cluster": name, "snapshot": from, "restored": restored }));
    }
    let mut text = format!("Cluster {name} is ready, with {what}.");
    if !restored.dropped_secrets.is_empty() {
        text.push_str(&format!("\nLeft out, since their key is lost: the Secrets {}.", restored.dropped_secrets.join(", ")));
    }
    if !restored.removed_nodes.is_empty() {
        text.push_str(&format!("\nRemoved, since they have no machine here: the Nodes {}.", restored.removed_nodes.join(", ")));
    }
    text.push_str(&format!("\n\nNext:\n  kup status --name {name}"));
    if let Some(backup) = &restored.backup {
        text.push_str(&format!("\n  kup etcd restore {backup} --name {name}    (brings back what was there before)"));
    }
    ui.print(text);
    Ok(())
}

/// `the snapshot etcd-… of cluster a (2026-11-26 13:15:00 UTC, revision 1234)`
fn described(source: &Source) -> String {
    match &source.backup {
        Some(b) => {
            format!("the snapshot {} of cluster {} ({} UTC, revision {})", b.name, b.cluster, when(b.taken()), b.revision)
        }
        None => "the snapshot in the file".to_owned(),
    }
}

impl Args {
    /// The snapshot that is meant, checked against what is told of it.
    async fn find(&self, target: &Target<LocalProvider>, ui: &Ui) -> Result<Source> {
        if let Some(path) = &self.from {
            let full = path.canonicalize().unwrap_or_else(|_| path.clone());
            let open = path.clone();
            let opened = tokio::task::spawn_blocking(move || Snapshot::open(&open)).await.context("reading it broke off")?;
            let (snapshot, backup) = opened?;
            return Ok(Source { snapshot, backup, again: self.again(&format!("--from {}", full.display())) });
        }
        let word = self.snapshot.as_deref().unwrap_or_default();
        let other = self.from_cluster.as_ref().map(|name| ClusterId { name: name.clone(), ..target.id.clone() });
        let id = other.as_ref().unwrap_or(&target.id);
        let all = rows(id, &target.provider, &ui.report).await?;
        let row = pick(&all, word, &id.name)?;
        let backup = row.backup.clone();
        let snapshot = match &row.master {
            None => store(id)?.fetch(&backup).await?,
            Some(master) => {
                let standing = Standing::of(id, &target.provider).await?;
                Masters(&masters(&standing, &ui.report).await).fetch(master, &backup).await?
            }
        };
        // Its own name: `latest` may be another one by then.
        Ok(Source { again: self.again(&backup.name), snapshot, backup: Some(backup) })
    }

    /// What to type after `kup etcd restore` to mean the same again.
    fn again(&self, what: &str) -> String {
        let mut again = what.to_owned();
        if let Some(cluster) = &self.from_cluster {
            again.push_str(&format!(" --from-cluster {cluster}"));
        }
        if let Some(key) = &self.encryption_key {
            let full = key.canonicalize().unwrap_or_else(|_| key.clone());
            again.push_str(&format!(" --encryption-key {}", full.display()));
        }
        if self.drop_secrets {
            again.push_str(" --drop-secrets");
        }
        again
    }

    /// The keys of other clusters by which the snapshot's Secrets are read.
    ///
    /// # Errors
    /// One is missing: whoever calls the API for Secrets would get errors.
    fn keys(&self, id: &ClusterId, backup: Option<&Backup>, pki: &Pki) -> Result<Vec<String>> {
        let mut others = Vec::new();
        if let Some(path) = &self.encryption_key {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?;
            others.push(key(&text).ok_or_else(|| {
                Error::usage(format!("{} is no key of Secrets", path.display()))
                    .why("such a key is 32 bytes, in base64, on one line")
            })?);
        }
        let from = self.from_cluster.as_deref().or(backup.map(|backup| backup.cluster.as_str()));
        if let Some(name) = from.filter(|name| *name != id.name) {
            let dir = state::cluster_dir(&ClusterId { name: name.to_owned(), ..id.clone() })?.join("pki");
            // Only where it was said that the other one is meant: a name in a file is no reason to trust its keys.
            if self.from_cluster.is_some() {
                others.extend(keys::secret_keys_in(&dir)?);
            }
        }
        if self.drop_secrets {
            return Ok(Vec::new());
        }
        let known: Vec<String> = pki.secret_keys().chain(&others).map(|key| mark(key)).collect();
        let readable = match backup {
            Some(backup) => backup.keys.iter().all(|mark| known.contains(mark)),
            // Its origin is known by what was said alone.
            None => !others.is_empty() || self.from_cluster.as_deref() == Some(id.name.as_str()),
        };
        if readable {
            return Ok(others);
        }
        let of =
            from.map_or_else(|| "the cluster it was taken of, which nothing tells".to_owned(), |name| format!("cluster {name}"));
        Err(Error::usage("the Secrets in the snapshot can't be read here; nothing was changed")
            .why(format!("they are encrypted by a key of {of}; without it every Secret is lost: passwords, certificates, tokens"))
            .hint("--from-cluster NAME takes the key from that cluster's state, if it is on this machine")
            .hint("--encryption-key FILE takes it from a copy of its pki/encryption.key")
            .hint("--drop-secrets restores everything else"))
    }
}

/// A key of Secrets, if it is one.
fn key(text: &str) -> Option<String> {
    use base64::Engine as _;
    let text = text.trim();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (bytes.len() == 32).then(|| text.to_owned())
}

/// The backup that a word means. The newest is not one that was made before a restore: that is what is to be left behind.
fn pick<'a>(all: &'a [Row], word: &str, cluster: &str) -> Result<&'a Row> {
    let found = match word {
        "latest" => all.iter().rev().find(|row| row.backup.reason != Reason::Restore),
        name => all.iter().find(|row| row.backup.name == name),
    };
    found.ok_or_else(|| {
        let error = Error::usage(format!("cluster {cluster} has no snapshot `{word}`"));
        let error = match did_you_mean(word, all.iter().map(|row| row.backup.name.as_str())) {
            Some(meant) => error.hint(format!("did you mean {meant}?")),
            None => error,
        };
        match all.is_empty() {
            true => error.hint(format!("there is none at all; `kup etcd backup --name {cluster}` takes one")),
            false => error.hint(format!("`kup etcd list --name {cluster}` lists those there are")),
        }
    })
}

/// What would make objects of no use here.
fn refuse_what_does_not_fit(backup: &Backup, cluster: &Cluster) -> Result<()> {
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
        assert_eq!(pick(&all, "latest", "c").unwrap().backup.name, "etcd-20261126T131500Z-2-timer");
        assert_eq!(pick(&all, "etcd-20261126T131600Z-3-restore", "c").unwrap().backup.reason, Reason::Restore);
        let error = pick(&all, "etcd-20261126T131600Z-3-restor", "c").err().unwrap();
        assert!(error.hints[0].contains("etcd-20261126T131600Z-3-restore"), "{error}");
        assert!(pick(&[], "latest", "c").err().unwrap().to_string().contains("there is none at all"));
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
    fn only_32_bytes_are_a_key() {
        assert!(key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").is_some());
        assert!(key("MDEyMzQ1\n").is_none() && key("not base64").is_none());
    }
}
