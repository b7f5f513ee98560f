//! Waiting for what AWS does in its own time. All who wait share one describe per service and round, and every wait ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_autoscaling::types::AutoScalingGroup;
use aws_sdk_ec2::types::{Instance, InstanceStateName, Volume, VolumeState};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::fault::Explain as _;
use super::tags::{self, GROUP};
use super::{Aws, capacity};
use crate::error::{Error, Result};

/// The pause between two rounds while something happens; each round that sees nothing new makes it longer.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(2);
/// How many values EC2 takes in a filter.
const AT_ONCE: usize = 200;

/// How long an instance may take to run: seconds, as a rule.
pub const RUNNING: Duration = Duration::from_secs(300);
/// How long it may take to end: its system is shut down in order, which AWS cuts off after some minutes.
pub const TERMINATED: Duration = Duration::from_secs(900);
/// How long a new volume may take to be usable.
pub const AVAILABLE: Duration = Duration::from_secs(120);

/// What is waited for, and what was last seen of it. Cheap to clone: clones share their rounds.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    instances: Arc<Pool<Instance>>,
    volumes: Arc<Pool<Volume>>,
    groups: Arc<Pool<AutoScalingGroup>>,
    members: Arc<Pool<Members>>,
}

impl Watch {
    /// Waits until an instance runs.
    ///
    /// # Errors
    /// It ended instead, with AWS's reason; or it took longer than [`RUNNING`].
    pub async fn running(&self, aws: &Aws, id: &str) -> Result<Instance> {
        self.instances
            .until(aws, id, "running", RUNNING, |seen| match seen.map(state_of) {
                Some(InstanceStateName::Running) => Ok(seen.cloned()),
                Some(InstanceStateName::ShuttingDown | InstanceStateName::Terminated) => Err(ended(id, seen)),
                _ => Ok(None),
            })
            .await
    }

    /// Waits until an instance that was running does so no more, and says why. Goes on for as long as it runs: whoever asks this waits for
    /// something of the instance's own at the same time, and has a deadline for that.
    pub async fn lost(&self, aws: &Aws, id: &str) -> Error {
        let lost = self.instances.until(aws, id, "lost", TERMINATED, |seen| match seen.map(state_of) {
            None | Some(InstanceStateName::Pending | InstanceStateName::Running) => Ok(None),
            Some(state) => Ok(Some(no_more(id, &state, seen))),
        });
        match lost.await {
            Ok(error) => error,
            // What can't be asked says nothing of the instance.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until an instance has ended, and what it used is free.
    pub async fn terminated(&self, aws: &Aws, id: &str) -> Result<()> {
        self.instances
            .until(aws, id, "terminated", TERMINATED, |seen| {
                Ok(seen.is_none_or(|one| state_of(one) == InstanceStateName::Terminated).then_some(()))
            })
            .await
    }

    /// Waits until a volume can be attached, or is attached already.
    pub async fn available(&self, aws: &Aws, id: &str) -> Result<Volume> {
        self.volumes
            .until(aws, id, "available", AVAILABLE, |seen| match seen.and_then(Volume::state) {
                Some(VolumeState::Available | VolumeState::InUse) => Ok(seen.cloned()),
                Some(state @ (VolumeState::Error | VolumeState::Deleting | VolumeState::Deleted)) => {
                    Err(Error::new(format!("the volume {id} can't be used")).why(format!("AWS calls it {}", state.as_str())))
                }
                _ => Ok(None),
            })
            .await
    }

    /// Waits until an Auto Scaling group is gone.
    pub async fn group_gone(&self, aws: &Aws, name: &str) -> Result<()> {
        self.groups.until(aws, name, "gone", TERMINATED, |seen| Ok(seen.is_none().then_some(()))).await
    }

    /// Waits until all instances of a group of minions have ended.
    pub async fn members_gone(&self, aws: &Aws, group: &str) -> Result<()> {
        self.members.until(aws, group, "without instances", TERMINATED, |seen| Ok(seen.is_none().then_some(()))).await
    }
}

/// What the instances of a group do that have not ended.
#[derive(Clone)]
struct Members(Vec<InstanceStateName>);

/// What an instance does; one without a state has only just been asked for.
pub fn state_of(instance: &Instance) -> InstanceStateName {
    instance.state().and_then(|state| state.name()).cloned().unwrap_or(InstanceStateName::Pending)
}

/// AWS's code for the state of an instance, and its words for that.
fn reason(seen: Option<&Instance>) -> (&str, String) {
    let reason = seen.and_then(Instance::state_reason);
    let code = reason.and_then(|r| r.code()).unwrap_or("no reason given");
    let words = match reason.and_then(|r| r.message()) {
        Some(message) if message.starts_with(code) => message.to_owned(),
        Some(message) => format!("{code}: {message}"),
        None => code.to_owned(),
    };
    (code, words)
}

/// The error for an instance that ran, and was stopped or ended while it was waited for.
fn no_more(id: &str, state: &InstanceStateName, seen: Option<&Instance>) -> Error {
    let error = Error::new(format!("the instance {id} was {} while kup waited for it", state.as_str())).why(reason(seen).1);
    match state {
        InstanceStateName::Stopping | InstanceStateName::Stopped => error.hint("`kup up` starts it again"),
        _ => error.hint("`kup up` tries again with a new one"),
    }
}

/// The error for an instance that ended while it was to start: AWS says why in it, and nowhere else.
fn ended(id: &str, seen: Option<&Instance>) -> Error {
    let (code, words) = reason(seen);
    let error = Error::new(format!("the instance {id} ended instead of starting")).why(words);
    if code.contains("InsufficientInstanceCapacity") {
        error.hint(capacity::HINT)
    } else if code.contains("LimitExceeded") {
        error.hint("ask for more in the console of Service Quotas, or remove what is no longer used; then `kup up` goes on")
    } else {
        error.hint("`kup up` tries again with a new one")
    }
}

/// What can be waited for: many of a kind are read by one call.
trait Seen: Clone + Send + Sync + 'static {
    /// Its kind.
    const WHAT: &'static str;

    /// Reads those of these ids that there are.
    fn read(aws: &Aws, ids: &[String]) -> impl Future<Output = Result<BTreeMap<String, Self>>> + Send;

    /// What it does, in a word.
    fn state(&self) -> String;

    /// Where the console shows it, below the region's address.
    fn console(id: &str) -> String;
}

impl Seen for Instance {
    const WHAT: &'static str = "instance";

    async fn read(aws: &Aws, ids: &[String]) -> Result<BTreeMap<String, Self>> {
        let mut seen = BTreeMap::new();
        for some in ids.chunks(AT_ONCE) {
            // A filter, since an id that EC2 has not told all of itself about yet is an error in a list of ids.
            let pages =
                aws.ec2.describe_instances().filters(tags::ec2::among("instance-id", some)).into_paginator().items().send();
            let found: Vec<_> = pages.try_collect().await.explain("instances could not be read")?;
            let instances = found.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default());
            seen.extend(instances.filter_map(|instance| Some((instance.instance_id.clone()?, instance))));
        }
        Ok(seen)
    }

    fn state(&self) -> String {
        state_of(self).as_str().to_owned()
    }

    fn console(id: &str) -> String {
        format!("ec2/home#InstanceDetails:instanceId={id}")
    }
}

impl Seen for Volume {
    const WHAT: &'static str = "volume";

    async fn read(aws: &Aws, ids: &[String]) -> Result<BTreeMap<String, Self>> {
        let mut seen = BTreeMap::new();
        for some in ids.chunks(AT_ONCE) {
            let pages = aws.ec2.describe_volumes().filters(tags::ec2::among("volume-id", some)).into_paginator().items().send();
            let found: Vec<_> = pages.try_collect().await.explain("volumes could not be read")?;
            seen.extend(found.into_iter().filter_map(|volume| Some((volume.volume_id.clone()?, volume))));
        }
        Ok(seen)
    }

    fn state(&self) -> String {
        Volume::state(self).map_or("nothing", VolumeState::as_str).to_owned()
    }

    fn console(id: &str) -> String {
        format!("ec2/home#VolumeDetails:volumeId={id}")
    }
}

impl Seen for AutoScalingGroup {
    const WHAT: &'static str = "Auto Scaling group";

    async fn read(aws: &Aws, ids: &[String]) -> Result<BTreeMap<String, Self>> {
        let ask = aws.autoscaling.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(ids.to_vec()));
        let found: Vec<_> =
            ask.into_paginator().items().send().try_collect().await.explain("Auto Scaling groups could not be read")?;
        Ok(found.into_iter().filter_map(|group| Some((group.auto_scaling_group_name.clone()?, group))).collect())
    }

    fn state(&self) -> String {
        format!("{}, with {} instances", self.status().unwrap_or("there"), self.instances().len())
    }

    fn console(id: &str) -> String {
        format!("ec2/home#AutoScalingGroupDetails:id={id}")
    }
}

impl Seen for Members {
    const WHAT: &'static str = "group of minions";

    /// By tag, since the ids of what a group makes are not known; and one call for all groups.
    async fn read(aws: &Aws, groups: &[String]) -> Result<BTreeMap<String, Self>> {
        let live = ["pending", "running", "shutting-down", "stopping", "stopped"].map(str::to_owned);
        let ask = aws
            .ec2
            .describe_instances()
            .filters(tags::ec2::ours(aws))
            .filters(tags::ec2::among(&format!("tag:{GROUP}"), groups))
            .filters(tags::ec2::among("instance-state-name", &live));
        let found: Vec<_> = ask.into_paginator().items().send().try_collect().await.explain("minions could not be read")?;
        let mut seen: BTreeMap<String, Self> = BTreeMap::new();
        for instance in found.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()) {
            if let Some(group) = tags::ec2::value(instance.tags(), GROUP) {
                seen.entry(group.to_owned()).or_insert_with(|| Members(Vec::new())).0.push(state_of(&instance));
            }
        }
        Ok(seen)
    }

    fn state(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for state in &self.0 {
            *counts.entry(state.as_str()).or_default() += 1;
        }
        counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
    }

    fn console(_: &str) -> String {
        "ec2/home#Instances:".to_owned()
    }
}

/// Those of one kind that somebody waits for.
struct Pool<S> {
    waiting: Mutex<BTreeMap<String, usize>>,
    round: tokio::sync::Mutex<Round<S>>,
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Pool {
            waiting: Mutex::default(),
            round: tokio::sync::Mutex::new(Round { begun: None, number: 0, pause: SHORTEST, seen: BTreeMap::new() }),
        }
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// What the last call saw.
struct Round<S> {
    begun: Option<Instant>,
    number: u64,
    pause: Duration,
    /// By id, with those that were asked for and are not there.
    seen: BTreeMap<String, Option<S>>,
}

/// Somebody waits, until this is dropped.
struct Place<'a, S> {
    pool: &'a Pool<S>,
    id: &'a str,
}

impl<S> Drop for Place<'_, S> {
    fn drop(&mut self) {
        let mut waiting = self.pool.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(self.id) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(self.id);
            }
        }
    }
}

impl<S: Seen> Pool<S> {
    /// Waits until `judge` has an answer, or fails; it is asked of everything that is seen of the thing, or of none.
    async fn until<T>(
        &self,
        aws: &Aws,
        id: &str,
        wanted: &str,
        patience: Duration,
        judge: impl Fn(Option<&S>) -> Result<Option<T>>,
    ) -> Result<T> {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default() += 1;
        let _place = Place { pool: self, id };
        let (since, mut number, mut last) = (Instant::now(), 0, None);
        let deadline = since + patience;
        while let Ok(look) = timeout_at(deadline, self.look(aws, id, since, number)).await {
            let seen;
            (number, seen) = look?;
            if let Some(answer) = judge(seen.as_ref())? {
                return Ok(answer);
            }
            last = Some(seen.map_or_else(|| "not to be seen".to_owned(), |seen| seen.state()));
        }
        let last = last.unwrap_or_else(|| "not asked for, since AWS did not answer in time".to_owned());
        let error = Error::new(format!("the {} {id} is not {wanted} after {} s", S::WHAT, patience.as_secs()))
            .why(format!("it was {last} when it was last looked at"));
        let console = match aws.identity.partition.as_str() {
            "aws" => format!("https://{}.console.aws.amazon.com/{}", aws.region, S::console(id)),
            _ => return Err(error.hint("`kup up` or `kup down` goes on from here")),
        };
        Err(error.hint(format!("{console} shows it")).hint("`kup up` or `kup down` goes on from here"))
    }

    /// The thing as it is seen by another round than that, begun at that time or later: one of somebody else who waits, or an own one
    /// for all. Whoever holds the lock asks for everybody; who comes after finds the answer.
    async fn look(&self, aws: &Aws, id: &str, since: Instant, after: u64) -> Result<(u64, Option<S>)> {
        let mut round = self.round.lock().await;
        if let (Some(begun), Some(seen)) = (round.begun, round.seen.get(id))
            && begun >= since
            && round.number != after
        {
            return Ok((round.number, seen.clone()));
        }
        if !round.seen.contains_key(id) {
            round.pause = SHORTEST;
        }
        if let Some(begun) = round.begun {
            sleep_until(begun + round.pause).await;
        }
        let ids: Vec<String> = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let begun = Instant::now();
        let mut read = S::read(aws, &ids).await?;
        let seen: BTreeMap<String, Option<S>> = ids
            .into_iter()
            .map(|id| {
                let one = read.remove(&id);
                (id, one)
            })
            .collect();
        let same = seen.iter().all(|(id, now)| {
            let before = round.seen.get(id).and_then(Option::as_ref);
            before.map(S::state) == now.as_ref().map(S::state)
        });
        round.pause = if same { (round.pause * 3 / 2).min(LONGEST) } else { SHORTEST };
        (round.begun, round.number, round.seen) = (Some(begun), round.number + 1, seen);
        Ok((round.number, round.seen.get(id).cloned().flatten()))
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
