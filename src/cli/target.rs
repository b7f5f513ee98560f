//! Which cluster a command means: the one that is named, else the config file's, else the only one there is.

use std::path::PathBuf;

use super::config_args::ConfigArgs;
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::cluster::{Loaded, defaults};
use crate::error::{Error, Result};
use crate::provider::local::LocalProvider;
use crate::provider::{AnyProvider, AwsProvider, ClusterId, Finder as _};
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
    /// Region of the AWS provider; without it that of the config, of AWS_REGION or of the profile [env: KUP_REGION]
    #[arg(long)]
    pub region: Option<String>,
    /// Profile of the AWS configuration; without it that of the config, of AWS_PROFILE, or the default one [env: KUP_PROFILE]
    #[arg(long)]
    pub profile: Option<String>,
    /// Config file to take name and provider from [env: KUP_FILE]
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Container engine to look in [env: KUP_ENGINE]
    #[arg(long)]
    pub engine: Option<EngineChoice>,
}

/// A cluster, and who made it.
pub struct Target<P = AnyProvider> {
    /// Which one.
    pub id: ClusterId,
    /// Its provider.
    pub provider: P,
}

impl Target {
    /// Says in whose account and as whom what follows is done, where that is a question.
    pub fn announce(&self, report: &Report) {
        if let AnyProvider::Aws(provider) = &self.provider {
            report.note(format!("AWS account {}", provider.identity()));
        }
    }
}

/// A cluster of any provider.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Which {
    /// On this host.
    Local(Target<LocalProvider>),
    /// On AWS.
    Aws(AwsProvider),
}

impl TargetArgs {
    fn load(&self, report: &Report) -> Result<Loaded> {
        let args = ConfigArgs {
            file: self.file.clone(),
            name: self.name.clone(),
            provider: self.provider,
            region: self.region.clone(),
            profile: self.profile.clone(),
            engine: self.engine,
            ..ConfigArgs::default()
        };
        args.load(report)
    }

    /// The cluster that is meant; `None` if nothing names one and there is none at all.
    ///
    /// # Errors
    /// With several clusters and no name: a usage error that lists them.
    pub async fn which(&self, report: &Report) -> Result<Option<Which>> {
        let loaded = self.load(report)?;
        let named = loaded.is_set("name") || loaded.file.is_some();
        match loaded.cluster.provider {
            ProviderKind::Local => Ok(self.local(loaded, named).await?.map(Which::Local)),
            ProviderKind::Aws => {
                let provider = AwsProvider::connect(&loaded.cluster).await?;
                if named {
                    return Ok(Some(Which::Aws(provider)));
                }
                let names = provider.clusters().await?;
                Ok(only(&names)?.map(|name| Which::Aws(provider.of_cluster(&name))))
            }
        }
    }

    /// What to say when [`TargetArgs::which`] found none.
    pub fn nowhere(&self, report: &Report) -> Result<String> {
        Ok(match self.load(report)?.cluster.provider {
            ProviderKind::Local => "There is no cluster on this machine; `--provider aws` looks on AWS.".to_owned(),
            ProviderKind::Aws => "There is no cluster of kup's in this account and region.".to_owned(),
        })
    }

    async fn local(&self, loaded: Loaded, named: bool) -> Result<Option<Target<LocalProvider>>> {
        let provider = LocalProvider::new(loaded.cluster.local.engine);
        let name = match named {
            true => loaded.cluster.name,
            false => match only(&provider.clusters().await?)? {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        Ok(Some(Target { id: ClusterId { provider: ProviderKind::Local, name }, provider }))
    }

    /// The cluster that a command is for that needs one.
    ///
    /// # Errors
    /// There is none; there are several and none is named.
    pub async fn require(&self, report: &Report) -> Result<Target> {
        self.any(report).await?.ok_or_else(|| Error::new("there is no cluster").hint("kup up makes one"))
    }

    /// As [`TargetArgs::which`], whoever made it.
    ///
    /// # Errors
    /// As [`TargetArgs::which`].
    pub async fn any(&self, report: &Report) -> Result<Option<Target>> {
        Ok(self.which(report).await?.map(|which| match which {
            Which::Local(Target { id, provider }) => Target { id, provider: AnyProvider::Local(provider) },
            Which::Aws(provider) => Target { id: provider.id(), provider: AnyProvider::Aws(provider) },
        }))
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
