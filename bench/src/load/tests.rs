use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::cells::{Cells, body};

fn spec(target: SocketAddr, pace: Pace) -> Spec {
    Spec {
        target,
        connections: 8,
        reuse: Reuse::Keepalive,
        pace,
        body: 128,
        table: Table {
            keys: 100,
            moves: 0,
        },
        expect: Expect::Any,
        warm_up: Duration::from_millis(50),
        measure: Duration::from_millis(400),
        most: 1_000_000,
        seed: 7,
    }
}

#[test]
fn whole_answers_are_counted_and_right() {
    let cells = Cells::start(&[0]).expect("cells");
    for (reuse, body) in [
        (Reuse::Keepalive, 128),
        (Reuse::Keepalive, 65_536),
        (Reuse::Never, 128),
    ] {
        let spec = Spec {
            reuse,
            body,
            ..spec(cells.addresses()[2], Pace::Closed)
        };
        let outcome = run(&spec, || ()).expect("load");
        assert_eq!(outcome.errors, Errors::default(), "{reuse:?} {body}");
        assert!(
            outcome.requests > 50 && outcome.latency.len() > 50,
            "{}",
            outcome.requests
        );
    }
}

#[test]
fn the_wrong_cell_is_an_error() {
    let cells = Cells::start(&[0]).expect("cells");
    let spec = Spec {
        expect: Expect::Routed,
        ..spec(cells.addresses()[2], Pace::Rate(400.0))
    };
    let outcome = run(&spec, || ()).expect("load");
    let errors = outcome.errors;
    assert!(
        errors.misrouted > 0 && errors.misrouted == errors.total(),
        "{errors:?}"
    );
    // Of eight cells, one is right.
    assert!(outcome.requests > 0, "none was right");
}

#[test]
fn a_load_is_bounded_and_its_rate_kept() {
    let cells = Cells::start(&[0]).expect("cells");
    let slow = Spec {
        most: 40,
        ..spec(cells.addresses()[0], Pace::Rate(500.0))
    };
    let started = Instant::now();
    let outcome = run(&slow, || ()).expect("load");
    assert!(outcome.requests <= 40, "{}", outcome.requests);
    assert!(started.elapsed() < slow.warm_up + slow.measure);

    let outcome = run(&spec(cells.addresses()[0], Pace::Rate(500.0)), || ()).expect("load");
    assert!(
        (150..=210).contains(&outcome.requests),
        "{}",
        outcome.requests
    );
}

#[test]
fn nobody_there_is_counted_not_waited_for() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = gone.local_addr().expect("its address");
    drop(gone);
    let outcome = run(
        &Spec {
            reuse: Reuse::Never,
            ..spec(target, Pace::Closed)
        },
        || (),
    );
    let errors = outcome.expect("load").errors;
    assert!(errors.broken > 0 && errors.first.is_some(), "{errors:?}");
}

/// Answers, but for a while in which it does nothing.
fn stalling(from: Duration, to: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let body = String::from_utf8(body(0, 128)).expect("text");
    let answer = format!("HTTP/1.1 200 OK\r\nX-Cell: cell-0\r\nContent-Length: 128\r\n\r\n{body}");
    let (answer, started) = (Arc::new(answer), Instant::now());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8) {
            let (mut stream, answer) = (stream.expect("a client"), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|count| count > 0) {
                    let now = started.elapsed();
                    if (from..to).contains(&now) {
                        std::thread::sleep(to - now);
                    }
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// 300 of 900 ms without an answer: a client that waits for each answer would
/// send eight requests in that time; all that were due have to show it.
#[test]
fn a_stall_counts_for_all_that_it_kept_waiting() {
    let target = stalling(Duration::from_millis(300), Duration::from_millis(600));
    let spec = Spec {
        warm_up: Duration::from_millis(1),
        measure: Duration::from_millis(900),
        ..spec(target, Pace::Rate(500.0))
    };
    let outcome = run(&spec, || ()).expect("load");
    assert_eq!(outcome.errors, Errors::default());
    let at = |percentile| outcome.latency.value_at_percentile(percentile) / 1_000_000;
    // 200 of 900 ms have requests that wait for more than 100 ms.
    assert!(at(82.0) > 100, "{} ms", at(82.0));
    assert!(at(99.9) > 250, "{} ms", at(99.9));
    assert!(at(50.0) < 100, "{} ms", at(50.0));
}
