//! What the demo cell answers to one request.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

const CELL_NAME: HeaderName = HeaderName::from_static("x-cell-name");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The ways in which a demo cell can be told to let its callers down.
///
/// `delay` and `close` hit every request. `status` and `fail_rate` leave `GET /health` alone: a cell
/// whose health is fine and whose work fails is the case that is hard to notice from outside.
#[derive(Clone, Debug, Default)]
pub struct Misbehaviour {
    /// How long to wait, after the request was read, before answering.
    pub delay: Duration,
    /// Answer with this status in place of 200.
    pub status: Option<StatusCode>,
    /// Share of requests, from 0 to 1, that are answered with 500.
    pub fail_rate: f64,
    /// Accept each connection and close it without an answer.
    pub close: bool,
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'a str,
    cell: &'a str,
}

#[derive(Serialize)]
struct Echo<'a> {
    cell: &'a str,
    timestamp: String,
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: BTreeMap<&'a str, String>,
    message: String,
}

/// Answers a request whose body, of `body_bytes` bytes, was read and dropped.
///
/// `chance` decides about `fail_rate`: a number in `0.0..1.0`, passed in so that this stays a function
/// of its arguments.
pub(super) fn answer(
    name: &str,
    misbehaviour: &Misbehaviour,
    request: &Parts,
    body_bytes: u64,
    now: SystemTime,
    chance: f64,
) -> Response<Full<Bytes>> {
    if request.uri.path() == "/health" && matches!(request.method, Method::GET | Method::HEAD) {
        return json(
            name,
            StatusCode::OK,
            &Health {
                status: "healthy",
                cell: name,
            },
        );
    }
    let status = if chance < misbehaviour.fail_rate {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        misbehaviour.status.unwrap_or(StatusCode::OK)
    };
    let echo = Echo {
        cell: name,
        timestamp: humantime::format_rfc3339_millis(now).to_string(),
        method: request.method.as_str(),
        path: request.uri.path(),
        query: request.uri.query().unwrap_or(""),
        headers: readable(&request.headers),
        message: message(name, status, body_bytes),
    };
    json(name, status, &echo)
}

fn message(name: &str, status: StatusCode, body_bytes: u64) -> String {
    let hello = if status.is_success() {
        format!("hello from cell {name}")
    } else {
        format!("cell {name} was told to answer {status}")
    };
    match body_bytes {
        0 => hello,
        bytes => format!("{hello}; read and dropped a body of {bytes} bytes"),
    }
}

/// Header lines as one string a name: repeated lines join with a comma (RFC 9110, section 5.2), and
/// bytes that are not text show as replacement characters.
fn readable(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut readable: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        readable
            .entry(name.as_str())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    readable
}

fn json(name: &str, status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    // Strings and string maps always serialize; an empty body would still be a valid answer.
    let mut bytes = serde_json::to_vec(body).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    // A name that is no header value was refused when the cell started.
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert(CELL_NAME, name);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    fn parts(method: &str, uri: &str) -> Parts {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("x-tag", "a").header("x-tag", "b").body(());
        request.expect("a request").into_parts().0
    }

    async fn body(response: Response<Full<Bytes>>) -> Value {
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        serde_json::from_slice(&bytes).expect("json")
    }

    #[tokio::test]
    async fn echoes_the_request() {
        let request = parts("POST", "/a/b?c=d&e");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let response = answer("tier1", &Misbehaviour::default(), &request, 12, now, 0.0);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-cell-name"], "tier1");
        assert_eq!(
            body(response).await,
            json!({
                "cell": "tier1",
                "timestamp": "1970-01-01T00:00:01.500Z",
                "method": "POST",
                "path": "/a/b",
                "query": "c=d&e",
                "headers": {"x-tag": "a, b"},
                "message": "hello from cell tier1; read and dropped a body of 12 bytes",
            })
        );
    }

    #[tokio::test]
    async fn health_ignores_status_and_fail_rate() {
        let misbehaviour = Misbehaviour {
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            fail_rate: 1.0,
            ..Misbehaviour::default()
        };
        let now = SystemTime::UNIX_EPOCH;
        let healthy = answer("visa", &misbehaviour, &parts("GET", "/health"), 0, now, 0.0);
        assert_eq!(healthy.status(), 200);
        assert_eq!(
            body(healthy).await,
            json!({"status": "healthy", "cell": "visa"})
        );
        let other = answer(
            "visa",
            &misbehaviour,
            &parts("POST", "/health"),
            0,
            now,
            0.0,
        );
        assert_eq!(other.status(), 500);
    }

    #[test]
    fn status_and_fail_rate_choose_the_status() {
        let unavailable = Some(StatusCode::SERVICE_UNAVAILABLE);
        let table = [
            // status, fail_rate, chance, expected
            (None, 0.0, 0.0, 200),
            (None, 0.3, 0.29, 500),
            (None, 0.3, 0.3, 200),
            (unavailable, 0.0, 0.0, 503),
            (unavailable, 0.3, 0.1, 500),
            (unavailable, 0.3, 0.9, 503),
            (None, 1.0, 0.999_999, 500),
        ];
        for (status, fail_rate, chance, expected) in table {
            let misbehaviour = Misbehaviour {
                status,
                fail_rate,
                ..Misbehaviour::default()
            };
            let request = parts("GET", "/");
            let got = answer(
                "c",
                &misbehaviour,
                &request,
                0,
                SystemTime::UNIX_EPOCH,
                chance,
            );
            assert_eq!(got.status(), expected, "{status:?} {fail_rate} {chance}");
        }
    }
}
