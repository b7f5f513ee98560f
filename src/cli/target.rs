//! Which cluster a command means: the one that is named, else the config file's, else the only one there is.

use std::path::PathBuf;

use super::config_args::ConfigArgs;
use crate::cluster::defaults;
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::error::{Error, Result};
use crate::provider::local::LocalProvider;
use crate::provider::{ClusterId, Provider};
use crate::report::Report;

/// Which cluster: by name, else the config file's, else the only one there is
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which cluster")]
pub struct TargetArgs {
    /// The cluster's name [env: KUP_NAME]
    #[arg(long)]
    pub name: Option<String>,
    /// Who made its machines [env: KUP_PROVIDER]
    #[arg(long)]
    pub provider: Option<ProviderKind>,
    /// Config file to take name and provider from [env: KUP_FILE]
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Container engine to look in [env: KUP_ENGINE]
    #[arg(long)]
    pub engine: Option<EngineChoice>,
}

/// A cluster and who made it.
pub struct Target {
    /// Which one.
    pub id: ClusterId,
    /// Its provider.
    pub provider: LocalProvider,
}

impl TargetArgs {
    /// The cluster that is meant; `None` if nothing names one and there is none at all.
    ///
    /// # Errors
    /// With several clusters and no name: a usage error that lists them.
    pub async fn find(&self, report: &Report) -> Result<Option<Target>> {
        let args = ConfigArgs {
            file: self.file.clone(),
            name: self.name.clone(),
            provider: self.provider,
            engine: self.engine,
            ..ConfigArgs::default()
        };
        let loaded = args.load(report)?;
        let kind = loaded.cluster.provider;
        let provider = LocalProvider::new(loaded.cluster.local.engine);
        let name = if loaded.is_set("name") || loaded.file.is_some() {
            loaded.cluster.name
        } else {
            match only(&provider.clusters().await?)? {
                Some(name) => name,
                None => return Ok(None),
            }
        };
        Ok(Some(Target { id: ClusterId { provider: kind, name }, provider }))
    }

    /// As [`TargetArgs::find`], for commands that need a cluster.
    pub async fn require(&self, report: &Report) -> Result<Target> {
        self.find(report).await?.ok_or_else(|| Error::new("there is no cluster").hint("kup up makes one"))
    }
}

/// The only name of a list; none of an empty one.
pub fn only(names: &[String]) -> Result<Option<String>> {
    match names {
        [] => Ok(None),
        [name] => Ok(Some(name.clone())),
        several => Err(Error::usage("there are several clusters; say which one is meant")
            .why(several.join("\n"))
            .hint(format!("add --name, for example --name {}", several.first().map_or("", String::as_str)))
            .hint(format!("a {} in the working directory names one too", defaults::FILE))),
    }
}
