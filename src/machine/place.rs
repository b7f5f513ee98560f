//! Putting files on a machine, in one round trip: an archive goes in, the paths that changed come out.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::files::{File, FileKind};
use super::ssh::Ssh;
use crate::error::{Context, Error, Result};
use crate::templates;

/// How long placing some dozens of small files may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes the machine's files equal to these. Returns the paths that changed; their units are marked for a restart on the machine.
pub async fn place(ssh: &Ssh, files: &[File]) -> Result<Vec<String>> {
    let archive = archive(files)?;
    // The placing script is the archive's last member: if it is there, everything before it is whole. The last line is the proof that all ran
    // to its end, since an exit status of 0 is also what a cut link gives.
    let command = "set -e; umask 077; dir=$(mktemp -d /var/lib/kup-incoming.XXXXXX); trap 'rm -rf \"$dir\"' EXIT; cd \"$dir\"; tar -xpf -; sh ./place.sh; sh ./prune.sh; echo kup-placed";
    let output = ssh.run(command, archive, DEADLINE).await?;
    let text = output.text();
    let Some(paths) = text.strip_suffix("kup-placed\n") else {
        return Err(Error::new(format!("placing files on {} was cut off", ssh.machine().name)).hint("`kup up` does it again"));
    };
    Ok(paths.lines().map(str::to_owned).collect())
}

/// A tar archive of the files below `root/`, their sums, their list and the scripts.
fn archive(files: &[File]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.place(files)?;
    let sum = |file: &File| format!("{}  {}\n", hex::encode(Sha256::digest(&file.contents)), file.path);
    archive.add("sums", 0o600, files.iter().map(sum).collect::<String>().as_bytes())?;
    archive.finish()
}

/// A tar archive whose bytes follow from what is in it: no times, and root's.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Archive(tar::Builder::new(Vec::new()))
    }
}

impl Archive {
    /// Adds the files below `root/`, and the list by which `place.sh` knows them.
    pub(crate) fn place(&mut self, files: &[File]) -> Result<()> {
        let mut list = String::new();
        for file in files {
            self.add(&format!("root{}", file.path), file.mode, &file.contents)?;
            let kind = match file.kind {
                FileKind::Keep => "keep",
                FileKind::Seed => "seed",
            };
            let units = if file.units.is_empty() { "-".to_owned() } else { file.units.join(",") };
            list.push_str(&format!("{:o} {kind} {units} {}\n", file.mode, file.path));
        }
        self.add("list", 0o600, list.as_bytes())
    }

    /// Adds one member.
    pub(crate) fn add(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        self.0.append_data(&mut header, path, contents).with_context(|| format!("cannot add {path} to an archive"))
    }

    /// Adds the scripts, and ends it.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        for (name, template) in [("prune.sh", "containerd/prune.sh"), ("place.sh", "node/place.sh")] {
            self.add(name, 0o600, templates::text(template)?.as_bytes())?;
        }
        self.0.into_inner().context("cannot build an archive")
    }
}
