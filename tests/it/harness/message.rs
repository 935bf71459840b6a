//! HTTP messages as the tests see them: the bytes received, and their parts.

use std::fmt;

use serde_json::Value;

/// A start line and header lines, in the order and case in which they came.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub headers: Vec<(String, String)>,
    /// The bytes as received, with the empty line that ends them.
    pub raw: Vec<u8>,
}

impl Head {
    /// Parses a head that ends with an empty line.
    pub fn parse(raw: &[u8]) -> Head {
        let text = String::from_utf8_lossy(raw);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        Head {
            start,
            headers: fields(lines),
            raw: raw.to_vec(),
        }
    }

    /// The first line named `name`, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Every line named `name`.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The status of a response's start line; 0 when it has none.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// How the body that follows is framed (RFC 9112, section 6.3), as far as the head alone says.
    pub fn framing(&self) -> Framing {
        let chunked = |value: &&str| value.to_ascii_lowercase().ends_with("chunked");
        if self.all("transfer-encoding").last().is_some_and(chunked) {
            return Framing::Chunked;
        }
        match self.get("content-length") {
            Some(length) => Framing::Length(length.trim().parse().unwrap_or(0)),
            None => Framing::Unsaid,
        }
    }
}

/// Header or trailer lines, up to the first empty line.
pub fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| match line.split_once(':') {
            Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
            None => (line.to_owned(), String::new()),
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// Not given: no body in a request, everything up to the end of the connection in a response.
    Unsaid,
}

/// A request as a cell received it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Request {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

/// A response as a client received it.
#[derive(Clone)]
pub struct Response {
    pub head: Head,
    pub status: u16,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The 1xx heads that came before it.
    pub interim: Vec<Head>,
}

impl Response {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {self:?}"),
        }
    }

    /// The value of one metric, summed over the series whose name and labels contain all of `parts`.
    pub fn metric(&self, parts: &[&str]) -> f64 {
        let text = self.text();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let named = series.filter(|line| parts.iter().all(|part| line.contains(part)));
        named
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Asserts that this is an error response of the edge: the status, the stable code, JSON, and the request
    /// id in header and body.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.get("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["error"], code, "{self:?}");
        assert!(
            body["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{self:?}"
        );
        let id = self.get("x-request-id");
        assert!(
            id.is_some_and(|id| !id.is_empty()),
            "no X-Request-Id: {self:?}"
        );
        assert_eq!(body["request_id"].as_str(), id, "{self:?}");
    }

    /// Asserts the placement and the reason in the routing headers.
    #[track_caller]
    pub fn assert_routed(&self, placement: &str, reason: &str) {
        assert_eq!(self.get("x-routed-to"), Some(placement), "{self:?}");
        assert_eq!(self.get("x-route-reason"), Some(reason), "{self:?}");
    }

    /// Whether its sender will close the connection after it.
    pub fn closes(&self) -> bool {
        let says = |word: &str| {
            let tokens = self.head.all("connection").join(",").to_ascii_lowercase();
            tokens.split(',').any(|token| token.trim() == word)
        };
        says("close") || (self.head.start.starts_with("HTTP/1.0") && !says("keep-alive"))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        write!(f, "{}{body}", String::from_utf8_lossy(&self.head.raw))
    }
}
