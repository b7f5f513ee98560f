//! Where a PKI is kept: small files by name, in a directory or in memory.
//!
//! On this host they stand in the cluster's state directory. Of a cluster in a cloud they are in its bucket, whence they are read into
//! memory whole and written back whole, so that no secret of it is ever on this machine's disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context as _, Result};
use crate::state::{private_dir, write_atomic};

/// Files by names like `issued/master-1/apiserver.key`.
pub trait Files: Send + Sync {
    /// The text of one; none if there is none.
    fn read(&self, name: &str) -> Result<Option<String>>;

    /// Makes or replaces one, whole or not at all, readable by its owner alone.
    fn write(&self, name: &str, text: &str) -> Result<()>;

    /// All of them, by name, if they are nowhere on this machine but in memory.
    fn in_memory(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// In a directory, 0700.
pub struct Dir(PathBuf);

impl Dir {
    /// There, made if absent.
    pub fn open(dir: &Path) -> Result<Dir> {
        private_dir(dir)?;
        Ok(Dir(dir.to_owned()))
    }

    /// There, whether it exists or not: reading makes nothing.
    pub fn at(dir: &Path) -> Dir {
        Dir(dir.to_owned())
    }
}

impl Files for Dir {
    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            private_dir(parent)?;
        }
        write_atomic(&path, text.as_bytes(), 0o600)
    }
}

/// In memory.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<String, String>>);

impl Memory {
    /// With these to begin with.
    pub fn of(files: BTreeMap<String, String>) -> Memory {
        Memory(Mutex::new(files))
    }

    /// All of them as they are now.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Files for Memory {
    fn read(&self, name: &str) -> Result<Option<String>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), text.to_owned());
        Ok(())
    }

    fn in_memory(&self) -> BTreeMap<String, String> {
        self.all()
    }
}
