//! Puts container images onto the nodes of a cluster on AWS: an archive goes into the cluster's bucket once, and every node gets it from
//! there by its own role. Minions that come later, also in place of lost ones, find it in the list of what minions start from.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::aws::node_images::Loaded;
use crate::aws::user_data::bucket_url;
use crate::aws::{Aws, node_images, node_store};
use crate::bundle::pack;
use crate::error::{Context as _, Error, Result};
use crate::machine::BUNDLE_DIR;
use crate::machine::ssh::{Ssh, last_lines};
use crate::provider::local::load::imported;
use crate::report::{Report, Span};
use crate::standing::Standing;
use crate::{state, templates};

/// How long a node may take to get an archive, and to unpack it.
const LOAD: Duration = Duration::from_secs(20 * 60);

/// Loads an archive (of `docker save`, `podman save` or an OCI layout) into all nodes that run, by somebody who holds the cluster's lock.
/// Returns the names under which nodes know its images.
///
/// # Errors
/// Those of AWS; a node that can't take it. A minion that does not let kup in gets it by itself, and is only named.
pub async fn load(aws: &Aws, standing: &Standing, archive: &Path, title: &str, report: &Report) -> Result<Vec<String>> {
    let span = report.step(format!("load {title}"));
    let outcome = everywhere(aws, standing, archive, &span, report).await;
    span.close(outcome)
}

async fn everywhere(aws: &Aws, standing: &Standing, archive: &Path, span: &Span, report: &Report) -> Result<Vec<String>> {
    span.waiting("the archive to be compressed");
    let (path, dir) = (archive.to_owned(), state::cache_dir()?);
    let packing = tokio::task::spawn_blocking(move || pack::archive(&path, &dir));
    let (sha256, packed) = packing.await.context("compressing the archive broke off")??;
    let (pack, _temporary) = packed;
    span.waiting("the bucket to take it");
    node_store::put_archive(aws, &sha256, pack, span).await?;
    span.waiting("the nodes to get it from there");
    let values = json!({
        "bundle": BUNDLE_DIR,
        "url": bucket_url(&aws.bucket(), &aws.region, aws.s3_endpoint.as_deref()),
        "region": aws.region,
        "account": aws.identity.account,
    });
    let script: Arc<str> = templates::render("node/load.sh", values)?.into();
    let nodes = standing.machines.iter().filter(|found| found.running && found.machine.role.is_node());
    let each = nodes.map(|found| {
        let part = span.child(&found.machine.name);
        let (script, sha256) = (script.clone(), &sha256);
        async move {
            let name = &found.machine.name;
            let outcome = match standing.connect(found).await {
                Ok(ssh) => on_one(&ssh, &script, sha256).await.map(Some),
                // It looks at what it is to have every minute.
                Err(error) if found.machine.sets_itself_up() => {
                    report.note(format!("{name} could not be told, and loads the images by itself: {}", error.what));
                    Ok(None)
                }
                Err(error) => Err(error),
            };
            part.close(outcome).map_err(|e| e.within(format!("the images could not be loaded into {name}")))
        }
    });
    let said = futures::future::join_all(each).await.into_iter().collect::<Result<Vec<_>>>()?;
    let names = said.into_iter().flatten().next().unwrap_or_default();
    span.waiting("the bucket to remember it for minions to come");
    node_store::remember(aws, Loaded { sha256, names: names.iter().cloned().collect() }).await?;
    Ok(names)
}

/// Has a node get the archive. Returns the names under which it knows its images.
async fn on_one(ssh: &Ssh, script: &str, sha256: &str) -> Result<Vec<String>> {
    // Both are made of a checksum: nothing in them needs quoting.
    let command = format!("sh -s -- {sha256} {}", node_images::object(sha256));
    let output = ssh.exec(&command, script, LOAD).await?;
    // The last word is the proof: an exit status of 0 is also what a cut link gives.
    match output.text().strip_suffix("kup-loaded\n").and_then(|text| text.split_once("kup-stored\n")) {
        Some((said, stored)) if output.status == 0 => Ok(imported(said, stored)),
        _ if output.stderr.trim().is_empty() => Err(Error::new("the link was cut")),
        _ => Err(Error::new("it did not take the archive").why(last_lines(&output.stderr, 5))),
    }
}
