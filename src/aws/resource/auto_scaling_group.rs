//! A group of minions that are alike: AWS keeps their number, over the zones, with nobody at a keyboard.

use aws_sdk_autoscaling::types::{
    AutoScalingGroup as Seen, Filter, InstancesDistribution, LaunchTemplate as MixedTemplate, LaunchTemplateOverrides,
    LaunchTemplateSpecification, MixedInstancesPolicy, Tag,
};

use super::AwsResource;
use super::launch_template::LaunchTemplate;
use super::network::SubnetRef;
use super::route_table::RouteTable;
use super::s3_endpoint::S3Endpoint;
use super::security_group_rules::SecurityGroupRules;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags::{self, CLUSTER, COUNT, GROUP, NAME};
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// The version of the launch template that counts.
const DEFAULT: &str = "$Default";

/// From how many machines on AWS is told to end them all at once: a group ends its own so slowly that 5,000 took an hour.
const MANY: usize = 20;
/// How many of them one call is given.
const AT_ONCE: usize = 100;

/// A group of minions.
#[derive(Debug, Clone)]
pub struct AutoScalingGroup {
    /// Its name in the config.
    pub name: String,
    /// What its machines are like.
    pub template: Ref<LaunchTemplate>,
    /// Where they are.
    pub subnets: Vec<SubnetRef>,
    /// How many machines the config asks for.
    pub count: u16,
    /// The fewest.
    pub min: u16,
    /// The most.
    pub max: u16,
    /// Their types, by preference.
    pub types: Vec<String>,
    /// The share of them, in percent, that are spot instances.
    pub spot: u8,
    /// What lets them reach others; a given VPC has its own routes.
    pub routes: Option<Ref<RouteTable>>,
    /// What lets them be reached.
    pub rules: Vec<Ref<SecurityGroupRules>>,
    /// Their way to the bucket; a given VPC has its own.
    pub endpoint: Option<Ref<S3Endpoint>>,
}

/// A machine of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its instance's id.
    pub id: String,
    /// Where it is in its life: `Pending`, `InService`, `Terminating`.
    pub state: String,
    /// Its zone.
    pub zone: String,
    /// Its type.
    pub instance_type: String,
    /// Whether AWS holds it to be healthy.
    pub healthy: bool,
    /// The number of the version of the launch template that it was made from, if AWS says it.
    pub version: Option<String>,
}

impl Member {
    /// Whether it is on its way out.
    pub fn leaves(&self) -> bool {
        self.state.starts_with("Terminat")
    }
}

/// A group as it was found.
#[derive(Debug, Clone, Default)]
pub struct AutoScalingGroupFound {
    /// What the cluster calls it.
    pub name: String,
    id: String,
    /// How many machines it is to have now.
    pub desired: i32,
    /// The fewest.
    pub min: i32,
    /// The most.
    pub max: i32,
    /// Its machines.
    pub members: Vec<Member>,
    /// Its subnets' ids.
    pub subnets: Vec<String>,
    /// Whether it is on its way out.
    pub leaving: bool,
    count: Option<String>,
    template: Option<String>,
    types: Vec<String>,
    spot: i32,
}

impl Found for AutoScalingGroupFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for AutoScalingGroup {
    const NEEDS: &'static [Need] = &[
        need("autoscaling:DescribeAutoScalingGroups", Scope::Any),
        need("autoscaling:CreateAutoScalingGroup", Scope::Named),
        // AWS asks all of these of who makes a group from a launch template, and has the group's own role do them.
        implied("autoscaling:CreateOrUpdateTags", "autoscaling:CreateAutoScalingGroup", Scope::Named),
        implied("ec2:RunInstances", "autoscaling:CreateAutoScalingGroup", Scope::Creates),
        implied("ec2:CreateTags", "autoscaling:CreateAutoScalingGroup", Scope::Creates),
        implied("iam:PassRole", "autoscaling:CreateAutoScalingGroup", Scope::IamPath),
        implied("iam:CreateServiceLinkedRole", "autoscaling:CreateAutoScalingGroup", Scope::Any),
        need("autoscaling:UpdateAutoScalingGroup", Scope::Named),
        need("autoscaling:CreateOrUpdateTags", Scope::Named),
        need("autoscaling:DeleteAutoScalingGroup", Scope::Named),
        need("ec2:TerminateInstances", Scope::Tagged),
        need("ec2:DescribeInstances", Scope::Any),
    ];
}

impl Resource for AutoScalingGroup {
    type Cloud = Aws;
    type Found = AutoScalingGroupFound;
    const KIND: &'static str = "auto scaling group";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        let mut needs = vec![self.template.address()];
        needs.extend(self.subnets.iter().map(SubnetRef::address));
        needs.extend(self.routes.iter().map(Ref::address));
        needs.extend(self.rules.iter().map(Ref::address));
        needs.extend(self.endpoint.iter().map(Ref::address));
        needs
    }

    fn detail(&self) -> String {
        let mut words = format!("{} × {}", self.count, self.types.join(" or "));
        if self.min != self.max {
            words += &format!(", from {} to {}", self.min, self.max);
        }
        if self.spot > 0 {
            words += &format!(", {} % of them spot", self.spot);
        }
        words
    }

    fn diff(&self, found: &AutoScalingGroupFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        if found.leaving {
            return vec![Change::in_place("state", "on its way out", "there")];
        }
        let mut changes = Vec::new();
        if let Some(desired) = self.desired(found) {
            let ends = u32::try_from(found.desired - desired).unwrap_or_default();
            changes.push(Change::in_place("count", found.desired, desired).ending(ends));
        } else if found.count.as_deref() != Some(self.count.to_string().as_str()) {
            let was = found.count.clone().unwrap_or_else(|| "unknown".to_owned());
            changes.push(Change::in_place("count it was made with", was, self.count));
        }
        changes.extend(Change::if_differs("min", &found.min, &i32::from(self.min), Change::in_place));
        changes.extend(Change::if_differs("max", &found.max, &i32::from(self.max), Change::in_place));
        changes.extend(Change::if_differs("types", &found.types.join(" "), &self.mixed_types().join(" "), Change::in_place));
        changes.extend(Change::if_differs("spot", &found.spot, &i32::from(self.spot), Change::in_place));
        let template = cx.look(&self.template).map_or_else(|| "a new one".to_owned(), |template| template.id().to_owned());
        changes.extend(Change::if_differs(
            "launch template",
            &found.template.clone().unwrap_or_default(),
            &template,
            Change::in_place,
        ));
        let subnets: Option<Vec<String>> = self.subnets.iter().map(|subnet| subnet.look(cx)).collect();
        let subnets = subnets.map_or_else(|| "new ones".to_owned(), |subnets| sorted(subnets).join(" "));
        changes.extend(Change::if_differs("subnets", &found.subnets.join(" "), &subnets, Change::in_place));
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<AutoScalingGroupFound> {
        let template = cx.get(&self.template)?.id().to_owned();
        let subnets = self.subnets.iter().map(|subnet| subnet.id(cx)).collect::<Result<Vec<_>>>()?;
        self.make(cx.cloud, template, subnets).await
    }

    async fn update(&self, found: &AutoScalingGroupFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<AutoScalingGroupFound> {
        if found.leaving {
            cx.cloud.watch.group_gone(cx.cloud, &found.id).await?;
            return self.create(cx).await;
        }
        let wanted = AutoScalingGroupFound {
            desired: self.desired(found).unwrap_or(found.desired),
            min: self.min.into(),
            max: self.max.into(),
            count: Some(self.count.to_string()),
            template: Some(cx.get(&self.template)?.id().to_owned()),
            subnets: sorted(self.subnets.iter().map(|subnet| subnet.id(cx)).collect::<Result<Vec<_>>>()?),
            types: self.mixed_types(),
            spot: self.spot.into(),
            ..found.clone()
        };
        self.change(found, wanted, cx.cloud).await
    }

    async fn list(aws: &Aws) -> Result<Vec<AutoScalingGroupFound>> {
        let ours = Filter::builder().name(format!("tag:{CLUSTER}")).values(&aws.cluster).build();
        let pages = aws.autoscaling.describe_auto_scaling_groups().filters(ours).into_paginator().items().send();
        let groups: Vec<_> = pages.try_collect().await.explain("Auto Scaling groups could not be listed")?;
        Ok(groups.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &AutoScalingGroupFound) -> Result<()> {
        let what = format!("the Auto Scaling group {} could not be removed", found.id);
        if !found.leaving {
            aws.until_unblocked(&what, || async {
                let ask = aws.autoscaling.delete_auto_scaling_group().auto_scaling_group_name(&found.id).force_delete(true);
                unless_gone(ask.send().await.failure()).map(|_| ())
            })
            .await?;
        }
        if found.members.len() > MANY {
            let chunks = found.members.chunks(AT_ONCE).map(|some| async {
                let ids = some.iter().map(|member| member.id.clone()).collect();
                // One that is gone already makes AWS refuse them all: then the group ends them itself.
                unless_gone(aws.ec2.terminate_instances().set_instance_ids(Some(ids)).send().await.failure()).map(|_| ())
            });
            futures::future::try_join_all(chunks).await.map_err(|failure| failure.error(&what))?;
        }
        aws.watch.group_gone(aws, &found.id).await?;
        // The group may be gone before its machines are, which hold on to security groups and subnets.
        aws.watch.members_gone(aws, &found.name).await
    }
}

impl AutoScalingGroup {
    async fn make(&self, aws: &Aws, template: String, subnets: Vec<String>) -> Result<AutoScalingGroupFound> {
        let name = aws.unique(&self.name, 255);
        let what = format!("the Auto Scaling group {name} could not be made");
        let there = aws
            .until_unblocked(&what, || async {
                let ask = aws
                    .autoscaling
                    .create_auto_scaling_group()
                    .auto_scaling_group_name(&name)
                    .min_size(self.min.into())
                    .max_size(self.max.into())
                    .desired_capacity(self.count.into())
                    .vpc_zone_identifier(subnets.join(","))
                    .health_check_type("EC2")
                    // What is of an older template goes first, and then as AWS keeps the zones even.
                    .termination_policies("OldestLaunchTemplate")
                    .termination_policies("Default")
                    .set_capacity_rebalance((self.spot > 0).then_some(true))
                    .set_launch_template((!self.mixed()).then(|| specification(&template)))
                    .set_mixed_instances_policy(self.mixed().then(|| self.policy(&template)))
                    .set_tags(Some(self.tags(aws, &name)));
                match ask.send().await.failure() {
                    Ok(_) => Ok(None),
                    // By an earlier call whose answer never came, or by a cluster before this one whose group is on its way out.
                    Err(failure) if failure.fault == Fault::Exists => {
                        let ask = aws.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(&name);
                        match ask.send().await.failure()?.auto_scaling_groups.unwrap_or_default().into_iter().next() {
                            Some(there) if there.status().is_none() => Ok(Some(found(there))),
                            _ => Err(Failure { fault: Fault::Blocked, ..failure }),
                        }
                    }
                    // The template was only just made.
                    Err(failure) if failure.message.contains("launch template") && failure.message.contains("does not exist") => {
                        Err(Failure { fault: Fault::NotYet, ..failure })
                    }
                    Err(failure) => Err(failure.fresh()),
                }
            })
            .await?;
        let made = AutoScalingGroupFound {
            name: self.name.clone(),
            id: name,
            desired: self.count.into(),
            min: self.min.into(),
            max: self.max.into(),
            members: Vec::new(),
            subnets: sorted(subnets),
            leaving: false,
            count: Some(self.count.to_string()),
            template: Some(template),
            types: self.mixed_types(),
            spot: self.spot.into(),
        };
        match there {
            Some(there) => self.change(&there, made, aws).await,
            None => Ok(made),
        }
    }

    /// How many machines it is to have from now on, if that is not for something else to say. Where the config lets their number move,
    /// its count is where they begin, and again when the config's own count is changed.
    fn desired(&self, found: &AutoScalingGroupFound) -> Option<i32> {
        let (count, made) = (i32::from(self.count), found.count.as_deref().and_then(|count| count.parse::<i32>().ok()));
        if self.min == self.max || made.is_some_and(|made| made != count) {
            return (found.desired != count).then_some(count);
        }
        let clamped = found.desired.clamp(self.min.into(), i32::from(self.max).max(self.min.into()));
        (clamped != found.desired).then_some(clamped)
    }

    /// Whether it takes more than the template to say what its machines are.
    fn mixed(&self) -> bool {
        self.types.len() > 1 || self.spot > 0
    }

    /// The types that a policy names.
    fn mixed_types(&self) -> Vec<String> {
        if self.mixed() { self.types.clone() } else { Vec::new() }
    }

    fn policy(&self, template: &str) -> MixedInstancesPolicy {
        let one = |kind: &String| LaunchTemplateOverrides::builder().instance_type(kind).build();
        let types = MixedTemplate::builder()
            .launch_template_specification(specification(template))
            .set_overrides(Some(self.types.iter().map(one).collect()))
            .build();
        let distribution = InstancesDistribution::builder()
            .on_demand_allocation_strategy("prioritized")
            .on_demand_base_capacity(0)
            .on_demand_percentage_above_base_capacity(100 - i32::from(self.spot))
            .spot_allocation_strategy("price-capacity-optimized")
            .build();
        MixedInstancesPolicy::builder().launch_template(types).instances_distribution(distribution).build()
    }

    fn tags(&self, aws: &Aws, name: &str) -> Vec<Tag> {
        let mut tags = tags::tags(aws, &self.name, Some("minion"));
        tags.push((GROUP.to_owned(), self.name.clone()));
        let tags = tags.into_iter().map(|(key, value)| tag(name, key, value, true));
        tags.chain([self.count_tag(name)]).collect()
    }

    fn count_tag(&self, name: &str) -> Tag {
        tag(name, COUNT.to_owned(), self.count.to_string(), false)
    }

    /// Makes the found group as it is wanted.
    async fn change(
        &self,
        found: &AutoScalingGroupFound,
        wanted: AutoScalingGroupFound,
        aws: &Aws,
    ) -> Result<AutoScalingGroupFound> {
        let what = format!("the Auto Scaling group {} could not be changed", found.id);
        let template = wanted.template.clone().unwrap_or_default();
        aws.until_unblocked(&what, || async {
            let ask = aws.autoscaling.update_auto_scaling_group().auto_scaling_group_name(&found.id);
            let ask = ask
                .min_size(wanted.min)
                .max_size(wanted.max)
                .set_desired_capacity((wanted.desired != found.desired).then_some(wanted.desired))
                .set_vpc_zone_identifier((wanted.subnets != found.subnets).then(|| wanted.subnets.join(",")))
                .set_capacity_rebalance((wanted.spot != found.spot).then_some(self.spot > 0))
                .set_launch_template((!self.mixed()).then(|| specification(&template)))
                .set_mixed_instances_policy(self.mixed().then(|| self.policy(&template)));
            ask.send().await.failure().map(|_| ())
        })
        .await?;
        // Last, since it says that the count was acted upon.
        if found.count != wanted.count {
            aws.autoscaling.create_or_update_tags().tags(self.count_tag(&found.id)).send().await.explain(&what)?;
        }
        Ok(wanted)
    }
}

fn specification(template: &str) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().launch_template_id(template).version(DEFAULT).build()
}

fn tag(group: &str, key: String, value: String, propagate: bool) -> Tag {
    let tag = Tag::builder().resource_id(group).resource_type("auto-scaling-group").key(key).value(value);
    tag.propagate_at_launch(propagate).build()
}

fn found(group: Seen) -> AutoScalingGroupFound {
    let id = group.auto_scaling_group_name.clone().unwrap_or_default();
    let value = |key: &str| group.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value()).map(str::to_owned);
    let mixed = group.mixed_instances_policy();
    let inner = mixed.and_then(|policy| policy.launch_template());
    let template = inner.and_then(|mixed| mixed.launch_template_specification()).or_else(|| group.launch_template());
    let distribution = mixed.and_then(|policy| policy.instances_distribution());
    let on_demand = distribution.and_then(|d| d.on_demand_percentage_above_base_capacity()).unwrap_or(100);
    let overrides = inner.map(|mixed| mixed.overrides()).unwrap_or_default();
    let subnets = group.vpc_zone_identifier().unwrap_or_default().split(',').map(str::trim).filter(|id| !id.is_empty());
    let member = |instance: &aws_sdk_autoscaling::types::Instance| Member {
        id: instance.instance_id().unwrap_or_default().to_owned(),
        state: instance.lifecycle_state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
        zone: instance.availability_zone().unwrap_or_default().to_owned(),
        instance_type: instance.instance_type().unwrap_or_default().to_owned(),
        healthy: instance.health_status().is_none_or(|status| status.eq_ignore_ascii_case("healthy")),
        version: instance.launch_template().and_then(|template| template.version()).map(str::to_owned),
    };
    AutoScalingGroupFound {
        name: value(NAME).unwrap_or_else(|| id.clone()),
        desired: group.desired_capacity().unwrap_or_default(),
        min: group.min_size().unwrap_or_default(),
        max: group.max_size().unwrap_or_default(),
        members: group.instances().iter().map(member).collect(),
        subnets: sorted(subnets.map(str::to_owned).collect()),
        leaving: group.status().is_some_and(|status| !status.is_empty()),
        count: value(COUNT),
        // Another version than the default one is not what is wanted, and so no template of ours.
        template: template.filter(|t| t.version() == Some(DEFAULT)).and_then(|t| t.launch_template_id()).map(str::to_owned),
        types: overrides.iter().filter_map(|one| one.instance_type().map(str::to_owned)).collect(),
        spot: 100 - on_demand,
        id,
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[cfg(test)]
#[path = "auto_scaling_group_tests.rs"]
mod tests;
