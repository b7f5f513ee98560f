//! metrics-server: what it measures, who believes whom, and what scales by it.

use std::time::Duration;

use kup::pki::{Authority, Leaf};
use serde_json::Value;

use super::yaml::{TOOL_VOLUME, then_wait, tools};
use crate::ensure;
use crate::support::api::{name, text};
use crate::support::checks::World;
use crate::support::{Check, eventually, within};

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";

/// `kubectl top` tells every node's and every pod's use, within a minute of the cluster's being ready.
pub async fn nodes_and_pods_are_measured(w: &World<'_>) -> Check {
    within(Duration::from_secs(60), "kubectl top nodes", async || {
        let top = w.cluster.kubectl(&["top", "nodes", "--no-headers"]).await?;
        let rows: Vec<Vec<&str>> = top.stdout.lines().map(|l| l.split_whitespace().collect()).collect();
        let measured =
            |node: &str| rows.iter().any(|r| r[0] == node && r[1].ends_with('m') && r[1] != "0m" && r[3].ends_with("Mi"));
        Ok(if w.cluster.nodes.iter().all(|n| measured(&n.name)) { Ok(()) } else { Err(format!("{top:?}")) })
    })
    .await?;
    eventually("kubectl top pods", async || {
        let top = w.cluster.kubectl(&["top", "pods", "-n", "kube-system", "--no-headers"]).await?;
        let pods = top.stdout.lines().filter(|l| l.starts_with("coredns-") && l.contains("Mi")).count();
        Ok(if pods == 2 { Ok(()) } else { Err(format!("{top:?}")) })
    })
    .await
}

/// The API server verifies metrics-server, and metrics-server verifies kubelets.
pub async fn certificates_are_verified_both_ways(w: &World<'_>) -> Check {
    let api = &w.cluster.api;
    let service = api.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io").await?;
    ensure!(service["spec"]["insecureSkipTLSVerify"] != true, "the API server takes any certificate: {}", service["spec"]);
    let ca = text(&service["spec"]["caBundle"]);
    use base64::Engine as _;
    let ca = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(ca)?)?;
    ensure!(ca == w.cluster.login()?.ca_pem, "metrics-server is not verified by the cluster's authority");
    let deployment = api.get("/apis/apps/v1/namespaces/kube-system/deployments/metrics-server").await?;
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    ensure!(args.contains("--kubelet-certificate-authority="), "{args}");
    ensure!(!args.contains("insecure"), "{args}");
    Ok(())
}

/// A kubelet that presents a certificate of another authority is no longer measured; the log says why.
pub async fn a_strangers_kubelet_is_refused(w: &World<'_>) -> Check {
    let master = w.cluster.master();
    let measured = async || w.cluster.api.exists(&format!("{NODES}/{}", master.name)).await;
    eventually("the master to be measured", async || Ok(measured().await?.then_some(()).ok_or_else(|| "not yet".to_owned())))
        .await?;
    let leaf = Leaf::server("stranger", vec![master.name.clone()], vec![master.address.into()]);
    let stranger = Authority::generate("kubernetes")?.issue(&leaf, time::Duration::days(1))?;
    let swap = format!(
        "set -e; cd /etc/kup/pki; cp -p kubelet-server.crt /run/right.crt; cp -p kubelet-server.key /run/right.key\n\
         cat >kubelet-server.crt <<'E'\n{}E\ncat >kubelet-server.key <<'E'\n{}E\nsystemctl restart kubelet",
        stranger.cert, stranger.key
    );
    w.cluster.read(master, &swap).await?;
    let refused = eventually("the master not to be measured any more", async || {
        Ok(if measured().await? { Err("it still is".to_owned()) } else { Ok(()) })
    })
    .await;
    let back = "set -e; cp -p /run/right.crt /etc/kup/pki/kubelet-server.crt; cp -p /run/right.key /etc/kup/pki/kubelet-server.key; systemctl restart kubelet";
    w.cluster.read(master, back).await?;
    refused?;
    let log = w.cluster.kubectl(&["-n", "kube-system", "logs", "deployment/metrics-server"]).await?.ok("kubectl logs")?;
    let words = "certificate signed by unknown authority";
    let told = log.lines().any(|l| l.contains(&master.name) && l.contains(words));
    ensure!(told, "no line names {} and {words}:\n{log}", master.name);
    eventually("the master to be measured again", async || {
        Ok(measured().await?.then_some(()).ok_or_else(|| "not yet".to_owned()))
    })
    .await
}

/// An autoscaler gives a Deployment under load more pods, and takes them away when the load is over.
pub async fn a_loaded_deployment_grows_and_shrinks(w: &World<'_>) -> Check {
    let minion = w.minion(0)?;
    // Busy while a file on the node is there.
    let work = then_wait(
        "while :; do if [ -e /load/on ]; then i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; else sleep 0.5; fi; done",
    );
    let limits = "resources: { requests: { cpu: 50m }, limits: { cpu: 100m } },";
    let worker = tools("worker", &work, "{ name: load, mountPath: /load },", limits);
    w.cluster.read(&minion, "mkdir -p /run/kup-load && touch /run/kup-load/on").await?;
    w.apply(&format!(
        "{{ apiVersion: apps/v1, kind: Deployment, metadata: {{ name: worker }}, spec: {{ selector: {{ matchLabels: {{ app: worker }} }}, \
         template: {{ metadata: {{ labels: {{ app: worker }} }}, spec: {{ terminationGracePeriodSeconds: 0, containers: [{worker}], \
         volumes: [{{ name: load, hostPath: {{ path: /run/kup-load }} }}, {TOOL_VOLUME}] }} }} }} }}"
    ))
    .await?;
    let scaler = serde_json::json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "worker" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "worker" },
            "minReplicas": 1, "maxReplicas": 3,
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } } }],
            "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 }, "scaleUp": { "stabilizationWindowSeconds": 0 } },
        },
    });
    w.cluster.api.post(&format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers", w.namespace), &scaler).await?;
    let pods = async |what: &str, count: usize| -> Check {
        eventually(what, async || {
            let pods = w.pods("app=worker").await?;
            let there: Vec<String> = pods.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).map(name).collect();
            if there.len() == count {
                return Ok(Ok(()));
            }
            let path = format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/worker", w.namespace);
            let seen: Value = w.cluster.api.get(&path).await?["status"].take();
            Ok(Err(format!("{there:?}; {seen}")))
        })
        .await
    };
    pods("the autoscaler to make three pods of a busy one", 3).await?;
    w.cluster.read(&minion, "rm /run/kup-load/on").await?;
    pods("the autoscaler to go back to one", 1).await
}
