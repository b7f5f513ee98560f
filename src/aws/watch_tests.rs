#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_ec2::operation::describe_instances::{DescribeInstancesInput, DescribeInstancesOutput};
use aws_sdk_ec2::types::{Instance, InstanceState, InstanceStateName, Reservation, StateReason};
use aws_smithy_mocks::mock;
use tokio::time::Instant;

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

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_call_a_round() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let rule = mock!(aws_sdk_ec2::Client::describe_instances)
        .match_requests(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            true
        })
        .then_compute_output(|input| {
            // All of them run from the fifth second on.
            static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            let late = BEGUN.get_or_init(Instant::now).elapsed().as_secs() >= 5;
            let state = if late { InstanceStateName::Running } else { InstanceStateName::Pending };
            answer(asked(input).iter().map(|id| instance(id, state.clone())).collect())
        });
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    let begun = Instant::now();
    let ids: Vec<String> = (0..50).map(|n| format!("i-{n}")).collect();
    let all = ids.iter().map(|id| aws.watch.running(&aws, id));
    let seen = futures::future::try_join_all(all).await.unwrap();
    assert_eq!(seen.len(), 50);
    let (took, calls) = (begun.elapsed().as_secs_f64(), calls.load(Ordering::SeqCst));
    assert!((5.0..7.1).contains(&took), "{took} s");
    // The first asks for itself alone, since the others come after it.
    assert!((6..=12).contains(&calls), "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_and_tells_what_it_saw() {
    let rule = mock!(aws_sdk_ec2::Client::describe_instances)
        .match_requests(|_| true)
        .then_compute_output(|input| answer(asked(input).iter().map(|id| instance(id, InstanceStateName::Pending)).collect()));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    let begun = Instant::now();
    let error = aws.watch.running(&aws, "i-1").await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), super::RUNNING.as_secs());
    insta::assert_snapshot!(error, @r"
    the instance i-1 is not running after 300 s
      because: it was pending when it was last looked at
      next: https://us-west-2.console.aws.amazon.com/ec2/home#InstanceDetails:instanceId=i-1 shows it
      next: `kup up` or `kup down` goes on from here
    ");
}

#[tokio::test(start_paused = true)]
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
      next: give another zone or machine type, or try again later
    ");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_has_ended_and_does_not_run_yet() {
    let rule = mock!(aws_sdk_ec2::Client::describe_instances).match_requests(|_| true).then_output(|| answer(Vec::new()));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, MatchAny, [&rule]);
    aws.watch.terminated(&aws, "i-1").await.unwrap();
    let error = aws.watch.running(&aws, "i-1").await.unwrap_err();
    assert_eq!(error.why, ["it was not to be seen when it was last looked at"]);
}
