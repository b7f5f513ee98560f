//! The default StorageClass: where volumes are, what they outlive, and what goes with their claim.

use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use super::yaml::{TOOL_VOLUME, then_wait, tools, tools_pod};
use crate::ensure;
use crate::support::api::text;
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// Where volumes are on a node.
const ROOT: &str = "/var/lib/kup/volumes";

/// A claim that names no class.
fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "64Mi" } } },
    })
}

/// A StatefulSet of one pod that is nobody in particular, counts its starts in its volume, and tells that.
fn counter() -> String {
    let command = then_wait("n=$(cat /data/starts 2>/dev/null || echo 0); echo $((n + 1)) > /data/starts; cat /data/starts");
    let counter =
        tools("counter", &command, "{ name: data, mountPath: /data },", "securityContext: { runAsUser: 1234, runAsGroup: 1234 }");
    format!(
        "{{ apiVersion: apps/v1, kind: StatefulSet, metadata: {{ name: counter }}, spec: {{ serviceName: counter, \
         selector: {{ matchLabels: {{ app: counter }} }}, template: {{ metadata: {{ labels: {{ app: counter }} }}, \
         spec: {{ terminationGracePeriodSeconds: 1, containers: [{counter}], volumes: [{TOOL_VOLUME}] }} }}, \
         volumeClaimTemplates: [{{ metadata: {{ name: data }}, spec: {{ accessModes: [ReadWriteOnce], \
         resources: {{ requests: {{ storage: 64Mi }} }} }} }}] }} }}"
    )
}

/// A StatefulSet's data is there after its pod was deleted, and after all machines were stopped and started again: once `alone` says that
/// nobody else needs them.
pub async fn data_outlives_pods_and_the_cluster_s_stop(w: &World<'_>, alone: Receiver<()>) -> Check {
    w.apply(&counter()).await?;
    let says = async |expected: &str| -> Check {
        eventually(&format!("the pod to say {expected}"), async || {
            let seen = w.cluster.api.text(&w.path("pods/counter-0/log")).await?;
            Ok(if seen.trim() == expected { Ok(()) } else { Err(seen) })
        })
        .await
    };
    says("1").await?;
    let bound = w.cluster.api.get(&w.path("persistentvolumeclaims/data-counter-0")).await?;
    ensure!(bound["spec"]["storageClassName"] == "local", "the default class is {}", bound["spec"]["storageClassName"]);
    let uid = text(&w.cluster.api.get(&w.path("pods/counter-0")).await?["metadata"]["uid"]);
    w.cluster.api.delete(&w.path("pods/counter-0")).await?;
    eventually("another pod in its place", async || {
        let pod = w.cluster.api.get(&w.path("pods/counter-0")).await?;
        Ok(if text(&pod["metadata"]["uid"]) != uid { Ok(()) } else { Err("it is still the old one".to_owned()) })
    })
    .await?;
    says("2").await?;

    // The other end is dropped where that is not going to be said: then nobody else is there either.
    let _ = alone.await;
    let names: Vec<&str> = w.cluster.nodes.iter().map(|n| n.name.as_str()).collect();
    w.cluster.engine(&[["stop", "--time", "10"].as_slice(), names.as_slice()].concat()).await?;
    w.cluster.engine(&[["start"].as_slice(), names.as_slice()].concat()).await?;
    says("3").await
}

/// Deleting a claim removes its volume and, on the node, its directory with all that is in it; the volume's name says whose it was.
pub async fn a_claim_that_is_removed_leaves_nothing_on_the_disk(w: &World<'_>) -> Check {
    let minion = w.minion(0)?;
    w.cluster.api.post(&w.path("persistentvolumeclaims"), &claim("scratch")).await?;
    // A directory that its owner alone may change: removing it needs more than being root without rights.
    let command =
        then_wait("umask 077; mkdir /data/deep && echo secret > /data/deep/file && chmod 500 /data/deep && echo written");
    let writer = tools("writer", &command, "{ name: data, mountPath: /data },", "securityContext: { runAsUser: 1234 }");
    let volume = "{ name: data, persistentVolumeClaim: { claimName: scratch } },";
    w.apply(&tools_pod("writer", &[writer], volume, "")).await?;
    eventually("the pod to have written", async || {
        let seen = w.cluster.api.text(&w.path("pods/writer/log")).await?;
        Ok(if seen.trim() == "written" { Ok(()) } else { Err(seen) })
    })
    .await?;
    let volume = text(&w.cluster.api.get(&w.path("persistentvolumeclaims/scratch")).await?["spec"]["volumeName"]);
    let directory = format!("{ROOT}/{volume}_{}_scratch", w.namespace);
    let seen = w.cluster.read(&minion, &format!("cat {directory}/deep/file; stat -c %a {ROOT}")).await?;
    ensure!(seen == "secret\n700\n", "the volume's directory on {}: {seen:?}", minion.name);

    w.cluster.api.delete(&w.path("pods/writer")).await?;
    w.cluster.api.delete(&w.path("persistentvolumeclaims/scratch")).await?;
    eventually("the volume to be gone", async || {
        let there = w.cluster.api.exists(&format!("/api/v1/persistentvolumes/{volume}")).await?;
        Ok(if there { Err("it is still there".to_owned()) } else { Ok(()) })
    })
    .await?;
    let left = w.cluster.read(&minion, &format!("ls -A {ROOT}")).await?;
    ensure!(!left.contains(&volume), "{directory} is still on {}: {left}", minion.name);
    let helpers = w.cluster.api.list("/api/v1/namespaces/local-storage/pods?labelSelector=app=local-storage-helper").await?;
    let names: Vec<String> = helpers.iter().map(|p| text(&p["metadata"]["name"])).filter(|n| n.contains(&volume)).collect();
    ensure!(names.is_empty(), "helpers are left: {names:?}");
    Ok(())
}

/// A claim that one node's disk can't fulfil stays pending, and its events say why.
pub async fn what_one_disk_can_not_give_is_refused(w: &World<'_>) -> Check {
    let mut shared = claim("shared");
    shared["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    w.cluster.api.post(&w.path("persistentvolumeclaims"), &shared).await?;
    let user = tools("user", &then_wait("true"), "{ name: data, mountPath: /data },", "");
    w.apply(&tools_pod("user", &[user], "{ name: data, persistentVolumeClaim: { claimName: shared } },", "")).await?;
    eventually("an event that says why", async || {
        let events = w.cluster.api.list(&w.path("events?fieldSelector=involvedObject.name=shared")).await?;
        let said: Vec<String> = events.iter().map(|e| text(&e["message"])).collect();
        let told = said.iter().any(|m| m.contains("ReadWriteMany is not possible"));
        Ok(if told { Ok(()) } else { Err(format!("{said:?}")) })
    })
    .await
}
