//! `kup get`: the clusters there are, and the machines of one.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Ui;
use super::config_args::ConfigArgs;
use super::nodes::table;
use super::same::Same;
use super::target::TargetArgs;
use crate::aws::census::{self, Billed};
use crate::aws::leftovers::is_kept;
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::error::Result;
use crate::known;
use crate::machine::Role;
use crate::provider::aws::kept;
use crate::provider::{AwsProvider, ClusterId, Finder, LocalProvider};
use crate::report::Report;
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
        /// Only those of this provider; without it those of AWS are asked for only if the config is for AWS [env: KUP_PROVIDER]
        #[arg(long)]
        provider: Option<ProviderKind>,
        /// Region of the AWS provider; without it that of the config, of AWS_REGION or of the profile [env: KUP_REGION]
        #[arg(long)]
        region: Option<String>,
        /// Profile of the AWS configuration; without it that of the config, of AWS_PROFILE, or the default one [env: KUP_PROFILE]
        #[arg(long)]
        profile: Option<String>,
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
    /// None if it is not in kubeconfigs: on AWS machines don't become a cluster yet.
    context: Option<String>,
    /// Where it is on AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    /// Its Node's name.
    name: String,
    /// What it is called among the cluster's resources in a cloud, if that is another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    called: Option<String>,
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
        What::Clusters { engine, provider, region, profile } => {
            let config = ConfigArgs { provider, region, profile, ..ConfigArgs::default() };
            clusters(&LocalProvider::new(engine), provider, &config, ui).await
        }
        What::Nodes { target } => machines(&target, ui).await,
    }
}

async fn clusters(local: &LocalProvider, only: Option<ProviderKind>, config: &ConfigArgs, ui: &Ui) -> Result<()> {
    // Whoever uses AWS has said so: nobody else's machine asks it anything.
    let cluster = match only {
        Some(ProviderKind::Local) => None,
        _ => Some(config.load(&Report::silent())?.cluster).filter(|cluster| cluster.provider == ProviderKind::Aws),
    };
    let here = async {
        match only {
            Some(ProviderKind::Aws) => Ok(Vec::new()),
            _ => on_this_host(local).await,
        }
    };
    let there = async {
        match &cluster {
            Some(cluster) => on_aws(&AwsProvider::connect(cluster).await?).await,
            None => Ok(Vec::new()),
        }
    };
    let (mut rows, on_aws) = tokio::try_join!(here, there)?;
    rows.extend(on_aws);
    if ui.json {
        return ui.result(&rows);
    }
    let (elsewhere, known) = (cluster.is_none() && only.is_none(), known::on_aws());
    if rows.is_empty() {
        let aws = if elsewhere && known.is_empty() { "; `kup get clusters --provider aws` lists those on AWS" } else { "" };
        ui.report.note(format!("there is no cluster{aws}; `kup up` makes one"));
    }
    if let [one, ..] = known.as_slice()
        && elsewhere
    {
        let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
        let there = Same::known(one).complete("`kup get clusters`");
        ui.report.note(format!("on AWS this machine knows of {}; {there} lists those there are", names.join(", ")));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = rows.into_iter().map(|c| {
        let version = c.version.unwrap_or_else(|| "unknown".into());
        let provider =
            c.region.map_or_else(|| c.provider.as_str().to_owned(), |region| format!("{} {region}", c.provider.as_str()));
        let context = c.context.unwrap_or_else(|| "-".into());
        [c.name, provider, version, format!("{}/{} running", c.running, c.machines), context]
    });
    ui.print(table(["NAME", "PROVIDER", "VERSION", "MACHINES", "CONTEXT"], rows));
    Ok(())
}

async fn on_this_host(provider: &LocalProvider) -> Result<Vec<ClusterRow>> {
    let names = provider.clusters().await?;
    let rows = names.into_iter().map(|name| async {
        let id = ClusterId { provider: ProviderKind::Local, name };
        let found = provider.discover(&id.name).await?;
        Ok(ClusterRow {
            version: saved::load(&id)?.map(|c| c.kubernetes.version),
            machines: found.machines.len(),
            running: found.machines.iter().filter(|m| m.running).count(),
            context: Some(context_name(&id)),
            provider: id.provider,
            region: None,
            name: id.name,
        })
    });
    futures::future::try_join_all(rows).await
}

/// Those of which anything is left in the region, be it only a role; but not for volumes that were kept.
async fn on_aws(provider: &AwsProvider) -> Result<Vec<ClusterRow>> {
    let things = census::take(&provider.aws, None).await?;
    let names: BTreeSet<&str> = things.iter().filter(|thing| !is_kept(thing)).map(|thing| thing.cluster.as_str()).collect();
    let rows = names.into_iter().map(|name| {
        let things = &things;
        async move {
            let machines = things.iter().filter(|thing| thing.cluster == name && thing.kind == "instance");
            let kept = kept::load(&provider.aws.of(name)).await?;
            let id = ClusterId { provider: ProviderKind::Aws, name: name.to_owned() };
            Ok(ClusterRow {
                name: name.to_owned(),
                provider: ProviderKind::Aws,
                region: Some(provider.aws.region.clone()),
                version: kept.map(|kept| kept.cluster.kubernetes.version),
                machines: machines.clone().count(),
                running: machines.filter(|thing| thing.billed != Billed::No).count(),
                context: Some(context_name(&id)),
            })
        }
    });
    futures::future::try_join_all(rows).await
}

async fn machines(target: &TargetArgs, ui: &Ui) -> Result<()> {
    let target = target.require(ui).await?;
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
                called: m.machine.called().map(str::to_owned),
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
    let called = rows.iter().any(|row| row.called.is_some());
    let rows = rows.into_iter().map(|m| {
        let state = if m.running { "running" } else { "stopped" };
        let ready = match m.ready {
            None if !m.role.is_node() => "-",
            None => "unknown",
            Some(true) => "Ready",
            Some(false) => "NotReady",
        };
        let version = m.version.unwrap_or_else(|| "-".into());
        let rest = [m.role.as_str().to_owned(), m.address.to_string(), state.to_owned(), ready.to_owned(), version];
        (m.name, m.called, rest)
    });
    // Where the cloud names machines, both names are of use: one to kubectl, the other to `kup ssh` and `--replace`.
    if called {
        let rows = rows.map(|(name, called, [a, b, c, d, e])| [called.unwrap_or_else(|| name.clone()), name, a, b, c, d, e]);
        ui.print(table(["NAME", "NODE NAME", "ROLE", "ADDRESS", "MACHINE", "NODE", "VERSION"], rows));
    } else {
        let rows = rows.map(|(name, _, [a, b, c, d, e])| [name, a, b, c, d, e]);
        ui.print(table(["NAME", "ROLE", "ADDRESS", "MACHINE", "NODE", "VERSION"], rows));
    }
    Ok(())
}
