//! The cluster's keys and certificates, in its bucket: one object, read into memory and written back whole. Whoever writes holds the
//! cluster's lock, or has only renewed certificates: so that nobody's work is lost all the same, what is written takes the place of what
//! was read, and of nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use tokio::sync::Mutex;

use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Fault};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::error::{Context as _, Error, Result};
use crate::pki::Pki;
use crate::pki::files::Memory;

/// What it calls.
pub const NEEDS: &[Need] = &[
    need("s3:GetObject", Scope::Bucket),
    // Without it S3 says "denied" of an object that is not there.
    implied("s3:ListBucket", "s3:GetObject", Scope::Bucket),
    need("s3:PutObject", Scope::Bucket),
];

/// The object: of all that is in the bucket, machines may read it least of all.
const KEY: &str = "pki/keys.json";

/// The cluster's PKI, as it was read or made.
pub struct Secrets {
    /// The PKI.
    pub pki: Arc<Pki>,
    files: Arc<Memory>,
    stored: Mutex<Stored>,
}

/// As it is in the bucket.
struct Stored {
    files: BTreeMap<String, String>,
    /// The object's tag; none if there is no object.
    tag: Option<String>,
}

impl Secrets {
    /// Reads it; none if there is none.
    pub async fn read(aws: &Aws) -> Result<Option<Secrets>> {
        let what = || format!("the keys of cluster {} could not be read from its bucket {}", aws.cluster, aws.bucket());
        let call = aws.s3.get_object().bucket(aws.bucket()).key(KEY).expected_bucket_owner(&aws.identity.account);
        let object = match call.send().await.failure() {
            Ok(object) => object,
            Err(failure) if failure.fault == Fault::Gone => return Ok(None),
            Err(failure) => return Err(failure.error(what())),
        };
        let tag = object.e_tag.clone();
        let bytes = object.body.collect().await.with_context(what)?.to_vec();
        // The parser's words would quote what it could not read.
        let files = serde_json::from_slice(&bytes).map_err(|_| Error::new(what()).why("what is there is damaged"))?;
        Secrets::of(Stored { files, tag }).await.map(Some)
    }

    /// Reads it.
    ///
    /// # Errors
    /// There is none: nobody has brought the cluster up yet.
    pub async fn require(aws: &Aws) -> Result<Secrets> {
        Secrets::read(aws).await?.ok_or_else(|| {
            Error::new(format!("the keys of cluster {} are not in its bucket {}", aws.cluster, aws.bucket()))
                .hint(format!("`kup up {}` makes the cluster, or goes on where it was stopped", aws.flags()))
        })
    }

    /// Keeps other clusters' keys of Secrets beside the cluster's own ([`Pki::adopt`]), by somebody who holds its lock.
    ///
    /// # Errors
    /// The cluster has no keys of its own; AWS does not take the change.
    pub async fn adopt(aws: &Aws, keys: &[String]) -> Result<()> {
        let mut secrets = Secrets::require(aws).await?;
        let pki = Arc::get_mut(&mut secrets.pki).ok_or_else(|| Error::new("the cluster's keys are in use"))?;
        pki.adopt(keys)?;
        secrets.save(aws).await
    }

    /// Makes a PKI, and keeps it before anything is made by it.
    pub async fn make(aws: &Aws) -> Result<Secrets> {
        let secrets = Secrets::of(Stored { files: BTreeMap::new(), tag: None }).await?;
        secrets.save(aws).await?;
        Ok(secrets)
    }

    async fn of(stored: Stored) -> Result<Secrets> {
        let files = Arc::new(Memory::of(stored.files.clone()));
        let kept = files.clone();
        // An RSA key takes a second to make.
        let pki = tokio::task::spawn_blocking(move || Pki::of(kept)).await.context("making the certificates broke off")??;
        Ok(Secrets { pki: Arc::new(pki), files, stored: Mutex::new(stored) })
    }

    /// Writes it back, if it has changed since.
    ///
    /// # Errors
    /// Somebody else has changed it meanwhile; nothing is written then.
    pub async fn save(&self, aws: &Aws) -> Result<()> {
        let mut stored = self.stored.lock().await;
        let now = self.files.all();
        if stored.files == now {
            return Ok(());
        }
        let what = || format!("the keys of cluster {} could not be kept in its bucket {}", aws.cluster, aws.bucket());
        let text = serde_json::to_vec(&now).with_context(what)?;
        let call = aws.s3.put_object().bucket(aws.bucket()).key(KEY).expected_bucket_owner(&aws.identity.account);
        let call = match &stored.tag {
            Some(tag) => call.if_match(tag),
            None => call.if_none_match("*"),
        };
        let tag = match call.content_type("application/json").body(ByteStream::from(text)).send().await.failure() {
            Ok(put) => put.e_tag,
            Err(failure) if matches!(failure.fault, Fault::Exists | Fault::Gone | Fault::Blocked) => {
                // By a call of this one whose answer was lost, perhaps.
                let again = Secrets::read(aws).await?;
                let there = match again {
                    Some(secrets) => secrets.stored.into_inner(),
                    None => Stored { files: BTreeMap::new(), tag: None },
                };
                if there.files != now {
                    return Err(Error::new(what())
                        .why("another kup has changed them in the meantime")
                        .hint("wait for it to end, then try again: nothing but certificates has to be made anew"));
                }
                there.tag
            }
            Err(failure) => return Err(failure.error(what())),
        };
        *stored = Stored { files: now, tag };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_sdk_s3::operation::get_object::GetObjectOutput;
    use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
    use aws_smithy_mocks::{Rule, mock};

    use super::*;
    use crate::aws::testing::{aws, coded, mocked};

    const KEYS: &str = r#"{"encryption.key":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}"#;

    fn there(text: &'static str, tag: &'static str) -> Rule {
        mock!(aws_sdk_s3::Client::get_object)
            .then_output(move || GetObjectOutput::builder().e_tag(tag).body(text.as_bytes().to_vec().into()).build())
    }

    #[tokio::test]
    async fn what_is_written_takes_the_place_of_what_was_read_and_of_nothing_else() {
        let second = mock!(aws_sdk_s3::Client::put_object)
            .match_requests(|put| put.if_match() == Some("2") && put.if_none_match().is_none())
            .then_output(|| PutObjectOutput::builder().e_tag("3").build());
        let first = mock!(aws_sdk_s3::Client::put_object)
            .match_requests(|put| put.if_match() == Some("1"))
            .then_output(|| PutObjectOutput::builder().e_tag("2").build());
        let read = there(KEYS, "1");
        let aws = Aws { s3: mocked!(aws_sdk_s3, MatchAny, [&read, &first, &second]), ..aws() };
        let secrets = Secrets::read(&aws).await.unwrap().unwrap();
        // What was missing there was made.
        secrets.save(&aws).await.unwrap();
        secrets.save(&aws).await.unwrap();
        assert_eq!((first.num_calls(), second.num_calls()), (1, 0), "what has not changed is not written");
        crate::pki::files::Files::write(secrets.files.as_ref(), "more", "x").unwrap();
        secrets.save(&aws).await.unwrap();
        assert_eq!(second.num_calls(), 1);
    }

    #[tokio::test]
    async fn what_another_wrote_meanwhile_is_not_lost() {
        let refused = mock!(aws_sdk_s3::Client::put_object).then_error(|| {
            PutObjectError::generic(coded("PreconditionFailed", "At least one of the pre-conditions did not hold"))
        });
        let (read, again) = (there(KEYS, "1"), there(r#"{"encryption.key":"another"}"#, "2"));
        let aws = Aws { s3: mocked!(aws_sdk_s3, Sequential, [&read, &refused, &again]), ..aws() };
        let secrets = Secrets::read(&aws).await.unwrap().unwrap();
        let error = secrets.save(&aws).await.unwrap_err();
        assert!(error.to_string().contains("another kup has changed them"), "{error}");
    }

    #[tokio::test]
    async fn keys_of_another_cluster_are_kept_beside_the_own_one() {
        let put = mock!(aws_sdk_s3::Client::put_object)
            .match_requests(|put| {
                let body = put.body().bytes().unwrap_or_default();
                let all: BTreeMap<String, String> = serde_json::from_slice(body).unwrap();
                all["decryption.keys"] == "theirs\n" && all["encryption.key"].starts_with("MDEy")
            })
            .then_output(|| PutObjectOutput::builder().e_tag("2").build());
        let read = there(KEYS, "1");
        let aws = Aws { s3: mocked!(aws_sdk_s3, MatchAny, [&read, &put]), ..aws() };
        Secrets::adopt(&aws, &["theirs".into()]).await.unwrap();
        assert_eq!(put.num_calls(), 1);
    }
}
