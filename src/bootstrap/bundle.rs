//! Getting the bundle's files onto machines that don't mount them.

use super::{After, Context, Host, On, Run, Step, diagnose};
use crate::error::Result;
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
    match host.machine.bundle {
        BundleAccess::Mounted => Ok("mounted".into()),
        access => {
            let (ssh, role) = (host.ssh()?, host.machine.role);
            let outcome = match &context.source {
                Some(source) if access == BundleAccess::Fetched => {
                    transfer::fetch(ssh, &context.bundle, role, source, span).await
                }
                _ => transfer::send(ssh, &context.bundle, role, span).await,
            };
            match outcome {
                Ok(word) => Ok(word),
                Err(e) => Err(diagnose::of_command(e, ssh).await),
            }
        }
    }
}
