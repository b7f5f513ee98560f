//! What there is in the engines, and from that what there should be: the plan of the local provider.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use super::engine::{Container, Engine, Network, Volume};
use super::names::{self, Wanted};
use super::{keys, no_engine, subnet};
use crate::cluster::Cluster;
use crate::cluster::spec::{BundleRoute, Subnet};
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::machine::host::Needs;
use crate::provider::{Action, Found, FoundMachine, Verb};

/// Everything in all engines, kup's or not.
#[derive(Clone)]
pub(super) struct Survey {
    engines: Vec<Held>,
}

#[derive(Clone)]
struct Held {
    engine: Engine,
    containers: Vec<Container>,
    networks: Vec<Network>,
    volumes: Vec<Volume>,
}

impl Held {
    async fn take(engine: &Engine, labels: &[String]) -> Result<Held> {
        let (containers, networks, volumes) =
            tokio::try_join!(engine.containers(labels), engine.networks(labels), engine.volumes(labels))?;
        Ok(Held { engine: engine.clone(), containers, networks, volumes })
    }

    /// Drops what isn't of this cluster.
    fn only(mut self, cluster: &str) -> Held {
        self.containers.retain(|c| names::owned(&c.labels, cluster));
        self.networks.retain(|n| names::owned(&n.labels, cluster));
        self.volumes.retain(|v| names::owned(&v.labels, cluster));
        self
    }

    fn has(&self, cluster: &str) -> bool {
        self.containers.iter().any(|c| names::owned(&c.labels, cluster))
            || self.networks.iter().any(|n| names::owned(&n.labels, cluster))
            || self.volumes.iter().any(|v| names::owned(&v.labels, cluster))
    }
}

impl Survey {
    pub(super) async fn take(engines: &[Engine]) -> Result<Survey> {
        let engines = futures::future::try_join_all(engines.iter().map(|engine| Held::take(engine, &[]))).await?;
        Ok(Survey { engines })
    }
}

/// One machine that is wanted, and what there is of it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) wanted: Wanted,
    pub(super) address: Ipv4Addr,
    pub(super) found: Option<FoundMachine>,
    pub(super) volume: bool,
}

/// What there should be, beside what there is.
#[derive(Debug)]
pub(super) struct Design {
    pub(super) engine: Engine,
    pub(super) network: String,
    pub(super) subnet: Ipv4Net,
    pub(super) network_stands: bool,
    pub(super) slots: Vec<Slot>,
    /// The bundle's directory as machines mount it, if they do.
    pub(super) mount: Option<PathBuf>,
    surplus: Vec<Container>,
    surplus_volumes: Vec<String>,
}

/// Decides what there should be; an error names what is in the way. Nothing is changed.
pub(super) async fn design(cluster: &Cluster, survey: Survey, bundle: Option<&Path>, cluster_dir: &Path) -> Result<Design> {
    let name = &cluster.name;
    let holders: Vec<&Held> = survey.engines.iter().filter(|h| h.has(name)).collect();
    if let [one, other, ..] = holders[..] {
        return Err(Error::new(format!("cluster {name} exists in {} and in {}", one.engine.name(), other.engine.name()))
            .hint(format!("name the one you mean with --engine, or remove both with `kup down --name {name}`")));
    }
    let held = holders.first().copied().or(survey.engines.first()).ok_or_else(no_engine)?;
    let engine = held.engine.clone();
    let network = names::network(name);
    foreign(held, cluster, &network)?;

    let stands = held.networks.iter().find(|n| n.name == network);
    let range = match stands {
        Some(stands) => kept_range(cluster, stands)?,
        None => {
            let networks: Vec<_> =
                survey.engines.iter().flat_map(|h| h.networks.iter().map(|n| (h.engine.name(), n.clone()))).collect();
            subnet::choose(cluster, &subnet::taken(&networks).await?, &[])?
        }
    };
    names::check_room(range, cluster.masters.count, cluster.minions.count)?;

    let ours: Vec<&Container> = held.containers.iter().filter(|c| names::owned(&c.labels, name)).collect();
    if let (Some(machine), None) = (ours.first(), stands) {
        return Err(Error::new(format!("machine {} stands, but its network {network} is gone", machine.name))
            .hint(format!("remove the rest with `kup down --name {name}`, then `kup up` again")));
    }
    if !ours.is_empty() && cluster.local.ssh_key.is_none() && !keys::user_key_path(cluster_dir).exists() {
        return Err(Error::new(format!(
            "the machines of cluster {name} stand, but their SSH key is gone: {}",
            keys::user_key_path(cluster_dir).display()
        ))
        .why("another user or another home directory may have made them")
        .hint(format!("run kup as the user who made the cluster, or remove it with `kup down --name {name}`")));
    }

    let mount = match (cluster.local.bundle, bundle) {
        (BundleRoute::Mount, Some(dir)) => Some(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())),
        _ => None,
    };
    let mut slots = Vec::new();
    for wanted in names::wanted(cluster) {
        let found = ours.iter().find(|c| c.name == wanted.name).copied();
        if let Some(container) = found {
            same_bundle(container, cluster, mount.as_deref())?;
        }
        slots.push(Slot {
            address: names::address(range, wanted.role, wanted.number)?,
            found: found.and_then(names::found),
            volume: held.volumes.iter().any(|v| v.name == names::volume(&wanted.name)),
            wanted,
        });
    }
    let wanted = |container: &str| slots.iter().any(|s| s.wanted.name == container);
    let surplus: Vec<Container> = ours.into_iter().filter(|c| !wanted(&c.name)).cloned().collect();
    let volumes = held.volumes.iter().filter(|v| names::owned(&v.labels, name)).map(|v| v.name.clone());
    let surplus_volumes = volumes.filter(|v| !slots.iter().any(|s| names::volume(&s.wanted.name) == *v)).collect();
    Ok(Design { engine, network, subnet: range, network_stands: stands.is_some(), slots, mount, surplus, surplus_volumes })
}

/// Refuses names that belong to somebody else.
fn foreign(held: &Held, cluster: &Cluster, network: &str) -> Result<()> {
    let engine = held.engine.name();
    let taken = |kind: &str, name: &str| {
        Error::new(format!("{engine} already has a {kind} {name}, which is not of cluster {}", cluster.name))
            .hint(format!("give the cluster another name (--name), or remove it yourself: `{engine} {kind} rm {name}`"))
    };
    if let Some(n) = held.networks.iter().find(|n| n.name == network && !names::owned(&n.labels, &cluster.name)) {
        return Err(taken("network", &n.name));
    }
    for wanted in names::wanted(cluster) {
        if let Some(c) = held.containers.iter().find(|c| c.name == wanted.name && !names::owned(&c.labels, &cluster.name)) {
            return Err(taken("container", &c.name));
        }
        let volume = names::volume(&wanted.name);
        if let Some(v) = held.volumes.iter().find(|v| v.name == volume && !names::owned(&v.labels, &cluster.name)) {
            return Err(taken("volume", &v.name));
        }
    }
    Ok(())
}

/// The range of the network that stands; the config may not ask for another one.
fn kept_range(cluster: &Cluster, network: &Network) -> Result<Ipv4Net> {
    let name = &cluster.name;
    let range = *network.subnets.first().ok_or_else(|| {
        Error::new(format!("network {} has no IPv4 range", network.name))
            .hint(format!("remove it with `kup down --name {name}`, then `kup up` again"))
    })?;
    match cluster.local.subnet {
        Subnet::Fixed(wanted) if wanted.trunc() != range => Err(Error::usage(format!(
            "local.subnet: {wanted} is asked for, but the network of cluster {name} has {range}"
        ))
        .hint(format!(
            "a network's range can't change: leave {range}, or remove the cluster with `kup down --name {name}` first"
        ))),
        _ => Ok(range),
    }
}

/// A container's mounts are fixed when it is made, so another bundle needs other machines.
fn same_bundle(container: &Container, cluster: &Cluster, mount: Option<&Path>) -> Result<()> {
    let has = container.labels.get(names::BUNDLE).map_or("sent", String::as_str);
    let wants = mount.map_or_else(|| "sent".into(), |m| m.display().to_string());
    if has == wants || (cluster.local.bundle == BundleRoute::Mount && mount.is_none()) {
        return Ok(());
    }
    Err(Error::new(format!("machine {} was made with another bundle ({has}) than is asked for now ({wants})", container.name))
        .hint(format!(
            "leave the version and local.bundle as they were, or remove the cluster with `kup down --name {}` first",
            cluster.name
        )))
}

impl Design {
    /// Whether any container is to be made.
    pub(super) fn makes_machines(&self) -> bool {
        self.slots.iter().any(|s| s.found.is_none())
    }

    /// Whether any container is to be made or started.
    pub(super) fn starts_machines(&self) -> bool {
        self.slots.iter().any(|s| !s.found.as_ref().is_some_and(|f| f.running))
    }

    /// What the machines that don't run yet take.
    pub(super) fn needs(&self, image: bool) -> Needs {
        let idle = |role: Role| {
            self.slots.iter().filter(|s| s.wanted.role == role && !s.found.as_ref().is_some_and(|f| f.running)).count() as u64
        };
        Needs {
            masters: idle(Role::Master),
            minions: idle(Role::Minion),
            balancers: idle(Role::Balancer),
            image: image && self.makes_machines(),
        }
    }

    /// The plan as it is shown. `image` is the node image's name and whether it is there.
    pub(super) fn actions(&self, image: Option<(String, bool)>) -> Vec<Action> {
        let act = |verb, kind: &str, name: &str, detail: String| Action { verb, kind: kind.into(), name: name.into(), detail };
        let there = |stands: bool| if stands { Verb::Keep } else { Verb::Create };
        let mut actions = Vec::new();
        if let Some((tag, stands)) = image {
            actions.push(act(
                there(stands),
                "image",
                &tag,
                if stands { "node image".into() } else { "node image, built once from Debian's packages".into() },
            ));
        }
        actions.push(act(
            there(self.network_stands),
            "network",
            &self.network,
            format!("{} in {}", self.subnet, self.engine.name()),
        ));
        for slot in &self.slots {
            let name = &slot.wanted.name;
            actions.push(act(there(slot.volume), "volume", &names::volume(name), format!("/var of {name}")));
            let verb = match &slot.found {
                None => Verb::Create,
                Some(found) if found.running => Verb::Keep,
                Some(_) => Verb::Start,
            };
            actions.push(act(verb, "machine", name, format!("{}, {}", slot.wanted.role.as_str(), slot.address)));
        }
        for container in &self.surplus {
            actions.push(act(Verb::Delete, "machine", &container.name, "not asked for any more".into()));
        }
        for volume in &self.surplus_volumes {
            actions.push(act(Verb::Delete, "volume", volume, "its machine is not asked for any more".into()));
        }
        actions
    }
}

/// What stands of a cluster.
pub(super) async fn discover(engines: &[Engine], cluster: &str) -> Result<Found> {
    let labels = names::labels(cluster);
    let held = futures::future::try_join_all(engines.iter().map(|engine| Held::take(engine, &labels))).await?;
    let mut found = Found::default();
    for held in held.into_iter().map(|h| h.only(cluster)) {
        for container in &held.containers {
            match names::found(container) {
                Some(machine) => found.machines.push(machine),
                None => found.others.push(format!("container {}", container.name)),
            }
        }
        found.others.extend(held.networks.iter().map(|n| format!("network {}", n.name)));
        found.others.extend(held.volumes.iter().map(|v| format!("volume {}", v.name)));
    }
    found.machines.sort_by_key(|f| (f.machine.role, names::number(&f.machine.name), f.machine.name.clone()));
    found.others.sort();
    Ok(found)
}

/// The names of all local clusters, whatever is left of them.
pub(super) async fn clusters(engines: &[Engine]) -> Result<Vec<String>> {
    let labels = [format!("{}=local", names::PROVIDER)];
    let held = futures::future::try_join_all(engines.iter().map(|engine| Held::take(engine, &labels))).await?;
    let mut all = BTreeSet::new();
    for held in &held {
        let labels = held
            .containers
            .iter()
            .map(|c| &c.labels)
            .chain(held.networks.iter().map(|n| &n.labels))
            .chain(held.volumes.iter().map(|v| &v.labels));
        all.extend(labels.filter_map(names::owner).map(str::to_owned));
    }
    Ok(all.into_iter().collect())
}

/// The engine that has machines of a cluster.
pub(super) async fn engine_of(engines: &[Engine], cluster: &str) -> Result<Option<Engine>> {
    let labels = names::labels(cluster);
    for engine in engines {
        if engine.containers(&labels).await?.iter().any(|c| names::owned(&c.labels, cluster)) {
            return Ok(Some(engine.clone()));
        }
    }
    Ok(None)
}
