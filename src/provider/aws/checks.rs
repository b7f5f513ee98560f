//! What is checked before the first mutating call: only what a plan's new things need, all at once.

use super::surroundings::Learned;
use crate::aws::deadline::seconds;
use crate::aws::layout::{Surroundings, given};
use crate::aws::preflight::{self, TypeFacts};
use crate::aws::quota::{self, Adds};
use crate::aws::resource::given::verify;
use crate::aws::{Aws, simulate};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::graph::{Plan, Verb};
use crate::report::Report;

/// Checks a plan that makes something.
///
/// # Errors
/// The first thing that would fail later, when something stood already.
pub async fn run(
    aws: &Aws,
    cluster: &Cluster,
    around: &Surroundings,
    learned: &Learned,
    plan: &Plan<Aws>,
    report: &Report,
) -> Result<()> {
    let makes =
        |kind: &str| plan.items.iter().any(|item| item.address.kind == kind && matches!(item.verb, Verb::Create | Verb::Replace));
    let changes =
        |kind: &str| makes(kind) || plan.items.iter().any(|item| item.address.kind == kind && item.verb == Verb::Update);
    let machines = makes("instance") || changes("auto scaling group") || changes("launch template");
    let wanted = preflight::types(cluster);
    let facts = async {
        match &learned.types {
            Some(facts) => Ok(Some(facts.clone())),
            None if machines => aws.deadlines.needed(preflight::TYPES, preflight::type_facts(aws, &wanted)).await.map(Some),
            None => Ok(None),
        }
    };
    let zones = async {
        if machines && !learned.offers {
            let offers = aws.deadlines.needed(preflight::ZONES, preflight::offers(aws, &wanted)).await?;
            let mut here = cluster.clone();
            here.aws.zones.clone_from(&around.zones);
            preflight::choose_zones(&here, &aws.region, &offers)?;
        }
        Ok::<_, Error>(())
    };
    let networks = async {
        if !makes("vpc") && !makes("given vpc") {
            return Ok(0);
        }
        let ours = makes("vpc").then_some(cluster.aws.vpc.cidr);
        let networks = preflight::networks(aws, cluster.aws.vpc.id.as_deref(), ours);
        let networks = aws.deadlines.needed("which VPCs there are", networks).await?;
        // AWS minds only where the two are ever to be connected.
        if let (Some(ours), false) = (ours, networks.overlapping.is_empty()) {
            let with = networks.overlapping.join(", ");
            report.note(format!("{ours} overlaps {with}: they can never be peered; another range in aws.vpc.cidr could be"));
        }
        Ok(networks.count)
    };
    let given = async {
        match given(cluster, around.missing) {
            Some(wanted) if !learned.given && (makes("given vpc") || makes("given subnet")) => {
                aws.deadlines.needed(preflight::GIVEN, verify(aws, &wanted)).await.map(drop)
            }
            _ => Ok(()),
        }
    };
    let all_new = plan.items.iter().all(|item| item.verb == Verb::Create);
    let permissions = async {
        if all_new && aws.deadlines.spare(simulate::warn(aws, report)).await.is_none() {
            let limit = seconds(aws.deadlines.spare);
            report.note(format!(
                "IAM did not say within {limit} whether you may do all that is needed; a denied action will be named"
            ));
        }
        Ok(())
    };
    let (facts, (), vpcs, (), ()) = tokio::try_join!(facts, zones, networks, given, permissions)?;
    let facts = facts.unwrap_or_default();
    if machines {
        preflight::architecture(cluster, &facts)?;
    }
    quota::check(aws, adds(cluster, plan, &facts), vpcs, report).await
}

/// What the plan's new things count against quotas.
fn adds(cluster: &Cluster, plan: &Plan<Aws>, facts: &std::collections::BTreeMap<String, TypeFacts>) -> Adds {
    let vcpus = |of: &str| facts.get(of).map_or(0, |facts| facts.vcpus);
    let mut adds = Adds::default();
    for item in plan.items.iter().filter(|item| item.verb == Verb::Create) {
        match item.address.kind {
            "vpc" => adds.vpcs += 1,
            "elastic ip" => adds.addresses += 1,
            "instance" => adds.vcpus += vcpus(&cluster.aws.masters.instance_type),
            "auto scaling group" => {
                for group in cluster.groups().iter().filter(|group| group.name == item.address.name) {
                    let most = group.types.iter().map(|of| vcpus(of)).max().unwrap_or(0) * u32::from(group.count);
                    let spot = most * u32::from(group.spot) / 100;
                    adds.spot += spot;
                    adds.vcpus += most - spot;
                }
            }
            _ => {}
        }
    }
    adds
}
