//! Everything that explains a cluster's behaviour in one compressed archive, to be looked at elsewhere: no keys, tokens or Secrets.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::objects::{self, Gathered};
use super::{Scrub, Since, silence};
use crate::error::{Context, Error, Result};
use crate::provider::{Finder, FoundMachine};
use crate::report::{Report, Span};
use crate::standing::Standing;
use crate::status::units;
use crate::{state, templates};

/// How long a machine may take to gather its part.
const GATHER: Duration = Duration::from_secs(180);
/// The most that one file of a machine's part may hold, in bytes: what the script cuts long ones to, at most.
const LARGEST: u64 = 32 << 20;

/// What a reader of the archive should know.
const README: &str = "What explains the behaviour of a kup cluster, at one moment.

  status.txt, status.json   what `kup status` said
  cluster.yaml              the config
  machines/NAME/journal/    the units' journals; the last 16 MiB of each
  machines/NAME/pods/       the containers' logs; the last 1 MiB of each
  machines/NAME/etc/, run/  configuration, by a list of files that hold no secret
  machines/NAME/system/     addresses, routes, disks, processes, containers
  api/                      the API's objects, without Secrets and without values of environment variables
  missing.txt               what could not be had, and why

Private keys, tokens and passwords were taken out of every file: `[left out …]` stands where one was. What a program logs in a form of
its own can't be recognised: look through pods/ before you give this to somebody.
";

/// What was written.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// How many files are in it.
    pub files: usize,
    /// Its size in bytes.
    pub bytes: u64,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

/// Gathers from all these machines and the API, and writes the archive. `extra` files, such as the status, go in as they are.
pub async fn write(
    to: &Path,
    standing: &Standing,
    provider: &impl Finder,
    machines: &[&FoundMachine],
    since: Option<&Since>,
    extra: Vec<(String, Vec<u8>)>,
    report: &Report,
) -> Result<Written> {
    let span = report.step("Gathering logs");
    let parts = machines.iter().map(|found| {
        let part = span.child(standing.short(&found.machine.name));
        async {
            let outcome = gather(standing, found, since, &part).await;
            match part.close(outcome) {
                Ok(archive) => (found.machine.name.clone(), Ok(archive)),
                Err(e) => (found.machine.name.clone(), Err(silence(standing, provider, found, &e).await)),
            }
        }
    });
    let (parts, objects) = tokio::join!(futures::future::join_all(parts), objects::gather(standing));
    let mut files = extra;
    files.push(("README".into(), README.into()));
    files.push(("kup.txt".into(), format!("kup {}\n", env!("CARGO_PKG_VERSION")).into_bytes()));
    files.push((
        "cluster.yaml".into(),
        serde_yaml::to_string(&standing.cluster).context("cannot write the cluster's config")?.into_bytes(),
    ));
    let dir = state::cluster_dir(&standing.id)?;
    let (to, root, texts) = (to.to_owned(), format!("{}-logs", standing.id.name), standing.pki().in_memory());
    let work = tokio::task::spawn_blocking(move || pack(&to, &root, &Scrub::of(&dir, &texts)?, files, parts, objects));
    let outcome = work.await.context("writing the archive broke off")?;
    span.close(outcome)
}

/// A machine's part as its own script packs it.
async fn gather(standing: &Standing, found: &FoundMachine, since: Option<&Since>, part: &Span) -> Result<Vec<u8>> {
    part.waiting("SSH");
    let ssh = standing.connect(found).await?;
    part.waiting("its files");
    let mut command = format!("sh -s -- '{}'", since.map(ToString::to_string).unwrap_or_default());
    for unit in units(found.machine.role, found.machine.cloud.is_some()) {
        command.push_str(&format!(" {unit}.service"));
    }
    Ok(ssh.run(&command, templates::text("node/collect.sh")?, GATHER).await?.stdout)
}

/// Writes the archive beside its place, and renames it when it is whole. Blocks.
fn pack(
    to: &Path,
    root: &str,
    scrub: &Scrub,
    files: Vec<(String, Vec<u8>)>,
    parts: Vec<(String, Result<Vec<u8>, String>)>,
    objects: Gathered,
) -> Result<Written> {
    let what = || format!("cannot write {}", to.display());
    let dir = to.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable by its owner alone, from the first byte on.
    let file = tempfile::Builder::new().prefix(".kup-").tempfile_in(dir).with_context(what)?;
    let mut missing = objects.missing;
    let mut archive = Archive::new(file.as_file().try_clone().with_context(what)?, root, scrub);
    for (path, contents) in files.iter().chain(&objects.files) {
        archive.add(path, contents).with_context(what)?;
    }
    for (machine, part) in parts {
        match part {
            Ok(part) => {
                if let Err(e) = archive.add_part(&machine, &part) {
                    missing.push(format!("a part of {machine}: {}", e.to_string().replace('\n', ";")));
                }
            }
            Err(why) => {
                missing.push(format!("{machine}: {}", why.lines().next().unwrap_or_default()));
                archive.add(&format!("machines/{machine}/silent.txt"), why.as_bytes()).with_context(what)?;
            }
        }
    }
    archive.add("missing.txt", missing.iter().map(|m| format!("{m}\n")).collect::<String>().as_bytes()).with_context(what)?;
    let files = archive.files;
    archive.finish().with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    let bytes = file.as_file().metadata().with_context(what)?.len();
    file.persist(to).map_err(|e| e.error).with_context(what)?;
    Ok(Written { files, bytes, missing })
}

/// An archive under construction. Everything goes through the scrubber.
struct Archive<'a> {
    builder: tar::Builder<GzEncoder<File>>,
    root: &'a str,
    scrub: &'a Scrub,
    now: u64,
    files: usize,
}

impl<'a> Archive<'a> {
    fn new(file: File, root: &'a str, scrub: &'a Scrub) -> Archive<'a> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Archive { builder: tar::Builder::new(GzEncoder::new(file, Compression::default())), root, scrub, now, files: 0 }
    }

    fn add(&mut self, path: &str, contents: &[u8]) -> std::io::Result<()> {
        let contents = self.scrub.clean(contents);
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        self.files += 1;
        self.builder.append_data(&mut header, format!("{}/{path}", self.root), contents.as_slice())
    }

    /// Adds what a machine packed. It is only believed to be plain files of a bounded size.
    fn add_part(&mut self, machine: &str, packed: &[u8]) -> Result<()> {
        let what = || format!("what {machine} packed can't be read");
        let mut whole = false;
        for entry in tar::Archive::new(GzDecoder::new(packed)).entries().with_context(what)? {
            let mut entry = entry.with_context(what)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path().with_context(what)?.into_owned();
            if !allowed(&path) {
                return Err(Error::new(format!("{machine} packed {}, which was not asked for", path.display())));
            }
            whole = path == Path::new("end");
            let mut contents = Vec::new();
            entry.by_ref().take(LARGEST).read_to_end(&mut contents).with_context(what)?;
            if !whole {
                self.add(&format!("machines/{machine}/{}", path.display()), &contents).context("cannot write")?;
            }
        }
        if whole { Ok(()) } else { Err(Error::new(format!("what {machine} packed was cut off"))) }
    }

    fn finish(self) -> std::io::Result<()> {
        self.builder.into_inner()?.finish()?.flush()
    }
}

/// Whether a path of a machine's part is plain, and of a kind that may be in there.
fn allowed(path: &Path) -> bool {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let known =
        path == Path::new("end") || ["journal", "pods", "system", "etc", "run/flannel"].iter().any(|p| path.starts_with(p));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let secret = name.ends_with(".key") || name.ends_with(".pem") || name.ends_with("kubeconfig") || name == "encryption.yaml";
    plain && known && !(secret && path.starts_with("etc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_taken_from_a_machine() {
        for good in [
            "end",
            "journal/etcd.log",
            "pods/ns_name_uid/c/0.log",
            "etc/kup/kubelet.yaml",
            "etc/kup/pki/apiserver.crt",
            "run/flannel/subnet.env",
        ] {
            assert!(allowed(Path::new(good)), "{good}");
        }
        for bad in [
            "/etc/passwd",
            "../x",
            "etc/../../x",
            "root/.ssh/id",
            "etc/kup/pki/apiserver.key",
            "etc/kup/node.kubeconfig",
            "etc/kup/encryption.yaml",
            "end/x",
        ] {
            assert!(!allowed(Path::new(bad)), "{bad}");
        }
    }
}
