//! etcd on every master: formed by all of them at once, or, where a cluster stands already, joined by each that is new to it.
//!
//! A master without data whose address is a member's is a replacement: the dead member is removed, and the new one added as a learner
//! and promoted when it has caught up. A master whose data is of a member that was removed meanwhile is wiped and joins like a new one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::diagnose::Look;
use super::{After, Context, Host, On, Run, Step, units};
use crate::error::{Error, Result};
use crate::machine::facts::EtcdData;
use crate::machine::ssh::{last_lines, quoted};
use crate::machine::topology::Peer;
use crate::provider::ClusterId;
use crate::report::Span;
use crate::templates;

pub mod members;

use members::Members;

/// How long the members that stand may take to agree on a leader, and a new one to catch up. A snapshot of etcd's largest database
/// (8 GiB by its quota) takes minutes on a slow link; one of a usual size takes a second.
const DEADLINE: Duration = Duration::from_secs(300);
/// How long one question may take; etcdctl's own limit is 5 s.
const QUESTION: Duration = Duration::from_secs(15);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(200);

pub(super) const STEP: Step = Step {
    name: "etcd",
    title: "etcd",
    on: On::Masters,
    only: None,
    after: &[After::Same("files"), After::Same("bundle")],
    run: Run::Machine(|context, host, span| Box::pin(run(context, host, span))),
};

async fn run(context: &Context, host: &Host, span: &Span) -> Result<String> {
    span.waiting("all masters to say what data they have");
    let masters = context.connected_masters().await;
    let restoring = masters.iter().find_map(|m| m.facts().ok()?.restoring.clone());
    if let Some(snapshot) = restoring.filter(|_| !context.restoring) {
        let id = ClusterId { provider: context.cluster.provider, name: context.cluster.name.clone() };
        return Err(Error::new(format!("the restore of etcd's snapshot {snapshot} was begun, and has not ended")).hint(format!(
            "`kup etcd restore {snapshot} {}` does it again and finishes it; so does any other snapshot",
            id.flags()
        )));
    }
    let formed = |h: &Host| h.facts().is_ok_and(|facts| facts.etcd == EtcdData::Formed);
    if !masters.iter().any(|m| formed(m)) {
        // Nobody has ever had a leader, so that nothing is lost if a start that was cut short is done anew.
        prepare(host, "new", &context.topology().await.etcd_cluster()).await?;
        span.waiting("a majority of the members to start");
        return units::start(context, host, &["etcd.service"]).await;
    }
    if masters.len() == 1 {
        return go_on(context, host).await;
    }
    let others: Vec<Arc<Host>> = masters.iter().filter(|m| m.machine.name != host.machine.name && formed(m)).cloned().collect();
    join(context, host, &others, span).await
}

/// Starts a member of a cluster that stands, making it one first if it isn't.
async fn join(context: &Context, host: &Host, others: &[Arc<Host>], span: &Span) -> Result<String> {
    let me = Peer::from(&host.machine);
    let has_data = host.facts()?.etcd != EtcdData::None;
    // One that has data is most likely a member, and its start may be what makes a majority.
    let started = if has_data { Some(go_on(context, host).await) } else { None };
    if others.is_empty() {
        // It alone holds the data; the new ones join it.
        return started.unwrap_or_else(|| Ok("alone".into()));
    }
    let _turn = context.members().await;
    span.waiting("the other members to agree on a leader");
    let (members, teller) = ask(context, others).await?;
    let mine = members.by_peer(&me);
    if mine.is_none() || started.is_none() {
        context.back_up().await;
    }
    match (mine, started) {
        (Some(member), Some(Ok(word))) if !member.is_learner => return Ok(word),
        (Some(member), Some(Ok(_))) => return promote(context, host, &teller, member.id, span).await,
        (Some(_), Some(Err(error))) => return Err(error),
        (Some(dead), None) => {
            span.waiting("its dead predecessor to be removed");
            reconfigure(context, &teller, &format!("member remove {:x}", dead.id)).await?;
        }
        // Its data is of a member that was removed.
        (None, _) => {}
    }
    span.waiting("the others to take it in");
    let remaining = members.without(&me);
    let cluster = remaining.initial_cluster(&me);
    prepare(host, "existing", &cluster).await?;
    let add = format!("member add {} --learner --peer-urls={}", quoted(&me.name), me.etcd_peer_url());
    let added = reconfigure(context, &teller, &add).await?;
    let id = Members::added(&added)?;
    span.waiting("the data of the others");
    units::start(context, host, &["etcd.service"]).await?;
    promote(context, host, &teller, id, span).await
}

/// Starts etcd with the data it has.
async fn go_on(context: &Context, host: &Host) -> Result<String> {
    let cluster = context.topology().await.etcd_cluster();
    // In a shell of its own: it ends early, and has arguments of its own.
    let before = format!("set -e\n(set -- keep {}\n{})\n", quoted(&cluster), templates::text("node/etcd.sh")?);
    units::start_after(context, host, &before, &["etcd.service"]).await
}

/// Tells etcd whom to meet, and empties the machine's data directory if it must start afresh.
async fn prepare(host: &Host, state: &str, cluster: &str) -> Result<()> {
    let command = format!("sh -s -- {state} {}", quoted(cluster));
    host.ssh()?.run(&command, templates::text("node/etcd.sh")?, QUESTION * 4).await.map(drop)
}

/// The members as a majority knows them, and who told.
async fn ask(context: &Context, others: &[Arc<Host>]) -> Result<(Members, Arc<Host>)> {
    let deadline = context.deadline(DEADLINE);
    let until = Instant::now() + deadline;
    loop {
        let mut last = Vec::new();
        for host in others {
            match etcdctl(host, "member list").await {
                Ok(text) => return Ok((Members::parse(&text)?, host.clone())),
                Err(e) => last.push(e.to_string()),
            }
        }
        if Instant::now() >= until {
            return Err(Error::new(format!("etcd has had no leader for {} s", deadline.as_secs()))
                .why(last.join("\n"))
                .hint("it needs more than half of its members: `kup status` shows which are missing, start those"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Makes a learner a voting member, as soon as it has what the others have.
async fn promote(context: &Context, host: &Host, teller: &Arc<Host>, id: u64, span: &Span) -> Result<String> {
    span.waiting("the new member to catch up");
    let look = Look::at(host, &["etcd.service"]);
    let deadline = context.deadline(DEADLINE);
    let until = Instant::now() + deadline;
    loop {
        match etcdctl(teller, &format!("member promote {id:x}")).await {
            Ok(_) => {
                host.mark_changed();
                return Ok("joined".into());
            }
            // It was promoted by an earlier run that did not hear of it.
            Err(e) if e.why.iter().any(|w| w.contains("can only promote a learner member")) && !in_sync_is_missing(&e) => {
                return Ok("joined".into());
            }
            Err(e) if Instant::now() >= until => {
                let what = format!("etcd on {} did not catch up within {} s", host.machine.name, deadline.as_secs());
                return Err(look.explain(e.within(what)).await);
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Whether etcd says that the learner is one, but not ready.
fn in_sync_is_missing(error: &Error) -> bool {
    error.why.iter().any(|w| w.contains("in sync"))
}

/// Changes who is a member, as soon as etcd lets it: until its members have been connected for some seconds, which after another change they
/// have not been, it calls itself unhealthy and refuses.
async fn reconfigure(context: &Context, teller: &Host, words: &str) -> Result<String> {
    let until = Instant::now() + context.deadline(DEADLINE);
    loop {
        match etcdctl(teller, words).await {
            Err(e) if Instant::now() < until && e.why.iter().any(|why| why.contains("unhealthy cluster")) => {
                tokio::time::sleep(POLL).await;
            }
            outcome => return outcome,
        }
    }
}

/// Runs etcdctl on a master, against its own member; returns what it wrote.
async fn etcdctl(host: &Host, words: &str) -> Result<String> {
    let command = format!(
        "{}/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kup/pki/etcd-ca.crt --cert=/etc/kup/pki/etcd-server.crt \
         --key=/etc/kup/pki/etcd-server.key --write-out=json {words}",
        crate::machine::BUNDLE_DIR
    );
    let output = host.ssh()?.exec(&command, "", QUESTION).await?;
    if output.status == 0 {
        return Ok(output.text());
    }
    Err(Error::new(format!("etcd on {} refused `{words}`", host.machine.name)).why(last_lines(&output.stderr, 3)))
}
