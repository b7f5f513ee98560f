//! The ready gate, the one place that says a cluster is ready: every expected node is Ready, DNS is up, and every node gets the
//! right answer from it, out of a pod's own network where the node has a pod, a few times in a row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use super::api::{Nodes, REQUEST, node_ready};
use super::diagnose::{Cause, Look, cause};
use super::{After, Context, Host, On, Run, Step};
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::machine::dns_query::Query;
use crate::report::Span;

/// How long everything together may take after the last unit has started. Nodes, pods and DNS take seconds; this is for the slow.
const DEADLINE: Duration = Duration::from_secs(180);
/// Good DNS answers in a row, on every node.
const IN_A_ROW: u32 = 3;
/// Pause between looks at what can't be watched.
const POLL: Duration = Duration::from_millis(100);
/// How often the pods of DNS are looked at while not all of them are ready.
const PODS: Duration = Duration::from_secs(3);
/// How long a pod must have been without its image to end the wait: a pull is tried again after 10 s, and may then go well.
const NO_IMAGE: Duration = Duration::from_secs(15);
/// What every node runs.
const NODE_UNITS: &[&str] = &["containerd.service", "kubelet.service", "flanneld.service", "kube-proxy.service"];
/// What masters run beside that.
const MASTER_UNITS: &[&str] =
    &["etcd.service", "kube-apiserver.service", "kube-controller-manager.service", "kube-scheduler.service"];

pub(super) const STEP: Step = Step {
    name: "ready",
    title: "all ready",
    on: On::Cluster,
    after: &[After::All("network"), After::All("proxy"), After::All("dns"), After::All("balancer")],
    run: Run::Cluster(|context, span| Box::pin(run(context, span))),
};

async fn run(context: &Context, span: &Span) -> Result<String> {
    let until = Instant::now() + context.deadline(DEADLINE);
    let hosts = context.node_hosts();
    let gate = async {
        tokio::try_join!(nodes_ready(context, span, until), dns_available(context, until))?;
        span.waiting("DNS to answer on every node");
        let from_pods = futures::future::try_join_all(hosts.iter().map(|host| dns_answers(context, host.clone(), until)))
            .await?
            .into_iter()
            .filter(|p| *p)
            .count();
        Ok(format!("{} nodes, DNS answers ({from_pods} from pods)", hosts.len()))
    };
    let looks: Vec<Look<'_>> = hosts.iter().map(|host| look(host)).collect();
    let hopeless = futures::future::select_all(looks.iter().map(|look| Box::pin(look.hopeless())));
    tokio::select! {
        biased;
        outcome = gate => outcome,
        (diagnosis, _, _) = hopeless => {
            let what = format!("{} is not well", diagnosis.machine);
            Err(diagnosis.explain(Error::new(what)))
        },
    }
}

/// At everything that kup runs on a machine.
fn look(host: &Host) -> Look<'_> {
    let mut units = NODE_UNITS.to_vec();
    if host.machine.role == Role::Master {
        units.extend(MASTER_UNITS);
    }
    Look::at(host, &units).with_api()
}

fn remaining(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn nodes_ready(context: &Context, span: &Span, until: Instant) -> Result<()> {
    let hosts = context.node_hosts();
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
            let error = Error::new(format!("{} is not Ready", host.machine.name)).why(why);
            return Err(look(host).explain(error).await.hint("`kup status` shows every part"));
        }
    }
}

async fn dns_available(context: &Context, until: Instant) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(context.api().await?.client(), "kube-system");
    let mut last = String::new();
    // When the pods are looked at next, and since when one of them has had no image.
    let mut pods_at = Instant::now() + PODS;
    let mut imageless: Option<Instant> = None;
    loop {
        let deployment = match tokio::time::timeout(REQUEST, api.get("coredns")).await {
            Ok(Ok(deployment)) => deployment,
            // A server that restarts answers again in a moment.
            other if Instant::now() < until => {
                last = other.map_or_else(|_| "no answer".to_owned(), |o| o.err().map(|e| e.to_string()).unwrap_or_default());
                tokio::time::sleep(POLL).await;
                continue;
            }
            _ => return Err(Error::new("cannot look at the Deployment of CoreDNS").why(last)),
        };
        let status = deployment.status.unwrap_or_default();
        let wanted = deployment.spec.replicas.unwrap_or(1);
        // `ready_replicas` counts pods of an older version too: none of those may be left.
        let settled = status.observed_generation == deployment.metadata.generation
            && status.updated_replicas == Some(wanted)
            && status.replicas == Some(wanted);
        if settled && status.ready_replicas.unwrap_or(0) >= wanted {
            return Ok(());
        }
        if Instant::now() >= pods_at {
            pods_at = Instant::now() + PODS;
            let found = imageless_pod(context).await?;
            imageless = found.as_ref().map(|_| imageless.unwrap_or_else(Instant::now));
            if let (Some((machine, cause)), Some(since)) = (found, imageless)
                && since.elapsed() >= NO_IMAGE
            {
                return Err(no_image(&machine, &cause));
            }
        }
        if Instant::now() >= until {
            if let Some((machine, cause)) = imageless_pod(context).await? {
                return Err(no_image(&machine, &cause));
            }
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

fn no_image(machine: &str, cause: &Cause) -> Error {
    Error::new(format!("CoreDNS can't run on {machine}")).why(cause.sentence(machine)).hint(cause.hint(machine))
}

/// The machine on which a pod of DNS has no image, and what is said of it. An API that does not answer says nothing.
async fn imageless_pod(context: &Context) -> Result<Option<(String, Cause)>> {
    let api: Api<Pod> = Api::namespaced(context.api().await?.client(), "kube-system");
    let pods = ListParams::default().labels("k8s-app=kube-dns");
    Ok(match tokio::time::timeout(REQUEST, api.list(&pods)).await {
        Ok(Ok(pods)) => cause::pod(&pods.items),
        _ => None,
    })
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
            return Err(look(&host).explain(error).await.hint("`kup status` shows every part"));
        }
        tokio::time::sleep(POLL).await;
    }
}
