//! The certificate of an add-on that serves TLS inside the cluster: signed by the cluster's authority, kept in its PKI.

use base64::Engine as _;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::error::Result;
use crate::pki::{Leaf, Pki};

/// A serving certificate as manifests hold it: PEM in base64.
#[derive(Serialize)]
pub(super) struct Serving {
    /// The certificate.
    cert: String,
    /// Its private key.
    key: String,
    /// What its clients verify it by.
    ca: String,
}

impl Serving {
    /// That of a Service, `name.namespace`; made if the PKI has none that fits.
    pub(super) fn of(pki: &Pki, cluster: &Cluster, service: &str) -> Result<Serving> {
        let name = format!("{service}.svc");
        let names = vec![name.clone(), format!("{name}.{}", cluster.network.domain)];
        let pair = pki.leaf(&pki.cluster, "cluster", service, &Leaf::server(name, names, Vec::new()))?;
        let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        Ok(Serving { cert: encode(&pair.cert), key: encode(&pair.key), ca: encode(&pki.cluster.pair.cert) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_time_it_is_the_same_so_that_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let cluster = crate::cluster::defaults::cluster().unwrap();
        let [first, second] = [(); 2].map(|()| Serving::of(&pki, &cluster, "a.b").unwrap());
        assert_eq!((&first.cert, &first.key, &first.ca), (&second.cert, &second.key, &second.ca));
    }
}
