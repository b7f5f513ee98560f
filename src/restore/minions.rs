//! Minions that set themselves up, after a restore: what they run looks at everything anew, since their Nodes, and the others' ranges, may
//! be other ones now, or gone. Each finds a Node of its own that is gone by itself, within a minute; told by kup it does so at once.

use std::collections::BTreeSet;

use super::{Bring, masters};
use crate::machine::ssh::Ssh;
use crate::report::{Report, Span};
use crate::standing::Standing;

/// Logs in to those that are not among `reached` yet, and whose host keys are known. Returns all that were reached.
pub(super) async fn reach(standing: &Standing, reached: Vec<Ssh>) -> Vec<Ssh> {
    let known: BTreeSet<String> = reached.iter().map(|ssh| ssh.machine().name.clone()).collect();
    let more = standing.machines.iter().filter(|found| {
        let machine = &found.machine;
        found.running && machine.sets_itself_up() && !machine.host_key.is_empty() && !known.contains(&machine.name)
    });
    let more = futures::future::join_all(more.map(|found| standing.connect(found))).await;
    reached.into_iter().chain(more.into_iter().flatten()).collect()
}

/// Has all of them begin anew, as far as they can be reached. Others do so by themselves, only later: that fails nothing.
pub(super) async fn wake(cluster: &impl Bring, standing: &Standing, mut reached: Vec<Ssh>, span: &Span, report: &Report) {
    let all = standing.machines.iter().filter(|found| found.running && found.machine.sets_itself_up()).count();
    if all == 0 {
        return;
    }
    span.waiting("minions to begin anew");
    if reached.len() < all {
        // Their Nodes in the snapshot may say the host keys that nobody said while the API was down.
        match cluster.standing().await {
            Ok(standing) => reached = reach(&standing, reached).await,
            Err(error) => report.note(format!("minions could not be looked for again: {}", error.what)),
        }
    }
    let told = futures::future::join_all(reached.iter().map(masters::rejoin)).await;
    let late = all.saturating_sub(told.iter().filter(|outcome| outcome.is_ok()).count());
    if late > 0 {
        report.note(format!("{late} of {all} minions could not be told: they find out by themselves, within a minute"));
    }
}
