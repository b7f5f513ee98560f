//! `kup up`: make the cluster be as the config says.

use std::time::Duration;

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
    #[arg(long, env = "KUP_RAISE_LIMITS", value_parser = clap::builder::FalseyValueParser::new())]
    raise_limits: bool,
    /// How long to wait for any one thing (a machine's SSH, a unit, the API server, a node to join, all ready): 45s, 5m
    ///
    /// Without it each wait has a limit of its own, between 30 s and 3 minutes. What can't come about any more ends a wait sooner.
    #[arg(long, value_name = "DURATION", env = "KUP_TIMEOUT", value_parser = duration)]
    timeout: Option<Duration>,
    /// Fetch the bundle from here instead of upstream: URL/<host>/<path>
    #[arg(long, value_name = "URL", env = "KUP_BUNDLE_MIRROR")]
    mirror: Option<reqwest::Url>,
}

/// A number and `s`, `m` or `h`; at least a second, at most a day.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let digits = (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    match number.parse::<u64>().ok().filter(|_| digits).map(|n| n * unit) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a number and s, m or h, like 45s, 5m or 1h".into()),
    }
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
            patience: self.timeout,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_that_make_sense_are_taken() {
        let of = |text: &str| duration(text).map(|d| d.as_secs());
        assert_eq!((of("45s"), of("5m"), of("1h"), of("24h")), (Ok(45), Ok(300), Ok(3600), Ok(86_400)));
        for wrong in ["", "s", "5", "0s", "-1s", "1.5m", "25h", "999999s", "1d", "5 m", "٥m", "m5"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
