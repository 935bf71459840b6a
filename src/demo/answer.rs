//! The answers of a demo cell.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::misbehaviour::Misbehaviour;

const CELL_NAME: HeaderName = HeaderName::from_static("x-cell-name");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

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
    /// `body_bytes` long.
    #[serde(skip_serializing_if = "String::is_empty")]
    padding: String,
}

/// Whether this is a health check.
pub(super) fn is_health(request: &Parts) -> bool {
    request.uri.path() == "/health" && matches!(request.method, Method::GET | Method::HEAD)
}

/// The answer to a request whose body of `body_bytes` bytes was read and dropped. `chance`, a random
/// number in `0.0..1.0`, decides on `fail_rate`.
pub(super) fn answer(
    name: &str,
    misbehaviour: &Misbehaviour,
    request: &Parts,
    body_bytes: u64,
    now: SystemTime,
    chance: f64,
) -> Response<Bytes> {
    let told = if chance < misbehaviour.fail_rate {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        // `check` refused a status out of range.
        let told = misbehaviour
            .status
            .and_then(|code| StatusCode::from_u16(code).ok());
        told.unwrap_or(StatusCode::OK)
    };
    if is_health(request) {
        let status = if misbehaviour.unhealthy {
            StatusCode::SERVICE_UNAVAILABLE
        } else if misbehaviour.health_too {
            told
        } else {
            StatusCode::OK
        };
        return json(name, status, &health(name, status));
    }
    let echo = Echo {
        cell: name,
        timestamp: humantime::format_rfc3339_millis(now).to_string(),
        method: request.method.as_str(),
        path: request.uri.path(),
        query: request.uri.query().unwrap_or(""),
        headers: readable(&request.headers),
        message: message(name, told, body_bytes),
        padding: "x".repeat(misbehaviour.body_bytes),
    };
    json(name, told, &echo)
}

fn health(cell: &str, status: StatusCode) -> Health<'_> {
    let status = match status.is_success() {
        true => "healthy",
        false => "unhealthy",
    };
    Health { status, cell }
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

/// One string for each header name: repeated lines are joined with a comma (RFC 9110, section 5.2), and
/// bytes that are not UTF-8 become replacement characters.
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

pub(super) fn json(name: &str, status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // Strings and maps of strings always serialize.
    let mut bytes = serde_json::to_vec(body).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Bytes::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    // The command line refused a name that is not a header value.
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert(CELL_NAME, name);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use http::Request;
    use serde_json::{Value, json};

    fn parts(method: &str, uri: &str) -> Parts {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("x-tag", "a").header("x-tag", "b").body(());
        request.expect("a request").into_parts().0
    }

    fn body(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).expect("json")
    }

    #[test]
    fn echoes_the_request() {
        let request = parts("POST", "/a/b?c=d&e");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let response = answer("tier1", &Misbehaviour::default(), &request, 12, now, 0.0);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-cell-name"], "tier1");
        assert_eq!(
            body(&response),
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

    #[test]
    fn health_is_spared_unless_it_was_named() {
        let failing = Misbehaviour {
            status: Some(503),
            fail_rate: 0.5,
            body_bytes: 100,
            ..Misbehaviour::default()
        };
        let unhealthy = Misbehaviour {
            unhealthy: true,
            ..Misbehaviour::default()
        };
        let health_too = Misbehaviour {
            health_too: true,
            ..failing
        };
        let table = [
            // misbehaviour, chance, GET /health, POST /health
            (failing, 0.0, 200, 500),
            (failing, 0.9, 200, 503),
            (unhealthy, 0.0, 503, 200),
            (health_too, 0.0, 500, 500),
            (health_too, 0.9, 503, 503),
        ];
        let now = SystemTime::UNIX_EPOCH;
        for (misbehaviour, chance, health, work) in table {
            let ask = |method| {
                let request = parts(method, "/health");
                answer("visa", &misbehaviour, &request, 0, now, chance)
            };
            let (get, post) = (ask("GET"), ask("POST"));
            assert_eq!(get.status(), health, "{misbehaviour:?} {chance}");
            assert_eq!(post.status(), work, "{misbehaviour:?} {chance}");
            let word = if health == 200 {
                "healthy"
            } else {
                "unhealthy"
            };
            assert_eq!(body(&get), json!({"status": word, "cell": "visa"}));
        }
    }

    #[test]
    fn status_and_fail_rate_choose_the_status() {
        let unavailable = Some(503);
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
