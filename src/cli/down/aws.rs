//! `kup down` on AWS.

use std::collections::BTreeSet;

use serde_json::json;

use super::Args;
use crate::aws::census::Maker;
use crate::aws::leftovers::{self, Volumes};
use crate::cli::Ui;
use crate::cli::nodes::table;
use crate::down::aws::{self, Down, Removed, Seen};
use crate::error::{Error, Kind, Result};
use crate::provider::aws::AwsProvider;
use crate::up::aws::cost;

/// Shows what stands, asks, removes it, and says what was proven. Without a question it is looked at only once, under the lock.
pub(super) async fn run(args: &Args, provider: AwsProvider, ui: &Ui) -> Result<()> {
    let (name, place) = (provider.aws.cluster.clone(), format!("{}/{}", provider.aws.identity.account, provider.aws.region));
    ui.report.run(&name, None);
    ui.report.note(format!("AWS account {}", provider.identity()));
    let confirmed = match args.yes {
        true => Some(Confirmed { volumes: args.volumes.unwrap_or(Volumes::Keep), shown: None }),
        false => ask(args, &provider, &place, ui).await?,
    };
    let removed = match confirmed {
        Some(Confirmed { volumes, shown }) => {
            let command = std::env::args().collect::<Vec<_>>().join(" ");
            let down = Down { volumes, command, break_lock: args.break_lock };
            let agree = async |seen: &Seen| match &shown {
                Some(shown) => reconsider(seen.beyond(shown, volumes), &name, ui).await,
                None => Ok(()),
            };
            down.run(&provider, &agree, &ui.interrupt, &ui.report).await?
        }
        None => Removed { things: 0, kept: Vec::new() },
    };
    if ui.json {
        return ui.result(&json!({
            "removed": name, "things": removed.things, "kept": removed.kept, "account": provider.aws.identity.account,
            "region": provider.aws.region, "calls": calls(&provider),
        }));
    }
    let but = if removed.kept.is_empty() { "" } else { ", but for the volumes that pods claimed" };
    ui.print(match removed.things {
        0 => format!("There was nothing of {name} to remove; nothing of it is left in {place}{but}."),
        _ => format!("Nothing of {name} is left in {place}{but}."),
    });
    kept(&provider, &removed.kept, ui);
    Ok(())
}

/// What somebody said yes to.
struct Confirmed {
    volumes: Volumes,
    /// The ids of what he was shown; none if he wanted to see nothing.
    shown: Option<BTreeSet<String>>,
}

/// Asks again about what stands now and was not shown: another cluster may have that name by now.
async fn reconsider(beyond: Vec<String>, name: &str, ui: &Ui) -> Result<()> {
    if beyond.is_empty() {
        return Ok(());
    }
    ui.report.warn(format!("cluster {name} has changed since it was shown, and this stands too now: {}", beyond.join("; ")));
    match ui.confirm("Remove this too?", false).await? {
        true => Ok(()),
        false => Err(Error::new("nothing was removed").kind(Kind::Interrupted)),
    }
}

/// Asks whether to remove what there is, and what is to become of claimed volumes; none if there is nothing.
async fn ask(args: &Args, provider: &AwsProvider, place: &str, ui: &Ui) -> Result<Option<Confirmed>> {
    let name = &provider.aws.cluster;
    let span = ui.report.step("plan");
    span.waiting("every service to list what is the cluster's");
    let seen = match aws::look(provider).await {
        Ok(seen) => seen,
        Err(error) => return span.close(Err(error)),
    };
    span.done_with(format!("{} things", seen.count(Volumes::Delete)));
    if seen.entries.is_empty() && seen.things.is_empty() {
        return Ok(None);
    }
    list(&seen, ui);
    let volumes = volumes(args, &seen, ui).await?;
    let count = |kind: &str| seen.entries.iter().filter(|entry| entry.address.kind == kind).count();
    let question = format!(
        "Remove cluster {name} in {place}: {}, {}, {} things in all, and all that is on them?",
        counted(count("instance"), "master", "masters"),
        counted(count("auto scaling group"), "group of minions", "groups of minions"),
        seen.count(volumes)
    );
    match ui.confirm(question, false).await? {
        true => Ok(Some(Confirmed { volumes, shown: Some(seen.ids()) })),
        false => Err(Error::new("nothing was removed").kind(Kind::Interrupted)),
    }
}

/// Shows what there is. Volumes that pods claimed are asked about by themselves.
fn list(seen: &Seen, ui: &Ui) {
    if ui.json {
        return;
    }
    let ours = seen.entries.iter().map(|entry| [entry.address.kind.to_owned(), entry.address.name.clone(), entry.id.clone()]);
    let kubernetes = seen.things.iter().filter(|thing| thing.maker == Maker::Kubernetes);
    let theirs = kubernetes.map(|thing| {
        let kind = if leftovers::is_claim(thing) { "volume of a claim" } else { thing.kind };
        [kind.to_owned(), thing.name.clone(), thing.id.clone()]
    });
    ui.print(table(["KIND", "NAME", "ID"], ours.chain(theirs)));
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// What becomes of claimed volumes: as was said, else as is answered on a terminal, else they are kept.
async fn volumes(args: &Args, seen: &Seen, ui: &Ui) -> Result<Volumes> {
    let claims = seen.claims();
    match args.volumes {
        Some(volumes) => Ok(volumes),
        None if claims.is_empty() => Ok(Volumes::Keep),
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
    ui.print(format!("`kup down {} --volumes delete` removes them.", provider.aws.flags()));
}

/// How many calls were made, and how many of them could change something.
pub(in crate::cli) fn calls(provider: &AwsProvider) -> serde_json::Value {
    let (total, mutating) = provider.aws.calls.sums();
    json!({ "total": total, "mutating": mutating })
}
