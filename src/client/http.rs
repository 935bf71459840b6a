//! HTTP/1.1 requests.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;
use url::{Position, Url};

use super::{Address, Stream, authority, connect};

/// The largest header of an answer, in bytes.
const HEADER_BYTES: usize = 16 << 10;

/// A connection that carries one request at a time.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Speaks HTTP over `stream`. A task of its own drives the connection until either
    /// side closes it, or it is upgraded.
    ///
    /// # Errors
    /// None today; hyper reserves them.
    pub async fn new(stream: Stream) -> hyper::Result<Self> {
        let (requests, connection) = http1::Builder::new()
            .max_header_size(HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        // Whatever ends it, the request under way reports it.
        tokio::spawn(connection.with_upgrades());
        Ok(Self(requests))
    }

    /// Waits until the previous answer was read. False: the connection is closed.
    pub async fn reusable(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }

    /// Sends `request`, which needs a `Host` header and a target without the authority.
    ///
    /// # Errors
    /// The connection broke, or the answer is not HTTP.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        self.0.send_request(request).await
    }
}

/// A whole answer.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Fetches an `http` URL over a connection of its own. `deadline` covers the whole
/// exchange; a body of more than `limit` bytes is an error.
///
/// # Errors
/// Why there is no answer. The URL is not named.
pub(crate) async fn get(url: &str, limit: usize, deadline: Duration) -> Result<Answer, String> {
    match timeout(deadline, exchange(url, limit)).await {
        Ok(answer) => answer,
        Err(_) => {
            let deadline = humantime::format_duration(deadline);
            Err(format!("no answer within {deadline}"))
        }
    }
}

async fn exchange(url: &str, limit: usize) -> Result<Answer, String> {
    let url: Url = url
        .parse()
        .map_err(|error| format!("not a valid URL: {error}"))?;
    let address = match url.scheme() {
        "http" => Address::of(&url).ok_or("the URL names no host")?,
        scheme => return Err(format!("scheme {scheme:?} (valid: http)")),
    };
    let stream = connect(&address, None)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, authority(&url))
        .header(CONNECTION, "close")
        .body(Full::default())
        .map_err(|error| format!("not a valid URL: {error}"))?;
    let not_http = |error: hyper::Error| format!("the answer is not HTTP: {error}");
    let mut connection = Connection::new(stream).await.map_err(not_http)?;
    let response = connection.send(request).await.map_err(not_http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), limit)
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {error}"))?
        .to_bytes();
    Ok(Answer { status, body })
}

/// `text` as one segment of a path, or one value of a query: all but the unreserved
/// characters of RFC 3986, section 2.3, are percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    match text {
        // As segments, these would change the path.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        text => utf8_percent_encode(text, RESERVED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_fits_a_url() {
        for (key, expected) in [
            ("acme", "acme"),
            ("a/b?c#d%e+f&g=h", "a%2Fb%3Fc%23d%25e%2Bf%26g%3Dh"),
            ("café au lait", "caf%C3%A9%20au%20lait"),
            ("..", "%2E%2E"),
            ("...", "..."),
        ] {
            assert_eq!(encode(key), expected);
            let uri: http::Uri = format!("/keys/{expected}").parse().unwrap();
            assert_eq!(uri.path(), format!("/keys/{expected}"));
        }
    }
}
