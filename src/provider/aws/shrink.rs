//! Taking minions out of groups that become smaller or go: which of them, and how, so that no pod is lost on the way.

use std::collections::BTreeMap;

use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Fault};
use crate::aws::permissions::{Need, Scope, need};
use crate::aws::resource::auto_scaling_group::{AutoScalingGroup, Member};
use crate::error::Result;
use crate::graph::{Found as _, Plan, Resource as _, Verb};

/// What it calls.
pub const NEEDS: &[Need] = &[
    need("autoscaling:UpdateAutoScalingGroup", Scope::Named),
    need("autoscaling:TerminateInstanceInAutoScalingGroup", Scope::Named),
];

/// Minions that a plan takes out of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    /// What AWS calls the group.
    pub group: String,
    /// How many it keeps; none if it goes as a whole.
    pub keeps: Option<i32>,
    /// The instances that go.
    pub members: Vec<String>,
}

/// What of its minions a plan takes away.
pub fn surplus(plan: &Plan<Aws>) -> Result<Vec<Surplus>> {
    let mut all = Vec::new();
    for item in plan.items.iter().filter(|item| item.address.kind == AutoScalingGroup::KIND) {
        let Some(found) = &item.found else { continue };
        let found = found.value::<AutoScalingGroup>()?;
        let count = item.changes.iter().find(|change| change.field == "count").and_then(|change| change.to.parse::<i32>().ok());
        let keeps = match (item.verb, count) {
            (Verb::Update, Some(count)) if count < found.desired && !found.leaving => Some(count),
            (Verb::Delete, _) => None,
            _ => continue,
        };
        let members = chosen(&found.members, keeps.unwrap_or(0));
        if !members.is_empty() {
            all.push(Surplus { group: found.id().to_owned(), keeps, members });
        }
    }
    Ok(all)
}

/// Those that go so that `keeps` stay: who is not well first, then always one of the fullest zone, so that the zones stay even.
fn chosen(members: &[Member], keeps: i32) -> Vec<String> {
    let mut stays: Vec<&Member> = members.iter().filter(|member| !member.leaves()).collect();
    let mut gone = Vec::new();
    while stays.len() > usize::try_from(keeps).unwrap_or(0) {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &stays {
            *zones.entry(&member.zone).or_default() += 1;
        }
        let rank = |member: &Member| (!member.healthy, zones.get(member.zone.as_str()).copied(), member.id.clone());
        let Some((at, _)) = stays.iter().enumerate().max_by_key(|(_, member)| rank(member)) else { break };
        gone.push(stays.remove(at).id.clone());
    }
    gone
}

/// Ends one instance; if its group is to be `smaller` by it, in the same call, so that it is not replaced.
pub async fn end(aws: &Aws, group: &str, instance: &str, smaller: bool) -> Result<()> {
    let what = || format!("the instance {instance} could not be taken out of its group {group}");
    let ask = aws.autoscaling.terminate_instance_in_auto_scaling_group().instance_id(instance);
    match ask.should_decrement_desired_capacity(smaller).send().await.failure() {
        Ok(_) => Ok(()),
        // It went by itself meanwhile.
        Err(failure) if failure.fault == Fault::Gone || failure.message.contains("not found") => Ok(()),
        Err(failure) => Err(failure.error(what())),
    }
}

/// Lets a group become as small as it is to be: AWS takes nothing out of one that is at its least.
pub async fn allow(aws: &Aws, surplus: &Surplus) -> Result<()> {
    let Some(keeps) = surplus.keeps else { return Ok(()) };
    let ask = aws.autoscaling.update_auto_scaling_group().auto_scaling_group_name(&surplus.group).min_size(keeps);
    let what = || format!("the least size of the Auto Scaling group {} could not be changed", surplus.group);
    ask.send().await.explain(what()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, zone: &str, healthy: bool) -> Member {
        Member {
            id: id.into(),
            state: "InService".into(),
            zone: zone.into(),
            instance_type: "t3.small".into(),
            healthy,
            version: None,
        }
    }

    #[test]
    fn who_is_not_well_goes_first_and_zones_stay_even() {
        let all = [member("i-1", "a", true), member("i-2", "a", true), member("i-3", "b", false), member("i-4", "a", true)];
        assert_eq!(chosen(&all, 3), ["i-3"]);
        assert_eq!(chosen(&all, 2), ["i-3", "i-4"]);
        assert_eq!(chosen(&all, 4), [""; 0]);
        assert_eq!(chosen(&all, 0).len(), 4);
        let even = [member("i-1", "a", true), member("i-2", "b", true), member("i-3", "b", true)];
        assert_eq!(chosen(&even, 2), ["i-3"]);
    }

    #[test]
    fn who_is_on_its_way_out_is_not_counted() {
        let mut all = [member("i-1", "a", true), member("i-2", "a", true), member("i-3", "a", true)];
        all[2].state = "Terminating:Wait".into();
        assert_eq!(chosen(&all, 1), ["i-2"]);
    }
}
