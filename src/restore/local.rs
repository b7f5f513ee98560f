//! A restore onto a cluster on this host.

use std::time::Duration;

use super::{Bring, up_to};
use crate::error::Result;
use crate::provider::ClusterId;
use crate::provider::local::LocalProvider;
use crate::report::Report;
use crate::saved;
use crate::standing::Standing;
use crate::up::Up;

/// Brings a cluster on this host to where it is needed, by the config of its last `up`.
pub struct Local {
    /// Which one.
    pub id: ClusterId,
    /// Finds its machines.
    pub provider: LocalProvider,
    /// How long to wait for any one thing; each wait's own limit if none is given.
    pub patience: Option<Duration>,
    /// Raise limits of this host that are too small.
    pub raise_limits: bool,
}

impl Bring for Local {
    async fn up(&self, until: Option<&'static str>, report: &Report) -> Result<()> {
        let up = Up { raise_limits: self.raise_limits, ..up_to(saved::require(&self.id)?, until, self.patience) };
        up.run_locked(up.provider(), &[], report).await.map(drop)
    }

    async fn standing(&self) -> Result<Standing> {
        Standing::of(&self.id, &self.provider).await
    }
}
