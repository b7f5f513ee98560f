//! Who the cluster's machines are to each other: masters by name and address, and what stands in front of several.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{Machine, Role};
use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;

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

impl Peer {
    /// Where a master's etcd listens for the other members; by this they know each other.
    pub fn etcd_peer_url(&self) -> String {
        format!("https://{}:2380", self.address)
    }
}

impl From<&Machine> for Peer {
    fn from(machine: &Machine) -> Self {
        Peer { name: machine.name.clone(), address: machine.address }
    }
}

/// Every machine that a config asks for and that kup sets up itself, by role and its number among its kind, masters first.
///
/// On this host several masters have a small machine in front of them; one is called by its own address. On AWS a load balancer stands
/// there, and minions set themselves up.
pub fn wanted(cluster: &Cluster) -> impl Iterator<Item = (Role, u16)> {
    let (minions, balancers) = match cluster.provider {
        ProviderKind::Local => (cluster.minions.count, u16::from(cluster.masters.count > 1)),
        ProviderKind::Aws => (0, 0),
    };
    [(Role::Master, cluster.masters.count), (Role::Minion, minions), (Role::Balancer, balancers)]
        .into_iter()
        .flat_map(|(role, count)| (1..=count).map(move |number| (role, number)))
}

/// All masters, in a fixed order, and what users call instead of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// By name.
    pub masters: Vec<Peer>,
    /// The machine in front of several masters.
    pub balancer: Option<Peer>,
    /// Names and addresses, beside the machines' own, by which users call the API, in order.
    pub called: Vec<String>,
}

impl Topology {
    /// From machines in any order.
    pub fn of<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> Topology {
        let (mut masters, mut balancer, mut called) = (Vec::new(), None, BTreeSet::new());
        for machine in machines {
            called.extend(machine.cloud.iter().flat_map(|cloud| cloud.called.iter().cloned()));
            match machine.role {
                Role::Master => masters.push(Peer::from(machine)),
                Role::Balancer => balancer = Some(Peer::from(machine)),
                Role::Minion => {}
            }
        }
        masters.sort_by(|a, b| a.name.cmp(&b.name));
        Topology { masters, balancer, called: called.into_iter().collect() }
    }

    /// The address of the `kubernetes` Service: the first of the services range, as the API server itself chooses it.
    pub fn api_service_address(&self, cluster: &Cluster) -> Option<Ipv4Addr> {
        cluster.network.services.hosts().next()
    }

    /// etcd's `--initial-cluster` for members that start together.
    pub fn etcd_cluster(&self) -> String {
        self.masters.iter().map(|m| format!("{}={}", m.name, m.etcd_peer_url())).collect::<Vec<_>>().join(",")
    }

    /// The masters in an order that differs from machine to machine, so that not all ask the same one first.
    pub fn masters_for(&self, machine: &str) -> Vec<&Peer> {
        let count = self.masters.len().max(1);
        // Any spread will do; the sum of the name's bytes keeps neighbours apart and needs no randomness.
        let start = machine.bytes().map(usize::from).sum::<usize>() % count;
        self.masters.iter().cycle().skip(start).take(self.masters.len()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::BundleAccess;

    fn machine(name: &str, role: Role, last: u8) -> Machine {
        Machine {
            name: name.into(),
            role,
            address: [172, 29, 0, last].into(),
            ssh_port: 22,
            user: "root".into(),
            host_key: String::new(),
            bundle: BundleAccess::Mounted,
            cloud: None,
        }
    }

    #[test]
    fn members_that_start_together_know_each_other() {
        let machines = [
            machine("c-master-2", Role::Master, 12),
            machine("c-balancer-1", Role::Balancer, 2),
            machine("c-minion-1", Role::Minion, 101),
            machine("c-master-1", Role::Master, 11),
        ];
        let topology = Topology::of(&machines);
        assert_eq!(topology.etcd_cluster(), "c-master-1=https://172.29.0.11:2380,c-master-2=https://172.29.0.12:2380");
        assert_eq!(topology.balancer.map(|b| b.name).as_deref(), Some("c-balancer-1"));
    }

    #[test]
    fn only_several_masters_have_something_in_front() {
        let mut cluster = crate::cluster::defaults::cluster().unwrap();
        cluster.minions.count = 1;
        assert_eq!(wanted(&cluster).collect::<Vec<_>>(), [(Role::Master, 1), (Role::Minion, 1)]);
        cluster.masters.count = 3;
        assert_eq!(wanted(&cluster).last(), Some((Role::Balancer, 1)));
        assert_eq!(wanted(&cluster).count(), 5);
    }
}
