//! An image registry that serves one image over TLS to those who log in, and remembers who asked for what.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::Check;
use crate::support::tls::{Tls, tls};

/// What the token server hands out.
const TOKEN: &str = "a-token-for-one-pull";

/// How callers log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// By name and password with each request.
    Basic,
    /// By a token with each request, which a name and a password are good for: as Docker Hub and most others.
    Token,
}

/// A request that came through.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET /v2/e2e/agnhost/manifests/1`
    pub what: String,
    /// The registry that the caller really means, if this is its mirror.
    pub namespace: Option<String>,
    /// The status it was answered with.
    pub status: u16,
}

/// A running registry; dropping it stops it.
pub struct Registry {
    pub address: SocketAddr,
    /// The authority that signed its certificate.
    pub ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The files of an image archive, by name.
pub type Image = Arc<HashMap<String, Bytes>>;

/// Reads an OCI archive of one image.
pub fn image(archive: &Path) -> Check<Image> {
    let mut files = HashMap::new();
    for entry in tar::Archive::new(std::fs::File::open(archive)?).entries()? {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(entry.path()?.to_string_lossy().into_owned(), bytes.into());
    }
    Ok(Arc::new(files))
}

struct Service {
    image: Image,
    login: Login,
    /// What `Authorization` must say, base64.
    credentials: String,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Registry {
    /// Serves an image under every name and tag, on a free port of one address, to whoever logs in like this.
    pub async fn serve(address: Ipv4Addr, image: Image, login: Login, user: &str, password: &str) -> Check<Registry> {
        let (acceptor, ca_pem) = tls(address)?;
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        let service = Arc::new(Service { image, login, credentials, address, seen: seen.clone() });
        let app = Router::new().fallback(answer).with_state(service);
        let server = tokio::spawn(async move {
            // It ends only when the registry is dropped.
            let _ = axum::serve(Tls { listener, acceptor }, app).await;
        });
        Ok(Registry { address, ca_pem, seen, server })
    }

    /// All requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = service.answer(uri.path(), request.headers());
    let query = uri.query().unwrap_or_default().split('&');
    let namespace = query.filter_map(|pair| pair.strip_prefix("ns=")).next().map(|ns| ns.replace("%3A", ":"));
    let seen = Seen { what: format!("{method} {}", uri.path()), namespace, status: response.status().as_u16() };
    service.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    response
}

impl Service {
    fn answer(&self, path: &str, headers: &HeaderMap) -> Response<Body> {
        let said = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        // Two logins in one request are none.
        let said = if headers.get_all(header::AUTHORIZATION).iter().count() == 1 { said } else { "" };
        let by_password = said == format!("Basic {}", self.credentials);
        if path == "/token" {
            return match by_password {
                true => respond(StatusCode::OK, "application/json", Bytes::from(json!({ "token": TOKEN }).to_string())),
                false => refuse("Basic realm=\"test\""),
            };
        }
        let welcome = match self.login {
            Login::Basic => by_password,
            Login::Token => said == format!("Bearer {TOKEN}"),
        };
        if !welcome {
            return match self.login {
                Login::Basic => refuse("Basic realm=\"test\""),
                Login::Token => refuse(&format!("Bearer realm=\"https://{}/token\",service=\"test\"", self.address)),
            };
        }
        let parts: Vec<&str> = path.trim_start_matches("/v2/").rsplitn(3, '/').collect();
        match parts[..] {
            [reference, "manifests", _] => self.manifest(reference),
            [digest, "blobs", _] => self.blob(digest, "application/octet-stream"),
            _ => respond(StatusCode::NOT_FOUND, "text/plain", Bytes::new()),
        }
    }

    /// The image's manifest, by its digest or any tag.
    fn manifest(&self, reference: &str) -> Response<Body> {
        let index: Value = self.image.get("index.json").and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
        let own = &index["manifests"][0];
        let kind = own["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
        self.blob(if reference.contains(':') { reference } else { own["digest"].as_str().unwrap_or_default() }, kind)
    }

    fn blob(&self, digest: &str, kind: &str) -> Response<Body> {
        match self.image.get(&format!("blobs/{}", digest.replace(':', "/"))) {
            None => respond(StatusCode::NOT_FOUND, "text/plain", Bytes::new()),
            Some(bytes) => {
                let mut response = respond(StatusCode::OK, kind, bytes.clone());
                if let Ok(digest) = digest.parse() {
                    response.headers_mut().insert("docker-content-digest", digest);
                }
                response
            }
        }
    }
}

fn refuse(challenge: &str) -> Response<Body> {
    let mut response = respond(StatusCode::UNAUTHORIZED, "text/plain", Bytes::new());
    if let Ok(challenge) = challenge.parse() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn respond(status: StatusCode, kind: &str, body: Bytes) -> Response<Body> {
    let length = body.len();
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind).header(header::CONTENT_LENGTH, length);
    response.body(Body::from(body)).unwrap_or_default()
}
