use super::*;
use proptest::prelude::*;

fn scan(bytes: &[u8]) -> Scan {
    HeadScanner::default().scan(bytes)
}

#[test]
fn accepts_what_the_standard_allows() {
    use BodyFraming::{Chunked, Length};
    for (head, body) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Length(0)),
        ("GET /a?b=c%20d HTTP/1.1\r\nHost: a:80\r\n\r\n", Length(0)),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Length(0)),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Length(0)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Length(0)),
        ("GET / HTTP/1.0\r\n\r\n", Length(0)),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n",
            Length(12),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n",
            Chunked,
        ),
        (
            "M!x / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\ty \r\n\r\n",
            Length(0),
        ),
    ] {
        let length = head.len();
        assert_eq!(
            scan(head.as_bytes()),
            Scan::Complete { length, body },
            "{head:?}"
        );
        let more = format!("{head}GET /next");
        assert_eq!(
            scan(more.as_bytes()),
            Scan::Complete { length, body },
            "{more:?}"
        );
    }
}

#[test]
fn refuses_what_it_forbids() {
    use Refusal::{Connect, Malformed, TooLarge, TransferCoding, Version};
    for (head, refusal) in [
        (
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            Malformed("line without CRLF"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\n\n",
            Malformed("line without CRLF"),
        ),
        ("GET /a b HTTP/1.1\r\n", Malformed("request line")),
        ("GET  / HTTP/1.1\r\n", Malformed("request line")),
        ("GET /\r\n", Malformed("request line")),
        ("G{T / HTTP/1.1\r\n", Malformed("request line")),
        ("\r\nGET / HTTP/1.1\r\n", Malformed("request line")),
        ("GET /\0 HTTP/1.1\r\n", Malformed("request target")),
        ("GET /\x7f HTTP/1.1\r\n", Malformed("request target")),
        ("GET /\r HTTP/1.1\r\n", Malformed("request target")),
        ("GET * HTTP/1.1\r\n", Malformed("request target")),
        ("GET a HTTP/1.1\r\n", Malformed("request target")),
        ("GET http:///a HTTP/1.1\r\n", Malformed("request target")),
        ("GET http://u@a/ HTTP/1.1\r\n", Malformed("request target")),
        ("GET ftp://a/ HTTP/1.1\r\n", Malformed("request target")),
        ("GET http://a%41/ HTTP/1.1\r\n", Malformed("request target")),
        ("GET /a#b HTTP/1.1\r\n", Malformed("request target")),
        ("GET /a?b=\"c\" HTTP/1.1\r\n", Malformed("request target")),
        (
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n",
            Malformed("Host differs from the request target"),
        ),
        ("CONNECT a:443 HTTP/1.1\r\n", Connect),
        ("PRI * HTTP/2.0\r\n\r\n", Version),
        ("GET / HTTP/1.2\r\n", Version),
        ("GET / HTTX/1.1\r\n", Malformed("request line")),
        ("GET / HTTP/1.1\r\n\r\n", Malformed("HTTP/1.1 without Host")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
            Malformed("more than one Host"),
        ),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", Malformed("Host")),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n", Malformed("Host")),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", Malformed("Host")),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n", Malformed("Host")),
        (
            "GET / HTTP/1.1\r\nHost : a\r\n",
            Malformed("header field name"),
        ),
        (
            "GET / HTTP/1.1\r\n x\r\n",
            Malformed("header field without a colon"),
        ),
        (
            "GET / HTTP/1.1\r\nA: b\r\n c: d\r\n",
            Malformed("header field name"),
        ),
        (
            "GET / HTTP/1.1\r\nA: \0\r\n",
            Malformed("header field value"),
        ),
        (
            "GET / HTTP/1.1\r\nA: b\rc\r\n",
            Malformed("header field value"),
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            Malformed("more than one Content-Length"),
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 1, 1\r\n",
            Malformed("Content-Length"),
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: +1\r\n",
            Malformed("Content-Length"),
        ),
        (
            "P / HTTP/1.1\r\nContent-Length:\r\n",
            Malformed("Content-Length"),
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n",
            Malformed("Content-Length"),
        ),
        (
            "P / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed("both Transfer-Encoding and Content-Length"),
        ),
        (
            "P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed("Transfer-Encoding in HTTP/1.0"),
        ),
        (
            "P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            TransferCoding,
        ),
        (
            "P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferCoding,
        ),
        (
            "P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            Malformed("chunked is not the final transfer coding"),
        ),
        (
            "P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            Malformed("chunked is not the final transfer coding"),
        ),
    ] {
        assert_eq!(scan(head.as_bytes()), Scan::Refused(refusal), "{head:?}");
    }
    let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(
        scan(format!("GET / HTTP/1.1\r\n{many}").as_bytes()),
        Scan::Refused(TooLarge)
    );
}

/// What passes here must not fail in the parser behind us, whose answer
/// would have no body, no id and no line in any log.
#[test]
fn every_target_that_passes_is_one_for_the_parser() {
    for byte in 0..=255u8 {
        for before in ["/a", "/a?b", "/", "http://h/", "http://h?", "http://h"] {
            let target = [before.as_bytes(), &[byte]].concat();
            let head = [b"GET ", &*target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
            if matches!(scan(&head), Scan::Complete { .. }) {
                let built = pingora::http::RequestHeader::build("GET", &target, None);
                assert!(built.is_ok(), "{:?}", String::from_utf8_lossy(&target));
            }
        }
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_TARGET));
    assert_eq!(scan(long.as_bytes()), Scan::Refused(Refusal::TooLarge));
}

proptest! {
    /// However the bytes are cut into reads, the verdict is the same.
    #[test]
    fn cutting_changes_nothing(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"Host: a\r\n".to_vec()),
            Just(b"Content-Length: 3\r\n".to_vec()), Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()), Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
        ], 0..8).prop_map(|parts| parts.concat()),
        step in 1usize..9,
    ) {
        let whole = scan(&bytes);
        let mut scanner = HeadScanner::default();
        let mut cut = Scan::Partial;
        let mut end = 0;
        while end < bytes.len() && cut == Scan::Partial {
            end = (end + step).min(bytes.len());
            cut = scanner.scan(&bytes[..end]);
        }
        prop_assert_eq!(cut, whole);
    }
}
