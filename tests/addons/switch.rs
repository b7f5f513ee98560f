//! Turning add-ons off and on.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ensure;
use crate::support::api::{name, text};
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// Collections in which add-ons have objects.
const COLLECTIONS: [&str; 14] = [
    "/api/v1/namespaces",
    "/api/v1/serviceaccounts",
    "/api/v1/services",
    "/api/v1/secrets",
    "/api/v1/configmaps",
    "/apis/apps/v1/deployments",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/storage.k8s.io/v1/storageclasses",
    "/apis/apiregistration.k8s.io/v1/apiservices",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/apps/v1/daemonsets",
];

/// The namespaces that no check makes; and no namespace.
const LASTING: [&str; 6] = ["", "default", "kube-system", "kube-public", "kube-node-lease", "local-storage"];

/// Every object of the collections that add-ons use: which add-on owns it, and what changes when it is changed.
async fn everything(w: &World<'_>) -> Check<BTreeMap<String, (String, String)>> {
    let mut all = BTreeMap::new();
    for collection in COLLECTIONS {
        for object in w.cluster.api.list(collection).await? {
            let meta = &object["metadata"];
            // Other checks' namespaces come and go.
            let namespace = if collection.ends_with("/namespaces") { name(&object) } else { text(&meta["namespace"]) };
            if !LASTING.contains(&namespace.as_str()) {
                continue;
            }
            let key = format!("{collection} {}/{}", text(&meta["namespace"]), name(&object));
            let owner = text(&meta["labels"]["kup.dev/addon"]);
            // A status is its controller's, who may write it at any time.
            let version = match object["status"] {
                Value::Null => text(&meta["resourceVersion"]),
                _ => format!("{} {} {}", object["spec"], meta["labels"], meta["annotations"]),
            };
            all.insert(key, (owner, version));
        }
    }
    Ok(all)
}

async fn kup(w: &World<'_>, args: &[&str]) -> Check<String> {
    let all = [args, &["--name", w.cluster.name.as_str()]].concat();
    w.cluster.kup(&all).await?.ok(&format!("kup {}", args.join(" ")))
}

async fn row(w: &World<'_>, addon: &str) -> Check<Value> {
    let rows: Value = serde_json::from_str(&kup(w, &["addons", "list", "-o", "json"]).await?)?;
    let row = rows.as_array().into_iter().flatten().find(|r| r["name"] == addon).cloned();
    Ok(row.ok_or_else(|| format!("kup addons list has no {addon}: {rows}"))?)
}

/// Off: its own objects are gone and nobody else's, and another `up` leaves it off. On: the same objects are there again, and answer.
pub async fn off_removes_exactly_that_and_on_brings_it_back(w: &World<'_>) -> Check {
    eventually("metrics-server to be on and ready", async || {
        let seen = row(w, "metrics-server").await?;
        Ok(if seen["enabled"] == true && seen["ready"] == true { Ok(()) } else { Err(seen.to_string()) })
    })
    .await?;
    let before = everything(w).await?;
    let own = |all: &BTreeMap<String, (String, String)>| -> Vec<String> {
        all.iter().filter(|(_, (owner, _))| owner == "metrics-server").map(|(key, _)| key.clone()).collect()
    };
    ensure!(own(&before).len() == 10, "metrics-server has {:?}", own(&before));

    kup(w, &["addons", "disable", "metrics-server"]).await?;
    let after = everything(w).await?;
    let gone: Vec<String> = before.keys().filter(|k| !after.contains_key(*k)).cloned().collect();
    ensure!(gone == own(&before), "gone: {gone:?}\nits own: {:?}", own(&before));
    let pods = w.cluster.api.list("/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app=metrics-server").await?;
    ensure!(pods.is_empty(), "its pods are still there: {:?}", pods.iter().map(name).collect::<Vec<_>>());
    let seen = row(w, "metrics-server").await?;
    ensure!(seen["enabled"] == false && seen["ready"] == false, "{seen}");
    // A second time there is nothing to do, and another `up` leaves it so.
    let again = outcome(&kup(w, &["addons", "disable", "metrics-server", "-o", "json"]).await?)?;
    ensure!(again.last().is_some_and(|o| o["result"]["changed"] == false), "{again:?}");
    kup(w, &["up"]).await?;
    ensure!(own(&everything(w).await?).is_empty(), "`kup up` brought it back");

    kup(w, &["addons", "enable", "metrics-server"]).await?;
    let back = everything(w).await?;
    ensure!(own(&back) == own(&before), "back: {:?}", own(&back));
    // It answers at once, if only that it has measured nothing yet.
    w.cluster.api.list("/apis/metrics.k8s.io/v1beta1/nodes").await?;
    for (args, code, words) in [
        (["disable", "coredns"], 2, "coredns can't be turned off"),
        (["enable", "metric-server"], 2, "did you mean metrics-server?"),
    ] {
        let output = w.cluster.kup(&["addons", args[0], args[1], "--name", &w.cluster.name]).await?;
        ensure!(output.code == Some(code) && output.stderr.contains(words), "{args:?}: {output:?}");
    }
    Ok(())
}

/// `up` with another config turns add-ons off and on; with the same one it changes no object.
pub async fn up_goes_by_the_config_and_changes_nothing_twice(w: &World<'_>) -> Check {
    let class = "/apis/storage.k8s.io/v1/storageclasses/local";
    let before = everything(w).await?;
    let same = outcome(&kup(w, &["up", "-o", "json"]).await?)?;
    ensure!(same.last().is_some_and(|o| o["result"]["changed"] == false), "`up` again says {:?}", same.last());
    let after = everything(w).await?;
    let changed: Vec<_> = before.iter().filter(|(key, value)| after.get(*key) != Some(value)).collect();
    ensure!(changed.is_empty() && before.len() == after.len(), "changed by an `up` of the same config: {changed:?}");

    let plan = kup(w, &["plan", "--set", "addons.local-storage=false"]).await?;
    ensure!(plan.contains("local-storage") && plan.contains("1 to delete"), "{plan}");
    ensure!(w.cluster.api.exists(class).await?, "a plan removed something");
    kup(w, &["up", "-y", "--set", "addons.local-storage=false"]).await?;
    ensure!(!w.cluster.api.exists(class).await?, "the class is still there");
    ensure!(!w.cluster.api.exists("/api/v1/namespaces/local-storage").await?, "its namespace is still there");
    let off = row(w, "local-storage").await?;
    ensure!(off["enabled"] == false, "{off}");

    // A file wins over what was turned off, and says so when it will.
    let file = w.cluster.scratch("on.yaml");
    std::fs::write(&file, "addons: { local-storage: true }\nminions: { count: 1 }\n")?;
    let file = file.to_string_lossy();
    let told = w.cluster.kup(&["addons", "disable", "local-storage", "--name", &w.cluster.name, "-f", &file]).await?;
    ensure!(told.code == Some(0) && told.stderr.contains("write `addons: { local-storage: false }` there"), "{told:?}");
    kup(w, &["up", "-f", &file]).await?;
    eventually("the class to be back", async || {
        Ok(w.cluster.api.exists(class).await?.then_some(()).ok_or_else(|| "it is not there".to_owned()))
    })
    .await
}

/// The lines of a command's JSON.
fn outcome(text: &str) -> Check<Vec<Value>> {
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
