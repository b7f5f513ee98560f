//! The cluster's DNS outlives a node and a drain.

use std::collections::BTreeSet;

use crate::ensure;
use crate::support::Check;
use crate::support::api::{is_ready, text};
use crate::support::checks::World;

/// Two replicas on two nodes, one of them always up, and never the first to go.
pub async fn dns_is_spread_and_protected(w: &World<'_>) -> Check {
    let api = &w.cluster.api;
    let pods = api.list("/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app=kube-dns").await?;
    ensure!(pods.len() == 2 && pods.iter().all(is_ready), "{} pods of DNS, not all Ready", pods.len());
    let nodes: BTreeSet<String> = pods.iter().map(|p| text(&p["spec"]["nodeName"])).collect();
    ensure!(nodes.len() == 2, "both replicas are on {nodes:?}");
    for pod in &pods {
        ensure!(pod["spec"]["priority"] == 2_000_000_000, "DNS has priority {}", pod["spec"]["priority"]);
        let probe = &pod["spec"]["containers"][0]["readinessProbe"];
        ensure!(probe["periodSeconds"] == 1, "DNS is asked whether it is ready every {} s", probe["periodSeconds"]);
    }
    let budget = api.get("/apis/policy/v1/namespaces/kube-system/poddisruptionbudgets/coredns").await?["status"].clone();
    ensure!(
        budget["disruptionsAllowed"] == 1 && budget["currentHealthy"] == 2 && budget["desiredHealthy"] == 1,
        "the budget's status is {budget}"
    );
    Ok(())
}
