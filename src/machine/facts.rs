//! What is true of a machine, and what follows for the files that kup places on it. Pure, but for the one command that asks.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use super::ssh::Ssh;
use crate::cluster::problem::quoted;
use crate::error::{Error, Result};
use crate::templates;

/// Facts found on a machine by `templates/node/inspect.sh`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Kernel release.
    pub kernel: String,
    /// As `uname -m` says it.
    pub arch: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Whether cgroups are version 2 (else 1, or both: then 1 counts).
    pub cgroup2: bool,
    /// Whether CAP_SYS_RESOURCE is in the bounding set: only then can limits be raised and OOM scores lowered.
    pub cap_sys_resource: bool,
    /// The file that names the real resolvers.
    pub resolver: String,
    /// Whether the machine is a container.
    pub container: bool,
    /// The interface that leads to the other machines.
    pub interface: String,
    /// Whether bridged packets can be made to pass the packet filter.
    pub bridge_nf: bool,
    /// What stands of an etcd.
    pub etcd: EtcdData,
    /// The snapshot whose restore into etcd was begun and has not ended.
    pub restoring: Option<String>,
}

/// What stands of an etcd on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EtcdData {
    /// Nothing.
    None,
    /// A data directory whose etcd has never become ready: nothing can have been written to it.
    Begun,
    /// A data directory whose etcd has been ready: the cluster's data, or a copy of it.
    Formed,
}

/// What a node keeps back from pods, in millicores and MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reserved {
    /// For kubelet, containerd, kube-proxy and flannel.
    pub kube_cpu: u64,
    /// The same, memory.
    pub kube_memory: u64,
    /// For the operating system.
    pub system_cpu: u64,
    /// The same, memory.
    pub system_memory: u64,
}

impl Facts {
    /// Asks the machine.
    pub async fn of(ssh: &Ssh) -> Result<Facts> {
        let output = ssh.run(templates::text("node/inspect.sh")?, "", Duration::from_secs(20)).await?;
        Facts::parse(&output.text()).map_err(|e| e.within(format!("{} gave unusable facts", ssh.machine().name)))
    }

    /// Reads the key=value lines.
    ///
    /// # Errors
    /// A fact that is missing, or that no machine can have.
    pub fn parse(text: &str) -> Result<Facts> {
        let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |key: &str| values.get(key).copied().ok_or_else(|| Error::new(format!("the fact `{key}` is missing")));
        let number = |key: &str| -> Result<u64> {
            let value = get(key)?;
            value.parse().map_err(|_| Error::new(format!("the fact `{key}` is {}, not a number", quoted(value))))
        };
        let facts = Facts {
            kernel: get("kernel")?.into(),
            arch: get("arch")?.into(),
            cpus: u32::try_from(number("cpus")?).unwrap_or(u32::MAX),
            memory_mib: number("memory_kib")? / 1024,
            cgroup2: get("cgroup")? == "2",
            cap_sys_resource: get("cap_sys_resource")? == "yes",
            resolver: get("resolver")?.into(),
            container: get("container")? == "yes",
            interface: get("interface")?.into(),
            bridge_nf: get("bridge_nf")? == "yes",
            etcd: match get("etcd")? {
                "formed" => EtcdData::Formed,
                "begun" => EtcdData::Begun,
                _ => EtcdData::None,
            },
            restoring: values.get("restoring").filter(|name| !name.is_empty()).map(|name| (*name).to_owned()),
        };
        // They become words of units and settings: nothing may be in them that those would read.
        let words =
            [("kernel", &facts.kernel), ("arch", &facts.arch), ("resolver", &facts.resolver), ("interface", &facts.interface)];
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/,=@+~-".contains(&b));
        let odd = words.into_iter().find(|(_, value)| !plain(value));
        // The command's own words, files of the user's among them, which people are told to type again: one command, and no other.
        let another = |text: &&String| text.chars().any(|c| c.is_control() || ";|&$`<>\\\"".contains(c));
        let odd = odd.or_else(|| facts.restoring.as_ref().filter(another).map(|words| ("restoring", words)));
        if let Some((key, value)) = odd {
            return Err(Error::new(format!("the fact `{key}` is {}, which can't be used", quoted(value))));
        }
        // It stands in the kubelet's settings, where YAML reads more in some signs at a word's ends.
        if !facts.resolver.starts_with('/') || facts.resolver.ends_with(':') {
            return Err(Error::new(format!("the fact `resolver` is {}, which is no file", quoted(&facts.resolver))));
        }
        if facts.interface.is_empty() {
            return Err(Error::new("the machine has no route to other machines").hint("look at `ip route` on it"));
        }
        Ok(facts)
    }

    /// kubelet's and containerd's cgroup driver: systemd's needs version 2 here, since on version 1 inside a container systemd
    /// owns no writable hierarchy but its own.
    pub fn cgroup_driver(&self) -> &'static str {
        if self.cgroup2 { "systemd" } else { "cgroupfs" }
    }

    /// What to keep back from pods: a step function of the machine's size in the manner of the large providers (GKE's published
    /// table: 25% of the first 4 GiB of memory, 20% of the next 4, 10% of the next 8, 6% beyond; 6% of the first core, 1% of the
    /// second, 0.5% of the rest). On a container it is a token, since all machines share one host's memory.
    pub fn reserved(&self) -> Reserved {
        if self.container {
            return Reserved { kube_cpu: 50, kube_memory: 100, system_cpu: 50, system_memory: 100 };
        }
        let gib = 1024;
        let slice = |from: u64, to: u64, percent: u64| {
            self.memory_mib.clamp(from * gib, to * gib).saturating_sub(from * gib) * percent / 100
        };
        let memory = slice(0, 4, 25) + slice(4, 8, 20) + slice(8, 16, 10) + self.memory_mib.saturating_sub(16 * gib) * 6 / 100;
        // kubelet's own share is most of it; the system gets a tenth, at least 100 MiB.
        let system_memory = (memory / 10).max(100);
        let cpu = 60 + if self.cpus > 1 { 10 } else { 0 } + u64::from(self.cpus.saturating_sub(2)) * 5;
        Reserved { kube_cpu: cpu, kube_memory: memory.saturating_sub(system_memory).max(100), system_cpu: 50, system_memory }
    }

    /// When kubelet starts evicting for want of disk. A container shares its disk with everything else of its user's: only a
    /// nearly full one is a reason there. Elsewhere kubelet's own default.
    pub fn eviction_disk(&self) -> &'static str {
        if self.container { "1Gi" } else { "10%" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "kernel=6.1\narch=x86_64\ncpus=2\nmemory_kib=24000000\ncgroup=1\ncap_sys_resource=no\nresolver=/etc/resolv.conf\ncontainer=yes\ninterface=eth0\nbridge_nf=yes\netcd=none\n";

    #[test]
    fn facts_decide_flags() {
        let here = Facts::parse(HERE).unwrap();
        assert_eq!((here.cgroup_driver(), here.eviction_disk(), here.reserved().kube_memory), ("cgroupfs", "1Gi", 100));
        let cloud = Facts { container: false, cgroup2: true, cap_sys_resource: true, memory_mib: 4096, ..here };
        assert_eq!((cloud.cgroup_driver(), cloud.eviction_disk()), ("systemd", "10%"));
        assert_eq!(cloud.reserved(), Reserved { kube_cpu: 70, kube_memory: 922, system_cpu: 50, system_memory: 102 });
    }

    #[test]
    fn missing_and_malformed_facts_are_named() {
        assert_eq!(Facts::parse("kernel=6.1").unwrap_err().what, "the fact `arch` is missing");
        assert_eq!(Facts::parse(&HERE.replace("cpus=2", "cpus=two")).unwrap_err().what, "the fact `cpus` is `two`, not a number");
        assert_eq!(Facts::parse(&HERE.replace("eth0", "")).unwrap_err().what, "the machine has no route to other machines");
        for odd in ["eth0 --x", "eth%i", "$(id)", "eth0'", "é"] {
            let error = Facts::parse(&HERE.replace("eth0", odd)).unwrap_err();
            assert!(error.what.contains("`interface`") && error.what.contains("can't be used"), "{error}");
        }
        for odd in ["@a", "resolv.conf", "/etc/a:", ""] {
            let error = Facts::parse(&HERE.replace("/etc/resolv.conf", odd)).unwrap_err();
            assert!(error.what.contains("`resolver`"), "{error}");
        }
        assert!(Facts::parse(&format!("{HERE}restoring=etcd-20261126T131500Z-7-hand; id\n")).is_err());
        let again = "--from /home/me/etcd (1).db.gz --from-cluster another";
        assert_eq!(Facts::parse(&format!("{HERE}restoring={again}\n")).unwrap().restoring.as_deref(), Some(again));
        assert!(Facts::parse(&HERE.replace("eth0", "eth0.1@if12:3-a_b")).is_ok());
    }
}
