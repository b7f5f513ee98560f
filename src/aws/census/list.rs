//! The lists of each service.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, InstanceStateName, NetworkInterfaceStatus, VolumeState};

use super::{Billed, CLUSTER, Thing, by_name, map, own_and_shared, thing};
use crate::aws::Aws;
use crate::aws::client::bucket;
use crate::aws::fault::{Explain as _, Fault};
use crate::error::{Error, Result};

/// How many things one call may ask the tags of.
const TAGS_AT_ONCE: usize = 20;

/// EC2 filters by keys.
fn filters(keys: &[String]) -> Option<Vec<Filter>> {
    Some(vec![Filter::builder().name("tag-key").set_values(Some(keys.to_vec())).build()])
}

/// What EC2 has under any of these keys.
pub(super) async fn ec2(aws: &Aws, keys: &[String]) -> Result<Vec<Thing>> {
    let (network, machines) = tokio::try_join!(network(aws, keys), machines(aws, keys))?;
    Ok(network.into_iter().chain(machines).collect())
}

async fn network(aws: &Aws, keys: &[String]) -> Result<Vec<Thing>> {
    let (ec2, f) = (&aws.ec2, || filters(keys));
    let what = |kind: &str| format!("{kind} could not be listed");
    let vpcs = async {
        let all: Vec<_> =
            ec2.describe_vpcs().set_filters(f()).into_paginator().items().send().try_collect().await.explain(what("VPCs"))?;
        let rows = all.into_iter().map(|x| (x.vpc_id.clone().unwrap_or_default(), x.vpc_id, map(x.tags)));
        Ok::<_, Error>(rows.flat_map(|(id, vpc, tags)| own_and_shared("vpc", "given vpc", id, vpc, tags)).collect::<Vec<_>>())
    };
    let subnets = async {
        let all: Vec<_> = ec2
            .describe_subnets()
            .set_filters(f())
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .explain(what("subnets"))?;
        let rows = all.into_iter().map(|x| (x.subnet_id.unwrap_or_default(), x.vpc_id, map(x.tags)));
        Ok::<_, Error>(rows.flat_map(|(id, vpc, tags)| own_and_shared("subnet", "given subnet", id, vpc, tags)).collect())
    };
    let security = security_groups(aws, keys);
    let gateways = async {
        let call = ec2.describe_internet_gateways().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("internet gateways"))?;
        Ok::<_, Error>(
            all.into_iter()
                .filter_map(|x| thing("internet gateway", x.internet_gateway_id, None, map(x.tags), Billed::No))
                .collect(),
        )
    };
    let tables = async {
        let call = ec2.describe_route_tables().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("route tables"))?;
        Ok::<_, Error>(
            all.into_iter().filter_map(|x| thing("route table", x.route_table_id, x.vpc_id, map(x.tags), Billed::No)).collect(),
        )
    };
    let dhcp = async {
        let call = ec2.describe_dhcp_options().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("DHCP options"))?;
        Ok::<_, Error>(
            all.into_iter().filter_map(|x| thing("dhcp options", x.dhcp_options_id, None, map(x.tags), Billed::No)).collect(),
        )
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
    #[allow(clippy::type_complexity, reason = "the lists of one join")]
    let (a, b, c, d, e, f, g, h, i): (
        _,
        Vec<Thing>,
        Vec<Thing>,
        Vec<Thing>,
        Vec<Thing>,
        Vec<Thing>,
        Vec<Thing>,
        Vec<Thing>,
        Vec<Thing>,
    ) = tokio::try_join!(vpcs, subnets, security, gateways, tables, dhcp, endpoints, keys, addresses)?;
    Ok([a, b, c, d, e, f, g, h, i].into_iter().flatten().collect())
}

async fn machines(aws: &Aws, keys: &[String]) -> Result<Vec<Thing>> {
    let (ec2, f) = (&aws.ec2, || filters(keys));
    let instances = async {
        let call = ec2.describe_instances().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("instances could not be listed")?;
        // AWS shows those that are terminated for about an hour.
        let there = all
            .into_iter()
            .flat_map(|reservation| reservation.instances.into_iter().flatten())
            .filter(|x| !matches!(x.state.as_ref().and_then(|s| s.name.as_ref()), Some(InstanceStateName::Terminated)));
        let billed = |x: &aws_sdk_ec2::types::Instance| match x.instance_type.as_ref() {
            Some(of) if !matches!(x.state.as_ref().and_then(|s| s.name.as_ref()), Some(InstanceStateName::Stopped)) => {
                Billed::Instance(of.as_str().to_owned())
            }
            _ => Billed::No,
        };
        Ok::<_, Error>(
            there
                .filter_map(|x| {
                    let billed = billed(&x);
                    thing("instance", x.instance_id, x.vpc_id, map(x.tags), billed)
                })
                .collect::<Vec<_>>(),
        )
    };
    let volumes = volumes(aws, keys);
    let interfaces = async {
        let call = ec2.describe_network_interfaces().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("network interfaces could not be listed")?;
        let there = all.into_iter().filter(|x| !matches!(x.status, Some(NetworkInterfaceStatus::Detaching)));
        Ok::<_, Error>(
            there
                .filter_map(|x| thing("network interface", x.network_interface_id, x.vpc_id, map(x.tag_set), Billed::No))
                .collect::<Vec<_>>(),
        )
    };
    let templates = async {
        let call = ec2.describe_launch_templates().set_filters(f()).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain("launch templates could not be listed")?;
        Ok::<_, Error>(
            all.into_iter()
                .filter_map(|x| thing("launch template", x.launch_template_id, None, map(x.tags), Billed::No))
                .collect::<Vec<_>>(),
        )
    };
    let (a, b, c, d) = tokio::try_join!(instances, volumes, interfaces, templates)?;
    Ok([a, b, c, d].into_iter().flatten().collect())
}

async fn security_groups(aws: &Aws, keys: &[String]) -> Result<Vec<Thing>> {
    let call = aws.ec2.describe_security_groups().set_filters(filters(keys)).into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("security groups could not be listed")?;
    Ok(all.into_iter().filter_map(|x| thing("security group", x.group_id, x.vpc_id, map(x.tags), Billed::No)).collect())
}

async fn volumes(aws: &Aws, keys: &[String]) -> Result<Vec<Thing>> {
    let call = aws.ec2.describe_volumes().set_filters(filters(keys)).into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("volumes could not be listed")?;
    let there = all.into_iter().filter(|x| !matches!(x.state, Some(VolumeState::Deleted | VolumeState::Deleting)));
    Ok(there
        .filter_map(|x| {
            let size = x.size.and_then(|size| u32::try_from(size).ok()).unwrap_or_default();
            let of = x.volume_type.map_or_else(String::new, |t| t.as_str().to_owned());
            thing("volume", x.volume_id, None, map(x.tags), Billed::Volume { size, of })
        })
        .collect::<Vec<_>>())
}

/// What Kubernetes makes of EC2's things.
pub(super) async fn by_kubernetes(aws: &Aws, keys: &[String]) -> Result<Vec<Thing>> {
    let (groups, volumes) = tokio::try_join!(security_groups(aws, keys), volumes(aws, keys))?;
    Ok(groups.into_iter().chain(volumes).collect())
}

pub(super) async fn groups(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
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
    Ok(all
        .into_iter()
        .filter_map(|x| thing("auto scaling group", x.auto_scaling_group_name, None, tags(x.tags), Billed::No))
        .collect())
}

pub(in crate::aws) async fn balancers(aws: &Aws) -> Result<Vec<Thing>> {
    let balancers = async {
        let all: Vec<_> = aws
            .elb
            .describe_load_balancers()
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .explain("load balancers could not be listed")?;
        let rows = all.into_iter().filter_map(|x| {
            let of = x.r#type.as_ref().map_or("network", |t| t.as_str()).to_owned();
            Some((x.load_balancer_arn?, x.vpc_id, x.load_balancer_name.unwrap_or_default(), Billed::LoadBalancer(of)))
        });
        with_tags(aws, "load balancer", rows.collect()).await
    };
    let targets = async {
        let all: Vec<_> = aws
            .elb
            .describe_target_groups()
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .explain("target groups could not be listed")?;
        let rows = all
            .into_iter()
            .filter_map(|x| Some((x.target_group_arn?, x.vpc_id, x.target_group_name.unwrap_or_default(), Billed::No)));
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

pub(super) async fn iam(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    let above = format!("/kup/{}/", aws.region);
    let path = only.map_or_else(|| above.clone(), |name| format!("{above}{name}/"));
    let cluster = |path: &str| path.strip_prefix(above.as_str()).map(|rest| rest.trim_end_matches('/').to_owned());
    let row = |kind: &'static str, path: &str, id: &str, name: &str| {
        Some(by_name(kind, id.to_owned(), name.to_owned(), cluster(path)?))
    };
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
        let call = aws
            .iam
            .list_policies()
            .scope(aws_sdk_iam::types::PolicyScopeType::Local)
            .path_prefix(&path)
            .into_paginator()
            .items()
            .send();
        let all: Vec<_> = call.try_collect().await.explain(what("policies"))?;
        let of = |x: &aws_sdk_iam::types::Policy| {
            row("operator policy", x.path.as_deref()?, x.arn.as_deref()?, x.policy_name.as_deref().unwrap_or_default())
        };
        Ok::<_, Error>(all.iter().filter_map(of).collect::<Vec<_>>())
    };
    let profiles = async {
        let call = aws.iam.list_instance_profiles().path_prefix(&path).into_paginator().items().send();
        let all: Vec<_> = call.try_collect().await.explain(what("instance profiles"))?;
        Ok::<_, Error>(
            all.iter().filter_map(|x| row("instance profile", &x.path, &x.arn, &x.instance_profile_name)).collect::<Vec<_>>(),
        )
    };
    let (a, b, c, d) = tokio::try_join!(roles, users, policies, profiles)?;
    Ok([a, b, c, d].into_iter().flatten().collect())
}
