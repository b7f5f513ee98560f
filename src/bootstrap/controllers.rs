//! Controller manager and scheduler, once their own API server answers: started earlier they would back off. And the timer of etcd's
//! snapshots, for which there is something to keep from now on.

use super::{After, On, Run, Step, units};

const UNITS: &[&str] = &["kube-controller-manager.service", "kube-scheduler.service", "kup-etcd-backup.timer"];

pub(super) const STEP: Step = Step {
    name: "controllers",
    title: "controllers, scheduler",
    on: On::Masters,
    only: None,
    after: &[After::Same("api")],
    run: Run::Machine(|context, host, span| {
        span.waiting("the units to start");
        Box::pin(units::start(context, host, UNITS))
    }),
};
