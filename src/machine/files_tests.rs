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
            .then(|| NodeCerts { kubelet_client: pair("kubelet-client"), kubelet_server: pair("kubelet-server") })
            .map(NodeLogin::Issued),
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
            aws: None,
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
        cloud: None,
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
    let node = Node {
        cluster: &cluster,
        topology: &topology,
        me: &me,
        role,
        facts,
        images: &images,
        cloud: None,
        backups: &Place::Directory,
    };
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
