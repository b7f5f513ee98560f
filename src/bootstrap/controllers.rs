//! Controller manager and scheduler, once their own API server answers: started earlier they would back off.

use super::{After, On, Run, Step, units};

pub(super) const STEP: Step = Step {
    name: "controllers",
    title: "controllers, scheduler",
    on: On::Masters,
    only: None,
    after: &[After::Same("api")],
    run: Run::Machine(|context, host, span| {
        span.waiting("both units to start");
        Box::pin(units::start(context, host, &["kube-controller-manager.service", "kube-scheduler.service"]))
    }),
};
