//! `bundle.yaml`: every file of a bundle with its role, size and sha256, and where it came from.

use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cluster::problem::quoted;
use crate::error::{Context, Error, Result};

use super::Arch;
use super::component::COMPONENTS;
use super::releases::Release;

/// The manifest's file name in the bundle's directory. It is written last: a directory without it is not a bundle.
pub const FILE: &str = "bundle.yaml";

const API_VERSION: &str = "kup.dev/v1";

/// The largest manifest that is read, in bytes: a hundred times a whole one.
const LARGEST: u64 = 1 << 20;

/// The directories of a bundle.
pub(super) const DIRS: [&str; 3] = ["bin", "cni", "images"];

/// Who needs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Masters only.
    Master,
    /// Minions only.
    Minion,
    /// Every machine.
    Both,
    /// The user's own machine.
    Client,
    /// An image that every node has from the start.
    Image,
    /// An image that only tests use.
    Test,
}

/// How the bundle's files were got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Made from source by `kup bundle build`.
    Built,
    /// Downloaded by `kup bundle fetch`.
    Fetched,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its short name ("kubelet").
    pub name: String,
    /// The component it belongs to.
    pub component: String,
    /// That component's version, without a leading `v`.
    pub version: String,
    /// Who needs it.
    pub role: Role,
    /// Where it is, relative to the bundle's directory.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its checksum, in hexadecimal.
    pub sha256: String,
    /// The module and version it was built from, or the address it was downloaded from.
    pub source: String,
    /// For an image, the name under which nodes know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// All of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    api_version: String,
    kind: String,
    /// The Kubernetes version, without a leading `v`.
    pub kubernetes: String,
    /// The machines it is for.
    pub arch: Arch,
    /// How its files were got.
    pub origin: Origin,
    /// Its files, sorted by path.
    pub files: Vec<File>,
}

impl Manifest {
    /// A manifest of these files.
    pub fn new(kubernetes: &str, arch: Arch, origin: Origin, mut files: Vec<File>) -> Manifest {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Manifest { api_version: API_VERSION.into(), kind: "Bundle".into(), kubernetes: kubernetes.into(), arch, origin, files }
    }

    /// Reads the manifest of the bundle in `dir`; none if there is no complete bundle.
    ///
    /// # Errors
    /// It is none, or says what no kup writes: paths that lead out of the bundle, names that a shell would read as more than that.
    pub fn read(dir: &Path) -> Result<Option<Manifest>> {
        let path = dir.join(FILE);
        let again = |e: Error| e.hint("kup bundle build, or kup bundle fetch, makes the bundle again");
        let what = || format!("cannot read {}", path.display());
        let mut text = String::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(what).map_err(again),
        }
        if text.len() as u64 > LARGEST {
            return Err(again(Error::new(what()).why(format!("it is larger than {} MiB", LARGEST >> 20))));
        }
        let manifest: Manifest = serde_yaml::from_str(&text).with_context(what).map_err(again)?;
        match manifest.fault() {
            None => Ok(Some(manifest)),
            Some(why) => Err(again(Error::new(what()).why(why))),
        }
    }

    /// What in it no kup writes. Its words become paths, words of commands, and lines of scripts on machines.
    fn fault(&self) -> Option<String> {
        if self.api_version != API_VERSION || self.kind != "Bundle" {
            return Some(format!("it is not a Bundle of {API_VERSION}"));
        }
        if !is_word(&self.kubernetes, b".+-") {
            return Some(format!("{} is no version of Kubernetes", quoted(&self.kubernetes)));
        }
        self.files.iter().find_map(|file| {
            // It is joined to the bundle's directory and then executed: it may not lead out of it.
            if !is_inside(&file.path) {
                return Some(format!("{} is not a path inside the bundle", quoted(&file.path)));
            }
            let wrong = |what: &str, word: &str| Some(format!("{}: {} is no {what}", file.path, quoted(word)));
            match &file.image {
                _ if !is_word(&file.name, b"._-") => wrong("name", &file.name),
                _ if !is_word(&file.component, b"._-") => wrong("component", &file.component),
                _ if !is_word(&file.version, b"._+-") => wrong("version", &file.version),
                _ if !is_sha256(&file.sha256) => wrong("sha256", &file.sha256),
                Some(image) if !is_word(image, b"._-/:@") => wrong("image", image),
                _ => None,
            }
        })
    }

    /// As text.
    pub fn to_yaml(&self) -> Result<String> {
        serde_yaml::to_string(self).context("cannot write a bundle's manifest")
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> Result<&File> {
        self.files
            .iter()
            .find(|f| f.name == name)
            .ok_or_else(|| Error::new(format!("bundle {}-{} has no file {name}", self.kubernetes, self.arch)))
    }

    /// Whether it holds exactly what this kup expects of that release: an older kup's bundle may lack files or have other versions.
    pub fn fits(&self, release: &Release, arch: Arch) -> Result<bool> {
        let mut wanted = Vec::new();
        for component in COMPONENTS {
            let version = &release.pin(component.name)?.version;
            let missing = self.files.iter().all(|f| f.component != component.name);
            if missing && may_lack(self.origin, release, component.name) {
                continue;
            }
            wanted.extend(component.items.iter().map(|i| (i.path(), version.clone())));
        }
        wanted.sort();
        let have = self.files.iter().map(|f| (f.path.clone(), f.version.clone()));
        Ok(self.kubernetes == release.version && self.arch == arch && have.eq(wanted))
    }
}

/// Whether a bundle of that origin is complete without a component: one that nobody publishes needs a compiler where it is fetched.
pub(super) fn may_lack(origin: Origin, release: &Release, component: &str) -> bool {
    origin == Origin::Fetched && !release.is_published(component)
}

/// Whether a path is one of a bundle: a plain file in one of its directories. Machines take no other (`templates/node/node.sh`).
fn is_inside(path: &str) -> bool {
    path.split_once('/').is_some_and(|(dir, name)| DIRS.contains(&dir) && is_word(name, b"._-"))
}

/// Whether a text is of letters, digits and these, beginning with a letter or a digit.
fn is_word(text: &str, more: &[u8]) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

/// Whether a text is a sha256 as kup writes it: 64 hexadecimal digits in lower case. Objects in the cache are named by it.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
