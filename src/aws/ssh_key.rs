//! The private SSH key of clusters on AWS: the one that the config names, made if it is not there.
//!
//! Several clusters may use one. Of those that kup made it keeps a list of who uses them, below its state directory, and removes them with
//! their last user. A key that was there before is only read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use ssh_key::public::{Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, Mpint, PrivateKey, PublicKey};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

use super::Aws;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::state;

/// A hint that fits most of what can be wrong with a key.
const ANOTHER: &str = "make one with `ssh-keygen -t ed25519 -N '' -f FILE` and name it in aws.sshKey, or name a file that is not there: kup makes it";

/// Keys that planning has promised and that are not written yet, since planning changes nothing.
static PROMISED: Mutex<BTreeMap<PathBuf, PrivateKey>> = Mutex::new(BTreeMap::new());

/// Keys that kup made, by their paths.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Made(BTreeMap<PathBuf, Record>);

/// A key that kup made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// By which it is known that the file is still the one that kup made.
    fingerprint: String,
    /// Who uses it: account, region and name of each cluster.
    users: BTreeSet<String>,
}

/// The public half of the config's SSH key, as one line. If the key is not there it is made in memory: [`keep`] writes it.
///
/// # Errors
/// A file that is no key, or one that can't be used: with a passphrase, readable by others, of a kind that AWS does not take, or beside a
/// public half that is another key's.
pub fn public(cluster: &Cluster) -> Result<String> {
    public_at(&cluster.aws.ssh_key)
}

/// As [`public`], of any path.
pub(crate) fn public_at(path: &Path) -> Result<String> {
    let public = match read(path)? {
        Some(public) => public,
        None => {
            let mut promised = PROMISED.lock().unwrap_or_else(PoisonError::into_inner);
            let key = match promised.get(path) {
                Some(key) => key,
                None => {
                    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).context("cannot make an SSH key")?;
                    key.set_comment("made by kup");
                    promised.entry(path.to_owned()).or_insert(key)
                }
            };
            key.public_key().clone()
        }
    };
    line(public)
}

/// The fingerprint of a public key in one line: `SHA256:…`.
pub fn fingerprint(public: &str) -> Result<String> {
    let key = PublicKey::from_openssh(public).context("cannot understand a public SSH key")?;
    Ok(key.fingerprint(HashAlg::Sha256).to_string())
}

/// Has the private key with that fingerprint at `path` for `user`, writing it if [`public`] promised it, and notes the user if kup made it.
/// Gives the public half, as one line, of the key that is there: where two clusters are made at the same time, a promised key gives way to
/// the one that kup wrote for the other.
///
/// # Errors
/// If another key, or none, is there by now; if files can't be written.
pub fn keep(path: &Path, fingerprint: &str, user: &str) -> Result<String> {
    let book = Book::open()?;
    keep_in(&book, path, fingerprint, user)
}

/// Whether [`public`] made this key in memory, since there is no such file.
pub fn is_promised(path: &Path) -> bool {
    PROMISED.lock().unwrap_or_else(PoisonError::into_inner).contains_key(path) && !path.exists()
}

/// The user that a cluster is.
pub fn user(aws: &Aws) -> String {
    format!("{}/{}/{}", aws.identity.account, aws.region, aws.cluster)
}

/// Forgets a user of keys that kup made, and removes those that have no other.
pub fn release(user: &str) -> Result<()> {
    if !book_path()?.exists() {
        return Ok(());
    }
    release_in(&Book::open()?, user)
}

fn keep_in(book: &Book, path: &Path, fingerprint: &str, user: &str) -> Result<String> {
    let mut made = book.read()?;
    let promised = PROMISED.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let promised = promised.filter(|key| key.fingerprint(HashAlg::Sha256).to_string() == fingerprint);
    let there = read(path)?.map(|public| (public.fingerprint(HashAlg::Sha256).to_string(), public));
    let by_kup = |print: &str| made.0.get(path).is_some_and(|record| record.fingerprint == print);
    let (print, public, key) = match (there, promised) {
        (Some((print, public)), _) if print == fingerprint => (print, public, None),
        (Some((print, public)), Some(_)) if by_kup(&print) => (print, public, None),
        (None, Some(key)) => (fingerprint.to_owned(), key.public_key().clone(), Some(key)),
        (Some(_), _) => {
            return Err(Error::new(format!("the SSH key {} is another one than before", path.display()))
                .why("something else has written it meanwhile")
                .hint("`kup up` goes on with the one that is there now"));
        }
        (None, _) => {
            return Err(Error::new(format!("the SSH key {} has gone", path.display())).hint("`kup up` makes another one"));
        }
    };
    // Noted before it is written, so that one that a kill left behind is known as kup's.
    let is_ours = |record: &Record| record.fingerprint == print;
    if key.is_some() || made.0.get(path).is_some_and(is_ours) {
        let record =
            made.0.entry(path.to_owned()).or_insert_with(|| Record { fingerprint: print.clone(), users: BTreeSet::new() });
        if !is_ours(record) {
            *record = Record { fingerprint: print.clone(), users: BTreeSet::new() };
        }
        if record.users.insert(user.to_owned()) {
            book.write(&made)?;
        }
    }
    let Some(key) = key else { return line(public) };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        state::private_dir(directory)?;
    }
    let private = key.to_openssh(LineEnding::LF).context("cannot write an SSH key")?;
    let public = line(public)?;
    state::write_atomic(&beside(path), format!("{public}\n").as_bytes(), 0o644)?;
    state::write_atomic(path, private.as_bytes(), 0o600)?;
    Ok(public)
}

fn release_in(book: &Book, user: &str) -> Result<()> {
    let mut made = book.read()?;
    let mut unused = Vec::new();
    let mut changed = false;
    made.0.retain(|path, record| {
        changed |= record.users.remove(user);
        if record.users.is_empty() {
            unused.push((path.clone(), record.clone()));
        }
        !record.users.is_empty()
    });
    for (path, record) in &unused {
        // Somebody may have put another key there, or have removed its private half alone.
        let key = match read(path) {
            Ok(None) => fs::read_to_string(beside(path)).ok().and_then(|text| PublicKey::from_openssh(text.trim()).ok()),
            Ok(key) => key,
            Err(_) => None,
        };
        if key.is_some_and(|key| key.fingerprint(HashAlg::Sha256).to_string() == record.fingerprint) {
            remove(path)?;
            remove(&beside(path))?;
        }
    }
    if changed || !unused.is_empty() { book.write(&made) } else { Ok(()) }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Where the public half of a key is.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn line(mut public: PublicKey) -> Result<String> {
    public.set_comment("kup");
    Ok(public.to_openssh().context("cannot write a public SSH key")?.trim_end().to_owned())
}

fn book_path() -> Result<PathBuf> {
    Ok(state::state_dir()?.join("aws-ssh-keys.json"))
}

/// The list of keys that kup made, held by this process alone.
struct Book {
    path: PathBuf,
    _lock: File,
}

impl Book {
    fn open() -> Result<Book> {
        let path = book_path()?;
        Book::at(path)
    }

    fn at(path: PathBuf) -> Result<Book> {
        let what = || format!("cannot lock {}", path.display());
        if let Some(directory) = path.parent() {
            state::private_dir(directory)?;
        }
        let lock = path.with_extension("lock");
        let lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(lock).with_context(what)?;
        // Whoever has it writes one small file.
        flock(&lock, FlockOperation::LockExclusive).with_context(what)?;
        Ok(Book { path, _lock: lock })
    }

    fn read(&self) -> Result<Made> {
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", self.path.display())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Made::default()),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    fn write(&self, made: &Made) -> Result<()> {
        if made.0.is_empty() {
            return remove(&self.path);
        }
        let text = serde_json::to_vec_pretty(made).context("cannot write down which SSH keys kup made")?;
        state::write_atomic(&self.path, &text, 0o600)
    }
}

/// The public half of the private key at `path`; none if there is no file.
fn read(path: &Path) -> Result<Option<PublicKey>> {
    let shown = path.display();
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("aws.sshKey: cannot read {shown}")),
    };
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::usage(format!("aws.sshKey: others can read or change {shown}"))
            .why(format!("its mode is {mode:03o}, and SSH refuses such keys"))
            .hint(format!("`chmod 600 {shown}`")));
    }
    let text = fs::read_to_string(path).with_context(|| format!("aws.sshKey: cannot read {shown}"))?;
    let public = public_of(&text).map_err(|e| Error { what: format!("aws.sshKey: {shown} {}", e.what), ..e })?;
    let beside = beside(path);
    match fs::read_to_string(&beside) {
        Ok(text) => {
            let other = PublicKey::from_openssh(text.trim()).ok();
            if other.is_none_or(|other| other.key_data() != public.key_data()) {
                return Err(Error::usage(format!("aws.sshKey: {} is not the public half of {shown}", beside.display())).hint(
                    format!("`ssh-keygen -y -f {shown} > {}` makes it anew, if the private one is right", beside.display()),
                ));
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("aws.sshKey: cannot read {}", beside.display())),
    }
    Ok(Some(public))
}

/// The public half of a private key in OpenSSH's form or as PEM. What an error says follows the file's name.
fn public_of(text: &str) -> Result<PublicKey> {
    let passphrase = || Error::usage("has a passphrase, which kup has no way to ask for").hint(ANOTHER);
    let unknown = |why: String| {
        Error::usage("is not a private SSH key that kup can read")
            .why(why)
            .why("it reads ed25519 and RSA keys, in OpenSSH's form or as PEM")
            .hint(ANOTHER)
    };
    let public = if text.contains("BEGIN OPENSSH PRIVATE KEY") {
        let key = PrivateKey::from_openssh(text).map_err(|e| unknown(e.to_string()))?;
        if key.is_encrypted() {
            return Err(passphrase());
        }
        key.public_key().clone()
    } else if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(passphrase());
    } else {
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| unknown(e.to_string()))?;
        PublicKey::from(of_der(&der).ok_or_else(|| unknown("its contents are neither of the two kinds".to_owned()))?)
    };
    match public.key_data() {
        KeyData::Ed25519(_) => Ok(public),
        KeyData::Rsa(rsa) => match rsa.n.as_positive_bytes().map(bits).unwrap_or_default() {
            2048 | 4096 => Ok(public),
            bits => Err(Error::usage(format!("is an RSA key of {bits} bits"))
                .why("AWS takes those of 2048 and 4096 bits")
                .hint(ANOTHER)),
        },
        other => Err(Error::usage(format!("is a key of the kind {}", other.algorithm()))
            .why("AWS takes ed25519 and RSA keys")
            .hint(ANOTHER)),
    }
}

fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0))
}

fn of_der(der: &PrivateKeyDer<'_>) -> Option<KeyData> {
    let rsa = |key: aws_lc_rs::rsa::KeyPair| {
        let (_, public) = RSAPublicKey::from_der(key.public_key().as_ref()).ok()?;
        let number = |bytes: &[u8]| {
            let first = bytes.iter().position(|byte| *byte != 0)?;
            Mpint::from_positive_bytes(bytes.get(first..)?).ok()
        };
        Some(KeyData::Rsa(RsaPublicKey { e: number(public.exponent)?, n: number(public.modulus)? }))
    };
    match der {
        PrivateKeyDer::Pkcs1(der) => rsa(aws_lc_rs::rsa::KeyPair::from_der(der.secret_pkcs1_der()).ok()?),
        PrivateKeyDer::Pkcs8(der) => {
            let der = der.secret_pkcs8_der();
            if let Ok(key) = aws_lc_rs::rsa::KeyPair::from_pkcs8(der) {
                return rsa(key);
            }
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
            Some(KeyData::Ed25519(Ed25519PublicKey(key.public_key().as_ref().try_into().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "ssh_key_tests.rs"]
mod tests;
