//! A conversation in M3: each message is a whole routing document, which is compiled
//! as a file is, and answered with an ack or a nack.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use url::Url;

use super::Follower;
use super::link::{Ended, Frame, Link};
use super::session::failed;
use super::v1::UnknownTypes;
use crate::background;
use crate::protocol::m3::{ConfigSnapshot, Reply};
use crate::protocol::{Close, Received, Refusal};
use crate::state::{Applied, EdgeState, Source};
use crate::telemetry::metrics::Direction;

/// Follows the control plane over `link`.
///
/// # Errors
/// Why the conversation ended, which is all that can come of it.
pub(super) async fn converse(
    follower: &Follower,
    url: &Url,
    link: &mut Link,
) -> Result<Infallible, Ended> {
    let report = &follower.report;
    report.connected(url, link.dialect, None);
    let mut unknown = UnknownTypes::default();
    loop {
        let frame = link.next().await?;
        let received = receive(&follower.edge, frame, follower.options.document_bytes);
        match link.busy_with(received).await?? {
            Outcome::Answer(reply) => {
                report.message(Direction::Received, "config_snapshot");
                let kind = match reply {
                    Reply::Ack(_) => "ack",
                    Reply::Nack(_) => "nack",
                };
                link.send(reply.encode()).await?;
                report.message(Direction::Sent, kind);
            }
            Outcome::Unknown(kind) => {
                report.message(Direction::Received, "unknown");
                unknown.log(kind);
            }
        }
    }
}

/// What follows from a frame.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Reply),
    /// Nothing: this version does not know the message type.
    Unknown(String),
}

/// Applies the document in a frame of at most `most` bytes.
///
/// # Errors
/// Why the connection has to end.
pub(super) async fn receive(
    edge: &Arc<EdgeState>,
    frame: Frame,
    most: usize,
) -> Result<Outcome, Ended> {
    let Frame::Text(text) = frame else {
        let refusal = Refusal::new(Close::Protocol, "a binary frame, of which M3 has none");
        return Err(Ended::Refused(refusal));
    };
    let edge = Arc::clone(edge);
    let received = background::run(move || {
        // Text, message and table may each be as large as the document, so each is
        // dropped as soon as the next is there.
        let received = ConfigSnapshot::decode(text.as_bytes(), most);
        drop(text);
        received.map(|received| match received {
            Received::Unknown(kind) => Outcome::Unknown(kind),
            Received::Message(ConfigSnapshot { version, document }) => {
                let now = SystemTime::now();
                let reply = match edge.apply(document.as_bytes(), Source::ControlPlane, now) {
                    Applied::Changed(_) | Applied::Unchanged => Reply::ack(&version),
                    Applied::Refused(problems) => Reply::nack(&version, &problems),
                };
                Outcome::Answer(reply)
            }
        })
    });
    received.await.map_err(failed)?.map_err(Ended::Refused)
}
