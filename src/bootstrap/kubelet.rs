//! kubelets, once the API answers, until each has registered its Node.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};

use super::api::{Nodes, REQUEST};
use super::diagnose::Look;
use super::{After, Context, Host, On, Run, Step, units};
use crate::error::{Context as _, Error, Result};
use crate::machine::Role;
use crate::report::Span;

/// How long a kubelet may take to register.
const DEADLINE: Duration = Duration::from_secs(90);

pub(super) const STEP: Step = Step {
    name: "kubelet",
    title: "nodes joining",
    on: On::Nodes,
    only: None,
    after: &[After::Same("runtime"), After::All("api")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    let name = host.machine.name.as_str();
    let mut nodes = context.nodes().await?;
    let look = Look::at(host, &["kubelet.service", "containerd.service"]).with_api();
    span.waiting("kubelet to start");
    let word = units::start(context, host, &["kubelet.service"]).await?;
    span.waiting("the Node to be registered");
    let deadline = context.deadline(DEADLINE);
    let has_label = |nodes: &Nodes| nodes.get(name).map(|node| has_label(node, host.machine.role));
    let registered = async {
        let registered = tokio::time::timeout(deadline, nodes.wait_for(|nodes| nodes.contains_key(name))).await;
        registered
            .ok()
            .and_then(std::result::Result::ok)
            .and_then(|nodes| has_label(&nodes))
            .ok_or_else(|| Error::new(format!("{name} did not register as a Node within {} s", deadline.as_secs())))
    };
    let labelled = look.work(|| format!("{name} can't register as a Node"), registered).await?;
    if !labelled {
        label_node(context, name, host.machine.role).await?;
    }
    Ok(word)
}

/// What `kubectl get nodes` shows under ROLES. Kubelets may not set these labels themselves (NodeRestriction).
const fn label(role: Role) -> &'static str {
    match role {
        Role::Master => "node-role.kubernetes.io/control-plane",
        Role::Minion | Role::Balancer => "node-role.kubernetes.io/minion",
    }
}

/// Whether a Node has its role's label.
pub(super) fn has_label(node: &Node, role: Role) -> bool {
    node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label(role)))
}

/// Gives a Node its role's label.
pub(super) async fn label_node(context: &Context, name: &str, role: Role) -> Result<()> {
    let api: Api<Node> = Api::all(context.api().await?.client());
    let patch = serde_json::json!({ "metadata": { "labels": { label(role): "" } } });
    let what = || format!("cannot label the Node {name}");
    tokio::time::timeout(REQUEST, api.patch(name, &PatchParams::default(), &Patch::Merge(patch)))
        .await
        .map_err(|_| Error::new(what()).why(format!("the API did not answer within {} s", REQUEST.as_secs())))?
        .with_context(what)?;
    Ok(())
}
