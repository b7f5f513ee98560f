//! What people do to a running pod: exec, logs, port-forward, cp.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::yaml::{then_wait, tools, tools_pod, web_pod};
use crate::ensure;
use crate::support::checks::World;
use crate::support::cluster::run;
use crate::support::{Check, eventually};

/// Output, errors, input and exit code of a command in a pod.
pub async fn exec_carries_all_streams(w: &World<'_>) -> Check {
    w.apply(&tools_pod("shell", &[tools("shell", &then_wait(":"), "", "")], "", "")).await?;
    w.pod("shell").await?;
    let mut command = w.cluster.kubectl_command(&[
        "-n",
        &w.namespace,
        "exec",
        "-i",
        "shell",
        "--",
        "sh",
        "-c",
        "cat; hostname; echo wrong >&2; exit 7",
    ]);
    let output = run(&mut command, Some("typed\n")).await?;
    ensure!(output.stdout == "typed\nshell\n", "standard output is {:?}", output.stdout);
    ensure!(output.stderr.starts_with("wrong\n"), "standard error is {:?}", output.stderr);
    ensure!(output.code == Some(7), "the exit code is {:?}", output.code);
    Ok(())
}

/// Logs now, logs as they come, and those of the container that ended before.
pub async fn logs_follow_and_look_back(w: &World<'_>) -> Check {
    let command = "echo started; i=0; while [ $i -lt 12 ]; do i=$((i + 1)); echo line $i; sleep 0.2; done; exit 3";
    w.apply(&tools_pod("talker", &[tools("talker", command, "", "")], "", "")).await?;
    eventually("the first line", async || {
        let output = w.cluster.kubectl(&["-n", &w.namespace, "logs", "talker"]).await?;
        Ok(if output.stdout.starts_with("started\n") { Ok(()) } else { Err(format!("{output:?}")) })
    })
    .await?;
    let followed = w.cluster.kubectl(&["-n", &w.namespace, "logs", "-f", "talker"]).await?;
    ensure!(
        followed.stdout.starts_with("started\nline 1\n") && followed.stdout.trim_end().ends_with("line 12"),
        "logs -f gives {followed:?}"
    );
    w.pod_until("talker", "started again", |p| p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)).await?;
    let previous = w
        .cluster
        .kubectl(&["-n", &w.namespace, "logs", "--previous", "--tail=1", "talker"])
        .await?
        .ok("kubectl logs --previous")?;
    ensure!(previous == "line 12\n", "logs --previous --tail=1 gives {previous:?}");
    Ok(())
}

/// A pod's port on this host, for as long as it is wanted.
pub async fn port_forward(w: &World<'_>) -> Check {
    w.apply(&web_pod("far", "app: far", "")).await?;
    w.pod("far").await?;
    let mut command = w.cluster.kubectl_command(&["-n", &w.namespace, "port-forward", "pod/far", ":8080", "--address=127.0.0.1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    // "Forwarding from 127.0.0.1:43210 -> 8080"
    let first =
        tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await??.ok_or("kubectl port-forward said nothing")?;
    let port =
        first.split(" -> ").next().and_then(|s| s.rsplit(':').next()).ok_or_else(|| format!("no port in {first:?}"))?.to_owned();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
    for _ in 0..3 {
        let seen = http.get(format!("http://127.0.0.1:{port}/hostname")).send().await?.text().await?;
        ensure!(seen == "far", "through the forwarded port: {seen:?}");
    }
    child.kill().await?;
    Ok(())
}

/// Files to a pod and back, byte by byte.
pub async fn cp_there_and_back(w: &World<'_>) -> Check {
    w.apply(&tools_pod(
        "box",
        &[tools("box", &then_wait(":"), "{ name: disk, mountPath: /disk },", "")],
        "{ name: disk, emptyDir: {} },",
        "",
    ))
    .await?;
    w.pod("box").await?;
    // Not compressible, not text, not a multiple of anything.
    let mut bytes = vec![0_u8; 3_000_017];
    getrandom::fill(&mut bytes)?;
    let (there, back) = (w.cluster.scratch("there"), w.cluster.scratch("back"));
    std::fs::write(&there, &bytes)?;
    let (there, returned) = (there.to_string_lossy().into_owned(), back.to_string_lossy().into_owned());
    w.cluster.kubectl(&["-n", &w.namespace, "cp", &there, "box:/disk/file"]).await?.ok("kubectl cp to the pod")?;
    w.cluster.kubectl(&["-n", &w.namespace, "cp", "box:/disk/file", &returned]).await?.ok("kubectl cp from the pod")?;
    ensure!(std::fs::read(&back)? == bytes, "the file came back changed");
    let size =
        w.cluster.kubectl(&["-n", &w.namespace, "exec", "box", "--", "stat", "-c", "%s", "/disk/file"]).await?.ok("stat")?;
    ensure!(size.trim() == "3000017", "the file in the pod has {size} bytes");
    Ok(())
}
