//! A mirror of everything that a bundle consists of, with small fakes for the files, served over HTTP.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use kup::bundle::component::COMPONENTS;
use kup::bundle::fetch::Fetch;
use kup::bundle::releases::{Checksum, Origin};
use kup::bundle::{Arch, Releases};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

/// Requests seen: the path, and the `Range` header.
type Log = Arc<Mutex<Vec<(String, Option<String>)>>>;

#[derive(Clone)]
struct Faults {
    log: Log,
    /// Paths that break off after half of the rest, this many times.
    broken: Arc<Mutex<HashMap<String, usize>>>,
    root: PathBuf,
}

pub struct Mirror {
    pub dir: tempfile::TempDir,
    pub url: String,
    faults: Faults,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The beginning of an executable for that architecture, then bytes that depend on the name.
pub fn fake(name: &str, version: &str, arch: Arch) -> Vec<u8> {
    let machine = if arch == Arch::Amd64 { 62 } else { 183 };
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    bytes.extend([machine, 0]);
    for i in 0..4000 {
        bytes.extend(sha256(format!("{name} {version} {arch} {i}").as_bytes()).into_bytes());
    }
    bytes
}

/// The path below the mirror of an upstream address.
pub fn path_of(url: &str) -> String {
    url.trim_start_matches("https://").to_owned()
}

fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, format!("some/dir/{name}"), bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

impl Mirror {
    /// Serves one version for these architectures.
    pub async fn new(versions: &[&str], arches: &[Arch]) -> Mirror {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        for version in versions {
            publish(&root, version, arches);
        }
        let faults = Faults { log: Log::default(), broken: Arc::default(), root: root.clone() };
        let app = Router::new()
            .fallback_service(tower_http::services::ServeDir::new(&root))
            .layer(from_fn_with_state(faults.clone(), interfere));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mirror", listener.local_addr().unwrap());
        let app = Router::new().nest_service("/mirror", app);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Mirror { dir, url, faults, server }
    }

    pub fn fetch(&self, cache: &Path, version: &str, arch: Arch, only: &[&str]) -> Fetch {
        Fetch {
            cache: cache.to_owned(),
            release: Releases::load().unwrap().release(version).unwrap(),
            arch,
            mirror: Some(self.url.parse().unwrap()),
            only: only.iter().map(|s| s.to_string()).collect(),
            compile: false,
        }
    }

    /// Makes a path break off half-way the next `times` times.
    pub fn break_off(&self, path: &str, times: usize) {
        self.faults.broken.lock().unwrap().insert(path.to_owned(), times);
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.faults.log.lock().unwrap())
    }

    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

async fn interfere(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches("/mirror").trim_start_matches('/').to_owned();
    let range = request.headers().get("range").map(|v| v.to_str().unwrap().to_owned());
    faults.log.lock().unwrap().push((path.clone(), range.clone()));
    let breaks = {
        let mut broken = faults.broken.lock().unwrap();
        broken.get_mut(&path).filter(|n| **n > 0).map(|n| *n -= 1).is_some()
    };
    if !breaks {
        return next.run(request).await;
    }
    let all = fs::read(faults.root.join(&path)).unwrap();
    let from = range.map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let rest = all[from..].to_vec();
    let half = rest[..rest.len() / 2].to_vec();
    let pieces = [Ok(half), Err(std::io::Error::other("the line is cut"))];
    let mut response = Response::builder().header("content-length", rest.len());
    if from > 0 {
        response = response.status(206).header("content-range", format!("bytes {from}-{}/{}", all.len() - 1, all.len()));
    }
    // The pause lets the first half reach the client before the connection is reset.
    let pieces = futures::StreamExt::then(futures::stream::iter(pieces), |piece| async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        piece
    });
    response.body(Body::from_stream(pieces)).unwrap()
}

fn publish(root: &Path, version: &str, arches: &[Arch]) {
    let release = Releases::load().unwrap().release(version).unwrap();
    let mut sums: BTreeMap<String, String> = BTreeMap::new();
    let mut assets: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut indexes: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for arch in arches {
        let mut archives: BTreeMap<String, (Checksum, Files)> = BTreeMap::new();
        let mut published = |checksum: &Checksum, url: &str, bytes: &[u8]| {
            let name = url.rsplit('/').next().unwrap();
            match checksum {
                Checksum::File(at) if at.starts_with("https://dl.k8s.io") => _ = sums.insert(path_of(at), sha256(bytes)),
                Checksum::File(at) => *sums.entry(path_of(at)).or_default() += &format!("{}  {name}\n", sha256(bytes)),
                Checksum::Digests(at) => {
                    let asset = json!({ "name": name, "digest": format!("sha256:{}", sha256(bytes)) });
                    assets.entry(path_of(at)).or_default().push(asset);
                }
            }
        };
        for component in COMPONENTS.iter().filter(|c| release.is_published(c.name)) {
            for item in component.items {
                let bytes = fake(item.name, &release.pin(component.name).unwrap().version, *arch);
                match release.origin(component.name, item.name, *arch).unwrap() {
                    Origin::Binary(url, checksum) => {
                        published(&checksum, &url, &bytes);
                        put(root, &path_of(&url), &bytes);
                    }
                    Origin::Archive(url, checksum) => {
                        archives.entry(url).or_insert((checksum, Vec::new())).1.push((item.name.to_owned(), bytes));
                    }
                    Origin::Image(reference) => {
                        let entry = image(root, &reference, item.name, bytes, *arch);
                        indexes.entry(reference).or_default().push(entry);
                    }
                }
            }
        }
        for (url, (checksum, files)) in archives {
            let bytes = archive(&files);
            published(&checksum, &url, &bytes);
            put(root, &path_of(&url), &bytes);
        }
    }
    for (path, text) in sums {
        put(root, &path, text.as_bytes());
    }
    for (path, assets) in assets {
        put(root, &path, json!({ "assets": assets }).to_string().as_bytes());
    }
    for (reference, manifests) in indexes {
        let (base, tag) = repository(&reference);
        put(
            root,
            &format!("{base}/manifests/{tag}"),
            json!({ "schemaVersion": 2, "manifests": manifests }).to_string().as_bytes(),
        );
    }
}

/// The registry's path of an image, and its tag.
pub fn repository(reference: &str) -> (String, &str) {
    let (registry, rest) = reference.split_once('/').unwrap();
    let (name, tag) = rest.rsplit_once(':').unwrap();
    (format!("{registry}/v2/{name}"), tag)
}

fn image(root: &Path, reference: &str, name: &str, bytes: Vec<u8>, arch: Arch) -> Value {
    let (base, _) = repository(reference);
    let blob = |bytes: &[u8], media_type: &str, place: &str| {
        let digest = format!("sha256:{}", sha256(bytes));
        put(root, &format!("{base}/{place}/{digest}"), bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let base_layer = archive(&[("etc/os-release".into(), b"fake".to_vec())]);
    let layer = archive(&[(name.into(), bytes)]);
    let config = json!({ "architecture": arch.as_str(), "os": "linux", "config": { "Entrypoint": [name] } }).to_string();
    let config = blob(config.as_bytes(), "application/vnd.docker.container.image.v1+json", "blobs");
    let layers = [base_layer, layer].map(|l| blob(&l, "application/vnd.docker.image.rootfs.diff.tar.gzip", "blobs"));
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers }).to_string();
    let mut entry = blob(manifest.as_bytes(), kind, "manifests");
    entry["platform"] = json!({ "os": "linux", "architecture": arch.as_str() });
    entry
}
