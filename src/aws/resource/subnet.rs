//! A zone's part of the network.

use aws_sdk_ec2::types::ResourceType;
use ipnet::Ipv4Net;

use super::AwsResource;
use super::vpc::Vpc;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, unless_gone};
use crate::aws::once::taken;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// A public subnet of the cluster's own.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its name among subnets: `public-us-west-2a`.
    pub name: String,
    /// The VPC it is part of.
    pub vpc: Ref<Vpc>,
    /// Its zone.
    pub zone: String,
    /// Its range.
    pub cidr: Ipv4Net,
}

/// A subnet as it was found.
#[derive(Debug, Clone)]
pub struct SubnetFound {
    name: String,
    id: String,
    /// Its zone.
    pub zone: String,
    /// Its range.
    pub cidr: String,
}

impl Found for SubnetFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for Subnet {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeSubnets", Scope::Any),
        need("ec2:CreateSubnet", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateSubnet", Scope::Creates),
        need("ec2:DeleteSubnet", Scope::Tagged),
    ];
}

impl Resource for Subnet {
    type Cloud = Aws;
    type Found = SubnetFound;
    const KIND: &'static str = "subnet";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.vpc.address()]
    }

    fn detail(&self) -> String {
        format!("{} in {}", self.cidr, self.zone)
    }

    fn diff(&self, found: &SubnetFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        let cidr = Change::if_differs("range", &found.cidr, &self.cidr.to_string(), Change::refuse);
        let zone = Change::if_differs("zone", &found.zone, &self.zone, Change::refuse);
        cidr.into_iter().chain(zone).collect()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<SubnetFound> {
        let mut tags = tags::tags(cx.cloud, &self.name, None);
        // Where the cloud controller puts load balancers that face the internet.
        tags.push(("kubernetes.io/role/elb".to_owned(), "1".to_owned()));
        let vpc = cx.get(&self.vpc)?;
        let what = format!("the subnet {} could not be made", self.cidr);
        let specification = tags::ec2::specification_of(ResourceType::Subnet, tags);
        let make = || async {
            let call =
                cx.cloud.ec2.create_subnet().vpc_id(vpc.id()).cidr_block(self.cidr.to_string()).availability_zone(&self.zone);
            match call.tag_specifications(specification.clone()).send().await.failure() {
                Err(failure) if failure.code == "InvalidSubnet.Conflict" => {
                    // A call whose answer was lost made it, unless something else has its range.
                    let look = || async {
                        Ok::<_, Error>(Self::list(cx.cloud).await?.into_iter().find(|found| found.name == self.name))
                    };
                    Ok(taken(look).await.ok().flatten().ok_or(failure))
                }
                Err(failure) => Err(failure.fresh()),
                Ok(made) => {
                    let id = made.subnet.and_then(|subnet| subnet.subnet_id).unwrap_or_default();
                    Ok(Ok(SubnetFound { name: self.name.clone(), id, zone: self.zone.clone(), cidr: self.cidr.to_string() }))
                }
            }
        };
        cx.cloud.until_unblocked(&what, make).await?.map_err(|failure| failure.error(&what))
    }

    async fn update(&self, found: &SubnetFound, _: &[Change], _: &Cx<'_, Aws>) -> Result<SubnetFound> {
        Ok(found.clone())
    }

    async fn list(aws: &Aws) -> Result<Vec<SubnetFound>> {
        let pages = aws.ec2.describe_subnets().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let subnets: Vec<_> = pages.try_collect().await.explain("subnets could not be listed")?;
        let found = |subnet: aws_sdk_ec2::types::Subnet| {
            let id = subnet.subnet_id.clone().unwrap_or_default();
            SubnetFound {
                name: tags::ec2::name(subnet.tags(), &id),
                zone: subnet.availability_zone.unwrap_or_default(),
                cidr: subnet.cidr_block.unwrap_or_default(),
                id,
            }
        };
        Ok(subnets.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &SubnetFound) -> Result<()> {
        let what = format!("the subnet {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.ec2.delete_subnet().subnet_id(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}
