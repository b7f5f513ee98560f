#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_ec2::operation::describe_instances::{DescribeInstancesInput, DescribeInstancesOutput};
use aws_sdk_ec2::types::{Instance, InstanceState, InstanceStateName, Reservation, StateReason};
use aws_smithy_mocks::mock;
use tokio::time::timeout;

use crate::aws::testing::{aws, mocked};

fn instance(id: &str, state: InstanceStateName) -> Instance {
    Instance::builder().instance_id(id).state(InstanceState::builder().name(state).build()).build()
}

fn answer(instances: Vec<Instance>) -> DescribeInstancesOutput {
    DescribeInstancesOutput::builder().reservations(Reservation::builder().set_instances(Some(instances)).build()).build()
}

/// The ids that a call asked for.
fn asked(input: &DescribeInstancesInput) -> Vec<String> {
    let filter = input.filters().iter().find(|filter| filter.name() == Some("instance-id")).unwrap();
    filter.values().to_vec()
}

#[tokio::test]
async fn all_who_wait_share_one_call_a_round() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let begun = Instant::now();
    let rule = mock!(aws_sdk_ec2::Client::describe_instances)
        .match_requests(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            true
        })
        .then_compute_output(move |input| {
            // All of them run from some time on.
            let late = begun.elapsed().as_millis() >= 1000;
            let state = if late { InstanceStateName::Running } else { InstanceStateName::Pending };
            answer(asked(input).iter().map(|id| instance(id, state.clone())).collect())
        });
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    let ids: Vec<String> = (0..50).map(|n| format!("i-{n}")).collect();
    let all = ids.iter().map(|id| aws.watch.running(&aws, id));
    let seen = futures::future::try_join_all(all).await.unwrap();
    assert_eq!(seen.len(), 50);
    // At 0 s, 0.25 s, 0.5 s, 0.9 s and 1.4 s, the first for whoever came first: not fifty each time.
    let calls = calls.load(Ordering::SeqCst);
    assert!((3..=6).contains(&calls), "{calls} calls");
}

/// Nobody else waits: each round is later than the one before by more, up to a limit.
#[tokio::test]
async fn a_thing_that_does_not_change_is_looked_at_less_often() {
    let at: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let kept = at.clone();
    let rule = mock!(aws_sdk_ec2::Client::describe_instances)
        .match_requests(move |_| {
            kept.lock().unwrap().push(Instant::now());
            true
        })
        .then_compute_output(|input| answer(asked(input).iter().map(|id| instance(id, InstanceStateName::Pending)).collect()));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    let never = |_: Option<&Instance>| Ok(None::<()>);
    aws.watch.instances.until(&aws, "i-1", "running", Duration::from_secs(2), never).await.unwrap_err();
    let at = at.lock().unwrap();
    let pauses: Vec<u128> = at.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
    assert!((3..=5).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses[0] >= 250 && pauses.is_sorted(), "{pauses:?}");
}

#[tokio::test]
async fn a_wait_ends_and_tells_what_it_saw() {
    let rule = mock!(aws_sdk_ec2::Client::describe_instances)
        .match_requests(|_| true)
        .then_compute_output(|input| answer(asked(input).iter().map(|id| instance(id, InstanceStateName::Pending)).collect()));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    let begun = Instant::now();
    let never = |_: Option<&Instance>| Ok(None::<()>);
    let wait = aws.watch.instances.until(&aws, "i-1", "running", Duration::from_secs(1), never);
    let error = wait.await.unwrap_err();
    assert!((1000..1500).contains(&begun.elapsed().as_millis()));
    insta::assert_snapshot!(error, @r"
    the instance i-1 is not running after 1 s
      because: it was pending when it was last looked at
      next: https://us-west-2.console.aws.amazon.com/ec2/home#InstanceDetails:instanceId=i-1 shows it
      next: `kup up` or `kup down` goes on from here
    ");
}

#[tokio::test]
async fn an_instance_that_ends_says_why() {
    let rule = mock!(aws_sdk_ec2::Client::describe_instances).match_requests(|_| true).then_output(|| {
        let reason = StateReason::builder()
            .code("Server.InsufficientInstanceCapacity")
            .message("Server.InsufficientInstanceCapacity: There is not enough capacity to fulfill your request")
            .build();
        let state = InstanceState::builder().name(InstanceStateName::Terminated).build();
        answer(vec![Instance::builder().instance_id("i-1").state(state).state_reason(reason).build()])
    });
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    let error = aws.watch.running(&aws, "i-1").await.unwrap_err();
    insta::assert_snapshot!(error, @r"
    the instance i-1 ended instead of starting
      because: Server.InsufficientInstanceCapacity: There is not enough capacity to fulfill your request
      next: try again later, or give other types to take instead, like `--set aws.masters.otherTypes=[t3a.medium,m5.large]` (aws.minions.otherTypes for minions); another zone in aws.zones needs `kup down --provider aws` first, since volumes stay in theirs
    ");
}

#[tokio::test]
async fn what_is_not_there_has_ended_and_does_not_run_yet() {
    let rule = mock!(aws_sdk_ec2::Client::describe_instances).match_requests(|_| true).then_output(|| answer(Vec::new()));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    aws.watch.terminated(&aws, "i-1").await.unwrap();
    let wait = timeout(Duration::from_millis(700), aws.watch.running(&aws, "i-1"));
    assert!(wait.await.is_err(), "EC2 may not have told all of itself about it yet");
    let never = |_: Option<&Instance>| Ok(None::<()>);
    let error = aws.watch.instances.until(&aws, "i-1", "running", Duration::from_millis(300), never).await.unwrap_err();
    assert_eq!(error.why, ["it was not to be seen when it was last looked at"]);
}
