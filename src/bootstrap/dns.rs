//! The cluster's DNS: CoreDNS, applied as soon as the API answers, so that it is scheduled the moment a node is Ready.

use std::time::Duration;

use super::{After, Context, On, Run, Step};
use crate::error::Result;
use crate::templates;

const DEADLINE: Duration = Duration::from_secs(30);

pub(super) const STEP: Step = Step {
    name: "dns",
    title: "DNS",
    on: On::Cluster,
    after: &[After::All("api")],
    run: Run::Cluster(|context, span| {
        span.waiting("the API to take CoreDNS");
        Box::pin(run(context))
    }),
};

async fn run(context: &Context) -> Result<String> {
    let values = minijinja::context! {
        cluster => minijinja::value::Serde(&context.cluster),
        images => minijinja::value::Serde(&context.images),
    };
    let count = context.api().await?.apply(&templates::addon("coredns", values)?, DEADLINE).await?;
    Ok(format!("{count} objects"))
}
