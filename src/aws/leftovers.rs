//! What Kubernetes made while the cluster stood, and kup did not: load balancers and their target groups and security groups, and the
//! volumes of claims. `down` removes it beside the sweep of kup's own.

use futures::future::join_all;

use super::Aws;
use super::census::{Maker, Thing};
use super::fault::{Explain as _, Failure, unless_gone};
use super::permissions::{Need, Scope, need, optional};
use super::tags::KEPT;
use crate::error::{Error, Result};
use crate::graph::Left;
use crate::report::Report;

/// What the removal calls.
pub const NEEDS: &[Need] = &[
    need("elasticloadbalancing:DeleteLoadBalancer", Scope::Kubernetes),
    need("elasticloadbalancing:DeleteTargetGroup", Scope::Kubernetes),
    need("ec2:DescribeSecurityGroups", Scope::Any),
    need("ec2:RevokeSecurityGroupIngress", Scope::Tagged),
    need("ec2:DeleteSecurityGroup", Scope::Kubernetes),
    need("ec2:DeleteVolume", Scope::Kubernetes),
    // Kept volumes are there without it, but `gc` does not find them.
    optional("ec2:CreateTags", Scope::Kubernetes),
];

/// How many things one call tags.
const TAGGED_AT_ONCE: usize = 500;

/// What becomes of the volumes that the cluster's users claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Volumes {
    /// They stay, with the data on them, and go on to cost
    Keep,
    /// They go, and what is on them is lost
    Delete,
}

/// Whether it is a volume that a user of the cluster claimed.
pub fn is_claim(thing: &Thing) -> bool {
    thing.maker == Maker::Kubernetes && thing.kind == "volume"
}

/// Whether it is such a volume that a `down` kept: nothing else need be there of its cluster.
pub fn is_kept(thing: &Thing) -> bool {
    is_claim(thing) && thing.tags.contains_key(KEPT)
}

/// Marks those of these that a user claimed as kept. That it can't is no reason to end a removal, and is reported.
pub async fn keep(aws: &Aws, things: &[Thing], report: &Report) {
    let unmarked: Vec<String> =
        things.iter().filter(|thing| is_claim(thing) && !is_kept(thing)).map(|thing| thing.id.clone()).collect();
    for some in unmarked.chunks(TAGGED_AT_ONCE) {
        let tag = aws_sdk_ec2::types::Tag::builder().key(KEPT).value(&aws.cluster).build();
        let outcome = aws.ec2.create_tags().set_resources(Some(some.to_vec())).tags(tag).send().await.failure();
        // One that is gone keeps the others from being marked now: they are when the rest has been removed.
        if let Err(failure) = unless_gone(outcome) {
            let error =
                failure.error("the volumes that pods claimed could not be marked: they stay, but `kup gc` does not list them");
            report.warn(error.to_string());
        }
    }
}

/// Removes all of these that Kubernetes made, claims only if told to. Returns what is left.
pub async fn remove(aws: &Aws, things: &[Thing], volumes: Volumes, report: &Report) -> Vec<Left> {
    let goes = |thing: &&Thing| thing.maker == Maker::Kubernetes && (!is_claim(thing) || volumes == Volumes::Delete);
    let things: Vec<&Thing> = things.iter().filter(goes).collect();
    if things.is_empty() {
        return Vec::new();
    }
    let step = report.step_of("made by Kubernetes", "resource");
    let mut left = Vec::new();
    // Load balancers use the rest, and the machines' volumes are let go when the machines are: `until_unblocked` waits for that.
    let first = |thing: &&&Thing| thing.kind == "load balancer";
    for round in [things.iter().filter(first).collect::<Vec<_>>(), things.iter().filter(|t| !first(t)).collect()] {
        let each = round.into_iter().map(|thing| {
            let span = step.child(if thing.name.is_empty() { &thing.id } else { &thing.name });
            async move {
                let outcome = span.close(one(aws, thing).await);
                outcome.err().map(|why| Left { kind: thing.kind, name: thing.name.clone(), id: thing.id.clone(), why })
            }
        });
        left.extend(join_all(each).await.into_iter().flatten());
    }
    match left.first() {
        Some(one) => step.fail(&one.why),
        None => step.done_with(format!("{} removed", things.len())),
    }
    left
}

async fn one(aws: &Aws, thing: &Thing) -> Result<()> {
    let (id, what) = (&thing.id, format!("{} could not be removed", thing.line()));
    let gone = |outcome: std::result::Result<(), Failure>| unless_gone(outcome).map(drop);
    match thing.kind {
        "load balancer" => {
            aws.until_unblocked(&what, || async {
                gone(aws.elb.delete_load_balancer().load_balancer_arn(id).send().await.failure().map(drop))
            })
            .await
        }
        "target group" => {
            aws.until_unblocked(&what, || async {
                gone(aws.elb.delete_target_group().target_group_arn(id).send().await.failure().map(drop))
            })
            .await
        }
        "volume" => {
            aws.until_unblocked(&what, || async { gone(aws.ec2.delete_volume().volume_id(id).send().await.failure().map(drop)) })
                .await
        }
        "security group" => {
            unnamed(aws, id).await?;
            aws.until_unblocked(&what, || async {
                gone(aws.ec2.delete_security_group().group_id(id).send().await.failure().map(drop))
            })
            .await
        }
        _ => Err(Error::new(what)
            .why(format!("the cluster tagged it as its own, and kup does not know how a {} is removed", thing.kind))
            .hint("remove it by hand, then `kup down` again")),
    }
}

/// Takes a group out of other groups' rules: the cloud controller lets what it makes reach the minions.
async fn unnamed(aws: &Aws, id: &str) -> Result<()> {
    let names_it = super::tags::ec2::by("ip-permission.group-id", id);
    let call = aws.ec2.describe_security_groups().filters(names_it).into_paginator().items().send();
    let groups: Vec<_> = call.try_collect().await.explain(format!("the groups that name {id} could not be listed"))?;
    for group in groups.iter().filter(|group| group.group_id() != Some(id)) {
        let rules = group.ip_permissions().iter().filter_map(|rule| {
            let mut rule = rule.clone();
            rule.user_id_group_pairs.as_mut()?.retain(|pair| pair.group_id() == Some(id));
            (!rule.user_id_group_pairs().is_empty()).then(|| {
                (rule.ip_ranges, rule.ipv6_ranges, rule.prefix_list_ids) = (None, None, None);
                rule
            })
        });
        let rules: Vec<_> = rules.collect();
        if rules.is_empty() {
            continue;
        }
        let of = group.group_id().unwrap_or_default();
        let revoked = aws.ec2.revoke_security_group_ingress().group_id(of).set_ip_permissions(Some(rules)).send().await.failure();
        unless_gone(revoked).map_err(|failure| failure.error(format!("{id} could not be taken out of the rules of {of}")))?;
    }
    Ok(())
}
