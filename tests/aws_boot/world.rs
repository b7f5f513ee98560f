//! What a machine of AWS finds around it: a small metadata service and a small bucket, on one address of this host.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as Part, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};

pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const SESSION: &str = "IQoJb3JpZ2luX2VjEXAMPLE//session==";
pub const TOKEN: &str = "AQAEAMPLEmetadatatoken==";
pub const ACCOUNT: &str = "123456789012";
pub const INSTANCE: &str = "i-0123456789abcdef0";

/// What is there, and what was asked for.
#[derive(Clone, Default)]
pub struct World {
    /// The bucket's objects.
    pub objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// So many calls of the bucket are refused, as they are until IAM has told all of AWS about the role.
    pub refusals: Arc<Mutex<u32>>,
    /// So many calls for credentials find none.
    pub without_role: Arc<Mutex<u32>>,
    /// The objects that were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Puts an object into the bucket.
    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.objects.lock().unwrap().insert(key.into(), bytes.into());
    }

    /// Serves it, until the returned task is aborted. Says where.
    pub async fn serve(&self) -> (String, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/meta-data/iam/security-credentials/", get(role))
            .route("/latest/meta-data/iam/security-credentials/kup-node", get(credentials))
            .route("/latest/meta-data/{*key}", get(fact))
            .route("/bucket/{*key}", get(object))
            .with_state(self.clone());
        (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
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
    if spent(&world.without_role) { Ok("kup-node") } else { Err(StatusCode::NOT_FOUND) }
}

async fn credentials(headers: HeaderMap) -> Result<String, StatusCode> {
    known(&headers)?;
    Ok(format!(
        "{{\n  \"Code\" : \"Success\",\n  \"Type\" : \"AWS-HMAC\",\n  \"AccessKeyId\" : \"ASIAEXAMPLE\",\n  \"SecretAccessKey\" : \"{SECRET}\",\n  \"Token\" : \"{SESSION}\",\n  \"Expiration\" : \"2030-01-01T00:00:00Z\"\n}}"
    ))
}

async fn fact(Part(key): Part<String>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    known(&headers)?;
    match key.as_str() {
        "instance-id" => Ok(INSTANCE),
        "local-ipv4" => Ok("172.20.0.77"),
        "placement/availability-zone" => Ok("us-west-2a"),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

async fn object(State(world): State<World>, Part(key): Part<String>, headers: HeaderMap) -> Result<Vec<u8>, StatusCode> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    world.asked.lock().unwrap().push(key.clone());
    let (signature, signed) = (header("authorization"), header("x-amz-security-token"));
    let good = signature.starts_with("AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/")
        && signature.contains("/us-west-2/s3/aws4_request")
        && signature.contains("x-amz-security-token")
        && signature.contains("x-amz-expected-bucket-owner")
        && header("x-amz-expected-bucket-owner") == ACCOUNT
        && header("x-amz-content-sha256").starts_with("e3b0c442");
    if !good || signed != SESSION || !spent(&world.refusals) {
        return Err(StatusCode::FORBIDDEN);
    }
    // A role that may not list is told nothing of what is not there.
    world.objects.lock().unwrap().get(&key).cloned().ok_or(StatusCode::FORBIDDEN)
}

/// Writes a program for the machine's search path.
pub fn program(bin: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(bin).unwrap();
    std::fs::write(bin.join(name), text).unwrap();
    std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// This host's own program of that name.
pub fn real(name: &str) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.exists()).unwrap();
    found.display().to_string()
}

/// The text with each of these replaced, which must be in it.
pub fn replaced(text: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the script has no {from} any more");
        text.replace(from, to)
    })
}
