//! The local provider on a real engine: what it makes, finds again, repairs and removes, seen from outside by the engine's own lists.
//!
//! Needs root, podman and a bundle (the newest in the cache, or `KUP_TEST_BUNDLE`). Clusters are called `kup-test-…` and are removed
//! however a test ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kup::cluster::Cluster;
use kup::cluster::spec::{BundleRoute, EngineChoice, ProviderKind, Subnet};
use kup::machine::{BundleAccess, Machine, Role};
use kup::provider::Finder as _;
use kup::provider::local::engine::{Engine, EngineKind};
use kup::provider::local::{keys, load, names, user_key};
use kup::provider::{ClusterId, LocalProvider, Provider, Verb};
use kup::report::Report;
use kup::state;

/// Removes a cluster when the test ends, whatever happened, without the code under test.
struct Guard(String);

impl Drop for Guard {
    fn drop(&mut self) {
        let filter = format!("label=kup.dev/cluster={}", self.0);
        for (list, remove) in [
            (vec!["ps", "-aq"], vec!["rm", "-f", "-t", "0", "-v"]),
            (vec!["volume", "ls", "-q"], vec!["volume", "rm", "-f"]),
            (vec!["network", "ls", "-q"], vec!["network", "rm", "-f"]),
        ] {
            let mut listed = Command::new("podman");
            let ids = listed.args(&list).arg("--filter").arg(&filter).output().expect("podman runs");
            for id in String::from_utf8_lossy(&ids.stdout).split_whitespace() {
                let _ = Command::new("podman").args(&remove).arg(id).output();
            }
        }
        let _ = std::fs::remove_dir_all(state_dir(&self.0));
    }
}

/// A thing of the engine's that is not kup's, removed at the end.
struct Foreign(Vec<String>);

impl Foreign {
    fn make(make: &[&str], remove: &[&str]) -> Foreign {
        podman(make);
        Foreign(remove.iter().map(|s| (*s).to_owned()).collect())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = Command::new("podman").args(&self.0).output();
    }
}

fn podman(args: &[&str]) -> String {
    let output = Command::new("podman").args(args).output().expect("podman runs");
    assert!(output.status.success(), "podman {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn state_dir(name: &str) -> PathBuf {
    state::cluster_dir(&ClusterId { provider: ProviderKind::Local, name: name.into() }).expect("a home")
}

fn bundle() -> PathBuf {
    if let Some(dir) = std::env::var_os("KUP_TEST_BUNDLE") {
        return dir.into();
    }
    let all = state::cache_dir().expect("a home").join("bundles");
    let complete =
        std::fs::read_dir(&all).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.join("bundle.yaml").is_file());
    complete.max().unwrap_or_else(|| panic!("no bundle in {}: run `kup bundle build` first", all.display()))
}

fn provider() -> LocalProvider {
    LocalProvider::new(EngineChoice::Podman).with_bundle(bundle())
}

fn cluster(name: &str, masters: u16, minions: u16) -> Cluster {
    let mut cluster = kup::cluster::defaults::cluster().expect("the defaults");
    cluster.name = name.to_owned();
    (cluster.masters.count, cluster.minions.count) = (masters, minions);
    cluster.local.engine = EngineChoice::Podman;
    cluster
}

/// Provisions and returns the machines in the order of their names.
async fn provision(cluster: &Cluster) -> Vec<Machine> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    provider().provision(cluster, &Report::silent(), sender).await.unwrap_or_else(|e| panic!("{e}"));
    let mut machines = Vec::new();
    while let Some(machine) = receiver.recv().await {
        machines.push(machine);
    }
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    machines
}

/// The error with which making a cluster is refused.
async fn refused(cluster: &Cluster) -> String {
    let (sender, _receiver) = tokio::sync::mpsc::unbounded_channel();
    provider().provision(cluster, &Report::silent(), sender).await.expect_err("it must be refused").to_string()
}

async fn verbs(cluster: &Cluster) -> Vec<(Verb, String)> {
    let actions = provider().plan(cluster).await.unwrap_or_else(|e| panic!("{e}"));
    actions.into_iter().filter(|a| a.kind != "image").map(|a| (a.verb, format!("{} {}", a.kind, a.name))).collect()
}

async fn teardown(name: &str) -> Vec<String> {
    // Finding and removing must work with no config and no bundle.
    LocalProvider::new(EngineChoice::Auto).teardown(name, &Report::silent()).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Everything in the engine and on the host that has this cluster's name in its own, or an address in its network.
fn traces(name: &str, prefix: Option<&str>) -> Vec<String> {
    let mut traces: Vec<String> = Vec::new();
    for list in [
        ["ps", "-a", "--format", "{{.Names}}"].as_slice(),
        &["volume", "ls", "--format", "{{.Name}}"],
        &["network", "ls", "--format", "{{.Name}}"],
    ] {
        traces.extend(podman(list).lines().filter(|l| l.contains(name)).map(str::to_owned));
    }
    if let Some(prefix) = prefix {
        for args in [["-o", "addr"].as_slice(), &["route", "show", "table", "all"]] {
            let shown = Command::new("ip").args(args).output().expect("ip runs");
            traces.extend(String::from_utf8_lossy(&shown.stdout).lines().filter(|l| l.contains(prefix)).map(str::to_owned));
        }
    }
    if state_dir(name).exists() {
        traces.push(state_dir(name).display().to_string());
    }
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    traces.extend(mounts.lines().filter(|l| l.contains(name)).map(str::to_owned));
    traces
}

/// One test at a time: a range that one has just freed would be taken by the next, and look like a trace of the first.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const NOTHING: [String; 0] = [];

/// The first three numbers of an address, with the dot.
fn prefix(machine: &Machine) -> String {
    let [a, b, c, _] = machine.address.octets();
    format!("{a}.{b}.{c}.")
}

/// Logs in as kup does, with the host key pinned, and runs a command.
fn ssh(machine: &Machine, command: &str) -> String {
    let cluster = machine.name.rsplitn(3, '-').last().expect("a cluster's name");
    let key = user_key(cluster, None).expect("a path");
    let begun = Instant::now();
    let stream = loop {
        match TcpStream::connect((machine.address, machine.ssh_port)) {
            Ok(stream) => break stream,
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(60), "sshd of {} does not listen: {e}", machine.name),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut session = ssh2::Session::new().expect("a session");
    session.set_timeout(60_000);
    session.set_tcp_stream(stream);
    session.handshake().expect("a handshake");
    let (host_key, kind) = session.host_key().expect("a host key");
    assert!(matches!(kind, ssh2::HostKeyType::Ed25519));
    let pinned = ssh_key::PublicKey::from_openssh(&machine.host_key).expect("an OpenSSH line");
    assert_eq!(host_key, pinned.to_bytes().expect("bytes"), "the key that answers is the one that was promised");
    session.userauth_pubkey_file("root", None, &key, None).expect("a login");
    let mut channel = session.channel_session().expect("a channel");
    channel.exec(command).expect("a command");
    let mut output = String::new();
    channel.read_to_string(&mut output).expect("output");
    channel.wait_close().expect("an end");
    assert_eq!(channel.exit_status().expect("a status"), 0, "{command}: {output}");
    output.trim().to_owned()
}

fn id(container: &str) -> String {
    podman(&["container", "inspect", "--format", "{{.Id}}", container])
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_made_kept_started_and_removed() {
    let _turn = TURN.lock().await;
    let name = "kup-test-life";
    let _guard = Guard(name.into());
    let spec = cluster(name, 1, 1);
    let before = verbs(&spec).await;
    assert!(before.iter().all(|(verb, _)| *verb == Verb::Create), "{before:?}");
    for wanted in ["network kup-local-kup-test-life", "machine kup-test-life-master-1", "volume kup-local-kup-test-life-minion-1"]
    {
        assert!(before.iter().any(|(_, thing)| thing == wanted), "{wanted} in {before:?}");
    }
    assert_eq!(traces(name, None), NOTHING, "a plan makes nothing");

    let machines = provision(&spec).await;
    let (master, minion) = (&machines[0], &machines[1]);
    assert_eq!((master.name.as_str(), master.role), ("kup-test-life-master-1", Role::Master));
    assert_eq!((minion.name.as_str(), minion.role), ("kup-test-life-minion-1", Role::Minion));
    assert_ne!(master.host_key, minion.host_key);
    for machine in &machines {
        assert_eq!(machine.bundle, BundleAccess::Mounted);
        assert_eq!(ssh(machine, "hostname"), machine.name);
        assert!(ssh(machine, "ip -4 addr show dev eth0").contains(&format!("inet {}/24", machine.address)));
        let keys = "/root/.ssh/authorized_keys /etc/ssh/ssh_host_*";
        assert_eq!(
            ssh(machine, &format!("stat -c %n:%U:%a {keys}")),
            "/root/.ssh/authorized_keys:root:600\n/etc/ssh/ssh_host_ed25519_key:root:600"
        );
        assert!(ssh(machine, "touch /opt/kup/bundle/x 2>&1 || true").contains("Read-only"));
        assert_eq!(ssh(machine, "grep -c nameserver.127 /etc/resolv.conf || true"), "0");
        assert_eq!(ssh(machine, "systemctl is-system-running --wait; systemctl --failed --no-legend"), "running");
    }
    assert_ne!(ssh(master, "cat /etc/machine-id"), ssh(minion, "cat /etc/machine-id"));

    let after = verbs(&spec).await;
    assert!(after.iter().all(|(verb, _)| *verb == Verb::Keep), "{after:?}");
    let before: Vec<String> = machines.iter().map(|m| id(&m.name)).collect();
    assert_eq!(provision(&spec).await, machines, "the second time hands on the same machines");
    assert_eq!(machines.iter().map(|m| id(&m.name)).collect::<Vec<_>>(), before);

    let found = LocalProvider::new(EngineChoice::Auto).discover(name).await.expect("a discovery");
    assert!(found.machines.iter().all(|f| f.running));
    assert_eq!(found.machines.into_iter().map(|f| f.machine).collect::<Vec<_>>(), machines);
    assert!(LocalProvider::new(EngineChoice::Auto).clusters().await.expect("clusters").contains(&name.to_owned()));

    ssh(minion, "echo kept >/var/kept");
    podman(&["stop", "-t", "0", &minion.name]);
    let stopped = verbs(&spec).await;
    assert!(stopped.contains(&(Verb::Start, format!("machine {}", minion.name))), "{stopped:?}");
    assert_eq!(stopped.iter().filter(|(verb, _)| *verb != Verb::Keep).count(), 1, "{stopped:?}");
    assert_eq!(provision(&spec).await, machines);
    assert_eq!(
        (ssh(minion, "cat /var/kept"), id(&minion.name)),
        ("kept".into(), before[1].clone()),
        "the same machine, started again"
    );

    let fewer = cluster(name, 1, 0);
    let plan = verbs(&fewer).await;
    assert!(plan.contains(&(Verb::Delete, format!("machine {}", minion.name))), "{plan:?}");
    assert!(plan.contains(&(Verb::Delete, format!("volume {}", names::volume(&minion.name)))), "{plan:?}");
    provider().remove_machine(name, &minion.name).await.expect("a removal");
    assert!(verbs(&fewer).await.iter().all(|(verb, _)| *verb == Verb::Keep));
    assert!(!keys::machine_path(&state_dir(name), &minion.name).exists());
    provider().remove_machine(name, &minion.name).await.expect("twice is no error");

    assert!(traces(name, Some(&prefix(master))).len() > 3, "the look for traces sees something while there is something");
    assert_eq!(teardown(name).await, NOTHING);
    assert_eq!(traces(name, Some(&prefix(master))), NOTHING);
    assert_eq!(teardown(name).await, NOTHING, "twice");
    assert!(!LocalProvider::new(EngineChoice::Auto).clusters().await.expect("clusters").contains(&name.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_is_never_touched() {
    let _turn = TURN.lock().await;
    let name = "kup-test-mine";
    let image = provider().build_image(&Report::silent(), false).await.unwrap_or_else(|e| panic!("{e}"));
    // Near misses: another cluster, a label missing, another provider, another key.
    let near = [
        ("kup-test-mine-other", ["--label=kup.dev/cluster=kup-test-mine-other", "--label=kup.dev/provider=local"]),
        ("kup-test-mine-minion-9", ["--label=kup.dev/cluster=kup-test-mine", "--label=x=y"]),
        ("kup-test-mine-aws", ["--label=kup.dev/cluster=kup-test-mine", "--label=kup.dev/provider=aws"]),
        ("kup-test-mine-keys", ["--label=kup.dev/clusters=kup-test-mine", "--label=kup.dev/provider=local"]),
    ];
    let mut foreign = Vec::new();
    for (thing, [one, two]) in near {
        foreign.push(Foreign::make(&["volume", "create", one, two, thing], &["volume", "rm", thing]));
        foreign.push(Foreign::make(&["network", "create", one, two, thing], &["network", "rm", thing]));
        foreign.push(Foreign::make(&["create", one, two, "--name", thing, &image, "true"], &["rm", "-f", thing]));
    }
    let _guard = Guard("kup-test-mine-none".into());
    let machines = provision(&cluster(name, 1, 0)).await;
    assert_eq!(machines.len(), 1);
    let found = LocalProvider::new(EngineChoice::Auto).discover(name).await.expect("a discovery");
    assert_eq!(found.machines.len(), 1);
    assert_eq!(found.others, ["network kup-local-kup-test-mine", "volume kup-local-kup-test-mine-master-1"]);
    assert_eq!(teardown(name).await, NOTHING);
    for (thing, _) in near {
        for kind in ["container", "volume", "network"] {
            podman(&[kind, "inspect", thing]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_made_is_completed_or_removed() {
    let _turn = TURN.lock().await;
    let name = "kup-test-half";
    let _guard = Guard(name.into());
    let labels = ["--label=kup.dev/provider=local", "--label=kup.dev/cluster=kup-test-half"];
    podman(&["network", "create", "--subnet=172.29.200.0/24", labels[0], labels[1], "kup-local-kup-test-half"]);
    assert_eq!(teardown(name).await, NOTHING);
    assert_eq!(traces(name, Some("172.29.200.")), NOTHING, "the network alone");

    podman(&["network", "create", "--subnet=172.29.200.0/24", labels[0], labels[1], "kup-local-kup-test-half"]);
    podman(&["volume", "create", labels[0], labels[1], "kup-local-kup-test-half-master-1"]);
    let spec = cluster(name, 1, 1);
    let plan = verbs(&spec).await;
    assert!(plan.contains(&(Verb::Keep, "network kup-local-kup-test-half".into())), "{plan:?}");
    assert!(plan.contains(&(Verb::Keep, "volume kup-local-kup-test-half-master-1".into())), "{plan:?}");
    let machines = provision(&spec).await;
    assert_eq!(machines.iter().map(|m| m.address.to_string()).collect::<Vec<_>>(), ["172.29.200.11", "172.29.200.101"]);
    ssh(&machines[0], "true");

    // A machine that vanished is made again, with the keys it had.
    podman(&["rm", "-f", "-t", "0", &machines[1].name]);
    assert!(verbs(&spec).await.contains(&(Verb::Create, format!("machine {}", machines[1].name))));
    assert_eq!(provision(&spec).await, machines);

    // Without the keys nobody can log in to what stands: that is said before anything is done.
    std::fs::remove_dir_all(state_dir(name)).expect("a removal");
    let error = provider().plan(&spec).await.expect_err("a cluster without its keys").to_string();
    assert!(error.contains("SSH key is gone") && error.contains("kup down --name kup-test-half"), "{error}");
    podman(&["rm", "-f", "-t", "0", &machines[0].name]);
    assert_eq!(teardown(name).await, NOTHING);
    assert_eq!(traces(name, Some("172.29.200.")), NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_names_and_ranges_are_refused_before_anything_is_made() {
    let _turn = TURN.lock().await;
    let name = "kup-test-taken";
    let _guard = Guard(name.into());
    let spec = cluster(name, 1, 0);
    let thing = "kup-local-kup-test-taken";
    {
        let _foreign = Foreign::make(&["network", "create", thing], &["network", "rm", thing]);
        let error = refused(&spec).await;
        assert!(error.contains("already has a network kup-local-kup-test-taken"), "{error}");
        assert_eq!(traces(name, None), [thing]);
    }
    {
        let thing = "kup-local-kup-test-taken-master-1";
        let _foreign = Foreign::make(&["volume", "create", thing], &["volume", "rm", thing]);
        let error = refused(&spec).await;
        assert!(error.contains("already has a volume kup-local-kup-test-taken-master-1"), "{error}");
        assert_eq!(traces(name, None), [thing]);
    }
    {
        let image = provider().build_image(&Report::silent(), false).await.unwrap_or_else(|e| panic!("{e}"));
        let thing = "kup-test-taken-master-1";
        let _foreign = Foreign::make(&["create", "--name", thing, &image, "true"], &["rm", "-f", thing]);
        let error = refused(&spec).await;
        assert!(error.contains("already has a container kup-test-taken-master-1"), "{error}");
        assert_eq!(traces(name, None), [thing]);
    }
    let elsewhere = "kup-test-elsewhere";
    let _foreign = Foreign::make(&["network", "create", "--subnet=172.29.210.0/25", elsewhere], &["network", "rm", elsewhere]);
    let mut fixed = spec.clone();
    fixed.local.subnet = Subnet::Fixed("172.29.210.64/26".parse().expect("a range"));
    let error = refused(&fixed).await;
    assert!(error.contains("172.29.210.64/26 is taken by podman's network kup-test-elsewhere"), "{error}");
    let mut small = cluster(name, 1, 22);
    small.local.subnet = Subnet::Fixed("172.29.211.0/27".parse().expect("a range"));
    let error = refused(&small).await;
    assert!(error.contains("at most 21 minions"), "{error}");
    assert_eq!(traces(name, Some("172.29.211.")), NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_ranges_work_and_a_sent_bundle_is_not_mounted() {
    let _turn = TURN.lock().await;
    let name = "kup-test-small";
    let _guard = Guard(name.into());
    let mut spec = cluster(name, 1, 1);
    spec.local.subnet = Subnet::Fixed("172.29.220.32/27".parse().expect("a range"));
    spec.local.bundle = BundleRoute::Ssh;
    let machines = provision(&spec).await;
    assert_eq!(machines.iter().map(|m| m.address.to_string()).collect::<Vec<_>>(), ["172.29.220.35", "172.29.220.42"]);
    for machine in &machines {
        assert_eq!(machine.bundle, BundleAccess::Sent);
        assert_eq!(ssh(machine, "ls /opt/kup/bundle 2>/dev/null || echo none"), "none");
    }
    let console = provider().console(name, &machines[0].name).await.expect("a console");
    assert!(console.contains("kup-test-small-master-1: running"), "{console}");
    spec.local.bundle = BundleRoute::Mount;
    assert!(provider().plan(&spec).await.is_err_and(|e| e.what.contains("another bundle")));
    assert_eq!(teardown(name).await, NOTHING);
    assert_eq!(traces(name, Some("172.29.220.")), NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_have_the_bundles_images_and_take_more() {
    let _turn = TURN.lock().await;
    let name = "kup-test-images";
    let _guard = Guard(name.into());
    let machines = provision(&cluster(name, 1, 1)).await;
    let list = "/opt/kup/bundle/bin/ctr -n k8s.io images check";
    for machine in &machines {
        let config = "version = 3\\nroot = \"/var/lib/containerd\"\\nstate = \"/run/containerd\"\\n";
        ssh(
            machine,
            &format!(
                "printf '{config}' >/run/containerd.toml
                systemd-run -q --unit=test-containerd /opt/kup/bundle/bin/containerd --config /run/containerd.toml
                for i in $(seq 300); do /opt/kup/bundle/bin/ctr version >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1"
            ),
        );
        let images = ssh(machine, list);
        for image in ["pause", "coredns"] {
            let unpacked = |l: &str| l.contains(image) && l.contains("complete") && l.trim_end().ends_with("true");
            assert!(images.lines().any(unpacked), "{image} unpacked: {images}");
        }
        // Unpacked is only worth something if it runs: this one's layer is shared by all machines.
        let coredns = images.lines().find(|l| l.contains("coredns")).and_then(|l| l.split_whitespace().next()).expect("a name");
        let run = format!(
            "PATH=$PATH:/opt/kup/bundle/bin ctr -n k8s.io run --rm --runc-binary /opt/kup/bundle/bin/runc --net-host {coredns} t /coredns -version 2>&1"
        );
        assert!(ssh(machine, &run).contains("CoreDNS"));
    }

    let directory = tempfile::tempdir().expect("a directory");
    let (hello, archive) = (directory.path().join("hello"), directory.path().join("rootfs.tar"));
    std::fs::write(&hello, "hello").expect("a file");
    let made = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(directory.path()).arg("hello").status();
    assert!(made.expect("tar runs").success());
    let image = "localhost/kup-test-a-name-that-is-longer-than-forty:1";
    let _image = Foreign::make(&["import", "-q", &archive.display().to_string(), image], &["rmi", "-f", image]);
    let engine = Engine::find(EngineChoice::Podman).await.expect("podman").remove(0);
    assert_eq!(engine.kind(), EngineKind::Podman);
    let missing =
        load::save(&engine, &["localhost/kup-test-nothing:1".into()], &Report::silent()).await.expect_err("no such image");
    assert!(missing.what.contains("neither a file nor an image"), "{missing}");
    let saved = load::save(&engine, &[image.into()], &Report::silent()).await.unwrap_or_else(|e| panic!("{e}"));
    let loaded =
        load::load(&engine, &machines, Path::new(&saved), "hello", &Report::silent()).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded, [image]);
    for machine in &machines {
        let images = ssh(machine, list);
        assert!(images.lines().any(|l| l.contains(image) && l.trim_end().ends_with("true")), "{images}");
    }
    let error =
        load::load(&engine, &machines, &hello, "rubbish", &Report::silent()).await.expect_err("not an archive").to_string();
    assert!(error.contains("cannot load rubbish into kup-test-images-m"), "{error}");
    assert_eq!(teardown(name).await, NOTHING);
    assert_eq!(traces(name, Some(&prefix(&machines[0]))), NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_stand_side_by_side() {
    let _turn = TURN.lock().await;
    let (one, two) = ("kup-test-side", "kup-test-side-b");
    let _guards = (Guard(one.into()), Guard(two.into()));
    let specs = (cluster(one, 1, 0), cluster(two, 1, 0));
    // At the same time: both want the first free range.
    let (first, second) = tokio::join!(provision(&specs.0), provision(&specs.1));
    assert_ne!(prefix(&first[0]), prefix(&second[0]));
    assert_eq!(teardown(one).await, NOTHING);
    assert_eq!(ssh(&second[0], "hostname"), "kup-test-side-b-master-1");
    assert_eq!(teardown(two).await, NOTHING);
    let both: BTreeSet<String> = [prefix(&first[0]), prefix(&second[0])].into();
    for prefix in both {
        assert_eq!(traces(two, Some(&prefix)), NOTHING);
    }
}
