//! What machines are told at their first boot. Pure: the same input gives the same bytes, which is how a launch template is compared.

use std::fmt::Write as _;

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use crate::error::{Context as _, Error, Result};
use crate::templates;

/// The most that kup hands a machine, before base64. AWS takes four times that; there is no reason to come near it.
pub const MOST: usize = 4096;

/// What minions of one group are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minion {
    /// The cluster's name.
    pub cluster: String,
    /// The region.
    pub region: String,
    /// The account that the bucket must be of: twelve digits.
    pub account: String,
    /// The bucket's address, as of [`bucket_url`].
    pub bucket: String,
    /// The group's name.
    pub group: String,
    /// Labels of its nodes: `key=value`.
    pub labels: Vec<String>,
    /// Taints of its nodes: `key=value:NoSchedule`.
    pub taints: Vec<String>,
}

impl Minion {
    /// The script that a minion's first boot runs: it gets `node/node.sh` from the bucket, checks it against `node/manifest`, and runs it
    /// with the directory where `settings` stands, a line for each value.
    ///
    /// # Errors
    /// Labels and taints that make it too long, or that are no such things.
    pub fn render(&self) -> Result<String> {
        let mut settings = String::new();
        let single = [
            ("cluster", &self.cluster),
            ("region", &self.region),
            ("account", &self.account),
            ("bucket", &self.bucket),
            ("group", &self.group),
        ];
        let several = self.labels.iter().map(|l| ("label", l)).chain(self.taints.iter().map(|t| ("taint", t)));
        for (key, value) in single.into_iter().chain(several) {
            if value.chars().any(|c| c.is_control() || c == '\'') {
                return Err(Error::usage(format!("{key} {value:?} of the group {} can't be used", self.group))
                    .why("it has a control character or a quote in it"));
            }
            let _ = writeln!(settings, "{key}={value}");
        }
        let values = minijinja::context! {
            bucket => &self.bucket,
            region => &self.region,
            account => &self.account,
            settings => settings.trim_end(),
        };
        let text = templates::render("node/user-data.sh", values)?;
        match text.len().checked_sub(MOST) {
            None | Some(0) => Ok(text),
            Some(over) => Err(Error::usage(format!(
                "the minions of the group {} are told {over} bytes too much at boot",
                self.group
            ))
            .why(format!("user-data of {} bytes, where kup allows {MOST}: labels and taints are part of it", text.len()))
            .hint(
                "give the group fewer or shorter labels and taints, or set them later with `kubectl label` and `kubectl taint`",
            )),
        }
    }
}

/// The address below which the bucket's objects are: S3's own, or an endpoint's, if one is set for us and so for our machines.
pub fn bucket_url(bucket: &str, region: &str, endpoint: Option<&str>) -> String {
    match endpoint {
        Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        None if region.starts_with("cn-") => format!("https://{bucket}.s3.{region}.amazonaws.com.cn"),
        None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    }
}

/// A throw-away SSH host key. Nothing prints it.
pub struct HostKey {
    private: String,
    /// Its public half, as one line in OpenSSH's form.
    pub public: String,
}

impl HostKey {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new() -> Result<HostKey> {
        let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).context("cannot make an SSH host key")?;
        let private = key.to_openssh(LineEnding::LF).context("cannot write an SSH host key")?.to_string();
        let public = key.public_key().to_openssh().context("cannot write a public SSH host key")?.trim_end().to_owned();
        Ok(HostKey { private, public })
    }

    /// What the master is told that is to have it.
    ///
    /// # Errors
    /// None but a template that is not what it should be.
    pub fn master(&self) -> Result<String> {
        let private: Vec<String> = self.private.trim_end().lines().map(|line| format!("    {line}")).collect();
        templates::render("node/user-data.yaml", minijinja::context! { private => private.join("\n"), public => &self.public })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn minion() -> Minion {
        Minion {
            cluster: "kubernetes".into(),
            region: "us-west-2".into(),
            account: "123456789012".into(),
            bucket: bucket_url("kup-0123456789ab-kubernetes", "us-west-2", None),
            group: "workers".into(),
            labels: vec!["tier=back".into()],
            taints: vec!["dedicated=db:NoSchedule".into()],
        }
    }

    #[test]
    fn a_group_too_talkative_is_refused_by_name() {
        let text = minion().render().unwrap();
        assert!(text.len() < 3500, "{} bytes leave little for labels", text.len());
        assert!(text.contains("\nlabel=tier=back\ntaint=dedicated=db:NoSchedule\nEND\n"), "{text}");
        let labels = (0..100).map(|n| format!("example.com/label-number-{n}=true")).collect();
        let error = Minion { labels, ..minion() }.render().unwrap_err();
        insta::with_settings!({ filters => [(r"\d{4}", "NNNN")] }, {
            insta::assert_snapshot!(error, @r"
            the minions of the group workers are told NNNN bytes too much at boot
              because: user-data of NNNN bytes, where kup allows NNNN: labels and taints are part of it
              next: give the group fewer or shorter labels and taints, or set them later with `kubectl label` and `kubectl taint`
            ");
        });
        assert_eq!(error.kind, crate::error::Kind::Usage);
    }

    #[test]
    fn nothing_gets_out_of_its_line() {
        for label in ["a=b\nEND\nrm -rf /", "a='b'"] {
            let error = Minion { labels: vec![label.into()], ..minion() }.render().unwrap_err();
            assert!(error.what.contains("can't be used"), "{error}");
        }
    }

    #[test]
    fn buckets_have_addresses() {
        assert_eq!(bucket_url("b", "us-west-2", None), "https://b.s3.us-west-2.amazonaws.com");
        assert_eq!(bucket_url("b", "cn-north-1", None), "https://b.s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(bucket_url("b", "us-west-2", Some("http://127.0.0.1:4566/")), "http://127.0.0.1:4566/b");
    }

    #[test]
    fn a_master_boots_with_the_key_that_its_tag_names() {
        let key = HostKey::new().unwrap();
        let text = key.master().unwrap();
        assert!(text.starts_with("#cloud-config\n") && text.len() < MOST, "{text}");
        let told: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let private = PrivateKey::from_openssh(told["ssh_keys"]["ed25519_private"].as_str().unwrap()).unwrap();
        assert_eq!(private.public_key().to_openssh().unwrap().trim_end(), key.public);
        assert_eq!(told["ssh_keys"]["ed25519_public"].as_str().unwrap(), key.public);
        assert_ne!(HostKey::new().unwrap().public, key.public);
    }
}
