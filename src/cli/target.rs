//! Which cluster a command means: the one that is named, else the config file's, else the only one there is.

use std::path::PathBuf;

use super::Ui;
use super::config_args::ConfigArgs;
use super::same::{Same, typed};
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::cluster::{Loaded, defaults};
use crate::error::{Error, Result};
use crate::known::{self, Known};
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
    /// How a command names it: `--provider aws --region us-west-2 --name kubernetes`.
    pub fn flags(&self) -> String {
        match &self.provider {
            AnyProvider::Aws(provider) => provider.aws.flags(),
            AnyProvider::Local(_) => self.id.flags(),
        }
    }

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

    /// The cluster that is meant; `None` if nothing names one and there is none at all. Only what was said counts, so that nothing is removed
    /// that was not meant.
    ///
    /// # Errors
    /// With several clusters and no name: a usage error that lists them. Where only another provider is known to have one: one that names it.
    pub async fn which(&self, ui: &Ui) -> Result<Option<Which>> {
        self.find(false, ui).await
    }

    /// As [`TargetArgs::which`]; if `guess`, a cluster of another provider will do that is the only one known of here.
    async fn find(&self, guess: bool, ui: &Ui) -> Result<Option<Which>> {
        ui.means(self.same());
        let loaded = self.load(&ui.report)?;
        let named = loaded.is_set("name") || loaded.file.is_some();
        match loaded.cluster.provider {
            ProviderKind::Local => self.here(loaded, named, guess, ui).await,
            ProviderKind::Aws => self.on_aws(loaded, named, ui).await,
        }
    }

    async fn on_aws(&self, loaded: Loaded, named: bool, ui: &Ui) -> Result<Option<Which>> {
        let provider = AwsProvider::connect(&loaded.cluster).await?;
        ui.means(Same::on_aws(&provider).without("name"));
        let name = match named {
            true => loaded.cluster.name,
            false => match only(&provider.clusters().await?)? {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        let provider = provider.of_cluster(&name);
        ui.means(Same::on_aws(&provider));
        Ok(Some(Which::Aws(provider)))
    }

    async fn here(&self, loaded: Loaded, named: bool, guess: bool, ui: &Ui) -> Result<Option<Which>> {
        let provider = LocalProvider::new(loaded.cluster.local.engine);
        // Whoever names the provider, be it in a config file, means it.
        let mut known = if loaded.is_set("provider") { Vec::new() } else { known::on_aws() };
        known.retain(|known| !named || known.name == loaded.cluster.name);
        // What kup noted is surer than what a context is called.
        if known.iter().any(|known| known.region.is_some()) {
            known.retain(|known| known.region.is_some());
        }
        let names = if named && known.is_empty() { Ok(Vec::new()) } else { provider.clusters().await };
        // An engine that can't be asked has nothing to say about a cluster that is elsewhere.
        let has = names.as_ref().is_ok_and(|names| if named { names.contains(&loaded.cluster.name) } else { !names.is_empty() });
        if !has && !known.is_empty() {
            let name = named.then_some(loaded.cluster.name.as_str());
            return self.elsewhere(&known, name, guess, ui).await.map(|provider| Some(Which::Aws(provider)));
        }
        let name = match named {
            true => loaded.cluster.name,
            false => match only(&names?)? {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        Ok(Some(Which::Local(Target { id: ClusterId { provider: ProviderKind::Local, name }, provider })))
    }

    /// What was typed to mean a cluster: all that it takes on this host.
    fn same(&self) -> Same {
        Same::default()
            .with("provider", self.provider.map(ProviderKind::as_str))
            .with("profile", self.profile.as_deref())
            .with("region", self.region.as_deref())
            .with("name", self.name.as_deref())
    }

    /// The only cluster on AWS that is known of here.
    ///
    /// # Errors
    /// There are several, or it must not be guessed: what to type is told.
    async fn elsewhere(&self, known: &[Known], name: Option<&str>, guess: bool, ui: &Ui) -> Result<AwsProvider> {
        if let [one @ Known { region: Some(region), .. }] = known
            && guess
        {
            let args = ConfigArgs {
                name: Some(one.name.clone()),
                provider: Some(ProviderKind::Aws),
                region: self.region.clone().or(Some(region.clone())),
                profile: self.profile.clone().or(one.profile.clone()),
                file: self.file.clone(),
                ..ConfigArgs::default()
            };
            ui.report.note(format!(
                "cluster {} on AWS ({region}) is meant: there is none {}on this machine",
                one.name,
                if name.is_some() { "of this name " } else { "" }
            ));
            let provider = AwsProvider::connect(&args.load(&ui.report)?.cluster).await?;
            ui.means(Same::on_aws(&provider));
            return Ok(provider);
        }
        let what = name.map_or_else(|| "there is no cluster".to_owned(), |name| format!("there is no cluster {name}"));
        let all: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
        let error =
            Error::usage(format!("{what} on this machine")).why(format!("on AWS this machine knows of {}", all.join(", ")));
        Err(known.iter().fold(error, |error, one| match Same::known(one).command(&typed()) {
            Some(command) => error.hint(format!("`{command}` means cluster {} on AWS", one.name)),
            None => error.hint(format!("--provider aws --name {0} means cluster {0} on AWS", one.name)),
        }))
    }

    /// What to say when [`TargetArgs::which`] found none.
    pub fn none(&self, report: &Report) -> Result<Error> {
        Ok(match self.load(report)?.cluster.provider {
            ProviderKind::Local => {
                let there = Same::default().with("provider", Some(ProviderKind::Aws.as_str())).command(&typed());
                let there = there.unwrap_or_else(|| "--provider aws".to_owned());
                Error::new("there is no cluster on this machine").hint(format!("`{there}` looks on AWS"))
            }
            ProviderKind::Aws => {
                Error::new("there is no cluster of kup's in this account and region").hint("--region looks in another region")
            }
        })
    }

    /// The cluster that a command is for that needs one. One of another provider will do that is the only one known of here.
    ///
    /// # Errors
    /// There is none; there are several and none is named.
    pub async fn require(&self, ui: &Ui) -> Result<Target> {
        self.one(true, ui).await
    }

    /// As [`TargetArgs::require`], for what can't be undone: only what was said counts.
    ///
    /// # Errors
    /// As [`TargetArgs::which`], and that there is none.
    pub async fn require_said(&self, ui: &Ui) -> Result<Target> {
        self.one(false, ui).await
    }

    async fn one(&self, guess: bool, ui: &Ui) -> Result<Target> {
        match self.find(guess, ui).await? {
            Some(Which::Local(Target { id, provider })) => Ok(Target { id, provider: AnyProvider::Local(provider) }),
            Some(Which::Aws(provider)) => Ok(Target { id: provider.id(), provider: AnyProvider::Aws(provider) }),
            None => Err(self.none(&ui.report)?.hint("`kup up` makes one")),
        }
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
