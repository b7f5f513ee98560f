//! Whoever made a cluster: for commands that work on any of them.

use std::sync::Arc;

use super::{AwsProvider, ClusterId, Finder, Found, LocalProvider};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::pki::Pki;

/// One of the providers.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum AnyProvider {
    /// This host.
    Local(LocalProvider),
    /// AWS.
    Aws(AwsProvider),
}

/// The same question to whichever it is.
macro_rules! either {
    ($self:ident, $provider:ident => $ask:expr) => {
        match $self {
            AnyProvider::Local($provider) => $ask,
            AnyProvider::Aws($provider) => $ask,
        }
    };
}

impl Finder for AnyProvider {
    async fn discover(&self, name: &str) -> Result<Found> {
        either!(self, provider => provider.discover(name).await)
    }

    async fn clusters(&self) -> Result<Vec<String>> {
        either!(self, provider => Finder::clusters(provider).await)
    }

    async fn config(&self, id: &ClusterId) -> Result<Cluster> {
        either!(self, provider => provider.config(id).await)
    }

    async fn pki(&self, id: &ClusterId) -> Result<Arc<Pki>> {
        either!(self, provider => provider.pki(id).await)
    }

    async fn console(&self, cluster: &str, machine: &str) -> Result<String> {
        either!(self, provider => Finder::console(provider, cluster, machine).await)
    }
}
