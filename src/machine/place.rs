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
    // The script is the archive's last member: if it is there, everything before it is whole. The last line is the proof that all ran
    // to its end, since an exit status of 0 is also what a cut link gives.
    let command = "set -e; umask 077; dir=$(mktemp -d /var/lib/kup-incoming.XXXXXX); trap 'rm -rf \"$dir\"' EXIT; cd \"$dir\"; tar -xpf -; sh ./place.sh; sh ./prune.sh; echo kup-placed";
    let output = ssh.run(command, archive, DEADLINE).await?;
    let text = output.text();
    let Some(paths) = text.strip_suffix("kup-placed\n") else {
        return Err(Error::new(format!("placing files on {} was cut off", ssh.machine().name)).hint("kup up does it again"));
    };
    Ok(paths.lines().map(str::to_owned).collect())
}

/// A tar archive of the files below `root/`, their sums, their list and the script.
fn archive(files: &[File]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let (mut sums, mut list) = (String::new(), String::new());
    for file in files {
        append(&mut builder, &format!("root{}", file.path), file.mode, &file.contents)?;
        sums.push_str(&format!("{}  {}\n", hex::encode(Sha256::digest(&file.contents)), file.path));
        let kind = match file.kind {
            FileKind::Keep => "keep",
            FileKind::Seed => "seed",
        };
        let units = if file.units.is_empty() { "-".to_owned() } else { file.units.join(",") };
        list.push_str(&format!("{:o} {kind} {units} {}\n", file.mode, file.path));
    }
    append(&mut builder, "sums", 0o600, sums.as_bytes())?;
    append(&mut builder, "list", 0o600, list.as_bytes())?;
    append(&mut builder, "prune.sh", 0o600, templates::text("containerd/prune.sh")?.as_bytes())?;
    append(&mut builder, "place.sh", 0o600, templates::text("node/place.sh")?.as_bytes())?;
    builder.into_inner().context("cannot build an archive")
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(mode);
    header.set_entry_type(tar::EntryType::Regular);
    builder.append_data(&mut header, path, contents).with_context(|| format!("cannot add {path} to an archive"))
}
