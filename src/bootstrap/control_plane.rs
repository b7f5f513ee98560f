//! The API server on every master, until it says that it is ready.

use std::time::Duration;

use super::api::{ApiClient, briefly};
use super::diagnose::Look;
use super::{After, Context, Host, On, Run, Step, units};
use crate::error::Result;
use crate::pki::layout;
use crate::report::Span;

/// How long an API server may take to become ready: a minute is ten times what it takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub(super) const STEP: Step = Step {
    name: "api",
    title: "API server",
    on: On::Masters,
    only: None,
    after: &[After::Same("etcd")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    let look = Look::at(host, &["kube-apiserver.service", "etcd.service"]);
    span.waiting("kube-apiserver to start");
    // The next master waits until this one answers again.
    let (word, _turn) = units::start_holding(context, host, &["kube-apiserver.service"]).await?;
    span.waiting("/readyz");
    let api = ApiClient::new(host.machine.route(), &context.pki.cluster.pair.cert, &layout::bootstrapper(&context.pki)?)?;
    let what = || format!("the API server of {} did not become ready", host.machine.name);
    let seen = |last: &str| span.waiting(format!("/readyz (last: {})", briefly(last)));
    look.work(what, async { api.ready(context.deadline(DEADLINE), seen).await.map_err(|e| e.within(what())) }).await?;
    Ok(word)
}
