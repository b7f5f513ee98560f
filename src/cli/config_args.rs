//! The flags that stand for the config: which file, and what wins over it.

use std::path::PathBuf;

use super::same::Same;
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::cluster::{Loaded, Overrides, Source, load};
use crate::error::Result;
use crate::report::Report;

/// Config: flags win over KUP_* variables, those over the file, that over the defaults
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Config")]
pub struct ConfigArgs {
    /// Config file, `-` for standard input; without it config-default.yaml in the working directory, if there is one [env: KUP_FILE]
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// The cluster's name [env: KUP_NAME]
    #[arg(long)]
    pub name: Option<String>,
    /// Who makes the machines [env: KUP_PROVIDER]
    #[arg(long)]
    pub provider: Option<ProviderKind>,
    /// Kubernetes version, one of those in `kup version` [env: KUP_KUBERNETES_VERSION]
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// Number of masters [env: KUP_MASTERS]
    #[arg(long, value_name = "COUNT")]
    pub masters: Option<u16>,
    /// Number of minions [env: KUP_MINIONS]
    #[arg(long, value_name = "COUNT")]
    pub minions: Option<u16>,
    /// Region of the AWS provider; without it that of the zones, of AWS_REGION or of the profile [env: KUP_REGION]
    #[arg(long)]
    pub region: Option<String>,
    /// Profile of the AWS configuration; without it that of AWS_PROFILE, or the default one [env: KUP_PROFILE]
    #[arg(long)]
    pub profile: Option<String>,
    /// Container engine of the local provider [env: KUP_ENGINE]
    #[arg(long)]
    pub engine: Option<EngineChoice>,
    /// Any field of the config, like network.pods=10.1.0.0/16; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

impl ConfigArgs {
    /// These flags with this process's environment and working directory.
    pub fn source(&self) -> Source {
        let overrides = Overrides {
            name: self.name.clone(),
            provider: self.provider,
            kubernetes_version: self.kubernetes_version.clone(),
            masters: self.masters,
            minions: self.minions,
            region: self.region.clone(),
            profile: self.profile.clone(),
            engine: self.engine,
            sets: self.sets.clone(),
        };
        Source::new(self.file.clone(), overrides)
    }

    /// What was typed to mean a cluster, and what it is made of.
    pub fn same(&self) -> Same {
        Same::default()
            .with("provider", self.provider.map(ProviderKind::as_str))
            .with("profile", self.profile.as_deref())
            .with("region", self.region.as_deref())
            .with("name", self.name.as_deref())
            .of_file(self.file.as_deref())
    }

    /// Loads the config, and says so if a file was used that nobody named.
    pub fn load(&self, report: &Report) -> Result<Loaded> {
        let loaded = load(self.source())?;
        let using = loaded.file.as_ref().filter(|_| loaded.implicit);
        let using = using.map(|file| format!("using {} of this directory", file.display()));
        // A command may read the config several times.
        for note in using.iter().chain(&loaded.notes) {
            report.note_once(note);
        }
        Ok(loaded)
    }
}
