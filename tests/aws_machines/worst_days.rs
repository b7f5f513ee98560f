//! The worst days of a cluster with three masters over three zones: its machines stopped and started one by one, ended one by one while
//! `up` runs, and a whole zone at once, while a pod inside and a user outside write and count what was acknowledged.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::support::api::text;
use crate::support::{Check, eventually};
use crate::world::World;
use crate::writers::{Writers, now};
use crate::{ensure, ids, nodes, nodes_are_the_instances};

pub const NAME: &str = "kup-test-worst";
const UP: [&str; 11] = [
    "up",
    "--provider",
    "aws",
    "-y",
    "--name",
    NAME,
    "--minions",
    "3",
    "--set=aws.zones=[us-west-2a,us-west-2b,us-west-2c]",
    "--set",
    "masters.count=3",
];
/// All that is here: masters and minions.
const ALL: usize = 6;

/// A cluster that is written to, and what is done to it.
struct Days<'a> {
    world: &'a World,
    writers: Writers<'a>,
    /// The minion on which one of the writers runs.
    spared: String,
}

/// A machine: its instance, by which its Node is called and its member of etcd, and its zone.
struct Standing {
    id: String,
    zone: String,
}

impl Days<'_> {
    /// Does something to the cluster, waits until it is well again, and says how long the API was away.
    async fn day(&self, what: &str, work: impl AsyncFnOnce() -> Check) -> Check {
        let (begun, then) = (Instant::now(), now());
        work().await.map_err(|e| format!("{what}: {e}"))?;
        self.well().await.map_err(|e| format!("after {what}: {e}"))?;
        let (inside, outside) = self.writers.away_since(then).await?;
        let written = self.writers.none_is_lost().await.map_err(|e| format!("after {what}: {e}"))?;
        let seconds = |millis: u64| f64::from(u32::try_from(millis).unwrap_or(u32::MAX)) / 1000.0;
        eprintln!("      {what}: none of {written} writes lost");
        eprintln!("      longest without a write: {:.1} s inside, {:.1} s outside", seconds(inside), seconds(outside));
        eprintln!("ok    worst_days::{what} ({:.1} s)", begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn status(&self) -> Check<Value> {
        let said = self.world.kup(&["status", "--provider", "aws", "--name", NAME, "-o", "json"]).await?;
        let value = said.stdout.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let value = value.or_else(|| serde_json::from_str(&said.stdout).ok());
        let value = value.ok_or_else(|| format!("kup status: {:?}\n{}{}", said.code, said.stdout, said.stderr))?;
        Ok(value.get("result").cloned().unwrap_or(value))
    }

    /// Waits until every instance has its Node, and each of three etcd members its vote.
    async fn well(&self) -> Check {
        nodes_are_the_instances(self.world, &self.world.api().await?, ALL).await?;
        eventually("three members of etcd that vote", async || {
            let status = self.status().await?;
            let members = status["etcd"]["members"].as_array().cloned().unwrap_or_default();
            let voting = members.iter().filter(|m| m["answers"] == true && m["learner"] != true).count();
            Ok(if voting == 3 && members.len() == 3 { Ok(()) } else { Err(status["etcd"].to_string()) })
        })
        .await
    }

    /// The master whose etcd leads.
    async fn leader(&self) -> Check<String> {
        eventually("etcd to have a leader", async || {
            let leader = text(&self.status().await?["etcd"]["leader"]);
            Ok(if leader.is_empty() { Err("none".to_owned()) } else { Ok(leader) })
        })
        .await
    }

    async fn standing(&self, role: &str) -> Check<Vec<Standing>> {
        let of = |instance: &aws_sdk_ec2::types::Instance| {
            let zone = instance.placement()?.availability_zone()?.to_owned();
            Some(Standing { id: instance.instance_id()?.to_owned(), zone })
        };
        Ok(self.world.instances(role).await?.iter().filter_map(of).collect())
    }

    /// Stops an instance, waits until it is, and starts it.
    async fn off_and_on(&self, id: &str) -> Check {
        let ec2 = self.world.ec2().await;
        ec2.stop_instances().instance_ids(id).send().await?;
        self.state(id, "stopped").await?;
        // Nobody needs it.
        self.writers.away_since(now()).await?;
        ec2.start_instances().instance_ids(id).send().await?;
        self.state(id, "running").await
    }

    async fn state(&self, id: &str, wanted: &str) -> Check {
        let ec2 = self.world.ec2().await;
        eventually(&format!("{id} to be {wanted}"), async || {
            let seen = ec2.describe_instances().instance_ids(id).send().await?;
            let state = seen.reservations().iter().flat_map(|r| r.instances()).find_map(|i| i.state()?.name().cloned());
            let state = state.map(|state| state.as_str().to_owned()).unwrap_or_default();
            Ok(if state == wanted { Ok(()) } else { Err(state) })
        })
        .await
    }

    async fn up(&self) -> Check {
        self.world.kup(&UP).await?.ok("kup up").map(drop)
    }

    /// A minion other than the one on which a writer runs.
    async fn minion(&self) -> Check<String> {
        let minions = ids(&self.world.instances("minion").await?);
        Ok(minions.into_iter().find(|id| *id != self.spared).ok_or("no other minion")?)
    }
}

pub async fn are_outlived(world: &World) -> Check {
    let before = world.dump().await?;
    world.kup(&UP).await?.ok("kup up")?;
    let api = world.api().await?;
    nodes_are_the_instances(world, &api, ALL).await?;
    let archive = world.kup(&["bundle", "path", "agnhost"]).await?.ok("kup bundle path")?;
    world.kup(&["image", "load", archive.trim(), "--provider", "aws", "--name", NAME]).await?.ok("kup image load")?;
    let zone = |node: &Value| text(&node["metadata"]["labels"]["topology.kubernetes.io/zone"]);
    let minions = ids(&world.instances("minion").await?);
    let there: Vec<(String, String)> = nodes(&api).await?.iter().map(|(name, _, node)| (name.clone(), zone(node))).collect();
    let (spared, safe) = there.iter().find(|(name, _)| minions.contains(name)).cloned().ok_or("no minion")?;
    let days = Days { world, writers: Writers::start(world, &api, &spared).await?, spared };

    let leader = days.leader().await?;
    days.day("the_leader_of_etcd_stopped_and_started", async || days.off_and_on(&leader).await).await?;
    let masters = days.standing("master").await?;
    for (n, master) in masters.iter().filter(|master| master.id != leader).enumerate() {
        days.day(&format!("another_master_stopped_and_started_{}", n + 1), async || days.off_and_on(&master.id).await).await?;
    }
    days.day("a_minion_ended", async || {
        let minion = days.minion().await?;
        days.world.terminate(&minion).await?;
        days.state(&minion, "terminated").await
    })
    .await?;

    let leader = days.leader().await?;
    days.day("the_leader_ended_for_good_and_a_minion_while_up_runs", async || {
        days.world.terminate(&leader).await?;
        let minion = days.minion().await?;
        let two = ids(&days.world.instances("master").await?);
        let (done, ended) = tokio::join!(days.up(), async {
            eventually("up to have made another master", async || {
                let now = ids(&days.world.instances("master").await?);
                Ok(if now.len() > two.len() { Ok(()) } else { Err(format!("{now:?}")) })
            })
            .await?;
            days.world.terminate(&minion).await
        });
        ended?;
        done
    })
    .await?;
    let zones: BTreeSet<String> = masters.iter().map(|master| master.zone.clone()).collect();
    let lost = zones.into_iter().rev().find(|zone| *zone != safe).ok_or("all are in one zone")?;
    days.day("a_whole_zone_ended", async || {
        let (masters, minions) = (days.standing("master").await?, days.standing("minion").await?);
        let all: Vec<String> = masters.into_iter().chain(minions).filter(|one| one.zone == lost).map(|one| one.id).collect();
        ensure!(all.len() >= 2, "in {lost} are {all:?}");
        for id in &all {
            days.world.terminate(id).await?;
        }
        days.up().await
    })
    .await?;
    let (first, rest) = (days.standing("master").await?, days.writers.none_is_lost().await?);
    ensure!(first.len() == 3 && rest > 0, "{} masters, {rest} writes", first.len());

    drop(days);
    world.kup(&["down", "--provider", "aws", "-y", "--name", NAME]).await?.ok("kup down")?;
    let after = world.dump().await?;
    ensure!(after == before, "down left something:\n{after:#}");
    Ok(())
}
