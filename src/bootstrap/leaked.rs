//! A Service's address that is taken by nobody.
//!
//! The API server reserves a Service's address before it stores the Service. If whoever asked for it dies in between, the address stays
//! reserved for a Service that does not exist, until the server itself looks for such cases, minutes later. `up` needs it now.

use k8s_openapi::api::networking::v1::IPAddress;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};

use crate::error::{Context as _, Error, Result};

/// Whether an answer says that a Service's address is reserved already.
pub(super) fn is_taken(object: &DynamicObject, error: &kube::Error) -> bool {
    let kind = object.types.as_ref().map(|t| t.kind.as_str());
    matches!(error, kube::Error::Api(status) if status.code == 422 && status.message.contains("already allocated"))
        && kind == Some("Service")
}

/// Frees the address of a Service that could not be made, if it is reserved for that very Service.
///
/// # Errors
/// An address that something else uses is left to it, and named with its user.
pub(super) async fn free(client: Client, service: &DynamicObject) -> Result<()> {
    let Some(address) = service.data.pointer("/spec/clusterIP").and_then(|a| a.as_str()) else { return Ok(()) };
    let api: Api<IPAddress> = Api::all(client);
    let what = || format!("cannot look at the address {address}");
    let Some(found) = api.get_opt(address).await.with_context(what)? else { return Ok(()) };
    let parent = &found.spec.parent_ref;
    let (namespace, name) =
        (service.metadata.namespace.as_deref().unwrap_or_default(), service.metadata.name.as_deref().unwrap_or_default());
    if (parent.resource.as_str(), parent.namespace.as_deref(), parent.name.as_str()) != ("services", Some(namespace), name) {
        let user = format!("{} {}/{}", parent.resource, parent.namespace.as_deref().unwrap_or_default(), parent.name);
        return Err(Error::new(format!("the address {address} of the Service {namespace}/{name} is used by {user}"))
            .hint("delete that one, then `kup up`; or choose another network.dns for a new cluster"));
    }
    // Exactly what was looked at: should the Service have come to be after all, its address may be another object by now.
    let only = Preconditions { uid: found.metadata.uid.clone(), resource_version: found.metadata.resource_version.clone() };
    match api.delete(address, &DeleteParams { preconditions: Some(only), ..DeleteParams::default() }).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("cannot free the address {address}")),
    }
}
