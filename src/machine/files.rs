//! All files of a machine, as a pure function of the cluster, the machine's facts and its certificates.
//!
//! The same function serves machines that kup reaches over SSH and those that fetch their files themselves.

use std::collections::BTreeMap;

use serde::Serialize;

use super::facts::Facts;
use super::own::Own;
use super::topology::{API_NAME, API_PORT, Peer, Topology};
use super::{BUNDLE_DIR, InCloud, Role};
use crate::backup::Place;
use crate::bundle::{self, Manifest};
use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;
use crate::error::{Error, Result};
use crate::pki::layout::{AwsCerts, MasterCerts, NodeCerts};
use crate::pki::{Pair, Pki};
use crate::templates;

pub mod aws;

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
    pub node: Option<NodeLogin>,
    /// A master's own.
    pub master: Option<MasterCredentials>,
}

/// How a node's kubelet comes by its certificates.
pub enum NodeLogin {
    /// kup issued them.
    Issued(NodeCerts),
    /// It asks the cluster for them, and logs in with this token until it has them.
    Token(String),
}

/// What only masters have.
pub struct MasterCredentials {
    /// Certificates of its units.
    pub certs: MasterCerts,
    /// Certificates of those that it has on AWS only.
    pub aws: Option<AwsCerts>,
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
                aws: (cluster.provider == ProviderKind::Aws).then(|| crate::pki::layout::aws(pki, me)).transpose()?,
                cluster_ca_key: pki.cluster.pair.key.clone(),
                etcd_ca: pki.etcd.pair.cert.clone(),
                front_proxy_ca: pki.front_proxy.pair.cert.clone(),
                service_account_key: pki.service_account.private.clone(),
                service_account_pub: pki.service_account.public.clone(),
                encryption_key: pki.encryption_key.clone(),
                decryption_keys: pki.decryption_keys.clone(),
            }),
        };
        let node = if role.is_node() { Some(NodeLogin::Issued(crate::pki::layout::node(pki, me)?)) } else { None };
        Ok(Credentials { cluster_ca: pki.cluster.pair.cert.clone(), node, master })
    }

    /// Those of a minion that joins by itself: nothing of its own, and the token by which it asks for that.
    pub fn of_joining(pki: &Pki) -> Credentials {
        Credentials {
            cluster_ca: pki.cluster.pair.cert.clone(),
            node: Some(NodeLogin::Token(pki.bootstrap_token.clone())),
            master: None,
        }
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
    /// What a cloud says of it; none if it is in no cloud.
    pub cloud: Option<&'a Cloud>,
    /// Where a master keeps etcd's snapshots.
    pub backups: &'a Place,
}

/// What a cloud says of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cloud {
    /// By which the cloud's controller knows it: `aws:///us-west-2a/i-0123456789abcdef0`.
    pub provider_id: String,
    /// Its group of minions.
    pub group: Option<String>,
    /// Its group's labels: `key=value`.
    pub labels: Vec<String>,
    /// Its group's taints: `key=value:effect` or `key:effect`.
    pub taints: Vec<String>,
    /// The id of the volume that a master's etcd has of its own.
    pub etcd_volume: Option<String>,
    /// Where a master is.
    pub place: Option<aws::Place>,
}

impl From<&InCloud> for Cloud {
    fn from(machine: &InCloud) -> Self {
        Cloud {
            provider_id: machine.provider_id.clone(),
            etcd_volume: machine.etcd_volume.clone(),
            place: machine.place.clone(),
            ..Cloud::default()
        }
    }
}

/// What machines of one kind have in common.
#[derive(Clone, Copy)]
pub struct Kind<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its masters.
    pub topology: &'a Topology,
    /// What they are for.
    pub role: Role,
    /// The system's images.
    pub images: &'a Images,
    /// Whether they are a cloud's.
    pub in_cloud: bool,
    /// Where masters keep etcd's snapshots.
    pub backups: &'a Place,
}

/// The values that templates may use.
#[derive(Serialize)]
struct Values<'a> {
    bundle: &'static str,
    cluster: &'a Cluster,
    me: &'a Own,
    masters: Vec<PeerValues<'a>>,
    in_cloud: bool,
    joins: bool,
    api_name: &'static str,
    api_port: u16,
    leader_elect: bool,
    goaway_chance: f64,
    flannel_backend: &'static str,
    pause_image: &'a str,
    images: &'a BTreeMap<String, String>,
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

/// Where the kubelet keeps its client certificate and the key of it.
const LOGIN: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Those who talk to the API with it.
const CLIENTS: &[&str] = &["kubelet.service", "kube-proxy.service", "flanneld.service"];
const KUBELET: &[&str] = &["kubelet.service"];
const API: &[&str] = &["kube-apiserver.service"];
const CONTROLLER: &[&str] = &["kube-controller-manager.service"];
const SCHEDULER: &[&str] = &["kube-scheduler.service"];
const BALANCER: &[&str] = &["kup-balancer.service"];
const ETCD: &[&str] = &["etcd.service"];

/// All files of one machine.
pub fn render(node: &Node<'_>, credentials: &Credentials) -> Result<Vec<File>> {
    let Node { cluster, topology, role, images, backups, .. } = *node;
    let kind = Kind { cluster, topology, role, images, in_cloud: node.cloud.is_some(), backups };
    let mut files = render_as(&kind, &Own::of(node)?, credentials)?;
    if let Some(volume) = node.cloud.and_then(|cloud| cloud.etcd_volume.as_deref()) {
        files.extend(etcd_volume(volume)?);
    }
    if let Some(place) = node.cloud.and_then(|cloud| cloud.place.as_ref())
        && let Some(certs) = credentials.master.as_ref().and_then(|master| master.aws.as_ref())
    {
        files.extend(aws::master(node, certs, place)?);
    }
    Ok(files)
}

/// What mounts the volume of a master's etcd at each boot. Nothing of it is restarted while it is in use.
fn etcd_volume(volume: &str) -> Result<Vec<File>> {
    let unit = templates::render("systemd/kup-etcd-volume.service", minijinja::context! { etcd_volume => volume })?;
    let of = |path: &str, contents: &str| File {
        path: path.to_owned(),
        mode: 0o644,
        contents: contents.as_bytes().to_vec(),
        kind: FileKind::Keep,
        units: Vec::new(),
    };
    Ok(vec![
        of("/etc/kup/etcd-volume.sh", templates::text("node/etcd-volume.sh")?),
        of("/etc/systemd/system/kup-etcd-volume.service", &unit),
        of("/etc/systemd/system/etcd.service.d/volume.conf", templates::text("systemd/etcd-volume.conf")?),
    ])
}

/// All files of a machine of that kind, with these texts as its own.
pub fn render_as(kind: &Kind<'_>, own: &Own, credentials: &Credentials) -> Result<Vec<File>> {
    let several = kind.topology.masters.len() > 1;
    let keys: Vec<&str> = credentials.master.iter().flat_map(MasterCredentials::encryption_keys).collect();
    let values = Values {
        bundle: BUNDLE_DIR,
        cluster: kind.cluster,
        me: own,
        masters: kind.topology.masters_for(&own.name).into_iter().map(PeerValues::from).collect(),
        in_cloud: kind.in_cloud,
        joins: matches!(credentials.node, Some(NodeLogin::Token(_))),
        api_name: API_NAME,
        api_port: API_PORT,
        // One master has nobody to agree with, and an election costs up to 15 s after each restart.
        leader_elect: several,
        // A thousandth of the requests make a client choose an API server anew; with one there is nothing to choose.
        goaway_chance: if several { 0.001 } else { 0.0 },
        // The local machines share one link, so plain routes do. A cloud's subnet is not a link.
        flannel_backend: if kind.in_cloud { "vxlan" } else { "host-gw" },
        pause_image: &kind.images.pause,
        images: &kind.images.all,
        encryption_marks: keys.iter().map(|key| crate::pki::mark(key)).collect(),
        encryption_keys: keys,
        backups: kind.backups,
    };
    let mut files = Files { values: &values, files: Vec::new() };

    files.template("/etc/systemd/journald.conf.d/kup.conf", 0o644, "node/journald.conf", &["systemd-journald.service"])?;
    files.template("/etc/systemd/networkd.conf.d/kup.conf", 0o644, "node/networkd.conf", &[])?;
    if kind.role == Role::Balancer {
        files.plain("/etc/kup/pki/cluster-ca.crt", 0o644, &credentials.cluster_ca, BALANCER);
        files.template("/etc/kup/haproxy.cfg", 0o644, "haproxy/haproxy.cfg", BALANCER)?;
        files.unit("kup-balancer.service")?;
    }
    if let Some(login) = &credentials.node {
        files.node(&credentials.cluster_ca, login)?;
        files.files.extend(super::registries::files(kind.cluster)?);
    }
    if let Some(master) = &credentials.master {
        files.master(master)?;
    }
    Ok(files.files)
}

/// A kubeconfig's user who logs in with a certificate.
fn by_certificate(cert: &str, key: &str) -> String {
    format!("client-certificate: {cert}, client-key: {key}")
}

/// Files that are rendered with the same values.
struct Files<'a, V> {
    values: &'a V,
    files: Vec<File>,
}

impl<V: Serialize> Files<'_, V> {
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

    fn kubeconfig(&mut self, name: &str, server: &str, login: &str, units: &[&'static str]) -> Result<()> {
        let values = minijinja::context! { server, api_port => API_PORT, login };
        let contents = templates::render("kubernetes/kubeconfig.yaml", values)?;
        self.plain(&format!("/etc/kup/{name}.kubeconfig"), 0o600, &contents, units);
        Ok(())
    }
}

impl Files<'_, Values<'_>> {
    fn node(&mut self, cluster_ca: &str, login: &NodeLogin) -> Result<()> {
        self.template("/etc/kup/hosts.sh", 0o644, "node/hosts.sh", &["kup-hosts.service"])?;
        self.template("/etc/kup/host.sh", 0o644, "node/host.sh", &["kup-host.service"])?;
        self.template("/etc/kup/cni.sh", 0o644, "node/cni.sh", &["flanneld.service"])?;
        self.template("/etc/modules-load.d/kup.conf", 0o644, "node/modules.conf", &["kup-host.service"])?;
        self.template("/etc/sysctl.d/90-kup.conf", 0o644, "node/sysctl.conf", &["kup-host.service"])?;
        self.template("/etc/crictl.yaml", 0o644, "node/crictl.yaml", &[])?;
        self.template("/etc/containerd/config.toml", 0o644, "containerd/config.toml", &["containerd.service"])?;
        self.template("/etc/kup/kubelet.yaml", 0o644, "kubernetes/kubelet.yaml", KUBELET)?;
        self.template("/etc/kup/kube-proxy.yaml", 0o644, "kubernetes/kube-proxy.yaml", &["kube-proxy.service"])?;
        if self.values.in_cloud {
            for name in ["iptables", "ip6tables"] {
                self.plain(&format!("/etc/kup/stand-in/{name}"), 0o755, templates::text("node/iptables.sh")?, &[]);
            }
        }
        self.template("/etc/kup/flannel.json", 0o644, "kubernetes/flannel.json", &["flanneld.service"])?;
        self.plain("/etc/kup/pki/cluster-ca.crt", 0o644, cluster_ca, CLIENTS);
        match login {
            NodeLogin::Issued(certs) => {
                self.pair("kubelet-server", &certs.kubelet_server, KUBELET);
                let client = &certs.kubelet_client;
                // It is the login of all three, and they look at the file again only every five minutes.
                self.plain(LOGIN, 0o600, &format!("{}{}", client.cert, client.key), CLIENTS);
                if let Some(file) = self.files.last_mut() {
                    file.kind = FileKind::Seed;
                }
            }
            // The kubelet writes a kubeconfig of its own, and the login beside it.
            NodeLogin::Token(token) => self.kubeconfig("bootstrap", API_NAME, &format!("token: {token}"), KUBELET)?,
        }
        self.kubeconfig("node", API_NAME, &by_certificate(LOGIN, LOGIN), CLIENTS)?;
        if self.values.in_cloud {
            self.template("/etc/cloud/cloud.cfg.d/99-kup.cfg", 0o644, "node/cloud.cfg", &[])?;
            self.template("/etc/kup/images.sh", 0o644, "node/images.sh", &["kup-images.service"])?;
            self.unit("kup-images.service")?;
        }
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
            self.kubeconfig(name, "127.0.0.1", &by_certificate(&format!("{path}.crt"), &format!("{path}.key")), units)?;
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
#[path = "files_tests.rs"]
mod tests;
