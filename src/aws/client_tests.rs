#![allow(clippy::unwrap_used)]

use super::*;
use crate::aws::testing;

fn blocked() -> Failure {
    Failure { fault: Fault::Blocked, code: "DependencyViolation".into(), message: "in use".into(), request: None, call: None }
}

/// As clients have it, with other limits.
fn waiting(at_first: Duration, then: Duration) -> Aws {
    Aws { patience: Patience { at_first, then, ..Patience::default() }, ..testing::aws() }
}

const FOR_EVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_is_blocked_is_tried_until_nothing_is_in_the_way() {
    let (aws, mut tries) = (waiting(FOR_EVER, Duration::ZERO), 0);
    let work = || {
        tries += 1;
        std::future::ready(if tries < 3 { Err(blocked()) } else { Ok(tries) })
    };
    assert_eq!(aws.until_unblocked("no subnet", work).await.unwrap(), 3);
    assert_eq!(aws.patience.limit(), FOR_EVER, "nothing stayed");
}

#[tokio::test]
async fn behind_something_that_stays_less_is_waited_also_by_those_who_wait_already() {
    let aws = waiting(FOR_EVER, Duration::ZERO);
    let mut tries = 0;
    let work = || {
        tries += 1;
        if tries == 2 {
            // Meanwhile, elsewhere.
            aws.clone().something_stays();
        }
        std::future::ready(Err::<(), _>(blocked()))
    };
    let text = aws.until_unblocked("no subnet", work).await.unwrap_err().to_string();
    assert!(text.contains("no subnet") && text.contains("DependencyViolation: in use"), "{text}");
    assert_eq!(tries, 2);
    let mut later = 0;
    let work = || {
        later += 1;
        std::future::ready(Err::<(), _>(blocked()))
    };
    assert!(aws.until_unblocked("no VPC", work).await.is_err());
    assert_eq!(later, 1);
    // Another cluster of the same login has nothing to do with it.
    assert_eq!(aws.of("other").patience.limit(), BLOCKED);
}

#[tokio::test]
async fn the_end_of_one_wait_shortens_the_next_and_other_failures_end_it_at_once() {
    let aws = waiting(Duration::ZERO, Duration::ZERO);
    let denied = || std::future::ready(Err::<(), _>(Failure { fault: Fault::Denied, ..blocked() }));
    assert!(aws.until_unblocked("no VPC", denied).await.is_err());
    assert!(!aws.patience.stuck.load(Ordering::Relaxed), "a denial is told to who sweeps, not here");
    assert!(aws.until_unblocked("no VPC", || std::future::ready(Err::<(), _>(blocked()))).await.is_err());
    assert!(aws.patience.stuck.load(Ordering::Relaxed));
}
