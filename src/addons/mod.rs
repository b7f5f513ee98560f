//! Add-ons: what runs on a cluster beside Kubernetes itself, as manifests that are applied once the API answers.
//!
//! An add-on is a folder `templates/addons/<name>/` and its line in [`ADDONS`]; one that can be turned off also has a line in
//! `config-default.yaml`, which is its default. Every object it makes is labelled with its name ([`LABEL`]), so that exactly those
//! are removed with it.

pub mod apply;
pub mod ready;
mod serving;

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use kube::core::{GroupVersionKind, TypeMeta};
use serde::Serialize;

use crate::bootstrap::api::parse;
use crate::cluster::Cluster;
use crate::cluster::problem::{did_you_mean, quoted};
use crate::error::{Error, Result};
use crate::pki::Pki;
use crate::templates;

pub use ready::Condition;
use ready::Condition::{ApiGroup, Deployment};
use serving::Serving;

/// The label on every object that an add-on made; its value is the add-on's name.
pub const LABEL: &str = "kup.dev/addon";

/// Something that runs on a cluster beside Kubernetes itself.
#[derive(Debug)]
pub struct Addon {
    /// Its name: the folder below `templates/addons/`, and its field in the config.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub what: &'static str,
    /// Every cluster has it; otherwise the config says.
    pub required: bool,
    /// The files of the bundle with the images that it runs.
    pub images: &'static [&'static str],
    /// The Service (`name.namespace`) that it serves TLS on: its templates get a certificate of the cluster's authority for that.
    pub serves: Option<&'static str>,
    /// The provisioner whose volumes outlive it.
    pub provisions: Option<&'static str>,
    /// When it is ready.
    pub ready: &'static [Condition],
}

/// All add-ons, in the order in which people see them.
#[rustfmt::skip]
pub const ADDONS: &[Addon] = &[
    Addon { name: "coredns", what: "the cluster's DNS", required: true, images: &["coredns"], serves: None, provisions: None, ready: &[Deployment("kube-system", "coredns")] },
    Addon { name: "metrics-server", what: "what nodes and pods use, for kubectl top and autoscaling", required: false, images: &["metrics-server"], serves: Some("metrics-server.kube-system"), provisions: None, ready: &[Deployment("kube-system", "metrics-server"), ApiGroup("v1beta1.metrics.k8s.io")] },
    Addon { name: "local-storage", what: "the default StorageClass: volumes on the nodes' own disks", required: false, images: &["local-storage"], serves: None, provisions: Some("kup.dev/local-storage"), ready: &[Deployment("local-storage", "local-storage")] },
];

/// The add-ons that a cluster is to have, and those of them that can't be had.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Those that are applied.
    pub present: Vec<&'static Addon>,
    /// Those whose images the bundle lacks.
    pub lacking: Vec<&'static Addon>,
}

/// What an add-on's templates may use.
#[derive(Serialize)]
struct Values<'a> {
    cluster: &'a Cluster,
    /// Names of images, by their files in the bundle.
    images: &'a BTreeMap<String, String>,
    /// The certificate of the Service that it serves on.
    serving: Option<Serving>,
}

impl Addon {
    /// Whether a cluster is to have it.
    pub fn enabled(&self, cluster: &Cluster) -> bool {
        self.required || cluster.addons.enabled(self.name)
    }

    /// Its objects, each with its label.
    pub fn objects(&self, cluster: &Cluster, images: &BTreeMap<String, String>, pki: &Pki) -> Result<Vec<DynamicObject>> {
        let serving = self.serves.map(|service| Serving::of(pki, cluster, service)).transpose()?;
        let documents = templates::addon(self.name, Values { cluster, images, serving })?;
        let mut objects = parse(&documents)?;
        for object in &mut objects {
            object.metadata.labels.get_or_insert_default().insert(LABEL.to_owned(), self.name.to_owned());
        }
        Ok(objects)
    }

    /// The first of its images that the bundle lacks.
    pub fn missing_image(&self, images: &BTreeMap<String, String>) -> Option<&'static str> {
        self.images.iter().copied().find(|name| !images.contains_key(*name))
    }

    /// Why it can't be had with this bundle, and what to do about it.
    pub fn lacking(&self, images: &BTreeMap<String, String>) -> String {
        let image = self.missing_image(images).unwrap_or_default();
        format!("the add-on {} is left out: the bundle has no image {image}; `kup bundle build` makes it", self.name)
    }
}

/// The add-ons that a cluster is to have.
pub fn chosen(cluster: &Cluster, images: &BTreeMap<String, String>) -> Chosen {
    let enabled = ADDONS.iter().filter(|a| a.enabled(cluster));
    let (present, lacking) = enabled.partition(|a| a.missing_image(images).is_none());
    Chosen { present, lacking }
}

/// The add-on that a user's word means.
///
/// # Errors
/// An unknown one is a usage error that names those there are.
pub fn named(word: &str) -> Result<&'static Addon> {
    let names = || ADDONS.iter().map(|a| a.name);
    ADDONS.iter().find(|a| a.name == word).ok_or_else(|| {
        let mut error = Error::usage(format!("there is no add-on {}", quoted(word)))
            .why(format!("the add-ons are {}", names().collect::<Vec<_>>().join(", ")));
        if let Some(meant) = did_you_mean(word, names()) {
            error = error.hint(format!("did you mean {meant}?"));
        }
        error.hint("`kup addons list` says what each is")
    })
}

/// Every kind of object that any add-on has, each once.
fn kinds() -> Result<Vec<GroupVersionKind>> {
    let mut kinds = Vec::new();
    for addon in ADDONS {
        for text in templates::addon_texts(addon.name)? {
            kinds.extend(kinds_in(text));
        }
    }
    kinds.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    kinds.dedup();
    Ok(kinds)
}

/// The kinds in a manifest that is not filled in: each document has both words on lines of their own.
fn kinds_in(text: &str) -> Vec<GroupVersionKind> {
    let field = |document: &str, name: &str| document.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    text.split("\n---")
        .filter_map(|document| {
            let types = TypeMeta { api_version: field(document, "apiVersion:")?, kind: field(document, "kind:")? };
            GroupVersionKind::try_from(&types).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Addons, defaults};

    fn images() -> BTreeMap<String, String> {
        let image = |name: &str| (name.to_owned(), format!("registry.example/{name}:v1"));
        ADDONS.iter().flat_map(|a| a.images).map(|name| image(name)).collect()
    }

    /// A PKI, and the directory that it goes with.
    fn pki() -> (Pki, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Pki::open(&dir.path().join("pki")).unwrap(), dir)
    }

    #[test]
    fn the_table_the_folders_and_the_config_name_the_same() {
        let mut table: Vec<&str> = ADDONS.iter().map(|a| a.name).collect();
        table.sort_unstable();
        assert_eq!(
            templates::addon_names(),
            table,
            "a folder below templates/addons/ without its line, or a line without its folder"
        );
        let optional: Vec<&str> = table.into_iter().filter(|n| !named(n).unwrap().required).collect();
        assert_eq!(
            Addons::defaults().names().collect::<Vec<_>>(),
            optional,
            "config-default.yaml has each that can be turned off"
        );
    }

    #[test]
    fn every_image_is_in_the_bundle_of_every_node() {
        let all: Vec<_> = crate::bundle::component::COMPONENTS.iter().flat_map(|c| c.items).collect();
        for name in ADDONS.iter().flat_map(|a| a.images) {
            let item = all.iter().find(|i| i.name == *name).unwrap_or_else(|| panic!("{name} is not in the bundle"));
            assert_eq!(item.role, crate::bundle::Role::Image, "{name} is pulled when it is wanted");
        }
    }

    #[test]
    fn every_object_is_whole_and_labelled_and_its_kind_is_looked_through_when_something_is_removed() {
        let (pki, _dir) = pki();
        let cluster = defaults::cluster().unwrap();
        let known = kinds().unwrap();
        for addon in ADDONS {
            let objects = addon.objects(&cluster, &images(), &pki).unwrap();
            assert!(!objects.is_empty());
            let mut names = std::collections::BTreeSet::new();
            for object in objects {
                let types = object.types.clone().unwrap();
                assert_eq!(object.metadata.labels.unwrap()[LABEL], addon.name);
                let name = object.metadata.name.unwrap();
                let gvk = GroupVersionKind::try_from(&types).unwrap();
                assert!(known.contains(&gvk), "{}: {} {name} would stay behind", addon.name, types.kind);
                assert!(
                    names.insert((types.kind.clone(), object.metadata.namespace, name.clone())),
                    "{} {name} twice",
                    types.kind
                );
            }
        }
    }

    #[test]
    fn golden_objects() {
        let (pki, _dir) = pki();
        let cluster = defaults::cluster().unwrap();
        let mut lines = Vec::new();
        for addon in ADDONS {
            lines.push(format!("# {}: {}", addon.name, addon.what));
            for object in addon.objects(&cluster, &images(), &pki).unwrap() {
                let place = object.metadata.namespace.map(|n| format!("{n}/")).unwrap_or_default();
                lines.push(format!("{} {place}{}", object.types.unwrap().kind, object.metadata.name.unwrap()));
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn two_add_ons_never_share_an_object() {
        let (pki, _dir) = pki();
        let cluster = defaults::cluster().unwrap();
        let mut seen = BTreeMap::new();
        for addon in ADDONS {
            for object in addon.objects(&cluster, &images(), &pki).unwrap() {
                let key = (object.types.unwrap().kind, object.metadata.namespace, object.metadata.name);
                assert_eq!(seen.insert(key.clone(), addon.name), None, "{key:?}");
            }
        }
    }

    #[test]
    fn no_add_on_skips_the_check_of_a_certificate() {
        for addon in ADDONS {
            for text in templates::addon_texts(addon.name).unwrap() {
                let text = text.to_lowercase();
                assert!(!text.contains("insecure-tls") && !text.contains("insecureskiptlsverify"), "{}", addon.name);
            }
        }
    }

    #[test]
    fn the_config_chooses_and_a_bundle_without_an_image_leaves_its_add_on_out() {
        let mut cluster = defaults::cluster().unwrap();
        let names = |chosen: &[&Addon]| chosen.iter().map(|a| a.name).collect::<Vec<_>>();
        let all = chosen(&cluster, &images());
        assert_eq!(names(&all.present), ["coredns", "metrics-server", "local-storage"]);
        cluster.addons.set("metrics-server", false);
        let mut images = images();
        images.remove("local-storage");
        let some = chosen(&cluster, &images);
        assert_eq!((names(&some.present), names(&some.lacking)), (vec!["coredns"], vec!["local-storage"]));
    }

    #[test]
    fn a_word_that_is_no_add_on_is_answered_with_those_there_are() {
        insta::assert_snapshot!(named("metrics_server").unwrap_err().to_string(), @r"
        there is no add-on `metrics_server`
          because: the add-ons are coredns, metrics-server, local-storage
          next: did you mean metrics-server?
          next: `kup addons list` says what each is
        ");
    }
}
