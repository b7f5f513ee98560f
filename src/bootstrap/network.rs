//! Routes between the nodes' pods: flannel, as soon as the controller manager has given the Node its range.

use std::time::Duration;

use ipnet::Ipv4Net;

use super::api::Nodes;
use super::diagnose::Look;
use super::{After, Context, Host, On, Run, Step, units};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::report::Span;
use crate::templates;

/// How long the controller manager may take to give a Node its range.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) const STEP: Step = Step {
    name: "network",
    title: "pod network",
    on: On::Nodes,
    only: None,
    after: &[After::Same("kubelet"), After::All("access"), After::All("controllers")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    let name = host.machine.name.as_str();
    span.waiting("the Node's pod range");
    let mut nodes = context.nodes().await?;
    let given = nodes.wait_for(|nodes| nodes.get(name).and_then(|n| n.spec.as_ref()).is_some_and(|s| s.pod_cidr.is_some()));
    let (deadline, masters) = (context.deadline(DEADLINE), context.masters());
    let given = async { matches!(tokio::time::timeout(deadline, given).await, Ok(Ok(_))) };
    let looks: Vec<Look<'_>> = masters.iter().map(|m| Look::at(m, &["kube-controller-manager.service"])).collect();
    // Of several masters any one's controller manager will do: only the last one's trouble ends the wait early.
    let hopeless = futures::future::join_all(looks.iter().map(Look::hopeless));
    tokio::select! {
        given = given => if !given {
            let mut error = Error::new(format!("the Node {name} was given no pod range within {} s", deadline.as_secs()));
            for look in &looks {
                error = look.explain(error).await;
            }
            return Err(error);
        },
        all = hopeless => {
            let error = Error::new(format!("the Node {name} is given no pod range"));
            return Err(all.into_iter().fold(error, |error, diagnosis| diagnosis.explain(error)));
        }
    }
    span.waiting("flannel to set its routes");
    let range = nodes.borrow().get(name).and_then(|n| n.spec.as_ref()?.pod_cidr.clone()).unwrap_or_default();
    // The API's words, but a machine is no place for what isn't a range.
    let range: Ipv4Net =
        range.parse().map_err(|_| Error::new(format!("the Node {name} was given `{range}`, which is no IPv4 range for pods")))?;
    let before =
        format!("RANGE={range}\nPEERS='{}'\n{}", peers(context, name, &nodes.borrow()), templates::text("node/range.sh")?);
    units::start_after(context, host, &before, &["flanneld.service"]).await
}

/// Every other node's address and the range of its pods, `-` if the API knows none, as `address range` lines.
fn peers(context: &Context, name: &str, nodes: &Nodes) -> String {
    let range = |peer: &str| -> Option<Ipv4Net> { nodes.get(peer)?.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok() };
    let line = |machine: &Machine| {
        let range = range(&machine.name).map_or_else(|| "-".to_owned(), |range| range.to_string());
        format!("{} {range}", machine.address)
    };
    let others = context.node_hosts().into_iter().filter(|host| host.machine.name != name);
    others.map(|host| line(&host.machine)).collect::<Vec<_>>().join("\n")
}
