//! What others made in the account: near misses of kup's tags, a VPC of the user's or of another tool, machines in the cluster's own
//! network, and what people gave the cluster's user.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Tag, TagSpecification};

use super::story::{census, difference, down, up};
use super::user::{Account, REGION};
use crate::ensure;
use crate::support::Check;

fn tagged(kind: ResourceType, tags: &[(&str, &str)]) -> TagSpecification {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build()
}

/// A VPC with a public subnet, of the user's.
pub async fn network(ec2: &aws_sdk_ec2::Client, cidr: &str, subnet: &str, tags: &[(&str, &str)]) -> Check<(String, String)> {
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

    // What somebody else has put into our network is named, untouched, and in the way; all the rest goes.
    up(&account, name, &[]).await?.ok("kup up")?;
    let guests = Guests::come(&ec2, name).await?;
    let refused = down(&account, name).await?;
    ensure!(refused.code == Some(1), "down says that all is gone: {:?}\n{}{}", refused.code, refused.stdout, refused.stderr);
    for guest in [&guests.instance, &guests.interface, &guests.group] {
        ensure!(refused.stderr.contains(guest.as_str()), "it does not name {guest}:\n{}", refused.stderr);
    }
    guests.are_untouched(&ec2).await?;
    let left = census(&account, name).await?;
    let counts = left.as_object().ok_or("no census")?;
    let standing: BTreeSet<&str> = counts.iter().filter(|(_, count)| **count != 0).map(|(kind, _)| kind.as_str()).collect();
    ensure!(standing == BTreeSet::from(["subnets", "vpcs"]), "beside what the guests stand on there is {standing:?}: {left:#}");
    guests.leave(&ec2).await?;
    down(&account, name).await?.ok("kup down once they are out of the way")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// A machine, an interface and a security group of somebody else's in a cluster's own network, by their ids.
struct Guests {
    instance: String,
    interface: String,
    group: String,
}

impl Guests {
    async fn come(ec2: &aws_sdk_ec2::Client, name: &str) -> Check<Guests> {
        let ours = aws_sdk_ec2::types::Filter::builder().name("tag:kup.dev/cluster").values(name).build();
        let subnets = ec2.describe_subnets().filters(ours).send().await?;
        let subnet = subnets.subnets().first().ok_or("no subnet")?;
        let (vpc, subnet) = (subnet.vpc_id().ok_or("no VPC")?, subnet.subnet_id().ok_or("no subnet")?);
        let group = ec2.create_security_group().group_name("theirs").description("somebody else's").vpc_id(vpc).send().await?;
        let group = group.group_id().ok_or("no group")?.to_owned();
        let interface = ec2.create_network_interface().subnet_id(subnet).groups(&group).description("theirs").send().await?;
        let interface = interface.network_interface().and_then(|n| n.network_interface_id()).ok_or("no interface")?.to_owned();
        let images = ec2.describe_images().owners("amazon").send().await?;
        let instance = ec2
            .run_instances()
            .min_count(1)
            .max_count(1)
            .image_id(images.images().first().and_then(|image| image.image_id()).ok_or("no image")?)
            .instance_type(aws_sdk_ec2::types::InstanceType::T3Small)
            .subnet_id(subnet)
            .security_group_ids(&group)
            .send()
            .await?;
        let instance = instance.instances().first().and_then(|i| i.instance_id()).ok_or("no instance")?.to_owned();
        Ok(Guests { instance, interface, group })
    }

    async fn are_untouched(&self, ec2: &aws_sdk_ec2::Client) -> Check {
        let still = ec2.describe_network_interfaces().network_interface_ids(&self.interface).send().await?;
        ensure!(still.network_interfaces().len() == 1, "somebody else's interface is gone");
        let still = ec2.describe_security_groups().group_ids(&self.group).send().await?;
        ensure!(still.security_groups().len() == 1, "somebody else's group is gone");
        let running = aws_sdk_ec2::types::Filter::builder().name("instance-state-name").values("running").build();
        let running = ec2.describe_instances().filters(running).send().await?;
        let ids: Vec<&str> = running.reservations().iter().flat_map(|r| r.instances()).filter_map(|i| i.instance_id()).collect();
        ensure!(ids == [self.instance.as_str()], "somebody else's instance is {}; running: {ids:?}", self.instance);
        Ok(())
    }

    async fn leave(self, ec2: &aws_sdk_ec2::Client) -> Check {
        ec2.terminate_instances().instance_ids(&self.instance).send().await?;
        ec2.delete_network_interface().network_interface_id(&self.interface).send().await?;
        ec2.delete_security_group().group_id(&self.group).send().await?;
        Ok(())
    }
}

/// A policy that a person may have.
pub const LOOKING: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:Describe*","Resource":"*"}]}"#;

/// Gives the cluster's user by hand what people give: two access keys, a policy of theirs, and one of its own.
pub async fn help(iam: &aws_sdk_iam::Client, cluster: &str, policy: &str, document: &str) -> Check {
    let users = iam.list_users().path_prefix(format!("/kup/{REGION}/{cluster}/")).send().await?;
    let user = users.users().first().ok_or("no user")?.user_name().to_owned();
    for _ in 0..2 {
        iam.create_access_key().user_name(&user).send().await?;
    }
    iam.attach_user_policy().user_name(&user).policy_arn(policy).send().await?;
    iam.put_user_policy().user_name(&user).policy_name("by-hand").policy_document(document).send().await?;
    Ok(())
}

pub async fn what_people_gave_the_operator_goes_with_it(account: Account) -> Check {
    let name = "helped";
    let iam = account.iam().await;
    let document = LOOKING;
    let policy = iam.create_policy().policy_name("of-a-person").policy_document(document).send().await?;
    let policy = policy.policy().and_then(|p| p.arn()).ok_or("no policy")?.to_owned();
    let before = account.dump().await?;
    up(&account, name, &[]).await?.ok("kup up")?;
    help(&iam, name, &policy, document).await?;
    down(&account, name).await?.ok("kup down")?;
    // The policy itself is the person's, and stays.
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// A network that carries the tags of a cluster of this name, but not kup's own, is another tool's: nothing is put beside it.
async fn a_network_of_another_tool_is_left_alone(account: &Account, name: &str) -> Check {
    let ec2 = account.ec2().await;
    let kubernetes = format!("kubernetes.io/cluster/{name}");
    for tag in [("KubernetesCluster", name), (kubernetes.as_str(), "owned")] {
        let vpc = ec2.create_vpc().cidr_block("10.3.0.0/16").tag_specifications(tagged(ResourceType::Vpc, &[tag])).send().await?;
        let vpc = vpc.vpc().and_then(|v| v.vpc_id()).ok_or("no VPC")?.to_owned();
        let before = account.dump().await?;
        account.wire.clear();
        let refused = up(account, name, &[]).await?;
        ensure!(
            refused.code == Some(2) && refused.stderr.contains(&vpc) && refused.stderr.contains("kup did not make it"),
            "with {tag:?}: {:?}\n{}{}",
            refused.code,
            refused.stdout,
            refused.stderr
        );
        ensure!(account.wire.sums().1 == 0, "before it was refused it called {:#?}", account.wire.counts());
        let after = account.dump().await?;
        ensure!(after == before, "what was refused made something:\n{}", difference(&before, &after));
        ec2.delete_vpc().vpc_id(&vpc).send().await?;
    }
    Ok(())
}

pub async fn a_name_that_is_taken_is_not_taken_over(account: Account) -> Check {
    let name = "taken";
    a_network_of_another_tool_is_left_alone(&account, name).await?;
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
