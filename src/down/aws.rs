//! The story of `kup down` on AWS, which needs nothing but a login, a region and a name.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

use crate::aws::census::{self, Maker, Thing};
use crate::aws::foreign::{self, Foreign};
use crate::aws::leftovers::{self, Volumes};
use crate::aws::lock::Lock;
use crate::aws::resource;
use crate::aws::ssh_key;
use crate::error::{Error, Result};
use crate::graph::{Entry, Left, sweep};
use crate::interrupt::Interrupt;
use crate::kubeconfig;
use crate::provider::ClusterId;
use crate::provider::aws::AwsProvider;
use crate::report::Report;
use crate::state;
use crate::up::aws::{cost, down};
use crate::up::context_name;

/// The kind whose thing holds the lock, and therefore goes last.
const BUCKET: &str = "bucket";
/// How long AWS may still list what is gone.
const GHOSTS: Duration = Duration::from_secs(30);
/// How often what Kubernetes makes while it is being stopped is looked for again.
const ROUNDS: usize = 3;

/// What stands of a cluster, and what is in its way.
pub struct Seen {
    /// By the kinds' own lists.
    pub entries: Vec<Entry>,
    /// By the census: these, and what Kubernetes made.
    pub things: Vec<Thing>,
    /// In the cluster's own VPC, but not the cluster's.
    pub foreign: Vec<Foreign>,
}

impl Seen {
    /// The volumes that the cluster's users claimed.
    pub fn claims(&self) -> Vec<Thing> {
        self.things.iter().filter(|thing| leftovers::is_claim(thing)).cloned().collect()
    }

    /// By which AWS knows all of it.
    pub fn ids(&self) -> BTreeSet<String> {
        let things = self.things.iter().map(|thing| thing.id.clone());
        self.entries.iter().map(|entry| entry.id.clone()).chain(things).collect()
    }

    /// What would be removed of kup's own and of data, and is not among these ids. What Kubernetes makes and ends all the time goes by
    /// itself.
    pub fn beyond(&self, shown: &BTreeSet<String>, volumes: Volumes) -> Vec<String> {
        let entries = self.entries.iter().filter(|entry| !shown.contains(&entry.id));
        let claims = self.claims().into_iter().filter(|claim| volumes == Volumes::Delete && !shown.contains(&claim.id));
        entries.map(|entry| format!("{} ({})", entry.address, entry.id)).chain(claims.map(|claim| claim.line())).collect()
    }

    /// How many things would be removed.
    pub fn count(&self, volumes: Volumes) -> usize {
        let kubernetes = self.things.iter().filter(|t| t.maker == Maker::Kubernetes);
        self.entries.len() + kubernetes.filter(|t| volumes == Volumes::Delete || !leftovers::is_claim(t)).count()
    }
}

/// What stands, and would be removed. Changes nothing.
pub async fn look(provider: &AwsProvider) -> Result<Seen> {
    let aws = &provider.aws;
    let (entries, things) = tokio::try_join!(provider.found(), census::by_kubernetes(aws))?;
    let vpcs = entries.iter().filter(|entry| entry.address.kind == "vpc").map(|vpc| foreign::find(aws, &vpc.id));
    let foreign = futures::future::try_join_all(vpcs).await?.into_iter().flatten().collect();
    Ok(Seen { entries, things, foreign })
}

/// How a removal is done.
pub struct Down {
    /// What becomes of claimed volumes.
    pub volumes: Volumes,
    /// What the user typed, for the lock.
    pub command: String,
    /// Take the lock from whoever holds it.
    pub break_lock: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// How many things there were.
    pub things: usize,
    /// The claimed volumes that are still there, as was wanted.
    pub kept: Vec<Thing>,
}

impl Down {
    /// Removes every trace of a cluster, and proves it. `agree` sees what there is under the lock; its error ends it before anything is
    /// removed.
    ///
    /// # Errors
    /// What is left, why, and what it costs.
    pub async fn run(
        &self,
        provider: &AwsProvider,
        agree: &impl AsyncFn(&Seen) -> Result<()>,
        interrupt: &Interrupt,
        report: &Report,
    ) -> Result<Removed> {
        let span = report.step("lock");
        let lock = span.close(Lock::take_if_there(&provider.aws, &self.command, self.break_lock).await)?;
        // Looked at only now: until then somebody else may have been at work.
        let work = async {
            let span = report.step("found");
            span.waiting("every service to list what is the cluster's");
            let seen = match look(provider).await {
                Ok(seen) => seen,
                Err(error) => return span.close(Err(error)),
            };
            let things = seen.count(self.volumes);
            span.done_with(format!("{things} things"));
            agree(&seen).await?;
            for foreign in &seen.foreign {
                report.warn(format!("{} is in the cluster's VPC, and not the cluster's: it stays", foreign.line()));
            }
            let kept = self.remove(provider, seen, report).await?;
            // An `up` that was killed may have written the private key, and not have come to AWS's half of it.
            ssh_key::release(&ssh_key::user(&provider.aws))?;
            Ok(Removed { things, kept })
        };
        match lock {
            // Without a bucket there is nothing to hold, and nobody makes anything.
            None => interrupt.or(work).await,
            Some(lock) => lock.during(report, interrupt.or(work)).await,
        }
    }

    async fn remove(&self, provider: &AwsProvider, seen: Seen, report: &Report) -> Result<Vec<Thing>> {
        let (aws, kinds) = (&provider.aws, resource::kinds());
        let held: BTreeSet<&str> = seen.foreign.iter().flat_map(|foreign| foreign.holds.iter().map(String::as_str)).collect();
        // A group that a foreign machine is in keeps its rules.
        let groups: BTreeSet<String> = seen
            .entries
            .iter()
            .filter(|entry| entry.address.kind == "security group" && held.contains(entry.id.as_str()))
            .map(|entry| entry.address.name.clone())
            .collect();
        let stays = |entry: &Entry| {
            held.contains(entry.id.as_str())
                || (held.contains(foreign::GATEWAY) && needs_gateway(entry))
                || (entry.address.kind == "security group rules" && groups.contains(&entry.address.name))
        };
        let (mut bucket, mut rest) = (Vec::new(), Vec::new());
        for entry in seen.entries {
            if stays(&entry) {
                continue;
            }
            if entry.address.kind == BUCKET { bucket.push(entry) } else { rest.push(entry) }
        }
        if self.volumes == Volumes::Keep {
            leftovers::keep(aws, &seen.things, report).await;
        }
        let things: Vec<Thing> = seen.things.iter().filter(|thing| !held.contains(thing.id.as_str())).cloned().collect();
        let (mut left, kubernetes) =
            tokio::join!(sweep(rest, &kinds, aws, report), leftovers::remove(aws, &things, self.volumes, report));
        left.extend(kubernetes);
        left.extend(sweep(bucket, &kinds, aws, report).await);
        forget(provider)?;
        self.prove(provider, left, &seen.foreign, &seen.things, report).await
    }

    /// Lists service by service what there still is: nothing, or an error that names it all.
    async fn prove(
        &self,
        provider: &AwsProvider,
        mut left: Vec<Left>,
        foreign: &[Foreign],
        removed: &[Thing],
        report: &Report,
    ) -> Result<Vec<Thing>> {
        let (aws, name) = (&provider.aws, &provider.aws.cluster);
        let kept = |thing: &Thing| self.volumes == Volumes::Keep && leftovers::is_claim(thing);
        let span = report.step("proof");
        span.waiting("every service to list nothing");
        let patience = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(4))
            .with_total_delay(Some(if left.is_empty() && foreign.is_empty() { GHOSTS } else { Duration::ZERO }))
            .without_max_times();
        let look = || async {
            let things = census::take(aws, Some(name)).await.map_err(Err)?;
            if things.iter().all(kept) { Ok(things) } else { Err(Ok(things)) }
        };
        let mut removed: BTreeSet<String> = removed.iter().map(|thing| thing.id.clone()).collect();
        let mut rounds = ROUNDS;
        let things = loop {
            // Of what was removed some lists tell for a while; what the cluster's controllers made until their machine was gone is new.
            let news = |things: &[Thing]| -> Vec<Thing> {
                let new = |thing: &&Thing| thing.maker == Maker::Kubernetes && !kept(thing) && !removed.contains(&thing.id);
                things.iter().filter(new).cloned().collect()
            };
            let ghosts = |outcome: &std::result::Result<Vec<Thing>, Error>| {
                outcome.as_ref().is_ok_and(|things| rounds == 0 || news(things).is_empty())
            };
            match look.retry(patience).when(ghosts).await {
                Ok(claims) if left.is_empty() && foreign.is_empty() => {
                    // Those that came meanwhile are all that is left of the cluster now.
                    leftovers::keep(aws, &claims, report).await;
                    span.done_with("nothing is left");
                    return Ok(claims);
                }
                Err(Ok(things)) if rounds > 0 && !news(&things).is_empty() => {
                    let new = news(&things);
                    rounds -= 1;
                    left.extend(leftovers::remove(aws, &new, self.volumes, report).await);
                    removed.extend(new.into_iter().map(|thing| thing.id));
                }
                Ok(things) | Err(Ok(things)) => break things,
                Err(Err(error)) => {
                    return span
                        .close(Err(error.within(format!("whether anything of cluster {name} is left could not be listed"))));
                }
            }
        };
        let place = format!("{}/{}", aws.identity.account, aws.region);
        let mut error = Error::new(format!("not everything of cluster {name} in {place} could be removed"));
        for one in foreign {
            error = error.why(format!("{} is not the cluster's: it was left alone, and what it stands on", one.line()));
        }
        if !left.is_empty() {
            let Error { why, hints, kind, .. } = Left::error(&left, "");
            error.why.extend(why);
            error.hints.extend(hints);
            error = error.kind(kind);
        }
        if !things.is_empty() {
            let lines: Vec<String> = things.iter().map(Thing::line).collect();
            error = error.left(format!("{}{}", lines.join(", "), cost(&aws.region, &things)));
        }
        for name in foreign.iter().filter_map(|one| one.classic_balancer.as_ref()) {
            error = error.hint(format!("`aws elb delete-load-balancer --region {} --load-balancer-name {name}` removes the classic load balancer, which Kubernetes may have made", aws.region));
        }
        if !foreign.is_empty() {
            error = error.hint("remove what is not the cluster's, or move it elsewhere, if it is yours");
        }
        span.close(Err(error.hint(format!("`{}` tries again", down(aws)))))
    }
}

/// Whether the internet gateway goes only if this does: itself, and the route to it.
fn needs_gateway(entry: &Entry) -> bool {
    matches!(entry.address.kind, "internet gateway" | "route table")
}

/// Removes what this machine knows of the cluster.
fn forget(provider: &AwsProvider) -> Result<()> {
    let id = ClusterId { provider: crate::cluster::spec::ProviderKind::Aws, name: provider.aws.cluster.clone() };
    kubeconfig::unmerge(&context_name(&id))?;
    state::forget(&id)
}
