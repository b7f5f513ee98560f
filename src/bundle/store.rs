//! The cache: objects named by their sha256, records of finished components, and bundle directories made of hard links to objects.
//!
//! ```text
//! <cache>/objects/sha256/<hex>        every file once, however many bundles have it
//! <cache>/components/<key>.json       the files of a component that was made by the recipe of that key
//! <cache>/bundles/<version>-<arch>/   what machines mount
//! <cache>/downloads/  <cache>/work/   unfinished
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::report::Span;
use crate::state::write_atomic;

use super::component::{COMPONENTS, Component, Place};
use super::manifest::{self, File, Manifest, Origin};
use super::releases::Release;
use super::{Arch, verify};

/// How long to wait for another kup that is making the same bundle. Longer than any build seen.
const LOCK_DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A finished component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The component's name.
    pub component: String,
    /// Its files.
    pub files: Vec<Stored>,
}

/// A file that is among the objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The item's name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its object.
    pub sha256: String,
    /// Where it came from.
    pub source: String,
}

/// Held while a bundle is being made; released when dropped, or when the process ends however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] fs::File);

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}

impl Store {
    /// The cache below `root` (see [`crate::state::cache_dir`]); made when first written to.
    pub fn new(root: &Path) -> Store {
        Store { root: root.to_owned() }
    }

    /// Where the bundle of that version and architecture is.
    pub fn bundle_dir(&self, version: &str, arch: Arch) -> PathBuf {
        self.root.join("bundles").join(format!("{version}-{arch}"))
    }

    /// Where an object is.
    pub fn object(&self, sha256: &str) -> PathBuf {
        self.root.join("objects/sha256").join(sha256)
    }

    /// A directory below the cache, made if need be.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        make_dir(&path)?;
        Ok(path)
    }

    /// Moves a file from inside the cache among the objects.
    pub fn add(&self, file: &Path, mode: u32) -> Result<(u64, String)> {
        let what = || format!("cannot store {}", file.display());
        let (size, sha256) = verify::hash(file)?;
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).with_context(what)?;
        // On disk before it has its name: after a power cut an object is whole or absent.
        fs::File::open(file).and_then(|f| f.sync_all()).with_context(what)?;
        let object = self.object(&sha256);
        make_dir(object.parent().unwrap_or(&self.root))?;
        fs::rename(file, &object).with_context(what)?;
        Ok((size, sha256))
    }

    /// A directory for unfinished work on that bundle, of a name never used before: a compiler that outlived a killed kup may still be
    /// writing into the last one. Removed when dropped, or when the bundle is next locked.
    pub(super) fn work(&self, version: &str, arch: Arch) -> Result<tempfile::TempDir> {
        let prefix = format!("{version}-{arch}-");
        let what = "cannot make a directory for unfinished work";
        tempfile::Builder::new().prefix(&prefix).tempdir_in(self.dir("work")?).context(what)
    }

    fn clear_work(&self, version: &str, arch: Arch) -> Result<()> {
        let dir = self.dir("work")?;
        let what = || format!("cannot clear {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(what)? {
            let entry = entry.with_context(what)?;
            if entry.file_name().to_string_lossy().starts_with(&format!("{version}-{arch}-")) {
                fs::remove_dir_all(entry.path()).with_context(what)?;
            }
        }
        Ok(())
    }

    fn record_path(&self, key: &str) -> PathBuf {
        self.root.join("components").join(format!("{key}.json"))
    }

    /// The component made by the recipe of that key, if all its objects are whole. A broken object is removed, so that it is made again.
    pub fn record(&self, key: &str) -> Result<Option<Record>> {
        let path = self.record_path(key);
        let Ok(text) = fs::read(&path) else { return Ok(None) };
        let Ok(record) = serde_json::from_slice::<Record>(&text) else { return Ok(None) };
        // An object's name is a part of a path, and what is broken there is removed.
        if !record.files.iter().all(|file| manifest::is_sha256(&file.sha256)) {
            return Ok(None);
        }
        let mut whole = true;
        for file in &record.files {
            let object = self.object(&file.sha256);
            if !object.exists() {
                whole = false;
            } else if verify::hash(&object)? != (file.size, file.sha256.clone()) {
                remove(&object)?;
                whole = false;
            }
        }
        Ok(whole.then_some(record))
    }

    /// Remembers a finished component.
    pub fn remember(&self, key: &str, record: &Record) -> Result<()> {
        let path = self.record_path(key);
        make_dir(path.parent().unwrap_or(&self.root))?;
        let text = serde_json::to_vec_pretty(record).context("cannot write a component's record")?;
        write_atomic(&path, &text, 0o644)
    }

    /// Waits until no other kup makes this bundle.
    pub async fn lock(&self, version: &str, arch: Arch, span: &Span) -> Result<Lock> {
        let path = self.dir("bundles")?.join(format!(".{version}-{arch}.lock"));
        let what = || format!("cannot lock {}", path.display());
        let file = fs::File::create(&path).with_context(what)?;
        let begun = tokio::time::Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.clear_work(version, arch)?;
                    return Ok(Lock(file));
                }
                Err(fs::TryLockError::Error(e)) => return Err(e).with_context(what),
                Err(fs::TryLockError::WouldBlock) if begun.elapsed() > LOCK_DEADLINE => {
                    return Err(Error::new(what()).why("another kup has been making this bundle for two hours"));
                }
                Err(fs::TryLockError::WouldBlock) => span.waiting(format!("another kup that is making bundle {version}-{arch}")),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Makes the bundle's directory of these components: links, then the manifest. Does nothing where all is as it should be.
    pub fn assemble(&self, release: &Release, arch: Arch, origin: Origin, records: &[Record]) -> Result<(PathBuf, Manifest)> {
        let mut files = Vec::new();
        for component in COMPONENTS {
            let record = records.iter().find(|r| r.component == component.name);
            if record.is_none() && manifest::may_lack(origin, release, component.name) {
                continue;
            }
            files.extend(describe(component, record, release)?);
        }
        let modes: Vec<(String, u32)> = COMPONENTS.iter().flat_map(|c| c.items).map(|i| (i.path(), i.mode())).collect();
        let manifest = Manifest::new(&release.version, arch, origin, files);
        let dir = self.bundle_dir(&release.version, arch);
        for sub in manifest::DIRS {
            let path = dir.join(sub);
            make_dir(&path)?;
            // Machines mount it, and their services are not all root.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("cannot open {} to all", path.display()))?;
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot open {} to all", dir.display()))?;
        let text = manifest.to_yaml()?;
        let manifest_path = dir.join(manifest::FILE);
        if fs::read_to_string(&manifest_path).is_ok_and(|old| old != text) {
            remove(&manifest_path)?;
        }
        for file in &manifest.files {
            let mode = modes.iter().find(|(path, _)| *path == file.path).map_or(0o644, |(_, mode)| *mode);
            self.link(&file.sha256, &dir.join(&file.path), mode)?;
        }
        self.remove_strangers(&dir, &manifest)?;
        if !manifest_path.exists() {
            write_atomic(&manifest_path, text.as_bytes(), 0o644)?;
        }
        Ok((dir, manifest))
    }

    /// Makes `path` the object of that checksum.
    fn link(&self, sha256: &str, path: &Path, mode: u32) -> Result<()> {
        let object = self.object(sha256);
        let what = || format!("cannot link {} to {}", path.display(), object.display());
        let meta = fs::metadata(&object).with_context(what)?;
        if meta.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(&object, fs::Permissions::from_mode(mode)).with_context(what)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino())) {
            return Ok(());
        }
        let new = path.with_extension("kup-new");
        remove(&new)?;
        // Where the file system has no hard links, a copy does.
        if fs::hard_link(&object, &new).is_err() {
            fs::copy(&object, &new).with_context(what)?;
        }
        fs::rename(&new, path).with_context(what)
    }

    fn remove_strangers(&self, dir: &Path, manifest: &Manifest) -> Result<()> {
        for sub in manifest::DIRS {
            let what = || format!("cannot read {}", dir.join(sub).display());
            for entry in fs::read_dir(dir.join(sub)).with_context(what)? {
                let name = entry.with_context(what)?.file_name();
                let path = format!("{sub}/{}", name.to_string_lossy());
                if !manifest.files.iter().any(|f| f.path == path) {
                    remove(&dir.join(&path))?;
                }
            }
        }
        Ok(())
    }
}

fn describe(component: &Component, record: Option<&Record>, release: &Release) -> Result<Vec<File>> {
    let version = &release.pin(component.name)?.version;
    let mut files = Vec::new();
    for item in component.items {
        let stored = record
            .and_then(|r| r.files.iter().find(|f| f.name == item.name))
            .ok_or_else(|| Error::new(format!("{} ({} {version}) is missing from the bundle", item.name, component.name)))?;
        files.push(File {
            name: item.name.into(),
            component: component.name.into(),
            version: version.clone(),
            role: item.role,
            path: item.path(),
            size: stored.size,
            sha256: stored.sha256.clone(),
            source: stored.source.clone(),
            image: match &item.place {
                Place::Image(image) => Some(format!("{}{version}", image.reference)),
                _ => None,
            },
        });
    }
    Ok(files)
}
