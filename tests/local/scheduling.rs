//! Where pods run, and what is said when there is no place for them.

use std::time::Duration;

use serde_json::{Value, json};

use super::yaml::web_pod;
use crate::ensure;
use crate::support::api::text;
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// A pod with a nodeSelector waits until a node has the label, and runs there.
pub async fn node_selector_finds_its_node(w: &World<'_>) -> Check {
    let node = w.minion(1)?.name;
    w.apply(&web_pod("picky", "app: picky", "nodeSelector: { story.test/disk: ssd },")).await?;
    let why = unschedulable(w, "picky").await?;
    ensure!(why.contains("didn't match Pod's node affinity/selector"), "picky waits because {why:?}");
    w.cluster.kubectl(&["label", "node", &node, "story.test/disk=ssd"]).await?.ok("kubectl label node")?;
    let pod = w.pod("picky").await?;
    ensure!(text(&pod["spec"]["nodeName"]) == node, "picky is on {}, the label on {node}", pod["spec"]["nodeName"]);
    Ok(())
}

/// More than any node has: Pending, with the reason.
pub async fn unsatisfiable_request_says_why(w: &World<'_>) -> Check {
    for (pod, request, reason) in [("cpu", "cpu: 1000", "Insufficient cpu"), ("memory", "memory: 900Ti", "Insufficient memory")] {
        let yaml = web_pod(pod, "app: greedy", "")
            .replace("args: [netexec]", &format!("args: [netexec], resources: {{ requests: {{ {request} }} }}"));
        w.apply(&yaml).await?;
        let why = unschedulable(w, pod).await?;
        ensure!(why.contains(reason), "{pod} waits because {why:?}, expected {reason}");
    }
    Ok(())
}

/// A hostPort answers at its node's address, and a node has each port once.
pub async fn host_ports_clash(w: &World<'_>) -> Check {
    let node = w.minion(0)?;
    let here = format!("nodeSelector: {{ kubernetes.io/hostname: {} }},", node.name);
    let with_port = |name: &str| {
        web_pod(name, "app: port", &here)
            .replace("args: [netexec]", "args: [netexec], ports: [{ containerPort: 8080, hostPort: 18888 }]")
    };
    w.apply(&with_port("first")).await?;
    w.pod("first").await?;
    w.apply(&with_port("second")).await?;
    let why = unschedulable(w, "second").await?;
    ensure!(why.contains("didn't have free ports"), "second waits because {why:?}");
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0).build()?;
    let url = format!("http://{}:18888/hostname", node.address);
    let answers = async |expected: &str| -> Check {
        eventually(&format!("{url} to be answered by {expected}"), async || {
            let seen = http.get(&url).send().await?.text().await?;
            Ok(if seen == expected { Ok(()) } else { Err(seen) })
        })
        .await
    };
    answers("first").await?;
    // The port is free again when its pod is gone.
    w.cluster.api.delete(&w.path("pods/first")).await?;
    w.pod("second").await?;
    answers("second").await
}

/// Waits until the scheduler has said why a pod has no node.
async fn unschedulable(w: &World<'_>, pod: &str) -> Check<String> {
    let pod = w.pod_until(pod, "Pending with a reason", |p| condition(p, "PodScheduled")["reason"] == "Unschedulable").await?;
    ensure!(pod["status"]["phase"] == "Pending", "the pod is {}", pod["status"]["phase"]);
    Ok(text(&condition(&pod, "PodScheduled")["message"]))
}

fn condition(pod: &Value, kind: &str) -> Value {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or(json!({}))
}
