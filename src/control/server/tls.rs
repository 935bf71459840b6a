//! TLS for edges and API clients.

use std::io;
use std::pin::Pin;

use arc_swap::ArcSwap;
use pingora_core::tls::nid::Nid;
use pingora_core::tls::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode};
use pingora_core::tls::tokio_ssl::SslStream;
use pingora_core::tls::x509::{X509Name, X509Ref};
use tokio::net::TcpStream;

use crate::control::settings::Tls;

/// Accepts TLS connections. The certificates can be replaced at any time.
pub struct Acceptor(ArcSwap<SslAcceptor>);

impl Acceptor {
    /// Loads the files of `tls`.
    ///
    /// # Errors
    /// The setting whose file cannot be used, and why.
    pub fn new(tls: &Tls) -> Result<Self, String> {
        Ok(Self(ArcSwap::from_pointee(build(tls)?)))
    }

    /// Takes over the certificates of `other` for new connections.
    pub fn replace(&self, other: Acceptor) {
        self.0.store(other.0.into_inner());
    }

    /// Does the handshake. Also returns the common name of the client's certificate, if one is
    /// required.
    ///
    /// # Errors
    /// The handshake failed, or the client has no valid certificate.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(SslStream<TcpStream>, Option<String>)> {
        let ssl = Ssl::new(self.0.load().context()).map_err(io::Error::other)?;
        let mut stream = SslStream::new(ssl, stream).map_err(io::Error::other)?;
        Pin::new(&mut stream)
            .accept()
            .await
            .map_err(io::Error::other)?;
        let name = stream
            .ssl()
            .peer_certificate()
            .map(|cert| common_name(&cert));
        Ok((stream, name))
    }
}

fn build(tls: &Tls) -> Result<SslAcceptor, String> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| format!("tls.{what}: {error}");
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())
        .map_err(|error| wrong("cert", &error))?;
    builder
        .set_certificate_chain_file(&tls.cert)
        .map_err(|error| wrong("cert", &error))?;
    builder
        .set_private_key_file(&tls.key, SslFiletype::PEM)
        .and_then(|()| builder.check_private_key())
        .map_err(|error| wrong("key", &error))?;
    // Required for session resumption with client certificates (SSL_CTX_set_session_id_context).
    builder
        .set_session_id_context(b"cellgate control")
        .map_err(|error| wrong("cert", &error))?;
    if let Some(client_ca) = &tls.client_ca {
        let wrong = |error: &dyn std::fmt::Display| wrong("client_ca", error);
        builder
            .set_ca_file(client_ca)
            .map_err(|error| wrong(&error))?;
        // Sent to clients, so that one with several certificates can choose.
        let names = X509Name::load_client_ca_file(client_ca).map_err(|error| wrong(&error))?;
        builder.set_client_ca_list(names);
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    Ok(builder.build())
}

/// The common name, which may be any text.
fn common_name(certificate: &X509Ref) -> String {
    certificate
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .next()
        .and_then(|entry| entry.data().as_utf8().ok())
        .map(|name| name.to_string())
        .unwrap_or_default()
}
