//! Tests of those parts of a load whose errors no other test would show.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::schedule::Pacer;
use super::{Failure, Load, Pace, Plan, Tally};
use crate::harness::cell::{Cell, Conn};

/// A response of `cell` as an edge would pass it on.
fn answer(status: u16, cell: &str, routed_to: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\nX-Cell-Name: {cell}\r\nX-Routed-To: {routed_to}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn good() -> String {
    answer(200, "a", "a", "a")
}

/// An error response of the edge itself, in front of cell `a`.
fn refusal() -> String {
    let body = r#"{"error":"circuit_open"}"#;
    let length = body.len();
    format!("HTTP/1.1 503 No\r\nX-Routed-To: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn plan(cell: &Cell, clients: usize) -> Plan {
    let keys = vec![("k".to_owned(), vec!["a".to_owned()])];
    Plan::new(cell.address, clients, keys)
}

/// A cell that passes each request's number, counted over all connections, to `script`.
async fn numbered<R>(script: impl Fn(usize, Conn) -> R + Send + Sync + 'static) -> Cell
where
    R: Future<Output = io::Result<Conn>> + Send + 'static,
{
    let (script, asked) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    Cell::scripted("a", move |mut conn| {
        let (script, asked) = (script.clone(), asked.clone());
        async move {
            while conn.request().await?.is_some() {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                conn = script(number, conn).await?;
            }
            Ok(())
        }
    })
    .await
}

/// Runs one client for exactly `requests` requests.
async fn exactly(requests: usize, plan: Plan) -> Tally {
    let pace = Pace {
        per_second: 1_000.0,
        requests,
    };
    let pace = Some(pace);
    Load::start(&Plan { pace, ..plan }).join().await
}

#[test]
fn percentiles_are_those_of_all_clients_together() {
    let mut sum = Tally::default();
    for client in 0..4 {
        let mut tally = Tally::default();
        for milliseconds in (1 + client..=1_000).step_by(4) {
            tally.good("a".to_owned(), "all", Duration::from_millis(milliseconds));
        }
        tally.good("b".to_owned(), "slow", Duration::from_secs(100 + client));
        sum.add(tally);
    }
    let all = sum.latency("all");
    assert_eq!(all.count, 1_000);
    for (got, milliseconds) in [
        (all.p50, 500.0),
        (all.p99, 990.0),
        (all.p999, 999.0),
        (all.max, 1_000.0),
    ] {
        let got = got.as_secs_f64() * 1_000.0;
        let off = (got - milliseconds).abs() / milliseconds;
        assert!(off <= 0.001, "{got} ms, expected {milliseconds} ms");
    }
    let slow = sum.latency("slow");
    assert_eq!(slow.count, 4);
    assert!(slow.p50 > Duration::from_secs(99), "{slow:?}");
    assert_eq!(sum.slowest, Duration::from_secs(103));
    assert_eq!((sum.ok, sum.cells["a"], sum.cells["b"]), (1_004, 1_000, 4));
}

#[test]
fn the_first_and_last_failure_are_those_of_all_clients() {
    let mut sum = Tally::default();
    for seconds in [[5, 7], [3, 4], [6, 6]] {
        let mut tally = Tally::default();
        tally.answer(503, Some("circuit_open"), Some("a"));
        for (at, expected) in seconds.into_iter().zip([true, false]) {
            let failure = Failure::Unanswered;
            tally.fail("k", &failure, expected, Duration::from_secs(at));
        }
        sum.add(tally);
        sum.add(Tally::default());
    }
    let seconds = Duration::from_secs;
    assert_eq!(sum.failing, Some((seconds(3), seconds(7))));
    assert_eq!((sum.failed, sum.expected), (3, 3));
    let counted = (
        sum.statuses[&503],
        sum.errors["circuit_open"],
        sum.routed["a"],
    );
    assert_eq!(counted, (3, 3, 3));
}

#[tokio::test]
async fn failures_are_told_apart_and_only_the_expected_are_forgiven() {
    let cell = numbered(|number, mut conn| async move {
        let bytes = match number {
            0 => good(),
            1 => refusal(),
            2 => answer(500, "a", "a", "{}"),
            // An expected status does not excuse a response from the wrong cell.
            3 => answer(503, "b", "b", ""),
            4 => answer(200, "a", "b", "a"),
            5 => answer(200, "b", "b", "b"),
            6 => return Err(io::ErrorKind::Other.into()),
            7 => good().replace("Length: 1", "Length: 9"),
            8 => good()[..20].to_owned(),
            _ => answer(200, "a/2", "a", r#"{"cell":"a/2"}"#),
        };
        conn.wire.send(bytes.as_bytes()).await?;
        match number {
            7 | 8 => Err(io::ErrorKind::Other.into()),
            _ => Ok(conn),
        }
    })
    .await;
    let tally = exactly(
        10,
        Plan {
            expect: |failure| match failure {
                Failure::Status { status, error } => {
                    *status == 503 && error.as_deref() == Some("circuit_open")
                }
                failure => matches!(failure, Failure::Cut(_)),
            },
            ..plan(&cell, 1)
        },
    )
    .await;
    // Request 6 was retried and so answered as number 7.
    assert_eq!(tally.retried, 1, "{tally:#?}");
    assert_eq!((tally.ok, tally.expected, tally.failed), (3, 3, 4));
    assert_eq!(tally.cells["a/2"], 2);
    for (failure, words) in
        tally
            .failures
            .iter()
            .zip(["status: 500", "503 by b", "do not agree", "200 by b"])
    {
        assert!(failure.contains(words), "{failure}");
    }
    let statuses: Vec<_> = tally.statuses.iter().map(|(s, n)| (*s, *n)).collect();
    assert_eq!(statuses, [(200, 5), (500, 1), (503, 2)]);
    assert_eq!(tally.errors["circuit_open"], 1);
    assert_eq!((tally.routed["a"], tally.routed["b"]), (5, 3));
    assert!(tally.failing.is_some_and(|(first, last)| first < last));
}

/// A load that paused while the cell stalled would record only one slow response.
#[tokio::test]
async fn a_stall_is_felt_by_every_request_that_was_due() {
    const STALL: Duration = Duration::from_millis(300);
    let cell = numbered(|number, mut conn| async move {
        if number == 50 {
            tokio::time::sleep(STALL).await;
        }
        conn.wire.send(good().as_bytes()).await?;
        Ok(conn)
    })
    .await;
    let pace = Pace {
        per_second: 500.0,
        requests: 200,
    };
    let pace = Some(pace);
    let began = Instant::now();
    let tally = Load::start(&Plan {
        pace,
        ..plan(&cell, 1)
    })
    .join()
    .await;
    let took = began.elapsed();
    tally.assert_no_failure();
    let latency = tally.latency("all");
    assert_eq!((tally.ok, latency.count), (200, 200));
    // The last one is due after 398 ms. Of those due within the stall, 149 waited, the longest 300 ms.
    assert!(took >= Duration::from_millis(398), "{took:?}");
    assert!(latency.p99 >= Duration::from_millis(280), "{latency:?}");
    assert!(latency.p50 >= Duration::from_millis(80), "{latency:?}");
}

#[tokio::test]
async fn what_no_client_took_is_counted() {
    let pace = Pace {
        per_second: 1_000.0,
        requests: 5,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let pacer = Pacer::start(pace, Instant::now(), stop);
    assert_eq!(pacer.unsent().await, 5);

    let stopped = Arc::new(AtomicBool::new(true));
    let pacer = Pacer::start(pace, Instant::now(), stopped);
    assert_eq!(pacer.unsent().await, 0);
}
