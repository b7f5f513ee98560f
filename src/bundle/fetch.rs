//! Gets a bundle from where upstream publishes its parts, or from a mirror. Nothing is taken that has no published checksum. kup's own
//! parts, which nobody publishes, are compiled from their source where there is Go, and left out where there is none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use reqwest::Url;

use crate::error::{Context, Error, Result};
use crate::report::event::Unit as Count;
use crate::report::{Report, Span};

use super::build::{Build, check_elf, chosen};
use super::component::{COMPONENTS, Component, Item, Place};
use super::download::Downloader;
use super::manifest;
use super::releases::{Checksum, Origin, Release};
use super::store::{Record, Store, Stored, remove};
use super::{Arch, Bundle, image, registry, toolchain};

/// How long upstream may take to answer before it counts as out of reach.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// See [`crate::state::cache_dir`].
    pub cache: PathBuf,
    /// The versions.
    pub release: Release,
    /// The machines it is for.
    pub arch: Arch,
    /// Asked instead of upstream: `https://host/path` becomes `MIRROR/host/path`.
    pub mirror: Option<Url>,
    /// Only these components; all if empty.
    pub only: Vec<String>,
    /// Whether to compile what nobody publishes.
    pub compile: bool,
}

impl Fetch {
    /// Whether the source answers quickly.
    pub async fn answers(&self) -> bool {
        let origin = self.release.origin("kubernetes", "kubelet", self.arch);
        let (Ok(Origin::Binary(_, Checksum::File(url))), Ok(downloads)) = (origin, self.downloads()) else { return false };
        downloads.answers(&url, ANSWER_DEADLINE).await
    }

    fn downloads(&self) -> Result<Downloader> {
        let parts = format!("downloads/{}-{}", self.release.version, self.arch);
        Downloader::new(Store::new(&self.cache).dir(&parts)?, self.mirror.clone())
    }

    /// Fetches what isn't there yet. Returns the bundle, or none if only some components were asked for and others are missing.
    pub async fn run(&self, report: &Report) -> Result<Option<Bundle>> {
        let components = chosen(&self.only)?;
        let from = self.mirror.as_ref().map_or("upstream".to_owned(), Url::to_string);
        let step = report.step(format!("Bundle {}-{} from {from}", self.release.version, self.arch));
        let outcome = self.fetch(&components, &step).await;
        step.close(outcome)
    }

    async fn fetch(&self, components: &[&'static Component], step: &Span) -> Result<Option<Bundle>> {
        let store = Store::new(&self.cache);
        let _lock = store.lock(&self.release.version, self.arch, step).await?;
        let downloads = self.downloads()?;
        let (total, done) = (components.len() as u64, std::sync::atomic::AtomicU64::new(0));
        let (published, own): (Vec<_>, Vec<_>) = components.iter().copied().partition(|c| self.release.is_published(c.name));
        let mut records = try_join_all(published.into_iter().map(|component| async {
            let record = self.component(component, &store, &downloads, step).await?;
            step.progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, Some(total), Count::Items);
            Ok::<_, Error>(record)
        }))
        .await?;
        records.extend(self.compile(&own, &store, step).await?);
        for component in COMPONENTS.iter().filter(|c| self.release.is_published(c.name)) {
            if records.iter().all(|r| r.component != component.name) {
                match store.record(&self.key(component)?)? {
                    Some(record) => records.push(record),
                    None => return Ok(None),
                }
            }
        }
        super::assemble(store, &self.release, self.arch, manifest::Origin::Fetched, records).await.map(Some)
    }

    /// Compiles kup's own components. Without Go, says what the bundle goes without.
    async fn compile(&self, own: &[&'static Component], store: &Store, step: &Span) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        if own.is_empty() || !self.compile {
            return Ok(records);
        }
        let tools = match toolchain::find(&self.release, own, self.arch).await {
            Ok(tools) => tools,
            Err(e) => {
                let names = own.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
                step.report().warn(format!(
                    "the bundle goes without {names}: nobody publishes it, and {} (then `kup bundle fetch` again adds it)",
                    e.what
                ));
                return Ok(records);
            }
        };
        let build = Build {
            cache: self.cache.clone(),
            release: self.release.clone(),
            arch: self.arch,
            jobs: 1,
            only: own.iter().map(|c| c.name.to_owned()).collect(),
        };
        for component in own {
            records.push(build.component(component, store, &tools, step).await?);
        }
        Ok(records)
    }

    /// What decides a component's bytes, as one checksum. A mirror serves the same bytes.
    fn key(&self, component: &Component) -> Result<String> {
        let mut text = format!("fetched {} {} {}", component.name, self.release.pin(component.name)?.version, self.arch);
        for item in component.items {
            text += &format!(" {} {:?}", item.path(), self.release.origin(component.name, item.name, self.arch)?);
        }
        Ok(image::sha256(text.as_bytes()))
    }

    async fn component(
        &self,
        component: &'static Component,
        store: &Store,
        downloads: &Downloader,
        step: &Span,
    ) -> Result<Record> {
        let key = self.key(component)?;
        let title = format!("{} {}", component.name, self.release.pin(component.name)?.version);
        let (s, k) = (store.clone(), key.clone());
        if let Some(record) =
            tokio::task::spawn_blocking(move || s.record(&k)).await.context("the check of a component broke off")??
        {
            step.child(title).done_with("already fetched");
            return Ok(record);
        }
        // Several files may come from one archive or image.
        let mut origins: Vec<(Origin, Vec<&'static Item>)> = Vec::new();
        for item in component.items {
            let origin = self.release.origin(component.name, item.name, self.arch)?;
            match origins.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, items)) => items.push(item),
                None => origins.push((origin, vec![item])),
            }
        }
        let parts = try_join_all(origins.into_iter().map(|(origin, items)| async {
            let names = items.iter().map(|i| i.name).collect::<Vec<_>>().join(", ");
            let span = step.child(if names == component.name { title.clone() } else { format!("{title}: {names}") });
            let outcome = self.origin(origin, items, store, downloads, &span).await;
            span.close(outcome.map_err(|e| e.within(format!("cannot fetch {names} ({title} for {})", self.arch))))
        }))
        .await?;
        let record = Record { component: component.name.into(), files: parts.into_iter().flatten().collect() };
        store.remember(&key, &record)?;
        Ok(record)
    }

    async fn origin(
        &self,
        origin: Origin,
        items: Vec<&'static Item>,
        store: &Store,
        downloads: &Downloader,
        span: &Span,
    ) -> Result<Vec<Stored>> {
        let (store, arch) = (store.clone(), self.arch);
        let work = store.work(&self.release.version, self.arch)?;
        // Hashing and unpacking would keep the other downloads waiting.
        let blocking: Box<dyn FnOnce() -> Result<Vec<Stored>> + Send> = match origin {
            Origin::Binary(url, checksum) => {
                let sha256 = published(downloads, &checksum, &url).await?;
                let file = downloads.file(&url, &sha256, span).await?;
                let source = downloads.address(&url);
                Box::new(move || {
                    // A file for another architecture stays nowhere, not even as a part to resume.
                    let outcome = items.iter().map(|item| keep(item, &file, &source, arch, &store)).collect();
                    remove(&file)?;
                    outcome
                })
            }
            Origin::Archive(url, checksum) => {
                let sha256 = published(downloads, &checksum, &url).await?;
                let archive = downloads.file(&url, &sha256, span).await?;
                let source = downloads.address(&url);
                Box::new(move || {
                    let paths: Vec<PathBuf> = items.iter().map(|item| work.path().join(item.name)).collect();
                    let wanted: Vec<(&str, &Path)> =
                        items.iter().zip(&paths).map(|(item, path)| (item.name, path.as_path())).collect();
                    registry::unpack(&archive, &source, &wanted)?;
                    remove(&archive)?;
                    items.iter().zip(&paths).map(|(item, path)| keep(item, path, &source, arch, &store)).collect()
                })
            }
            Origin::Image(reference) => {
                let image = registry::pull(downloads, &reference, arch, span).await?;
                Box::new(move || {
                    let mut stored = Vec::new();
                    for item in &items {
                        let path = work.path().join(item.name);
                        if let Place::Image(_) = item.place {
                            image.save(&path)?;
                            let (size, sha256) = store.add(&path, item.mode())?;
                            stored.push(Stored { name: item.name.into(), size, sha256, source: reference.clone() });
                        } else {
                            image.extract(item.name, &path)?;
                            stored.push(keep(item, &path, &reference, arch, &store)?);
                        }
                    }
                    image.discard()?;
                    Ok(stored)
                })
            }
        };
        tokio::task::spawn_blocking(blocking).await.context("the keeping of a download broke off")?
    }
}

fn keep(item: &Item, file: &Path, source: &str, arch: Arch, store: &Store) -> Result<Stored> {
    check_elf(file, arch)?;
    let (size, sha256) = store.add(file, item.mode())?;
    Ok(Stored { name: item.name.into(), size, sha256, source: source.into() })
}

/// The sha256 that upstream publishes for the file at `url`.
async fn published(downloads: &Downloader, checksum: &Checksum, url: &str) -> Result<String> {
    let name = url.rsplit('/').next().unwrap_or_default();
    let (from, found) = match checksum {
        Checksum::File(from) => {
            let text = downloads.text(from, "*/*").await?;
            (from, listed(&String::from_utf8_lossy(&text), name))
        }
        Checksum::Digests(from) => {
            let record = downloads.text(from, "application/vnd.github+json").await?;
            (from, asset_digest(&record, name))
        }
    };
    found.ok_or_else(|| Error::new(format!("{} has no sha256 of {name}", downloads.address(from))))
}

/// From lines of `sha256  name`, or a lone sha256.
fn listed(text: &str, name: &str) -> Option<String> {
    let is_sha256 = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words = text.split_whitespace();
    if let (Some(only), None) = (words.next(), words.next()) {
        return is_sha256(only).then(|| only.to_ascii_lowercase());
    }
    text.lines().find_map(|line| {
        let (sum, file) = line.trim().split_once(char::is_whitespace)?;
        // sha256sum marks a file read as binary with an asterisk, and some projects list it with its directory.
        let file = file.trim().trim_start_matches('*');
        (is_sha256(sum) && file.rsplit('/').next() == Some(name)).then(|| sum.to_ascii_lowercase())
    })
}

/// From GitHub's record of a release.
fn asset_digest(record: &[u8], name: &str) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(record).ok()?;
    let asset = record["assets"].as_array()?.iter().find(|asset| asset["name"] == name)?;
    asset["digest"].as_str()?.strip_prefix("sha256:").map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn published_checksums_in_all_their_forms() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(listed(&format!("{a}\n"), "x"), Some(a.clone()));
        assert_eq!(listed(&format!("{b}  y\n{a}  x\n"), "x"), Some(a.clone()));
        assert_eq!(listed(&format!("{b}  xx\n{a} *./dist/x\n"), "x"), Some(a.clone()));
        assert_eq!(listed(&format!("{a}  y\n"), "x"), None);
        assert_eq!(listed("<html>not found</html>", "x"), None);
        let record =
            format!(r#"{{"assets":[{{"name":"y","digest":"sha256:{b}"}},{{"name":"x","digest":"sha256:{a}"}},{{"name":"z"}}]}}"#);
        assert_eq!(asset_digest(record.as_bytes(), "x"), Some(a));
        assert_eq!(asset_digest(record.as_bytes(), "z"), None);
    }

    #[test]
    fn images_have_the_name_that_upstream_gives_them() {
        let release = super::super::Releases::load().unwrap().release("1.37.1").unwrap();
        for component in COMPONENTS.iter().filter(|c| release.is_published(c.name)) {
            for item in component.items {
                if let Place::Image(image) = &item.place {
                    let version = &release.pin(component.name).unwrap().version;
                    let origin = release.origin(component.name, item.name, Arch::Amd64).unwrap();
                    assert_eq!(origin, Origin::Image(format!("{}{version}", image.reference)));
                }
            }
        }
    }
}
