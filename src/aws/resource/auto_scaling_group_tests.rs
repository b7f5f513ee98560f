#![allow(clippy::unwrap_used)]

use aws_sdk_autoscaling::operation::create_auto_scaling_group::{CreateAutoScalingGroupError, CreateAutoScalingGroupOutput};
use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::types::TagDescription;
use aws_smithy_mocks::{Rule, mock};

use super::*;
use crate::aws::testing::{aws, coded, mocked};

fn wanted() -> AutoScalingGroup {
    AutoScalingGroup {
        name: "minions".into(),
        template: Ref::to("minions"),
        subnets: Vec::new(),
        count: 4,
        min: 4,
        max: 4,
        types: vec!["t3.small".into()],
        spot: 0,
        routes: None,
        rules: Vec::new(),
        endpoint: None,
    }
}

fn refusal(code: &'static str, message: &'static str) -> Rule {
    mock!(aws_sdk_autoscaling::Client::create_auto_scaling_group)
        .then_error(move || CreateAutoScalingGroupError::generic(coded(code, message)))
}

fn made() -> Rule {
    mock!(aws_sdk_autoscaling::Client::create_auto_scaling_group).then_output(|| CreateAutoScalingGroupOutput::builder().build())
}

/// A group as AWS tells of it.
fn there(desired: i32, count: &str, status: Option<&str>) -> Seen {
    let tag = |key: &str, value: &str| TagDescription::builder().key(key).value(value).build();
    Seen::builder()
        .auto_scaling_group_name("kubernetes-minions-1a2b3c4d")
        .desired_capacity(desired)
        .min_size(4)
        .max_size(4)
        .vpc_zone_identifier("subnet-2,subnet-1")
        .launch_template(specification("lt-1"))
        .set_status(status.map(str::to_owned))
        .tags(tag(NAME, "minions"))
        .tags(tag(COUNT, count))
        .build()
}

fn fields(group: &AutoScalingGroup, seen: Seen) -> Vec<String> {
    let changes = crate::graph::resource::testing::diff(group, &found(seen), &aws());
    // What it refers to is not known here, and so differs always.
    let known = changes.iter().filter(|c| !["launch template", "subnets"].contains(&c.field.as_str()));
    known.map(|c| format!("{}: {} → {}", c.field, c.from, c.to)).collect()
}

#[tokio::test]
async fn it_waits_for_the_profile_and_for_the_template() {
    let profile = refusal(
        "ValidationError",
        "You must use a valid fully-formed launch template. Value (kup) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
    );
    let template = refusal(
        "ValidationError",
        "You must use a valid fully-formed launch template. The specified launch template, with template ID lt-1, does not exist.",
    );
    let made = made();
    let mut aws = aws();
    aws.autoscaling = mocked!(aws_sdk_autoscaling, Sequential, [&profile, &template, &made]);
    let group = wanted().make(&aws, "lt-1".into(), vec!["subnet-1".into()]).await.unwrap();
    assert_eq!((group.name(), group.desired), ("minions", 4));
    assert_eq!(made.num_calls(), 1);
}

#[tokio::test]
async fn a_group_of_that_name_on_its_way_out_is_waited_for() {
    let exists =
        refusal("AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name is pending delete");
    let leaving = mock!(aws_sdk_autoscaling::Client::describe_auto_scaling_groups).then_output(|| {
        DescribeAutoScalingGroupsOutput::builder().auto_scaling_groups(there(0, "4", Some("Delete in progress"))).build()
    });
    let made = made();
    let mut aws = aws();
    aws.autoscaling = mocked!(aws_sdk_autoscaling, Sequential, [&exists, &leaving, &made]);
    wanted().make(&aws, "lt-1".into(), vec!["subnet-1".into()]).await.unwrap();
    assert_eq!(made.num_calls(), 1);
}

#[tokio::test]
async fn a_typo_is_not_waited_for() {
    let refused = refusal("ValidationError", "The subnet ID 'subnet-1' has no room");
    let mut aws = aws();
    aws.autoscaling = mocked!(aws_sdk_autoscaling, Sequential, [&refused]);
    let error = wanted().make(&aws, "lt-1".into(), vec!["subnet-1".into()]).await.unwrap_err();
    assert_eq!(error.why, ["ValidationError: The subnet ID 'subnet-1' has no room"]);
}

#[test]
fn a_fixed_count_is_kept_and_a_moving_one_is_only_begun_with() {
    assert_eq!(fields(&wanted(), there(4, "4", None)), [""; 0]);
    assert_eq!(fields(&wanted(), there(3, "4", None)), ["count: 3 → 4"]);
    // Between min and max something else says how many there are.
    let moving = AutoScalingGroup { min: 2, max: 10, ..wanted() };
    let seen = |desired, count| AutoScalingGroupFound { min: 2, max: 10, ..found(there(desired, count, None)) };
    assert_eq!(moving.desired(&seen(7, "4")), None);
    assert_eq!(moving.desired(&seen(1, "4")), Some(2));
    assert_eq!(moving.desired(&seen(12, "4")), Some(10));
    // The config's own count was changed from 3 to 4.
    assert_eq!(moving.desired(&seen(7, "3")), Some(4));
    assert_eq!(moving.desired(&seen(4, "3")), None);
}

#[test]
fn types_and_spot_need_a_policy() {
    let mixed = AutoScalingGroup { types: vec!["t3.small".into(), "t3a.small".into()], spot: 40, ..wanted() };
    assert_eq!(fields(&mixed, there(4, "4", None)), ["types:  → t3.small t3a.small", "spot: 0 → 40"]);
    let seen = Seen::builder().mixed_instances_policy(mixed.policy("lt-1")).build();
    let seen = found(seen);
    assert_eq!((seen.types, seen.spot, seen.template.as_deref()), (mixed.types.clone(), 40, Some("lt-1")));
    assert_eq!(fields(&wanted(), there(4, "4", Some("Delete in progress"))), ["state: on its way out → there"]);
}
