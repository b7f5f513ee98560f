//! How a cluster is: every machine, unit, certificate and Node, the API and what runs on it, and what is not well with a way out.
//!
//! Reads only. Machines are asked by one SSH call each, all at once, and the API beside them; what doesn't answer is named with its
//! reason, and keeps nothing else from being told.

mod addons;
mod api;
mod certificates;
mod etcd;
mod judge;
mod machine;

use std::time::Duration;

use serde::Serialize;

pub use addons::Addon;
pub use api::{Api, ApiServer, Node, Pod, Replicas, nodes, pods};
pub use certificates::Certificate;
pub use etcd::{Etcd, EtcdMember};
pub use machine::{Disk, MachineStatus, UNITS, Unit, units};

use crate::cluster::spec::ProviderKind;
use crate::machine::Role;
use crate::provider::FoundMachine;
use crate::provider::local::names;
use crate::standing::Standing;
use crate::up::context_name;

/// How long one machine may take to say how it is.
const MACHINE: Duration = Duration::from_secs(15);

/// How a cluster is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its name.
    pub cluster: String,
    /// Who made its machines.
    pub provider: ProviderKind,
    /// Its context in the user's kubeconfig.
    pub context: String,
    /// The Kubernetes version it was made with.
    pub version: String,
    /// Whether nothing is failing. Warnings leave it healthy.
    pub healthy: bool,
    /// What is not well, causes before effects.
    pub problems: Vec<Problem>,
    /// Each component, over all machines.
    pub components: Vec<Component>,
    /// Each machine, masters first.
    pub machines: Vec<MachineStatus>,
    /// etcd over all masters; none if none of it answers.
    pub etcd: Option<Etcd>,
    /// What the API says.
    pub api: Api,
}

/// A component over all machines that should run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// How many of it are well.
    pub well: usize,
    /// How many there should be.
    pub of: usize,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work.
    Failing,
    /// It works, but not for long, or not as it should.
    Warning,
}

/// One thing that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The machine it is on, by its full name.
    pub machine: Option<String>,
    /// What is not well, as one sentence without a full stop.
    pub what: String,
    /// Its reason or last words; may have several lines.
    pub why: Option<String>,
    /// What to type.
    pub next: Option<String>,
}

impl Status {
    /// Asks the whole cluster. Never fails: what can't be asked is a problem in the answer.
    pub async fn of(standing: &Standing) -> Status {
        let asked = standing.machines.iter().map(|found| async {
            if !found.running {
                return MachineStatus::silent(found, None);
            }
            match tokio::time::timeout(MACHINE, machine::ask(found, &standing.login)).await {
                Ok(Ok(status)) => status,
                Ok(Err(e)) => {
                    MachineStatus::silent(found, Some(std::iter::once(e.what).chain(e.why).collect::<Vec<_>>().join(": ")))
                }
                Err(_) => MachineStatus::silent(found, Some(format!("it did not say within {} s how it is", MACHINE.as_secs()))),
            }
        });
        let (machines, api) = tokio::join!(futures::future::join_all(asked), api::ask(standing));
        let missing = missing(standing);
        let etcd = etcd::of(&machines);
        let seen = judge::Seen { id: &standing.id, machines: &machines, missing, etcd: etcd.as_ref(), api: &api };
        let problems = judge::problems(&seen);
        Status {
            cluster: standing.id.name.clone(),
            provider: standing.id.provider,
            context: context_name(&standing.id),
            version: standing.cluster.kubernetes.version.clone(),
            healthy: problems.iter().all(|p| p.severity == Severity::Warning),
            components: components(&machines, &api),
            problems,
            machines,
            etcd,
            api,
        }
    }

    /// The problems that make it unhealthy.
    pub fn failing(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|p| p.severity == Severity::Failing)
    }
}

/// The machines that the config names and that are not there. On AWS these are masters: minions are counted by their groups.
fn missing(standing: &Standing) -> Vec<String> {
    let called = |found: &FoundMachine| match &found.machine.cloud {
        Some(cloud) => cloud.resource.clone(),
        None => found.machine.name.clone(),
    };
    let there: Vec<String> = standing.machines.iter().map(called).collect();
    let wanted: Vec<String> = match standing.id.provider {
        ProviderKind::Local => names::wanted(&standing.cluster).into_iter().map(|wanted| wanted.name).collect(),
        ProviderKind::Aws => (1..=standing.cluster.masters.count).map(|n| format!("master-{n}")).collect(),
    };
    wanted.into_iter().filter(|name| !there.contains(name)).collect()
}

fn components(machines: &[MachineStatus], api: &Api) -> Vec<Component> {
    let mut all: Vec<Component> = UNITS
        .iter()
        .map(|(unit, ..)| {
            let wanting = machines.iter().filter(|m| units(m.role, m.in_cloud).any(|u| u == *unit));
            let well = wanting.clone().filter(|m| m.units.iter().any(|u| u.name == *unit && u.well())).count();
            Component { name: (*unit).to_owned(), well, of: wanting.count() }
        })
        // One master needs nothing in front of it.
        .filter(|component| component.of > 0)
        .collect();
    // A balancer has an API of its own, as far as users are concerned.
    let serving = machines.iter().filter(|m| m.role != Role::Minion).count();
    all.push(Component { name: "API".into(), well: api.servers.iter().filter(|s| s.ready).count(), of: serving });
    all.push(Component {
        name: "nodes".into(),
        well: machines.iter().filter(|m| api.node(&m.name).is_some_and(|n| n.ready)).count(),
        of: machines.iter().filter(|m| m.role.is_node()).count(),
    });
    if let Some(dns) = &api.dns {
        all.push(Component { name: "DNS".into(), well: dns.ready, of: dns.wanted });
    }
    if let Some(addons) = api.addons.as_ref().filter(|a| !a.is_empty()) {
        let well = addons.iter().filter(|a| a.ready).count();
        all.push(Component { name: "add-ons".into(), well, of: addons.len() });
    }
    if let Some(pods) = &api.system_pods {
        all.push(Component { name: "system pods".into(), well: pods.iter().filter(|p| p.well).count(), of: pods.len() });
    }
    all
}
