//! Pods and what keeps them running.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::yaml::{EVERYWHERE, NETEXEC, TOOL_MOUNTS, TOOL_VOLUME, spread, tools, web_controller, web_deployment};
use crate::ensure;
use crate::support::api::{describe_pod, name, text};
use crate::support::checks::{Call, World};
use crate::support::{Check, eventually};

/// A replication controller and a Deployment; pods are told apart, counted and taken out by their labels.
pub async fn controllers_with_labels(w: &World<'_>) -> Check {
    w.apply(&web_controller("front", 2, "app: shop, tier: front", "")).await?;
    w.apply(&web_deployment("back", 2, "app: shop, tier: back", "")).await?;
    let all = w.ready("app=shop", 4).await?;
    let owners: BTreeSet<String> = all.iter().map(|p| text(&p["metadata"]["ownerReferences"][0]["kind"])).collect();
    ensure!(owners == BTreeSet::from(["ReplicaSet".into(), "ReplicationController".into()]), "the pods' owners are {owners:?}");
    let front = w.ready("app=shop,tier=front", 2).await?;
    ensure!(w.pods("app=shop,tier%20notin%20(front)").await?.len() == 2, "two pods are of another tier than front");

    // A pod that loses its label is nobody's: the controller makes another, and the old one runs on.
    let out = name(&front[0]);
    w.cluster
        .api
        .merge(&w.path(&format!("pods/{out}")), &serde_json::json!({ "metadata": { "labels": { "tier": "quarantine" } } }))
        .await?;
    let now = w.ready("app=shop,tier=front", 2).await?;
    ensure!(!now.iter().any(|p| name(p) == out), "{out} lost its label and still counts");
    let alone = w.pod(&out).await?;
    ensure!(alone["metadata"]["ownerReferences"].is_null(), "{out} still has an owner: {}", alone["metadata"]["ownerReferences"]);
    Ok(())
}

/// Two containers of one pod: one localhost, one volume, one host name, but each its own files.
pub async fn two_containers_share_localhost_and_a_volume(w: &World<'_>) -> Check {
    let shared = "{ name: shared, mountPath: /shared },";
    let other = tools("other", &super::yaml::then_wait("echo from-other > /shared/note; echo own > /own"), shared, "");
    let web = NETEXEC.replace("name: web,", &format!("name: web, volumeMounts: [{shared} {TOOL_MOUNTS}],")).replace('\n', " ");
    let second = web
        .replace("name: web,", "name: second,")
        .replace("[netexec]", "[netexec, --http-port=9090, --udp-port=9091]")
        .replace("port: 8080", "port: 9090");
    w.apply(&format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: pair }}, spec: {{ terminationGracePeriodSeconds: 1, \
         volumes: [{{ name: shared, emptyDir: {{}} }}, {TOOL_VOLUME}], containers: [{web}, {second}, {other}] }} }}"
    ))
    .await?;
    w.pod("pair").await?;
    let answer = w.reaches("pair", &Call::http("127.0.0.1", 9090)).await?;
    ensure!(answer == ["pair"], "the second container answers on localhost with {answer:?}");
    let note = eventually("the other container's note", async || {
        let output = w.cluster.kubectl(&["-n", &w.namespace, "exec", "pair", "-c", "web", "--", "cat", "/shared/note"]).await?;
        Ok(if output.code == Some(0) { Ok(output.stdout) } else { Err(output.stderr) })
    })
    .await?;
    ensure!(note.trim() == "from-other", "the volume's file says {note:?}");
    let own = w.cluster.kubectl(&["-n", &w.namespace, "exec", "pair", "-c", "web", "--", "cat", "/own"]).await?;
    ensure!(own.code != Some(0), "a file of one container's own root is seen in the other: {own:?}");
    Ok(())
}

/// On every node, the master included: each pod has an address of its own, of its node's range, and reaches every other at it
/// without being rewritten on the way.
pub async fn every_pod_has_its_own_address(w: &World<'_>) -> Check {
    for set in ["a", "b"] {
        w.apply(&format!(
            "{{ apiVersion: apps/v1, kind: DaemonSet, metadata: {{ name: {set} }}, spec: {{ selector: {{ matchLabels: {{ set: {set} }} }}, \
             template: {{ metadata: {{ labels: {{ set: {set}, app: address }} }}, spec: {} }} }} }}",
            super::yaml::web_spec(EVERYWHERE)
        ))
        .await?;
    }
    let pods = w.ready("app=address", 2 * w.cluster.nodes.len()).await?;
    let addresses: Vec<String> = pods.iter().map(|p| text(&p["status"]["podIP"])).collect();
    ensure!(addresses.iter().collect::<BTreeSet<_>>().len() == pods.len(), "two pods share an address: {addresses:?}");
    for pod in &pods {
        let node = w.cluster.api.get(&format!("/api/v1/nodes/{}", text(&pod["spec"]["nodeName"]))).await?;
        let range: Ipv4Net = text(&node["spec"]["podCIDR"]).parse()?;
        let address: Ipv4Addr = text(&pod["status"]["podIP"]).parse()?;
        ensure!(range.contains(&address), "{address} is not of its node's range {range}: {}", describe_pod(pod));
    }
    let names: Vec<String> = pods.iter().map(name).collect();
    let calls = names.iter().zip(&addresses).flat_map(|(from, own)| addresses.iter().map(move |to| (from, own, to)));
    futures::future::try_join_all(calls.map(async |(from, own, to)| -> Check {
        let seen = w.reaches(from, &Call::http(to, 8080).request("clientip")).await?;
        let seen = seen[0].rsplit_once(':').map_or(seen[0].as_str(), |(ip, _)| ip);
        ensure!(seen == own, "{from} ({own}) calls {to} and is seen as {seen}");
        Ok(())
    }))
    .await?;
    Ok(())
}

/// The master's taint keeps workloads away from it; pods spread over all minions.
pub async fn minions_share_the_work(w: &World<'_>) -> Check {
    let minions = w.cluster.minions().count();
    w.apply(&web_deployment("spread", u32::try_from(2 * minions)?, "app: spread", &spread("app: spread"))).await?;
    let pods = w.ready("app=spread", 2 * minions).await?;
    for node in &w.cluster.nodes {
        let here = pods.iter().filter(|p| text(&p["spec"]["nodeName"]) == node.name).count();
        ensure!(here == if node.master { 0 } else { 2 }, "{here} pods are on {}", node.name);
    }
    Ok(())
}

/// A pod that is deleted is replaced by a new one; one whose process dies is started again in its place.
pub async fn killed_pod_is_replaced(w: &World<'_>) -> Check {
    w.apply(&web_controller("keeper", 1, "app: keeper", "")).await?;
    let first = name(&w.ready("app=keeper", 1).await?[0]);
    w.cluster.api.delete(&w.path(&format!("pods/{first}"))).await?;
    let second = eventually("another pod in its place", async || {
        let pods = w.pods("app=keeper").await?;
        let other = pods.iter().find(|p| name(p) != first && crate::support::api::is_ready(p));
        Ok(other.map(name).ok_or_else(|| pods.iter().map(describe_pod).collect::<Vec<_>>().join("\n")))
    })
    .await?;
    let pod = w.pod(&second).await?;
    let node = w.cluster.nodes.iter().find(|n| n.name == text(&pod["spec"]["nodeName"])).ok_or("the pod's node is unknown")?;
    let id = text(&pod["status"]["containerStatuses"][0]["containerID"]).replace("containerd://", "");
    let crictl = format!("{}/crictl", super::nodes::BIN);
    w.cluster
        .read(node, &format!("kill -KILL $({crictl} inspect --output go-template --template '{{{{.info.pid}}}}' {id})"))
        .await?;
    let again = w
        .pod_until(&second, "its container started again", |p| {
            p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
        })
        .await?;
    let code = &again["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"];
    ensure!(code == 137, "the container's exit code is {code}: {}", describe_pod(&again));
    w.pod(&second).await?;
    Ok(())
}
