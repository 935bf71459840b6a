//! What is an endpoint and what is not, word for word.

use proptest::prelude::*;
use url::Url;

use super::super::problem::Quoted;
use super::super::{Endpoint, Scheme};

#[test]
fn endpoints_have_one_canonical_form() {
    for (text, canonical) in [
        ("http://cell-tier1:9001", "http://cell-tier1:9001"),
        ("http://cell-tier1:9001/", "http://cell-tier1:9001"),
        ("http://cell-tier1", "http://cell-tier1:80"),
        ("https://cell-tier1", "https://cell-tier1:443"),
        ("https://cell-tier1:80", "https://cell-tier1:80"),
        (
            "HTTP://Cell-Tier1.Example:9001",
            "http://cell-tier1.example:9001",
        ),
        ("http://cell_1.internal.:1", "http://cell_1.internal.:1"),
        ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
        ("http://[::1]:9001", "http://[::1]:9001"),
        ("https://[2001:DB8:0:0::1]", "https://[2001:db8::1]:443"),
        ("http://zürich.example", "http://xn--zrich-kva.example:80"),
        (
            "http://xn--zrich-kva.example",
            "http://xn--zrich-kva.example:80",
        ),
    ] {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!(endpoint.to_string(), canonical, "{text}");
        assert_eq!(canonical.parse::<Endpoint>().unwrap(), endpoint);
    }
    let endpoint: Endpoint = "https://[::1]".parse().unwrap();
    assert_eq!(
        (endpoint.scheme, &*endpoint.host, endpoint.port),
        (Scheme::Https, "::1", 443)
    );
    assert_eq!(serde_json::to_value(endpoint).unwrap(), "https://[::1]:443");
}

#[test]
fn whatever_would_be_dropped_is_refused() {
    for (text, why) in [
        ("cell:9001", r#"has no scheme (write "http://cell:9001")"#),
        (
            "http:/cell:9001",
            r#"has no scheme (write "http://cell:9001")"#,
        ),
        ("//cell:9001", r#"has no scheme (write "http://cell:9001")"#),
        ("cell 1", "contains a space (U+0020)"),
        (
            "nothing?",
            "has no scheme (valid: http://host:port or https://host:port)",
        ),
        (
            "htp://cell",
            r#"has the scheme "htp" (valid: http, https; did you mean "http"?)"#,
        ),
        ("ftp://cell", r#"has the scheme "ftp" (valid: http, https)"#),
        (
            "unix://cell",
            r#"has the scheme "unix" (valid: http, https)"#,
        ),
        ("http://", "has no host"),
        ("http://:9001", "has no host"),
        (
            "http:///cell",
            r#"has the path "/cell", which would be dropped (requests keep their own path and query)"#,
        ),
        (
            "http://cell/api/",
            r#"has the path "/api/", which would be dropped (requests keep their own path and query)"#,
        ),
        (
            "http://cell/.",
            r#"has the path "/.", which would be dropped (requests keep their own path and query)"#,
        ),
        (
            "http://cell?",
            r#"has the query "?", which would be dropped (requests keep their own path and query)"#,
        ),
        (
            "http://cell/?a=b",
            r#"has the query "?a=b", which would be dropped (requests keep their own path and query)"#,
        ),
        (
            "http://cell/#",
            r##"has the fragment "#", which would be dropped (requests keep their own path and query)"##,
        ),
        (
            "http://me:pw@cell",
            "carries a user name or password, which would not be sent (remove it)",
        ),
        (
            "http://@cell",
            "carries a user name or password, which would not be sent (remove it)",
        ),
        (" http://cell", "contains a space (U+0020)"),
        ("http://cell\n", "contains a line break (U+000A)"),
        ("http://ce\tll", "contains a tab (U+0009)"),
        ("http://cell\0", "contains a control character (U+0000)"),
        (
            "http:\\\\cell",
            "contains a backslash (URLs have forward slashes)",
        ),
        (
            "http://cell:",
            "ends in a colon without a port (valid: 1 to 65535)",
        ),
        ("http://cell:0", r#"has the port "0" (valid: 1 to 65535)"#),
        (
            "http://cell:080",
            r#"has the port "080" (valid: 1 to 65535)"#,
        ),
        (
            "http://cell:65536",
            r#"has the port "65536" (valid: 1 to 65535)"#,
        ),
        (
            "http://cell:+80",
            r#"has the port "+80" (valid: 1 to 65535)"#,
        ),
        (
            "http://cell:http",
            r#"has the port "http" (valid: 1 to 65535)"#,
        ),
        (
            "http://::1",
            "has an IPv6 address without brackets (write [::1])",
        ),
        ("http://a:b:c", "has more than one colon after its host"),
        (
            "http://[::1",
            "has an IPv6 address without its closing bracket",
        ),
        (
            "http://[::1]9001",
            r#"has "9001" between its host and its end"#,
        ),
        (
            "http://[fe80::1%eth0]",
            r#"has the invalid host "[fe80::1%eth0]" (a percent sign has no place in it)"#,
        ),
        (
            "http://[cell]",
            r#"has the invalid host "[cell]" (invalid IPv6 address)"#,
        ),
        (
            "http://ce%6cl",
            r#"has the invalid host "ce%6cl" (a percent sign has no place in it)"#,
        ),
        (
            "http://127.1",
            r#"has the invalid host "127.1" (it could be read as the address 127.0.0.1)"#,
        ),
        (
            "http://0x7f000001",
            r#"has the invalid host "0x7f000001" (it could be read as the address 127.0.0.1)"#,
        ),
        (
            "http://256.0.0.1",
            r#"has the invalid host "256.0.0.1" (invalid IPv4 address)"#,
        ),
        (
            "http://${CELL}",
            r#"has the invalid host "${CELL}" (the character '$' is not valid in a host name)"#,
        ),
        (
            "http://a..b",
            r#"has the invalid host "a..b" (empty label)"#,
        ),
        ("http://.", r#"has the invalid host "." (empty label)"#),
    ] {
        let error = text.parse::<Endpoint>().unwrap_err().to_string();
        // Passwords have no place in a log.
        let shown = match text.split_once('@') {
            Some((_, host)) => format!("http://…@{host}"),
            None => text.to_owned(),
        };
        assert_eq!(error, format!("endpoint {} {why}", Quoted(&shown)));
    }
    assert!(
        "".parse::<Endpoint>()
            .unwrap_err()
            .to_string()
            .starts_with("empty endpoint")
    );
    let long = format!("http://{}.example", "x".repeat(64));
    assert!(
        long.parse::<Endpoint>()
            .unwrap_err()
            .to_string()
            .contains("at most 63")
    );
    let longer = format!("http://{}example", "abcdefg.".repeat(32));
    assert!(
        longer
            .parse::<Endpoint>()
            .unwrap_err()
            .to_string()
            .contains("at most 253")
    );
}

proptest! {
    /// The strict split reads what it accepts as a URL parser would, and
    /// nothing that it accepts says more than host and port.
    #[test]
    fn agrees_with_the_url_parser(
        text in r"(?i:https?|ws)[:]?//?([a-z0-9.-]{1,12}|\[[0-9a-f:]{2,9}\]|\PC{0,4})(:[0-9]{0,5})?(/|\?|#|\\|[a-z@%]|\PC){0,2}",
    ) {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            let url = Url::parse(&text).unwrap();
            prop_assert_eq!(url.scheme(), endpoint.scheme.as_str());
            prop_assert_eq!(url.port_or_known_default(), Some(endpoint.port));
            let host = url.host_str().unwrap();
            prop_assert_eq!(host.trim_matches(['[', ']']), &endpoint.host);
            prop_assert_eq!((url.path(), url.query(), url.fragment()), ("/", None, None));
            prop_assert_eq!((url.username(), url.password()), ("", None));
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        if let Err(error) = text.parse::<Endpoint>() {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
