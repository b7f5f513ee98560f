//! Makes a bundle from the pinned sources of `scripts/bundle/`: one `go build` per component, at most a few at once.
//!
//! A finished component is kept under a key made of all that decides its bytes, so a build that was killed goes on where it was,
//! and a second one does nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::error::{Context, Error, Result};
use crate::report::event::Unit as Count;
use crate::report::{Report, Span};

use super::component::{COMPONENTS, Component, Item, Make, Place};
use super::manifest::Origin;
use super::releases::Release;
use super::store::{Record, Store, Stored, remove};
use super::toolchain::{self, Toolchain};
use super::{Arch, Bundle, image, modules};

/// How many components are built at once unless asked otherwise. Go uses all cores inside each; two keep them busy while one links.
pub const JOBS: usize = 2;

/// No component may take longer than this.
const DEADLINE: Duration = Duration::from_secs(3600);

/// How many of a compiler's last lines a failure shows.
const LAST_LINES: usize = 30;

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Build {
    /// See [`crate::state::cache_dir`].
    pub cache: PathBuf,
    /// The versions.
    pub release: Release,
    /// The machines it is for.
    pub arch: Arch,
    /// How many components at once.
    pub jobs: usize,
    /// Only these components; all if empty.
    pub only: Vec<String>,
}

/// How one component is built: everything that decides its bytes, bar the tools and sources.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// The component.
    pub component: &'static str,
    /// Its version.
    pub version: String,
    /// The wrapper module it is built in.
    pub module: String,
    /// The program and its arguments; `{out}` is the directory for what it makes, `{source}` that of the module with a C source.
    pub command: Vec<String>,
    /// What is set in its environment.
    pub env: Vec<(String, String)>,
}

/// The components of that name; all if none is named.
pub(super) fn chosen(only: &[String]) -> Result<Vec<&'static Component>> {
    if let Some(stranger) = only.iter().find(|name| super::component::named(name).is_none()) {
        let names: Vec<&str> = COMPONENTS.iter().map(|c| c.name).collect();
        return Err(Error::usage(format!("a bundle has no component {stranger:?}")).hint(format!("one of: {}", names.join(", "))));
    }
    Ok(COMPONENTS.iter().filter(|c| only.is_empty() || only.iter().any(|name| name == c.name)).collect())
}

/// How a component is built for `arch` on a machine of architecture `host`.
pub fn plan(component: &'static Component, release: &Release, arch: Arch, host: Arch) -> Result<Plan> {
    let pin = release.pin(component.name)?;
    let compiler = toolchain::compiler(arch, host);
    let mut env = Vec::new();
    let command: Vec<String> = match &component.make {
        Make::C { source } => {
            let define = format!("-DVERSION=v{}", pin.version);
            let output = format!("{{out}}/{}", component.name);
            [&compiler, "-Os", "-Wall", "-Werror", "-static", "-s", &define, "-o", &output, &format!("{{source}}/{source}")]
                .map(str::to_owned)
                .into()
        }
        Make::Go { cgo, tags, stamps } => {
            env.extend([
                ("CGO_ENABLED", if *cgo { "1" } else { "0" }),
                ("GOOS", "linux"),
                ("GOARCH", arch.as_str()),
                // Runs on every processor of its kind, whatever the user's own setting.
                ("GOAMD64", "v1"),
                ("GOARM64", "v8.0"),
                ("GOWORK", "off"),
            ]);
            // The user's Go, or an error that names the version wanted, but no download of another.
            env.push(("GOTOOLCHAIN", "local"));
            let mut ldflags = String::from("-s -w");
            if *cgo {
                ldflags += " -extldflags -static";
            }
            let mut parts = pin.version.split('.');
            let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            for stamp in *stamps {
                ldflags += " -X ";
                ldflags += &stamp.replace("{version}", &pin.version).replace("{major}", major).replace("{minor}", minor);
            }
            let mut command: Vec<String> = ["go", "build", "-v", "-mod=readonly", "-trimpath"].map(str::to_owned).into();
            if !tags.is_empty() {
                command.extend(["-tags".into(), tags.join(",")]);
            }
            command.extend(["-ldflags".into(), ldflags, "-o".into(), "{out}/".into()]);
            command.extend(component.items.iter().map(|i| i.package.to_owned()));
            command
        }
    };
    let mut env: Vec<(String, String)> = env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if matches!(component.make, Make::Go { cgo: true, .. }) && arch != host {
        env.push(("CC".into(), compiler));
        env.push(("PKG_CONFIG_LIBDIR".into(), format!("/usr/lib/{}/pkgconfig", arch.triplet())));
    }
    Ok(Plan { component: component.name, version: pin.version.clone(), module: pin.module.clone(), command, env })
}

/// What decides a component's bytes, as one checksum.
fn key(plan: &Plan, component: &Component, tools: &Toolchain) -> Result<String> {
    let c = match component.make {
        Make::Go { cgo: false, .. } => "",
        _ => &tools.cc,
    };
    let text = serde_json::to_string(&("built", plan, &tools.go, c, image::FORMAT, format!("{:?}", component.items)))
        .context("cannot describe a component")?;
    Ok(image::sha256(format!("{text}\0{}", modules::all(&plan.module)?).as_bytes()))
}

/// The name `go build` gives a package's executable: the last part of its path that isn't a major version.
fn executable(package: &str) -> &str {
    let is_major = |s: &&str| s.len() > 1 && s.starts_with('v') && s[1..].bytes().all(|b| b.is_ascii_digit());
    package.rsplit('/').find(|part| !is_major(part)).unwrap_or(package)
}

impl Build {
    /// Builds what isn't there yet. Returns the bundle, or none if only some components were asked for and others are missing.
    pub async fn run(&self, report: &Report) -> Result<Option<Bundle>> {
        let components = chosen(&self.only)?;
        let tools = toolchain::find(&self.release, &components, self.arch).await?;
        let step = report.step_of(format!("Bundle {}-{} from source", self.release.version, self.arch), "component");
        let outcome = self.build(&components, &tools, &step).await;
        step.close(outcome)
    }

    async fn build(&self, components: &[&'static Component], tools: &Toolchain, step: &Span) -> Result<Option<Bundle>> {
        let store = Store::new(&self.cache);
        let _lock = store.lock(&self.release.version, self.arch, step).await?;
        let mut built = 0;
        let total = Some(components.len() as u64);
        step.progress(0, total, Count::Items);
        let mut records: Vec<Record> = Vec::new();
        let mut work = futures::stream::iter(components.iter().map(|component| self.component(component, &store, tools, step)))
            .buffer_unordered(self.jobs.max(1));
        while let Some(record) = work.try_next().await? {
            records.push(record);
            built += 1;
            step.progress(built, total, Count::Items);
        }
        drop(work);
        // With --only, the others may be there from an earlier time.
        for component in COMPONENTS {
            if records.iter().all(|r| r.component != component.name) {
                let plan = plan(component, &self.release, self.arch, Arch::host()?)?;
                match store.record(&key(&plan, component, tools)?)? {
                    Some(record) => records.push(record),
                    None => return Ok(None),
                }
            }
        }
        super::assemble(store, &self.release, self.arch, Origin::Built, records).await.map(Some)
    }

    /// Makes one component, or finds it made.
    pub(super) async fn component(
        &self,
        component: &'static Component,
        store: &Store,
        tools: &Toolchain,
        step: &Span,
    ) -> Result<Record> {
        let plan = plan(component, &self.release, self.arch, Arch::host()?)?;
        let key = key(&plan, component, tools)?;
        let (s, k) = (store.clone(), key.clone());
        let found = tokio::task::spawn_blocking(move || s.record(&k)).await.context("the check of a component broke off")??;
        let title = format!("{} {}", component.name, plan.version);
        if let Some(record) = found {
            step.child(title).done_with("already built");
            return Ok(record);
        }
        let span = step.child(format!("{title} ({})", expected(component.seconds)));
        let outcome = self.make(component, &plan, store, tools, &span).await;
        let record = span.close(outcome.map_err(|e| e.within(format!("cannot build {title}"))))?;
        store.remember(&key, &record)?;
        Ok(record)
    }

    async fn make(
        &self,
        component: &'static Component,
        plan: &Plan,
        store: &Store,
        tools: &Toolchain,
        span: &Span,
    ) -> Result<Record> {
        // Each component has its own copy of its wrapper module: nothing is shared by two builds at once.
        let directory = store.work(&self.release.version, self.arch)?;
        let work = directory.path();
        let out = work.join("out");
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make the directory {}", out.display()))?;
        modules::write(&plan.module, work)?;
        let source = match component.make {
            Make::C { .. } => module_dir(work, component).await?,
            Make::Go { .. } => PathBuf::new(),
        };
        let fill =
            |word: &String| word.replace("{out}", &out.display().to_string()).replace("{source}", &source.display().to_string());
        let command: Vec<String> = plan.command.iter().map(fill).collect();
        compile(&command, &plan.env, tools.modcacherw, work, span).await?;

        let (store, arch, plan) = (store.clone(), self.arch, plan.clone());
        tokio::task::spawn_blocking(move || {
            let mut files = Vec::new();
            for item in component.items {
                let made = match component.make {
                    Make::C { .. } => out.join(component.name),
                    Make::Go { .. } => out.join(executable(item.package)),
                };
                files.push(keep(item, &made, &plan.version, modules::providing(&plan.module, item.package)?, arch, &store)?);
            }
            drop(directory);
            Ok(Record { component: component.name.into(), files })
        })
        .await
        .context("the keeping of a component broke off")?
    }
}

/// Puts an executable among the objects, as it is or as an image, after a look at whether it is one for that architecture.
pub(super) fn keep(item: &Item, executable: &Path, version: &str, source: String, arch: Arch, store: &Store) -> Result<Stored> {
    check_elf(executable, arch)?;
    let (size, sha256) = match &item.place {
        Place::Bin | Place::Cni => store.add(executable, item.mode())?,
        Place::Image(image) => {
            let archive = executable.with_extension("image.tar");
            remove(&archive)?;
            image::from_executable(&archive, image, version, item.name, executable, arch)?;
            store.add(&archive, item.mode())?
        }
    };
    Ok(Stored { name: item.name.into(), size, sha256, source })
}

/// An executable of another architecture would only fail on the machine, with "exec format error".
pub(super) fn check_elf(path: &Path, arch: Arch) -> Result<()> {
    let what = || format!("{} is not an executable for {arch}", path.display());
    let mut head = [0; 20];
    std::fs::File::open(path).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut head)).with_context(what)?;
    if head[..4] != *b"\x7fELF" {
        return Err(Error::new(what()).why("it is no ELF file"));
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    if machine != arch.elf_machine() {
        return Err(Error::new(what()).why(format!("its ELF machine is {machine}, expected {}", arch.elf_machine())));
    }
    Ok(())
}

fn expected(seconds: u32) -> String {
    match seconds {
        0..60 => format!("about {seconds} s on two cores"),
        _ => format!("about {} min on two cores", seconds.div_ceil(60)),
    }
}

/// Where Go keeps the module that an item's C source is in; downloads it if need be.
async fn module_dir(work: &Path, component: &Component) -> Result<PathBuf> {
    let module = component.items.first().map(|i| i.package).unwrap_or_default();
    let text = toolchain::output("go", &["mod", "download", "-json", module], work, DEADLINE).await?;
    let told: serde_json::Value = serde_json::from_str(&text).context("cannot read what go mod download said")?;
    let dir = told.get("Dir").and_then(|d| d.as_str());
    dir.map(PathBuf::from).ok_or_else(|| Error::new(format!("go mod download named no directory for {module}")))
}

/// Runs a compiler to its end; its last lines tell what it does, and why it failed.
async fn compile(command: &[String], env: &[(String, String)], modcacherw: bool, dir: &Path, span: &Span) -> Result<()> {
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    // Set in any case: an empty GOFLAGS would give way to the user's `go env -w`, which may have a -mod or -tags of its own.
    let flags = if modcacherw { "-buildvcs=false -modcacherw" } else { "-buildvcs=false" };
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GOFLAGS", flags)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut last = VecDeque::new();
    let work = async {
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(line) = lines.next_line().await.with_context(|| format!("cannot read what {program} says"))? {
                span.waiting(format!("{program}: {line}"));
                last.push_back(line);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
        }
        child.wait().await.with_context(|| format!("cannot wait for {program}"))
    };
    let status = tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| Error::new(format!("{program} did not end within {} minutes", DEADLINE.as_secs() / 60)))??;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("{program} failed ({status})"))
        .why(last.into_iter().collect::<Vec<_>>().join("\n"))
        .left("finished components are kept; the same command goes on from there"))
}
