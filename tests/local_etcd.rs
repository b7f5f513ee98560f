//! Backups of etcd on real machines: what was written before one is there after its restore and what was written later is not; on the
//! cluster it was taken of, after a kill in the middle, on another cluster, and on three masters of which one lost its data.
//!
//! Needs root and a container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::api::Api;
use support::cluster::{Cluster, Home, Output};
use support::host::{invocations, on};
use support::{Check, eventually};

/// What stands on a master while a restore goes on.
const MARK: &str = "/var/lib/kup/etcd-restore";

/// Says that one part of the test is through, in the form that `scripts/test` counts.
struct Parts(Instant);

impl Parts {
    fn done(&mut self, name: &str) {
        eprintln!("ok    {name} ({:.1} s)", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

/// Runs `kup etcd ... -o json`: its result.
async fn etcd(home: &Home, args: &[&str]) -> Check<Value> {
    let args: Vec<&str> = ["etcd"].iter().chain(args).chain(&["-o", "json"]).copied().collect();
    let text = home.kup(&args).await?.ok(&format!("kup {}", args.join(" ")))?;
    // A command that changes things writes its events too, and the outcome last.
    let last = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    match last.and_then(|last| last.get("result").cloned()) {
        Some(result) => Ok(result),
        None => Ok(serde_json::from_str(&text)?),
    }
}

/// The backups that were taken for this reason. The timer may go off at any time.
async fn list(home: &Home, name: &str, reason: &str) -> Check<Vec<Value>> {
    let all = etcd(home, &["list", "--name", name]).await?.as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|row| row["reason"] == reason).collect())
}

async fn refused(home: &Home, args: &[&str], words: &[&str]) -> Check {
    let Output { code, stdout, stderr } = home.kup(args).await?;
    ensure!(code != Some(0), "kup {} went through: {stdout}", args.join(" "));
    for word in words {
        ensure!(stderr.contains(word), "kup {} does not say `{word}`: {stderr}", args.join(" "));
    }
    Ok(())
}

fn map(name: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/{name}")
}

async fn write(api: &Api, name: &str) -> Check<String> {
    let object = json!({ "metadata": { "name": name }, "data": { "is": name } });
    let made = api.post("/api/v1/namespaces/default/configmaps", &object).await?;
    Ok(made["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
}

async fn secret(api: &Api) -> Check<Value> {
    Ok(api.get("/api/v1/namespaces/default/secrets/word").await?["data"]["word"].clone())
}

/// A new pod runs, all is well in kup's own eyes (nodes, DNS, members), and a watch that is begun now sees what comes.
async fn works(home: &Home, api: &Api, name: &str) -> Check {
    eventually("the cluster to be well", async || {
        let output = home.kup(&["status", "--name", name]).await?;
        Ok(if output.code == Some(0) { Ok(()) } else { Err(output.stdout) })
    })
    .await?;
    let images = api.list("/api/v1/nodes").await?[0]["status"]["images"].to_string();
    let pause = images.split('"').find(|part| part.contains("/pause:")).ok_or("no node has the pause image")?;
    let container = json!({ "name": "c", "image": pause, "imagePullPolicy": "Never" });
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [container] });
    let spec = json!({ "metadata": { "generateName": "new-" }, "spec": spec });
    let made = api.post("/api/v1/namespaces/default/pods", &spec).await?;
    let path = format!("/api/v1/namespaces/default/pods/{}", made["metadata"]["name"].as_str().unwrap_or_default());
    eventually("a new pod to run", async || {
        let pod = api.get(&path).await?;
        Ok(if pod["status"]["phase"] == "Running" { Ok(()) } else { Err(pod["status"].to_string()) })
    })
    .await?;
    api.delete(&path).await?;
    let now = api.get("/api/v1/namespaces/default/configmaps").await?["metadata"]["resourceVersion"].clone();
    let (seen, written) = tokio::join!(watch_from(api, now.as_str().unwrap_or_default()), write(api, "watched"));
    written?;
    api.delete(&map("watched")).await?;
    ensure!(seen.contains("ADDED") && seen.contains("watched"), "a watch sees what comes: {seen}");
    Ok(())
}

/// What a watch gets that goes on from a version of the time before.
async fn watch_from(api: &Api, version: &str) -> String {
    let path = format!("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=3");
    api.text(&path).await.unwrap_or_else(|refused| refused.to_string())
}

/// Removes a cluster that is another one's neighbour, also after a panic.
struct Neighbour<'a>(&'a Home, &'a str);

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        let mut down = self.0.command(&["down", "-y", "--name", self.1]).into_std();
        if !down.output().is_ok_and(|output| output.status.success()) {
            eprintln!("kup down of {} failed", self.1);
        }
    }
}

fn api_of(home: &Home, context: &str) -> impl Future<Output = Check<Api>> {
    let path = home.path().join("kubeconfig");
    let context = context.to_owned();
    async move {
        let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
        let options = kube::config::KubeConfigOptions { context: Some(context), ..Default::default() };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Api::new(kube::Client::try_from(config)?))
    }
}

/// The files of the backups kept here.
fn kept(home: &Home, name: &str) -> PathBuf {
    home.path().join(format!("state/kup/local/{name}/backups"))
}

/// Starts a restore, and kills it as soon as the master is marked.
async fn kill_in_the_middle(home: &Home, master: &str, args: &[&str]) -> Check {
    let mut restore = home.command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let marked = eventually("the restore to be under way", async || {
        let there = on(master, &format!("test -e {MARK}")).await.code == Some(0);
        Ok(if there { Ok(()) } else { Err("it is not".to_owned()) })
    });
    marked.await?;
    restore.kill().await?;
    Ok(())
}

#[tokio::test]
async fn what_was_written_before_a_backup_is_there_after_its_restore() -> Check {
    let name = "kup-test-etcd";
    let mut parts = Parts(Instant::now());
    let cluster = Cluster::up(name, "minions: { count: 1 }\n").await?;
    let (home, api, master) = (cluster.home(), &cluster.api, format!("{name}-master-1"));
    parts.done("etcd::a_cluster_comes_up");

    // By themselves: the timer waits for its time, and its service does what is listed then.
    on(&master, "systemctl is-active kup-etcd-backup.timer").await.ok("the timer waits")?;
    ensure!(list(home, name, "change").await?.is_empty(), "a new cluster has no backup: nothing was changed in it");
    on(&master, "systemctl start kup-etcd-backup.service").await.ok("a snapshot by the timer's service")?;
    let listed = list(home, name, "timer").await?;
    ensure!(!listed.is_empty() && listed.iter().all(|row| row["where"] == "master-1"), "{listed:?}");
    let modes = on(&master, "stat -c %a /var/lib/kup/backups /var/lib/kup/backups/* | sort | uniq").await.stdout;
    ensure!(modes == "600\n700\n", "{modes}");
    parts.done("etcd::masters_take_snapshots_by_themselves");

    write(api, "before").await?;
    write(api, "deleted").await?;
    let word = json!({ "metadata": { "name": "word" }, "data": { "word": "c2VjcmV0" } });
    api.post("/api/v1/namespaces/default/secrets", &word).await?;
    let taken = etcd(home, &["backup", "--name", name]).await?;
    let snapshot = taken["name"].as_str().unwrap_or_default().to_owned();
    ensure!(taken["reason"] == "hand" && taken["cluster"] == name && taken["revision"].as_u64() > Some(1), "{taken}");
    let dir = kept(home, name);
    let data = dir.join(format!("{snapshot}.db.gz"));
    for (path, mode) in [(&dir, 0o700), (&data, 0o600)] {
        ensure!(std::fs::metadata(path)?.permissions().mode() & 0o777 == mode, "{} is not {mode:o}", path.display());
    }
    ensure!(data.metadata()?.len() == taken["size"].as_u64().unwrap_or_default(), "{taken}");
    let left = on(&master, "ls -d /var/lib/kup/snapshot.* 2>/dev/null").await.stdout;
    ensure!(left.is_empty(), "nothing of it is left on the machine: {left}");
    let late = write(api, "after").await?;
    api.delete(&map("deleted")).await?;
    parts.done("etcd::a_backup_by_hand_is_kept_here_and_nowhere_else");

    // A damaged one is refused before anything is stopped.
    let units = ["etcd", "kube-apiserver", "kube-controller-manager", "kubelet"];
    let running = invocations(&master, &units).await;
    let mut bytes = std::fs::read(&data)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let bad = cluster.scratch("bad.db.gz");
    std::fs::write(&bad, &bytes)?;
    let bad = bad.to_string_lossy();
    let from = ["etcd", "restore", "-y", "--name", name, "--from-cluster", name, "--from", &bad];
    refused(home, &from, &["damaged", "nothing was changed"]).await?;
    refused(home, &["etcd", "restore", "-y", "--name", name, "etcd-20200101T000000Z-1-hand"], &["has no snapshot"]).await?;
    refused(home, &["etcd", "restore", "--name", name, "latest"], &["add -y"]).await?;
    ensure!(invocations(&master, &units).await == running, "nothing was stopped");
    parts.done("etcd::a_damaged_snapshot_stops_nothing");

    // Killed in the middle: `kup up` says what to do, and the same command finishes.
    let restore = ["etcd", "restore", "latest", "-y", "--name", name];
    kill_in_the_middle(home, &master, &restore).await?;
    refused(home, &["up", "-y", "--name", name], &["has not ended", &format!("kup etcd restore {snapshot} --name {name}")])
        .await?;
    let outcome = etcd(home, &restore[1..]).await?;
    ensure!(outcome["snapshot"] == snapshot.as_str(), "the latest is still the one from before: {outcome}");
    ensure!(api.exists(&map("before")).await? && api.exists(&map("deleted")).await?, "what was there is back");
    ensure!(!api.exists(&map("after")).await?, "what came later is gone");
    ensure!(secret(api).await? == "c2VjcmV0", "Secrets can be read");
    let told = watch_from(api, &late).await;
    ensure!(told.contains("410") || told.contains("too old"), "a watch from before does not just go on: {told}");
    works(home, api, name).await?;
    let left = on(&master, &format!("ls /var/lib/etcd; ls -d {MARK} /var/lib/kup/snapshot.* 2>/dev/null")).await.stdout;
    ensure!(left == "member\n", "nothing of the restore is left: {left}");
    ensure!(!list(home, name, "restore").await?.is_empty(), "what was there before was backed up, while it was there");
    parts.done("etcd::killed_in_the_middle_and_finished");

    // An `up` that has nothing to do backs nothing up; one that restarts the API server does.
    let again = home.kup(&["up", "--name", name, "-y"]).await?.ok("kup up again")?;
    ensure!(again.contains("is ready, as before"), "{again}");
    ensure!(list(home, name, "change").await?.is_empty(), "there is no new backup");
    on(&master, "echo >> /etc/kup/audit-policy.yaml").await.ok("a file that the API server reads")?;
    home.kup(&["up", "--name", name, "-y"]).await?.ok("kup up after a change")?;
    let made = list(home, name, "change").await?;
    ensure!(made.len() == 1 && made[0]["where"] == dir.to_string_lossy().as_ref(), "{made:?}");
    parts.done("etcd::up_backs_up_before_a_change_and_only_then");

    onto_another(home, name, &snapshot).await?;
    parts.done("etcd::a_snapshot_is_restored_onto_another_cluster");
    Ok(())
}

/// The snapshot of one cluster on a new one of another name and other addresses, without that one's minion.
async fn onto_another(home: &Home, name: &str, snapshot: &str) -> Check {
    let other = "kup-test-etcd-b";
    home.kup(&["up", "--provider", "local", "--name", other, "--minions", "0", "--raise-limits", "-y"]).await?.ok("kup up")?;
    let _neighbour = Neighbour(home, other);
    let api = api_of(home, &format!("local_{other}")).await?;
    write(&api, "own").await?;
    let file = kept(home, name).join(format!("{snapshot}.db.gz"));
    let file = file.to_string_lossy();
    let from = ["etcd", "restore", "-y", "--name", other, "--from", &file];
    refused(home, &from, &["Secrets in the snapshot can't be read", name, "--from-cluster"]).await?;
    ensure!(api.exists(&map("own")).await?, "nothing was changed");
    let outcome = etcd(home, &["restore", snapshot, "-y", "--name", other, "--from-cluster", name]).await?;
    let removed = outcome["restored"]["removedNodes"].to_string();
    ensure!(removed.contains(&format!("{name}-master-1")) && removed.contains(&format!("{name}-minion-1")), "{outcome}");
    ensure!(api.exists(&map("before")).await? && !api.exists(&map("own")).await?, "it has what the other one had, and only that");
    ensure!(secret(&api).await? == "c2VjcmV0", "Secrets are read by the other cluster's key");
    let nodes: Vec<String> = api.list("/api/v1/nodes").await?.iter().map(support::api::name).collect();
    ensure!(nodes == [format!("{other}-master-1")], "{nodes:?}");
    works(home, &api, other).await?;
    // What is written now is read by its own key, also when the API server begins anew; without the other's key Secrets are left out.
    let outcome = etcd(home, &["restore", "-y", "--name", other, "--from", &file, "--drop-secrets"]).await?;
    ensure!(outcome["restored"]["droppedSecrets"].to_string().contains("default/word"), "{outcome}");
    ensure!(!api.exists("/api/v1/namespaces/default/secrets/word").await? && api.exists(&map("before")).await?, "{outcome}");
    works(home, &api, other).await
}

#[tokio::test]
#[ignore = "long: three masters, restored twice"]
async fn three_masters_are_restored_together() -> Check {
    let name = "kup-test-etcd-three";
    let mut parts = Parts(Instant::now());
    let cluster = Cluster::up(name, "masters: { count: 3 }\nminions: { count: 1 }\n").await?;
    let (home, api) = (cluster.home(), &cluster.api);
    let masters = [1, 2, 3].map(|n| format!("{name}-master-{n}"));
    write(api, "before").await?;
    // All timers go off at once: one of the masters leads.
    for master in &masters {
        on(master, "systemctl start kup-etcd-backup.service").await.ok("the timer's service")?;
    }
    let listed = list(home, name, "timer").await?;
    let holders: std::collections::BTreeSet<String> = listed.iter().map(|row| row["where"].to_string()).collect();
    ensure!(holders.len() == 1, "one master of three takes them: {listed:?}");
    etcd(home, &["backup", "--name", name]).await?;
    write(api, "after").await?;
    parts.done("etcd_three::one_master_takes_the_snapshots");

    // One has lost its data, and another its machine: all get the same.
    on(&masters[0], "systemctl stop etcd; rm -rf /var/lib/etcd/member").await.ok("losing the data")?;
    support::host::engine(&["rm", "-f", &masters[1]]).await.ok("losing a machine")?;
    let restore = ["etcd", "restore", "latest", "-y", "--name", name, "--raise-limits"];
    kill_in_the_middle(home, &masters[2], &restore).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    home.kup(&restore).await?.ok("kup etcd restore")?;
    ensure!(api.exists(&map("before")).await? && !api.exists(&map("after")).await?, "it is as it was");
    works(home, api, name).await?;
    let status = home.kup(&["status", "--name", name]).await?.ok("kup status")?;
    ensure!(status.contains("3 of 3 members answer"), "{status}");
    for master in &masters {
        let left = on(master, &format!("ls /var/lib/etcd; ls {MARK} 2>/dev/null")).await.stdout;
        ensure!(left == "member\n", "{master}: {left}");
    }
    parts.done("etcd_three::all_members_have_the_same_again");
    Ok(())
}
