//! Placing a machine's files: certificates, configuration, units.

use super::{After, Context, Host, On, Run, Step, diagnose};
use crate::error::Result;
use crate::machine::files::{Cloud, Credentials, Node, render};
use crate::machine::place::place;
use crate::machine::topology::Peer;
use crate::report::Span;

pub(super) const STEP: Step = Step {
    name: "files",
    title: "files",
    on: On::Machines,
    only: None,
    after: &[After::Same("connect")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    span.waiting("all masters to be known");
    let topology = context.topology().await;
    let me = Peer::from(&host.machine);
    let credentials = Credentials::of(&context.pki, &context.cluster, &topology, &me, host.machine.role)?;
    let cloud = host.machine.cloud.as_ref().map(Cloud::from);
    let node = Node {
        cluster: &context.cluster,
        topology: &topology,
        me: &me,
        role: host.machine.role,
        facts: host.facts()?,
        images: &context.images,
        cloud: cloud.as_ref(),
        backups: &context.backups,
    };
    let files = render(&node, &credentials)?;
    span.waiting("the machine to write them");
    let ssh = host.ssh()?;
    let changed = match place(ssh, &files).await {
        Ok(changed) => changed,
        Err(e) => return Err(diagnose::of_command(e, ssh).await),
    };
    if changed.is_empty() {
        return Ok("unchanged".into());
    }
    host.mark_changed();
    Ok(format!("{} of {} changed", changed.len(), files.len()))
}
