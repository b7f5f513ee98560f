//! The user's kubeconfig: kup's three entries are merged into it as kubectl does it, and removed again, with nothing else changed.
//!
//! As kubectl: the files of `$KUBECONFIG`, else `~/.kube/config`; an entry is changed in the file that defines it, and a new one goes to
//! the first file that exists, or else to the last; every file is locked by `<file>.lock` meanwhile. Unlike kubectl: each file is
//! replaced at once or not at all, what was quoted stays quoted, and symbolic links stay.

mod edit;
mod lock;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcetera::BaseStrategy;

use crate::error::{Context, Error, Result};
use crate::state::{private_dir, write_atomic};
use crate::yaml::Node;
use lock::Locks;

/// How long a lock may be held by another program; kubectl holds it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest kubeconfig that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// Only the owner reads it: it holds keys.
const MODE: u32 = 0o600;

/// All that reaching a cluster takes.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// The name of context, cluster and user alike: `local_kubernetes`.
    pub context: String,
    /// The API's URL.
    pub server: String,
    /// The cluster CA's certificates.
    pub ca_pem: String,
    /// The user's certificate.
    pub cert_pem: String,
    /// The user's private key.
    pub key_pem: String,
}

/// Without the key: what is logged may be read by others.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("context", &self.context).field("server", &self.server).finish_non_exhaustive()
    }
}

impl Access {
    fn cluster(&self) -> Node {
        Node::map([("certificate-authority-data", data(&self.ca_pem)), ("server", Node::text(&self.server))])
    }

    fn user(&self) -> Node {
        Node::map([("client-certificate-data", data(&self.cert_pem)), ("client-key-data", data(&self.key_pem))])
    }
}

fn data(pem: &str) -> Node {
    Node::text(STANDARD.encode(pem))
}

/// A kubeconfig of this access alone, with everything embedded.
pub fn render(access: &Access) -> String {
    let mut root = edit::empty();
    edit::put(&mut root, access);
    root.to_string()
}

/// Merges an access into the user's kubeconfig and makes it current. Returns the file that now holds the context.
pub fn merge(access: &Access) -> Result<PathBuf> {
    Files::of_this_user()?.merge(access)
}

/// Removes a context with its cluster and user from the user's kubeconfig; it is also no longer current, if it was.
/// Returns the file that held the context (or else the first that was changed), or nothing if there was no trace of it.
pub fn unmerge(context: &str) -> Result<Option<PathBuf>> {
    Files::of_this_user()?.unmerge(context)
}

/// Whether a context is in the user's kubeconfig. What can't be read has none.
pub fn has(context: &str) -> bool {
    let defines = |path: &PathBuf| matches!(read(path), Ok(Some(root)) if edit::find(&root, edit::CONTEXTS, context).is_some());
    Files::of_this_user().is_ok_and(|files| files.list.iter().any(defines))
}

/// The names of all contexts in the user's kubeconfig. What can't be read has none.
pub fn contexts() -> Vec<String> {
    let all = |path: &PathBuf| match read(path) {
        Ok(Some(root)) => edit::names(&root, edit::CONTEXTS).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Files::of_this_user().map(|files| files.list.iter().flat_map(all).collect()).unwrap_or_default()
}

/// The files that together are a user's kubeconfig, in the order in which they count.
#[derive(Debug, Clone)]
pub struct Files {
    list: Vec<PathBuf>,
    patience: Duration,
}

/// A file as it was read under its lock.
struct Loaded {
    path: PathBuf,
    root: Node,
}

impl Files {
    /// Those of `$KUBECONFIG`, else `~/.kube/config`.
    pub fn of_this_user() -> Result<Files> {
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        // kubectl passes over empty parts.
        let list: Vec<PathBuf> = std::env::split_paths(&listed).filter(|p| !p.as_os_str().is_empty()).collect();
        if !list.is_empty() {
            return Ok(Files::new(list));
        }
        let home = etcetera::choose_base_strategy().map_err(|e| {
            Error::new("the kubeconfig is not known: there is no home directory").why(e).hint("set HOME or KUBECONFIG")
        })?;
        Ok(Files::new(vec![home.home_dir().join(".kube").join("config")]))
    }

    /// These files. An empty list is never written.
    pub fn new(list: Vec<PathBuf>) -> Files {
        let mut seen = BTreeSet::new();
        Files { list: list.into_iter().filter(|path| seen.insert(path.clone())).collect(), patience: PATIENCE }
    }

    /// The same with another limit on the wait for a lock.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Files {
        self.patience = patience;
        self
    }

    /// Where a new entry goes: the first file that exists, or else the last.
    fn default(&self) -> Result<&PathBuf> {
        let first = self.list.iter().find(|path| path.exists()).or(self.list.last());
        first.ok_or_else(|| Error::new("there is no kubeconfig to write: the list of files is empty"))
    }

    /// As [`merge`], for these files.
    pub fn merge(&self, access: &Access) -> Result<PathBuf> {
        let default = self.default()?.clone();
        if let Some(parent) = default.parent().filter(|p| !p.as_os_str().is_empty()) {
            private_dir(parent)?;
        }
        let locks = Locks::take(&self.list, self.patience)?;
        let mut files = Vec::new();
        for path in &self.list {
            files.extend(read(path)?.map(|root| Loaded { path: path.clone(), root }));
        }
        if !files.iter().any(|f| f.path == default) {
            files.push(Loaded { path: default.clone(), root: edit::empty() });
        }
        let before: Vec<String> = files.iter().map(|f| f.root.to_string()).collect();
        // The file that defines a thing, or else the default one.
        let home = |files: &[Loaded], defines: &dyn Fn(&Node) -> bool| {
            files.iter().position(|f| defines(&f.root)).or(files.iter().position(|f| f.path == default)).unwrap_or_default()
        };
        for list in edit::LISTS {
            let index = home(&files, &|root| edit::find(root, list, &access.context).is_some());
            edit::put_one(&mut files[index].root, list, access);
        }
        let index = home(&files, &|root| edit::current(root).is_some());
        edit::set_current(&mut files[index].root, &access.context);
        let result = home(&files, &|root| edit::find(root, edit::CONTEXTS, &access.context).is_some());
        let result = files[result].path.clone();
        write_changed(&files, &before, &locks)?;
        Ok(result)
    }

    /// As [`unmerge`], for these files.
    pub fn unmerge(&self, context: &str) -> Result<Option<PathBuf>> {
        // Without a trace of the context nothing is locked, nor does it matter whether the files can be read.
        let mentions = |path: &PathBuf| fs::read(path).is_ok_and(|text| holds(&text, context.as_bytes()));
        let list: Vec<PathBuf> = self.list.iter().filter(|path| path.is_file() && mentions(path)).cloned().collect();
        if list.is_empty() {
            return Ok(None);
        }
        let locks = Locks::take(&list, self.patience)?;
        let mut files = Vec::new();
        for path in &list {
            files.extend(read(path)?.map(|root| Loaded { path: path.clone(), root }));
        }
        let before: Vec<String> = files.iter().map(|f| f.root.to_string()).collect();
        let held = files.iter().find(|f| edit::find(&f.root, edit::CONTEXTS, context).is_some()).map(|f| f.path.clone());
        for file in &mut files {
            edit::remove(&mut file.root, context);
        }
        let changed = || files.iter().zip(&before).find(|(f, b)| f.root.to_string() != **b).map(|(f, _)| f.path.clone());
        let changed = held.or_else(changed);
        write_changed(&files, &before, &locks)?;
        Ok(changed)
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// Reads a file; nothing if there is none. One that is no kubeconfig is refused.
fn read(path: &Path) -> Result<Option<Node>> {
    let cannot = || format!("cannot use the kubeconfig {}", path.display());
    let refused = |why: String| {
        Error::new(cannot()).why(why).hint("repair or move that file (it was left as it is), or point KUBECONFIG at another one")
    };
    let meta = match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(cannot)?,
    };
    if !meta.is_file() {
        return Err(refused("it is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut bytes)).with_context(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(refused(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text".into()))?;
    edit::read(&text).map(Some).map_err(refused)
}

/// Writes the files that are no longer as they were. All are checked before the first is written.
fn write_changed(files: &[Loaded], before: &[String], locks: &Locks) -> Result<()> {
    let differs = |(file, before): &(&Loaded, &String)| file.root.to_string() != **before;
    let changed: Vec<&Loaded> = files.iter().zip(before).filter(differs).map(|(file, _)| file).collect();
    let mut targets = Vec::new();
    for file in &changed {
        let cannot = || format!("cannot write the kubeconfig {}", file.path.display());
        locks.check(&file.path)?;
        let target = target(&file.path).with_context(cannot)?;
        // A rename would replace even a file that its owner made read-only.
        match fs::OpenOptions::new().write(true).open(&target) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).with_context(cannot),
            _ => targets.push(target),
        }
    }
    for (file, target) in changed.iter().zip(targets) {
        write_atomic(&target, file.root.to_string().as_bytes(), MODE)?;
    }
    Ok(())
}

/// Where a path leads through symbolic links, also if the last one leads to nothing yet.
fn target(path: &Path) -> std::io::Result<PathBuf> {
    /// What Linux itself follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("too many symbolic links"))
}
