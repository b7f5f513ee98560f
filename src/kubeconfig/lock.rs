//! kubectl's lock: a file `<kubeconfig>.lock` that only one program can create.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// How often a held lock is tried again.
const INTERVAL: Duration = Duration::from_millis(50);

/// Locks on several files, given back when dropped.
pub(super) struct Locks {
    held: Vec<PathBuf>,
}

fn lock_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

impl Locks {
    /// Locks these files, in one order for everybody. Files whose directory can't be written are passed over: they won't be written.
    pub(super) fn take(files: &[PathBuf], patience: Duration) -> Result<Locks> {
        let deadline = Instant::now() + patience;
        let mut files: Vec<&PathBuf> = files.iter().collect();
        files.sort();
        let mut locks = Locks { held: Vec::new() };
        for file in files {
            let lock = lock_of(file);
            loop {
                match fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                    Ok(_) => break locks.held.push(lock),
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                        if Instant::now() >= deadline {
                            return Err(Error::new(format!("the kubeconfig {} is locked by another program", file.display()))
                                .why(format!("{} was still there after {} s", lock.display(), patience.as_secs()))
                                .hint(format!(
                                    "if no kubectl is running, a killed one left it: rm '{}', then try again",
                                    lock.display()
                                )));
                        }
                        sleep(INTERVAL);
                    }
                    Err(e)
                        if matches!(
                            e.kind(),
                            ErrorKind::PermissionDenied
                                | ErrorKind::ReadOnlyFilesystem
                                | ErrorKind::NotFound
                                | ErrorKind::NotADirectory
                        ) =>
                    {
                        break;
                    }
                    Err(e) => return Err(e).with_context(|| format!("cannot lock the kubeconfig {}", file.display())),
                }
            }
        }
        Ok(locks)
    }

    /// Whether a file was locked, and so may be written.
    pub(super) fn check(&self, file: &Path) -> Result<()> {
        if self.held.contains(&lock_of(file)) {
            return Ok(());
        }
        Err(Error::new(format!("cannot write the kubeconfig {}", file.display()))
            .why(format!("{} can't be created", lock_of(file).display()))
            .hint("make its directory writable, or point KUBECONFIG at another file"))
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        for lock in &self.held {
            // Somebody who removed it meanwhile has had what a removal is for.
            let _ = fs::remove_file(lock);
        }
    }
}
