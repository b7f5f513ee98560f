//! Runs steps on machines, each as soon as what it needs is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::context::{Context, Host};
use crate::error::{Error, Result};
use crate::machine::{Machine, Role, topology};
use crate::report::{Report, Span};

/// One stage of turning machines into a cluster.
pub struct Step {
    /// The word for `--until` and messages.
    pub name: &'static str,
    /// What people read while it runs.
    pub title: &'static str,
    /// Where it runs.
    pub on: On,
    /// What must be done before.
    pub after: &'static [After],
    /// The work.
    pub run: Run,
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

/// Which steps are done on which machines.
struct Board {
    done: watch::Sender<HashMap<&'static str, Vec<String>>>,
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

    async fn wait(&self, steps: &[Step], after: &[After], machine: &str) {
        let mut seen = self.done.subscribe();
        // The sender lives as long as the board: waiting can't fail.
        let _ = seen
            .wait_for(|done| {
                after.iter().all(|need| {
                    let Some(step) = steps.iter().find(|s| s.name == need.step()) else { return true };
                    let ended = done.get(step.name).map(Vec::as_slice).unwrap_or_default();
                    match need {
                        After::Same(_) => ended.iter().any(|m| m == machine),
                        After::All(_) => ended.len() >= self.expected(step.on),
                    }
                })
            })
            .await;
    }

    fn mark(&self, step: &'static str, machine: &str) {
        self.done.send_modify(|done| done.entry(step).or_default().push(machine.to_owned()));
    }
}

/// The spans of steps: opened when the first machine starts, closed when the last one is done.
struct Spans<'a> {
    report: &'a Report,
    open: Mutex<BTreeMap<&'static str, (Span, usize)>>,
}

impl Spans<'_> {
    fn begin(&self, step: &Step, machine: Option<&str>) -> Span {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (span, _) = open.entry(step.name).or_insert_with(|| (self.report.step(step.title), 0));
        match machine {
            Some(machine) => span.child(machine),
            None => span.child("cluster"),
        }
    }

    fn end(&self, step: &Step, expected: usize, error: Option<&Error>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, count)) = open.get_mut(step.name) else { return };
        *count += 1;
        if error.is_none() && *count < expected {
            return;
        }
        if let Some((span, _)) = open.remove(step.name) {
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
    steps: &'a [Step],
    step: &'a Step,
    host: Option<std::sync::Arc<Host>>,
    board: &'a Board,
    spans: &'a Spans<'a>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let name = host.as_ref().map(|h| h.machine.name.clone());
        board.wait(steps, step.after, name.as_deref().unwrap_or_default()).await;
        let span = spans.begin(step, name.as_deref());
        let outcome = match (step.run, &host) {
            (Run::Machine(work), Some(host)) => work(context, host, &span).await,
            (Run::Cluster(work), _) => work(context, &span).await,
            (Run::Machine(_), None) => Err(Error::new(format!("the step {} has no machine to run on", step.name))),
        };
        match outcome {
            Ok(word) => {
                span.done_with(word);
                spans.end(step, board.expected(step.on), None);
                board.mark(step.name, name.as_deref().unwrap_or_default());
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
