//! `kup up`: make the cluster be as the config says.

use std::time::Duration;

use super::Ui;
use super::config_args::ConfigArgs;
use super::picture::Picture;
use super::same::Same;
use crate::bootstrap::STEPS;
use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;
use crate::error::{Error, Result};
use crate::picture::timeline;
use crate::provider::AwsProvider;
use crate::replace;
use crate::up::{Until, Up};

mod aws;
mod local;

/// Make the cluster be as the config says: build it, finish it, repair it, resize it
///
/// Running it again is always safe: what is there is kept, what is missing is made, and if nothing is missing nothing changes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not ask before something is removed, nor on AWS before something is made
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be done, as `kup plan` does
    #[arg(long)]
    dry_run: bool,
    /// Stop after this step
    #[arg(long, value_name = "STEP", value_parser = steps())]
    until: Option<String>,
    /// Make this machine anew, with an empty disk (on AWS a master keeps its address and etcd's volume): for one that is silent or broken; can be given several times
    ///
    /// On AWS also a minion's instance id or a group of minions, which are drained and made anew one at a time; and KIND/NAME, as `kup
    /// plan` names things: what can't be changed in place is then removed and made again.
    #[arg(long, value_name = "MACHINE")]
    replace: Vec<String>,
    /// On AWS, take the cluster from whoever is at work on it; for when that one is surely gone
    #[arg(long)]
    break_lock: bool,
    /// Raise limits of this host that are too small for the machines (fs.inotify.max_user_instances), if root may
    #[arg(long, env = "KUP_RAISE_LIMITS", value_parser = clap::builder::FalseyValueParser::new())]
    raise_limits: bool,
    /// How long to wait for any one thing (a machine's SSH, a unit, the API server, a node to join, all ready): 45s, 5m
    ///
    /// Without it each wait has a limit of its own, between 30 s and 3 minutes. What can't come about any more ends a wait sooner.
    #[arg(long, value_name = "DURATION", env = "KUP_TIMEOUT", value_parser = patience)]
    timeout: Option<Duration>,
    /// Fetch the bundle from here instead of upstream: URL/<host>/<path>
    #[arg(long, value_name = "URL", env = "KUP_BUNDLE_MIRROR")]
    mirror: Option<reqwest::Url>,
    /// Draw the run into this file (.svg), also if it fails: what each machine did when, and what decided how long it took
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "dry_run")]
    timeline: Option<Picture>,
}

/// A number and `s`, `m` or `h`; at least a second, at most a day.
pub(super) fn patience(text: &str) -> std::result::Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let digits = (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    match number.parse::<u64>().ok().filter(|_| digits).map(|n| n * unit) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a number and s, m or h, like 45s, 5m or 1h".into()),
    }
}

fn steps() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(["infrastructure", "machines"].into_iter().chain(STEPS.iter().map(|s| s.name)))
}

impl Args {
    /// Where to stop.
    ///
    /// # Errors
    /// A step that clusters of this provider don't have.
    fn until(&self, provider: ProviderKind) -> Result<Option<Until>> {
        let Some(name) = self.until.as_deref() else { return Ok(None) };
        let found = STEPS.iter().enumerate().find(|(_, step)| step.name == name);
        match (name, found) {
            ("infrastructure", _) => Ok(Some(Until::Infrastructure)),
            (_, None) => Ok(Some(Until::Machines)),
            (_, Some((at, step))) if step.is_for(provider) => Ok(Some(Until::Step(at))),
            (_, Some(_)) => {
                let theirs = STEPS.iter().filter(|step| step.is_for(provider)).map(|step| step.name);
                Err(Error::usage(format!("clusters of the provider {} have no step {name}", provider.as_str()))
                    .hint(format!("--until one of infrastructure, machines, {}", theirs.collect::<Vec<_>>().join(", "))))
            }
        }
    }

    /// What is to be done with this cluster.
    fn up(&self, cluster: Cluster) -> Result<Up> {
        Ok(Up {
            replace: match cluster.provider {
                ProviderKind::Local => replace::named(&cluster, &self.replace)?,
                ProviderKind::Aws => self.replace.clone(),
            },
            until: self.until(cluster.provider)?,
            cluster,
            raise_limits: self.raise_limits,
            mirror: self.mirror.clone(),
            patience: self.timeout,
            break_lock: self.break_lock,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            restoring: false,
        })
    }
}

/// The wanted cluster, and who makes it. Without a name the only cluster there is is meant; a cluster that stands is taken as it was last
/// made, where neither a file nor a flag says otherwise.
pub(super) async fn wanted(args: &ConfigArgs, ui: &Ui) -> Result<Wanted> {
    ui.means(args.same());
    let loaded = args.load(&ui.report)?;
    match loaded.cluster.provider {
        ProviderKind::Local => local::wanted(args, loaded, ui).await.map(Wanted::Local),
        ProviderKind::Aws => {
            let (cluster, provider) = aws::wanted(args, loaded, ui).await?;
            ui.means(Same::on_aws(&provider).of_file(args.file.as_deref()));
            Ok(Wanted::Aws(cluster, provider))
        }
    }
}

/// A cluster, and who makes it.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Wanted {
    /// This host.
    Local(Cluster),
    /// AWS.
    Aws(Cluster, AwsProvider),
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match wanted(&args.config, ui).await? {
        Wanted::Local(cluster) => local::run(&args, args.up(cluster)?, ui).await,
        Wanted::Aws(cluster, provider) => aws::run(&args, args.up(cluster)?, provider, ui).await,
    }
}

/// Has the whole run drawn at its end, if that was asked for.
fn draw(args: &Args, cluster: &Cluster, ui: &Ui) -> Result<()> {
    if let Some(picture) = args.timeline.clone() {
        picture.check()?;
        let cluster = cluster.clone();
        ui.at_end(move |record, well| picture.write(&timeline::draw(record, &cluster.name, well)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn only_steps_that_the_provider_has_can_be_the_last() {
        let until = |name: &str, provider| {
            let line = Line::try_parse_from(["kup", "--until", name]).map_err(|e| Error::usage(e.to_string()))?;
            line.args.until(provider)
        };
        for name in ["cloud", "minions"] {
            let error = until(name, ProviderKind::Local).unwrap_err();
            assert!(error.what.contains(name) && error.hints[0].contains("kubelet") && !error.hints[0].contains(name), "{error}");
            assert!(matches!(until(name, ProviderKind::Aws), Ok(Some(Until::Step(_)))));
        }
        assert!(matches!(until("machines", ProviderKind::Local), Ok(Some(Until::Machines))));
        assert!(matches!(until("etcd", ProviderKind::Local), Ok(Some(Until::Step(_)))));
        assert!(until("nonsense", ProviderKind::Local).is_err());
    }

    #[test]
    fn only_durations_that_make_sense_are_taken() {
        let of = |text: &str| patience(text).map(|d| d.as_secs());
        assert_eq!((of("45s"), of("5m"), of("1h"), of("24h")), (Ok(45), Ok(300), Ok(3600), Ok(86_400)));
        for wrong in ["", "s", "5", "0s", "-1s", "1.5m", "25h", "999999s", "1d", "5 m", "٥m", "m5"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
