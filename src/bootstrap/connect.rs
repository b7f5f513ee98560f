//! Logging in to a machine and finding out what it is like.

use std::time::Duration;

use super::{Context, Host, On, Run, Step, volume};
use crate::error::{Error, Result};
use crate::machine::facts::Facts;
use crate::machine::ssh::Ssh;
use crate::report::Span;

/// How long a machine that runs may take until it lets kup in.
const DEADLINE: Duration = Duration::from_secs(90);

/// How long loading a module may take.
const MODULE: Duration = Duration::from_secs(20);

pub(super) const STEP: Step = Step {
    name: "connect",
    title: "connections",
    on: On::Machines,
    only: None,
    after: &[],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    let address = host.machine.route();
    span.waiting(format!("SSH at {address}"));
    let seen = |last: &str| span.waiting(format!("SSH at {address} (last: {last})"));
    let called = host.machine.cloud.as_ref().map_or(&host.machine.name, |cloud| &cloud.resource);
    let anew = || format!("`kup up --replace {called}` makes that machine anew");
    let deadline = context.deadline(DEADLINE);
    let ssh = Ssh::connect_telling(&host.machine, &context.login, deadline, seen).await.map_err(|e| e.hint(anew()))?;
    span.waiting("the volume for etcd's data");
    volume::mount(&ssh, &host.machine).await?;
    if host.machine.cloud.is_some() {
        // A stock image has not loaded it yet, and the facts ask for it. Whether it is there then is their business.
        ssh.exec("modprobe -q br_netfilter", "", MODULE).await?;
    }
    span.waiting("what the machine is like");
    let facts = Facts::of(&ssh).await?;
    let wanted = context.bundle.manifest.arch.machine();
    if facts.arch != wanted {
        return Err(Error::new(format!("{} is {}, but the bundle is for {wanted}", host.machine.name, facts.arch))
            .hint("kup bundle build --arch makes a bundle for another architecture"));
    }
    if !facts.bridge_nf && host.machine.role.is_node() {
        return Err(Error::new(format!("the kernel of {} can't filter bridged packets, which Services need", host.machine.name))
            .hint("load its module: modprobe br_netfilter"));
    }
    let word = format!("{} CPUs, {} MiB", facts.cpus, facts.memory_mib);
    context.connected(host, ssh, facts);
    Ok(word)
}
