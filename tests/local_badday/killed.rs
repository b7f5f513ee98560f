//! kup itself is killed, with a signal that leaves it no time.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kup::bootstrap::{On, STEPS, Step};
use kup::cluster::spec::ProviderKind;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::cluster::run;
use crate::support::host::runs;
use crate::support::{Check, LONG, eventually};
use crate::{Day, ensure};

/// The steps at whose ends kup is killed: those that a cluster of one master has.
pub fn steps() -> Vec<&'static Step> {
    STEPS.iter().filter(|step| step.on != On::Balancers && step.is_for(ProviderKind::Local)).collect()
}

/// When to kill.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// As soon as the step of this title has ended on all machines.
    After(&'static str),
    /// So long after the start.
    At(Duration),
}

/// A `kup up` that can be watched.
pub struct Running {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `kup up` with its events on standard output.
    pub fn start(day: &Day, more: &[&str]) -> Check<Running> {
        let mut args = day.args(more);
        args.extend(["-o", "json"]);
        let mut child = day
            .home
            .command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        Ok(Running { child, lines })
    }

    /// The next event; none at the end.
    pub async fn event(&mut self) -> Check<Option<Value>> {
        let line = tokio::time::timeout(LONG, self.lines.next_line()).await.map_err(|_| "kup up says nothing any more")??;
        Ok(line.map(|l| serde_json::from_str(&l)).transpose()?)
    }

    /// Reads events until one fits.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Check<Value> {
        let mut last = Value::Null;
        while let Some(event) = self.event().await? {
            if fits(&event) {
                return Ok(event);
            }
            last = event;
        }
        Err(format!("kup up ended before {what}; its last word was {last}").into())
    }

    /// Reads events until the step of this title has ended.
    pub async fn end_of(&mut self, title: &str) -> Check {
        let begun = self.until(title, |e| e["event"] == "started" && e["parent"].is_null() && e["title"] == title).await?;
        self.until(&format!("the end of {title}"), |e| e["event"] == "done" && e["id"] == begun["id"]).await.map(drop)
    }

    /// SIGKILL.
    pub async fn kill(mut self) -> Check {
        Ok(self.child.kill().await?)
    }
}

/// From nothing to a cluster, with a kill at the end of each step; then all is there, and nothing is left to do.
pub async fn at_every_step_it_goes_on(day: &Day) -> Check {
    for step in steps() {
        let mut running = Running::start(day, &[])?;
        running.end_of(step.title).await.map_err(|e| format!("before the kill after `{}`: {e}", step.name))?;
        running.kill().await?;
    }
    whole(day).await
}

/// Ready, and a second time nothing changes.
async fn whole(day: &Day) -> Check {
    day.ready().await?;
    day.nodes_ready(2).await?;
    let before = (runs(&day.master).await, runs(&day.minion).await);
    let again = day.ready().await?;
    ensure!(again.contains("is ready, as before"), "{again}");
    ensure!((runs(&day.master).await, runs(&day.minion).await) == before, "the second up changed something");
    let status = day.home.kup(&["status", "--name", &day.name]).await?;
    ensure!(status.code == Some(0), "{}{}", status.stdout, status.stderr);
    Ok(())
}

/// A new cluster, one kill, then to the end.
pub async fn new_cluster(day: &Day, when: When) -> Check {
    day.home.kup(&["down", "-y", "--name", &day.name]).await?.ok("kup down")?;
    let mut running = Running::start(day, &[])?;
    match when {
        When::After(title) => running.end_of(title).await?,
        When::At(moment) => tokio::time::sleep(moment).await,
    }
    running.kill().await?;
    whole(day).await
}

/// A kup that died while the API server made its Service leaves the Service's address reserved for nothing.
pub async fn a_half_made_service_is_made(day: &Day) -> Check {
    let reserve = async |owner: &str| -> Check {
        let yaml = format!(
            "apiVersion: networking.k8s.io/v1\nkind: IPAddress\nmetadata:\n  name: 10.0.0.10\n  labels: {{ ipaddress.kubernetes.io/ip-family: IPv4, ipaddress.kubernetes.io/managed-by: ipallocator.k8s.io }}\nspec:\n  parentRef: {{ resource: services, namespace: kube-system, name: {owner} }}\n"
        );
        let file = day.home.path().join("address.yaml");
        std::fs::write(&file, yaml)?;
        eventually("the address to be free", async || {
            let there = day.kubectl(&["get", "ipaddress", "10.0.0.10", "--ignore-not-found"]).await?;
            Ok(if there.is_empty() { Ok(()) } else { Err(there) })
        })
        .await?;
        day.kubectl(&["create", "-f", &file.to_string_lossy()]).await.map(drop)
    };
    day.kubectl(&["delete", "service", "-n", "kube-system", "kube-dns"]).await?;
    reserve("kube-dns").await?;
    day.ready().await?;
    let address = day.kubectl(&["get", "service", "-n", "kube-system", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"]).await?;
    ensure!(address == "10.0.0.10", "{address}");

    // What somebody else has is left to them.
    day.kubectl(&["delete", "service", "-n", "kube-system", "kube-dns"]).await?;
    reserve("another").await?;
    day.fails(&[], &["10.0.0.10", "is used by services kube-system/another"]).await?;
    day.kubectl(&["delete", "ipaddress", "10.0.0.10"]).await?;
    day.ready().await.map(drop)
}

/// The second of two is refused at once and told who is first; when that one is dead, its lock is in nobody's way.
pub async fn two_at_once_and_a_dead_owner(day: &Day) -> Check {
    let mut first = Running::start(day, &[])?;
    let pid = first.child.id().ok_or("it has ended")?;
    // By then it has the lock; stopped, it keeps it however quickly it would be through.
    first.until("a step under the lock", |e| e["event"] == "started" && e["title"] == "machines found").await?;
    let stopped = run(Command::new("kill").args(["-STOP", &pid.to_string()]), None).await?;
    ensure!(stopped.code == Some(0), "{stopped:?}");
    let second = day.up(&[]).await;
    first.kill().await?;
    let second = second?;
    ensure!(second.code == Some(1), "{second:?}");
    for part in [format!("process {pid}"), format!("up --name {}", day.name), "being changed by another kup".to_owned()] {
        ensure!(second.stderr.contains(&part), "`{part}` is not in: {}", second.stderr);
    }
    day.ready().await.map(drop)
}

/// What the random moments follow from: `KUP_TEST_SEED`, or the time.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| u64::from(d.subsec_nanos()) | 1);
    std::env::var("KUP_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(now)
}

/// Moments below `limit`, all following from the seed (xorshift64).
pub fn moments(seed: u64, count: usize, limit: Duration) -> Vec<Duration> {
    let mut state = seed.max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    (0..count).map(|_| Duration::from_millis(next() % limit)).collect()
}
