//! Who may do what: the bindings that the administrator and the nodes' own agents need.

use std::time::Duration;

use super::{After, Context, On, Run, Step};
use crate::cluster::spec::ProviderKind;
use crate::error::Result;
use crate::templates;

/// How long the first writes may take on an API server that has just become ready.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) const STEP: Step = Step {
    name: "access",
    title: "access rules",
    on: On::Cluster,
    after: &[After::All("api")],
    run: Run::Cluster(|context, span| {
        span.waiting("the API to take the access rules");
        Box::pin(run(context))
    }),
};

async fn run(context: &Context) -> Result<String> {
    let mut documents = vec![templates::text("kubernetes/access.yaml")?.to_owned()];
    if context.cluster.provider == ProviderKind::Aws {
        documents.push(templates::text("kubernetes/access-aws.yaml")?.to_owned());
    }
    let count = context.api().await?.apply(&documents, context.deadline(DEADLINE)).await?;
    Ok(format!("{count} objects"))
}
