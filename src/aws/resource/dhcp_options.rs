//! The domain that machines are told by DHCP.

use aws_sdk_ec2::types::{NewDhcpConfiguration, ResourceType};

use super::AwsResource;
use super::vpc::Vpc;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::once::{alone, once};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// DHCP options of a VPC of the cluster's own: its domain, and AWS's resolver.
#[derive(Debug, Clone)]
pub struct DhcpOptions {
    /// Its name among DHCP options.
    pub name: String,
    /// The VPC that has them.
    pub vpc: Ref<Vpc>,
    /// The domain.
    pub domain: String,
}

/// DHCP options as they were found.
#[derive(Debug, Clone)]
pub struct DhcpOptionsFound {
    name: String,
    id: String,
    /// The domain.
    pub domain: String,
}

impl Found for DhcpOptionsFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for DhcpOptions {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeDhcpOptions", Scope::Any),
        need("ec2:DescribeVpcs", Scope::Any),
        need("ec2:CreateDhcpOptions", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateDhcpOptions", Scope::Creates),
        need("ec2:AssociateDhcpOptions", Scope::Tagged),
        need("ec2:DeleteDhcpOptions", Scope::Tagged),
    ];
}

impl Resource for DhcpOptions {
    type Cloud = Aws;
    type Found = DhcpOptionsFound;
    const KIND: &'static str = "dhcp options";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.vpc.address()]
    }

    fn detail(&self) -> String {
        format!("domain {}", self.domain)
    }

    fn diff(&self, found: &DhcpOptionsFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        // AWS never changes options; machines ask again within hours.
        changes.extend(Change::if_differs("aws.vpc.domain", &found.domain, &self.domain, Change::replace));
        if cx.look(&self.vpc).is_some_and(|vpc| vpc.dhcp_options != found.id) {
            changes.push(Change::in_place("options of the VPC", "others", "these"));
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<DhcpOptionsFound> {
        let option = |key: &str, value: &str| NewDhcpConfiguration::builder().key(key).values(value).build();
        let ec2 = &cx.cloud.ec2;
        let make = || async {
            let call = ec2
                .create_dhcp_options()
                .dhcp_configurations(option("domain-name", &self.domain))
                .dhcp_configurations(option("domain-name-servers", "AmazonProvidedDNS"))
                .tag_specifications(tags::ec2::specification(cx.cloud, ResourceType::DhcpOptions, &self.name, None));
            let made = call.customize().config_override(alone()).send().await.failure()?;
            Ok(made.dhcp_options.and_then(|options| options.dhcp_options_id))
        };
        // Others of this name may be there, with another domain, which these replace.
        let look = || async {
            let named = tags::ec2::named(cx.cloud, &self.name);
            let there = ec2.describe_dhcp_options().set_filters(Some(named)).send().await.failure()?;
            let same = |options: &aws_sdk_ec2::types::DhcpOptions| domain_of(options) == self.domain;
            Ok(there.dhcp_options.unwrap_or_default().into_iter().find(same).map(|options| options.dhcp_options_id))
        };
        let what = format!("DHCP options for the domain {} could not be made", self.domain);
        let Some(id) = once(make, look).await.map_err(|failure| failure.error(&what))? else {
            return Err(Error::new(what).why("AWS's answer has no id"));
        };
        let found = DhcpOptionsFound { name: self.name.clone(), id, domain: self.domain.clone() };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &DhcpOptionsFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<DhcpOptionsFound> {
        let vpc = cx.get(&self.vpc)?;
        let what = format!("the DHCP options {} could not be given to {}", found.id, vpc.id());
        let give = || async { associate(cx.cloud, vpc.id(), &found.id).await.map_err(Failure::fresh) };
        cx.cloud.until_unblocked(&what, give).await?;
        Ok(found.clone())
    }

    async fn list(aws: &Aws) -> Result<Vec<DhcpOptionsFound>> {
        let pages = aws.ec2.describe_dhcp_options().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let all: Vec<_> = pages.try_collect().await.explain("DHCP options could not be listed")?;
        let found = |options: aws_sdk_ec2::types::DhcpOptions| {
            let domain = domain_of(&options);
            let id = options.dhcp_options_id.clone().unwrap_or_default();
            DhcpOptionsFound { name: tags::ec2::name(options.tags(), &id), domain, id }
        };
        Ok(all.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &DhcpOptionsFound) -> Result<()> {
        let what = format!("the DHCP options {} could not be removed", found.id);
        // Nobody may have them any more.
        let by = tags::ec2::by("dhcp-options-id", &found.id);
        let vpcs: Vec<_> =
            aws.ec2.describe_vpcs().filters(by).into_paginator().items().send().try_collect().await.explain(&what)?;
        for vpc in vpcs.iter().filter_map(|vpc| vpc.vpc_id()) {
            unless_gone(associate(aws, vpc, "default").await).map_err(|failure| failure.error(&what))?;
        }
        aws.until_unblocked(&what, || async {
            unless_gone(aws.ec2.delete_dhcp_options().dhcp_options_id(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}

fn domain_of(options: &aws_sdk_ec2::types::DhcpOptions) -> String {
    let domain = options.dhcp_configurations().iter().find(|one| one.key() == Some("domain-name"));
    domain.and_then(|one| one.values().first()?.value()).unwrap_or_default().to_owned()
}

async fn associate(aws: &Aws, vpc: &str, options: &str) -> Result<(), Failure> {
    aws.ec2.associate_dhcp_options().vpc_id(vpc).dhcp_options_id(options).send().await.failure().map(|_| ())
}
