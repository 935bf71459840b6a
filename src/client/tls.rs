//! TLS as a client, with BoringSSL, which Pingora is built on. `tokio_ssl` is
//! Pingora's own binding of it to Tokio, so no other is needed.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use pingora_core::tls::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod};
use pingora_core::tls::tokio_ssl::SslStream;
use pingora_core::tls::x509::X509;
use pingora_core::tls::x509::X509VerifyError;
use pingora_core::tls::x509::store::X509StoreBuilder;
use tokio::net::TcpStream;

/// The PEM files that a connector is made from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TlsFiles<'a> {
    /// The only certificates that servers are verified against; the system's are not
    /// trusted. None: every server is rejected.
    pub ca_file: Option<&'a Path>,
    /// The client's certificate, with its chain.
    pub client_cert: Option<&'a Path>,
    /// The private key of `client_cert`.
    pub client_key: Option<&'a Path>,
}

/// The protocol to negotiate (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// Offered, but a server that negotiates nothing is accepted.
    Http1,
    /// Required.
    Http2,
}

impl Alpn {
    /// The list of one protocol, each with its length in front.
    const fn offer(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"\x08http/1.1",
            Self::Http2 => b"\x02h2",
        }
    }
}

/// A file that a connector cannot be made from.
#[derive(Debug)]
pub(crate) struct FileError {
    /// As in [`TlsFiles`] and in the settings.
    setting: &'static str,
    path: PathBuf,
    why: String,
}

impl Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display().to_string();
        let (setting, path, why) = (self.setting, path.escape_debug(), &self.why);
        write!(f, "{setting}: cannot use {path}: {why}")
    }
}

/// Makes TLS connections, and verifies the server's certificate and name.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: SslConnector,
    alpn: Alpn,
}

impl Tls {
    /// Reads `files`, which blocks.
    ///
    /// # Errors
    /// Which of the files cannot be used, and why.
    pub fn new(files: TlsFiles<'_>, alpn: Alpn) -> Result<Self, FileError> {
        let failed = |setting, path: Option<&Path>, why: &dyn Display| FileError {
            setting,
            path: path.unwrap_or(Path::new("")).to_owned(),
            why: why.to_string(),
        };
        let of_ca = |why: &dyn Display| failed("ca_file", files.ca_file, why);
        let mut builder = SslConnector::builder(SslMethod::tls()).map_err(|error| of_ca(&error))?;
        builder
            .set_alpn_protos(alpn.offer())
            .map_err(|error| of_ca(&error))?;
        trust(&mut builder, files.ca_file).map_err(|why| of_ca(&why))?;
        if let Some(path) = files.client_cert {
            builder
                .set_certificate_chain_file(path)
                .map_err(|error| failed("client_cert", Some(path), &error))?;
        }
        if let Some(path) = files.client_key {
            builder
                .set_private_key_file(path, SslFiletype::PEM)
                .and_then(|()| builder.check_private_key())
                .map_err(|error| failed("client_key", Some(path), &error))?;
        }
        let connector = builder.build();
        Ok(Self { connector, alpn })
    }

    /// Performs the handshake with `host`, a name or an IP address, for which the
    /// certificate has to be valid.
    ///
    /// # Errors
    /// The certificate is not valid, the other side does not speak TLS, or it does not
    /// speak the required protocol.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<SslStream<TcpStream>> {
        let ssl = self.connector.configure()?.into_ssl(host)?;
        let mut stream = SslStream::new(ssl, stream)?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            let why = match stream.ssl().verify_result() {
                // BoringSSL's initial value: it failed before there was a certificate.
                Ok(()) | Err(X509VerifyError::INVALID_CALL) => {
                    format!("TLS handshake failed: {error}")
                }
                Err(why) => format!("its certificate is not valid: {why}"),
            };
            return Err(io::Error::other(why));
        }
        let negotiated = stream.ssl().selected_alpn_protocol();
        if self.alpn == Alpn::Http2 && negotiated != Some(b"h2") {
            return Err(io::Error::other("it does not negotiate HTTP/2 by ALPN"));
        }
        Ok(stream)
    }
}

/// Trusts the certificates in `file` and no others.
fn trust(builder: &mut SslConnectorBuilder, file: Option<&Path>) -> Result<(), String> {
    let mut store = X509StoreBuilder::new().map_err(|error| error.to_string())?;
    if let Some(file) = file {
        let pem = fs::read(file).map_err(|error| error.to_string())?;
        let roots = X509::stack_from_pem(&pem)
            .ok()
            .filter(|roots| !roots.is_empty())
            .ok_or("no usable PEM certificate in it")?;
        for root in roots {
            store.add_cert(root).map_err(|error| error.to_string())?;
        }
    }
    builder.set_cert_store(store.build());
    Ok(())
}
