//! The resources of the AWS provider, built, changed and removed by the real binary on emulators: LocalStack with the project's plugin,
//! and moto's own server, so that nothing passes by one emulator's luck. No machine boots there: `--until infrastructure`.
//!
//! What is there is asked of the emulator itself, past the line that counts calls and cuts in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs, unreachable_pub)]

mod support;

#[path = "aws/bad_days.rs"]
mod bad_days;
#[path = "aws/crash.rs"]
mod crash;
#[path = "aws/crowd.rs"]
mod crowd;
#[path = "aws/denied.rs"]
mod denied;
#[path = "aws/foreign.rs"]
mod foreign;
#[path = "aws/hostile.rs"]
mod hostile;
#[path = "aws/leftovers.rs"]
mod leftovers;
#[path = "aws/meanwhile.rs"]
mod meanwhile;
#[path = "aws/policy.rs"]
mod policy;
#[path = "aws/story.rs"]
mod story;
#[path = "aws/user.rs"]
mod user;
#[path = "aws/wire.rs"]
mod wire;
#[path = "aws/worlds.rs"]
mod worlds;

use support::Check;
use user::{Account, Backend};

/// Tests on one emulator: those that always run, and long ones.
macro_rules! on {
    ($name:ident, $backend:ident, [$($module:ident::$test:ident),* $(,)?], long [$($long_module:ident::$long:ident),* $(,)?] $(,)?) => {
        mod $name {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> Check {
                $module::$test(Account::open(Backend::$backend).await?).await
            })*
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "long: minutes of calls to an emulator"]
            async fn $long() -> Check {
                $long_module::$long(Account::open(Backend::$backend).await?).await
            })*
        }
    };
}

// LocalStack knows most of AWS, and serves one call at a time.
on!(
    localstack,
    LocalStack,
    [
        story::a_cluster_is_built_changed_and_removed,
        story::three_masters_over_three_zones,
        foreign::an_existing_vpc_is_used_and_left_as_it_was,
        bad_days::each_is_told_with_cause_and_next_command,
    ],
    long [
        crash::killed_at_some_calls_it_goes_on,
        crowd::of_fifty_who_race_one_makes_the_cluster,
        crowd::ten_clusters_are_made_at_once,
        story::interrupted_it_says_what_stands_and_goes_on,
        story::of_two_at_once_the_second_is_refused,
        foreign::what_others_made_stays,
        leftovers::what_kubernetes_made_goes_too,
        leftovers::gc_lists_and_removes_what_a_killed_up_left,
        leftovers::one_name_in_two_regions_is_two_clusters,
        leftovers::a_lock_is_broken_on_demand_only,
    ],
);

on!(
    moto,
    Moto,
    [
        story::a_cluster_is_built_changed_and_removed,
        crash::killed_at_some_calls_it_goes_on,
        crowd::of_fifty_who_race_one_makes_the_cluster,
        crowd::ten_clusters_are_made_at_once,
        story::interrupted_it_says_what_stands_and_goes_on,
        story::of_two_at_once_the_second_is_refused,
        foreign::what_others_made_stays,
        foreign::a_name_that_is_taken_is_not_taken_over,
        foreign::what_people_gave_the_operator_goes_with_it,
        foreign::an_existing_vpc_is_used_and_left_as_it_was,
        leftovers::what_kubernetes_made_goes_too,
        leftovers::gc_lists_and_removes_what_a_killed_up_left,
        leftovers::one_name_in_two_regions_is_two_clusters,
        leftovers::a_lock_is_broken_on_demand_only,
        meanwhile::what_was_not_confirmed_is_asked_for_again,
        meanwhile::who_answers_late_finds_it_made,
        policy::it_is_enough_where_iam_is_enforced,
        policy::nothing_that_the_examples_may_do_is_unused,
    ],
    long [
        crash::killed_at_every_call_it_goes_on,
        story::three_masters_over_three_zones,
        bad_days::each_is_told_with_cause_and_next_command,
        denied::each_action_taken_away_is_named,
    ],
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_day_ends_well() -> Check {
    hostile::one_bad_day_ends_well().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a new account for each of fifty seeds"]
async fn fifty_bad_days_end_well() -> Check {
    hostile::fifty_bad_days_end_well().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ten clusters where AWS takes its time"]
async fn ten_clusters_under_the_token_buckets() -> Check {
    crowd::ten_clusters_under_the_token_buckets().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_where_aws_takes_its_time() -> Check {
    crash::killed_where_aws_takes_its_time().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: minutes of calls to an emulator"]
async fn killed_anywhere_where_aws_takes_its_time() -> Check {
    crash::killed_anywhere_where_aws_takes_its_time().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_worlds() -> Check {
    worlds::some_worlds().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a hundred worlds, half a minute each"]
async fn many_worlds() -> Check {
    worlds::many_worlds().await
}
