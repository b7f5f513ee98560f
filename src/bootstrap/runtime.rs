//! Host settings and the container runtime.

use super::{After, On, Run, Step, units};
use crate::cluster::spec::ProviderKind;

/// What every node runs before its kubelet, in order.
const UNITS: [&str; 4] = ["systemd-journald.service", "kup-host.service", "kup-hosts.service", "containerd.service"];
/// And what a machine runs then whose image does not hold the system's own images.
const IMAGES: &str = "kup-images.service";

pub(super) const STEP: Step = Step {
    name: "runtime",
    title: "container runtime",
    on: On::Nodes,
    only: None,
    after: &[After::Same("files"), After::Same("bundle")],
    run: Run::Machine(|context, host, span| {
        span.waiting("containerd to start");
        Box::pin(async move {
            let images = (context.cluster.provider == ProviderKind::Aws).then_some(IMAGES);
            let units: Vec<&str> = UNITS.into_iter().chain(images).collect();
            units::start(context, host, &units).await
        })
    }),
};
