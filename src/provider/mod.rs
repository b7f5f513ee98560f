//! Who makes machines. A provider knows nothing of Kubernetes: it hands on [`Machine`]s as they come.

mod any;
pub mod aws;
pub mod local;

pub use any::AnyProvider;
pub use aws::AwsProvider;
pub use local::LocalProvider;

use std::sync::Arc;

use serde::Serialize;

use crate::cluster::{Cluster, spec::ProviderKind};
use crate::error::Result;
use crate::machine::Machine;
use crate::pki::Pki;
use crate::report::Report;

/// A cluster's identity: which provider, which name. All that `down` needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ClusterId {
    /// Who made it.
    pub provider: ProviderKind,
    /// Its name.
    pub name: String,
}

impl ClusterId {
    /// How a command names it.
    pub fn flags(&self) -> String {
        match self.provider {
            ProviderKind::Local => format!("--name {}", self.name),
            ProviderKind::Aws => format!("--provider aws --name {}", self.name),
        }
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// What would be done.
    pub verb: Verb,
    /// The kind of thing ("network", "machine", "volume").
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What it will be like, or why it changes.
    pub detail: String,
}

/// What a plan does with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It is there and as wanted.
    Keep,
    /// It will be made.
    Create,
    /// It will be removed and made again.
    Replace,
    /// It will be started.
    Start,
    /// It will be removed.
    Delete,
}

/// What stands of a cluster, found again by labels or tags, without any local file.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its machines, running or not, masters first, by name.
    pub machines: Vec<FoundMachine>,
    /// Everything else, as "kind name".
    pub others: Vec<String>,
}

/// A machine that stands, and whether it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundMachine {
    /// The machine.
    #[serde(flatten)]
    pub machine: Machine,
    /// Whether it is running.
    pub running: bool,
}

/// Receives machines while a provider makes them, each as soon as it can be connected to.
pub type MachineSender = tokio::sync::mpsc::UnboundedSender<Machine>;

/// Finds clusters again, with what is kept of them.
#[trait_variant::make(Send)]
pub trait Finder: Sync {
    /// What stands of a cluster.
    async fn discover(&self, name: &str) -> Result<Found>;
    /// The names of all clusters of this provider.
    async fn clusters(&self) -> Result<Vec<String>>;
    /// The config of a cluster's last `up`.
    ///
    /// # Errors
    /// None is kept; the error says what can be done.
    async fn config(&self, id: &ClusterId) -> Result<Cluster>;
    /// A cluster's keys and certificates. Makes none where there are none.
    ///
    /// # Errors
    /// None are kept; the error says what can be done.
    async fn pki(&self, id: &ClusterId) -> Result<Arc<Pki>>;
    /// What a machine last wrote to its console: for errors about a machine that doesn't answer.
    async fn console(&self, cluster: &str, machine: &str) -> Result<String>;
}

/// What a provider can do. Implemented once per provider, in a file of its own.
#[trait_variant::make(Send)]
pub trait Provider: Finder {
    /// Everything that would have to be made, changed or removed for this cluster. Mutates nothing.
    async fn plan(&self, cluster: &Cluster) -> Result<Vec<Action>>;
    /// Makes what the plan names, in parallel, and sends each machine (also those that stood already) as soon as it runs.
    async fn provision(&self, cluster: &Cluster, report: &Report, machines: MachineSender) -> Result<()>;
    /// Removes everything of a cluster, also what is half made; an absent cluster is no error. Returns what could not be removed.
    async fn teardown(&self, name: &str, report: &Report) -> Result<Vec<String>>;
}
