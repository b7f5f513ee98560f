//! Bad days on small clusters: kup killed at every step, machines that vanish, disks that fill up, certificates that are not
//! yet valid, ports that are taken. Each time kup says what is wrong and where, and `up` goes on once it is mended.
//!
//! `KUP_TEST_ONLY=disk` runs only the checks whose name contains that. Needs root and podman.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs, unreachable_pub)]

mod support;

#[path = "local_badday/broken.rs"]
mod broken;
#[path = "local_badday/killed.rs"]
mod killed;
#[path = "local_badday/lost.rs"]
mod lost;
#[path = "local_badday/resized.rs"]
mod resized;

use std::time::{Duration, Instant};

use support::cluster::{Home, Output};
use support::host::{kubectl, on, traces};
use support::{Check, eventually};

/// A `kup up` that mends something takes less than this, on a machine that is not busy.
const SLOW: Duration = Duration::from_secs(20);

/// A cluster on which things go wrong.
pub struct Day {
    /// Its user.
    pub home: Home,
    /// Its name.
    pub name: String,
    /// Its master's name.
    pub master: String,
    /// Its minion's name.
    pub minion: String,
    only: Option<String>,
    results: Vec<(String, Option<String>)>,
}

impl Day {
    async fn new(name: &str) -> Check<Day> {
        let only = std::env::var("KUP_TEST_ONLY").ok();
        let (master, minion) = (format!("{name}-master-1"), format!("{name}-minion-1"));
        Ok(Day { home: Home::new(name).await?, name: name.into(), master, minion, only, results: Vec::new() })
    }

    /// Runs one check; a failed one is told at the end, and the cluster mended for the next.
    async fn check(&mut self, name: &str, work: impl AsyncFnOnce(&Day) -> Check) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        let begun = Instant::now();
        let failure = work(self).await.err().map(|e| e.to_string());
        let word = if failure.is_none() { "ok    " } else { "FAILED" };
        eprintln!("{word} {name} ({:.1} s)", begun.elapsed().as_secs_f64());
        if let Some(failure) = &failure {
            eprintln!("{failure}");
            let _ = self.up(&[]).await;
        }
        self.results.push((name.to_owned(), failure));
    }

    /// Removes the cluster, of which nothing is left then, and tells what failed.
    async fn end(&self) -> Check {
        self.home.kup(&["down", "-y", "--name", &self.name]).await?.ok("kup down")?;
        let left = traces(&self.name).await;
        ensure!(left.is_empty(), "after all of this down leaves something: {left}");
        let failed: Vec<String> = self.results.iter().filter_map(|(n, f)| f.as_ref().map(|f| format!("{n}: {f}"))).collect();
        ensure!(failed.is_empty(), "{} of {} checks failed\n\n{}", failed.len(), self.results.len(), failed.join("\n\n"));
        Ok(())
    }

    /// The arguments of `kup up` for this cluster, and more.
    pub fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["up", "--name", &self.name, "--raise-limits", "-y"];
        // What it stands with is kept, once it has been made.
        if !self.home.path().join(format!("state/kup/local/{}/cluster.yaml", self.name)).exists() {
            args.extend(["--minions", "1"]);
        }
        args.extend(more);
        args
    }

    /// `kup up`, whatever comes of it.
    pub async fn up(&self, more: &[&str]) -> Check<Output> {
        self.home.kup(&self.args(more)).await
    }

    /// `kup up`, which must succeed.
    pub async fn ready(&self) -> Check<String> {
        let begun = Instant::now();
        let output = self.up(&[]).await?;
        // What a slow one waited for is of interest.
        if begun.elapsed() > SLOW {
            eprintln!("kup up took {:.1} s:\n{}", begun.elapsed().as_secs_f64(), output.stderr);
        }
        output.ok("kup up")
    }

    /// `kup up`, which must fail and name all of this.
    pub async fn fails(&self, more: &[&str], parts: &[&str]) -> Check<String> {
        let output = self.up(more).await?;
        ensure!(output.code == Some(1), "kup up ended with {:?}: {}{}", output.code, output.stdout, output.stderr);
        for part in parts {
            ensure!(output.stderr.contains(part), "the error does not say `{part}`: {}", output.stderr);
        }
        ensure!(output.stderr.contains("next: "), "the error does not say what to type: {}", output.stderr);
        Ok(output.stderr)
    }

    /// Runs a script on a machine, which must succeed.
    pub async fn on(&self, machine: &str, script: &str) -> Check<String> {
        on(machine, script).await.ok(&format!("`{script}` on {machine}"))
    }

    /// kubectl's standard output.
    pub async fn kubectl(&self, args: &[&str]) -> Check<String> {
        kubectl(&self.home, args).await
    }

    /// All Nodes are there and Ready, without kup's help.
    pub async fn nodes_ready(&self, count: usize) -> Check {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        eventually("all Nodes to be Ready", async || {
            let nodes = self.kubectl(&["get", "nodes", "-o", path]).await?;
            let ready = nodes.lines().filter(|l| l.ends_with(" True")).count();
            Ok(if ready == count && nodes.lines().count() == count { Ok(()) } else { Err(nodes) })
        })
        .await
    }
}

/// Two clusters side by side: most of a bad day is waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_days() {
    let (one, other) = tokio::join!(killed_lost_and_resized(), broken());
    let failed: Vec<String> = [one, other].into_iter().filter_map(|outcome| Some(outcome.err()?.to_string())).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

async fn killed_lost_and_resized() -> Check {
    let mut day = Day::new("kup-test-days").await?;
    day.check("killed::at_every_step_it_goes_on", killed::at_every_step_it_goes_on).await;
    if day.only.is_some() {
        day.ready().await?;
    }
    day.check("killed::a_half_made_service_is_made", killed::a_half_made_service_is_made).await;
    day.check("killed::two_at_once_and_a_dead_owner", killed::two_at_once_and_a_dead_owner).await;
    day.check("lost::a_machine_removed_in_the_middle_is_made_again", lost::a_machine_removed_in_the_middle_is_made_again).await;
    day.check("lost::all_machines_lose_power_and_come_back", lost::all_machines_lose_power_and_come_back).await;
    day.check("resized::changed_settings_reach_every_machine", resized::changed_settings_reach_every_machine).await;
    day.check("resized::a_deleted_node_comes_back_with_another_range", resized::a_deleted_node_comes_back_with_another_range)
        .await;
    day.check("resized::minions_come_and_go", resized::minions_come_and_go).await;
    day.end().await
}

async fn broken() -> Check {
    let mut day = Day::new("kup-test-broken").await?;
    day.ready().await?;
    day.check("broken::a_full_disk_is_named", broken::a_full_disk_is_named).await;
    day.check("broken::a_certificate_of_the_future_is_named", broken::a_certificate_of_the_future_is_named).await;
    day.check("broken::a_login_of_another_authority_is_named", broken::a_login_of_another_authority_is_named).await;
    day.check("broken::an_api_that_cannot_be_reached_is_named", broken::an_api_that_cannot_be_reached_is_named).await;
    day.check("broken::a_unit_that_keeps_crashing_is_named", broken::a_unit_that_keeps_crashing_is_named).await;
    day.check("broken::an_image_that_is_gone_is_named", broken::an_image_that_is_gone_is_named).await;
    day.check("broken::a_master_that_never_gets_ready_says_why", broken::a_master_that_never_gets_ready_says_why).await;
    day.check("broken::a_taken_port_is_named", broken::a_taken_port_is_named).await;
    day.end().await
}

/// The same kills, each on a cluster that has just begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a new cluster for every step and ten random moments"]
async fn killed_on_new_clusters() -> Check {
    let mut day = Day::new("kup-test-killed").await?;
    for step in killed::steps() {
        let name = format!("killed::new_cluster_after_{}", step.name.replace('-', "_"));
        day.check(&name, async |day| killed::new_cluster(day, killed::When::After(step.title)).await).await;
    }
    let seed = killed::seed();
    for (n, moment) in killed::moments(seed, 10, Duration::from_secs(12)).into_iter().enumerate() {
        let name = format!("killed::new_cluster_at_moment_{n}");
        eprintln!("seed {seed}: moment {n} is after {} ms (KUP_TEST_SEED repeats them)", moment.as_millis());
        day.check(&name, async |day| killed::new_cluster(day, killed::When::At(moment)).await).await;
    }
    day.end().await
}
