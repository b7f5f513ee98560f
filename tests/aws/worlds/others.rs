//! What others have in the account, much of it nearly the cluster's: tags that are its own but for a letter or a value, names that are its
//! own elsewhere. kup may neither mistake any of it for the cluster's nor touch it.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::LaunchTemplateSpecification;
use aws_sdk_ec2::types::{AttributeBooleanValue, RequestLaunchTemplateData, ResourceType, Tag, TagSpecification};
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::config::{There, ZONES};
use crate::foreign::network;
use crate::support::Check;
use crate::user::{ACCOUNT, Account, REGION};

/// A kind of what others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// A VPC with a subnet, an interface in it, and a security group that is called as the cluster's.
    Network,
    /// Roles, a user, a policy and a profile: on paths that nearly are the cluster's, and on none.
    Iam,
    /// Volumes with nearly the cluster's tags.
    Volumes,
    /// Buckets that are called nearly as the cluster's.
    Buckets,
    /// A key pair.
    KeyPair,
    /// A launch template, and a group of machines with two.
    Group,
    /// Elastic IPs.
    Addresses,
    /// A network load balancer, and a target group of another cluster's.
    Balancer,
    /// DHCP options.
    Options,
}

impl Other {
    /// Some of them.
    pub fn some() -> impl Strategy<Value = Vec<Other>> {
        use Other::{Addresses, Balancer, Buckets, Group, Iam, KeyPair, Network, Options, Volumes};
        subsequence(vec![Network, Iam, Volumes, Buckets, KeyPair, Group, Addresses, Balancer, Options], 2..=6)
    }

    /// Makes it, near to a cluster of this name.
    pub async fn make(self, account: &Account, name: &str) -> Check {
        match self {
            Other::Network => networks(account, name).await,
            Other::Iam => iam(account, name).await,
            Other::Volumes => volumes(account, name).await,
            Other::Buckets => buckets(account, name).await,
            Other::KeyPair => key_pair(account, name).await,
            Other::Group => group(account, name).await,
            Other::Addresses => addresses(account, name).await,
            Other::Balancer => balancer(account, name).await,
            Other::Options => options(account, name).await,
        }
    }
}

fn tagged(kind: ResourceType, tags: &[(&str, &str)]) -> TagSpecification {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build()
}

/// A VPC of the user's with a public subnet in each zone. Another cluster may have shared it, and the user may have tagged it already.
pub async fn shared_vpc(account: &Account, name: &str, tagged_before: bool) -> Check<There> {
    let ec2 = account.ec2().await;
    let key = format!("kubernetes.io/cluster/{name}");
    let mut tags =
        vec![("Name", "of the user"), ("kup.dev/shared/another", "tagged"), ("kubernetes.io/cluster/another", "shared")];
    if tagged_before {
        tags.push((&key, "shared"));
    }
    let (vpc, first) = network(&ec2, "10.32.0.0/16", "10.32.0.0/24", &tags).await?;
    let mut subnets = BTreeMap::from([(ZONES[0], first)]);
    for (n, zone) in ZONES.iter().enumerate().skip(1) {
        let (range, zone_name) = (format!("10.32.{n}.0/24"), format!("{REGION}{zone}"));
        let made = ec2.create_subnet().vpc_id(&vpc).cidr_block(range).availability_zone(zone_name).send().await?;
        subnets.insert(zone, made.subnet().and_then(|s| s.subnet_id()).ok_or("no subnet")?.to_owned());
    }
    Ok(There { vpc, subnets })
}

async fn networks(account: &Account, name: &str) -> Check {
    let ec2 = account.ec2().await;
    let too = format!("{name}-too");
    let tags = [("kup.dev/cluster", too.as_str()), ("KubernetesCluster", name), ("kup.dev/name", "main")];
    let (vpc, subnet) = network(&ec2, "10.33.0.0/16", "10.33.0.0/24", &tags).await?;
    let group = format!("kup-{}", kup::aws::client::unique(REGION, name, "master", 200));
    let shared = format!("kubernetes.io/cluster/{name}");
    let ask = ec2.create_security_group().group_name(group).description("somebody else's").vpc_id(&vpc);
    let made = ask.tag_specifications(tagged(ResourceType::SecurityGroup, &[(&shared, "shared")])).send().await?;
    let group = made.group_id().ok_or("no group")?;
    let ask = ec2.create_network_interface().subnet_id(subnet).groups(group).description("theirs");
    let tags = [("kup.dev/name", "master-1"), ("KUP.dev/cluster", name)];
    ask.tag_specifications(tagged(ResourceType::NetworkInterface, &tags)).send().await?;
    // One that has what AWS gives without being asked.
    let bare = ec2.create_vpc().cidr_block("172.20.0.0/16").send().await?;
    let bare = bare.vpc().and_then(|vpc| vpc.vpc_id()).ok_or("no VPC")?;
    let on = AttributeBooleanValue::builder().value(true).build();
    ec2.modify_vpc_attribute().vpc_id(bare).enable_dns_support(on).send().await?;
    Ok(())
}

const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

async fn iam(account: &Account, name: &str) -> Check {
    let iam = account.iam().await;
    let path = format!("/kup/{REGION}/{name}-too/");
    let places =
        [(path.as_str(), "too"), (&format!("/kup/us-east-1/{name}/"), "east"), ("/", "none"), (&format!("/kup/{name}/"), "near")];
    for (path, word) in places {
        let role = format!("{name}-master-{word}");
        iam.create_role().path(path).role_name(&role).assume_role_policy_document(TRUST).send().await?;
        iam.put_role_policy().role_name(&role).policy_name("kup").policy_document(crate::foreign::LOOKING).send().await?;
    }
    iam.create_user().path(&path).user_name(format!("{name}-theirs")).send().await?;
    iam.create_policy().path(&path).policy_name(format!("{name}-theirs")).policy_document(crate::foreign::LOOKING).send().await?;
    iam.create_instance_profile().path(&path).instance_profile_name(format!("{name}-theirs")).send().await?;
    Ok(())
}

async fn volumes(account: &Account, name: &str) -> Check {
    let ec2 = account.ec2().await;
    let (too, upper, shared) = (format!("{name}-too"), name.to_uppercase(), format!("kubernetes.io/cluster/{name}"));
    let owned = format!("{shared}-too");
    let near: [&[(&str, &str)]; 6] = [
        &[("kup.dev/cluster", &too), ("kup.dev/name", "etcd-1"), ("kup.dev/role", "etcd")],
        &[("kup.dev/cluster", &upper), ("kup.dev/name", "etcd-1")],
        &[("KUP.dev/Cluster", name), ("kup.dev/name", "etcd-1")],
        &[(&shared, "shared"), ("Name", "etcd-1")],
        &[("KubernetesCluster", name)],
        &[(&owned, "owned")],
    ];
    for tags in near {
        let ask = ec2.create_volume().availability_zone(format!("{REGION}a")).size(1);
        ask.tag_specifications(tagged(ResourceType::Volume, tags)).send().await?;
    }
    Ok(())
}

async fn buckets(account: &Account, name: &str) -> Check {
    let s3 = account.s3().await;
    let here = aws_sdk_s3::types::CreateBucketConfiguration::builder()
        .location_constraint(aws_sdk_s3::types::BucketLocationConstraint::from(REGION))
        .build();
    for bucket in [format!("kup-0123456789ab-{name}"), format!("kup-{name}"), format!("{}-too", bucket_of(name))] {
        s3.create_bucket().bucket(&bucket).create_bucket_configuration(here.clone()).send().await?;
        s3.put_object().bucket(&bucket).key("cluster.yaml").body(b"theirs".to_vec().into()).send().await?;
    }
    Ok(())
}

/// The cluster's bucket, as it is called in the emulated account.
fn bucket_of(name: &str) -> String {
    kup::aws::client::bucket(ACCOUNT, REGION, name)
}

async fn key_pair(account: &Account, name: &str) -> Check {
    let tags = [("kup.dev/cluster", format!("{name}-too")), ("kup.dev/name", "ssh".to_owned())];
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let ask = account.ec2().await.create_key_pair().key_name(format!("{name}-ssh"));
    ask.tag_specifications(tagged(ResourceType::KeyPair, &tags)).send().await?;
    Ok(())
}

async fn group(account: &Account, name: &str) -> Check {
    let ec2 = account.ec2().await;
    let (_, subnet) = network(&ec2, "10.34.0.0/16", "10.34.0.0/24", &[("Name", name)]).await?;
    let images = ec2.describe_images().owners("amazon").send().await?;
    let image =
        images.images().iter().find(|i| i.architecture().is_some_and(|a| a.as_str() == "x86_64")).and_then(|i| i.image_id());
    let data = RequestLaunchTemplateData::builder()
        .image_id(image.ok_or("no image")?)
        .instance_type(aws_sdk_ec2::types::InstanceType::T3Small)
        .build();
    let (template, too) = (format!("{name}-minions"), format!("{name}-too"));
    let tags = [("kup.dev/cluster", too.as_str()), ("kup.dev/name", "minions"), ("KubernetesCluster", name)];
    let ask = ec2.create_launch_template().launch_template_name(&template).launch_template_data(data);
    ask.tag_specifications(tagged(ResourceType::LaunchTemplate, &tags)).send().await?;
    let tag = |(key, value): (&str, &str)| {
        aws_sdk_autoscaling::types::Tag::builder().key(key).value(value).propagate_at_launch(true).resource_id(&template).build()
    };
    aws_sdk_autoscaling::Client::new(&account.sdk().await)
        .create_auto_scaling_group()
        .auto_scaling_group_name(&template)
        .launch_template(LaunchTemplateSpecification::builder().launch_template_name(&template).version("$Default").build())
        .min_size(2)
        .max_size(2)
        .vpc_zone_identifier(subnet)
        .set_tags(Some(tags.into_iter().map(tag).collect()))
        .send()
        .await?;
    Ok(())
}

async fn addresses(account: &Account, name: &str) -> Check {
    let ec2 = account.ec2().await;
    let (too, named) = (format!("{name}-too"), format!("{name}-master-1"));
    for tags in
        [&[("kup.dev/cluster", too.as_str()), ("kup.dev/name", "master-1")][..], &[("Name", &named), ("KubernetesCluster", name)]]
    {
        let ask = ec2.allocate_address().domain(aws_sdk_ec2::types::DomainType::Vpc);
        ask.tag_specifications(tagged(ResourceType::ElasticIp, tags)).send().await?;
    }
    Ok(())
}

async fn balancer(account: &Account, name: &str) -> Check {
    let ec2 = account.ec2().await;
    let (vpc, subnet) = network(&ec2, "10.35.0.0/16", "10.35.0.0/24", &[("Name", name)]).await?;
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&account.sdk().await);
    let tag = |key: String, value: &str| aws_sdk_elasticloadbalancingv2::types::Tag::builder().key(key).value(value).build();
    // A balancer's name may have 32 characters.
    let short: String = name.chars().take(20).collect();
    elb.create_load_balancer()
        .name(format!("{short}-api"))
        .r#type(aws_sdk_elasticloadbalancingv2::types::LoadBalancerTypeEnum::Network)
        .subnets(subnet)
        .tags(tag(format!("kubernetes.io/cluster/{name}-too"), "owned"))
        .send()
        .await?;
    elb.create_target_group()
        .name(format!("{short}-api"))
        .protocol(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Tcp)
        .port(6443)
        .vpc_id(vpc)
        .tags(tag(format!("kubernetes.io/cluster/{name}"), "shared"))
        .tags(tag("kup.dev/cluster".to_owned(), &format!("{name}-too")))
        .send()
        .await?;
    Ok(())
}

async fn options(account: &Account, name: &str) -> Check {
    let domain = aws_sdk_ec2::types::NewDhcpConfiguration::builder().key("domain-name").values("example.internal").build();
    let too = format!("{name}-too");
    let tags = [("kup.dev/cluster", too.as_str()), ("kup.dev/name", "main")];
    let ask = account.ec2().await.create_dhcp_options().dhcp_configurations(domain);
    ask.tag_specifications(tagged(ResourceType::DhcpOptions, &tags)).send().await?;
    Ok(())
}
