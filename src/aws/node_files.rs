//! What minions start from, and the bundle's files for masters, as they stand in the cluster's bucket. Pure: the same cluster gives the same bytes.
//!
//! ```text
//! node/node.sh          the script that makes a machine a minion, and keeps it one
//! node/files.tar.gz     a minion's files, with tokens in place of what is its own, and the scripts that place them
//! node/images           the archives of images that users loaded onto all nodes, if there are any
//! bundle/<sha256>.gz    the bundle's files and these archives, compressed; the sum is that of the file itself
//! node/manifest         a line for each of these: what counts is what this names
//! ```

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::node_images::IMAGES;
use crate::backup::Place;
use crate::bundle::manifest::File as BundleFile;
use crate::bundle::{self, pack};
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::machine::files::{Credentials, File, Images, Kind, render_as};
use crate::machine::own::Own;
use crate::machine::place::Archive;
use crate::machine::topology::{API_NAME, API_PORT, Topology};
use crate::machine::{BUNDLE_DIR, Role};
use crate::templates;

/// Where the script is.
pub const SCRIPT: &str = "node/node.sh";
/// Where the files are.
pub const FILES: &str = "node/files.tar.gz";
/// Where the manifest is.
pub const MANIFEST: &str = "node/manifest";

/// What a node needs first, in this order: a minion runs each as soon as it is there. Everything else follows.
const FIRST: [&str; 16] = [
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
    "kubelet",
    "ctr",
    "pause",
    "bridge",
    "loopback",
    "host-local",
    "portmap",
    "firewall",
    "bandwidth",
    "coredns",
    "flanneld",
    "kube-proxy",
    "metrics-server",
];

/// All that minions start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The node script.
    pub script: String,
    /// The archive of files.
    pub files: Vec<u8>,
    /// The bundle's files that a minion needs, those needed first in front.
    pub bundle: Vec<BundleFile>,
    /// Those that only a master needs. The manifest, which is for minions, does not name them.
    pub masters: Vec<BundleFile>,
    /// The list of the images that users loaded, as it is in the bucket; empty if there is none.
    pub images: String,
}

/// The object that a file of the bundle is in.
pub fn object(file: &BundleFile) -> String {
    pack::key(&file.sha256)
}

impl Content {
    /// Of this cluster. Of the topology only the masters' addresses count, and `credentials` are those of [`Credentials::of_joining`].
    ///
    /// # Errors
    /// A template that is not what it should be, registries that are none.
    pub fn new(cluster: &Cluster, topology: &Topology, bundle: &bundle::Manifest, credentials: &Credentials) -> Result<Content> {
        if topology.masters.is_empty() {
            return Err(Error::new("minions can't be told of a cluster without a master"));
        }
        let images = Images::of(bundle)?;
        let kind = Kind { cluster, topology, role: Role::Minion, images: &images, in_cloud: true, backups: &Place::Directory };
        let files = files(&kind, credentials)?;
        let masters = bundle.files.iter().filter(|file| file.role == bundle::Role::Master).cloned().collect();
        Ok(Content { script: script(bundle)?, files, bundle: needed(bundle), masters, images: String::new() })
    }

    /// All files of the bundle, in the order in which they are needed: no minion can join before a master is there.
    pub fn of_the_bundle(&self) -> impl Iterator<Item = &BundleFile> {
        self.masters.iter().chain(&self.bundle)
    }

    /// The manifest.
    pub fn manifest(&self) -> String {
        let mut lines = format!("{}  {SCRIPT}\n{}  {FILES}\n", sha256(self.script.as_bytes()), sha256(&self.files));
        if !self.images.is_empty() {
            lines.push_str(&format!("{}  {IMAGES}\n", sha256(self.images.as_bytes())));
        }
        for file in &self.bundle {
            lines.push_str(&pack::line(file));
        }
        lines
    }
}

/// A manifest with another list of the images that users loaded, and all else as it is.
pub fn with_images(manifest: &str, images: &str) -> String {
    let line = format!("{}  {IMAGES}", sha256(images.as_bytes()));
    let mut lines: Vec<&str> = manifest.lines().filter(|old| !old.ends_with(&format!("  {IMAGES}"))).collect();
    // Where the whole manifest has it.
    lines.insert(lines.len().min(2), &line);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The bundle's files that minions need.
fn needed(bundle: &bundle::Manifest) -> Vec<BundleFile> {
    use bundle::Role::{Both, Image, Minion};
    let mut files: Vec<_> = bundle.files.iter().filter(|f| matches!(f.role, Minion | Both | Image)).cloned().collect();
    // Sorting keeps the order of those that are alike.
    files.sort_by_key(|file| FIRST.iter().position(|name| *name == file.name).unwrap_or(FIRST.len()));
    files
}

fn script(bundle: &bundle::Manifest) -> Result<String> {
    let values = minijinja::context! {
        bundle => BUNDLE_DIR,
        api_name => API_NAME,
        api_port => API_PORT,
        machine => bundle.arch.machine(),
        units => templates::text("node/units.sh")?.trim_end(),
        range => templates::text("node/range.sh")?.trim_end(),
    };
    templates::render("node/node.sh", values)
}

/// The archive: the layout of [`crate::machine::place`], and what a machine needs to make the files its own.
fn files(kind: &Kind<'_>, credentials: &Credentials) -> Result<Vec<u8>> {
    let whole = render_as(kind, &Own::tokens(true), credentials)?;
    let limited = render_as(kind, &Own::tokens(false), credentials)?;
    let mut archive = Archive::default();
    archive.place(&whole)?;
    for file in differing(&whole, &limited)? {
        archive.add(&format!("limited{}", file.path), file.mode, &file.contents)?;
    }
    let hosts: String = kind.topology.masters.iter().map(|master| format!("{} {API_NAME}\n", master.address)).collect();
    archive.add("hosts", 0o600, hosts.as_bytes())?;
    for script in ["inspect.sh", "own.sh"] {
        archive.add(script, 0o600, templates::text(&format!("node/{script}"))?.as_bytes())?;
    }
    let what = "cannot compress the files of minions";
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&archive.finish()?).context(what)?;
    gzip.finish().context(what)
}

/// Those of `limited` that are not the same in `whole`.
fn differing<'a>(whole: &[File], limited: &'a [File]) -> Result<Vec<&'a File>> {
    let by_path: BTreeMap<&str, &File> = whole.iter().map(|file| (file.path.as_str(), file)).collect();
    if by_path.len() != limited.len() {
        return Err(Error::new("machines that may not raise limits would have other files than those that may"));
    }
    Ok(limited.iter().filter(|file| by_path.get(file.path.as_str()) != Some(file)).collect())
}

#[cfg(test)]
#[path = "node_files_tests.rs"]
mod tests;
