//! The PKI as it is kept: loads what is there, makes what is missing.
//!
//! `<authority>.{crt,key}`, `service-account.{key,pub}`, `encryption.key`, `decryption.keys` (one a line), `bootstrap.token`, and
//! `issued/<owner>/<name>.{crt,key,json}`, where the JSON says for what and by whom the certificate was issued and when it ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::authority::{Authority, LEAF_VALIDITY, Leaf, Pair, RENEW_BEFORE};
use super::files::{Dir, Files};
use crate::error::{Context, Result};

/// Where a cluster's own key of Secrets is.
const ENCRYPTION: &str = "encryption.key";
/// Where those are that it only decrypts with.
const DECRYPTION: &str = "decryption.keys";

/// The authorities, the service-account key and the encryption key of one cluster.
pub struct Pki {
    files: Arc<dyn Files>,
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
    /// By which a machine that joins by itself asks for its certificates: `id.secret`, as Kubernetes wants it.
    pub bootstrap_token: String,
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

/// What a bootstrap token is made of: 32 of the 36 characters that Kubernetes allows, without those that look alike.
const TOKEN_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

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
        Pki::of(Arc::new(Dir::open(dir)?))
    }

    /// Loads a PKI from where it is kept, making what is missing.
    pub fn of(files: Arc<dyn Files>) -> Result<Pki> {
        let kept = files.as_ref();
        let authority = |name: &str, common_name: &str| -> Result<Authority> {
            match read_pair(kept, name)? {
                Some(pair) => Authority::load(pair),
                None => {
                    let authority = Authority::generate(common_name)?;
                    write_pair(kept, name, &authority.pair)?;
                    Ok(authority)
                }
            }
        };
        Ok(Pki {
            cluster: authority("cluster-ca", "kubernetes")?,
            etcd: authority("etcd-ca", "etcd-ca")?,
            front_proxy: authority("front-proxy-ca", "front-proxy-ca")?,
            service_account: service_account_key(kept)?,
            encryption_key: encryption_key(kept)?,
            bootstrap_token: bootstrap_token(kept)?,
            decryption_keys: decryption_keys(kept)?,
            files,
        })
    }

    /// What it is kept in, by name, if that is nowhere on this machine but in memory: what must not be told.
    pub fn in_memory(&self) -> BTreeMap<String, String> {
        self.files.in_memory()
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
        self.files.write(DECRYPTION, &text)
    }

    /// The certificate `name` of `owner` (a machine, or `cluster`), as it is if it still fits, else issued anew.
    pub fn leaf(&self, authority: &Authority, owner: &str, name: &str, leaf: &Leaf) -> Result<Pair> {
        let files = self.files.as_ref();
        let place = format!("issued/{owner}/{name}");
        let by = hex::encode(Sha256::digest(authority.pair.cert.as_bytes()));
        let record_name = format!("{place}.json");
        let now = OffsetDateTime::now_utc();
        if let Some(text) = files.read(&record_name)?
            && let Ok(record) = serde_json::from_str::<Record>(&text)
            && record.leaf == *leaf
            && record.authority == by
            && record.not_after > (now + RENEW_BEFORE).unix_timestamp()
            && let Some(pair) = read_pair(files, &place)?
        {
            return Ok(pair);
        }
        let pair = authority.issue(leaf, LEAF_VALIDITY)?;
        write_pair(files, &place, &pair)?;
        // Last: without its record a pair is never taken for good.
        let record = Record { leaf: leaf.clone(), authority: by, not_after: (now + LEAF_VALIDITY).unix_timestamp() };
        files.write(&record_name, &serde_json::to_string(&record).context("cannot describe a certificate")?)?;
        Ok(pair)
    }
}

fn service_account_key(files: &dyn Files) -> Result<ServiceAccountKey> {
    let (private_name, public_name) = ("service-account.key", "service-account.pub");
    if let (Some(private), Some(public)) = (files.read(private_name)?, files.read(public_name)?) {
        return Ok(ServiceAccountKey { private, public });
    }
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("cannot make the service-account key")?;
    let made = ServiceAccountKey { private: key.serialize_pem(), public: key.public_key_pem() };
    files.write(private_name, &made.private)?;
    files.write(public_name, &made.public)?;
    Ok(made)
}

/// The keys by which Secrets of the cluster whose PKI is in `dir` can be read, its own first; none if there is no PKI. Makes nothing.
pub fn secret_keys_in(dir: &Path) -> Result<Vec<String>> {
    secret_keys_of(&Dir::at(dir))
}

/// The same of a PKI that is kept elsewhere.
pub fn secret_keys_of(files: &dyn Files) -> Result<Vec<String>> {
    let own = files.read(ENCRYPTION)?;
    Ok(own.into_iter().chain(decryption_keys(files)?).collect())
}

/// By which two keys can be told apart, and nothing be learnt of them: the beginning of a hash of 32 random bytes.
pub fn mark(key: &str) -> String {
    hex::encode(Sha256::digest(key.trim())).chars().take(16).collect()
}

fn decryption_keys(files: &dyn Files) -> Result<Vec<String>> {
    let text = files.read(DECRYPTION)?.unwrap_or_default();
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn encryption_key(files: &dyn Files) -> Result<String> {
    if let Some(key) = files.read(ENCRYPTION)? {
        return Ok(key);
    }
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).context("cannot get random bytes from the kernel")?;
    let key = base64::engine::general_purpose::STANDARD.encode(bytes);
    files.write(ENCRYPTION, &key)?;
    Ok(key)
}

fn bootstrap_token(files: &dyn Files) -> Result<String> {
    let name = "bootstrap.token";
    if let Some(token) = files.read(name)? {
        return Ok(token);
    }
    // Six characters that name it, and sixteen that nobody may know.
    let mut bytes = [0_u8; 22];
    getrandom::fill(&mut bytes).context("cannot get random bytes from the kernel")?;
    // A byte has 256 values and there are 32 letters: each is as likely as any other.
    let letters: String = bytes.iter().map(|b| char::from(TOKEN_LETTERS[usize::from(b % 32)])).collect();
    let (id, secret) = letters.split_at(6);
    let token = format!("{id}.{secret}");
    files.write(name, &token)?;
    Ok(token)
}

fn read_pair(files: &dyn Files, name: &str) -> Result<Option<Pair>> {
    let cert = files.read(&format!("{name}.crt"))?;
    let key = files.read(&format!("{name}.key"))?;
    Ok(cert.zip(key).map(|(cert, key)| Pair { cert, key }))
}

fn write_pair(files: &dyn Files, name: &str, pair: &Pair) -> Result<()> {
    files.write(&format!("{name}.key"), &pair.key)?;
    files.write(&format!("{name}.crt"), &pair.cert)
}

#[cfg(test)]
mod tests {
    use std::fs;
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
        assert_eq!(again.bootstrap_token, first.bootstrap_token);
        let form = regex::Regex::new("^[a-z0-9]{6}[.][a-z0-9]{16}$").unwrap();
        assert!(form.is_match(&first.bootstrap_token), "Kubernetes would not take it");
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
