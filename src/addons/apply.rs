//! Making the cluster's add-ons be as wanted: what is missing is applied, what an add-on no longer has is removed, and the rest is
//! left alone. The cluster itself says what there is, by labels.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta};

use super::{Addon, Chosen, LABEL, kinds};
use crate::bootstrap::api::ApiClient;
use crate::error::{Context as _, Error, Result};

/// How long one object may take to be accepted by an API server that has just become ready.
const APPLY: Duration = Duration::from_secs(30);
/// How long what is removed may take to be gone: pods get half a minute to end, and a namespace is emptied after them.
const REMOVE: Duration = Duration::from_secs(90);
/// Pause between looks at what is being removed.
const POLL: Duration = Duration::from_millis(200);

/// What became of the add-ons.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many objects there are now.
    pub objects: usize,
    /// Whether any was made, changed or removed.
    pub changed: bool,
    /// What was removed, as `Kind name`.
    pub removed: Vec<String>,
    /// Things the user should know.
    pub warnings: Vec<String>,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    group: String,
    version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Key {
    fn new(gvk: &GroupVersionKind, meta: &ObjectMeta) -> Key {
        Key {
            group: gvk.group.clone(),
            version: gvk.version.clone(),
            kind: gvk.kind.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&self.group, &self.version, &self.kind));
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }
}

/// Makes the cluster have the objects of these add-ons, and none of another add-on. Those that the bundle lacks are left as they are.
/// Told twice, it changes nothing the second time.
pub async fn reconcile(api: &ApiClient, chosen: &Chosen, objects: Vec<DynamicObject>) -> Result<Done> {
    let found = labelled(&api.client()).await?;
    let wanted = objects.iter().map(key).collect::<Result<Vec<Key>>>()?;
    let applied = api.apply_all(objects, APPLY).await?;
    let changed = wanted.iter().zip(&applied).any(|(key, now)| !found.get(key).is_some_and(|old| same(old, &now.metadata)));
    let surplus = surplus(&found, &wanted, &chosen.lacking);
    let mut warnings = Vec::new();
    for provisioner in provisioners(&found, &surplus) {
        warnings.extend(remaining_volumes(api.client(), provisioner).await?);
    }
    remove(&api.client(), &surplus).await?;
    Ok(Done {
        objects: applied.len(),
        changed: changed || !surplus.is_empty(),
        removed: surplus.iter().map(|key| format!("{} {}", key.kind, key.name)).collect(),
        warnings,
    })
}

/// Every object that any add-on made.
pub(super) async fn labelled(client: &Client) -> Result<BTreeMap<Key, ObjectMeta>> {
    let lists = kinds()?.into_iter().map(|gvk| async move {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
        let list = match api.list_metadata(&ListParams::default().labels(LABEL)).await {
            Ok(list) => list.items,
            // A kind that this cluster doesn't know has no objects.
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot list the {} objects of add-ons", gvk.kind)),
        };
        Ok::<_, Error>(list.into_iter().map(|o| (Key::new(&gvk, &o.metadata), o.metadata)).collect::<Vec<_>>())
    });
    Ok(futures::future::try_join_all(lists).await?.into_iter().flatten().collect())
}

fn key(object: &DynamicObject) -> Result<Key> {
    let types = object.types.clone().unwrap_or_default();
    let gvk = GroupVersionKind::try_from(&types).with_context(|| format!("`{}` is no API version", types.api_version))?;
    Ok(Key::new(&gvk, &object.metadata))
}

/// Whether applying has left an object as it was. Where the API counts generations they say so; a new status is no change.
fn same(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid == new.uid
        && (old.resource_version == new.resource_version
            || old.generation.is_some()
                && old.generation == new.generation
                && old.labels == new.labels
                && old.annotations == new.annotations)
}

/// What add-ons made that nobody wants any more.
fn surplus(found: &BTreeMap<Key, ObjectMeta>, wanted: &[Key], lacking: &[&Addon]) -> Vec<Key> {
    let kept = |meta: &ObjectMeta| owner(meta).is_some_and(|owner| lacking.iter().any(|a| a.name == owner));
    found.iter().filter(|(key, meta)| !wanted.contains(key) && !kept(meta)).map(|(key, _)| key.clone()).collect()
}

fn owner(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(LABEL).map(String::as_str)
}

/// The provisioners among add-ons whose Deployment goes.
fn provisioners(found: &BTreeMap<Key, ObjectMeta>, surplus: &[Key]) -> Vec<&'static str> {
    let gone: Vec<&str> = surplus.iter().filter(|k| k.kind == "Deployment").filter_map(|k| owner(found.get(k)?)).collect();
    super::ADDONS.iter().filter(|a| gone.contains(&a.name)).filter_map(|a| a.provisions).collect()
}

/// What to know of volumes that nobody looks after from now on.
async fn remaining_volumes(client: Client, provisioner: &str) -> Result<Option<String>> {
    let all = Api::<PersistentVolume>::all(client).list(&ListParams::default()).await.context("cannot list the volumes")?;
    let made_by = |v: &PersistentVolume| v.metadata.annotations.as_ref()?.get("pv.kubernetes.io/provisioned-by").cloned();
    let names: Vec<String> =
        all.items.iter().filter(|v| made_by(v).as_deref() == Some(provisioner)).filter_map(|v| v.metadata.name.clone()).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "volumes stay with their data, and pods go on using them, but nothing removes them while {provisioner} is away: {}",
            names.join(", ")
        )
    }))
}

/// Removes objects, and what hangs on them, and waits until they are gone.
async fn remove(client: &Client, keys: &[Key]) -> Result<()> {
    let until = Instant::now() + REMOVE;
    let removals = keys.iter().map(|key| async move {
        let (api, kind, name) = (key.api(client), &key.kind, &key.name);
        let what = || format!("cannot remove {kind} {name}");
        // Pods before their Deployment, so that this is gone when they are.
        let params = if key.group == "apps" { DeleteParams::foreground() } else { DeleteParams::background() };
        match api.delete(name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(e) => return Err(e).with_context(what),
        }
        while let Some(object) = api.get_metadata_opt(name).await.with_context(what)? {
            if Instant::now() >= until {
                let finalizers = object.metadata.finalizers.unwrap_or_default().join(", ");
                return Err(Error::new(format!("{kind} {name} is not gone after {} s", REMOVE.as_secs()))
                    .why(if finalizers.is_empty() { "it names no reason".into() } else { format!("it waits for: {finalizers}") })
                    .hint(format!("`kup kubectl -- describe {} {name}` says more", kind.to_lowercase())));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    });
    futures::future::try_join_all(removals).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, name: &str, owner: &str) -> (Key, ObjectMeta) {
        let labels = [(LABEL.to_owned(), owner.to_owned())].into();
        let meta = ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() };
        (Key::new(&GroupVersionKind::gvk("", "v1", kind), &meta), meta)
    }

    #[test]
    fn what_nobody_wants_goes_and_what_can_not_be_had_anew_stays() {
        let found: BTreeMap<_, _> = [
            entry("Service", "kept", "coredns"),
            entry("Service", "renamed", "coredns"),
            entry("Deployment", "off", "local-storage"),
            entry("Service", "lacking", "metrics-server"),
        ]
        .into();
        let wanted = [entry("Service", "kept", "coredns").0, entry("Service", "new", "coredns").0];
        let lacking = [super::super::named("metrics-server").unwrap()];
        let surplus = surplus(&found, &wanted, &lacking);
        assert_eq!(surplus.iter().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["off", "renamed"]);
        assert_eq!(provisioners(&found, &surplus), ["kup.dev/local-storage"]);
        assert!(provisioners(&found, &surplus[1..]).is_empty());
    }

    #[test]
    fn only_a_new_generation_or_label_is_a_change_where_generations_are_counted() {
        let meta = |version: &str, generation| ObjectMeta {
            uid: Some("u".into()),
            resource_version: Some(version.into()),
            generation,
            ..ObjectMeta::default()
        };
        assert!(same(&meta("1", None), &meta("1", None)));
        assert!(!same(&meta("1", None), &meta("2", None)));
        assert!(same(&meta("1", Some(1)), &meta("2", Some(1))), "its status alone");
        assert!(!same(&meta("1", Some(1)), &meta("2", Some(2))));
        let relabelled = ObjectMeta { labels: Some([("a".to_owned(), "b".to_owned())].into()), ..meta("2", Some(1)) };
        assert!(!same(&meta("1", Some(1)), &relabelled));
        assert!(!same(&meta("1", Some(1)), &ObjectMeta { uid: Some("other".into()), ..meta("1", Some(1)) }));
    }
}
