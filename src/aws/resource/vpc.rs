//! The machines' own network.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType};

use super::AwsResource;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::once::{alone, once};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Change, Cx, Found, Resource};
use ipnet::Ipv4Net;

/// A VPC of the cluster's own.
#[derive(Debug, Clone)]
pub struct Vpc {
    /// Its name among VPCs.
    pub name: String,
    /// Its range.
    pub cidr: Ipv4Net,
}

/// A VPC as it was found.
#[derive(Debug, Clone)]
pub struct VpcFound {
    name: String,
    id: String,
    /// Its range.
    pub cidr: String,
    /// The DHCP options that its machines get.
    pub dhcp_options: String,
    /// Whether machines in it are told of AWS's DNS.
    pub dns_support: bool,
    /// Whether machines in it get DNS names.
    pub dns_hostnames: bool,
}

impl Found for VpcFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for Vpc {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeVpcs", Scope::Any),
        need("ec2:DescribeVpcAttribute", Scope::Any),
        need("ec2:CreateVpc", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateVpc", Scope::Creates),
        need("ec2:ModifyVpcAttribute", Scope::Tagged),
        need("ec2:DeleteVpc", Scope::Tagged),
    ];
}

impl Resource for Vpc {
    type Cloud = Aws;
    type Found = VpcFound;
    const KIND: &'static str = "vpc";

    fn name(&self) -> &str {
        &self.name
    }

    fn detail(&self) -> String {
        self.cidr.to_string()
    }

    fn diff(&self, found: &VpcFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(Change::if_differs("aws.vpc.cidr", &found.cidr, &self.cidr.to_string(), Change::refuse));
        // A creation that was cut off between its calls leaves these as AWS makes them.
        changes.extend(Change::if_differs("DNS support", &found.dns_support, &true, Change::in_place));
        changes.extend(Change::if_differs("DNS host names", &found.dns_hostnames, &true, Change::in_place));
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<VpcFound> {
        let ec2 = &cx.cloud.ec2;
        let make = || async {
            let specification = tags::ec2::specification(cx.cloud, ResourceType::Vpc, &self.name, None);
            let call = ec2.create_vpc().cidr_block(self.cidr.to_string()).tag_specifications(specification);
            Ok(call.customize().config_override(alone()).send().await.failure()?.vpc)
        };
        let look = || async {
            let named = tags::ec2::named(cx.cloud, &self.name);
            let there = ec2.describe_vpcs().set_filters(Some(named)).send().await.failure()?;
            Ok(there.vpcs.unwrap_or_default().into_iter().next().map(Some))
        };
        let what = format!("the VPC {} could not be made", self.cidr);
        let made = once(make, look).await.map_err(|failure| failure.error(&what))?;
        let Some((id, vpc)) = made.and_then(|vpc| Some((vpc.vpc_id.clone()?, vpc))) else {
            return Err(Error::new(what).why("AWS's answer has no id"));
        };
        let found = VpcFound {
            name: self.name.clone(),
            id,
            cidr: self.cidr.to_string(),
            dhcp_options: vpc.dhcp_options_id.unwrap_or_default(),
            dns_support: true,
            dns_hostnames: false,
        };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &VpcFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<VpcFound> {
        let on = || AttributeBooleanValue::builder().value(true).build();
        let what = format!("the DNS attributes of {} could not be set", found.id);
        let set = || cx.cloud.ec2.modify_vpc_attribute().vpc_id(&found.id);
        // Each attribute needs a call of its own, and host names need DNS support.
        if !found.dns_support {
            let support = || async { set().enable_dns_support(on()).send().await.failure().map_err(Failure::fresh) };
            cx.cloud.until_unblocked(&what, support).await?;
        }
        if !found.dns_hostnames {
            let hostnames = || async { set().enable_dns_hostnames(on()).send().await.failure().map_err(Failure::fresh) };
            cx.cloud.until_unblocked(&what, hostnames).await?;
        }
        Ok(VpcFound { dns_support: true, dns_hostnames: true, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<VpcFound>> {
        let pages = aws.ec2.describe_vpcs().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let vpcs: Vec<_> = pages.try_collect().await.explain("VPCs could not be listed")?;
        let each = vpcs.into_iter().map(|vpc| async move {
            let id = vpc.vpc_id.clone().unwrap_or_default();
            let (dns_support, dns_hostnames) =
                attributes(aws, &id).await.map_err(|f| f.error(format!("{id} could not be read")))?;
            let name = tags::ec2::name(vpc.tags(), &id);
            let (cidr, dhcp_options) = (vpc.cidr_block.unwrap_or_default(), vpc.dhcp_options_id.unwrap_or_default());
            Ok(VpcFound { name, cidr, dhcp_options, id, dns_support, dns_hostnames })
        });
        futures::future::try_join_all(each).await
    }

    async fn delete(aws: &Aws, found: &VpcFound) -> Result<()> {
        let what = format!("the VPC {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.ec2.delete_vpc().vpc_id(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}

/// Whether DNS and host names are on. AWS tells one attribute a call.
pub(super) async fn attributes(aws: &Aws, id: &str) -> Result<(bool, bool), Failure> {
    use aws_sdk_ec2::types::VpcAttributeName::{EnableDnsHostnames, EnableDnsSupport};
    let ask = |attribute| aws.ec2.describe_vpc_attribute().vpc_id(id).attribute(attribute).send();
    let (support, hostnames) = tokio::try_join!(ask(EnableDnsSupport), ask(EnableDnsHostnames)).failure()?;
    let on = |value: Option<AttributeBooleanValue>| value.and_then(|v| v.value).unwrap_or(false);
    Ok((on(support.enable_dns_support), on(hostnames.enable_dns_hostnames)))
}
