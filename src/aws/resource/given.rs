//! A VPC and subnets that were there before the cluster: checked, tagged, and otherwise never changed.
//!
//! Two tags go on each, both with the cluster's name in their keys, so that clusters may share them: Kubernetes' own
//! (`kubernetes.io/cluster/<name>` = `shared`), and `kup.dev/shared/<name>`, by which `down` finds them and which says whether the first
//! one is kup's to remove.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Filter, Tag};

use super::AwsResource;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, unless_gone};
use crate::aws::permissions::{Need, Scope, need};
use crate::aws::tags;
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

mod verify;

pub use verify::{Facts, SubnetFacts, Wanted, verify};

/// The value of kup's tag where kup added Kubernetes' tag.
const ADDED: &str = "tagged";
/// The value of kup's tag where Kubernetes' tag was there before.
const KEPT: &str = "tagged before";

/// A VPC that was there before.
#[derive(Debug, Clone)]
pub struct GivenVpc {
    /// The VPC, its subnets, and what they have to be like.
    pub wanted: Wanted,
}

/// A given VPC as it was found.
#[derive(Debug, Clone)]
pub struct GivenVpcFound {
    id: String,
    added: bool,
}

impl Found for GivenVpcFound {
    fn name(&self) -> &str {
        &self.id
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for GivenVpc {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeVpcs", Scope::Any),
        need("ec2:DescribeVpcAttribute", Scope::Any),
        need("ec2:DescribeSubnets", Scope::Any),
        need("ec2:DescribeRouteTables", Scope::Any),
        need("ec2:CreateTags", Scope::Any),
        need("ec2:DeleteTags", Scope::Any),
    ];
}

impl Resource for GivenVpc {
    type Cloud = Aws;
    type Found = GivenVpcFound;
    const KIND: &'static str = "given vpc";

    fn name(&self) -> &str {
        &self.wanted.vpc
    }

    fn detail(&self) -> String {
        "checked and tagged, otherwise unchanged".to_owned()
    }

    fn diff(&self, _: &GivenVpcFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        Vec::new()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<GivenVpcFound> {
        let facts = verify(cx.cloud, &self.wanted).await?;
        let added = adds(cx.cloud, &facts.tags);
        mark(cx.cloud, &self.wanted.vpc, added).await?;
        Ok(GivenVpcFound { id: self.wanted.vpc.clone(), added })
    }

    async fn update(&self, found: &GivenVpcFound, _: &[Change], _: &Cx<'_, Aws>) -> Result<GivenVpcFound> {
        Ok(found.clone())
    }

    async fn list(aws: &Aws) -> Result<Vec<GivenVpcFound>> {
        let pages = aws.ec2.describe_vpcs().filters(marked(aws)).into_paginator().items().send();
        let vpcs: Vec<_> = pages.try_collect().await.explain("given VPCs could not be listed")?;
        let found =
            |vpc: aws_sdk_ec2::types::Vpc| GivenVpcFound { added: added(aws, vpc.tags()), id: vpc.vpc_id.unwrap_or_default() };
        Ok(vpcs.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &GivenVpcFound) -> Result<()> {
        unmark(aws, &found.id, found.added).await
    }
}

/// A subnet that was there before. Its VPC is checked together with its subnets.
#[derive(Debug, Clone)]
pub struct GivenSubnet {
    /// Its id.
    pub id: String,
    /// The VPC it is part of.
    pub vpc: Ref<GivenVpc>,
}

/// A given subnet as it was found.
#[derive(Debug, Clone)]
pub struct GivenSubnetFound {
    id: String,
    added: bool,
    /// Its zone.
    pub zone: String,
    /// Its range.
    pub cidr: String,
}

impl Found for GivenSubnetFound {
    fn name(&self) -> &str {
        &self.id
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for GivenSubnet {
    const NEEDS: &'static [Need] =
        &[need("ec2:DescribeSubnets", Scope::Any), need("ec2:CreateTags", Scope::Any), need("ec2:DeleteTags", Scope::Any)];
}

impl Resource for GivenSubnet {
    type Cloud = Aws;
    type Found = GivenSubnetFound;
    const KIND: &'static str = "given subnet";

    fn name(&self) -> &str {
        &self.id
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.vpc.address()]
    }

    fn detail(&self) -> String {
        "checked and tagged, otherwise unchanged".to_owned()
    }

    fn diff(&self, _: &GivenSubnetFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        Vec::new()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<GivenSubnetFound> {
        let what = || format!("the subnet {} could not be read", self.id);
        let answer = cx.cloud.ec2.describe_subnets().subnet_ids(&self.id).send().await.explain(what())?;
        let Some(subnet) = answer.subnets.unwrap_or_default().into_iter().next() else {
            return Err(crate::error::Error::new(what()).why("AWS's answer does not name it"));
        };
        let added = adds(cx.cloud, subnet.tags());
        mark(cx.cloud, &self.id, added).await?;
        Ok(subnet_found(subnet, added))
    }

    async fn update(&self, found: &GivenSubnetFound, _: &[Change], _: &Cx<'_, Aws>) -> Result<GivenSubnetFound> {
        Ok(found.clone())
    }

    async fn list(aws: &Aws) -> Result<Vec<GivenSubnetFound>> {
        let pages = aws.ec2.describe_subnets().filters(marked(aws)).into_paginator().items().send();
        let subnets: Vec<_> = pages.try_collect().await.explain("given subnets could not be listed")?;
        Ok(subnets
            .into_iter()
            .map(|subnet| {
                let added = added(aws, subnet.tags());
                subnet_found(subnet, added)
            })
            .collect())
    }

    async fn delete(aws: &Aws, found: &GivenSubnetFound) -> Result<()> {
        unmark(aws, &found.id, found.added).await
    }
}

fn subnet_found(subnet: aws_sdk_ec2::types::Subnet, added: bool) -> GivenSubnetFound {
    GivenSubnetFound {
        id: subnet.subnet_id.unwrap_or_default(),
        added,
        zone: subnet.availability_zone.unwrap_or_default(),
        cidr: subnet.cidr_block.unwrap_or_default(),
    }
}

/// The key of kup's own tag on what clusters share.
fn key(aws: &Aws) -> String {
    format!("kup.dev/shared/{}", aws.cluster)
}

/// The key of Kubernetes' tag.
fn kubernetes_key(aws: &Aws) -> String {
    format!("kubernetes.io/cluster/{}", aws.cluster)
}

/// Whether Kubernetes' tag is kup's to add: as kup's own tag says if it is there, else if nobody has added it.
fn adds(aws: &Aws, tags: &[Tag]) -> bool {
    tags::ec2::value(tags, &key(aws))
        .map_or_else(|| tags::ec2::value(tags, &kubernetes_key(aws)).is_none(), |value| value == ADDED)
}

fn marked(aws: &Aws) -> Filter {
    tags::ec2::by("tag-key", &key(aws))
}

fn added(aws: &Aws, tags: &[Tag]) -> bool {
    tags::ec2::value(tags, &key(aws)) == Some(ADDED)
}

/// Tags one. Both tags go in one call, so that they come and go together. A value of Kubernetes' tag that was there before stays.
async fn mark(aws: &Aws, id: &str, added: bool) -> Result<()> {
    let tag = |key: String, value: &str| Tag::builder().key(key).value(value).build();
    let mut call = aws.ec2.create_tags().resources(id).tags(tag(key(aws), if added { ADDED } else { KEPT }));
    if added {
        call = call.tags(tag(kubernetes_key(aws), "shared"));
    }
    call.send().await.explain(format!("{id} could not be tagged"))?;
    Ok(())
}

/// Takes off what [`mark`] put on.
async fn unmark(aws: &Aws, id: &str, added: bool) -> Result<()> {
    let keys: BTreeSet<String> = [Some(key(aws)), added.then(|| kubernetes_key(aws))].into_iter().flatten().collect();
    let mut call = aws.ec2.delete_tags().resources(id);
    for key in keys {
        call = call.tags(Tag::builder().key(key).build());
    }
    let what = || format!("the tags of {id} could not be removed");
    unless_gone(call.send().await.failure()).map_err(|failure| failure.error(what()))?;
    Ok(())
}
