//! Where kup keeps what can't be found again: PKI, keys and the config of each cluster, below `$XDG_STATE_HOME/kup` (0700);
//! and the cache of bundles and images, below `$XDG_CACHE_HOME/kup`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use crate::error::{Context, Error, Result};
use crate::provider::ClusterId;

fn strategy() -> Result<impl BaseStrategy> {
    etcetera::choose_base_strategy()
        .map_err(|e| Error::new("the home directory is not known").why(e).hint("set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME"))
}

/// `$XDG_CACHE_HOME/kup`: what can be made again (bundles, node images), keyed by content.
pub fn cache_dir() -> Result<PathBuf> {
    Ok(strategy()?.cache_dir().join("kup"))
}

/// `$XDG_STATE_HOME/kup`: what can't be found again.
pub fn state_dir() -> Result<PathBuf> {
    let strategy = strategy()?;
    let base = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
    Ok(base.join("kup"))
}

/// The directory of one cluster's own state: `<state>/<provider>/<name>`.
pub fn cluster_dir(id: &ClusterId) -> Result<PathBuf> {
    Ok(state_dir()?.join(id.provider.as_str()).join(&id.name))
}

/// Removes a cluster's own state, if there is any.
pub fn forget(id: &ClusterId) -> Result<()> {
    let dir = cluster_dir(id)?;
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", dir.display())),
        _ => Ok(()),
    }
}

/// Makes a directory and its parents that nobody else may read (0700).
pub fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Writes a file that is either the old one or the new one, never half of it: temporary file beside it, fsync, rename.
///
/// `mode` is its final mode from the first byte on; the owner of a file that it replaces stays its owner.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    // The parent of a bare file name is the empty path.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".kup-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(dir)
        .with_context(what)?;
    file.write_all(contents).with_context(what)?;
    // The umask may have taken bits away at creation.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).with_context(what)?;
    // Root may be writing for somebody else, who must be able to read it afterwards.
    if let (Ok(old), Ok(new)) = (fs::symlink_metadata(path), file.as_file().metadata())
        && (old.uid(), old.gid()) != (new.uid(), new.gid())
    {
        fchown(file.as_file(), Some(old.uid()), Some(old.gid())).with_context(what)?;
    }
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).map_err(|e| e.error).with_context(what)?;
    fs::File::open(dir).and_then(|d| d.sync_all()).with_context(what)
}
