//! Machines that vanish or lose power.

use crate::killed::Running;
use crate::support::host::engine;
use crate::support::{Check, eventually};
use crate::{Day, ensure};

/// While kup waits for it to join, a machine is removed: kup says which. `up` makes it again.
pub async fn a_machine_removed_in_the_middle_is_made_again(day: &Day) -> Check {
    let idle = "systemctl stop kubelet; dir=/etc/systemd/system/kubelet.service.d; mkdir $dir; printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep 1000\\n' > $dir/idle.conf; systemctl daemon-reload";
    day.on(&day.minion, idle).await?;
    day.kubectl(&["delete", "node", &day.minion]).await?;
    let mut running = Running::start(day, &["--timeout", "15s"])?;
    running.until("it waits for the Node", |e| e["event"] == "waiting" && e["on"] == "the Node to be registered").await?;
    // The other machine's wait is over at once; this one's would last.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    engine(&["rm", "-f", "-t", "0", &day.minion]).await.ok("podman rm")?;
    let error = running.until("its error", |e| e["event"] == "error").await?;
    let text = error.to_string();
    ensure!(text.contains(&format!("the machine {} has been removed in the meantime", day.minion)), "{text}");
    ensure!(error["what"].as_str().is_some_and(|w| w.contains(&day.minion)), "the machine is in the first sentence: {text}");
    drop(running);
    day.ready().await?;
    day.nodes_ready(2).await
}

/// All machines lose power at once and get it back: the cluster is there again with its data, without kup. And when they stay off,
/// `up` starts them.
pub async fn all_machines_lose_power_and_come_back(day: &Day) -> Check {
    day.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).await?;
    engine(&["kill", &day.master, &day.minion]).await.ok("podman kill")?;
    engine(&["start", &day.master, &day.minion]).await.ok("podman start")?;
    let kept = ["get", "configmap", "kept", "-o", "jsonpath={.data.a}"];
    let data = eventually("the API to answer again", async || Ok(Ok(day.kubectl(&kept).await?))).await?;
    ensure!(data == "b", "the data are {data}");
    day.nodes_ready(2).await?;

    engine(&["kill", &day.master, &day.minion]).await.ok("podman kill")?;
    let output = day.ready().await?;
    ensure!(!output.contains("as before"), "{output}");
    ensure!(day.kubectl(&kept).await? == "b", "the data are gone");
    day.nodes_ready(2).await
}
