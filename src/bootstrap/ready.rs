//! The ready gate, the one place that says a cluster is ready: every expected node is Ready, DNS is up, and every node gets the
//! right answer from it, out of a pod's own network where the node has a pod, a few times in a row.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;

use super::api::{Nodes, node_ready};
use super::{After, Context, Host, On, Run, Step, units};
use crate::error::{Context as _, Error, Result};
use crate::machine::dns_query::Query;
use crate::report::Span;

/// How long everything together may take after the last unit has started. Nodes, pods and DNS take seconds; this is for the slow.
const DEADLINE: Duration = Duration::from_secs(180);
/// Good DNS answers in a row, on every node.
const IN_A_ROW: u32 = 3;
/// Pause between looks at what can't be watched.
const POLL: Duration = Duration::from_millis(100);

pub(super) const STEP: Step = Step {
    name: "ready",
    title: "all ready",
    on: On::Cluster,
    after: &[After::All("network"), After::All("proxy"), After::All("dns")],
    run: Run::Cluster(|context, span| Box::pin(run(context, span))),
};

async fn run(context: &Context, span: &Span) -> Result<String> {
    let until = Instant::now() + DEADLINE;
    let waits = Waits { span, said: Mutex::default() };
    tokio::try_join!(async { nodes_ready(context, &waits, until).await.inspect(|()| waits.say("nodes", None)) }, async {
        dns_available(context, &waits, until).await.inspect(|()| waits.say("then DNS", None))
    },)?;
    let hosts = context.hosts();
    let answers = hosts.iter().map(|host| {
        let name = host.machine.name.as_str();
        waits.say(name, Some(format!("DNS to answer on {name}")));
        async { dns_answers(context, host.clone(), &waits, until).await.inspect(|_| waits.say(name, None)) }
    });
    let from_pods = futures::future::try_join_all(answers).await?.into_iter().filter(|p| *p).count();
    Ok(format!("{} nodes, DNS answers ({from_pods} from pods)", hosts.len()))
}

/// What is waited for at once, of which a span shows the first by name.
struct Waits<'a> {
    span: &'a Span,
    said: Mutex<BTreeMap<String, String>>,
}

impl Waits<'_> {
    /// `what` waits for `on`, or for nothing any more.
    fn say(&self, what: &str, on: Option<String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match on {
            Some(on) => drop(said.insert(what.to_owned(), on)),
            None => drop(said.remove(what)),
        }
        if let Some(first) = said.values().next() {
            self.span.waiting(first.as_str());
        }
    }
}

fn remaining(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn nodes_ready(context: &Context, waits: &Waits<'_>, until: Instant) -> Result<()> {
    let hosts = context.hosts();
    let missing = |nodes: &Nodes| -> Vec<(Arc<Host>, String)> {
        hosts
            .iter()
            .filter_map(|h| match nodes.get(&h.machine.name) {
                Some(node) => node_ready(node).err().map(|why| (h.clone(), why)),
                None => Some((h.clone(), "it has not registered".into())),
            })
            .collect()
    };
    let mut nodes = context.nodes().await?;
    loop {
        let waiting_for = missing(&nodes.borrow_and_update());
        let Some((host, why)) = waiting_for.first() else { return Ok(()) };
        let on = format!("{} to be Ready ({} of {} are not; last: {why})", host.machine.name, waiting_for.len(), hosts.len());
        waits.say("nodes", Some(on));
        if !matches!(tokio::time::timeout(remaining(until), nodes.changed()).await, Ok(Ok(()))) {
            let mut error = Error::new(format!("{} is not Ready", host.machine.name)).why(why);
            for unit in ["kubelet.service", "containerd.service", "flanneld.service"] {
                error = units::with_journal(error, host.ssh()?, unit).await;
            }
            return Err(error.hint("kup up tries again, kup status shows every part"));
        }
    }
}

async fn dns_available(context: &Context, waits: &Waits<'_>, until: Instant) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(context.api().await?.client(), "kube-system");
    loop {
        let deployment = api.get("coredns").await.context("cannot look at the Deployment of CoreDNS")?;
        let status = deployment.status.unwrap_or_default();
        let wanted = deployment.spec.replicas.unwrap_or(1);
        // `ready_replicas` counts pods of an older version too: none of those may be left.
        let settled = status.observed_generation == deployment.metadata.generation
            && status.updated_replicas == Some(wanted)
            && status.replicas == Some(wanted);
        if settled && status.ready_replicas.unwrap_or(0) >= wanted {
            return Ok(());
        }
        waits.say("then DNS", Some(format!("CoreDNS (last: {} of {wanted} ready)", status.ready_replicas.unwrap_or(0))));
        if Instant::now() >= until {
            let conditions = status.conditions.unwrap_or_default();
            let why = conditions
                .iter()
                .filter(|c| c.status.as_deref() != Some("True"))
                .filter_map(|c| c.message.clone())
                .collect::<Vec<_>>()
                .join("\n");
            return Err(Error::new(format!("{} of {wanted} replicas of CoreDNS are ready", status.ready_replicas.unwrap_or(0)))
                .why(if why.is_empty() { "its Deployment names no reason".to_owned() } else { why })
                .hint("kup kubectl -- -n kube-system describe pods -l k8s-app=kube-dns"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Asks DNS on one node until it has answered well [`IN_A_ROW`] times. Says whether it was asked out of a pod's network.
async fn dns_answers(context: &Context, host: Arc<Host>, waits: &Waits<'_>, until: Instant) -> Result<bool> {
    let network = &context.cluster.network;
    let name = format!("kubernetes.default.svc.{}", network.domain);
    let expected = context.topology().await.api_service_address(&context.cluster);
    let query = Query::new(&name);
    let command = query.shell_command(network.dns);
    let mut good = 0;
    loop {
        let output = host.ssh()?.exec(&command, "", Duration::from_secs(10)).await?;
        let text = output.text();
        let (place, reply) = text.split_once('\n').unwrap_or((&text, ""));
        let last = match query.answer(reply) {
            Ok(address) if Some(address) == expected => {
                good += 1;
                if good >= IN_A_ROW {
                    return Ok(place == "pod");
                }
                continue;
            }
            Ok(address) => format!("{name} is {address}, expected {expected:?}"),
            Err(why) => why,
        };
        good = 0;
        waits.say(&host.machine.name, Some(format!("DNS to answer on {} (last: {last})", host.machine.name)));
        if Instant::now() >= until {
            let error = Error::new(format!("DNS does not answer on {}", host.machine.name)).why(last);
            return Err(units::with_journal(error, host.ssh()?, "kube-proxy.service").await.hint("kup status shows every part"));
        }
        tokio::time::sleep(POLL).await;
    }
}
