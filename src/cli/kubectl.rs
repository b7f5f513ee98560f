//! `kup kubectl`: the bundle's kubectl, of the cluster's own version, as the cluster's administrator.

use std::process::Command;

use super::Ui;
use super::nodes::become_program;
use super::target::TargetArgs;
use crate::bundle::{Arch, Bundle};
use crate::error::{Error, Result};
use crate::provider::Finder as _;
use crate::{kubeconfig, standing, state, up};

/// Run kubectl on a cluster: that of its own version, without touching your kubeconfig
///
/// Everything after the first word that is kubectl's goes to kubectl; `--` makes it plain where that begins.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// What kubectl is to do
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let target = args.target.require(ui).await?;
    standing::find(&target.id, &target.provider).await?;
    let cluster = target.provider.config(&target.id).await?;
    let version = &cluster.kubernetes.version;
    let bundle = Bundle::open(&state::cache_dir()?, version, Arch::host()?)?.ok_or_else(|| {
        Error::new(format!("the bundle of Kubernetes {version}, which holds its kubectl, is not in the cache"))
            .hint(format!("`kup bundle build --version {version}` or `kup bundle fetch --version {version}` gets it"))
    })?;
    bundle.verify(false)?;
    let pki = target.provider.pki(&target.id).await?;
    let access = up::access(&target.id, &pki, &target.provider).await?;
    // kubectl reads it after kup is gone, so it isn't a temporary file; it goes with the cluster.
    state::private_dir(&state::cluster_dir(&target.id)?)?;
    let file = state::cluster_dir(&target.id)?.join("kubeconfig");
    state::write_atomic(&file, kubeconfig::render(&access).as_bytes(), 0o600)?;
    let mut kubectl = Command::new(bundle.path("kubectl")?);
    kubectl.args(&args.args).env("KUBECONFIG", &file);
    become_program(kubectl, "kubernetes-client", ui)
}
