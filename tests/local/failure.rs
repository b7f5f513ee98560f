//! A machine that dies.

use std::time::Duration;

use super::yaml::{web_controller, web_deployment, web_service};
use crate::ensure;
use crate::support::api::{describe_pod, is_ready, name, text};
use crate::support::checks::{Call, World};
use crate::support::cluster::Node;
use crate::support::{Check, eventually, within};

/// How long until a dead machine's pods run elsewhere: the node lifecycle controller waits 50 s for a sign of life, then the
/// pods' own toleration runs.
const RESCHEDULED: Duration = Duration::from_secs(240);

/// Puts pods of two controllers on the machine that will die.
pub async fn prepare(w: &World<'_>, victim: &Node) -> Check {
    let there = format!(
        "affinity: {{ nodeAffinity: {{ preferredDuringSchedulingIgnoredDuringExecution: [{{ weight: 100, preference: {{ matchExpressions: [\
         {{ key: kubernetes.io/hostname, operator: In, values: [{}] }}] }} }}] }} }}, \
         tolerations: [{{ key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2 }}, \
         {{ key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2 }}],",
        victim.name
    );
    w.apply(&web_controller("kept", 2, "app: kept, by: controller", &there)).await?;
    w.apply(&web_deployment("also-kept", 1, "app: kept, by: deployment", &there)).await?;
    w.apply(&web_service("kept", "app: kept", "")).await?;
    let pods = w.ready("app=kept", 3).await?;
    let elsewhere: Vec<_> = pods.iter().filter(|p| text(&p["spec"]["nodeName"]) != victim.name).map(describe_pod).collect();
    ensure!(elsewhere.is_empty(), "these pods are not on {}: {elsewhere:?}", victim.name);
    Ok(())
}

/// A minion's machine is killed: its Node is NotReady, its pods run elsewhere, their Service answers; started again it is a node
/// again, with no help.
pub async fn pods_of_a_killed_machine_run_elsewhere(w: &World<'_>, victim: &Node) -> Check {
    prepare(w, victim).await?;
    w.cluster.engine(&["kill", "--signal", "KILL", &victim.name]).await?;
    within(RESCHEDULED, "the pods to run elsewhere", async || {
        let pods = w.pods("app=kept").await?;
        let well = pods.iter().filter(|p| is_ready(p) && text(&p["spec"]["nodeName"]) != victim.name).count();
        Ok(if well == 3 { Ok(()) } else { Err(pods.iter().map(describe_pod).collect::<Vec<_>>().join("\n")) })
    })
    .await?;
    let node = w.cluster.api.get(&format!("/api/v1/nodes/{}", victim.name)).await?;
    ensure!(!is_ready(&node), "the dead machine's Node is Ready: {}", node["status"]["conditions"]);
    let pods: Vec<String> = w.pods("app=kept").await?.iter().filter(|p| is_ready(p)).map(name).collect();
    let service = text(&w.cluster.api.get(&w.path("services/kept")).await?["spec"]["clusterIP"]);
    let seen = w.reaches(&pods[0], &Call::http(&service, 80).times(20)).await?;
    ensure!(seen.iter().all(|s| pods.contains(s)), "the Service answers {seen:?}, the living pods are {pods:?}");

    w.cluster.engine(&["start", &victim.name]).await?;
    eventually(&format!("{} to be Ready again", victim.name), async || {
        let node = w.cluster.api.get(&format!("/api/v1/nodes/{}", victim.name)).await?;
        Ok(if is_ready(&node) { Ok(()) } else { Err(node["status"]["conditions"].to_string()) })
    })
    .await?;
    eventually("the dead pods to be gone", async || {
        let pods = w.pods("app=kept").await?;
        Ok(if pods.len() == 3 { Ok(()) } else { Err(pods.iter().map(describe_pod).collect::<Vec<_>>().join("\n")) })
    })
    .await
}
