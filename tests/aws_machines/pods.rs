//! What people run on a cluster: pods in several zones that find each other, and a Service with a load balancer of the cloud's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ensure;
use crate::support::api::{Api, describe_pod, is_ready, name, text};
use crate::support::checks::AGNHOST;
use crate::support::{Check, eventually};

const NAMESPACE: &str = "story";
/// Enough calls that one of two pods, chosen at random, is missed once in ten million runs.
const MANY: usize = 24;

/// Web servers, one on every minion, with a Service before them that has a load balancer too.
pub struct Pods<'a> {
    api: &'a Api,
}

impl Pods<'_> {
    /// Makes them, and waits until they are there: `count` pods, in as many zones as `zones`.
    pub async fn start(api: &Api, count: usize, zones: usize) -> Check<Pods<'_>> {
        api.namespace(NAMESPACE).await?;
        let labels = json!({ "app": "web" });
        let port = |name: &str, port: u16| json!({ "name": name, "containerPort": port });
        let web = json!({
            "name": "web",
            "image": AGNHOST,
            "args": ["netexec"],
            "ports": [port("web", 8080)],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
        });
        let template =
            json!({ "metadata": { "labels": labels }, "spec": { "containers": [web], "terminationGracePeriodSeconds": 1 } });
        let set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "web" },
            "spec": { "selector": { "matchLabels": labels }, "template": template },
        });
        let service = |name: &str, kind: &str, annotations: Value| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "annotations": annotations },
                "spec": { "type": kind, "selector": labels, "ports": [{ "name": "web", "port": 80, "targetPort": 8080 }] },
            })
        };
        api.apply(NAMESPACE, &set).await?;
        api.apply(NAMESPACE, &service("web", "ClusterIP", json!({}))).await?;
        let network = json!({ "service.beta.kubernetes.io/aws-load-balancer-type": "nlb" });
        api.apply(NAMESPACE, &service("public", "LoadBalancer", network)).await?;
        let pods = Pods { api };
        let there = pods.ready(count).await?;
        let nodes: BTreeMap<String, Value> =
            api.list("/api/v1/nodes").await?.into_iter().map(|node| (name(&node), node)).collect();
        let zone = |pod: &Value| {
            let node = nodes.get(&text(&pod["spec"]["nodeName"]));
            text(&node.unwrap_or(&Value::Null)["metadata"]["labels"]["topology.kubernetes.io/zone"])
        };
        let seen: BTreeSet<String> = there.iter().map(zone).collect();
        ensure!(seen.len() == zones, "the pods are in the zones {seen:?}");
        Ok(pods)
    }

    /// Waits until that many are there, all of them Ready.
    async fn ready(&self, count: usize) -> Check<Vec<Value>> {
        eventually(&format!("{count} ready pods"), async || {
            let pods = self.api.list(&format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app=web")).await?;
            let all = pods.len() == count && pods.iter().all(is_ready);
            Ok(if all { Ok(pods) } else { Err(pods.iter().map(describe_pod).collect::<Vec<_>>().join("\n")) })
        })
        .await
    }

    /// Who answers when `pod` calls that address.
    async fn dial(&self, pod: &str, host: &str, port: u16, tries: usize) -> Check<BTreeSet<String>> {
        let call = format!("dial?host={host}&port={port}&protocol=http&request=hostname&tries={tries}");
        let said = self.api.text(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/{call}")).await?;
        let said: Value = serde_json::from_str(&said)?;
        let errors = said["errors"].as_array().cloned().unwrap_or_default();
        ensure!(errors.is_empty(), "{pod} calls {host}:{port}: {errors:?}");
        Ok(said["responses"].as_array().into_iter().flatten().map(text).collect())
    }

    /// Every pod reaches every other by its address, and all of them by the Service's name, which the cluster's DNS knows.
    pub async fn find_each_other(&self, count: usize) -> Check {
        let pods = self.ready(count).await?;
        let all: BTreeSet<String> = pods.iter().map(name).collect();
        for from in &all {
            for to in &pods {
                let address = text(&to["status"]["podIP"]);
                eventually(&format!("{from} to reach {} at {address}", name(to)), async || {
                    let seen = self.dial(from, &address, 8080, 1).await?;
                    Ok(if seen == BTreeSet::from([name(to)]) { Ok(()) } else { Err(format!("{seen:?} answers")) })
                })
                .await?;
            }
            for host in ["web", "web.story.svc.cluster.local."] {
                eventually(&format!("{from} to reach all pods by the name {host}"), async || {
                    let seen = self.dial(from, host, 80, MANY).await?;
                    Ok(if seen == all { Ok(()) } else { Err(format!("{seen:?} of {all:?} answer")) })
                })
                .await?;
            }
        }
        Ok(())
    }

    /// The load balancer that the cloud controller made answers whoever knows its name, from every pod.
    pub async fn answer_the_world(&self, count: usize) -> Check {
        let all: BTreeSet<String> = self.ready(count).await?.iter().map(name).collect();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services/public");
        let host = eventually("the Service to have a load balancer", async || {
            let service = self.api.get(&path).await?;
            let host = text(&service["status"]["loadBalancer"]["ingress"][0]["hostname"]);
            Ok(if host.is_empty() { Err(self.api.describe(NAMESPACE).await?) } else { Ok(host) })
        })
        .await?;
        let mut seen = BTreeSet::new();
        eventually(&format!("all pods to answer at {host}"), async || {
            // A connection of its own for each call: those of one are answered by one pod.
            let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
            seen.insert(http.get(format!("http://{host}/hostname")).send().await?.error_for_status()?.text().await?);
            Ok(if seen == all { Ok(()) } else { Err(format!("{seen:?} of {all:?}")) })
        })
        .await
    }
}
