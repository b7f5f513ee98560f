//! kubelet and kube-proxy as they run: their own account of their configuration, and what the kernel made of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::everywhere;
use crate::ensure;
use crate::local::yaml::{then_wait, tools, tools_pod};
use crate::support::Check;
use crate::support::api::text;
use crate::support::checks::World;

/// Every kubelet's configuration, asked of itself.
pub async fn kubelets_run_as_configured(w: &World<'_>) -> Check {
    for node in &w.cluster.nodes {
        let config = w.cluster.api.get(&format!("/api/v1/nodes/{}/proxy/configz", node.name)).await?["kubeletconfig"].clone();
        let is = |pointer: &str, wanted: Value| -> Check {
            let seen = config.pointer(pointer).cloned().unwrap_or_default();
            ensure!(seen == wanted, "{}: {pointer} is {seen}, expected {wanted}", node.name);
            Ok(())
        };
        is("/authentication/anonymous/enabled", json!(false))?;
        is("/authentication/webhook/enabled", json!(true))?;
        is("/authorization/mode", json!("Webhook"))?;
        ensure!(config["readOnlyPort"].as_u64().unwrap_or(0) == 0, "{}: there is a read-only port", node.name);
        is("/rotateCertificates", json!(true))?;
        is("/seccompDefault", json!(true))?;
        is("/maxPods", json!(100))?;
        is("/clusterDNS", json!(["10.0.0.10"]))?;
        is("/containerLogMaxSize", json!("10Mi"))?;
        is("/containerLogMaxFiles", json!(5))?;
        is("/shutdownGracePeriod", json!("30s"))?;
        is("/shutdownGracePeriodCriticalPods", json!("10s"))?;
        is("/enforceNodeAllocatable", json!(["pods"]))?;
        for signal in ["memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"] {
            ensure!(
                config["evictionHard"][signal].is_string(),
                "{}: no eviction at {signal}: {}",
                node.name,
                config["evictionHard"]
            );
        }
        // A local machine knows that it is a container: its disk is its user's, and only a nearly full one is a reason to evict.
        ensure!(config["evictionHard"]["nodefs.available"] == "1Gi", "{}: {}", node.name, config["evictionHard"]);
        ensure!(text(&config["tlsMinVersion"]) == "VersionTLS12", "{}: TLS from {}", node.name, config["tlsMinVersion"]);

        // The resolver's file is the real one: a loopback address would send CoreDNS's questions to itself.
        let resolver = w.cluster.read(node, &format!("cat {}", text(&config["resolvConf"]))).await?;
        ensure!(
            resolver.lines().any(|l| l.starts_with("nameserver ")),
            "{}: the resolver's file names no server: {resolver}",
            node.name
        );
        ensure!(!resolver.contains("nameserver 127."), "{}: the resolver's file names the loopback: {resolver}", node.name);

        let tree = w.cluster.read(node, "stat -fc %T /sys/fs/cgroup; systemd-inhibit --list --no-legend --no-pager").await?;
        let driver = if tree.starts_with("cgroup2fs") { "systemd" } else { "cgroupfs" };
        is("/cgroupDriver", json!(driver))?;
        ensure!(tree.contains("kubelet"), "{}: nothing delays a shutdown for the pods' sake:\n{tree}", node.name);
    }
    Ok(())
}

/// What is reserved is not given to pods: the Node says so, and the kernel holds it.
pub async fn reservations_hold(w: &World<'_>) -> Check {
    let script =
        "cat /sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/kubepods*/memory.max";
    for (node, limit) in everywhere(w, script).await? {
        let config = w.cluster.api.get(&format!("/api/v1/nodes/{}/proxy/configz", node.name)).await?["kubeletconfig"].clone();
        let status = w.cluster.api.get(&format!("/api/v1/nodes/{}", node.name)).await?["status"].clone();
        let kib = |v: &Value| quantity_kib(&text(v)).ok_or_else(|| format!("{v} is no amount of memory"));
        let reserved = kib(&config["kubeReserved"]["memory"])? + kib(&config["systemReserved"]["memory"])?;
        let (capacity, allocatable) = (kib(&status["capacity"]["memory"])?, kib(&status["allocatable"]["memory"])?);
        let eviction = kib(&config["evictionHard"]["memory.available"])?;
        ensure!(reserved >= 200 * 1024, "{}: only {reserved} KiB are reserved", node.name);
        ensure!(
            capacity - allocatable == reserved + eviction,
            "{}: {capacity} - {allocatable} KiB is not {reserved} + {eviction}",
            node.name
        );
        let limit: u64 = limit.trim().parse()?;
        ensure!(
            (limit / 1024).abs_diff(capacity - reserved) < 8,
            "{}: pods may use {limit} bytes, {capacity} KiB less {reserved} expected",
            node.name
        );
        ensure!(text(&status["allocatable"]["pods"]) == "100", "{}: {} pods", node.name, status["allocatable"]["pods"]);
        ensure!(
            status["allocatable"]["cpu"] != status["capacity"]["cpu"],
            "{}: no CPU is reserved: {}",
            node.name,
            status["allocatable"]
        );
    }
    Ok(())
}

/// An amount of memory as the API writes it, in KiB.
fn quantity_kib(text: &str) -> Option<u64> {
    let number = |suffix: &str, factor: u64| text.strip_suffix(suffix)?.parse::<u64>().ok().map(|n| n * factor);
    number("Ki", 1).or_else(|| number("Mi", 1024)).or_else(|| number("Gi", 1024 * 1024))
}

/// A pod that asks for nothing gets the runtime's seccomp profile, a limit of processes, and no swap.
pub async fn pods_are_confined_by_default(w: &World<'_>) -> Check {
    w.apply(&tools_pod("plain", &[tools("plain", &then_wait(":"), "", "")], "", "")).await?;
    let pod = w.pod("plain").await?;
    let status = w
        .cluster
        .kubectl(&["-n", &w.namespace, "exec", "plain", "--", "grep", "-E", "^(Seccomp|CapBnd):", "/proc/1/status"])
        .await?;
    let status = status.ok("reading /proc/1/status in the pod")?;
    ensure!(status.contains("Seccomp:\t2"), "the pod has no seccomp filter: {status}");
    // CAP_SYS_ADMIN is bit 21.
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).ok_or("no CapBnd")?;
    ensure!(u64::from_str_radix(bounding.trim(), 16)? >> 21 & 1 == 0, "a plain pod has CAP_SYS_ADMIN: {status}");
    let node = w.cluster.nodes.iter().find(|n| n.name == text(&pod["spec"]["nodeName"])).ok_or("the pod's node is unknown")?;
    let uid = text(&pod["metadata"]["uid"]);
    // cgroupfs writes the uid as it is, systemd with underscores.
    let script = format!(
        "find /sys/fs/cgroup \\( -path '*pod{uid}/pids.max' -o -path '*pod{}.slice/pids.max' \\) -exec cat {{}} +",
        uid.replace('-', "_")
    );
    let limit = w.cluster.read(node, &script).await?;
    ensure!(limit.lines().any(|l| l == "4096"), "the pod's limit of processes is {limit:?}");
    Ok(())
}

/// Nobody without a login gets anything from a kubelet, and its certificate is the cluster's.
pub async fn kubelets_refuse_strangers(w: &World<'_>) -> Check {
    let login = w.cluster.login()?;
    let trusting = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(login.ca_pem.as_bytes())?])
        .timeout(Duration::from_secs(10))
        .build()?;
    for node in &w.cluster.nodes {
        for path in ["pods", "metrics", "configz", "runningpods/", "logs/", "exec/x/y/z", "debug/pprof/"] {
            let status = trusting.get(format!("https://{}:10250/{path}", node.address)).send().await?.status();
            ensure!(status == 401, "{}: /{path} answers a stranger with {status}", node.name);
        }
        for port in [10255, 10248, 10249, 10256] {
            let answer = trusting.get(format!("http://{}:{port}/", node.address)).send().await;
            ensure!(answer.as_ref().is_err_and(reqwest::Error::is_connect), "{}: port {port} answers: {answer:?}", node.name);
        }
    }
    Ok(())
}

/// kube-proxy's own account of itself.
pub async fn kube_proxy_runs_as_configured(w: &World<'_>) -> Check {
    let script =
        "curl -sS --max-time 10 http://127.0.0.1:10249/configz; echo; curl -sS --max-time 10 http://127.0.0.1:10249/proxyMode";
    for (node, seen) in everywhere(w, script).await? {
        let (config, mode) = seen.split_once('\n').unwrap_or_default();
        let config = serde_json::from_str::<Value>(config)?["kubeproxy.config.k8s.io"].clone();
        ensure!(mode.trim() == "nftables" && config["mode"] == "nftables", "{}: the mode is {mode:?}", node.name);
        ensure!(config["clusterCIDR"] == "10.244.0.0/16", "{}: clusterCIDR is {}", node.name, config["clusterCIDR"]);
        ensure!(config["enableProfiling"] == false, "{}: profiling is on", node.name);
    }
    Ok(())
}
