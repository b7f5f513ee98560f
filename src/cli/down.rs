//! `kup down`: remove every trace of a cluster.

use serde_json::json;

use super::Ui;
use super::target::{Target, TargetArgs, Which};
use crate::aws::leftovers::Volumes;
use crate::down;
use crate::error::{Error, Kind, Result};
use crate::provider::LocalProvider;

pub(super) mod aws;

/// Remove every trace of a cluster
///
/// Needs nothing but its name (and on AWS a login and the region): what belongs to it is found by its labels. Works on half-made
/// clusters, and twice.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// On AWS, what becomes of the volumes that pods claimed; asked on a terminal, otherwise they are kept
    #[arg(long, value_name = "WHAT")]
    volumes: Option<Volumes>,
    /// On AWS, take the cluster from whoever is at work on it; for when that one is surely gone
    #[arg(long)]
    break_lock: bool,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.target.which(ui).await? {
        Some(Which::Local(target)) => local(&args, target, ui).await,
        Some(Which::Aws(provider)) => aws::run(&args, provider, ui).await,
        None if ui.json => ui.result(&json!({ "removed": null })),
        None => {
            let Error { what, hints, .. } = args.target.none(&ui.report)?;
            let all: Vec<String> = std::iter::once(what.replacen('t', "T", 1)).chain(hints).collect();
            ui.print(format!("{}.", all.join("; ")));
            Ok(())
        }
    }
}

async fn local(args: &Args, target: Target<LocalProvider>, ui: &Ui) -> Result<()> {
    let name = target.id.name.clone();
    let found = down::plan(&target.id, &target.provider).await?;
    let things = found.machines.len() + found.others.len();
    if things > 0 {
        if !args.yes && !ui.json {
            let machines = found.machines.iter().map(|found| format!("machine {}", found.machine.name));
            ui.print(machines.chain(found.others.iter().cloned()).collect::<Vec<_>>().join("\n"));
        }
        let machines = found.machines.len();
        let word = if machines == 1 { "machine" } else { "machines" };
        let question = format!("Remove cluster {name} with {machines} {word} and all that is in it?");
        if !ui.confirm(question, args.yes).await? {
            return Err(Error::new("nothing was removed").kind(Kind::Interrupted));
        }
    }
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    down::run(&target.id, &target.provider, &command, &ui.report).await?;
    if ui.json {
        return ui.result(&json!({ "removed": name, "things": things }));
    }
    ui.print(if things == 0 {
        format!("There was nothing of a cluster {name}.")
    } else {
        format!("Nothing of cluster {name} is left.")
    });
    Ok(())
}
