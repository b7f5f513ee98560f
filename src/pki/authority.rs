//! A certificate authority and the leaves it signs. ECDSA P-256 throughout; 64-bit-random serials are rcgen's own.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::error::{Context, Result};

/// How long an authority is valid: kubeadm's ten years (`CertificateAuthorityValidityPeriod`).
pub const CA_VALIDITY: Duration = Duration::days(3650);
/// How long a leaf is valid: kubeadm's one year (`CertificateValidityPeriod`).
pub const LEAF_VALIDITY: Duration = Duration::days(365);
/// A leaf that ends sooner than this is issued anew by the next `up`.
pub const RENEW_BEFORE: Duration = Duration::days(30);
/// Certificates begin this much in the past, so that a machine whose clock is a little behind accepts them (kubeadm does the same).
const BACKDATE: Duration = Duration::minutes(5);

/// A certificate and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

/// What a leaf may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Usage {
    /// TLS servers.
    Server,
    /// TLS clients.
    Client,
    /// Both, as etcd's peers need.
    Both,
}

/// What a certificate says; equal leaves need no new certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// CN: the user name, where Kubernetes reads one.
    pub common_name: String,
    /// O: the groups, where Kubernetes reads them.
    pub organizations: Vec<String>,
    /// DNS names it is valid for.
    pub dns: Vec<String>,
    /// Addresses it is valid for.
    pub ips: Vec<IpAddr>,
    /// What it is for.
    pub usage: Usage,
}

impl Leaf {
    /// A client certificate: a user name and its groups.
    pub fn client(common_name: impl Into<String>, organizations: &[&str]) -> Leaf {
        Leaf {
            common_name: common_name.into(),
            organizations: organizations.iter().map(|o| (*o).to_owned()).collect(),
            dns: Vec::new(),
            ips: Vec::new(),
            usage: Usage::Client,
        }
    }

    /// A server certificate for these names and addresses.
    pub fn server(common_name: impl Into<String>, dns: Vec<String>, ips: Vec<IpAddr>) -> Leaf {
        Leaf { common_name: common_name.into(), organizations: Vec::new(), dns, ips, usage: Usage::Server }
    }
}

/// A certificate authority that can sign.
pub struct Authority {
    /// Its certificate and key.
    pub pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one.
    pub fn generate(common_name: &str) -> Result<Authority> {
        let what = || format!("cannot make the certificate authority {common_name}");
        let key = KeyPair::generate().with_context(what)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATE;
        params.not_after = now + CA_VALIDITY;
        let cert = params.self_signed(&key).with_context(what)?;
        let pair = Pair { cert: cert.pem(), key: key.serialize_pem() };
        Authority::load(pair)
    }

    /// Takes one up again from its PEM files.
    pub fn load(pair: Pair) -> Result<Authority> {
        let key = KeyPair::from_pem(&pair.key).context("cannot read a certificate authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&pair.cert, key).context("cannot read a certificate authority's certificate")?;
        Ok(Authority { pair, issuer })
    }

    /// Signs a new leaf with a new key, valid for `validity` from now on.
    pub fn issue(&self, leaf: &Leaf, validity: Duration) -> Result<Pair> {
        let what = || format!("cannot issue the certificate of {}", leaf.common_name);
        let key = KeyPair::generate().with_context(what)?;
        let mut params = CertificateParams::default();
        let organizations: Vec<&str> = leaf.organizations.iter().map(String::as_str).collect();
        params.distinguished_name = name(&leaf.common_name, &organizations);
        for dns in &leaf.dns {
            params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into().with_context(what)?));
        }
        params.subject_alt_names.extend(leaf.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match leaf.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATE;
        params.not_after = now + validity;
        let cert = params.signed_by(&key, &self.issuer).with_context(what)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value per type; a second organization would replace the first, so they are never more than one here.
    if let Some(organization) = organizations.first() {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}
