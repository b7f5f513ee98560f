//! `kup up` on this host.

use serde_json::{Value, json};

use super::{Args, draw};
use crate::cli::Ui;
use crate::cli::config_args::ConfigArgs;
use crate::cli::plan::{self, print};
use crate::cli::same::Same;
use crate::cli::target::only;
use crate::cluster::{Cluster, Loaded};
use crate::error::{Error, Kind, Result};
use crate::known;
use crate::provider::local::LocalProvider;
use crate::provider::{Action, ClusterId, Finder as _, Verb};
use crate::report::chain::{self, chain};
use crate::report::tree::duration;
use crate::times::{self, Work};
use crate::up::{Outcome, Up, context_name, is_empty, makes_all};
use crate::{kubeconfig, saved};

/// The wanted cluster.
pub(super) async fn wanted(args: &ConfigArgs, mut loaded: Loaded, ui: &Ui) -> Result<Cluster> {
    let mut args = args.clone();
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
        } else if !loaded.is_set("provider") {
            for known in known::on_aws() {
                let there = Same::known(&known).complete("`kup up`");
                ui.report.note(format!("this is about this machine; {there} means cluster {} on AWS", known.name));
            }
        }
    }
    Ok(loaded.cluster)
}

/// Runs it.
pub(super) async fn run(args: &Args, up: Up, ui: &Ui) -> Result<()> {
    let provider = up.provider();
    if args.dry_run {
        return plan::show(&up.plan(&provider).await?, false, ui);
    }
    let name = up.cluster.name.clone();
    draw(args, &up.cluster, ui)?;
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
