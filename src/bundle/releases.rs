//! Which version of each component belongs to a Kubernetes version, and where upstream publishes it: `config/releases.yaml`,
//! compiled in.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Context, Error, Result};

use super::Arch;

const TEXT: &str = include_str!("../../config/releases.yaml");

/// All that `config/releases.yaml` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    /// The Kubernetes version used when none is asked for.
    pub default: String,
    releases: BTreeMap<String, BTreeMap<String, Pin>>,
    upstream: BTreeMap<String, Vec<Source>>,
}

/// One component of one release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Its version, without a leading `v`.
    pub version: String,
    /// The folder under `scripts/bundle/` whose `go.mod` pins its sources.
    pub module: String,
}

/// One place where upstream publishes (a part of) a component; the addresses still have their `{…}` places.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    binary: Option<String>,
    archive: Option<String>,
    image: Option<String>,
    sha256: Option<String>,
    digests: Option<String>,
    /// The files that come from here; all of the component's if empty.
    #[serde(default)]
    pub files: Vec<String>,
}

/// What a [`Source`] is for one version, architecture and file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An executable, with where its checksum is.
    Binary(String, Checksum),
    /// A tar.gz, with where its checksum is.
    Archive(String, Checksum),
    /// An image reference in an OCI registry.
    Image(String),
}

/// Where upstream publishes a checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// A file holding one sha256, or lines of `sha256  name`.
    File(String),
    /// GitHub's release record, whose assets have a `digest`.
    Digests(String),
}

/// The pinned set of one Kubernetes version.
#[derive(Debug, Clone)]
pub struct Release {
    /// The Kubernetes version, without a leading `v`.
    pub version: String,
    pins: BTreeMap<String, Pin>,
    upstream: BTreeMap<String, Vec<Source>>,
}

impl Releases {
    /// Reads the compiled-in file.
    pub fn load() -> Result<Releases> {
        serde_yaml::from_str(TEXT).context("cannot read config/releases.yaml, which is part of this kup")
    }

    /// The Kubernetes versions that kup knows, newest first.
    pub fn versions(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.releases.keys().map(String::as_str).collect();
        all.sort_by_key(|v| std::cmp::Reverse(v.split('.').map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>()));
        all
    }

    /// The set of one version (with or without a leading `v`).
    ///
    /// # Errors
    /// A version that kup doesn't know is a usage error that lists those it does.
    pub fn release(&self, version: &str) -> Result<Release> {
        let wanted = version.strip_prefix('v').unwrap_or(version);
        let pins = self.releases.get(wanted).ok_or_else(|| {
            Error::usage(format!("this kup doesn't know Kubernetes {wanted:?}"))
                .hint(format!("one of: {}", self.versions().join(", ")))
        })?;
        Ok(Release { version: wanted.to_owned(), pins: pins.clone(), upstream: self.upstream.clone() })
    }
}

impl Release {
    /// The pin of one component.
    pub fn pin(&self, component: &str) -> Result<&Pin> {
        self.pins
            .get(component)
            .ok_or_else(|| Error::new(format!("config/releases.yaml pins no {component} for Kubernetes {}", self.version)))
    }

    /// Whether somebody publishes the component. What nobody does is compiled from its source, which is part of kup.
    pub fn is_published(&self, component: &str) -> bool {
        self.upstream.contains_key(component)
    }

    /// Where upstream publishes one file of a component.
    pub fn origin(&self, component: &str, file: &str, arch: Arch) -> Result<Origin> {
        let pin = self.pin(component)?;
        let fill = |s: &String| s.replace("{version}", &pin.version).replace("{arch}", arch.as_str()).replace("{file}", file);
        let sources = self.upstream.get(component).map(Vec::as_slice).unwrap_or_default();
        let source = sources.iter().find(|s| s.files.is_empty() || s.files.iter().any(|f| f == file));
        let origin = source.and_then(|s| {
            if let Some(image) = &s.image {
                return Some(Origin::Image(fill(image)));
            }
            // A source without a checksum is no source.
            let checksum = match (&s.sha256, &s.digests) {
                (Some(url), None) => Checksum::File(fill(url)),
                (None, Some(url)) => Checksum::Digests(fill(url)),
                _ => return None,
            };
            match (&s.binary, &s.archive) {
                (Some(url), None) => Some(Origin::Binary(fill(url), checksum)),
                (None, Some(url)) => Some(Origin::Archive(fill(url), checksum)),
                _ => None,
            }
        });
        origin.ok_or_else(|| Error::new(format!("config/releases.yaml names no checked upstream source of {file} ({component})")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::component::COMPONENTS;
    use super::super::modules;
    use super::*;

    #[test]
    fn every_release_has_every_component_and_its_module_pins_that_version() {
        let all = Releases::load().unwrap();
        assert!(all.release(&all.default).is_ok());
        for version in all.versions() {
            let release = all.release(version).unwrap();
            for component in COMPONENTS {
                let pin = release.pin(component.name).unwrap();
                if !release.is_published(component.name) {
                    assert!(modules::has_source(&pin.module), "{} is neither published nor here", component.name);
                    continue;
                }
                for item in component.items {
                    for arch in [Arch::Amd64, Arch::Arm64] {
                        release.origin(component.name, item.name, arch).unwrap();
                    }
                    // pause and agnhost have versions of their own inside the Kubernetes module.
                    let expected = if pin.module.starts_with("kubernetes") { version } else { &pin.version };
                    let module = modules::providing(&pin.module, item.package).unwrap();
                    assert!(module.ends_with(&format!("@v{expected}")), "{}: {module} is not {expected}", item.name);
                }
            }
        }
    }

    #[test]
    fn unknown_version_lists_the_known() {
        let e = Releases::load().unwrap().release("1.0.0").unwrap_err();
        assert_eq!(e.kind, crate::error::Kind::Usage);
        assert!(e.hints[0].contains("1.36.4"), "{e}");
    }
}
