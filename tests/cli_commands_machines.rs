//! status, get, ssh, logs, kubectl and kubeconfig on a real cluster of one master and one minion.
//!
//! Needs root, a container engine and a bundle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use support::api::text;
use support::cluster::{Cluster, Node};
use support::{Check, eventually};

const NAME: &str = "kup-test-commands";
const CONFIG: &str = "
apiVersion: kup.dev/v1alpha1
kind: Cluster
masters: { count: 1 }
minions: { count: 1 }
";
/// The units of a master; the first six are a minion's too.
const UNITS: [&str; 10] = [
    "kup-hosts",
    "kup-host",
    "containerd",
    "kubelet",
    "flanneld",
    "kube-proxy",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_on_a_cluster() {
    let cluster = Cluster::up(NAME, CONFIG).await.unwrap_or_else(|e| panic!("{e}"));
    macro_rules! in_turn {
        ($($check:ident),+ $(,)?) => {$(
            let started = Instant::now();
            $check(&cluster).await.unwrap_or_else(|e| panic!("{}: {e}", stringify!($check)));
            eprintln!("ok     {} ({:.1} s)", stringify!($check), started.elapsed().as_secs_f64());
        )+};
    }
    // The last two leave the minion unwell.
    in_turn!(
        all_is_well,
        clusters_and_nodes_are_listed,
        ssh_passes_commands_and_exit_codes,
        kubectl_passes_arguments_and_exit_codes,
        kubeconfig_is_printed_exported_and_merged,
        journals_are_printed_in_order,
        the_archive_holds_all_and_no_secret,
        each_stopped_unit_is_named,
        another_host_key_is_refused,
        a_stopped_machine_is_named,
    );
}

async fn status(cluster: &Cluster) -> Check<(Option<i32>, Value)> {
    let output = cluster.kup(&["status", "--name", NAME, "-o", "json"]).await?;
    let status = serde_json::from_str(&output.stdout).map_err(|e| format!("{e}: {}{}", output.stdout, output.stderr))?;
    Ok((output.code, status))
}

/// The failing problems, as "machine: what".
fn failing(status: &Value) -> Vec<String> {
    let problems = status["problems"].as_array().into_iter().flatten();
    problems.filter(|p| p["severity"] == "failing").map(|p| format!("{}: {}", text(&p["machine"]), text(&p["what"]))).collect()
}

async fn well_again(cluster: &Cluster) -> Check {
    eventually("the cluster to be well", async || {
        let (code, status) = status(cluster).await?;
        Ok(if code == Some(0) { Ok(()) } else { Err(failing(&status).join("\n")) })
    })
    .await
}

async fn all_is_well(cluster: &Cluster) -> Check {
    // DNS replicas may just be moving.
    well_again(cluster).await?;
    let (_, status) = status(cluster).await?;
    ensure!(status["healthy"] == true && failing(&status).is_empty(), "{status:#}");
    for machine in status["machines"].as_array().ok_or("no machines")? {
        let name = text(&machine["name"]);
        let node = cluster.nodes.iter().find(|n| n.name == name).ok_or("a machine that is no node")?;
        let units: BTreeSet<String> = machine["units"].as_array().into_iter().flatten().map(|u| text(&u["name"])).collect();
        let wanted = UNITS.iter().take(if node.master { 10 } else { 6 });
        ensure!(units == wanted.map(|u| (*u).to_owned()).collect(), "units of {name}: {units:?}");
        let dates: BTreeMap<String, String> =
            machine["certificates"].as_array().into_iter().flatten().map(|c| (text(&c["path"]), text(&c["notAfter"]))).collect();
        let on_it = cluster.read(node, "ls /etc/kup/pki/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem").await?;
        ensure!(
            dates.keys().map(String::as_str).collect::<BTreeSet<_>>() == on_it.lines().collect(),
            "{name}: {dates:?} but there are {on_it}"
        );
        // Another program's opinion of one of the dates.
        let end = cluster.engine(&["exec", &name, "cat", "/etc/kup/pki/kubelet-server.crt"]).await?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(end.as_bytes())?;
        let until = pem.parse_x509()?.validity().not_after.to_datetime().unix_timestamp();
        let told = time::OffsetDateTime::parse(
            &dates["/etc/kup/pki/kubelet-server.crt"],
            &time::format_description::well_known::Rfc3339,
        )?;
        ensure!(told.unix_timestamp() == until, "{told} is not {until}");
    }
    let short = cluster.kup(&["status", "--name", NAME]).await?.ok("kup status")?;
    ensure!(short.lines().all(|l| l.chars().count() <= 80), "wider than 80 columns:\n{short}");
    ensure!(short.lines().count() <= 12, "not short:\n{short}");
    let wide = cluster.kup(&["status", "--name", NAME, "--wide"]).await?.ok("kup status --wide")?;
    ensure!(wide.lines().all(|l| l.chars().count() <= 80), "wider than 80 columns:\n{wide}");
    Ok(())
}

async fn clusters_and_nodes_are_listed(cluster: &Cluster) -> Check {
    let clusters: Value = serde_json::from_str(&cluster.kup(&["get", "clusters", "-o", "json"]).await?.ok("kup get clusters")?)?;
    let mine: Vec<_> = clusters.as_array().into_iter().flatten().filter(|c| c["name"] == NAME).collect();
    ensure!(mine.len() == 1, "{clusters:#}");
    let version = text(&cluster.api.get("/version").await?["gitVersion"]);
    ensure!(format!("v{}", text(&mine[0]["version"])) == version, "{mine:?} but the API says {version}");
    ensure!(mine[0]["running"] == 2 && mine[0]["machines"] == 2 && mine[0]["context"] == format!("local_{NAME}"), "{mine:?}");

    let nodes: Value =
        serde_json::from_str(&cluster.kup(&["get", "nodes", "--name", NAME, "-o", "json"]).await?.ok("kup get nodes")?)?;
    let told: Vec<(String, String, bool)> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .map(|n| {
            (text(&n["name"]), text(&n["address"]), n["ready"] == true && n["running"] == true && text(&n["version"]) == version)
        })
        .collect();
    let known: Vec<_> = cluster.nodes.iter().map(|n| (n.name.clone(), n.address.to_string(), true)).collect();
    ensure!(told == known, "{told:?} is not {known:?}");
    Ok(())
}

async fn ssh_passes_commands_and_exit_codes(cluster: &Cluster) -> Check {
    let master = &cluster.master().name;
    let name = cluster.kup(&["ssh", "--name", NAME, "master-1", "--", "hostname"]).await?.ok("kup ssh")?;
    ensure!(name.trim() == master, "{name} is not {master}");
    // The full name needs no --name, whatever else stands here.
    let script = "printf '%s|' \"$@\"; echo \"to err\" >&2; exit 7";
    let output = cluster.kup(&["ssh", master, "--", "sh", "-c", script, "sh", "a  b", "$HOME", "'"]).await?;
    ensure!(output.code == Some(7) && output.stdout == "a  b|$HOME|'|", "{output:?}");
    ensure!(output.stderr == "to err\n", "{output:?}");
    let lines =
        cluster.kup(&["ssh", "--name", NAME, "minion-1", "--", "echo one two | wc -w"]).await?.ok("a line for a shell")?;
    ensure!(lines.trim() == "2", "{lines}");
    Ok(())
}

async fn kubectl_passes_arguments_and_exit_codes(cluster: &Cluster) -> Check {
    let nodes = cluster.kup(&["kubectl", "--name", NAME, "--", "get", "nodes", "-o", "name"]).await?.ok("kup kubectl")?;
    ensure!(nodes.lines().count() == 2 && nodes.contains(&cluster.master().name), "{nodes}");
    // Without the dashes: flags after kubectl's first word are kubectl's.
    let names =
        cluster.kup(&["kubectl", "--name", NAME, "get", "pods", "-n", "kube-system", "-o", "name"]).await?.ok("kup kubectl")?;
    ensure!(names.contains("pod/coredns-"), "{names}");
    let output = cluster.kup(&["kubectl", "--name", NAME, "--", "get", "pod", "nothing-like-it"]).await?;
    ensure!(output.code == Some(1) && output.stderr.contains("NotFound"), "{output:?}");
    for entry in walk(&state(cluster)) {
        let mode = fs::metadata(&entry)?.permissions().mode() & 0o777;
        // What machines read of their seed by another user's eyes holds no key.
        ensure!(
            mode & 0o077 == 0 || !fs::read_to_string(&entry)?.contains("PRIVATE KEY"),
            "{} has mode {mode:o}",
            entry.display()
        );
    }
    Ok(())
}

async fn kubeconfig_is_printed_exported_and_merged(cluster: &Cluster) -> Check {
    let printed = cluster.kup(&["kubeconfig", "--name", NAME]).await?.ok("kup kubeconfig")?;
    let file = cluster.scratch("exported");
    let path = file.to_string_lossy().into_owned();
    cluster.kup(&["kubeconfig", "--name", NAME, "--export", &path]).await?.ok("kup kubeconfig --export")?;
    ensure!(fs::read_to_string(&file)?.trim() == printed.trim(), "printed and exported differ");
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others can read it");
    cluster.kubectl(&["--kubeconfig", &path, "get", "nodes"]).await?.ok("kubectl with the exported file")?;
    let again = cluster.kup(&["kubeconfig", "--name", NAME, "--export", &path]).await?;
    ensure!(again.code == Some(2), "replaced unasked: {again:?}");

    let context = format!("local_{NAME}");
    cluster.kubectl(&["config", "delete-context", &context]).await?.ok("kubectl config delete-context")?;
    cluster.kup(&["kubeconfig", "--name", NAME, "--merge"]).await?.ok("kup kubeconfig --merge")?;
    let current = cluster.kubectl(&["config", "current-context"]).await?.ok("kubectl config current-context")?;
    ensure!(current.trim() == context, "{current}");
    Ok(())
}

/// The units that say something all the time. What the other two said is lost if journald takes its new settings just then.
fn talkative(node: &Node) -> impl Iterator<Item = &'static str> {
    UNITS.into_iter().take(if node.master { 10 } else { 6 }).skip(2)
}

async fn journals_are_printed_in_order(cluster: &Cluster) -> Check {
    let lines = cluster.kup(&["logs", "--name", NAME, "-o", "json", "--tail", "all"]).await?.ok("kup logs")?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let times: Vec<String> = lines.iter().map(|l| text(&l["time"])).collect();
    ensure!(times.is_sorted(), "not in order");
    let said: BTreeSet<(String, String)> = lines.iter().map(|l| (text(&l["machine"]), text(&l["unit"]))).collect();
    for node in &cluster.nodes {
        for unit in talkative(node) {
            ensure!(said.contains(&(node.name.clone(), unit.to_owned())), "nothing of {unit} on {}", node.name);
        }
    }
    let some = cluster.kup(&["logs", "--name", NAME, "minion-1", "-u", "kubelet", "--since", "1h"]).await?.ok("kup logs -u")?;
    ensure!(
        !some.is_empty() && some.lines().filter(|l| l.contains(" minion-1/")).all(|l| l.contains(" minion-1/kubelet: ")),
        "{some}"
    );
    ensure!(!some.contains(" master-1/"), "{some}");
    let few = cluster.kup(&["logs", "--name", NAME, "master-1", "-o", "json", "--tail", "7"]).await?.ok("kup logs --tail")?;
    ensure!(few.lines().count() == 7, "{few}");
    Ok(())
}

fn state(cluster: &Cluster) -> std::path::PathBuf {
    cluster.scratch(&format!("state/kup/local/{NAME}"))
}

/// All files below a directory.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Every secret that this cluster's user has: each line of a private key that no certificate holds too, and the encryption key.
fn secrets(cluster: &Cluster) -> Check<Vec<String>> {
    let (mut secrets, mut public) = (Vec::new(), String::new());
    for path in walk(&state(cluster)) {
        let text = fs::read_to_string(&path)?;
        if path.ends_with("encryption.key") {
            secrets.push(text.trim().to_owned());
        } else if text.contains("PRIVATE KEY") {
            secrets.extend(text.lines().filter(|l| !l.starts_with("-----") && l.len() >= 16).map(str::to_owned));
        } else {
            public.extend(text.lines());
        }
    }
    secrets.retain(|s| !public.contains(s.as_str()));
    ensure!(secrets.len() > 50, "only {} secrets were found", secrets.len());
    Ok(secrets)
}

async fn the_archive_holds_all_and_no_secret(cluster: &Cluster) -> Check {
    let master = cluster.master();
    let mut secrets = secrets(cluster)?;
    let token = cluster.kubectl(&["create", "token", "default"]).await?.ok("kubectl create token")?.trim().to_owned();
    ensure!(token.matches('.').count() == 2, "{token} is no token");
    let value = "a-value-that-a-user-keeps-secret";
    let key = fs::read_to_string(state(cluster).join("pki/service-account.key"))?;
    // Programs that log what they should not: a container, and one that writes to the system's journal.
    let logged: String = key
        .lines()
        .chain([token.as_str(), "marker-of-the-pod"])
        .map(|l| format!("2026-11-21T00:00:00Z stdout F {l}\n"))
        .collect();
    let script = format!(
        "mkdir -p /var/log/pods/default_leaky_0/c && cat > /var/log/pods/default_leaky_0/c/0.log <<'END'\n{logged}END\n\
         logger -p user.warning 'marker-of-the-journal {token}'; logger -p user.warning <<'END'\n{key}END\njournalctl --sync\n"
    );
    cluster.read(master, &script).await?;
    // And objects that hold it where it does not belong.
    let map =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "leaky" }, "data": { "marker-of-the-map": key } });
    cluster.api.apply("kube-system", &map).await?;
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "leaky" }, "stringData": { "value": value } });
    cluster.api.apply("default", &secret).await?;
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "marker-of-the-object" }, "spec": {
        "nodeSelector": { "nowhere": "" },
        "containers": [{ "name": "c", "image": "none", "env": [{ "name": "VALUE", "value": value }, { "name": "TOKEN", "value": token }] }],
    } });
    cluster.api.apply("default", &pod).await?;
    secrets.extend([token.clone(), token.rsplit('.').next().unwrap_or_default().to_owned(), value.to_owned()]);
    secrets.push({
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(value)
    });

    let file = cluster.scratch("logs.tar.gz");
    cluster.kup(&["logs", "--name", NAME, "--archive", &file.to_string_lossy()]).await?.ok("kup logs --archive")?;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others can read it");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(&file)?).read_to_end(&mut bytes)?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.strip_prefix(format!("{NAME}-logs"))?.to_string_lossy().into_owned();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents)?;
        files.insert(path, String::from_utf8_lossy(&contents).into_owned());
    }
    let missing = files.get("missing.txt").ok_or("no missing.txt")?;
    ensure!(missing.is_empty(), "missing: {missing}");
    for node in &cluster.nodes {
        for unit in talkative(node) {
            let path = format!("machines/{}/journal/{unit}.log", node.name);
            ensure!(files.get(&path).is_some_and(|f| !f.is_empty()), "no {path}");
        }
        for path in [
            "etc/kup/kubelet.yaml",
            "etc/containerd/config.toml",
            "etc/systemd/system/kubelet.service",
            "system/routes.txt",
            "kubelet-configz.yaml",
        ] {
            ensure!(
                files.get(&format!("machines/{}/{path}", node.name)).is_some_and(|f| !f.is_empty()),
                "no {path} of {}",
                node.name
            );
        }
    }
    ensure!(files["status.txt"].contains(NAME) && files["status.json"].contains("\"healthy\""), "no status");
    // What was planted is in there; the secrets beside it are not.
    for (path, marker) in [
        (format!("machines/{}/pods/default_leaky_0/c/0.log", master.name), "marker-of-the-pod"),
        (format!("machines/{}/journal/warnings-of-all.log", master.name), "marker-of-the-journal"),
        ("api/system-configmaps.yaml".to_owned(), "marker-of-the-map"),
        ("api/pods.yaml".to_owned(), "marker-of-the-object"),
    ] {
        ensure!(files.get(&path).is_some_and(|f| f.contains(marker)), "{path} has no {marker}");
    }
    for (path, contents) in &files {
        ensure!(!contents.contains("PRIVATE KEY-----"), "{path} holds a private key");
        for secret in &secrets {
            ensure!(!contents.contains(secret.as_str()), "{path} holds a secret");
        }
    }
    for secret in &secrets {
        ensure!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "the archive holds a secret outside of its files");
    }
    for path in ["pods/marker-of-the-object", "secrets/leaky"] {
        cluster.api.delete(&format!("/api/v1/namespaces/default/{path}")).await?;
    }
    Ok(())
}

async fn each_stopped_unit_is_named(cluster: &Cluster) -> Check {
    let (master, minion) = (cluster.master(), cluster.minions().next().ok_or("no minion")?);
    for (turn, unit) in UNITS.iter().enumerate() {
        // One on each machine at a time, never the same on both.
        let other = UNITS[(turn + 1) % 6];
        let stop =
            |node: &'_ Node, unit: &str| format!("systemctl stop {unit} && ! systemctl -q is-active {unit} # {}", node.name);
        let (stop_one, stop_other) = (stop(master, unit), stop(minion, other));
        let (one, two) = tokio::join!(cluster.read(master, &stop_one), cluster.read(minion, &stop_other));
        one?;
        two?;
        let (code, status) = status(cluster).await?;
        ensure!(code == Some(3), "exit code {code:?} with {unit} stopped");
        let failing = failing(&status);
        for (node, unit) in [(master, *unit), (minion, other)] {
            let named = format!("{}: {unit} on {} is inactive (dead)", node.name, node.name);
            ensure!(failing.contains(&named), "{named} is not among {failing:#?}");
        }
        let mut inactive = BTreeSet::new();
        for machine in status["machines"].as_array().into_iter().flatten() {
            for unit in machine["units"].as_array().into_iter().flatten().filter(|u| u["active"] == "inactive") {
                inactive.insert((text(&machine["name"]), text(&unit["name"])));
                ensure!(
                    !unit["journal"].as_array().into_iter().flatten().collect::<Vec<_>>().is_empty(),
                    "no last words of {unit}"
                );
            }
        }
        let stopped = BTreeSet::from([(master.name.clone(), (*unit).to_owned()), (minion.name.clone(), other.to_owned())]);
        ensure!(inactive == stopped, "{inactive:?} are told to be stopped, {stopped:?} are");
        let (start_one, start_other) = (format!("systemctl start {unit}"), format!("systemctl start {other}"));
        let (one, two) = tokio::join!(cluster.read(master, &start_one), cluster.read(minion, &start_other));
        one?;
        two?;
    }
    well_again(cluster).await
}

async fn another_host_key_is_refused(cluster: &Cluster) -> Check {
    let minion = cluster.minions().next().ok_or("no minion")?;
    let change = "cd /etc/ssh && mv ssh_host_ed25519_key /root/mine && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh";
    cluster.read(minion, change).await?;
    let output = cluster.kup(&["ssh", &minion.name, "--", "touch", "/root/reached"]).await?;
    ensure!(output.code == Some(255), "{output:?}");
    let (code, status) = status(cluster).await?;
    let failing = failing(&status);
    ensure!(
        code == Some(3) && failing.contains(&format!("{}: machine {} does not answer", minion.name, minion.name)),
        "{failing:?}"
    );
    ensure!(status.to_string().contains("another SSH host key"), "{status:#}");
    let reached = cluster.on(minion, "test -e /root/reached").await?;
    ensure!(reached.code == Some(1), "the command ran on a machine with another host key");
    cluster.read(minion, "cd /etc/ssh && mv /root/mine ssh_host_ed25519_key && systemctl restart ssh").await?;
    well_again(cluster).await
}

async fn a_stopped_machine_is_named(cluster: &Cluster) -> Check {
    let minion = cluster.minions().next().ok_or("no minion")?;
    cluster.engine(&["kill", &minion.name]).await?;
    let (code, status) = status(cluster).await?;
    let failing = failing(&status);
    ensure!(
        code == Some(3) && failing.first() == Some(&format!("{}: machine {} is stopped", minion.name, minion.name)),
        "{failing:?}"
    );
    let nodes = cluster.kup(&["get", "nodes", "--name", NAME]).await?.ok("kup get nodes")?;
    ensure!(nodes.lines().any(|l| l.starts_with(&minion.name) && l.contains("stopped")), "{nodes}");
    let logs = cluster.kup(&["logs", &minion.name]).await?;
    ensure!(logs.code == Some(1) && logs.stdout.contains("minion-1/console: "), "{logs:?}");
    // An archive of what can be had is still one.
    let file = cluster.scratch("half.tar.gz");
    let output = cluster.kup(&["logs", "--name", NAME, "--archive", &file.to_string_lossy()]).await?;
    ensure!(
        output.code == Some(0) && output.stderr.contains(&format!("{}: machine {} is stopped", minion.name, minion.name)),
        "{output:?}"
    );
    Ok(())
}
