//! A minion's first boot, up to the node script, as `sh` and `curl` run it: against a small metadata service and a small bucket.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use kup::aws::user_data::{Minion, bucket_url};
use sha2::{Digest as _, Sha256};

#[path = "aws_boot/world.rs"]
#[allow(dead_code, reason = "the tests of the node script use the rest")]
mod world;
use world::{ACCOUNT, SECRET, SESSION, TOKEN, World, program, real, replaced};

const NODE: &str = "echo \"ran with $1\"\ncat \"$1/settings\"\n";

/// With the script, and a manifest that names this one.
fn naming(script: &str) -> World {
    let world = World::default();
    world.put("node/manifest", format!("{}  node/node.sh\n", hex::encode(Sha256::digest(script))));
    world.put("node/node.sh", NODE);
    world
}

/// How `timeout` ends if it had to end something.
const STILL_RUNS: Option<i32> = Some(124);

/// Boots a minion in that world, for at most `limit` seconds. Whatever its script gives to `curl` as arguments is in `argv` below the
/// directory. What it does every minute after `patience` seconds, it does here every second.
async fn boot(world: &World, dir: &Path, patience: u32, limit: u32) -> Output {
    let (address, server) = world.serve().await;
    let minion = Minion {
        cluster: "kubernetes".into(),
        region: "us-west-2".into(),
        account: ACCOUNT.into(),
        bucket: bucket_url("bucket", "us-west-2", Some(&address)),
        group: "minions".into(),
        labels: vec!["tier=back".into()],
        taints: vec!["dedicated=db:NoSchedule".into()],
    };
    // What is a machine's own in the script is that of this test instead.
    let boot = dir.join("boot");
    let script = replaced(
        &minion.render().unwrap(),
        &[
            ("imds='http://169.254.169.254'", format!("imds='{address}'")),
            ("dir='/var/lib/kup/boot'", format!("dir='{}'", boot.display())),
            ("patience=180", format!("patience={patience}")),
            ("pause=60", "pause=1".to_owned()),
            ("/dev/console", dir.join("console").display().to_string()),
        ],
    );
    let path = dir.join("user-data.sh");
    std::fs::write(&path, script).unwrap();
    // Any user of a machine sees the arguments of its processes.
    let bin = dir.join("bin");
    let log = dir.join("argv");
    program(&bin, "curl", &format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec '{}' \"$@\"\n", log.display(), real("curl")));
    let search = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = tokio::process::Command::new("timeout")
        .args([&limit.to_string(), "sh"])
        .arg(&path)
        .env("PATH", search)
        .env("no_proxy", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect("the script does not end").unwrap();
    server.abort();
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_minion_gets_its_script_once_it_may() {
    let world = naming(NODE);
    *world.refusals.lock().unwrap() = 1;
    *world.without_role.lock().unwrap() = 1;
    let dir = tempfile::tempdir().unwrap();
    let output = boot(&world, dir.path(), 30, 50).await;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for line in [
        "kup: the machine has no credentials yet; trying again in 1 s",
        "kup: node/manifest can't be had from the bucket yet (HTTP 403); trying again in 2 s",
        "kup: running the node script",
        &format!("ran with {}", dir.path().join("boot").display()),
        "cluster=kubernetes",
        "group=minions",
        "label=tier=back",
        "taint=dedicated=db:NoSchedule",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in {text}");
    }
    assert_eq!(*world.asked.lock().unwrap(), ["node/manifest", "node/manifest", "node/node.sh"]);
    let console = std::fs::read_to_string(dir.path().join("console")).unwrap();
    assert!(console.contains("kup: running the node script"), "{console}");
    let argv = std::fs::read_to_string(dir.path().join("argv")).unwrap();
    assert!(argv.contains("--aws-sigv4 aws:amz:us-west-2:s3"), "{argv}");
    for secret in [SECRET, SESSION, TOKEN, "ASIAEXAMPLE"] {
        assert!(!argv.contains(secret) && !text.contains(secret), "{secret} is shown: {argv}{text}");
    }
}

#[tokio::test]
async fn what_the_manifest_does_not_name_is_never_run() {
    let nothing = naming(NODE);
    nothing.put("node/manifest", "# nothing\n");
    for world in [naming("another script"), nothing] {
        let dir = tempfile::tempdir().unwrap();
        let output = boot(&world, dir.path(), 1, 4).await;
        let text = said(&output);
        assert_eq!(output.status.code(), STILL_RUNS, "{text}");
        assert!(!text.contains("ran with"), "it was run: {text}");
        assert!(text.contains("kup: gave up after 1 s: node/node.sh is not the one that node/manifest names"), "{text}");
        assert!(!dir.path().join("boot/node.sh").exists(), "it was kept");
    }
}

#[tokio::test]
async fn a_minion_that_may_not_says_why_and_tries_again() {
    let world = naming(NODE);
    *world.refusals.lock().unwrap() = 4;
    let dir = tempfile::tempdir().unwrap();
    let output = boot(&world, dir.path(), 2, 50).await;
    let text = said(&output);
    assert!(text.contains("kup: gave up after 2 s: node/manifest can't be had from the bucket yet (HTTP 403)"), "{text}");
    assert!(output.status.success() && text.contains("ran with"), "{text}");
}
