//! Backups in the cluster's bucket: by the masters' own timer and by hand, restored onto the cluster itself and onto another one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::ensure;
use crate::support::api::{Api, name, text};
use crate::support::{Check, eventually};
use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRET: &str = "/api/v1/namespaces/default/secrets";

/// The flags by which kup knows a cluster.
fn of(cluster: &str) -> [&str; 4] {
    ["--provider", "aws", "--name", cluster]
}

/// Runs a command of kup's with `-o json`: its result.
async fn result(world: &World, args: &[&str]) -> Check<Value> {
    let said = world.kup(&[args, &["-o", "json"]].concat()).await?.ok(&format!("kup {}", args.join(" ")))?;
    // A command that changes things writes its events too, and the outcome last.
    let last = said.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    match last.as_ref().and_then(|last| last.get("result")) {
        Some(result) => Ok(result.clone()),
        None => Ok(serde_json::from_str(&said)?),
    }
}

async fn write(api: &Api, map: &str) -> Check {
    api.post(MAPS, &json!({ "metadata": { "name": map }, "data": { "is": map } })).await.map(drop)
}

async fn has(api: &Api, map: &str) -> Check<bool> {
    api.exists(&format!("{MAPS}/{map}")).await
}

async fn word(api: &Api) -> Check<Value> {
    Ok(api.get(&format!("{SECRET}/word")).await?["data"]["word"].clone())
}

/// The API of a cluster, as its own kubeconfig reaches it.
async fn api_of(world: &World, cluster: &str) -> Check<Api> {
    let said = world.kup(&[&["kubeconfig", "--print"][..], &of(cluster)].concat()).await?.ok("kup kubeconfig")?;
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&said)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Ok(Api::new(kube::Client::try_from(config)?))
}

/// Waits until the Nodes are those machines that kup lists of the cluster, all of them Ready.
async fn nodes_are_the_machines(world: &World, api: &Api, cluster: &str) -> Check {
    eventually("the Nodes are the cluster's machines", async || {
        let machines = result(world, &[&["get", "nodes"][..], &of(cluster)].concat()).await?;
        let machines: BTreeSet<String> =
            machines.as_array().into_iter().flatten().map(|machine| text(&machine["name"])).collect();
        let list = api.list("/api/v1/nodes").await?;
        let ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let well: BTreeSet<String> = list.iter().filter(ready).map(name).collect();
        let all: BTreeSet<String> = list.iter().map(name).collect();
        let same = !machines.is_empty() && all == machines && well == machines;
        Ok(if same { Ok(()) } else { Err(format!("machines {machines:?}, Nodes {all:?}, of which Ready {well:?}")) })
    })
    .await
}

/// A pod that is made now runs on a minion: kubelets there hear of it, and have a network for it.
async fn a_new_pod_runs(api: &Api) -> Check {
    let images = api.list("/api/v1/nodes").await?[0]["status"]["images"].to_string();
    let pause = images.split('"').find(|part| part.contains("/pause:")).ok_or("no node has the pause image")?;
    let container = json!({ "name": "c", "image": pause, "imagePullPolicy": "Never" });
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [container] });
    let pods = "/api/v1/namespaces/default/pods";
    let made = api.post(pods, &json!({ "metadata": { "generateName": "new-" }, "spec": spec })).await?;
    let path = format!("{pods}/{}", name(&made));
    eventually("a new pod to run", async || {
        let pod = api.get(&path).await?;
        Ok(if pod["status"]["phase"] == "Running" { Ok(()) } else { Err(pod["status"].to_string()) })
    })
    .await?;
    api.delete(&path).await.map(drop)
}

/// What was written before a backup is there after its restore, what came later is not, and all nodes work. Leaves the cluster as it was
/// but for the ConfigMap `before` and the Secret `word`. Returns the backup's name.
pub async fn a_restore_brings_back_what_was_there(world: &World, api: &Api, cluster: &str) -> Check<String> {
    // The timer's own service: into the bucket, by the master's role.
    let snapshot = ["master-1", "--", "sudo", "systemctl", "start", "kup-etcd-backup.service"];
    world.kup(&[&["ssh"][..], &of(cluster), &snapshot].concat()).await?.ok("a snapshot by the timer's service")?;
    write(api, "before").await?;
    api.post(SECRET, &json!({ "metadata": { "name": "word" }, "data": { "word": "c2VjcmV0" } })).await?;
    let taken = result(world, &[&["etcd", "backup"][..], &of(cluster)].concat()).await?;
    let backup = text(&taken["name"]);
    write(api, "after").await?;
    let listed = result(world, &[&["etcd", "list"][..], &of(cluster)].concat()).await?;
    let listed = listed.as_array().cloned().unwrap_or_default();
    ensure!(listed.iter().all(|row| text(&row["where"]).starts_with("s3://")), "{listed:?}");
    for reason in ["timer", "hand"] {
        ensure!(listed.iter().any(|row| row["reason"] == reason), "there is none by the {reason}: {listed:?}");
    }

    let restored = result(world, &[&["etcd", "restore", "latest", "-y"][..], &of(cluster)].concat()).await?;
    ensure!(restored["snapshot"] == backup.as_str(), "another one was restored than {backup}: {restored}");
    ensure!(restored["restored"]["backup"].is_string(), "what was there before was not backed up: {restored}");
    ensure!(has(api, "before").await?, "what was there is not back");
    ensure!(!has(api, "after").await?, "what came later is still there");
    ensure!(word(api).await? == "c2VjcmV0", "Secrets can't be read");
    nodes_are_the_machines(world, api, cluster).await?;
    a_new_pod_runs(api).await?;
    Ok(backup)
}

/// The backup of one cluster on another one, of one minion, that is made for it and removed again: objects and Secrets carry over, its own
/// don't stay, and its machines are its Nodes again.
pub async fn a_backup_is_restored_onto_another_cluster(world: &World, cluster: &str, backup: &str) -> Check {
    let other = format!("{cluster}-b");
    let made = ["up", "-y", "--minions", "1", "--set=aws.zones=[us-west-2a]"];
    world.kup(&[&made[..], &of(&other)].concat()).await?.ok("kup up of another cluster")?;
    let api = api_of(world, &other).await?;
    write(&api, "own").await?;

    let restore = [&["etcd", "restore", backup, "-y", "--from-cluster", cluster][..], &of(&other)].concat();
    let restored = result(world, &restore).await?;
    ensure!(restored["restored"]["removedNodes"].as_array().is_some_and(|nodes| nodes.len() > 1), "{restored}");
    ensure!(has(&api, "before").await?, "what the other one had is not there");
    ensure!(!has(&api, "own").await?, "what it had itself is still there");
    ensure!(word(&api).await? == "c2VjcmV0", "Secrets are not read by the other one's key");
    let tokens = api.list("/api/v1/namespaces/kube-system/secrets?fieldSelector=type=bootstrap.kubernetes.io/token").await?;
    ensure!(tokens.len() == 1, "machines of the other one could join: {:?}", tokens.iter().map(name).collect::<Vec<_>>());
    nodes_are_the_machines(world, &api, &other).await?;
    a_new_pod_runs(&api).await?;
    // The keys stay with the cluster: nothing is left to do.
    let again = result(world, &[&made[..], &of(&other)].concat()).await?;
    ensure!(again["changed"] == false, "an up after it says {again}");
    ensure!(word(&api).await? == "c2VjcmV0", "Secrets can't be read after another up");

    world.kup(&[&["down", "-y"][..], &of(&other)].concat()).await?.ok("kup down of the other cluster").map(drop)
}
