//! `--replace` on AWS: which things may be made anew, and which are although nothing about them changes.
//!
//! Masters are things of the plan, and made anew by it. Minions are their groups': a plan can only say which of them are to go, and their
//! groups then make others ([`crate::retire::anew`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::aws::Aws;
use crate::aws::resource::auto_scaling_group::{AutoScalingGroup, AutoScalingGroupFound};
use crate::aws::resource::instance::Instance;
use crate::aws::resource::launch_template::LaunchTemplate;
use crate::cluster::Cluster;
use crate::cluster::problem::{did_you_mean, quoted};
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Entry, Found as _, Graph, Item, Plan, Resource as _, Verb};

/// What a plan calls the minions of a group that it makes anew.
const MINIONS: &str = "minions";
/// Between their ids.
const COMMA: &str = ", ";
/// How many minions of a group are named to whoever named none of them.
const SHOWN: usize = 6;

/// Things that may be made anew; of groups of minions, which of them, if not all.
pub type Asked = BTreeMap<Address, BTreeSet<String>>;

/// The word for a thing: `launch-template/minions`.
fn word(address: &Address) -> String {
    format!("{}/{}", address.kind.replace(' ', "-"), address.name)
}

/// The things that these words mean: KIND/NAME, a master's name with or without the cluster's, a group of minions, or a minion's id.
///
/// # Errors
/// A word that means none of them, of kind usage.
pub fn named(wanted: &Graph<Aws>, found: &[Entry], cluster: &Cluster, words: &[String]) -> Result<Asked> {
    let all: Vec<Address> = wanted.nodes().iter().map(|node| node.address()).collect();
    let prefix = format!("{}-", cluster.name);
    let mut asked = Asked::new();
    for given in words {
        let short = given.strip_prefix(&prefix).unwrap_or(given);
        let means = |address: &&Address| {
            let called = [given.as_str(), short].contains(&address.name.as_str());
            word(address) == *given || (called && [Instance::KIND, AutoScalingGroup::KIND].contains(&address.kind))
        };
        if let Some(address) = all.iter().find(means) {
            asked.entry(address.clone()).or_default();
            continue;
        }
        if let Some(address) = group_of(found, given)? {
            asked.entry(address).or_default().insert(given.clone());
            continue;
        }
        return Err(unknown(&all, found, &cluster.name, given)?);
    }
    Ok(asked)
}

/// What is said of a word that means nothing: which machines there are, and the one that was meant perhaps.
fn unknown(all: &[Address], found: &[Entry], cluster: &str, given: &str) -> Result<Error> {
    let of = |kind: &'static str| all.iter().filter(move |address| address.kind == kind).map(|address| address.name.as_str());
    let (mut groups, mut instances) = (Vec::new(), Vec::new());
    for group in of(AutoScalingGroup::KIND) {
        let is = |entry: &&Entry| entry.address.kind == AutoScalingGroup::KIND && entry.address.name == group;
        let members: Vec<String> = match found.iter().find(is) {
            Some(entry) => entry.value::<AutoScalingGroup>()?.members.iter().map(|member| member.id.clone()).collect(),
            None => Vec::new(),
        };
        let shown = members.iter().take(SHOWN).map(String::as_str).chain((members.len() > SHOWN).then_some("…"));
        groups.push(match members.is_empty() {
            true => group.to_owned(),
            false => format!("{group} ({})", shown.collect::<Vec<_>>().join(COMMA)),
        });
        instances.extend(members);
    }
    let mut error = Error::usage(format!("--replace: cluster {cluster} has no {}", quoted(given)))
        .why(format!("its masters are {}", of(Instance::KIND).collect::<Vec<_>>().join(COMMA)));
    if !groups.is_empty() {
        error = error.why(format!("its groups of minions are {}", groups.join(COMMA)));
    }
    let words: Vec<String> = all.iter().map(word).collect();
    let machines = of(Instance::KIND).chain(of(AutoScalingGroup::KIND)).chain(instances.iter().map(String::as_str));
    if let Some(meant) = did_you_mean(given, machines.chain(words.iter().map(String::as_str))) {
        error = error.hint(format!("did you mean {meant}?"));
    }
    Ok(error.hint("`kup plan` names everything else, which is KIND/NAME here, with hyphens: launch-template/minions"))
}

/// The group that an instance is in.
fn group_of(found: &[Entry], instance: &str) -> Result<Option<Address>> {
    for entry in found.iter().filter(|entry| entry.address.kind == AutoScalingGroup::KIND) {
        if entry.value::<AutoScalingGroup>()?.members.iter().any(|member| member.id == instance) {
            return Ok(Some(entry.address.clone()));
        }
    }
    Ok(None)
}

/// Has machines that were named made anew although nothing about them changes: the one case in which that is of use.
///
/// # Errors
/// Other things that stand as they are wanted, of kind usage; and several masters at a time, for the others must keep etcd's majority.
pub fn force(plan: &mut Plan<Aws>, asked: &Asked) -> Result<()> {
    let mut masters = 0;
    let templates = versions(plan)?;
    for item in &mut plan.items {
        let Some(which) = asked.get(&item.address) else { continue };
        match (item.address.kind, item.verb) {
            (Instance::KIND, Verb::Keep | Verb::Update) => item.verb = Verb::Replace,
            (AutoScalingGroup::KIND, Verb::Keep | Verb::Update) => make_anew(item, which, &templates)?,
            (_, Verb::Keep | Verb::Update) => {
                return Err(Error::usage(format!("--replace: {} stands as it is wanted", item.address))
                    .why("only machines are made anew although nothing about them changes"));
            }
            _ => {}
        }
        masters += usize::from(item.address.kind == Instance::KIND && item.verb == Verb::Replace);
    }
    if masters > 1 {
        return Err(Error::usage("--replace: one master at a time, so that the others keep etcd's majority")
            .hint("replace the first, and the next when all is well"));
    }
    Ok(())
}

/// The version of each group's launch template that counts, of those that a plan leaves as they are.
fn versions(plan: &Plan<Aws>) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for item in plan.items.iter().filter(|item| item.address.kind == LaunchTemplate::KIND && item.verb == Verb::Keep) {
        if let Some(found) = &item.found {
            versions.insert(item.address.name.clone(), found.value::<LaunchTemplate>()?.version.to_string());
        }
    }
    Ok(versions)
}

fn make_anew(item: &mut Item<Aws>, which: &BTreeSet<String>, templates: &BTreeMap<String, String>) -> Result<()> {
    let Some(found) = &item.found else { return Ok(()) };
    let go = outdated(found.value::<AutoScalingGroup>()?, which, templates.get(&item.address.name));
    if !go.is_empty() {
        item.verb = Verb::Update;
        item.changes.push(Change::in_place(MINIONS, go.join(COMMA), "new ones, one at a time"));
    }
    Ok(())
}

/// Which minions of a group go: those that were named; else those that are not of the version that counts, so that who was interrupted
/// goes on with the rest; else all.
fn outdated(group: &AutoScalingGroupFound, which: &BTreeSet<String>, version: Option<&String>) -> Vec<String> {
    let stays: Vec<_> = group.members.iter().filter(|member| !member.leaves()).collect();
    let of = |wanted: &dyn Fn(&str, Option<&String>) -> bool| -> Vec<String> {
        let some = stays.iter().filter(|member| wanted(&member.id, member.version.as_ref()));
        some.map(|member| member.id.clone()).collect()
    };
    if !which.is_empty() {
        return of(&|id, _| which.contains(id));
    }
    let old = of(&|_, of| version.is_some() && of != version);
    if old.is_empty() { of(&|_, _| true) } else { old }
}

/// The minions that a plan makes anew, by what AWS calls their groups.
///
/// # Errors
/// None but a plan that is not what it should be.
pub fn minions(plan: &Plan<Aws>) -> Result<Vec<(String, Vec<String>)>> {
    let mut all = Vec::new();
    for item in plan.items.iter().filter(|item| item.address.kind == AutoScalingGroup::KIND && item.verb == Verb::Update) {
        let Some(found) = &item.found else { continue };
        let change = item.changes.iter().find(|change| change.field == MINIONS);
        if let Some(change) = change {
            let group = found.value::<AutoScalingGroup>()?.id().to_owned();
            all.push((group, change.from.split(COMMA).map(str::to_owned).collect()));
        }
    }
    Ok(all)
}

/// How many minions of which groups go on as they were made, although the plan, or one before, makes new ones otherwise.
///
/// # Errors
/// As [`minions`].
pub fn older(plan: &Plan<Aws>) -> Result<Vec<(String, usize)>> {
    let templates = versions(plan)?;
    let mut all = Vec::new();
    for item in plan.items.iter().filter(|item| item.address.kind == AutoScalingGroup::KIND && item.verb != Verb::Delete) {
        let Some(found) = &item.found else { continue };
        let found = found.value::<AutoScalingGroup>()?;
        let version = templates.get(&item.address.name);
        // What AWS doesn't say is no reason to alarm anybody.
        let old = found.members.iter().filter(|m| !m.leaves() && m.version.is_some() && m.version.as_ref() != version).count();
        if old > 0 && !item.changes.iter().any(|change| change.field == MINIONS) {
            all.push((item.address.name.clone(), old));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::resource::auto_scaling_group::Member;

    fn group(versions: &[(&str, Option<&str>)]) -> AutoScalingGroupFound {
        let member = |(id, version): &(&str, Option<&str>)| Member {
            id: (*id).to_owned(),
            state: "InService".into(),
            zone: "a".into(),
            instance_type: "t3.small".into(),
            healthy: true,
            version: version.map(str::to_owned),
        };
        let mut group = AutoScalingGroupFound::default();
        group.members.extend(versions.iter().map(member));
        group
    }

    #[test]
    fn who_is_of_another_version_goes_and_else_all() {
        let none = BTreeSet::new();
        let (one, two) = ("1".to_owned(), "2".to_owned());
        let mut half = group(&[("i-1", Some("1")), ("i-2", Some("2")), ("i-3", None)]);
        assert_eq!(outdated(&half, &none, Some(&two)), ["i-1", "i-3"]);
        assert_eq!(outdated(&half, &BTreeSet::from(["i-2".to_owned()]), Some(&two)), ["i-2"]);
        // The template itself is about to change.
        assert_eq!(outdated(&half, &none, None).len(), 3);
        half.members[0].state = "Terminating".into();
        assert_eq!(outdated(&half, &none, Some(&two)), ["i-3"]);
        let same = group(&[("i-1", Some("1")), ("i-2", Some("1"))]);
        assert_eq!(outdated(&same, &none, Some(&one)), ["i-1", "i-2"]);
    }

    #[test]
    fn a_word_that_means_nothing_is_answered_with_the_machines() {
        let address = |kind: &'static str, name: &str| Address { kind, name: name.into() };
        let all = [
            address("vpc", "c"),
            address(LaunchTemplate::KIND, "minions"),
            address(Instance::KIND, "master-1"),
            address(AutoScalingGroup::KIND, "minions"),
        ];
        let mut found = group(&[("i-0123456789abcdef0", Some("1"))]);
        found.name = "minions".into();
        let found = [Entry::of::<AutoScalingGroup>(found)];
        let said = |given| unknown(&all, &found, "c", given).unwrap().to_string();
        insta::assert_snapshot!(said("minoins"), @"
        --replace: cluster c has no `minoins`
          because: its masters are master-1
          because: its groups of minions are minions (i-0123456789abcdef0)
          next: did you mean minions?
          next: `kup plan` names everything else, which is KIND/NAME here, with hyphens: launch-template/minions
        ");
        for (given, meant) in [
            ("mastre-1", "master-1"),
            ("i-0123456789abcdef1", "i-0123456789abcdef0"),
            ("launch-template/minion", "launch-template/minions"),
        ] {
            assert!(said(given).contains(&format!("did you mean {meant}?")), "{}", said(given));
        }
        assert!(!said("x").contains("did you mean"), "{}", said("x"));
    }
}
