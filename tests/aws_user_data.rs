//! A minion's first boot, up to the node script, as `sh` and `curl` run it: against a small metadata service and a small bucket.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Part, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use kup::aws::user_data::{Minion, bucket_url};
use sha2::{Digest as _, Sha256};

const NODE: &str = "echo \"ran with $1\"\ncat \"$1/settings\"\n";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "IQoJb3JpZ2luX2VjEXAMPLE//session==";
const TOKEN: &str = "AQAEAMPLEmetadatatoken==";

/// What the machine finds around it.
#[derive(Clone)]
struct World {
    manifest: String,
    /// So many calls of the bucket are refused, as they are until IAM has told all of AWS about the role.
    refusals: Arc<Mutex<u32>>,
    /// So many calls for credentials find none.
    without_role: Arc<Mutex<u32>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new(hash_of: &str) -> World {
        World {
            manifest: format!("{}  node/node.sh\n", hex::encode(Sha256::digest(hash_of))),
            refusals: Arc::default(),
            without_role: Arc::default(),
            asked: Arc::default(),
        }
    }
}

fn spent(count: &Mutex<u32>) -> bool {
    let mut left = count.lock().unwrap();
    let none = *left == 0;
    *left = left.saturating_sub(1);
    none
}

async fn token(headers: HeaderMap) -> Result<&'static str, StatusCode> {
    headers.get("x-aws-ec2-metadata-token-ttl-seconds").map(|_| TOKEN).ok_or(StatusCode::BAD_REQUEST)
}

fn known(headers: &HeaderMap) -> Result<(), StatusCode> {
    let known = headers.get("x-aws-ec2-metadata-token").is_some_and(|token| token == TOKEN);
    if known { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}

async fn role(State(world): State<World>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    known(&headers)?;
    if spent(&world.without_role) { Ok("kup-minion") } else { Err(StatusCode::NOT_FOUND) }
}

async fn credentials(headers: HeaderMap) -> Result<String, StatusCode> {
    known(&headers)?;
    Ok(format!(
        "{{\n  \"Code\" : \"Success\",\n  \"Type\" : \"AWS-HMAC\",\n  \"AccessKeyId\" : \"ASIAEXAMPLE\",\n  \"SecretAccessKey\" : \"{SECRET}\",\n  \"Token\" : \"{SESSION}\",\n  \"Expiration\" : \"2030-01-01T00:00:00Z\"\n}}"
    ))
}

async fn object(State(world): State<World>, Part(key): Part<String>, headers: HeaderMap) -> Result<String, StatusCode> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    world.asked.lock().unwrap().push(key.clone());
    let (signature, signed) = (header("authorization"), header("x-amz-security-token"));
    let good = signature.starts_with("AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/")
        && signature.contains("/us-west-2/s3/aws4_request")
        && signature.contains("x-amz-security-token")
        && header("x-amz-content-sha256").starts_with("e3b0c442");
    if !good || signed != SESSION || !spent(&world.refusals) {
        return Err(StatusCode::FORBIDDEN);
    }
    match key.as_str() {
        "node/manifest" => Ok(world.manifest),
        "node/node.sh" => Ok(NODE.to_owned()),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// Boots a minion in that world. Whatever its script gives to `curl` as arguments is in `argv` below the directory.
async fn boot(world: &World, dir: &Path, patience: u32) -> Output {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/iam/security-credentials/", get(role))
        .route("/latest/meta-data/iam/security-credentials/kup-minion", get(credentials))
        .route("/bucket/{*key}", get(object))
        .with_state(world.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let minion = Minion {
        cluster: "kubernetes".into(),
        region: "us-west-2".into(),
        bucket: bucket_url("bucket", "us-west-2", Some(&address)),
        group: "minions".into(),
        labels: vec!["tier=back".into()],
        taints: vec!["dedicated=db:NoSchedule".into()],
    };
    // What is a machine's own in the script is that of this test instead.
    let mut script = minion.render().unwrap();
    let boot = dir.join("boot");
    for (from, to) in [
        ("imds='http://169.254.169.254'", format!("imds='{address}'")),
        ("dir='/var/lib/kup/boot'", format!("dir='{}'", boot.display())),
        ("patience=180", format!("patience={patience}")),
        ("/dev/console", dir.join("console").display().to_string()),
    ] {
        assert!(script.contains(from), "the script has no {from} any more");
        script = script.replace(from, &to);
    }
    let path = dir.join("user-data.sh");
    std::fs::write(&path, script).unwrap();
    // Any user of a machine sees the arguments of its processes.
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|d| d.join("curl")).find(|p| p.exists()).unwrap();
    std::fs::write(
        bin.join("curl"),
        format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec '{}' \"$@\"\n", dir.join("argv").display(), real.display()),
    )
    .unwrap();
    std::fs::set_permissions(bin.join("curl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = tokio::process::Command::new("sh")
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
    let world = World::new(NODE);
    *world.refusals.lock().unwrap() = 1;
    *world.without_role.lock().unwrap() = 1;
    let dir = tempfile::tempdir().unwrap();
    let output = boot(&world, dir.path(), 30).await;
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
    for world in [World::new("another script"), World { manifest: "# nothing\n".into(), ..World::new(NODE) }] {
        let dir = tempfile::tempdir().unwrap();
        let output = boot(&world, dir.path(), 1).await;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(!text.contains("ran with"), "it was run: {text}");
        assert!(text.contains("kup: gave up after 1 s: node/node.sh is not the one that node/manifest names"), "{text}");
        assert!(!dir.path().join("boot/node.sh").exists(), "it was kept");
    }
}

#[tokio::test]
async fn a_minion_that_never_may_gives_up_and_says_why() {
    let world = World::new(NODE);
    *world.refusals.lock().unwrap() = 1000;
    let dir = tempfile::tempdir().unwrap();
    let output = boot(&world, dir.path(), 2).await;
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("kup: gave up after 2 s: node/manifest can't be had from the bucket yet (HTTP 403)"), "{text}");
}
