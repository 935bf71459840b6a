use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::SystemTime;

use super::*;
use crate::http::{Fault, Lifecycle, Refusal, Transport};
use crate::settings::AccessLogTarget;
use crate::state::{Generation, Source};
use crate::telemetry::{AccessLog, metrics::Metrics};

/// Everything that exchanges need, with one routing table, and no socket.
pub(crate) struct Fixture {
    state: Arc<crate::state::EdgeState>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    recorder: Arc<Recorder>,
    log: tempfile::TempDir,
}

pub(crate) const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    response_header: Duration::from_secs(2),
    request: Duration::from_secs(3),
    stream_idle: Duration::from_secs(4),
    upstream_idle: Duration::from_secs(5),
};

impl Fixture {
    /// `placement`: the policy of the placement `one`, where `acme` lives.
    pub(crate) fn new(policy: serde_json::Value) -> Self {
        let mut one = serde_json::json!({"url": "http://127.0.0.1:9001"});
        one.as_object_mut()
            .unwrap()
            .extend(policy.as_object().cloned().unwrap_or_default());
        let document = serde_json::json!({
            "version": "1",
            "routingTable": {"acme": "one"},
            "defaultPlacement": "one",
            "placements": {"one": one},
        });
        let metrics = Arc::new(Metrics::new());
        let state = crate::state::EdgeState::new(Default::default(), Arc::clone(&metrics));
        state.apply(
            document.to_string().as_bytes(),
            Source::File,
            SystemTime::now(),
        );
        assert!(state.current().is_some(), "a valid document");
        let log = tempfile::tempdir().unwrap();
        let target = AccessLogTarget::File(log.path().join("access.log"));
        let access_log = AccessLog::open(&target, metrics.access_log_dropped.clone()).unwrap();
        access_log.start();
        Fixture {
            state,
            lifecycle: Arc::new(Lifecycle::new()),
            recorder: Arc::new(Recorder {
                metrics,
                access_log,
            }),
            log,
        }
    }

    fn generation(&self) -> Arc<Generation> {
        self.state.current().unwrap()
    }

    /// The exchange of a request that no decision was made about.
    pub(crate) fn undecided(&self, method: Method, version: Version) -> Exchange {
        let client = Client::new("192.0.2.7:4000".parse().unwrap(), None, Transport::Plain);
        let downstream = Downstream::new(
            Arc::new(client),
            Deadlines {
                response_header: TIMEOUTS.response_header,
                request: TIMEOUTS.request,
                stream_idle: TIMEOUTS.stream_idle,
            },
        );
        let request = Request {
            id: HeaderValue::from_static("id-1"),
            method,
            version,
            path: Some("/orders?id=7".into()),
            content_length: None,
            key: Some(Bytes::from_static(b"acme")),
        };
        Exchange::begin(
            Arc::clone(&self.recorder),
            self.lifecycle.request(),
            Arc::new(downstream),
            request,
            TIMEOUTS,
        )
    }

    /// One that its placement took.
    pub(crate) fn admitted(&self, method: Method, version: Version) -> Exchange {
        let mut exchange = self.undecided(method, version);
        let generation = self.generation();
        let route = generation.table.route(exchange.key());
        let placements = generation.placements.clone();
        let admitted = placements.admit(route.placement, b"acme", exchange.started());
        exchange.destination = Some(Destination {
            generation: generation.number,
            home: route.placement,
            reason: route.reason,
            hold: admitted.map_or_else(Hold::Rejected, Hold::Admitted),
            placements,
        });
        exchange
    }

    /// One that was sent to its cell.
    fn sent(&self) -> Exchange {
        let mut exchange = self.admitted(Method::GET, Version::HTTP_11);
        exchange.connecting(false);
        exchange.connected(false);
        exchange
    }

    /// Requests in flight at the placement, and at its backend.
    fn held(&self) -> (usize, usize) {
        let generation = self.generation();
        let placement = &generation.placements[0];
        let backends = placement.backends();
        let at_backends = backends.iter().map(|backend| backend.in_flight());
        (placement.state.in_flight(), at_backends.sum())
    }

    /// Requests that ended, and those of them with 500 or above.
    fn counted(&self) -> (u64, u64) {
        let generation = self.generation();
        generation.placements[0].state.metrics.requests()
    }

    fn logged(&self) -> Vec<serde_json::Value> {
        assert!(self.recorder.access_log.flush(Duration::from_secs(10)));
        let text = std::fs::read_to_string(self.log.path().join("access.log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn complete(status: u16) -> Ending {
    Ending {
        written: Some(status),
        bytes_sent: 128,
        complete: true,
    }
}

#[test]
fn an_end_is_recorded_once_and_gives_everything_back() {
    let fixture = Fixture::new(serde_json::json!({}));
    let mut exchange = fixture.sent();
    assert_eq!(fixture.held(), (1, 1));
    exchange.answer_begins();
    exchange.answered(200);
    exchange.end(complete(200));
    assert_eq!((fixture.held(), fixture.counted()), ((0, 0), (1, 0)));
    // The connection is still busy with it.
    assert_eq!(fixture.lifecycle.in_flight(), 1);
    exchange.end(complete(500));
    drop(exchange);
    assert_eq!(fixture.lifecycle.in_flight(), 0);
    assert_eq!(fixture.counted(), (1, 0));
    let [line] = fixture.logged().try_into().unwrap();
    for (name, value) in [
        ("request_id", serde_json::json!("id-1")),
        ("method", "GET".into()),
        ("path", "/orders?id=7".into()),
        ("routing_key", "acme".into()),
        ("placement_key", "one".into()),
        ("upstream_url", "http://127.0.0.1:9001".into()),
        ("upstream_address", "127.0.0.1:9001".into()),
        ("status_code", 200.into()),
        ("bytes_sent", 128.into()),
        ("client", "192.0.2.7:4000".into()),
        ("generation", 1.into()),
        ("error", serde_json::Value::Null),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
}

#[test]
fn however_it_is_dropped_it_ends() {
    /// How it is dropped, and the status and the error that are logged if it had no answer.
    type Case = (fn(Exchange), u16, &'static str);
    let drops: [Case; 3] = [
        (drop, 503, "edge_stopped"),
        (
            |exchange| {
                let panicked = catch_unwind(AssertUnwindSafe(move || {
                    let _exchange = exchange;
                    resume_unwind(Box::new(()));
                }));
                assert!(panicked.is_err());
            },
            500,
            "internal_error",
        ),
        (
            |exchange| {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let runtime = runtime.unwrap();
                runtime.spawn(async move {
                    let _exchange = exchange;
                    std::future::pending::<()>().await;
                });
                runtime.block_on(tokio::task::yield_now());
                // A process that ends drops its tasks so.
                drop(runtime);
            },
            503,
            "edge_stopped",
        ),
    ];
    for (how, unanswered, error) in drops {
        let fixture = Fixture::new(serde_json::json!({}));
        how(fixture.sent());
        assert_eq!((fixture.held(), fixture.counted()), ((0, 0), (1, 1)));
        assert_eq!(fixture.lifecycle.in_flight(), 0);
        let mut answering = fixture.sent();
        answering.answered(200);
        answering.passes_answer(200);
        how(answering);
        assert_eq!((fixture.held(), fixture.counted()), ((0, 0), (2, 1)));
        let lines = fixture.logged();
        assert_eq!(lines.len(), 2);
        for (line, status) in lines.iter().zip([unanswered, 200]) {
            assert_eq!(line["status_code"], status);
            assert_eq!(line["error"], error);
        }
    }
}

#[test]
fn what_was_refused_before_routing_is_counted_by_status() {
    let fixture = Fixture::new(serde_json::json!({}));
    let mut exchange = fixture.undecided(Method::GET, Version::HTTP_11);
    exchange.downstream = Arc::new(refused());
    let failure = exchange.judge(Failure::CLIENT_GONE);
    assert_eq!(failure, Failure::HEADER_TOO_LARGE);
    exchange.fail(failure);
    exchange.end(complete(431));
    let metrics = fixture.recorder.metrics.encode();
    assert!(metrics.contains("cellgate_requests_refused_total{status=\"431\"} 1"));
    let [line] = fixture.logged().try_into().unwrap();
    assert_eq!((&line["method"], &line["path"]), (&"-".into(), &"-".into()));
    assert_eq!(line["error"], "header_too_large");
    assert_eq!(line["generation"], serde_json::Value::Null);
}

fn refused() -> Downstream {
    let client = Client::new("[::1]:1".parse().unwrap(), None, Transport::Plain);
    let deadlines = Deadlines {
        response_header: TIMEOUTS.response_header,
        request: TIMEOUTS.request,
        stream_idle: TIMEOUTS.stream_idle,
    };
    let downstream = Downstream::new(Arc::new(client), deadlines);
    downstream.set_fault(Fault::Refused(Refusal::TooLarge));
    downstream
}

#[test]
fn the_first_known_cause_is_the_failure() {
    let fixture = Fixture::new(serde_json::json!({}));
    let mut exchange = fixture.sent();
    assert_eq!(exchange.judge(Failure::CLIENT_GONE), Failure::CLIENT_GONE);
    exchange.downstream.set_fault(Fault::BadBody("chunk size"));
    assert_eq!(exchange.judge(Failure::CLIENT_GONE), Failure::BAD_REQUEST);
    exchange.fail(Failure::BODY_TOO_LARGE);
    let judged = exchange.judge(Failure::CLIENT_GONE);
    assert_eq!(judged, Failure::BODY_TOO_LARGE);
    // The next attempt begins afresh.
    exchange.connecting(true);
    assert_eq!((exchange.failure(), exchange.attempts), (None, 2));
    assert!(matches!(
        exchange.course,
        Course::Connecting { hurried: true }
    ));
}

#[test]
fn repeating_an_attempt_on_a_new_connection_is_no_further_attempt() {
    let fixture = Fixture::new(serde_json::json!({}));
    let mut exchange = fixture.sent();
    exchange.repeat_on_new_connection();
    assert_eq!(exchange.failure(), None);
    exchange.connecting(false);
    exchange.connected(false);
    assert_eq!(exchange.attempts, 1);
    assert!(exchange.new_connection);
    assert_eq!(fixture.held(), (1, 1));
}

#[test]
fn an_answer_moves_the_exchange_on() {
    let breaker = serde_json::json!({"circuit_breaker": {"failure_threshold": 1}});
    for (status, answered, state) in [
        (200, true, "closed"),
        (404, true, "closed"),
        (101, true, "closed"),
        (500, false, "open"),
    ] {
        let fixture = Fixture::new(breaker.clone());
        let mut exchange = fixture.sent();
        assert!(!exchange.has_begun());
        exchange.answer_begins();
        assert!(exchange.has_begun() && !exchange.is_answered());
        exchange.answered(status);
        assert!(exchange.has_begun());
        assert_eq!(exchange.is_answered(), answered, "{status}");
        let backends = fixture.generation().placements[0].backends();
        assert_eq!(backends[0].breaker().0.as_str(), state, "{status}");
        exchange.end(complete(status));
    }
}

#[test]
fn timeouts_reach_the_connection() {
    let fixture = Fixture::new(serde_json::json!({}));
    let mut exchange = fixture.admitted(Method::GET, Version::HTTP_11);
    exchange.set_timeouts(Timeouts {
        request: Duration::from_secs(60),
        ..TIMEOUTS
    });
    let deadlines = exchange.downstream.deadlines();
    assert_eq!(deadlines.request, Duration::from_secs(60));
    assert_eq!(deadlines.stream_idle, TIMEOUTS.stream_idle);
}
