//! What is a machine's own in its files: its name, its address, and what follows from its facts.
//!
//! kup fills it in where it has asked the machine. Where a machine fetches its files, tokens stand in its place, and
//! `templates/node/own.sh` replaces them on the machine by the same rules.

use serde::Serialize;

use super::Role;
use super::files::Node;
use super::topology::API_NAME;
use crate::cluster::labels;
use crate::error::{Error, Result};

/// The label of every Node: what its machine is for.
const ROLE_LABEL: &str = "kup.dev/role";
/// The label of a Node whose machine is one of a group.
pub const GROUP_LABEL: &str = "kup.dev/group";
/// What keeps users' pods off masters.
const CONTROL_PLANE: &str = "  - { key: node-role.kubernetes.io/control-plane, effect: NoSchedule }";

/// The texts that templates put in, as `me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Own {
    /// Its Node's name.
    pub name: String,
    /// Its address inside the cluster's network.
    pub address: String,
    /// By which the cloud's controller knows it; empty where there is no cloud.
    pub provider_id: String,
    /// Its Node's labels, as the kubelet takes them.
    pub labels: String,
    /// The kubelet's list of taints, with its heading; empty for none.
    pub taints: String,
    /// The lines of the hosts file that name the masters, in an order that differs from machine to machine.
    pub hosts: String,
    /// The interface that leads to the other machines.
    pub interface: String,
    /// The file that names the real resolvers.
    pub resolver: String,
    /// kubelet's and containerd's cgroup driver.
    pub cgroup_driver: String,
    /// Whether the kubelet is to refuse control groups v1: `true` or `false`.
    pub fail_cgroup_v1: String,
    /// Whether runc leaves control groups to systemd: `true` or `false`.
    pub systemd_cgroup: String,
    /// Whether OOM scores can't be lowered: `true` or `false`.
    pub restrict_oom: String,
    /// When the kubelet starts evicting for want of disk.
    pub eviction_disk: String,
    /// What is kept back from pods for kup's own units, in millicores.
    pub kube_cpu: String,
    /// The same in MiB.
    pub kube_memory: String,
    /// What is kept back from pods for the operating system, in millicores.
    pub system_cpu: String,
    /// The same in MiB.
    pub system_memory: String,
    /// Whether limits can be raised. No text: whole lines depend on it.
    pub can_raise_limits: bool,
}

impl Own {
    /// Of a machine whose facts are known.
    ///
    /// # Errors
    /// Labels and taints that are none.
    pub fn of(node: &Node<'_>) -> Result<Own> {
        let (me, facts, reserved) = (node.me, node.facts, node.facts.reserved());
        let mut said = vec![format!("{ROLE_LABEL}={}", node.role.as_str())];
        let mut taints = Vec::new();
        // A cluster without minions runs everything on its masters.
        if node.role == Role::Master && node.cluster.minions.count > 0 {
            taints.push(CONTROL_PLANE.to_owned());
        }
        if let Some(cloud) = node.cloud {
            said.extend(cloud.group.iter().map(|group| format!("{GROUP_LABEL}={group}")));
            said.extend(cloud.labels.iter().cloned());
            for text in &cloud.taints {
                let taint = labels::taint(text).map_err(|(what, fix)| Error::usage(what).hint(fix))?;
                taints.push(format!("  - {{ key: \"{}\", value: \"{}\", effect: {} }}", taint.key, taint.value, taint.effect));
            }
        }
        if !taints.is_empty() {
            taints.insert(0, "registerWithTaints:".to_owned());
        }
        let masters = node.topology.masters_for(&me.name).into_iter();
        Ok(Own {
            name: me.name.clone(),
            address: me.address.to_string(),
            provider_id: node.cloud.map(|cloud| cloud.provider_id.clone()).unwrap_or_default(),
            labels: said.join(","),
            taints: taints.join("\n"),
            hosts: masters.map(|master| format!("{} {API_NAME}", master.address)).collect::<Vec<_>>().join("\n"),
            interface: facts.interface.clone(),
            resolver: facts.resolver.clone(),
            cgroup_driver: facts.cgroup_driver().to_owned(),
            fail_cgroup_v1: facts.cgroup2.to_string(),
            systemd_cgroup: facts.cgroup2.to_string(),
            restrict_oom: (!facts.cap_sys_resource).to_string(),
            eviction_disk: facts.eviction_disk().to_owned(),
            kube_cpu: reserved.kube_cpu.to_string(),
            kube_memory: reserved.kube_memory.to_string(),
            system_cpu: reserved.system_cpu.to_string(),
            system_memory: reserved.system_memory.to_string(),
            can_raise_limits: facts.cap_sys_resource,
        })
    }

    /// Of any machine where limits can or can't be raised: a token for each text.
    pub fn tokens(can_raise_limits: bool) -> Own {
        let token = |name: &str| format!("@KUP_{name}@");
        Own {
            name: token("NAME"),
            address: token("ADDRESS"),
            provider_id: token("PROVIDER_ID"),
            labels: token("LABELS"),
            taints: token("TAINTS"),
            hosts: token("HOSTS"),
            interface: token("INTERFACE"),
            resolver: token("RESOLVER"),
            cgroup_driver: token("CGROUP_DRIVER"),
            fail_cgroup_v1: token("FAIL_CGROUP_V1"),
            systemd_cgroup: token("SYSTEMD_CGROUP"),
            restrict_oom: token("RESTRICT_OOM"),
            eviction_disk: token("EVICTION_DISK"),
            kube_cpu: token("KUBE_CPU"),
            kube_memory: token("KUBE_MEMORY"),
            system_cpu: token("SYSTEM_CPU"),
            system_memory: token("SYSTEM_MEMORY"),
            can_raise_limits,
        }
    }
}
