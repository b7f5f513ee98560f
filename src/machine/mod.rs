//! A host that kup can run commands on, and what is needed to talk to it.

pub mod dns_query;
pub mod facts;
pub mod files;
pub mod host;
pub mod own;
pub mod place;
mod registries;
pub mod ssh;
pub mod topology;
pub mod transfer;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the control plane (and is a tainted node, unless there are no minions).
    Master,
    /// Runs workloads.
    Minion,
    /// Spreads the users' calls over several masters; no node.
    Balancer,
}

impl Role {
    /// The word used in names, labels and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Minion => "minion",
            Role::Balancer => "balancer",
        }
    }

    /// Whether its machines are nodes of the cluster.
    pub const fn is_node(self) -> bool {
        !matches!(self, Role::Balancer)
    }
}

/// A machine that a provider made, with all that is needed to reach it safely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Its name, which is its host name and its Node's name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The address by which the cluster's machines reach it, and kup unless there is one [outside](InCloud::outside).
    pub address: Ipv4Addr,
    /// Where its SSH server listens.
    pub ssh_port: u16,
    /// The user to log in as.
    pub user: String,
    /// Its SSH host key in OpenSSH's one-line form (`ssh-ed25519 AAAA…`), known before the first connection.
    pub host_key: String,
    /// How it gets the bundle's files.
    pub bundle: BundleAccess,
    /// What it has beside, if it stands in a cloud.
    #[serde(flatten)]
    pub cloud: Option<InCloud>,
}

impl Machine {
    /// What it is called among the cluster's resources in a cloud, if that is another name: `master-1`.
    pub fn called(&self) -> Option<&str> {
        self.cloud.as_ref().map(|cloud| cloud.resource.as_str()).filter(|called| *called != self.name)
    }

    /// Whether it sets itself up, by what its cloud tells it, and mends itself so.
    pub fn sets_itself_up(&self) -> bool {
        self.role == Role::Minion && self.cloud.is_some()
    }

    /// The address by which kup reaches it.
    pub fn route(&self) -> Ipv4Addr {
        self.cloud.as_ref().and_then(|cloud| cloud.outside).unwrap_or(self.address)
    }
}

/// What a machine in a cloud has beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InCloud {
    /// By which the cloud's own controller knows it: `aws:///us-west-2a/i-0123456789abcdef0`.
    pub provider_id: String,
    /// What it is called among the cluster's resources: `master-1`.
    pub resource: String,
    /// Its address outside of the cluster's network, if kup and users reach it by that.
    pub outside: Option<Ipv4Addr>,
    /// Names and addresses, beside its own, by which users call the API.
    pub called: Vec<String>,
    /// The id of the volume that etcd's data is on.
    pub etcd_volume: Option<String>,
    /// Where a master is on AWS.
    pub place: Option<files::aws::Place>,
}

/// How a machine gets the bundle's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleAccess {
    /// The verified bundle is mounted read-only at [`BUNDLE_DIR`].
    Mounted,
    /// It is sent over SSH to [`BUNDLE_DIR`].
    Sent,
    /// The machine gets it from the cluster's bucket.
    Fetched,
}

/// Where a machine finds the bundle: `bin/`, `cni/` and `images/` stand below it.
pub const BUNDLE_DIR: &str = "/opt/kup/bundle";

/// The directory on a machine that holds the bundle and nothing that others put there.
pub const KUP_DIR: &str = "/opt/kup";
