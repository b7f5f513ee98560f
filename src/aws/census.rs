//! What there is of kup's clusters in an account and a region, service by service: independent of the kinds' own lists, so that it can
//! check them. It is how clusters are found by `get`, leftovers by `gc`, and how `down` proves that nothing is left.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, InstanceStateName, NetworkInterfaceStatus, Tag, VolumeState};
use serde::Serialize;

use super::Aws;
use super::client::bucket;
use super::fault::{Explain as _, Fault};
use super::permissions::{Need, Scope, implied, need};
use super::tags::{CLUSTER, NAME};
use crate::error::{Error, Result};

/// How many things one call may ask the tags of.
const TAGS_AT_ONCE: usize = 20;

/// How the key of kup's tag on what clusters share begins; the cluster's name follows.
const SHARED: &str = "kup.dev/shared/";

/// What a census calls. All of it is read only.
pub const NEEDS: &[Need] = &[
    need("ec2:DescribeVpcs", Scope::Any),
    need("ec2:DescribeSubnets", Scope::Any),
    need("ec2:DescribeSecurityGroups", Scope::Any),
    need("ec2:DescribeInternetGateways", Scope::Any),
    need("ec2:DescribeRouteTables", Scope::Any),
    need("ec2:DescribeDhcpOptions", Scope::Any),
    need("ec2:DescribeVpcEndpoints", Scope::Any),
    need("ec2:DescribeNetworkInterfaces", Scope::Any),
    need("ec2:DescribeAddresses", Scope::Any),
    need("ec2:DescribeKeyPairs", Scope::Any),
    need("ec2:DescribeVolumes", Scope::Any),
    need("ec2:DescribeInstances", Scope::Any),
    need("ec2:DescribeLaunchTemplates", Scope::Any),
    need("autoscaling:DescribeAutoScalingGroups", Scope::Any),
    need("elasticloadbalancing:DescribeLoadBalancers", Scope::Any),
    need("elasticloadbalancing:DescribeTargetGroups", Scope::Any),
    need("elasticloadbalancing:DescribeTags", Scope::Any),
    implied("s3:ListAllMyBuckets", "s3:ListBuckets", Scope::Any),
    need("iam:ListRoles", Scope::Any),
    need("iam:ListUsers", Scope::Any),
    need("iam:ListPolicies", Scope::Any),
    need("iam:ListInstanceProfiles", Scope::Any),
];

/// Who made a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// kup.
    Kup,
    /// The cluster itself: load balancers and volumes that its users asked for.
    Kubernetes,
}

/// What a thing is paid by, where it costs anything while nobody uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Billed {
    /// Nothing, or next to it.
    No,
    /// The hour, by instance type.
    Instance(String),
    /// GiB and month, by volume type.
    Volume {
        /// Its size in GiB.
        size: u32,
        /// `gp3`.
        of: String,
    },
    /// The hour.
    Address,
    /// The hour, by its type: `network`, `application`.
    LoadBalancer(String),
}

/// One thing of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Thing {
    /// Whose it is.
    pub cluster: String,
    /// What it is, as the kinds of resources are called.
    pub kind: &'static str,
    /// By which AWS knows it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Who made it.
    pub maker: Maker,
    /// What it costs by.
    pub billed: Billed,
    /// The VPC it is in, if it is in one and AWS says so.
    pub vpc: Option<String>,
    /// The name of a machine, volume or interface, for its Name tag may say something else.
    #[serde(skip)]
    pub tags: BTreeMap<String, String>,
}

impl Thing {
    /// `volume vol-0123 (data, 20 GiB)`
    pub fn line(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if !self.name.is_empty() && self.name != self.id {
            words.push(self.name.clone());
        }
        match &self.billed {
            Billed::Instance(of) | Billed::LoadBalancer(of) => words.push(of.clone()),
            Billed::Volume { size, of } => words.push(format!("{size} GiB {of}")),
            Billed::No | Billed::Address => {}
        }
        let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
        format!("{} {}{words}", self.kind, self.id)
    }
}

/// Which tags make a thing a cluster's: kup's own, or the one that Kubernetes' controllers set on what they make.
fn owner(tags: &BTreeMap<String, String>) -> Option<(String, Maker)> {
    if let Some(cluster) = tags.get(CLUSTER) {
        return Some((cluster.clone(), Maker::Kup));
    }
    let owned = tags.iter().find(|(key, value)| key.starts_with("kubernetes.io/cluster/") && *value == "owned")?;
    Some((owned.0.trim_start_matches("kubernetes.io/cluster/").to_owned(), Maker::Kubernetes))
}

fn thing(kind: &'static str, id: Option<String>, vpc: Option<String>, tags: BTreeMap<String, String>, billed: Billed) -> Option<Thing> {
    let ((cluster, maker), id) = (owner(&tags)?, id?);
    let name = tags.get("Name").or_else(|| tags.get(NAME)).cloned().unwrap_or_default();
    Some(Thing { cluster, kind, id, name, maker, billed, vpc, tags })
}

/// A thing of a cluster's own, or one for each of the clusters that share it.
fn own_and_shared(own: &'static str, shared: &'static str, id: String, vpc: Option<String>, tags: BTreeMap<String, String>) -> Vec<Thing> {
    let by = |cluster: &str| Thing { vpc: vpc.clone(), ..by_name(shared, id.clone(), String::new(), cluster.to_owned()) };
    let mut things: Vec<Thing> = tags.keys().filter_map(|key| key.strip_prefix(SHARED)).map(by).collect();
    if things.is_empty() {
        things.extend(thing(own, Some(id), vpc, tags, Billed::No));
    }
    things
}

fn map(tags: Option<Vec<Tag>>) -> BTreeMap<String, String> {
    tags.into_iter().flatten().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
}

/// Everything of one cluster, or of all of this region that kup made or whose machines made it.
///
/// # Errors
/// Any service that can't be asked: a census that is not whole proves nothing.
pub async fn take(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    let (network, machines, groups, balancers, buckets, iam) =
        tokio::try_join!(network(aws, only), machines(aws, only), groups(aws, only), balancers(aws), buckets(aws), iam(aws, only))?;
    let mut things: Vec<Thing> = [network, machines, groups, balancers, buckets, iam].into_iter().flatten().collect();
    // What Kubernetes made of a cluster of somebody else's (kops, EKS) is none of kup's business.
    let known: std::collections::BTreeSet<String> =
        things.iter().filter(|t| t.maker == Maker::Kup).map(|t| t.cluster.clone()).collect();
    things.retain(|t| only.map_or_else(|| known.contains(&t.cluster), |only| t.cluster == only));
    things.sort_by(|a, b| (&a.cluster, a.kind, &a.id).cmp(&(&b.cluster, b.kind, &b.id)));
    Ok(things)
}

/// EC2 filters by keys; with a name, those of that cluster alone.
fn filters(only: Option<&str>) -> Option<Vec<Filter>> {
    let name = only.unwrap_or("*");
    let keys = [CLUSTER.to_owned(), format!("kubernetes.io/cluster/{name}"), format!("{SHARED}{name}")];
    Some(vec![Filter::builder().name("tag-key").set_values(Some(keys.into())).build()])
}

async fn network(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    let (ec2, f) = (&aws.ec2, || filters(only));
    let what = |kind: &str| format!("{kind} could not be listed");
    let vpcs = async {
        let all: Vec<_> = ec2.describe_vpcs().set_filters(f()).into_paginator().items().send().try_collect().await.explain(what("VPCs"))?;
        let rows = all.into_iter().map(|x| (x.vpc_id.clone().unwrap_or_default(), x.vpc_id, map(x.tags)));
        Ok::<_, Error>(rows.flat_map(|(id, vpc, tags)| own_and_shared("vpc", "given vpc", id, vpc, tags)).collect::<Vec<_>>())
    };
    let subnets = async {
        let all: Vec<_> =
            ec2.describe_subnets().set_filters(f()).into_paginator().items().send().try_collect().await.explain(what("subnets"))?;
        let rows = all.into_iter().map(|x| (x.subnet_id.unwrap_or_default(), x.vpc_id, map(x.tags)));
        Ok::<_, Error>(rows.flat_map(|(id, vpc, tags)| own_and_shared("subnet", "given subnet", id, vpc, tags)).collect())
    };
    let security = async {
        let call = ec2.describe_security_groups().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("security groups"))?;
        Ok::<_, Error>(all.into_iter().filter_map(|x| thing("security group", x.group_id, x.vpc_id, map(x.tags), Billed::No)).collect())
    };
    let gateways = async {
        let call = ec2.describe_internet_gateways().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("internet gateways"))?;
        Ok::<_, Error>(all.into_iter().filter_map(|x| thing("internet gateway", x.internet_gateway_id, None, map(x.tags), Billed::No)).collect())
    };
    let tables = async {
        let call = ec2.describe_route_tables().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("route tables"))?;
        Ok::<_, Error>(all.into_iter().filter_map(|x| thing("route table", x.route_table_id, x.vpc_id, map(x.tags), Billed::No)).collect())
    };
    let dhcp = async {
        let call = ec2.describe_dhcp_options().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("DHCP options"))?;
        Ok::<_, Error>(all.into_iter().filter_map(|x| thing("dhcp options", x.dhcp_options_id, None, map(x.tags), Billed::No)).collect())
    };
    let endpoints = async {
        let call = ec2.describe_vpc_endpoints().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("VPC endpoints"))?;
        // AWS shows those that are gone for a while.
        let there = all.into_iter().filter(|x| !x.state.as_ref().is_some_and(|s| s.as_str().to_lowercase().starts_with("delet")));
        Ok::<_, Error>(there.filter_map(|x| thing("s3 endpoint", x.vpc_endpoint_id, x.vpc_id, map(x.tags), Billed::No)).collect())
    };
    let keys = async {
        let all = ec2.describe_key_pairs().set_filters(f()).send().await.explain(what("key pairs"))?;
        let all = all.key_pairs.into_iter().flatten();
        Ok::<_, Error>(all.filter_map(|x| thing("key pair", x.key_pair_id, None, map(x.tags), Billed::No)).collect())
    };
    let addresses = async {
        let all = ec2.describe_addresses().set_filters(f()).send().await.explain(what("Elastic IPs"))?;
        let all = all.addresses.into_iter().flatten();
        Ok::<_, Error>(all.filter_map(|x| thing("elastic ip", x.allocation_id, None, map(x.tags), Billed::Address)).collect())
    };
    let (a, b, c, d, e, f, g, h, i): (_, Vec<Thing>, Vec<Thing>, Vec<Thing>, Vec<Thing>, Vec<Thing>, Vec<Thing>, Vec<Thing>, Vec<Thing>) =
        tokio::try_join!(vpcs, subnets, security, gateways, tables, dhcp, endpoints, keys, addresses)?;
    Ok([a, b, c, d, e, f, g, h, i].into_iter().flatten().collect())
}

async fn machines(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    let (ec2, f) = (&aws.ec2, || filters(only));
    let instances = async {
        let call = ec2.describe_instances().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("instances could not be listed")?;
        // AWS shows those that are terminated for about an hour.
        let there = all.into_iter().flat_map(|reservation| reservation.instances.into_iter().flatten()).filter(|x| {
            !matches!(x.state.as_ref().and_then(|s| s.name.as_ref()), Some(InstanceStateName::Terminated))
        });
        let billed = |x: &aws_sdk_ec2::types::Instance| match x.instance_type.as_ref() {
            Some(of) if !matches!(x.state.as_ref().and_then(|s| s.name.as_ref()), Some(InstanceStateName::Stopped)) => {
                Billed::Instance(of.as_str().to_owned())
            }
            _ => Billed::No,
        };
        Ok::<_, Error>(there.filter_map(|x| { let billed = billed(&x); thing("instance", x.instance_id, x.vpc_id, map(x.tags), billed) }).collect::<Vec<_>>())
    };
    let volumes = async {
        let call = ec2.describe_volumes().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("volumes could not be listed")?;
        let there = all.into_iter().filter(|x| !matches!(x.state, Some(VolumeState::Deleted | VolumeState::Deleting)));
        Ok::<_, Error>(there
            .filter_map(|x| {
                let size = x.size.and_then(|size| u32::try_from(size).ok()).unwrap_or_default();
                let of = x.volume_type.map_or_else(String::new, |t| t.as_str().to_owned());
                thing("volume", x.volume_id, None, map(x.tags), Billed::Volume { size, of })
            })
            .collect::<Vec<_>>())
    };
    let interfaces = async {
        let call = ec2.describe_network_interfaces().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("network interfaces could not be listed")?;
        let there = all.into_iter().filter(|x| !matches!(x.status, Some(NetworkInterfaceStatus::Detaching)));
        Ok::<_, Error>(there.filter_map(|x| thing("network interface", x.network_interface_id, x.vpc_id, map(x.tag_set), Billed::No)).collect::<Vec<_>>())
    };
    let templates = async {
        let call = ec2.describe_launch_templates().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("launch templates could not be listed")?;
        Ok::<_, Error>(all.into_iter().filter_map(|x| thing("launch template", x.launch_template_id, None, map(x.tags), Billed::No)).collect::<Vec<_>>())
    };
    let (a, b, c, d) = tokio::try_join!(instances, volumes, interfaces, templates)?;
    Ok([a, b, c, d].into_iter().flatten().collect())
}

async fn groups(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    use aws_sdk_autoscaling::types::Filter;
    let filter = match only {
        Some(name) => Filter::builder().name(format!("tag:{CLUSTER}")).values(name).build(),
        None => Filter::builder().name("tag-key").values(CLUSTER).build(),
    };
    let call = aws.autoscaling.describe_auto_scaling_groups().filters(filter).into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("Auto Scaling groups could not be listed")?;
    let tags = |tags: Option<Vec<aws_sdk_autoscaling::types::TagDescription>>| -> BTreeMap<String, String> {
        tags.into_iter().flatten().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
    };
    Ok(all.into_iter().filter_map(|x| thing("auto scaling group", x.auto_scaling_group_name, None, tags(x.tags), Billed::No)).collect())
}

pub(super) async fn balancers(aws: &Aws) -> Result<Vec<Thing>> {
    let balancers = async {
        let all: Vec<_> = aws.elb.describe_load_balancers().into_paginator().items().send().try_collect().await.explain("load balancers could not be listed")?;
        let rows = all.into_iter().filter_map(|x| {
            let of = x.r#type.as_ref().map_or("network", |t| t.as_str()).to_owned();
            Some((x.load_balancer_arn?, x.vpc_id, x.load_balancer_name.unwrap_or_default(), Billed::LoadBalancer(of)))
        });
        with_tags(aws, "load balancer", rows.collect()).await
    };
    let targets = async {
        let all: Vec<_> = aws.elb.describe_target_groups().into_paginator().items().send().try_collect().await.explain("target groups could not be listed")?;
        let rows = all.into_iter().filter_map(|x| Some((x.target_group_arn?, x.vpc_id, x.target_group_name.unwrap_or_default(), Billed::No)));
        with_tags(aws, "target group", rows.collect()).await
    };
    let (a, b) = tokio::try_join!(balancers, targets)?;
    Ok([a, b].into_iter().flatten().collect())
}

/// Those of these rows (ARN, VPC, name, cost) that some cluster owns. Load balancing lists no tags.
async fn with_tags(aws: &Aws, kind: &'static str, rows: Vec<(String, Option<String>, String, Billed)>) -> Result<Vec<Thing>> {
    let asked = rows.chunks(TAGS_AT_ONCE).map(|rows| async move {
        let arns = rows.iter().map(|row| row.0.clone()).collect();
        let outcome = aws.elb.describe_tags().set_resource_arns(Some(arns)).send().await.failure();
        let described = match outcome {
            Ok(described) => described.tag_descriptions.unwrap_or_default(),
            // One that went away since it was listed fails the whole call: then each is asked alone.
            Err(failure) if failure.fault == Fault::Gone => {
                let mut described = Vec::new();
                for row in rows {
                    if let Ok(one) = aws.elb.describe_tags().resource_arns(&row.0).send().await.failure() {
                        described.extend(one.tag_descriptions.unwrap_or_default());
                    }
                }
                described
            }
            Err(failure) => return Err(failure.error(format!("the tags of a {kind} could not be read"))),
        };
        let found = described.into_iter().filter_map(|described| {
            let row = rows.iter().find(|row| Some(&row.0) == described.resource_arn.as_ref())?;
            let tags = described.tags.into_iter().flatten().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
            let mut found = thing(kind, Some(row.0.clone()), row.1.clone(), tags.collect(), row.3.clone())?;
            found.name.clone_from(&row.2);
            Some(found)
        });
        Ok(found.collect::<Vec<_>>())
    });
    Ok(futures::future::try_join_all(asked).await?.into_iter().flatten().collect())
}

/// The clusters' buckets.
pub async fn buckets(aws: &Aws) -> Result<Vec<Thing>> {
    let all = aws.s3.list_buckets().prefix("kup-").into_paginator().send();
    let pages: Vec<_> = all.try_collect().await.explain("buckets could not be listed")?;
    let names = pages.into_iter().flat_map(|page| page.buckets.into_iter().flatten()).filter_map(|bucket| bucket.name);
    Ok(names
        .filter_map(|name| {
            // The name tells all: a hash of account, region and cluster, and the cluster.
            let cluster = name.strip_prefix("kup-")?.split_once('-')?.1.to_owned();
            (bucket(&aws.identity.account, &aws.region, &cluster) == name).then(|| by_name("bucket", name.clone(), name, cluster))
        })
        .collect())
}

fn by_name(kind: &'static str, id: String, name: String, cluster: String) -> Thing {
    Thing { cluster, kind, id, name, maker: Maker::Kup, billed: Billed::No, vpc: None, tags: BTreeMap::new() }
}

async fn iam(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    let above = format!("/kup/{}/", aws.region);
    let path = only.map_or_else(|| above.clone(), |name| format!("{above}{name}/"));
    let cluster = |path: &str| path.strip_prefix(above.as_str()).map(|rest| rest.trim_end_matches('/').to_owned());
    let row = |kind: &'static str, path: &str, id: &str, name: &str| Some(by_name(kind, id.to_owned(), name.to_owned(), cluster(path)?));
    let what = |kind: &str| format!("IAM {kind} could not be listed");
    let roles = async {
        let all: Vec<_> =
            aws.iam.list_roles().path_prefix(&path).into_paginator().items().send().try_collect().await.explain(what("roles"))?;
        Ok::<_, Error>(all.iter().filter_map(|x| row("role", &x.path, &x.arn, &x.role_name)).collect::<Vec<_>>())
    };
    let users = async {
        let all: Vec<_> =
            aws.iam.list_users().path_prefix(&path).into_paginator().items().send().try_collect().await.explain(what("users"))?;
        Ok::<_, Error>(all.iter().filter_map(|x| row("operator user", &x.path, &x.arn, &x.user_name)).collect::<Vec<_>>())
    };
    let policies = async {
        let call = aws.iam.list_policies().scope(aws_sdk_iam::types::PolicyScopeType::Local).path_prefix(&path).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("policies"))?;
        let of = |x: &aws_sdk_iam::types::Policy| {
            row("operator policy", x.path.as_deref()?, x.arn.as_deref()?, x.policy_name.as_deref().unwrap_or_default())
        };
        Ok::<_, Error>(all.iter().filter_map(of).collect::<Vec<_>>())
    };
    let profiles = async {
        let call = aws.iam.list_instance_profiles().path_prefix(&path).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("instance profiles"))?;
        Ok::<_, Error>(all.iter().filter_map(|x| row("instance profile", &x.path, &x.arn, &x.instance_profile_name)).collect::<Vec<_>>())
    };
    let (a, b, c, d) = tokio::try_join!(roles, users, policies, profiles)?;
    Ok([a, b, c, d].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::map;

    #[test]
    fn a_thing_is_whose_its_tags_say() {
        let whose = |pairs: &[(&str, &str)]| owner(&map(pairs));
        assert_eq!(whose(&[("kup.dev/cluster", "a"), ("kubernetes.io/cluster/a", "owned")]), Some(("a".into(), Maker::Kup)));
        assert_eq!(whose(&[("kubernetes.io/cluster/a", "owned")]), Some(("a".into(), Maker::Kubernetes)));
        for near_miss in [&[("kubernetes.io/cluster/a", "shared")][..], &[("KubernetesCluster", "a")], &[("kup.dev/clusters", "a")], &[]] {
            assert_eq!(whose(near_miss), None, "{near_miss:?}");
        }
    }

    #[test]
    fn what_clusters_share_is_a_thing_of_each_of_them() {
        let tags = map(&[("kup.dev/shared/a", "tagged"), ("kup.dev/shared/b", "tagged before"), ("Name", "office")]);
        let things = own_and_shared("vpc", "given vpc", "vpc-1".into(), Some("vpc-1".into()), tags);
        let told: Vec<_> = things.iter().map(|t| (t.cluster.as_str(), t.kind, t.id.as_str())).collect();
        assert_eq!(told, [("a", "given vpc", "vpc-1"), ("b", "given vpc", "vpc-1")]);
    }

    #[test]
    fn a_line_says_what_a_thing_is_and_how_large() {
        let volume = Billed::Volume { size: 20, of: "gp3".into() };
        let tags = map(&[("kubernetes.io/cluster/a", "owned"), ("Name", "data")]);
        let volume = thing("volume", Some("vol-1".into()), None, tags, volume).unwrap();
        assert_eq!(volume.line(), "volume vol-1 (data, 20 GiB gp3)");
        assert_eq!(by_name("role", "arn:x".into(), "arn:x".into(), "a".into()).line(), "role arn:x");
    }
}
