//! A cluster that grows up: from one master to three over three zones, its minions made anew while it works, and a zone that is lost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::ensure;
use crate::rules;
use crate::support::api::text;
use crate::support::{Check, eventually};
use crate::world::World;
use crate::{ids, nodes, nodes_are_the_instances};

pub const NAME: &str = "kup-test-zones";
const UP: [&str; 7] = ["up", "--provider", "aws", "-y", "--name", NAME, "--set=aws.zones=[us-west-2a,us-west-2b,us-west-2c]"];
/// The zone that is lost.
const LOST: &str = "us-west-2c";

/// The zone of a Node.
fn zone(node: &serde_json::Value) -> String {
    text(&node["metadata"]["labels"]["topology.kubernetes.io/zone"])
}

pub async fn are_lost_and_outlived(world: &World) -> Check {
    let before = world.dump().await?;
    let up = async |more: &[&str]| world.kup(&[&UP[..], more].concat()).await?.ok("kup up").map(drop);
    up(&["--minions", "3"]).await?;
    let api = world.api().await?;
    nodes_are_the_instances(world, &api, 4).await?;
    let kept = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kept" }, "data": { "a": "b" } });
    api.post("/api/v1/namespaces/default/configmaps", &kept).await?;

    // One master raised to three: by another name from then on, that of their load balancer.
    let three = ["--minions", "3", "--set", "masters.count=3"];
    up(&three).await?;
    let api = world.api().await?;
    nodes_are_the_instances(world, &api, 6).await?;
    let data = async || {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            api.get("/api/v1/namespaces/default/configmaps/kept").await?["data"].clone(),
        )
    };
    ensure!(data().await? == json!({ "a": "b" }), "of the data there is {}", data().await?);
    let tried = rules::each_is_needed(world, &api, NAME).await?;
    ensure!(tried >= 16, "only {tried} rules could be tried");

    // Another type: new ones of it, one at a time.
    let bigger = [&three[..], &["--set", "aws.minions.type=t3.medium"]].concat();
    let old = ids(&world.instances("minion").await?);
    up(&bigger).await?;
    ensure!(ids(&world.instances("minion").await?) == old, "minions were made anew although nobody asked for it");
    let fewest = AtomicUsize::new(usize::MAX);
    let watch = async {
        loop {
            let ready = nodes(&api).await.map(|all| all.iter().filter(|(_, ready, _)| *ready).count());
            fewest.fetch_min(ready.unwrap_or(usize::MAX), Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    let anew = [&bigger[..], &["--replace", "minions"]].concat();
    tokio::select! {
        done = up(&anew) => done?,
        () = watch => {}
    }
    ensure!(fewest.load(Ordering::Relaxed) == 5, "of six nodes, {} were Ready at the worst", fewest.load(Ordering::Relaxed));
    nodes_are_the_instances(world, &api, 6).await?;
    let now = world.instances("minion").await?;
    let types: BTreeSet<String> = now.iter().filter_map(|i| Some(i.instance_type()?.as_str().to_owned())).collect();
    ensure!(ids(&now).is_disjoint(&old) && types == BTreeSet::from(["t3.medium".to_owned()]), "the minions are {types:?}");

    // A group more, and one less.
    let config = |minions: &str| {
        let zones = "zones: [us-west-2a, us-west-2b, us-west-2c]";
        format!("apiVersion: kup.dev/v1alpha1\nkind: Cluster\nmasters: {{ count: 3 }}\naws:\n  {zones}\n{minions}")
    };
    let groups = "  groups:\n    minions: { types: [t3.medium], count: 3 }\n    extra: { types: [t3.small], count: 1, labels: [tier=extra] }\n";
    let groups = world.write("groups.yaml", &config(groups))?;
    let without = world.write("without.yaml", &config("  minions: { type: t3.medium }\nminions: { count: 3 }\n"))?;
    let without = ["-f", without.as_str()];
    up(&["-f", &groups]).await?;
    nodes_are_the_instances(world, &api, 7).await?;
    let extra = |(.., node): &(String, bool, serde_json::Value)| text(&node["metadata"]["labels"]["tier"]) == "extra";
    ensure!(nodes(&api).await?.iter().filter(|node| extra(node)).count() == 1, "no node has the new group's label");
    up(&without).await?;
    nodes_are_the_instances(world, &api, 6).await?;
    ensure!(!nodes(&api).await?.iter().any(extra), "the group's node is still there");

    // A zone with all that is in it.
    let lost: BTreeSet<String> =
        nodes(&api).await?.into_iter().filter(|(.., n)| zone(n) == LOST).map(|(name, ..)| name).collect();
    // How a group spreads its machines is its own business; of masters one is in each zone.
    let masters = ids(&world.instances("master").await?);
    ensure!(lost.intersection(&masters).count() == 1, "in {LOST} are {lost:?}, and the masters are {masters:?}");
    for instance in &lost {
        world.terminate(instance).await?;
    }
    let more = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "more" }, "data": { "c": "d" } });
    eventually("the API to take something new", async || {
        Ok(api.post("/api/v1/namespaces/default/configmaps", &more).await.map(drop).map_err(|e| e.to_string()))
    })
    .await?;
    up(&without).await?;
    nodes_are_the_instances(world, &api, 6).await?;
    ensure!(data().await? == json!({ "a": "b" }), "of the data there is {}", data().await?);
    let zones: BTreeSet<String> = nodes(&api).await?.iter().map(|(.., n)| zone(n)).collect();
    ensure!(zones.len() == 3, "the nodes are in {zones:?}");

    world.kup(&["down", "--provider", "aws", "-y", "--name", NAME]).await?.ok("kup down")?;
    let after = world.dump().await?;
    ensure!(after == before, "down left something:\n{after:#}");
    Ok(())
}
