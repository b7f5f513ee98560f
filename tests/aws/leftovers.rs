//! What Kubernetes made while a cluster stood, clusters of one name in two regions, and locks whose holder is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification, VolumeType};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::story::{UP, difference, down, up};
use super::user::{Account, REGION};
use super::wire::Verdict;
use crate::ensure;
use crate::support::{Check, eventually};

/// The tag by which controllers of Kubernetes mark what they make.
fn owned(kind: ResourceType, name: &str) -> TagSpecification {
    let tag = Tag::builder().key(format!("kubernetes.io/cluster/{name}")).value("owned").build();
    TagSpecification::builder().resource_type(kind).tags(tag).build()
}

/// What a Service of type LoadBalancer and a claim leave: a balancer with its group, which the minions' group lets in, and a volume.
async fn made_by_kubernetes(account: &Account, name: &str) -> Check<String> {
    let ec2 = account.ec2().await;
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&account.sdk().await);
    let ours = || Filter::builder().name("tag:kup.dev/cluster").values(name).build();
    let subnets = ec2.describe_subnets().filters(ours()).send().await?;
    let subnet = subnets.subnets().first().ok_or("no subnet")?;
    let vpc = subnet.vpc_id().ok_or("no VPC")?;
    let group = ec2
        .create_security_group()
        .group_name("k8s-elb-a1b2c3")
        .description("made by the cloud controller")
        .vpc_id(vpc)
        .tag_specifications(owned(ResourceType::SecurityGroup, name))
        .send()
        .await?;
    let group = group.group_id().ok_or("no security group")?.to_owned();
    let groups = ec2.describe_security_groups().filters(ours()).send().await?;
    let minions = groups.security_groups().iter().find(|g| g.group_name().is_some_and(|n| n.contains("minion")));
    let minions = minions.and_then(|g| g.group_id()).ok_or("no group of minions")?;
    let from = aws_sdk_ec2::types::UserIdGroupPair::builder().group_id(&group).build();
    let all =
        aws_sdk_ec2::types::IpPermission::builder().ip_protocol("tcp").from_port(30000).to_port(32767).user_id_group_pairs(from);
    ec2.authorize_security_group_ingress().group_id(minions).ip_permissions(all.build()).send().await?;
    let tag =
        aws_sdk_elasticloadbalancingv2::types::Tag::builder().key(format!("kubernetes.io/cluster/{name}")).value("owned").build();
    let balancer = elb
        .create_load_balancer()
        .name("a1b2c3")
        .r#type(aws_sdk_elasticloadbalancingv2::types::LoadBalancerTypeEnum::Network)
        .subnets(subnet.subnet_id().unwrap_or_default())
        .tags(tag.clone())
        .send()
        .await?;
    ensure!(balancer.load_balancers().len() == 1, "no load balancer");
    elb.create_target_group()
        .name("k8s-web")
        .protocol(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Tcp)
        .port(30080)
        .vpc_id(vpc)
        .tags(tag)
        .send()
        .await?;
    let volume = ec2
        .create_volume()
        .availability_zone(subnet.availability_zone().unwrap_or_default())
        .size(5)
        .volume_type(VolumeType::Gp3)
        .tag_specifications(owned(ResourceType::Volume, name))
        .send()
        .await?;
    Ok(volume.volume_id().ok_or("no volume")?.to_owned())
}

pub async fn what_kubernetes_made_goes_too(account: Account) -> Check {
    let name = "served";
    let before = account.dump().await?;
    up(&account, name, &[]).await?.ok("kup up")?;
    let volume = made_by_kubernetes(&account, name).await?;
    // Data stays unless it is said that it goes, and is named.
    let said = down(&account, name).await?.ok("kup down")?;
    ensure!(said.contains(&volume), "it does not name the volume {volume} that it kept:\n{said}");
    let ec2 = account.ec2().await;
    let kept = ec2.describe_volumes().volume_ids(&volume).send().await?;
    ensure!(kept.volumes().len() == 1, "a claimed volume is gone");
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&account.sdk().await);
    let balancers = elb.describe_load_balancers().send().await?;
    ensure!(balancers.load_balancers().is_empty(), "a load balancer stayed: {balancers:?}");
    // It is all that is left of the cluster, which counts as none any more; `gc` knows it, and takes it only if told so.
    let clusters = account.kup(&["get", "clusters", "--provider", "aws", "-o", "json"]).await?.ok("kup get clusters")?;
    ensure!(!clusters.contains(name), "the cluster is still listed:\n{clusters}");
    let gc = account.kup(&["gc"]).await?.ok("kup gc")?;
    ensure!(gc.contains(&volume) && gc.contains("kept 1 volume of a claim, about $"), "gc does not tell of the volume:\n{gc}");
    let listed: Value = serde_json::from_str(&account.kup(&["gc", "-o", "json"]).await?.ok("kup gc -o json")?)?;
    ensure!(listed[0]["kept"][0]["id"] == volume.as_str() && listed[0]["things"] == serde_json::json!([]), "{listed:#}");
    account.kup(&["gc", "--delete", "-y"]).await?.ok("kup gc --delete")?;
    let kept = ec2.describe_volumes().volume_ids(&volume).send().await?;
    ensure!(kept.volumes().len() == 1, "gc removed a claimed volume without being told");
    account.kup(&["gc", "--delete", "-y", "--volumes", "delete"]).await?.ok("kup gc --delete --volumes delete")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    asked_on_a_terminal(&account, name, &before).await
}

/// Without `-y` and `--volumes` it is asked what becomes of claimed volumes, and then whether all the rest is to go.
async fn asked_on_a_terminal(account: &Account, name: &str, before: &Value) -> Check {
    let removal = ["down", "--provider", "aws", "--name", name];
    let ec2 = account.ec2().await;
    for (answers, code, stays) in [("y\nn\n", 130, true), ("n\ny\n", 0, true), ("y\ny\n", 0, false)] {
        let others = ec2.describe_volumes().send().await?.volumes().len();
        up(account, name, &[]).await?.ok("kup up")?;
        let volume = made_by_kubernetes(account, name).await?;
        let asked = account.on_terminal(&removal, answers).await?;
        ensure!(
            asked.code == Some(code) && asked.stdout.contains(&volume) && asked.stdout.contains("Delete that too? [y/N]"),
            "{answers:?}: {:?}\n{}",
            asked.code,
            asked.stdout
        );
        let there = ec2.describe_volumes().send().await?;
        let stayed = there.volumes().iter().any(|v| v.volume_id() == Some(&volume));
        ensure!(stayed == stays, "{answers:?}: the volume {} there:\n{}", if stayed { "is" } else { "is not" }, asked.stdout);
        if code != 0 {
            ensure!(there.volumes().len() > others + 1, "a no removed something:\n{}", asked.stdout);
            let all = [&removal[..], &["-y", "--volumes", "delete"]].concat();
            account.kup(&all).await?.ok("kup down --volumes delete")?;
        } else if stays {
            ec2.delete_volume().volume_id(&volume).send().await?;
        }
        let after = account.dump().await?;
        ensure!(after == *before, "{answers:?}: down left or took something:\n{}", difference(before, &after));
    }
    Ok(())
}

pub async fn gc_lists_and_removes_what_a_killed_up_left(account: Account) -> Check {
    let name = "begun";
    let before = account.dump().await?;
    account.wire.begin(|call| if call.name == "ec2:CreateSubnet" { Verdict::KillAfter } else { Verdict::Pass });
    let mut child = account.start_victim(&[&UP[..], &[name]].concat())?;
    child.wait().await?;
    account.wire.clear();
    let listed = account.kup(&["gc", "-o", "json"]).await?.ok("kup gc")?;
    let listed: Value = serde_json::from_str(&listed)?;
    let kinds: Vec<&str> = listed[0]["things"].as_array().into_iter().flatten().filter_map(|t| t["kind"].as_str()).collect();
    ensure!(listed[0]["cluster"] == name && ["bucket", "subnet", "vpc"].iter().all(|k| kinds.contains(k)), "{listed:#}");
    let refused = account.kup(&["gc", "--delete"]).await?;
    ensure!(refused.code != Some(0), "it did not ask:\n{}{}", refused.stdout, refused.stderr);
    account.kup(&["gc", "--delete", "-y"]).await?.ok("kup gc --delete")?;
    ensure!(!account.path(".ssh/kube_aws_rsa").exists(), "the private key that kup made stayed");
    let after = account.dump().await?;
    ensure!(after == before, "gc left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn one_name_in_two_regions_is_two_clusters(account: Account) -> Check {
    let name = "twin";
    let before = account.dump().await?;
    up(&account, name, &[]).await?.ok(&format!("kup up in {REGION}"))?;
    let one = account.dump().await?;
    let there = ["--region", "us-east-1"];
    account.kup(&[&UP[..], &[name], &there].concat()).await?.ok("kup up in us-east-1")?;
    let clusters = account.kup(&["get", "clusters", "--provider", "aws", "-o", "json"]).await?.ok("kup get clusters")?;
    ensure!(clusters.contains(name), "{clusters}");
    account.wire.clear();
    up(&account, name, &[]).await?.ok(&format!("kup up again in {REGION}"))?;
    ensure!(account.wire.sums().1 == 0, "the twin was taken for this one: {:#?}", account.wire.counts());
    account
        .kup(&[&["down", "--provider", "aws", "-y", "--name", name][..], &there].concat())
        .await?
        .ok("kup down in us-east-1")?;
    let after = account.dump().await?;
    ensure!(after == one, "the removal of one changed the other:\n{}", difference(&one, &after));
    down(&account, name).await?.ok(&format!("kup down in {REGION}"))?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn a_lock_is_broken_on_demand_only(account: Account) -> Check {
    let name = "locked";
    let before = account.dump().await?;
    // One on another machine, who will never come back.
    account.wire.begin(|call| if call.name == "ec2:CreateVpc" { Verdict::KillBefore } else { Verdict::Pass });
    let mut child = account.start_victim(&[&UP[..], &[name]].concat())?;
    child.wait().await?;
    account.wire.clear();
    account.lock_by_another_host(name).await?;
    let refused = down(&account, name).await?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("elsewhere") && refused.stderr.contains("--break-lock"),
        "{:?}\n{}{}",
        refused.code,
        refused.stdout,
        refused.stderr
    );
    let broken = account.kup(&["down", "--provider", "aws", "-y", "--break-lock", "--name", name]).await?;
    broken.ok("kup down --break-lock")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    one_that_stood_still_is_told_so(&account, name).await?;
    down(&account, name).await?.ok("kup down of what it made meanwhile")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// An `up` whose lock was broken while it stood still, and everything with it, says so once it goes on, whatever else fails by then.
async fn one_that_stood_still_is_told_so(account: &Account, name: &str) -> Check {
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = stopped.clone();
    account.wire.begin(move |call| match call.name == "ec2:CreateSubnet" && !seen.swap(true, Ordering::SeqCst) {
        true => Verdict::Freeze,
        false => Verdict::Pass,
    });
    let child = account.start_victim(&[&UP[..], &[name]].concat())?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).ok_or("no process")?;
    eventually("the first to stand still", async || {
        Ok(if stopped.load(Ordering::SeqCst) { Ok(()) } else { Err("no subnet yet".to_owned()) })
    })
    .await?;
    let broken = account.kup(&["down", "--provider", "aws", "-y", "--break-lock", "--name", name]).await;
    kill_process(pid, Signal::CONT)?;
    broken?.ok("kup down --break-lock while the other stands still")?;
    let first = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&first.stderr);
    ensure!(
        first.status.code() == Some(1) && said.contains(&format!("the lock of cluster {name} was taken away")),
        "it does not say that it lost its lock; {}:\n{said}",
        first.status
    );
    account.wire.clear();
    Ok(())
}
