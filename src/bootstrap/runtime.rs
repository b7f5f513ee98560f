//! Host settings and the container runtime.

use super::{After, On, Run, Step, units};

pub(super) const STEP: Step = Step {
    name: "runtime",
    title: "container runtime",
    on: On::Nodes,
    only: None,
    after: &[After::Same("files"), After::Same("bundle")],
    run: Run::Machine(|context, host, span| {
        span.waiting("containerd to start");
        Box::pin(units::start(
            context,
            host,
            &["systemd-journald.service", "kup-host.service", "kup-hosts.service", "containerd.service"],
        ))
    }),
};
