//! What is asked of AWS before anything is made: only what the plan needs to know, all at once, nothing that changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use aws_sdk_ec2::types::{AvailabilityZoneState, Filter, LocationType, Vpc};
use ipnet::Ipv4Net;

use super::Aws;
use super::fault::Explain as _;
use super::permissions::{Need, Scope, need};
use crate::cluster::Cluster;
use crate::cluster::problem::did_you_mean;
use crate::error::{Error, Result};

/// What a preflight calls, beside [`super::quota`] and [`super::simulate`].
pub const NEEDS: &[Need] = &[
    need("ec2:DescribeInstanceTypes", Scope::Any),
    need("ec2:DescribeInstanceTypeOfferings", Scope::Any),
    need("ec2:DescribeAvailabilityZones", Scope::Any),
];

/// Where one's own address is asked for.
const WHO_AM_I: &str = "https://checkip.amazonaws.com";
/// The variable that answers it instead.
pub const CALLER_VARIABLE: &str = "KUP_CALLER_ADDRESS";
/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What is asked of AWS, as [`super::deadline::Deadlines::needed`] names it.
pub const ZONES: &str = "which zones there are, and what they offer";
/// As [`ZONES`].
pub const TYPES: &str = "what it knows of the instance types";
/// As [`ZONES`].
pub const GIVEN: &str = "what aws.vpc.id and aws.vpc.subnets are like";

/// What is known of an instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeFacts {
    /// `x86_64`, `arm64`; old types have `i386` too.
    pub architectures: Vec<String>,
    /// How many virtual CPUs it has.
    pub vcpus: u32,
}

/// The types that a config names: the masters', then each group's.
pub fn types(cluster: &Cluster) -> BTreeSet<String> {
    let minions = cluster.groups().into_iter().flat_map(|group| group.types);
    cluster.aws.masters.types().into_iter().chain(minions).collect()
}

/// Looks the types up.
///
/// # Errors
/// Of kind usage: a type that AWS does not know in this region, with one of a like name.
pub async fn type_facts(aws: &Aws, types: &BTreeSet<String>) -> Result<BTreeMap<String, TypeFacts>> {
    let by_name = Filter::builder().name("instance-type").set_values(Some(types.iter().cloned().collect())).build();
    let call = aws.ec2.describe_instance_types().filters(by_name).into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("the instance types could not be looked up")?;
    let facts: BTreeMap<String, TypeFacts> = all
        .into_iter()
        .filter_map(|x| {
            let architectures =
                x.processor_info.as_ref().map(|p| p.supported_architectures().iter().map(|a| a.as_str().to_owned()).collect());
            let vcpus = x.v_cpu_info.as_ref().and_then(|v| v.default_v_cpus).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
            Some((x.instance_type?.as_str().to_owned(), TypeFacts { architectures: architectures.unwrap_or_default(), vcpus }))
        })
        .filter(|(name, _)| types.contains(name))
        .collect();
    let missing: Vec<&String> = types.iter().filter(|name| !facts.contains_key(*name)).collect();
    if missing.is_empty() {
        return Ok(facts);
    }
    let list = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut error = Error::usage(format!("{} has no instance type {list}", aws.region))
        .why("type or otherTypes of aws.masters or aws.minions, or a group's types, name it");
    // The list of all types is long: it is asked for only to help with one that is wrong.
    if let Some(meant) = meant(aws, &missing).await {
        error = error.hint(format!("did you mean {meant}?"));
    }
    Err(error.hint(format!("`aws ec2 describe-instance-type-offerings --region {}` lists what there is", aws.region)))
}

async fn meant(aws: &Aws, missing: &[&String]) -> Option<String> {
    let call = aws.ec2.describe_instance_type_offerings().into_paginator().items().send();
    let all: Vec<aws_sdk_ec2::types::InstanceTypeOffering> = call.try_collect().await.ok()?;
    let names: Vec<String> = all.into_iter().filter_map(|x| Some(x.instance_type?.as_str().to_owned())).collect();
    missing.iter().find_map(|name| did_you_mean(name, names.iter().map(String::as_str)).map(str::to_owned))
}

/// The architecture that all machines have: there is one image for them.
///
/// # Errors
/// Types of several architectures, of kind usage.
pub fn architecture(cluster: &Cluster, facts: &BTreeMap<String, TypeFacts>) -> Result<String> {
    let of = |name: &String| -> BTreeSet<&str> {
        let known = facts.get(name).into_iter().flat_map(|f| f.architectures.iter().map(String::as_str));
        known.filter(|a| matches!(*a, "x86_64" | "arm64")).collect()
    };
    let master = &cluster.aws.masters.instance_type;
    let Some(architecture) = of(master).into_iter().next_back() else {
        return Err(Error::usage(format!("aws.masters.type: {master} is of no architecture that kup knows"))
            .why("it is neither x86_64 nor arm64"));
    };
    match facts.keys().find(|name| !of(name).contains(architecture)) {
        None => Ok(architecture.to_owned()),
        Some(other) => Err(Error::usage("the machines' types are of different architectures")
            .why(format!("{master} is {architecture}, {other} is {}", of(other).into_iter().collect::<Vec<_>>().join(" or ")))
            .hint("choose types of one: t3, t3a, m5, m7i are x86_64; t4g, m7g are arm64")),
    }
}

/// The zones there are, and which of these types each has.
pub async fn offers(aws: &Aws, types: &BTreeSet<String>) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let zones = aws.ec2.describe_availability_zones().send();
    let by_name = Filter::builder().name("instance-type").set_values(Some(types.iter().cloned().collect())).build();
    let offerings = aws
        .ec2
        .describe_instance_type_offerings()
        .location_type(LocationType::AvailabilityZone)
        .filters(by_name)
        .into_paginator()
        .items()
        .send();
    let (zones, offerings) = tokio::join!(zones, offerings.try_collect());
    let zones = zones.explain(format!("the zones of {} could not be listed", aws.region))?;
    let offerings: Vec<_> = offerings.explain(format!("what the zones of {} offer could not be listed", aws.region))?;
    let usable = zones.availability_zones.into_iter().flatten().filter(|zone| {
        // Local and wavelength zones are no place for a cluster.
        matches!(zone.state, None | Some(AvailabilityZoneState::Available))
            && zone.zone_type().is_none_or(|t| t == "availability-zone")
    });
    let mut offers: BTreeMap<String, BTreeSet<String>> =
        usable.filter_map(|zone| Some((zone.zone_name?, BTreeSet::new()))).collect();
    for offering in offerings {
        if let (Some(zone), Some(of)) = (offering.location, offering.instance_type)
            && let Some(known) = offers.get_mut(&zone)
        {
            known.insert(of.as_str().to_owned());
        }
    }
    Ok(offers)
}

/// The zones to build in: as configured, or the first that offers all types.
///
/// # Errors
/// Of kind usage: a zone that does not exist or lacks a type, or no zone with all of them; with those that would do.
pub fn choose_zones(cluster: &Cluster, region: &str, offers: &BTreeMap<String, BTreeSet<String>>) -> Result<Vec<String>> {
    let good: Vec<&String> = offers.iter().filter(|(_, has)| lacks(cluster, has).is_empty()).map(|(zone, _)| zone).collect();
    let others = || {
        if good.is_empty() {
            "no zone of this region has all of the types: give others".to_owned()
        } else {
            format!("zones that have all of the types: {}", list(&good))
        }
    };
    let wanted = &cluster.aws.zones;
    if wanted.is_empty() {
        return match good.first() {
            Some(zone) => Ok(vec![(*zone).clone()]),
            None => {
                let mut error = Error::usage(format!("no zone of {region} has all of the machines' types"));
                for (zone, has) in offers {
                    error = error.why(format!("{zone} lacks {}", lacks(cluster, has).join(", ")));
                }
                Err(error.hint("give other types: aws.masters.type, aws.minions.type, or a group's types"))
            }
        };
    }
    let mut wrong = Vec::new();
    for zone in wanted {
        match offers.get(zone) {
            None => wrong
                .push(format!("{region} has no zone {zone}; it has {}", offers.keys().cloned().collect::<Vec<_>>().join(", "))),
            Some(has) => {
                let lacks = lacks(cluster, has);
                if !lacks.is_empty() {
                    wrong.push(format!("{zone} does not have {}", lacks.join(", ")));
                }
            }
        }
    }
    if wrong.is_empty() {
        return Ok(wanted.clone());
    }
    Err(Error::usage("aws.zones: the cluster can't be built in these zones").why(wrong.join("\n")).hint(others()))
}

fn list(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What of the wanted types a zone lacks. A group does with any one of its types: AWS chooses among them. Of masters' types each has to be
/// there: one that a zone never has would be no way out when the others have run out.
fn lacks(cluster: &Cluster, has: &BTreeSet<String>) -> Vec<String> {
    let mut lacks: Vec<String> = cluster.aws.masters.types().into_iter().filter(|of| !has.contains(of)).collect();
    for group in cluster.groups().iter().filter(|group| !group.types.iter().any(|of| has.contains(of))) {
        let missing = group.types.join(" or ");
        if !lacks.contains(&missing) {
            lacks.push(missing);
        }
    }
    lacks
}

/// This machine's own address, as AWS sees it; none if the config names who may reach the machines.
///
/// # Errors
/// If it can't be found out: access is never opened to the whole world instead.
pub async fn caller(cluster: &Cluster) -> Result<Option<Ipv4Addr>> {
    let access = &cluster.aws.access;
    let fields: Vec<&str> = [("aws.access.ssh", &access.ssh), ("aws.access.api", &access.api)]
        .iter()
        .filter(|(_, ranges)| ranges.is_empty())
        .map(|(field, _)| *field)
        .collect();
    if fields.is_empty() {
        return Ok(None);
    }
    let help = |error: Error| {
        error
            .hint(format!("say who may reach the machines: {}, like [198.51.100.7/32]", fields.join(" and ")))
            .hint(format!("or set {CALLER_VARIABLE} to this machine's public IPv4 address"))
    };
    if let Some(given) = std::env::var_os(CALLER_VARIABLE).filter(|value| !value.is_empty()) {
        let text = given.to_string_lossy();
        return match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(help(Error::usage(format!("{CALLER_VARIABLE}: `{text}` is no IPv4 address")))),
        };
    }
    match ask().await {
        Ok(address) => Ok(Some(address)),
        Err(why) => Err(help(Error::new("this machine's own address, which alone would be let in, is not known").why(why))),
    }
}

async fn ask() -> std::result::Result<Ipv4Addr, String> {
    let failed = |e: reqwest::Error| format!("{WHO_AM_I} does not answer: {}", e.without_url());
    let client = reqwest::Client::builder().timeout(ANSWER).build().map_err(failed)?;
    let answer = client.get(WHO_AM_I).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let text = answer.text().await.map_err(failed)?;
    let text = text.trim();
    text.parse().map_err(|_| format!("{WHO_AM_I} says `{}`, which is no IPv4 address", text.chars().take(60).collect::<String>()))
}

/// What [`networks`] found out.
pub struct Networks {
    /// How many VPCs there are: against the quota.
    pub count: u32,
    /// Those whose ranges overlap the one of the VPC that is to be made, as `vpc-0123 (office, 172.20.0.0/16)`.
    pub overlapping: Vec<String>,
}

/// How such a VPC is told; none if its ranges leave ours alone.
fn overlap(vpc: &Vpc, ours: Ipv4Net) -> Option<String> {
    let added = vpc.cidr_block_association_set().iter().filter_map(|one| one.cidr_block());
    let mut ranges = vpc.cidr_block().into_iter().chain(added).filter_map(|range| range.parse::<Ipv4Net>().ok());
    let range = ranges.find(|range| range.contains(&ours) || ours.contains(range))?;
    let name = super::tags::ec2::value(vpc.tags(), "Name").map(|name| format!("{name}, ")).unwrap_or_default();
    Some(format!("{} ({name}{range})", vpc.vpc_id().unwrap_or_default()))
}

/// Looks at all VPCs of the region: whether somebody else has made a cluster of this name, and which ones overlap `ours`, the range of the
/// VPC that is to be made, if one is.
///
/// # Errors
/// In the first case: kup would share its tags with what kube-up or kops made.
pub async fn networks(aws: &Aws, given: Option<&str>, ours: Option<Ipv4Net>) -> Result<Networks> {
    let call = aws.ec2.describe_vpcs().into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("VPCs could not be listed")?;
    let (name, key) = (&aws.cluster, format!("kubernetes.io/cluster/{}", aws.cluster));
    for vpc in &all {
        let value = |wanted: &str| super::tags::ec2::value(vpc.tags(), wanted);
        let id = vpc.vpc_id().unwrap_or_default();
        let kups = value(super::tags::CLUSTER).is_some();
        let theirs = value(&key).is_some_and(|v| v == "owned") || value("KubernetesCluster") == Some(name);
        if theirs && !kups && Some(id) != given {
            let by = if value("KubernetesCluster").is_some() { "kube-up, kops or another tool" } else { "another tool" };
            return Err(Error::usage(format!("there is a cluster {name} in {} already, and kup did not make it", aws.region))
                .why(format!("the VPC {id} carries its tags, set by {by}"))
                .hint("choose another --name, or another --region"));
        }
    }
    let overlapping = all.iter().filter_map(|vpc| overlap(vpc, ours?)).collect();
    Ok(Networks { count: u32::try_from(all.len()).unwrap_or(u32::MAX), overlapping })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        crate::cluster::defaults::cluster().unwrap()
    }

    #[test]
    fn networks_that_overlap_are_told_by_their_range() {
        let vpc = |cidr: &str| Vpc::builder().vpc_id("vpc-1").cidr_block(cidr);
        let ours = "172.20.0.0/16".parse().unwrap();
        assert_eq!(overlap(&vpc("172.21.0.0/16").build(), ours), None);
        assert_eq!(overlap(&vpc("172.16.0.0/12").build(), ours).as_deref(), Some("vpc-1 (172.16.0.0/12)"));
        let name = aws_sdk_ec2::types::Tag::builder().key("Name").value("office").build();
        let added = aws_sdk_ec2::types::VpcCidrBlockAssociation::builder().cidr_block("172.20.9.0/24").build();
        let second = vpc("10.0.0.0/16").cidr_block_association_set(added).tags(name).build();
        assert_eq!(overlap(&second, ours).as_deref(), Some("vpc-1 (office, 172.20.9.0/24)"));
    }

    fn offers(rows: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        rows.iter().map(|(zone, has)| ((*zone).to_owned(), has.iter().map(|t| (*t).to_owned()).collect())).collect()
    }

    #[test]
    fn the_first_zone_with_all_types_is_taken() {
        let zones =
            offers(&[("r-1a", &["t3.small"]), ("r-1b", &["t3.small", "t3.medium"]), ("r-1c", &["t3.small", "t3.medium"])]);
        assert_eq!(choose_zones(&cluster(), "r-1", &zones).unwrap(), ["r-1b"]);
    }

    #[test]
    fn zones_that_do_not_do_are_answered_with_those_that_would() {
        let zones = offers(&[("r-1a", &["t3.small"]), ("r-1b", &["t3.small", "t3.medium"])]);
        let mut cluster = cluster();
        cluster.aws.zones = vec!["r-1a".into(), "r-1x".into()];
        insta::assert_snapshot!(choose_zones(&cluster, "r-1", &zones).unwrap_err().to_string(), @r"
        aws.zones: the cluster can't be built in these zones
          because: r-1a does not have t3.medium
                   r-1 has no zone r-1x; it has r-1a, r-1b
          next: zones that have all of the types: r-1b
        ");
        cluster.aws.zones.clear();
        let none = offers(&[("r-1a", &["t3.small"])]);
        let error = choose_zones(&cluster, "r-1", &none).unwrap_err().to_string();
        assert!(error.contains("r-1a lacks t3.medium"), "{error}");
        // A type to fall back on that a zone never has is none.
        cluster.aws.masters.other_types = vec!["t3a.medium".into()];
        let error = choose_zones(&cluster, "r-1", &zones).unwrap_err().to_string();
        assert!(error.contains("r-1b lacks t3a.medium"), "{error}");
    }

    #[test]
    fn machines_of_two_architectures_are_refused() {
        let facts = |arm: bool| {
            let of = |a: &str| TypeFacts { architectures: vec![a.to_owned()], vcpus: 2 };
            BTreeMap::from([
                ("t3.medium".to_owned(), of("x86_64")),
                ("t3.small".to_owned(), of(if arm { "arm64" } else { "x86_64" })),
            ])
        };
        assert_eq!(architecture(&cluster(), &facts(false)).unwrap(), "x86_64");
        let error = architecture(&cluster(), &facts(true)).unwrap_err().to_string();
        assert!(error.contains("t3.medium is x86_64, t3.small is arm64"), "{error}");
    }
}
