//! Looks at the host and its engine, and fills in [`Facts`].

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::engine::{ASK, Engine, EngineKind};
use crate::error::{Context, Error, Result};
use crate::machine::host::{Ability, Cgroups, Facts, KERNEL_NEEDS};

/// What the engine says of itself.
struct EngineFacts {
    version: String,
    runtimes: Vec<String>,
    default_runtime: String,
    rootless: bool,
    storage_dir: String,
    storage_driver: String,
}

/// Everything that decides how machines are run here.
pub(super) async fn gather(engine: &Engine) -> Result<Facts> {
    let (said, host) = tokio::join!(ask(engine), tokio::task::spawn_blocking(host));
    let (said, host) = (said?, host.context("cannot look at the host")??);
    let storage_free = free_bytes(Path::new(&said.storage_dir));
    Ok(Facts {
        engine: engine.kind(),
        engine_version: said.version,
        runtimes: said.runtimes,
        default_runtime: said.default_runtime,
        rootless: said.rootless,
        storage_dir: said.storage_dir,
        storage_driver: said.storage_driver,
        storage_free,
        ..host
    })
}

async fn ask(engine: &Engine) -> Result<EngineFacts> {
    match engine.kind() {
        EngineKind::Podman => {
            #[derive(Deserialize)]
            struct Info {
                host: Host,
                store: Store,
                version: Version,
            }
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Host {
                oci_runtime: Runtime,
                security: Security,
            }
            #[derive(Deserialize)]
            struct Runtime {
                name: String,
            }
            #[derive(Deserialize)]
            struct Security {
                rootless: bool,
            }
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Store {
                graph_root: String,
                graph_driver_name: String,
            }
            #[derive(Deserialize)]
            #[serde(rename_all = "PascalCase")]
            struct Version {
                version: String,
            }
            let text = engine.run(ASK, ["info", "--format", "json"]).await?;
            let info: Info = serde_json::from_str(&text).context("`podman info` answered with something else than expected")?;
            // podman looks for its runtimes in these places, whatever the PATH says.
            let places =
                ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/sbin", "/bin", "/run/current-system/sw/bin"];
            let there = |name: &&str| places.iter().any(|dir| Path::new(dir).join(name).exists());
            Ok(EngineFacts {
                version: info.version.version,
                runtimes: ["crun", "runc"].iter().filter(|name| there(name)).map(|name| (*name).to_owned()).collect(),
                default_runtime: info.host.oci_runtime.name,
                rootless: info.host.security.rootless,
                storage_dir: info.store.graph_root,
                storage_driver: info.store.graph_driver_name,
            })
        }
        EngineKind::Docker => {
            #[derive(Deserialize)]
            #[serde(rename_all = "PascalCase")]
            struct Info {
                server_version: String,
                #[serde(default)]
                runtimes: std::collections::BTreeMap<String, serde_json::Value>,
                #[serde(default)]
                default_runtime: String,
                #[serde(default)]
                security_options: Vec<String>,
                docker_root_dir: String,
                driver: String,
            }
            let text = engine.run(ASK, ["info", "--format", "{{json .}}"]).await?;
            let info: Info = serde_json::from_str(&text).context("`docker info` answered with something else than expected")?;
            Ok(EngineFacts {
                version: info.server_version,
                runtimes: info.runtimes.into_keys().collect(),
                default_runtime: info.default_runtime,
                rootless: info.security_options.iter().any(|o| o.contains("rootless")),
                storage_dir: info.docker_root_dir,
                storage_driver: info.driver,
            })
        }
    }
}

/// What the kernel says; the engine's part is left empty.
fn host() -> Result<Facts> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let arch = match uname.machine().to_string_lossy().as_ref() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let status = read("/proc/self/status")?;
    let limits = read("/proc/self/limits")?;
    let lib_modules = Path::new("/lib/modules").is_dir();
    Ok(Facts {
        engine: EngineKind::Podman,
        engine_version: String::new(),
        runtimes: Vec::new(),
        default_runtime: String::new(),
        rootless: false,
        cgroups: cgroups(&read("/proc/self/mountinfo")?),
        sys_resource: has_sys_resource(&status),
        kernel: kernel_version(&release)
            .ok_or_else(|| Error::new(format!("the kernel's version `{release}` can't be understood")))?,
        arch,
        memory_available: memory_available(&read("/proc/meminfo")?)
            .ok_or_else(|| Error::new("/proc/meminfo has no MemAvailable"))?,
        storage_dir: String::new(),
        storage_driver: String::new(),
        storage_free: 0,
        inotify_instances: number_in("/proc/sys/fs/inotify/max_user_instances")?,
        inotify_used: inotify_used(),
        inotify_watches: number_in("/proc/sys/fs/inotify/max_user_watches")?,
        nofile: hard_limit(&limits, "Max open files"),
        // podman lowers its own limit to pid_max (or, where that is more than it has, to 2^20) before it starts anything, and there
        // may be no way back up.
        nproc: hard_limit(&limits, "Max processes").min(number_in("/proc/sys/kernel/pid_max")?).min(1 << 20),
        lib_modules,
        kernel_abilities: kernel_abilities(&release),
    })
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn number_in(path: &str) -> Result<u64> {
    read(path)?.trim().parse().with_context(|| format!("{path} is not a number"))
}

/// `6.18.44-x` → (6, 18).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// By file system types: `cgroup2` alone is v2, `cgroup` alone v1.
fn cgroups(mountinfo: &str) -> Cgroups {
    let has =
        |kind: &str| mountinfo.lines().filter_map(|l| l.split_once(" - ")).any(|(_, rest)| rest.split(' ').next() == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => Cgroups::Hybrid,
        (true, false) => Cgroups::V1,
        (false, _) => Cgroups::V2,
    }
}

/// Bit 24 of the bounding set.
fn has_sys_resource(status: &str) -> bool {
    let set = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).and_then(|v| u64::from_str_radix(v.trim(), 16).ok());
    set.is_some_and(|set| set >> 24 & 1 == 1)
}

fn memory_available(meminfo: &str) -> Option<u64> {
    let kib: u64 =
        meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A row of `/proc/self/limits`: name, soft limit, hard limit, unit.
fn hard_limit(limits: &str, name: &str) -> u64 {
    let row = limits.lines().find_map(|l| l.strip_prefix(name));
    // "unlimited" is the only word that is no number.
    row.and_then(|r| r.split_whitespace().nth(1)).and_then(|v| v.parse().ok()).unwrap_or(u64::MAX)
}

/// Inotify instances held by root's processes; what can't be seen (a process that just ended) isn't counted.
fn inotify_used() -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = processes.filter(|p| p.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let files = numbered.flat_map(|p| fs::read_dir(p.path().join("fd")).into_iter().flatten().flatten());
    files.filter(|f| fs::read_link(f.path()).is_ok_and(|l| l.as_os_str() == "anon_inode:inotify")).count() as u64
}

/// Free space of the file system on which a directory is, or will be; 0 if that can't be told.
fn free_bytes(path: &Path) -> u64 {
    let existing = path.ancestors().find(|p| p.exists());
    existing.and_then(|p| rustix::fs::statvfs(p).ok()).map_or(0, |s| s.f_bavail * s.f_frsize)
}

/// Asks the kernel's own configuration, else the distribution's copy of it, else the lists of modules.
fn kernel_abilities(release: &str) -> Vec<(String, Ability)> {
    let gz = fs::File::open("/proc/config.gz").ok().and_then(|f| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(f), &mut text).ok()?;
        Some(text)
    });
    let config = gz.or_else(|| fs::read_to_string(format!("/boot/config-{release}")).ok());
    let modules = |file: &str| fs::read_to_string(format!("/lib/modules/{release}/{file}")).ok();
    let lists = (modules("modules.builtin"), modules("modules.dep"));
    KERNEL_NEEDS
        .iter()
        .map(|(module, option, _)| {
            ((*module).to_owned(), ability(module, option, config.as_deref(), (lists.0.as_deref(), lists.1.as_deref())))
        })
        .collect()
}

fn ability(module: &str, option: &str, config: Option<&str>, (builtin, loadable): (Option<&str>, Option<&str>)) -> Ability {
    let listed = |list: &str, end: &str| {
        list.lines().any(|l| {
            l.split(end)
                .next()
                .and_then(|p| p.rsplit('/').next())
                .is_some_and(|n| n.split(".ko").next().is_some_and(|n| n.replace('-', "_") == module))
        })
    };
    if let Some(config) = config {
        let value = config.lines().find_map(|l| l.strip_prefix(option)?.strip_prefix('='));
        return match (value, loadable) {
            (Some("y"), _) => Ability::BuiltIn,
            // Configured as a module, but its file may not be installed.
            (Some("m"), Some(list)) if !listed(list, ":") => Ability::Missing,
            (Some("m"), _) => Ability::Module,
            _ => Ability::Missing,
        };
    }
    match (builtin, loadable) {
        (Some(list), _) if listed(list, "\0") => Ability::BuiltIn,
        (_, Some(list)) if listed(list, ":") => Ability::Module,
        // Options without a module of their own never appear in the lists.
        _ => Ability::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kernels_write() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(kernel_version("5.4-rc1"), Some((5, 4)));
        assert_eq!(kernel_version("strange"), None);
        let v1 = "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n";
        let v2 = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroups(v1), Cgroups::V1);
        assert_eq!(cgroups(v2), Cgroups::V2);
        assert_eq!(cgroups(&format!("{v1}{v2}")), Cgroups::Hybrid);
        assert!(!has_sys_resource("CapBnd:\t000001fffeffffff\n"));
        assert!(has_sys_resource("CapBnd:\t000001ffffffffff\n"));
        assert_eq!(memory_available("MemFree: 1 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        let limits = "Limit Soft Hard Units\nMax processes             96365                96365                processes\nMax open files  1024  20000  files\n";
        assert_eq!(hard_limit(limits, "Max open files"), 20000);
        assert_eq!(hard_limit(limits, "Max processes"), 96365);
        assert_eq!(hard_limit("Max processes unlimited unlimited processes", "Max processes"), u64::MAX);
    }

    #[test]
    fn a_module_is_there_only_if_its_file_is() {
        let dep = "kernel/net/netfilter/nf_tables.ko.xz: kernel/x.ko\nkernel/drivers/net/veth.ko:\n";
        let of = |module, option, config| ability(module, option, config, (Some("kernel/fs/overlayfs/overlay.ko\n"), Some(dep)));
        assert_eq!(of("nf_tables", "CONFIG_NF_TABLES", Some("CONFIG_NF_TABLES_INET=y\nCONFIG_NF_TABLES=m\n")), Ability::Module);
        assert_eq!(of("bridge", "CONFIG_BRIDGE", Some("CONFIG_BRIDGE=m\n")), Ability::Missing);
        assert_eq!(of("bridge", "CONFIG_BRIDGE", Some("# CONFIG_BRIDGE is not set\n")), Ability::Missing);
        assert_eq!(of("veth", "CONFIG_VETH", None), Ability::Module);
        assert_eq!(of("overlay", "CONFIG_OVERLAY_FS", None), Ability::BuiltIn);
        assert_eq!(of("nf_nat", "CONFIG_NF_NAT", None), Ability::Unknown);
        assert_eq!(ability("veth", "CONFIG_VETH", None, (None, None)), Ability::Unknown);
    }
}
