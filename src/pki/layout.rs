//! Who gets which certificate: kubeadm's table, for a list of masters.

use std::net::{IpAddr, Ipv4Addr};

use super::{Leaf, Pair, Pki, Usage};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::machine::topology::{API_NAME, Peer, Topology};

/// The group of the administrator that the kubeconfig names. A group of its own, bound to `cluster-admin`, so that it can be
/// unbound; `system:masters` can't.
pub const ADMIN_GROUP: &str = "kup:cluster-admins";

/// All certificates of a master's own units.
pub struct MasterCerts {
    /// The API server's serving certificate.
    pub api_server: Pair,
    /// By which the API server logs in to kubelets.
    pub api_server_kubelet_client: Pair,
    /// By which the API server logs in to etcd.
    pub api_server_etcd_client: Pair,
    /// By which the aggregator logs in to extension API servers.
    pub front_proxy_client: Pair,
    /// etcd's serving certificate (it is its own client in health checks).
    pub etcd_server: Pair,
    /// etcd's certificate towards the other members.
    pub etcd_peer: Pair,
    /// The controller manager's login.
    pub controller_manager: Pair,
    /// The controller manager's serving certificate.
    pub controller_manager_server: Pair,
    /// The scheduler's login.
    pub scheduler: Pair,
    /// The scheduler's serving certificate.
    pub scheduler_server: Pair,
}

/// The certificates of the units that a master has on AWS only.
pub struct AwsCerts {
    /// The cloud controller's login.
    pub cloud_controller: Pair,
    /// The cloud controller's serving certificate.
    pub cloud_controller_server: Pair,
    /// The login of the one who approves the certificates of minions.
    pub node_approver: Pair,
}

/// The certificates that every node has.
pub struct NodeCerts {
    /// The kubelet's login, for the first time; it rotates it by itself.
    pub kubelet_client: Pair,
    /// The kubelet's serving certificate.
    pub kubelet_server: Pair,
}

/// The certificates of one master.
pub fn master(pki: &Pki, cluster: &Cluster, topology: &Topology, me: &Peer) -> Result<MasterCerts> {
    let own = || own_server(me);
    let issue = |name: &str, leaf: Leaf| pki.leaf(&pki.cluster, &me.name, name, &leaf);
    let etcd = |name: &str, leaf: Leaf| pki.leaf(&pki.etcd, &me.name, name, &leaf);
    let both = |leaf: Leaf| Leaf { usage: Usage::Both, ..leaf };
    Ok(MasterCerts {
        api_server: issue("apiserver", api_server(cluster, topology))?,
        // kubeadm's group for this login; the built-in `system:masters` would do more than is needed.
        api_server_kubelet_client: issue("apiserver-kubelet-client", Leaf::client("kup:apiserver-kubelet-client", None))?,
        api_server_etcd_client: etcd("apiserver-etcd-client", Leaf::client("kube-apiserver-etcd-client", None))?,
        front_proxy_client: pki.leaf(
            &pki.front_proxy,
            &me.name,
            "front-proxy-client",
            &Leaf::client("front-proxy-client", None),
        )?,
        etcd_server: etcd("etcd-server", both(own()))?,
        etcd_peer: etcd("etcd-peer", both(own()))?,
        controller_manager: issue("controller-manager", Leaf::client("system:kube-controller-manager", None))?,
        controller_manager_server: issue("controller-manager-server", own())?,
        scheduler: issue("scheduler", Leaf::client("system:kube-scheduler", None))?,
        scheduler_server: issue("scheduler-server", own())?,
    })
}

/// The certificates of the units that a master has on AWS only.
pub fn aws(pki: &Pki, me: &Peer) -> Result<AwsCerts> {
    let issue = |name: &str, leaf: Leaf| pki.leaf(&pki.cluster, &me.name, name, &leaf);
    Ok(AwsCerts {
        cloud_controller: issue("cloud-controller-manager", Leaf::client("system:cloud-controller-manager", None))?,
        cloud_controller_server: issue("cloud-controller-manager-server", own_server(me))?,
        node_approver: issue("node-approver", Leaf::client("kup:node-approver", None))?,
    })
}

/// The serving certificate of a unit that others on the same machine, or of its kind, talk to.
fn own_server(me: &Peer) -> Leaf {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Leaf::server(&me.name, vec!["localhost".to_owned(), me.name.clone()], vec![me.address.into(), loopback])
}

/// The certificates of one node.
pub fn node(pki: &Pki, me: &Peer) -> Result<NodeCerts> {
    let client = Leaf::client(format!("system:node:{}", me.name), Some("system:nodes"));
    let server = Leaf {
        organization: Some("system:nodes".to_owned()),
        ..Leaf::server(format!("system:node:{}", me.name), vec![me.name.clone()], vec![me.address.into()])
    };
    Ok(NodeCerts {
        kubelet_client: pki.leaf(&pki.cluster, &me.name, "kubelet-client", &client)?,
        kubelet_server: pki.leaf(&pki.cluster, &me.name, "kubelet-server", &server)?,
    })
}

/// The login that `up` writes into the user's kubeconfig.
pub fn admin(pki: &Pki) -> Result<Pair> {
    pki.leaf(&pki.cluster, "cluster", "admin", &Leaf::client("kup-admin", Some(ADMIN_GROUP)))
}

/// The login by which kup itself makes the first bindings. Lives in memory only and ends within the hour: nothing else in the
/// cluster has `system:masters`.
pub fn bootstrapper(pki: &Pki) -> Result<Pair> {
    pki.cluster.issue(&Leaf::client("kup-bootstrap", Some("system:masters")), time::Duration::hours(1))
}

fn api_server(cluster: &Cluster, topology: &Topology) -> Leaf {
    let domain = &cluster.network.domain;
    let mut dns: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", API_NAME].map(str::to_owned).to_vec();
    dns.push(format!("kubernetes.default.svc.{domain}"));
    let called = || topology.masters.iter().chain(&topology.balancer);
    dns.extend(called().map(|m| m.name.clone()));
    let mut ips: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    ips.extend(topology.api_service_address(cluster).map(IpAddr::V4));
    ips.extend(called().map(|m| IpAddr::V4(m.address)));
    Leaf::server("kube-apiserver", dns, ips)
}
