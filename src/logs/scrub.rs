//! Taking secrets out of text: what looks like one, and every secret of the cluster that kup knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::bytes::{Regex, RegexBuilder};

use crate::cluster::registries::Registry;
use crate::cluster::{Cluster, defaults};
use crate::error::{Context, Result};

/// A line of a key that is shorter than this says too little, and stands in too much else.
const SHORTEST: usize = 16;
/// Files of a cluster's state that are larger than this hold no key.
const LARGEST: u64 = 1 << 20;

/// What looks like a secret, wherever it comes from, and what stands there instead. `$1` is what of it may stay.
const PATTERNS: &[(&str, &str)] = &[
    // A key without its end takes all that follows with it; one without its beginning (a log that was cut) all that precedes it.
    (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)", "[left out: private key]"),
    (r"(?s)\A.*-----END [A-Z0-9 ]*PRIVATE KEY-----", "[left out: private key]"),
    // JSON web tokens: service accounts' and others.
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", "[left out: token]"),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}", "$1 [left out: login]"),
    // Bootstrap tokens: six characters, a dot, sixteen.
    (r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", "[left out: token]"),
    (
        r#"(?im)(\b(?:[a-z0-9_.-]*[_.-])?(?:client-key-data|token|passwd|password|passphrase|secret|secret-?(?:access-?)?key|secret_access_key|api-?_?key|private-?_?key)\\?["']?[ \t]*[:=][ \t]*\\?["']?)[^\s"'\\,}]{6,}"#,
        "$1[left out]",
    ),
    // Logins in addresses.
    (r"([a-z][a-z0-9+.-]*://[^\s/:@]+:)[^\s/@]+@", "$1[left out]@"),
];

/// Takes secrets out of texts.
pub struct Scrub {
    known: Option<Regex>,
    patterns: Vec<(Regex, &'static [u8])>,
}

impl Scrub {
    /// For a cluster whose state is in `dir`, and in these texts by the names of files: every private key, the encryption key, the bootstrap
    /// token and the logins of registries found there are known.
    pub fn of(dir: &Path, texts: &BTreeMap<String, String>) -> Result<Scrub> {
        let (mut known, mut public) = (Vec::new(), String::new());
        if dir.is_dir() {
            collect(dir, &mut known, &mut public)?;
        }
        for (name, text) in texts {
            take(name.rsplit('/').next().unwrap_or_default(), text, &mut known, &mut public);
        }
        // A key's file ends with its public half, which its certificate holds too.
        known.retain(|secret| !public.contains(secret.as_str()));
        Scrub::new(&known)
    }

    /// With these as known secrets.
    pub fn new(known: &[String]) -> Result<Scrub> {
        let what = "cannot prepare the search for secrets";
        let literals: Vec<String> = known.iter().filter(|s| s.len() >= SHORTEST).map(|s| regex::escape(s)).collect();
        let known = match literals.is_empty() {
            true => None,
            false => Some(RegexBuilder::new(&literals.join("|")).unicode(false).size_limit(256 << 20).build().context(what)?),
        };
        let pattern = |(pattern, instead): &(&str, &'static str)| {
            Ok((RegexBuilder::new(pattern).build().context(what)?, instead.as_bytes()))
        };
        Ok(Scrub { known, patterns: PATTERNS.iter().map(pattern).collect::<Result<_>>()? })
    }

    /// The text without secrets.
    pub fn clean(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for (pattern, instead) in &self.patterns {
            if pattern.is_match(&text) {
                text = pattern.replace_all(&text, *instead).into_owned();
            }
        }
        match &self.known {
            Some(known) if known.is_match(&text) => known.replace_all(&text, b"[left out: key]".as_slice()).into_owned(),
            _ => text,
        }
    }
}

/// The secrets in the files below `dir`: the lines of private keys, whole keys as kubeconfigs hold them, the encryption key and
/// the bootstrap token. What is public goes to `public`.
fn collect(dir: &Path, known: &mut Vec<String>, public: &mut String) -> Result<()> {
    let what = || format!("cannot read {}", dir.display());
    for entry in fs::read_dir(dir).with_context(what)? {
        let entry = entry.with_context(what)?;
        let path = entry.path();
        let kind = entry.file_type().with_context(what)?;
        if kind.is_dir() {
            collect(&path, known, public)?;
        } else if kind.is_file() && entry.metadata().with_context(what)?.len() <= LARGEST {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            take(entry.file_name().to_str().unwrap_or_default(), &text, known, public);
        }
    }
    Ok(())
}

/// As [`collect`], of one file.
fn take(name: &str, text: &str, known: &mut Vec<String>, public: &mut String) {
    let mut found = secrets(text);
    match name {
        "cluster.yaml" => found.extend(logins(text)),
        "encryption.key" | "decryption.keys" => found.extend(text.lines().map(str::to_owned)),
        // Its first half is its name, and no secret.
        "bootstrap.token" => found.extend(text.trim().split_once('.').map(|(_, secret)| secret.to_owned())),
        _ => {}
    }
    if found.is_empty() {
        public.extend(text.lines());
    }
    known.extend(found);
}

/// The logins of registries that a saved config names. A config that can't be read has none that kup could have sent anywhere.
fn logins(text: &str) -> Vec<String> {
    let cluster: Option<Cluster> = defaults::kept(text).ok();
    let mut registries = cluster.map(|c| c.registries).unwrap_or_default();
    registries.values_mut().for_each(Registry::reread);
    registries.values().flat_map(Registry::secrets).collect()
}

/// The secrets in a file's text.
fn secrets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            inside = line.contains("PRIVATE KEY");
        } else if line.starts_with("-----END ") {
            inside = false;
        } else if inside {
            found.push(line.trim().to_owned());
        }
    }
    if !found.is_empty() {
        found.push(STANDARD.encode(text));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let scrub = Scrub::new(&["aVerySecretLineOfAKey+/==".into(), "short".into()]).unwrap();
        String::from_utf8(scrub.clean(text.as_bytes())).unwrap()
    }

    #[test]
    fn private_keys_are_left_out_in_every_form() {
        let key = |body: &str| format!("before\n-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\nafter");
        assert_eq!(cleaned(&key("MHcCAQEE\nabc")), "before\n[left out: private key]\nafter");
        assert_eq!(cleaned(&key("MHcCAQEE").replace('\n', "\\n")), "before\\n[left out: private key]\\nafter");
        let logged = key("MHcCAQEE").replace('\n', "\n2026-11-21T00:00:00Z stdout F ");
        assert!(!cleaned(&logged).contains("MHcC") && cleaned(&logged).ends_with("F after"));
        assert_eq!(cleaned("x\n-----BEGIN PRIVATE KEY-----\nMHcCAQEE\nmore"), "x\n[left out: private key]");
        assert_eq!(cleaned("MHcCAQEE\n-----END PRIVATE KEY-----\nafter"), "[left out: private key]\nafter");
        assert_eq!(
            cleaned("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"),
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
        );
    }

    /// Of a cluster in a cloud nothing secret is on this machine's disk.
    #[test]
    fn what_is_only_in_memory_is_known_too() {
        let texts = [
            ("cluster-ca.key", "-----BEGIN PRIVATE KEY-----\nMHcCAQEEIaVerySecretLine\n-----END PRIVATE KEY-----\n"),
            ("cluster-ca.crt", "-----BEGIN CERTIFICATE-----\nMIIBeverybodyMaySeeThis\n-----END CERTIFICATE-----\n"),
            ("encryption.key", "c2VjcmV0cyBhcmUgc2VjcmV0"),
        ];
        let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let scrub = Scrub::of(Path::new("/nowhere/at/all"), &texts).unwrap();
        let text = scrub.clean(b"MHcCAQEEIaVerySecretLine MIIBeverybodyMaySeeThis c2VjcmV0cyBhcmUgc2VjcmV0");
        assert_eq!(String::from_utf8(text).unwrap(), "[left out: key] MIIBeverybodyMaySeeThis [left out: key]");
    }

    #[test]
    fn tokens_and_passwords_are_left_out() {
        assert_eq!(cleaned("a eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2ln-_x b"), "a [left out: token] b");
        assert_eq!(cleaned("Authorization: Bearer abcdefghijklmnop"), "Authorization: Bearer [left out: login]");
        assert_eq!(cleaned("join with 07401b.f395accd246ae52d now"), "join with [left out: token] now");
        assert_eq!(cleaned("client-key-data: LS0tLS1CRUdJTg=="), "client-key-data: [left out]");
        assert_eq!(cleaned(r#"{"DB_PASSWORD":"hunter22","x":1}"#), r#"{"DB_PASSWORD":"[left out]","x":1}"#);
        assert_eq!(cleaned(r#"{\"token\": \"abcdefgh\"}"#), r#"{\"token\": \"[left out]\"}"#);
        assert_eq!(cleaned("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG"), "AWS_SECRET_ACCESS_KEY=[left out]");
        assert_eq!(cleaned("postgres://user:pass@host/db"), "postgres://user:[left out]@host/db");
        assert_eq!(cleaned("x aVerySecretLineOfAKey+/== y short"), "x [left out: key] y short");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "automountServiceAccountToken: false",
            "secretName: my-certificates",
            "  - secret:\n      secretName: x",
            "serviceAccountToken:\n  expirationSeconds: 3607",
            "https://172.29.0.11:6443/readyz?verbose",
            "Started etcd.service - etcd.",
            "registry.k8s.io/coredns:v1.15.0 sha256:1b2c",
        ] {
            assert_eq!(cleaned(text), text);
        }
        let bytes = [0xff, b'a', 0xfe];
        assert_eq!(Scrub::new(&[]).unwrap().clean(&bytes), bytes, "what isn't UTF-8 is looked through too");
    }

    /// What a kup without the AWS provider kept lacks fields, and yet its logins are known.
    #[test]
    fn logins_of_a_config_that_an_older_kup_kept_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut old = serde_yaml::to_value(defaults::cluster().unwrap()).unwrap();
        let fields = old.as_mapping_mut().unwrap();
        fields.remove("aws").unwrap();
        let registries = "registry.example:5000: { username: me, passwordFile: FILE }";
        let password = "correct-horse-battery-staple";
        let file = dir.path().join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let registries: serde_yaml::Value = serde_yaml::from_str(&registries.replace("FILE", &file.to_string_lossy())).unwrap();
        fields.insert("registries".into(), registries);
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("cluster.yaml"), serde_yaml::to_string(&old).unwrap()).unwrap();
        let scrub = Scrub::of(&state, &BTreeMap::new()).unwrap();
        let left = String::from_utf8(scrub.clean(format!("it said {password} and stopped").as_bytes())).unwrap();
        assert!(!left.contains(password) && left.starts_with("it said ") && left.ends_with(" and stopped"), "{left}");
    }

    #[test]
    fn all_keys_of_a_state_directory_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut pki = crate::pki::Pki::open(&dir.path().join("pki")).unwrap();
        let other = "b3RoZXIgY2x1c3RlcidzIGtleSBvZiBTZWNyZXRzLi4=".to_owned();
        pki.adopt(std::slice::from_ref(&other)).unwrap();
        let scrub = Scrub::of(dir.path(), &BTreeMap::new()).unwrap();
        let body = |pem: &str| pem.lines().filter(|l| !l.starts_with("-----")).collect::<String>();
        for secret in [
            body(&pki.cluster.pair.key),
            body(&pki.service_account.private),
            pki.encryption_key.clone(),
            pki.bootstrap_token.clone(),
            other,
            STANDARD.encode(&pki.etcd.pair.key),
        ] {
            let left = String::from_utf8(scrub.clean(format!("x {secret} y").as_bytes())).unwrap();
            assert!(left.len() < 400 && !secret.lines().any(|l| left.contains(l)), "{left}");
        }
        // Many, since whether a key's public half is found in its certificate depends on how their lines fall.
        for n in 0..20 {
            let pair = crate::pki::layout::node(
                &pki,
                &crate::machine::topology::Peer { name: format!("n-{n}"), address: [10, 0, 0, n].into() },
            )
            .unwrap();
            let scrub = Scrub::of(dir.path(), &BTreeMap::new()).unwrap();
            let public = pair.kubelet_client.cert.as_bytes();
            assert_eq!(scrub.clean(public), public);
            let private: String = pair.kubelet_client.key.lines().nth(2).unwrap().into();
            assert_eq!(scrub.clean(private.as_bytes()), b"[left out: key]");
        }
    }
}
