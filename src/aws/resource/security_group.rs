//! Groups of machines that the network's rules speak of. Rules are a kind of their own, so that groups can name each other in them.

use aws_sdk_ec2::types::ResourceType;

use super::AwsResource;
use super::network::VpcRef;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::once::taken;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Resource};

/// A security group. Each machine is in exactly one, since Kubernetes' cloud controller wants one with the cluster's tag on each.
#[derive(Debug, Clone)]
pub struct SecurityGroup {
    /// Its name among security groups: `master`, `minion`, `balancer`.
    pub name: String,
    /// The VPC it is part of.
    pub vpc: VpcRef,
}

/// A security group as it was found.
#[derive(Debug, Clone)]
pub struct SecurityGroupFound {
    name: String,
    id: String,
    /// The VPC it is part of.
    pub vpc: String,
}

impl Found for SecurityGroupFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for SecurityGroup {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeSecurityGroups", Scope::Any),
        need("ec2:CreateSecurityGroup", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateSecurityGroup", Scope::Creates),
        need("ec2:DeleteSecurityGroup", Scope::Tagged),
    ];
}

impl Resource for SecurityGroup {
    type Cloud = Aws;
    type Found = SecurityGroupFound;
    const KIND: &'static str = "security group";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.vpc.address()]
    }

    fn diff(&self, found: &SecurityGroupFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let vpc = self.vpc.look(cx);
        vpc.and_then(|vpc| Change::if_differs("VPC", &found.vpc, &vpc, Change::refuse)).into_iter().collect()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<SecurityGroupFound> {
        let vpc = self.vpc.id(cx)?;
        // A name may not begin with `sg-`, as a cluster's may.
        let group = format!("kup-{}", cx.cloud.unique(&self.name, 200));
        let what = format!("the security group {group} could not be made");
        let specification = tags::ec2::specification(cx.cloud, ResourceType::SecurityGroup, &self.name, Some(&self.name));
        let make = || async {
            let call =
                cx.cloud.ec2.create_security_group().group_name(&group).vpc_id(&vpc).tag_specifications(specification.clone());
            let call = call.description(format!("Kubernetes cluster {}: {}", cx.cloud.cluster, self.name));
            match call.send().await.failure() {
                Ok(made) => Ok(made.group_id),
                Err(failure) if failure.fault == Fault::Exists => Ok(None),
                Err(failure) => Err(failure.fresh()),
            }
        };
        if let Some(id) = cx.cloud.until_unblocked(&what, make).await? {
            return Ok(SecurityGroupFound { name: self.name.clone(), id, vpc });
        }
        // A call whose answer was lost made it, unless it is somebody else's.
        let look =
            || async { Ok(Self::list(cx.cloud).await?.into_iter().find(|found| found.name == self.name && found.vpc == vpc)) };
        taken(look).await?.ok_or_else(|| {
            Error::new(what).why(format!("{vpc} has a group of that name which is not tagged as this cluster's")).hint(format!(
                "remove it, if nothing uses it: `aws ec2 describe-security-groups --filters Name=group-name,Values={group}`"
            ))
        })
    }

    async fn update(&self, found: &SecurityGroupFound, _: &[Change], _: &Cx<'_, Aws>) -> Result<SecurityGroupFound> {
        Ok(found.clone())
    }

    async fn list(aws: &Aws) -> Result<Vec<SecurityGroupFound>> {
        let pages = aws.ec2.describe_security_groups().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let groups: Vec<_> = pages.try_collect().await.explain("security groups could not be listed")?;
        let found = |group: aws_sdk_ec2::types::SecurityGroup| {
            let id = group.group_id.clone().unwrap_or_default();
            SecurityGroupFound { name: tags::ec2::name(group.tags(), &id), vpc: group.vpc_id.clone().unwrap_or_default(), id }
        };
        Ok(groups.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &SecurityGroupFound) -> Result<()> {
        let what = format!("the security group {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            let outcome: Result<_, Failure> = aws.ec2.delete_security_group().group_id(&found.id).send().await.failure();
            unless_gone(outcome).map(|_| ())
        })
        .await
    }
}
