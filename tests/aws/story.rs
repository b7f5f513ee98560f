//! The life of a cluster's resources: made, found complete, changed, interrupted, removed.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::Filter;
use serde_json::Value;

use super::user::{ACCOUNT, Account, Backend};
use super::wire::Verdict;
use crate::ensure;
use crate::support::Check;
use crate::support::cluster::Output;

/// What every `up` of these tests says besides.
pub const UP: [&str; 7] = ["up", "--provider", "aws", "--until", "infrastructure", "-y", "--name"];

/// `kup up` to the end of the resources.
pub async fn up(account: &Account, name: &str, more: &[&str]) -> Check<Output> {
    account.kup(&[&UP[..], &[name], more].concat()).await
}

/// `kup down`.
pub async fn down(account: &Account, name: &str) -> Check<Output> {
    account.kup(&["down", "--provider", "aws", "-y", "--name", name]).await
}

/// The parts of two dumps that differ, for messages.
pub fn difference(before: &Value, after: &Value) -> String {
    let lines = |value: &Value| -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        flatten(value, String::new(), &mut all);
        all
    };
    let (before, after) = (lines(before), lines(after));
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let new = after.difference(&before).map(|line| format!("+ {line}"));
    gone.chain(new).take(60).collect::<Vec<_>>().join("\n")
}

pub fn flatten(value: &Value, at: String, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(value, format!("{at}.{key}"), into)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| flatten(value, format!("{at}[{i}]"), into)),
        leaf => {
            into.insert(format!("{at} = {leaf}"));
        }
    }
}

/// What the emulator has of a cluster, told without kup: kinds with counts.
pub async fn census(account: &Account, name: &str) -> Check<Value> {
    let (ec2, iam, sdk) = (account.ec2().await, account.iam().await, account.sdk().await);
    let ours = || Filter::builder().name("tag:kup.dev/cluster").values(name).build();
    // As AWS may, the strict emulator gives each list in pages.
    macro_rules! count {
        ($list:ident) => {
            ec2.$list().filters(ours()).into_paginator().items().send().try_collect().await?.len()
        };
    }
    let instances = ec2.describe_instances().filters(ours()).into_paginator().items().send().try_collect().await?;
    let running = instances.iter().flat_map(|r| r.instances()).filter(|i| {
        let state = i.state().and_then(|s| s.name()).map(|s| s.as_str().to_owned()).unwrap_or_default();
        state == "running" || state == "pending"
    });
    let role = |i: &aws_sdk_ec2::types::Instance, word: &str| {
        i.tags().iter().any(|t| t.key() == Some("kup.dev/role") && t.value() == Some(word))
    };
    let (masters, minions): (Vec<_>, Vec<_>) = running.partition(|i| role(i, "master"));
    let path = format!("/kup/us-west-2/{name}/");
    let groups = aws_sdk_autoscaling::Client::new(&sdk).describe_auto_scaling_groups().into_paginator().items();
    let groups = groups.send().try_collect().await?;
    let is_ours =
        |tag: &aws_sdk_autoscaling::types::TagDescription| tag.key() == Some("kup.dev/cluster") && tag.value() == Some(name);
    Ok(serde_json::json!({
        "vpcs": count!(describe_vpcs),
        "subnets": count!(describe_subnets),
        "groups": count!(describe_security_groups),
        "volumes": count!(describe_volumes),
        "interfaces": count!(describe_network_interfaces),
        "addresses": ec2.describe_addresses().filters(ours()).send().await?.addresses().len(),
        "masters": masters.len(),
        "minions": minions.len(),
        "roles": iam.list_roles().path_prefix(&path).send().await?.roles().len(),
        "users": iam.list_users().path_prefix(&path).send().await?.users().len(),
        "scaling groups": groups.iter().filter(|group| group.tags().iter().any(is_ours)).count(),
    }))
}

/// Whoever names no provider means what is here. What is only on AWS is meant where nothing is removed, and else named.
async fn without_a_provider(account: &Account, name: &str) -> Check {
    let nodes = account.kup(&["get", "nodes", "--name", name]).await?;
    ensure!(nodes.code == Some(0) && nodes.stdout.contains("\nmaster-1 "), "{}{}", nodes.stdout, nodes.stderr);
    let refused = account.kup(&["down", "--name", name, "-y"]).await?;
    let command = format!("`kup down --provider aws --region us-west-2 --name {name} -y`");
    ensure!(refused.code == Some(2) && refused.stderr.contains(&command), "{:?}\n{}", refused.code, refused.stderr);
    // Without a terminal to ask on, what would be removed is told first.
    let asked = account.kup(&["down", "--provider", "aws", "--name", name]).await?;
    let command = format!("`kup down --region us-west-2 --provider aws --name {name} -y`");
    ensure!(asked.code == Some(2) && asked.stderr.contains(&format!("add -y to say yes: {command}")), "{}", asked.stderr);
    ensure!(["vpc ", "elastic ip ", "auto scaling group "].iter().all(|kind| asked.stdout.contains(kind)), "{}", asked.stdout);
    let unknown = account.kup(&["plan", "--provider", "aws", "--name", name, "--replace", "mastre-1"]).await?;
    ensure!(unknown.stderr.contains("did you mean master-1?") && unknown.stderr.lines().count() < 9, "{}", unknown.stderr);
    Ok(())
}

pub async fn a_cluster_is_built_changed_and_removed(account: Account) -> Check {
    let name = "life";
    let before = account.dump().await?;

    let planned = account.kup(&["plan", "--provider", "aws", "--name", name, "-o", "json"]).await?.ok("kup plan")?;
    let planned: Value = serde_json::from_str(&planned)?;
    ensure!(account.dump().await? == before, "a plan changed something:\n{}", difference(&before, &account.dump().await?));

    account.wire.clear();
    up(&account, name, &[]).await?.ok("kup up")?;
    let (total, mutating) = account.wire.sums();
    ensure!(mutating <= 45 && total <= 90, "{mutating} mutating of {total} calls:\n{:#?}", account.wire.counts());
    let made = census(&account, name).await?;
    let expected = serde_json::json!({
        "vpcs": 1, "subnets": 1, "groups": 2, "volumes": made["volumes"], "interfaces": made["interfaces"], "addresses": 1,
        "masters": 1, "minions": 4, "roles": 2, "users": 1, "scaling groups": 1,
    });
    ensure!(made == expected, "made {made:#}\nplanned {planned:#}");

    // Again: nothing is wanted, nothing is called that could change anything.
    account.wire.clear();
    let again = up(&account, name, &[]).await?.ok("kup up again")?;
    let (total, mutating) = account.wire.sums();
    ensure!(mutating == 0, "a second up made calls: {:#?}\n{again}", account.wire.counts());
    ensure!(total <= 30, "a second up made {total} calls: {:#?}", account.wire.counts());
    let pending = account.kup(&["plan", "--provider", "aws", "--name", name, "--detailed-exitcode"]).await?;
    ensure!(pending.code == Some(0), "a second plan is not empty:\n{}{}", pending.stdout, pending.stderr);

    without_a_provider(&account, name).await?;

    // A change is an update of what it concerns, and nothing else.
    let change = ["--minions", "2", "--set", "aws.access.ssh=[203.0.113.0/24]"];
    let pending =
        account.kup(&[&["plan", "--provider", "aws", "--name", name, "--detailed-exitcode"], &change[..]].concat()).await?;
    ensure!(pending.code == Some(3), "the change is not planned:\n{}{}", pending.stdout, pending.stderr);
    account.wire.clear();
    up(&account, name, &change).await?.ok("kup up with a change")?;
    let counts = account.wire.counts();
    ensure!(!counts.keys().any(|call| call.contains(":Create") && !call.contains("Tags")), "a change made things: {counts:#?}");
    let rules = account.ec2().await.describe_security_group_rules().send().await?;
    let ssh: Vec<&str> =
        rules.security_group_rules().iter().filter(|r| r.from_port() == Some(22)).filter_map(|r| r.cidr_ipv4()).collect();
    ensure!(!ssh.is_empty() && ssh.iter().all(|cidr| *cidr == "203.0.113.0/24"), "SSH is open to {ssh:?}");
    account.wire.clear();
    up(&account, name, &change).await?.ok("kup up after the change")?;
    ensure!(account.wire.sums().1 == 0, "the change is not at its end: {:#?}", account.wire.counts());

    // What can't change in place says so, and nothing happens.
    let refused = up(&account, name, &["--set", "aws.vpc.cidr=172.21.0.0/16"]).await?;
    ensure!(refused.code == Some(2) && refused.stderr.contains("172.20.0.0/16"), "{:?}\n{}", refused.code, refused.stderr);

    account.wire.clear();
    let said = down(&account, name).await?.ok("kup down")?;
    ensure!(said.contains("is left"), "{said}");
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    ensure!(!account.path("state/kup/aws").join(name).exists(), "this machine still knows of the cluster");
    down(&account, name).await?.ok("kup down of nothing")?;
    Ok(())
}

pub async fn interrupted_it_says_what_stands_and_goes_on(account: Account) -> Check {
    let name = "stopped";
    let before = account.dump().await?;
    up(&account, name, &[]).await?.ok("kup up")?;
    let whole = census(&account, name).await?;
    down(&account, name).await?.ok("kup down")?;
    // Where much stands, and no master does yet.
    account.wire.begin(|call| if call.name == "ec2:AssociateAddress" { Verdict::Interrupt } else { Verdict::Pass });
    let child = account.start_victim(&[&UP[..], &[name]].concat())?;
    let stopped = child.wait_with_output().await?;
    account.wire.clear();
    let said = String::from_utf8_lossy(&stopped.stderr);
    ensure!(stopped.status.code() == Some(130), "Ctrl-C ended it with {}:\n{said}", stopped.status);
    let left = format!("resources of cluster stopped in {ACCOUNT}/us-west-2, about $");
    let words = ["interrupted", "left: ", &left, "goes on from here"];
    let words = [&words[..], &["kup up --provider aws --region us-west-2 --name stopped", "kup down --provider aws"]].concat();
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(**word)).collect();
    ensure!(missing.is_empty(), "it does not say {missing:?}:\n{said}");
    let now = census(&account, name).await?;
    ensure!(now["vpcs"] == 1 && now["masters"] == 0, "it was not in the middle of it: {now:#}");
    // The lock was given back, so that nobody else has to wait for its end either.
    let lock = account.lock(name).await?;
    ensure!(lock["holder"].is_null(), "the lock is still held: {lock:#}");
    up(&account, name, &[]).await?.ok("kup up after Ctrl-C")?;
    let now = census(&account, name).await?;
    ensure!(now == whole, "after Ctrl-C and another up: {now:#}\ninstead of {whole:#}");
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn of_two_at_once_the_second_is_refused(account: Account) -> Check {
    let name = "twice";
    let before = account.dump().await?;
    // The first is held where it makes the VPC, for as long as the second needs to be refused.
    let gate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = gate.clone();
    account.wire.begin(move |call| {
        if call.name == "ec2:CreateVpc" && !seen.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Verdict::Refuse(503, "RequestLimitExceeded", "Request limit exceeded.");
        }
        Verdict::Pass
    });
    let first = account
        .command(&[&UP[..], &[name]].concat())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = first.id().unwrap_or_default();
    crate::support::eventually("the first to be at work", async || {
        Ok(if gate.load(std::sync::atomic::Ordering::SeqCst) { Ok(()) } else { Err("no VPC yet".to_owned()) })
    })
    .await?;
    let stopped = rustix::process::Pid::from_raw(i32::try_from(pid)?).ok_or("no process")?;
    rustix::process::kill_process(stopped, rustix::process::Signal::STOP)?;
    let second = up(&account, name, &[]).await;
    // What stands forbids this one, but that may be otherwise in a moment.
    let another = up(&account, name, &["--set=network.pods=10.200.0.0/16"]).await;
    let removal = down(&account, name).await;
    rustix::process::kill_process(stopped, rustix::process::Signal::CONT)?;
    let (second, another, removal) = (second?, another?, removal?);
    for refused in [&second, &another, &removal] {
        ensure!(
            refused.code == Some(1),
            "a second one was not refused: {:?}\n{}{}",
            refused.code,
            refused.stdout,
            refused.stderr
        );
        ensure!(refused.stderr.contains(&pid.to_string()), "it does not name the first, process {pid}:\n{}", refused.stderr);
    }
    ensure!(another.stderr.contains("network.pods"), "it does not say what can't change:\n{}", another.stderr);
    let first = first.wait_with_output().await?;
    ensure!(first.status.success(), "the first failed:\n{}", String::from_utf8_lossy(&first.stderr));
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn three_masters_over_three_zones(account: Account) -> Check {
    let name = "three";
    let before = account.dump().await?;
    let more = ["--masters", "3", "--set", "aws.zones=[us-west-2a, us-west-2b, us-west-2c]"];
    up(&account, name, &more).await?.ok("kup up")?;
    let made = census(&account, name).await?;
    ensure!(made["subnets"] == 3 && made["masters"] == 3 && made["groups"] == 3, "{made:#}");
    let instances = account
        .ec2()
        .await
        .describe_instances()
        .filters(Filter::builder().name("tag:kup.dev/role").values("master").build())
        .send()
        .await?;
    // The zone is the subnet's: what emulators show as the instance's own is always the first.
    let subnets: BTreeSet<String> = instances
        .reservations()
        .iter()
        .flat_map(|r| r.instances())
        .filter_map(|i| i.network_interfaces().first()?.subnet_id().map(str::to_owned))
        .collect();
    ensure!(subnets.len() == 3, "masters are in {subnets:?}");
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&account.sdk().await);
    let balancers = elb.describe_load_balancers().send().await?;
    ensure!(balancers.load_balancers().len() == 1, "{balancers:?}");
    account.wire.clear();
    up(&account, name, &more).await?.ok("kup up again")?;
    ensure!(account.wire.sums().1 == 0, "a second up made calls: {:#?}", account.wire.counts());
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    ensure!(account.backend == Backend::Moto || !account.wire.calls().is_empty(), "the line saw nothing");
    Ok(())
}
