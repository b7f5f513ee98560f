//! `kup down` on AWS.

use serde_json::json;

use super::Args;
use crate::aws::leftovers::Volumes;
use crate::cli::Ui;
use crate::down::aws::{self, Down, Seen};
use crate::error::{Error, Kind, Result};
use crate::provider::aws::AwsProvider;
use crate::up::infrastructure::cost;

/// Shows what stands, asks, removes it, and says what was proven.
pub(super) async fn run(args: &Args, provider: AwsProvider, ui: &Ui) -> Result<()> {
    let (name, place) = (provider.aws.cluster.clone(), format!("{}/{}", provider.aws.identity.account, provider.aws.region));
    ui.report.run(&name, None);
    ui.report.note(format!("AWS account {}", provider.identity()));
    let span = ui.report.step("found");
    span.waiting("every service to list what is the cluster's");
    let seen = match aws::look(&provider).await {
        Ok(seen) => seen,
        Err(error) => return span.close(Err(error)),
    };
    let claims = seen.claims();
    span.done_with(format!("{} things", seen.count(Volumes::Delete)));
    if seen.is_empty() && (claims.is_empty() || args.volumes != Some(Volumes::Delete)) {
        if ui.json {
            return ui.result(&json!({ "removed": name, "things": 0, "kept": claims, "calls": calls(&provider) }));
        }
        ui.print(format!("There is nothing of a cluster {name} in {place}."));
        kept(&provider, &claims, ui);
        return Ok(());
    }
    for foreign in &seen.foreign {
        ui.report.warn(format!("{} is in the cluster's VPC, and not the cluster's: it stays", foreign.line()));
    }
    let volumes = volumes(args, &seen, ui).await?;
    let things = seen.count(volumes);
    let machines = seen.things.iter().filter(|thing| thing.kind == "instance").count();
    let question =
        format!("Remove cluster {name} in {place}: {machines} machines, {things} things in all, and all that is on them?");
    if !ui.confirm(question, args.yes).await? {
        return Err(Error::new("nothing was removed").kind(Kind::Interrupted));
    }
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let down = Down { volumes, command, break_lock: args.break_lock };
    let claims = down.run(&provider, seen, &ui.interrupt, &ui.report).await?;
    if ui.json {
        return ui.result(&json!({ "removed": name, "things": things, "kept": claims, "calls": calls(&provider) }));
    }
    let but = if claims.is_empty() { "" } else { ", but for the volumes that pods claimed" };
    ui.print(format!("Nothing of {name} is left in {place}{but}."));
    kept(&provider, &claims, ui);
    Ok(())
}

/// What becomes of claimed volumes: as was said, else as is answered on a terminal, else they are kept.
async fn volumes(args: &Args, seen: &Seen, ui: &Ui) -> Result<Volumes> {
    let claims = seen.claims();
    match args.volumes {
        Some(volumes) => Ok(volumes),
        None if claims.is_empty() || args.yes => Ok(Volumes::Keep),
        None => {
            let lines: Vec<String> = claims.iter().map(crate::aws::census::Thing::line).collect();
            let question = format!("Pods of this cluster keep data on {}. Delete that too?", lines.join(", "));
            Ok(if ui.confirm(question, false).await? { Volumes::Delete } else { Volumes::Keep })
        }
    }
}

/// Says what was kept, and what it costs.
fn kept(provider: &AwsProvider, claims: &[crate::aws::census::Thing], ui: &Ui) {
    if claims.is_empty() {
        return;
    }
    let lines: Vec<String> = claims.iter().map(|claim| format!("\n  {}", claim.line())).collect();
    ui.print(format!("Kept, with the data on them{}:{}", cost(&provider.aws.region, claims), lines.concat()));
    ui.print(format!(
        "`kup down --provider aws --region {} --name {} --volumes delete` removes them.",
        provider.aws.region, provider.aws.cluster
    ));
}

/// How many calls were made, and how many of them could change something.
pub(in crate::cli) fn calls(provider: &AwsProvider) -> serde_json::Value {
    let (total, mutating) = provider.aws.calls.sums();
    json!({ "total": total, "mutating": mutating })
}
