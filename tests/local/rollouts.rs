//! More pods, fewer pods, other pods: without a request lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::yaml::{NETEXEC, web_controller, web_service};
use crate::ensure;
use crate::support::api::{name, text};
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// Scale 1→4→2; the Service's endpoints follow, and exactly as many pods are left.
pub async fn scale_1_4_2(w: &World<'_>) -> Check {
    w.apply(&web_controller("some", 1, "app: some", "")).await?;
    w.apply(&web_service("some", "app: some", "")).await?;
    for count in [1_usize, 4, 2] {
        w.cluster
            .kubectl(&["-n", &w.namespace, "scale", "rc/some", &format!("--replicas={count}")])
            .await?
            .ok("kubectl scale")?;
        let pods = w.ready("app=some", count).await?;
        let mut expected: Vec<String> = pods.iter().map(|p| text(&p["status"]["podIP"])).collect();
        expected.sort_unstable();
        eventually(&format!("the Service to have {count} endpoints"), async || {
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io/service-name=some",
                w.namespace
            );
            let slices = w.cluster.api.list(&path).await?;
            let endpoints = slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
            let mut seen: Vec<String> = endpoints.map(|e| text(&e["addresses"][0])).collect();
            seen.sort_unstable();
            Ok(if seen == expected { Ok(()) } else { Err(format!("{seen:?}, expected {expected:?}")) })
        })
        .await?;
    }
    Ok(())
}

/// A web server's pod template spec that answers with its version as its host name, and goes on answering for a moment after it
/// is told to end, until all nodes know.
fn version_spec(version: &str) -> String {
    let web = NETEXEC.replace("name: web,", "name: web, lifecycle: { preStop: { sleep: { seconds: 4 } } },");
    format!("{{ hostname: {version}, terminationGracePeriodSeconds: 10, containers: [{web}] }}").replace('\n', " ")
}

fn version_controller(version: &str, replicas: u32) -> String {
    format!(
        "{{ apiVersion: v1, kind: ReplicationController, metadata: {{ name: web-{version} }}, spec: {{ replicas: {replicas}, \
         selector: {{ app: web, version: {version} }}, template: {{ metadata: {{ labels: {{ app: web, version: {version} }} }}, spec: {} }} }} }}",
        version_spec(version)
    )
}

/// A replication controller rolled to a new version the way its tutorial does: one more of the new, one less of the old.
pub async fn controller_rolls_with_no_request_lost(w: &World<'_>) -> Check {
    w.apply(&version_controller("v1", 2)).await?;
    w.apply(&web_service("web", "app: web", "type: NodePort,")).await?;
    w.ready("app=web", 2).await?;
    let load = Load::start(w, "web").await?;
    load.sees("v1").await?;
    w.apply(&version_controller("v2", 0)).await?;
    for new in 1..=2 {
        for (version, count) in [("v2", new), ("v1", 2 - new)] {
            let path = w.path(&format!("replicationcontrollers/web-{version}/scale"));
            w.cluster.api.merge(&path, &json!({ "spec": { "replicas": count } })).await?;
            w.ready(&format!("app=web,version={version}"), count).await?;
        }
    }
    w.cluster.api.delete(&w.path("replicationcontrollers/web-v1")).await?;
    load.sees_only("v2").await?;
    load.stop().await
}

/// A Deployment's rolling update, and back.
pub async fn deployment_rolls_and_rolls_back_with_no_request_lost(w: &World<'_>) -> Check {
    let deployment = |version: &str| {
        format!(
            "{{ apiVersion: apps/v1, kind: Deployment, metadata: {{ name: web }}, spec: {{ replicas: 3, \
             strategy: {{ rollingUpdate: {{ maxUnavailable: 0, maxSurge: 2 }} }}, selector: {{ matchLabels: {{ app: web }} }}, \
             template: {{ metadata: {{ labels: {{ app: web }} }}, spec: {} }} }} }}",
            version_spec(version)
        )
    };
    w.apply(&deployment("v1")).await?;
    w.apply(&web_service("web", "app: web", "type: NodePort,")).await?;
    w.ready("app=web", 3).await?;
    let load = Load::start(w, "web").await?;
    load.sees("v1").await?;
    let before: Vec<String> = w.pods("app=web").await?.iter().map(name).collect();

    w.apply(&deployment("v2")).await?;
    w.cluster
        .kubectl(&["-n", &w.namespace, "rollout", "status", "deployment/web", "--timeout=150s"])
        .await?
        .ok("kubectl rollout status")?;
    load.sees_only("v2").await?;
    let after = w.ready("app=web", 3).await?;
    ensure!(!after.iter().any(|p| before.contains(&name(p))), "an old pod is left: {before:?}");
    let sets = w.cluster.api.list(&w.apps("replicasets")).await?;
    ensure!(sets.len() == 2, "{} replica sets after one update", sets.len());

    w.cluster.kubectl(&["-n", &w.namespace, "rollout", "undo", "deployment/web"]).await?.ok("kubectl rollout undo")?;
    w.cluster
        .kubectl(&["-n", &w.namespace, "rollout", "status", "deployment/web", "--timeout=150s"])
        .await?
        .ok("kubectl rollout status")?;
    load.sees_only("v1").await?;
    load.stop().await
}

/// Constant requests from outside, at every node's port, each on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<std::sync::Mutex<Seen>>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    /// How often each answer came, since the last look.
    answers: BTreeMap<String, usize>,
    total: usize,
    lost: Vec<String>,
}

impl Load {
    async fn start(w: &World<'_>, service: &str) -> Check<Load> {
        let service = w.cluster.api.get(&w.path(&format!("services/{service}"))).await?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().ok_or("the Service has no node port")?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).pool_max_idle_per_host(0).build()?;
        let urls: Vec<String> = w.cluster.nodes.iter().map(|n| format!("http://{}:{port}/hostname", n.address)).collect();
        for url in &urls {
            eventually(&format!("{url} to answer"), async || {
                Ok(Ok(http.get(url).send().await?.error_for_status().map(|_| ())?))
            })
            .await?;
        }
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(Seen::default())));
        let callers = urls.into_iter().map(|url| tokio::spawn(call(http.clone(), url, stop.clone(), seen.clone()))).collect();
        Ok(Load { stop, seen, callers })
    }

    /// Waits until this version answers.
    async fn sees(&self, version: &str) -> Check {
        eventually(&format!("{version} to answer"), async || {
            let seen = self.seen();
            Ok(if seen.answers.contains_key(version) { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .await
    }

    /// Waits until for a while nothing but this version answers.
    async fn sees_only(&self, version: &str) -> Check {
        eventually(&format!("only {version} to answer"), async || {
            if let Ok(mut seen) = self.seen.lock() {
                seen.answers.clear();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let seen = self.seen();
            Ok(if seen.answers.keys().eq([version]) && seen.answers[version] > 10 { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .await
    }

    fn seen(&self) -> Seen {
        self.seen.lock().map(|s| s.clone()).unwrap_or_default()
    }

    async fn stop(mut self) -> Check {
        self.stop.store(true, Ordering::Relaxed);
        for caller in std::mem::take(&mut self.callers) {
            caller.await?;
        }
        let seen = self.seen();
        ensure!(seen.lost.is_empty(), "{} of {} requests were lost: {:?}", seen.lost.len(), seen.total, seen.lost);
        ensure!(seen.total > 100, "only {} requests were made: that proves nothing", seen.total);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call(http: reqwest::Client, url: String, stop: Arc<AtomicBool>, seen: Arc<std::sync::Mutex<Seen>>) {
    while !stop.load(Ordering::Relaxed) {
        let answer = async { http.get(&url).send().await?.error_for_status()?.text().await };
        let answer = answer.await;
        if let Ok(mut seen) = seen.lock() {
            seen.total += 1;
            match answer {
                Ok(text) => *seen.answers.entry(text).or_default() += 1,
                Err(e) => seen.lost.push(format!("{e:?}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
