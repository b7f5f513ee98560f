//! Against a small S3 in this process: what is written, in which order, and what is not.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::{Path as Part, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::bundle::manifest::Origin;
use crate::bundle::{Arch, Manifest, Role};
use crate::cluster::defaults;
use crate::machine::files::{Credentials, NodeLogin};
use crate::machine::topology::{Peer, Topology};
use crate::report::Report;

#[derive(Default)]
struct World {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    puts: Mutex<Vec<String>>,
    /// Whether there is a bucket at all.
    bare: bool,
    /// Refuses what begins so.
    refused: Mutex<Option<String>>,
}

type Shared = Arc<World>;

fn answer(status: StatusCode, code: &str) -> (StatusCode, Vec<u8>) {
    (status, format!("<Error><Code>{code}</Code><Message>test</Message></Error>").into_bytes())
}

async fn list(State(world): State<Shared>, RawQuery(query): RawQuery) -> (StatusCode, Vec<u8>) {
    if world.bare {
        return answer(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let query = query.unwrap_or_default();
    let prefix = query.split('&').find_map(|word| word.strip_prefix("prefix=")).unwrap().replace("%2F", "/");
    let objects = world.objects.lock().unwrap();
    let keys = objects.keys().filter(|key| key.starts_with(&prefix));
    let found: String = keys.map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
    (StatusCode::OK, format!("<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>").into_bytes())
}

async fn read(State(world): State<Shared>, Part((_, key)): Part<(String, String)>) -> (StatusCode, Vec<u8>) {
    match world.objects.lock().unwrap().get(&key) {
        Some(bytes) => (StatusCode::OK, bytes.clone()),
        None => answer(StatusCode::NOT_FOUND, "NoSuchKey"),
    }
}

async fn write(
    State(world): State<Shared>,
    Part((_, key)): Part<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> (StatusCode, Vec<u8>) {
    if headers.get("x-amz-expected-bucket-owner").is_none_or(|owner| owner != "123456789012") {
        return answer(StatusCode::FORBIDDEN, "NobodyIsExpected");
    }
    if world.refused.lock().unwrap().as_ref().is_some_and(|prefix| key.starts_with(prefix)) {
        return answer(StatusCode::FORBIDDEN, "AccessDenied");
    }
    if let Some(sum) = headers.get("x-amz-checksum-sha256")
        && sum != &base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&body))
    {
        return answer(StatusCode::BAD_REQUEST, "BadDigest");
    }
    world.puts.lock().unwrap().push(key.clone());
    world.objects.lock().unwrap().insert(key, body.to_vec());
    (StatusCode::OK, Vec::new())
}

async fn remove(State(world): State<Shared>, Part((_, key)): Part<(String, String)>) -> StatusCode {
    world.objects.lock().unwrap().remove(&key);
    StatusCode::NO_CONTENT
}

/// A cluster's owner who knows no other AWS than that.
async fn aws(world: &Shared) -> Aws {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/{bucket}", get(list))
        .route("/{bucket}/", get(list))
        .route("/{bucket}/{*key}", get(read).put(write).delete(remove))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(world.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = aws_sdk_s3::config::Builder::new()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(aws_sdk_s3::config::Region::from_static("us-west-2"))
        .allow_no_auth()
        .endpoint_url(endpoint)
        .force_path_style(true);
    Aws { s3: aws_sdk_s3::Client::from_conf(config.build()), ..crate::aws::testing::aws() }
}

/// A bundle of two files, one of them larger than what is read at a time.
fn bundle(cache: &std::path::Path) -> Arc<Bundle> {
    let dir = cache.join("bundles/test");
    let large: Vec<u8> = (0..3 * CHUNK as u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let files = [("kubelet", "bin/kubelet", Role::Both, large), ("pause", "images/pause.tar", Role::Image, b"pause".to_vec())];
    let written = files.map(|(name, path, role, contents)| {
        let to = dir.join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(&to, &contents).unwrap();
        File {
            name: name.into(),
            component: name.into(),
            version: "1.0.0".into(),
            role,
            path: path.into(),
            size: contents.len() as u64,
            sha256: hex::encode(Sha256::digest(&contents)),
            source: "test".into(),
            image: (role == Role::Image).then(|| "registry.example.com/pause:1".into()),
        }
    });
    Arc::new(Bundle { dir, manifest: Manifest::new("1.37.1", Arch::Amd64, Origin::Built, written.to_vec()) })
}

fn content(bundle: &Bundle, ca: &str) -> Content {
    let master = Peer { name: "m".into(), address: [172, 20, 0, 10].into() };
    let topology = Topology { masters: vec![master], balancer: None, called: Vec::new() };
    let node = Some(NodeLogin::Token("abcdef.ghijkmnpqrstuvwx".into()));
    let credentials = Credentials { cluster_ca: ca.into(), node, master: None };
    Content::new(&defaults::cluster().unwrap(), &topology, &bundle.manifest, &credentials).unwrap()
}

async fn bring(aws: &Aws, bundle: &Arc<Bundle>, ca: &str) -> Result<String> {
    let span = Report::silent().step("minions");
    look(aws, content(bundle, ca)).await?.write(aws, bundle, &span).await
}

fn puts(world: &World) -> Vec<String> {
    std::mem::take(&mut *world.puts.lock().unwrap())
}

#[tokio::test]
async fn what_is_there_is_left_alone_and_what_counts_comes_last() {
    let cache = tempfile::tempdir().unwrap();
    let (world, bundle) = (Shared::default(), bundle(cache.path()));
    let aws = aws(&world).await;
    assert_eq!(
        bring(&aws, &bundle, "one\n").await.unwrap(),
        "node/node.sh, node/files.tar.gz, node/manifest, 2 files of the bundle"
    );
    let first = puts(&world);
    // Machines that boot meanwhile find the manifest, and wait for the rest by themselves.
    assert_eq!(first.iter().position(|key| key == MANIFEST), Some(2), "{first:?}");
    for file in &bundle.manifest.files {
        let packed = world.objects.lock().unwrap()[&object(file)].clone();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&plain)), file.sha256, "{}", file.path);
    }
    assert!(look(&aws, content(&bundle, "one\n")).await.unwrap().is_empty());
    assert_eq!(bring(&aws, &bundle, "one\n").await.unwrap(), "unchanged");
    assert_eq!(puts(&world), [""; 0], "a second time writes nothing");
    assert_eq!(bring(&aws, &bundle, "another\n").await.unwrap(), "node/files.tar.gz, node/manifest");
    assert_eq!(puts(&world), [FILES, MANIFEST]);
}

#[tokio::test]
async fn what_was_cut_off_or_lost_is_brought_again() {
    let cache = tempfile::tempdir().unwrap();
    let (world, bundle) = (Shared::default(), bundle(cache.path()));
    let aws = aws(&world).await;
    *world.refused.lock().unwrap() = Some("bundle/".into());
    let error = bring(&aws, &bundle, "one\n").await.unwrap_err();
    assert!(error.what.contains("could not be put into the bucket") && error.what.contains("bin/kubelet"), "{error}");
    *world.refused.lock().unwrap() = None;
    puts(&world);
    assert_eq!(bring(&aws, &bundle, "one\n").await.unwrap(), "2 files of the bundle");
    assert_eq!(puts(&world).len(), 2, "what was there already is written again");
    world.objects.lock().unwrap().remove(SCRIPT);
    let pause = object(bundle.manifest.file("pause").unwrap());
    world.objects.lock().unwrap().remove(&pause);
    assert_eq!(bring(&aws, &bundle, "one\n").await.unwrap(), "node/node.sh, 1 file of the bundle");
    // A manifest that stands is never ahead of what it names.
    assert_eq!(puts(&world), [pause, SCRIPT.to_owned()]);
}

#[tokio::test]
async fn loaded_images_are_remembered_whatever_up_writes() {
    let cache = tempfile::tempdir().unwrap();
    let (world, bundle) = (Shared::default(), bundle(cache.path()));
    let aws = aws(&world).await;
    let loaded = |digit: char, name: &str| Loaded { sha256: digit.to_string().repeat(64), names: [name.to_owned()].into() };
    let error = remember(&aws, loaded('a', "one:1")).await.unwrap_err();
    assert!(error.hints[0].contains("kup up"), "{error}");
    bring(&aws, &bundle, "one\n").await.unwrap();
    for digit in ['a', 'b'] {
        let plain = tempfile::NamedTempFile::new().unwrap();
        fs::write(plain.path(), [digit as u8]).unwrap();
        let (_, (pack, _path)) = pack::archive(plain.path(), cache.path()).unwrap();
        put_archive(&aws, &digit.to_string().repeat(64), pack, &Report::silent().step("load")).await.unwrap();
    }
    puts(&world);
    remember(&aws, loaded('a', "one:1")).await.unwrap();
    assert_eq!(puts(&world), [IMAGES, MANIFEST], "the list comes before what names it");
    assert!(look(&aws, content(&bundle, "one\n")).await.unwrap().is_empty(), "an up has nothing to do");
    bring(&aws, &bundle, "another\n").await.unwrap();
    let text = |key: &str| String::from_utf8(world.objects.lock().unwrap()[key].clone()).unwrap();
    assert!(text(MANIFEST).contains(&format!("{}  {IMAGES}\n", hex::encode(Sha256::digest(text(IMAGES))))), "{}", text(MANIFEST));
    puts(&world);
    // The same again, and one that takes its place.
    remember(&aws, loaded('a', "one:1")).await.unwrap();
    assert_eq!(puts(&world), [""; 0]);
    remember(&aws, loaded('b', "one:1")).await.unwrap();
    let there = |key: &str| world.objects.lock().unwrap().contains_key(key);
    assert!(!there(&loaded('a', "").object()) && there(&loaded('b', "").object()));
    assert!(!text(IMAGES).contains("aaaa") && text(IMAGES).contains("bbbb"));
}

#[tokio::test]
async fn without_a_bucket_all_is_due_and_nothing_is_made() {
    let cache = tempfile::tempdir().unwrap();
    let (world, bundle) = (Shared::new(World { bare: true, ..World::default() }), bundle(cache.path()));
    let aws = aws(&world).await;
    let due = look(&aws, content(&bundle, "one\n")).await.unwrap();
    assert_eq!(due.summary(), "node/node.sh, node/files.tar.gz, node/manifest, 2 files of the bundle");
    assert_eq!(puts(&world), [""; 0]);
}
