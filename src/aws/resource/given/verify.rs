//! Whether a given VPC and its subnets can carry a cluster: asked before anything is made, and answered with everything that is wrong.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{RouteState, RouteTable, Subnet, SubnetState, Vpc, VpcCidrBlockStateCode, VpcState};
use ipnet::Ipv4Net;

use crate::aws::Aws;
use crate::aws::fault::Explain as _;
use crate::aws::resource::vpc;
use crate::aws::tags;
use crate::error::{Error, Result};

/// What is asked of a given VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub vpc: String,
    /// Its subnets' ids, one a zone.
    pub subnets: Vec<String>,
    /// The range of pods, which must be no part of the VPC.
    pub pods: Ipv4Net,
    /// The range of services, which must be no part of the VPC.
    pub services: Ipv4Net,
    /// How many free addresses each subnet must have: those of the machines that are yet to be made.
    pub addresses: u32,
}

/// What a given VPC is like, when all is well.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The VPC's ranges.
    pub ranges: Vec<Ipv4Net>,
    /// Its subnets, in the order in which they were given.
    pub subnets: Vec<SubnetFacts>,
    /// The VPC's tags.
    pub(super) tags: Vec<aws_sdk_ec2::types::Tag>,
}

/// What a given subnet is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFacts {
    /// Its id.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Its range.
    pub cidr: Ipv4Net,
}

/// Something that is wrong, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    what: String,
    fix: String,
}

impl Problem {
    fn new(what: String, fix: String) -> Problem {
        Problem { what, fix }
    }
}

/// Checks a VPC and its subnets, with read calls only.
///
/// # Errors
/// Everything that is wrong with them, all at once, each with what to do about it (of kind usage).
pub async fn verify(aws: &Aws, wanted: &Wanted) -> Result<Facts> {
    let vpcs = aws.ec2.describe_vpcs().filters(tags::ec2::by("vpc-id", &wanted.vpc)).into_paginator().items().send();
    let in_vpc = || tags::ec2::by("vpc-id", &wanted.vpc);
    let subnets = aws_sdk_ec2::types::Filter::builder().name("subnet-id").set_values(Some(wanted.subnets.clone())).build();
    let subnets = aws.ec2.describe_subnets().filters(subnets).into_paginator().items().send();
    let tables = aws.ec2.describe_route_tables().filters(in_vpc()).into_paginator().items().send();
    let (vpcs, subnets, tables) = tokio::join!(vpcs.try_collect(), subnets.try_collect(), tables.try_collect());
    let vpcs: Vec<Vpc> = vpcs.explain(format!("the VPC {} could not be read", wanted.vpc))?;
    let subnets: Vec<Subnet> = subnets.explain(format!("the subnets of {} could not be read", wanted.vpc))?;
    let tables: Vec<RouteTable> = tables.explain(format!("the route tables of {} could not be read", wanted.vpc))?;
    let mut problems = Vec::new();
    let found = vpcs.into_iter().next();
    match &found {
        None => problems.push(Problem::new(
            format!("there is no VPC {} in {}", wanted.vpc, aws.region),
            "check aws.vpc.id and aws.region; `aws ec2 describe-vpcs` lists what is there".to_owned(),
        )),
        Some(found) => {
            let dns =
                vpc::attributes(aws, &wanted.vpc).await.map_err(|f| f.error(format!("{} could not be read", wanted.vpc)))?;
            problems.extend(of_vpc(wanted, found, dns));
            problems.extend(of_subnets(wanted, &subnets, &tables));
        }
    }
    if let (Some(vpc), true) = (found, problems.is_empty()) {
        return Ok(facts(wanted, vpc, &subnets));
    }
    let mut error = Error::usage(format!("the given VPC {} can't carry the cluster as it is", wanted.vpc));
    for problem in problems {
        error = error.why(problem.what);
        if !error.hints.contains(&problem.fix) {
            error = error.hint(problem.fix);
        }
    }
    Err(error)
}

fn facts(wanted: &Wanted, vpc: Vpc, subnets: &[Subnet]) -> Facts {
    let subnets = wanted.subnets.iter().filter_map(|id| {
        let subnet = subnets.iter().find(|s| s.subnet_id() == Some(id))?;
        let cidr = subnet.cidr_block()?.parse().ok()?;
        Some(SubnetFacts { id: id.clone(), zone: subnet.availability_zone()?.to_owned(), cidr })
    });
    Facts { ranges: ranges(&vpc), subnets: subnets.collect(), tags: vpc.tags.unwrap_or_default() }
}

/// A VPC's ranges: its first, and those added later.
fn ranges(vpc: &Vpc) -> Vec<Ipv4Net> {
    let gone = |code: Option<&VpcCidrBlockStateCode>| {
        matches!(
            code,
            Some(VpcCidrBlockStateCode::Disassociated | VpcCidrBlockStateCode::Disassociating | VpcCidrBlockStateCode::Failed)
        )
    };
    let added = vpc
        .cidr_block_association_set()
        .iter()
        .filter(|one| !gone(one.cidr_block_state().and_then(|state| state.state())))
        .filter_map(|one| one.cidr_block());
    let mut ranges: Vec<Ipv4Net> = vpc.cidr_block().into_iter().chain(added).filter_map(|range| range.parse().ok()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn of_vpc(wanted: &Wanted, vpc: &Vpc, (support, hostnames): (bool, bool)) -> Vec<Problem> {
    let id = &wanted.vpc;
    let mut problems = Vec::new();
    if let Some(state) = vpc.state().filter(|state| **state != VpcState::Available) {
        problems.push(Problem::new(format!("the VPC {id} is {state}"), "wait until it is available, then try again".to_owned()));
    }
    for (on, what, option) in
        [(support, "DNS support", "enable-dns-support"), (hostnames, "DNS host names", "enable-dns-hostnames")]
    {
        if !on {
            problems.push(Problem::new(
                format!("the VPC {id} has {what} switched off, by which machines find AWS's services and each other"),
                format!("`aws ec2 modify-vpc-attribute --vpc-id {id} --{option}`"),
            ));
        }
    }
    for range in ranges(vpc) {
        for (what, field, ours) in [("pods", "network.pods", &wanted.pods), ("services", "network.services", &wanted.services)] {
            if overlap(&range, ours) {
                problems.push(Problem::new(
                    format!("the VPC {id} has the range {range}, which overlaps that of {what}, {ours}"),
                    format!("give {field} a range outside of the VPC's"),
                ));
            }
        }
    }
    problems
}

fn of_subnets(wanted: &Wanted, subnets: &[Subnet], tables: &[RouteTable]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut zones: BTreeMap<&str, &str> = BTreeMap::new();
    for id in &wanted.subnets {
        let Some(subnet) = subnets.iter().find(|s| s.subnet_id() == Some(id)) else {
            problems.push(Problem::new(
                format!("there is no subnet {id}"),
                "check aws.vpc.subnets and aws.region; `aws ec2 describe-subnets` lists what is there".to_owned(),
            ));
            continue;
        };
        if subnet.vpc_id() != Some(&wanted.vpc) {
            problems.push(Problem::new(
                format!("the subnet {id} is part of {}, not of {}", subnet.vpc_id().unwrap_or("another VPC"), wanted.vpc),
                format!("name subnets of {} in aws.vpc.subnets, or another VPC in aws.vpc.id", wanted.vpc),
            ));
            continue;
        }
        if let Some(state) = subnet.state().filter(|state| **state != SubnetState::Available) {
            problems.push(Problem::new(
                format!("the subnet {id} is {state}"),
                "wait until it is available, then try again".to_owned(),
            ));
        }
        let zone = subnet.availability_zone().unwrap_or_default();
        if let Some(other) = zones.insert(zone, id) {
            problems.push(Problem::new(
                format!("the subnets {other} and {id} are both in {zone}"),
                "name one subnet a zone in aws.vpc.subnets".to_owned(),
            ));
        }
        if subnet.cidr_block().is_none_or(|range| range.parse::<Ipv4Net>().is_err()) {
            problems.push(Problem::new(format!("the subnet {id} has no IPv4 range"), "name a subnet that has one".to_owned()));
            continue;
        }
        let free = u32::try_from(subnet.available_ip_address_count().unwrap_or(0)).unwrap_or(0);
        if free < wanted.addresses {
            problems.push(Problem::new(
                format!("the subnet {id} has {free} free addresses, where the cluster's machines may need {}", wanted.addresses),
                "name a larger subnet, or more subnets".to_owned(),
            ));
        }
        problems.extend(of_route(id, &wanted.vpc, tables));
    }
    problems
}

/// Machines are reached from outside, and reach registries, by an internet gateway.
fn of_route(subnet: &str, vpc: &str, tables: &[RouteTable]) -> Option<Problem> {
    let own = tables.iter().find(|table| table.associations().iter().any(|a| a.subnet_id() == Some(subnet)));
    let main = || tables.iter().find(|table| table.associations().iter().any(|a| a.main() == Some(true)));
    let Some(table) = own.or_else(main) else {
        let fix = format!("associate it with a route table that has a route 0.0.0.0/0 to an internet gateway of {vpc}");
        return Some(Problem::new(format!("the subnet {subnet} has no route table"), fix));
    };
    let id = table.route_table_id().unwrap_or("its route table");
    let whose = if own.is_some() { "the route table" } else { "the VPC's main route table" };
    let by = |call: &str| {
        format!(
            "`aws ec2 {call} --route-table-id {id} --destination-cidr-block 0.0.0.0/0 --gateway-id igw-…`, or name a public subnet"
        )
    };
    let route = table.routes().iter().find(|route| route.destination_cidr_block() == Some("0.0.0.0/0"));
    let (problem, fix) = match route {
        None => {
            let what = format!("the subnet {subnet} has no way to the internet: {whose} {id} has no route 0.0.0.0/0");
            (what, by("create-route"))
        }
        Some(route) if route.state() == Some(&RouteState::Blackhole) => {
            let what = format!(
                "the subnet {subnet} has no way to the internet: the route 0.0.0.0/0 of {whose} {id} leads to something that is gone"
            );
            (what, by("replace-route"))
        }
        Some(route) if route.gateway_id().is_some_and(|gateway| gateway.starts_with("igw-")) => return None,
        Some(route) => {
            let to = [
                route.nat_gateway_id(),
                route.gateway_id(),
                route.transit_gateway_id(),
                route.network_interface_id(),
                route.instance_id(),
            ];
            let to = to.into_iter().flatten().next().unwrap_or("something else");
            let what = format!(
                "the subnet {subnet} is private: the route 0.0.0.0/0 of {whose} {id} leads to {to}, not to an internet gateway"
            );
            // Other machines there may live by that route: it isn't ours to turn.
            (what, "name a public subnet in aws.vpc.subnets: one whose route 0.0.0.0/0 leads to an internet gateway".to_owned())
        }
    };
    Some(Problem::new(problem, fix))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{Route, RouteTableAssociation};

    use super::*;

    fn wanted(subnets: &[&str]) -> Wanted {
        Wanted {
            vpc: "vpc-1".into(),
            subnets: subnets.iter().map(|&id| id.to_owned()).collect(),
            pods: Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            services: Ipv4Net::new_assert([10, 96, 0, 0].into(), 16),
            addresses: 8,
        }
    }

    fn subnet(id: &str, zone: &str, cidr: &str, free: i32) -> Subnet {
        Subnet::builder()
            .subnet_id(id)
            .vpc_id("vpc-1")
            .availability_zone(zone)
            .cidr_block(cidr)
            .available_ip_address_count(free)
            .state(SubnetState::Available)
            .build()
    }

    fn table(id: &str, association: RouteTableAssociation, route: Option<Route>) -> RouteTable {
        RouteTable::builder().route_table_id(id).associations(association).set_routes(route.map(|r| vec![r])).build()
    }

    fn of(subnet: &str) -> RouteTableAssociation {
        RouteTableAssociation::builder().subnet_id(subnet).build()
    }

    fn main_one() -> RouteTableAssociation {
        RouteTableAssociation::builder().main(true).build()
    }

    fn to_gateway(id: &str) -> Route {
        Route::builder().destination_cidr_block("0.0.0.0/0").gateway_id(id).state(RouteState::Active).build()
    }

    fn words(problems: Vec<Problem>) -> String {
        problems.into_iter().map(|p| format!("{}\n  -> {}\n", p.what, p.fix)).collect()
    }

    #[test]
    fn a_public_subnet_is_one_by_its_own_table_or_by_the_main_one() {
        let subnets =
            [subnet("subnet-a", "us-west-2a", "172.31.0.0/24", 251), subnet("subnet-b", "us-west-2b", "172.31.1.0/24", 8)];
        let tables =
            [table("rtb-m", main_one(), Some(to_gateway("igw-1"))), table("rtb-a", of("subnet-a"), Some(to_gateway("igw-1")))];
        assert_eq!(of_subnets(&wanted(&["subnet-a", "subnet-b"]), &subnets, &tables), []);
        // A table of its own is what counts, whatever the main one says.
        let tables = [table("rtb-m", main_one(), Some(to_gateway("igw-1"))), table("rtb-a", of("subnet-a"), None)];
        assert_eq!(of_subnets(&wanted(&["subnet-a", "subnet-b"]), &subnets, &tables).len(), 1);
    }

    #[test]
    fn everything_wrong_with_subnets_is_told_with_its_fix() {
        let mut foreign = subnet("subnet-d", "us-west-2d", "10.0.0.0/24", 200);
        foreign.vpc_id = Some("vpc-2".into());
        let subnets = [
            subnet("subnet-a", "us-west-2a", "172.31.0.0/24", 3),
            subnet("subnet-b", "us-west-2a", "172.31.1.0/24", 200),
            subnet("subnet-c", "us-west-2c", "172.31.2.0/24", 200),
            foreign,
        ];
        let nat = Route::builder().destination_cidr_block("0.0.0.0/0").nat_gateway_id("nat-1").state(RouteState::Active).build();
        let hole = Route::builder().destination_cidr_block("0.0.0.0/0").gateway_id("igw-0").state(RouteState::Blackhole).build();
        let tables = [
            table("rtb-m", main_one(), None),
            table("rtb-a", of("subnet-a"), Some(nat)),
            table("rtb-b", of("subnet-b"), Some(hole)),
        ];
        let ids = ["subnet-a", "subnet-b", "subnet-c", "subnet-d", "subnet-e"];
        insta::assert_snapshot!(words(of_subnets(&wanted(&ids), &subnets, &tables)));
    }

    #[test]
    fn a_vpc_must_have_dns_and_ranges_beside_ours() {
        let association = aws_sdk_ec2::types::VpcCidrBlockAssociation::builder().cidr_block("10.244.64.0/20").build();
        let vpc = Vpc::builder()
            .vpc_id("vpc-1")
            .state(VpcState::Pending)
            .cidr_block("172.31.0.0/16")
            .cidr_block_association_set(association)
            .build();
        insta::assert_snapshot!(words(of_vpc(&wanted(&[]), &vpc, (true, false))));
        let vpc = Vpc::builder().vpc_id("vpc-1").state(VpcState::Available).cidr_block("172.31.0.0/16").build();
        assert_eq!(of_vpc(&wanted(&[]), &vpc, (true, true)), []);
    }
}
