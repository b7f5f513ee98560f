//! Facts found on the host → how a machine's container is started, and what the host lacks for it. Pure: nothing here looks anything up.

use serde::Serialize;

use crate::error::Error;

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// podman.
    Podman,
    /// Docker.
    Docker,
}

impl EngineKind {
    /// The name of its program.
    pub const fn as_str(self) -> &'static str {
        match self {
            EngineKind::Podman => "podman",
            EngineKind::Docker => "docker",
        }
    }
}

/// How the host mounts its control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroups {
    /// One tree per controller.
    V1,
    /// Controllers as in v1, with an empty v2 tree beside them.
    Hybrid,
    /// One tree.
    V2,
}

/// Whether the running kernel can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// Built in.
    BuiltIn,
    /// As a module that can be loaded.
    Module,
    /// Not at all.
    Missing,
    /// The kernel's configuration can't be read.
    Unknown,
}

/// What the kernel must be able to do: the module's name, its configuration option, and who needs it.
pub const KERNEL_NEEDS: [(&str, &str, &str); 9] = [
    ("overlay", "CONFIG_OVERLAY_FS", "containers' root file systems"),
    ("veth", "CONFIG_VETH", "the network"),
    ("bridge", "CONFIG_BRIDGE", "the network"),
    ("br_netfilter", "CONFIG_BRIDGE_NETFILTER", "Services between pods of one node"),
    ("nf_tables", "CONFIG_NF_TABLES", "kube-proxy"),
    ("nf_conntrack", "CONFIG_NF_CONNTRACK", "kube-proxy"),
    ("nf_nat", "CONFIG_NF_NAT", "kube-proxy"),
    ("nft_ct", "CONFIG_NFT_CT", "kube-proxy"),
    ("nft_masq", "CONFIG_NFT_MASQ", "kube-proxy"),
];

/// What was found on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The engine that will run the machines.
    pub engine: EngineKind,
    /// Its version.
    pub engine_version: String,
    /// OCI runtimes that the engine can use, by name.
    pub runtimes: Vec<String>,
    /// The one it uses if not told otherwise.
    pub default_runtime: String,
    /// The engine runs without the host's root rights.
    pub rootless: bool,
    /// Control groups.
    pub cgroups: Cgroups,
    /// CAP_SYS_RESOURCE is in the bounding set: hard limits may be raised.
    pub sys_resource: bool,
    /// The kernel's version, major and minor.
    pub kernel: (u32, u32),
    /// The machine's architecture in Go's words (`amd64`, `arm64`).
    pub arch: String,
    /// Memory that can be given to new processes, in bytes.
    pub memory_available: u64,
    /// Where the engine keeps images and volumes.
    pub storage_dir: String,
    /// The engine's storage driver.
    pub storage_driver: String,
    /// Bytes free for the engine's storage.
    pub storage_free: u64,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: u64,
    /// Inotify instances that root's processes hold already.
    pub inotify_used: u64,
    /// `fs.inotify.max_user_watches`.
    pub inotify_watches: u64,
    /// Hard limit of open files.
    pub nofile: u64,
    /// Highest hard limit of processes that can be given.
    pub nproc: u64,
    /// The host has modules in `/lib/modules`.
    pub lib_modules: bool,
    /// For each of [`KERNEL_NEEDS`], by module name.
    pub kernel_abilities: Vec<(String, Ability)>,
}

/// Open files a machine may have where nothing keeps kup from choosing: the kernel's default `fs.nr_open`.
const NOFILE: u64 = 1_048_576;

/// The flags that make a container a machine on this host: rights, control groups, limits, and the mounts that systemd wants.
/// Names, network and volumes are the caller's.
pub fn container_flags(facts: &Facts) -> Vec<String> {
    let mut flags: Vec<String> = runtime_flags(facts);
    let mut add = |words: &[&str]| flags.extend(words.iter().map(|w| (*w).to_owned()));
    // A node runs containers itself; its cgroup tree is its own, so that kubelets don't see each other's pods.
    add(&["--privileged", "--cgroupns=private", "--pids-limit=-1"]);
    match facts.engine {
        EngineKind::Podman => {
            // Console output goes with the container: the host's journal would keep it after `down`.
            add(&["--log-driver=k8s-file", "--log-opt=max-size=10mb", "--tmpfs=/run", "--tmpfs=/tmp"]);
            // On v1 podman's own help for systemd mounts the host's `name=systemd` hierarchy over the container's: all machines
            // would share it, and kubelets take each other's pods for orphans. systemd needs nothing of that help but the word.
            if facts.cgroups == Cgroups::V2 {
                add(&["--systemd=always"]);
            } else {
                add(&["--systemd=false", "--env=container=podman"]);
            }
        }
        EngineKind::Docker => {
            add(&["--init=false", "--userns=host", "--stop-signal=SIGRTMIN+3", "--env=container=docker"]);
            add(&["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--security-opt=label=disable"]);
            add(&["--log-driver=json-file", "--log-opt=max-size=10m"]);
            // Docker's own defaults are noexec, and size by the host's memory.
            add(&["--tmpfs=/run:exec,mode=755", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec,mode=1777"]);
        }
    }
    if facts.lib_modules {
        add(&["--volume=/lib/modules:/lib/modules:ro"]);
    }
    flags
}

/// What any container needs on this host, a machine or not: a runtime that copes with its control groups, and limits it may set.
pub fn runtime_flags(facts: &Facts) -> Vec<String> {
    let mut flags = Vec::new();
    // crun refuses hybrid control groups, and v1 trees that systemd doesn't own.
    if facts.engine == EngineKind::Podman && facts.cgroups != Cgroups::V2 {
        flags.extend(["--runtime".to_owned(), "runc".to_owned()]);
    }
    if facts.sys_resource {
        flags.push(format!("--ulimit=nofile={NOFILE}:{NOFILE}"));
    } else {
        // Nobody may raise a hard limit: the engine's own defaults, which are higher, would fail.
        flags.push(format!("--ulimit=nofile={0}:{0}", facts.nofile.min(NOFILE)));
        flags.push(format!("--ulimit=nproc={0}:{0}", facts.nproc));
    }
    flags
}

/// What a set of new machines takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Masters to be made or started.
    pub masters: u64,
    /// Minions to be made or started.
    pub minions: u64,
    /// Balancers to be made or started.
    pub balancers: u64,
    /// The node image has to be built too.
    pub image: bool,
}

const MIB: u64 = 1 << 20;
/// A master's processes at rest: apiserver 288 MB, controller-manager 115, kubelet 84, scheduler 68, kube-proxy 59, containerd 50, etcd and the system.
const MASTER_MEMORY: u64 = 1024 * MIB;
/// A minion's processes at rest: kubelet 84 MB, kube-proxy 59, containerd 50, flannel, the system, a little for pods.
const MINION_MEMORY: u64 = 400 * MIB;
/// A balancer's haproxy, SSH server and system.
const BALANCER_MEMORY: u64 = 64 * MIB;
/// Room for one machine's own disk at the start (etcd preallocates 64 MB of log, journal, a few images).
const MACHINE_DISK: u64 = 512 * MIB;
/// The node image while it is being built: packages, archive, layers.
const IMAGE_DISK: u64 = 1536 * MIB;
/// Inotify instances of a minion, counted on one at rest: kubelet 6, systemd 3, containerd 2, D-Bus, logind and kube-proxy 1 each.
const MINION_INOTIFY: u64 = 14;
/// A master has the controller-manager's 8, the apiserver's 7 and the scheduler's 3 besides.
const MASTER_INOTIFY: u64 = MINION_INOTIFY + 18;
/// A balancer's: systemd 3, D-Bus 1, and one to spare.
const BALANCER_INOTIFY: u64 = 5;
/// Watches of a machine at rest: some 50 of systemd, and those of kubelet on control groups and volumes.
const WATCHES_PER_MACHINE: u64 = 1024;
/// Open files that containerd, kubelet and etcd need at least.
const NOFILE_LEAST: u64 = 8192;
/// The oldest kernel that kube-proxy's nftables mode supports.
const KERNEL_LEAST: (u32, u32) = (5, 13);

/// Something the host lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What, with the number found and the number needed.
    pub what: String,
    /// What to type, or to do, about it.
    pub mend: String,
}

/// The value that `fs.inotify.max_user_instances` must have for these machines, if the present one is too small.
pub fn inotify_wanted(facts: &Facts, needs: &Needs) -> Option<u64> {
    let wanted = facts.inotify_used + inotify_taken(needs);
    // Rounded up, so that a few more machines need no second look.
    (wanted > facts.inotify_instances).then(|| (wanted * 2).next_multiple_of(512))
}

fn inotify_taken(needs: &Needs) -> u64 {
    needs.masters * MASTER_INOTIFY + needs.minions * MINION_INOTIFY + needs.balancers * BALANCER_INOTIFY
}

/// Everything this host lacks for these machines, each with its mend.
pub fn lacks(facts: &Facts, needs: &Needs) -> Vec<Lack> {
    let machines = needs.masters + needs.minions + needs.balancers;
    let engine = facts.engine.as_str();
    let mut lacks = Vec::new();
    let mut lack = |what: String, mend: String| lacks.push(Lack { what, mend });
    if facts.rootless {
        lack(
            format!("{engine} runs without root rights, and a node needs them"),
            "run kup as root, for example with sudo; for Docker, switch to the daemon of the system (`docker context use default`)".into(),
        );
    }
    if facts.kernel < KERNEL_LEAST {
        let ((major, minor), (least_major, least_minor)) = (facts.kernel, KERNEL_LEAST);
        lack(
            format!("kernel {major}.{minor} is too old: kube-proxy with nftables needs {least_major}.{least_minor}"),
            "install a newer kernel of your distribution and reboot".into(),
        );
    }
    if !matches!(facts.arch.as_str(), "amd64" | "arm64") {
        lack(format!("architecture {} has no bundle", facts.arch), "use a machine with amd64 or arm64".into());
    }
    for (module, option, user) in KERNEL_NEEDS {
        if facts.kernel_abilities.iter().any(|(name, ability)| name == module && *ability == Ability::Missing) {
            lack(
                format!("the kernel has no {module} ({option}), which {user} needs"),
                format!("install a kernel with {option}, or its modules package"),
            );
        }
    }
    if facts.engine == EngineKind::Podman && facts.cgroups != Cgroups::V2 && !facts.runtimes.iter().any(|r| r == "runc") {
        lack("this host has cgroup v1, for which podman needs the OCI runtime runc".into(), "apt install runc".into());
    }
    let memory = needs.masters * MASTER_MEMORY + needs.minions * MINION_MEMORY + needs.balancers * BALANCER_MEMORY;
    if facts.memory_available < memory {
        lack(
            format!(
                "{} MiB of memory are free, {} masters and {} minions need about {}",
                facts.memory_available / MIB,
                needs.masters,
                needs.minions,
                memory / MIB
            ),
            "stop something, or ask for fewer machines (`--minions`)".into(),
        );
    }
    let disk = machines * MACHINE_DISK + if needs.image { IMAGE_DISK } else { 0 };
    if facts.storage_free < disk {
        lack(
            format!("{} MiB are free in {}, about {} are needed", facts.storage_free / MIB, facts.storage_dir, disk / MIB),
            format!("make room, for example with `{engine} image prune`"),
        );
    }
    if matches!(facts.storage_driver.as_str(), "vfs" | "devicemapper") {
        lack(
            format!("{engine} stores with the driver {}, which copies the whole image for each machine", facts.storage_driver),
            format!("set {engine}'s storage driver to overlay"),
        );
    }
    if let Some(wanted) = inotify_wanted(facts, needs) {
        lack(
            format!(
                "fs.inotify.max_user_instances is {} with {} in use; {machines} machines need {} more",
                facts.inotify_instances,
                facts.inotify_used,
                inotify_taken(needs)
            ),
            format!("sysctl -w fs.inotify.max_user_instances={wanted}"),
        );
    }
    if facts.inotify_watches < machines * WATCHES_PER_MACHINE {
        lack(
            format!(
                "fs.inotify.max_user_watches is {}, {machines} machines need {}",
                facts.inotify_watches,
                machines * WATCHES_PER_MACHINE
            ),
            "sysctl -w fs.inotify.max_user_watches=524288".into(),
        );
    }
    if !facts.sys_resource && facts.nofile < NOFILE_LEAST {
        lack(
            format!("the hard limit of open files is {}, a node needs {NOFILE_LEAST}", facts.nofile),
            format!("raise it where this shell was started (`ulimit -Hn {NOFILE_LEAST}` as root, or limits.conf)"),
        );
    }
    lacks
}

/// One error that names everything the host lacks, or nothing.
pub fn preflight(facts: &Facts, needs: &Needs) -> Result<(), Error> {
    let lacks = lacks(facts, needs);
    if lacks.is_empty() {
        return Ok(());
    }
    Err(lacks.into_iter().fold(Error::new("this host can't run the machines; nothing was made"), |error, lack| {
        error.why(lack.what).hint(lack.mend)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            engine: EngineKind::Podman,
            engine_version: "4.3.1".into(),
            runtimes: vec!["crun".into(), "runc".into()],
            default_runtime: "crun".into(),
            rootless: false,
            cgroups: Cgroups::V2,
            sys_resource: true,
            kernel: (6, 1),
            arch: "amd64".into(),
            memory_available: 16 << 30,
            storage_dir: "/var/lib/containers/storage".into(),
            storage_driver: "overlay".into(),
            storage_free: 50 << 30,
            inotify_instances: 1024,
            inotify_used: 10,
            inotify_watches: 200_000,
            nofile: 20_000,
            nproc: 32_768,
            lib_modules: true,
            kernel_abilities: KERNEL_NEEDS.iter().map(|(m, ..)| ((*m).to_owned(), Ability::Module)).collect(),
        }
    }

    #[test]
    fn flags_of_each_kind_of_host() {
        let mut all = String::new();
        for engine in [EngineKind::Podman, EngineKind::Docker] {
            for cgroups in [Cgroups::V2, Cgroups::V1] {
                for sys_resource in [true, false] {
                    let facts = Facts { engine, cgroups, sys_resource, lib_modules: cgroups == Cgroups::V2, ..facts() };
                    let flags = container_flags(&facts).join("\n  ");
                    all += &format!("{} cgroup {cgroups:?} CAP_SYS_RESOURCE {sys_resource}\n  {flags}\n", engine.as_str());
                }
            }
        }
        insta::assert_snapshot!(all);
    }

    #[test]
    fn hybrid_control_groups_are_treated_as_v1() {
        let with = |cgroups| container_flags(&Facts { cgroups, ..facts() });
        assert_eq!(with(Cgroups::Hybrid), with(Cgroups::V1));
        assert_ne!(with(Cgroups::Hybrid), with(Cgroups::V2));
    }

    #[test]
    fn a_good_host_lacks_nothing() {
        assert_eq!(lacks(&facts(), &Needs { masters: 3, minions: 4, balancers: 1, image: true }), []);
    }

    #[test]
    fn a_bad_host_is_told_everything_at_once() {
        let bad = Facts {
            rootless: true,
            kernel: (5, 4),
            arch: "riscv64".into(),
            memory_available: 900 << 20,
            storage_free: 100 << 20,
            storage_driver: "vfs".into(),
            cgroups: Cgroups::Hybrid,
            runtimes: vec!["crun".into()],
            inotify_instances: 128,
            inotify_used: 60,
            inotify_watches: 2000,
            sys_resource: false,
            nofile: 1024,
            kernel_abilities: vec![("nf_tables".into(), Ability::Missing), ("veth".into(), Ability::Unknown)],
            ..facts()
        };
        let error = preflight(&bad, &Needs { masters: 1, minions: 4, balancers: 0, image: true })
            .err()
            .unwrap_or_else(|| Error::new("accepted"));
        assert_eq!(error.kind, crate::error::Kind::Failed);
        insta::assert_snapshot!(error.to_string());
    }

    #[test]
    fn inotify_counts_what_is_in_use() {
        let needs = Needs { masters: 1, minions: 3, balancers: 0, image: false };
        let with = |used| inotify_wanted(&Facts { inotify_instances: 128, inotify_used: used, ..facts() }, &needs);
        assert_eq!(with(128 - 32 - 3 * 14), None);
        assert_eq!(with(128 - 32 - 3 * 14 + 1), Some(512));
    }
}
