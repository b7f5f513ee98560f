//! Backups in the cluster's bucket, below `backups/`. Masters may read and write there, minions may not even look.

use std::io::Write as _;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures::StreamExt as _;

use super::{Listing, Store};
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Fault};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::backup::snapshot::{hash, nameless};
use crate::backup::{Backup, Snapshot, about, data};
use crate::error::{Context as _, Error, Result};

/// What this calls.
pub const NEEDS: &[Need] = &[
    need("s3:GetObject", Scope::Bucket),
    implied("s3:ListBucket", "s3:ListObjectsV2", Scope::Bucket),
    need("s3:PutObject", Scope::Bucket),
    implied("s3:PutObject", "s3:CreateMultipartUpload", Scope::Bucket),
    implied("s3:PutObject", "s3:UploadPart", Scope::Bucket),
    implied("s3:PutObject", "s3:CompleteMultipartUpload", Scope::Bucket),
    need("s3:AbortMultipartUpload", Scope::Bucket),
    need("s3:DeleteObject", Scope::Bucket),
];

/// Where in the bucket.
const PREFIX: &str = "backups/";
/// Bytes that are sent at once, and held in memory. S3 takes at least 5 MiB and at most 10,000 parts: this is enough for 156 GiB.
const PART: u64 = 16 << 20;
/// How many small objects are read at once.
const PARALLEL: usize = 16;

/// Backups in the bucket of a cluster.
#[derive(Debug, Clone)]
pub struct Bucket(Aws);

impl Bucket {
    /// Of the cluster of these clients.
    pub fn of(aws: Aws) -> Bucket {
        Bucket(aws)
    }

    async fn one(&self, name: &str) -> Result<Backup> {
        let what = || format!("{name} could not be read from the bucket {}", self.0.bucket());
        let key = format!("{PREFIX}{}", about(name));
        let call = self.0.s3.get_object().bucket(self.0.bucket()).key(key).expected_bucket_owner(&self.0.identity.account);
        let bytes = call.send().await.explain(what())?.body.collect().await.with_context(what)?.to_vec();
        let backup = Backup::parse(&String::from_utf8(bytes).with_context(what)?)?;
        if backup.name != name {
            return Err(Error::new(what()).why(format!("it tells of {}", backup.name)));
        }
        Ok(backup)
    }

    async fn put_bytes(&self, file: &str, kind: &str, bytes: Vec<u8>) -> Result<()> {
        let call = self.0.s3.put_object().bucket(self.0.bucket()).key(format!("{PREFIX}{file}"));
        let call = call.expected_bucket_owner(&self.0.identity.account).content_type(kind).body(ByteStream::from(bytes));
        call.send().await.explain(format!("{file} could not be put into the bucket {}", self.0.bucket())).map(drop)
    }

    async fn put_parts(&self, key: &str, id: &str, snapshot: &Snapshot) -> Result<()> {
        let (s3, bucket, account) = (&self.0.s3, self.0.bucket(), &self.0.identity.account);
        let what = || format!("{key} could not be put into the bucket {bucket}");
        let mut parts = Vec::new();
        let mut at = 0;
        while at < snapshot.size {
            let size = PART.min(snapshot.size - at);
            let number = i32::try_from(parts.len() + 1).with_context(what)?;
            let bytes = snapshot.part(at, usize::try_from(size).with_context(what)?)?;
            let call = s3.upload_part().bucket(&bucket).key(key).upload_id(id).part_number(number);
            let sent = call.expected_bucket_owner(account).body(ByteStream::from(bytes)).send().await.explain(what())?;
            let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
            parts.push(part.set_checksum_crc32(sent.checksum_crc32).set_checksum_crc64_nvme(sent.checksum_crc64_nvme).build());
            at += size;
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let call = s3.complete_multipart_upload().bucket(&bucket).key(key).upload_id(id).multipart_upload(all);
        call.expected_bucket_owner(account).send().await.explain(what()).map(drop)
    }
}

impl Store for Bucket {
    fn place(&self) -> String {
        format!("s3://{}/{PREFIX}", self.0.bucket())
    }

    async fn list(&self) -> Result<Listing> {
        let what = || format!("the snapshots in the bucket {} could not be listed", self.0.bucket());
        let call = self.0.s3.list_objects_v2().bucket(self.0.bucket()).prefix(format!("{PREFIX}etcd-"));
        let mut pages = call.expected_bucket_owner(&self.0.identity.account).into_paginator().send();
        let mut sizes = std::collections::BTreeMap::new();
        while let Some(page) = pages.next().await {
            for object in page.explain(what())?.contents.unwrap_or_default() {
                let file = object.key.unwrap_or_default();
                sizes.insert(file.strip_prefix(PREFIX).unwrap_or_default().to_owned(), object.size.unwrap_or_default());
            }
        }
        let files = sizes.keys().cloned().collect();
        let (names, halves) = Listing::names(&files);
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let read = names.into_iter().map(|name| async move {
            let backup = self.one(&name).await;
            (name, backup)
        });
        let read = futures::stream::iter(read);
        let mut listing = Listing { halves, ..Listing::default() };
        for (name, backup) in read.buffer_unordered(PARALLEL).collect::<Vec<_>>().await {
            match backup {
                Ok(backup) if sizes.get(&data(&name)).and_then(|size| u64::try_from(*size).ok()) == Some(backup.size) => {
                    listing.backups.push(backup);
                }
                Ok(_) => listing.odd.push(format!("{name}: the snapshot beside it is missing, or of another size")),
                Err(e) => listing.odd.push(format!("{name}: {}", e.why.last().unwrap_or(&e.what))),
            }
        }
        Ok(listing.sorted())
    }

    async fn put(&self, backup: &Backup, snapshot: &Snapshot) -> Result<()> {
        let what = || format!("the snapshot {} could not be put into the bucket {}", backup.name, self.0.bucket());
        let kind = "application/gzip";
        if snapshot.size <= PART {
            let bytes = snapshot.part(0, usize::try_from(snapshot.size).with_context(what)?)?;
            self.put_bytes(&backup.data(), kind, bytes).await?;
        } else {
            let key = format!("{PREFIX}{}", backup.data());
            let call = self.0.s3.create_multipart_upload().bucket(self.0.bucket()).key(&key).content_type(kind);
            let begun = call.expected_bucket_owner(&self.0.identity.account).send().await.explain(what())?;
            let id = begun.upload_id.unwrap_or_default();
            if let Err(error) = self.put_parts(&key, &id, snapshot).await {
                let call = self.0.s3.abort_multipart_upload().bucket(self.0.bucket()).key(&key).upload_id(&id);
                // What can't be aborted is removed by the bucket's own rule for unfinished uploads.
                let _ = call.expected_bucket_owner(&self.0.identity.account).send().await;
                return Err(error);
            }
        }
        self.put_bytes(&about(&backup.name), "application/json", serde_json::to_vec(backup).with_context(what)?).await
    }

    async fn fetch(&self, backup: &Backup) -> Result<Snapshot> {
        let what = || format!("the snapshot {} could not be had from the bucket {}", backup.name, self.0.bucket());
        let key = format!("{PREFIX}{}", backup.data());
        let call = self.0.s3.get_object().bucket(self.0.bucket()).key(key).expected_bucket_owner(&self.0.identity.account);
        let mut body = call.send().await.explain(what())?.body;
        let (mut file, mut size) = (nameless()?, 0);
        while let Some(bytes) = body.try_next().await.with_context(what)? {
            file.write_all(&bytes).with_context(what)?;
            size += bytes.len() as u64;
        }
        let snapshot = Snapshot::new(file, size, backup.sha256.clone());
        if hash(snapshot.reader()).with_context(what)? != backup.sha256 {
            return Err(Error::new(format!("the snapshot {} is damaged; nothing was changed", backup.name))
                .why("what came from the bucket has another SHA-256 than was put into it")
                .hint("`kup etcd list` shows the others; the bucket keeps earlier versions of what was overwritten"));
        }
        Ok(snapshot)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        // What tells of it first: what is left then is no backup.
        for file in [about(name), data(name)] {
            let call = self.0.s3.delete_object().bucket(self.0.bucket()).key(format!("{PREFIX}{file}"));
            match call.expected_bucket_owner(&self.0.identity.account).send().await.failure() {
                Ok(_) => {}
                Err(failure) if failure.fault == Fault::Gone => {}
                Err(failure) => {
                    return Err(failure.error(format!("{file} could not be removed from the bucket {}", self.0.bucket())));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
