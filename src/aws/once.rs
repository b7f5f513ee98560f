//! Making what AWS takes no token for exactly once: a call whose answer was lost is not simply made again, as the SDK would, but what it
//! made is looked for first. VPCs, internet gateways, DHCP options and public addresses are such. Where a name is the token, it is taken.

use std::time::Duration;

use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::config::retry::RetryConfig;
use tokio::time::sleep;

use super::fault::{Failure, Fault};

/// How often it is tried.
const ATTEMPTS: u32 = 6;
/// The pause after the first try that came to nothing; each is twice as long as the one before.
const PAUSE: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_millis(500) };
/// How often it is looked after a call that may have taken effect, since EC2 lists what is new a moment later.
const LOOKS: u32 = 3;
/// How often it is looked for what AWS says exists.
const LOOKS_FOR_TAKEN: u32 = 8;

/// For the call that makes it, so that the SDK does not send it again: `call.customize().config_override(alone())`.
pub fn alone() -> Builder {
    Builder::new().retry_config(RetryConfig::disabled())
}

/// Makes one thing by `make`, one call that is [`alone`]. If it stays open whether that took effect, `look` says what is there.
///
/// # Errors
/// What `make` failed with, where trying again is no use or was done often enough; what `look` failed with.
pub async fn once<T, M, L>(make: impl Fn() -> M, look: impl Fn() -> L) -> Result<T, Failure>
where
    M: Future<Output = Result<T, Failure>>,
    L: Future<Output = Result<Option<T>, Failure>>,
{
    let (mut pause, mut left) = (PAUSE, ATTEMPTS);
    loop {
        left -= 1;
        let failure = match make().await {
            Ok(made) => return Ok(made),
            Err(failure) => failure,
        };
        let open = open(&failure);
        if left == 0 || !(open || failure.fault == Fault::Throttled) {
            return Err(failure);
        }
        if open && let Some(there) = seen(LOOKS, &look).await? {
            return Ok(there);
        }
        sleep(pause).await;
        pause *= 2;
    }
}

/// What has the name that a call was refused for, as soon as `look` sees it: that a name is taken is known before what has it. None if it is
/// not to be seen, so that it can't be the cluster's own.
///
/// # Errors
/// What `look` failed with.
pub async fn taken<T, E, L>(look: impl Fn() -> L) -> Result<Option<T>, E>
where
    L: Future<Output = Result<Option<T>, E>>,
{
    seen(LOOKS_FOR_TAKEN, look).await
}

async fn seen<T, E, L>(looks: u32, look: impl Fn() -> L) -> Result<Option<T>, E>
where
    L: Future<Output = Result<Option<T>, E>>,
{
    for _ in 0..looks {
        if let Some(there) = look().await? {
            return Ok(Some(there));
        }
        sleep(PAUSE).await;
    }
    Ok(None)
}

/// Whether the call may have taken effect: there was no answer, or one that the service itself is broken.
fn open(failure: &Failure) -> bool {
    matches!(failure.fault, Fault::Network | Fault::Down) || failure.fault == Fault::Other && failure.code.is_empty()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;

    fn failure(fault: Fault, code: &str) -> Failure {
        Failure { fault, code: code.into(), message: "lost".into(), request: None, call: None }
    }

    /// A world in which the first `lost` calls fail so, of which the one numbered `effect` takes effect, and lists show it after `unseen` looks.
    struct World {
        lost: u32,
        fault: Fault,
        code: &'static str,
        effect: u32,
        unseen: u32,
        calls: Cell<u32>,
        looks: Cell<u32>,
    }

    impl World {
        async fn run(&self) -> Result<u32, Failure> {
            let make = || {
                let call = self.calls.get() + 1;
                self.calls.set(call);
                ready(if call <= self.lost { Err(failure(self.fault, self.code)) } else { Ok(call) })
            };
            let look = || {
                self.looks.set(self.looks.get() + 1);
                let there = self.calls.get() >= self.effect && self.looks.get() > self.unseen;
                ready(Ok(there.then_some(self.effect)))
            };
            once(make, look).await
        }
    }

    fn world(lost: u32, fault: Fault, code: &'static str, effect: u32, unseen: u32) -> World {
        World { lost, fault, code, effect, unseen, calls: Cell::new(0), looks: Cell::new(0) }
    }

    #[tokio::test]
    async fn what_a_lost_call_made_is_found_and_not_made_again() {
        for (fault, code) in [(Fault::Network, ""), (Fault::Down, "InternalError"), (Fault::Other, "")] {
            let world = world(1, fault, code, 1, 2);
            assert_eq!((world.run().await.unwrap(), world.calls.get(), world.looks.get()), (1, 1, 3), "{code}");
        }
    }

    #[tokio::test]
    async fn what_was_not_made_is_made_by_the_next_call() {
        let world = world(2, Fault::Network, "", u32::MAX, 0);
        assert_eq!((world.run().await.unwrap(), world.calls.get()), (3, 3));
    }

    #[tokio::test]
    async fn a_refused_call_took_no_effect() {
        let throttled = world(2, Fault::Throttled, "RequestLimitExceeded", u32::MAX, 0);
        assert_eq!((throttled.run().await.unwrap(), throttled.looks.get()), (3, 0));
        for (fault, code) in [(Fault::Quota, "VpcLimitExceeded"), (Fault::Other, "SomethingNew")] {
            let refused = world(1, fault, code, u32::MAX, 0);
            assert_eq!(refused.run().await.unwrap_err().code, code);
            assert_eq!((refused.calls.get(), refused.looks.get()), (1, 0), "{code}");
        }
    }

    #[tokio::test]
    async fn what_has_a_name_is_seen_a_moment_later() {
        let looks = Cell::new(0);
        let after = |number| {
            let looks = &looks;
            move || {
                looks.set(looks.get() + 1);
                ready(Ok::<_, Failure>((looks.get() >= number).then_some("role")))
            }
        };
        assert_eq!(taken(after(3)).await.unwrap(), Some("role"));
        looks.set(0);
        assert_eq!(taken(after(u32::MAX)).await.unwrap(), None, "somebody else's");
        assert_eq!(looks.get(), LOOKS_FOR_TAKEN);
    }

    #[tokio::test]
    async fn it_ends() {
        let world = world(u32::MAX, Fault::Network, "", u32::MAX, 0);
        assert!(world.run().await.is_err());
        assert_eq!(world.calls.get(), ATTEMPTS);
    }
}
