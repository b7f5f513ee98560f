//! A restore onto a cluster on AWS.

use std::time::Duration;

use super::{Bring, up_to};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::provider::aws::AwsProvider;
use crate::report::Report;
use crate::standing::Standing;

/// Brings a cluster on AWS to where it is needed, by somebody who holds its lock.
pub struct OnAws {
    /// Logged in for the cluster.
    pub provider: AwsProvider,
    /// The config of its last `up`, with the logins of registries.
    pub cluster: Cluster,
    /// How long to wait for any one thing; each wait's own limit if none is given.
    pub patience: Option<Duration>,
}

impl Bring for OnAws {
    async fn up(&self, until: Option<&'static str>, report: &Report) -> Result<()> {
        let up = up_to(self.cluster.clone(), until, self.patience);
        up.on_aws_locked(&self.provider, report).await.map(drop)
    }

    async fn standing(&self) -> Result<Standing> {
        let provider = &self.provider;
        Standing::of(&provider.id(), provider).await
    }
}
