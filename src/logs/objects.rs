//! The API's objects as an archive holds them: no Secrets, and nothing in them that users may have meant to keep to themselves.

use std::time::Duration;

use serde_json::Value;

use crate::bootstrap::api::ApiClient;
use crate::error::{Context, Error, Result};
use crate::standing::Standing;

/// How long one list may take.
const LIST: Duration = Duration::from_secs(30);

/// What is asked for, and the file it goes to. Secrets are not; of ConfigMaps only the system's own are.
const LISTS: &[(&str, &str)] = &[
    ("nodes", "/api/v1/nodes"),
    ("namespaces", "/api/v1/namespaces"),
    ("pods", "/api/v1/pods"),
    ("events", "/api/v1/events"),
    ("services", "/api/v1/services"),
    ("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices"),
    ("replicationcontrollers", "/api/v1/replicationcontrollers"),
    ("replicasets", "/apis/apps/v1/replicasets"),
    ("deployments", "/apis/apps/v1/deployments"),
    ("daemonsets", "/apis/apps/v1/daemonsets"),
    ("statefulsets", "/apis/apps/v1/statefulsets"),
    ("jobs", "/apis/batch/v1/jobs"),
    ("persistentvolumes", "/api/v1/persistentvolumes"),
    ("persistentvolumeclaims", "/api/v1/persistentvolumeclaims"),
    ("storageclasses", "/apis/storage.k8s.io/v1/storageclasses"),
    ("poddisruptionbudgets", "/apis/policy/v1/poddisruptionbudgets"),
    ("networkpolicies", "/apis/networking.k8s.io/v1/networkpolicies"),
    ("leases", "/apis/coordination.k8s.io/v1/leases"),
    ("apiservices", "/apis/apiregistration.k8s.io/v1/apiservices"),
    ("system-configmaps", "/api/v1/namespaces/kube-system/configmaps"),
    ("version", "/version"),
];

/// Files of an archive, and what could not be had.
#[derive(Default)]
pub(super) struct Gathered {
    /// Path below the archive's root, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

/// Asks the first API server that answers for all of them, and each kubelet for its effective configuration.
pub(super) async fn gather(standing: &Standing) -> Gathered {
    let mut gathered = Gathered::default();
    let mut client = None;
    for master in standing.masters().filter(|m| m.running) {
        let ready = match standing.api(master) {
            Ok(api) => text(&api, "/readyz?verbose").await.map(|ready| (api, ready)),
            Err(e) => Err(e),
        };
        match ready {
            Ok((api, ready)) => {
                gathered.files.push((format!("api/readyz-{}.txt", master.machine.name), ready.into_bytes()));
                client = Some(api);
                break;
            }
            Err(e) => gathered.missing.push(format!("the API of {}: {}", master.machine.name, one_line(&e))),
        }
    }
    let Some(api) = client else { return gathered };
    let lists = LISTS.iter().map(|(name, path)| (format!("api/{name}.yaml"), (*path).to_owned()));
    let kubelets = standing.machines.iter().filter(|m| m.running).map(|m| {
        let name = &m.machine.name;
        (format!("machines/{name}/kubelet-configz.yaml"), format!("/api/v1/nodes/{name}/proxy/configz"))
    });
    let asked =
        lists.chain(kubelets).map(|(file, path)| {
            let api = &api;
            async move {
                yaml(api, &path).await.map(|text| (file, text.into_bytes())).map_err(|e| format!("{path}: {}", one_line(&e)))
            }
        });
    for outcome in futures::future::join_all(asked).await {
        match outcome {
            Ok(file) => gathered.files.push(file),
            Err(why) => gathered.missing.push(why),
        }
    }
    gathered
}

fn one_line(error: &Error) -> String {
    std::iter::once(&error.what).chain(&error.why).cloned().collect::<Vec<_>>().join(": ").replace('\n', "; ")
}

async fn text(api: &ApiClient, path: &str) -> Result<String> {
    match tokio::time::timeout(LIST, api.get(path)).await {
        Ok(text) => text,
        Err(_) => Err(Error::new(format!("no answer within {} s", LIST.as_secs()))),
    }
}

async fn yaml(api: &ApiClient, path: &str) -> Result<String> {
    let mut value: Value = serde_json::from_str(&text(api, path).await?).context("the API's answer is not JSON")?;
    prune(&mut value);
    serde_yaml::to_string(&value).context("cannot write YAML")
}

/// Takes out who owns which field, copies of earlier versions, and the values of environment variables, which users fill with secrets.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("managedFields");
            map.remove("kubectl.kubernetes.io/last-applied-configuration");
            for variable in map.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(text) = variable.get_mut("value") {
                    *text = "[left out]".into();
                }
            }
            map.values_mut().for_each(prune);
        }
        Value::Array(all) => all.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn environments_and_copies_are_taken_out_at_any_depth() {
        let mut value = json!({ "items": [{
            "metadata": { "managedFields": [{ "fieldsV1": {} }], "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "x", "a": "b" } },
            "spec": { "template": { "spec": { "containers": [{ "env": [
                { "name": "PASSWORD", "value": "hunter2" }, { "name": "FROM", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
            ] }] } } },
        }] });
        prune(&mut value);
        assert_eq!(
            value,
            json!({ "items": [{
                "metadata": { "annotations": { "a": "b" } },
                "spec": { "template": { "spec": { "containers": [{ "env": [
                    { "name": "PASSWORD", "value": "[left out]" }, { "name": "FROM", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                ] }] } } },
            }] })
        );
    }

    #[test]
    fn secrets_are_not_asked_for() {
        assert!(LISTS.iter().all(|(_, path)| !path.contains("secrets")));
    }
}
