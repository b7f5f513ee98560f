//! Where the network sends what is not for itself.

use aws_sdk_ec2::types::{ResourceType, RouteState, RouteTableAssociationStateCode};

use super::AwsResource;
use super::internet_gateway::InternetGateway;
use super::subnet::Subnet;
use super::vpc::Vpc;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// The route to everywhere.
const EVERYWHERE: &str = "0.0.0.0/0";

/// The route table of the cluster's own public subnets.
#[derive(Debug, Clone)]
pub struct RouteTable {
    /// Its name among route tables.
    pub name: String,
    /// The VPC it is part of.
    pub vpc: Ref<Vpc>,
    /// Where it sends everything.
    pub gateway: Ref<InternetGateway>,
    /// The subnets that use it.
    pub subnets: Vec<Ref<Subnet>>,
}

/// A route table as it was found.
#[derive(Debug, Clone)]
pub struct RouteTableFound {
    name: String,
    id: String,
    /// Where it sends everything, and whether that is still there.
    pub default: Option<(String, bool)>,
    /// The ids of its associations, and of the subnets that have them.
    pub associations: Vec<(String, String)>,
}

impl RouteTableFound {
    fn serves(&self, subnet: &str) -> bool {
        self.associations.iter().any(|(_, to)| to == subnet)
    }

    fn leads_to(&self, gateway: &str) -> bool {
        self.default.as_ref().is_some_and(|(to, there)| *there && to == gateway)
    }
}

impl Found for RouteTableFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for RouteTable {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeRouteTables", Scope::Any),
        need("ec2:CreateRouteTable", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateRouteTable", Scope::Creates),
        need("ec2:CreateRoute", Scope::Tagged),
        need("ec2:ReplaceRoute", Scope::Tagged),
        need("ec2:AssociateRouteTable", Scope::Tagged),
        need("ec2:DisassociateRouteTable", Scope::Tagged),
        need("ec2:DeleteRouteTable", Scope::Tagged),
    ];
}

impl Resource for RouteTable {
    type Cloud = Aws;
    type Found = RouteTableFound;
    const KIND: &'static str = "route table";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        let subnets = self.subnets.iter().map(Ref::address);
        [self.vpc.address(), self.gateway.address()].into_iter().chain(subnets).collect()
    }

    fn detail(&self) -> String {
        format!("{EVERYWHERE} to the internet")
    }

    fn diff(&self, found: &RouteTableFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        let gateway = cx.look(&self.gateway);
        if !gateway.as_ref().is_some_and(|gateway| found.leads_to(gateway.id())) {
            let from = match &found.default {
                None => "none".to_owned(),
                Some((to, true)) => to.clone(),
                Some((to, false)) => format!("{to}, which is gone"),
            };
            let to = gateway.map_or_else(|| self.gateway.address().to_string(), |gateway| gateway.id().to_owned());
            changes.push(Change::in_place(format!("route {EVERYWHERE}"), from, to));
        }
        for subnet in &self.subnets {
            if !cx.look(subnet).is_some_and(|subnet| found.serves(subnet.id())) {
                changes.push(Change::in_place(subnet.address().to_string(), "without this table", "with it"));
            }
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<RouteTableFound> {
        let vpc = cx.get(&self.vpc)?;
        let specification = tags::ec2::specification(cx.cloud, ResourceType::RouteTable, &self.name, None);
        let make = || async {
            let call = cx.cloud.ec2.create_route_table().vpc_id(vpc.id()).tag_specifications(specification.clone());
            call.send().await.failure().map_err(Failure::fresh)
        };
        let made = cx.cloud.until_unblocked("the route table could not be made", make).await?;
        let Some(id) = made.route_table.and_then(|table| table.route_table_id) else {
            return Err(Error::new("the route table could not be made").why("AWS's answer has no id"));
        };
        let found = RouteTableFound { name: self.name.clone(), id, default: None, associations: Vec::new() };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &RouteTableFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<RouteTableFound> {
        let gateway = cx.get(&self.gateway)?.id().to_owned();
        let route = async { if found.leads_to(&gateway) { Ok(()) } else { route(cx.cloud, found, &gateway).await } };
        let mut missing = Vec::new();
        for subnet in &self.subnets {
            let id = cx.get(subnet)?.id().to_owned();
            if !found.serves(&id) {
                missing.push(associate(cx.cloud, &found.id, id));
            }
        }
        let (_, added) = tokio::try_join!(route, futures::future::try_join_all(missing))?;
        let associations = found.associations.iter().cloned().chain(added).collect();
        Ok(RouteTableFound { default: Some((gateway, true)), associations, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<RouteTableFound>> {
        let pages = aws.ec2.describe_route_tables().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let tables: Vec<_> = pages.try_collect().await.explain("route tables could not be listed")?;
        Ok(tables.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &RouteTableFound) -> Result<()> {
        let apart = found.associations.iter().map(|(association, subnet)| async move {
            let what = format!("the route table {} could not be taken from {subnet}", found.id);
            aws.until_unblocked(&what, || async {
                unless_gone(aws.ec2.disassociate_route_table().association_id(association).send().await.failure()).map(|_| ())
            })
            .await
        });
        futures::future::try_join_all(apart).await?;
        let what = format!("the route table {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.ec2.delete_route_table().route_table_id(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}

fn found(table: aws_sdk_ec2::types::RouteTable) -> RouteTableFound {
    let id = table.route_table_id.clone().unwrap_or_default();
    let default = table.routes().iter().find(|route| route.destination_cidr_block() == Some(EVERYWHERE)).map(|route| {
        let to = [route.gateway_id(), route.nat_gateway_id(), route.network_interface_id()].into_iter().flatten().next();
        (to.unwrap_or("something else").to_owned(), route.state() != Some(&RouteState::Blackhole))
    });
    let going = |code: Option<&RouteTableAssociationStateCode>| {
        matches!(code, Some(RouteTableAssociationStateCode::Disassociated | RouteTableAssociationStateCode::Disassociating))
    };
    let associations = table.associations().iter().filter(|one| !going(one.association_state().and_then(|state| state.state())));
    let associations =
        associations.filter_map(|one| Some((one.route_table_association_id.clone()?, one.subnet_id.clone()?))).collect();
    RouteTableFound { name: tags::ec2::name(table.tags(), &id), id, default, associations }
}

/// Sends everything to the gateway.
async fn route(aws: &Aws, table: &RouteTableFound, gateway: &str) -> Result<()> {
    let what = format!("the route {EVERYWHERE} of {} could not be set", table.id);
    let set = || async {
        if table.default.is_some() {
            let call = aws.ec2.replace_route().route_table_id(&table.id).destination_cidr_block(EVERYWHERE).gateway_id(gateway);
            return call.send().await.failure().map(|_| ()).map_err(Failure::fresh);
        }
        let call = aws.ec2.create_route().route_table_id(&table.id).destination_cidr_block(EVERYWHERE).gateway_id(gateway);
        match call.send().await.failure() {
            // A call whose answer was lost did it: the table is the cluster's own, and had no such route.
            Err(failure) if failure.code == "RouteAlreadyExists" => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Failure::fresh),
        }
    };
    aws.until_unblocked(&what, set).await
}

/// Gives the table to a subnet.
async fn associate(aws: &Aws, table: &str, subnet: String) -> Result<(String, String)> {
    let what = format!("the route table {table} could not be given to {subnet}");
    let give = || async {
        aws.ec2.associate_route_table().route_table_id(table).subnet_id(&subnet).send().await.failure().map_err(|failure| {
            // The same code as of what will pass, but here another table has the subnet, which stays so.
            if failure.code == "Resource.AlreadyAssociated" {
                Failure { fault: crate::aws::fault::Fault::Invalid, ..failure }
            } else {
                failure.fresh()
            }
        })
    };
    let made = aws.until_unblocked(&what, give).await?;
    Ok((made.association_id.unwrap_or_default(), subnet))
}
