//! The story of `kup up`: on this host all of it, and in [`aws`] that of AWS.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::addons::{ADDONS, Addon};
use crate::backup::AnyStore;
use crate::backup::store::Directory;
use crate::backup::take::BeforeChange;
use crate::bootstrap::{self, STEPS, Step};
use crate::bundle::{Arch, Bundle};
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::kubeconfig::{self, Access};
use crate::lock::Lock;
use crate::machine::files::Images;
use crate::machine::topology::API_PORT;
use crate::machine::{Machine, Role};
use crate::pki::{Pki, layout};
use crate::provider::local::LocalProvider;
use crate::provider::{Action, ClusterId, Finder, Provider, Verb};
use crate::report::Report;
use crate::{replace, retire, saved, state};

pub mod aws;

/// How long the provider may take to say, after a failure, which machines are still there.
const AFTERMATH: Duration = Duration::from_secs(10);

/// What `up` was asked to do.
pub struct Up {
    /// The cluster that is wanted.
    pub cluster: Cluster,
    /// Stop after this step.
    pub until: Option<Until>,
    /// Raise limits of this host that are too small.
    pub raise_limits: bool,
    /// Where the bundle may be fetched from instead of upstream.
    pub mirror: Option<reqwest::Url>,
    /// What is to be made anew: on this host machines, by their full names ([`replace::named`]); on AWS as the user wrote it.
    pub replace: Vec<String>,
    /// Take the cluster from whoever is at work on it, on AWS.
    pub break_lock: bool,
    /// How long to wait for any one thing; each wait's own limit if none is given.
    pub patience: Option<Duration>,
    /// What the user typed, for the lock.
    pub command: String,
    /// It is part of a restore of etcd.
    pub restoring: bool,
}

/// The step after which `up` stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All that the provider makes is there.
    Infrastructure,
    /// The machines run.
    Machines,
    /// A bootstrap step, as an index into [`STEPS`].
    Step(usize),
}

/// What came of it.
pub enum Outcome {
    /// The cluster is ready.
    Ready {
        /// How to reach it.
        access: Access,
        /// Whether anything had to be made, started or changed.
        changed: bool,
    },
    /// It was stopped where it was asked to.
    Stopped,
}

impl Up {
    /// All of this cluster, with nothing else said.
    pub fn of(cluster: Cluster) -> Up {
        Up {
            cluster,
            until: None,
            raise_limits: false,
            mirror: None,
            replace: Vec::new(),
            break_lock: false,
            patience: None,
            command: String::new(),
            restoring: false,
        }
    }

    /// Whose cluster this is.
    pub fn id(&self) -> ClusterId {
        ClusterId { provider: self.cluster.provider, name: self.cluster.name.clone() }
    }

    /// Who makes its machines.
    pub fn provider(&self) -> LocalProvider {
        LocalProvider::new(self.cluster.local.engine).raising_limits(self.raise_limits)
    }

    /// What would be done, in order. Changes nothing.
    pub async fn plan(&self, provider: &LocalProvider) -> Result<Vec<Action>> {
        let before = saved::load(&self.id())?;
        if let Some(before) = &before {
            refuse_what_cannot_change(before, &self.cluster)?;
        }
        let mut plan = replace::planned(provider.plan(&self.cluster).await?, &self.replace);
        plan.extend(before.iter().flat_map(|before| addon_changes(before, &self.cluster)));
        Ok(plan)
    }

    /// Makes the cluster be as wanted: the same call starts, finishes and repairs.
    pub async fn run(&self, provider: LocalProvider, plan: &[Action], report: &Report) -> Result<Outcome> {
        let _lock = Lock::take(&state::cluster_dir(&self.id())?, &self.command)?;
        self.run_locked(provider, plan, report).await
    }

    /// As [`Up::run`], by somebody who holds the cluster's lock.
    pub async fn run_locked(&self, provider: LocalProvider, plan: &[Action], report: &Report) -> Result<Outcome> {
        let id = self.id();
        let span = report.step("host");
        span.waiting("what it has and what it lacks");
        span.close(provider.preflight(&self.cluster).await)?;
        let bundle =
            Arc::new(Bundle::ensure(&self.cluster.kubernetes.version, Arch::host()?, self.mirror.clone(), report).await?);
        let provider = provider.with_bundle(&bundle.dir);
        saved::save(&id, &self.cluster)?;
        let access_now = async || {
            let pki = saved::pki(&id)?;
            Ok((access(&id, &pki, &provider).await?, pki))
        };
        replace::remove(&id, plan, &provider, &bundle, self.patience, access_now, report).await.map_err(|e| self.resumable(e))?;

        let (sender, machines) = mpsc::unbounded_channel();
        let (complete, steps) = self.steps();
        let work = async {
            tokio::try_join!(
                provider.provision(&self.cluster, report, sender),
                self.bootstrap(&id, &provider, bundle.clone(), steps, machines, report)
            )
        };
        let ((), (changed, machines)) = work.await.map_err(|e| self.resumable(e))?;
        if !complete {
            return Ok(Outcome::Stopped);
        }
        let access = access_to(&id, &machines, &saved::pki(&id)?)?;
        retire::surplus(&id, plan, &provider, &bundle, &access, self.patience, report).await?;
        let span = report.step("kubeconfig");
        span.waiting("its lock");
        span.close(kubeconfig::merge(&access))?;
        Ok(Outcome::Ready { access, changed: changed || !is_empty(plan) })
    }

    /// The steps to run, and whether they are all.
    fn steps(&self) -> (bool, &'static [Step]) {
        match self.until {
            None => (true, STEPS),
            Some(Until::Infrastructure | Until::Machines) => (false, &[]),
            Some(Until::Step(last)) => (false, STEPS.get(..=last).unwrap_or(STEPS)),
        }
    }

    /// Runs the steps on the machines as they come. Says whether that changed anything, and which machines came.
    async fn bootstrap(
        &self,
        id: &ClusterId,
        provider: &LocalProvider,
        bundle: Arc<Bundle>,
        steps: &[Step],
        machines: mpsc::UnboundedReceiver<Machine>,
        report: &Report,
    ) -> Result<(bool, Vec<Machine>)> {
        let images = Images::of(&bundle.manifest)?;
        let pki = {
            let (id, span) = (id.clone(), report.step("certificates"));
            let pki = tokio::task::spawn_blocking(move || saved::pki(&id)).await.context("making the certificates broke off")?;
            span.close(pki)?
        };
        let machines = first(machines).await;
        if steps.is_empty() {
            return Ok((false, Vec::new()));
        }
        // The provider makes the key before the first machine.
        let login = saved::login_key(id, &self.cluster)?;
        let mut context = bootstrap::Context::new(self.cluster.clone(), images, bundle, Arc::new(pki), login, report.clone());
        context.patience = self.patience;
        context.restoring = self.restoring;
        context.before_change = Some(BeforeChange::new(AnyStore::Directory(Directory::of(&state::cluster_dir(id)?))));
        match bootstrap::run(&context, steps, machines).await {
            Ok(()) => Ok((context.changed(), context.hosts().iter().map(|host| host.machine.clone()).collect())),
            Err(e) => Err(lost(e, &context, provider).await),
        }
    }

    fn resumable(&self, error: Error) -> Error {
        let name = &self.cluster.name;
        if error.left.is_some() {
            return error;
        }
        error
            .left(format!("what stands of cluster {name}; it costs nothing but this machine's memory and disk"))
            .hint(format!("`kup up --name {name}` goes on from here, `kup down --name {name}` removes it"))
    }
}

/// Says of the machines that came whether one has stopped or gone since: then that is why the steps failed.
async fn lost(error: Error, context: &bootstrap::Context, provider: &LocalProvider) -> Error {
    // The error at hand is the news: a provider that can't be asked now adds nothing to it.
    let asked = tokio::time::timeout(AFTERMATH, provider.discover(&context.cluster.name)).await;
    let Ok(Ok(found)) = asked else { return error };
    let gone = context.hosts().into_iter().filter_map(|host| {
        let name = &host.machine.name;
        match found.machines.iter().find(|f| f.machine.name == *name) {
            None => Some(format!("the machine {name} has been removed in the meantime")),
            Some(f) if !f.running => Some(format!("the machine {name} has stopped in the meantime")),
            Some(_) => None,
        }
    });
    gone.fold(error, Error::why)
}

/// Waits for the first machine without taking it: a channel that hands it on with those to come.
async fn first(mut machines: mpsc::UnboundedReceiver<Machine>) -> mpsc::UnboundedReceiver<Machine> {
    let (sender, receiver) = mpsc::unbounded_channel();
    if let Some(machine) = machines.recv().await {
        // Both ends are here: sending can't fail, and if the receiver is dropped later nobody needs the machines.
        let _ = sender.send(machine);
        tokio::spawn(async move {
            while let Some(machine) = machines.recv().await {
                if sender.send(machine).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// How to reach a cluster: through what stands in front of its masters, or else the first master that stands, with the administrator's login.
pub async fn access(id: &ClusterId, pki: &Pki, provider: &impl Finder) -> Result<Access> {
    let found = provider.discover(&id.name).await?;
    let machines: Vec<Machine> = found.machines.into_iter().map(|found| found.machine).collect();
    access_to(id, &machines, pki)
}

/// As [`access`], to a cluster of these machines, by name.
fn access_to(id: &ClusterId, machines: &[Machine], pki: &Pki) -> Result<Access> {
    let masters: Vec<&Machine> = machines.iter().filter(|m| m.role == Role::Master).collect();
    let called = masters.iter().filter_map(|m| m.cloud.as_ref()).flat_map(|cloud| &cloud.called);
    // In a cloud a load balancer, which has a name, stands in front of several.
    let balancer = called.filter(|called| masters.len() > 1 && called.parse::<IpAddr>().is_err()).min().cloned();
    let machine = machines.iter().find(|m| m.role == Role::Balancer).or_else(|| masters.first().copied());
    let server = balancer.or_else(|| machine.map(|m| m.route().to_string())).ok_or_else(|| {
        Error::new(format!("cluster {} has no master", id.name)).hint(format!("`kup up {}` makes it", id.flags()))
    })?;
    let admin = layout::admin(pki)?;
    Ok(Access {
        context: context_name(id),
        server: format!("https://{server}:{API_PORT}"),
        ca_pem: pki.cluster.pair.cert.clone(),
        cert_pem: admin.cert,
        key_pem: admin.key,
    })
}

/// The name of a cluster's entries in a kubeconfig: `local_<name>`, `aws_<name>`.
pub fn context_name(id: &ClusterId) -> String {
    format!("{}_{}", id.provider.as_str(), id.name)
}

/// Whether a plan changes anything.
pub fn is_empty(plan: &[Action]) -> bool {
    plan.iter().all(|a| a.verb == Verb::Keep)
}

/// The add-ons that a changed config turns on and off.
fn addon_changes(before: &Cluster, now: &Cluster) -> Vec<Action> {
    let changed = ADDONS.iter().filter(|a| a.enabled(before) != a.enabled(now));
    let action = |addon: &Addon| Action {
        verb: if addon.enabled(now) { Verb::Create } else { Verb::Delete },
        kind: "add-on".into(),
        name: addon.name.into(),
        detail: addon.what.into(),
    };
    changed.map(action).collect()
}

/// Whether a plan makes a whole cluster: all of its machines are yet to be created.
pub fn makes_all(plan: &[Action]) -> bool {
    let mut machines = plan.iter().filter(|a| a.kind == "machine").peekable();
    machines.peek().is_some() && machines.all(|a| a.verb == Verb::Create)
}

/// Fields that running machines and their data are built on.
pub(crate) fn refuse_what_cannot_change(before: &Cluster, now: &Cluster) -> Result<()> {
    let fields: [(&str, String, String); 5] = [
        ("kubernetes.version", before.kubernetes.version.clone(), now.kubernetes.version.clone()),
        ("network.pods", before.network.pods.to_string(), now.network.pods.to_string()),
        ("network.services", before.network.services.to_string(), now.network.services.to_string()),
        ("network.dns", before.network.dns.to_string(), now.network.dns.to_string()),
        ("network.domain", before.network.domain.clone(), now.network.domain.clone()),
    ];
    let mut changed: Vec<String> =
        fields.iter().filter(|(_, old, new)| old != new).map(|(field, old, new)| format!("{field}: {old} → {new}")).collect();
    // More masters join the others; fewer would have to leave etcd one by one, while each still serves.
    if now.masters.count < before.masters.count {
        changed.push(format!("masters.count: {} → {} (it can only grow)", before.masters.count, now.masters.count));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let name = &now.name;
    Err(Error::usage(format!("cluster {name} stands already, and this can't be changed in place"))
        .why(changed.join("\n"))
        .hint(format!("give the values it was made with, or `kup down --name {name}` first, or another --name")))
}
