//! What a master has on AWS beyond the rest: the cloud controller, and the program that approves the certificates of minions.

use serde::{Deserialize, Serialize};

use super::{File, Files, Node, by_certificate};
use crate::bundle::Manifest;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::machine::BUNDLE_DIR;
use crate::pki::layout::AwsCerts;

/// The unit that knows instances as Nodes, and makes load balancers for Services. Nodes take no pods before it has seen them.
pub const CLOUD_CONTROLLER: &str = "aws-cloud-controller-manager.service";
/// The unit without which no minion joins.
pub const NODE_APPROVER: &str = "node-approver.service";

/// Where in AWS a master is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The region.
    pub region: String,
    /// The cluster's VPC.
    pub vpc: String,
    /// The master's own subnet.
    pub subnet: String,
    /// Where AWS's services are, if not where the SDK knows them to be: as `AWS_ENDPOINT_URL` says it.
    pub endpoint: Option<String>,
}

#[derive(Serialize)]
struct Values<'a> {
    bundle: &'static str,
    cluster: &'a Cluster,
    aws: &'a Place,
    leader_elect: bool,
}

/// The files of a master's units for AWS. They belong to [`CLOUD_CONTROLLER`] and [`NODE_APPROVER`], which want the API to answer and to
/// know its access rules.
pub fn master(node: &Node<'_>, certs: &AwsCerts, place: &Place) -> Result<Vec<File>> {
    let values = Values {
        bundle: BUNDLE_DIR,
        cluster: node.cluster,
        aws: place,
        // As for the other controllers: one master has nobody to agree with.
        leader_elect: node.topology.masters.len() > 1,
    };
    let mut files = Files { values: &values, files: Vec::new() };
    files.template("/etc/kup/aws.env", 0o644, "aws/env", &[CLOUD_CONTROLLER, NODE_APPROVER])?;
    files.template("/etc/kup/cloud.conf", 0o644, "aws/cloud.conf", &[CLOUD_CONTROLLER])?;
    for (name, pair, unit) in [
        ("cloud-controller-manager", &certs.cloud_controller, CLOUD_CONTROLLER),
        ("node-approver", &certs.node_approver, NODE_APPROVER),
    ] {
        files.pair(name, pair, &[unit]);
        let path = format!("/etc/kup/pki/{name}");
        // Its own API server, as the other controllers do.
        files.kubeconfig(name, "127.0.0.1", &by_certificate(&format!("{path}.crt"), &format!("{path}.key")), &[unit])?;
        files.unit(unit)?;
    }
    files.pair("cloud-controller-manager-server", &certs.cloud_controller_server, &[CLOUD_CONTROLLER]);
    Ok(files.files)
}

/// Whether a bundle has what masters need on AWS: one that was fetched where there is no Go lacks the program of kup's own.
///
/// # Errors
/// It doesn't.
pub fn check(bundle: &Manifest) -> Result<()> {
    let there = bundle.file("node-approver").map(|_| ());
    there.map_err(|e| {
        e.why("nobody publishes it: Go compiles it where the bundle is made, and there was none")
            .hint("install Go, and make the bundle again: kup bundle fetch")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bundle::manifest::Origin;
    use crate::bundle::{Arch, manifest};
    use crate::machine::facts::{EtcdData, Facts};
    use crate::machine::files::Images;
    use crate::machine::topology::{Peer, Topology};
    use crate::machine::{BundleAccess, Machine, Role};
    use crate::pki::Pair;

    fn pair(name: &str) -> Pair {
        Pair { cert: format!("CERTIFICATE {name}\n"), key: format!("KEY {name}\n") }
    }

    fn rendered(masters: u8, endpoint: Option<&str>) -> Vec<File> {
        let machine = |n: u8| Machine {
            name: format!("i-0123456789abcdef{n}"),
            role: Role::Master,
            address: [172, 20, 0, 9 + n].into(),
            ssh_port: 22,
            user: "admin".into(),
            host_key: String::new(),
            bundle: BundleAccess::Mounted,
            cloud: None,
        };
        let machines: Vec<Machine> = (1..=masters).map(machine).collect();
        let facts = Facts {
            kernel: "6.1.0".into(),
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
        };
        let node = Node {
            cluster: &crate::cluster::defaults::cluster().unwrap(),
            topology: &Topology::of(&machines),
            me: &Peer::from(&machines[0]),
            role: Role::Master,
            facts: &facts,
            images: &Images { pause: "registry.k8s.io/pause:3.10.2".into(), all: BTreeMap::new() },
            cloud: None,
            backups: &crate::backup::Place::Directory,
        };
        let certs = AwsCerts {
            cloud_controller: pair("cloud-controller"),
            cloud_controller_server: pair("cloud-controller-server"),
            node_approver: pair("node-approver"),
        };
        let place = Place {
            region: "us-west-2".into(),
            vpc: "vpc-0123456789abcdef0".into(),
            subnet: "subnet-0123456789abcdef0".into(),
            endpoint: endpoint.map(str::to_owned),
        };
        master(&node, &certs, &place).unwrap()
    }

    fn shown(files: &[File]) -> String {
        let one = |f: &File| {
            format!("##### {} {:04o} [{}]\n{}", f.path, f.mode, f.units.join(" "), String::from_utf8_lossy(&f.contents))
        };
        files.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn golden_master_on_aws() {
        insta::assert_snapshot!(shown(&rendered(1, None)));
    }

    #[test]
    fn the_endpoint_of_the_sdk_is_theirs_too_and_several_masters_elect() {
        let text = shown(&rendered(3, Some("http://172.20.0.1:4566")));
        assert!(text.contains("\nAWS_REGION=us-west-2\nAWS_ENDPOINT_URL=http://172.20.0.1:4566\n"), "{text}");
        assert_eq!(text.matches("--leader-elect=true").count(), 2);
    }

    #[test]
    fn keys_are_for_root_alone() {
        for file in rendered(1, None) {
            let secret = String::from_utf8_lossy(&file.contents).contains("KEY ");
            assert_eq!(secret, file.path.ends_with(".key"), "{}", file.path);
            assert!(!secret || file.mode == 0o600, "{} has the mode {:o}", file.path, file.mode);
        }
    }

    #[test]
    fn a_bundle_without_the_approver_is_refused_with_the_remedy() {
        let file = |name: &str| manifest::File {
            name: name.into(),
            component: name.into(),
            version: "0.1.0".into(),
            role: manifest::Role::Master,
            path: format!("bin/{name}"),
            size: 1,
            sha256: String::new(),
            source: String::new(),
            image: None,
        };
        let bundle = |files| Manifest::new("1.37.1", Arch::Amd64, Origin::Fetched, files);
        check(&bundle(vec![file("node-approver")])).unwrap();
        let e = check(&bundle(vec![file("kubelet")])).unwrap_err();
        assert!(e.hints[0].contains("install Go"), "{e}");
    }
}
