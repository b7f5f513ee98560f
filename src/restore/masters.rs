//! What a restore does on machines: each part a function of `templates/node/etcd-restore.sh`, whose last word is the proof that it ran to its
//! end.

use std::time::Duration;

use crate::backup::Snapshot;
use crate::error::{Error, Result};
use crate::machine::ssh::{Ssh, last_lines, quoted};
use crate::machine::topology::{Peer, Topology};
use crate::report::Span;
use crate::templates;

/// How long a master may take to get the snapshot and to make a data directory of it: 8 GiB, etcd's largest, on a slow disk.
const PREPARE: Duration = Duration::from_secs(20 * 60);
/// How long anything else may take: units that don't stop are killed after 90 s.
const PART: Duration = Duration::from_secs(150);

/// Makes every master have the snapshot as a data directory beside the one in use.
pub(super) async fn prepare(
    masters: &[Ssh],
    topology: &Topology,
    snapshot: &Snapshot,
    token: &str,
    bump: u64,
    span: &Span,
) -> Result<()> {
    let (sum, members) = (&snapshot.sha256, topology.etcd_cluster());
    let each = masters.iter().map(|ssh| {
        let part = span.child(&ssh.machine().name);
        let members = &members;
        async move {
            part.waiting("the snapshot to arrive and to be made into data");
            let me = Peer::from(ssh.machine());
            let (name, url) = (quoted(&me.name), me.etcd_peer_url());
            let words = format!("prepare {sum} {name} {url} {} {token} {bump}", quoted(members));
            let reader = snapshot.reader();
            let output = ssh.exec_reading(&command(&words)?, move || Ok(Box::new(reader)), PREPARE).await;
            let outcome = output.and_then(|output| proven(ssh, &output, "kup-prepared"));
            part.close(outcome.map(drop).map_err(|e| e.within(format!("{} can't use the snapshot", me.name))))
        }
    });
    futures::future::try_join_all(each).await.map(drop)
}

/// Stops everything that calls etcd, then etcd, on all masters, and has the prepared directories take the place of those that are there.
pub(super) async fn replace(masters: &[Ssh], token: &str, again: &str, span: &Span) -> Result<()> {
    for (what, words, proof) in [
        ("API servers and controllers to stop on all masters", format!("stop {}", quoted(again)), "kup-stopped"),
        ("etcd to stop on all masters", "stop_etcd".to_owned(), "kup-stopped"),
        ("the snapshot to take its place on all masters", format!("take_place {token}"), "kup-placed"),
    ] {
        span.waiting(what);
        all(masters, &words, proof).await?;
    }
    Ok(())
}

/// Has what nodes run look at everything anew, with its next start.
pub(super) async fn forget(nodes: &[Ssh], span: &Span) -> Result<()> {
    span.waiting("all nodes to be told");
    all(nodes, "forget", "kup-marked").await
}

/// As [`forget`], on a minion that sets itself up, and has it do so at once.
pub(super) async fn rejoin(minion: &Ssh) -> Result<()> {
    run(minion, "rejoin", "kup-rejoining").await.map(drop)
}

/// Has etcd forget who answered for the API and who led when the snapshot was taken, through one master.
pub(super) async fn forget_leaders(master: &Ssh) -> Result<()> {
    run(master, "forget_leaders", "kup-forgotten").await.map(drop)
}

/// Removes all Secrets from etcd, through one master. Says which they were.
pub(super) async fn drop_secrets(master: &Ssh) -> Result<Vec<String>> {
    let text = run(master, "drop_secrets", "kup-dropped").await?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Removes what etcd had before.
pub(super) async fn finish(masters: &[Ssh]) -> Result<()> {
    all(masters, "finish", "kup-finished").await
}

async fn all(machines: &[Ssh], words: &str, proof: &str) -> Result<()> {
    futures::future::try_join_all(machines.iter().map(|ssh| run(ssh, words, proof))).await.map(drop)
}

async fn run(ssh: &Ssh, words: &str, proof: &str) -> Result<String> {
    proven(ssh, &ssh.exec(&command(words)?, "", PART).await?, proof)
}

/// A function of the script with its arguments, all of them checked names, addresses and numbers of ours, or quoted.
fn command(words: &str) -> Result<String> {
    Ok(format!("{}\n{words}", templates::text("node/etcd-restore.sh")?))
}

/// What was written before the last word. An exit status of 0 is also what a cut link gives.
fn proven(ssh: &Ssh, output: &crate::machine::ssh::Output, proof: &str) -> Result<String> {
    match output.text().strip_suffix(&format!("{proof}\n")) {
        Some(text) if output.status == 0 => Ok(text.to_owned()),
        _ => {
            let why = if output.stderr.trim().is_empty() { "the link was cut".to_owned() } else { last_lines(&output.stderr, 5) };
            Err(Error::new(format!("a part of the restore failed on {}", ssh.machine().name)).why(why))
        }
    }
}
