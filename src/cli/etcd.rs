//! `kup etcd`: backups of all that a cluster knows: make one, list them, put one in the place of what is there.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::nodes::table;
use super::target::{Target, TargetArgs};
use super::{Conduct, Ui};
use crate::aws::lock::Lock as AwsLock;
use crate::backup::store::{Bucket, Directory, Masters};
use crate::backup::take::Taking;
use crate::backup::{AnyStore, Backup, Reason, Store as _};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::machine::ssh::Ssh;
use crate::provider::{AnyProvider, ClusterId};
use crate::report::Report;
use crate::standing::Standing;
use crate::state;

mod restore;

/// Back up what a cluster knows, list the backups, restore one
///
/// Masters take a snapshot every 15 minutes, `kup up` one before it changes etcd or restarts an API server. Kept are: all of the last 24
/// hours, the last of each day for 7 days, those made by hand for 30 days, and the newest. All go with `kup down`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Take a snapshot of etcd now
    ///
    /// It holds everything, Secrets included (these are encrypted by the cluster's key, which is not in it). On this host it is kept in the
    /// cluster's state directory, on AWS in the cluster's bucket.
    Backup {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// List the snapshots there are, oldest first: those kept for the cluster, and on this host also those on its masters
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    Restore(restore::Args),
}

impl Args {
    /// How this command behaves towards the outside while it runs.
    pub fn conduct(&self) -> Conduct {
        match self.what {
            What::List { .. } => Conduct::default(),
            What::Backup { .. } => Conduct { stream: true, interrupted: Some("nothing of the snapshot was kept") },
            What::Restore(_) => Conduct { stream: true, interrupted: Some("the same command does it again and finishes it") },
        }
    }
}

/// Runs one of them.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.what {
        What::Backup { target } => backup(&target, ui).await,
        What::List { target } => list(&target, ui).await,
        What::Restore(args) => restore::run(args, ui).await,
    }
}

/// A backup, and where it is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    backup: Backup,
    taken: String,
    /// A path, a bucket's address, or a machine's name.
    #[serde(rename = "where")]
    place: String,
    /// The master that has it, if it is nowhere else.
    #[serde(skip)]
    master: Option<String>,
}

impl Row {
    fn of(backup: Backup, place: String, master: Option<String>) -> Row {
        Row { taken: backup.taken().format(&Rfc3339).unwrap_or_default(), backup, place, master }
    }
}

/// Where the backups of a cluster of this provider are kept.
fn store(id: &ClusterId, provider: &AnyProvider) -> Result<AnyStore> {
    match provider {
        AnyProvider::Local(_) => Ok(AnyStore::Directory(Directory::of(&state::cluster_dir(id)?))),
        AnyProvider::Aws(provider) => Ok(AnyStore::Bucket(Bucket::of(provider.aws.of(&id.name)))),
    }
}

/// Logs in to all masters that run. Those that can't be reached are named.
async fn masters(standing: &Standing, report: &Report) -> Vec<Ssh> {
    let running = standing.masters().filter(|m| m.running);
    let outcomes = futures::future::join_all(running.map(|master| standing.connect(master))).await;
    let reached = outcomes.into_iter().filter_map(|outcome| outcome.map_err(|e| report.warn(e.to_string())).ok());
    reached.collect()
}

async fn backup(target: &TargetArgs, ui: &Ui) -> Result<()> {
    let target = target.require(ui).await?;
    target.announce(&ui.report);
    let flags = target.flags();
    let standing = Standing::of(&target.id, &target.provider).await?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let store = store(&target.id, &target.provider)?;
    let backup = match &target.provider {
        AnyProvider::Local(_) => {
            let _lock = Lock::take(&state::cluster_dir(&target.id)?, &command)?;
            take(&standing, &store, &ui.report).await?
        }
        AnyProvider::Aws(provider) => {
            let lock = AwsLock::take(&provider.aws, &command, false).await?;
            lock.during(&ui.report, ui.interrupt.or(take(&standing, &store, &ui.report))).await?
        }
    };
    let row = Row::of(backup, store.place(), None);
    if ui.json {
        return ui.result(&row);
    }
    let Backup { name: taken, revision, size, .. } = &row.backup;
    ui.print(format!(
        "{taken}: revision {revision}, {}, in {}.\n\nNext:\n  kup etcd list {flags}\n  kup etcd restore {taken} {flags}",
        bytes(*size),
        row.place
    ));
    Ok(())
}

/// Takes one by hand, by somebody who holds the cluster's lock.
async fn take(standing: &Standing, store: &AnyStore, report: &Report) -> Result<Backup> {
    let span = report.step("etcd backup");
    span.waiting("masters to let kup in");
    let masters = masters(standing, report).await;
    let taking = Taking { cluster: &standing.cluster, pki: standing.pki(), store, reason: Reason::Hand };
    let taken = taking.run(&masters, &span, report).await.and_then(|taken| {
        taken.ok_or_else(|| {
            Error::new(format!("no etcd of cluster {} answers", standing.id.name))
                .hint(format!("`kup status {0}` says why, `kup up {0}` mends it", standing.id.flags()))
        })
    });
    span.close(taken)
}

async fn list(target: &TargetArgs, ui: &Ui) -> Result<()> {
    let Target { id, provider } = target.require(ui).await?;
    let rows = rows(&id, &provider, &ui.report).await?;
    if ui.json {
        return ui.result(&rows);
    }
    if rows.is_empty() {
        ui.print(ui.same().complete("There is no snapshot yet; `kup etcd backup` takes one."));
        return Ok(());
    }
    let rows = rows.into_iter().map(|row| {
        let Row { backup, place, .. } = row;
        let taken = when(backup.taken());
        [backup.name, taken, backup.revision.to_string(), bytes(backup.size), backup.reason.to_string(), backup.kubernetes, place]
    });
    ui.print(table(["NAME", "TAKEN (UTC)", "REVISION", "SIZE", "WHY", "KUBERNETES", "WHERE"], rows));
    Ok(())
}

/// What a store has. What is odd there is told.
async fn kept(store: &AnyStore, report: &Report) -> Result<Vec<Row>> {
    let listing = store.list().await?;
    listing.odd.iter().for_each(|odd| report.warn(format!("a snapshot can't be used: {odd}")));
    Ok(listing.backups.into_iter().map(|backup| Row::of(backup, store.place(), None)).collect())
}

/// All of a cluster, oldest first: what is kept, and on this host also what its masters keep, as far as they can be asked.
async fn rows(id: &ClusterId, provider: &AnyProvider, report: &Report) -> Result<Vec<Row>> {
    let mut rows = kept(&store(id, provider)?, report).await?;
    // Without machines nothing is on them.
    if let AnyProvider::Local(provider) = provider
        && let Ok(standing) = Standing::of(id, provider).await
    {
        let masters = masters(&standing, report).await;
        let (listings, errors) = Masters(&masters).list().await;
        errors.iter().for_each(|error| report.warn(error.to_string()));
        for (master, listing) in listings {
            listing.odd.iter().for_each(|odd| report.warn(format!("a snapshot on {master} can't be used: {odd}")));
            let row = |backup| Row::of(backup, standing.short(&master).to_owned(), Some(master.clone()));
            rows.extend(listing.backups.into_iter().map(row));
        }
    }
    rows.sort_by(|a, b| a.backup.name.cmp(&b.backup.name));
    Ok(rows)
}

/// `2026-11-26 13:15:00`
fn when(time: OffsetDateTime) -> String {
    time.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")).unwrap_or_default()
}

/// `1.3 MiB`
fn bytes(size: u64) -> String {
    match size {
        ..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{} KiB", size.div_ceil(1024)),
        _ => format!("{}.{} MiB", size >> 20, ((size & 0xf_ffff) * 10) >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!([bytes(7), bytes(2000), bytes(1 << 20), bytes(1_400_000)], ["7 B", "2 KiB", "1.0 MiB", "1.3 MiB"]);
        assert_eq!(when(OffsetDateTime::UNIX_EPOCH), "1970-01-01 00:00:00");
    }
}
