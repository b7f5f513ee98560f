//! The SSH keys of a cluster: one for its user, one for each machine's host, made here and never sent anywhere.
//!
//! They live in the cluster's state directory: `ssh/id_ed25519` (0600) is the user's; `machines/<name>/seed/` is what a machine
//! finds mounted read-only at its first boot.

use std::fs;
use std::path::{Path, PathBuf};

use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};

use crate::error::{Context, Error, Result};
use crate::state;

/// Where the image's seed unit looks for the keys.
pub const SEED_DIR: &str = "/etc/kup/seed";

/// The cluster's own user key, below its state directory.
pub fn user_key_path(cluster_dir: &Path) -> PathBuf {
    cluster_dir.join("ssh").join("id_ed25519")
}

/// The seed directory of one machine.
pub fn seed_path(cluster_dir: &Path, machine: &str) -> PathBuf {
    machine_path(cluster_dir, machine).join("seed")
}

/// Everything kept of one machine.
pub fn machine_path(cluster_dir: &Path, machine: &str) -> PathBuf {
    cluster_dir.join("machines").join(machine)
}

/// The public line of the key that may log in: the user's own if the config names one, else the cluster's, made if absent.
pub fn authorized(cluster_dir: &Path, own: Option<&Path>, cluster: &str) -> Result<String> {
    if let Some(path) = own {
        let text = fs::read_to_string(path).with_context(|| format!("local.sshKey: cannot read {}", path.display()))?;
        let key = PrivateKey::from_openssh(&text).map_err(|e| {
            Error::new(format!("local.sshKey: {} is not a private key in OpenSSH's format", path.display()))
                .why(e)
                .hint("make one with `ssh-keygen -t ed25519`")
        })?;
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(Error::new(format!("local.sshKey: {} is an {} key", path.display(), key.algorithm()))
                .hint("make an ed25519 key with `ssh-keygen -t ed25519`"));
        }
        if key.is_encrypted() {
            return Err(Error::new(format!("local.sshKey: {} has a passphrase, which kup has no way to ask for", path.display()))
                .hint("make one without with `ssh-keygen -t ed25519 -N ''`, or leave local.sshKey out: kup makes a key for each cluster"));
        }
        return line(&key, cluster);
    }
    let path = user_key_path(cluster_dir);
    state::private_dir(&cluster_dir.join("ssh"))?;
    line(&read_or_make(&path, &format!("kup {cluster}"))?, cluster)
}

/// Makes a machine's seed if it isn't there yet, and returns its public host key in one line.
pub fn seed(cluster_dir: &Path, machine: &str, authorized: &str, resolv: Option<&str>) -> Result<String> {
    let dir = seed_path(cluster_dir, machine);
    state::private_dir(&dir)?;
    let key = read_or_make(&dir.join("ssh_host_ed25519_key"), machine)?;
    state::write_atomic(&dir.join("authorized_keys"), format!("{authorized}\n").as_bytes(), 0o600)?;
    if let Some(resolv) = resolv {
        state::write_atomic(&dir.join("resolv.conf"), resolv.as_bytes(), 0o644)?;
    }
    line(&key, "")
}

fn read_or_make(path: &Path, comment: &str) -> Result<PrivateKey> {
    match fs::read_to_string(path) {
        Ok(text) => PrivateKey::from_openssh(&text).with_context(|| format!("cannot understand the SSH key {}", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).context("cannot make an SSH key")?;
            key.set_comment(comment);
            let text = key.to_openssh(LineEnding::LF).context("cannot write an SSH key")?;
            state::write_atomic(path, text.as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(e) => Err(e).with_context(|| format!("cannot read the SSH key {}", path.display())),
    }
}

/// A public key in OpenSSH's one-line form.
fn line(key: &PrivateKey, comment: &str) -> Result<String> {
    let mut public = key.public_key().clone();
    public.set_comment(comment);
    Ok(public.to_openssh().context("cannot write a public SSH key")?.trim_end().to_owned())
}

/// The resolver file for machines, where the engine's own would be of no use to pods: Docker's names a server that only answers
/// inside the machine itself. Loopback servers of the host are dropped for the same reason; `upstream` is systemd-resolved's own list.
pub fn resolver(host: &str, upstream: Option<&str>) -> String {
    let useful = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';'])).collect();
        let reachable = |l: &&str| {
            l.strip_prefix("nameserver").is_none_or(|a| {
                let a = a.trim();
                !a.starts_with("127.") && a != "::1"
            })
        };
        let kept: Vec<&str> = lines.into_iter().filter(reachable).collect();
        kept.iter().any(|l| l.starts_with("nameserver")).then(|| kept.join("\n") + "\n")
    };
    // Both engines fall back on the same public servers.
    useful(host).or_else(|| useful(upstream?)).unwrap_or_else(|| "nameserver 8.8.8.8\nnameserver 8.8.4.4\n".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_made_once_and_different() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        let user = authorized(dir.path(), None, "c")?;
        assert_eq!(user, authorized(dir.path(), None, "c")?, "made once");
        let first = seed(dir.path(), "c-master-1", &user, None)?;
        assert_eq!(first, seed(dir.path(), "c-master-1", &user, None)?, "made once");
        assert_ne!(first, seed(dir.path(), "c-minion-1", &user, None)?);
        assert!(first.starts_with("ssh-ed25519 AAAA") && first.split(' ').count() == 2, "{first}");
        for path in [user_key_path(dir.path()), seed_path(dir.path(), "c-master-1").join("ssh_host_ed25519_key")] {
            let mode = fs::metadata(&path).context("no key")?.permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            let parent = path.parent().unwrap_or(dir.path());
            assert_eq!(fs::metadata(parent).context("no directory")?.permissions().mode() & 0o777, 0o700, "{}", parent.display());
        }
        Ok(())
    }

    #[test]
    fn an_own_key_must_be_usable() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        let path = dir.path().join("key");
        assert!(authorized(dir.path(), Some(&path), "c").is_err_and(|e| e.what.contains("cannot read")));
        state::write_atomic(&path, b"rubbish", 0o600)?;
        assert!(authorized(dir.path(), Some(&path), "c").is_err_and(|e| e.what.contains("not a private key")));
        let own = read_or_make(&dir.path().join("own"), "me")?;
        let public = authorized(dir.path(), Some(&dir.path().join("own")), "c")?;
        assert_eq!(public.split(' ').nth(1), line(&own, "")?.split(' ').nth(1));
        assert!(!user_key_path(dir.path()).exists());
        Ok(())
    }

    #[test]
    fn machines_get_resolvers_they_can_reach() {
        assert_eq!(resolver("# x\nsearch lan\nnameserver 10.0.0.1\n", None), "search lan\nnameserver 10.0.0.1\n");
        assert_eq!(
            resolver("nameserver 127.0.0.53\noptions edns0\n", Some("nameserver 192.168.1.1\n")),
            "nameserver 192.168.1.1\n"
        );
        assert_eq!(resolver("nameserver ::1\n", None), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        assert_eq!(resolver("nameserver 127.0.0.1\nnameserver 9.9.9.9\n", None), "nameserver 9.9.9.9\n");
    }
}
