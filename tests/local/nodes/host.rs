//! The machine below Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use super::everywhere;
use crate::ensure;
use crate::local::yaml::{spread, web_pod};
use crate::support::Check;
use crate::support::checks::World;

/// The kernel's settings and modules that a node needs.
pub async fn kernel_is_set_for_pods(w: &World<'_>) -> Check {
    let script = "cd /proc/sys; grep -H . net/ipv4/ip_forward vm/overcommit_memory kernel/panic kernel/panic_on_oops; \
        for f in net/bridge/bridge-nf-call-iptables net/bridge/bridge-nf-call-ip6tables; do [ ! -e $f ] || grep -H . $f; done; \
        grep -w overlay /proc/filesystems; findmnt -no PROPAGATION /; nft list tables";
    for (node, seen) in everywhere(w, script).await? {
        for wanted in ["net/ipv4/ip_forward:1", "vm/overcommit_memory:1", "kernel/panic:10", "kernel/panic_on_oops:1", "shared"] {
            ensure!(seen.lines().any(|l| l == wanted), "{}: no `{wanted}` in\n{seen}", node.name);
        }
        ensure!(
            !seen.contains("-iptables:0") && !seen.contains("-ip6tables:0"),
            "{}: bridged packets pass by the rules:\n{seen}",
            node.name
        );
        ensure!(seen.contains("overlay"), "{}: the kernel has no overlay file system:\n{seen}", node.name);
        ensure!(seen.contains("table ip kube-proxy"), "{}: kube-proxy set no nftables:\n{seen}", node.name);
    }
    Ok(())
}

/// The journal may not fill the disk, and networkd leaves flannel's routes alone.
pub async fn journal_and_network_daemon_are_kept_in_check(w: &World<'_>) -> Check {
    let script = "journalctl -b -q -u systemd-journald -o cat | grep 'System Journal' | tail -1; systemd-analyze cat-config systemd/networkd.conf; \
        ls /run/kup/restart | sed 's/^/due:/'";
    for (node, seen) in everywhere(w, script).await? {
        // "System Journal (/var/log/journal/…) is 8.0M, max 200.0M, 192.0M free."
        let cap = seen
            .lines()
            .next()
            .and_then(|l| l.split("max ").nth(1))
            .and_then(|l| l.split("M,").next())
            .and_then(|m| m.parse::<f64>().ok());
        ensure!(cap.is_some_and(|cap| cap <= 200.0), "{}: the journal's cap is {cap:?} MB: {seen}", node.name);
        for wanted in ["ManageForeignRoutes=no", "ManageForeignRoutingPolicyRules=no"] {
            ensure!(seen.lines().any(|l| l == wanted), "{}: networkd's configuration lacks {wanted}:\n{seen}", node.name);
        }
        ensure!(!seen.contains("due:"), "{}: a unit whose files changed was not started anew:\n{seen}", node.name);
    }
    Ok(())
}

/// Every node knows all masters by one name, and its units come back by themselves, also after a boot.
pub async fn units_run_and_come_back(w: &World<'_>) -> Check {
    let masters: BTreeSet<String> = w.cluster.masters().map(|m| m.address.to_string()).collect();
    let every = ["containerd", "kubelet", "kube-proxy", "flanneld"];
    let master = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let script = "grep -h server: /etc/kup/node.kubeconfig | sed 's,.*https://,name:,; s/:6443.*//'; \
        for p in kubelet kube-proxy flanneld; do tr '\\0' '\\n' < /proc/$(systemctl show -p MainPID --value $p)/environ | grep ^HTTP2_ | sed \"s/^/$p /\"; done; \
        getent ahostsv4 api.kup.internal | sed 's/ .*//; s/^/api:/'; \
        for u in containerd kubelet kube-proxy flanneld etcd kube-apiserver kube-controller-manager kube-scheduler; do \
        systemctl show $u -p ActiveState -p UnitFileState -p Restart -p NRestarts -p SubState --value | paste -sd ' ' | sed \"s/^/$u: /\"; done";
    for (node, seen) in everywhere(w, script).await? {
        ensure!(seen.lines().any(|l| l == "name:api.kup.internal"), "{} does not reach the API by its name:\n{seen}", node.name);
        let found: BTreeSet<String> = seen.lines().filter_map(|l| l.strip_prefix("api:")).map(str::to_owned).collect();
        ensure!(found == masters, "{}: the API's name is {found:?}, the masters are {masters:?}", node.name);
        for client in ["kubelet", "kube-proxy", "flanneld"] {
            for (limit, most) in [("READ_IDLE", 5), ("PING", 3)] {
                let prefix = format!("{client} HTTP2_{limit}_TIMEOUT_SECONDS=");
                let seconds = seen.lines().find_map(|l| l.strip_prefix(&prefix)?.parse::<u32>().ok());
                ensure!(
                    seconds.is_some_and(|s| s <= most),
                    "{}: {client} notices a silent master late: {limit} {seconds:?} in\n{seen}",
                    node.name
                );
            }
        }
        for unit in every.iter().chain(if node.master { &master[..] } else { &[] }) {
            let line = seen.lines().find_map(|l| l.strip_prefix(&format!("{unit}: "))).unwrap_or_default();
            let words: BTreeSet<&str> = line.split_whitespace().collect();
            ensure!(words.is_superset(&["active", "running", "enabled", "always"].into()), "{}: {unit} is {line:?}", node.name);
            // It started well at the first try.
            ensure!(words.contains("0"), "{}: {unit} was started again and again: {line:?}", node.name);
        }
        if !node.master {
            ensure!(
                master
                    .iter()
                    .all(|unit| seen.contains(&format!("{unit}: no 0 inactive")) || !seen.contains(&format!("{unit}: always"))),
                "{} runs a master's unit:\n{seen}",
                node.name
            );
        }
    }
    Ok(())
}

/// Each machine's control groups are its own: no kubelet sees another's pods.
pub async fn machines_see_only_their_own_pods(w: &World<'_>) -> Check {
    for i in 0..4 {
        w.apply(&web_pod(&format!("seen-{i}"), "app: seen", &spread("app: seen"))).await?;
    }
    w.ready("app=seen", 4).await?;
    // In cgroupfs' words or systemd's, in every hierarchy: the pod's uid.
    let script = "find /sys/fs/cgroup -type d | sed -nE 's/.*pod([0-9a-f]{8}[-_][0-9a-f_-]{27}).*/\\1/p' | tr _ - | sort -u";
    let mut owner: BTreeMap<String, &str> = BTreeMap::new();
    for (node, seen) in everywhere(w, script).await? {
        ensure!(node.master || !seen.trim().is_empty(), "no pod was found on {}", node.name);
        for uid in seen.lines() {
            if let Some(other) = owner.insert(uid.to_owned(), &node.name) {
                return Err(format!("{other} and {} both have control groups of the pod {uid}", node.name).into());
            }
        }
    }
    Ok(())
}

/// What listens on more than the loopback is what others need: SSH, the API, etcd's members, kubelets.
pub async fn only_what_others_need_listens(w: &World<'_>) -> Check {
    // Pods in the machine's own network are the tests', not the cluster's.
    for (node, seen) in everywhere(w, "ss -Hltnp | grep -v agnhost").await? {
        let mut ports = BTreeSet::new();
        for line in seen.lines() {
            let local = line.split_whitespace().nth(3).unwrap_or_default();
            if let Some((address, port)) = local.rsplit_once(':')
                && !address.starts_with("127.")
                && address != "[::1]"
            {
                ports.insert(port.parse::<u16>().map_err(|e| format!("{line}: {e}"))?);
            }
        }
        let wanted: BTreeSet<u16> = if node.master { [22, 2379, 2380, 6443, 10250].into() } else { [22, 10250].into() };
        ensure!(ports == wanted, "{} listens on {ports:?}, expected {wanted:?}:\n{seen}", node.name);
    }
    Ok(())
}
