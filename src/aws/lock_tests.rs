//! When a lock counts, and who may take it over.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::sync::{Arc, Mutex};

use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::types::error::NoSuchKey;
use aws_smithy_mocks::mock;

use super::*;
use crate::aws::testing::{aws, coded, mocked};
use crate::error::Kind;

const NOW: Duration = Duration::ZERO;

#[test]
fn a_living_process_holds_its_lock_until_its_time_is_over() {
    let me = Holder::new("kup up").unwrap();
    assert!(me.place.is_some() && me.began.is_some());
    assert!(!me.is_gone(NOW) && !me.is_gone(LIFE));
    assert!(me.is_gone(LIFE + Duration::from_secs(1)));
}

#[test]
fn a_dead_process_of_this_machine_holds_nothing() {
    let me = Holder::new("kup up").unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let owner = Owner { pid: child.id(), ..me.owner.clone() };
    let dead = Holder { owner, began: began(child.id()).or(Some(1)), ..me.clone() };
    child.wait().unwrap();
    assert!(dead.is_gone(NOW));
    // Its process id went to another one meanwhile.
    assert!(Holder { began: me.began.map(|at| at - 1), ..me.clone() }.is_gone(NOW));
    // Nobody here can say how a process of another machine is.
    let elsewhere = Holder { place: Some("another boot".into()), began: Some(1), ..me };
    assert!(!elsewhere.is_gone(NOW) && elsewhere.is_gone(LIFE * 2));
}

#[test]
fn what_was_written_is_read_again() {
    let content = Content { holder: Some(Holder::new("kup up --name c").unwrap()), nonce: random().unwrap() };
    let text = serde_json::to_string(&content).unwrap();
    assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content);
    assert!(text.contains(r#""command":"kup up --name c""#), "{text}");
}

fn there(holder: Option<Holder>) -> aws_smithy_mocks::Rule {
    mock!(aws_sdk_s3::Client::get_object).then_output(move || {
        let body = serde_json::to_vec(&Content { holder: holder.clone(), nonce: "n".into() }).unwrap();
        GetObjectOutput::builder().e_tag("old").body(body.into()).build()
    })
}

fn written(condition: fn(&aws_sdk_s3::operation::put_object::PutObjectInput) -> bool) -> aws_smithy_mocks::Rule {
    mock!(aws_sdk_s3::Client::put_object)
        .match_requests(condition)
        .then_output(|| PutObjectOutput::builder().e_tag("new").build())
}

fn elsewhere() -> Holder {
    Holder { id: "theirs".into(), place: Some("another boot".into()), ..Holder::new("kup down --name c").unwrap() }
}

#[tokio::test]
async fn a_held_lock_is_refused_by_its_owners_name() {
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, MatchAny, [&there(Some(elsewhere()))]);
    let text = Lock::take(&aws, "kup up", false).await.unwrap_err().to_string();
    assert!(text.contains("`kup down --name c`") && text.contains("--break-lock"), "{text}");
}

#[tokio::test]
async fn what_is_refused_is_told_with_who_is_at_work() {
    let refused = || Error::usage("this can't be changed");
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, MatchAny, [&there(Some(elsewhere()))]);
    let error = Lock::blame(&aws, refused()).await;
    assert_eq!(error.kind, Kind::Failed);
    assert!(error.to_string().contains("`kup down --name c`") && error.to_string().contains("can't be changed"), "{error}");
    // Nobody is, or nobody knows.
    let denied = mock!(aws_sdk_s3::Client::get_object).then_error(|| GetObjectError::generic(coded("AccessDenied", "no")));
    for rule in [there(None), denied] {
        aws.s3 = mocked!(aws_sdk_s3, MatchAny, [&rule]);
        assert_eq!(Lock::blame(&aws, refused()).await.to_string(), refused().to_string());
    }
}

#[tokio::test]
async fn a_lock_is_taken_and_given_back_on_conditions_alone() {
    let none = mock!(aws_sdk_s3::Client::get_object)
        .then_error(|| GetObjectError::NoSuchKey(NoSuchKey::builder().meta(coded("NoSuchKey", "")).build()));
    let first = written(|put| put.if_none_match() == Some("*") && put.if_match().is_none());
    let back = written(|put| put.if_match() == Some("new"));
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, MatchAny, [&none, &first, &back]);
    let done = Lock::take(&aws, "kup up", false).await.unwrap().during(&Report::silent(), async { Ok(1) }).await;
    assert_eq!(done.unwrap(), 1);
    assert_eq!(back.num_calls(), 1);
}

#[tokio::test]
async fn a_free_and_a_broken_one_are_taken_over_by_their_tag() {
    for (holder, force) in [(None, false), (Some(elsewhere()), true)] {
        let over = written(|put| put.if_match() == Some("old"));
        let mut aws = aws();
        aws.s3 = mocked!(aws_sdk_s3, MatchAny, [&there(holder), &over]);
        let lock = Lock::take_if_there(&aws, "kup up", force).await.unwrap().unwrap();
        assert_eq!(over.num_calls(), 1);
        drop(lock);
    }
}

#[tokio::test]
async fn who_is_too_late_is_told_who_was_faster() {
    let free = there(None);
    let late = mock!(aws_sdk_s3::Client::put_object).then_error(|| PutObjectError::generic(coded("PreconditionFailed", "")));
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, Sequential, [&free, &late, &there(Some(elsewhere()))]);
    let text = Lock::take(&aws, "kup up", false).await.unwrap_err().to_string();
    assert!(text.contains("`kup down --name c`"), "{text}");
}

/// A lock that was taken, on a bucket that then answers like this: to the word that gives it back, and to who looks why that was refused.
async fn given_back(code: &'static str, seen: aws_smithy_mocks::Rule, make: bool) -> Option<Error> {
    let none = mock!(aws_sdk_s3::Client::get_object)
        .then_error(|| GetObjectError::NoSuchKey(NoSuchKey::builder().meta(coded("NoSuchKey", "")).build()));
    let first = written(|put| put.if_none_match() == Some("*"));
    let back = mock!(aws_sdk_s3::Client::put_object).then_error(move || PutObjectError::generic(coded(code, "")));
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, Sequential, [&none, &first, &back, &seen]);
    let lock = match make {
        true => Lock::take(&aws, "kup up", false).await.unwrap(),
        false => Lock::take_if_there(&aws, "kup down", false).await.unwrap().unwrap(),
    };
    lock.release().await.unwrap()
}

fn no_bucket() -> aws_smithy_mocks::Rule {
    mock!(aws_sdk_s3::Client::get_object).then_error(|| GetObjectError::generic(coded("NoSuchBucket", "")))
}

#[tokio::test]
async fn a_loss_that_is_found_at_the_end_is_told_too() {
    let text = given_back("PreconditionFailed", there(Some(elsewhere())), true).await.unwrap().to_string();
    assert!(text.contains("was taken away") && text.contains("`kup down --name c`"), "{text}");
    let text = given_back("PreconditionFailed", there(None), true).await.unwrap().to_string();
    assert!(text.contains("broken by force"), "{text}");
    let text = given_back("NoSuchBucket", no_bucket(), true).await.unwrap().to_string();
    assert!(text.contains("somebody removed the cluster") && text.contains("kup up"), "{text}");
    // Whoever removes a cluster misses its bucket least of all.
    assert_eq!(given_back("NoSuchBucket", no_bucket(), false).await, None);
}

#[tokio::test]
async fn work_whose_lock_was_lost_has_failed_whatever_came_of_it() {
    for (outcome, words) in [
        (Ok(()), "broken by force"),
        (Err(Error::new("no SSH key").why("no such file")), "what was under way then failed: no SSH key: no such file"),
    ] {
        let late = mock!(aws_sdk_s3::Client::put_object).then_error(|| PutObjectError::generic(coded("PreconditionFailed", "")));
        let first = written(|put| put.if_match() == Some("old"));
        let mut aws = aws();
        aws.s3 = mocked!(aws_sdk_s3, Sequential, [&there(None), &first, &late, &there(None)]);
        let lock = Lock::take(&aws, "kup up", false).await.unwrap();
        let error = lock.during(&Report::silent(), async { outcome }).await.unwrap_err();
        assert!(error.what == "the lock of cluster kubernetes was taken away" && error.to_string().contains(words), "{error}");
    }
    // Whoever stops it has said so.
    let late = mock!(aws_sdk_s3::Client::put_object).then_error(|| PutObjectError::generic(coded("PreconditionFailed", "")));
    let first = written(|put| put.if_match() == Some("old"));
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, Sequential, [&there(None), &first, &late, &there(None)]);
    let lock = Lock::take(&aws, "kup up", false).await.unwrap();
    let stopped = async { Err::<(), _>(Error::new("interrupted").kind(Kind::Interrupted)) };
    assert_eq!(lock.during(&Report::silent(), stopped).await.unwrap_err().kind, Kind::Interrupted);
}

#[tokio::test]
async fn a_lock_given_back_by_a_call_whose_answer_was_lost_is_no_loss() {
    let nonce = Arc::new(Mutex::new(String::new()));
    let written_nonce = nonce.clone();
    let none = mock!(aws_sdk_s3::Client::get_object)
        .then_error(|| GetObjectError::NoSuchKey(NoSuchKey::builder().meta(coded("NoSuchKey", "")).build()));
    let first = written(|put| put.if_none_match() == Some("*"));
    let late = mock!(aws_sdk_s3::Client::put_object)
        .match_requests(move |put| {
            let content: Content = serde_json::from_slice(put.body().bytes().unwrap()).unwrap();
            *written_nonce.lock().unwrap() = content.nonce;
            true
        })
        .then_error(|| PutObjectError::generic(coded("PreconditionFailed", "")));
    let ours = mock!(aws_sdk_s3::Client::get_object).then_output(move || {
        let body = serde_json::to_vec(&Content { holder: None, nonce: nonce.lock().unwrap().clone() }).unwrap();
        GetObjectOutput::builder().e_tag("new").body(body.into()).build()
    });
    let mut aws = aws();
    aws.s3 = mocked!(aws_sdk_s3, Sequential, [&none, &first, &late, &ours]);
    assert_eq!(Lock::take(&aws, "kup up", false).await.unwrap().release().await.unwrap(), None);
}
