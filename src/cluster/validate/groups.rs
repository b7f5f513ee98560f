//! Rules for groups of minions: sizes, types, labels, taints, and that something is left where pods may run.

use std::collections::BTreeSet;

use super::Check;
use super::aws::type_fault;
use crate::cluster::aws::Group;
use crate::cluster::labels::{Effect, label, taint};
use crate::cluster::problem::quoted;
use crate::cluster::schema::{item, join};

/// The most instance types that an Auto Scaling group takes.
const MOST_TYPES: usize = 40;

/// The add-ons whose pods run on minions only.
const ON_MINIONS: [&str; 2] = ["local-storage", "metrics-server"];

const COUNT: &str = "minions.count";

impl Check<'_> {
    pub(super) fn groups(&mut self) {
        let aws = &self.cluster.aws;
        for (name, group) in &aws.groups {
            let path = item("aws.groups", name);
            self.counts_of(&path, group);
            self.types(&join(&path, "types"), &group.types);
            if group.types.is_empty() {
                let fix = "write one or more like [t3.small, t3a.small]".to_owned();
                self.problem(&[&join(&path, "types")], "a group needs an instance type".into(), fix);
            }
            self.root_volume(&join(&path, "rootVolume"), group.root_volume);
            if group.spot > 100 {
                let what = format!("{} is no share in percent", group.spot);
                self.problem(&[&join(&path, "spot")], what, "write a number from 0 to 100".into());
            }
            self.labels(&join(&path, "labels"), &group.labels);
            self.taints(&join(&path, "taints"), &group.taints);
        }
        if let Some(sum) = aws.minion_count()
            && sum != self.cluster.minions.count
            && !self.bad.iter().any(|path| path.starts_with("aws.groups["))
        {
            let what = format!("{} is not the sum of the groups' counts, {sum}", self.cluster.minions.count);
            let fix = "leave it out: aws.groups says how many minions there are".to_owned();
            self.problem(&[COUNT], what, fix);
        }
        self.somewhere_to_run();
    }

    fn counts_of(&mut self, path: &str, group: &Group) {
        let [count, min, max] = ["count", "min", "max"].map(|field| join(path, field));
        if !self.readable(&[&count, &min, &max]) {
            return;
        }
        let (low, high) = (group.min.unwrap_or(0), group.max.unwrap_or(u16::MAX));
        if low > high {
            self.problem(&[&min, &max], format!("min {low} is above max {high}"), "write min ≤ count ≤ max".into());
        } else if group.count < low {
            self.problem(
                &[&count, &min],
                format!("count {} is below min {low}", group.count),
                format!("write a count of {low} or more"),
            );
        } else if group.count > high {
            self.problem(
                &[&count, &max],
                format!("count {} is above max {high}", group.count),
                format!("write a max of {} or more", group.count),
            );
        }
    }

    /// Types among which AWS chooses, or which are tried in turn.
    pub(super) fn types(&mut self, path: &str, types: &[String]) {
        let mut seen = BTreeSet::new();
        for kind in types {
            if let Some(what) = type_fault(kind) {
                self.problem(&[path], what, "write one or more like [t3.small, t3a.small]".into());
            } else if !seen.insert(kind) {
                self.problem(&[path], format!("{} is named twice", quoted(kind)), "write each type once".into());
            }
        }
        if types.len() > MOST_TYPES {
            let what = format!("{} are too many types: an Auto Scaling group takes {MOST_TYPES}", types.len());
            self.problem(&[path], what, "write fewer".into());
        }
    }

    pub(super) fn labels(&mut self, path: &str, labels: &[String]) {
        let mut keys = BTreeSet::new();
        for text in labels {
            match label(text) {
                Err((what, fix)) => self.problem(&[path], what, fix),
                Ok((key, _)) if !keys.insert(key) => {
                    self.problem(&[path], format!("{} is given twice", quoted(key)), "write each label once".into());
                }
                Ok(_) => {}
            }
        }
    }

    pub(super) fn taints(&mut self, path: &str, taints: &[String]) {
        let mut seen = BTreeSet::new();
        for text in taints {
            match taint(text) {
                Err((what, fix)) => self.problem(&[path], what, fix),
                Ok(taint) if !seen.insert((taint.key, taint.effect)) => {
                    let what = format!("{} is given twice with the effect {}", quoted(taint.key), taint.effect);
                    self.problem(&[path], what, "write each key once for an effect".into());
                }
                Ok(_) => {}
            }
        }
    }

    /// With every group tainted, the add-ons' pods would wait for ever: masters are tainted too where there are minions.
    fn somewhere_to_run(&mut self) {
        let cluster = self.cluster;
        let waiting: Vec<&str> = ON_MINIONS.into_iter().filter(|name| cluster.addons.enabled(name)).collect();
        let keeps_away = |text: &String| {
            taint(text).is_ok_and(|taint| taint.effect != Effect::PreferNoSchedule && taint.key != "CriticalAddonsOnly")
        };
        let mut with_machines = cluster.aws.groups.iter().filter(|(_, group)| group.count > 0).peekable();
        let Some((first, _)) = with_machines.peek().copied() else { return };
        if !waiting.is_empty() && with_machines.all(|(_, group)| group.taints.iter().any(keeps_away)) {
            let path = join(&item("aws.groups", first), "taints");
            let what = format!("every group keeps pods away: {} would have no node to run on", waiting.join(" and "));
            self.problem(&[&path], what, "leave one group without a taint, or turn them off in `addons`".into());
        }
    }
}
