//! The line between kup and the emulator: it knows each call by the name that IAM gives it, writes it down, and can cut in: refuse it as
//! AWS would, lose the answer, or kill the caller before or after the call took effect.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use rustix::process::Signal;

use crate::support::Check;

/// A call: `ec2:CreateVpc`, and what of it tells one from another (its first tag-free parameters are not kept: they may hold secrets).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `service:Operation`.
    pub name: String,
    /// How many calls that change something came before it in this run.
    pub mutating_before: usize,
    /// Whether it can change something.
    pub mutating: bool,
    /// As it was answered; 0 if it never was.
    pub status: u16,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through.
    Pass,
    /// The service refuses it, with this HTTP status, code and message, in its own protocol.
    Refuse(u16, &'static str, &'static str),
    /// The caller dies before it takes effect.
    KillBefore,
    /// The caller dies after it took effect.
    KillAfter,
    /// It goes through, and somebody presses Ctrl-C before it is answered.
    Interrupt,
    /// It goes through, and the caller stands still until somebody lets it go on.
    Freeze,
    /// It takes effect, and the connection breaks before the answer.
    LoseReply,
}

type Rule = Box<dyn FnMut(&Call) -> Verdict + Send>;

struct Shared {
    upstream: String,
    client: reqwest::Client,
    calls: Mutex<Vec<Call>>,
    rule: Mutex<Option<Rule>>,
    victim: Mutex<Option<u32>>,
    /// Answers that were lost, by the token by which AWS knows a call that is made again; emulators don't.
    lost: Mutex<BTreeMap<String, Bytes>>,
}

/// A proxy on a port of its own.
pub struct Wire {
    /// Where it listens.
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// In front of this emulator.
    pub async fn to(upstream: &str) -> Check<Wire> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        // A connection of its own for each call: one that is kept may be closed by the emulator just when it is used again.
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).pool_max_idle_per_host(0).no_proxy().build()?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client,
            calls: Mutex::default(),
            rule: Mutex::default(),
            victim: Mutex::default(),
            lost: Mutex::default(),
        });
        let app = Router::new().fallback(pass).with_state(shared.clone());
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Wire { url, shared, task })
    }

    /// Forgets the calls, and sets what becomes of those to come; `victim` is whom [`Verdict::KillBefore`] kills.
    pub fn begin(&self, rule: impl FnMut(&Call) -> Verdict + Send + 'static) {
        self.shared.calls.lock().unwrap().clear();
        *self.shared.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Forgets the calls, and lets all through.
    pub fn clear(&self) {
        self.begin(|_| Verdict::Pass);
    }

    /// Lets all through from now on, and keeps what was called.
    pub fn deny_no_more(&self) {
        *self.shared.rule.lock().unwrap() = None;
    }

    /// Whom to kill.
    pub fn victim(&self, pid: Option<u32>) {
        *self.shared.victim.lock().unwrap() = pid;
    }

    /// The calls since [`Wire::begin`].
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// How often each call was made.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls() {
            *counts.entry(call.name).or_default() += 1;
        }
        counts
    }

    /// All calls, and those that can change something.
    pub fn sums(&self) -> (usize, usize) {
        let calls = self.calls();
        (calls.len(), calls.iter().filter(|call| call.mutating).count())
    }
}

/// The headers that concern one connection only.
const HOP: [&str; 4] = ["connection", "transfer-encoding", "content-length", "host"];

async fn pass(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let name = name(&method, &uri, &headers, &body);
    let mutating = !kup::aws::client::reads(&name);
    let (call, at) = {
        let mut calls = shared.calls.lock().unwrap();
        let before = calls.iter().filter(|c| c.mutating).count();
        let call = Call { name, mutating_before: before, mutating, status: 0 };
        calls.push(call.clone());
        (call, calls.len() - 1)
    };
    let verdict = shared.rule.lock().unwrap().as_mut().map_or(Verdict::Pass, |rule| rule(&call));
    match verdict {
        Verdict::Refuse(status, code, message) => {
            shared.calls.lock().unwrap()[at].status = status;
            return refusal(&call.name, status, code, message);
        }
        Verdict::KillBefore => {
            kill(&shared, Signal::KILL);
            return broken();
        }
        Verdict::Interrupt => kill(&shared, Signal::INT),
        Verdict::Freeze => kill(&shared, Signal::STOP),
        _ => {}
    }
    let token = token(&body);
    let known = token.as_ref().and_then(|token| shared.lost.lock().unwrap().get(token).cloned());
    if let Some(answer) = known {
        return Response::builder().header("content-type", "text/xml").body(Body::from(answer)).unwrap_or_else(|_| broken());
    }
    let mut request = shared.client.request(method, format!("{}{uri}", shared.upstream)).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| !HOP.contains(&name.as_str())) {
        request = request.header(name, value);
    }
    // Virtual hosts and signatures name the host that kup called; emulators do not mind which.
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(_) => return broken(),
    };
    match verdict {
        Verdict::KillAfter => {
            kill(&shared, Signal::KILL);
            return broken();
        }
        // Nothing that waits for it begins before the signal is seen, however busy the machine.
        Verdict::Interrupt => std::future::pending().await,
        Verdict::LoseReply => {
            if let (Some(token), Ok(answer)) = (token, answer.bytes().await) {
                shared.lost.lock().unwrap().insert(token, answer);
            }
            return broken();
        }
        _ => {}
    }
    let status = answer.status();
    if let Some(call) = shared.calls.lock().unwrap().get_mut(at) {
        call.status = status.as_u16();
    }
    let mut response = Response::builder().status(status);
    for (name, value) in answer.headers().iter().filter(|(name, _)| !HOP.contains(&name.as_str())) {
        response = response.header(name, value);
    }
    // The length of an answer to HEAD is that of the body it does not have.
    if let Some(length) = answer.headers().get("content-length") {
        response = response.header("content-length", length);
    }
    let body = answer.bytes().await.unwrap_or_default();
    response.body(Body::from(body)).unwrap_or_else(|_| broken())
}

/// The token of a call that AWS does once only, however often it is made.
fn token(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    text.split('&').find_map(|pair| pair.strip_prefix("ClientToken=")).map(str::to_owned)
}

fn kill(shared: &Shared, signal: Signal) {
    let victim = shared.victim.lock().unwrap().take();
    if let Some(pid) = victim.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// An answer that breaks off before its first byte: its body is shorter than it says.
fn broken() -> Response {
    let body = Body::from_stream(futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]));
    Response::builder().status(StatusCode::OK).header("content-length", "1000").body(body).unwrap_or_default()
}

/// What the caller calls, by the protocol of each service.
pub fn name(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Credential=AKID/20261125/us-west-2/ec2/aws4_request
    let scope = header("authorization").split("Credential=").nth(1).unwrap_or_default();
    let service = scope.split('/').nth(3).unwrap_or("unknown");
    let target = header("x-amz-target");
    if !target.is_empty() {
        return format!("{service}:{}", target.rsplit('.').next().unwrap_or_default());
    }
    if service == "s3" {
        return format!("s3:{}", s3(method, uri));
    }
    let text = String::from_utf8_lossy(body);
    let action = text.split('&').find_map(|pair| pair.strip_prefix("Action="));
    format!("{service}:{}", action.unwrap_or("Unknown"))
}

/// S3 tells its calls apart by method, path and the first word of the query.
fn s3(method: &Method, uri: &Uri) -> String {
    let path = uri.path().trim_matches('/');
    let object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let query: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(|part| !part.starts_with("x-id=")).collect();
    let of = |word: &str| query.iter().any(|part| part.split('=').next() == Some(word));
    let verb = match *method {
        Method::PUT => "Put",
        Method::DELETE => "Delete",
        Method::HEAD => "Head",
        _ => "Get",
    };
    let parts = [
        ("versioning", "BucketVersioning"),
        ("publicAccessBlock", "PublicAccessBlock"),
        ("encryption", "BucketEncryption"),
        ("policy", "BucketPolicy"),
        ("tagging", "BucketTagging"),
        ("lifecycle", "BucketLifecycleConfiguration"),
        ("ownershipControls", "BucketOwnershipControls"),
        ("location", "BucketLocation"),
    ];
    if !object && let Some((_, part)) = parts.iter().find(|(word, _)| of(word)) {
        return format!("{verb}{part}");
    }
    match (method.as_str(), object, path.is_empty()) {
        ("GET", _, true) => "ListBuckets".into(),
        ("PUT", false, _) => "CreateBucket".into(),
        ("DELETE", false, _) => "DeleteBucket".into(),
        ("HEAD", false, _) => "HeadBucket".into(),
        ("POST", false, _) if of("delete") => "DeleteObjects".into(),
        ("GET", false, _) if of("versions") => "ListObjectVersions".into(),
        ("GET", false, _) if of("uploads") => "ListMultipartUploads".into(),
        ("GET", false, _) => "ListObjectsV2".into(),
        (_, true, _) => format!("{verb}Object"),
        _ => format!("{verb}Bucket"),
    }
}

/// A refusal in the words of the service's protocol.
fn refusal(call: &str, status: u16, code: &str, message: &str) -> Response {
    let (service, _) = call.split_once(':').unwrap_or((call, ""));
    let (kind, body) = match service {
        "ec2" => (
            "text/xml",
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r-1</RequestID></Response>"
            ),
        ),
        "s3" => (
            "application/xml",
            format!("<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r-1</RequestId></Error>"),
        ),
        "ssm" | "servicequotas" => ("application/x-amz-json-1.1", format!(r#"{{"__type":"{code}","message":"{message}"}}"#)),
        _ => (
            "text/xml",
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
            ),
        ),
    };
    Response::builder().status(status).header("content-type", kind).body(Body::from(body)).unwrap_or_default()
}
