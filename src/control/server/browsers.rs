//! Keeps web pages out, where no token does.
//!
//! A page in a browser can have it send requests to whatever the browser's machine
//! can reach, also to loopback, and with a name of its own for that address read
//! the answers. Without tokens, nothing else would tell such a request from an
//! operator's. `/health` and `/metrics` are anyone's.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use serde_json::json;

use crate::control::Control;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn keep_out(
    State(control): State<Control>,
    request: Request,
    next: Next,
) -> Response {
    let anyones = matches!(request.uri().path(), "/health" | "/metrics");
    if !anyones
        && !control.access.has_tokens()
        && let Err(why) = check(request.headers(), request.uri(), control.local)
    {
        let body = json!({"error": "forbidden", "message": why, "problems": []});
        let json = [(CONTENT_TYPE, "application/json")];
        return (StatusCode::FORBIDDEN, json, format!("{body}\n")).into_response();
    }
    next.run(request).await
}

/// `local`: only this machine can connect.
///
/// # Errors
/// Why this could be the request of a web page.
fn check(headers: &HeaderMap, uri: &Uri, local: bool) -> Result<(), String> {
    const WANT: &str = "with tokens in the settings, requests of browsers are taken";
    let shown = |value: &http::HeaderValue| {
        let text: String = String::from_utf8_lossy(value.as_bytes())
            .chars()
            .take(80)
            .collect();
        text.escape_debug().to_string()
    };
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = shown(origin);
        return Err(format!("a web page asks (Origin: {origin}); {WANT}"));
    }
    if let Some(site) = headers.get(SEC_FETCH_SITE)
        && !matches!(site.as_bytes(), b"none" | b"same-origin")
    {
        let site = shown(site);
        return Err(format!("a web page asks (Sec-Fetch-Site: {site}); {WANT}"));
    }
    if !local {
        return Ok(());
    }
    let hosts = headers.get_all(HOST);
    let here = |value: &http::HeaderValue| {
        let authority = value.to_str().ok().and_then(|text| text.parse().ok());
        authority.is_some_and(|authority: Authority| is_here(authority.host()))
    };
    if uri.authority().is_some_and(|named| !is_here(named.host())) {
        return Err(elsewhere(uri.host().unwrap_or_default()));
    }
    match hosts.iter().find(|host| !here(host)) {
        Some(host) => Err(elsewhere(&shown(host))),
        // HTTP/1.1 wants one, and every browser sends it.
        None if hosts.iter().next().is_none() => Err(elsewhere("")),
        None => Ok(()),
    }
}

fn elsewhere(host: &str) -> String {
    format!(
        "Host: {host} (valid on a loopback address without tokens: localhost or an IP address, as \
         any other name may be a web page's)"
    )
}

/// Whether nobody but this machine's owner can have this name resolve to it.
fn is_here(host: &str) -> bool {
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
    fn what_a_browser_adds_gives_a_page_away() {
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
    fn on_loopback_only_names_of_this_machine_are_taken() {
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
