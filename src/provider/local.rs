//! The local provider: machines are privileged containers with systemd and sshd, on a network of the cluster's own.
//!
//! Everything carries the labels `kup.dev/provider=local` and `kup.dev/cluster=<name>`, given in the creating call, and is found again
//! by them alone. What no other machine could know (the SSH keys) is in the cluster's state directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::error::{Error, Result};
use crate::machine::host::{self, Facts, Needs};
use crate::pki::Pki;
use crate::provider::{Action, ClusterId, Finder, Found, MachineSender, Provider};
use crate::report::Report;
use crate::{saved, state};

pub mod engine;
mod facts;
pub mod image;
pub mod keys;
pub mod load;
pub mod names;
mod provision;
mod subnet;
mod survey;
mod teardown;

use engine::Engine;
use image::NodeImage;
use survey::{Design, Survey};

/// How long what was seen in [`LocalProvider::preflight`] is still what [`Provider::provision`] acts on. In between kup only looks
/// at the bundle, which takes milliseconds; if it is fetched or built, the engine is asked again.
const FRESH: Duration = Duration::from_secs(1);

/// Machines on this host. Finding and removing clusters needs nothing but [`LocalProvider::new`]; making them needs the bundle too.
pub struct LocalProvider {
    choice: EngineChoice,
    bundle: Option<PathBuf>,
    raise_limits: bool,
    engines: OnceCell<Vec<Engine>>,
    facts: Arc<OnceCell<Facts>>,
    seen: Mutex<Option<(Instant, Survey)>>,
}

impl LocalProvider {
    /// With `Auto`, clusters are looked for in every engine that answers, and new ones are made in podman if there is a choice.
    pub fn new(choice: EngineChoice) -> LocalProvider {
        LocalProvider {
            choice,
            bundle: None,
            raise_limits: false,
            engines: OnceCell::new(),
            facts: Arc::new(OnceCell::new()),
            seen: Mutex::new(None),
        }
    }

    /// The bundle's directory, complete and verified: machines mount it, and the node image holds its images.
    #[must_use]
    pub fn with_bundle(self, dir: impl Into<PathBuf>) -> LocalProvider {
        LocalProvider { bundle: Some(dir.into()), ..self }
    }

    /// Lets kup raise limits of the host that are too small and that root may raise (`fs.inotify.max_user_instances`).
    /// Otherwise they are only named.
    #[must_use]
    pub fn raising_limits(self, raise: bool) -> LocalProvider {
        LocalProvider { raise_limits: raise, ..self }
    }

    /// The engines in which clusters may be.
    async fn engines(&self) -> Result<&[Engine]> {
        self.engines.get_or_try_init(|| Engine::find(self.choice)).await.map(Vec::as_slice)
    }

    /// What was found on this host. Asked once: podman takes a third of a second to say it.
    async fn facts(&self, engine: &Engine) -> Result<Facts> {
        let facts = self.facts.get_or_try_init(|| facts::gather(engine)).await?;
        // The first question may have been about the other engine.
        if facts.engine == engine.kind() { Ok(facts.clone()) } else { facts::gather(engine).await }
    }

    /// Looks at everything there is, and decides what there should be.
    async fn design(&self, cluster: &Cluster) -> Result<Design> {
        self.design_of(cluster, Survey::take(self.engines().await?).await?).await
    }

    /// As [`LocalProvider::design`], from what the last [`LocalProvider::preflight`] saw if that is [`FRESH`]. Asking podman for its
    /// three lists takes a sixth of a second.
    async fn design_as_seen(&self, cluster: &Cluster) -> Result<Design> {
        let seen = self.seen().take();
        match seen {
            Some((at, survey)) if at.elapsed() < FRESH => self.design_of(cluster, survey).await,
            _ => self.design(cluster).await,
        }
    }

    async fn design_of(&self, cluster: &Cluster, survey: Survey) -> Result<Design> {
        names::check(&cluster.name)?;
        survey::design(cluster, survey, self.bundle.as_deref(), &cluster_dir(&cluster.name)?).await
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Survey)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails with everything this host lacks for the machines that are still to be made or started; changes nothing.
    /// [`Provider::provision`] does the same before it makes anything.
    pub async fn preflight(&self, cluster: &Cluster) -> Result<()> {
        let survey = Survey::take(self.engines().await?).await?;
        let at = Instant::now();
        let design = self.design_of(cluster, survey.clone()).await?;
        *self.seen() = Some((at, survey));
        let needs = design.needs(self.image_missing(cluster, &design).await?);
        if needs == Needs::default() {
            return Ok(());
        }
        let facts = self.facts(&design.engine).await?;
        host::preflight(&self.with_raised_limits(facts, &needs), &needs)
    }

    /// The facts as they will be once kup has raised what it was asked to raise.
    fn with_raised_limits(&self, mut facts: Facts, needs: &Needs) -> Facts {
        if let Some(wanted) = host::inotify_wanted(&facts, needs).filter(|_| self.raise_limits) {
            facts.inotify_instances = wanted;
        }
        facts
    }

    /// The image that kup makes for this cluster; `None` if the config names another, or if no bundle is known.
    async fn node_image(&self, cluster: &Cluster) -> Result<Option<NodeImage>> {
        match (&cluster.local.image, self.bundle.clone()) {
            (None, Some(bundle)) => blocking(move || NodeImage::of(&bundle)).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn image_missing(&self, cluster: &Cluster, design: &Design) -> Result<bool> {
        match self.node_image(cluster).await? {
            Some(image) => Ok(!design.engine.has_image(image.tag()).await?),
            None => Ok(false),
        }
    }

    /// Makes the node image if it isn't there, or in any case with `force`; returns its name.
    pub async fn build_image(&self, report: &Report, force: bool) -> Result<String> {
        let bundle = self.bundle.clone().ok_or_else(no_bundle)?;
        let image = blocking(move || NodeImage::of(&bundle)).await?;
        let engine = self.engines().await?.first().ok_or_else(no_engine)?;
        let facts = self.facts(engine).await?;
        host::preflight(&facts, &Needs { image: true, ..Needs::default() })?;
        image.ensure(engine, &facts, report, force).await
    }

    /// Removes one machine with its volume and keys; one that isn't there is no error. Draining it first is the caller's business.
    pub async fn remove_machine(&self, cluster: &str, machine: &str) -> Result<()> {
        names::check(cluster)?;
        *self.seen() = None;
        teardown::machine(self.engines().await?, cluster, machine, &cluster_dir(cluster)?).await
    }

    /// The engine in which a cluster's machines are, if there are any.
    pub async fn engine_of(&self, cluster: &str) -> Result<Option<Engine>> {
        names::check(cluster)?;
        survey::engine_of(self.engines().await?, cluster).await
    }
}

impl Finder for LocalProvider {
    async fn discover(&self, name: &str) -> Result<Found> {
        names::check(name)?;
        survey::discover(self.engines().await?, name).await
    }

    async fn clusters(&self) -> Result<Vec<String>> {
        survey::clusters(self.engines().await?).await
    }

    async fn config(&self, id: &ClusterId) -> Result<Cluster> {
        saved::require(id)
    }

    async fn pki(&self, id: &ClusterId) -> Result<Arc<Pki>> {
        let dir = state::cluster_dir(id)?.join("pki");
        if !dir.is_dir() {
            return Err(Error::new(format!("the keys of cluster {} are not here", id.name))
                .why(format!("there is no {}", dir.display()))
                .hint("run this as the user, and on the machine, that made the cluster")
                .hint(format!("`kup up --name {}` goes on where it was stopped", id.name)));
        }
        Pki::open(&dir).map(Arc::new)
    }

    async fn console(&self, cluster: &str, machine: &str) -> Result<String> {
        let engine = self.engine_of(cluster).await?.ok_or_else(|| Error::new(format!("cluster {cluster} has no machine")))?;
        let state = engine
            .run(engine::ASK, ["container", "inspect", "--format", "{{.State.Status}}, exit code {{.State.ExitCode}}", machine]);
        let (state, output) = tokio::join!(state, engine.run_both(engine::ASK, ["logs", "--tail", "20", machine]));
        Ok(format!("container {machine}: {}\n{}", state?.trim(), output?.trim_end()))
    }
}

impl Provider for LocalProvider {
    async fn plan(&self, cluster: &Cluster) -> Result<Vec<Action>> {
        let (design, image) = tokio::join!(self.design(cluster), self.node_image(cluster));
        let (design, image) = (design?, image?);
        let wanted_image = match &image {
            Some(image) if design.makes_machines() => Some((image.tag().to_owned(), design.engine.has_image(image.tag()).await?)),
            _ => None,
        };
        if design.starts_machines() {
            // Needed next by `provision`, and slow to find out: asked while the plan is being read. Its failure shows up there.
            let (facts, engine) = (self.facts.clone(), design.engine.clone());
            tokio::spawn(async move { facts.get_or_try_init(|| facts::gather(&engine)).await.is_ok() });
        }
        Ok(design.actions(wanted_image))
    }

    async fn provision(&self, cluster: &Cluster, report: &Report, machines: MachineSender) -> Result<()> {
        provision::provision(self, cluster, report, machines).await
    }

    async fn teardown(&self, name: &str, report: &Report) -> Result<Vec<String>> {
        names::check(name)?;
        teardown::cluster(self.engines().await?, name, &cluster_dir(name)?, report).await
    }
}

/// The state directory of a local cluster.
fn cluster_dir(name: &str) -> Result<PathBuf> {
    state::cluster_dir(&ClusterId { provider: ProviderKind::Local, name: name.into() })
}

/// The private key with which kup logs in to a cluster's machines: the config's, or the one made for the cluster.
pub fn user_key(cluster: &str, own: Option<&Path>) -> Result<PathBuf> {
    match own {
        Some(path) => Ok(path.to_owned()),
        None => Ok(keys::user_key_path(&cluster_dir(cluster)?)),
    }
}

fn no_bundle() -> Error {
    Error::new("machines can't be made without a bundle").hint("kup bundle build, or kup bundle fetch, makes it")
}

fn no_engine() -> Error {
    Error::new("no container engine answers").hint("apt install podman runc (or docker.io)")
}

/// Runs what waits for files or computes beside the async work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new("work in the background ended early").why(e))?
}
