//! Images from a registry by the OCI distribution API: every piece is named by its sha256, and checked against it.

use std::fs;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::report::Span;

use super::Arch;
use super::download::Downloader;
use super::image::{self, Blob};

/// All forms of a manifest that registries hold.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One architecture's image, downloaded.
pub(super) struct Pulled {
    reference: String,
    manifest: Vec<u8>,
    media_type: String,
    config: Vec<u8>,
    /// Its layers, lowest first.
    layers: Vec<Layer>,
}

struct Layer {
    path: PathBuf,
    sha256: String,
    size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    config: Described,
    layers: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// `registry.example/some/name:tag` as (registry, name, tag).
fn parse(reference: &str) -> Option<(&str, &str, &str)> {
    let (registry, rest) = reference.split_once('/')?;
    let (name, tag) = rest.rsplit_once(':')?;
    Some((registry, name, tag))
}

fn hex_of(described: &Described) -> Result<&str> {
    described.digest.strip_prefix("sha256:").ok_or_else(|| Error::new(format!("the digest {} is no sha256", described.digest)))
}

async fn checked(downloads: &Downloader, url: &str, sha256: &str) -> Result<Vec<u8>> {
    let bytes = downloads.text(url, MANIFESTS).await?;
    let found = image::sha256(&bytes);
    if found != sha256 {
        return Err(Error::new(format!("{} is not what its digest says", downloads.address(url)))
            .why(format!("expected sha256 {sha256}\nfound sha256 {found}")));
    }
    Ok(bytes)
}

/// Downloads an image for one architecture.
pub(super) async fn pull(downloads: &Downloader, reference: &str, arch: Arch, span: &Span) -> Result<Pulled> {
    let (registry, name, tag) = parse(reference).ok_or_else(|| Error::new(format!("{reference} is no full image reference")))?;
    let base = format!("https://{registry}/v2/{name}");
    let unreadable = || format!("cannot read the manifest of {reference}");
    let mut manifest = downloads.text(&format!("{base}/manifests/{tag}"), MANIFESTS).await?;
    if let Ok(index) = serde_json::from_slice::<Index>(&manifest) {
        let of = |p: &Platform| p.os == "linux" && p.architecture == arch.as_str();
        let entry = index.manifests.iter().find(|m| m.platform.as_ref().is_some_and(of)).ok_or_else(|| {
            let all: Vec<String> = index
                .manifests
                .iter()
                .filter_map(|m| m.platform.as_ref())
                .map(|p| format!("{}/{}", p.os, p.architecture))
                .collect();
            Error::new(format!("{reference} has no image for linux/{arch}")).why(format!("it has: {}", all.join(", ")))
        })?;
        manifest = checked(downloads, &format!("{base}/manifests/{}", entry.digest), hex_of(entry)?).await?;
    }
    let parsed: Manifest = serde_json::from_slice(&manifest).with_context(unreadable)?;
    let config = checked(downloads, &format!("{base}/blobs/{}", parsed.config.digest), hex_of(&parsed.config)?).await?;
    let made_for: serde_json::Value = serde_json::from_slice(&config).with_context(unreadable)?;
    if made_for["architecture"] != arch.as_str() {
        return Err(Error::new(format!("{reference} has no image for linux/{arch}"))
            .why(format!("its config says {}", made_for["architecture"])));
    }
    let mut layers = Vec::new();
    for layer in &parsed.layers {
        let sha256 = hex_of(layer)?.to_owned();
        let path = downloads.file(&format!("{base}/blobs/{}", layer.digest), &sha256, span).await?;
        layers.push(Layer { path, sha256, size: layer.size });
    }
    let media_type = parsed.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned());
    Ok(Pulled { reference: reference.to_owned(), manifest, media_type, config, layers })
}

impl Pulled {
    /// Writes the image as an archive; its manifest stays as it is, and so does its digest.
    pub(super) fn save(&self, archive: &Path) -> Result<()> {
        let what = || format!("cannot save {}", self.reference);
        let mut layers = Vec::new();
        for layer in &self.layers {
            let content = Box::new(fs::File::open(&layer.path).with_context(what)?);
            layers.push(Blob { sha256: layer.sha256.clone(), size: layer.size, content });
        }
        image::write(archive, &self.reference, &self.manifest, &self.media_type, Blob::of(&self.config), layers)
            .with_context(what)
    }

    /// Writes the file of that name, from the highest layer that has it, to `path`.
    pub(super) fn extract(&self, name: &str, path: &Path) -> Result<()> {
        for layer in self.layers.iter().rev() {
            let content = decompressed(&layer.path).with_context(|| format!("cannot read a layer of {}", self.reference))?;
            if extract(content, &[(name, path)])
                .with_context(|| format!("cannot take {name} out of {}", self.reference))?
                .is_empty()
            {
                return Ok(());
            }
        }
        Err(Error::new(format!("{} has no file {name}", self.reference)))
    }

    /// Removes what was downloaded.
    pub(super) fn discard(self) -> Result<()> {
        self.layers.iter().try_for_each(|layer| super::store::remove(&layer.path))
    }
}

/// A tar, as it is or compressed by gzip or zstd.
fn decompressed(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = fs::File::open(path)?;
    let mut magic = [0; 4];
    let n = file.read(&mut magic)?;
    file.rewind()?;
    Ok(match &magic[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(io::BufReader::new(file)),
    })
}

/// Writes those files of an archive that have one of these names, whatever directory they are in, to the paths given with them.
/// Returns the names that it didn't find.
fn extract<'a>(content: impl Read, wanted: &[(&'a str, &Path)]) -> io::Result<Vec<&'a str>> {
    let mut missing: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    for entry in tar::Archive::new(content).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some((name, to)) = wanted.iter().find(|(name, _)| path.file_name().is_some_and(|f| f == *name)) else { continue };
        if entry.header().entry_type().is_file() {
            io::copy(&mut entry, &mut fs::File::create(to)?)?;
            missing.retain(|m| m != name);
        }
        if missing.is_empty() {
            break;
        }
    }
    Ok(missing)
}

/// As [`Pulled::extract`], for an archive that upstream publishes.
pub(super) fn unpack(archive: &Path, address: &str, wanted: &[(&str, &Path)]) -> Result<()> {
    let missing =
        decompressed(archive).and_then(|content| extract(content, wanted)).with_context(|| format!("cannot unpack {address}"))?;
    if missing.is_empty() { Ok(()) } else { Err(Error::new(format!("{address} has no file {}", missing.join(", ")))) }
}
