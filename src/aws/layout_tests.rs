//! What a cluster is made of: its things, their edges, their ranges, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use super::*;
use crate::aws::resource::{ROWS, kinds};
use crate::aws::{prices, testing};
use crate::cluster::{Source, load};
use crate::graph::plan::check_kinds;
use crate::graph::{Address, Plan};

pub(crate) fn around(zones: &[&str]) -> Surroundings {
    Surroundings {
        account: "123456789012".into(),
        partition: "aws".into(),
        region: "us-west-2".into(),
        s3_endpoint: None,
        zones: zones.iter().map(|zone| format!("us-west-2{zone}")).collect(),
        image: Image {
            id: "ami-0123456789abcdef0".into(),
            architecture: "x86_64".into(),
            root_device: "/dev/xvda".into(),
            user: "admin".into(),
        },
        caller: Some(Ipv4Addr::new(198, 51, 100, 7)),
        ssh_public: "ssh-ed25519 AAAA".into(),
        missing: 5,
    }
}

fn of(yaml: &str) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.yaml");
    std::fs::write(&file, format!("apiVersion: kup.dev/v1alpha1\nkind: Cluster\nprovider: aws\n{yaml}")).unwrap();
    load(Source { file: Some(file), ..Source::default() }).unwrap().cluster
}

fn details(graph: &Graph<Aws>) -> BTreeMap<String, String> {
    graph.nodes().iter().map(|node| (node.address().to_string(), node.detail())).collect()
}

fn needs(graph: &Graph<Aws>, address: &str) -> Vec<String> {
    let node = graph.nodes().iter().find(|node| node.address().to_string() == address);
    node.unwrap_or_else(|| panic!("no {address}")).needs().iter().map(Address::to_string).collect()
}

fn refused(yaml: &str, zones: &[&str]) -> Error {
    let error = layout(&of(yaml), &around(zones)).err().unwrap_or_else(|| panic!("{yaml} is laid out"));
    assert_eq!(error.kind, crate::error::Kind::Usage, "{error}");
    error
}

const SHAPES: [&str; 6] = [
    "",
    "masters: {count: 3}",
    "masters: {count: 5}\nminions: {count: 0}\naws: {operator: {accessKey: true}, vpc: {domain: example.internal}}",
    "aws: {zones: [us-west-2a, us-west-2b], vpc: {id: vpc-0123456789abcdef0, subnets: [subnet-0123456789abcdef0, subnet-0fedcba9876543210]}}",
    "masters: {count: 3}\naws: {zones: [us-west-2a, us-west-2b], vpc: {id: vpc-0123456789abcdef0, subnets: [subnet-0123456789abcdef0, subnet-0fedcba9876543210]}}",
    "aws: {groups: {web: {count: 2, max: 5}, batch: {types: [m5.large, m5a.large], spot: 100}}}",
];

#[test]
fn each_shape_can_be_made_and_removed_in_order_and_all_that_is_billed_is_in_it() {
    let (aws, kinds) = (testing::aws(), kinds());
    for shape in SHAPES {
        let (cluster, around) = (of(shape), around(&["a", "b"]));
        let graph = layout(&cluster, &around).unwrap();
        check_kinds(&graph, &kinds).unwrap_or_else(|e| panic!("{shape}: {e}"));
        let addresses: Vec<Address> = graph.nodes().iter().map(|node| node.address()).collect();
        for address in prices::usage(&cluster, &around).keys() {
            assert!(addresses.contains(address), "{shape}: {address} is billed, but not made");
        }
        let plan = Plan::new(graph, Vec::new(), &aws, |_| false).unwrap_or_else(|e| panic!("{shape}: {e}"));
        assert_eq!(plan.items.len(), addresses.len(), "{shape}");
    }
}

#[test]
fn the_table_of_kinds_has_no_circle_and_names_kinds_that_are_there() {
    let names: Vec<&str> = ROWS.iter().map(|row| row.kind.name).collect();
    let mut done: Vec<&str> = Vec::new();
    while done.len() < names.len() {
        let next =
            ROWS.iter().find(|row| !done.contains(&row.kind.name) && row.kind.needs.iter().all(|need| done.contains(need)));
        done.push(next.unwrap_or_else(|| panic!("nothing after {done:?}")).kind.name);
    }
    assert_eq!(done.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len(), "each once");
}

#[test]
fn the_default_cluster_is_kube_ups() {
    let graph = layout(&of(""), &around(&["a"])).unwrap();
    let details = details(&graph);
    let things: Vec<&str> = details.keys().map(String::as_str).collect();
    let expected = "auto scaling group minions, bucket cluster, elastic ip master-1, instance master-1, instance profile master, \
        instance profile minion, internet gateway main, key pair ssh, launch template minions, network interface master-1, \
        operator policy operator, operator user operator, role master, role minion, route table public, s3 endpoint s3, \
        security group master, security group minion, security group rules master, security group rules minion, \
        subnet public-us-west-2a, volume etcd-1, vpc main";
    assert_eq!(things.join(", "), expected);
    assert_eq!(details["vpc main"], "172.20.0.0/16");
    assert_eq!(details["subnet public-us-west-2a"], "172.20.0.0/24 in us-west-2a");
    assert_eq!(details["network interface master-1"], "172.20.0.10");
    assert!(details["security group rules master"].contains("tcp 22 from 198.51.100.7/32"), "{details:?}");
}

#[test]
fn masters_are_in_the_zones_in_turn_each_with_an_address_of_its_own() {
    let graph = layout(&of("masters: {count: 5}\naws: {vpc: {cidr: 10.9.0.0/20}}"), &around(&["a", "b", "c"])).unwrap();
    let details = details(&graph);
    let subnets: Vec<&str> = ["a", "b", "c"].map(|zone| details[&format!("subnet public-us-west-2{zone}")].as_str()).into();
    assert_eq!(subnets, ["10.9.0.0/24 in us-west-2a", "10.9.2.0/24 in us-west-2b", "10.9.4.0/24 in us-west-2c"]);
    let addresses: Vec<&str> = (1..=5).map(|n| details[&format!("network interface master-{n}")].as_str()).collect();
    assert_eq!(addresses, ["10.9.0.10", "10.9.2.11", "10.9.4.12", "10.9.0.13", "10.9.2.14"]);
    assert!(needs(&graph, "network interface master-5").contains(&"subnet public-us-west-2b".to_owned()));
    assert!(
        details["volume etcd-5"].contains("us-west-2b") && details["instance master-5"].contains("us-west-2b"),
        "{details:?}"
    );
}

#[test]
fn only_several_masters_are_behind_a_load_balancer() {
    let one = details(&layout(&of(""), &around(&["a"])).unwrap());
    assert!(!one.keys().any(|k| k.contains("balancer") || k.starts_with("target") || k.starts_with("listener")), "{one:?}");
    assert!(one["security group rules master"].contains("tcp 6443 from 198.51.100.7/32"));
    let graph = layout(&of("masters: {count: 3}"), &around(&["a"])).unwrap();
    let three = details(&graph);
    assert!(three["security group rules balancer"].contains("tcp 6443 from 198.51.100.7/32"));
    assert!(three["security group rules master"].contains("tcp 6443 from 198.51.100.7/32"), "kup asks masters one by one");
    assert_eq!(needs(&graph, "listener api"), ["load balancer api", "target group api"]);
    assert!(needs(&graph, "target group api").contains(&"network interface master-3".to_owned()));
}

#[test]
fn in_a_given_vpc_nothing_of_the_network_is_made() {
    let graph = layout(&of(SHAPES[4]), &around(&["a", "b"])).unwrap();
    let made = details(&graph);
    let network = ["vpc ", "subnet ", "dhcp options", "internet gateway", "route table", "s3 endpoint"];
    assert!(!made.keys().any(|kind| network.iter().any(|n| kind.starts_with(n))), "{made:?}");
    assert!(needs(&graph, "network interface master-2").contains(&"given subnet subnet-0fedcba9876543210".to_owned()));
    assert!(needs(&graph, "security group minion").contains(&"given vpc vpc-0123456789abcdef0".to_owned()));
}

/// What stands, as the kinds' own lists find it: masters' interfaces by name, groups of minions with their machines.
async fn standing(interfaces: &[&str], groups: &[(&str, usize)]) -> Vec<Entry> {
    use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
    use aws_sdk_autoscaling::types::{AutoScalingGroup as Seen, Instance as Member, TagDescription};
    use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
    use aws_sdk_ec2::types::{NetworkInterface as Interface, Tag};

    let interface = |name: &&str| {
        let tag = Tag::builder().key("kup.dev/name").value(*name).build();
        Interface::builder().network_interface_id(format!("eni-{name}")).tag_set(tag).build()
    };
    let group = |(name, members): &(&str, usize)| {
        let tag = TagDescription::builder().key("kup.dev/name").value(*name).build();
        let member = |n| Member::builder().instance_id(format!("i-{n}")).build();
        let members: Vec<Member> = (0..*members).map(member).collect();
        Seen::builder().auto_scaling_group_name(format!("c-{name}")).tags(tag).set_instances(Some(members)).build()
    };
    let (interfaces, groups): (Vec<_>, Vec<_>) = (interfaces.iter().map(interface).collect(), groups.iter().map(group).collect());
    let first = aws_smithy_mocks::mock!(aws_sdk_ec2::Client::describe_network_interfaces)
        .then_output(move || DescribeNetworkInterfacesOutput::builder().set_network_interfaces(Some(interfaces.clone())).build());
    let second = aws_smithy_mocks::mock!(aws_sdk_autoscaling::Client::describe_auto_scaling_groups)
        .then_output(move || DescribeAutoScalingGroupsOutput::builder().set_auto_scaling_groups(Some(groups.clone())).build());
    let mut aws = testing::aws();
    aws.ec2 = testing::mocked!(aws_sdk_ec2, MatchAny, [&first]);
    aws.autoscaling = testing::mocked!(aws_sdk_autoscaling, MatchAny, [&second]);
    let mut found: Vec<Entry> =
        NetworkInterface::list(&aws).await.unwrap().into_iter().map(Entry::of::<NetworkInterface>).collect();
    found.extend(AutoScalingGroup::list(&aws).await.unwrap().into_iter().map(Entry::of::<AutoScalingGroup>));
    found
}

#[tokio::test]
async fn of_a_given_subnet_only_what_is_added_takes_addresses() {
    // Two subnets, three masters, five minions.
    let cluster = of(&format!("minions: {{count: 5}}\n{}", SHAPES[4]));
    let asked = |found: &[Entry]| {
        let missing = missing(&cluster, found).unwrap();
        (missing, given(&cluster, missing).unwrap().addresses)
    };
    assert_eq!(asked(&[]), (8, 4));
    // A master that is no longer wanted, and a group of another name, have no place among them.
    let some = standing(&["master-1", "master-3", "master-7"], &[("minions", 4), ("old", 3)]).await;
    assert_eq!(asked(&some), (2, 1));
    // A group that something made larger leaves the masters' places alone.
    let many = standing(&["master-1", "master-2"], &[("minions", 9)]).await;
    assert_eq!(asked(&many), (1, 1));
    let all = standing(&["master-1", "master-2", "master-3"], &[("minions", 5)]).await;
    assert_eq!(asked(&all), (0, 0));
}

#[test]
fn what_can_not_be_is_refused_with_the_field_to_change() {
    let many = "network: {pods: 10.100.0.0/16}\naws: {zones: [us-west-2a, us-west-2b], groups: {a: {count: 1, max: 200}, b: {count: 1, max: 54}}}";
    let error = refused(many, &["a"]);
    assert_eq!(error.what, "there may be 255 machines, but the subnets have addresses for 251");
    assert!(error.why[0].contains("1 master, up to 200 of the group a, up to 54 of the group b"), "{error}");
    assert!(layout(&of(many), &around(&["a", "b"])).is_ok());
    // What the loader refuses too, for clusters that came another way.
    let mut cluster = of("network: {pods: 10.100.0.0/16}\naws: {groups: {a: {count: 1, max: 16}}}");
    cluster.network.pods = "10.100.0.0/20".parse().unwrap();
    let error = layout(&cluster, &around(&["a"])).err().unwrap();
    assert_eq!(error.what, "there may be 17 nodes, but 10.100.0.0/20 has ranges for the pods of 16");
    let error = refused("aws: {vpc: {cidr: 10.9.0.0/22}}", &["a", "b", "c"]);
    assert_eq!(error.what, "10.9.0.0/22 has no room for 3 zones");
    let mut cluster = of("");
    cluster.aws.vpc.cidr = "10.244.128.0/17".parse().unwrap();
    let error = layout(&cluster, &around(&["a"])).err().unwrap();
    assert_eq!(error.what, "network.pods 10.244.0.0/16 overlaps the VPC's range 10.244.128.0/17");
    cluster.aws.vpc.cidr = "10.0.0.0/16".parse().unwrap();
    let error = layout(&cluster, &around(&["a"])).err().unwrap();
    assert_eq!(error.what, "network.services 10.0.0.0/16 overlaps the VPC's range 10.0.0.0/16");
    let nobody = Surroundings { caller: None, ..around(&["a"]) };
    let error = layout(&of("aws: {access: {api: [203.0.113.0/24]}}"), &nobody).err().unwrap();
    assert_eq!(error.what, "nobody may reach ssh: this machine's address is not known");
    assert!(layout(&of("aws: {access: {api: [203.0.113.0/24], ssh: [203.0.113.0/24]}}"), &nobody).is_ok());
    let labels: Vec<String> = (0..200).map(|n| format!("example.com/label-number-{n}=true")).collect();
    cluster = of("");
    cluster.aws.groups = [("chatty".to_owned(), crate::cluster::aws::Group { labels, ..Default::default() })].into();
    let error = layout(&cluster, &around(&["a"])).err().unwrap();
    assert!(error.what.starts_with("the minions of the group chatty are told"), "{error}");
}

#[test]
fn machines_look_for_the_bucket_where_kup_does() {
    let (cluster, mut around) = (of(""), around(&["a"]));
    let group = &cluster.groups()[0];
    assert!(minion(&cluster, &around, group).bucket.starts_with("https://kup-"));
    around.s3_endpoint = Some("http://127.0.0.1:4566".into());
    assert!(minion(&cluster, &around, group).bucket.starts_with("http://127.0.0.1:4566/kup-"));
}
