//! A conversation: what is heard goes to the dialect, what that says goes back,
//! and the clock has its say.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use url::Url;

use super::link::{Ended, Frame, Link};
use super::status::{Loads, Statuses, status};
use super::v1::{self, MAX_FRAME, Session};
use super::{Client, Stopped, m3};
use crate::protocol::limits::GREETING;
use crate::protocol::{
    Close, Hello, Received, Refusal, SnapshotLimits, ToControl, ToEdge, Welcome,
};
use crate::telemetry::metrics::Direction;

/// How many types of message that nobody knows are logged by name.
const UNKNOWN_TYPES: usize = 16;

impl Client {
    /// Speaks `cellgate.v1` until that ends.
    pub(super) async fn converse_v1(
        &self,
        url: &Url,
        link: &mut Link,
        stopped: &mut Stopped,
    ) -> Ended {
        let welcome = tokio::select! {
            _ = stopped.changed() => return Ended::Shutdown,
            welcome = self.greet(link) => match welcome {
                Ok(welcome) => welcome,
                Err(ended) => return ended,
            },
        };
        link.ping_every(Duration::from_secs(welcome.ping_seconds));
        let stale = self.report.connected(url, link.dialect, Some(&welcome));
        tokio::select! {
            // A conversation can be broken off anywhere: what is served moves in
            // one step, and nobody waits for what is left.
            _ = stopped.changed() => Ended::Shutdown,
            ended = self.follow(link, &welcome, stale) => match ended {
                Ok(never) => match never {},
                Err(ended) => ended,
            },
        }
    }

    /// Says hello and waits to be welcomed.
    async fn greet(&self, link: &mut Link) -> Result<Welcome, Ended> {
        self.send(link, ToControl::Hello(self.hello())).await?;
        let frame = match timeout(GREETING, link.next()).await {
            Ok(frame) => frame?,
            Err(_) => {
                let why = format_args!("no welcome within {} s", GREETING.as_secs());
                return Err(Refusal::new(Close::Protocol, why).into());
            }
        };
        let early = |what: &str| {
            let why = format_args!("{what} where a welcome was due");
            Err(Refusal::new(Close::Protocol, why).into())
        };
        let Frame::Text(text) = frame else {
            return early("a binary frame");
        };
        match ToEdge::decode(text.as_bytes(), MAX_FRAME)? {
            Received::Message(ToEdge::Welcome(welcome)) => {
                self.report.message(Direction::Received, "welcome");
                Ok(welcome)
            }
            Received::Message(_) => early("another message"),
            Received::Unknown(_) => early("a message of an unknown type"),
        }
    }

    fn snapshot_limits(&self) -> SnapshotLimits {
        SnapshotLimits::of_document(self.options.document_bytes as u64)
    }

    fn hello(&self) -> Hello {
        Hello {
            edge_id: self.options.edge_id.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.options.labels.clone(),
            generation: v1::held(&self.edge).map_or(0, |held| held.generation),
            digest: v1::digest(&self.edge),
            max_frame: MAX_FRAME as u64,
        }
    }

    /// From the welcome to the end.
    async fn follow(
        &self,
        link: &mut Link,
        welcome: &Welcome,
        stale: Duration,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut session = Session::new(self.edge.clone(), self.snapshot_limits());
        let mut unknown = HashSet::new();
        let mut loads = Loads::new(&self.edge, Instant::now());
        let mut statuses = Statuses::new(Instant::now(), rand::random());
        if let Some(answer) = link.busy_with(session.welcome(welcome)).await?? {
            self.send(link, answer).await?;
        }
        loop {
            self.report.newest(session.newest());
            let now = Instant::now();
            let resync = v1::until(session.resync_due(), now);
            tokio::select! {
                frame = link.next() => {
                    let outcome = link.busy_with(session.receive(frame?)).await??;
                    self.report.message(Direction::Received, outcome.kind);
                    if let Some(kind) = outcome.unknown {
                        self.unknown(&mut unknown, kind);
                    }
                    if let Some(answer) = outcome.answer {
                        self.send(link, answer).await?;
                        statuses.changed(Instant::now());
                    }
                }
                () = sleep(statuses.due().saturating_duration_since(now)) => {
                    let now = Instant::now();
                    let loads = statuses.sent(now).then_some(&mut loads);
                    let status = status(&self.edge, loads, stale, now);
                    self.send(link, ToControl::Status(status)).await?;
                }
                () = sleep(resync.unwrap_or_default()), if resync.is_some() => {
                    if let Some(wish) = session.resync(Instant::now()) {
                        self.send(link, wish).await?;
                    }
                }
            }
        }
    }

    /// Speaks M3 until that ends.
    pub(super) async fn converse_m3(
        &self,
        url: &Url,
        link: &mut Link,
        stopped: &mut Stopped,
    ) -> Ended {
        self.report.connected(url, link.dialect, None);
        tokio::select! {
            _ = stopped.changed() => Ended::Shutdown,
            ended = self.follow_m3(link) => match ended {
                Ok(never) => match never {},
                Err(ended) => ended,
            },
        }
    }

    async fn follow_m3(&self, link: &mut Link) -> Result<std::convert::Infallible, Ended> {
        let mut unknown = HashSet::new();
        loop {
            let frame = link.next().await?;
            let taken = m3::receive(&self.edge, frame, self.options.document_bytes);
            match link.busy_with(taken).await?? {
                m3::Outcome::Answer(reply) => {
                    self.report.message(Direction::Received, "config_snapshot");
                    let kind = match reply {
                        crate::protocol::m3::Reply::Ack(_) => "ack",
                        crate::protocol::m3::Reply::Nack(_) => "nack",
                    };
                    link.send(reply.encode()).await?;
                    self.report.message(Direction::Sent, kind);
                }
                m3::Outcome::Unknown(kind) => {
                    self.report.message(Direction::Received, "unknown");
                    self.unknown(&mut unknown, kind);
                }
            }
        }
    }

    async fn send(&self, link: &mut Link, message: ToControl) -> Result<(), Ended> {
        let kind = match message {
            ToControl::Hello(_) => "hello",
            ToControl::Ack(_) => "ack",
            ToControl::Nack(_) => "nack",
            ToControl::Resync(_) => "resync",
            ToControl::Status(_) => "status",
        };
        // The settings keep names to what fits.
        let text = message.encode().map_err(Ended::here)?;
        link.send(text).await?;
        self.report.message(Direction::Sent, kind);
        Ok(())
    }

    /// A later version says more: once is enough to know it.
    fn unknown(&self, known: &mut HashSet<String>, kind: String) {
        if known.len() < UNKNOWN_TYPES && !known.contains(&kind) {
            log::info!(
                target: "cellgate::source",
                "messages of the type \"{}\" are left alone: this version does not know them",
                kind.escape_debug()
            );
            known.insert(kind);
        }
    }
}
