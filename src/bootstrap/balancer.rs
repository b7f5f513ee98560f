//! The machine in front of several masters: users' calls go to whichever of them says that it is ready.

use std::time::Duration;

use super::api::ApiClient;
use super::diagnose::Look;
use super::{After, Context, Host, On, Run, Step, units};
use crate::error::Result;
use crate::pki::layout;
use crate::report::Span;

/// How long the API may take to answer through it, once every master's own answers: its checks come once a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Its one unit.
const UNIT: &str = "kup-balancer.service";

pub(super) const STEP: Step = Step {
    name: "balancer",
    title: "load balancer",
    on: On::Balancers,
    only: None,
    after: &[After::Same("files"), After::All("api")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    let look = Look::at(host, &[UNIT]);
    let word = units::start(context, host, &[UNIT]).await?;
    span.waiting("/readyz to say ok through it");
    let api = ApiClient::new(host.machine.route(), &context.pki.cluster.pair.cert, &layout::bootstrapper(&context.pki)?)?;
    let what = || format!("the API does not answer through {}", host.machine.name);
    look.work(what, async { api.ready(context.deadline(DEADLINE), |_| {}).await.map_err(|e| e.within(what())) }).await?;
    Ok(word)
}
