//! The network's way to and from the internet.

use aws_sdk_ec2::types::ResourceType;

use super::AwsResource;
use super::vpc::Vpc;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::once::{alone, once};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// An internet gateway, attached to the cluster's own VPC.
#[derive(Debug, Clone)]
pub struct InternetGateway {
    /// Its name among internet gateways.
    pub name: String,
    /// The VPC it is attached to.
    pub vpc: Ref<Vpc>,
}

/// An internet gateway as it was found.
#[derive(Debug, Clone)]
pub struct InternetGatewayFound {
    name: String,
    id: String,
    /// The VPC it is attached to.
    pub vpc: Option<String>,
}

impl Found for InternetGatewayFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for InternetGateway {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeInternetGateways", Scope::Any),
        need("ec2:CreateInternetGateway", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateInternetGateway", Scope::Creates),
        need("ec2:AttachInternetGateway", Scope::Tagged),
        need("ec2:DetachInternetGateway", Scope::Tagged),
        need("ec2:DeleteInternetGateway", Scope::Tagged),
    ];
}

impl Resource for InternetGateway {
    type Cloud = Aws;
    type Found = InternetGatewayFound;
    const KIND: &'static str = "internet gateway";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.vpc.address()]
    }

    fn diff(&self, found: &InternetGatewayFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        match (&found.vpc, cx.look(&self.vpc)) {
            (None, vpc) => {
                vec![Change::in_place(
                    "attached to",
                    "nothing",
                    vpc.map_or_else(|| "the VPC".to_owned(), |vpc| vpc.id().to_owned()),
                )]
            }
            (Some(from), Some(to)) if from != to.id() => vec![Change::replace("attached to", from, to.id())],
            _ => Vec::new(),
        }
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<InternetGatewayFound> {
        let ec2 = &cx.cloud.ec2;
        let make = || async {
            let specification = tags::ec2::specification(cx.cloud, ResourceType::InternetGateway, &self.name, None);
            let call = ec2.create_internet_gateway().tag_specifications(specification);
            let made = call.customize().config_override(alone()).send().await.failure()?;
            Ok(made.internet_gateway.and_then(|gateway| gateway.internet_gateway_id))
        };
        let look = || async {
            let named = tags::ec2::named(cx.cloud, &self.name);
            let there = ec2.describe_internet_gateways().set_filters(Some(named)).send().await.failure()?;
            Ok(there.internet_gateways.unwrap_or_default().into_iter().next().map(|gateway| gateway.internet_gateway_id))
        };
        let what = "the internet gateway could not be made";
        let Some(id) = once(make, look).await.map_err(|failure| failure.error(what))? else {
            return Err(Error::new(what).why("AWS's answer has no id"));
        };
        self.update(&InternetGatewayFound { name: self.name.clone(), id, vpc: None }, &[], cx).await
    }

    async fn update(&self, found: &InternetGatewayFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<InternetGatewayFound> {
        let vpc = cx.get(&self.vpc)?.id().to_owned();
        let what = format!("the internet gateway {} could not be attached to {vpc}", found.id);
        let attach = || async {
            let call = cx.cloud.ec2.attach_internet_gateway().internet_gateway_id(&found.id).vpc_id(&vpc);
            match call.send().await.failure() {
                // A call whose answer was lost did it.
                Err(failure) if failure.code == "Resource.AlreadyAssociated" => Ok(()),
                outcome => outcome.map(|_| ()).map_err(Failure::fresh),
            }
        };
        cx.cloud.until_unblocked(&what, attach).await?;
        Ok(InternetGatewayFound { vpc: Some(vpc), ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<InternetGatewayFound>> {
        let pages = aws.ec2.describe_internet_gateways().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let gateways: Vec<_> = pages.try_collect().await.explain("internet gateways could not be listed")?;
        let found = |gateway: aws_sdk_ec2::types::InternetGateway| {
            let id = gateway.internet_gateway_id.clone().unwrap_or_default();
            let vpc = gateway.attachments().iter().find_map(|attachment| attachment.vpc_id.clone());
            InternetGatewayFound { name: tags::ec2::name(gateway.tags(), &id), vpc, id }
        };
        Ok(gateways.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &InternetGatewayFound) -> Result<()> {
        if let Some(vpc) = &found.vpc {
            // AWS keeps it while any address of the network is known to the internet.
            let what = format!("the internet gateway {} could not be detached from {vpc}", found.id);
            aws.until_unblocked(&what, || async {
                let call = aws.ec2.detach_internet_gateway().internet_gateway_id(&found.id).vpc_id(vpc);
                unless_gone(call.send().await.failure()).map(|_| ())
            })
            .await?;
        }
        let what = format!("the internet gateway {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.ec2.delete_internet_gateway().internet_gateway_id(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}
