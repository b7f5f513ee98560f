//! `kup etcd restore`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{masters, rows, store, when};
use crate::aws::lock::Lock as AwsLock;
use crate::backup::store::Masters;
use crate::backup::{AnyStore, Backup, Snapshot, Store as _};
use crate::cli::Ui;
use crate::cli::config_args::ConfigArgs;
use crate::cli::plan::view;
use crate::cli::target::{Target, TargetArgs};
use crate::cli::up::patience;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Kind, Result};
use crate::lock::Lock;
use crate::pki::{Pki, mark, store as keys};
use crate::provider::aws::secrets::Secrets;
use crate::provider::{AnyProvider, AwsProvider, ClusterId, Finder as _};
use crate::report::Report;
use crate::restore::aws::OnAws;
use crate::restore::local::Local;
use crate::restore::{Restore, Restored};
use crate::standing::Standing;
use crate::{saved, state};

mod choice;

use choice::{keys_in, pick, refuse_what_does_not_fit};

/// Put a snapshot in the place of all that a cluster knows
///
/// What was written since is lost; what is there is backed up first. Also for a cluster whose masters lost their data, and for another one
/// than the snapshot was taken of: its Nodes and the pods on them are then removed, so that the pods are made anew here; Secrets are read
/// by the other cluster's key (taken from its state, or bucket, with --from-cluster); tokens of service accounts that it gave out are not accepted.
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
    /// The key of the Secrets in it: pki/encryption.key of the state, or pki/keys.json of the bucket, of the cluster it was taken of
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
    let target = args.target.require_said(ui).await?;
    target.announce(&ui.report);
    let (name, flags) = (&target.id.name, target.flags());
    let cluster = args.config(&target, &ui.report).await?;
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
        let keys = args.keys(&target, source.backup.as_ref(), &pki).await?;
        Ok((source, keys))
    };
    let (source, keys) = match found.await {
        Ok(found) => found,
        Err(error) => return span.close(Err(error)),
    };
    let what = described(&source);
    span.done_with(what.as_str());
    let secrets = if args.drop_secrets { " All Secrets in it are left out." } else { "" };
    let makes = match &target.provider {
        AnyProvider::Aws(provider) if !args.yes => missing(provider, &cluster, ui).await?,
        _ => "",
    };
    let question = format!("{makes}Put {what} in the place of all that cluster {name} knows?{secrets}");
    if !ui.confirm(question, args.yes).await? {
        return Err(Error::new("nothing was changed").kind(Kind::Interrupted));
    }
    let restore = Restore {
        snapshot: source.snapshot,
        again: source.again.clone(),
        drop_secrets: args.drop_secrets,
        back_up: !args.no_backup,
    };
    let store = store(&target.id, &target.provider)?;
    let restored = args.put(&restore, target.provider, &target.id, cluster, &keys, (&store, ui)).await?;
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
    text.push_str(&format!("\n\nNext:\n  kup status {flags}"));
    if let Some(backup) = &restored.backup {
        text.push_str(&format!("\n  kup etcd restore {backup} {flags}    (brings back what was there before)"));
    }
    ui.print(text);
    Ok(())
}

/// Shows what has to be made on AWS before anything is restored. Gives the beginning of the question.
async fn missing(provider: &AwsProvider, cluster: &Cluster, ui: &Ui) -> Result<&'static str> {
    let plan = provider.plan(cluster, &[]).await?;
    if plan.is_empty() {
        return Ok("");
    }
    if !ui.json {
        ui.print(view(&plan, cluster)?.text(ui.columns(), false));
    }
    Ok("Make this, and then: ")
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
    /// Does it, under the cluster's lock.
    async fn put(
        &self,
        restore: &Restore,
        provider: AnyProvider,
        id: &ClusterId,
        cluster: Cluster,
        keys: &[String],
        (store, ui): (&AnyStore, &Ui),
    ) -> Result<Restored> {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let patience = self.timeout;
        match provider {
            AnyProvider::Local(provider) => {
                let _lock = Lock::take(&state::cluster_dir(id)?, &command)?;
                saved::pki(id)?.adopt(keys)?;
                let bring = Local { id: id.clone(), provider, patience, raise_limits: self.raise_limits };
                restore.run(&bring, store, &ui.report).await
            }
            AnyProvider::Aws(provider) => {
                let lock = AwsLock::take(&provider.aws, &command, false).await?;
                let work = async {
                    Secrets::adopt(&provider.aws, keys).await?;
                    let bring = OnAws { provider: provider.clone(), cluster, patience };
                    restore.run(&bring, store, &ui.report).await
                };
                lock.during(&ui.report, ui.interrupt.or(work)).await
            }
        }
    }

    /// The config of the cluster's last `up`. A bucket keeps no logins of registries: they are those of the files that the config names,
    /// or of the config file that is in use here.
    async fn config(&self, target: &Target, report: &Report) -> Result<Cluster> {
        let mut cluster = target.provider.config(&target.id).await?;
        if let AnyProvider::Local(_) = target.provider {
            return Ok(cluster);
        }
        cluster.registries.values_mut().for_each(|registry| registry.reread());
        let lacking = |cluster: &Cluster| {
            let mut all = cluster.registries.iter();
            all.find(|(_, registry)| registry.has_login() && registry.authorization().is_none()).map(|(host, _)| host.clone())
        };
        if lacking(&cluster).is_some() {
            let args = ConfigArgs { file: self.target.file.clone(), name: Some(target.id.name.clone()), ..ConfigArgs::default() };
            let loaded = args.load(report)?;
            if loaded.file.is_some() {
                cluster.registries = loaded.cluster.registries;
            }
        }
        match lacking(&cluster) {
            None => Ok(cluster),
            Some(host) => Err(Error::usage(format!("the login of the registry {host} is not known here; nothing was changed"))
                .why("machines get their files anew with a restore, and the cluster's bucket keeps no passwords")
                .hint("-f FILE names the config with it, as for `kup up`")),
        }
    }

    /// The snapshot that is meant, checked against what is told of it.
    async fn find(&self, target: &Target, ui: &Ui) -> Result<Source> {
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
        let row = pick(&all, word, id)?;
        let backup = row.backup.clone();
        let snapshot = match &row.master {
            None => store(id, &target.provider)?.fetch(&backup).await?,
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
    async fn keys(&self, target: &Target, backup: Option<&Backup>, pki: &Pki) -> Result<Vec<String>> {
        let id = &target.id;
        let mut others = Vec::new();
        if let Some(path) = &self.encryption_key {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?;
            others.extend(keys_in(&text).ok_or_else(|| {
                Error::usage(format!("{} is no key of Secrets", path.display()))
                    .why("such a key is 32 bytes, in base64, on one line; or a copy of a bucket's pki/keys.json, with all keys of a cluster")
            })?);
        }
        let from = self.from_cluster.as_deref().or(backup.map(|backup| backup.cluster.as_str()));
        // Only where it was said that the other one is meant: a name in a file is no reason to trust its keys.
        if let Some(name) = self.from_cluster.as_ref().filter(|name| **name != id.name) {
            match &target.provider {
                AnyProvider::Local(_) => {
                    let dir = state::cluster_dir(&ClusterId { name: name.clone(), ..id.clone() })?.join("pki");
                    others.extend(keys::secret_keys_in(&dir)?);
                }
                AnyProvider::Aws(provider) => {
                    let secrets = Secrets::read(&provider.aws.of(name)).await?;
                    others.extend(secrets.iter().flat_map(|secrets| secrets.pki.secret_keys().cloned()));
                }
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
            .hint(match target.provider {
                AnyProvider::Local(_) => "--from-cluster NAME takes the key from that cluster's state, if it is on this machine",
                AnyProvider::Aws(_) => "--from-cluster NAME takes the key from that cluster's bucket, if it is in this region",
            })
            .hint("--encryption-key FILE takes it from a copy of its pki/encryption.key, or of its bucket's pki/keys.json")
            .hint("--drop-secrets restores everything else"))
    }
}
