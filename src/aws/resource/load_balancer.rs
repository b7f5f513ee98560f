//! The way from outside to several masters' API: a network load balancer. Its name in DNS is known at once, and nothing waits for the rest.

use aws_sdk_elasticloadbalancingv2::types::{LoadBalancer as Seen, LoadBalancerSchemeEnum, LoadBalancerTypeEnum, Tag};

use super::AwsResource;
use super::internet_gateway::InternetGateway;
use super::network::SubnetRef;
use super::security_group::SecurityGroup;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// The name of the only one. It has no tag filter in its API, but deterministic names, of at most this length.
pub(super) const API: &str = "api";
/// How long names of load balancers and target groups may be.
pub(super) const NAME_LIMIT: usize = 32;

/// The API's load balancer.
#[derive(Debug, Clone)]
pub struct LoadBalancer {
    /// Its name among load balancers: `api`.
    pub name: String,
    /// Where it has an address: a subnet of each zone.
    pub subnets: Vec<SubnetRef>,
    /// Who reaches it. One made without a security group can never get one.
    pub group: Ref<SecurityGroup>,
    /// The way in, which has to be there first; a given VPC has its own.
    pub gateway: Option<Ref<InternetGateway>>,
}

/// A load balancer as it was found.
#[derive(Debug, Clone)]
pub struct LoadBalancerFound {
    name: String,
    id: String,
    /// Its name in DNS.
    pub dns_name: String,
    /// Its subnets' ids.
    pub subnets: Vec<String>,
    /// Its security groups' ids.
    pub groups: Vec<String>,
}

impl Found for LoadBalancerFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// Its ARN.
    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for LoadBalancer {
    const NEEDS: &'static [Need] = &[
        need("elasticloadbalancing:DescribeLoadBalancers", Scope::Any),
        need("elasticloadbalancing:CreateLoadBalancer", Scope::Named),
        implied("elasticloadbalancing:AddTags", "elasticloadbalancing:CreateLoadBalancer", Scope::Named),
        implied("iam:CreateServiceLinkedRole", "elasticloadbalancing:CreateLoadBalancer", Scope::Any),
        need("elasticloadbalancing:SetSubnets", Scope::Named),
        need("elasticloadbalancing:SetSecurityGroups", Scope::Named),
        need("elasticloadbalancing:DeleteLoadBalancer", Scope::Named),
    ];
}

impl Resource for LoadBalancer {
    type Cloud = Aws;
    type Found = LoadBalancerFound;
    const KIND: &'static str = "load balancer";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        let mut needs: Vec<Address> = self.subnets.iter().map(SubnetRef::address).collect();
        needs.push(self.group.address());
        needs.extend(self.gateway.iter().map(Ref::address));
        needs
    }

    fn detail(&self) -> String {
        match self.subnets.len() {
            1 => "network load balancer in one subnet".to_owned(),
            several => format!("network load balancer over {several} subnets"),
        }
    }

    fn diff(&self, found: &LoadBalancerFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        let subnets: Option<Vec<String>> = self.subnets.iter().map(|subnet| subnet.look(cx)).collect();
        let subnets = subnets.map_or_else(|| "new ones".to_owned(), |subnets| sorted(subnets).join(" "));
        changes.extend(Change::if_differs("subnets", &found.subnets.join(" "), &subnets, Change::in_place));
        let group = cx.look(&self.group).map_or_else(|| "a new one".to_owned(), |group| group.id().to_owned());
        changes.extend(Change::if_differs("security group", &found.groups.join(" "), &group, Change::in_place));
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<LoadBalancerFound> {
        let subnets = self.subnet_ids(cx)?;
        let group = cx.get(&self.group)?;
        let what = format!("the load balancer {} could not be made", self.name);
        // A second call of the same kind gives what the first one made.
        let made = cx
            .cloud
            .until_unblocked(&what, || async {
                let ask = cx
                    .cloud
                    .elb
                    .create_load_balancer()
                    .name(cx.cloud.unique(&self.name, NAME_LIMIT))
                    .r#type(LoadBalancerTypeEnum::Network)
                    .scheme(LoadBalancerSchemeEnum::InternetFacing)
                    .set_subnets(Some(subnets.clone()))
                    .security_groups(group.id())
                    .set_tags(Some(tags_of(cx.cloud, &self.name)));
                ask.send().await.failure().map_err(Failure::fresh)
            })
            .await?;
        let made = made.load_balancers.unwrap_or_default().into_iter().next();
        Ok(found(&self.name, made.unwrap_or_else(|| Seen::builder().build())))
    }

    async fn update(&self, was: &LoadBalancerFound, changes: &[Change], cx: &Cx<'_, Aws>) -> Result<LoadBalancerFound> {
        let what = format!("the load balancer {} could not be changed", self.name);
        let subnets = sorted(self.subnet_ids(cx)?);
        let groups = vec![cx.get(&self.group)?.id().to_owned()];
        if changes.iter().any(|change| change.field == "subnets") {
            let ask = cx.cloud.elb.set_subnets().load_balancer_arn(&was.id).set_subnets(Some(subnets.clone()));
            ask.send().await.explain(&what)?;
        }
        if was.groups != groups {
            let ask = cx.cloud.elb.set_security_groups().load_balancer_arn(&was.id).set_security_groups(Some(groups.clone()));
            ask.send().await.explain(&what)?;
        }
        Ok(LoadBalancerFound { subnets, groups, ..was.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<LoadBalancerFound>> {
        let seen = of_cluster(aws).await.map_err(|failure| failure.error("load balancers could not be listed"))?;
        Ok(seen.into_iter().map(|seen| found(API, seen)).collect())
    }

    /// It is gone at once; its network interfaces are for some minutes more, for which those wait that they are in the way of.
    async fn delete(aws: &Aws, found: &LoadBalancerFound) -> Result<()> {
        let what = format!("the load balancer {} could not be removed", found.name);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.elb.delete_load_balancer().load_balancer_arn(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}

impl LoadBalancer {
    fn subnet_ids(&self, cx: &Cx<'_, Aws>) -> Result<Vec<String>> {
        self.subnets.iter().map(|subnet| subnet.id(cx)).collect()
    }
}

/// The cluster's load balancer, if there is one.
pub(super) async fn of_cluster(aws: &Aws) -> Result<Option<Seen>, Failure> {
    let ask = aws.elb.describe_load_balancers().names(aws.unique(API, NAME_LIMIT));
    let answer = unless_gone(ask.send().await.failure())?;
    Ok(answer.and_then(|answer| answer.load_balancers.unwrap_or_default().into_iter().next()))
}

/// Owner tags, as this service takes them.
pub(super) fn tags_of(aws: &Aws, name: &str) -> Vec<Tag> {
    tags::tags(aws, name, Some("master")).into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

fn found(name: &str, seen: Seen) -> LoadBalancerFound {
    let subnets = seen.availability_zones().iter().filter_map(|zone| zone.subnet_id().map(str::to_owned));
    LoadBalancerFound {
        name: name.to_owned(),
        subnets: sorted(subnets.collect()),
        groups: seen.security_groups.unwrap_or_default(),
        dns_name: seen.dns_name.unwrap_or_default(),
        id: seen.load_balancer_arn.unwrap_or_default(),
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}
