//! Answers of the Kubernetes API: truncated, of other types than they should be, very long. A small server in this process gives them.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use kup::bootstrap::api::{ApiClient, node_ready, unready};
use kup::pki::files::Memory;
use kup::pki::{Pair, Pki, layout};
use proptest::prelude::*;
use proptest::sample::select;

use crate::engine::{self, Outcome};
use crate::holds;
use crate::mutation::{Change, Style, any_change, changed};
use crate::support::tls::{Tls, tls};

/// A list with a Node and a Pod in one: each reader takes what it knows.
const LIST: &str = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1234"},"items":[{"metadata":{"name":"fuzz-master-1","uid":"x","creationTimestamp":"2026-11-26T13:15:00Z","annotations":{"kup.dev/ssh-host-key":"ssh-ed25519 AAAA"},"labels":{"a":"b"}},"spec":{"podCIDR":"10.244.0.0/24","unschedulable":true,"nodeName":"fuzz-master-1","taints":[{"key":"a","effect":"NoSchedule","timeAdded":"2026-11-26T13:15:00Z"}],"containers":[{"name":"c","image":"i","ports":[{"containerPort":1}]}]},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"False","message":"not yet","lastHeartbeatTime":"2026-11-26T13:15:00Z"},{"type":"DiskPressure","status":"True"}],"addresses":[{"type":"InternalIP","address":"172.29.0.11"}],"capacity":{"cpu":"2","memory":"4Gi"},"nodeInfo":{"architecture":"amd64","bootID":"","containerRuntimeVersion":"","kernelVersion":"","kubeProxyVersion":"","kubeletVersion":"v1.37.1","machineID":"","operatingSystem":"linux","osImage":"","systemUUID":""},"containerStatuses":[{"name":"c","image":"i","imageID":"","ready":false,"restartCount":2147483647,"state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}},{"name":"d","image":"i","imageID":"","ready":true,"restartCount":7}]}}]}"#;
/// Nodes of which the API knows less and less.
const BARE: &str = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"a"},"status":{"conditions":[{"type":"Ready","status":"Unknown"},{"type":"MemoryPressure","status":"False"}]}},{"metadata":{"name":"b"},"status":{"conditions":[{"type":"MemoryPressure","status":"False"}]}},{"metadata":{"name":"c"},"status":{"conditions":[]}},{"metadata":{"name":"d"},"status":{}},{"metadata":{"name":"e"}},{"metadata":{}}]}"#;
const OBJECT: &str = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"default","managedFields":[{"manager":"kup","operation":"Apply","apiVersion":"v1","time":"2026-11-26T13:15:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:data":{}}}]},"data":{"a":"b"}}"#;
const FAILURE: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps is forbidden","reason":"Forbidden","details":{"kind":"configmaps","causes":[{"reason":"x","message":"y","field":"z"}],"retryAfterSeconds":1},"code":403}"#;
const READY: &str = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]poststarthook/x ok\nreadyz check failed\n";
const EVENTS: &str = "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"DELETED\",\"object\":{\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Node\",\"metadata\":{\"resourceVersion\":\"9\"}}}\n";

/// What the server says next: the status, the kind of text, the text.
type Said = Arc<Mutex<(u16, &'static str, Vec<u8>)>>;

async fn answer(State(said): State<Said>, _: Request) -> Response<Body> {
    let (status, kind, body) = said.lock().unwrap().clone();
    Response::builder().status(status).header("content-type", kind).body(Body::from(body)).unwrap()
}

/// The keys of a cluster: making them takes seconds.
fn pki() -> Arc<Pki> {
    static ONCE: OnceLock<Arc<Pki>> = OnceLock::new();
    ONCE.get_or_init(|| Arc::new(Pki::of(Arc::new(Memory::default())).unwrap())).clone()
}

/// A server on a loopback address of this process's own, and a client of it.
struct World {
    runtime: tokio::runtime::Runtime,
    said: Said,
    client: ApiClient,
}

/// The API is always at this port: another address is what two servers differ in.
fn free() -> (std::net::TcpListener, Ipv4Addr) {
    let own = std::process::id();
    for n in 0..200_u32 {
        let [_, b, c, d] = (own.wrapping_mul(251).wrapping_add(n.wrapping_mul(7919))).to_be_bytes();
        let address = Ipv4Addr::new(127, b | 1, c, d.clamp(1, 254));
        if let Ok(listener) = std::net::TcpListener::bind((address, 6443)) {
            return (listener, address);
        }
    }
    panic!("no loopback address has port 6443 free");
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (listener, address) = free();
        let (acceptor, ca) = tls(address).unwrap();
        let said = Said::new(Mutex::new((200, "application/json", Vec::new())));
        let app = Router::new().fallback(answer).with_state(said.clone());
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let _ = axum::serve(Tls { listener, acceptor }, app).await;
        });
        let login: Pair = layout::admin(&pki()).unwrap();
        let client = runtime.block_on(async { ApiClient::new(address, &ca, &login).unwrap() });
        World { runtime, said, client }
    }

    /// Has everything asked that kup asks, with the same answer to each.
    fn case(&self, status: u16, kind: &'static str, body: Vec<u8>) -> Outcome {
        *self.said.lock().unwrap() = (status, kind, body);
        let client = self.client.clone();
        let object = serde_json::from_str(OBJECT).map_err(|e| e.to_string())?;
        self.runtime.block_on(async {
            let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(client.client());
            let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::all(client.client());
            let all = kube::api::ListParams::default();
            // Whatever the answer, it is one at once: nothing waits for another one.
            let asked = async {
                if let Ok(list) = nodes.list(&all).await {
                    list.items.iter().for_each(|node| drop(node_ready(node)));
                }
                let _ = pods.list(&all).await.is_ok();
                let readyz = client.get("/readyz?verbose").await.map_err(|e| unready(&e.to_string()));
                let applied = client.apply_all(vec![object], Duration::ZERO).await;
                for error in [applied.err().map(|e| e.to_string()), readyz.err()].into_iter().flatten() {
                    holds!(!error.trim().is_empty(), "an error without words");
                }
                // A watch begins anew as often as it ends, until nobody listens.
                let watched = client.nodes();
                tokio::task::yield_now().await;
                drop(watched);
                Ok::<(), String>(())
            };
            tokio::time::timeout(Duration::from_secs(60), asked).await.map_err(|_| "it did not end".to_owned())?
        })
    }
}

#[test]
fn any_answer_of_the_api_is_borne() {
    let world = World::new();
    let kinds =
        prop_oneof![4 => Just("application/json"), 1 => Just("text/plain"), 1 => Just("application/vnd.kubernetes.protobuf")];
    let statuses = prop_oneof![6 => Just(200_u16), 1 => select(vec![201, 204, 302, 400, 401, 403, 404, 409, 410, 422, 500])];
    let texts = select(vec![LIST, LIST, LIST, BARE, OBJECT, FAILURE, READY, EVENTS]);
    let cases = (texts, proptest::collection::vec(any_change(), 0..5), statuses, kinds);
    engine::run("Kubernetes API", 150, cases, |(text, changes, status, kind): (&str, Vec<Change>, u16, &'static str)| {
        world.case(status, kind, changed(text, &changes, Style::Json))
    });
}

/// The client asks again by itself where it is told to come later: whoever waits has a deadline of his own.
#[test]
fn an_api_that_only_says_later_is_given_up() {
    let world = World::new();
    for status in [429, 503, 504] {
        *world.said.lock().unwrap() = (status, "application/json", FAILURE.as_bytes().to_vec());
        let waited = world.client.ready(Duration::from_millis(100), |_| ());
        let ended = world.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), waited).await });
        let error = ended.expect("it waits for ever").unwrap_err();
        assert!(error.what.contains("did not become ok"), "{error}");
    }
}
