//! The node script, as `sh` and `curl` run it at a minion's first boot and every minute afterwards: against a small metadata service and a
//! small bucket, on a machine whose file system is this host's, but for the directories that it writes to.
//!
//! Needs root, for a file system of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use kup::aws::node_files::{Content, object};
use kup::aws::node_images::{self, IMAGES, Loaded};
use kup::aws::user_data::{Minion, bucket_url};
use kup::bundle::manifest::{File, Origin};
use kup::bundle::{Arch, Manifest, Role};
use kup::machine::files::{Credentials, NodeLogin};
use kup::machine::topology::{Peer, Topology};
use sha2::{Digest as _, Sha256};

#[path = "aws_boot/world.rs"]
mod world;
use world::{ACCOUNT, INSTANCE, SECRET, SESSION, TOKEN, World, program, real, replaced};

const BOOTSTRAP: &str = "abcdef.ghijkmnpqrstuvwx";

/// `systemctl`: what is started runs, unless it is to fail; what a unit does that the script waits for is done at once.
const SYSTEMCTL: &str = r#"#!/bin/sh
mkdir -p /run/fake
case "$1 $2" in
  'is-active '*) if [ -e "/run/fake/active.$2" ]; then echo active; else echo inactive; exit 3; fi; exit ;;
  '-q is-active') [ -e "/run/fake/active.$3" ]; exit ;;
  'show '*) exit ;;
esac
echo "$*" >> /run/fake/log
case $1 in start | restart) ;; *) exit 0 ;; esac
shift
for unit; do
  [ ! -e "/run/fake/fails.$unit" ] || { echo "Job for $unit failed." >&2; exit 1; }
  case $unit in
    -*) continue ;;
    kup-node.service) exec env KUP_UNIT=yes sh /var/lib/kup/boot/node.sh /var/lib/kup/boot ;;
    kup-hosts.service) sh /etc/kup/hosts.sh ;;
    kubelet.service) mkdir -p /var/lib/kubelet/pki; echo login > /var/lib/kubelet/pki/kubelet-client-current.pem; : > /run/fake/node ;;
  esac
  : > "/run/fake/active.$unit"
done
"#;

/// `curl`: the cluster's API is a directory, all else is really asked for.
const CURL: &str = r#"#!/bin/sh
echo "$@" >> /run/fake/argv
for word; do
  case $previous in -o) to=$word ;; --data-binary) body=${word#@} ;; esac
  previous=$word
done
case $previous in
  https://api.kup.internal:6443/readyz)
    grep -q '^172.20.0.10 api.kup.internal$' /etc/hosts || { echo 'curl: (6) Could not resolve host'; exit 6; }
    printf 'HTTP 200'; exit ;;
  https://api.kup.internal:6443/api/v1/nodes/*)
    [ -e /run/fake/node ] || { printf 'HTTP 404'; exit; }
    [ -z "$body" ] || sed 's/.*host-key":"\([^"]*\)".*/\1/' "$body" > /run/fake/annotation
    printf '{\n "metadata": { "annotations": { "kup.dev/ssh-host-key": "%s" } },\n "spec": { "podCIDR": "10.244.3.0/24" }\n}\n' \
      "$(cat /run/fake/annotation 2>/dev/null)" > "$to"
    printf 'HTTP 200'; exit ;;
esac
exec REAL "$@"
"#;

/// `ctr`: what is imported is kept in a file.
const CTR: &str = "#!/bin/sh\n[ \"$4\" != import ] || cat \"$5\" >> /run/fake/imported\n";

/// A machine that boots, and the world around it.
struct Machine {
    world: World,
    dir: tempfile::TempDir,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Machine {
    async fn new() -> Machine {
        let world = World::default();
        let (address, server) = world.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine { world, dir, address, server };
        for below in ["etc/ssh", "etc/systemd/system", "run/fake", "opt", "lib"] {
            std::fs::create_dir_all(machine.path(below)).unwrap();
        }
        std::fs::write(machine.path("etc/ssh/ssh_host_ed25519_key.pub"), "ssh-ed25519 AAAAkey+/= root@image\n").unwrap();
        std::fs::write(machine.path("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        std::fs::write(machine.path("etc/resolv.conf"), "nameserver 172.20.0.2\n").unwrap();
        for file in ["passwd", "group", "ld.so.cache", "nsswitch.conf"] {
            let _ = std::fs::copy(Path::new("/etc").join(file), machine.path("etc").join(file));
        }
        let bin = machine.path("bin");
        program(&bin, "systemctl", SYSTEMCTL);
        program(&bin, "curl", &CURL.replace("REAL", &real("curl")));
        program(
            &bin,
            "journalctl",
            "#!/bin/sh\nfor word; do case $word in *.service) echo \"the last words of $word\" ;; esac; done\n",
        );
        program(&bin, "ip", "#!/bin/sh\necho '192.0.2.1 via 172.20.0.1 dev ens5 src 172.20.0.77 uid 0'\n");
        program(&bin, "systemd-detect-virt", "#!/bin/sh\nexit 1\n");
        for name in ["nft", "modprobe", "sysctl"] {
            program(&bin, name, "#!/bin/sh\n");
        }
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Puts into the bucket what a minion starts from. What is a machine's own in the script is that of this test instead.
    fn publish(&self, cluster_ca: &str, kubelet: &str) -> Content {
        let files = [
            ("containerd", "bin/containerd", Role::Both, "containerd"),
            ("containerd-shim-runc-v2", "bin/containerd-shim-runc-v2", Role::Both, "shim"),
            ("runc", "bin/runc", Role::Both, "runc"),
            ("ctr", "bin/ctr", Role::Both, CTR),
            ("kubelet", "bin/kubelet", Role::Both, kubelet),
            ("kube-proxy", "bin/kube-proxy", Role::Both, "kube-proxy"),
            ("flanneld", "bin/flanneld", Role::Both, "flanneld"),
            ("bridge", "cni/bridge", Role::Both, "bridge"),
            // Of the same content as another.
            ("host-local", "cni/host-local", Role::Both, "bridge"),
            ("pause", "images/pause.tar", Role::Image, "pause"),
        ];
        let file = |(name, path, role, contents): (&str, &str, Role, &str)| File {
            name: name.into(),
            component: name.into(),
            version: "1.0.0".into(),
            role,
            path: path.into(),
            size: contents.len() as u64,
            sha256: hex::encode(Sha256::digest(contents)),
            source: "test".into(),
            image: (role == Role::Image).then(|| "registry.example.com/pause:1".into()),
        };
        let manifest = Manifest::new("1.37.1", Arch::host().unwrap(), Origin::Built, files.map(file).to_vec());
        for (_, path, _, contents) in files {
            let file = manifest.files.iter().find(|file| file.path == path).unwrap();
            self.world.put(&object(file), gzip(contents.as_bytes()));
        }
        let topology = Topology {
            masters: vec![Peer { name: "m".into(), address: [172, 20, 0, 10].into() }],
            balancer: None,
            called: Vec::new(),
        };
        let credentials =
            Credentials { cluster_ca: cluster_ca.into(), node: Some(NodeLogin::Token(BOOTSTRAP.into())), master: None };
        let cluster = kup::cluster::defaults::cluster().unwrap();
        let mut content = Content::new(&cluster, &topology, &manifest, &credentials).unwrap();
        content.script = replaced(
            &content.script,
            &[
                ("imds='http://169.254.169.254'", format!("imds='{}'", self.address)),
                ("> /dev/console", ">> /run/fake/console".into()),
                ("/proc/sys/net/bridge/bridge-nf-call-iptables", "/etc/hosts".into()),
                ("patience=900", "patience=12".into()),
                ("soon=120", "soon=1".into()),
            ],
        );
        self.put(&content);
        content
    }

    fn put(&self, content: &Content) {
        self.world.put("node/node.sh", content.script.as_str());
        self.world.put("node/files.tar.gz", content.files.clone());
        self.world.put("node/manifest", content.manifest());
    }

    /// Runs a command on the machine.
    async fn run(&self, command: &str) -> Output {
        let mounts: String = [("etc", "/etc"), ("run", "/run"), ("opt", "/opt"), ("lib", "/var/lib")]
            .map(|(from, to)| format!("mount --bind '{}' {to}\n", self.path(from).display()))
            .concat();
        let script = format!("set -e\nmount --make-rprivate /\n{mounts}{command}");
        let search = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let run = tokio::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env("PATH", search)
            .env("no_proxy", "127.0.0.1")
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("the script does not end").unwrap()
    }

    /// The first boot, from user-data on.
    async fn boot(&self) -> Output {
        let minion = Minion {
            cluster: "kubernetes".into(),
            region: "us-west-2".into(),
            account: ACCOUNT.into(),
            bucket: bucket_url("bucket", "us-west-2", Some(&self.address)),
            group: "workers".into(),
            labels: vec!["tier=back".into()],
            taints: vec![],
        };
        let changes = [
            ("imds='http://169.254.169.254'", format!("imds='{}'", self.address)),
            ("> /dev/console", ">> /run/fake/console".into()),
            ("patience=180", "patience=3".into()),
        ];
        std::fs::write(self.path("etc/user-data"), replaced(&minion.render().unwrap(), &changes)).unwrap();
        self.run("sh /etc/user-data").await
    }

    /// What the timer does.
    async fn tick(&self) -> Output {
        self.run("systemctl start kup-node.service").await
    }

    fn text(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_default()
    }

    /// The units that were started and restarted since the last time this was asked.
    fn started(&self) -> Vec<String> {
        let log = self.text("run/fake/log");
        std::fs::write(self.path("run/fake/log"), "").unwrap();
        let ours = |line: &&str| !line.contains("kup-node") && (line.starts_with("start ") || line.starts_with("restart "));
        log.lines().filter(ours).map(str::to_owned).collect()
    }

    fn is_node(&self) -> bool {
        self.path("run/fake/active.flanneld.service").exists()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_machine_becomes_a_node_and_stays_one() {
    let machine = Machine::new().await;
    machine.publish("CERTIFICATE one\n", "kubelet");
    *machine.world.refusals.lock().unwrap() = 1;
    let output = machine.boot().await;
    let text = said(&output);
    assert!(output.status.success(), "{text}{}", machine.text("run/fake/log"));
    assert!(text.contains(&format!("kup: this machine is the node {INSTANCE}, ")), "{text}");
    assert!(machine.text("run/fake/console").contains("kup: this machine is the node"), "the console says less than the journal");
    let mut started = machine.started();
    // Images are unpacked beside.
    started.retain(|line| line != "start kup-images.service");
    assert_eq!(
        started,
        [
            "start kup-host.service kup-hosts.service",
            "start containerd.service",
            "start kubelet.service",
            "start kube-proxy.service",
            "start flanneld.service",
            "start systemd-journald.service",
        ]
    );
    let unit = machine.text("etc/systemd/system/kubelet.service");
    for flag in [
        &format!("--hostname-override={INSTANCE} "),
        &format!("--provider-id=aws:///us-west-2a/{INSTANCE} "),
        "--node-ip=172.20.0.77 ",
        "--node-labels=kup.dev/role=minion,kup.dev/group=workers,tier=back\n",
    ] {
        assert!(unit.contains(flag), "no {flag} in {unit}");
    }
    for (path, contents) in [("bin/kubelet", "kubelet"), ("cni/bridge", "bridge"), ("cni/host-local", "bridge")] {
        assert_eq!(machine.text(&format!("opt/kup/bundle/{path}")), contents);
    }
    assert_eq!(machine.text("run/fake/annotation"), "ssh-ed25519 AAAAkey+/=");
    // The link leads to a path of the machine's own.
    assert!(machine.path("etc/systemd/system/timers.target.wants/kup-node.timer").is_symlink());
    let shown = format!("{}{text}{}", machine.text("run/fake/argv"), machine.text("run/fake/console"));
    for secret in [SECRET, SESSION, TOKEN, "ASIAEXAMPLE", "ghijkmnpqrstuvwx"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    // Again: nothing is fetched but the manifest, nothing is started, nothing is said.
    machine.world.asked.lock().unwrap().clear();
    let output = machine.tick().await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
    assert_eq!(machine.started(), [""; 0]);
    assert_eq!(*machine.world.asked.lock().unwrap(), ["node/manifest"]);
}

#[tokio::test]
async fn a_running_node_is_told_of_what_it_can_bear() {
    let machine = Machine::new().await;
    machine.publish("CERTIFICATE one\n", "kubelet");
    assert!(machine.boot().await.status.success());
    machine.started();
    // A new authority.
    let mut content = machine.publish("CERTIFICATE one\nCERTIFICATE two\n", "kubelet");
    let text = said(&machine.tick().await);
    assert_eq!(text, "kup: changed: /etc/kup/pki/cluster-ca.crt\n");
    assert_eq!(machine.text("etc/kup/pki/cluster-ca.crt"), "CERTIFICATE one\nCERTIFICATE two\n");
    assert_eq!(machine.started(), ["restart kubelet.service", "restart kube-proxy.service", "restart flanneld.service"]);
    // Another script.
    content.script = content.script.replace("set -eu\n", "set -eu\necho the new script ran\n");
    machine.put(&content);
    let text = said(&machine.tick().await);
    assert_eq!(text, "kup: the node script is another one now: running that\nthe new script ran\n");
    // Somebody deleted the Node.
    std::fs::remove_file(machine.path("run/fake/node")).unwrap();
    let text = said(&machine.tick().await);
    assert_eq!(text, "the new script ran\n");
    assert_eq!(machine.started(), ["restart kubelet.service"]);
}

#[tokio::test]
async fn another_bundle_waits_for_another_machine() {
    let machine = Machine::new().await;
    machine.publish("CERTIFICATE one\n", "kubelet");
    assert!(machine.boot().await.status.success());
    machine.started();
    machine.publish("CERTIFICATE two\n", "another kubelet");
    let words = "kup: the cluster has another bundle by now: this machine keeps its own until it is replaced\n";
    assert_eq!(said(&machine.tick().await), format!("{words}kup: changed: /etc/kup/pki/cluster-ca.crt\n"));
    assert_eq!(machine.text("opt/kup/bundle/bin/kubelet"), "kubelet");
    assert_eq!(machine.started(), ["restart kubelet.service", "restart kube-proxy.service", "restart flanneld.service"]);
    assert_eq!(said(&machine.tick().await), "", "it is said again and again");
}

#[tokio::test]
async fn images_that_somebody_loaded_come_too() {
    let machine = Machine::new().await;
    let mut content = machine.publish("CERTIFICATE one\n", "kubelet");
    assert!(machine.boot().await.status.success());
    machine.started();
    let archive =
        |bytes: &[u8], name: &str| Loaded { sha256: hex::encode(Sha256::digest(bytes)), names: [name.to_owned()].into() };
    let mut load = |list: &[Loaded]| {
        content.images = node_images::text(list);
        machine.world.put(IMAGES, content.images.as_str());
        machine.put(&content);
    };
    let one = archive(b"one", "registry.example.com/one:1");
    machine.world.put(&one.object(), gzip(b"one"));
    load(std::slice::from_ref(&one));
    assert_eq!(said(&machine.tick().await), "kup: loaded the images registry.example.com/one:1\n");
    assert_eq!(machine.text("run/fake/imported"), "one");
    assert_eq!(said(&machine.tick().await), "", "it is loaded again and again");
    // Another one, whose archive is not what it should be, and then is.
    let two = archive(b"two", "two:2");
    machine.world.put(&two.object(), gzip(b"three"));
    load(&[one, two.clone()]);
    let text = said(&machine.tick().await);
    assert!(text.contains(&format!("kup: gave up: {} in the bucket is not what node/images names", two.object())), "{text}");
    assert_eq!(machine.text("run/fake/imported"), "one");
    machine.world.put(&two.object(), gzip(b"two"));
    assert_eq!(said(&machine.tick().await), "kup: loaded the images two:2\n");
    assert_eq!(machine.text("run/fake/imported"), "onetwo");
    assert_eq!(machine.started(), [""; 0]);
}

#[tokio::test]
async fn what_is_not_what_the_manifest_names_is_never_used() {
    let machine = Machine::new().await;
    let content = machine.publish("CERTIFICATE one\n", "kubelet");
    let kubelet = object(content.bundle.iter().find(|file| file.name == "kubelet").unwrap());
    machine.world.put(&kubelet, gzip(b"another kubelet"));
    let output = machine.boot().await;
    let text = said(&output);
    assert!(!output.status.success() && !machine.is_node(), "{text}");
    let words = format!("kup: gave up: {kubelet} in the bucket is not what node/manifest names: bin/kubelet is refused");
    assert!(text.contains(&words) && machine.text("run/fake/console").contains(&words), "{text}");
    assert!(!machine.path("opt/kup/bundle/bin/kubelet").exists());
    // Nor the files, nor a manifest with a line of another kind.
    machine.world.put("node/files.tar.gz", "no archive");
    let text = said(&machine.tick().await);
    assert!(text.contains("kup: node/files.tar.gz is not the one that node/manifest names") || text.contains(&words), "{text}");
    machine.world.put("node/manifest", format!("{}{}  ../../etc/passwd\n", content.manifest(), "0".repeat(64)));
    let text = said(&machine.tick().await);
    assert!(text.contains("node/manifest has a line that this script does not know"), "{text}");
    // Once it is mended, the next minute does the rest.
    machine.publish("CERTIFICATE one\n", "kubelet");
    let output = machine.tick().await;
    assert!(output.status.success() && machine.is_node(), "{}", said(&output));
}

#[tokio::test]
async fn a_bundle_that_is_still_on_its_way_is_waited_for() {
    let machine = Machine::new().await;
    let content = machine.publish("CERTIFICATE one\n", "kubelet");
    let key = object(content.bundle.iter().find(|file| file.name == "flanneld").unwrap());
    let object = machine.world.objects.lock().unwrap().remove(&key).unwrap();
    let (objects, late) = (machine.world.objects.clone(), key.clone());
    let asked = machine.world.asked.clone();
    let arrives = tokio::spawn(async move {
        while asked.lock().unwrap().iter().filter(|k| **k == late).count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        objects.lock().unwrap().insert(late, object);
    });
    let output = machine.boot().await;
    assert!(output.status.success() && machine.is_node(), "{}", said(&output));
    arrives.await.unwrap();
    // One that never comes.
    let machine = Machine::new().await;
    machine.publish("CERTIFICATE one\n", "kubelet");
    machine.world.objects.lock().unwrap().remove(&key);
    let output = machine.boot().await;
    let text = said(&output);
    assert!(!output.status.success() && !machine.is_node(), "{text}");
    assert!(text.contains(&format!("kup: gave up: {key} can't be had from the bucket yet (HTTP 403")), "{text}");
}

#[tokio::test]
async fn a_unit_that_does_not_start_is_named_with_its_words() {
    let machine = Machine::new().await;
    machine.publish("CERTIFICATE one\n", "kubelet");
    std::fs::write(machine.path("run/fake/fails.containerd.service"), "").unwrap();
    let output = machine.boot().await;
    assert!(!output.status.success());
    let console = machine.text("run/fake/console");
    for line in [
        "kup: Job for containerd.service failed.",
        "kup: containerd.service is inactive; its last words:",
        "kup:   the last words of containerd.service",
        "kup: gave up: a unit of these did not start: containerd.service",
    ] {
        assert!(console.lines().any(|l| l == line), "no line {line:?} on the console: {console}");
    }
    std::fs::remove_file(machine.path("run/fake/fails.containerd.service")).unwrap();
    let output = machine.tick().await;
    assert!(output.status.success() && machine.is_node(), "{}", said(&output));
}
