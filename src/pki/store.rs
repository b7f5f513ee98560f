//! The PKI on disk: loads what is there, makes what is missing.
//!
//! `pki/<authority>.{crt,key}`, `pki/service-account.{key,pub}`, `pki/encryption.key`, `pki/decryption.keys` (one a line), and `pki/issued/<owner>/<name>.{crt,key,json}`,
//! where the JSON says for what and by whom the certificate was issued and when it ends.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::authority::{Authority, LEAF_VALIDITY, Leaf, Pair, RENEW_BEFORE};
use crate::error::{Context, Result};
use crate::state::{private_dir, write_atomic};

/// Where a cluster's own key of Secrets is.
const ENCRYPTION: &str = "encryption.key";
/// Where those are that it only decrypts with.
const DECRYPTION: &str = "decryption.keys";

/// The authorities, the service-account key and the encryption key of one cluster.
pub struct Pki {
    dir: PathBuf,
    /// Signs everything that talks to the API, and the API itself.
    pub cluster: Authority,
    /// Signs etcd's members and its clients.
    pub etcd: Authority,
    /// Signs the aggregator's client, which extension API servers trust.
    pub front_proxy: Authority,
    /// Signs service-account tokens: RSA-2048, PKCS #8 PEM.
    pub service_account: ServiceAccountKey,
    /// Encrypts Secrets in etcd: 32 random bytes, base64.
    pub encryption_key: String,
    /// Other clusters' such keys, by which Secrets in their snapshots were encrypted that were restored here; newest first.
    pub decryption_keys: Vec<String>,
}

/// The key that signs service-account tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountKey {
    /// Private key, PEM.
    pub private: String,
    /// Public key, PEM.
    pub public: String,
}

/// What is remembered of an issued certificate.
#[derive(Serialize, Deserialize)]
struct Record {
    leaf: Leaf,
    /// SHA-256 of the authority's certificate.
    authority: String,
    /// Seconds since 1970.
    not_after: i64,
}

impl Pki {
    /// Loads the cluster's PKI from `dir`, making what is missing.
    pub fn open(dir: &Path) -> Result<Pki> {
        private_dir(dir)?;
        let authority = |name: &str, common_name: &str| -> Result<Authority> {
            match read_pair(dir, name)? {
                Some(pair) => Authority::load(pair),
                None => {
                    let authority = Authority::generate(common_name)?;
                    write_pair(dir, name, &authority.pair)?;
                    Ok(authority)
                }
            }
        };
        Ok(Pki {
            cluster: authority("cluster-ca", "kubernetes")?,
            etcd: authority("etcd-ca", "etcd-ca")?,
            front_proxy: authority("front-proxy-ca", "front-proxy-ca")?,
            service_account: service_account_key(dir)?,
            encryption_key: encryption_key(dir)?,
            decryption_keys: decryption_keys(dir)?,
            dir: dir.to_owned(),
        })
    }

    /// All keys by which Secrets can be read: the cluster's own first.
    pub fn secret_keys(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.encryption_key).chain(&self.decryption_keys)
    }

    /// Keeps other clusters' encryption keys, so that what was encrypted by them can be read here. Those that are known stay as they are.
    pub fn adopt(&mut self, keys: &[String]) -> Result<()> {
        let new: Vec<String> = keys.iter().filter(|key| self.secret_keys().all(|known| known != *key)).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        drop(self.decryption_keys.splice(0..0, new));
        let text: String = self.decryption_keys.iter().map(|key| format!("{key}\n")).collect();
        write_atomic(&self.dir.join(DECRYPTION), text.as_bytes(), 0o600)
    }

    /// The certificate `name` of `owner` (a machine, or `cluster`), as it is if it still fits, else issued anew.
    pub fn leaf(&self, authority: &Authority, owner: &str, name: &str, leaf: &Leaf) -> Result<Pair> {
        let dir = self.dir.join("issued").join(owner);
        let by = hex::encode(Sha256::digest(authority.pair.cert.as_bytes()));
        let record_path = dir.join(format!("{name}.json"));
        let now = OffsetDateTime::now_utc();
        if let Some(text) = read(&record_path)?
            && let Ok(record) = serde_json::from_str::<Record>(&text)
            && record.leaf == *leaf
            && record.authority == by
            && record.not_after > (now + RENEW_BEFORE).unix_timestamp()
            && let Some(pair) = read_pair(&dir, name)?
        {
            return Ok(pair);
        }
        private_dir(&dir)?;
        let pair = authority.issue(leaf, LEAF_VALIDITY)?;
        write_pair(&dir, name, &pair)?;
        // Last: without its record a pair is never taken for good.
        let record = Record { leaf: leaf.clone(), authority: by, not_after: (now + LEAF_VALIDITY).unix_timestamp() };
        let text = serde_json::to_vec(&record).context("cannot describe a certificate")?;
        write_atomic(&record_path, &text, 0o600)?;
        Ok(pair)
    }
}

fn service_account_key(dir: &Path) -> Result<ServiceAccountKey> {
    let (private_path, public_path) = (dir.join("service-account.key"), dir.join("service-account.pub"));
    if let (Some(private), Some(public)) = (read(&private_path)?, read(&public_path)?) {
        return Ok(ServiceAccountKey { private, public });
    }
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("cannot make the service-account key")?;
    let made = ServiceAccountKey { private: key.serialize_pem(), public: key.public_key_pem() };
    write_atomic(&private_path, made.private.as_bytes(), 0o600)?;
    write_atomic(&public_path, made.public.as_bytes(), 0o600)?;
    Ok(made)
}

/// The keys by which Secrets of the cluster whose PKI is in `dir` can be read, its own first; none if there is no PKI. Makes nothing.
pub fn secret_keys_in(dir: &Path) -> Result<Vec<String>> {
    let own = read(&dir.join(ENCRYPTION))?;
    Ok(own.into_iter().chain(decryption_keys(dir)?).collect())
}

/// By which two keys can be told apart, and nothing be learnt of them: the beginning of a hash of 32 random bytes.
pub fn mark(key: &str) -> String {
    hex::encode(Sha256::digest(key.trim())).chars().take(16).collect()
}

fn decryption_keys(dir: &Path) -> Result<Vec<String>> {
    let text = read(&dir.join(DECRYPTION))?.unwrap_or_default();
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn encryption_key(dir: &Path) -> Result<String> {
    let path = dir.join(ENCRYPTION);
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).context("cannot get random bytes from the kernel")?;
    let key = base64::engine::general_purpose::STANDARD.encode(bytes);
    write_atomic(&path, key.as_bytes(), 0o600)?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_pair(dir: &Path, name: &str) -> Result<Option<Pair>> {
    let cert = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    Ok(cert.zip(key).map(|(cert, key)| Pair { cert, key }))
}

fn write_pair(dir: &Path, name: &str, pair: &Pair) -> Result<()> {
    write_atomic(&dir.join(format!("{name}.key")), pair.key.as_bytes(), 0o600)?;
    write_atomic(&dir.join(format!("{name}.crt")), pair.cert.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::pem::Pem;

    use super::super::Usage;
    use super::*;

    fn server(ips: &[&str]) -> Leaf {
        Leaf::server("kube-apiserver", vec!["api.kup.internal".into()], ips.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    #[test]
    fn what_fits_is_used_again_and_what_changed_is_issued_anew() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki");
        let first = Pki::open(&dir).unwrap();
        let pair = first.leaf(&first.cluster, "m", "apiserver", &server(&["10.0.0.1"])).unwrap();
        let again = Pki::open(&dir).unwrap();
        assert_eq!(again.cluster.pair, first.cluster.pair, "an authority is made once");
        assert_eq!(again.service_account, first.service_account);
        assert_eq!(again.encryption_key, first.encryption_key);
        assert_eq!(again.leaf(&again.cluster, "m", "apiserver", &server(&["10.0.0.1"])).unwrap(), pair);
        // Another address, another authority, or a record that is gone: a new certificate.
        let more = again.leaf(&again.cluster, "m", "apiserver", &server(&["10.0.0.1", "10.0.0.2"])).unwrap();
        assert_ne!(more, pair);
        assert_ne!(again.leaf(&again.etcd, "m", "apiserver", &server(&["10.0.0.1", "10.0.0.2"])).unwrap(), more);
        let kept = again.leaf(&again.etcd, "m", "apiserver", &server(&["10.0.0.1", "10.0.0.2"])).unwrap();
        fs::remove_file(dir.join("issued/m/apiserver.json")).unwrap();
        assert_ne!(again.leaf(&again.etcd, "m", "apiserver", &server(&["10.0.0.1", "10.0.0.2"])).unwrap(), kept);
    }

    #[test]
    fn other_clusters_keys_are_kept_once_and_never_encrypt() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, other) = (dir.path().join("pki"), dir.path().join("other"));
        let theirs = Pki::open(&other).unwrap().encryption_key;
        let mut pki = Pki::open(&dir).unwrap();
        let own = pki.encryption_key.clone();
        for _ in 0..2 {
            pki.adopt(&[theirs.clone(), own.clone()]).unwrap();
        }
        let again = Pki::open(&dir).unwrap();
        assert_eq!(again.secret_keys().collect::<Vec<_>>(), [&own, &theirs]);
        assert_eq!(secret_keys_in(&dir).unwrap(), [own.clone(), theirs.clone()]);
        assert_eq!(secret_keys_in(&dir.join("none")).unwrap(), [] as [String; 0]);
        assert!(mark(&own) != mark(&theirs) && mark(&own) == mark(&format!("{own}\n")) && !own.contains(&mark(&own)));
    }

    #[test]
    fn a_leaf_that_ends_soon_is_issued_anew() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let pair = pki.leaf(&pki.cluster, "m", "x", &server(&[])).unwrap();
        let path = dir.path().join("pki/issued/m/x.json");
        let soon = (OffsetDateTime::now_utc() + RENEW_BEFORE).unix_timestamp() - 60;
        let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        record["not_after"] = soon.into();
        fs::write(&path, record.to_string()).unwrap();
        assert_ne!(pki.leaf(&pki.cluster, "m", "x", &server(&[])).unwrap(), pair);
    }

    #[test]
    fn certificates_say_what_was_asked_and_chain_to_their_authority() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let leaf = Leaf { usage: Usage::Both, organization: Some("system:nodes".into()), ..server(&["10.0.0.1"]) };
        let pair = pki.leaf(&pki.cluster, "m", "x", &leaf).unwrap();
        let pem = |text: &str| Pem::iter_from_buffer(text.as_bytes()).next().unwrap().unwrap();
        let (cert, authority) = (pem(&pair.cert), pem(&pki.cluster.pair.cert));
        let (cert, authority) = (cert.parse_x509().unwrap(), authority.parse_x509().unwrap());
        assert_eq!(cert.subject().to_string(), "O=system:nodes, CN=kube-apiserver");
        assert!(authority.is_ca() && !cert.is_ca());
        assert_eq!(cert.issuer(), authority.subject());
        let names = cert.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(names, 2);
        // A login must not pass for a server, nor a server's certificate for a login.
        for (usage, client, server_side) in
            [(Usage::Both, true, true), (Usage::Client, true, false), (Usage::Server, false, true)]
        {
            let pair = pki.leaf(&pki.cluster, "m", "y", &Leaf { usage, ..server(&["10.0.0.1"]) }).unwrap();
            let pem = pem(&pair.cert);
            let cert = pem.parse_x509().unwrap();
            let said = cert.extended_key_usage().unwrap().unwrap().value;
            assert_eq!((said.client_auth, said.server_auth), (client, server_side), "{usage:?}");
        }
        assert!(cert.validity().is_valid());
    }

    #[test]
    fn nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki");
        let pki = Pki::open(&dir).unwrap();
        pki.leaf(&pki.cluster, "m", "x", &server(&[])).unwrap();
        for entry in [dir.clone(), dir.join("issued"), dir.join("issued/m")] {
            assert_eq!(fs::metadata(&entry).unwrap().permissions().mode() & 0o777, 0o700, "{}", entry.display());
            for file in fs::read_dir(&entry).unwrap().map(|f| f.unwrap().path()).filter(|p| p.is_file()) {
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
            }
        }
    }
}
