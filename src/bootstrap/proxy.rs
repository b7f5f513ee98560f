//! kube-proxy: the Services' addresses on every node.

use super::{After, On, Run, Step, units};

pub(super) const STEP: Step = Step {
    name: "proxy",
    title: "service proxy",
    on: On::Nodes,
    only: None,
    // It reads its own Node first, so the Node should be there.
    after: &[After::Same("kubelet"), After::All("access")],
    run: Run::Machine(|context, host, span| {
        span.waiting("kube-proxy to start");
        Box::pin(units::start(context, host, &["kube-proxy.service"]))
    }),
};
