//! Parses endpoints: the scheme, host and port of a URL.
//!
//! URL parsers are lenient: they remove tabs and newlines, turn `\` into `/`, read `127.1` as
//! 127.0.0.1, and accept a path, which an endpoint cannot have. Here each of these is an error
//! that says what is valid. The `url` crate parses the host (IPv6, IDNA); the strict parser
//! around it is ours.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::Host;

use super::problem::{Quoted, nearest};

/// The URL of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// A name, in lowercase ASCII (punycode where the document had Unicode), or
    /// an IP address in its canonical form, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// The protocol of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP; the default port is 80.
    Http,
    /// TLS with verified certificates; the default port is 443.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Endpoint {
    /// The value of a Host header: host and port, without the default port of the scheme
    /// (RFC 9110, section 7.2), IPv6 in brackets.
    pub fn authority(&self) -> String {
        let Self { scheme, host, port } = self;
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        if *port == scheme.default_port() {
            host
        } else {
            format!("{host}:{port}")
        }
    }
}

/// The canonical URL, with its port: `http://cell-tier1:9001`, `https://[::1]:443`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is not an endpoint: names the text, what is wrong, and what is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointError(String);

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        parse(text).map_err(|fault| {
            EndpointError(match fault {
                Fault::Empty => {
                    "empty endpoint (valid: http://host:port or https://host:port)".to_owned()
                }
                Fault::Is(what) => format!("endpoint {} {what}", Quoted(&without_password(text))),
            })
        })
    }
}

/// Parses the value of a Host header (RFC 9110, section 7.2), `host` or `host:port`, and
/// returns its canonical form.
///
/// # Errors
///
/// Names the text, what is wrong, and what is valid.
pub(super) fn host_and_port(text: &str) -> Result<String, String> {
    canonical_host_and_port(text).map_err(|fault| match fault {
        Fault::Empty => "empty host (valid: host or host:port)".to_owned(),
        Fault::Is(what) => format!("host {} {what}", Quoted(&without_password(text))),
    })
}

fn canonical_host_and_port(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    refuse_characters(text)?;
    if text.contains("://") {
        return fault("is a URL (valid: host or host:port)");
    }
    if text.contains('@') {
        return fault("carries a user name or password (valid: host or host:port)");
    }
    if text.contains(['/', '?', '#']) {
        return fault("goes on after its host and port (valid: host or host:port)");
    }
    let (host, port) = split_port(text)?;
    let mut canonical = parse_host(host)?;
    if canonical.contains(':') {
        canonical = format!("[{canonical}]");
    }
    if let Some(port) = port {
        canonical = format!("{canonical}:{}", parse_port(port)?);
    }
    Ok(canonical)
}

/// The text without what is before an `@`, which may be a password.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.find("://").map_or("", |end| &before[..end + 3]);
            format!("{scheme}…@{host}")
        }
        None => text.to_owned(),
    }
}

/// What is wrong; the message begins with the endpoint or host.
enum Fault {
    Empty,
    Is(String),
}

fn fault<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Is(what.into()))
}

fn parse(text: &str) -> Result<Endpoint, Fault> {
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    refuse_characters(text)?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return fault(without_scheme(text));
    };
    let scheme = parse_scheme(scheme)?;

    let (authority, tail) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    refuse_tail(tail)?;
    if authority.contains('@') {
        return fault("carries a user name or password, which would not be sent (remove it)");
    }
    let (host, port) = split_port(authority)?;
    Ok(Endpoint {
        scheme,
        host: parse_host(host)?,
        port: match port {
            Some(port) => parse_port(port)?,
            None => scheme.default_port(),
        },
    })
}

/// Refuses characters that URL parsers remove or replace.
fn refuse_characters(text: &str) -> Result<(), Fault> {
    if let Some(character) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return fault(format!("contains {}", Invisible(character)));
    }
    if text.contains('\\') {
        return fault("contains a backslash (URLs have forward slashes)");
    }
    Ok(())
}

fn parse_scheme(text: &str) -> Result<Scheme, Fault> {
    // RFC 3986, section 3.1: schemes are case-insensitive.
    for scheme in [Scheme::Http, Scheme::Https] {
        if text.eq_ignore_ascii_case(scheme.as_str()) {
            return Ok(scheme);
        }
    }
    let hint = match nearest(["http", "https"].into_iter(), text) {
        Some(scheme) => format!("; did you mean \"{scheme}\"?"),
        None => String::new(),
    };
    fault(format!(
        "has the scheme {} (valid: http, https{hint})",
        Quoted(text)
    ))
}

/// The message for a URL without `://`. Probably it is `host:port`.
fn without_scheme(text: &str) -> String {
    let guess = format!(
        "http://{}",
        text.trim_start_matches("http:").trim_start_matches('/')
    );
    match parse(&guess) {
        Ok(_) => format!("has no scheme (write {})", Quoted(&guess)),
        Err(_) => "has no scheme (valid: http://host:port or https://host:port)".to_owned(),
    }
}

/// Refuses a path, query or fragment after host and port.
fn refuse_tail(tail: &str) -> Result<(), Fault> {
    let part = match tail.as_bytes() {
        [] | [b'/'] => return Ok(()),
        [b'?', ..] | [b'/', b'?', ..] => "query",
        [b'#', ..] | [b'/', b'#', ..] => "fragment",
        _ => "path",
    };
    fault(format!(
        "has the {part} {}, which would be dropped (requests keep their own path and query)",
        Quoted(if part == "path" {
            tail
        } else {
            tail.trim_start_matches('/')
        })
    ))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Fault> {
    if authority.starts_with('[') {
        let Some(end) = authority.find(']') else {
            return fault("has an IPv6 address without its closing bracket");
        };
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => fault(format!("has {} between its host and its end", Quoted(rest))),
        };
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => match authority.parse::<Ipv6Addr>() {
            Ok(address) => fault(format!(
                "has an IPv6 address without brackets (write [{address}])"
            )),
            Err(_) => fault("has more than one colon after its host"),
        },
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, Fault> {
    // `parse` would accept a sign and leading zeros.
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if plain => Ok(port),
        _ if text.is_empty() => fault("ends in a colon without a port (valid: 1 to 65535)"),
        _ => fault(format!("has the port {} (valid: 1 to 65535)", Quoted(text))),
    }
}

fn parse_host(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return fault("has no host");
    }
    let invalid = || format!("has the invalid host {}", Quoted(text));
    // The parser would decode it.
    if text.contains('%') {
        return fault(format!("{} (a percent sign has no place in it)", invalid()));
    }
    match Host::parse(text) {
        Ok(Host::Ipv6(address)) => Ok(address.to_string()),
        Ok(Host::Ipv4(address)) => {
            let canonical = address.to_string();
            if canonical == text {
                Ok(canonical)
            } else {
                // RFC 6943, section 3.1.1: what "010.1" means depends on who reads it.
                fault(format!(
                    "{} (it could be read as the address {canonical})",
                    invalid()
                ))
            }
        }
        Ok(Host::Domain(name)) => match check_name(&name) {
            Ok(()) => Ok(name),
            Err(why) => fault(format!("{} ({why})", invalid())),
        },
        Err(error) => fault(format!("{} ({error})", invalid())),
    }
}

/// Checks that a resolver can look up `name`: RFC 1123, section 2.1, and the underscore that
/// container networks use. Without this check, an unexpanded `${CELL_HOST}` would be a name.
fn check_name(name: &str) -> Result<(), String> {
    let relative = name.strip_suffix('.').unwrap_or(name);
    if relative.len() > 253 {
        return Err(format!("{} characters, at most 253", relative.len()));
    }
    for label in relative.split('.') {
        if label.is_empty() {
            return Err("empty label".to_owned());
        }
        if label.len() > 63 {
            return Err(format!("a label of {} characters, at most 63", label.len()));
        }
        let valid = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if let Some(character) = label.chars().find(|c| !valid(c)) {
            return Err(format!(
                "the character '{character}' is not valid in a host name"
            ));
        }
    }
    Ok(())
}

/// The name of an invisible character.
struct Invisible(char);

impl fmt::Display for Invisible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            ' ' => "a space",
            '\t' => "a tab",
            '\n' | '\r' => "a line break",
            other if other.is_whitespace() => "white space",
            _ => "a control character",
        };
        write!(f, "{name} (U+{:04X})", u32::from(self.0))
    }
}
