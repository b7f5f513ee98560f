//! Minions that set themselves up: they are waited for through the API, and asked on their consoles why they don't come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::api::{Nodes, node_ready};
use super::kubelet::label_node;
use super::{After, Context, On, Run, Step};
use crate::cluster::spec::ProviderKind;
use crate::error::{Error, Result};
use crate::machine::Role;
use crate::report::Span;

/// How long they may take after the API answers. An instance boots in half a minute as a rule, and one that is replaced needs that twice.
const DEADLINE: Duration = Duration::from_secs(600);
/// How often whoever makes them is asked who they are: one call each time, whatever their number.
const ASK: Duration = Duration::from_secs(2);
/// When a machine that has not joined is asked for its last words for the first time, and how often from then on.
const WORDS: Duration = Duration::from_secs(20);
/// How the node script begins its lines on the console, and what follows when it gives up.
const SAYS: &str = "kup: ";
const GAVE_UP: &str = "gave up";
/// How many machines are asked in one go: whichever don't come are the last that are waited for, and each is a call.
const ASKED: usize = 4;
/// Lines of a console that an error shows.
const LINES: usize = 12;

/// Who makes minions that set themselves up.
pub trait Minions: Send + Sync {
    /// Those there are now, by their Nodes' names, with what is said of each.
    fn now(&self) -> BoxFuture<'_, Result<BTreeMap<String, String>>>;

    /// What one has written on its console, if it is there to be read yet.
    fn console<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String>>;

    /// What to type about a reason that a machine gave, beside mending it.
    fn remedy(&self, reason: &str) -> Option<String>;
}

pub(super) const STEP: Step = Step {
    name: "minions",
    title: "minions joining",
    on: On::Cluster,
    only: Some(ProviderKind::Aws),
    after: &[After::All("access")],
    run: Run::Cluster(|context, span| Box::pin(run(context, span))),
};

/// Waits until as many minions as are wanted are there, and each of them is Ready; says how many.
///
/// # Errors
/// One that says it can't be; after [`DEADLINE`], who is missing.
pub async fn run(context: &Context, span: &Span) -> Result<String> {
    let Some(source) = &context.minions else { return Ok("none".into()) };
    let wanted = usize::from(context.cluster.minions.count);
    let until = Instant::now() + context.deadline(DEADLINE);
    let mut nodes = context.nodes().await?;
    let mut there = source.now().await?;
    let mut asked = Instant::now();
    // What a machine said before is no news: it tries again every minute, and what it lacked may have come.
    let (mut old, mut says) = (BTreeMap::new(), BTreeMap::new());
    let missing = waiting(&there, &nodes.borrow_and_update());
    for name in missing.into_keys().take(ASKED) {
        old.insert(name.clone(), times_given_up(&source.console(&name).await?));
    }
    let mut words = Instant::now() + WORDS;
    loop {
        let waiting = waiting(&there, &nodes.borrow_and_update());
        if waiting.is_empty() && there.len() >= wanted {
            label(context, &there).await?;
            return Ok(format!("{} Ready", there.len()));
        }
        let (name, why) = match waiting.first_key_value() {
            Some((name, why)) => {
                let why = says.get(name).unwrap_or(why);
                (Some(name.clone()), format!("{name} to be Ready ({why})"))
            }
            None => (None, format!("{} more to be made", wanted.saturating_sub(there.len()))),
        };
        span.waiting(format!("{why}; {} of {wanted} are", there.len().saturating_sub(waiting.len())));
        if Instant::now() >= words {
            for name in waiting.keys().take(ASKED) {
                let console = source.console(name).await?;
                let Some(said) = last_word(&console) else { continue };
                if said.starts_with(GAVE_UP) && times_given_up(&console) > old.get(name).copied().unwrap_or_default() {
                    let error = given_up(name, said, &console);
                    return Err(match source.remedy(said) {
                        Some(remedy) => error.hint(remedy),
                        None => error,
                    });
                }
                says.insert(name.clone(), format!("it says: {said}"));
            }
            words = Instant::now() + WORDS;
        }
        if Instant::now() >= until {
            return Err(late(source.as_ref(), name.as_deref(), &why, context.deadline(DEADLINE)).await);
        }
        // Whichever comes first: news of a Node, or the time to ask who there is.
        let news = tokio::time::timeout(ASK.saturating_sub(asked.elapsed()), nodes.changed()).await;
        if news.is_err() {
            there = source.now().await?;
            asked = Instant::now();
        }
    }
}

/// Who is not Ready, and why.
fn waiting(there: &BTreeMap<String, String>, nodes: &Nodes) -> BTreeMap<String, String> {
    let not_ready = |(name, state): (&String, &String)| match nodes.get(name) {
        Some(node) => node_ready(node).err().map(|why| (name.clone(), why)),
        None => Some((name.clone(), format!("it has not registered; AWS calls it {state}"))),
    };
    there.iter().filter_map(not_ready).collect()
}

/// Kubelets may not give themselves a role.
async fn label(context: &Context, there: &BTreeMap<String, String>) -> Result<()> {
    let nodes = context.nodes().await?.borrow().clone();
    let lacking = there.keys().filter(|name| nodes.get(*name).is_some_and(|node| !super::kubelet::has_label(node, Role::Minion)));
    futures::future::try_join_all(lacking.map(|name| label_node(context, name, Role::Minion))).await.map(drop)
}

/// What the node script said last, if it has said anything yet.
fn last_word(console: &str) -> Option<&str> {
    console.lines().rev().find_map(|line| Some(line.split_once(SAYS)?.1.trim_end()))
}

/// How often a machine has given up so far.
fn times_given_up(console: &str) -> usize {
    console.lines().filter(|line| line.split_once(SAYS).is_some_and(|(_, said)| said.starts_with(GAVE_UP))).count()
}

fn given_up(name: &str, said: &str, console: &str) -> Error {
    Error::new(format!("the minion {name} could not set itself up"))
        .why(format!("it {said}"))
        .why(format!("the end of its console:\n{}", crate::machine::ssh::last_lines(console, LINES)))
        .hint("mend what is named, then `kup up` again: the machine itself tries again every minute")
}

async fn late(source: &dyn Minions, name: Option<&str>, why: &str, limit: Duration) -> Error {
    let error = Error::new(format!("not all minions have joined within {} s", limit.as_secs()))
        .why(format!("the last wait was for {why}"));
    let Some(name) = name else {
        return error.hint(
            "the activities of the Auto Scaling group say why it makes no machine: `aws autoscaling describe-scaling-activities`",
        );
    };
    // What can't be asked is no reason to hide what is known.
    let console = source.console(name).await.unwrap_or_default();
    let error = match console.trim() {
        "" => error.why("its console says nothing yet"),
        said => error.why(format!("the end of its console:\n{}", crate::machine::ssh::last_lines(said, LINES))),
    };
    error.hint("`kup up` goes on waiting; `kup logs` shows what the machines say")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};

    use super::*;

    fn node(ready: &str) -> Node {
        let condition = NodeCondition { type_: "Ready".into(), status: ready.into(), ..NodeCondition::default() };
        Node { status: Some(NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() }), ..Node::default() }
    }

    #[test]
    fn only_ready_nodes_of_machines_that_are_there_count() {
        let there: BTreeMap<String, String> = ["i-1", "i-2", "i-3"].map(|name| (name.to_owned(), "InService".to_owned())).into();
        let nodes: Nodes =
            [("i-1", "True"), ("i-2", "False"), ("i-9", "True")].map(|(name, ready)| (name.to_owned(), node(ready))).into();
        let waiting = waiting(&there, &nodes);
        assert_eq!(waiting.keys().collect::<Vec<_>>(), ["i-2", "i-3"]);
        assert!(waiting["i-3"].contains("InService"));
    }

    #[test]
    fn who_gave_up_is_named_with_its_own_words() {
        let console = "boot\r\n[   12.3] kup: gave up after 180 s: no credentials\r\nlogin:";
        let said = last_word(console).unwrap_or_default();
        assert!(said.starts_with(GAVE_UP), "{said:?}");
        let error = given_up("i-1", said, console);
        assert!(error.to_string().contains("because: it gave up after 180 s: no credentials\n"), "{error}");
    }

    #[test]
    fn what_a_machine_tries_again_is_not_over() {
        let console = "[   12.3] kup: gave up: the Node did not come\nkup: waiting for the Node (last: nothing)\n";
        assert_eq!(last_word(console), Some("waiting for the Node (last: nothing)"));
        assert_eq!(times_given_up(console), 1);
        assert_eq!((last_word("boot\n"), times_given_up("boot\n")), (None, 0));
    }
}
