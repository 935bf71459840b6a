//! The control plane behind TLS, verified.

use std::path::Path;
use std::pin::Pin;

use pingora_core::tls::ssl::{SslConnector, SslFiletype, SslMethod};
use pingora_core::tls::tokio_ssl::SslStream;
use tokio::net::TcpStream;

use super::Server;
use crate::settings::ca;

/// # Errors
/// What file cannot be used.
pub(super) fn connector(server: &Server) -> Result<SslConnector, String> {
    let mut builder = SslConnector::builder(SslMethod::tls()).map_err(|error| error.to_string())?;
    let roots = server.ca_file.clone().or_else(ca::system_bundle);
    let roots = roots.ok_or("no certificates to verify with on this system (give --ca-file)")?;
    ca::trust(&mut builder, &roots).map_err(|why| format!("{}: {why}", roots.display()))?;
    builder
        .set_alpn_protos(b"\x08http/1.1")
        .map_err(|error| error.to_string())?;
    if let (Some(certificate), Some(key)) = (&server.client_cert, &server.client_key) {
        let bad = |file: &Path, what: &str, error| {
            format!("{}: no usable {what}: {error}", file.display())
        };
        builder
            .set_certificate_chain_file(certificate)
            .map_err(|error| bad(certificate, "PEM certificate", error))?;
        builder
            .set_private_key_file(key, SslFiletype::PEM)
            .map_err(|error| bad(key, "PEM key", error))?;
        builder
            .check_private_key()
            .map_err(|error| bad(key, "key of the certificate", error))?;
    }
    Ok(builder.build())
}

/// Speaks TLS to `host`, whose certificate has to be valid for that name.
///
/// # Errors
/// Why it is not trusted, or does not speak TLS.
pub(super) async fn connect(
    connector: &SslConnector,
    host: &str,
    stream: TcpStream,
) -> Result<SslStream<TcpStream>, String> {
    let ssl = connector.configure().and_then(|ssl| ssl.into_ssl(host));
    let ssl = ssl.map_err(|error| error.to_string())?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
    if let Err(error) = Pin::new(&mut stream).connect().await {
        return Err(match stream.ssl().verify_result() {
            Ok(()) => format!("TLS: {error}"),
            Err(why) => format!("its certificate is not trusted: {why}"),
        });
    }
    Ok(stream)
}
