//! From a URL to a link: name, TCP, TLS, and the upgrade to a WebSocket.
//!
//! The upgrade is an HTTP/1.1 request (RFC 6455, section 4.1), made with an HTTP
//! client: only its answer tells which dialect is spoken, and with it how large a
//! message may be.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::{Host, Url};

use super::link::Link;
use super::{ControlOptions, tls};
use crate::files::token;
use crate::protocol::SUBPROTOCOL;

/// From the lookup of the name to the answer to the upgrade.
const DIAL: Duration = Duration::from_secs(10);

/// Of the answer's header, in bytes.
const ANSWER_BYTES: usize = 16 << 10;

/// Of the body of an answer that is a refusal: what may be said of it.
const REFUSAL_BYTES: usize = 1 << 10;

/// What is spoken on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V1,
    M3,
}

impl Dialect {
    /// `cellgate.v1` or `m3`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => SUBPROTOCOL,
            Self::M3 => "m3",
        }
    }
}

/// Connects to `url`.
///
/// # Errors
///
/// Why that is not possible, in words for an operator.
pub(super) async fn dial(options: &ControlOptions, url: &Url) -> Result<Link, String> {
    match timeout(DIAL, dial_now(options, url)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(format!("no answer within {DIAL:?}")),
    }
}

async fn dial_now(options: &ControlOptions, url: &Url) -> Result<Link, String> {
    let deadline = Instant::now() + DIAL;
    let host = bare_host(url);
    let files = {
        let options = options.clone();
        let secure = url.scheme() == "wss";
        spawn_blocking(move || {
            let token = options.token_file.as_deref().map(bearer).transpose()?;
            let tls = secure.then(|| tls::configure(&options)).transpose()?;
            Ok::<_, String>((token, tls))
        })
    };
    let (token, tls) = files.await.map_err(|error| error.to_string())??;
    let stream = connect(options, url, &host, deadline).await?;
    let (upgraded, dialect) = match tls {
        Some(configuration) => {
            let stream = tls::connect(configuration, &host, stream).await?;
            upgrade(url, token, stream).await?
        }
        None => {
            if token.is_some() {
                let peer = stream.peer_addr().map_err(|error| error.to_string())?;
                trust_plain(peer)?;
            }
            upgrade(url, token, stream).await?
        }
    };
    Ok(Link::new(upgraded, dialect, options.document_bytes).await)
}

/// Without the brackets of an IPv6 address.
fn bare_host(url: &Url) -> String {
    match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => String::new(),
    }
}

async fn connect(
    options: &ControlOptions,
    url: &Url,
    host: &str,
    deadline: Instant,
) -> Result<TcpStream, String> {
    let port = url.port_or_known_default().unwrap_or_default();
    let known = host.parse::<IpAddr>().ok();
    let known = known.or_else(|| options.hosts.get(&host.to_ascii_lowercase()).copied());
    let addresses: Vec<SocketAddr> = match known {
        Some(address) => vec![SocketAddr::new(address, port)],
        None => lookup_host((host, port))
            .await
            .map_err(|error| format!("{host} does not resolve: {error}"))?
            .collect(),
    };
    if addresses.is_empty() {
        return Err(format!("{host} has no address"));
    }
    // Edges spread over them, and one that is dead does not always cost time.
    let first = rand::random::<u32>() as usize;
    let left = deadline.saturating_duration_since(Instant::now());
    connect_to(addresses, first, left).await
}

/// Tries each address, from that of the index `first` on, within `time` for all.
async fn connect_to(
    mut addresses: Vec<SocketAddr>,
    first: usize,
    time: Duration,
) -> Result<TcpStream, String> {
    let deadline = Instant::now() + time;
    let count = addresses.len();
    addresses.rotate_left(first.checked_rem(count).unwrap_or_default());
    let mut failed = "no address".to_owned();
    for (tried, address) in addresses.into_iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = share(left, count - tried);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Acks are small, and somebody waits for them.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failed = format!("{address}: {error}"),
            Err(_) => {
                let seconds = share.as_secs_f32();
                failed = format!("{address}: no connection within {seconds:.1} s");
            }
        }
    }
    Err(failed)
}

/// What one address has of the time that is `left` for so many.
fn share(left: Duration, addresses: usize) -> Duration {
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

async fn upgrade<S>(
    url: &Url,
    token: Option<HeaderValue>,
    stream: S,
) -> Result<(TokioIo<Upgraded>, Dialect), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut requests, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(ANSWER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the upgrade, or when `requests` is gone.
    tokio::spawn(connection.with_upgrades());
    let key = generate_key();
    let request = request(url, token, &key)?;
    let response = requests
        .send_request(request)
        .await
        .map_err(|error| format!("no answer to the upgrade: {error}"))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let dialect = judge(response.headers(), &key)?;
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| error.to_string())?;
    Ok((TokioIo::new(upgraded), dialect))
}

fn request(
    url: &Url,
    token: Option<HeaderValue>,
    key: &str,
) -> Result<Request<Empty<&'static [u8]>>, String> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    // With the port, unless it is the scheme's.
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let mut request = Request::get(target)
        .header(HOST, host)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(USER_AGENT, concat!("cellgate/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    request
        .body(Empty::new())
        .map_err(|error| format!("the URL cannot be asked for: {error}"))
}

/// What a refusal says, as far as it is short.
async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES)
        .collect()
        .await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            " (see cellgate.control_plane.token_file)"
        }
        _ => "",
    };
    match body.trim() {
        "" => format!("it answered {status}{hint}"),
        words => format!("it answered {status}{hint}: {}", words.escape_debug()),
    }
}

/// Whether an answer is that of a WebSocket server, and what it wants to speak.
fn judge(headers: &HeaderMap, key: &str) -> Result<Dialect, String> {
    let text = |name: &HeaderName| {
        let value = headers.get(name).map(|value| value.to_str());
        value
            .transpose()
            .map_err(|_| format!("header {name}: not visible ascii"))
    };
    let has = |name: &HeaderName, word: &str| {
        text(name).map(|value| {
            let mut words = value.unwrap_or_default().split(',');
            words.any(|it| it.trim().eq_ignore_ascii_case(word))
        })
    };
    let accepted = text(&SEC_WEBSOCKET_ACCEPT)? == Some(&derive_accept_key(key.as_bytes()));
    if !has(&UPGRADE, "websocket")? || !has(&CONNECTION, "upgrade")? || !accepted {
        return Err("it did not answer as a WebSocket server (RFC 6455, section 4.1)".to_owned());
    }
    if let Some(extensions) = text(&SEC_WEBSOCKET_EXTENSIONS)? {
        return Err(format!(
            "it uses extensions that were not offered: {extensions:?}"
        ));
    }
    match text(&SEC_WEBSOCKET_PROTOCOL)? {
        Some(SUBPROTOCOL) => Ok(Dialect::V1),
        None => Ok(Dialect::M3),
        Some(other) => Err(format!(
            "it chose the subprotocol {other:?} (offered: {SUBPROTOCOL})"
        )),
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, String> {
    let token = token::read(path).map_err(|why| format!("token_file: {why}"))?;
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|error| format!("token_file {}: {error}", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a token may be sent to `peer` without TLS. The settings take only URLs
/// of names that are this machine's; what such a name means can change.
fn trust_plain(peer: SocketAddr) -> Result<(), String> {
    match peer.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(format!(
            "{peer} is not loopback, and without TLS everyone on the way could read the token \
             (want wss:// because of token_file)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    /// Of that key: RFC 6455, section 1.3.
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn answer(headers: &[(&'static str, &'static str)]) -> Result<Dialect, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        judge(&map, KEY)
    }

    #[test]
    fn an_answer_says_what_is_spoken() {
        const GOOD: [(&str, &str); 3] = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", ACCEPT),
        ];
        let with = |name, value| answer(&[GOOD.as_slice(), &[(name, value)]].concat());
        assert_eq!(answer(&GOOD), Ok(Dialect::M3));
        assert_eq!(
            with("sec-websocket-protocol", "cellgate.v1"),
            Ok(Dialect::V1)
        );
        for (name, value) in [
            ("sec-websocket-protocol", "cellgate.v2"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-accept", "AAAA"),
            ("upgrade", "h2c"),
            ("connection", "close"),
        ] {
            assert!(with(name, value).is_err(), "{name}: {value}");
        }
        for (missing, what) in GOOD.iter().enumerate() {
            let mut some = GOOD.to_vec();
            some.remove(missing);
            assert!(answer(&some).is_err(), "without {what:?}");
        }
    }

    #[test]
    fn a_request_names_the_host_as_the_url_does() {
        for (url, host, target) in [
            ("ws://control/connect", "control", "/connect"),
            ("wss://control:443/connect", "control", "/connect"),
            ("ws://control:8081/a?b=c", "control:8081", "/a?b=c"),
            ("ws://[::1]:8081/connect", "[::1]:8081", "/connect"),
        ] {
            let request = request(&url.parse().unwrap(), None, KEY).unwrap();
            assert_eq!(request.headers()[HOST], host, "{url}");
            assert_eq!(request.uri(), target, "{url}");
        }
        assert_eq!(bare_host(&"ws://[::1]:8081/".parse().unwrap()), "::1");
    }

    #[test]
    fn a_token_goes_to_this_machine_only_without_tls() {
        for (peer, trusted) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            let verdict = trust_plain(peer.parse().unwrap());
            assert_eq!(verdict.is_ok(), trusted, "{peer}: {verdict:?}");
        }
    }

    #[test]
    fn each_address_has_its_share_of_the_time() {
        let left = Duration::from_secs(9);
        for (addresses, expected) in [(1, 9), (2, 4), (3, 3), (0, 9)] {
            let share = share(left, addresses).as_secs();
            assert_eq!(share, expected, "{addresses} addresses");
        }
        assert_eq!(share(Duration::ZERO, 3), Duration::ZERO);
    }

    #[tokio::test]
    async fn any_address_of_a_name_will_do() {
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = good.local_addr().map(|address| (good, address)).unwrap();
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = gone.local_addr().unwrap();
        drop(gone);
        // Wherever it begins.
        for first in 0..3 {
            let addresses = vec![refusing, good.1, refusing];
            let stream = connect_to(addresses, first, DIAL).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good.1);
        }
        let error = connect_to(vec![refusing; 2], 1, DIAL).await.unwrap_err();
        assert!(error.starts_with(&format!("{refusing}: ")), "{error}");
        assert!(connect_to(Vec::new(), 7, DIAL).await.is_err());
    }
}
