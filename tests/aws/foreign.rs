//! What others made in the account: near misses of kup's tags, a VPC of the user's, machines in the cluster's own network.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Tag, TagSpecification};

use super::story::{difference, down, up};
use super::user::{Account, REGION};
use crate::ensure;
use crate::support::Check;

fn tagged(kind: ResourceType, tags: &[(&str, &str)]) -> TagSpecification {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build()
}

/// A VPC with a public subnet, of the user's.
async fn network(ec2: &aws_sdk_ec2::Client, cidr: &str, subnet: &str, tags: &[(&str, &str)]) -> Check<(String, String)> {
    let vpc = ec2.create_vpc().cidr_block(cidr).tag_specifications(tagged(ResourceType::Vpc, tags)).send().await?;
    let vpc = vpc.vpc().and_then(|v| v.vpc_id()).ok_or("no VPC")?.to_owned();
    let on = AttributeBooleanValue::builder().value(true).build();
    ec2.modify_vpc_attribute().vpc_id(&vpc).enable_dns_hostnames(on).send().await?;
    let made = ec2.create_subnet().vpc_id(&vpc).cidr_block(subnet).availability_zone(format!("{REGION}a")).send().await?;
    let subnet = made.subnet().and_then(|s| s.subnet_id()).ok_or("no subnet")?.to_owned();
    let gateway = ec2.create_internet_gateway().send().await?;
    let gateway = gateway.internet_gateway().and_then(|g| g.internet_gateway_id()).ok_or("no gateway")?.to_owned();
    ec2.attach_internet_gateway().vpc_id(&vpc).internet_gateway_id(&gateway).send().await?;
    let tables = ec2
        .describe_route_tables()
        .filters(aws_sdk_ec2::types::Filter::builder().name("vpc-id").values(&vpc).build())
        .send()
        .await?;
    let table = tables.route_tables().first().and_then(|t| t.route_table_id()).ok_or("no route table")?;
    ec2.create_route().route_table_id(table).destination_cidr_block("0.0.0.0/0").gateway_id(&gateway).send().await?;
    Ok((vpc, subnet))
}

pub async fn what_others_made_stays(account: Account) -> Check {
    let name = "ours";
    let (ec2, iam) = (account.ec2().await, account.iam().await);
    // Near misses: another cluster whose name begins with ours, another tag's value, another path.
    network(&ec2, "10.1.0.0/16", "10.1.0.0/24", &[("kup.dev/cluster", "ours-too"), ("KubernetesCluster", "ours")]).await?;
    network(&ec2, "10.2.0.0/16", "10.2.0.0/24", &[("Name", "ours-main"), ("kup.dev/name", "main")]).await?;
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    iam.create_role()
        .path(format!("/kup/{REGION}/ours-too/"))
        .role_name("theirs")
        .assume_role_policy_document(trust)
        .send()
        .await?;
    iam.create_role().role_name("ours-master").assume_role_policy_document(trust).send().await?;
    ec2.create_volume()
        .availability_zone(format!("{REGION}a"))
        .size(1)
        .tag_specifications(tagged(ResourceType::Volume, &[("kup.dev/cluster", "Ours")]))
        .send()
        .await?;
    let before = account.dump().await?;
    up(&account, name, &[]).await?.ok("kup up")?;
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));

    // A machine of somebody else's inside of our network is named, untouched, and in the way.
    up(&account, name, &[]).await?.ok("kup up")?;
    let ours = aws_sdk_ec2::types::Filter::builder().name("tag:kup.dev/cluster").values(name).build();
    let subnets = ec2.describe_subnets().filters(ours).send().await?;
    let subnet = subnets.subnets().first().and_then(|s| s.subnet_id()).ok_or("no subnet")?;
    let theirs = ec2.create_network_interface().subnet_id(subnet).description("somebody else's").send().await?;
    let theirs = theirs.network_interface().and_then(|n| n.network_interface_id()).ok_or("no interface")?.to_owned();
    let refused = down(&account, name).await?;
    ensure!(refused.code == Some(1), "down says that all is gone: {:?}\n{}{}", refused.code, refused.stdout, refused.stderr);
    ensure!(refused.stderr.contains(&theirs), "it does not name {theirs}:\n{}", refused.stderr);
    let still = ec2.describe_network_interfaces().network_interface_ids(&theirs).send().await?;
    ensure!(still.network_interfaces().len() == 1, "somebody else's interface is gone");
    let masters = ec2
        .describe_instances()
        .filters(aws_sdk_ec2::types::Filter::builder().name("instance-state-name").values("running").build())
        .send()
        .await?;
    ensure!(masters.reservations().is_empty(), "the rest is not gone: {masters:?}");
    ec2.delete_network_interface().network_interface_id(&theirs).send().await?;
    down(&account, name).await?.ok("kup down once it is out of the way")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn a_name_that_is_taken_is_not_taken_over(account: Account) -> Check {
    let name = "taken";
    let iam = account.iam().await;
    up(&account, name, &[]).await?.ok("kup up")?;
    let roles = iam.list_roles().path_prefix(format!("/kup/{REGION}/{name}/")).send().await?;
    let role = roles.roles().first().ok_or("no role")?.role_name().to_owned();
    down(&account, name).await?.ok("kup down")?;
    // Somebody else has that name by now, elsewhere in IAM.
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    iam.create_role().path("/theirs/").role_name(&role).assume_role_policy_document(trust).send().await?;
    let before = account.dump().await?;
    let refused = up(&account, name, &[]).await?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains(&role) && refused.stderr.contains("left:"),
        "{:?}\n{}{}",
        refused.code,
        refused.stdout,
        refused.stderr
    );
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn an_existing_vpc_is_used_and_left_as_it_was(account: Account) -> Check {
    let name = "guest";
    let (vpc, subnet) = network(&account.ec2().await, "10.9.0.0/16", "10.9.1.0/24", &[("Name", "of the user")]).await?;
    let before = account.dump().await?;
    let (id, subnets) = (format!("aws.vpc.id={vpc}"), format!("aws.vpc.subnets=[{subnet}]"));
    let more = ["--set", &id, "--set", &subnets];
    up(&account, name, &more).await?.ok("kup up")?;
    let found = account.ec2().await.describe_vpcs().vpc_ids(&vpc).send().await?;
    let tags = found.vpcs().first().map(|v| v.tags().to_vec()).unwrap_or_default();
    let shared = tags.iter().any(|t| t.key() == Some(&format!("kubernetes.io/cluster/{name}")) && t.value() == Some("shared"));
    ensure!(shared, "the VPC is not tagged as shared: {tags:?}");
    account.wire.clear();
    up(&account, name, &more).await?.ok("kup up again")?;
    ensure!(account.wire.sums().1 == 0, "a second up made calls: {:#?}", account.wire.counts());
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}
