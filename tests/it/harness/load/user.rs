//! One client of a load.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value;
use tokio::net::TcpStream;

use super::schedule::{Schedule, Turn};
use super::{Failure, Plan, Tally};
use crate::harness::client::is_reset;
use crate::harness::message::{Framing, Head};
use crate::harness::wire::Wire;

pub(super) struct User {
    plan: Arc<Plan>,
    began: Instant,
    done: Arc<AtomicU64>,
    connection: Option<Wire>,
    tally: Tally,
}

/// The outcome of one attempt at a request.
enum Attempt {
    Answered(Head, Vec<u8>),
    /// Closed before the first byte of a response.
    Unanswered,
    Failed(Failure),
}

/// The connection was refused, which ends the client.
struct Refused;

impl User {
    pub(super) fn new(plan: Arc<Plan>, began: Instant, done: Arc<AtomicU64>) -> User {
        User {
            plan,
            began,
            done,
            connection: None,
            tally: Tally::default(),
        }
    }

    pub(super) async fn run(mut self, mut schedule: Schedule) -> Tally {
        while let Some(turn) = schedule.next().await {
            if let Err(Refused) = self.take(turn).await {
                self.tally.refused += 1;
                break;
            }
        }
        self.tally
    }

    async fn take(&mut self, turn: Turn) -> Result<(), Refused> {
        let plan = self.plan.clone();
        let (key, allowed) = &plan.keys[turn.number % plan.keys.len()];
        match self.request(key, allowed).await? {
            Ok(cell) => {
                let group = (plan.group)(key);
                self.tally.good(cell, group, turn.due.elapsed());
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                let expected = (plan.expect)(&failure);
                let at = self.began.elapsed();
                self.tally.fail(key, &failure, expected, at);
                self.done.fetch_add(u64::from(expected), Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Sends one request, and again if its kept connection was closed; returns the cell that answered.
    async fn request(
        &mut self,
        key: &str,
        allowed: &[String],
    ) -> Result<Result<String, Failure>, Refused> {
        loop {
            let kept = self.connection.take();
            let fresh = kept.is_none();
            let mut wire = match kept {
                Some(wire) => wire,
                None => match self.connect().await {
                    Ok(wire) => wire,
                    Err(error) if self.plan.until_refused && is_refusal(&error) => {
                        return Err(Refused);
                    }
                    Err(error) => return Ok(Err(Failure::Connect(error.to_string()))),
                },
            };
            return match attempt(&mut wire, key).await {
                Attempt::Answered(head, body) => {
                    let closes = head
                        .all("connection")
                        .iter()
                        .any(|v| v.eq_ignore_ascii_case("close"));
                    self.connection = (!closes).then_some(wire);
                    Ok(self.judge(&head, &body, allowed))
                }
                Attempt::Failed(failure) => Ok(Err(failure)),
                Attempt::Unanswered if !fresh => {
                    self.tally.retried += 1;
                    continue;
                }
                // The kernel accepted the connection just before the listener closed, and the edge never did:
                // the same as a refusal.
                Attempt::Unanswered if self.plan.until_refused => match self.connect().await {
                    Err(error) if is_refusal(&error) => Err(Refused),
                    _ => Ok(Err(Failure::Unanswered)),
                },
                Attempt::Unanswered => Ok(Err(Failure::Unanswered)),
            };
        }
    }

    async fn connect(&mut self) -> io::Result<Wire> {
        let stream = TcpStream::connect(self.plan.proxy).await?;
        stream.set_nodelay(true)?;
        self.tally.connections += 1;
        Ok(Wire::new(stream))
    }

    fn judge(&mut self, head: &Head, body: &[u8], allowed: &[String]) -> Result<String, Failure> {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let field = |name| json.as_ref().and_then(|json| json.get(name)?.as_str());
        let (status, routed_to) = (head.status(), head.get("x-routed-to"));
        self.tally.answer(status, field("error"), routed_to);
        let text = String::from_utf8_lossy(body);
        // The demo cell has its name in a field, a scripted cell as its whole body.
        let named = field("cell").unwrap_or(&text);
        verify(head, named, allowed).map_err(Failure::Wrong)?;
        if status != 200 {
            let error = field("error").map(str::to_owned);
            return Err(Failure::Status { status, error });
        }
        Ok(named.to_owned())
    }
}

async fn attempt(wire: &mut Wire, key: &str) -> Attempt {
    let request = format!("GET /load HTTP/1.1\r\nHost: edge\r\nX-Routing-Key: {key}\r\n\r\n");
    let head = match wire.send(request.as_bytes()).await {
        Err(error) if is_reset(&error) => return Attempt::Unanswered,
        Err(error) => return Attempt::Failed(Failure::Silent(error.to_string())),
        Ok(()) => match wire.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Attempt::Unanswered,
            Err(error) if !wire.pending().is_empty() => {
                return Attempt::Failed(Failure::Cut(error.to_string()));
            }
            Err(error) if is_reset(&error) => return Attempt::Unanswered,
            Err(error) => return Attempt::Failed(Failure::Silent(error.to_string())),
        },
    };
    if let Framing::Unsaid = head.framing() {
        let problem = format!("an answer without framing: {}", head.start);
        return Attempt::Failed(Failure::Wrong(problem));
    }
    match wire.body(head.framing()).await {
        Ok((body, _)) => Attempt::Answered(head, body),
        Err(error) => Attempt::Failed(Failure::Cut(format!("{}: {error}", head.start))),
    }
}

/// A response is right when the cell's name in header and body and the routing decision agree on a placement
/// that the key may be sent to. A failed response need not name a placement, but must not name another one.
fn verify(head: &Head, named: &str, allowed: &[String]) -> Result<(), String> {
    let (status, cell, routed_to) = (
        head.status(),
        head.get("x-cell-name"),
        head.get("x-routed-to"),
    );
    let placement = cell.map(|cell| {
        cell.split_once('/')
            .map_or(cell, |(placement, _)| placement)
    });
    let agree = cell == Some(named) && placement == routed_to;
    if status == 200 && !agree {
        return Err(format!(
            "cell {cell:?}, body {named}, X-Routed-To {routed_to:?} do not agree"
        ));
    }
    for name in [placement, routed_to].into_iter().flatten() {
        if !allowed.iter().any(|allowed| allowed == name) {
            return Err(format!("{status} by {name}, allowed are {allowed:?}"));
        }
    }
    Ok(())
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused || is_reset(error)
}
