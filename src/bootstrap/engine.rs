//! Runs steps on machines, each as soon as what it needs is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::context::{Context, Host};
use crate::cluster::spec::ProviderKind;
use crate::error::{Error, Result};
use crate::machine::{Machine, Role, topology};
use crate::report::event::SpanId;
use crate::report::{Report, Span};

/// One stage of turning machines into a cluster.
pub struct Step {
    /// The word for `--until` and messages.
    pub name: &'static str,
    /// What people read while it runs.
    pub title: &'static str,
    /// Where it runs.
    pub on: On,
    /// The only provider it is for; none for all.
    pub only: Option<ProviderKind>,
    /// What must be done before.
    pub after: &'static [After],
    /// The work.
    pub run: Run,
}

impl Step {
    /// Whether it runs for clusters of this provider.
    pub fn is_for(&self, provider: ProviderKind) -> bool {
        self.only.is_none_or(|only| only == provider)
    }
}

/// Where a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// On every machine.
    Machines,
    /// On every machine that is a node: masters and minions.
    Nodes,
    /// On every master.
    Masters,
    /// On the machine in front of several masters, if there is one.
    Balancers,
    /// Once, through the API.
    Cluster,
}

impl On {
    /// Whether such a step runs on a machine of this role.
    pub const fn includes(self, role: Role) -> bool {
        match self {
            On::Machines => true,
            On::Nodes => role.is_node(),
            On::Masters => matches!(role, Role::Master),
            On::Balancers => matches!(role, Role::Balancer),
            On::Cluster => false,
        }
    }
}

/// Something that must be done before a step may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// That step on the same machine.
    Same(&'static str),
    /// That step wherever it runs.
    All(&'static str),
}

impl After {
    /// The step it waits for.
    pub const fn step(self) -> &'static str {
        match self {
            After::Same(step) | After::All(step) => step,
        }
    }
}

/// A step's work. Returns a word about what came of it. Doing it twice must change nothing the second time.
#[derive(Clone, Copy)]
pub enum Run {
    /// On one machine.
    Machine(for<'a> fn(&'a Context, &'a Host, &'a Span) -> BoxFuture<'a, Result<String>>),
    /// Once.
    Cluster(for<'a> fn(&'a Context, &'a Span) -> BoxFuture<'a, Result<String>>),
}

/// A step's end on a machine.
struct Ended {
    machine: String,
    /// How many ends there were before, of any step.
    order: usize,
    span: SpanId,
}

/// Which steps are done on which machines.
struct Board {
    done: watch::Sender<HashMap<&'static str, Vec<Ended>>>,
    /// The role of every machine that must come.
    expected: Vec<Role>,
}

impl Board {
    fn expected(&self, on: On) -> usize {
        match on {
            On::Cluster => 1,
            _ => self.expected.iter().filter(|role| on.includes(**role)).count(),
        }
    }

    /// Waits until all of `after` is done. Returns the span whose end was the last that was needed.
    async fn wait(&self, steps: &[&Step], after: &[After], machine: &str) -> Option<SpanId> {
        let mut seen = self.done.subscribe();
        // The sender lives as long as the board: waiting can't fail.
        let done = seen
            .wait_for(|done| {
                after.iter().all(|need| {
                    let Some(step) = steps.iter().find(|s| s.name == need.step()) else { return true };
                    let ended = done.get(step.name).map(Vec::as_slice).unwrap_or_default();
                    match need {
                        After::Same(_) => ended.iter().any(|e| e.machine == machine),
                        After::All(_) => ended.len() >= self.expected(step.on),
                    }
                })
            })
            .await
            .ok()?;
        let needed = after.iter().filter_map(|need| {
            let ended = done.get(need.step())?;
            match need {
                After::Same(_) => ended.iter().find(|e| e.machine == machine),
                After::All(_) => ended.last(),
            }
        });
        needed.max_by_key(|e| e.order).map(|e| e.span)
    }

    fn mark(&self, step: &'static str, machine: &str, span: SpanId) {
        self.done.send_modify(|done| {
            let order = done.values().map(Vec::len).sum();
            done.entry(step).or_default().push(Ended { machine: machine.to_owned(), order, span });
        });
    }
}

/// The spans of steps: opened when the first machine starts, closed when the last one is done.
struct Spans<'a> {
    report: &'a Report,
    /// With how many machines have begun and ended.
    open: Mutex<BTreeMap<&'static str, (Span, usize, usize)>>,
}

impl Spans<'_> {
    fn begin(&self, step: &Step, machine: Option<&str>, released_by: Option<SpanId>) -> Span {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (span, begun, _) = open.entry(step.name).or_insert_with(|| (self.report.step(step.title), 0, 0));
        *begun += 1;
        span.child_after(machine.unwrap_or("cluster"), released_by)
    }

    fn end(&self, step: &Step, expected: usize, error: Option<&Error>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((span, begun, ended)) = open.get_mut(step.name) else { return };
        *ended += 1;
        if error.is_none() && *ended < expected {
            if begun == ended {
                let left = expected - *ended;
                span.waiting(format!("{left} more machine{}", if left == 1 { "" } else { "s" }));
            }
            return;
        }
        if let Some((span, ..)) = open.remove(step.name) {
            match error {
                Some(error) => span.fail(error),
                None => span.done(),
            }
        }
    }
}

/// Runs `steps` on the machines that come through `machines`, until all is done or the first failure.
///
/// As many machines must come as the cluster's config asks for; the channel's end before that is the provider's failure, which its
/// own future reports.
pub async fn run(context: &Context, steps: &[Step], mut machines: mpsc::UnboundedReceiver<Machine>) -> Result<()> {
    let for_us = |step: &&Step| step.is_for(context.cluster.provider);
    let steps: Vec<&Step> = steps.iter().filter(for_us).collect();
    let steps = steps.as_slice();
    let board =
        Board { done: watch::Sender::default(), expected: topology::wanted(&context.cluster).map(|(role, _)| role).collect() };
    let spans = Spans { report: &context.report, open: Mutex::default() };
    let mut cells = FuturesUnordered::new();
    for step in steps.iter().filter(|s| s.on == On::Cluster) {
        cells.push(cell(context, steps, step, None, &board, &spans));
    }
    let mut open = true;
    loop {
        tokio::select! {
            machine = machines.recv(), if open => match machine {
                Some(machine) => {
                    let host = context.add(machine);
                    for step in steps {
                        if step.on.includes(host.machine.role) {
                            cells.push(cell(context, steps, step, Some(host.clone()), &board, &spans));
                        }
                    }
                }
                None => open = false,
            },
            Some(outcome) = cells.next() => outcome?,
            else => return Ok(()),
        }
    }
}

/// One step on one machine.
fn cell<'a>(
    context: &'a Context,
    steps: &'a [&'a Step],
    step: &'a Step,
    host: Option<std::sync::Arc<Host>>,
    board: &'a Board,
    spans: &'a Spans<'a>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let name = host.as_ref().map(|h| h.machine.name.clone());
        let released_by = board.wait(steps, step.after, name.as_deref().unwrap_or_default()).await;
        let span = spans.begin(step, name.as_deref(), released_by);
        let id = span.id();
        let outcome = match (step.run, &host) {
            (Run::Machine(work), Some(host)) => work(context, host, &span).await,
            (Run::Cluster(work), _) => work(context, &span).await,
            (Run::Machine(_), None) => Err(Error::new(format!("the step {} has no machine to run on", step.name))),
        };
        match outcome {
            Ok(word) => {
                span.done_with(word);
                spans.end(step, board.expected(step.on), None);
                board.mark(step.name, name.as_deref().unwrap_or_default(), id);
                Ok(())
            }
            Err(error) => {
                span.fail(&error);
                spans.end(step, board.expected(step.on), Some(&error));
                let place = name.map(|n| format!(" on {n}")).unwrap_or_default();
                Err(error.within(format!("the step `{}` failed{place}", step.name)))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn step(name: &'static str) -> Step {
        let run = Run::Machine(|_, _, _| Box::pin(async { Ok(String::new()) }));
        Step { name, title: name, on: On::Machines, only: None, after: &[], run }
    }

    #[tokio::test]
    async fn the_last_need_that_came_true_is_what_released_a_step() {
        let board = Board { done: watch::Sender::default(), expected: vec![Role::Master, Role::Minion] };
        let steps = [step("a"), step("b")];
        let steps: Vec<&Step> = steps.iter().collect();
        let wait = |after: &'static [After]| board.wait(&steps, after, "m1");
        let both: &'static [After] = &[After::All("b"), After::Same("a")];
        board.mark("b", "m1", 11);
        board.mark("a", "m1", 12);
        board.mark("a", "m2", 13);
        assert!(tokio::time::timeout(Duration::from_millis(5), wait(both)).await.is_err(), "b is not done everywhere");
        board.mark("b", "m2", 14);
        assert_eq!(wait(both).await, Some(14));
        assert_eq!(wait(&[After::Same("a")]).await, Some(12));
        assert_eq!(wait(&[After::Same("b"), After::All("a")]).await, Some(13));
        assert_eq!(wait(&[]).await, None);
    }
}
