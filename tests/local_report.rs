//! What `up` shows of itself on a real cluster of one master and one minion: the chain that decided its time, the picture of the run
//! (also of one that was interrupted), what to expect of the next; and the picture of the cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use kup::bootstrap::{On, STEPS};
use kup::cluster::spec::ProviderKind;
use kup::machine::Role;
use roxmltree::Document;
use serde_json::Value;
use support::Check;
use support::api::{Api, text};
use support::cluster::Home;
use tokio::io::{AsyncBufReadExt as _, BufReader};

const NAME: &str = "kup-test-report";

/// A picture's lanes or machines: the values of an attribute, and of another on the bars.
fn values<'a>(picture: &'a Document<'_>, attribute: &str) -> Vec<&'a str> {
    picture.descendants().filter_map(|n| n.attribute(attribute)).collect()
}

fn read(home: &Home, file: &str) -> Check<String> {
    Ok(std::fs::read_to_string(home.path().join(file))?)
}

/// The seconds of a word like `12.3s`.
fn seconds(word: &str) -> Option<f64> {
    word.strip_suffix('s')?.parse().ok()
}

/// Checks the chain below `What the time went to (…)`, and returns the total.
fn chain(stdout: &str) -> Check<f64> {
    let (_, rest) = stdout.split_once("What the time went to (").ok_or("no chain was printed")?;
    let (total, rest) = rest.split_once("):\n").ok_or("the chain has no total")?;
    let total = seconds(total).ok_or("the total is no time")?;
    let lines: Vec<&str> = rest.lines().take_while(|l| l.starts_with("  ")).collect();
    let links: Vec<f64> = lines.iter().filter_map(|l| l.split_whitespace().find_map(seconds)).collect();
    ensure!(links.len() == lines.len() && links.len() > 2, "no chain: {lines:#?}");
    let sum: f64 = links.iter().sum();
    let equal = (sum - total).abs() < 0.01;
    ensure!(equal, "the chain sums to {sum}, the total is {total}: {lines:#?}");
    Ok(total)
}

/// The first `up`: its chain, and its picture.
async fn a_run_is_drawn(home: &Home) -> Check {
    let output =
        home.kup(&["up", "--provider", "local", "--name", NAME, "--minions", "1", "-y", "--timeline", "run.svg"]).await?;
    let (stderr, stdout) = (output.stderr.clone(), output.ok("kup up")?);
    let total = chain(&stdout)?;
    ensure!(!stderr.contains("took ~"), "nothing is known before the first run: {stderr}");
    for link in ["API server", "all ready"] {
        ensure!(stdout.lines().any(|l| l.trim_start().starts_with(link)), "{link} decides how long a first run takes:\n{stdout}");
    }

    let svg = read(home, "run.svg")?;
    let picture = Document::parse(&svg)?;
    let lanes = values(&picture, "data-lane");
    ensure!(lanes == ["kup", "cluster", &format!("{NAME}-master-1"), &format!("{NAME}-minion-1")], "{lanes:?}");
    let bars = values(&picture, "data-step");
    for step in STEPS.iter().filter(|step| step.is_for(ProviderKind::Local)) {
        let count = bars.iter().filter(|b| **b == step.title).count();
        let machines = [Role::Master, Role::Minion].into_iter().filter(|role| step.on.includes(*role)).count();
        let expected = if step.on == On::Cluster { 1 } else { machines };
        ensure!(count >= expected, "{} has {count} bars: {bars:?}", step.title);
    }
    let shown: Vec<_> = picture.descendants().filter_map(|n| n.text()).map(str::trim).collect();
    ensure!(shown.iter().any(|t| t.ends_with("2 machines, ended well")), "{shown:?}");
    ensure!(
        shown.iter().any(|t| seconds(t.split(',').next().unwrap()).is_some_and(|s| (s - total).abs() < 2.0)),
        "{total}: {shown:?}"
    );
    Ok(())
}

/// Runs that find nothing to do are compared with each other, and say where their time went too.
async fn idle_runs_know_each_other(home: &Home) -> Check {
    let output = home.kup(&["up", "--name", NAME, "-o", "json"]).await?.ok("the second kup up")?;
    let result: Value = serde_json::from_str(output.lines().last().ok_or("it said nothing")?)?;
    let result = &result["result"];
    ensure!(result["changed"] == false, "{result}");
    let links = result["chain"].as_array().ok_or("no chain")?;
    let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    ensure!(number(&links[0]["from"]) == 0.0, "{links:?}");
    ensure!(links.windows(2).all(|w| w[0]["to"] == w[1]["from"]), "{links:?}");
    ensure!(links.last().unwrap()["to"] == result["took"], "{result}");

    let output = home.kup(&["up", "--name", NAME]).await?;
    ensure!(output.stderr.contains("note    the last run took ~"), "{}", output.stderr);
    ensure!(output.stderr.lines().any(|l| l.contains("done    connections (") && l.contains(" of ~")), "{}", output.stderr);
    chain(&output.stdout).map(drop)
}

/// `kup graph` shows every machine with its address, and every pod.
async fn the_cluster_is_drawn(home: &Home) -> Check {
    home.kup(&["graph", "--name", NAME, "cluster.svg"]).await?.ok("kup graph")?;
    let kubeconfig = kube::config::Kubeconfig::read_from(home.path().join("kubeconfig"))?;
    let server = kubeconfig.clusters[0].cluster.clone().and_then(|c| c.server).ok_or("no server")?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let api = Api::new(kube::Client::try_from(config)?);

    let svg = read(home, "cluster.svg")?;
    let picture = Document::parse(&svg)?;
    let machines = picture.descendants().filter(|n| n.attribute("data-machine").is_some());
    let mut drawn = BTreeSet::new();
    for node in api.list("/api/v1/nodes").await? {
        let name = text(&node["metadata"]["name"]);
        let machine =
            machines.clone().find(|m| m.attribute("data-machine") == Some(&name)).ok_or_else(|| format!("no {name}"))?;
        let words: Vec<&str> = machine.descendants().filter_map(|n| n.text()).map(str::trim).collect();
        let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let address = addresses.iter().find(|a| a["type"] == "InternalIP").map(|a| text(&a["address"])).ok_or("no address")?;
        let version = text(&node["status"]["nodeInfo"]["kubeletVersion"]);
        ensure!(words.contains(&"Ready"), "{name}: {words:?}");
        ensure!(words.iter().any(|w| w.contains(&address) && w.contains(&version)), "{address} {version}: {words:?}");
        for pod in api.list("/api/v1/pods").await?.iter().filter(|p| p["spec"]["nodeName"] == name) {
            let pod = format!("{}/{}", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
            ensure!(words.iter().any(|w| w.lines().any(|l| l == pod)), "{pod}: {words:?}");
            drawn.insert(pod);
        }
    }
    let pods = api.list("/api/v1/pods").await?.len();
    ensure!(drawn.len() == pods && pods >= 2, "{pods} pods, drawn: {drawn:?}");
    ensure!(svg.contains(&server), "the API's address {server} is not there");
    Ok(())
}

/// A run that is interrupted leaves its picture too; and runs that make a whole cluster know each other.
async fn an_interrupted_run_is_drawn(home: &Home) -> Check {
    home.kup(&["down", "--name", NAME, "-y"]).await?.ok("kup down")?;
    let mut command =
        home.command(&["up", "--provider", "local", "--name", NAME, "--minions", "1", "-y", "--timeline", "cut.svg"]);
    let mut child =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
    let mut seen = Vec::new();
    while let Some(line) = tokio::time::timeout(support::LONG, lines.next_line()).await?? {
        let reached = line.contains("start   API server");
        seen.push(line);
        if reached {
            break;
        }
    }
    let pid = child.id().ok_or("kup up ended early")?.to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status()?;
    while let Some(line) = tokio::time::timeout(support::LONG, lines.next_line()).await?? {
        seen.push(line);
    }
    let status = tokio::time::timeout(support::LONG, child.wait()).await??;
    ensure!(status.code() == Some(130), "{status}: {seen:#?}");
    ensure!(seen.iter().any(|l| l.contains("note    the last run took ~")), "{seen:#?}");
    ensure!(seen.iter().any(|l| l.contains("done    machines (") && l.contains(" of ~")), "{seen:#?}");
    let svg = read(home, "cut.svg")?;
    let picture = Document::parse(&svg)?;
    let shown: Vec<_> = picture.descendants().filter_map(|n| n.text()).map(str::trim).collect();
    ensure!(shown.iter().any(|t| t.ends_with("2 machines, did not end well")), "{shown:?}");
    ensure!(shown.contains(&"stopped") && values(&picture, "data-step").contains(&"API server"), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn watching_it() -> Check {
    let home = Home::new(NAME).await?;
    a_run_is_drawn(&home).await?;
    idle_runs_know_each_other(&home).await?;
    the_cluster_is_drawn(&home).await?;
    an_interrupted_run_is_drawn(&home).await?;
    home.kup(&["down", "--name", NAME, "-y"]).await?.ok("kup down")?;
    let state = home.path().join("state/kup");
    let left: Vec<_> = std::fs::read_dir(&state)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    ensure!(left.iter().any(|f| Path::new(f) == Path::new("times.json")), "{left:?}");
    let of_clusters: Vec<_> = std::fs::read_dir(state.join("local"))?.collect();
    ensure!(of_clusters.is_empty(), "{of_clusters:?}");
    Ok(())
}
