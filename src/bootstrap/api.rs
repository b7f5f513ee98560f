//! kup as a client of the cluster's API: one connection, one watch of all Nodes that every wait shares, and server-side apply.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Client, Config};
use serde::Deserialize as _;
use tokio::sync::watch;

use super::leaked;
use crate::error::{Context, Error, Result};
use crate::machine::topology::API_PORT;
use crate::pki::Pair;

/// The name under which kup owns the fields it applies.
pub const FIELD_MANAGER: &str = "kup";
/// How long one request may take to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request may take: many times what it does, also for an API server that has just begun.
pub const REQUEST: Duration = Duration::from_secs(10);
/// A watch that says nothing for this long is begun anew: a server that has fallen silent would never end it.
const SILENCE: Duration = Duration::from_secs(15);
/// Pause between looks at an API that does not answer yet.
const POLL: Duration = Duration::from_millis(50);

/// All Nodes by name, as last seen.
pub type Nodes = BTreeMap<String, Node>;

/// A client of one cluster's API.
#[derive(Clone)]
pub struct ApiClient {
    client: Client,
    /// Where it answers.
    pub server: String,
}

impl ApiClient {
    /// A client that trusts only `ca_pem` and logs in with `login`. Connects to nothing yet.
    pub fn new(address: Ipv4Addr, ca_pem: &str, login: &Pair) -> Result<ApiClient> {
        let what = "cannot set up a client of the cluster's API";
        // A program that links two TLS users must say which crypto both use; saying it twice is no error.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = format!("https://{address}:{API_PORT}");
        let mut config = Config::new(server.parse().context(what)?);
        config.connect_timeout = Some(CONNECT);
        let blocks = x509_parser::pem::Pem::iter_from_buffer(ca_pem.as_bytes())
            .collect::<std::result::Result<Vec<_>, _>>()
            .context(what)?;
        config.root_cert = Some(blocks.into_iter().map(|pem| pem.contents).collect());
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        config.auth_info = serde_json::from_value(serde_json::json!({
            "client-certificate-data": base64(&login.cert),
            "client-key-data": base64(&login.key),
        }))
        .context(what)?;
        Ok(ApiClient { client: Client::try_from(config).context(what)?, server })
    }

    /// The client itself, for typed calls.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until `/readyz` says ok, for at most `deadline`; `seen` hears what it says until then, and the error has the last of it.
    pub async fn ready(&self, deadline: Duration, seen: impl Fn(&str)) -> Result<()> {
        let until = Instant::now() + deadline;
        loop {
            let last = match tokio::time::timeout(CONNECT, self.get("/readyz?verbose")).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(e)) => unready(&e.to_string()),
                Err(_) => "no answer".to_owned(),
            };
            seen(&last);
            if Instant::now() >= until {
                return Err(
                    Error::new(format!("{}/readyz did not become ok within {} s", self.server, deadline.as_secs())).why(last)
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The text of a path below the API's root.
    pub async fn get(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new()).context("cannot build a request")?;
        self.client.request_text(request).await.with_context(|| format!("{}{path} did not answer well", self.server))
    }

    /// Makes the objects of these YAML documents be as written, all at once.
    pub async fn apply(&self, documents: &[String], deadline: Duration) -> Result<usize> {
        Ok(self.apply_all(parse(documents)?, deadline).await?.len())
    }

    /// Makes these objects be as given, all at once. Returns them, in their order, as the API has them now.
    pub async fn apply_all(&self, objects: Vec<DynamicObject>, deadline: Duration) -> Result<Vec<DynamicObject>> {
        futures::future::try_join_all(objects.into_iter().map(|object| self.apply_one(object, deadline))).await
    }

    async fn apply_one(&self, object: DynamicObject, deadline: Duration) -> Result<DynamicObject> {
        let types = object.types.clone().unwrap_or_default();
        let name = object.metadata.name.clone().unwrap_or_default();
        let gvk = GroupVersionKind::try_from(&types).with_context(|| format!("`{}` is no API version", types.api_version))?;
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let until = Instant::now() + deadline;
        let what = || format!("cannot apply {} {name}", types.kind);
        loop {
            let outcome = tokio::time::timeout(REQUEST, api.patch(&name, &params, &Patch::Apply(&object))).await;
            match outcome {
                Ok(Ok(applied)) => return Ok(applied),
                Ok(Err(e)) if leaked::is_taken(&object, &e) && Instant::now() < until => {
                    tokio::time::timeout(REQUEST, leaked::free(self.client.clone(), &object))
                        .await
                        .map_err(|_| Error::new(what()).why(format!("{} does not answer", self.server)))?
                        .map_err(|e| e.within(what()))?;
                    tokio::time::sleep(POLL).await;
                }
                Ok(Err(e)) if Instant::now() >= until || !may_pass(&e) => return Err(e).with_context(what),
                Err(_) if Instant::now() >= until => {
                    return Err(Error::new(what()).why(format!("{} did not answer within {} s", self.server, REQUEST.as_secs())));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Follows all Nodes until the receiver is gone. One watch, whoever waits.
    pub fn nodes(&self) -> watch::Receiver<Nodes> {
        let (sender, receiver) = watch::channel(Nodes::new());
        let api: Api<Node> = Api::all(self.client.clone());
        tokio::spawn(async move {
            while !sender.is_closed() {
                tokio::select! {
                    () = sender.closed() => return,
                    // An ended watch is normal; a failing one is tried again, and those who wait have deadlines of their own.
                    _ = follow(&api, &sender) => tokio::time::sleep(POLL).await,
                }
            }
        });
        receiver
    }
}

/// Whether the same request may succeed in a moment: the object's namespace (the API server makes its own ones when it starts) or its
/// kind is still to come, the server is busy or just restarting, or there was no answer at all.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => [404, 409, 429].contains(&status.code) || status.code >= 500,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

async fn follow(api: &Api<Node>, sender: &watch::Sender<Nodes>) -> kube::Result<()> {
    let Ok(list) = tokio::time::timeout(REQUEST, api.list(&ListParams::default())).await else { return Ok(()) };
    let list = list?;
    let version = list.metadata.resource_version.clone().unwrap_or_default();
    let nodes: Nodes = list.items.into_iter().filter_map(|n| Some((n.metadata.name.clone()?, n))).collect();
    sender.send_replace(nodes);
    let begun = tokio::time::timeout(REQUEST, api.watch(&WatchParams::default(), &version)).await;
    let Ok(begun) = begun else { return Ok(()) };
    let mut events = std::pin::pin!(begun?);
    while let Ok(event) = tokio::time::timeout(SILENCE, events.try_next()).await {
        let Some(event) = event? else { return Ok(()) };
        match event {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                if let Some(name) = node.metadata.name.clone() {
                    sender.send_modify(|nodes| drop(nodes.insert(name, node)));
                }
            }
            WatchEvent::Deleted(node) => {
                sender.send_modify(|nodes| drop(node.metadata.name.and_then(|name| nodes.remove(&name))))
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

/// The objects of YAML texts, each with one or more documents.
pub fn parse(documents: &[String]) -> Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for text in documents {
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = serde_yaml::Value::deserialize(document).context("an add-on's manifest is not YAML")?;
            if !value.is_null() {
                objects.push(serde_yaml::from_value(value).context("an add-on's manifest is not a Kubernetes object")?);
            }
        }
    }
    Ok(objects)
}

/// The checks of `/readyz?verbose` that are not ok, or the whole text.
pub fn unready(text: &str) -> String {
    let failing: Vec<&str> = text.lines().filter(|l| l.trim_start().starts_with("[-]")).collect();
    if failing.is_empty() { text.to_owned() } else { failing.join("\n") }
}

/// What [`unready`] gave, in as few words as can stand on a line: the first check that fails, or else the innermost cause.
pub fn briefly(unready: &str) -> &str {
    let lines = || unready.lines().map(str::trim).filter(|l| !l.is_empty());
    let check = lines().find_map(|l| l.strip_prefix("[-]")).map(|l| l.split_once(" failed").map_or(l, |(name, _)| name));
    check.or_else(|| lines().next_back().map(|l| l.rsplit(": ").next().unwrap_or(l))).unwrap_or_default()
}

/// Whether a Node's condition `Ready` is true; else why not, in its own words.
pub fn node_ready(node: &Node) -> std::result::Result<(), String> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    match conditions.into_iter().flatten().find(|c| c.type_ == "Ready") {
        Some(c) if c.status == "True" => Ok(()),
        Some(c) => Err(why_not(c.message.as_deref().unwrap_or_default())),
        None => Err("it has not reported yet".into()),
    }
}

/// Characters of a kubelet's own words that are shown after ours.
const KUBELETS: usize = 80;

/// What a kubelet, or the controller that misses it, says of a Node that is not Ready: in our words, and the end of its own, where it comes
/// to the point.
fn why_not(message: &str) -> String {
    let known = [
        ("NetworkPluginNotReady", "its network for pods is not there yet"),
        ("container runtime is down", "containerd does not answer its kubelet"),
        ("container runtime status", "containerd does not answer its kubelet"),
        ("PLEG is not healthy", "containerd answers its kubelet too slowly"),
        ("CSINode is not yet initialized", "its kubelet has not looked for storage drivers yet"),
        ("stopped posting node status", "its kubelet says nothing any more"),
        ("node is shutting down", "it is shutting down"),
    ];
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if message.is_empty() {
        return "not Ready".to_owned();
    }
    let ours =
        known.into_iter().find(|(theirs, _)| message.contains(theirs)).map_or("its kubelet is not ready yet", |(_, ours)| ours);
    let length = message.chars().count();
    let end: String = message.chars().skip(length.saturating_sub(KUBELETS)).collect();
    format!("{ours}; kubelet: {}{end}", if length > KUBELETS { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelets_words_come_after_ours_and_are_short() {
        let long = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin \
                    returns error: cni plugin not initialized";
        insta::assert_snapshot!(why_not(long), @"its network for pods is not there yet; kubelet: …kPluginNotReady message:Network plugin returns error: cni plugin not initialized");
        assert_eq!(
            why_not("Kubelet stopped posting node status."),
            "its kubelet says nothing any more; kubelet: Kubelet stopped posting node status."
        );
        assert_eq!((why_not(""), why_not("new")), ("not Ready".into(), "its kubelet is not ready yet; kubelet: new".into()));
    }

    #[test]
    fn manifests_of_several_documents_are_read() {
        let objects = parse(&["# words\n---\napiVersion: v1\nkind: Service\nmetadata: { name: a }\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: b }\n".into()]).unwrap();
        assert_eq!(objects.iter().map(|o| o.metadata.name.as_deref().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(parse(&["kind: [".into()]).is_err());
    }

    #[test]
    fn only_failing_checks_are_shown() {
        assert_eq!(
            unready("[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed"),
            "[-]etcd failed: reason withheld"
        );
        assert_eq!(unready("connection refused"), "connection refused");
        assert_eq!(
            briefly("[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n[-]b failed"),
            "poststarthook/rbac/bootstrap-roles"
        );
        assert_eq!(briefly("https://a/readyz did not answer well\n  because: client error (Connect): tcp: refused\n"), "refused");
        assert_eq!(briefly(""), "");
    }
}
