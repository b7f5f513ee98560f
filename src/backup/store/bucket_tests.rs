//! What is called of S3 for a backup, and that no call goes to a bucket of another account.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::operation::abort_multipart_upload::AbortMultipartUploadOutput;
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadOutput;
use aws_sdk_s3::operation::delete_object::DeleteObjectOutput;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::operation::upload_part::{UploadPartError, UploadPartOutput};
use aws_sdk_s3::types::Object;
use aws_smithy_mocks::mock;

use super::*;
use crate::aws::testing::{aws, coded, mocked};
use crate::backup::snapshot::tests::{packed, pages};
use crate::backup::tests::backup;

const NAME: &str = "etcd-20261126T131500Z-7-hand";
const OWNER: Option<&str> = Some("123456789012");

fn snapshot(bytes: &[u8]) -> Snapshot {
    let mut file = nameless().unwrap();
    file.write_all(bytes).unwrap();
    Snapshot::new(file, bytes.len() as u64, hash(bytes).unwrap())
}

fn described(bytes: &[u8]) -> Backup {
    backup(NAME, bytes.len() as u64, &hash(bytes).unwrap())
}

fn bucket(s3: aws_sdk_s3::Client) -> Bucket {
    Bucket::of(Aws { s3, ..aws() })
}

/// An object that can be had by its owner.
fn object(file: String, bytes: Vec<u8>) -> aws_smithy_mocks::Rule {
    let key = format!("{PREFIX}{file}");
    mock!(aws_sdk_s3::Client::get_object)
        .match_requests(move |get| get.key() == Some(&key) && get.expected_bucket_owner() == OWNER)
        .then_output(move || GetObjectOutput::builder().body(bytes.clone().into()).build())
}

fn put(file: String) -> aws_smithy_mocks::Rule {
    let key = format!("{PREFIX}{file}");
    mock!(aws_sdk_s3::Client::put_object)
        .match_requests(move |put| put.key() == Some(&key) && put.expected_bucket_owner() == OWNER)
        .then_output(|| PutObjectOutput::builder().build())
}

#[tokio::test]
async fn a_small_one_goes_in_before_what_tells_of_it_and_is_removed_after() {
    let bytes = packed(&pages(3));
    let backup = described(&bytes);
    let (data, told) = (put(data(NAME)), put(about(NAME)));
    bucket(mocked!(aws_sdk_s3, Sequential, [&data, &told])).put(&backup, &snapshot(&bytes)).await.unwrap();
    assert_eq!((data.num_calls(), told.num_calls()), (1, 1));
    let removal = |file: String| {
        let key = format!("{PREFIX}{file}");
        mock!(aws_sdk_s3::Client::delete_object)
            .match_requests(move |delete| delete.key() == Some(&key) && delete.expected_bucket_owner() == OWNER)
            .then_output(|| DeleteObjectOutput::builder().build())
    };
    let (told, data) = (removal(about(NAME)), removal(super::data(NAME)));
    bucket(mocked!(aws_sdk_s3, Sequential, [&told, &data])).remove(NAME).await.unwrap();
    assert_eq!((data.num_calls(), told.num_calls()), (1, 1));
}

#[tokio::test]
async fn a_large_one_goes_in_parts_and_one_that_fails_is_given_up() {
    let bytes = vec![7; usize::try_from(PART).unwrap() + 5];
    let backup = described(&bytes);
    let begin = || {
        mock!(aws_sdk_s3::Client::create_multipart_upload)
            .match_requests(|begin| begin.expected_bucket_owner() == OWNER)
            .then_output(|| CreateMultipartUploadOutput::builder().upload_id("u").build())
    };
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let part = mock!(aws_sdk_s3::Client::upload_part)
        .match_requests(move |part| part.upload_id() == Some("u") && part.expected_bucket_owner() == OWNER)
        .then_output(move || {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            UploadPartOutput::builder().e_tag(format!("part {n}")).build()
        });
    let complete = mock!(aws_sdk_s3::Client::complete_multipart_upload)
        .match_requests(|all| {
            let parts = all.multipart_upload().map(|all| all.parts().iter().map(|p| p.part_number()).collect::<Vec<_>>());
            parts == Some(vec![Some(1), Some(2)]) && all.expected_bucket_owner() == OWNER
        })
        .then_output(|| CompleteMultipartUploadOutput::builder().build());
    let (begun, told) = (begin(), put(about(NAME)));
    let s3 = mocked!(aws_sdk_s3, MatchAny, [&begun, &part, &complete, &told]);
    bucket(s3).put(&backup, &snapshot(&bytes)).await.unwrap();
    assert_eq!((count.load(Ordering::SeqCst), complete.num_calls(), told.num_calls()), (2, 1, 1));

    let broken = mock!(aws_sdk_s3::Client::upload_part).then_error(|| UploadPartError::generic(coded("AccessDenied", "no")));
    let abort = mock!(aws_sdk_s3::Client::abort_multipart_upload)
        .match_requests(|abort| abort.upload_id() == Some("u"))
        .then_output(|| AbortMultipartUploadOutput::builder().build());
    let (begun, told) = (begin(), put(about(NAME)));
    let s3 = mocked!(aws_sdk_s3, MatchAny, [&begun, &broken, &abort, &told]);
    bucket(s3).put(&backup, &snapshot(&bytes)).await.unwrap_err();
    assert_eq!((abort.num_calls(), told.num_calls()), (1, 0), "nothing tells of what is not there");
}

#[tokio::test]
async fn what_is_listed_is_whole_and_what_comes_out_is_what_went_in() {
    let bytes = packed(&pages(3));
    let backup = described(&bytes);
    let half = "etcd-20261126T130000Z-6-timer";
    let size = i64::try_from(bytes.len()).unwrap();
    let listed = move || {
        let object = |file: String, size| Object::builder().key(format!("{PREFIX}{file}")).size(size).build();
        let all = vec![object(data(half), 9), object(data(NAME), size), object(about(NAME), 300)];
        mock!(aws_sdk_s3::Client::list_objects_v2)
            .match_requests(|list| list.prefix() == Some("backups/etcd-") && list.expected_bucket_owner() == OWNER)
            .then_output(move || ListObjectsV2Output::builder().set_contents(Some(all.clone())).build())
    };
    let told = || object(about(NAME), serde_json::to_vec(&backup).unwrap());
    let (list, about, whole) = (listed(), told(), object(data(NAME), bytes.clone()));
    let store = bucket(mocked!(aws_sdk_s3, MatchAny, [&list, &about, &whole]));
    let listing = store.list().await.unwrap();
    assert_eq!((listing.backups, listing.halves), (vec![backup.clone()], vec![half.to_owned()]));
    store.fetch(&backup).await.unwrap().check().unwrap();
    let mut changed = bytes.clone();
    changed[20] ^= 1;
    let other = object(data(NAME), changed);
    let store = bucket(mocked!(aws_sdk_s3, MatchAny, [&other]));
    assert!(store.fetch(&backup).await.unwrap_err().what.contains("damaged"));
}
