//! Parsers, one for each kind of value. Each reports `got X, want Y`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use humantime::format_duration;
use ipnet::IpNet;

use super::yaml::Node;
use super::{AccessLogTarget, LogFormat};
use crate::table::parse_duration;

pub(crate) type Parsed<T> = Result<T, String>;

fn wrong<T>(node: &Node, want: &str) -> Parsed<T> {
    Err(format!("got {node}, want {want}"))
}

pub(crate) fn flag(node: &Node) -> Parsed<bool> {
    match node {
        Node::Bool(flag) => Ok(*flag),
        _ => wrong(node, "true or false"),
    }
}

/// A whole number in `range`; the type is the range's.
pub(crate) fn count<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Parsed<T>
where
    T: TryFrom<i128> + PartialOrd + std::fmt::Display,
{
    move |node| {
        if let Node::Int(value) = node
            && let Ok(value) = T::try_from(*value)
            && range.contains(&value)
        {
            return Ok(value);
        }
        let want = format!("a whole number from {} to {}", range.start(), range.end());
        wrong(node, &want)
    }
}

/// Bytes: `65536`, `64KiB`, `1MiB`, `1GiB`.
pub(crate) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Parsed<u64> {
    move |node| {
        let value = match node {
            Node::Int(value) => u64::try_from(*value).ok(),
            Node::Text(text) => parse_bytes(text),
            _ => None,
        };
        match value.filter(|value| range.contains(value)) {
            Some(value) => Ok(value),
            None => {
                let (from, to) = (show_bytes(*range.start()), show_bytes(*range.end()));
                let want = format!("bytes from {from} to {to}, such as 65536, 64KiB, 1MiB or 1GiB");
                wrong(node, &want)
            }
        }
    }
}

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1));
    let number = number.trim_end();
    // `parse` would take a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn show_bytes(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map(|(name, unit)| format!("{}{name}", bytes / unit))
        .unwrap_or_else(|| bytes.to_string())
}

/// `5s`, `500ms`, `1m30s`; a number alone could mean seconds or milliseconds
/// and is refused.
pub(crate) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Parsed<Duration> {
    move |node| {
        if let Node::Text(text) = node
            && let Some(duration) = parse_duration(text)
            && range.contains(&duration)
        {
            return Ok(duration);
        }
        let without_unit = match node {
            Node::Int(_) | Node::Float(_) => " without a unit",
            _ => "",
        };
        Err(format!(
            "got {node}{without_unit}, want a duration from {} to {}, such as 5s, 500ms or 1m30s",
            format_duration(*range.start()),
            format_duration(*range.end())
        ))
    }
}

/// A text that is not empty.
pub(crate) fn text(want: &'static str) -> impl Fn(&Node) -> Parsed<String> {
    move |node| match node {
        // The system would cut a path or a name at a NUL.
        Node::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(text.clone()),
        _ => wrong(node, want),
    }
}

pub(crate) fn path(node: &Node) -> Parsed<String> {
    text("a path")(node)
}

/// One of a few words.
pub(crate) fn choice<T: Clone>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&Node) -> Parsed<T> {
    move |node| {
        if let Node::Text(text) = node
            && let Some((_, value)) = choices.iter().find(|(name, _)| name == text)
        {
            return Ok(value.clone());
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        wrong(node, &names.join(" or "))
    }
}

pub(crate) fn log_format(node: &Node) -> Parsed<LogFormat> {
    choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])(node)
}

/// `127.0.0.1:8080`, `[::1]:8080`.
pub(crate) fn socket_address(node: &Node) -> Parsed<SocketAddr> {
    let Node::Text(text) = node else {
        return wrong(node, SOCKET_ADDRESS);
    };
    text.parse().or_else(|_| wrong(node, SOCKET_ADDRESS))
}

const SOCKET_ADDRESS: &str = "an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\"";

pub(crate) fn ip_address(node: &Node) -> Parsed<IpAddr> {
    match node {
        Node::Text(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| format!("got {node}, want an IP address, such as 127.0.0.1 or \"::1\""))
}

/// `10.0.0.0/8`, or an address alone.
pub(crate) fn network(node: &Node) -> Parsed<IpNet> {
    let parsed = match node {
        Node::Text(text) => text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .ok(),
        _ => None,
    };
    let Some(network) = parsed else {
        return wrong(
            node,
            "an IP address or a network, such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32",
        );
    };
    if network.addr() != network.network() {
        // With host bits set, one host may have been meant; do not trust a whole network.
        let host = IpNet::from(network.addr());
        let want = format!("the network {} or the host {host}", network.trunc());
        return wrong(node, &want);
    }
    Ok(network)
}

/// A DNS name in lowercase, spelt like the host of an endpoint. Underscores
/// pass: container networks use them. A final dot makes it another name.
pub(crate) fn host_name(name: &str) -> Parsed<String> {
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "got the address {name:?}, want a host name: addresses are never looked up"
        ));
    }
    let relative = name.strip_suffix('.').unwrap_or(name);
    if relative.len() > 253 || !relative.split('.').all(label_is_good) {
        return Err(format!(
            "got {name:?}, want a host name: letters, digits, - and _, parted by dots"
        ));
    }
    Ok(name.to_ascii_lowercase())
}

/// Headers that belong to one connection (RFC 9110 section 7.6.1) or frame the
/// message: not for carrying a tenant's name.
const NOT_ROUTING_KEYS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(crate) fn routing_key_header(node: &Node) -> Parsed<HeaderName> {
    let name = match node {
        Node::Text(text) => HeaderName::from_bytes(text.as_bytes()).ok(),
        _ => None,
    };
    let Some(name) = name else {
        return wrong(node, "the name of a header, such as X-Routing-Key");
    };
    if NOT_ROUTING_KEYS.contains(&name.as_str()) {
        let want = format!(
            "a header that goes from end to end, none of: {}",
            NOT_ROUTING_KEYS.join(", ")
        );
        return wrong(node, &want);
    }
    Ok(name)
}

/// `stdout`, `off`, or a path. A word without `/` or `.` is refused: it is more often a
/// typing error than a file.
pub(crate) fn access_log(node: &Node) -> Parsed<AccessLogTarget> {
    match node {
        Node::Text(text) if text == "stdout" => Ok(AccessLogTarget::Stdout),
        Node::Text(text) if text == "off" => Ok(AccessLogTarget::Off),
        Node::Text(text) if text.contains(['/', '.']) && !text.contains('\0') => {
            Ok(AccessLogTarget::File(text.into()))
        }
        _ => wrong(node, "stdout, off or a path, such as ./access.log"),
    }
}
