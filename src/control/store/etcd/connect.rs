//! Connections to members: HTTP/2 over TCP or, with the library that the edge has as
//! well, TLS.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use pingora_core::tls::ssl::{SslConnector, SslFiletype, SslMethod};
use pingora_core::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use url::{Host, Url};

use crate::control::settings::EtcdSettings;
use crate::control::store::StoreError;
use crate::settings::ca;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(3);

/// A link in use that is silent for this long is asked for a sign of life. Members
/// hang up on who asks twice as often, or while nothing is going on.
const PING: Duration = Duration::from_secs(10);

/// The link is dropped when that takes this long.
const PONG: Duration = Duration::from_secs(5);

/// How members with `https://` are spoken to.
pub(super) struct Tls(SslConnector);

impl Tls {
    /// Reads the files that `settings` name.
    pub fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        let failed = |name: &str, path: &Path, error: &dyn std::fmt::Display| {
            let path = path.display().to_string();
            let path = path.escape_debug();
            StoreError(format!("etcd: {name}: cannot use {path}: {error}"))
        };
        let broken = |error: &dyn std::fmt::Display| StoreError(format!("etcd: TLS: {error}"));
        let mut builder =
            SslConnector::builder(SslMethod::tls()).map_err(|error| broken(&error))?;
        builder
            .set_alpn_protos(b"\x02h2")
            .map_err(|error| broken(&error))?;
        let roots = settings.ca_file.clone().or_else(ca::system_bundle);
        if let Some(path) = &roots {
            ca::trust(&mut builder, path).map_err(|error| failed("ca_file", path, &error))?;
        }
        if let Some(path) = &settings.client_cert {
            builder
                .set_certificate_chain_file(path)
                .map_err(|error| failed("client_cert", path, &error))?;
        }
        if let Some(path) = &settings.client_key {
            builder
                .set_private_key_file(path, SslFiletype::PEM)
                .and_then(|()| builder.check_private_key())
                .map_err(|error| failed("client_key", path, &error))?;
        }
        Ok(Self(builder.build()))
    }
}

/// A channel to one member, which connects when it is used, and again when it must.
pub(super) fn channel(url: &Url, tls: &Tls) -> Result<Channel, StoreError> {
    let bad = |why: &str| StoreError(format!("etcd: endpoint {url}: {why}"));
    let tls = match url.scheme() {
        "http" => None,
        "https" => Some(tls.0.clone()),
        _ => return Err(bad("neither http:// nor https://")),
    };
    let host = url.host().ok_or_else(|| bad("no host"))?;
    // As a name in a certificate, which has no brackets around an IPv6 address.
    let name = match &host {
        Host::Domain(name) => (*name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default().ok_or_else(|| bad("no port"))?;
    let endpoint = Endpoint::from_shared(format!("{}://{host}:{port}", url.scheme()))
        .map_err(|error| bad(&error.to_string()))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let connector = service_fn(move |_| {
        let (tls, name) = (tls.clone(), name.clone());
        async move { connect(&name, port, tls).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// What bytes go over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn connect(name: &str, port: u16, tls: Option<SslConnector>) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((name, port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    // Verifies the name or address, too.
    let ssl = tls.configure().and_then(|config| config.into_ssl(name));
    let ssl = ssl.map_err(io::Error::other)?;
    let mut stream = Box::pin(SslStream::new(ssl, stream).map_err(io::Error::other)?);
    Pin::new(&mut *stream)
        .connect()
        .await
        .map_err(|error| io::Error::other(format!("TLS: {error}")))?;
    if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other(
            "TLS: the other side does not speak HTTP/2",
        ));
    }
    Ok(Box::new(stream))
}
