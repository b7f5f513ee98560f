//! `kup down`: remove every trace of a cluster.

use serde_json::json;

use super::Ui;
use super::target::TargetArgs;
use crate::down;
use crate::error::{Error, Kind, Result};

/// Remove every trace of a cluster
///
/// Needs nothing but its name: what belongs to it is found by its labels. Works on half-made clusters, and twice.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let Some(target) = args.target.find(&ui.report).await? else {
        if ui.json {
            return ui.result(&json!({ "removed": null }));
        }
        ui.print("There is no cluster.");
        return Ok(());
    };
    let name = target.id.name.clone();
    let found = down::plan(&target.id, &target.provider).await?;
    let things = found.machines.len() + found.others.len();
    if things > 0 {
        let question = format!("Remove cluster {name} with {} machines and all that is in it?", found.machines.len());
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
