//! `kup gc`: what is left of clusters that are no more.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Ui;
use super::config_args::ConfigArgs;
use super::nodes::table;
use super::same::Same;
use crate::aws::census::{self, Thing};
use crate::aws::leftovers::{Volumes, is_claim};
use crate::cluster::spec::ProviderKind;
use crate::down::aws::{Down, Seen};
use crate::error::{Error, Kind, Result};
use crate::provider::AwsProvider;
use crate::up::aws::{cost, counted, down};

/// List what is left on AWS of clusters that have no machines any more, and what it costs
///
/// Looks at everything that carries kup's tags or paths in the account and region. A cluster that was only begun counts too: look before
/// you delete. Volumes that pods claimed, as `kup down` keeps them, are listed, and removed only with `--volumes delete`. On this host
/// `kup get clusters` lists also what has no machines, and `kup down` removes it.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Whose leftovers: aws, which it is without this too
    #[arg(long)]
    provider: Option<ProviderKind>,
    /// Region; without it that of the config, of AWS_REGION or of the profile [env: KUP_REGION]
    #[arg(long)]
    region: Option<String>,
    /// Profile of the AWS configuration; without it that of the config, of AWS_PROFILE, or the default one [env: KUP_PROFILE]
    #[arg(long)]
    profile: Option<String>,
    /// Remove it
    #[arg(long)]
    delete: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// What becomes of the volumes that pods claimed; without it they are kept
    #[arg(long, value_name = "WHAT")]
    volumes: Option<Volumes>,
}

/// What is left of one cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    cluster: String,
    /// What a removal takes.
    things: Vec<Thing>,
    /// The volumes that pods claimed, which it takes only if told to.
    kept: Vec<Thing>,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    if args.provider == Some(ProviderKind::Local) {
        return Err(Error::usage("kup gc looks on AWS only")
            .why("on this host nothing is left that `kup get clusters --provider local` does not list, with machines or without")
            .hint("`kup down --provider local --name NAME` removes what is left of one"));
    }
    let config = ConfigArgs {
        region: args.region.clone(),
        profile: args.profile.clone(),
        provider: Some(ProviderKind::Aws),
        ..ConfigArgs::default()
    };
    let provider = AwsProvider::connect(&config.load(&ui.report)?.cluster).await?;
    ui.means(Same::on_aws(&provider).without("name"));
    ui.report.note(format!("AWS account {}", provider.identity()));
    let left = leftovers(census::take(&provider.aws, None).await?);
    if !ui.json {
        show(&provider, &left, ui);
    }
    let volumes = args.volumes.unwrap_or(Volumes::Keep);
    let left = match args.delete && volumes == Volumes::Keep {
        true => left.into_iter().filter(|left| !left.things.is_empty()).collect(),
        false => left,
    };
    if !args.delete || left.is_empty() {
        return if ui.json { ui.result(&left) } else { Ok(()) };
    }
    let names: Vec<&str> = left.iter().map(|left| left.cluster.as_str()).collect();
    let question =
        format!("Remove what is left of {} in {}/{}?", names.join(", "), provider.aws.identity.account, provider.aws.region);
    if !ui.confirm(question, args.yes).await? {
        return Err(Error::new("nothing was removed").kind(Kind::Interrupted));
    }
    let mut failed: Option<Error> = None;
    for one in &left {
        let provider = provider.of_cluster(&one.cluster);
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let removal = Down { volumes, command, break_lock: false };
        let agree = async |seen: &Seen| match seen.entries.iter().find(|entry| lives(entry.address.kind)) {
            Some(entry) => Err(Error::new(format!("cluster {} is no leftover any more: it has {}", one.cluster, entry.address))
                .why("somebody has made it since it was listed")
                .hint(format!("`{}` removes it all the same", down(&provider.aws)))),
            None => Ok(()),
        };
        // What can't be removed of one is no reason to leave the others.
        match removal.run(&provider, &agree, &ui.interrupt, &ui.report).await {
            Ok(removed) if removed.kept.is_empty() => ui.report.note(format!("nothing of {} is left", one.cluster)),
            Ok(removed) => ui.report.note(format!("nothing of {} is left but {}", one.cluster, claims(&removed.kept))),
            Err(error) => match &mut failed {
                None => failed = Some(error),
                Some(first) => first.why.push(error.to_string()),
            },
        }
    }
    match failed {
        Some(error) => Err(error),
        None if ui.json => ui.result(&left),
        None => Ok(()),
    }
}

/// Of clusters without machines and groups, all that there is.
fn leftovers(things: Vec<Thing>) -> Vec<Left> {
    let mut clusters: BTreeMap<String, Vec<Thing>> = BTreeMap::new();
    for thing in things {
        clusters.entry(thing.cluster.clone()).or_default().push(thing);
    }
    let left = |(cluster, things): (String, Vec<Thing>)| {
        let (kept, things) = things.into_iter().partition(is_claim);
        Left { cluster, things, kept }
    };
    clusters.into_iter().filter(|(_, things)| !things.iter().any(|thing| lives(thing.kind))).map(left).collect()
}

/// Whether what has things of this kind is more than a leftover.
fn lives(kind: &str) -> bool {
    matches!(kind, "instance" | "auto scaling group")
}

/// `1 volume of a claim`, `3 volumes of claims`
fn claims(kept: &[Thing]) -> String {
    if kept.len() == 1 { "1 volume of a claim".to_owned() } else { format!("{} volumes of claims", kept.len()) }
}

fn show(provider: &AwsProvider, left: &[Left], ui: &Ui) {
    let region = &provider.aws.region;
    if left.is_empty() {
        ui.report.note(format!("nothing is left in {region} of clusters without machines"));
        return;
    }
    let rows = left.iter().flat_map(|left| {
        left.things.iter().chain(&left.kept).map(|thing| {
            let what = if is_claim(thing) { "volume of a claim, kept" } else { thing.kind };
            [
                left.cluster.clone(),
                what.to_owned(),
                thing.id.clone(),
                cost(region, std::slice::from_ref(thing)).trim_start_matches(", ").to_owned(),
            ]
        })
    });
    ui.print(table(["CLUSTER", "KIND", "ID", "COST"], rows));
    for one in left {
        let (name, down) = (&one.cluster, down(&provider.of_cluster(&one.cluster).aws));
        if !one.things.is_empty() {
            ui.print(format!("\n{name}: {}{}; `{down}` removes it", counted(&one.things), cost(region, &one.things)));
        }
        if !one.kept.is_empty() {
            let what = format!("{}{}", claims(&one.kept), cost(region, &one.kept));
            ui.print(format!("\n{name}: kept {what}; `{down} --volumes delete` removes that, and what is on it"));
        }
    }
    let but = if left.iter().all(|one| one.kept.is_empty()) { "" } else { ", what was kept only with `--volumes delete`" };
    ui.print(ui.same().complete(&format!("\n`kup gc --delete` removes all of it{but}.")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::census::{Billed, Maker};

    fn thing(cluster: &str, kind: &'static str) -> Thing {
        Thing {
            cluster: cluster.into(),
            kind,
            id: "x".into(),
            name: String::new(),
            maker: Maker::Kup,
            billed: Billed::No,
            vpc: None,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn clusters_with_machines_or_groups_are_no_leftovers() {
        let things = vec![
            thing("a", "vpc"),
            thing("a", "instance"),
            thing("b", "auto scaling group"),
            thing("c", "role"),
            thing("c", "bucket"),
        ];
        let left = leftovers(things);
        assert_eq!(left.iter().map(|l| (l.cluster.as_str(), l.things.len())).collect::<Vec<_>>(), [("c", 2)]);
    }

    #[test]
    fn claims_are_told_apart_from_what_a_removal_takes() {
        let claim = Thing { maker: Maker::Kubernetes, ..thing("d", "volume") };
        let left = leftovers(vec![claim.clone(), thing("d", "role"), Thing { cluster: "e".into(), ..claim }]);
        let told: Vec<_> = left.iter().map(|l| (l.cluster.as_str(), l.things.len(), l.kept.len())).collect();
        assert_eq!(told, [("d", 1, 1), ("e", 0, 1)]);
        assert_eq!(claims(&left[0].kept), "1 volume of a claim");
    }
}
