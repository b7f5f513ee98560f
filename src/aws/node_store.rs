//! Brings what machines start from into the cluster's bucket: what is there already is left alone, and what counts is written last.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use std::{fs, io};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use base64::Engine as _;
use futures::{StreamExt as _, TryStreamExt as _};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::watch;

use super::Aws;
use super::fault::{Explain as _, Failure, Fault, unless_gone};
use super::node_files::{self, Content, FILES, MANIFEST, SCRIPT, object};
use super::node_images::{self, IMAGES, Loaded};
use super::permissions::{Need, Scope, implied, need};
use crate::bundle::Bundle;
use crate::bundle::manifest::File;
use crate::bundle::pack::{self, Pack};
use crate::error::{Context as _, Error, Result};
use crate::report::Span;
use crate::report::event::Unit;

/// Which calls this makes.
pub const NEEDS: &[Need] = &[
    need("s3:GetObject", Scope::Bucket),
    implied("s3:ListBucket", "s3:ListObjectsV2", Scope::Bucket),
    need("s3:PutObject", Scope::Bucket),
    need("s3:DeleteObject", Scope::Bucket),
];

/// How long one file of the bundle may take: 40 MB at 0.3 Mbit/s. A line that lets nothing through is given up long before, by the SDK.
const UPLOAD: Duration = Duration::from_secs(20 * 60);
/// Files on their way at a time: one alone does not fill a line with a delay.
const PARALLEL: usize = 4;
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// What has to be written for the bucket to hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    content: Content,
    /// Files of the bundle that are not there.
    bundle: Vec<File>,
    /// Which of the script and the files are another one, or missing.
    node: Vec<&'static str>,
    manifest: bool,
    /// Whether there is no manifest at all.
    first: bool,
}

/// Compares the bucket with what it should hold. Changes nothing; a bucket that is not there holds nothing.
///
/// # Errors
/// Those of AWS.
pub async fn look(aws: &Aws, mut content: Content) -> Result<Due> {
    let (manifest, node, bundle) = tokio::try_join!(text(aws, MANIFEST), keys(aws, "node/"), keys(aws, "bundle/"))?;
    if node.contains(IMAGES) {
        content.images = text(aws, IMAGES).await?.unwrap_or_default();
    }
    let wanted = content.manifest();
    let said: BTreeSet<&str> = manifest.iter().flat_map(|text| text.lines()).collect();
    let stale =
        |name: &str| !node.contains(name) || !wanted.lines().any(|l| l.ends_with(&format!("  {name}")) && said.contains(l));
    Ok(Due {
        bundle: content.of_the_bundle().filter(|file| !bundle.contains(&object(file))).cloned().collect(),
        node: [SCRIPT, FILES].into_iter().filter(|name| stale(name)).collect(),
        manifest: manifest.as_ref() != Some(&wanted),
        first: manifest.is_none(),
        content,
    })
}

/// An object that is text; none if it is not there.
async fn text(aws: &Aws, key: &str) -> Result<Option<String>> {
    let what = || format!("{key} could not be read in the bucket {}", aws.bucket());
    let call = aws.s3.get_object().bucket(aws.bucket()).key(key).expected_bucket_owner(&aws.identity.account);
    let Some(found) = unless_gone(call.send().await.failure()).map_err(|failure| failure.error(what()))? else {
        return Ok(None);
    };
    let bytes = found.body.collect().await.with_context(what)?.to_vec();
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Puts a compressed archive of images into the bucket, unless it is there. `sha256` is that of the archive itself.
///
/// # Errors
/// Those of AWS.
pub async fn put_archive(aws: &Aws, sha256: &str, pack: Pack, span: &Span) -> Result<()> {
    let key = node_images::object(sha256);
    if keys(aws, &key).await?.contains(&key) {
        return Ok(());
    }
    let total = pack.size;
    let (sender, mut sent) = watch::channel(0_u64);
    let mut work = std::pin::pin!(send(aws, &key, &key, pack, total, Arc::new(sender)));
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            Ok(()) = sent.changed() => span.progress((*sent.borrow_and_update()).min(total), Some(total), Unit::Bytes),
        }
    }
}

/// Makes minions that come later have the images of an archive that is in the bucket, by somebody who holds the cluster's lock. What is of
/// no more use then is removed.
///
/// # Errors
/// Those of AWS; nothing is there that minions start from.
pub async fn remember(aws: &Aws, new: Loaded) -> Result<()> {
    let nothing = || {
        Error::new(format!("nothing that minions start from is in the bucket {}", aws.bucket()))
            .hint(format!("`kup up {}` puts it there", aws.flags()))
    };
    let (manifest, images) = tokio::try_join!(text(aws, MANIFEST), text(aws, IMAGES))?;
    let manifest = manifest.ok_or_else(nothing)?;
    let (list, old) = node_images::with(node_images::parse(&images.unwrap_or_default())?, new);
    let images = node_images::text(&list);
    let changed = node_files::with_images(&manifest, &images);
    if changed == manifest {
        return Ok(());
    }
    put(aws, IMAGES, images.into_bytes()).await?;
    put(aws, MANIFEST, changed.into_bytes()).await?;
    for one in old {
        let key = one.object();
        let call = aws.s3.delete_object().bucket(aws.bucket()).key(&key).expected_bucket_owner(&aws.identity.account);
        unless_gone(call.send().await.failure())
            .map_err(|failure| failure.error(format!("{key} could not be removed from the bucket {}", aws.bucket())))?;
    }
    Ok(())
}

/// The names of all objects that begin so.
async fn keys(aws: &Aws, prefix: &str) -> Result<BTreeSet<String>> {
    let what = || format!("the objects {prefix} of the bucket {} could not be listed", aws.bucket());
    let call = aws.s3.list_objects_v2().bucket(aws.bucket()).prefix(prefix).expected_bucket_owner(&aws.identity.account);
    let mut pages = call.into_paginator().send();
    let mut keys = BTreeSet::new();
    while let Some(page) = pages.next().await {
        match page.failure() {
            Ok(page) => keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key)),
            Err(failure) if failure.fault == Fault::Gone => return Ok(keys),
            Err(failure) => return Err(failure.error(what())),
        }
    }
    Ok(keys)
}

impl Due {
    /// Whether all is there already.
    pub fn is_empty(&self) -> bool {
        !self.manifest && self.node.is_empty() && self.bundle.is_empty()
    }

    /// What is written, for people: `node/node.sh, node/manifest, 3 files of the bundle`.
    pub fn summary(&self) -> String {
        let mut words: Vec<String> = self.node.iter().map(|name| (*name).to_owned()).collect();
        words.extend(self.manifest.then(|| MANIFEST.to_owned()));
        match self.bundle.len() {
            0 => {}
            1 => words.push("1 file of the bundle".into()),
            n => words.push(format!("{n} files of the bundle")),
        }
        words.join(", ")
    }

    /// Writes it. The manifest comes last, so that it never names what is not there: but for the first, of which machines that boot at
    /// that time have to know, and which wait for the bundle by themselves.
    ///
    /// # Errors
    /// Those of AWS, and a bundle that can't be read. What was written stays, and the next `up` goes on from there.
    pub async fn write(&self, aws: &Aws, bundle: &Arc<Bundle>, span: &Span) -> Result<String> {
        if self.is_empty() {
            return Ok("unchanged".into());
        }
        let node = async {
            let each = self.node.iter().map(|name| {
                let bytes = if *name == SCRIPT { self.content.script.clone().into_bytes() } else { self.content.files.clone() };
                put(aws, name, bytes)
            });
            futures::future::try_join_all(each).await?;
            if self.manifest { put(aws, MANIFEST, self.content.manifest().into_bytes()).await } else { Ok(()) }
        };
        if self.first {
            span.waiting("the bucket to take what minions run first");
            node.await?;
            self.upload(aws, bundle, span).await?;
        } else {
            self.upload(aws, bundle, span).await?;
            span.waiting("the bucket to take what minions run");
            node.await?;
        }
        Ok(self.summary())
    }

    /// The bundle's files that are missing, those needed first in front.
    async fn upload(&self, aws: &Aws, bundle: &Arc<Bundle>, span: &Span) -> Result<()> {
        let total: u64 = self.bundle.iter().map(|file| file.size).sum();
        let (sender, mut sent) = watch::channel(0_u64);
        let sender = Arc::new(sender);
        let each = self.bundle.iter().map(|file| upload(aws, bundle, file, sender.clone()));
        let mut work = std::pin::pin!(futures::stream::iter(each).buffered(PARALLEL).try_collect::<Vec<()>>());
        span.waiting("the first file of the bundle to be compressed");
        loop {
            tokio::select! {
                outcome = &mut work => return outcome.map(drop),
                Ok(()) = sent.changed() => span.progress((*sent.borrow_and_update()).min(total), Some(total), Unit::Bytes),
            }
        }
    }
}

async fn put(aws: &Aws, key: &str, bytes: Vec<u8>) -> Result<()> {
    let call = aws.s3.put_object().bucket(aws.bucket()).key(key).expected_bucket_owner(&aws.identity.account);
    call.body(bytes.into()).send().await.failure().map(drop).map_err(|failure| failed(aws, key, failure))
}

async fn upload(aws: &Aws, bundle: &Arc<Bundle>, file: &File, sent: Arc<watch::Sender<u64>>) -> Result<()> {
    let (from, one) = (bundle.clone(), file.clone());
    let packing = tokio::task::spawn_blocking(move || pack::object(&from, &one));
    let pack = packing.await.context("compressing the bundle broke off")??;
    let key = object(file);
    send(aws, &key, &format!("{key} ({})", file.path), pack, file.size, sent).await
}

/// Puts a compressed file into the bucket. `sent` hears how far it is, in parts of `counted`.
async fn send(aws: &Aws, key: &str, called: &str, pack: Pack, counted: u64, sent: Arc<watch::Sender<u64>>) -> Result<()> {
    let Pack { path, size, sha256 } = pack;
    let body = SdkBody::retryable(move || {
        SdkBody::from_body_1_x(Counted { path: path.clone(), file: None, size, read: 0, counted, said: 0, sent: sent.clone() })
    });
    // S3 takes it only if it has this sum.
    let sum = base64::engine::general_purpose::STANDARD.encode(hex::decode(&sha256).context("a checksum is none")?);
    let patient =
        aws_sdk_s3::config::Config::builder().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(UPLOAD).build());
    let call = aws.s3.put_object().bucket(aws.bucket()).key(key).expected_bucket_owner(&aws.identity.account);
    let call = call.content_type("application/gzip").content_length(i64::try_from(size).unwrap_or(i64::MAX)).checksum_sha256(sum);
    let sending = call.body(ByteStream::new(body)).customize().config_override(patient).send();
    sending.await.failure().map(drop).map_err(|failure| failed(aws, called, failure))
}

fn failed(aws: &Aws, key: &str, failure: Failure) -> Error {
    failure
        .error(format!("{key} could not be put into the bucket {}", aws.bucket()))
        .hint("`kup up` goes on with what is not there yet")
}

/// A compressed file on its way. What it tells is counted in bytes of the file itself, since what compressing leaves of the others is
/// not known yet.
struct Counted {
    path: PathBuf,
    file: Option<fs::File>,
    /// Its length, and how much of that has been read.
    size: u64,
    read: u64,
    /// The length of the file itself, and how much of that has been told.
    counted: u64,
    said: u64,
    sent: Arc<watch::Sender<u64>>,
}

impl Counted {
    /// The next piece. Blocks, but shortly: the file was written or checked just now.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.read >= self.size {
            return Ok(None);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(fs::File::open(&self.path)?),
        };
        let mut piece = Vec::with_capacity(CHUNK);
        file.take(CHUNK as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} became shorter", self.path.display())));
        }
        self.read += piece.len() as u64;
        let now = self.counted * self.read / self.size;
        self.sent.send_modify(|sent| *sent += now - self.said);
        self.said = now;
        Ok(Some(piece.into()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // One that broke off is sent again, from its beginning.
        if self.read < self.size {
            self.sent.send_modify(|sent| *sent -= self.said);
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.next().map(|piece| piece.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.read >= self.size
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size - self.read)
    }
}

#[cfg(test)]
#[path = "node_store_tests.rs"]
mod tests;
