//! What the API says of itself, of the Nodes, of DNS and of the system's pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api as Objects, ListParams};
use serde::Serialize;

use super::addons::{self, Addon};
use crate::bootstrap::api::{ApiClient, node_ready, unready};
use crate::error::Error;
use crate::provider::FoundMachine;
use crate::standing::Standing;

/// How long one question may take: many times what it does.
const QUESTION: Duration = Duration::from_secs(6);
/// Where the system's own pods are.
const SYSTEM: &str = "kube-system";
/// The Deployment of the cluster's DNS.
const DNS: &str = "coredns";

/// What the API says.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Api {
    /// Each master's server, and what the machine in front of several says.
    pub servers: Vec<ApiServer>,
    /// Why the questions below were not answered; empty if they were.
    pub unanswered: Vec<String>,
    /// The Nodes; none if it didn't say.
    pub nodes: Option<Vec<Node>>,
    /// The replicas of DNS; none if it didn't say.
    pub dns: Option<Replicas>,
    /// The add-ons that the config has, beside DNS; none if it didn't say.
    pub addons: Option<Vec<Addon>>,
    /// The pods in `kube-system`; none if it didn't say.
    pub system_pods: Option<Vec<Pod>>,
}

/// One master's API server.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiServer {
    /// The master.
    pub machine: String,
    /// Its address.
    pub server: String,
    /// Whether `/readyz` says ok.
    pub ready: bool,
    /// What it says otherwise.
    pub why: Option<String>,
}

/// A Node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Why not.
    pub why: Option<String>,
    /// Whether pods are kept from it (`kubectl cordon`).
    pub cordoned: bool,
    /// What it is short of: `DiskPressure`, `MemoryPressure`, `PIDPressure`, `NetworkUnavailable`.
    pub pressures: Vec<String>,
    /// Its kubelet's version.
    pub version: String,
}

/// Replicas of a Deployment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// How many are ready.
    pub ready: usize,
    /// How many there should be.
    pub wanted: usize,
    /// What its conditions say, if not all are.
    pub why: Option<String>,
}

/// A pod of the system's.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: Option<String>,
    /// Whether it is ready, or has ended well.
    pub well: bool,
    /// Why not.
    pub why: Option<String>,
    /// How often its containers were started again.
    pub restarts: i32,
}

impl Api {
    /// The Node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().flatten().find(|n| n.name == name)
    }
}

/// Asks the API of every master whether it is ready, and the first that is about the rest.
pub(super) async fn ask(standing: &Standing) -> Api {
    let mut api = Api::default();
    let asked =
        futures::future::join_all(standing.api_machines().filter(|m| m.running).map(|machine| server(standing, machine))).await;
    let mut client = None;
    for (server, answering) in asked {
        client = client.or(answering.filter(|_| server.ready));
        api.servers.push(server);
    }
    let Some(client) = client else {
        api.unanswered.push("no API server is ready".into());
        return api;
    };
    let deployments = Objects::<Deployment>::namespaced(client.client(), SYSTEM);
    let (nodes, dns, addons, pods) = tokio::join!(
        question("the Nodes", list::<core::Node>(Objects::all(client.client()))),
        question("the Deployment of DNS", deployments.get(DNS)),
        question("the add-ons", addons::ask(&standing.cluster, &client)),
        question("the system's pods", list::<core::Pod>(Objects::namespaced(client.client(), SYSTEM))),
    );
    let mut answered = |why: String| api.unanswered.push(why);
    api.nodes = nodes.map_err(&mut answered).ok().map(|all| all.into_iter().map(node).collect());
    api.dns = dns.map_err(&mut answered).ok().map(replicas);
    api.addons = addons.map_err(&mut answered).ok();
    api.system_pods = pods.map_err(&mut answered).ok().map(|all| all.into_iter().filter(|p| !leaving(p)).map(pod).collect());
    api
}

/// The Nodes alone, as the first master that answers tells them.
pub async fn nodes(standing: &Standing) -> Result<Vec<Node>, String> {
    Ok(first("the Nodes", standing).await?.into_iter().map(node).collect())
}

/// All pods that are not about to go, likewise.
pub async fn pods(standing: &Standing) -> Result<Vec<core::Pod>, String> {
    Ok(first("the pods", standing).await?.into_iter().filter(|p| !leaving(p)).collect())
}

/// All objects of a kind, as the first master that answers tells them.
async fn first<K>(what: &str, standing: &Standing) -> Result<Vec<K>, String>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut last = "the API can't be asked: no master runs".to_owned();
    for master in standing.masters().filter(|m| m.running) {
        let asked = match standing.api(master) {
            Ok(client) => question(what, list::<K>(Objects::all(client.client()))).await,
            Err(e) => Err(words(e)),
        };
        match asked {
            Ok(all) => return Ok(all),
            Err(why) => last = format!("the API of {} does not answer: {why}", master.machine.name),
        }
    }
    Err(last)
}

async fn server(standing: &Standing, master: &FoundMachine) -> (ApiServer, Option<ApiClient>) {
    let machine = master.machine.name.clone();
    let client = match standing.api(master) {
        Ok(client) => client,
        Err(e) => return (ApiServer { machine, server: String::new(), ready: false, why: Some(words(e)) }, None),
    };
    let server = client.server.clone();
    let why = match tokio::time::timeout(QUESTION, client.get("/readyz?verbose")).await {
        Ok(Ok(_)) => None,
        Ok(Err(e)) => Some(unready(&words(e))),
        Err(_) => Some(format!("no answer within {} s", QUESTION.as_secs())),
    };
    (ApiServer { machine, server, ready: why.is_none(), why }, Some(client))
}

/// An error's causes, or its own words if it has none.
fn words(e: Error) -> String {
    if e.why.is_empty() { e.what } else { e.why.join(": ") }
}

async fn list<K>(objects: Objects<K>) -> kube::Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    objects.list(&ListParams::default()).await.map(|l| l.items)
}

async fn question<T, E: std::fmt::Display>(what: &str, answer: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(QUESTION, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(format!("{what}: {e}")),
        Err(_) => Err(format!("{what}: no answer within {} s", QUESTION.as_secs())),
    }
}

fn node(node: core::Node) -> Node {
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    Node {
        ready: node_ready(&node).is_ok(),
        why: node_ready(&node).err(),
        cordoned: node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)),
        pressures: conditions.into_iter().filter(|c| c.type_ != "Ready" && c.status == "True").map(|c| c.type_).collect(),
        version: status.node_info.map(|i| i.kubelet_version).unwrap_or_default(),
        name: node.metadata.name.unwrap_or_default(),
    }
}

fn replicas(deployment: Deployment) -> Replicas {
    let status = deployment.status.unwrap_or_default();
    let count = |n: Option<i32>, otherwise: i32| usize::try_from(n.unwrap_or(otherwise)).unwrap_or(0);
    let (ready, wanted) = (count(status.ready_replicas, 0), count(deployment.spec.replicas, 1));
    let conditions = status.conditions.unwrap_or_default();
    let why: Vec<String> =
        conditions.into_iter().filter(|c| c.status.as_deref() != Some("True")).filter_map(|c| c.message).collect();
    Replicas { ready, wanted, why: (ready < wanted && !why.is_empty()).then(|| why.join("\n")) }
}

fn leaving(pod: &core::Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn pod(pod: core::Pod) -> Pod {
    let status = pod.status.unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let well = (phase == "Running" && ready) || phase == "Succeeded";
    let containers = status.container_statuses.unwrap_or_default();
    let waiting = containers.iter().filter_map(|c| c.state.as_ref()?.waiting.as_ref());
    let waiting = waiting.map(|w| [w.reason.clone(), w.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(": "));
    let unmet = conditions.iter().filter(|c| c.status != "True").filter_map(|c| c.message.clone());
    // What a container waits for says more than that it isn't ready.
    let why = waiting.chain(unmet).find(|w| !w.is_empty()).unwrap_or_else(|| format!("it is {phase}"));
    Pod {
        name: pod.metadata.name.unwrap_or_default(),
        node: pod.spec.and_then(|s| s.node_name),
        well,
        why: (!well).then_some(why),
        restarts: containers.iter().fold(0, |sum: i32, container| sum.saturating_add(container.restart_count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_waits_says_for_what() {
        let crashing = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "a" }, "spec": { "nodeName": "n", "containers": [] },
            "status": {
                "phase": "Running", "conditions": [{ "type": "Ready", "status": "False", "message": "containers with unready status" }],
                "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
                    "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } } }],
            },
        }));
        let pod = pod(crashing.unwrap());
        assert_eq!((pod.well, pod.why.as_deref(), pod.restarts), (false, Some("CrashLoopBackOff: back-off 40s"), 3));
    }

    #[test]
    fn a_pod_that_ended_well_is_well_and_a_pending_one_is_not() {
        let of = |phase: &str| {
            pod(serde_json::from_value(serde_json::json!({ "metadata": { "name": "a" }, "status": { "phase": phase } })).unwrap())
        };
        assert!(of("Succeeded").well);
        assert_eq!(of("Pending").why.as_deref(), Some("it is Pending"));
        assert!(!of("Running").well, "running, but not Ready");
    }

    #[test]
    fn nodes_tell_what_they_are_short_of() {
        let node = node(
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": "n" }, "spec": { "unschedulable": true },
                "status": { "conditions": [
                    { "type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status." },
                    { "type": "DiskPressure", "status": "True" }, { "type": "PIDPressure", "status": "False" },
                ] },
            }))
            .unwrap(),
        );
        assert_eq!((node.ready, node.cordoned, node.pressures), (false, true, vec!["DiskPressure".to_owned()]));
        let why = "its kubelet says nothing any more; kubelet: Kubelet stopped posting node status.";
        assert_eq!(node.why.as_deref(), Some(why));
    }
}
