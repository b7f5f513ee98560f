//! `kup plan`: what `up` would do.

use comfy_table::{Table, presets};

use super::Ui;
use super::config_args::ConfigArgs;
use super::up::{Wanted, wanted};
use crate::aws::plan_view::View;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::graph;
use crate::provider::aws::AwsPlan;
use crate::provider::{Action, Verb};
use crate::times::{self, Work};
use crate::up::{Up, is_empty};

/// Say what `up` would make, keep, start or remove; change nothing
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Exit with 3 if anything would change
    #[arg(long)]
    detailed_exitcode: bool,
    /// On AWS, what may be made anew, as `kup up --replace` takes it; can be given several times
    #[arg(long, value_name = "KIND/NAME")]
    replace: Vec<String>,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match wanted(&args.config, ui).await? {
        Wanted::Local(cluster) => {
            let up = Up::of(cluster);
            show(&up.plan(&up.provider()).await?, args.detailed_exitcode, ui)
        }
        Wanted::Aws(cluster, provider) => {
            ui.report.note(format!("AWS account {}", provider.identity()));
            let plan = provider.plan(&cluster, &args.replace).await?;
            provider.preflight(&cluster, &plan, &ui.report).await?;
            show_aws(&plan, &cluster, args.detailed_exitcode, ui)
        }
    }
}

/// Prints a plan; with `detailed`, one that changes something is an error of kind [`Kind::Unhealthy`].
pub(super) fn show(plan: &[Action], detailed: bool, ui: &Ui) -> Result<()> {
    if ui.json {
        ui.result(&plan)?;
    } else {
        print(plan, ui);
    }
    if detailed && !is_empty(plan) {
        return Err(Error::new("changes are pending").kind(Kind::Unhealthy).hint("`kup up` makes them"));
    }
    Ok(())
}

/// As [`show`], for AWS.
pub(super) fn show_aws(plan: &AwsPlan, cluster: &Cluster, detailed: bool, ui: &Ui) -> Result<()> {
    let view = view(plan, cluster)?;
    if ui.json {
        ui.result(&view)?;
    } else {
        ui.print(view.text(ui.columns(), true));
    }
    if detailed && !view.is_empty() {
        return Err(Error::new("changes are pending").kind(Kind::Unhealthy).hint("`kup up` makes them"));
    }
    Ok(())
}

/// A plan for AWS as people and programs read it.
pub(super) fn view(plan: &AwsPlan, cluster: &Cluster) -> Result<View> {
    let all = plan.plan.items.iter().all(|item| item.verb == graph::Verb::Create);
    let work = if plan.is_empty() { Some(Work::Nothing) } else { all.then_some(Work::All) };
    let expected = match work {
        Some(work) => times::expected(&times::path()?, &times::Kind::of(cluster, work)),
        None => None,
    };
    View::of(&plan.plan, cluster, &plan.around, expected.map(|expected| expected.total.0))
}

/// A plan as a table and a sum.
pub(super) fn print(plan: &[Action], ui: &Ui) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ACTION", "KIND", "NAME", "DETAIL"]);
    for action in plan {
        table.add_row([word(action.verb), &action.kind, &action.name, &action.detail]);
    }
    ui.print(table.trim_fmt());
    ui.print(sum(plan).map_or_else(|| "\nNothing to change.".to_owned(), |sum| format!("\n{sum}.")));
}

/// `6 to create, 1 to delete`; none if a plan changes nothing.
pub(super) fn sum(plan: &[Action]) -> Option<String> {
    let count = |verb: Verb| plan.iter().filter(|a| a.verb == verb).count();
    let parts: Vec<String> = [Verb::Create, Verb::Start, Verb::Replace, Verb::Delete]
        .into_iter()
        .filter(|v| count(*v) > 0)
        .map(|v| format!("{} to {}", count(v), word(v)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

const fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Keep => "keep",
        Verb::Create => "create",
        Verb::Replace => "replace",
        Verb::Start => "start",
        Verb::Delete => "delete",
    }
}
