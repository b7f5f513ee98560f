//! Many at once: clusters beside each other in one account, and one cluster that everybody wants to make.

use futures::future::{join_all, try_join_all};

use super::story::{census, difference, down, up};
use super::user::Account;
use crate::ensure;
use crate::support::Check;

/// Clusters that are made at the same time.
const CLUSTERS: usize = 10;
/// Users who make the same one.
const USERS: usize = 50;

pub async fn ten_clusters_are_made_at_once(account: Account) -> Check {
    let account = &account;
    let before = account.dump().await?;
    let names: Vec<String> = (1..=CLUSTERS).map(|n| format!("crowd-{n}")).collect();
    let made =
        names.iter().map(|name| async move { up(account, name, &["--minions", "1"]).await?.ok(&format!("kup up of {name}")) });
    try_join_all(made).await?;
    let one = census(account, &names[0]).await?;
    ensure!(one["masters"] == 1 && one["minions"] == 1 && one["vpcs"] == 1, "{one:#}");
    for name in &names {
        let other = census(account, name).await?;
        ensure!(other == one, "{name} has {other:#}\nwhere {} has {one:#}", names[0]);
    }
    try_join_all(names.iter().map(|name| async move { down(account, name).await?.ok(&format!("kup down of {name}")) })).await?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn of_fifty_who_race_one_makes_the_cluster(account: Account) -> Check {
    let before = account.dump().await?;
    let name = "raced";
    let (mut made, mut there) = (0, 0);
    for output in join_all((0..USERS).map(|_| up(&account, name, &[]))).await {
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
