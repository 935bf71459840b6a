//! A conversation in `cellgate.v1`: hello and welcome, then deltas, snapshots and
//! checkpoints in, acks, nacks, resyncs and statuses out. [`Session`] decides what
//! each message means; this adds the connection and the clock.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use url::Url;

use super::Follower;
use super::link::{Ended, Frame, Link};
use super::session::{MAX_FRAME, Session, digest, held};
use super::status::{Loads, Statuses, status};
use crate::protocol::limits::GREETING;
use crate::protocol::{
    Close, Hello, Received, Refusal, SnapshotLimits, ToControl, ToEdge, Welcome,
};
use crate::telemetry::metrics::Direction;

/// How many unknown message types are logged by name.
const UNKNOWN_TYPES: usize = 16;

/// Follows the control plane over `link`.
///
/// # Errors
/// Why the conversation ended, which is all that can come of it.
pub(super) async fn converse(
    follower: &Follower,
    url: &Url,
    link: &mut Link,
) -> Result<Infallible, Ended> {
    let welcome = greet(follower, link).await?;
    link.ping_every(Duration::from_secs(welcome.ping_seconds));
    let stale = follower.report.connected(url, link.dialect, Some(&welcome));

    let limits = SnapshotLimits::of_document(follower.options.document_bytes as u64);
    let mut session = Session::new(follower.edge.clone(), limits);
    let mut unknown = UnknownTypes::default();
    let mut loads = Loads::new(&follower.edge, Instant::now());
    let mut statuses = Statuses::new(Instant::now(), rand::random());
    if let Some(answer) = link.busy_with(session.welcome(&welcome)).await?? {
        send(follower, link, answer).await?;
    }
    loop {
        follower.report.newest(session.newest());
        let now = Instant::now();
        let until = |due: Instant| due.saturating_duration_since(now);
        let resync = session.resync_due().map(until);
        tokio::select! {
            frame = link.next() => {
                let outcome = link.busy_with(session.receive(frame?)).await??;
                follower.report.message(Direction::Received, outcome.kind);
                if let Some(kind) = outcome.unknown {
                    unknown.log(kind);
                }
                if let Some(answer) = outcome.answer {
                    send(follower, link, answer).await?;
                    statuses.changed(Instant::now());
                }
            }
            () = sleep(until(statuses.due())) => {
                let now = Instant::now();
                let loads = statuses.sent(now).then_some(&mut loads);
                let status = status(&follower.edge, loads, stale, now);
                send(follower, link, ToControl::Status(status)).await?;
            }
            () = sleep(resync.unwrap_or_default()), if resync.is_some() => {
                if let Some(message) = session.resync(Instant::now()) {
                    send(follower, link, message).await?;
                }
            }
        }
    }
}

/// Sends the hello, and waits for the welcome.
async fn greet(follower: &Follower, link: &mut Link) -> Result<Welcome, Ended> {
    let hello = Hello {
        edge_id: follower.options.edge_id.clone(),
        instance: follower.instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: follower.options.labels.clone(),
        generation: held(&follower.edge).map_or(0, |held| held.generation),
        digest: digest(&follower.edge),
        max_frame: MAX_FRAME as u64,
    };
    send(follower, link, ToControl::Hello(hello)).await?;
    let Ok(frame) = timeout(GREETING, link.next()).await else {
        let why = format_args!("no welcome within {} s", GREETING.as_secs());
        return Err(Refusal::new(Close::Protocol, why).into());
    };
    let unexpected = |what: &str| {
        let why = format_args!("{what} in place of a welcome");
        Err(Refusal::new(Close::Protocol, why).into())
    };
    let Frame::Text(text) = frame? else {
        return unexpected("a binary frame");
    };
    match ToEdge::decode(text.as_bytes(), MAX_FRAME)? {
        Received::Message(ToEdge::Welcome(welcome)) => {
            follower.report.message(Direction::Received, "welcome");
            Ok(welcome)
        }
        Received::Message(_) => unexpected("another message"),
        Received::Unknown(_) => unexpected("a message of an unknown type"),
    }
}

async fn send(follower: &Follower, link: &mut Link, message: ToControl) -> Result<(), Ended> {
    let kind = match message {
        ToControl::Hello(_) => "hello",
        ToControl::Ack(_) => "ack",
        ToControl::Nack(_) => "nack",
        ToControl::Resync(_) => "resync",
        ToControl::Status(_) => "status",
    };
    // The settings bound names and labels, so messages fit.
    let text = message.encode().map_err(Ended::here)?;
    link.send(text).await?;
    follower.report.message(Direction::Sent, kind);
    Ok(())
}

/// Message types of later versions that came over one connection.
#[derive(Default)]
pub(super) struct UnknownTypes(HashSet<String>);

impl UnknownTypes {
    /// Logs `kind` the first time that it comes.
    pub fn log(&mut self, kind: String) {
        if self.0.len() < UNKNOWN_TYPES && !self.0.contains(&kind) {
            log::info!(
                target: "cellgate::source",
                "ignoring messages of type \"{}\", which this version does not know",
                kind.escape_debug()
            );
            self.0.insert(kind);
        }
    }
}
