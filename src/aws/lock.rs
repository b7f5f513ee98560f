//! One `up` or `down` of a cluster at a time, from wherever: an object in its bucket, written only on a condition.
//!
//! Whoever holds the lock renews it while at work. One that was not renewed in time, or whose owner is a process of this machine that is
//! no more, is free for all; of several who try to take it over, the condition lets one through. A lock that is given back stays as an
//! object without holder: removing it would be the one write without a condition.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Aws;
use super::fault::{Failure, Fault};
use super::permissions::{Need, Scope, implied, need};
use super::resource::bucket;
use crate::error::{Context as _, Error, Kind, Result};
use crate::lock::Owner;
use crate::report::Report;

mod object;

use object::{Content, Seen, look, put};

/// How long a lock counts without being renewed.
const LIFE: Duration = Duration::from_secs(120);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(30);

/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often the holder looks whether it stood still: as a stopped process, or with its machine.
const TICK: Duration = Duration::from_secs(1);

/// A tick that is later than this means that it did. Nobody renewed meanwhile, and others may have the lock.
const STILL: Duration = Duration::from_secs(2);

/// How often others may be faster before this one gives up.
const ROUNDS: usize = 10;

/// Which calls this makes, beside those that make the bucket.
pub const NEEDS: &[Need] = &[
    need("s3:GetObject", Scope::Bucket),
    // Without it S3 says "denied" of an object that is not there.
    implied("s3:ListBucket", "s3:GetObject", Scope::Bucket),
    need("s3:PutObject", Scope::Bucket),
];

/// Who holds a lock, beyond what people are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    #[serde(flatten)]
    owner: Owner,
    /// Which call of `take` it was.
    id: String,
    /// Where its process can be looked for: a boot of a machine, and a space of process ids.
    place: Option<String>,
    /// When its process began, in the kernel's count: process ids come again.
    began: Option<u64>,
    /// How long this counts without being renewed, in seconds.
    life: u64,
}

impl Holder {
    fn new(command: &str) -> Result<Holder> {
        let pid = std::process::id();
        let now = OffsetDateTime::now_utc();
        Ok(Holder {
            owner: Owner {
                pid,
                host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                since: now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default(),
                command: command.to_owned(),
            },
            id: random()?,
            place: place(),
            began: began(pid),
            life: LIFE.as_secs(),
        })
    }

    /// Whether the lock is free although somebody holds it. `age` is how long ago it was written.
    fn is_gone(&self, age: Duration) -> bool {
        let here = self.place.is_some() && self.place == place();
        age > Duration::from_secs(self.life) || here && began(self.owner.pid) != self.began
    }
}

/// This boot of this machine, and this space of process ids; none where the kernel doesn't say.
fn place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let ids = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), ids.display()))
}

/// When a process of this machine began; none if there is none.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in which anything may stand.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    // A dead process that nobody has waited for is still listed.
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn random() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("no random numbers")?;
    Ok(hex::encode(bytes))
}

/// A cluster held by this process, until [`Lock::release`] or [`Lock::during`] gives it back.
#[derive(Debug)]
#[must_use = "the lock stays taken until it is released"]
pub struct Lock {
    aws: Aws,
    /// Whether the bucket goes by the work itself, so that it is missed by nobody.
    removes: bool,
    stop: watch::Sender<bool>,
    lost: watch::Receiver<Option<Error>>,
    /// Gives the tag of what was written last.
    renewing: Option<JoinHandle<String>>,
}

impl Lock {
    /// Takes the lock; makes the bucket first if there is none. `command` is what the user typed, and `force` takes it from whoever has it.
    ///
    /// # Errors
    /// Somebody holds it, who is named.
    pub async fn take(aws: &Aws, command: &str, force: bool) -> Result<Lock> {
        match Self::try_take(aws, command, force, true).await? {
            Some(lock) => Ok(lock),
            None => Err(Error::new("the cluster's bucket is gone again").hint("try again")),
        }
    }

    /// As [`Lock::take`], but without a bucket there is nothing to hold: for `down`.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub async fn take_if_there(aws: &Aws, command: &str, force: bool) -> Result<Option<Lock>> {
        Self::try_take(aws, command, force, false).await
    }

    async fn try_take(aws: &Aws, command: &str, force: bool, make: bool) -> Result<Option<Lock>> {
        let what = || format!("cluster {} could not be locked", aws.cluster);
        let me = Holder::new(command)?;
        for _ in 0..ROUNDS {
            let old = match look(aws).await.map_err(|failure| failure.error(what()))? {
                Seen::NoBucket if make => {
                    bucket::make(aws).await?;
                    None
                }
                Seen::NoBucket => return Ok(None),
                Seen::NoLock => None,
                Seen::There { content, etag, age } => {
                    match content.and_then(|content| content.holder) {
                        // By a call whose answer was lost.
                        Some(holder) if holder.id == me.id => return Ok(Some(Lock::hold(aws, me, etag, !make))),
                        Some(holder) if !force && !holder.is_gone(age) => return Err(busy(aws, &holder)),
                        // What is no lock of ours is nobody's.
                        _ => Some(etag),
                    }
                }
            };
            match put(aws, Some(&me), old.as_deref(), &random()?).await {
                Ok(etag) => return Ok(Some(Lock::hold(aws, me, etag, !make))),
                // Somebody was faster.
                Err(failure) if matches!(failure.fault, Fault::Exists | Fault::Gone | Fault::Blocked) => {}
                Err(failure) => return Err(failure.error(what())),
            }
        }
        Err(Error::new(what()).why("others take it and give it back all the time").hint("try again"))
    }

    /// Refuses to go on where somebody holds the lock, without taking it: for work that changes nothing of AWS's.
    ///
    /// # Errors
    /// Somebody holds it, who is named.
    pub async fn refuse_if_held(aws: &Aws) -> Result<()> {
        let what = || format!("whether cluster {} is locked could not be seen", aws.cluster);
        match holder(look(aws).await.map_err(|failure| failure.error(what()))?) {
            Some(holder) => Err(busy(aws, &holder)),
            None => Ok(()),
        }
    }

    /// What to tell whoever is refused for what stands: where somebody is at work on it, who that is, since it may be otherwise in a moment.
    pub async fn blame(aws: &Aws, refused: Error) -> Error {
        // Where that can't be seen, the first word stays.
        match look(aws).await.map(holder) {
            Ok(Some(holder)) => busy(aws, &holder).why(format!("as it is now, there is besides: {refused}")),
            Ok(None) | Err(_) => refused,
        }
    }

    fn hold(aws: &Aws, me: Holder, etag: String, removes: bool) -> Lock {
        let (stop, stopped) = watch::channel(false);
        let (tell, lost) = watch::channel(None);
        let renewing = tokio::spawn(renew(aws.clone(), me, etag, removes, stopped, tell));
        Lock { aws: aws.clone(), removes, stop, lost, renewing: Some(renewing) }
    }

    /// Does `work` under the lock, and gives it back however that ends. If the lock is lost meanwhile, the work is given up; and if that
    /// is found only at the end, the work has failed all the same: others may have undone it.
    ///
    /// # Errors
    /// Those of `work`; the loss of the lock, with what became of the work.
    pub async fn during<T>(self, report: &Report, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut lost = self.lost.clone();
        let taken = async move {
            loop {
                if let Some(error) = lost.borrow_and_update().clone() {
                    return error;
                }
                if lost.changed().await.is_err() {
                    // Nobody renews any more, and nobody took it: the work has removed the bucket.
                    std::future::pending::<()>().await;
                }
            }
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            error = taken => Err(error),
        };
        match (self.release().await, outcome) {
            (Ok(None), outcome) => outcome,
            (Ok(Some(lost)), Ok(_)) => Err(lost),
            (Ok(Some(lost)), Err(error)) if error == lost || error.kind == Kind::Interrupted => Err(error),
            (Ok(Some(lost)), Err(error)) => {
                let words = std::iter::once(error.what).chain(error.why).collect::<Vec<_>>().join(": ");
                Err(lost.why(format!("what was under way then failed: {words}")))
            }
            (Err(e), outcome) => {
                report.warn(format!("{}: it frees itself in {} s", e.what, LIFE.as_secs()));
                outcome
            }
        }
    }

    /// Gives the lock back. A loss of it that was found before or now is returned; a bucket that the work itself removed needs no lock.
    ///
    /// # Errors
    /// AWS does not take the word; the lock is then free after its time.
    pub async fn release(mut self) -> Result<Option<Error>> {
        let Some(renewing) = self.renewing.take() else { return Ok(None) };
        // Fails only if nobody listens any more.
        let _ = self.stop.send(true);
        let what = || format!("the lock of cluster {} could not be given back", self.aws.cluster);
        let etag = renewing.await.with_context(what)?;
        if let Some(lost) = self.lost.borrow().clone() {
            return Ok(Some(lost));
        }
        let nonce = random()?;
        match put(&self.aws, None, Some(&etag), &nonce).await {
            Ok(_) => Ok(None),
            Err(failure) if failure.fault == Fault::Gone && self.removes => Ok(None),
            Err(failure) if matches!(failure.fault, Fault::Exists | Fault::Gone) => {
                match look(&self.aws).await.map_err(|failure| failure.error(what()))? {
                    // By a call whose answer was lost.
                    Seen::There { content: Some(content), .. } if content.nonce == nonce => Ok(None),
                    Seen::NoBucket | Seen::NoLock if self.removes => Ok(None),
                    Seen::NoBucket | Seen::NoLock => Ok(Some(gone(&self.aws))),
                    Seen::There { content, .. } => {
                        Ok(Some(taken(&self.aws, content.and_then(|content| content.holder).as_ref())))
                    }
                }
            }
            Err(failure) => Err(failure.error(what())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(renewing) = &self.renewing {
            renewing.abort();
        }
    }
}

/// Waits until it is time to renew: after the pause, or at once when this process stood still.
async fn pass(pause: Duration) {
    let begun = Instant::now();
    while let Some(left) = pause.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        let before = SystemTime::now();
        tokio::time::sleep(left.min(TICK)).await;
        // The wall clock goes on where a machine sleeps. One that was set back says nothing, and an early renewal does no harm.
        if before.elapsed().is_ok_and(|took| took > TICK + STILL) {
            return;
        }
    }
}

/// Renews the lock until told to stop. Gives the tag of what was written last. `removes` as in [`Lock`].
async fn renew(
    aws: Aws,
    me: Holder,
    mut etag: String,
    removes: bool,
    mut stop: watch::Receiver<bool>,
    lost: watch::Sender<Option<Error>>,
) -> String {
    let (mut written, mut pause) = (Instant::now(), RENEWAL);
    loop {
        tokio::select! {
            () = pass(pause) => {}
            _ = stop.changed() => return etag,
        }
        let begun = Instant::now();
        let nonce = match random() {
            Ok(nonce) => nonce,
            Err(error) => {
                let _ = lost.send(Some(error));
                return etag;
            }
        };
        let error = match put(&aws, Some(&me), Some(&etag), &nonce).await {
            Ok(new) => {
                (etag, written, pause) = (new, begun, RENEWAL);
                continue;
            }
            // The work itself has removed the bucket: nobody else has the lock, and there is none to renew.
            Err(failure) if failure.fault == Fault::Gone && removes => return etag,
            Err(failure) if failure.fault == Fault::Gone => gone(&aws),
            Err(failure) if failure.fault == Fault::Exists => match look(&aws).await {
                Ok(Seen::There { content: Some(Content { holder: Some(holder), .. }), etag: new, .. }) if holder.id == me.id => {
                    // Ours, by a call whose answer was lost.
                    (etag, written, pause) = (new, begun, RENEWAL);
                    continue;
                }
                Ok(Seen::There { content, .. }) => taken(&aws, content.and_then(|content| content.holder).as_ref()),
                Ok(Seen::NoBucket | Seen::NoLock) if removes => return etag,
                Ok(Seen::NoBucket | Seen::NoLock) => gone(&aws),
                Err(failure) => not_renewed(&aws, failure, removes),
            },
            // There is time to try it again.
            Err(_) if written.elapsed() + AGAIN < LIFE => {
                pause = AGAIN;
                continue;
            }
            Err(failure) => not_renewed(&aws, failure, removes),
        };
        // Fails only if nobody listens any more.
        let _ = lost.send(Some(error));
        return etag;
    }
}

/// AWS did not take the holder's word for so long that others may have the lock.
fn not_renewed(aws: &Aws, failure: Failure, removes: bool) -> Error {
    let error = failure.error(format!("the lock of cluster {} could not be renewed", aws.cluster));
    // What `up` leaves behind, it looks up itself.
    if !removes {
        return error;
    }
    error.left("what was not removed until then").hint(format!("`kup down {}` goes on from there", aws.flags()))
}

/// What to type when the lock is lost.
const AFTER_LOSS: &str =
    "what was done and not undone by others stands; `kup up` goes on from there, once nobody else is at work";

fn taken(aws: &Aws, by: Option<&Holder>) -> Error {
    let error = Error::new(format!("the lock of cluster {} was taken away", aws.cluster)).hint(AFTER_LOSS);
    match by {
        Some(by) => error.why(format!("`{}` (process {} on {}) has it now", by.owner.command, by.owner.pid, by.owner.host)),
        None => error.why("it was broken by force, and is free now"),
    }
}

/// As [`taken`], by a removal of all that is the cluster's.
fn gone(aws: &Aws) -> Error {
    Error::new(format!("the lock of cluster {} was taken away", aws.cluster))
        .why(format!("the cluster's bucket {} is gone, and the lock with it: somebody removed the cluster", aws.bucket()))
        .hint(AFTER_LOSS)
}

/// Who holds the lock, unless he is gone.
fn holder(seen: Seen) -> Option<Holder> {
    match seen {
        Seen::There { content, age, .. } => content.and_then(|content| content.holder).filter(|holder| !holder.is_gone(age)),
        Seen::NoBucket | Seen::NoLock => None,
    }
}

fn busy(aws: &Aws, holder: &Holder) -> Error {
    let o = &holder.owner;
    Error::new(format!("cluster {} is being changed by another kup", aws.cluster))
        .why(format!("`{}` (process {} on {}) has held it since {}", o.command, o.pid, o.host, o.since))
        .hint("wait for it to end, or stop it, then try again")
        .hint(format!(
            "if it is no more: its lock ends by itself {} s after its last word, and --break-lock of `kup up` and `kup down` takes it at once",
            holder.life
        ))
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
