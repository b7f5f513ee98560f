//! The story of `kup up` on AWS: everything that the machines need and the machines themselves, and a cluster of them. Masters are set up
//! over SSH as they come; minions set themselves up, from what stands in the cluster's bucket.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Outcome, Until, Up, access, access_to, first};
use crate::aws::census::{self, Billed, Thing};
use crate::aws::lock::Lock;
use crate::aws::node_files::Content;
use crate::aws::prices::{Cost, Item, Prices, Usage};
use crate::aws::resource::network_interface::NetworkInterface;
use crate::aws::user_data::bucket_url;
use crate::aws::{Aws, node_store};
use crate::backup::store::Bucket;
use crate::backup::take::BeforeChange;
use crate::backup::{AnyStore, Place};
use crate::bootstrap::{self, Context, joining, ready};
use crate::bundle::{Arch, Bundle};
use crate::error::{Context as _, Error, Kind, Result};
use crate::graph::drift::Action;
use crate::graph::{Entry, Resource as _};
use crate::interrupt::Interrupt;
use crate::kubeconfig;
use crate::machine::Machine;
use crate::machine::files::{self, Credentials, Images};
use crate::machine::topology::{Peer, Topology};
use crate::machine::transfer::Source;
use crate::provider::aws::arrivals::Arrivals;
use crate::provider::aws::minions::OfGroups;
use crate::provider::aws::secrets::Secrets;
use crate::provider::aws::{AwsPlan, AwsProvider, replace, shrink};
use crate::report::{Report, Span};
use crate::{retire, saved};

/// How long AWS may take to say, after a failure, what is there.
const AFTERMATH: Duration = Duration::from_secs(20);

/// The same for a user who has stopped the work and waits: with the lock's return it must fit into [`crate::interrupt::LIMIT`].
const SHORT_AFTERMATH: Duration = Duration::from_secs(3);

/// What the lock is waited for: it is kept in the cluster's bucket, of which another of the same name may only just have gone.
const FOR_LOCK: &str = "the cluster's bucket; S3 gives back the name of one that was removed after a while";

impl Up {
    /// Makes the cluster be as wanted: the same call starts, finishes and repairs. A plan that changes nothing begins without the lock:
    /// its masters are looked at, and set right by what every other call with this config would do too. Whoever has another config has a
    /// plan, or another config to keep, and so the lock. What minions start from is written under the lock in any case. `agree` is as
    /// [`AwsProvider::again`] has it.
    pub async fn on_aws(
        &self,
        provider: &AwsProvider,
        plan: AwsPlan,
        agree: &impl AsyncFn(&[Action]) -> Result<()>,
        interrupt: &Interrupt,
        report: &Report,
    ) -> Result<Outcome> {
        let secrets = Secrets::read(&provider.aws).await?;
        let outcome = match secrets {
            Some(secrets) if plan.is_empty() && !plan.keeps => {
                Lock::refuse_if_held(&provider.aws).await?;
                interrupt.or(self.cluster_of(provider, &plan, secrets, false, report)).await
            }
            _ => {
                let span = report.step("lock");
                span.waiting(FOR_LOCK);
                // Whoever is refused here made nothing: what stands is whoever's who holds the lock.
                let lock = span.close(Lock::take(&provider.aws, &self.command, self.break_lock).await)?;
                let work = async {
                    let plan = provider.again(&self.cluster, plan, &self.replace, agree).await?;
                    // What was read before the lock may be somebody else's work of a moment ago.
                    let secrets = match Secrets::read(&provider.aws).await? {
                        Some(secrets) => secrets,
                        None => Secrets::make(&provider.aws).await?,
                    };
                    self.cluster_of(provider, &plan, secrets, true, report).await
                };
                lock.during(report, interrupt.or(work)).await
            }
        };
        match outcome {
            Err(error) if error.kind == Kind::Interrupted => Err(self.what_is_left(error, provider, SHORT_AFTERMATH).await),
            Err(error) => Err(self.what_is_left(error, provider, AFTERMATH).await),
            Ok(outcome) => Ok(outcome),
        }
    }

    /// As [`Up::on_aws`] without a question, by somebody who holds the cluster's lock.
    ///
    /// # Errors
    /// Also that the cluster's keys are not in its bucket: nobody has brought it up yet.
    pub async fn on_aws_locked(&self, provider: &AwsProvider, report: &Report) -> Result<Outcome> {
        let mut plan = provider.plan(&self.cluster, &self.replace).await?;
        if !plan.is_empty() || plan.keeps {
            provider.preflight(&self.cluster, &plan, report).await?;
            // Nobody else can have been at work since it was made.
            plan = provider.again(&self.cluster, plan, &self.replace, &async |_: &[Action]| Ok(())).await?;
        }
        self.cluster_of(provider, &plan, Secrets::require(&provider.aws).await?, true, report).await
    }

    /// Does what the plan says, and makes a cluster of the machines as they come. `locked` is whether the cluster's lock is held.
    async fn cluster_of(
        &self,
        provider: &AwsProvider,
        plan: &AwsPlan,
        secrets: Secrets,
        locked: bool,
        report: &Report,
    ) -> Result<Outcome> {
        // Before anything is made: minions give up after three minutes without what the bundle's manifest names, and machines are paid for.
        let bundle = Arc::new(self.bundle_of(plan, report).await?);
        files::aws::check(&bundle.manifest)?;
        self.shrink(provider, plan, &secrets, &bundle, report).await?;
        let (things, arriving) = mpsc::unbounded_channel();
        let (sender, machines) = mpsc::unbounded_channel();
        let (interfaces, placed) = mpsc::unbounded_channel();
        let tell = move |thing: &Entry| {
            // Whoever listened may have failed meanwhile, and says so itself.
            let _ = things.send(thing.clone());
            if thing.address.kind == NetworkInterface::KIND {
                let _ = interfaces.send(thing.clone());
            }
        };
        let made = async {
            // The sender ends with the work: then no more machines come.
            let tell = tell;
            provider.apply(plan, &self.cluster, report, &tell).await
        };
        let arrivals =
            Arrivals { aws: &provider.aws, cluster: &self.cluster, around: &plan.around, patience: self.patience, report };
        let work = async {
            tokio::try_join!(
                made,
                arrivals.masters(arriving, sender),
                self.publish(provider, &bundle, &secrets, placed, locked, report),
                self.bootstrap_on_aws(provider, plan, &bundle, &secrets, machines, report)
            )
        };
        let work = work.await;
        // Certificates that were issued are kept whatever came of it: another run goes on with the same.
        let (changed, machines) = match (work, secrets.save(&provider.aws).await) {
            (Ok(((), (), (), made)), Ok(())) => made,
            (Err(error), Err(also)) => return Err(error.why(format!("also: {also}"))),
            (Err(error), Ok(())) | (Ok(_), Err(error)) => return Err(error),
        };
        if self.steps().0 {
            let access = access_to(&self.id(), &machines, &secrets.pki)?;
            for (group, count) in replace::older(&plan.plan)? {
                report.warn(format!(
                    "{count} of the minions of {group} go on as they were made before; `kup up {} --replace {group}` makes them anew, one at a time",
                    provider.aws.flags()
                ));
            }
            let span = report.step("kubeconfig");
            span.waiting("its lock");
            span.close(kubeconfig::merge(&access))?;
            return Ok(Outcome::Ready { access, changed: changed || !plan.is_empty() });
        }
        Ok(Outcome::Stopped)
    }

    /// Takes minions out of groups that become smaller or go, once their pods have moved.
    async fn shrink(
        &self,
        provider: &AwsProvider,
        plan: &AwsPlan,
        secrets: &Secrets,
        bundle: &Bundle,
        report: &Report,
    ) -> Result<()> {
        let surplus = shrink::surplus(&plan.plan)?;
        if surplus.is_empty() {
            return Ok(());
        }
        let access = access(&self.id(), &secrets.pki, provider).await?;
        retire::from_groups(&provider.aws, &surplus, bundle, &access, self.patience, report).await
    }

    /// Makes these minions anew, in a cluster that is as it should be before and after.
    async fn make_minions_anew(
        &self,
        provider: &AwsProvider,
        groups: &[(String, Vec<String>)],
        context: &Context,
        secrets: &Secrets,
    ) -> Result<()> {
        ready::again(context, "ready to make minions anew").await?;
        let access = access(&self.id(), &secrets.pki, provider).await?;
        let joined = async |span: &Span| joining::run(context, span).await.map(drop);
        for group in groups {
            retire::anew(&provider.aws, group, &context.bundle, &access, self.patience, &context.report, joined).await?;
        }
        ready::again(context, ready::STEP.title).await
    }

    async fn bundle_of(&self, plan: &AwsPlan, report: &Report) -> Result<Bundle> {
        let arch = Arch::of_machine(&plan.around.image.architecture)?;
        Bundle::ensure(&self.cluster.kubernetes.version, arch, self.mirror.clone(), report).await
    }

    /// Brings what machines start from into the bucket, as soon as the masters' addresses are known: the bundle for all of them, and for
    /// minions also all else.
    async fn publish(
        &self,
        provider: &AwsProvider,
        bundle: &Arc<Bundle>,
        secrets: &Secrets,
        mut placed: mpsc::UnboundedReceiver<Entry>,
        locked: bool,
        report: &Report,
    ) -> Result<()> {
        let mut masters = Vec::new();
        while masters.len() < usize::from(self.cluster.masters.count) {
            // The provider's own failure says why no more come.
            let Some(thing) = placed.recv().await else { return Ok(()) };
            let address = thing.value::<NetworkInterface>()?.address.parse();
            let address = address.with_context(|| format!("the network interface {} has no address", thing.id))?;
            masters.push(Peer { name: thing.address.name.clone(), address });
        }
        masters.sort_by(|a, b| a.name.cmp(&b.name));
        let topology = Topology { masters, balancer: None, called: Vec::new() };
        let credentials = Credentials::of_joining(&secrets.pki);
        let content = Content::new(&self.cluster, &topology, &bundle.manifest, &credentials)?;
        let due = node_store::look(&provider.aws, content.clone()).await?;
        if due.is_empty() {
            return Ok(());
        }
        let span = report.step("what machines start from");
        let written = if locked {
            due.write(&provider.aws, bundle, &span).await
        } else {
            span.waiting("the cluster's lock");
            match Lock::take(&provider.aws, &self.command, self.break_lock).await {
                // Whoever had it may have written.
                Ok(lock) => {
                    let work =
                        async { node_store::look(&provider.aws, content).await?.write(&provider.aws, bundle, &span).await };
                    lock.during(report, work).await
                }
                Err(error) => Err(error),
            }
        };
        match written {
            Ok(word) => span.done_with(word),
            Err(e) => return span.close(Err(e)),
        }
        Ok(())
    }

    /// Runs the steps on the masters as they come. Says whether that changed anything, and which machines came.
    async fn bootstrap_on_aws(
        &self,
        provider: &AwsProvider,
        plan: &AwsPlan,
        bundle: &Arc<Bundle>,
        secrets: &Secrets,
        machines: mpsc::UnboundedReceiver<Machine>,
        report: &Report,
    ) -> Result<(bool, Vec<Machine>)> {
        let images = Images::of(&bundle.manifest)?;
        let machines = first(machines).await;
        let (_, steps) = self.steps();
        if steps.is_empty() {
            return Ok((false, Vec::new()));
        }
        // It is made before the first machine is.
        let login = saved::login_key(&self.id(), &self.cluster)?;
        let pki = secrets.pki.clone();
        let mut context = Context::new(self.cluster.clone(), images, bundle.clone(), pki, login, report.clone());
        context.patience = self.patience;
        context.minions = Some(Arc::new(OfGroups(provider.aws.clone())));
        context.restoring = self.restoring;
        let source = source(&provider.aws);
        context.backups = backups(source.clone());
        context.source = Some(source);
        context.before_change = Some(BeforeChange::new(AnyStore::Bucket(Bucket::of(provider.aws.clone()))));
        let (complete, anew) = (self.steps().0, replace::minions(&plan.plan)?);
        match steps.split_last() {
            // That all is ready is said of a cluster that nothing more is done with.
            Some((_, before)) if complete && !anew.is_empty() => {
                bootstrap::run(&context, before, machines).await?;
                self.make_minions_anew(provider, &anew, &context, secrets).await?;
            }
            _ => bootstrap::run(&context, steps, machines).await?,
        }
        Ok((context.changed(), context.hosts().iter().map(|host| host.machine.clone()).collect()))
    }

    /// Makes what the plan says. Says whether anything had to be: of two at once, the one who waited may find it made. `agree` is as [`AwsProvider::again`] has it.
    pub async fn infrastructure(
        &self,
        provider: &AwsProvider,
        plan: AwsPlan,
        agree: &impl AsyncFn(&[Action]) -> Result<()>,
        interrupt: &Interrupt,
        report: &Report,
    ) -> Result<bool> {
        if !replace::minions(&plan.plan)?.is_empty() {
            return Err(Error::usage(
                "--replace: minions are made anew by a cluster that works, which --until infrastructure stops before",
            ));
        }
        if plan.is_empty() && !plan.keeps {
            return Ok(false);
        }
        let span = report.step("lock");
        span.waiting(FOR_LOCK);
        let lock = match span.close(Lock::take(&provider.aws, &self.command, self.break_lock).await) {
            Ok(lock) => lock,
            // Nothing of ours was made: what stands is whoever's who holds the lock.
            Err(error) => return Err(error),
        };
        let work = async {
            let plan = provider.again(&self.cluster, plan, &self.replace, agree).await?;
            provider.apply(&plan, &self.cluster, report, &|_| {}).await.map(|()| !plan.is_empty())
        };
        match lock.during(report, interrupt.or(work)).await {
            Ok(changed) => Ok(changed),
            Err(error) if error.kind == Kind::Interrupted => Err(self.what_is_left(error, provider, SHORT_AFTERMATH).await),
            Err(error) => Err(self.what_is_left(error, provider, AFTERMATH).await),
        }
    }

    /// Says what stands now, and what it costs: nothing is removed on its own.
    async fn what_is_left(&self, error: Error, provider: &AwsProvider, patience: Duration) -> Error {
        let (aws, name) = (&provider.aws, &self.cluster.name);
        let place = format!("{}/{}", aws.identity.account, aws.region);
        let until = if self.until == Some(Until::Infrastructure) { " --until infrastructure" } else { "" };
        let again = format!("kup up {}{until}", aws.flags());
        let error = match tokio::time::timeout(patience, census::take(aws, Some(name))).await {
            Ok(Ok(things)) if things.is_empty() => return error.hint(format!("nothing was made; `{again}` tries again")),
            Ok(Ok(things)) => {
                error.left(format!("{} of cluster {name} in {place}{}", counted(&things), cost(&aws.region, &things)))
            }
            // What could not be asked is no reason to hide why the work failed.
            Ok(Err(_)) | Err(_) => {
                error.left(format!("what was made of cluster {name} in {place} until then; AWS could not be asked what that is"))
            }
        };
        error.hint(format!("`{again}` goes on from here, `{}` removes it", down(aws)))
    }
}

/// Where masters get the bundle from.
fn source(aws: &Aws) -> Source {
    Source {
        url: bucket_url(&aws.bucket(), &aws.region, aws.s3_endpoint.as_deref()),
        region: aws.region.clone(),
        account: aws.identity.account.clone(),
    }
}

/// Where masters keep etcd's snapshots: in the same bucket.
fn backups(Source { url, region, account }: Source) -> Place {
    Place::Bucket { url, region, account }
}

/// The command that removes a cluster.
pub fn down(aws: &Aws) -> String {
    format!("kup down {}", aws.flags())
}

/// `1 resource`, `12 resources`.
pub fn counted(things: &[Thing]) -> String {
    if things.len() == 1 { "1 resource".to_owned() } else { format!("{} resources", things.len()) }
}

/// `, about $0.123 an hour, $89.79 a month`; nothing for things that cost nothing by themselves.
pub fn cost(region: &str, things: &[Thing]) -> String {
    let usage: Vec<Usage> = things.iter().filter_map(|thing| usage(&thing.billed)).collect();
    match Prices::in_region(region) {
        _ if usage.is_empty() => String::new(),
        Ok(prices) => format!(", {}", Cost::of(&usage, &prices).words()),
        Err(_) => ", at an unknown price".to_owned(),
    }
}

fn usage(billed: &Billed) -> Option<Usage> {
    let (item, quantity) = match billed {
        Billed::No => return None,
        Billed::Instance(of) => (Item::Instance(of.clone()), 1.0),
        Billed::Volume { size, .. } => (Item::Gp3, f64::from(*size)),
        Billed::Address => (Item::PublicIpv4, 1.0),
        Billed::LoadBalancer(_) => (Item::NetworkLoadBalancer, 1.0),
    };
    Some(Usage { item, quantity })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::aws::census::Maker;

    fn thing(billed: Billed) -> Thing {
        Thing {
            cluster: "a".into(),
            kind: "volume",
            id: "vol-1".into(),
            name: String::new(),
            maker: Maker::Kup,
            billed,
            vpc: None,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn only_what_is_paid_by_the_hour_has_a_cost() {
        assert_eq!(cost("us-west-2", &[thing(Billed::No)]), "");
        assert_eq!(cost("nowhere-1", &[thing(Billed::Instance("t3.small".into()))]), ", at an unknown price");
        let both = [thing(Billed::No), thing(Billed::Instance("t3.small".into()))];
        assert!(cost("us-west-2", &both).contains("an hour"), "{}", cost("us-west-2", &both));
        assert_eq!((counted(&both[..1]), counted(&both)), ("1 resource".to_owned(), "2 resources".to_owned()));
    }
}
