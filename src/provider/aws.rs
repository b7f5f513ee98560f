//! The AWS provider: EC2 instances, and everything they need, in one region of one account.
//!
//! Everything carries the tag `kup.dev/cluster=<name>` (in IAM the path `/kup/<region>/<name>/`), given in the creating call, and is found
//! again by that alone. What no listing could tell (the config, the image that was chosen) is in the cluster's bucket.

use std::collections::BTreeSet;

use crate::aws::client::Login;
use crate::aws::layout::{Surroundings, layout};
use crate::aws::resource::bucket::Bucket;
use crate::aws::resource::instance::Instance;
use crate::aws::{Aws, census, leftovers, permissions, preflight, resource};
use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;
use crate::error::Result;
use crate::graph::drift::{self, Action};
use crate::graph::{self, Entry, Plan, Resource as _, Verb};
use crate::provider::ClusterId;
use crate::report::Report;

pub mod arrivals;
pub mod checks;
mod finder;
pub mod first_login;
pub mod kept;
pub mod load;
pub mod minions;
pub mod replace;
pub mod secrets;
pub mod shrink;
pub mod surroundings;

use kept::Kept;
use surroundings::Learned;

/// One login to AWS, for one cluster.
#[derive(Debug, Clone)]
pub struct AwsProvider {
    /// The clients.
    pub aws: Aws,
    /// The kept config, if it was read already, so that planning does not read it again.
    early: Option<Option<Kept>>,
}

/// What is to be done, and what it was decided from.
pub struct AwsPlan {
    /// Each thing, and what is done with it.
    pub plan: Plan<Aws>,
    /// What of the world was decided on.
    pub around: Surroundings,
    /// Whether nothing at all was found of the cluster.
    pub new: bool,
    /// Whether what is kept in the bucket is another config, or missing.
    pub keeps: bool,
    /// The kinds that are wanted, or ever were.
    kinds: BTreeSet<String>,
    learned: Learned,
}

impl AwsPlan {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty()
    }

    /// What it does, to be compared with what was confirmed.
    pub fn actions(&self) -> Vec<Action> {
        drift::actions(&self.plan)
    }

    /// How many things are made, changed and removed.
    pub fn count(&self, verb: Verb) -> usize {
        self.plan.items.iter().filter(|item| item.verb == verb).count()
    }
}

/// Where and as whom a config wants AWS to be called.
pub fn login(cluster: &Cluster) -> Login {
    Login { region: cluster.aws.region.clone(), profile: cluster.aws.profile.clone() }
}

fn names(things: Vec<census::Thing>) -> Vec<String> {
    let mut names: Vec<String> =
        things.into_iter().filter(|thing| !leftovers::is_kept(thing)).map(|thing| thing.cluster).collect();
    names.sort();
    names.dedup();
    names
}

impl AwsProvider {
    /// Logs in for this cluster.
    pub async fn connect(cluster: &Cluster) -> Result<AwsProvider> {
        Ok(AwsProvider::of(Aws::connect(&login(cluster), &cluster.name).await?))
    }

    /// With these clients, for their cluster.
    pub fn of(aws: Aws) -> AwsProvider {
        AwsProvider { aws, early: None }
    }

    /// The same login, for another cluster.
    #[must_use]
    pub fn of_cluster(&self, name: &str) -> AwsProvider {
        AwsProvider::of(self.aws.of(name))
    }

    /// Which cluster.
    pub fn id(&self) -> ClusterId {
        ClusterId { provider: ProviderKind::Aws, name: self.aws.cluster.clone() }
    }

    /// The config of the last `up`, if there was one.
    pub async fn kept(&mut self) -> Result<Option<Kept>> {
        let kept = kept::load(&self.aws).await?;
        self.early = Some(kept.clone());
        Ok(kept)
    }

    /// Who calls, for people: `123456789012 as arn:…, in us-west-2`.
    pub fn identity(&self) -> String {
        format!("{} as {}, in {}", self.aws.identity.account, self.aws.identity.arn, self.aws.region)
    }

    /// The names of all clusters of this account and region of which anything is left but volumes that were kept.
    pub async fn clusters(&self) -> Result<Vec<String>> {
        Ok(names(census::take(&self.aws, None).await?))
    }

    /// The names of those that have a bucket, as each has from its first moment on: one call, for `up`.
    pub async fn begun(&self) -> Result<Vec<String>> {
        Ok(names(census::buckets(&self.aws).await?))
    }

    /// All things of the cluster, by the kinds' own lists.
    pub async fn found(&self) -> Result<Vec<Entry>> {
        graph::resource::list_all(&resource::kinds(), &self.aws).await
    }

    /// As [`AwsProvider::found`], but for kinds of which nothing can be there: neither this config nor any one before wanted them.
    async fn found_of(&self, cluster: &Cluster, kept: Option<&Kept>) -> Result<Vec<Entry>> {
        let Some(kept) = kept.filter(|kept| !kept.kinds.is_empty()) else { return self.found().await };
        let wanted = permissions::kinds(cluster);
        let mut kinds = resource::kinds();
        kinds.retain(|kind| wanted.contains(kind.name) || kept.kinds.contains(kind.name));
        graph::resource::list_all(&kinds, &self.aws).await
    }

    /// Compares what is wanted with what stands. Changes nothing. `replace` names what may be made anew.
    ///
    /// # Errors
    /// Everything that [`Plan::new`] refuses, changes that no cluster lives through, and names in `replace` that mean nothing.
    pub async fn plan(&self, cluster: &Cluster, replace: &[String]) -> Result<AwsPlan> {
        let standing = async {
            let kept = match &self.early {
                Some(kept) => kept.clone(),
                None => kept::load(&self.aws).await?,
            };
            Ok((self.found_of(cluster, kept.as_ref()).await?, kept))
        };
        let ((found, kept), caller) = tokio::try_join!(standing, preflight::caller(cluster))?;
        self.compare(cluster, found, kept, caller, replace).await
    }

    async fn compare(
        &self,
        cluster: &Cluster,
        found: Vec<Entry>,
        kept: Option<Kept>,
        caller: Option<std::net::Ipv4Addr>,
        replace: &[String],
    ) -> Result<AwsPlan> {
        if let Some(kept) = &kept {
            crate::up::refuse_what_cannot_change(&kept.cluster, cluster)?;
        }
        // Read after the list of what stands: another `up` on this host writes the key before AWS has its public half.
        let ssh_public = crate::aws::ssh_key::public(cluster)?;
        let (around, learned) = surroundings::find(&self.aws, cluster, &found, kept.as_ref(), caller, ssh_public).await?;
        let wanted = layout(cluster, &around)?;
        let asked = replace::named(&wanted, &found, cluster, replace)?;
        let new = found.is_empty();
        let mut plan = Plan::new(wanted, found, &self.aws, |address| asked.contains_key(address))?;
        replace::force(&mut plan, &asked)?;
        let as_written = serde_yaml::to_value(cluster).ok();
        let mut kinds: BTreeSet<String> = permissions::kinds(cluster).into_iter().map(str::to_owned).collect();
        let keeps = kept.as_ref().is_none_or(|kept| {
            serde_yaml::to_value(&kept.cluster).ok() != as_written || !kinds.is_subset(&kept.kinds) || kept.zones != around.zones
        });
        kinds.extend(kept.into_iter().flat_map(|kept| kept.kinds));
        Ok(AwsPlan { plan, around, new, keeps, kinds, learned })
    }

    /// Fails with what the account, the region or the config lacks for what the plan makes; changes nothing.
    pub async fn preflight(&self, cluster: &Cluster, plan: &AwsPlan, report: &Report) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        checks::run(&self.aws, cluster, &plan.around, &plan.learned, &plan.plan, report).await
    }

    /// Keeps the config, and plans again, under the lock. A plan for a cluster of which there was nothing is still true if the config
    /// could be kept as the first: everybody who makes anything keeps his before. If it does more than `plan` did, `agree` is asked, whose
    /// error ends it before anything is written.
    pub async fn again(
        &self,
        cluster: &Cluster,
        plan: AwsPlan,
        replace: &[String],
        agree: &impl AsyncFn(&[Action]) -> Result<()>,
    ) -> Result<AwsPlan> {
        if plan.new && kept::save(&self.aws, cluster, &plan.around, &plan.kinds, true).await? {
            return self.with_bucket(plan).await;
        }
        let confirmed = plan.actions();
        let kept = kept::load(&self.aws).await?;
        let found = self.found_of(cluster, kept.as_ref()).await?;
        let again = self.compare(cluster, found, kept, plan.around.caller, replace).await?;
        let beyond = drift::beyond(&confirmed, &again.actions());
        if !beyond.is_empty() {
            agree(&beyond).await?;
        }
        if again.keeps {
            kept::save(&self.aws, cluster, &again.around, &again.kinds, false).await?;
        }
        Ok(again)
    }

    /// The plan, knowing that the bucket is there by now: the lock in it has made it.
    async fn with_bucket(&self, mut plan: AwsPlan) -> Result<AwsPlan> {
        let kinds = resource::kinds();
        for item in plan.plan.items.iter_mut().filter(|item| item.address.kind == Bucket::KIND) {
            if let Some(kind) = kinds.iter().find(|kind| kind.name == Bucket::KIND)
                && let Some(found) = kind.list(&self.aws).await?.into_iter().find(|found| found.address == item.address)
            {
                (item.verb, item.found) = (Verb::Keep, Some(found));
            }
        }
        Ok(plan)
    }

    /// Does what the plan says; `tell` hears of each thing as soon as it is there. A master that is of another type than the first that
    /// the config names, since AWS had no such machine, is told of.
    pub async fn apply(
        &self,
        plan: &AwsPlan,
        cluster: &Cluster,
        report: &Report,
        tell: &(dyn Fn(&Entry) + Send + Sync),
    ) -> Result<()> {
        let tell_too = |thing: &Entry| {
            let mut items = plan.plan.items.iter();
            let new = items.any(|item| item.address == thing.address && matches!(item.verb, Verb::Create | Verb::Replace));
            if let Some(words) = taken_instead(thing, &cluster.aws.masters.instance_type).filter(|_| new) {
                report.note(words);
            }
            tell(thing);
        };
        graph::apply_telling(&plan.plan, &resource::kinds(), &self.aws, report, &tell_too).await.map(drop)
    }
}

/// What is said of a new master that is not of the first type.
fn taken_instead(thing: &Entry, first: &str) -> Option<String> {
    let instance = (thing.address.kind == Instance::KIND).then(|| thing.value::<Instance>().ok())??;
    let (name, zone, is) = (&thing.address.name, &instance.zone, &instance.instance_type);
    (is != first).then(|| format!("AWS had no {first} in {zone}: {name} is a {is}, and stays one until `--replace {name}`"))
}
