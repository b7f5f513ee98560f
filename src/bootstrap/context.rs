//! What all steps share: the cluster, its PKI, the machines that have come so far, and the API once it answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use super::api::{ApiClient, Nodes};
use super::joining::Minions;
use crate::backup::Place;
use crate::backup::take::BeforeChange;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::machine::facts::Facts;
use crate::machine::files::Images;
use crate::machine::ssh::{LoginKey, Ssh};
use crate::machine::topology::{self, Topology};
use crate::machine::transfer::Source;
use crate::machine::{Machine, Role};
use crate::pki::{Pki, layout};
use crate::report::Report;

/// Shared by all steps of one run.
pub struct Context {
    /// What is wanted.
    pub cluster: Cluster,
    /// The system's images.
    pub images: Images,
    /// The bundle, for machines that don't mount it.
    pub bundle: Arc<crate::bundle::Bundle>,
    /// The cluster's PKI.
    pub pki: Arc<Pki>,
    /// By which kup logs in to machines.
    pub login: LoginKey,
    /// Where progress goes.
    pub report: Report,
    /// Who makes minions that set themselves up, if there are such.
    pub minions: Option<Arc<dyn Minions>>,
    /// How long to wait for any one thing, if the user said so.
    pub patience: Option<Duration>,
    /// Where machines that fetch the bundle get it from, if somebody puts it there.
    pub source: Option<Source>,
    /// Where masters keep the snapshots that they take of etcd.
    pub backups: Place,
    /// Where one goes that is taken before a change; none is taken without.
    pub before_change: Option<BeforeChange>,
    /// Whether this run is part of a restore, so that one that was begun does not stop it.
    pub restoring: bool,
    hosts: watch::Sender<BTreeMap<String, Arc<Host>>>,
    changed: AtomicBool,
    api: OnceCell<ApiClient>,
    nodes: Mutex<Option<watch::Receiver<Nodes>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    members: tokio::sync::Mutex<()>,
}

/// A machine under bootstrap.
pub struct Host {
    /// The machine.
    pub machine: Machine,
    ssh: OnceCell<Ssh>,
    facts: OnceCell<Facts>,
    changed: AtomicBool,
}

impl Host {
    fn new(machine: Machine) -> Host {
        Host { machine, ssh: OnceCell::new(), facts: OnceCell::new(), changed: AtomicBool::new(false) }
    }

    /// The connection that the step `connect` made.
    pub fn ssh(&self) -> Result<&Ssh> {
        self.ssh.get().ok_or_else(|| Error::new(format!("{} is not connected yet", self.machine.name)))
    }

    /// What the step `connect` found on it.
    pub fn facts(&self) -> Result<&Facts> {
        self.facts.get().ok_or_else(|| Error::new(format!("nothing is known of {} yet", self.machine.name)))
    }

    /// Remembers that something on it was not as it should be and has been changed.
    pub fn mark_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }
}

/// The right to restart units on a master; held until what was restarted works again.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Context {
    /// For one run.
    pub fn new(
        cluster: Cluster,
        images: Images,
        bundle: Arc<crate::bundle::Bundle>,
        pki: Arc<Pki>,
        login: LoginKey,
        report: Report,
    ) -> Context {
        Context {
            cluster,
            images,
            bundle,
            pki,
            login,
            report,
            minions: None,
            patience: None,
            source: None,
            backups: Place::default(),
            before_change: None,
            restoring: false,
            hosts: watch::Sender::default(),
            changed: AtomicBool::new(false),
            api: OnceCell::new(),
            nodes: Mutex::default(),
            turn: Arc::default(),
            members: tokio::sync::Mutex::default(),
        }
    }

    /// How long a wait may take: what the user said, or else the wait's own `usual` limit.
    pub fn deadline(&self, usual: Duration) -> Duration {
        self.patience.unwrap_or(usual)
    }

    /// Takes in a machine that the provider made.
    pub fn add(&self, machine: Machine) -> Arc<Host> {
        let host = Arc::new(Host::new(machine));
        self.hosts.send_modify(|hosts| drop(hosts.insert(host.machine.name.clone(), host.clone())));
        host
    }

    /// All machines that have come so far, by name.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.hosts.borrow().values().cloned().collect()
    }

    /// The nodes that have come so far, by name.
    pub fn node_hosts(&self) -> Vec<Arc<Host>> {
        self.hosts().into_iter().filter(|h| h.machine.role.is_node()).collect()
    }

    /// Remembers that something in the cluster was not as it should be and has been changed.
    pub fn mark_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether any step has changed anything, on any machine or in the cluster.
    pub fn changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed) || self.hosts().iter().any(|h| h.changed.load(Ordering::Relaxed))
    }

    /// The masters that have come so far.
    pub fn masters(&self) -> Vec<Arc<Host>> {
        self.hosts().into_iter().filter(|h| h.machine.role == Role::Master).collect()
    }

    /// Remembers what the step `connect` made and found.
    pub fn connected(&self, host: &Host, ssh: Ssh, facts: Facts) {
        // Connecting twice is no error: the first connection stays.
        let _ = host.ssh.set(ssh);
        let _ = host.facts.set(facts);
        self.hosts.send_modify(|_| {});
    }

    /// All masters, once each is connected (the step `connect` has its own deadline).
    pub async fn connected_masters(&self) -> Vec<Arc<Host>> {
        let masters = usize::from(self.cluster.masters.count);
        let mut seen = self.hosts.subscribe();
        let connected = |h: &&Arc<Host>| h.machine.role == Role::Master && h.facts.initialized();
        // The sender lives as long as this context: waiting can't fail.
        let _ = seen.wait_for(|hosts| hosts.values().filter(connected).count() >= masters).await;
        self.masters()
    }

    /// Whether masters take turns when units are restarted: so that, of several, all but one answer at any time.
    pub fn takes_turns(&self, host: &Host) -> bool {
        host.machine.role == Role::Master && self.cluster.masters.count > 1
    }

    /// Waits for the right to restart units on a master.
    pub async fn turn(&self) -> Turn {
        self.turn.clone().lock_owned().await
    }

    /// Waits for the right to change etcd's members: etcd takes in one learner at a time.
    pub async fn members(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.members.lock().await
    }

    /// Has etcd backed up, once in this run, before something is done to its members, or it or an API server is restarted.
    pub async fn back_up(&self) {
        // The restore has seen to that.
        let Some(before_change) = self.before_change.as_ref().filter(|_| !self.restoring) else { return };
        let masters: Vec<Ssh> = self.masters().iter().filter_map(|host| host.ssh().ok().cloned()).collect();
        before_change.once(&self.cluster, &self.pki, &masters, &self.report).await;
    }

    /// Who the masters are and what stands in front of them; waits until all of these have come (the provider's own deadline bounds that).
    pub async fn topology(&self) -> Topology {
        let expected = topology::wanted(&self.cluster).filter(|(role, _)| *role != Role::Minion).count();
        let mut seen = self.hosts.subscribe();
        // The sender lives as long as this context: waiting can't fail.
        let _ = seen.wait_for(|hosts| hosts.values().filter(|h| h.machine.role != Role::Minion).count() >= expected).await;
        Topology::of(self.hosts().iter().map(|h| &h.machine))
    }

    /// kup's own client of the API, at the first master.
    pub async fn api(&self) -> Result<&ApiClient> {
        self.api
            .get_or_try_init(|| async {
                self.topology().await;
                let masters = self.masters();
                let first = masters.first().ok_or_else(|| Error::new("the cluster has no master"))?;
                ApiClient::new(first.machine.route(), &self.pki.cluster.pair.cert, &layout::bootstrapper(&self.pki)?)
            })
            .await
    }

    /// All Nodes as they change; one watch for all who ask.
    pub async fn nodes(&self) -> Result<watch::Receiver<Nodes>> {
        let api = self.api().await?;
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(nodes.get_or_insert_with(|| api.nodes()).clone())
    }
}
