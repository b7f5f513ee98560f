//! Puts container images into the nodes' stores: an archive is streamed to every node's containerd, all nodes at once.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{self, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::engine::{Engine, EngineKind, MOVE};
use crate::error::{Context, Error, Result};
use crate::machine::{BUNDLE_DIR, Machine};
use crate::report::event::Unit;
use crate::report::{Report, Span};

/// A way to run a command on a machine with a stream as its stdin.
#[trait_variant::make(Send)]
pub trait Transport: Sync {
    /// Runs `command` (a program and its arguments) as root; the error holds what it wrote to stderr.
    async fn exec_with_input(
        &self,
        machine: &Machine,
        command: &[String],
        input: impl AsyncRead + Unpin + Send,
    ) -> Result<String>;
}

/// Through the container engine, for machines that are its containers.
impl Transport for Engine {
    async fn exec_with_input(
        &self,
        machine: &Machine,
        command: &[String],
        input: impl AsyncRead + Unpin + Send,
    ) -> Result<String> {
        let args = ["exec", "-i", &machine.name].into_iter().map(str::to_owned).chain(command.iter().cloned());
        self.run_with_input(MOVE, args, input).await
    }
}

/// A command for a node's containerd. CRI, and so kubelet, looks for images in the namespace `k8s.io`.
fn ctr(words: &[&str]) -> Vec<String> {
    let program = format!("{BUNDLE_DIR}/bin/ctr");
    [program.as_str(), "--namespace", "k8s.io", "images"].iter().chain(words).map(|w| (*w).to_owned()).collect()
}

/// Streams an archive (of `docker save`, `podman save` or an OCI layout; compressed or not) to all machines at once.
/// Returns the names under which nodes know its images.
pub async fn load(
    transport: &impl Transport,
    machines: &[Machine],
    archive: &Path,
    title: &str,
    report: &Report,
) -> Result<Vec<String>> {
    let span = report.step(format!("load {title}"));
    let parts = machines.iter().map(|machine| {
        let part = span.child(&machine.name);
        async move {
            let outcome = to_one(transport, machine, archive, &part).await;
            part.close(outcome).map_err(|e| e.within(format!("cannot load {title} into {}", machine.name)))
        }
    });
    let outcomes = futures::future::join_all(parts).await;
    let mut said = String::new();
    let mut failed: Option<Error> = None;
    for outcome in outcomes {
        match outcome {
            Ok(words) => said = words,
            Err(e) => {
                failed = Some(match failed {
                    None => e,
                    Some(first) => first.why(e.to_string()),
                });
            }
        }
    }
    let names = match (failed, machines.first()) {
        (Some(error), _) => Err(error),
        (None, None) => Ok(Vec::new()),
        (None, Some(first)) => {
            transport.exec_with_input(first, &ctr(&["ls"]), tokio::io::empty()).await.map(|stored| imported(&said, &stored))
        }
    };
    span.close(names)
}

async fn to_one(transport: &impl Transport, machine: &Machine, archive: &Path, span: &Span) -> Result<String> {
    let what = || format!("cannot read {}", archive.display());
    let file = tokio::fs::File::open(archive).await.with_context(what)?;
    let total = file.metadata().await.with_context(what)?.len();
    let counted = Counted { inner: file, span, done: 0, total };
    transport.exec_with_input(machine, &ctr(&["import", "-"]), counted).await
}

/// The names of what was imported, in full. `ctr images import` itself only shows them cut off after 40 letters, with blanks for
/// hyphens, so they are found in `ctr images ls` (name, type, digest, …) by that beginning, and by digest where one name is another's.
pub fn imported(said: &str, stored: &str) -> Vec<String> {
    let saved = said.lines().filter_map(|l| l.split_once('\t')).filter(|(_, end)| end.trim() == "saved");
    let beginnings: Vec<&str> = saved.map(|(name, _)| name.trim()).filter(|name| !name.is_empty()).collect();
    let digests: Vec<&str> = said.split_whitespace().filter(|w| w.starts_with("sha256:")).collect();
    let rows = stored.lines().filter_map(|l| {
        let mut words = l.split_whitespace();
        Some((words.next()?, words.nth(1)?))
    });
    let alike: Vec<(&str, &str)> =
        rows.filter(|(name, _)| beginnings.iter().any(|b| name.replace('-', " ").starts_with(b))).collect();
    let exact: Vec<&str> = alike.iter().filter(|(_, digest)| digests.contains(digest)).map(|(name, _)| *name).collect();
    let names = if exact.is_empty() { alike.into_iter().map(|(name, _)| name).collect() } else { exact };
    names.into_iter().map(str::to_owned).collect()
}

/// Saves images of the engine's own into one archive, which the returned guard removes.
pub async fn save(engine: &Engine, images: &[String], report: &Report) -> Result<tempfile::TempPath> {
    for image in images {
        if !engine.has_image(image).await? {
            return Err(Error::new(format!("{image} is neither a file nor an image that {} has", engine.name()))
                .hint(format!("`{} images` lists them; or give the path of an archive", engine.name())));
        }
    }
    let cache = crate::state::cache_dir()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make the directory {}", cache.display()))?;
    let file = tempfile::Builder::new()
        .prefix("image-")
        .suffix(".tar")
        .tempfile_in(&cache)
        .context("cannot make a file for the image")?;
    let path = file.into_temp_path();
    let shown = PathBuf::from(&path).display().to_string();
    let mut args: Vec<&str> = match engine.kind() {
        // podman refuses to write several images, or into a file that is there, unless told so.
        EngineKind::Podman => vec!["save", "--quiet", "--multi-image-archive", "--format=docker-archive", "--output", &shown],
        EngineKind::Docker => vec!["save", "--output", &shown],
    };
    args.extend(images.iter().map(String::as_str));
    let span = report.step(format!("save {}", images.join(", ")));
    std::fs::remove_file(&path).context("cannot make room for the image")?;
    span.close(engine.run(MOVE, args).await)?;
    Ok(path)
}

/// A reader that says how far it is.
struct Counted<'a, R> {
    inner: R,
    span: &'a Span,
    done: u64,
    total: u64,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let poll = Pin::new(&mut this.inner).poll_read(context, buffer);
        let read = (buffer.filled().len() - before) as u64;
        // One event per MiB is plenty for a display.
        if (this.done + read) >> 20 != this.done >> 20 || (read > 0 && this.done + read == this.total) {
            this.span.progress(this.done + read, Some(this.total), Unit::Bytes);
        }
        this.done += read;
        poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_what_ctr_says() {
        let said = "registry.k8s.io/e2e test images/agnhost:\tsaved\t\napplication/vnd.oci.image.manifest.v1+json sha256:91\n\
            Importing\telapsed: 1.0 s\ttotal:   0.0 B\t(0.0 B/s)\t\n";
        let stored = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
            registry.k8s.io/e2e-test-images/agnhost:2.66.1 application/x sha256:91 1.0 MiB linux/amd64 -\n\
            registry.k8s.io/e2e-test-images/agnhost:2.50 application/x sha256:50 1.0 MiB linux/amd64 -\n\
            registry.k8s.io/pause:3.10 application/x sha256:33 1.0 KiB linux/amd64 -\n\
            sha256:aa application/x sha256:91 1.0 MiB linux/amd64 -\n";
        assert_eq!(imported(said, stored), ["registry.k8s.io/e2e-test-images/agnhost:2.66.1"]);
        let index = said.replace("sha256:91", "sha256:00");
        assert_eq!(imported(&index, stored).len(), 2, "without a digest to go by, all that look alike");
        assert_eq!(imported("nothing", stored), Vec::<String>::new());
    }
}
