//! What a plan does more than the one that was shown and confirmed: between the two somebody else may have been at work. Pure.

use std::fmt;

use super::plan::{Item, Plan, Verb};
use super::resource::{Address, Change};

/// One thing that a plan does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What is done: never [`Verb::Keep`].
    pub verb: Verb,
    /// With which thing.
    pub address: Address,
    /// By which the cloud knows it, if it is there.
    pub id: Option<String>,
    /// Why, in a few words.
    pub reason: String,
    changes: Vec<Change>,
}

impl Action {
    fn of<C>(item: &Item<C>) -> Action {
        Action {
            verb: item.verb,
            address: item.address.clone(),
            id: item.found.as_ref().map(|found| found.id.clone()),
            reason: item.reason(),
            changes: item.changes.clone(),
        }
    }

    /// Whether something that stands is removed by it.
    pub fn removes(&self) -> bool {
        matches!(self.verb, Verb::Replace | Verb::Delete) || self.changes.iter().any(|change| change.ends > 0)
    }

    /// Whether who confirmed this other action meant this one too: it does as much to the same thing, or was to make of it what this makes.
    fn is_meant_by(&self, confirmed: &Action) -> bool {
        if self.address != confirmed.address {
            return false;
        }
        let makes = matches!(confirmed.verb, Verb::Create | Verb::Replace);
        match self.verb {
            Verb::Keep => true,
            Verb::Create => makes,
            // What somebody else has begun is finished.
            Verb::Update if makes => !self.removes(),
            Verb::Update => {
                let same = |c: &Change, change: &Change| c.field == change.field && c.to == change.to && c.ends >= change.ends;
                let meant = |change: &Change| confirmed.changes.iter().any(|c| same(c, change));
                confirmed.verb == Verb::Update && self.changes.iter().all(meant)
            }
            // Another one than the one that was shown may be somebody's who has only just made it.
            Verb::Replace | Verb::Delete => self.verb == confirmed.verb && self.id == confirmed.id,
        }
    }
}

/// `delete volume etcd-2 (vol-0123): no longer wanted`
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.word(), self.address)?;
        if let Some(id) = &self.id {
            write!(f, " ({id})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// All that a plan does.
pub fn actions<C: Send + Sync + 'static>(plan: &Plan<C>) -> Vec<Action> {
    plan.items.iter().filter(|item| item.verb != Verb::Keep).map(Action::of).collect()
}

/// Those of these actions that were not meant by what was confirmed. Less than was confirmed is no other plan.
pub fn beyond(confirmed: &[Action], now: &[Action]) -> Vec<Action> {
    now.iter().filter(|action| !confirmed.iter().any(|other| action.is_meant_by(other))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(verb: Verb, name: &str, id: &str, changes: &[(&str, &str, &str)]) -> Action {
        Action {
            verb,
            address: Address { kind: "volume", name: name.into() },
            id: (!id.is_empty()).then(|| id.into()),
            reason: String::new(),
            changes: changes.iter().map(|(field, from, to)| Change::in_place(*field, from, to)).collect(),
        }
    }

    fn names(confirmed: &[Action], now: &[Action]) -> Vec<String> {
        beyond(confirmed, now).into_iter().map(|action| format!("{} {}", action.verb.word(), action.address.name)).collect()
    }

    #[test]
    fn what_was_confirmed_or_is_less_is_nothing_new() {
        let confirmed = [
            action(Verb::Create, "a", "", &[]),
            action(Verb::Update, "b", "vol-b", &[("size", "1", "2"), ("type", "x", "y")]),
            action(Verb::Replace, "c", "vol-c", &[]),
            action(Verb::Delete, "d", "vol-d", &[]),
        ];
        assert_eq!(names(&confirmed, &confirmed), [] as [&str; 0]);
        assert_eq!(names(&confirmed, &[]), [] as [&str; 0]);
        // Somebody has made half of one, changed another in the same way in part, and removed a third already.
        let less = [
            action(Verb::Update, "a", "vol-a", &[("size", "1", "2")]),
            action(Verb::Update, "b", "vol-b", &[("size", "3", "2")]),
            action(Verb::Create, "c", "", &[]),
        ];
        assert_eq!(names(&confirmed, &less), [] as [&str; 0]);
    }

    #[test]
    fn all_else_is_more_than_was_confirmed() {
        let confirmed = [
            action(Verb::Create, "a", "", &[]),
            action(Verb::Update, "b", "vol-b", &[("size", "1", "2")]),
            action(Verb::Replace, "c", "vol-c", &[]),
            action(Verb::Delete, "d", "vol-d", &[]),
        ];
        let more = [
            action(Verb::Delete, "a", "vol-a", &[]),
            action(Verb::Update, "b", "vol-b", &[("size", "1", "3")]),
            action(Verb::Create, "b", "", &[]),
            action(Verb::Replace, "b", "vol-b", &[("size", "1", "2")]),
            action(Verb::Replace, "c", "vol-new", &[]),
            action(Verb::Delete, "d", "vol-new", &[]),
            action(Verb::Create, "e", "", &[]),
        ];
        let all = ["delete a", "update b", "create b", "replace b", "replace c", "delete d", "create e"];
        assert_eq!(names(&confirmed, &more), all);
        assert_eq!(names(&[], &confirmed), ["create a", "update b", "replace c", "delete d"]);
        let removes: Vec<bool> = confirmed.iter().map(Action::removes).collect();
        assert_eq!(removes, [false, false, true, true]);
    }

    #[test]
    fn machines_that_would_end_are_confirmed_by_their_number() {
        let count = |from: u32, to: u32| {
            let change = Change::in_place("count", from, to).ending(from.saturating_sub(to));
            Action { changes: vec![change], ..action(Verb::Update, "minions", "minions", &[]) }
        };
        let made = action(Verb::Create, "minions", "", &[]);
        assert_eq!(names(std::slice::from_ref(&made), &[count(1, 2)]), [] as [&str; 0]);
        assert_eq!(names(&[made], &[count(5, 1)]), ["update minions"]);
        assert_eq!(names(&[count(4, 3)], &[count(6, 3)]), ["update minions"]);
        assert_eq!(names(&[count(2, 3)], &[count(6, 3)]), ["update minions"]);
        assert_eq!(names(&[count(6, 3)], &[count(4, 3)]), [] as [&str; 0]);
        assert_eq!([count(4, 3).removes(), count(3, 4).removes()], [true, false]);
    }

    #[test]
    fn an_action_is_told_with_the_thing_it_is_about() {
        let gone = Action { reason: "no longer wanted".into(), ..action(Verb::Delete, "etcd-2", "vol-1", &[]) };
        assert_eq!(gone.to_string(), "delete volume etcd-2 (vol-1): no longer wanted");
    }
}
