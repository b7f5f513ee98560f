//! `kup kubeconfig`: how programs reach the cluster.

use std::path::PathBuf;

use super::Ui;
use super::target::TargetArgs;
use crate::error::{Error, Result};
use crate::kubeconfig::{self, Access};
use crate::provider::Finder as _;
use crate::state::write_atomic;
use crate::{standing, up};

/// Print a cluster's kubeconfig, merge it into yours, or write it to a file
///
/// It holds a key: whoever has it is the cluster's administrator until its certificate ends.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    to: Destination,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let target = args.target.require(ui).await?;
    standing::find(&target.id, &target.provider).await?;
    // Of a cluster that was made elsewhere this says the most.
    target.provider.config(&target.id).await?;
    let pki = target.provider.pki(&target.id).await?;
    let access = up::access(&target.id, &pki, &target.provider).await?;
    give(&args.to, &access, ui).await
}

/// Where the kubeconfig goes: to stdout, unless one of these is given
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Destination {
    /// Print it (the default)
    #[arg(long, group = "destination")]
    print: bool,
    /// Merge it into your kubeconfig ($KUBECONFIG or ~/.kube/config), and make it current
    #[arg(long, group = "destination")]
    merge: bool,
    /// Write it to a new file, readable only by you
    #[arg(long, group = "destination", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    export: Option<PathBuf>,
    /// With --export: replace the file if there is one
    #[arg(long, requires = "export")]
    force: bool,
}

/// Prints, merges or exports an access.
pub async fn give(to: &Destination, access: &Access, ui: &Ui) -> Result<()> {
    if to.merge {
        let file = kubeconfig::merge(access)?;
        ui.report.note(format!("context {} is in {} and current: try `kubectl get nodes`", access.context, file.display()));
    } else if let Some(file) = &to.export {
        if !to.force && file.symlink_metadata().is_ok() {
            let what = format!("cannot write {}", file.display());
            return Err(Error::usage(what)
                .why("it exists already")
                .hint("name another file, replace it with --force, or add to your kubeconfig with --merge"));
        }
        write_atomic(file, kubeconfig::render(access).as_bytes(), 0o600)?;
        ui.report.note(format!("wrote {}: try `kubectl --kubeconfig {} get nodes`", file.display(), file.display()));
    } else {
        ui.print(kubeconfig::render(access).trim_end());
    }
    Ok(())
}
