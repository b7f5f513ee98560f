//! The network's own way to S3: what machines fetch from the bucket goes neither over the internet nor over a bill for it.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{ResourceType, State, VpcEndpointType};

use super::AwsResource;
use super::route_table::RouteTable;
use super::vpc::Vpc;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Context as _, Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// A gateway endpoint of S3 in the cluster's own VPC.
#[derive(Debug, Clone)]
pub struct S3Endpoint {
    /// Its name among endpoints.
    pub name: String,
    /// The VPC it is part of.
    pub vpc: Ref<Vpc>,
    /// The table that gets its routes.
    pub route_table: Ref<RouteTable>,
}

/// An endpoint as it was found.
#[derive(Debug, Clone)]
pub struct S3EndpointFound {
    name: String,
    id: String,
    /// The tables that have its routes.
    pub route_tables: BTreeSet<String>,
}

impl Found for S3EndpointFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for S3Endpoint {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeVpcEndpoints", Scope::Any),
        need("ec2:CreateVpcEndpoint", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateVpcEndpoint", Scope::Creates),
        need("ec2:ModifyVpcEndpoint", Scope::Tagged),
        need("ec2:DeleteVpcEndpoints", Scope::Tagged),
    ];
}

impl Resource for S3Endpoint {
    type Cloud = Aws;
    type Found = S3EndpointFound;
    const KIND: &'static str = "s3 endpoint";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.vpc.address(), self.route_table.address()]
    }

    fn diff(&self, found: &S3EndpointFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let table = cx.look(&self.route_table);
        if table.as_ref().is_some_and(|table| found.route_tables.contains(table.id())) {
            return Vec::new();
        }
        let from = found.route_tables.iter().cloned().collect::<Vec<_>>().join(", ");
        let to = table.map_or_else(|| self.route_table.address().to_string(), |table| table.id().to_owned());
        vec![Change::in_place("route table", if from.is_empty() { "none".to_owned() } else { from }, to)]
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<S3EndpointFound> {
        let (vpc, table) = (cx.get(&self.vpc)?, cx.get(&self.route_table)?);
        // Gateway endpoints of S3 have this name in all of AWS's partitions, unlike interface endpoints.
        let service = format!("com.amazonaws.{}.s3", cx.cloud.region);
        let what = "the S3 endpoint could not be made";
        // The same for all tries of this call, and for no other: a later one is for another endpoint, since this one was not listed.
        let mut random = [0; 16];
        getrandom::fill(&mut random).context(what)?;
        let token = hex::encode(random);
        let specification = tags::ec2::specification(cx.cloud, ResourceType::VpcEndpoint, &self.name, None);
        let make = || async {
            let call = cx.cloud.ec2.create_vpc_endpoint().vpc_endpoint_type(VpcEndpointType::Gateway).vpc_id(vpc.id());
            let call = call.service_name(&service).route_table_ids(table.id()).client_token(&token);
            call.tag_specifications(specification.clone()).send().await.failure().map_err(Failure::fresh)
        };
        let made = cx.cloud.until_unblocked(what, make).await?;
        let Some(id) = made.vpc_endpoint.and_then(|endpoint| endpoint.vpc_endpoint_id) else {
            return Err(Error::new(what).why("AWS's answer has no id"));
        };
        Ok(S3EndpointFound { name: self.name.clone(), id, route_tables: BTreeSet::from([table.id().to_owned()]) })
    }

    async fn update(&self, found: &S3EndpointFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<S3EndpointFound> {
        let table = cx.get(&self.route_table)?;
        let mut route_tables = found.route_tables.clone();
        if route_tables.insert(table.id().to_owned()) {
            let what = format!("the S3 endpoint {} could not be given to {}", found.id, table.id());
            let give = || async {
                let call = cx.cloud.ec2.modify_vpc_endpoint().vpc_endpoint_id(&found.id).add_route_table_ids(table.id());
                call.send().await.failure().map_err(Failure::fresh)
            };
            cx.cloud.until_unblocked(&what, give).await?;
        }
        Ok(S3EndpointFound { route_tables, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<S3EndpointFound>> {
        let pages = aws.ec2.describe_vpc_endpoints().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let endpoints: Vec<_> = pages.try_collect().await.explain("VPC endpoints could not be listed")?;
        // What was deleted is told of for a while.
        const OVER: [&str; 5] = ["deleted", "deleting", "failed", "rejected", "expired"];
        let there = |state: Option<&State>| state.is_none_or(|state| !OVER.contains(&state.as_str().to_lowercase().as_str()));
        let found = |endpoint: aws_sdk_ec2::types::VpcEndpoint| {
            let id = endpoint.vpc_endpoint_id.clone().unwrap_or_default();
            let route_tables = endpoint.route_table_ids().iter().cloned().collect();
            S3EndpointFound { name: tags::ec2::name(endpoint.tags(), &id), id, route_tables }
        };
        Ok(endpoints.into_iter().filter(|endpoint| there(endpoint.state())).map(found).collect())
    }

    async fn delete(aws: &Aws, found: &S3EndpointFound) -> Result<()> {
        let what = format!("the S3 endpoint {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            let answer = unless_gone(aws.ec2.delete_vpc_endpoints().vpc_endpoint_ids(&found.id).send().await.failure())?;
            // A call for several may fail for one, and says so only here.
            let failed =
                answer.and_then(|answer| answer.unsuccessful.unwrap_or_default().into_iter().find_map(|item| item.error));
            match failed {
                None => Ok(()),
                Some(error) => {
                    let (code, message) = (error.code.unwrap_or_default(), error.message.unwrap_or_default());
                    let fault = crate::aws::fault::Fault::of_code(&code);
                    unless_gone(Err(Failure { fault, code, message, request: None, call: None })).map(|_: Option<()>| ())
                }
            }
        })
        .await
    }
}
