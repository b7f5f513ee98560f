//! `kup image`: the machines' own image, and container images for the nodes.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use crate::cluster::spec::EngineChoice;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::provider::local::{engine::Engine, load};
use crate::provider::{LocalProvider, Provider};
use crate::state;

use super::Ui;

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
        /// Kubernetes version whose bundle goes into the image [default: the newest in the cache].
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Put container images onto all running nodes of a local cluster.
    Load {
        /// Archives (files made by `podman save` or `docker save`), or names of images that the container engine has.
        #[arg(required = true, value_name = "ARCHIVE|IMAGE")]
        images: Vec<String>,
        /// The cluster [default: the only one there is].
        #[arg(long, env = "KUP_NAME", value_name = "CLUSTER")]
        name: Option<String>,
        /// Container engine; auto takes the one in which the cluster is.
        #[arg(long, env = "KUP_ENGINE", value_enum, default_value = "auto")]
        engine: EngineChoice,
    },
}

/// Runs `kup image`.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.command {
        Command::Build { engine, force, version } => {
            let tag = LocalProvider::new(engine).with_bundle(bundle(version.as_deref())?).build_image(&ui.report, force).await?;
            ui.print(if ui.json { json!({ "image": tag }).to_string() } else { tag });
            Ok(())
        }
        Command::Load { images, name, engine } => {
            let provider = LocalProvider::new(engine);
            let (engine, machines) = target(&provider, name).await?;
            let loaded = load_all(&engine, &machines, &images, ui).await?;
            ui.print(if ui.json { json!({ "images": loaded }).to_string() } else { loaded.join("\n") });
            Ok(())
        }
    }
}

/// The directory of a complete bundle in the cache: of the version asked for, else of the newest.
fn bundle(version: Option<&str>) -> Result<PathBuf> {
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let all = state::cache_dir()?.join("bundles");
    let numbers = |dir: &Path| -> Option<Vec<u32>> {
        let name = dir.file_name()?.to_str()?.strip_suffix(&format!("-{arch}"))?;
        if version.is_some_and(|v| v.trim_start_matches('v') != name) {
            return None;
        }
        name.split('.').map(|n| n.parse().ok()).collect()
    };
    let found =
        std::fs::read_dir(&all).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.join("bundle.yaml").is_file());
    found.filter_map(|p| Some((numbers(&p)?, p))).max().map(|(_, p)| p).ok_or_else(|| {
        let which = version.map(|v| format!(" of version {v}")).unwrap_or_default();
        Error::new(format!("there is no bundle{which} for {arch} in {}", all.display()))
            .hint("kup bundle build, or kup bundle fetch, makes one")
    })
}

/// The engine and the running machines of the cluster that is meant.
async fn target(provider: &LocalProvider, name: Option<String>) -> Result<(Engine, Vec<Machine>)> {
    let name = match name {
        Some(name) => name,
        None => match &provider.clusters().await?[..] {
            [] => return Err(Error::new("there is no local cluster").hint("kup up --provider local makes one")),
            [only] => only.clone(),
            several => {
                return Err(
                    Error::usage(format!("there are several clusters: {}", several.join(", "))).hint("say which one with --name")
                );
            }
        },
    };
    let found = provider.discover(&name).await?;
    let engine = provider.engine_of(&name).await?;
    let machines: Vec<Machine> = found.machines.into_iter().filter(|m| m.running).map(|m| m.machine).collect();
    match engine {
        Some(engine) if !machines.is_empty() => Ok((engine, machines)),
        Some(_) => {
            Err(Error::new(format!("no machine of cluster {name} is running")).hint(format!("kup up --name {name} starts them")))
        }
        None => Err(Error::new(format!("there is no local cluster {name}")).hint("kup get clusters lists them")),
    }
}

/// Loads archives one after another (each fills the disks of all nodes), the engine's images as one archive.
async fn load_all(engine: &Engine, machines: &[Machine], images: &[String], ui: &Ui) -> Result<Vec<String>> {
    let (files, names): (Vec<&String>, Vec<&String>) = images.iter().partition(|i| Path::new(i).is_file());
    let names: Vec<String> = names.into_iter().cloned().collect();
    // Saved first: a name that doesn't exist should fail before anything is loaded.
    let saved = if names.is_empty() { None } else { Some(load::save(engine, &names, &ui.report).await?) };
    let mut loaded = Vec::new();
    for file in files {
        loaded.extend(load::load(engine, machines, Path::new(file), file, &ui.report).await?);
    }
    if let Some(archive) = &saved {
        loaded.extend(load::load(engine, machines, archive, &names.join(", "), &ui.report).await?);
    }
    loaded.sort();
    loaded.dedup();
    Ok(loaded)
}
