//! The Kubernetes versions of this release, as `config/releases.yaml` lists them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

const RELEASES: &str = include_str!("../../config/releases.yaml");

/// The versions that can be built, and which one is used if none is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Releases {
    /// The version of a config that names none.
    pub default: String,
    /// Component versions by Kubernetes version.
    pub releases: BTreeMap<String, BTreeMap<String, Component>>,
}

/// One component of a release. Where it comes from is the bundle's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Its version, without a leading `v`.
    pub version: String,
}

impl Releases {
    /// The releases compiled into this kup.
    pub fn compiled_in() -> Result<Releases> {
        serde_yaml::from_str(RELEASES).context("the list of releases compiled into kup can't be read")
    }

    /// Whether a version can be built.
    pub fn knows(&self, version: &str) -> bool {
        self.releases.contains_key(version)
    }

    /// All versions, newest first.
    pub fn versions(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.releases.keys().map(String::as_str).collect();
        all.sort_by_key(|v| Reverse(v.split('.').map(|part| part.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>()));
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_known_version() {
        let releases = Releases::compiled_in().unwrap();
        assert!(releases.knows(&releases.default));
        for (version, components) in &releases.releases {
            assert_eq!(&components["kubernetes"].version, version);
        }
    }

    #[test]
    fn versions_are_sorted_as_numbers() {
        let release = |v: &str| (v.to_owned(), BTreeMap::new());
        let releases =
            Releases { default: String::new(), releases: ["1.9.2", "1.37.1", "1.36.10", "1.36.9"].map(release).into() };
        assert_eq!(releases.versions(), ["1.37.1", "1.36.10", "1.36.9", "1.9.2"]);
    }
}
