//! gRPC channels to etcd members: HTTP/2 over TCP or TLS. They are made here, because
//! the etcd client's own TLS is another library than the rest of Cellgate has.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use url::Url;

use crate::client::{self, Address, Alpn, Tls, TlsFiles};
use crate::control::settings::EtcdSettings;
use crate::control::store::StoreError;
use crate::settings::ca;

/// Deadline of a connection, TLS handshake included.
const CONNECT: Duration = Duration::from_secs(3);

/// Interval of HTTP/2 keep-alive pings while requests are in flight. etcd closes
/// connections that ping more than twice as often, or that ping while idle.
const PING: Duration = Duration::from_secs(10);

/// A connection whose ping is not answered within this time is closed.
const PONG: Duration = Duration::from_secs(5);

/// The TLS connector for members with `https://`. Blocks.
///
/// # Errors
/// Which file of `settings` cannot be used.
pub(super) fn tls(settings: &EtcdSettings) -> Result<Tls, StoreError> {
    let roots = settings.ca_file.clone().or_else(ca::system_bundle);
    let files = TlsFiles {
        ca_file: roots.as_deref(),
        client_cert: settings.client_cert.as_deref(),
        client_key: settings.client_key.as_deref(),
    };
    Tls::new(files, Alpn::Http2).map_err(|error| StoreError(format!("etcd: {error}")))
}

/// A channel to the member at `url`. It connects with the first request, and again
/// after it was closed.
///
/// # Errors
/// What of the URL cannot be used.
pub(super) fn channel(url: &Url, tls: &Tls) -> Result<Channel, StoreError> {
    let bad = |why: &str| StoreError(format!("etcd: endpoint {url}: {why}"));
    let tls = match url.scheme() {
        "http" => None,
        "https" => Some(tls.clone()),
        _ => return Err(bad("neither http:// nor https://")),
    };
    let address = Address::of(url).ok_or_else(|| bad("no host"))?;
    let origin = format!("{}://{}", url.scheme(), client::authority(url));
    let endpoint = Endpoint::from_shared(origin)
        .map_err(|error| bad(&error.to_string()))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let connector = service_fn(move |_| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            let stream = client::connect(&address, tls.as_ref()).await;
            stream.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}
