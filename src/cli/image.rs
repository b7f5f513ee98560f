//! `kup image`: the machines' own image, and container images for the nodes.

use std::path::Path;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use crate::aws::lock::Lock;
use crate::bundle::{Arch, Bundle, Releases};
use crate::cluster::spec::EngineChoice;
use crate::error::{Context, Error, Result};
use crate::machine::Machine;
use crate::provider::local::{engine::Engine, load};
use crate::provider::{AnyProvider, Finder as _, LocalProvider, aws};
use crate::standing::Standing;
use crate::state;

use super::Ui;
use super::target::TargetArgs;

/// Build the machines' image, or load container images into a cluster's nodes.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the image that local machines start from, unless it is there already.
    Build {
        /// Container engine; auto takes podman or docker, whichever answers.
        #[arg(long, env = "KUP_ENGINE", value_enum, default_value = "auto")]
        engine: EngineChoice,
        /// Build it again, even if it is there.
        #[arg(long)]
        force: bool,
        /// Kubernetes version whose bundle goes into the image (default: the newest that this kup was tested with).
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Put container images onto all running nodes of a cluster.
    ///
    /// On AWS they go into the cluster's bucket once, and nodes get them from there: minions that come later too, also in place of lost ones.
    /// A master, or on this host any machine, that is made anew does not have them.
    Load {
        /// Archives (files made by `podman save` or `docker save`), or names of images that the container engine has.
        #[arg(required = true, value_name = "ARCHIVE|IMAGE")]
        images: Vec<String>,
        #[command(flatten)]
        which: TargetArgs,
    },
}

/// Runs `kup image`.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.command {
        Command::Build { engine, force, version } => {
            let bundle = bundle(version.as_deref()).await?;
            let tag = LocalProvider::new(engine).with_bundle(bundle.dir).build_image(&ui.report, force).await?;
            print(ui, &json!({ "image": tag }), &tag)
        }
        Command::Load { images, which } => {
            let target = which.require(ui).await?;
            target.announce(&ui.report);
            let loaded = match &target.provider {
                AnyProvider::Local(provider) => {
                    let (engine, machines) = local(&target.id.name, provider).await?;
                    let to = async |archive: &Path, title: &str| load::load(&engine, &machines, archive, title, &ui.report).await;
                    load_all(async || Ok(engine.clone()), &images, to, ui).await?
                }
                AnyProvider::Aws(provider) => {
                    let standing = Standing::of(&target.id, &target.provider).await?;
                    let command = std::env::args().collect::<Vec<_>>().join(" ");
                    let lock = Lock::take(&provider.aws, &command, false).await?;
                    let to = async |archive: &Path, title: &str| {
                        aws::load::load(&provider.aws, &standing, archive, title, &ui.report).await
                    };
                    let engine = async || first_engine(which.engine.unwrap_or(EngineChoice::Auto)).await;
                    lock.during(&ui.report, ui.interrupt.or(load_all(engine, &images, to, ui))).await?
                }
            };
            print(ui, &json!({ "images": loaded }), &loaded.join("\n"))
        }
    }
}

fn print(ui: &Ui, json: &serde_json::Value, text: &str) -> Result<()> {
    if ui.json {
        return ui.result(json);
    }
    ui.print(text);
    Ok(())
}

/// The bundle of that version (or the default one) in the cache, checked: its containerd will be run.
async fn bundle(version: Option<&str>) -> Result<Bundle> {
    let releases = Releases::load()?;
    let version = releases.release(version.unwrap_or(&releases.default))?.version;
    let (cache, arch) = (state::cache_dir()?, Arch::host()?);
    let bundle = Bundle::open(&cache, &version, arch)?.ok_or_else(|| {
        Error::new(format!("there is no complete bundle {version}-{arch} in {}", cache.display()))
            .hint(format!("kup bundle build --version {version}, or kup bundle fetch --version {version}, makes it"))
    })?;
    tokio::task::spawn_blocking(move || bundle.verify(false).map(|()| bundle))
        .await
        .context("the check of the bundle broke off")?
}

/// An engine of this host, which may have the images that are meant.
async fn first_engine(choice: EngineChoice) -> Result<Engine> {
    Engine::find(choice).await?.into_iter().next().ok_or_else(|| Error::new("no container engine is installed"))
}

/// The engine and the running machines of a cluster on this host.
async fn local(name: &str, provider: &LocalProvider) -> Result<(Engine, Vec<Machine>)> {
    let found = provider.discover(name).await?;
    let nodes = found.machines.into_iter().filter(|m| m.running && m.machine.role.is_node());
    let machines: Vec<Machine> = nodes.map(|m| m.machine).collect();
    match provider.engine_of(name).await? {
        Some(engine) if !machines.is_empty() => Ok((engine, machines)),
        Some(_) => {
            Err(Error::new(format!("no machine of cluster {name} is running"))
                .hint(format!("`kup up --name {name}` starts them")))
        }
        None => Err(Error::new(format!("there is no local cluster {name}")).hint("`kup get clusters` lists them")),
    }
}

/// Loads archives one after another (each fills the disks of all nodes), the engine's images as one archive.
async fn load_all(
    engine: impl AsyncFnOnce() -> Result<Engine>,
    images: &[String],
    load_one: impl AsyncFn(&Path, &str) -> Result<Vec<String>>,
    ui: &Ui,
) -> Result<Vec<String>> {
    let (files, names): (Vec<&String>, Vec<&String>) = images.iter().partition(|i| Path::new(i).is_file());
    let names: Vec<String> = names.into_iter().cloned().collect();
    // Saved first: a name that doesn't exist should fail before anything is loaded.
    let saved = if names.is_empty() { None } else { Some(load::save(&engine().await?, &names, &ui.report).await?) };
    let mut loaded = Vec::new();
    for file in files {
        loaded.extend(load_one(Path::new(file), file).await?);
    }
    if let Some(archive) = &saved {
        loaded.extend(load_one(archive, &names.join(", ")).await?);
    }
    loaded.sort();
    loaded.dedup();
    Ok(loaded)
}
