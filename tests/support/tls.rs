//! Servers of tests that speak TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Check;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A certificate for an address, signed by an authority that nobody knows.
pub fn tls(address: Ipv4Addr) -> Check<(TlsAcceptor, String)> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test's server");
    let key = rcgen::KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    let issuer = rcgen::Issuer::new(params, key);
    let own = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec![address.to_string()])?.signed_by(&own, &issuer)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(own.serialize_der())?,
        )?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca.pem()))
}

/// Connections over TLS, as axum serves them.
pub struct Tls {
    pub listener: TcpListener,
    pub acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // Whoever doesn't trust the certificate goes away here.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
