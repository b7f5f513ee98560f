//! Taking a snapshot: on a master by the bundle's own etcdctl, checked there by etcdutl, and brought here over SSH.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::snapshot::nameless;
use super::store::prune;
use super::{AnyStore, Backup, Place, Reason, Snapshot, Store as _};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::machine::BUNDLE_DIR;
use crate::machine::ssh::{Ssh, last_lines};
use crate::pki::{Pki, mark};
use crate::report::{Report, Span};
use crate::templates;

/// How long a snapshot may take to be taken and to come here: 8 GiB, etcd's largest database, at 10 MB/s. A dead link is noticed long before.
pub const TRANSFER: Duration = Duration::from_secs(20 * 60);
/// The longest description of a snapshot.
const ABOUT: usize = 16 * 1024;
/// The longest line at the end.
const TRAILER: usize = 256;
/// How the script ends where etcd does not answer, or knows no majority.
const SILENT: i32 = 3;

/// What a backup is taken with.
pub struct Taking<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its keys: of those of Secrets the marks are remembered.
    pub pki: &'a Pki,
    /// Where it goes.
    pub store: &'a AnyStore,
    /// Why.
    pub reason: Reason,
}

impl Taking<'_> {
    /// Takes a backup on the first of these masters whose etcd answers and knows a majority, or else, with a warning, on the first that
    /// answers at all. Then removes what is of no more use.
    ///
    /// # Errors
    /// No backup could be made. `Ok(None)` is that no etcd answers.
    pub async fn run(&self, masters: &[Ssh], span: &Span, report: &Report) -> Result<Option<Backup>> {
        let (mut taken, mut silent, mut failed) = (None, Vec::new(), None);
        'found: for mode in ["send", "send-any"] {
            for ssh in masters {
                span.waiting(format!("a snapshot of etcd on {}", ssh.machine().name));
                match self.on(ssh, mode).await {
                    Ok(got) => {
                        if mode == "send-any" {
                            report.warn(format!(
                                "etcd has no majority: the snapshot of {} may lack what was written last",
                                ssh.machine().name
                            ));
                        }
                        taken = Some(got);
                        break 'found;
                    }
                    Err(Refusal::Silent(error)) => silent.push(error),
                    // Another one may do better.
                    Err(Refusal::Failed(error)) => failed = Some(error),
                }
            }
        }
        let Some((backup, snapshot)) = taken else {
            if let Some(error) = failed {
                return Err(error);
            }
            silent.dedup();
            silent.iter().for_each(|error| report.note(error.to_string()));
            return Ok(None);
        };
        span.waiting(format!("{} to take it in", self.store.place()));
        let checked = snapshot.clone();
        let check = tokio::task::spawn_blocking(move || checked.check());
        check.await.map_err(|e| Error::new("checking the snapshot broke off").why(e))??;
        self.store.put(&backup, &snapshot).await?;
        // The backup is made: what could not be removed is removed next time.
        if let Err(error) = prune(self.store).await {
            report.warn(format!("old snapshots could not be removed: {}", error.what));
        }
        Ok(Some(backup))
    }

    async fn on(&self, ssh: &Ssh, mode: &str) -> Result<(Backup, Snapshot), Refusal> {
        let values = json!({
            "bundle": BUNDLE_DIR,
            "cluster": self.cluster,
            "backups": Place::Directory,
            "encryption_marks": self.pki.secret_keys().map(|key| mark(key)).collect::<Vec<_>>(),
        });
        let script = templates::render("node/etcd-backup.sh", values)?;
        let command = format!("sh -s -- {mode} {}", self.reason.as_str());
        let (backup, snapshot) = Receiver::run_or(ssh, &command, &script, TRANSFER).await?;
        if backup.cluster != self.cluster.name {
            return Err(Error::new(format!("{} gave a snapshot of another cluster", ssh.machine().name)).into());
        }
        Ok((backup, snapshot))
    }
}

/// Why there is no snapshot.
#[derive(Debug)]
pub(super) enum Refusal {
    /// etcd does not answer there, or the machine doesn't.
    Silent(Error),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Failed(error)
    }
}

/// Takes in a snapshot as it comes: a line that tells of it, its bytes, and a line with its sum. Only that last one makes it whole.
pub struct Receiver {
    head: Vec<u8>,
    backup: Option<Backup>,
    file: File,
    left: u64,
    hasher: Sha256,
    tail: Vec<u8>,
}

impl Receiver {
    fn new() -> Result<Receiver> {
        Ok(Receiver { head: Vec::new(), backup: None, file: nameless()?, left: 0, hasher: Sha256::new(), tail: Vec::new() })
    }

    /// Runs a command on a machine that sends a snapshot.
    ///
    /// # Errors
    /// Nothing came, or not all of it; nothing is left of it then.
    pub async fn run(ssh: &Ssh, command: &str, input: &str, deadline: Duration) -> Result<(Backup, Snapshot)> {
        Receiver::run_or(ssh, command, input, deadline).await.map_err(|refusal| match refusal {
            Refusal::Silent(error) | Refusal::Failed(error) => error,
        })
    }

    pub(super) async fn run_or(ssh: &Ssh, command: &str, input: &str, deadline: Duration) -> Result<(Backup, Snapshot), Refusal> {
        let what = || format!("no snapshot came from {}", ssh.machine().name);
        let sent = ssh.exec_writing(command, input, Receiver::new()?, deadline).await;
        let (output, receiver) = sent.map_err(|e| e.within(what()).hint("nothing of it was kept; try again"))?;
        if output.status != 0 {
            let error = Error::new(what()).why(last_lines(&output.stderr, 5));
            return Err(if output.status == SILENT { Refusal::Silent(error) } else { Refusal::Failed(error) });
        }
        let got = receiver.whole().map_err(|e| e.within(what()).hint("nothing of it was kept; try again"))?;
        Ok(got)
    }

    /// What came, if all of it did.
    fn whole(self) -> Result<(Backup, Snapshot)> {
        let backup = self.backup.ok_or_else(|| Error::new("the link was cut before it began"))?;
        let sum = hex::encode(self.hasher.finalize());
        if self.tail != format!("kup-sent {}\n", backup.sha256).as_bytes() {
            return Err(Error::new("the link was cut").why(format!("{} of {} bytes came", backup.size - self.left, backup.size)));
        }
        if sum != backup.sha256 {
            return Err(Error::new("it has another SHA-256 than it was sent with"));
        }
        let snapshot = Snapshot::new(self.file, backup.size, sum);
        Ok((backup, snapshot))
    }

    /// Takes what it can of `bytes`, and says how much that was.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.backup.is_none() {
            let line = bytes.iter().position(|b| *b == b'\n');
            self.head.extend_from_slice(bytes.get(..line.unwrap_or(bytes.len())).unwrap_or_default());
            if self.head.len() > ABOUT {
                return Err(io::Error::other("what comes is no snapshot"));
            }
            let Some(line) = line else { return Ok(bytes.len()) };
            let backup = Backup::parse(&String::from_utf8_lossy(&self.head)).map_err(io::Error::other)?;
            self.left = backup.size;
            self.backup = Some(backup);
            return Ok(line + 1);
        }
        if self.left == 0 {
            self.tail.extend_from_slice(bytes);
            return if self.tail.len() > TRAILER { Err(io::Error::other("more came than a snapshot")) } else { Ok(bytes.len()) };
        }
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let part = bytes.get(..size).unwrap_or_default();
        self.file.write_all(part)?;
        self.hasher.update(part);
        self.left -= size as u64;
        Ok(size)
    }
}

impl Write for Receiver {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() { Ok(0) } else { self.take(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Backups before a change: one for each run, however many changes ask for it.
pub struct BeforeChange {
    store: AnyStore,
    made: tokio::sync::OnceCell<()>,
}

impl BeforeChange {
    /// Into this store.
    pub fn new(store: AnyStore) -> BeforeChange {
        BeforeChange { store, made: tokio::sync::OnceCell::new() }
    }

    /// Makes the backup, or waits until it is made. What can't be saved is told, and is no reason to leave what is broken as it is.
    pub async fn once(&self, cluster: &Cluster, pki: &Pki, masters: &[Ssh], report: &Report) {
        let make = || async {
            let taking = Taking { cluster, pki, store: &self.store, reason: Reason::Change };
            let span = report.step("etcd backup");
            let outcome = taking.run(masters, &span, report).await;
            match outcome {
                Ok(Some(backup)) => span.done_with(backup.name),
                Ok(None) => {
                    span.done_with("none");
                    report.warn("etcd does not answer: there is no backup of what it had before the change");
                }
                Err(error) => {
                    span.fail(&error);
                    report.warn(format!("there is no backup of etcd from before the change: {error}"));
                }
            }
        };
        self.made.get_or_init(make).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backup::snapshot::hash;
    use crate::backup::snapshot::tests::{packed, pages};
    use crate::backup::tests::backup;

    fn sent() -> (Backup, Vec<u8>) {
        let bytes = packed(&pages(9));
        let backup = backup("etcd-20261126T131500Z-7-hand", bytes.len() as u64, &hash(bytes.as_slice()).unwrap());
        let mut all = serde_json::to_vec(&backup).unwrap();
        all.push(b'\n');
        all.extend_from_slice(&bytes);
        all.extend_from_slice(format!("kup-sent {}\n", backup.sha256).as_bytes());
        (backup, all)
    }

    fn received(bytes: &[u8], chunk: usize) -> Result<(Backup, Snapshot)> {
        let mut receiver = Receiver::new().unwrap();
        for chunk in bytes.chunks(chunk) {
            receiver.write_all(chunk).map_err(|e| Error::new(e.to_string()))?;
        }
        receiver.whole()
    }

    #[test]
    fn a_snapshot_comes_in_pieces_of_any_size() {
        let (backup, all) = sent();
        for chunk in [1, 7, 512, all.len()] {
            let (got, snapshot) = received(&all, chunk).unwrap();
            assert_eq!(got, backup);
            snapshot.check().unwrap();
        }
    }

    #[test]
    fn one_that_is_cut_anywhere_is_none() {
        let (_, all) = sent();
        for end in 0..all.len() {
            assert!(received(&all[..end], 512).is_err(), "cut after {end} bytes");
        }
        let at = all.iter().position(|b| *b == b'\n').unwrap() + 20;
        let mut changed = all.clone();
        changed[at] ^= 1;
        assert!(received(&changed, 512).unwrap_err().what.contains("another SHA-256"));
        let more = [all.as_slice(), &[b'x'; 300]].concat();
        assert!(received(&more, 512).is_err());
        assert!(received(&[b'x'; 20_000], 512).unwrap_err().what.contains("no snapshot"));
    }
}
