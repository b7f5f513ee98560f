//! `kup up` on AWS.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Args, draw};
use crate::aws::lock::Lock;
use crate::cli::Ui;
use crate::cli::config_args::ConfigArgs;
use crate::cli::down::aws::calls;
use crate::cli::plan;
use crate::cli::target::only;
use crate::cluster::{Cluster, Loaded};
use crate::error::{Context as _, Error, Kind, Result};
use crate::graph::Verb;
use crate::graph::drift::Action;
use crate::known;
use crate::provider::aws::{AwsPlan, AwsProvider};
use crate::report::chain::{self, chain};
use crate::report::tree::duration;
use crate::times::{self, Work};
use crate::up::aws::down;
use crate::up::{Outcome, Until, Up};

/// The wanted cluster, and the login for it.
pub(super) async fn wanted(args: &ConfigArgs, mut loaded: Loaded, ui: &Ui) -> Result<(Cluster, AwsProvider)> {
    let mut provider = AwsProvider::connect(&loaded.cluster).await?;
    if loaded.file.is_some() {
        return Ok((loaded.cluster, provider));
    }
    let mut args = args.clone();
    if !loaded.is_set("name")
        && let Some(name) = only(&provider.begun().await?)?
    {
        provider = provider.of_cluster(&name);
        args.name = Some(name);
        loaded = args.load(&ui.report)?;
    }
    let Some(kept) = provider.kept().await? else { return Ok((loaded.cluster, provider)) };
    // As a file below the flags, as one that the user names would be.
    let what = "the cluster's kept config could not be written to a temporary file";
    let mut file = tempfile::Builder::new().prefix("kup-").suffix(".yaml").tempfile().context(what)?;
    file.write_all(serde_yaml::to_string(&kept.cluster).context(what)?.as_bytes()).context(what)?;
    args.file = Some(file.path().to_owned());
    Ok((args.load(&ui.report)?.cluster, provider))
}

/// Plans, shows, asks, and makes what the plan says.
pub(super) async fn run(args: &Args, up: Up, provider: AwsProvider, ui: &Ui) -> Result<()> {
    let name = up.cluster.name.clone();
    draw(args, &up.cluster, ui)?;
    if !args.dry_run {
        ui.report.run(&name, None);
    }
    ui.report.note(format!("AWS account {}", provider.identity()));
    let span = ui.report.step("plan");
    span.waiting("what stands already, and whether the rest can be made");
    let plan = async {
        let plan = provider.plan(&up.cluster, &up.replace).await?;
        provider.preflight(&up.cluster, &plan, &ui.report).await?;
        Ok::<_, Error>(plan)
    };
    let plan = match plan.await {
        Ok(plan) => plan,
        Err(e) if e.kind == Kind::Usage => return span.close(Err(Lock::blame(&provider.aws, e).await)),
        Err(e) => return span.close(Err(e)),
    };
    span.done_with(sum(&plan).unwrap_or_else(|| "nothing to change".into()));
    if args.dry_run {
        return plan::show_aws(&plan, &up.cluster, false, ui);
    }
    let work = match plan.is_empty() {
        true => Some(Work::Nothing),
        false => plan.new.then_some(Work::All),
    };
    let (file, kind) = (times::path()?, work.map(|work| times::Kind::of(&up.cluster, work)));
    if let Some(expected) = kind.as_ref().and_then(|kind| times::expected(&file, kind)) {
        ui.report.run(&name, Some(expected));
    }
    if !plan.is_empty() {
        if !ui.json {
            ui.print(plan::view(&plan, &up.cluster)?.text(ui.columns(), false));
        }
        let question = format!("Make this of cluster {name} in {}/{}?", provider.aws.identity.account, provider.aws.region);
        let asked = if args.yes { None } else { Some(ui.report.step("your answer")) };
        if !ui.confirm(question, args.yes).await? {
            return Err(Error::new("nothing was changed").kind(Kind::Interrupted));
        }
        if let Some(span) = asked {
            span.done_with("yes");
        }
    }
    // From now on something may be there: whoever names no provider is told where.
    known::remember(&provider.aws)?;
    let infrastructure = up.until == Some(Until::Infrastructure);
    let agree = async |beyond: &[Action]| reconsider(beyond, args.yes, &provider, ui).await;
    let outcome = if infrastructure {
        Made::Infrastructure { changed: up.infrastructure(&provider, plan, &agree, &ui.interrupt, &ui.report).await? }
    } else {
        Made::Cluster(up.on_aws(&provider, plan, &agree, &ui.interrupt, &ui.report).await?)
    };
    let record = ui.record()?;
    let links = chain(&record, true);
    if let (Made::Infrastructure { changed } | Made::Cluster(Outcome::Ready { changed, .. }), Some(kind)) = (&outcome, kind)
        // Whoever waited for somebody else's work has done less than was planned.
        && *changed == (work == Some(Work::All))
        && let Err(e) = times::remember(&file, kind, &record)
    {
        ui.report.warn(format!("how long this took can't be remembered: {}", e.why.first().unwrap_or(&e.what)));
    }
    let (head, next, mut result) = told(&outcome, &provider, args.until.as_deref().unwrap_or_default());
    if ui.json {
        result["account"] = json!(provider.aws.identity.account);
        result["region"] = json!(provider.aws.region);
        result["calls"] = calls(&provider);
        result["took"] = json!(record.now);
        result["chain"] = json!(links);
        return ui.result(&result);
    }
    let columns = ui.columns().map_or(usize::MAX, |c| c.saturating_sub(3));
    let lines: String = chain::lines(&links, &format!("{name}-"), columns).iter().map(|l| format!("\n  {l}")).collect();
    ui.print(format!("{head}\n\nWhat the time went to ({}):{lines}\n\nNext:{next}", duration(record.now)));
    Ok(())
}

/// What to do where the plan made under the lock does more than the one that was confirmed: it is asked for again. `-y` says yes to what is
/// made and changed, but not to the end of what it has not been shown.
async fn reconsider(beyond: &[Action], yes: bool, provider: &AwsProvider, ui: &Ui) -> Result<()> {
    let lines: Vec<String> = beyond.iter().map(ToString::to_string).collect();
    let (name, flags) = (&provider.aws.cluster, provider.aws.flags());
    ui.report
        .warn(format!("cluster {name} has changed since its plan was made, and there is more to do now: {}", lines.join("; ")));
    if yes && beyond.iter().any(Action::removes) {
        return Err(Error::new("what is to be removed now is not what was confirmed: nothing was changed")
            .why(lines.join("\n"))
            .hint(format!("`kup plan {flags}` shows all that is to be done now; the same command again does it")));
    }
    if !ui.confirm("Do this too?", yes).await? {
        return Err(Error::new("nothing was changed").kind(Kind::Interrupted));
    }
    Ok(())
}

/// How far a run came.
enum Made {
    /// All that AWS is to have.
    Infrastructure { changed: bool },
    /// A cluster, or a part of it.
    Cluster(Outcome),
}

/// An outcome in words, what to type next, and the outcome as JSON.
fn told(made: &Made, provider: &AwsProvider, until: &str) -> (String, String, Value) {
    let (name, region, flags) = (&provider.aws.cluster, &provider.aws.region, provider.aws.flags());
    let down = down(&provider.aws);
    match made {
        Made::Infrastructure { changed } => {
            let word = if *changed { "Everything that" } else { "As before, everything that" };
            let head =
                format!("{word} cluster {name} needs on AWS stands in {region}; Kubernetes is not started on its machines.");
            let next = format!("\n  kup up {flags}\n  {down}");
            (head, next, json!({ "cluster": name, "stoppedAfter": "infrastructure", "changed": changed }))
        }
        Made::Cluster(Outcome::Stopped) => {
            let head = format!("Cluster {name} stands in {region} up to the step {until}.");
            (head, format!("\n  kup up {flags}\n  {down}"), json!({ "cluster": name, "stoppedAfter": until }))
        }
        Made::Cluster(Outcome::Ready { access, changed }) => {
            let word = if *changed { "is ready" } else { "is ready, as before," };
            let head = format!("Cluster {name} {word} at {}; your kubectl context is {}.", access.server, access.context);
            let next = format!("\n  kup status {flags}\n  kup kubectl {flags} -- get nodes\n  {down}");
            (head, next, json!({ "cluster": name, "server": access.server, "context": access.context, "changed": changed }))
        }
    }
}

/// `31 to create, 1 to delete`; none if a plan changes nothing.
fn sum(plan: &AwsPlan) -> Option<String> {
    let verbs = [(Verb::Create, "create"), (Verb::Update, "update"), (Verb::Replace, "replace"), (Verb::Delete, "delete")];
    let parts: Vec<String> = verbs
        .into_iter()
        .map(|(verb, word)| (plan.count(verb), word))
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} to {word}"))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
