//! The header fields that tell a cell whom a request came from.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use pingora::http::RequestHeader;

use super::context::Target;
use super::{fields, request_id};
use crate::http::{ORIGIN_FIELDS, OriginFields};
use crate::table::HostHeader;

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
pub(super) const REQUEST_ID: &str = "X-Request-Id";

/// What client connections are to add to requests that are routed by `routing_key`.
///
/// Nothing if that is one of the fields: one that we added would be taken for the
/// client's.
pub fn origin_fields(routing_key: &HeaderName) -> Option<OriginFields> {
    let ours = ORIGIN_FIELDS.contains(&routing_key.as_str());
    (!ours).then_some(write_lines)
}

/// What [`add_headers`] sets in a request that has none of [`ORIGIN_FIELDS`], with an id
/// of its own.
fn write_lines(client: &HeaderValue, host: &[u8], lines: &mut Vec<u8>) {
    lines.extend_from_slice(b"X-Forwarded-For: ");
    lines.extend_from_slice(client.as_bytes());
    lines.extend_from_slice(b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: ");
    lines.extend_from_slice(host);
    lines.extend_from_slice(b"\r\nX-Request-Id: ");
    lines.extend_from_slice(&request_id::digits());
    lines.extend_from_slice(b"\r\n");
}

/// Whether `client` is one of the proxies in front of us whose word we take.
pub(super) fn is_trusted(client: IpAddr, trusted: &[IpNet]) -> bool {
    let client = client.to_canonical();
    trusted.iter().any(|network| network.contains(&client))
}

/// Sets `X-Request-Id`, `X-Forwarded-For`, `-Proto` and `-Host` for the cell. What an untrusted client claims in them is replaced.
///
/// # Errors
/// Only if a value cannot be a header, which none of ours can fail to be.
pub(super) fn add_headers(
    request: &mut RequestHeader,
    client: &HeaderValue,
    trusted: bool,
    request_id: &HeaderValue,
) -> pingora::Result<()> {
    match trusted {
        true => request.insert_header(FOR, appended(request, client))?,
        false => request.insert_header(FOR, client.clone())?,
    }
    if !trusted || !request.headers.contains_key(PROTO) {
        request.insert_header(PROTO, HeaderValue::from_static("http"))?;
    }
    if !trusted || !request.headers.contains_key(FORWARDED_HOST) {
        match fields::first(&request.headers, &HOST).cloned() {
            Some(host) => request.insert_header(FORWARDED_HOST, host)?,
            None => drop(request.remove_header(FORWARDED_HOST)),
        }
    }
    if !trusted && fields::has(&request.headers, &FORWARDED) {
        request.remove_header(&FORWARDED);
    }
    request.insert_header(REQUEST_ID, request_id.clone())
}

/// The addresses given so far, then ours; several fields are one list (RFC 9110 §5.3).
fn appended(request: &RequestHeader, client: &HeaderValue) -> String {
    let mut list = String::new();
    for value in request.headers.get_all(FOR) {
        if let Ok(value) = value.to_str()
            && !value.is_empty()
        {
            list.push_str(value);
            list.push_str(", ");
        }
    }
    list.push_str(client.to_str().unwrap_or_default());
    list
}

/// A cell is an origin server: it gets the origin form of an absolute target
/// (RFC 9112 §3.2.1), and `*` for an OPTIONS without a path (§3.2.4). An
/// HTTP/1.0 request without Host gets the one that HTTP/1.1 requires (§3.2).
///
/// # Errors
/// Only if the target cannot be one, which a part of a good one is.
pub(super) fn origin_form(request: &mut RequestHeader) -> pingora::Result<()> {
    let target = request.raw_path();
    let absolute = target
        .first()
        .is_some_and(|first| !matches!(first, b'/' | b'*'));
    let scheme = memchr::memmem::find(target, b"://").filter(|_| absolute);
    let Some(scheme) = scheme else {
        if !fields::has(&request.headers, &HOST) {
            request.insert_header(HOST, HeaderValue::from_static(""))?;
        }
        return Ok(());
    };
    let rest = target.get(scheme + 3..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    let origin = match path {
        [b'/', ..] => path.to_vec(),
        [_, ..] => [b"/", path].concat(),
        [] if request.method == Method::OPTIONS => b"*".to_vec(),
        [] => b"/".to_vec(),
    };
    if !request.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_bytes(authority)
    {
        request.insert_header(HOST, host)?;
    }
    request.set_raw_path(&origin)
}

/// Gives the cell the Host that its placement asks for. What the client sent
/// is in `X-Forwarded-Host`.
///
/// # Errors
/// Only if a value cannot be a header; these were made as such.
pub(super) fn set_host(request: &mut RequestHeader, target: &Target) -> pingora::Result<()> {
    let placement = target.placement();
    let host = match (&placement.policy.host_header, target.attempt()) {
        (HostHeader::Rewrite, Some(attempt)) => attempt.backend().origin.authority.clone(),
        (HostHeader::Fixed(_), _) => match &placement.fixed_host {
            Some(host) => host.clone(),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    request.insert_header(HOST, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> pingora::Result<RequestHeader> {
        let mut request = RequestHeader::build("GET", b"/", None)?;
        for (name, value) in headers {
            request.append_header(*name, *value)?;
        }
        Ok(request)
    }

    fn all(request: &RequestHeader, name: &str) -> Vec<String> {
        let values = request.headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    #[test]
    fn an_untrusted_client_is_not_believed() -> pingora::Result<()> {
        let claims = [
            (FOR, "1.2.3.4"),
            (FOR, "5.6.7.8"),
            (PROTO, "https"),
            (FORWARDED_HOST, "evil"),
            ("Forwarded", "for=1.2.3.4"),
            ("Host", "real"),
        ];
        let id = HeaderValue::from_static("id");
        let client = &HeaderValue::from_static("10.0.0.1");

        let mut untrusted = request(&claims)?;
        add_headers(&mut untrusted, client, false, &id)?;
        assert_eq!(all(&untrusted, FOR), ["10.0.0.1"]);
        assert_eq!(all(&untrusted, PROTO), ["http"]);
        assert_eq!(all(&untrusted, FORWARDED_HOST), ["real"]);
        assert_eq!(all(&untrusted, "forwarded"), [""; 0]);
        assert_eq!(all(&untrusted, REQUEST_ID), ["id"]);

        let mut trusted = request(&claims)?;
        add_headers(&mut trusted, client, true, &id)?;
        assert_eq!(all(&trusted, FOR), ["1.2.3.4, 5.6.7.8, 10.0.0.1"]);
        assert_eq!(all(&trusted, PROTO), ["https"]);
        assert_eq!(all(&trusted, FORWARDED_HOST), ["evil"]);
        assert_eq!(all(&trusted, "forwarded"), ["for=1.2.3.4"]);

        let mut plain = request(&[])?;
        add_headers(&mut plain, client, true, &id)?;
        assert_eq!(all(&plain, FOR), ["10.0.0.1"]);
        assert_eq!(all(&plain, FORWARDED_HOST), [""; 0]);
        Ok(())
    }

    /// A request is told the same on either way.
    #[test]
    fn lines_and_fields_say_the_same() -> pingora::Result<()> {
        let client = &HeaderValue::from_static("10.0.0.1");
        let mut lines = Vec::new();
        write_lines(client, b"real:80", &mut lines);
        let lines = String::from_utf8_lossy(&lines).into_owned();
        let (_, id) = lines.rsplit_once(": ").unwrap_or_default();
        let id = HeaderValue::from_str(id.trim_end()).unwrap_or(HeaderValue::from_static(""));
        assert_eq!(request_id::keep_or_make(Some(&id)), id);

        let mut fields = request(&[("Host", "real:80")])?;
        add_headers(&mut fields, client, false, &id)?;
        for name in ORIGIN_FIELDS {
            let line = all(&fields, name).concat();
            let told = format!("{name}: {line}\r\n");
            let found = lines.to_ascii_lowercase().contains(&told);
            assert_eq!(found, name != FORWARDED.as_str(), "{told} in {lines}");
        }
        assert_eq!(lines.lines().count(), ORIGIN_FIELDS.len() - 1);
        for (key, told) in [("x-routing-key", true), ("x-forwarded-host", false)] {
            assert_eq!(origin_fields(&HeaderName::from_static(key)).is_some(), told);
        }
        Ok(())
    }

    #[test]
    fn trust_is_by_network_and_sees_through_mapped_addresses() {
        let networks: Vec<IpNet> = ["10.0.0.0/8", "::1/128"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        for (client, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
        ] {
            let address = client
                .parse::<IpAddr>()
                .map(|client| is_trusted(client, &networks));
            assert_eq!(address, Ok(trusted), "{client}");
        }
    }

    #[test]
    fn cells_get_origin_form() -> pingora::Result<()> {
        for (method, target, sent) in [
            ("GET", "/a?b", "/a?b"),
            ("GET", "http://h/a?b", "/a?b"),
            ("GET", "http://h", "/"),
            ("GET", "http://h?q", "/?q"),
            ("OPTIONS", "http://h:1", "*"),
            ("OPTIONS", "http://h/", "/"),
            ("OPTIONS", "*", "*"),
        ] {
            let mut request = RequestHeader::build(method, target.as_bytes(), None)?;
            origin_form(&mut request)?;
            let host = if target.starts_with("http") { "h" } else { "" };
            assert!(all(&request, "host")[0].starts_with(host), "{target}");
            assert_eq!(
                String::from_utf8_lossy(request.raw_path()),
                sent,
                "{method} {target}"
            );
        }
        Ok(())
    }
}
