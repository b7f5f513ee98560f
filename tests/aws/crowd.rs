//! Many at once: clusters beside each other in one account, and one cluster that everybody wants to make.

use std::collections::BTreeMap;

use futures::future::{join_all, try_join_all};
use serde_json::Value;

use super::story::{census, difference, down, up};
use super::user::{ADDRESSES, Account, VPCS};
use crate::ensure;
use crate::support::cluster::Output;
use crate::support::{Check, eventually};

/// Clusters that are made at the same time.
const CLUSTERS: usize = 10;
/// Launches that are too many at once.
const TAKEN: usize = 5;
/// Users who make the same one.
const USERS: usize = 50;

pub async fn ten_clusters_are_made_at_once(account: Account) -> Check {
    ten(&account).await.map(drop)
}

/// The same where AWS gives each of them a part of what calls it takes: all go through, and whoever has to wait for a call is not told that
/// AWS has no machines.
pub async fn ten_clusters_under_the_token_buckets() -> Check {
    let account = Account::strict(0.05).await?;
    // One VPC is the account's own.
    account.raise(&[(VPCS, 11), (ADDRESSES, 10)]).await?;
    // Somebody else has just launched as many as one may: how busy this machine is decides how many of the ten meet at the bucket.
    let order = serde_json::json!({ "service": "ec2", "action": "RunInstances", "what": "throttle", "times": TAKEN });
    account.order(&order).await?;
    let said = ten(&account).await?;
    let mut throttled: BTreeMap<String, usize> = BTreeMap::new();
    for call in account.journal().await?.iter().filter(|call| !call["fault"].is_null()) {
        let word = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
        ensure!(["RequestLimitExceeded", "Throttling"].contains(&word("code").as_str()), "throttled with another code: {call:#}");
        *throttled.entry(format!("{}:{}", word("service"), word("action"))).or_default() += 1;
    }
    eprintln!("throttled: {throttled:?}");
    ensure!(
        throttled.get("ec2:RunInstances").is_some_and(|n| *n >= TAKEN),
        "ten launches at once were not too many: {throttled:?}"
    );
    for output in said {
        let said = format!("{}{}", output.stdout, output.stderr);
        let word =
            ["InsufficientInstanceCapacity", "otherTypes", "AWS had no", "Capacity"].into_iter().find(|word| said.contains(word));
        ensure!(word.is_none(), "it speaks of {word:?} where there was enough of everything:\n{said}");
    }
    Ok(())
}

/// Makes them at once and removes them, and looks whether any has to do with another: they share the login key, which goes with the last.
/// Gives what the makers said.
async fn ten(account: &Account) -> Check<Vec<Output>> {
    let before = account.dump().await?;
    let names: Vec<String> = (1..=CLUSTERS).map(|n| format!("crowd-{n}")).collect();
    let made = names.iter().map(|name| up(account, name, &["--minions", "1"]));
    let said: Vec<Output> = try_join_all(made).await?;
    for (name, output) in names.iter().zip(&said) {
        ensure!(output.code == Some(0), "kup up of {name}: {:?}\n{}{}", output.code, output.stdout, output.stderr);
    }
    let one = stands(account, &names[0]).await?;
    ensure!(one["masters"] == 1 && one["vpcs"] == 1, "{one:#}");
    for name in &names {
        let other = stands(account, name).await?;
        ensure!(other == one, "{name} has {other:#}\nwhere {} has {one:#}", names[0]);
    }
    let key = account.path(".ssh/kube_aws_rsa");
    let (first, rest) = names.split_first().ok_or("no clusters")?;
    down(account, first).await?.ok(&format!("kup down of {first}"))?;
    ensure!(key.exists(), "the login key went with the first of {CLUSTERS} clusters");
    for name in rest {
        let other = stands(account, name).await?;
        ensure!(other == one, "without {first}, {name} has {other:#}\nwhere it had {one:#}");
    }
    try_join_all(rest.iter().map(|name| async move { down(account, name).await?.ok(&format!("kup down of {name}")) })).await?;
    ensure!(!key.exists(), "the login key stays when all clusters are gone");
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(said)
}

/// What a cluster has, once its group has launched what it is to.
async fn stands(account: &Account, name: &str) -> Check<Value> {
    eventually(&format!("the minion of {name}"), async || {
        let census = census(account, name).await?;
        Ok(if census["minions"] == 1 { Ok(census) } else { Err(format!("{census:#}")) })
    })
    .await
}

pub async fn of_fifty_who_race_one_makes_the_cluster(account: Account) -> Check {
    let before = account.dump().await?;
    let name = "raced";
    let (mut made, mut there) = (0, 0);
    for output in join_all((0..USERS).map(|_| patiently(&account, name))).await {
        let output = output?;
        match output.code {
            // Who comes late finds it made.
            Some(0) if output.stdout.contains("As before, everything that cluster raced needs") => there += 1,
            Some(0) => made += 1,
            Some(1) if output.stderr.contains("kup up") && output.stderr.contains("process ") => {}
            code => return Err(format!("one ended with {code:?}:\n{}{}", output.stdout, output.stderr).into()),
        }
    }
    ensure!(made == 1, "{made} of {USERS} made the cluster, {there} found it made");
    let census = census(&account, name).await?;
    ensure!(census["vpcs"] == 1 && census["masters"] == 1 && census["minions"] == 4, "{census:#}");
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// As `up`, by somebody who tries again while that is what he is told: fifty at once are more than a small machine answers in the time that
/// kup gives AWS for a question.
async fn patiently(account: &Account, name: &str) -> Check<Output> {
    let mut output = up(account, name, &[]).await?;
    for _ in 0..5 {
        if output.code != Some(1) || !output.stderr.contains("AWS did not say within") {
            break;
        }
        output = up(account, name, &[]).await?;
    }
    Ok(output)
}
