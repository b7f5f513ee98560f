//! What all steps share: the cluster, its PKI, the machines that have come so far, and the API once it answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, watch};

use super::api::{ApiClient, Nodes};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::machine::facts::Facts;
use crate::machine::files::Images;
use crate::machine::ssh::{LoginKey, Ssh};
use crate::machine::topology::Topology;
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
    pub pki: Pki,
    /// By which kup logs in to machines.
    pub login: LoginKey,
    /// Where progress goes.
    pub report: Report,
    hosts: watch::Sender<BTreeMap<String, Arc<Host>>>,
    changed: AtomicBool,
    api: OnceCell<ApiClient>,
    nodes: Mutex<Option<watch::Receiver<Nodes>>>,
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

    /// Remembers connection and facts.
    pub fn connected(&self, ssh: Ssh, facts: Facts) {
        // Connecting twice is no error: the first connection stays.
        let _ = self.ssh.set(ssh);
        let _ = self.facts.set(facts);
    }
}

impl Context {
    /// For one run.
    pub fn new(
        cluster: Cluster,
        images: Images,
        bundle: Arc<crate::bundle::Bundle>,
        pki: Pki,
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
            hosts: watch::Sender::default(),
            changed: AtomicBool::new(false),
            api: OnceCell::new(),
            nodes: Mutex::default(),
        }
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

    /// Who the masters are; waits until all have come (the provider's own deadline bounds that).
    pub async fn topology(&self) -> Topology {
        let masters = usize::from(self.cluster.masters.count);
        let mut seen = self.hosts.subscribe();
        // The sender lives as long as this context: waiting can't fail.
        let _ = seen.wait_for(|hosts| hosts.values().filter(|h| h.machine.role == Role::Master).count() >= masters).await;
        Topology::of(self.hosts().iter().map(|h| &h.machine))
    }

    /// kup's own client of the API, at the first master.
    pub async fn api(&self) -> Result<&ApiClient> {
        self.api
            .get_or_try_init(|| async {
                let topology = self.topology().await;
                let first = topology.masters.first().ok_or_else(|| Error::new("the cluster has no master"))?;
                ApiClient::new(first.address, &self.pki.cluster.pair.cert, &layout::bootstrapper(&self.pki)?)
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
