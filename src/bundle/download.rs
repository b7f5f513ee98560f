//! Downloads that resume where they broke off, end within bounds, and are checked before anyone sees them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Context, Error, Result};
use crate::report::Span;
use crate::report::event::Unit as Count;

use super::store::remove;
use super::{image, verify};

/// Downloads at the same time: enough to fill a line, few enough for upstream's patience.
const AT_ONCE: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of a transfer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries after the first; each goes on where the last one broke off.
const RETRIES: usize = 5;
/// Checksum files, manifests and image configs are far smaller; GitHub's release records are tens of KiB.
const SMALL: usize = 8 << 20;

/// Downloads from upstream, or from a mirror of it.
pub struct Downloader {
    client: Client,
    mirror: Option<Url>,
    parts: PathBuf,
    slots: Semaphore,
}

/// Why a try failed, and whether another may go better.
struct Failure {
    error: Error,
    passing: bool,
}

impl Failure {
    fn passing(error: Error) -> Failure {
        Failure { error, passing: true }
    }

    fn lasting(error: Error) -> Failure {
        Failure { error, passing: false }
    }
}

impl Downloader {
    /// A downloader that keeps unfinished files in `parts`, which nobody else uses. With a mirror, `https://host/path` is asked for as `MIRROR/host/path`.
    /// Proxies are taken from the environment.
    pub fn new(parts: PathBuf, mirror: Option<Url>) -> Result<Downloader> {
        if let Some(url) = mirror.as_ref().filter(|url| !matches!(url.scheme(), "http" | "https")) {
            return Err(Error::usage(format!("the mirror {url} is no web address")).hint("--mirror https://host/path"));
        }
        let client = Client::builder()
            .user_agent(concat!("kup/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // A checksum is worth nothing if it came over an open line; a mirror is the user's own choice.
            .https_only(mirror.is_none())
            .build()
            .context("cannot set up an HTTP client")?;
        Ok(Downloader { client, mirror, parts, slots: Semaphore::new(AT_ONCE) })
    }

    /// The address really asked for.
    pub fn address(&self, url: &str) -> String {
        match &self.mirror {
            Some(mirror) => format!("{}/{}", mirror.as_str().trim_end_matches('/'), url.trim_start_matches("https://")),
            None => url.to_owned(),
        }
    }

    /// Whether that address answers at all within `deadline`.
    pub async fn answers(&self, url: &str, deadline: Duration) -> bool {
        let request = self.client.get(self.address(url)).timeout(deadline).send();
        request.await.is_ok_and(|response| response.status().is_success())
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>> {
        self.slots.acquire().await.context("the downloads were stopped")
    }

    /// A small document.
    pub async fn text(&self, url: &str, accept: &str) -> Result<Vec<u8>> {
        let _slot = self.slot().await?;
        let address = self.address(url);
        let once = || async {
            let request = self.client.get(&address).header(reqwest::header::ACCEPT, accept).timeout(READ_TIMEOUT);
            let mut response = answered(&address, request.send().await)?;
            let mut text = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| broken(&address, &e))? {
                text.extend_from_slice(&chunk);
                if text.len() > SMALL {
                    return Err(Failure::lasting(
                        Error::new(format!("{address} is larger than {SMALL} bytes")).why("a small document was expected"),
                    ));
                }
            }
            Ok(text)
        };
        self.retry(once, &address).await
    }

    /// A file with that sha256, complete and checked. It stays in the directory for unfinished files: the caller moves or removes it.
    pub async fn file(&self, url: &str, sha256: &str, span: &Span) -> Result<PathBuf> {
        let _slot = self.slot().await?;
        let address = self.address(url);
        if sha256.len() != 64 || hex::decode(sha256).is_err() {
            return Err(Error::new(format!("the published checksum of {address} is no sha256")).why(sha256));
        }
        // Named by content, so that what is resumed is the same file; and by address, since images that share a layer are fetched at once.
        let part = self.parts.join(format!("{sha256}-{}.part", &image::sha256(url.as_bytes())[..16]));
        let resumed = part.exists();
        self.retry(|| self.attempt(&address, &part, span), &address).await?;
        match self.check(&address, &part, sha256).await {
            // What was there before may have been another file's beginning: once more from nothing.
            Err(_) if resumed => {
                self.retry(|| self.attempt(&address, &part, span), &address).await?;
                self.check(&address, &part, sha256).await?;
            }
            outcome => outcome?,
        }
        Ok(part)
    }

    async fn retry<T, F: Future<Output = Result<T, Failure>>>(&self, once: impl FnMut() -> F, address: &str) -> Result<T> {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .with_max_times(RETRIES);
        once.retry(delays).when(|failure| failure.passing).await.map_err(|failure| {
            let error = failure.error.within(format!("cannot download {address}"));
            error
                .hint("the same command goes on where it broke off")
                .hint("another source: --mirror URL; without any: kup bundle build")
        })
    }

    async fn attempt(&self, address: &str, part: &Path, span: &Span) -> Result<(), Failure> {
        let local = |e: std::io::Error| Failure::lasting(Error::new(format!("cannot write {}", part.display())).why(e));
        let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(part).await.map_err(local)?;
        let mut have = file.metadata().await.map_err(local)?.len();
        let mut request = self.client.get(address);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let response = request.send().await;
        if have > 0 && response.as_ref().is_ok_and(|r| r.status() == StatusCode::RANGE_NOT_SATISFIABLE) {
            // There is no more: either it was complete, which its checksum will tell, or it is to be had anew.
            return Ok(());
        }
        let mut response = answered(address, response)?;
        if have > 0 && !continues(&response, have) {
            file.set_len(0).await.map_err(local)?;
            have = 0;
        }
        let total = response.content_length().map(|rest| have + rest);
        span.progress(have, total, Count::Bytes);
        while let Some(chunk) = response.chunk().await.map_err(|e| broken(address, &e))? {
            file.write_all(&chunk).await.map_err(local)?;
            have += chunk.len() as u64;
            span.progress(have, total, Count::Bytes);
        }
        file.flush().await.map_err(local)?;
        match total {
            Some(total) if total != have => {
                Err(Failure::passing(Error::new(format!("{address} broke off after {have} of {total} bytes"))))
            }
            _ => Ok(()),
        }
    }

    async fn check(&self, address: &str, part: &Path, sha256: &str) -> Result<()> {
        let path = part.to_owned();
        let (_, found) =
            tokio::task::spawn_blocking(move || verify::hash(&path)).await.context("the check of a download broke off")??;
        if found == sha256 {
            return Ok(());
        }
        remove(part)?;
        Err(Error::new(format!("{address} is not what upstream published; it was removed"))
            .why(format!("expected sha256 {sha256}\nfound sha256 {found}"))
            .hint("try again, or another source with --mirror URL"))
    }
}

/// Whether the server goes on at the byte asked for, rather than from the beginning.
fn continues(response: &Response, have: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with(&format!("bytes {have}-")))
}

fn answered(address: &str, response: reqwest::Result<Response>) -> Result<Response, Failure> {
    let response = response.map_err(|e| broken(address, &e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let error = Error::new(format!("{address} answered {status}"));
    let passing = status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    Err(Failure { error, passing })
}

fn broken(address: &str, e: &reqwest::Error) -> Failure {
    // The innermost source says what happened ("connection refused"); the outer ones only that something did.
    let mut source: &dyn std::error::Error = e;
    while let Some(inner) = source.source() {
        source = inner;
    }
    let error = Error::new(format!("no answer, or only a part of one, from {address}")).why(source);
    if e.is_builder() { Failure::lasting(error) } else { Failure::passing(error) }
}
