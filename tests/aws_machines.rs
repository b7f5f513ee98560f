//! `kup up --provider aws` to a real cluster, on an emulated AWS whose instances are machines: masters set up over SSH, minions by
//! themselves. What is there is asked of the cluster's API and of the emulator.
//!
//! Needs root: the instances are containers on networks of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs, unreachable_pub)]

mod support;

#[path = "aws_machines/backups.rs"]
mod backups;
#[path = "aws_machines/bad_days.rs"]
mod bad_days;
#[path = "aws_machines/commands.rs"]
mod commands;
#[path = "aws_machines/pods.rs"]
mod pods;
#[path = "aws_machines/rules.rs"]
mod rules;
#[path = "aws_machines/world.rs"]
mod world;
#[path = "aws_machines/worst_days.rs"]
mod worst_days;
#[path = "aws_machines/writers.rs"]
mod writers;
#[path = "aws_machines/zones.rs"]
mod zones;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use support::api::{Api, text};
use support::{Check, eventually};
use world::World;

const NAME: &str = "kup-test-aws";
/// One master and minions over two zones.
const UP: [&str; 7] = ["up", "--provider", "aws", "-y", "--name", NAME, "--set=aws.zones=[us-west-2a,us-west-2b]"];

async fn up(world: &World, more: &[&str]) -> Check<Value> {
    let said = world.kup(&[&UP[..], &["-o", "json"], more].concat()).await?.ok("kup up")?;
    let last: Value = serde_json::from_str(said.lines().next_back().unwrap_or_default())?;
    Ok(last["result"].clone())
}

/// The Nodes by name, with whether each is Ready.
async fn nodes(api: &Api) -> Check<Vec<(String, bool, Value)>> {
    let list = api.get("/api/v1/nodes").await?;
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let nodes = list["items"].as_array().cloned().unwrap_or_default();
    Ok(nodes.into_iter().map(|node| (text(&node["metadata"]["name"]), ready(&node), node)).collect())
}

fn ids(instances: &[aws_sdk_ec2::types::Instance]) -> BTreeSet<String> {
    instances.iter().filter_map(|i| i.instance_id().map(str::to_owned)).collect()
}

/// Waits until the Nodes are those of the running instances, all of them Ready.
async fn nodes_are_the_instances(world: &World, api: &Api, count: usize) -> Check<BTreeSet<String>> {
    eventually("the Nodes are the running instances", async || {
        let mut wanted = ids(&world.instances("master").await?);
        wanted.extend(ids(&world.instances("minion").await?));
        let nodes = nodes(api).await?;
        let ready: BTreeSet<String> = nodes.iter().filter(|(_, ready, _)| *ready).map(|(name, ..)| name.clone()).collect();
        let all: BTreeSet<String> = nodes.into_iter().map(|(name, ..)| name).collect();
        if wanted.len() == count && all == wanted && ready == wanted {
            return Ok(Ok(wanted));
        }
        Ok(Err(format!("instances {wanted:?}, Nodes {all:?}, of which Ready {ready:?}")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_lives_on_aws() -> Check {
    let world = World::open().await?;
    let before = world.dump().await?;

    let made = up(&world, &["--minions", "2"]).await?;
    ensure!(made["changed"] == true && made["context"] == format!("aws_{NAME}"), "{made}");
    let api = world.api().await?;
    let first = nodes_are_the_instances(&world, &api, 3).await?;
    for (name, _, node) in nodes(&api).await? {
        let (provider, labels) = (text(&node["spec"]["providerID"]), &node["metadata"]["labels"]);
        let zone = text(&labels["topology.kubernetes.io/zone"]);
        ensure!(provider == format!("aws:///{zone}/{name}"), "{name}: provider ID {provider}, labels {labels}");
        ensure!(zone.starts_with(world::REGION), "{name} is in {zone:?}");
        ensure!(!text(&labels["node.kubernetes.io/instance-type"]).is_empty(), "{name}: {labels}");
    }
    let zones: BTreeSet<String> =
        nodes(&api).await?.iter().map(|(.., node)| text(&node["metadata"]["labels"]["topology.kubernetes.io/zone"])).collect();
    ensure!(zones.len() == 2, "all are in {zones:?}");

    // Again: nothing changes, and nothing is called that could.
    let again = up(&world, &["--minions", "2"]).await?;
    ensure!(again["changed"] == false, "a second up says {again}");
    ensure!(again["calls"]["mutating"] == 0, "a second up made calls: {again}");

    // A minion that is lost is replaced with nobody at a keyboard, and its Node goes; what was loaded is on the new one too.
    commands::loaded_images_are_on_all_nodes_and_on_those_that_come(&world, &api, NAME).await?;
    let second = nodes_are_the_instances(&world, &api, 3).await?;
    ensure!(first.difference(&second).count() == 1, "of {first:?} there are {second:?}");
    // Nor is anybody needed to say what it is for.
    eventually("each Node to have its role's label", async || {
        let role = |node: &Value| {
            let labels = &node["metadata"]["labels"];
            ["control-plane", "minion"].iter().any(|role| !labels[format!("node-role.kubernetes.io/{role}")].is_null())
        };
        let without: Vec<String> =
            nodes(&api).await?.into_iter().filter(|(.., node)| !role(node)).map(|(name, ..)| name).collect();
        Ok(if without.is_empty() { Ok(()) } else { Err(format!("{without:?} have none")) })
    })
    .await?;

    // What people run on it, and what has to be open for that.
    let pods = pods::Pods::start(&api, 2, 2).await?;
    pods.find_each_other(2).await?;
    pods.answer_the_world(2).await?;
    rules::each_is_needed(&world, &api, NAME).await?;
    rules::roles_read_no_keys(&world).await?;

    // More, though not at once, and fewer.
    bad_days::a_minion_finds_a_spoilt_file(&world, &api, NAME, &[&UP[..], &["--minions", "3"]].concat()).await?;
    nodes_are_the_instances(&world, &api, 4).await?;
    up(&world, &["--minions", "1"]).await?;
    nodes_are_the_instances(&world, &api, 2).await?;

    // What was there at the time of a backup comes back.
    backups::a_restore_brings_back_what_was_there(&world, &api, NAME).await?;

    // The master is lost, and more goes wrong: its address and its data stay.
    let kept = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kept" }, "data": { "a": "b" } });
    api.post("/api/v1/namespaces/default/configmaps", &kept).await?;
    let master = ids(&world.instances("master").await?).into_iter().next().ok_or("no master")?;
    let same = [&UP[..], &["--minions", "1"]].concat();
    bad_days::masters_come_and_go(&world, &same).await?;
    up(&world, &["--minions", "1"]).await?;
    let third = nodes_are_the_instances(&world, &api, 2).await?;
    ensure!(!third.contains(&master), "{master} is still there: {third:?}");
    let data = api.get("/api/v1/namespaces/default/configmaps/kept").await?["data"].clone();
    ensure!(data == json!({ "a": "b" }), "of the data there is {data}");
    bad_days::a_stranger_at_a_masters_address(&world, &same).await?;

    // The Service is still there, and so is its load balancer.
    world.kup(&["down", "--provider", "aws", "-y", "--name", NAME]).await?.ok("kup down")?;
    let after = world.dump().await?;
    ensure!(after == before, "down left something:\n{after:#}");
    eventually("no machine is left", async || {
        let left = world.containers().await?;
        Ok(if left.trim().is_empty() { Ok(()) } else { Err(left) })
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a second cluster for the first one's backup"]
async fn a_backup_makes_another_cluster_the_same() -> Check {
    let world = World::open().await?;
    let same = [&UP[..], &["--minions", "1"]].concat();
    world.kup(&same).await?.ok("kup up")?;
    let api = world.api().await?;
    commands::an_addon_is_turned_off_and_on(&world, &api, NAME, &same).await?;
    let backup = backups::a_restore_brings_back_what_was_there(&world, &api, NAME).await?;
    backups::a_backup_is_restored_onto_another_cluster(&world, NAME, &backup).await?;
    world.kup(&["down", "--provider", "aws", "-y", "--name", NAME]).await?.ok("kup down").map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: three masters and their minions over three zones, made, changed and lost"]
async fn zones_are_lost_and_outlived() -> Check {
    zones::are_lost_and_outlived(&World::open().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: three masters over three zones, each of whose machines is stopped or ended"]
async fn worst_days_are_outlived() -> Check {
    worst_days::are_outlived(&World::open().await?).await
}
