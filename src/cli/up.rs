//! `kup up`: make the cluster be as the config says.

use serde_json::json;

use super::Ui;
use super::config_args::ConfigArgs;
use super::plan::{self, print};
use super::target::only;
use crate::bootstrap::STEPS;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::provider::local::LocalProvider;
use crate::provider::{Action, ClusterId, Provider, Verb};
use crate::up::{Outcome, Until, Up};
use crate::{replace, saved};

/// Make the cluster be as the config says: build it, finish it, repair it, resize it
///
/// Running it again is always safe: what is there is kept, what is missing is made, and if nothing is missing nothing changes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not ask before something is removed
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be done, as `kup plan` does
    #[arg(long)]
    dry_run: bool,
    /// Stop after this step
    #[arg(long, value_name = "STEP", value_parser = steps())]
    until: Option<String>,
    /// Make this machine anew, with an empty disk: for one that is silent or broken; can be given several times
    #[arg(long, value_name = "MACHINE")]
    replace: Vec<String>,
    /// Raise limits of this host that are too small for the machines (fs.inotify.max_user_instances), if root may
    #[arg(long, env = "KUP_RAISE_LIMITS")]
    raise_limits: bool,
    /// Fetch the bundle from here instead of upstream: URL/<host>/<path>
    #[arg(long, value_name = "URL", env = "KUP_BUNDLE_MIRROR")]
    mirror: Option<reqwest::Url>,
}

fn steps() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(std::iter::once("machines").chain(STEPS.iter().map(|s| s.name)))
}

impl Args {
    /// What is to be done. Without a name the only cluster there is is meant; a cluster that stands is taken as it was last made,
    /// where neither a file nor a flag says otherwise.
    async fn up(&self, ui: &Ui) -> Result<Up> {
        let cluster = cluster(&self.config, ui).await?;
        Ok(Up {
            replace: replace::named(&cluster, &self.replace)?,
            cluster,
            until: self
                .until
                .as_deref()
                .map(|name| STEPS.iter().position(|s| s.name == name).map_or(Until::Machines, Until::Step)),
            raise_limits: self.raise_limits,
            mirror: self.mirror.clone(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        })
    }
}

/// The wanted cluster.
pub(super) async fn cluster(args: &ConfigArgs, ui: &Ui) -> Result<Cluster> {
    let mut args = args.clone();
    let mut loaded = args.load(&ui.report)?;
    if loaded.file.is_none() {
        if !loaded.is_set("name") {
            let provider = LocalProvider::new(loaded.cluster.local.engine);
            // An engine that can't be asked is named below, where its reason is told in full.
            if let Ok(names) = provider.clusters().await
                && let Some(name) = only(&names)?
            {
                args.name = Some(name);
                loaded = args.load(&ui.report)?;
            }
        }
        let id = ClusterId { provider: loaded.cluster.provider, name: loaded.cluster.name.clone() };
        if saved::load(&id)?.is_some() {
            args.file = Some(saved::config_path(&id)?);
            loaded = args.load(&ui.report)?;
        }
    }
    Ok(loaded.cluster)
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let up = args.up(ui).await?;
    let provider = up.provider();
    let plan = up.plan(&provider).await?;
    if args.dry_run {
        return plan::show(&plan, false, ui);
    }
    if needs_a_yes(&plan) {
        print(&plan, ui);
        if !ui.confirm(format!("Change cluster {} like this?", up.cluster.name), args.yes).await? {
            return Err(Error::new("nothing was changed").kind(Kind::Interrupted));
        }
    }
    let name = up.cluster.name.clone();
    match up.run(provider, &plan, &ui.report).await? {
        Outcome::Stopped => {
            let step = args.until.unwrap_or_default();
            if ui.json {
                return ui.result(&json!({ "cluster": name, "stoppedAfter": step }));
            }
            ui.print(format!("Cluster {name} stands up to the step {step}. `kup up --name {name}` goes on, `kup down --name {name}` removes it."));
        }
        Outcome::Ready { access, changed } => {
            if ui.json {
                return ui
                    .result(&json!({ "cluster": name, "server": access.server, "context": access.context, "changed": changed }));
            }
            let word = if changed { "is ready" } else { "is ready, as before," };
            ui.print(format!(
                "Cluster {name} {word} at {}; your kubectl context is {}.\n\nNext:\n  kup status\n  kup kubectl -- get nodes\n  kup down --name {name}",
                access.server, access.context
            ));
        }
    }
    Ok(())
}

/// Local machines cost nothing: only taking something away is asked about.
fn needs_a_yes(plan: &[Action]) -> bool {
    plan.iter().any(|a| matches!(a.verb, Verb::Delete | Verb::Replace))
}
