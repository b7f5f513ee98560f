//! What of a cluster can't be found again: its PKI, its config, its lock, what its machines start from, and etcd's snapshots.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint, BucketVersioningStatus,
    CreateBucketConfiguration, Delete, ExpirationStatus, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    ObjectIdentifier, ObjectOwnership, PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tag, Tagging, VersioningConfiguration,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::AwsResource;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::permissions::{Need, Scope, Whose, implied, need};
use crate::aws::{Aws, iam, tags};
use crate::error::{Context as _, Error, Result};
use crate::graph::{Change, Cx, Found, Resource};

/// Its only one's name among buckets.
pub const CLUSTER: &str = "cluster";

/// The tag that is set when all else is, and says what that was: reading each setting back would take six calls.
const SETTINGS: &str = "kup.dev/settings";

/// Raised when [`settle`] sets something else than before.
const REVISION: u32 = 1;

/// How long what was replaced or removed can be had back.
const OLD_VERSIONS_DAYS: i32 = 90;

/// How many objects S3 removes in one call.
const BATCH: usize = 1000;

/// How many such calls are under way at once.
const PARALLEL: usize = 4;

/// The cluster's bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name among buckets: [`CLUSTER`].
    pub name: String,
}

impl Default for Bucket {
    fn default() -> Self {
        Bucket { name: CLUSTER.into() }
    }
}

/// The bucket as it was found.
#[derive(Debug, Clone)]
pub struct BucketFound {
    name: String,
    /// What S3 calls it.
    pub bucket: String,
    /// Which settings it has, if all of them were set.
    pub settings: Option<String>,
}

impl Found for BucketFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// What S3 calls it.
    fn id(&self) -> &str {
        &self.bucket
    }
}

impl AwsResource for Bucket {
    const NEEDS: &'static [Need] = &[
        need("s3:GetBucketTagging", Scope::Bucket),
        need("s3:CreateBucket", Scope::Bucket),
        implied("s3:PutBucketOwnershipControls", "s3:CreateBucket", Scope::Bucket),
        implied("s3:GetBucketPublicAccessBlock", "s3:GetPublicAccessBlock", Scope::Bucket),
        implied("s3:PutBucketPublicAccessBlock", "s3:PutPublicAccessBlock", Scope::Bucket),
        implied("s3:GetEncryptionConfiguration", "s3:GetBucketEncryption", Scope::Bucket),
        implied("s3:PutEncryptionConfiguration", "s3:PutBucketEncryption", Scope::Bucket),
        need("s3:PutBucketPolicy", Scope::Bucket),
        need("s3:PutBucketVersioning", Scope::Bucket),
        implied("s3:PutLifecycleConfiguration", "s3:PutBucketLifecycleConfiguration", Scope::Bucket),
        need("s3:PutBucketTagging", Scope::Bucket),
        implied("s3:ListBucketVersions", "s3:ListObjectVersions", Scope::Bucket),
        implied("s3:DeleteObject", "s3:DeleteObjects", Scope::Bucket),
        implied("s3:DeleteObjectVersion", "s3:DeleteObjects", Scope::Bucket),
        implied("s3:ListBucketMultipartUploads", "s3:ListMultipartUploads", Scope::Bucket),
        need("s3:AbortMultipartUpload", Scope::Bucket),
        need("s3:DeleteBucket", Scope::Bucket),
    ];
}

impl Resource for Bucket {
    type Cloud = Aws;
    type Found = BucketFound;
    const KIND: &'static str = "bucket";

    fn name(&self) -> &str {
        &self.name
    }

    fn detail(&self) -> String {
        "private, encrypted, versioned".to_owned()
    }

    fn diff(&self, found: &BucketFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let from = found.settings.clone().unwrap_or_else(|| "unfinished".into());
        match settings(cx.cloud) {
            Ok(to) => Change::if_differs("settings", &from, &to, Change::in_place).into_iter().collect(),
            Err(e) => vec![Change::refuse("settings", from, e)],
        }
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<BucketFound> {
        make(cx.cloud).await
    }

    async fn update(&self, _: &BucketFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<BucketFound> {
        settle(cx.cloud).await
    }

    async fn list(aws: &Aws) -> Result<Vec<BucketFound>> {
        let bucket = aws.bucket();
        let read =
            aws.s3.get_bucket_tagging().bucket(&bucket).expected_bucket_owner(&aws.identity.account).send().await.failure();
        let tags = match read {
            Ok(read) => read.tag_set,
            Err(failure) if failure.code == "NoSuchTagSet" => Vec::new(),
            Err(failure) if failure.fault == Fault::Gone => return Ok(Vec::new()),
            Err(failure) => return Err(failure.error(format!("the bucket {bucket} could not be read"))),
        };
        let settings = tags.into_iter().find(|tag| tag.key == SETTINGS).map(|tag| tag.value);
        Ok(vec![BucketFound { name: CLUSTER.into(), bucket, settings }])
    }

    async fn delete(aws: &Aws, found: &BucketFound) -> Result<()> {
        let (bucket, owner) = (&found.bucket, &aws.identity.account);
        aws.until_unblocked(&format!("the bucket {bucket} could not be removed"), || async {
            // Again each time: another kup, or a machine that is not gone yet, may have written meanwhile.
            if unless_gone(empty(aws, bucket).await)?.is_none() {
                return Ok(());
            }
            unless_gone(aws.s3.delete_bucket().bucket(bucket).expected_bucket_owner(owner).send().await.failure()).map(|_| ())
        })
        .await
    }
}

/// Makes the cluster's bucket, or finishes it.
///
/// # Errors
/// Its name is taken by another account.
pub async fn make(aws: &Aws) -> Result<BucketFound> {
    let bucket = aws.bucket();
    let what = format!("the bucket {bucket} could not be made");
    // The first region has no name here.
    let place = (aws.region != "us-east-1").then(|| {
        CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(aws.region.as_str())).build()
    });
    let foreign = aws
        .until_unblocked(&what, || async {
            let call = aws.s3.create_bucket().bucket(&bucket).set_create_bucket_configuration(place.clone());
            match call.object_ownership(ObjectOwnership::BucketOwnerEnforced).send().await.failure() {
                Ok(_) => Ok(false),
                // By a call that was cut off, or by another kup.
                Err(failure) if failure.code == "BucketAlreadyOwnedByYou" => Ok(false),
                Err(failure) if failure.code == "BucketAlreadyExists" => Ok(true),
                Err(failure) => Err(failure),
            }
        })
        .await?;
    if foreign {
        return Err(Error::new(what)
            .why("another account has a bucket of that name, and names of buckets are unique in the world")
            .hint("give the cluster another --name"));
    }
    settle(aws).await
}

/// Gives the bucket all of its settings. What AWS gives a new bucket by itself is only asked for.
async fn settle(aws: &Aws) -> Result<BucketFound> {
    let bucket = aws.bucket();
    let (s3, owner) = (&aws.s3, &aws.identity.account);
    let what = format!("the bucket {bucket} could not be set up");
    let policy = iam::policy("bucket", &Whose::of(aws))?.to_string();
    let locked = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build();
    let private = aws.until_unblocked(&what, || async {
        let read = s3.get_public_access_block().bucket(&bucket).expected_bucket_owner(owner).send().await.failure();
        if unless_gone(read)?.and_then(|read| read.public_access_block_configuration).as_ref() == Some(&locked) {
            return Ok(());
        }
        let call = s3.put_public_access_block().bucket(&bucket).expected_bucket_owner(owner);
        call.public_access_block_configuration(locked.clone()).send().await.failure().map_err(iam::soon).map(|_| ())
    });
    let encryption = encryption()?;
    let encrypted = aws.until_unblocked(&what, || async {
        let read = s3.get_bucket_encryption().bucket(&bucket).expected_bucket_owner(owner).send().await.failure();
        let rules = unless_gone(read)?.and_then(|read| read.server_side_encryption_configuration).map(|all| all.rules);
        // Whichever it is: an account may have a key of its own as the default.
        if rules.is_some_and(|rules| rules.iter().any(|rule| rule.apply_server_side_encryption_by_default.is_some())) {
            return Ok(());
        }
        let call = s3.put_bucket_encryption().bucket(&bucket).expected_bucket_owner(owner);
        call.server_side_encryption_configuration(encryption.clone()).send().await.failure().map_err(iam::soon).map(|_| ())
    });
    let over_tls = aws.until_unblocked(&what, || async {
        let call = s3.put_bucket_policy().bucket(&bucket).expected_bucket_owner(owner);
        call.policy(&policy).send().await.failure().map_err(iam::soon)
    });
    let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let versioned = aws.until_unblocked(&what, || async {
        let call = s3.put_bucket_versioning().bucket(&bucket).expected_bucket_owner(owner);
        call.versioning_configuration(versioning.clone()).send().await.failure().map_err(iam::soon)
    });
    let lifecycle = lifecycle()?;
    let tidied = aws.until_unblocked(&what, || async {
        let call = s3.put_bucket_lifecycle_configuration().bucket(&bucket).expected_bucket_owner(owner);
        call.lifecycle_configuration(lifecycle.clone()).send().await.failure().map_err(iam::soon)
    });
    tokio::try_join!(private, encrypted, over_tls, versioned, tidied)?;

    let settings = settings(aws)?;
    let mut tags = tags::tags(aws, CLUSTER, None);
    tags.push((SETTINGS.to_owned(), settings.clone()));
    let tags = tags
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect::<std::result::Result<Vec<_>, _>>();
    let tagging = tags.and_then(|tags| Tagging::builder().set_tag_set(Some(tags)).build()).context(&what)?;
    aws.until_unblocked(&what, || async {
        let call = s3.put_bucket_tagging().bucket(&bucket).expected_bucket_owner(owner);
        call.tagging(tagging.clone()).send().await.failure().map_err(iam::soon)
    })
    .await?;
    Ok(BucketFound { name: CLUSTER.into(), bucket, settings: Some(settings) })
}

/// What the tag says of a bucket with all settings as they are now.
fn settings(aws: &Aws) -> Result<String> {
    Ok(format!("{REVISION}-{}", iam::digest(&iam::policy("bucket", &Whose::of(aws))?)))
}

fn encryption() -> Result<ServerSideEncryptionConfiguration> {
    let what = "the bucket's encryption can't be written";
    let by_default =
        ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256).build().context(what)?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(by_default).build();
    ServerSideEncryptionConfiguration::builder().rules(rule).build().context(what)
}

fn lifecycle() -> Result<BucketLifecycleConfiguration> {
    let rule = LifecycleRule::builder()
        .id("what is no longer current")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(OLD_VERSIONS_DAYS).build())
        .abort_incomplete_multipart_upload(AbortIncompleteMultipartUpload::builder().days_after_initiation(1).build())
        .build();
    let what = "the bucket's lifecycle can't be written";
    BucketLifecycleConfiguration::builder().rules(rule.context(what)?).build().context(what)
}

/// Removes all versions of all objects, and uploads that were never finished.
async fn empty(aws: &Aws, bucket: &str) -> std::result::Result<(), Failure> {
    let (versions, uploads) = tokio::try_join!(versions(aws, bucket), uploads(aws, bucket))?;
    let batches: Vec<Vec<ObjectIdentifier>> = versions.chunks(BATCH).map(<[_]>::to_vec).collect();
    let removed =
        futures::stream::iter(batches).map(|batch| remove(aws, bucket, batch)).buffer_unordered(PARALLEL).try_collect::<()>();
    let aborted = futures::stream::iter(uploads).map(|(key, id)| async move {
        let call =
            aws.s3.abort_multipart_upload().bucket(bucket).expected_bucket_owner(&aws.identity.account).key(key).upload_id(id);
        unless_gone(call.send().await.failure()).map(|_| ())
    });
    tokio::try_join!(removed, aborted.buffer_unordered(PARALLEL).try_collect::<()>()).map(|_| ())
}

async fn versions(aws: &Aws, bucket: &str) -> std::result::Result<Vec<ObjectIdentifier>, Failure> {
    let (mut all, mut key, mut version) = (Vec::new(), None, None);
    loop {
        let call = aws.s3.list_object_versions().bucket(bucket).expected_bucket_owner(&aws.identity.account);
        let page = call.set_key_marker(key.clone()).set_version_id_marker(version.clone()).send().await.failure()?;
        let objects = page.versions.unwrap_or_default().into_iter().map(|one| (one.key, one.version_id));
        let markers = page.delete_markers.unwrap_or_default().into_iter().map(|one| (one.key, one.version_id));
        for (key, version) in objects.chain(markers) {
            let one = ObjectIdentifier::builder().set_key(key).set_version_id(version).build();
            all.push(one.map_err(|e| unreadable(&e))?);
        }
        if page.is_truncated != Some(true) {
            return Ok(all);
        }
        (key, version) = onward((key, version), (page.next_key_marker, page.next_version_id_marker))?;
    }
}

/// Where a list is: at a key, and within it at a version or an upload.
type Marker = (Option<String>, Option<String>);

/// Where the next page begins, which S3 lists in the order of the keys: a list that stays where it is, or goes back, has no end.
fn onward(from: Marker, to: Marker) -> std::result::Result<Marker, Failure> {
    if to.0.is_none() || to.0 < from.0 || to == from {
        return Err(unreadable(&format!("after {:?} it goes on at {:?}", from.0.unwrap_or_default(), to.0.unwrap_or_default())));
    }
    Ok(to)
}

async fn uploads(aws: &Aws, bucket: &str) -> std::result::Result<Vec<(String, String)>, Failure> {
    let (mut all, mut key, mut upload) = (Vec::new(), None, None);
    loop {
        let call = aws.s3.list_multipart_uploads().bucket(bucket).expected_bucket_owner(&aws.identity.account);
        let page = call.set_key_marker(key.clone()).set_upload_id_marker(upload.clone()).send().await.failure()?;
        all.extend(page.uploads.unwrap_or_default().into_iter().filter_map(|one| one.key.zip(one.upload_id)));
        if page.is_truncated != Some(true) {
            return Ok(all);
        }
        (key, upload) = onward((key, upload), (page.next_key_marker, page.next_upload_id_marker))?;
    }
}

async fn remove(aws: &Aws, bucket: &str, batch: Vec<ObjectIdentifier>) -> std::result::Result<(), Failure> {
    let batch = Delete::builder().set_objects(Some(batch)).quiet(true).build().map_err(|e| unreadable(&e))?;
    let call = aws.s3.delete_objects().bucket(bucket).expected_bucket_owner(&aws.identity.account).delete(batch);
    // A version that is gone already was removed by a call whose answer was lost.
    let still = |error: &aws_sdk_s3::types::Error| Fault::of_code(error.code().unwrap_or_default()) != Fault::Gone;
    match call.send().await.failure()?.errors.unwrap_or_default().into_iter().find(still) {
        None => Ok(()),
        Some(error) => {
            let code = error.code.unwrap_or_default();
            let message = format!("{}: {}", error.key.unwrap_or_default(), error.message.unwrap_or_default());
            // What S3 could not do now, it may later.
            let fault = if code == "InternalError" { Fault::Blocked } else { Fault::of_code(&code) };
            Err(Failure { fault, code, message, request: None, call: None })
        }
    }
}

/// S3 listed something that can't be named.
fn unreadable(error: &impl std::fmt::Display) -> Failure {
    Failure {
        fault: Fault::Other,
        code: String::new(),
        message: format!("S3's list can't be used: {error}"),
        request: None,
        call: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
    use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
    use aws_sdk_s3::types::ObjectVersion;
    use aws_smithy_mocks::mock;

    use super::*;
    use crate::aws::testing::{aws, mocked};

    /// An account whose bucket lists these keys, one a page.
    fn listing(keys: &'static [&'static str]) -> Aws {
        let asked = AtomicUsize::new(0);
        let page = mock!(aws_sdk_s3::Client::list_object_versions).match_requests(|_| true).then_compute_output(move |_| {
            let at = asked.fetch_add(1, Ordering::Relaxed) % keys.len();
            let object = ObjectVersion::builder().key(keys[at]).version_id("null").build();
            ListObjectVersionsOutput::builder()
                .versions(object)
                .is_truncated(at + 1 < keys.len())
                .next_key_marker(keys[at])
                .next_version_id_marker("null")
                .build()
        });
        let none = mock!(aws_sdk_s3::Client::list_multipart_uploads)
            .match_requests(|_| true)
            .then_output(|| ListMultipartUploadsOutput::builder().build());
        let mut aws = aws();
        aws.s3 = mocked!(aws_sdk_s3, MatchAny, [&page, &none]);
        aws
    }

    #[tokio::test]
    async fn a_list_that_goes_round_in_a_circle_is_left() {
        let all = versions(&listing(&["a", "b", "b/c"]), "bucket").await.unwrap();
        assert_eq!(all.iter().map(ObjectIdentifier::key).collect::<Vec<_>>(), ["a", "b", "b/c"]);
        let error = empty(&listing(&["a", "b", "a", "c"]), "bucket").await.unwrap_err();
        assert!(error.message.contains(r#"after "b" it goes on at "a""#), "{}", error.message);
    }
}
