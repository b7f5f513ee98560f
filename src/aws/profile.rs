//! The user's shared credentials file of AWS, where the operator's access key is kept as a profile: one section comes or goes, and
//! every other line stays as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcetera::BaseStrategy as _;
use rustix::fs::{FlockOperation, flock};

use crate::error::{Context as _, Error, Result};
use crate::state::{private_dir, write_atomic};

/// How long another kup may be at work on the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a held lock is tried again.
const INTERVAL: Duration = Duration::from_millis(50);

/// An access key's two halves.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// By which AWS knows it.
    pub id: String,
    /// What AWS tells only once.
    pub secret: String,
}

/// Without the secret: what is logged may be read by others.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The name of a cluster's profile.
pub fn name(cluster: &str) -> String {
    format!("kup-{cluster}")
}

/// The credentials file: `$AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`.
pub fn file() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let home = etcetera::choose_base_strategy().map_err(|e| {
        Error::new("AWS's credentials file is not known: there is no home directory")
            .why(e)
            .hint("set HOME or AWS_SHARED_CREDENTIALS_FILE")
    })?;
    Ok(home.home_dir().join(".aws").join("credentials"))
}

/// The id of the key that a profile holds; none if there is no such profile. An existing one without a key has the empty id.
pub fn key_id(file: &Path, profile: &str) -> Result<Option<String>> {
    Ok(read(file)?.and_then(|text| section(&text, profile).map(|at| id_in(&text, &at))))
}

/// Writes a profile, readable by its owner alone. One of that name that holds another key is left alone.
///
/// # Errors
/// The profile is there with another key.
pub fn put(file: &Path, profile: &str, key: &Key) -> Result<()> {
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        private_dir(dir)?;
    }
    let file = resolved(file);
    let _held = hold(&file)?;
    let text = read(&file)?.unwrap_or_default();
    write_atomic(&file, with(&text, profile, key).ok_or_else(|| taken(&file, profile))?.as_bytes(), 0o600)
}

/// The error about a profile that is there with another key.
pub fn taken(file: &Path, profile: &str) -> Error {
    Error::new(format!("the AWS profile {profile} could not be written"))
        .why(format!("{} has a profile of that name with another key", file.display()))
        .hint(format!("rename or remove the section [{profile}], or set aws.operator.accessKey: false"))
}

/// Removes a profile if it holds this key. Whether it did.
pub fn remove(file: &Path, profile: &str, id: &str) -> Result<bool> {
    let file = resolved(file);
    if !file.exists() {
        return Ok(false);
    }
    let _held = hold(&file)?;
    let Some(text) = read(&file)? else { return Ok(false) };
    let Some(rest) = without(&text, profile, id) else { return Ok(false) };
    if rest.trim().is_empty() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    } else {
        write_atomic(&file, rest.as_bytes(), 0o600)?;
    }
    Ok(true)
}

/// The file that a symbolic link leads to: replacing a file must not replace the link.
fn resolved(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Keeps other kups away from the file: a lock on its directory, which leaves nothing behind. AWS's own tools lock nothing.
fn hold(file: &Path) -> Result<File> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = || format!("cannot lock {}", dir.display());
    let handle = File::open(dir).with_context(what)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(handle),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(INTERVAL),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::new(what())
                    .why(format!("another program has held it for {} s", PATIENCE.as_secs()))
                    .hint("try again"));
            }
            Err(e) => return Err(e).with_context(what),
        }
    }
}

/// The name in a line like `[default]`.
fn header(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix('[')?.split_once(']').map(|(name, _)| name.trim())
}

/// The bytes of a section, from its header to the end of its last setting.
fn section(text: &str, profile: &str) -> Option<std::ops::Range<usize>> {
    let (mut at, mut found) = (0, None::<std::ops::Range<usize>>);
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        match (&mut found, header(line)) {
            (None, Some(name)) if name == profile => found = Some(at..end),
            (None, _) => {}
            (Some(_), Some(_)) => break,
            (Some(range), None) => {
                // Comments above the next section belong to that one.
                if !line.trim().is_empty() && !line.trim_start().starts_with(['#', ';']) {
                    range.end = end;
                }
            }
        }
        at = end;
    }
    found
}

fn id_in(text: &str, at: &std::ops::Range<usize>) -> String {
    let settings = text[at.clone()].lines().filter_map(|line| line.split_once('='));
    let id = settings.into_iter().find(|(key, _)| key.trim().eq_ignore_ascii_case("aws_access_key_id"));
    id.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

/// The text with this profile; none if it holds another key already.
fn with(text: &str, profile: &str, key: &Key) -> Option<String> {
    let new = format!("[{profile}]\naws_access_key_id = {}\naws_secret_access_key = {}\n", key.id, key.secret);
    if let Some(at) = section(text, profile) {
        return (id_in(text, &at) == key.id).then(|| format!("{}{new}{}", &text[..at.start], &text[at.end..]));
    }
    let gap = match text {
        "" => "",
        text if text.ends_with("\n\n") => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    Some(format!("{text}{gap}{new}"))
}

/// The text without this profile, if it is there with this key.
fn without(text: &str, profile: &str, id: &str) -> Option<String> {
    let at = section(text, profile).filter(|at| id_in(text, at) == id)?;
    let (before, after) = (&text[..at.start], &text[at.end..]);
    // The empty line before it came with it.
    let before = before.strip_suffix("\n\n").map_or(before, |kept| &before[..=kept.len()]);
    Some(format!("{before}{after}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILE: &str =
        "# mine\n[default]\naws_access_key_id=AKIAMINE\naws_secret_access_key = x=y\n\n; work\n[work]\nrole_arn = arn";

    fn key(id: &str) -> Key {
        Key { id: id.into(), secret: "s/3+=".into() }
    }

    #[test]
    fn a_profile_comes_and_goes_and_leaves_every_other_line() {
        for text in [FILE.to_owned(), format!("{FILE}\n"), format!("{FILE}\n\n"), String::new(), "\n".into()] {
            let put = with(&text, "kup-c", &key("AKIAOURS")).unwrap_or_default();
            assert!(
                put.starts_with(&text) && put.contains("\n[kup-c]\naws_access_key_id = AKIAOURS\n") || text.is_empty(),
                "{put}"
            );
            assert_eq!(section(&put, "kup-c").map(|at| id_in(&put, &at)), Some("AKIAOURS".into()));
            let gone = without(&put, "kup-c", "AKIAOURS").unwrap_or_default();
            assert_eq!(gone.trim_end(), text.trim_end());
        }
        // In the middle, with a stranger's comment behind it.
        let middle = "[a]\nx = 1\n\n[kup-c]\naws_access_key_id = AKIAOURS\naws_secret_access_key = s\n\n# b's\n[b]\nx = 2\n";
        assert_eq!(without(middle, "kup-c", "AKIAOURS").as_deref(), Some("[a]\nx = 1\n\n# b's\n[b]\nx = 2\n"));
        assert!(with(middle, "kup-c", &key("AKIAOURS")).is_some_and(|text| text.ends_with("s/3+=\n\n# b's\n[b]\nx = 2\n")));
    }

    #[test]
    fn a_key_that_is_not_ours_stays() {
        let theirs = "[kup-c]\nAWS_ACCESS_KEY_ID = AKIATHEIRS\n";
        assert_eq!(with(theirs, "kup-c", &key("AKIAOURS")), None);
        assert_eq!(without(theirs, "kup-c", "AKIAOURS"), None);
        assert_eq!(without(theirs, "kup-cc", "AKIATHEIRS"), None, "another's name begins with ours");
    }

    #[test]
    fn only_the_owner_reads_it_and_links_stay() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        let (real, link) = (dir.path().join("real"), dir.path().join("aws/credentials"));
        fs::create_dir(dir.path().join("aws")).context("no directory")?;
        fs::write(&real, FILE).context("not written")?;
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).context("no mode")?;
        std::os::unix::fs::symlink(&real, &link).context("no link")?;
        put(&link, "kup-c", &key("AKIAOURS"))?;
        assert_eq!(key_id(&link, "kup-c")?.as_deref(), Some("AKIAOURS"));
        assert_eq!(key_id(&link, "default")?.as_deref(), Some("AKIAMINE"));
        assert_eq!(key_id(&link, "none")?, None);
        assert!(link.is_symlink());
        let mode = |file: &Path| fs::metadata(file).map(|m| m.permissions().mode() & 0o777).ok();
        assert_eq!(mode(&real), Some(0o600));
        assert!(put(&link, "kup-c", &key("AKIAOTHER")).is_err());
        assert!(!remove(&link, "kup-c", "AKIAOTHER")? && remove(&link, "kup-c", "AKIAOURS")?);
        assert_eq!(fs::read_to_string(&real).ok().map(|t| t.trim_end().to_owned()).as_deref(), Some(FILE));

        let alone = dir.path().join("new/credentials");
        put(&alone, "kup-c", &key("AKIAOURS"))?;
        assert_eq!(mode(&alone), Some(0o600));
        assert!(remove(&alone, "kup-c", "AKIAOURS")? && !alone.exists(), "what kup made is gone");
        assert!(!remove(&alone, "kup-c", "AKIAOURS")?);
        Ok(())
    }
}
