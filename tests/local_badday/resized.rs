//! The config changes: more or fewer machines, other settings.

use crate::support::host::{engine, invocations};
use crate::support::{Check, eventually};
use crate::{Day, ensure};

const MAX_PODS: &str = "jsonpath={.items[*].status.capacity.pods}";

/// A changed setting is in every machine's file and in what the API says; only what reads it is started again. What somebody changed on
/// a machine by hand is as kup made it again, and in use.
pub async fn changed_settings_reach_every_machine(day: &Day) -> Check {
    let others = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kube-proxy", "flanneld"];
    let before = invocations(&day.master, &others).await;
    day.up(&["--set", "kubernetes.maxPods=77"]).await?.ok("kup up with another setting")?;
    for machine in [&day.master, &day.minion] {
        let file = day.on(machine, "grep maxPods /etc/kup/kubelet.yaml").await?;
        ensure!(file.trim() == "maxPods: 77", "{machine}: {file}");
    }
    eventually("every Node's capacity to be 77 pods", async || {
        let seen = day.kubectl(&["get", "nodes", "-o", MAX_PODS]).await?;
        Ok(if seen == "77 77" { Ok(()) } else { Err(seen) })
    })
    .await?;
    ensure!(invocations(&day.master, &others).await == before, "more than the kubelet was started again");

    let policy = "/etc/kup/audit-policy.yaml";
    let good = day.on(&day.master, &format!("sha256sum < {policy}; echo 'rules: []' > {policy}")).await?;
    let server = invocations(&day.master, &["kube-apiserver"]).await;
    day.ready().await?;
    ensure!(day.on(&day.master, &format!("sha256sum < {policy}")).await? == good, "the policy was not put back");
    ensure!(invocations(&day.master, &["kube-apiserver"]).await != server, "the API server still uses the other policy");
    let etcd = invocations(&day.master, &["etcd"]).await;
    ensure!(before.contains(etcd.trim()), "etcd was started again for it");
    Ok(())
}

/// A Node that somebody deleted comes back when its machine is told to join again. Its pods' range is another one then: pods run in that.
pub async fn a_deleted_node_comes_back_with_another_range(day: &Day) -> Check {
    let range = ["get", "node", &day.minion, "-o", "jsonpath={.spec.podCIDR}"];
    let before = day.kubectl(&range).await?;
    inside(day, "first", &before).await?;
    day.on(&day.minion, "systemctl stop kubelet").await?;
    day.kubectl(&["delete", "node", &day.minion]).await?;
    day.ready().await?;
    let now = day.kubectl(&range).await?;
    ensure!(now != before, "the range is still {now}: this shows nothing");
    inside(day, "second", &now).await?;
    let bridge = day.on(&day.minion, "ip -4 -o addr show dev cni0").await?;
    ensure!(bridge.contains(&format!("inet {}1/24", now.trim_end_matches("0/24"))), "the bridge is not in {now}: {bridge}");
    // The old one's address is of no use any more: it has another, or is gone with its Node.
    eventually("no pod to be outside of the range", async || {
        let field = format!("spec.nodeName={}", day.minion);
        let seen =
            day.kubectl(&["get", "pods", "-A", "--field-selector", &field, "-o", "jsonpath={.items[*].status.podIP}"]).await?;
        let stray = seen.split_whitespace().any(|ip| !ip.starts_with(now.trim_end_matches("0/24")));
        Ok(if stray { Err(format!("{seen}, not all in {now}")) } else { Ok(()) })
    })
    .await
}

/// A pod on the minion gets an address in this range.
async fn inside(day: &Day, name: &str, range: &str) -> Check {
    let image = day.on(&day.minion, "/opt/kup/bundle/bin/ctr -n k8s.io images ls -q | grep /pause: | head -n 1").await?;
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  nodeName: {}\n  terminationGracePeriodSeconds: 0\n  containers: [{{ name: c, image: {} }}]\n",
        day.minion,
        image.trim()
    );
    let file = day.home.path().join(format!("{name}.yaml"));
    std::fs::write(&file, yaml)?;
    day.kubectl(&["apply", "-f", &file.to_string_lossy()]).await?;
    eventually(&format!("the pod {name} to have an address in {range}"), async || {
        let seen = day.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).await?;
        Ok(if !seen.is_empty() && seen.starts_with(range.trim_end_matches("0/24")) { Ok(()) } else { Err(format!("{seen:?}")) })
    })
    .await
}

/// One more minion joins; when it is to go again, its pods move first, and then nothing is left of it.
pub async fn minions_come_and_go(day: &Day) -> Check {
    day.up(&["--minions", "2"]).await?.ok("kup up with one more")?;
    day.nodes_ready(3).await?;
    let second = format!("{}-minion-2", day.name);
    let image = day.on(&day.minion, "/opt/kup/bundle/bin/ctr -n k8s.io images ls -q | grep /pause: | head -n 1").await?;
    let there = format!(
        "affinity: {{ nodeAffinity: {{ preferredDuringSchedulingIgnoredDuringExecution: [{{ weight: 100, preference: {{ matchExpressions: [{{ key: kubernetes.io/hostname, operator: In, values: [{second}] }}] }} }}] }} }}"
    );
    let yaml = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: mover }}\nspec:\n  selector: {{ matchLabels: {{ app: mover }} }}\n  template:\n    metadata: {{ labels: {{ app: mover }} }}\n    spec:\n      {there}\n      containers: [{{ name: c, image: {} }}]\n",
        image.trim()
    );
    let file = day.home.path().join("mover.yaml");
    std::fs::write(&file, yaml)?;
    day.kubectl(&["apply", "-f", &file.to_string_lossy()]).await?;
    let place = "jsonpath={.items[?(@.status.phase==\"Running\")].spec.nodeName}";
    let runs_on = async |machine: &str| {
        eventually(&format!("the pod to run on {machine}"), async || {
            let seen = day.kubectl(&["get", "pods", "-l", "app=mover", "-o", place]).await?;
            Ok(if seen == machine { Ok(()) } else { Err(format!("it is on {seen:?}")) })
        })
        .await
    };
    runs_on(&second).await?;

    day.up(&["--minions", "1"]).await?.ok("kup up with one less")?;
    runs_on(&day.minion).await?;
    day.nodes_ready(2).await?;
    let left = engine(&["ps", "-a", "--format", "{{.Names}}"]).await.stdout + &engine(&["volume", "ls", "-q"]).await.stdout;
    ensure!(!left.contains(&second), "something is left of {second}: {left}");
    Ok(())
}
