//! `kup addons`: what runs on a cluster beside Kubernetes itself: list it, turn it on and off.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::config_args::ConfigArgs;
use super::nodes::table;
use super::target::{Target, TargetArgs};
use super::{Conduct, Ui};
use crate::addons::ready::State;
use crate::addons::{ADDONS, Addon, apply, chosen, named, ready};
use crate::aws::lock::Lock as AwsLock;
use crate::bootstrap::api::ApiClient;
use crate::bundle::{Arch, Bundle};
use crate::cluster::{self, Cluster};
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::machine::files::Images;
use crate::provider::AnyProvider;
use crate::provider::aws::kept::{self, Kept};
use crate::standing::Standing;
use crate::{saved, state};

/// How long a question to the API may take: many times what it does.
const QUESTION: Duration = Duration::from_secs(6);
/// How long an add-on that was turned on may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// List what runs on a cluster beside Kubernetes itself, and turn it on and off
///
/// What is turned on or off stays so with the next `kup up`, unless a config file says otherwise: where there is one, it wins.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// List all add-ons: which are on, and how they are
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Turn add-ons on, and wait until they are ready
    Enable(Switch),
    /// Turn add-ons off: what they made on the cluster is removed, what they were used for is not
    Disable(Switch),
}

#[derive(Debug, Clone, clap::Args)]
struct Switch {
    /// Which, by their names in `kup addons list`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: &'static str,
    enabled: bool,
    required: bool,
    /// None if the API doesn't say.
    ready: Option<bool>,
    /// Why it isn't ready, or not known.
    why: Option<String>,
    what: &'static str,
}

impl Args {
    /// How this command behaves towards the outside while it runs.
    pub fn conduct(&self) -> Conduct {
        match self.what {
            What::List { .. } => Conduct::default(),
            What::Enable(_) | What::Disable(_) => {
                Conduct { stream: true, interrupted: Some("the same command, or `kup up`, goes on") }
            }
        }
    }
}

/// Runs one of them.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.what {
        What::List { target } => list(&target, ui).await,
        What::Enable(switch) => turn(&switch, true, ui).await,
        What::Disable(switch) => turn(&switch, false, ui).await,
    }
}

async fn list(target: &TargetArgs, ui: &Ui) -> Result<()> {
    let target = target.require(ui).await?;
    let standing = Standing::of(&target.id, &target.provider).await?;
    let api = answering(&standing).await;
    let rows = futures::future::join_all(ADDONS.iter().map(|addon| async {
        let (ready, why) = match &api {
            Ok(api) => match tokio::time::timeout(QUESTION, addon.state(&api.client())).await {
                Ok(Ok(State::Ready)) => (Some(true), None),
                Ok(Ok(State::Waiting(why))) => (Some(false), Some(why)),
                Ok(Ok(State::Absent)) => (Some(false), Some("it is not on the cluster".into())),
                Ok(Err(e)) => (None, Some(e.what)),
                Err(_) => (None, Some(format!("no answer within {} s", QUESTION.as_secs()))),
            },
            Err(e) => (None, Some(e.what.clone())),
        };
        Row {
            name: addon.name,
            enabled: addon.enabled(&standing.cluster),
            required: addon.required,
            ready,
            why,
            what: addon.what,
        }
    }))
    .await;
    if ui.json {
        return ui.result(&rows);
    }
    let rows = rows.into_iter().map(|row| {
        let on = match (row.required, row.enabled) {
            (true, _) => "always",
            (_, true) => "on",
            (_, false) => "off",
        };
        [row.name.to_owned(), on.to_owned(), ui.same().complete(&state_words(&row)), row.what.to_owned()]
    });
    ui.print(table(["ADD-ON", "CONFIG", "STATE", "WHAT IT IS"], rows));
    Ok(())
}

/// How it is, in the table's words. What is off and not there needs none.
fn state_words(row: &Row) -> String {
    match (row.enabled, row.ready, &row.why) {
        (true, Some(true), _) => "ready".into(),
        (false, Some(true), _) => "still there; `kup up` removes it".into(),
        (false, Some(false), _) => "-".into(),
        (true, Some(false), why) => format!("not ready: {}", why.as_deref().unwrap_or_default()),
        (_, None, why) => format!("unknown: {}", why.as_deref().unwrap_or_default()),
    }
}

async fn turn(switch: &Switch, on: bool, ui: &Ui) -> Result<()> {
    let addons = switch.names.iter().map(|name| named(name)).collect::<Result<Vec<&Addon>>>()?;
    if let Some(addon) = addons.iter().find(|a| a.required && !on) {
        return Err(Error::usage(format!("{} can't be turned off: it is {}, which every cluster needs", addon.name, addon.what)));
    }
    let target = switch.target.require_said(ui).await?;
    target.announce(&ui.report);
    let name = &target.id.name;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let standing = Standing::of(&target.id, &target.provider).await?;
    let done = match &target.provider {
        AnyProvider::Local(_) => {
            let _lock = Lock::take(&state::cluster_dir(&target.id)?, &command)?;
            let cluster = saved::require(&target.id)?;
            let keep = async |cluster: &Cluster| saved::save(&target.id, cluster);
            turn_now(&standing, cluster, Arch::host()?, (&addons, on), keep, ui).await?
        }
        AnyProvider::Aws(provider) => {
            let lock = AwsLock::take(&provider.aws, &command, false).await?;
            let work = async {
                let lost = || Error::new(format!("the config of cluster {name} is gone from its bucket"));
                let kept = kept::load(&provider.aws).await?.ok_or_else(lost)?;
                let arch = kept.image.as_ref().map_or(Ok(Arch::host()?), |image| Arch::of_machine(&image.architecture))?;
                let keep = async |cluster: &Cluster| {
                    kept::change(&provider.aws, &Kept { cluster: cluster.clone(), ..kept.clone() }).await
                };
                turn_now(&standing, kept.cluster.clone(), arch, (&addons, on), keep, ui).await
            };
            lock.during(&ui.report, ui.interrupt.or(work)).await?
        }
    };
    done.warnings.iter().for_each(|w| ui.report.warn(w));
    overruled(&addons, on, switch, &target, ui);
    let names = addons.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
    if ui.json {
        return ui.result(
            &json!({ "cluster": name, "addons": names, "enabled": on, "changed": done.changed, "removed": done.removed }),
        );
    }
    let words = match (on, done.changed) {
        (true, true) => "on and ready",
        (true, false) => "on, as before",
        (false, true) => "off",
        (false, false) => "off, as before",
    };
    ui.print(format!("{names}: {words}."));
    Ok(())
}

/// Changes the config by `keep`, and the cluster; by somebody who holds its lock.
async fn turn_now(
    standing: &Standing,
    mut cluster: Cluster,
    arch: Arch,
    (addons, on): (&[&Addon], bool),
    keep: impl AsyncFnOnce(&Cluster) -> Result<()>,
    ui: &Ui,
) -> Result<apply::Done> {
    let images = images(&cluster, arch)?;
    if let Some(addon) = addons.iter().find(|a| on && a.missing_image(&images.all).is_some()) {
        return Err(Error::new(format!("{} can't be turned on", addon.name)).why(addon.lacking(&images.all)));
    }
    let api = answering(standing).await?;
    addons.iter().filter(|a| !a.required).for_each(|a| cluster.addons.set(a.name, on));
    // First: if what follows breaks off, `kup up` finishes it.
    keep(&cluster).await?;
    let wait_for: &[&Addon] = if on { addons } else { &[] };
    let span = ui.report.step_of("add-ons", "add-on");
    let outcome = make_so(standing, &cluster, &images, &api, wait_for, &span).await;
    span.close(outcome).map_err(|e| e.hint(format!("`kup up {}` goes on from here", standing.id.flags())))
}

/// Applies what the config has now, removes what it has no more, and waits for what was turned on.
async fn make_so(
    standing: &Standing,
    cluster: &Cluster,
    images: &Images,
    api: &ApiClient,
    wait_for: &[&Addon],
    span: &crate::report::Span,
) -> Result<apply::Done> {
    let chosen = chosen(cluster, &images.all);
    let mut objects = Vec::new();
    for addon in &chosen.present {
        objects.extend(addon.objects(cluster, &images.all, standing.pki())?);
    }
    let done = apply::reconcile(api, &chosen, objects).await?;
    let until = Instant::now() + READY;
    futures::future::try_join_all(wait_for.iter().map(|a| ready::wait(api, a, until, |what| span.waiting(what)))).await?;
    Ok(done)
}

/// The images of the cluster's own bundle.
fn images(cluster: &Cluster, arch: Arch) -> Result<Images> {
    let version = &cluster.kubernetes.version;
    let bundle = Bundle::open(&state::cache_dir()?, version, arch)?.ok_or_else(|| {
        let words = format!("--version {version} --arch {arch}");
        Error::new(format!("the bundle {version}-{arch}, which names the add-ons' images, is not in the cache"))
            .hint(format!("`kup bundle build {words}` or `kup bundle fetch {words}` gets it"))
    })?;
    Images::of(&bundle.manifest)
}

/// The first master's API that is ready.
async fn answering(standing: &Standing) -> Result<ApiClient> {
    let mut error = Error::new(format!("no master of cluster {} runs", standing.id.name));
    for master in standing.masters().filter(|m| m.running) {
        let api = standing.api(master)?;
        match api.ready(QUESTION, |_| {}).await {
            Ok(()) => return Ok(api),
            Err(e) => error = e,
        }
    }
    Err(error.hint(format!("`kup status {0}` says why, `kup up {0}` mends it", standing.id.flags())).kind(Kind::Failed))
}

/// Warns where a config file is in use that says otherwise: the next `up` goes by that.
fn overruled(addons: &[&Addon], on: bool, switch: &Switch, target: &Target, ui: &Ui) {
    let args = ConfigArgs { file: switch.target.file.clone(), name: Some(target.id.name.clone()), ..ConfigArgs::default() };
    // Standard input is gone by now. A file that can't be read is told by whoever needs it.
    let Some(loaded) = (args.file.as_deref() != Some(Path::new("-"))).then(|| cluster::load(args.source()).ok()).flatten() else {
        return;
    };
    let Some(file) = &loaded.file else { return };
    for addon in addons.iter().filter(|a| !a.required && loaded.cluster.addons.enabled(a.name) != on) {
        let (now, file) = (if on { "off" } else { "on" }, file.display());
        ui.report.warn(format!(
            "`kup up` with {file} turns {} {now} again: write `addons: {{ {}: {on} }}` there",
            addon.name, addon.name
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_to_be_known() {
        let row = |enabled, ready: Option<bool>, why: &str| {
            let why = (!why.is_empty()).then(|| why.to_owned());
            state_words(&Row { name: "a", enabled, required: false, ready, why, what: "b" })
        };
        assert_eq!(row(true, Some(true), ""), "ready");
        assert_eq!(row(true, Some(false), "0 of 1 replicas are ready"), "not ready: 0 of 1 replicas are ready");
        assert_eq!(row(false, Some(false), "it is not on the cluster"), "-");
        assert_eq!(row(false, Some(true), ""), "still there; `kup up` removes it");
        assert_eq!(row(true, None, "no master runs"), "unknown: no master runs");
    }
}
