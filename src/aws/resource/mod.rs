//! The kinds of things that a cluster is made of on AWS: one file each, and their table.
//!
//! To add a kind: its file, its row in [`ROWS`], and its use in [`super::layout`].

pub mod access_key;
pub mod auto_scaling_group;
pub mod bucket;
pub mod dhcp_options;
pub mod elastic_ip;
pub mod given;
pub mod instance;
pub mod instance_profile;
pub mod internet_gateway;
pub mod key_pair;
pub mod launch_template;
pub mod listener;
pub mod load_balancer;
pub mod network;
pub mod network_interface;
pub mod operator_policy;
pub mod operator_user;
pub mod role;
pub mod route_table;
pub mod s3_endpoint;
pub mod security_group;
pub mod security_group_rules;
pub mod subnet;
pub mod target_group;
pub mod volume;
pub mod vpc;

use super::Aws;
use super::permissions::Need;
use crate::graph::{Kind, Resource, kind};

/// A kind of thing on AWS.
pub trait AwsResource: Resource<Cloud = Aws> {
    /// Which calls its code makes, and which IAM actions they need.
    const NEEDS: &'static [Need];
}

/// A row of the table of kinds.
pub struct Row {
    /// What removal needs.
    pub kind: Kind<Aws>,
    /// What IAM has to allow.
    pub needs: &'static [Need],
}

/// The row of the kind `R`, whose things may need those of the kinds named.
const fn row<R: AwsResource>(after: &'static [&'static str]) -> Row {
    Row { kind: kind::<R>(after), needs: R::NEEDS }
}

/// What listing, making and removing need of all kinds.
pub fn kinds() -> Vec<Kind<Aws>> {
    ROWS.iter().map(|row| row.kind).collect()
}

/// All kinds. The bucket goes last, with the lock in it: so rows name it whose things don't need it to be made.
pub const ROWS: &[Row] = &[
    row::<vpc::Vpc>(&["bucket"]),
    row::<given::GivenVpc>(&["bucket"]),
    row::<dhcp_options::DhcpOptions>(&["vpc"]),
    row::<subnet::Subnet>(&["vpc"]),
    row::<given::GivenSubnet>(&["given vpc"]),
    row::<internet_gateway::InternetGateway>(&["vpc"]),
    row::<route_table::RouteTable>(&["vpc", "subnet", "internet gateway"]),
    row::<s3_endpoint::S3Endpoint>(&["vpc", "route table"]),
    row::<security_group::SecurityGroup>(&["vpc", "given vpc"]),
    row::<security_group_rules::SecurityGroupRules>(&["security group"]),
    row::<key_pair::KeyPair>(&["bucket"]),
    row::<bucket::Bucket>(&[]),
    row::<operator_policy::OperatorPolicy>(&[]),
    row::<operator_user::OperatorUser>(&["operator policy"]),
    row::<access_key::AccessKey>(&["operator user"]),
    row::<role::Role>(&["bucket"]),
    row::<instance_profile::InstanceProfile>(&["role"]),
    row::<network_interface::NetworkInterface>(&["subnet", "given subnet", "security group"]),
    row::<elastic_ip::ElasticIp>(&["network interface", "internet gateway", "bucket"]),
    row::<load_balancer::LoadBalancer>(&["subnet", "given subnet", "security group", "internet gateway", "bucket"]),
    row::<target_group::TargetGroup>(&["vpc", "given vpc", "network interface", "bucket"]),
    row::<listener::Listener>(&["load balancer", "target group"]),
    row::<volume::Volume>(&["bucket"]),
    row::<instance::Instance>(&[
        "network interface",
        "volume",
        "instance profile",
        "key pair",
        "elastic ip",
        "security group rules",
        "route table",
    ]),
    row::<launch_template::LaunchTemplate>(&["security group", "instance profile", "key pair"]),
    row::<auto_scaling_group::AutoScalingGroup>(&[
        "launch template",
        "subnet",
        "given subnet",
        "route table",
        "security group rules",
        "s3 endpoint",
    ]),
];
