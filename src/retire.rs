//! Taking away the machines that a smaller config no longer names: drained first, so that their pods move.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use crate::aws::Aws;
use crate::bundle::Bundle;
use crate::error::{Context, Error, Result};
use crate::kubeconfig::{self, Access};
use crate::machine::ssh::last_lines;
use crate::provider::aws::shrink::{self, Surplus};
use crate::provider::local::LocalProvider;
use crate::provider::{Action, ClusterId, Verb};
use crate::report::{Report, Span};

/// How long a node may take to give up its pods.
pub(crate) const DRAIN: Duration = Duration::from_secs(120);
/// How long kubectl may take beside that.
const KUBECTL: Duration = Duration::from_secs(30);
/// A pod that is still there this long after its time to end is over is not waited for: nobody is left on its machine to end it.
const OVERDUE: Duration = Duration::from_secs(15);

/// Drains and removes every machine that the plan deletes, and its Node.
pub async fn surplus(
    id: &ClusterId,
    plan: &[Action],
    provider: &LocalProvider,
    bundle: &Bundle,
    access: &Access,
    patience: Option<Duration>,
    report: &Report,
) -> Result<()> {
    let limit = patience.unwrap_or(DRAIN);
    let surplus: Vec<&str> =
        plan.iter().filter(|a| a.verb == Verb::Delete && a.kind == "machine").map(|a| a.name.as_str()).collect();
    if surplus.is_empty() {
        return Ok(());
    }
    let span = report.step("surplus machines");
    let work = surplus.iter().map(|name| {
        let part = span.child(*name);
        async move {
            let outcome = async {
                part.waiting("its pods to move");
                drain(bundle, access, name, limit).await?;
                part.waiting("its Node to go");
                forget(bundle, access, name).await?;
                provider.remove_machine(&id.name, name).await
            };
            let outcome = outcome.await;
            part.close(outcome)
        }
    });
    let outcome = futures::future::try_join_all(work).await.map(drop);
    span.close(outcome)
}

/// Drains every minion that the plan takes out of a group on AWS, ends it, and removes its Node.
pub async fn from_groups(
    aws: &Aws,
    surplus: &[Surplus],
    bundle: &Bundle,
    access: &Access,
    patience: Option<Duration>,
    report: &Report,
) -> Result<()> {
    let limit = patience.unwrap_or(DRAIN);
    let span = report.step("surplus machines");
    let work = surplus.iter().map(|group| {
        let span = &span;
        async move {
            shrink::allow(aws, group).await?;
            let each = group.members.iter().map(|instance| {
                let part = span.child(instance);
                async move {
                    let outcome = async {
                        part.waiting("its pods to move");
                        // One that never joined, or is dead, has no pods that could.
                        if is_ready(bundle, access, instance).await {
                            drain(bundle, access, instance, limit).await?;
                        }
                        if group.keeps.is_some() {
                            part.waiting("its group to end it");
                            shrink::end(aws, &group.group, instance, true).await?;
                            part.waiting("its Node to go");
                            forget(bundle, access, instance).await?;
                        }
                        Ok(())
                    };
                    let outcome = outcome.await;
                    part.close(outcome)
                }
            });
            futures::future::try_join_all(each).await.map(drop)
        }
    });
    let outcome = futures::future::try_join_all(work).await.map(drop);
    span.close(outcome)
}

/// Makes minions of a group on AWS anew, one at a time: each is drained and ended, and its group makes another, which `ready` waits for
/// before the next one goes.
pub async fn anew(
    aws: &Aws,
    (group, members): &(String, Vec<String>),
    bundle: &Bundle,
    access: &Access,
    patience: Option<Duration>,
    report: &Report,
    ready: impl AsyncFn(&Span) -> Result<()>,
) -> Result<()> {
    let span = report.step("minions made anew");
    let work = async {
        for instance in members {
            let part = span.child(instance);
            let outcome = async {
                part.waiting("its pods to move");
                // One that never joined, or is dead, has no pods that could.
                if is_ready(bundle, access, instance).await {
                    drain(bundle, access, instance, patience.unwrap_or(DRAIN)).await?;
                }
                part.waiting("its group to end it");
                shrink::end(aws, group, instance, false).await?;
                part.waiting("its Node to go");
                forget(bundle, access, instance).await?;
                ready(&part).await
            };
            let outcome = outcome.await;
            part.close(outcome)?;
        }
        Ok(())
    };
    let outcome = work.await;
    span.close(outcome)
}

/// Moves a node's pods elsewhere, within `limit`.
pub(crate) async fn drain(bundle: &Bundle, access: &Access, node: &str, limit: Duration) -> Result<()> {
    let timeout = format!("--timeout={}s", limit.as_secs());
    let overdue = format!("--skip-wait-for-delete-timeout={}", OVERDUE.as_secs());
    let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", timeout.as_str(), overdue.as_str()];
    kubectl(bundle, access, &drain, limit + KUBECTL).await.map(drop).map_err(|e| stays(e, node))
}

/// Removes a Node from the API; one that isn't there is no error.
pub(crate) async fn forget(bundle: &Bundle, access: &Access, node: &str) -> Result<()> {
    let delete = ["delete", "node", node, "--ignore-not-found", "--timeout=20s"];
    kubectl(bundle, access, &delete, KUBECTL).await.map(drop).map_err(|e| stays(e, node))
}

fn stays(error: Error, node: &str) -> Error {
    error.within(format!("{node} could not be emptied, so it stays"))
}

/// Whether the API says that a node is Ready. One that can't be asked about is not.
pub(crate) async fn is_ready(bundle: &Bundle, access: &Access, node: &str) -> bool {
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    kubectl(bundle, access, &["get", "node", node, "-o", ready], KUBECTL).await.is_ok_and(|text| text == "True")
}

/// Runs the bundle's own kubectl, whose drain knows more than we should write again.
async fn kubectl(bundle: &Bundle, access: &Access, args: &[&str], limit: Duration) -> Result<String> {
    let mut config = tempfile::NamedTempFile::new().context("cannot make a temporary kubeconfig")?;
    config.write_all(kubeconfig::render(access).as_bytes()).context("cannot write a temporary kubeconfig")?;
    let output = tokio::process::Command::new(bundle.path("kubectl")?)
        .arg("--kubeconfig")
        .arg(config.path())
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(limit, output)
        .await
        .map_err(|_| Error::new(format!("`kubectl {}` did not end within {} s", args.join(" "), limit.as_secs())))?
        .context("cannot run the bundle's kubectl")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::new(format!("kubectl {} failed", args.first().copied().unwrap_or_default()))
        .why(last_lines(&String::from_utf8_lossy(&output.stderr), 10))
        .hint("mend what is named, then `kup up` again: it goes on from here"))
}
