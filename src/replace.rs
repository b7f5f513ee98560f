//! Making machines anew that stand but are of no use any more: silent ones, broken ones. What they held is gone; a node's pods move first if
//! it can still give them up, and a master is only given up while the others serve without it.

use std::time::Duration;

use crate::bootstrap::api::ApiClient;
use crate::bundle::Bundle;
use crate::cluster::Cluster;
use crate::cluster::problem::{did_you_mean, quoted};
use crate::error::{Error, Result};
use crate::kubeconfig::Access;
use crate::machine::Role;
use crate::pki::{Pki, layout};
use crate::provider::local::{LocalProvider, names};
use crate::provider::{Action, ClusterId, Finder as _, FoundMachine, Verb};
use crate::report::Report;
use crate::retire;

/// How long the API of another master may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// The full names of the machines that these words mean.
///
/// # Errors
/// A word that is no machine's name, or more masters than the cluster can do without, is a usage error.
pub fn named(cluster: &Cluster, words: &[String]) -> Result<Vec<String>> {
    let all = names::wanted(cluster);
    let mut named: Vec<String> = Vec::new();
    for word in words {
        let full = format!("{}-{word}", cluster.name);
        let machine = all.iter().find(|w| w.name == *word || w.name == full).ok_or_else(|| {
            let names = || all.iter().map(|w| w.name.as_str());
            let mut error = Error::usage(format!("--replace: cluster {} has no machine {}", cluster.name, quoted(word)))
                .why(format!("its machines are {}", names().collect::<Vec<_>>().join(", ")));
            if let Some(meant) = did_you_mean(word, names()).or_else(|| did_you_mean(&full, names())) {
                error = error.hint(format!("did you mean {meant}?"));
            }
            error
        })?;
        if !named.contains(&machine.name) {
            named.push(machine.name.clone());
        }
    }
    let masters = all.iter().filter(|w| w.role == Role::Master && named.contains(&w.name)).count();
    if masters > 0 && cluster.masters.count == 1 {
        return Err(Error::usage(format!("--replace: the only master of cluster {} holds all its data", cluster.name)).hint(
            format!("`kup up --name {}` repairs it where it stands; with masters.count: 3 any one can be replaced", cluster.name),
        ));
    }
    if masters > 1 {
        return Err(Error::usage("--replace: one master at a time, so that the others keep etcd's majority")
            .hint("replace the first, and the next when `kup status` says that all is well"));
    }
    Ok(named)
}

/// The plan with these machines made anew.
#[must_use]
pub fn planned(plan: Vec<Action>, machines: &[String]) -> Vec<Action> {
    let volumes: Vec<String> = machines.iter().map(|m| names::volume(m)).collect();
    let anew = |action: &Action| match action.kind.as_str() {
        "machine" => machines.contains(&action.name),
        "volume" => volumes.contains(&action.name),
        _ => false,
    };
    plan.into_iter()
        .map(|action| match action.verb {
            Verb::Keep | Verb::Start if anew(&action) => {
                Action { verb: Verb::Replace, detail: format!("{}, made anew", action.detail), ..action }
            }
            _ => action,
        })
        .collect()
}

/// Removes the machines that the plan replaces; provisioning then makes them.
pub async fn remove(
    id: &ClusterId,
    plan: &[Action],
    provider: &LocalProvider,
    bundle: &Bundle,
    patience: Option<Duration>,
    access: impl AsyncFnOnce() -> Result<(Access, Pki)>,
    report: &Report,
) -> Result<()> {
    let machines: Vec<&str> =
        plan.iter().filter(|a| a.verb == Verb::Replace && a.kind == "machine").map(|a| a.name.as_str()).collect();
    if machines.is_empty() {
        return Ok(());
    }
    let found = provider.discover(&id.name).await?.machines;
    let (access, pki) = access().await?;
    let span = report.step("replaced machines");
    let work = found.iter().filter(|f| machines.contains(&f.machine.name.as_str())).map(|found_one| {
        let part = span.child(&found_one.machine.name);
        let (all, access, pki) = (&found, &access, &pki);
        async move {
            let name = &found_one.machine.name;
            let outcome = async {
                match found_one.machine.role {
                    Role::Master => {
                        part.waiting("another master's API to answer");
                        others_serve(pki, all, found_one).await?;
                    }
                    Role::Minion if retire::is_ready(bundle, access, name).await => {
                        part.waiting("its pods to move");
                        retire::drain(bundle, access, name, patience.unwrap_or(retire::DRAIN)).await?;
                    }
                    // A node that is silent gives up nothing: the API moves its pods once its Node is gone.
                    Role::Minion => retire::forget(bundle, access, name).await?,
                    Role::Balancer => {}
                }
                part.waiting("the machine to go");
                provider.remove_machine(&id.name, name).await
            };
            let outcome = outcome.await;
            part.close(outcome)
        }
    });
    let outcome = futures::future::try_join_all(work).await.map(drop);
    span.close(outcome)
}

/// Succeeds if another master's API server is ready, which it is only with etcd's majority.
async fn others_serve(pki: &Pki, all: &[FoundMachine], lost: &FoundMachine) -> Result<()> {
    let mut last = Vec::new();
    let login = layout::bootstrapper(pki)?;
    for other in all.iter().filter(|m| m.machine.role == Role::Master && m.machine.name != lost.machine.name && m.running) {
        match ApiClient::new(other.machine.route(), &pki.cluster.pair.cert, &login)?.ready(ANSWER, |_| {}).await {
            Ok(()) => return Ok(()),
            Err(e) => last.push(e.to_string()),
        }
    }
    Err(Error::new(format!("{} can't be replaced: no other master's API is ready", lost.machine.name))
        .why(if last.is_empty() { "no other master runs".to_owned() } else { last.join("\n") })
        .hint("without a majority of etcd's members its data may be the only copy: start the other masters first (`kup up`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(masters: u16) -> Cluster {
        let mut cluster = crate::cluster::defaults::cluster().unwrap();
        (cluster.name, cluster.masters.count, cluster.minions.count) = ("c".into(), masters, 2);
        cluster
    }

    fn said(masters: u16, words: &[&str]) -> std::result::Result<Vec<String>, String> {
        named(&cluster(masters), &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    #[test]
    fn machines_are_named_in_full_or_in_short() {
        assert_eq!(said(3, &["c-master-2", "minion-1", "minion-1"]).unwrap(), ["c-master-2", "c-minion-1"]);
        let error = said(3, &["minoin-1"]).unwrap_err();
        assert!(error.contains("no machine `minoin-1`") && error.contains("did you mean c-minion-1?"), "{error}");
    }

    #[test]
    fn what_would_lose_the_data_is_refused() {
        assert!(said(1, &["master-1"]).unwrap_err().contains("holds all its data"));
        assert!(said(3, &["master-1", "master-2"]).unwrap_err().contains("one master at a time"));
        assert!(said(1, &["minion-1", "minion-2"]).is_ok());
    }

    #[test]
    fn only_what_stands_is_replaced() {
        let action = |verb, kind: &str, name: &str| Action { verb, kind: kind.into(), name: name.into(), detail: "x".into() };
        let plan = vec![
            action(Verb::Keep, "network", "c-minion-1"),
            action(Verb::Keep, "volume", "kup-local-c-minion-1"),
            action(Verb::Start, "machine", "c-minion-1"),
            action(Verb::Keep, "machine", "c-minion-2"),
        ];
        let verbs = |plan: Vec<Action>| plan.into_iter().map(|a| a.verb).collect::<Vec<_>>();
        let names = ["c-minion-1".to_owned()];
        assert_eq!(verbs(planned(plan, &names)), [Verb::Keep, Verb::Replace, Verb::Replace, Verb::Keep]);
        assert_eq!(verbs(planned(vec![action(Verb::Create, "machine", "c-minion-1")], &names)), [Verb::Create]);
    }
}
