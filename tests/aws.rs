//! The resources of the AWS provider, built, changed and removed by the real binary on emulators: LocalStack with the project's plugin,
//! and moto's own server, so that nothing passes by one emulator's luck. No machine boots there: `--until infrastructure`.
//!
//! What is there is asked of the emulator itself, past the line that counts calls and cuts in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs, unreachable_pub)]

mod support;

#[path = "aws/bad_days.rs"]
mod bad_days;
#[path = "aws/foreign.rs"]
mod foreign;
#[path = "aws/story.rs"]
mod story;
#[path = "aws/user.rs"]
mod user;
#[path = "aws/wire.rs"]
mod wire;

use support::Check;
use user::{Account, Backend};

/// One test for each emulator.
macro_rules! on_both {
    ($($module:ident::$test:ident),+ $(,)?) => {
        mod localstack {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> Check {
                $module::$test(Account::open(Backend::LocalStack).await?).await
            })+
        }
        mod moto {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> Check {
                $module::$test(Account::open(Backend::Moto).await?).await
            })+
        }
    };
}

on_both!(
    story::a_cluster_is_built_changed_and_removed,
    story::killed_at_ten_calls_it_goes_on,
    story::of_two_at_once_the_second_is_refused,
    story::three_masters_over_three_zones,
    foreign::what_others_made_stays,
    foreign::an_existing_vpc_is_used_and_left_as_it_was,
    bad_days::each_is_told_with_cause_and_next_command,
);
