//! A master gets the bundle from the cluster's bucket, as `sh` and `curl` do it: against a small metadata service and a small bucket.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use kup::bundle::pack;
use kup::templates;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

#[path = "aws_boot/world.rs"]
#[allow(dead_code, reason = "the tests of the node script use the rest")]
mod world;
use world::{ACCOUNT, SECRET, SESSION, World, program, real, replaced};

const FILES: [(&str, &str, u32); 7] = [
    ("bin/etcd", "etcd itself", 0o755),
    ("bin/kube-apiserver", "an API server", 0o755),
    ("bin/kubelet", "a kubelet", 0o755),
    ("cni/bridge", "a bridge", 0o755),
    ("images/pause.tar", "a pause", 0o644),
    ("bin/runc", "runc", 0o755),
    // Two that are the same: one object.
    ("cni/bridge-too", "a bridge", 0o755),
];

fn sum(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// What the machine is told of the files, a line for each.
fn list() -> String {
    let line = |(path, text, mode): (&str, &str, u32)| format!("{0}  {1}  {mode:04o} {path}\n", sum(text), pack::key(&sum(text)));
    FILES.into_iter().map(line).collect()
}

/// A master of that world.
struct Master {
    dir: tempfile::TempDir,
}

impl Master {
    fn new() -> Master {
        let dir = tempfile::tempdir().unwrap();
        // Any user of a machine sees the arguments of its processes.
        let curl = format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec '{}' \"$@\"\n", dir.path().join("argv").display(), real("curl"));
        program(&dir.path().join("bin"), "curl", &curl);
        Master { dir }
    }

    fn kup(&self) -> PathBuf {
        self.dir.path().join("kup")
    }

    fn bundle(&self) -> PathBuf {
        self.kup().join("bundle")
    }

    /// The script on its way, with files waited for as long as it is said.
    fn begin(&self, address: &str, patience: u32) -> tokio::process::Child {
        let values = serde_json::json!({
            "url": format!("{address}/bucket"), "region": "us-west-2", "account": ACCOUNT, "dir": self.kup(), "bundle": self.bundle(),
        });
        // What is a machine's own in the script is that of this test instead.
        let script = replaced(
            &templates::render("node/fetch.sh", values).unwrap(),
            &[("imds='http://169.254.169.254'", format!("imds='{address}'")), ("patience=900", format!("patience={patience}"))],
        );
        let search = format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").unwrap());
        tokio::process::Command::new("sh")
            .args(["-c", &script])
            .env("PATH", search)
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// The script from its beginning to its end.
    async fn fetch(&self, world: &World, patience: u32) -> Output {
        let (address, server) = world.serve().await;
        let mut script = self.begin(&address, patience);
        script.stdin.take().unwrap().write_all(list().as_bytes()).await.unwrap();
        let output = tokio::time::timeout(Duration::from_secs(60), script.wait_with_output()).await.expect("it does not end");
        server.abort();
        output.unwrap()
    }

    /// What is below its directory but for the bundle.
    fn beside(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.kup()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "bundle").collect()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn put(world: &World, files: &[(&str, &str, u32)]) {
    for (_, text, _) in files {
        world.put(&pack::key(&sum(text)), gzip(text));
    }
}

fn is_whole(bundle: &Path) {
    for (path, text, mode) in FILES {
        assert_eq!(std::fs::read_to_string(bundle.join(path)).unwrap(), text);
        assert_eq!(bundle.join(path).metadata().unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
    let sums: String = FILES.iter().map(|(path, text, _)| format!("{}  {path}\n", sum(text))).collect();
    assert_eq!(std::fs::read_to_string(bundle.join("SHA256SUMS")).unwrap(), sums);
}

#[tokio::test]
async fn a_master_gets_each_file_as_soon_as_it_is_there() {
    let (world, master) = (World::default(), Master::new());
    *world.without_role.lock().unwrap() = 1;
    *world.refusals.lock().unwrap() = 2;
    std::fs::create_dir_all(master.bundle()).unwrap();
    std::fs::write(master.bundle().join("of-old"), "").unwrap();
    put(&world, &FILES[..2]);
    let later = world.clone();
    let bringing = tokio::spawn(async move {
        // Not before the last of the others has been asked for in vain.
        while !later.asked.lock().unwrap().contains(&pack::key(&sum(FILES[5].1))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        put(&later, &FILES[2..]);
    });
    let output = master.fetch(&world, 30).await;
    bringing.await.unwrap();
    assert!(output.status.success() && said(&output).ends_with("kup-unpacked\n"), "{}", said(&output));
    is_whole(&master.bundle());
    assert!(!master.bundle().join("of-old").exists(), "it is the old one, and not another in its place");
    assert_eq!(master.beside(), [""; 0], "something is left");
    let argv = std::fs::read_to_string(master.dir.path().join("argv")).unwrap();
    for secret in [SECRET, SESSION, "ASIAEXAMPLE"] {
        assert!(!argv.contains(secret) && !said(&output).contains(secret), "{secret} is shown: {argv}{}", said(&output));
    }
}

#[tokio::test]
async fn what_is_not_what_it_should_be_never_takes_the_bundle_s_place() {
    let (world, master) = (World::default(), Master::new());
    put(&world, &FILES);
    assert!(master.fetch(&world, 30).await.status.success());
    world.put(&pack::key(&sum("a kubelet")), gzip("another kubelet"));
    let output = master.fetch(&world, 30).await;
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("is not what it should be: bin/kubelet is refused"), "{}", said(&output));
    is_whole(&master.bundle());
    assert_eq!(master.beside(), [""; 0], "something is left");
}

#[tokio::test]
async fn a_file_that_does_not_come_is_named() {
    let (world, master) = (World::default(), Master::new());
    put(&world, &FILES[1..]);
    let output = master.fetch(&world, 1).await;
    assert!(!output.status.success() && !master.bundle().exists(), "{}", said(&output));
    let missing = format!("{} can't be had from the bucket yet (HTTP 403)", pack::key(&sum(FILES[0].1)));
    assert!(said(&output).contains(&missing), "{}", said(&output));
}

#[tokio::test]
async fn who_is_not_waited_for_any_more_ends() {
    let (world, master) = (World::default(), Master::new());
    put(&world, &FILES[1..]);
    let (address, server) = world.serve().await;
    let mut script = master.begin(&address, 600);
    script.stdin.take().unwrap().write_all(list().as_bytes()).await.unwrap();
    while !world.asked.lock().unwrap().contains(&pack::key(&sum(FILES[0].1))) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop((script.stdout.take(), script.stderr.take()));
    let status = tokio::time::timeout(Duration::from_secs(30), script.wait()).await.expect("it does not end").unwrap();
    assert!(!status.success() && !master.bundle().exists(), "{status}");
    assert_eq!(master.beside(), [""; 0], "something is left");
    server.abort();
}
