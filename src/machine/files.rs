//! All files of a machine, as a pure function of the cluster, the machine's facts and its certificates.
//!
//! The same function serves machines that kup reaches over SSH and those that fetch their files themselves.

use std::collections::BTreeMap;

use serde::Serialize;

use super::facts::{Facts, Reserved};
use super::topology::{API_NAME, API_PORT, Peer, Topology};
use super::{BUNDLE_DIR, Role};
use crate::backup::Place;
use crate::bundle::{self, Manifest};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::pki::layout::{MasterCerts, NodeCerts};
use crate::pki::{Pair, Pki};
use crate::templates;

/// A file as it should be on a machine. Owned by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permission bits, final from the first byte on.
    pub mode: u32,
    /// Its contents.
    pub contents: Vec<u8>,
    /// Whether an existing file is compared or left alone.
    pub kind: FileKind,
    /// Units that read it at their start only, so that they must be restarted when it changes.
    pub units: Vec<&'static str>,
}

/// What to do with a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// It is made equal.
    Keep,
    /// It is left alone: the machine itself renews it.
    Seed,
}

/// The public and secret material of one machine.
pub struct Credentials {
    /// The cluster authority's certificates, PEM, newest first.
    pub cluster_ca: String,
    /// A node's own.
    pub node: Option<NodeCerts>,
    /// A master's own.
    pub master: Option<MasterCredentials>,
}

/// What only masters have.
pub struct MasterCredentials {
    /// Certificates of its units.
    pub certs: MasterCerts,
    /// The cluster authority's key: the controller manager signs kubelets' renewals with it.
    pub cluster_ca_key: String,
    /// etcd's authority.
    pub etcd_ca: String,
    /// The aggregator's authority.
    pub front_proxy_ca: String,
    /// Private key that signs service-account tokens.
    pub service_account_key: String,
    /// Public keys that verify them.
    pub service_account_pub: String,
    /// Encrypts Secrets in etcd, base64.
    pub encryption_key: String,
    /// Those that only decrypt them: of other clusters whose snapshots were restored here.
    pub decryption_keys: Vec<String>,
}

impl MasterCredentials {
    /// All keys of Secrets: the one that encrypts them first.
    fn encryption_keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.encryption_key).chain(&self.decryption_keys).map(String::as_str)
    }
}

impl Credentials {
    /// Takes the machine's certificates from the PKI, issuing those that are missing.
    pub fn of(pki: &Pki, cluster: &Cluster, topology: &Topology, me: &Peer, role: Role) -> Result<Credentials> {
        let master = match role {
            Role::Minion | Role::Balancer => None,
            Role::Master => Some(MasterCredentials {
                certs: crate::pki::layout::master(pki, cluster, topology, me)?,
                cluster_ca_key: pki.cluster.pair.key.clone(),
                etcd_ca: pki.etcd.pair.cert.clone(),
                front_proxy_ca: pki.front_proxy.pair.cert.clone(),
                service_account_key: pki.service_account.private.clone(),
                service_account_pub: pki.service_account.public.clone(),
                encryption_key: pki.encryption_key.clone(),
                decryption_keys: pki.decryption_keys.clone(),
            }),
        };
        let node = if role.is_node() { Some(crate::pki::layout::node(pki, me)?) } else { None };
        Ok(Credentials { cluster_ca: pki.cluster.pair.cert.clone(), node, master })
    }
}

/// Names of the images that the system itself uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The pod sandbox.
    pub pause: String,
    /// All images that nodes have from the start, by the names of their files in the bundle.
    pub all: BTreeMap<String, String>,
}

impl Images {
    /// As the bundle has them.
    pub fn of(manifest: &Manifest) -> Result<Images> {
        let on_nodes = manifest.files.iter().filter(|f| f.role == bundle::Role::Image);
        let all: BTreeMap<_, _> = on_nodes.filter_map(|f| Some((f.name.clone(), f.image.clone()?))).collect();
        let pause =
            all.get("pause").cloned().ok_or_else(|| Error::new("the bundle has no image pause").hint("kup bundle build"))?;
        Ok(Images { pause, all })
    }
}

/// A machine as its files see it.
pub struct Node<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its masters.
    pub topology: &'a Topology,
    /// The machine.
    pub me: &'a Peer,
    /// What it is for.
    pub role: Role,
    /// What was found on it.
    pub facts: &'a Facts,
    /// The system's images.
    pub images: &'a Images,
    /// Where a master keeps etcd's snapshots.
    pub backups: &'a Place,
}

/// The values that templates may use.
#[derive(Serialize)]
struct Values<'a> {
    bundle: &'static str,
    cluster: &'a Cluster,
    me: PeerValues<'a>,
    masters: Vec<PeerValues<'a>>,
    role: &'static str,
    tainted: bool,
    api_name: &'static str,
    api_port: u16,
    leader_elect: bool,
    goaway_chance: f64,
    flannel_backend: &'static str,
    interface: &'a str,
    resolver: &'a str,
    cgroup_driver: &'static str,
    fail_cgroup_v1: bool,
    can_raise_limits: bool,
    eviction_disk: &'static str,
    reserved: Reserved,
    pause_image: &'a str,
    encryption_keys: Vec<&'a str>,
    encryption_marks: Vec<String>,
    backups: &'a Place,
}

#[derive(Serialize)]
struct PeerValues<'a> {
    name: &'a str,
    address: String,
}

impl<'a> From<&'a Peer> for PeerValues<'a> {
    fn from(peer: &'a Peer) -> Self {
        PeerValues { name: &peer.name, address: peer.address.to_string() }
    }
}

const KUBELET: &[&str] = &["kubelet.service"];
const API: &[&str] = &["kube-apiserver.service"];
const CONTROLLER: &[&str] = &["kube-controller-manager.service"];
const SCHEDULER: &[&str] = &["kube-scheduler.service"];
const BALANCER: &[&str] = &["kup-balancer.service"];
const ETCD: &[&str] = &["etcd.service"];

/// All files of one machine.
pub fn render(node: &Node<'_>, credentials: &Credentials) -> Result<Vec<File>> {
    let several = node.topology.masters.len() > 1;
    let keys: Vec<&str> = credentials.master.iter().flat_map(MasterCredentials::encryption_keys).collect();
    let values = Values {
        bundle: BUNDLE_DIR,
        cluster: node.cluster,
        me: node.me.into(),
        masters: node.topology.masters_for(&node.me.name).into_iter().map(PeerValues::from).collect(),
        role: node.role.as_str(),
        // A cluster without minions runs everything on its masters.
        tainted: node.role == Role::Master && node.cluster.minions.count > 0,
        api_name: API_NAME,
        api_port: API_PORT,
        // One master has nobody to agree with, and an election costs up to 15 s after each restart.
        leader_elect: several,
        // A thousandth of the requests make a client choose an API server anew; with one there is nothing to choose.
        goaway_chance: if several { 0.001 } else { 0.0 },
        // The local machines share one link, so plain routes do. Elsewhere a subnet is not a link.
        flannel_backend: "host-gw",
        interface: &node.facts.interface,
        resolver: &node.facts.resolver,
        cgroup_driver: node.facts.cgroup_driver(),
        fail_cgroup_v1: node.facts.cgroup2,
        can_raise_limits: node.facts.cap_sys_resource,
        eviction_disk: node.facts.eviction_disk(),
        reserved: node.facts.reserved(),
        pause_image: &node.images.pause,
        encryption_marks: keys.iter().map(|key| crate::pki::mark(key)).collect(),
        encryption_keys: keys,
        backups: node.backups,
    };
    let mut files = Files { values: &values, files: Vec::new() };

    files.template("/etc/systemd/journald.conf.d/kup.conf", 0o644, "node/journald.conf", &["systemd-journald.service"])?;
    files.template("/etc/systemd/networkd.conf.d/kup.conf", 0o644, "node/networkd.conf", &[])?;
    if node.role == Role::Balancer {
        files.plain("/etc/kup/pki/cluster-ca.crt", 0o644, &credentials.cluster_ca, BALANCER);
        files.template("/etc/kup/haproxy.cfg", 0o644, "haproxy/haproxy.cfg", BALANCER)?;
        files.unit("kup-balancer.service")?;
    }
    if let Some(certs) = &credentials.node {
        files.node(&credentials.cluster_ca, certs)?;
        files.files.extend(super::registries::files(node.cluster)?);
    }
    if let Some(master) = &credentials.master {
        files.master(master)?;
    }
    Ok(files.files)
}

struct Files<'a> {
    values: &'a Values<'a>,
    files: Vec<File>,
}

impl Files<'_> {
    fn plain(&mut self, path: &str, mode: u32, contents: &str, units: &[&'static str]) {
        self.files.push(File {
            path: path.to_owned(),
            mode,
            contents: contents.as_bytes().to_vec(),
            kind: FileKind::Keep,
            units: units.to_vec(),
        });
    }

    fn template(&mut self, path: &str, mode: u32, template: &str, units: &[&'static str]) -> Result<()> {
        let contents = templates::render(template, self.values)?;
        self.plain(path, mode, &contents, units);
        Ok(())
    }

    fn unit(&mut self, unit: &'static str) -> Result<()> {
        self.template(&format!("/etc/systemd/system/{unit}"), 0o644, &format!("systemd/{unit}"), &[unit])
    }

    fn pair(&mut self, name: &str, pair: &Pair, units: &[&'static str]) {
        self.plain(&format!("/etc/kup/pki/{name}.crt"), 0o644, &pair.cert, units);
        self.plain(&format!("/etc/kup/pki/{name}.key"), 0o600, &pair.key, units);
    }

    fn kubeconfig(&mut self, name: &str, server: &str, cert: &str, key: &str, units: &[&'static str]) -> Result<()> {
        let values = minijinja::context! { server, api_port => API_PORT, cert, key };
        let contents = templates::render("kubernetes/kubeconfig.yaml", values)?;
        self.plain(&format!("/etc/kup/{name}.kubeconfig"), 0o600, &contents, units);
        Ok(())
    }

    fn node(&mut self, cluster_ca: &str, certs: &NodeCerts) -> Result<()> {
        self.template("/etc/kup/hosts.sh", 0o644, "node/hosts.sh", &["kup-hosts.service"])?;
        self.template("/etc/kup/host.sh", 0o644, "node/host.sh", &["kup-host.service"])?;
        self.template("/etc/kup/cni.sh", 0o644, "node/cni.sh", &["flanneld.service"])?;
        self.template("/etc/modules-load.d/kup.conf", 0o644, "node/modules.conf", &["kup-host.service"])?;
        self.template("/etc/sysctl.d/90-kup.conf", 0o644, "node/sysctl.conf", &["kup-host.service"])?;
        self.template("/etc/crictl.yaml", 0o644, "node/crictl.yaml", &[])?;
        self.template("/etc/containerd/config.toml", 0o644, "containerd/config.toml", &["containerd.service"])?;
        self.template("/etc/kup/kubelet.yaml", 0o644, "kubernetes/kubelet.yaml", KUBELET)?;
        self.template("/etc/kup/kube-proxy.yaml", 0o644, "kubernetes/kube-proxy.yaml", &["kube-proxy.service"])?;
        self.template("/etc/kup/flannel.json", 0o644, "kubernetes/flannel.json", &["flanneld.service"])?;
        self.plain(
            "/etc/kup/pki/cluster-ca.crt",
            0o644,
            cluster_ca,
            &["kubelet.service", "kube-proxy.service", "flanneld.service"],
        );
        self.pair("kubelet-server", &certs.kubelet_server, KUBELET);
        let client = &certs.kubelet_client;
        let current = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        // It is the login of all three, and they look at the file again only every five minutes.
        let users = ["kubelet.service", "kube-proxy.service", "flanneld.service"];
        self.plain(current, 0o600, &format!("{}{}", client.cert, client.key), &users);
        if let Some(file) = self.files.last_mut() {
            file.kind = FileKind::Seed;
        }
        self.kubeconfig("node", API_NAME, current, current, &["kubelet.service", "kube-proxy.service", "flanneld.service"])?;
        for unit in [
            "kup-hosts.service",
            "kup-host.service",
            "containerd.service",
            "kubelet.service",
            "kube-proxy.service",
            "flanneld.service",
        ] {
            self.unit(unit)?;
        }
        Ok(())
    }

    fn master(&mut self, master: &MasterCredentials) -> Result<()> {
        let certs = &master.certs;
        self.plain("/etc/kup/pki/etcd-ca.crt", 0o644, &master.etcd_ca, &["etcd.service", "kube-apiserver.service"]);
        self.plain("/etc/kup/pki/front-proxy-ca.crt", 0o644, &master.front_proxy_ca, API);
        self.plain("/etc/kup/pki/cluster-ca.key", 0o600, &master.cluster_ca_key, CONTROLLER);
        self.plain(
            "/etc/kup/pki/service-account.key",
            0o600,
            &master.service_account_key,
            &["kube-apiserver.service", "kube-controller-manager.service"],
        );
        self.plain("/etc/kup/pki/service-account.pub", 0o644, &master.service_account_pub, API);
        for (name, pair, units) in [
            ("apiserver", &certs.api_server, API),
            ("apiserver-kubelet-client", &certs.api_server_kubelet_client, API),
            ("apiserver-etcd-client", &certs.api_server_etcd_client, API),
            ("front-proxy-client", &certs.front_proxy_client, API),
            ("etcd-server", &certs.etcd_server, ETCD),
            ("etcd-peer", &certs.etcd_peer, ETCD),
            ("controller-manager", &certs.controller_manager, CONTROLLER),
            ("controller-manager-server", &certs.controller_manager_server, CONTROLLER),
            ("scheduler", &certs.scheduler, SCHEDULER),
            ("scheduler-server", &certs.scheduler_server, SCHEDULER),
        ] {
            self.pair(name, pair, units);
        }
        for (name, units) in [("controller-manager", CONTROLLER), ("scheduler", SCHEDULER)] {
            let path = format!("/etc/kup/pki/{name}");
            // A master's own clients use its own API server: they are of no use without it, and never wait for another.
            self.kubeconfig(name, "127.0.0.1", &format!("{path}.crt"), &format!("{path}.key"), units)?;
        }
        self.template("/etc/kup/authentication.yaml", 0o600, "kubernetes/authentication.yaml", API)?;
        self.template("/etc/kup/encryption.yaml", 0o600, "kubernetes/encryption.yaml", API)?;
        self.template("/etc/kup/audit-policy.yaml", 0o600, "kubernetes/audit-policy.yaml", API)?;
        for unit in ["etcd.service", "kube-apiserver.service", "kube-controller-manager.service", "kube-scheduler.service"] {
            self.unit(unit)?;
        }
        // Read anew at each of its runs.
        self.template("/etc/kup/etcd-backup.sh", 0o600, "node/etcd-backup.sh", &[])?;
        self.template("/etc/systemd/system/kup-etcd-backup.service", 0o644, "systemd/kup-etcd-backup.service", &[])?;
        self.unit("kup-etcd-backup.timer")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn pair(name: &str) -> Pair {
        Pair { cert: format!("CERTIFICATE {name}\n"), key: format!("KEY {name}\n") }
    }

    fn credentials(role: Role) -> Credentials {
        Credentials {
            cluster_ca: "CERTIFICATE cluster-ca\n".into(),
            node: role
                .is_node()
                .then(|| NodeCerts { kubelet_client: pair("kubelet-client"), kubelet_server: pair("kubelet-server") }),
            master: (role == Role::Master).then(|| MasterCredentials {
                certs: MasterCerts {
                    api_server: pair("apiserver"),
                    api_server_kubelet_client: pair("apiserver-kubelet-client"),
                    api_server_etcd_client: pair("apiserver-etcd-client"),
                    front_proxy_client: pair("front-proxy-client"),
                    etcd_server: pair("etcd-server"),
                    etcd_peer: pair("etcd-peer"),
                    controller_manager: pair("controller-manager"),
                    controller_manager_server: pair("controller-manager-server"),
                    scheduler: pair("scheduler"),
                    scheduler_server: pair("scheduler-server"),
                },
                cluster_ca_key: "KEY cluster-ca\n".into(),
                etcd_ca: "CERTIFICATE etcd-ca\n".into(),
                front_proxy_ca: "CERTIFICATE front-proxy-ca\n".into(),
                service_account_key: "KEY service-account\n".into(),
                service_account_pub: "PUBLIC KEY service-account\n".into(),
                encryption_key: "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into(),
                decryption_keys: Vec::new(),
            }),
        }
    }

    fn machine(name: &str, role: Role, last: u8) -> Machine {
        Machine {
            name: name.into(),
            role,
            address: [172, 29, 0, last].into(),
            ssh_port: 22,
            user: "root".into(),
            host_key: String::new(),
            bundle: crate::machine::BundleAccess::Mounted,
        }
    }

    /// A laptop's container without the right to raise limits, on control groups v1.
    fn container() -> Facts {
        Facts {
            kernel: "6.1.0".into(),
            arch: "x86_64".into(),
            cpus: 2,
            memory_mib: 8192,
            cgroup2: false,
            cap_sys_resource: false,
            resolver: "/etc/resolv.conf".into(),
            container: true,
            interface: "eth0".into(),
            bridge_nf: true,
            etcd: crate::machine::facts::EtcdData::None,
            restoring: None,
        }
    }

    /// A machine of its own with everything.
    fn whole() -> Facts {
        Facts {
            cgroup2: true,
            cap_sys_resource: true,
            container: false,
            resolver: "/run/systemd/resolve/resolv.conf".into(),
            ..container()
        }
    }

    fn rendered(masters: u8, minions: u16, me: usize, facts: &Facts) -> Vec<File> {
        let mut cluster = crate::cluster::defaults::cluster().unwrap();
        cluster.masters.count = u16::from(masters);
        cluster.minions.count = minions;
        let mut machines: Vec<Machine> =
            (1..=masters).map(|n| machine(&format!("kubernetes-master-{n}"), Role::Master, 10 + n)).collect();
        machines.push(machine("kubernetes-minion-1", Role::Minion, 101));
        if masters > 1 {
            machines.push(machine("kubernetes-balancer-1", Role::Balancer, 2));
        }
        let topology = Topology::of(&machines);
        let role = machines[me].role;
        let images = Images { pause: "registry.k8s.io/pause:3.10.2".into(), all: BTreeMap::new() };
        let me = Peer::from(&machines[me]);
        let node =
            Node { cluster: &cluster, topology: &topology, me: &me, role, facts, images: &images, backups: &Place::Directory };
        render(&node, &credentials(role)).unwrap()
    }

    fn shown(files: &[File]) -> String {
        let one = |f: &File| {
            let kind = if f.kind == FileKind::Seed { " seed" } else { "" };
            let units = f.units.join(" ");
            format!("##### {} {:04o}{kind} [{units}]\n{}", f.path, f.mode, String::from_utf8_lossy(&f.contents))
        };
        files.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn golden_master_in_a_container_on_cgroup_v1() {
        insta::assert_snapshot!(shown(&rendered(1, 4, 0, &container())));
    }

    #[test]
    fn golden_minion_on_a_whole_machine() {
        insta::assert_snapshot!(shown(&rendered(1, 4, 1, &whole())));
    }

    #[test]
    fn golden_balancer_of_three_masters() {
        insta::assert_snapshot!(shown(&rendered(3, 4, 4, &whole())));
    }

    #[test]
    fn several_masters_know_each_other_and_elect() {
        let text = shown(&rendered(3, 4, 1, &whole()));
        assert!(text.contains("--name=kubernetes-master-2 "));
        assert_eq!(text.matches("--leader-elect=true").count(), 2);
        assert_eq!(text.matches(" api.kup.internal\n").count(), 3, "every master's address stands in the hosts block");
    }

    #[test]
    fn a_master_takes_pods_only_without_minions() {
        let taint = "registerWithTaints";
        assert!(shown(&rendered(1, 1, 0, &whole())).contains(taint));
        assert!(!shown(&rendered(1, 0, 0, &whole())).contains(taint));
        assert!(!shown(&rendered(1, 1, 1, &whole())).contains(taint), "a minion is never tainted");
    }

    #[test]
    fn secrets_are_for_root_alone_and_minions_get_no_master_secret() {
        for file in rendered(1, 4, 0, &whole()) {
            let text = String::from_utf8_lossy(&file.contents).into_owned();
            let secret = text.contains("KEY ") && !text.contains("PUBLIC KEY") || text.contains("MDEyMzQ1");
            assert!(!secret || file.mode == 0o600, "{} holds a secret with mode {:o}", file.path, file.mode);
        }
        let minion = shown(&rendered(1, 4, 1, &whole()));
        let keys: Vec<&str> = minion.lines().filter(|l| l.starts_with("KEY ")).collect();
        assert_eq!(keys, ["KEY kubelet-server", "KEY kubelet-client"]);
    }
}
