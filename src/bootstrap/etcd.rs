//! etcd on every master. All members start at once: a member is ready when a majority of them is.

use super::{After, On, Run, Step, units};

pub(super) const STEP: Step = Step {
    name: "etcd",
    title: "etcd",
    on: On::Masters,
    after: &[After::Same("files"), After::Same("bundle")],
    run: Run::Machine(|_, host, span| {
        span.waiting("etcd to have a leader");
        Box::pin(units::start(host, &["etcd.service"]))
    }),
};
