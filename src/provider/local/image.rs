//! The node image: Debian with systemd and sshd (the base, keyed by its inputs), and on it a layer with the bundle's images already
//! unpacked in containerd's store (keyed by the base and those images), so that no node imports anything when it starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use include_dir::{Dir, DirEntry, File, include_dir};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::engine::{ACT, Engine, EngineKind, MOVE, process};
use crate::bundle::{Manifest, Role};
use crate::error::{Context, Error, Result};
use crate::machine::host::{Facts, runtime_flags};
use crate::report::{Report, Span};
use crate::state;

static RECIPE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scripts/node-image");

/// The script that makes the second layer: the only part of the recipe that the base does not depend on.
const UNPACK: &str = "unpack";
/// Debian's release: its systemd (252) still boots where the kernel has only cgroup v1.
const SUITE: &str = "bookworm";
/// Longest time for packages to be downloaded and installed: 80 s on two cores with a near mirror.
const INSTALL: Duration = Duration::from_secs(1800);
/// What a build of the base takes on two cores, for the display.
const EXPECTED: &str = "about 90 s";
/// How a container of the image starts; `import` and `commit` would lose it.
const CHANGES: [&str; 2] = ["CMD [\"/sbin/init\"]", "STOPSIGNAL SIGRTMIN+3"];

/// The node image for one bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    base: String,
    tag: String,
    bundle: PathBuf,
    /// The archives to unpack, relative to the bundle's directory.
    archives: Vec<String>,
}

impl NodeImage {
    /// Works out the image's names from everything that goes into it: the recipe, and the bundle's images by their checksums.
    pub fn of(bundle: &Path) -> Result<NodeImage> {
        let manifest = Manifest::read(bundle)?.ok_or_else(|| {
            Error::new(format!("{} is not a complete bundle", bundle.display()))
                .hint("kup bundle build, or kup bundle fetch, makes it")
        })?;
        let base = base_key();
        let mut hash = Sha256::new();
        hash.update(&base);
        hash.update(recipe(UNPACK)?.contents());
        let mut archives = Vec::new();
        for file in manifest.files.into_iter().filter(|f| f.role == Role::Image) {
            hash.update(&file.sha256);
            archives.push(file.path);
        }
        let key = hex::encode(hash.finalize());
        Ok(NodeImage {
            base: format!("localhost/kup-node-base:{}", &base[..16]),
            tag: format!("localhost/kup-node:{}", &key[..16]),
            bundle: bundle.to_owned(),
            archives,
        })
    }

    /// The image's name in the engine.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Makes the image if the engine hasn't got it, or in any case with `force`. Returns its name.
    pub async fn ensure(&self, engine: &Engine, facts: &Facts, report: &Report, force: bool) -> Result<String> {
        if !force && engine.has_image(&self.tag).await? {
            return Ok(self.tag.clone());
        }
        let span = report.step("node image");
        let made = self.make(engine, facts, &span, force).await;
        span.close(made)?;
        Ok(self.tag.clone())
    }

    async fn make(&self, engine: &Engine, facts: &Facts, span: &Span, force: bool) -> Result<()> {
        let cache = state::cache_dir()?.join("node-image");
        fs::create_dir_all(&cache).with_context(|| format!("cannot make the directory {}", cache.display()))?;
        // Two clusters may start at once: the second waits for the first one's image instead of building it too.
        let _lock = lock(&cache.join("lock"), span).await?;
        if !force && engine.has_image(&self.tag).await? {
            return Ok(());
        }
        if force || !engine.has_image(&self.base).await? {
            let work =
                tempfile::Builder::new().prefix("build-").tempdir_in(&cache).context("cannot make a directory to build in")?;
            if let Some(program) = mmdebstrap() {
                by_mmdebstrap(&program, engine, work.path(), &self.base, span).await?;
            } else {
                by_engine(engine, facts, work.path(), &self.base, span).await?;
            }
        }
        span.waiting("unpacking the bundle's images");
        self.unpack(engine, facts, &cache).await
    }

    /// Runs the bundle's containerd in a container of the base, and keeps what it unpacked as a layer.
    async fn unpack(&self, engine: &Engine, facts: &Facts, cache: &Path) -> Result<()> {
        let work = tempfile::Builder::new().prefix("unpack-").tempdir_in(cache).context("cannot make a directory to build in")?;
        let script = work.path().join("unpack");
        write_entry(UNPACK, &script, 0o755)?;
        let container = format!("kup-image-{}", self.tag.rsplit(':').next().unwrap_or_default());
        let remove = || async { engine.run(ACT, ["rm", "-f", "-v", &container]).await };
        remove().await.or_else(|e| if super::engine::is_gone(&e) { Ok(String::new()) } else { Err(e) })?;
        let mut args: Vec<String> =
            vec!["run".into(), "--name".into(), container.clone(), "--network=none".into(), "--privileged".into()];
        args.extend(runtime_flags(facts));
        // Below /run, which is a tmpfs here: mount points would stay in the layer as empty files.
        let tmpfs = if facts.engine == EngineKind::Docker { "--tmpfs=/run:exec" } else { "--tmpfs=/run" };
        args.extend([tmpfs.into(), "--pull=never".into(), "--entrypoint=/bin/sh".into()]);
        args.push(format!("--volume={}:/run/kup/unpack:ro", script.display()));
        args.push(format!("--volume={}:/run/kup/bundle:ro", self.bundle.display()));
        args.extend([self.base.clone(), "/run/kup/unpack".into(), "/run/kup/bundle".into()]);
        args.extend(self.archives.iter().map(|archive| format!("/run/kup/bundle/{archive}")));
        let work = async {
            engine.run(MOVE, &args).await?;
            let mut commit: Vec<&str> = vec!["commit"];
            commit.extend(CHANGES.iter().flat_map(|c| ["--change", c]));
            commit.extend(["--change", "ENTRYPOINT []", &container, &self.tag]);
            engine.run(MOVE, commit).await.map(drop)
        };
        let outcome = work.await.map_err(|e| e.within("cannot unpack the bundle's images into the node image"));
        let removed = remove().await;
        outcome?;
        removed.map(drop)
    }
}

/// The key of the base: everything that decides what is in it.
fn base_key() -> String {
    let mut hash = Sha256::new();
    hash.update(SUITE);
    hash.update(std::env::consts::ARCH);
    let mut files = Vec::new();
    collect(&RECIPE, &mut files);
    files.sort();
    for (path, contents) in files.into_iter().filter(|(path, _)| *path != Path::new(UNPACK)) {
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update((contents.len() as u64).to_le_bytes());
        hash.update(contents);
    }
    hex::encode(hash.finalize())
}

fn collect(dir: &'static Dir<'static>, files: &mut Vec<(&'static Path, &'static [u8])>) {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => collect(dir, files),
            DirEntry::File(file) => files.push((file.path(), file.contents())),
        }
    }
}

/// The packages' names, without comments.
fn packages() -> Result<Vec<&'static str>> {
    let text = RECIPE
        .get_file("packages")
        .and_then(|f| f.contents_utf8())
        .ok_or_else(|| Error::new("this kup was built without scripts/node-image/packages"))?;
    Ok(text.lines().filter(|l| !l.starts_with('#')).flat_map(str::split_whitespace).collect())
}

fn recipe(name: &str) -> Result<&'static File<'static>> {
    RECIPE.get_file(name).ok_or_else(|| Error::new(format!("this kup was built without scripts/node-image/{name}")))
}

/// Writes a file of the recipe.
fn write_entry(name: &str, to: &Path, mode: u32) -> Result<()> {
    let what = || format!("cannot write {}", to.display());
    let file =
        RECIPE.get_file(name).ok_or_else(|| Error::new(format!("this kup was built without scripts/node-image/{name}")))?;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(what)?;
    }
    fs::write(to, file.contents()).with_context(what)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(what)
}

/// Writes the recipe into a directory: `files/`, `packages`, `finish`, `Containerfile`.
fn write_recipe(to: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(&RECIPE, &mut files);
    for (path, _) in files {
        let name = path.to_string_lossy();
        let mode = if name.starts_with("files/usr/lib/kup/") { 0o755 } else { 0o644 };
        write_entry(&name, &to.join(path), mode)?;
    }
    // Directories become part of the image: their mode must not depend on the umask of whoever builds it.
    fn open_up(dir: &Path) -> std::io::Result<()> {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open_up(&entry.path())?;
            }
        }
        Ok(())
    }
    open_up(to).with_context(|| format!("cannot set the rights of {}", to.display()))?;
    fs::write(to.join("packages"), packages()?.join(" "))
        .with_context(|| format!("cannot write {}", to.join("packages").display()))
}

fn mmdebstrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("mmdebstrap")).find(|p| p.is_file())
}

/// The base by mmdebstrap: no image registry is needed, only Debian's mirror.
async fn by_mmdebstrap(program: &Path, engine: &Engine, work: &Path, base: &str, span: &Span) -> Result<()> {
    let recipe = work.join("recipe");
    write_recipe(&recipe)?;
    let archive = work.join("base.tar");
    let shown = recipe.display();
    let mut command = Command::new(program);
    command.args(["--variant=minbase", "--mode=root", "--aptopt=APT::Install-Recommends \"false\""]);
    for path in ["doc", "man", "info", "locale", "lintian", "bug"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    command.arg(format!("--include={}", packages()?.join(",")));
    command.arg(format!("--customize-hook=copy-in {shown}/finish /tmp"));
    command.arg(format!("--customize-hook=sync-in {shown}/files /"));
    command.arg("--customize-hook=chroot \"$1\" sh /tmp/finish && rm \"$1/tmp/finish\"");
    command.arg(SUITE).arg(&archive);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    span.waiting(format!("installing Debian's packages ({EXPECTED})"));
    let mut child = process::spawn(&mut command).with_context(|| format!("cannot run {}", program.display()))?;
    let pid = child.id();
    let mut said: Vec<String> = Vec::new();
    let status = process::end(pid, INSTALL, async {
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Some(line) = lines.next_segment().await? {
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(step) = line.strip_prefix("I: ").filter(|s| s.ends_with("...") && !s.contains("tempdir")) {
                    span.waiting(format!("{} ({EXPECTED} in all)", step.trim_end_matches('.')));
                }
                said.push(line);
                if said.len() > 200 {
                    said.remove(0);
                }
            }
        }
        child.wait().await
    })
    .await
    .ok_or_else(|| {
        Error::new(format!("mmdebstrap did not end within {} minutes", INSTALL.as_secs() / 60))
            .why(tail(&said))
            .hint("see whether Debian's mirror can be reached")
    })?
    .context("mmdebstrap failed")?;
    if !status.success() {
        return Err(Error::new("mmdebstrap could not make the node image")
            .why(tail(&said))
            .hint("see whether Debian's mirror can be reached, then try again"));
    }
    span.waiting("handing the image to the engine");
    let mut import: Vec<String> = vec!["import".into()];
    import.extend(CHANGES.iter().flat_map(|c| ["--change".to_owned(), (*c).to_owned()]));
    import.extend([archive.display().to_string(), base.to_owned()]);
    engine.run(MOVE, import).await.map(drop)
}

/// The base by the engine itself, from Debian's own image. Needs a registry; this way has not been run where kup is developed.
async fn by_engine(engine: &Engine, facts: &Facts, work: &Path, base: &str, span: &Span) -> Result<()> {
    write_recipe(work)?;
    span.waiting(format!("{} builds it from Debian's image ({EXPECTED})", engine.name()));
    let mut args: Vec<String> = vec![
        "build".into(),
        "--pull".into(),
        "-f".into(),
        work.join("Containerfile").display().to_string(),
        "-t".into(),
        base.into(),
    ];
    args.extend(runtime_flags(facts));
    args.push(work.display().to_string());
    engine
        .run(INSTALL, args)
        .await
        .map(drop)
        .map_err(|e| e.hint("where no registry can be reached: `apt install mmdebstrap`, and kup builds the image without one"))
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Waits for the lock of the image cache, which is freed when the file is closed.
async fn lock(path: &Path, span: &Span) -> Result<fs::File> {
    let what = || format!("cannot lock {}", path.display());
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).with_context(what)?;
    let begun = tokio::time::Instant::now();
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < INSTALL => {
                span.waiting("another kup is making the node image");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::new(what())
                    .why("another kup has been making the node image for too long")
                    .hint("stop it, then try again"));
            }
            Err(e) => return Err(e).with_context(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Arch, manifest};

    #[test]
    fn the_name_follows_the_contents() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        assert!(NodeImage::of(dir.path()).is_err_and(|e| e.what.contains("not a complete bundle")));
        let file = |name: &str, role, sha256: &str| manifest::File {
            name: name.into(),
            component: name.into(),
            version: "1".into(),
            role,
            path: format!("images/{name}.tar"),
            size: 1,
            sha256: sha256.repeat(32),
            source: "test".into(),
            image: None,
        };
        let of = |pause: &str, agnhost: &str| {
            let files = vec![file("pause", Role::Image, pause), file("agnhost", Role::Test, agnhost)];
            let manifest = Manifest::new("1.37.1", Arch::Amd64, manifest::Origin::Built, files);
            fs::write(dir.path().join(manifest::FILE), manifest.to_yaml()?).context("no file")?;
            NodeImage::of(dir.path())
        };
        let first = of("aa", "bb")?;
        assert_eq!(first, of("aa", "cc")?, "an image that nodes don't have from the start");
        assert_eq!(first.archives, ["images/pause.tar"]);
        let second = of("dd", "bb")?;
        assert_ne!(first.tag, second.tag);
        assert_eq!(first.base, second.base);
        Ok(())
    }

    #[test]
    fn the_recipe_is_whole() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        write_recipe(dir.path())?;
        let packages = fs::read_to_string(dir.path().join("packages")).context("no packages")?;
        assert!(packages.split(' ').any(|p| p == "openssh-server") && !packages.contains('#'), "{packages}");
        let seed = fs::metadata(dir.path().join("files/usr/lib/kup/seed")).context("no seed script")?;
        assert_eq!(seed.permissions().mode() & 0o777, 0o755);
        for file in ["finish", "Containerfile", "files/etc/ssh/sshd_config", "files/etc/systemd/system/ssh.service"] {
            assert!(dir.path().join(file).is_file(), "{file}");
        }
        Ok(())
    }
}
