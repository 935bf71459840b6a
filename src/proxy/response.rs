//! What changes in a cell's response on its way to the client.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::RequestContext;
use super::edge::conn;
use super::forward::REQUEST_ID;
use super::{fields, request_id};

const ROUTED_TO: &str = "X-Routed-To";
const ROUTE_REASON: &str = "X-Route-Reason";
const FAILOVER_REASON: &str = "X-Failover-Reason";
const CIRCUIT_STATE: &str = "X-Circuit-State";
/// The names of all that the edge says in a response, as the library compares them.
static CLAIMS: [HeaderName; 5] = [
    request_id::FIELD,
    HeaderName::from_static("x-routed-to"),
    HeaderName::from_static("x-route-reason"),
    HeaderName::from_static("x-failover-reason"),
    HeaderName::from_static("x-circuit-state"),
];
/// What concerns one connection only.
static ONE_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    UPGRADE,
];

/// Removes what concerned only the connection to the cell (RFC 9110 §7.6.1).
/// `Connection` itself is written anew for every response.
pub(super) fn strip_hop_by_hop(response: &mut ResponseHeader) {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        // Here Connection and Upgrade are the message (RFC 9110 §7.8).
        return;
    }
    if !response.headers.keys().any(|name| ONE_HOP.contains(name)) {
        return;
    }
    // 426 has to say which protocol it asks for (RFC 9110 §15.5.22).
    let asks = response.status == StatusCode::UPGRADE_REQUIRED;
    let one_hop = |option: &[u8]| {
        let option = option.trim_ascii();
        option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive")
    };
    // Most cells only say whether they close; that names no field.
    if !fields::all(&response.headers, &CONNECTION).all(|value| one_hop(value.as_bytes())) {
        let named: Vec<HeaderName> = fields::all(&response.headers, &CONNECTION)
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
            // A cell cannot have its framing taken away by naming it.
            .filter(|name| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
            .filter(|name| !asks || *name != UPGRADE)
            .collect();
        for name in &named {
            response.remove_header(name);
        }
    }
    for name in &ONE_HOP {
        if !asks || *name != UPGRADE {
            remove_if_there(response, name);
        }
    }
}

/// Frames the response for the client that asked. Says whether the client can
/// tell the end of the body from the end of the connection.
///
/// # Errors
/// Only if a value cannot be a header; ours was one before.
pub(super) fn frame_for(
    response: &mut ResponseHeader,
    request: &RequestHeader,
) -> pingora::Result<bool> {
    if response.status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6, RFC 9112 §6.1.
        response.remove_header(&CONTENT_LENGTH);
        response.remove_header(&TRANSFER_ENCODING);
        return Ok(true);
    }
    if request.version == Version::HTTP_10 {
        // It knows no chunks: the end of the body is the end of the connection
        // (RFC 9112 §6.3).
        response.remove_header(&TRANSFER_ENCODING);
    }
    // Equal repeats were let through; one is enough for everybody behind us.
    if let Some(one) = one_of_many(fields::all(&response.headers, &CONTENT_LENGTH)) {
        response.insert_header(CONTENT_LENGTH, one)?;
    }
    let bodiless = request.method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED;
    Ok(bodiless
        || request.version != Version::HTTP_10
        || response.headers.contains_key(CONTENT_LENGTH))
}

/// The first of equal lengths; none if there is but one, or none at all.
fn one_of_many<'h>(mut lengths: impl Iterator<Item = &'h HeaderValue>) -> Option<HeaderValue> {
    let first = lengths.next()?.as_bytes();
    if lengths.next().is_none() && !first.contains(&b',') {
        return None;
    }
    let one = first.split(|byte| *byte == b',').next().unwrap_or_default();
    HeaderValue::from_bytes(one.trim_ascii()).ok()
}

/// Takes from a cell's answer what the edge itself says there. A cell cannot say these
/// things in our name.
pub(super) fn remove_claims(response: &mut ResponseHeader) {
    for name in &CLAIMS {
        remove_if_there(response, name);
    }
}

/// To remove a field costs as much whether it is there or not, and it seldom is.
fn remove_if_there(response: &mut ResponseHeader, name: &HeaderName) {
    if fields::has(&response.headers, name) {
        response.remove_header(name);
    }
}

/// Has the client told where its request went, why, and under which id, in the head
/// that is written next.
pub(super) fn announce(session: &Session, ctx: &RequestContext) {
    if let Some(conn) = conn(session) {
        conn.announce(|lines| write_fields(lines, ctx));
    }
}

fn write_fields(lines: &mut Vec<u8>, ctx: &RequestContext) {
    let mut field = |name: &str, value: &[u8]| {
        // Ids and names are visible ASCII, the rest is our own: no line ends early.
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    };
    field(REQUEST_ID, ctx.request_id.as_bytes());
    let Some(target) = &ctx.target else { return };
    field(ROUTED_TO, target.placement().name_header.as_bytes());
    field(ROUTE_REASON, target.route.reason.as_str().as_bytes());
    if let Some(reason) = target.failover() {
        field(FAILOVER_REASON, reason.as_str().as_bytes());
    }
    if let Some(state) = target.circuit() {
        field(CIRCUIT_STATE, state.as_str().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&'static str, &str)]) -> pingora::Result<ResponseHeader> {
        let mut response = ResponseHeader::build(status, None)?;
        for (name, value) in headers {
            response.append_header(*name, *value)?;
        }
        Ok(response)
    }

    fn names(response: &ResponseHeader) -> Vec<&str> {
        let mut names: Vec<&str> = response.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_fields_stay_on_their_hop() -> pingora::Result<()> {
        let fields = [
            ("Connection", "close, X-Private"),
            ("Connection", "content-length, Upgrade"),
            ("X-Private", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("Trailer", "a"),
            ("Upgrade", "h2c"),
            ("Content-Length", "3"),
            ("X-Kept", "1"),
        ];
        let mut ordinary = response(200, &fields)?;
        strip_hop_by_hop(&mut ordinary);
        assert_eq!(names(&ordinary), ["content-length", "x-kept"]);
        let mut required = response(426, &fields)?;
        strip_hop_by_hop(&mut required);
        assert_eq!(names(&required), ["content-length", "upgrade", "x-kept"]);
        let mut switching = response(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket")])?;
        strip_hop_by_hop(&mut switching);
        assert_eq!(names(&switching), ["connection", "upgrade"]);
        Ok(())
    }

    #[test]
    fn a_cell_cannot_speak_for_the_edge() -> pingora::Result<()> {
        let fields = [
            ("X-Routed-To", "elsewhere"),
            ("X-Routed-To", "nowhere"),
            ("x-request-id", "1"),
            ("X-Failover-Reason", "none"),
            ("X-Circuit-State", "open"),
            ("X-Route-Reason", "table"),
            ("X-Own", "1"),
            ("Server", "cell"),
        ];
        let mut claiming = response(200, &fields)?;
        remove_claims(&mut claiming);
        assert_eq!(names(&claiming), ["server", "x-own"]);
        Ok(())
    }

    fn framed(
        version: Version,
        status: u16,
        headers: &[(&'static str, &str)],
    ) -> pingora::Result<(bool, Vec<String>)> {
        let mut request = RequestHeader::build("GET", b"/", None)?;
        request.set_version(version);
        let mut response = response(status, headers)?;
        let delimited = frame_for(&mut response, &request)?;
        let fields = response
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        Ok((delimited, fields.collect()))
    }

    #[test]
    fn the_framing_is_one_the_client_understands() -> pingora::Result<()> {
        const CHUNKED: &[(&str, &str)] = &[("Transfer-Encoding", "chunked")];
        const TWICE: &[(&str, &str)] = &[("Content-Length", "3"), ("Content-Length", "3")];
        const LIST: &[(&str, &str)] = &[("Content-Length", "3, 3")];
        let length = || vec!["content-length: 3".to_owned()];
        let chunked = || vec!["transfer-encoding: chunked".to_owned()];
        for (version, status, headers, expected) in [
            (Version::HTTP_11, 200, CHUNKED, (true, chunked())),
            (Version::HTTP_10, 200, CHUNKED, (false, vec![])),
            (Version::HTTP_10, 304, CHUNKED, (true, vec![])),
            (Version::HTTP_11, 204, CHUNKED, (true, vec![])),
            (Version::HTTP_11, 204, TWICE, (true, vec![])),
            (Version::HTTP_11, 200, TWICE, (true, length())),
            (Version::HTTP_10, 200, LIST, (true, length())),
        ] {
            assert_eq!(
                framed(version, status, headers)?,
                expected,
                "{version:?} {headers:?}"
            );
        }
        Ok(())
    }
}
