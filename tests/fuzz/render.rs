//! What machines are told of a cluster: whether any word of its config, or of what a machine or AWS says, does more in a file than it says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use kup::aws::Aws;
use kup::aws::client::Identity;
use kup::aws::layout::{self, Surroundings};
use kup::aws::node_files::Content;
use kup::aws::permissions::{self, Whose};
use kup::backup::Place;
use kup::bundle::manifest::{File as BundleFile, Origin};
use kup::bundle::{Arch, Manifest};
use kup::cluster::Cluster;
use kup::cluster::spec::ProviderKind;
use kup::graph::Plan;
use kup::machine::Role;
use kup::machine::facts::{EtcdData, Facts};
use kup::machine::files::aws::Place as AwsPlace;
use kup::machine::files::{Cloud, Credentials, File, Images, MasterCredentials, Node, NodeLogin, render};
use kup::machine::topology::{Peer, Topology};
use kup::pki::Pair;
use kup::pki::layout::{AwsCerts, MasterCerts, NodeCerts};
use regex::Regex;

use crate::engine::{Outcome, is_obeyed};
use crate::holds;
use crate::mutation::MARK;
use crate::scripts::{described, directives, hosts, script, told};

const REGION: &str = "us-west-2";
const ACCOUNT: &str = "123456789012";

/// What a shell would run if it were let.
const RUNS: &str = "touch KUPMARK";

thread_local! {
    /// The directives of each unit of a cluster with plain words, by the shape of the cluster.
    static PLAIN: RefCell<BTreeMap<String, BTreeMap<String, Vec<String>>>> = RefCell::default();
}

/// A machine of any kind, as its cloud and itself tell of it.
#[derive(Debug, Clone)]
pub struct Told {
    pub role: Role,
    pub facts: Facts,
    pub cloud: Option<Cloud>,
    pub backups: Place,
}

pub fn facts() -> Facts {
    Facts {
        kernel: "6.12.0".into(),
        arch: "x86_64".into(),
        cpus: 2,
        memory_mib: 4096,
        cgroup2: true,
        cap_sys_resource: true,
        resolver: "/run/systemd/resolve/resolv.conf".into(),
        container: false,
        interface: "ens5".into(),
        bridge_nf: true,
        etcd: EtcdData::None,
        restoring: None,
    }
}

fn pair(name: &str) -> Pair {
    Pair { cert: format!("CERTIFICATE {name}\n"), key: format!("KEY {name}\n") }
}

fn credentials(role: Role, aws: bool) -> Credentials {
    let node = NodeCerts { kubelet_client: pair("kubelet-client"), kubelet_server: pair("kubelet-server") };
    Credentials {
        cluster_ca: "CERTIFICATE cluster-ca\n".into(),
        node: role.is_node().then_some(NodeLogin::Issued(node)),
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
            aws: aws.then(|| AwsCerts {
                cloud_controller: pair("cloud-controller"),
                cloud_controller_server: pair("cloud-controller-server"),
                node_approver: pair("node-approver"),
            }),
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

pub fn images() -> Images {
    let all = [("pause", "pause:3.10.2"), ("coredns", "coredns/coredns:v1.15.0")];
    let all = all.map(|(name, image)| (name.to_owned(), format!("registry.k8s.io/{image}"))).into();
    Images { pause: "registry.k8s.io/pause:3.10.2".into(), all }
}

fn bundle() -> Manifest {
    let file = |name: &str, path: &str, role, image: Option<&str>| BundleFile {
        name: name.into(),
        component: name.into(),
        version: "1.0.0".into(),
        role,
        path: path.into(),
        size: 4,
        sha256: "0".repeat(64),
        source: "test".into(),
        image: image.map(str::to_owned),
    };
    use kup::bundle::Role::{Both, Image};
    let files = vec![
        file("kubelet", "bin/kubelet", Both, None),
        file("pause", "images/pause.tar", Image, Some("registry.k8s.io/pause:3.10.2")),
    ];
    Manifest::new("1.37.1", Arch::Amd64, Origin::Built, files)
}

fn name(cluster: &Cluster, told: &Told, number: u16) -> String {
    match &told.cloud {
        Some(_) => format!("i-0123456789abcde{number:02}"),
        None => format!("{}-{}-{number}", cluster.name, told.role.as_str()),
    }
}

/// All files of such a machine of the cluster.
pub fn files(cluster: &Cluster, told: &Told, images: &Images) -> Result<Vec<File>, String> {
    let master = Told { role: Role::Master, ..told.clone() };
    let peer =
        |told: &Told, number: u16, last: u8| Peer { name: name(cluster, told, number), address: Ipv4Addr::new(172, 29, 0, last) };
    let masters = (1..=cluster.masters.count.min(7)).map(|n| peer(&master, n, 10 + n as u8)).collect();
    let topology = Topology { masters, balancer: None, called: Vec::new() };
    let me = if told.role == Role::Master { topology.masters[0].clone() } else { peer(told, 1, 101) };
    let node = Node {
        cluster,
        topology: &topology,
        me: &me,
        role: told.role,
        facts: &told.facts,
        images,
        cloud: told.cloud.as_ref(),
        backups: &told.backups,
    };
    render(&node, &credentials(told.role, told.cloud.is_some())).map_err(|e| e.to_string())
}

/// The machines of a cluster, one of each kind.
fn kinds(cluster: &Cluster) -> Vec<Told> {
    let local = |role| Told { role, facts: facts(), cloud: None, backups: Place::Directory };
    if cluster.provider == ProviderKind::Local {
        return [Role::Master, Role::Minion, Role::Balancer].map(local).into();
    }
    let cloud = Cloud { provider_id: "aws:///us-west-2a/i-0123456789abcdef0".into(), ..Cloud::default() };
    let place = AwsPlace {
        region: REGION.into(),
        vpc: "vpc-0123456789abcdef0".into(),
        subnet: "subnet-0123456789abcdef0".into(),
        endpoint: None,
    };
    let url = kup::aws::user_data::bucket_url(&kup::aws::client::bucket(ACCOUNT, REGION, &cluster.name), REGION, None);
    let backups = Place::Bucket { url, region: REGION.into(), account: ACCOUNT.into() };
    let master = Cloud { etcd_volume: Some("vol-0123456789abcdef0".into()), place: Some(place), ..cloud.clone() };
    let mut all = vec![Told { role: Role::Master, facts: facts(), cloud: Some(master), backups }];
    for group in cluster.groups() {
        let cloud = Cloud { group: Some(group.name), labels: group.labels, taints: group.taints, ..cloud.clone() };
        all.push(Told { cloud: Some(cloud), ..local(Role::Minion) });
    }
    all
}

/// Whether nothing that machines and AWS are told of this cluster does more than its config says.
pub fn harmless(dir: &Path, cluster: &Cluster) -> Outcome {
    for told in kinds(cluster) {
        let files = files(cluster, &told, &images())?;
        look(dir, cluster, &told, &files)?;
    }
    if cluster.provider == ProviderKind::Aws {
        aws(dir, cluster)?;
    }
    Ok(())
}

/// Looks at each of a machine's files.
pub fn look(dir: &Path, cluster: &Cluster, told: &Told, files: &[File]) -> Outcome {
    let plain = plain(cluster, told)?;
    for file in files {
        let text = String::from_utf8(file.contents.clone()).map_err(|_| format!("{} is no text", file.path))?;
        let in_file = |why: String| format!("{}: {why}\n{text}", file.path);
        let word = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        holds!(file.path.starts_with("/etc/") || file.path.starts_with("/var/lib/kubelet/"), "it is at {}", file.path);
        holds!(file.path.chars().all(word) && !file.path.contains("/../"), "it is at {:?}", file.path);
        holds!(!text.contains(RUNS), "{}", in_file("a word of the config came through as it was".into()));
        holds!(!is_obeyed(&text), "{}", in_file("it has control characters".into()));
        match file.path.rsplit('.').next().unwrap_or_default() {
            "sh" => script(dir, &text).map_err(in_file)?,
            "service" | "timer" => {
                let found = directives(&text).map_err(in_file)?;
                holds!(
                    plain.get(&file.path) == Some(&found),
                    "{}",
                    in_file(format!("other directives than with plain words: {found:?}, {:?}", plain.get(&file.path)))
                );
            }
            "yaml" | "kubeconfig" | "json" => {
                let value: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|e| in_file(e.to_string()))?;
                if file.path.ends_with("/kubelet.yaml") {
                    let domain = kup::yaml::parse(&text).map_err(|e| in_file(format!("{e:?}")))?;
                    let domain = domain.get("clusterDomain").map(|node| node.kind.clone());
                    let wanted = kup::yaml::Kind::Scalar { text: cluster.network.domain.clone(), plain: false };
                    holds!(domain == Some(wanted), "{}", in_file(format!("the domain is {domain:?}")));
                    let taints = value.get("registerWithTaints").and_then(|list| list.as_sequence()).map_or(0, Vec::len);
                    let group = told.cloud.as_ref().map_or(0, |cloud| cloud.taints.len());
                    let own = usize::from(told.role == Role::Master && cluster.minions.count > 0);
                    holds!(taints == group + own, "{}", in_file(format!("{taints} taints")));
                }
            }
            "toml" if file.path.ends_with("/hosts.toml") => hosts(&text).map_err(in_file)?,
            _ => {}
        }
    }
    let backup = files.iter().find(|file| file.path.ends_with("/etcd-backup.sh"));
    backup.map_or(Ok(()), |file| described(dir, cluster, &String::from_utf8_lossy(&file.contents)))
}

/// The directives of the units of such a machine in a cluster whose words are plain.
fn plain(cluster: &Cluster, told: &Told) -> Result<BTreeMap<String, Vec<String>>, String> {
    let of = |cloud: &Cloud| (cloud.etcd_volume.is_some(), cloud.place.as_ref().map(|place| place.endpoint.is_some()));
    let shape = format!(
        "{:?} {:?} {} {:?}",
        told.role,
        told.cloud.as_ref().map(of),
        cluster.masters.count > 1,
        (told.facts.cap_sys_resource, told.facts.cgroup2, told.facts.container)
    );
    if let Some(known) = PLAIN.with_borrow(|known| known.get(&shape).cloned()) {
        return Ok(known);
    }
    let mut plain = kup::cluster::defaults::cluster().map_err(|e| e.to_string())?;
    plain.masters.count = cluster.masters.count;
    let cloud = told.cloud.as_ref().map(|cloud| Cloud {
        provider_id: "aws:///us-west-2a/i-0123456789abcdef0".into(),
        group: None,
        labels: Vec::new(),
        taints: Vec::new(),
        etcd_volume: cloud.etcd_volume.as_ref().map(|_| "vol-0123456789abcdef0".to_owned()),
        place: cloud.place.clone(),
    });
    let own = facts();
    let facts = Facts { interface: own.interface, resolver: own.resolver, ..told.facts.clone() };
    let files = files(&plain, &Told { cloud, facts, ..told.clone() }, &images())?;
    let units = files.into_iter().filter(|file| file.path.ends_with(".service") || file.path.ends_with(".timer"));
    let units: Result<_, String> =
        units.map(|file| Ok((file.path, directives(&String::from_utf8_lossy(&file.contents))?))).collect();
    let units: BTreeMap<_, _> = units?;
    PLAIN.with_borrow_mut(|known| known.insert(shape, units.clone()));
    Ok(units)
}

pub fn around(cluster: &Cluster) -> Surroundings {
    let zones = if cluster.aws.zones.is_empty() { vec![format!("{REGION}a")] } else { cluster.aws.zones.clone() };
    Surroundings {
        account: ACCOUNT.into(),
        partition: "aws".into(),
        region: cluster.aws.region.clone().unwrap_or_else(|| REGION.into()),
        s3_endpoint: None,
        zones,
        image: layout::Image {
            id: "ami-0123456789abcdef0".into(),
            architecture: "x86_64".into(),
            root_device: "/dev/xvda".into(),
            user: "admin".into(),
        },
        caller: Some(Ipv4Addr::new(198, 51, 100, 7)),
        ssh_public: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJfHsPx0wYDKpGoHz0wWq0hCZcIqOAMmUJ8VhMnqVh9P".into(),
        missing: 5,
    }
}

/// Clients that nobody answers.
fn silent(cluster: &Cluster, region: &str) -> Aws {
    let config = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new(region.to_owned()))
        .build();
    let arn = format!("arn:aws:iam::{ACCOUNT}:user/me");
    Aws::of_config(&config, region, Identity { account: ACCOUNT.into(), arn, partition: "aws".into() }, &cluster.name)
}

/// What AWS is asked for, and what minions are told through it.
fn aws(dir: &Path, cluster: &Cluster) -> Outcome {
    let around = around(cluster);
    let aws = silent(cluster, &around.region);
    let wanted = layout::layout(cluster, &around).and_then(|wanted| Plan::new(wanted, Vec::new(), &aws, |_| false));
    if let Err(error) = wanted {
        // What only the surroundings decide: that machines are told too much at boot, say.
        holds!(!is_obeyed(&error.to_string()), "{error:?}");
        return Ok(());
    }
    let policy =
        serde_json::to_string(&permissions::policy(&Whose::of(&aws), &permissions::kinds(cluster))).map_err(|e| e.to_string())?;
    holds!(!policy.contains(MARK), "a policy with {policy}");
    for group in cluster.groups() {
        let Ok(text) = layout::minion(cluster, &around, &group).render() else { continue };
        told(dir, &text, &group.labels, &group.taints).map_err(|why| format!("user-data: {why}\n{text}"))?;
    }
    let masters = vec![Peer { name: "i-0123456789abcdef0".into(), address: Ipv4Addr::new(172, 20, 0, 10) }];
    let topology = Topology { masters, balancer: None, called: Vec::new() };
    let joining =
        Credentials { cluster_ca: String::new(), node: Some(NodeLogin::Token("abcdef.ghijkmnpqrstuvwx".into())), master: None };
    let content = Content::new(cluster, &topology, &bundle(), &joining).map_err(|e| e.to_string())?;
    script(dir, &content.script)?;
    let shape =
        Regex::new(r"^[0-9a-f]{64}  (node/(node\.sh|files\.tar\.gz)|bundle/[0-9a-f]{64}\.gz  0[0-7]{3} [a-z]+/[A-Za-z0-9._-]+)$");
    let shape = shape.map_err(|e| e.to_string())?;
    holds!(content.manifest().lines().all(|line| shape.is_match(line)), "the minions' manifest is {}", content.manifest());
    Ok(())
}
