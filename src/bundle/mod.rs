//! The bundle: the orchestrator's binaries and images for one Kubernetes version and architecture, each with its sha256.
//!
//! [`Bundle::ensure`] gets one (from the cache, from upstream, or built from source) and checks it before anything of it runs.
//! Machines mount [`Bundle::dir`] read-only, or are sent it as one stream ([`pack`]).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::report::Report;

pub mod build;
pub mod component;
pub mod download;
pub mod fetch;
pub mod image;
pub mod manifest;
pub mod modules;
pub mod pack;
pub mod registry;
pub mod releases;
pub mod store;
pub mod toolchain;
pub mod verify;

pub use manifest::{Manifest, Role};
use releases::Release;
pub use releases::Releases;
use store::{Record, Store};

/// A machine's processor architecture, in Go's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// That of the machine kup runs on.
    ///
    /// # Errors
    /// On a machine of another kind there is no default.
    pub fn host() -> Result<Arch> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Arch::Amd64),
            "aarch64" => Ok(Arch::Arm64),
            other => Err(Error::usage(format!("this machine's architecture ({other}) has no bundle"))
                .hint("choose one with --arch amd64 or --arch arm64")),
        }
    }

    /// Of the word `uname -m` uses, as clouds do.
    ///
    /// # Errors
    /// Another than the two.
    pub fn of_machine(word: &str) -> Result<Arch> {
        [Arch::Amd64, Arch::Arm64].into_iter().find(|arch| arch.machine() == word || arch.as_str() == word).ok_or_else(|| {
            Error::usage(format!("machines of the architecture {word} have no bundle"))
                .hint("choose an image for x86_64 or arm64")
        })
    }

    /// The word Go and upstream's file names use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// The word `uname -m` uses.
    pub const fn machine(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64",
            Arch::Arm64 => "aarch64",
        }
    }

    /// Its number in an ELF header (`e_machine`).
    pub(crate) const fn elf_machine(self) -> u16 {
        match self {
            Arch::Amd64 => 62,
            Arch::Arm64 => 183,
        }
    }

    /// The triplet in Debian's names of compilers and library directories.
    pub(crate) const fn triplet(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-linux-gnu",
            Arch::Arm64 => "aarch64-linux-gnu",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(s: &str) -> Result<Arch> {
        match s {
            "amd64" | "x86_64" => Ok(Arch::Amd64),
            "arm64" | "aarch64" => Ok(Arch::Arm64),
            _ => Err(Error::usage(format!("{s:?} is no architecture that kup has bundles for")).hint("amd64 or arm64")),
        }
    }
}

/// A complete bundle on disk.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its directory: `bin/`, `cni/`, `images/` and `bundle.yaml`.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

impl Bundle {
    /// The bundle of that Kubernetes version and architecture in the cache; none if there is none, or one that lacks what this kup
    /// needs. Nothing is checked yet: see [`Bundle::verify`].
    pub fn open(cache: &Path, version: &str, arch: Arch) -> Result<Option<Bundle>> {
        let release = Releases::load()?.release(version)?;
        let dir = Store::new(cache).bundle_dir(&release.version, arch);
        match Manifest::read(&dir)? {
            Some(manifest) if manifest.fits(&release, arch)? => Ok(Some(Bundle { dir, manifest })),
            _ => Ok(None),
        }
    }

    /// All bundles in the cache.
    pub fn all(cache: &Path) -> Result<Vec<Bundle>> {
        let dir = cache.join("bundles");
        let what = || format!("cannot read {}", dir.display());
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(e).with_context(what),
        };
        for entry in entries {
            let dir = entry.with_context(what)?.path();
            if dir.is_dir()
                && let Some(manifest) = Manifest::read(&dir)?
            {
                found.push(Bundle { dir, manifest });
            }
        }
        found.sort_by(|a, b| a.dir.cmp(&b.dir));
        Ok(found)
    }

    /// The bundle, ready to run: from the cache, else fetched where upstream (or the mirror) answers quickly, else built from source.
    ///
    /// # Errors
    /// A corrupt bundle is an error that says how to repair it; it is not replaced silently.
    pub async fn ensure(version: &str, arch: Arch, mirror: Option<Url>, report: &Report) -> Result<Bundle> {
        let cache = crate::state::cache_dir()?;
        if let Some(bundle) = Bundle::open(&cache, version, arch)? {
            return tokio::task::spawn_blocking(move || bundle.verify(false).map(|()| bundle))
                .await
                .context("the check of the bundle broke off")?;
        }
        let release = Releases::load()?.release(version)?;
        let given = mirror.is_some();
        let fetch =
            fetch::Fetch { cache: cache.clone(), release: release.clone(), arch, mirror, only: Vec::new(), compile: true };
        if given || fetch.answers().await {
            match fetch.run(report).await {
                Err(e) if !given => report.warn(format!("{}: building the bundle from source instead", e.what)),
                outcome => return complete(outcome?),
            }
        } else {
            report.note("upstream does not answer: building the bundle from source");
        }
        complete(build::Build { cache, release, arch, jobs: build::JOBS, only: Vec::new() }.run(report).await?)
    }

    /// Checks every file against the manifest: `thorough` hashes all, otherwise only those that look different from when they were
    /// last hashed. Uses all cores; blocks.
    ///
    /// # Errors
    /// Names each bad file, what was expected and found, and the command that repairs it.
    pub fn verify(&self, thorough: bool) -> Result<()> {
        verify::verify(self, thorough)
    }

    /// Where the file of that name is.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir.join(&self.manifest.file(name)?.path))
    }

    /// The bytes of all its files.
    pub fn size(&self) -> u64 {
        self.manifest.files.iter().map(|f| f.size).sum()
    }
}

fn complete(made: Option<Bundle>) -> Result<Bundle> {
    made.ok_or_else(|| Error::new("the bundle is not complete").hint("kup bundle build"))
}

/// Links the finished components together and checks the result.
async fn assemble(store: Store, release: &Release, arch: Arch, origin: manifest::Origin, records: Vec<Record>) -> Result<Bundle> {
    let release = release.clone();
    let work = move || {
        let (dir, manifest) = store.assemble(&release, arch, origin, &records)?;
        let bundle = Bundle { dir, manifest };
        bundle.verify(false).map(|()| bundle)
    };
    tokio::task::spawn_blocking(work).await.context("the making of the bundle broke off")?
}
