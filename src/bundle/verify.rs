//! Is every file of a bundle still what its manifest says? Asked before anything of it runs.
//!
//! A quick look compares size, modification time and inode with those noted after the last full hash, and hashes only what differs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::state::write_atomic;

use super::Bundle;
use super::manifest::{File, Origin};

/// Where the marks of the last full hash are, in the bundle's directory.
const STAMP: &str = ".verified";

/// What a file looked like when it was last hashed and found right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    size: u64,
    modified: i64,
    modified_nanos: i64,
    inode: u64,
    sha256: String,
}

impl Mark {
    fn of(meta: &fs::Metadata, sha256: &str) -> Mark {
        Mark {
            size: meta.len(),
            modified: meta.mtime(),
            modified_nanos: meta.mtime_nsec(),
            inode: meta.ino(),
            sha256: sha256.into(),
        }
    }
}

/// Length and sha256 (hexadecimal) of a file.
pub fn hash(path: &Path) -> Result<(u64, String)> {
    let what = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).with_context(what)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer).with_context(what)?;
        if n == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

/// Runs `work` over all `items` on all cores; the results come in the items' order.
pub(super) fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, R>> = Mutex::new(BTreeMap::new());
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = work(item);
                    results.lock().unwrap_or_else(|e| e.into_inner()).insert(i, result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(|e| e.into_inner()).into_values().collect()
}

/// Checks every file of a bundle; see [`Bundle::verify`].
pub(super) fn verify(bundle: &Bundle, thorough: bool) -> Result<()> {
    let stamp = bundle.dir.join(STAMP);
    // A stamp that can't be read only costs a full hash.
    let old: BTreeMap<String, Mark> = match thorough {
        true => BTreeMap::new(),
        false => fs::read(&stamp).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default(),
    };
    let outcomes = parallel(&bundle.manifest.files, |file| check(bundle, file, old.get(&file.path)));
    let mut marks = BTreeMap::new();
    let mut bad = Vec::new();
    for (file, outcome) in bundle.manifest.files.iter().zip(outcomes) {
        match outcome {
            Ok(mark) => _ = marks.insert(file.path.clone(), mark),
            Err(reason) => bad.push((file, reason)),
        }
    }
    if !bad.is_empty() {
        return Err(corrupt(bundle, &bad));
    }
    if marks != old {
        let text = serde_json::to_vec(&marks).context("cannot note that the bundle is whole")?;
        // A bundle in a place that only others may write is as good; it's hashed each time.
        _ = write_atomic(&stamp, &text, 0o644);
    }
    Ok(())
}

fn check(bundle: &Bundle, file: &File, old: Option<&Mark>) -> std::result::Result<Mark, String> {
    let path = bundle.dir.join(&file.path);
    let meta = fs::symlink_metadata(&path).map_err(|e| format!("{}: {e}", file.path))?;
    if !meta.is_file() {
        return Err(format!("{} is not a plain file", file.path));
    }
    let mark = Mark::of(&meta, &file.sha256);
    if old == Some(&mark) {
        return Ok(mark);
    }
    let (size, found) = hash(&path).map_err(|e| e.to_string())?;
    if (size, found.as_str()) == (file.size, file.sha256.as_str()) {
        return Ok(mark);
    }
    Err(format!("{}: expected sha256 {} ({} bytes)\nfound sha256 {found} ({size} bytes)", file.path, file.sha256, file.size))
}

fn corrupt(bundle: &Bundle, bad: &[(&File, String)]) -> Error {
    let Bundle { dir, manifest } = bundle;
    let names: Vec<&str> = bad.iter().map(|(file, _)| file.path.as_str()).collect();
    let mut error = Error::new(format!("bundle {}-{} is corrupt: {}", manifest.kubernetes, manifest.arch, names.join(", ")));
    for (_, reason) in bad {
        error = error.why(reason);
    }
    let mut components: Vec<&str> = bad.iter().map(|(file, _)| file.component.as_str()).collect();
    components.dedup();
    let verb = if manifest.origin == Origin::Built { "build" } else { "fetch" };
    error.left(format!("nothing of it was run; the bundle is {}", dir.display())).hint(format!(
        "kup bundle {verb} --version {} --arch {} makes only what is broken again ({})",
        manifest.kubernetes,
        manifest.arch,
        components.join(", ")
    ))
}
