//! One request as one line of JSON.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::telemetry::{json, time};

/// What a line says about a request. Borrowed: it is formatted before `log`
/// returns.
#[derive(Clone, Debug)]
pub struct AccessRecord<'a> {
    pub request_id: &'a str,
    pub method: &'a str,
    /// Path and query as they were received.
    pub path: &'a str,
    /// The bytes of the routing key header; not always UTF-8.
    pub routing_key: Option<&'a [u8]>,
    /// `placement_key` in the line.
    pub placement: Option<&'a str>,
    /// `route_reason` in the line.
    pub reason: Option<&'static str>,
    /// `upstream_url` in the line.
    pub upstream: Option<&'a str>,
    /// `upstream_address` in the line: where the last attempt was made.
    pub upstream_address: Option<SocketAddr>,
    /// Why another placement served than the key's own.
    pub failover_reason: Option<&'static str>,
    /// `status_code` in the line. 499: the client left before its answer began.
    pub status: u16,
    /// `duration_ms` in the line, with three decimals.
    pub duration: Duration,
    /// Body bytes sent to the client.
    pub bytes_sent: u64,
    pub client: Option<SocketAddr>,
    /// A stable code of what went wrong, as in the error reply.
    pub error: Option<&'static str>,
    /// The generation that routed the request.
    pub generation: Option<u64>,
}

/// The line of `record`, finished at `now`, with its newline. All fields are
/// always there, in this order; what is not known is `null`.
pub(super) fn format(record: &AccessRecord<'_>, now: SystemTime) -> Vec<u8> {
    // Names, punctuation and numbers take about 300 bytes; with the texts on
    // top, growing is the exception.
    let texts = record.request_id.len()
        + record.path.len()
        + record.routing_key.map_or(0, <[u8]>::len)
        + record.placement.map_or(0, str::len)
        + record.upstream.map_or(0, str::len);
    let mut line = Vec::with_capacity(384 + texts);
    let out = &mut line;

    out.extend_from_slice(b"{\"timestamp\":\"");
    time::write_millis(out, now);
    out.extend_from_slice(b"\",\"request_id\":");
    json::write_str(out, record.request_id);
    out.extend_from_slice(b",\"method\":");
    json::write_str(out, record.method);
    out.extend_from_slice(b",\"path\":");
    json::write_str(out, record.path);
    out.extend_from_slice(b",\"routing_key\":");
    or_null(out, record.routing_key, json::write_bytes);
    out.extend_from_slice(b",\"placement_key\":");
    or_null(out, record.placement, json::write_str);
    out.extend_from_slice(b",\"route_reason\":");
    or_null(out, record.reason, json::write_str);
    out.extend_from_slice(b",\"upstream_url\":");
    or_null(out, record.upstream, json::write_str);
    out.extend_from_slice(b",\"status_code\":");
    json::write_u64(out, u64::from(record.status));
    out.extend_from_slice(b",\"duration_ms\":");
    write_milliseconds(out, record.duration);
    out.extend_from_slice(b",\"client\":");
    or_null(out, record.client, write_address);
    out.extend_from_slice(b",\"bytes_sent\":");
    json::write_u64(out, record.bytes_sent);
    out.extend_from_slice(b",\"upstream_address\":");
    or_null(out, record.upstream_address, write_address);
    out.extend_from_slice(b",\"failover_reason\":");
    or_null(out, record.failover_reason, json::write_str);
    out.extend_from_slice(b",\"generation\":");
    or_null(out, record.generation, json::write_u64);
    out.extend_from_slice(b",\"error\":");
    or_null(out, record.error, json::write_str);
    out.extend_from_slice(b"}\n");
    line
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    // Digits, hex and punctuation: nothing to escape. Writing to a Vec cannot
    // fail.
    let _ = write!(out, "\"{address}\"");
}

fn or_null<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_milliseconds(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    json::write_u64(out, micros / 1000);
    let fraction = micros % 1000;
    out.push(b'.');
    for unit in [100, 10, 1] {
        out.push(b'0' + (fraction / unit % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn record<'a>() -> AccessRecord<'a> {
        AccessRecord {
            request_id: "018f-1",
            method: "GET",
            path: "/orders?id=7",
            routing_key: Some(b"acme"),
            placement: Some("tier1"),
            reason: Some("tier"),
            upstream: Some("http://cell-tier1:9001"),
            upstream_address: Some("10.0.0.1:9001".parse().unwrap()),
            failover_reason: None,
            status: 200,
            duration: Duration::from_micros(1042),
            bytes_sent: 512,
            client: Some("192.0.2.7:51234".parse().unwrap()),
            error: None,
            generation: Some(3),
        }
    }

    fn line(record: &AccessRecord<'_>) -> String {
        let now = UNIX_EPOCH + Duration::from_millis(1_767_473_112_007);
        String::from_utf8(format(record, now)).unwrap()
    }

    #[test]
    fn a_request_that_went_well() {
        assert_eq!(
            line(&record()),
            concat!(
                r#"{"timestamp":"2026-01-03T20:45:12.007Z","request_id":"018f-1","#,
                r#""method":"GET","path":"/orders?id=7","routing_key":"acme","#,
                r#""placement_key":"tier1","route_reason":"tier","#,
                r#""upstream_url":"http://cell-tier1:9001","status_code":200,"#,
                r#""duration_ms":1.042,"client":"192.0.2.7:51234","bytes_sent":512,"#,
                r#""upstream_address":"10.0.0.1:9001","failover_reason":null,"#,
                r#""generation":3,"error":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_request_that_was_refused_before_routing() {
        let refused = AccessRecord {
            routing_key: None,
            placement: None,
            reason: None,
            upstream: None,
            upstream_address: None,
            status: 400,
            duration: Duration::ZERO,
            bytes_sent: 0,
            client: Some("[2001:db8::1]:443".parse().unwrap()),
            error: Some("missing_routing_key"),
            generation: None,
            ..record()
        };
        assert_eq!(
            line(&refused),
            concat!(
                r#"{"timestamp":"2026-01-03T20:45:12.007Z","request_id":"018f-1","#,
                r#""method":"GET","path":"/orders?id=7","routing_key":null,"#,
                r#""placement_key":null,"route_reason":null,"#,
                r#""upstream_url":null,"status_code":400,"#,
                r#""duration_ms":0.000,"client":"[2001:db8::1]:443","bytes_sent":0,"#,
                r#""upstream_address":null,"failover_reason":null,"#,
                r#""generation":null,"error":"missing_routing_key"}"#,
                "\n"
            )
        );
    }

    proptest! {
        #[test]
        fn every_line_parses_and_gives_its_values_back(
            (request_id, method, path) in any::<(String, String, String)>(),
            key in any::<Option<Vec<u8>>>(),
            placement in any::<Option<String>>(),
            (status, bytes_sent, generation) in any::<(u16, u64, Option<u64>)>(),
            micros in 0u64..10_000_000_000,
        ) {
            let text = line(&AccessRecord {
                request_id: &request_id,
                method: &method,
                path: &path,
                routing_key: key.as_deref(),
                placement: placement.as_deref(),
                upstream: placement.as_deref(),
                status,
                bytes_sent,
                generation,
                duration: Duration::from_micros(micros),
                ..record()
            });
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert!(text.ends_with('\n'));
            let parsed: Value = serde_json::from_str(&text).unwrap();
            let key = key.map(|key| String::from_utf8_lossy(&key).into_owned());
            for (name, expected) in [
                ("request_id", json!(request_id)),
                ("method", json!(method)),
                ("path", json!(path)),
                ("routing_key", json!(key)),
                ("placement_key", json!(placement)),
                ("upstream_url", json!(placement)),
                ("status_code", json!(status)),
                ("bytes_sent", json!(bytes_sent)),
                ("generation", json!(generation)),
                ("duration_ms", json!(micros as f64 / 1000.0)),
            ] {
                prop_assert_eq!(&parsed[name], &expected, "{}", name);
            }
        }
    }
}
