//! TLS towards edges and operators.

use std::io;
use std::pin::Pin;

use arc_swap::ArcSwap;
use pingora_core::tls::nid::Nid;
use pingora_core::tls::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode};
use pingora_core::tls::tokio_ssl::SslStream;
use pingora_core::tls::x509::{X509Name, X509Ref};
use tokio::net::TcpStream;

use super::settings::Tls;

/// Makes connections secret, and says who is at their other end. The certificates
/// can be replaced while others connect.
pub struct Acceptor(ArcSwap<SslAcceptor>);

impl Acceptor {
    /// With the files of `tls`.
    ///
    /// # Errors
    /// One of them cannot be used, in words for an operator.
    pub fn new(tls: &Tls) -> Result<Self, String> {
        Ok(Self(ArcSwap::from_pointee(build(tls)?)))
    }

    /// From now on, it is as `other`. Connections that there are keep what they began
    /// with.
    pub fn replace(&self, other: Acceptor) {
        self.0.store(other.0.into_inner());
    }

    /// Shakes hands. Also gives the common name of the client's certificate, if one
    /// is wanted.
    ///
    /// # Errors
    /// The client does not speak TLS, or has not the certificate that is wanted.
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
    // A session is resumed only where it was begun (SSL_CTX_set_session_id_context).
    builder
        .set_session_id_context(b"cellgate control")
        .map_err(|error| wrong("cert", &error))?;
    if let Some(client_ca) = &tls.client_ca {
        let wrong = |error: &dyn std::fmt::Display| wrong("client_ca", error);
        builder
            .set_ca_file(client_ca)
            .map_err(|error| wrong(&error))?;
        // Which ones are meant, so that a client with several can choose.
        let names = X509Name::load_client_ca_file(client_ca).map_err(|error| wrong(&error))?;
        builder.set_client_ca_list(names);
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    Ok(builder.build())
}

/// Names are shown and logged, and may be anything in a certificate.
fn common_name(certificate: &X509Ref) -> String {
    certificate
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .next()
        .and_then(|entry| entry.data().as_utf8().ok())
        .map(|name| name.to_string())
        .unwrap_or_default()
}
