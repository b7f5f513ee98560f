//! Who the cluster's machines are to each other: masters by name and address.

use std::net::Ipv4Addr;

use super::{Machine, Role};
use crate::cluster::Cluster;

/// The name by which nodes reach the API. It stands in every machine's hosts file, with all masters' addresses, so that a
/// changed set of masters changes no kubeconfig. `.internal` is reserved for private use (ICANN, 2024-07-29).
pub const API_NAME: &str = "api.kup.internal";

/// Where API servers listen.
pub const API_PORT: u16 = 6443;

/// A machine as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its host and Node name.
    pub name: String,
    /// Its address inside the cluster's network.
    pub address: Ipv4Addr,
}

impl From<&Machine> for Peer {
    fn from(machine: &Machine) -> Self {
        Peer { name: machine.name.clone(), address: machine.address }
    }
}

/// All masters, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// By name.
    pub masters: Vec<Peer>,
}

impl Topology {
    /// From machines in any order.
    pub fn of<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> Topology {
        let mut masters: Vec<Peer> = machines.into_iter().filter(|m| m.role == Role::Master).map(Peer::from).collect();
        masters.sort_by(|a, b| a.name.cmp(&b.name));
        Topology { masters }
    }

    /// The address of the `kubernetes` Service: the first of the services range, as the API server itself chooses it.
    pub fn api_service_address(&self, cluster: &Cluster) -> Option<Ipv4Addr> {
        cluster.network.services.hosts().next()
    }

    /// etcd's `--initial-cluster`.
    pub fn etcd_cluster(&self) -> String {
        self.masters.iter().map(|m| format!("{}=https://{}:2380", m.name, m.address)).collect::<Vec<_>>().join(",")
    }

    /// The masters in an order that differs from machine to machine, so that not all ask the same one first.
    pub fn masters_for(&self, machine: &str) -> Vec<&Peer> {
        let count = self.masters.len().max(1);
        // Any spread will do; the sum of the name's bytes keeps neighbours apart and needs no randomness.
        let start = machine.bytes().map(usize::from).sum::<usize>() % count;
        self.masters.iter().cycle().skip(start).take(self.masters.len()).collect()
    }
}
