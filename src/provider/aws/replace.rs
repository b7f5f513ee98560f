//! `--replace` on AWS: which things may be made anew, and which are although nothing about them changes.

use std::collections::BTreeSet;

use crate::aws::Aws;
use crate::cluster::Cluster;
use crate::cluster::problem::{did_you_mean, quoted};
use crate::error::{Error, Result};
use crate::graph::{Address, Graph, Plan, Verb};

/// A machine, which is made anew on demand: its address and data are things of their own, and outlive it.
const MACHINE: &str = "instance";

/// The word for a thing: `launch-template/minions`.
fn word(address: &Address) -> String {
    format!("{}/{}", address.kind.replace(' ', "-"), address.name)
}

/// The wanted things that these words mean: KIND/NAME, or a machine's name with or without the cluster's.
///
/// # Errors
/// A word that means none of them, of kind usage.
pub fn named(wanted: &Graph<Aws>, cluster: &Cluster, words: &[String]) -> Result<BTreeSet<Address>> {
    let all: Vec<Address> = wanted.nodes().iter().map(|node| node.address()).collect();
    let prefix = format!("{}-", cluster.name);
    let mut found = BTreeSet::new();
    for given in words {
        let short = given.strip_prefix(&prefix).unwrap_or(given);
        let means = |address: &&Address| {
            word(address) == *given || (address.kind == MACHINE && (address.name == *given || address.name == short))
        };
        if let Some(address) = all.iter().find(means) {
            found.insert(address.clone());
            continue;
        }
        let names: Vec<String> = all.iter().map(word).collect();
        let mut error = Error::usage(format!("--replace: cluster {} has no {}", cluster.name, quoted(given)));
        if let Some(meant) = did_you_mean(given, names.iter().map(String::as_str)) {
            error = error.hint(format!("did you mean {meant}?"));
        }
        return Err(error.hint(format!("write a master's name, like master-1, or one of: {}", names.join(", "))));
    }
    Ok(found)
}

/// Has machines that were named made anew although nothing about them changes: the one case in which that is of use.
///
/// # Errors
/// Other things that stand as they are wanted, of kind usage; and several masters at a time, for the others must keep etcd's majority.
pub fn force(plan: &mut Plan<Aws>, asked: &BTreeSet<Address>) -> Result<()> {
    let mut masters = 0;
    for item in plan.items.iter_mut().filter(|item| asked.contains(&item.address)) {
        match (item.address.kind, item.verb) {
            (MACHINE, Verb::Keep | Verb::Update) => item.verb = Verb::Replace,
            (_, Verb::Keep | Verb::Update) => {
                return Err(Error::usage(format!("--replace: {} stands as it is wanted", item.address))
                    .why("only machines are made anew although nothing about them changes"));
            }
            _ => {}
        }
        masters += usize::from(item.address.kind == MACHINE && item.verb == Verb::Replace);
    }
    if masters > 1 {
        return Err(Error::usage("--replace: one master at a time, so that the others keep etcd's majority")
            .hint("replace the first, and the next when all is well"));
    }
    Ok(())
}
