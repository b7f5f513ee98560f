//! Where a cluster's backups are kept: a directory on this host, or the cluster's bucket.

pub mod bucket;
pub mod directory;
pub mod masters;

use std::collections::BTreeSet;

use time::Duration;

use super::{Backup, Snapshot, about, now, retain, taken, told};
use crate::error::Result;

pub use bucket::Bucket;
pub use directory::Directory;
pub use masters::Masters;

/// How long it may take to put a snapshot there.
const HALF: Duration = Duration::hours(1);

/// What a store has.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Its backups, oldest first.
    pub backups: Vec<Backup>,
    /// What is there and can't be used, and why.
    pub odd: Vec<String>,
    /// Names of snapshots of which nothing tells: they are being put there, or whoever did so was stopped.
    pub halves: Vec<String>,
}

impl Listing {
    /// Of the names of all files: the backups whose files tell of them, and those of which nothing tells.
    fn names(files: &BTreeSet<String>) -> (Vec<&str>, Vec<String>) {
        let halves = files.iter().filter_map(|file| file.strip_suffix(".db.gz"));
        let halves = halves.filter(|name| taken(name).is_some() && !files.contains(&about(name))).map(str::to_owned).collect();
        (files.iter().filter_map(|file| told(file)).collect(), halves)
    }

    fn sorted(mut self) -> Listing {
        self.backups.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }
}

/// What can be done with backups. Implemented once per kind of store, in a file of its own.
#[trait_variant::make(Send)]
pub trait Store: Sync {
    /// Where that is, for people.
    fn place(&self) -> String;
    /// All there are.
    async fn list(&self) -> Result<Listing>;
    /// Takes one in. Afterwards all of it is there, or nothing that counts.
    async fn put(&self, backup: &Backup, snapshot: &Snapshot) -> Result<()>;
    /// Gives one out, checked against its sum.
    async fn fetch(&self, backup: &Backup) -> Result<Snapshot>;
    /// Removes one; one that isn't there is no error.
    async fn remove(&self, name: &str) -> Result<()>;
}

/// A store of either kind.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum AnyStore {
    /// On this host.
    Directory(Directory),
    /// On AWS.
    Bucket(Bucket),
}

impl Store for AnyStore {
    fn place(&self) -> String {
        match self {
            AnyStore::Directory(store) => store.place(),
            AnyStore::Bucket(store) => store.place(),
        }
    }

    async fn list(&self) -> Result<Listing> {
        match self {
            AnyStore::Directory(store) => store.list().await,
            AnyStore::Bucket(store) => store.list().await,
        }
    }

    async fn put(&self, backup: &Backup, snapshot: &Snapshot) -> Result<()> {
        match self {
            AnyStore::Directory(store) => store.put(backup, snapshot).await,
            AnyStore::Bucket(store) => store.put(backup, snapshot).await,
        }
    }

    async fn fetch(&self, backup: &Backup) -> Result<Snapshot> {
        match self {
            AnyStore::Directory(store) => store.fetch(backup).await,
            AnyStore::Bucket(store) => store.fetch(backup).await,
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self {
            AnyStore::Directory(store) => store.remove(name).await,
            AnyStore::Bucket(store) => store.remove(name).await,
        }
    }
}

/// Removes what is of no more use. Returns the names of what it removed.
pub async fn prune(store: &impl Store) -> Result<Vec<String>> {
    let listing = store.list().await?;
    let names: Vec<String> = listing.backups.into_iter().map(|backup| backup.name).collect();
    let old = retain::outdated(&names, now());
    let dead = listing.halves.into_iter().filter(|name| taken(name).is_some_and(|time| now() - time > HALF));
    for name in old.iter().cloned().chain(dead) {
        store.remove(&name).await?;
    }
    Ok(old)
}
