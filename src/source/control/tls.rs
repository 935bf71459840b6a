//! TLS to a control plane, with the library that the rest of the edge has.

use std::pin::Pin;

use pingora_core::tls::ssl::{
    ConnectConfiguration, SslConnector, SslFiletype, SslMethod, SslVerifyMode,
};
use pingora_core::tls::tokio_ssl::SslStream;
use pingora_core::tls::x509::X509VerifyError;
use tokio::net::TcpStream;

use super::ControlOptions;

/// Reads the files. They may have changed since the last time.
pub(super) fn configure(options: &ControlOptions) -> Result<ConnectConfiguration, String> {
    let Some(ca_file) = &options.ca_file else {
        return Err(
            "no certificates to verify it against (set cellgate.control_plane.ca_file)".to_owned(),
        );
    };
    let mut builder = SslConnector::builder(SslMethod::tls()).map_err(|error| error.to_string())?;
    builder.set_verify(SslVerifyMode::PEER);
    // Nothing but this: the builder has brought the library's own idea of roots.
    let store = pingora_core::tls::x509::store::X509StoreBuilder::new()
        .map_err(|error| error.to_string())?;
    builder.set_cert_store_builder(store);
    builder
        .set_ca_file(ca_file)
        .map_err(|error| format!("ca_file {}: {error}", ca_file.display()))?;
    if let Some((cert, key)) = &options.client_identity {
        builder
            .set_certificate_chain_file(cert)
            .map_err(|error| format!("client_cert {}: {error}", cert.display()))?;
        builder
            .set_private_key_file(key, SslFiletype::PEM)
            .and_then(|()| builder.check_private_key())
            .map_err(|error| format!("client_key {}: {error}", key.display()))?;
    }
    builder
        .build()
        .configure()
        .map_err(|error| error.to_string())
}

/// Makes sure that it is `host` at the other end.
pub(super) async fn connect(
    configuration: ConnectConfiguration,
    host: &str,
    stream: TcpStream,
) -> Result<SslStream<TcpStream>, String> {
    let ssl = configuration
        .into_ssl(host)
        .map_err(|error| format!("tls: {error}"))?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| format!("tls: {error}"))?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(match stream.ssl().verify_result() {
            Err(why) if why != X509VerifyError::INVALID_CALL => {
                format!("its certificate is not valid: {why}")
            }
            _ => format!("tls handshake failed: {error}"),
        }),
    }
}
