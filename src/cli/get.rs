//! `kup get`: the clusters there are, and the machines of one.

use serde::Serialize;

use super::Ui;
use super::nodes::table;
use super::target::TargetArgs;
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::error::Result;
use crate::machine::Role;
use crate::provider::{ClusterId, LocalProvider, Provider};
use crate::saved;
use crate::standing::{self, Standing};
use crate::status::nodes;
use crate::up::context_name;

/// List the clusters there are, or the machines of one
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// List all clusters, of all providers
    #[command(alias = "cluster")]
    Clusters {
        /// Container engine to look in
        #[arg(long, env = "KUP_ENGINE", value_enum, default_value = "auto", hide_default_value = true)]
        engine: EngineChoice,
    },
    /// List the machines of a cluster
    #[command(alias = "node", alias = "machines")]
    Nodes {
        #[command(flatten)]
        target: TargetArgs,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterRow {
    name: String,
    provider: ProviderKind,
    /// None if its config isn't here.
    version: Option<String>,
    machines: usize,
    running: usize,
    context: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    name: String,
    role: Role,
    address: std::net::Ipv4Addr,
    running: bool,
    /// None if the API doesn't say.
    ready: Option<bool>,
    version: Option<String>,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.what {
        What::Clusters { engine } => clusters(&LocalProvider::new(engine), ui).await,
        What::Nodes { target } => machines(&target, ui).await,
    }
}

async fn clusters(provider: &LocalProvider, ui: &Ui) -> Result<()> {
    let names = provider.clusters().await?;
    let rows = names.into_iter().map(|name| async {
        let id = ClusterId { provider: ProviderKind::Local, name };
        let found = provider.discover(&id.name).await?;
        Ok(ClusterRow {
            version: saved::load(&id)?.map(|c| c.kubernetes.version),
            machines: found.machines.len(),
            running: found.machines.iter().filter(|m| m.running).count(),
            context: context_name(&id),
            provider: id.provider,
            name: id.name,
        })
    });
    let rows = futures::future::try_join_all(rows).await?;
    if ui.json {
        return ui.result(&rows);
    }
    if rows.is_empty() {
        ui.report.note("there is no cluster; kup up makes one");
        return Ok(());
    }
    let rows = rows.into_iter().map(|c| {
        let version = c.version.unwrap_or_else(|| "unknown".into());
        [c.name, c.provider.as_str().to_owned(), version, format!("{}/{} running", c.running, c.machines), c.context]
    });
    ui.print(table(["NAME", "PROVIDER", "VERSION", "MACHINES", "CONTEXT"], rows));
    Ok(())
}

async fn machines(target: &TargetArgs, ui: &Ui) -> Result<()> {
    let target = target.require(&ui.report).await?;
    let found = standing::find(&target.id, &target.provider).await?;
    // The machines are there whether or not the API says something about them.
    let nodes = match Standing::of(&target.id, &target.provider).await {
        Ok(standing) => nodes(&standing).await.map_err(|e| ui.report.warn(e)).ok(),
        Err(e) => {
            ui.report.warn(format!("the API can't be asked: {}", e.what));
            None
        }
    };
    let rows: Vec<NodeRow> = found
        .machines
        .into_iter()
        .map(|m| {
            let node = nodes.iter().flatten().find(|n| n.name == m.machine.name);
            NodeRow {
                ready: nodes.as_ref().filter(|_| m.machine.role.is_node()).map(|_| node.is_some_and(|n| n.ready)),
                version: node.map(|n| n.version.clone()),
                name: m.machine.name,
                role: m.machine.role,
                address: m.machine.address,
                running: m.running,
            }
        })
        .collect();
    if ui.json {
        return ui.result(&rows);
    }
    let rows = rows.into_iter().map(|m| {
        let state = if m.running { "running" } else { "stopped" };
        let ready = match m.ready {
            None if !m.role.is_node() => "-",
            None => "unknown",
            Some(true) => "Ready",
            Some(false) => "NotReady",
        };
        let version = m.version.unwrap_or_else(|| "-".into());
        [m.name, m.role.as_str().to_owned(), m.address.to_string(), state.to_owned(), ready.to_owned(), version]
    });
    ui.print(table(["NAME", "ROLE", "ADDRESS", "MACHINE", "NODE", "VERSION"], rows));
    Ok(())
}
