//! What is in a cluster's own VPC and is not the cluster's: `down` names it, leaves it alone, and leaves with it what it stands on.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Filter, InstanceStateName, SecurityGroup, Tag};
use serde::Serialize;

use super::Aws;
use super::fault::Explain as _;
use super::permissions::{Need, Scope, need};
use super::tags::CLUSTER;
use crate::error::{Error, Result};

/// What the search calls.
pub const NEEDS: &[Need] = &[
    need("ec2:DescribeInstances", Scope::Any),
    need("ec2:DescribeNetworkInterfaces", Scope::Any),
    need("ec2:DescribeSubnets", Scope::Any),
    need("ec2:DescribeSecurityGroups", Scope::Any),
    need("ec2:DescribeRouteTables", Scope::Any),
    need("elasticloadbalancing:DescribeLoadBalancers", Scope::Any),
];

/// One thing that is not the cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// What it is.
    pub kind: &'static str,
    /// By which AWS knows it.
    pub id: String,
    /// What is known about whose it is.
    pub owner: String,
    /// The ids of what must stay because of it.
    pub holds: BTreeSet<String>,
    /// The classic load balancer it is part of: kup does not know whose that is, and does not remove it.
    pub classic_balancer: Option<String>,
}

impl Foreign {
    /// `instance i-0123 (web, of account 123456789012)`
    pub fn line(&self) -> String {
        format!("{} {} ({})", self.kind, self.id, self.owner)
    }
}

/// Whether tags say that something is the cluster's: made by kup, or by Kubernetes.
fn ours(aws: &Aws, tags: &[Tag]) -> bool {
    let kubernetes = format!("kubernetes.io/cluster/{}", aws.cluster);
    tags.iter().any(|tag| {
        let (key, value) = (tag.key().unwrap_or_default(), tag.value().unwrap_or_default());
        (key == CLUSTER && value == aws.cluster) || (key == kubernetes && value == "owned")
    })
}

fn whose(tags: &[Tag], also: impl IntoIterator<Item = String>) -> String {
    let name = tags.iter().find(|tag| tag.key() == Some("Name")).and_then(Tag::value).filter(|name| !name.is_empty());
    let others = tags
        .iter()
        .filter(|tag| matches!(tag.key(), Some("Owner" | "owner" | "team" | "created-by" | "aws:cloudformation:stack-name")));
    let words = name.map(str::to_owned).into_iter();
    let words = words.chain(others.map(|tag| format!("{} {}", tag.key().unwrap_or_default(), tag.value().unwrap_or_default())));
    let words: Vec<String> = words.chain(also.into_iter().filter(|word| !word.is_empty())).collect();
    if words.is_empty() { "nothing says whose it is".to_owned() } else { words.join(", ") }
}

/// Looks in one of the cluster's own VPCs.
pub async fn find(aws: &Aws, vpc: &str) -> Result<Vec<Foreign>> {
    let here = || Filter::builder().name("vpc-id").values(vpc).build();
    let ec2 = &aws.ec2;
    let instances = async {
        let call = ec2.describe_instances().filters(here()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(format!("the instances in {vpc} could not be listed"))?;
        Ok::<_, Error>(all)
    };
    let interfaces = async {
        let call = ec2.describe_network_interfaces().filters(here()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(format!("the network interfaces in {vpc} could not be listed"))?;
        Ok::<_, Error>(all)
    };
    let subnets = async {
        let call = ec2.describe_subnets().filters(here()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(format!("the subnets in {vpc} could not be listed"))?;
        Ok::<_, Error>(all)
    };
    let groups = async {
        let call = ec2.describe_security_groups().filters(here()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(format!("the security groups in {vpc} could not be listed"))?;
        Ok::<_, Error>(all)
    };
    let tables = async {
        let call = ec2.describe_route_tables().filters(here()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(format!("the route tables in {vpc} could not be listed"))?;
        Ok::<_, Error>(all)
    };
    let (reservations, interfaces, subnets, groups, tables) = tokio::try_join!(instances, interfaces, subnets, groups, tables)?;
    let mut found = Vec::new();
    let mut holds_gateway = false;

    let mut instances: BTreeSet<String> = BTreeSet::new();
    for reservation in reservations {
        let owner = reservation.owner_id.clone().map(|id| format!("of account {id}")).unwrap_or_default();
        for instance in reservation.instances.into_iter().flatten() {
            let id = instance.instance_id.clone().unwrap_or_default();
            instances.insert(id.clone());
            let gone = matches!(instance.state.as_ref().and_then(|s| s.name.as_ref()), Some(InstanceStateName::Terminated));
            if gone || ours(aws, instance.tags()) {
                continue;
            }
            holds_gateway |= instance.public_ip_address.is_some();
            let mut holds: BTreeSet<String> = instance.subnet_id.clone().into_iter().collect();
            holds.extend(instance.security_groups().iter().filter_map(|group| group.group_id.clone()));
            let key = instance.key_name.clone().map(|key| format!("key pair {key}"));
            found.push(Foreign {
                kind: "instance",
                owner: whose(instance.tags(), key.into_iter().chain([owner.clone()])),
                id,
                holds,
                classic_balancer: None,
            });
        }
    }
    let balancers =
        if interfaces.iter().any(|x| balancer(x.description()).is_some()) { balancers(aws).await? } else { BTreeMap::new() };
    for x in interfaces {
        let id = x.network_interface_id.clone().unwrap_or_default();
        // Those of instances come and go with them.
        let attached = x.attachment.as_ref().and_then(|a| a.instance_id.as_ref()).is_some_and(|id| instances.contains(id));
        if attached || ours(aws, x.tag_set()) {
            continue;
        }
        if let Some(name) = balancer(x.description()) {
            // Of a load balancer that is gone, or the cluster's and about to go: AWS takes it away soon.
            if balancers.get(name).is_none_or(|ours| *ours) && x.description().is_some_and(|d| d.contains('/')) {
                continue;
            }
        }
        // AWS takes away those of a gateway endpoint or of Lambda itself; the cluster makes neither of those with interfaces.
        let mut holds: BTreeSet<String> = x.subnet_id.clone().into_iter().collect();
        holds.extend(x.groups().iter().filter_map(|group| group.group_id.clone()));
        holds_gateway |= x.association.is_some();
        let also = [
            x.description.clone().unwrap_or_default(),
            x.requester_id.clone().map(|id| format!("made by {id}")).unwrap_or_default(),
            x.owner_id.clone().map(|id| format!("of account {id}")).unwrap_or_default(),
        ];
        let classic_balancer =
            balancer(x.description()).filter(|_| !x.description().is_some_and(|d| d.contains('/'))).map(str::to_owned);
        found.push(Foreign { kind: "network interface", owner: whose(x.tag_set(), also), id, holds, classic_balancer });
    }
    for x in subnets.iter().filter(|x| !ours(aws, x.tags())) {
        let owner = whose(x.tags(), [x.cidr_block.clone().unwrap_or_default()]);
        found.push(Foreign {
            kind: "subnet",
            owner,
            id: x.subnet_id.clone().unwrap_or_default(),
            holds: BTreeSet::new(),
            classic_balancer: None,
        });
    }
    for x in groups.iter().filter(|x| !ours(aws, x.tags()) && x.group_name() != Some("default")) {
        let holds = refers_to(x).collect();
        let owner = whose(x.tags(), [x.group_name.clone().unwrap_or_default()]);
        found.push(Foreign {
            kind: "security group",
            owner,
            id: x.group_id.clone().unwrap_or_default(),
            holds,
            classic_balancer: None,
        });
    }
    let main = |x: &aws_sdk_ec2::types::RouteTable| x.associations().iter().any(|a| a.main == Some(true));
    for x in tables.iter().filter(|x| !ours(aws, x.tags()) && !main(x)) {
        let holds = x.associations().iter().filter_map(|a| a.subnet_id.clone()).collect();
        found.push(Foreign {
            kind: "route table",
            owner: whose(x.tags(), []),
            id: x.route_table_id.clone().unwrap_or_default(),
            holds,
            classic_balancer: None,
        });
    }
    for one in &mut found {
        one.holds.insert(vpc.to_owned());
        if holds_gateway && matches!(one.kind, "instance" | "network interface") {
            // A gateway can't be taken from a VPC in which something has a public address.
            one.holds.insert(GATEWAY.to_owned());
        }
    }
    Ok(found)
}

/// Stands for the internet gateway among what is held.
pub const GATEWAY: &str = "internet gateway";

/// The groups that a group's rules name: these can't be removed while it does.
fn refers_to(group: &SecurityGroup) -> impl Iterator<Item = String> + '_ {
    let rules = group.ip_permissions().iter().chain(group.ip_permissions_egress());
    rules.flat_map(|rule| rule.user_id_group_pairs()).filter_map(|pair| pair.group_id.clone())
}

/// The load balancer's name in an interface's description: `ELB net/NAME/ID`, or `ELB NAME` of a classic one.
fn balancer(description: Option<&str>) -> Option<&str> {
    let rest = description?.strip_prefix("ELB ")?;
    Some(rest.split('/').nth(1).unwrap_or(rest))
}

/// All load balancers by name, and whether each is the cluster's.
async fn balancers(aws: &Aws) -> Result<BTreeMap<String, bool>> {
    let call = aws.elb.describe_load_balancers().into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("load balancers could not be listed")?;
    let ours: BTreeSet<String> =
        super::census::balancers(aws).await?.into_iter().filter(|t| t.cluster == aws.cluster).map(|t| t.name).collect();
    let names = all.into_iter().filter_map(|x| x.load_balancer_name);
    Ok(names
        .map(|name| {
            let own = ours.contains(&name);
            (name, own)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancers_name_is_read_from_its_interfaces() {
        assert_eq!(balancer(Some("ELB net/a1b2/0123")), Some("a1b2"));
        assert_eq!(balancer(Some("ELB a1b2")), Some("a1b2"));
        assert_eq!(balancer(Some("Primary network interface")), None);
        assert_eq!(balancer(None), None);
    }

    #[test]
    fn owners_are_told_by_what_is_known_of_them() {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        assert_eq!(
            whose(&[tag("Name", "web"), tag("team", "shop")], ["of account 1".to_owned()]),
            "web, team shop, of account 1"
        );
        assert_eq!(whose(&[], [String::new()]), "nothing says whose it is");
    }
}
