//! Limits that hold.

use serde_json::Value;

use super::yaml::{then_wait, tools, tools_pod};
use crate::ensure;
use crate::support::api::describe_pod;
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// A container that takes more memory than its limit is killed for it; its neighbour is not.
pub async fn too_much_memory_is_killed(w: &World<'_>) -> Check {
    w.apply(
        "{ apiVersion: v1, kind: Pod, metadata: { name: hungry }, spec: { restartPolicy: Never, terminationGracePeriodSeconds: 1, containers: [\
         { name: hungry, image: AGNHOST, args: [stress, --mem-total, 300Mi, --mem-alloc-size, 20Mi, --mem-alloc-sleep, 20ms], resources: { limits: { memory: 64Mi } } },\
         { name: modest, image: AGNHOST, args: [pause], resources: { limits: { memory: 64Mi } } }] } }",
    )
    .await?;
    let state = |pod: &Value, name: &str| {
        let all = pod["status"]["containerStatuses"].as_array();
        all.into_iter().flatten().find(|c| c["name"] == name).map_or(Value::Null, |c| c["state"].clone())
    };
    let pod = w.pod_until("hungry", "its container ended", |p| state(p, "hungry")["terminated"].is_object()).await?;
    let ended = &state(&pod, "hungry")["terminated"];
    ensure!(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, "it ended with {ended}");
    w.pod_until("hungry", "its neighbour runs", |p| state(p, "modest")["running"].is_object()).await?;
    Ok(())
}

/// A container that wants a whole processor gets the tenth that it may have: the kernel counts how often it was stopped.
pub async fn too_much_cpu_is_throttled(w: &World<'_>) -> Check {
    let busy = "{ name: busy, image: AGNHOST, args: [stress, --cpus, '1', --mem-total, '1'], resources: { limits: { cpu: 100m, memory: 64Mi } } }";
    let limited =
        tools("limited", &then_wait("while :; do :; done & :"), "", "resources: { limits: { cpu: 100m, memory: 64Mi } },");
    w.apply(&tools_pod("busy", &[busy.into(), limited], "", "")).await?;
    w.pod_until("busy", "running", |p| p["status"]["phase"] == "Running").await?;
    // cgroup v2, or v1: throttled periods, and the quota over the period.
    let script = "cd /sys/fs/cgroup; if [ -e cpu.max ]; then cat cpu.stat; echo quota $(cat cpu.max); else cd cpu; cat cpu.stat; echo quota $(cat cpu.cfs_quota_us cpu.cfs_period_us); fi";
    let read = async || w.cluster.kubectl(&["-n", &w.namespace, "exec", "busy", "-c", "limited", "--", "sh", "-c", script]).await;
    let number = |text: &str, key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap_or(0);
    // How large their share of all periods is says how busy the machine was, not whether the limit holds: it is not asked.
    let seen = eventually("throttled periods", async || {
        let output = read().await?;
        Ok(if number(&output.stdout, "nr_throttled ") > 20 { Ok(output.stdout) } else { Err(format!("{output:?}")) })
    })
    .await?;
    ensure!(seen.contains("quota 10000 100000"), "the quota of 100m is not a tenth:\n{seen}");
    let pod = w.cluster.api.get(&w.path("pods/busy")).await?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", describe_pod(&pod));
    Ok(())
}
