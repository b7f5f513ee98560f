//! Liveness and readiness.

use super::yaml::{then_wait, tools, tools_pod, web_service};
use crate::ensure;
use crate::support::api::{is_ready, text};
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// A container that no longer says it is alive is started again, and the events say why.
pub async fn liveness_restarts(w: &World<'_>) -> Check {
    // agnhost's `liveness` is well for ten seconds.
    w.apply(
        "{ apiVersion: v1, kind: Pod, metadata: { name: sick }, spec: { terminationGracePeriodSeconds: 1, containers: [{ name: sick, image: AGNHOST, \
         args: [liveness], livenessProbe: { httpGet: { path: /healthz, port: 8080 }, periodSeconds: 1, failureThreshold: 2 } }] } }",
    )
    .await?;
    w.pod_until("sick", "started again", |p| p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)).await?;
    eventually("an event that names the probe", async || {
        let events = w.cluster.api.list(&w.path("events")).await?;
        let unhealthy: Vec<_> = events.iter().filter(|e| e["reason"] == "Unhealthy").map(|e| text(&e["message"])).collect();
        Ok(if unhealthy.iter().any(|m| m.contains("Liveness probe failed")) { Ok(()) } else { Err(format!("{unhealthy:?}")) })
    })
    .await
}

/// A pod that isn't ready gets no requests, runs on, and gets them again when it is.
pub async fn readiness_gates_requests(w: &World<'_>) -> Check {
    let probe =
        "readinessProbe: { exec: { command: [/bin/sh, -c, \"test -e /disk/ready\"] }, periodSeconds: 1, failureThreshold: 1 },";
    let container = tools("shy", &then_wait(":"), "{ name: disk, mountPath: /disk },", probe);
    w.apply(&tools_pod("shy", &[container], "{ name: disk, emptyDir: {} },", "")).await?;
    w.apply(&web_service("shy", "app: shy", "")).await?;
    w.pod_until("shy", "running", |p| p["status"]["containerStatuses"][0]["state"]["running"].is_object()).await?;
    let endpoints = async |ready: bool| -> Check {
        eventually(&format!("the endpoint's ready to be {ready}"), async || {
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", w.namespace);
            let seen: Vec<_> =
                w.cluster.api.list(&path).await?.iter().map(|s| s["endpoints"][0]["conditions"]["ready"].clone()).collect();
            Ok(if seen == [serde_json::json!(ready)] { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .await
    };
    let pod = async || w.cluster.api.get(&w.path("pods/shy")).await;
    let shell = async |command: &str| -> Check<String> {
        w.cluster.kubectl(&["-n", &w.namespace, "exec", "shy", "--", "sh", "-c", command]).await?.ok("kubectl exec")
    };
    endpoints(false).await?;
    ensure!(!is_ready(&pod().await?), "it is Ready before it says so");
    shell("touch /disk/ready").await?;
    endpoints(true).await?;
    ensure!(is_ready(&pod().await?), "it is not Ready after it said so");
    shell("rm /disk/ready").await?;
    endpoints(false).await?;
    let restarts = pod().await?["status"]["containerStatuses"][0]["restartCount"].clone();
    ensure!(restarts == 0, "a pod that isn't ready was started again {restarts} times");
    Ok(())
}
