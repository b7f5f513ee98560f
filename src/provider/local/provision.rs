//! Makes and starts the machines: network and volumes side by side, then every container at once, each handed on as soon as it runs.

use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use tokio::task::JoinSet;

use super::engine::{ACT, Engine, EngineKind, MOVE};
use super::image::NodeImage;
use super::survey::{Design, Slot};
use super::{LocalProvider, blocking, cluster_dir, keys, names, no_bundle, subnet};
use crate::cluster::Cluster;
use crate::cluster::spec::Subnet;
use crate::error::{Context, Error, Result};
use crate::machine::host::{self, Facts};
use crate::machine::{BUNDLE_DIR, BundleAccess, Machine};
use crate::provider::MachineSender;
use crate::report::{Report, Span};

/// See [`crate::provider::Provider::provision`].
pub(super) async fn provision(
    provider: &LocalProvider,
    cluster: &Cluster,
    report: &Report,
    machines: MachineSender,
) -> Result<()> {
    let span = report.step("machines found");
    span.waiting("the engine to list them");
    let design = match provider.design_as_seen(cluster).await {
        Ok(design) => design,
        Err(e) => return span.close(Err(e)),
    };
    let (running, idle): (Vec<&Slot>, Vec<&Slot>) =
        design.slots.iter().partition(|s| s.found.as_ref().is_some_and(|f| f.running));
    span.done_with(if running.is_empty() { "none runs".to_owned() } else { format!("{} running", running.len()) });
    for machine in running.iter().filter_map(|s| s.found.as_ref()) {
        hand_on(&machines, machine.machine.clone());
    }
    if idle.is_empty() {
        return Ok(());
    }
    if cluster.local.bundle == crate::cluster::spec::BundleRoute::Mount && design.mount.is_none() && design.makes_machines() {
        return Err(no_bundle());
    }

    let wanted = image_wanted(provider, cluster, &design).await?;
    let needs = design.needs(wanted.as_ref().is_some_and(|w| !w.there));
    let facts = provider.facts(&design.engine).await?;
    host::preflight(&provider.with_raised_limits(facts.clone(), &needs), &needs)?;
    if let Some(wanted) = host::inotify_wanted(&facts, &needs) {
        raise_inotify(wanted, report)?;
    }
    let image = match wanted {
        Some(wanted) => wanted.get(&design.engine, &facts, report).await?,
        None => String::new(),
    };

    let span = report.step("machines");
    let made = make(cluster, &design, &facts, image, &span, &machines).await;
    span.close(made)
}

/// The receiver may have given up (another step failed): then nobody needs the machine now, and the next `up` finds it.
fn hand_on(machines: &MachineSender, machine: Machine) {
    let _ = machines.send(machine);
}

fn raise_inotify(wanted: u64, report: &Report) -> Result<()> {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    std::fs::write(path, wanted.to_string())
        .with_context(|| format!("cannot set {path} to {wanted}"))
        .map_err(|e| e.hint(format!("run as root: sysctl -w fs.inotify.max_user_instances={wanted}")))?;
    report.note(format!("fs.inotify.max_user_instances is {wanted} now, until the next boot of this host"));
    Ok(())
}

/// The image that new machines start from.
struct ImageWanted {
    name: String,
    /// How it is made; the config's own image is pulled.
    made: Option<NodeImage>,
    there: bool,
}

/// Which image that is, and whether the engine has it; none if no container is to be made.
async fn image_wanted(provider: &LocalProvider, cluster: &Cluster, design: &Design) -> Result<Option<ImageWanted>> {
    if !design.makes_machines() {
        return Ok(None);
    }
    let (name, made) = match &cluster.local.image {
        Some(name) => (name.clone(), None),
        None => {
            let image = provider.node_image(cluster).await?.ok_or_else(no_bundle)?;
            (image.tag().to_owned(), Some(image))
        }
    };
    let there = design.engine.has_image(&name).await?;
    Ok(Some(ImageWanted { name, made, there }))
}

impl ImageWanted {
    /// Makes or pulls it if it isn't there; returns its name.
    async fn get(self, engine: &Engine, facts: &Facts, report: &Report) -> Result<String> {
        match self.made {
            _ if self.there => {}
            Some(image) => return image.ensure(engine, facts, report, false).await,
            None => {
                let span = report.step("node image");
                span.waiting(format!("pulling {}", self.name));
                let pulled = engine.run(MOVE, ["pull", "-q", &self.name]).await;
                let what = || format!("local.image: {} has no image {} and can't pull it", engine.name(), self.name);
                span.close(pulled.map_err(|e| e.within(what())))?;
            }
        }
        Ok(self.name)
    }
}

async fn make(
    cluster: &Cluster,
    design: &Design,
    facts: &Facts,
    image: String,
    span: &Span,
    machines: &MachineSender,
) -> Result<()> {
    let dir = cluster_dir(&cluster.name)?;
    span.waiting(format!("{} to make network and volumes", design.engine.name()));
    let idle: Vec<Slot> = design.slots.iter().filter(|s| !s.found.as_ref().is_some_and(|f| f.running)).cloned().collect();
    let missing: Vec<Slot> = idle.iter().filter(|s| s.found.is_none()).cloned().collect();
    // All of this before the first container, and none of it waits for the other.
    let volumes = async {
        let all = missing.iter().filter(|s| !s.volume).map(|s| make_volume(&design.engine, &cluster.name, &s.wanted.name));
        futures::future::try_join_all(all).await.map(drop)
    };
    let seeds = {
        let (dir, own, name, missing) = (dir.clone(), cluster.local.ssh_key.clone(), cluster.name.clone(), missing.clone());
        blocking(move || make_seeds(&dir, own.as_deref(), &name, &missing))
    };
    let (subnet, (), host_keys) =
        tokio::try_join!(make_network(cluster, design), volumes, seeds).map_err(|e| left(e, cluster))?;

    let flags = Arc::new(host::container_flags(facts));
    let mut work = JoinSet::new();
    for slot in idle {
        let part = span.child(&slot.wanted.name);
        let engine = design.engine.clone();
        let machines = machines.clone();
        let machine = match &slot.found {
            Some(found) => found.machine.clone(),
            None => {
                let host_key = host_keys.iter().find(|(name, _)| *name == slot.wanted.name).map(|(_, key)| key.clone());
                Machine {
                    name: slot.wanted.name.clone(),
                    role: slot.wanted.role,
                    address: names::address(subnet, slot.wanted.role, slot.wanted.number)?,
                    ssh_port: 22,
                    user: "root".into(),
                    host_key: host_key.ok_or_else(|| Error::new(format!("machine {} has no SSH host key", slot.wanted.name)))?,
                    bundle: if design.mount.is_some() { BundleAccess::Mounted } else { BundleAccess::Sent },
                    cloud: None,
                }
            }
        };
        let command = match &slot.found {
            Some(_) => vec!["start".to_owned(), machine.name.clone()],
            None => run_command(cluster, design, &machine, &dir, &flags, &image),
        };
        work.spawn(async move {
            part.waiting(format!("{} to start the container", engine.name()));
            let outcome = part.close(engine.run(ACT, &command).await.map(drop));
            if outcome.is_ok() {
                // After the part has ended: its end is what lets others begin.
                hand_on(&machines, machine);
            }
            outcome
        });
    }
    // The others are let finish: what one failure cuts short, the next `up` would have to repair.
    let mut failed: Option<Error> = None;
    while let Some(outcome) = work.join_next().await {
        if let Err(e) = outcome.map_err(|e| Error::new("a machine's work ended early").why(e)).and_then(|o| o) {
            failed = Some(match failed {
                None => e,
                Some(first) => first.why(e.to_string()),
            });
        }
    }
    match failed {
        Some(error) => Err(left(error, cluster)),
        None => Ok(()),
    }
}

fn left(error: Error, cluster: &Cluster) -> Error {
    let name = &cluster.name;
    error
        .left(format!("what was made of cluster {name} before that"))
        .hint(format!("`kup up --name {name}` goes on from there, `kup down --name {name}` removes it"))
}

async fn make_volume(engine: &Engine, cluster: &str, machine: &str) -> Result<()> {
    let mut args = vec!["volume".to_owned(), "create".to_owned()];
    args.extend(label_flags(&names::labels(cluster)));
    args.push(names::volume(machine));
    engine.run(ACT, args).await.map(drop)
}

fn label_flags(labels: &[String]) -> impl Iterator<Item = String> {
    labels.iter().map(|label| format!("--label={label}"))
}

/// Keys of machines that are to be made; returns each one's public host key.
fn make_seeds(dir: &Path, own: Option<&Path>, cluster: &str, missing: &[Slot]) -> Result<Vec<(String, String)>> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let upstream = read("/run/systemd/resolve/resolv.conf");
    let resolver = keys::resolver(&read("/etc/resolv.conf"), Some(&upstream));
    let authorized = keys::authorized(dir, own, cluster)?;
    missing.iter().map(|s| Ok((s.wanted.name.clone(), keys::seed(dir, &s.wanted.name, &authorized, Some(&resolver))?))).collect()
}

/// Makes the network if it isn't there, and returns its range. Somebody else may take the chosen range in the meantime: then the next
/// free one is tried, unless the user asked for this one.
async fn make_network(cluster: &Cluster, design: &Design) -> Result<Ipv4Net> {
    if design.network_stands {
        return Ok(design.subnet);
    }
    let mut range = design.subnet;
    let mut refused = Vec::new();
    loop {
        let error = match design.engine.run(ACT, network_command(design.engine.kind(), &cluster.name, range)).await {
            Ok(_) => return Ok(range),
            Err(e) => e,
        };
        let words = error.why.join("\n").to_lowercase();
        let taken = words.contains("already used") || words.contains("overlap");
        refused.push(range);
        if !taken || cluster.local.subnet != Subnet::Auto || refused.len() == 8 {
            return Err(error.within(format!("cannot make the network {}", design.network)));
        }
        let networks = design.engine.networks(&[]).await?.into_iter().map(|n| (design.engine.name(), n)).collect::<Vec<_>>();
        range = subnet::choose(cluster, &subnet::taken(&networks).await?, &refused)?;
    }
}

/// How the engine is told to make the network.
fn network_command(engine: EngineKind, cluster: &str, range: Ipv4Net) -> Vec<String> {
    let mut args: Vec<String> = ["network", "create", "--driver=bridge"].map(str::to_owned).to_vec();
    if engine == EngineKind::Podman {
        // The cluster has a DNS of its own; podman's would be one more process and a resolver that pods can't use.
        args.push("--disable-dns".into());
    }
    args.extend([format!("--subnet={range}"), format!("--gateway={}", names::gateway(range))]);
    args.extend(label_flags(&names::labels(cluster)));
    args.push(names::network(cluster));
    args
}

/// How the engine is told to make and start one machine.
fn run_command(cluster: &Cluster, design: &Design, machine: &Machine, dir: &Path, flags: &[String], image: &str) -> Vec<String> {
    let name = &machine.name;
    let mount = design.mount.as_ref().map(|m| m.display().to_string());
    let mut args: Vec<String> = vec!["run".into(), "--detach".into(), "--pull=never".into(), "--restart=no".into()];
    args.extend([format!("--name={name}"), format!("--hostname={name}")]);
    args.extend([format!("--network={}", design.network), format!("--ip={}", machine.address)]);
    args.push(format!("--mac-address={}", names::mac(machine.address)));
    args.extend(label_flags(&names::machine_labels(&cluster.name, machine, mount.as_deref())));
    args.extend_from_slice(flags);
    args.push(format!("--volume={}:/var", names::volume(name)));
    args.push(format!("--volume={}:{}:ro", keys::seed_path(dir, name).display(), keys::SEED_DIR));
    if let Some(mount) = mount {
        args.push(format!("--volume={mount}:{BUNDLE_DIR}:ro"));
    }
    args.push(image.to_owned());
    args
}
