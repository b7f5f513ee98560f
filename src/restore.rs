//! The story of `kup etcd restore`: a snapshot in the place of all that a cluster knows, onto the cluster it was taken of or another one.
//!
//! Everything that can fail is done while the cluster still works: the snapshot is checked here and on each master, and made into a data
//! directory there. Then all that calls etcd is stopped on all masters, the directories change places, and the cluster is brought up as by
//! `kup up`. What etcd had stays on the masters until all is well. The new members are of a cluster of a new identity, so that none of them
//! ever talks to one with the old data; revisions jump ahead and everything before is compacted, so that no watch goes on as if nothing had
//! happened. Whoever is killed in between does all of it again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::backup::take::Taking;
use crate::backup::{AnyStore, Reason, Snapshot};
use crate::bootstrap::STEPS;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::machine::ssh::Ssh;
use crate::machine::topology::Topology;
use crate::report::Report;
use crate::standing::Standing;
use crate::up::{Until, Up};

pub mod aws;
pub mod local;
mod masters;
mod minions;
mod settle;

/// How far revisions jump: further than any cluster writes while a backup of it is of use (a thousand a second for eleven days).
const BUMP: u64 = 1_000_000_000;

/// How long logging in to the machines may take once they run; each has a limit of its own below this.
const CONNECT: Duration = Duration::from_secs(60);

/// What brings a cluster's machines to where a restore needs them. Implemented once per provider.
#[allow(async_fn_in_trait, reason = "whoever calls it waits for it; nothing of it goes to another thread")]
pub trait Bring {
    /// Does what `kup up` does, up to a step (all of it with none), as part of a restore.
    async fn up(&self, until: Option<&'static str>, report: &Report) -> Result<()>;
    /// The cluster with its machines.
    async fn standing(&self) -> Result<Standing>;
}

/// What brings a cluster up to a step, all of it with none, as part of a restore.
fn up_to(cluster: Cluster, until: Option<&str>, patience: Option<Duration>) -> Up {
    let until = until.and_then(|name| STEPS.iter().position(|step| step.name == name)).map(Until::Step);
    Up { until, patience, restoring: true, ..Up::of(cluster) }
}

/// What is to be restored, and how.
pub struct Restore {
    /// The snapshot, checked.
    pub snapshot: Snapshot,
    /// What the user says to have it restored, after `kup etcd restore`: what another run is told to type.
    pub again: String,
    /// Have all Secrets left out, since nobody can read them.
    pub drop_secrets: bool,
    /// Back up first what is there.
    pub back_up: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The backup of what was there before.
    pub backup: Option<String>,
    /// The Secrets that were left out: namespace/name.
    pub dropped_secrets: Vec<String>,
    /// Nodes that were in the snapshot and have no machine here.
    pub removed_nodes: Vec<String>,
}

impl Restore {
    /// Does it, by somebody who holds the cluster's lock.
    pub async fn run(&self, cluster: &impl Bring, store: &AnyStore, report: &Report) -> Result<Restored> {
        let span = report.step("machines");
        span.waiting("all of them to run and to have their files");
        let unchanged = "nothing was stopped, and etcd has what it had";
        let ready = cluster.up(Some("files"), &Report::silent()).await;
        span.close(ready.map_err(|e| e.left(unchanged)))?;
        let standing = cluster.standing().await?;
        let (masters, nodes) = connect(&standing).await.map_err(|e| e.left(unchanged))?;
        // While the API still answers, since it knows their host keys.
        let reached = minions::reach(&standing, Vec::new()).await;
        let backup = self.save(&standing, &masters, store, report).await.map_err(|e| e.left(unchanged))?;
        let topology = Topology::of(standing.masters().map(|m| &m.machine));
        let span = report.step("snapshot");
        let token = token(&standing.id.name)?;
        let prepared = masters::prepare(&masters, &topology, &self.snapshot, &token, BUMP, &span).await;
        span.close(prepared.map_err(|e| e.left(unchanged)))?;

        let machines = Machines { masters, nodes, minions: reached };
        let outcome = self.replace(cluster, &standing, machines, &token, report).await;
        let (dropped_secrets, removed_nodes) = outcome.map_err(|e| self.resumable(e, &standing, backup.as_deref()))?;
        Ok(Restored { backup, dropped_secrets, removed_nodes })
    }

    /// Backs up what is there, if there is anything that answers.
    async fn save(&self, standing: &Standing, masters: &[Ssh], store: &AnyStore, report: &Report) -> Result<Option<String>> {
        if !self.back_up {
            return Ok(None);
        }
        let span = report.step("etcd backup");
        let taking = Taking { cluster: &standing.cluster, pki: standing.pki(), store, reason: Reason::Restore };
        match taking.run(masters, &span, report).await {
            Ok(Some(backup)) => {
                span.done_with(backup.name.as_str());
                Ok(Some(backup.name))
            }
            Ok(None) => {
                span.done_with("none");
                report.warn("etcd does not answer: what it has now is not backed up; it stays on the masters until all is well");
                Ok(None)
            }
            Err(error) => {
                span.close(Err(error.within("what is there now could not be backed up").hint("`--no-backup` goes on without")))
            }
        }
    }

    async fn replace(
        &self,
        cluster: &impl Bring,
        standing: &Standing,
        Machines { masters, nodes, minions }: Machines,
        token: &str,
        report: &Report,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let first = masters.first().ok_or_else(|| Error::new(format!("cluster {} has no master", standing.id.name)))?;
        let span = report.step("etcd");
        let placed = async {
            masters::replace(&masters, token, &self.again, &span).await?;
            // Before anything starts: what a node knew is of no use whatever comes next.
            masters::forget(&nodes, &span).await?;
            span.waiting("etcd to start on all masters");
            cluster.up(Some("etcd"), &Report::silent()).await?;
            masters::forget_leaders(first).await?;
            if self.drop_secrets { masters::drop_secrets(first).await } else { Ok(Vec::new()) }
        };
        let placed = placed.await;
        let dropped = span.close(placed)?;
        let span = report.step("API");
        let removed = async {
            span.waiting("the API server");
            cluster.up(Some("api"), &Report::silent()).await?;
            // Before any controller or pod sees it.
            settle::trust(standing, &span).await?;
            settle::revoke(standing, &span).await?;
            let names: BTreeSet<&str> =
                standing.machines.iter().filter(|m| m.machine.role.is_node()).map(|m| m.machine.name.as_str()).collect();
            let removed = settle::remove_foreign(standing, &names, &span).await?;
            minions::wake(cluster, standing, minions, &span, report).await;
            Ok(removed)
        };
        let removed = removed.await;
        let removed = span.close(removed)?;
        cluster.up(None, report).await?;
        masters::finish(&masters).await?;
        Ok((dropped, removed))
    }

    fn resumable(&self, error: Error, standing: &Standing, backup: Option<&str>) -> Error {
        let flags = standing.id.flags();
        let left = "the restore is half done; what etcd had before is in /var/lib/etcd/member.kup-old on each master";
        let saved = backup.map(|backup| format!(", and in the backup {backup}")).unwrap_or_default();
        let error = Error { hints: Vec::new(), ..error };
        let error = error.left(format!("{left}{saved}")).hint(format!("`kup etcd restore {} {flags}` does it again", self.again));
        match backup {
            Some(backup) => error.hint(format!("`kup etcd restore {backup} {flags}` brings back what was there")),
            None => error,
        }
    }
}

/// The machines of a cluster, logged in to.
struct Machines {
    masters: Vec<Ssh>,
    /// All nodes that kup sets up, masters included.
    nodes: Vec<Ssh>,
    /// Minions that set themselves up, as far as they were reached.
    minions: Vec<Ssh>,
}

/// Logs in to all masters, and to all nodes that kup sets up, masters included.
///
/// # Errors
/// One that does not answer: a snapshot is restored on all masters or on none.
async fn connect(standing: &Standing) -> Result<(Vec<Ssh>, Vec<Ssh>)> {
    let ours = standing.machines.iter().filter(|m| m.machine.role.is_node() && !m.machine.sets_itself_up());
    let all = ours.map(|found| standing.connect(found));
    let all = tokio::time::timeout(CONNECT, futures::future::try_join_all(all));
    let nodes = all.await.map_err(|_| Error::new(format!("not all machines let kup in within {} s", CONNECT.as_secs())))??;
    let masters = nodes.iter().filter(|ssh| ssh.machine().role == Role::Master).cloned().collect();
    Ok((masters, nodes))
}

/// The identity of the etcd cluster that the restored members form: another one each time.
fn token(cluster: &str) -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::new("no random numbers").why(e))?;
    Ok(format!("{cluster}-{}", hex::encode(bytes)))
}
