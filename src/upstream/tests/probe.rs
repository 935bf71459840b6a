//! One probe against real sockets. TLS is in the integration tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pingora_core::server::configuration::ServerConf;
use serde_json::{Value, json};

use crate::state::tests::Fixture;
use crate::table::HealthCheck;
use crate::upstream::{Backend, HttpProbe, Probe, Probed};

/// A cell that accepts one connection and does with it what `script` says.
fn cell<T: Send + 'static>(
    script: impl FnOnce(&mut TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let cell = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        script(&mut stream)
    });
    (address, cell)
}

/// The header of a request.
fn request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    String::from_utf8(request).unwrap()
}

/// A backend at `url` that is checked as `fields` say, and what they say.
fn checked(url: &str, fields: Value) -> (Arc<Backend>, HealthCheck) {
    let edge = Fixture::new();
    let placement = json!({"url": url, "health_check": fields});
    let document = json!({
        "version": "1",
        "routingTable": {},
        "placements": {"cell": placement},
        "defaultPlacement": "cell",
    });
    let generation = edge.changed(&serde_json::to_vec(&document).unwrap());
    let placement = &generation.placements[0];
    let check = placement.policy.health_check.clone().unwrap();
    (Arc::clone(&placement.backends()[0]), check)
}

async fn probe(url: &str, fields: Value) -> Probed {
    let (backend, check) = checked(url, fields);
    let started = Instant::now();
    let probed = HttpProbe::new(&ServerConf::default())
        .probe(&backend, &check)
        .await;
    assert!(
        started.elapsed() < check.timeout + Duration::from_secs(1),
        "it took {:?}",
        started.elapsed()
    );
    probed
}

fn well(timed_out: bool) -> Probed {
    Probed {
        outcome: Ok(()),
        timed_out,
    }
}

fn ill(why: &str) -> Probed {
    Probed {
        outcome: Err(why.to_owned()),
        timed_out: false,
    }
}

#[tokio::test]
async fn a_probe_is_one_plain_request() {
    for (fields, path, host) in [
        (json!({}), "/health", None),
        (json!({"path": "/state?deep=1"}), "/state?deep=1", None),
        (
            json!({"host": "tier1.internal"}),
            "/health",
            Some("tier1.internal"),
        ),
    ] {
        let (address, cell) = cell(|stream| {
            let request = request(stream);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
                .unwrap();
            // The edge closes: there will be no second request.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            (request, rest.len())
        });
        let probed = probe(&format!("http://{address}"), fields).await;
        assert_eq!(probed, well(false));
        let host = host.map_or(address.to_string(), str::to_owned);
        let version = env!("CARGO_PKG_VERSION");
        let (request, rest) = cell.join().unwrap();
        assert_eq!(
            request,
            format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cellgate/{version}\r\n\
                 Connection: close\r\n\r\n"
            )
        );
        assert_eq!(rest, 0);
    }
}

#[tokio::test]
async fn answers_are_judged_by_their_status() {
    for (answer, fields, expected) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", json!({}), well(false)),
        (
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
            json!({}),
            well(false),
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            json!({}),
            ill("answered 503 (expected 200-299)"),
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
            json!({"expected_status": [200, "400-404"]}),
            ill("answered 302 (expected 200, 400-404)"),
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            json!({"expected_status": [200, "400-404"]}),
            well(false),
        ),
        // RFC 9110 §15.2: any number of interim answers may come before.
        (
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            json!({}),
            well(false),
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            json!({}),
            ill("answered 101 (expected 200-299)"),
        ),
        // The answer counts, whatever becomes of its body.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut",
            json!({}),
            well(false),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            json!({}),
            well(false),
        ),
        (
            "",
            json!({}),
            ill("closed the connection without an answer"),
        ),
        (
            "HTTP/1.1 20",
            json!({}),
            ill("closed the connection without an answer"),
        ),
        (
            "220 mail ready\r\n",
            json!({}),
            ill("the answer is not valid http"),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            json!({}),
            ill("the answer is not valid http"),
        ),
    ] {
        let (address, cell) = cell(move |stream| {
            request(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let probed = probe(&format!("http://{address}"), fields).await;
        assert_eq!(probed, expected, "{answer:?}");
        cell.join().unwrap();
    }
}

#[tokio::test]
async fn a_cell_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let probed = probe(&format!("http://{address}"), json!({})).await;
    assert_eq!(probed, ill("connection refused"));
}

#[tokio::test]
async fn a_cell_that_resets() {
    let (address, cell) = cell(|stream| {
        request(stream);
        // Closing at once, with nothing said, sends a reset.
        socket2::SockRef::from(&*stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let probed = probe(&format!("http://{address}"), json!({})).await;
    assert_eq!(probed, ill("connection reset"));
    cell.join().unwrap();
}

#[tokio::test]
async fn a_cell_that_keeps_silent() {
    let (address, cell) = cell(|stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
    });
    let probed = probe(&format!("http://{address}"), json!({"timeout": "100ms"})).await;
    assert_eq!(probed.outcome, Err("timed out after 100ms".to_owned()));
    assert!(probed.timed_out);
    cell.join().unwrap();
}

/// What a cell sends without end costs neither memory nor more time than one that
/// is silent.
#[tokio::test]
async fn a_cell_without_end() {
    let header = "HTTP/1.1 200 OK\r\n";
    let too_large = ill("the answer is not valid http");
    let ended = ill("sent interim answers only");
    for (begin, part, expected) in [
        (header, "X: y\r\n".repeat(100), Some(too_large.clone())),
        ("HTTP/1.1 200 ", "x".repeat(1000), Some(too_large)),
        (
            "",
            "HTTP/1.1 102 Processing\r\n\r\n".repeat(100),
            Some(ended),
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n",
            "body".repeat(1000),
            Some(well(false)),
        ),
        // So slowly that it never comes to an end.
        (header, "X".to_owned(), None),
    ] {
        let slow = part.len() == 1;
        let shown = format!("{begin}{}", &part[..part.len().min(20)]);
        let (address, cell) = cell(move |stream| {
            request(stream);
            stream.write_all(begin.as_bytes()).unwrap();
            // Until the edge has had enough.
            while stream.write_all(part.as_bytes()).is_ok() {
                if slow {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let timeout = if slow { "200ms" } else { "5s" };
        let probed = probe(&format!("http://{address}"), json!({"timeout": timeout})).await;
        match expected {
            Some(expected) => assert_eq!(probed, expected, "{shown}"),
            None => assert!(probed.outcome.is_err() && probed.timed_out, "{probed:?}"),
        }
        cell.join().unwrap();
    }
}

/// The status is known, so the cell is well; but it may not hold a place again
/// and again that others would use.
#[tokio::test]
async fn a_body_that_never_ends_is_slow_and_well() {
    let (address, cell) = cell(|stream| {
        request(stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
    });
    let probed = probe(&format!("http://{address}"), json!({"timeout": "100ms"})).await;
    assert_eq!(probed, well(true));
    cell.join().unwrap();
}
