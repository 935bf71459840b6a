//! Load: keep-alive clients that check every answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::client::is_reset;
use super::message::{Framing, Head};
use super::wire::Wire;

/// What the clients ask for and what they accept as an answer.
#[derive(Clone)]
pub struct Plan {
    pub proxy: SocketAddr,
    pub clients: usize,
    /// A key, and the cells that some valid table names for it.
    pub keys: Vec<(String, Vec<String>)>,
    /// Stop a client, without counting a failure, once its connection is refused: for an edge that is
    /// being ended.
    pub until_refused: bool,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: JoinSet<Tally>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub ok: u64,
    pub failed: u64,
    /// The first few failures.
    pub failures: Vec<String>,
    /// Answers by cell.
    pub cells: BTreeMap<String, u64>,
    pub connections: u64,
    /// Requests sent again on a new connection, because a kept-alive one was closed before a byte of an
    /// answer came: what every HTTP client does (RFC 9110, section 9.2.2), and counted.
    pub retried: u64,
    /// Clients that ended because their connection was refused.
    pub refused: u64,
    pub slowest: Duration,
}

impl Load {
    pub fn start(plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for number in 0..plan.clients {
            let user = User {
                plan: plan.clone(),
                stop: stop.clone(),
                done: done.clone(),
                tally: Tally::default(),
            };
            clients.spawn(user.run(number));
        }
        Load {
            stop,
            done,
            clients,
        }
    }

    /// Requests answered so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests were answered.
    pub async fn progress(&self, more: u64) {
        let target = self.done() + more;
        let what = format!("{more} more answers under load");
        super::eventually(&what, async || (self.done() >= target).then_some(())).await;
    }

    /// Tells the clients to finish their request and stop, and sums up.
    pub async fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.join().await
    }

    /// Waits until the clients end by themselves (see [`Plan::until_refused`]).
    pub async fn join(mut self) -> Tally {
        let mut sum = Tally::default();
        while let Some(tally) = super::within("the clients end", self.clients.join_next()).await {
            sum.add(tally.expect("a client does not panic"));
        }
        sum
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.connections += other.connections;
        self.retried += other.retried;
        self.refused += other.refused;
        self.slowest = self.slowest.max(other.slowest);
        for (cell, count) in other.cells {
            *self.cells.entry(cell).or_default() += count;
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < 5 {
            self.failures.push(why);
        }
    }

    #[track_caller]
    pub fn assert_no_failure(&self) {
        assert_eq!(self.failed, 0, "failed requests: {self:#?}");
        assert!(self.ok > 0, "no request at all: {self:?}");
    }

    pub fn summary(&self, elapsed: Duration) -> String {
        let mut text = format!(
            "{} requests in {elapsed:.1?} ({:.0}/s), {} failed, {} sent again, slowest {:.0?};",
            self.ok,
            self.ok as f64 / elapsed.as_secs_f64(),
            self.failed,
            self.retried,
            self.slowest
        );
        for (cell, count) in &self.cells {
            let _ = write!(text, " {cell}: {count}");
        }
        text
    }
}

/// One client.
struct User {
    plan: Plan,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tally: Tally,
}

/// How one attempt at a request ended.
enum Attempt {
    Answered {
        keep: bool,
    },
    /// Closed before a byte of the answer.
    Unanswered,
    Failed(String),
}

impl User {
    async fn run(mut self, number: usize) -> Tally {
        let mut connection: Option<Wire> = None;
        let mut at = number;
        while !self.stop.load(Ordering::Relaxed) {
            at = (at + 1) % self.plan.keys.len();
            let kept = connection.is_some();
            let mut wire = match connection.take() {
                Some(wire) => wire,
                None => match self.connect().await {
                    Ok(wire) => wire,
                    Err(error) if self.plan.until_refused && is_refusal(&error) => {
                        self.tally.refused += 1;
                        break;
                    }
                    Err(error) => {
                        self.tally.fail(format!("connect: {error}"));
                        continue;
                    }
                },
            };
            let began = Instant::now();
            match self.attempt(&mut wire, at).await {
                Attempt::Answered { keep } => {
                    self.tally.slowest = self.tally.slowest.max(began.elapsed());
                    connection = keep.then_some(wire);
                }
                Attempt::Unanswered if kept => self.tally.retried += 1,
                // Accepted by the kernel just before the listener closed, never by the edge: the same
                // as a refusal.
                Attempt::Unanswered if self.plan.until_refused => {
                    match self.connect().await {
                        Err(error) if is_refusal(&error) => self.tally.refused += 1,
                        _ => self
                            .tally
                            .fail("a new connection closed unanswered".to_owned()),
                    }
                    break;
                }
                Attempt::Unanswered => {
                    self.tally
                        .fail("a new connection closed unanswered".to_owned());
                }
                Attempt::Failed(why) => self.tally.fail(why),
            }
        }
        self.tally
    }

    async fn connect(&mut self) -> io::Result<Wire> {
        let stream = TcpStream::connect(self.plan.proxy).await?;
        stream.set_nodelay(true)?;
        self.tally.connections += 1;
        Ok(Wire::new(stream))
    }

    async fn attempt(&mut self, wire: &mut Wire, at: usize) -> Attempt {
        let (key, allowed) = &self.plan.keys[at];
        let request = format!("GET /load HTTP/1.1\r\nHost: edge\r\nX-Routing-Key: {key}\r\n\r\n");
        let head = match wire.send(request.as_bytes()).await {
            Err(error) if is_reset(&error) => return Attempt::Unanswered,
            Err(error) => return Attempt::Failed(format!("send: {error}")),
            Ok(()) => match wire.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Attempt::Unanswered,
                Err(error) if is_reset(&error) && wire.pending().is_empty() => {
                    return Attempt::Unanswered;
                }
                Err(error) => return Attempt::Failed(format!("head: {error}")),
            },
        };
        if let Framing::Unsaid = head.framing() {
            return Attempt::Failed(format!("an answer without framing: {}", head.start));
        }
        let body = match wire.body(head.framing()).await {
            Ok((body, _)) => body,
            Err(error) => return Attempt::Failed(format!("body: {error}")),
        };
        match verify(&head, &body, allowed) {
            Ok(cell) => {
                self.tally.ok += 1;
                self.done.fetch_add(1, Ordering::Relaxed);
                *self.tally.cells.entry(cell).or_default() += 1;
                let closes = head
                    .all("connection")
                    .iter()
                    .any(|v| v.eq_ignore_ascii_case("close"));
                Attempt::Answered { keep: !closes }
            }
            Err(why) => Attempt::Failed(format!("key {key}: {why}")),
        }
    }
}

/// An answer counts when the cell that gave it, the header and the routing decision agree on a cell that
/// the key may be sent to.
fn verify(head: &Head, body: &[u8], allowed: &[String]) -> Result<String, String> {
    let body = String::from_utf8_lossy(body);
    if head.status() != 200 {
        return Err(format!("{}: {body}", head.start));
    }
    let cell = head.get("x-cell-name").unwrap_or_default();
    if body != cell || head.get("x-routed-to") != Some(cell) {
        return Err(format!(
            "cell {cell}, body {body}, X-Routed-To {:?} do not agree",
            head.get("x-routed-to")
        ));
    }
    if !allowed.iter().any(|name| name == cell) {
        return Err(format!("answered by {cell}, allowed are {allowed:?}"));
    }
    Ok(cell.to_owned())
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused || is_reset(error)
}
