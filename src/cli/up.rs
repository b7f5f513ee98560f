//! `kup up`: make the cluster be as the config says.

use std::time::Duration;

use serde_json::{Value, json};

use super::Ui;
use super::config_args::ConfigArgs;
use super::picture::Picture;
use super::plan::{self, print};
use super::target::only;
use crate::bootstrap::STEPS;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::picture::timeline;
use crate::provider::local::LocalProvider;
use crate::provider::{Action, ClusterId, Provider, Verb};
use crate::report::chain::{self, chain};
use crate::report::tree::duration;
use crate::times::{self, Work};
use crate::up::{Outcome, Until, Up, context_name, is_empty, makes_all};
use crate::{kubeconfig, replace, saved};

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
    #[arg(long, value_name = "DURATION", env = "KUP_TIMEOUT", value_parser = patience)]
    timeout: Option<Duration>,
    /// Fetch the bundle from here instead of upstream: URL/<host>/<path>
    #[arg(long, value_name = "URL", env = "KUP_BUNDLE_MIRROR")]
    mirror: Option<reqwest::Url>,
    /// Draw the run into this file (.svg), also if it fails: what each machine did when, and what decided how long it took
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "dry_run")]
    timeline: Option<Picture>,
}

/// A number and `s`, `m` or `h`; at least a second, at most a day.
fn patience(text: &str) -> std::result::Result<Duration, String> {
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
    if args.dry_run {
        return plan::show(&up.plan(&provider).await?, false, ui);
    }
    let name = up.cluster.name.clone();
    if let Some(picture) = args.timeline.clone() {
        picture.check()?;
        let cluster = up.cluster.clone();
        ui.at_end(move |record, well| picture.write(&timeline::draw(record, &cluster.name, well)));
    }
    ui.report.run(&name, None);
    let span = ui.report.step("plan");
    span.waiting("what stands already");
    let plan = match up.plan(&provider).await {
        Ok(plan) => plan,
        Err(e) => return span.close(Err(e)),
    };
    span.done_with(plan::sum(&plan).unwrap_or_else(|| "nothing to change".into()));
    let kind = work(&up, &plan).map(|work| times::Kind::of(&up.cluster, work));
    let file = times::path()?;
    if let Some(expected) = kind.as_ref().and_then(|kind| times::expected(&file, kind)) {
        ui.report.run(&name, Some(expected));
    }
    if needs_a_yes(&plan) {
        print(&plan, ui);
        let question = format!("Change cluster {name} like this?");
        let asked = if args.yes { None } else { Some(ui.report.step("your answer")) };
        if !ui.confirm(question, args.yes).await? {
            return Err(Error::new("nothing was changed").kind(Kind::Interrupted));
        }
        if let Some(span) = asked {
            span.done_with("yes");
        }
    }
    let outcome = up.run(provider, &plan, &ui.report).await?;
    let record = ui.record()?;
    let links = chain(&record, true);
    let (head, next, mut result) = told(&outcome, &name, args.until.as_deref().unwrap_or_default());
    if let (Outcome::Ready { changed, .. }, Some(kind)) = (&outcome, kind)
        && *changed == makes_all(&plan)
        && let Err(e) = times::remember(&file, kind, &record)
    {
        ui.report.warn(format!("how long this took can't be remembered: {}", e.why.first().unwrap_or(&e.what)));
    }
    if ui.json {
        result["took"] = json!(record.now);
        result["chain"] = json!(links);
        return ui.result(&result);
    }
    // Indented, and never in the last column, where terminals disagree about wrapping.
    let columns = ui.columns().map_or(usize::MAX, |c| c.saturating_sub(3));
    let lines: String = chain::lines(&links, &format!("{name}-"), columns).iter().map(|l| format!("\n  {l}")).collect();
    ui.print(format!("{head}\n\nWhat the time went to ({}):{lines}{next}", duration(record.now)));
    Ok(())
}

/// What this run has to do, if that can be compared with other runs: all, or nothing.
fn work(up: &Up, plan: &[Action]) -> Option<Work> {
    if up.until.is_some() {
        None
    } else if makes_all(plan) {
        Some(Work::All)
    } else {
        // Machines that stand need not be a cluster yet: its context comes last.
        (is_empty(plan) && kubeconfig::has(&context_name(&up.id()))).then_some(Work::Nothing)
    }
}

/// An outcome in words, what to type next, and the outcome as JSON.
fn told(outcome: &Outcome, name: &str, until: &str) -> (String, String, Value) {
    match outcome {
        Outcome::Stopped => (
            format!(
                "Cluster {name} stands up to the step {until}. `kup up --name {name}` goes on, `kup down --name {name}` removes it."
            ),
            String::new(),
            json!({ "cluster": name, "stoppedAfter": until }),
        ),
        Outcome::Ready { access, changed } => {
            let word = if *changed { "is ready" } else { "is ready, as before," };
            let head = format!("Cluster {name} {word} at {}; your kubectl context is {}.", access.server, access.context);
            let next = format!("\n\nNext:\n  kup status\n  kup kubectl -- get nodes\n  kup down --name {name}");
            (head, next, json!({ "cluster": name, "server": access.server, "context": access.context, "changed": changed }))
        }
    }
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
        let of = |text: &str| patience(text).map(|d| d.as_secs());
        assert_eq!((of("45s"), of("5m"), of("1h"), of("24h")), (Ok(45), Ok(300), Ok(3600), Ok(86_400)));
        for wrong in ["", "s", "5", "0s", "-1s", "1.5m", "25h", "999999s", "1d", "5 m", "٥m", "m5"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
