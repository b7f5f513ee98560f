//! One `up` or `down` per cluster at a time: a locked file in the cluster's state directory, with the owner's name in it.
//!
//! The lock itself is the kernel's (flock), so that an owner that died leaves nothing to clear; the text is only for the message.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Context, Error, Result};
use crate::state;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its process.
    pub pid: u32,
    /// The host it runs on: state directories can be shared.
    pub host: String,
    /// When it took the lock (RFC 3339, UTC).
    pub since: String,
    /// What it does, as typed.
    pub command: String,
}

/// A cluster held by this process. Dropping it frees the cluster, and removes the state directory if nothing else came to be in it.
#[derive(Debug)]
#[must_use = "the cluster is free again as soon as this is dropped"]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of the cluster whose state directory this is (made if absent). `command` is what the user typed.
    ///
    /// Never waits: if another process holds it, the error names that process.
    pub fn take(cluster_dir: &Path, command: &str) -> Result<Lock> {
        let path = cluster_dir.join("lock");
        let what = || format!("cannot lock {}", path.display());
        // A previous owner may remove the file (and its directory) between our opening and locking it: then look again.
        for _ in 0..100 {
            state::private_dir(cluster_dir)?;
            let file = match OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e).with_context(what),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy(cluster_dir, file)),
                Err(e) => return Err(e).with_context(what),
            }
            let mut lock = Lock { file, path: path.clone() };
            if lock.is_current() {
                lock.sign(command).with_context(what)?;
                return Ok(lock);
            }
        }
        Err(Error::new(what()).why("it is removed and made again all the time").hint("try again"))
    }

    /// Whether the locked file is still the one that others would open.
    fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    fn sign(&mut self, command: &str) -> std::io::Result<()> {
        let owner = Owner {
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            since: OffsetDateTime::now_utc()
                .replace_nanosecond(0)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH)
                .format(&Rfc3339)
                .unwrap_or_default(),
            command: command.to_owned(),
        };
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&serde_json::to_vec(&owner)?)?;
        self.file.flush()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still held, so nobody can have taken it. If it was removed with the directory, another's may stand there now.
        if self.is_current() {
            // What can't be removed stays as an unlocked file, which the next owner takes.
            let _ = fs::remove_file(&self.path);
            if let Some(dir) = self.path.parent() {
                let _ = fs::remove_dir(dir);
            }
        }
    }
}

fn busy(cluster_dir: &Path, mut file: File) -> Error {
    let mut text = String::new();
    let owner = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str::<Owner>(&text).ok());
    let cluster = cluster_dir.file_name().unwrap_or_default().to_string_lossy();
    let error = Error::new(format!("cluster {cluster} is being changed by another kup"));
    match owner {
        Some(o) => error
            .why(format!("`{}` (process {} on {}) has held it since {}", o.command, o.pid, o.host, o.since))
            .hint("wait for it to end, or stop it, then try again"),
        None => error.why("its owner has not written its name yet").hint("try again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Result<tempfile::TempDir> {
        tempfile::tempdir().context("no directory")
    }

    #[test]
    fn a_second_one_is_refused_by_the_first_ones_name() -> Result<()> {
        let dir = dir()?;
        let cluster = dir.path().join("local/c1");
        let lock = Lock::take(&cluster, "kup up --name c1")?;
        let text = Lock::take(&cluster, "kup down").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            text.contains("cluster c1") && text.contains("`kup up --name c1`") && text.contains(&std::process::id().to_string()),
            "{text}"
        );
        drop(lock);
        assert!(!cluster.exists(), "nothing else was in it");
        let _again = Lock::take(&cluster, "kup down")?;
        Ok(())
    }

    #[test]
    fn a_dead_owners_lock_is_taken() -> Result<()> {
        let dir = dir()?;
        fs::write(dir.path().join("lock"), r#"{"pid":1,"host":"h","since":"","command":"kup up"}"#).context("no file")?;
        let lock = Lock::take(dir.path(), "kup down")?;
        let text = fs::read_to_string(dir.path().join("lock")).context("no file")?;
        assert!(text.contains("kup down") && !text.contains("kup up"), "{text}");
        drop(lock);
        Ok(())
    }

    #[test]
    fn state_of_a_cluster_survives_its_lock() -> Result<()> {
        let dir = dir()?;
        let lock = Lock::take(dir.path(), "kup up")?;
        fs::write(dir.path().join("config.yaml"), "x").context("no file")?;
        drop(lock);
        assert!(dir.path().join("config.yaml").exists());
        assert!(!dir.path().join("lock").exists());
        Ok(())
    }

    #[test]
    fn a_removed_directory_frees_nobody_elses_lock() -> Result<()> {
        let dir = dir()?;
        let cluster = dir.path().join("c");
        let ours = Lock::take(&cluster, "kup down")?;
        fs::remove_dir_all(&cluster).context("not removed")?;
        let theirs = Lock::take(&cluster, "kup up")?;
        drop(ours);
        assert!(Lock::take(&cluster, "third").is_err(), "theirs must still hold");
        drop(theirs);
        Ok(())
    }
}
