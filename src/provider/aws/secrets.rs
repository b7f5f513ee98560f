//! The cluster's keys and certificates, in its bucket: one object, read into memory and written back whole, under the cluster's lock.

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
    /// As it is in the bucket.
    stored: Mutex<BTreeMap<String, String>>,
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
        let bytes = object.body.collect().await.with_context(what)?.to_vec();
        // The parser's words would quote what it could not read.
        let stored = serde_json::from_slice(&bytes).map_err(|_| Error::new(what()).why("what is there is damaged"))?;
        Secrets::of(stored).await.map(Some)
    }

    /// Makes a PKI, and keeps it before anything is made by it.
    pub async fn make(aws: &Aws) -> Result<Secrets> {
        let secrets = Secrets::of(BTreeMap::new()).await?;
        secrets.save(aws).await?;
        Ok(secrets)
    }

    async fn of(stored: BTreeMap<String, String>) -> Result<Secrets> {
        let files = Arc::new(Memory::of(stored.clone()));
        let kept = files.clone();
        // An RSA key takes a second to make.
        let pki = tokio::task::spawn_blocking(move || Pki::of(kept)).await.context("making the certificates broke off")??;
        Ok(Secrets { pki: Arc::new(pki), files, stored: Mutex::new(stored) })
    }

    /// Writes it back, if it has changed since.
    pub async fn save(&self, aws: &Aws) -> Result<()> {
        let mut stored = self.stored.lock().await;
        let now = self.files.all();
        if *stored == now {
            return Ok(());
        }
        let what = || format!("the keys of cluster {} could not be kept in its bucket {}", aws.cluster, aws.bucket());
        let text = serde_json::to_vec(&now).with_context(what)?;
        let call = aws.s3.put_object().bucket(aws.bucket()).key(KEY).expected_bucket_owner(&aws.identity.account);
        call.content_type("application/json").body(ByteStream::from(text)).send().await.explain(what())?;
        *stored = now;
        Ok(())
    }
}
