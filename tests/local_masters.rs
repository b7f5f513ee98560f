//! Several masters: an etcd and an API that bear the loss of any one master machine, its return, its replacement, the restart of all,
//! and a change that reaches one master after the other; and one master raised to three.
//!
//! A machine is lost by dropping its packets: unlike a removed container, whose connections are reset, it just falls silent.
//!
//! Needs root and a container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::checks::AGNHOST;
use support::cluster::{Cluster, Home, Output, run};
use support::{Check, eventually, within};
use tokio::process::Command;

/// Says that one part of the test is through, in the form that `scripts/test` counts.
struct Parts(Instant);

impl Parts {
    fn done(&mut self, name: &str) {
        eprintln!("ok    {name} ({:.1} s)", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

async fn engine(args: &[&str]) -> Check<String> {
    run(Command::new("podman").args(args), None).await?.ok(&format!("podman {}", args.join(" ")))
}

async fn on(machine: &str, script: &str) -> Check<String> {
    run(Command::new("podman").args(["exec", "-i", machine, "sh", "-s"]), Some(script))
        .await?
        .ok(&format!("{script} on {machine}"))
}

/// Cuts a machine off: no packet goes in or out but its own loopback's.
async fn cut_off(machine: &str) -> Check {
    let rules = "nft add table inet lost
        for hook in input output forward; do
          nft add chain inet lost $hook \"{ type filter hook $hook priority -500; policy drop; }\"
          nft add rule inet lost $hook iifname lo accept
          nft add rule inet lost $hook oifname lo accept 2>/dev/null || true
        done";
    // Rules come before the drop takes effect only for the loopback: it is the last thing that the engine, not the network, runs.
    on(machine, rules).await.map(drop)
}

async fn let_back(machine: &str) -> Check {
    on(machine, "nft delete table inet lost").await.map(drop)
}

async fn status(home: &Home, name: &str) -> Check<(Option<i32>, Value)> {
    let Output { code, stdout, stderr } = home.kup(&["status", "--name", name, "-o", "json"]).await?;
    let value = stdout.lines().find_map(|l| serde_json::from_str::<Value>(l).ok().filter(|v| v.get("etcd").is_some()));
    let value = value.or_else(|| serde_json::from_str(&stdout).ok()).ok_or_else(|| format!("{stdout}\n{stderr}"))?;
    Ok((code, value.get("result").cloned().unwrap_or(value)))
}

fn leader(status: &Value) -> String {
    status["etcd"]["leader"].as_str().unwrap_or_default().to_owned()
}

fn members(status: &Value) -> Vec<(String, bool, bool)> {
    let member = |m: &Value| (m["machine"].as_str().unwrap_or_default().to_owned(), m["answers"] == true, m["learner"] == true);
    status["etcd"]["members"].as_array().into_iter().flatten().map(member).collect()
}

/// Waits, without kup doing anything, until all is well and every member has a vote.
async fn well(home: &Home, name: &str, masters: usize) -> Check<Value> {
    eventually("the cluster to be well again", async || {
        let (code, status) = status(home, name).await?;
        let all = members(&status);
        if code == Some(0) && all.len() == masters && all.iter().all(|(_, answers, learner)| *answers && !learner) {
            return Ok(Ok(status));
        }
        Ok(Err(format!("exit code {code:?}, members {all:?}, problems {}", status["problems"])))
    })
    .await
}

async fn write(cluster: &Cluster, name: &str) -> Check {
    within(Duration::from_secs(60), &format!("ConfigMap {name} to be written"), async || {
        let output =
            cluster.kubectl(&["create", "configmap", name, "--from-literal=data=of-old", "--request-timeout=5s"]).await?;
        Ok(if output.code == Some(0) || output.stderr.contains("already exists") { Ok(()) } else { Err(output.stderr) })
    })
    .await
}

async fn data_of(cluster: &Cluster, name: &str) -> Check<String> {
    eventually(&format!("ConfigMap {name} to be read"), async || {
        let output = cluster.kubectl(&["get", "configmap", name, "-o", "jsonpath={.data.data}", "--request-timeout=5s"]).await?;
        Ok(if output.code == Some(0) { Ok(output.stdout) } else { Err(output.stderr) })
    })
    .await
}

/// A Deployment's pods, all of them ready, while one machine may be lost.
async fn ready_pods(cluster: &Cluster, wanted: usize) -> Check {
    eventually(&format!("{wanted} ready pods"), async || {
        let output = cluster
            .kubectl(&["get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}", "--request-timeout=5s"])
            .await?;
        Ok(if output.stdout == wanted.to_string() { Ok(()) } else { Err(format!("{} {}", output.stdout, output.stderr)) })
    })
    .await
}

#[tokio::test]
async fn three_masters_bear_the_loss_of_any_one() -> Check {
    let name = "kup-test-masters";
    let mut parts = Parts(Instant::now());
    let config = "masters: { count: 3 }\nminions: { count: 3 }\n";
    let cluster = Cluster::up(name, config).await?;
    let home = cluster.home();
    parts.done("masters::three_and_three_come_up");

    // Users go through the machine in front; every master is a voting member.
    let kubeconfig = std::fs::read_to_string(home.path().join("kubeconfig"))?;
    let balancer = format!("{name}-balancer-1");
    let front = engine(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &balancer]).await?;
    ensure!(kubeconfig.contains(&format!("https://{}:6443", front.trim())), "the kubeconfig names {front}: {kubeconfig}");
    let (code, seen) = status(home, name).await?;
    ensure!(code == Some(0), "{seen}");
    ensure!(seen["etcd"]["quorum"] == 2 && members(&seen).len() == 3 && !leader(&seen).is_empty(), "{}", seen["etcd"]);
    let again = home.kup(&["up", "--name", name, "-y"]).await?.ok("kup up again")?;
    ensure!(again.contains("is ready, as before"), "{again}");
    parts.done("masters::status_names_members_leader_and_quorum");

    let archive = cluster.bundle.join("images/agnhost.tar");
    home.kup(&["image", "load", "--name", name, &archive.to_string_lossy()]).await?.ok("kup image load")?;
    cluster
        .kubectl(&["create", "deployment", "hello", "--replicas=3", &format!("--image={AGNHOST}"), "--", "/agnhost", "netexec"])
        .await?
        .ok("kubectl create deployment")?;
    ready_pods(&cluster, 3).await?;
    write(&cluster, "before").await?;

    let all_masters = [1, 2, 3].map(|n| format!("{name}-master-{n}"));

    // The leader falls silent: users, workloads and joining nodes go on with the others.
    let lost = leader(&seen);
    cut_off(&lost).await?;
    write(&cluster, "meanwhile").await?;
    ensure!(data_of(&cluster, "before").await? == "of-old", "what was written before is there");
    cluster.kubectl(&["scale", "deployment/hello", "--replicas=5"]).await?.ok("kubectl scale")?;
    ready_pods(&cluster, 5).await?;
    parts.done("masters::users_and_workloads_go_on_without_the_leader");
    let minion = format!("{name}-minion-3");
    cluster.kubectl(&["delete", "node", &minion]).await?.ok("kubectl delete node")?;
    engine(&["restart", "--time=0", &minion]).await?;
    eventually("a node to join", async || {
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let output = cluster.kubectl(&["get", "node", &minion, "-o", ready, "--request-timeout=5s"]).await?;
        Ok(if output.stdout == "True" { Ok(()) } else { Err(format!("{}{}", output.stdout, output.stderr)) })
    })
    .await?;
    parts.done("masters::a_node_joins_without_the_leader");
    let (code, seen) = status(home, name).await?;
    ensure!(code == Some(3), "a lost master is not well: {seen}");
    ensure!(leader(&seen) != lost && !leader(&seen).is_empty(), "another leads: {}", seen["etcd"]);
    ensure!(members(&seen).contains(&(lost.clone(), false, false)), "{}", seen["etcd"]);
    let named = seen["problems"].as_array().into_iter().flatten().any(|p| p["machine"] == lost.as_str());
    ensure!(named, "the lost machine is named: {}", seen["problems"]);
    parts.done("masters::status_names_the_lost_one");

    // What would leave the only copy of the data is refused, before anything is done.
    let two: Vec<&String> = all_masters.iter().filter(|m| **m != lost).collect();
    let args = ["up", "--name", name, "-y", "--replace", two[0].as_str(), "--replace", two[1].as_str()];
    let refused = home.kup(&args).await?;
    ensure!(refused.code == Some(2) && refused.stderr.contains("one master at a time"), "{}", refused.stderr);

    // It comes back by itself.
    let_back(&lost).await?;
    well(home, name, 3).await?;
    parts.done("masters::the_lost_one_takes_its_place_again");

    // Silent again, and for good: `up --replace` makes another, which takes the dead member's place.
    let id = |text: &str, machine: &str| {
        let known: Value = serde_json::from_str(text).unwrap();
        known["members"].as_array().unwrap().iter().find(|m| m["name"] == machine).map(|m| m["ID"].to_string())
    };
    let list = "/opt/kup/bundle/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kup/pki/etcd-ca.crt --cert=/etc/kup/pki/etcd-server.crt --key=/etc/kup/pki/etcd-server.key -w json member list";
    let other = all_masters.iter().find(|m| **m != lost).unwrap();
    let before = id(&on(other, list).await?, &lost);
    cut_off(&lost).await?;
    let short = lost.strip_prefix(&format!("{name}-")).unwrap();
    home.kup(&["up", "--name", name, "-y", "--replace", short]).await?.ok("kup up --replace")?;
    well(home, name, 3).await?;
    let after = id(&on(other, list).await?, &lost);
    ensure!(before.is_some() && after.is_some() && before != after, "a new member, {before:?} → {after:?}");
    ensure!(data_of(&cluster, "meanwhile").await? == "of-old", "the data is there");
    // The new one has all of it too.
    let copy = format!(
        "{} --consistency=s get --print-value-only --prefix /registry/configmaps/default/meanwhile | grep -c of-old",
        list.replace(" -w json member list", "")
    );
    ensure!(on(&lost, &copy).await?.trim() == "1", "the new member holds the data");
    parts.done("masters::up_replaces_a_master_that_is_silent_for_good");

    // A change reaches one master after the other, and nobody who asks notices.
    let asking = {
        let mut command = cluster.kubectl_command(&["get", "--raw", "/api/v1/namespaces/default/configmaps/before"]);
        let mut asked = (0, Vec::new());
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            while stopped.try_recv().is_err() {
                asked.0 += 1;
                match run(&mut command, None).await {
                    Ok(output) if output.code == Some(0) => {}
                    Ok(output) => asked.1.push(output.stderr),
                    Err(e) => asked.1.push(e.to_string()),
                }
            }
            asked
        };
        (stop, tokio::spawn(work))
    };
    let set = "kubernetes.serviceNodePortRange=30000-31000";
    home.kup(&["up", "--name", name, "-y", "--set", set]).await?.ok("kup up with another range")?;
    let _ = asking.0.send(());
    let (asked, failed) = asking.1.await?;
    ensure!(asked > 3 && failed.is_empty(), "{} of {asked} questions failed: {failed:?}", failed.len());
    let mut restarts = Vec::new();
    for n in 1..=3 {
        let machine = format!("{name}-master-{n}");
        let times = "systemctl show kube-apiserver -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic --value; grep -c 30000-31000 /etc/systemd/system/kube-apiserver.service";
        let text = on(&machine, times).await?;
        let mut numbers = text.lines().map(|l| l.trim().parse::<u64>().unwrap());
        restarts.push((numbers.next().unwrap(), numbers.next().unwrap()));
        ensure!(numbers.next() == Some(1), "{machine} has the new range");
    }
    restarts.sort_unstable();
    ensure!(restarts.windows(2).all(|w| w[0].1 <= w[1].0), "one after the other: {restarts:?}");
    parts.done("masters::a_change_reaches_one_master_after_the_other");

    // All at once, without kup.
    let all = engine(&["ps", "--format", "{{.Names}}", "--filter", &format!("label=kup.dev/cluster={name}")]).await?;
    let machines: Vec<&str> = all.lines().collect();
    ensure!(machines.len() == 7, "{machines:?}");
    engine(&[&["kill"], &machines[..]].concat()).await?;
    engine(&[&["start"], &machines[..]].concat()).await?;
    well(home, name, 3).await?;
    ensure!(data_of(&cluster, "meanwhile").await? == "of-old", "the data is there");
    parts.done("masters::all_killed_and_started_come_back_with_their_data");
    Ok(())
}

#[tokio::test]
#[ignore = "long: four clusters' worth of masters, one after the other"]
async fn one_master_is_raised_to_three() -> Check {
    let name = "kup-test-raised";
    let mut parts = Parts(Instant::now());
    let cluster = Cluster::up(name, "minions: { count: 0 }\n").await?;
    let home = cluster.home();
    write(&cluster, "before").await?;
    // Its machine is removed, but not its disk; and a disk whose etcd nothing is known of keeps what it holds.
    let first = format!("{name}-master-1");
    engine(&["rm", "-f", "--time=0", &first]).await?;
    home.kup(&["up", "--name", name, "-y"]).await?.ok("kup up on the disk of a machine that was removed")?;
    ensure!(data_of(&cluster, "before").await? == "of-old", "the disk's data is there");
    on(&first, "rm /var/lib/kup/etcd-formed /var/lib/kup/etcd.env; systemctl stop etcd").await?;
    home.kup(&["up", "--name", name, "-y"]).await?.ok("kup up on an etcd of unknown origin")?;
    ensure!(data_of(&cluster, "before").await? == "of-old", "data of unknown origin is kept");
    home.kup(&["up", "--name", name, "-y", "--set", "masters.count=3"]).await?.ok("kup up with three masters")?;
    let seen = well(home, name, 3).await?;
    ensure!(seen["etcd"]["quorum"] == 2, "{}", seen["etcd"]);
    ensure!(data_of(&cluster, "before").await? == "of-old", "the data is there");
    // Without the first one it still is.
    engine(&["rm", "-f", "--time=0", &first]).await?;
    engine(&["volume", "rm", &format!("kup-local-{first}")]).await?;
    ensure!(data_of(&cluster, "before").await? == "of-old", "the data is there without the first master");
    write(&cluster, "after").await?;
    // What is gone, disk and all, is made again by `up`: the one that it all began with too.
    home.kup(&["up", "--name", name, "-y"]).await?.ok("kup up after the loss")?;
    well(home, name, 3).await?;
    let refused = home.kup(&["up", "--name", name, "-y", "--set", "masters.count=1"]).await?;
    ensure!(refused.code == Some(2) && refused.stderr.contains("masters.count: 3 → 1"), "{}", refused.stderr);
    parts.done("masters::one_is_raised_to_three");
    Ok(())
}

#[tokio::test]
#[ignore = "long: six machines with five control planes"]
async fn five_masters_bear_the_loss_of_any_two() -> Check {
    let name = "kup-test-five";
    let mut parts = Parts(Instant::now());
    let cluster = Cluster::up(name, "masters: { count: 5 }\nminions: { count: 1 }\n").await?;
    let home = cluster.home();
    let seen = well(home, name, 5).await?;
    ensure!(seen["etcd"]["quorum"] == 3, "{}", seen["etcd"]);
    write(&cluster, "before").await?;
    parts.done("masters::five_come_up");

    let first = leader(&seen);
    let second = members(&seen).into_iter().map(|(machine, ..)| machine).find(|m| *m != first).ok_or("one member alone")?;
    for machine in [&first, &second] {
        cut_off(machine).await?;
    }
    write(&cluster, "meanwhile").await?;
    ensure!(data_of(&cluster, "before").await? == "of-old", "what was written before is there");
    let (code, seen) = status(home, name).await?;
    ensure!(code == Some(3), "two lost masters are not well: {seen}");
    ensure!(![&first, &second].contains(&&leader(&seen)) && !leader(&seen).is_empty(), "another leads: {}", seen["etcd"]);
    let named = |machine: &str| seen["problems"].as_array().into_iter().flatten().any(|p| p["machine"] == machine);
    ensure!(named(&first) && named(&second), "both are named: {}", seen["problems"]);
    for machine in [&first, &second] {
        let_back(machine).await?;
    }
    well(home, name, 5).await?;
    ensure!(data_of(&cluster, "meanwhile").await? == "of-old", "the data is there");
    parts.done("masters::two_of_five_may_be_lost");
    Ok(())
}
