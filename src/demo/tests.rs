//! The demo cell over real sockets: what a caller gets to see of each misbehaviour.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Cell, serve};

/// How long what should happen at once may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a cell is watched for doing nothing.
const SILENCE: Duration = Duration::from_millis(200);

const WORK: &str = "GET /work HTTP/1.1\r\nHost: c\r\n\r\n";
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: c\r\n\r\n";

struct Running {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Running {
    async fn start(told: Value, control: bool) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let cell = Cell {
            name: "tier1".to_owned(),
            misbehaviour: serde_json::from_value(told).expect("a misbehaviour"),
            control,
        };
        let serving = tokio::spawn(serve(listener, cell, std::future::pending()));
        Running { address, serving }
    }

    async fn told(told: Value) -> Running {
        Running::start(told, false).await
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await;
        stream.expect("a connection")
    }

    /// Sends a request on a connection of its own and reads to the end.
    async fn ask(&self, request: &str) -> (String, End) {
        let mut stream = self.connect().await;
        // What closes at once may be gone already.
        let _ = stream.write_all(request.as_bytes()).await;
        rest(&mut stream).await
    }

    /// The same for a request whose answer leaves the connection open: asks to close after it.
    async fn status(&self, request: &str) -> u16 {
        let (head, _) = request.split_once("\r\n\r\n").expect("a head");
        let (text, end) = self
            .ask(&format!("{head}\r\nConnection: close\r\n\r\n"))
            .await;
        assert_eq!(end, End::Closed, "{text}");
        status(&text)
    }

    /// One exchange with the control endpoint.
    async fn control(&self, method: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let request = format!(
            "{method} /_cell/misbehaviour HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let (text, _) = self.ask(&request).await;
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        (status(&text), serde_json::from_str(body).expect("JSON"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn rest(stream: &mut TcpStream) -> (String, End) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    let end = match read.expect("the connection ends") {
        Ok(_) => End::Closed,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            End::Reset
        }
    };
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// The announced length of an answer's body and what came of it.
fn lengths(answer: &str) -> (usize, usize) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let announced = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let announced = announced.and_then(|length| length.parse().ok());
    (announced.expect("a length"), body.len())
}

#[tokio::test]
async fn reset_comes_before_a_byte_of_an_answer() {
    let cell = Running::told(json!({"reset": true})).await;
    assert_eq!(cell.ask(WORK).await, (String::new(), End::Reset));
    assert_eq!(cell.status(HEALTH).await, 200);
}

#[tokio::test]
async fn truncate_announces_more_than_it_sends() {
    let cell = Running::told(json!({"truncate": true, "body_bytes": 1_000})).await;
    let (answer, end) = cell.ask(WORK).await;
    assert_eq!((status(&answer), end), (200, End::Closed));
    let (announced, came) = lengths(&answer);
    assert!(announced > 1_000, "{answer}");
    assert_eq!(came, announced / 2);
    assert_eq!(cell.status(HEALTH).await, 200);
}

#[tokio::test]
async fn cut_resets_half_way_through_the_body() {
    let cell = Running::told(json!({"cut": true, "body_bytes": 100_000, "status": 502})).await;
    let (answer, end) = cell.ask(WORK).await;
    assert_eq!((status(&answer), end), (502, End::Reset));
    let (announced, came) = lengths(&answer);
    assert!(announced > 100_000, "{answer}");
    assert_eq!(came, announced / 2);

    // An answer to HEAD has no body to be cut in, and is still a whole head.
    let (head, end) = cell.ask("HEAD /work HTTP/1.1\r\nHost: c\r\n\r\n").await;
    assert_eq!((lengths(&head).1, end), (0, End::Reset));
}

#[tokio::test]
async fn hang_reads_and_never_answers() {
    let cell = Running::told(json!({"hang": true})).await;
    let mut stream = cell.connect().await;
    stream.write_all(WORK.as_bytes()).await.expect("sent");
    let read = stream.read_u8();
    let read = tokio::time::timeout(SILENCE, read).await;
    assert!(read.is_err(), "{read:?}");
    assert_eq!(cell.status(HEALTH).await, 200);
}

#[tokio::test]
async fn drip_keeps_to_its_rate_and_arrives_whole() {
    let cell = Running::told(json!({"drip": 1_000})).await;
    let began = Instant::now();
    let (answer, end) = cell.ask(WORK).await;
    let took = began.elapsed();
    assert_eq!((status(&answer), end), (200, End::Closed));
    let (announced, came) = lengths(&answer);
    assert_eq!(came, announced);
    // The first tenth of a second's worth comes at once.
    let least = Duration::from_millis(answer.len() as u64 - 100);
    assert!(took >= least, "{} bytes in {took:?}", answer.len());
    assert_eq!(cell.status(HEALTH).await, 200);
}

#[tokio::test]
async fn garbage_is_no_http() {
    let cell = Running::told(json!({"garbage": true})).await;
    let (answer, end) = cell.ask(WORK).await;
    assert_eq!(end, End::Closed);
    assert!(
        !answer.is_empty() && !answer.starts_with("HTTP/"),
        "{answer}"
    );
    assert_eq!(cell.status(HEALTH).await, 200);
}

#[tokio::test]
async fn close_and_delay_concern_health() {
    let cell = Running::told(json!({"close": true})).await;
    for request in [WORK, HEALTH] {
        // A reset when the request came after the close.
        assert_eq!(cell.ask(request).await.0, "", "{request}");
    }
    let cell = Running::told(json!({"delay": "100ms"})).await;
    let began = Instant::now();
    assert_eq!(cell.status(HEALTH).await, 200);
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn health_fails_alone_or_with_the_rest() {
    let cell = Running::told(json!({"unhealthy": true})).await;
    assert_eq!(cell.status(HEALTH).await, 503);
    assert_eq!(cell.status(WORK).await, 200);

    let cell = Running::told(json!({"reset": true, "health_too": true})).await;
    assert_eq!(cell.ask(HEALTH).await, (String::new(), End::Reset));
}

#[tokio::test]
async fn flapping_cells_are_well_and_sick_in_turns() {
    let cell = Running::told(json!({"flap": "50ms", "status": 503})).await;
    let deadline = Instant::now() + DEADLINE;
    let mut turns = vec![cell.status(WORK).await];
    while turns.len() < 4 {
        assert!(Instant::now() < deadline, "only {turns:?}");
        let status = cell.status(WORK).await;
        if turns.last() != Some(&status) {
            turns.push(status);
        }
    }
    turns.sort_unstable();
    assert_eq!(turns, [200, 200, 503, 503]);
}

#[tokio::test]
async fn a_running_cell_is_told_otherwise() {
    let cell = Running::start(json!({"status": 503}), true).await;
    assert_eq!(cell.control("GET", "").await, (200, json!({"status": 503})));
    assert_eq!(cell.status(WORK).await, 503);

    assert_eq!(cell.control("PUT", "{}").await, (200, json!({})));
    assert_eq!(cell.status(WORK).await, 200);

    // The way back stays open whatever it was told.
    for fault in ["close", "reset", "hang", "garbage", "cut", "truncate"] {
        let told = json!({fault: true, "health_too": true, "delay": "1h"});
        assert_eq!(cell.control("PUT", &told.to_string()).await, (200, told));
    }
    let (status, _) = cell.control("PUT", r#"{"close": true}"#).await;
    assert_eq!(status, 200);
    assert_eq!(cell.ask(WORK).await, (String::new(), End::Closed));

    let (status, refused) = cell.control("PUT", r#"{"status": 99}"#).await;
    assert_eq!(status, 400);
    assert_eq!(refused, json!({"error": "status 99: expected 200 to 599"}));
    assert_eq!(cell.control("PUT", "{").await.0, 400);
    assert_eq!(cell.control("PUT", &" ".repeat(20_000)).await.0, 400);
    assert_eq!(cell.control("DELETE", "").await.0, 405);
    assert_eq!(cell.control("GET", "").await.1, json!({"close": true}));
}

/// What a connection was kept alive for changes with the cell.
#[tokio::test]
async fn kept_connections_feel_the_change() {
    let cell = Running::start(json!({}), true).await;
    let mut stream = cell.connect().await;
    stream.write_all(HEALTH.as_bytes()).await.expect("sent");
    let first = tokio::time::timeout(DEADLINE, stream.read_u8()).await;
    assert_eq!(first.expect("in time").expect("an answer"), b'H');
    cell.control("PUT", r#"{"reset": true}"#).await;
    stream.write_all(WORK.as_bytes()).await.expect("sent");
    let (answer, end) = rest(&mut stream).await;
    assert!(answer.starts_with("TTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!((answer.matches("HTTP/").count(), end), (0, End::Reset));
}

#[tokio::test]
async fn without_control_nobody_changes_it() {
    let cell = Running::told(json!({"status": 503})).await;
    let (status, echo) = cell.control("PUT", "{}").await;
    assert_eq!((status, &echo["method"]), (503, &json!("PUT")));
    assert_eq!(cell.status(WORK).await, 503);
}
