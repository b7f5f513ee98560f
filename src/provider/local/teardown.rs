//! Removes everything of a cluster, by labels alone: machines without grace and all at once, then volumes and network, then the state
//! directory; and looks again whether anything is left.

use std::fs;
use std::path::Path;

use futures::future::join_all;

use super::engine::{ACT, Engine, EngineKind, is_gone};
use super::{blocking, keys, names, survey};
use crate::error::{Context, Error, Result};
use crate::report::{Report, Span};

/// See [`crate::provider::Provider::teardown`].
pub(super) async fn cluster(engines: &[Engine], name: &str, dir: &Path, report: &Report) -> Result<Vec<String>> {
    let span = report.step("remove machines");
    let removed = join_all(engines.iter().map(|engine| in_engine(engine, name, &span))).await;
    let state = dir.to_owned();
    let state = blocking(move || remove_dir(&state)).await;

    // What could not be removed is said with the engine's reason, if it still is there.
    let mut reasons: Vec<(String, Error)> = Vec::new();
    for outcome in removed {
        reasons.extend(outcome?);
    }
    let found = survey::discover(engines, name).await?;
    let still = found.machines.iter().map(|m| format!("machine {}", m.machine.name)).chain(found.others.iter().cloned());
    let mut left: Vec<String> = still
        .map(|thing| match reasons.iter().find(|(failed, _)| *failed == thing) {
            Some((_, error)) => format!("{thing} ({})", error.why.first().unwrap_or(&error.what)),
            None => thing,
        })
        .collect();
    if let Err(e) = state {
        left.push(format!("directory {} ({})", dir.display(), e.why.first().unwrap_or(&e.what)));
    }
    if left.is_empty() {
        span.done()
    } else {
        span.done_with(format!("{} things are left", left.len()))
    }
    Ok(left)
}

/// Removes what this engine has of the cluster; returns what it refused, with its reason.
async fn in_engine(engine: &Engine, name: &str, span: &Span) -> Result<Vec<(String, Error)>> {
    let labels = names::labels(name);
    span.waiting(format!("{} to list what there is", engine.name()));
    let (containers, networks, volumes) =
        tokio::try_join!(engine.containers(&labels), engine.networks(&labels), engine.volumes(&labels))?;
    let mut refused: Vec<(String, Error)> = Vec::new();
    let mut note = |kind: &str, outcomes: Vec<(String, Result<()>)>| {
        refused.extend(outcomes.into_iter().filter_map(|(name, outcome)| Some((format!("{kind} {name}"), outcome.err()?))));
    };

    let ours = containers.into_iter().filter(|c| names::owned(&c.labels, name));
    note(
        "machine",
        join_all(ours.map(|c| async move {
            let part = span.child(&c.name);
            part.waiting(format!("{} to remove it", engine.name()));
            let outcome = remove_container(engine, &c.name).await;
            (c.name, part.close(outcome))
        }))
        .await,
    );
    span.waiting(format!("{} to remove volumes and network", engine.name()));
    // Never with --force: that would take somebody else's containers along.
    let volumes = volumes.into_iter().filter(|v| names::owned(&v.labels, name)).map(|v| async move {
        let outcome = gone_is_fine(engine.run(ACT, ["volume", "rm", &v.name]).await);
        (v.name, outcome)
    });
    let networks = networks.into_iter().filter(|n| names::owned(&n.labels, name)).map(|n| async move {
        let outcome = gone_is_fine(engine.run(ACT, ["network", "rm", &n.name]).await);
        (n.name, outcome)
    });
    let (volumes, networks) = tokio::join!(join_all(volumes), join_all(networks));
    note("volume", volumes);
    note("network", networks);
    Ok(refused)
}

/// Removes one machine of a cluster, its volume and its keys.
pub(super) async fn machine(engines: &[Engine], cluster: &str, machine: &str, dir: &Path) -> Result<()> {
    let labels = names::labels(cluster);
    for engine in engines {
        let (containers, volumes) = tokio::try_join!(engine.containers(&labels), engine.volumes(&labels))?;
        if containers.iter().any(|c| c.name == machine && names::owned(&c.labels, cluster)) {
            remove_container(engine, machine).await?;
        }
        let volume = names::volume(machine);
        if volumes.iter().any(|v| v.name == volume && names::owned(&v.labels, cluster)) {
            gone_is_fine(engine.run(ACT, ["volume", "rm", &volume]).await)?;
        }
    }
    // Only what can be a machine's name becomes a path.
    if machine.starts_with(&format!("{cluster}-")) && !machine.contains(['/', '.']) {
        let path = keys::machine_path(dir, machine);
        blocking(move || remove_dir(&path)).await?;
    }
    Ok(())
}

async fn remove_container(engine: &Engine, name: &str) -> Result<()> {
    let args: &[&str] = match engine.kind() {
        EngineKind::Podman => &["rm", "--force", "--time=0", "--volumes", name],
        EngineKind::Docker => &["rm", "--force", "--volumes", name],
    };
    gone_is_fine(engine.run(ACT, args).await)
}

fn gone_is_fine(outcome: Result<String>) -> Result<()> {
    match outcome {
        Err(e) if !is_gone(&e) => Err(e),
        _ => Ok(()),
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}
