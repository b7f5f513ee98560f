//! What a snapshot tells the API that is not so here. Nodes that have no machine: another cluster's, or of machines that were removed since;
//! they would never be Ready, and their pods would be counted as if they ran. The authority that pods trust, and the token by which minions
//! join, if these were another cluster's.
//! Controllers would see to most of it in time; until then pods start that can't call the API.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};

use crate::bootstrap::api::{ApiClient, REQUEST};
use crate::error::{Context as _, Error, Result};
use crate::pki::layout;
use crate::report::Span;
use crate::standing::Standing;

/// How many calls are made at once.
const PARALLEL: usize = 16;

/// The ConfigMap in each namespace by which pods know the API server.
const ROOT: &str = "kube-root-ca.crt";

/// The group of whoever joins by a token of kup's (`templates/kubernetes/join.yaml`).
const JOINING: &str = "system:bootstrappers:kup";

fn client(standing: &Standing) -> Result<Client> {
    let master = standing.masters().next().ok_or_else(|| Error::new(format!("cluster {} has no master", standing.id.name)))?;
    // What the snapshot says of who may do what is not relied upon.
    let login = layout::bootstrapper(standing.pki())?;
    Ok(ApiClient::new(master.machine.route(), &standing.pki().cluster.pair.cert, &login)?.client())
}

/// Makes pods in every namespace trust this cluster's authority.
pub(super) async fn trust(standing: &Standing, span: &Span) -> Result<()> {
    let (client, authority) = (client(standing)?, &standing.pki().cluster.pair.cert);
    span.waiting("pods to trust this cluster's authority");
    let all: Api<ConfigMap> = Api::all(client.clone());
    let named = ListParams::default().fields(&format!("metadata.name={ROOT}"));
    let list = within("the authorities that pods trust can't be listed", all.list(&named)).await?;
    let other = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("ca.crt")) != Some(authority);
    let patch = serde_json::json!({ "data": { "ca.crt": authority } });
    let changes = list.items.into_iter().filter(other).map(|map| {
        let namespace = map.metadata.namespace.unwrap_or_default();
        let (api, patch) = (Api::<ConfigMap>::namespaced(client.clone(), &namespace), Patch::Merge(&patch));
        async move {
            let what = format!("the authority that pods in {namespace} trust can't be changed");
            gone(&what, api.patch(ROOT, &PatchParams::default(), &patch)).await
        }
    });
    futures::stream::iter(changes).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await.map(drop)
}

/// Removes the tokens by which machines join another cluster: `up` makes that of this one.
pub(super) async fn revoke(standing: &Standing, span: &Span) -> Result<()> {
    span.waiting("another cluster's tokens for joining to be removed");
    let own = standing.pki().bootstrap_token.split('.').next().map(|id| format!("bootstrap-token-{id}"));
    let secrets: Api<Secret> = Api::namespaced(client(standing)?, "kube-system");
    let tokens = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
    let list = within("the tokens for joining can't be listed", secrets.list(&tokens)).await?;
    let ours = |secret: &Secret| {
        let groups = secret.data.as_ref().and_then(|data| data.get("auth-extra-groups"));
        groups.is_some_and(|groups| groups.0 == JOINING.as_bytes()) && secret.metadata.name != own
    };
    for secret in list.items.into_iter().filter(ours) {
        let name = secret.metadata.name.unwrap_or_default();
        gone(&format!("the token {name} can't be removed"), secrets.delete(&name, &DeleteParams::default())).await?;
    }
    Ok(())
}

/// Removes every Node that is not among these names, and the pods on it. Says which Nodes those were.
pub(super) async fn remove_foreign(standing: &Standing, names: &BTreeSet<&str>, span: &Span) -> Result<Vec<String>> {
    let client = client(standing)?;
    let nodes: Api<Node> = Api::all(client.clone());
    let list = within("the Nodes can't be listed", nodes.list(&ListParams::default())).await?;
    let all = list.items.into_iter().filter_map(|node| node.metadata.name);
    let foreign: Vec<String> = all.filter(|name| !names.contains(name.as_str())).collect();
    for name in &foreign {
        span.waiting(format!("the pods of {name} to be removed"));
        let pods: Api<Pod> = Api::all(client.clone());
        let on = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let list = within(&format!("the pods of {name} can't be listed"), pods.list(&on)).await?;
        // Nobody is left to end them.
        let now = DeleteParams::default().grace_period(0);
        let removals = list.items.into_iter().map(|pod| {
            let (namespace, pod) = (pod.metadata.namespace.unwrap_or_default(), pod.metadata.name.unwrap_or_default());
            let (api, now) = (Api::<Pod>::namespaced(client.clone(), &namespace), &now);
            async move { gone(&format!("the pod {namespace}/{pod} can't be removed"), api.delete(&pod, now)).await }
        });
        futures::stream::iter(removals).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        gone(&format!("the Node {name} can't be removed"), nodes.delete(name, &DeleteParams::default())).await?;
    }
    Ok(foreign)
}

async fn within<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    let answered = tokio::time::timeout(REQUEST, call).await;
    answered.map_err(|_| Error::new(what).why(format!("the API did not answer within {} s", REQUEST.as_secs())))?.context(what)
}

/// A removal, or a change of what may go; what is gone already is as good.
async fn gone<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<()> {
    let call = async {
        match call.await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(e) => Err(e),
        }
    };
    within(what, call).await
}
