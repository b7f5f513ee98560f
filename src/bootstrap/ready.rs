//! The ready gate, the one place that says a cluster is ready: every expected node is Ready, DNS is up, every node gets the right
//! answer from it, out of a pod's own network where the node has a pod, a few times in a row, and every add-on says that it is ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use super::api::{Nodes, REQUEST, node_ready};
use super::diagnose::{Cause, Look, cause};
use super::{After, Context, Host, On, Run, Step};
use crate::addons::{self, Addon};
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::machine::dns_query::Query;
use crate::machine::files::aws::{CLOUD_CONTROLLER, NODE_APPROVER};
use crate::report::Span;

/// How long everything together may take after the last unit has started. Nodes, pods and DNS take seconds; this is for the slow.
const DEADLINE: Duration = Duration::from_secs(180);
/// Good DNS answers in a row, on every node.
const IN_A_ROW: u32 = 3;
/// Pause between looks at what can't be watched.
const POLL: Duration = Duration::from_millis(100);
/// How often the system's pods are looked at while not all of them are ready.
const PODS: Duration = Duration::from_secs(3);
/// How long a pod must have been without its image to end the wait: a pull is tried again after 10 s, and may then go well.
const NO_IMAGE: Duration = Duration::from_secs(15);
/// What every node runs.
const NODE_UNITS: &[&str] = &["containerd.service", "kubelet.service", "flanneld.service", "kube-proxy.service"];
/// What masters run beside that.
const MASTER_UNITS: &[&str] =
    &["etcd.service", "kube-apiserver.service", "kube-controller-manager.service", "kube-scheduler.service"];

/// The gate as a step.
pub const STEP: Step = Step {
    name: "ready",
    title: "all ready",
    on: On::Cluster,
    only: None,
    after: &[After::All("network"), After::All("proxy"), After::All("minions"), After::All("addons"), After::All("balancer")],
    run: Run::Cluster(|context, span| Box::pin(run(context, span))),
};

/// The gate once more, for whoever changes a cluster that stands.
///
/// # Errors
/// As the step's.
pub async fn again(context: &Context, title: &str) -> Result<()> {
    let span = context.report.step(title);
    match run(context, &span).await {
        Ok(word) => {
            span.done_with(word);
            Ok(())
        }
        Err(error) => span.close(Err(error.within(format!("the step `{}` failed", STEP.name)))),
    }
}

async fn run(context: &Context, span: &Span) -> Result<String> {
    let until = Instant::now() + context.deadline(DEADLINE);
    let waits = Waits { span, said: Mutex::default() };
    let hosts = context.node_hosts();
    let looks: Vec<Look<'_>> = hosts.iter().map(|host| look(host)).collect();
    let hopeless = futures::future::select_all(looks.iter().map(|look| Box::pin(look.hopeless())));
    let outcome = tokio::select! {
        biased;
        outcome = gate(context, &waits, until) => outcome,
        (diagnosis, _, _) = hopeless => {
            let what = format!("{} is not well", diagnosis.machine);
            return Err(diagnosis.explain(Error::new(what)));
        },
        error = imageless(context) => return Err(error),
    };
    match outcome {
        Ok(word) => Ok(word),
        // Whatever was waited for: a pod without its image is the cause, if there is one.
        Err(error) => Err(imageless_pod(context).await.map_or(error, |(machine, cause)| no_image(&machine, &cause))),
    }
}

async fn gate(context: &Context, waits: &Waits<'_>, until: Instant) -> Result<String> {
    let chosen = addons::chosen(&context.cluster, &context.images.all).present;
    let (dns, others): (Vec<&Addon>, Vec<&Addon>) = chosen.into_iter().partition(|a| a.required);
    // Nobody who waits for DNS waits for the others too.
    let ((hosts, from_pods), ()) =
        tokio::try_join!(nodes_and_dns(context, waits, until, &dns), addons_ready(context, waits, until, &others))?;
    // Of machines that set themselves up all that is known is their Nodes, which the step before has waited for.
    let nodes = context.nodes().await?.borrow().values().filter(|node| node_ready(node).is_ok()).count();
    let others: Vec<&str> = others.iter().map(|addon| addon.name).collect();
    Ok(words(nodes, hosts, from_pods, &others))
}

/// `5 nodes, DNS answers (2 from pods), local-storage`
fn words(nodes: usize, asked: usize, from_pods: usize, addons: &[&str]) -> String {
    let word = if nodes == 1 { "node" } else { "nodes" };
    let place = if asked == nodes { String::new() } else { format!(" on {asked}") };
    let how = match from_pods {
        0 => String::new(),
        all if all == asked => " from pods".to_owned(),
        some => format!(" ({some} from pods)"),
    };
    let addons: String = addons.iter().map(|addon| format!(", {addon}")).collect();
    format!("{nodes} {word}, DNS answers{place}{how}{addons}")
}

/// Waits for every node, then for good answers on all of them. Says how many nodes there are, and how many were asked out of a pod.
async fn nodes_and_dns(context: &Context, waits: &Waits<'_>, until: Instant, dns: &[&Addon]) -> Result<(usize, usize)> {
    let nodes = async { nodes_ready(context, waits, until).await.inspect(|()| waits.say("nodes", None)) };
    tokio::try_join!(nodes, addons_ready(context, waits, until, dns))?;
    let hosts = context.node_hosts();
    let asked = hosts.iter().map(|host| {
        let name = host.machine.name.as_str();
        waits.say(name, Some(format!("DNS to answer on {name}")));
        async { dns_answers(context, host.clone(), waits, until).await.inspect(|_| waits.say(name, None)) }
    });
    let from_pods = futures::future::try_join_all(asked).await?.into_iter().filter(|p| *p).count();
    Ok((hosts.len(), from_pods))
}

async fn addons_ready(context: &Context, waits: &Waits<'_>, until: Instant, addons: &[&Addon]) -> Result<()> {
    let api = context.api().await?;
    let all = addons.iter().map(|addon| {
        // Nodes come first, by their key, since add-ons wait for them.
        let key = format!("then {}", addon.name);
        async move {
            let seen = |what| waits.say(&key, Some(what));
            addons::ready::wait(api, addon, until, seen).await.inspect(|()| waits.say(&key, None))
        }
    });
    futures::future::try_join_all(all).await.map(drop)
}

/// At everything that kup runs on a machine.
fn look(host: &Host) -> Look<'_> {
    let mut units = NODE_UNITS.to_vec();
    if host.machine.role == Role::Master {
        units.extend(MASTER_UNITS);
        if host.machine.cloud.is_some() {
            units.extend([CLOUD_CONTROLLER, NODE_APPROVER]);
        }
    }
    Look::at(host, &units).with_api()
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
        let on = format!("{} to be Ready ({} of {} are not; last: {why})", host.machine.name, waiting_for.len(), hosts.len());
        waits.say("nodes", Some(on));
        if !matches!(tokio::time::timeout(remaining(until), nodes.changed()).await, Ok(Ok(()))) {
            let error = Error::new(format!("{} is not Ready", host.machine.name)).why(why);
            return Err(look(host).explain(error).await.hint("`kup status` shows every part"));
        }
    }
}

/// Ends when a pod of the system has been without its image for so long that no further try will get it.
async fn imageless(context: &Context) -> Error {
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(PODS).await;
        let found = imageless_pod(context).await;
        since = found.as_ref().map(|_| since.unwrap_or_else(Instant::now));
        if let (Some((machine, cause)), Some(since)) = (found, since)
            && since.elapsed() >= NO_IMAGE
        {
            return no_image(&machine, &cause);
        }
    }
}

fn no_image(machine: &str, cause: &Cause) -> Error {
    Error::new(format!("a pod of the system can't run on {machine}")).why(cause.sentence(machine)).hint(cause.hint(machine))
}

/// The machine on which a pod of the system has no image, and what is said of it. An API that does not answer says nothing.
async fn imageless_pod(context: &Context) -> Option<(String, Cause)> {
    let api: Api<Pod> = Api::namespaced(context.api().await.ok()?.client(), "kube-system");
    match tokio::time::timeout(REQUEST, api.list(&ListParams::default())).await {
        Ok(Ok(pods)) => cause::pod(&pods.items),
        _ => None,
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
            return Err(look(&host).explain(error).await.hint("`kup status` shows every part"));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_are_counted_and_one_is_a_node() {
        assert_eq!(words(1, 1, 1, &[]), "1 node, DNS answers from pods");
        assert_eq!(words(5, 1, 0, &["ebs", "metrics"]), "5 nodes, DNS answers on 1, ebs, metrics");
        assert_eq!(words(5, 5, 2, &[]), "5 nodes, DNS answers (2 from pods)");
    }
}
