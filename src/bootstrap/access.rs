//! Who may do what: the bindings that the administrator and the nodes' own agents need, and the token by which machines join themselves.

use std::time::Duration;

use super::{After, Context, On, Run, Step};
use crate::cluster::spec::ProviderKind;
use crate::error::{Error, Result};
use crate::templates;

/// How long the first writes may take on an API server that has just become ready.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) const STEP: Step = Step {
    name: "access",
    title: "access rules",
    on: On::Cluster,
    only: None,
    after: &[After::All("api")],
    run: Run::Cluster(|context, span| {
        span.waiting("the API to take the access rules");
        Box::pin(run(context))
    }),
};

async fn run(context: &Context) -> Result<String> {
    let mut documents = vec![templates::text("kubernetes/access.yaml")?.to_owned()];
    if context.cluster.provider == ProviderKind::Aws {
        documents.push(join(&context.pki.bootstrap_token)?);
        documents.push(templates::text("kubernetes/access-aws.yaml")?.to_owned());
    }
    let count = context.api().await?.apply(&documents, context.deadline(DEADLINE)).await?;
    Ok(format!("{count} objects"))
}

/// What the cluster must know of the token for machines to join with it.
fn join(token: &str) -> Result<String> {
    let (id, secret) = token.split_once('.').ok_or_else(|| Error::new("the bootstrap token is damaged"))?;
    templates::render("kubernetes/join.yaml", minijinja::context! { id, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_one_that_kubernetes_knows_by_its_name() {
        let objects = crate::bootstrap::api::parse(&[join("234567.abcdefghijkmnpqr").unwrap()]).unwrap();
        let secret = objects.iter().find(|o| o.types.as_ref().is_some_and(|t| t.kind == "Secret")).unwrap();
        assert_eq!(secret.metadata.name.as_deref(), Some("bootstrap-token-234567"));
        assert_eq!(secret.data["type"], "bootstrap.kubernetes.io/token");
        // Text also where it is all digits: as a number the API would refuse it.
        assert_eq!(secret.data["stringData"]["token-id"], "234567");
        assert_eq!(secret.data["stringData"]["token-secret"], "abcdefghijkmnpqr");
        let group = &secret.data["stringData"]["auth-extra-groups"];
        let bound: Vec<_> = objects.iter().filter(|o| o.data.pointer("/subjects/0/name") == Some(group)).collect();
        assert_eq!(bound.len(), 1, "the group may ask, and what it asks is approved");
        assert!(join("no-token").is_err());
    }
}
