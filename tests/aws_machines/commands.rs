//! Commands on a cluster on AWS that change what runs on it: images for all nodes, add-ons.

use serde_json::{Value, json};

use crate::ensure;
use crate::support::api::{Api, name};
use crate::support::{Check, eventually};
use crate::world::World;

/// The image that the tests' pods run; it is in the bundle, and no node has it by itself.
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.66.1";

fn of(cluster: &str) -> [&str; 4] {
    ["--provider", "aws", "--name", cluster]
}

async fn kup(world: &World, cluster: &str, args: &[&str]) -> Check<String> {
    world.kup(&[args, &of(cluster)].concat()).await?.ok(&format!("kup {}", args.join(" ")))
}

/// Runs a pod on a node, of an image that nobody pulls.
async fn runs_on(api: &Api, node: &str) -> Check {
    let container = json!({ "name": "c", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["pause"] });
    let spec = json!({ "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container],
        "tolerations": [{ "operator": "Exists" }] });
    let pods = "/api/v1/namespaces/default/pods";
    let made = api.post(pods, &json!({ "metadata": { "generateName": "loaded-" }, "spec": spec })).await?;
    let path = format!("{pods}/{}", name(&made));
    eventually(&format!("a pod of a loaded image to run on {node}"), async || {
        let pod = api.get(&path).await?;
        Ok(if pod["status"]["phase"] == "Running" { Ok(()) } else { Err(pod["status"].to_string()) })
    })
    .await?;
    api.delete(&path).await.map(drop)
}

async fn nodes(api: &Api) -> Check<Vec<String>> {
    Ok(api.list("/api/v1/nodes").await?.iter().map(name).collect())
}

/// An image that is loaded is on every node, and on a minion that comes in a lost one's place too.
pub async fn loaded_images_are_on_all_nodes_and_on_those_that_come(world: &World, api: &Api, cluster: &str) -> Check {
    let archive = world.kup(&["bundle", "path", "agnhost"]).await?.ok("kup bundle path")?;
    let said = kup(world, cluster, &["image", "load", archive.trim()]).await?;
    ensure!(said.contains(AGNHOST), "kup image load says {said}");
    let before = nodes(api).await?;
    for node in &before {
        runs_on(api, node).await?;
    }
    let lost = world.instances("minion").await?.iter().find_map(|i| i.instance_id().map(str::to_owned)).ok_or("no minion")?;
    world.terminate(&lost).await?;
    let new = eventually("another minion to join", async || {
        let now = nodes(api).await?;
        let new = now.iter().find(|node| !before.contains(node)).cloned();
        Ok(new.filter(|_| !now.contains(&lost)).ok_or_else(|| format!("{now:?}")))
    })
    .await?;
    runs_on(api, &new).await
}

/// An add-on that is turned off is gone, and stays so with another `up`; turned on, it is ready again.
pub async fn an_addon_is_turned_off_and_on(world: &World, api: &Api, cluster: &str, up: &[&str]) -> Check {
    let server = "/apis/apps/v1/namespaces/kube-system/deployments/metrics-server";
    ensure!(api.exists(server).await?, "metrics-server is not there to begin with");
    kup(world, cluster, &["addons", "disable", "metrics-server"]).await?;
    ensure!(!api.exists(server).await?, "metrics-server is still there");
    world.kup(up).await?.ok("kup up")?;
    ensure!(!api.exists(server).await?, "another up has brought it back");
    kup(world, cluster, &["addons", "enable", "metrics-server"]).await?;
    let rows: Value = serde_json::from_str(&kup(world, cluster, &["addons", "list", "-o", "json"]).await?)?;
    let row = rows.as_array().into_iter().flatten().find(|row| row["name"] == "metrics-server");
    ensure!(row.is_some_and(|row| row["enabled"] == true && row["ready"] == true), "{rows}");
    ensure!(api.exists(server).await?, "metrics-server is not there again");
    Ok(())
}
