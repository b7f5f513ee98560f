//! Getting the bundle's files onto machines that don't mount them.

use super::{After, Context, Host, On, Run, Step, diagnose};
use crate::error::{Error, Result};
use crate::machine::{BundleAccess, transfer};
use crate::report::Span;

pub(super) const STEP: Step = Step {
    name: "bundle",
    title: "bundle",
    on: On::Nodes,
    only: None,
    after: &[After::Same("connect")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    let access = host.machine.bundle;
    if access == BundleAccess::Mounted {
        return Ok("mounted".into());
    }
    let (ssh, role) = (host.ssh()?, host.machine.role);
    let outcome = match (access, &context.source) {
        (BundleAccess::Fetched, Some(source)) => transfer::fetch(ssh, &context.bundle, role, source, span).await,
        (BundleAccess::Fetched, None) => {
            return Err(Error::new(format!("{} was not told which bucket has the bundle", host.machine.name))
                .why("this is a mistake in kup"));
        }
        (BundleAccess::Sent | BundleAccess::Mounted, _) => transfer::send(ssh, &context.bundle, role, span).await,
    };
    match outcome {
        Ok(word) => Ok(word),
        Err(e) => Err(diagnose::of_command(e, ssh).await),
    }
}
