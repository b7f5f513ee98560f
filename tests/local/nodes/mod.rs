//! The settings of the nodes and of what runs on them: read from the machines and asked of the API, never from kup's own templates.

pub mod api_server;
pub mod dns;
pub mod etcd;
pub mod host;
pub mod kubelet;
pub mod secrets;

use crate::support::Check;
use crate::support::checks::World;
use crate::support::cluster::Node;

/// Runs a shell script on every machine at once; the outputs in the order of the machines.
pub async fn everywhere<'a>(w: &'a World<'_>, script: &str) -> Check<Vec<(&'a Node, String)>> {
    let read = w
        .cluster
        .nodes
        .iter()
        .map(async |node| Ok::<_, Box<dyn std::error::Error + Send + Sync>>((node, w.cluster.read(node, script).await?)));
    futures::future::try_join_all(read).await
}

/// Where nodes have the bundle's programs.
pub const BIN: &str = "/opt/kup/bundle/bin";
