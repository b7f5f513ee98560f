//! `kup graph`: a cluster as it stands, drawn.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Ui;
use super::picture::Picture;
use super::target::TargetArgs;
use crate::error::{Context, Result};
use crate::picture::cluster::{Cluster, Machine, Pod, State, draw};
use crate::provider::{Finder, FoundMachine};
use crate::standing::Standing;
use crate::status::{self, Node};
use crate::up;

/// Roles of machines that are nodes. One of another role only leads to the API.
const NODES: [&str; 2] = ["master", "minion"];

/// Draw a cluster as it stands: its machines, their addresses, versions, states and pods
///
/// Machines of one role stand together, below the address of the API. What can't be asked is drawn as unknown, with the reason.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// The file to draw into (.svg); an older picture of that name is replaced
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    picture: Picture,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    args.picture.check()?;
    let target = args.target.require(ui).await?;
    let standing = Standing::of(&target.id, &target.provider).await?;
    let cluster = look(&standing, &target.provider).await?;
    if let Some(why) = &cluster.silent {
        ui.report.warn(why);
    }
    args.picture.write(&draw(&cluster))?;
    let (machines, pods) =
        (cluster.machines.len(), cluster.machines.iter().filter_map(|m| m.pods.as_ref()).map(Vec::len).sum::<usize>());
    if ui.json {
        return ui.result(
            &json!({ "file": args.picture.path(), "machines": machines, "pods": cluster.silent.is_none().then_some(pods) }),
        );
    }
    ui.print(format!("{}: cluster {}, {machines} machines", args.picture.path().display(), cluster.name));
    Ok(())
}

/// What there is to draw.
async fn look(standing: &Standing, provider: &impl Finder) -> Result<Cluster> {
    let access = up::access(&standing.id, standing.pki(), provider);
    let (access, nodes, pods) = tokio::join!(access, status::nodes(standing), status::pods(standing));
    let silent = nodes.as_ref().err().or(pods.as_ref().err()).cloned();
    let (nodes, pods) = (nodes.ok(), pods.ok());
    let on = |name: Option<&str>| -> Option<Vec<Pod>> {
        let here = pods.as_ref()?.iter().filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == name);
        let mut here: Vec<Pod> = here.map(pod).collect();
        here.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Some(here)
    };
    let mut found: Vec<&FoundMachine> = standing.machines.iter().collect();
    // What stands before the masters is what users reach first.
    found.sort_by_key(|f| NODES.contains(&f.machine.role.as_str()));
    let machines = found.into_iter().map(|found| machine(found, nodes.as_deref(), on(Some(&found.machine.name))));
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    Ok(Cluster {
        name: standing.cluster.name.clone(),
        provider: standing.id.provider.as_str().to_owned(),
        version: standing.cluster.kubernetes.version.clone(),
        endpoint: access?.server,
        silent,
        machines: machines.collect(),
        waiting: on(None).unwrap_or_default(),
        time: OffsetDateTime::now_utc().format(format).context("cannot write the time")?,
    })
}

fn machine(found: &FoundMachine, nodes: Option<&[Node]>, pods: Option<Vec<Pod>>) -> Machine {
    let role = found.machine.role.as_str();
    let node = nodes.into_iter().flatten().find(|n| n.name == found.machine.name);
    let state = match node {
        _ if !found.running => State::Stopped,
        Some(node) if !node.ready => State::NotReady,
        Some(node) if node.cordoned => State::Cordoned,
        Some(_) => State::Ready,
        None if nodes.is_some() && NODES.contains(&role) => State::NotReady,
        None => State::Running,
    };
    let address: Ipv4Addr = found.machine.address;
    Machine {
        name: found.machine.name.clone(),
        role: role.to_owned(),
        address: address.to_string(),
        state,
        version: node.map(|n| n.version.clone()),
        pods: pods.filter(|_| node.is_some()),
    }
}

fn pod(pod: &core::Pod) -> Pod {
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Pod {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        well: ready || status.phase.as_deref() == Some("Succeeded"),
    }
}
