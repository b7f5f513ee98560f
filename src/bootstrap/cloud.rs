//! What runs on masters on AWS only: the cloud controller, and who approves the certificates of minions.

use super::{After, On, Run, Step, units};
use crate::cluster::spec::ProviderKind;
use crate::machine::files::aws::{CLOUD_CONTROLLER, NODE_APPROVER};

pub(super) const STEP: Step = Step {
    name: "cloud",
    title: "cloud controller",
    on: On::Masters,
    only: Some(ProviderKind::Aws),
    // Without their access rules both would back off.
    after: &[After::Same("api"), After::All("access")],
    run: Run::Machine(|context, host, span| {
        span.waiting("both units to start");
        Box::pin(units::start(context, host, &[CLOUD_CONTROLLER, NODE_APPROVER]))
    }),
};
