//! Backups in a cluster's state directory: `backups/` (0700), each file 0600, put there by temporary file, fsync and rename.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Listing, Store};
use crate::backup::snapshot::{hash, nameless};
use crate::backup::{Backup, Snapshot, about, data};
use crate::error::{Context as _, Error, Result};
use crate::state::{private_dir, write_atomic};

/// How the names of files begin that are being written. Whoever writes here holds the cluster's lock: others' are what a kill left.
const UNFINISHED: &str = ".kup-";

/// Backups in a directory.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    /// In the state directory of a cluster.
    pub fn of(cluster_dir: &Path) -> Directory {
        Directory(cluster_dir.join("backups"))
    }

    fn list_now(&self) -> Result<Listing> {
        let what = || format!("cannot read {}", self.0.display());
        let mut listing = Listing::default();
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(listing),
            Err(e) => return Err(e).with_context(what),
        };
        let files = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>();
        let files = files.with_context(what)?;
        let (names, halves) = Listing::names(&files);
        listing.halves = halves;
        for name in names {
            match self.one(name) {
                Ok(backup) => listing.backups.push(backup),
                Err(e) => listing.odd.push(format!("{name}: {}", e.why.last().unwrap_or(&e.what))),
            }
        }
        Ok(listing.sorted())
    }

    fn one(&self, name: &str) -> Result<Backup> {
        let path = self.0.join(about(name));
        let backup = Backup::parse(&fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?)?;
        let there = fs::metadata(self.0.join(data(name))).map(|m| m.len()).ok();
        if backup.name != name || there != Some(backup.size) {
            return Err(Error::new(format!("{name} is not whole")).why("the snapshot beside it is missing, or of another size"));
        }
        Ok(backup)
    }

    fn put_now(&self, backup: &Backup, snapshot: &Snapshot) -> Result<()> {
        let what = || format!("cannot write the snapshot {} into {}", backup.name, self.0.display());
        private_dir(&self.0)?;
        for entry in fs::read_dir(&self.0).with_context(what)? {
            let entry = entry.with_context(what)?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path()).with_context(what)?;
            }
        }
        // For its owner alone from the first byte on.
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.0).with_context(what)?;
        io::copy(&mut snapshot.reader(), &mut file).with_context(what)?;
        file.as_file().sync_all().with_context(what)?;
        file.persist(self.0.join(backup.data())).map_err(|e| e.error).with_context(what)?;
        File::open(&self.0).and_then(|dir| dir.sync_all()).with_context(what)?;
        let text = serde_json::to_vec(backup).with_context(what)?;
        write_atomic(&self.0.join(about(&backup.name)), &text, 0o600)
    }

    fn fetch_now(&self, backup: &Backup) -> Result<Snapshot> {
        let path = self.0.join(backup.data());
        let what = || format!("cannot read {}", path.display());
        let mut file = nameless()?;
        // A copy: nobody changes it while it is in use.
        let size = io::copy(&mut File::open(&path).with_context(what)?, &mut file).with_context(what)?;
        let snapshot = Snapshot::new(file, size, backup.sha256.clone());
        if hash(snapshot.reader()).with_context(what)? != backup.sha256 {
            return Err(Error::new(format!("the snapshot {} is damaged; nothing was changed", backup.name))
                .why(format!("{} has another SHA-256 than it had", path.display()))
                .hint("`kup etcd list` shows the others"));
        }
        Ok(snapshot)
    }

    fn remove_now(&self, name: &str) -> Result<()> {
        // What tells of it first: what is left then is no backup.
        for file in [about(name), data(name)] {
            let path = self.0.join(file);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    Err(e).with_context(|| format!("cannot remove {}", path.display()))?
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Waits for the disk beside the async work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("work with backups broke off")?
}

impl Store for Directory {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    async fn list(&self) -> Result<Listing> {
        let this = self.clone();
        blocking(move || this.list_now()).await
    }

    async fn put(&self, backup: &Backup, snapshot: &Snapshot) -> Result<()> {
        let (this, backup, snapshot) = (self.clone(), backup.clone(), snapshot.clone());
        blocking(move || this.put_now(&backup, &snapshot)).await
    }

    async fn fetch(&self, backup: &Backup) -> Result<Snapshot> {
        let (this, backup) = (self.clone(), backup.clone());
        blocking(move || this.fetch_now(&backup)).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking(move || this.remove_now(&name)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::prune;
    use super::*;
    use crate::backup::snapshot::tests::{packed, pages};
    use crate::backup::tests::backup;

    fn snapshot(bytes: &[u8]) -> Snapshot {
        let mut file = nameless().unwrap();
        file.write_all(bytes).unwrap();
        Snapshot::new(file, bytes.len() as u64, hash(bytes).unwrap())
    }

    async fn kept(store: &Directory, name: &str) -> (Backup, Vec<u8>) {
        let bytes = packed(&pages(name.len()));
        let backup = backup(name, bytes.len() as u64, &hash(bytes.as_slice()).unwrap());
        store.put(&backup, &snapshot(&bytes)).await.unwrap();
        (backup, bytes)
    }

    const FIRST: &str = "etcd-20250101T000000Z-1-timer";
    const SECOND: &str = "etcd-20250102T000000Z-2-timer";

    #[tokio::test]
    async fn what_goes_in_is_listed_and_comes_out_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::of(&dir.path().join("c"));
        assert!(store.list().await.unwrap().backups.is_empty());
        let ((second, bytes), (first, _)) = (kept(&store, SECOND).await, kept(&store, FIRST).await);
        assert_eq!(store.list().await.unwrap().backups, [first, second.clone()]);
        let mut back = Vec::new();
        io::Read::read_to_end(&mut store.fetch(&second).await.unwrap().reader(), &mut back).unwrap();
        assert!(back == bytes);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.0), 0o700);
        for file in fs::read_dir(&store.0).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
        assert_eq!(prune(&store).await.unwrap(), [FIRST]);
        assert_eq!(fs::read_dir(&store.0).unwrap().count(), 2, "both files of the first are gone");
        store.remove(FIRST).await.unwrap();
    }

    #[tokio::test]
    async fn half_a_backup_is_none_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::of(dir.path());
        let (first, bytes) = kept(&store, FIRST).await;
        kept(&store, SECOND).await;
        // Killed between the two files, and in the middle of one.
        fs::remove_file(store.0.join(about(SECOND))).unwrap();
        fs::write(store.0.join(".kup-abc"), "half").unwrap();
        assert_eq!(store.list().await.unwrap().backups, std::slice::from_ref(&first));
        kept(&store, SECOND).await;
        assert!(!store.0.join(".kup-abc").exists(), "what a kill left goes with the next");
        fs::copy(store.0.join(data(SECOND)), store.0.join(data("etcd-20250103T000000Z-3-timer"))).unwrap();
        assert_eq!(store.list().await.unwrap().halves, ["etcd-20250103T000000Z-3-timer"]);
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        fs::write(store.0.join(data(FIRST)), &changed).unwrap();
        assert!(store.fetch(&first).await.unwrap_err().what.contains("damaged"));
        fs::write(store.0.join(data(FIRST)), &bytes[..bytes.len() - 1]).unwrap();
        let listing = store.list().await.unwrap();
        assert_eq!((listing.backups.len(), listing.odd.len()), (1, 1), "{:?}", listing.odd);
    }
}
