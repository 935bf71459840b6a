//! TCP connections, plain or in TLS.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::Tls;

/// Where a URL points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As certificates name it: an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// None: `url` has no host, or no port while its scheme has no default.
    pub fn of(url: &Url) -> Option<Self> {
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default()?;
        Some(Self { host, port })
    }
}

/// The value of the `Host` header: host and port, without the scheme's default port.
pub(crate) fn authority(url: &Url) -> String {
    match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    }
}

/// A connected stream.
pub(crate) type Stream = Box<dyn Io>;

/// What a stream can do.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// Connects to `address`, in TLS if `tls` is given. There is no deadline here.
///
/// # Errors
/// The name does not resolve, nothing listens there, or TLS fails.
pub(crate) async fn connect(address: &Address, tls: Option<&Tls>) -> io::Result<Stream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    secure(stream, &address.host, tls).await
}

/// Turns off Nagle's algorithm and performs the TLS handshake with `host`, if `tls`
/// is given.
///
/// # Errors
/// `host` does not speak TLS, or its certificate is not valid for that name.
pub(crate) async fn secure(stream: TcpStream, host: &str, tls: Option<&Tls>) -> io::Result<Stream> {
    // Requests are one small write each, and somebody waits for the answer.
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(Box::pin(tls.connect(host, stream).await?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_and_port() {
        for (url, host, port, header) in [
            ("ws://control/connect", "control", 80, "control"),
            ("wss://control:443/connect", "control", 443, "control"),
            ("http://control:8081/", "control", 8081, "control:8081"),
            ("http://[::1]:8081/", "::1", 8081, "[::1]:8081"),
            ("https://192.0.2.1", "192.0.2.1", 443, "192.0.2.1"),
        ] {
            let url = url.parse().unwrap();
            let host = host.to_owned();
            assert_eq!(Address::of(&url), Some(Address { host, port }), "{url}");
            assert_eq!(authority(&url), header, "{url}");
        }
        assert_eq!(Address::of(&"mailto:a@b".parse().unwrap()), None);
    }
}
