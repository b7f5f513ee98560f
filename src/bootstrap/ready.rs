//! The ready gate, the one place that says a cluster is ready: every expected node is Ready, DNS is up, every node gets the right
//! answer from it, out of a pod's own network where the node has a pod, a few times in a row, and every add-on says that it is ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::api::{Nodes, node_ready};
use super::{After, Context, Host, On, Run, Step, units};
use crate::addons::{self, Addon};
use crate::error::{Error, Result};
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
    after: &[After::All("network"), After::All("proxy"), After::All("addons")],
    run: Run::Cluster(|context, span| Box::pin(run(context, span))),
};

async fn run(context: &Context, span: &Span) -> Result<String> {
    let until = Instant::now() + DEADLINE;
    let chosen = addons::chosen(&context.cluster, &context.images.all).present;
    let (dns, others): (Vec<&Addon>, Vec<&Addon>) = chosen.into_iter().partition(|a| a.required);
    // Nobody who waits for DNS waits for the others too.
    let ((hosts, from_pods), ()) =
        tokio::try_join!(nodes_and_dns(context, span, until, &dns), addons_ready(context, span, until, &others))?;
    let words = others.iter().map(|a| format!(", {}", a.name)).collect::<String>();
    Ok(format!("{hosts} nodes, DNS answers ({from_pods} from pods){words}"))
}

/// Waits for every node, then for good answers on all of them. Says how many nodes there are, and how many were asked out of a pod.
async fn nodes_and_dns(context: &Context, span: &Span, until: Instant, dns: &[&Addon]) -> Result<(usize, usize)> {
    tokio::try_join!(nodes_ready(context, span, until), addons_ready(context, span, until, dns))?;
    let hosts = context.hosts();
    span.waiting("DNS to answer on every node");
    let asked = hosts.iter().map(|host| dns_answers(context, host.clone(), until));
    let from_pods = futures::future::try_join_all(asked).await?.into_iter().filter(|p| *p).count();
    Ok((hosts.len(), from_pods))
}

async fn addons_ready(context: &Context, span: &Span, until: Instant, addons: &[&Addon]) -> Result<()> {
    let api = context.api().await?;
    let waits = addons.iter().map(|addon| addons::ready::wait(api, addon, until, |what| span.waiting(what)));
    futures::future::try_join_all(waits).await.map(drop)
}

fn remaining(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn nodes_ready(context: &Context, span: &Span, until: Instant) -> Result<()> {
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
        span.waiting(format!("{} of {} nodes: {}", waiting_for.len(), hosts.len(), host.machine.name));
        if !matches!(tokio::time::timeout(remaining(until), nodes.changed()).await, Ok(Ok(()))) {
            let mut error = Error::new(format!("{} is not Ready", host.machine.name)).why(why);
            for unit in ["kubelet.service", "containerd.service", "flanneld.service"] {
                error = units::with_journal(error, host.ssh()?, unit).await;
            }
            return Err(error.hint("kup up tries again, kup status shows every part"));
        }
    }
}

/// Asks DNS on one node until it has answered well [`IN_A_ROW`] times. Says whether it was asked out of a pod's network.
async fn dns_answers(context: &Context, host: Arc<Host>, until: Instant) -> Result<bool> {
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
        if Instant::now() >= until {
            let error = Error::new(format!("DNS does not answer on {}", host.machine.name)).why(last);
            return Err(units::with_journal(error, host.ssh()?, "kube-proxy.service").await.hint("kup status shows every part"));
        }
        tokio::time::sleep(POLL).await;
    }
}
