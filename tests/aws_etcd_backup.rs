//! A master's own snapshots on AWS, as `sh` and `curl` put them into a small bucket with credentials of a small metadata service: checked
//! signatures, sums, retention. etcd's tools are played by scripts; the snapshot has the form of a real one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Part, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use kup::backup::{Backup, Place, Ranges, retain, told};
use kup::templates;
use serde_json::json;
use sha2::{Digest as _, Sha256};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "IQoJb3JpZ2luX2VjEXAMPLE//session==";
const OLD: &str = "etcd-20200101T000000Z-1-timer";

/// The bucket.
#[derive(Clone, Default)]
struct World {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    denied: Arc<Mutex<bool>>,
}

/// Whether a call is signed by the role's credentials, for the right owner.
fn signed(headers: &HeaderMap) -> Result<(), StatusCode> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let good = header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/")
        && header("authorization").contains("/us-west-2/s3/aws4_request")
        && header("authorization").contains("x-amz-expected-bucket-owner")
        && header("x-amz-security-token") == SESSION
        && header("x-amz-expected-bucket-owner") == "123456789012";
    if good { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}

async fn put_object(State(world): State<World>, Part(key): Part<String>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if *world.denied.lock().unwrap() || signed(&headers).is_err() {
        return StatusCode::FORBIDDEN;
    }
    if headers["x-amz-content-sha256"] != hex::encode(Sha256::digest(&body)) {
        return StatusCode::BAD_REQUEST;
    }
    world.objects.lock().unwrap().insert(key, body.to_vec());
    StatusCode::OK
}

async fn delete_object(State(world): State<World>, Part(key): Part<String>, headers: HeaderMap) -> StatusCode {
    if signed(&headers).is_err() {
        return StatusCode::FORBIDDEN;
    }
    world.objects.lock().unwrap().remove(&key);
    StatusCode::NO_CONTENT
}

async fn list(State(world): State<World>, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<String, StatusCode> {
    signed(&headers)?;
    let url = reqwest::Url::parse(&format!("http://bucket/?{}", query.unwrap_or_default())).unwrap();
    let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    if query.get("list-type").map(String::as_str) != Some("2") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let objects = world.objects.lock().unwrap();
    let keys = objects.keys().filter(|key| key.starts_with(&query["prefix"]));
    // On one line, as S3 writes it.
    let contents: String = keys.map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>")).collect();
    Ok(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult><Name>bucket</Name>{contents}</ListBucketResult>"))
}

/// Writes a program.
fn program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the timer's script on a master of that world, where this member of etcd leads.
async fn run(world: &World, dir: &Path, leader: u64) -> Output {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let credentials =
        format!(r#"{{"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"{SECRET}","Token":"{SESSION}"}}"#).replace(',', ",\n");
    let router = Router::new()
        .route("/latest/api/token", put(|| async { "imds" }))
        .route("/latest/meta-data/iam/security-credentials/", get(|| async { "kup-master" }))
        .route("/latest/meta-data/iam/security-credentials/kup-master", get(|| async { credentials }))
        .route("/bucket", get(list))
        .route("/bucket/{*key}", put(put_object).delete(delete_object))
        .with_state(world.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let bin = dir.join("bundle/bin");
    let mut pages = vec![7; 512 * 40];
    pages.extend_from_slice(&Sha256::digest(&pages));
    std::fs::write(dir.join("pages"), pages).unwrap();
    let status = format!(r#"[{{"Status":{{"header":{{"member_id":1}},"leader":{leader}}}}}]"#);
    let etcdctl = format!(
        "#!/bin/sh\ncase $* in *'snapshot save'*) for to; do :; done; cp '{}' \"$to\" ;; *) echo '{status}' ;; esac\n",
        dir.join("pages").display()
    );
    program(&bin.join("etcdctl"), &etcdctl);
    program(&bin.join("etcdutl"), "#!/bin/sh\necho '{\"hash\":5,\"revision\":1234,\"totalKey\":9}'\n");
    let curl = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|d| d.join("curl")).find(|p| p.exists()).unwrap();
    let noted = format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec '{}' \"$@\"\n", dir.join("argv").display(), curl.display());
    program(&dir.join("bin/curl"), &noted);

    let cluster = kup::cluster::defaults::cluster().unwrap();
    let backups = Place::Bucket { url: format!("{address}/bucket"), region: "us-west-2".into(), account: "123456789012".into() };
    let values =
        json!({ "bundle": dir.join("bundle"), "cluster": cluster, "backups": backups, "encryption_marks": ["0123456789abcdef"] });
    // What is a machine's own in the script is that of this test instead.
    let mut script = templates::render("node/etcd-backup.sh", values).unwrap();
    for (from, to) in
        [("imds='http://169.254.169.254'", format!("imds='{address}'")), ("/var/lib/kup", dir.join("kup").display().to_string())]
    {
        assert!(script.contains(from), "the script has no {from} any more");
        script = script.replace(from, &to);
    }
    let path = dir.join("etcd-backup.sh");
    std::fs::write(&path, script).unwrap();
    let search = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    let run = tokio::process::Command::new("sh")
        .arg(&path)
        .arg("timer")
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
async fn the_leader_puts_a_snapshot_into_the_bucket_and_removes_what_is_of_no_more_use() {
    let (world, dir) = (World::default(), tempfile::tempdir().unwrap());
    for file in [format!("backups/{OLD}.json"), format!("backups/{OLD}.db.gz"), "node/manifest".into()] {
        world.objects.lock().unwrap().insert(file, b"old".to_vec());
    }
    let output = run(&world, dir.path(), 1).await;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let objects = world.objects.lock().unwrap().clone();
    assert_eq!(objects.len(), 3, "{:?}", objects.keys());
    let about = objects.keys().find(|key| key.ends_with(".json")).unwrap();
    let name = told(about.strip_prefix("backups/").unwrap()).unwrap();
    let backup = Backup::parse(&String::from_utf8(objects[about].clone()).unwrap()).unwrap();
    assert_eq!((backup.name.as_str(), backup.revision, backup.keys.len()), (name, 1234, 1));
    assert_eq!(backup.network, Ranges::of(&kup::cluster::defaults::cluster().unwrap()));
    let data = &objects[&format!("backups/{name}.db.gz")];
    assert_eq!((backup.size, &backup.sha256), (data.len() as u64, &hex::encode(Sha256::digest(data))));
    assert_eq!(retain::outdated(&[OLD.to_owned(), name.to_owned()], kup::backup::now()), [OLD]);
    let argv = std::fs::read_to_string(dir.path().join("argv")).unwrap();
    for secret in [SECRET, SESSION, "ASIAEXAMPLE"] {
        assert!(!argv.contains(secret) && !text.contains(secret), "{secret} is shown: {argv}{text}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("kup")).unwrap().count(), 0, "nothing is left on the machine");
}

#[tokio::test]
async fn others_leave_it_to_the_leader_and_a_bucket_that_denies_is_named() {
    let (world, dir) = (World::default(), tempfile::tempdir().unwrap());
    let output = run(&world, dir.path(), 2).await;
    assert!(output.status.success() && said(&output).contains("another master leads"), "{}", said(&output));
    assert!(world.objects.lock().unwrap().is_empty());
    *world.denied.lock().unwrap() = true;
    let output = run(&world, dir.path(), 1).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("could not be put into the bucket") && text.contains("403"), "{text}");
    assert_eq!(std::fs::read_dir(dir.path().join("kup")).unwrap().count(), 0, "nothing is left on the machine");
}
