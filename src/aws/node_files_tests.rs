#![allow(clippy::unwrap_used)]
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;

use super::*;
use crate::bundle::Arch;
use crate::bundle::manifest::Origin;
use crate::machine::facts::{EtcdData, Facts};
use crate::machine::files::{Cloud, Node, NodeLogin, render};
use crate::machine::topology::Peer;

const TOKEN: &str = "abcdef.ghijkmnpqrstuvwx";

fn credentials() -> Credentials {
    Credentials { cluster_ca: "CERTIFICATE cluster-ca\n".into(), node: Some(NodeLogin::Token(TOKEN.into())), master: None }
}

fn bundle() -> bundle::Manifest {
    let file = |(name, path, role): (&str, &str, bundle::Role)| BundleFile {
        name: name.into(),
        component: name.into(),
        version: "1.0.0".into(),
        role,
        path: path.into(),
        size: 4,
        sha256: sha256(name.as_bytes()),
        source: "test".into(),
        image: path.starts_with("images/").then(|| format!("registry.example.com/{name}:1.0.0")),
    };
    use bundle::Role::{Both, Client, Image, Master, Test};
    let files = [
        ("kube-apiserver", "bin/kube-apiserver", Master),
        ("kubectl", "bin/kubectl", Client),
        ("kubelet", "bin/kubelet", Both),
        ("containerd", "bin/containerd", Both),
        ("crictl", "bin/crictl", Both),
        ("bridge", "cni/bridge", Both),
        ("pause", "images/pause.tar", Image),
        ("coredns", "images/coredns.tar", Image),
        ("agnhost", "images/agnhost.tar", Test),
    ];
    bundle::Manifest::new("1.37.1", Arch::Amd64, Origin::Built, files.into_iter().map(file).collect())
}

fn topology(masters: u8) -> Topology {
    let master = |n| Peer { name: format!("master-{n}"), address: [172, 20, 0, 9 + n].into() };
    Topology { masters: (1..=masters).map(master).collect(), balancer: None, called: Vec::new() }
}

fn content(masters: u8) -> Content {
    let cluster = crate::cluster::defaults::cluster().unwrap();
    Content::new(&cluster, &topology(masters), &bundle(), &credentials()).unwrap()
}

fn unpacked(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let one = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), contents)
    };
    archive.entries().unwrap().map(one).collect()
}

#[test]
fn golden_bucket_of_a_small_cluster() {
    let content = content(1);
    assert_eq!(content, self::content(1), "the same cluster gives the same bytes");
    // The archive's own sum hangs on the compressing library.
    let manifest = content.manifest().replace(&sha256(&content.files), "SUM-OF-THE-ARCHIVE");
    let members = unpacked(&content.files);
    let list: String =
        members.iter().map(|(path, mode, contents)| format!("{mode:04o} {} {path}\n", &sha256(contents)[..12])).collect();
    let told = [
        "root/etc/kup/kubelet.yaml",
        "root/etc/kup/bootstrap.kubeconfig",
        "root/etc/kup/images.sh",
        "root/etc/kup/hosts.sh",
        "hosts",
    ]
    .into_iter()
    .chain([
        "root/etc/systemd/system/kubelet.service",
        "root/etc/systemd/system/kup-images.service",
        "root/etc/kup/flannel.json",
    ]);
    let shown: String = told
        .map(|path| {
            let (_, mode, contents) = members.iter().find(|(name, ..)| name == path).unwrap();
            format!("##### {path} {mode:04o}\n{}\n", String::from_utf8_lossy(contents))
        })
        .collect();
    insta::assert_snapshot!(format!("{manifest}\n{list}\n{shown}"));
}

#[test]
fn masters_find_all_of_theirs_in_the_bucket_and_first_of_all() {
    let content = content(1);
    let order: Vec<&str> = content.of_the_bundle().map(|file| file.name.as_str()).collect();
    assert_eq!(order[..2], ["kube-apiserver", "containerd"], "no minion joins before a master is there: {order:?}");
    let wanted: Vec<_> = bundle::pack::sums(&bundle(), &[bundle::Role::Master, bundle::Role::Both, bundle::Role::Image])
        .0
        .iter()
        .map(|file| file.name.clone())
        .collect();
    let missing: Vec<_> = wanted.iter().filter(|name| !order.contains(&name.as_str())).collect();
    assert!(missing.is_empty() && wanted.len() == order.len(), "{missing:?} of {wanted:?} are not brought: {order:?}");
    let apiserver = content.masters[0].sha256.as_str();
    assert!(!content.manifest().contains(apiserver), "minions are told of what they do not need");
}

#[test]
fn a_minion_is_told_one_secret_and_only_root_reads_it() {
    let content = content(3);
    let holding: Vec<(String, u32)> = unpacked(&content.files)
        .into_iter()
        .filter(|(_, _, contents)| String::from_utf8_lossy(contents).contains("ghijkmnpqrstuvwx"))
        .map(|(path, mode, _)| (path, mode))
        .collect();
    assert_eq!(holding, [("root/etc/kup/bootstrap.kubeconfig".to_owned(), 0o600)]);
    assert!(!content.script.contains("ghijkmnpqrstuvwx") && !content.manifest().contains("ghijkmnpqrstuvwx"));
}

#[test]
fn what_changes_the_bucket_is_what_should() {
    let cluster = crate::cluster::defaults::cluster().unwrap();
    let lines = |content: &Content| content.manifest().lines().map(str::to_owned).collect::<Vec<_>>();
    let (one, three) = (lines(&content(1)), lines(&content(3)));
    assert_eq!(one.iter().zip(&three).filter(|(a, b)| a != b).count(), 1, "masters are told in the files alone");
    let other = Credentials { cluster_ca: "CERTIFICATE another\n".into(), ..credentials() };
    let other = Content::new(&cluster, &topology(1), &bundle(), &other).unwrap();
    assert_ne!(other.files, content(1).files);
    assert_eq!(other.script, content(1).script);
    let error = Content::new(&cluster, &topology(0), &bundle(), &credentials()).unwrap_err();
    assert!(error.what.contains("without a master"), "{error}");
}

/// A machine as user-data and the metadata service tell it, and as it is.
#[derive(Debug, Clone)]
struct Minion {
    name: String,
    masters: u8,
    cloud: Cloud,
    facts: Facts,
}

impl Minion {
    fn new(facts: Facts) -> Minion {
        let cloud = Cloud {
            provider_id: "aws:///us-west-2a/i-0123456789abcdef0".into(),
            group: Some("workers".into()),
            ..Cloud::default()
        };
        Minion { name: "i-0123456789abcdef0".into(), masters: 1, cloud, facts }
    }

    fn identity(&self) -> String {
        format!("name={}\naddress=172.20.0.77\nprovider_id={}\n", self.name, self.cloud.provider_id)
    }

    fn settings(&self) -> String {
        let mut text = format!("cluster=kubernetes\ngroup={}\n", self.cloud.group.as_deref().unwrap_or_default());
        text.extend(self.cloud.labels.iter().map(|label| format!("label={label}\n")));
        text.extend(self.cloud.taints.iter().map(|taint| format!("taint={taint}\n")));
        text
    }

    /// As `inspect.sh` would say them.
    fn told_facts(&self) -> String {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let f = &self.facts;
        format!(
            "kernel={}\narch={}\ncpus={}\nmemory_kib={}\ncgroup={}\ncap_sys_resource={}\nresolver={}\ncontainer={}\ninterface={}\nbridge_nf={}\netcd=none\n",
            f.kernel,
            f.arch,
            f.cpus,
            f.memory_mib * 1024 + 1023,
            if f.cgroup2 { 2 } else { 1 },
            yes(f.cap_sys_resource),
            f.resolver,
            yes(f.container),
            f.interface,
            yes(f.bridge_nf)
        )
    }

    /// All its files, as kup renders them where it has asked the machine.
    fn rendered(&self) -> Vec<File> {
        let cluster = crate::cluster::defaults::cluster().unwrap();
        let (topology, images) = (topology(self.masters), Images::of(&bundle()).unwrap());
        let me = Peer { name: self.name.clone(), address: [172, 20, 0, 77].into() };
        let node = Node {
            cluster: &cluster,
            topology: &topology,
            me: &me,
            role: Role::Minion,
            facts: &self.facts,
            images: &images,
            cloud: Some(&self.cloud),
            backups: &Place::Directory,
        };
        render(&node, &credentials()).unwrap()
    }

    /// The same, as the machine makes them of what is in the bucket.
    fn made(&self, dir: &Path, identity: &str) -> Output {
        let archive = content(self.masters).files;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        archive.set_preserve_permissions(true);
        archive.unpack(dir).unwrap();
        for (name, text) in [("identity", identity), ("settings", &self.settings()), ("facts", &self.told_facts())] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Command::new("sh").arg("./own.sh").current_dir(dir).output().unwrap()
    }

    fn is_the_same_both_ways(&self) {
        let dir = tempfile::tempdir().unwrap();
        let output = self.made(dir.path(), &self.identity());
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        let sums = std::fs::read_to_string(dir.path().join("sums")).unwrap();
        let files = self.rendered();
        assert_eq!(sums.lines().count(), files.len());
        for file in files {
            let path = dir.path().join("root").join(file.path.trim_start_matches('/'));
            let made = std::fs::read(&path).unwrap();
            let (made, wanted) = (String::from_utf8_lossy(&made), String::from_utf8_lossy(&file.contents));
            assert_eq!(made, wanted, "{} of {self:?}", file.path);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, file.mode, "{}", file.path);
            let sum = format!("{}  {}", sha256(&file.contents), file.path);
            assert!(sums.lines().any(|line| line == sum), "the sums lack {sum}");
        }
    }
}

/// A t3.small with a stock image.
fn small() -> Facts {
    Facts {
        kernel: "6.12.0".into(),
        arch: "x86_64".into(),
        cpus: 2,
        memory_mib: 1938,
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

#[test]
fn a_minion_has_the_same_files_whoever_fills_them_in() {
    Minion::new(small()).is_the_same_both_ways();
    let cloud = Cloud {
        labels: vec!["tier=back".into(), "example.com/pool=".into()],
        taints: vec!["dedicated=db:NoSchedule".into(), "example.com/batch:NoExecute".into(), "off=yes:PreferNoSchedule".into()],
        ..Minion::new(small()).cloud
    };
    Minion { masters: 3, cloud, ..Minion::new(small()) }.is_the_same_both_ways();
    let emulated = Facts {
        cgroup2: false,
        cap_sys_resource: false,
        container: true,
        resolver: "/etc/resolv.conf".into(),
        interface: "eth0".into(),
        ..small()
    };
    Minion::new(emulated).is_the_same_both_ways();
    // Where the table of what is kept back bends.
    for gib in [1, 4, 8, 16, 64] {
        for memory_mib in [gib * 1024 - 1, gib * 1024, gib * 1024 + 1] {
            let cpus = u32::try_from(gib).unwrap();
            Minion::new(Facts { memory_mib, cpus, ..small() }).is_the_same_both_ways();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn and_whatever_the_machine_is_like(
        id in "i-[0-9a-f]{17}", masters in 1_u8..=7, cpus in 1_u32..200, memory_mib in 256_u64..2_000_000,
        (cgroup2, cap_sys_resource, container) in any::<(bool, bool, bool)>(), taint in "[a-z]{1,9}(=[a-z0-9]{0,9})?:NoSchedule",
    ) {
        let facts = Facts { cpus, memory_mib, cgroup2, cap_sys_resource, container, ..small() };
        let minion = Minion::new(facts);
        let cloud = Cloud { provider_id: format!("aws:///us-west-2b/{id}"), taints: vec![taint], ..minion.cloud };
        Minion { name: id, masters, cloud, ..minion }.is_the_same_both_ways();
    }
}

#[test]
fn what_no_machine_is_called_is_never_written_into_a_file() {
    let minion = Minion::new(small());
    for (identity, why) in [
        ("name=i-0 --root=/\naddress=172.20.0.77\nprovider_id=aws:///a/i-0\n", "can't be used"),
        ("name=i-0|e id\naddress=172.20.0.77\nprovider_id=aws:///a/i-0\n", "can't be used"),
        ("name=$(id)\naddress=172.20.0.77\nprovider_id=aws:///a/i-0\n", "can't be used"),
        ("name=i-0\nprovider_id=aws:///a/i-0\n", "the address of this machine is not known"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = minion.made(dir.path(), identity);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{identity}: {said}");
        let unit = std::fs::read_to_string(dir.path().join("root/etc/systemd/system/kubelet.service")).unwrap();
        assert!(unit.contains("--hostname-override=@KUP_NAME@"), "something was filled in");
    }
}
