//! Rejects cross-site requests when no token protects the API.
//!
//! A web page can make the visitor's browser send requests to any address that the browser can
//! reach, including loopback, and can read the responses through a DNS name of its own for that
//! address (DNS rebinding). `/health` and `/metrics` are public.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use serde_json::json;

use crate::control::Control;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn reject(
    State(control): State<Control>,
    request: Request,
    next: Next,
) -> Response {
    let public = matches!(request.uri().path(), "/health" | "/metrics");
    if !public
        && !control.access.has_tokens()
        && let Err(why) = check(request.headers(), request.uri(), control.local)
    {
        let body = json!({"error": "forbidden", "message": why, "problems": []});
        let json = [(CONTENT_TYPE, "application/json")];
        return (StatusCode::FORBIDDEN, json, format!("{body}\n")).into_response();
    }
    next.run(request).await
}

/// `local`: the API listens on a loopback address.
///
/// # Errors
/// The reason why this may be a cross-site request.
fn check(headers: &HeaderMap, uri: &Uri, local: bool) -> Result<(), String> {
    const HINT: &str = "configure tokens to accept requests from browsers";
    let shown = |value: &http::HeaderValue| {
        let text: String = String::from_utf8_lossy(value.as_bytes())
            .chars()
            .take(80)
            .collect();
        text.escape_debug().to_string()
    };
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = shown(origin);
        return Err(format!("cross-site request (Origin: {origin}); {HINT}"));
    }
    if let Some(site) = headers.get(SEC_FETCH_SITE)
        && !matches!(site.as_bytes(), b"none" | b"same-origin")
    {
        let site = shown(site);
        return Err(format!(
            "cross-site request (Sec-Fetch-Site: {site}); {HINT}"
        ));
    }
    if !local {
        return Ok(());
    }
    let hosts = headers.get_all(HOST);
    let local_name = |value: &http::HeaderValue| {
        let authority = value.to_str().ok().and_then(|text| text.parse().ok());
        authority.is_some_and(|authority: Authority| is_local(authority.host()))
    };
    if uri.authority().is_some_and(|named| !is_local(named.host())) {
        return Err(foreign_host(uri.host().unwrap_or_default()));
    }
    match hosts.iter().find(|host| !local_name(host)) {
        Some(host) => Err(foreign_host(&shown(host))),
        // HTTP/1.1 requires one, and every browser sends it.
        None if hosts.iter().next().is_none() => Err(foreign_host("")),
        None => Ok(()),
    }
}

fn foreign_host(host: &str) -> String {
    format!(
        "Host: {host} (valid on a loopback address without tokens: localhost or an IP address; any \
         other name may belong to a web page)"
    )
}

/// Whether nobody else can make this name resolve to the loopback address.
fn is_local(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<std::net::IpAddr>().is_ok();
    let name = host.to_ascii_lowercase();
    address || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(headers: &[(&'static str, &'static str)], local: bool) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect();
        check(&headers, &Uri::from_static("/api/v1/document"), local).is_ok()
    }

    #[test]
    fn requests_with_browser_headers_are_rejected() {
        for local in [true, false] {
            for (header, taken) in [
                (("origin", "https://evil.example"), false),
                (("origin", "null"), false),
                (("origin", ""), false),
                (("sec-fetch-site", "cross-site"), false),
                (("sec-fetch-site", "same-site"), false),
                (("sec-fetch-site", "else"), false),
                (("sec-fetch-site", "none"), true),
                (("user-agent", "curl/8"), true),
            ] {
                let headers = [("host", "127.0.0.1:8081"), header];
                assert_eq!(checked(&headers, local), taken, "{header:?}");
            }
        }
    }

    #[test]
    fn on_loopback_only_local_names_are_accepted() {
        for (host, taken) in [
            ("localhost", true),
            ("LocalHost:8081", true),
            ("control.localhost:8081", true),
            ("127.0.0.1:8081", true),
            ("[::1]:8081", true),
            ("192.0.2.1", true),
            ("evil.example:8081", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example@127.0.0.1", true),
            ("notlocalhost", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(checked(&[("host", host)], true), taken, "{host:?}");
            assert!(checked(&[("host", host)], false), "{host:?}");
        }
        assert!(!checked(&[], true));
        let uri = Uri::from_static("http://evil.example/api/v1/document");
        let host = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1"))]);
        assert!(check(&host, &uri, true).is_err());
    }
}
