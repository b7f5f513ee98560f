//! The story of `kup down`: on this host, and in [`aws`] that of AWS.

use crate::error::{Error, Result};
use crate::kubeconfig;
use crate::lock::Lock;
use crate::provider::{ClusterId, Found, Provider};
use crate::report::Report;
use crate::state;
use crate::up::context_name;

pub mod aws;

/// What stands of a cluster, and would be removed. Changes nothing.
pub async fn plan(id: &ClusterId, provider: &impl Provider) -> Result<Found> {
    provider.discover(&id.name).await
}

/// Removes every trace of a cluster. A cluster that isn't there, or only half, is no error.
pub async fn run(id: &ClusterId, provider: &impl Provider, command: &str, report: &Report) -> Result<()> {
    let lock = Lock::take(&state::cluster_dir(id)?, command)?;
    let leftovers = provider.teardown(&id.name, report).await?;
    kubeconfig::unmerge(&context_name(id))?;
    drop(lock);
    if leftovers.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("cluster {} could not be removed entirely", id.name))
        .left(leftovers.join(", "))
        .hint(format!("`kup down --name {}` tries again; what stands in its way may be in use by something else", id.name)))
}
