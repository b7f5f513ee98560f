//! `kup bundle`: make, get, check and show the set of binaries and images that a cluster is made of.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use reqwest::Url;
use serde_json::json;

use crate::bundle::build::{self, Build};
use crate::bundle::fetch::Fetch;
use crate::bundle::releases::Release;
use crate::bundle::{Arch, Bundle, Releases};
use crate::error::{Context, Error, Result};
use crate::report::Report;
use crate::state::cache_dir;

use super::{Conduct, Ui};

/// Make, get, check and show the set of binaries and images that a cluster is made of.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the bundle from its pinned sources (needs Go and a C compiler); goes on where it was stopped, repairs what is broken.
    Build {
        #[command(flatten)]
        which: Which,
        /// How many components to build at the same time; Go uses all cores inside each.
        #[arg(long, default_value_t = build::JOBS, value_name = "N", value_parser = at_least_one)]
        jobs: usize,
        /// Only this component (may be given several times).
        #[arg(long, value_name = "COMPONENT")]
        only: Vec<String>,
    },
    /// Download the bundle as upstream publishes it, checked against the published checksums; repairs what is broken.
    Fetch {
        #[command(flatten)]
        which: Which,
        /// Ask this server instead of each https://HOST/PATH, as URL/HOST/PATH.
        #[arg(long, env = "KUP_BUNDLE_MIRROR", value_name = "URL")]
        mirror: Option<Url>,
        /// Only this component (may be given several times).
        #[arg(long, value_name = "COMPONENT")]
        only: Vec<String>,
    },
    /// Hash every file of the bundle and compare with its manifest.
    Verify {
        #[command(flatten)]
        which: Which,
    },
    /// List the files of the bundle, or all bundles in the cache (--all).
    List {
        #[command(flatten)]
        which: Which,
        /// List the bundles in the cache instead.
        #[arg(long)]
        all: bool,
    },
    /// Print where the bundle, or one file of it, is.
    Path {
        #[command(flatten)]
        which: Which,
        /// A file's name (kubectl).
        name: Option<String>,
    },
}

/// Which bundle is meant.
#[derive(Debug, ClapArgs)]
struct Which {
    /// Kubernetes version (default: the newest that this kup was tested with).
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Architecture of the machines (default: this machine's).
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse::<usize>().map_err(|e| e.to_string()).and_then(|n| if n == 0 { Err("at least 1".into()) } else { Ok(n) })
}

impl Which {
    fn release(&self) -> Result<Release> {
        let releases = Releases::load()?;
        releases.release(self.version.as_deref().unwrap_or(&releases.default))
    }

    fn arch(&self) -> Result<Arch> {
        self.arch.map_or_else(Arch::host, Ok)
    }

    fn open(&self) -> Result<Bundle> {
        let (release, arch) = (self.release()?, self.arch()?);
        Bundle::open(&cache_dir()?, &release.version, arch)?.ok_or_else(|| {
            Error::new(format!(
                "there is no complete bundle {}-{arch} in {}",
                release.version,
                cache_dir().unwrap_or_else(|_| PathBuf::from("the cache")).display()
            ))
            .hint(format!("kup bundle fetch --version {} --arch {arch}", release.version))
            .hint(format!("kup bundle build --version {} --arch {arch}", release.version))
        })
    }
}

impl Args {
    /// How this command behaves towards the outside while it runs.
    pub fn conduct(&self) -> Conduct {
        match self.command {
            Command::Build { .. } => Conduct { stream: true, interrupted: Some("`kup bundle build` goes on from there") },
            Command::Fetch { .. } => Conduct { stream: true, interrupted: Some("`kup bundle fetch` goes on from there") },
            Command::Verify { .. } | Command::List { .. } | Command::Path { .. } => Conduct::default(),
        }
    }
}

/// Runs `kup bundle …`.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.command {
        Command::Build { which, jobs, only } => {
            let build = Build { cache: cache_dir()?, release: which.release()?, arch: which.arch()?, jobs, only };
            made(build.run(&ui.report).await?, ui)
        }
        Command::Fetch { which, mirror, only } => {
            let fetch =
                Fetch { cache: cache_dir()?, release: which.release()?, arch: which.arch()?, mirror, only, compile: true };
            made(fetch.run(&ui.report).await?, ui)
        }
        Command::Verify { which } => {
            let bundle = verify(which.open()?, &ui.report).await?;
            summary(&bundle, ui)
        }
        Command::List { all: true, .. } => list_all(ui),
        Command::List { which, .. } => list(&which.open()?, ui),
        Command::Path { which, name } => {
            let bundle = which.open()?;
            let path = name.map_or_else(|| Ok(bundle.dir.clone()), |name| bundle.path(&name))?;
            if ui.json {
                return ui.result(&json!({ "path": path }));
            }
            ui.print(path.display());
            Ok(())
        }
    }
}

fn made(bundle: Option<Bundle>, ui: &Ui) -> Result<()> {
    match bundle {
        Some(bundle) => summary(&bundle, ui),
        None if ui.json => ui.result(&json!({ "complete": false })),
        None => {
            ui.report.note(
                "the components asked for are kept; the bundle is complete when all the others have been made the same way",
            );
            Ok(())
        }
    }
}

async fn verify(bundle: Bundle, report: &Report) -> Result<Bundle> {
    let span = report.step(format!("Checking bundle {}-{}", bundle.manifest.kubernetes, bundle.manifest.arch));
    let outcome =
        tokio::task::spawn_blocking(move || bundle.verify(true).map(|()| bundle)).await.context("the check broke off")?;
    span.close(outcome)
}

fn brief(bundle: &Bundle) -> serde_json::Value {
    let m = &bundle.manifest;
    json!({ "kubernetes": m.kubernetes, "arch": m.arch, "origin": m.origin, "files": m.files.len(), "size": bundle.size(), "path": bundle.dir })
}

fn summary(bundle: &Bundle, ui: &Ui) -> Result<()> {
    if ui.json {
        return ui.result(&brief(bundle));
    }
    let m = &bundle.manifest;
    ui.print(format!(
        "bundle {}-{}: {} files, {}, {}",
        m.kubernetes,
        m.arch,
        m.files.len(),
        mebibytes(bundle.size()),
        bundle.dir.display()
    ));
    Ok(())
}

fn list(bundle: &Bundle, ui: &Ui) -> Result<()> {
    if ui.json {
        return ui.result(&bundle.manifest);
    }
    let mut table = table(["FILE", "VERSION", "ROLE", "SIZE", "SHA256", "SOURCE"]);
    for file in &bundle.manifest.files {
        let role = serde_json::to_value(file.role).ok().and_then(|r| r.as_str().map(str::to_owned)).unwrap_or_default();
        let short = file.sha256.get(..12).unwrap_or(&file.sha256).to_owned();
        table.add_row([file.path.clone(), file.version.clone(), role, mebibytes(file.size), short, file.source.clone()]);
    }
    ui.print(table);
    Ok(())
}

fn list_all(ui: &Ui) -> Result<()> {
    let bundles = Bundle::all(&cache_dir()?)?;
    if ui.json {
        return ui.result(&bundles.iter().map(brief).collect::<Vec<_>>());
    }
    let mut table = table(["KUBERNETES", "ARCH", "FILES", "SIZE", "PATH"]);
    for bundle in &bundles {
        let m = &bundle.manifest;
        table.add_row([
            m.kubernetes.clone(),
            m.arch.to_string(),
            m.files.len().to_string(),
            mebibytes(bundle.size()),
            bundle.dir.display().to_string(),
        ]);
    }
    ui.print(table);
    Ok(())
}

fn table<const N: usize>(head: [&str; N]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head);
    table
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
