//! What a cluster is made of on AWS: config and surroundings → desired resources. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::Aws;
use super::client::bucket;
use super::resource::access_key::AccessKey;
use super::resource::auto_scaling_group::AutoScalingGroup;
use super::resource::bucket::Bucket;
use super::resource::dhcp_options::DhcpOptions;
use super::resource::elastic_ip::ElasticIp;
use super::resource::given::{GivenSubnet, GivenVpc, Wanted};
use super::resource::instance::Instance;
use super::resource::instance_profile::InstanceProfile;
use super::resource::internet_gateway::InternetGateway;
use super::resource::key_pair::KeyPair;
use super::resource::launch_template::LaunchTemplate;
use super::resource::listener::Listener;
use super::resource::load_balancer::LoadBalancer;
use super::resource::network::{SubnetRef, VpcRef};
use super::resource::network_interface::NetworkInterface;
use super::resource::operator_policy::{OPERATOR, OperatorPolicy};
use super::resource::operator_user::OperatorUser;
use super::resource::role::Role;
use super::resource::route_table::RouteTable;
use super::resource::s3_endpoint::S3Endpoint;
use super::resource::security_group::SecurityGroup;
use super::resource::security_group_rules::{Access, SecurityGroupRules, rules};
use super::resource::subnet::Subnet;
use super::resource::target_group::TargetGroup;
use super::resource::volume::Volume;
use super::resource::vpc::Vpc;
use super::user_data::{Minion, bucket_url};
use crate::cluster::Cluster;
use crate::cluster::aws::NamedGroup;
use crate::error::{Error, Result};
use crate::graph::{Entry, Graph, Ref, Resource as _};
use crate::machine::topology::API_PORT;

/// Addresses that AWS keeps of each subnet: the first four and the last.
const RESERVED: u64 = 5;
/// The prefix length of a zone's subnet in a VPC of the cluster's own.
const SUBNET_PREFIX: u8 = 24;
/// The prefix length of the range of pods that each node takes.
const NODE_PREFIX: u8 = 24;
/// The first master's address in its subnet; below it are AWS's own, and minions that came first.
const FIRST_MASTER: u32 = 10;

/// What of the world decides about the layout, beside the config: found out by the preflight, and by what stands already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Surroundings {
    /// Twelve digits.
    pub account: String,
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
    /// The region.
    pub region: String,
    /// Where S3 is, if it is not AWS's own: an endpoint set for kup is one for the machines too.
    pub s3_endpoint: Option<String>,
    /// The zones to build in, as configured or chosen; those of the given subnets, in their order, if there are any.
    pub zones: Vec<String>,
    /// The image that machines boot from.
    pub image: Image,
    /// This machine's own address, as AWS sees it; asked for only if the config names no ranges.
    pub caller: Option<Ipv4Addr>,
    /// The public half of the SSH key, as one line in OpenSSH's form.
    pub ssh_public: String,
    /// How many machines have no address yet, since they are still to be made: see [`missing`].
    pub missing: u32,
}

/// An image for machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its id.
    pub id: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The device name of its root volume.
    pub root_device: String,
    /// Its user with sudo: `admin` on Debian, `ubuntu`, `ec2-user`.
    pub user: String,
}

/// How many of the cluster's machines are still to be made, by what was found of it: a master is there with its network interface, which
/// has its address.
///
/// # Errors
/// Only by a mistake in kup: an entry that is not of its kind.
pub fn missing(cluster: &Cluster, found: &[Entry]) -> Result<u32> {
    let of = |kind: &str, name: &str| -> Vec<&Entry> {
        found.iter().filter(|entry| entry.address.kind == kind && entry.address.name == name).collect()
    };
    let mut missing = 0;
    for index in 0..usize::from(cluster.masters.count) {
        missing += u32::from(of(NetworkInterface::KIND, &master_name(index)).is_empty());
    }
    for group in cluster.groups() {
        let mut members = 0;
        for entry in of(AutoScalingGroup::KIND, &group.name) {
            members += entry.value::<AutoScalingGroup>()?.members.len();
        }
        missing += u32::from(group.count).saturating_sub(u32::try_from(members).unwrap_or(u32::MAX));
    }
    Ok(missing)
}

/// What is asked of a given VPC, if the config names one, by as many machines as are still to be made.
pub fn given(cluster: &Cluster, missing: u32) -> Option<Wanted> {
    let vpc = &cluster.aws.vpc;
    let subnets = u32::try_from(vpc.subnets.len().max(1)).unwrap_or(1);
    Some(Wanted {
        vpc: vpc.id.clone()?,
        subnets: vpc.subnets.clone(),
        pods: cluster.network.pods,
        services: cluster.network.services,
        addresses: missing.div_ceil(subnets),
    })
}

/// What the minions of a group are told at their first boot.
pub fn minion(cluster: &Cluster, around: &Surroundings, group: &NamedGroup) -> Minion {
    let bucket = bucket(&around.account, &around.region, &cluster.name);
    Minion {
        cluster: cluster.name.clone(),
        region: around.region.clone(),
        account: around.account.clone(),
        bucket: bucket_url(&bucket, &around.region, around.s3_endpoint.as_deref()),
        group: group.name.clone(),
        labels: group.labels.clone(),
        taints: group.taints.clone(),
    }
}

/// The desired resources.
///
/// # Errors
/// What can't be, of kind usage: more machines than addresses or ranges of pods, ranges that overlap, machines that are told too much at
/// boot, and no way for anybody to reach them.
pub fn layout(cluster: &Cluster, around: &Surroundings) -> Result<Graph<Aws>> {
    check(cluster, around)?;
    let mut graph = Graph::new();
    graph.add(Bucket::default());
    let policy = graph.add(OperatorPolicy::default());
    let user = graph.add(OperatorUser { name: OPERATOR.into(), policy });
    if cluster.aws.operator.access_key {
        graph.add(AccessKey { name: OPERATOR.into(), user });
    }
    let key = graph.add(KeyPair { name: "ssh".into(), public: around.ssh_public.clone(), private: cluster.aws.ssh_key.clone() });
    let network = network(&mut graph, cluster, around)?;
    let access = access(cluster, around)?;
    let mut rules_of = Vec::new();
    for rules in rules(&access) {
        graph.add(SecurityGroup { name: rules.name.clone(), vpc: network.vpc.clone() });
        rules_of.push(graph.add(rules));
    }
    let machines = Machines { cluster, around, network, key, rules: rules_of };
    machines.masters(&mut graph, access.balancer)?;
    machines.minions(&mut graph)?;
    Ok(graph)
}

/// The network that machines are put into.
struct Network {
    vpc: VpcRef,
    /// One a zone, in the zones' order.
    subnets: Vec<SubnetRef>,
    /// What is only there in a VPC of the cluster's own.
    gateway: Option<Ref<InternetGateway>>,
    routes: Option<Ref<RouteTable>>,
    endpoint: Option<Ref<S3Endpoint>>,
}

fn network(graph: &mut Graph<Aws>, cluster: &Cluster, around: &Surroundings) -> Result<Network> {
    let wanted = &cluster.aws.vpc;
    if let Some(asked) = given(cluster, around.missing) {
        let vpc = graph.add(GivenVpc { wanted: asked });
        let subnets =
            wanted.subnets.iter().map(|id| graph.add(GivenSubnet { id: id.clone(), vpc: vpc.clone() }).into()).collect();
        return Ok(Network { vpc: vpc.into(), subnets, gateway: None, routes: None, endpoint: None });
    }
    let vpc = graph.add(Vpc { name: "main".into(), cidr: wanted.cidr });
    if let Some(domain) = &wanted.domain {
        graph.add(DhcpOptions { name: "main".into(), vpc: vpc.clone(), domain: domain.clone() });
    }
    let mut subnets = Vec::new();
    for (index, zone) in around.zones.iter().enumerate() {
        let cidr = public_range(wanted.cidr, index)?;
        subnets.push(graph.add(Subnet { name: format!("public-{zone}"), vpc: vpc.clone(), zone: zone.clone(), cidr }));
    }
    let gateway = graph.add(InternetGateway { name: "main".into(), vpc: vpc.clone() });
    let routes =
        graph.add(RouteTable { name: "public".into(), vpc: vpc.clone(), gateway: gateway.clone(), subnets: subnets.clone() });
    let endpoint = graph.add(S3Endpoint { name: "s3".into(), vpc: vpc.clone(), route_table: routes.clone() });
    Ok(Network {
        vpc: vpc.into(),
        subnets: subnets.into_iter().map(SubnetRef::from).collect(),
        gateway: Some(gateway),
        routes: Some(routes),
        endpoint: Some(endpoint),
    })
}

/// The public range of the zone of this index: each second /24, since the one beside it is kept for private machines.
fn public_range(vpc: Ipv4Net, zone: usize) -> Result<Ipv4Net> {
    let range = vpc.subnets(SUBNET_PREFIX).ok().and_then(|mut ranges| ranges.nth(2 * zone));
    range.ok_or_else(|| {
        Error::usage(format!("{vpc} has no room for {} zones", zone + 1))
            .why("each zone takes two /24, one of them kept for private machines")
            .hint("write a larger range in aws.vpc.cidr, or fewer zones in aws.zones")
    })
}

/// Who may reach the cluster from outside.
fn access(cluster: &Cluster, around: &Surroundings) -> Result<Access> {
    let ranges = |field: &str, written: &[String]| -> Result<Vec<Ipv4Net>> {
        if written.is_empty() {
            let Some(caller) = around.caller else {
                return Err(Error::usage(format!("nobody may reach {field}: this machine's address is not known"))
                    .hint(format!("write the ranges that may into aws.access.{field}")));
            };
            return Ok(vec![Ipv4Net::from(caller)]);
        }
        let parse = |text: &String| {
            text.parse::<Ipv4Net>().map_err(|e| Error::usage(format!("aws.access.{field}: {text} is no range")).why(e))
        };
        written.iter().map(parse).collect()
    };
    let access = &cluster.aws.access;
    Ok(Access { ssh: ranges("ssh", &access.ssh)?, api: ranges("api", &access.api)?, balancer: cluster.masters.count > 1 })
}

/// What all machines are made with.
struct Machines<'a> {
    cluster: &'a Cluster,
    around: &'a Surroundings,
    network: Network,
    key: Ref<KeyPair>,
    rules: Vec<Ref<SecurityGroupRules>>,
}

impl Machines<'_> {
    fn image_name(&self) -> String {
        self.cluster.aws.image.clone().into()
    }

    /// The place of the master of this index, from 0: zones in turn.
    fn place(&self, index: usize) -> Result<(usize, String)> {
        let zone = index % self.around.zones.len().max(1);
        let name = self.around.zones.get(zone).cloned().ok_or_else(|| Error::usage("there is no zone to build in"))?;
        Ok((zone, name))
    }

    fn masters(&self, graph: &mut Graph<Aws>, balanced: bool) -> Result<()> {
        let aws = &self.cluster.aws;
        let role = graph.add(Role::master());
        let profile = graph.add(InstanceProfile { name: role_name(&role), role });
        let own = aws.vpc.id.is_none();
        let mut interfaces = Vec::new();
        for index in 0..usize::from(self.cluster.masters.count) {
            let (zone, zone_name) = self.place(index)?;
            let name = master_name(index);
            let subnet = self.network.subnets.get(zone).cloned();
            let subnet = subnet.ok_or_else(|| Error::usage(format!("there is no subnet in {zone_name}")))?;
            // In a given subnet others may have any address.
            let address = if own { Some(address(public_range(aws.vpc.cidr, zone)?, index)) } else { None };
            let interface = graph.add(NetworkInterface { name: name.clone(), subnet, address, groups: vec![Ref::to("master")] });
            interfaces.push(interface.clone());
            let gateway = self.network.gateway.clone();
            let public = graph.add(ElasticIp { name: name.clone(), interface: interface.clone(), gateway });
            let volume = graph.add(Volume { name: etcd_volume(&name), zone: zone_name.clone(), size: aws.etcd_volume });
            graph.add(Instance {
                name,
                types: aws.masters.types(),
                zone: zone_name,
                image: self.around.image.clone(),
                image_name: self.image_name(),
                root_volume: aws.masters.root_volume,
                interface,
                volume,
                profile: profile.clone(),
                key: self.key.clone(),
                address: Some(public),
                rules: self.rules.clone(),
                routes: self.network.routes.clone(),
            });
        }
        if balanced {
            let name = || "api".to_owned();
            let balancer = graph.add(LoadBalancer {
                name: name(),
                subnets: self.network.subnets.clone(),
                group: Ref::to("balancer"),
                gateway: self.network.gateway.clone(),
            });
            let target =
                graph.add(TargetGroup { name: name(), vpc: self.network.vpc.clone(), port: API_PORT, members: interfaces });
            graph.add(Listener { name: name(), balancer, target, port: API_PORT });
        }
        Ok(())
    }

    fn minions(&self, graph: &mut Graph<Aws>) -> Result<()> {
        let groups = self.cluster.groups();
        if groups.is_empty() {
            return Ok(());
        }
        let role = graph.add(Role::minion());
        let profile = graph.add(InstanceProfile { name: role_name(&role), role });
        for group in groups {
            let template = graph.add(LaunchTemplate {
                name: group.name.clone(),
                instance_type: group.types.first().cloned().unwrap_or_default(),
                image: self.around.image.clone(),
                image_name: self.image_name(),
                root_volume: group.root_volume,
                group: Ref::to("minion"),
                profile: profile.clone(),
                key: self.key.clone(),
                user_data: minion(self.cluster, self.around, &group).render()?,
            });
            graph.add(AutoScalingGroup {
                name: group.name,
                template,
                subnets: self.network.subnets.clone(),
                count: group.count,
                min: group.min,
                max: group.max,
                types: group.types,
                spot: group.spot,
                routes: self.network.routes.clone(),
                rules: self.rules.clone(),
                endpoint: self.network.endpoint.clone(),
            });
        }
        Ok(())
    }
}

/// What the volume is called that a master's etcd has.
pub fn etcd_volume(master: &str) -> String {
    format!("etcd-{}", master.trim_start_matches("master-"))
}

/// The name of the master of this index, from 0.
fn master_name(index: usize) -> String {
    format!("master-{}", index + 1)
}

/// A profile is called as its role.
fn role_name(role: &Ref<Role>) -> String {
    role.address().name
}

/// The address of the master of this index, from 0. No two masters have the same last number, whatever their zones.
fn address(subnet: Ipv4Net, index: usize) -> Ipv4Addr {
    let offset = FIRST_MASTER + u32::try_from(index).unwrap_or_default();
    Ipv4Addr::from(u32::from(subnet.network()).wrapping_add(offset))
}

/// Refuses what no AWS can make: found here, before anything is asked or made.
fn check(cluster: &Cluster, around: &Surroundings) -> Result<()> {
    let (masters, groups) = (u64::from(cluster.masters.count), cluster.groups());
    let most = masters + groups.iter().map(|group| u64::from(group.max)).sum::<u64>();
    let sum = || {
        let each = groups.iter().map(|group| format!("up to {} of the group {}", group.max, group.name));
        std::iter::once(format!("{masters} {}", if masters == 1 { "master" } else { "masters" }))
            .chain(each)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let pods = cluster.network.pods;
    let nodes =
        NODE_PREFIX.checked_sub(pods.prefix_len()).map_or(0, |bits| 1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX));
    if most > nodes {
        return Err(Error::usage(format!("there may be {most} nodes, but {pods} has ranges for the pods of {nodes}"))
            .why(format!("each node takes a /{NODE_PREFIX}: {}", sum()))
            .hint("write a larger range in network.pods, or a smaller max for a group in aws.groups"));
    }
    if cluster.aws.vpc.id.is_some() {
        // What a given VPC is like is checked where it is read.
        return Ok(());
    }
    let (vpc, zones) = (cluster.aws.vpc.cidr, around.zones.len() as u64);
    let balancer = u64::from(masters > 1);
    let room = zones * ((1u64 << (32 - SUBNET_PREFIX)) - RESERVED - balancer);
    if most > room {
        return Err(Error::usage(format!("there may be {most} machines, but the subnets have addresses for {room}"))
            .why(format!("{zones} zones with a /{SUBNET_PREFIX} each, of which AWS keeps {RESERVED} addresses: {}", sum()))
            .hint("name more zones in aws.zones, or write a smaller max for a group in aws.groups"));
    }
    for (field, range) in [("network.pods", pods), ("network.services", cluster.network.services)] {
        if range.contains(&vpc) || vpc.contains(&range) {
            return Err(Error::usage(format!("{field} {range} overlaps the VPC's range {vpc}"))
                .why("packets to one of them could not be told from packets to the other")
                .hint(format!("write another range in {field} or in aws.vpc.cidr")));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
pub(crate) mod tests;
