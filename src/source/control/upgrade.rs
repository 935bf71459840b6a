//! The upgrade to a WebSocket, an HTTP/1.1 request (RFC 6455, section 4.1). It is sent
//! with the HTTP client rather than the WebSocket library, because its answer decides
//! the dialect, and with it how large a message may be.

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::{Position, Url};

use crate::client::{Connection, Stream, authority};
use crate::protocol::SUBPROTOCOL;

/// How much of a refusal's body is quoted, in bytes.
const REFUSAL_BYTES: usize = 1 << 10;

/// The protocol that a connection speaks.
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

/// Asks for the upgrade over `stream`.
///
/// # Errors
/// What was answered in its place.
pub(super) async fn upgrade(
    url: &Url,
    token: Option<HeaderValue>,
    stream: Stream,
) -> Result<(TokioIo<Upgraded>, Dialect), String> {
    let key = generate_key();
    let request = request(url, token, &key)?;
    let failed = |error: hyper::Error| format!("no answer to the upgrade: {error}");
    let mut connection = Connection::new(stream).await.map_err(failed)?;
    let response = connection.send(request).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let dialect = dialect(response.headers(), &key)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok((TokioIo::new(upgraded), dialect))
}

fn request(
    url: &Url,
    token: Option<HeaderValue>,
    key: &str,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, authority(url))
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
        .body(Full::default())
        .map_err(|error| format!("not a URL that can be requested: {error}"))
}

/// The status of a refusal, and its body if that is short.
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

/// The dialect that a server chose.
///
/// # Errors
/// Why these are not the headers of a WebSocket server's answer to `key`.
fn dialect(headers: &HeaderMap, key: &str) -> Result<Dialect, String> {
    let text = |name: &HeaderName| {
        let value = headers.get(name).map(|value| value.to_str());
        value
            .transpose()
            .map_err(|_| format!("header {name}: not visible ASCII"))
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
        dialect(&map, KEY)
    }

    #[test]
    fn an_answer_chooses_the_dialect() {
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
    fn a_request_names_host_and_target_as_the_url_does() {
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
    }
}
